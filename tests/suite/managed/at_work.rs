//! A manager in this process, asked by HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use larder::manager::{Config, run};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fleet::Fleet;

const SECOND: Duration = Duration::from_secs(1);

/// A manager in this process; dropped, it is told to end.
pub(crate) struct Managed {
    pub(crate) at: SocketAddr,
    token: Option<String>,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<larder::Result<()>>,
}

/// What was answered by HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

/// A configuration by which a test is not long: what takes ten seconds takes a fifth of one.
pub(crate) fn quick(fleet: &Fleet) -> Config {
    quick_at(&fleet.manager_url())
}

pub(crate) fn quick_at(redis: &str) -> Config {
    let mut config = Config::new(redis);
    let millis = Duration::from_millis;
    config.health.interval = millis(200);
    config.health.retry = millis(50);
    config.health.timeout = millis(500);
    config.health.remove_after = millis(400);
    config.health.hold = millis(300);
    config.health.pause = millis(50);
    config.drain_pause = millis(50);
    config.rate = 100_000;
    config
}

impl Managed {
    pub(crate) async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let token = config.token.clone();
        let task = tokio::spawn(run(listener, config, async {
            let _ = ended.await;
        }));
        let managed = Self {
            at,
            token,
            end: Some(end),
            task,
        };
        let ready = async || managed.get("/healthz").await.status == 200;
        crate::fleet::eventually(10 * SECOND, "the manager is at work", ready).await;
        managed
    }

    /// Ends it in good order.
    pub(crate) async fn end(mut self) {
        let _ = self.end.take().map(|end| end.send(()));
        timeout(15 * SECOND, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Ends it where it stands.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, json: &Value) -> Answer {
        let json = json.to_string();
        self.ask("POST", path, &[("content-type", "application/json")], &json)
            .await
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let token = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = headers.to_vec();
        headers.extend(
            token
                .as_ref()
                .map(|token| ("authorization", token.as_str())),
        );
        ask(self.at, method, path, &headers, body).await
    }

    /// The nodes as they are shown.
    pub(crate) async fn nodes(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/nodes").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["nodes"].as_array().unwrap().clone()
    }

    /// How it is with one of them.
    pub(crate) async fn state(&self, node: &str) -> String {
        let nodes = self.nodes().await;
        let known = nodes.iter().find(|known| known["node"] == node);
        known.map_or("none".to_owned(), |known| {
            known["state"].as_str().unwrap().to_owned()
        })
    }

    /// What happened, the latest first: kind and node.
    pub(crate) async fn events(&self) -> Vec<(String, String)> {
        let events = self.get("/api/v1/events?count=1000").await.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = events["events"].as_array().unwrap().iter();
        events
            .map(|event| (text(&event["kind"]), text(&event["node"])))
            .collect()
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    let named = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"));
    if !named {
        head += &format!("host: {at}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    raw(at, format!("{head}\r\n{body}").as_bytes()).await
}

/// Bytes that may be no request.
pub(crate) async fn raw(at: SocketAddr, request: &[u8]) -> Answer {
    let asked = async {
        let mut stream = TcpStream::connect(at).await?;
        // It may be answered before all of it was read.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        if answer.is_empty() {
            read?;
        }
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(20 * SECOND, asked)
        .await
        .expect("an answer in time")
        .unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.unwrap_or(0),
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        text: text.to_owned(),
    }
}

/// A node as it is shown.
pub(crate) fn label(fleet: &Fleet, node: usize) -> String {
    format!("127.0.0.1:{}/0", fleet.nodes[node].port())
}
