//! Settings of a memory.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::moka::notification::RemovalCause;
use ::moka::policy::EvictionPolicy;
use ::moka::sync::CacheBuilder;

use super::{Inner, Moka, housekeeping};
use crate::core::{Core, Settings, setting_methods};
use crate::entry::Entry;

/// Which entry goes when memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// By frequency and recency; a new key asked for less than its rivals is refused.
    #[default]
    TinyLfu,
    /// The least recently used goes; a new key is never refused.
    Lru,
}

/// Why an entry left memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removal {
    /// It was deleted, or a tier below was written.
    Deleted,
    /// Another value took its place.
    Replaced,
    /// Its life was over, or it was idle too long.
    Expired,
    /// Memory was full.
    Evicted,
}

type Listener = Box<dyn Fn(&str, Removal) + Send + Sync>;

/// Settings of a [`Moka`].
#[must_use]
pub struct MokaBuilder {
    settings: Settings,
    max_entries: Option<u64>,
    max_bytes: Option<u64>,
    time_to_idle: Option<Duration>,
    eviction: Eviction,
    listener: Option<Listener>,
    round_trip: bool,
}

impl std::fmt::Debug for MokaBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MokaBuilder")
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .field("eviction", &self.eviction)
            .finish_non_exhaustive()
    }
}

impl MokaBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings::default(),
            max_entries: Some(100_000),
            max_bytes: None,
            time_to_idle: None,
            eviction: Eviction::default(),
            listener: None,
            round_trip: cfg!(debug_assertions),
        }
    }

    setting_methods!(settings);

    /// Bounds the number of entries.
    pub fn max_entries(mut self, entries: u64) -> Self {
        (self.max_entries, self.max_bytes) = (Some(entries), None);
        self
    }

    /// Bounds the sum of keys and encoded values in bytes, instead of the number of entries. Each value is then encoded
    /// once to weigh it. A value heavier than the bound is refused with `TooLarge`.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        (self.max_entries, self.max_bytes) = (None, Some(bytes));
        self
    }

    /// Drops entries that nobody read for this long. Costs a clock reading a hit. At most 1,000 years.
    pub fn time_to_idle(mut self, idle: Duration) -> Self {
        // moka refuses more with a panic.
        self.time_to_idle = Some(idle.min(Duration::from_secs(1000 * 365 * 24 * 3600)));
        self
    }

    /// Sets which entry goes when memory is full.
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// Sets a function that is told of every entry that leaves. It runs inside the call that caused it, under locks:
    /// it must be short and must not call the cache.
    pub fn listener(mut self, listener: impl Fn(&str, Removal) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Sets whether each value set is encoded and decoded once. On in debug builds unless set.
    pub fn round_trip(mut self, round_trip: bool) -> Self {
        self.round_trip = round_trip;
        self
    }

    /// The store.
    #[must_use]
    pub fn build(self) -> Moka {
        let core = Core::new(self.settings);
        let mut builder = CacheBuilder::default().eviction_policy(match self.eviction {
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
            Eviction::Lru => EvictionPolicy::lru(),
        });
        if let Some(bytes) = self.max_bytes {
            builder = builder.max_capacity(bytes).weigher(weigh);
        } else if let Some(entries) = self.max_entries {
            builder = builder.max_capacity(entries);
        }
        if let Some(idle) = self.time_to_idle {
            builder = builder.time_to_idle(idle);
        }
        if let Some(listener) = self.listener {
            let clock = core.settings().clock.clone();
            builder = builder.eviction_listener(move |key: Arc<Box<str>>, entry: Entry, cause| {
                listener(&key, removal(cause, entry.is_expired(clock.now())));
            });
        }
        let inner = Arc::new(Inner {
            store: builder.build_with_hasher(ahash::RandomState::new()),
            clock: core.settings().clock.clone(),
            core,
            round_trip: self.round_trip,
            max_bytes: self.max_bytes,
            locks: std::array::from_fn(|_| Mutex::default()),
            hasher: ahash::RandomState::new(),
            next_expiry: AtomicU64::new(u64::MAX),
            busy: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&inner);
        housekeeping::register(weak);
        Moka { inner }
    }
}

#[expect(
    clippy::borrowed_box,
    reason = "moka's weigher takes the key type by reference"
)]
fn weigh(key: &Box<str>, entry: &Entry) -> u32 {
    u32::try_from(key.len())
        .unwrap_or(u32::MAX)
        .saturating_add(entry.weight())
}

fn removal(cause: RemovalCause, expired: bool) -> Removal {
    match cause {
        RemovalCause::Expired => Removal::Expired,
        RemovalCause::Explicit if expired => Removal::Expired,
        RemovalCause::Explicit => Removal::Deleted,
        RemovalCause::Replaced => Removal::Replaced,
        RemovalCause::Size => Removal::Evicted,
    }
}
