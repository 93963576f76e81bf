//! Locks, atomics and wakeups of the few cores that are small enough for every order of their steps to be tried: `tests/loom`
//! includes their files with loom's in place of these.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, atomic};

pub(crate) use tokio::sync::Notify;
