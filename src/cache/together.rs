//! Many keys at a time, computed together where nothing is stored.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::bulk::bounded_many;
use crate::cache::call::{Asked, Call, Led, Stale};
use crate::cache::compute::{Failed, fallen, run, turn};
use crate::cache::lease::{Held, Watch};
use crate::cache::publish::{Made, computed, concluded};
use crate::cache::single::{begun, begun_without, bounded, checked, wanted};
use crate::context::{Context, Contexts};
use crate::entry::{Claim, Draft, Lease, Right, Stored, Ticket};
use crate::error::Error;

use crate::flight::{Landing, Lead, Outcome, Seat, Storing, Tags, Waiter, unless_overtaken};
use crate::options::Options;
use crate::report::Source;
use crate::stats::count;
use crate::value::{Cacheable, Failure};

type Result<T, E = Error> = std::result::Result<T, E>;

/// What a call of many keys has found so far.
type Answers<T, E> = HashMap<String, Result<Arc<T>, E>, ahash::RandomState>;

/// One call of many keys.
struct Calls<'c, C> {
    cache: &'c C,
    options: Options,
    until: Option<Instant>,
}

impl<C: Cache> Calls<'_, C> {
    /// The same for one key alone.
    fn of<'k>(&'k self, key: &'k str) -> Call<'k, C> {
        Call {
            cache: self.cache,
            key,
            options: self.options.clone(),
            until: self.until,
        }
    }
}

/// The values under many keys, in the order asked, those that are missing computed together. Nothing for a key that the compute
/// left out.
pub(super) async fn get_or_set<C, T, E, F, Fut>(
    cache: &C,
    keys: Vec<&str>,
    options: Options,
    mut compute: F,
) -> Result<Vec<Option<Result<Arc<T>, E>>>>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send,
    F: FnMut(Vec<String>, Contexts) -> Fut + Send,
    Fut: Future<Output = HashMap<String, Result<T, E>>> + Send,
{
    let Call { options, until, .. } = Call::new(cache, "", options);
    let calls = Calls {
        cache,
        options,
        until,
    };
    let mut answers = Answers::<T, E>::default();
    let (mut open, mut led) = (keys.clone(), HashMap::default());
    // Its own misses, then those that others lost while it waited.
    for _ in 0..2 {
        let mut round = Round::take(&calls, &open, &mut answers)?;
        round.ask(&calls, &mut answers).await?;
        round.led.extend(std::mem::take(&mut led));
        round.compute(&calls, &mut compute, &mut answers).await?;
        let lost = round.wait(&calls, &mut answers, &mut led).await;
        open.retain(|key| lost.iter().any(|lost| lost == key));
        if open.is_empty() && led.is_empty() {
            break;
        }
    }
    if !led.is_empty() {
        let mut last = Round::of(led);
        last.compute(&calls, &mut compute, &mut answers).await?;
    }
    let answers = keys.iter().map(|key| match answers.get(*key)? {
        Ok(value) => Some(Ok(Arc::clone(value))),
        // Of a key that was asked for twice it is told once.
        Err(_) => answers.remove(*key),
    });
    Ok(answers.collect())
}

/// The keys of one call that are not answered yet.
struct Round<T> {
    /// To be asked for.
    leads: HashMap<String, Lead, ahash::RandomState>,
    /// This call computes them.
    led: HashMap<String, Led<T>, ahash::RandomState>,
    /// Another process does.
    elsewhere: Vec<(String, Lead, Option<Stale<T>>, Duration)>,
    /// Another call of this process does.
    waiters: Vec<(String, Waiter)>,
    /// Nobody coordinates them: keys that cannot be cached.
    alone: Vec<String>,
}

impl<T: Cacheable> Round<T> {
    fn of(led: HashMap<String, Led<T>, ahash::RandomState>) -> Self {
        Self {
            leads: HashMap::default(),
            led,
            elsewhere: Vec::new(),
            waiters: Vec::new(),
            alone: Vec::new(),
        }
    }

