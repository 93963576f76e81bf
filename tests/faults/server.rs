//! A server that answers with errors, or not for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::{Cache, Redis};
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use crate::load::{
    MINUTE, Sealed, Tally, admin, fill, info, keys, reading, reading_at_once, told, until,
};
use crate::logs;
use crate::report::{D, Report, time};
use crate::support::{Server, password};

const SECOND: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// A server, a connection that gets through, and a cache that holds some keys.
async fn started(settings: &[&str], keys: &[String]) -> (Server, MultiplexedConnection, Redis) {
    let server = Server::start_with(settings).await;
    let connection = admin(&server).await;
    let cache = Redis::connect(&server.url(0)).await.expect("connected");
    fill(&cache, keys).await;
    (server, connection, cache)
}

async fn recovery(cache: &Redis) -> Duration {
    until(SECOND * 10, async || {
        cache.get::<Sealed>("key:0").await.is_ok()
    })
    .await
}

/// A server that refuses writes with `code`, from the command `on` to the command `off`.
async fn writes_refused(on: &[&str], off: &[&str], code: &str) -> Report {
    let keys = keys(20);
    let (_server, mut connection, cache) = started(&[], &keys).await;
    told(&mut connection, on).await;
    let (mut computed, mut read, mut set) = (Tally::default(), Tally::default(), Tally::default());
    for i in 0..100 {
        computed.read_or_compute(&cache, &format!("new:{i}")).await;
    }
    let counted = cache.stats().write_errors;
    for key in &keys {
        let _ = read.read(&cache, key).await;
        let _ = set.time(cache.set(key, Sealed::of(key, 2), MINUTE)).await;
    }
    let mut report = Report::default();
    report.none("errors of get_or_set", computed.failures());
    report.at_least("values computed", computed.missed, 100);
    report.at_least("write errors counted", counted, 100);
    let told_so = set.failures_of(&format!("Rejected {code}"));
    report.at_least(&format!("of 20 sets, refused with {code}:"), told_so, 20);
    report.at_least("of 20 reads, hits:", read.found, 20);
    report.none("wrong", computed.wrong + read.wrong);
    let slowest = computed.max().max(read.max()).max(set.max());
    report.within("max op", slowest, D);
    report.none("connections given up", cache.status().reconnects);
    told(&mut connection, off).await;
    let writes = async || {
        cache
            .set("key:0", Sealed::of("key:0", 3), MINUTE)
            .await
            .is_ok()
    };
    report.within("recovery", until(SECOND * 3, writes).await, PAUSE);
    report
}

pub(crate) async fn out_of_memory() -> Report {
    let on = ["CONFIG", "SET", "maxmemory", "1mb"];
    let off = ["CONFIG", "SET", "maxmemory", "0"];
    writes_refused(&on, &off, "OOM").await
}

pub(crate) async fn too_few_replicas() -> Report {
    let on = ["CONFIG", "SET", "min-replicas-to-write", "1"];
    let off = ["CONFIG", "SET", "min-replicas-to-write", "0"];
    writes_refused(&on, &off, "NOREPLICAS").await
}

pub(crate) async fn read_only() -> Report {
    // Nobody listens at port 1, so the data stays what it is.
    let on = ["REPLICAOF", "127.0.0.1", "1"];
    let off = ["REPLICAOF", "NO", "ONE"];
    writes_refused(&on, &off, "READONLY").await
}

/// One cache knows no password, one an old one; then the server demands a new one and hangs up.
pub(crate) async fn password_changed() -> Report {
    let secret = password().unwrap_or_else(|| "canary".to_owned());
    let (old, new) = (format!("{secret}-old9Qx"), format!("{secret}-new7Zk"));
    let server = Server::start().await;
    let mut connection = admin(&server).await;
    let port = server.port();
    logs::keep();
    told(&mut connection, &["CONFIG", "SET", "requirepass", ""]).await;
    let plain = Redis::connect(&format!("redis://127.0.0.1:{port}/0"))
        .await
        .expect("no password is demanded");
    told(&mut connection, &["CONFIG", "SET", "requirepass", &old]).await;
    let known = Redis::connect(&format!("redis://:{old}@127.0.0.1:{port}/0"))
        .await
        .expect("the right password");
    fill(&known, &keys(20)).await;
    told(&mut connection, &["CONFIG", "SET", "requirepass", &new]).await;
    told(&mut connection, &["CLIENT", "KILL", "TYPE", "normal"]).await;
    let mut report = Report::default();
    let mut shown = String::new();
    for (cache, code) in [(&plain, "NOAUTH"), (&known, "WRONGPASS")] {
        let tally = reading(cache, &keys(20), SECOND, PAUSE).await;
        report.within(&format!("{code}: max op"), tally.max(), D);
        let told_so = tally.failures_of(&format!("Unavailable {code}"));
        report.at_least(&format!("{code}: reads that say so"), told_so, 20);
        report.none(&format!("{code}: hits"), tally.found);
        let mut computed = Tally::default();
        computed.read_or_compute(cache, "key:0").await;
        report.none(
            &format!("{code}: errors of get_or_set"),
            computed.failures(),
        );
        let error = cache.get::<Sealed>("key:0").await.map(|_| ());
        let (status, stats) = (cache.status(), cache.stats());
        shown += &format!("{error:?} {cache:?} {status:?} {stats:?} {tally:?}");
        if let Err(error) = error {
            shown += &error.to_string();
        }
    }
    for (cache, password) in [(&known, &*old), (&plain, "")] {
        told(&mut connection, &["CONFIG", "SET", "requirepass", password]).await;
        let what = format!(
            "recovery, password {}",
            if password.is_empty() { "off" } else { "back" }
        );
        report.within(&what, recovery(cache).await, SECOND * 2);
    }
    let logged = logs::kept();
    // With a password on every server all is logged to the output, and searched there.
    if password().is_none() {
        let downs = logged.matches("node_down").count() as u64;
        report.at_least("times the log says that a node is down", downs, 2);
    }
    shown += &logged;
    let leaks = [&old, &new].map(|secret| shown.matches(&**secret).count() as u64);
    report.none("passwords in errors, Debug, logs", leaks[0] + leaks[1]);
    report.note(format!("{} bytes searched", shown.len()));
    report
}

