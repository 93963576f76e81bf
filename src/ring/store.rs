//! The store over the ring.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join, join_all};

use crate::backend::{Backend, Memory, Peek};
use crate::core::Core;
use crate::entry::{Answer, Draft, Stored, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Ring, label};
use crate::ttl::Remaining;
use crate::wire::fetch::{Came, Together, together};
use crate::wire::node::Node;

use super::follow::Follower;
use super::snapshot::{MapStatus, Snapshot};
use super::spread::{Former, all_failed, on_each, owned};

/// A ring of independent Redis nodes. Each key lives on one of them, found by consistent hashing with the map that a
/// manager Redis holds.
///
/// Follows the map: nodes come and go without a restart, heard of within a second. A map that is empty, unreadable or
/// absurd never replaces a good one, and a manager that is away changes nothing. A node that is down is that node's
/// share of misses; the others do not notice.
///
/// ```no_run
/// use std::time::Duration;
/// use larder::{Cache, DistributedRedis, Moka, Tiered};
/// # async fn example() -> larder::Result<()> {
/// let ring = DistributedRedis::connect("redis://127.0.0.1:6379/13").await?;
/// let cache = Tiered::new(Moka::new(100_000), ring);
/// let total: u64 = cache.get_or_set("total", Duration::from_secs(60), || async { 42 }).await?;
/// # Ok(())
/// # }
/// ```
///
/// Many keys are one command to each node, all nodes at once.
#[derive(Clone, Debug)]
pub struct DistributedRedis {
    pub(super) core: Core,
    pub(super) follower: Arc<Follower>,
}

impl DistributedRedis {
    /// The map in use.
    #[must_use]
    pub fn ring(&self) -> Ring {
        self.follower.current().ring.clone()
    }

    /// The node that a key, with all its prefixes, belongs to, as `host:port/db`.
    #[must_use]
    pub fn node_for(&self, key: &str) -> Option<String> {
        self.follower.current().ring.node_for(key).map(label)
    }

    /// How things stand with the map and its nodes.
    #[must_use]
    pub fn map_status(&self) -> MapStatus {
        self.follower.status()
    }

    pub(super) fn over(core: Core, follower: Arc<Follower>) -> Self {
        Self { core, follower }
    }

    /// A draft in the epoch of the map by which it is stored. The map may have changed since it was prepared, and a value of
    /// an earlier epoch on a node that has just taken its key over would never be read.
    fn dated(&self, snapshot: &Snapshot, key: &str, mut draft: Draft) -> Result<Draft> {
        let epoch = snapshot.epoch_for(key);
        if draft.entry.ring_epoch() != epoch {
            draft.entry = draft.entry.in_ring_epoch(epoch);
            draft.sealed = Some(self.core.format().seal(key, &draft.entry)?);
        }
        Ok(draft)
    }

