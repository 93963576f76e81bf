//! Processes that read and write at random over real servers while everything goes wrong, and a model that knows what each
//! of them may read: `make model`.
//!
//! `SEED` decides what happens when, as far as the machine's timing allows, and is printed first. `OPS` is how many
//! operations there are, `FAULTS` which kinds go wrong (`LineStalled,Killed`; all unless set), `FLEET` over what
//! (`one` server or a `ring`; both unless set). docs/GUARANTEES.md says what is promised.

mod barriers;
mod checks;
mod counters;
mod faults;
mod history;
mod ledger;
mod process;
mod quiet;
mod random;
mod run;
mod schedule;
mod tally;
mod work;
mod world;

#[path = "../suite/support.rs"]
#[allow(unused_imports, reason = "its own tests run in the suite")]
mod support;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{env, panic};

use futures_util::future::join_all;

use random::Random;
use schedule::Kind;
use world::World;

static PANICS: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    // Other targets are listed and filtered with the usual flags.
    if env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let number = |name: &str| Some(env::var(name).ok()?.trim().parse().expect(name));
    let seed: u64 = number("SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64 % 1_000_000_000)
    });
    let operations = number("OPS").map_or(50_000, |operations| operations as usize);
    println!("SEED={seed} OPS={operations}");
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        shown(info);
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let code = runtime.block_on(all(seed, operations));
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn kinds() -> Vec<Kind> {
    let chosen = env::var("FAULTS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split(',').filter(|name| !name.is_empty()).collect();
    let named = |kind: &Kind| chosen.is_empty() || chosen.contains(&format!("{kind:?}").as_str());
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(named).collect();
    assert!(!kinds.is_empty(), "FAULTS names none of {:?}", Kind::ALL);
    kinds
}

async fn all(seed: u64, operations: usize) -> ExitCode {
    let (began, kinds) = (Instant::now(), kinds());
    let mut worlds = Vec::new();
    let fleet = env::var("FLEET").unwrap_or_default();
    if fleet != "ring" {
        worlds.push(World::of_one().await);
    }
    if fleet != "one" {
        worlds.push(World::of_ring().await);
    }
    let each = operations / worlds.len();
    let runs = worlds.iter().enumerate().map(|(index, world)| {
        let random = Random::new(seed, 1 + index as u64);
        run::run(world, &kinds, each, random)
    });
    let settled = join_all(runs).await.into_iter().all(|settled| settled);
    let tallies: Vec<_> = worlds.iter().map(|world| &world.tally).collect();
    tallies[0].panicked(PANICS.load(Ordering::Relaxed));
    println!("{}", tally::table(&tallies, &kinds));
    for world in &worlds {
        world.close().await;
    }
    let violations: u64 = tallies.iter().map(|tally| tally.violations()).sum();
    let ok = violations == 0 && settled;
    let verdict = if ok { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. SEED={seed} OPS={operations}: {violations} violations, {:.0?}",
        began.elapsed()
    );
    ExitCode::from(u8::from(!ok))
}
