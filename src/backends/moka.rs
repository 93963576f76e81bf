//! Process memory.

mod builder;
mod housekeeping;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::moka::sync::Cache as Store;
use async_trait::async_trait;

use crate::backend::{Backend, Memory, Peek};
use crate::clock::Clock;
use crate::coherence::Origin;
use crate::core::Core;
use crate::entry::{Answer, Draft, Entry, Noted, Stored, Want, When};
use crate::error::{Error, ErrorKind, Result};
use crate::explain::{Place, Trace, Why};
use crate::refusal::Refusal;
use crate::value::{Kind, Value, integer};

pub use builder::{Eviction, MokaBuilder, Removal};

const LOCKS: usize = 64;

/// Process memory, over the `moka` crate: bounded, concurrent, with a ttl for each entry.
///
/// Values are kept as objects: a hit is a reference count, without decoding. Works in a `static` and outside tokio.
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Moka};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let cache = Moka::new(100_000);
/// cache.set("greeting", "hello".to_owned(), Duration::from_secs(60)).await.unwrap();
/// assert_eq!(cache.get::<String>("greeting").await.unwrap().as_deref(), Some("hello"));
/// # });
/// ```
///
/// # Eviction
///
/// The default, [`Eviction::TinyLfu`], has the better hit rate and may refuse a new key in favour of those asked for
/// more often: once memory is full, a `get` right after a `set` can miss. [`Eviction::Lru`] never refuses.
///
/// # Round trip
///
/// In debug builds each value that is set is encoded and decoded once, so that a type that would fail on Redis fails in tests.
/// [`MokaBuilder::round_trip`] turns it on or off.
#[derive(Clone, Debug)]
pub struct Moka {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store<Box<str>, Entry, ahash::RandomState>,
    core: Core,
    /// The core's, at hand where every hit looks.
    clock: Clock,
    round_trip: bool,
    max_bytes: Option<u64>,
    /// One lock for each share of the keys, held by every write: moka's own do not exclude each other.
    locks: [Mutex<()>; LOCKS],
    hasher: ahash::RandomState,
    /// The earliest deadline among the entries, or before it. Nanoseconds.
    next_expiry: AtomicU64,
    /// Whether moka has work put off that only its next call would do.
    busy: AtomicBool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("entries", &self.store.entry_count())
            .finish_non_exhaustive()
    }
}

impl Moka {
    /// Memory for at most `max_entries` entries.
    #[must_use]
    pub fn new(max_entries: u64) -> Self {
        Self::builder().max_entries(max_entries).build()
    }

    /// Settings first: bound by entries or bytes, eviction, time to idle, listener. 100,000 entries unless set.
    pub fn builder() -> MokaBuilder {
        MokaBuilder::new()
    }

    /// How many entries memory holds, after moka's pending work is done.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.inner.store.run_pending_tasks();
        self.inner.store.entry_count()
    }
}

impl Inner {
    fn lock(&self, key: &str) -> MutexGuard<'_, ()> {
        let index = usize::try_from(self.hasher.hash_one(key) % LOCKS as u64).unwrap_or(0);
        self.locks[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry under a key, if its life is not over.
    fn live(&self, key: &str) -> Option<Entry> {
        self.answered(key).filter(|entry| !entry.is_rearmed())
    }

    /// The entry under a key, if its life is not over or it was rearmed.
    fn answered(&self, key: &str) -> Option<Entry> {
        let entry = self.store.get(key)?;
        let clock = &self.clock;
        let fresh = clock.is_well_before(entry.answered_until()) || !entry.is_stale(clock.now());
        (fresh && entry.is_current()).then_some(entry)
    }

    /// The entry under a key, stale or not.
    fn kept(&self, key: &str) -> Option<Entry> {
        let entry = self.store.get(key)?;
        (!entry.is_expired(self.clock.now()) && entry.is_current()).then_some(entry)
    }

    /// What is held under a key, answerable or not.
    fn trace(&self, key: &str, want: Want) -> Trace {
        let (place, now) = (Place::of::<Moka>().in_memory(), self.clock.now());
        match self.store.get(key) {
            Some(entry) if entry.is_expired(now) => Trace::missing(place, Why::Expired),
            Some(entry) if !entry.is_current() => Trace::missing(place, Why::Refused(Refusal::Tag)),
            found => Trace::of(place, Ok(found.into()), want, now),
        }
    }

    /// The entry with its tags; nothing if one of them was invalidated since its compute began.
    fn tagged(&self, draft: &Draft, key: &str) -> Option<Entry> {
        let entry = draft.entry.clone();
        if draft.tags.is_empty() {
            return Some(entry);
        }
        let namespace = key.get(..draft.namespace).unwrap_or(key);
        let count = match draft.ticket.noted {
            Noted::Own(count) => Some(count),
            _ => None,
        };
        let tags = self.core.tags().attach(namespace, &draft.tags, count)?;
        Some(entry.with_tags(tags))
    }

    /// Puts an entry in; the caller holds the key's lock.
    fn put(&self, key: &str, entry: Entry) {
        self.busy.store(true, Ordering::Relaxed);
        if entry.is_expired(self.core.now()) {
            self.store.invalidate(key);
            return;
        }
        let expires = entry.expires().as_nanos();
        self.store.insert(key.into(), entry);
        // After the insertion: a sweep that begins between would forget the deadline.
        self.next_expiry.fetch_min(expires, Ordering::Relaxed);
    }

    fn drop_key(&self, key: &str) {
        self.busy.store(true, Ordering::Relaxed);
        let _lock = self.lock(key);
        self.store.invalidate(key);
    }

    fn drop_under(&self, prefix: &str) {
        for (key, _) in &self.store {
            if key.starts_with(prefix) {
                self.drop_key(&key);
            }
        }
    }

    fn is_too_heavy(&self, key: &str, entry: &Entry) -> bool {
        let weight = key.len() as u64 + u64::from(entry.weight());
        self.max_bytes.is_some_and(|max| weight > max)
    }
}

impl Memory for Inner {
    fn insert(&self, key: &str, mut entry: Entry) {
        if self.max_bytes.is_some() && entry.weight() == 0 {
            match self.core.format().seal(key, &entry) {
                Ok(bytes) => entry = entry.weighing(bytes.len()),
                Err(_) => return self.drop_key(key),
            }
        }
        if self.is_too_heavy(key, &entry) {
            return self.drop_key(key);
        }
        let _lock = self.lock(key);
        self.put(key, entry);
    }

