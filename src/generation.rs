//! Generations: numbers that change when something is invalidated. What carries another one than is now is dead, however
//! much of it there is, and nobody has to look for it.

mod register;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::coherence::{Origin, Standing};

use register::UNKNOWN;
use register::{Known, Register};

/// Names remembered, at most. Past that all are forgotten, and what carries them in memory is dead.
const MAX_NAMES: usize = 1 << 16;

/// Tags of one value, at most.
pub(crate) const MAX_TAGS: usize = 32;

/// The length of a tag, in bytes, at most.
pub(crate) const MAX_TAG_BYTES: usize = 255;

/// A number that was not drawn before and is not guessed. Never [`UNKNOWN`].
pub(crate) fn random() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    RandomState::new()
        .hash_one(DRAWN.fetch_add(1, Ordering::Relaxed))
        .max(1)
}

/// A number above 0 and at most 1.
#[allow(
    clippy::cast_precision_loss,
    reason = "53 bits are what it has room for"
)]
pub(crate) fn chance() -> f64 {
    ((random() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// The generation of one name, as far as this process knows. Read without a lock.
#[derive(Debug, Default)]
pub(crate) struct Cell(Register);

/// How things stood before a generation was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    changes: u64,
    asked: Moment,
    origin: Origin,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Nothing where there is none: whatever carries one is dead.
    pub(crate) generation: Option<u64>,
    pub(crate) plain: bool,
    /// When it was asked for; nothing while whatever happens to it is told.
    pub(crate) as_of: Option<Moment>,
}

impl Cell {
    /// Notes how things stand, before the generation is asked for at `origin`.
    pub(crate) fn asking(&self, origin: Origin) -> Asking {
        Asking {
            changes: self.0.changes(),
            asked: Clock::REAL.now(),
            origin,
        }
    }

    /// Learns what was asked for, unless it was invalidated meanwhile.
    pub(crate) fn learn(&self, asking: Asking, record: Record) {
        let known = Known {
            // What has no generation has one that nothing carries.
            now: record.generation.unwrap_or(u64::MAX),
            plain: record.plain,
            asked: asking.asked.as_nanos(),
            origin: asking.origin.packed(),
        };
        self.0.learn(asking.changes, known);
    }

    /// It was invalidated, or may have been: whatever carries it is dead until it is asked for again.
    pub(crate) fn invalidate(&self) {
        self.0.invalidate();
    }

    fn forget(&self) {
        self.0.forget();
    }

    /// Whether anything is known of it.
    pub(crate) fn is_known(&self) -> bool {
        self.0.now() != UNKNOWN
    }

    /// What it is, if that was asked for less than `bound` ago, or nothing has happened since that would not have been told.
    #[inline]
    pub(crate) fn fresh(&self, bound: Duration) -> Option<Record> {
        let known = self.0.known()?;
        let asked = Moment::of_nanos(known.asked);
        let origin = Origin::unpacked(known.origin);
        // What was known before a gap is not known after it: nobody told what happened meanwhile.
        if origin.timed().standing(bound) == Standing::Void {
            return None;
        }
        let told = origin.is_told(bound);
        (told || Clock::REAL.is_before(asked.after(bound))).then_some(Record {
            generation: Some(known.now),
            plain: known.plain,
            as_of: (!told).then_some(asked),
        })
    }

    fn is(&self, generation: u64) -> bool {
        self.0.now() == generation
    }
}

type Named = HashMap<Box<str>, Arc<Cell>, ahash::RandomState>;

/// The cells of a place, by name.
#[derive(Debug, Default)]
pub(crate) struct Cells(Mutex<Named>);

impl Cells {
    fn lock(&self) -> MutexGuard<'_, Named> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of a name.
    pub(crate) fn of(&self, name: &str) -> Arc<Cell> {
        let mut cells = self.lock();
        if let Some(cell) = cells.get(name) {
            return Arc::clone(cell);
        }
        if cells.len() >= MAX_NAMES {
            cells.drain().for_each(|(_, cell)| cell.forget());
        }
        Arc::clone(cells.entry(name.into()).or_default())
    }

    /// A name was invalidated.
    pub(crate) fn invalidate(&self, name: &str) {
        let cell = self.lock().get(name).cloned();
        if let Some(cell) = cell {
            cell.invalidate();
        }
    }

    /// Names that fit were invalidated.
    pub(crate) fn invalidate_where(&self, fits: impl Fn(&str) -> bool) {
        let cells = self.lock();
        let some = cells.iter().filter(|(name, _)| fits(name));
        some.for_each(|(_, cell)| cell.invalidate());
    }
}

/// A tag and the generation of it that a value carries.
type Carried = (Box<str>, Arc<Cell>, u64);

/// The tags of a value in memory, each with the generation that it carries.
#[derive(Debug)]
pub(crate) struct Tags(Box<[Carried]>);

impl Tags {
    pub(crate) fn new(tags: impl IntoIterator<Item = Carried>) -> Option<Arc<Self>> {
        let tags: Box<[_]> = tags.into_iter().collect();
        (!tags.is_empty()).then(|| Arc::new(Self(tags)))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, ..)| &**name)
    }

    /// Whether none of them was invalidated.
    pub(crate) fn are_current(&self) -> bool {
        self.0
            .iter()
            .all(|(_, cell, generation)| cell.is(*generation))
    }
}

