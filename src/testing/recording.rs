//! A store that records what it is asked.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::known;
use crate::backend::{Backend, Memory, Peek};
use crate::coherence::{Interest, Origin, Subscription};
use crate::core::Core;
use crate::entry::{Answer, Claim, Draft, Lease, Stored, Ticket, Want};
use crate::error::Result;
use crate::explain::Trace;
use crate::ttl::Remaining;

/// Older calls than the last ten thousand are forgotten.
const MAX_CALLS: usize = 10_000;

/// A call of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// One of [`OPERATIONS`](super::OPERATIONS).
    pub operation: &'static str,
    /// The keys it was about, in the order given; of `wipe`, the prefix.
    pub keys: Vec<String>,
}

/// A store that records each call that it is asked to wait for, with its keys. Its clones record together.
///
/// A value that memory answers without waiting is not a call.
///
/// ```
/// use larder::testing::Recording;
/// use larder::{Cache, Moka, Tiered, Ttl};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let below = Recording::new(Moka::new(100));
/// let cache = Tiered::new(Moka::new(100), below.clone());
/// cache.set("user:1", "Ada".to_owned(), Ttl::Forever).await.unwrap();
/// cache.get::<String>("user:1").await.unwrap();
/// assert_eq!(below.count("store"), 1);
/// assert_eq!(below.count("fetch"), 0, "memory had it");
/// assert_eq!(below.calls()[0].keys, ["user:1"]);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Recording<B> {
    inner: B,
    calls: Arc<Mutex<VecDeque<Call>>>,
}

impl<B> Recording<B> {
    /// The store, with nothing recorded yet.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            calls: Arc::default(),
        }
    }

    /// The calls so far, oldest first; at most the last 10,000.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().iter().cloned().collect()
    }

    /// How many of the recorded calls are of an operation.
    ///
    /// # Panics
    ///
    /// If there is no such operation; see [`OPERATIONS`](super::OPERATIONS).
    #[must_use]
    #[track_caller]
    pub fn count(&self, operation: &str) -> usize {
        let operation = known(operation);
        self.lock()
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.lock().clear();
    }

    /// The inner store.
    #[must_use]
    pub fn get_ref(&self) -> &B {
        &self.inner
    }

    /// The inner store, by itself.
    #[must_use]
    pub fn into_inner(self) -> B {
        self.inner
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, operation: &'static str, keys: &[&str]) {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        let mut calls = self.lock();
        if calls.len() == MAX_CALLS {
            calls.pop_front();
        }
        calls.push_back(Call { operation, keys });
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<B: Backend> Backend for Recording<B> {
    fn core(&self) -> &Core {
        self.inner.core()
    }

    fn peek(&self, key: &str) -> Peek {
        self.inner.peek(key)
    }

    fn memory(&self) -> Option<&dyn Memory> {
        self.inner.memory()
    }

    fn stored_key<'k>(&self, key: &'k str) -> Cow<'k, str> {
        self.inner.stored_key(key)
    }

    fn own_key<'k>(&self, stored: &'k str) -> Option<&'k str> {
        self.inner.own_key(stored)
    }

    fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
        self.inner.subscribe(prefix, interest)
    }

    fn origin(&self, key: &str) -> Origin {
        self.inner.origin(key)
    }

    fn vouches(&self, key: &str, origin: Origin) -> bool {
        self.inner.vouches(key, origin)
    }

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        self.inner.prepare(key, draft)
    }

    async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
        self.record("begin", keys);
        self.inner.begin(keys, namespace).await
    }

    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
        self.record("claim", keys);
        self.inner.claim(keys, want, lease).await
    }

    async fn hold(&self, key: &str, ticket: &Ticket, life: Option<Duration>) -> Result<bool> {
        self.inner.hold(key, ticket, life).await
    }

    fn keeps_tags(&self) -> bool {
        self.inner.keeps_tags()
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
        self.inner.invalidate(prefix, tag).await
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        self.record("fetch", &[key]);
        self.inner.fetch(key, want).await
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        // A read like any other.
        self.record("fetch", &[key]);
        self.inner.trace(key, want).await
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        self.record("store", &[key]);
        self.inner.store(key, draft).await
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.record("remove", &[key]);
        self.inner.remove(key).await
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.record("retract", &[key]);
        self.inner.retract(key, draft).await
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.record("wipe", &[prefix]);
        self.inner.wipe(prefix).await
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        self.record("contains", &[key]);
        self.inner.contains(key).await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        self.record("remaining", &[key]);
        self.inner.remaining(key).await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        self.record("retime", &[key]);
        self.inner.retime(key, ttl).await
    }

    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.record("add_to", &[key]);
        self.inner.add_to(key, by, namespace).await
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        self.record("fetch_many", keys);
        self.inner.fetch_many(keys, want).await
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let keys: Vec<&str> = drafts.iter().map(|(key, _)| key.as_str()).collect();
        self.record("store_many", &keys);
        self.inner.store_many(drafts).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.record("remove_many", keys);
        self.inner.remove_many(keys).await
    }

    async fn close(&self) {
        self.record("close", &[]);
        self.inner.close().await;
    }
}
