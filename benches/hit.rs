//! A hit in memory, against raw moka and quick_cache; and one with a policy (a grace, a tag, refresh ahead by chance) against
//! one without.
//!
//! Peers run in turns, round by round, over the same keys in the same random order, so that each ratio compares
//! neighbours in time. A figure is CPU time of the thread, the median of all rounds with its least and greatest.
//! Allocations are counted by the allocator, over one round; bytes an entry as asked for, once all are in. Arguments are ignored;
//! `LARDER_BENCH_KEYS=256` runs that size alone.

mod common;

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cpu_time::ThreadTime;
use larder::coherence::{Origin, Source};
use larder::core::Core;
use larder::{
    Answer, Backend, Cache, Draft, Entry, Moka, Op, Options, RefreshAhead, SharedCache, Stored,
    Tiered, Ttl, Value, Want,
};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use common::{ready, shuffle, spread};

const ROUNDS: usize = 9;
const TTL: Duration = Duration::from_secs(3600);

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocations() -> usize {
    ALLOCATOR.stats().allocations
}

/// How many bytes are asked for and not given back.
fn held() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// Ten fields, 258 bytes as MessagePack.
#[derive(Clone, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    email: String,
    address: String,
    city: String,
    country: String,
    score: f64,
    tags: Vec<String>,
    active: bool,
    note: Option<String>,
}

fn user(id: u64) -> User {
    User {
        id,
        name: format!("user number {id}"),
        email: format!("user{id}@mail.example.org"),
        address: "221b Baker Street, second floor".into(),
        city: "London".into(),
        country: "United Kingdom".into(),
        score: 0.5,
        tags: vec!["reader".into(), "writer".into()],
        active: true,
        note: Some("prefers tea".into()),
    }
}

/// A store elsewhere that tells of its writes, and is heard: what stands there lies in no memory of this process. Its copies
/// are judged by their source at each hit, as those of a server are.
#[derive(Clone)]
struct Elsewhere {
    core: Core,
    source: Source,
}

impl Elsewhere {
    fn new() -> Self {
        let core = Core::default();
        let source = core.source("elsewhere");
        source.began();
        source.proven(Instant::now());
        let proving = source.clone();
        // As often as a server is asked.
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(250));
                proving.proven(Instant::now());
            }
        });
        Self { core, source }
    }
}

#[async_trait]
impl Backend for Elsewhere {
    fn core(&self) -> &Core {
        &self.core
    }

    fn origin(&self, _key: &str) -> Origin {
        self.source.origin(0)
    }

    async fn fetch(&self, key: &str, _want: Want) -> larder::Result<Answer> {
        let value = Value::new(user(key.len() as u64));
        Ok(Entry::new(value, self.core.now(), Some(TTL)).into())
    }

    async fn store(&self, _key: &str, _draft: Draft) -> larder::Result<Stored> {
        Ok(Stored::Done)
    }

    async fn remove(&self, _key: &str) -> larder::Result<bool> {
        Ok(false)
    }

    async fn wipe(&self, _prefix: &str) -> larder::Result<()> {
        Ok(())
    }
}

/// The per-entry expiry that a user of raw moka would write.
struct FixedTtl;

impl moka::Expiry<String, Arc<User>> for FixedTtl {
    fn expire_after_create(&self, _: &String, _: &Arc<User>, _: Instant) -> Option<Duration> {
        Some(TTL)
    }
}

struct Peer<'a> {
    name: &'static str,
    hit: Box<dyn Fn(&str) -> bool + 'a>,
    nanos: Vec<f64>,
    allocations: f64,
}

impl<'a> Peer<'a> {
    fn new(name: &'static str, hit: impl Fn(&str) -> bool + 'a) -> Self {
        Self {
            name,
            hit: Box::new(hit),
            nanos: Vec::new(),
            allocations: 0.0,
        }
    }

    fn round(&mut self, keys: &[String], times: usize) {
        // Once without the clock, or whoever comes second to the same memory finds it in the processor's cache.
        keys.iter().for_each(|key| {
            black_box((self.hit)(key));
        });
        let before = allocations();
        let start = ThreadTime::now();
        for _ in 0..times {
            for key in keys {
                assert!(
                    black_box((self.hit)(key)),
                    "{}: {key} is not there",
                    self.name
                );
            }
        }
        let hits = (keys.len() * times) as f64;
        self.nanos.push(start.elapsed().as_nanos() as f64 / hits);
        self.allocations = (allocations() - before) as f64 / hits;
    }
}

