//! Operations that are timed, and values that say themselves whether they are the right ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::testing::Proxy;
use larder::{Cache, Error, ErrorKind, Redis, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::support::Server;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The name of errors of operations that were not sent, since the node is known to be down.
pub(crate) const DOWN: &str = "Unavailable (known)";

/// A value that knows its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    key: String,
    pub(crate) version: u64,
    filling: String,
    sum: u32,
}

impl Sealed {
    pub(crate) fn of(key: &str, version: u64) -> Self {
        let filling = format!("{key} {version} ").repeat(20);
        Self {
            sum: Self::sum(key, version, &filling),
            key: key.to_owned(),
            version,
            filling,
        }
    }

    /// Whether it is what was once written under `key`.
    pub(crate) fn holds(&self, key: &str) -> bool {
        self.key == key && self.sum == Self::sum(&self.key, self.version, &self.filling)
    }

    fn sum(key: &str, version: u64, filling: &str) -> u32 {
        crc32fast::hash(format!("{key}|{version}|{filling}").as_bytes())
    }
}

/// How operations ended, and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    times: Vec<Duration>,
    pub(crate) found: u64,
    pub(crate) missed: u64,
    pub(crate) wrong: u64,
    /// By kind, and the server's code where it gave one.
    pub(crate) errors: BTreeMap<String, u64>,
    streak: u64,
    /// The most timeouts in a row that one caller met.
    pub(crate) most_timeouts: u64,
}

impl Tally {
    /// Waits for an operation.
    pub(crate) async fn time<R>(
        &mut self,
        operation: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let began = Instant::now();
        let answer = operation.await;
        self.times.push(began.elapsed());
        match &answer {
            Ok(_) => self.streak = 0,
            Err(error) => self.failed(error),
        }
        answer
    }

    fn failed(&mut self, error: &Error) {
        *self.errors.entry(named(error)).or_default() += 1;
        self.streak = match error.kind() {
            ErrorKind::Timeout => self.streak + 1,
            _ => 0,
        };
        self.most_timeouts = self.most_timeouts.max(self.streak);
    }

    /// Reads a key whose values are [`Sealed`].
    pub(crate) async fn read(&mut self, cache: &impl Cache, key: &str) -> Result<Option<Sealed>> {
        let answer = self.time(cache.get::<Sealed>(key)).await;
        match &answer {
            Ok(Some(value)) if value.holds(key) => self.found += 1,
            Ok(Some(_)) => self.wrong += 1,
            Ok(None) => self.missed += 1,
            Err(_) => {}
        }
        answer
    }

    /// Reads a key or computes it; counts what is wrong as [`read`](Self::read) does.
    pub(crate) async fn read_or_compute(&mut self, cache: &impl Cache, key: &str) -> bool {
        let computed = AtomicBool::new(false);
        let compute = || async {
            computed.store(true, Ordering::Relaxed);
            Sealed::of(key, 0)
        };
        let answer = self.time(cache.get_or_set(key, MINUTE, compute)).await;
        let computed = computed.into_inner();
        match answer {
            Ok(value) if !value.holds(key) => self.wrong += 1,
            Ok(_) if computed => self.missed += 1,
            Ok(_) => self.found += 1,
            Err(_) => {}
        }
        computed
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.found += other.found;
        self.missed += other.missed;
        self.wrong += other.wrong;
        for (name, count) in other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        self.most_timeouts = self.most_timeouts.max(other.most_timeouts);
    }

    pub(crate) fn operations(&self) -> u64 {
        self.times.len() as u64
    }

