//! Values that are computed anew before their life is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Gate, Trial};
use crate::context::Context;
use crate::options::Options;
use crate::refresh::RefreshAhead;

const HOUR: Duration = Duration::from_secs(3600);

/// Due at every hit.
fn always() -> Options {
    Options::ttl(HOUR).refresh_ahead(RefreshAhead::Within(2 * HOUR))
}

/// Computes that count themselves.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicU32>);

impl Counted {
    fn so_far(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    async fn call(&self, t: &Trial<SharedCache>, key: &str, options: Options) -> u32 {
        let counted = Arc::clone(&self.0);
        let compute = move |_: Context| async move {
            // So long that chance has something to go by.
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok::<_, AppError>(counted.fetch_add(1, Ordering::SeqCst) + 1)
        };
        t.cache
            .get_or_set_with(key, options, compute)
            .await
            .unwrap()
    }
}

/// A value, 1, that is due at every hit. Where nothing is held there is nothing to compute anew: each call computes, and nothing goes on
/// in the background.
async fn stored_once(cache: SharedCache, profile: Profile) -> Option<(Trial<SharedCache>, String)> {
    let t = Trial::patient(cache, profile);
    let (key, computes) = (t.key("a"), Counted::default());
    assert_eq!(computes.call(&t, &key, always()).await, 1);
    if t.profile.stores() {
        return Some((t, key));
    }
    for computed in 2..5 {
        assert_eq!(computes.call(&t, &key, always()).await, computed);
    }
    assert_eq!(t.cache.stats().refreshes, 0);
    None
}

async fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it never happened"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A hit near the end of a value's life answers it, and has it computed anew in the background.
pub async fn a_value_near_its_end_is_computed_anew(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    for refresh in [RefreshAhead::Within(2 * HOUR), RefreshAhead::XFetch(1e9)] {
        let (key, computes) = (t.key(&format!("{refresh:?}")), Counted::default());
        let options = || Options::ttl(HOUR).refresh_ahead(refresh);
        assert_eq!(computes.call(&t, &key, options()).await, 1);
        let second = computes.call(&t, &key, options()).await;
        assert_eq!(second, t.held(1).unwrap_or(2));
        until(|| computes.so_far() == 2).await;
        t.cache.core().tasks().drain(HOUR).await;
        t.holds(&key, 2_u32).await;
    }
    t.is_idle();
}

/// A hit far from the end does nothing.
pub async fn a_value_far_from_its_end_is_left_alone(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let seconds = Duration::from_secs(10);
    for refresh in [
        RefreshAhead::Never,
        RefreshAhead::Within(seconds),
        RefreshAhead::XFetch(1.0),
    ] {
        let (key, computes) = (t.key(&format!("{refresh:?}")), Counted::default());
        for _ in 0..5 {
            let options = Options::ttl(HOUR).refresh_ahead(refresh);
            computes.call(&t, &key, options).await;
        }
        t.cache.core().tasks().drain(HOUR).await;
        assert_eq!(computes.so_far(), if t.profile.stores() { 1 } else { 5 });
    }
}

/// However many find it due, one computes; it sees what it is to replace.
pub async fn one_at_a_time_computes_anew(cache: SharedCache, profile: Profile) {
    let Some((t, key)) = stored_once(cache, profile).await else {
        return;
    };
    let gate = Arc::new(Gate::default());
    let refreshes = t.cache.stats().refreshes;
    for _ in 0..20 {
        let passes = Arc::clone(&gate);
        let anew = move |context: Context| async move {
            passes.pass().await;
            Ok::<_, AppError>(context.previous::<u32>().map_or(0, |value| *value + 1))
        };
        let hit = t.cache.get_or_set_with(&key, always(), anew).await;
        assert_eq!(hit.unwrap(), 1);
    }
    gate.entered().await;
    gate.open();
    t.cache.core().tasks().drain(HOUR).await;
    t.holds(&key, 2_u32).await;
    assert_eq!(t.cache.stats().refreshes - refreshes, 1);
}

/// A refresh that failed leaves the value as it is, also where failures are kept, and is not tried again for the throttle time.
pub async fn a_failed_refresh_is_not_tried_again_for_a_while(cache: SharedCache, profile: Profile) {
    let Some((t, key)) = stored_once(cache, profile).await else {
        return;
    };
    let tries = Arc::new(AtomicU32::new(0));
    for panics in [true, false, true] {
        let tried = Arc::clone(&tries);
        let fails = move |_: Context| async move {
            tried.fetch_add(1, Ordering::SeqCst);
            assert!(!panics, "as it must");
            Err::<u32, _>(AppError::Origin("down"))
        };
        let hit = t
            .cache
            .get_or_set_with(&key, always().error_ttl(HOUR), fails)
            .await;
        assert_eq!(hit.unwrap(), 1);
        t.cache.core().tasks().drain(HOUR).await;
    }
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    t.holds(&key, 1_u32).await;
    t.is_idle();
}

/// What was deleted while it was computed anew stays deleted.
pub async fn a_delete_wins_over_a_refresh(cache: SharedCache, profile: Profile) {
    let Some((t, key)) = stored_once(cache, profile).await else {
        return;
    };
    let gate = Arc::new(Gate::default());
    let passes = Arc::clone(&gate);
    let anew = move |_: Context| async move {
        passes.pass().await;
        Ok::<_, AppError>(2_u32)
    };
    let hit = t.cache.get_or_set_with(&key, always(), anew).await;
    assert_eq!(hit.unwrap(), 1);
    gate.entered().await;
    t.cache.delete(&key).await.unwrap();
    gate.open();
    t.cache.core().tasks().drain(HOUR).await;
    t.lacks::<u32>(&key).await;
    t.is_idle();
}

/// `shutdown` waits for what is computed in the background.
pub async fn shutdown_waits_for_refreshes(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (key, computes) = (t.key("a"), Counted::default());
    computes.call(&t, &key, always()).await;
    computes.call(&t, &key, always()).await;
    t.cache.shutdown().await;
    assert_eq!(computes.so_far(), 2);
}
