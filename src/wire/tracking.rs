//! Writes by others, as the server tells of them: `CLIENT TRACKING` in broadcasting mode.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use redis::{Cmd, PushInfo, PushKind, Value, cmd};

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The server tells of every write from now on; what happened before is unknown.
    Begun,
    /// These keys were written.
    Keys(Vec<Vec<u8>>),
    /// Any key may have been written.
    All,
    /// All that was written before this moment, when the server was asked for a sign of life, was told.
    Proven(Instant),
    /// This server does not tell, and this is why.
    Deaf(String),
    /// Nothing more is heard, until [`Begun`](Self::Begun).
    Ended,
}

/// Who hears of writes to keys that begin with one of these prefixes. Called on the connection's task, so it must
/// neither block nor wait.
#[derive(Clone)]
pub(crate) struct Listener {
    prefixes: Vec<String>,
    tell: Arc<dyn Fn(Heard) + Send + Sync>,
}

impl Listener {
    #[cfg_attr(not(any(test, feature = "ring")), allow(dead_code))]
    pub(crate) fn new(prefixes: Vec<String>, tell: impl Fn(Heard) + Send + Sync + 'static) -> Self {
        Self {
            prefixes,
            tell: Arc::new(tell),
        }
    }

    pub(super) fn tell(&self, heard: Heard) {
        (self.tell)(heard);
    }

    /// What a push of the server means.
    pub(super) fn hear(&self, push: PushInfo) {
        match push.kind {
            PushKind::Invalidate => self.tell(invalidated(push.data)),
            PushKind::Disconnection => self.tell(Heard::Ended),
            _ => {}
        }
    }

    /// No `NOLOOP`, for it hides writes of others that the server tells of together with ours; no `REDIRECT`, for a
    /// lost target is silent.
    pub(super) fn command(&self) -> Cmd {
        let mut tracking = cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST");
        for prefix in &self.prefixes {
            tracking.arg("PREFIX").arg(prefix);
        }
        tracking
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}

/// A list of keys or, in any form that is not one, everything.
fn invalidated(mut data: Vec<Value>) -> Heard {
    match (data.pop(), data.is_empty()) {
        (Some(Value::Array(keys)), true) => keys
            .into_iter()
            .map(|key| match key {
                Value::BulkString(key) => Some(key),
                Value::SimpleString(key) => Some(key.into_bytes()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map_or(Heard::All, Heard::Keys),
        _ => Heard::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_of_keys_is_everything() {
        let key = |key: &str| Value::BulkString(key.into());
        let keys = vec![Value::Array(vec![key("a"), key("b")])];
        assert_eq!(
            invalidated(keys),
            Heard::Keys(vec![b"a".to_vec(), b"b".to_vec()])
        );
        assert_eq!(invalidated(vec![Value::Nil]), Heard::All);
        assert_eq!(invalidated(vec![]), Heard::All);
        assert_eq!(
            invalidated(vec![Value::Array(vec![Value::Int(1)])]),
            Heard::All
        );
        assert_eq!(invalidated(vec![key("a"), Value::Nil]), Heard::All);
    }
}
