//! What the attribute says beside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::{Cache, Clock, Error, Moka, Options, RefreshAhead, Remaining, Ttl, memoize};

use crate::{CACHE, Runs};

static UNLESS: Runs = Runs::new();

#[memoize(cache = CACHE, unless = user == "admin" || user.is_empty())]
async fn page(user: &str) -> u32 {
    let _ = user;
    UNLESS.next()
}

#[memoize(cache = CACHE, unless = |user, _| user.len() > 3)]
async fn page_of(user: String, number: u32) -> u32 {
    let _ = (user, number);
    UNLESS.next()
}

#[tokio::test]
async fn a_call_may_pass_the_cache_by() {
    assert_eq!((page("ada").await, page("ada").await), (1, 1));
    assert_eq!((page("admin").await, page("admin").await), (2, 3));
    let long = || page_of("admin".to_owned(), 1);
    assert_eq!((long().await, long().await), (4, 5));
    let short = || page_of("ada".to_owned(), 1);
    assert_eq!((short().await, short().await), (6, 6));
}

static FORCED: Runs = Runs::new();
static FORCE: AtomicBool = AtomicBool::new(false);

#[memoize(cache = CACHE, force_if = FORCE.load(Ordering::Relaxed))]
async fn forced(number: u32) -> u32 {
    let _ = number;
    FORCED.next()
}

#[tokio::test]
async fn a_call_may_compute_anew() {
    assert_eq!((forced(1).await, forced(1).await), (1, 1));
    FORCE.store(true, Ordering::Relaxed);
    assert_eq!((forced(1).await, forced(1).await), (2, 3));
    FORCE.store(false, Ordering::Relaxed);
    assert_eq!(forced(1).await, 3);
}

static STALE: Runs = Runs::new();
static LEAST: AtomicU64 = AtomicU64::new(0);

#[memoize(cache = CACHE, stale_if = |value| u64::from(*value) < LEAST.load(Ordering::Relaxed))]
async fn at_least(number: u32) -> Result<u32, Error> {
    let _ = number;
    Ok(STALE.next())
}

#[tokio::test]
async fn a_value_may_be_judged() {
    assert_eq!(at_least(1).await.unwrap(), 1);
    assert_eq!(at_least(1).await.unwrap(), 1);
    LEAST.store(2, Ordering::Relaxed);
    assert_eq!(at_least(1).await.unwrap(), 2);
    assert_eq!(at_least(1).await.unwrap(), 2);
}

static STORED: Runs = Runs::new();

#[memoize(cache = CACHE, store_if = |text| text.len() < 3)]
async fn short(text: &str) -> String {
    STORED.next();
    text.to_owned()
}

#[tokio::test]
async fn a_value_may_be_left_unstored() {
    for text in ["ab", "ab", "abc", "abc"] {
        assert_eq!(short(text).await, text);
    }
    assert_eq!(STORED.count(), 3);
}

#[memoize(cache = CACHE, ttl = -1)]
async fn for_ever(number: u32) -> u32 {
    number
}

#[memoize(cache = CACHE, ttl = "1h30m")]
async fn spelt(number: u32) -> u32 {
    number
}

static SECONDS: AtomicU64 = AtomicU64::new(5);

/// Its ttl is set while the program runs.
#[memoize(cache = CACHE, ttl = Duration::from_secs(SECONDS.load(Ordering::Relaxed)))]
async fn set_at_run_time(number: u32) -> u32 {
    number
}

#[memoize(cache = CACHE)]
async fn by_default(number: u32) -> u32 {
    number
}

#[memoize(cache = CACHE, options = Ttl::After(Duration::from_secs(7)))]
async fn by_options(number: u32) -> u32 {
    number
}

