//! A get, and what comes of it.

use std::io;
use std::time::Duration;

use redis::{RedisError, ServerError, Value};
use tokio::runtime;
use tokio::time::error::Elapsed;

use super::load::Load;

/// One key, asked for together with others.
pub(super) struct Get<'a> {
    pub(super) key: &'a str,
    pub(super) pttl: bool,
    pub(super) bound: Duration,
    /// The runtime of the caller.
    pub(super) here: runtime::Id,
    /// Of the connection.
    pub(super) load: &'a Load,
}

/// What stands under a key.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Nothing,
    Bytes(Vec<u8>),
    /// The server refused, or the guard in its place.
    Refused(ServerError),
    /// No answer to a get at all.
    Strange,
}

/// The answer to a get.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) found: Found,
    /// The answer to `PTTL`, where it was asked for.
    pub(crate) pttl: Option<i64>,
}

impl Got {
    /// What the server answered to `GET`, or for one key of an `MGET`.
    pub(super) fn of(value: Value) -> Self {
        Self::from(match value {
            Value::Nil => Found::Nothing,
            Value::BulkString(bytes) => Found::Bytes(bytes),
            Value::ServerError(error) => Found::Refused(error),
            _ => Found::Strange,
        })
    }

    /// The value's length in bytes.
    pub(super) fn len(&self) -> usize {
        match &self.found {
            Found::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    pub(super) fn nothing() -> Self {
        Self::from(Found::Nothing)
    }

    pub(super) fn refused(refusal: ServerError) -> Self {
        Self::from(Found::Refused(refusal))
    }

    pub(super) fn strange() -> Self {
        Self::from(Found::Strange)
    }

    fn from(found: Found) -> Self {
        Self { found, pttl: None }
    }
}

/// Why there is no answer.
pub(super) enum Failure {
    /// It did not come in time.
    Late,
    /// The connection, or redis-rs, failed.
    Broken(RedisError),
}

impl Failure {
    /// The connection is gone.
    pub(super) fn lost() -> Self {
        Self::Broken(io::Error::from(io::ErrorKind::BrokenPipe).into())
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Broken(error)
    }
}

impl From<Elapsed> for Failure {
    fn from(_: Elapsed) -> Self {
        Self::Late
    }
}
