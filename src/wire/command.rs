//! Commands as a store sends them, and what their replies say.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use crate::clock::Moment;
use crate::core::Core;
use crate::entry::{Draft, Stored, When};
use crate::error::Result;
use crate::ttl::Remaining;

/// The command that stores a draft, or none if its life is over already.
pub(super) fn set(core: &Core, key: &str, draft: &Draft) -> Result<Option<Cmd>> {
    let bytes = match &draft.sealed {
        Some(bytes) => bytes.clone(),
        None => core.format().seal(key, &draft.entry)?,
    };
    let mut set = cmd("SET");
    set.arg(key).arg(&*bytes);
    match draft.entry.remaining(core.now()) {
        Remaining::For(left) if left.is_zero() => return Ok(None),
        Remaining::For(left) => {
            set.arg("PX").arg(millis(left));
        }
        Remaining::Forever => {}
    }
    if draft.when == When::IfAbsent {
        set.arg("NX");
    }
    Ok(Some(set))
}

/// What the reply to `SET`, or to the `UNLINK` in its place, says.
pub(super) fn stored(reply: &Value) -> Stored {
    match reply {
        Value::Nil => Stored::Present,
        _ => Stored::Done,
    }
}

pub(super) fn unlink(key: &str) -> Cmd {
    let mut unlink = cmd("UNLINK");
    unlink.arg(key);
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
