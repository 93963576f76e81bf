//! Copies of `l2` in `l1`: when one gets in, and when one is answered.

use std::time::Duration;

use crate::backend::{Backend, Memory, Peek};
use crate::clock::Moment;
use crate::coherence::{Before, Origin, Standing};
use crate::entry::{Answer, Draft, Entry, Stored, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Stamp;
use crate::flight::unless_overtaken;
use crate::stats::count;

use super::Inner;

/// How things stood with a key before `l2` was asked or told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    stamp: Stamp,
    keeping: Keeping,
}

/// On what terms a copy is kept.
#[derive(Clone, Copy, Debug)]
enum Keeping {
    /// As long as the value lives: nobody writes to `l2` unheard.
    Freely,
    /// While its source is heard.
    From(Origin),
    /// Until then at most, and while its source is heard, or unless it is heard anew before if the origin is a timed one: others
    /// may have written in between.
    Until(Moment, Origin),
    Never,
}

impl Keeping {
    /// The same, and not for longer than until then.
    fn until(self, latest: Moment) -> Self {
        match self {
            Self::From(origin) => Self::Until(latest, origin),
            Self::Until(until, origin) => Self::Until(until.min(latest), origin),
            Self::Freely | Self::Never => self,
        }
    }
}

impl<L1: Backend, L2: Backend> Inner<L1, L2> {
    pub(super) fn note(&self, key: &str) -> Noted {
        Noted {
            stamp: self.core.fence().stamp(&self.l2.stored_key(key)),
            keeping: self.keeping(key),
        }
    }

    fn keeping(&self, key: &str) -> Keeping {
        if !self.holds_copies {
            return Keeping::Never;
        }
        let origin = self.l2.origin(key);
        if origin.is_own() {
            Keeping::Freely
        } else if self.max_staleness.is_zero() {
            Keeping::Never
        } else if self.l1.memory().is_some()
            && origin.standing(self.max_staleness) != Standing::Void
        {
            Keeping::From(origin)
        } else {
            let until = self.core.now().after(self.max_staleness);
            Keeping::Until(until, origin.timed())
        }
    }

    /// What `l2` is asked for.
    pub(super) fn wanted(&self, want: Want) -> Want {
        want.with_deadline().fresher_than(self.max_staleness)
    }

    /// Whether a copy found in `l1` may be answered.
    #[inline]
    pub(super) fn trusts(&self, key: &str, entry: &Entry) -> bool {
        let sound = match entry.origin().standing(self.max_staleness) {
            Standing::Sound => true,
            Standing::OtherView => self.l2.vouches(key, entry.origin()),
            Standing::Void => false,
        };
        if !sound {
            count(&self.core.counters().distrusted);
        }
        sound
    }

    /// What `l1` holds under a key, if it may be answered.
    pub(super) async fn in_l1(&self, key: &str, want: Want) -> Option<Entry> {
        if !self.holds_copies {
            return None;
        }
        let entry = match self.l1.peek(key) {
            Peek::Hit(entry) if entry.is_rearmed() && !want.stale => return None,
            Peek::Hit(entry) => entry,
            Peek::Miss => return None,
            Peek::Ask => self.l1.fetch(key, want).await.ok()?.entry?,
        };
        // What is past its life here may stand anew below.
        let passed = entry.is_stale(self.core.now());
        (!passed && self.trusts(key, &entry)).then_some(entry)
    }

    /// What `l1` holds past its life, if that is wanted and may be answered still: `l2` cannot be asked for a better one.
    pub(super) async fn stale_in_l1(&self, key: &str, want: Want) -> Option<Answer> {
        if !want.stale || !self.holds_copies {
            return None;
        }
        let answer = self.l1.fetch(key, want).await.ok()?;
        let trusted = |entry: &Entry| self.trusts(key, entry);
        answer.entry.as_ref().is_some_and(trusted).then_some(answer)
    }

