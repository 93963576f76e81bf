//! A cache never breaks its application: what fails, stalls or is away costs a miss.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use larder::testing::Fault;
use larder::{Backend, Cache, ErrorKind, Null, Tiered};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FOR_EVER, builder, memory, server};

const BOUND: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_failing_store_costs_a_compute() {
    let server = server();
    let cache = Tiered::new(memory(), server.clone());
    for fault in [Fault::Fail, Fault::LoseAnswer] {
        server.faults().always_any(fault);
        for value in [1_u32, 2] {
            let key = format!("{fault:?} {value}");
            let got = cache
                .get_or_set(&key, FOR_EVER, || async move { value })
                .await;
            assert_eq!(got.unwrap(), value);
            let keys = [format!("{key} many")];
            let compute = |missing: Vec<String>| async move {
                missing
                    .into_iter()
                    .map(|key| (key, value))
                    .collect::<HashMap<_, _>>()
            };
            let got = cache.get_or_set_many(&keys, FOR_EVER, compute).await;
            assert_eq!(got.unwrap(), [Some(value)]);
            let refuse = || async {
                Err::<u32, larder::Error>(larder::Error::new(ErrorKind::Compute, "own"))
            };
            let got = cache
                .try_get_or_set(&format!("{key} err"), FOR_EVER, refuse)
                .await;
            assert_eq!(got.unwrap_err().message(), "own");
        }
        server.faults().heal();
    }
    assert!(cache.stats().read_errors > 0 && cache.stats().write_errors > 0);
    assert_eq!(cache.core().in_flight(), 0);
}

