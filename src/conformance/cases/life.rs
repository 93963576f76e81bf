//! How long values live.

use std::time::{Duration, Instant};

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::Trial;
use crate::ttl::{Remaining, Ttl};

const HUNDRED: Duration = Duration::from_secs(100);
const SHORT: Duration = Duration::from_millis(300);

/// Asserts that what is left is `whole`, less the moment that the test took.
#[track_caller]
fn about(left: Option<Remaining>, whole: Duration) {
    match left {
        Some(Remaining::For(left)) => {
            assert!(
                left <= whole && left + Duration::from_secs(30) > whole,
                "{left:?} of {whole:?}"
            );
        }
        other => panic!("{other:?}, not {whole:?}"),
    }
}

/// Asserts what is left of a key's life: about `whole`, for ever, or nothing where nothing is held.
async fn lives<C: Cache>(t: &Trial<C>, key: &str, whole: Option<Duration>) {
    let left = t.cache.ttl(key).await.unwrap();
    match whole {
        _ if !t.profile.stores() => assert_eq!(left, None),
        Some(whole) => about(left, whole),
        None => assert_eq!(left, Some(Remaining::Forever)),
    }
}

/// A zero ttl stores nothing and removes what stood there.
pub async fn a_zero_ttl_removes(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.cache.set(&key, 1_u32, Duration::ZERO).await.unwrap();
    t.lacks::<u32>(&key).await;
    t.set(&key, 2_u32).await;
    t.cache.set(&key, 3_u32, Duration::ZERO).await.unwrap();
    t.lacks::<u32>(&key).await;
    assert!(!t.cache.has(&key).await.unwrap());
    t.set(&key, 4_u32).await;
    t.cache
        .set_many([(&key, 5_u32)], Duration::ZERO)
        .await
        .unwrap();
    t.lacks::<u32>(&key).await;
}

/// `add` with a zero ttl leaves an empty key empty, and a full one as it is.
pub async fn an_add_with_a_zero_ttl_stores_nothing(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    assert!(t.cache.add(&key, 1_u32, Duration::ZERO).await.unwrap());
    t.lacks::<u32>(&key).await;
    t.set(&key, 2_u32).await;
    let added = t.cache.add(&key, 3_u32, Duration::ZERO).await.unwrap();
    assert_eq!(added, !profile.stores());
    t.holds(&key, 2_u32).await;
}

/// `get_or_set` with a zero ttl computes and stores nothing.
pub async fn a_compute_with_a_zero_ttl_is_not_stored(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    for value in [1_u32, 2] {
        let got = t
            .cache
            .get_or_set(&key, Duration::ZERO, || async move { value })
            .await;
        assert_eq!(got.unwrap(), value);
    }
    t.lacks::<u32>(&key).await;
}

/// `Forever` has no deadline.
pub async fn forever_has_no_deadline(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (set, computed, long) = (t.key("set"), t.key("computed"), t.key("long"));
    t.set(&set, 1_u32).await;
    lives(&t, &set, None).await;
    t.cache
        .get_or_set(&computed, Ttl::Forever, || async { 1_u32 })
        .await
        .unwrap();
    lives(&t, &computed, None).await;
    t.cache.set(&long, 1_u32, Duration::MAX).await.unwrap();
    lives(&t, &long, None).await;
}

/// `Default` is the cache's own default.
pub async fn default_is_the_caches_own(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let own = Ttl::Default.resolve(t.cache.core().settings().default_ttl);
    let (set, computed) = (t.key("set"), t.key("computed"));
    t.cache.set(&set, 1_u32, Ttl::Default).await.unwrap();
    lives(&t, &set, own).await;
    t.cache
        .get_or_set(&computed, Ttl::Default, || async { 1_u32 })
        .await
        .unwrap();
    lives(&t, &computed, own).await;
}

/// `ttl` tells what is left, of each way to store.
pub async fn ttl_tells_what_is_left(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let keys = ["set", "add", "computed", "many"].map(|name| t.key(name));
    t.cache.set(&keys[0], 1_u32, HUNDRED).await.unwrap();
    t.cache.add(&keys[1], 1_u32, HUNDRED).await.unwrap();
    t.cache
        .get_or_set(&keys[2], HUNDRED, || async { 1_u32 })
        .await
        .unwrap();
    t.cache
        .set_many([(&keys[3], 1_u32)], HUNDRED)
        .await
        .unwrap();
    for key in &keys {
        lives(&t, key, Some(HUNDRED)).await;
        // A read, which may copy the value into memory, changes nothing about it.
        t.holds(key, 1_u32).await;
        lives(&t, key, Some(HUNDRED)).await;
    }
}

