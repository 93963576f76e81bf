//! Tests of what the connection does beyond sending and answering: second tries, bounds, gathering, debts, trials,
//! finding its server.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use redis::cmd;
use tokio::time::sleep;

use super::tests::{SLACK, code, fake, get, patient, recovery, set, to};
use super::*;
use crate::wire::get::Found;
use crate::wire::testserver::{TestServer, free_port};
use crate::wire::tracking::{Heard, Listener};

/// Looks again and again until `holds` does.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn read(conn: &Connection, key: &str) -> Result<Option<String>> {
    conn.read("get", cmd("GET").arg(key)).await
}

async fn delete(conn: &Connection, key: &str) -> Result<i64> {
    conn.owing(&[key], conn.run("unlink", cmd("UNLINK").arg(key)), |_| true)
        .await
}

async fn store(conn: &Connection, key: &str, value: &str) -> Result<()> {
    conn.owing(&[key], set(conn, key, value), |_| true).await
}

/// What a server says to a command; nothing is "hang up".
pub(super) type Reply = Option<&'static str>;

/// A server that answers as `script` says: given the number of the connection and the command's words.
pub(super) fn scripted(
    script: impl Fn(usize, &[String]) -> Reply + Send + Sync + Clone + 'static,
) -> String {
    let connections = Arc::new(AtomicUsize::new(0));
    fake(move |mut stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        let mut seen = Vec::new();
        let mut block = [0; 4096];
        while let Ok(count) = stream.read(&mut block)
            && count > 0
        {
            seen.extend_from_slice(&block[..count]);
            while let Some((words, rest)) = command(&seen) {
                seen = rest;
                match script(number, &words) {
                    Some(reply) => drop(stream.write_all(reply.as_bytes())),
                    None => return,
                }
            }
        }
    })
}

/// The first command of these bytes, and what follows it.
fn command(bytes: &[u8]) -> Option<(Vec<String>, Vec<u8>)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut lines = text.split_inclusive("\r\n");
    let head = lines.next()?;
    let count: usize = head.strip_prefix('*')?.trim().parse().ok()?;
    let (mut words, mut used) = (Vec::new(), head.len());
    for _ in 0..count {
        let (length, word) = (lines.next()?, lines.next()?);
        if !word.ends_with("\r\n") {
            return None;
        }
        used += length.len() + word.len();
        words.push(word.trim_end().to_owned());
    }
    Some((words, bytes[used..].to_vec()))
}

/// Greets like a server without HELLO; `script` answers the rest.
pub(super) fn greeting(words: &[String]) -> Option<Reply> {
    match words[0].as_str() {
        "HELLO" => Some(Some("-ERR unknown command 'HELLO'\r\n")),
        "PING" => Some(Some("+PONG\r\n")),
        "CLIENT" => Some(Some("+OK\r\n")),
        _ => None,
    }
}

#[tokio::test]
async fn a_read_is_sent_again_when_the_connection_breaks_and_a_write_is_not() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sent);
    let place = scripted(move |connection, words| {
        if let Some(reply) = greeting(words) {
            return reply;
        }
        seen.lock().unwrap().push(words[0].clone());
        // The first connection that is asked for anything is cut.
        (connection > 0 && words[0] == "GET").then_some("$1\r\nx\r\n")
    });
    let conn = to(&format!("redis://{place}"), patient());
    conn.ready().await.unwrap();
    assert_eq!(read(&conn, "a").await.unwrap().as_deref(), Some("x"));
    assert_eq!(conn.counters().retries, 1);
    let write = conn.run::<()>("set", cmd("SET").arg("a").arg(1)).await;
    assert_eq!(write.unwrap_err().kind(), ErrorKind::Unavailable);
    recovery(&conn, Duration::from_secs(5)).await;
    let sets = sent
        .lock()
        .unwrap()
        .iter()
        .filter(|word| *word == "SET")
        .count();
    assert_eq!(sets, 1);
}

