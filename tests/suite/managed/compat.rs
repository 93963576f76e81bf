//! The Python server's calls: each request that it was asked, as recorded in tests/compat, is asked of a manager.

use std::collections::BTreeMap;

use larder::manager::Labels;
use serde_json::{Map, Value, json};

use super::{Managed, ask, quick};
use crate::fleet::Fleet;
use crate::support::{Server, password};
use crate::testserver::free_port;

const CASES: &str = include_str!("../../compat/server_cases.json");
const RECORDED: &str = include_str!("../../compat/python_server.json");

/// Where the answers differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("PUT", "another method than POST is told so, as GET is"),
    ("paths that are none", "404 in JSON, not in HTML"),
    (
        "a db that is the beginning of another's, removed",
        "db 1 is not db 15: the Python server removes that one",
    ),
    (
        "a host that is the end of another's",
        "27.0.0.1 is not 127.0.0.1: the Python server removes that one",
    ),
    (
        "a port that is the beginning of another's",
        "1234 is not 12345: the Python server takes it for known",
    ),
    (
        "a port above 65535",
        "no port: the Python server puts another one on the ring under its name",
    ),
    (
        "a db that is true or false",
        "no number: the Python server puts redis://host:port/False on the ring",
    ),
    (
        "a port with a fraction, as a JSON number",
        "no port, and said so: the Python server breaks",
    ),
    ("numbers as Python writes them", "1_0 is no number"),
    (
        "a password where none is needed",
        "the server lets it in, by AUTH with a name",
    ),
    (
        "one node of two down",
        "the others are told of, and the one that is down has its error",
    ),
    (
        "two nodes of three down",
        "half failing at once is the manager that is cut off: the Python server takes them off, one a pass, to the last",
    ),
];

struct Places(Vec<(String, String)>);

impl Places {
    /// A text with the ports of this run.
    fn filled(&self, text: &str) -> String {
        let fill = |text: String, (name, port): &(String, String)| text.replace(name, port);
        self.0.iter().fold(text.to_owned(), fill)
    }

    /// A text with the names of ports.
    fn named(&self, text: &str) -> String {
        let nodes = self
            .0
            .iter()
            .filter(|(name, _)| !name.starts_with("{prefix"));
        nodes.fold(text.to_owned(), |text, (name, port)| {
            text.replace(port, name)
        })
    }
}

#[tokio::test]
async fn the_python_servers_callers_are_answered_the_same() {
    assert!(
        password().is_none(),
        "each of its servers has its own password, or none: skip it"
    );
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    let mut differ = BTreeMap::new();
    let locked = Server::start().await;
    let lock = ["CONFIG", "SET", "requirepass", "open sesame"];
    locked.raw(0, &lock).await;
    let port = locked.port().to_string();
    let shared = Fleet::bare(3).await;
    let mut recorded = recorded;
    recorded.iter_mut().for_each(worded);
    for (case, known) in cases.iter().zip(&recorded) {
        assert_eq!(case["case"], known["case"]);
        let name = case["case"].as_str().unwrap();
        let stops = case["requests"].to_string().contains("\"stop\"");
        let own = if stops {
            Some(Fleet::bare(3).await)
        } else {
            None
        };
        let fleet = own.as_ref().unwrap_or(&shared);
        fleet.manager.raw(13, &["FLUSHDB"]).await;
        let mut ours = answers(fleet, &port, case).await;
        worded(&mut ours);
        let theirs = json!([known["answers"], known["map"]]);
        if ours != theirs {
            differ.insert(name.to_owned(), (ours, theirs));
        }
    }
    for (name, (ours, theirs)) in &differ {
        let (ours, theirs) = (ours.to_string(), theirs.to_string());
        if !DIFFERENT.iter().any(|(known, _)| known == name) {
            println!("{name}\n  ours   {ours:.600}\n  theirs {theirs:.600}");
        }
    }
    let differ: Vec<&str> = differ.keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = DIFFERENT.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(differ, expected);
}

