//! Which keys are refused, and by whom.

use std::collections::HashMap;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{Trial, refused};
use crate::error::ErrorKind;
use crate::key::{self, MAX_KEY_BYTES};
use crate::ttl::Ttl;

/// Keys that every store refuses, and those that are reserved unless the store puts a prefix before them.
fn bad_keys(cache: &impl Cache) -> Vec<String> {
    let always = ["", "a\nb", "\0", "tab\t", "\u{7f}", "\u{85}"];
    let reserved = ["lk:a", "__larder:a", "HASH_RING_MAP"];
    let reserved = reserved.iter().filter(|key| cache.stored_key(key) == **key);
    let long = "x".repeat(MAX_KEY_BYTES + 1);
    let short = always.iter().chain(reserved).map(|&key| key.to_owned());
    short.chain([long]).collect()
}

/// Reads refuse unusable keys.
pub async fn reads_refuse_bad_keys(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let good = t.key("good");
    let before = t.cache.stats().bad_keys;
    let keys = bad_keys(&t.cache);
    for key in &keys {
        refused(t.cache.get::<u32>(key).await, ErrorKind::Key);
        refused(t.cache.get_shared::<u32>(key).await, ErrorKind::Key);
        refused(t.cache.has(key).await, ErrorKind::Key);
        refused(t.cache.ttl(key).await, ErrorKind::Key);
        refused(t.cache.get_many::<u32>(&[&good, key]).await, ErrorKind::Key);
        refused(t.cache.get_dict::<u32>(&[&good, key]).await, ErrorKind::Key);
    }
    assert_eq!(t.cache.stats().bad_keys - before, 6 * keys.len() as u64);
}

/// Writes refuse unusable keys, and of several keys none is written then.
pub async fn writes_refuse_bad_keys(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let good = t.key("good");
    t.set(&good, 1_u32).await;
    for key in &bad_keys(&t.cache) {
        refused(t.cache.set(key, 2_u32, Ttl::Forever).await, ErrorKind::Key);
        refused(t.cache.add(key, 2_u32, Ttl::Forever).await, ErrorKind::Key);
        refused(t.cache.delete(key).await, ErrorKind::Key);
        refused(t.cache.incr(key, 1).await, ErrorKind::Key);
        refused(t.cache.decr(key, 1).await, ErrorKind::Key);
        refused(t.cache.touch(key, Ttl::Forever).await, ErrorKind::Key);
        let pairs = [(good.as_str(), 2_u32), (key, 2)];
        refused(t.cache.set_many(pairs, Ttl::Forever).await, ErrorKind::Key);
        let keys = [good.as_str(), key];
        refused(t.cache.delete_many(&keys).await, ErrorKind::Key);
    }
    t.holds(&good, 1_u32).await;
}

/// `get_or_set` and its kin compute under an unusable key, each time, and count it. A strict cache refuses.
pub async fn computes_go_on_with_bad_keys(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let strict = t.cache.core().settings().strict;
    let before = t.cache.stats().bad_keys;
    let keys = bad_keys(&t.cache);
    for key in &keys {
        for value in [1_u32, 2] {
            let compute = || async move { value };
            let owned = t.cache.get_or_set(key, Ttl::Forever, compute).await;
            let shared = t.cache.get_or_set_shared(key, Ttl::Forever, compute).await;
            let shared = shared.map(|value| *value);
            let attempt = || async move { Ok::<_, crate::error::Error>(value) };
            let tried = t.cache.try_get_or_set(key, Ttl::Forever, attempt).await;
            for answer in [owned, shared, tried] {
                if strict {
                    refused(answer, ErrorKind::Key);
                } else {
                    assert_eq!(answer.unwrap(), value, "{key:?}");
                }
            }
        }
    }
    assert_eq!(t.cache.stats().bad_keys - before, 6 * keys.len() as u64);
    t.is_idle();
}

/// `get_or_set_many` computes unusable keys along with the others, and stores only the others.
pub async fn many_computes_go_on_with_bad_keys(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (good, strict) = (t.key("good"), t.cache.core().settings().strict);
    for key in &bad_keys(&t.cache) {
        t.cache.delete(&good).await.unwrap();
        let keys = [good.as_str(), key];
        let answers = t
            .cache
            .get_or_set_many(&keys, Ttl::Forever, |missing| async move {
                missing
                    .into_iter()
                    .map(|key| (key, 7_u32))
                    .collect::<HashMap<_, _>>()
            });
        let answers = answers.await;
        if strict {
            refused(answers, ErrorKind::Key);
        } else {
            assert_eq!(answers.unwrap(), [Some(7), Some(7)], "{key:?}");
            t.holds(&good, 7_u32).await;
        }
    }
    t.is_idle();
}

/// The longest key, and keys of any script, are keys like others. The prefix counts.
pub async fn long_and_foreign_keys_work(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let own = t.cache.stored_key("").len();
    let room = MAX_KEY_BYTES - own - t.prefix().len();
    let longest = t.key(&"x".repeat(room));
    assert!(key::check(&t.cache.stored_key(&longest)).is_ok());
    for key in [&longest, &t.key("日本 語"), &t.key("a\"b\\c'd{e}*?[f]")] {
        t.set(key, 1_u32).await;
        t.holds(key, 1_u32).await;
        assert_eq!(t.cache.delete(key).await.unwrap(), profile.stores());
    }
    let longer = t.key(&"x".repeat(room + 1));
    refused(
        t.cache.set(&longer, 1_u32, Ttl::Forever).await,
        ErrorKind::Key,
    );
}
