//! What the proxy was told, as one connection sees it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use super::{Mode, Shared};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

/// A mode, and when it was set.
#[derive(Clone, Copy, Debug)]
struct Set {
    mode: Mode,
    since: u64,
}

/// What the proxy was told. Moments are counted in things told.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    now: u64,
    plain: Set,
    marked: Set,
    /// Connections from before were ended, and how.
    ended: (u64, End),
    /// Marked connections from before were reset.
    reset_marked: u64,
    /// Connections from before were half closed.
    half_closed: u64,
}

impl Default for State {
    fn default() -> Self {
        let pass = Set {
            mode: Mode::Pass,
            since: 0,
        };
        Self {
            now: 0,
            plain: pass,
            marked: pass,
            ended: (0, End::Fin),
            reset_marked: 0,
            half_closed: 0,
        }
    }
}

impl State {
    pub(super) fn mode(&self) -> Mode {
        self.plain.mode
    }

    pub(super) fn set(&mut self, mode: Mode) {
        self.set_marked(mode);
        self.plain = self.marked;
    }

    pub(super) fn set_marked(&mut self, mode: Mode) {
        self.now += 1;
        self.marked = Set {
            mode,
            since: self.now,
        };
    }

    pub(super) fn end(&mut self, end: End) {
        self.now += 1;
        self.ended = (self.now, end);
    }

    pub(super) fn reset_marked(&mut self) {
        self.now += 1;
        self.reset_marked = self.now;
    }

    pub(super) fn half_close(&mut self) {
        self.now += 1;
        self.half_closed = self.now;
    }
}

/// One connection's view of the proxy. It counts as open while this lives.
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    /// The how manieth connection it is, from 1.
    pub(super) number: u64,
    born: u64,
    marked: AtomicBool,
}

impl Line {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let born = shared.state.borrow().now;
        shared.open.fetch_add(1, Relaxed);
        Self {
            shared: Arc::clone(shared),
            number: shared.accepted.fetch_add(1, Relaxed) + 1,
            born,
            marked: AtomicBool::new(false),
        }
    }

    /// Notes what the client sent.
    pub(super) fn sent(&self, bytes: &[u8]) {
        let Some(word) = self.shared.word.get() else {
            return;
        };
        if bytes.windows(word.len()).any(|window| window == word) && !self.marked.swap(true, AcqRel)
        {
            self.shared.marked.fetch_add(1, Relaxed);
            // Whoever waits for another mode looks again.
            self.shared.state.send_modify(|_| ());
        }
    }

    fn is_marked(&self) -> bool {
        self.marked.load(Acquire)
    }

    /// What holds for this connection now.
    fn set(&self, state: &State) -> Set {
        let set = if self.is_marked() {
            state.marked
        } else {
            state.plain
        };
        match set.mode {
            Mode::StallOld | Mode::Truncate(_) if self.born >= set.since => Set {
                mode: Mode::Pass,
                ..set
            },
            _ => set,
        }
    }

    /// How late what arrives now is to be passed on.
    pub(super) fn delay(&self) -> Duration {
        match self.set(&self.shared.state.borrow()).mode {
            Mode::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }

    /// Waits until bytes may pass; answers in which mode, and when that was set.
    pub(super) async fn clear(&self) -> (Mode, u64) {
        let blocked = [Mode::Stall, Mode::StallOld, Mode::Silent];
        let passes = |state: &State| !blocked.contains(&self.set(state).mode);
        let set = self.set(&self.until(passes).await);
        (set.mode, set.since)
    }

    /// Waits until new connections are answered.
    pub(super) async fn answered(&self) {
        self.until(|state| state.mode() != Mode::Silent).await;
    }

    /// Waits until this connection was ended by command.
    pub(super) async fn ended(&self) -> End {
        let reset = |state: &State| self.is_marked() && state.reset_marked > self.born;
        let ends = |state: &State| state.ended.0 > self.born || reset(state);
        let state = self.until(ends).await;
        if reset(&state) {
            End::Reset
        } else {
            state.ended.1
        }
    }

    /// Waits until this connection was half closed by command.
    pub(super) async fn half_closed(&self) {
        self.until(|state| state.half_closed > self.born).await;
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) -> State {
        let now = *self.shared.state.borrow();
        if holds(&now) {
            return now;
        }
        let mut state = self.shared.state.subscribe();
        match state.wait_for(holds).await {
            Ok(state) => *state,
            // Never: the sender is in `shared`.
            Err(_) => now,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Relaxed);
        if self.is_marked() {
            self.shared.marked.fetch_sub(1, Relaxed);
        }
    }
}
