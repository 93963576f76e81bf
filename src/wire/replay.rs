//! Deletes that a node still owes.
//!
//! A write that failed leaves the older value where it was, and the node may come back with it. So the key is owed a
//! delete, which is made up for before the node counts as up again, or soon if it stayed up. What is owed is bounded: too
//! much of it, and everything under the longest prefix that the keys have in common is removed instead.
//!
//! A later write of an owed key takes the debt over: if it succeeds, nothing is owed any more. It never overlaps with the
//! delete that makes up for the earlier one, which would remove what it has just written. Until then what stands under the
//! key is nothing to its readers: memory would go on to answer it after the delete, of which nobody tells it.

mod tags;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

pub(super) use tags::TagDebt;
use tags::Tags;

type Keys = HashSet<Box<str>, ahash::RandomState>;

#[derive(Debug, Default)]
struct State {
    owed: Keys,
    /// Being deleted right now.
    under_way: Keys,
    tags: Tags,
    /// What all keys to be removed begin with.
    prefix: Option<String>,
    /// How often something came to be owed under a prefix.
    emptyings: u64,
}

impl State {
    fn is_clear(&self) -> bool {
        self.owed.is_empty()
            && self.under_way.is_empty()
            && self.tags.is_empty()
            && self.prefix.is_none()
    }

    fn holds(&self, key: &str) -> bool {
        let prefix = self.prefix.as_ref();
        self.owed.contains(key)
            || self.under_way.contains(key)
            || prefix.is_some_and(|prefix| key.starts_with(prefix.as_str()))
    }

    /// Those of the keys that are owed, which they are no more; nothing while one of them is being deleted.
    fn taken(&mut self, keys: &[&str]) -> Option<Vec<Box<str>>> {
        if keys.iter().any(|key| self.under_way.contains(*key)) {
            return None;
        }
        let owed = keys.iter().filter_map(|key| self.owed.take(*key));
        Some(owed.collect())
    }

    fn owe_all(&mut self, prefix: String) {
        self.emptyings += 1;
        self.prefix = self
            .prefix
            .take()
            .into_iter()
            .chain([prefix])
            .reduce(common);
    }
}

/// The deletes that one connection owes.
#[derive(Debug)]
pub(super) struct Replay {
    state: Mutex<State>,
    /// Whether nothing is owed: all that a write looks at in good times.
    clear: AtomicBool,
    changed: Notify,
    max: usize,
}

impl Replay {
    pub(super) fn new(max: usize) -> Self {
        Self {
            state: Mutex::default(),
            clear: AtomicBool::new(true),
            changed: Notify::new(),
            max,
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let answer = change(&mut state);
        self.clear.store(state.is_clear(), Ordering::Release);
        drop(state);
        self.changed.notify_waiters();
        answer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write of these keys failed.
    pub(super) fn owe<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        self.change(|state| {
            for key in keys {
                state.owed.insert(key.into());
                if state.owed.len() > self.max {
                    let all = state.owed.drain().map(String::from).reduce(common);
                    state.owe_all(all.unwrap_or_default());
                }
            }
        });
    }

    /// The removal of all keys that begin with `prefix` failed.
    pub(super) fn owe_all(&self, prefix: &str) {
        self.change(|state| state.owe_all(prefix.to_owned()));
    }

    /// Whether nothing at all is owed.
    pub(super) fn is_clear(&self) -> bool {
        self.clear.load(Ordering::Acquire)
    }

    /// Whether what stands under a key should be gone.
    pub(super) fn owes(&self, key: &str) -> bool {
        !self.is_clear() && self.lock().holds(key)
    }

    /// How many keys are owed a delete, and whether so many were that everything under a prefix is.
    pub(super) fn debts(&self) -> (usize, bool) {
        if self.clear.load(Ordering::Acquire) {
            return (0, false);
        }
        let state = self.lock();
        (
            state.owed.len() + state.under_way.len() + state.tags.len(),
            state.prefix.is_some(),
        )
    }

    /// Begins a write of keys: it takes their debts over. Waits while one of them is being deleted; none if that takes
    /// past `until`.
    pub(super) async fn enter<'r>(&'r self, keys: &[&str], until: Instant) -> Option<Takeover<'r>> {
        let taken = |keys, waited| Takeover {
            replay: self,
            keys,
            waited,
        };
        if self.is_clear() {
            return Some(taken(Vec::new(), false));
        }
        let owed = self.when_quiet(until, || self.take(keys)).await?;
        Some(taken(owed, true))
    }

    /// Those of the keys that are owed, to be deleted now; they are owed until that is done. Waits as [`enter`](Self::enter) does.
    #[cfg(feature = "ring")]
    pub(super) async fn begin_of(&self, keys: &[&str], until: Instant) -> Option<Round<'_>> {
        // Nobody waits for that, and who waits here must not wake itself.
        let begin = || {
            let mut state = self.lock();
            let owed = state.taken(keys)?;
            state.under_way.extend(owed.iter().cloned());
            Some(owed)
        };
        let keys = self.when_quiet(until, begin).await?;
        Some(Round { replay: self, keys })
    }

    /// What `take` answers, once it does; nothing if that is not before `until`.
    async fn when_quiet<R: Send>(
        &self,
        until: Instant,
        take: impl Fn() -> Option<R> + Send + Sync,
    ) -> Option<R> {
        let quiet = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(taken) = take() {
                    return taken;
                }
                changed.await;
            }
        };
        timeout_at(until, quiet).await.ok()
    }

    /// Those of the keys that are owed; nothing while one of them is being deleted.
    fn take(&self, keys: &[&str]) -> Option<Vec<Box<str>>> {
        let mut state = self.lock();
        let owed = state.taken(keys);
        self.clear.store(state.is_clear(), Ordering::Release);
        owed
    }

    fn is_owing(&self) -> bool {
        let state = self.lock();
        !state.owed.is_empty() || state.prefix.is_some() || state.tags.owed().next().is_some()
    }

    /// Waits until something is owed.
    pub(super) async fn owed(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_owing() {
                return;
            }
            changed.await;
        }
    }

    /// Some owed keys, to be deleted now; none if nothing is owed. What is not settled is owed again.
    pub(super) fn begin(&self, most: usize) -> Option<Round<'_>> {
        let keys: Vec<Box<str>> = self.change(|state| {
            let some: Vec<Box<str>> = state.owed.iter().take(most).cloned().collect();
            for key in &some {
                state.owed.remove(key);
                state.under_way.insert(key.clone());
            }
            some
        });
        (!keys.is_empty()).then_some(Round { replay: self, keys })
    }

    /// Whether everything under a prefix is to be removed.
    pub(super) fn is_to_empty(&self) -> bool {
        self.lock().prefix.is_some()
    }

    /// Begins to remove everything under a prefix, keys that are owed included; those that come to be owed from here on may
    /// have been passed already.
    pub(super) fn empty(&self) -> Option<Emptying> {
        self.change(|state| {
            let prefix = state.prefix.clone()?;
            state.owed.retain(|key| !key.starts_with(&prefix));
            let number = state.emptyings;
            Some(Emptying { prefix, number })
        })
    }

    /// Everything under the prefix has been removed, or never can be.
    pub(super) fn emptied(&self, emptying: &Emptying) {
        self.change(|state| {
            if state.emptyings == emptying.number {
                state.prefix = None;
            }
        });
    }
}

