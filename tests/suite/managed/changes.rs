//! Nodes that are added, removed and emptied, by people.

use std::collections::HashMap;
use std::time::Duration;

use larder::manager::Labels;
use larder::ring::{Order, Publication, Ring, publish, python_positions};
use larder::{Cache, DistributedRedis};
use redis::Value as Reply;
use serde_json::{Value, json};

use super::{Managed, SECOND, label, quick};
use crate::fleet::{Fleet, eventually};
use crate::python::node_by_sdk;

async fn map_of(fleet: &Fleet) -> HashMap<String, String> {
    let map = fleet.manager.raw(13, &["HGETALL", "HASH_RING_MAP"]).await;
    redis::from_redis_value(map).unwrap()
}

async fn meta(fleet: &Fleet, field: &str) -> String {
    match fleet
        .manager
        .raw(13, &["HGET", "HASH_RING_META", field])
        .await
    {
        Reply::BulkString(text) => String::from_utf8(text).unwrap(),
        _ => String::new(),
    }
}

async fn add_all(managed: &Managed, fleet: &Fleet) {
    for url in fleet.node_urls() {
        let answer = managed.post("/api/v1/nodes", &json!({ "url": url })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_ring_is_made_and_followed() {
    let fleet = Fleet::bare(4).await;
    let managed = Managed::start(quick(&fleet)).await;
    assert_eq!(managed.nodes().await, Vec::<Value>::new());
    add_all(&managed, &fleet).await;
    let nodes = managed.nodes().await;
    assert_eq!(nodes.len(), 4);
    for node in &nodes {
        assert_eq!(node["state"], "up");
        let share = node["share"].as_f64().unwrap();
        assert!((share - 0.25).abs() < 0.01, "{node}");
    }
    let ring = managed.get("/api/v1/ring").await.json();
    assert_eq!(
        (&ring["labels"], &ring["vnodes"], &ring["lookup"]),
        (&json!("balanced"), &json!(160), &json!("numeric"))
    );
    assert!(ring["imbalance"].as_f64().unwrap() < 1.1, "{ring}");
    assert_eq!(meta(&fleet, "epoch").await, "4");

    let cache = fleet.connect().await;
    let map = map_of(&fleet).await;
    for i in 0..1000_u64 {
        let key = format!("key:{i}");
        let node = larder::ring::label(&node_by_sdk(&map, &key));
        assert_eq!(cache.node_for(&key).unwrap(), node, "{key}");
    }
    let at = managed.get("/api/v1/ring/where?key=key%3A7").await.json();
    assert_eq!(at["node"], json!(cache.node_for("key:7")));

    let metrics = managed.get("/metrics").await.text;
    for line in [
        "larder_manager_leads 1",
        "larder_manager_frozen 0",
        "larder_ring_epoch 4",
        "larder_ring_nodes{state=\"up\"} 4",
        &format!("larder_node_failing{{node=\"{}\"}} 0", label(&fleet, 3)),
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line}: {metrics}"
        );
    }
    // What is previewed is what is done.
    let preview = managed
        .post(
            "/api/v1/ring/preview",
            &json!({ "remove": { "node": label(&fleet, 2) } }),
        )
        .await;
    let preview = preview.json();
    let path = format!("/api/v1/nodes?node={}", label(&fleet, 2));
    let removed = managed.ask("DELETE", &path, &[], "").await.json();
    assert_eq!(removed["moves"], preview["moves"]);
    assert!((removed["moved"].as_f64().unwrap() - 0.25).abs() < 0.01);
    assert!(
        removed["moves"]
            .as_array()
            .unwrap()
            .iter()
            .all(|moved| moved["from"] == label(&fleet, 2))
    );
    let follows = async || cache.map_status().nodes.len() == 3;
    eventually(SECOND, "the ring is followed", follows).await;
    assert_eq!(managed.ask("DELETE", &path, &[], "").await.status, 404);

    let kinds: Vec<String> = managed
        .events()
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, ["removed", "added", "added", "added", "added"]);
    managed.end().await;
    let lease = fleet.manager.raw(13, &["EXISTS", "HASH_RING_LEASE"]).await;
    assert_eq!(lease, Reply::Int(0), "it is given up");
}

