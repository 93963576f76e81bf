//! One call that computes where nothing is stored: how it gets to its answer, or to the right to compute it.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::ahead::Life;
use crate::cache::lease::{Held, Watch};
use crate::cache::single::{
    Look, before, begun, begun_without, bounded, checked, fetched, look, typed_entry, wanted,
};
use crate::core::MAX_WAIT;
use crate::entry::{Answer, Claim, Entry, Lease, Right, Ticket, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Handing, Landing, Lead, Outcome, Seat, Tags, Terms};
use crate::options::Options;
use crate::refresh::RefreshAhead;
use crate::report::Source;
use crate::stats::count;
use crate::value::{Cacheable, Failure};

/// One call, and what it wants.
pub(super) struct Call<'c, C> {
    pub(super) cache: &'c C,
    pub(super) key: &'c str,
    /// Those of the call over those of the cache.
    pub(super) options: Options,
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
    /// Whether others are given what stands there meanwhile.
    pub(super) hands: bool,
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
    Nothing,
    /// Computing it failed a short while ago.
    Failed(Arc<Failure>),
    /// This process computes, of all.
    Granted(Ticket, Option<Stale<T>>, Held),
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
            options,
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

    /// The answer, or the right to compute it. `tags` are those that its value will have.
    pub(super) async fn open<T: Cacheable>(&self, tags: Tags) -> Result<Opened<T>> {
        let core = self.cache.core();
        if let Err(error) = checked(self.cache, self.key, "get_or_set") {
            // The application must go on: the value is computed, for this caller alone.
            if core.settings().strict {
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
        let (ticket, stale, held) = match found {
            Ok(Asked::Fresh(value, life, source)) => {
                lead.found(Landing::of(Arc::clone(&value) as _));
                self.told(source);
                return Ok(Opened::Stored(value, life));
            }
            Ok(Asked::Rearmed(value)) => {
                lead.found(Landing::stale(Arc::clone(&value) as _));
                self.told(Source::Stale);
                return Ok(Opened::Answer(value));
            }
            Ok(Asked::Nothing) => (self.begun().await, None, None),
            Ok(Asked::Stale(_)) => {
                // Read once more after that: what it was before may have been invalidated in between, and must not come back.
                let ticket = self.begun().await;
                let stale = match self.in_time(self.ask::<T>()).await {
                    Ok(Asked::Stale(stale)) => self.offered(&lead, stale),
                    _ => None,
                };
                (ticket, stale, None)
            }
            Ok(Asked::Granted(ticket, stale, held)) => (ticket, stale, Some(held)),
            Ok(Asked::Failed(failure)) => {
                let error = self.failed(&failure);
                lead.found(Landing::of(failure as _));
                return Err(error);
            }
            Err(error) if core.settings().strict => {
                lead.fail(&error.to_string());
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(target: "larder", event = "read_failed", error = %error);
                (begun_without(self.cache, self.key, error), None, None)
            }
        };
        Ok(Opened::Lead(Box::new(Led {
            lead,
            ticket,
            hands: stale.is_some(),
            stale,
            held,
        })))
    }

    /// Has a value past its life at hand for those who wait, unless a tag of it was invalidated.
    pub(super) fn offered<T: Cacheable>(&self, lead: &Lead, stale: Stale<T>) -> Option<Stale<T>> {
        // Its tags are what they were, whatever those of the call are: who invalidates one closes the flight.
        lead.expect(Tags::Any);
        if !stale.entry.is_current() {
            return None;
        }
        lead.offer(Arc::clone(&stale.value) as _, self.trusted_until());
        Some(stale)
    }

    /// Until when a value that was just read may be handed out to others: writes by this process are heard of, those by others may
    /// not be.
    pub(super) fn trusted_until(&self) -> Instant {
        let own = self.cache.origin(self.key).is_own();
        let bound = self.cache.core().settings().max_staleness;
        Instant::now() + if own { MAX_WAIT } else { bound.min(MAX_WAIT) }
    }

    /// Gives others what stands there as long as that is so, while a compute goes on. For ever.
    pub(super) async fn hand_on<T: Cacheable>(&self, handing: Handing) {
        let bound = self.cache.core().settings().max_staleness;
        if self.cache.origin(self.key).is_own() || bound.is_zero() || Handle::try_current().is_err()
        {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(bound / 2).await;
            let until = self.trusted_until();
            match self.ask::<T>().await {
                Ok(Asked::Fresh(value, ..)) => handing.hand_out(value as _, until),
                Ok(Asked::Stale(Stale { value, .. }) | Asked::Rearmed(value)) => {
                    handing.offer(value as _, until);
                }
                _ => {}
            }
        }
    }

    /// For how long the compute is leased, if it is. Leases are renewed by a task.
    pub(super) fn leased(&self) -> Option<Duration> {
        self.options
            .leased()
            .filter(|_| Handle::try_current().is_ok())
    }

    /// What stands under the key, or the right to compute it for all processes. Another that has it is waited for.
    async fn claim<T: Cacheable>(&self, life: Duration, lead: &Lead) -> Result<Asked<T>> {
        match self.in_memory() {
            Some(Asked::Nothing) | None => {}
            Some(found) => return Ok(found),
        }
        let core = self.cache.core();
        let (stored, mut watch) = (self.cache.stored_key(self.key), Watch::new());
        let began = Instant::now();
        let bound = self.bound();
        loop {
            // Before it is asked: what is written after that is heard of.
            let written = core.fence().watch(&stored);
            let Claim { answer, right } = self.in_time(self.claimed::<T>(Lease::of(life))).await?;
            let found = self.found(answer);
            let left = match (right, found) {
                (Right::Granted(ticket), found) => {
                    let stale = match found {
                        Asked::Stale(stale) => Some(stale),
                        _ => None,
                    };
                    let stale = stale.and_then(|stale| self.offered(lead, stale));
                    let held = Held::new(self.cache, self.key, &ticket, life);
                    return Ok(Asked::Granted(ticket, stale, held));
                }
                (Right::NotNeeded, found) => return Ok(found),
                (
                    Right::Held(_),
                    found @ (Asked::Fresh(..) | Asked::Rearmed(_) | Asked::Failed(_)),
                ) => {
                    return Ok(found);
                }
                (Right::Held(left), Asked::Stale(stale)) => {
                    let Some(stale) = self.offered(lead, stale) else {
                        if !watch.look(written, left, bound).await {
                            return Ok(Asked::Nothing);
                        }
                        continue;
                    };
                    let soft = self.soft().map(|soft| began + soft.min(MAX_WAIT));
                    let until = soft.map_or(bound, |soft| soft.min(bound));
                    if !watch.look(written, left, until).await {
                        return Ok(Asked::Rearmed(stale.value));
                    }
                    continue;
                }
                (Right::Held(left), _) => left,
            };
            if !watch.look(written, left, bound).await {
                // It is computed here too, and stored by whoever is first.
                return Ok(Asked::Nothing);
            }
        }
    }

    pub(super) async fn claimed<T: Cacheable>(&self, lease: Lease) -> Result<Claim> {
        let (cache, core) = (self.cache, self.cache.core());
        let before = before(cache, self.key);
        let claim = async {
            let want = wanted::<T, C>(cache).or_stale();
            let mut claims = cache.claim(&[self.key], want, lease).await;
            let none = || Err(self.error(ErrorKind::Unavailable, "the store answered nothing"));
            claims.pop().unwrap_or_else(none)
        };
        let mut claimed = bounded(core, claim).await.map_err(|error| {
            count(&core.counters().read_errors);
            error.during("get_or_set").with("key", self.key)
        })?;
        if let Right::Granted(ticket) = &mut claimed.right {
            ticket.before = before;
        }
        Ok(claimed)
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
        Terms {
            patience: self.cache.core().settings().leader_patience,
            takes_stale: self.takes_stale(),
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
                Seat::Full(None) => {
                    let why = "as many callers as may wait for another's compute of this key";
                    return Err(self.busy(why));
                }
            };
            match outcome {
                Outcome::Lead(lead) => return Ok(Ok(lead)),
                Outcome::Landed(Landing { value, stale }) => match value.downcast::<T>() {
                    Ok(value) => {
                        count(&core.counters().coalesced);
                        self.told(if stale { Source::Stale } else { Source::Joined });
                        return Ok(Err(value));
                    }
                    Err(other) => {
                        if let Some(failure) = Failure::in_object(&other) {
                            count(&core.counters().coalesced);
                            return Err(self.failed(failure));
                        }
                    }
                },
                Outcome::Rejoin => {}
                Outcome::Failed(text) => return Err(self.error(ErrorKind::Compute, &text)),
                Outcome::TimedOut if self.until.is_some_and(|until| until <= Instant::now()) => {
                    return Err(self.too_late());
                }
                Outcome::TimedOut => {
                    let why = "two computes of other callers did not finish";
                    return Err(self.error(ErrorKind::Timeout, why));
                }
            }
        }
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
            Asked::Nothing
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