    /// The draft of the copy of an entry that `l1` keeps; none where it keeps none.
    pub(super) fn copy(&self, key: &str, entry: &Entry, noted: Noted) -> Option<Draft> {
        // Bytes are bound to the key that they were stored under, and tags to memory.
        let remote = self.l1.memory().is_none();
        if entry.value().as_encoded().is_some() || remote && entry.tags().next().is_some() {
            return None;
        }
        let mut copy = match noted.keeping {
            Keeping::Freely => entry.clone(),
            Keeping::From(origin) => entry.clone().copied_from(origin),
            Keeping::Until(until, origin) => {
                until_at_most(entry.clone().copied_from(origin), until)
            }
            Keeping::Never => return None,
        };
        if let Some(max) = self.max_l1_ttl {
            copy = until_at_most(copy, self.core.now().after(max));
        }
        // Weighed and checked before any lock is taken: that may run the value's own code.
        let mut draft = Draft::from(copy);
        self.l1.prepare(key, &mut draft).ok()?;
        Some(draft)
    }

    /// The copy of what is to be stored; none of what `l2` gives its tags.
    pub(super) fn copy_of(&self, key: &str, draft: &Draft, noted: Noted) -> Option<Draft> {
        let tagged = !draft.tags.is_empty();
        (!tagged).then(|| self.copy(key, &draft.entry, noted))?
    }

    /// Puts a copy read after it was `noted` into `l1`, unless the key was written since.
    pub(super) async fn fill(&self, key: &str, mut noted: Noted, answer: &Answer) {
        let Some(entry) = &answer.entry else {
            return;
        };
        if let Some(as_of) = answer.as_of {
            noted.keeping = noted.keeping.until(as_of.after(self.max_staleness));
        }
        let Some(draft) = self.copy(key, entry, noted) else {
            return;
        };
        let stored = self.l2.stored_key(key);
        let filled = match self.l1.memory() {
            Some(memory) => {
                let fill = || memory.insert(key, draft.entry);
                self.core.fence().fill(&stored, noted.stamp, fill)
            }
            None => self.fill_remote(key, &stored, noted.stamp, draft).await,
        };
        if !filled {
            count(&self.core.counters().fills_refused);
        }
    }

    /// A remote `l1` cannot be filled under a lock. So the fill counts as a store under way, which writes wait for.
    async fn fill_remote(&self, key: &str, stored: &str, stamp: Stamp, draft: Draft) -> bool {
        let Some(storing) = self.core.flights().store(stored) else {
            return false;
        };
        if !self.core.fence().fill(stored, stamp, || ()) {
            return false;
        }
        let store = self.write_l1(key, self.l1.store(key, draft));
        let _ = unless_overtaken([&storing], store).await;
        if storing.overtaken() {
            self.write_l1(key, self.l1.remove(key)).await;
        }
        true
    }

    /// A write of an `l1` that is not memory, fenced for what lies above it if it is a tier itself.
    async fn write_l1<R>(&self, key: &str, write: impl Future<Output = Result<R>> + Send) {
        let stored = self.l1.stored_key(key);
        let _write = self.l1.core().fence().write(&stored);
        if let Err(error) = write.await {
            tracing::debug!(target: "larder", event = "l1_failed", error = %error);
        }
    }

    /// Keeps in memory what `l2` has just stored, unless another write of the key came between, or a computed value that it
    /// could not store, for a short while.
    ///
    /// Not where the source tells of this very write too: others may have written since, which it tells of at the same time. A
    /// remote `l1` is filled by reads alone: the writes of two callers could reach it in another order than `l2`.
    pub(super) fn settle(
        &self,
        key: &str,
        noted: Noted,
        copy: Option<Draft>,
        stands_in: bool,
        stored: &Result<Stored>,
    ) {
        let copy = match (stored, noted.keeping) {
            (Ok(Stored::Done), Keeping::Freely | Keeping::Until(..)) => copy,
            (Err(error), _) if stands_in && is_outage(error) => {
                copy.and_then(|copy| self.meanwhile(copy, noted))
            }
            _ => None,
        };
        let Some(memory) = self.l1.memory().filter(|_| self.holds_copies) else {
            return;
        };
        match copy {
            Some(draft) => {
                let stored = self.l2.stored_key(key);
                let keep = || memory.insert(key, draft.entry);
                self.core.fence().keep(&stored, noted.stamp, keep);
            }
            None => memory.evict(key),
        }
    }