#[tokio::test]
async fn what_cannot_be_added_is_refused() {
    let fleet = Fleet::bare(2).await;
    let managed = Managed::start(quick(&fleet)).await;
    let urls = fleet.node_urls();
    for (body, status) in [
        (json!({ "url": "redis://:hidden@127.0.0.1:1/0" }), 502),
        (json!({ "url": "http://127.0.0.1:1/0" }), 400),
        (json!({ "url": "redis://:hid@127.0.0.1:x" }), 400),
        (json!({ "url": 5 }), 400),
        (json!({ "host": "hidden" }), 400),
        (json!([]), 400),
    ] {
        let answer = managed.post("/api/v1/nodes", &body).await;
        assert_eq!(answer.status, status, "{body} {answer:?}");
        assert!(!answer.text.contains("hid"), "{answer:?}");
    }
    assert_eq!(
        managed
            .post("/api/v1/nodes", &json!({ "url": urls[0] }))
            .await
            .status,
        200
    );
    let path = format!("/api/v1/nodes?node={}", label(&fleet, 0));
    let last = managed.ask("DELETE", &path, &[], "").await;
    assert_eq!(last.status, 400, "{last:?}");
    assert_eq!(
        managed
            .ask("DELETE", &format!("{path}&last=true"), &[], "")
            .await
            .status,
        200
    );
    assert!(map_of(&fleet).await.is_empty());
    // And a ring again.
    assert_eq!(
        managed
            .post("/api/v1/nodes", &json!({ "url": urls[1] }))
            .await
            .status,
        200
    );
    assert_eq!(
        map_of(&fleet).await.len() as i64,
        managed.get("/api/v1/ring").await.json()["fields"]
            .as_i64()
            .unwrap()
    );
}

/// A map of the Python server is taken over with its positions; and its own map is to be had to the byte.
#[tokio::test]
async fn a_python_servers_map_is_taken_over() {
    let fleet = Fleet::bare(4).await;
    let urls = fleet.node_urls();
    fleet.publish_like_python(&urls[..3]).await;
    let before = map_of(&fleet).await;
    // What is set is for a ring that is new, and moves nothing of this one.
    let mut config = quick(&fleet);
    config.labels = Some(Labels::Xxh3);
    config.vnodes = Some(40);
    let managed = Managed::start(config).await;
    let taken = async || meta(&fleet, "epoch").await == "1";
    eventually(5 * SECOND, "it is taken over", taken).await;
    let ring = managed.get("/api/v1/ring").await.json();
    assert_eq!(
        (&ring["positions"], &ring["vnodes"]),
        (&json!(15), &json!(5))
    );
    let after = map_of(&fleet).await;
    for (field, url) in &before {
        assert_eq!(after.get(field), Some(url));
        // And so written that the SDK finds the same.
        if field.len() < 10 {
            assert_eq!(after.get(&format!("{field:0>10}")), Some(url));
        }
    }
    assert_eq!(
        managed.events().await,
        [("taken_over".to_owned(), String::new())]
    );
    assert_eq!(
        managed
            .post("/api/v1/nodes", &json!({ "url": urls[3] }))
            .await
            .status,
        200
    );
    let map = map_of(&fleet).await;
    let fourth: Vec<_> = map.iter().filter(|(_, url)| **url == urls[3]).collect();
    assert!(fourth.len() >= 5, "{fourth:?}");
    for (field, url) in &before {
        assert_eq!(map.get(field), Some(url), "only the newcomer's part moves");
    }
    managed.end().await;

    let mut config = quick(&fleet);
    config.labels = Some(Labels::Crc32);
    config.vnodes = Some(5);
    let managed = Managed::start(config).await;
    assert_eq!(
        managed
            .post("/api/v1/ring/rebuild", &json!({}))
            .await
            .status,
        200
    );
    let expected: HashMap<String, String> = python_positions(&urls, 5)
        .into_iter()
        .map(|(at, url)| (at.to_string(), url))
        .collect();
    assert_eq!(map_of(&fleet).await, expected);
    let cache = fleet.connect().await;
    assert_eq!(cache.map_status().order, Order::Lexicographic);
    // Shares are those that readers come to, who sort the map as text.
    let ring = cache.ring();
    let names = ring.nodes().iter().map(|url| larder::ring::label(url));
    let shares: HashMap<String, f64> = names.zip(ring.shares()).collect();
    for node in managed.nodes().await {
        let (name, share) = (
            node["node"].as_str().unwrap(),
            node["share"].as_f64().unwrap(),
        );
        assert!((shares[name] - share).abs() < 1e-9, "{node} {shares:?}");
    }
    for i in 0..1000_u64 {
        let key = format!("key:{i}");
        let node = larder::ring::label(&node_by_sdk(&expected, &key));
        assert_eq!(cache.node_for(&key).unwrap(), node, "{key}");
    }
}

