//! Connections and replies that are cut off or damaged.

use std::time::{Duration, Instant};

use larder::testing::Mode;
use larder::{Cache, Moka, Redis, Tiered};
use tokio::time::sleep;

use crate::load::{Behind, Sealed, Tally, keys, reading, reading_at_once, until};
use crate::network::{PAUSE, SECOND, recovery};
use crate::report::{D, Report};

pub(crate) async fn reset_under_load() -> Report {
    let (behind, keys) = (Behind::start().await, keys(100));
    let cache = behind.filled(&keys).await;
    let mut report = Report::default();
    let (readers, pause) = (cache.clone(), Duration::from_millis(1));
    let load =
        tokio::spawn(async move { reading_at_once(&readers, &keys, 16, SECOND * 4, pause).await });
    let mut resets = 0;
    while !load.is_finished() {
        // Only what is up can be reset: its first bytes are on their way again.
        until(SECOND, async || cache.status().up || load.is_finished()).await;
        sleep(Duration::from_millis(50)).await;
        behind.proxy.reset();
        resets += 1;
        until(SECOND / 10, async || !cache.status().up).await;
    }
    let tally = load.await.expect("the load");
    report.none("wrong", tally.wrong);
    report.none("misses", tally.missed);
    report.within("max op", tally.max(), D);
    report.at_least("reads that succeeded", tally.found, 100);
    report.note(format!("{resets} resets, {}", tally.summary()));
    report.within("recovery", recovery(&cache).await, SECOND * 2);
    report
}

pub(crate) async fn half_closed() -> Report {
    let (behind, keys) = (Behind::start().await, keys(5));
    let cache = behind.filled(&keys).await;
    let mut report = Report::default();
    let mut worst = Duration::ZERO;
    for _ in 0..5 {
        // Long enough up to be trusted again.
        sleep(SECOND + SECOND / 10).await;
        let reconnects = cache.status().reconnects;
        behind.proxy.half_close();
        let took = until(SECOND * 3, async || {
            cache.status().reconnects > reconnects && cache.get::<Sealed>("key:0").await.is_ok()
        });
        worst = worst.max(took.await);
    }
    report.within("recovery, worst of 5", worst, Duration::from_millis(100));
    report
}

pub(crate) async fn corrupt_replies() -> Report {
    let (behind, keys) = (Behind::start().await, keys(200));
    let mut caches = vec![behind.filled(&keys).await];
    for _ in 1..8 {
        caches.push(Redis::connect(&behind.url()).await.expect("connected"));
    }
    let seed = u64::from(std::process::id());
    behind.proxy.set(Mode::Corrupt { every: 3000, seed });
    let mut tasks = Vec::new();
    for (turn, cache) in caches.into_iter().enumerate() {
        let mut keys = keys.clone();
        keys.rotate_left(turn * 25);
        tasks.push(tokio::spawn(async move {
            let tiered = Tiered::new(Moka::new(1), cache.clone());
            let (mut tally, began) = (Tally::default(), Instant::now());
            for (turn, key) in keys.iter().cycle().enumerate() {
                match turn % 3 {
                    _ if began.elapsed() >= SECOND * 5 => break,
                    0 => drop(tally.read(&cache, key).await),
                    1 => drop(tally.read(&tiered, key).await),
                    _ => many(&mut tally, &cache, key, &keys[turn % 190..][..10]).await,
                }
                // Without it a node that is down is asked a million times.
                sleep(Duration::from_millis(1)).await;
            }
            let refused: u64 = cache.stats().refusals.iter().map(|(_, count)| count).sum();
            (tally, refused, cache.status().reconnects)
        }));
    }
    let (mut all, mut refused, mut reconnects) = (Tally::default(), 0, 0);
    for task in tasks {
        let (tally, refusals, connects) = task.await.expect("a reader");
        all.add(tally);
        refused += refusals;
        reconnects += connects;
    }
    let mut report = Report::default();
    report.none("silently wrong values", all.wrong);
    report.at_least("right values", all.found, 500);
    report.within("max op", all.max(), D);
    report.note(format!(
        "seed {seed}: {refused} payloads refused, {reconnects} connections given up, {}",
        all.summary()
    ));
    report
}

/// Reads some keys at once, with the values that belong to them or none.
async fn many(tally: &mut Tally, cache: &Redis, key: &str, more: &[String]) {
    let asked: Vec<&str> = more.iter().map(String::as_str).chain([key]).collect();
    let Ok(values) = tally.time(cache.get_many::<Sealed>(&asked)).await else {
        return;
    };
    for (key, value) in asked.iter().zip(values) {
        match value {
            Some(value) if value.holds(key) => tally.found += 1,
            Some(_) => tally.wrong += 1,
            None => tally.missed += 1,
        }
    }
}

pub(crate) async fn truncated_replies() -> Report {
    let (behind, keys) = (Behind::start().await, keys(12));
    let cache = behind.filled(&keys).await;
    let (mut report, mut tally) = (Report::default(), Tally::default());
    let mut slowest = Duration::ZERO;
    for (turn, key) in keys.iter().enumerate() {
        behind.proxy.set(Mode::Truncate(turn * turn));
        if turn % 2 == 0 {
            let _ = tally.read(&cache, key).await;
        } else {
            tally.read_or_compute(&cache, key).await;
        }
        behind.proxy.set(Mode::Pass);
        slowest = slowest.max(recovery(&cache).await);
    }
    report.none("wrong", tally.wrong);
    report.within("max op", tally.max(), D);
    report.within("slowest recovery", slowest, SECOND * 2);
    report.note(tally.summary());
    let mut after = Tally::default();
    for key in &keys {
        let _ = after.read(&cache, key).await;
    }
    report.none(
        "misses, errors afterwards",
        after.missed + after.failures() + after.wrong,
    );
    report
}

pub(crate) async fn one_byte_at_a_time() -> Report {
    let (behind, keys) = (Behind::start().await, keys(50));
    let cache = behind.filled(&keys).await;
    let mut report = Report::default();
    behind.proxy.set(Mode::Slice(Duration::ZERO));
    let mut quick = Tally::default();
    for key in &keys {
        let _ = quick.read(&cache, key).await;
    }
    report.none("wrong", quick.wrong + quick.missed);
    report.none("errors without pauses", quick.failures());
    // A reply of about a thousand bytes takes five seconds.
    behind.proxy.set(Mode::Slice(PAUSE));
    let slow = reading(&cache, &keys, SECOND * 2, PAUSE).await;
    report.none("wrong with pauses", slow.wrong + slow.missed);
    report.within("max op", quick.max().max(slow.max()), D);
    report.note(slow.summary());
    behind.proxy.set(Mode::Pass);
    report.within("recovery", recovery(&cache).await, SECOND * 2);
    report
}
