//! The task that keeps one connection to one node.
//!
//! One task does it all: it connects, greets, drives the connection, sends what was gathered and `PING`, and starts again
//! when something breaks. A second one watches over its callers, should it have no turn.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::dial::{self, Driver, Opened};
use super::flaps::Flaps;
use super::race::{First, first, in_own_turns};
use super::repay::{repay_all, repay_as_owed};
use super::reply::{exchange_error, no_answer};
use super::slot::{Link, Mark, Phase, Shared, Slot, Vigil};
use super::tracking::{Heard, Listener};
use crate::error::{Error, ErrorKind, Result};

/// Pings in a trial, each of which must be answered.
const TRIAL_PINGS: u32 = 4;

/// The mean pause before the first new attempt is half of this.
const MIN_BACKOFF: Duration = Duration::from_millis(50);

/// Starts a supervisor on the current runtime where there is none, or one on a runtime that nobody drives.
pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
    if cfg!(not(feature = "tls")) && shared.target.is_tls() {
        let why = "this build has no TLS (rediss://): turn the feature tls on";
        return Err(Error::new(ErrorKind::Unsupported, why));
    }
    begin_where(shared, |slot, here| match &slot.phase {
        Phase::Idle => true,
        Phase::Up(_) | Phase::Closed => false,
        Phase::Connecting { until } | Phase::Down { until, .. } => {
            slot.home != Some(here) && *until < Instant::now()
        }
    })
}

/// An operation on `link` that began at `mark` was not answered in time.
pub(super) fn unanswered(shared: &Arc<Shared>, link: &Arc<Link>, mark: Mark, error: &Error) {
    let here = Handle::try_current().map(|handle| handle.id());
    if here.is_ok_and(|here| link.deserted(mark, here)) {
        take_over(shared, link);
    } else if link.missed(mark) {
        shared.report(link, error);
    }
}

/// The same, not within a time that says anything about the server.
pub(super) fn unanswered_soon(shared: &Arc<Shared>, link: &Arc<Link>, mark: Mark) {
    let bound = shared.settings.operation_timeout;
    let here = Handle::try_current().map(|handle| handle.id());
    if here.is_ok_and(|here| link.long_deserted(mark, here, bound)) {
        take_over(shared, link);
    }
}

/// From a runtime that nobody drives to this one.
fn take_over(shared: &Arc<Shared>, link: &Arc<Link>) {
    // There is a runtime, or nobody could have waited for the answer.
    let _ = begin_where(shared, |slot, _| slot.phase.is_up(link));
}

fn begin_where(
    shared: &Arc<Shared>,
    due: impl FnOnce(&Slot, tokio::runtime::Id) -> bool,
) -> Result<()> {
    // The vigil exists before the task does: a runtime that shuts down drops the task without ever running it.
    if let Some(vigil) = shared.begin_where(due)? {
        tokio::spawn(supervise(vigil));
    }
    Ok(())
}

/// The task of one term.
async fn supervise(vigil: Vigil) {
    let Vigil { shared, term } = &vigil;
    let mut slot = shared.slot.subscribe();
    let over = async {
        let _ = slot.wait_for(|slot| slot.term != *term).await;
    };
    first(over, keep_connected(shared, *term)).await;
}

/// Connects, and connects again, until the connection is closed.
async fn keep_connected(shared: &Arc<Shared>, term: u64) {
    let random = ahash::RandomState::new();
    let mut tried = 0;
    let mut flaps = Flaps::default();
    loop {
        let opened = dial::open(&shared.target, &shared.settings);
        let First::Right(opened) = first(closed(shared), opened).await else {
            return;
        };
        let ended = match opened {
            Ok(opened) => {
                let since = Instant::now();
                let trial = flaps.trial();
                let ended = live(shared, term, opened, trial).await;
                let lived = since.elapsed().saturating_sub(trial);
                flaps.ended_after(lived);
                // A node that falls over as soon as it is up does not get the short pauses again.
                if lived > shared.settings.max_backoff {
                    tried = 0;
                }
                ended
            }
            Err(error) => {
                shared.count_failure();
                Some(error)
            }
        };
        let Some(error) = ended else {
            return;
        };
        let pause = backoff(
            tried,
            shared.settings.max_backoff,
            random.hash_one(Instant::now()),
        );
        tried = tried.saturating_add(1);
        if !shared.down(term, &error, pause) {
            return;
        }
        if let First::Left(()) = first(closed(shared), sleep(pause)).await {
            return;
        }
    }
}

