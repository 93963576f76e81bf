//! Many keys at a time.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::cache::Cache;
use crate::cache::publish::{Made, computed, concluded};
use crate::cache::single::{
    Look, begun, bounded, checked, draft, look, settle_deadline, typed, wanted,
};
use crate::core::Core;
use crate::entry::{Draft, Stored, Ticket, When};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Write;
use crate::flight::{
    Landing, Lead, Outcome, Seat, Storing, Tags, Terms, Waiter, Writing, unless_overtaken,
};
use crate::options::Options;
use crate::stats::count;
use crate::value::Cacheable;

type Found<T> = HashMap<String, Arc<T>, ahash::RandomState>;

pub(super) async fn get<T: Cacheable, C: Cache>(
    cache: &C,
    keys: &[&str],
) -> Result<Vec<Option<Arc<T>>>> {
    let core = cache.core();
    let mut values = Vec::with_capacity(keys.len());
    let mut asked = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let value = match look(cache, key, || false) {
            Look::Hit(value, _) | Look::Rearmed(value) => Some(value),
            Look::Miss => {
                checked(cache, key, "get_many")?;
                core.counters().misses.add(1);
                None
            }
            Look::Ask => {
                checked(cache, key, "get_many")?;
                asked.push(index);
                None
            }
        };
        values.push(value);
    }
    if asked.len() == keys.len() {
        return fetch(cache, keys, "get_many").await;
    }
    let wanted: Vec<&str> = asked.iter().map(|&index| keys[index]).collect();
    for (index, answer) in asked
        .into_iter()
        .zip(fetch(cache, &wanted, "get_many").await?)
    {
        values[index] = answer;
    }
    Ok(values)
}

/// Asks the store. A key that it cannot answer for is `None` and counted; in a strict cache it is an error.
async fn fetch<T: Cacheable, C: Cache>(
    cache: &C,
    keys: &[&str],
    operation: &'static str,
) -> Result<Vec<Option<Arc<T>>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let core = cache.core();
    let mut values = Vec::with_capacity(keys.len());
    let asked = cache.fetch_many(keys, wanted::<T, C>(cache));
    let answers = bounded_many(core, keys.len(), asked).await;
    for (key, answer) in keys.iter().zip(answers) {
        values.push(match answer {
            Ok(answer) => typed(cache, key, answer),
            Err(error) => {
                count(&core.counters().read_errors);
                let error = error.during(operation).with("key", key);
                if core.settings().strict {
                    return Err(error);
                }
                tracing::warn!(target: "larder", event = "read_failed", error = %error);
                None
            }
        });
    }
    Ok(values)
}

/// Runs one call for `keys` keys within the bound on it. Past the bound each key has the error for its answer.
async fn bounded_many<R: Send>(
    core: &Core,
    keys: usize,
    call: impl Future<Output = Vec<Result<R>>> + Send,
) -> Vec<Result<R>> {
    match bounded(core, async { Ok(call.await) }).await {
        Ok(answers) => answers,
        Err(error) => (0..keys).map(|_| Err(error.clone())).collect(),
    }
}

pub(super) async fn set<T: Cacheable, C: Cache>(
    cache: &C,
    pairs: Vec<(String, T)>,
    options: Options,
) -> Result<()> {
    let core = cache.core();
    let options = options.over(&core.settings().options);
    let mut drafts = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        checked(cache, &key, "set_many")?;
        let draft = draft(cache, &key, value, &options, When::Always)
            .map_err(|error| error.during("set_many").with("key", &key))?;
        drafts.push((key, draft));
    }
    let stored: Vec<String> = drafts
        .iter()
        .map(|(key, _)| cache.stored_key(key).into_owned())
        .collect();
    let _writes = fence_all(cache, &stored).await;
    let answers = bounded_many(core, stored.len(), cache.store_many(drafts)).await;
    core.counters()
        .stores
        .fetch_add(answers.len() as u64, std::sync::atomic::Ordering::Relaxed);
    all_of(cache, answers, "set_many").map(|_| ())
}

pub(super) async fn delete<C: Cache>(cache: &C, keys: Vec<&str>) -> Result<u64> {
    let core = cache.core();
    for key in &keys {
        checked(cache, key, "delete_many")?;
    }
    let stored: Vec<String> = keys
        .iter()
        .map(|key| cache.stored_key(key).into_owned())
        .collect();
    let _writes = fence_all(cache, &stored).await;
    let answers = bounded_many(core, keys.len(), cache.remove_many(&keys)).await;
    core.counters()
        .deletes
        .fetch_add(answers.len() as u64, std::sync::atomic::Ordering::Relaxed);
    let removed = all_of(cache, answers, "delete_many")?;
    Ok(removed.into_iter().filter(|removed| *removed).count() as u64)
}

/// Fences the writes of many keys, as for one.
async fn fence_all<'c, C: Cache>(cache: &'c C, stored: &'c [String]) -> Vec<(Write<'c>, Writing)> {
    let core = cache.core();
    let fence = |key: &'c String| {
        let writing = core.flights().write(key);
        (core.fence().write(key), writing)
    };
    let mut writes: Vec<_> = stored.iter().map(fence).collect();
    // Together they are waited for no longer than one.
    let deadline = settle_deadline(core);
    for (_, writing) in &mut writes {
        writing.settled(deadline).await;
    }
    writes
}

