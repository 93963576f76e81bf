//! One request and its answer, within one bound.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use redis::ServerError;
use tokio::runtime;
use tokio::time::{Instant, sleep, timeout_at};

use super::ask::{Answer, Ask};
use super::get::{Failure, Get, Got};
use super::reply::{code, exchange_error, no_answer, said, server_error};
use super::request::{Request, Tells};
use super::slot::{Link, Mark, Phase, Shared};
use super::supervisor;
use super::target::Target;
use crate::error::{Error, ErrorKind, Result};

/// Before a read is sent again to a server that said "not now".
const NOT_NOW: Duration = Duration::from_millis(50);

/// The link to send through. Waits only while a first attempt to connect is under way.
pub(super) async fn link(shared: &Arc<Shared>) -> Result<Arc<Link>> {
    match &shared.slot.borrow().phase {
        Phase::Up(link) => return Ok(Arc::clone(link)),
        // Told apart here, so that callers of a node that is down do not queue for the slot's write lock.
        Phase::Down { error, until } if Instant::now() < *until => return Err(error.clone()),
        _ => {}
    }
    let gone = |why| shared.named(Error::new(ErrorKind::Unavailable, why), "connect");
    // Twice, since the runtime that the supervisor ran on may go away meanwhile.
    for _ in 0..2 {
        supervisor::start(shared).map_err(|error| shared.named(error, "connect"))?;
        let mut slot = shared.slot.subscribe();
        let settled = slot
            .wait_for(|slot| !matches!(slot.phase, Phase::Connecting { .. }))
            .await;
        match settled.as_deref().map(|slot| &slot.phase) {
            Ok(Phase::Up(link)) => return Ok(Arc::clone(link)),
            Ok(Phase::Down { error, .. }) => return Err(error.clone()),
            Ok(Phase::Closed) | Err(_) => return Err(gone("the connection was shut down")),
            Ok(Phase::Idle | Phase::Connecting { .. }) => {}
        }
    }
    Err(gone("the runtime of the connection went away"))
}

/// Sends `request` and waits for its answer, within `operation_timeout`. A read is sent again, once and within the same
/// bound and a budget, if the connection broke or the server said "not now"; a write never is. Needs a runtime.
pub(super) async fn exchange<R: Request>(
    shared: &Arc<Shared>,
    operation: &'static str,
    request: &R,
) -> Result<R::Answer> {
    let Some(_place) = shared.load.enter(shared.settings.max_in_flight) else {
        let why = "too many operations are under way on this connection";
        return Err(shared.named(Error::new(ErrorKind::Busy, why), operation));
    };
    let mut used = None;
    let bound = request.bound();
    let until = Instant::now() + bound.unwrap_or(shared.settings.operation_timeout);
    let answer = match shared.up() {
        Some(link) if R::BOUNDED => once(shared, link, request, &mut used).await,
        Some(link) => timeout_at(until, once(shared, link, request, &mut used))
            .await
            .unwrap_or(Err(Failed::Late)),
        None => Box::pin(timeout_at(until, first_try(shared, request, &mut used)))
            .await
            .unwrap_or(Err(Failed::Late)),
    };
    concluded(shared, operation, request, until, used, answer).await
}

/// Sends a read again where that is worth it, and says why there is no answer if there is none.
async fn concluded<R: Request>(
    shared: &Arc<Shared>,
    operation: &'static str,
    request: &R,
    until: Instant,
    mut used: Used,
    answer: Result<R::Answer, Failed>,
) -> Result<R::Answer> {
    let answer = match Again::after::<R>(&answer).filter(|_| request.is_read()) {
        Some(again) => {
            let second = second_try(shared, request, again, until, &mut used);
            Box::pin(second).await.unwrap_or(answer)
        }
        None => answer,
    };
    match answer {
        Ok(answer) => Ok(answer),
        Err(Failed::With(error)) => Err(shared.named(error, operation)),
        Err(Failed::Late) => Err(unanswered(shared, operation, request.bound(), used)),
    }
}

