//! Clears, invalidated tags, and servers that lost everything: no value from before is answered after.

use crate::ledger::TAGS;

/// What a barrier covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Counts,
    Tag(usize),
}

/// Barriers of one kind by one process, in the order in which they were acknowledged.
#[derive(Clone, Debug, Default)]
struct Line(Vec<(u64, u64)>);

impl Line {
    fn push(&mut self, started: u64, acked: u64) {
        let latest = self.0.last().map_or(0, |last| last.1);
        self.0.push((acked, latest.max(started)));
    }

    /// Nothing that was born before this may be answered.
    fn before(&self, cutoff: u64) -> u64 {
        let after = self.0.partition_point(|(acked, _)| *acked <= cutoff);
        after.checked_sub(1).map_or(0, |at| self.0[at].1)
    }
}

/// A server that lost everything, and the keys that stood there.
#[derive(Debug)]
struct Loss {
    started: u64,
    acked: u64,
    keys: Vec<bool>,
}

#[derive(Debug)]
pub(crate) struct Barriers {
    clears: Vec<Line>,
    counts: Vec<Line>,
    tags: Vec<Vec<Line>>,
    losses: Vec<Loss>,
    /// When the map of the ring was changed.
    changes: Vec<u64>,
}

impl Barriers {
    pub(crate) fn new(processes: usize) -> Self {
        Self {
            clears: vec![Line::default(); processes],
            counts: vec![Line::default(); processes],
            tags: vec![vec![Line::default(); processes]; TAGS],
            losses: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, scope: Scope, process: usize, started: u64, acked: u64) {
        match scope {
            Scope::All => self.clears[process].push(started, acked),
            Scope::Counts => self.counts[process].push(started, acked),
            Scope::Tag(tag) => self.tags[tag][process].push(started, acked),
        }
    }

    pub(crate) fn lost(&mut self, started: u64, acked: u64, keys: Vec<bool>) {
        self.losses.push(Loss {
            started,
            acked,
            keys,
        });
    }

    pub(crate) fn changed(&mut self, at: u64) {
        self.changes.push(at);
    }

    /// Whether the map changed since.
    pub(crate) fn changed_since(&self, at: u64) -> bool {
        self.changes.last().is_some_and(|last| *last >= at)
    }

    pub(crate) fn last_change(&self) -> Option<u64> {
        self.changes.last().copied()
    }

    /// What a reader's own process, and what others, have invalidated by then: values born before are dead.
    pub(crate) fn before(&self, scope: Scope, own: (usize, u64), others: u64) -> u64 {
        let lines = match scope {
            Scope::All => &self.clears,
            Scope::Counts => &self.counts,
            Scope::Tag(tag) => &self.tags[tag],
        };
        let each = lines
            .iter()
            .enumerate()
            .map(|(process, line)| line.before(if process == own.0 { own.1 } else { others }));
        each.max().unwrap_or(0)
    }

    /// When the key's server last lost everything, by then. Nothing if the map changed around that time: it may have stood
    /// elsewhere too.
    pub(crate) fn lost_before(&self, key: usize, cutoff: u64, settle: u64) -> u64 {
        let known = self.losses.iter().rev();
        let mut known = known.skip_while(|loss| loss.acked > cutoff || !loss.keys[key]);
        known.next().map_or(0, |loss| {
            let unsure = self.changed_since(loss.started.saturating_sub(settle));
            if unsure { 0 } else { loss.started }
        })
    }
}