/// Full jitter: anything from nothing to the bound, which doubles up to `max`.
fn backoff(tried: u32, max: Duration, random: u64) -> Duration {
    let bound = MIN_BACKOFF.saturating_mul(1 << tried.min(16)).min(max);
    bound.mul_f64(random as f64 / u64::MAX as f64)
}

/// A connection from its greeting to its end, and why it ended; nothing where it was closed.
async fn live(shared: &Arc<Shared>, term: u64, opened: Opened, trial: Duration) -> Option<Error> {
    let Opened {
        conn,
        mut driver,
        place,
        tracked,
    } = opened;
    let link = Arc::new(Link::new(conn, Handle::try_current().ok()?.id(), place));
    // However long that takes, whoever calls is told that somebody is at it.
    let prepared = first(prepared(shared, &link, trial), shared.announce(term));
    let prepared = first(&mut driver, prepared);
    match first(closed(shared), prepared).await {
        First::Left(()) => return None,
        First::Right(First::Left(())) => return Some(ended(shared)),
        First::Right(First::Right(First::Left(Err(error)))) => return Some(error),
        First::Right(First::Right(First::Left(Ok(())) | First::Right(()))) => {}
    }
    if !publish(shared, term, &link) {
        return None;
    }
    let listening = Listening::begin(shared, tracked);
    serve(shared, link, driver, &listening).await
}

/// Says that the node is up; whether the term is still on.
fn publish(shared: &Shared, term: u64, link: &Arc<Link>) -> bool {
    let published = shared.change(|slot| {
        let stands = slot.term == term && !matches!(slot.phase, Phase::Closed);
        stands.then(|| Phase::Up(Arc::clone(link)))
    });
    if published {
        shared.connects.fetch_add(1, Relaxed);
        if let Some(published) = &shared.settings.published {
            published.tell(link.place());
        }
        tracing::info!(target: "larder::wire", event = "node_up", node = %shared.label);
    }
    published
}

/// Drives a link until it breaks, and answers why; nothing where the connection was closed.
async fn serve(
    shared: &Arc<Shared>,
    link: Arc<Link>,
    mut driver: Driver,
    listening: &Listening<'_>,
) -> Option<Error> {
    let mut slot = shared.slot.subscribe();
    let given_up = async {
        let changed = slot.wait_for(|slot| !slot.phase.is_up(&link)).await;
        match changed.as_deref().map(|slot| &slot.phase) {
            Ok(Phase::Down { error, .. }) => Some(error.clone()),
            _ => None,
        }
    };
    let bound = shared.settings.operation_timeout;
    let _watched = Watched(tokio::spawn(watch(Arc::downgrade(&link), bound)).abort_handle());
    let gathering = Gathering {
        shared: Arc::clone(shared),
        link: Arc::clone(&link),
    };
    // It has the guard from here on, polled or not.
    let mut gathered = Box::pin(async move { gathering.serve(bound).await });
    let why = {
        let driven = poll_fn(|cx| {
            link.beat();
            driver.as_mut().poll(cx)
        });
        let kept = first(
            keep_alive(shared, &link, listening),
            repay_as_owed(shared, &link),
        );
        let besides = first(given_up, first(&mut gathered, kept));
        // The driver comes last, since under load it uses up the task's budget of each turn. Nearly all turns are its own.
        match first(in_own_turns(besides), driven).await {
            First::Left(First::Left(why)) => why,
            First::Left(First::Right(First::Right(First::Left(error) | First::Right(error)))) => {
                Some(error)
            }
            First::Left(First::Right(First::Left(()))) | First::Right(_) => Some(ended(shared)),
        }
    };
    if why.is_none() {
        link.gather.close();
        let drained = async {
            if let First::Right(()) = first(gathered, &mut driver).await {
                return;
            }
            // Operations under way hold a sender each, so the driver ends when the last of them is done.
            drop(link);
            driver.await;
        };
        let _ = timeout(shared.settings.operation_timeout, drained).await;
    }
    why
}

