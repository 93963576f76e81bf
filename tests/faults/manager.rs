//! Maps that are spoilt or cannot be had: the last good one is kept.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::ring::{DistributedRedisBuilder, Ring, key_hash, label, python_positions};
use larder::{Cache, DistributedRedis};
use redis::Value;
use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::load::{MINUTE, Sealed, Tally, fill, keys, until};
use crate::report::{Report, time};
use crate::topology::{
    MAP, builder, connect, differing, follows, judge, owners, publish_as, under_load, with_meta,
    without_meta,
};

const SECOND: Duration = Duration::from_secs(1);
const OFTEN: Duration = Duration::from_millis(20);

pub(crate) async fn map_deleted() -> Report {
    let fleet = with_meta(3).await;
    let (cache, other) = (connect(&fleet).await, connect(&fleet).await);
    let keys = keys(2000);
    let before = owners(&cache, &keys);
    let deleted = async {
        fleet.manager.raw(13, &["DEL", MAP]).await;
        let refused = until(SECOND * 5, async || cache.map_status().refused > 0).await;
        sleep(SECOND).await;
        refused
    };
    let (refused, load) = under_load(&cache, &other, deleted).await;
    let mut report = Report::default();
    report.none("misroutes", differing(&before, &owners(&cache, &keys)));
    report.within("told after", refused, SECOND);
    let silent = cache.map_status().last_error.is_none();
    report.none("status without an error", u64::from(silent));
    judge(&mut report, &load);
    report
}

pub(crate) async fn map_rewritten_like_python() -> Report {
    let fleet = Fleet::bare(3).await;
    let urls = fleet.node_urls();
    fleet.publish_like_python(&urls).await;
    let (cache, other) = (connect(&fleet).await, connect(&fleet).await);
    rewritten(&fleet, &urls, &cache, &other).await
}

/// The Python server rewrites its map, by `DEL` and `HMSET`, as fast as it can.
pub(crate) async fn rewritten(
    fleet: &Fleet,
    urls: &[String],
    cache: &DistributedRedis,
    other: &DistributedRedis,
) -> Report {
    let keys = keys(500);
    let before = owners(cache, &keys);
    let (mut rewrites, mut looks, mut empty, mut misroutes, mut naive) =
        (0_u64, 0_u64, 0, 0, 0_u64);
    let over = AtomicBool::new(false);
    let rewriting = async {
        let began = Instant::now();
        while began.elapsed() < SECOND * 3 / 2 {
            fleet.publish_like_python(urls).await;
            rewrites += 1;
        }
        over.store(true, Ordering::Relaxed);
    };
    let looking = async {
        while !over.load(Ordering::Relaxed) {
            let now = owners(cache, &keys);
            empty += now.iter().filter(|owner| owner.is_none()).count() as u64;
            misroutes += differing(&before, &now);
            looks += 1;
            naive += u64::from(fleet.manager.raw(13, &["HLEN", MAP]).await == Value::Int(0));
        }
    };
    let both = async { tokio::join!(rewriting, looking) };
    let (_, load) = under_load(cache, other, both).await;
    let mut report = Report::default();
    report.none("empty seen", empty);
    report.none("misroutes", misroutes);
    judge(&mut report, &load);
    report.at_least("rewrites", rewrites, 20);
    report.note(format!(
        "{looks} looks; a bare reader saw the map empty in {naive} of them"
    ));
    report
}

pub(crate) async fn map_of_garbage() -> Report {
    let fleet = without_meta(3).await;
    let small = builder(&fleet.manager_url(), OFTEN).max_map_fields(1000);
    let cache = small.connect().await.expect("connected");
    let keys = keys(1000);
    let before = owners(&cache, &keys);
    let position = cache.ring().iter().next().expect("a position").0;
    let (twice, many) = (
        format!("{position:0>10}"),
        (1..=1000).map(|field: u32| field.to_string()),
    );
    let fields = ["abc", "-1", "4294967296", " 7", "", &twice].map(|field| vec![field.to_owned()]);
    let (mut report, mut misroutes, mut slowest) = (Report::default(), 0, Duration::ZERO);
    for garbage in fields.into_iter().chain([many.collect()]) {
        let refused = cache.map_status().refused;
        let pairs = garbage
            .iter()
            .flat_map(|field| [field.as_str(), "redis://127.0.0.1:1/0"]);
        let hset: Vec<&str> = ["HSET", MAP].into_iter().chain(pairs).collect();
        fleet.manager.raw(13, &hset).await;
        let told = async || cache.map_status().refused > refused;
        slowest = slowest.max(until(SECOND * 5, told).await);
        misroutes += differing(&before, &owners(&cache, &keys));
        publish_as(&fleet, &[0, 1, 2], false).await;
        let good = async || cache.map_status().last_error.is_none();
        until(SECOND * 5, good).await;
    }
    report.none("misroutes by 7 kinds of garbage", misroutes);
    report.within("told after", slowest, SECOND);
    bad_url(&fleet, &cache, &keys, &mut report).await;
    let map: Vec<_> = python_positions(&["redis://a/0", "redis://b/0"], 80_000);
    let began = Instant::now();
    let ring = Ring::from_map(map);
    let (took, positions) = (began.elapsed(), ring.positions());
    if cfg!(debug_assertions) {
        let took = time(took);
        report.note(format!("{positions} positions, not optimized: {took}"));
    } else {
        report.within("160,000 positions", took, Duration::from_millis(50));
    }
    report
}

