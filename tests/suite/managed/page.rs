//! The examples of docs/MANAGER.md, in their order.

use serde_json::Value;

use super::{Answer, Managed, quick};
use crate::fleet::Fleet;

#[tokio::test]
async fn the_pages_examples_are_answered_so() {
    let page = include_str!("../../../docs/MANAGER.md");
    let (_, examples) = page.split_once("```http\n").unwrap();
    let (examples, _) = examples.split_once("```").unwrap();
    let fleet = Fleet::bare(3).await;
    let mut config = quick(&fleet);
    // Steps are taken by the example alone.
    config.drain_pause = std::time::Duration::from_secs(3600);
    let managed = Managed::start(config).await;
    let mut examples = examples.to_owned();
    for (i, node) in fleet.nodes.iter().enumerate() {
        let credentials =
            crate::support::password().map_or_else(String::new, |own| format!(":{own}@"));
        let shown = format!("127.0.0.1:{}", 7001 + i);
        examples = examples.replace(
            &format!("redis://{shown}/"),
            &format!("redis://{credentials}127.0.0.1:{}/", node.port()),
        );
        examples = examples.replace(&shown, &format!("127.0.0.1:{}", node.port()));
    }
    let mut answer: Option<Answer> = None;
    let mut count = 0;
    for line in examples.lines() {
        if let Some(request) = line.strip_prefix("> ") {
            let mut parts = request.splitn(3, ' ');
            let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
            let json = [("content-type", "application/json")];
            answer = Some(
                managed
                    .ask(method, path, &json, parts.next().unwrap_or(""))
                    .await,
            );
            continue;
        }
        let (status, body) = line
            .strip_prefix("< ")
            .unwrap()
            .split_once(' ')
            .unwrap_or((&line[2..], ""));
        let answer = answer.take().unwrap();
        assert_eq!(answer.status.to_string(), status, "{line}: {answer:?}");
        if !body.is_empty() {
            let expected: Value = serde_json::from_str(body).unwrap();
            alike(&expected, &answer.json(), line);
        }
        count += 1;
    }
    assert!(count >= 15, "{count} examples");
}

/// Whether an answer has the form of the example, and its words: numbers and places are another run's.
fn alike(example: &Value, answer: &Value, line: &str) {
    match (example, answer) {
        (Value::Object(example), Value::Object(answer)) => {
            let names = |fields: &serde_json::Map<String, Value>| {
                fields.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(names(example), names(answer), "{line}");
            for (name, value) in example {
                alike(value, &answer[name], line);
            }
        }
        (Value::Array(example), Value::Array(answer)) => {
            if *example == ["..."] {
                return assert!(!answer.is_empty(), "{line}");
            }
            let told = answer.get(..example.len()).unwrap_or(answer);
            assert!(
                example.len() == told.len() && (!example.is_empty() || answer.is_empty()),
                "{line}"
            );
            for (example, answer) in example.iter().zip(answer) {
                alike(example, answer, line);
            }
        }
        (Value::Number(example), Value::Number(answer)) if example.is_f64() => {
            let (example, answer) = (example.as_f64().unwrap(), answer.as_f64().unwrap());
            assert!(
                example > 1.0 || (example - answer).abs() < 0.2,
                "{line}: {answer}"
            );
        }
        (Value::Number(_), Value::Number(_)) => {}
        (Value::String(example), Value::String(answer)) if example.contains("127.0.0.1") => {
            assert!(answer.contains("127.0.0.1"), "{line}");
        }
        (example, answer) => assert_eq!(example, answer, "{line}"),
    }
}
