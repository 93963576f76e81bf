//! Writing a key: its flights are cut off, and those that store are waited for.

use std::any::TypeId;
use std::sync::Arc;

use tokio::time::Instant;

use super::state::{Flight, lock};
use super::{Flights, Lead, Slot};
use crate::sync::atomic::Ordering;

/// A write of one key under way.
#[must_use]
pub(crate) struct Writing {
    pub(super) flights: Arc<Flights>,
    pub(super) key: Box<str>,
    pub(super) storing: Vec<Arc<Flight>>,
    pub(super) ended: bool,
}

impl Writing {
    /// Waits until no computed value of the key is being stored any more, at most until `deadline`.
    pub(crate) async fn settled(&mut self, deadline: Instant) {
        settled(std::mem::take(&mut self.storing), deadline).await;
    }

    /// Ends the write and opens a flight in one step: whatever was computed before is not stored, and no other flight of this type
    /// comes between.
    pub(crate) fn lead(mut self, type_id: TypeId) -> Lead {
        let flights = Arc::clone(&self.flights);
        let mut shard = flights.shard(&self.key);
        let clearing = flights.clears_cover(&self.key);
        let slot = shard.entry(self.key.clone()).or_default();
        self.ended = true;
        slot.ended();
        let flight = Flight::new(type_id, Instant::now(), slot.writers > 0 || clearing);
        lock(&flight.state).renews = true;
        let flight = Arc::new(flight);
        slot.flights.push(Arc::clone(&flight));
        flights.lead(&self.key, flight, 1)
    }
}

impl Slot {
    /// A write is over.
    fn ended(&mut self) {
        self.writers = self.writers.saturating_sub(1);
        self.detach();
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut shard = self.flights.shard(&self.key);
        if let Some(slot) = shard.get_mut(&*self.key) {
            slot.ended();
            if slot.is_empty() {
                shard.remove(&*self.key);
            }
        }
    }
}

/// A clear under way.
#[must_use]
pub(crate) struct Clearing {
    pub(super) flights: Arc<Flights>,
    pub(super) prefix: Box<str>,
    pub(super) storing: Vec<Arc<Flight>>,
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