#[tokio::test]
async fn a_store_that_never_answers_is_waited_for_within_its_bound() {
    let server = server();
    let cache = Tiered::builder(memory(), server.clone())
        .store_timeout(BOUND)
        .build();
    for fault in [Fault::Stall, Fault::StallAnswer] {
        server.faults().always_any(fault);
        let began = Instant::now();
        let got = cache.get_or_set("k", FOR_EVER, || async { 1_u32 }).await;
        assert_eq!(got.unwrap(), 1);
        assert_eq!(
            cache.get::<u32>("k").await.unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert_eq!(
            cache.set("k", 1_u32, FOR_EVER).await.unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert_eq!(
            cache.delete("k").await.unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert_eq!(
            cache.incr("n", 1).await.unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert_eq!(
            cache.touch("k", FOR_EVER).await.unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert_eq!(cache.has("k").await.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(cache.ttl("k").await.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(cache.get_many::<u32>(&["k"]).await.unwrap(), [None]);
        assert!(cache.set_many([("k", 1_u32)], FOR_EVER).await.is_err());
        assert!(cache.delete_many(&["k"]).await.is_err());
        assert!(began.elapsed() < BOUND * 12 + Duration::from_secs(10));
        server.faults().heal();
    }
    assert_eq!(cache.core().in_flight(), 0);
}

#[tokio::test]
async fn a_strict_cache_tells_of_its_store() {
    let server = server();
    let cache = Tiered::builder(memory(), server.clone())
        .strict(true)
        .build();
    server.faults().always_any(Fault::Fail);
    let computed = cache.get_or_set("k", FOR_EVER, || async { 1_u32 }).await;
    assert_eq!(computed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(
        cache.get_many::<u32>(&["k"]).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    server.faults().heal();
    for operation in ["store", "store_many"] {
        server.faults().always(operation, Fault::Fail);
    }
    let computed = cache.get_or_set("k", FOR_EVER, || async { 1_u32 }).await;
    assert_eq!(computed.unwrap_err().kind(), ErrorKind::Unavailable);
    let all = |missing: Vec<String>| async move {
        missing
            .into_iter()
            .map(|key| (key, 1_u32))
            .collect::<HashMap<_, _>>()
    };
    let computed = cache.get_or_set_many(&["k"], FOR_EVER, all).await;
    assert_eq!(computed.unwrap_err().kind(), ErrorKind::Unavailable);
    server.faults().heal();
    let computed = cache.get_or_set("k", FOR_EVER, || async { 1_u32 }).await;
    assert_eq!(computed.unwrap(), 1);
    assert_eq!(cache.core().in_flight(), 0);
}

#[tokio::test]
async fn writes_of_many_tell_how_many_failed() {
    let server = server();
    let cache = Tiered::new(memory(), server.clone());
    server.faults().always("store_many", Fault::Fail);
    let error = cache
        .set_many([("a", 1_u32), ("b", 2)], FOR_EVER)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Partial);
    let told: HashMap<_, _> = error.context().collect();
    assert_eq!((told["failed"], told["of"]), ("2", "2"));
}

/// Its `Serialize` refuses the number 13.
#[derive(Clone, Debug, PartialEq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 13 {
            return Err(serde::ser::Error::custom("not thirteen"));
        }
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }
}

#[tokio::test]
async fn a_set_that_cannot_be_encoded_touches_no_tier() {
    let (upper, lower) = (memory(), memory());
    let cache = Tiered::new(upper.clone(), lower.clone());
    cache.set("k", Picky(1), FOR_EVER).await.unwrap();
    let kind = |answer: larder::Result<()>| answer.unwrap_err().kind();
    assert_eq!(
        kind(cache.set("k", Picky(13), FOR_EVER).await),
        ErrorKind::Encode
    );
    let pairs = [("k", Picky(2)), ("l", Picky(13))];
    assert_eq!(
        kind(cache.set_many(pairs, FOR_EVER).await),
        ErrorKind::Encode
    );
    for store in [&upper, &lower] {
        assert_eq!(store.get::<Picky>("k").await.unwrap(), Some(Picky(1)));
        assert!(!store.has("l").await.unwrap());
    }
    let got = cache
        .get_or_set("computed", FOR_EVER, || async { Picky(13) })
        .await;
    assert_eq!(got.unwrap(), Picky(13));
    assert_eq!(cache.get::<Picky>("computed").await.unwrap(), None);
    assert_eq!(cache.stats().encode_errors, 3);
}

#[tokio::test]
async fn a_value_too_large_below_touches_no_tier() {
    let upper = memory();
    let cache = Tiered::new(upper.clone(), builder().max_bytes(1000).build());
    cache.set("k", "small".to_owned(), FOR_EVER).await.unwrap();
    let large = "x".repeat(2000);
    let refused = cache.set("k", large.clone(), FOR_EVER).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(
        upper.get::<String>("k").await.unwrap().as_deref(),
        Some("small")
    );
    let got = cache
        .get_or_set("large", FOR_EVER, || async { large.clone() })
        .await;
    assert_eq!(got.unwrap(), large);
    assert!(!upper.has("large").await.unwrap());
}

#[tokio::test]
async fn an_upper_tier_that_fails_changes_no_answer() {
    let upper = server();
    let cache = Tiered::new(upper.clone(), memory());
    cache.set("k", 1_u32, FOR_EVER).await.unwrap();
    upper.faults().always_any(Fault::Fail);
    assert_eq!(cache.get::<u32>("k").await.unwrap(), Some(1));
    assert_eq!(cache.get_many::<u32>(&["k"]).await.unwrap(), [Some(1)]);
    cache.set("k", 2_u32, FOR_EVER).await.unwrap();
    assert_eq!(cache.get::<u32>("k").await.unwrap(), Some(2));
    let got = cache.get_or_set("l", FOR_EVER, || async { 3_u32 }).await;
    assert_eq!(got.unwrap(), 3);
    assert!(cache.delete("k").await.unwrap());
    assert_eq!(cache.get::<u32>("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_null_below_makes_a_tier_of_nothing() {
    let cache = Tiered::new(memory(), Null::new());
    let got = cache.get_or_set("k", FOR_EVER, || async { 1_u32 }).await;
    assert_eq!(got.unwrap(), 1);
    cache.delete("k").await.unwrap();
    assert_eq!(cache.get::<u32>("k").await.unwrap(), None);
}
