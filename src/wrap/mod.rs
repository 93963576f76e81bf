//! Stores made of stores.

pub(crate) mod prefixed;
pub(crate) mod tiered;
