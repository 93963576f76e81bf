//! Maps that change under a cache: what nodes still hold of the time before is never a value.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder::codec::Refusal;
use larder::ring::{Publication, label, positions_for, publish};
use larder::{Cache, DistributedRedis, ErrorKind, Redis, Why};
use redis::Value;

use crate::fleet::{Fleet, eventually};
use crate::support::Server;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// Within which a change is heard of, on a busy machine.
pub(crate) const HEARD: Duration = Duration::from_secs(5);

/// Text: integers are stored bare, without an epoch.
fn text(round: usize) -> String {
    format!("round {round}")
}

pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("key:{i}")).collect()
}

impl Fleet {
    /// Publishes a map of some of the nodes, and waits until the caches follow it.
    pub(crate) async fn publish(&self, nodes: &[usize], caches: &[&DistributedRedis]) -> u64 {
        let urls = self.node_urls();
        let urls: Vec<&String> = nodes.iter().map(|node| &urls[*node]).collect();
        let map = Publication::of_nodes(&urls, 40);
        let epoch = publish(&self.manager_url(), &map).await.expect("published");
        for cache in caches {
            let heard = async || cache.map_status().epoch == epoch;
            eventually(HEARD, "the map is heard of", heard).await;
        }
        epoch
    }

    /// Rewrites the map as one without meta would be, and waits until the cache follows it.
    async fn publish_without_meta(&self, nodes: &[usize], cache: &DistributedRedis) {
        let urls = self.node_urls();
        let urls: Vec<&String> = nodes.iter().map(|node| &urls[*node]).collect();
        let mut hmset = vec!["HMSET".to_owned(), "HASH_RING_MAP".to_owned()];
        // More positions than the Python server would choose: whatever the ports, each node has a share worth testing.
        for (position, url) in positions_for(&urls, 40) {
            hmset.extend([position.to_string(), url]);
        }
        let hmset: Vec<&str> = hmset.iter().map(String::as_str).collect();
        self.manager.raw(13, &["DEL", "HASH_RING_MAP"]).await;
        self.manager.raw(13, &hmset).await;
        let mut labels: Vec<_> = urls.iter().map(|url| label(url)).collect();
        labels.sort();
        let heard = async || {
            let nodes = cache.map_status().nodes;
            let mut found: Vec<_> = nodes.into_iter().map(|node| node.label).collect();
            found.sort();
            found == labels
        };
        eventually(HEARD, "the map is heard of", heard).await;
    }

    /// A cache whose operations do not fail because the machine is busy.
    pub(crate) async fn patient(&self) -> DistributedRedis {
        self.reading_every(Duration::from_millis(20)).await
    }

    /// The same, with another time between two readings of the map.
    async fn reading_every(&self, interval: Duration) -> DistributedRedis {
        Self::following(&self.manager_url(), interval).await
    }

    /// A cache that is not told of changes and hardly ever looks for them.
    pub(crate) async fn deaf(&self) -> DistributedRedis {
        let user = [
            "ACL", "SETUSER", "deaf", "on", "nopass", "~*", "+@all", "-client",
        ];
        self.manager.raw(0, &user).await;
        let url = format!("redis://deaf@127.0.0.1:{}/13", self.manager.port());
        Self::following(&url, MINUTE).await
    }

    async fn following(manager_url: &str, interval: Duration) -> DistributedRedis {
        DistributedRedis::builder(manager_url)
            .poll_interval(interval)
            .operation_timeout(SECOND * 3)
            .connect_timeout(SECOND * 3)
            .connect()
            .await
            .expect("the ring is connected")
    }

    /// Waits until no node owes a delete any more.
    pub(crate) async fn settled(&self, cache: &DistributedRedis) {
        let settled = async || cache.map_status().nodes.iter().all(|node| node.owed == 0);
        eventually(HEARD, "what was owed is paid", settled).await;
    }

    pub(crate) fn node_of(&self, cache: &DistributedRedis, key: &str) -> usize {
        let port = self.owner(cache, key).port();
        self.nodes
            .iter()
            .position(|node| node.port() == port)
            .expect("a node of this fleet")
    }
}

async fn set_all(cache: &impl Cache, keys: &[String], value: &str) {
    let pairs = keys.iter().map(|key| (key, value.to_owned()));
    cache.set_many(pairs, MINUTE).await.expect("all are set");
}

/// How many keys answer something else than nothing or `value`.
async fn stale(cache: &impl Cache, keys: &[String], value: &str) -> usize {
    let read = cache.get_many::<String>(keys).await.expect("read");
    let wrong = |read: &&Option<String>| read.as_deref().is_some_and(|read| read != value);
    read.iter().filter(wrong).count()
}

