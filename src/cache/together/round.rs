//! The keys of one call that are not answered yet.

use std::any::TypeId;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use tokio::time::Instant;

use super::claims::{asked, found};
use super::elsewhere::{Elsewhere, Waits};
use super::{Answers, ByKey, Calls};
use crate::cache::Cache;
use crate::cache::call::{Asked, Call, Led, Stale, Standing};
use crate::cache::lease::Held;
use crate::cache::single::{begun, begun_without, checked};
use crate::entry::{Answer, Right, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Lead, Outcome, Seat, Tags, Waiter};
use crate::report::Source;
use crate::stats::count;
use crate::value::Cacheable;

pub(super) struct Round<T> {
    /// To be asked for.
    pub(super) leads: ByKey<Lead>,
    /// This call computes them.
    pub(super) led: ByKey<Led<T>>,
    /// Another process does.
    pub(super) elsewhere: Vec<Elsewhere<T>>,
    /// Another call of this process does.
    waiters: Vec<(String, Waiter)>,
    /// Nobody coordinates them: keys that cannot be cached.
    pub(super) alone: Vec<String>,
}

/// A key that this call computes, before it is noted how things stand.
pub(super) struct Begin {
    pub(super) key: String,
    pub(super) lead: Lead,
    /// Something past its life stands there: for this call, or for others.
    pub(super) stale: bool,
    pub(super) is_spared: bool,
}

impl Begin {
    /// The value past its life that stands there still, if there was one for this call.
    pub(super) async fn still<C: Cache, T: Cacheable>(
        &self,
        calls: &Calls<'_, C>,
    ) -> Option<Stale<T>> {
        match self.stale {
            true => calls.of(&self.key).stale_still(&self.lead).await,
            false => None,
        }
    }
}

impl<T: Cacheable> Round<T> {
    /// One that has nothing else to do than to compute these.
    pub(super) fn of(led: ByKey<Led<T>>) -> Self {
        Self {
            leads: ByKey::default(),
            led,
            elsewhere: Vec::new(),
            waiters: Vec::new(),
            alone: Vec::new(),
        }
    }

    /// One that has these to ask for.
    pub(super) fn asking(leads: ByKey<Lead>) -> Self {
        Self {
            leads,
            ..Self::of(ByKey::default())
        }
    }

    /// Looks into memory, and takes a seat in the flight of each key that is not there.
    pub(super) fn take<C: Cache, E: From<Error>>(
        calls: &Calls<'_, C>,
        keys: &[&str],
        answers: &mut Answers<T, E>,
    ) -> Result<Self> {
        let (cache, core) = (calls.cache, calls.cache.core());
        let mut round = Self::of(ByKey::default());
        let tags = Tags::These(calls.options.tags.as_slice().into());
        let mut seen = HashSet::with_hasher(ahash::RandomState::new());
        for &key in keys.iter().filter(|key| seen.insert(**key)) {
            let (call, own) = (calls.of(key), key.to_owned());
            match call.in_memory::<T>() {
                Some(Asked::Fresh(value, _, source)) => {
                    answers.found(calls, own, value, source);
                    continue;
                }
                Some(Asked::Rearmed(value)) => {
                    answers.found(calls, own, value, Source::Stale);
                    continue;
                }
                _ => {}
            }
            if let Err(error) = checked(cache, key, "get_or_set_many") {
                if core.settings().strict {
                    return Err(error);
                }
                tracing::warn!(target: "larder", event = "bad_key", error = %error);
                round.alone.push(own);
                continue;
            }
            let (stored, terms) = (cache.stored_key(key), call.terms());
            match core.flights().join(&stored, TypeId::of::<T>(), &terms) {
                Seat::Lead(lead) => {
                    lead.expect(tags.clone());
                    round.leads.insert(own, lead);
                }
                Seat::Wait(waiter) => round.waiters.push((own, waiter)),
                Seat::Full(stale) => {
                    let stale = stale.and_then(|stale| call.landed::<T>(stale));
                    let answer = stale.unwrap_or_else(|| Err(call.full()));
                    answers.insert(own, answer.map_err(E::from));
                }
            }
        }
        Ok(round)
    }