#[tokio::test]
async fn a_read_of_a_node_that_is_gone_fails_as_soon_as_that_is_known() {
    let mut server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        max_backoff: Duration::from_millis(50),
        ..patient()
    };
    let conn = to(&server.url(), settings);
    set(&conn, "a", "1").await.unwrap();
    server.signal("STOP");
    let reading = tokio::spawn({
        let conn = conn.clone();
        async move { read(&conn, "a").await }
    });
    sleep(Duration::from_millis(20)).await;
    let began = Instant::now();
    server.kill();
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn loading_is_asked_once_more_and_then_believed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let place = scripted(move |_, words| {
        match (greeting(words), words.get(1).map_or("", String::as_str)) {
            (Some(reply), _) => reply,
            (None, "soon") if seen.fetch_add(1, Ordering::SeqCst) > 0 => Some("$1\r\nx\r\n"),
            _ => Some("-LOADING Redis is loading the dataset in memory\r\n"),
        }
    });
    let conn = to(&format!("redis://{place}"), patient());
    assert_eq!(read(&conn, "soon").await.unwrap().as_deref(), Some("x"));
    let error = read(&conn, "never").await.unwrap_err();
    assert_eq!(
        (error.kind(), code(&error)),
        (ErrorKind::Rejected, Some("LOADING"))
    );
    assert_eq!(conn.counters().retries, 2);
}

#[tokio::test]
async fn a_node_that_refuses_everything_counts_as_down() {
    let place = scripted(move |connection, words| match greeting(words) {
        Some(_) if connection > 0 => Some("-NOAUTH Authentication required.\r\n"),
        Some(reply) => reply,
        None => Some("-NOAUTH Authentication required.\r\n"),
    });
    let conn = to(&format!("redis://{place}"), patient());
    conn.ready().await.unwrap();
    for _ in 0..5 {
        let error = get(&conn, "a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
    }
    let error = get(&conn, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    eventually("the greeting is refused too", || !conn.is_up()).await;
}

#[tokio::test]
async fn what_befalls_writes_alone_leaves_the_node_up() {
    let server = TestServer::start(&["--maxmemory", "1"]);
    let conn = to(&server.url(), patient());
    for _ in 0..10 {
        let error = set(&conn, "a", "1").await.unwrap_err();
        assert_eq!(code(&error), Some("OOM"));
    }
    assert_eq!(get(&conn, "a").await.unwrap(), None);
    assert_eq!(conn.counters().reconnects, 0);
}

#[tokio::test]
async fn past_the_bound_operations_fail_at_once_and_are_counted() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        max_in_flight: 10,
        ..patient()
    };
    let conn = to(&server.url(), settings);
    conn.ready().await.unwrap();
    server.signal("STOP");
    let under_way: Vec<_> = (0..10)
        .map(|_| {
            let conn = conn.clone();
            tokio::spawn(async move { get(&conn, "a").await })
        })
        .collect();
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let error = get(&conn, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(began.elapsed() < SLACK);
    assert_eq!(conn.counters().refused, 1);
    server.signal("CONT");
    for answer in join_all(under_way).await {
        assert_eq!(answer.unwrap().unwrap(), None);
    }
    assert_eq!(get(&conn, "a").await.unwrap(), None);
}

pub(super) fn calls(server: &TestServer, name: &str) -> usize {
    let info = server.command("INFO commandstats\r\n");
    let line = info
        .lines()
        .find(|line| line.starts_with(&format!("cmdstat_{name}:")));
    let count = line.and_then(|line| line.split(['=', ',']).nth(1)?.parse().ok());
    count.unwrap_or(0)
}

#[tokio::test]
async fn gets_that_come_while_one_is_under_way_are_one_command_and_each_key_stands_in_it_once() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    for key in 0..20 {
        set(&conn, &format!("k{key}"), &key.to_string())
            .await
            .unwrap();
    }
    server.command("CONFIG RESETSTAT\r\n");
    server.signal("STOP");
    let gets: Vec<_> = (0..100)
        .map(|index| {
            let conn = conn.clone();
            tokio::spawn(async move {
                (
                    index,
                    conn.get(&format!("k{}", index % 25), index % 2 == 0).await,
                )
            })
        })
        .collect();
    sleep(Duration::from_millis(50)).await;
    server.signal("CONT");
    for got in join_all(gets).await {
        let (index, got) = got.unwrap();
        let got = got.unwrap();
        match got.found {
            Found::Bytes(bytes) => assert_eq!(bytes, (index % 25).to_string().as_bytes()),
            Found::Nothing => assert!(index % 25 >= 20),
            other => panic!("{other:?}"),
        }
        if index % 2 == 0 {
            assert_eq!(got.pttl, Some(if index % 25 >= 20 { -2 } else { -1 }));
        }
    }
    // One that was sent alone, one that the task had before the others came, and the rest.
    let (gets, mgets) = (calls(&server, "get"), calls(&server, "mget"));
    assert!(gets + mgets <= 4, "{gets} GET, {mgets} MGET");
    assert!(calls(&server, "pttl") <= 26);
}

