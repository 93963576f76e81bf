//! Tests of corners: what is owed, refused, emptied, silent or forbidden at a bad moment.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use redis::cmd;
use tokio::time::sleep;

use super::tests::{fake, get, patient, set, to};
use super::upkeep::{calls, greeting, scripted};
use super::*;
use crate::core::Core;
use crate::entry::{Draft, Entry, Want};
use crate::value::{Kind, Value as Stored};
use crate::wire::NodeAddr;
use crate::wire::node::Node;
use crate::wire::testserver::{self, TestServer};

fn node(url: &str, settings: &ConnectionSettings) -> Node {
    Node::new(NodeAddr::parse(url).unwrap(), settings)
}

/// A server that answers the greeting and hangs up at once: what drives its connection has ended, and is not to be driven on.
#[tokio::test]
async fn a_greeting_and_a_hang_up_at_once_are_no_connection() {
    let (asked, asking) = tokio::sync::oneshot::channel();
    let (go, going) = std::sync::mpsc::channel();
    let (close, closed) = std::sync::mpsc::channel();
    let once = Arc::new(std::sync::Mutex::new(Some((asked, going, close))));
    let place = fake(move |mut stream| {
        let (mut seen, mut block) = (Vec::new(), [0; 4096]);
        let Some((asked, going, close)) = once.lock().unwrap().take() else {
            return;
        };
        while !String::from_utf8_lossy(&seen).contains("SETNAME") {
            let count = stream.read(&mut block).unwrap();
            if seen.is_empty() {
                stream
                    .write_all(b"-ERR unknown command 'HELLO'\r\n")
                    .unwrap();
            }
            seen.extend_from_slice(&block[..count]);
        }
        asked.send(()).unwrap();
        going.recv().unwrap();
        stream.write_all(b"+PONG\r\n+OK\r\n").unwrap();
        drop(stream);
        close.send(()).unwrap();
    });
    let settings = ConnectionSettings {
        client_name: Some("larder".to_owned()),
        ..patient()
    };
    let target = crate::wire::Target::from(NodeAddr::parse(&format!("redis://{place}/0")).unwrap());
    let opened = crate::wire::dial::open(&target, &settings);
    // The thread that would read is kept from it until all has been said.
    let meanwhile = async {
        asking.await.unwrap();
        go.send(()).unwrap();
        closed.recv().unwrap();
    };
    let (opened, ()) = futures_util::future::join(opened, meanwhile).await;
    let error = opened.err().expect("it has ended");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// A server that refuses writes for now makes an owed emptying be forgotten.
#[tokio::test]
async fn an_emptying_that_is_refused_for_now_is_not_forgotten() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    set(&conn, "old", "x").await.unwrap();
    // What a clear that failed, or too many failed deletes, leave behind.
    server.command("REPLICAOF 127.0.0.1 1\r\n");
    conn.owe_all("");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) && conn.shared().replay.debts().1 {
        let _ = get(&conn, "old").await;
        sleep(Duration::from_millis(20)).await;
    }
    server.command("REPLICAOF NO ONE\r\n");
    sleep(Duration::from_secs(3)).await;
    let old = get(&conn, "old").await;
    assert!(
        !matches!(old, Ok(Some(_))),
        "the cleared value is served: {old:?}"
    );
}

/// A compare-and-remove that removed nothing ends the debt of a delete that failed.
#[tokio::test]
async fn a_retraction_that_finds_another_value_settles_no_debt() {
    let server = TestServer::start(&[]);
    let node = node(&server.url(), &patient());
    let conn = node.connection("k");
    set(conn, "k", "somebody else's older value").await.unwrap();
    // Owed, and not yet made up for: the supervisor is kept from it.
    conn.shared().replay.owe(["k"]);
    let core = Core::default();
    let entry = Entry::new(Stored::shared(Arc::new(7_i64)), core.now(), None);
    let mut draft = Draft::from(entry);
    draft.sealed = Some(bytes::Bytes::from_static(b"what was computed"));
    let _ = node.retract("k", &draft).await;
    sleep(Duration::from_millis(1500)).await;
    let there = get(conn, "k").await.unwrap();
    assert_eq!(there, None, "the failed delete was never made up for");
}

