//! The connection against real servers, and against servers that misbehave.

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use redis::cmd;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::*;
use crate::wire::NodeAddr;
use crate::wire::testserver::{TestServer, free_port};

/// Room for a busy machine where time is not what is tested.
pub(super) const SLACK: Duration = Duration::from_millis(200);

pub(super) fn patient() -> ConnectionSettings {
    ConnectionSettings {
        connect_timeout: Duration::from_secs(5),
        operation_timeout: Duration::from_secs(5),
        ..ConnectionSettings::default()
    }
}

pub(super) fn to(url: &str, settings: ConnectionSettings) -> Connection {
    Connection::new(NodeAddr::parse(url).unwrap(), settings)
}

fn one_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(super) async fn set(conn: &Connection, key: &str, value: &str) -> Result<()> {
    conn.run("set", cmd("SET").arg(key).arg(value)).await
}

pub(super) async fn get(conn: &Connection, key: &str) -> Result<Option<String>> {
    conn.run("get", cmd("GET").arg(key)).await
}

/// Waits until an operation succeeds; answers how long that took.
pub(super) async fn recovery(conn: &Connection, bound: Duration) -> Duration {
    let began = Instant::now();
    loop {
        match get(conn, "recovery").await {
            Ok(_) => return began.elapsed(),
            Err(error) => assert!(began.elapsed() < bound, "still {error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn code(error: &Error) -> Option<&str> {
    error.context().find(|c| c.0 == "code").map(|c| c.1)
}

fn is_send<T: Send + Sync + 'static>(_: &T) {}

/// A listener whose each connection is given to `serve` in a thread of its own.
pub(super) fn fake(serve: impl Fn(std::net::TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    format!("127.0.0.1:{port}")
}

#[tokio::test]
async fn the_first_operation_connects() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    is_send(&conn);
    assert!(!conn.is_up());
    set(&conn, "a", "1").await.unwrap();
    assert!(conn.is_up());
    assert_eq!(get(&conn.clone(), "a").await.unwrap().as_deref(), Some("1"));
    assert_eq!(get(&conn, "none").await.unwrap(), None);
    conn.ready().await.unwrap();
    assert_eq!(conn.counters(), Counters::default());
    let number: i64 = conn.run("incr", cmd("INCR").arg("a")).await.unwrap();
    assert_eq!(number, 2);
}

#[tokio::test]
async fn a_servers_errors_keep_their_code() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    set(&conn, "a", "x").await.unwrap();
    let wrong = conn.run::<i64>("push", cmd("LPUSH").arg("a").arg(1)).await;
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Rejected);
    assert_eq!(code(&wrong), Some("WRONGTYPE"));
    assert_eq!(wrong.operation(), Some("push"));
    assert!(wrong.to_string().contains(conn.label()), "{wrong}");
    let no_number = conn
        .run::<i64>("incr", cmd("INCR").arg("a"))
        .await
        .unwrap_err();
    assert_eq!(
        (no_number.kind(), code(&no_number)),
        (ErrorKind::Rejected, Some("ERR"))
    );
    let other = conn
        .run::<i64>("get", cmd("GET").arg("a"))
        .await
        .unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Decode);
    let empty = conn.run::<()>("nothing", &Cmd::new()).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Config);
    assert!(conn.is_up());
    assert_eq!(conn.counters(), Counters::default());
}

#[tokio::test]
async fn a_pipeline_keeps_errors_in_their_place() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    let mut pipeline = Pipeline::new();
    assert_eq!(conn.run_pipeline("none", &pipeline).await.unwrap(), []);
    pipeline.cmd("SET").arg("a").arg("x").ignore();
    pipeline.cmd("LPUSH").arg("a").arg(1);
    pipeline.cmd("GET").arg("a");
    for atomic in [false, true] {
        if atomic {
            pipeline.atomic();
        }
        let replies = conn.run_pipeline("many", &pipeline).await.unwrap();
        assert_eq!(replies.len(), 3);
        assert_eq!(replies[0], Value::Okay);
        let Value::ServerError(error) = &replies[1] else {
            panic!("{:?}", replies[1]);
        };
        let error = conn.server_error("many", error);
        assert_eq!(
            (error.kind(), code(&error)),
            (ErrorKind::Rejected, Some("WRONGTYPE"))
        );
        assert_eq!(replies[2], Value::BulkString(b"x".to_vec()));
    }
    pipeline.cmd("NOSUCHCOMMAND").arg("canary");
    let refused = conn.run_pipeline("many", &pipeline).await.unwrap_err();
    assert_eq!(
        (refused.kind(), code(&refused)),
        (ErrorKind::Rejected, Some("ERR"))
    );
    assert!(!refused.to_string().contains("canary"), "{refused}");
    assert_eq!(get(&conn, "a").await.unwrap().as_deref(), Some("x"));
}

