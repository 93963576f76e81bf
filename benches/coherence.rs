//! What it costs that memory hears of writes by others.
//!
//! - How long after a foreign write is the key gone from memory: from before the command is sent until the subscriber behind
//!   memory is told. Idle, and while four connections write other keys as fast as they can.
//! - What 1, 10 and 50 processes that listen cost the server for each write, against none: its own CPU time, from `INFO`.
//! - How many copies are turned away because their key was written while they were on their way, when as many write a few keys as
//!   read them; and how often the server is asked after a value was computed.
//!
//! Servers are processes of this bench's own, on this machine. `LARDER_BENCH_ROUNDS=3` shortens it. Which server: as for the
//! tests, `LARDER_REDIS_SERVER`, then PATH.

#[path = "../tests/suite/support.rs"]
#[allow(unused_imports, reason = "the tests of the kit are not built here")]
mod support;

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder::coherence::{Hearing, Interest, Invalidation};
use larder::{Backend, Cache, Moka, Redis, Tiered};
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;

use support::Server;

const TTL: Duration = Duration::from_secs(3600);
const WRITES: usize = 1000;
const PER_PIPELINE: usize = 100;

type Tier = Tiered<Moka, Redis>;

fn main() {
    let rounds = env::var("LARDER_BENCH_ROUNDS")
        .map_or(9, |rounds| rounds.parse().expect("LARDER_BENCH_ROUNDS"));
    println!("coherence: {rounds} rounds, 2 worker threads");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let lines = runtime.block_on(async {
        let mut lines = latency(rounds).await;
        lines.extend(trackers(rounds).await);
        lines.extend(contention().await);
        lines
    });
    println!();
    lines.iter().for_each(|line| println!("{line}"));
}

async fn tier(server: &Server) -> Tier {
    // A bound wide enough for a busy machine.
    let redis = Redis::builder(&server.url(0)).operation_timeout(Duration::from_secs(5));
    let redis = redis.connect().await.expect("connected");
    let tier = Tiered::new(Moka::new(100_000), redis);
    let heard = || matches!(tier.coherence()[0].hearing, Hearing::Heard { .. });
    while !heard() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tier
}

async fn raw(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(server.url(0)).expect("a url");
    let connected = client.get_multiplexed_async_connection().await;
    connected.expect("connected")
}

fn median(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}

fn line(name: &str, unit: &str, values: &mut [f64], target: &str) -> String {
    let (median, least, most) = median(values);
    format!("ratio {name} {median:.2} ({least:.2}..{most:.2}) {unit} target {target}")
}

/// Writes keys as fast as one connection can, until told to stop.
async fn flood(mut connection: MultiplexedConnection, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let mut many = redis::pipe();
        for i in 0..PER_PIPELINE {
            many.cmd("SET").arg(format!("other:{i}")).arg("x").ignore();
        }
        let _: () = many.query_async(&mut connection).await.expect("written");
    }
}

/// The times from a foreign write to its eviction, in milliseconds.
async fn evictions(tier: &Tier, writer: &mut MultiplexedConnection) -> Vec<f64> {
    let (told, heard) = (Arc::new(Notify::new()), Arc::new(Mutex::new(None)));
    let subscriber = {
        let (told, heard) = (Arc::clone(&told), Arc::clone(&heard));
        move |what: Invalidation<'_>| {
            if matches!(what, Invalidation::Keys(["k"])) {
                *heard.lock().expect("no panic") = Some(Instant::now());
                told.notify_one();
            }
        }
    };
    // After memory, which subscribed first.
    let _subscription = tier.subscribe("", Interest::new(Arc::new(subscriber)));
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let began = Instant::now();
        let set = redis::cmd("SET").arg("k").arg("v").to_owned();
        let _: () = set.query_async(writer).await.expect("written");
        let at = loop {
            if let Some(at) = heard.lock().expect("no panic").take() {
                break at;
            }
            told.notified().await;
        };
        times.push((at - began).as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times
}

