//! Process memory.

mod housekeeping;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::moka::notification::RemovalCause;
use ::moka::policy::EvictionPolicy;
use ::moka::sync::{Cache as Store, CacheBuilder};
use async_trait::async_trait;

use crate::backend::{Backend, Memory, Peek};
use crate::clock::Moment;
use crate::core::{Core, Settings, setting_methods};
use crate::entry::{Answer, Draft, Entry, Stored, Want, When};
use crate::error::{Error, ErrorKind, Result};
use crate::value::{Kind, Value, integer};

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

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("entries", &self.store.entry_count())
            .finish_non_exhaustive()
    }
}

impl MokaBuilder {
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

impl Moka {
    /// Memory for at most `max_entries` entries.
    #[must_use]
    pub fn new(max_entries: u64) -> Self {
        Self::builder().max_entries(max_entries).build()
    }

    /// Settings first: bound by entries or bytes, eviction, time to idle, listener. 100,000 entries unless set.
    pub fn builder() -> MokaBuilder {
        MokaBuilder {
            settings: Settings::default(),
            max_entries: Some(100_000),
            max_bytes: None,
            time_to_idle: None,
            eviction: Eviction::default(),
            listener: None,
            round_trip: cfg!(debug_assertions),
        }
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
        let entry = self.store.get(key)?;
        let clock = &self.core.settings().clock;
        let fresh = clock.is_well_before(entry.expires()) || !entry.is_expired(clock.now());
        fresh.then_some(entry)
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
        match self.inner.live(key) {
            Some(entry) => Peek::Hit(entry),
            None => Peek::Miss,
        }
    }

    fn memory(&self) -> Option<&dyn Memory> {
        Some(&*self.inner)
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

    async fn fetch(&self, key: &str, _want: Want) -> Result<Answer> {
        Ok(self.inner.live(key).into())
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let _lock = self.inner.lock(key);
        if draft.when == When::IfAbsent && self.inner.live(key).is_some() {
            return Ok(Stored::Present);
        }
        self.inner.put(key, draft.entry);
        Ok(Stored::Done)
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let _lock = self.inner.lock(key);
        let was_there = self.inner.live(key).is_some();
        self.inner.store.invalidate(key);
        self.inner.busy.store(true, Ordering::Relaxed);
        Ok(was_there)
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
        let expires = ttl.map_or(Moment::NEVER, |ttl| self.inner.core.now().after(ttl));
        self.inner.put(key, entry.with_deadline(expires));
        Ok(true)
    }

    async fn add_to(&self, key: &str, by: i64) -> Result<i64> {
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
