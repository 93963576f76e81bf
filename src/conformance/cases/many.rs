//! Many keys at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Gate, Seats, Trial};
use crate::error::ErrorKind;
use crate::options::Options;
use crate::ttl::{Remaining, Ttl};

/// The keys that each call of a compute was given, sorted.
#[derive(Debug, Default)]
struct Calls(Mutex<Vec<Vec<String>>>);

impl Calls {
    fn note(&self, missing: &[String]) {
        let mut missing = missing.to_vec();
        missing.sort();
        self.0.lock().unwrap().push(missing);
    }

    #[track_caller]
    fn are(&self, want: &[&[&String]]) {
        let owned = |keys: &&[&String]| keys.iter().map(|&key| key.clone()).collect();
        let want: Vec<Vec<String>> = want.iter().map(owned).collect();
        assert_eq!(*self.0.lock().unwrap(), want);
    }
}

/// A value for each of the keys: its last letter.
fn letters(missing: Vec<String>) -> HashMap<String, String> {
    let letter = |key: &String| key.chars().last().into_iter().collect();
    missing
        .into_iter()
        .map(|key| (key.clone(), letter(&key)))
        .collect()
}

/// Values come in the order asked, absent ones as `None`, a key asked twice twice.
pub async fn values_come_in_the_order_asked(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let [a, b, c] = ["a", "b", "c"].map(|name| t.key(name));
    t.set(&a, 1_u32).await;
    t.set(&c, 3_u32).await;
    let got = t.cache.get_many::<u32>(&[&c, &b, &a, &c]).await.unwrap();
    assert_eq!(got, [t.held(3), None, t.held(1), t.held(3)]);
    assert_eq!(t.cache.get_many::<u32>(&[] as &[&str]).await.unwrap(), []);
}

/// `get_dict` has the keys that hold something.
pub async fn a_dict_has_the_keys_that_hold_something(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let [a, b, c] = ["a", "b", "c"].map(|name| t.key(name));
    t.set(&a, 1_u32).await;
    t.set(&c, "text".to_owned()).await;
    let got = t.cache.get_dict::<u32>(&[&a, &b, &c, &a]).await.unwrap();
    assert_eq!(got, t.held((a, 1)).into_iter().collect());
}

/// `set_many` stores all; of a key given twice, the last.
pub async fn set_many_stores_all(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let keys: Vec<String> = (0..100).map(|index| t.key(&format!("k{index}"))).collect();
    let pairs = keys.iter().zip(0_u32..);
    t.cache.set_many(pairs, Ttl::Forever).await.unwrap();
    let got = t.cache.get_many::<u32>(&keys).await.unwrap();
    assert_eq!(got, (0..100).map(|index| t.held(index)).collect::<Vec<_>>());
    t.cache
        .set_many([(&keys[0], 1_u32), (&keys[0], 2)], Ttl::Forever)
        .await
        .unwrap();
    t.holds(&keys[0], 2_u32).await;
    t.cache
        .set_many([] as [(&str, u32); 0], Ttl::Forever)
        .await
        .unwrap();
}

/// `delete_many` counts the keys that held something.
pub async fn delete_many_counts(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let [a, b, c] = ["a", "b", "c"].map(|name| t.key(name));
    t.set(&a, 1_u32).await;
    t.set(&b, "text".to_owned()).await;
    let removed = t.cache.delete_many(&[&a, &c, &b]).await.unwrap();
    assert_eq!(removed, if profile.stores() { 2 } else { 0 });
    assert_eq!(
        t.cache.get_many::<u32>(&[&a, &b]).await.unwrap(),
        [None, None]
    );
    assert_eq!(t.cache.delete_many(&[&a, &b, &c]).await.unwrap(), 0);
    assert_eq!(t.cache.delete_many(&[] as &[&str]).await.unwrap(), 0);
}

/// The missing keys are computed in one call, each once, and stored; answers come in the order asked.
pub async fn missing_keys_are_computed_together(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let [a, b, c] = ["a", "b", "c"].map(|name| t.key(name));
    t.set(&b, "held".to_owned()).await;
    let calls = Calls::default();
    let asked = [&c, &b, &a, &c];
    let got = t.cache.get_or_set_many(&asked, Ttl::Forever, |missing| {
        calls.note(&missing);
        async { letters(missing) }
    });
    let letter = |letter: &str| Some(letter.to_owned());
    let held = t.held("held".to_owned()).or(letter("b"));
    assert_eq!(
        got.await.unwrap(),
        [letter("c"), held.clone(), letter("a"), letter("c")]
    );
    if profile.stores() {
        calls.are(&[&[&a, &c]]);
    } else {
        calls.are(&[&[&a, &b, &c]]);
    }
    let got = t.cache.get_many::<String>(&asked).await.unwrap();
    let want = [letter("c"), held, letter("a"), letter("c")];
    assert_eq!(got, want.map(|value| value.filter(|_| profile.stores())));
    t.is_idle();
}

