//! Many keys at a time.

use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::single::{Look, bounded, checked, draft, look, settle_deadline, typed, wanted};
use crate::core::Core;
use crate::entry::When;
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Write;
use crate::flight::Writing;
use crate::options::Options;
use crate::stats::count;
use crate::value::Cacheable;

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
pub(super) async fn bounded_many<R: Send>(
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
