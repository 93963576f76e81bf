//! What a store asks of one server. Keys are whole, as stored.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::{join, join_all};
use redis::Value;

#[cfg(feature = "ring")]
use super::NodeAddr;
use super::command::{integer, millis, stored, storing, text, unlink};
use super::connection::Reading;
use super::line::Line;
use super::reclaim::Reclaim;
#[cfg(feature = "ring")]
use super::replay::Replay;
use super::reply::code;
use super::script::{ADD, LEFT, REMOVE, RETIME, RETRACT, is_unknown};
use super::settings::{Published, Share};
use super::target::Target;
use super::{Connection, ConnectionSettings};
use crate::coherence::Origin;
use crate::core::Core;
use crate::entry::{Draft, Stored, When};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Cell, Cells, random};
use crate::ttl::Remaining;

/// How things stand with one server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The server, as `host:port/db`.
    pub label: String,
    /// Whether it is known to be up. One that was not used yet is not.
    pub up: bool,
    /// Operations that it did not answer in time.
    pub timeouts: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Reads that were sent a second time, after the connection broke or the server said that it was loading.
    pub retries: u64,
    /// Operations that failed at once because too many were under way.
    pub refused: u64,
    /// Keys whose write failed. They are deleted before the node counts as up again.
    pub owed: usize,
}

impl NodeStatus {
    /// One that is not up, and of which nothing else is known.
    pub(crate) fn of(label: String) -> Self {
        Self {
            label,
            up: false,
            timeouts: 0,
            reconnects: 0,
            retries: 0,
            refused: 0,
            owed: 0,
        }
    }
}

/// What a node owes. It outlives the node's connections.
#[cfg(feature = "ring")]
#[derive(Debug)]
pub(crate) struct Debts(Vec<Arc<Replay>>);

#[cfg(feature = "ring")]
impl Debts {
    /// Whether nothing is owed.
    pub(crate) fn are_none(&self) -> bool {
        self.0.iter().all(|replay| replay.debts() == (0, false))
    }
}

/// One server as a place for entries.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Several by choice. A key always takes the same one, or its `SET` and `DEL` could change places.
    pub(super) connections: Arc<[Connection]>,
    /// On which it tells of its writes, if there is somebody to tell.
    line: Option<Arc<Line>>,
    /// What is known of the node's generations.
    pub(super) marks: Arc<Cells>,
    pub(super) last_namespace: Arc<ArcSwapOption<(String, Arc<Cell>)>>,
    pub(super) reclaim: Arc<Reclaim>,
}

impl Node {
    pub(crate) fn new(target: impl Into<Target>, settings: &ConnectionSettings) -> Self {
        let target = target.into();
        Self::of(&target, settings, |_, settings| {
            Connection::new(target.clone(), settings)
        })
    }

    /// A server that was known before, by other means or after a while. What it owes, it owes still.
    #[cfg(feature = "ring")]
    pub(crate) fn indebted(addr: NodeAddr, settings: &ConnectionSettings, debts: Debts) -> Self {
        let target = Target::from(addr);
        Self::of(&target, settings, |index, settings| {
            match debts.0.get(index) {
                Some(replay) => {
                    Connection::owing_what(Arc::clone(replay), target.clone(), settings)
                }
                None => Connection::new(target.clone(), settings),
            }
        })
    }

    /// What it owes, now and from what is under way.
    #[cfg(feature = "ring")]
    pub(crate) fn debts(&self) -> Debts {
        Debts(self.connections.iter().map(Connection::replay).collect())
    }

    fn of(
        target: &Target,
        settings: &ConnectionSettings,
        connection: impl Fn(usize, ConnectionSettings) -> Connection,
    ) -> Self {
        let of = settings.connections.max(1);
        let marks = Arc::<Cells>::default();
        let line = Line::new(target, settings, &marks).map(Arc::new);
        let weak = line.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let published = Published::new(move |place| {
            if let Some(line) = weak.upgrade() {
                line.node_is_at(place);
            }
        });
        let connection = |index| {
            let share = Share { index, of };
            let settings = ConnectionSettings {
                share,
                published: Some(published.clone()),
                ..settings.clone()
            };
            connection(index, settings)
        };
        Self {
            connections: (0..of).map(connection).collect(),
            line,
            marks,
            last_namespace: Arc::default(),
            reclaim: Arc::default(),
        }
    }

