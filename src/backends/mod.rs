//! The stores.

#[cfg(feature = "moka")]
pub(crate) mod moka;
pub(crate) mod null;
#[cfg(feature = "redis")]
pub(crate) mod redis;
