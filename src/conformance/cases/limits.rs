//! Limits that were chosen, and lives of what is no value.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Gate, Trial};
use crate::error::ErrorKind;
use crate::options::Options;
use crate::ttl::Ttl;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(60);

/// A computed `None` lives for as long as is said for it, or is not stored at all.
pub async fn a_computed_none_has_a_life_of_its_own(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (none, some, never) = (t.key("none"), t.key("some"), t.key("never"));
    let options = || Options::ttl(Ttl::Forever).none_ttl(HOUR);
    let got = t
        .cache
        .get_or_set(&none, options(), || async { None::<u32> });
    assert_eq!(got.await.unwrap(), None);
    let got = t
        .cache
        .get_or_set(&some, options(), || async { Some(1_u32) });
    assert_eq!(got.await.unwrap(), Some(1));
    let not_at_all = Options::ttl(Ttl::Forever).none_ttl(Duration::ZERO);
    let got = t
        .cache
        .get_or_set(&never, not_at_all, || async { None::<u32> });
    assert_eq!(got.await.unwrap(), None);
    assert!(!t.cache.has(&never).await.unwrap());
    if !t.profile.stores() {
        for key in [&none, &some] {
            assert_eq!(t.cache.ttl(key).await.unwrap(), None);
        }
        return;
    }
    let left = async |key| {
        let left = t.cache.ttl(key).await.unwrap();
        left.expect("it was stored").duration()
    };
    assert!(left(&none).await.is_some_and(|left| left <= HOUR));
    assert_eq!(left(&some).await, None);
}

/// Chance shortens each life by as much as was chosen at most, in all ways to store.
pub async fn lives_are_shortened_by_chance(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let mut lives = Vec::new();
    for at in 0..12 {
        let key = t.key(&at.to_string());
        let options = Options::ttl(HOUR).jitter(0.5);
        if at % 2 == 0 {
            t.cache.set(&key, "set".to_owned(), options).await.unwrap();
        } else {
            let got = t.cache.get_or_set(&key, options, || async { 1_u32 });
            got.await.unwrap();
        }
        match t.cache.ttl(&key).await.unwrap() {
            Some(left) => lives.push(left.duration().expect("it ends")),
            None => assert!(!t.profile.stores()),
        }
    }
    if !t.profile.stores() {
        return assert!(lives.is_empty());
    }
    let slack = Duration::from_secs(60);
    assert!(
        lives
            .iter()
            .all(|life| *life <= HOUR && *life + slack >= HOUR / 2),
        "{lives:?}"
    );
    lives.sort();
    assert!(lives[11] - lives[0] > slack, "{lives:?}");
}

/// That a compute failed is kept for those who choose it, and is nothing to all else.
pub async fn a_failure_is_kept_for_those_who_choose_it(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let (key, tries) = (t.key("a"), AtomicU32::new(0));
    let kept = || Options::ttl(HOUR).error_ttl(HOUR);
    let attempt = async |options: Options| {
        let compute = || async {
            tries.fetch_add(1, Ordering::SeqCst);
            Err::<u32, _>(AppError::Origin("the origin is down"))
        };
        t.cache
            .try_get_or_set(&key, options, compute)
            .await
            .unwrap_err()
    };
    assert!(matches!(attempt(kept()).await, AppError::Origin(_)));
    for _ in 0..2 {
        match attempt(kept()).await {
            AppError::Cache(error) => {
                assert!(t.profile.stores());
                assert_eq!(error.kind(), ErrorKind::Compute);
                assert!(error.message().contains("the origin is down"), "{error}");
            }
            AppError::Origin(_) => assert!(!t.profile.stores()),
        }
    }
    assert_eq!(
        tries.load(Ordering::SeqCst),
        if t.profile.stores() { 1 } else { 3 }
    );
    // Another type is told too: it is the key's compute that failed.
    t.lacks::<u32>(&key).await;
    assert!(!t.cache.has(&key).await.unwrap());
    assert_eq!(t.cache.ttl(&key).await.unwrap(), None);
    assert!(matches!(
        attempt(Options::ttl(HOUR)).await,
        AppError::Origin(_)
    ));
    assert!(t.cache.add(&key, 7_u32, Ttl::Forever).await.unwrap());
    t.holds(&key, 7_u32).await;
    t.is_idle();
}

