//! Maps that change, and nodes that leave and return.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::codec::Refusal;
use larder::ring::{DistributedRedisBuilder, Publication, label, positions_for, publish};
use larder::{Cache, DistributedRedis};
use tokio::time::sleep;

use crate::at_work::{self, Managed, quick};
use crate::fleet::Fleet;
use crate::load::{MINUTE, Sealed, Tally, keys, until};
use crate::report::{D, Report};
use crate::ring::all_up;

const SECOND: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);
const POSITIONS: usize = 160;
pub(crate) const MAP: &str = "HASH_RING_MAP";

/// A fleet whose map has no meta: Python's, with more positions, so that each node has a share worth measuring.
pub(crate) async fn without_meta(count: usize) -> Fleet {
    let fleet = Fleet::bare(count).await;
    let all: Vec<usize> = (0..count).collect();
    publish_as(&fleet, &all, false).await;
    fleet
}

/// A fleet with a map that a Larder manager would publish.
pub(crate) async fn with_meta(count: usize) -> Fleet {
    let fleet = Fleet::bare(count).await;
    let all: Vec<usize> = (0..count).collect();
    publish_as(&fleet, &all, true).await;
    fleet
}

/// Publishes a map of some of the nodes, or rewrites it by `DEL` and `HMSET`.
pub(crate) async fn publish_as(fleet: &Fleet, nodes: &[usize], meta: bool) {
    let urls = fleet.node_urls();
    let urls: Vec<&String> = nodes.iter().map(|node| &urls[*node]).collect();
    if meta {
        let map = Publication::of_nodes(&urls, POSITIONS);
        publish(&fleet.manager_url(), &map)
            .await
            .expect("published");
        return;
    }
    let mut hmset = vec!["HMSET".to_owned(), MAP.to_owned()];
    for (position, url) in positions_for(&urls, POSITIONS) {
        hmset.extend([position.to_string(), url]);
    }
    let hmset: Vec<&str> = hmset.iter().map(String::as_str).collect();
    fleet.manager.raw(13, &["DEL", MAP]).await;
    fleet.manager.raw(13, &hmset).await;
}

/// A fleet whose maps are published by calls of `publish`, or by a manager at work that is asked to add and remove nodes.
pub(crate) struct Maps {
    pub(crate) fleet: Fleet,
    pub(crate) manager: Option<Managed>,
}

impl Maps {
    pub(crate) async fn by_calls(nodes: usize) -> Self {
        Self {
            fleet: with_meta(nodes).await,
            manager: None,
        }
    }

    pub(crate) async fn by_manager(nodes: usize) -> Self {
        let fleet = Fleet::bare(nodes).await;
        let mut config = quick(&fleet);
        // Nobody is taken off meanwhile.
        config.health.remove_after = MINUTE;
        let manager = Some(Managed::start(config).await);
        let maps = Self { fleet, manager };
        let all: Vec<usize> = (0..nodes).collect();
        maps.publish(&all).await;
        maps
    }

    /// The kinds of what happened, as a manager tells of it.
    pub(crate) async fn events(&self) -> Vec<String> {
        let Some(manager) = &self.manager else {
            return Vec::new();
        };
        let events = manager.events().await.into_iter();
        events.map(|(kind, _)| kind).collect()
    }

