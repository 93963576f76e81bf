//! Larder's own supervised connection to one node.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, ServerError, Value};
use tokio::runtime::{self, Handle};
use tokio::time::{Instant, timeout};

use super::ask::{Answer as Joint, Ask};
use super::exchange::{Joined, exchange, join, link, rejoined};
use super::get::{Get, Got};
use super::replay::Replay;
use super::reply::{no_runtime, server_error};
use super::request::{Many, One};
use super::settings::ConnectionSettings;
use super::slot::Shared;
use super::supervisor;
use super::target::Target;
use super::wipe::Carrier;
use crate::error::{Error, ErrorKind, Result};

/// What happened to a connection so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Operations and `PING`s that were not answered in time.
    pub(crate) timeouts: u64,
    /// Connections made after the first.
    pub(crate) reconnects: u64,
    /// Reads that were sent a second time.
    pub(crate) retries: u64,
    /// Operations that were not begun because too many were under way.
    pub(crate) refused: u64,
    /// Deletes that failed and are to be made up for.
    pub(crate) owed: usize,
}

/// A connection to one node, which is made when first used and made again whenever it breaks.
///
/// Clones share it. Operations of all clones travel side by side over one socket; a key that always uses the
/// same connection sees its commands carried out in the order they were sent.
///
/// # While the node is down
///
/// Operations fail at once with [`ErrorKind::Unavailable`], while one task tries to connect again and again.
/// Only an operation that comes while the very first attempt is under way waits for it, within its own bound.
/// Three unanswered operations in a row, or an answer that is no RESP, and the socket is given up for a new one.
///
/// # Runtimes
///
/// The task runs on the tokio runtime of whoever used the connection first; time and I/O must be enabled there.
/// If that runtime is gone, or nobody drives it, the next caller's takes over: a connection in a static outlives
/// the runtime of a test. Dropping the last clone ends the task.
///
/// # Cancellation
///
/// Any of the futures may be dropped at any point. An operation that was sent is carried out by the server all
/// the same; its answer is thrown away when it comes, and no other operation gets it.
///
/// # Events
///
/// `tracing` events of target `larder::wire`: `node_up` (field `node`), `node_down` (fields `node`, `error`),
/// one for each change. They never hold a password or a command's arguments.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl Connection {
    /// A connection to `target`. Nothing is sent, no runtime is needed, and nothing is waited for.
    pub(crate) fn new(target: impl Into<Target>, settings: ConnectionSettings) -> Self {
        let replay = Arc::new(Replay::new(settings.max_unsettled));
        Self::owing_what(replay, target.into(), settings)
    }

    /// What it owes, for another connection to the same server to take over.
    #[cfg(feature = "ring")]
    pub(super) fn replay(&self) -> Arc<Replay> {
        Arc::clone(&self.shared().replay)
    }

    pub(super) fn owing_what(
        replay: Arc<Replay>,
        target: Target,
        settings: ConnectionSettings,
    ) -> Self {
        let shared = Arc::new(Shared::new(target, settings, replay));
        Self {
            inner: Arc::new(Inner { shared }),
        }
    }

    /// Where it leads.
    #[cfg(feature = "ring")]
    pub(crate) fn target(&self) -> &Target {
        &self.shared().target
    }

    /// What may be shown of where it leads.
    pub(crate) fn label(&self) -> &str {
        &self.shared().label
    }

    /// Whether the node is known to be up.
    pub(crate) fn is_up(&self) -> bool {
        self.shared().is_up()
    }

    /// Whether the node is known to be down, so that nothing is sent to it.
    pub(super) fn fails_at_once(&self) -> bool {
        self.shared().fails_at_once()
    }

    /// Where it leads, while it is up.
    pub(super) fn place(&self) -> Option<SocketAddr> {
        self.shared().with_up(|link| Some(link.place()))
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            timeouts: self.shared().timeouts.load(Relaxed),
            reconnects: self.shared().connects.load(Relaxed).saturating_sub(1),
            retries: self.shared().load.retries.load(Relaxed),
            refused: self.shared().load.refused.load(Relaxed),
            owed: self.shared().replay.debts().0,
        }
    }

    /// Begins to connect, and waits for nothing. A first operation does the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] outside a tokio runtime, [`ErrorKind::Unsupported`] for a `rediss://` address in a build without TLS.
    pub(crate) fn start(&self) -> Result<()> {
        supervisor::start(self.shared()).map_err(|error| self.named(error, "connect"))
    }

    /// Waits until the first attempt to connect has succeeded or failed, for about `connect_timeout` at most.
    /// Later it answers at once how things stand.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start); [`ErrorKind::Unavailable`] where the node cannot be reached;
    /// [`ErrorKind::Rejected`] where it refuses the credentials or the database.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.runtime("connect")?;
        // A little longer than the attempt itself, whose own words are the better ones.
        let bound = self.shared().attempt() + Duration::from_millis(100);
        match timeout(bound, link(self.shared())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let why = format!("no connection within {bound:?}");
                Err(self.named(Error::new(ErrorKind::Unavailable, why), "connect"))
            }
        }
    }

    /// Sends one command and reads its answer as `T`. An error inside an array stays there: read the answer as
    /// [`Value`], or its elements as [`redis::RedisResult`].
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unavailable`]: the node is down, or the connection broke. The command may have been
    ///   carried out in the second case.
    /// - [`ErrorKind::Timeout`]: no answer within `operation_timeout`. The command may have been carried out.
    /// - [`ErrorKind::Rejected`]: the server answered with an error; its code is the context `code`.
    /// - [`ErrorKind::TooLarge`]: the value is longer than `max_reply_bytes`.
    /// - [`ErrorKind::Decode`]: the answer is no `T`.
    /// - [`ErrorKind::Unsupported`]: the address is a `rediss://` one, and the build has no TLS.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any point; see [`Connection`].
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        cmd: &Cmd,
    ) -> Result<T> {
        self.one(operation, One::of(cmd)).await
    }

    /// As [`run`](Self::run), for a command that changes nothing: it is sent a second time if the connection breaks, or
    /// the server says that it is loading.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub(crate) async fn read<T: FromRedisValue>(
        &self,
        operation: &'static str,
        cmd: &Cmd,
    ) -> Result<T> {
        let read = true;
        self.one(
            operation,
            One {
                read,
                ..One::of(cmd)
            },
        )
        .await
    }

    async fn one<T: FromRedisValue>(&self, operation: &'static str, request: One<'_>) -> Result<T> {
        self.runtime(operation)?;
        let value = exchange(self.shared(), operation, &request).await?;
        if let Value::ServerError(error) = &value {
            return Err(self.server_error(operation, error));
        }
        // The parser's words hold the value, so they are not repeated.
        redis::from_redis_value(value).map_err(|_| {
            let why = "the answer has another form than this operation reads";
            self.named(Error::new(ErrorKind::Decode, why), operation)
        })
    }

    /// Reads one key, together with those that others read at the same time, and its life if `pttl`. Sent a second time
    /// as in [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), except that what the server refused is part of the answer.
    pub(crate) async fn get(&self, key: &str, pttl: bool) -> Result<Got> {
        let since = Instant::now();
        if self.owes(key) {
            return Ok(Got::nothing());
        }
        let joined = poll_fn(|cx| Poll::Ready(self.join(key, pttl, since, cx.waker()))).await;
        match joined {
            Some(joined) => {
                let answer = joined.answer().await;
                self.rejoined(key, pttl, &joined, answer).await
            }
            None => exchange(self.shared(), "get", &self.request(key, pttl)?).await,
        }
    }

    /// As [`get`](Self::get), if others read at this moment: nothing is held while the answer comes, which is given to
    /// [`rejoined`](Self::rejoined) unless it is a value or nothing at all.
    pub(crate) fn join(
        &self,
        key: &str,
        pttl: bool,
        since: Instant,
        waker: &Waker,
    ) -> Option<Joined> {
        if !self.shared().replay.is_clear() {
            return None;
        }
        let here = Handle::try_current().ok()?.id();
        let ask = || Ask::new(key, pttl, since, Some(waker.clone()));
        join(self.shared(), here, ask)
    }

    /// What becomes of a get that joined others and got this answer.
    pub(crate) async fn rejoined(
        &self,
        key: &str,
        pttl: bool,
        joined: &Joined,
        answer: Joint,
    ) -> Result<Got> {
        let get = self.request(key, pttl)?;
        rejoined(self.shared(), &get, joined, answer).await
    }

    fn request<'a>(&'a self, key: &'a str, pttl: bool) -> Result<Get<'a>> {
        Ok(Get {
            key,
            pttl,
            bound: self.shared().settings.operation_timeout,
            here: self.runtime("get")?,
            load: &self.shared().load,
        })
    }

    /// Sends several commands at once and answers their replies in order. What the server refused is a
    /// [`Value::ServerError`] in its place, for which [`server_error`](Self::server_error) has the words. Of a
    /// transaction (`Pipeline::atomic`) the replies are those inside `EXEC`; commands marked `ignore` are there.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), for the whole; [`ErrorKind::Rejected`] also where a transaction was refused.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any point; see [`Connection`].
    pub(crate) async fn run_pipeline(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>> {
        self.many(operation, pipeline, false).await
    }

    /// As [`run_pipeline`](Self::run_pipeline), for commands that change nothing; see [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// Those of [`run_pipeline`](Self::run_pipeline).
    pub(crate) async fn read_pipeline(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>> {
        self.many(operation, pipeline, true).await
    }

    async fn many(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
        read: bool,
    ) -> Result<Vec<Value>> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let request = Many {
            read,
            ..Many::of(pipeline)
        };
        self.runtime(operation)?;
        let replies = exchange(self.shared(), operation, &request).await?;
        if !pipeline.is_transaction() {
            return Ok(replies);
        }
        self.unwrap_transaction(operation, replies)
    }

    fn unwrap_transaction(
        &self,
        operation: &'static str,
        mut replies: Vec<Value>,
    ) -> Result<Vec<Value>> {
        match replies.pop() {
            Some(Value::Array(inside)) => Ok(inside),
            last => {
                // The first refusal is the reason; what EXEC says is that there was one.
                let refusal = replies.iter().chain(&last).find_map(|reply| match reply {
                    Value::ServerError(error) => Some(self.server_error(operation, error)),
                    _ => None,
                });
                Err(refusal.unwrap_or_else(|| {
                    let why = "the transaction was not carried out";
                    self.named(Error::new(ErrorKind::Rejected, why), operation)
                }))
            }
        }
    }

    /// Whether a key may be removed with others of its prefix.
    pub(crate) fn may_wipe(&self, key: &[u8]) -> bool {
        self.shared().settings.may_wipe(key)
    }

    /// Whether others write values without marks under the same prefixes.
    pub(super) fn is_shared(&self) -> bool {
        self.shared().settings.shared
    }

    /// Everything under `prefix` should have been removed, and some of it may not have been. It will be, before the node
    /// counts as up again.
    pub(crate) fn owe_all(&self, prefix: &str) {
        self.shared().replay.owe_all(prefix);
    }

    /// The error for a [`Value::ServerError`] found in the replies of [`run_pipeline`](Self::run_pipeline).
    pub(crate) fn server_error(&self, operation: &'static str, error: &ServerError) -> Error {
        self.named(server_error(&self.shared().target, error), operation)
    }

    /// Ends the connection: operations under way are waited for, within `operation_timeout`; further ones fail
    /// with [`ErrorKind::Unavailable`].
    ///
    /// # Cancellation
    ///
    /// The connection is closed to new operations even if the future is dropped after its first poll.
    pub(crate) async fn shutdown(&self) {
        self.shared().close();
        let bound = self.shared().settings.operation_timeout + Duration::from_millis(100);
        if Handle::try_current().is_ok() {
            let mut slot = self.shared().slot.subscribe();
            let ended = slot.wait_for(|slot| slot.home.is_none());
            let _ = timeout(bound, ended).await;
        }
        self.shared().abandon();
    }

    /// The runtime that the caller runs on.
    pub(super) fn runtime(&self, operation: &'static str) -> Result<runtime::Id> {
        match Handle::try_current() {
            Ok(here) => Ok(here.id()),
            Err(_) => Err(self.named(no_runtime(), operation)),
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(super) fn named(&self, error: Error, operation: &'static str) -> Error {
        self.shared().named(error, operation)
    }
}

/// A connection for commands that change nothing, which are sent a second time where that helps.
pub(super) struct Reading<'c>(pub(super) &'c Connection);

impl Carrier for Reading<'_> {
    async fn carry(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        self.0.read(operation, cmd).await
    }
}

impl Carrier for Connection {
    async fn carry(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        self.run(operation, cmd).await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("node", &self.shared().label)
            .field("phase", &self.shared().slot.borrow().phase.to_string())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod corners;
#[cfg(test)]
mod debts;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upkeep;