    fn take<C: Cache, E: From<Error>>(
        calls: &Calls<'_, C>,
        keys: &[&str],
        answers: &mut Answers<T, E>,
    ) -> Result<Self> {
        let (cache, core) = (calls.cache, calls.cache.core());
        let mut round = Self::of(HashMap::default());
        let tags = Tags::These(calls.options.tags.as_slice().into());
        let mut seen = HashSet::with_hasher(ahash::RandomState::new());
        for &key in keys.iter().filter(|key| seen.insert(**key)) {
            let call = calls.of(key);
            match call.in_memory::<T>() {
                Some(Asked::Fresh(value, _, source)) => {
                    call.told(source);
                    answers.insert(key.to_owned(), Ok(value));
                    continue;
                }
                Some(Asked::Rearmed(value)) => {
                    call.told(Source::Stale);
                    answers.insert(key.to_owned(), Ok(value));
                    continue;
                }
                _ => {}
            }
            if let Err(error) = checked(cache, key, "get_or_set_many") {
                if core.settings().strict {
                    return Err(error);
                }
                tracing::warn!(target: "larder", event = "bad_key", error = %error);
                round.alone.push(key.to_owned());
                continue;
            }
            let (stored, terms) = (cache.stored_key(key), call.terms());
            match core.flights().join(&stored, TypeId::of::<T>(), &terms) {
                Seat::Lead(lead) => {
                    lead.expect(tags.clone());
                    round.leads.insert(key.to_owned(), lead);
                }
                Seat::Wait(waiter) => round.waiters.push((key.to_owned(), waiter)),
                Seat::Full(stale) => {
                    let stale = stale.and_then(|stale| stale.value.downcast::<T>().ok());
                    let answer = stale.ok_or_else(|| E::from(call.busy("too many callers wait")));
                    if answer.is_ok() {
                        call.told(Source::Stale);
                    }
                    answers.insert(key.to_owned(), answer);
                }
            }
        }
        Ok(round)
    }

    /// Finds what is stored by now for the keys that this call leads, and how things stand with the others.
    async fn ask<C: Cache, E: From<Error>>(
        &mut self,
        calls: &Calls<'_, C>,
        answers: &mut Answers<T, E>,
    ) -> Result<()> {
        let leads: Vec<(String, Lead)> = self.leads.drain().collect();
        if leads.is_empty() {
            return Ok(());
        }
        let (cache, core) = (calls.cache, calls.cache.core());
        let keys: Vec<&str> = leads.iter().map(|(key, _)| key.as_str()).collect();
        let any = calls.of(keys[0]);
        let claims = match any.leased() {
            Some(life) => self::claim::<T, C>(calls, &keys, life).await,
            None => {
                let fetched = cache.fetch_many(&keys, any.want::<T>());
                let fetched = async { Ok(bounded_many(core, keys.len(), fetched).await) };
                let answers = match any.in_time(fetched).await {
                    Ok(answers) => answers,
                    Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
                };
                let claim = |answer: Result<_>| answer.map(|answer| (answer, None));
                answers.into_iter().map(claim).collect()
            }
        };
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        let (mut begin, mut strict) = (Vec::new(), None);
        for ((key, (_, lead)), claim) in keys.into_iter().zip(leads).zip(claims) {
            let call = calls.of(&key);
            let (answer, right) = match claim {
                Ok(claim) => claim,
                Err(error) => {
                    count(&core.counters().read_errors);
                    let error = error.during("get_or_set_many").with("key", &key);
                    if core.settings().strict {
                        strict.get_or_insert(error);
                        continue;
                    }
                    tracing::warn!(target: "larder", event = "read_failed", error = %error);
                    let ticket = begun_without(cache, &key, error);
                    self.lead(key, lead, ticket, None, None);
                    continue;
                }
            };
            let stale = match call.found::<T>(answer) {
                Asked::Fresh(value, _, source) => {
                    lead.found(Landing::of(Arc::clone(&value) as _));
                    call.told(source);
                    answers.insert(key, Ok(value));
                    continue;
                }
                Asked::Rearmed(value) => {
                    lead.found(Landing::stale(Arc::clone(&value) as _));
                    call.told(Source::Stale);
                    answers.insert(key, Ok(value));
                    continue;
                }
                Asked::Failed(failure) => {
                    let error = call.failed(&failure);
                    lead.found(Landing::of(failure as _));
                    answers.insert(key, Err(error.into()));
                    continue;
                }
                Asked::Stale(stale) => call.offered(&lead, stale),
                Asked::Nothing | Asked::Granted(..) => None,
            };
            match right {
                Some((Right::Granted(ticket), life)) => {
                    let held = Held::new(cache, &key, &ticket, life);
                    self.lead(key, lead, ticket, stale, Some(held));
                }
                Some((Right::Held(left), _)) => self.elsewhere.push((key, lead, stale, left)),
                Some((Right::NotNeeded, _)) | None => begin.push((key, lead, stale)),
            }
        }
        match strict {
            Some(error) => Err(error),
            None => {
                self.begin(calls, begin).await;
                Ok(())
            }
        }
    }