/// Why a node cannot be reached, each server tells in words of its own.
fn worded(answers: &mut Value) {
    match answers {
        Value::String(text) => {
            if let Some((why, _)) = text.split_once("节点无法连接:") {
                *text = format!("{why}节点无法连接");
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(worded),
        Value::Array(items) => items.iter_mut().for_each(worded),
        _ => {}
    }
}

async fn answers(fleet: &Fleet, locked: &str, case: &Value) -> Value {
    let mut config = quick(fleet);
    config.labels = Some(Labels::Crc32);
    config.vnodes = Some(5);
    let managed = Managed::start(config).await;
    let mut places = vec![("{locked}".to_owned(), locked.to_owned())];
    places.push(("{gone}".to_owned(), free_port().to_string()));
    for (i, node) in fleet.nodes.iter().enumerate() {
        let port = node.port().to_string();
        places.push((format!("{{prefix:{i}}}"), port[..port.len() - 1].to_owned()));
        places.push((
            format!("{{beyond:{i}}}"),
            (u32::from(node.port()) + 65536).to_string(),
        ));
        places.push((format!("{{node:{i}}}"), port));
    }
    let places = Places(places);
    let mut answers = Vec::new();
    for request in case["requests"].as_array().unwrap() {
        if let Some(stop) = request["stop"].as_u64() {
            fleet.nodes[stop as usize].kill();
            answers.push(Value::Null);
            continue;
        }
        answers.push(answer(&managed, &places, request).await);
    }
    managed.end().await;
    let map = fleet.manager.raw(13, &["HGETALL", "HASH_RING_MAP"]).await;
    let map: BTreeMap<String, String> = redis::from_redis_value(map).unwrap();
    let mut counts = BTreeMap::new();
    for url in map.values() {
        *counts.entry(places.named(url)).or_insert(0) += 1;
    }
    json!([answers, counts])
}

async fn answer(managed: &Managed, places: &Places, request: &Value) -> Value {
    let mut path = request["path"].as_str().unwrap().to_owned();
    let form = |fields: &Map<String, Value>| {
        let encode = |text: &str| {
            let bytes = text.bytes().map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            });
            bytes.collect::<String>()
        };
        let pairs = fields.iter().map(|(name, value)| {
            format!(
                "{}={}",
                encode(name),
                encode(&places.filled(value.as_str().unwrap()))
            )
        });
        pairs.collect::<Vec<_>>().join("&")
    };
    match &request["query"] {
        Value::Object(query) => path += &format!("?{}", form(query)),
        Value::String(query) => path += &format!("?{}", places.filled(query)),
        _ => {}
    }
    let (mut kind, mut body) = ("", String::new());
    if let Some(fields) = request["form"].as_object() {
        (kind, body) = ("application/x-www-form-urlencoded", form(fields));
    } else if !request["json"].is_null() {
        let mut json = request["json"].clone();
        numbered(&mut json, places);
        (kind, body) = ("application/json", json.to_string());
    } else if let Some(text) = request["text"].as_str() {
        (kind, body) = (request["type"].as_str().unwrap_or(""), places.filled(text));
    }
    let headers: Vec<_> = (!kind.is_empty())
        .then_some(("content-type", kind))
        .into_iter()
        .collect();
    let answer = ask(
        managed.at,
        request["method"].as_str().unwrap(),
        &path,
        &headers,
        &body,
    )
    .await;
    let kind = answer
        .headers
        .get("content-type")
        .cloned()
        .unwrap_or_default();
    let mut body = serde_json::from_str::<Value>(&answer.text).unwrap_or(answer.text.into());
    if let Some(at) = body.get_mut("timestamp") {
        assert!(at.is_number());
        *at = "T".into();
    }
    let infos = body.get_mut("result").and_then(Value::as_array_mut);
    for node in infos.into_iter().flatten() {
        let info = node["node_info"].as_object().unwrap();
        node["info"] = (info.len() > 50).into();
        let url = places.named(node["node_url"].as_str().unwrap());
        node["node_url"] = url.into();
        node.as_object_mut().unwrap().remove("node_info");
    }
    json!({ "status": answer.status, "type": kind, "body": body })
}

/// A text of a JSON body that is only a port's name is that number.
fn numbered(json: &mut Value, places: &Places) {
    match json {
        Value::String(text) => {
            let filled = places.filled(text);
            let is_name = text.starts_with('{') && text.ends_with('}');
            *json = match filled.parse::<u64>() {
                Ok(port) if is_name => port.into(),
                _ => filled.into(),
            };
        }
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|value| numbered(value, places)),
        Value::Array(items) => items.iter_mut().for_each(|value| numbered(value, places)),
        _ => {}
    }
}
