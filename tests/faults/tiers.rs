//! Memory in front of a ring in trouble. One process writes, another one reads by way of its memory.

use std::time::{Duration, Instant};

use larder::ring::label;
use larder::{Cache, DistributedRedis, Moka, Tiered};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::coherence::kill_and_write;
use crate::load::{Tally, admin, keys, told, until};
use crate::report::{D, Report};
use crate::ring::all_up;
use crate::topology::{HEARD, Maps, connect, deaf, follows, publish_as, with_meta};
use crate::traffic::{Seen, Traffic, gaps, heard, is_in_memory, tiered};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// How far memory may be behind.
const L: Duration = Duration::from_millis(300);

/// As often it answers at least: otherwise it was not seen at work.
const HITS: u64 = 1000;

/// A ring, and those who write and read there.
struct Ring {
    maps: Maps,
    writer: DistributedRedis,
    tier: Tiered<Moka, DistributedRedis>,
    traffic: Traffic,
    reading: Vec<JoinHandle<Seen>>,
}

impl Ring {
    async fn start(nodes: usize) -> Self {
        Self::over(Maps::by_calls(nodes).await).await
    }

    async fn over(maps: Maps) -> Self {
        let fleet = &maps.fleet;
        let nodes = fleet.nodes.len();
        let (writer, reader) = (fleet.connect().await, fleet.connect().await);
        all_up(&writer, nodes).await;
        all_up(&reader, nodes).await;
        let tier = heard(tiered(reader, L)).await;
        let traffic = Traffic::over(&keys(200));
        traffic.rewrite(&writer).await;
        let reading = (0..2).map(|_| traffic.read(&tier)).collect();
        Self {
            maps,
            writer,
            tier,
            traffic,
            reading,
        }
    }

    fn writing(&self) -> JoinHandle<Tally> {
        self.traffic.write(&self.writer, 8, MS * 15)
    }

    /// Ends it all and judges the answers: none is behind by more than `bound`.
    async fn judge(self, written: &Tally, bound: Duration) -> Report {
        self.traffic.end();
        let mut seen = Seen::default();
        for reader in self.reading {
            let other = reader.await.expect("a reader");
            seen.lags.add(other.lags);
            seen.tally.add(other.tally);
        }
        let mut report = Report::default();
        seen.lags.judge(&mut report, "", bound);
        report.none("wrong", seen.tally.wrong);
        report.within("max read", seen.tally.max(), D);
        let (hits, gaps) = (self.tier.stats().memory_hits, gaps(&self.tier));
        report.at_least("hits in memory", hits, HITS);
        report.note(format!("{gaps} gaps, reads: {}", seen.tally.summary()));
        report.note(format!("writes: {}", written.summary()));
        report
    }
}

/// A node that is killed and comes back empty, again and again.
pub(crate) async fn memory_over_killed_nodes() -> Report {
    let ring = Ring::start(3).await;
    let writing = ring.writing();
    for node in &ring.maps.fleet.nodes {
        sleep(SECOND / 2).await;
        node.kill();
        sleep(SECOND / 2).await;
        node.restart().await;
        all_up(&ring.writer, 3).await;
    }
    sleep(SECOND).await;
    ring.traffic.end();
    let written = writing.await.expect("the writers");
    ring.judge(&written, L).await
}

pub(crate) async fn memory_over_a_paused_node() -> Report {
    let ring = Ring::start(3).await;
    let writing = ring.writing();
    for span in [SECOND / 10, SECOND / 2, SECOND * 2] {
        sleep(SECOND / 2).await;
        ring.maps.fleet.nodes[0].pause();
        sleep(span).await;
        ring.maps.fleet.nodes[0].resume();
        all_up(&ring.writer, 3).await;
    }
    sleep(SECOND).await;
    ring.traffic.end();
    let written = writing.await.expect("the writers");
    ring.judge(&written, L).await
}

/// Twice a node is frozen, taken out of the map, and put back, and each time all keys are rewritten by somebody who has
/// seen no change: so nobody tells former owners.
pub(crate) async fn memory_over_an_ejected_node() -> Report {
    let ring = Ring::start(3).await;
    let (all, mut written) = ([0, 1, 2], Tally::default());
    for _ in 0..2 {
        for nodes in [&all[..2], &all] {
            if nodes.len() == 2 {
                ring.maps.fleet.nodes[2].pause();
            } else {
                ring.maps.fleet.nodes[2].resume();
            }
            ring.maps.publish(nodes).await;
            let writer = ring.maps.fleet.connect().await;
            all_up(&writer, nodes.len()).await;
            for _ in 0..4 {
                written.add(ring.traffic.rewrite(&writer).await);
                sleep(SECOND / 5).await;
            }
        }
    }
    let bound = L + HEARD;
    ring.judge(&written, bound).await
}

