//! The store over the ring.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::backend::{Backend, Memory, Peek};
use crate::backends::redis::{bound, connection_methods};
use crate::core::{Core, Settings, setting_methods};
use crate::entry::{Answer, Draft, Stored, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring, label};
use crate::ttl::Remaining;
use crate::wire::node::Node;
use crate::wire::{Connection, ConnectionSettings, NodeAddr};

use super::follow::{Follower, MapSettings};
use super::snapshot::{MapStatus, Snapshot};

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
    core: Core,
    follower: Arc<Follower>,
}

/// Settings of a [`DistributedRedis`].
#[derive(Debug)]
#[must_use]
pub struct DistributedRedisBuilder {
    manager: Result<NodeAddr>,
    settings: Settings,
    map: MapSettings,
}

impl DistributedRedisBuilder {
    setting_methods!(settings);
    connection_methods!(map.nodes);

    /// Sets by which rule the map is read. [`Order::Auto`] unless set: what the map says, else numeric with one warning.
    pub fn order(mut self, order: Order) -> Self {
        self.map.order = order;
        self
    }

    /// Sets how often the map is read. 500 ms unless set; 10 ms at least.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.map.poll_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Sets how many fields a map may have before it counts as absurd. 500,000 unless set.
    pub fn max_map_fields(mut self, fields: usize) -> Self {
        self.map.max_fields = fields;
        self
    }

    /// Starts even if there is no map or no manager: all keys are misses until there is one.
    pub fn start_without_map(mut self, start: bool) -> Self {
        self.map.start_without_map = start;
        self
    }

    /// Saves each good map in this file, and starts from it where the manager gives none. The file holds the nodes'
    /// passwords; it is readable by its owner alone.
    pub fn snapshot(mut self, path: impl Into<PathBuf>) -> Self {
        self.map.snapshot_file = Some(path.into());
        self
    }

    /// The store, once it has a map.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the url is wrong, the map is unusable, or it is to be read in another order than was
    /// chosen; [`ErrorKind::Unavailable`] if there is no map or no manager, unless
    /// [`start_without_map`](Self::start_without_map) or [`snapshot`](Self::snapshot) allow for it. Nodes may be down.
    pub async fn connect(mut self) -> Result<DistributedRedis> {
        bound(&mut self.settings, &mut self.map.nodes);
        let manager = ConnectionSettings {
            // A large map takes a while; nobody waits for it but the follower.
            operation_timeout: Duration::from_secs(5).max(self.map.nodes.operation_timeout),
            ..self.map.nodes.clone()
        };
        let clock = self.settings.clock.clone();
        let follower = Follower::new(Connection::new(self.manager?, manager), self.map, clock);
        follower.begin().await?;
        Ok(DistributedRedis {
            core: Core::new(self.settings),
            follower,
        })
    }
}

impl DistributedRedis {
    /// Connects to the ring whose map the manager at `redis://[user[:password]@]host[:port][/db]` holds.
    ///
    /// # Errors
    ///
    /// As [`DistributedRedisBuilder::connect`].
    pub async fn connect(manager_url: &str) -> Result<Self> {
        Self::builder(manager_url).connect().await
    }

    /// Settings first.
    pub fn builder(manager_url: &str) -> DistributedRedisBuilder {
        DistributedRedisBuilder {
            manager: NodeAddr::parse(manager_url),
            settings: Settings::default(),
            map: MapSettings {
                order: Order::Auto,
                poll_interval: Duration::from_millis(500),
                max_fields: 500_000,
                snapshot_file: None,
                start_without_map: false,
                nodes: ConnectionSettings::default(),
            },
        }
    }

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