/// Without telling former owners, as it is for a node that could not be reached then: old values are put back there.
async fn keep(server: &Server, keys: &[String]) -> Vec<(String, Vec<u8>)> {
    let mut kept = Vec::new();
    for key in keys {
        if let Value::BulkString(bytes) = dump(server, key).await {
            kept.push((key.clone(), bytes));
        }
    }
    kept
}

async fn dump(server: &Server, key: &str) -> Value {
    server.raw(0, &["GET", key]).await
}

async fn put_back(server: &Server, kept: &[(String, Vec<u8>)]) {
    let client = redis::Client::open(server.url(0)).expect("a url");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("connected");
    for (key, bytes) in kept {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(bytes);
        let () = set.query_async(&mut connection).await.expect("set");
    }
}

/// Rows 4 and 5 of the faults: a node is frozen and taken out, its keys are rewritten on the nodes that stand in for
/// it, it returns with what it held; and once more. Who rewrites them has seen no change and sees none, as after the time
/// for which former owners are told: the leftovers are there when the node returns, and on its stand-ins after it left again.
#[tokio::test]
async fn a_node_that_returns_twice_answers_nothing_old_and_neither_do_its_stand_ins() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    let keys = keys(200);
    let write = async |value: &str| set_all(&fleet.patient().await, &keys, value).await;
    let refused = || cache.stats().refused(Refusal::Epoch);
    write(&text(0)).await;
    for round in 0..2 {
        for (nodes, returns) in [(&[0, 1][..], false), (&[0, 1, 2], true)] {
            if returns {
                fleet.nodes[2].resume();
            } else {
                fleet.nodes[2].pause();
            }
            let before = refused();
            fleet.publish(nodes, &[&cache]).await;
            let up = async || cache.map_status().nodes.iter().all(|node| node.up);
            eventually(HEARD, "all nodes are up", up).await;
            let step = 2 * round + usize::from(returns);
            assert_eq!(stale(&cache, &keys, &text(step)).await, 0);
            // The first time that it leaves, nothing is left on the others.
            assert!(
                refused() > before + 20 || step == 0,
                "{} refused",
                refused()
            );
            write(&text(step + 1)).await;
            let read = cache.get_many::<String>(&keys).await.unwrap();
            let right = |read: &Option<String>| read.as_ref() == Some(&text(step + 1));
            assert!(read.iter().all(right), "what was just set is there");
        }
    }
}

/// The same moves, with what each node held put back each time, as if no message to a former owner had ever arrived.
async fn moves(fleet: &Fleet, cache: &DistributedRedis, with_meta: bool) -> usize {
    let keys = keys(150);
    let follow = async |nodes: &[usize]| {
        if with_meta {
            fleet.publish(nodes, &[cache]).await;
        } else {
            fleet.publish_without_meta(nodes, cache).await;
        }
    };
    let mut old = 0;
    set_all(cache, &keys, &text(0)).await;
    for round in 0..2 {
        let held = keep(&fleet.nodes[2], &keys).await;
        follow(&[0, 1]).await;
        old += stale(cache, &keys, &text(2 * round)).await;
        set_all(cache, &keys, &text(2 * round + 1)).await;
        let stood_in = [
            keep(&fleet.nodes[0], &keys).await,
            keep(&fleet.nodes[1], &keys).await,
        ];
        follow(&[0, 1, 2]).await;
        // What was written lately is removed there with the change.
        fleet.settled(cache).await;
        put_back(&fleet.nodes[2], &held).await;
        old += stale(cache, &keys, &text(2 * round + 1)).await;
        set_all(cache, &keys, &text(2 * round + 2)).await;
        let moved = |kept: &[(String, Vec<u8>)], node: usize| -> Vec<(String, Vec<u8>)> {
            let elsewhere = kept
                .iter()
                .filter(|(key, _)| fleet.node_of(cache, key) != node);
            elsewhere.cloned().collect()
        };
        put_back(&fleet.nodes[0], &moved(&stood_in[0], 0)).await;
        put_back(&fleet.nodes[1], &moved(&stood_in[1], 1)).await;
        old += stale(cache, &keys, &text(2 * round + 2)).await;
    }
    old
}

#[tokio::test]
async fn epochs_are_what_keeps_leftovers_out() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    assert_eq!(moves(&fleet, &cache, true).await, 0);
    assert!(cache.stats().refused(Refusal::Epoch) > 0);
    // The same without a meta: this is what they are for.
    let fleet = Fleet::bare(3).await;
    fleet.publish_like_python(&fleet.node_urls()).await;
    let cache = fleet.patient().await;
    fleet.publish_without_meta(&[0, 1, 2], &cache).await;
    let old = moves(&fleet, &cache, false).await;
    assert!(old > 20, "{old} old values without epochs");
    assert_eq!(cache.stats().refused(Refusal::Epoch), 0);
}

