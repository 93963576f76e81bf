//! What happens in a schedule, all of it from its seed.

use std::time::Duration;

use larder::testing::Fault;
use larder::{Options, RefreshAhead};

pub(super) const KEYS: usize = 2;
pub(super) const PATIENCE: Duration = Duration::from_millis(40);
pub(super) const STORE_TIMEOUT: Duration = Duration::from_millis(50);
pub(super) const TICK: Duration = Duration::from_millis(5);
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// Of everything that begins by itself.
const SPAN_MS: u64 = 150;

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
        let mut chance = Chance(seed);
        let store = chance.of(&[Store::Memory, Store::Remote, Store::Tiers]);
        let writes = (0..chance.below(4)).map(|_| {
            let write = chance.of(&[Write::Delete, Write::Delete, Write::Set, Write::Clear]);
            (chance.span(SPAN_MS), write, chance.index(KEYS))
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
            let late = Fault::Delay(chance.span(80));
            let faults = [
                Fault::Fail,
                Fault::LoseAnswer,
                Fault::Stall,
                Fault::StallAnswer,
                late,
            ];
            let operation = chance.of(&operations);
            (
                chance.span(SPAN_MS),
                chance.span(SPAN_MS),
                operation,
                chance.of(&faults),
            )
        });
        let faults = faults.collect();
        Self {
            store,
            max_computes: chance.of(&[usize::MAX, usize::MAX, 1, 2]),
            calls: (0..2 + chance.below(9))
                .map(|_| Call::of(&mut chance))
                .collect(),
            writes,
            faults,
        }
    }
}

impl Call {
    fn of(chance: &mut Chance) -> Self {
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
        let away = Fate::GoesAway(chance.span(60));
        Self {
            at: chance.span(SPAN_MS),
            act: chance.of(&acts),
            key: chance.index(KEYS),
            options: options(chance),
            ends: chance.of(&ends),
            after: chance.span(60),
            fate: chance.of(&[Fate::Waits, Fate::Waits, Fate::Waits, away, Fate::Parks]),
        }
    }
}

fn options(chance: &mut Chance) -> Options {
    let short = Duration::from_millis(20);
    let mut options = Options::ttl(chance.of(&[short, short * 4, LONG]));
    if chance.once_in(2) {
        options = options.grace(chance.of(&[short, LONG]));
        options = options.throttle(short);
    }
    if chance.once_in(3) {
        options = options.soft_timeout(chance.span(40));
    }
    if chance.once_in(3) {
        options = options
            .hard_timeout(chance.span(120))
            .go_on(chance.once_in(2));
    }
    if chance.once_in(3) {
        let ahead = [RefreshAhead::XFetch(1.0), RefreshAhead::Within(short)];
        options = options.refresh_ahead(chance.of(&ahead));
    }
    if chance.once_in(4) {
        options = options.error_ttl(short);
    }
    if chance.once_in(4) {
        options = options.lease(short);
    }
    if chance.once_in(5) {
        options = options.max_waiters(chance.index(3));
    }
    options
}

/// SplitMix64, by Steele, Lea and Flood: the same numbers for the same seed on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("a small number")
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn span(&mut self, most_ms: u64) -> Duration {
        Duration::from_millis(1 + self.below(most_ms))
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())].clone()
    }
}
