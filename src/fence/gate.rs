//! One stripe and the clears of its fence: what a copy is checked by.

use crate::sync::{Mutex, PoisonError, RwLock};

/// What a reader notes before it asks, and a writer before it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) generation: u32,
    pub(crate) clears: u64,
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stripe {
    generation: u32,
    writers: u32,
}

/// Clears cover every stripe, so they have a count of their own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clears {
    count: u64,
    under_way: u32,
}

/// A stripe, and the clears of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'f> {
    pub(crate) clears: &'f RwLock<Clears>,
    pub(crate) stripe: &'f Mutex<Stripe>,
}

impl Gate<'_> {
    fn change(self, change: impl FnOnce(&mut Stripe)) {
        change(&mut self.stripe.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn stamp(self) -> Stamp {
        let clears = *self.clears.read().unwrap_or_else(PoisonError::into_inner);
        let stripe = *self.stripe.lock().unwrap_or_else(PoisonError::into_inner);
        Stamp {
            generation: stripe.generation,
            clears: clears.count,
            quiet: stripe.writers == 0 && clears.under_way == 0,
        }
    }

    /// Runs `insert` if nothing was written since `stamp`, and no more than so many writers are under way.
    pub(crate) fn insert(self, stamp: Stamp, own_writers: u32, insert: impl FnOnce()) -> bool {
        // Held while inserting, so that no clear empties memory between the check and the insertion.
        let clears = self.clears.read().unwrap_or_else(PoisonError::into_inner);
        let stripe = self.stripe.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = stripe.generation == stamp.generation
            && stripe.writers <= own_writers
            && clears.count == stamp.clears
            && clears.under_way == 0;
        if fits {
            insert();
        }
        fits
    }

    /// A write begins: `tell` has memory drop the key.
    pub(crate) fn enter(self, tell: impl FnOnce()) {
        self.change(|stripe| {
            stripe.generation = stripe.generation.wrapping_add(1);
            stripe.writers += 1;
            tell();
        });
    }

    /// A write ends.
    pub(crate) fn leave(self) {
        self.change(|stripe| {
            stripe.generation = stripe.generation.wrapping_add(1);
            stripe.writers = stripe.writers.saturating_sub(1);
        });
    }

    /// A write took place: `tell` has memory drop the key.
    pub(crate) fn written(self, tell: impl FnOnce()) {
        self.change(|stripe| {
            stripe.generation = stripe.generation.wrapping_add(1);
            tell();
        });
    }
}

impl Clears {
    pub(crate) fn begin(clears: &RwLock<Self>) {
        let mut clears = clears.write().unwrap_or_else(PoisonError::into_inner);
        clears.count += 1;
        clears.under_way += 1;
    }

    pub(crate) fn end(clears: &RwLock<Self>) {
        let mut clears = clears.write().unwrap_or_else(PoisonError::into_inner);
        clears.count += 1;
        clears.under_way = clears.under_way.saturating_sub(1);
    }
}
