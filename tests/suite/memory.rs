//! What is special of memory: bounds, eviction, housekeeping, the round trip.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::testing::Clock;
use larder::{Cache, ErrorKind, Eviction, Moka, Removal, Tiered, Ttl};

use crate::fleet::eventually;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn entries_are_bounded() {
    for eviction in [Eviction::TinyLfu, Eviction::Lru] {
        let cache = Moka::builder().max_entries(100).eviction(eviction).build();
        for i in 0..1000_u32 {
            cache.set(&format!("k{i}"), i, MINUTE).await.unwrap();
        }
        assert!(cache.entries() <= 100, "{eviction:?}: {}", cache.entries());
    }
}

/// Why the documentation says that a `get` right after a `set` can miss.
#[tokio::test]
async fn tiny_lfu_may_refuse_a_new_key_and_lru_does_not() {
    let refused = async |eviction| {
        let cache = Moka::builder().max_entries(50).eviction(eviction).build();
        for i in 0..50_u32 {
            cache.set(&format!("hot{i}"), i, MINUTE).await.unwrap();
        }
        for _ in 0..20 {
            for i in 0..50_u32 {
                let _ = cache.get::<u32>(&format!("hot{i}")).await.unwrap();
            }
        }
        let _ = cache.entries();
        cache.set("new", 1_u32, MINUTE).await.unwrap();
        let _ = cache.entries();
        cache.get::<u32>("new").await.unwrap().is_none()
    };
    assert!(refused(Eviction::TinyLfu).await);
    assert!(!refused(Eviction::Lru).await);
}

#[tokio::test]
async fn bytes_are_bounded_and_a_value_beyond_the_bound_is_refused() {
    let cache = Moka::builder()
        .max_bytes(10_000)
        .eviction(Eviction::Lru)
        .build();
    for i in 0..100_u32 {
        cache
            .set(&format!("k{i}"), "x".repeat(900), MINUTE)
            .await
            .unwrap();
    }
    assert!(cache.entries() <= 10, "{}", cache.entries());
    let error = cache
        .set("big", "x".repeat(20_000), MINUTE)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let computed = cache
        .get_or_set("big", MINUTE, || async { "x".repeat(20_000) })
        .await;
    assert_eq!(computed.unwrap().len(), 20_000);
    // As an upper tier it leaves such a value out.
    let tiered = Tiered::new(cache.clone(), Moka::new(10));
    tiered.set("big", "x".repeat(20_000), MINUTE).await.unwrap();
    assert_eq!(
        tiered.get::<String>("big").await.unwrap().unwrap().len(),
        20_000
    );
    assert_eq!(cache.get::<String>("big").await.unwrap(), None);
}

/// Nobody touches the cache after its entries are over: their memory is freed all the same.
#[tokio::test]
async fn an_idle_cache_frees_what_has_expired() {
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&dropped);
    let cache = Moka::builder()
        .listener(move |key, why| told.lock().unwrap().push((key.to_owned(), why)))
        .build();
    cache
        .set("short", 1_u8, Duration::from_millis(50))
        .await
        .unwrap();
    cache.set("long", 1_u8, MINUTE).await.unwrap();
    let freed = async || !dropped.lock().unwrap().is_empty();
    eventually(Duration::from_secs(10), "freed", freed).await;
    assert_eq!(
        *dropped.lock().unwrap(),
        [("short".to_owned(), Removal::Expired)]
    );
    // Counted a little later than told.
    let one = async || cache.entries() == 1;
    eventually(Duration::from_secs(10), "one is left", one).await;
}

#[tokio::test]
async fn the_listener_is_told_why() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let cache = Moka::builder()
        .listener(move |_, why| list.lock().unwrap().push(why))
        .build();
    cache.set("k", 1_u8, MINUTE).await.unwrap();
    cache.set("k", 2_u8, MINUTE).await.unwrap();
    cache.delete("k").await.unwrap();
    let _ = cache.entries();
    assert_eq!(*told.lock().unwrap(), [Removal::Replaced, Removal::Deleted]);
}

#[tokio::test]
async fn entries_that_nobody_reads_go() {
    let cache = Moka::builder()
        .time_to_idle(Duration::from_millis(100))
        .build();
    cache.set("k", 1_u8, Ttl::Forever).await.unwrap();
    eventually(Duration::from_secs(10), "idle", async || {
        cache.entries() == 0
    })
    .await;
}

#[tokio::test]
async fn a_manual_clock_decides_what_is_over() {
    let clock = Clock::manual();
    let cache = Moka::builder().clock(clock.clone()).build();
    cache.set("k", 1_u8, Duration::from_secs(10)).await.unwrap();
    clock.advance(Duration::from_millis(9_999));
    assert_eq!(cache.get::<u8>("k").await.unwrap(), Some(1));
    clock.advance(Duration::from_millis(1));
    assert_eq!(cache.get::<u8>("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_copy_lives_no_longer_than_the_tier_allows() {
    let clock = Clock::manual();
    let memory = |clock: &Clock| Moka::builder().clock(clock.clone()).build();
    let (l1, l2) = (memory(&clock), memory(&clock));
    let tiered = Tiered::builder(l1.clone(), l2.clone())
        .max_l1_ttl(Duration::from_secs(5))
        .build();
    l2.set("k", 1_u8, Duration::from_secs(60)).await.unwrap();
    assert_eq!(tiered.get::<u8>("k").await.unwrap(), Some(1));
    assert_eq!(
        l1.ttl("k").await.unwrap().unwrap().duration(),
        Some(Duration::from_secs(5))
    );
    l2.touch("k", Duration::from_secs(2)).await.unwrap();
    assert_eq!(tiered.get::<u8>("k").await.unwrap(), Some(1));
    assert_eq!(
        l1.ttl("k").await.unwrap().unwrap().duration(),
        Some(Duration::from_secs(2))
    );
}

/// Serializes as something that it does not read back.
#[derive(Clone, Debug, PartialEq)]
struct OneWay(u8);

impl serde::Serialize for OneWay {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("one way")
    }
}

impl<'de> serde::Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(Self)
    }
}

#[tokio::test]
async fn a_type_that_would_fail_on_redis_fails_in_tests() {
    let checking = Moka::builder().round_trip(true).build();
    let error = checking.set("k", OneWay(1), MINUTE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(
        checking
            .get_or_set("k", MINUTE, || async { OneWay(2) })
            .await
            .unwrap(),
        OneWay(2)
    );
    let trusting = Moka::builder().round_trip(false).build();
    trusting.set("k", OneWay(1), MINUTE).await.unwrap();
    assert_eq!(trusting.get::<OneWay>("k").await.unwrap(), Some(OneWay(1)));
}

/// Memory in a static, used before and outside any runtime.
#[test]
fn memory_needs_no_runtime() {
    static CACHE: std::sync::LazyLock<Moka> = std::sync::LazyLock::new(|| Moka::new(10));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut set = std::pin::pin!(CACHE.set("k", 1_u8, MINUTE));
    assert!(matches!(
        set.as_mut().poll(&mut context),
        std::task::Poll::Ready(Ok(()))
    ));
    let mut made = std::pin::pin!(CACHE.get_or_set("l", MINUTE, || async { 2_u8 }));
    assert!(matches!(
        made.as_mut().poll(&mut context),
        std::task::Poll::Ready(Ok(2))
    ));
    let mut deleted = std::pin::pin!(CACHE.delete("k"));
    assert!(matches!(
        deleted.as_mut().poll(&mut context),
        std::task::Poll::Ready(Ok(true))
    ));
}
