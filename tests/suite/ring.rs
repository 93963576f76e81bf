//! The store over a ring of real servers, and its map.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use larder::ring::{Order, Publication, publish};
use larder::{Cache, DistributedRedis, ErrorKind, Moka, Tiered};
use redis::Value;

use crate::fleet::{Fleet, eventually};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("key:{i}")).collect()
}

#[tokio::test]
async fn each_key_lives_on_the_node_that_the_map_says() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let mut used = HashSet::new();
    for key in keys(60) {
        cache.set(&key, 1_u64, MINUTE).await.unwrap();
        let owner = fleet.owner(&cache, &key);
        used.insert(owner.port());
        assert_eq!(
            owner.raw(0, &["GET", &key]).await,
            Value::BulkString(b"1".into())
        );
    }
    assert_eq!(used.len(), 3);
    let status = cache.map_status();
    assert_eq!(
        (status.epoch, status.positions, status.nodes.len()),
        (1, 120, 3)
    );
}

#[tokio::test]
async fn many_keys_are_one_command_to_each_node() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let keys = keys(100);
    cache
        .set_many(keys.iter().map(|key| (key, 7_u64)), MINUTE)
        .await
        .unwrap();
    for node in &fleet.nodes {
        node.raw(0, &["CONFIG", "RESETSTAT"]).await;
    }
    let values = cache.get_many::<u64>(&keys).await.unwrap();
    assert!(values.iter().all(|value| *value == Some(7)));
    for node in &fleet.nodes {
        let Value::BulkString(info) = node.raw(0, &["INFO", "commandstats"]).await else {
            panic!("no info")
        };
        let info = String::from_utf8_lossy(&info).into_owned();
        assert!(info.contains("cmdstat_mget:calls=1,"), "{info}");
        assert!(!info.contains("cmdstat_get:"), "{info}");
    }
    assert_eq!(cache.delete_many(&keys).await.unwrap(), 100);
}

#[tokio::test]
async fn a_dead_node_is_its_share_of_misses() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let keys = keys(90);
    cache
        .set_many(keys.iter().map(|key| (key, 1_u64)), MINUTE)
        .await
        .unwrap();
    let dead = fleet.owner(&cache, &keys[0]).port();
    let lost: Vec<bool> = keys
        .iter()
        .map(|key| fleet.owner(&cache, key).port() == dead)
        .collect();
    fleet
        .nodes
        .iter()
        .find(|node| node.port() == dead)
        .unwrap()
        .kill();
    let down = async || cache.get::<u64>(&keys[0]).await.is_err();
    eventually(SECOND, "the node is known to be down", down).await;
    let values = cache.get_many::<u64>(&keys).await.unwrap();
    for ((key, value), lost) in keys.iter().zip(&values).zip(&lost) {
        assert_eq!(value.is_none(), *lost, "{key}");
    }
    let error = cache.delete_many(&keys).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Partial);
    let count = lost.iter().filter(|lost| **lost).count();
    assert!(
        error
            .context()
            .any(|c| c == ("failed", count.to_string().as_str())),
        "{error}"
    );
    assert_eq!(cache.clear().await.unwrap_err().kind(), ErrorKind::Partial);
    let computed = cache
        .get_or_set(&keys[0], MINUTE, || async { 9_u64 })
        .await
        .unwrap();
    assert_eq!(computed, 9);
}

#[tokio::test]
async fn nodes_come_and_go_within_a_second() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let urls = fleet.node_urls();
    let gone = fleet.nodes[2].port();
    publish(&fleet.manager_url(), &Publication::of_nodes(&urls[..2], 40))
        .await
        .unwrap();
    let left = async || cache.map_status().nodes.len() == 2;
    let heard = eventually(SECOND, "the change is heard of", left).await;
    assert!(heard < SECOND);
    assert!(
        keys(100)
            .iter()
            .all(|key| fleet.owner(&cache, key).port() != gone)
    );
    // Nobody is connected to the node that left.
    let alone = async || {
        let Value::BulkString(list) = fleet.nodes[2].raw(0, &["CLIENT", "LIST"]).await else {
            return false;
        };
        !String::from_utf8_lossy(&list).contains("name=larder ")
    };
    eventually(SECOND * 4, "its connection is closed", alone).await;
    assert_eq!(cache.map_status().epoch, 2);
}

