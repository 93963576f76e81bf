// Its examples need the stores that they are about.
#![cfg_attr(
    all(feature = "macros", feature = "moka", feature = "ring"),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(feature = "macros", feature = "moka", feature = "ring")),
    doc = "An embeddable cache for async Rust."
)]

pub mod backend;
mod backends;
mod cache;
pub mod clock;
pub mod codec;
pub mod coherence;
#[cfg(feature = "ring")]
mod commands;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
pub mod core;
#[cfg(any(feature = "http", feature = "macros"))]
mod digest;
pub mod entry;
pub mod error;
pub mod explain;
mod failure;
mod fence;
mod flight;
// Memory and servers use a part of it each.
#[cfg_attr(not(all(feature = "moka", feature = "redis")), allow(dead_code))]
mod generation;
#[cfg(feature = "http")]
pub mod http;
pub mod key;
#[cfg(feature = "manager")]
pub mod manager;
#[cfg(feature = "macros")]
pub mod memoize;
#[cfg(feature = "metrics")]
pub mod metrics;
mod op;
mod option;
mod options;
mod refresh;
mod refusal;
mod report;
#[cfg(feature = "ring")]
pub mod ring;
#[cfg(feature = "ring")]
mod ringmap;
pub mod stats;
mod sync;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
pub mod ttl;
mod validator;
pub mod value;
#[cfg(feature = "redis")]
mod wire;
mod wrap;

#[cfg(feature = "redis")]
pub use ::redis;
#[cfg(feature = "tls")]
pub use ::tokio_rustls::rustls;
pub use backend::{Backend, Memory, Peek, SharedCache};
#[cfg(feature = "moka")]
pub use backends::moka::{Eviction, Moka, MokaBuilder, Removal};
pub use backends::null::Null;
#[cfg(feature = "redis")]
pub use backends::redis::{Redis, RedisBuilder};
pub use cache::{Cache, Each};
pub use clock::{Clock, Moment};
pub use config::{Config, open};
pub use context::{Context, Contexts};
pub use entry::{Answer, Draft, Entry, Stored, Ticket, Want, When};
pub use error::{Error, ErrorKind, Result};
pub use explain::{Explanation, Lookup, Why};
#[cfg(feature = "macros")]
pub use larder_macros::memoize;
pub use op::Op;
pub use options::Options;
pub use refresh::RefreshAhead;
pub use report::{Report, Source};
#[cfg(feature = "ring")]
pub use ring::{DistributedRedis, DistributedRedisBuilder, NodeConnection, RingConnection};
pub use stats::Stats;
pub use ttl::{Remaining, Ttl};
pub use validator::Validator;
pub use value::{Cacheable, Kind, Value};
#[cfg(feature = "tls")]
pub use wire::Tls;
#[cfg(feature = "redis")]
pub use wire::{Login, NodeStatus};
pub use wrap::prefixed::Prefixed;
pub use wrap::tiered::{Tiered, TieredBuilder};

// Their examples are run.
#[cfg(all(doctest, feature = "macros", feature = "moka"))]
#[doc = include_str!("../docs/FLASK_CACHING.md")]
mod from_flask_caching {}
#[cfg(all(doctest, feature = "moka", feature = "ring"))]
#[doc = include_str!("../docs/MIGRATING.md")]
mod from_the_python_pair {}
#[cfg(all(doctest, feature = "ring"))]
#[doc = include_str!("../docs/ACL.md")]
mod by_users {}
#[cfg(all(doctest, feature = "manager"))]
#[doc = include_str!("../docs/MANAGER.md")]
mod by_managers {}
