//! A consistent-hash ring of independent Redis nodes, whose map a manager Redis holds.
//!
//! [`Ring`] is the map as plain data, [`DistributedRedis`] the store that follows it, [`publish()`] writes it.
//! docs/FORMAT.md has the keys of the map to the byte.

mod builder;
mod client;
mod current;
mod departed;
mod file;
mod follow;
mod history;
mod keys;
mod leftover;
mod lineage;
mod lock;
mod map;
mod publish;
mod recent;
mod refresh;
pub(crate) mod registry;
mod signals;
mod snapshot;
mod spread;
mod store;
mod term;
mod write;

pub use crate::ringmap::{
    Layout, Move, Order, Ring, fields_for_readers, hash_tag, key_hash, label, moves, positions_for,
    python_positions,
};
pub use builder::DistributedRedisBuilder;
pub use client::{NodeConnection, RingConnection};
pub use keys::{HISTORY_KEY, MAP_KEY, META_KEY};
pub use publish::{Publication, publish};
pub use snapshot::MapStatus;
pub use store::DistributedRedis;