#[tokio::test]
async fn a_refused_multi_is_an_error_and_no_panic() {
    let server = TestServer::start(&[]);
    server.command("ACL SETUSER me on >canary ~* +@all -multi\r\n");
    let url = server.url().replace("//", "//me:canary@");
    let conn = to(&url, patient());
    let mut pipeline = Pipeline::new();
    pipeline.atomic().cmd("SET").arg("a").arg(1);
    let refused = conn.run_pipeline("many", &pipeline).await.unwrap_err();
    assert_eq!(
        (refused.kind(), code(&refused)),
        (ErrorKind::Rejected, Some("NOPERM"))
    );
    assert_eq!(get(&conn, "none").await.unwrap(), None);
    assert_eq!(conn.counters(), Counters::default());
}

#[tokio::test]
async fn credentials_and_databases() {
    let server = TestServer::start(&["--requirepass", "p@ss/w:rd"]);
    server.command("AUTH p@ss/w:rd\r\nACL SETUSER me on >canary ~* +@all -ping\r\nACL SETUSER any on nopass ~* +@all\r\n");
    let place = server.url().replace("redis://", "");
    for credentials in [
        ":p@ss%2Fw:rd@",
        "default:p%40ss%2Fw%3Ard@",
        "me:canary@",
        "any@",
        "any:x@",
    ] {
        let conn = to(&format!("redis://{credentials}{place}/3"), patient());
        conn.ready().await.unwrap();
        set(&conn, "here", "3").await.unwrap();
        let other = to(&format!("redis://{credentials}{place}"), patient());
        assert_eq!(get(&other, "here").await.unwrap(), None, "{credentials}");
    }
    let table = [
        (":canary@", "", "WRONGPASS"),
        ("me:wrongcanary@", "", "WRONGPASS"),
        ("", "", "NOAUTH"),
        ("me:canary@", "/4711", "ERR"),
    ];
    for (credentials, db, expected) in table {
        let conn = to(&format!("redis://{credentials}{place}{db}"), patient());
        let error = conn.ready().await.unwrap_err();
        assert_eq!(
            (error.kind(), code(&error)),
            (ErrorKind::Rejected, Some(expected))
        );
        let later = get(&conn, "a").await.unwrap_err();
        assert_eq!(
            (later.kind(), code(&later)),
            (ErrorKind::Unavailable, Some(expected))
        );
        let shown = format!("{error} {error:?} {later} {later:?} {conn:?} {conn:#?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[tokio::test]
async fn a_server_that_repeats_the_password_is_not_repeated() {
    let turn = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let place = fake(move |mut stream| {
        let mut request = [0; 1024];
        let count = stream.read(&mut request).unwrap_or(0);
        let seen = String::from_utf8_lossy(&request[..count]).replace("\r\n", " ");
        let words = if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            format!("unknown command 'AUTH', with args beginning with: {seen}")
        } else {
            format!("no {seen}")
        };
        let _ = write!(stream, "-ERR {words}\r\n");
    });
    for _ in 0..10 {
        let conn = to(&format!("redis://someone:canary@{place}"), patient());
        let error = conn.ready().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        let later = get(&conn, "a").await.unwrap_err();
        let shown = format!("{error} {error:?} {later} {later:?} {conn:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[tokio::test]
async fn a_server_without_users_is_given_the_password_alone() {
    let place = fake(|mut stream| {
        let mut request = [0; 1024];
        while let Ok(count) = stream.read(&mut request)
            && count > 0
        {
            let seen = String::from_utf8_lossy(&request[..count]).into_owned();
            for command in seen.split('*').skip(1) {
                let answer = match command {
                    _ if command.contains("HELLO") => "-ERR unknown command 'HELLO'\r\n",
                    _ if command.starts_with("3\r\n$4\r\nAUTH") => {
                        "-ERR wrong number of arguments for 'auth' command\r\n"
                    }
                    _ => "+OK\r\n",
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    let conn = to(&format!("redis://someone:canary@{place}"), patient());
    conn.ready().await.unwrap();
}

#[tokio::test]
async fn what_is_no_redis_is_unavailable() {
    let place = fake(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let error = to(&format!("redis://{place}"), patient()).ready().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    let full = fake(|mut stream| {
        let _ = stream.write_all(b"-ERR max number of clients reached\r\n");
    });
    let error = to(&format!("redis://{full}"), patient())
        .ready()
        .await
        .unwrap_err();
    // The reset may overtake the words.
    assert!(
        matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Unavailable),
        "{error}"
    );
    let unknown = to("redis://no-such-host.invalid", patient()).ready().await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn a_build_without_tls_says_so() {
    let conn = to("rediss://127.0.0.1", patient());
    for error in [
        conn.ready().await.unwrap_err(),
        conn.start().unwrap_err(),
        get(&conn, "a").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_costs_the_bound() {
    let place = fake(|stream| {
        std::thread::sleep(Duration::from_secs(20));
        drop(stream);
    });
    let conn = to(&format!("redis://{place}"), ConnectionSettings::default());
    let began = Instant::now();
    let error = get(&conn, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let error = conn.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(began.elapsed() < Duration::from_millis(500) + SLACK);
    let began = Instant::now();
    let error = get(&conn, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(began.elapsed() < Duration::from_millis(50));
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let conn = to("redis://127.0.0.1:1", patient());
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = pin!(get(&conn, "a")).poll(&mut cx) else {
        panic!("an error at once");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("runtime"), "{error}");
    let Poll::Ready(Err(error)) = pin!(conn.ready()).poll(&mut cx) else {
        panic!("an error at once");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(conn.start().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(pin!(conn.shutdown()).poll(&mut cx).is_ready());
}

#[test]
fn a_static_outlives_its_runtimes() {
    static CONN: OnceLock<Connection> = OnceLock::new();
    let server = TestServer::start(&[]);
    let conn = CONN.get_or_init(|| to(&server.url(), ConnectionSettings::default()));
    for round in 0..3 {
        one_thread().block_on(async {
            let value = round.to_string();
            set(conn, "round", &value).await.unwrap();
            assert_eq!(get(conn, "round").await.unwrap(), Some(value));
        });
    }
    assert_eq!(
        conn.counters(),
        Counters {
            timeouts: 0,
            reconnects: 2,
            ..Counters::default()
        }
    );
}

#[test]
fn a_runtime_that_nobody_drives_is_left_behind() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), ConnectionSettings::default());
    let first = one_thread();
    first.block_on(async { set(&conn, "a", "1").await.unwrap() });
    let second = one_thread();
    second.block_on(async {
        let took = recovery(&conn, Duration::from_secs(1)).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        for _ in 0..20 {
            assert_eq!(get(&conn, "a").await.unwrap().as_deref(), Some("1"));
        }
    });
    // And back, and both at once.
    first.block_on(async { recovery(&conn, Duration::from_secs(1)).await });
    let connects = conn.counters().reconnects;
    let other = conn.clone();
    let thread = std::thread::spawn(move || {
        second.block_on(async {
            recovery(&other, Duration::from_secs(1)).await;
            for _ in 0..300 {
                get(&other, "a").await.unwrap();
            }
        });
    });
    first.block_on(async {
        while !thread.is_finished() {
            get(&conn, "a").await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    });
    thread.join().unwrap();
    assert_eq!(
        conn.counters().reconnects,
        connects,
        "driven runtimes share"
    );
}

/// Callers who wait for less than it takes to tell find out together.
#[cfg(feature = "ring")]
#[test]
fn those_with_little_patience_leave_a_runtime_that_nobody_drives_behind() {
    use crate::wire::node::Node;
    use crate::wire::raw::Raw;
    let server = TestServer::start(&[]);
    let addr = NodeAddr::parse(&server.url()).unwrap();
    let node = Node::new(addr, &ConnectionSettings::default());
    let hasty = async || {
        let bound = Some(Duration::from_millis(20));
        let ping = cmd("PING");
        node.send(0, &[], Raw::One(&ping), bound).await
    };
    let first = one_thread();
    first.block_on(node.ready()).unwrap();
    first.block_on(hasty()).unwrap();
    let began = Instant::now();
    one_thread().block_on(async {
        while let Err(error) = hasty().await {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(began.elapsed() < Duration::from_secs(5), "still {error}");
        }
    });
    assert!(began.elapsed() >= ConnectionSettings::default().operation_timeout);
    drop(first);
}

#[test]
fn a_runtime_that_stopped_while_connecting_or_down_is_left_behind() {
    for down in [false, true] {
        let mut server = TestServer::start(&[]);
        server.kill();
        let conn = to(&server.url(), ConnectionSettings::default());
        let first = one_thread();
        first.block_on(async {
            if down {
                conn.ready().await.unwrap_err();
            } else {
                conn.start().unwrap();
            }
        });
        server.restart();
        one_thread().block_on(recovery(&conn, Duration::from_secs(2)));
        drop(first);
    }
}

#[tokio::test]
async fn a_dead_node_fails_at_once_and_comes_back_by_itself() {
    let mut server = TestServer::start(&[]);
    let conn = to(&server.url(), ConnectionSettings::default());
    conn.ready().await.unwrap();
    for _ in 0..2 {
        server.kill();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            let each = Instant::now();
            let error = get(&conn, "a").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(
                each.elapsed() < Duration::from_millis(50),
                "{:?}",
                each.elapsed()
            );
            sleep(Duration::from_millis(20)).await;
        }
        assert!(!conn.is_up());
        server.restart();
        recovery(&conn, Duration::from_secs(2)).await;
    }
    assert_eq!(
        conn.counters(),
        Counters {
            timeouts: 0,
            reconnects: 2,
            ..Counters::default()
        }
    );
    // By itself: nobody asks while it is away or when it returns.
    server.kill();
    sleep(Duration::from_millis(300)).await;
    server.restart();
    sleep(Duration::from_secs(2)).await;
    assert!(conn.is_up());
}

#[tokio::test]
async fn a_node_that_was_never_there_is_found_when_it_comes() {
    let mut server = TestServer::start(&[]);
    server.kill();
    let conn = to(&server.url(), ConnectionSettings::default());
    let error = conn.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    server.restart();
    recovery(&conn, Duration::from_secs(2)).await;
    conn.ready().await.unwrap();
}

#[tokio::test]
async fn a_frozen_node_costs_each_operation_its_bound() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), ConnectionSettings::default());
    set(&conn, "a", "1").await.unwrap();
    server.signal("STOP");
    let (began, mut timeouts, mut failures) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(3) {
        let each = Instant::now();
        let error = get(&conn, "a").await.unwrap_err();
        assert!(
            each.elapsed() < Duration::from_millis(250) + SLACK,
            "{:?}",
            each.elapsed()
        );
        match error.kind() {
            ErrorKind::Timeout => timeouts += 1,
            ErrorKind::Unavailable => failures += 1,
            _ => panic!("{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert!(
        (2..=3).contains(&timeouts) && failures > 10,
        "{timeouts} {failures}"
    );
    server.signal("CONT");
    recovery(&conn, Duration::from_secs(2)).await;
    assert_eq!(get(&conn, "a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_short_stall_keeps_the_connection_whatever_the_load() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), ConnectionSettings::default());
    conn.ready().await.unwrap();
    server.signal("STOP");
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let conn = conn.clone();
            tokio::spawn(async move { get(&conn, "a").await })
        })
        .collect();
    for caller in callers {
        assert_eq!(
            caller.await.unwrap().unwrap_err().kind(),
            ErrorKind::Timeout
        );
    }
    server.signal("CONT");
    recovery(&conn, Duration::from_secs(1)).await;
    assert_eq!(conn.counters().reconnects, 0);
    assert!(conn.counters().timeouts >= 100);
}

/// Passes bytes both ways; once `dead`, the connections of that time stay open and pass nothing more.
fn proxy(server: &TestServer, dead: Arc<AtomicBool>) -> String {
    let port = server.port();
    fake(move |near| {
        let far = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let dead = Arc::clone(&dead);
        let pump = move |mut from: std::net::TcpStream, mut to: std::net::TcpStream| {
            let mut block = [0; 4096];
            loop {
                match from.read(&mut block) {
                    Ok(count) if count > 0 => {
                        while dead.load(Ordering::Relaxed) {
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        if to.write_all(&block[..count]).is_err() {
                            return;
                        }
                    }
                    _ => return,
                }
            }
        };
        let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let pump_back = pump.clone();
        std::thread::spawn(move || pump_back(back.0, back.1));
        pump(near, far);
    })
}

#[tokio::test]
async fn a_dead_flow_is_given_up_after_three_timeouts() {
    let server = TestServer::start(&[]);
    let dead = Arc::new(AtomicBool::new(false));
    let place = proxy(&server, Arc::clone(&dead));
    let conn = to(&format!("redis://{place}"), ConnectionSettings::default());
    set(&conn, "a", "1").await.unwrap();
    dead.store(true, Ordering::Relaxed);
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(
            get(&conn, "a").await.unwrap_err().kind(),
            ErrorKind::Timeout
        );
    }
    assert!(!conn.is_up());
    dead.store(false, Ordering::Relaxed);
    recovery(&conn, Duration::from_secs(1)).await;
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(conn.counters().reconnects, 1);
}

#[tokio::test]
async fn an_idle_dead_flow_is_found_by_ping() {
    let server = TestServer::start(&[]);
    let dead = Arc::new(AtomicBool::new(false));
    let place = proxy(&server, Arc::clone(&dead));
    let conn = to(&format!("redis://{place}"), ConnectionSettings::default());
    conn.ready().await.unwrap();
    dead.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(2300)).await;
    assert!(!conn.is_up());
    assert!(conn.counters().timeouts >= 3);
}

#[tokio::test]
async fn a_killed_client_reconnects() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    conn.ready().await.unwrap();
    server.command("CLIENT KILL TYPE normal SKIPME yes\r\n");
    recovery(&conn, Duration::from_secs(1)).await;
    assert_eq!(
        conn.counters(),
        Counters {
            timeouts: 0,
            reconnects: 1,
            ..Counters::default()
        }
    );
}

#[tokio::test]
async fn an_oversized_value_is_too_large_and_costs_nothing_else() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        max_reply_bytes: 1 << 20,
        ..patient()
    };
    let conn = to(&server.url(), settings);
    set(&conn, "small", "1").await.unwrap();
    let big = cmd("SETRANGE").arg("big").arg(64 << 20).arg("x").to_owned();
    conn.run::<i64>("set", &big).await.unwrap();
    for _ in 0..2 {
        let error = get(&conn, "big").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(error.message().contains("67108865"), "{error}");
    }
    let keys = ["small", "big", "small"];
    let Value::Array(values) = conn.run("get_many", cmd("MGET").arg(&keys)).await.unwrap() else {
        panic!("no array");
    };
    assert_eq!(values[0], Value::BulkString(b"1".to_vec()));
    assert_eq!(values[2], Value::BulkString(b"1".to_vec()));
    let Value::ServerError(error) = &values[1] else {
        panic!("{:?}", values[1]);
    };
    assert_eq!(
        conn.server_error("get_many", error).kind(),
        ErrorKind::TooLarge
    );
    assert_eq!(conn.counters(), Counters::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_operations_leave_the_answers_of_others_alone() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), patient());
    let mut pipeline = Pipeline::new();
    for i in 0..100 {
        pipeline
            .cmd("SET")
            .arg(format!("k{i}"))
            .arg(format!("v{i}"));
    }
    conn.run_pipeline("set", &pipeline).await.unwrap();
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let conn = conn.clone();
            tokio::spawn(async move {
                let (mut kept, mut dropped) = (0, 0);
                for i in 0..1500_u64 {
                    let key = (i * 7 + task * 13) % 100;
                    let bound = Duration::from_micros(if i % 2 == 0 { 5_000_000 } else { i % 300 });
                    match timeout(bound, get(&conn, &format!("k{key}"))).await {
                        Ok(value) => {
                            assert_eq!(value.unwrap(), Some(format!("v{key}")));
                            kept += 1;
                        }
                        Err(_) => dropped += 1,
                    }
                }
                (kept, dropped)
            })
        })
        .collect();
    let mut dropped = 0;
    for task in tasks {
        let (kept, gone) = task.await.unwrap();
        assert!(kept >= 750);
        dropped += gone;
    }
    assert!(dropped > 0, "some were dropped");
    assert_eq!(conn.counters(), Counters::default());
}

/// Waits until the server no longer lists a client of this name.
async fn unlisted(server: &TestServer, name: &str) {
    let began = Instant::now();
    while server.command("CLIENT LIST\r\n").contains(name) {
        assert!(began.elapsed() < Duration::from_secs(2), "still listed");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn dropping_the_last_clone_ends_the_task() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        client_name: Some("droptest".to_owned()),
        ..patient()
    };
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let conn = to(&server.url(), settings);
    conn.ready().await.unwrap();
    assert!(server.command("CLIENT LIST\r\n").contains("name=droptest"));
    // The supervisor, and the watch over its callers.
    assert_eq!(tasks(), before + 2);
    let other = conn.clone();
    drop(conn);
    assert_eq!(get(&other, "a").await.unwrap(), None);
    drop(other);
    unlisted(&server, "name=droptest").await;
    assert_eq!(tasks(), before);
    // Also one that has not connected yet, or cannot.
    let nowhere = to(&format!("redis://127.0.0.1:{}", free_port()), patient());
    nowhere.start().unwrap();
    assert_eq!(tasks(), before + 1);
    nowhere.ready().await.unwrap_err();
    drop(nowhere);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(tasks(), before);
}

#[tokio::test]
async fn shutdown_waits_for_what_is_under_way() {
    let server = TestServer::start(&[]);
    let settings = ConnectionSettings {
        client_name: Some("shutdowntest".to_owned()),
        ..patient()
    };
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let conn = to(&server.url(), settings);
    conn.ready().await.unwrap();
    let slow = conn.clone();
    let slow = tokio::spawn(async move {
        slow.run::<Value>("slow", cmd("BLPOP").arg("none").arg("0.3"))
            .await
    });
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let (one, two) = (conn.clone(), conn.clone());
    let one = tokio::spawn(async move { one.shutdown().await });
    tokio::task::yield_now().await;
    let error = get(&conn, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    two.shutdown().await;
    one.await.unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), Value::Nil);
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(200) && took < Duration::from_secs(2),
        "{took:?}"
    );
    unlisted(&server, "name=shutdowntest").await;
    assert_eq!(tasks(), before);
    assert_eq!(
        get(&conn, "a").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        conn.ready().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    conn.shutdown().await;
}

#[tokio::test]
async fn shutdown_is_bounded() {
    let server = TestServer::start(&[]);
    let conn = to(&server.url(), ConnectionSettings::default());
    conn.ready().await.unwrap();
    server.signal("STOP");
    let slow = conn.clone();
    let slow = tokio::spawn(async move { get(&slow, "a").await });
    sleep(Duration::from_millis(20)).await;
    let began = Instant::now();
    conn.shutdown().await;
    assert!(began.elapsed() < Duration::from_millis(350) + SLACK);
    slow.await.unwrap().unwrap_err();
}

mod events {
    use std::fmt::Write;
    use std::sync::Mutex;

    use tracing::field::{Field, Visit};
    use tracing::span;

    use super::*;

    /// Keeps the events of this thread as text.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    impl tracing::Subscriber for Log {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target().starts_with("larder")
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Text(String);
            impl Visit for Text {
                fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                    let _ = write!(self.0, " {field}={value:?}");
                }
            }
            let metadata = event.metadata();
            let mut text = Text(metadata.target().to_owned());
            event.record(&mut text);
            self.0.lock().unwrap().push_str(&(text.0 + "\n"));
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[tokio::test]
    async fn each_change_is_told_once_and_without_secrets() {
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let mut server = TestServer::start(&["--requirepass", "canary"]);
        let conn = to(&server.url().replace("//", "//:canary@"), patient());
        conn.ready().await.unwrap();
        server.kill();
        sleep(Duration::from_millis(500)).await;
        let _ = set(&conn, "somekey", "canary").await;
        server.restart();
        recovery(&conn, Duration::from_secs(2)).await;
        let wrong = to(&server.url().replace("//", "//:othercanary@"), patient());
        wrong.ready().await.unwrap_err();
        let text = log.0.lock().unwrap().clone();
        let names: Vec<_> = text.lines().map(|l| l.split(' ').nth(1).unwrap()).collect();
        let [up, down] = ["event=\"node_up\"", "event=\"node_down\""];
        assert_eq!(names, [up, down, up, down], "{text}");
        let label = conn.label();
        assert!(
            text.lines()
                .all(|l| l.starts_with("larder::wire event=") && l.contains(label))
        );
        assert!(
            !text.contains("canary") && !text.contains("somekey"),
            "{text}"
        );
    }
}