/// The link that was last sent through, and what it was like then.
type Used = Option<Mark>;

/// Why there is no answer, in the words of the house.
enum Failed {
    Late,
    With(Error),
}

async fn first_try<R: Request>(
    shared: &Arc<Shared>,
    request: &R,
    used: &mut Used,
) -> Result<R::Answer, Failed> {
    let link = link(shared)
        .await
        .map_err(|error| Failed::With(down(&error)))?;
    once(shared, link, request, used).await
}

/// The answer to a second try; none if it may not be made.
async fn second_try<R: Request>(
    shared: &Arc<Shared>,
    request: &R,
    again: Again,
    until: Instant,
    used: &mut Used,
) -> Option<Result<R::Answer, Failed>> {
    let last = (*used)?;
    let link = timeout_at(until, again.link(shared, last)).await.ok()??;
    let _retry = shared.load.retry()?;
    let answer = timeout_at(until, once(shared, link, request, used)).await;
    Some(answer.unwrap_or(Err(Failed::Late)))
}

/// Why a read is worth sending again.
enum Again {
    /// The connection broke before the answer came.
    Broken,
    /// The server is loading its data, or is being rearranged.
    NotNow,
}

impl Again {
    fn after<R: Request>(answer: &Result<R::Answer, Failed>) -> Option<Self> {
        match answer {
            Err(Failed::With(error)) if error.kind() == ErrorKind::Unavailable => {
                Some(Self::Broken)
            }
            Err(_) => None,
            Ok(answer) => {
                let refusal = R::refusal(answer)?;
                matches!(refusal.code(), "LOADING" | "TRYAGAIN").then_some(Self::NotNow)
            }
        }
    }

    /// The link to send again through, once there is one; none if the node turns out to be gone.
    async fn link(self, shared: &Arc<Shared>, last: Mark) -> Option<Arc<Link>> {
        match self {
            Self::NotNow => {
                sleep(NOT_NOW).await;
                shared.up()
            }
            Self::Broken => {
                let mut slot = shared.slot.subscribe();
                let tried = slot.borrow().failed;
                let settled = slot.wait_for(|slot| match &slot.phase {
                    Phase::Up(link) => !link.made(last),
                    Phase::Down { .. } | Phase::Connecting { .. } => slot.failed > tried,
                    Phase::Idle | Phase::Closed => true,
                });
                match &settled.await.ok()?.phase {
                    Phase::Up(link) => Some(Arc::clone(link)),
                    _ => None,
                }
            }
        }
    }
}

/// Sends `request` once, and notes what that says about the link.
async fn once<R: Request>(
    shared: &Shared,
    link: Arc<Link>,
    request: &R,
    used: &mut Used,
) -> Result<R::Answer, Failed> {
    let mark = link.mark();
    *used = Some(mark);
    let sent = request.send(&link).await;
    noted::<R>(shared, &link, mark, sent, request.tells())
}

/// What an outcome says about the link that it came from.
fn noted<R: Request>(
    shared: &Shared,
    link: &Arc<Link>,
    mark: Mark,
    outcome: Result<R::Answer, Failure>,
    tells: Tells,
) -> Result<R::Answer, Failed> {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Failure::Late) => return Err(Failed::Late),
        Err(Failure::Broken(error)) => {
            let error = exchange_error(&shared.target, error);
            if error.kind() == ErrorKind::Unavailable {
                shared.report(link, &shared.named(error.clone(), "serve"));
            }
            return Err(Failed::With(error));
        }
    };
    match tells {
        Tells::All => {}
        Tells::Presence => {
            link.answered();
            return Ok(answer);
        }
        Tells::Nothing => return Ok(answer),
    }
    match R::refusal(&answer).filter(|refusal| is_sick(&shared.target, refusal)) {
        Some(refusal) if link.ailing(mark) => {
            let error = server_error(&shared.target, refusal);
            shared.report(link, &shared.named(error, "serve"));
        }
        Some(_) => {}
        None => link.served(),
    }
    Ok(answer)
}

