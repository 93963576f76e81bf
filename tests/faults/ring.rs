//! Larger rings.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use larder::ring::{Publication, publish};
use larder::{Cache, DistributedRedis};
use redis::Value;
use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::load::{MINUTE, Sealed, Tally, keys, until};
use crate::node::{median, quotient};
use crate::report::{D, Report, time};

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_millis(300);
const POSITIONS: usize = 40;

/// The only writer of its keys.
struct Writer {
    cache: DistributedRedis,
    keys: Vec<Written>,
    turn: usize,
    /// Whether a value may be gone, with its node or to another one. It may never be old.
    may_be_gone: bool,
}

/// The versions of one key that its writer tried to write and that were acknowledged.
struct Written {
    key: String,
    tried: u64,
    acknowledged: u64,
}

impl Writer {
    fn new(cache: &DistributedRedis, keys: &[String]) -> Self {
        let written = |key: &String| Written {
            key: key.clone(),
            tried: 0,
            acknowledged: 0,
        };
        Self {
            cache: cache.clone(),
            keys: keys.iter().map(written).collect(),
            turn: 0,
            may_be_gone: false,
        }
    }

    /// Some writers that share the keys.
    fn some(cache: &DistributedRedis, keys: &[String], count: usize) -> Vec<Self> {
        let share = keys.len().div_ceil(count).max(1);
        let shares = keys.chunks(share);
        shares.map(|keys| Self::new(cache, keys)).collect()
    }

    /// Writes and reads its keys in turn for `span`.
    async fn work(mut self, span: Duration) -> (Self, Tally) {
        let (mut tally, began) = (Tally::default(), Instant::now());
        while began.elapsed() < span {
            let turn = self.turn % self.keys.len();
            self.turn += 1;
            let written = &mut self.keys[turn];
            written.tried += 1;
            let value = Sealed::of(&written.key, written.tried);
            let set = self.cache.set(&written.key, value, MINUTE * 10);
            if tally.time(set).await.is_ok() {
                written.acknowledged = written.tried;
            }
            let read = tally.read(&self.cache, &written.key).await;
            tally.wrong += match read {
                Ok(None) if self.may_be_gone => 0,
                Ok(value) => written.lost(value.as_ref()),
                Err(_) => 0,
            };
            sleep(Duration::from_millis(2)).await;
        }
        (self, tally)
    }
}

impl Written {
    /// 1 if this answer shows that an acknowledged write is gone. Where a later one failed there may be nothing: what it
    /// was to replace is removed.
    fn lost(&self, value: Option<&Sealed>) -> u64 {
        if value.is_none() && self.tried > self.acknowledged {
            return 0;
        }
        let version = value.map_or(0, |value| value.version);
        u64::from(version < self.acknowledged || version > self.tried)
    }
}

/// All writers at work at the same time.
async fn work(writers: Vec<Writer>, span: Duration) -> (Vec<Writer>, Tally) {
    let tasks: Vec<_> = writers
        .into_iter()
        .map(|writer| tokio::spawn(writer.work(span)))
        .collect();
    let (mut writers, mut all) = (Vec::new(), Tally::default());
    for task in tasks {
        let (writer, tally) = task.await.expect("a writer");
        writers.push(writer);
        all.add(tally);
    }
    (writers, all)
}

/// Acknowledged writes that a handle of its own does not find.
async fn lost(fleet: &Fleet, writers: &[Writer]) -> (u64, u64) {
    let cache = fleet.connect().await;
    let (mut checked, mut lost) = (0, 0);
    for written in writers.iter().flat_map(|writer| &writer.keys) {
        let mut found = cache.get::<Sealed>(&written.key).await;
        if found.is_err() {
            sleep(SECOND / 2).await;
            found = cache.get::<Sealed>(&written.key).await;
        }
        let value = found
            .expect("all nodes are up")
            .filter(|value| value.holds(&written.key));
        checked += u64::from(written.acknowledged > 0);
        lost += written.lost(value.as_ref());
    }
    (checked, lost)
}

async fn publish_nodes(fleet: &Fleet, count: usize) {
    let map = Publication::of_nodes(&fleet.node_urls()[..count], POSITIONS);
    publish(&fleet.manager_url(), &map)
        .await
        .expect("published");
}

pub(crate) async fn all_up(cache: &DistributedRedis, nodes: usize) -> Duration {
    until(SECOND * 10, async || {
        let status = cache.map_status();
        status.nodes.len() == nodes && status.nodes.iter().all(|node| node.up)
    })
    .await
}

/// Twelve nodes and a thirteenth in waiting; the keys that trouble concerns, and the others.
struct Trouble {
    fleet: Fleet,
    cache: DistributedRedis,
    /// On the frozen node; nothing of theirs may be lost.
    frozen: Vec<String>,
    /// On the node that dies or of those that move.
    gone: Vec<String>,
    spared: Vec<String>,
}

const DEAD: usize = 0;
const FROZEN: usize = 1;