    /// Listens to writes of others, or does not, as the subscribers of the store want it now.
    pub(crate) fn follow(&self) {
        if let Some(line) = &self.line {
            line.follow();
        }
    }

    /// Where a read of a key that begins now gets its answer, in a ring's view.
    pub(crate) fn origin(&self, key: &str, view: u32) -> Origin {
        let Some(line) = &self.line else {
            return Origin::UNHEARD;
        };
        line.origin(self.connection(key).place(), view)
    }

    /// The view of the ring that copies of this node's values are of.
    #[cfg(feature = "ring")]
    pub(crate) fn set_view(&self, view: u32) {
        if let Some(line) = &self.line {
            line.set_view(view);
        }
    }

    /// The connection that a key takes.
    pub(crate) fn connection(&self, key: &str) -> &Connection {
        &self.connections[self.place(key)]
    }

    pub(super) fn place(&self, key: &str) -> usize {
        Share::index_of(key.as_bytes(), self.connections.len())
    }

    /// Begins to connect, and waits for nothing.
    pub(crate) fn start(&self) -> Result<()> {
        self.connections.iter().try_for_each(Connection::start)
    }

    /// Waits for the first attempts to connect.
    pub(crate) async fn ready(&self) -> Result<()> {
        let ready = join_all(self.connections.iter().map(Connection::ready)).await;
        ready.into_iter().collect()
    }

    /// Closes all connections in good order.
    pub(crate) async fn shutdown(&self) {
        let connections = join_all(self.connections.iter().map(Connection::shutdown));
        let line = async {
            if let Some(line) = &self.line {
                line.shutdown().await;
            }
        };
        join(connections, line).await;
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let mut status = NodeStatus::of(self.label().to_owned());
        status.up = self.connections.iter().all(Connection::is_up);
        for counters in self.connections.iter().map(Connection::counters) {
            status.timeouts += counters.timeouts;
            status.reconnects += counters.reconnects;
            status.retries += counters.retries;
            status.refused += counters.refused;
            status.owed += counters.owed;
        }
        status
    }

    /// The number of its database.
    #[cfg(feature = "ring")]
    pub(crate) fn db(&self) -> i64 {
        match self.connections[0].target() {
            Target::Node(addr) => i64::from(addr.db()),
            Target::InTurn(_) | Target::Sentinel { .. } => 0,
        }
    }

    /// What may be shown of its address.
    pub(crate) fn label(&self) -> &str {
        self.connections[0].label()
    }

    /// Whether it is the server at this address, with these credentials.
    #[cfg(feature = "ring")]
    pub(crate) fn leads_to(&self, addr: &NodeAddr) -> bool {
        matches!(self.connections[0].target(), Target::Node(own) if own == addr)
    }