    async fn fetch_by_itself(
        &self,
        key: &str,
        want: Want,
        came: Option<Box<Came>>,
    ) -> Result<Answer> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        node.fetch(&self.core, key, want, came).await
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.follower.current())
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for DistributedRedis {
    fn core(&self) -> &Core {
        &self.core
    }

    fn peek(&self, _key: &str) -> Peek {
        Peek::Ask
    }

    fn memory(&self) -> Option<&dyn Memory> {
        None
    }

    fn stored_key<'k>(&self, key: &'k str) -> std::borrow::Cow<'k, str> {
        key.into()
    }

    fn own_key<'k>(&self, stored: &'k str) -> Option<&'k str> {
        Some(stored)
    }

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        let epoch = self.follower.current().epoch_for(key);
        draft.entry = draft.entry.clone().in_ring_epoch(epoch);
        draft.sealed = Some(self.core.format().seal(key, &draft.entry)?);
        Ok(())
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        let join = |waker: &Waker| {
            let snapshot = self.follower.current();
            let node = snapshot.node_of(key).ok()?;
            node.join(&self.core, key, want, waker)
        };
        let answer = match together(&self.core, key, want, join).await {
            Together::Done(answer) => answer?,
            Together::Rest(came) => Box::pin(self.fetch_by_itself(key, want, came)).await?,
        };
        // By the map of now, if it has changed meanwhile: what moved is out of date on the node that was asked.
        Ok(self.judged(&self.follower.current(), key, answer))
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        let draft = self.dated(&snapshot, key, draft)?;
        if draft.computed {
            // It changes nothing that others would have to hear of.
            return self.store_over_leftover(&snapshot, node, key, draft).await;
        }
        let store = self.store_over_leftover(&snapshot, node, key, draft);
        join(store, Former::of(&snapshot, [key]).forget()).await.0
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let snapshot = self.snapshot();
        let remove = snapshot.node_of(key)?.remove(key);
        join(remove, Former::of(&snapshot, [key]).forget()).await.0
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        if node.retract(key, draft).await? {
            return Ok(true);
        }
        // It may have been stored after the map changed.
        let dated = self.dated(&snapshot, key, draft.clone())?;
        if dated.sealed == draft.sealed {
            return Ok(false);
        }
        node.retract(key, &dated).await
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        let snapshot = self.snapshot();
        let total = snapshot.node_count();
        if total == 0 {
            // The keys are somewhere; they are only out of reach.
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the ring has no nodes yet",
            ));
        }
        let wiped = (0..total).map(|index| {
            let node = snapshot.node(index);
            async move { node?.wipe(prefix).await }
        });
        let failed: Vec<Error> = join_all(wiped)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        let Some(first) = failed.first() else {
            return Ok(());
        };
        Err(
            Error::new(ErrorKind::Partial, "some nodes failed, the others are done")
                .with("failed", failed.len())
                .with("of", total)
                .with("first", first)
                .caused_by(first.clone()),
        )
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        let (leftover, there) = join(self.leftover(&snapshot, node, key), node.contains(key)).await;
        Ok(there? && leftover.is_none())
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        let (leftover, left) = join(self.leftover(&snapshot, node, key), node.remaining(key)).await;
        Ok(left?.filter(|_| leftover.is_none()))
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        if self.leftover(&snapshot, node, key).await.is_some() {
            return Ok(false);
        }
        node.retime(key, ttl).await
    }

    async fn add_to(&self, key: &str, by: i64) -> Result<i64> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        match node.add_to(key, by).await {
            Err(error) if error.kind() == ErrorKind::NotACounter => {
                if self.remove_leftover(&snapshot, node, key).await? {
                    return node.add_to(key, by).await;
                }
                Err(error)
            }
            sum => sum,
        }
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let snapshot = self.snapshot();
        let core = &self.core;
        let raw = match owned(&snapshot, keys.iter().copied(), |key| key) {
            Ok(items) => {
                let ask = |node: Node, keys: Vec<_>| async move {
                    node.read_many(core, &keys, want).await
                };
                on_each(items, &snapshot, ask).await
            }
            Err(error) => return all_failed(keys.len(), &error),
        };
        let each = keys.iter().zip(raw);
        each.map(|(key, raw)| {
            let answer = raw?.open(core, key, want)?;
            Ok(self.judged(&snapshot, key, answer))
        })
        .collect()
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let snapshot = self.snapshot();
        let (core, total) = (&self.core, drafts.len());
        let set = drafts.iter().filter(|(_, draft)| !draft.computed);
        let former = Former::of(&snapshot, set.map(|(key, _)| key.as_str()));
        let dated = |(key, draft): (String, Draft)| {
            let draft = self.dated(&snapshot, &key, draft)?;
            Ok((key, draft))
        };
        let drafts: Vec<_> = match drafts.into_iter().map(dated).collect::<Result<_>>() {
            Ok(drafts) => drafts,
            Err(error) => return all_failed(total, &error),
        };
        let items = match owned(&snapshot, drafts, |(key, _)| key) {
            Ok(items) => items,
            Err(error) => return all_failed(total, &error),
        };
        let ask = |node: Node, drafts: Vec<(String, Draft)>| async move {
            node.store_many(core, &drafts).await
        };
        join(on_each(items, &snapshot, ask), former.forget())
            .await
            .0
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        let snapshot = self.snapshot();
        let former = Former::of(&snapshot, keys.iter().copied());
        match owned(&snapshot, keys.iter().copied(), |key| key) {
            Ok(items) => {
                let core = &self.core;
                let ask =
                    |node: Node, keys: Vec<_>| async move { node.remove_many(core, &keys).await };
                join(on_each(items, &snapshot, ask), former.forget())
                    .await
                    .0
            }
            Err(error) => all_failed(keys.len(), &error),
        }
    }

    async fn close(&self) {
        self.follower.close().await;
    }
}