/// A key that node 2 owns in a map of three, and what it and the caches do while it moves away and back.
async fn with_a_leftover(check: impl AsyncFn(&DistributedRedis, &str)) {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    let all = keys(50);
    let key = all.iter().find(|key| fleet.node_of(&cache, key) == 2);
    let key = key.expect("node 2 has a key");
    cache.set(key, text(0), MINUTE).await.unwrap();
    let held = keep(&fleet.nodes[2], std::slice::from_ref(key)).await;
    fleet.publish(&[0, 1], &[&cache]).await;
    assert!(cache.add(key, text(1), MINUTE).await.unwrap());
    assert!(!cache.add(key, text(2), MINUTE).await.unwrap());
    assert!(cache.delete(key).await.unwrap());
    fleet.publish(&[0, 1, 2], &[&cache]).await;
    fleet.settled(&cache).await;
    put_back(&fleet.nodes[2], &held).await;
    check(&cache, key).await;
}

#[tokio::test]
async fn a_leftover_is_nothing_to_reads() {
    with_a_leftover(async |cache, key| {
        assert_eq!(cache.get::<String>(key).await.unwrap(), None);
        assert_eq!(cache.get_many::<String>(&[key]).await.unwrap(), [None]);
        assert!(!cache.has(key).await.unwrap());
        assert_eq!(cache.ttl(key).await.unwrap(), None);
        assert!(!cache.touch(key, MINUTE).await.unwrap());
        assert!(cache.stats().refused(Refusal::Epoch) >= 4);
        let told = cache.explain(key).await.unwrap();
        assert_eq!(told.why(), Some(Why::Refused(Refusal::Epoch)), "{told}");
        let computed = cache.get_or_set(key, MINUTE, || async { text(9) }).await;
        assert_eq!(computed.unwrap(), text(9));
        assert!(cache.has(key).await.unwrap());
        assert!(cache.ttl(key).await.unwrap().is_some());
        assert!(cache.touch(key, MINUTE).await.unwrap());
        assert_eq!(cache.get::<String>(key).await.unwrap(), Some(text(9)));
    })
    .await;
}

#[tokio::test]
async fn a_leftover_is_nothing_to_writes() {
    with_a_leftover(async |cache, key| {
        assert!(cache.add(key, text(5), MINUTE).await.unwrap());
        assert!(!cache.add(key, text(6), MINUTE).await.unwrap());
        assert_eq!(cache.get::<String>(key).await.unwrap(), Some(text(5)));
    })
    .await;
    with_a_leftover(async |cache, key| {
        assert_eq!(cache.incr(key, 3).await.unwrap(), 3);
        assert_eq!(cache.incr(key, 3).await.unwrap(), 6);
        cache.set(key, text(7), MINUTE).await.unwrap();
        let error = cache.incr(key, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotACounter);
    })
    .await;
}

/// What carries no epoch is nobody's leftover.
#[tokio::test]
async fn what_carries_no_epoch_is_read_as_before() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    let key = keys(50)
        .into_iter()
        .find(|key| fleet.node_of(&cache, key) == 2)
        .unwrap();
    fleet.publish(&[0, 1], &[&cache]).await;
    fleet.nodes[2].raw(0, &["SET", &key, "foreign"]).await;
    fleet.nodes[2].raw(0, &["LPUSH", "list", "x"]).await;
    fleet.publish(&[0, 1, 2], &[&cache]).await;
    assert_eq!(
        cache.get::<String>(&key).await.unwrap().as_deref(),
        Some("foreign")
    );
    assert!(cache.has(&key).await.unwrap());
    assert!(!cache.add(&key, text(1), MINUTE).await.unwrap());
    fleet.nodes[2].raw(0, &["SET", &key, ""]).await;
    assert!(cache.has(&key).await.unwrap());
    fleet.nodes[2].raw(0, &["DEL", &key]).await;
    fleet.nodes[2].raw(0, &["LPUSH", &key, "x"]).await;
    assert!(cache.has(&key).await.unwrap());
    assert_eq!(cache.stats().refused(Refusal::Epoch), 0);
}

