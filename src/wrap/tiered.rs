//! A fast store in front of a shared one.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, Memory, Peek};
use crate::core::{Core, Settings, setting_methods};
use crate::entry::{Answer, Draft, Entry, Stored, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::{Stamp, Upper};
use crate::flight::unless_overtaken;
use crate::stats::count;
use crate::ttl::Remaining;

/// How long a computed value stands in for one that could not be stored.
const OUTAGE_TTL: Duration = Duration::from_secs(1);

/// Two stores as one: `l1`, usually memory, holds copies of what `l2` holds. Nests on either side.
///
/// Reads ask `l1`, then `l2`, and copy what `l2` had into `l1` for what is left of its life, at most
/// [`max_l1_ttl`](TieredBuilder::max_l1_ttl). Writes are decided by `l2`; `l1` never keeps an older value than this
/// process wrote, whichever handle on `l2` wrote it.
///
/// ```
/// use larder::{Cache, Moka, Tiered};
/// let cache = Tiered::new(Moka::new(1_000), Moka::new(100_000));
/// # let _ = cache.stats();
/// ```
///
/// An `l1` that is not memory of this process works, with a weaker promise: it hears only of writes through this very
/// `Tiered`, and is filled by reads alone.
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
    /// Whether `l1` is this tier's own. One that holds another's copies is left alone.
    holds_copies: bool,
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
    /// keeps none, nor does a strict cache. It is also how long such a value may differ from what others store once `l2` is back.
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
        let inner = Arc::new(Inner {
            l1: self.l1,
            l2: self.l2,
            core,
            max_l1_ttl: self.max_l1_ttl,
            outage_ttl: self.outage_ttl,
            holds_copies,
        });
        if holds_copies {
            let upper: Weak<dyn Upper> = Arc::downgrade(&(Arc::clone(&inner) as Arc<dyn Upper>));
            inner.core.fence().attach(upper);
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

impl<L1: Backend, L2: Backend> Upper for Inner<L1, L2> {
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

impl<L1: Backend, L2: Backend> Inner<L1, L2> {
    fn stamp(&self, key: &str) -> Stamp {
        self.core.fence().stamp(&self.l2.stored_key(key))
    }

    /// The draft of the copy of an entry that `l1` keeps; none where it keeps none.
    fn copy(&self, key: &str, entry: &Entry) -> Option<Draft> {
        // Bytes are bound to the key that they were stored under.
        if !self.holds_copies || entry.value().as_encoded().is_some() {
            return None;
        }
        let mut copy = entry.clone();
        if let Some(max) = self.max_l1_ttl {
            let latest = self.core.now().after(max);
            copy = copy.with_deadline(entry.expires().min(latest));
        }
        // Weighed and checked before any lock is taken: that may run the value's own code.
        let mut draft = Draft::from(copy);
        self.l1.prepare(key, &mut draft).ok()?;
        Some(draft)
    }

    /// Puts a copy read after `stamp` into `l1`, unless the key was written since.
    async fn fill(&self, key: &str, stamp: Stamp, entry: &Entry) {
        let Some(draft) = self.copy(key, entry) else {
            return;
        };
        let stored = self.l2.stored_key(key);
        let filled = match self.l1.memory() {
            Some(memory) => {
                let fill = || memory.insert(key, draft.entry);
                self.core.fence().fill(&stored, stamp, fill)
            }
            None => self.fill_remote(key, &stored, stamp, draft).await,
        };
        if !filled {
            count(&self.core.counters().fills_refused);
        }
    }

    /// A remote `l1` cannot be filled under a lock. So the fill counts as a store under way, which writes wait for.
    async fn fill_remote(&self, key: &str, stored: &str, stamp: Stamp, draft: Draft) -> bool {
        let Some(storing) = self.core.flights().store(stored) else {
            return false;
        };
        if !self.core.fence().fill(stored, stamp, || ()) {
            return false;
        }
        let store = self.write_l1(key, self.l1.store(key, draft));
        let _ = unless_overtaken([&storing], store).await;
        if storing.overtaken() {
            self.write_l1(key, self.l1.remove(key)).await;
        }
        true
    }

    /// A write of an `l1` that is not memory, fenced for what lies above it if it is a tier itself.
    async fn write_l1<R>(&self, key: &str, write: impl Future<Output = Result<R>> + Send) {
        let stored = self.l1.stored_key(key);
        let _write = self.l1.core().fence().write(&stored);
        if let Err(error) = write.await {
            tracing::debug!(target: "larder", event = "l1_failed", error = %error);
        }
    }

    /// Keeps in memory what `l2` has just stored, unless another write of the key came between, or a computed value that it
    /// could not store, for a short while. A remote `l1` is filled by reads alone: the writes of two callers could reach it in
    /// another order than `l2`.
    fn settle(
        &self,
        key: &str,
        stamp: Stamp,
        copy: Option<Draft>,
        computed: bool,
        stored: &Result<Stored>,
    ) {
        let copy = match stored {
            Ok(Stored::Done) => copy,
            Err(error) if computed && is_outage(error) => {
                copy.and_then(|copy| self.meanwhile(copy))
            }
            _ => None,
        };
        let Some(memory) = self.l1.memory().filter(|_| self.holds_copies) else {
            return;
        };
        match copy {
            Some(draft) => {
                let stored = self.l2.stored_key(key);
                let keep = || memory.insert(key, draft.entry);
                self.core.fence().keep(&stored, stamp, keep);
            }
            None => memory.evict(key),
        }
    }

    /// The copy of a computed value that `l2` could not store: short-lived, since `l2` may get another one from elsewhere.
    fn meanwhile(&self, mut copy: Draft) -> Option<Draft> {
        // A strict cache shows its callers what is wrong below.
        if self.outage_ttl.is_zero() || self.core.settings().strict {
            return None;
        }
        let latest = self.core.now().after(self.outage_ttl);
        let expires = copy.entry.expires().min(latest);
        copy.entry = copy.entry.with_deadline(expires);
        Some(copy)
    }

    /// Drops a key from memory after a write. It has heard of a fenced one already, but a write may come without a fence.
    fn drop_copy(&self, key: &str) {
        if let Some(memory) = self.l1.memory().filter(|_| self.holds_copies) {
            memory.evict(key);
        }
    }

    /// Drops a key from an `l1` that is not memory, before `l2` is written: a reader who saw the new value there must not
    /// meet the old one here. No copy gets in until the write is over.
    async fn make_way(&self, keys: &[&str]) {
        if !self.holds_copies || self.l1.memory().is_some() {
            return;
        }
        let stored: Vec<_> = keys.iter().map(|key| self.l1.stored_key(key)).collect();
        let fence = self.l1.core().fence();
        let _writes: Vec<_> = stored.iter().map(|key| fence.write(key)).collect();
        let removed = async {
            match keys {
                [key] => self.l1.remove(key).await.map(|_| ()),
                _ => {
                    let removed = self.l1.remove_many(keys).await;
                    removed
                        .into_iter()
                        .try_for_each(|removed| removed.map(|_| ()))
                }
            }
        };
        // An l1 that hangs must leave l2 its time.
        let bound = self.core.settings().store_timeout / 4;
        let removed = match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::time::timeout(bound, removed).await,
            Err(_) => Ok(removed.await),
        };
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(target: "larder", event = "l1_failed", "an l1 could not be told of a write: it may hold older values");
        }
    }

    /// What `l1` holds under many keys, where it has to be asked.
    async fn ask_l1(&self, keys: &[&str], want: Want) -> Vec<Option<Entry>> {
        let mut found: Vec<_> = keys.iter().map(|_| None).collect();
        let mut asked = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match self.l1.peek(key) {
                Peek::Hit(entry) => found[index] = Some(entry),
                Peek::Ask => asked.push(index),
                Peek::Miss => {}
            }
        }
        if !asked.is_empty() {
            let wanted: Vec<&str> = asked.iter().map(|&index| keys[index]).collect();
            let answers = self.l1.fetch_many(&wanted, want).await;
            for (index, answer) in asked.into_iter().zip(answers) {
                found[index] = answer.ok().and_then(|answer| answer.entry);
            }
        }
        found
    }
}

