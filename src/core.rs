//! What every store owns: its settings, flights, fence and counters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{Clock, Moment};
use crate::codec::Format;
use crate::coherence::{Interest, Invalidation, MAX_STALENESS, Source, Subscription};
use crate::entry::{Noted, Ticket};
use crate::fence::Fence;
use crate::flight::Flights;
use crate::generation::OwnTags;
use crate::options::Options;
use crate::refusal::Refusal;
use crate::stats::{Counters, Stats};
use crate::tasks::{Refreshes, Tasks};
use crate::ttl::Ttl;

/// The longest bound there is: a day. Instants that are further off cannot be told on every system.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How a store behaves for its callers, whatever it is made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What [`Ttl::Default`] means. 300 seconds unless set.
    pub default_ttl: Ttl,
    /// How long callers wait for a leader that neither finishes nor goes away before one of them computes too.
    /// 5 seconds unless set.
    pub leader_patience: Duration,
    /// The bound on one call of the store. 2 seconds unless set, a day at most; a store over a network bounds itself far
    /// below it.
    pub store_timeout: Duration,
    /// How long ago something may have been invalidated by others that is answered still. 1 second unless set.
    pub max_staleness: Duration,
    /// Whether `get_or_set` answers a store's errors instead of computing past them. Off unless set.
    pub strict: bool,
    /// How values become bytes and back.
    pub format: Format,
    /// What calls that do not say otherwise want, and their values have: grace, timeouts, tags. Its ttl, where it has one, stands over
    /// [`default_ttl`](Self::default_ttl).
    pub options: Options,
    /// How many computes of the cache run at a time; the others wait for their turn, for their hard timeout or the leader's
    /// patience at most, and are an error of kind [`Busy`](crate::ErrorKind::Busy) then. No bound unless set.
    pub max_computes: usize,
    /// How many values are [refreshed ahead](Options::refresh_ahead) at a time. 64 unless set.
    pub max_refreshes: usize,
    /// What the keys of memoized functions, of cached views, and of [`prefixed`](crate::Cache::prefixed) handles begin with; no others.
    /// Nothing unless set. Applications that share a store choose different ones.
    pub key_prefix: Cow<'static, str>,
    /// Where the time is read.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_ttl: Ttl::After(Duration::from_secs(300)),
            leader_patience: Duration::from_secs(5),
            store_timeout: Duration::from_secs(2),
            max_staleness: MAX_STALENESS,
            strict: false,
            format: Format::default(),
            options: Options::default(),
            max_computes: usize::MAX,
            max_refreshes: 64,
            key_prefix: Cow::Borrowed(""),
            clock: Clock::default(),
        }
    }
}

impl Settings {
    fn bounded(mut self) -> Self {
        self.store_timeout = self.store_timeout.min(MAX_WAIT);
        self
    }
}

/// What every [`Backend`](crate::Backend) owns one of: settings, the computes under way, and counters. Clones share all of it.
///
/// A store of your own holds `Core::default()` and answers it from [`Backend::core`](crate::Backend::core); that is all
/// it does for single flight, write fencing and counting.
#[derive(Clone, Debug)]
pub struct Core(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    shared: Arc<SharedState>,
    counters: Counters,
    tasks: Tasks,
    refreshes: Refreshes,
    /// A turn for each compute that may run at a time.
    turns: Semaphore,
    /// Whether the store's reads of one key see to their own bound, and need no timer besides.
    bounds_reads: bool,
}

