//! `get_or_set`: one compute per key, whatever happens to the one who computes.

use std::any::TypeId;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::cache::Cache;
use crate::cache::single::{
    Look, begun, begun_without, bounded, check_tags, checked, fetched, life, look, namespace,
    typed, wanted,
};
use crate::entry::{Draft, Entry, Stored, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Lead, Outcome, Seat, Storing, Tags, unless_overtaken};
use crate::options::{Context, Options};
use crate::stats::count;
use crate::value::{Cacheable, Value};

/// The stored value or the computed one, with the waiting, leading and storing in between.
pub(super) async fn resolve<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    terms: Terms,
    compute: F,
) -> Result<Arc<T>, E>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let core = cache.core();
    if let Err(error) = checked(cache, key, "get_or_set") {
        // The application must go on: the value is computed, for this caller alone.
        if core.settings().strict {
            return Err(error.into());
        }
        tracing::warn!(target: "larder", event = "bad_key", error = %error);
        return compute().await.map(Arc::new);
    }
    let stored = cache.stored_key(key);
    let lead = match take_seat(cache, &stored).await? {
        Ok(lead) => lead,
        Err(value) => return Ok(value),
    };
    lead.expect(terms.tags());
    let ticket = match ask::<T, C>(cache, key).await {
        Ok(Some(value)) => {
            lead.found(Arc::clone(&value) as _);
            return Ok(value);
        }
        Ok(None) => begun(cache, &[key]).await.pop().unwrap_or_default(),
        Err(error) if core.settings().strict => {
            lead.fail(&error.to_string());
            return Err(error.into());
        }
        Err(error) => {
            tracing::warn!(target: "larder", event = "read_failed", error = %error);
            begun_without(cache, key, error)
        }
    };
    count(&core.counters().computes);
    let began = core.now();
    let value = match compute().await {
        Ok(value) => Arc::new(value),
        Err(error) => {
            count(&core.counters().compute_failures);
            lead.fail(&format!("{error:?}"));
            return Err(error);
        }
    };
    let took = core.now().since(began);
    let made = Made {
        value: &value,
        options: terms.options(),
        took,
        ticket,
    };
    match publish(cache, key, &stored, lead, made).await {
        Err(error) if core.settings().strict => Err(error.into()),
        _ => Ok(value),
    }
}

/// How a value is stored: as was said before, or as its compute says.
pub(super) enum Terms {
    Given(Options),
    Said(Context),
}

impl Terms {
    fn tags(&self) -> Tags {
        match self {
            Self::Given(options) => Tags::These(options.tags.as_slice().into()),
            Self::Said(_) => Tags::Any,
        }
    }

    fn options(self) -> Options {
        match self {
            Self::Given(options) => options,
            Self::Said(context) => context.options(),
        }
    }
}

/// The right to compute, or the value that another computed.
async fn take_seat<T: Cacheable, C: Cache>(
    cache: &C,
    stored: &str,
) -> Result<Result<Lead, Arc<T>>> {
    let core = cache.core();
    loop {
        let waiter =
            match core
                .flights()
                .join(stored, TypeId::of::<T>(), core.settings().leader_patience)
            {
                Seat::Lead(lead) => return Ok(Ok(lead)),
                Seat::Wait(waiter) => waiter,
            };
        match waiter.wait(core.settings().leader_patience).await {
            Outcome::Lead(lead) => return Ok(Ok(lead)),
            Outcome::Landed(value) => {
                if let Ok(value) = value.downcast::<T>() {
                    count(&core.counters().coalesced);
                    return Ok(Err(value));
                }
            }
            Outcome::Rejoin => {}
            Outcome::Failed(text) => {
                let error = Error::new(ErrorKind::Compute, &*text);
                return Err(error.during("get_or_set").with("key", stored));
            }
            Outcome::TimedOut => {
                let error = Error::new(
                    ErrorKind::Timeout,
                    "two computes of other callers did not finish",
                );
                return Err(error.during("get_or_set").with("key", stored));
            }
        }
    }
}

/// What memory or the store holds by now: it may have been stored between the caller's look and its seat.
async fn ask<T: Cacheable, C: Cache>(cache: &C, key: &str) -> Result<Option<Arc<T>>> {
    match look(cache, key) {
        Look::Hit(value) => return Ok(Some(value)),
        Look::Miss => {
            cache.core().counters().misses.add(1);
            return Ok(None);
        }
        Look::Ask => {}
    }
    match fetched(cache, key, wanted::<T, C>(cache)).await {
        Ok(answer) => Ok(typed(cache, key, answer)),
        Err(error) => {
            count(&cache.core().counters().read_errors);
            Err(error.during("get_or_set").with("key", key))
        }
    }
}

