//! Places that tell of their writes, and what copies remember of them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Moment};

use super::slot::Slot;

/// Sources of a process at once, in blocks that are made as they are needed. One more is as good as one that is not heard.
const BLOCKS: usize = 256;
const BLOCK: usize = 64;

static SLOTS: [OnceLock<Box<[Slot; BLOCK]>>; BLOCKS] = [const { OnceLock::new() }; BLOCKS];

/// Slots that were used and are not any more, and how many were ever used.
static FREE: Mutex<(Vec<u32>, u32)> = Mutex::new((Vec::new(), 0));

static CLOCK: Clock = Clock::REAL;

fn slot(index: u32) -> Option<&'static Slot> {
    let index = index as usize;
    let block = SLOTS.get(index / BLOCK)?.get()?;
    Some(&block[index % BLOCK])
}

fn take_slot() -> Option<u32> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = free.0.pop() {
        return Some(index);
    }
    let index = free.1;
    let block = SLOTS.get(index as usize / BLOCK)?;
    block.get_or_init(|| Box::new(std::array::from_fn(|_| Slot::default())));
    free.1 += 1;
    Some(index)
}

/// Where a copy came from, and how things stood there when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    slot: u32,
    epoch: u32,
    view: u32,
}

const OWN: u32 = u32::MAX;
const UNHEARD: u32 = u32::MAX - 1;

/// Set in the slot of a copy that has a deadline of its own.
const TIMED: u32 = 1 << 31;

impl Default for Origin {
    fn default() -> Self {
        Self::OWN
    }
}

impl Origin {
    /// A store of this process, which tells of every write.
    pub const OWN: Self = Self {
        slot: OWN,
        epoch: 0,
        view: 0,
    };

    /// A store that others write to without anybody being told.
    pub const UNHEARD: Self = Self {
        slot: UNHEARD,
        epoch: 0,
        view: 0,
    };

    /// The number of the map of sources by which it was read.
    #[cfg(feature = "ring")]
    pub(crate) fn view(self) -> u64 {
        self.view.into()
    }

    /// Without the view.
    pub(crate) fn packed(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.epoch)
    }

    pub(crate) fn unpacked(packed: u64) -> Self {
        let part = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(UNHEARD);
        Self {
            slot: part(packed >> 32),
            epoch: part(packed),
            view: 0,
        }
    }

    /// Whether nobody else writes there.
    pub(crate) fn is_own(self) -> bool {
        self.slot == OWN
    }

    /// Of a copy that is not answered for longer than it may be behind anyway: its source need not be heard. It is void
    /// all the same once that source is heard anew.
    pub(crate) fn timed(self) -> Self {
        if self.slot >= UNHEARD {
            return Self::OWN;
        }
        Self {
            slot: self.slot | TIMED,
            ..self
        }
    }

    /// What a copy from here is worth, if it may be behind for no longer than `max_staleness`.
    #[inline]
    pub(crate) fn standing(self, max_staleness: Duration) -> Standing {
        if self.slot == OWN {
            return Standing::Sound;
        }
        let Some(slot) = slot(self.slot & !TIMED) else {
            return Standing::Void;
        };
        let (proven, state) = slot.look();
        let timed = self.slot & TIMED != 0;
        if state >> 32 != u64::from(self.epoch) || !(timed || is_heard(proven, max_staleness)) {
            return Standing::Void;
        }
        if state == self.state() {
            Standing::Sound
        } else {
            Standing::OtherView
        }
    }

    /// Whether others write there and all that they did until `max_staleness` ago was told.
    pub(crate) fn is_told(self, max_staleness: Duration) -> bool {
        !self.is_own() && self.standing(max_staleness) != Standing::Void
    }

    fn state(self) -> u64 {
        u64::from(self.epoch) << 32 | u64::from(self.view)
    }
}

fn is_heard(proven: u64, max_staleness: Duration) -> bool {
    proven != 0 && CLOCK.is_before(Moment::of_nanos(proven).after(max_staleness))
}

/// What a copy is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing has happened to it that memory does not know of.
    Sound,
    /// That, if its key still belongs to the same source: the map of sources has changed since.
    OtherView,
    /// It may be old.
    Void,
}

/// A place that tells of its writes, such as one server. A store makes one for each, and tells it what it hears.
///
/// Clones are the same source. Copies of a source that is dropped are void.
#[derive(Clone)]
pub struct Source(Arc<Inner>);

struct Inner {
    label: String,
    index: Option<u32>,
    connected: AtomicBool,
    deaf: Mutex<Option<String>>,
    keys: AtomicU64,
    gaps: AtomicU64,
}

