//! Which calls are the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use larder::memoize;
use serde::Serialize;

use crate::{CACHE, Runs};

#[derive(Clone, Debug, Serialize)]
struct Query {
    text: String,
    tags: HashSet<String>,
    limit: Option<u32>,
}

static SEARCHES: Runs = Runs::new();

#[memoize(cache = CACHE)]
async fn search(query: &Query, fields: &[&str], pages: HashMap<String, u32>) -> u32 {
    let _ = (query, fields, pages);
    SEARCHES.next()
}

#[tokio::test]
async fn maps_and_sets_are_the_same_in_whatever_order() {
    let query = || Query {
        text: "tea".into(),
        tags: (0..30).map(|i| i.to_string()).collect(),
        limit: None,
    };
    let pages = || {
        (0..30)
            .map(|i| (i.to_string(), i))
            .collect::<HashMap<_, _>>()
    };
    for _ in 0..5 {
        assert_eq!(search(&query(), &["a", "b"], pages()).await, 1);
    }
    assert_eq!(search(&query(), &["b", "a"], pages()).await, 2);
    let other = Query {
        limit: Some(1),
        ..query()
    };
    assert_eq!(search(&other, &["a", "b"], pages()).await, 3);
}

#[memoize(cache = CACHE)]
async fn texts(first: String, second: &str, third: char) -> String {
    format!("{first}{second}{third}")
}

/// What a key is, to the byte: those of other builds, machines and versions are the same.
#[tokio::test]
async fn keys_are_what_they_were() {
    assert_eq!(
        texts::key("a".into(), "b", 'c').unwrap(),
        "memoize::arguments::texts(#72f3e58f080222f44065465c3eb60ab8)"
    );
    let map = BTreeMap::from([(1, "a".to_owned())]);
    assert_eq!(nothing::key().unwrap(), "memoize::arguments::nothing()");
    assert_eq!(
        mixed::key(-5, true, u64::MAX, None).unwrap(),
        "memoize::arguments::mixed(#296cb17c8d0d8fb32d7b9265315d6b96)"
    );
    assert_eq!(
        mapped::key(map).unwrap(),
        "memoize::arguments::mapped(#348a67655e9102a7d4064aa91310ca5c)"
    );
}

#[memoize(cache = CACHE)]
async fn nothing() -> u8 {
    1
}

#[memoize(cache = CACHE)]
async fn mixed(a: i8, b: bool, c: u64, d: Option<u8>) -> u64 {
    let _ = (a, b, d);
    c
}

#[memoize(cache = CACHE)]
async fn mapped(map: BTreeMap<u8, String>) -> usize {
    map.len()
}

static SKIPS: Runs = Runs::new();

struct Database;

#[memoize(cache = CACHE, skip(database, trace))]
async fn by_id(database: &Database, id: u64, trace: &mut Vec<u64>) -> u32 {
    let _ = database;
    trace.push(id);
    SKIPS.next()
}

#[tokio::test]
async fn what_is_skipped_is_no_part_of_the_key() {
    let mut trace = Vec::new();
    assert_eq!(by_id(&Database, 7, &mut trace).await, 1);
    assert_eq!(by_id(&Database, 7, &mut trace).await, 1);
    assert_eq!(by_id(&Database, 8, &mut trace).await, 2);
    assert_eq!(trace, [7, 8]);
    assert_eq!(by_id::key(7).unwrap(), "memoize::arguments::by_id(7)");
    assert!(by_id::delete(7).await.unwrap());
}

struct Opaque(u32);

#[memoize(cache = CACHE, key = "user {name}")]
async fn formatted(name: &str, opaque: &Opaque) -> u32 {
    let _ = name;
    opaque.0
}

#[memoize(cache = CACHE, key = |name, opaque| format!("{}/{}", name.len(), opaque.0))]
async fn by_closure(name: &str, opaque: &Opaque) -> u32 {
    let _ = name;
    opaque.0
}

#[memoize(cache = CACHE, key = opaque.0 % 2)]
async fn by_expression(opaque: Opaque) -> u32 {
    opaque.0
}

#[tokio::test]
async fn a_key_may_be_given() {
    let opaque = Opaque(1);
    assert_eq!(formatted("ada", &opaque).await, 1);
    assert_eq!(formatted("ada", &Opaque(2)).await, 1);
    assert_eq!(formatted("bob", &Opaque(2)).await, 2);
    assert_eq!(
        formatted::key("ada").unwrap(),
        "memoize::arguments::formatted(user ada)"
    );
    assert_eq!(
        by_closure::key("ada", &opaque).unwrap(),
        "memoize::arguments::by_closure(3/1)"
    );
    assert_eq!(by_closure("ada", &opaque).await, 1);
    assert_eq!(by_expression(Opaque(3)).await, 3);
    assert_eq!(by_expression(Opaque(5)).await, 3);
    // What would not do in a key is hashed.
    for odd in ["a\nb", &"x".repeat(2000)] {
        let key = formatted::key(odd).unwrap();
        assert_eq!(
            key.len(),
            "memoize::arguments::formatted(#)".len() + 32,
            "{key}"
        );
        assert_eq!(formatted(odd, &opaque).await, 1);
        assert!(formatted::delete(odd).await.unwrap(), "{key}");
    }
}

trait Table {
    const NAME: &'static str;
}

struct Users;
struct Orders;

impl Table for Users {
    const NAME: &'static str = "users";
}

impl Table for Orders {
    const NAME: &'static str = "orders";
}

