//! Whether a server can be used as a node of a ring.

use std::time::{Duration, Instant};

use redis::{Value, cmd, pipe};

use super::Connection;
use super::node::Node;
use super::reply::code;
use crate::error::{Error, ErrorKind, Result};
use crate::generation::random;

/// What is written and read again: one key, so that a node never has more of them.
const KEY: &str = "__larder:probe";

/// For how long it stays, in milliseconds.
const LIFE: u32 = 10_000;

impl Node {
    /// Asks what a cache needs of a server: that it answers, is a master, and reads what was written a moment ago. A server that answers `PING` may
    /// be full, a replica, or loading.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`]; [`ErrorKind::Rejected`] where it is of no use.
    pub(crate) async fn probe(&self) -> Result<()> {
        let connection = &self.connections[0];
        // Its error says whether it lies here: no password where it should be, for one.
        connection.ready().await?;
        let pong: String = connection.run("ping", &cmd("PING")).await?;
        if pong != "PONG" {
            return Err(useless(
                connection,
                "it does not answer a PING as a Redis does",
            ));
        }
        match connection.run::<Vec<Value>>("role", &cmd("ROLE")).await {
            Ok(role) if is_master(&role) => {}
            Ok(_) => {
                return Err(useless(
                    connection,
                    "it is no master, so nothing can be written",
                ));
            }
            // Not allowed to be asked, or not known: what is written tells.
            Err(error) if code(&error) == Some("NOPERM") || code(&error) == Some("ERR") => {}
            Err(error) => return Err(error),
        }
        let word = format!("{:016x}", random());
        // In one step, since others may probe the node too.
        let mut both = pipe();
        both.atomic();
        both.cmd("SET").arg(KEY).arg(&word).arg("PX").arg(LIFE);
        both.cmd("GET").arg(KEY);
        let replies = connection.run_pipeline("probe", &both).await?;
        match replies.last() {
            Some(Value::BulkString(read)) if *read == word.as_bytes() => Ok(()),
            Some(Value::ServerError(error)) => Err(connection.server_error("probe", error)),
            _ => Err(useless(connection, "it does not read what was written")),
        }
    }

    /// How long a `PING` and its answer take.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`].
    pub(crate) async fn ping(&self) -> Result<Duration> {
        let connection = &self.connections[0];
        connection.ready().await?;
        let sent = Instant::now();
        let _: Value = connection.run("ping", &cmd("PING")).await?;
        Ok(sent.elapsed())
    }

    /// What the server says of itself, by name.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`].
    pub(crate) async fn info(&self) -> Result<Vec<(String, String)>> {
        let text: String = self.connections[0].run("info", &cmd("INFO")).await?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once(':'));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    /// Removes everything, the map of a ring excepted where it stands in the same database.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`].
    pub(crate) async fn empty(&self, spared: &[&str]) -> Result<()> {
        match self.holds_any(spared).await? {
            false => self.flush().await,
            true => self.wipe("").await,
        }
    }
}

fn is_master(role: &[Value]) -> bool {
    match role.first() {
        Some(Value::BulkString(role)) => role == b"master",
        Some(Value::SimpleString(role)) => role == "master",
        _ => false,
    }
}

fn useless(connection: &Connection, why: &'static str) -> Error {
    connection.named(Error::new(ErrorKind::Rejected, why), "probe")
}
