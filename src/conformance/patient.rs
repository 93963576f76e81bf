//! The store under test, with callers of great patience.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, Memory, Peek, SharedCache};
use crate::coherence::{Interest, Origin, Subscription};
use crate::core::Core;
use crate::entry::{Answer, Claim, Draft, Lease, Stored, Ticket, Want};
use crate::error::Result;
use crate::explain::Trace;
use crate::ttl::Remaining;

/// Longer than any case takes.
const GREAT: Duration = Duration::from_secs(120);

/// A view of a store whose callers wait for a leader as long as it takes. What a case holds up on purpose may take
/// longer than the store's own `leader_patience` on a busy machine, and then another would rightly compute too.
pub(super) struct Patient {
    inner: SharedCache,
    core: Core,
}

impl Patient {
    pub(super) fn new(inner: SharedCache) -> Self {
        let mut settings = inner.core().settings().clone();
        settings.leader_patience = GREAT;
        let core = Core::above(inner.core(), settings);
        Self { inner, core }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for Patient {
    fn core(&self) -> &Core {
        &self.core
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
        self.inner.begin(keys, namespace).await
    }

    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
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
        self.inner.fetch(key, want).await
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        self.inner.trace(key, want).await
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        self.inner.store(key, draft).await
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.inner.remove(key).await
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.inner.retract(key, draft).await
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.inner.wipe(prefix).await
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        self.inner.contains(key).await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        self.inner.remaining(key).await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        self.inner.retime(key, ttl).await
    }

    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.inner.add_to(key, by, namespace).await
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        self.inner.fetch_many(keys, want).await
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        self.inner.store_many(drafts).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.inner.remove_many(keys).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
