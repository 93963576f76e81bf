//! What the proxy was told, as one connection sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Mode, Shared};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

/// What the proxy was told. Moments are counted in things told.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) mode: Mode,
    now: u64,
    /// When the mode was set.
    since: u64,
    /// Connections from before were ended, and how.
    ended: (u64, End),
    /// Connections from before were half closed.
    half_closed: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            mode: Mode::Pass,
            now: 0,
            since: 0,
            ended: (0, End::Fin),
            half_closed: 0,
        }
    }
}

impl State {
    pub(super) fn set(&mut self, mode: Mode) {
        self.now += 1;
        (self.mode, self.since) = (mode, self.now);
    }

    pub(super) fn end(&mut self, end: End) {
        self.now += 1;
        self.ended = (self.now, end);
    }

    pub(super) fn half_close(&mut self) {
        self.now += 1;
        self.half_closed = self.now;
    }

    /// The mode for a connection accepted at `born`.
    fn mode_for(&self, born: u64) -> Mode {
        match self.mode {
            Mode::StallOld | Mode::Truncate(_) if born >= self.since => Mode::Pass,
            mode => mode,
        }
    }
}

/// One connection's view of the proxy. It counts as open while this lives.
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    /// The how manieth connection it is, from 1.
    pub(super) number: u64,
    born: u64,
}

impl Line {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let born = shared.state.borrow().now;
        shared.open.fetch_add(1, Relaxed);
        Self {
            shared: Arc::clone(shared),
            number: shared.accepted.fetch_add(1, Relaxed) + 1,
            born,
        }
    }

    /// How late what arrives now is to be passed on.
    pub(super) fn delay(&self) -> Duration {
        match self.shared.state.borrow().mode {
            Mode::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }

    /// Waits until bytes may pass; answers in which mode, and when that was set.
    pub(super) async fn clear(&self) -> (Mode, u64) {
        let blocked = [Mode::Stall, Mode::StallOld, Mode::Silent];
        let state = self
            .until(|state| !blocked.contains(&state.mode_for(self.born)))
            .await;
        (state.mode_for(self.born), state.since)
    }

    /// Waits until new connections are answered.
    pub(super) async fn answered(&self) {
        self.until(|state| state.mode != Mode::Silent).await;
    }

    /// Waits until this connection was ended by command.
    pub(super) async fn ended(&self) -> End {
        self.until(|state| state.ended.0 > self.born).await.ended.1
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
    }
}
