//! The test suite for any store: a named test for each thing that the cache promises.
//!
//! Three lines test a store of your own:
//!
//! ```
//! # use larder::Null as MyStore;
//! async fn fresh() -> MyStore {
//!     MyStore::new()
//! }
//! larder::conformance!(my_store, fresh, larder::conformance::Profile::full());
//! # fn main() {}
//! ```
//!
//! This makes a module `my_store` with one `#[test]` for each case; `cargo test my_store` runs them. Each case builds its
//! own store from the factory, in a runtime of its own, and fails if it is not done within a minute.
//!
//! # The factory
//!
//! An async function, or a closure, that answers a cache, or a pair of a cache and a guard: whatever keeps its servers
//! alive until the case is over.
//!
//! - Give the cache room for a few thousand entries and a few mebibytes, and let it refuse no new key.
//! - Set a `leader_patience` below a second: some cases wait for it to pass a few times.
//! - Leave its clock the real one.
//!
//! Cases may share a server: each works under a random prefix of its own, and none clears what is not below it.
//!
//! # Profiles
//!
//! A store that differs from the rest says so in its [`Profile`]. No case is skipped for that: it asserts the difference.

mod fixture;
mod patient;
mod trial;

pub mod cases;

pub use fixture::{Fixture, Profile, run};

/// Makes a module of that name with one `#[test]` for each case of the suite, on the stores that the factory makes.
/// See [`larder::conformance`](mod@crate::conformance).
#[macro_export]
macro_rules! conformance {
    ($name:ident, $factory:expr, $profile:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::__conformance_cases! { ($factory) ($profile) }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    (($factory:expr) ($profile:expr) erased $($group:ident { $($case:ident)* })*) => {$($(
        #[test]
        fn $case() {
            $crate::conformance::run(
                concat!(module_path!(), "::", stringify!($case)),
                $factory,
                |cache| $crate::conformance::cases::$group::$case(::std::sync::Arc::new(cache), $profile),
            );
        }
    )*)*};
    (($factory:expr) ($profile:expr) typed $($group:ident { $($case:ident)* })*) => {$($(
        #[test]
        fn $case() {
            $crate::conformance::run(
                concat!(module_path!(), "::", stringify!($case)),
                $factory,
                |cache| $crate::conformance::cases::$group::$case(cache, $profile),
            );
        }
    )*)*};
}