/// Restarts with two thousand keys, each of which takes a millisecond to load.
pub(crate) async fn loading() -> Report {
    let settings = [
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let keys = keys(2000);
    let (server, mut connection, cache) = started(&settings, &keys).await;
    told(&mut connection, &["SAVE"]).await;
    let done = Arc::new(AtomicBool::new(false));
    let load = {
        let (cache, done) = (cache.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let (mut computed, mut read, mut turn) = (Tally::default(), Tally::default(), 0);
            while !done.load(Ordering::Relaxed) {
                computed
                    .read_or_compute(&cache, &format!("new:{turn}"))
                    .await;
                let _ = read.read(&cache, &format!("key:{}", turn % 2000)).await;
                turn += 1;
                sleep(PAUSE).await;
            }
            (computed, read)
        })
    };
    let began = Instant::now();
    server.restart().await;
    let took = began.elapsed();
    let mut report = Report::default();
    report.within("recovery once loaded", recovery(&cache).await, SECOND * 2);
    done.store(true, Ordering::Relaxed);
    let (computed, read) = load.await.expect("the load");
    report.none("errors of get_or_set", computed.failures());
    report.within("max op", computed.max().max(read.max()), D);
    let told_so = read.failures_of("Unavailable LOADING") + read.failures_of("Rejected LOADING");
    report.at_least("reads refused for LOADING", told_so, 1);
    let mut after = Tally::default();
    for key in &keys {
        let _ = after.read(&cache, key).await;
    }
    report.none(
        "errors, misses afterwards",
        after.failures() + after.missed + after.wrong,
    );
    report.note(format!("away for {}, {}", time(took), read.summary()));
    report
}

/// A server that sleeps, then one that runs a script without end.
pub(crate) async fn busy() -> Report {
    let keys = keys(20);
    let settings = ["--enable-debug-command", "yes"];
    let (server, mut connection, cache) = started(&settings, &keys).await;
    let mut report = Report::default();
    let mut blocked = admin(&server).await;
    let asleep = tokio::spawn(async move { told(&mut blocked, &["DEBUG", "SLEEP", "2"]).await });
    let tally = reading_at_once(&cache, &keys, 8, SECOND * 2 - SECOND / 10, PAUSE).await;
    asleep.await.expect("it wakes up");
    report.within("asleep: recovery", recovery(&cache).await, SECOND * 2);
    report.within("asleep: max op", tally.max(), D);
    report.at_most("asleep: timeouts in a row", tally.most_timeouts, 3);
    report.at_least("asleep: operations that failed", tally.failures(), 20);
    report.note(tally.summary());

    told(&mut connection, &["CONFIG", "SET", "lua-time-limit", "200"]).await;
    let mut blocked = admin(&server).await;
    let script = tokio::spawn(async move {
        let mut eval = redis::cmd("EVAL");
        let eval = eval.arg("while true do end").arg(0);
        eval.query_async::<redis::Value>(&mut blocked).await
    });
    let tally = reading_at_once(&cache, &keys, 8, SECOND * 2, PAUSE).await;
    let mut computed = Tally::default();
    computed.read_or_compute(&cache, "new:0").await;
    told(&mut connection, &["SCRIPT", "KILL"]).await;
    report.within("script: recovery", recovery(&cache).await, SECOND);
    assert!(
        script.await.expect("the script's caller").is_err(),
        "it was killed"
    );
    report.within("script: max op", tally.max().max(computed.max()), D);
    report.none("script: errors of get_or_set", computed.failures());
    let told_so = tally.failures_of("Rejected BUSY");
    report.at_least("script: reads refused with BUSY", told_so, 5);
    report.none("wrong", tally.wrong + computed.wrong);
    report.note(tally.summary());
    let clients = info(&mut connection, "total_connections_received").await;
    report.note(format!("{clients} connections in all"));
    report
}