/// What a store shares with the tiers above it, so that they coalesce and invalidate each other.
#[derive(Debug)]
struct SharedState {
    flights: Arc<Flights>,
    fence: Arc<Fence>,
    tags: OwnTags,
    /// Whose copies this store holds as the upper part of a tier, by its own prefix: those of one namespace of one store.
    copies_of: Mutex<HashMap<String, (u64, String)>>,
    /// Tells this store from all others of the process, also from those that are gone.
    id: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Default for Core {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Core {
    /// A core with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let shared = SharedState {
            flights: Arc::new(Flights::new()),
            fence: Arc::new(Fence::new()),
            tags: OwnTags::default(),
            copies_of: Mutex::default(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        };
        Self::of(settings, Arc::new(shared))
    }

    /// A core with settings and counters of its own that shares the flights and the fence of the store below.
    #[must_use]
    pub fn above(below: &Self, settings: Settings) -> Self {
        Self::of(settings, Arc::clone(&below.0.shared))
    }

    fn of(settings: Settings, shared: Arc<SharedState>) -> Self {
        let settings = settings.bounded();
        Self(Arc::new(Inner {
            refreshes: Refreshes::new(settings.max_refreshes),
            turns: Semaphore::new(settings.max_computes.min(Semaphore::MAX_PERMITS)),
            settings,
            shared,
            counters: Counters::default(),
            tasks: Tasks::default(),
            bounds_reads: false,
        }))
    }

    /// The same for a store whose reads of one key never take longer than they should. Before anybody else has it.
    #[must_use]
    pub(crate) fn bounding_reads(mut self, bounds: bool) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.bounds_reads = bounds;
        }
        self
    }

    pub(crate) fn bounds_reads(&self) -> bool {
        self.0.bounds_reads
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// How values become bytes and back.
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.0.settings.format
    }

    /// The time now, on the store's clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.0.settings.clock.now()
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.0.counters.snapshot();
        stats.sources = self.fence().statuses();
        stats
    }

    /// How many computes are under way, in this store and the tiers that share its flights.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.shared.flights.len()
    }

    /// Counts stored bytes that were no value for their reader, and logs them.
    pub fn refuse(&self, key: &str, why: Refusal) {
        self.0.counters.refused(why);
        tracing::debug!(target: "larder", event = "refused", key = key.escape_debug().to_string(), reason = why.as_str());
    }

    /// Makes this store, under `own_prefix`, hold copies of what `below` holds under `prefix`. `false` if it holds copies
    /// of something else already, or is `below` itself: their keys would be mixed up.
    pub(crate) fn claim(&self, own_prefix: &str, below: &Self, prefix: &str) -> bool {
        let id = below.0.shared.id;
        if self.0.shared.id == id {
            return false;
        }
        let mut copies_of = self
            .0
            .shared
            .copies_of
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Of two prefixes that overlap, the longer must be longer by the same below.
        let agrees = |(own, (owner, theirs)): (&String, &(u64, String))| {
            let below = if let Some(rest) = own_prefix.strip_prefix(&**own) {
                prefix.strip_prefix(&**theirs) == Some(rest)
            } else if let Some(rest) = own.strip_prefix(own_prefix) {
                theirs.strip_prefix(prefix) == Some(rest)
            } else {
                return true;
            };
            below && *owner == id
        };
        let free = copies_of.iter().all(agrees);
        if free {
            copies_of.insert(own_prefix.to_owned(), (id, prefix.to_owned()));
        }
        free
    }

    /// The computes that go on when their callers are gone.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// A turn for each compute that may run at a time; nothing where as many may as there are.
    pub(crate) fn turns(&self) -> Option<&Semaphore> {
        (self.0.settings.max_computes < Semaphore::MAX_PERMITS).then_some(&self.0.turns)
    }

    pub(crate) fn refreshes(&self) -> &Refreshes {
        &self.0.refreshes
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    pub(crate) fn flights(&self) -> &Arc<Flights> {
        &self.0.shared.flights
    }

    /// Has a subscriber told of every write of a key under `prefix`, as stored, that is made through a
    /// [`Cache`](crate::Cache) over this core or that the store [tells](Self::tell) of, until the answer is dropped.
    pub fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
        self.fence().subscribe(prefix, interest)
    }

    /// A new source of this store: one for each place that tells of its writes. The label is shown, so no password in it.
    #[must_use]
    pub fn source(&self, label: &str) -> Source {
        self.fence().source(label)
    }

    /// For a store that hears of writes by others: memory above it drops the keys, as stored, and takes no copy that was read
    /// before. A [`Source`] says besides until when it is heard.
    pub fn tell(&self, what: Invalidation<'_>) {
        self.fence().written(what);
    }

    /// How things stand in a store of this process, whose every write this core hears of.
    pub(crate) fn ticket(&self) -> Ticket {
        Noted::Own(self.tags().count()).into()
    }

    /// The tags of a store of this process alone.
    pub(crate) fn tags(&self) -> &OwnTags {
        &self.0.shared.tags
    }

    pub(crate) fn fence(&self) -> &Arc<Fence> {
        &self.0.shared.fence
    }
}

