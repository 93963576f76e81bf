//! A fast store in front of a shared one.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, Memory, Peek};
use crate::core::{Core, Settings, setting_methods};
use crate::entry::{Draft, Entry, Want, When};
use crate::error::Result;
use crate::fence::{Stamp, Upper};
use crate::stats::count;
use crate::ttl::Remaining;

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
/// An `l1` that is not memory of this process works, with a weaker promise: it hears only of writes through this very `Tiered`.
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
}

/// Settings of a [`Tiered`].
#[derive(Debug)]
#[must_use]
pub struct TieredBuilder<L1, L2> {
    l1: L1,
    l2: L2,
    settings: Settings,
    max_l1_ttl: Option<Duration>,
}

impl<L1: Backend, L2: Backend> TieredBuilder<L1, L2> {
    setting_methods!(settings);

    /// Bounds how long a copy stays in `l1` before `l2` is asked again. Without it, as long as the value lives.
    pub fn max_l1_ttl(mut self, ttl: Duration) -> Self {
        self.max_l1_ttl = Some(ttl);
        self
    }

    /// The store.
    #[must_use]
    pub fn build(self) -> Tiered<L1, L2> {
        let core = Core::above(self.l2.core(), self.settings);
        let inner = Arc::new(Inner {
            l1: self.l1,
            l2: self.l2,
            core,
            max_l1_ttl: self.max_l1_ttl,
        });
        let upper: Weak<dyn Upper> = Arc::downgrade(&(Arc::clone(&inner) as Arc<dyn Upper>));
        inner.core.fence().attach(upper);
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
        if let (Some(memory), Some(key)) = (self.l1.memory(), self.l2.own_key(stored)) {
            memory.evict(key);
        }
    }

    fn evict_under(&self, prefix: &str) {
        let Some(memory) = self.l1.memory() else {
            return;
        };
        if let Some(own) = self.l2.own_key(prefix) {
            memory.evict_under(own);
        } else if self.l2.stored_key("").starts_with(prefix) {
            // All of this store's keys lie under a shorter prefix.
            memory.evict_under("");
        }
    }
}

impl<L1: Backend, L2: Backend> Inner<L1, L2> {
    /// The copy of an entry that `l1` keeps.
    fn copy(&self, entry: &Entry) -> Entry {
        let copy = entry.clone();
        match self.max_l1_ttl {
            None => copy,
            Some(max) => {
                let latest = self.core.now().after(max);
                let deadline = entry.expires().min(latest);
                copy.with_deadline(deadline)
            }
        }
    }

    /// Puts a copy read after `stamp` into `l1`, unless the key was written since.
    async fn fill(&self, key: &str, stamp: Stamp, entry: &Entry) {
        let copy = self.copy(entry);
        let stored = self.l2.stored_key(key);
        let filled = match self.l1.memory() {
            Some(memory) => self
                .core
                .fence()
                .fill(&stored, stamp, || memory.insert(key, copy)),
            None => {
                // A remote l1 cannot be filled under a lock: what was outrun is taken out again.
                let _ = self.l1.store(key, copy.into(), When::Always).await;
                let still = self.core.fence().fill(&stored, stamp, || ());
                if !still {
                    let _ = self.l1.remove(key).await;
                }
                still
            }
        };
        if !filled {
            count(&self.core.counters().fills_refused);
        }
    }

    /// Keeps a value that `l2` has just stored, unless another write of the key came between.
    async fn keep(&self, key: &str, stamp: Stamp, entry: &Entry) {
        let copy = self.copy(entry);
        let stored = self.l2.stored_key(key);
        match self.l1.memory() {
            Some(memory) => {
                self.core
                    .fence()
                    .keep(&stored, stamp, || memory.insert(key, copy));
            }
            None => {
                let _ = self.l1.store(key, copy.into(), When::Always).await;
                if !self.core.fence().keep(&stored, stamp, || ()) {
                    let _ = self.l1.remove(key).await;
                }
            }
        }
    }

    /// Drops a key from `l1`. Memory has heard of a fenced write already, but a write may come without a fence.
    async fn drop_copy(&self, key: &str) {
        match self.l1.memory() {
            Some(memory) => memory.evict(key),
            None => {
                let _ = self.l1.remove(key).await;
            }
        }
    }

    fn stamp(&self, key: &str) -> Stamp {
        self.core.fence().stamp(&self.l2.stored_key(key))
    }
}