#[tokio::test]
async fn an_emptied_map_never_replaces_a_good_one() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let before: Vec<_> = keys(200).iter().map(|key| cache.node_for(key)).collect();
    fleet.manager.raw(13, &["DEL", "HASH_RING_MAP"]).await;
    eventually(SECOND, "refused", async || cache.map_status().refused > 0).await;
    assert_eq!(cache.map_status().nodes.len(), 3);
    assert!(cache.map_status().last_error.is_some());
    let after: Vec<_> = keys(200).iter().map(|key| cache.node_for(key)).collect();
    assert_eq!(before, after, "misrouted keys");
    cache.set("k", 1_u64, MINUTE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_rewritten_as_the_python_server_does_is_never_seen_empty() {
    let fleet = Fleet::bare(3).await;
    let urls = fleet.node_urls();
    fleet.publish_like_python(&urls).await;
    let cache = DistributedRedis::builder(&fleet.manager_url())
        .poll_interval(Duration::from_millis(10))
        .connect()
        .await
        .unwrap();
    let began = Instant::now();
    let mut looked = 0;
    while began.elapsed() < Duration::from_secs(2) {
        fleet.publish_like_python(&urls[..2 + looked % 2]).await;
        for key in keys(20) {
            assert!(cache.node_for(&key).is_some());
        }
        cache
            .get_or_set("k", MINUTE, || async { 1_u64 })
            .await
            .unwrap();
        assert!(cache.map_status().nodes.len() >= 2);
        looked += 1;
    }
    assert!(looked > 50, "{looked} rewrites");
    // What never stands still is not followed; once it does, it is.
    for nodes in [2, 3] {
        fleet.publish_like_python(&urls[..nodes]).await;
        let followed = async || cache.map_status().nodes.len() == nodes;
        eventually(MINUTE, "the map that stands is followed", followed).await;
    }
    assert_eq!(cache.stats().read_errors, 0);
}

#[tokio::test]
async fn garbage_is_refused_and_a_bad_url_is_a_node_that_is_down() {
    let fleet = Fleet::bare(2).await;
    fleet.publish_like_python(&fleet.node_urls()).await;
    let cache = fleet.connect().await;
    let before: Vec<_> = keys(300).iter().map(|key| cache.node_for(key)).collect();
    for garbage in ["abc", "-1", "4294967296", " 7"] {
        let refused = cache.map_status().refused;
        fleet
            .manager
            .raw(
                13,
                &["HSET", "HASH_RING_MAP", garbage, "redis://127.0.0.1:1/0"],
            )
            .await;
        eventually(SECOND, garbage, async || {
            cache.map_status().refused > refused
        })
        .await;
        assert_eq!(
            keys(300)
                .iter()
                .map(|key| cache.node_for(key))
                .collect::<Vec<_>>(),
            before
        );
        fleet
            .manager
            .raw(13, &["HDEL", "HASH_RING_MAP", garbage])
            .await;
        eventually(SECOND, "good again", async || {
            cache.map_status().last_error.is_none()
        })
        .await;
    }
    // One of the positions goes to a url that is none: only its keys are out of reach.
    let position = cache.ring().iter().next().unwrap().0.to_string();
    fleet
        .manager
        .raw(
            13,
            &[
                "HSET",
                "HASH_RING_MAP",
                &position,
                "http://:canary-map@nowhere",
            ],
        )
        .await;
    eventually(SECOND, "taken over", async || {
        cache.map_status().nodes.len() == 3
    })
    .await;
    let mut moved = 0;
    for (key, before) in keys(300).iter().zip(&before) {
        let now = cache.node_for(key);
        if now == *before {
            cache.set(key, 1_u8, MINUTE).await.unwrap();
        } else {
            moved += 1;
            assert_eq!(
                cache.get::<u8>(key).await.unwrap_err().kind(),
                ErrorKind::Unavailable
            );
        }
    }
    assert!(moved < 150, "{moved} keys moved");
    assert!(!format!("{cache:?} {:?}", cache.map_status()).contains("canary"));
}

#[tokio::test]
async fn an_absurdly_large_map_is_refused() {
    let fleet = Fleet::new(2).await;
    let cache = DistributedRedis::builder(&fleet.manager_url())
        .poll_interval(Duration::from_millis(20))
        .max_map_fields(200)
        .connect()
        .await
        .unwrap();
    // A million fields, a thousand at a time: one script for all would keep the server for longer than a client waits.
    let script = "local t = {} \
                  for j = 1, 1000 do t[j * 2 - 1] = ARGV[1] * 1000 + j t[j * 2] = 'u' end \
                  redis.call('HSET', 'HASH_RING_MAP', unpack(t))";
    for thousand in 1..=1000 {
        let thousand = thousand.to_string();
        fleet
            .manager
            .raw(13, &["EVAL", script, "0", &thousand])
            .await;
    }
    eventually(SECOND * 5, "refused", async || {
        cache.map_status().refused > 0
    })
    .await;
    assert_eq!(cache.map_status().positions, 80);
}

#[tokio::test]
async fn a_map_of_too_many_nodes_or_endless_urls_is_refused() {
    let fleet = Fleet::new(2).await;
    let builder = || {
        DistributedRedis::builder(&fleet.manager_url())
            .poll_interval(Duration::from_millis(20))
            .max_nodes(2)
    };
    let cache = builder().connect().await.unwrap();
    let whole = DistributedRedis::builder(&fleet.manager_url());
    let whole = whole.connect().await.unwrap();
    let long = format!("redis://{}:1/0", "x".repeat(1024));
    for (url, why) in [
        ("redis://127.0.0.1:1/0", "too many nodes"),
        (&long, "too long"),
    ] {
        let refused = cache.map_status().refused;
        let hset = ["HSET", "HASH_RING_MAP", "7", url];
        fleet.manager.raw(13, &hset).await;
        let told = async || cache.map_status().refused > refused;
        eventually(SECOND * 5, why, told).await;
        let told = async || {
            cache
                .map_status()
                .last_error
                .is_some_and(|e| e.contains(why))
        };
        eventually(SECOND * 5, why, told).await;
        assert_eq!(cache.map_status().nodes.len(), 2);
        let error = builder().connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    // Three nodes are few, a long url is none for anybody.
    eventually(SECOND * 5, "both read", async || {
        let status = whole.map_status();
        status.nodes.len() == 3 && status.last_error.is_some_and(|e| e.contains("too long"))
    })
    .await;
}

/// Whatever else stands in the meta is not read.
#[tokio::test]
async fn a_large_meta_is_nobodys_load() {
    let fleet = Fleet::new(1).await;
    let script = "redis.call('HSET', 'HASH_RING_META', 'junk', string.rep('x', 5000000))";
    fleet.manager.raw(13, &["EVAL", script, "0"]).await;
    let cache = fleet.connect().await;
    assert_eq!(cache.map_status().epoch, 1);
    let read = fleet.manager.raw(13, &["INFO", "commandstats"]).await;
    let Value::BulkString(read) = read else {
        panic!("no info")
    };
    assert!(String::from_utf8_lossy(&read).contains("cmdstat_hmget"));
}

#[tokio::test]
async fn without_a_manager_at_the_start() {
    let fleet = Fleet::new(2).await;
    let url = fleet.manager_url();
    let file = std::env::temp_dir().join(format!("larder-map-{}.json", fleet.manager.port()));
    let saving = DistributedRedis::builder(&url)
        .snapshot(&file)
        .connect()
        .await
        .unwrap();
    saving.set("k", 5_u64, MINUTE).await.unwrap();
    eventually(SECOND, "saved", async || file.exists()).await;
    fleet.manager.kill();
    // The one that has a map goes on.
    assert_eq!(saving.get::<u64>("k").await.unwrap(), Some(5));

    let began = Instant::now();
    let error = DistributedRedis::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let restored = DistributedRedis::builder(&url)
        .snapshot(&file)
        .connect()
        .await
        .unwrap();
    assert_eq!(restored.get::<u64>("k").await.unwrap(), Some(5));
    let without = DistributedRedis::builder(&url)
        .start_without_map(true)
        .poll_interval(Duration::from_millis(20))
        .connect()
        .await
        .unwrap();
    assert!(began.elapsed() < SECOND * 2, "{:?}", began.elapsed());
    assert_eq!(
        without
            .get_or_set("k", MINUTE, || async { 1_u64 })
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        without.get::<u64>("k").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        without.clear().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );

    // It comes back, and the one without a map finds its way.
    fleet.manager.restart().await;
    publish(&url, &Publication::of_nodes(&fleet.node_urls(), 40))
        .await
        .unwrap();
    eventually(SECOND * 3, "a map at last", async || {
        without.get::<u64>("k").await.is_ok()
    })
    .await;
    assert_eq!(without.get::<u64>("k").await.unwrap(), Some(5));
    std::fs::remove_file(file).unwrap();
}

/// A pipe that nobody writes into, as a mount that hangs.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_hangs_is_waited_for_no_longer_than_a_moment() {
    let fleet = Fleet::bare(1).await;
    let url = fleet.manager_url();
    let file = std::env::temp_dir().join(format!("larder-pipe-{}", fleet.manager.port()));
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.expect("mkfifo").success());
    let builder = || DistributedRedis::builder(&url).snapshot(&file);
    let began = Instant::now();
    let error = builder().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let without = builder().start_without_map(true).connect().await.unwrap();
    assert!(began.elapsed() < SECOND * 4, "{:?}", began.elapsed());
    // Writing takes its place by a file.
    publish(&url, &Publication::of_nodes(&fleet.node_urls(), 40))
        .await
        .unwrap();
    let saved = async || without.map_status().epoch == 1 && file.metadata().unwrap().is_file();
    eventually(SECOND * 3, "saved", saved).await;
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn garbage_at_the_start_is_no_reason_to_forget_the_file() {
    let fleet = Fleet::new(2).await;
    let url = fleet.manager_url();
    let file = std::env::temp_dir().join(format!("larder-spoilt-{}.json", fleet.manager.port()));
    let builder = || DistributedRedis::builder(&url).snapshot(&file);
    let saving = builder().connect().await.unwrap();
    saving.set("k", 5_u64, MINUTE).await.unwrap();
    eventually(SECOND, "saved", async || file.exists()).await;
    let garbage = ["HSET", "HASH_RING_MAP", "abc", "redis://127.0.0.1:1/0"];
    fleet.manager.raw(13, &garbage).await;
    let error = DistributedRedis::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let restored = builder().connect().await.unwrap();
    assert_eq!(restored.get::<u64>("k").await.unwrap(), Some(5));
    assert!(restored.map_status().last_error.is_some());
    // A choice that contradicts the map is not what the file is for.
    fleet
        .manager
        .raw(13, &["HDEL", "HASH_RING_MAP", "abc"])
        .await;
    let error = builder().order(Order::Lexicographic).connect().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn without_a_map_connecting_errs() {
    let fleet = Fleet::bare(1).await;
    let error = DistributedRedis::connect(&fleet.manager_url())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("HASH_RING_MAP"), "{error}");
}

#[tokio::test]
async fn the_order_is_what_the_map_says_or_the_caller() {
    let fleet = Fleet::bare(3).await;
    let url = fleet.manager_url();
    fleet.publish_like_python(&fleet.node_urls()).await;
    let with = |order| DistributedRedis::builder(&url).order(order).connect();
    assert_eq!(
        with(Order::Auto).await.unwrap().map_status().order,
        Order::Numeric
    );
    assert_eq!(
        with(Order::Numeric).await.unwrap().map_status().order,
        Order::Numeric
    );
    assert_eq!(
        with(Order::Lexicographic).await.unwrap().map_status().order,
        Order::Lexicographic
    );
    fleet
        .manager
        .raw(13, &["HSET", "HASH_RING_META", "lookup", "lex"])
        .await;
    assert_eq!(
        with(Order::Auto).await.unwrap().map_status().order,
        Order::Lexicographic
    );
    assert_eq!(
        with(Order::Numeric).await.unwrap_err().kind(),
        ErrorKind::Config
    );
    publish(&url, &Publication::of_nodes(&fleet.node_urls(), 5))
        .await
        .unwrap();
    assert_eq!(
        with(Order::Auto).await.unwrap().map_status().order,
        Order::Numeric
    );
    assert_eq!(
        with(Order::Lexicographic).await.unwrap_err().kind(),
        ErrorKind::Config
    );
}

#[tokio::test]
async fn publishing_is_refused_over_another_epoch_and_keeps_sixteen_maps() {
    let fleet = Fleet::bare(2).await;
    let (url, urls) = (fleet.manager_url(), fleet.node_urls());
    let map = || Publication::of_nodes(&urls, 40);
    assert_eq!(publish(&url, &map().expecting_epoch(0)).await.unwrap(), 1);
    let stale = publish(&url, &map().expecting_epoch(0)).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Rejected);
    for epoch in 2..=20 {
        assert_eq!(publish(&url, &map()).await.unwrap(), epoch);
    }
    assert_eq!(
        fleet.manager.raw(13, &["HLEN", "HASH_RING_HISTORY"]).await,
        Value::Int(16)
    );
    assert_eq!(
        fleet
            .manager
            .raw(13, &["HGET", "HASH_RING_META", "epoch"])
            .await,
        Value::BulkString(b"20".into())
    );
    let Value::BulkString(history) = fleet
        .manager
        .raw(13, &["HGET", "HASH_RING_HISTORY", "20"])
        .await
    else {
        panic!()
    };
    let history = String::from_utf8(history).unwrap();
    assert!(
        history.contains(&format!("127.0.0.1:{}/0", fleet.nodes[0].port())),
        "{history}"
    );
    assert!(
        !history.contains("redis://"),
        "a label, not a url: {history}"
    );
    let nothing: [&str; 0] = [];
    assert_eq!(
        publish(&url, &Publication::of_nodes(&nothing, 40))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Config
    );
    let bad = Publication::of_positions([(1, "http://:canary-publish@x".to_owned())]);
    let error = publish(&url, &bad).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && !format!("{error:?}").contains("canary"),
        "{error:?}"
    );
}

