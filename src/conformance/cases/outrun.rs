//! Invalidation wins: what was computed from before a write is not stored after it.

use std::collections::HashMap;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{Gate, Trial};
use crate::testing::{Fault, Faulty};
use crate::ttl::Ttl;
use crate::wrap::prefixed::Prefixed;

/// Runs `write` from begin to end while a compute of `key` through `reader` is under way. The compute's own caller
/// gets what was computed: "old".
pub(super) async fn during<R: Send>(
    reader: &impl Cache,
    key: &str,
    write: impl Future<Output = R> + Send,
) -> R {
    let gate = Gate::default();
    let call = reader.get_or_set(key, Ttl::Forever, || async {
        gate.pass().await;
        "old".to_owned()
    });
    let writing = async {
        gate.entered().await;
        let answer = write.await;
        gate.open();
        answer
    };
    let (got, answer) = tokio::join!(call, writing);
    assert_eq!(got.unwrap(), "old");
    answer
}

/// Runs `write` while a computed value of `key` is being stored.
async fn while_storing<C: Cache, R: Send>(
    t: &Trial<C>,
    key: &str,
    write: impl Future<Output = R> + Send,
) -> R {
    let slow = Faulty::new(t.cache.clone());
    let faults = slow.faults();
    faults.always("store", Fault::Stall);
    let call = slow.get_or_set(key, Ttl::Forever, || async { "old".to_owned() });
    let writing = async {
        faults.stalled(1).await;
        tokio::pin!(write);
        // It waits for the store; once it was polled it has said so.
        let first =
            std::future::poll_fn(|cx| std::task::Poll::Ready(write.as_mut().poll(cx))).await;
        faults.release();
        match first {
            std::task::Poll::Ready(answer) => answer,
            std::task::Poll::Pending => write.await,
        }
    };
    let (got, answer) = tokio::join!(call, writing);
    assert_eq!(got.unwrap(), "old");
    answer
}

/// A `delete` during a compute.
pub async fn a_delete_wins(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let before = t.cache.stats().outrun;
    let removed = during(&t.cache, &key, t.cache.delete(&key)).await;
    assert!(!removed.unwrap());
    t.lacks::<String>(&key).await;
    assert!(!t.cache.has(&key).await.unwrap());
    assert_eq!(t.cache.stats().outrun - before, 1);
    t.is_idle();
}

/// A `set` during a compute.
pub async fn a_set_wins(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let set = t.cache.set(&key, "new".to_owned(), Ttl::Forever);
    during(&t.cache, &key, set).await.unwrap();
    t.holds(&key, "new".to_owned()).await;
    t.is_idle();
}

/// An `add` during a compute.
pub async fn an_add_wins(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let add = t.cache.add(&key, "new".to_owned(), Ttl::Forever);
    assert!(during(&t.cache, &key, add).await.unwrap());
    t.holds(&key, "new".to_owned()).await;
    t.is_idle();
}

/// An `incr` during a compute.
pub async fn an_incr_wins(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let answer = during(&t.cache, &key, t.cache.incr(&key, 7)).await;
    t.summed(answer, 7, 7);
    let sum = t.held(7).filter(|_| profile.counts());
    assert_eq!(t.cache.get::<i64>(&key).await.unwrap(), sum);
    t.is_idle();
}

/// A `touch` during a compute.
pub async fn a_touch_wins(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let answer = during(&t.cache, &key, t.cache.touch(&key, Ttl::Forever)).await;
    t.touched(answer, false);
    t.lacks::<String>(&key).await;
    t.is_idle();
}

/// A `clear` during a compute.
pub async fn a_clear_wins(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let view = Prefixed::new(t.cache.clone(), t.prefix().to_owned());
    let key = t.key("a");
    during(&t.cache, &key, view.clear()).await.unwrap();
    t.lacks::<String>(&key).await;
    during(&view, "a", view.clear()).await.unwrap();
    t.lacks::<String>(&key).await;
    t.is_idle();
}

/// `set_many` and `delete_many` during a compute.
pub async fn writes_of_many_win(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let (set, deleted, other) = (t.key("set"), t.key("deleted"), t.key("other"));
    let pairs = [&set, &other].map(|key| (key, "new".to_owned()));
    during(&t.cache, &set, t.cache.set_many(pairs, Ttl::Forever))
        .await
        .unwrap();
    t.holds(&set, "new".to_owned()).await;
    let keys = [&deleted, &other];
    let removed = during(&t.cache, &deleted, t.cache.delete_many(&keys)).await;
    assert_eq!(removed.unwrap(), u64::from(profile.stores()));
    t.lacks::<String>(&deleted).await;
    t.is_idle();
}

