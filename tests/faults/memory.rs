//! Memory in front of a server that forgets: flushed, expired and evicted keys, and how soon memory hears of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use larder::coherence::{Interest, Invalidation, Subscription};
use larder::{Backend, Cache, Redis};
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::ledger::percentile;
use crate::load::{Sealed, admin, fill, info, keys, told};
use crate::report::Report;
use crate::support::Server;
use crate::traffic::{Tier, is_in_memory, tier};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A server, a connection that waits, and memory in front of it that is not the writer's.
async fn started(settings: &[&str]) -> (Server, MultiplexedConnection, Tier) {
    let server = Server::start_with(settings).await;
    let connection = admin(&server).await;
    let tier = tier(&server.url(0), SECOND).await;
    (server, connection, tier)
}

/// Reads keys until memory has them.
async fn copied(tier: &Tier, keys: &[String]) {
    for key in keys {
        let began = Instant::now();
        while !is_in_memory(tier, key) {
            tier.get::<String>(key).await.expect("an answer");
            assert!(began.elapsed() < SECOND, "{key} does not get into memory");
        }
    }
}

/// When memory hears of something, at once after it has.
struct Ear {
    heard: UnboundedReceiver<Instant>,
    _subscription: Subscription,
}

impl Ear {
    fn of(tier: &Tier, concerns: fn(Invalidation<'_>) -> bool) -> Self {
        let (tell, heard) = unbounded_channel();
        let hear = move |what: Invalidation<'_>| {
            if concerns(what) {
                let _ = tell.send(Instant::now());
            }
        };
        Self {
            heard,
            _subscription: tier.subscribe("", Interest::new(Arc::new(hear))),
        }
    }

    async fn next(&mut self) -> Instant {
        let heard = timeout(SECOND * 5, self.heard.recv()).await;
        heard.expect("it is heard").expect("a subscription")
    }
}

async fn written(connection: &mut MultiplexedConnection, keys: &[String]) {
    let mut sets = redis::pipe();
    for key in keys {
        sets.cmd("SET").arg(key).arg("text").ignore();
    }
    let done: redis::RedisResult<()> = sets.query_async(connection).await;
    done.expect("written");
}

/// Lags of many rounds: p50 and p99 have bounds.
fn judge(report: &mut Report, what: &str, lags: &mut [Duration], [p50, p99]: [Duration; 2]) {
    report.within(&format!("{what}: p50"), percentile(lags, 50), p50);
    report.within(&format!("{what}: p99"), percentile(lags, 99), p99);
    let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(lags, percent));
    let rounds = lags.len();
    report.note(format!(
        "{what}: {rounds} times, p50 {p50:.0?}, p99 {p99:.0?}, max {max:.1?}"
    ));
}

pub(crate) async fn server_flushed() -> Report {
    let (server, mut connection, tier) = started(&[]).await;
    let mut other = admin(&server).await;
    told(&mut other, &["SELECT", "1"]).await;
    let mut ear = Ear::of(&tier, |what| what == Invalidation::All);
    let (keys, mut report, mut left) = (keys(50), Report::default(), 0);
    for command in ["FLUSHALL", "FLUSHDB"] {
        let (mut lags, began) = (Vec::new(), Instant::now());
        while began.elapsed() < SECOND * 2 {
            written(&mut connection, &keys).await;
            copied(&tier, &keys).await;
            // FLUSHDB empties another database, so the values are still there.
            told(&mut other, &[command]).await;
            let done = Instant::now();
            lags.push(ear.next().await.saturating_duration_since(done));
            left += keys.iter().filter(|key| is_in_memory(&tier, key)).count() as u64;
        }
        judge(&mut report, command, &mut lags, [MS, MS * 5]);
    }
    report.none("keys in memory once it was heard", left);
    report
}

/// Milliseconds since 1970, as the server counts them.
fn unix() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("later than 1970")
}

/// Keys whose life ends while memory answers them, on a server that tells of no expiry.
pub(crate) async fn expired_without_a_word() -> Report {
    let (_server, mut connection, tier) = started(&["--enable-debug-command", "yes"]).await;
    told(&mut connection, &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]).await;
    let before = tier.stats().memory_hits;
    let (mut readers, mut late, mut answers) = (JoinSet::new(), Vec::new(), 0);
    for turn in 0..150_u64 {
        let (key, tier) = (format!("key:{turn}"), tier.clone());
        let life = (200 + turn * 20).to_string();
        told(&mut connection, &["SET", &key, "text", "PX", &life]).await;
        let at = told(&mut connection, &["PEXPIRETIME", &key]).await;
        let at = redis::from_redis_value(at).expect("a time");
        let end = Duration::from_millis(at);
        readers.spawn(async move {
            let (mut last, mut answers) = (Duration::ZERO, 0_u64);
            loop {
                let asked = unix();
                if !matches!(tier.get::<String>(&key).await, Ok(Some(_))) {
                    break;
                }
                (last, answers) = (asked, answers + 1);
                // Nothing of interest happens long before the end.
                match end.checked_sub(unix() + MS * 5) {
                    Some(early) => sleep(early).await,
                    None => yield_now().await,
                }
            }
            (last.saturating_sub(end), answers)
        });
    }
    while let Some(read) = readers.join_next().await {
        let (lateness, read) = read.expect("a reader");
        late.push(lateness);
        answers += read;
    }
    let expired = info(&mut connection, "expired_keys").await;
    let mut report = Report::default();
    let beyond = late.iter().filter(|late| **late > MS).count() as u64;
    report.none("of 150 keys served 1 ms after their end, or later:", beyond);
    let (p99, max) = (percentile(&mut late, 99), percentile(&mut late, 100));
    report.note(format!(
        "served after the end: p99 {p99:.1?}, max {max:.1?}"
    ));
    let hits = tier.stats().memory_hits - before;
    report.at_least("hits in memory", hits, 300);
    report.note(format!(
        "{answers} answers, {expired} keys that the server noticed to be over"
    ));
    report
}

