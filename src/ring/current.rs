//! The map in use, and what nearly every read wants to know of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};

use super::lock::lock;
use super::snapshot::Snapshot;

/// The snapshot in use: swapped under a lock, read without.
#[derive(Debug)]
pub(super) struct Current {
    map: ArcSwap<Snapshot>,
    /// Entries of this epoch need no look at the map: no key has another owner since, and the map is no older. 0 while there is
    /// no such epoch.
    settled: AtomicU64,
    swapping: Mutex<()>,
}

impl Current {
    pub(super) fn new(first: Snapshot) -> Self {
        Self {
            settled: AtomicU64::new(settled(&first)),
            map: ArcSwap::from_pointee(first),
            swapping: Mutex::default(),
        }
    }

    pub(super) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.map.load()
    }

    pub(super) fn load_full(&self) -> Arc<Snapshot> {
        self.map.load_full()
    }

    pub(super) fn store(&self, next: Arc<Snapshot>) {
        let _swapping = lock(&self.swapping);
        let epoch = settled(&next);
        // None of either map in between: who follows the one before takes nothing of the next one's epoch unjudged.
        self.settled.store(0, Ordering::SeqCst);
        self.map.store(next);
        self.settled.store(epoch, Ordering::SeqCst);
    }

    /// Whether an entry of `epoch` is of the present owner of its key, and tells of no newer map, whatever its key. No says
    /// nothing.
    pub(super) fn is_settled(&self, epoch: u64) -> bool {
        epoch == 0 || epoch == self.settled.load(Ordering::Acquire)
    }
}

fn settled(snapshot: &Snapshot) -> u64 {
    if snapshot.stated < snapshot.lineage.latest() {
        return 0;
    }
    snapshot.stated
}

#[cfg(test)]
mod tests {
    use super::super::lineage::Lineage;
    use super::*;

    fn at(stated: u64, latest: u64) -> Snapshot {
        let mut snapshot = Snapshot::empty(Arc::default());
        (snapshot.stated, snapshot.lineage) = (stated, Lineage::since(latest));
        snapshot
    }

    #[test]
    fn entries_of_the_present_epoch_and_of_none_are_settled() {
        let current = Current::new(at(0, 0));
        assert!(current.is_settled(0) && !current.is_settled(1));
        current.store(Arc::new(at(7, 5)));
        for (epoch, is) in [(0, true), (4, false), (6, false), (7, true), (8, false)] {
            assert_eq!(current.is_settled(epoch), is, "{epoch}");
        }
        current.store(Arc::new(at(7, 8)));
        assert!(!current.is_settled(7), "its owner changed since");
    }
}
