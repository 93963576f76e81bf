//! Nodes that fail, come back, or only seem to.

use std::time::Instant;

use larder::Cache;
use serde_json::json;

use super::{Managed, SECOND, label, quick};
use crate::fleet::{Fleet, eventually};

async fn managed(fleet: &Fleet) -> Managed {
    let managed = Managed::start(quick(fleet)).await;
    for url in fleet.node_urls() {
        let added = managed.post("/api/v1/nodes", &json!({ "url": url })).await;
        assert_eq!(added.status, 200, "{added:?}");
    }
    managed
}

/// Who cannot keep its lease says so: another one may judge by now.
#[tokio::test]
async fn who_cannot_write_leads_no_more() {
    let fleet = Fleet::bare(2).await;
    let mut config = quick(&fleet);
    config.health.lease = SECOND * 2;
    let managed = Managed::start(config).await;
    let leads = async || {
        let metrics = managed.get("/metrics").await.text;
        metrics.lines().any(|line| line == "larder_manager_leads 1")
    };
    eventually(5 * SECOND, "it leads", leads).await;
    // It can be read all the same.
    let refuse = ["CONFIG", "SET", "min-replicas-to-write", "1"];
    fleet.manager.raw(0, &refuse).await;
    eventually(10 * SECOND, "it leads no more", async || !leads().await).await;
    assert_eq!(managed.get("/healthz").await.status, 503);
    let take = ["CONFIG", "SET", "min-replicas-to-write", "0"];
    fleet.manager.raw(0, &take).await;
    eventually(10 * SECOND, "it leads again", leads).await;
    assert_eq!(managed.get("/healthz").await.status, 200);
}

/// A node that is killed is off the ring in time, clients go on within a second of it, and it comes back empty.
#[tokio::test]
async fn a_node_that_is_killed_is_taken_off_and_put_back() {
    let fleet = Fleet::bare(4).await;
    let managed = managed(&fleet).await;
    let name = label(&fleet, 1);
    let cache = fleet.connect().await;
    let keys: Vec<String> = (0..)
        .map(|i| format!("key:{i}"))
        .filter(|key| cache.node_for(key).as_ref() == Some(&name))
        .take(5)
        .collect();
    for key in &keys {
        cache.set(key, 1_u64, SECOND * 60).await.unwrap();
    }
    let began = Instant::now();
    fleet.nodes[1].kill();
    let out = async || managed.state(&name).await == "out";
    eventually(5 * SECOND, "it is off the ring", out).await;
    // Three failures, and 400 ms from the first of them; asked every 200 ms, with time for a probe and this machine.
    let took = began.elapsed();
    assert!(took < 3 * SECOND, "{took:?}");
    let elsewhere = async || {
        let moved = cache.node_for(&keys[0]).is_some_and(|node| node != name);
        moved && cache.set(&keys[0], 2_u64, SECOND * 60).await.is_ok()
    };
    let recovered = eventually(5 * SECOND, "clients go on", elsewhere).await;
    println!("off the ring after {took:?}, clients on another node {recovered:?} later");
    assert!(recovered < SECOND, "{recovered:?}");
    // What it holds when it returns is older than what was written since: nobody shall see it.
    fleet.nodes[1].restart().await;
    fleet.nodes[1].raw(0, &["SET", &keys[1], "old"]).await;
    let up = async || managed.state(&name).await == "up";
    eventually(10 * SECOND, "it is back", up).await;
    let left = fleet.nodes[1].raw(0, &["EXISTS", &keys[1]]).await;
    assert_eq!(left, redis::Value::Int(0), "it was emptied");
    let back = async || cache.node_for(&keys[0]).as_ref() == Some(&name);
    eventually(5 * SECOND, "it has its keys again", back).await;
    let events: Vec<String> = managed
        .events()
        .await
        .into_iter()
        .filter(|(_, node)| *node == name)
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(events, ["returned", "ejected", "suspected", "added"]);
}

