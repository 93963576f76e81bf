//! Reading, writing and removing one key.

use std::sync::Arc;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::Trial;
use crate::ttl::Ttl;
use crate::wrap::prefixed::Prefixed;

/// A key that was never written holds nothing, for any method.
pub async fn an_absent_key_holds_nothing(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    assert_eq!(t.cache.get::<String>(&key).await.unwrap(), None);
    assert_eq!(t.cache.get_shared::<String>(&key).await.unwrap(), None);
    assert!(!t.cache.has(&key).await.unwrap());
    assert!(!t.cache.delete(&key).await.unwrap());
    assert_eq!(t.cache.ttl(&key).await.unwrap(), None);
}

/// What was set is read back, owned and shared.
pub async fn a_set_value_is_read_back(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, "one".to_owned()).await;
    t.holds(&key, "one".to_owned()).await;
    t.holds(&key, "one".to_owned()).await;
    let shared = t.cache.get_shared::<String>(&key).await.unwrap();
    assert_eq!(shared, t.held(Arc::new("one".to_owned())));
}

/// The last `set` wins, also with another type.
pub async fn a_set_overwrites(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    for value in ["one", "two", "three"] {
        t.set(&key, value.to_owned()).await;
        t.holds(&key, value.to_owned()).await;
    }
    t.set(&key, vec![1.5_f64]).await;
    t.holds(&key, vec![1.5_f64]).await;
    t.lacks::<bool>(&key).await;
}

/// Keys do not touch each other.
pub async fn keys_are_apart(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    for (name, value) in [("a", 1_u32), ("A", 2), ("a ", 3), ("a:b", 4), ("\u{e4}", 5)] {
        t.set(&t.key(name), value).await;
    }
    t.cache.delete(&t.key("a:b")).await.unwrap();
    for (name, value) in [("a", 1_u32), ("A", 2), ("a ", 3), ("\u{e4}", 5)] {
        t.holds(&t.key(name), value).await;
    }
    t.lacks::<u32>(&t.key("a:b")).await;
}

/// `delete` removes, and tells whether there was anything.
pub async fn delete_tells_whether_there_was_anything(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, 1_u32).await;
    assert_eq!(t.cache.delete(&key).await.unwrap(), profile.stores());
    assert!(!t.cache.delete(&key).await.unwrap());
    t.lacks::<u32>(&key).await;
    t.set(&key, 2_u32).await;
    t.holds(&key, 2_u32).await;
}

/// `has` tells of values of any type.
pub async fn has_tells_of_any_type(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (text, none) = (t.key("text"), t.key("none"));
    t.set(&text, "x".to_owned()).await;
    t.set(&none, None::<u32>).await;
    assert_eq!(t.cache.has(&text).await.unwrap(), profile.stores());
    assert_eq!(t.cache.has(&none).await.unwrap(), profile.stores());
    t.cache.delete(&text).await.unwrap();
    assert!(!t.cache.has(&text).await.unwrap());
}

/// `add` stores in an empty key alone, and tells whether it did.
pub async fn add_stores_only_if_absent(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let add = |value: &'static str| t.cache.add(&key, value.to_owned(), Ttl::Forever);
    assert!(add("one").await.unwrap());
    assert_eq!(add("two").await.unwrap(), !profile.stores());
    t.holds(&key, "one".to_owned()).await;
    t.cache.delete(&key).await.unwrap();
    assert!(add("three").await.unwrap());
    t.holds(&key, "three".to_owned()).await;
    let other = t.cache.add(&key, 5_u64, Ttl::Forever).await.unwrap();
    assert_eq!(
        other,
        !profile.stores(),
        "a value of another type is a value"
    );
}

/// A store under a prefix sees the keys below it, and only those.
pub async fn a_prefix_is_part_of_the_key(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let view = Prefixed::new(t.cache.clone(), t.key("view:"));
    view.set("a", 1_u32, Ttl::Forever).await.unwrap();
    t.holds(&t.key("view:a"), 1_u32).await;
    t.set(&t.key("view:b"), 2_u32).await;
    assert_eq!(view.get::<u32>("b").await.unwrap(), t.held(2));
    assert_eq!(view.get::<u32>(&t.key("view:b")).await.unwrap(), None);
    assert_eq!(view.delete("b").await.unwrap(), profile.stores());
    t.lacks::<u32>(&t.key("view:b")).await;
}

/// `clear` of a prefix removes every key below it and no other.
pub async fn clear_covers_its_prefix_alone(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let view = Prefixed::new(t.cache.clone(), t.key("view:"));
    let beside = t.key("view");
    t.set(&beside, 1_u32).await;
    for index in 0..50_u32 {
        view.set(&format!("k{index}"), index, Ttl::Forever)
            .await
            .unwrap();
    }
    view.get_or_set("computed", Ttl::Forever, || async { 1_u64 })
        .await
        .unwrap();
    view.set("digits", 42_u64, Ttl::Forever).await.unwrap();
    view.clear().await.unwrap();
    for index in 0..50_u32 {
        let key = format!("k{index}");
        assert_eq!(view.get::<u32>(&key).await.unwrap(), None);
        assert!(!view.has(&key).await.unwrap());
    }
    assert_eq!(view.get::<u64>("computed").await.unwrap(), None);
    assert_eq!(view.get::<u64>("digits").await.unwrap(), None);
    t.holds(&beside, 1_u32).await;
    view.set("k1", 7_u32, Ttl::Forever).await.unwrap();
    assert_eq!(view.get::<u32>("k1").await.unwrap(), t.held(7));
    view.clear().await.unwrap();
    view.clear().await.unwrap();
}

/// Hits, misses, stores and deletes are counted.
pub async fn reads_and_writes_are_counted(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let before = t.cache.stats();
    t.lacks::<u32>(&key).await;
    t.set(&key, 1_u32).await;
    t.holds(&key, 1_u32).await;
    t.cache.delete(&key).await.unwrap();
    let after = t.cache.stats();
    let hits = u64::from(profile.stores());
    assert_eq!(after.hits() - before.hits(), hits);
    assert_eq!(after.misses - before.misses, 2 - hits);
    assert_eq!(after.stores - before.stores, 1);
    assert_eq!(after.deletes - before.deletes, 1);
}

/// `shutdown` comes to an end, also a second time and after use.
pub async fn shutdown_ends(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, 1_u32).await;
    t.cache.delete(&key).await.unwrap();
    t.cache.shutdown().await;
    t.cache.shutdown().await;
}
