//! Every order in which the steps of the smallest cores can happen, by loom: `make loom`.
//!
//! The files are the crate's own, with loom's locks and atomics. A flight wakes tasks of tokio, which loom does not know: its
//! races are tried by the conformance suite and by `tests/suite/races.rs`.
#![allow(dead_code, reason = "not every method of a core is needed here")]

#[path = "../../src/fence/gate.rs"]
mod gate;
#[path = "../../src/generation/register.rs"]
mod register;
#[path = "../../src/coherence/slot.rs"]
mod slot;

/// What the cores use in place of `std`.
mod sync {
    pub(crate) use loom::sync::{Mutex, RwLock, atomic};
    pub(crate) use std::sync::PoisonError;
}

mod fills;
mod generations;
mod sources;