#[tokio::test]
async fn a_get_never_joins_one_that_was_sent_before_it() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    for round in 0..300 {
        let other = {
            let conn = conn.clone();
            tokio::spawn(async move {
                join_all((0..8).map(|_| conn.get("k", false))).await;
            })
        };
        set(&conn, "k", &round.to_string()).await.unwrap();
        let Found::Bytes(bytes) = conn.get("k", false).await.unwrap().found else {
            panic!("it was written");
        };
        assert_eq!(bytes, round.to_string().as_bytes());
        other.await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_is_not_polled_any_more_holds_up_nobody() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    set(&conn, "a", "1").await.unwrap();
    let mut parked = Box::pin(conn.get("a", false));
    assert!(futures_util::poll!(&mut parked).is_pending());
    for _ in 0..3 {
        let got = conn.get("a", false).await.unwrap();
        assert!(matches!(got.found, Found::Bytes(bytes) if bytes == b"1"));
    }
    assert!(matches!(parked.await.unwrap().found, Found::Bytes(_)));
}

#[tokio::test]
async fn a_key_that_may_not_be_read_keeps_no_other_from_being_read() {
    let server = TestServer::start(&[]);
    server.command("ACL SETUSER me on >canary ~mine* +@all\r\nSET mine 1\r\nSET other 2\r\n");
    let url = server.url().replace("//", "//me:canary@");
    let conn = to(&url, patient());
    conn.ready().await.unwrap();
    for _ in 0..20 {
        let keys = ["mine", "other", "mine", "other", "mine"];
        let got = join_all(keys.iter().map(|key| conn.get(key, false))).await;
        for (key, got) in keys.iter().zip(got) {
            match got.unwrap().found {
                Found::Bytes(bytes) => assert_eq!((*key, &bytes[..]), ("mine", &b"1"[..])),
                Found::Refused(error) => assert_eq!((*key, error.code()), ("other", "NOPERM")),
                strange => panic!("{strange:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_server_without_hello_is_spoken_to_as_before() {
    let server = TestServer::start(&["--rename-command", "HELLO", ""]);
    let conn = to(&server.url(), patient());
    set(&conn, "a", "1").await.unwrap();
    assert_eq!(get(&conn, "a").await.unwrap().as_deref(), Some("1"));
    assert!(server.command("CLIENT LIST\r\n").contains("name=larder"));
    assert!(!server.command("CLIENT LIST\r\n").contains("resp=3"));
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    set(&conn, "a", "1").await.unwrap();
    let list = server.command("CLIENT LIST\r\n");
    assert!(list.contains("resp=3") || !list.contains("resp="), "{list}");
}

fn listening(heard: &Arc<Mutex<Vec<Heard>>>) -> ConnectionSettings {
    let heard = Arc::clone(heard);
    let listener = Listener::new(vec!["app:".to_owned()], move |news| {
        heard.lock().unwrap().push(news)
    });
    ConnectionSettings {
        listener: Some(listener),
        ..patient()
    }
}

#[tokio::test]
async fn a_listener_hears_of_writes_under_its_prefix_and_of_their_end() {
    let mut server = TestServer::start(&["--requirepass", "canary"]);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let conn = to(&server.url().replace("//", "//:canary@"), listening(&heard));
    conn.ready().await.unwrap();
    let said = |news: Heard| heard.lock().unwrap().contains(&news);
    assert!(said(Heard::Begun));
    server.command("AUTH canary\r\nSET other 1\r\nSET app:a 1\r\n");
    eventually("the key", || said(Heard::Keys(vec![b"app:a".to_vec()]))).await;
    server.command("AUTH canary\r\nFLUSHALL\r\n");
    eventually("everything", || said(Heard::All)).await;
    server.kill();
    eventually("the end", || said(Heard::Ended)).await;
    let news = heard.lock().unwrap().clone();
    assert!(
        !news.contains(&Heard::Keys(vec![b"other".to_vec()])),
        "{news:?}"
    );
    heard.lock().unwrap().clear();
    server.restart();
    eventually("it begins again", || said(Heard::Begun)).await;
}

#[tokio::test]
async fn a_server_that_tells_nothing_is_used_all_the_same() {
    for args in [
        &["--rename-command", "HELLO", ""],
        &["--rename-command", "CLIENT", ""],
    ] {
        let server = TestServer::start(args);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let conn = to(&server.url(), listening(&heard));
        set(&conn, "app:a", "1").await.unwrap();
        assert_eq!(get(&conn, "app:a").await.unwrap().as_deref(), Some("1"));
        let heard = heard.lock().unwrap().clone();
        assert!(
            matches!(&heard[..], [Heard::Deaf(_)]),
            "{args:?}: {heard:?}"
        );
    }
}

#[tokio::test]
async fn of_several_places_the_first_that_answers_is_taken() {
    let mut first = TestServer::start(&[]);
    let second = TestServer::start(&[]);
    first.kill();
    let nobody = free_port();
    let url = format!(
        "redis://127.0.0.1:{nobody},127.0.0.1:{},127.0.0.1:{}",
        first.port(),
        second.port()
    );
    let conn = Connection::new(Target::parse(&url).unwrap(), patient());
    conn.ready().await.unwrap();
    set(&conn, "a", "1").await.unwrap();
    assert!(second.command("GET a\r\n").contains("$1"));
}

#[tokio::test]
async fn a_delete_that_failed_is_made_up_for_before_the_node_is_used() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        operation_timeout: Duration::from_millis(100),
        connect_timeout: Duration::from_millis(300),
        ping_interval: Duration::from_millis(50),
        ..ConnectionSettings::default()
    };
    let conn = to(&server.url(), settings);
    for key in ["a", "b", "c"] {
        store(&conn, key, "old").await.unwrap();
    }
    server.signal("STOP");
    eventually("the node is down", || !conn.is_up()).await;
    delete(&conn, "a").await.unwrap_err();
    store(&conn, "b", "new").await.unwrap_err();
    assert_eq!(conn.counters().owed, 2);
    server.signal("CONT");
    recovery(&conn, Duration::from_secs(5)).await;
    assert_eq!(get(&conn, "a").await.unwrap(), None);
    assert_eq!(get(&conn, "b").await.unwrap(), None);
    assert_eq!(get(&conn, "c").await.unwrap().as_deref(), Some("old"));
    assert_eq!(conn.counters().owed, 0);
}

#[tokio::test]
async fn a_write_that_follows_a_failed_one_is_not_deleted() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    for round in 0..200 {
        let key = format!("k{}", round % 7);
        // As if a delete had not been answered in time.
        conn.shared().replay.owe([key.as_str(), "other"]);
        store(&conn, &key, "new").await.unwrap();
        if round % 3 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(
            get(&conn, &key).await.unwrap().as_deref(),
            Some("new"),
            "round {round}"
        );
    }
    eventually("nothing is owed", || conn.counters().owed == 0).await;
}

#[tokio::test]
async fn too_many_failed_deletes_empty_what_they_have_in_common() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        operation_timeout: Duration::from_millis(200),
        max_unsettled: 10,
        ..ConnectionSettings::default()
    };
    let conn = to(&server.url(), settings);
    for key in 0..50 {
        set(&conn, &format!("app:{key}"), "old").await.unwrap();
    }
    set(&conn, "other", "old").await.unwrap();
    server.signal("STOP");
    eventually("the node is down", || !conn.is_up()).await;
    for key in 0..20 {
        delete(&conn, &format!("app:{key}")).await.unwrap_err();
    }
    server.signal("CONT");
    recovery(&conn, Duration::from_secs(5)).await;
    for key in 0..50 {
        assert_eq!(get(&conn, &format!("app:{key}")).await.unwrap(), None);
    }
    assert_eq!(get(&conn, "other").await.unwrap().as_deref(), Some("old"));
    // Also where the node stayed up all the time.
    set(&conn, "app:1", "old").await.unwrap();
    conn.owe_all("app:");
    eventually("it is emptied", || {
        server.command("EXISTS app:1\r\n").contains(":0")
    })
    .await;
    recovery(&conn, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_node_that_keeps_falling_over_is_put_on_trial() {
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    let place = scripted(move |connection, words| {
        seen.fetch_max(connection + 1, Ordering::SeqCst);
        // Fine for pings, of no use for anything else.
        greeting(words).unwrap_or(None)
    });
    let settings = ConnectionSettings {
        max_backoff: Duration::from_millis(20),
        ..ConnectionSettings::default()
    };
    let conn = to(&format!("redis://{place}"), settings);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let _ = conn.run::<()>("set", cmd("SET").arg("a").arg(1)).await;
        sleep(Duration::from_millis(5)).await;
    }
    // Three short lives, and then trials of 60, 120, 240 and 480 ms.
    let connections = connections.load(Ordering::SeqCst);
    assert!((5..=11).contains(&connections), "{connections} connections");
}
