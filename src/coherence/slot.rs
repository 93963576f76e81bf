//! What every hit looks at: whether a source was heard lately, and its epoch.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Read by every hit, written at gaps and with each sign of life.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Slot {
    /// The epoch, in the upper half, and the view. An epoch is never used twice.
    state: AtomicU64,
    /// When it was asked for the latest sign of life that it gave, in nanoseconds; 0 where there is none.
    proven: AtomicU64,
}

impl Slot {
    pub(crate) fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    pub(crate) fn proven(&self) -> u64 {
        self.proven.load(Ordering::Acquire)
    }

    /// The latest sign of life and, looked at after that, the state: who finds a sign of life from after a gap finds the epoch
    /// from after it too.
    #[inline]
    pub(crate) fn look(&self) -> (u64, u64) {
        let proven = self.proven();
        (proven, self.state())
    }

    /// It gave a sign of life that it was asked for then.
    pub(crate) fn prove(&self, asked: u64) {
        self.proven.fetch_max(asked, Ordering::AcqRel);
    }

    /// All copies are void.
    pub(crate) fn void(&self) {
        self.state.fetch_add(1 << 32, Ordering::AcqRel);
    }

    /// It is not heard any more. Not trusted first and void after: who finds the epoch of before finds no sign of life either,
    /// or one from before.
    pub(crate) fn end(&self) {
        self.proven.store(0, Ordering::Release);
        self.void();
    }

    /// Its source is gone. Whoever takes the slot next begins with an epoch of its own and counts views anew.
    pub(crate) fn leave(&self) {
        self.proven.store(0, Ordering::Release);
        let end = |state: u64| Some(((state >> 32) + 1) << 32);
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, end);
    }

    /// The map of sources has this number now, if it had a smaller one.
    pub(crate) fn set_view(&self, view: u32) {
        let put = |state: u64| {
            let known = state & u64::from(u32::MAX);
            Some(state >> 32 << 32 | known.max(u64::from(view)))
        };
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, put);
    }
}
