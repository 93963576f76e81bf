//! Single flight: concurrent callers of one key and type share one compute.
//!
//! The compute may borrow, so its leader runs it in its own caller, which may drop it, park it or panic at any
//! point. A flight therefore outlives its leaders: when one is lost, or silent for longer than its patience, a waiter
//! leads next with its own compute. Here is only the bookkeeping; the cache above computes and stores.
//!
//! Law 3 needs the flight to know of writes: a write of the key *detaches* the flight (later callers start a new one,
//! and the leader may no longer store) and waits for a store that has begun already.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::value::Shared;

const SHARDS: usize = 64;

/// Leaders that fail in a row before all who still wait are told.
const MAX_FAILURES: u32 = 2;

/// A waiter waits this many times the leader's patience in all; by then two leaders have been silent for long.
const PATIENCE_TIMES: u32 = 4;

/// By how much longer the second leader is waited for than the first, and so on.
const PATIENCE_GROWTH: u32 = 4;
const MAX_GROWTH: u32 = 1 << 10;

/// Between two looks of a waiter, at least.
const SHORTEST: Duration = Duration::from_millis(1);

/// Keeps the arithmetic of deadlines in range: a day.
const MAX_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

type Shard = HashMap<Box<str>, Slot, ahash::RandomState>;

/// What is under way for one key.
#[derive(Debug, Default)]
struct Slot {
    /// Flights that callers may join.
    flights: Vec<Arc<Flight>>,
    /// Flights that were detached while they stored. Every write waits for them, not only the one that detached them.
    storing: Vec<Arc<Flight>>,
    /// Writes under way. A flight that begins meanwhile may be told the old value, so it may not store, and nobody
    /// joins it once the write is over.
    writers: usize,
}

/// The flights of a store, by key as stored.
#[derive(Debug)]
pub(crate) struct Flights {
    shards: Box<[Mutex<Shard>]>,
    hasher: ahash::RandomState,
    /// The prefixes of the clears under way, and how many there are.
    clears: Mutex<Vec<Box<str>>>,
    clear_count: AtomicUsize,
}

#[derive(Debug)]
struct Flight {
    type_id: TypeId,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Which leader leads; raised when one takes over.
    term: u32,
    /// Whether that leader is still there.
    led: bool,
    /// When it began.
    since: Instant,
    /// Leaders that took over because another was silent.
    successions: u32,
    waiters: usize,
    failures: u32,
    failure: Option<Arc<str>>,
    landed: Option<Shared>,
    detached: bool,
    storing: bool,
    /// A write gave up waiting for the store: what it stored must go.
    overtaken: bool,
}

/// A caller's place in a flight.
pub(crate) enum Seat {
    /// Compute, then land.
    Lead(Lead),
    /// Wait for the leader.
    Wait(Waiter),
}

