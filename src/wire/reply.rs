//! What went wrong at a server, in the words of the house.

use std::time::Duration;

use redis::{RedisError, ServerError};

use super::guard::TOO_BIG;
use super::target::Redact;
use crate::error::{Error, ErrorKind};

/// An error element of a server's answer: [`ErrorKind::Rejected`], or [`ErrorKind::TooLarge`] where the guard
/// put it in the place of a value. The server's code (`OOM`, `WRONGTYPE`, `LOADING`, ...) is kept as context.
pub(super) fn server_error(place: &impl Redact, error: &ServerError) -> Error {
    let (code, words) = said(error.code(), error.details().unwrap_or_default());
    let kind = if code == TOO_BIG {
        ErrorKind::TooLarge
    } else {
        ErrorKind::Rejected
    };
    Error::new(kind, place.redacted(words)).with("code", place.redacted(code))
}

/// Code and words of an error. Servers before Redis 7 wrap what happens in a script in an error of the script: `ERR Error running
/// script (call to f_...): @user_script:7: -OOM command not allowed`.
pub(super) fn said<'e>(code: &'e str, words: &'e str) -> (&'e str, &'e str) {
    let inner = words
        .split_once("@user_script")
        .filter(|_| code == "ERR")
        .and_then(|(_, inner)| inner.split_once(": -"));
    match inner.and_then(|(_, inner)| inner.split_once(' ')) {
        Some((code, words))
            if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase()) =>
        {
            (code, words)
        }
        _ => (code, words),
    }
}

/// What is said of a connection that broke with something under way.
const BROKE: &str = "the connection failed";

/// What is said of an answer that cannot be read.
const GARBLED: &str = "the server's answer is no RESP";

/// Whether what failed so may have been carried out all the same.
#[cfg(feature = "ring")]
pub(crate) fn may_be_done(error: &Error) -> bool {
    error.kind() == ErrorKind::Timeout || [BROKE, GARBLED].contains(&error.message())
}

/// A failed exchange: [`ErrorKind::Unavailable`] where the connection is of no use any more.
pub(super) fn exchange_error(place: &impl Redact, error: RedisError) -> Error {
    match error.kind() {
        redis::ErrorKind::Io => Error::new(ErrorKind::Unavailable, BROKE).caused_by(error),
        // The parser's own words hold pieces of the answer, that is of somebody's values.
        redis::ErrorKind::Parse => Error::new(ErrorKind::Unavailable, GARBLED),
        _ => match error.code() {
            Some(code) => {
                let (code, words) = said(code, error.detail().unwrap_or_default());
                Error::new(ErrorKind::Rejected, place.redacted(words))
                    .with("code", place.redacted(code))
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "ring")]
    #[test]
    fn what_was_answered_by_garbage_may_have_been_done() {
        let addr = crate::wire::NodeAddr::parse("redis://h:1/0").unwrap();
        let garbage = redis::parse_redis_value(b"canary\r\n").unwrap_err();
        let error = exchange_error(&addr, garbage);
        assert!(may_be_done(&error), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"));
        let refused = RedisError::from((redis::ErrorKind::Client, "no command"));
        assert!(!may_be_done(&exchange_error(&addr, refused)));
    }

    #[test]
    fn what_happened_in_a_script_is_unwrapped() {
        let wrapped = "Error running script (call to f_ab12): @user_script:7: -OOM command not allowed when used memory";
        assert_eq!(
            said("ERR", wrapped),
            ("OOM", "command not allowed when used memory")
        );
        for words in [
            "no such key",
            "@user_script:7: my own words",
            "@user_script:7: - x",
        ] {
            assert_eq!(said("ERR", words), ("ERR", words));
        }
        // As Redis 7 has it.
        let words = "command not allowed. script: ab12, on @user_script:7.";
        assert_eq!(said("OOM", words), ("OOM", words));
    }
}