/// Where half of the nodes fail at once, it is the manager that is cut off: nothing is done, and that is told.
#[tokio::test]
async fn a_manager_that_is_cut_off_does_nothing() {
    for gone in [2, 4] {
        let fleet = Fleet::bare(4).await;
        let managed = managed(&fleet).await;
        let epoch = managed.get("/api/v1/ring").await.json()["epoch"].clone();
        for node in &fleet.nodes[..gone] {
            node.pause();
        }
        let frozen = async || !managed.get("/api/v1/health").await.json()["frozen"].is_null();
        eventually(10 * SECOND, "it holds still", frozen).await;
        // Each goes through a round, some of which are longer than it takes to remove a node.
        for _ in 0..5 {
            managed.post("/api/v1/nodes/check", &json!({})).await;
        }
        assert_eq!(managed.get("/api/v1/ring").await.json()["epoch"], epoch);
        let kinds: Vec<String> = managed
            .events()
            .await
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(
            kinds.iter().filter(|kind| *kind == "frozen").count(),
            1,
            "{kinds:?}"
        );
        assert!(!kinds.contains(&"ejected".to_owned()), "{kinds:?}");
        for node in &fleet.nodes[..gone] {
            node.resume();
        }
        let thawed = async || managed.get("/api/v1/health").await.json()["frozen"].is_null();
        eventually(10 * SECOND, "it goes on", thawed).await;
        let well = async || {
            managed
                .nodes()
                .await
                .iter()
                .all(|node| node["state"] == "up")
        };
        eventually(10 * SECOND, "all are well", well).await;
        assert_eq!(managed.get("/api/v1/ring").await.json()["epoch"], epoch);
    }
}

/// A node that answers `PING` and takes no writes is of no use: a replica, and one that is full.
#[tokio::test]
async fn a_node_that_takes_no_writes_is_taken_off() {
    let fleet = Fleet::bare(4).await;
    let managed = managed(&fleet).await;
    let name = label(&fleet, 3);
    let nobody = ["REPLICAOF", "127.0.0.1", "1"];
    fleet.nodes[3].raw(0, &nobody).await;
    let out = async || managed.state(&name).await == "out";
    eventually(10 * SECOND, "it is off the ring", out).await;
    fleet.nodes[3].raw(0, &["REPLICAOF", "NO", "ONE"]).await;
    let up = async || managed.state(&name).await == "up";
    eventually(10 * SECOND, "it is back", up).await;
    fleet.nodes[3]
        .raw(0, &["CONFIG", "SET", "maxmemory", "1"])
        .await;
    eventually(10 * SECOND, "it is off the ring", out).await;
    // Whoever adds it is told why not.
    let url = fleet.nodes[3].url(0);
    let added = managed.post("/api/v1/nodes", &json!({ "url": url })).await;
    assert!(
        added.status == 502 && added.text.contains("OOM"),
        "{added:?}"
    );
    fleet.nodes[3]
        .raw(0, &["CONFIG", "SET", "maxmemory", "0"])
        .await;
    // A person waits for nothing.
    let added = managed.post("/api/v1/nodes", &json!({ "url": url })).await;
    assert_eq!(
        (added.status, managed.state(&name).await.as_str()),
        (200, "up"),
        "{added:?}"
    );
}