/// What a waiter came to.
pub(crate) enum Outcome {
    /// The leader's value.
    Landed(Shared),
    /// This caller leads now.
    Lead(Lead),
    /// Two leaders failed; the text is the last one's.
    Failed(Arc<str>),
    /// The flight was detached and lost its leader: begin anew.
    Rejoin,
    /// Neither value nor failure came within the bound.
    TimedOut,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves nothing half done here: every critical section is plain assignments.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            clears: Mutex::default(),
            clear_count: AtomicUsize::new(0),
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[index])
    }

    /// Takes a seat in the flight of this key and type, opening one if there is none.
    pub(crate) fn join(self: &Arc<Self>, key: &str, type_id: TypeId, patience: Duration) -> Seat {
        let now = Instant::now();
        let mut shard = self.shard(key);
        // Read under the shard's lock: a clear raises it before it looks into the shard.
        let clearing = self.clears_cover(key);
        let slot = shard.entry(key.into()).or_default();
        let found = slot
            .flights
            .iter()
            .find(|flight| flight.type_id == type_id)
            .cloned();
        if let Some(flight) = found {
            let mut state = lock(&flight.state);
            if state.may_lead(now, patience) {
                let term = state.lead(now);
                drop(state);
                return Seat::Lead(self.lead(key, flight, term));
            }
            state.waiters += 1;
            drop(state);
            return Seat::Wait(Waiter {
                flights: Arc::clone(self),
                key: key.into(),
                flight,
            });
        }
        let flight = Arc::new(Flight::new(type_id, now, slot.writers > 0 || clearing));
        slot.flights.push(Arc::clone(&flight));
        Seat::Lead(self.lead(key, flight, 1))
    }

    fn lead(self: &Arc<Self>, key: &str, flight: Arc<Flight>, term: u32) -> Lead {
        Lead {
            flights: Arc::clone(self),
            key: key.into(),
            flight,
            term,
            done: false,
        }
    }

    /// Begins a write of a key: its flights are cut off. Whoever asks from now on starts a new one, and what the old ones
    /// compute is not stored. The same happens to flights that begin before the answer is dropped.
    pub(crate) fn write(self: &Arc<Self>, key: &str) -> Writing {
        let mut shard = self.shard(key);
        let slot = shard.entry(key.into()).or_default();
        slot.writers += 1;
        slot.detach();
        Writing {
            flights: Arc::clone(self),
            key: key.into(),
            storing: slot.storing.clone(),
        }
    }

    /// Begins a clear: a write of every key that begins with `prefix`.
    pub(crate) fn clear(self: &Arc<Self>, prefix: &str) -> Clearing {
        lock(&self.clears).push(prefix.into());
        self.clear_count.fetch_add(1, Ordering::SeqCst);
        let storing = self.detach_under(prefix);
        Clearing {
            flights: Arc::clone(self),
            prefix: prefix.into(),
            storing,
        }
    }

    fn detach_under(&self, prefix: &str) -> Vec<Arc<Flight>> {
        let mut storing = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|key, slot| {
                if key.starts_with(prefix) {
                    slot.detach();
                    storing.extend(slot.storing.iter().cloned());
                }
                !slot.is_empty()
            });
        }
        storing
    }

    fn clears_cover(&self, key: &str) -> bool {
        self.clear_count.load(Ordering::SeqCst) > 0
            && lock(&self.clears)
                .iter()
                .any(|prefix| key.starts_with(&**prefix))
    }

    /// Claims the right to put a value into the store outside of a flight, which writes then wait for; none while one is
    /// under way.
    pub(crate) fn store(self: &Arc<Self>, key: &str) -> Option<Storing> {
        let mut shard = self.shard(key);
        let clearing = self.clears_cover(key);
        let slot = shard.entry(key.into()).or_default();
        if slot.writers > 0 || clearing {
            if slot.is_empty() {
                shard.remove(key);
            }
            return None;
        }
        let flight = Arc::new(Flight::new(TypeId::of::<()>(), Instant::now(), true));
        lock(&flight.state).storing = true;
        slot.storing.push(Arc::clone(&flight));
        Some(Storing {
            flights: Arc::clone(self),
            key: key.into(),
            flight,
        })
    }

    /// Takes the flight off the map once nobody leads it or waits in it. Decided under the shard's lock, where callers
    /// join: a flight that is led but not on the map would not hear of writes.
    fn remove_if_over(&self, key: &str, flight: &Arc<Flight>) {
        let mut shard = self.shard(key);
        let Some(slot) = shard.get_mut(key) else {
            return;
        };
        let state = lock(&flight.state);
        let (over, storing) = (state.is_over(), state.storing);
        drop(state);
        if over {
            slot.flights.retain(|other| !Arc::ptr_eq(other, flight));
        }
        if !storing {
            slot.storing.retain(|other| !Arc::ptr_eq(other, flight));
        }
        if slot.is_empty() {
            shard.remove(key);
        }
    }

    /// How many flights there are.
    pub(crate) fn len(&self) -> usize {
        let count = |slot: &Slot| slot.flights.len() + slot.storing.len();
        self.shards
            .iter()
            .map(|shard| lock(shard).values().map(count).sum::<usize>())
            .sum()
    }
}