/// Where nothing is missing, nothing is computed.
pub async fn held_keys_are_not_computed(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let keys = [t.key("a"), t.key("b")];
    for round in 0..3 {
        let calls = Calls::default();
        let got = t.cache.get_or_set_many(&keys, Ttl::Forever, |missing| {
            calls.note(&missing);
            async { letters(missing) }
        });
        assert_eq!(
            got.await.unwrap(),
            [Some("a".to_owned()), Some("b".to_owned())]
        );
        if round == 0 || !profile.stores() {
            calls.are(&[&[&keys[0], &keys[1]]]);
        } else {
            calls.are(&[]);
        }
    }
    let none = t
        .cache
        .get_or_set_many(&[] as &[&str], Ttl::Forever, |_| async {
            HashMap::<String, u32>::new()
        });
    assert_eq!(none.await.unwrap(), []);
}

/// A key that the compute leaves out is `None`, and nothing is stored for it. What it adds unasked is no answer.
pub async fn a_key_left_out_is_none(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let [a, b, other] = ["a", "b", "other"].map(|name| t.key(name));
    let keys = [&a, &b];
    let got = t.cache.get_or_set_many(&keys, Ttl::Forever, |_| async {
        HashMap::from([(b.clone(), 2_u32), (other.clone(), 3)])
    });
    assert_eq!(got.await.unwrap(), [None, Some(2)]);
    assert!(!t.cache.has(&a).await.unwrap());
    assert!(!t.cache.has(&other).await.unwrap());
    t.holds(&b, 2_u32).await;
    t.is_idle();
}

/// Keys that another call computes are waited for, and not computed. One's own are published before that.
pub async fn own_values_are_published_before_others_are_awaited(
    cache: SharedCache,
    profile: Profile,
) {
    let t = Arc::new(Trial::patient(cache, profile));
    let (mine, theirs) = (t.key("mine"), t.key("theirs"));
    let (gate, calls, seats) = (
        Arc::new(Gate::default()),
        Arc::new(Calls::default()),
        Arc::new(Seats::new()),
    );
    let leading = tokio::spawn({
        let (t, theirs, gate) = (Arc::clone(&t), theirs.clone(), Arc::clone(&gate));
        async move {
            let compute = || async {
                gate.pass().await;
                "theirs".to_owned()
            };
            t.cache.get_or_set(&theirs, Ttl::Forever, compute).await
        }
    });
    gate.entered().await;
    let many = tokio::spawn({
        let (t, calls, seats) = (Arc::clone(&t), Arc::clone(&calls), Arc::clone(&seats));
        let keys = [theirs.clone(), mine.clone()];
        async move {
            let call = t.cache.get_or_set_many(&keys, Ttl::Forever, |missing| {
                calls.note(&missing);
                async { letters(missing) }
            });
            seats.take(call).await
        }
    });
    seats.taken(1).await;
    let own = t
        .cache
        .get_or_set(&mine, Ttl::Forever, || async { "e".to_owned() });
    assert_eq!(
        own.await.unwrap(),
        "e",
        "answered while `theirs` is still computed"
    );
    gate.open();
    assert_eq!(leading.await.unwrap().unwrap(), "theirs");
    let got = many.await.unwrap().unwrap();
    assert_eq!(got, [Some("theirs".to_owned()), Some("e".to_owned())]);
    calls.are(&[&[&mine]]);
    t.is_idle();
}

/// For keys whose leader was lost the compute is called once more, with those alone.
pub async fn keys_of_a_lost_leader_are_computed_in_one_more_call(
    cache: SharedCache,
    profile: Profile,
) {
    let t = Arc::new(Trial::patient(cache, profile));
    let [a, b, mine] = ["a", "b", "m"].map(|name| t.key(name));
    let (calls, seats) = (Arc::new(Calls::default()), Arc::new(Seats::new()));
    let leading = [&a, &b].map(|key| {
        let (t, key, seats) = (Arc::clone(&t), key.clone(), Arc::clone(&seats));
        tokio::spawn(async move {
            let call = t
                .cache
                .get_or_set(&key, Ttl::Forever, std::future::pending::<String>);
            seats.take(call).await
        })
    });
    seats.taken(2).await;
    let many = tokio::spawn({
        let (t, calls, seats) = (Arc::clone(&t), Arc::clone(&calls), Arc::clone(&seats));
        let keys = [b.clone(), mine.clone(), a.clone()];
        async move {
            let call = t.cache.get_or_set_many(&keys, Ttl::Forever, |missing| {
                calls.note(&missing);
                async { letters(missing) }
            });
            seats.take(call).await
        }
    });
    seats.taken(3).await;
    leading.iter().for_each(tokio::task::JoinHandle::abort);
    let got = many.await.unwrap().unwrap();
    assert_eq!(got, ["b", "m", "a"].map(|letter| Some(letter.to_owned())));
    calls.are(&[&[&mine], &[&a, &b]]);
    for leader in leading {
        assert!(leader.await.unwrap_err().is_cancelled());
    }
    t.is_idle();
}

