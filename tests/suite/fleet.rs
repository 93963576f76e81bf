//! A manager Redis and some nodes, with a map, for the tests of the ring.

use std::time::{Duration, Instant};

use larder::DistributedRedis;
use larder::ring::{Publication, publish, python_positions};

use crate::support::Server;

/// A manager and its nodes; dropped, all of them are killed.
pub(crate) struct Fleet {
    pub(crate) manager: Server,
    pub(crate) nodes: Vec<Server>,
}

impl Fleet {
    /// A manager and `count` nodes, without a map.
    pub(crate) async fn bare(count: usize) -> Self {
        Self::bare_with(count, &[]).await
    }

    async fn bare_with(count: usize, args: &[&str]) -> Self {
        let manager = Server::start_with(args).await;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Server::start_with(args).await);
        }
        Self { manager, nodes }
    }

    /// One of servers that know RESP2 alone, tell nobody of writes, and have no command that Redis 5 has not.
    pub(crate) async fn of_old(count: usize) -> Self {
        let since = [
            "HELLO",
            "CLIENT",
            "ACL",
            "RESET",
            "COPY",
            "GETDEL",
            "GETEX",
            "LMOVE",
            "LPOS",
            "SMISMEMBER",
            "ZDIFF",
            "ZINTER",
            "ZUNION",
            "ZMSCORE",
            "ZRANGESTORE",
            "EXPIRETIME",
            "PEXPIRETIME",
            "EVAL_RO",
            "EVALSHA_RO",
            "FCALL",
            "FUNCTION",
            "SINTERCARD",
            "LMPOP",
            "ZMPOP",
        ];
        let args = since.iter().flat_map(|name| ["--rename-command", name, ""]);
        let fleet = Self::bare_with(count, &args.collect::<Vec<_>>()).await;
        fleet.published().await
    }

    /// The same with a map that a Larder manager would publish.
    pub(crate) async fn new(count: usize) -> Self {
        Self::bare(count).await.published().await
    }

    async fn published(self) -> Self {
        let map = Publication::of_nodes(&self.node_urls(), 40);
        let published = publish(&self.manager_url(), &map).await;
        published.expect("the map is published");
        self
    }

    pub(crate) fn manager_url(&self) -> String {
        self.manager.url(13)
    }

    pub(crate) fn node_urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url(0)).collect()
    }

    pub(crate) async fn connect(&self) -> DistributedRedis {
        self.connect_with(Duration::from_millis(200)).await
    }

    /// The same with another patience for leaders.
    pub(crate) async fn connect_with(&self, patience: Duration) -> DistributedRedis {
        DistributedRedis::builder(&self.manager_url())
            .poll_interval(Duration::from_millis(20))
            .leader_patience(patience)
            .connect()
            .await
            .expect("the ring is connected")
    }

    /// Writes a map as the Python server does: `DEL`, then `HMSET`, five positions a node.
    pub(crate) async fn publish_like_python(&self, urls: &[String]) {
        let mut args = vec!["HMSET".to_owned(), "HASH_RING_MAP".to_owned()];
        for (position, url) in python_positions(urls, 5) {
            args.push(position.to_string());
            args.push(url);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.manager.raw(13, &["DEL", "HASH_RING_MAP"]).await;
        self.manager.raw(13, &args).await;
    }

    /// The node that a key belongs to.
    pub(crate) fn owner(&self, cache: &DistributedRedis, key: &str) -> &Server {
        let label = cache.node_for(key).expect("a node");
        self.nodes
            .iter()
            .find(|node| label == format!("127.0.0.1:{}/0", node.port()))
            .expect("a node of this fleet")
    }
}

/// Looks until `holds` does, at most for `bound`; answers how long it took.
pub(crate) async fn eventually(
    bound: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < bound, "{what}: not within {bound:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}