/// All answers, or an error that tells how many failed, with the first as its cause.
fn all_of<R, C: Cache>(
    cache: &C,
    answers: Vec<Result<R>>,
    operation: &'static str,
) -> Result<Vec<R>> {
    let total = answers.len();
    let (mut done, mut failed, mut first) = (Vec::with_capacity(total), 0_u64, None);
    for answer in answers {
        match answer {
            Ok(answer) => done.push(answer),
            Err(error) => {
                count(&cache.core().counters().write_errors);
                failed += 1;
                first.get_or_insert(error);
            }
        }
    }
    match first {
        None => Ok(done),
        Some(error) => Err(
            Error::new(ErrorKind::Partial, "some keys failed, the others are done")
                .during(operation)
                .with("failed", failed)
                .with("of", total)
                .with("first", &error)
                .caused_by(error),
        ),
    }
}

pub(super) async fn get_or_set<C, T, F, Fut>(
    cache: &C,
    keys: Vec<&str>,
    options: Options,
    mut compute: F,
) -> Result<Vec<Option<T>>>
where
    C: Cache,
    T: Cacheable,
    F: FnMut(Vec<String>) -> Fut + Send,
    Fut: Future<Output = HashMap<String, T>> + Send,
{
    let options = options.over(&cache.core().settings().options);
    let mut found = Found::<T>::default();
    let mut open = keys.clone();
    // Its own misses, then those that others lost while it waited.
    for _ in 0..2 {
        let mut round = Round::take(cache, &open, &mut found)?;
        let tags = Tags::These(options.tags.as_slice().into());
        round
            .leads
            .values()
            .for_each(|lead| lead.expect(tags.clone()));
        round.ask(cache, &mut found).await?;
        if round.wants_compute() {
            round
                .compute(cache, &options, &mut compute, &mut found)
                .await?;
        }
        let lost = round.wait(cache, &mut found).await;
        open.retain(|key| lost.iter().any(|lost| lost == key));
        if open.is_empty() {
            break;
        }
    }
    Ok(keys
        .iter()
        .map(|key| found.get(*key).map(|value| T::clone(value)))
        .collect())
}

/// The keys of one call that are not answered yet.
struct Round {
    /// This call computes them.
    leads: HashMap<String, Lead, ahash::RandomState>,
    /// Another call does.
    waiters: Vec<(String, Waiter)>,
    /// Nobody coordinates them: keys that cannot be cached, and those whose other computes failed.
    alone: Vec<String>,
}

impl Round {
    fn empty() -> Self {
        Self {
            leads: HashMap::default(),
            waiters: Vec::new(),
            alone: Vec::new(),
        }
    }

    fn take<T: Cacheable, C: Cache>(
        cache: &C,
        keys: &[&str],
        found: &mut Found<T>,
    ) -> Result<Self> {
        let core = cache.core();
        let terms = Terms::patient(core.settings().leader_patience);
        let mut round = Self::empty();
        let mut seen = std::collections::HashSet::with_hasher(ahash::RandomState::new());
        for &key in keys.iter().filter(|key| seen.insert(**key)) {
            if let Look::Hit(value, _) = look(cache, key, || false) {
                found.insert(key.to_owned(), value);
                continue;
            }
            if let Err(error) = checked(cache, key, "get_or_set_many") {
                if core.settings().strict {
                    return Err(error);
                }
                tracing::warn!(target: "larder", event = "bad_key", error = %error);
                round.alone.push(key.to_owned());
                continue;
            }
            let stored = cache.stored_key(key);
            match core.flights().join(&stored, TypeId::of::<T>(), &terms) {
                Seat::Lead(lead) => {
                    round.leads.insert(key.to_owned(), lead);
                }
                Seat::Wait(waiter) => round.waiters.push((key.to_owned(), waiter)),
                Seat::Full(_) => round.alone.push(key.to_owned()),
            }
        }
        Ok(round)
    }

    /// Finds what is stored by now for the keys that this call leads.
    async fn ask<T: Cacheable, C: Cache>(&mut self, cache: &C, found: &mut Found<T>) -> Result<()> {
        let keys: Vec<String> = self.leads.keys().cloned().collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut asked = Vec::new();
        for key in keys {
            match look(cache, key, || false) {
                Look::Hit(value, _) | Look::Rearmed(value) => self.found(key, value, found),
                Look::Miss => cache.core().counters().misses.add(1),
                Look::Ask => asked.push(key),
            }
        }
        for (key, value) in asked
            .iter()
            .zip(fetch(cache, &asked, "get_or_set_many").await?)
        {
            if let Some(value) = value {
                self.found(key, value, found);
            }
        }
        Ok(())
    }

