//! The suite on every store over real servers. Each case starts servers of its own.

use std::sync::Arc;
use std::time::Duration;

use larder::conformance::Profile;
use larder::{DistributedRedis, Eviction, Moka, Prefixed, Redis, SharedCache, Tiered};

use crate::fleet::Fleet;
use crate::support::{Server, binary};
use crate::testserver::{at_hand, version_of};

/// Long enough for ten thousand callers to take their seats on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);

/// Cases ask for values that are there: a busy machine must not turn them into timeouts.
const PATIENT: Duration = Duration::from_secs(5);

async fn redis() -> (Redis, Server) {
    redis_at(Server::start().await).await
}
larder::conformance!(on_redis, redis, Profile::full());

async fn redis_at(server: Server) -> (Redis, Server) {
    let redis = Redis::builder(&server.url(0))
        .leader_patience(PATIENCE)
        .operation_timeout(PATIENT);
    (redis.connect().await.expect("a connection"), server)
}

/// Valkey beside Redis, or the other way round, where both are at hand.
async fn redis_of_another_make() -> (Redis, Server) {
    let version = version_of(&binary());
    let another = at_hand().iter().find(|other| version_of(other) != version);
    let another = another.cloned().unwrap_or_else(binary);
    redis_at(Server::made_by(another).await).await
}
larder::conformance!(on_another_make, redis_of_another_make, Profile::full());

async fn ring() -> (DistributedRedis, Fleet) {
    ring_of(Fleet::new(3).await).await
}
larder::conformance!(on_ring, ring, Profile::full());

/// As Redis 5 is: RESP2, and nothing newer.
async fn ring_of_old() -> (DistributedRedis, Fleet) {
    ring_of(Fleet::of_old(3).await).await
}
larder::conformance!(on_ring_of_old, ring_of_old, Profile::full());

async fn ring_of(fleet: Fleet) -> (DistributedRedis, Fleet) {
    let ring = DistributedRedis::builder(&fleet.manager_url())
        .leader_patience(PATIENCE)
        .operation_timeout(PATIENT)
        .connect_timeout(PATIENT);
    (ring.connect().await.expect("a ring"), fleet)
}

fn memory() -> Moka {
    Moka::builder()
        .max_entries(100_000)
        .eviction(Eviction::Lru)
        .build()
}

async fn tiered_ring() -> (Tiered<Moka, DistributedRedis>, Fleet) {
    let (ring, fleet) = ring().await;
    (Tiered::new(memory(), ring), fleet)
}
larder::conformance!(on_tiered_ring, tiered_ring, Profile::full());

async fn prefixed_redis() -> (Prefixed<Redis>, Server) {
    let (redis, server) = redis().await;
    (Prefixed::new(redis, "app:"), server)
}
larder::conformance!(on_prefixed_redis, prefixed_redis, Profile::full());

/// Two memories, a prefix and a server, behind a pointer.
async fn nested() -> (SharedCache, Server) {
    let (redis, server) = redis().await;
    let inner = Tiered::new(memory(), Prefixed::new(redis, "app:"));
    (Arc::new(Tiered::new(memory(), inner)), server)
}
larder::conformance!(on_nested_tiers, nested, Profile::full());
