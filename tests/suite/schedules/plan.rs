//! What happens in a schedule, all of it from its seed.

#[path = "../../model/random.rs"]
#[allow(dead_code, reason = "the model uses all of it")]
mod random;

use std::time::Duration;

use larder::testing::Fault;
use larder::{Options, RefreshAhead};

use random::Random;

pub(super) const KEYS: usize = 2;
pub(super) const PATIENCE: Duration = Duration::from_millis(40);
pub(super) const STORE_TIMEOUT: Duration = Duration::from_millis(50);
pub(super) const TICK: Duration = Duration::from_millis(5);
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// Of everything that begins by itself.
const SPAN_MS: usize = 150;

pub(super) fn name(key: usize) -> String {
    format!("key:{key}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Memory,
    Remote,
    Tiers,
}

/// How a compute ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Value,
    Error,
    Panic,
    Never,
}

/// What becomes of a caller.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Waits,
    GoesAway(Duration),
    Parks,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Borrowing,
    Apart,
    Many,
    Read,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Write {
    Delete,
    Clear,
    Set,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) at: Duration,
    pub(super) act: Act,
    pub(super) key: usize,
    pub(super) options: Options,
    pub(super) ends: Ends,
    pub(super) after: Duration,
    pub(super) fate: Fate,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) store: Store,
    pub(super) max_computes: usize,
    pub(super) calls: Vec<Call>,
    pub(super) writes: Vec<(Duration, Write, usize)>,
    /// From when, for how long, what.
    pub(super) faults: Vec<(Duration, Duration, &'static str, Fault)>,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let chance = &mut Random::new(seed, 0);
        let store = one_of(chance, &[Store::Memory, Store::Remote, Store::Tiers]);
        let writes = (0..chance.below(4)).map(|_| {
            let write = one_of(
                chance,
                &[Write::Delete, Write::Delete, Write::Set, Write::Clear],
            );
            (span(chance, SPAN_MS), write, chance.below(KEYS))
        });
        let writes = writes.collect();
        let faults = match store {
            Store::Memory => 0,
            _ => chance.below(3),
        };
        let faults = (0..faults).map(|_| {
            let operations = [
                "fetch",
                "store",
                "begin",
                "claim",
                "fetch_many",
                "store_many",
            ];
            let late = Fault::Delay(span(chance, 80));
            let faults = [
                Fault::Fail,
                Fault::LoseAnswer,
                Fault::Stall,
                Fault::StallAnswer,
                late,
            ];
            let operation = one_of(chance, &operations);
            (
                span(chance, SPAN_MS),
                span(chance, SPAN_MS),
                operation,
                one_of(chance, &faults),
            )
        });
        let faults = faults.collect();
        Self {
            store,
            max_computes: one_of(chance, &[usize::MAX, usize::MAX, 1, 2]),
            calls: (0..2 + chance.below(9)).map(|_| Call::of(chance)).collect(),
            writes,
            faults,
        }
    }
}

impl Call {
    fn of(chance: &mut Random) -> Self {
        let acts = [
            Act::Borrowing,
            Act::Borrowing,
            Act::Apart,
            Act::Apart,
            Act::Many,
            Act::Read,
        ];
        let ends = [
            Ends::Value,
            Ends::Value,
            Ends::Error,
            Ends::Panic,
            Ends::Never,
        ];
        let away = Fate::GoesAway(span(chance, 60));
        Self {
            at: span(chance, SPAN_MS),
            act: one_of(chance, &acts),
            key: chance.below(KEYS),
            options: options(chance),
            ends: one_of(chance, &ends),
            after: span(chance, 60),
            fate: one_of(
                chance,
                &[Fate::Waits, Fate::Waits, Fate::Waits, away, Fate::Parks],
            ),
        }
    }
}

fn options(chance: &mut Random) -> Options {
    let short = Duration::from_millis(20);
    let mut options = Options::ttl(one_of(chance, &[short, short * 4, LONG]));
    if chance.below(2) == 0 {
        options = options.grace(one_of(chance, &[short, LONG]));
        options = options.throttle(short);
    }
    if chance.below(3) == 0 {
        options = options.soft_timeout(span(chance, 40));
    }
    if chance.below(3) == 0 {
        options = options
            .hard_timeout(span(chance, 120))
            .go_on(chance.below(2) == 0);
    }
    if chance.below(3) == 0 {
        let ahead = [RefreshAhead::XFetch(1.0), RefreshAhead::Within(short)];
        options = options.refresh_ahead(one_of(chance, &ahead));
    }
    if chance.below(4) == 0 {
        options = options.error_ttl(short);
    }
    if chance.below(4) == 0 {
        options = options.lease(short);
    }
    if chance.below(5) == 0 {
        options = options.max_waiters(chance.below(3));
    }
    options
}

fn span(chance: &mut Random, most_ms: usize) -> Duration {
    chance.millis(1, most_ms + 1)
}

fn one_of<T: Clone>(chance: &mut Random, choices: &[T]) -> T {
    choices[chance.below(choices.len())].clone()
}
