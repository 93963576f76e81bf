//! Many callers at once, with nothing but the store to keep them apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::Trial;
use crate::error::ErrorKind;
use crate::ttl::Ttl;

/// Sixty-four callers that count to a hundred each: nothing is lost, and no sum is told twice.
pub async fn concurrent_increments_add_up(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::new(cache, profile));
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let t = Arc::clone(&t);
        callers.spawn(async move {
            let key = t.key("a");
            let mut sums = Vec::new();
            for _ in 0..100 {
                sums.push(t.cache.incr(&key, 1).await.map_err(|error| error.kind()));
            }
            sums
        });
    }
    let mut sums = callers.join_all().await.concat();
    sums.sort_by_key(|sum| sum.unwrap_or_default());
    if !profile.counts() {
        assert!(sums.iter().all(|sum| *sum == Err(ErrorKind::Unsupported)));
    } else if profile.stores() {
        assert_eq!(sums, (1..=6400).map(Ok).collect::<Vec<_>>());
        t.holds(&t.key("a"), 6400_i64).await;
    } else {
        assert_eq!(sums, [Ok(1); 6400]);
    }
}

/// Of sixty-four that add one key at once, exactly one does, and its value is the one that stands.
pub async fn one_of_concurrent_adds_wins(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::new(cache, profile));
    for round in 0..10 {
        let key = t.key(&format!("k{round}"));
        let mut callers = JoinSet::new();
        for caller in 0..64_u32 {
            let (t, key) = (Arc::clone(&t), key.clone());
            callers.spawn(async move {
                let added = t.cache.add(&key, caller, Ttl::Forever).await.unwrap();
                added.then_some(caller)
            });
        }
        let winners: Vec<u32> = callers.join_all().await.into_iter().flatten().collect();
        if profile.stores() {
            assert_eq!(winners.len(), 1);
            t.holds(&key, winners[0]).await;
        } else {
            assert_eq!(winners.len(), 64);
        }
    }
}

/// One caller writes rising numbers, others read: for no reader do they ever fall, nor lag behind a write that has returned.
pub async fn reads_never_go_back_in_time(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::new(cache, profile));
    let (key, over) = (t.key("a"), Arc::new(AtomicBool::new(false)));
    let written = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for reader in 0..4 {
        let (t, key, over, written) = (
            Arc::clone(&t),
            key.clone(),
            Arc::clone(&over),
            Arc::clone(&written),
        );
        readers.spawn(async move {
            let mut last = 0;
            while !over.load(Ordering::SeqCst) {
                let floor = written.load(Ordering::SeqCst).max(last);
                let got = match reader % 2 {
                    0 => t.cache.get::<u64>(&key).await.unwrap(),
                    _ => t.cache.get_many::<u64>(&[&key]).await.unwrap()[0],
                };
                if let Some(got) = got {
                    assert!(got >= floor, "{got} was read after {floor}");
                    last = got;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for number in 1..=500_u64 {
        match number % 4 {
            0 => t
                .cache
                .set_many([(&key, number)], Ttl::Forever)
                .await
                .unwrap(),
            1 => drop(t.cache.delete(&key).await.unwrap()),
            _ => t.cache.set(&key, number, Ttl::Forever).await.unwrap(),
        }
        written.store(number, Ordering::SeqCst);
        if number % 4 != 1 {
            t.holds(&key, number).await;
        }
    }
    over.store(true, Ordering::SeqCst);
    readers.join_all().await;
    t.holds(&key, 500_u64).await;
}

/// A source changes and the key is deleted; others compute from the source all the while. Nobody who asks after the
/// delete gets a number from before the change.
pub async fn computes_never_bring_back_the_deleted(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::new(cache, profile));
    let (key, over) = (t.key("a"), Arc::new(AtomicBool::new(false)));
    let (source, deleted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (t, key, over) = (Arc::clone(&t), key.clone(), Arc::clone(&over));
        let (source, deleted) = (Arc::clone(&source), Arc::clone(&deleted));
        callers.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let floor = deleted.load(Ordering::SeqCst);
                let got = t.cache.get_or_set(&key, Ttl::Forever, || async {
                    let number = source.load(Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    number
                });
                let got = got.await.unwrap();
                assert!(got >= floor, "{got} was answered after {floor}");
                // A hit in memory never waits, and would keep the others from their turn.
                tokio::task::yield_now().await;
            }
        });
    }
    for number in 1..=300_u64 {
        source.store(number, Ordering::SeqCst);
        t.cache.delete(&key).await.unwrap();
        deleted.store(number, Ordering::SeqCst);
        if let Some(got) = t.cache.get::<u64>(&key).await.unwrap() {
            assert!(got >= number, "{got} was read after {number}");
        }
        tokio::task::yield_now().await;
    }
    over.store(true, Ordering::SeqCst);
    callers.join_all().await;
    t.is_idle();
}
