//! What can be stored, and what it is read as.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{Trial, refused};
use crate::error::ErrorKind;
use crate::ttl::Ttl;
use crate::value::Cacheable;

/// A value goes through `set` and through `get_or_set`, and comes back the same, owned, shared and among many.
async fn comes_back<C: Cache, T: Cacheable + PartialEq + Debug>(
    t: &Trial<C>,
    name: &str,
    value: T,
) {
    let (set, computed) = (
        t.key(&format!("{name}:set")),
        t.key(&format!("{name}:computed")),
    );
    t.set(&set, value.clone()).await;
    let compute = || async { value.clone() };
    let got = t.cache.get_or_set(&computed, Ttl::Forever, compute).await;
    assert_eq!(got.unwrap(), value);
    for key in [&set, &computed] {
        t.holds(key, value.clone()).await;
        let shared = t.cache.get_shared::<T>(key).await.unwrap();
        assert_eq!(shared.as_deref(), t.held(&value));
    }
    let many = t.cache.get_many::<T>(&[&set, &computed]).await.unwrap();
    assert_eq!(many, [t.held(value.clone()), t.held(value)]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    note: Option<String>,
    tags: Vec<String>,
    prices: HashMap<String, f64>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    Paid(u32),
    Sent { by: String, days: u8 },
}

/// Its `Serialize` refuses.
#[derive(Clone, Debug, PartialEq)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not to be written"))
    }
}

impl<'de> Deserialize<'de> for Unwritable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("not to be read"))
    }
}

/// Structs with options, lists, maps and enums come back the same.
pub async fn structs_come_back(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let tags = ["b", "a"].map(str::to_owned).to_vec();
    let full = Order {
        id: u64::MAX,
        note: Some("héllo \u{1F980}".to_owned()),
        tags,
        prices: HashMap::from([("x".to_owned(), -1.5), ("y".to_owned(), f64::MAX)]),
        state: State::Sent {
            by: "post".to_owned(),
            days: 3,
        },
    };
    let empty = Order {
        id: 0,
        note: None,
        tags: Vec::new(),
        prices: HashMap::new(),
        state: State::Open,
    };
    comes_back(&t, "full", full.clone()).await;
    comes_back(&t, "empty", empty.clone()).await;
    comes_back(&t, "list", vec![full.clone(), empty.clone()]).await;
    comes_back(&t, "some", Some(full)).await;
    comes_back(&t, "paid", State::Paid(7)).await;
    comes_back(&t, "result", Err::<u32, String>("no".to_owned())).await;
}

/// Plain values come back the same: integers at their ends, floats, text, tuples, maps.
pub async fn plain_values_come_back(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    for (index, value) in [0, 1, 127, 128, 255, 256, u64::MAX].into_iter().enumerate() {
        comes_back(&t, &format!("u64 {index}"), value).await;
    }
    for (index, value) in [0, -1, -128, -129, i64::MIN, i64::MAX]
        .into_iter()
        .enumerate()
    {
        comes_back(&t, &format!("i64 {index}"), value).await;
    }
    comes_back(&t, "u8", 255_u8).await;
    comes_back(&t, "i128", i128::MIN).await;
    comes_back(&t, "bool", true).await;
    comes_back(&t, "f64", -0.1_f64).await;
    comes_back(&t, "infinite", f64::INFINITY).await;
    comes_back(&t, "char", '\u{1F980}').await;
    comes_back(&t, "tuple", (1_u8, "two".to_owned(), 3.0_f32)).await;
    comes_back(&t, "map", BTreeMap::from([(1_u32, "one".to_owned())])).await;
    comes_back(&t, "array", [1_u16, 2, 3]).await;
}

/// Text and bytes come back the same: empty, with zero bytes, looking like an integer, JSON or an envelope.
pub async fn text_and_bytes_come_back(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    for (index, text) in ["", " ", "42", "null", "{}", "\0", "\r\n", "\u{FFFD}"]
        .iter()
        .enumerate()
    {
        comes_back(&t, &format!("text {index}"), (*text).to_owned()).await;
        comes_back(&t, &format!("bytes {index}"), text.as_bytes().to_vec()).await;
        comes_back(&t, &format!("boxed {index}"), Box::<str>::from(*text)).await;
    }
    let all: Vec<u8> = (0..=255).collect();
    comes_back(&t, "all", all).await;
    comes_back(&t, "magic", vec![0xC1_u8, 1, 1, 0]).await;
}

