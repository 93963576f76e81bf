//! Every order in which the steps of the smallest cores can happen, by loom: `make loom`.
//!
//! The files are the crate's own, with loom's locks and atomics, and wakeups over those. Impatience is tried elsewhere: there is
//! no timer here. Of a flight with more than two callers not all orders are tried, but those in which few threads are stopped in
//! the middle of something.
#![allow(dead_code, reason = "not every method of a core is needed here")]

#[path = "../../src/flight/mod.rs"]
#[allow(unused_imports, reason = "nor every one of a flight")]
mod flight;
#[path = "../../src/fence/gate.rs"]
mod gate;
#[path = "../../src/generation/register.rs"]
mod register;
#[path = "../../src/coherence/slot.rs"]
mod slot;

/// What the cores use in place of `std`.
mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, atomic};
    pub(crate) use std::sync::PoisonError;

    pub(crate) use crate::notify::Notify;
}

/// What flights carry.
mod value {
    pub(crate) type Shared = std::sync::Arc<dyn std::any::Any + Send + Sync>;
}

mod fills;
mod flights;
mod generations;
mod notify;
mod sources;
