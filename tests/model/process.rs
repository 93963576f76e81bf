//! One process of a fleet: connections, memory and tier of its own, and between it and each server a network that can
//! be made bad.

use std::sync::Arc;
use std::time::Duration;

use larder::coherence::Hearing;
use larder::testing::Proxy;
use larder::{Backend, DistributedRedis, Moka, Prefixed, Redis, SharedCache, Tiered};

use crate::support::Server;

/// All keys lie under this, but for the counters.
pub(crate) const PREFIX: &str = "m:";
const COUNTS: &str = "c:";

pub(crate) type Tier = Tiered<Moka, SharedCache>;

enum Store {
    One(Redis),
    Ring(DistributedRedis),
}

pub(crate) struct Process {
    pub(crate) cache: Tier,
    /// Counters, in a namespace and a memory of their own, over the same connection.
    pub(crate) counts: Tier,
    /// What is stored, past memory.
    pub(crate) below: SharedCache,
    /// How old memory may be.
    pub(crate) bound: Duration,
    /// One for each server.
    pub(crate) proxies: Vec<Proxy>,
    store: Store,
}

/// A proxy in front of each server, which knows the lines on which writes are told.
pub(crate) async fn proxies(servers: &[Server]) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    for server in servers {
        let proxy = Proxy::to(("127.0.0.1", server.port())).await;
        proxies.push(proxy.expect("a proxy").marking("TRACKING"));
    }
    proxies
}

/// The server's url through a proxy.
pub(crate) fn through(server: &Server, proxy: &Proxy) -> String {
    let (own, other) = (server.port(), proxy.port());
    let url = server.url(0);
    url.replace(&format!(":{own}/"), &format!(":{other}/"))
}

impl Process {
    pub(crate) async fn of_one(servers: &[Server], bound: Duration) -> Self {
        let proxies = proxies(servers).await;
        let url = through(&servers[0], &proxies[0]);
        let redis = Redis::builder(&url).max_staleness(bound);
        let redis = redis.connect().await.expect("connected");
        Self::over(Store::One(redis), bound, proxies)
    }

    pub(crate) async fn of_ring(
        manager: &Server,
        map: &str,
        proxies: Vec<Proxy>,
        bound: Duration,
    ) -> Self {
        let ring = DistributedRedis::builder(&manager.url(13))
            .map_name(map)
            .poll_interval(Duration::from_millis(100))
            .max_staleness(bound);
        let ring = ring.connect().await.expect("the ring is connected");
        Self::over(Store::Ring(ring), bound, proxies)
    }

    fn over(store: Store, bound: Duration, proxies: Vec<Proxy>) -> Self {
        let under = |prefix: &'static str| -> SharedCache {
            match &store {
                Store::One(redis) => Arc::new(Prefixed::new(redis.clone(), prefix)),
                Store::Ring(ring) => Arc::new(Prefixed::new(ring.clone(), prefix)),
            }
        };
        let tier = |below| {
            let tier = Tiered::builder(Moka::new(10_000), below);
            tier.max_staleness(bound).build()
        };
        let below = under(PREFIX);
        Self {
            cache: tier(Arc::clone(&below)),
            counts: tier(under(COUNTS)),
            below,
            bound,
            proxies,
            store,
        }
    }

    /// Whether every server is up and heard, and nothing is owed.
    pub(crate) fn is_settled(&self) -> bool {
        let nodes = match &self.store {
            Store::One(redis) => vec![redis.status()],
            Store::Ring(ring) => ring.map_status().nodes,
        };
        let sources = self.cache.coherence();
        let bound = self.bound;
        nodes.iter().all(|node| node.up && node.owed == 0)
            && sources
                .iter()
                .all(|source| matches!(source.hearing, Hearing::Heard { age } if age < bound))
    }

    pub(crate) async fn close(&self) {
        self.below.close().await;
    }
}