impl Source {
    /// A source that was not heard yet.
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            label: label.into(),
            index: take_slot(),
            connected: AtomicBool::new(false),
            deaf: Mutex::default(),
            keys: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
        }))
    }

    fn slot(&self) -> Option<&'static Slot> {
        slot(self.0.index?)
    }

    /// What a copy carries that is read from now on, in the view of the source's store.
    #[must_use]
    pub fn origin(&self, view: u32) -> Origin {
        let Some(index) = self.0.index else {
            return Origin::UNHEARD;
        };
        let state = slot(index).map_or(0, |slot| slot.state());
        Origin {
            slot: index,
            epoch: u32::try_from(state >> 32).unwrap_or(0),
            view,
        }
    }

    /// It tells of every write from now on. What happened before is unknown, so copies from before are void.
    pub fn began(&self) {
        self.0.connected.store(true, Ordering::Release);
        *self.deaf() = None;
        self.void();
    }

    /// It was asked at `asked` for a sign of life and gave one: every write before that was told.
    pub fn proven(&self, asked: Instant) {
        if let Some(slot) = self
            .slot()
            .filter(|_| self.0.connected.load(Ordering::Acquire))
        {
            let asked = CLOCK.at(asked).as_nanos();
            slot.prove(asked);
        }
    }

    /// Writes may have gone unheard: all copies are void, and so are those read until [`began`](Self::began).
    pub fn ended(&self) {
        self.0.connected.store(false, Ordering::Release);
        self.0.gaps.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.slot() {
            slot.end();
        }
    }

    /// It never will tell, and this is why.
    pub fn refused(&self, why: impl Into<String>) {
        let why = why.into();
        let said = self.deaf().replace(why.clone());
        if said.as_ref() != Some(&why) {
            tracing::warn!(target: "larder", event = "writes_unheard", source = %self.0.label, why,
                "this store does not tell of writes: memory keeps copies of it for no longer than they may be behind");
        }
    }

    /// All copies of it are void, and what is read from now on is not.
    pub fn void(&self) {
        if let Some(slot) = self.slot() {
            slot.void();
        }
    }

    /// The map of sources has this number now, if it had a smaller one.
    pub fn set_view(&self, view: u32) {
        if let Some(slot) = self.slot() {
            slot.set_view(view);
        }
    }

    pub(crate) fn downgrade(&self) -> WeakSource {
        WeakSource(Arc::downgrade(&self.0))
    }

    /// Counts keys that it told of.
    pub fn told(&self, keys: usize) {
        self.0.keys.fetch_add(keys as u64, Ordering::Relaxed);
    }

    fn deaf(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.deaf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How things stand with it.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        let proven = self.slot().map_or(0, |slot| slot.proven());
        let hearing = match (&*self.deaf(), proven) {
            (Some(why), _) => Hearing::Deaf { why: why.clone() },
            (None, 0) => Hearing::NotYet,
            (None, proven) => Hearing::Heard {
                age: CLOCK.now().since(Moment::of_nanos(proven)),
            },
        };
        SourceStatus {
            label: self.0.label.clone(),
            hearing,
            invalidations: self.0.keys.load(Ordering::Relaxed),
            gaps: self.0.gaps.load(Ordering::Relaxed),
        }
    }
}

/// A source that may be gone.
pub(crate) struct WeakSource(Weak<Inner>);

impl WeakSource {
    pub(crate) fn status(&self) -> Option<SourceStatus> {
        Some(Source(self.0.upgrade()?).status())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        if let Some(slot) = slot(index) {
            slot.leave();
        }
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.0.push(index);
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.0.label).finish()
    }
}

/// How things stand with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// The source: for a server `host:port/db`.
    pub label: String,
    /// Whether its writes are heard.
    pub hearing: Hearing,
    /// Keys that it told of.
    pub invalidations: u64,
    /// How often writes may have gone unheard, so that all copies of it became void.
    pub gaps: u64,
}

/// Whether the writes of a source are heard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hearing {
    /// They are not, at the moment or yet: copies live for no longer than they may be behind.
    NotYet,
    /// Every write before this time ago is known. Copies are answered while that is less than they may be behind.
    Heard {
        /// How long ago the source was asked for the latest sign of life that it gave.
        age: Duration,
    },
    /// They never are: copies live for no longer than they may be behind.
    Deaf {
        /// The server's own words.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);

    #[test]
    fn copies_are_sound_while_their_source_is_heard() {
        let source = Source::new("a");
        source.began();
        let origin = source.origin(0);
        assert_eq!(origin.standing(BOUND), Standing::Void, "no sign of life");
        source.proven(Instant::now());
        assert_eq!(origin.standing(BOUND), Standing::Sound);
        source.set_view(1);
        assert_eq!(origin.standing(BOUND), Standing::OtherView);
        source.void();
        assert_eq!(origin.standing(BOUND), Standing::Void);
    }

    #[test]
    fn copies_with_a_deadline_need_no_sign_of_life_but_outlive_no_gap() {
        let source = Source::new("a");
        let gap = source.origin(0).timed();
        assert_eq!(gap.standing(BOUND), Standing::Sound);
        source.began();
        assert_eq!(gap.standing(BOUND), Standing::Void, "heard anew");
        let unproven = source.origin(0).timed();
        assert_eq!(unproven.standing(BOUND), Standing::Sound);
        source.ended();
        assert_eq!(unproven.standing(BOUND), Standing::Void);
        let dropped = source.origin(0).timed();
        drop(source);
        assert_eq!(dropped.standing(BOUND), Standing::Void);
    }

    #[test]
    fn where_there_is_no_source_the_deadline_alone_counts() {
        for origin in [Origin::OWN, Origin::UNHEARD] {
            assert_eq!(origin.timed().standing(BOUND), Standing::Sound);
        }
        assert_eq!(Origin::UNHEARD.standing(BOUND), Standing::Void);
    }

    #[test]
    fn a_slot_that_is_used_again_is_of_no_view() {
        let sources: Vec<Source> = (0..100).map(|_| Source::new("a")).collect();
        sources.iter().for_each(|source| source.set_view(9));
        drop(sources);
        let sources: Vec<Source> = (0..100).map(|_| Source::new("b")).collect();
        for source in &sources {
            source.began();
            source.proven(Instant::now());
            assert_eq!(source.origin(0).standing(BOUND), Standing::Sound);
        }
    }
}
