//! What this process wrote lately. The map may have changed before, and the key's new node, of which this process has
//! not heard yet, may hold what the write was to replace: it is told with the map.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::snapshot::Snapshot;

/// Keys remembered, at most. Of more writes in one window the oldest are forgotten.
const MAX_KEYS: usize = 16_384;

/// Prefixes remembered, at most, and tags.
const MAX_PREFIXES: usize = 64;
const MAX_TAGS: usize = 1024;

/// The keys and prefixes that were set, deleted or cleared lately.
#[derive(Debug)]
pub(super) struct Recent {
    /// How long a write is remembered, at least.
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// When each was written last, and a number that tells which was later.
    keys: HashMap<Box<str>, (Instant, u64), ahash::RandomState>,
    prefixes: Vec<(Box<str>, Instant)>,
    /// Namespaces and tags in them that were invalidated.
    tags: VecDeque<(Box<str>, Box<str>, Instant)>,
    count: u64,
    /// When the manager last said that the map is still this one.
    confirmed: Option<Instant>,
}

impl Recent {
    pub(super) fn new(window: Duration) -> Self {
        let state = State {
            keys: HashMap::default(),
            prefixes: Vec::new(),
            tags: VecDeque::new(),
            count: 0,
            confirmed: None,
        };
        Self {
            window,
            state: Mutex::new(state),
        }
    }

    /// These keys are about to be written. Told before the map is looked at by which they are.
    pub(super) fn note<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        let now = Instant::now();
        let mut state = self.lock();
        for key in keys {
            state.count += 1;
            let times = (now, state.count);
            if let Some(known) = state.keys.get_mut(key) {
                *known = times;
                continue;
            }
            if state.keys.len() >= MAX_KEYS {
                let oldest = state.oldest(now, self.window);
                state.make_room(oldest);
            }
            state.keys.insert(key.into(), times);
        }
    }

    /// Everything under this prefix is about to be removed.
    pub(super) fn note_wipe(&self, prefix: &str) {
        let now = Instant::now();
        let mut state = self.lock();
        state.prefixes.retain(|(known, _)| **known != *prefix);
        if state.prefixes.len() >= MAX_PREFIXES {
            state.prefixes.remove(0);
        }
        state.prefixes.push((prefix.into(), now));
    }

    /// A tag of a namespace is about to be invalidated.
    pub(super) fn note_tag(&self, namespace: &str, tag: &str) {
        let mut state = self.lock();
        let same = |(space, known, _): &(Box<str>, Box<str>, Instant)| {
            **space == *namespace && **known == *tag
        };
        state.tags.retain(|known| !same(known));
        let now = Instant::now();
        state.tags.push_back((namespace.into(), tag.into(), now));
        if state.tags.len() <= MAX_TAGS {
            return;
        }
        // The oldest as if all of its namespace had been cleared.
        if let Some((namespace, ..)) = state.tags.pop_front() {
            drop(state);
            self.note_wipe(&namespace);
        }
    }

    /// At this moment or later the manager said that the map is the one in use.
    pub(super) fn confirmed(&self, at: Instant) {
        let mut state = self.lock();
        state.confirmed = state.confirmed.max(Some(at));
    }

    /// Nothing is noted while this is held: a write is noted before, or sees what is put in place meanwhile.
    pub(super) fn hold(&self) -> Held<'_> {
        Held {
            window: self.window,
            state: self.lock(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Before which nothing need be remembered: other processes know the map by then, and this one knew it then.
    fn oldest(&self, now: Instant, window: Duration) -> Option<Instant> {
        let known = self.confirmed?;
        Some(known.min(now.checked_sub(window)?))
    }

    fn make_room(&mut self, oldest: Option<Instant>) {
        if let Some(oldest) = oldest {
            self.keys.retain(|_, (at, _)| *at >= oldest);
        }
        // Half of them at once, so that room is not made for each single key.
        if self.keys.len() > MAX_KEYS / 2 {
            let mut numbers: Vec<u64> = self.keys.values().map(|(_, number)| *number).collect();
            numbers.sort_unstable();
            let middle = numbers[numbers.len() / 2];
            self.keys.retain(|_, (_, number)| *number >= middle);
        }
    }
}

/// What was written lately, while nobody adds to it.
pub(super) struct Held<'r> {
    window: Duration,
    state: MutexGuard<'r, State>,
}

impl Held<'_> {
    /// Owes a delete at the new node of each key that moves from `before` to `next`, and what was cleared at nodes that
    /// `before` did not have.
    pub(super) fn owe(&mut self, before: &Snapshot, next: &Snapshot) {
        if before.ring.is_empty() {
            return;
        }
        let oldest = self.state.oldest(Instant::now(), self.window);
        let lately = |at: Instant| oldest.is_none_or(|oldest| at >= oldest);
        self.state.keys.retain(|_, (at, _)| lately(*at));
        self.state.prefixes.retain(|(_, at)| lately(*at));
        self.state.tags.retain(|(.., at)| lately(*at));
        for key in self.state.keys.keys() {
            if let (true, Ok(node)) = (before.moves(next, key), next.node_of(key)) {
                node.owe(key);
            }
        }
        for node in next
            .present_nodes()
            .filter(|node| !before.has(node.label()))
        {
            for (prefix, _) in &self.state.prefixes {
                node.owe_all(prefix);
            }
            for (namespace, tag, _) in &self.state.tags {
                node.owe_tag(namespace, tag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(2);

    fn keys(recent: &Recent) -> usize {
        recent.lock().keys.len()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_and_confirmed_is_forgotten_and_the_rest_is_bounded() {
        let recent = Recent::new(WINDOW);
        let many: Vec<String> = (0..3 * MAX_KEYS).map(|key| key.to_string()).collect();
        recent.note(["hot"; 3]);
        assert_eq!(keys(&recent), 1);
        recent.note(many.iter().map(String::as_str));
        assert!(keys(&recent) <= MAX_KEYS && keys(&recent) >= MAX_KEYS / 2);
        let last = many.last().expect("some").as_str();
        assert!(recent.lock().keys.contains_key(last) && !recent.lock().keys.contains_key("hot"));
        for prefix in &many[..100] {
            recent.note_wipe(prefix);
            recent.note_wipe(prefix);
        }
        assert_eq!(recent.lock().prefixes.len(), MAX_PREFIXES);
        let oldest = |recent: &Recent| recent.lock().oldest(Instant::now(), WINDOW);
        tokio::time::advance(WINDOW * 2).await;
        assert_eq!(oldest(&recent), None, "the map was never confirmed");
        let began = Instant::now();
        recent.confirmed(began);
        recent.confirmed(began - WINDOW);
        tokio::time::advance(WINDOW / 2).await;
        assert_eq!(oldest(&recent), Some(began - WINDOW / 2));
        tokio::time::advance(WINDOW * 9).await;
        assert_eq!(oldest(&recent), Some(began), "it may have changed since");
    }
}
