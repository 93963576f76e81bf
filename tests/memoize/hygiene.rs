//! What the attribute writes, in code that has names of its own for everything and takes no warning.

#![deny(warnings, clippy::pedantic, clippy::nursery)]

use std::sync::LazyLock;

use larder::{Moka, memoize};

static CACHE: LazyLock<Moka> = LazyLock::new(|| Moka::new(100));

/// Names of the prelude, taken.
mod taken {
    #[allow(dead_code)]
    pub(super) struct Option;
    #[allow(dead_code)]
    pub(super) struct Result;
    #[allow(dead_code)]
    pub(super) struct String;
    #[allow(non_snake_case, dead_code)]
    pub(super) const fn Some() {}
}

mod shadowed {
    use super::taken::{Option, Result, Some, String};
    use super::{CACHE, memoize};

    #[memoize(cache = CACHE, ttl = 60, tags = ["shadowed", "of {of}"], unless = of == 0, force_if = of == 1, stale_if = |found| *found == 0, store_if = |made| *made > 0)]
    pub(super) async fn twice(of: u64) -> u64 {
        let _ = (Option, Result, String, Some());
        of * 2
    }
}

/// Arguments called like what the macro may need.
#[memoize(cache = CACHE, ttl = "1m")]
async fn named(
    key: u8,
    cache: &str,
    options: u8,
    value: u8,
    r#type: u8,
    mut room: u8,
    _unused: u8,
) -> std::result::Result<u64, larder::Error> {
    room += 1;
    let sum = [key, options, value, r#type, room];
    Ok(sum.iter().map(|part| u64::from(*part)).sum::<u64>() + cache.len() as u64)
}

/// Without a prelude at all.
#[no_implicit_prelude]
mod bare {
    #[::larder::memoize(cache = super::CACHE)]
    pub(super) async fn half(of: u64) -> u64 {
        of / 2
    }

    pub(super) struct Halves;

    impl Halves {
        #[::larder::memoize(cache = super::CACHE, task, associated)]
        pub(super) async fn of(of: u64) -> ::core::result::Result<u64, ::larder::Error> {
            ::core::result::Result::Ok(of / 2)
        }
    }
}

/// The type of an argument that is skipped is nothing to a key: it need not be said.
#[memoize(cache = CACHE, skip(log))]
async fn logged<W: std::fmt::Write + Send>(id: u64, mut log: W) -> u64 {
    let _ = write!(log, "{id}");
    id
}

#[tokio::test]
async fn what_is_skipped_is_not_asked_for() {
    assert_eq!(logged(7, String::new()).await, 7);
    assert!(logged::key(7).expect("a key").ends_with("logged(7)"));
    assert!(logged::delete(7).await.expect("a cache"));
}

#[tokio::test]
async fn names_of_the_application_are_its_own() {
    assert_eq!(shadowed::twice(4).await, 8);
    let key = || named(1, "two", 3, 4, 5, 6, 7);
    assert_eq!(key().await.expect("a value"), 23);
    let key = named::key(1, "two", 3, 4, 5, 6, 7).expect("a key");
    assert!(key.ends_with(')') || key.contains('#'), "{key}");
    assert_eq!(bare::half(4).await, 2);
    assert_eq!(bare::Halves::of(4).await.expect("a value"), 2);
}