#[tokio::test]
async fn a_value_lives_as_long_as_is_said() {
    let left = async |key: larder::Result<String>| CACHE.ttl(&key.unwrap()).await.unwrap();
    let within = |left: Option<Remaining>, secs| {
        let bound = Duration::from_secs(secs);
        let soon = bound.saturating_sub(Duration::from_secs(5));
        matches!(left, Some(Remaining::For(left)) if soon <= left && left <= bound)
    };
    for_ever(1).await;
    assert_eq!(left(for_ever::key(1)).await, Some(Remaining::Forever));
    spelt(1).await;
    assert!(within(left(spelt::key(1)).await, 5400));
    by_default(1).await;
    assert!(within(left(by_default::key(1)).await, 300));
    by_options(1).await;
    assert!(within(left(by_options::key(1)).await, 7));
    set_at_run_time(1).await;
    assert!(within(left(set_at_run_time::key(1)).await, 5));
    SECONDS.store(1000, Ordering::Relaxed);
    set_at_run_time(2).await;
    assert!(within(left(set_at_run_time::key(2)).await, 1000));
}

static TAGGED: Runs = Runs::new();

#[memoize(cache = CACHE, tags = ["tagged", "user:{id}", group.to_uppercase()])]
async fn tagged(id: u32, group: String) -> u32 {
    let _ = (id, group);
    TAGGED.next()
}

#[tokio::test]
async fn values_have_the_tags_that_are_said() {
    let call = || tagged(7, "ops".to_owned());
    assert_eq!((call().await, call().await), (1, 1));
    for (tag, runs) in [("user:8", 1), ("user:7", 2), ("OPS", 3), ("tagged", 4)] {
        CACHE.invalidate_tag(tag).await.unwrap();
        assert_eq!(call().await, runs, "{tag}");
    }
}

mod before {
    use super::*;

    #[memoize(cache = CACHE, source_check, name = "before")]
    pub(super) async fn checked(number: u32) -> u32 {
        number + 1 // As it was.
    }
}

mod after {
    use super::*;

    #[memoize(cache = CACHE, source_check, name = "after")]
    pub(super) async fn checked(number: u32) -> u32 {
        number + 2
    }
}

mod again {
    use super::*;

    #[memoize(cache = CACHE, source_check, name = "again")]
    pub(super) async fn checked(number: u32) -> u32 {
        // Laid out otherwise.
        number + 1
    }
}

#[tokio::test]
async fn another_text_of_a_function_is_another_key() {
    let rest = |key: larder::Result<String>| key.unwrap().split_once('<').unwrap().1.to_owned();
    assert_eq!(rest(before::checked::key(1)), rest(again::checked::key(1)));
    assert_ne!(rest(before::checked::key(1)), rest(after::checked::key(1)));
    assert_eq!(rest(before::checked::key(1)), "d04e21cc7829ead6>(1)");
    assert_eq!(
        (
            before::checked(1).await,
            after::checked(1).await,
            again::checked(1).await
        ),
        (2, 3, 2)
    );
}

static AHEAD: Runs = Runs::new();

fn ahead_of_its_end() -> Options {
    let ahead = RefreshAhead::Within(Duration::from_secs(10));
    Options::ttl(Duration::from_secs(60)).refresh_ahead(ahead)
}

#[memoize(options = ahead_of_its_end(), task, skip(cache))]
async fn ahead(cache: Moka, number: u32) -> Result<u32, Error> {
    let _ = (cache, number);
    Ok(AHEAD.next())
}

#[tokio::test]
async fn a_value_is_computed_anew_before_its_end() {
    let clock = Clock::manual();
    let cache = Moka::builder().clock(clock.clone()).build();
    let call = || ahead(cache.clone(), 1);
    assert_eq!(call().await.unwrap(), 1);
    clock.advance(Duration::from_secs(55));
    assert_eq!(call().await.unwrap(), 1);
    cache.shutdown().await;
    assert_eq!(AHEAD.count(), 2);
    assert_eq!(call().await.unwrap(), 2);
}

/// Sixteen callers at once.
#[tokio::test]
async fn one_call_of_many_computes() {
    static CALLS: Runs = Runs::new();

    #[memoize(cache = CACHE)]
    async fn slow(number: u32) -> u32 {
        tokio::task::yield_now().await;
        CALLS.next() + number
    }

    let calls: Vec<_> = (0..16).map(|_| tokio::spawn(slow(10))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 11);
    }
}
