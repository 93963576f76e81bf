//! The store over the ring.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;

use crate::backend::{Backend, Memory, Peek};
use crate::coherence::{Interest, Origin, Subscription};
use crate::core::Core;
use crate::entry::{Answer, Claim, Draft, Lease, Stored, Ticket, Want};
use crate::error::Result;
use crate::explain::{Place, Trace};
use crate::ringmap::{Ring, label};
use crate::ttl::Remaining;
use crate::wire::fetch::{Rest, Together, together};
use crate::wire::node::Node;
use crate::wire::opened::{Opened, Opener, Raw};

use super::follow::Follower;
use super::snapshot::{MapStatus, Snapshot};
use super::spread::{all_failed, asking, owned};

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

    /// Empties nodes, each named `host:port/db` as in [`map_status`](Self::map_status): everything in their databases goes at
    /// once, whoever wrote it, and other caches' values and generations with it. `clear` takes what this cache can hold, and is
    /// nearly always what is wanted; this takes the space back at once. Memory of all processes that listen hears of it.
    ///
    /// All of them are tried; those that failed are named in the error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if one is no node of the map, or its database holds the map itself: then nothing is touched.
    /// [`ErrorKind::Partial`](crate::ErrorKind::Partial) if some nodes failed.
    ///
    /// ```no_run
    /// # async fn example(ring: larder::DistributedRedis) -> larder::Result<()> {
    /// ring.flush_nodes(&["10.0.0.7:6379/0"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush_nodes(&self, nodes: &[impl AsRef<str> + Sync]) -> Result<()> {
        self.flush(nodes.iter().map(AsRef::as_ref).collect()).await
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
    pub(super) fn dated(&self, snapshot: &Snapshot, key: &str, mut draft: Draft) -> Result<Draft> {
        let epoch = snapshot.epoch_for(key);
        if draft.entry.ring_epoch() != epoch {
            draft.entry = draft.entry.in_ring_epoch(epoch);
            draft.sealed = Some(self.core.format().seal(key, &draft.entry)?);
        }
        Ok(draft)
    }

    async fn fetch_by_itself(&self, key: &str, want: Want, rest: Option<Rest>) -> Result<Answer> {
        let snapshot = self.snapshot();
        let node = snapshot.node_of(key)?;
        node.fetch(&self.core, key, want, rest).await
    }

    /// The answer that a value is, if this process knows all that it takes to judge it. By the map of now, if it has changed
    /// meanwhile: what moved is out of date on the node that was asked. Where there are no epochs, by the map that the read
    /// began with.
    fn known(&self, key: &str, want: Want, opened: Box<Opened>) -> Result<Answer, Box<Opened>> {
        let snapshot = self.follower.current();
        let Ok(node) = snapshot.node_of(key) else {
            return Err(opened);
        };
        let answer = node.judged(&self.core, key, want, opened)?;
        Ok(self.judged(&snapshot, key, answer))
    }

    /// The answer that a value is.
    async fn opened(
        &self,
        snapshot: &Snapshot,
        key: &str,
        want: Want,
        opened: Box<Opened>,
    ) -> Result<Answer> {
        let node = snapshot.node_of(key)?;
        let rest = Some(Rest::Opened(opened));
        let answer = node.fetch(&self.core, key, want, rest).await?;
        Ok(self.judged(snapshot, key, answer))
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.follower.followed()
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

    fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
        let subscription = self.core.subscribe(prefix, interest);
        self.follower.current().listen();
        let follower = Arc::clone(&self.follower);
        subscription.and(move || follower.current().listen())
    }

    fn origin(&self, key: &str) -> Origin {
        let snapshot = self.follower.current();
        let node = snapshot.node_of(key);
        node.map_or(Origin::UNHEARD, |node| node.origin(key, snapshot.view()))
    }

    fn vouches(&self, key: &str, origin: Origin) -> bool {
        let snapshot = self.follower.current();
        !snapshot.outdates_copy(key, origin.view())
    }

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        let epoch = self.follower.current().epoch_for(key);
        draft.entry = draft.entry.clone().in_ring_epoch(epoch);
        draft.sealed = Some(self.core.format().seal(key, &draft.entry)?);
        Ok(())
    }

    async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
        self.begin_each(keys, namespace).await
    }

    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
        self.claim_each(keys, want, lease).await
    }

    async fn hold(&self, key: &str, ticket: &Ticket, life: Option<Duration>) -> Result<bool> {
        let snapshot = self.snapshot();
        snapshot.node_of(key)?.hold(key, ticket, life).await
    }

    fn keeps_tags(&self) -> bool {
        self.core.format().is_enveloped()
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
        self.invalidate_all(prefix, tag).await
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        let join = |waker: &Waker| {
            let snapshot = self.follower.current();
            let node = snapshot.node_of(key).ok()?;
            node.join(&self.core, key, want, waker)
        };
        let rest = match together(&self.core, key, want, join).await {
            Together::Done(answer) => return Ok(self.judged_now(key, answer)),
            Together::Failed(error) => return Err(error),
            Together::Rest(Some(Rest::Opened(opened))) => match self.known(key, want, opened) {
                Ok(answer) => return Ok(answer),
                Err(opened) => Some(Rest::Opened(opened)),
            },
            Together::Rest(rest) => rest,
        };
        let answer = Box::pin(self.fetch_by_itself(key, want, rest)).await?;
        Ok(self.judged_now(key, answer))
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        let (snapshot, place) = (self.snapshot(), Place::of::<Self>());
        match snapshot.node_of(key) {
            Ok(node) => {
                let trace = node.trace(place, &self.core, key, want).await;
                trace.judged(|answer| self.judged_now(key, answer))
            }
            Err(error) => Trace::of(place, Err(error), want, self.core.now()),
        }
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        self.store_key(key, draft).await
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.remove_key(key).await
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.retract_key(key, draft).await
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.wipe_all(prefix).await
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
        self.retime_key(key, ttl).await
    }

    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.add_to_key(key, by, namespace).await
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let snapshot = self.snapshot();
        let core = &self.core;
        let asked = match owned(&snapshot, keys.iter().copied(), |key| key) {
            Ok(items) => asking(items, &snapshot, |node: Node, keys: Vec<_>| async move {
                node.read_many(core, &keys, want).await
            }),
            Err(error) => return all_failed(keys.len(), &error),
        };
        let opener = Opener::new(core, want);
        // Those that it takes more to judge than what was known.
        let mut rest = Vec::new();
        let answer = |index: usize, raw: Result<Raw>| {
            let key = keys[index];
            Ok(match opener.open(key, raw?)? {
                Ok(answer) => self.judged_now(key, answer),
                Err(opened) => {
                    rest.push((index, opened));
                    Answer::default()
                }
            })
        };
        let mut answers = asked.answers_as(answer).await;
        for (index, opened) in rest {
            let key = keys[index];
            answers[index] = self.opened(&snapshot, key, want, opened).await;
        }
        answers
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        self.store_each(drafts).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.remove_each(keys).await
    }

    async fn close(&self) {
        self.follower.close().await;
    }
}
