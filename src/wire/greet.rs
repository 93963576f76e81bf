//! The first words to a server.

use futures_util::future::join3;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value, cmd};

use super::reply::{code, exchange_error, server_error};
use super::settings::ConnectionSettings;
use super::url::{NodeAddr, Secret};
use crate::error::{Error, ErrorKind, Result};

/// Says who we are, chooses the database, and has the server answer once: two round trips. The first command goes alone, for
/// a server that refuses everything says why once and hangs up.
pub(super) async fn greet(
    addr: &NodeAddr,
    settings: &ConnectionSettings,
    conn: &mut MultiplexedConnection,
    said_hello: bool,
) -> Result<()> {
    if !said_hello {
        hello(addr, conn).await?;
    }
    let (mut choosing, mut naming) = (conn.clone(), conn.clone());
    let select = async {
        match addr.db() {
            0 => Ok(None),
            db => ask(addr, &mut choosing, cmd("SELECT").arg(db)).await,
        }
    };
    let set_name = async {
        match &settings.client_name {
            Some(name) => ask(addr, &mut naming, cmd("CLIENT").arg("SETNAME").arg(name)).await,
            None => Ok(None),
        }
    };
    let ping = cmd("PING");
    // Sent in this order. What has no name in CLIENT LIST is as good as any.
    let (selected, alive, _) = join3(select, ask(addr, conn, &ping), set_name).await;
    selected?.map_or(Ok(()), |error| Err(error.with("step", "SELECT")))?;
    match alive? {
        // PING may be forbidden, or refused for what is wrong with writes only.
        Some(error) if !matches!(code(&error), Some("NOPERM" | "MISCONF")) => {
            Err(error.with("step", "PING"))
        }
        _ => Ok(()),
    }
}

/// Chooses RESP3 and is let in by one command or, where the server has no such command, stays with RESP2.
async fn hello(addr: &NodeAddr, conn: &mut MultiplexedConnection) -> Result<()> {
    let mut hello = cmd("HELLO");
    hello.arg(3);
    if let Some((user, password)) = credentials(addr) {
        hello
            .arg("AUTH")
            .arg(user.unwrap_or("default"))
            .arg(password);
    }
    let Some(refusal) = ask(addr, conn, &hello).await? else {
        return Ok(());
    };
    let unknown = match code(&refusal) {
        Some("ERR" | "NOPROTO" | "NOPERM") => true,
        // Some ask who it is before they look for the command; a wrong password would be another answer.
        Some("NOAUTH") => credentials(addr).is_some(),
        _ => false,
    };
    if !unknown {
        return Err(refusal.with("step", "HELLO"));
    }
    match auth(addr, conn).await {
        // What it said before it hung up was the reason.
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(refusal.with("step", "HELLO")),
        done => done,
    }
}

/// Is let in as before RESP3.
async fn auth(addr: &NodeAddr, conn: &mut MultiplexedConnection) -> Result<()> {
    let Some((user, password)) = credentials(addr) else {
        return Ok(());
    };
    let auth = |user: Option<&str>| cmd("AUTH").arg(user).arg(password).to_owned();
    let mut refused = ask(addr, conn, &auth(user)).await?;
    let old = |error: &Error| error.message().contains("wrong number of arguments");
    if user.is_some() && refused.as_ref().is_some_and(old) {
        // Redis 5 knows passwords but no users.
        refused = ask(addr, conn, &auth(None)).await?;
    }
    refused.map_or(Ok(()), |error| Err(error.with("step", "AUTH")))
}

/// User and password for the server, where the url names either.
pub(super) fn credentials(addr: &NodeAddr) -> Option<(Option<&str>, &str)> {
    let password = addr.password().map_or("", Secret::expose);
    (addr.user().is_some() || !password.is_empty()).then_some((addr.user(), password))
}

/// Sends one command of the greeting; answers what the server had against it.
pub(super) async fn ask(
    addr: &NodeAddr,
    conn: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Option<Error>> {
    match conn.send_packed_command(command).await {
        Ok(Value::ServerError(error)) => Ok(Some(server_error(addr, &error))),
        Ok(_) => Ok(None),
        Err(error) => Err(exchange_error(addr, error)),
    }
}