/// Nothing is removed for a publication that cannot be counted.
#[tokio::test]
async fn publishing_over_what_is_no_map_is_refused_and_changes_nothing() {
    let fleet = Fleet::bare(2).await;
    let (url, urls) = (fleet.manager_url(), fleet.node_urls());
    let map = || Publication::of_nodes(&urls, 40);
    publish(&url, &map()).await.unwrap();
    let raw = async |command: &[&str]| fleet.manager.raw(13, command).await;
    let before = raw(&["HGETALL", "HASH_RING_MAP"]).await;
    for epoch in [
        "abc",
        "-1",
        "1.5",
        "1e3",
        "",
        "9007199254740992",
        "99999999999999999999",
    ] {
        raw(&["HSET", "HASH_RING_META", "epoch", epoch]).await;
        for map in [map(), map().expecting_epoch(1)] {
            let error = publish(&url, &map).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{epoch}: {error}");
            assert!(error.to_string().contains("HASH_RING_META"), "{error}");
        }
    }
    raw(&["HSET", "HASH_RING_META", "epoch", "1"]).await;
    raw(&["RENAME", "HASH_RING_HISTORY", "kept"]).await;
    raw(&["LPUSH", "HASH_RING_HISTORY", "x"]).await;
    let error = publish(&url, &map()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("HASH_RING_HISTORY"), "{error}");
    assert_eq!(raw(&["HGETALL", "HASH_RING_MAP"]).await, before);
    raw(&["RENAME", "kept", "HASH_RING_HISTORY"]).await;
    assert_eq!(publish(&url, &map()).await.unwrap(), 2);
    let list = map().in_map("list");
    raw(&["LPUSH", "list", "x"]).await;
    let error = publish(&url, &list).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    // What readers refuse is repaired.
    raw(&["HSET", "HASH_RING_META", "lookup", "backwards"]).await;
    assert_eq!(publish(&url, &map()).await.unwrap(), 4);
    raw(&["HSET", "HASH_RING_MAP", "abc", "redis://h:1/0"]).await;
    assert_eq!(publish(&url, &map()).await.unwrap(), 6);
    assert_eq!(publish(&url, &map()).await.unwrap(), 7);
}