    /// Groups keys by node and asks all nodes at once; the answers are in the order of the keys.
    async fn on_each<K, R, F>(
        &self,
        items: Vec<(usize, K)>,
        owners: &Snapshot,
        ask: impl Fn(Node, Vec<K>) -> F,
    ) -> Vec<Result<R>>
    where
        F: Future<Output = Vec<Result<R>>>,
    {
        let total = items.len();
        let mut groups: HashMap<usize, (Vec<usize>, Vec<K>), ahash::RandomState> =
            HashMap::default();
        for (place, (owner, item)) in items.into_iter().enumerate() {
            let (places, items) = groups.entry(owner).or_default();
            places.push(place);
            items.push(item);
        }
        let asked = groups.into_iter().map(|(owner, (places, items))| {
            let answers = owners.node(owner).map(|node| ask(node.clone(), items));
            async move {
                match answers {
                    Ok(answers) => (places, answers.await),
                    Err(error) => {
                        let errors = places.iter().map(|_| Err(error.clone())).collect();
                        (places, errors)
                    }
                }
            }
        });
        let mut answers: Vec<Option<Result<R>>> = (0..total).map(|_| None).collect();
        for (places, answered) in join_all(asked).await {
            for (place, answer) in places.into_iter().zip(answered) {
                answers[place] = Some(answer);
            }
        }
        let missing = || {
            Err(Error::new(
                ErrorKind::Unavailable,
                "the node answered too little",
            ))
        };
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(missing))
            .collect()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.follower.current())
    }
}

/// Each item with the index of its key's node, or the same error for all where there are no nodes.
fn owned<K>(
    snapshot: &Snapshot,
    items: impl IntoIterator<Item = K>,
    key: impl Fn(&K) -> &str,
) -> Result<Vec<(usize, K)>> {
    items
        .into_iter()
        .map(|item| Ok((snapshot.owner(key(&item))?, item)))
        .collect()
}

async fn fetch(node: &Node, core: &Core, keys: Vec<&str>, want: Want) -> Vec<Result<Answer>> {
    node.fetch_many(core, &keys, want).await
}

async fn remove(node: &Node, keys: Vec<&str>) -> Vec<Result<bool>> {
    node.remove_many(&keys).await
}

fn all_failed<R>(count: usize, error: &Error) -> Vec<Result<R>> {
    (0..count).map(|_| Err(error.clone())).collect()
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
        let epoch = self.follower.current().epoch;
        draft.entry = draft.entry.clone().in_ring_epoch(epoch);
        draft.sealed = Some(self.core.format().seal(key, &draft.entry)?);
        Ok(())
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        let snapshot = self.snapshot();
        snapshot.node_of(key)?.fetch(&self.core, key, want).await
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let snapshot = self.snapshot();
        snapshot.node_of(key)?.store(&self.core, key, &draft).await
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let snapshot = self.snapshot();
        snapshot.node_of(key)?.remove(key).await
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
        snapshot.node_of(key)?.contains(key).await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        let snapshot = self.snapshot();
        snapshot.node_of(key)?.remaining(key).await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        let snapshot = self.snapshot();
        snapshot.node_of(key)?.retime(key, ttl).await
    }

    async fn add_to(&self, key: &str, by: i64) -> Result<i64> {
        let snapshot = self.snapshot();
        snapshot.node_of(key)?.add_to(key, by).await
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let snapshot = self.snapshot();
        let core = &self.core;
        match owned(&snapshot, keys.iter().copied(), |key| key) {
            Ok(items) => {
                let ask = |node: Node, keys| async move { fetch(&node, core, keys, want).await };
                self.on_each(items, &snapshot, ask).await
            }
            Err(error) => all_failed(keys.len(), &error),
        }
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let snapshot = self.snapshot();
        let (core, total) = (&self.core, drafts.len());
        match owned(&snapshot, drafts, |(key, _)| key) {
            Ok(items) => {
                let ask = |node: Node, drafts: Vec<(String, Draft)>| async move {
                    node.store_many(core, &drafts).await
                };
                self.on_each(items, &snapshot, ask).await
            }
            Err(error) => all_failed(total, &error),
        }
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        let snapshot = self.snapshot();
        match owned(&snapshot, keys.iter().copied(), |key| key) {
            Ok(items) => {
                let ask = |node: Node, keys| async move { remove(&node, keys).await };
                self.on_each(items, &snapshot, ask).await
            }
            Err(error) => all_failed(keys.len(), &error),
        }
    }

    async fn close(&self) {
        self.follower.close().await;
    }
}
