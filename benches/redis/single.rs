//! One key at a time, by 1, 32 and 256 callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::ring::RingConnection;
use larder::{Cache, DistributedRedis, Moka, Redis, Tiered};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cmd;
use rustis::client::Client as Rustis;
use rustis::commands::StringCommands;

use crate::figures::{Clock, Figures, ratio};
use crate::peers::ByHand;
use crate::{KEYS, Keys, LENGTH, SPAN, Setting};

/// One who reads a key at a time.
#[derive(Clone)]
enum Reader {
    Raw(MultiplexedConnection),
    ByHand(ByHand),
    Rustis(Rustis),
    Redis(Redis),
    Ring(DistributedRedis),
    Connection(RingConnection),
    Tiered(Tiered<Moka, DistributedRedis>),
}

impl Reader {
    async fn read(&mut self, key: &str) -> Option<String> {
        match self {
            Self::Raw(connection) => get(connection, key).await,
            Self::ByHand(nodes) => get(nodes.owner(key), key).await,
            Self::Rustis(client) => client.get(key).await.expect("GET"),
            Self::Redis(cache) => cache.get(key).await.expect("GET"),
            Self::Connection(ring) => get(ring, key).await,
            Self::Ring(cache) => cache.get(key).await.expect("GET"),
            Self::Tiered(cache) => cache.get(key).await.expect("GET"),
        }
    }

    /// Reads in a circle from the key at `first` until told to stop; answers how often.
    async fn call(mut self, keys: Keys, first: usize, stop: Arc<AtomicBool>) -> usize {
        let mut count = 0;
        let (before, from) = keys.split_at(first);
        for key in from.iter().chain(before).cycle() {
            let value = self.read(key).await;
            assert!(
                value.is_some_and(|value| value.len() == LENGTH),
                "{key} was not read"
            );
            count += 1;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        count
    }
}

async fn get(connection: &mut impl ConnectionLike, key: &str) -> Option<String> {
    cmd("GET")
        .arg(key)
        .query_async(connection)
        .await
        .expect("GET")
}

/// Callers at once, each a task of its own, each from another place in the circle of keys.
pub(crate) async fn run(setting: &Setting, callers: usize, rounds: usize) -> Vec<String> {
    // A memory of one entry: every read misses it, and asks for the value with its deadline.
    let tiered = (callers == 256).then(|| Tiered::new(Moka::new(1), setting.ring.clone()));
    let mut readers = vec![
        ("redis-rs", Reader::Raw(setting.raw.clone())),
        ("redis-rs by hand", Reader::ByHand(setting.by_hand.clone())),
        ("rustis", Reader::Rustis(setting.rustis.clone())),
        ("Redis", Reader::Redis(setting.redis.clone())),
        ("DistributedRedis", Reader::Ring(setting.ring.clone())),
        (
            "its connection()",
            Reader::Connection(setting.raw_ring.connection()),
        ),
    ];
    readers.extend(
        tiered
            .clone()
            .map(|tiered| ("Tiered over it", Reader::Tiered(tiered))),
    );
    let mut figures = vec![Figures::default(); readers.len()];
    for _ in 0..rounds {
        for ((_, reader), figures) in readers.iter().zip(&mut figures) {
            let stop = Arc::new(AtomicBool::new(false));
            let start = |caller| {
                let first = caller * KEYS / callers;
                tokio::spawn(reader.clone().call(setting.keys, first, Arc::clone(&stop)))
            };
            let clock = Clock::start();
            let tasks: Vec<_> = (0..callers).map(start).collect();
            tokio::time::sleep(SPAN).await;
            stop.store(true, Ordering::Relaxed);
            let mut count = 0;
            for task in tasks {
                count += task.await.expect("a caller");
            }
            figures.add(clock.stop(count));
        }
    }
    println!("\nGET, callers: {callers}; thousand a second, CPU us each");
    for ((name, _), figures) in readers.iter().zip(&figures) {
        figures.print(name, 1e3);
    }
    if let Some(tiered) = tiered {
        let stats = tiered.stats();
        let hits = stats.memory_hits as f64 / (stats.memory_hits + stats.store_hits) as f64;
        println!("  memory of Tiered answered {:.2} %", hits * 100.0);
    }
    ratios(callers, &figures)
}

fn ratios(callers: usize, figures: &[Figures]) -> Vec<String> {
    let target = match callers {
        1 => ">=0.90 (then >=1.0)",
        256 => ">=1.0 (then >=2.0)",
        _ => "none",
    };
    let mut lines = Vec::new();
    for (name, target, ours) in [
        ("redis_get", target, 3),
        ("ring_get", target, 4),
        ("connection_get", "none", 5),
        ("tiered_miss", "none", 6),
    ] {
        let ours_alone = name == "redis_get";
        let Some(ours) = figures.get(ours) else {
            continue;
        };
        let name = format!("{name}_{callers}");
        let peers = [
            ("", 0, target),
            ("_vs_by_hand", 1, "none"),
            ("_vs_rustis", 2, "none"),
        ];
        for (against, peer, target) in peers {
            // One node against three says nothing.
            if ours_alone && peer == 1 {
                continue;
            }
            let (name, peer) = (format!("{name}{against}"), &figures[peer]);
            lines.push(ratio(&name, &ours.rates, &peer.rates, target));
            lines.push(ratio(&format!("{name}_cpu"), &ours.cpu, &peer.cpu, "none"));
        }
    }
    lines
}
