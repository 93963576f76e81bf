//! A hundred keys at once, by one caller.

use futures_util::future::join_all;
use larder::{Cache, DistributedRedis, Redis};
use redis::aio::MultiplexedConnection;
use redis::{ToRedisArgs, cmd, pipe};

use crate::figures::{Clock, Figures, Sample, ratio};
use crate::peers::ByHand;
use crate::{KEYS, Keys, LENGTH, MANY, SPAN, Setting};

type Values = Vec<Option<String>>;

/// One who reads a batch of keys at a time. Those of redis-rs read from one node, but for the last.
#[derive(Clone)]
enum Reader {
    Sequential(MultiplexedConnection),
    Mget(MultiplexedConnection),
    Pipelined(MultiplexedConnection),
    Joined(MultiplexedConnection),
    ByHand(ByHand),
    Redis(Redis),
    Ring(DistributedRedis),
}

impl Reader {
    async fn read(&mut self, keys: Keys, batch: usize) -> Values {
        let keys = &keys[batch * MANY..][..MANY];
        match self {
            Self::Sequential(connection) => sequential(connection, keys).await,
            Self::Mget(connection) => mget(connection, keys).await,
            Self::Pipelined(connection) => pipelined(connection, keys).await,
            Self::Joined(connection) => joined(connection, keys).await,
            Self::ByHand(nodes) => by_hand(nodes, batch).await,
            Self::Redis(cache) => cache.get_many(keys).await.expect("get_many"),
            Self::Ring(cache) => cache.get_many(keys).await.expect("get_many"),
        }
    }

    async fn call(mut self, keys: Keys) -> Sample {
        let clock = Clock::start();
        let mut count = 0;
        while clock.runs_for() < SPAN {
            let values = self.read(keys, count % (KEYS / MANY)).await;
            let whole = values
                .iter()
                .flatten()
                .filter(|value| value.len() == LENGTH);
            assert_eq!(whole.count(), MANY, "not all of a batch was read");
            count += 1;
        }
        clock.stop(count)
    }
}

pub(crate) async fn run(setting: &Setting, rounds: usize) -> Vec<String> {
    let raw = || setting.raw.clone();
    let readers = [
        ("100 sequential GETs", Reader::Sequential(raw())),
        ("one MGET", Reader::Mget(raw())),
        ("100 pipelined GETs", Reader::Pipelined(raw())),
        ("100 joined GETs", Reader::Joined(raw())),
        ("3 MGETs by hand", Reader::ByHand(setting.by_hand.clone())),
        ("Redis", Reader::Redis(setting.redis.clone())),
        ("DistributedRedis", Reader::Ring(setting.ring.clone())),
    ];
    let mut figures = [(); 7].map(|()| Figures::default());
    for _ in 0..rounds {
        for ((_, reader), figures) in readers.iter().zip(&mut figures) {
            let sample = tokio::spawn(reader.clone().call(setting.keys)).await;
            figures.add(sample.expect("a caller"));
        }
    }
    println!("\n{MANY} keys, 1 caller: batches a second, CPU us each");
    for ((name, _), figures) in readers.iter().zip(&figures) {
        figures.print(name, 1.0);
    }
    let ours = &figures[6];
    let mut lines = Vec::new();
    for (name, peer, target) in [
        ("sequential", 0, ">=12"),
        ("mget", 1, ">=0.6 (then >=0.8)"),
        ("pipelined", 2, "none"),
        ("joined", 3, "none"),
        ("by_hand", 4, "none"),
        ("redis", 5, "none"),
    ] {
        let name = format!("get_many_100_vs_{name}");
        let peer = &figures[peer];
        lines.push(ratio(&name, &ours.rates, &peer.rates, target));
        lines.push(ratio(&format!("{name}_cpu"), &ours.cpu, &peer.cpu, "none"));
    }
    lines
}

async fn mget(connection: &mut MultiplexedConnection, keys: &[impl ToRedisArgs + Sync]) -> Values {
    cmd("MGET")
        .arg(keys)
        .query_async(connection)
        .await
        .expect("MGET")
}

async fn by_hand(nodes: &ByHand, batch: usize) -> Values {
    let gets = nodes.connections.iter().zip(&nodes.batches[batch]);
    let gets = gets.map(async |(connection, keys)| mget(&mut connection.clone(), keys).await);
    join_all(gets).await.into_iter().flatten().collect()
}

async fn sequential(connection: &mut MultiplexedConnection, keys: Keys) -> Values {
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        values.push(
            cmd("GET")
                .arg(key)
                .query_async(connection)
                .await
                .expect("GET"),
        );
    }
    values
}

async fn pipelined(connection: &mut MultiplexedConnection, keys: Keys) -> Values {
    let mut gets = pipe();
    keys.iter().for_each(|key| {
        gets.cmd("GET").arg(key);
    });
    gets.query_async(connection).await.expect("GET")
}

async fn joined(connection: &MultiplexedConnection, keys: Keys) -> Values {
    let get = async |key| {
        let mut connection = connection.clone();
        cmd("GET")
            .arg(key)
            .query_async(&mut connection)
            .await
            .expect("GET")
    };
    join_all(keys.iter().map(get)).await
}
