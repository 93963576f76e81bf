//! Frees what idle memory would keep: moka works only when it is called, and does not know the entries' deadlines.
//!
//! One thread for the process, not a task, because memory works outside tokio too. It starts with the first memory and ends with the last.

use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Inner;

const PERIOD: Duration = Duration::from_secs(1);

/// A sweep may take one part in this many of a core.
const SHARE: u32 = 20;

struct House {
    memories: Vec<(Weak<Inner>, Instant)>,
    running: bool,
}

static HOUSE: Mutex<House> = Mutex::new(House {
    memories: Vec::new(),
    running: false,
});
static WAKE: Condvar = Condvar::new();

fn house() -> MutexGuard<'static, House> {
    HOUSE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a memory looked after until it is dropped.
pub(super) fn register(memory: Weak<Inner>) {
    let mut house = house();
    house.memories.push((memory, Instant::now()));
    if !house.running {
        // Without a thread entries still expire at reads; only their memory is freed later.
        let thread = std::thread::Builder::new()
            .name("larder-housekeeping".into())
            .spawn(run);
        house.running = thread.is_ok();
    }
}

/// Lets the thread see at once that a memory is gone.
pub(super) fn wake() {
    WAKE.notify_all();
}

fn run() {
    loop {
        let mut house = house();
        house
            .memories
            .retain(|(memory, _)| memory.strong_count() > 0);
        if house.memories.is_empty() {
            house.running = false;
            return;
        }
        let due: Vec<_> = house.memories.clone();
        drop(house);
        for (memory, not_before) in due {
            // A value's own `Drop` may panic in here; the other memories are looked after all the same.
            let tended = std::panic::AssertUnwindSafe(|| tend(&memory, not_before));
            if let Some(next) = std::panic::catch_unwind(tended).unwrap_or_default() {
                put_off(&memory, next);
            }
        }
        let house = self::house();
        drop(
            WAKE.wait_timeout(house, PERIOD)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

fn put_off(memory: &Weak<Inner>, next: Instant) {
    let mut house = house();
    if let Some((_, not_before)) = house
        .memories
        .iter_mut()
        .find(|(other, _)| other.ptr_eq(memory))
    {
        *not_before = next;
    }
}

/// Does what is due for one memory; answers when it may be swept next, if it was swept now.
fn tend(memory: &Weak<Inner>, not_before: Instant) -> Option<Instant> {
    let memory = memory.upgrade()?;
    let began = Instant::now();
    let now = memory.core.now();
    let due = memory.next_expiry.load(Ordering::Relaxed) <= now.as_nanos() && not_before <= began;
    if due {
        memory.sweep();
    }
    if memory.busy.swap(false, Ordering::Relaxed) || due {
        memory.store.run_pending_tasks();
    }
    due.then(|| Instant::now() + began.elapsed() * SHARE)
}

impl Inner {
    /// Drops the entries whose life is over.
    pub(super) fn sweep(&self) {
        self.next_expiry.store(u64::MAX, Ordering::Relaxed);
        let now = self.core.now();
        let mut next = u64::MAX;
        for (key, entry) in &self.store {
            if !entry.is_expired(now) {
                next = next.min(entry.expires().as_nanos());
                continue;
            }
            // It may have been replaced since the iterator saw it.
            let _lock = self.lock(&key);
            if self
                .store
                .get(&**key)
                .is_some_and(|entry| entry.is_expired(now))
            {
                self.store.invalidate(&**key);
            }
        }
        self.next_expiry.fetch_min(next, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        wake();
    }
}