/// Sends one `PING`, which must be answered.
async fn pinged(shared: &Shared, link: &Link) -> Result<()> {
    let bound = shared.settings.ping_timeout;
    let (mut conn, ping) = (link.conn(), redis::cmd("PING"));
    match timeout(bound, conn.send_packed_command(&ping)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(exchange_error(&shared.target, error).with("node", &shared.label)),
        Err(_) => Err(no_answer(bound).with("node", &shared.label)),
    }
}

/// The gathered gets of a link. However their service ends, nobody waits for it any more.
struct Gathering {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

impl Gathering {
    async fn serve(&self, bound: Duration) {
        let Self { shared, link } = self;
        let served = || link.served();
        link.gather
            .serve(link.conn(), bound, &shared.load, served)
            .await;
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.link.gather.abandon(&self.shared.load);
    }
}

/// Ends the watch over a link with the link's own task.
struct Watched(AbortHandle);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sees to it that callers of gathered gets are told, even if the link's own task has no turn.
async fn watch(link: Weak<Link>, bound: Duration) {
    loop {
        sleep((bound / 8).max(Duration::from_millis(10))).await;
        match link.upgrade() {
            Some(link) => link.gather.expire(bound),
            None => return,
        }
    }
}

/// What comes before anybody uses a link: a node that keeps falling over must answer for a while, and deletes that failed
/// are made up for.
async fn prepared(shared: &Shared, link: &Link, trial: Duration) -> Result<()> {
    if !trial.is_zero() {
        tracing::info!(target: "larder::wire", event = "node_on_trial", node = %shared.label, trial = ?trial,
            "the node fell over soon after it came up, again and again: it must answer for a while");
        for _ in 0..TRIAL_PINGS {
            sleep(trial / TRIAL_PINGS).await;
            pinged(shared, link).await?;
        }
    }
    repay_all(shared, link).await
}

fn ended(shared: &Shared) -> Error {
    let error = Error::new(ErrorKind::Unavailable, "the connection ended");
    error.with("node", &shared.label)
}

/// Tells the listener that pushes are heard, and, however the connection ends, that they are not.
struct Listening<'s>(Option<&'s Listener>);

impl<'s> Listening<'s> {
    fn begin(shared: &'s Shared, tracked: Option<Result<(), String>>) -> Self {
        let listener = shared.settings.listener.as_ref();
        match (listener, tracked) {
            (Some(listener), Some(Ok(()))) => {
                listener.tell(Heard::Begun);
                Self(Some(listener))
            }
            (Some(listener), Some(Err(why))) => {
                listener.tell(Heard::Deaf(why));
                Self(None)
            }
            _ => Self(None),
        }
    }

    /// The server was asked for a sign of life at `asked`, and gave it.
    fn proven(&self, asked: std::time::Instant) {
        if let Some(listener) = self.0 {
            listener.tell(Heard::Proven(asked));
        }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        if let Some(listener) = self.0 {
            listener.tell(Heard::Ended);
        }
    }
}

/// Sends `PING` again and again; answers when the link is found broken.
async fn keep_alive(shared: &Shared, link: &Link, listening: &Listening<'_>) -> Error {
    let interval = shared.settings.ping_interval.max(Duration::from_millis(10));
    let bound = shared.settings.ping_timeout;
    let ping = redis::cmd("PING");
    // Memory waits for the first sign of life.
    let mut pause = if listening.0.is_some() {
        Duration::ZERO
    } else {
        interval
    };
    loop {
        sleep(pause).await;
        let mark = link.mark();
        let asked = std::time::Instant::now();
        let mut conn = link.conn();
        match timeout(bound, conn.send_packed_command(&ping)).await {
            // An error is an answer too: somebody is there.
            Ok(Ok(_)) => {
                link.answered();
                listening.proven(asked);
                pause = interval;
            }
            Ok(Err(error)) => {
                return exchange_error(&shared.target, error).with("node", &shared.label);
            }
            Err(_) => {
                shared.timeouts.fetch_add(1, Relaxed);
                pause = Duration::ZERO;
                if link.missed(mark) {
                    return no_answer(bound).with("node", &shared.label);
                }
            }
        }
    }
}

/// Waits until the connection is shut down.
async fn closed(shared: &Shared) {
    let mut slot = shared.slot.subscribe();
    let _ = slot
        .wait_for(|slot| matches!(slot.phase, Phase::Closed))
        .await;
}
