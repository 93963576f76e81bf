//! Waiting in a flight.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::state::{Flight, Landing, MAX_PATIENCE, Takes, lock};
use super::{Flights, Lead};

/// A waiter waits this many times the leader's patience in all; by then two leaders have been silent for long.
const PATIENCE_TIMES: u32 = 4;

/// Between two looks of a waiter, at least.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long a caller waits, and for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// For a leader that neither finishes nor goes away.
    pub(crate) patience: Duration,
    /// When it gives up, however many flights it has waited in by then.
    pub(crate) bound: Instant,
    pub(crate) takes: Takes,
    /// For how long it leaves a compute time, counted from its beginning, before it takes such a one.
    pub(crate) soft: Option<Duration>,
    /// Until when it waits at all.
    pub(crate) until: Option<Instant>,
    /// It does not wait where so many do.
    pub(crate) max_waiters: usize,
}

impl Terms {
    /// Of a caller who waits as long as its patience has it.
    pub(crate) fn patient(patience: Duration) -> Self {
        Self {
            patience,
            bound: Self::bound(patience),
            takes: Takes::default(),
            soft: None,
            until: None,
            max_waiters: usize::MAX,
        }
    }

    /// When one gives up who begins to wait now.
    pub(crate) fn bound(patience: Duration) -> Instant {
        Instant::now() + patience.min(MAX_PATIENCE) * PATIENCE_TIMES
    }
}

/// What a waiter came to.
pub(crate) enum Outcome {
    /// What the leader came to.
    Landed(Landing),
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
    pub(crate) async fn wait(self, terms: Terms) -> Outcome {
        let timed = tokio::runtime::Handle::try_current().is_ok();
        let bound = terms
            .until
            .map_or(terms.bound, |until| until.min(terms.bound));
        loop {
            let changed = self.flight.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let pause = match self.look(&terms, bound) {
                Ok(outcome) => return outcome,
                Err(pause) => pause,
            };
            // Whichever comes first: the flight is looked at again.
            let over = Instant::now() + pause;
            let changed = std::future::poll_fn(|cx| {
                match changed.as_mut().poll(cx) {
                    // A caller that blocks its thread may keep the timer from being turned.
                    Poll::Pending if Instant::now() < over => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            });
            if timed {
                let _ = tokio::time::timeout(pause, changed).await;
            } else {
                changed.await;
            }
        }
    }

    fn look(&self, terms: &Terms, bound: Instant) -> Result<Outcome, Duration> {
        let (now, patience) = (Instant::now(), terms.patience);
        let mut state = lock(&self.flight.state);
        match &state.landed {
            Some(landed) if !terms.takes.suits(landed) => return Ok(Outcome::Rejoin),
            Some(landed) => return Ok(Outcome::Landed(landed.clone())),
            None => {}
        }
        if let Some(value) = state.meanwhile(now, terms.takes) {
            return Ok(Outcome::Landed(Landing::of(Arc::clone(value))));
        }
        let stale = state.offer(now, terms.takes).map(Outcome::Landed);
        if let Some(text) = state.failure_text() {
            return Ok(stale.unwrap_or(Outcome::Failed(text)));
        }
        // Only where there is one at hand: without, a compute is the better answer however long it takes.
        let soft = terms.soft.filter(|_| stale.is_some());
        let soft = soft.map(|soft| state.since + soft.min(MAX_PATIENCE));
        if let Some(stale) = stale
            && (bound <= now || soft.is_some_and(|soft| soft <= now))
        {
            return Ok(stale);
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
        let next = soft.map_or(next, |soft| soft.min(next));
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