/// A url that is none: its keys are out of reach, and all others where they were.
pub(crate) async fn bad_url(
    fleet: &Fleet,
    cache: &DistributedRedis,
    keys: &[String],
    report: &mut Report,
) {
    let (before, ring) = (owners(cache, keys), cache.ring());
    let shares = ring.nodes().len();
    let hash = key_hash(&keys[0]);
    let its = ring.iter().find(|(position, _)| *position > hash);
    let (position, url) = its.or(ring.iter().next()).expect("a position");
    let (position, owner) = (position.to_string(), label(url));
    let hset = ["HSET", MAP, &position, "http://nowhere"];
    fleet.manager.raw(13, &hset).await;
    follows(cache, shares + 1).await;
    let (mut others, mut failed, mut moved) = (0, 0, 0_u64);
    for (key, before) in keys.iter().zip(&before) {
        let now = cache.node_for(key);
        let answer = cache.set(key, Sealed::of(key, 1), MINUTE).await;
        if now == *before {
            failed += u64::from(answer.is_err());
        } else {
            moved += 1;
            let known = before.as_deref() == Some(&owner) && answer.is_err();
            others += u64::from(!known);
        }
    }
    report.none("a bad url: other keys moved", others);
    report.none("errors of the others", failed);
    report.at_least("its keys", moved, 1);
}

/// Connects `builder` and reads or computes some keys with it.
async fn start(
    report: &mut Report,
    what: &str,
    builder: DistributedRedisBuilder,
) -> DistributedRedis {
    let began = Instant::now();
    let cache = builder.connect().await.expect("it starts");
    report.within(&format!("start {what}"), began.elapsed(), SECOND);
    let mut tally = Tally::default();
    for key in &keys(100) {
        tally.read_or_compute(&cache, key).await;
    }
    report.none("errors of get_or_set", tally.failures() + tally.wrong);
    report.note(format!("{what}: {}", tally.summary()));
    cache
}

pub(crate) async fn manager_down_at_start() -> Report {
    let fleet = with_meta(3).await;
    let url = fleet.manager_url();
    let name = format!("larder-row-40-{}.json", fleet.manager.port());
    let file = std::env::temp_dir().join(name);
    let saving = builder(&url, OFTEN).snapshot(&file).connect().await;
    let saving = saving.expect("connected");
    fill(&saving, &keys(100)).await;
    until(SECOND * 5, async || file.exists()).await;
    let mut report = Report::default();
    fleet.manager.kill();
    let restored = builder(&url, OFTEN).snapshot(&file);
    let restored = start(&mut report, "from a snapshot", restored).await;
    let keys = keys(1000);
    let misroutes = differing(&owners(&saving, &keys), &owners(&restored, &keys));
    report.none("misroutes", misroutes);
    let without = builder(&url, OFTEN).start_without_map(true);
    let without = start(&mut report, "without a map", without).await;
    fleet.manager.restart().await;
    publish_as(&fleet, &[0, 1, 2], true).await;
    let found = follows(&without, 3).await;
    report.within("a map after the manager is back", found, SECOND * 2);
    fleet.manager.pause();
    let restored = builder(&url, OFTEN).snapshot(&file);
    start(&mut report, "from a snapshot, the manager frozen", restored).await;
    let _ = std::fs::remove_file(file);
    report
}

pub(crate) async fn manager_killed_under_load() -> Report {
    let fleet = with_meta(3).await;
    let (cache, other) = (connect(&fleet).await, connect(&fleet).await);
    let keys = keys(2000);
    let before = owners(&cache, &keys);
    let killed = async {
        fleet.manager.kill();
        sleep(SECOND * 3).await;
        let silent = cache.map_status().last_error.is_none();
        let misroutes = differing(&before, &owners(&cache, &keys));
        fleet.manager.restart().await;
        sleep(SECOND / 2).await;
        (silent, misroutes)
    };
    let ((silent, misroutes), load) = under_load(&cache, &other, killed).await;
    let mut report = Report::default();
    judge(&mut report, &load);
    report.none("misroutes", misroutes);
    report.none("status without an error", u64::from(silent));
    let empty = differing(&before, &owners(&cache, &keys));
    report.none("misroutes after it is back, empty", empty);
    report.note("away for 3 s instead of 10 min");
    report
}