/// A node leaves the map, and just then nobody hears of the writes at those who have its keys now.
pub(crate) async fn memory_over_a_node_that_left() -> Report {
    let fleet = with_meta(3).await;
    let reader = fleet.connect().await;
    all_up(&reader, 3).await;
    let tier = heard(tiered(reader.clone(), L)).await;
    let leaving = label(&fleet.nodes[2].url(0));
    let its = |key: &String| reader.node_for(key).as_ref() == Some(&leaving);
    let keys: Vec<String> = keys(300).into_iter().filter(its).collect();
    let mut connection = admin(&fleet.nodes[2]).await;
    for key in &keys {
        told(&mut connection, &["SET", key, "1"]).await;
        let read = async || matches!(tier.get::<u64>(key).await, Ok(Some(1)));
        until(SECOND, async || read().await && is_in_memory(&tier, key)).await;
    }
    let copied = keys.iter().filter(|key| is_in_memory(&tier, key)).count();
    publish_as(&fleet, &[0, 1], true).await;
    follows(&reader, 2).await;
    let mut killed = 0;
    for node in &fleet.nodes[..2] {
        let its = |key: &&str| fleet.owner(&reader, key).port() == node.port();
        let moved: Vec<&str> = keys.iter().map(String::as_str).filter(its).collect();
        killed += kill_and_write(&mut admin(node).await, &moved, 2).await;
    }
    sleep(L).await;
    let mut stale = 0;
    for key in &keys {
        let read = tier.get::<u64>(key).await.expect("an answer");
        stale += u64::from(read == Some(1));
    }
    let mut report = Report::default();
    report.none("stale: read by the map before", stale);
    report.at_least("copies of the node that left", copied as u64, 20);
    report.at_least("lines killed", killed, 2);
    report
}

pub(crate) async fn memory_over_a_changing_map() -> Report {
    memory_while_nodes_come_and_go(Maps::by_calls(5).await).await
}

/// A node of five comes and goes.
pub(crate) async fn memory_while_nodes_come_and_go(maps: Maps) -> Report {
    let ring = Ring::over(maps).await;
    let (writing, all) = (ring.writing(), [0, 1, 2, 3, 4]);
    let (began, mut changes) = (Instant::now(), 0);
    while began.elapsed() < SECOND * 4 {
        for nodes in [&all[..4], &all] {
            ring.maps.publish(nodes).await;
            follows(&ring.writer, nodes.len()).await;
            changes += 1;
            sleep(SECOND / 5).await;
        }
    }
    ring.traffic.end();
    let written = writing.await.expect("the writers");
    let mut report = ring.judge(&written, L + HEARD).await;
    report.none("errors of the writers", written.failures());
    report.at_least("changes", changes, 6);
    report
}

pub(crate) async fn memory_over_an_old_map() -> Report {
    memory_held_on_the_map_before(Maps::by_calls(3).await).await
}

/// The reader is held on the map before, while the writer goes by the new one and tells former owners.
pub(crate) async fn memory_held_on_the_map_before(maps: Maps) -> Report {
    let (old, writer) = (deaf(&maps.fleet).await, connect(&maps.fleet).await);
    all_up(&old, 3).await;
    let tier = heard(tiered(old.clone(), L)).await;
    maps.publish(&[0, 1]).await;
    follows(&writer, 2).await;
    let moved = |key: &String| old.node_for(key) != writer.node_for(key);
    let keys: Vec<String> = keys(600).into_iter().filter(moved).collect();
    let traffic = Traffic::over(&keys);
    traffic.rewrite(&old).await;
    let reading = (0..2).map(|_| traffic.read(&tier)).collect();
    sleep(SECOND / 5).await;
    let ring = Ring {
        maps,
        writer,
        tier,
        traffic,
        reading,
    };
    let writing = ring.writing();
    sleep(SECOND).await;
    // A slow machine takes longer.
    until(SECOND * 10, async || ring.tier.stats().memory_hits >= HITS).await;
    let (told, held) = (
        ring.writer.map_status().previous_maps,
        old.map_status().nodes.len(),
    );
    ring.traffic.end();
    let written = writing.await.expect("the writers");
    let mut report = ring.judge(&written, L).await;
    report.at_least("moved keys", keys.len() as u64, 20);
    report.at_least("earlier maps still told of", told as u64, 1);
    report.at_least("nodes of the map held", held as u64, 3);
    report
}