    pub(crate) fn max(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    /// The time that 99 of 100 operations stay below.
    pub(crate) fn p99(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = times.len().saturating_sub(1) * 99 / 100;
        times.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn failures_of(&self, name: &str) -> u64 {
        self.errors.get(name).copied().unwrap_or(0)
    }

    /// In a line.
    pub(crate) fn summary(&self) -> String {
        let errors: Vec<String> = self
            .errors
            .iter()
            .map(|(name, count)| format!(", {count} {name}"))
            .collect();
        format!(
            "{} operations: {} hits, {} misses{}",
            self.operations(),
            self.found,
            self.missed,
            errors.concat()
        )
    }
}

fn named(error: &Error) -> String {
    let kind = error.kind();
    match error.context().find(|(name, _)| *name == "code") {
        Some((_, code)) => format!("{kind:?} {code}"),
        None if error.message().starts_with("the node is down") => DOWN.to_owned(),
        None => format!("{kind:?}"),
    }
}

/// A server with a proxy in front.
pub(crate) struct Behind {
    pub(crate) server: Server,
    pub(crate) proxy: Proxy,
}

impl Behind {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further settings of the server.
    pub(crate) async fn start_with(args: &[&str]) -> Self {
        let server = Server::start_with(args).await;
        let proxy = Proxy::to(("127.0.0.1", server.port()))
            .await
            .expect("a proxy");
        Self { server, proxy }
    }

    /// The server's, by way of the proxy.
    pub(crate) fn url(&self) -> String {
        through(&self.server, &self.proxy)
    }

    /// A connected cache that holds the [`Sealed`] values of some keys.
    pub(crate) async fn filled(&self, keys: &[String]) -> Redis {
        let cache = Redis::connect(&self.url()).await.expect("connected");
        fill(&cache, keys).await;
        cache
    }
}

/// A server's url by way of a proxy.
pub(crate) fn through(server: &Server, proxy: &Proxy) -> String {
    let (old, new) = (server.port(), proxy.port());
    server
        .url(0)
        .replace(&format!("127.0.0.1:{old}/"), &format!("127.0.0.1:{new}/"))
}

/// Writes version 1 of each key.
pub(crate) async fn fill(cache: &impl Cache, keys: &[String]) {
    for keys in keys.chunks(500) {
        let values = keys.iter().map(|key| (key, Sealed::of(key, 1)));
        cache.set_many(values, MINUTE * 10).await.expect("filled");
    }
}

pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("key:{i}")).collect()
}

/// Waits until `holds` does, about `bound` at most; answers how long it took. The caller judges.
pub(crate) async fn until(bound: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await && began.elapsed() < bound {
        sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// Reads keys in turn for `span`, with a pause after each.
pub(crate) async fn reading(
    cache: &impl Cache,
    keys: &[String],
    span: Duration,
    pause: Duration,
) -> Tally {
    let mut tally = Tally::default();
    let began = Instant::now();
    for key in keys.iter().cycle() {
        if began.elapsed() >= span {
            break;
        }
        let _ = tally.read(cache, key).await;
        sleep(pause).await;
    }
    tally
}

/// As many callers at once, each [`reading`].
pub(crate) async fn reading_at_once<C: Cache>(
    cache: &C,
    keys: &[String],
    callers: usize,
    span: Duration,
    pause: Duration,
) -> Tally {
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (cache, mut keys) = (cache.clone(), keys.to_vec());
            let turn = caller % keys.len();
            keys.rotate_left(turn);
            tokio::spawn(async move { reading(&cache, &keys, span, pause).await })
        })
        .collect();
    let mut all = Tally::default();
    for task in tasks {
        all.add(task.await.expect("a caller"));
    }
    all
}

/// A connection that stays and waits, for commands that must get through.
pub(crate) async fn admin(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(server.url(0)).expect("a url");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("connected")
}

pub(crate) async fn told(connection: &mut MultiplexedConnection, command: &[&str]) -> Value {
    let mut cmd = redis::cmd(command[0]);
    let answer = cmd.arg(&command[1..]).query_async(connection).await;
    answer.unwrap_or_else(|error| panic!("{}: {error}", command[0]))
}

/// A number of `INFO`: `"total_connections_received"`, or what follows `calls=` in `"cmdstat_get"`.
pub(crate) async fn info(connection: &mut MultiplexedConnection, name: &str) -> u64 {
    let Value::BulkString(text) = told(connection, &["INFO", "everything"]).await else {
        panic!("INFO is no text");
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.map_or("0", |line| line.trim_start_matches("calls="));
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
