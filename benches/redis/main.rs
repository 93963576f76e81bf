//! Reads from real servers, against redis-rs and rustis.
//!
//! Peers run in turns, round by round, so that each ratio compares neighbours in time. A figure is the median of all
//! rounds with its least and greatest. The servers are processes of this bench's own, on this machine: throughput is
//! what client and servers reach together, CPU is the client's alone. An argument runs one group alone:
//! `get_1`, `get_32`, `get_256` or `get_many`; `LARDER_BENCH_ROUNDS=3` shortens it. Which server: as for the tests,
//! `LARDER_REDIS_SERVER`, then PATH.
//!
//! One caller waits for a wakeup on each side of every read, and what that takes depends on which core the system
//! puts whom: rounds of one and the same peer lie up to ten times apart. So the throughput of one caller says little
//! unless client and servers share a core, as under `taskset -c 0`, and better by CPU than by time.
//! `ring_get_*`, whose target is against one server, also compares three connections with one;
//! `ring_get_*_vs_by_hand`, against redis-rs over the same three nodes, is Larder's own cost; `connection_get_*_vs_by_hand` is that of
//! `DistributedRedis::connection()`, which reads the same values as they do.
//!
//! Every value is a string of 256 bytes: raw in database 0, where the peers read it; with Larder's envelope in
//! database 1. All have the same ttl, for a server looks a key twice up that has one. All read the same keys in the same
//! order into a `String`.

mod figures;
mod many;
mod peers;
mod single;
#[path = "../../tests/suite/support.rs"]
#[allow(unused_imports, reason = "the tests of the kit are not built here")]
mod support;

use std::env;
use std::time::Duration;

use larder::ring::{Publication, publish};
use larder::{Cache, DistributedRedis, Redis};
use redis::aio::MultiplexedConnection;
use rustis::client::Client as Rustis;

use peers::ByHand;
use support::Server;

const SPAN: Duration = Duration::from_millis(300);
const KEYS: usize = 10_000;
const MANY: usize = 100;
const LENGTH: usize = 256;
const PER_NODE: usize = 160;
/// The bound on each operation of Larder and of redis-rs, wide enough for a busy machine. Both keep time for each
/// operation by default, 250 and 500 ms; rustis does not, and is left so.
const BOUND: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(3600);

type Keys = &'static [String];

fn main() {
    let rounds = env::var("LARDER_BENCH_ROUNDS")
        .map_or(9, |rounds| rounds.parse().expect("LARDER_BENCH_ROUNDS"));
    println!(
        "redis: {rounds} rounds of {SPAN:?} each, {KEYS} keys, values of {LENGTH} bytes, 2 worker threads"
    );
    println!("redis-rs: 1.8, RESP2, nodelay, one handle a caller. rustis: 0.27, RESP3, nodelay.");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let setting = Setting::new().await;
        let mut ratios = Vec::new();
        for callers in [1, 32, 256] {
            if chosen(&format!("get_{callers}")) {
                ratios.extend(single::run(&setting, callers, rounds).await);
            }
        }
        if chosen("get_many") {
            ratios.extend(many::run(&setting, rounds).await);
        }
        println!();
        ratios.iter().for_each(|line| println!("{line}"));
    });
}

/// Whether a group is to run: named in the arguments, in which the flags of cargo are passed over, or none is.
fn chosen(group: &str) -> bool {
    let mut names = env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .peekable();
    names.peek().is_none() || names.any(|name| name == group)
}

/// The servers, filled, and everything that reads from them.
struct Setting {
    keys: Keys,
    raw: MultiplexedConnection,
    rustis: Rustis,
    redis: Redis,
    ring: DistributedRedis,
    /// The same nodes and positions, in the database of redis-rs.
    raw_ring: DistributedRedis,
    by_hand: ByHand,
    /// Killed when dropped, in a panic too.
    _servers: Vec<Server>,
}

impl Setting {
    async fn new() -> Self {
        let keys: Keys = keys().leak();
        let alone = Server::start().await;
        let nodes = [
            Server::start().await,
            Server::start().await,
            Server::start().await,
        ];
        let urls = nodes.each_ref().map(|node| node.url(1));
        // The manager is a database of a node: its map is read twice a second.
        let manager = nodes[0].url(13);
        let map = Publication::of_nodes(&urls, PER_NODE);
        publish(&manager, &map).await.expect("publish");
        let raw = map.positions().iter().map(|(position, url)| {
            let node = nodes.iter().find(|node| node.url(1) == *url);
            (*position, node.expect("a node").url(0))
        });
        let raw_manager = nodes[0].url(12);
        publish(&raw_manager, &Publication::of_positions(raw))
            .await
            .expect("publish");
        let setting = Self {
            keys,
            raw: peers::redis(&alone.url(0)).await,
            rustis: peers::rustis(&alone.url(0)).await,
            redis: Redis::builder(&alone.url(1))
                .operation_timeout(BOUND)
                .connect()
                .await
                .expect("connect"),
            ring: ring(&manager).await,
            raw_ring: ring(&raw_manager).await,
            by_hand: ByHand::new(&nodes, keys).await,
            _servers: nodes.into_iter().chain([alone]).collect(),
        };
        setting.fill().await;
        setting
    }

    async fn fill(&self) {
        let entries = || self.keys.iter().map(|key| (key.clone(), value(key)));
        peers::fill(&mut self.raw.clone(), self.keys.iter()).await;
        self.redis.set_many(entries(), TTL).await.expect("set_many");
        self.ring.set_many(entries(), TTL).await.expect("set_many");
    }
}

async fn ring(manager: &str) -> DistributedRedis {
    let ring = DistributedRedis::builder(manager).operation_timeout(BOUND);
    ring.connect().await.expect("connect")
}

/// 10,000 keys of 24 bytes, in no order.
fn keys() -> Vec<String> {
    let scatter = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..KEYS as u64)
        .map(|i| format!("user:{:019}", scatter(i) >> 1))
        .collect()
}

/// 256 bytes of text, another for each key.
fn value(key: &str) -> String {
    key.chars().cycle().take(LENGTH).collect()
}