    /// A map of some of the nodes.
    pub(crate) async fn publish(&self, nodes: &[usize]) {
        let Some(manager) = &self.manager else {
            return publish_as(&self.fleet, nodes, true).await;
        };
        let known = manager.nodes().await;
        for node in 0..self.fleet.nodes.len() {
            let name = at_work::label(&self.fleet, node);
            let (is, shall) = (
                known.iter().any(|known| known["node"] == name),
                nodes.contains(&node),
            );
            let answer = match (is, shall) {
                (true, false) => {
                    let path = format!("/api/v1/nodes?node={name}");
                    manager.ask("DELETE", &path, &[], "").await
                }
                (false, true) => {
                    let url = serde_json::json!({ "url": self.fleet.nodes[node].url(0) });
                    manager.post("/api/v1/nodes", &url).await
                }
                _ => continue,
            };
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

/// Waits until the cache follows a map of so many nodes.
pub(crate) async fn follows(cache: &DistributedRedis, nodes: usize) -> Duration {
    until(SECOND * 5, async || cache.map_status().nodes.len() == nodes).await
}

/// A timeout is no figure of these rows: an operation that takes too long is one.
pub(crate) fn builder(manager_url: &str, interval: Duration) -> DistributedRedisBuilder {
    DistributedRedis::builder(manager_url)
        .poll_interval(interval)
        .operation_timeout(SECOND)
}

pub(crate) async fn connect(fleet: &Fleet) -> DistributedRedis {
    let builder = builder(&fleet.manager_url(), Duration::from_millis(20));
    builder.connect().await.expect("connected")
}

pub(crate) fn owners(cache: &DistributedRedis, keys: &[String]) -> Vec<Option<String>> {
    keys.iter().map(|key| cache.node_for(key)).collect()
}

pub(crate) fn differing(one: &[Option<String>], other: &[Option<String>]) -> u64 {
    let pairs = one.iter().zip(other);
    pairs.filter(|(one, other)| one != other).count() as u64
}

async fn write(cache: &DistributedRedis, keys: &[String], version: u64) {
    let values = keys.iter().map(|key| (key, Sealed::of(key, version)));
    cache.set_many(values, MINUTE * 10).await.expect("written");
}

/// Keys that answer something else than nothing or the value of this version.
async fn stale(cache: &DistributedRedis, keys: &[String], version: u64) -> u64 {
    let read = cache.get_many::<Sealed>(keys).await.expect("read");
    let old = |(key, value): &(&String, Option<Sealed>)| {
        let right = |value: &Sealed| value.holds(key) && value.version == version;
        value.as_ref().is_some_and(|value| !right(value))
    };
    keys.iter().zip(read).filter(old).count() as u64
}

/// Within which everybody has heard of a change: so long a process may compute a value and another one write by the map
/// before, which the first one does not see.
pub(crate) const HEARD: Duration = SECOND;

/// The versions of the origin behind one key, and since when each is no longer the present one.
#[derive(Default)]
struct Origin {
    outdated: Vec<Instant>,
}

impl Origin {
    fn version(&self) -> u64 {
        self.outdated.len() as u64
    }

    /// Whether a value is older than another process may read; none is older in the process that wrote.
    fn forbids(&self, value: &Sealed, own: bool) -> bool {
        let since = self.outdated.get(value.version as usize);
        let late = since.is_some_and(|since| own || since.elapsed() > HEARD);
        late || value.version > self.version()
    }
}

/// Changes, sets and deletes keys of its own until it is over, and reads what it wrote; another process reads or computes
/// and stores them at the same time.
async fn traffic(caches: [DistributedRedis; 2], keys: Vec<String>, over: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let mut origins: Vec<Origin> = keys.iter().map(|_| Origin::default()).collect();
    for turn in 0_usize.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let at = turn % keys.len();
        let (key, origin) = (&keys[at], &mut origins[at]);
        for write in [false, true] {
            if write {
                let value = Sealed::of(key, origin.version() + 1);
                let written = if turn % 5 == 4 {
                    tally.time(caches[0].delete(key)).await.map(|_| ())
                } else {
                    tally.time(caches[0].set(key, value, MINUTE)).await
                };
                // One that failed is an error of the row.
                let _ = written;
                origin.outdated.push(Instant::now());
            }
            if let Ok(Some(value)) = tally.read(&caches[0], key).await {
                tally.wrong += u64::from(origin.forbids(&value, true));
            }
            let compute = || async { Sealed::of(key, origin.version()) };
            let read = tally.time(caches[1].get_or_set(key, MINUTE, compute)).await;
            if let Ok(value) = read {
                let wrong = !value.holds(key) || origin.forbids(&value, false);
                tally.wrong += u64::from(wrong);
            }
        }
        sleep(PAUSE).await;
    }
    tally
}

/// Runs something while four writers are at work.
pub(crate) async fn under_load<R>(
    cache: &DistributedRedis,
    other: &DistributedRedis,
    during: impl Future<Output = R>,
) -> (R, Tally) {
    let over = Arc::new(AtomicBool::new(false));
    let keys = keys(128);
    let tasks: Vec<_> = keys
        .chunks(32)
        .map(|keys| {
            let caches = [cache.clone(), other.clone()];
            tokio::spawn(traffic(caches, keys.to_vec(), Arc::clone(&over)))
        })
        .collect();
    let answer = during.await;
    over.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for task in tasks {
        all.add(task.await.expect("a writer"));
    }
    (answer, all)
}

pub(crate) fn judge(report: &mut Report, load: &Tally) {
    report.none("errors", load.failures());
    report.none("stale", load.wrong);
    report.within("max op", load.max(), D);
    report.note(format!("the load: {}", load.summary()));
}

/// What ejections of one node led to.
#[derive(Default)]
struct Ejected {
    stale: u64,
    refused: u64,
    rewritten: u64,
}

/// Freezes the last of three nodes, takes it out of the map, rewrites all keys, and puts it back; `times` over. Who
/// rewrites them has seen no change and sees none, so that nobody tells former owners or new ones, and leftovers stay.
async fn eject(times: u64, meta: bool) -> Ejected {
    let fleet = if meta {
        with_meta(3).await
    } else {
        without_meta(3).await
    };
    let all: &[usize] = &[0, 1, 2];
    let cache = connect(&fleet).await;
    let keys = keys(600);
    let mut ejected = Ejected::default();
    write(&connect(&fleet).await, &keys, 0).await;
    for round in 0..times {
        for (step, nodes) in [(1, &all[..2]), (2, all)] {
            if step == 1 {
                fleet.nodes[2].pause();
            } else {
                fleet.nodes[2].resume();
            }
            publish_as(&fleet, nodes, meta).await;
            follows(&cache, nodes.len()).await;
            all_up(&cache, nodes.len()).await;
            ejected.stale += stale(&cache, &keys, 2 * round + step - 1).await;
            let writer = connect(&fleet).await;
            all_up(&writer, nodes.len()).await;
            write(&writer, &keys, 2 * round + step).await;
            ejected.stale += stale(&cache, &keys, 2 * round + step).await;
            ejected.rewritten += keys.len() as u64;
        }
    }
    ejected.refused = cache.stats().refused(Refusal::Epoch);
    ejected
}

pub(crate) async fn node_ejected_and_back() -> Report {
    let ejected = eject(1, true).await;
    let mut report = Report::default();
    report.none("stale", ejected.stale);
    report.at_least("leftovers refused", ejected.refused, 100);
    report.note(format!(
        "frozen for less than 1 s instead of 60, {} keys rewritten",
        ejected.rewritten
    ));
    report
}

pub(crate) async fn node_ejected_twice() -> Report {
    let (ejected, naive) = tokio::join!(eject(2, true), eject(2, false));
    let mut report = Report::default();
    report.none("stale", ejected.stale);
    report.at_least("leftovers refused", ejected.refused, 200);
    report.at_least("stale with a map that has no meta", naive.stale, 100);
    report.note(format!(
        "{} keys rewritten; without a meta {:.1} % of the reads after a change are stale",
        ejected.rewritten,
        100.0 * naive.stale as f64 / naive.rewritten as f64
    ));
    report
}

pub(crate) async fn map_changed_under_load() -> Report {
    changed_under_load(Maps::by_calls(5).await).await
}

/// A node of five comes and goes while others write, delete and read.
pub(crate) async fn changed_under_load(maps: Maps) -> Report {
    let fleet = &maps.fleet;
    let all: &[usize] = &[0, 1, 2, 3, 4];
    let (cache, other) = (connect(fleet).await, connect(fleet).await);
    let keys = keys(10_000);
    let (mut before, leaves) = (owners(&cache, &keys), label(&fleet.nodes[4].url(0)));
    let is_its = |owner: &Option<String>| owner.as_ref() == Some(&leaves);
    let (mut changes, mut misroutes, mut moved) = (0_u64, 0, 0);
    let changing = async {
        let began = Instant::now();
        while began.elapsed() < SECOND * 5 / 2 {
            for nodes in [&all[..4], all] {
                maps.publish(nodes).await;
                follows(&cache, nodes.len()).await;
                let now = owners(&cache, &keys);
                // What was on another node before, or is now, stays.
                let (with, without) = match nodes.len() {
                    4 => (&before, &now),
                    _ => (&now, &before),
                };
                let pairs = with.iter().zip(without);
                let strays = pairs.filter(|(with, without)| with != without && !is_its(with));
                misroutes += strays.count() as u64;
                misroutes += without.iter().filter(|owner| is_its(owner)).count() as u64;
                moved = moved.max(differing(&before, &now));
                before = now;
                changes += 1;
                sleep(SECOND / 5).await;
            }
        }
    };
    let ((), load) = under_load(&cache, &other, changing).await;
    let mut report = Report::default();
    judge(&mut report, &load);
    report.none("misroutes", misroutes);
    let most = if maps.manager.is_some() { 24.0 } else { 30.0 };
    report.share("moved, ideally 20 %:", moved, keys.len() as u64, most);
    report.at_least("changes", changes, 6);
    let ring = cache.ring();
    let its = ring.nodes().iter().position(|url| label(url) == leaves);
    let its = 100.0 * its.map_or(0.0, |node| ring.shares()[node]);
    report.note(format!("the map gives that node {its:.1} %"));
    report
}

/// A cache that is not told of changes and hardly ever looks for them.
pub(crate) async fn deaf(fleet: &Fleet) -> DistributedRedis {
    let user = [
        "ACL", "SETUSER", "deaf", "on", "nopass", "~*", "+@all", "-client",
    ];
    fleet.manager.raw(0, &user).await;
    let url = format!("redis://deaf@127.0.0.1:{}/13", fleet.manager.port());
    let builder = builder(&url, MINUTE);
    builder.connect().await.expect("connected")
}

/// Old values that the handle held on the old map reads after deletes and sets by way of the new one.
async fn behind(old: &DistributedRedis, new: &DistributedRedis, keys: &[String]) -> u64 {
    let mut stale = 0;
    for (turn, key) in keys.iter().enumerate() {
        if turn % 2 == 0 {
            new.delete(key).await.expect("deleted");
        } else {
            let value = Sealed::of(key, 2);
            new.set(key, value, MINUTE).await.expect("set");
        }
        let read = old.get::<Sealed>(key).await.expect("read");
        stale += u64::from(read.is_some_and(|value| value.version < 2));
    }
    stale
}

/// Computed values that are read after deletes of them by way of the old map, once its process has heard of the new one.
async fn lost(old: &DistributedRedis, new: &DistributedRedis, keys: &[String], other: &str) -> u64 {
    for key in keys {
        let compute = || async { Sealed::of(key, 1) };
        let computed = new.get_or_set(key, MINUTE, compute).await;
        computed.expect("computed");
        old.delete(key).await.expect("deleted");
    }
    // An entry of the new epoch is a reason to read the map.
    let value = Sealed::of(other, 2);
    new.set(other, value, MINUTE).await.expect("set");
    old.get::<Sealed>(other).await.expect("read");
    let nodes = new.map_status().nodes.len();
    follows(old, nodes).await;
    until(SECOND * 5, async || {
        old.map_status().nodes.iter().all(|node| node.owed == 0)
    })
    .await;
    let read = old.get_many::<Sealed>(keys).await.expect("read");
    read.iter().flatten().count() as u64
}

pub(crate) async fn two_maps_at_once() -> Report {
    held_on_the_map_before(Maps::by_calls(3).await).await
}

/// One process does not hear of a change, another one goes by it.
pub(crate) async fn held_on_the_map_before(maps: Maps) -> Report {
    let fleet = &maps.fleet;
    // A minute between two readings: what is heard of was pushed.
    let pushed = builder(&fleet.manager_url(), MINUTE).connect().await;
    let (old, new, pushed) = (
        deaf(fleet).await,
        connect(fleet).await,
        pushed.expect("connected"),
    );
    let keys = keys(900);
    write(&old, &keys, 1).await;
    maps.publish(&[0, 1]).await;
    follows(&new, 2).await;
    let (moved, stayed): (Vec<String>, Vec<String>) = keys
        .into_iter()
        .partition(|key| old.node_for(key) != new.node_for(key));
    let (soon, later) = moved.split_at(moved.len() / 2);
    let (later, by_old) = later.split_at(later.len() / 2);
    let soon = (soon.len(), behind(&old, &new, soon).await);
    let window = new.map_status().previous_maps;
    until(SECOND * 5, async || new.map_status().previous_maps == 0).await;
    let later = (later.len(), behind(&old, &new, later).await);
    let held = old.map_status().nodes.len();
    let lost = lost(&old, &new, by_old, &stayed[0]).await;
    let mut lag = Duration::ZERO;
    for nodes in [&[0, 1, 2][..], &[0, 1]].repeat(5) {
        let began = Instant::now();
        maps.publish(nodes).await;
        follows(&pushed, nodes.len()).await;
        lag = lag.max(began.elapsed());
    }
    let mut report = Report::default();
    report.none("stale on the old map", soon.1);
    report.at_least("moved keys deleted or set", soon.0 as u64, 20);
    report.none("deletes by the old map lost", lost);
    report.at_least("deletes by the old map", by_old.len() as u64, 20);
    report.at_least("earlier maps still told of", window as u64, 1);
    report.at_least("nodes of the map held", held as u64, 3);
    report.within("publish to heard, slowest of 10", lag, SECOND);
    report.note(format!(
        "former owners are told for 2 s; after them {} of {} are stale for who is held longer",
        later.1, later.0
    ));
    report
}
