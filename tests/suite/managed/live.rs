//! The stream of what a ring does, and the page that shows it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Managed, SECOND, ask, label, quick};
use crate::fleet::{Fleet, eventually};

/// A stream that somebody reads.
struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Opens one; answers the status too.
    async fn open(managed: &Managed, token: &str) -> (String, Self) {
        let at = managed.at;
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!(
            "GET /api/v1/live HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self(BufReader::new(stream));
        let status = stream.line().await.unwrap();
        (status, stream)
    }

    /// The next line, of headers, of chunks or of events; nothing at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(10 * SECOND, self.0.read_line(&mut line)).await;
        (read.unwrap().unwrap_or(0) > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line().await?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

/// Connections of managers to a node.
async fn connections(fleet: &Fleet, node: usize) -> usize {
    let list = fleet.nodes[node].raw(0, &["CLIENT", "LIST"]).await;
    let list: String = redis::from_redis_value(list).unwrap();
    list.matches("name=larder-manager").count()
}

#[tokio::test]
async fn what_a_ring_does_is_told_while_somebody_looks() {
    let fleet = Fleet::bare(2).await;
    let token = "t".repeat(32);
    let mut config = quick(&fleet);
    config.token = Some(token.clone());
    let managed = Managed::start(config).await;
    let (refused, _) = Stream::open(&managed, "x").await;
    assert!(refused.contains("401"), "{refused}");
    for url in fleet.node_urls() {
        let added = managed.post("/api/v1/nodes", &json!({ "url": url })).await;
        assert_eq!(added.status, 200, "{added:?}");
    }
    fleet.nodes[0].raw(0, &["SET", "a", "1"]).await;
    fleet.nodes[0].raw(0, &["GET", "a"]).await;
    let once = async || connections(&fleet, 0).await == 1;
    eventually(10 * SECOND, "the watch alone is connected", once).await;

    let (status, mut stream) = Stream::open(&managed, &token).await;
    assert!(status.contains("200"), "{status}");
    let first = stream.next().await.unwrap();
    assert_eq!(first["ring"]["nodes"], 2, "{first}");
    assert_eq!(first["events"][0]["kind"], "added", "{first}");
    let name = label(&fleet, 0);
    let load = |told: &Value| {
        let nodes = told["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["node"] == *name);
        node.unwrap()["load"].clone()
    };
    let told = load(&first);
    assert!(told["keys"].as_u64() >= Some(1), "{told}");
    assert!(told["hits"].as_u64() >= Some(1), "{told}");
    assert!(told["memory"].as_u64() > Some(100_000), "{told}");
    // One that is gone tells nothing, and keeps nobody from being told of the others.
    fleet.nodes[0].kill();
    let silent = async || load(&stream.next().await.unwrap()).is_null();
    eventually(10 * SECOND, "it tells nothing", silent).await;
    fleet.nodes[0].restart().await;

    // So many may look on, and no more.
    let mut others = Vec::new();
    for _ in 0..15 {
        let (status, mut other) = Stream::open(&managed, &token).await;
        assert!(status.contains("200"), "{status}");
        assert!(other.next().await.is_some());
        others.push(other);
    }
    let (full, _) = Stream::open(&managed, &token).await;
    assert!(full.contains("503"), "{full}");
    drop((others, stream));
    let free = async || Stream::open(&managed, &token).await.0.contains("200");
    eventually(10 * SECOND, "there is room again", free).await;
    eventually(10 * SECOND, "nobody looks, and nothing is asked", once).await;

    // Whoever looks on holds up no end.
    let (_, mut last) = Stream::open(&managed, &token).await;
    assert!(last.next().await.is_some());
    let began = Instant::now();
    managed.end().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    while last.next().await.is_some() {}
}

#[tokio::test]
async fn the_page_holds_nothing_and_runs_nothing_else() {
    let fleet = Fleet::bare(1).await;
    let mut config = quick(&fleet);
    config.token = Some("t".repeat(32));
    let managed = Managed::start(config).await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = ask(managed.at, "GET", path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.headers["content-type"].starts_with(kind),
            "{answer:?}"
        );
        let policy = &answer.headers["content-security-policy"];
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    let page = ask(managed.at, "GET", "/", &[], "").await.text;
    for what in [" style=", " onclick", "<style", "javascript:", "//cdn"] {
        assert!(!page.contains(what), "{what}");
    }
    assert_eq!(page.matches("<script").count(), 1);
}