    /// Finds what is stored by now for the keys that this call leads, and how things stand with the others.
    pub(super) async fn ask<C: Cache, E: From<Error>>(
        &mut self,
        calls: &Calls<'_, C>,
        answers: &mut Answers<T, E>,
    ) -> Result<()> {
        let leads: Vec<(String, Lead)> = self.leads.drain().collect();
        let keys: Vec<&str> = leads.iter().map(|(key, _)| key.as_str()).collect();
        let since = Instant::now();
        let asked = asked::<T, C>(calls, &keys, false).await;
        let mut begin = Vec::new();
        let core = calls.cache.core();
        for ((key, lead), asked) in leads.into_iter().zip(asked) {
            match asked {
                Ok((answer, right)) => {
                    begin.extend(self.sort(calls, answers, (key, lead), answer, right, since));
                }
                Err(error) => {
                    count(&core.counters().read_errors);
                    let error = error.during("get_or_set_many").with("key", &key);
                    if core.settings().strict {
                        return Err(error);
                    }
                    tracing::warn!(target: "larder", event = "read_failed", error = %error);
                    let ticket = begun_without(calls.cache, &key, error);
                    self.lead(key, lead, ticket, false);
                }
            }
        }
        let begin = self.claim_anew(calls, answers, begin).await;
        self.begin(calls, begin).await;
        Ok(())
    }

    /// What becomes of a key under which this stands. The answer is a key that this call computes.
    fn sort<C: Cache, E: From<Error>>(
        &mut self,
        calls: &Calls<'_, C>,
        answers: &mut Answers<T, E>,
        (key, lead): (String, Lead),
        answer: Answer,
        right: Option<(Right, Duration)>,
        since: Instant,
    ) -> Option<Begin> {
        let (key, lead, found) = found(calls, answers, (key, lead), answer, &right)?;
        let is_spared = matches!(found, Asked::Passed);
        let stale = match found {
            Asked::Stale(stale) => calls.of(&key).offered(&lead, stale, since),
            _ => None,
        };
        let begin = Begin {
            key,
            lead,
            stale: stale.is_some(),
            is_spared,
        };
        self.settle(calls, begin, stale, right)
    }

    /// Who computes a key: this call, with a lease, or another process. The answer is one that this call computes without.
    pub(super) fn settle<C: Cache>(
        &mut self,
        calls: &Calls<'_, C>,
        begin: Begin,
        stale: Option<Stale<T>>,
        right: Option<(Right, Duration)>,
    ) -> Option<Begin> {
        match right {
            None | Some((Right::NotNeeded, _)) => return Some(begin),
            Some((Right::Granted(ticket), life)) => {
                let held = Held::new(calls.cache, &begin.key, &ticket, life);
                let led = self.lead(begin.key, begin.lead, ticket, begin.is_spared);
                (led.stale, led.held) = (stale, Some(held));
            }
            Some((Right::Held(left), _)) => self.elsewhere.push(Elsewhere {
                key: begin.key,
                lead: begin.lead,
                stale,
                is_spared: begin.is_spared,
                left,
            }),
        }
        None
    }

    pub(super) fn lead(
        &mut self,
        key: String,
        lead: Lead,
        ticket: Ticket,
        is_spared: bool,
    ) -> &mut Led<T> {
        let standing = Standing {
            is_spared,
            ..Standing::default()
        };
        let led = Led {
            lead,
            ticket,
            stale: None,
            held: None,
            standing,
        };
        self.led.entry(key).insert_entry(led).into_mut()
    }

    /// Notes how things stand with keys that this call computes.
    pub(super) async fn begin<C: Cache>(&mut self, calls: &Calls<'_, C>, begin: Vec<Begin>) {
        let keys: Vec<&str> = begin.iter().map(|begin| begin.key.as_str()).collect();
        if keys.is_empty() {
            return;
        }
        let tickets = begun(calls.cache, &keys).await;
        for (begin, ticket) in begin.into_iter().zip(tickets) {
            let stale = begin.still(calls).await;
            let Begin {
                key,
                lead,
                is_spared,
                ..
            } = begin;
            self.lead(key, lead, ticket, is_spared).stale = stale;
        }
    }

