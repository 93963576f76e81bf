//! A fast store in front of a shared one.

mod bulk;
mod copies;
mod trace;

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, Memory, Peek};
use crate::coherence::{Interest, Invalidation, Origin, SourceStatus, Subscriber, Subscription};
use crate::core::{Core, Settings, setting_methods};
use crate::entry::{Answer, Claim, Draft, Entry, Lease, Stored, Ticket, Want};
use crate::error::Result;
use crate::explain::Trace;
use crate::ttl::Remaining;

/// How long a computed value stands in for one that could not be stored.
const OUTAGE_TTL: Duration = Duration::from_secs(1);

/// Two stores as one: `l1`, usually memory, holds copies of what `l2` holds. Nests on either side.
///
/// Reads ask `l1`, then `l2`, and copy what `l2` had into `l1` for what is left of its life, at most
/// [`max_l1_ttl`](TieredBuilder::max_l1_ttl). Writes are decided by `l2`; `l1` never keeps an older value than this
/// process wrote, whichever handle on `l2` wrote it.
///
/// Writes by others empty memory too: a Redis server tells of every write under the prefix, by whomever, within a
/// millisecond or so. And memory is never behind by more than [`max_staleness`](TieredBuilder::max_staleness), 1 second
/// unless set, whatever the network does: where a server is not surely heard, reads ask it. docs/GUARANTEES.md has it in full.
///
/// ```
/// use larder::{Cache, Moka, Tiered};
/// let cache = Tiered::new(Moka::new(1_000), Moka::new(100_000));
/// # let _ = cache.stats();
/// ```
///
/// An `l1` that is not memory of this process works, with a weaker promise: it hears only of writes through this very
/// `Tiered`, is filled by reads alone, and keeps copies for `max_staleness`.
///
/// One `l1` holds the copies of one store and prefix: a second tier over it that has another below leaves it alone.
/// Building a tier empties the memory of its `l1`.
#[derive(Debug)]
pub struct Tiered<L1, L2> {
    inner: Arc<Inner<L1, L2>>,
}

#[derive(Debug)]
struct Inner<L1, L2> {
    l1: L1,
    l2: L2,
    core: Core,
    max_l1_ttl: Option<Duration>,
    outage_ttl: Duration,
    max_staleness: Duration,
    /// Whether `l1` is this tier's own. One that holds another's copies is left alone.
    holds_copies: bool,
    /// To writes of `l2`, if `l1` is this tier's own.
    _subscription: Option<Subscription>,
}

/// Settings of a [`Tiered`].
#[derive(Debug)]
#[must_use]
pub struct TieredBuilder<L1, L2> {
    l1: L1,
    l2: L2,
    settings: Settings,
    max_l1_ttl: Option<Duration>,
    outage_ttl: Duration,
}

impl<L1: Backend, L2: Backend> TieredBuilder<L1, L2> {
    setting_methods!(settings);

    /// Bounds how long a copy stays in `l1` before `l2` is asked again. Without it, as long as the value lives.
    pub fn max_l1_ttl(mut self, ttl: Duration) -> Self {
        self.max_l1_ttl = Some(ttl);
        self
    }

    /// Sets how long memory keeps a computed value that `l2` could not store, because its node is down, slow, full or read
    /// only: so each process computes a key about once in this time, and not for every caller. 1 second unless set; zero
    /// keeps none, nor does a strict cache. It is never kept for longer than [`max_staleness`](Self::max_staleness), counted from when its compute
    /// began, nor once the writes of others are heard again.
    pub fn outage_ttl(mut self, ttl: Duration) -> Self {
        self.outage_ttl = ttl;
        self
    }

    /// The store.
    #[must_use]
    pub fn build(self) -> Tiered<L1, L2> {
        let below = self.l2.core();
        let bounds_reads = self.l1.memory().is_some()
            && below.bounds_reads()
            && self.settings.store_timeout >= below.settings().store_timeout;
        let max_staleness = self.settings.max_staleness;
        let core = Core::above(self.l2.core(), self.settings).bounding_reads(bounds_reads);
        let below = self.l2.stored_key("").into_owned();
        let holds_copies = {
            let own = self.l1.stored_key("");
            self.l1.core().claim(&own, self.l2.core(), &below)
        };
        if !holds_copies {
            tracing::error!(target: "larder", event = "l1_shared",
                "this l1 holds copies of another store or prefix already, or is l2 itself; every read will ask l2 (give each tier an l1 of its own)");
        }
        let inner = Arc::new_cyclic(|inner| {
            let hearing = Hearing(Weak::clone(inner));
            Inner {
                _subscription: holds_copies.then(|| hearing.begin(&self.l2, max_staleness)),
                l1: self.l1,
                l2: self.l2,
                core,
                max_l1_ttl: self.max_l1_ttl,
                outage_ttl: self.outage_ttl,
                max_staleness,
                holds_copies,
            }
        });
        if holds_copies {
            // What an earlier tier left in it, or the application put there, has not heard of the writes since.
            inner.evict_under(&below);
        }
        Tiered { inner }
    }
}

