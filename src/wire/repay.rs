//! Making up for the deletes that a node owes, on a link of its own or before anybody else uses it.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::{sleep, timeout};

use super::command::unlink;
use super::reply::{exchange_error, no_answer, server_error};
use super::script::invalidate;
use super::slot::{Link, Shared};
use super::wipe::{Carrier, STEP, is_final, wipe, wipe_tokens};
use crate::error::{Error, ErrorKind, Result};

/// Before a refused delete is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A link as it is, without retries, callers or bounds but the one on each command.
struct Bare<'a> {
    shared: &'a Shared,
    link: &'a Link,
}

impl Carrier for Bare<'_> {
    async fn carry(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        let bound = self.shared.settings.operation_timeout;
        let mut conn = self.link.conn();
        let answer = timeout(bound, conn.send_packed_command(cmd)).await;
        let answer = match answer {
            Ok(Ok(Value::ServerError(error))) => Err(server_error(&self.shared.target, &error)),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(exchange_error(&self.shared.target, error)),
            Err(_) => Err(no_answer(bound)),
        };
        answer.map_err(|error| self.shared.named(error, operation))
    }
}

/// Makes up for everything that is owed, before anybody uses the link.
///
/// # Errors
///
/// What the link failed with, or the server's refusal to be emptied. One that refuses deletes of single keys is used all the
/// same: they are tried again.
pub(super) async fn repay_all(shared: &Shared, link: &Link) -> Result<()> {
    let bare = Bare { shared, link };
    while let Some(emptying) = shared.replay.empty() {
        let settings = &shared.settings;
        let chosen = |key: &[u8]| settings.share.holds(key) && settings.may_wipe(key);
        let emptied = async {
            // What is computed at this moment was begun before.
            wipe_tokens(&bare, &emptying.prefix).await?;
            wipe(&bare, &emptying.prefix, chosen).await
        };
        match emptied.await {
            Err(error) if !is_final(&error) => return Err(error),
            Err(error) => {
                // The ttl is the bound on what is left.
                tracing::error!(target: "larder::wire", event = "not_emptied", node = %shared.label, error = %error);
                shared.replay.emptied(&emptying);
            }
            Ok(()) => {
                tracing::warn!(target: "larder::wire", event = "node_emptied", node = %shared.label,
                    "too many deletes had failed to remember each");
                shared.replay.emptied(&emptying);
            }
        }
    }
    loop {
        match repay(&bare).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Rejected => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Makes up for what comes to be owed while the link is in use; answers when the link must be given up for that.
pub(super) async fn repay_as_owed(shared: &Arc<Shared>, link: &Link) -> Error {
    let bare = Bare { shared, link };
    loop {
        shared.replay.owed().await;
        if shared.replay.is_to_empty() {
            // Nobody may write meanwhile.
            let why = "too many deletes failed: the node is emptied before it is used again";
            return Error::new(ErrorKind::Unavailable, why).with("node", &shared.label);
        }
        match repay(&bare).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Unavailable => return error,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Makes up for some of what is owed; whether there was any.
async fn repay(bare: &Bare<'_>) -> Result<bool> {
    let replay = &bare.shared.replay;
    if let Some((name, failed)) = replay.owed_tag() {
        match invalidate(bare, &name.0, &name.1).await {
            Err(error) if !is_final(&error) => return Err(error),
            _ => replay.tag_told(&name, failed),
        }
        return Ok(true);
    }
    let Some(round) = replay.begin(STEP) else {
        return Ok(false);
    };
    let keys: Vec<&str> = round.keys.iter().map(|key| &**key).collect();
    match bare.carry("unlink", &unlink(&keys)).await {
        Ok(_) => round.settle(),
        // It will never be allowed.
        Err(error) if super::reply::code(&error) == Some("NOPERM") => round.settle(),
        Err(error) => return Err(error),
    }
    Ok(true)
}