/// Those of some keys that the server does not hold.
async fn missing(connection: &mut MultiplexedConnection, keys: &[String]) -> Vec<String> {
    let mut asked = redis::pipe();
    for key in keys {
        asked.cmd("EXISTS").arg(key);
    }
    let there: redis::RedisResult<Vec<bool>> = asked.query_async(connection).await;
    let there = there.expect("answers");
    let gone = keys.iter().zip(there).filter(|(_, there)| !there);
    gone.map(|(key, _)| key.clone()).collect()
}

/// A server that is full evicts, while memory has room.
pub(crate) async fn server_evicts() -> Report {
    let settings = ["--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru"];
    let (server, mut connection, tier) = started(&settings).await;
    let writer = Redis::connect(&server.url(0)).await.expect("connected");
    let keys = keys(15_000);
    let (mut lags, mut checked) = (Vec::new(), 0);
    for (turn, some) in keys.chunks(500).enumerate() {
        fill(&writer, some).await;
        let read = tier.get_many::<Sealed>(some).await;
        assert_eq!(read.expect("answers").len(), some.len());
        // What is gone there is gone here, or soon.
        for key in missing(&mut connection, &keys[..=turn * 500]).await {
            let began = Instant::now();
            while is_in_memory(&tier, &key) && began.elapsed() < SECOND {
                yield_now().await;
            }
            lags.push(began.elapsed());
            checked += 1;
        }
    }
    sleep(SECOND / 5).await;
    let gone = missing(&mut connection, &keys).await;
    let served = gone.iter().filter(|key| is_in_memory(&tier, key)).count();
    let held = keys.iter().filter(|key| is_in_memory(&tier, key)).count();
    let mut report = Report::default();
    report.none("evicted keys in memory 200 ms later", served as u64);
    report.at_least("keys evicted", gone.len() as u64, 1000);
    report.at_least("evicted keys looked for", checked, 1000);
    report.at_least("keys in memory", held as u64, 1000);
    judge(
        &mut report,
        "gone there and not here",
        &mut lags,
        [MS, MS * 5],
    );
    let evicted = info(&mut connection, "evicted_keys").await;
    let (there, all) = (keys.len() - gone.len(), keys.len());
    report.note(format!(
        "{evicted} evictions; of {all} keys the server holds {there}, memory {held}"
    ));
    report
}

/// Rounds of a write by others, from its acknowledgement until memory has dropped the key.
async fn rounds(
    connection: &mut MultiplexedConnection,
    tier: &Tier,
    span: Duration,
) -> Vec<Duration> {
    let mut ear = Ear::of(tier, |what| what == Invalidation::Keys(&["key:0"]));
    let (key, began) = (&keys(1)[..], Instant::now());
    let mut lags = Vec::new();
    while began.elapsed() < span {
        written(connection, key).await;
        ear.next().await;
        copied(tier, key).await;
        told(connection, &["SET", &key[0], "new"]).await;
        let done = Instant::now();
        lags.push(ear.next().await.saturating_duration_since(done));
        assert!(!is_in_memory(tier, &key[0]), "it was heard");
    }
    lags
}

/// From the acknowledgement of a write by others until memory does not answer the old value any more.
pub(crate) async fn heard_of_a_write() -> Report {
    let (server, mut connection, tier) = started(&[]).await;
    let mut report = Report::default();
    let mut idle = rounds(&mut connection, &tier, SECOND * 2).await;
    judge(&mut report, "idle", &mut idle, [MS, MS * 5]);
    let mut load = JoinSet::new();
    for writer in 0..4 {
        let mut connection = admin(&server).await;
        let keys: Vec<String> = (0..100).map(|i| format!("load:{writer}:{i}")).collect();
        load.spawn(async move {
            loop {
                written(&mut connection, &keys).await;
            }
        });
    }
    let before = info(&mut connection, "total_commands_processed").await;
    let mut loaded = rounds(&mut connection, &tier, SECOND * 2).await;
    let writes = info(&mut connection, "total_commands_processed").await - before;
    load.shutdown().await;
    let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(&mut loaded, percent));
    report.note(format!(
        "four pipelining writers, {} writes a second: p50 {p50:.0?}, p99 {p99:.1?}, max {max:.1?} of {}",
        writes / 2,
        loaded.len()
    ));
    report
}
