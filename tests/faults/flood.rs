//! More writes than memory wants to hear of.

use std::fs;
use std::time::{Duration, Instant};

use larder::Redis;
use larder::testing::Mode;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::coherence::{lines, proxied};
use crate::load::{admin, info, keys, through, told, until};
use crate::report::{D, Report};
use crate::support::Server;
use crate::traffic::{Traffic, gaps, is_heard, tier};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Bytes of this process in memory.
pub(crate) fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("Linux, for the size of this process");
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// Writers that pipeline as fast as they can, to keys that nobody reads, until they are dropped.
async fn flood(server: &Server, writers: usize, filling: &str) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for writer in 0..writers {
        let mut connection = admin(server).await;
        let mut sets = redis::pipe();
        for i in 0..200 {
            let key = format!("flood:{writer}:{i}:{filling}");
            sets.cmd("SET").arg(key).arg("x");
        }
        all.spawn(
            async move { while connection.send_packed_commands(&sets, 0, 200).await.is_ok() {} },
        );
    }
    all
}

/// Writes of others arrive by the hundred thousand, while readers read what one writer changes.
pub(crate) async fn many_writes() -> Report {
    const SPAN: Duration = Duration::from_secs(4);
    let server = Server::start().await;
    let mut connection = admin(&server).await;
    let cache = tier(&server.url(0), SECOND).await;
    let writer = Redis::connect(&server.url(0)).await.expect("connected");
    let traffic = Traffic::over(&keys(64));
    let (reading, writing) = (traffic.read(&cache), traffic.write(&writer, 1, MS));
    sleep(SECOND / 2).await;
    let commands = info(&mut connection, "total_commands_processed").await;
    let (before, mut most, began) = (resident(), 0, Instant::now());
    let mut flooding = flood(&server, 2, "").await;
    while began.elapsed() < SPAN {
        sleep(MS * 10).await;
        most = most.max(resident());
    }
    flooding.shutdown().await;
    let commands = info(&mut connection, "total_commands_processed").await - commands;
    let rate = commands * 10 / began.elapsed().as_millis() as u64 * 100;
    let heard = cache.coherence()[0].invalidations;
    let back = until(SECOND * 5, async || is_heard(&cache)).await;
    traffic.end();
    let (seen, written) = (
        reading.await.expect("a reader"),
        writing.await.expect("a writer"),
    );
    let mut report = Report::default();
    report.at_least("writes a second", rate, 50_000);
    seen.lags.judge(&mut report, "", SECOND);
    report.none(
        "errors, wrong",
        seen.tally.failures() + seen.tally.wrong + written.failures(),
    );
    report.within("max op", seen.tally.max(), D);
    report.at_least("reads", seen.tally.operations(), 1000);
    report.at_most(
        "MiB more of this process",
        most.saturating_sub(before) >> 20,
        64,
    );
    report.within("heard again after", back, SECOND * 2);
    report.note(format!("{heard} keys heard of, {} gaps", gaps(&cache)));
    report
}

/// A line that nothing gets through any more, until the server has had enough of it.
pub(crate) async fn line_too_slow() -> Report {
    let server = Server::start().await;
    let mut connection = admin(&server).await;
    let limit = [
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "normal 1048576 0 0",
    ];
    told(&mut connection, &limit).await;
    let proxy = proxied(&server).await;
    // So long that the line is not given up for its silence first.
    let cache = tier(&through(&server, &proxy), SECOND * 30).await;
    let writer = Redis::connect(&server.url(0)).await.expect("connected");
    let traffic = Traffic::over(&keys(64));
    let (reading, writing) = (traffic.read(&cache), traffic.write(&writer, 1, MS));
    sleep(SECOND / 2).await;
    let line = lines(&mut connection).await;
    let before = resident();
    proxy.set_marked(Mode::Stall);
    let mut flooding = flood(&server, 2, &"long".repeat(200)).await;
    let cut = until(SECOND * 5, async || lines(&mut connection).await != line).await;
    let unnoticed = gaps(&cache) == 0;
    flooding.shutdown().await;
    proxy.set_marked(Mode::Pass);
    let back = until(SECOND * 5, async || gaps(&cache) > 0 && is_heard(&cache)).await;
    let most = resident();
    let later = traffic.read(&cache);
    sleep(SECOND / 2).await;
    traffic.end();
    let (mut seen, written) = (
        reading.await.expect("a reader"),
        writing.await.expect("a writer"),
    );
    let mut report = Report::default();
    report.within("cut off by the server after", cut, SECOND * 3);
    report.none("noticed here before it was over", u64::from(!unnoticed));
    report.within("heard again after", back, SECOND * 2);
    report.at_least("gaps", gaps(&cache), 1);
    let later = later.await.expect("a reader");
    later.lags.judge(&mut report, "from then on: ", SECOND / 2);
    seen.tally.add(later.tally);
    report.note(format!("meanwhile: {}", seen.lags));
    report.none(
        "errors, wrong",
        seen.tally.failures() + seen.tally.wrong + written.failures(),
    );
    report.within("max op", seen.tally.max(), D);
    report.at_most(
        "MiB more of this process",
        most.saturating_sub(before) >> 20,
        64,
    );
    report
}
