//! The invariants, each read judged by them.

use crate::barriers::Scope;
use crate::history::What;
use crate::ledger::{Entry, Held, Ledger, TAGS, lock};
use crate::tally::{Invariant, Tally};

/// Within what time a process has heard of another map, in nanoseconds.
pub(crate) const PROPAGATION: u64 = 1_500_000_000;

/// So long after a change of the map some process may still tell nodes of before, in nanoseconds.
const SETTLED: u64 = 3_000_000_000;

/// Who reads, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) process: usize,
    /// How old the process's memory may be, in nanoseconds.
    pub(crate) bound: u64,
    pub(crate) began: u64,
    /// Whether it may be handed what another caller of its process computes.
    pub(crate) may_join: bool,
    /// Whether memory answered.
    pub(crate) memory: bool,
}

/// What a read found, against all that is known.
pub(crate) struct Judge<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) tally: &'a Tally,
    /// Of each key, the process that writes it.
    pub(crate) writer: fn(usize, usize) -> usize,
    pub(crate) processes: usize,
}

/// A broken promise.
struct Broken {
    invariant: Invariant,
    why: String,
}

fn broken(invariant: Invariant, why: String) -> Result<(), Broken> {
    Err(Broken { invariant, why })
}

impl Judge<'_> {
    /// Judges what was found under a key.
    pub(crate) fn read(&self, key: usize, reading: Reading, found: Option<&Held>) {
        let what = found.map_or(What::Nothing(reading.began), |held| {
            What::Read(held.version, held.serial, reading.began)
        });
        self.tally.read(reading.memory);
        let cutoff = self.cutoff(reading);
        let mut entry = self.ledger.entry(key);
        let at = self.ledger.now();
        let event = crate::history::Event {
            at,
            process: reading.process,
            what,
        };
        entry.history.push(event);
        let Some(held) = found else { return };
        self.lag(&entry, reading, held);
        let verdict = self
            .right(key, held)
            .and_then(|()| self.fresh(&entry, reading, cutoff, held))
            .and_then(|()| self.alive(&entry, reading, cutoff, held));
        if let Err(broken) = verdict {
            let history = entry.history.with(&lock(&self.ledger.events));
            let head = format!(
                "{}\n  key {key}, process {}, bound {} ms, memory {}, began {}: {held:?}",
                broken.why,
                reading.process,
                reading.bound / 1_000_000,
                reading.memory,
                crate::history::ms(reading.began),
            );
            drop(entry);
            self.tally
                .violated(broken.invariant, &format!("{head}\n{history}"));
        }
    }

    /// What others did by then is known to the reader.
    fn cutoff(&self, reading: Reading) -> u64 {
        let bound = reading.began.saturating_sub(reading.bound);
        let wide = bound.saturating_sub(PROPAGATION);
        let changed = lock(&self.ledger.barriers).changed_since(wide);
        if changed { wide } else { bound }
    }

    fn lag(&self, entry: &Entry, reading: Reading, held: &Held) {
        let superseded = entry.superseded(held.version);
        if let Some(late) = superseded.and_then(|at| reading.began.checked_sub(at))
            && !entry.in_the_air(held.serial, reading.began)
        {
            self.tally.lag(late);
        }
    }

    fn right(&self, key: usize, held: &Held) -> Result<(), Broken> {
        if held.key != key || held.version > self.ledger.version(key) {
            return broken(Invariant::Wrong, "a value of nobody's".to_owned());
        }
        Ok(())
    }

    /// Not older than what was acknowledged.
    fn fresh(
        &self,
        entry: &Entry,
        reading: Reading,
        cutoff: u64,
        held: &Held,
    ) -> Result<(), Broken> {
        let own = (self.writer)(held.key, self.processes) == reading.process;
        // Handed over in flight, what others wrote since the compute began does not count.
        let flew = reading.may_join
            && held.process == reading.process
            && held.computed
            && entry.in_the_air(held.serial, reading.began);
        if !own && flew {
            return Ok(());
        }
        let (cutoff, invariant) = match own {
            true => (reading.began, Invariant::Own),
            false => (cutoff, Invariant::Bound),
        };
        let Some(floor) = entry.floor(cutoff) else {
            return Ok(());
        };
        if held.version < floor.version {
            let version = floor.version;
            return broken(
                invariant,
                format!("older than v{version}, acknowledged before"),
            );
        }
        if held.computed && held.born < floor.started {
            let version = floor.version;
            return broken(
                Invariant::Wins,
                format!("computed before v{version} was written"),
            );
        }
        Ok(())
    }

    /// Not from before a clear, an invalidated tag or the loss of its server.
    fn alive(
        &self,
        entry: &Entry,
        reading: Reading,
        cutoff: u64,
        held: &Held,
    ) -> Result<(), Broken> {
        let flew = reading.may_join && entry.in_the_air(held.serial, reading.began);
        let others = if flew { 0 } else { cutoff };
        let born = match held.computed {
            true => held.born,
            // It took place at some time until then.
            false => entry.acked(held.version).unwrap_or(u64::MAX),
        };
        let barriers = lock(&self.ledger.barriers);
        let own = (reading.process, reading.began);
        if born < barriers.before(Scope::All, own, others) {
            return broken(Invariant::Wins, "from before a clear".to_owned());
        }
        let tag = Scope::Tag(held.key % TAGS);
        if held.tagged && born < barriers.before(tag, own, others) {
            return broken(
                Invariant::Wins,
                "from before its tag was invalidated".to_owned(),
            );
        }
        if born < barriers.lost_before(held.key, others, SETTLED) {
            return broken(
                Invariant::Events,
                "from before its server lost everything".to_owned(),
            );
        }
        Ok(())
    }

    /// Judges what was found in a counter.
    pub(crate) fn counter(&self, number: usize, reading: Reading, found: Option<i64>) {
        self.tally.read(reading.memory);
        let Some(found) = found else { return };
        let cutoff = match (self.writer)(number, self.processes) == reading.process {
            true => reading.began,
            false => self.cutoff(reading),
        };
        let barriers = lock(&self.ledger.barriers);
        let own = (reading.process, reading.began);
        let dead = barriers.before(Scope::Counts, own, self.cutoff_of(reading));
        let unsure = barriers.last_change();
        drop(barriers);
        let counter = lock(&self.ledger.counters[number]);
        if !counter.allows(found, cutoff, dead, unsure) {
            let text = format!(
                "counter {number} was not {found}, process {}, began {}, cutoff {cutoff}, dead {dead}, memory {}\n    {counter:?}",
                reading.process, reading.began, reading.memory
            );
            drop(counter);
            self.tally.violated(Invariant::Counters, &text);
        }
    }

    fn cutoff_of(&self, reading: Reading) -> u64 {
        reading.began.saturating_sub(reading.bound + PROPAGATION)
    }
}
