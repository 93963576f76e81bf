//! One call that computes where nothing is stored: how it gets to its answer, or to the right to compute it.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::ahead::Life;
use crate::cache::single::{
    Look, begun, begun_without, checked, fetched, look, typed_entry, wanted,
};
use crate::core::MAX_WAIT;
use crate::entry::{Entry, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Landing, Lead, Outcome, Seat, Tags, Terms};
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
    Lead(Led<T>),
    /// It computes for itself: the key cannot be cached.
    Alone,
}

/// The right to compute, and what is known by then.
pub(super) struct Led<T> {
    pub(super) lead: Lead,
    pub(super) ticket: Ticket,
    pub(super) stale: Option<Stale<T>>,
}

/// A value past its life.
#[derive(Clone)]
pub(super) struct Stale<T> {
    pub(super) value: Arc<T>,
    pub(super) entry: Entry,
}

/// What stands under a key.
enum Asked<T> {
    Fresh(Arc<T>, Life, Source),
    /// To be answered as it is: computing it anew failed a short while ago.
    Rearmed(Arc<T>),
    Stale(Stale<T>),
    Nothing,
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
        let (ticket, stale) = match self.in_time(self.ask::<T>()).await {
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
            Ok(Asked::Nothing) => (self.begun().await, None),
            Ok(Asked::Stale(stale)) => {
                lead.offer(Arc::clone(&stale.value) as _);
                (self.begun().await, Some(stale))
            }
            Err(error) if core.settings().strict => {
                lead.fail(&error.to_string());
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(target: "larder", event = "read_failed", error = %error);
                (begun_without(self.cache, self.key, error), None)
            }
        };
        Ok(Opened::Lead(Led {
            lead,
            ticket,
            stale,
        }))
    }

    pub(super) async fn begun(&self) -> Ticket {
        let begun = async { Ok(begun(self.cache, &[self.key]).await) };
        match self.in_time(begun).await {
            Ok(mut tickets) => tickets.pop().unwrap_or_default(),
            Err(error) => begun_without(self.cache, self.key, error),
        }
    }

    /// Ends with the call.
    async fn in_time<R>(&self, part: impl Future<Output = Result<R>> + Send) -> Result<R> {
        match self.until {
            None => part.await,
            Some(until) => match timeout_at(until, part).await {
                Ok(answer) => answer,
                Err(_) => Err(self.error(ErrorKind::Timeout, "the store took too long")),
            },
        }
    }

    /// The right to compute, or the value that another computed.
    async fn seat<T: Cacheable>(&self) -> Result<Result<Lead, Arc<T>>> {
        let core = self.cache.core();
        let stored = self.cache.stored_key(self.key);
        let terms = Terms {
            patience: core.settings().leader_patience,
            takes_stale: self.takes_stale(),
            soft: self.options.softly(),
            until: self.until,
        };
        loop {
            let waiter = match core.flights().join(
                &stored,
                TypeId::of::<T>(),
                terms.patience,
                terms.takes_stale,
            ) {
                Seat::Lead(lead) => return Ok(Ok(lead)),
                Seat::Wait(waiter) => waiter,
            };
            match waiter.wait(terms).await {
                Outcome::Lead(lead) => return Ok(Ok(lead)),
                Outcome::Landed(Landing { value, stale }) => {
                    if let Ok(value) = value.downcast::<T>() {
                        count(&core.counters().coalesced);
                        self.told(if stale { Source::Stale } else { Source::Joined });
                        return Ok(Err(value));
                    }
                }
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
    async fn ask<T: Cacheable>(&self) -> Result<Asked<T>> {
        let (cache, key) = (self.cache, self.key);
        let core = cache.core();
        let takes_stale = self.takes_stale();
        match look(cache, key, || takes_stale) {
            Look::Hit(value, life) => return Ok(Asked::Fresh(value, life, Source::Memory)),
            Look::Rearmed(value) => return Ok(Asked::Rearmed(value)),
            Look::Miss if !takes_stale => {
                core.counters().misses.add(1);
                return Ok(Asked::Nothing);
            }
            Look::Miss | Look::Ask => {}
        }
        let want = wanted::<T, C>(cache);
        let want = if takes_stale {
            want.or_stale()
        } else if self.options.refreshes() == RefreshAhead::Never {
            want
        } else {
            want.with_deadline()
        };
        let answer = fetched(cache, key, want).await.map_err(|error| {
            count(&core.counters().read_errors);
            error.during("get_or_set").with("key", key)
        })?;
        let Some((value, entry)) = typed_entry::<T, C>(cache, key, answer) else {
            return Ok(Asked::Nothing);
        };
        let now = core.now();
        Ok(if !takes_stale && !entry.is_live(now) {
            Asked::Nothing
        } else if entry.is_stale(now) {
            Asked::Stale(Stale { value, entry })
        } else if entry.is_rearmed() {
            Asked::Rearmed(value)
        } else {
            Asked::Fresh(value, Life::of(&entry), Source::Store)
        })
    }

    /// For how long the compute is waited for where a stale value is at hand.
    pub(super) fn soft(&self) -> Option<Duration> {
        self.options.softly().filter(|_| self.takes_stale())
    }
}
