//! What keeps copies in memory from outliving the values they were copied from.
//!
//! Keys share 65,536 stripes. A write of a key enters its stripe: the generation rises, the number of writers under
//! way rises, and every memory above the store drops the key. A copy is put into memory only if no writer is under way and the
//! generation is the one noted before the copy was read, checked under the stripe's lock. So a copy that is older than a
//! write never gets in, however long it was on its way. It is a seqlock whose check stands at the fill.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

const STRIPES: usize = 1 << 16;

/// Memory above a store, which must drop what the store's writes make old. Keys are as stored.
pub(crate) trait Upper: Send + Sync {
    fn evict(&self, stored: &str);
    fn evict_under(&self, prefix: &str);
}

/// What a reader notes before it asks, and a writer before it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    generation: u32,
    clears: u64,
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stripe {
    generation: u32,
    writers: u32,
}

/// Clears cover every stripe, so they have a count of their own.
#[derive(Clone, Copy, Debug, Default)]
struct Clears {
    count: u64,
    under_way: u32,
}

/// The stripes of a store, and the memories above it.
pub(crate) struct Fence {
    /// Allocated when the first memory is put above the store: without one there is nothing to guard.
    stripes: OnceLock<Box<[Mutex<Stripe>]>>,
    hasher: ahash::RandomState,
    clears: RwLock<Clears>,
    uppers: RwLock<Vec<Weak<dyn Upper>>>,
    upper_count: AtomicUsize,
    /// How many memories were ever put above the store.
    attached: AtomicUsize,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence")
            .field("uppers", &self.upper_count)
            .finish_non_exhaustive()
    }
}

impl Fence {
    pub(crate) fn new() -> Self {
        Self {
            stripes: OnceLock::new(),
            hasher: ahash::RandomState::new(),
            clears: RwLock::default(),
            uppers: RwLock::default(),
            upper_count: AtomicUsize::new(0),
            attached: AtomicUsize::new(0),
        }
    }

    /// Puts a memory above the store. It is forgotten once it is dropped.
    pub(crate) fn attach(&self, upper: Weak<dyn Upper>) {
        let mut uppers = self.uppers.write().unwrap_or_else(PoisonError::into_inner);
        uppers.retain(|other| other.strong_count() > 0);
        uppers.push(upper);
        self.upper_count.store(uppers.len(), Ordering::Release);
        self.attached.fetch_add(1, Ordering::AcqRel);
    }

    fn is_guarded(&self) -> bool {
        self.upper_count.load(Ordering::Acquire) > 0
    }

    fn stripe(&self, key: &str) -> MutexGuard<'_, Stripe> {
        let stripes = self
            .stripes
            .get_or_init(|| (0..STRIPES).map(|_| Mutex::default()).collect());
        let index = usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or(0);
        stripes[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn each_upper(&self, act: impl Fn(&dyn Upper)) {
        let uppers = self.uppers.read().unwrap_or_else(PoisonError::into_inner);
        uppers
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|upper| act(&*upper));
    }

    /// Notes how things stand for a key, before its value is read or written.
    pub(crate) fn stamp(&self, key: &str) -> Stamp {
        let clears = *self.clears.read().unwrap_or_else(PoisonError::into_inner);
        let stripe = *self.stripe(key);
        Stamp {
            generation: stripe.generation,
            clears: clears.count,
            quiet: stripe.writers == 0 && clears.under_way == 0,
        }
    }

    /// Runs `fill`, which puts a copy read after `stamp` into memory, unless the key was or is being written.
    pub(crate) fn fill(&self, key: &str, stamp: Stamp, fill: impl FnOnce()) -> bool {
        stamp.quiet && self.insert(key, stamp, 0, fill)
    }

    /// Runs `keep`, which puts a value just written into memory, unless another write of the key was or is under way.
    pub(crate) fn keep(&self, key: &str, stamp: Stamp, keep: impl FnOnce()) -> bool {
        self.insert(key, stamp, 1, keep)
    }

    fn insert(&self, key: &str, stamp: Stamp, own_writers: u32, insert: impl FnOnce()) -> bool {
        // Held while inserting, so that no clear empties memory between the check and the insertion.
        let clears = self.clears.read().unwrap_or_else(PoisonError::into_inner);
        let stripe = self.stripe(key);
        let fits = stripe.generation == stamp.generation
            && stripe.writers <= own_writers
            && clears.count == stamp.clears
            && clears.under_way == 0;
        if fits {
            insert();
        }
        fits
    }

    /// Begins a write of a key: memory drops it, and is closed to copies of it until the answer is dropped.
    pub(crate) fn write<'f>(&'f self, key: &'f str) -> Write<'f> {
        let entered = self.is_guarded();
        if entered {
            let mut stripe = self.stripe(key);
            stripe.generation = stripe.generation.wrapping_add(1);
            stripe.writers += 1;
            self.each_upper(|upper| upper.evict(key));
        }
        Write {
            fence: self,
            key,
            entered,
        }
    }

