//! The line on which a server tells of its writes: stalled, killed, flooded.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder::testing::{Mode, Proxy};
use larder::{Cache, Redis};
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use crate::ledger::{Lags, Ledger, percentile};
use crate::load::{admin, keys, through, told};
use crate::report::{D, Report, time};
use crate::support::Server;
use crate::traffic::{Tier, Traffic, gaps, is_heard, is_in_memory, tier};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A proxy in front of a server that knows the lines.
pub(crate) async fn proxied(server: &Server) -> Proxy {
    let proxy = Proxy::to(("127.0.0.1", server.port())).await;
    proxy.expect("a proxy").marking("TRACKING")
}

pub(crate) async fn line_stalled() -> Report {
    let server = Server::start().await;
    let writer = Redis::connect(&server.url(0)).await.expect("connected");
    let traffic = Traffic::over(&keys(64));
    let mut readers = Vec::new();
    for bound in [SECOND * 3 / 10, SECOND, SECOND * 10] {
        let proxy = proxied(&server).await;
        let tier = tier(&through(&server, &proxy), bound).await;
        readers.push((bound, traffic.read(&tier), proxy, tier));
    }
    let writing = traffic.write(&writer, 1, MS);
    let all = |mode| {
        readers
            .iter()
            .for_each(|(_, _, proxy, _)| proxy.set_marked(mode))
    };
    sleep(SECOND).await;
    all(Mode::Stall);
    sleep(SECOND * 3).await;
    all(Mode::Pass);
    sleep(SECOND).await;
    traffic.end();
    let mut report = Report::default();
    for (bound, reader, _proxy, tier) in readers {
        let (seen, what) = (reader.await.expect("a reader"), format!("L = {bound:?}: "));
        let hits = tier.stats().memory_hits;
        if bound > SECOND {
            report.note(format!("{what}{}", seen.lags));
            continue;
        }
        seen.lags.judge(&mut report, &what, bound);
        report.none(
            &format!("{what}errors, wrong"),
            seen.tally.failures() + seen.tally.wrong,
        );
        report.within(&format!("{what}max op"), seen.tally.max(), D);
        report.at_least(&format!("{what}hits in memory"), hits, 1000);
        report.none(
            &format!("{what}not heard at the end"),
            u64::from(!is_heard(&tier)),
        );
    }
    let written = writing.await.expect("a writer");
    report.none("errors of the writer", written.failures());
    report.note(format!("stalled for 3 s, {} writes", written.operations()));
    report
}

/// The ids of the lines to a server.
pub(crate) async fn lines(connection: &mut MultiplexedConnection) -> Vec<String> {
    let list = told(connection, &["CLIENT", "LIST"]).await;
    let list: String = redis::from_redis_value(list).expect("a text");
    let lines = list
        .lines()
        .filter(|line| line.contains("name=larder:writes"));
    let id = |line: &str| {
        line.strip_prefix("id=")?
            .split(' ')
            .next()
            .map(str::to_owned)
    };
    lines.filter_map(id).collect()
}

/// Kills all lines and writes some keys in one step, so that nobody is told. Answers how many lines there were.
pub(crate) async fn kill_and_write(
    connection: &mut MultiplexedConnection,
    keys: &[&str],
    version: u64,
) -> u64 {
    let lines = lines(connection).await;
    let mut step = redis::pipe();
    step.atomic();
    for line in &lines {
        step.cmd("CLIENT").arg(&["KILL", "ID", line]).ignore();
    }
    for key in keys {
        step.cmd("SET").arg(*key).arg(version).ignore();
    }
    let done: redis::RedisResult<()> = step.query_async(connection).await;
    done.expect("killed and written");
    lines.len() as u64
}

async fn write(connection: &mut MultiplexedConnection, ledger: &Ledger, key: &str) {
    let version = ledger.begin(key);
    told(connection, &["SET", key, &version.to_string()]).await;
    ledger.acknowledge(key, version);
}

/// What one reader met of a key whose line was killed.
#[derive(Default)]
struct Killed {
    lags: Lags,
    /// Answers older than what was acknowledged when the line was heard again.
    old: u64,
    away: Vec<Duration>,
}

impl Killed {
    async fn read(&mut self, tier: &Tier, ledger: &Ledger, key: &str) -> u64 {
        let began = Instant::now();
        let version = tier
            .get::<u64>(key)
            .await
            .expect("an answer")
            .expect("a value");
        self.lags.note(ledger.check(key, began, version));
        version
    }

    /// Reads until the line is heard again, and a while longer.
    async fn watch(&mut self, tier: &Tier, before: u64, ledger: &Ledger, key: &str) {
        let began = Instant::now();
        while gaps(tier) == before || !is_heard(tier) {
            self.read(tier, ledger, key).await;
            assert!(began.elapsed() < SECOND * 5, "never heard again");
            sleep(MS).await;
        }
        self.away.push(began.elapsed());
        let known = ledger.newest(key);
        for _ in 0..20 {
            let version = self.read(tier, ledger, key).await;
            self.old += u64::from(version < known);
            sleep(MS).await;
        }
    }
}

/// In each round all lines are killed and the key is written in the gap, and again while they are away.
pub(crate) async fn line_killed() -> Report {
    const KEY: &str = "key";
    let server = Server::start().await;
    let mut connection = admin(&server).await;
    let ledger = Ledger::of(&[KEY.to_owned()]);
    let mut tiers = Vec::new();
    for _ in 0..8 {
        tiers.push((tier(&server.url(0), SECOND).await, Killed::default()));
    }
    write(&mut connection, &ledger, KEY).await;
    let (mut killed, began) = (0, Instant::now());
    while began.elapsed() < SECOND * 7 {
        for (tier, seen) in &mut tiers {
            while !is_in_memory(tier, KEY) {
                seen.read(tier, &ledger, KEY).await;
            }
        }
        let version = ledger.begin(KEY);
        let before: Vec<u64> = tiers.iter().map(|(tier, _)| gaps(tier)).collect();
        killed += kill_and_write(&mut connection, &[KEY], version).await;
        ledger.acknowledge(KEY, version);
        let readers = tiers.iter_mut().zip(before);
        let readers = readers.map(|((tier, seen), before)| seen.watch(tier, before, &ledger, KEY));
        let writes = async {
            for _ in 0..20 {
                sleep(MS * 5).await;
                write(&mut connection, &ledger, KEY).await;
            }
        };
        tokio::join!(join_all(readers), writes);
    }
    let mut all = Killed::default();
    for (_, seen) in tiers {
        all.lags.add(seen.lags);
        all.old += seen.old;
        all.away.extend(seen.away);
    }
    let mut report = Report::default();
    all.lags.judge(&mut report, "", SECOND);
    report.none(
        "older than the writes before the line was heard again",
        all.old,
    );
    report.at_least("lines killed", killed, 40);
    let (p50, max) = (
        percentile(&mut all.away, 50),
        percentile(&mut all.away, 100),
    );
    report.note(format!(
        "heard again after {}, {} at most",
        time(p50),
        time(max)
    ));
    report
}
