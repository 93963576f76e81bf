//! Scripts that a server runs in one step.

use std::sync::LazyLock;

use redis::{Cmd, Value, cmd};

use super::reply::code;
use super::wipe::Carrier;
use crate::error::{Error, Result};

/// A script, which a server knows by its hash once it has run it.
pub(super) struct Script {
    body: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$doc])*
        pub(super) static $name: Script = Script {
            body: concat!(include_str!("lua/marks.lua"), include_str!(concat!("lua/", $file, ".lua"))),
            hash: LazyLock::new(|| redis::Script::new($name.body).get_hash().to_owned()),
        };
    )*};
}

scripts! {
    ADD = "add";
    BEGIN = "begin";
    CLEAR = "clear";
    CLEARED = "cleared";
    HOLD = "hold";
    INVALIDATE = "invalidate";
    LEASE = "lease";
    LEFT = "left";
    PLAIN = "plain";
    PURGE = "purge";
    REMOVE = "remove";
    RETIME = "retime";
    RETRACT = "retract";
    STORE = "store";
}

impl Script {
    /// The command that runs it: by its hash or, where the server does not know that, as it is.
    pub(super) fn command(&self, known: bool, keys: &[&str], args: impl FnOnce(&mut Cmd)) -> Cmd {
        let mut command = if known { cmd("EVALSHA") } else { cmd("EVAL") };
        if known {
            command.arg(&*self.hash);
        } else {
            command.arg(self.body);
        }
        command.arg(keys.len()).arg(keys);
        args(&mut command);
        command
    }

    pub(super) async fn run(
        &self,
        carrier: &impl Carrier,
        operation: &'static str,
        keys: &[&str],
        args: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<Value> {
        let answer = carrier
            .carry(operation, &self.command(true, keys, &args))
            .await;
        match answer {
            Err(error) if is_unknown(&error) => {
                carrier
                    .carry(operation, &self.command(false, keys, &args))
                    .await
            }
            answer => answer,
        }
    }
}

/// Invalidates a tag of a namespace.
pub(super) async fn invalidate(
    carrier: &impl Carrier,
    namespace: &str,
    tag: &str,
) -> Result<Value> {
    let told = INVALIDATE.run(carrier, "invalidate", &[], |command| {
        command.arg(namespace).arg(tag);
    });
    told.await
}

/// Whether the server did not know a script by its hash, and so has done nothing.
pub(super) fn is_unknown(error: &Error) -> bool {
    code(error) == Some("NOSCRIPT")
}