    /// Whether a draft may stand in for what `l2` holds, should that fail to store it: it was computed, and nobody was heard
    /// to write the key since its compute began, nor was the source heard anew.
    pub(super) fn stands_in(&self, draft: &Draft, noted: Noted) -> bool {
        let undisturbed = |before: &Before| {
            let same_origin = match noted.keeping {
                Keeping::Freely => return true,
                Keeping::From(origin) => origin == before.origin,
                Keeping::Until(_, origin) => origin == before.origin.timed(),
                Keeping::Never => false,
            };
            same_origin && noted.stamp.follows(before)
        };
        draft.computed && draft.ticket.before.as_ref().is_none_or(undisturbed)
    }

    /// The copy of a computed value that `l2` could not store: short-lived, since `l2` may get another one from elsewhere. It
    /// is void once its source is heard anew: others may have written meanwhile, and from then on memory is to equal `l2`.
    fn meanwhile(&self, mut copy: Draft, noted: Noted) -> Option<Draft> {
        // A strict cache shows its callers what is wrong below.
        if self.outage_ttl.is_zero() || self.core.settings().strict {
            return None;
        }
        let bounded = self.outage_ttl.min(self.max_staleness);
        let (ttl, origin) = match noted.keeping {
            Keeping::Freely => (self.outage_ttl, Origin::OWN),
            Keeping::From(origin) => (bounded, origin.timed()),
            Keeping::Until(_, origin) => (bounded, origin),
            Keeping::Never => return None,
        };
        let entry = copy.entry.copied_from(origin);
        let until = match noted.keeping {
            Keeping::Freely => self.core.now().after(ttl),
            // It is as old as its compute's beginning.
            _ => {
                let took = Duration::from_micros(entry.compute_us().into());
                entry.born().after(ttl.saturating_sub(took))
            }
        };
        copy.entry = until_at_most(entry, until);
        Some(copy)
    }

    /// Drops a key from memory after a write. It has heard of a fenced one already, but a write may come without a fence.
    pub(super) fn drop_copy(&self, key: &str) {
        if let Some(memory) = self.l1.memory().filter(|_| self.holds_copies) {
            memory.evict(key);
        }
    }

    pub(super) fn memories(&self) -> impl Iterator<Item = &dyn Memory> {
        let first = self.l1.memory().filter(|_| self.holds_copies);
        [first, self.l2.memory()].into_iter().flatten()
    }

    /// Drops a key from an `l1` that is not memory, before `l2` is written: a reader who saw the new value there must not
    /// meet the old one here. No copy gets in until the write is over.
    pub(super) async fn make_way(&self, keys: &[&str]) {
        if !self.holds_copies || self.l1.memory().is_some() {
            return;
        }
        let stored: Vec<_> = keys.iter().map(|key| self.l1.stored_key(key)).collect();
        let fence = self.l1.core().fence();
        let _writes: Vec<_> = stored.iter().map(|key| fence.write(key)).collect();
        let removed = async {
            match keys {
                [key] => self.l1.remove(key).await.map(|_| ()),
                _ => {
                    let removed = self.l1.remove_many(keys).await;
                    removed
                        .into_iter()
                        .try_for_each(|removed| removed.map(|_| ()))
                }
            }
        };
        // An l1 that hangs must leave l2 its time.
        let bound = self.core.settings().store_timeout / 4;
        let removed = match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::time::timeout(bound, removed).await,
            Err(_) => Ok(removed.await),
        };
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(target: "larder", event = "l1_failed", "an l1 could not be told of a write: it may hold older values");
        }
    }
}

fn until_at_most(entry: Entry, latest: Moment) -> Entry {
    let expires = entry.expires().min(latest);
    entry.with_deadline(expires)
}

/// Whether a store failed for reasons that have nothing to do with the value.
fn is_outage(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Busy | ErrorKind::Rejected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_copy_is_kept_for_longer_than_what_judged_it() {
        let (early, late) = (Moment::of_nanos(5), Moment::of_nanos(9));
        let until = |keeping: Keeping, latest| match keeping.until(latest) {
            Keeping::Until(until, origin) => Some((until, origin)),
            _ => None,
        };
        let origin = Origin::UNHEARD;
        assert_eq!(until(Keeping::From(origin), late), Some((late, origin)));
        for (before, latest) in [(early, late), (late, early), (early, early)] {
            let kept = until(Keeping::Until(before, origin), latest);
            assert_eq!(kept, Some((early, origin)));
        }
        assert_eq!(until(Keeping::Freely, early), None, "nothing judges it");
        assert_eq!(until(Keeping::Never, early), None);
    }
}
