//! One call that computes where nothing is stored: how it gets to its answer, or to the right to compute it.

use std::any::TypeId;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::ahead::Life;
use crate::cache::lease::Held;
use crate::cache::single::{
    Look, begun, begun_without, checked, fetched, look, typed_entry, wanted,
};
use crate::core::MAX_WAIT;
use crate::entry::{Answer, Entry, Ticket, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::Failure;
use crate::flight::{Form, Landing, Lead, Outcome, Seat, Tags, Takes, Terms};
use crate::options::Options;
use crate::refresh::RefreshAhead;
use crate::report::Source;
use crate::stats::count;
use crate::value::Cacheable;

/// One call, and what it wants.
pub(super) struct Call<'c, C> {
    pub(super) cache: &'c C,
    pub(super) key: &'c str,
    /// Those of the call over those of the cache.
    pub(super) options: Cow<'c, Options>,
    /// When it ends at the latest.
    pub(super) until: Option<Instant>,
}

/// How far a call got without computing.
pub(super) enum Opened<T> {
    Answer(Arc<T>),
    /// From a store that had to be asked, within its life.
    Stored(Arc<T>, Life),
    /// It computes, for all who ask.
    Lead(Box<Led<T>>),
    /// It computes for itself: the key cannot be cached.
    Alone,
}

/// The right to compute, and what is known by then.
pub(super) struct Led<T> {
    pub(super) lead: Lead,
    pub(super) ticket: Ticket,
    pub(super) stale: Option<Stale<T>>,
    /// Against all other processes, if it is leased. Let go of only when the value is stored.
    pub(super) held: Option<Held>,
    /// What becomes of what stands there.
    pub(super) standing: Standing,
}

/// What a compute does with what stands in its place.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    /// Others are given it meanwhile.
    pub(super) is_handed_on: bool,
    /// Others may be answered it still: that the compute failed must not take its place.
    pub(super) is_spared: bool,
}

/// A value past its life.
#[derive(Clone)]
pub(super) struct Stale<T> {
    pub(super) value: Arc<T>,
    pub(super) entry: Entry,
}

/// What stands under a key.
pub(super) enum Asked<T> {
    Fresh(Arc<T>, Life, Source),
    /// Past its life, to be answered as it is: computing it anew failed a short while ago, or another process does so.
    Rearmed(Arc<T>),
    Stale(Stale<T>),
    /// Past its life, and this call takes no such value.
    Passed,
    Nothing,
    /// Computing it failed a short while ago.
    Failed(Arc<Failure>),
    /// This process computes, of all.
    Granted(Box<Granted<T>>),
}

/// The right to compute a value for all processes.
pub(super) struct Granted<T> {
    pub(super) ticket: Ticket,
    pub(super) stale: Option<Stale<T>>,
    pub(super) held: Held,
    pub(super) is_spared: bool,
}

impl<'c, C: Cache> Call<'c, C> {
    pub(super) fn new(cache: &'c C, key: &'c str, options: Options) -> Self {
        let options = options.over(&cache.core().settings().options);
        // Nothing keeps the time outside a runtime.
        let hard = options.hard().filter(|_| Handle::try_current().is_ok());
        let until = hard.map(|hard| Instant::now() + hard.min(MAX_WAIT));
        Self {
            cache,
            key,
            options: Cow::Owned(options),
            until,
        }
    }

    /// One that nobody waits for.
    pub(super) fn background(cache: &'c C, key: &'c str, options: Options) -> Self {
        Self {
            until: None,
            ..Self::new(cache, key, options)
        }
    }

    /// Whether its caller has the store's errors.
    pub(super) fn is_strict(&self) -> bool {
        self.options.is_strict(self.cache.core().settings().strict)
    }

    /// Whether it takes a value past its life.
    pub(super) fn takes_stale(&self) -> bool {
        !self.options.graces().is_zero()
    }

    pub(super) fn told(&self, source: Source) {
        if let Some(report) = self.options.told() {
            report.tell(source);
        }
        if source == Source::Stale {
            count(&self.cache.core().counters().stale);
        }
    }

    pub(super) fn error(&self, kind: ErrorKind, why: &str) -> Error {
        Error::new(kind, why)
            .during("get_or_set")
            .with("key", self.key)
    }

    /// Past a limit that was chosen.
    pub(super) fn busy(&self, why: &str) -> Error {
        count(&self.cache.core().counters().busy);
        self.error(ErrorKind::Busy, why)
    }

    /// A compute failed a short while ago, and that was kept.
    pub(super) fn failed(&self, failure: &Failure) -> Error {
        count(&self.cache.core().counters().failures);
        self.error(ErrorKind::Compute, failure.text())
    }

    /// Whether it takes a failure that was kept for an answer.
    pub(super) fn takes_failures(&self) -> bool {
        self.options.error_ttl_chosen().is_some()
    }

