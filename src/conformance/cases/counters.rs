//! Integers that are counted up and down in one step.

use std::time::Duration;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{Trial, refused};
use crate::error::{ErrorKind, Result};
use crate::ttl::{Remaining, Ttl};

/// What a key that should not be counted answers: the refusal, or what the profile says.
#[track_caller]
fn not_counted<C: Cache>(t: &Trial<C>, answer: Result<i64>, kind: ErrorKind) {
    match (t.profile.counts(), t.profile.stores()) {
        (false, _) => refused(answer, ErrorKind::Unsupported),
        (true, true) => refused(answer, kind),
        (true, false) => assert!(answer.is_ok(), "nothing is held that could be refused"),
    }
}

/// A new counter begins at zero and lives for ever.
pub async fn a_new_counter_begins_at_zero(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.summed(t.cache.incr(&key, 5).await, 5, 5);
    t.summed(t.cache.incr(&key, 2).await, 2, 7);
    t.summed(t.cache.incr(&key, -10).await, -10, -3);
    let held = profile.stores() && profile.counts();
    let left = t.cache.ttl(&key).await.unwrap();
    assert_eq!(left, held.then_some(Remaining::Forever));
    assert_eq!(t.cache.get::<i64>(&key).await.unwrap(), held.then_some(-3));
}

/// Adding zero makes a counter too.
pub async fn adding_zero_makes_a_counter(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.summed(t.cache.incr(&key, 0).await, 0, 0);
    let held = profile.stores() && profile.counts();
    assert_eq!(t.cache.get::<u64>(&key).await.unwrap(), held.then_some(0));
}

/// `decr` subtracts, below zero too.
pub async fn decr_subtracts(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.summed(t.cache.decr(&key, 5).await, -5, -5);
    t.summed(t.cache.decr(&key, -7).await, 7, 2);
}

/// A counter keeps its ttl.
pub async fn a_counter_keeps_its_ttl(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let hundred = Duration::from_secs(100);
    t.cache.set(&key, 5_i64, hundred).await.unwrap();
    t.summed(t.cache.incr(&key, 1).await, 1, 6);
    match t.cache.ttl(&key).await.unwrap() {
        Some(Remaining::For(left)) if profile.stores() => {
            assert!(left <= hundred && left > hundred / 2, "{left:?}");
        }
        None if !profile.stores() => {}
        other => panic!("{other:?}"),
    }
}

/// An integer of any type that was set or added is a counter.
pub async fn a_set_integer_is_a_counter(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (wide, narrow, added) = (t.key("wide"), t.key("narrow"), t.key("added"));
    t.set(&wide, 5_u64).await;
    t.summed(t.cache.incr(&wide, 1).await, 1, 6);
    t.set(&narrow, -7_i8).await;
    t.summed(t.cache.incr(&narrow, 1000).await, 1000, 993);
    t.cache.add(&added, 1_u16, Ttl::Forever).await.unwrap();
    t.summed(t.cache.incr(&added, 1).await, 1, 2);
}

/// A counter reads as every integer type that it fits, and as text.
pub async fn a_counter_reads_as_integer_and_text(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, 299_u32).await;
    t.summed(t.cache.incr(&key, 1).await, 1, 300);
    let sum = if profile.counts() { 300_u32 } else { 299 };
    t.holds(&key, i64::from(sum)).await;
    t.holds(&key, sum).await;
    t.holds(&key, sum.to_string()).await;
    t.holds(&key, u64::from(sum)).await;
    t.lacks::<u8>(&key).await;
    t.lacks::<bool>(&key).await;
}

/// A sum outside `i64` is refused, and the value stays.
pub async fn an_overflow_leaves_the_value(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (most, least) = (t.key("most"), t.key("least"));
    t.set(&most, i64::MAX).await;
    t.set(&least, i64::MIN).await;
    not_counted(&t, t.cache.incr(&most, 1).await, ErrorKind::Overflow);
    not_counted(&t, t.cache.decr(&least, 1).await, ErrorKind::Overflow);
    t.holds(&most, i64::MAX).await;
    t.holds(&least, i64::MIN).await;
    t.summed(t.cache.decr(&most, 1).await, -1, i64::MAX - 1);
}

/// An unsigned integer beyond `i64` is no counter, and stays.
pub async fn an_integer_beyond_i64_is_no_counter(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, u64::MAX).await;
    let answer = t.cache.incr(&key, -1).await;
    not_counted(&t, answer, ErrorKind::NotACounter);
    t.holds(&key, u64::MAX).await;
}

/// The least integer can be added, but not subtracted.
pub async fn the_least_integer_cannot_be_subtracted(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    refused(t.cache.decr(&key, i64::MIN).await, ErrorKind::Overflow);
    t.lacks::<i64>(&key).await;
    t.summed(t.cache.incr(&key, i64::MIN).await, i64::MIN, i64::MIN);
}

/// Anything but an integer that was set is no counter, and stays.
pub async fn other_values_are_no_counters(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (list, text, float) = (t.key("list"), t.key("text"), t.key("float"));
    t.set(&list, vec![1_u32]).await;
    t.set(&text, "one".to_owned()).await;
    t.set(&float, 1.0_f64).await;
    for key in [&list, &text, &float] {
        let answer = t.cache.incr(key, 1).await;
        not_counted(&t, answer, ErrorKind::NotACounter);
        let answer = t.cache.decr(key, 1).await;
        not_counted(&t, answer, ErrorKind::NotACounter);
    }
    t.holds(&list, vec![1_u32]).await;
    t.holds(&text, "one".to_owned()).await;
    t.holds(&float, 1.0_f64).await;
}

/// A computed integer is no counter, and stays.
pub async fn a_computed_integer_is_no_counter(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.cache
        .get_or_set(&key, Ttl::Forever, || async { 5_i64 })
        .await
        .unwrap();
    let answer = t.cache.incr(&key, 1).await;
    not_counted(&t, answer, ErrorKind::NotACounter);
    t.holds(&key, 5_i64).await;
}
