//! A store under a prefix.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, Memory, Peek};
use crate::coherence::{Interest, Origin, Subscription};
use crate::core::Core;
use crate::entry::{Answer, Claim, Draft, Entry, Lease, Stored, Ticket, Want};
use crate::error::Result;
use crate::explain::Trace;
use crate::ttl::Remaining;

/// A store whose keys all begin with a prefix, so that several applications share one store.
///
/// Shares the inner store's core: a `Prefixed` and the store below coalesce and invalidate each other. `clear` covers the prefix alone.
///
/// ```
/// use larder::{Cache, Null, Prefixed};
/// let cache = Prefixed::new(Null::new(), "shop:");
/// assert_eq!(cache.prefix(), "shop:");
/// # let _ = cache.stats();
/// ```
#[derive(Clone, Debug)]
pub struct Prefixed<C> {
    inner: C,
    prefix: Cow<'static, str>,
}

/// Prefix and key together up to this length are joined on the stack.
const ON_STACK: usize = 256;

impl<C: Backend> Prefixed<C> {
    /// The store under a prefix. The prefix is part of every key: of its length, and of what is hashed on a ring.
    #[must_use]
    pub fn new(inner: C, prefix: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner,
            prefix: prefix.into(),
        }
    }
}

impl<C> Prefixed<C> {
    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The inner store.
    #[must_use]
    pub fn get_ref(&self) -> &C {
        &self.inner
    }

    /// The inner store, by itself.
    #[must_use]
    pub fn into_inner(self) -> C {
        self.inner
    }

    /// Runs `act` with the whole key, joined without an allocation where it is short.
    fn with_key<R>(&self, key: &str, act: impl FnOnce(&str) -> R) -> R {
        let (head, tail) = (self.prefix.as_bytes(), key.as_bytes());
        let len = head.len() + tail.len();
        let mut buffer = [0; ON_STACK];
        if let Some(joined) = buffer.get_mut(..len) {
            joined[..head.len()].copy_from_slice(head);
            joined[head.len()..].copy_from_slice(tail);
            if let Ok(joined) = std::str::from_utf8(joined) {
                return act(joined);
            }
        }
        act(&self.join(key))
    }

    fn join(&self, key: &str) -> String {
        let mut joined = String::with_capacity(self.prefix.len() + key.len());
        joined.push_str(&self.prefix);
        joined.push_str(key);
        joined
    }

    fn join_all(&self, keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| self.join(key)).collect()
    }
}

impl<C: Backend> Memory for Prefixed<C> {
    fn insert(&self, key: &str, entry: Entry) {
        if let Some(memory) = self.inner.memory() {
            self.with_key(key, |key| memory.insert(key, entry));
        }
    }

    fn evict(&self, key: &str) {
        if let Some(memory) = self.inner.memory() {
            self.with_key(key, |key| memory.evict(key));
        }
    }

    fn evict_under(&self, prefix: &str) {
        if let Some(memory) = self.inner.memory() {
            self.with_key(prefix, |prefix| memory.evict_under(prefix));
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<C: Backend> Backend for Prefixed<C> {
    fn core(&self) -> &Core {
        self.inner.core()
    }

    fn peek(&self, key: &str) -> Peek {
        self.with_key(key, |key| self.inner.peek(key))
    }

    fn memory(&self) -> Option<&dyn Memory> {
        self.inner.memory().is_some().then_some(self)
    }

    fn stored_key<'k>(&self, key: &'k str) -> Cow<'k, str> {
        let joined = self.join(key);
        Cow::Owned(self.inner.stored_key(&joined).into_owned())
    }

    fn own_key<'k>(&self, stored: &'k str) -> Option<&'k str> {
        self.inner.own_key(stored)?.strip_prefix(&*self.prefix)
    }

    fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
        self.inner.subscribe(&self.join(prefix), interest)
    }

    fn origin(&self, key: &str) -> Origin {
        self.with_key(key, |key| self.inner.origin(key))
    }

    fn vouches(&self, key: &str, origin: Origin) -> bool {
        self.with_key(key, |key| self.inner.vouches(key, origin))
    }

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        self.with_key(key, |key| self.inner.prepare(key, draft))
    }

    async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
        let keys = self.join_all(keys);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.inner.begin(&keys, namespace).await
    }

    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
        let keys = self.join_all(keys);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.inner.claim(&keys, want, lease).await
    }

    async fn hold(&self, key: &str, ticket: &Ticket, life: Option<Duration>) -> Result<bool> {
        self.inner.hold(&self.join(key), ticket, life).await
    }

    fn keeps_tags(&self) -> bool {
        self.inner.keeps_tags()
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
        self.inner.invalidate(&self.join(prefix), tag).await
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        self.inner.fetch(&self.join(key), want).await
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        self.inner.trace(&self.join(key), want).await
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        self.inner.store(&self.join(key), draft).await
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.inner.remove(&self.join(key)).await
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.inner.retract(&self.join(key), draft).await
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.inner.wipe(&self.join(prefix)).await
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        self.inner.contains(&self.join(key)).await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        self.inner.remaining(&self.join(key)).await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        self.inner.retime(&self.join(key), ttl).await
    }

    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.inner.add_to(&self.join(key), by, namespace).await
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let keys = self.join_all(keys);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.inner.fetch_many(&keys, want).await
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let drafts = drafts
            .into_iter()
            .map(|(key, draft)| (self.join(&key), draft))
            .collect();
        self.inner.store_many(drafts).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        let keys = self.join_all(keys);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.inner.remove_many(&keys).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