/// The removal of everything under a prefix.
pub(super) struct Emptying {
    pub(super) prefix: String,
    number: u64,
}

/// The longest text that both begin with.
fn common(mut a: String, b: String) -> String {
    let same = a
        .char_indices()
        .zip(b.chars())
        .find(|((_, of_a), of_b)| of_a != of_b)
        .map_or(a.len().min(b.len()), |((at, _), _)| at);
    a.truncate(same);
    a
}

/// Debts that a later write took over. They are owed again unless it succeeds.
#[must_use]
pub(super) struct Takeover<'r> {
    replay: &'r Replay,
    keys: Vec<Box<str>>,
    waited: bool,
}

impl Takeover<'_> {
    /// Whether there was nothing to look at.
    pub(super) fn is_easy(&self) -> bool {
        !self.waited
    }

    /// What was owed.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &**key)
    }

    /// The write succeeded, at least of the keys that `written` answers for.
    pub(super) fn settle(mut self, written: impl Fn(&str) -> bool) {
        self.keys.retain(|key| !written(key));
    }
}

impl Drop for Takeover<'_> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.replay.owe(self.keys.iter().map(|key| &**key));
        }
    }
}

/// Keys that are being written: dropped without an answer, the write has failed as far as anybody knows.
#[must_use]
pub(super) struct Unanswered<'a> {
    replay: &'a Replay,
    keys: &'a [&'a str],
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(replay: &'a Replay, keys: &'a [&'a str]) -> Self {
        Self { replay, keys }
    }

    /// The first so many of them have their answer.
    pub(super) fn answered(&mut self, count: usize) {
        self.keys = self.keys.get(count..).unwrap_or_default();
    }

    /// All of them have.
    pub(super) fn done(mut self) {
        self.keys = &[];
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.replay.owe(self.keys.iter().copied());
        }
    }
}

/// Keys that are being deleted.
#[must_use]
pub(super) struct Round<'r> {
    replay: &'r Replay,
    pub(super) keys: Vec<Box<str>>,
}

impl Round<'_> {
    /// They are deleted, or can never be.
    pub(super) fn settle(mut self) {
        self.end(false);
    }

    fn end(&mut self, owed: bool) {
        let keys = std::mem::take(&mut self.keys);
        if keys.is_empty() {
            return;
        }
        self.replay.change(|state| {
            for key in keys {
                state.under_way.remove(&key);
                if owed {
                    state.owed.insert(key);
                }
            }
        });
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.end(true);
    }
}

#[cfg(test)]
mod tests;
