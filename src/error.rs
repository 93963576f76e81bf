//! The one error type of the crate.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the terms of a caller who must decide what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The key is empty, longer than 1,024 bytes with its prefix, reserved, or holds a control character.
    Key,
    /// A url, a setting or a combination of settings is wrong.
    Config,
    /// The value could not be turned into bytes.
    Encode,
    /// Bytes could not be turned back into the value. Reads answer a miss instead, unless the cache is strict.
    Decode,
    /// The value is larger than the store takes.
    TooLarge,
    /// The store cannot be reached: refused, cut off, or known to be down.
    Unavailable,
    /// The store did not answer, or a compute did not finish, within its bound.
    Timeout,
    /// The server answered with an error: no permission, out of memory, read only.
    Rejected,
    /// The value at the key is no integer in the form that counters use.
    NotACounter,
    /// A counter would leave the range of `i64`.
    Overflow,
    /// Another caller's compute, which this one waited for, failed.
    Compute,
    /// A bound on concurrent work was reached.
    Busy,
    /// The store does not offer the operation.
    Unsupported,
    /// A call that spans several nodes or keys failed for some of them.
    Partial,
}

impl ErrorKind {
    /// The kind in a few words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "unusable key",
            Self::Config => "wrong configuration",
            Self::Encode => "cannot encode",
            Self::Decode => "cannot decode",
            Self::TooLarge => "too large",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Rejected => "rejected by the server",
            Self::NotACounter => "not a counter",
            Self::Overflow => "counter overflow",
            Self::Compute => "compute failed",
            Self::Busy => "too busy",
            Self::Unsupported => "not supported",
            Self::Partial => "failed in part",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of the cache: a kind, the operation, what it was about, and the cause.
///
/// `Display` is one line, `Debug` several. Neither ever holds a password.
///
/// ```
/// use larder::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Timeout, "no answer").during("get").with("node", "127.0.0.1:7001/0");
/// assert_eq!(error.to_string(), "get: timed out: no answer (node: 127.0.0.1:7001/0)");
/// assert!(error.is_retryable());
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message for people.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// Names the operation, unless one is named already: the innermost knows best.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        Arc::make_mut(&mut self.0)
            .operation
            .get_or_insert(operation);
        self
    }

    /// Adds what the error was about: a key, a node, a count. Text is escaped and cut to 200 characters.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        let text = value
            .to_string()
            .chars()
            .take(200)
            .flat_map(char::escape_debug)
            .collect();
        Arc::make_mut(&mut self.0).context.push((name, text));
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, where it is known.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The message, without kind, operation and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the error was about, as names and values.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0
            .context
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether the same call may well succeed a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Busy
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        write!(f, "{}: {}", inner.kind, inner.message)?;
        for (i, (name, value)) in inner.context.iter().enumerate() {
            write!(f, "{}{name}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !inner.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_display_and_causes_for_debug() {
        let error = Error::new(ErrorKind::Unavailable, "no node")
            .during("set")
            .during("outer")
            .with("key", "a\nb")
            .caused_by(std::io::Error::other("refused"));
        assert_eq!(error.to_string(), "set: unavailable: no node (key: a\\nb)");
        assert_eq!(
            format!("{error:?}"),
            "set: unavailable: no node (key: a\\nb)\n  caused by: refused"
        );
        assert_eq!(error.context().collect::<Vec<_>>(), [("key", "a\\nb")]);
        assert_eq!(error.operation(), Some("set"));
        assert_eq!(error.message(), "no node");
    }

    #[test]
    fn only_passing_trouble_is_retryable() {
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Busy] {
            assert!(Error::new(kind, "").is_retryable());
        }
        for kind in [ErrorKind::Key, ErrorKind::Rejected, ErrorKind::Compute] {
            assert!(!Error::new(kind, "").is_retryable());
        }
    }
}
