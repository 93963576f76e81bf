//! Values that are computed anew while others ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::testing::Faulty;
use larder::{Cache, Error, Moka, Ttl, memoize};
use tokio::sync::Semaphore;

/// A store that has to be asked, whose callers are impatient.
fn store() -> Faulty<Moka> {
    let patience = Duration::from_millis(20);
    Faulty::remote(Moka::builder().leader_patience(patience).build())
}

/// A refresh that has begun, and ends when it is let.
async fn begun(
    store: &Faulty<Moka>,
) -> (tokio::task::JoinHandle<Result<u32, Error>>, Arc<Semaphore>) {
    let (begun, ends) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let refresh = tokio::spawn({
        let (store, begun, ends) = (store.clone(), Arc::clone(&begun), Arc::clone(&ends));
        async move {
            let compute = |_| async {
                begun.add_permits(1);
                let _ended = ends.acquire().await;
                Ok::<_, Error>(2)
            };
            store.refresh("a", Ttl::Forever, compute).await
        }
    });
    let _begun = begun.acquire().await.unwrap();
    (refresh, ends)
}

/// Who loses patience with it is answered what stands there, and does not have that take its place.
#[tokio::test]
async fn a_refresh_that_takes_long_is_stored() {
    let store = store();
    store.set("a", 1_u32, Ttl::Forever).await.unwrap();
    let (refresh, ends) = begun(&store).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let other = store.get_or_set("a", Ttl::Forever, || async { 3_u32 });
        assert_eq!(other.await.unwrap(), 1);
    }
    ends.add_permits(1);
    assert_eq!(refresh.await.unwrap().unwrap(), 2);
    assert_eq!(store.get("a").await.unwrap(), Some(2_u32));
}

/// A write that leaves the older value there does not keep it there.
#[tokio::test]
async fn a_refresh_that_was_cut_off_leaves_no_older_value() {
    for write in ["touch", "add", "refresh"] {
        let store = store();
        store.set("a", 1_u32, Ttl::Forever).await.unwrap();
        let (refresh, ends) = begun(&store).await;
        match write {
            "touch" => assert!(store.touch("a", Ttl::Forever).await.unwrap()),
            "add" => assert!(!store.add("a", 9_u32, Ttl::Forever).await.unwrap()),
            _ => {
                let failing = |_| async { Err(Error::new(larder::ErrorKind::Compute, "down")) };
                let failed = store
                    .refresh::<u32, Error, _, _>("a", Ttl::Forever, failing)
                    .await;
                failed.unwrap_err();
            }
        }
        ends.add_permits(1);
        assert_eq!(refresh.await.unwrap().unwrap(), 2);
        assert_ne!(store.get("a").await.unwrap(), Some(1_u32), "{write}");
    }
}

static LEAST: AtomicU32 = AtomicU32::new(0);
static RUNS: AtomicU32 = AtomicU32::new(0);

#[memoize(stale_if = |run| *run < LEAST.load(Ordering::SeqCst), skip(gate))]
async fn judged(cache: &Faulty<Moka>, gate: &Semaphore) -> u32 {
    let _ = cache;
    let run = RUNS.fetch_add(1, Ordering::SeqCst) + 1;
    if let Ok(pass) = gate.acquire().await {
        pass.forget();
    }
    run
}

/// Those who find a value out of date share one run, and it is stored.
#[tokio::test]
async fn one_of_many_computes_what_is_out_of_date() {
    let (store, gate) = (Faulty::remote(Moka::new(10)), Arc::new(Semaphore::new(1)));
    assert_eq!(judged(&store, &gate).await, 1);
    LEAST.store(2, Ordering::SeqCst);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (store, gate) = (store.clone(), Arc::clone(&gate));
            tokio::spawn(async move { judged(&store, &gate).await })
        })
        .collect();
    while RUNS.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    // All of them have asked by then.
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.add_permits(20);
    for call in calls {
        assert_eq!(call.await.unwrap(), 2);
    }
    assert_eq!(judged(&store, &gate).await, 2);
    assert_eq!(RUNS.load(Ordering::SeqCst), 2);
}
