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
    let value = match found(&trace) {
        Some(entry) if Failure::of(entry.value()).is_some() => {
            trace.refuse(Why::ComputeFailed);
            core.counters().misses.add(1);
            None
        }
        Some(entry) => {
            let live = entry.is_live(core.now());
            of_type::<T, C>(cache, key, entry)
                .inspect(|_| {
                    if !live {
                        count(&core.counters().stale);
                    }
                })
                .inspect_err(|why| trace.refuse(Why::Refused(*why)))
                .ok()
        }
        None => {
            core.counters().misses.add(1);
            None
        }
    };
    Ok(Lookup {
        value: value.map(Arc::unwrap_or_clone),
        explanation: trace.explained(cache.stored_key(key).into_owned()),
    })
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
        Trace::of(Place::of::<C>(), Err(late), want, now)
    })
}