/// A computed value, and how it is to be stored.
pub(super) struct Made<'v, T> {
    pub(super) value: &'v Arc<T>,
    pub(super) options: Options,
    pub(super) took: Duration,
    pub(super) ticket: Ticket,
}

/// Draft of a computed value, prepared; what could not be is counted, logged, and not stored.
pub(super) fn computed<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    made: Made<'_, T>,
) -> Result<Draft> {
    let core = cache.core();
    let life = life(cache, made.options.ttl);
    let value = Value::shared(Arc::clone(made.value));
    let entry = Entry::new(value, core.now(), life).computed_in(made.took);
    let mut draft = Draft::from(entry);
    (draft.computed, draft.ticket) = (true, made.ticket);
    draft.namespace = namespace(cache);
    draft.tags = made.options.tags.as_slice().into();
    let prepared = check_tags(cache, &made.options).and_then(|()| cache.prepare(key, &mut draft));
    if let Err(error) = prepared {
        count(&core.counters().encode_errors);
        let error = error.during("get_or_set").with("key", key);
        tracing::warn!(target: "larder", event = "not_stored", error = %error);
        return Err(error);
    }
    Ok(draft)
}

/// Gives the value to those who wait, and stores it unless the key was written meanwhile.
async fn publish<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    stored: &str,
    lead: Lead,
    made: Made<'_, T>,
) -> Result<()> {
    let core = cache.core();
    let (value, life) = (Arc::clone(made.value), life(cache, made.options.ttl));
    let draft = computed(cache, key, made);
    let Some(storing) = lead.land(value as _) else {
        count(&core.counters().outrun);
        return Ok(());
    };
    let draft = draft?;
    let stake = draft.clone();
    if life.is_some_and(|life| life.is_zero()) {
        return Ok(());
    }
    let write = core.fence().write(stored);
    let store = unless_overtaken([&storing], bounded(core, cache.store(key, draft)));
    let result = store.await.unwrap_or(Ok(Stored::Done));
    drop(write);
    concluded(cache, key, stored, &stake, &storing, result).await
}

/// Runs a compute in a task of its own, which goes on if its caller goes away.
pub(super) async fn apart<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    context: Context,
    compute: F,
) -> Result<T, E>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send + 'static,
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let (cache, key) = (cache.clone(), key.to_owned());
    let resolved = async move {
        let said = context.clone();
        let compute = || compute(context);
        resolve(&cache, &key, Terms::Said(said), compute).await
    };
    let value = match Handle::try_current() {
        Ok(_) => match tokio::spawn(resolved).await {
            Ok(value) => value?,
            Err(ended) => {
                let why = if ended.is_panic() {
                    "the compute panicked"
                } else {
                    "the runtime is ending"
                };
                return Err(Error::new(ErrorKind::Compute, why)
                    .during("get_or_set")
                    .into());
            }
        },
        Err(_) => resolved.await?,
    };
    Ok(Arc::unwrap_or_clone(value))
}

/// Counts what a store came to, and undoes it if a write of the key did not wait for it.
pub(super) async fn concluded<C: Cache>(
    cache: &C,
    key: &str,
    stored: &str,
    draft: &Draft,
    storing: &Storing,
    result: Result<Stored>,
) -> Result<()> {
    match result {
        Ok(Stored::Outrun) => count(&cache.core().counters().outrun),
        _ => count(&cache.core().counters().stores),
    }
    if storing.overtaken() {
        count(&cache.core().counters().outrun);
        // The write came first in the eyes of its caller; an empty key is never wrong. What it wrote itself stays.
        let _write = cache.core().fence().write(stored);
        if let Err(error) = bounded(cache.core(), cache.retract(key, draft)).await {
            tracing::warn!(target: "larder", event = "write_failed", error = %error);
        }
    }
    result.map(|_| ()).map_err(|error| {
        count(&cache.core().counters().write_errors);
        let error = error.during("get_or_set").with("key", key);
        tracing::warn!(target: "larder", event = "write_failed", error = %error);
        error
    })
}
