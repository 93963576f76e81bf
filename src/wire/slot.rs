//! What a connection's supervisor tells its callers, and they it.
//!
//! A *term* is the life of one supervising task. The slot holds the current term and what its task last said; a
//! task whose term is over ends itself, so none has to be aborted from elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use tokio::runtime::{self, Handle};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::gather::Gather;
use super::load::Load;
use super::replay::Replay;
use super::reply::no_runtime;
use super::settings::ConnectionSettings;
use super::target::Target;
use crate::error::{Error, Result};

/// So many unanswered operations in a row, and the socket is given up.
const MAX_MISSES: u32 = 3;

/// So many answers in a row that say the server is of no use to anybody, and the node counts as down.
const MAX_SICK: u32 = 5;

/// How late a task may be with what it announced before callers of another runtime take over.
const GRACE: Duration = Duration::from_millis(250);

/// What a supervisor and its callers share.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) label: String,
    pub(super) settings: ConnectionSettings,
    pub(super) slot: watch::Sender<Slot>,
    /// The link of a slot that is up, for those who only want that: read without a lock.
    up: ArcSwapOption<Link>,
    pub(super) load: Load,
    pub(super) replay: Arc<Replay>,
    pub(super) timeouts: AtomicU64,
    /// How often the node came up.
    pub(super) connects: AtomicU64,
}

/// Who supervises, and what callers are to make of it.
pub(super) struct Slot {
    pub(super) term: u64,
    /// The runtime of the task of this term, as long as that task lives.
    pub(super) home: Option<runtime::Id>,
    pub(super) phase: Phase,
    /// How many attempts to connect have failed.
    pub(super) failed: u64,
}

/// What the supervisor last said.
pub(super) enum Phase {
    /// There is no supervisor: none was started, or its runtime is gone.
    Idle,
    /// The first attempt of a term is under way, and over by `until`: callers wait for it.
    Connecting { until: Instant },
    /// Callers send through this link.
    Up(Arc<Link>),
    /// Callers fail at once. The supervisor says something new by `until`.
    Down { error: Error, until: Instant },
    /// Shut down for good.
    Closed,
}

/// One connection that is up.
pub(super) struct Link {
    /// No other link of this process has it.
    serial: u64,
    conn: MultiplexedConnection,
    home: runtime::Id,
    place: SocketAddr,
    /// How often the task that drives the connection ran.
    beats: AtomicU64,
    /// How often it had run when somebody with little patience first found it quiet, and when that was.
    quiet: Mutex<Option<(u64, Instant)>>,
    /// Unanswered operations in a row.
    misses: AtomicU32,
    /// Answers in a row by which the server is of no use.
    sick: AtomicU32,
    pub(super) gather: Gather,
}

/// The state of a link when an operation began.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    /// The link's serial number.
    link: u64,
    beats: u64,
    misses: u32,
    sick: u32,
}

impl Link {
    /// A link over `conn` to `place`, driven on the runtime `home`.
    pub(super) fn new(conn: MultiplexedConnection, home: runtime::Id, place: SocketAddr) -> Self {
        static LINKS: AtomicU64 = AtomicU64::new(0);
        Self {
            serial: LINKS.fetch_add(1, Relaxed),
            conn,
            home,
            place,
            beats: AtomicU64::new(0),
            quiet: Mutex::new(None),
            misses: AtomicU32::new(0),
            sick: AtomicU32::new(0),
            gather: Gather::default(),
        }
    }

    /// Whether the task that drives the link runs on this runtime.
    pub(super) fn is_at(&self, runtime: runtime::Id) -> bool {
        runtime == self.home
    }

    /// Where it leads.
    pub(super) fn place(&self) -> SocketAddr {
        self.place
    }