fn main() {
    println!(
        "hit: {ROUNDS} rounds, 24-byte keys in random order, CPU ns a hit, one thread, capacity twice the keys"
    );
    println!("moka: 0.12, ahash, default TinyLFU. quick_cache: 0.7, ahash.");
    let mut lines = Vec::new();
    let only = std::env::var("LARDER_BENCH_KEYS")
        .ok()
        .and_then(|keys| keys.parse::<usize>().ok());
    for (entries, times) in [(256, 400), (10_000, 10), (1_000_000, 1)] {
        if only.is_some_and(|only| only != entries) {
            continue;
        }
        lines.extend(size(entries, times));
    }
    println!();
    lines.iter().for_each(|line| println!("{line}"));
}

fn size(entries: usize, times: usize) -> Vec<String> {
    let keys = keys(entries);
    let capacity = entries as u64 * 2;
    let raw = moka::sync::Cache::builder()
        .max_capacity(capacity)
        .expire_after(FixedTtl)
        .build_with_hasher(ahash::RandomState::new());
    let bare = moka::sync::Cache::builder()
        .max_capacity(capacity)
        .build_with_hasher(ahash::RandomState::new());
    let future = moka::future::Cache::builder()
        .max_capacity(capacity)
        .build_with_hasher(ahash::RandomState::new());
    let quick = quick_cache::sync::Cache::<String, Arc<User>, _, ahash::RandomState>::with(
        entries * 2,
        capacity,
        quick_cache::UnitWeighter,
        ahash::RandomState::new(),
        quick_cache::sync::DefaultLifecycle::default(),
    );
    let memory = || {
        Moka::builder()
            .max_entries(capacity)
            .round_trip(false)
            .build()
    };
    let alone = memory();
    let erased: SharedCache = Arc::new(alone.clone());
    let tiered: SharedCache = Arc::new(Tiered::new(memory(), Elsewhere::new()));
    let numbers: SharedCache = Arc::new(memory());
    let policy = Options::ttl(TTL)
        .tag("all")
        .grace(TTL)
        .refresh_ahead(RefreshAhead::XFetch(1.0));
    let chosen: SharedCache = Arc::new(
        Moka::builder()
            .max_entries(capacity)
            .round_trip(false)
            .options(policy)
            .build(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let more = runtime.block_on(async {
        // Each is filled by itself, with values of its own: in a process there is one of them.
        let before = held();
        for (id, key) in keys.iter().enumerate() {
            raw.insert(key.clone(), Arc::new(user(id as u64)));
        }
        raw.run_pending_tasks();
        let raw_bytes = held() - before;
        for (id, key) in keys.iter().enumerate() {
            bare.insert(key.clone(), Arc::new(user(id as u64)));
        }
        for (id, key) in keys.iter().enumerate() {
            quick.insert(key.clone(), Arc::new(user(id as u64)));
        }
        for (id, key) in keys.iter().enumerate() {
            future.insert(key.clone(), Arc::new(user(id as u64))).await;
        }
        let before = held();
        for (id, key) in keys.iter().enumerate() {
            erased.set(key, user(id as u64), TTL).await.expect("set");
        }
        assert_eq!(alone.entries(), keys.len() as u64);
        let own_bytes = held() - before;
        for key in &keys {
            let copied = tiered.get_shared::<User>(key).await;
            assert!(copied.expect("get").is_some());
        }
        for (id, key) in keys.iter().enumerate() {
            numbers.set(key, id as u64, TTL).await.expect("set");
        }
        for (id, key) in keys.iter().enumerate() {
            chosen.set(key, id as u64, TTL).await.expect("set");
        }
        bare.run_pending_tasks();
        future.run_pending_tasks().await;
        println!("\n{} entries in memory", alone.entries());
        (own_bytes - raw_bytes) / keys.len() as f64
    });
    let mut peers = peers(
        &raw, &bare, &future, &quick, &alone, &erased, &tiered, &numbers, &chosen,
    );
    let mut order: Vec<String> = keys;
    for _ in 0..ROUNDS {
        shuffle(&mut order);
        for peer in &mut peers {
            peer.round(&order, times);
        }
    }
    let mut lines = report(entries, &peers);
    let name = format!("bytes an entry more than moka::sync + Expiry at {entries}");
    lines.push(format!(
        "ratio {name:<58} {more:.0} ({more:.0}..{more:.0}) target <=64"
    ));
    lines
}

type RawMoka = moka::sync::Cache<String, Arc<User>, ahash::RandomState>;
type FutureMoka = moka::future::Cache<String, Arc<User>, ahash::RandomState>;
type Quick =
    quick_cache::sync::Cache<String, Arc<User>, quick_cache::UnitWeighter, ahash::RandomState>;

#[expect(clippy::too_many_arguments, reason = "one for each peer")]
fn peers<'a>(
    raw: &'a RawMoka,
    bare: &'a RawMoka,
    future: &'a FutureMoka,
    quick: &'a Quick,
    alone: &'a Moka,
    erased: &'a SharedCache,
    tiered: &'a SharedCache,
    numbers: &'a SharedCache,
    chosen: &'a SharedCache,
) -> Vec<Peer<'a>> {
    let found = |value: larder::Result<Option<Arc<User>>>| matches!(value, Ok(Some(_)));
    vec![
        Peer::new("moka::sync + Expiry", |key| raw.get(key).is_some()),
        Peer::new("moka::sync", |key| bare.get(key).is_some()),
        Peer::new("moka::future", |key| ready(future.get(key)).is_some()),
        Peer::new("quick_cache", |key| quick.get(key).is_some()),
        Peer::new("Moka get_shared", move |key| {
            found(ready(alone.get_shared::<User>(key)))
        }),
        Peer::new("Arc<dyn> get_shared", move |key| {
            found(ready(erased.get_shared::<User>(key)))
        }),
        Peer::new("Tiered get_shared", move |key| {
            found(ready(tiered.get_shared::<User>(key)))
        }),
        Peer::new("Arc<dyn> get (struct)", |key| {
            ready(erased.get::<User>(key)).is_ok_and(|user| user.is_some())
        }),
        Peer::new("u64 get_shared", |key| {
            ready(numbers.get_shared::<u64>(key)).is_ok_and(|n| n.is_some())
        }),
        Peer::new("u64 get", |key| {
            ready(numbers.get::<u64>(key)).is_ok_and(|n| n.is_some())
        }),
        Peer::new("u64 get_or_set", |key| {
            ready(numbers.get_or_set(key, Ttl::Default, || async { 0_u64 })).is_ok()
        }),
        Peer::new("u64 get_or_set_with", |key| {
            ready(with(numbers, key)).is_ok()
        }),
        Peer::new("the same with a policy", |key| {
            ready(with(chosen, key)).is_ok()
        }),
        Peer::new("get_or_set_shared", |key| {
            ready(erased.get_or_set_shared(key, Ttl::Default, || async { user(0) })).is_ok()
        }),
    ]
}