/// Somebody who knows `HASH_RING_MAP` alone moves keys and moves them back: what was there before is too old.
#[tokio::test]
async fn an_edit_is_judged_too() {
    let fleet = Fleet::new(2).await;
    let cache = fleet.patient().await;
    let keys = keys(200);
    let original = fleet.manager.raw(13, &["HGETALL", "HASH_RING_MAP"]).await;
    set_all(&cache, &keys, &text(0)).await;
    let held = keep(&fleet.nodes[1], &keys).await;
    assert!(held.len() > 20);
    fleet.publish_without_meta(&[0], &cache).await;
    assert_eq!(cache.map_status().epoch, 0);
    set_all(&cache, &keys, &text(1)).await;
    // Taken back by hand, so that the digest fits again.
    let Value::Array(fields) = original else {
        panic!("no map")
    };
    let mut hset = vec!["HSET".to_owned(), "HASH_RING_MAP".to_owned()];
    for field in fields {
        let Value::BulkString(bytes) = field else {
            panic!("no field")
        };
        hset.push(String::from_utf8(bytes).unwrap());
    }
    let hset: Vec<&str> = hset.iter().map(String::as_str).collect();
    fleet.manager.raw(13, &["DEL", "HASH_RING_MAP"]).await;
    fleet.manager.raw(13, &hset).await;
    eventually(HEARD, "taken back", async || cache.map_status().epoch == 1).await;
    fleet.settled(&cache).await;
    put_back(&fleet.nodes[1], &held).await;
    assert_eq!(stale(&cache, &keys, &text(1)).await, 0);
    // What is written now is read, although nothing was published.
    set_all(&cache, &keys, &text(2)).await;
    let read = cache.get_many::<String>(&keys).await.unwrap();
    assert!(read.iter().all(|read| *read == Some(text(2))));
    // And the next publication remembers the edit.
    put_back(&fleet.nodes[1], &held).await;
    fleet.publish(&[0, 1], &[&cache]).await;
    assert_eq!(stale(&cache, &keys, &text(2)).await, 0);
    assert!(cache.stats().refused(Refusal::Epoch) > 20);
}

/// The manager is restarted from an older snapshot, or a replica takes over that missed the last publication.
#[tokio::test]
async fn an_epoch_that_goes_back_revives_nothing() {
    let fleet = Fleet::new(2).await;
    let cache = fleet.patient().await;
    let keys = keys(100);
    set_all(&cache, &keys, &text(0)).await;
    let held = keep(&fleet.nodes[1], &keys).await;
    let copy = async |from: &str, to: &str| {
        let script = "for _, name in ipairs({'MAP', 'META', 'HISTORY'}) do                       local saved = redis.call('DUMP', ARGV[1] .. name)                       redis.call('DEL', ARGV[2] .. name)                       redis.call('RESTORE', ARGV[2] .. name, 0, saved) end";
        fleet
            .manager
            .raw(13, &["EVAL", script, "0", from, to])
            .await;
    };
    copy("HASH_RING_", "saved_").await;
    fleet.publish(&[0], &[&cache]).await;
    set_all(&cache, &keys, &text(1)).await;
    copy("saved_", "HASH_RING_").await;
    let heard = async || cache.map_status().nodes.len() == 2;
    eventually(HEARD, "the older map is heard of", heard).await;
    assert_eq!(cache.map_status().epoch, 1);
    fleet.settled(&cache).await;
    put_back(&fleet.nodes[1], &held).await;
    assert_eq!(stale(&cache, &keys, &text(1)).await, 0);
    assert!(held.len() > 20 && cache.stats().refused(Refusal::Epoch) >= held.len() as u64);
    // What is written now is read, and the leftovers are forgotten with the next publications neither.
    set_all(&cache, &keys, &text(2)).await;
    let read = cache.get_many::<String>(&keys).await.unwrap();
    assert!(read.iter().all(|read| *read == Some(text(2))));
    for _ in 0..3 {
        fleet.publish(&[0, 1], &[&cache]).await;
    }
    put_back(&fleet.nodes[1], &held).await;
    assert_eq!(stale(&cache, &keys, &text(2)).await, 0);
}

/// An integer has no epoch, so what its node owes is all there is.
#[tokio::test]
async fn a_delete_that_failed_is_remembered_while_its_node_is_out_of_the_ring() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let keys = keys(50);
    let key = keys.iter().find(|key| fleet.node_of(&cache, key) == 2);
    let key = key.expect("node 2 has a key");
    assert_eq!(cache.incr(key, 5).await.unwrap(), 5);
    fleet.nodes[2].pause();
    cache.delete(key).await.unwrap_err();
    fleet.publish(&[0, 1], &[&cache]).await;
    let forgotten = async || cache.map_status().previous_maps == 0;
    eventually(HEARD, "the map before is let go", forgotten).await;
    fleet.nodes[2].resume();
    // The kernel still had it. As if it had not: the value is put back.
    let arrived = async || dump(&fleet.nodes[2], key).await == Value::Nil;
    eventually(HEARD, "the delete arrives", arrived).await;
    fleet.nodes[2].raw(0, &["SET", key, "5"]).await;
    fleet.publish(&[0, 1, 2], &[&cache]).await;
    let up = async || cache.map_status().nodes.iter().all(|node| node.up);
    eventually(HEARD, "all nodes are up", up).await;
    assert_eq!(cache.get::<i64>(key).await.unwrap(), None);
    assert_eq!(cache.incr(key, 1).await.unwrap(), 1);
}