    fn found<T: Cacheable>(&mut self, key: &str, value: Arc<T>, found: &mut Found<T>) {
        if let Some(lead) = self.leads.remove(key) {
            lead.found(Landing::of(Arc::clone(&value) as _));
        }
        found.insert(key.to_owned(), value);
    }

    fn wants_compute(&self) -> bool {
        !self.leads.is_empty() || !self.alone.is_empty()
    }

    /// How things stand with the keys that this call computes.
    async fn begun<C: Cache>(&self, cache: &C) -> HashMap<String, Ticket> {
        let keys: Vec<&str> = self.leads.keys().map(String::as_str).collect();
        if keys.is_empty() {
            return HashMap::new();
        }
        let tickets = begun(cache, &keys).await;
        let keys = keys.iter().map(ToString::to_string);
        keys.zip(tickets).collect()
    }

    /// Computes what this call is to compute, publishes it, and stores it.
    async fn compute<T, C, F, Fut>(
        &mut self,
        cache: &C,
        options: &Options,
        compute: &mut F,
        found: &mut Found<T>,
    ) -> Result<()>
    where
        C: Cache,
        T: Cacheable,
        F: FnMut(Vec<String>) -> Fut + Send,
        Fut: Future<Output = HashMap<String, T>> + Send,
    {
        let core = cache.core();
        let mut tickets = self.begun(cache).await;
        let keys: Vec<String> = self.leads.keys().chain(&self.alone).cloned().collect();
        self.alone.clear();
        count(&core.counters().computes);
        let began = core.now();
        let values = compute(keys).await;
        let took = core.now().since(began);
        let (mut landed, mut outcome) = (Vec::new(), Ok(()));
        for (key, value) in values {
            let value = Arc::new(value);
            if let Some(lead) = self.leads.remove(&key) {
                let made = Made {
                    value: &value,
                    options,
                    took,
                    ticket: tickets.remove(&key).unwrap_or_default(),
                };
                let draft = computed(cache, &key, made);
                match (lead.land(Landing::of(Arc::clone(&value) as _)), draft) {
                    (Some(storing), Ok(draft)) => landed.push((key.clone(), draft, storing)),
                    (None, _) => count(&core.counters().outrun),
                    (Some(_), Err(error)) => outcome = outcome.and(Err(error)),
                }
            }
            found.insert(key, value);
        }
        // Keys that the compute left out: whoever waits for one computes it.
        self.leads.clear();
        let now = core.now();
        landed.retain(|(_, draft, _): &(_, Draft, _)| !draft.entry.is_expired(now));
        outcome = outcome.and(store(cache, landed).await);
        if core.settings().strict {
            outcome
        } else {
            Ok(())
        }
    }

    /// Waits for what others compute, for all keys at once. What they lost is for another round: a lead that falls to
    /// this call meanwhile is passed on, since nobody may wait for others while others wait for it.
    async fn wait<T: Cacheable, C: Cache>(self, cache: &C, found: &mut Found<T>) -> Vec<String> {
        let core = cache.core();
        let terms = Terms::patient(core.settings().leader_patience);
        let waits = self.waiters.into_iter().map(|(key, waiter)| async move {
            let value = match waiter.wait(terms).await {
                Outcome::Landed(landed) => landed.value.downcast::<T>().ok(),
                Outcome::Lead(_) | Outcome::Rejoin | Outcome::Failed(_) | Outcome::TimedOut => None,
            };
            (key, value)
        });
        let mut lost = Vec::new();
        for (key, value) in join_all(waits).await {
            match value {
                Some(value) => {
                    count(&core.counters().coalesced);
                    found.insert(key, value);
                }
                None => lost.push(key),
            }
        }
        lost
    }
}

async fn store<C: Cache>(cache: &C, landed: Vec<(String, Draft, Storing)>) -> Result<()> {
    let core = cache.core();
    let stored: Vec<String> = landed
        .iter()
        .map(|(key, ..)| cache.stored_key(key).into_owned())
        .collect();
    let writes: Vec<_> = stored.iter().map(|key| core.fence().write(key)).collect();
    let (mut drafts, mut storings) = (Vec::new(), Vec::new());
    for (key, draft, storing) in landed {
        drafts.push((key.clone(), draft.clone()));
        storings.push((key, draft, storing));
    }
    if drafts.is_empty() {
        return Ok(());
    }
    let call = async { Ok(cache.store_many(drafts).await) };
    let held = storings.iter().map(|(.., storing)| storing);
    let answers = match unless_overtaken(held, bounded(core, call)).await {
        Some(Ok(answers)) => answers,
        Some(Err(error)) => storings.iter().map(|_| Err(error.clone())).collect(),
        // Of one call the rest cannot be told apart: no key of it is stored.
        None => storings.iter().map(|_| Ok(Stored::Done)).collect(),
    };
    drop(writes);
    let mut outcome = Ok(());
    for (((key, draft, storing), stored), answer) in storings.iter().zip(&stored).zip(answers) {
        let result = concluded(cache, key, stored, draft, storing, answer).await;
        outcome = outcome.and(result);
    }
    if core.settings().strict {
        outcome
    } else {
        Ok(())
    }
}
