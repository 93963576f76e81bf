//! One request and its answer, within one bound.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::reply::{exchange_error, no_answer, no_runtime};
use super::slot::{Link, Mark, Phase, Shared};
use super::supervisor;
use crate::error::{Error, ErrorKind, Result};

/// What an operation sends.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    /// With the number of replies that come.
    Many(&'a Pipeline, usize),
}

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

/// Sends `request` and waits for its answer, within `operation_timeout`.
pub(super) async fn exchange(
    shared: &Arc<Shared>,
    operation: &'static str,
    request: Request<'_>,
) -> Result<Value> {
    if Handle::try_current().is_err() {
        return Err(shared.named(no_runtime(), operation));
    }
    let mut used = None;
    let answer = timeout(shared.settings.operation_timeout, async {
        let link = link(shared).await?;
        used = Some((Arc::clone(&link), link.mark()));
        let answer = send(&link, request).await;
        Ok((link, answer))
    });
    match answer.await {
        Ok(Ok((link, answer))) => settle(shared, operation, &link, answer),
        Ok(Err(error)) => Err(shared.named(down(&error), operation)),
        Err(_) => Err(unanswered(shared, operation, used)),
    }
}

async fn send(link: &Link, request: Request<'_>) -> RedisResult<Value> {
    let mut conn = link.conn();
    match request {
        Request::One(cmd) => conn.send_packed_command(cmd).await,
        Request::Many(pipeline, replies) => conn
            .send_packed_commands(pipeline, 0, replies)
            .await
            .map(Value::Array),
    }
}

/// An answer came, or the connection failed.
fn settle(
    shared: &Shared,
    operation: &'static str,
    link: &Arc<Link>,
    answer: RedisResult<Value>,
) -> Result<Value> {
    answer.inspect(|_| link.answered()).map_err(|error| {
        let error = shared.named(exchange_error(&shared.addr, error), operation);
        if error.kind() == ErrorKind::Unavailable {
            shared.report(link, &error);
        }
        error
    })
}

/// No answer came in time, from the link that was `used` if it came to that.
fn unanswered(
    shared: &Arc<Shared>,
    operation: &'static str,
    used: Option<(Arc<Link>, Mark)>,
) -> Error {
    let error = shared.named(no_answer(shared.settings.operation_timeout), operation);
    shared.timeouts.fetch_add(1, Relaxed);
    if let Some((link, mark)) = used {
        supervisor::unanswered(shared, &link, mark, &error);
    }
    error
}

/// What an operation says of a node that is down: whatever the reason was, to its caller it is unavailable.
fn down(error: &Error) -> Error {
    if error.kind() == ErrorKind::Unsupported {
        return error.clone();
    }
    let why = format!("the node is down: {}", error.message());
    let code = error.context().find(|(name, _)| *name == "code");
    let error = Error::new(ErrorKind::Unavailable, why);
    code.map_or(error.clone(), |(name, code)| error.with(name, code))
}
