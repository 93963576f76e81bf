//! The generation of one name, as far as this process knows: written under a lock, read without.
//!
//! When it was asked for is written before it and read before it, and it is unknown in between: who finds it asked for
//! lately finds no older one.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};

/// No generation: it is not known, or must be asked for.
pub(crate) const UNKNOWN: u64 = 0;

/// So often nothing is invalidated.
const FORGOTTEN: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(crate) struct Register {
    now: AtomicU64,
    /// Whether values without marks are in the namespace.
    plain: AtomicBool,
    /// When it was asked for, on the process's clock in nanoseconds.
    asked: AtomicU64,
    /// Where.
    origin: AtomicU64,
    /// How often it was invalidated: what was asked for before is not believed after.
    changes: Mutex<u64>,
}

/// What it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) now: u64,
    pub(crate) plain: bool,
    pub(crate) asked: u64,
    pub(crate) origin: u64,
}

impl Register {
    /// How often it was invalidated so far.
    pub(crate) fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what was asked for after so many changes, unless it was invalidated meanwhile.
    pub(crate) fn learn(&self, after: u64, known: Known) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes == after && after != FORGOTTEN {
            self.now.store(UNKNOWN, Ordering::SeqCst);
            self.origin.store(known.origin, Ordering::SeqCst);
            self.plain.store(known.plain, Ordering::SeqCst);
            self.asked.store(known.asked, Ordering::SeqCst);
            self.now.store(known.now, Ordering::SeqCst);
        }
    }

    /// It was invalidated, or may have been.
    pub(crate) fn invalidate(&self) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes = changes.saturating_add(1);
        self.now.store(UNKNOWN, Ordering::SeqCst);
    }

    /// Nobody tells it of invalidations any more: it stays unknown.
    pub(crate) fn forget(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = FORGOTTEN;
        self.now.store(UNKNOWN, Ordering::SeqCst);
    }

    /// It is this, as only its owner says.
    pub(crate) fn set(&self, now: u64) {
        self.now.store(now, Ordering::Release);
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    pub(crate) fn known(&self) -> Option<Known> {
        let asked = self.asked.load(Ordering::Acquire);
        let origin = self.origin.load(Ordering::Acquire);
        let plain = self.plain.load(Ordering::Acquire);
        let now = self.now();
        (now != UNKNOWN).then_some(Known {
            now,
            plain,
            asked,
            origin,
        })
    }
}