async fn latency(rounds: usize) -> Vec<String> {
    let server = Server::start().await;
    let (tier, mut writer) = (tier(&server).await, raw(&server).await);
    let mut lines = Vec::new();
    for busy in [false, true] {
        let stop = Arc::new(AtomicBool::new(false));
        let mut floods = Vec::new();
        for _ in 0..if busy { 4 } else { 0 } {
            floods.push(tokio::spawn(flood(raw(&server).await, Arc::clone(&stop))));
        }
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let times = evictions(&tier, &mut writer).await;
            p50.push(times[WRITES / 2]);
            p99.push(times[WRITES * 99 / 100]);
        }
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.await.expect("a writer");
        }
        let name = if busy { "evicted_busy" } else { "evicted_idle" };
        lines.push(line(&format!("{name}_p50"), "ms", &mut p50, "<=1"));
        lines.push(line(&format!("{name}_p99"), "ms", &mut p99, "<=5"));
    }
    lines
}

/// The server's CPU time so far, in microseconds.
async fn cpu(connection: &mut MultiplexedConnection) -> f64 {
    let info = redis::cmd("INFO").arg("cpu").to_owned();
    let info: String = info.query_async(connection).await.expect("INFO");
    let of = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse::<f64>().ok())
            .expect("a number")
    };
    (of("used_cpu_user:") + of("used_cpu_sys:")) * 1e6
}

/// The server's CPU time for each of many writes, in microseconds.
async fn cost(writer: &mut MultiplexedConnection) -> f64 {
    const PIPELINES: usize = 200;
    let before = cpu(writer).await;
    for round in 0..PIPELINES {
        let mut many = redis::pipe();
        for i in 0..PER_PIPELINE {
            many.cmd("SET")
                .arg(format!("k{round}:{i}"))
                .arg("x")
                .ignore();
        }
        let _: () = many.query_async(writer).await.expect("written");
    }
    (cpu(writer).await - before) / (PIPELINES * PER_PIPELINE) as f64
}

async fn trackers(rounds: usize) -> Vec<String> {
    let server = Server::start().await;
    let mut writer = raw(&server).await;
    let (mut tiers, mut lines, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        none.push(cost(&mut writer).await);
    }
    lines.push(line(
        "server_cpu_0_trackers",
        "us a write",
        &mut none,
        "none",
    ));
    let (alone, ..) = median(&mut none);
    for count in [1, 10, 50] {
        while tiers.len() < count {
            tiers.push(tier(&server).await);
        }
        let mut costs = Vec::new();
        for _ in 0..rounds {
            costs.push(cost(&mut writer).await / alone);
        }
        let name = format!("server_cpu_{count}_trackers");
        lines.push(line(&name, "times none", &mut costs, "none"));
    }
    lines
}

/// Half of the tasks write a few keys, the others read them.
async fn contention() -> Vec<String> {
    const SPAN: Duration = Duration::from_secs(2);
    let server = Server::start().await;
    let (reading, writing) = (tier(&server).await, tier(&server).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for task in 0..16 {
        let (reading, writing, stop) = (reading.clone(), writing.clone(), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut turn = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                let key = format!("hot:{}", turn % 8);
                if task % 2 == 0 {
                    writing.set(&key, turn, TTL).await.expect("written");
                } else {
                    let _ = reading.get::<u64>(&key).await.expect("read");
                    // A hit is answered at once, and lets nobody else have a turn.
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    tokio::time::sleep(SPAN).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("a task");
    }
    let stats = reading.stats();
    let share = 100.0 * stats.fills_refused as f64 / stats.store_hits.max(1) as f64;
    println!(
        "8 readers, 8 writers of 8 keys: {} hits in memory, {} reads of the server, {} copies turned away",
        stats.memory_hits, stats.store_hits, stats.fills_refused
    );
    // What comes after a computed value: its reads in turn, until one is answered from memory.
    const KEYS: usize = 1000;
    let before = reading.stats();
    for i in 0..KEYS {
        let key = format!("computed:{i}");
        let compute = || async { 1_u64 };
        reading
            .get_or_set(&key, TTL, compute)
            .await
            .expect("computed");
        let hits = reading.stats().memory_hits;
        while reading.stats().memory_hits == hits {
            reading.get::<u64>(&key).await.expect("read");
        }
    }
    let asked = reading.stats().store_hits - before.store_hits;
    vec![
        line(
            "fills_refused",
            "% of reads of the server",
            &mut [share],
            "none",
        ),
        line(
            "reads_after_compute",
            "reads of the server",
            &mut [asked as f64 / KEYS as f64],
            "none",
        ),
    ]
}
