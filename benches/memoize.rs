//! A memoized call that hits, against a read of the same value whose key is ready, and against other crates' memoized functions.
//!
//! Peers run in turns, round by round, over the same arguments in the same random order, so that each ratio compares
//! neighbours in time. A figure is CPU time of the thread, the median of all rounds with its least and greatest.
//! Allocations are counted by the allocator, over one round. Arguments are ignored; `LARDER_BENCH_KEYS=256` runs that size alone.

mod common;

use std::alloc::System;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cached::{cached, concurrent_cached};
use cpu_time::ThreadTime;
use larder::{Cache, Moka, SharedCache, memoize};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use common::{ready, shuffle, spread};

const ROUNDS: usize = 9;
const MOST: usize = 1_000_000;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static CACHE: LazyLock<SharedCache> = LazyLock::new(|| {
    let memory = Moka::builder()
        .max_entries(MOST as u64 * 8)
        .default_ttl(Duration::from_secs(3600))
        .round_trip(false);
    Arc::new(memory.build())
});

#[derive(Clone, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

fn user(id: u64) -> Arc<User> {
    let name = format!("user number {id}");
    Arc::new(User { id, name })
}

#[memoize(cache = CACHE)]
async fn by_id(id: u64) -> Arc<User> {
    user(id)
}

#[memoize(cache = CACHE)]
async fn by_two(id: u64, active: bool) -> Arc<User> {
    let _ = active;
    user(id)
}

#[memoize(cache = CACHE)]
async fn by_name(name: &str) -> Arc<User> {
    user(name.len() as u64)
}

#[memoize(cache = CACHE)]
async fn squared(id: u64) -> u64 {
    id.wrapping_mul(id)
}

#[cached(max_size = 1_000_000, ttl_secs = 3600)]
async fn cached_by_id(id: u64) -> Arc<User> {
    user(id)
}

#[concurrent_cached(max_size = 1_000_000, ttl_secs = 3600)]
async fn concurrent_by_id(id: u64) -> Arc<User> {
    user(id)
}

/// One argument of each kind, and the keys of the calls with it.
struct Case {
    id: u64,
    name: String,
    by_id: String,
    by_two: String,
    by_name: String,
    squared: String,
}

impl Case {
    fn new(id: u64) -> Self {
        let name = format!("user:{id:019}");
        Self {
            id,
            by_id: by_id::key(id).expect("a key"),
            by_two: by_two::key(id, true).expect("a key"),
            by_name: by_name::key(&name).expect("a key"),
            squared: squared::key(id).expect("a key"),
            name,
        }
    }
}

struct Peer {
    name: &'static str,
    hit: fn(&Case) -> bool,
    nanos: Vec<f64>,
    allocations: f64,
}

impl Peer {
    fn new(name: &'static str, hit: fn(&Case) -> bool) -> Self {
        Self {
            name,
            hit,
            nanos: Vec::new(),
            allocations: 0.0,
        }
    }

    fn round(&mut self, cases: &[Case], times: usize) {
        // Once without the clock, or whoever comes second to the same memory finds it in the processor's cache.
        cases.iter().for_each(|case| {
            black_box((self.hit)(case));
        });
        let before = ALLOCATOR.stats().allocations;
        let start = ThreadTime::now();
        for _ in 0..times {
            for case in cases {
                assert!(black_box((self.hit)(case)), "{}", self.name);
            }
        }
        let hits = (cases.len() * times) as f64;
        self.nanos.push(start.elapsed().as_nanos() as f64 / hits);
        self.allocations = (ALLOCATOR.stats().allocations - before) as f64 / hits;
    }
}

fn read(key: &str) -> bool {
    matches!(ready(CACHE.get_shared::<User>(key)), Ok(Some(_)))
}

fn peers() -> Vec<Peer> {
    vec![
        Peer::new("get_shared", |case| read(&case.by_id)),
        Peer::new("memoized", |case| ready(by_id(case.id)).id == case.id),
        Peer::new("get_shared, key of two", |case| read(&case.by_two)),
        Peer::new("memoized, by two", |case| {
            ready(by_two(case.id, true)).id == case.id
        }),
        Peer::new("get_shared, key of a text", |case| read(&case.by_name)),
        Peer::new("memoized, by a text", |case| {
            ready(by_name(&case.name)).id > 0
        }),
        Peer::new("get of a u64", |case| {
            matches!(ready(CACHE.get::<u64>(&case.squared)), Ok(Some(_)))
        }),
        Peer::new("memoized u64", |case| {
            black_box(ready(squared(case.id)));
            true
        }),
        Peer::new("#[cached]", |case| {
            ready(cached_by_id(case.id)).id == case.id
        }),
        Peer::new("#[concurrent_cached]", |case| {
            ready(concurrent_by_id(case.id)).id == case.id
        }),
    ]
}

fn main() {
    println!("memoize: {ROUNDS} rounds, arguments in random order, CPU ns a hit, one thread");
    println!("larder: Moka through Arc<dyn Backend>. cached: 4, LRU of 1,000,000, with a ttl.");
    let only = std::env::var("LARDER_BENCH_KEYS")
        .ok()
        .and_then(|keys| keys.parse::<usize>().ok());
    let mut lines = Vec::new();
    for (entries, times) in [(256, 400), (10_000, 10), (MOST, 1)] {
        if only.is_none_or(|only| only == entries) {
            lines.extend(size(entries, times));
        }
    }
    println!();
    lines.iter().for_each(|line| println!("{line}"));
}

fn size(entries: usize, times: usize) -> Vec<String> {
    let id = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1;
    let mut cases: Vec<Case> = (0..entries).map(|i| Case::new(id(i))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for case in &cases {
            by_id(case.id).await;
            by_two(case.id, true).await;
            by_name(&case.name).await;
            squared(case.id).await;
            cached_by_id(case.id).await;
            concurrent_by_id(case.id).await;
        }
    });
    let mut peers = peers();
    for _ in 0..ROUNDS {
        shuffle(&mut cases);
        for peer in &mut peers {
            peer.round(&cases, times);
        }
    }
    report(entries, &peers)
}

fn report(entries: usize, peers: &[Peer]) -> Vec<String> {
    println!(
        "\n{entries} keys{:>28} {:>8} {:>8} {:>9}",
        "median", "min", "max", "allocs"
    );
    for peer in peers {
        let (median, min, max) = spread(peer.nanos.clone());
        println!(
            "  {:<26} {median:>8.0} {min:>8.0} {max:>8.0} {:>9.3}",
            peer.name, peer.allocations
        );
    }
    let by_name = |name: &str| peers.iter().find(|peer| peer.name == name).expect("a peer");
    let ratio = |ours: &str, theirs: &str, target: &str| {
        let (ours, theirs) = (by_name(ours), by_name(theirs));
        let ratios = ours.nanos.iter().zip(&theirs.nanos).map(|(a, b)| a / b);
        let (median, min, max) = spread(ratios.collect());
        let name = format!("{} / {} at {entries}", ours.name, theirs.name);
        format!("ratio {name:<58} {median:.2} ({min:.2}..{max:.2}){target}")
    };
    vec![
        ratio("memoized", "get_shared", " target <=1.25"),
        ratio(
            "memoized, by two",
            "get_shared, key of two",
            " target <=1.25",
        ),
        ratio("memoized u64", "get of a u64", " target <=1.25"),
        ratio("memoized, by a text", "get_shared, key of a text", ""),
        ratio("memoized", "#[cached]", ""),
        ratio("memoized", "#[concurrent_cached]", ""),
    ]
}
