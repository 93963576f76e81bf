//! One key at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Peek;
use crate::cache::Cache;
use crate::cache::ahead::Life;
use crate::coherence::Before;
use crate::core::Core;
use crate::entry::{Answer, Draft, Entry, Stored, Ticket, Want, When};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::Failure;
use crate::fence::Write;
use crate::flight::Writing;
use crate::generation::chance;
use crate::key;
use crate::options::{Options, check_tag};
use crate::refusal::Refusal;
use crate::report::Source;
use crate::stats::count;
use crate::ttl::{Remaining, Ttl};
use crate::value::{Cacheable, Kind, Value, integer};

/// What can be told without waiting.
pub(super) enum Look<T> {
    Hit(Arc<T>, Life),
    /// Past its life, to be answered as it is.
    Rearmed(Arc<T>),
    Miss,
    Ask,
}

/// Looks into memory. A bad key cannot be there, so keys are checked only after this.
#[inline]
pub(super) fn look<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    takes_stale: impl FnOnce() -> bool,
) -> Look<T> {
    let entry = match cache.peek(key) {
        Peek::Hit(entry) => entry,
        Peek::Miss => return Look::Miss,
        Peek::Ask => return Look::Ask,
    };
    let (rearmed, life) = (entry.is_rearmed(), Life::of(&entry));
    if rearmed && !takes_stale() {
        return Look::Ask;
    }
    let value = match entry.downcast() {
        Ok(value) => Some(value),
        // In the place of a value: only a call that would compute asks for it.
        Err(entry) if rearmed && Failure::of(entry.value()).is_some() => return Look::Ask,
        Err(entry) => converted(cache, key, &entry).ok(),
    };
    let Some(value) = value else {
        return Look::Miss;
    };
    cache.core().counters().memory_hits.add(1);
    if rearmed {
        Look::Rearmed(value)
    } else {
        Look::Hit(value, life)
    }
}

/// The answer of a call that would compute, if memory has it.
#[inline]
pub(crate) fn at_hand<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    options: &Options,
) -> Option<Arc<T>> {
    at_hand_for_now(cache, key, options).map(|(value, _)| value)
}

/// The same, with the life of what is within it.
#[inline]
pub(crate) fn at_hand_for_now<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    options: &Options,
) -> Option<(Arc<T>, Option<Life>)> {
    let core = cache.core();
    let (value, life, source) = match look(cache, key, || takes_stale(core, options)) {
        Look::Hit(value, life) => (value, Some(life), Source::Memory),
        Look::Rearmed(value) => {
            count(&core.counters().stale);
            (value, None, Source::Stale)
        }
        Look::Miss | Look::Ask => return None,
    };
    if let Some(report) = options.told() {
        if let Some(life) = life {
            report.tell_end(life.end());
        }
        report.tell(source);
    }
    Some((value, life))
}

/// Whether a call takes values past their life, by its own word or the cache's.
pub(super) fn takes_stale(core: &Core, options: &Options) -> bool {
    let grace = options.grace_or(&core.settings().options);
    !grace.is_zero()
}

/// A miss that needed no waiting: the answer of a read, once its key is checked.
pub(super) fn missed<T, C: Cache>(cache: &C, key: &str) -> Result<Option<T>> {
    cache.core().counters().misses.add(1);
    checked(cache, key, "get").map(|()| None)
}

/// The entry's value as another type than it was stored as, by the rules of the wire.
#[cold]
fn converted<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    entry: &Entry,
) -> Result<Arc<T>, Refusal> {
    let core = cache.core();
    count(&core.counters().conversions);
    let stored = cache.stored_key(key);
    let value = core.format().convert(&stored, entry, Kind::of::<T>());
    value
        .and_then(|value| value.downcast().map_err(|_| Refusal::Schema))
        .inspect_err(|why| core.refuse(key, *why))
}

/// The value that a store answered, with the entry that it is of.
pub(super) fn typed_entry<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    answer: Answer,
) -> Option<(Arc<T>, Entry)> {
    some_of_type(cache, key, answer.entry.clone()).zip(answer.entry)
}

/// The value that a store answered.
pub(super) fn typed<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    answer: Answer,
) -> Option<Arc<T>> {
    let clock = &cache.core().settings().clock;
    // Not all stores tell what is stale from what is not.
    let live = |entry: &Entry| !entry.is_rearmed() && clock.is_before(entry.answered_until());
    some_of_type(cache, key, answer.entry.filter(live))
}

