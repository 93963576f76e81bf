//! What goes wrong, what it costs, and what it may cost at most: `make faults`.
//!
//! The rows run one after the other, since they measure time. `-- NAME` runs those whose name contains it, `-- --list`
//! lists them. A row whose times alone are past their bounds is tried twice more: the machine may have been busy.

mod clock;
mod coherence;
mod crowd;
mod flood;
mod herd;
mod ledger;
mod load;
mod logs;
mod managed;
mod manager;
mod memory;
mod network;
mod node;
mod outage;
mod process;
mod replies;
mod report;
mod ring;
mod server;
mod tiers;
mod topology;
mod traffic;

#[path = "../suite/managed/at_work.rs"]
#[allow(dead_code, reason = "the suite uses all of it")]
mod at_work;
#[path = "../suite/fleet.rs"]
#[allow(dead_code, reason = "the suite uses all of it")]
mod fleet;
#[path = "../suite/support.rs"]
#[allow(unused_imports, reason = "its own tests run in the suite")]
mod support;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, LocalBoxFuture};

use report::{Report, table};

/// No row takes this long.
const BOUND: Duration = Duration::from_secs(60);

/// How often a row is tried whose times are past their bounds.
const ATTEMPTS: u32 = 3;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// A fault and what is measured under it.
struct Row {
    /// Of the list of faults that the crate answers for.
    number: &'static str,
    name: &'static str,
    run: fn() -> LocalBoxFuture<'static, Report>,
}

macro_rules! rows {
    ($($number:literal $module:ident :: $name:ident,)*) => {
        &[$(Row {
            number: $number,
            name: stringify!($name),
            run: || $module::$name().boxed_local(),
        },)*]
    };
}

/// Numbers that are missing here have tests in the suite, or nothing to measure.
const ROWS: &[Row] = rows![
    "1" node::node_killed,
    "2" node::node_restarts_empty,
    "N3" node::memory_outlives_an_outage,
    "1" tiers::memory_over_killed_nodes,
    "3" tiers::memory_over_a_paused_node,
    "4" topology::node_ejected_and_back,
    "5" topology::node_ejected_twice,
    "5" tiers::memory_over_an_ejected_node,
    "5" tiers::memory_over_a_node_that_left,
    "6" network::slower_than_the_deadline,
    "7" network::slow_within_the_deadline,
    "8" network::blackhole,
    "9" network::old_flow_dead,
    "9" network::old_flow_heals,
    "10" network::refused,
    "11" replies::reset_under_load,
    "12" replies::half_closed,
    "13" replies::corrupt_replies,
    "14" replies::truncated_replies,
    "15" replies::one_byte_at_a_time,
    "16" network::accepts_and_never_answers,
    "17" coherence::line_stalled,
    "18" coherence::line_killed,
    "19" flood::many_writes,
    "19" flood::line_too_slow,
    "20" memory::server_flushed,
    "21" memory::expired_without_a_word,
    "22" memory::server_evicts,
    "23" server::out_of_memory,
    "24" server::password_changed,
    "25" server::read_only,
    "26" server::loading,
    "27" server::busy,
    "28" server::too_few_replicas,
    "35" manager::map_deleted,
    "35" managed::deleted_map_restored,
    "36" manager::map_rewritten_like_python,
    "36" managed::rewritten_under_a_manager,
    "37" manager::map_of_garbage,
    "37" managed::garbage_replaced,
    "38" topology::map_changed_under_load,
    "38" tiers::memory_over_a_changing_map,
    "38" managed::nodes_added_and_removed_under_load,
    "38" managed::memory_while_nodes_are_added_and_removed,
    "39" topology::two_maps_at_once,
    "39" tiers::memory_over_an_old_map,
    "39" managed::two_maps_of_a_manager,
    "39" managed::memory_over_an_old_map_of_a_manager,
    "40" manager::manager_down_at_start,
    "41" manager::manager_killed_under_load,
    "45" herd::eight_processes_at_once,
    "45" herd::forty_thousand_callers,
    "48" herd::lease_holder_killed,
    "48" herd::lease_holder_frozen,
    "50" clock::wall_clock_steps,
    "51" crowd::all_reconnect_at_once,
    "52" outage::server_away_for_long,
    "53" crowd::too_many_clients,
    "N1" ring::twelve_nodes_in_trouble,
    "N2" ring::fifty_nodes,
    "N4" memory::heard_of_a_write,
    "N5" outage::no_server_and_a_slow_origin,
];

fn main() -> ExitCode {
    if let Some(done) = process::played() {
        return done;
    }
    let Some(names) = arguments() else {
        for row in ROWS {
            println!("{}: test", row.name);
        }
        return ExitCode::SUCCESS;
    };
    logs::install();
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        shown(info);
    }));
    let chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name.contains(name));
    let began = Instant::now();
    let reports: Vec<_> = ROWS
        .iter()
        .filter(chosen)
        .map(|row| (row.number, row.name, tried(row)))
        .collect();
    println!("\n{}", table(&reports));
    let failed = reports.iter().filter(|row| !row.2.is_ok()).count();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {} passed; {failed} failed; finished in {:.0?}",
        reports.len() - failed,
        began.elapsed()
    );
    ExitCode::from(u8::from(failed > 0))
}

/// The names asked for; nothing where a list is. The flags of the usual harness are passed over.
fn arguments() -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--list" => return None,
            "--test-threads" | "--skip" | "--format" | "--color" | "--logfile" => {
                given.next();
            }
            flag if flag.starts_with('-') => {}
            name => names.push(name.to_owned()),
        }
    }
    Some(names)
}

fn tried(row: &Row) -> Report {
    let mut attempt = 1;
    loop {
        let began = Instant::now();
        let report = once(row).attempt(attempt);
        let verdict = if report.is_ok() { "ok" } else { "FAILED" };
        println!(
            "{:>3} {} ... {verdict}, attempt {attempt}, {:.1?}",
            row.number,
            row.name,
            began.elapsed()
        );
        if report.is_ok() || !report.only_late() || attempt == ATTEMPTS {
            return report;
        }
        println!("{}", table(&[(row.number, row.name, report)]));
        attempt += 1;
    }
}

/// On a runtime of its own, so that nothing of one row is left in the next.
fn once(row: &Row) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let before = PANICS.load(Ordering::Relaxed);
    let machine = Machine::watch();
    let ended = runtime.block_on(async {
        let bounded = tokio::time::timeout(BOUND, (row.run)());
        AssertUnwindSafe(bounded).catch_unwind().await
    });
    let paused = machine.longest_pause();
    runtime.shutdown_timeout(Duration::from_secs(1));
    let mut report = match ended {
        Ok(Ok(report)) => report,
        Ok(Err(_)) => Report::broken("the row did not end"),
        Err(_) => Report::broken("the row panicked"),
    };
    let panics = PANICS.load(Ordering::Relaxed) - before;
    if panics > 0 {
        report.none("panics", panics);
    }
    if !report.is_ok() {
        let paused = report::time(paused);
        report.note(format!(
            "a thread that does nothing was late by up to {paused}"
        ));
    }
    report
}

/// A thread that sleeps again and again: how late it wakes up is how busy the machine is.
struct Machine {
    done: Arc<AtomicBool>,
    thread: thread::JoinHandle<Duration>,
}

impl Machine {
    fn watch() -> Self {
        const NAP: Duration = Duration::from_millis(5);
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                thread::sleep(NAP);
                longest = longest.max(began.elapsed().saturating_sub(NAP));
            }
            longest
        });
        Self { done, thread }
    }

    fn longest_pause(self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