/// The settings that every builder offers, written once.
macro_rules! setting_methods {
    ($($field:ident).+) => {
        /// Sets all settings at once.
        pub fn settings(mut self, settings: crate::core::Settings) -> Self {
            self.$($field).+ = settings;
            self
        }

        /// Sets what [`Ttl::Default`](crate::Ttl::Default) means. 300 seconds unless set.
        pub fn default_ttl(mut self, ttl: impl Into<crate::ttl::Ttl>) -> Self {
            self.$($field).+.default_ttl = ttl.into();
            self
        }

        /// Sets how long callers wait for a leader that neither finishes nor goes away. 5 seconds unless set.
        pub fn leader_patience(mut self, patience: std::time::Duration) -> Self {
            self.$($field).+.leader_patience = patience;
            self
        }

        /// Sets the bound on one call of the store. 2 seconds unless set.
        pub fn store_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($field).+.store_timeout = timeout;
            self
        }

        /// Bounds how long ago a value may have been overwritten, deleted or invalidated by others that is still answered. 1
        /// second unless set; zero asks the store below for every read.
        ///
        /// In memory, copies from a server that tells of its writes are answered while it gave a sign of life that was asked for
        /// less than this ago: it is asked four times as often. From one that does not tell, they live for this long. A store
        /// of this process alone is never behind. A server without memory in front is asked for its generations once in this time.
        pub fn max_staleness(mut self, bound: std::time::Duration) -> Self {
            self.$($field).+.max_staleness = bound.min(crate::core::MAX_WAIT);
            self
        }

        /// Makes `get_or_set` answer a store's errors instead of computing past them.
        pub fn strict(mut self, strict: bool) -> Self {
            self.$($field).+.strict = strict;
            self
        }

        /// Sets how values become bytes and back: codec, schemas, bound on size.
        pub fn format(mut self, format: crate::codec::Format) -> Self {
            self.$($field).+.format = format;
            self
        }

        /// Sets the codec, MessagePack unless set.
        pub fn codec(mut self, codec: impl crate::codec::Codec) -> Self {
            self.$($field).+.format = self.$($field).+.format.codec(codec);
            self
        }

        /// Sets the version that goes into every schema id: raise it, and all that was stored before is a miss.
        pub fn schema_version(mut self, version: u32) -> Self {
            self.$($field).+.format = self.$($field).+.format.schema_version(version);
            self
        }

        /// Sets what calls that do not say otherwise want, and their values have: grace, timeouts, tags.
        pub fn options(mut self, options: crate::options::Options) -> Self {
            self.$($field).+.options = options;
            self
        }

        /// Bounds how many computes of the cache run at a time. The others wait for their turn, for their hard timeout or the leader's
        /// patience at most; then their callers have the stale value where there is one, or else an error of kind `Busy`. A compute that
        /// computes another key needs a turn for each. No bound unless set.
        pub fn max_computes(mut self, count: usize) -> Self {
            self.$($field).+.max_computes = count;
            self
        }

        /// Sets how many values are refreshed ahead at a time. 64 unless set.
        pub fn max_refreshes(mut self, count: usize) -> Self {
            self.$($field).+.max_refreshes = count;
            self
        }

        /// Sets what the keys of memoized functions, of cached views, and of [`prefixed`](crate::Cache::prefixed) handles begin
        /// with: one for each application that shares the store. Plain `get`, `set` and the like take keys as they are.
        pub fn key_prefix(mut self, prefix: impl Into<std::borrow::Cow<'static, str>>) -> Self {
            self.$($field).+.key_prefix = prefix.into();
            self
        }

        /// Sets where the time is read: a manual clock in tests.
        pub fn clock(mut self, clock: crate::clock::Clock) -> Self {
            self.$($field).+.clock = clock;
            self
        }
    };
}

pub(crate) use setting_methods;