/// Never computes: all keys are there.
fn with<'c>(cache: &'c SharedCache, key: &'c str) -> Op<'c, larder::Result<u64>> {
    cache.get_or_set_with(key, Ttl::Default, |_| async { Ok(0_u64) })
}

fn report(entries: usize, peers: &[Peer<'_>]) -> Vec<String> {
    println!(
        "\n{entries} keys{:>28} {:>8} {:>8} {:>9}",
        "median", "min", "max", "allocs"
    );
    for peer in peers {
        let (median, min, max) = spread(peer.nanos.clone());
        println!(
            "  {:<24} {median:>8.0} {min:>8.0} {max:>8.0} {:>9.3}",
            peer.name, peer.allocations
        );
    }
    let by_name = |name: &str| peers.iter().find(|peer| peer.name == name).expect("a peer");
    let ratio = |ours: &str, theirs: &str, target: f64| {
        let (ours, theirs) = (by_name(ours), by_name(theirs));
        let ratios = ours
            .nanos
            .iter()
            .zip(&theirs.nanos)
            .map(|(a, b)| a / b)
            .collect();
        let (median, min, max) = spread(ratios);
        let name = format!("{} / {} at {entries}", ours.name, theirs.name);
        format!("ratio {name:<58} {median:.2} ({min:.2}..{max:.2}) target <={target:.2}")
    };
    vec![
        ratio("Arc<dyn> get_shared", "moka::sync + Expiry", 1.10),
        ratio("Tiered get_shared", "moka::sync + Expiry", 1.10),
        ratio("u64 get_or_set", "u64 get_shared", 1.10),
        ratio("get_or_set_shared", "Arc<dyn> get_shared", 1.10),
        ratio("the same with a policy", "u64 get_or_set_with", 1.25),
    ]
}

fn keys(count: usize) -> Vec<String> {
    (0..count)
        .map(|i| {
            format!(
                "user:{:019}",
                (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1
            )
        })
        .collect()
}
