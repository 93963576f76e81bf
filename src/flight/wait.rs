//! Waiting in a flight.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::state::{Flight, MAX_PATIENCE, lock};
use super::{Flights, Lead};
use crate::value::Shared;

/// A waiter waits this many times the leader's patience in all; by then two leaders have been silent for long.
const PATIENCE_TIMES: u32 = 4;

/// Between two looks of a waiter, at least.
const SHORTEST: Duration = Duration::from_millis(1);

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

/// A caller that waits for another's compute.
pub(crate) struct Waiter {
    pub(super) flights: Arc<Flights>,
    pub(super) key: Box<str>,
    pub(super) flight: Arc<Flight>,
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
