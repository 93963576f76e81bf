//! Single flight: concurrent callers of one key and type share one compute.
//!
//! The compute may borrow, so its leader runs it in its own caller, which may drop it, park it or panic at any
//! point. A flight therefore outlives its leaders: when one is lost, or silent for longer than its patience, a waiter
//! leads next with its own compute. Here is only the bookkeeping; the cache above computes and stores.
//!
//! Law 3 needs the flight to know of writes: a write of the key *detaches* the flight (later callers start a new one,
//! and the leader may no longer store) and waits for a store that has begun already.

mod lead;
mod state;
mod wait;
mod write;

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};
pub(crate) use lead::{Handing, Lead, Storing, unless_overtaken};
use state::{Flight, lock};
pub(crate) use state::{Form, Landing, Tags, Takes};
pub(crate) use wait::{Outcome, Terms, Waiter};
pub(crate) use write::{Clearing, Writing};

const SHARDS: usize = 64;

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

/// A caller's place in a flight.
pub(crate) enum Seat {
    /// Compute, then land.
    Lead(Lead),
    /// Wait for the leader.
    Wait(Waiter),
    /// As many wait as may. The value past its life that is at hand, if there is one.
    Full(Option<Landing>),
}

impl Flights {
    pub(crate) fn new() -> Self {
        Self::sharded(SHARDS)
    }

    /// With so many locks that keys share.
    pub(crate) fn sharded(count: usize) -> Self {
        Self {
            shards: (0..count).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            clears: Mutex::default(),
            clear_count: AtomicUsize::new(0),
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let index =
            usize::try_from(self.hasher.hash_one(key) % self.shards.len() as u64).unwrap_or(0);
        lock(&self.shards[index])
    }

    /// Takes a seat in the flight of this key and type, opening one if there is none.
    pub(crate) fn join(self: &Arc<Self>, key: &str, type_id: TypeId, terms: &Terms) -> Seat {
        let patience = terms.patience;
        let now = Instant::now();
        let mut shard = self.shard(key);
        // Read under the shard's lock: a clear raises it before it looks into the shard.
        let clearing = self.clears_cover(key);
        let slot = shard.entry(key.into()).or_default();
        let found = slot
            .flights
            .iter()
            .find(|flight| flight.type_id == type_id && lock(&flight.state).is_open(terms.takes))
            .cloned();
        if let Some(flight) = found {
            if lock(&flight.state).is_stuck(now, patience) {
                slot.give_up(&flight);
            } else {
                return self.sit(key, flight, now, terms);
            }
        }
        let flight = Arc::new(Flight::new(type_id, now, slot.writers > 0 || clearing));
        slot.flights.push(Arc::clone(&flight));
        Seat::Lead(self.lead(key, flight, 1))
    }

    /// Takes a seat in a flight that there is.
    fn sit(self: &Arc<Self>, key: &str, flight: Arc<Flight>, now: Instant, terms: &Terms) -> Seat {
        let mut state = lock(&flight.state);
        // Whoever leads finds what stands there, and that would be the flight's value.
        let has_value = state.meanwhile(now, terms.takes).is_some();
        if !has_value && state.may_lead(now, terms.patience) {
            let term = state.lead(now);
            drop(state);
            return Seat::Lead(self.lead(key, flight, term));
        }
        if state.landed.is_none() && state.waiters >= terms.max_waiters {
            return Seat::Full(state.offer(now, terms.takes));
        }
        state.waiters += 1;
        drop(state);
        Seat::Wait(Waiter {
            flights: Arc::clone(self),
            key: key.into(),
            flight,
        })
    }

    /// A seat beside a leader who computes whatever stands there, if there is one.
    pub(crate) fn join_renewal(self: &Arc<Self>, key: &str, type_id: TypeId) -> Option<Waiter> {
        let shard = self.shard(key);
        let renewal = shard.get(key)?.flights.iter().find(|flight| {
            let state = lock(&flight.state);
            let is_open = !state.closed && state.landed.is_none() && state.led;
            flight.type_id == type_id && state.renews && is_open
        });
        let flight = Arc::clone(renewal?);
        lock(&flight.state).waiters += 1;
        Some(Waiter {
            flights: Arc::clone(self),
            key: key.into(),
            flight,
        })
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
            ended: false,
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

    /// Lets nobody join the flights under way of keys that begin with `prefix` whose values may have this tag. What they
    /// compute may still be stored.
    pub(crate) fn close(&self, prefix: &str, tag: &str) {
        for shard in &self.shards {
            let shard = lock(shard);
            let under = shard.iter().filter(|(key, _)| key.starts_with(prefix));
            let flights = under.flat_map(|(_, slot)| &slot.flights);
            flights.for_each(|flight| lock(&flight.state).close(tag));
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

    /// Cuts off a flight whose leader does not come to the end of its store, as a write does that waited for too long.
    fn give_up(&mut self, flight: &Arc<Flight>) {
        let mut state = lock(&flight.state);
        (state.detached, state.overtaken) = (true, true);
        drop(state);
        self.flights.retain(|other| !Arc::ptr_eq(other, flight));
        self.storing.push(Arc::clone(flight));
    }

    fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.storing.is_empty() && self.writers == 0
    }
}
