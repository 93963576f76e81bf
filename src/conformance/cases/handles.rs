//! Handles on one store: its clones, erased ones, and views under a prefix. These cases take the store as its own type.

use std::sync::Arc;

use super::outrun::during;
use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{Gate, Seats, Trial};
use crate::ttl::Ttl;
use crate::wrap::prefixed::Prefixed;

/// A clone and an erased handle are handles on the same store.
pub async fn clones_and_erased_handles_share_the_store<C: Cache>(cache: C, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let clone = t.cache.clone();
    let erased: SharedCache = Arc::new(t.cache.clone());
    clone.set(&key, 1_u32, Ttl::Forever).await.unwrap();
    assert_eq!(erased.get::<u32>(&key).await.unwrap(), t.held(1));
    erased.set(&key, 2_u32, Ttl::Forever).await.unwrap();
    t.holds(&key, 2_u32).await;
    clone.delete(&key).await.unwrap();
    assert_eq!(erased.get::<u32>(&key).await.unwrap(), None);
    t.lacks::<u32>(&key).await;
    let refused = erased.set("", 1_u32, Ttl::Forever).await;
    assert!(refused.is_err(), "an erased handle has the same rules");
}

/// Callers through clones, a prefix, and an erased handle share one compute.
pub async fn all_handles_share_one_compute<C: Cache>(cache: C, profile: Profile) {
    let patience = cache.core().settings().leader_patience;
    // On a machine so busy that the leader seems silent, the trial says nothing, and is run again.
    for _ in 0..10 {
        let began = std::time::Instant::now();
        let t = Trial::new(cache.clone(), profile);
        let (gate, seats, key) = (Gate::default(), Seats::new(), t.key("a"));
        let leader = t.cache.get_or_set(&key, Ttl::Forever, || async {
            gate.pass().await;
            1_u64
        });
        let clone = t.cache.clone();
        let erased: SharedCache = Arc::new(t.cache.clone());
        let view = Prefixed::new(t.cache.clone(), t.prefix().to_owned());
        let compute = || async { 2_u64 };
        let opened = async {
            seats.taken(3).await;
            gate.open();
        };
        let others = async {
            gate.entered().await;
            tokio::join!(
                seats.take(clone.get_or_set(&key, Ttl::Forever, compute)),
                seats.take(erased.get_or_set(&key, Ttl::Forever, compute)),
                seats.take(view.get_or_set("a", Ttl::Forever, compute)),
                opened,
            )
        };
        let (leader, (a, b, c, ())) = tokio::join!(leader, others);
        t.is_idle();
        let answers = [leader, a, b, c].map(Result::unwrap);
        if answers == [1; 4] {
            return;
        }
        assert!(
            began.elapsed() >= patience,
            "more than one compute: {answers:?}"
        );
    }
    panic!("this machine is too slow for a leader_patience of {patience:?}");
}

/// The writes of one handle win over the computes of every other.
pub async fn a_write_wins_through_every_handle<C: Cache>(cache: C, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (key, bare, clone) = (t.key("a"), &t.cache, &t.cache.clone());
    let view = &Prefixed::new(t.cache.clone(), t.prefix().to_owned());
    let nested = &Prefixed::new(
        Prefixed::new(t.cache.clone(), t.prefix()[..5].to_owned()),
        t.prefix()[5..].to_owned(),
    );
    let erased: &SharedCache = &(Arc::new(t.cache.clone()) as SharedCache);
    during(bare, &key, clone.delete(&key)).await.unwrap();
    t.lacks::<String>(&key).await;
    during(bare, &key, view.delete("a")).await.unwrap();
    t.lacks::<String>(&key).await;
    during(view, "a", bare.delete(&key)).await.unwrap();
    t.lacks::<String>(&key).await;
    during(nested, "a", view.delete("a")).await.unwrap();
    t.lacks::<String>(&key).await;
    during(bare, &key, erased.delete(&key)).await.unwrap();
    t.lacks::<String>(&key).await;
    during(erased, &key, nested.delete("a")).await.unwrap();
    t.lacks::<String>(&key).await;
    let set = erased.set(&key, "new".to_owned(), Ttl::Forever);
    during(view, "a", set).await.unwrap();
    t.holds(&key, "new".to_owned()).await;
    t.is_idle();
}