/// The tags of a store of this process alone.
#[derive(Debug, Default)]
pub(crate) struct OwnTags(Mutex<Own>);

#[derive(Debug, Default)]
struct Own {
    tags: HashMap<Box<str>, OwnTag, ahash::RandomState>,
    /// How many invalidations there were.
    count: u64,
    /// After how many some were forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct OwnTag {
    cell: Arc<Cell>,
    since: u64,
}

impl OwnTags {
    fn lock(&self) -> MutexGuard<'_, Own> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many invalidations there were.
    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }

    /// Every value with this tag is dead.
    pub(crate) fn invalidate(&self, namespace: &str, tag: &str) {
        let mut own = self.lock();
        own.count += 1;
        let since = own.count;
        let tag = own.tag(namespace, tag);
        tag.since = since;
        tag.cell.invalidate();
        tag.cell.0.set(random());
    }

    /// What a value with these tags carries; nothing if one of them was invalidated after so many invalidations.
    pub(crate) fn attach(
        &self,
        namespace: &str,
        tags: &[Box<str>],
        count: Option<u64>,
    ) -> Option<Option<Arc<Tags>>> {
        let mut own = self.lock();
        let mut attached = Vec::with_capacity(tags.len());
        for name in tags {
            let tag = own.tag(namespace, name);
            if count.is_some_and(|count| tag.since > count) {
                return None;
            }
            let now = tag.cell.0.now();
            attached.push((name.clone(), Arc::clone(&tag.cell), now));
        }
        Some(Tags::new(attached))
    }
}

impl Own {
    fn tag(&mut self, namespace: &str, tag: &str) -> &mut OwnTag {
        if self.tags.len() >= MAX_NAMES {
            // Those that nothing carries; if that is none, all values with tags are dead.
            self.tags.retain(|_, tag| Arc::strong_count(&tag.cell) > 1);
            if self.tags.len() >= MAX_NAMES {
                self.tags.drain().for_each(|(_, tag)| tag.cell.forget());
            }
            self.forgotten = self.count;
        }
        let since = self.forgotten;
        let name = format!("{}:{namespace}{tag}", namespace.len()).into();
        self.tags.entry(name).or_insert_with(|| {
            let cell = Arc::<Cell>::default();
            cell.0.set(random());
            OwnTag { cell, since }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn record(generation: u64) -> Record {
        Record {
            generation: Some(generation),
            ..Record::default()
        }
    }

    #[test]
    fn an_answer_from_before_an_invalidation_is_not_believed() {
        let cell = Cell::default();
        assert_eq!(cell.fresh(MINUTE), None);
        let asking = cell.asking(Origin::UNHEARD);
        cell.learn(asking, record(7));
        let fresh = cell.fresh(MINUTE).expect("it was asked for just now");
        assert_eq!(fresh.generation, Some(7));
        assert!(fresh.as_of.is_some(), "nobody tells");
        assert_eq!(cell.fresh(Duration::ZERO), None, "asked for each time");
        let before = cell.asking(Origin::UNHEARD);
        cell.invalidate();
        cell.learn(before, record(7));
        assert_eq!(cell.fresh(MINUTE), None);
    }

    #[test]
    fn what_carries_a_tag_dies_with_it() {
        let own = OwnTags::default();
        let tags: [Box<str>; 2] = ["a".into(), "b".into()];
        let begun = own.count();
        let both = own.attach("n:", &tags, Some(begun)).unwrap().unwrap();
        let one = own.attach("n:", &tags[..1], Some(begun)).unwrap().unwrap();
        let other = own.attach("o:", &tags, Some(begun)).unwrap().unwrap();
        own.invalidate("n:", "b");
        assert!(!both.are_current() && one.are_current() && other.are_current());
        assert!(
            own.attach("n:", &tags, Some(begun)).is_none(),
            "began before"
        );
        assert!(own.attach("n:", &tags[..1], Some(begun)).is_some());
        let later = own.attach("n:", &tags, Some(own.count())).unwrap().unwrap();
        assert!(later.are_current());
        assert!(own.attach("n:", &[], None).unwrap().is_none());
    }

    #[test]
    fn too_many_names_are_forgotten_and_revive_nothing() {
        let own = OwnTags::default();
        let begun = own.count();
        let tags: [Box<str>; 1] = ["kept".into()];
        let kept = own.attach("", &tags, None).unwrap().unwrap();
        own.invalidate("", "lost");
        for i in 0..MAX_NAMES + 1 {
            own.invalidate("", &format!("t{i}"));
        }
        assert!(kept.are_current());
        assert!(own.lock().tags.len() <= MAX_NAMES);
        let lost: [Box<str>; 1] = ["lost".into()];
        assert!(own.attach("", &lost, Some(begun)).is_none());
    }
}