#[memoize(cache = CACHE)]
async fn of_table<T: Table, const N: usize>(id: u32) -> String {
    format!("{} {N} {id}", T::NAME)
}

#[memoize(cache = CACHE)]
async fn generic<T>(value: T) -> String
where
    T: Serialize + Send + Sync + std::fmt::Debug,
{
    format!("{value:?}")
}

#[memoize(cache = CACHE)]
async fn anything(value: impl Serialize + Send + Sync + std::fmt::Debug) -> String {
    format!("{value:?}")
}

trait Unit {
    const UNIT: &'static str;
}

#[derive(Serialize)]
struct Celsius(u32);
#[derive(Serialize)]
struct Fahrenheit(u32);

impl Unit for Celsius {
    const UNIT: &'static str = "C";
}

impl Unit for Fahrenheit {
    const UNIT: &'static str = "F";
}

/// A type that has no name, behind a reference.
#[memoize(cache = CACHE)]
async fn shown(degrees: &(impl Serialize + Unit + Sync)) -> String {
    let unit = |_: &_| unit_of(degrees);
    unit(degrees).to_owned()
}

fn unit_of<T: Unit>(_: &T) -> &'static str {
    T::UNIT
}

#[tokio::test]
async fn types_without_a_name_are_told_apart() {
    assert_eq!(shown(&Celsius(5)).await, "C");
    assert_eq!(shown(&Fahrenheit(5)).await, "F");
}

/// The patterns of a closure have other arguments' names.
#[memoize(cache = CACHE, key = |tenant, id| format!("{tenant}/{id}"))]
async fn crossed(id: u64, tenant: u64) -> u64 {
    id * 100 + tenant
}

/// What a closure returns is its own.
#[memoize(cache = CACHE, unless = |user| { if *user == 1 { return true; } false })]
async fn is_admin(user: u64) -> bool {
    user == 2
}

#[tokio::test]
async fn closures_are_given_the_arguments_by_place() {
    assert_eq!(
        crossed::key(1, 2).unwrap(),
        "memoize::arguments::crossed(1/2)"
    );
    assert_eq!((crossed(1, 2).await, crossed(1, 3).await), (102, 103));
    assert!(!is_admin(1).await);
    assert!(is_admin(2).await);
}

#[tokio::test]
async fn generic_functions_are_told_apart_by_their_types() {
    assert_eq!(of_table::<Users, 1>(7).await, "users 1 7");
    assert_eq!(of_table::<Orders, 1>(7).await, "orders 1 7");
    assert_eq!(of_table::<Orders, 2>(7).await, "orders 2 7");
    let key = of_table::key::<Users, 1>(7).unwrap();
    assert!(key.starts_with("memoize::arguments::of_table<"), "{key}");
    assert!(key.ends_with(">(7)"), "{key}");
    assert_eq!(generic(1_u8).await, "1");
    assert_eq!(generic(1_u16).await, "1");
    assert_ne!(generic::key(1_u8).unwrap(), generic::key(1_u16).unwrap());
    assert_eq!(anything("1").await, "\"1\"");
    assert_eq!(anything(Some("1")).await, "Some(\"1\")");
    of_table::delete_all().await.unwrap();
    assert!(!of_table::delete::<Users, 1>(7).await.unwrap());
}

async fn first() -> u32 {
    #[memoize(cache = CACHE)]
    async fn local(number: u32) -> u32 {
        number + 1
    }
    local(1).await
}

async fn second() -> u32 {
    #[memoize(cache = CACHE)]
    async fn local(number: u32) -> u32 {
        number + 2
    }
    local(1).await
}

mod other {
    use super::*;

    #[memoize(cache = CACHE)]
    pub(super) async fn nothing() -> u8 {
        2
    }
}

/// One name, given to two functions: the second that is called is not cached.
mod twice {
    use super::*;

    pub(super) static RUNS: Runs = Runs::new();

    #[memoize(cache = CACHE, name = "given twice")]
    pub(super) async fn one(number: u32) -> String {
        format!("one {number}")
    }

    #[memoize(cache = CACHE, name = "given twice")]
    pub(super) async fn two(number: u32) -> String {
        RUNS.next();
        format!("two {number}")
    }
}

#[tokio::test]
async fn no_two_functions_have_one_key() {
    assert_eq!((first().await, second().await), (2, 3));
    assert_eq!((nothing().await, other::nothing().await), (1, 2));
    for _ in 0..2 {
        assert_eq!(twice::one(1).await, "one 1");
        assert_eq!(twice::two(1).await, "two 1");
    }
    assert_eq!(twice::RUNS.count(), 2);
    assert_eq!(twice::one::key(1).unwrap(), "given twice(1)");
    let error = twice::two::key(1).unwrap_err();
    assert_eq!(error.kind(), larder::ErrorKind::Key);
    assert!(error.to_string().contains("same name"), "{error}");
}

struct Broken;

impl Serialize for Broken {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no bytes for this"))
    }
}

static BROKEN: Runs = Runs::new();

#[memoize(cache = CACHE)]
async fn of_broken(broken: &Broken) -> u32 {
    let _ = broken;
    BROKEN.next()
}

#[tokio::test]
async fn an_argument_without_bytes_is_not_cached() {
    assert_eq!(of_broken(&Broken).await, 1);
    assert_eq!(of_broken(&Broken).await, 2);
    let error = of_broken::key(&Broken).unwrap_err();
    assert!(error.to_string().contains("no bytes for this"), "{error}");
    assert_eq!(
        of_broken::delete(&Broken).await.unwrap_err().kind(),
        error.kind()
    );
}