impl<L1: Backend, L2: Backend> Memory for Tiered<L1, L2> {
    fn insert(&self, key: &str, entry: Entry) {
        for memory in [self.inner.l1.memory(), self.inner.l2.memory()]
            .into_iter()
            .flatten()
        {
            memory.insert(key, entry.clone());
        }
    }

    fn evict(&self, key: &str) {
        for memory in [self.inner.l1.memory(), self.inner.l2.memory()]
            .into_iter()
            .flatten()
        {
            memory.evict(key);
        }
    }

    fn evict_under(&self, prefix: &str) {
        for memory in [self.inner.l1.memory(), self.inner.l2.memory()]
            .into_iter()
            .flatten()
        {
            memory.evict_under(prefix);
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L1: Backend, L2: Backend> Backend for Tiered<L1, L2> {
    fn core(&self) -> &Core {
        &self.inner.core
    }

    fn peek(&self, key: &str) -> Peek {
        let answer = self.inner.l1.peek(key);
        if !matches!(answer, Peek::Miss) {
            return answer;
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

    async fn fetch(&self, key: &str, want: Want) -> Result<Option<Entry>> {
        if let Peek::Hit(entry) = self.inner.l1.peek(key) {
            return Ok(Some(entry));
        }
        if self.inner.l1.memory().is_none()
            && let Ok(Some(entry)) = self.inner.l1.fetch(key, want).await
        {
            return Ok(Some(entry));
        }
        let stamp = self.inner.stamp(key);
        let entry = self.inner.l2.fetch(key, want.with_deadline()).await?;
        if let Some(entry) = &entry {
            self.inner.fill(key, stamp, entry).await;
        }
        Ok(entry)
    }

    async fn store(&self, key: &str, draft: Draft, when: When) -> Result<bool> {
        let stamp = self.inner.stamp(key);
        let entry = draft.entry.clone();
        let stored = self.inner.l2.store(key, draft, when).await;
        match stored {
            Ok(true) => self.inner.keep(key, stamp, &entry).await,
            _ => self.inner.drop_copy(key).await,
        }
        stored
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let removed = self.inner.l2.remove(key).await;
        self.inner.drop_copy(key).await;
        removed
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        let wiped = self.inner.l2.wipe(prefix).await;
        match self.inner.l1.memory() {
            Some(memory) => memory.evict_under(prefix),
            None => self.inner.l1.wipe(prefix).await?,
        }
        wiped
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        self.inner.l2.contains(key).await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        self.inner.l2.remaining(key).await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        let answer = self.inner.l2.retime(key, ttl).await;
        self.inner.drop_copy(key).await;
        answer
    }

    async fn add_to(&self, key: &str, by: i64) -> Result<i64> {
        let sum = self.inner.l2.add_to(key, by).await;
        self.inner.drop_copy(key).await;
        sum
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Option<Entry>>> {
        let mut answers: Vec<Option<Result<Option<Entry>>>> = Vec::with_capacity(keys.len());
        let mut asked = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            answers.push(match self.inner.l1.peek(key) {
                Peek::Hit(entry) => Some(Ok(Some(entry))),
                _ => {
                    asked.push((index, self.inner.stamp(key)));
                    None
                }
            });
        }
        let wanted: Vec<&str> = asked.iter().map(|(index, _)| keys[*index]).collect();
        let found = self
            .inner
            .l2
            .fetch_many(&wanted, want.with_deadline())
            .await;
        for ((index, stamp), answer) in asked.into_iter().zip(found) {
            if let Ok(Some(entry)) = &answer {
                self.inner.fill(keys[index], stamp, entry).await;
            }
            answers[index] = Some(answer);
        }
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Ok(None)))
            .collect()
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<()>> {
        let kept: Vec<_> = drafts
            .iter()
            .map(|(key, draft)| (key.clone(), self.inner.stamp(key), draft.entry.clone()))
            .collect();
        let answers = self.inner.l2.store_many(drafts).await;
        for ((key, stamp, entry), answer) in kept.iter().zip(&answers) {
            match answer {
                Ok(()) => self.inner.keep(key, *stamp, entry).await,
                Err(_) => self.inner.drop_copy(key).await,
            }
        }
        answers
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        let answers = self.inner.l2.remove_many(keys).await;
        for key in keys {
            self.inner.drop_copy(key).await;
        }
        answers
    }

    async fn close(&self) {
        self.inner.l1.close().await;
        self.inner.l2.close().await;
    }
}
