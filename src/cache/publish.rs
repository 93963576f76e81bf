//! From a computed value to a stored one.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::cache::Cache;
use crate::cache::call::{Led, Stale};
use crate::cache::single::{bounded, check_tags, life, namespace};
use crate::context::Said;
use crate::entry::{Draft, Entry, Stored, Ticket};
use crate::error::Result;
use crate::failure::Failure;
use crate::flight::{Landing, Lead, Storing, unless_overtaken};
use crate::generation::chance;
use crate::options::Options;
use crate::stats::count;
use crate::value::{Cacheable, Value};

/// A computed value, and how it is to be stored.
pub(super) struct Made<'v, T> {
    pub(super) value: &'v Arc<T>,
    pub(super) said: &'v Said,
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
    let (options, value) = (&made.said.options, Value::shared(Arc::clone(made.value)));
    let ttl = match value.kind().none_depth(&value) {
        Some(_) => options.ttl_of_none(),
        None => options.ttl,
    };
    let life = life(cache, ttl).map(|life| options.jittered(life, chance()));
    let entry = Entry::new(value, core.now(), life).computed_in(made.took);
    let entry = entry.validated(made.said.validator.clone());
    // What has no life has no grace.
    let entry = match life {
        Some(life) if life.is_zero() => entry,
        _ => entry.with_grace(options.graces()),
    };
    let mut draft = Draft::from(entry);
    draft.ticket = made.ticket;
    draft.tags = options.tags.as_slice().into();
    let checked = check_tags(cache, options);
    checked.and_then(|()| prepared(cache, key, draft))
}

fn prepared<C: Cache>(cache: &C, key: &str, mut draft: Draft) -> Result<Draft> {
    draft.computed = true;
    draft.namespace = namespace(cache);
    match cache.prepare(key, &mut draft) {
        Ok(()) => Ok(draft),
        Err(error) => {
            count(&cache.core().counters().encode_errors);
            let error = error.during("get_or_set").with("key", key);
            tracing::warn!(target: "larder", event = "not_stored", error = %error);
            Err(error)
        }
    }
}

/// Gives the value to those who wait, and stores it unless the key was written meanwhile. Whether it was stored.
pub(super) async fn publish<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    lead: Lead,
    made: Made<'_, T>,
) -> Result<bool> {
    let landing = Landing::of(Arc::clone(made.value) as _);
    let draft = computed(cache, key, made);
    let Some(storing) = lead.land(landing) else {
        count(&cache.core().counters().outrun);
        return Ok(false);
    };
    keep(cache, key, &storing, draft?).await
}

/// Tells those who wait that a compute failed, and keeps that for so long.
pub(super) async fn publish_failure<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    led: Led<T>,
    text: &str,
    options: &Options,
    ttl: Duration,
) -> Result<()> {
    let Led {
        lead, ticket, held, ..
    } = led;
    let (failure, now) = (Arc::new(Failure::new(text)), cache.core().now());
    let value = Value::shared(Arc::clone(&failure));
    // Not a value within its life, to whoever looks.
    let entry = Entry::new(value, now, Some(ttl)).rearmed(now, ttl);
    let mut draft = Draft::from(entry);
    draft.ticket = ticket;
    draft.tags = options.tags.as_slice().into();
    let draft = check_tags(cache, options).and_then(|()| prepared(cache, key, draft));
    let Some(storing) = lead.land(Landing::failure(failure as _)) else {
        return Ok(());
    };
    keep(cache, key, &storing, draft?).await?;
    // Such a store leaves the lease as it is.
    drop(held);
    Ok(())
}

/// Gives a value past its life to those who wait, and has it answered for `throttle` before anybody computes it again. Nobody
/// waits for that: whoever asks meanwhile is given it too.
pub(super) async fn rearm<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    led: Led<T>,
    stale: Stale<T>,
    throttle: Duration,
) {
    let (cache, key) = (cache.clone(), key.to_owned());
    let tasks = cache.core().tasks().clone();
    let rearmed = async move {
        // What fails is counted and logged.
        let _ = rearmed(&cache, &key, led, &stale, throttle).await;
    };
    match Handle::try_current() {
        Ok(_) => tasks.spawn(rearmed),
        Err(_) => rearmed.await,
    }
}

async fn rearmed<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    led: Led<T>,
    stale: &Stale<T>,
    throttle: Duration,
) -> Result<()> {
    let Led {
        lead, ticket, held, ..
    } = led;
    let entry = stale.entry.clone().rearmed(cache.core().now(), throttle);
    let tags: Vec<Box<str>> = entry.tags().map(Into::into).collect();
    let mut draft = Draft::from(entry);
    (draft.tags, draft.ticket) = (tags.into(), ticket);
    let draft = prepared(cache, key, draft);
    let Some(storing) = lead.land(Landing::stale(Arc::clone(&stale.value) as _)) else {
        return Ok(());
    };
    keep(cache, key, &storing, draft?).await?;
    // Such a store leaves the lease as it is.
    drop(held);
    Ok(())
}

/// Stores what has landed, and tells whether it is.
async fn keep<C: Cache>(cache: &C, key: &str, storing: &Storing, draft: Draft) -> Result<bool> {
    let (core, stored) = (cache.core(), cache.stored_key(key));
    if draft.entry.is_expired(core.now()) {
        return Ok(false);
    }
    let stake = draft.clone();
    let write = core.fence().write(&stored);
    let store = unless_overtaken([storing], bounded(core, cache.store(key, draft)));
    let result = store.await.unwrap_or(Ok(Stored::Done));
    drop(write);
    let is_stored = matches!(result, Ok(Stored::Done));
    concluded(cache, key, &stored, &stake, storing, result).await?;
    Ok(is_stored)
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
