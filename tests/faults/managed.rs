//! The same with a manager at work, which publishes the maps and makes good what others spoil.

use std::time::Duration;

use redis::Value;

use crate::at_work::{Managed, quick};
use crate::fleet::Fleet;
use crate::load::{keys, until};
use crate::manager::{bad_url, rewritten};
use crate::report::Report;
use crate::tiers;
use crate::topology::{
    MAP, Maps, builder, changed_under_load, connect, differing, held_on_the_map_before, judge,
    owners, under_load,
};

const SECOND: Duration = Duration::from_secs(1);
/// A map that is gone is looked for during a second, as the Python server deletes it before it writes another.
const RESTORED: Duration = Duration::from_secs(2);
const OFTEN: Duration = Duration::from_millis(20);

async fn fields(fleet: &Fleet) -> Value {
    fleet.manager.raw(13, &["HLEN", MAP]).await
}

/// The map is deleted, and its meta with it or not: readers keep what they have, and it is there again.
pub(crate) async fn deleted_map_restored() -> Report {
    let maps = Maps::by_manager(3).await;
    let fleet = &maps.fleet;
    let (cache, other) = (connect(fleet).await, connect(fleet).await);
    let keys = keys(2000);
    let (before, whole) = (owners(&cache, &keys), fields(fleet).await);
    let (mut misroutes, mut slowest) = (0, Duration::ZERO);
    let deleted = async {
        for gone in [&[MAP][..], &[MAP, "HASH_RING_META"]].repeat(3) {
            let gone: Vec<&str> = ["DEL"].iter().chain(gone).copied().collect();
            fleet.manager.raw(13, &gone).await;
            let restored = until(SECOND * 5, async || fields(fleet).await == whole).await;
            slowest = slowest.max(restored);
            misroutes += differing(&before, &owners(&cache, &keys));
        }
    };
    let ((), load) = under_load(&cache, &other, deleted).await;
    let mut report = Report::default();
    report.none("misroutes", misroutes);
    report.within("restored after", slowest, RESTORED);
    let events = maps.events().await;
    let told = events.iter().filter(|kind| *kind == "restored").count();
    report.at_least("told", told as u64, 6);
    judge(&mut report, &load);
    report
}

/// A Python server that goes on rewriting its map, by `DEL` and `HMSET`, while a manager has taken it over.
pub(crate) async fn rewritten_under_a_manager() -> Report {
    let fleet = Fleet::bare(3).await;
    let urls = fleet.node_urls();
    fleet.publish_like_python(&urls).await;
    let managed = Managed::start(quick(&fleet)).await;
    let (cache, other) = (connect(&fleet).await, connect(&fleet).await);
    let mut report = rewritten(&fleet, &urls, &cache, &other).await;
    let nodes = managed.nodes().await;
    let up = nodes.iter().filter(|node| node["state"] == "up").count();
    report.at_least("nodes that the manager has", up as u64, 3);
    report
}

/// What nobody can read is replaced by what was there before; what can be read is taken for what it says.
pub(crate) async fn garbage_replaced() -> Report {
    let maps = Maps::by_manager(3).await;
    let fleet = &maps.fleet;
    let cache = builder(&fleet.manager_url(), OFTEN)
        .connect()
        .await
        .expect("connected");
    let keys = keys(1000);
    let (before, whole) = (owners(&cache, &keys), fields(fleet).await);
    let position = cache.ring().iter().next().expect("a position").0;
    let twice = format!("{position:0>10}");
    let (mut report, mut misroutes, mut slowest) = (Report::default(), 0, Duration::ZERO);
    for garbage in ["abc", "-1", "4294967296", " 7", "", &twice] {
        let hset = ["HSET", MAP, garbage, "redis://127.0.0.1:1/0"];
        fleet.manager.raw(13, &hset).await;
        let good = async || {
            let well = fields(fleet).await == whole && cache.map_status().last_error.is_none();
            let value = fleet.manager.raw(13, &["HGET", MAP, garbage]).await;
            well && value != Value::BulkString("redis://127.0.0.1:1/0".into())
        };
        slowest = slowest.max(until(SECOND * 5, good).await);
        misroutes += differing(&before, &owners(&cache, &keys));
    }
    report.none("misroutes by 6 kinds of garbage", misroutes);
    report.within("replaced after", slowest, RESTORED);
    bad_url(fleet, &cache, &keys, &mut report).await;
    report
}

pub(crate) async fn nodes_added_and_removed_under_load() -> Report {
    changed_under_load(Maps::by_manager(5).await).await
}

pub(crate) async fn memory_while_nodes_are_added_and_removed() -> Report {
    tiers::memory_while_nodes_come_and_go(Maps::by_manager(5).await).await
}

pub(crate) async fn two_maps_of_a_manager() -> Report {
    held_on_the_map_before(Maps::by_manager(3).await).await
}

pub(crate) async fn memory_over_an_old_map_of_a_manager() -> Report {
    tiers::memory_held_on_the_map_before(Maps::by_manager(3).await).await
}