    /// The task that drives the link had its turn.
    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    pub(super) fn conn(&self) -> MultiplexedConnection {
        self.conn.clone()
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            link: self.serial,
            beats: self.beats.load(Relaxed),
            misses: self.misses.load(Relaxed),
            sick: self.sick.load(Relaxed),
        }
    }

    /// Whether `mark` was made at this link.
    pub(super) fn made(&self, mark: Mark) -> bool {
        self.serial == mark.link
    }

    /// Somebody is there, be it to say no.
    pub(super) fn answered(&self) {
        clear(&self.misses);
    }

    /// An operation was answered as it should be.
    pub(super) fn served(&self) {
        self.answered();
        clear(&self.sick);
    }

    /// An operation that began at `mark` was not answered; whether that is one too many.
    ///
    /// Of operations that wait side by side only the first is counted: three in a row are a dead connection,
    /// a thousand at once may be one slow command of somebody else.
    pub(super) fn missed(&self, mark: Mark) -> bool {
        one_more(&self.misses, mark.misses, MAX_MISSES)
    }

    /// An operation that began at `mark` was answered by an error that every operation would get; whether that is one
    /// too many. Counted as in [`missed`](Self::missed).
    pub(super) fn ailing(&self, mark: Mark) -> bool {
        self.answered();
        one_more(&self.sick, mark.sick, MAX_SICK)
    }

    /// Whether nobody runs the task that drives this link, since `mark` and to the knowledge of a caller who
    /// runs on `here`. On one's own runtime the task merely had no turn yet.
    pub(super) fn deserted(&self, mark: Mark, here: runtime::Id) -> bool {
        self.home != here && self.beats.load(Relaxed) == mark.beats
    }

    /// The same, to the knowledge of callers who each wait for less than `bound`, which is what it takes to tell.
    pub(super) fn long_deserted(&self, mark: Mark, here: runtime::Id, bound: Duration) -> bool {
        if !self.deserted(mark, here) {
            return false;
        }
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        match *quiet {
            Some((beats, since)) if beats == mark.beats => since.elapsed() >= bound,
            _ => {
                *quiet = Some((mark.beats, Instant::now()));
                false
            }
        }
    }
}

fn clear(count: &AtomicU32) {
    if count.load(Relaxed) != 0 {
        count.store(0, Relaxed);
    }
}

fn one_more(count: &AtomicU32, before: u32, max: u32) -> bool {
    let next = before + 1;
    let counted = count.compare_exchange(before, next, Relaxed, Relaxed);
    counted.is_ok() && next >= max
}

impl Phase {
    pub(super) fn is_up(&self, link: &Arc<Link>) -> bool {
        matches!(self, Self::Up(up) if Arc::ptr_eq(up, link))
    }

    fn link(&self) -> Option<Arc<Link>> {
        match self {
            Self::Up(link) => Some(Arc::clone(link)),
            _ => None,
        }
    }
}

impl Shared {
    pub(super) fn new(target: Target, settings: ConnectionSettings, replay: Arc<Replay>) -> Self {
        Self {
            label: target.label(),
            target,
            up: ArcSwapOption::empty(),
            slot: watch::Sender::new(Slot {
                term: 0,
                home: None,
                phase: Phase::Idle,
                failed: 0,
            }),
            load: Load::default(),
            replay,
            timeouts: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            settings,
        }
    }

    /// How long one attempt to connect may take.
    pub(super) fn attempt(&self) -> Duration {
        self.settings.connect_timeout * self.target.steps()
    }

    /// Until when the supervisor has something new to say, if it begins an attempt to connect after `pause`.
    fn next_word(&self, pause: Duration) -> Instant {
        Instant::now() + pause + self.attempt() + GRACE
    }

    /// Whether callers have a link to send through.
    pub(super) fn is_up(&self) -> bool {
        self.up.load().is_some()
    }

    /// Whether operations fail without being sent.
    pub(super) fn fails_at_once(&self) -> bool {
        matches!(&self.slot.borrow().phase, Phase::Down { until, .. } if Instant::now() < *until)
    }

    /// The link to send through, if there is one.
    pub(super) fn up(&self) -> Option<Arc<Link>> {
        self.up.load_full()
    }

    /// What `with` makes of the link to send through, if there is one.
    pub(super) fn with_up<R>(&self, with: impl FnOnce(&Link) -> Option<R>) -> Option<R> {
        with(self.up.load().as_ref()?)
    }

    /// The link that `mark` was made at, unless it was given up since.
    pub(super) fn marked(&self, mark: Mark) -> Option<Arc<Link>> {
        self.up().filter(|link| link.made(mark))
    }

    /// `error`, with the operation it befell and the node's label.
    pub(super) fn named(&self, error: Error, operation: &'static str) -> Error {
        error.during(operation).with("node", &self.label)
    }