    fn evict(&self, key: &str) {
        self.drop_key(key);
    }

    fn evict_under(&self, prefix: &str) {
        self.drop_under(prefix);
    }
}

#[async_trait]
impl Backend for Moka {
    fn core(&self) -> &Core {
        &self.inner.core
    }

    fn peek(&self, key: &str) -> Peek {
        match self.inner.answered(key) {
            Some(entry) => Peek::Hit(entry),
            None => Peek::Miss,
        }
    }

    fn memory(&self) -> Option<&dyn Memory> {
        Some(&*self.inner)
    }

    fn origin(&self, _key: &str) -> Origin {
        Origin::OWN
    }

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        let inner = &*self.inner;
        if !inner.round_trip && inner.max_bytes.is_none() {
            return Ok(());
        }
        let entry = &draft.entry;
        let bytes = inner.core.format().seal(key, entry)?;
        let mut entry = entry.clone().weighing(bytes.len());
        if inner.round_trip {
            let kind = entry.value().kind();
            let value = inner
                .core
                .format()
                .open(key, &bytes, Some(kind), entry.born())
                .map_err(|why| {
                    Error::new(
                        ErrorKind::Decode,
                        "the value does not survive being encoded and decoded",
                    )
                    .with("type", kind.type_name())
                    .with("reason", why.as_str())
                })?;
            entry = entry.with_value(value.into_value());
        }
        if inner.is_too_heavy(key, &entry) {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "the value alone exceeds the memory's bound",
            )
            .with("bytes", entry.weight()));
        }
        draft.entry = entry;
        Ok(())
    }

    fn keeps_tags(&self) -> bool {
        true
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
        self.inner.core.tags().invalidate(prefix, tag);
        Ok(())
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        let found = if want.stale {
            self.inner.kept(key)
        } else {
            self.inner.live(key)
        };
        Ok(found.into())
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        self.inner.trace(key, want)
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let Some(entry) = self.inner.tagged(&draft, key) else {
            return Ok(Stored::Outrun);
        };
        let _lock = self.inner.lock(key);
        if draft.when == When::IfAbsent && self.inner.live(key).is_some() {
            return Ok(Stored::Present);
        }
        self.inner.put(key, entry);
        Ok(Stored::Done)
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let _lock = self.inner.lock(key);
        let was_there = self.inner.live(key).is_some();
        self.inner.store.invalidate(key);
        self.inner.busy.store(true, Ordering::Relaxed);
        Ok(was_there)
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        let _lock = self.inner.lock(key);
        let live = self.inner.kept(key);
        let same = live.is_some_and(|entry| entry.value().is_same(draft.entry.value()));
        if same {
            self.inner.store.invalidate(key);
            self.inner.busy.store(true, Ordering::Relaxed);
        }
        Ok(same)
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.inner.drop_under(prefix);
        Ok(())
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        let _lock = self.inner.lock(key);
        let Some(entry) = self.inner.live(key) else {
            return Ok(false);
        };
        let now = self.inner.core.now();
        // A zero life removes it, and its grace with it.
        let entry = match ttl {
            Some(ttl) if ttl.is_zero() => entry.with_deadline(now),
            ttl => entry.with_life(now, ttl),
        };
        self.inner.put(key, entry);
        Ok(true)
    }

    async fn add_to(&self, key: &str, by: i64, _namespace: usize) -> Result<i64> {
        let _lock = self.inner.lock(key);
        let entry = self.inner.live(key);
        let current = match &entry {
            None => 0,
            Some(entry) => counter(entry).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotACounter,
                    "the key does not hold an integer that was set",
                )
            })?,
        };
        let sum = current.checked_add(by).ok_or_else(|| {
            Error::new(ErrorKind::Overflow, "the sum is outside the range of i64")
        })?;
        // Of the type that was set, where it fits: reads of that type then need no conversion.
        let kind = entry
            .as_ref()
            .map_or_else(Kind::of::<i64>, |entry| entry.value().kind());
        let value = kind
            .from_plain(sum.to_string().as_bytes())
            .unwrap_or_else(|| Value::new(sum));
        let entry = match entry {
            Some(entry) => entry.with_value(value),
            None => Entry::new(value, self.inner.core.now(), None).bare(true),
        };
        self.inner.put(key, entry.weighing(20));
        Ok(sum)
    }
}

/// The counter that an entry is, in the form that Redis's `INCR` would accept.
fn counter(entry: &Entry) -> Option<i64> {
    if !entry.is_bare() {
        return None;
    }
    i64::try_from(integer(entry.value())?).ok()
}
