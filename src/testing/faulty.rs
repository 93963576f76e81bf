//! A store that fails on command.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;

use super::faults::Faults;
use crate::backend::{Backend, Memory, Peek};
use crate::coherence::{Interest, Origin, Subscription};
use crate::core::Core;
use crate::entry::{Answer, Claim, Draft, Lease, Stored, Ticket, Want};
use crate::error::Result;
use crate::explain::{Place, Trace};
use crate::ttl::Remaining;

/// A store that fails, loses answers, is slow or stalls, as its [`Faults`] say at the time of each call.
///
/// Without faults it is the inner store in every respect. While reads meet a fault, [`peek`](Backend::peek) answers
/// `Ask`, so that the fault is met even where memory would have answered.
///
/// ```
/// use larder::testing::{Fault, Faulty};
/// use larder::{Cache, Moka, Tiered, Ttl};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let server = Faulty::remote(Moka::new(100));
/// let cache = Tiered::new(Moka::new(100), server.clone());
/// cache.set("price", 5_u32, Ttl::Forever).await.unwrap();
/// server.faults().always_any(Fault::Fail);
/// assert_eq!(cache.get::<u32>("price").await.unwrap(), Some(5), "memory needs no server");
/// assert!(cache.delete("price").await.is_err());
/// server.faults().heal();
/// assert_eq!(cache.get::<u32>("price").await.unwrap(), Some(5), "the server never heard of the delete");
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Faulty<B> {
    inner: B,
    faults: Faults,
    remote: bool,
}

impl<B> Faulty<B> {
    /// The store, without faults yet.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            faults: Faults::default(),
            remote: false,
        }
    }

    /// The same, and always asked as a remote store is: it answers nothing without waiting, and is nobody's memory.
    #[must_use]
    pub fn remote(inner: B) -> Self {
        Self {
            remote: true,
            ..Self::new(inner)
        }
    }

    /// The handle that switches faults on and off.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults.clone()
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
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<B: Backend> Backend for Faulty<B> {
    fn core(&self) -> &Core {
        self.inner.core()
    }

    fn peek(&self, key: &str) -> Peek {
        if self.remote || self.faults.concern_reads() {
            return Peek::Ask;
        }
        self.inner.peek(key)
    }

    fn memory(&self) -> Option<&dyn Memory> {
        if self.remote {
            return None;
        }
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
        let call = async {
            let tickets = self.inner.begin(keys, namespace).await.into_iter();
            tickets.map(Ok).collect()
        };
        let tickets = self.faults.through_many("begin", keys.len(), call).await;
        let tickets = tickets.into_iter();
        tickets
            .map(|ticket| ticket.unwrap_or_else(Ticket::lost))
            .collect()
    }

    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
        let call = self.inner.claim(keys, want, lease);
        self.faults.through_many("claim", keys.len(), call).await
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
        self.faults
            .through("fetch", self.inner.fetch(key, want))
            .await
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        // A read like any other.
        let call = async { Ok(self.inner.trace(key, want).await) };
        let traced = self.faults.through("fetch", call).await;
        let now = self.core().now();
        traced.unwrap_or_else(|error| Trace::of(Place::of::<Self>(), Err(error), want, now))
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        self.faults
            .through("store", self.inner.store(key, draft))
            .await
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.faults.through("remove", self.inner.remove(key)).await
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.faults
            .through("retract", self.inner.retract(key, draft))
            .await
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.faults.through("wipe", self.inner.wipe(prefix)).await
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        self.faults
            .through("contains", self.inner.contains(key))
            .await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        self.faults
            .through("remaining", self.inner.remaining(key))
            .await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        self.faults
            .through("retime", self.inner.retime(key, ttl))
            .await
    }

    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.faults
            .through("add_to", self.inner.add_to(key, by, namespace))
            .await
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let call = self.inner.fetch_many(keys, want);
        self.faults
            .through_many("fetch_many", keys.len(), call)
            .await
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let keys = drafts.len();
        let call = self.inner.store_many(drafts);
        self.faults.through_many("store_many", keys, call).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        let call = self.inner.remove_many(keys);
        self.faults
            .through_many("remove_many", keys.len(), call)
            .await
    }

    async fn close(&self) {
        // It has no way to fail, but it may be slow.
        let close = async {
            self.inner.close().await;
            Ok(())
        };
        let _ = self.faults.through("close", close).await;
    }
}