    /// Begins a new term on the current runtime if `due`; its task is to hold the answer.
    pub(super) fn begin_where(
        self: &Arc<Self>,
        due: impl FnOnce(&Slot, runtime::Id) -> bool,
    ) -> Result<Option<Vigil>> {
        let handle = Handle::try_current().map_err(|_| no_runtime())?;
        let here = handle.id();
        let until = self.next_word(Duration::ZERO);
        let mut begun = None;
        let mut past = Phase::Connecting { until };
        self.slot.send_if_modified(|slot| {
            if due(slot, here) {
                slot.term += 1;
                slot.home = Some(here);
                std::mem::swap(&mut slot.phase, &mut past);
                self.up.store(slot.phase.link());
                begun = Some(slot.term);
            }
            begun.is_some()
        });
        let shared = Arc::clone(self);
        Ok(begun.map(|term| Vigil { shared, term }))
    }

    /// Changes the phase to what `next` answers; whether it answered anything. The old phase is dropped after
    /// the slot is unlocked, since a dropped link may wake its task.
    pub(super) fn change(&self, next: impl FnOnce(&mut Slot) -> Option<Phase>) -> bool {
        let mut past = None;
        self.slot.send_if_modified(|slot| {
            past = next(slot).map(|phase| {
                self.up.store(phase.link());
                std::mem::replace(&mut slot.phase, phase)
            });
            past.is_some()
        });
        past.is_some()
    }

    /// An attempt to connect failed.
    pub(super) fn count_failure(&self) {
        self.slot.send_if_modified(|slot| {
            slot.failed += 1;
            false
        });
    }

    /// The supervisor of `term` says that the node is down, and will speak again after `pause`.
    pub(super) fn down(&self, term: u64, error: &Error, pause: Duration) -> bool {
        let until = self.next_word(pause);
        let mut news = false;
        let changed = self.change(|slot| {
            if slot.term != term || matches!(slot.phase, Phase::Closed) {
                return None;
            }
            news = !matches!(slot.phase, Phase::Down { .. });
            let error = error.clone();
            Some(Phase::Down { error, until })
        });
        if news {
            self.tell_down(error);
        }
        changed
    }

    /// Says again and again that the supervisor of `term` is at work, as long as this is polled.
    pub(super) async fn announce(&self, term: u64) {
        loop {
            let next = self.next_word(Duration::ZERO);
            self.slot.send_if_modified(|slot| {
                if slot.term == term
                    && let Phase::Connecting { until } | Phase::Down { until, .. } = &mut slot.phase
                {
                    *until = next;
                }
                false
            });
            sleep(GRACE / 2).await;
        }
    }

    /// A caller found `link` broken: nobody else shall use it, and its supervisor shall make a new one.
    pub(super) fn report(&self, link: &Arc<Link>, error: &Error) {
        let until = self.next_word(Duration::ZERO);
        let changed = self.change(|slot| {
            let error = error.clone();
            slot.phase
                .is_up(link)
                .then_some(Phase::Down { error, until })
        });
        if changed {
            self.tell_down(error);
        }
    }

    /// No further operation begins; the supervisor ends once those under way are done.
    pub(super) fn close(&self) {
        self.change(|_| Some(Phase::Closed));
    }

    /// Ends the supervisor where it stands.
    pub(super) fn abandon(&self) {
        self.change(|slot| {
            slot.term += 1;
            slot.home = None;
            Some(Phase::Closed)
        });
    }

    fn tell_down(&self, error: &Error) {
        tracing::warn!(target: "larder::wire", event = "node_down", node = %self.label, error = %error);
    }
}

/// Held by the task of a term: however that task ends, the slot says so.
pub(super) struct Vigil {
    pub(super) shared: Arc<Shared>,
    pub(super) term: u64,
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.shared.change(|slot| {
            if slot.term != self.term {
                return None;
            }
            slot.home = None;
            Some(match slot.phase {
                Phase::Closed => Phase::Closed,
                _ => Phase::Idle,
            })
        });
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Connecting { .. } => "connecting",
            Self::Up(_) => "up",
            Self::Down { .. } => "down",
            Self::Closed => "closed",
        })
    }
}
