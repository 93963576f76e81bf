//! One flight: who leads it, who waits, what came of it.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Mutex, MutexGuard, Notify, PoisonError};
use crate::value::Shared;

/// Leaders that fail in a row before all who still wait are told.
const MAX_FAILURES: u32 = 2;

/// By how much longer the second leader is waited for than the first, and so on.
const PATIENCE_GROWTH: u32 = 4;
const MAX_GROWTH: u32 = 1 << 10;

/// Keeps the arithmetic of deadlines in range: a day.
pub(super) const MAX_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) type_id: TypeId,
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
}

/// What a flight came to.
#[derive(Clone, Debug)]
pub(crate) struct Landing {
    pub(crate) value: Shared,
    pub(crate) form: Form,
}

/// What a landing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A value that was computed, or found within its life.
    Value,
    /// A value past its life, answered because there is no better one.
    Stale,
    /// That a compute failed, which is kept.
    Failure,
}

impl Landing {
    pub(crate) fn of(value: Shared) -> Self {
        let form = Form::Value;
        Self { value, form }
    }

    pub(crate) fn stale(value: Shared) -> Self {
        let form = Form::Stale;
        Self { value, form }
    }

    pub(crate) fn failure(value: Shared) -> Self {
        let form = Form::Failure;
        Self { value, form }
    }
}

/// What a caller takes for an answer besides a value within its life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Takes {
    pub(crate) stale: bool,
    pub(crate) failures: bool,
    /// Only what is computed, rather than what stands there meanwhile.
    pub(crate) computed_only: bool,
}

impl Takes {
    pub(super) fn suits(self, landing: &Landing) -> bool {
        match landing.form {
            Form::Value => true,
            Form::Stale => self.stale,
            Form::Failure => self.failures,
        }
    }
}

/// The tags that the value of a flight will have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tags {
    /// Nobody has said.
    #[default]
    Unsaid,
    These(Arc<[Box<str>]>),
    /// Only the compute can tell.
    Any,
}

impl Tags {
    fn may_hold(&self, tag: &str) -> bool {
        match self {
            Self::These(tags) => tags.iter().any(|known| **known == *tag),
            Self::Unsaid | Self::Any => true,
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// Which leader leads; raised when one takes over.
    pub(super) term: u32,
    /// Whether that leader is still there.
    pub(super) led: bool,
    /// Leaders that are there, those included that another took over from: each may land.
    pub(super) leads: usize,
    /// When it began or, once it has landed, when it did.
    pub(super) since: Instant,
    /// Leaders that took over because another was silent.
    pub(super) successions: u32,
    pub(super) waiters: usize,
    pub(super) failures: u32,
    pub(super) failure: Option<Arc<str>>,
    pub(super) landed: Option<Landing>,
    /// A value within its life, which ends then, to be taken by all: it is computed anew before that.
    pub(super) current: Option<(Shared, Instant)>,
    /// A value past its life, to be taken by those who have waited long enough.
    pub(super) offered: Option<(Shared, Instant)>,
    pub(super) detached: bool,
    /// Its value is computed whatever stands there.
    pub(super) renews: bool,
    /// Nobody joins it any more.
    pub(super) closed: bool,
    /// The tags that its value will have, where that is known; nothing is known at first.
    pub(super) tags: Tags,
    pub(super) storing: bool,
    /// A write gave up waiting for the store: what it stored must go.
    pub(super) overtaken: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves nothing half done here: every critical section is plain assignments.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// A leader says which tags its value will have.
    pub(super) fn expect(&mut self, tags: Tags) {
        // Of two who say otherwise, either may be the one whose value it is.
        let agreed = self.tags == Tags::Unsaid || self.tags == tags;
        self.tags = if agreed { tags } else { Tags::Any };
    }

    /// Lets nobody join any more, if the value may have this tag.
    pub(super) fn close(&mut self, tag: &str) {
        self.closed |= self.tags.may_hold(tag);
    }
}

impl Flight {
    pub(super) fn new(type_id: TypeId, now: Instant, detached: bool) -> Self {
        let state = State {
            term: 1,
            led: true,
            leads: 1,
            since: now,
            successions: 0,
            waiters: 0,
            failures: 0,
            failure: None,
            landed: None,
            current: None,
            offered: None,
            detached,
            renews: false,
            closed: false,
            tags: Tags::default(),
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
    pub(super) fn lead(&mut self, now: Instant) -> u32 {
        self.successions += u32::from(self.led);
        self.term += 1;
        self.led = true;
        self.leads += 1;
        self.since = now;
        self.term
    }

    /// Whether another may lead: nobody does, or the one who does has been silent for too long.
    pub(super) fn may_lead(&self, now: Instant, patience: Duration) -> bool {
        let open = self.landed.is_none() && self.failure_text().is_none();
        open && (!self.led || self.overdue(patience) <= now)
    }

    /// When the leader has been silent for too long. Each succession makes that longer: if every compute hangs, or
    /// takes longer than the patience, they must not pile up.
    pub(super) fn overdue(&self, patience: Duration) -> Instant {
        let times = PATIENCE_GROWTH
            .saturating_pow(self.successions)
            .min(MAX_GROWTH);
        self.since + patience.min(MAX_PATIENCE) * times
    }

    /// Whether its value has been on its way into the store for longer than anybody should wait: a leader that is not
    /// polled any more. Its value must not be handed out for ever.
    pub(super) fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        let landed = self.landed.is_some() && self.storing;
        landed && self.since + patience.min(MAX_PATIENCE) <= now
    }

    /// The value within its life that is handed out meanwhile.
    pub(super) fn meanwhile(&self, now: Instant, takes: Takes) -> Option<&Shared> {
        let (value, until) = self.current.as_ref()?;
        (now < *until && !takes.computed_only).then_some(value)
    }

    /// The value past its life that is at hand, for one who takes it.
    pub(super) fn offer(&self, now: Instant, takes: Takes) -> Option<Landing> {
        let (value, until) = self.offered.as_ref().filter(|_| takes.stale)?;
        (now < *until).then(|| Landing::stale(Arc::clone(value)))
    }

    /// Whether a caller may join: not a flight that came to what it does not take.
    pub(super) fn is_open(&self, takes: Takes) -> bool {
        !self.closed
            && self
                .landed
                .as_ref()
                .is_none_or(|landed| takes.suits(landed))
    }

    /// Nobody will add to it any more, and nobody needs to find it.
    pub(super) fn is_over(&self) -> bool {
        let landed = self.landed.is_some() && !self.storing;
        landed
            || self.failure_text().is_some()
            || (self.leads == 0 && self.waiters == 0 && self.landed.is_none())
    }

    pub(super) fn failure_text(&self) -> Option<Arc<str>> {
        if self.failures >= MAX_FAILURES {
            self.failure.clone()
        } else {
            None
        }
    }
}