#[tokio::test]
async fn publishers_that_expect_nothing_all_publish() {
    let fleet = Fleet::bare(2).await;
    let (url, map) = (
        fleet.manager_url(),
        Publication::of_nodes(&fleet.node_urls(), 8),
    );
    let racing = (0..8).map(|_| publish(&url, &map));
    let epochs = futures_util::future::join_all(racing).await;
    let mut epochs: Vec<u64> = epochs.into_iter().map(Result::unwrap).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Somebody who does not know the meta moves keys away and a publication moves them back: who starts then knows
/// nothing of the time between.
#[tokio::test]
async fn an_edit_leaves_a_trace_in_the_epochs() {
    let fleet = Fleet::bare(2).await;
    let (url, urls) = (fleet.manager_url(), fleet.node_urls());
    let map = || Publication::of_nodes(&urls, 40);
    publish(&url, &map()).await.unwrap();
    let cache = fleet.connect().await;
    let keys = keys(100);
    let value = |text: &'static str| keys.iter().map(move |key| (key, text.to_owned()));
    cache.set_many(value("old"), MINUTE).await.unwrap();
    cache.shutdown().await;
    fleet.publish_like_python(&urls[..1]).await;
    let during = fleet.connect().await;
    during.set_many(value("new"), MINUTE).await.unwrap();
    during.shutdown().await;
    assert_eq!(publish(&url, &map().expecting_epoch(1)).await.unwrap(), 3);
    let fresh = fleet.connect().await;
    let read = fresh.get_many::<String>(&keys).await.unwrap();
    let old = read.iter().flatten().filter(|value| *value == "old");
    assert_eq!(old.count(), 0);
    assert!(read.iter().any(Option::is_none), "keys of node 1");
    assert_eq!(publish(&url, &map()).await.unwrap(), 4);
}

#[tokio::test]
async fn a_map_edited_by_somebody_else_has_no_epoch() {
    let fleet = Fleet::new(2).await;
    let cache = fleet.connect().await;
    assert_eq!(cache.map_status().epoch, 1);
    let position = cache.ring().iter().next().unwrap().0.to_string();
    fleet
        .manager
        .raw(
            13,
            &[
                "HDEL",
                "HASH_RING_MAP",
                &position,
                &format!("{position:0>10}"),
            ],
        )
        .await;
    eventually(SECOND, "taken over", async || {
        cache.map_status().positions == 79
    })
    .await;
    assert_eq!(cache.map_status().epoch, 0);
}

/// The main job: memory before the ring, one compute, a foreign process's write seen after its own miss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_in_front_of_the_ring_does_its_main_job() {
    let fleet = Fleet::new(3).await;
    let cache = Tiered::new(Moka::new(1000), fleet.connect().await);
    let value = cache
        .get_or_set("user:42", MINUTE, || async { "Ada".to_owned() })
        .await
        .unwrap();
    assert_eq!(value, "Ada");
    let again = cache
        .get_or_set("user:42", MINUTE, || async { "somebody else".to_owned() })
        .await;
    assert_eq!(again.unwrap(), "Ada");
    // The nodes tell of the write of the computed value too, which may be one more read of theirs.
    eventually(SECOND, "a hit in memory", async || {
        let value = cache.get::<String>("user:42").await.unwrap();
        assert_eq!(value.as_deref(), Some("Ada"));
        cache.stats().memory_hits >= 1
    })
    .await;
    let other = Tiered::new(Moka::new(1000), fleet.connect().await);
    assert_eq!(
        other.get::<String>("user:42").await.unwrap().as_deref(),
        Some("Ada")
    );
    eventually(SECOND, "a hit in memory", async || {
        let value = other.get::<String>("user:42").await.unwrap();
        assert_eq!(value.as_deref(), Some("Ada"));
        other.stats().memory_hits >= 1
    })
    .await;
    cache.delete("user:42").await.unwrap();
    assert_eq!(cache.get::<String>("user:42").await.unwrap(), None);
}

#[tokio::test]
async fn dropping_the_last_clone_ends_all_tasks() {
    let fleet = Fleet::new(2).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let cache = fleet.connect().await;
    cache.set("k", 1_u8, MINUTE).await.unwrap();
    assert!(tasks() > before);
    drop(cache);
    eventually(SECOND, "no tasks", async || tasks() <= before).await;
    let cache = fleet.connect().await;
    cache.shutdown().await;
    eventually(SECOND, "no tasks", async || tasks() <= before).await;
    assert_eq!(
        cache.get::<u8>("k").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}