impl<L1: Backend, L2: Backend> Inner<L1, L2> {
    fn memories(&self) -> impl Iterator<Item = &dyn Memory> {
        let first = self.l1.memory().filter(|_| self.holds_copies);
        [first, self.l2.memory()].into_iter().flatten()
    }
}

/// Whether a store failed for reasons that have nothing to do with the value.
fn is_outage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Busy | ErrorKind::Rejected
    )
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
            let answer = self.inner.l1.peek(key);
            if !matches!(answer, Peek::Miss) {
                return answer;
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

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        self.inner.l2.prepare(key, draft)
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        if self.inner.holds_copies {
            let answer = match self.inner.l1.peek(key) {
                Peek::Hit(entry) => Some(entry),
                Peek::Miss => None,
                Peek::Ask => self
                    .inner
                    .l1
                    .fetch(key, want)
                    .await
                    .ok()
                    .and_then(|answer| answer.entry),
            };
            if let Some(entry) = answer {
                return Ok(entry.into());
            }
        }
        let stamp = self.inner.stamp(key);
        let answer = self.inner.l2.fetch(key, want.with_deadline()).await?;
        if let Some(entry) = &answer.entry {
            self.inner.fill(key, stamp, entry).await;
        }
        Ok(answer)
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let stamp = self.inner.stamp(key);
        let copy = self.inner.copy(key, &draft.entry);
        let computed = draft.computed;
        self.inner.make_way(&[key]).await;
        let stored = self.inner.l2.store(key, draft).await;
        self.inner.settle(key, stamp, copy, computed, &stored);
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

    async fn add_to(&self, key: &str, by: i64) -> Result<i64> {
        self.inner.make_way(&[key]).await;
        let sum = self.inner.l2.add_to(key, by).await;
        self.inner.drop_copy(key);
        sum
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let mut found = if self.inner.holds_copies {
            self.inner.ask_l1(keys, want).await
        } else {
            keys.iter().map(|_| None).collect()
        };
        let missing = keys
            .iter()
            .enumerate()
            .filter(|(index, _)| found[*index].is_none());
        let asked: Vec<(usize, Stamp)> = missing
            .map(|(index, key)| (index, self.inner.stamp(key)))
            .collect();
        let wanted: Vec<&str> = asked.iter().map(|(index, _)| keys[*index]).collect();
        let mut answers = self
            .inner
            .l2
            .fetch_many(&wanted, want.with_deadline())
            .await
            .into_iter();
        let mut filled = asked.into_iter();
        let mut all = Vec::with_capacity(keys.len());
        for (key, found) in keys.iter().zip(found.iter_mut()) {
            if let Some(entry) = found.take() {
                all.push(Ok(entry.into()));
                continue;
            }
            let answer = answers.next().unwrap_or_else(|| Ok(Answer::default()));
            if let (
                Ok(Answer {
                    entry: Some(entry), ..
                }),
                Some((_, stamp)),
            ) = (&answer, filled.next())
            {
                self.inner.fill(key, stamp, entry).await;
            }
            all.push(answer);
        }
        all
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let copy = |(key, draft): &(String, Draft)| {
            let stamp = self.inner.stamp(key);
            let copy = self.inner.copy(key, &draft.entry);
            (key.clone(), stamp, copy, draft.computed)
        };
        let copies: Vec<_> = drafts.iter().map(copy).collect();
        let keys: Vec<&str> = drafts.iter().map(|(key, _)| key.as_str()).collect();
        self.inner.make_way(&keys).await;
        let answers = self.inner.l2.store_many(drafts).await;
        for ((key, stamp, copy, computed), answer) in copies.into_iter().zip(&answers) {
            self.inner.settle(&key, stamp, copy, computed, answer);
        }
        answers
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.inner.make_way(keys).await;
        let answers = self.inner.l2.remove_many(keys).await;
        for key in keys {
            self.inner.drop_copy(key);
        }
        answers
    }

    async fn close(&self) {
        self.inner.l1.close().await;
        self.inner.l2.close().await;
    }
}
