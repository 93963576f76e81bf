//! What went wrong at a server, in the words of the house.

use std::time::Duration;

use redis::{RedisError, ServerError};

use super::guard::TOO_BIG;
use super::target::Redact;
use crate::error::{Error, ErrorKind};

/// An error element of a server's answer: [`ErrorKind::Rejected`], or [`ErrorKind::TooLarge`] where the guard
/// put it in the place of a value. The server's code (`OOM`, `WRONGTYPE`, `LOADING`, ...) is kept as context.
pub(super) fn server_error(place: &impl Redact, error: &ServerError) -> Error {
    let (code, words) = (error.code(), error.details().unwrap_or_default());
    let kind = if code == TOO_BIG {
        ErrorKind::TooLarge
    } else {
        ErrorKind::Rejected
    };
    Error::new(kind, place.redacted(words)).with("code", place.redacted(code))
}

/// A failed exchange: [`ErrorKind::Unavailable`] where the connection is of no use any more.
pub(super) fn exchange_error(place: &impl Redact, error: RedisError) -> Error {
    match error.kind() {
        redis::ErrorKind::Io => {
            Error::new(ErrorKind::Unavailable, "the connection failed").caused_by(error)
        }
        // The parser's own words hold pieces of the answer, that is of somebody's values.
        redis::ErrorKind::Parse => {
            Error::new(ErrorKind::Unavailable, "the server's answer is no RESP")
        }
        _ => match error.code() {
            Some(code) => Error::new(
                ErrorKind::Rejected,
                place.redacted(error.detail().unwrap_or_default()),
            )
            .with("code", place.redacted(code)),
            // Not sent at all: no command, or one that redis-rs refuses.
            None => Error::new(ErrorKind::Config, place.redacted(&error.to_string())),
        },
    }
}

/// No answer came within `bound`.
pub(super) fn no_answer(bound: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {bound:?}"))
}

/// There is no runtime to wait on.
pub(super) fn no_runtime() -> Error {
    let why = "a connection to Redis needs a tokio runtime, and there is none here";
    Error::new(ErrorKind::Unavailable, why)
}

/// The server's own code in an error that it answered.
pub(super) fn code(error: &Error) -> Option<&str> {
    error
        .context()
        .find(|(name, _)| *name == "code")
        .map(|(_, code)| code)
}
