//! Methods, and functions of a type.

use larder::{Cache, Moka, SharedCache, memoize};

use crate::{CACHE, Runs};

struct Users<C> {
    cache: C,
    tenant: String,
    runs: Runs,
}

impl<C: Cache> Users<C> {
    fn new(cache: C, tenant: &str) -> Self {
        Self {
            cache,
            tenant: tenant.to_owned(),
            runs: Runs::new(),
        }
    }

    /// A user of whatever tenant.
    #[memoize(cache = self.cache, ttl = "1h", name = "users")]
    async fn any(&self, id: u64) -> String {
        format!("{id} {}", self.runs.next())
    }

    /// A user of this tenant.
    #[memoize(cache = self.cache, ttl = "1h", key_self = "self.tenant")]
    async fn load(&self, id: u64, name: &str) -> String {
        format!("{} {id} {name} {}", self.tenant, self.runs.next())
    }
}

#[tokio::test]
async fn a_method_is_memoized_for_all_instances() {
    let cache = Moka::new(100);
    let (a, b) = (
        Users::new(cache.clone(), "a"),
        Users::new(cache.clone(), "b"),
    );
    assert_eq!(a.any(7).await, "7 1");
    assert_eq!(b.any(7).await, "7 1");
    assert_eq!(a.any_key(7).unwrap(), "users(7)");
    assert_eq!(b.any_uncached(7).await, "7 1");
    assert_eq!(b.any_refresh(7).await, "7 2");
    assert_eq!(a.any(7).await, "7 2");
    assert!(a.any_delete(7).await.unwrap());
    assert_eq!(a.any(7).await, "7 2");
    a.any_delete_all().await.unwrap();
    assert!(!a.any_delete(7).await.unwrap());
}

#[tokio::test]
async fn a_method_is_memoized_for_each_instance_by_what_tells_them_apart() {
    let cache: SharedCache = std::sync::Arc::new(Moka::new(100));
    let (a, b) = (
        Users::new(cache.clone(), "a"),
        Users::new(cache.clone(), "b"),
    );
    for _ in 0..2 {
        assert_eq!(a.load(7, "x").await, "a 7 x 1");
        assert_eq!(b.load(7, "x").await, "b 7 x 1");
    }
    assert_ne!(a.load_key(7, "x").unwrap(), b.load_key(7, "x").unwrap());
    a.load(8, "x").await;
    a.load_delete_instance().await.unwrap();
    assert!(!a.load_delete(7, "x").await.unwrap());
    assert!(!a.load_delete(8, "x").await.unwrap());
    assert!(b.load_delete(7, "x").await.unwrap());
    assert_eq!(b.load(7, "x").await, "b 7 x 2");
    b.load_delete_all().await.unwrap();
    assert!(!b.load_delete(7, "x").await.unwrap());
}

struct Prices;
struct Stocks;

/// Functions of two types, of one name and the same arguments.
impl Prices {
    #[memoize(cache = CACHE, ttl = 5, associated)]
    async fn of(key: &str, factor: u32) -> String {
        format!("price of {key} times {factor}")
    }
}

impl Stocks {
    #[memoize(cache = CACHE, ttl = 5, associated)]
    async fn of(key: &str, factor: u32) -> String {
        format!("stock of {key} times {factor}")
    }
}

#[tokio::test]
async fn functions_of_two_types_are_two() {
    assert_eq!(Prices::of("tea", 2).await, "price of tea times 2");
    assert_eq!(Stocks::of("tea", 2).await, "stock of tea times 2");
    let key = Prices::of_key("tea", 2).unwrap();
    assert!(key.starts_with("memoize::methods::Prices::of(#"), "{key}");
    assert!(Prices::of_delete("tea", 2).await.unwrap());
    assert!(Stocks::of_delete("tea", 2).await.unwrap());
    Stocks::of_delete_all().await.unwrap();
}

struct Repo<T>(T);

trait Kind {
    const NAME: &'static str;
}

impl Kind for u8 {
    const NAME: &'static str = "u8";
}

impl Kind for u16 {
    const NAME: &'static str = "u16";
}

impl<T: Kind + Sync> Repo<T> {
    #[memoize(cache = CACHE)]
    async fn kind(&self, id: u32) -> String {
        format!("{} {id}", T::NAME)
    }
}

#[tokio::test]
async fn a_method_of_a_generic_type_is_one_for_each_of_its_types() {
    assert_eq!(Repo(1_u8).kind(1).await, "u8 1");
    assert_eq!(Repo(1_u16).kind(1).await, "u16 1");
    let key = Repo(1_u8).kind_key(1).unwrap();
    assert!(key.starts_with("memoize::methods::Repo::kind<"), "{key}");
}

struct Lamp<const COLOUR: char>;

impl<const COLOUR: char> Lamp<COLOUR> {
    #[memoize(cache = CACHE)]
    async fn colour(&self) -> char {
        COLOUR
    }
}

struct Pair<T>(T);

impl Pair<u8> {
    #[memoize(cache = CACHE)]
    async fn bits(&self) -> u32 {
        8
    }
}

impl Pair<u16> {
    #[memoize(cache = CACHE)]
    async fn bits(&self) -> u32 {
        RUNS.next();
        16
    }
}

static RUNS: Runs = Runs::new();

#[tokio::test]
async fn types_that_differ_in_a_character_or_an_argument_are_two() {
    assert_eq!(
        (Lamp::<'a'>.colour().await, Lamp::<'b'>.colour().await),
        ('a', 'b')
    );
    for _ in 0..2 {
        assert_eq!((Pair(1_u8).bits().await, Pair(1_u16).bits().await), (8, 16));
    }
    assert_eq!((RUNS.count(), Pair(1_u8).0, Pair(1_u16).0), (1, 1, 1));
}