impl<L1: Backend, L2: Backend> Tiered<L1, L2> {
    /// `l1` in front of `l2`, with the settings of `l2`.
    #[must_use]
    pub fn new(l1: L1, l2: L2) -> Self {
        Self::builder(l1, l2).build()
    }

    /// Settings first. They begin as those of `l2`.
    pub fn builder(l1: L1, l2: L2) -> TieredBuilder<L1, L2> {
        let settings = l2.core().settings().clone();
        TieredBuilder {
            l1,
            l2,
            settings,
            max_l1_ttl: None,
            outage_ttl: OUTAGE_TTL,
        }
    }

    /// How things stand with each place whose writes memory hears of: one for each server. Empty where `l2` is of this
    /// process alone, or does not tell of writes by others at all.
    #[must_use]
    pub fn coherence(&self) -> Vec<SourceStatus> {
        self.inner.core.fence().statuses()
    }

    /// The two stores.
    #[must_use]
    pub fn get_ref(&self) -> (&L1, &L2) {
        (&self.inner.l1, &self.inner.l2)
    }
}

impl<L1: Clone, L2: Clone> Tiered<L1, L2> {
    /// The two stores, by themselves.
    #[must_use]
    pub fn into_inner(self) -> (L1, L2) {
        (self.inner.l1.clone(), self.inner.l2.clone())
    }
}

impl<L1, L2> Clone for Tiered<L1, L2> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

/// What a tier does with what it hears of `l2`.
struct Hearing<L1, L2>(Weak<Inner<L1, L2>>);

impl<L1: Backend, L2: Backend> Hearing<L1, L2> {
    fn begin(self, l2: &L2, max_staleness: Duration) -> Subscription {
        let interest = Interest::new(Arc::new(self));
        if max_staleness.is_zero() {
            // What others write is asked for each time.
            return l2.core().subscribe(&l2.stored_key(""), interest);
        }
        l2.subscribe("", interest.max_staleness(max_staleness))
    }
}

impl<L1: Backend, L2: Backend> Subscriber for Hearing<L1, L2> {
    fn hear(&self, what: Invalidation<'_>) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        match what {
            Invalidation::Keys(keys) => keys.iter().for_each(|key| inner.evict(key)),
            Invalidation::Under(prefix) => inner.evict_under(prefix),
            // Copies say by themselves that they are void.
            Invalidation::All | Invalidation::Gap => {}
        }
    }
}

impl<L1: Backend, L2: Backend> Inner<L1, L2> {
    fn evict(&self, stored: &str) {
        let Some(key) = self.l2.own_key(stored) else {
            return;
        };
        match self.l1.memory() {
            Some(memory) => memory.evict(key),
            // An l1 that is a tier itself: its memory at least.
            None => drop(self.l1.core().fence().write(&self.l1.stored_key(key))),
        }
    }

    fn evict_under(&self, prefix: &str) {
        let under = match self.l2.own_key(prefix) {
            Some(own) => own,
            // All of this store's keys lie under a shorter prefix.
            None if self.l2.stored_key("").starts_with(prefix) => "",
            None => return,
        };
        match self.l1.memory() {
            Some(memory) => memory.evict_under(under),
            None => drop(self.l1.core().fence().clear(&self.l1.stored_key(under))),
        }
    }
}

// As a memory it is changed from above, past its own cache: fenced like any write, or a copy on its way from l2 to l1
// would outlive what happened here.
impl<L1: Backend, L2: Backend> Memory for Tiered<L1, L2> {
    fn insert(&self, key: &str, entry: Entry) {
        let stored = self.inner.l2.stored_key(key);
        let _write = self.inner.core.fence().write(&stored);
        self.inner
            .memories()
            .for_each(|memory| memory.insert(key, entry.clone()));
    }

    fn evict(&self, key: &str) {
        let stored = self.inner.l2.stored_key(key);
        let _write = self.inner.core.fence().write(&stored);
        self.inner.memories().for_each(|memory| memory.evict(key));
    }

