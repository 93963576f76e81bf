//! What is allocated: at a hit in memory no more than moka itself does, and for an oversized value next to nothing.
//!
//! A binary without a harness, since the allocator counts for the whole process.

#[path = "suite/support.rs"]
#[allow(unused_imports, reason = "its own tests run in the suite")]
mod support;

use std::alloc::System;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use larder::{Cache, Moka, Prefixed, Redis, SharedCache, Tiered, Ttl};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HITS: usize = 100_000;
const KEYS: usize = 1_000;

fn ready<R>(future: impl Future<Output = R>) -> R {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a hit in memory waited"),
    }
}

/// Allocations a hit.
fn allocations(keys: &[String], hit: impl Fn(&str) -> bool) -> f64 {
    let round = |times: usize| {
        for key in keys.iter().cycle().take(times) {
            assert!(hit(key), "{key} is not there");
        }
    };
    // What moka puts off from the insertions is done before it is counted.
    round(HITS);
    let before = ALLOCATOR.stats().allocations;
    round(HITS);
    (ALLOCATOR.stats().allocations - before) as f64 / HITS as f64
}

/// How often the same is counted: moka's housekeeping has its own time, and some counts meet it.
const COUNTS: usize = 3;

/// The most that raw moka takes.
fn most(keys: &[String], hit: impl Fn(&str) -> bool) -> f64 {
    let counts = (0..COUNTS).map(|_| allocations(keys, &hit));
    counts.fold(0.0, f64::max)
}

/// The least that a hit takes: what it allocates itself is in every count.
fn least(keys: &[String], hit: impl Fn(&str) -> bool) -> f64 {
    let counts = (0..COUNTS).map(|_| allocations(keys, &hit));
    counts.fold(f64::MAX, f64::min)
}

/// One after the other, since they would count each other's allocations.
fn main() {
    a_hit_allocates_no_more_than_moka_does();
    an_oversized_value_is_refused_before_it_is_read();
    println!("alloc: 2 passed, 0 failed");
}

fn a_hit_allocates_no_more_than_moka_does() {
    let keys: Vec<String> = (0..KEYS).map(|i| format!("key:{i:020}")).collect();
    let raw = moka::sync::Cache::builder()
        .max_capacity(KEYS as u64 * 2)
        .build_with_hasher(ahash::RandomState::new());
    let memory = || {
        Moka::builder()
            .max_entries(KEYS as u64 * 2)
            .round_trip(false)
            .build()
    };
    let alone = memory();
    let erased: SharedCache = Arc::new(memory());
    let tiered: SharedCache = Arc::new(Tiered::new(memory(), memory()));
    let prefixed = Prefixed::new(memory(), "app:");
    for (i, key) in keys.iter().enumerate() {
        raw.insert(key.clone(), Arc::new(i as u64));
        for cache in [&erased, &tiered] {
            ready(cache.set(key, i as u64, Ttl::Default)).unwrap();
        }
        ready(alone.set(key, i as u64, Ttl::Default)).unwrap();
        ready(prefixed.set(key, i as u64, Ttl::Default)).unwrap();
    }
    let bound = most(&keys, |key| raw.get(key).is_some()) + 0.001;
    let counts = [
        (
            "Moka",
            least(&keys, |key| {
                ready(alone.get_shared::<u64>(key)).unwrap().is_some()
            }),
        ),
        (
            "Arc<dyn>",
            least(&keys, |key| {
                ready(erased.get_shared::<u64>(key)).unwrap().is_some()
            }),
        ),
        (
            "Tiered",
            least(&keys, |key| {
                ready(tiered.get_shared::<u64>(key)).unwrap().is_some()
            }),
        ),
        (
            "Prefixed",
            least(&keys, |key| {
                ready(prefixed.get_shared::<u64>(key)).unwrap().is_some()
            }),
        ),
        (
            "get",
            least(&keys, |key| {
                ready(erased.get::<u64>(key)).unwrap().is_some()
            }),
        ),
        ("has", least(&keys, |key| ready(erased.has(key)).unwrap())),
        (
            "get_or_set",
            least(&keys, |key| {
                ready(tiered.get_or_set(key, Ttl::Default, || async { 0_u64 })).is_ok()
            }),
        ),
        (
            "get_or_set_shared",
            least(&keys, |key| {
                ready(erased.get_or_set_shared(key, Ttl::Default, || async { 0_u64 })).is_ok()
            }),
        ),
    ];
    for (name, count) in counts {
        assert!(
            count <= bound,
            "{name}: {count} allocations a hit, raw moka {bound}"
        );
    }
}

fn an_oversized_value_is_refused_before_it_is_read() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = support::Server::start().await;
        let redis =
            Redis::builder(&server.url(0)).operation_timeout(std::time::Duration::from_secs(5));
        let redis = redis.connect().await.unwrap();
        // 64 MiB, made by the server itself.
        server
            .raw(0, &["SETRANGE", "huge", &(64 << 20).to_string(), "x"])
            .await;
        let before = ALLOCATOR.stats().bytes_allocated;
        assert_eq!(redis.get::<Vec<u8>>("huge").await.unwrap(), None);
        let allocated = ALLOCATOR.stats().bytes_allocated - before;
        assert!(allocated < 16 << 20, "{allocated} bytes in all");
    });
}