/// Another `set` sets another life.
pub async fn a_set_replaces_the_ttl(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.cache.set(&key, 1_u32, HUNDRED).await.unwrap();
    t.set(&key, 2_u32).await;
    lives(&t, &key, None).await;
    t.cache.set(&key, 3_u32, HUNDRED * 2).await.unwrap();
    lives(&t, &key, Some(HUNDRED * 2)).await;
}

/// A value is gone once its life is over, however it was stored, and the key can be used again.
pub async fn values_expire(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let keys = ["set", "add", "computed", "many"].map(|name| t.key(name));
    t.cache.set(&keys[0], 1_u32, SHORT).await.unwrap();
    t.cache.add(&keys[1], 1_u32, SHORT).await.unwrap();
    t.cache
        .get_or_set(&keys[2], SHORT, || async { 1_u32 })
        .await
        .unwrap();
    t.cache.set_many([(&keys[3], 1_u32)], SHORT).await.unwrap();
    let deadline = Instant::now() + SHORT;
    for key in &keys {
        t.expires(key, deadline).await;
        assert!(!t.cache.has(key).await.unwrap());
        assert_eq!(t.cache.ttl(key).await.unwrap(), None);
        assert!(!t.cache.delete(key).await.unwrap());
        assert!(t.cache.add(key, 2_u32, Ttl::Forever).await.unwrap());
        t.holds(key, 2_u32).await;
    }
}

/// A value is there until its life is over.
pub async fn values_live_until_they_expire(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let began = Instant::now();
    t.cache.set(&key, 1_u32, SHORT).await.unwrap();
    loop {
        let got = t.cache.get::<u32>(&key).await.unwrap();
        if began.elapsed() >= SHORT {
            break;
        }
        assert_eq!(got, t.held(1), "gone after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `touch` makes a life longer, and for ever.
pub async fn touch_lengthens(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.cache.set(&key, 1_u32, HUNDRED).await.unwrap();
    t.touched(t.cache.touch(&key, HUNDRED * 2).await, true);
    let then = if profile.touches() { 2 } else { 1 };
    lives(&t, &key, Some(HUNDRED * then)).await;
    t.touched(t.cache.touch(&key, Ttl::Forever).await, true);
    lives(&t, &key, (!profile.touches()).then_some(HUNDRED)).await;
    t.holds(&key, 1_u32).await;
}

/// What was touched outlives its old deadline, where it was read before too.
pub async fn a_touched_value_outlives_its_old_deadline(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    // The touch may come too late on a busy machine; then it says so, and is tried again.
    for _ in 0..10 {
        t.cache.set(&key, 1_u32, SHORT).await.unwrap();
        let deadline = Instant::now() + SHORT;
        t.cache.get::<u32>(&key).await.unwrap();
        let answer = t.cache.touch(&key, HUNDRED).await;
        if profile.touches() && profile.stores() && Instant::now() >= deadline {
            continue;
        }
        t.touched(answer, true);
        tokio::time::sleep_until((deadline + Duration::from_millis(50)).into()).await;
        let got = t.cache.get::<u32>(&key).await.unwrap();
        assert_eq!(got, t.held(1).filter(|_| profile.touches()));
        return;
    }
    panic!("no touch came before the deadline");
}

/// `touch` makes a life shorter, also for the copies in memory.
pub async fn touch_shortens(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, 1_u32).await;
    t.holds(&key, 1_u32).await;
    t.touched(t.cache.touch(&key, SHORT).await, true);
    if profile.touches() {
        t.expires(&key, Instant::now() + SHORT).await;
    } else {
        t.holds(&key, 1_u32).await;
    }
}

/// `touch` of an absent key answers false and makes nothing.
pub async fn touch_of_an_absent_key_makes_nothing(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.touched(t.cache.touch(&key, HUNDRED).await, false);
    assert!(!t.cache.has(&key).await.unwrap());
}

/// `touch` with a zero ttl removes.
pub async fn touch_with_a_zero_ttl_removes(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, 1_u32).await;
    t.holds(&key, 1_u32).await;
    t.touched(t.cache.touch(&key, Duration::ZERO).await, true);
    let got = t.cache.get::<u32>(&key).await.unwrap();
    assert_eq!(got, t.held(1).filter(|_| !profile.touches()));
}
