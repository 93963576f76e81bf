//! `get_or_set` and its kin, one caller at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Trial};
use crate::ttl::Ttl;

/// What was computed is stored; a hit does not compute.
pub async fn a_computed_value_is_stored(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let calls = AtomicU32::new(0);
    for _ in 0..3 {
        let got = t.cache.get_or_set(&key, Ttl::Forever, || async {
            calls.fetch_add(1, Ordering::Relaxed);
            "made".to_owned()
        });
        assert_eq!(got.await.unwrap(), "made");
    }
    let want = if profile.stores() { 1 } else { 3 };
    assert_eq!(calls.load(Ordering::Relaxed), want);
    t.holds(&key, "made".to_owned()).await;
    assert_eq!(t.cache.stats().computes, u64::from(want));
}

/// A value that was set is a hit for all four.
pub async fn a_set_value_is_not_computed(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, 1_u32).await;
    let want = t.held(1).unwrap_or(2);
    let compute = || async { 2_u32 };
    let attempt = || async { Ok::<_, AppError>(2_u32) };
    let owned = t.cache.get_or_set(&key, Ttl::Forever, compute).await;
    assert_eq!(owned.unwrap(), want);
    let shared = t.cache.get_or_set_shared(&key, Ttl::Forever, compute).await;
    assert_eq!(shared.unwrap(), Arc::new(want));
    let owned = t.cache.try_get_or_set(&key, Ttl::Forever, attempt).await;
    assert_eq!(owned.unwrap(), want);
    let shared = t
        .cache
        .try_get_or_set_shared(&key, Ttl::Forever, attempt)
        .await;
    assert_eq!(shared.unwrap(), Arc::new(want));
}

/// The shared variants compute and store alike.
pub async fn shared_computes_are_stored(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (plain, tried) = (t.key("plain"), t.key("tried"));
    let got = t
        .cache
        .get_or_set_shared(&plain, Ttl::Forever, || async { "x".to_owned() });
    assert_eq!(*got.await.unwrap(), "x");
    t.holds(&plain, "x".to_owned()).await;
    let attempt = || async { Ok::<_, AppError>("y".to_owned()) };
    let got = t
        .cache
        .try_get_or_set_shared(&tried, Ttl::Forever, attempt)
        .await;
    assert_eq!(*got.unwrap(), "y");
    t.holds(&tried, "y".to_owned()).await;
}

/// The caller whose compute erred gets its own error, and nothing is stored.
pub async fn errors_are_not_stored(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    for text in ["first", "second", "third"] {
        let attempt = || async { Err::<u32, _>(AppError::Origin(text)) };
        let owned = t.cache.try_get_or_set(&key, Ttl::Forever, attempt).await;
        let shared = t
            .cache
            .try_get_or_set_shared(&key, Ttl::Forever, attempt)
            .await;
        for error in [owned.unwrap_err(), shared.unwrap_err()] {
            assert!(
                matches!(error, AppError::Origin(told) if told == text),
                "{error:?}"
            );
        }
    }
    assert!(!t.cache.has(&key).await.unwrap());
    let attempt = || async { Ok::<_, AppError>(5_u32) };
    let got = t.cache.try_get_or_set(&key, Ttl::Forever, attempt).await;
    assert_eq!(got.unwrap(), 5);
    t.holds(&key, 5_u32).await;
    t.is_idle();
}

/// A compute may borrow what its caller owns.
pub async fn a_compute_may_borrow(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let mut seen = Vec::new();
    let text = String::from("borrowed");
    let got = t.cache.get_or_set(&key, Ttl::Forever, || async {
        seen.push(text.len());
        text.clone()
    });
    assert_eq!(got.await.unwrap(), text);
    assert_eq!(seen, [8]);
}

/// A compute may use the cache for other keys, `get_or_set` included.
pub async fn a_compute_may_use_the_cache(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (outer, inner) = (t.key("outer"), t.key("inner"));
    let got = t.cache.get_or_set(&outer, Ttl::Forever, || async {
        let part = t
            .cache
            .get_or_set(&inner, Ttl::Forever, || async { 20_u32 });
        part.await.unwrap() + 1
    });
    assert_eq!(got.await.unwrap(), 21);
    t.holds(&outer, 21_u32).await;
    t.holds(&inner, 20_u32).await;
    t.is_idle();
}

/// A value that was deleted is computed anew.
pub async fn a_deleted_value_is_computed_anew(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    for value in [1_u32, 2, 3] {
        let got = t
            .cache
            .get_or_set(&key, Ttl::Forever, || async move { value });
        assert_eq!(got.await.unwrap(), value);
        t.holds(&key, value).await;
        t.cache.delete(&key).await.unwrap();
    }
}
