//! Counters, and a snapshot of them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::coherence::SourceStatus;
use crate::refusal::Refusal;

const CELLS: usize = 16;

/// One cell of a counter in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell(AtomicU64);

/// A counter that many threads raise at once without fighting for one cache line.
#[derive(Debug, Default)]
pub(crate) struct Counter([Cell; CELLS]);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        thread_local! {
            static CELL: usize = next_cell();
        }
        let index = CELL.try_with(|cell| *cell).unwrap_or(0);
        self.0[index].0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0
            .iter()
            .map(|cell| cell.0.load(Ordering::Relaxed))
            .sum()
    }
}

fn next_cell() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % CELLS
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a store counts, as it stood at one moment. Every number only ever rises.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            /// Reads answered from memory.
            pub memory_hits: u64,
            /// Reads answered by a store that had to be asked.
            pub store_hits: u64,
            /// Reads that found nothing.
            pub misses: u64,
            $($(#[$doc])* pub $name: u64,)*
            /// Stored bytes that were no value for the reader, by reason. Each was a miss too.
            pub refusals: Vec<(&'static str, u64)>,
            /// The places whose writes by others are heard of, each with how things stand there. What is told of them here
            /// can fall too.
            pub sources: Vec<SourceStatus>,
        }

        /// The counters themselves.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            pub(crate) memory_hits: Counter,
            pub(crate) store_hits: Counter,
            pub(crate) misses: Counter,
            $(pub(crate) $name: AtomicU64,)*
            refusals: [AtomicU64; Refusal::ALL.len()],
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                let refusals = Refusal::ALL.iter().zip(&self.refusals);
                Stats {
                    memory_hits: self.memory_hits.get(),
                    store_hits: self.store_hits.get(),
                    misses: self.misses.get(),
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    refusals: refusals.map(|(why, n)| (why.as_str(), n.load(Ordering::Relaxed))).collect(),
                    sources: Vec::new(),
                }
            }
        }

        impl Stats {
            /// Every counter by name.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![
                    ("memory_hits", self.memory_hits),
                    ("store_hits", self.store_hits),
                    ("misses", self.misses),
                    $((stringify!($name), self.$name),)*
                ]
            }
        }
    };
}

counters! {
    /// Computes begun by `get_or_set` and its kin.
    computes,
    /// Callers that were served by another caller's compute.
    coalesced,
    /// Computes that erred or panicked and were reported to others.
    compute_failures,
    /// Computed values that were not stored, because the key was written or deleted meanwhile.
    outrun,
    /// Values stored.
    stores,
    /// Deletes asked for.
    deletes,
    /// Calls with an unusable key; `get_or_set` computed without the cache.
    bad_keys,
    /// Values that could not be encoded, or were too large.
    encode_errors,
    /// Reads that a store answered with an error; each was a miss where the caller does not see errors.
    read_errors,
    /// Writes that a store answered with an error.
    write_errors,
    /// Values that were begun to be computed anew before their ttl was over.
    refreshes,
    /// Answers past their ttl, within their grace.
    stale,
    /// Calls that had no value within their hard timeout.
    timeouts,
    /// Calls that were refused because too many computed, or waited for one.
    busy,
    /// Calls that were answered a failure that was kept.
    failures,
    /// Reads of a key as another type than it was stored as.
    conversions,
    /// Copies that did not enter memory, because the key was written while they were on their way.
    fills_refused,
    /// Copies in memory that were not answered, because they might have been old: the store below was asked.
    distrusted,
}

impl Counters {
    pub(crate) fn refused(&self, why: Refusal) {
        if let Some(index) = Refusal::ALL.iter().position(|other| *other == why) {
            self.refusals[index].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Raises a counter by one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    /// Reads that found a value.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.memory_hits + self.store_hits
    }

    /// How often bytes were refused for this reason.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refusals
            .iter()
            .find(|(name, _)| *name == why.as_str())
            .map_or(0, |(_, n)| *n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_many_threads_add_up() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| counters.memory_hits.add(1)));
            }
        });
        counters.refused(Refusal::Schema);
        let stats = counters.snapshot();
        assert_eq!(stats.hits(), 8000);
        assert_eq!(stats.refused(Refusal::Schema), 1);
        assert_eq!(stats.refused(Refusal::Epoch), 0);
    }
}