    /// Begins a clear of all keys that begin with `prefix`: memory drops them, and is closed to copies until the answer
    /// is dropped.
    pub(crate) fn clear<'f>(&'f self, prefix: &'f str) -> Clear<'f> {
        let mut clears = self.clears.write().unwrap_or_else(PoisonError::into_inner);
        clears.count += 1;
        clears.under_way += 1;
        // Copies that were on their way in are in by now, and others are refused: memory is emptied without the lock.
        drop(clears);
        let attached = self.attached.load(Ordering::Acquire);
        self.each_upper(|upper| upper.evict_under(prefix));
        Clear {
            fence: self,
            prefix,
            attached,
        }
    }
}

/// A write under way.
#[must_use]
pub(crate) struct Write<'f> {
    fence: &'f Fence,
    key: &'f str,
    entered: bool,
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if self.entered {
            let mut stripe = self.fence.stripe(self.key);
            stripe.generation = stripe.generation.wrapping_add(1);
            stripe.writers = stripe.writers.saturating_sub(1);
        } else if self.fence.is_guarded() {
            // A memory was put above the store meanwhile and may have copied the old value.
            let mut stripe = self.fence.stripe(self.key);
            stripe.generation = stripe.generation.wrapping_add(1);
            self.fence.each_upper(|upper| upper.evict(self.key));
        }
    }
}

/// A clear under way.
#[must_use]
pub(crate) struct Clear<'f> {
    fence: &'f Fence,
    prefix: &'f str,
    attached: usize,
}

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        if self.fence.attached.load(Ordering::Acquire) != self.attached {
            // A memory was put above the store while the clear ran, and may hold copies from before.
            self.fence
                .each_upper(|upper| upper.evict_under(self.prefix));
        }
        let mut clears = self
            .fence
            .clears
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        clears.count += 1;
        clears.under_way = clears.under_way.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Default)]
    struct Memory(Mutex<Vec<String>>);

    impl Upper for Memory {
        fn evict(&self, stored: &str) {
            self.0.lock().unwrap().push(stored.to_owned());
        }
        fn evict_under(&self, prefix: &str) {
            self.0.lock().unwrap().push(format!("{prefix}*"));
        }
    }

    fn guarded() -> (Fence, Arc<Memory>) {
        let (fence, memory) = (Fence::new(), Arc::new(Memory::default()));
        let upper: Arc<dyn Upper> = memory.clone();
        fence.attach(Arc::downgrade(&upper));
        (fence, memory)
    }

    #[test]
    fn a_copy_older_than_a_write_never_enters() {
        let (fence, memory) = guarded();
        let before = fence.stamp("k");
        assert!(fence.fill("k", before, || ()), "nothing was written");
        let write = fence.write("k");
        assert!(!fence.fill("k", before, || panic!("a write is under way")));
        let during = fence.stamp("k");
        assert!(!fence.fill("k", during, || panic!("a write is under way")));
        drop(write);
        assert!(!fence.fill("k", before, || panic!("the key was written")));
        assert!(!fence.fill("k", during, || panic!("the key was written")));
        assert!(fence.fill("k", fence.stamp("k"), || ()));
        assert_eq!(*memory.0.lock().unwrap(), ["k"]);
    }

    #[test]
    fn of_two_writers_at_once_neither_leaves_its_value_in_memory() {
        let (fence, _memory) = guarded();
        let a = fence.write("k");
        let stamp_a = fence.stamp("k");
        let b = fence.write("k");
        let stamp_b = fence.stamp("k");
        assert!(!fence.keep("k", stamp_b, || panic!("two writers")));
        drop(b);
        assert!(!fence.keep("k", stamp_a, || panic!("the other wrote meanwhile")));
        drop(a);
        let c = fence.write("k");
        assert!(fence.keep("k", fence.stamp("k"), || ()));
        drop(c);
    }

    #[test]
    fn a_clear_covers_every_key() {
        let (fence, memory) = guarded();
        let before = fence.stamp("k");
        let clear = fence.clear("");
        let during = fence.stamp("k");
        assert!(!fence.fill("k", during, || panic!("a clear is under way")));
        drop(clear);
        assert!(!fence.fill("k", before, || panic!("all was cleared")));
        assert!(!fence.fill("k", during, || panic!("all was cleared")));
        assert!(fence.fill("k", fence.stamp("k"), || ()));
        assert_eq!(*memory.0.lock().unwrap(), ["*"]);
    }

    #[test]
    fn a_memory_attached_during_a_write_is_told_at_its_end() {
        let fence = Fence::new();
        let write = fence.write("k");
        let memory = Arc::new(Memory::default());
        let upper: Arc<dyn Upper> = memory.clone();
        fence.attach(Arc::downgrade(&upper));
        drop(write);
        assert_eq!(*memory.0.lock().unwrap(), ["k"]);
    }
}