impl Slot {
    fn detach(&mut self) {
        for flight in self.flights.drain(..) {
            let mut state = lock(&flight.state);
            state.detached = true;
            let storing = state.storing;
            drop(state);
            if storing {
                self.storing.push(flight);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.storing.is_empty() && self.writers == 0
    }
}

impl Flight {
    fn new(type_id: TypeId, now: Instant, detached: bool) -> Self {
        let state = State {
            term: 1,
            led: true,
            since: now,
            successions: 0,
            waiters: 0,
            failures: 0,
            failure: None,
            landed: None,
            detached,
            storing: false,
            overtaken: false,
        };
        Self {
            type_id,
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }
}

impl State {
    fn lead(&mut self, now: Instant) -> u32 {
        self.successions += u32::from(self.led);
        self.term += 1;
        self.led = true;
        self.since = now;
        self.term
    }

    /// Whether another may lead: nobody does, or the one who does has been silent for too long.
    fn may_lead(&self, now: Instant, patience: Duration) -> bool {
        let open = self.landed.is_none() && self.failure_text().is_none();
        open && (!self.led || self.overdue(patience) <= now)
    }

    /// When the leader has been silent for too long. Each succession makes that longer: if every compute hangs, or
    /// takes longer than the patience, they must not pile up.
    fn overdue(&self, patience: Duration) -> Instant {
        let times = PATIENCE_GROWTH
            .saturating_pow(self.successions)
            .min(MAX_GROWTH);
        self.since + patience.min(MAX_PATIENCE) * times
    }

    /// Nobody will add to it any more, and nobody needs to find it.
    fn is_over(&self) -> bool {
        let landed = self.landed.is_some() && !self.storing;
        landed
            || self.failure_text().is_some()
            || (!self.led && self.waiters == 0 && self.landed.is_none())
    }

    fn failure_text(&self) -> Option<Arc<str>> {
        if self.failures >= MAX_FAILURES {
            self.failure.clone()
        } else {
            None
        }
    }
}

/// A write of one key under way.
#[must_use]
pub(crate) struct Writing {
    flights: Arc<Flights>,
    key: Box<str>,
    storing: Vec<Arc<Flight>>,
}

impl Writing {
    /// Waits until no computed value of the key is being stored any more, at most until `deadline`.
    pub(crate) async fn settled(&mut self, deadline: Instant) {
        settled(std::mem::take(&mut self.storing), deadline).await;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(&self.key);
        if let Some(slot) = shard.get_mut(&*self.key) {
            slot.writers -= 1;
            slot.detach();
            if slot.is_empty() {
                shard.remove(&*self.key);
            }
        }
    }
}

/// A clear under way.
#[must_use]
pub(crate) struct Clearing {
    flights: Arc<Flights>,
    prefix: Box<str>,
    storing: Vec<Arc<Flight>>,
}

impl Clearing {
    /// As [`Writing::settled`], for all keys.
    pub(crate) async fn settled(&mut self, deadline: Instant) {
        settled(std::mem::take(&mut self.storing), deadline).await;
    }
}

impl Drop for Clearing {
    fn drop(&mut self) {
        // Flights that began meanwhile are cut off before new ones may store again.
        self.flights.detach_under(&self.prefix);
        let mut clears = lock(&self.flights.clears);
        if let Some(at) = clears.iter().position(|prefix| *prefix == self.prefix) {
            clears.swap_remove(at);
        }
        self.flights.clear_count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until none of the flights is storing. A store that takes longer is given up, or undone, by its leader.
///
/// Outside a tokio runtime there is no timer, and the wait has no end.
async fn settled(flights: Vec<Arc<Flight>>, deadline: Instant) {
    for flight in flights {
        let ended = async {
            loop {
                let changed = flight.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if !lock(&flight.state).storing {
                    return;
                }
                changed.await;
            }
        };
        if tokio::runtime::Handle::try_current().is_err() {
            ended.await;
        } else if tokio::time::timeout_at(deadline, ended).await.is_err() {
            let mut state = lock(&flight.state);
            state.overtaken |= state.storing;
        }
    }
}

/// The right and duty to compute. Dropped without landing or failing, it passes to a waiter.
pub(crate) struct Lead {
    flights: Arc<Flights>,
    key: Box<str>,
    flight: Arc<Flight>,
    term: u32,
    done: bool,
}

impl Lead {
    /// Gives the value to all who wait. The answer is the right to store it, which is lost if the key was written
    /// since the flight began or another leader has landed already.
    pub(crate) fn land(mut self, value: Shared) -> Option<Storing> {
        self.done = true;
        let mut state = lock(&self.flight.state);
        if state.landed.is_some() {
            return None;
        }
        state.landed = Some(value);
        state.storing = !state.detached;
        let storing = state.storing;
        drop(state);
        self.flight.changed.notify_waiters();
        let storing = storing.then(|| Storing {
            flights: Arc::clone(&self.flights),
            key: self.key.clone(),
            flight: Arc::clone(&self.flight),
        });
        if storing.is_none() {
            self.flights.remove_if_over(&self.key, &self.flight);
        }
        storing
    }

    /// Gives a value that stands in the store already to all who wait.
    pub(crate) fn found(self, value: Shared) {
        drop(self.land(value));
    }

    /// The compute erred. One waiter tries once more; the second failure is told to all.
    pub(crate) fn fail(mut self, text: &str) {
        self.give_up(Some(text));
    }

    fn give_up(&mut self, failure: Option<&str>) {
        self.done = true;
        let mut state = lock(&self.flight.state);
        if state.landed.is_some() || state.failure_text().is_some() {
            return;
        }
        if let Some(text) = failure {
            state.failures += 1;
            state.failure = Some(text.into());
        }
        let over = state.failure_text().is_some();
        // Another may still compute in it, but writes will not find it any more.
        state.detached |= over;
        if state.term == self.term {
            state.led = false;
        }
        drop(state);
        self.flights.remove_if_over(&self.key, &self.flight);
        if over {
            self.flight.changed.notify_waiters();
        } else {
            self.flight.changed.notify_one();
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.done {
            let panicked = std::thread::panicking().then_some("the compute panicked");
            self.give_up(panicked);
        }
    }
}

/// The right to store what was landed. Writes of the key wait until it is dropped.
pub(crate) struct Storing {
    flights: Arc<Flights>,
    key: Box<str>,
    flight: Arc<Flight>,
}

impl Storing {
    /// Whether a write of the key gave up waiting for this store, so that what was stored must be removed again.
    pub(crate) fn overtaken(&self) -> bool {
        lock(&self.flight.state).overtaken
    }
}

/// Runs a store until it ends, or a write gave up waiting for it: from then on it must not write. A caller may stop
/// polling a store and go on much later, when no timer helps.
pub(crate) async fn unless_overtaken<R>(
    storings: impl IntoIterator<Item = &Storing> + Clone + Send + Sync,
    store: impl Future<Output = R> + Send,
) -> Option<R> {
    tokio::pin!(store);
    std::future::poll_fn(|cx| {
        if storings.clone().into_iter().any(Storing::overtaken) {
            Poll::Ready(None)
        } else {
            store.as_mut().poll(cx).map(Some)
        }
    })
    .await
}

impl Drop for Storing {
    fn drop(&mut self) {
        lock(&self.flight.state).storing = false;
        self.flights.remove_if_over(&self.key, &self.flight);
        self.flight.changed.notify_waiters();
    }
}

/// A caller that waits for another's compute.
pub(crate) struct Waiter {
    flights: Arc<Flights>,
    key: Box<str>,
    flight: Arc<Flight>,
}

impl Waiter {
    /// Waits until the flight lands, fails, or this caller is to lead.
    ///
    /// Outside a tokio runtime there is no timer, and patience has no end.
    pub(crate) async fn wait(self, patience: Duration) -> Outcome {
        let timed = tokio::runtime::Handle::try_current().is_ok();
        let bound = Instant::now() + patience.min(MAX_PATIENCE) * PATIENCE_TIMES;
        loop {
            let changed = self.flight.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let pause = match self.look(patience, bound) {
                Ok(outcome) => return outcome,
                Err(pause) => pause,
            };
            if timed {
                // Whichever comes first: the flight is looked at again.
                let _ = tokio::time::timeout(pause, changed).await;
            } else {
                changed.await;
            }
        }
    }

    fn look(&self, patience: Duration, bound: Instant) -> Result<Outcome, Duration> {
        let now = Instant::now();
        let mut state = lock(&self.flight.state);
        if let Some(value) = &state.landed {
            return Ok(Outcome::Landed(Arc::clone(value)));
        }
        if let Some(text) = state.failure_text() {
            return Ok(Outcome::Failed(text));
        }
        if state.may_lead(now, patience) {
            if state.detached {
                return Ok(Outcome::Rejoin);
            }
            let term = state.lead(now);
            drop(state);
            return Ok(Outcome::Lead(self.flights.lead(
                &self.key,
                Arc::clone(&self.flight),
                term,
            )));
        }
        if bound <= now {
            return Ok(Outcome::TimedOut);
        }
        // Never longer than the patience: the one that was woken to lead may be a caller that nobody polls.
        let next = state.overdue(patience).min(bound);
        Err(next
            .saturating_duration_since(now)
            .min(patience.max(SHORTEST)))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = lock(&self.flight.state);
        state.waiters -= 1;
        let vacant = !state.led && state.landed.is_none();
        let others = state.waiters > 0;
        drop(state);
        if vacant && !others {
            self.flights.remove_if_over(&self.key, &self.flight);
        } else if vacant {
            // It may have been woken to lead and was dropped instead.
            self.flight.changed.notify_one();
        }
    }
}
