//! One table of cases, `cases.json`, through Flask-Caching and through Larder. What Flask-Caching answers is in `flask_caching.json`
//! (`make compat` asks it again); Larder answers the same, or what the case says, and why. `output.md` has both: `OVERWRITE=1` writes it anew.

mod functions;
mod views;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use larder::{Cache, Moka, Ttl};
use serde_json::{Value, json};

/// A case's own: a cache, and how often each function ran.
#[derive(Clone)]
struct World {
    cache: Moka,
    runs: Arc<Mutex<HashMap<&'static str, i64>>>,
    flag: Arc<AtomicBool>,
}

impl World {
    fn new() -> Self {
        Self {
            cache: Moka::new(1000),
            runs: Arc::default(),
            flag: Arc::default(),
        }
    }

    fn ran(&self, name: &'static str) -> i64 {
        let mut runs = self.runs.lock().unwrap();
        let count = runs.entry(name).or_default();
        *count += 1;
        *count
    }

    fn is_forced(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    async fn read(&self, key: &str) -> Value {
        if let Some(number) = self.cache.get::<i64>(key).await.unwrap() {
            return json!(number);
        }
        json!(self.cache.get::<String>(key).await.unwrap())
    }

    async fn write(&self, key: &str, value: &Value, timeout: Option<i64>, add: bool) -> bool {
        let ttl = timeout.map_or(Ttl::Default, Ttl::from_secs);
        let cache = &self.cache;
        if let Some(number) = value.as_i64() {
            return match add {
                true => cache.add(key, number, ttl).await.unwrap(),
                false => cache.set(key, number, ttl).await.is_ok(),
            };
        }
        match value.as_str() {
            Some(text) => cache.set(key, text.to_owned(), ttl).await.is_ok(),
            None => cache.set(key, None::<i64>, ttl).await.is_ok(),
        }
    }

    async fn step(&self, step: &[Value]) -> Value {
        let text = |at: usize| step[at].as_str().unwrap();
        let number = |at: usize| step[at].as_i64().unwrap();
        let keys: Vec<&str> = step[1..].iter().filter_map(Value::as_str).collect();
        let cache = &self.cache;
        match text(0) {
            "get" => self.read(text(1)).await,
            "has" => json!(cache.has(text(1)).await.unwrap()),
            operation @ ("set" | "add") => {
                let timeout = step.get(3).and_then(Value::as_i64);
                json!(
                    self.write(text(1), &step[2], timeout, operation == "add")
                        .await
                )
            }
            "delete" => json!(cache.delete(text(1)).await.unwrap()),
            "clear" => json!(cache.clear().await.is_ok()),
            "get_many" => json!(cache.get_many::<i64>(&keys).await.unwrap()),
            "get_dict" => json!(cache.get_dict::<i64>(&keys).await.unwrap()),
            "set_many" => {
                let pairs = step[1].as_object().unwrap();
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| (key, value.as_i64().unwrap()))
                    .collect();
                let count = pairs.len();
                cache.set_many(pairs, Ttl::Default).await.unwrap();
                json!(count)
            }
            "delete_many" => json!(cache.delete_many(&keys).await.unwrap()),
            "inc" => json!(cache.incr(text(1), number(2)).await.unwrap()),
            "dec" => json!(cache.decr(text(1), number(2)).await.unwrap()),
            "flag" => {
                self.flag
                    .store(step[1].as_bool().unwrap(), Ordering::SeqCst);
                Value::Null
            }
            "runs" => json!(self.runs.lock().unwrap().get(text(1)).copied().unwrap_or(0)),
            "get_view" => json!(views::answered(self, "GET", text(1)).await),
            "post_view" => json!(views::answered(self, "POST", text(1)).await),
            _ => functions::step(self, step).await,
        }
    }
}

#[tokio::test]
async fn larder_answers_as_flask_caching_or_says_why_not() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases.json")).unwrap();
    let theirs: Vec<Value> = serde_json::from_str(include_str!("flask_caching.json")).unwrap();
    assert_eq!(cases.len(), theirs.len(), "run `make compat`");
    let mut output = String::from(
        "# What Flask-Caching answers, and what Larder does\n\n| case | Flask-Caching | Larder | why |\n|---|---|---|---|\n",
    );
    for (case, theirs) in cases.iter().zip(&theirs) {
        assert_eq!(case["case"], theirs["case"], "run `make compat`");
        let world = World::new();
        let mut answers = Vec::new();
        for step in case["steps"].as_array().unwrap() {
            answers.push(world.step(step.as_array().unwrap()).await);
        }
        let expected = match case.get("larder") {
            Some(own) => {
                assert!(case["why"].is_string(), "{}: why?", case["case"]);
                assert_ne!(
                    own, &theirs["flask_caching"],
                    "{}: no difference",
                    case["case"]
                );
                own
            }
            None => &theirs["flask_caching"],
        };
        let answers = Value::Array(answers);
        assert_eq!(&answers, expected, "{}", case["case"]);
        let (name, why) = (case["case"].as_str().unwrap(), case["why"].as_str());
        let (theirs, own) = (
            &theirs["flask_caching"],
            why.map_or("the same".to_owned(), |_| format!("`{answers}`")),
        );
        let why = why.unwrap_or_default();
        output.push_str(&format!("| {name} | `{theirs}` | {own} | {why} |\n"));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/output.md");
    if std::env::var_os("OVERWRITE").is_some() {
        std::fs::write(&path, &output).unwrap();
    }
    assert_eq!(
        output,
        std::fs::read_to_string(path).unwrap(),
        "OVERWRITE=1 writes it anew"
    );
}
