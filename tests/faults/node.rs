//! One node of a ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder::{Cache, DistributedRedis, Moka, Tiered};
use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::load::{Tally, fill, keys, reading_at_once, until};
use crate::report::{D, Report, time};

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(2);

/// Windows of each kind whose figures are compared.
const WINDOWS: usize = 9;

/// A ring of three, and the keys of its first node and of the others.
async fn ring_of_three() -> (Fleet, DistributedRedis, [Vec<String>; 2]) {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let keys = keys(300);
    let up = until(SECOND * 5, async || {
        cache.set_many([("x", 1_u8)], SECOND).await.is_ok()
    });
    up.await;
    fill(&cache, &keys).await;
    let first = fleet.nodes[0].port();
    let (its, others): (Vec<_>, Vec<_>) = keys
        .into_iter()
        .partition(|key| fleet.owner(&cache, key).port() == first);
    (fleet, cache, [its, others])
}

/// Reads of a node's keys and, at the same time, of the others'.
async fn both(cache: &DistributedRedis, [its, others]: &[Vec<String>; 2]) -> (Tally, Tally) {
    tokio::join!(
        reading_at_once(cache, its, 4, WINDOW, PAUSE),
        reading_at_once(cache, others, 16, WINDOW, PAUSE)
    )
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn quotient(with: Duration, without: Duration) -> f64 {
    with.as_secs_f64() / without.as_secs_f64().max(1e-6)
}

pub(crate) async fn node_killed() -> Report {
    let (fleet, cache, groups) = ring_of_three().await;
    let (mut its, mut others, mut ratios) = (Tally::default(), Tally::default(), Vec::new());
    let mut typical = Vec::new();
    for _ in 0..WINDOWS {
        let (_, without) = both(&cache, &groups).await;
        let killed = async {
            sleep(Duration::from_millis(20)).await;
            fleet.nodes[0].kill();
        };
        let ((dead, with), ()) = tokio::join!(both(&cache, &groups), killed);
        ratios.push(quotient(with.p99(), without.p99()));
        typical.push(without.p99().as_secs_f64());
        its.add(dead);
        others.add(with);
        others.add(without);
        fleet.nodes[0].restart().await;
        let key = &groups[0][0];
        until(SECOND * 5, async || cache.has(key).await.is_ok()).await;
    }
    let mut report = Report::default();
    report.within("max op", its.max().max(others.max()), D);
    report.ratio(
        "others' p99 with / without, median of 9",
        median(ratios),
        2.0,
    );
    report.none("others' errors, misses", others.failures() + others.missed);
    report.none("wrong", its.wrong + others.wrong);
    let typical = time(Duration::from_secs_f64(median(typical)));
    report.note(format!(
        "others' p99 {typical}; the killed node: {}",
        its.summary()
    ));
    report
}

pub(crate) async fn node_restarts_empty() -> Report {
    let (fleet, cache, [its, others]) = ring_of_three().await;
    fleet.nodes[0].kill();
    // Long enough for the pauses between attempts to have grown.
    let mut away = reading_at_once(&cache, &its, 4, SECOND * 2, PAUSE).await;
    let mut report = Report::default();
    report.none("answers of the dead node", away.found + away.missed);
    away = Tally::default();
    for key in its.iter().chain(&others) {
        away.read_or_compute(&cache, key).await;
    }
    report.none("errors of get_or_set meanwhile", away.failures());
    fleet.nodes[0].restart().await;
    let recovery = until(SECOND * 10, async || cache.has(&its[0]).await.is_ok()).await;
    report.within("recovery", recovery, SECOND * 2);
    let (mut refill, mut after) = (Tally::default(), Tally::default());
    for key in &its {
        refill.read_or_compute(&cache, key).await;
    }
    for key in its.iter().chain(&others) {
        let _ = after.read(&cache, key).await;
    }
    report.none("hits on the empty node", refill.found);
    report.none(
        "errors, misses after the refill",
        after.failures() + after.missed,
    );
    report.none("wrong", away.wrong + refill.wrong + after.wrong);
    report
}

/// Memory above a node that is killed, and above one that hangs: what is computed meanwhile is kept for `outage_ttl`.
pub(crate) async fn memory_outlives_an_outage() -> Report {
    const SPAN: Duration = Duration::from_secs(4);
    let mut report = Report::default();
    for frozen in [false, true] {
        let (fleet, ring, [its, others]) = ring_of_three().await;
        let cache = Tiered::builder(Moka::new(10_000), ring)
            .outage_ttl(SECOND)
            .build();
        if frozen {
            fleet.nodes[0].pause();
        } else {
            fleet.nodes[0].kill();
        }
        let computes: Arc<Vec<AtomicU64>> = Arc::new(its.iter().map(|_| 0.into()).collect());
        let began = Instant::now();
        let callers = (0..16).map(|caller| {
            let (cache, its, computes) = (cache.clone(), its.clone(), Arc::clone(&computes));
            tokio::spawn(async move {
                let mut tally = Tally::default();
                // Each begins elsewhere, so that all keys are wanted at once.
                for at in (caller * its.len() / 16..its.len())
                    .chain(0..its.len())
                    .cycle()
                {
                    if began.elapsed() > SPAN {
                        break;
                    }
                    if tally.read_or_compute(&cache, &its[at]).await {
                        computes[at].fetch_add(1, Relaxed);
                    }
                    sleep(Duration::from_micros(100)).await;
                }
                tally
            })
        });
        let mut all = Tally::default();
        for caller in join_all(callers).await {
            all.add(caller.expect("a caller"));
        }
        let name = if frozen { "frozen" } else { "killed" };
        let most = computes.iter().map(|count| count.load(Relaxed)).max();
        let spans = SPAN.as_secs() + 1;
        report.at_most(
            &format!("{name}: computes of a key in {SPAN:?}, at most"),
            most.unwrap_or_default(),
            spans,
        );
        report.none(
            &format!("{name}: errors of get_or_set, wrong"),
            all.failures() + all.wrong,
        );
        // A read and a store, each up to its bound.
        report.within(&format!("{name}: max get_or_set"), all.max(), D * 2);
        let mut rest = Tally::default();
        for key in &others {
            let _ = rest.read(&cache, key).await;
        }
        report.none(
            &format!("{name}: others' errors, misses"),
            rest.failures() + rest.missed,
        );
        report.note(format!("{name}: {}", all.summary()));
    }
    report
}
