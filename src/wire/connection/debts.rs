//! Tests of what a failed write leaves owed, as readers and other writers meet it.

use std::time::Instant;

use futures_util::future::join_all;
use redis::cmd;

use super::tests::{get, patient, set, to};
use super::upkeep::eventually;
use super::*;
use crate::core::Core;
use crate::entry::{Draft, Entry, Want};
use crate::ttl::Remaining;
use crate::value::{Kind, Value as Stored};
use crate::wire::NodeAddr;
use crate::wire::node::Node;
use crate::wire::testserver::TestServer;

fn node(server: &TestServer, settings: &ConnectionSettings) -> Node {
    Node::new(NodeAddr::parse(&server.url()).unwrap(), settings)
}

fn draft(text: &str) -> Draft {
    let value = Stored::shared(Arc::new(text.to_owned()));
    Draft::from(Entry::new(value, Core::default().now(), None))
}

fn refuse_writes(server: &TestServer, refuse: bool) {
    let replicas = u8::from(refuse);
    server.command(&format!("CONFIG SET min-replicas-to-write {replicas}\r\n"));
}

/// The node stays up, and its older value stays in place for a while. To readers it is gone.
#[tokio::test]
async fn what_a_failed_delete_left_is_nothing_to_any_reader() {
    let server = TestServer::start(&[]);
    let (node, core) = (node(&server, &patient()), Core::default());
    let conn = node.connection("k");
    for key in ["k", "other"] {
        node.store(&core, key, &draft("old")).await.unwrap();
    }
    refuse_writes(&server, true);
    assert_eq!(
        node.remove("k").await.unwrap_err().kind(),
        ErrorKind::Rejected
    );
    let want = Want::of(Kind::of::<String>());
    let found = |answer: Result<crate::entry::Answer>| answer.unwrap().entry.is_some();
    assert!(!found(node.fetch(&core, "k", want, None).await));
    assert!(found(node.fetch(&core, "other", want, None).await));
    let many = node.fetch_many(&core, &["k", "other"], want).await;
    assert_eq!(
        many.into_iter().map(found).collect::<Vec<_>>(),
        [false, true]
    );
    assert!(!node.contains("k").await.unwrap());
    assert_eq!(node.remaining("k").await.unwrap(), None);
    assert_eq!(
        node.remaining("other").await.unwrap(),
        Some(Remaining::Forever)
    );
    assert!(server.command("EXISTS k\r\n").starts_with(":1"));
    refuse_writes(&server, false);
    eventually("the delete is made up for", || conn.counters().owed == 0).await;
    assert!(server.command("EXISTS k\r\n").starts_with(":0"));
}

/// Without a runtime there is no timer to wait with.
#[test]
fn a_debt_costs_no_panic_outside_a_runtime() {
    let conn = to("redis://127.0.0.1:1", patient());
    let delete = async |key| {
        let unlink = cmd("UNLINK").arg(key).to_owned();
        conn.owing(&[key], conn.run::<i64>("unlink", &unlink), |_| true)
            .await
    };
    for owed in [1, 2] {
        let key = ["a", "b"][owed - 1];
        let error = futures_util::future::FutureExt::now_or_never(delete(key));
        assert_eq!(error.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(conn.counters().owed, owed);
    }
}

/// A value whose writer gave up may still be on its way when everything is removed over another connection.
#[tokio::test]
async fn an_emptying_waits_for_what_is_on_its_way_through_other_connections() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        connections: 4,
        ..patient()
    };
    let node = node(&server, &settings);
    node.ready().await.unwrap();
    let core = Core::default();
    // The server reads the commands of one connection after the other.
    let value = "x".repeat(4 << 20);
    for round in 0..3 {
        let keys: Vec<String> = (0..8).map(|i| format!("k{round}-{i}")).collect();
        for key in &keys {
            let mut draft = draft(&value);
            draft.computed = true;
            // Sent, and given up at once.
            let store = node.store(&core, key, &draft);
            let _ = timeout(Duration::from_millis(1), store).await;
        }
        node.wipe("").await.unwrap();
        // All but the records of the namespaces.
        let left = server.command("DBSIZE\r\n");
        assert!(left.starts_with(":1"), "{left}");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(server.command("DBSIZE\r\n").starts_with(":1"));
}

/// More deletes at once than may be under way: some fail, and are made up for. Nothing is emptied for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_deletes_empties_no_node() {
    let server = TestServer::start(&[]);
    let node = node(&server, &ConnectionSettings::default());
    node.ready().await.unwrap();
    server.command("SET user:stays x\r\n");
    let keys: Vec<String> = (0..30_000).map(|i| format!("user:{i}")).collect();
    let removed = join_all(keys.iter().map(|key| node.remove(key))).await;
    let failed = removed.iter().filter(|answer| answer.is_err()).count();
    assert!(failed > 10_000, "{failed}");
    eventually("all is made up for", || node.status().owed == 0).await;
    assert!(server.command("EXISTS user:stays\r\n").starts_with(":1"));
    assert_eq!(node.status().reconnects, 0);
}

/// What is under a key of another kind is somebody else's.
#[tokio::test]
async fn taking_a_value_back_leaves_a_list_alone() {
    let server = TestServer::start(&[]);
    let (node, core) = (node(&server, &patient()), Core::default());
    let mut draft = draft("mine");
    draft.sealed = Some(core.format().seal("k", &draft.entry).unwrap());
    server.command("LPUSH k theirs\r\n");
    assert!(!node.retract("k", &draft).await.unwrap());
    assert_eq!(node.status().owed, 0);
    assert!(server.command("EXISTS k\r\n").starts_with(":1"));
}

/// The wait for a payment is part of an operation's time.
#[tokio::test]
async fn no_write_takes_longer_for_a_debt() {
    let mut server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        operation_timeout: Duration::from_millis(200),
        ..ConnectionSettings::default()
    };
    let node = node(&server, &settings);
    let conn = node.connection("n");
    set(conn, "n", "1").await.unwrap();
    conn.owe(["n"]);
    let round = conn.shared().replay.begin(1).unwrap();
    server.signal("STOP");
    for _ in 0..2 {
        let began = Instant::now();
        let sum = node.add_to("n", 1, 0).await;
        let took = began.elapsed();
        assert!(sum.is_err());
        assert!(took < Duration::from_millis(300), "{took:?}");
    }
    server.signal("CONT");
    drop(round);
    server.kill();
    let _ = get(conn, "n").await;
}

/// What a bulk write has no time for is owed, and so is what was not begun when it was dropped.
#[tokio::test]
async fn batches_that_are_not_begun_have_failed() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    conn.ready().await.unwrap();
    let keys: Vec<String> = (0..2500).map(|i| format!("k{i}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let late = tokio::time::Instant::now();
    let answers = conn
        .owing_each(
            &keys,
            late,
            |range| async move { vec![Ok(()); range.len()] },
        )
        .await;
    assert_eq!(answers.len(), 2500);
    assert!(answers.iter().all(Result::is_err));
    eventually("all is made up for", || conn.counters().owed == 0).await;
    let soon = late + Duration::from_secs(60);
    let hanging = conn.owing_each(&keys, soon, |range| async move {
        if range.start > 0 {
            std::future::pending::<()>().await;
        }
        vec![Ok(()); range.len()]
    });
    assert!(timeout(Duration::from_millis(20), hanging).await.is_err());
    let owed = conn.counters().owed;
    assert!(owed > 0 && owed <= 1500, "{owed}");
}
