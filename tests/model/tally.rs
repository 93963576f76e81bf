//! What was counted, and the table of it.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::ledger::lock;
use crate::schedule::Kind;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    Own,
    Bound,
    Quiet,
    Events,
    Wins,
    Counters,
    Wrong,
    Hung,
    Panics,
}

impl Invariant {
    pub(crate) const ALL: [Self; 9] = [
        Self::Own,
        Self::Bound,
        Self::Quiet,
        Self::Events,
        Self::Wins,
        Self::Counters,
        Self::Wrong,
        Self::Hung,
        Self::Panics,
    ];

    fn about(self) -> &'static str {
        match self {
            Self::Own => "a process reads what it wrote",
            Self::Bound => "I1: nothing older than the bound",
            Self::Quiet => "I2: memory equals the store when all is quiet",
            Self::Events => "I3: nothing from before a flush or a restart",
            Self::Wins => "invalidation wins",
            Self::Counters => "counters",
            Self::Wrong => "values of nobody's",
            Self::Hung => "operations that took 10 s",
            Self::Panics => "panics",
        }
    }
}

/// Violations shown in full.
const SHOWN: u64 = 5;

#[derive(Debug)]
pub(crate) struct Tally {
    fleet: &'static str,
    kind: AtomicUsize,
    operations: [AtomicU64; Kind::ALL.len()],
    failed: [AtomicU64; Kind::ALL.len()],
    reads: AtomicU64,
    memory: AtomicU64,
    violations: [[AtomicU64; Kind::ALL.len()]; Invariant::ALL.len()],
    shown: AtomicU64,
    /// How late reads were that found an older value, in nanoseconds.
    lags: Mutex<Vec<u64>>,
    pub(crate) computes: AtomicU64,
    pub(crate) compared: AtomicU64,
}

impl Tally {
    pub(crate) fn new(fleet: &'static str) -> Self {
        Self {
            fleet,
            kind: AtomicUsize::new(0),
            operations: [const { AtomicU64::new(0) }; Kind::ALL.len()],
            failed: [const { AtomicU64::new(0) }; Kind::ALL.len()],
            reads: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            violations: [const { [const { AtomicU64::new(0) }; Kind::ALL.len()] };
                Invariant::ALL.len()],
            shown: AtomicU64::new(0),
            lags: Mutex::default(),
            computes: AtomicU64::new(0),
            compared: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_kind(&self, kind: Kind) {
        self.kind.store(kind.index(), Ordering::Relaxed);
    }

    pub(crate) fn operation(&self, ok: bool) {
        let kind = self.kind.load(Ordering::Relaxed);
        self.operations[kind].fetch_add(1, Ordering::Relaxed);
        self.failed[kind].fetch_add(u64::from(!ok), Ordering::Relaxed);
    }

    pub(crate) fn read(&self, memory: bool) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.memory.fetch_add(u64::from(memory), Ordering::Relaxed);
    }

    pub(crate) fn lag(&self, nanos: u64) {
        lock(&self.lags).push(nanos);
    }

    pub(crate) fn violated(&self, invariant: Invariant, text: &str) {
        let kind = self.kind.load(Ordering::Relaxed);
        self.violations[invariant as usize][kind].fetch_add(1, Ordering::Relaxed);
        if self.shown.fetch_add(1, Ordering::Relaxed) < SHOWN {
            let about = invariant.about();
            println!(
                "VIOLATION ({}), during {:?}: {about}: {text}",
                self.fleet,
                Kind::ALL[kind]
            );
        }
    }

    pub(crate) fn panicked(&self, count: u64) {
        self.violations[Invariant::Panics as usize][0].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn violations(&self) -> u64 {
        let all = self.violations.iter().flatten();
        all.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn operations(&self, kind: Kind) -> u64 {
        self.operations[kind.index()].load(Ordering::Relaxed)
    }

    fn of(&self, invariant: Invariant, kind: Kind) -> u64 {
        self.violations[invariant as usize][kind.index()].load(Ordering::Relaxed)
    }
}

fn sum(tallies: &[&Tally], of: impl Fn(&Tally) -> u64) -> u64 {
    tallies.iter().map(|tally| of(tally)).sum()
}

type Figure = (&'static str, fn(&Tally) -> &AtomicU64);

/// All figures of all fleets.
pub(crate) fn table(tallies: &[&Tally], kinds: &[Kind]) -> String {
    let mut text = String::from("\n| fault | operations | failed | violations |\n|-|-|-|-|\n");
    for kind in kinds {
        let at = kind.index();
        let operations = sum(tallies, |tally| tally.operations(*kind));
        let failed = sum(tallies, |tally| tally.failed[at].load(Ordering::Relaxed));
        let violations = sum(tallies, |tally| {
            let all = Invariant::ALL.iter();
            all.map(|invariant| tally.of(*invariant, *kind)).sum()
        });
        let about = kind.about();
        let _ = writeln!(text, "| {about} | {operations} | {failed} | {violations} |");
    }
    text += "\n| invariant | violations |\n|-|-|\n";
    for invariant in Invariant::ALL {
        let all = Kind::ALL.iter();
        let count = sum(tallies, |tally| {
            all.clone().map(|kind| tally.of(invariant, *kind)).sum()
        });
        let _ = writeln!(text, "| {} | {count} |", invariant.about());
    }
    text += "\n| figure | |\n|-|-|\n";
    let figures: [Figure; 4] = [
        ("reads", |tally| &tally.reads),
        ("of them answered by memory", |tally| &tally.memory),
        ("computes", |tally| &tally.computes),
        ("copies compared when all was quiet", |tally| {
            &tally.compared
        }),
    ];
    for (name, of) in figures {
        let count = sum(tallies, |tally| of(tally).load(Ordering::Relaxed));
        let _ = writeln!(text, "| {name} | {count} |");
    }
    text + &lags(tallies)
}

fn lags(tallies: &[&Tally]) -> String {
    let mut lags: Vec<u64> = Vec::new();
    for tally in tallies {
        lags.extend(lock(&tally.lags).iter());
    }
    lags.sort_unstable();
    let at = |share: f64| {
        let last = lags.len().saturating_sub(1);
        let lag = lags.get((last as f64 * share) as usize).copied();
        crate::history::ms(lag.unwrap_or(0))
    };
    format!(
        "| reads of an older value | {} |\n| by how much, p50 / p99 / max | {} / {} / {} ms |\n",
        lags.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
