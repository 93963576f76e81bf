//! All that hangs on the interface of redis-rs itself: its connections, commands and errors. Another major version of it is met here, and
//! where this house speaks to a server.

use std::borrow::Cow;
use std::io;

use redis::aio::ConnectionLike;
use redis::{Arg, Cmd, ConnectionInfo, ErrorKind as Kind, IntoConnectionInfo, Pipeline};
use redis::{RedisConnectionInfo, RedisError, RedisFuture, RedisResult, Value};

use super::node::NodeConnection;
use super::refusal::Refusal;
use super::routed::RingConnection;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::NodeAddr;
use crate::wire::reply::may_be_done;

impl ConnectionLike for RingConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.command(cmd))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        _offset: usize,
        _count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.commands(pipeline))
    }

    /// 0, since each node has its own.
    fn get_db(&self) -> i64 {
        0
    }
}

impl ConnectionLike for NodeConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.command(cmd))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        _offset: usize,
        _count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.commands(pipeline))
    }

    fn get_db(&self) -> i64 {
        self.db()
    }
}

/// A command, as a pipeline lends it.
pub(super) type Command<'c> = &'c Cmd;

/// One by itself, as a pipeline would lend it.
pub(super) fn lent(cmd: &Cmd) -> Command<'_> {
    cmd
}

/// Those of a pipeline.
pub(super) fn commands_of(pipeline: &Pipeline) -> impl Iterator<Item = Command<'_>> {
    pipeline.cmd_iter()
}

/// One to be sent as it is.
pub(super) fn kept(cmd: Command<'_>) -> Cow<'_, Cmd> {
    Cow::Borrowed(cmd)
}

/// A command's arguments, its name first.
pub(super) fn args_of(cmd: Command<'_>) -> Vec<&[u8]> {
    let args = cmd.args_iter();
    args.map(|arg| match arg {
        Arg::Simple(arg) => arg,
        // Nowhere a key.
        _ => b"0",
    })
    .collect()
}

/// What `MULTI`, the commands and `EXEC` were answered, as the answer of a transaction.
pub(super) fn of_transaction(mut replies: Vec<Value>) -> RedisResult<Vec<Value>> {
    match replies.pop() {
        Some(answer @ (Value::Array(_) | Value::Nil)) => Ok(vec![answer]),
        last => {
            // The first refusal is the reason; what EXEC says is that there was one.
            for reply in replies.into_iter().chain(last) {
                reply.extract_error()?;
            }
            Err((
                Kind::UnexpectedReturnType,
                "the transaction was not answered",
            )
                .into())
        }
    }
}

/// An error of ours in the words of redis-rs: what does not come, or not in time, is an I/O error.
pub(super) fn redis_error(error: Error) -> RedisError {
    let io = match error.kind() {
        ErrorKind::Timeout => io::ErrorKind::TimedOut,
        // It broke with this under way.
        ErrorKind::Unavailable if may_be_done(&error) => io::ErrorKind::ConnectionReset,
        ErrorKind::Unavailable => io::ErrorKind::NotConnected,
        _ => return (Kind::Client, "not sent", error.to_string()).into(),
    };
    io::Error::new(io, error).into()
}

/// What a node could not be asked for, in the place of its answer among others.
pub(super) fn in_place(error: &Error) -> Value {
    let code = match error.kind() {
        ErrorKind::Timeout => "NODETIMEOUT",
        ErrorKind::Unavailable if may_be_done(error) => "NODELOST",
        ErrorKind::Unavailable => "NODEDOWN",
        _ => "NOTSENT",
    };
    let words = error.to_string().replace(['\r', '\n'], " ");
    redis::parse_redis_value(format!("-{code} {words}\r\n").as_bytes()).unwrap_or(Value::Nil)
}

/// A command that is not sent.
pub(super) fn refused(refusal: &Refusal, label: impl Fn(usize) -> String) -> RedisError {
    match refusal {
        Refusal::Nowhere(error) => redis_error(error.clone()),
        refusal => (Kind::Client, "not sent", refusal.words(label)).into(),
    }
}

/// A client of redis-rs for one server, with its credentials.
///
/// Not by TLS: redis-rs has that by a feature of its own, and roots and identity of its own.
pub(super) fn client(addr: &NodeAddr) -> Result<redis::Client> {
    if addr.is_tls() {
        let why = "this node is spoken to by TLS: open a client with redis-rs and its own feature for that";
        return Err(Error::new(ErrorKind::Unsupported, why).with("node", addr.label()));
    }
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(addr.db()));
    if let Some(user) = addr.user() {
        settings = settings.set_username(user);
    }
    if let Some(password) = addr.password() {
        settings = settings.set_password(password.expose());
    }
    let info = redis::ConnectionAddr::Tcp(addr.host().to_owned(), addr.port());
    let info: RedisResult<ConnectionInfo> = info.into_connection_info();
    let client = info.and_then(|info| redis::Client::open(info.set_redis_settings(settings)));
    client.map_err(|error| {
        let why = addr.redact(&error.to_string());
        Error::new(ErrorKind::Config, why).with("node", addr.label())
    })
}
