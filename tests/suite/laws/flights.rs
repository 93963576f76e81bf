//! One compute per key, and writes that come while one is under way or being stored.

use std::sync::Arc;
use std::time::Duration;

use larder::testing::{Clock, Fault, Faulty};
use larder::{Backend, Cache, Tiered};
use tokio::sync::Notify;

use super::{FOR_EVER, begun, builder, memory, server};

const BOUND: Duration = Duration::from_millis(100);

fn text(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn a_compute_that_began_during_a_clear_is_not_stored() {
    let server = server();
    let cache = Tiered::new(memory(), server.clone());
    server.faults().always("wipe", Fault::Stall);
    let mut clear = cache.clear();
    assert!(begun(&mut clear).await.is_pending());
    let gate = Arc::new(Notify::new());
    let mut during = cache.get_or_set("k", FOR_EVER, || async {
        gate.notified().await;
        text("computed")
    });
    assert!(begun(&mut during).await.is_pending());
    server.faults().heal();
    clear.await.unwrap();
    gate.notify_one();
    assert_eq!(during.await.unwrap(), "computed");
    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
    assert_eq!(cache.core().in_flight(), 0);
}

/// Its value is handed to who asks, but not for ever: not past its own life.
#[tokio::test]
async fn a_leader_parked_in_its_store_does_not_make_its_value_immortal() {
    let server = Faulty::remote(builder().leader_patience(BOUND).build());
    let life = Duration::from_millis(50);
    server.faults().next("store", 1, Fault::Stall);
    let mut parked = server.get_or_set("k", life, || async { text("old") });
    assert!(begun(&mut parked).await.is_pending());
    let got = server.get_or_set("k", life, || async { text("new") }).await;
    assert_eq!(got.unwrap(), "old", "just computed");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while server
        .get_or_set("k", FOR_EVER, || async { text("new") })
        .await
        .unwrap()
        == "old"
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "`old` is answered long past its life"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.faults().heal();
    assert_eq!(parked.await.unwrap(), "old");
    let left = server.get::<String>("k").await.unwrap();
    assert_ne!(left, Some(text("old")));
    assert_eq!(server.core().in_flight(), 0);
}

#[tokio::test]
async fn a_slow_read_of_the_leader_is_within_everybodys_patience() {
    let server = Faulty::remote(
        builder()
            .leader_patience(Duration::from_secs(30))
            .store_timeout(BOUND)
            .build(),
    );
    server.faults().always("fetch", Fault::Stall);
    let calls: Vec<_> = (0..10_u32)
        .map(|caller| {
            let server = server.clone();
            tokio::spawn(async move { server.get_or_set("k", FOR_EVER, || async { caller }).await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        let call = tokio::time::timeout(Duration::from_secs(10), call);
        answers.push(call.await.expect("it ends").unwrap().unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "one compute");
    assert_eq!(server.stats().computes, 1);
}

#[tokio::test]
async fn two_tiers_over_one_store_share_a_compute() {
    let server = server();
    let (one, two) = (
        Tiered::new(memory(), server.clone()),
        Tiered::new(memory(), server.clone()),
    );
    let gate = Arc::new(Notify::new());
    let mut leader = one.get_or_set("k", FOR_EVER, || async {
        gate.notified().await;
        1_u32
    });
    assert!(begun(&mut leader).await.is_pending());
    let mut follower = two.get_or_set("k", FOR_EVER, || async { 2_u32 });
    assert!(begun(&mut follower).await.is_pending());
    let mut bare = server.get_or_set("k", FOR_EVER, || async { 3_u32 });
    assert!(begun(&mut bare).await.is_pending());
    gate.notify_one();
    let (leader, follower, bare) = tokio::join!(leader, follower, bare);
    assert_eq!([leader, follower, bare].map(Result::unwrap), [1; 3]);
}

#[tokio::test]
async fn a_value_computed_for_long_lives_from_when_it_was_computed() {
    let clock = Clock::manual();
    let cache = builder().clock(clock.clone()).build();
    let minute = Duration::from_secs(60);
    let got = cache.get_or_set("k", minute, || async {
        clock.advance(Duration::from_secs(45));
        1_u32
    });
    assert_eq!(got.await.unwrap(), 1);
    let left = cache
        .ttl("k")
        .await
        .unwrap()
        .and_then(larder::Remaining::duration);
    assert_eq!(left, Some(minute));
}
