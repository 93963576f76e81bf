//! What keeps copies in memory from outliving the values they were copied from.
//!
//! Keys share 65,536 stripes. A write of a key enters its stripe: the generation rises, the number of writers under
//! way rises, and every memory above the store drops the key. A copy is put into memory only if no writer is under way and the
//! generation is the one noted before the copy was read, checked under the stripe's lock. So a copy that is older than a
//! write never gets in, however long it was on its way. It is a seqlock whose check stands at the fill. A write by others
//! that the store tells of is the same in one step.

mod gate;
mod watch;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::coherence::{
    Before, Interest, Invalidation, Origin, Source, SourceStatus, Subscription, WeakSource,
};

use gate::{Clears, Gate};
pub(crate) use gate::{Stamp, Stripe};
use watch::Watches;
pub(crate) use watch::Watching;

const STRIPES: usize = 1 << 16;

impl Stamp {
    /// Whether nothing has happened since, as far as was told, but for one write that begins now.
    pub(crate) fn follows(self, before: &Before) -> bool {
        let next = before.generation.map(|noted| noted.wrapping_add(1));
        next == Some(self.generation) && before.clears == self.clears
    }
}

/// One who hears of the writes of a store under a prefix.
#[derive(Clone)]
struct Hearer {
    id: usize,
    prefix: Box<str>,
    interest: Interest,
}

/// What the subscribers of a store ask for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// None begins with another, and every key of theirs begins with one.
    pub(crate) prefixes: Vec<String>,
    /// The least of theirs.
    pub(crate) max_staleness: Duration,
}

/// The stripes of a store, and who hears of its writes.
pub(crate) struct Fence {
    /// Allocated with the first subscriber: without one there is nothing to guard.
    stripes: OnceLock<Box<[Mutex<Stripe>]>>,
    hasher: ahash::RandomState,
    clears: RwLock<Clears>,
    /// Taken out before anybody is told: a subscriber may end its subscription there.
    hearers: RwLock<Arc<[Hearer]>>,
    hearer_count: AtomicUsize,
    /// How many subscribers there ever were.
    attached: AtomicUsize,
    sources: Mutex<Vec<WeakSource>>,
    watches: Watches,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence")
            .field("subscribers", &self.hearer_count)
            .finish_non_exhaustive()
    }
}

impl Fence {
    pub(crate) fn new() -> Self {
        Self {
            stripes: OnceLock::new(),
            hasher: ahash::RandomState::new(),
            clears: RwLock::default(),
            hearers: RwLock::new(Arc::new([])),
            hearer_count: AtomicUsize::new(0),
            attached: AtomicUsize::new(0),
            sources: Mutex::default(),
            watches: Watches::default(),
        }
    }

