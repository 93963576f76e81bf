//! One key at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Peek;
use crate::cache::Cache;
use crate::core::Core;
use crate::entry::{Draft, Entry, Want, When};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Write;
use crate::flight::Detached;
use crate::key;
use crate::stats::count;
use crate::ttl::{Remaining, Ttl};
use crate::value::{Cacheable, Kind, Value, integer};

/// A write waits this long for a compute that is being stored. Stores bound themselves far below it.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// What can be told without waiting.
pub(super) enum Look<T> {
    Hit(Arc<T>),
    Miss,
    Ask,
}

/// Looks into memory. A bad key cannot be there, so keys are checked only after this.
#[inline]
pub(super) fn look<T: Cacheable, C: Cache>(cache: &C, key: &str) -> Look<T> {
    let value = match cache.peek(key) {
        Peek::Hit(entry) => match entry.downcast() {
            Ok(value) => Some(value),
            Err(entry) => converted(cache.core(), key, &entry),
        },
        Peek::Miss => None,
        Peek::Ask => return Look::Ask,
    };
    match value {
        Some(value) => {
            cache.core().counters().memory_hits.add(1);
            Look::Hit(value)
        }
        None => Look::Miss,
    }
}

/// A miss that needed no waiting: the answer of a read, once its key is checked.
pub(super) fn missed<T, C: Cache>(cache: &C, key: &str) -> Result<Option<T>> {
    cache.core().counters().misses.add(1);
    checked(cache, key, "get").map(|()| None)
}

/// The entry's value as another type than it was stored as, by the rules of the wire.
#[cold]
fn converted<T: Cacheable>(core: &Core, key: &str, entry: &Entry) -> Option<Arc<T>> {
    count(&core.counters().conversions);
    match core.format().convert(entry, Kind::of::<T>()) {
        Ok(value) => value.downcast().ok(),
        Err(why) => {
            core.refuse(key, why);
            None
        }
    }
}

/// The value that a store answered.
pub(super) fn typed<T: Cacheable>(core: &Core, key: &str, entry: Option<Entry>) -> Option<Arc<T>> {
    let value = entry.and_then(|entry| match entry.downcast() {
        Ok(value) => Some(value),
        Err(entry) => converted(core, key, &entry),
    });
    let counter = if value.is_some() {
        &core.counters().store_hits
    } else {
        &core.counters().misses
    };
    counter.add(1);
    value
}

/// Checks a key with all its prefixes.
pub(super) fn checked<C: Cache>(cache: &C, key: &str, operation: &'static str) -> Result<()> {
    let stored = cache.stored_key(key);
    let verdict = if key.is_empty() {
        key::check("")
    } else {
        key::check(&stored)
    };
    verdict.map_err(|error| {
        count(&cache.core().counters().bad_keys);
        error.during(operation)
    })
}

pub(super) async fn get<T: Cacheable, C: Cache>(cache: &C, key: &str) -> Result<Option<Arc<T>>> {
    checked(cache, key, "get")?;
    match cache.fetch(key, Want::of(Kind::of::<T>())).await {
        Ok(entry) => Ok(typed(cache.core(), key, entry)),
        Err(error) => {
            count(&cache.core().counters().read_errors);
            Err(error.during("get").with("key", key))
        }
    }
}

/// A write of a key, fenced: computes under way are cut off, memory has dropped the key, and stays closed to copies of
/// it until this is dropped.
pub(super) async fn fenced<'c>(core: &'c Core, stored: &'c str) -> Write<'c> {
    let detached = core.flights().detach(stored);
    let write = core.fence().write(stored);
    settle(detached).await;
    write
}

pub(super) async fn settle(detached: Detached) {
    detached.settled(SETTLE).await;
}

/// Counts and completes what a write came to.
fn written<R>(core: &Core, result: Result<R>, operation: &'static str, key: &str) -> Result<R> {
    result.map_err(|error| {
        // What a counter refuses is its caller's doing, not the store's.
        if !matches!(error.kind(), ErrorKind::NotACounter | ErrorKind::Overflow) {
            count(&core.counters().write_errors);
        }
        error.during(operation).with("key", key)
    })
}

