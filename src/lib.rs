//! Larder.
pub mod error;
pub mod key;
pub mod ttl;
pub use error::{Error, ErrorKind, Result};
pub use ttl::{Remaining, Ttl};
