//! What was written, computed and invalidated, and when: what every read is judged by.
//!
//! Times are nanoseconds since the run began, on one clock for all. A write is noted when it begins and when it is
//! acknowledged, so it took place somewhere in between.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::barriers::Barriers;
use crate::counters::Counter;
use crate::history::{Event, History, What};

/// Keys are few, so that they meet.
pub(crate) const KEYS: usize = 64;
pub(crate) const COUNTERS: usize = 8;
pub(crate) const TAGS: usize = 8;

/// Acknowledged writes and computes remembered of each key. Older ones count by the version of the oldest.
const REMEMBERED: usize = 512;

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) key: usize,
    pub(crate) version: u64,
    /// Told apart from every other value.
    pub(crate) serial: u64,
    /// When its compute began, before the database was read; of a value that was set, when that began.
    pub(crate) born: u64,
    pub(crate) computed: bool,
    pub(crate) tagged: bool,
    pub(crate) process: usize,
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) version: u64,
    pub(crate) started: u64,
    pub(crate) acked: u64,
}

#[derive(Debug)]
pub(crate) struct Compute {
    serial: u64,
    ended: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// In the order of time and of versions: each key has one writer.
    pub(crate) acks: VecDeque<Ack>,
    pub(crate) computes: VecDeque<Compute>,
    pub(crate) history: History,
}

impl Entry {
    /// The latest write that was acknowledged by then.
    pub(crate) fn floor(&self, cutoff: u64) -> Option<Ack> {
        let after = self.acks.partition_point(|ack| ack.acked <= cutoff);
        self.acks.get(after.checked_sub(1)?).copied()
    }

    /// When a version was acknowledged.
    pub(crate) fn acked(&self, version: u64) -> Option<u64> {
        let at = self.acks.partition_point(|ack| ack.version < version);
        let ack = self.acks.get(at).filter(|ack| ack.version == version)?;
        Some(ack.acked)
    }

    /// When the first version after this one was acknowledged.
    pub(crate) fn superseded(&self, version: u64) -> Option<u64> {
        let at = self.acks.partition_point(|ack| ack.version <= version);
        self.acks.get(at).map(|ack| ack.acked)
    }

    /// Whether a computed value may have been handed from caller to caller at that time, without a store.
    pub(crate) fn in_the_air(&self, serial: u64, at: u64) -> bool {
        let mut all = self.computes.iter().rev();
        all.find(|compute| compute.serial == serial)
            .is_some_and(|compute| compute.ended.is_none_or(|ended| ended >= at))
    }
}

/// Everything that is known, of one fleet.
pub(crate) struct Ledger {
    began: Instant,
    serials: AtomicU64,
    /// The database: of each key the latest version.
    versions: Vec<AtomicU64>,
    entries: Vec<Mutex<Entry>>,
    pub(crate) counters: Vec<Mutex<Counter>>,
    pub(crate) barriers: Mutex<Barriers>,
    /// Of the fleet as a whole.
    pub(crate) events: Mutex<History>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(crate) fn new(began: Instant, processes: usize) -> Self {
        Self {
            began,
            serials: AtomicU64::new(1),
            versions: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
            entries: (0..KEYS).map(|_| Mutex::default()).collect(),
            counters: (0..COUNTERS).map(|_| Mutex::default()).collect(),
            barriers: Mutex::new(Barriers::new(processes)),
            events: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn entry(&self, key: usize) -> MutexGuard<'_, Entry> {
        lock(&self.entries[key])
    }

    pub(crate) fn version(&self, key: usize) -> u64 {
        self.versions[key].load(Ordering::SeqCst)
    }

    pub(crate) fn note(&self, what: What, process: usize) {
        let at = self.now();
        lock(&self.events).push(Event { at, process, what });
    }

    pub(crate) fn note_key(&self, key: usize, what: What, process: usize) {
        let at = self.now();
        self.entry(key).history.push(Event { at, process, what });
    }

    /// Commits a new version to the database and notes that it is written to the cache next.
    pub(crate) fn commit(&self, key: usize, process: usize, tagged: bool, deletes: bool) -> Held {
        let version = self.versions[key].fetch_add(1, Ordering::SeqCst) + 1;
        let what = match deletes {
            true => What::Delete(version),
            false => What::Set(version),
        };
        self.note_key(key, what, process);
        Held {
            key,
            version,
            serial: self.serials.fetch_add(1, Ordering::Relaxed),
            born: self.now(),
            computed: false,
            tagged,
            process,
        }
    }

    /// A write came to its end. One that failed decides nothing.
    pub(crate) fn written(&self, held: &Held, acknowledged: bool) {
        let mut entry = self.entry(held.key);
        let acked = self.now();
        let what = match acknowledged {
            true => What::Acknowledged(held.version),
            false => What::Undecided(held.version),
        };
        entry.history.push(Event {
            at: acked,
            process: held.process,
            what,
        });
        if acknowledged {
            entry.acks.push_back(Ack {
                version: held.version,
                started: held.born,
                acked,
            });
            if entry.acks.len() > REMEMBERED {
                entry.acks.pop_front();
            }
        }
    }

    /// Begins a compute: what it answers is the database's version of now.
    pub(crate) fn compute(&self, key: usize, process: usize, tagged: bool) -> Held {
        let mut entry = self.entry(key);
        let born = self.now();
        let held = Held {
            key,
            version: self.version(key),
            serial: self.serials.fetch_add(1, Ordering::Relaxed),
            born,
            computed: true,
            tagged,
            process,
        };
        let what = What::Compute(held.version, held.serial);
        entry.history.push(Event {
            at: born,
            process,
            what,
        });
        entry.computes.push_back(Compute {
            serial: held.serial,
            ended: None,
        });
        if entry.computes.len() > REMEMBERED {
            entry.computes.pop_front();
        }
        held
    }

    /// Whoever computed this is done with it: it is stored by now, or never will be.
    pub(crate) fn computed(&self, key: usize, serial: u64) {
        let mut entry = self.entry(key);
        let now = self.now();
        let mut all = entry.computes.iter_mut().rev();
        if let Some(compute) = all.find(|compute| compute.serial == serial) {
            compute.ended = Some(now);
        }
    }
}
