//! The ring: lookup against the `hashring` crate, build, and lookups while the map is swapped.
//!
//! Peers run in turns, round by round, so that each ratio compares neighbours in time. A figure is the median of
//! all rounds with its least and greatest. Lookup and build are CPU time of the thread. Arguments are ignored.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cpu_time::ThreadTime;
use hashring::HashRing;
use larder::ring::{Order, Ring, fields_for_readers, positions_for};

const ROUNDS: usize = 15;
const PER_NODE: usize = 160;
/// How long a reader of the map lets a change settle.
const PAUSE: Duration = Duration::from_millis(30);

fn main() {
    println!("ring: {ROUNDS} rounds, {PER_NODE} positions a node, keys of 24 bytes in no order");
    let mut ratios = Vec::new();
    for nodes in [3, 10, 100, 1000] {
        ratios.push(lookup(nodes));
    }
    build();
    ratios.push(swap());
    println!();
    for line in ratios {
        println!("{line}");
    }
}

/// Lookup from `&str` against `hashring` with its own defaults (SipHash, binary search, answer by reference). Its
/// node is 8 bytes small, which spares it the cache misses that a url would cost.
fn lookup(nodes: usize) -> String {
    #[derive(Hash)]
    struct Virtual {
        _node: u32,
        _number: u32,
    }

    let ring = Ring::from_map(positions_for(&urls(nodes), PER_NODE));
    let mut peer = HashRing::new();
    let all = |node| {
        (0..PER_NODE as u32).map(move |_number| Virtual {
            _node: node,
            _number,
        })
    };
    peer.batch_add((0..nodes as u32).flat_map(all).collect());

    let keys = keys();
    let (mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(each(&keys, |key| ring.node_for(key)));
        theirs.push(each(&keys, |key| peer.get(&key)));
        bare.push(each(&keys, larder::ring::key_hash));
    }
    print_figure(&format!("lookup, {nodes} nodes: larder"), &ours, "ns");
    print_figure(&format!("lookup, {nodes} nodes: hashring"), &theirs, "ns");
    print_figure(&format!("lookup, {nodes} nodes: crc32 alone"), &bare, "ns");
    let ratios = divide(&ours, &theirs);
    ratio(
        &format!("ring_lookup_{nodes}_nodes"),
        &ratios,
        "<=0.5 (then <=0.3)",
    )
}

/// Nanoseconds of CPU for one call of `look`.
fn each<'k, R>(keys: &'k [String], look: impl Fn(&'k str) -> R) -> f64 {
    let passes = 16;
    let start = ThreadTime::now();
    for _ in 0..passes {
        for key in keys {
            black_box(look(black_box(key)));
        }
    }
    start.elapsed().as_nanos() as f64 / (passes * keys.len()) as f64
}

/// Build of 160,000 positions: a plain map, and a map as a Larder manager publishes it, both orders.
fn build() {
    let map = positions_for(&urls(1000), PER_NODE);
    let fields = fields_for_readers(&map);
    let (mut plain, mut numeric, mut lexicographic) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(milliseconds(map.clone(), Ring::from_map));
        for (order, times) in [
            (Order::Numeric, &mut numeric),
            (Order::Lexicographic, &mut lexicographic),
        ] {
            times.push(milliseconds(fields.clone(), |fields| {
                Ring::from_fields(fields, order)
            }));
        }
    }
    println!("build: {} positions, {} fields", map.len(), fields.len());
    print_figure("build, from_map", &plain, "ms");
    print_figure("build, from_fields, numeric", &numeric, "ms");
    print_figure("build, from_fields, lexicographic", &lexicographic, "ms");
}

fn milliseconds<I, R>(input: I, build: impl FnOnce(I) -> R) -> f64 {
    let start = ThreadTime::now();
    let built = build(input);
    let elapsed = start.elapsed();
    drop(black_box(built));
    elapsed.as_secs_f64() * 1e3
}