fn some_of_type<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    entry: Option<Entry>,
) -> Option<Arc<T>> {
    let Some(entry) = entry else {
        cache.core().counters().misses.add(1);
        return None;
    };
    let value = of_type(cache, key, entry);
    let counters = cache.core().counters();
    let counter = if value.is_ok() {
        &counters.store_hits
    } else {
        &counters.misses
    };
    counter.add(1);
    value.ok()
}

/// The value of an entry, or why it is none of this type.
pub(super) fn of_type<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    entry: Entry,
) -> Result<Arc<T>, Refusal> {
    match entry.downcast() {
        Ok(value) => Ok(value),
        Err(entry) => converted(cache, key, &entry),
    }
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

/// How much of a key, as it is stored at the very bottom, is the cache's own prefix.
pub(super) fn namespace<C: Cache>(cache: &C) -> usize {
    cache.stored_key("").len()
}

/// What a reader of a `T` wants.
pub(super) fn wanted<T: Cacheable, C: Cache>(cache: &C) -> Want {
    Want::of(Kind::of::<T>()).within(namespace(cache))
}

pub(crate) async fn get<T: Cacheable, C: Cache>(cache: &C, key: &str) -> Result<Option<Arc<T>>> {
    checked(cache, key, "get")?;
    match fetched(cache, key, wanted::<T, C>(cache)).await {
        Ok(answer) => Ok(typed(cache, key, answer)),
        Err(error) => {
            count(&cache.core().counters().read_errors);
            Err(error.during("get").with("key", key))
        }
    }
}

/// A write of a key under way: computes under way are cut off, memory has dropped the key, and both stay so for what
/// begins before this is dropped.
pub(super) struct Fenced<'c> {
    _write: Write<'c>,
    // Dropped last: a flight that begins after it may fill memory, so memory must be open again.
    _writing: Writing,
}

/// Fences the write of a key.
pub(super) async fn fenced<'c>(core: &'c Core, stored: &'c str) -> Fenced<'c> {
    let mut writing = core.flights().write(stored);
    let write = core.fence().write(stored);
    writing.settled(settle_deadline(core)).await;
    Fenced {
        _write: write,
        _writing: writing,
    }
}

/// Until when a write waits for a compute that is being stored: longer than a store may take.
pub(super) fn settle_deadline(core: &Core) -> tokio::time::Instant {
    tokio::time::Instant::now() + core.settings().store_timeout + Duration::from_millis(100)
}

/// Runs one call of a store within the bound on it. Stores bound themselves; this is for those that do not.
pub(super) async fn bounded<R>(
    core: &Core,
    call: impl Future<Output = Result<R>> + Send,
) -> Result<R> {
    if tokio::runtime::Handle::try_current().is_err() {
        return call.await;
    }
    let bound = core.settings().store_timeout;
    match tokio::time::timeout(bound, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("the store did not answer within {bound:?}"),
        )),
    }
}

/// The entry under one key, within the bound on one call of the store.
pub(super) async fn fetched<C: Cache>(cache: &C, key: &str, want: Want) -> Result<Answer> {
    let core = cache.core();
    if core.bounds_reads() {
        cache.fetch(key, want).await
    } else {
        // Boxed, so that the future of a store that sees to it itself stays small.
        Box::pin(bounded(core, cache.fetch(key, want))).await
    }
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
    options: &Options,
    when: When,
) -> Result<Draft> {
    check_tags(cache, options)?;
    let value = Value::new(value);
    let bare = options.tags.is_empty() && integer(&value).is_some();
    let life = life(cache, options.ttl).map(|life| options.jittered(life, chance()));
    let entry = Entry::new(value, cache.core().now(), life).bare(bare);
    // Digits alone do not tell that they are stale, and what has no life has no grace.
    let graced = !bare && life.is_none_or(|life| !life.is_zero());
    let entry = if graced {
        entry.with_grace(options.graces())
    } else {
        entry
    };
    let mut draft = Draft::new(entry, when);
    draft.namespace = namespace(cache);
    draft.tags = options.tags.as_slice().into();
    let prepared = cache.prepare(key, &mut draft);
    prepared.inspect_err(|_| count(&cache.core().counters().encode_errors))?;
    Ok(draft)
}

/// Refuses tags that the store would not keep.
pub(super) fn check_tags<C: Cache>(cache: &C, options: &Options) -> Result<()> {
    if options.tags.is_empty() {
        return Ok(());
    }
    if !cache.keeps_tags() {
        let why = "this store does not keep tags";
        return Err(Error::new(ErrorKind::Unsupported, why));
    }
    options.check()
}

pub(super) fn life<C: Cache>(cache: &C, ttl: Ttl) -> Option<Duration> {
    ttl.resolve(cache.core().settings().default_ttl)
}

