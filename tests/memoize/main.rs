//! Memoized functions, as their users write them.

mod arguments;
mod hygiene;
mod methods;
mod options;
mod refresh;
mod returns;
mod threads;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::{Cache, Moka, Remaining, SharedCache, memoize};

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(10_000));

/// How often a function's body ran.
struct Runs(AtomicU32);

impl Runs {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// One more, and how many that makes.
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

static SUMS: Runs = Runs::new();

/// Adds.
#[memoize(cache = CACHE, ttl = 5)]
async fn sum(a: u32, b: u32) -> u32 {
    SUMS.next();
    a + b
}

#[tokio::test]
async fn a_function_runs_once_for_its_arguments() {
    for _ in 0..3 {
        assert_eq!(sum(1, 2).await, 3);
        assert_eq!(sum(2, 2).await, 4);
    }
    assert_eq!(SUMS.count(), 2);
    assert_eq!(sum::key(1, 2).unwrap(), "memoize::sum(1,2)");
    assert_eq!(sum::uncached(1, 2).await, 3);
    assert_eq!(SUMS.count(), 3);
    assert!(sum::delete(1, 2).await.unwrap());
    assert!(!sum::delete(1, 2).await.unwrap());
    assert_eq!(sum(1, 2).await, 3);
    assert_eq!(SUMS.count(), 4);
    assert_eq!(sum::refresh(1, 2).await, 3);
    assert_eq!(SUMS.count(), 5);
    sum::delete_all().await.unwrap();
    assert_eq!((sum(1, 2).await, sum(2, 2).await), (3, 4));
    assert_eq!(SUMS.count(), 7);
    let left = CACHE.ttl(&sum::key(1, 2).unwrap()).await.unwrap().unwrap();
    assert!(matches!(left, Remaining::For(left) if left <= Duration::from_secs(5)));
}

/// The cache is an argument, and no part of the key.
#[memoize(ttl = 60)]
async fn doubled(cache: &impl Cache, runs: u32) -> u32 {
    cache.incr("runs of doubled", 1).await.unwrap();
    runs * 2
}

#[memoize(ttl = 60)]
async fn of_any<C: Cache>(cache: &C, number: u32) -> u32 {
    cache.incr("runs of of_any", 1).await.unwrap();
    number
}

#[memoize(ttl = 60)]
async fn erased(store: &SharedCache, number: u32) -> u32 {
    store.incr("runs of erased", 1).await.unwrap();
    number
}

#[tokio::test]
async fn the_cache_may_be_an_argument() {
    let (one, other) = (Moka::new(100), Moka::new(100));
    for cache in [&one, &one, &other, &other] {
        assert_eq!(doubled(cache, 4).await, 8);
        assert_eq!(of_any(cache, 4).await, 4);
        let shared: SharedCache = std::sync::Arc::new(cache.clone());
        assert_eq!(erased(&shared, 4).await, 4);
    }
    for cache in [&one, &other] {
        for name in ["doubled", "of_any", "erased"] {
            let runs = cache.get::<i64>(&format!("runs of {name}")).await;
            assert_eq!(runs.unwrap(), Some(1), "{name}");
        }
    }
    assert_eq!(doubled::key(&one, 4).unwrap(), "memoize::doubled(4)");
    // By whatever cache it is used.
    let prefixed = larder::Prefixed::new(one.clone(), "app:");
    assert_eq!(
        of_any::key(&one, 4).unwrap(),
        of_any::key(&prefixed, 4).unwrap()
    );
    assert!(of_any::delete(&one, 4).await.unwrap());
    doubled::delete_all(&one).await.unwrap();
    of_any::delete_all(&one).await.unwrap();
    assert!(!doubled::delete(&one, 4).await.unwrap());
    assert!(doubled::delete(&other, 4).await.unwrap());
}

/// Its own prefix, which plain keys have not.
#[tokio::test]
async fn keys_begin_with_the_prefix_of_the_cache() {
    let cache = Moka::builder().key_prefix("BEI:").build();
    assert_eq!(doubled(&cache, 1).await, 2);
    assert_eq!(doubled::key(&cache, 1).unwrap(), "BEI:memoize::doubled(1)");
    assert!(cache.has("BEI:memoize::doubled(1)").await.unwrap());
    assert!(cache.has("runs of doubled").await.unwrap());
    assert!(cache.prefixed().has("memoize::doubled(1)").await.unwrap());
    // Another application's, in the same store.
    let other = larder::Tiered::builder(Moka::new(10), cache.clone())
        .key_prefix("TUR:")
        .build();
    doubled::delete_all(&other).await.unwrap();
    assert!(cache.has("BEI:memoize::doubled(1)").await.unwrap());
    doubled::delete_all(&cache).await.unwrap();
    assert!(!cache.has("BEI:memoize::doubled(1)").await.unwrap());
}

fn anew() -> Moka {
    Moka::new(10)
}

#[memoize(cache = anew())]
async fn in_a_cache_of_its_own(number: u32) -> u32 {
    number
}

/// Any expression gives a cache.
#[tokio::test]
async fn the_cache_may_be_computed() {
    assert_eq!(in_a_cache_of_its_own(7).await, 7);
    assert!(!in_a_cache_of_its_own::delete(7).await.unwrap());
}