    fn lead(
        &mut self,
        key: String,
        lead: Lead,
        ticket: Ticket,
        stale: Option<Stale<T>>,
        held: Option<Held>,
    ) {
        let led = Led {
            lead,
            ticket,
            hands: false,
            stale,
            held,
        };
        self.led.insert(key, led);
    }

    /// Notes how things stand with keys that this call computes.
    async fn begin<C: Cache>(
        &mut self,
        calls: &Calls<'_, C>,
        begin: Vec<(String, Lead, Option<Stale<T>>)>,
    ) {
        let keys: Vec<&str> = begin.iter().map(|(key, ..)| key.as_str()).collect();
        if keys.is_empty() {
            return;
        }
        let tickets = begun(calls.cache, &keys).await;
        for ((key, lead, stale), ticket) in begin.into_iter().zip(tickets) {
            // Read once more: what it was before that may have been invalidated in between, and must not come back.
            let call = calls.of(&key);
            let stale = match stale {
                Some(_) => match call.in_time(call.ask::<T>()).await {
                    Ok(Asked::Stale(stale)) => Some(stale),
                    _ => None,
                },
                None => None,
            };
            self.lead(key, lead, ticket, stale, None);
        }
    }

    /// Computes what this call is to compute, publishes it, and stores it.
    async fn compute<C, E, F, Fut>(
        &mut self,
        calls: &Calls<'_, C>,
        compute: &mut F,
        answers: &mut Answers<T, E>,
    ) -> Result<()>
    where
        C: Cache,
        E: From<Error> + Debug + Send,
        F: FnMut(Vec<String>, Contexts) -> Fut + Send,
        Fut: Future<Output = HashMap<String, Result<T, E>>> + Send,
    {
        let keys: Vec<String> = self.led.keys().chain(&self.alone).cloned().collect();
        if keys.is_empty() {
            return Ok(());
        }
        let (cache, core) = (calls.cache, calls.cache.core());
        let contexts = keys.iter().map(|key| {
            let stale = self.led.get(key).and_then(|led| led.stale.as_ref());
            let previous = stale.map(|stale| stale.entry.clone());
            (key.clone(), Context::new(calls.options.clone(), previous))
        });
        let contexts = Contexts::new(contexts.collect());
        let turn = turn(core, calls.until).await;
        let began = core.now();
        let values = match &turn {
            Some(_turn) => {
                count(&core.counters().computes);
                let given = contexts.clone();
                let compute = || async { Ok::<_, E>(compute(keys, given).await) };
                run(compute, calls.until).await
            }
            None => Err(Failed::Busy),
        };
        drop(turn);
        let took = core.now().since(began);
        let values = match values {
            Ok(values) => values,
            Err(failed) => {
                self.alone.clear();
                self.fall(calls, failed, answers).await;
                return Ok(());
            }
        };
        let (mut landed, mut outcome) = (Vec::new(), Ok(()));
        for (key, value) in values {
            let (led, context) = (self.led.remove(&key), contexts.of(&key));
            let (Some(led), Some(context)) = (led, context) else {
                answers.insert(key, value.map(Arc::new));
                continue;
            };
            let options = context.options();
            let value = match value {
                Ok(value) => Arc::new(value),
                Err(error) => {
                    let failed = Failed::Erred(error);
                    let stale = fallen(cache, &key, led, failed.why(), &options, calls.until).await;
                    let answer = self::fell(calls, &key, failed, stale);
                    answers.insert(key, answer);
                    continue;
                }
            };
            let landing = Landing::of(Arc::clone(&value) as _);
            if context.is_stored() {
                let made = Made {
                    value: &value,
                    options: &options,
                    took,
                    ticket: led.ticket,
                };
                let draft = computed(cache, &key, made);
                match (led.lead.land(landing), draft) {
                    (Some(storing), Ok(draft)) => {
                        landed.push((key.clone(), draft, storing, led.held));
                    }
                    (None, _) => count(&core.counters().outrun),
                    (Some(_), Err(error)) => outcome = outcome.and(Err(error)),
                }
            } else {
                led.lead.found(landing);
            }
            calls.of(&key).told(Source::Computed);
            answers.insert(key, Ok(value));
        }
        // Keys that the compute left out: whoever waits for one computes it.
        self.led.clear();
        self.alone.clear();
        let now = core.now();
        landed.retain(|(_, draft, ..)| !draft.entry.is_expired(now));
        outcome = outcome.and(store(cache, landed).await);
        if core.settings().strict {
            outcome
        } else {
            Ok(())
        }
    }

