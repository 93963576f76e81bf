//! Many processes that want one value at once, and what becomes of the one that computes it.

use std::time::{Duration, Instant};

use larder::{Cache, Redis};
use tokio::time::sleep;

use crate::process::{Process, Seen, Task};
use crate::report::{Report, time};
use crate::support::Server;

const TAKES: Duration = Duration::from_millis(200);
const LEASE: Duration = Duration::from_secs(1);

fn task(server: &Server, number: u64, callers: usize) -> Task {
    Task {
        url: server.url(0),
        number,
        callers,
        takes: TAKES,
        lease: LEASE,
    }
}

/// Processes whose callers all ask for one cold key at the same time.
async fn herd(processes: u64, callers: usize, lease: Duration) -> Seen {
    let server = Server::start().await;
    let mut herd = Vec::new();
    for number in 1..=processes {
        let task = Task {
            lease,
            ..task(&server, number, callers)
        };
        herd.push(Process::start(&task).await);
    }
    herd.iter_mut().for_each(Process::go);
    let mut all = Seen::default();
    for process in &mut herd {
        let seen = process.seen().await;
        all.computes += seen.computes;
        all.errors += seen.errors;
        all.slowest = all.slowest.max(seen.slowest);
        all.values.extend(seen.values);
    }
    all.values.sort_unstable();
    all.values.dedup();
    all
}

/// Ten thousand callers in one process, and in eight, without a lease and with one.
pub(crate) async fn eight_processes_at_once() -> Report {
    let mut report = Report::default();
    let one = herd(1, 10_000, Duration::ZERO).await;
    report.at_most("computes of one process", one.computes, 1);
    let late = one.slowest.saturating_sub(TAKES);
    report.within(
        "its slowest caller after the compute",
        late,
        Duration::from_millis(20),
    );
    let without = herd(8, 1250, Duration::ZERO).await;
    report.at_most("computes, each process by itself", without.computes, 8);
    report.none("errors", without.errors);
    let with = herd(8, 1250, LEASE).await;
    report.at_most("computes with a lease", with.computes, 1);
    report.at_most("values", with.values.len() as u64, 1);
    report.none("errors", with.errors);
    // All callers of eight processes are woken on the same two cores.
    let late = with.slowest.saturating_sub(TAKES);
    report.within(
        "the slowest caller after the compute",
        late,
        Duration::from_millis(150),
    );
    report
}

/// Ten thousand callers in each of four processes.
pub(crate) async fn forty_thousand_callers() -> Report {
    let mut report = Report::default();
    let without = herd(4, 10_000, Duration::ZERO).await;
    report.at_most("computes, each process by itself", without.computes, 4);
    report.none("errors", without.errors);
    let with = herd(4, 10_000, LEASE).await;
    report.at_most("computes with a lease", with.computes, 1);
    report.at_most("values", with.values.len() as u64, 1);
    report.none("errors", with.errors);
    report.note(format!(
        "the slowest caller had to wait for {}",
        time(with.slowest)
    ));
    report
}

/// One that computes for longer than anybody waits, and another that wants the value.
async fn held(server: &Server) -> (Process, Process) {
    let holds = Task {
        takes: Duration::from_secs(4),
        ..task(server, 1, 1)
    };
    let (mut holder, mut other) = (
        Process::start(&holds).await,
        Process::start(&task(server, 2, 50)).await,
    );
    holder.go();
    holder.hear("computing").await;
    other.go();
    // It has been renewed by then, and is again.
    sleep(LEASE * 3 / 2).await;
    (holder, other)
}

/// The process that computes is killed: another takes over once its lease is over.
pub(crate) async fn lease_holder_killed() -> Report {
    let server = Server::start().await;
    let (holder, mut other) = held(&server).await;
    holder.signal("KILL");
    let killed = Instant::now();
    other.hear("computing").await;
    let taken = killed.elapsed();
    let seen = other.seen().await;
    let mut report = Report::default();
    report.within("another computes after", taken, LEASE);
    report.at_most("computes of it", seen.computes, 1);
    report.at_most("values", seen.values.len() as u64, 1);
    report.none("errors", seen.errors);
    report
}

/// The process that computes is frozen past the end of its lease, and goes on when another has stored its value.
pub(crate) async fn lease_holder_frozen() -> Report {
    let server = Server::start().await;
    let (mut holder, mut other) = held(&server).await;
    holder.signal("STOP");
    let frozen = Instant::now();
    other.hear("computing").await;
    let taken = frozen.elapsed();
    let seen = other.seen().await;
    // Its own time is over by then.
    sleep(Duration::from_secs(2)).await;
    holder.signal("CONT");
    let late = holder.seen().await;
    let reader = Redis::connect(&server.url(0)).await.expect("connected");
    let stored = reader.get::<u64>("herd").await.expect("read");
    let mut report = Report::default();
    report.within("another computes after", taken, LEASE);
    report.at_most("computes of both", seen.computes + late.computes, 2);
    report.none("late values stored", u64::from(stored != Some(2)));
    report.at_least("late values refused", late.outrun, 1);
    report.none("errors", seen.errors + late.errors);
    report.note(format!(
        "the frozen one's own caller was given {:?}",
        late.values
    ));
    report
}