/// Whoever edits the map is followed, and a map that is gone or spoilt is written again as it was.
#[tokio::test]
async fn edits_of_others_are_taken_over_and_losses_made_good() {
    let fleet = Fleet::bare(4).await;
    let urls = fleet.node_urls();
    let managed = Managed::start(quick(&fleet)).await;
    add_all(&managed, &fleet).await;
    let before = map_of(&fleet).await;
    fleet.manager.raw(13, &["DEL", "HASH_RING_MAP"]).await;
    let restored = async || map_of(&fleet).await == before;
    eventually(10 * SECOND, "the map is back", restored).await;
    fleet
        .manager
        .raw(13, &["HSET", "HASH_RING_MAP", "none", "redis://h:1/0"])
        .await;
    eventually(10 * SECOND, "the map is right again", restored).await;
    // The Python server takes two nodes off.
    fleet.publish_like_python(&urls[..2]).await;
    let count = async |kind: &str| {
        let events = managed.events().await;
        events.iter().filter(|(other, _)| other == kind).count()
    };
    let followed = async || count("removed_elsewhere").await == 2;
    eventually(10 * SECOND, "the edit is followed", followed).await;
    assert_eq!(managed.nodes().await.len(), 2);
    // A tool that knows of epochs puts one back.
    publish(
        &fleet.manager_url(),
        &Publication::of_nodes(&urls[..3], 160),
    )
    .await
    .unwrap();
    let followed = async || count("added_elsewhere").await == 1;
    eventually(10 * SECOND, "the publication is followed", followed).await;
    assert_eq!(managed.nodes().await.len(), 3);
    assert_eq!(count("restored").await, 2);
    // With the meta goes how keys are placed, and which epochs there were: the history knows.
    let tagged = Publication::of_nodes(&urls, 160).hash_tags(true);
    let epoch = publish(&fleet.manager_url(), &tagged).await.unwrap();
    let followed = async || count("added_elsewhere").await == 2;
    eventually(10 * SECOND, "the publication is followed", followed).await;
    let before = map_of(&fleet).await;
    fleet
        .manager
        .raw(13, &["DEL", "HASH_RING_MAP", "HASH_RING_META"])
        .await;
    let restored = async || !meta(&fleet, "epoch").await.is_empty();
    eventually(10 * SECOND, "all is back", restored).await;
    assert!(map_of(&fleet).await == before, "another map");
    assert_eq!(meta(&fleet, "hash_tags").await, "1");
    assert_eq!(meta(&fleet, "epoch").await, (epoch + 2).to_string());
    // And one field of it alone, or one that is spoilt.
    for spoil in [
        &["HDEL", "HASH_RING_META", "hash_tags"][..],
        &["HSET", "HASH_RING_META", "hash_tags", "perhaps"],
        &["HSET", "HASH_RING_META", "lookup", "backwards"],
        &["HDEL", "HASH_RING_META", "epoch"],
    ] {
        let epoch: u64 = meta(&fleet, "epoch").await.parse().unwrap();
        fleet.manager.raw(13, spoil).await;
        let mended = async || {
            let later = meta(&fleet, "epoch")
                .await
                .parse()
                .is_ok_and(|now: u64| now > epoch);
            later
                && meta(&fleet, "hash_tags").await == "1"
                && meta(&fleet, "lookup").await == "numeric"
        };
        eventually(10 * SECOND, &format!("{spoil:?} is made good"), mended).await;
        assert!(map_of(&fleet).await == before, "{spoil:?}: another map");
    }
}