    /// No value came of the compute: what is stale is answered, where it is.
    async fn fall<C, E>(
        &mut self,
        calls: &Calls<'_, C>,
        failed: Failed<E>,
        answers: &mut Answers<T, E>,
    ) where
        C: Cache,
        E: From<Error> + Debug + Send,
    {
        let (mut unanswered, why) = (false, failed.why());
        for (key, led) in std::mem::take(&mut self.led) {
            let (cache, options) = (calls.cache, &calls.options);
            let stale = fallen(cache, &key, led, why.clone(), options, calls.until).await;
            unanswered |= stale.is_none();
            let again = match failed {
                Failed::Late => Failed::Late,
                _ => Failed::Busy,
            };
            let answer = self::fell(calls, &key, again, stale);
            answers.insert(key, answer);
        }
        if let Failed::Panicked(panic) = failed
            && unanswered
        {
            resume_unwind(panic);
        }
    }

    /// Waits for what others compute, for all keys at once. What they lost is for another round: a lead that falls to
    /// this call meanwhile is passed on, since nobody may wait for others while others wait for it.
    async fn wait<C: Cache, E: From<Error> + Send>(
        self,
        calls: &Calls<'_, C>,
        answers: &mut Answers<T, E>,
        led: &mut HashMap<String, Led<T>, ahash::RandomState>,
    ) -> Vec<String> {
        let waits = self.waiters.into_iter().map(|(key, waiter)| async move {
            let outcome = match waiter.wait(calls.of(&key).terms()).await {
                // At once, not when all are done.
                Outcome::Lead(lead) => {
                    drop(lead);
                    Outcome::Rejoin
                }
                outcome => outcome,
            };
            (key, outcome)
        });
        let elsewhere = elsewhere(calls, self.elsewhere, led);
        let (outcomes, found) = futures_util::future::join(join_all(waits), elsewhere).await;
        for (key, answer) in found {
            answers.insert(key, answer.map_err(E::from));
        }
        let mut lost = Vec::new();
        for (key, outcome) in outcomes {
            let call = calls.of(&key);
            let landed = match outcome {
                Outcome::Landed(landed) => landed,
                Outcome::TimedOut if calls.until.is_some_and(|until| until <= Instant::now()) => {
                    let late = call.too_late();
                    answers.insert(key, Err(late.into()));
                    continue;
                }
                Outcome::Lead(_) | Outcome::Rejoin | Outcome::Failed(_) | Outcome::TimedOut => {
                    lost.push(key);
                    continue;
                }
            };
            let source = if landed.stale {
                Source::Stale
            } else {
                Source::Joined
            };
            let answer = match landed.value.downcast::<T>() {
                Ok(value) => Ok(value),
                Err(other) => match Failure::in_object(&other) {
                    Some(failure) => Err(call.failed(failure).into()),
                    None => {
                        lost.push(key);
                        continue;
                    }
                },
            };
            count(&calls.cache.core().counters().coalesced);
            if answer.is_ok() {
                call.told(source);
            }
            answers.insert(key, answer);
        }
        lost
    }
}

/// What a key comes to whose compute had no value.
fn fell<C: Cache, T, E: From<Error>>(
    calls: &Calls<'_, C>,
    key: &str,
    failed: Failed<E>,
    stale: Option<Arc<T>>,
) -> Result<Arc<T>, E> {
    let call = calls.of(key);
    match (stale, failed) {
        (Some(value), _) => {
            call.told(Source::Stale);
            Ok(value)
        }
        (None, Failed::Erred(error)) => Err(error),
        (None, Failed::Late) => Err(call.too_late().into()),
        (None, Failed::Busy | Failed::Panicked(_)) => Err(call
            .busy("as many computes of this cache run as may")
            .into()),
    }
}

