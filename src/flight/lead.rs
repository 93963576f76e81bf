//! Leading a flight: computing, landing, storing.

use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;

use super::Flights;
use super::state::{Flight, Landing, Tags, lock};
use crate::value::Shared;

/// The right and duty to compute. Dropped without landing or failing, it passes to a waiter.
pub(crate) struct Lead {
    pub(super) flights: Arc<Flights>,
    pub(super) key: Box<str>,
    pub(super) flight: Arc<Flight>,
    pub(super) term: u32,
    pub(super) done: bool,
}

impl Lead {
    /// Says which tags the value will have.
    pub(crate) fn expect(&self, tags: Tags) {
        lock(&self.flight.state).expect(tags);
    }

    /// Gives the value to all who wait. The answer is the right to store it, which is lost if the key was written
    /// since the flight began or another leader has landed already.
    pub(crate) fn land(mut self, landing: Landing) -> Option<Storing> {
        self.done = true;
        let mut state = lock(&self.flight.state);
        state.leads -= 1;
        if state.landed.is_some() {
            return None;
        }
        state.landed = Some(landing);
        state.since = Instant::now();
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
    pub(crate) fn found(self, landing: Landing) {
        drop(self.land(landing));
    }

    /// A handle through which others are given values while this leader computes.
    pub(crate) fn handing(&self) -> Handing {
        Handing(Arc::clone(&self.flight))
    }

    /// As [`Handing::offer`].
    pub(crate) fn offer(&self, value: Shared, until: Instant) {
        self.handing().offer(value, until);
    }

    /// As [`Handing::hand_out`].
    pub(crate) fn hand_out(&self, value: Shared, until: Instant) {
        self.handing().hand_out(value, until);
    }

    /// The compute erred. One waiter tries once more; the second failure is told to all.
    pub(crate) fn fail(mut self, text: &str) {
        self.give_up(Some(text));
    }

    fn give_up(&mut self, failure: Option<&str>) {
        self.done = true;
        let mut state = lock(&self.flight.state);
        state.leads -= 1;
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

/// Gives values to those who wait in a flight, which is led.
pub(crate) struct Handing(Arc<Flight>);

impl Handing {
    /// Gives a value within its life to all who wait, until then, while it is computed anew.
    pub(crate) fn hand_out(&self, value: Shared, until: Instant) {
        lock(&self.0.state).current = Some((value, until));
        self.0.changed.notify_waiters();
    }

    /// Has a value past its life at hand, until then, for those who have waited long enough.
    pub(crate) fn offer(&self, value: Shared, until: Instant) {
        lock(&self.0.state).offered = Some((value, until));
        self.0.changed.notify_waiters();
    }
}

/// The right to store what was landed. Writes of the key wait until it is dropped.
pub(crate) struct Storing {
    pub(super) flights: Arc<Flights>,
    pub(super) key: Box<str>,
    pub(super) flight: Arc<Flight>,
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