/// The 99th percentile of a lookup while another thread builds and swaps a map of 160,000 positions, against the
/// same reader alone.
///
/// The writer swaps every 30 ms, as often as a reader of the map does at most: it waits that long for a change to
/// settle. A sample is the mean of 16 lookups, each with its own `load`, by the wall clock: one lookup is as short
/// as the reading of the clock. A round is 200 ms, and its percentile is over all its samples. Figures without a
/// target stand beside it: samples of one lookup, the clock included; a writer that never pauses; and one that
/// never pauses but only builds, which tells the price of swapping from that of a busy neighbour.
fn swap() -> String {
    let map = positions_for(&urls(1000), PER_NODE);
    let ring = ArcSwap::from_pointee(Ring::from_map(map.clone()));
    let keys = keys();
    let store = |new| ring.store(Arc::new(new));
    let build = |new| drop(black_box(new));
    let batch = || percentile(&ring, &keys, 16);
    let single = || percentile(&ring, &keys, 1);
    let mut rounds: [(&str, Vec<f64>); 6] = [
        "no writer",
        "swap every 30 ms",
        "no writer, samples of one",
        "swap every 30 ms, samples of one",
        "swap without pause",
        "build without pause",
    ]
    .map(|name| (name, Vec::new()));
    for _ in 0..ROUNDS {
        rounds[0].1.push(batch());
        rounds[1].1.push(beside(&map, PAUSE, &store, &batch));
        rounds[2].1.push(single());
        rounds[3].1.push(beside(&map, PAUSE, &store, &single));
        rounds[4]
            .1
            .push(beside(&map, Duration::ZERO, &store, &batch));
        rounds[5]
            .1
            .push(beside(&map, Duration::ZERO, &build, &batch));
    }
    for (name, figures) in &rounds {
        print_figure(&format!("p99, {name}"), figures, "ns");
    }
    for (name, ours, theirs) in [("samples of one", 3, 2), ("without pause", 4, 0)] {
        let (median, min, max) = spread(&divide(&rounds[ours].1, &rounds[theirs].1));
        println!("p99 over no writer, {name}: {median:.2} ({min:.2}..{max:.2})");
    }
    ratio(
        "ring_swap_p99",
        &divide(&rounds[1].1, &rounds[0].1),
        "<=1.5",
    )
}

/// Runs `read` while another thread makes a ring every `pause` and hands it to `publish`.
fn beside(
    map: &[(u32, String)],
    pause: Duration,
    publish: &(impl Fn(Ring) + Sync),
    read: &impl Fn() -> f64,
) -> f64 {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let next = Instant::now() + pause;
                publish(Ring::from_map(map.iter().cloned()));
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let figure = read();
        stop.store(true, Ordering::Relaxed);
        figure
    })
}

/// The 99th percentile, in nanoseconds a lookup, of samples of `batch` lookups.
fn percentile(ring: &ArcSwap<Ring>, keys: &[String], batch: usize) -> f64 {
    let mut samples = Vec::with_capacity(1 << 22);
    let end = Instant::now() + Duration::from_millis(200);
    'run: loop {
        for keys in keys.chunks_exact(batch) {
            let start = Instant::now();
            if start > end {
                break 'run;
            }
            for key in keys {
                black_box(ring.load().owner(black_box(key)));
            }
            samples.push(start.elapsed().as_nanos() as f64 / batch as f64);
        }
    }
    samples.sort_unstable_by(f64::total_cmp);
    samples[samples.len() * 99 / 100]
}

fn urls(nodes: usize) -> Vec<String> {
    (0..nodes)
        .map(|i| format!("redis://10.{}.{}.1:6379/0", i / 256, i % 256))
        .collect()
}

/// 16,384 keys of 24 bytes, in no order that a branch predictor could learn.
fn keys() -> Vec<String> {
    let scatter = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..16_384)
        .map(|i| format!("user:{:019}", scatter(i) >> 1))
        .collect()
}

fn divide(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    (
        sorted[sorted.len() / 2],
        sorted[0],
        sorted[sorted.len() - 1],
    )
}

fn print_figure(name: &str, figures: &[f64], unit: &str) {
    let (median, min, max) = spread(figures);
    println!("{name:<44} {median:8.2} {unit} ({min:.2}..{max:.2})");
}

fn ratio(name: &str, ratios: &[f64], target: &str) -> String {
    let (median, min, max) = spread(ratios);
    format!("ratio {name} {median:.2} ({min:.2}..{max:.2}) target {target}")
}
