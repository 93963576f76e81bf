//! Memoized functions of all kinds, and the keys of calls of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use larder::{Moka, memoize};
use serde::Serialize;

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::builder().key_prefix("BEI:").build());

#[derive(Serialize)]
pub enum Shape {
    Round { radius: f64 },
    Square(u32, u32),
    None,
}

#[derive(Serialize)]
pub struct Query<'q> {
    text: &'q str,
    tags: HashSet<String>,
    weights: HashMap<u8, Option<i64>>,
    shape: Shape,
}

#[memoize(cache = CACHE)]
async fn nothing() -> u8 {
    1
}

#[memoize(cache = CACHE)]
async fn numbers(a: u8, b: i128, c: bool) -> u8 {
    let _ = (b, c);
    a
}

#[memoize(cache = CACHE)]
async fn texts(a: &str, b: String, c: char) -> String {
    format!("{a}{b}{c}")
}

#[memoize(cache = CACHE, source_check)]
async fn search(query: &Query<'_>) -> usize {
    query.tags.len() + query.weights.len()
}

#[memoize(cache = CACHE, name = "maps")]
async fn by_maps(map: BTreeMap<String, Vec<u8>>, set: HashSet<u32>) -> usize {
    map.len() + set.len()
}

#[memoize(cache = CACHE, key = "{id:04}")]
async fn formatted(id: u32) -> u32 {
    id
}

#[memoize(cache = CACHE)]
async fn generic<T: Serialize + Send + Sync, const N: usize>(value: T) -> usize {
    let _ = value;
    N
}

#[memoize(cache = CACHE)]
fn blocking(id: u64) -> u64 {
    id
}

pub struct Users<T> {
    tenant: T,
}

impl<T: Serialize + Sync> Users<T> {
    #[memoize(cache = CACHE, key_self = "self.tenant")]
    async fn load(&self, id: u64, shapes: &[Shape]) -> usize {
        let _ = id;
        shapes.len()
    }

    #[memoize(cache = CACHE, associated)]
    async fn count(id: u64) -> u64 {
        id
    }
}

pub fn all() -> Vec<String> {
    let local = {
        #[memoize(cache = CACHE)]
        async fn local(id: u64) -> u64 {
            id
        }
        local::key(1)
    };
    let query = Query {
        text: "tea",
        tags: (0..40).map(|i| format!("tag {i}")).collect(),
        weights: (0..40).map(|i| (i, (i % 2 == 0).then_some(-i64::from(i)))).collect(),
        shape: Shape::Round { radius: 1.5 },
    };
    let users = Users { tenant: "acme" };
    let shapes = [Shape::Square(1, 2), Shape::None];
    let keys = [
        nothing::key(),
        numbers::key(1, i128::MIN, true),
        texts::key("a", "b".to_owned(), 'c'),
        search::key(&query),
        by_maps::key([("a".to_owned(), vec![1, 2])].into(), (0..40).collect()),
        formatted::key(7),
        generic::key::<_, 3>(Some("x")),
        generic::key::<Vec<Option<(u8, &str)>>, 3>(vec![]),
        blocking::key(u64::MAX),
        users.load_key(7, &shapes),
        Users::<u8>::count_key(7),
        Users::<HashMap<String, &'static str>>::count_key(7),
        local,
    ];
    keys.into_iter().map(|key| key.expect("a key")).collect()
}
