//! Larder.

pub mod backend;
mod backends;
mod cache;
pub mod clock;
pub mod codec;
pub mod core;
pub mod entry;
pub mod error;
mod fence;
mod flight;
pub mod key;
mod op;
mod option;
pub mod stats;
pub mod ttl;
pub mod value;
mod wrap;

pub use backend::{Backend, Memory, Peek, SharedCache};
#[cfg(feature = "moka")]
pub use backends::moka::{Eviction, Moka, MokaBuilder, Removal};
pub use backends::null::Null;
pub use cache::Cache;
pub use clock::{Clock, Moment};
pub use entry::{Draft, Entry, Want, When};
pub use error::{Error, ErrorKind, Result};
pub use op::Op;
pub use stats::Stats;
pub use ttl::{Remaining, Ttl};
pub use value::{Cacheable, Kind, Value};
pub use wrap::prefixed::Prefixed;
pub use wrap::tiered::{Tiered, TieredBuilder};