/// An `add` (or `INCR`) that was acknowledged is deleted by a debt from before it.
#[tokio::test]
async fn an_add_takes_a_debt_over_too() {
    // Each UNLINK takes a while, as that of a round under way does.
    let server = TestServer::start(&[]);
    let node = node(&server.url(), &patient());
    let conn = node.connection("lock");
    conn.ready().await.unwrap();
    server.signal("STOP");
    conn.shared().replay.owe(["lock"]);
    let core = Core::default();
    let added = node.add_to("lock", 5, 0);
    let (sum, ()) = futures_util::future::join(added, async {
        sleep(Duration::from_millis(20)).await;
        server.signal("CONT");
    })
    .await;
    assert_eq!(sum.unwrap(), 5);
    let _ = core;
    sleep(Duration::from_millis(500)).await;
    let there = get(conn, "lock").await.unwrap();
    assert_eq!(
        there.as_deref(),
        Some("5"),
        "acknowledged, and deleted by an older debt"
    );
}

/// One key that is being deleted keeps the others of the same call from being written, and from being owed.
#[tokio::test]
async fn keys_beside_one_that_is_being_deleted_are_owed_too() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings::default();
    let node = node(&server.url(), &settings);
    let conn = node.connection("a");
    set(conn, "b", "old").await.unwrap();
    conn.shared().replay.owe(["a"]);
    let round = conn.shared().replay.begin(9).unwrap();
    let answers = node.remove_many(&Core::default(), &["a", "b"]).await;
    assert!(answers.iter().all(Result::is_err));
    drop(round);
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        get(conn, "b").await.unwrap(),
        None,
        "b: failed, and owed nothing"
    );
}

/// A delete that is dropped (by `store_timeout`, or a caller's own timeout) owes nothing.
#[tokio::test]
async fn a_delete_that_is_dropped_under_way_is_owed() {
    let place = scripted(|_, words| match greeting(words) {
        Some(reply) => reply,
        None => Some(""),
    });
    let conn = to(&format!("redis://{place}"), ConnectionSettings::default());
    conn.ready().await.unwrap();
    let unlink = cmd("UNLINK").arg("k").to_owned();
    let delete = conn.owing(&["k"], conn.run::<i64>("unlink", &unlink), |_| true);
    assert!(timeout(Duration::from_millis(50), delete).await.is_err());
    assert_eq!(conn.counters().owed, 1);
}

/// Callers of two runtimes take turns to begin anew, and the emptying never ends.
#[test]
fn a_long_emptying_ends_whoever_calls() {
    let scans = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&scans);
    let place = scripted(move |_, words| match (greeting(words), words[0].as_str()) {
        (Some(reply), _) => reply,
        (None, "SCAN") => {
            seen.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            // Twenty steps, two seconds in all.
            let next: usize = words[1].parse().unwrap();
            let next = if next >= 20 { 0 } else { next + 1 };
            let reply = format!("*2\r\n${}\r\n{next}\r\n*0\r\n", next.to_string().len());
            Some(Box::leak(reply.into_boxed_str()))
        }
        _ => Some("$1\r\nx\r\n"),
    });
    let conn = to(&format!("redis://{place}"), ConnectionSettings::default());
    conn.owe_all("");
    let began = Instant::now();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let conn = conn.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    while began.elapsed() < Duration::from_secs(12) {
                        if get(&conn, "a").await.is_ok() {
                            return true;
                        }
                        sleep(Duration::from_millis(10)).await;
                    }
                    false
                })
            })
        })
        .collect();
    let up: Vec<bool> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(
        up,
        [true, true],
        "after {:?}, {} scans",
        began.elapsed(),
        scans.load(Ordering::SeqCst)
    );
}

