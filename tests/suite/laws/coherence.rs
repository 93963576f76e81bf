//! Invalidation wins, in tiers: no copy in memory outlives what it was copied from.

use std::time::Duration;

use larder::testing::{Clock, Fault, Faulty, Recording};
use larder::{Cache, Eviction, Prefixed, Remaining, Tiered};

use super::{FOR_EVER, begun, builder, memory, server};

fn text(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn a_slow_read_overtaken_by_a_write_fills_no_memory() {
    for many in [false, true] {
        let (upper, server) = (memory(), server());
        let cache = Tiered::new(upper.clone(), server.clone());
        server.set("k", text("old"), FOR_EVER).await.unwrap();
        server.faults().always_any(Fault::StallAnswer);
        let reader = tokio::spawn({
            let cache = cache.clone();
            async move {
                match many {
                    false => cache.get::<String>("k").await.unwrap(),
                    true => cache.get_many::<String>(&["k"]).await.unwrap().remove(0),
                }
            }
        });
        server.faults().stalled(1).await;
        // The value is on its way. The delete goes another way, past the stall.
        server.get_ref().delete("k").await.unwrap();
        server.faults().heal();
        assert_eq!(reader.await.unwrap(), Some(text("old")), "it asked before");
        assert_eq!(upper.get::<String>("k").await.unwrap(), None);
        assert_eq!(cache.get::<String>("k").await.unwrap(), None);
        assert_eq!(cache.stats().fills_refused, 1);
    }
}

#[tokio::test]
async fn a_slow_read_overtaken_by_a_clear_fills_no_memory() {
    let (upper, server) = (memory(), server());
    let cache = Tiered::new(upper.clone(), server.clone());
    server.set("k", text("old"), FOR_EVER).await.unwrap();
    server.faults().next("fetch", 1, Fault::StallAnswer);
    let mut read = cache.get::<String>("k");
    assert!(begun(&mut read).await.is_pending());
    cache.clear().await.unwrap();
    server.faults().heal();
    assert_eq!(read.await.unwrap(), Some(text("old")));
    assert_eq!(upper.get::<String>("k").await.unwrap(), None);
    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
}

#[tokio::test]
async fn of_two_writers_memory_never_keeps_the_one_that_lost() {
    for first in ["store", "store_many"] {
        let (upper, server) = (memory(), server());
        let cache = Tiered::new(upper.clone(), server.clone());
        // The first is done below, and its answer is late; the second comes and goes meanwhile.
        server.faults().next(first, 1, Fault::StallAnswer);
        let slow = tokio::spawn({
            let cache = cache.clone();
            async move {
                match first {
                    "store" => cache.set("k", text("first"), FOR_EVER).await,
                    _ => cache.set_many([("k", text("first"))], FOR_EVER).await,
                }
            }
        });
        server.faults().stalled(1).await;
        cache.set("k", text("second"), FOR_EVER).await.unwrap();
        assert_eq!(
            cache.get::<String>("k").await.unwrap(),
            Some(text("second"))
        );
        server.faults().heal();
        slow.await.unwrap().unwrap();
        assert_eq!(
            cache.get::<String>("k").await.unwrap(),
            Some(text("second"))
        );
        assert_ne!(upper.get::<String>("k").await.unwrap(), Some(text("first")));
    }
}

#[tokio::test]
async fn a_slow_set_overtaken_by_a_delete_leaves_nothing_in_memory() {
    let (upper, server) = (memory(), server());
    let cache = Tiered::new(upper.clone(), server.clone());
    server.faults().next("store", 1, Fault::StallAnswer);
    let mut set = cache.set("k", text("new"), FOR_EVER);
    assert!(begun(&mut set).await.is_pending());
    assert!(cache.delete("k").await.unwrap());
    server.faults().heal();
    set.await.unwrap();
    assert_eq!(upper.get::<String>("k").await.unwrap(), None);
    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_delete_that_fails_below_empties_memory_and_says_so() {
    let (upper, server) = (memory(), server());
    let cache = Tiered::new(upper.clone(), server.clone());
    for key in ["a", "b", "c"] {
        cache.set(key, text("old"), FOR_EVER).await.unwrap();
        assert!(upper.has(key).await.unwrap());
    }
    server.faults().always_any(Fault::Fail);
    assert!(cache.delete("a").await.is_err());
    assert!(cache.delete_many(&["b"]).await.is_err());
    assert!(cache.set("c", text("new"), FOR_EVER).await.is_err());
    for key in ["a", "b", "c"] {
        assert_eq!(upper.get::<String>(key).await.unwrap(), None);
        assert!(
            cache.get::<String>(key).await.is_err(),
            "nothing old is answered"
        );
    }
    server.faults().heal();
    cache.set("d", text("old"), FOR_EVER).await.unwrap();
    server.faults().always_any(Fault::Fail);
    assert!(cache.clear().await.is_err());
    assert_eq!(upper.get::<String>("d").await.unwrap(), None);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_leaves_no_older_value_in_memory() {
    let (upper, server) = (memory(), server());
    let cache = Tiered::new(upper.clone(), server.clone());
    let lose = |operation| server.faults().next(operation, 1, Fault::LoseAnswer);
    cache.set("k", 1_i64, FOR_EVER).await.unwrap();
    lose("store");
    assert!(cache.set("k", 2_i64, FOR_EVER).await.is_err());
    assert_eq!(cache.get::<i64>("k").await.unwrap(), Some(2), "it was done");
    lose("add_to");
    assert!(cache.incr("k", 1).await.is_err());
    assert_eq!(cache.get::<i64>("k").await.unwrap(), Some(3));
    lose("retime");
    assert!(cache.touch("k", Duration::ZERO).await.is_err());
    assert_eq!(cache.get::<i64>("k").await.unwrap(), None);
    cache.set("k", 4_i64, FOR_EVER).await.unwrap();
    lose("remove");
    assert!(cache.delete("k").await.is_err());
    assert_eq!(cache.get::<i64>("k").await.unwrap(), None);
}

#[tokio::test]
async fn tiers_over_one_store_and_the_store_itself_invalidate_each_other() {
    let server = server();
    let one = Tiered::new(memory(), server.clone());
    let two = Tiered::new(memory(), Prefixed::new(server.clone(), "app:"));
    let three = Tiered::new(memory(), one.clone());
    let all_read = async |value: Option<i64>| {
        assert_eq!(one.get::<i64>("app:k").await.unwrap(), value);
        assert_eq!(two.get::<i64>("k").await.unwrap(), value);
        assert_eq!(three.get::<i64>("app:k").await.unwrap(), value);
        assert_eq!(server.get::<i64>("app:k").await.unwrap(), value);
    };
    all_read(None).await;
    server.set("app:k", 1_i64, FOR_EVER).await.unwrap();
    all_read(Some(1)).await;
    two.set("k", 2_i64, FOR_EVER).await.unwrap();
    all_read(Some(2)).await;
    three.incr("app:k", 1).await.unwrap();
    all_read(Some(3)).await;
    one.touch("app:k", Duration::ZERO).await.unwrap();
    all_read(None).await;
    assert!(two.add("k", 4_i64, FOR_EVER).await.unwrap());
    all_read(Some(4)).await;
    two.clear().await.unwrap();
    all_read(None).await;
    one.set("app:k", 5_i64, FOR_EVER).await.unwrap();
    all_read(Some(5)).await;
    server.delete_many(&["app:k"]).await.unwrap();
    all_read(None).await;
    one.set_many([("app:k", 6_i64)], FOR_EVER).await.unwrap();
    all_read(Some(6)).await;
    server.clear().await.unwrap();
    all_read(None).await;
}

#[tokio::test]
async fn a_tier_put_above_a_store_during_a_write_does_not_keep_the_old_value() {
    let server = server();
    server.set("k", text("old"), FOR_EVER).await.unwrap();
    server.faults().always("store", Fault::Stall);
    let mut set = server.set("k", text("new"), FOR_EVER);
    assert!(begun(&mut set).await.is_pending());
    let cache = Tiered::new(memory(), server.clone());
    assert_eq!(cache.get::<String>("k").await.unwrap(), Some(text("old")));
    server.faults().heal();
    set.await.unwrap();
    assert_eq!(cache.get::<String>("k").await.unwrap(), Some(text("new")));
}

#[tokio::test]
async fn a_tier_put_above_a_store_during_a_clear_does_not_keep_the_old_value() {
    let server = server();
    server.set("k", text("old"), FOR_EVER).await.unwrap();
    server.faults().always("wipe", Fault::Stall);
    let mut clear = server.clear();
    assert!(begun(&mut clear).await.is_pending());
    let cache = Tiered::new(memory(), server.clone());
    assert_eq!(cache.get::<String>("k").await.unwrap(), Some(text("old")));
    server.faults().heal();
    clear.await.unwrap();
    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_dropped_write_leaves_memory_without_the_old_value() {
    let (upper, server) = (memory(), server());
    let cache = Tiered::new(upper.clone(), server.clone());
    cache.set("k", text("old"), FOR_EVER).await.unwrap();
    // It is done below, and its caller is gone before the answer.
    server.faults().always("store", Fault::StallAnswer);
    let mut set = cache.set("k", text("new"), FOR_EVER);
    assert!(begun(&mut set).await.is_pending());
    drop(set);
    server.faults().heal();
    assert_eq!(upper.get::<String>("k").await.unwrap(), None);
    assert_eq!(cache.get::<String>("k").await.unwrap(), Some(text("new")));
    assert_eq!(
        upper.get::<String>("k").await.unwrap(),
        Some(text("new")),
        "filled again"
    );
}

#[tokio::test]
async fn a_copy_lives_no_longer_than_its_value() {
    let clock = Clock::manual();
    let (upper, lower) = (
        builder().clock(clock.clone()).build(),
        builder().clock(clock.clone()).build(),
    );
    let cache = Tiered::new(upper.clone(), Faulty::remote(lower.clone()));
    lower
        .set("k", 1_u32, Duration::from_secs(10))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(9));
    assert_eq!(cache.get::<u32>("k").await.unwrap(), Some(1));
    let left = upper.ttl("k").await.unwrap();
    assert_eq!(left, Some(Remaining::For(Duration::from_secs(1))));
    clock.advance(Duration::from_secs(1));
    assert_eq!(upper.get::<u32>("k").await.unwrap(), None);
    assert_eq!(cache.get::<u32>("k").await.unwrap(), None);
}

#[tokio::test]
async fn copies_live_at_most_their_own_bound() {
    let clock = Clock::manual();
    let memory = || builder().clock(clock.clone()).build();
    let (upper, below) = (memory(), Recording::new(Faulty::remote(memory())));
    let cache = Tiered::builder(upper.clone(), below.clone())
        .max_l1_ttl(Duration::from_secs(3))
        .build();
    cache.set("long", 1_u32, FOR_EVER).await.unwrap();
    cache
        .set("short", 1_u32, Duration::from_secs(1))
        .await
        .unwrap();
    let left = async |key| upper.ttl(key).await.unwrap();
    assert_eq!(
        left("long").await,
        Some(Remaining::For(Duration::from_secs(3)))
    );
    assert_eq!(
        left("short").await,
        Some(Remaining::For(Duration::from_secs(1)))
    );
    assert_eq!(cache.get::<u32>("long").await.unwrap(), Some(1));
    assert_eq!(below.count("fetch"), 0, "memory had it");
    clock.advance(Duration::from_secs(3));
    assert_eq!(cache.get::<u32>("long").await.unwrap(), Some(1));
    assert_eq!(below.count("fetch"), 1, "asked again");
    assert_eq!(
        left("long").await,
        Some(Remaining::For(Duration::from_secs(3)))
    );
    assert_eq!(cache.ttl("long").await.unwrap(), Some(Remaining::Forever));
}

/// A tier whose memory has room for next to nothing answers from below.
#[tokio::test]
async fn what_memory_refuses_is_answered_from_below() {
    let upper = builder().max_entries(1).eviction(Eviction::TinyLfu).build();
    let cache = Tiered::new(upper, memory());
    for index in 0..100_u32 {
        cache
            .set(&format!("k{index}"), index, FOR_EVER)
            .await
            .unwrap();
    }
    for index in 0..100_u32 {
        let got = cache.get::<u32>(&format!("k{index}")).await.unwrap();
        assert_eq!(got, Some(index));
    }
}