/// What stands under keys, with who may compute each where they are leased for so long.
type Claims = Vec<Result<(crate::entry::Answer, Option<(Right, Duration)>)>>;

async fn claim<T: Cacheable, C: Cache>(
    calls: &Calls<'_, C>,
    keys: &[&str],
    life: Duration,
) -> Claims {
    let (cache, core) = (calls.cache, calls.cache.core());
    let want = wanted::<T, C>(cache).or_stale();
    let claims = cache.claim(keys, want, Lease::of(life));
    let claims = async { Ok(bounded_many(core, keys.len(), claims).await) };
    let first = keys.first().copied().unwrap_or_default();
    match calls.of(first).in_time(claims).await {
        Ok(claims) => claims
            .into_iter()
            .map(|claim| claim.map(|Claim { answer, right }| (answer, Some((right, life)))))
            .collect(),
        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Waits for what other processes compute. What they have lost is led by this call from then on.
async fn elsewhere<C: Cache, T: Cacheable>(
    calls: &Calls<'_, C>,
    mut waiting: Vec<(String, Lead, Option<Stale<T>>, Duration)>,
    led: &mut HashMap<String, Led<T>, ahash::RandomState>,
) -> Vec<(String, Result<Arc<T>>)> {
    let (cache, mut watch, mut answers) = (calls.cache, Watch::new(), Vec::new());
    let Some((first, ..)) = waiting.first() else {
        return answers;
    };
    let first = cache.stored_key(first).into_owned();
    let bound = calls.of("").bound();
    while let Some(left) = waiting.iter().map(|(.., left)| *left).min() {
        let written = cache.core().fence().watch(&first);
        let goes_on = watch.look(written, left, bound).await;
        let mut round = Round::<T>::of(HashMap::default());
        if !goes_on {
            let mut begin = Vec::new();
            for (key, lead, stale, _) in waiting {
                match stale {
                    Some(stale) => {
                        lead.found(Landing::stale(Arc::clone(&stale.value) as _));
                        calls.of(&key).told(Source::Stale);
                        answers.push((key, Ok(stale.value)));
                    }
                    // Computed here too, and stored by whoever is first.
                    None => begin.push((key, lead, None)),
                }
            }
            round.begin(calls, begin).await;
            led.extend(round.led);
            break;
        }
        round.leads = waiting
            .into_iter()
            .map(|(key, lead, ..)| (key, lead))
            .collect();
        let mut found = Answers::<T, Error>::default();
        // A strict cache has its errors from its first look.
        let _ = round.ask(calls, &mut found).await;
        answers.extend(found);
        led.extend(round.led);
        waiting = round.elsewhere;
    }
    answers
}

type Landed = (String, Draft, Storing, Option<Held>);

async fn store<C: Cache>(cache: &C, landed: Vec<Landed>) -> Result<()> {
    let core = cache.core();
    if landed.is_empty() {
        return Ok(());
    }
    let stored = landed
        .iter()
        .map(|(key, ..)| cache.stored_key(key).into_owned());
    let stored: Vec<String> = stored.collect();
    let writes: Vec<_> = stored.iter().map(|key| core.fence().write(key)).collect();
    let drafts = landed
        .iter()
        .map(|(key, draft, ..)| (key.clone(), draft.clone()));
    let drafts = drafts.collect();
    let call = async { Ok(cache.store_many(drafts).await) };
    let storings = landed.iter().map(|(_, _, storing, _)| storing);
    let answers = match unless_overtaken(storings, bounded(core, call)).await {
        Some(Ok(answers)) => answers,
        Some(Err(error)) => landed.iter().map(|_| Err(error.clone())).collect(),
        // Of one call the rest cannot be told apart: no key of it is stored.
        None => landed.iter().map(|_| Ok(Stored::Done)).collect(),
    };
    drop(writes);
    let mut outcome = Ok(());
    for (((key, draft, storing, held), stored), answer) in
        landed.into_iter().zip(&stored).zip(answers)
    {
        let is_stored = matches!(answer, Ok(Stored::Done));
        let result = concluded(cache, &key, stored, &draft, &storing, answer).await;
        if let Some(held) = held.filter(|_| is_stored) {
            held.done();
        }
        outcome = outcome.and(result);
    }
    if core.settings().strict {
        outcome
    } else {
        Ok(())
    }
}