/// A failure that was kept ends with its time, with a delete, and with a value.
pub async fn a_kept_failure_ends(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let fails = async |ttl: Duration| {
        let options = Options::ttl(HOUR).error_ttl(ttl);
        let compute = || async { Err::<u32, _>(AppError::Origin("down")) };
        t.cache
            .try_get_or_set(&key, options, compute)
            .await
            .unwrap_err()
    };
    let works = async || {
        let options = Options::ttl(HOUR).error_ttl(HOUR);
        let compute = || async { Ok::<_, AppError>(2_u32) };
        t.cache.try_get_or_set(&key, options, compute).await
    };
    fails(HOUR).await;
    t.cache.delete(&key).await.unwrap();
    assert_eq!(works().await.unwrap(), 2);
    t.holds(&key, 2_u32).await;
    t.cache.delete(&key).await.unwrap();
    fails(SHORT).await;
    let begun = Instant::now();
    while works().await.is_err() {
        assert!(begun.elapsed() < 50 * SHORT);
        tokio::time::sleep(SHORT / 10).await;
    }
    t.holds(&key, 2_u32).await;
}

/// Past as many as may wait, a caller is told so at once, or has the stale value.
pub async fn no_more_wait_than_may(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let (key, gate) = (t.key("a"), Gate::default());
    let options = || Options::ttl(SHORT).grace(HOUR).max_waiters(1);
    for stale in [false, true] {
        let leads = t.cache.get_or_set(&key, options(), || async {
            gate.pass().await;
            1_u32
        });
        let others = async {
            gate.entered().await;
            let waits = t.cache.get_or_set(&key, options(), || async { 2_u32 });
            tokio::pin!(waits);
            // It has its seat by then.
            let first = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx))).await;
            assert!(first.is_pending());
            let refused = t
                .cache
                .get_or_set(&key, options(), || async { 3_u32 })
                .await;
            gate.open();
            (waits.await.unwrap(), refused)
        };
        let (led, (waited, refused)) = tokio::join!(leads, others);
        assert_eq!((led.unwrap(), waited), (1, 1));
        match refused {
            Ok(value) => assert!(stale && t.profile.stores() && value == 1),
            Err(error) => {
                assert!(!stale || !t.profile.stores());
                assert_eq!(error.kind(), ErrorKind::Busy);
            }
        }
        t.expires(&key, Instant::now() + SHORT).await;
    }
    t.is_idle();
}

/// Who waits for a compute that fails, and did not choose that failures are kept, tries itself.
pub async fn a_kept_failure_is_not_told_to_who_did_not_choose_it(
    cache: SharedCache,
    profile: Profile,
) {
    let t = Trial::patient(cache, profile);
    let (key, gate) = (t.key("a"), Gate::default());
    let kept = Options::ttl(HOUR).error_ttl(HOUR);
    let leads = t.cache.try_get_or_set(&key, kept, || async {
        gate.pass().await;
        Err::<u32, _>(AppError::Origin("down"))
    });
    let joins = async {
        gate.entered().await;
        let waits = t.cache.get_or_set(&key, HOUR, || async { 2_u32 });
        tokio::pin!(waits);
        let first = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx))).await;
        assert!(first.is_pending(), "it has its seat");
        gate.open();
        waits.await
    };
    let (led, joined) = tokio::join!(leads, joins);
    assert!(matches!(led, Err(AppError::Origin(_))));
    assert_eq!(joined.unwrap(), 2);
    t.holds(&key, 2_u32).await;
    t.is_idle();
}