impl Trouble {
    async fn prepare() -> Self {
        let fleet = Fleet::bare(13).await;
        publish_nodes(&fleet, 13).await;
        let cache = fleet.connect().await;
        let later = cache.ring();
        publish_nodes(&fleet, 12).await;
        all_up(&cache, 12).await;
        let (mut frozen, mut gone, mut spared) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys(1200) {
            let owner = fleet.owner(&cache, &key).port();
            let moves = later.node_for(&key) != cache.ring().node_for(&key);
            if moves || owner == fleet.nodes[DEAD].port() {
                gone.push(key);
            } else if owner == fleet.nodes[FROZEN].port() {
                frozen.push(key);
            } else {
                spared.push(key);
            }
        }
        Self {
            fleet,
            cache,
            frozen,
            gone,
            spared,
        }
    }

    async fn begin(&self) {
        sleep(Duration::from_millis(20)).await;
        self.fleet.nodes[DEAD].kill();
        self.fleet.nodes[FROZEN].pause();
        publish_nodes(&self.fleet, 13).await;
    }

    async fn end(&self) -> Duration {
        self.fleet.nodes[FROZEN].resume();
        publish_nodes(&self.fleet, 12).await;
        self.fleet.nodes[DEAD].restart().await;
        all_up(&self.cache, 12).await
    }
}

/// One node killed, one frozen, one added, again and again, under load.
pub(crate) async fn twelve_nodes_in_trouble() -> Report {
    let trouble = Trouble::prepare().await;
    let mut spared = Writer::some(&trouble.cache, &trouble.spared, 16);
    let mut frozen = Writer::some(&trouble.cache, &trouble.frozen, 4);
    let mut gone = Writer::some(&trouble.cache, &trouble.gone, 4);
    gone.iter_mut().for_each(|writer| writer.may_be_gone = true);
    let (mut ratios, mut typical, mut recovery) = (Vec::new(), Vec::new(), Duration::ZERO);
    let (mut others, mut concerned) = (Tally::default(), Tally::default());
    for _ in 0..9 {
        let mut p99s = Vec::new();
        for faults in [false, true] {
            let begin = async {
                if faults {
                    trouble.begin().await;
                }
            };
            let (first, second, third, ()) = tokio::join!(
                work(spared, WINDOW),
                work(frozen, WINDOW),
                work(gone, WINDOW),
                begin
            );
            (spared, frozen, gone) = (first.0, second.0, third.0);
            p99s.push(first.1.p99());
            others.add(first.1);
            concerned.add(second.1);
            concerned.add(third.1);
        }
        ratios.push(quotient(p99s[1], p99s[0]));
        typical.push(p99s[0].as_secs_f64());
        recovery = recovery.max(trouble.end().await);
    }
    let kept: Vec<Writer> = spared.into_iter().chain(frozen).collect();
    let (checked, lost) = lost(&trouble.fleet, &kept).await;
    let mut report = Report::default();
    report.none(
        "acknowledged writes lost, old values read",
        lost + others.wrong + concerned.wrong,
    );
    report.ratio(
        "others' p99 with / without, median of 9",
        median(ratios),
        2.0,
    );
    report.within("max op", others.max().max(concerned.max()), D);
    report.none("others' errors", others.failures());
    report.within("slowest recovery of all nodes", recovery, SECOND * 2);
    let typical = time(Duration::from_secs_f64(median(typical)));
    report.note(format!(
        "{checked} keys checked, others' p99 {typical}; those in trouble: {}",
        concerned.summary()
    ));
    report
}

pub(crate) async fn fifty_nodes() -> Report {
    let fleet = Fleet::bare(50).await;
    publish_nodes(&fleet, 50).await;
    let cache = fleet.connect().await;
    let mut report = Report::default();
    report.within("all nodes up after", all_up(&cache, 50).await, SECOND);
    let keys = keys(2000);
    let writers = Writer::some(&cache, &keys, 32);
    let (writers, tally) = work(writers, SECOND * 3).await;
    let (checked, lost) = lost(&fleet, &writers).await;
    report.none("acknowledged writes lost", lost + tally.wrong);
    report.none("errors", tally.failures());
    report.within("max op", tally.max(), D);
    report.at_least("keys checked", checked, 1000);
    let written = writers.iter().flat_map(|writer| &writer.keys);
    let written: Vec<&str> = written
        .filter(|written| written.acknowledged > 0)
        .map(|written| &*written.key)
        .collect();
    report.none(
        "keys not where the map says",
        misplaced(&fleet, &cache, &written).await,
    );
    report.note(format!("p99 {}, {}", time(tally.p99()), tally.summary()));
    report
}

/// Keys that are not on their node, or on another too, as the nodes themselves say.
async fn misplaced(fleet: &Fleet, cache: &DistributedRedis, keys: &[&str]) -> u64 {
    let mut wrong = 0;
    for node in &fleet.nodes {
        let place = format!("127.0.0.1:{}/0", node.port());
        let should: HashSet<String> = keys
            .iter()
            .filter(|key| cache.node_for(key).as_deref() == Some(&place))
            .map(ToString::to_string)
            .collect();
        let Value::Array(there) = node.raw(0, &["KEYS", "*"]).await else {
            panic!("KEYS answers no list");
        };
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        };
        // The node's own records are no keys of the cache.
        let there = there.iter().map(text);
        let there: HashSet<String> = there.filter(|key| !key.starts_with("__larder")).collect();
        wrong += there.symmetric_difference(&should).count() as u64;
    }
    wrong
}