/// A process that starts while the map is edited knows from the history which keys were moved.
#[tokio::test]
async fn who_starts_during_an_edit_judges_by_the_history() {
    let fleet = Fleet::new(2).await;
    let cache = fleet.patient().await;
    let keys = keys(100);
    fleet.publish(&[0], &[&cache]).await;
    set_all(&cache, &keys, &text(0)).await;
    let held = keep(&fleet.nodes[0], &keys).await;
    put_back(&fleet.nodes[1], &held).await;
    fleet.publish_without_meta(&[0, 1], &cache).await;
    let fresh = fleet.patient().await;
    let read = fresh.get_many::<String>(&keys).await.unwrap();
    for (key, read) in keys.iter().zip(read) {
        let moved = fleet.node_of(&fresh, key) == 1;
        assert_eq!(read.is_none(), moved, "{key}");
    }
}

/// One process is held on the old map: what another deletes and sets is gone from where the first one looks.
#[tokio::test]
async fn deletes_and_writes_reach_who_follows_the_map_before() {
    let fleet = Fleet::new(2).await;
    let new = fleet.patient().await;
    let old = fleet.deaf().await;
    let keys = keys(100);
    set_all(&old, &keys, &text(0)).await;
    let moved: Vec<&String> = keys
        .iter()
        .filter(|key| fleet.node_of(&new, key) == 1)
        .collect();
    fleet.publish(&[0], &[&new]).await;
    assert_eq!(new.map_status().previous_maps, 1);
    assert_eq!(old.map_status().epoch, 1);
    let (one, rest) = moved.split_first().expect("a key moved");
    let (two, rest) = rest.split_first().expect("another too");
    assert_eq!(old.get::<String>(one).await.unwrap(), Some(text(0)));
    new.delete(one).await.unwrap();
    assert_eq!(old.get::<String>(one).await.unwrap(), None);
    new.set(two, text(1), MINUTE).await.unwrap();
    assert_eq!(old.get::<String>(two).await.unwrap(), None);
    let (deleted, set) = rest.split_at(rest.len() / 2);
    new.delete_many(deleted).await.unwrap();
    let pairs = set.iter().map(|key| (key, text(1)));
    new.set_many(pairs, MINUTE).await.unwrap();
    let read = old.get_many::<String>(rest).await.unwrap();
    assert!(rest.len() > 10 && read.iter().all(Option::is_none));
    // An entry of an epoch that is not known yet is an entry, and a reason to look for the map.
    let stayed = keys.iter().find(|key| fleet.node_of(&old, key) == 0);
    let stayed = stayed.expect("a key stayed");
    new.set(stayed, text(3), MINUTE).await.unwrap();
    assert_eq!(old.get::<String>(stayed).await.unwrap(), Some(text(3)));
    let heard = async || old.map_status().epoch == 2;
    eventually(HEARD, "the map is looked for", heard).await;
}

#[tokio::test]
async fn a_former_owner_that_is_gone_fails_no_write() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let keys = keys(60);
    set_all(&cache, &keys, &text(0)).await;
    fleet.nodes[2].pause();
    fleet.publish(&[0, 1], &[&cache]).await;
    let began = Instant::now();
    for key in &keys[..6] {
        cache.set(key, text(1), MINUTE).await.unwrap();
        cache.delete(key).await.unwrap();
    }
    set_all(&cache, &keys, &text(2)).await;
    cache.delete_many(&keys).await.unwrap();
    // 250 ms each at most, and three in a row are the end of the connection.
    assert!(began.elapsed() < SECOND * 5, "{:?}", began.elapsed());
    fleet.nodes[2].resume();
}

#[tokio::test]
async fn connections_to_nodes_that_left_are_closed() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    fleet.publish(&[0, 1], &[&cache]).await;
    let listed = async || {
        let list = fleet.nodes[2].raw(0, &["CLIENT", "LIST"]).await;
        let Value::BulkString(list) = list else {
            panic!("no list")
        };
        String::from_utf8_lossy(&list).contains("name=larder ")
    };
    assert!(listed().await, "deletes are told to it for a while");
    eventually(SECOND * 4, "it is let go", async || !listed().await).await;
    assert_eq!(cache.map_status().previous_maps, 0);
}

#[tokio::test]
async fn earlier_maps_are_few_and_a_return_keeps_its_connection() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    for round in 0..8 {
        let nodes: &[usize] = if round % 2 == 0 { &[0, 1] } else { &[0, 1, 2] };
        fleet.publish(nodes, &[&cache]).await;
        assert!(cache.map_status().previous_maps <= 4);
    }
    let status = cache.map_status();
    assert!(status.nodes.iter().all(|node| node.reconnects == 0));
}

/// A store in a static, used by one test after the other, or a runtime that is entered now and then.
#[test]
fn a_runtime_that_nobody_drives_stops_no_following() {
    let idle = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let busy = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fleet = busy.block_on(Fleet::new(2));
    let cache = idle.block_on(fleet.connect());
    busy.block_on(async {
        fleet.publish(&[0], &[]).await;
        let heard = async || {
            let _ = cache.get::<u8>("k").await;
            cache.map_status().nodes.len() == 1
        };
        // A second until it is missed, and the manager's connection has to be missed too.
        eventually(SECOND * 12, "the map is heard of", heard).await;
        fleet.publish(&[0, 1], &[&cache]).await;
    });
    // Driven again, the first one leaves it to the other.
    idle.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
    busy.block_on(async { fleet.publish(&[1], &[&cache]).await });
}