/// A node that greets and then says nothing passes its trial.
#[tokio::test]
async fn a_silent_node_does_not_pass_its_trial() {
    // Some flaps first, then connections that greet (one PING) and answer nothing more.
    let pings = Arc::new(std::sync::Mutex::new(std::collections::HashMap::new()));
    let place = scripted(move |number, words| {
        if words[0] == "PING" {
            let mut pings = pings.lock().unwrap();
            let count = pings.entry(number).or_insert(0);
            *count += 1;
            return Some(if *count == 1 { "+PONG\r\n" } else { "" });
        }
        greeting(words).unwrap_or((number >= 5).then_some(""))
    });
    let conn = to(&format!("redis://{place}"), ConnectionSettings::default());
    let began = Instant::now();
    let mut late = 0;
    while began.elapsed() < Duration::from_secs(8) {
        if let Err(error) = get(&conn, "a").await
            && error.kind() == ErrorKind::Timeout
        {
            late += 1;
        }
        sleep(Duration::from_millis(2)).await;
    }
    let connects = conn.shared().connects.load(Relaxed);
    assert_eq!(
        late, 0,
        "callers that timed out; published {connects} times"
    );
}

/// `MULTI` is let through by a server that is busy or loading, and its `OK` counts as good health.
#[tokio::test]
async fn a_busy_server_is_seen_through_transactions_too() {
    let server = TestServer::start(&["--busy-reply-threshold", "50"]);
    let node = node(&server.url(), &patient());
    let conn = node.connection("a");
    set(conn, "a", "x").await.unwrap();
    let (single, bulk) = (to(&server.url(), patient()), node.clone());
    single.ready().await.unwrap();
    let port = server.port();
    let looping = std::thread::spawn(move || {
        let _ = testserver::ask(port, "EVAL \"while true do end\" 0\r\n");
    });
    sleep(Duration::from_millis(500)).await;
    let core = Core::default();
    let want = Want::of(Kind::of::<String>()).with_deadline();
    let mut codes = Vec::new();
    for _ in 0..20 {
        let _ = get(&single, "a").await;
        let answers = bulk.fetch_many(&core, &["a", "b"], want).await;
        codes.push(
            answers
                .into_iter()
                .find_map(Result::err)
                .map(|e| code_of(&e)),
        );
        sleep(Duration::from_millis(2)).await;
    }
    let up = (single.shared().slot.borrow().failed, conn.is_up());
    server.command("SCRIPT KILL\r\n");
    looping.join().unwrap();
    assert!(
        !conn.is_up() && !up.1,
        "20 answers of BUSY in a row, and up still: {codes:?}"
    );
}

fn code_of(error: &Error) -> String {
    super::tests::code(error).unwrap_or("-").to_owned()
}

/// One key that may not be read costs everybody else the answer, and the node its connection.
#[tokio::test]
async fn a_key_that_may_not_be_read_does_not_take_the_node_down() {
    // A millisecond a command.
    let place = scripted(|_, words| match (greeting(words), words[0].as_str()) {
        (Some(reply), _) => reply,
        (None, "MGET") => Some("-NOPERM no permissions to access a key\r\n"),
        _ => {
            std::thread::sleep(Duration::from_millis(1));
            Some("$1\r\nx\r\n")
        }
    });
    let conn = to(&format!("redis://{place}"), ConnectionSettings::default());
    conn.ready().await.unwrap();
    let mut failed = 0;
    for _ in 0..4 {
        let keys: Vec<String> = (0..40).map(|i| format!("k{i}")).collect();
        let all = join_all(keys.iter().map(|key| conn.get(key, false))).await;
        failed += all.iter().filter(|answer| answer.is_err()).count();
    }
    assert_eq!(
        failed,
        0,
        "of 160; reconnects {}",
        conn.counters().reconnects
    );
}

/// One `MGET` of large values would be all or nothing: once they are known to be large, each is asked for by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_are_not_all_or_nothing() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    let value = "x".repeat(2 << 20);
    let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    for key in &keys {
        set(&conn, key, &value).await.unwrap();
    }
    let read = async || {
        let all = join_all(keys.iter().map(|key| conn.get(key, false))).await;
        assert!(all.iter().all(Result::is_ok));
    };
    read().await;
    let (mgets, gets) = (calls(&server, "mget"), calls(&server, "get"));
    assert!(mgets > 0, "gathered, as long as nothing is known of them");
    read().await;
    read().await;
    assert_eq!(calls(&server, "mget"), mgets);
    assert_eq!(calls(&server, "get"), gets + 40);
}

