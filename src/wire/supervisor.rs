//! The task that keeps one connection to one node.
//!
//! One task does it all: it connects, greets, drives the connection, sends `PING`, and starts again when
//! something breaks.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::dial::{self, Driver};
use super::race::{First, first};
use super::reply::{exchange_error, no_answer};
use super::slot::{Link, Mark, Phase, Shared, Slot, Vigil};
use crate::error::{Error, ErrorKind, Result};

/// The mean pause before the first new attempt is half of this.
const MIN_BACKOFF: Duration = Duration::from_millis(50);

/// Starts a supervisor on the current runtime where there is none, or one on a runtime that nobody drives.
pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
    if shared.addr.is_tls() {
        let why = "TLS (rediss://) is not supported yet";
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
        // There is a runtime, or nobody could have waited for the answer.
        let _ = begin_where(shared, |slot, _| slot.phase.is_up(link));
    } else if link.missed(mark) {
        shared.report(link, error);
    }
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
    loop {
        let opened = dial::open(&shared.addr, &shared.label, &shared.settings);
        let First::Right(opened) = first(closed(shared), opened).await else {
            return;
        };
        let error = match opened {
            Ok((conn, driver)) => {
                let Some(link) = publish(shared, term, conn) else {
                    return;
                };
                let since = Instant::now();
                let Some(error) = serve(shared, link, driver).await else {
                    return;
                };
                // A node that falls over as soon as it is up does not get the short pauses again.
                if since.elapsed() > shared.settings.max_backoff {
                    tried = 0;
                }
                error
            }
            Err(error) => error,
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

/// Says that the node is up; nothing where the term is over.
fn publish(shared: &Shared, term: u64, conn: MultiplexedConnection) -> Option<Arc<Link>> {
    let link = Arc::new(Link::new(conn, Handle::try_current().ok()?.id()));
    let published = shared.change(|slot| {
        let stands = slot.term == term && !matches!(slot.phase, Phase::Closed);
        stands.then(|| Phase::Up(Arc::clone(&link)))
    });
    if published {
        shared.connects.fetch_add(1, Relaxed);
        tracing::info!(name: "node_up", target: "larder::wire", node = %shared.label, "node_up");
    }
    published.then_some(link)
}

/// Drives a link until it breaks, and answers why; nothing where the connection was closed.
async fn serve(shared: &Arc<Shared>, link: Arc<Link>, mut driver: Driver) -> Option<Error> {
    let driven = poll_fn(|cx| {
        link.beat();
        driver.as_mut().poll(cx)
    });
    let mut slot = shared.slot.subscribe();
    let given_up = async {
        let changed = slot.wait_for(|slot| !slot.phase.is_up(&link)).await;
        match changed.as_deref().map(|slot| &slot.phase) {
            Ok(Phase::Down { error, .. }) => Some(error.clone()),
            _ => None,
        }
    };
    // The driver comes second, since under load it uses up the task's budget of each turn.
    let working = first(driven, keep_alive(shared, &link));
    let ended = match first(given_up, working).await {
        First::Left(ended) => ended,
        First::Right(First::Left(())) => {
            let lost = Error::new(ErrorKind::Unavailable, "the connection ended");
            Some(lost.with("node", &shared.label))
        }
        First::Right(First::Right(error)) => Some(error),
    };
    if ended.is_none() {
        // Operations under way hold a sender each, so the driver ends when the last of them is done.
        drop(link);
        let _ = timeout(shared.settings.operation_timeout, driver).await;
    }
    ended
}

/// Sends `PING` again and again; answers when the link is found broken.
async fn keep_alive(shared: &Shared, link: &Link) -> Error {
    let interval = shared.settings.ping_interval.max(Duration::from_millis(10));
    let bound = shared.settings.operation_timeout;
    let ping = redis::cmd("PING");
    let mut pause = interval;
    loop {
        sleep(pause).await;
        let mark = link.mark();
        let mut conn = link.conn();
        match timeout(bound, conn.send_packed_command(&ping)).await {
            // An error is an answer too: somebody is there.
            Ok(Ok(_)) => {
                link.answered();
                pause = interval;
            }
            Ok(Err(error)) => {
                return exchange_error(&shared.addr, error).with("node", &shared.label);
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
