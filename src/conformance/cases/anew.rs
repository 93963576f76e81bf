//! `refresh`: computing a value anew because its caller says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Gate, Seats, Trial};
use crate::options::Options;
use crate::ttl::Ttl;

/// It computes although there is a value, and stores what it computed.
pub async fn a_refresh_replaces_a_value(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, "old".to_owned()).await;
    for text in ["new", "newer"] {
        let compute = |_| async { Ok::<_, AppError>(text.to_owned()) };
        let got = t.cache.refresh(&key, Ttl::Forever, compute).await;
        assert_eq!(got.unwrap(), text);
        t.holds(&key, text.to_owned()).await;
    }
    assert_eq!(t.cache.stats().computes, 2);
}

/// What fails, or is not to be stored, leaves what stands there.
pub async fn a_refresh_that_stores_nothing_leaves_the_value(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, 1_u32).await;
    let err = |_| async { Err::<u32, _>(AppError::Origin("down")) };
    let got = t.cache.refresh(&key, Ttl::Forever, err).await;
    assert!(matches!(got.unwrap_err(), AppError::Origin("down")));
    t.holds(&key, 1_u32).await;
    let passing = |context: crate::context::Context| async move {
        context.do_not_store();
        Ok::<_, AppError>(2_u32)
    };
    let got = t.cache.refresh(&key, Ttl::Forever, passing).await;
    assert_eq!(got.unwrap(), 2);
    t.holds(&key, 1_u32).await;
}

/// A value without a life takes the place of the older one, which is to leave nothing.
pub async fn a_refreshed_value_without_a_life_removes_the_older(
    cache: SharedCache,
    profile: Profile,
) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, Some(1_u32)).await;
    let options = Options::ttl(Ttl::Forever).none_ttl(Duration::ZERO);
    let none = |_| async { Ok::<_, AppError>(None::<u32>) };
    let got = t.cache.refresh(&key, options, none).await;
    assert_eq!(got.unwrap(), None);
    t.lacks::<Option<u32>>(&key).await;
}

/// The others are answered what stands there while it is computed anew.
pub async fn a_refresh_holds_nobody_up(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::patient(cache, profile));
    let (key, gate) = (t.key("a"), Arc::new(Gate::default()));
    t.set(&key, 1_u32).await;
    let refresher = tokio::spawn({
        let (t, key, gate) = (Arc::clone(&t), key.clone(), Arc::clone(&gate));
        async move {
            let compute = |_| async {
                gate.pass().await;
                Ok::<_, AppError>(2_u32)
            };
            t.cache.refresh(&key, Ttl::Forever, compute).await
        }
    });
    gate.entered().await;
    let seats = Arc::new(Seats::new());
    let other = tokio::spawn({
        let (t, key, seats) = (Arc::clone(&t), key.clone(), Arc::clone(&seats));
        async move {
            let got = t.cache.get_or_set(&key, Ttl::Forever, || async { 3_u32 });
            seats.take(got).await
        }
    });
    seats.taken(1).await;
    if profile.stores() {
        assert_eq!(other.await.unwrap().unwrap(), 1);
        gate.open();
    } else {
        // Nothing stands there: the compute is shared.
        gate.open();
        assert_eq!(other.await.unwrap().unwrap(), 2);
    }
    assert_eq!(refresher.await.unwrap().unwrap(), 2);
    t.holds(&key, 2_u32).await;
}

/// A compute that began before it is not stored after it.
pub async fn a_refresh_wins_over_an_older_compute(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::patient(cache, profile));
    let (key, gate) = (t.key("a"), Arc::new(Gate::default()));
    let older = tokio::spawn({
        let (t, key, gate) = (Arc::clone(&t), key.clone(), Arc::clone(&gate));
        async move {
            let compute = || async {
                gate.pass().await;
                "old".to_owned()
            };
            t.cache.get_or_set(&key, Ttl::Forever, compute).await
        }
    });
    gate.entered().await;
    let new = |_| async { Ok::<_, AppError>("new".to_owned()) };
    let got = t.cache.refresh(&key, Ttl::Forever, new).await;
    assert_eq!(got.unwrap(), "new");
    t.holds(&key, "new".to_owned()).await;
    gate.open();
    assert_eq!(older.await.unwrap().unwrap(), "old");
    t.holds(&key, "new".to_owned()).await;
}

/// A delete while it computes has the last word.
pub async fn a_delete_wins_over_a_refresh_under_way(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::patient(cache, profile));
    let (key, gate, calls) = (t.key("a"), Arc::new(Gate::default()), AtomicUsize::new(0));
    t.set(&key, 1_u32).await;
    let refresher = tokio::spawn({
        let (t, key, gate) = (Arc::clone(&t), key.clone(), Arc::clone(&gate));
        async move {
            let compute = |_| async {
                calls.fetch_add(1, Ordering::SeqCst);
                gate.pass().await;
                Ok::<_, AppError>(2_u32)
            };
            let got = t.cache.refresh(&key, Ttl::Forever, compute).await;
            (got, calls.load(Ordering::SeqCst))
        }
    });
    gate.entered().await;
    t.cache.delete(&key).await.unwrap();
    gate.open();
    let (got, calls) = refresher.await.unwrap();
    assert_eq!((got.unwrap(), calls), (2, 1));
    t.lacks::<u32>(&key).await;
}
