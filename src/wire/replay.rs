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
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(5);

    #[cfg(feature = "ring")]
    #[tokio::test]
    async fn what_is_made_up_for_is_owed_until_it_is() {
        let replay = Replay::new(10);
        replay.owe(["a", "b"]);
        let round = replay.begin_of(&["a", "c"], after(LONG)).await.unwrap();
        assert_eq!(round.keys, [Box::<str>::from("a")]);
        assert!(replay.owes("a") && replay.owes("b") && !replay.owes("c"));
        // Others wait meanwhile, and the supervisor takes the rest alone.
        assert!(replay.begin_of(&["a"], after(SHORT)).await.is_none());
        assert!(replay.enter(&["a"], after(SHORT)).await.is_none());
        drop(round);
        assert!(replay.owes("a"));
        let waits = replay.begin_of(&["a", "b"], after(LONG)).await.unwrap();
        let (second, ()) = tokio::join!(replay.enter(&["b"], after(LONG)), async {
            tokio::task::yield_now().await;
            waits.settle();
        });
        assert_eq!(second.unwrap().keys().count(), 0);
        assert!(replay.is_clear());
    }

    fn after(bound: Duration) -> Instant {
        Instant::now() + bound
    }

    fn owing(keys: &[&str]) -> Replay {
        let replay = Replay::new(3);
        replay.owe(keys.iter().copied());
        replay
    }

    #[test]
    fn what_is_owed_is_handed_out_once_and_owed_again_if_it_fails() {
        let replay = owing(&["a", "b", "a"]);
        assert_eq!(replay.debts(), (2, false));
        let round = replay.begin(1).unwrap();
        let rest = replay.begin(9).unwrap();
        assert!(replay.begin(9).is_none());
        assert_eq!((round.keys.len(), rest.keys.len()), (1, 1));
        assert_eq!(replay.debts(), (2, false));
        round.settle();
        assert_eq!(replay.debts(), (1, false));
        drop(rest);
        replay.begin(9).unwrap().settle();
        assert_eq!(replay.debts(), (0, false));
    }

    #[test]
    fn too_many_keys_become_what_they_have_in_common() {
        let replay = owing(&["app:user:1", "app:user:2", "app:users", "app:ü"]);
        assert_eq!(replay.empty().unwrap().prefix, "app:");
        assert_eq!(replay.debts(), (0, true));
        replay.owe(["other"]);
        let before = replay.empty().unwrap();
        assert_eq!(before.prefix, "app:");
        replay.owe_all("ap:");
        replay.owe(["apple"]);
        replay.emptied(&before);
        assert_eq!(replay.debts(), (2, true), "more is to be emptied by now");
        let now = replay.empty().unwrap();
        assert_eq!(now.prefix, "ap");
        replay.emptied(&now);
        assert_eq!(replay.debts(), (1, false), "other is owed still");
    }

    #[test]
    fn what_comes_to_be_owed_during_an_emptying_outlives_it() {
        let replay = Replay::new(3);
        replay.owe_all("app:");
        let emptying = replay.empty().unwrap();
        // The emptying may have passed them already.
        replay.owe(["app:1"]);
        replay.emptied(&emptying);
        assert_eq!(replay.debts(), (1, false));
        replay.owe_all("app:");
        let emptying = replay.empty().unwrap();
        replay.owe_all("app:");
        replay.emptied(&emptying);
        assert_eq!(replay.debts(), (0, true), "once more from the start");
    }

    #[test]
    fn what_is_owed_is_nothing_to_readers() {
        let replay = owing(&["a", "b"]);
        let round = replay.begin(1).unwrap();
        assert!(replay.owes("a") && replay.owes("b") && !replay.owes("c"));
        round.settle();
        replay.begin(1).unwrap().settle();
        assert!(replay.is_clear() && !replay.owes("a"));
        replay.owe_all("c");
        assert!(replay.owes("cd") && !replay.owes("d"));
    }

    #[test]
    fn prefixes_end_between_characters() {
        let common = |a: &str, b: &str| super::common(a.into(), b.into());
        assert_eq!(common("aü", "aö"), "a");
        assert_eq!(common("a", "ab"), "a");
        assert_eq!(common("ab", "a"), "a");
        assert_eq!(common("", "a"), "");
        assert_eq!(common("é", "é"), "é");
    }

    #[tokio::test]
    async fn a_write_that_succeeds_takes_the_debt_with_it() {
        let replay = owing(&["a", "b"]);
        replay
            .enter(&["a", "c"], after(LONG))
            .await
            .unwrap()
            .settle(|_| true);
        assert_eq!(replay.debts(), (1, false));
        drop(replay.enter(&["b"], after(LONG)).await);
        assert_eq!(replay.debts(), (1, false), "it failed, or was dropped");
        replay
            .enter(&["a", "b"], after(LONG))
            .await
            .unwrap()
            .settle(|key| key == "a");
        assert_eq!(replay.debts(), (1, false));
    }

    #[tokio::test]
    async fn a_write_waits_for_the_delete_of_its_key() {
        let replay = owing(&["a"]);
        let round = replay.begin(9).unwrap();
        let write = replay.enter(&["a"], after(LONG));
        tokio::pin!(write);
        assert!(timeout(SHORT, &mut write).await.is_err());
        assert!(replay.enter(&["a"], after(SHORT)).await.is_none());
        replay
            .enter(&["b"], after(LONG))
            .await
            .unwrap()
            .settle(|_| true);
        round.settle();
        timeout(LONG, write)
            .await
            .unwrap()
            .unwrap()
            .settle(|_| true);
        assert_eq!(replay.debts(), (0, false));
    }

    #[tokio::test]
    async fn debts_wake_whoever_makes_up_for_them() {
        let replay = Replay::new(3);
        assert!(timeout(SHORT, replay.owed()).await.is_err());
        let owed = replay.owed();
        tokio::pin!(owed);
        assert!(timeout(SHORT, &mut owed).await.is_err());
        replay.owe(["a"]);
        timeout(LONG, owed).await.unwrap();
    }
}