/// A minute between two readings: what is heard of was pushed.
#[tokio::test]
async fn changes_are_pushed_by_a_manager_that_can() {
    let fleet = Fleet::new(2).await;
    let cache = fleet.reading_every(MINUTE).await;
    assert!(cache.map_status().pushes_heard);
    assert!(!fleet.deaf().await.map_status().pushes_heard);
    for (nodes, epoch) in [(&[0][..], 2), (&[0, 1], 3)] {
        fleet.publish(nodes, &[]).await;
        let heard = async || cache.map_status().epoch == epoch;
        eventually(SECOND, "a publication is pushed", heard).await;
    }
    fleet.publish_like_python(&fleet.node_urls()[..1]).await;
    let heard = async || cache.map_status().nodes.len() == 1;
    eventually(SECOND, "an edit is pushed", heard).await;
    assert_eq!(cache.map_status().refused, 0, "half an edit was never read");
    // What changed while nothing was heard is found when it is heard again.
    fleet.manager.kill();
    let deaf = async || !cache.map_status().pushes_heard;
    eventually(SECOND * 3, "the silence is noticed", deaf).await;
    fleet.manager.restart().await;
    fleet.publish(&[0, 1], &[]).await;
    let heard = async || cache.map_status().pushes_heard && cache.map_status().nodes.len() == 2;
    eventually(SECOND * 3, "the map is read again", heard).await;
}

#[tokio::test]
async fn two_rings_in_one_manager_do_not_disturb_each_other() {
    let fleet = Fleet::new(3).await;
    let (manager, urls) = (fleet.manager_url(), fleet.node_urls());
    let name = "HASH_RING_cart_MAP";
    let carts = Publication::of_nodes(&urls[2..], 40).in_map(name);
    assert_eq!(publish(&manager, &carts).await.unwrap(), 1);
    assert_eq!(publish(&manager, &carts).await.unwrap(), 2);
    let one = fleet.patient().await;
    let two = DistributedRedis::builder(&manager)
        .map_name(name)
        .poll_interval(Duration::from_millis(20))
        .connect()
        .await
        .unwrap();
    assert_eq!((one.map_status().epoch, two.map_status().epoch), (1, 2));
    assert_eq!(
        (one.ring().nodes().len(), two.ring().nodes()),
        (3, &urls[2..])
    );
    fleet.publish(&[0, 1], &[&one]).await;
    assert_eq!(two.map_status().epoch, 2);
    assert_eq!(two.map_status().changes, 1);
    let opened = format!("{}?map={name}", manager.replacen("redis:", "ring:", 1));
    let opened = larder::open(&opened).await.unwrap();
    opened.set("k", text(1), MINUTE).await.unwrap();
    assert_eq!(two.get::<String>("k").await.unwrap(), Some(text(1)));
    assert_eq!(one.get::<String>("k").await.unwrap(), None);
    let none = DistributedRedis::builder(&manager).map_name("HASH_RING_none_MAP");
    let error = none.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("HASH_RING_none_MAP"), "{error}");
}

