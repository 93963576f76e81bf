//! Removing all keys that begin with a prefix, a step at a time.

use std::future::Future;

use redis::{Cmd, Value, cmd};

use super::reply::code;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{RESERVED, TOKENS};

/// Keys found by one `SCAN`, and removed by one `UNLINK`: a server does nothing else meanwhile.
pub(super) const STEP: usize = 1000;

/// Something that carries single commands to a server.
pub(super) trait Carrier: Sync {
    fn carry(
        &self,
        operation: &'static str,
        cmd: &Cmd,
    ) -> impl Future<Output = Result<Value>> + Send;
}

/// Removes every key that begins with `prefix` and that `chosen` answers for, but none that is reserved.
pub(super) async fn wipe(
    carrier: &impl Carrier,
    prefix: &str,
    chosen: impl Fn(&[u8]) -> bool + Send + Sync,
) -> Result<()> {
    let mut cursor = 0;
    loop {
        let (next, keys) = found(carrier, prefix, cursor).await?;
        let keys = keys
            .into_iter()
            .filter(|key| chosen(key) && !is_reserved(key));
        let keys: Vec<_> = keys.collect();
        for keys in keys.chunks(STEP) {
            carrier.carry("unlink", cmd("UNLINK").arg(keys)).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// A step of a walk over all keys that begin with `prefix`: where the next one begins, 0 at the end, and some of the keys.
pub(super) async fn found(
    carrier: &impl Carrier,
    prefix: &str,
    cursor: u64,
) -> Result<(u64, Vec<Vec<u8>>)> {
    let mut scan = cmd("SCAN");
    scan.arg(cursor);
    if !prefix.is_empty() {
        scan.arg("MATCH").arg(pattern(prefix));
    }
    scan.arg("COUNT").arg(STEP);
    scanned(carrier.carry("scan", &scan).await?)
}

pub(super) fn is_reserved(key: &[u8]) -> bool {
    RESERVED.iter().any(|name| key.starts_with(name.as_bytes()))
}

/// Has computes of keys that begin with `prefix` not stored.
pub(super) async fn wipe_tokens(carrier: &impl Carrier, prefix: &str) -> Result<()> {
    let prefix = format!("{TOKENS}{prefix}");
    let mut cursor = 0;
    loop {
        let (next, keys) = found(carrier, &prefix, cursor).await?;
        for keys in keys.chunks(STEP) {
            carrier.carry("unlink", cmd("UNLINK").arg(keys)).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// The answer to `SCAN`. A key that is too long to be read is nobody's here.
fn scanned(reply: Value) -> Result<(u64, Vec<Vec<u8>>)> {
    let Value::Array(parts) = reply else {
        return Err(strange());
    };
    let [cursor, Value::Array(keys)] = &parts[..] else {
        return Err(strange());
    };
    let next = match cursor {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text.as_str()),
        _ => None,
    };
    let next = next
        .and_then(|text| text.parse().ok())
        .ok_or_else(strange)?;
    let text = |key: &Value| match key {
        Value::BulkString(text) => Some(text.clone()),
        _ => None,
    };
    Ok((next, keys.iter().filter_map(text).collect()))
}

fn strange() -> Error {
    let why = "the server's answer has another form than expected";
    Error::new(ErrorKind::Decode, why).during("scan")
}

/// Whether a removal that failed like this would fail for ever: it is not allowed, or not there.
pub(super) fn is_final(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Rejected => matches!(code(error), Some("NOPERM" | "ERR")),
        ErrorKind::Decode | ErrorKind::TooLarge | ErrorKind::Config | ErrorKind::Unsupported => {
            true
        }
        _ => false,
    }
}

/// The pattern of keys that begin with `prefix`, which may hold any character.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    pattern
}
