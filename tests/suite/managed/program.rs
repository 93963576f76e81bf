//! The program `larder`, as people start it.

use std::collections::HashMap;
use std::process::{Output, Stdio};
use std::time::Duration;

use redis::Value as Reply;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::{SECOND, ask, label};
use crate::fleet::{Fleet, eventually};
use crate::python::crc32;
use crate::testserver::free_port;

pub(super) fn larder(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    for name in [
        "LARDER_REDIS",
        "LARDER_API",
        "LARDER_TOKEN_FILE",
        "LARDER_PASSWORD_FILE",
    ] {
        command.env_remove(name);
    }
    command
}

async fn run(args: &[&str]) -> Output {
    larder(args).output().await.unwrap()
}

/// What a command printed that was done.
async fn said(args: &[&str]) -> String {
    let output = run(args).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

async fn json(args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    serde_json::from_str(&said(&args).await).unwrap()
}

/// The lookup of the Python SDK: positions sorted as they are spelt, and the first greater number of them.
struct Sdk(Vec<(u32, String)>);

impl Sdk {
    fn of(map: &HashMap<String, String>) -> Self {
        let mut fields: Vec<_> = map.iter().collect();
        fields.sort();
        let position =
            |(at, url): (&String, &String)| (at.parse().unwrap(), larder::ring::label(url));
        Self(fields.into_iter().map(position).collect())
    }

    fn node(&self, key: &str) -> &str {
        let hash = crc32(key.as_bytes());
        let next = self.0.iter().find(|(at, _)| hash < *at);
        &next.unwrap_or(&self.0[0]).1
    }
}

#[tokio::test]
async fn a_ring_is_looked_after_by_commands() {
    let fleet = Fleet::bare(3).await;
    let (redis, urls) = (fleet.manager_url(), fleet.node_urls());
    let to = ["--redis", redis.as_str()];
    for url in &urls {
        let added = json(&[&["node", "add", url], &to[..]].concat()).await;
        assert!(added["epoch"].is_u64(), "{added}");
    }
    let nodes = said(&[&["node", "list"], &to[..]].concat()).await;
    assert!(
        nodes.contains(&label(&fleet, 1)) && nodes.contains("up"),
        "{nodes}"
    );
    assert!(!nodes.contains('\x1b'), "no colours where nobody looks");
    let ring = json(&[&["ring", "show"], &to[..]].concat()).await;
    assert_eq!((&ring["nodes"], &ring["vnodes"]), (&3.into(), &160.into()));
    assert!(ring["python_reader_us"].as_f64().unwrap() > 300.0);
    said(&[&["ring", "verify"], &to[..]].concat()).await;

    // Where keys are, the SDK finds the same, on a map that was published here.
    let map = fleet.manager.raw(13, &["HGETALL", "HASH_RING_MAP"]).await;
    let map: HashMap<String, String> = redis::from_redis_value(map).unwrap();
    let sdk = Sdk::of(&map);
    let mut located = larder(&["ring", "where", "-", "--redis", &redis]);
    let mut located = located
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = located.stdin.take().unwrap();
    let keys: Vec<String> = (0..100_000).map(|i| format!("user:{i}")).collect();
    let text = keys.join("\n");
    let written = tokio::spawn(async move { input.write_all(text.as_bytes()).await });
    let located = located.wait_with_output().await.unwrap();
    written.await.unwrap().unwrap();
    let lines = String::from_utf8(located.stdout).unwrap();
    assert_eq!(lines.lines().count(), keys.len());
    for (key, line) in keys.iter().zip(lines.lines()) {
        assert_eq!(line, format!("{key}\t{}", sdk.node(key)));
    }

    said(&[&["set", "greeting", "hello", "--ttl", "60"], &to[..]].concat()).await;
    assert_eq!(
        said(&[&["get", "greeting"], &to[..]].concat()).await,
        "hello\n"
    );
    assert_eq!(
        said(&[&["del", "greeting", "none"], &to[..]].concat()).await,
        "1\n"
    );
    assert_eq!(
        run(&[&["get", "greeting"], &to[..]].concat())
            .await
            .status
            .code(),
        Some(1)
    );

    let gone = label(&fleet, 2);
    let preview = json(&[&["ring", "preview", "--remove", &gone], &to[..]].concat()).await;
    let removed = json(&[&["node", "remove", &gone], &to[..]].concat()).await;
    assert_eq!(removed["moves"], preview["moves"]);
    let events = json(&[&["events"], &to[..]].concat()).await;
    assert_eq!(events["events"][0]["kind"], "removed");
    let rebuild = run(&[&["ring", "rebuild"], &to[..]].concat()).await;
    assert!(!rebuild.status.success());
    json(
        &[
            &[
                "ring", "rebuild", "--yes", "--labels", "crc32", "--vnodes", "5",
            ],
            &to[..],
        ]
        .concat(),
    )
    .await;

    // What is wrong is said, and the exit code says so too.
    fleet
        .manager
        .raw(13, &["HSET", "HASH_RING_MAP", "7", "redis://127.0.0.1:1/0"])
        .await;
    assert_eq!(
        run(&[&["ring", "verify"], &to[..]].concat())
            .await
            .status
            .code(),
        Some(3)
    );
    fleet.nodes[0].kill();
    assert_eq!(
        run(&[&["node", "check"], &to[..]].concat())
            .await
            .status
            .code(),
        Some(3)
    );
}

async fn is_at_work(port: u16) {
    let at = ([127, 0, 0, 1], port).into();
    let well = async || ask(at, "GET", "/healthz", &[], "").await.status == 200;
    eventually(10 * SECOND, "the manager is at work", well).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_command_is_said() {
    let fleet = Fleet::bare(1).await;
    let redis = fleet.manager_url();
    for (args, code, says) in [
        (vec!["node", "list"], 1, "--redis"),
        (
            vec!["node", "list", "--redis", "redis://:canary@127.0.0.1:1/0"],
            1,
            "127.0.0.1:1/0",
        ),
        (
            vec!["node", "list", "--redis", "http://:canary@h"],
            1,
            "scheme",
        ),
        (
            vec![
                "node",
                "add",
                "redis://:canary@127.0.0.1:1/0",
                "--redis",
                &redis,
            ],
            1,
            "127.0.0.1:1/0",
        ),
        (
            vec!["node", "remove", "127.0.0.1:1/0", "--redis", &redis],
            1,
            "no node",
        ),
        (vec!["node", "list", "--api", "ftp://h"], 1, "http://"),
        (
            vec!["node", "list", "--api", "http://127.0.0.1:1"],
            1,
            "refused",
        ),
        (
            vec!["node", "list", "--redis", "x", "--api", "y"],
            2,
            "cannot be used",
        ),
        (
            vec!["get", "k", "--api", "http://127.0.0.1:1"],
            1,
            "--redis",
        ),
        (vec!["nonsense"], 2, "nonsense"),
        (
            vec!["node", "list", "redis://:canary@h/0"],
            2,
            "redis://***@h",
        ),
        (
            vec![
                "ring",
                "rebuild",
                "--yes",
                "--vnodes",
                "5",
                "--api",
                "http://127.0.0.1:1",
            ],
            1,
            "--redis",
        ),
        (
            vec!["manager", "--redis", &redis, "--listen", "0.0.0.0:0"],
            1,
            "token",
        ),
        (
            vec!["manager", "--redis", &redis, "--listen", "nowhere"],
            1,
            "nowhere",
        ),
        (
            vec!["manager", "--redis", &redis, "--config", "/none.toml"],
            1,
            "/none.toml",
        ),
        (
            vec!["manager", "--redis", &redis, "--interval", "-1"],
            2,
            "-1",
        ),
    ] {
        let output = run(&args).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(
            error.contains(says) && !error.contains("canary"),
            "{args:?}: {error}"
        );
    }
}

/// Settings from a file, a token, commands by HTTP, an end by signal; and a manager that was stopped comes too late.
#[tokio::test]
async fn a_manager_is_started_asked_and_ended() {
    let fleet = Fleet::bare(3).await;
    let dir = std::env::temp_dir().join(format!("larder-program-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let token = file("token", "a-token-of-thirty-two-characters\n");
    let settings = file(
        "manager.toml",
        "labels = \"xxh3\"\nvnodes = 40\n[health]\ninterval = 0.2\nretry = 0.05\ntimeout = 0.3\nremove_after = 0.4\nlease = 1.0\npause = 0.1\n",
    );
    let (redis, ports) = (fleet.manager_url(), [free_port(), free_port()]);
    let start = async |port: u16| -> Child {
        let at = format!("127.0.0.1:{port}");
        let args = [
            "manager",
            "--redis",
            &redis,
            "--listen",
            &at,
            "--token-file",
            &token,
            "--config",
            &settings,
        ];
        let child = larder(&args).env("LARDER_LOG", "trace").spawn().unwrap();
        is_at_work(port).await;
        child
    };
    let mut first = start(ports[0]).await;
    let api = |port: u16| format!("http://127.0.0.1:{port}");
    let (one, two) = (api(ports[0]), api(ports[1]));
    for url in fleet.node_urls() {
        said(&["node", "add", &url, "--api", &one, "--token-file", &token]).await;
    }
    let refused = run(&["node", "list", "--api", &one]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("token"));
    let ring = json(&["ring", "show", "--api", &one, "--token-file", &token]).await;
    assert_eq!(
        (&ring["labels"], &ring["positions"]),
        (&"xxh3".into(), &120.into())
    );

    // The first is stopped for longer than its lease lasts: the second takes over, and what the first had in mind is nothing any more.
    let mut second = start(ports[1]).await;
    let signal = |child: &Child, name: &str| {
        let pid = child.id().unwrap().to_string();
        std::process::Command::new("kill")
            .args([name, &pid])
            .status()
            .unwrap();
    };
    signal(&first, "-STOP");
    let lease = fleet.manager.raw(13, &["GET", "HASH_RING_LEASE"]).await;
    let taken = async || {
        let now = fleet.manager.raw(13, &["GET", "HASH_RING_LEASE"]).await;
        now != Reply::Nil && now != lease
    };
    eventually(10 * SECOND, "the second takes over", taken).await;
    fleet.nodes[0].kill();
    let out = async || {
        let nodes = json(&["node", "list", "--api", &two, "--token-file", &token]).await;
        nodes["nodes"].to_string().contains("\"out\"")
    };
    eventually(15 * SECOND, "the second judges", out).await;
    let epoch = fleet
        .manager
        .raw(13, &["HGET", "HASH_RING_META", "epoch"])
        .await;
    signal(&first, "-CONT");
    let bearer = "Bearer a-token-of-thirty-two-characters";
    let gave_up = async || {
        let at = ([127, 0, 0, 1], ports[0]).into();
        let health = ask(
            at,
            "GET",
            "/api/v1/health",
            &[("authorization", bearer)],
            "",
        )
        .await;
        health.json()["leads"] == false
    };
    eventually(10 * SECOND, "the first hears of it", gave_up).await;
    assert_eq!(
        fleet
            .manager
            .raw(13, &["HGET", "HASH_RING_META", "epoch"])
            .await,
        epoch
    );
    for child in [&mut first, &mut second] {
        signal(child, "-TERM");
        let ended = tokio::time::timeout(15 * SECOND, child.wait())
            .await
            .unwrap()
            .unwrap();
        assert!(ended.success(), "{ended}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// The settings of the Python server.
#[tokio::test]
async fn a_python_servers_settings_are_read() {
    let fleet = Fleet::bare(2).await;
    let dir = std::env::temp_dir().join(format!("larder-python-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("config.yml");
    let pass = crate::support::password().unwrap_or_default();
    let text = format!(
        "core:\n  DEBUG: True\n  VNODE_REPLICAS: 7\nlog:\n  logging_info_file: 'info.log'\nredis:\n  host: 127.0.0.1\n  port: {}\n  pass: {pass}\n  db: 13\n",
        fleet.manager.port()
    );
    std::fs::write(&path, text).unwrap();
    let port = free_port();
    let (at, path) = (format!("127.0.0.1:{port}"), path.display().to_string());
    let _child = larder(&["manager", "--config", &path, "--listen", &at])
        .env("LARDER_LOG", "trace")
        .spawn()
        .unwrap();
    is_at_work(port).await;
    let api = format!("http://{at}");
    said(&["node", "add", &fleet.node_urls()[0], "--api", &api]).await;
    assert_eq!(json(&["ring", "show", "--api", &api]).await["positions"], 7);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Where a publication is when its process is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    /// The map is asked for.
    Reading,
    /// The change is on its way, and not sent.
    Unsent,
    /// Half of it is sent.
    HalfSent,
    /// All of it is sent, and not answered.
    Unanswered,
}

/// Killed at any point of a publication, a manager leaves the map as it was, or as it was to be; and the next one goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_while_it_publishes_leaves_no_half_of_a_map() {
    const KILLS: usize = 20;
    let fleet = Fleet::bare(3).await;
    let (redis, urls) = (fleet.manager_url(), fleet.node_urls());
    for url in &urls {
        said(&["node", "add", url, "--redis", &redis]).await;
    }
    let reader = {
        let url = redis.clone();
        tokio::spawn(async move {
            let client = redis::Client::open(url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            loop {
                let mut both = redis::pipe();
                let both = both
                    .atomic()
                    .hgetall("HASH_RING_MAP")
                    .hgetall("HASH_RING_META");
                let (map, meta): (Vec<(String, String)>, HashMap<String, String>) =
                    both.query_async(&mut connection).await.unwrap();
                let ring =
                    larder::ring::Ring::from_fields(map, larder::ring::Order::Numeric).unwrap();
                assert_eq!(format!("{:016x}", ring.digest()), meta["digest"]);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let name = label(&fleet, 2);
    let mut published = 0;
    for point in [
        Point::Reading,
        Point::Unsent,
        Point::HalfSent,
        Point::Unanswered,
    ] {
        for kill in 0..KILLS {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap().port();
            let through = redis.replace(&format!(":{}/", fleet.manager.port()), &format!(":{at}/"));
            let (reached, mut there) = mpsc::channel(8);
            let proxy = tokio::spawn(cut(listener, fleet.manager.port(), point, reached));
            let remove = ["node", "remove", &name, "--redis", &through];
            let add = ["node", "add", &urls[2], "--redis", &through];
            let is_in = said(&["node", "list", "--redis", &redis])
                .await
                .contains(&name);
            let args = if is_in { &remove } else { &add };
            let mut child = larder(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            tokio::time::timeout(20 * SECOND, there.recv())
                .await
                .expect("the point is reached")
                .unwrap();
            child.kill().await.unwrap();
            proxy.abort();
            // The next one goes on.
            let verified = run(&["ring", "verify", "--redis", &redis]).await;
            assert!(
                verified.status.success(),
                "{point:?} {kill}: {}",
                String::from_utf8_lossy(&verified.stdout)
            );
            let now = said(&["node", "list", "--redis", &redis])
                .await
                .contains(&name);
            published += usize::from(now != is_in);
            // What was sent whole was answered, and so done.
            assert_eq!(now != is_in, point == Point::Unanswered, "{point:?}");
        }
    }
    assert!(!reader.is_finished(), "{:?}", reader.await);
    println!(
        "{} kills at each of 4 points, {published} of the changes were made, no half of a map was read",
        KILLS
    );
    reader.abort();
}

/// Passes a connection on until the point, says so, and passes nothing any more.
async fn cut(listener: TcpListener, to: u16, point: Point, reached: mpsc::Sender<()>) {
    let mark: &[u8] = if point == Point::Reading {
        b"HGETALL"
    } else {
        b"cjson.decode"
    };
    while let Ok((client, _)) = listener.accept().await {
        let reached = reached.clone();
        tokio::spawn(async move {
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let (hold, mut held) = tokio::sync::watch::channel(false);
            let there = reached.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                    if *held.borrow_and_update() {
                        // The answer is there, and nobody hears it.
                        let _ = there.send(()).await;
                        return;
                    }
                    if to_client.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
            let mut seen = Vec::new();
            let mut buffer = vec![0; 256 << 10];
            while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                seen.extend_from_slice(&buffer[..count]);
                let is_it = seen.windows(mark.len()).any(|part| part == mark);
                let part = match point {
                    _ if !is_it => count,
                    Point::Reading | Point::Unsent => 0,
                    Point::HalfSent => count / 2,
                    Point::Unanswered => count,
                };
                if is_it && point == Point::Unanswered {
                    let _ = hold.send(true);
                }
                let _ = to_server.write_all(&buffer[..part]).await;
                if is_it && point != Point::Unanswered {
                    let _ = reached.send(()).await;
                    break;
                }
            }
            std::future::pending::<()>().await;
        });
    }
}