/// The draft of a value that the application gave, encoded already where the store needs bytes.
pub(super) fn draft<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    value: T,
    life: Option<Duration>,
) -> Result<Draft> {
    let value = Value::new(value);
    let bare = integer(&value).is_some();
    let entry = Entry::new(value, cache.core().now(), life).bare(bare);
    let mut draft = Draft::from(entry);
    let prepared = cache.prepare(key, &mut draft);
    prepared.inspect_err(|_| count(&cache.core().counters().encode_errors))?;
    Ok(draft)
}

pub(super) fn life<C: Cache>(cache: &C, ttl: Ttl) -> Option<Duration> {
    ttl.resolve(cache.core().settings().default_ttl)
}

pub(super) async fn set<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    value: T,
    ttl: Ttl,
) -> Result<()> {
    write(cache, key, value, ttl, When::Always, "set")
        .await
        .map(|_| ())
}

pub(super) async fn add<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    value: T,
    ttl: Ttl,
) -> Result<bool> {
    write(cache, key, value, ttl, When::IfAbsent, "add").await
}

async fn write<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    value: T,
    ttl: Ttl,
    when: When,
    operation: &'static str,
) -> Result<bool> {
    checked(cache, key, operation)?;
    let core = cache.core();
    let draft = draft(cache, key, value, life(cache, ttl))
        .map_err(|error| error.during(operation).with("key", key))?;
    let stored = cache.stored_key(key);
    let _write = fenced(core, &stored).await;
    count(&core.counters().stores);
    written(core, cache.store(key, draft, when).await, operation, key)
}

pub(super) async fn delete<C: Cache>(cache: &C, key: &str) -> Result<bool> {
    checked(cache, key, "delete")?;
    let core = cache.core();
    let stored = cache.stored_key(key);
    let _write = fenced(core, &stored).await;
    count(&core.counters().deletes);
    written(core, cache.remove(key).await, "delete", key)
}

pub(super) async fn has<C: Cache>(cache: &C, key: &str) -> Result<bool> {
    match cache.peek(key) {
        Peek::Hit(_) => return Ok(true),
        Peek::Miss => return checked(cache, key, "has").map(|()| false),
        Peek::Ask => checked(cache, key, "has")?,
    }
    cache.contains(key).await.map_err(|error| {
        count(&cache.core().counters().read_errors);
        error.during("has").with("key", key)
    })
}

pub(super) async fn clear<C: Cache>(cache: &C) -> Result<()> {
    let core = cache.core();
    let prefix = cache.stored_key("");
    let detached = core.flights().detach_under(&prefix);
    let _clear = core.fence().clear(&prefix);
    settle(detached).await;
    cache.wipe("").await.map_err(|error| {
        count(&core.counters().write_errors);
        error.during("clear")
    })
}

pub(super) async fn incr<C: Cache>(cache: &C, key: &str, by: i64) -> Result<i64> {
    add_to(cache, key, by, "incr").await
}

pub(super) async fn decr<C: Cache>(cache: &C, key: &str, by: i64) -> Result<i64> {
    let Some(by) = by.checked_neg() else {
        let error = Error::new(ErrorKind::Overflow, "i64::MIN cannot be subtracted");
        return Err(error.during("decr").with("key", key));
    };
    add_to(cache, key, by, "decr").await
}

async fn add_to<C: Cache>(cache: &C, key: &str, by: i64, operation: &'static str) -> Result<i64> {
    checked(cache, key, operation)?;
    let core = cache.core();
    let stored = cache.stored_key(key);
    let _write = fenced(core, &stored).await;
    written(core, cache.add_to(key, by).await, operation, key)
}

pub(super) async fn touch<C: Cache>(cache: &C, key: &str, ttl: Ttl) -> Result<bool> {
    checked(cache, key, "touch")?;
    let core = cache.core();
    let stored = cache.stored_key(key);
    let _write = fenced(core, &stored).await;
    written(
        core,
        cache.retime(key, life(cache, ttl)).await,
        "touch",
        key,
    )
}

pub(super) async fn ttl<C: Cache>(cache: &C, key: &str) -> Result<Option<Remaining>> {
    checked(cache, key, "ttl")?;
    cache.remaining(key).await.map_err(|error| {
        count(&cache.core().counters().read_errors);
        error.during("ttl").with("key", key)
    })
}