/// A value of a mebibyte comes back the same.
pub async fn a_mebibyte_comes_back(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[0]).collect();
    comes_back(&t, "bytes", bytes).await;
    let text = "x".repeat(1 << 20);
    comes_back(&t, "text", text).await;
}

/// Nothing, and something that is nothing, are values, and told apart.
pub async fn none_and_some_none_are_told_apart(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    comes_back(&t, "unit", ()).await;
    comes_back(&t, "none", None::<u32>).await;
    comes_back(&t, "some", Some(0_u32)).await;
    comes_back(&t, "none of two", None::<Option<u32>>).await;
    comes_back(&t, "some none", Some(None::<u32>)).await;
    comes_back(&t, "some some", Some(Some(5_u32))).await;
    comes_back(&t, "none unit", None::<()>).await;
    comes_back(&t, "some unit", Some(())).await;
    comes_back(&t, "none text", None::<String>).await;
    comes_back(&t, "empty text", Some(String::new())).await;
}

/// A stored `None` is a value: `get_or_set` does not compute again.
pub async fn a_stored_none_is_a_hit(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, None::<u32>).await;
    assert_eq!(t.cache.has(&key).await.unwrap(), profile.stores());
    let got = t
        .cache
        .get_or_set(&key, Ttl::Forever, || async { Some(1_u32) });
    let computed = (!profile.stores()).then_some(1);
    assert_eq!(got.await.unwrap(), computed);
}

/// A value of another type is a miss, and stays where it is.
pub async fn another_type_is_a_miss_and_stays(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (text, item, integer) = (t.key("text"), t.key("item"), t.key("integer"));
    t.set(&text, "42".to_owned()).await;
    t.set(&item, State::Paid(1)).await;
    t.set(&integer, 300_u32).await;
    t.lacks::<u64>(&text).await;
    t.lacks::<Vec<u8>>(&text).await;
    t.lacks::<String>(&item).await;
    t.lacks::<(u8, u8)>(&item).await;
    t.lacks::<u8>(&integer).await;
    t.lacks::<f64>(&integer).await;
    t.lacks::<Vec<u32>>(&integer).await;
    let many = t.cache.get_many::<bool>(&[&text, &item]).await.unwrap();
    assert_eq!(many, [None, None]);
    t.holds(&text, "42".to_owned()).await;
    t.holds(&item, State::Paid(1)).await;
    t.holds(&integer, 300_u32).await;
}

/// `get_or_set` takes a value of another type for a miss, and stores its own over it.
pub async fn a_compute_replaces_another_type(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, "text".to_owned()).await;
    let got = t
        .cache
        .get_or_set(&key, Ttl::Forever, || async { vec![1_u32] });
    assert_eq!(got.await.unwrap(), [1]);
    t.holds(&key, vec![1_u32]).await;
    t.lacks::<String>(&key).await;
}

/// `set` refuses a value that cannot be encoded before it touches anything, wherever the store needs bytes.
pub async fn a_value_that_cannot_be_encoded_changes_nothing(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    t.set(&key, "before".to_owned()).await;
    let answer = t.cache.set(&key, Unwritable, Ttl::Forever).await;
    if let Err(error) = answer {
        assert_eq!(error.kind(), ErrorKind::Encode);
        t.holds(&key, "before".to_owned()).await;
        let many = [(t.key("b"), Unwritable), (key.clone(), Unwritable)];
        refused(
            t.cache.set_many(many, Ttl::Forever).await,
            ErrorKind::Encode,
        );
        refused(
            t.cache.add(&t.key("b"), Unwritable, Ttl::Forever).await,
            ErrorKind::Encode,
        );
        t.holds(&key, "before".to_owned()).await;
        assert!(!t.cache.has(&t.key("b")).await.unwrap());
    } else {
        // A store that keeps objects as they are needs no bytes; then the value is readable as what it is.
        let got = t.cache.get::<Unwritable>(&key).await.unwrap();
        assert_eq!(got, t.held(Unwritable));
    }
}

/// A computed value that cannot be encoded is answered all the same.
pub async fn a_computed_value_that_cannot_be_encoded_is_answered(
    cache: SharedCache,
    profile: Profile,
) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let got = t
        .cache
        .get_or_set(&key, Ttl::Forever, || async { Unwritable })
        .await;
    match got {
        Ok(value) => assert_eq!(value, Unwritable),
        Err(error) => {
            assert!(
                t.cache.core().settings().strict,
                "only a strict cache tells"
            );
            assert_eq!(error.kind(), ErrorKind::Encode);
        }
    }
    t.lacks::<u32>(&key).await;
    t.is_idle();
}
