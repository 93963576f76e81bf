//! The task that follows the map, and whoever takes over from it where it has no turn any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime;
use tokio::time::Instant;

use super::follow::{Follower, Term};
use super::lock::lock;
use super::signals::Signals;
use super::snapshot::Snapshot;

/// Without any sign of a change the whole map is read at least this often: a writer that knows nothing of
/// Larder can change it without changing its size.
const FULL_READ: Duration = Duration::from_secs(5);

/// How late the task may be before callers on another runtime begin a new one.
const GRACE: Duration = Duration::from_secs(1);

impl Follower {
    /// The map in use. Never waits, never locks; revives the task if its runtime has ended.
    #[inline]
    pub(super) fn current(self: &Arc<Self>) -> arc_swap::Guard<Arc<Snapshot>> {
        if self.following.load(Ordering::Relaxed) == 0 {
            self.follow();
        }
        self.current.load()
    }

    /// The same, and revives the task too if nobody drives its runtime, for which it reads the clock.
    pub(super) fn followed(self: &Arc<Self>) -> Arc<Snapshot> {
        if self.is_overdue() {
            self.follow();
        }
        Arc::clone(&self.current())
    }

    fn is_overdue(&self) -> bool {
        let due = Duration::from_millis(self.due.load(Ordering::Relaxed));
        self.began.elapsed() > due + GRACE
    }

    /// The task has its turn again by then.
    fn due_at(&self, due: Instant) {
        let due = due.saturating_duration_since(self.began).as_millis();
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        self.due.store(due, Ordering::Relaxed);
    }

    pub(super) fn due_within(&self, span: Duration) {
        self.due_at(Instant::now() + span);
    }

    /// Begins a term where there is none, or one on a runtime that nobody drives.
    pub(super) fn follow(self: &Arc<Self>) {
        let Ok(runtime) = runtime::Handle::try_current() else {
            return;
        };
        let mut term = lock(&self.term);
        if self.is_closed() {
            return;
        }
        let mut number = 1;
        if let Some(term) = &*term {
            let there = self.following.load(Ordering::Acquire) == term.number;
            // On its own runtime it will have its turn.
            if there && (term.home == runtime.id() || !self.is_overdue()) {
                return;
            }
            term.task.abort();
            number += term.number;
        }
        self.following.store(number, Ordering::Release);
        self.due_within(Duration::ZERO);
        let present = Present {
            number,
            following: Arc::clone(&self.following),
        };
        let task = runtime.spawn(run(
            Arc::downgrade(self),
            Arc::clone(&self.signals),
            self.settings.poll_interval,
            present,
        ));
        *term = Some(Term {
            number,
            home: runtime.id(),
            task: task.abort_handle(),
        });
    }

    /// Ends the task.
    pub(super) fn stop(&self) {
        if let Some(term) = &*lock(&self.term) {
            term.task.abort();
        }
    }
}

/// Says that the task is gone when it is dropped, by whatever.
struct Present {
    number: u64,
    following: Arc<AtomicU64>,
}

impl Drop for Present {
    fn drop(&mut self) {
        // Unless another term has begun.
        let (own, none) = (self.number, 0);
        let _ = self
            .following
            .compare_exchange(own, none, Ordering::AcqRel, Ordering::Relaxed);
    }
}

async fn run(
    follower: Weak<Follower>,
    signals: Arc<Signals>,
    interval: Duration,
    _present: Present,
) {
    let mut last_whole = Instant::now();
    let mut next = last_whole + signals.pause(interval);
    loop {
        let wake = {
            let Some(follower) = follower.upgrade() else {
                return;
            };
            let end = follower.current.load().first_end();
            let wake = end.map_or(next, |end| end.min(next));
            follower.due_at(wake);
            wake
        };
        let nudged = signals.wait(wake).await;
        let Some(follower) = follower.upgrade() else {
            return;
        };
        follower.drop_previous();
        if !nudged && Instant::now() < next {
            continue;
        }
        let whole = nudged || last_whole.elapsed() >= FULL_READ;
        if whole {
            last_whole = Instant::now();
        }
        next = Instant::now()
            + match follower.refresh(whole).await {
                Ok(()) => signals.pause(interval),
                Err(error) => {
                    follower.failed(&error);
                    interval
                }
            };
    }
}
