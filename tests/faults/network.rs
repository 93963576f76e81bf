//! A network that is slow, silent or gone.

use std::time::{Duration, Instant};

use larder::testing::Mode;
use larder::{Cache, Redis};
use tokio::time::sleep;

use crate::load::{
    Behind, DOWN, MINUTE, Sealed, Tally, admin, info, keys, reading, reading_at_once, until,
};
use crate::report::{D, Report, time};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const PAUSE: Duration = Duration::from_millis(5);
/// What fails without waiting takes less.
const AT_ONCE: Duration = Duration::from_millis(10);
/// A read whose connection broke waits for the first attempt to make another, which comes after 50 ms at most.
const ONE_ATTEMPT: Duration = Duration::from_millis(60);

/// How long it takes until an operation succeeds again.
pub(crate) async fn recovery(cache: &Redis) -> Duration {
    until(SECOND * 10, async || {
        cache.get::<Sealed>("key:0").await.is_ok()
    })
    .await
}

/// How long it takes until the connection is given up.
async fn given_up(cache: Redis) -> Duration {
    let began = Instant::now();
    while cache.status().up && began.elapsed() < SECOND * 3 {
        sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// Whatever the store does, `get_or_set` answers.
async fn answers_all_the_same(report: &mut Report, cache: &Redis) {
    let mut tally = Tally::default();
    for i in 0..10 {
        tally.read_or_compute(cache, &format!("new:{i}")).await;
    }
    report.none(
        "errors of get_or_set meanwhile",
        tally.failures() + tally.wrong,
    );
}

/// 200 ms each way.
pub(crate) async fn slower_than_the_deadline() -> Report {
    let (behind, keys) = (Behind::start().await, keys(20));
    let cache = behind.filled(&keys).await;
    let mut server = admin(&behind.server).await;
    let sent = info(&mut server, "cmdstat_get").await;
    behind.proxy.set(Mode::Delay(Duration::from_millis(200)));
    let mut report = Report::default();
    let load = reading(&cache, &keys, SECOND * 3, PAUSE);
    let (tally, given_up) = tokio::join!(load, given_up(cache.clone()));
    report.within("max op", tally.max(), D);
    report.at_most("timeouts in a row", tally.most_timeouts, 3);
    report.within("given up after", given_up, D * 3);
    report.note(tally.summary());
    answers_all_the_same(&mut report, &cache).await;
    let sent = info(&mut server, "cmdstat_get").await - sent;
    let first = tally.operations() - tally.failures_of(DOWN);
    report.share("retries", sent.saturating_sub(first), first, 20.0);
    behind.proxy.set(Mode::Pass);
    report.within("recovery", recovery(&cache).await, SECOND * 2);
    report
}

/// 80 ms each way.
pub(crate) async fn slow_within_the_deadline() -> Report {
    let (behind, keys) = (Behind::start().await, keys(20));
    let cache = behind.filled(&keys).await;
    behind.proxy.set(Mode::Delay(Duration::from_millis(80)));
    let tally = reading_at_once(&cache, &keys, 20, SECOND * 2, PAUSE).await;
    let mut report = Report::default();
    report.none("errors, misses", tally.failures() + tally.missed);
    report.none("wrong", tally.wrong);
    let status = cache.status();
    report.none("connections given up", status.reconnects);
    report.within("p99", tally.p99(), D);
    report.note(tally.summary());
    report
}

pub(crate) async fn blackhole() -> Report {
    let (behind, keys) = (Behind::start().await, keys(20));
    let cache = behind.filled(&keys).await;
    let mut report = Report::default();
    for callers in [1, 32] {
        behind.proxy.set(Mode::Stall);
        let given_up = tokio::spawn(given_up(cache.clone()));
        let tally = reading_at_once(&cache, &keys, callers, SECOND * 2, PAUSE).await;
        let of = |what: &str| format!("{callers} callers: {what}");
        report.within(&of("max op"), tally.max(), D);
        report.at_most(&of("timeouts in a row"), tally.most_timeouts, 3);
        let given_up = given_up.await.expect("a watcher");
        report.within(&of("given up after"), given_up, D * 3);
        let later = reading(&cache, &keys, SECOND / 2, PAUSE).await;
        report.within(&of("max op from then on"), later.max(), AT_ONCE);
        answers_all_the_same(&mut report, &cache).await;
        behind.proxy.set(Mode::Pass);
        report.within(&of("recovery"), recovery(&cache).await, SECOND * 2);
    }
    // The first to notice waits for its read and for its write.
    behind.proxy.set(Mode::Stall);
    let mut first = Tally::default();
    first.read_or_compute(&cache, "another").await;
    report.within("the first get_or_set", first.max(), D * 2);
    report.none("its errors", first.failures());
    report
}

pub(crate) async fn old_flow_dead() -> Report {
    let (behind, keys) = (Behind::start().await, keys(20));
    let cache = behind.filled(&keys).await;
    let mut report = Report::default();
    let began = Instant::now();
    behind.proxy.set(Mode::StallOld);
    let mut tally = Tally::default();
    let mut third = None;
    while tally.found == 0 && began.elapsed() < SECOND * 10 {
        let _ = tally.read(&cache, &keys[0]).await;
        if tally.most_timeouts == 3 {
            third.get_or_insert_with(Instant::now);
        }
        sleep(Duration::from_millis(2)).await;
    }
    // `PING`s count as well, so the third timeout may be one of theirs.
    let since = third.map_or_else(|| began.elapsed().saturating_sub(D * 2), |at| at.elapsed());
    report.within("recovery after the last timeout", since, SECOND);
    report.within("max op", tally.max(), D);
    report.at_most("timeouts in a row", tally.most_timeouts, 3);
    report.note(format!("recovery in all {}", time(began.elapsed())));
    report
}

/// As before, and then the old flow heals: what was given up must not arrive after what came later.
pub(crate) async fn old_flow_heals() -> Report {
    let behind = Behind::start().await;
    let cache = behind.filled(&keys(1)).await;
    let (mut late, mut unanswered) = (0, 0);
    for (turn, key) in keys(4).iter().enumerate() {
        behind.proxy.set(Mode::StallOld);
        let reconnects = cache.status().reconnects;
        let (mut version, began) = (1, Instant::now());
        while cache
            .set(key, Sealed::of(key, version), MINUTE)
            .await
            .is_err()
            || cache.status().reconnects == reconnects
        {
            assert!(began.elapsed() < SECOND * 5, "no new connection");
            version += 1;
            sleep(PAUSE).await;
        }
        unanswered += version - 1;
        let deleted = turn % 2 == 0;
        if deleted {
            cache.delete(key).await.expect("a new connection");
        }
        // The old one passes on what it holds, and its end.
        behind.proxy.set(Mode::Pass);
        until(SECOND, async || behind.proxy.open() == 1).await;
        let found = cache.get::<Sealed>(key).await.expect("a new connection");
        let expected = if deleted { None } else { Some(version) };
        late += u64::from(found.map(|value| value.version) != expected);
        // Long enough up to be trusted again.
        sleep(SECOND + SECOND / 10).await;
    }
    let mut report = Report::default();
    report.none(
        "keys with a value older than the last acknowledged write or delete",
        late,
    );
    report.note(format!("{unanswered} writes that failed before, of 4 keys"));
    report
}

pub(crate) async fn refused() -> Report {
    let (behind, keys) = (Behind::start().await, keys(20));
    let cache = behind.filled(&keys).await;
    let mut report = Report::default();
    behind.server.kill();
    behind.proxy.set(Mode::Refuse);
    let tally = reading(&cache, &keys, SECOND, PAUSE).await;
    report.within("max op", tally.max(), ONE_ATTEMPT);
    report.note(format!("p99 {}, {}", time(tally.p99()), tally.summary()));
    report.none("reads that succeeded", tally.found + tally.missed);
    let began = Instant::now();
    let connected = Redis::connect(&behind.url()).await.is_ok();
    report.within("connect fails after", began.elapsed(), AT_ONCE);
    report.none("connected", u64::from(connected));
    answers_all_the_same(&mut report, &cache).await;
    behind.proxy.set(Mode::Pass);
    behind.server.restart().await;
    report.within("recovery", recovery(&cache).await, SECOND * 2);
    report
}

pub(crate) async fn accepts_and_never_answers() -> Report {
    let behind = Behind::start().await;
    let mut report = Report::default();
    behind.proxy.set(Mode::Silent);
    let began = Instant::now();
    let connected = Redis::connect(&behind.url()).await.is_ok();
    report.within("connect fails after", began.elapsed(), SECOND / 2);
    report.none("connected", u64::from(connected));
    let lazy = Redis::builder(&behind.url()).build().expect("a url");
    let mut tally = Tally::default();
    let began = Instant::now();
    while began.elapsed() < SECOND * 2 {
        let _ = tally.time(lazy.set("key:0", 1_u8, MINUTE)).await;
        sleep(PAUSE).await;
    }
    report.within("max op", tally.max(), D);
    report.at_most("timeouts in a row", tally.most_timeouts, 3);
    report.note(tally.summary());
    answers_all_the_same(&mut report, &lazy).await;
    behind.proxy.set(Mode::Pass);
    report.within("recovery", recovery(&lazy).await, SECOND * 2);
    report
}
