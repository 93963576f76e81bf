//! How much a connection carries at once, and how much of that a second time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Of the operations under way one in so many may be a second try.
const RETRY_SHARE: usize = 5;

/// So many second tries are allowed in any case.
const MIN_RETRIES: usize = 3;

/// What is under way, and what was refused or repeated so far. In cache lines of its own: it changes with each operation, and
/// what stands beside it in memory does not.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Load {
    in_flight: AtomicUsize,
    /// Gathered gets among what is under way, which are counted where they are queued.
    gathered: AtomicUsize,
    retrying: AtomicUsize,
    pub(super) refused: AtomicU64,
    pub(super) retries: AtomicU64,
}

/// One of the places under a bound, given back when dropped.
#[must_use]
pub(super) struct Place<'l>(&'l AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Load {
    /// A place for an operation; none, and counted, where `max` are taken.
    pub(super) fn enter(&self, max: usize) -> Option<Place<'_>> {
        let gathered = self.gathered.load(Relaxed);
        let place = take(&self.in_flight, max.saturating_sub(gathered));
        if place.is_none() {
            self.refused.fetch_add(1, Relaxed);
        }
        place
    }

    /// Whether there is room for one more gathered get, where `gathered` are under way.
    pub(super) fn admits(&self, gathered: usize, max: usize) -> bool {
        gathered + self.in_flight.load(Relaxed) < max
    }

    /// So many gathered gets are under way.
    pub(super) fn set_gathered(&self, gathered: usize) {
        self.gathered.store(gathered, Relaxed);
    }

    /// A place for a second try of an operation, within a budget: the share of operations that Envoy proxy allows.
    /// When much fails at once, most of it would fail again.
    pub(super) fn retry(&self) -> Option<Place<'_>> {
        let budget = (self.in_flight.load(Relaxed) / RETRY_SHARE).max(MIN_RETRIES);
        let place = take(&self.retrying, budget);
        if place.is_some() {
            self.retries.fetch_add(1, Relaxed);
        }
        place
    }
}

fn take(taken: &AtomicUsize, max: usize) -> Option<Place<'_>> {
    // Given back at once where it was one too many.
    let place = Place(taken);
    (taken.fetch_add(1, Relaxed) < max).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let load = Load::default();
        let places: Vec<_> = (0..4).map(|_| load.enter(4)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(load.enter(4).is_none() && load.enter(4).is_none());
        assert_eq!(load.refused.load(Relaxed), 2);
        drop(places);
        assert!(load.enter(1).is_some());
    }

    #[test]
    fn second_tries_are_a_fifth_and_three_at_least() {
        let load = Load::default();
        let few: Vec<_> = (0..5).map_while(|_| load.retry()).collect();
        assert_eq!(few.len(), 3);
        drop(few);
        let _places: Vec<_> = (0..50).map(|_| load.enter(100)).collect();
        let many: Vec<_> = (0..50).map_while(|_| load.retry()).collect();
        assert_eq!(many.len(), 10);
    }
}