    pub(crate) async fn store(&self, core: &Core, key: &str, draft: &Draft) -> Result<Stored> {
        let connection = self.connection(key);
        let store = async {
            let Some(storing) = storing(core, key, draft)? else {
                if draft.when == When::IfAbsent && self.contains(key).await? {
                    return Ok(Stored::Present);
                }
                if draft.computed {
                    // What is over by now must not take away what came meanwhile.
                    return Ok(Stored::Outrun);
                }
                let _: i64 = connection.run("unlink", &unlink(&[key])).await?;
                return Ok(Stored::Done);
            };
            let reply = match connection.run("set", &storing.command(true, key)).await {
                Err(error) if is_unknown(&error) => {
                    connection.run("set", &storing.command(false, key)).await
                }
                reply => reply,
            };
            stored(&reply?).ok_or_else(|| strange(connection, "set"))
        };
        if draft.replaces() {
            connection.owing(&[key], store, |_| true).await
        } else if draft.when == When::IfAbsent {
            connection.paying(key, store).await
        } else {
            store.await
        }
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<bool> {
        let (connection, keys) = (self.connection(key), [key]);
        let removed = connection.owing(&keys, removed(connection, &keys), |_| true);
        removed
            .await?
            .pop()
            .ok_or_else(|| strange(connection, "unlink"))
    }

    /// Removes a key if these very bytes stand there, in one step.
    pub(crate) async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        let Some(bytes) = &draft.sealed else {
            return self.remove(key).await;
        };
        let (connection, keys) = (self.connection(key), [key]);
        let retracted = async {
            let reply = RETRACT.run(connection, "retract", &keys, |command| {
                command.arg(&**bytes);
            });
            integer(&reply.await?).ok_or_else(|| strange(connection, "retract"))
        };
        // What it leaves in place may be what an earlier delete was to remove.
        let removed = connection.owing(&keys, retracted, |removed| *removed > 0);
        match removed.await {
            Ok(removed) => Ok(removed > 0),
            // Without the right to run scripts: rather a value lost than one that should be gone.
            Err(error) if code(&error) == Some("NOPERM") => self.remove(key).await,
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn contains(&self, key: &str) -> Result<bool> {
        Ok(self.remaining(key).await?.is_some())
    }

    pub(crate) async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        let connection = self.connection(key);
        if connection.owes(key) {
            return Ok(None);
        }
        let left = LEFT
            .run(&Reading(connection), "pttl", &[key], |_| ())
            .await?;
        let left = integer(&left).ok_or_else(|| strange(connection, "pttl"))?;
        Ok(match u64::try_from(left) {
            Ok(left) => Some(Remaining::For(Duration::from_millis(left))),
            Err(_) if left == -1 => Some(Remaining::Forever),
            Err(_) => None,
        })
    }

    pub(crate) async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        let (connection, keys) = (self.connection(key), [key]);
        let life = match ttl {
            Some(ttl) if ttl.is_zero() => return self.remove(key).await,
            Some(ttl) => millis(ttl).to_string(),
            None => String::new(),
        };
        let done = RETIME.run(connection, "pexpire", &keys, |command| {
            command.arg(&life);
        });
        let done = connection.paying(key, done).await?;
        integer(&done)
            .map(|done| done > 0)
            .ok_or_else(|| strange(connection, "pexpire"))
    }

    pub(crate) async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        let (connection, keys) = (self.connection(key), [key]);
        let sum = ADD.run(connection, "incrby", &keys, |command| {
            command.arg(by).arg(namespace).arg(&random().to_le_bytes());
        });
        let sum = connection.paying(key, sum).await;
        let sum = sum.map_err(|error: Error| {
            let kind = match code(&error) {
                Some("ERR") if error.message().contains("overflow") => ErrorKind::Overflow,
                Some("ERR") if error.message().contains("not an integer") => ErrorKind::NotACounter,
                Some("WRONGTYPE") => ErrorKind::NotACounter,
                _ => return error,
            };
            Error::new(kind, error.message()).with("node", connection.label())
        })?;
        text(&sum)
            .and_then(|sum| sum.parse().ok())
            .ok_or_else(|| strange(connection, "incrby"))
    }
}

/// Removes keys, and tells for each whether it held anything.
pub(super) async fn removed(connection: &Connection, keys: &[&str]) -> Result<Vec<bool>> {
    match REMOVE.run(connection, "unlink", keys, |_| ()).await {
        Ok(Value::Array(removed)) if removed.len() == keys.len() => Ok(removed
            .iter()
            .map(|removed| integer(removed).is_some_and(|removed| removed > 0))
            .collect()),
        Ok(_) => Err(strange(connection, "unlink")),
        // Without the right to run scripts nobody can tell.
        Err(error) if code(&error) == Some("NOPERM") => {
            let some: i64 = connection.run("unlink", &unlink(keys)).await?;
            Ok(vec![some > 0; keys.len()])
        }
        Err(error) => Err(error),
    }
}

pub(super) fn checked(
    connection: &Connection,
    operation: &'static str,
    reply: Value,
) -> Result<Value> {
    match reply {
        Value::ServerError(error) => Err(connection.server_error(operation, &error)),
        reply => Ok(reply),
    }
}

pub(super) fn strange(connection: &Connection, operation: &'static str) -> Error {
    let why = "the server's answer has another form than expected";
    Error::new(ErrorKind::Decode, why)
        .during(operation)
        .with("node", connection.label())
}