/// A gathered get whose link's task has no turn is answered within its bound, not within two.
#[test]
fn a_gathered_get_is_late_at_its_bound() {
    let server = TestServer::start(&[]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let settings = ConnectionSettings::default();
    let conn = to(&server.url(), settings);
    runtime.block_on(async { conn.ready().await.unwrap() });
    server.signal("STOP");
    let longest = runtime.block_on(async {
        let gets = (0..200).map(|i| {
            let conn = conn.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(i)).await;
                let began = Instant::now();
                let _ = conn.get(&format!("k{i}"), false).await;
                began.elapsed()
            })
        });
        join_all(gets)
            .await
            .into_iter()
            .map(std::result::Result::unwrap)
            .max()
            .unwrap()
    });
    server.signal("CONT");
    assert!(longest < Duration::from_millis(300), "{longest:?}");
}

/// An emptying that is made up for later spares what the clear would have spared: a map under another name, in a node's
/// own database.
#[tokio::test]
async fn an_emptying_that_was_put_off_spares_the_same_keys() {
    let server = TestServer::start(&[]);
    server.command("HSET RING_MAP 7 redis://127.0.0.1:1/0\r\nSET a 1\r\n");
    let settings = ConnectionSettings {
        spared: vec!["RING_MAP".to_owned()],
        ..ConnectionSettings::default()
    };
    let node = node(&server.url(), &settings);
    let conn = node.connection("a");
    conn.ready().await.unwrap();
    server.signal("STOP");
    let wiped = node.wipe("").await;
    assert!(wiped.is_err());
    server.signal("CONT");
    let began = Instant::now();
    while conn.shared().replay.debts().1 && began.elapsed() < Duration::from_secs(5) {
        let _ = get(conn, "a").await;
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(300)).await;
    let left = server.command("EXISTS RING_MAP\r\n");
    assert!(left.contains(":1"), "the map is gone: {left:?}");
}

/// A key longer than the bound on replies makes the emptying fail each time: the node never comes back.
#[tokio::test]
async fn a_long_foreign_key_does_not_keep_a_node_down_for_ever() {
    let server = TestServer::start(&[]);
    server.command(&format!("SET a 1\r\nSET {} 1\r\n", "k".repeat(600)));
    // As with `max_value_bytes(256)`.
    let settings = ConnectionSettings {
        max_reply_bytes: 256 + 64,
        ..ConnectionSettings::default()
    };
    let node = node(&server.url(), &settings);
    let conn = node.connection("a");
    conn.ready().await.unwrap();
    let wiped = node.wipe("").await;
    let began = Instant::now();
    sleep(Duration::from_millis(100)).await;
    while began.elapsed() < Duration::from_secs(8)
        && conn.run::<Value>("get", cmd("GET").arg("a")).await.is_err()
    {
        sleep(Duration::from_millis(20)).await;
    }
    let last = conn.run::<Value>("get", cmd("GET").arg("a")).await;
    assert!(
        last.is_ok(),
        "down after {:?}: {last:?}; the clear said {wiped:?}",
        began.elapsed()
    );
}

/// A clear that is not allowed takes the node away from everybody.
#[tokio::test]
async fn a_clear_that_may_not_be_done_costs_no_connection() {
    let server = TestServer::start(&[]);
    server.command("ACL SETUSER app on nopass ~* +@all -scan\r\n");
    let url = server.url().replacen("redis://", "redis://app:x@", 1);
    let node = node(&url, &ConnectionSettings::default());
    let conn = node.connection("a");
    conn.ready().await.unwrap();
    let mut failed = 0;
    for _ in 0..6 {
        assert!(node.wipe("app:").await.is_err());
        for _ in 0..50 {
            failed += usize::from(get(conn, "a").await.is_err());
            sleep(Duration::from_millis(4)).await;
        }
    }
    assert_eq!(
        (failed, conn.counters().reconnects),
        (0, 0),
        "failed gets of 300, reconnects"
    );
}
