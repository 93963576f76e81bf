//! Reads that tell what they came to.

use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::single::{bounded, checked, namespace, of_type, takes_stale, wanted};
use crate::entry::{Entry, Want};
use crate::error::Result;
use crate::explain::{Explanation, Lookup, Place, Trace, Why};
use crate::failure::Failure;
use crate::options::Options;
use crate::stats::count;
use crate::value::Cacheable;

pub(super) async fn explain<C: Cache>(cache: &C, key: &str) -> Result<Explanation> {
    checked(cache, key, "explain")?;
    let want = Want::default().within(namespace(cache)).or_stale();
    let mut trace = traced(cache, key, want).await;
    let stored = cache.stored_key(key).into_owned();
    if let Some(entry) = found(&trace) {
        let bytes = entry.value().as_encoded();
        match bytes.map(|bytes| cache.core().format().inspect(&stored, bytes)) {
            Some(Err(why)) => trace.refuse(Why::Refused(why)),
            Some(Ok((_, true))) => trace.refuse(Why::ComputeFailed),
            Some(Ok((micros, false))) => trace.computed_in(micros),
            None if Failure::of(entry.value()).is_some() => trace.refuse(Why::ComputeFailed),
            None => {}
        }
    }
    Ok(trace.explained(stored))
}

pub(super) async fn get_with<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    options: &Options,
) -> Result<Lookup<T>> {
    checked(cache, key, "get_with")?;
    let (core, mut want) = (cache.core(), wanted::<T, C>(cache).with_deadline());
    want.stale = takes_stale(core, options);
    let mut trace = traced(cache, key, want).await;
    if trace.answer.is_err() {
        count(&core.counters().read_errors);
    }
    let mut value = None;
    if let Some(entry) = found(&trace) {
        if Failure::of(entry.value()).is_some() {
            trace.refuse(Why::ComputeFailed);
        } else {
            match of_type::<T, C>(cache, key, entry) {
                Ok(found) => value = Some(Arc::unwrap_or_clone(found)),
                Err(why) => trace.refuse(Why::Refused(why)),
            }
        }
    }
    let explanation = trace.explained(cache.stored_key(key).into_owned());
    let counters = core.counters();
    let counter = match explanation.place() {
        Some(place) if place.in_memory => &counters.memory_hits,
        Some(_) => &counters.store_hits,
        None => &counters.misses,
    };
    counter.add(1);
    if explanation.is_stale() {
        count(&counters.stale);
    }
    Ok(Lookup { value, explanation })
}

fn found(trace: &Trace) -> Option<Entry> {
    trace.answer.as_ref().ok()?.entry.clone()
}

/// What a read comes to, within the bound on one call of the store.
async fn traced<C: Cache>(cache: &C, key: &str, want: Want) -> Trace {
    let trace = async { Ok(cache.trace(key, want).await) };
    let traced = bounded(cache.core(), trace).await;
    traced.unwrap_or_else(|late| {
        let now = cache.core().now();
        Trace::of(Place::named("the store"), Err(late), want, now)
    })
}