/// What stands there and cannot be read is a newer manager's: it stays as it is, and nothing is written that leaves it out.
#[tokio::test]
async fn what_another_version_wrote_is_left_alone() {
    for labels in [Labels::Balanced, Labels::Xxh3] {
        is_left_alone(labels).await;
    }
}

async fn is_left_alone(labels: Labels) {
    let fleet = Fleet::bare(3).await;
    let mut config = quick(&fleet);
    config.labels = Some(labels);
    let managed = Managed::start(config).await;
    add_all(&managed, &fleet).await;
    let before = map_of(&fleet).await;
    let (nodes, name) = ("HASH_RING_NODES", label(&fleet, 0));
    let written = ["HSET", nodes, &name, "of another version"];
    fleet.manager.raw(13, &written).await;
    managed.post("/api/v1/nodes/check", &json!({})).await;
    let path = format!("/api/v1/nodes?node={}", label(&fleet, 1));
    assert_eq!(managed.ask("DELETE", &path, &[], "").await.status, 200);
    let url = json!({ "url": fleet.nodes[1].url(0) });
    assert_eq!(managed.post("/api/v1/nodes", &url).await.status, 200);
    let stands = Reply::BulkString("of another version".into());
    let there = async || fleet.manager.raw(13, &["HGET", nodes, &name]).await;
    assert_eq!(there().await, stands);
    // It is where it was, by its url.
    let after = map_of(&fleet).await;
    let urls = fleet.node_urls();
    assert!(after.values().all(|url| urls.contains(url)), "{after:?}");
    let part = |map: &HashMap<String, String>| {
        let ring = Ring::from_fields(map.clone(), Order::Numeric).unwrap();
        let node = ring.nodes().iter().position(|url| *url == urls[0]).unwrap();
        ring.shares()[node]
    };
    assert!((part(&after) - part(&before)).abs() < 0.02, "{labels:?}");
    let verified = managed.get("/api/v1/ring/verify").await.text;
    assert!(verified.contains("cannot read"), "{verified}");
    // Nor is it left out where all positions are chosen anew.
    let rebuilt = managed.post("/api/v1/ring/rebuild", &json!({})).await;
    assert_eq!(rebuilt.status, 200, "{rebuilt:?}");
    let anew = map_of(&fleet).await;
    assert!(part(&anew) > 0.2, "{labels:?}: {}", part(&anew));
    assert_eq!(there().await, stands);
    // Whoever adds it again has it looked after, where it is.
    let url = json!({ "url": fleet.nodes[0].url(0) });
    let added = managed.post("/api/v1/nodes", &url).await;
    assert_eq!(added.status, 200, "{added:?}");
    assert_eq!(managed.nodes().await.len(), 3);
    let verified = managed.get("/api/v1/ring/verify").await.text;
    assert!(!verified.contains("cannot read"), "{verified}");
    assert!((part(&map_of(&fleet).await) - part(&anew)).abs() < 0.02);
    fleet.manager.raw(13, &written).await;
    // Without the map nobody knows where it is.
    fleet.manager.raw(13, &["DEL", "HASH_RING_MAP"]).await;
    let told = async || {
        let health = managed.get("/api/v1/health").await.json();
        health["error"]
            .as_str()
            .is_some_and(|why| why.contains("left out"))
    };
    eventually(10 * SECOND, "it is said", told).await;
    assert!(map_of(&fleet).await.is_empty());
    assert_eq!(there().await, stands);
}