/// A write of one key during a compute of many keeps that key from being stored, and no other.
pub async fn a_delete_wins_over_a_compute_of_many(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let keys = ["a", "b", "c"].map(|name| t.key(name));
    let gate = Gate::default();
    let call = t.cache.get_or_set_many(&keys, Ttl::Forever, |missing| {
        let gate = &gate;
        async move {
            gate.pass().await;
            missing
                .into_iter()
                .map(|key| (key, 1_u32))
                .collect::<HashMap<_, _>>()
        }
    });
    let deleting = async {
        gate.entered().await;
        t.cache.delete(&keys[1]).await.unwrap();
        gate.open();
    };
    let (got, ()) = tokio::join!(call, deleting);
    assert_eq!(got.unwrap(), [Some(1); 3]);
    let held = t.cache.get_many::<u32>(&keys).await.unwrap();
    assert_eq!(held, [t.held(1), None, t.held(1)]);
    t.is_idle();
}

/// Who asks after a `delete` does not get what was being computed before it, and the old compute does not overwrite the new.
pub async fn a_call_after_a_delete_computes_anew(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let anew = async {
        t.cache.delete(&key).await.unwrap();
        t.cache
            .get_or_set(&key, Ttl::Forever, || async { "new".to_owned() })
            .await
    };
    let got = during(&t.cache, &key, anew).await;
    assert_eq!(got.unwrap(), "new");
    t.holds(&key, "new".to_owned()).await;
    t.is_idle();
}

/// A `delete` that comes while the computed value is being stored.
pub async fn a_delete_wins_over_a_store_under_way(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    while_storing(&t, &key, t.cache.delete(&key)).await.unwrap();
    t.lacks::<String>(&key).await;
    while_storing(&t, &key, t.cache.delete_many(&[&key]))
        .await
        .unwrap();
    t.lacks::<String>(&key).await;
    let view = Prefixed::new(t.cache.clone(), t.prefix().to_owned());
    while_storing(&t, &key, view.clear()).await.unwrap();
    t.lacks::<String>(&key).await;
    t.is_idle();
}

/// A `set` that comes while the computed value is being stored.
pub async fn a_set_wins_over_a_store_under_way(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let (key, many) = (t.key("a"), t.key("many"));
    let set = t.cache.set(&key, "new".to_owned(), Ttl::Forever);
    while_storing(&t, &key, set).await.unwrap();
    t.holds(&key, "new".to_owned()).await;
    let set = t.cache.set_many([(&many, "new".to_owned())], Ttl::Forever);
    while_storing(&t, &many, set).await.unwrap();
    t.holds(&many, "new".to_owned()).await;
    t.is_idle();
}

/// Who asks while a computed value is being stored gets it, and does not wait for the store.
pub async fn a_value_is_answered_while_it_is_stored(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let call = t
        .cache
        .get_or_set(&key, Ttl::Forever, || async { "another".to_owned() });
    let got = while_storing(&t, &key, call).await;
    assert_eq!(got.unwrap(), "old");
    t.holds(&key, "old".to_owned()).await;
    t.is_idle();
}

/// A write that is dropped halfway leaves the key usable, and nobody waiting.
pub async fn a_dropped_write_blocks_nobody(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    t.set(&key, "old".to_owned()).await;
    let slow = Faulty::new(t.cache.clone());
    for operation in ["store", "remove"] {
        slow.faults().always(operation, Fault::Stall);
    }
    let faults = slow.faults();
    tokio::select! {
        _ = slow.set(&key, "new".to_owned(), Ttl::Forever) => panic!("it is stalled"),
        _ = slow.delete(&key) => panic!("it is stalled"),
        () = faults.stalled(2) => {}
    }
    faults.heal();
    t.holds(&key, "old".to_owned()).await;
    t.holds(&key, "old".to_owned()).await;
    let got = t
        .cache
        .get_or_set(&key, Ttl::Forever, || async { "old".to_owned() });
    assert_eq!(got.await.unwrap(), "old");
    t.set(&key, "newer".to_owned()).await;
    t.holds(&key, "newer".to_owned()).await;
    t.is_idle();
}
