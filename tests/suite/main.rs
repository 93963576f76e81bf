//! One test binary for everything that uses the crate from outside.

mod callers;
