//! The stores.

#[cfg(feature = "moka")]
pub(crate) mod moka;
pub(crate) mod null;
