//! Commands as a store sends them, and what their replies say.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value, cmd};

use super::script::STORE;
use crate::clock::Moment;
use crate::core::Core;
use crate::entry::{Draft, Noted, Stored, When};
use crate::error::Result;
use crate::generation::random;
use crate::key::TOKENS;
use crate::ttl::Remaining;

/// What a draft is stored as.
pub(super) struct Storing<'d> {
    pub(super) draft: &'d Draft,
    bytes: Bytes,
    marked: bool,
    /// Milliseconds, '' for ever.
    life: String,
}

/// What a draft is stored as, or nothing if its life is over already.
pub(super) fn storing<'d>(core: &Core, key: &str, draft: &'d Draft) -> Result<Option<Storing<'d>>> {
    if let Noted::Lost(error) = &draft.ticket.noted {
        return Err(error.clone());
    }
    let bytes = match &draft.sealed {
        Some(bytes) => bytes.clone(),
        None => core.format().seal(key, &draft.entry)?,
    };
    let (entry, format) = (&draft.entry, core.format());
    // Without an envelope nothing tells that a value is stale.
    let left = if entry.is_bare() || !format.is_enveloped() {
        entry.remaining(core.now())
    } else {
        entry.kept(core.now())
    };
    let life = match left {
        Remaining::For(left) if left.is_zero() => return Ok(None),
        Remaining::For(left) => millis(left).to_string(),
        Remaining::Forever => String::new(),
    };
    // By its own word: the bytes of others may look like an envelope.
    let marked = !entry.is_bare() && format.takes_marks();
    Ok(Some(Storing {
        draft,
        bytes,
        marked,
        life,
    }))
}

impl Storing<'_> {
    /// The command, as [`Script::command`] has it.
    pub(super) fn command(&self, known: bool, key: &str) -> Cmd {
        let draft = self.draft;
        STORE.command(known, &[key], |command| {
            command
                .arg(&*self.bytes)
                .arg(draft.namespace)
                .arg(&self.life);
            let when = match (&draft.ticket.noted, draft.when) {
                (Noted::Node { .. }, _) => "computed",
                (_, When::Always) => "always",
                (_, When::IfAbsent) => "absent",
            };
            command.arg(when).arg(&random().to_le_bytes());
            command.arg(i32::from(self.marked));
            match &draft.ticket.noted {
                Noted::Node {
                    fingerprint, count, ..
                } => command.arg(&**fingerprint).arg(*count),
                _ => command.arg("").arg(0),
            };
            draft.tags.iter().for_each(|tag| {
                command.arg(&**tag);
            });
        })
    }
}

/// What the reply to it says.
pub(super) fn stored(reply: &Value) -> Option<Stored> {
    match reply {
        Value::Int(0) => Some(Stored::Done),
        Value::Int(1) => Some(Stored::Present),
        Value::Int(2) => Some(Stored::Outrun),
        _ => None,
    }
}

pub(super) fn text(reply: &Value) -> Option<&str> {
    match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The key under which a compute of another key notes that it has begun.
pub(super) fn token_key(key: &str) -> String {
    format!("{TOKENS}{key}")
}

/// Removes keys, and has computes of them that are under way not stored.
pub(super) fn unlink(keys: &[&str]) -> Cmd {
    let mut unlink = cmd("UNLINK");
    unlink.arg(keys);
    keys.iter().for_each(|key| {
        unlink.arg(token_key(key));
    });
    unlink
}

/// Rounded up: Redis refuses 0, and a life must not be shorter than asked for.
pub(super) fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// When the entry ends whose `PTTL` was asked at `asked`, counted from before the question. An entry in its last
/// millisecond is an answer still, but no copy of it is kept.
pub(super) fn deadline(pttl: Option<i64>, asked: Moment) -> Moment {
    match pttl {
        Some(-1) => Moment::NEVER,
        Some(left) => asked.after(Duration::from_millis(u64::try_from(left).unwrap_or(0))),
        None => asked,
    }
}

pub(super) fn integer(reply: &Value) -> Option<i64> {
    match reply {
        Value::Int(integer) => Some(*integer),
        _ => None,
    }
}