    /// Past the hard timeout.
    pub(super) fn too_late(&self) -> Error {
        count(&self.cache.core().counters().timeouts);
        let bound = self.options.hard().unwrap_or_default();
        self.error(
            ErrorKind::Timeout,
            &format!("no value within {bound:?}, the hard timeout"),
        )
    }

    /// It waited for others in vain.
    pub(super) fn timed_out(&self) -> Error {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            return self.too_late();
        }
        let why = "two computes of other callers did not finish";
        self.error(ErrorKind::Timeout, why)
    }

    /// As many wait as may.
    pub(super) fn full(&self) -> Error {
        self.busy("as many callers as may wait for another's compute of this key")
    }

    /// The answer, or the right to compute it. `tags` are those that its value will have.
    pub(super) async fn open<T: Cacheable>(&self, tags: Tags) -> Result<Opened<T>> {
        if let Err(error) = checked(self.cache, self.key, "get_or_set") {
            // The application must go on: the value is computed, for this caller alone.
            if self.is_strict() {
                return Err(error);
            }
            tracing::warn!(target: "larder", event = "bad_key", error = %error);
            return Ok(Opened::Alone);
        }
        let lead = match self.seat::<T>().await? {
            Ok(lead) => lead,
            Err(value) => return Ok(Opened::Answer(value)),
        };
        lead.expect(tags);
        let found = match self.leased() {
            Some(life) => self.claim::<T>(life, &lead).await,
            None => self.in_time(self.ask::<T>()).await,
        };
        self.opened(lead, found).await
    }

    /// What becomes of the lead of a key under which this was found.
    async fn opened<T: Cacheable>(&self, lead: Lead, found: Result<Asked<T>>) -> Result<Opened<T>> {
        let mut led = Led {
            lead,
            ticket: Ticket::default(),
            stale: None,
            held: None,
            standing: Standing::default(),
        };
        match found {
            Ok(Asked::Fresh(value, life, source)) => {
                led.lead.found(Landing::of(Arc::clone(&value) as _));
                if let Some(report) = self.options.told() {
                    report.tell_end(life.end());
                }
                self.told(source);
                return Ok(Opened::Stored(value, life));
            }
            Ok(Asked::Rearmed(value)) => {
                led.lead.found(Landing::stale(Arc::clone(&value) as _));
                self.told(Source::Stale);
                return Ok(Opened::Answer(value));
            }
            Ok(Asked::Failed(failure)) => {
                let error = self.failed(&failure);
                led.lead.found(Landing::failure(failure as _));
                return Err(error);
            }
            Ok(Asked::Nothing) => led.ticket = self.begun().await,
            Ok(Asked::Passed) => {
                led.ticket = self.begun().await;
                led.standing.is_spared = true;
            }
            Ok(Asked::Stale(_)) => {
                led.ticket = self.begun().await;
                led.stale = self.stale_still(&led.lead).await;
            }
            Ok(Asked::Granted(granted)) => {
                let Granted {
                    ticket,
                    stale,
                    held,
                    is_spared,
                } = *granted;
                (led.ticket, led.stale, led.held) = (ticket, stale, Some(held));
                led.standing.is_spared = is_spared;
            }
            Err(error) if self.is_strict() => {
                led.lead.fail(&error.to_string());
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(target: "larder", event = "read_failed", error = %error);
                led.ticket = begun_without(self.cache, self.key, error);
            }
        }
        led.standing.is_handed_on = led.stale.is_some();
        Ok(Opened::Lead(Box::new(led)))
    }

    /// For how long the compute is leased, if it is. Leases are renewed by a task.
    pub(super) fn leased(&self) -> Option<Duration> {
        self.options
            .leased()
            .filter(|_| Handle::try_current().is_ok())
    }

    pub(super) async fn begun(&self) -> Ticket {
        let begun = async { Ok(begun(self.cache, &[self.key]).await) };
        match self.in_time(begun).await {
            Ok(mut tickets) => tickets.pop().unwrap_or_default(),
            Err(error) => begun_without(self.cache, self.key, error),
        }
    }

    /// Ends with the call.
    pub(super) async fn in_time<R>(
        &self,
        part: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        match self.until {
            None => part.await,
            Some(until) => match timeout_at(until, part).await {
                Ok(answer) => answer,
                Err(_) => Err(self.error(ErrorKind::Timeout, "the store took too long")),
            },
        }
    }

    /// How it waits for others.
    pub(super) fn terms(&self) -> Terms {
        let patience = self.cache.core().settings().leader_patience;
        Terms {
            patience,
            bound: Terms::bound(patience),
            takes: Takes {
                stale: self.takes_stale(),
                failures: self.takes_failures(),
                ..Takes::default()
            },
            soft: self.options.softly(),
            until: self.until,
            max_waiters: self.options.waiters(),
        }
    }

    /// What a read asks the store for.
    pub(super) fn want<T: Cacheable>(&self) -> Want {
        let want = wanted::<T, C>(self.cache);
        if self.takes_stale() || self.takes_failures() {
            want.or_stale()
        } else if self.options.refreshes() == RefreshAhead::Never {
            want
        } else {
            want.with_deadline()
        }
    }

    /// When it gives up waiting for another process.
    pub(super) fn bound(&self) -> Instant {
        let patience = self.cache.core().settings().leader_patience;
        let bound = Instant::now() + patience.min(MAX_WAIT);
        self.until.map_or(bound, |until| until.min(bound))
    }

    /// The right to compute, or the value that another computed.
    async fn seat<T: Cacheable>(&self) -> Result<Result<Lead, Arc<T>>> {
        let core = self.cache.core();
        let stored = self.cache.stored_key(self.key);
        let terms = self.terms();
        loop {
            let outcome = match core.flights().join(&stored, TypeId::of::<T>(), &terms) {
                Seat::Lead(lead) => Outcome::Lead(lead),
                Seat::Wait(waiter) => waiter.wait(terms).await,
                Seat::Full(Some(stale)) => Outcome::Landed(stale),
                Seat::Full(None) => return Err(self.full()),
            };
            match outcome {
                Outcome::Lead(lead) => return Ok(Ok(lead)),
                Outcome::Landed(landing) => {
                    if let Some(answer) = self.landed::<T>(landing) {
                        return answer.map(Err);
                    }
                }
                Outcome::Rejoin => {}
                Outcome::Failed(text) => return Err(self.error(ErrorKind::Compute, &text)),
                Outcome::TimedOut => return Err(self.timed_out()),
            }
        }
    }

    /// The answer that another's compute is, if it is of this type.
    pub(super) fn landed<T: Cacheable>(&self, landing: Landing) -> Option<Result<Arc<T>>> {
        let Landing { value, form } = landing;
        let source = match form {
            Form::Value => Source::Joined,
            Form::Stale => Source::Stale,
            Form::Failure => {
                let failure = value.downcast::<Failure>().ok()?;
                return Some(Err(self.failed(&failure)));
            }
        };
        let value = value.downcast::<T>().ok()?;
        count(&self.cache.core().counters().coalesced);
        self.told(source);
        Some(Ok(value))
    }

    /// What memory or the store holds by now: it may have been stored between the caller's look and its seat.
    pub(super) async fn ask<T: Cacheable>(&self) -> Result<Asked<T>> {
        let (cache, key) = (self.cache, self.key);
        let core = cache.core();
        match self.in_memory() {
            Some(Asked::Nothing) if !self.takes_stale() && !self.takes_failures() => {
                core.counters().misses.add(1);
                return Ok(Asked::Nothing);
            }
            // There may be something past its life.
            Some(Asked::Nothing) | None => {}
            Some(found) => return Ok(found),
        }
        let answer = fetched(cache, key, self.want::<T>())
            .await
            .map_err(|error| {
                count(&core.counters().read_errors);
                error.during("get_or_set").with("key", key)
            })?;
        Ok(self.found(answer))
    }

    /// What memory alone can tell.
    pub(super) fn in_memory<T: Cacheable>(&self) -> Option<Asked<T>> {
        match look(self.cache, self.key, || self.takes_stale()) {
            Look::Hit(value, life) => Some(Asked::Fresh(value, life, Source::Memory)),
            Look::Rearmed(value) => Some(Asked::Rearmed(value)),
            Look::Miss => Some(Asked::Nothing),
            Look::Ask => None,
        }
    }

    pub(super) fn found<T: Cacheable>(&self, answer: Answer) -> Asked<T> {
        let entry = answer.entry.as_ref();
        if let Some(failure) = entry.and_then(|entry| Failure::of(entry.value())) {
            self.cache.core().counters().misses.add(1);
            let live = entry.is_some_and(|entry| !entry.is_stale(self.cache.core().now()));
            return if self.takes_failures() && live {
                Asked::Failed(failure)
            } else {
                Asked::Nothing
            };
        }
        let Some((value, entry)) = typed_entry::<T, C>(self.cache, self.key, answer) else {
            return Asked::Nothing;
        };
        let now = self.cache.core().now();
        if !self.takes_stale() && !entry.is_live(now) {
            Asked::Passed
        } else if entry.is_stale(now) {
            Asked::Stale(Stale { value, entry })
        } else if entry.is_rearmed() {
            Asked::Rearmed(value)
        } else {
            Asked::Fresh(value, Life::of(&entry), Source::Store)
        }
    }

    /// For how long the compute is waited for where a stale value is at hand.
    pub(super) fn soft(&self) -> Option<Duration> {
        self.options.softly().filter(|_| self.takes_stale())
    }
}
