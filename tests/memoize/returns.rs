//! What is cached of what a function returns.

use std::sync::Arc;
use std::time::Duration;

use larder::{Error, Moka, Options, memoize};
use serde::{Deserialize, Serialize};

use crate::{CACHE, Runs};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum AppError {
    Odd(u32),
    Cache(String),
}

impl From<Error> for AppError {
    fn from(error: Error) -> Self {
        Self::Cache(error.to_string())
    }
}

static HALVES: Runs = Runs::new();

#[memoize(cache = CACHE)]
async fn half(number: u32) -> Result<u32, AppError> {
    HALVES.next();
    if number % 2 == 1 {
        return Err(AppError::Odd(number));
    }
    Ok(number / 2)
}

#[tokio::test]
async fn errors_are_not_cached() {
    for _ in 0..3 {
        assert_eq!(half(4).await, Ok(2));
    }
    assert_eq!(HALVES.count(), 1);
    for _ in 0..3 {
        assert_eq!(half(5).await, Err(AppError::Odd(5)));
    }
    assert_eq!(HALVES.count(), 4);
    assert_eq!(half::refresh(5).await, Err(AppError::Odd(5)));
}

static KEPT: Runs = Runs::new();

#[memoize(cache = CACHE, cache_errors)]
async fn kept(number: u32) -> Result<u32, AppError> {
    KEPT.next();
    Err(AppError::Odd(number))
}

#[tokio::test]
async fn errors_are_cached_where_that_is_asked_for() {
    for _ in 0..3 {
        assert_eq!(kept(4).await, Err(AppError::Odd(4)));
    }
    assert_eq!(KEPT.count(), 1);
}

static OPTIONS: Runs = Runs::new();
static NONES: Runs = Runs::new();

#[memoize(cache = CACHE)]
async fn find(id: u32) -> Option<u32> {
    OPTIONS.next();
    (id > 0).then_some(id)
}

#[memoize(cache = CACHE, cache_none)]
async fn find_once(id: u32) -> Result<Option<u32>, AppError> {
    NONES.next();
    Ok((id > 0).then_some(id))
}

#[tokio::test]
async fn nothing_is_cached_where_that_is_asked_for() {
    for _ in 0..2 {
        assert_eq!(find(0).await, None);
        assert_eq!(find(1).await, Some(1));
        assert_eq!(find_once(0).await, Ok(None));
        assert_eq!(find_once(1).await, Ok(Some(1)));
    }
    assert_eq!((OPTIONS.count(), NONES.count()), (3, 2));
}

static WITH_TTL: Runs = Runs::new();

/// Its own options go before the default of not caching a `None`.
#[memoize(cache = CACHE, options = Options::ttl(Duration::from_secs(60)).none_ttl(Duration::from_secs(5)))]
async fn find_for_a_while(id: u32) -> Option<u32> {
    WITH_TTL.next();
    (id > 0).then_some(id)
}

#[tokio::test]
async fn options_say_how_long_nothing_is_cached() {
    assert_eq!(find_for_a_while(0).await, None);
    assert_eq!(find_for_a_while(0).await, None);
    assert_eq!(WITH_TTL.count(), 1);
}

#[memoize(cache = CACHE)]
async fn shared(text: &str) -> Arc<String> {
    Arc::new(text.to_owned())
}

#[memoize(cache = CACHE)]
async fn shared_or_not(text: &str) -> Result<Arc<Vec<u8>>, AppError> {
    Ok(Arc::new(text.as_bytes().to_vec()))
}

#[tokio::test]
async fn what_is_shared_is_shared_with_memory() {
    // What memory holds in a debug build went through the codec, so it is not what was computed.
    let _ = (shared("a").await, shared_or_not("a").await);
    let (one, other) = (shared("a").await, shared("a").await);
    assert!(Arc::ptr_eq(&one, &other));
    let (one, other) = (shared_or_not("a").await, shared_or_not("a").await);
    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
}

/// Not made of larder's errors.
#[derive(Debug, PartialEq)]
struct Foreign(String);

#[memoize(cache = CACHE, map_err = |error| Foreign(error.kind().to_string()))]
async fn foreign(number: u32) -> std::result::Result<u32, Foreign> {
    if number == 0 {
        return Err(Foreign("own".to_owned()));
    }
    Ok(number)
}

#[tokio::test]
async fn errors_of_the_cache_are_mapped() {
    assert_eq!(foreign(1).await, Ok(1));
    assert_eq!(foreign(0).await, Err(Foreign("own".to_owned())));
    // A strict cache tells of a key that it cannot take.
    assert_eq!(long(&strict(), &"x".repeat(10)).await, Ok(10));
}

fn strict() -> Moka {
    Moka::builder().strict(true).build()
}

#[memoize(key = "{text}", map_err = |error| Foreign(error.kind().to_string()))]
async fn long(cache: &Moka, text: &str) -> Result<usize, Foreign> {
    let _ = cache;
    Ok(text.len())
}

static ALONE: Runs = Runs::new();

#[memoize(ttl = 60)]
async fn alone(cache: &impl larder::Cache, number: u32) -> u32 {
    let _ = cache;
    ALONE.next();
    number
}

/// A function that has no errors has none of the cache's either, whether the store fails before it runs or after.
#[tokio::test]
async fn a_function_without_errors_never_fails() {
    use larder::testing::{Fault, Faulty};
    for (at, operation) in [(1, "fetch"), (3, "store")] {
        let faulty = Faulty::remote(Moka::builder().strict(true).build());
        faulty.faults().always(operation, Fault::Fail);
        assert_eq!(alone(&faulty, 1).await, 1);
        assert_eq!(alone(&faulty, 1).await, 1);
        assert_eq!(ALONE.count(), at + 1, "{operation}");
    }
}