#[tokio::test]
async fn unusable_names_of_maps_are_refused() {
    let fleet = Fleet::new(1).await;
    let (manager, urls) = (fleet.manager_url(), fleet.node_urls());
    let long = "x".repeat(1025);
    for name in ["", "a\nb", &long, "a_META", "HASH_RING_HISTORY", "a_NODES"] {
        let builder = DistributedRedis::builder(&manager).map_name(name);
        let error = builder.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let map = Publication::of_nodes(&urls, 4).in_map(name);
        let error = publish(&manager, &map).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

/// The manager's database is a node's too: a value must not take the map's place.
#[tokio::test]
async fn the_maps_own_keys_are_no_keys_of_its_ring() {
    let server = Server::start().await;
    let url = server.url(0);
    let map = Publication::of_nodes(&[&url], 8).in_map("cart");
    publish(&url, &map).await.unwrap();
    let builder = DistributedRedis::builder(&url).map_name("cart");
    let cache = builder.connect().await.unwrap();
    for key in ["cart", "cart_META", "cart_HISTORY"] {
        let errors = [
            cache.set(key, text(0), MINUTE).await.unwrap_err(),
            cache.get::<String>(key).await.unwrap_err(),
            cache.delete(key).await.unwrap_err(),
            cache.incr(key, 1).await.unwrap_err(),
            cache.touch(key, MINUTE).await.unwrap_err(),
            cache.has(key).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Key, "{error}");
        }
        cache.delete_many(&[key, "k"]).await.unwrap_err();
        let computed = cache.get_or_set(key, MINUTE, || async { text(1) }).await;
        assert_eq!(computed.unwrap(), text(1), "an application goes on");
    }
    assert_eq!(server.raw(0, &["DBSIZE"]).await, Value::Int(3));
    for key in ["cart:1", "cart_MAP", "HASH_RIN"] {
        cache.set(key, text(2), MINUTE).await.unwrap();
    }
    cache.shutdown().await;
    DistributedRedis::builder(&url)
        .map_name("cart")
        .connect()
        .await
        .unwrap();
}

/// The manager's database is a node's too, and the map's name is none that is reserved.
#[tokio::test]
async fn clear_leaves_the_map_alone_where_it_lives_beside_values() {
    let server = Server::start().await;
    let url = server.url(0);
    let map = Publication::of_nodes(&[&url], 8).in_map("cart");
    publish(&url, &map).await.unwrap();
    let builder = DistributedRedis::builder(&url).map_name("cart");
    let cache = builder.connect().await.unwrap();
    cache.set("k", text(0), MINUTE).await.unwrap();
    cache.clear().await.unwrap();
    assert!(!cache.has("k").await.unwrap());
    let kept = ["EXISTS", "cart", "cart_META", "cart_HISTORY"];
    assert_eq!(server.raw(0, &kept).await, Value::Int(3));
    // And the records of the namespaces.
    assert_eq!(server.raw(0, &["DBSIZE"]).await, Value::Int(4));
    // A store that knows nothing of it takes it away where it looks for values without marks, unless its name is reserved.
    let other = Redis::connect(&url).await.unwrap();
    other.incr("n", 1).await.unwrap();
    other.clear().await.unwrap();
    assert_eq!(server.raw(0, &["DBSIZE"]).await, Value::Int(1));
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Nodes leave and return at random while one cache writes and deletes, and nothing ever expires: a read answers the
/// last value written, or nothing.
#[tokio::test]
async fn random_changes_never_bring_back_an_old_value() {
    let seed = std::env::var("LARDER_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    println!("LARDER_SEED={seed}");
    let mut random = Random(seed);
    let fleet = Fleet::new(4).await;
    let cache = fleet.patient().await;
    let keys = keys(40);
    let mut model: HashMap<&str, usize> = HashMap::new();
    let (mut hits, mut reads) = (0, 0);
    for step in 0..1500 {
        if step % 30 == 29 {
            let mut nodes: Vec<usize> = (0..4).filter(|_| random.below(3) > 0).collect();
            if nodes.is_empty() {
                nodes.push(random.below(4));
            }
            fleet.publish(&nodes, &[&cache]).await;
        }
        let key = keys[random.below(keys.len())].as_str();
        match random.below(10) {
            0..3 => {
                let life = larder::Ttl::Forever;
                cache.set(key, text(step), life).await.unwrap();
                model.insert(key, step);
            }
            3 => {
                cache.delete(key).await.unwrap();
                model.remove(key);
            }
            4 => {
                let life = larder::Ttl::Forever;
                if cache.add(key, text(step), life).await.unwrap() {
                    model.insert(key, step);
                } else {
                    assert!(model.contains_key(key), "seed {seed}, step {step}: {key}");
                }
            }
            5 => {
                let there = cache.has(key).await.unwrap();
                assert!(
                    !there || model.contains_key(key),
                    "seed {seed}, step {step}: {key}"
                );
            }
            _ => {
                let read = cache.get::<String>(key).await.unwrap();
                reads += 1;
                if let Some(read) = read {
                    hits += 1;
                    let expected = model.get(key).map(|step| text(*step));
                    assert_eq!(Some(read), expected, "seed {seed}, step {step}: {key}");
                }
            }
        }
    }
    assert!(hits * 8 > reads, "{hits} hits of {reads} reads");
}

/// What writers did last with each key, told before and after: a read that overlaps a write may see either.
#[derive(Default)]
struct Written {
    /// For each key the least value that a read may answer from now on.
    floor: Vec<AtomicU64>,
}

/// Rows 36 to 38: a node comes and goes while others write, delete and read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_cost_the_moved_share_and_nothing_else() {
    let fleet = Fleet::new(4).await;
    let cache = fleet.patient().await;
    let keys = Arc::new(keys(64));
    let written = Arc::new(Written {
        floor: (0..keys.len()).map(|_| AtomicU64::new(0)).collect(),
    });
    let over = Arc::new(AtomicBool::new(false));
    let errors = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for writer in 0..4_usize {
        let (cache, keys, written) = (cache.clone(), Arc::clone(&keys), Arc::clone(&written));
        let (over, errors) = (Arc::clone(&over), Arc::clone(&errors));
        tasks.push(tokio::spawn(async move {
            let mut random = Random(writer as u64);
            let mut done = 0_u64;
            for version in 1.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // Each key has one writer, and any reader.
                let own = random.below(16) * 4 + writer;
                let stored = if random.below(5) == 0 {
                    cache.delete(&keys[own]).await.map(|_| ())
                } else {
                    let value = format!("{version}");
                    cache.set(&keys[own], value, MINUTE).await
                };
                if stored.is_ok() {
                    written.floor[own].fetch_max(version, Ordering::SeqCst);
                }
                let read = random.below(keys.len());
                let floor = written.floor[read].load(Ordering::SeqCst);
                let answer = cache.get::<String>(&keys[read]).await;
                let wrong = match (stored, answer) {
                    (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
                    (_, Ok(Some(value))) if value.parse::<u64>().unwrap() < floor => {
                        Some(format!("{value} where {floor} was written"))
                    }
                    _ => None,
                };
                done += 2;
                let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
                errors.extend(wrong);
            }
            done
        }));
    }
    let before: Vec<_> = keys_of_share(&cache);
    let began = Instant::now();
    let mut changes = 0;
    while began.elapsed() < SECOND * 4 {
        fleet.publish(&[0, 1, 2], &[&cache]).await;
        let after = keys_of_share(&cache);
        let gone = Some(label(&fleet.nodes[3].url(0)));
        let stayed = |(before, after): &(&Option<String>, &Option<String>)| before == after;
        for pair in before.iter().zip(&after) {
            assert_eq!(stayed(&pair), *pair.0 != gone, "{pair:?}");
        }
        let moved = before.iter().filter(|owner| **owner == gone).count();
        // A quarter, give or take what 40 positions a node scatter.
        assert!((200..900).contains(&moved), "{moved} of 2000 keys moved");
        tokio::time::sleep(Duration::from_millis(200)).await;
        fleet.publish(&[0, 1, 2, 3], &[&cache]).await;
        assert_eq!(keys_of_share(&cache), before);
        tokio::time::sleep(Duration::from_millis(200)).await;
        changes += 2;
    }
    over.store(true, Ordering::Relaxed);
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(
        errors.is_empty(),
        "{} of {done} operations: {:?}",
        errors.len(),
        errors.first()
    );
    assert!(
        done > 1000 && changes > 4,
        "{done} operations, {changes} changes"
    );
}

/// Row 36: a legacy manager rewrites the map by `DEL` and then `HMSET`, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_rewritten_under_load_is_never_found_missing() {
    let fleet = Fleet::bare(3).await;
    let urls = fleet.node_urls();
    fleet.publish_like_python(&urls).await;
    let cache = fleet.reading_every(Duration::from_millis(10)).await;
    let owners = keys_of_share(&cache);
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for task in 0..2 {
        let (cache, over) = (cache.clone(), Arc::clone(&over));
        tasks.push(tokio::spawn(async move {
            let mut done = 0_usize;
            while !over.load(Ordering::Relaxed) {
                let key = format!("key:{task}:{}", done % 50);
                cache.set(&key, text(done), MINUTE).await.unwrap();
                let read = cache.get::<String>(&key).await.unwrap();
                assert_eq!(read, Some(text(done)));
                done += 1;
            }
            done
        }));
    }
    let began = Instant::now();
    let mut rewrites = 0;
    while began.elapsed() < SECOND * 2 {
        fleet.publish_like_python(&urls).await;
        assert_eq!(keys_of_share(&cache), owners, "misrouted");
        rewrites += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        assert!(task.await.unwrap() > 50);
    }
    let status = cache.map_status();
    assert!(rewrites > 10, "{rewrites} rewrites");
    assert_eq!((status.refused, status.changes), (0, 1), "{status:?}");
}

#[tokio::test]
async fn of_publishers_that_race_over_one_epoch_one_wins() {
    let fleet = Fleet::bare(2).await;
    let (manager, urls) = (fleet.manager_url(), fleet.node_urls());
    for epoch in 0..10 {
        let map = Publication::of_nodes(&urls, 8).expecting_epoch(epoch);
        let racing = (0..4).map(|_| publish(&manager, &map));
        let answers = futures_util::future::join_all(racing).await;
        let won: Vec<u64> = answers
            .iter()
            .filter_map(|answer| answer.as_ref().ok().copied())
            .collect();
        let refused = |error: &larder::Error| error.kind() == ErrorKind::Rejected;
        assert!(answers.iter().flat_map(|a| a.as_ref().err()).all(refused));
        assert_eq!(won, [epoch + 1]);
    }
    let kept = fleet.manager.raw(13, &["HLEN", "HASH_RING_HISTORY"]).await;
    assert_eq!(kept, Value::Int(10));
}

fn keys_of_share(cache: &DistributedRedis) -> Vec<Option<String>> {
    (0..2000)
        .map(|i| cache.node_for(&format!("share:{i}")))
        .collect()
}