    /// Waits for what others compute, for all keys at once. What they lost is for another round: a lead that falls to
    /// this call meanwhile is passed on, since nobody may wait for others while others wait for it. The last round waits for all, and
    /// leads what falls to it.
    pub(super) async fn wait<C: Cache, E: From<Error> + Send>(
        self,
        calls: &Calls<'_, C>,
        answers: &mut Answers<T, E>,
        led: &mut ByKey<Led<T>>,
        last: bool,
    ) -> Result<Vec<String>> {
        let keys: Vec<String> = self.waiters.iter().map(|(key, _)| key.clone()).collect();
        let waits = self.waiters.into_iter().map(|(key, waiter)| async move {
            if last {
                return waited::<T, C>(calls, &key, waiter).await;
            }
            match waiter.wait(calls.of(&key).terms()).await {
                // At once, not when all are done.
                Outcome::Lead(lead) => {
                    drop(lead);
                    Outcome::Rejoin
                }
                outcome => outcome,
            }
        });
        let (waits, elsewhere) = (join_all(waits), Waits::new(calls, self.elsewhere).end(last));
        let (outcomes, ended) = match select(pin!(waits), pin!(elsewhere)).await {
            Either::Left((outcomes, elsewhere)) => (Some(outcomes), elsewhere.await),
            // Others wait for what this call leads now.
            Either::Right((Ok(ended), _)) if !last && !ended.led.is_empty() => (None, Ok(ended)),
            Either::Right((ended, waits)) => (Some(waits.await), ended),
        };
        let ended = ended?;
        for (key, answer) in ended.answers {
            answers.insert(key, answer.map_err(E::from));
        }
        led.extend(ended.led);
        // Their leads are passed on to whoever waits.
        let left = ended.left.into_iter().map(|left| left.key);
        let Some(outcomes) = outcomes else {
            return Ok(keys.into_iter().chain(left).collect());
        };
        let mut lost: Vec<String> = left.collect();
        let mut begin = Vec::new();
        for (key, outcome) in keys.into_iter().zip(outcomes) {
            match answered::<T, C>(&calls.of(&key), outcome, last) {
                Ok(Some(answer)) => answers.insert(key, answer.map_err(E::from)),
                Ok(None) => lost.push(key),
                Err(lead) => begin.push(Begin {
                    key,
                    lead,
                    stale: false,
                    is_spared: false,
                }),
            }
        }
        let mut own = Self::of(ByKey::default());
        own.begin(calls, begin).await;
        led.extend(own.led);
        Ok(lost)
    }
}

/// The answer that waiting for others came to, if it is none that was lost; or the lead that fell to this call.
fn answered<T: Cacheable, C: Cache>(
    call: &Call<'_, C>,
    outcome: Outcome,
    last: bool,
) -> Result<Option<Result<Arc<T>>>, Lead> {
    let late = || call.until.is_some_and(|until| until <= Instant::now());
    Ok(match outcome {
        Outcome::Landed(landing) => call.landed::<T>(landing),
        Outcome::Failed(text) => Some(Err(call.error(ErrorKind::Compute, &text))),
        Outcome::TimedOut if last || late() => Some(Err(call.timed_out())),
        Outcome::Lead(lead) => return Err(lead),
        Outcome::Rejoin | Outcome::TimedOut => None,
    })
}

/// Waits until there is an answer, or this call leads.
async fn waited<T: Cacheable, C: Cache>(
    calls: &Calls<'_, C>,
    key: &str,
    waiter: Waiter,
) -> Outcome {
    let (stored, terms) = (calls.cache.stored_key(key), calls.of(key).terms());
    let mut outcome = waiter.wait(terms).await;
    while let Outcome::Rejoin = outcome {
        let flights = calls.cache.core().flights();
        outcome = match flights.join(&stored, TypeId::of::<T>(), &terms) {
            Seat::Lead(lead) => Outcome::Lead(lead),
            Seat::Wait(waiter) => waiter.wait(terms).await,
            Seat::Full(Some(stale)) => Outcome::Landed(stale),
            // Whoever leads is waited for already.
            Seat::Full(None) => Outcome::TimedOut,
        };
    }
    outcome
}