/// A get that goes with others, and what its link was like when it was asked for.
pub(crate) struct Joined {
    ask: Arc<Ask>,
    mark: Mark,
}

/// Has a key asked for together with others, if there are any on their way: nothing but their queue is locked, and nothing is
/// held while the answer comes. Otherwise the way is [`exchange`].
pub(super) fn join(
    shared: &Shared,
    here: runtime::Id,
    ask: impl FnOnce() -> Ask,
) -> Option<Joined> {
    // Elsewhere a timer is needed.
    shared.with_up(|link| {
        let max = shared.settings.max_in_flight;
        let here = link.is_at(here);
        let ask = here.then(|| link.gather.join(ask, &shared.load, max))??;
        let mark = link.mark();
        Some(Joined { ask, mark })
    })
}

impl Joined {
    /// Waits for the answer. To be awaited at once, in the turn in which it was joined: its waker is registered, so the
    /// first look is spared.
    pub(crate) async fn answer(&self) -> Answer {
        let mut looked = true;
        poll_fn(|cx| {
            if std::mem::take(&mut looked) {
                return Poll::Pending;
            }
            self.ask.poll(cx)
        })
        .await
    }
}

/// What becomes of a get that joined others and came back with `answer`.
pub(super) async fn rejoined(
    shared: &Arc<Shared>,
    get: &Get<'_>,
    joined: &Joined,
    answer: Answer,
) -> Result<Got> {
    let Joined { ask, mark } = joined;
    let until = ask.since() + shared.settings.operation_timeout;
    let answer = match (shared.marked(*mark), answer.outcome()) {
        (Some(link), outcome) => noted::<Get>(shared, &link, *mark, outcome, Tells::All),
        (None, Ok(got)) => Ok(got),
        (None, Err(Failure::Late)) => Err(Failed::Late),
        (None, Err(Failure::Broken(error))) => {
            Err(Failed::With(exchange_error(&shared.target, error)))
        }
    };
    concluded(shared, "get", get, until, Some(*mark), answer).await
}

/// Whether the server would refuse any other operation too. Not what befalls writes alone, such as `OOM` or `READONLY`; but
/// where sentinels know of another master, `READONLY` tells that this one is none any more.
fn is_sick(target: &Target, refusal: &ServerError) -> bool {
    match said(refusal.code(), refusal.details().unwrap_or_default()).0 {
        "NOAUTH" | "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" => true,
        "READONLY" => matches!(target, Target::Sentinel { .. }),
        _ => false,
    }
}

/// No answer came in time, from the link that was `used` if it came to that.
fn unanswered(
    shared: &Arc<Shared>,
    operation: &'static str,
    bound: Option<Duration>,
    used: Used,
) -> Error {
    let bound = bound.unwrap_or(shared.settings.operation_timeout);
    let error = shared.named(no_answer(bound), operation);
    shared.timeouts.fetch_add(1, Relaxed);
    if let Some(mark) = used
        && let Some(link) = shared.marked(mark)
    {
        // Whoever waits for less than others says nothing about the server.
        match bound >= shared.settings.operation_timeout {
            true => supervisor::unanswered(shared, &link, mark, &error),
            false => supervisor::unanswered_soon(shared, &link, mark),
        }
    }
    error
}

/// What an operation says of a node that is down: whatever the reason was, to its caller it is unavailable.
fn down(error: &Error) -> Error {
    if error.kind() == ErrorKind::Unsupported {
        return error.clone();
    }
    let why = format!("the node is down: {}", error.message());
    let down = Error::new(ErrorKind::Unavailable, why);
    match code(error) {
        Some(code) => down.with("code", code),
        None => down,
    }
}
