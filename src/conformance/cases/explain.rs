//! Where an answer comes from, or why there is none.

use std::time::{Duration, Instant};

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::codec::Refusal;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Trial, refused};
use crate::error::ErrorKind;
use crate::explain::Why;
use crate::options::Options;
use crate::ttl::{Remaining, Ttl};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(60);

/// A value that is there: what is left of its life, how long its compute took, and the value itself.
pub async fn a_value_is_explained(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let compute = || async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        "value".to_owned()
    };
    t.cache.get_or_set(&key, HOUR, compute).await.unwrap();
    let explanation = t.cache.explain(&key).await.unwrap();
    let found = t.cache.get_with::<String>(&key, Options::default());
    let found = found.await.unwrap();
    assert_eq!(found.value, t.held("value".to_owned()));
    for told in [&explanation, &found.explanation] {
        assert!(told.key.ends_with(&key));
        assert!(!told.is_stale());
        if !t.profile.stores() {
            assert_eq!(told.why(), Some(Why::Absent));
            assert!(told.place().is_none());
            continue;
        }
        let hit = told.hit().expect("a hit");
        let left = hit.remaining.duration().expect("an end");
        assert!(left <= HOUR && left + HOUR / 60 > HOUR, "{told}");
        let kept = hit.kept.duration().expect("an end");
        assert!(kept <= left, "no grace: {told}");
        let took = hit.compute_time.expect("it was computed");
        assert!(took >= Duration::from_millis(5), "{took:?}");
        assert!(hit.age.is_none_or(|age| age < HOUR / 60), "{told}");
        assert!(told.to_string().contains("hit, "), "{told}");
    }
    t.cache
        .set(&key, "set".to_owned(), Ttl::Forever)
        .await
        .unwrap();
    let explanation = t.cache.explain(&key).await.unwrap();
    let hit = explanation.hit();
    assert_eq!(hit.map(|hit| hit.remaining), t.held(Remaining::Forever));
    assert!(hit.is_none_or(|hit| hit.compute_time.is_none()));
    t.is_idle();
}

/// Nothing, a deleted value, and an unusable key.
pub async fn nothing_is_explained(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    for _ in 0..2 {
        let explanation = t.cache.explain(&key).await.unwrap();
        assert_eq!(explanation.why(), Some(Why::Absent), "{explanation}");
        assert!(explanation.place().is_none() && !explanation.places.is_empty());
        let found = t.cache.get_with::<u32>(&key, Options::default());
        let found = found.await.unwrap();
        assert_eq!(found.value, None);
        assert_eq!(found.explanation.why(), Some(Why::Absent));
        t.cache.set(&key, 1_u32, HOUR).await.unwrap();
        t.cache.delete(&key).await.unwrap();
    }
    refused(t.cache.explain("").await, ErrorKind::Key);
    let found = t.cache.get_with::<u32>("a\n", Options::default());
    refused(found.await, ErrorKind::Key);
}

/// A value past its life is told to who asks for no stale ones, and answered to who does.
pub async fn a_stale_value_is_explained(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let graced = || Options::ttl(SHORT).grace(HOUR);
    let stored = t.cache.get_or_set(&key, graced(), || async { 1_u32 });
    assert_eq!(stored.await.unwrap(), 1);
    t.expires(&key, Instant::now() + SHORT).await;
    let explanation = t.cache.explain(&key).await.unwrap();
    assert_eq!(explanation.is_stale(), t.profile.stores(), "{explanation}");
    let got = async |options: Options| {
        let found = t.cache.get_with::<u32>(&key, options).await.unwrap();
        let stale = found.explanation.is_stale();
        (found.value, stale, found.explanation.why())
    };
    let none = if t.profile.stores() {
        Why::Expired
    } else {
        Why::Absent
    };
    assert_eq!(got(Options::default()).await, (None, false, Some(none)));
    let answer = got(graced()).await;
    if t.profile.stores() {
        assert_eq!(answer, (Some(1), true, None));
        let hit = explanation.hit().expect("it is kept");
        assert_eq!(hit.remaining, Remaining::For(Duration::ZERO));
        let kept = hit.kept.duration().expect("an end");
        assert!(kept <= HOUR && kept + HOUR / 60 > HOUR, "{explanation}");
    } else {
        assert_eq!(answer, (None, false, Some(Why::Absent)));
    }
}

/// A value of another type is a miss to a typed read, and a hit to who asks for none.
pub async fn another_type_is_explained(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.cache
        .set(&key, vec!["text".to_owned()], HOUR)
        .await
        .unwrap();
    let found = t.cache.get_with::<String>(&key, Options::default());
    let found = found.await.unwrap();
    assert_eq!(found.value, None);
    let why = found.explanation.why().expect("a miss");
    if t.profile.stores() {
        assert_eq!(why, Why::Refused(Refusal::Schema), "{}", found.explanation);
        assert!(t.cache.explain(&key).await.unwrap().hit().is_some());
    } else {
        assert_eq!(why, Why::Absent);
    }
}

/// A failure that is kept in the place of a value.
pub async fn a_kept_failure_is_explained(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let failing = || async { Err::<u32, _>(AppError::Origin("the origin is down")) };
    let options = Options::ttl(HOUR).error_ttl(HOUR);
    t.cache
        .try_get_or_set(&key, options.clone(), failing)
        .await
        .unwrap_err();
    let why = if t.profile.stores() {
        Why::ComputeFailed
    } else {
        Why::Absent
    };
    assert_eq!(t.cache.explain(&key).await.unwrap().why(), Some(why));
    let found = t.cache.get_with::<u32>(&key, options.grace(HOUR));
    let found = found.await.unwrap();
    assert_eq!((found.value, found.explanation.why()), (None, Some(why)));
}