/// A password that is not where it should be is no failure of the node.
#[tokio::test]
async fn what_lies_at_the_manager_takes_no_node_off() {
    let fleet = Fleet::bare(4).await;
    let name = label(&fleet, 0);
    let file = std::env::temp_dir().join(format!("larder-own-{}", std::process::id()));
    let own = crate::support::password();
    std::fs::write(&file, own.as_deref().unwrap_or("of-the-node")).unwrap();
    if own.is_none() {
        let set = ["CONFIG", "SET", "requirepass", "of-the-node"];
        fleet.nodes[0].raw(0, &set).await;
    }
    let config = quick(&fleet).login_at(&name, larder::Login::file(&file));
    let managed = Managed::start(config).await;
    for node in 0..4 {
        let url = format!("redis://127.0.0.1:{}/0", fleet.nodes[node].port());
        let url = if node == 0 {
            url
        } else {
            fleet.nodes[node].url(0)
        };
        let answer = managed.post("/api/v1/nodes", &json!({ "url": url })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    std::fs::remove_file(&file).unwrap();
    // Its connections are gone with it, and for others nobody knows its password.
    fleet.nodes[0].kill();
    fleet.nodes[0].restart().await;
    let why = async || {
        let health = managed.get("/api/v1/health").await.json();
        health["failing"][&name]
            .as_str()
            .is_some_and(|why| why.contains("file"))
    };
    eventually(10 * SECOND, "it is said why", why).await;
    let epoch = managed.get("/api/v1/ring").await.json()["epoch"].clone();
    for _ in 0..5 {
        managed.post("/api/v1/nodes/check", &json!({})).await;
    }
    assert_eq!(managed.get("/api/v1/ring").await.json()["epoch"], epoch);
}

/// Two managers: one judges, both do what people say, and where one falls the other goes on.
#[tokio::test]
async fn of_two_managers_one_judges() {
    let fleet = Fleet::bare(4).await;
    let first = managed(&fleet).await;
    let second = Managed::start(quick(&fleet)).await;
    let leads =
        async |managed: &Managed| managed.get("/api/v1/health").await.json()["leads"].as_bool();
    assert_eq!(
        (leads(&first).await, leads(&second).await),
        (Some(true), Some(false))
    );
    let name = label(&fleet, 0);
    let path = format!("/api/v1/nodes?node={name}");
    assert_eq!(second.ask("DELETE", &path, &[], "").await.status, 200);
    let url = fleet.nodes[0].url(0);
    assert_eq!(
        first
            .post("/api/v1/nodes", &json!({ "url": url }))
            .await
            .status,
        200
    );
    // Both change the ring at once, and nothing is lost.
    let add = async |managed: &Managed, db: u8| {
        let url = fleet.nodes[1].url(db);
        managed
            .post("/api/v1/nodes", &json!({ "url": url }))
            .await
            .status
    };
    let adds = (1..8).map(|db| {
        let managed = if db % 2 == 0 { &first } else { &second };
        add(managed, db)
    });
    let added = futures_util::future::join_all(adds).await;
    assert_eq!(added, [200; 7]);
    assert_eq!(first.nodes().await.len(), 11);
    first.end().await;
    let took = async || leads(&second).await == Some(true);
    eventually(10 * SECOND, "the other takes over", took).await;
    fleet.nodes[2].kill();
    let out = async || second.state(&label(&fleet, 2)).await == "out";
    eventually(10 * SECOND, "the other judges", out).await;
}

/// The manager Redis goes away and comes back: nothing is changed meanwhile, and clients are told nothing wrong.
#[tokio::test]
async fn without_its_redis_a_manager_waits() {
    let fleet = Fleet::bare(3).await;
    let managed = managed(&fleet).await;
    fleet.manager.pause();
    let ill = async || managed.get("/healthz").await.status == 503;
    eventually(20 * SECOND, "it says so", ill).await;
    let added = managed
        .post("/api/v1/nodes", &json!({ "url": fleet.nodes[0].url(1) }))
        .await;
    assert_eq!(added.status, 502, "{added:?}");
    fleet.manager.resume();
    let well = async || managed.get("/healthz").await.status == 200;
    eventually(20 * SECOND, "it goes on", well).await;
    assert_eq!(managed.nodes().await.len(), 3);
    managed.post("/api/v1/nodes/check", &json!({})).await;
    assert!(
        managed
            .events()
            .await
            .iter()
            .all(|(kind, _)| kind != "ejected")
    );
}