pub(super) async fn set<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    value: T,
    options: Options,
) -> Result<()> {
    write(cache, key, value, options, When::Always, "set")
        .await
        .map(|_| ())
}

pub(super) async fn add<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    value: T,
    options: Options,
) -> Result<bool> {
    write(cache, key, value, options, When::IfAbsent, "add").await
}

async fn write<T: Cacheable, C: Cache>(
    cache: &C,
    key: &str,
    value: T,
    options: Options,
    when: When,
    operation: &'static str,
) -> Result<bool> {
    checked(cache, key, operation)?;
    let core = cache.core();
    let options = options.over(&core.settings().options);
    let draft = draft(cache, key, value, &options, when)
        .map_err(|error| error.during(operation).with("key", key))?;
    let stored = cache.stored_key(key);
    let _write = fenced(core, &stored).await;
    let stored = written(
        core,
        bounded(core, cache.store(key, draft)).await,
        operation,
        key,
    )?;
    if stored == Stored::Done {
        count(&core.counters().stores);
    }
    Ok(stored == Stored::Done)
}

/// Notes how things stand with keys before their values are computed. What cannot be noted is not stored.
pub(super) async fn begun<C: Cache>(cache: &C, keys: &[&str]) -> Vec<Ticket> {
    let before: Vec<_> = keys.iter().map(|key| before(cache, key)).collect();
    let begin = async { Ok(cache.begin(keys, namespace(cache)).await) };
    let mut tickets = match bounded(cache.core(), begin).await {
        Ok(tickets) => tickets,
        Err(error) => keys.iter().map(|_| Ticket::lost(error.clone())).collect(),
    };
    for (ticket, before) in tickets.iter_mut().zip(before) {
        ticket.before = before;
    }
    tickets
}

/// A ticket for a store that does not answer: it is not asked twice.
pub(super) fn begun_without<C: Cache>(cache: &C, key: &str, error: Error) -> Ticket {
    Ticket {
        before: before(cache, key),
        ..Ticket::lost(error)
    }
}

pub(super) fn before<C: Cache>(cache: &C, key: &str) -> Option<Before> {
    let stored = cache.stored_key(key);
    cache.core().fence().before(&stored, || cache.origin(key))
}

pub(super) async fn invalidate<C: Cache>(cache: &C, tag: &str) -> Result<()> {
    check_tag(tag).map_err(|error| error.during("invalidate_tag"))?;
    let core = cache.core();
    let prefix = cache.stored_key("");
    let told = bounded(core, cache.invalidate("", tag)).await;
    // Whoever asks from now on computes anew, where the value under way has the tag or may have it.
    core.flights().close(&prefix, tag);
    told.map_err(|error| {
        count(&core.counters().write_errors);
        error
            .during("invalidate_tag")
            .with("tag", tag.escape_debug())
    })
}

pub(super) async fn delete<C: Cache>(cache: &C, key: &str) -> Result<bool> {
    checked(cache, key, "delete")?;
    let core = cache.core();
    let stored = cache.stored_key(key);
    let _write = fenced(core, &stored).await;
    count(&core.counters().deletes);
    written(core, bounded(core, cache.remove(key)).await, "delete", key)
}

pub(super) async fn has<C: Cache>(cache: &C, key: &str) -> Result<bool> {
    checked(cache, key, "has")?;
    bounded(cache.core(), cache.contains(key))
        .await
        .map_err(|error| {
            count(&cache.core().counters().read_errors);
            error.during("has").with("key", key)
        })
}

pub(super) async fn clear<C: Cache>(cache: &C) -> Result<()> {
    let core = cache.core();
    let prefix = cache.stored_key("");
    let mut clearing = core.flights().clear(&prefix);
    let _clear = core.fence().clear(&prefix);
    clearing.settled(settle_deadline(core)).await;
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
    written(
        core,
        bounded(core, cache.add_to(key, by, namespace(cache))).await,
        operation,
        key,
    )
}

pub(super) async fn touch<C: Cache>(cache: &C, key: &str, ttl: Ttl) -> Result<bool> {
    checked(cache, key, "touch")?;
    let core = cache.core();
    let stored = cache.stored_key(key);
    let _write = fenced(core, &stored).await;
    written(
        core,
        bounded(core, cache.retime(key, life(cache, ttl))).await,
        "touch",
        key,
    )
}

pub(super) async fn ttl<C: Cache>(cache: &C, key: &str) -> Result<Option<Remaining>> {
    checked(cache, key, "ttl")?;
    bounded(cache.core(), cache.remaining(key))
        .await
        .map_err(|error| {
            count(&cache.core().counters().read_errors);
            error.during("ttl").with("key", key)
        })
}