/// Whoever waits for a key that the compute left out computes it.
pub async fn a_key_left_out_is_computed_by_who_waits(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::patient(cache, profile));
    let key = t.key("a");
    let (gate, seats) = (Arc::new(Gate::default()), Arc::new(Seats::new()));
    let many = tokio::spawn({
        let (t, key, gate) = (Arc::clone(&t), key.clone(), Arc::clone(&gate));
        async move {
            let keys = [key];
            let call = t.cache.get_or_set_many(&keys, Ttl::Forever, |_| async {
                gate.pass().await;
                HashMap::<String, u32>::new()
            });
            call.await
        }
    });
    gate.entered().await;
    let one = tokio::spawn({
        let (t, key, seats) = (Arc::clone(&t), key.clone(), Arc::clone(&seats));
        async move {
            let call = t.cache.get_or_set(&key, Ttl::Forever, || async { 5_u32 });
            seats.take(call).await
        }
    });
    seats.taken(1).await;
    gate.open();
    assert_eq!(many.await.unwrap().unwrap(), [None]);
    assert_eq!(one.await.unwrap().unwrap(), 5);
    t.holds(&key, 5_u32).await;
    t.is_idle();
}

/// Of many keys, each value may have a life and tags of its own, and each may fail by itself; what succeeded is stored.
pub async fn each_key_is_stored_or_fails_by_itself(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let keys = ["short", "fails", "kept out", "left out", "plain"].map(|name| t.key(name));
    let hour = Duration::from_secs(3600);
    let got = t
        .cache
        .get_or_set_many_with(&keys, Ttl::Forever, |asked, contexts| {
            let keys = keys.clone();
            async move {
                let mut values = HashMap::new();
                for key in asked.into_iter().filter(|key| *key != keys[3]) {
                    let context = contexts.of(&key).expect("each key has one");
                    if key == keys[0] {
                        context.set_ttl(hour);
                    }
                    if key == keys[2] {
                        context.do_not_store();
                    }
                    let failed = AppError::Origin("by itself");
                    let value = if key == keys[1] {
                        Err(failed)
                    } else {
                        Ok(1_u32)
                    };
                    values.insert(key, value);
                }
                values
            }
        });
    let got = got.await.unwrap();
    assert!(matches!(got[0], Some(Ok(1))) && matches!(got[4], Some(Ok(1))));
    assert!(matches!(got[1], Some(Err(AppError::Origin("by itself")))));
    assert!(matches!(got[2], Some(Ok(1))) && got[3].is_none());
    t.holds(&keys[0], 1_u32).await;
    t.holds(&keys[4], 1_u32).await;
    for key in &keys[1..4] {
        t.lacks::<u32>(key).await;
    }
    if t.profile.stores() {
        let left = t.cache.ttl(&keys[0]).await.unwrap().expect("it was stored");
        assert!(left.duration().is_some_and(|left| left <= hour));
        assert_eq!(
            t.cache.ttl(&keys[4]).await.unwrap(),
            Some(Remaining::Forever)
        );
    }
    t.is_idle();
}

/// Of many keys, each that has a value past its life is answered that where its compute fails or takes too long.
pub async fn each_key_has_a_grace_of_its_own(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let (old, new) = (t.key("old"), t.key("new"));
    let short = Duration::from_millis(60);
    let graced = || {
        Options::ttl(short)
            .grace(Duration::from_secs(3600))
            .throttle(Duration::ZERO)
    };
    let stored = t.cache.get_or_set(&old, graced(), || async { 1_u32 });
    stored.await.unwrap();
    t.expires(&old, std::time::Instant::now() + short).await;
    let keys = [&old, &new];
    let fails = |asked: Vec<String>, _| async move {
        let failed = |key| (key, Err::<u32, _>(AppError::Origin("down")));
        asked.into_iter().map(failed).collect::<HashMap<_, _>>()
    };
    let got = t
        .cache
        .get_or_set_many_with(&keys, graced(), fails)
        .await
        .unwrap();
    assert_eq!(matches!(got[0], Some(Ok(1))), t.profile.stores());
    assert!(matches!(got[1], Some(Err(AppError::Origin(_)))));
    let hard = graced().hard_timeout(short);
    let hangs =
        |_: Vec<String>, _| std::future::pending::<HashMap<String, Result<u32, AppError>>>();
    let got = t
        .cache
        .get_or_set_many_with(&keys, hard.clone(), hangs)
        .await
        .unwrap();
    assert_eq!(matches!(got[0], Some(Ok(1))), t.profile.stores());
    match &got[1] {
        Some(Err(AppError::Cache(error))) => assert_eq!(error.kind(), ErrorKind::Timeout),
        other => panic!("{other:?}"),
    }
    let hangs = |_: Vec<String>| std::future::pending::<HashMap<String, u32>>();
    let got = t.cache.get_or_set_many(&keys, hard, hangs).await.unwrap();
    assert_eq!(got, [t.held(1), None]);
    t.cache.core().tasks().drain(Duration::from_secs(20)).await;
    t.is_idle();
}