    /// Ends when a write of the key is heard of, from now on.
    pub(crate) fn watch(&self, key: &str) -> Watching<'_> {
        self.watches.watch(key)
    }

    /// Has a subscriber told of writes under `prefix`, until the answer is dropped.
    pub(crate) fn subscribe(self: &Arc<Self>, prefix: &str, interest: Interest) -> Subscription {
        let id = self.attached.fetch_add(1, Ordering::AcqRel);
        self.change(|hearers| {
            hearers.push(Hearer {
                id,
                prefix: prefix.into(),
                interest,
            });
        });
        let fence = Arc::downgrade(self);
        Subscription::new(move || {
            if let Some(fence) = fence.upgrade() {
                fence.change(|hearers| hearers.retain(|hearer| hearer.id != id));
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Hearer>)) {
        let mut hearers = self.hearers.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = hearers.to_vec();
        change(&mut changed);
        self.hearer_count.store(changed.len(), Ordering::Release);
        *hearers = changed.into();
    }

    fn hearers(&self) -> Arc<[Hearer]> {
        let hearers = self.hearers.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&hearers)
    }

    /// What the subscribers ask for; nothing where there are none.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let hearers = self.hearers();
        let max_staleness = hearers.iter().map(|hearer| hearer.interest.max_staleness);
        let mut prefixes: Vec<String> = hearers
            .iter()
            .map(|hearer| hearer.prefix.to_string())
            .collect();
        // One that begins with another comes right after it, or after others that do.
        prefixes.sort();
        prefixes.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
        Some(Wanted {
            max_staleness: max_staleness.min()?,
            prefixes,
        })
    }

    /// A new place that tells of its writes.
    pub(crate) fn source(&self, label: &str) -> Source {
        let source = Source::new(label);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|other| other.status().is_some());
        sources.push(source.downgrade());
        source
    }

    /// How things stand with each source that there is.
    pub(crate) fn statuses(&self) -> Vec<SourceStatus> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter_map(WeakSource::status).collect()
    }

    fn is_guarded(&self) -> bool {
        self.hearer_count.load(Ordering::Acquire) > 0
    }

    fn gate(&self, key: &str) -> Gate<'_> {
        let stripes = self
            .stripes
            .get_or_init(|| (0..STRIPES).map(|_| Mutex::default()).collect());
        let index = usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or(0);
        Gate {
            clears: &self.clears,
            stripe: &stripes[index],
        }
    }

    fn tell(&self, what: Invalidation<'_>) {
        self.watches.tell(what);
        let concerns = |hearer: &&Hearer| match what {
            Invalidation::Keys(keys) => keys.iter().any(|key| key.starts_with(&*hearer.prefix)),
            Invalidation::Under(prefix) => {
                prefix.starts_with(&*hearer.prefix) || hearer.prefix.starts_with(prefix)
            }
            _ => true,
        };
        for hearer in self.hearers().iter().filter(concerns) {
            hearer.interest.subscriber.hear(what);
        }
    }

    /// Others have written something, or may have.
    pub(crate) fn written(&self, what: Invalidation<'_>) {
        if !self.is_guarded() {
            return;
        }
        match what {
            Invalidation::Keys(keys) => {
                for key in keys {
                    let tell = || self.tell(Invalidation::Keys(&[key]));
                    self.gate(key).written(tell);
                }
            }
            Invalidation::Under(prefix) => drop(self.clear(prefix)),
            Invalidation::All | Invalidation::Gap => self.tell(what),
        }
    }

    /// Notes how things stand for a key, before its value is read or written.
    pub(crate) fn stamp(&self, key: &str) -> Stamp {
        self.gate(key).stamp()
    }

    /// Notes how things stand for a key before its value is computed; nothing where nobody keeps copies.
    pub(crate) fn before(&self, key: &str, origin: impl FnOnce() -> Origin) -> Option<Before> {
        self.is_guarded().then(|| {
            let stamp = self.stamp(key);
            Before {
                generation: stamp.quiet.then_some(stamp.generation),
                clears: stamp.clears,
                origin: origin(),
            }
        })
    }

    /// Runs `fill`, which puts a copy read after `stamp` into memory, unless the key was or is being written.
    pub(crate) fn fill(&self, key: &str, stamp: Stamp, fill: impl FnOnce()) -> bool {
        stamp.quiet && self.gate(key).insert(stamp, 0, fill)
    }

    /// Runs `keep`, which puts a value just written into memory, unless another write of the key was or is under way.
    pub(crate) fn keep(&self, key: &str, stamp: Stamp, keep: impl FnOnce()) -> bool {
        self.gate(key).insert(stamp, 1, keep)
    }

    /// Begins a write of a key: memory drops it, and is closed to copies of it until the answer is dropped.
    pub(crate) fn write<'f>(&'f self, key: &'f str) -> Write<'f> {
        let entered = self.is_guarded();
        if entered {
            let tell = || self.tell(Invalidation::Keys(&[key]));
            self.gate(key).enter(tell);
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
        // Copies that were on their way in are in after this, and others are refused: memory is emptied without the lock.
        Clears::begin(&self.clears);
        let attached = self.attached.load(Ordering::Acquire);
        self.tell(Invalidation::Under(prefix));
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
            self.fence.gate(self.key).leave();
        } else if self.fence.is_guarded() {
            // A memory was put above the store meanwhile and may have copied the old value.
            let tell = || self.fence.tell(Invalidation::Keys(&[self.key]));
            self.fence.gate(self.key).written(tell);
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
            self.fence.tell(Invalidation::Under(self.prefix));
        }
        Clears::end(&self.fence.clears);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coherence::Subscriber;

    #[derive(Default)]
    struct Memory(Mutex<Vec<String>>);

    impl Subscriber for Memory {
        fn hear(&self, what: Invalidation<'_>) {
            let mut heard = self.0.lock().unwrap();
            match what {
                Invalidation::Keys(keys) => heard.extend(keys.iter().map(ToString::to_string)),
                Invalidation::Under(prefix) => heard.push(format!("{prefix}*")),
                Invalidation::All => heard.push("all".to_owned()),
                Invalidation::Gap => heard.push("gap".to_owned()),
            }
        }
    }

    fn guarded() -> (Arc<Fence>, Arc<Memory>, Subscription) {
        let (fence, memory) = (Arc::new(Fence::new()), Arc::new(Memory::default()));
        let subscription = fence.subscribe("", Interest::new(memory.clone()));
        (fence, memory, subscription)
    }

    #[test]
    fn a_copy_older_than_a_write_never_enters() {
        let (fence, memory, _subscription) = guarded();
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
        let (fence, _memory, _subscription) = guarded();
        let a = fence.write("k");
        let stamp_a = fence.stamp("k");
        let b = fence.write("k");
        let stamp_b = fence.stamp("k");
        assert!(!fence.keep("k", stamp_b, || panic!("two writers")));
        drop(b);
        assert!(!fence.keep("k", stamp_a, || panic!("the other wrote meanwhile")));
        // Noted while the other wrote, which may have come later.
        assert!(!fence.keep("k", stamp_b, || panic!("the other was under way")));
        drop(a);
        let c = fence.write("k");
        assert!(fence.keep("k", fence.stamp("k"), || ()));
        drop(c);
    }

    #[test]
    fn a_clear_covers_every_key() {
        let (fence, memory, _subscription) = guarded();
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
        let fence = Arc::new(Fence::new());
        let write = fence.write("k");
        let memory = Arc::new(Memory::default());
        let _subscription = fence.subscribe("", Interest::new(memory.clone()));
        drop(write);
        assert_eq!(*memory.0.lock().unwrap(), ["k"]);
    }

    #[test]
    fn a_write_by_others_closes_the_key_to_copies_from_before() {
        let (fence, memory, _subscription) = guarded();
        let before = fence.stamp("k");
        fence.written(Invalidation::Keys(&["k", "j"]));
        assert!(!fence.fill("k", before, || panic!("the key was written")));
        let before = fence.stamp("k");
        fence.written(Invalidation::Under("k"));
        assert!(!fence.fill("k", before, || panic!("all was cleared")));
        fence.written(Invalidation::All);
        fence.written(Invalidation::Gap);
        assert_eq!(*memory.0.lock().unwrap(), ["k", "j", "k*", "all", "gap"]);
    }

    #[test]
    fn each_hears_what_concerns_it_until_it_leaves() {
        let fence = Arc::new(Fence::new());
        assert!(fence.wanted().is_none());
        let [a, ab, all] = std::array::from_fn(|_| Arc::new(Memory::default()));
        let mut held = Vec::new();
        for (prefix, memory, bound) in [("a:", &a, 3), ("a:b:", &ab, 2), ("", &all, 5)] {
            let interest = Interest::new(memory.clone()).max_staleness(Duration::from_secs(bound));
            held.push(fence.subscribe(prefix, interest));
        }
        fence.written(Invalidation::Keys(&["a:1", "a:b:2", "c:3"]));
        fence.written(Invalidation::Under("a:b:"));
        fence.written(Invalidation::Under("c:"));
        assert_eq!(*a.0.lock().unwrap(), ["a:1", "a:b:2", "a:b:*"]);
        assert_eq!(*ab.0.lock().unwrap(), ["a:b:2", "a:b:*"]);
        assert_eq!(all.0.lock().unwrap().len(), 5);
        let wanted = |prefixes: &[&str], bound| Wanted {
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            max_staleness: Duration::from_secs(bound),
        };
        assert_eq!(fence.wanted(), Some(wanted(&[""], 2)));
        drop(held.pop());
        assert_eq!(fence.wanted(), Some(wanted(&["a:"], 2)));
        drop(held.pop());
        assert_eq!(fence.wanted(), Some(wanted(&["a:"], 3)));
        fence.written(Invalidation::Keys(&["a:b:2"]));
        assert_eq!(ab.0.lock().unwrap().len(), 2);
        drop(held);
        assert!(fence.wanted().is_none());
    }
}
