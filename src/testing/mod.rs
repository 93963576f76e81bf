//! For tests of applications and of stores: a store that fails on command, a store that records, a clock set by hand
//! and, with feature `redis`, a proxy whose network goes bad.
//!
//! ```
//! use larder::testing::{Fault, Faulty};
//! use larder::{Cache, Moka, Ttl};
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let cache = Faulty::new(Moka::new(100));
//! cache.set("greeting", "hello".to_owned(), Ttl::Forever).await.unwrap();
//! cache.faults().always("fetch", Fault::Fail);
//! assert!(cache.get::<String>("greeting").await.is_err());
//! let value = cache.get_or_set("greeting", Ttl::Default, || async { "computed".to_owned() }).await;
//! assert_eq!(value.unwrap(), "computed", "a store that fails costs a compute, not an error");
//! # });
//! ```
//!
//! The clock is [`Clock::manual`]; every builder takes it:
//!
//! ```
//! use std::time::Duration;
//! use larder::testing::Clock;
//! use larder::{Cache, Moka};
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let clock = Clock::manual();
//! let cache = Moka::builder().clock(clock.clone()).build();
//! cache.set("session", 1_u32, Duration::from_secs(60)).await.unwrap();
//! clock.advance(Duration::from_secs(60));
//! assert_eq!(cache.get::<u32>("session").await.unwrap(), None);
//! # });
//! ```

mod faults;
mod faulty;
#[cfg(feature = "redis")]
mod proxy;
mod recording;

pub use crate::clock::Clock;
pub use faults::{Fault, Faults};
pub use faulty::Faulty;
#[cfg(feature = "redis")]
pub use proxy::{Mode, Proxy};
pub use recording::{Call, Recording};

/// The operations of a store by name, as [`Faults`] and [`Recording`] take them: the waiting methods of
/// [`Backend`](crate::Backend).
pub const OPERATIONS: [&str; 15] = [
    "begin",
    "claim",
    "fetch",
    "store",
    "remove",
    "retract",
    "wipe",
    "contains",
    "remaining",
    "retime",
    "add_to",
    "fetch_many",
    "store_many",
    "remove_many",
    "close",
];

/// A misspelt name would make a test pass for nothing.
#[track_caller]
fn known(operation: &str) -> &'static str {
    match OPERATIONS.into_iter().find(|known| *known == operation) {
        Some(known) => known,
        None => panic!("a store has no operation `{operation}`; it has {OPERATIONS:?}"),
    }
}