    fn evict_under(&self, prefix: &str) {
        let stored = self.inner.l2.stored_key(prefix);
        let _clear = self.inner.core.fence().clear(&stored);
        self.inner
            .memories()
            .for_each(|memory| memory.evict_under(prefix));
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L1: Backend, L2: Backend> Backend for Tiered<L1, L2> {
    fn core(&self) -> &Core {
        &self.inner.core
    }

    fn peek(&self, key: &str) -> Peek {
        if self.inner.holds_copies {
            match self.inner.l1.peek(key) {
                Peek::Hit(entry) if self.inner.trusts(key, &entry) => return Peek::Hit(entry),
                Peek::Ask => return Peek::Ask,
                _ => {}
            }
        }
        // Only l2 can tell that nothing is there. If it is memory too, it tells at once; what it holds goes the long
        // way, through which it enters l1.
        match self.inner.l2.peek(key) {
            Peek::Miss => Peek::Miss,
            _ => Peek::Ask,
        }
    }

    fn memory(&self) -> Option<&dyn Memory> {
        let both = self.inner.l1.memory().is_some() && self.inner.l2.memory().is_some();
        both.then_some(self)
    }

    fn stored_key<'k>(&self, key: &'k str) -> Cow<'k, str> {
        self.inner.l2.stored_key(key)
    }

    fn own_key<'k>(&self, stored: &'k str) -> Option<&'k str> {
        self.inner.l2.own_key(stored)
    }

    fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
        self.inner.l2.subscribe(prefix, interest)
    }

    fn origin(&self, key: &str) -> Origin {
        self.inner.l2.origin(key)
    }

    fn vouches(&self, key: &str, origin: Origin) -> bool {
        self.inner.l2.vouches(key, origin)
    }

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        self.inner.l2.prepare(key, draft)
    }

    async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
        self.inner.l2.begin(keys, namespace).await
    }

    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
        self.inner.claim_each(keys, want, lease).await
    }

    async fn hold(&self, key: &str, ticket: &Ticket, life: Option<Duration>) -> Result<bool> {
        self.inner.l2.hold(key, ticket, life).await
    }

    fn keeps_tags(&self) -> bool {
        self.inner.l2.keeps_tags()
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
        self.inner.l2.invalidate(prefix, tag).await
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        if let Some(entry) = self.inner.in_l1(key, want).await {
            return Ok(entry.into());
        }
        let noted = self.inner.note(key);
        let want = self.inner.wanted(want);
        let answer = match self.inner.l2.fetch(key, want).await {
            Ok(answer) => answer,
            Err(error) => return self.inner.stale_in_l1(key, want).await.ok_or(error),
        };
        self.inner.fill(key, noted, &answer).await;
        Ok(answer)
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        self.inner.trace_both(key, want).await
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let noted = self.inner.note(key);
        let copy = self.inner.copy_of(key, &draft, noted);
        let stands_in = self.inner.stands_in(&draft, noted);
        self.inner.make_way(&[key]).await;
        let stored = self.inner.l2.store(key, draft).await;
        self.inner.settle(key, noted, copy, stands_in, &stored);
        stored
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.inner.make_way(&[key]).await;
        let removed = self.inner.l2.remove(key).await;
        self.inner.drop_copy(key);
        removed
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.inner.make_way(&[key]).await;
        let retracted = self.inner.l2.retract(key, draft).await;
        self.inner.drop_copy(key);
        retracted
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        // The fence of a clear has emptied memory already.
        let mut emptied = Ok(());
        if self.inner.l1.memory().is_none() && self.inner.holds_copies {
            let stored = self.inner.l1.stored_key(prefix);
            let _clear = self.inner.l1.core().fence().clear(&stored);
            emptied = self.inner.l1.wipe(prefix).await;
        }
        self.inner.l2.wipe(prefix).await.and(emptied)
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        self.inner.l2.contains(key).await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        self.inner.l2.remaining(key).await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        self.inner.make_way(&[key]).await;
        let answer = self.inner.l2.retime(key, ttl).await;
        self.inner.drop_copy(key);
        answer
    }

    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.inner.make_way(&[key]).await;
        let sum = self.inner.l2.add_to(key, by, namespace).await;
        self.inner.drop_copy(key);
        sum
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        self.inner.fetch_each(keys, want).await
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        self.inner.store_each(drafts).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.inner.remove_each(keys).await
    }

    async fn close(&self) {
        self.inner.l1.close().await;
        self.inner.l2.close().await;
    }
}