/// What is no url may hold a password, and is shown as `?`: which is enough to remove it if there is one of them; by what stands in the map it is always.
#[tokio::test]
async fn nodes_whose_names_are_not_shown_can_be_removed() {
    let fleet = Fleet::bare(1).await;
    let managed = Managed::start(quick(&fleet)).await;
    add_all(&managed, &fleet).await;
    let write = [
        "HSET",
        "HASH_RING_MAP",
        "4294967294",
        "redis://<b>:1/0",
        "4294967293",
        "redis://<i>:1/0",
    ];
    fleet.manager.raw(13, &write).await;
    let odd = async || {
        let nodes = managed.nodes().await;
        nodes.iter().filter(|node| node["node"] == "?").count()
    };
    eventually(10 * SECOND, "both are there", async || odd().await == 2).await;
    let remove = async |node: &str| {
        let path = format!("/api/v1/nodes?node={node}");
        managed.ask("DELETE", &path, &[], "").await.status
    };
    assert_ne!(remove("%3F").await, 200, "which of them?");
    assert_eq!(odd().await, 2);
    assert_eq!(remove("redis%3A%2F%2F%3Cb%3E%3A1%2F0").await, 200);
    assert_eq!(remove("%3F").await, 200);
    assert_eq!(managed.nodes().await.len(), 1);
}

#[tokio::test]
async fn a_node_is_drained_in_steps() {
    let fleet = Fleet::bare(3).await;
    let managed = Managed::start(quick(&fleet)).await;
    add_all(&managed, &fleet).await;
    let name = label(&fleet, 1);
    let began = meta(&fleet, "epoch").await;
    let drain = managed
        .post("/api/v1/nodes/drain", &json!({ "node": name, "steps": 4 }))
        .await;
    assert_eq!(drain.status, 200, "{drain:?}");
    let moved = drain.json()["moved"].as_f64().unwrap();
    assert!((moved - 1.0 / 12.0).abs() < 0.01, "{moved}");
    let drained = async || managed.state(&name).await == "drained";
    eventually(10 * SECOND, "it is drained", drained).await;
    let steps = meta(&fleet, "epoch").await.parse::<u64>().unwrap() - began.parse::<u64>().unwrap();
    assert_eq!(steps, 4);
    assert!(
        map_of(&fleet)
            .await
            .values()
            .all(|url| !url.ends_with(&name))
    );
    // It is not forgotten, nor taken for one that failed.
    for _ in 0..3 {
        managed.post("/api/v1/nodes/check", &json!({})).await;
    }
    assert_eq!(managed.state(&name).await, "drained");
    let url = &fleet.node_urls()[1];
    assert_eq!(
        managed
            .post("/api/v1/nodes", &json!({ "url": url }))
            .await
            .status,
        200
    );
    assert_eq!(managed.state(&name).await, "up");
}

/// A thousand changes under readers who ask all the time: none of them ever sees a map that is none, or half of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_half_a_map() {
    let fleet = Fleet::bare(3).await;
    let urls = fleet.node_urls();
    let mut config = quick(&fleet);
    config.vnodes = Some(20);
    let managed = Managed::start(config).await;
    add_all(&managed, &fleet).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let (url, mut stopped) = (fleet.manager_url(), stopped.clone());
            tokio::spawn(async move {
                let client = redis::Client::open(url).unwrap();
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                let mut read = 0_u64;
                while !*stopped.borrow_and_update() {
                    let mut both = redis::pipe();
                    let both = both
                        .atomic()
                        .hgetall("HASH_RING_MAP")
                        .hgetall("HASH_RING_META");
                    let (map, meta): (Vec<(String, String)>, HashMap<String, String>) =
                        both.query_async(&mut connection).await.unwrap();
                    let ring = larder::ring::Ring::from_fields(map, Order::Numeric).unwrap();
                    assert_eq!(format!("{:016x}", ring.digest()), meta["digest"]);
                    assert!(ring.nodes().len() >= 2);
                    read += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                read
            })
        })
        .collect();
    for turn in 0..500 {
        let node = turn % 3;
        let path = format!("/api/v1/nodes?node={}", label(&fleet, node));
        let removed = managed.ask("DELETE", &path, &[], "").await;
        assert_eq!(removed.status, 200, "{turn}: {removed:?}");
        let new = json!({ "url": urls[node] });
        let added = managed.post("/api/v1/nodes", &new).await;
        assert_eq!(added.status, 200, "{turn}: {added:?}");
    }
    stop.send(true).unwrap();
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    println!("1,000 publishes, {reads} reads, none of them of half a map");
    assert!(reads > 1000);
    let ring = DistributedRedis::connect(&fleet.manager_url())
        .await
        .unwrap();
    ring.set("k", 1_u64, SECOND * 60).await.unwrap();
}
