//! What a store asks of one server. Keys are whole, as stored.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::time::Instant;

#[cfg(feature = "ring")]
use super::NodeAddr;
use super::command::{integer, millis, set, stored, unlink};
use super::line::Line;
use super::owing::batches;
#[cfg(feature = "ring")]
use super::replay::Replay;
use super::reply::code;
use super::scatter::scatter;
use super::settings::Share;
use super::target::Target;
use super::wipe::{is_final, wipe};
use super::{Connection, ConnectionSettings};
use crate::coherence::Origin;
use crate::core::Core;
use crate::entry::{Draft, Stored, When};
use crate::error::{Error, ErrorKind, Result};
use crate::ttl::Remaining;

/// Compares and removes. What is no string is not this value.
const RETRACT: &str = r"
if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0
";

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
        let connection = |index| {
            let share = Share { index, of };
            let settings = ConnectionSettings {
                share,
                ..settings.clone()
            };
            connection(index, settings)
        };
        Self {
            connections: (0..of).map(connection).collect(),
            line: Line::new(target, settings).map(Arc::new),
        }
    }

    /// Listens to writes of others, or does not, as the subscribers of the store want it now.
    pub(crate) fn follow(&self) {
        if let Some(line) = &self.line {
            line.follow();
        }
    }

    /// Where a read that begins now gets its answer, in a ring's view.
    pub(crate) fn origin(&self, view: u32) -> Origin {
        self.line
            .as_ref()
            .map_or(Origin::UNHEARD, |line| line.origin(view))
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
            let Some(set) = set(core, key, draft)? else {
                if draft.when == When::IfAbsent && self.contains(key).await? {
                    return Ok(Stored::Present);
                }
                let _: i64 = connection.run("unlink", &unlink(key)).await?;
                return Ok(Stored::Done);
            };
            let reply: Value = connection.run("set", &set).await?;
            Ok(stored(&reply))
        };
        if draft.replaces() {
            connection.owing(&[key], store, |_| true).await
        } else if draft.when == When::IfAbsent {
            connection.paying(key, store).await
        } else {
            store.await
        }
    }

    pub(crate) async fn store_many(
        &self,
        core: &Core,
        drafts: &[(String, Draft)],
    ) -> Vec<Result<Stored>> {
        let items = drafts.iter().map(|draft| (self.place(&draft.0), draft));
        let until = self.last_batch(core);
        scatter(
            items,
            self.connections.len(),
            |place, drafts: Vec<_>| async move {
                store_all(&self.connections[place], core, &drafts, until).await
            },
        )
        .answers()
        .await
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<bool> {
        let connection = self.connection(key);
        let unlink = unlink(key);
        let unlinked = connection.run("unlink", &unlink);
        let removed: i64 = connection.owing(&[key], unlinked, |_| true).await?;
        Ok(removed > 0)
    }

    /// Removes a key if these very bytes stand there, in one step.
    pub(crate) async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        let Some(bytes) = &draft.sealed else {
            return self.remove(key).await;
        };
        let connection = self.connection(key);
        let mut eval = cmd("EVAL");
        eval.arg(RETRACT).arg(1).arg(key).arg(&**bytes);
        let retracted = connection.run("retract", &eval);
        // What it leaves in place may be what an earlier delete was to remove.
        let removed: Result<i64> = connection
            .owing(&[key], retracted, |removed| *removed > 0)
            .await;
        match removed {
            Ok(removed) => Ok(removed > 0),
            // Without the right to run scripts: rather a value lost than one that should be gone.
            Err(error) if code(&error) == Some("NOPERM") => self.remove(key).await,
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn remove_many(&self, core: &Core, keys: &[&str]) -> Vec<Result<bool>> {
        let items = keys.iter().map(|key| (self.place(key), *key));
        let until = self.last_batch(core);
        scatter(
            items,
            self.connections.len(),
            |place, keys: Vec<&str>| async move {
                remove_all(&self.connections[place], &keys, until).await
            },
        )
        .answers()
        .await
    }

    /// When a bulk call begins its last batch at the latest, so that it ends within the bound on a call of the store: past
    /// that the answers of all nodes would be lost for one that is slow.
    pub(super) fn last_batch(&self, core: &Core) -> Instant {
        let one = 2 * self.connections[0].operation_timeout();
        Instant::now() + core.settings().store_timeout.saturating_sub(one).max(one)
    }

    pub(crate) async fn contains(&self, key: &str) -> Result<bool> {
        let connection = self.connection(key);
        if connection.owes(key) {
            return Ok(false);
        }
        let there: i64 = connection.read("exists", cmd("EXISTS").arg(key)).await?;
        Ok(there > 0)
    }

    pub(crate) async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        let connection = self.connection(key);
        if connection.owes(key) {
            return Ok(None);
        }
        let left: i64 = connection.read("pttl", cmd("PTTL").arg(key)).await?;
        Ok(match u64::try_from(left) {
            Ok(left) => Some(Remaining::For(Duration::from_millis(left))),
            Err(_) if left == -1 => Some(Remaining::Forever),
            Err(_) => None,
        })
    }

    pub(crate) async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        let connection = self.connection(key);
        match ttl {
            Some(ttl) if ttl.is_zero() => self.remove(key).await,
            Some(ttl) => {
                let mut expire = cmd("PEXPIRE");
                expire.arg(key).arg(millis(ttl));
                let done = connection.run::<i64>("pexpire", &expire);
                Ok(connection.paying(key, done).await? > 0)
            }
            None => {
                // PERSIST alone answers alike for a key without a deadline and for none.
                let mut both = redis::pipe();
                both.atomic().cmd("PERSIST").arg(key).cmd("EXISTS").arg(key);
                let done = connection.run_pipeline("persist", &both);
                let there = connection.paying(key, done).await?.pop();
                let there = checked(connection, "persist", there.unwrap_or(Value::Nil))?;
                integer(&there)
                    .map(|n| n > 0)
                    .ok_or_else(|| strange(connection, "persist"))
            }
        }
    }

    pub(crate) async fn add_to(&self, key: &str, by: i64) -> Result<i64> {
        let connection = self.connection(key);
        let mut incr = cmd("INCRBY");
        incr.arg(key).arg(by);
        let sum = connection.run("incrby", &incr);
        let sum = connection.paying(key, sum).await;
        sum.map_err(|error: Error| {
            let kind = match code(&error) {
                Some("ERR") if error.message().contains("overflow") => ErrorKind::Overflow,
                Some("ERR") if error.message().contains("not an integer") => ErrorKind::NotACounter,
                Some("WRONGTYPE") => ErrorKind::NotACounter,
                _ => return error,
            };
            Error::new(kind, error.message()).with("node", connection.label())
        })
    }

    /// Removes every key that begins with `prefix`, but none that is to be spared. What could not be removed is, before the
    /// node counts as up again, unless it never will be.
    pub(crate) async fn wipe(&self, prefix: &str) -> Result<()> {
        let connection = &self.connections[0];
        let wipe = async {
            // A value that is still on its way through another connection would come after its removal.
            let (ping, others) = (cmd("PING"), self.connections[1..].iter());
            let pings = others.map(|other| other.run::<Value>("ping", &ping));
            join_all(pings)
                .await
                .into_iter()
                .collect::<Result<Vec<_>>>()?;
            wipe(connection, prefix, |key| connection.may_wipe(key)).await
        };
        let wiped = wipe.await;
        if wiped
            .as_ref()
            .is_err_and(|error| error.kind() != ErrorKind::Busy && !is_final(error))
        {
            self.owe_all(prefix);
        }
        wiped
    }

    /// Everything under `prefix` is removed before the node is used, or used again.
    pub(crate) fn owe_all(&self, prefix: &str) {
        self.connections
            .iter()
            .for_each(|connection| connection.owe_all(prefix));
    }

    /// A key is owed a delete, as if one had failed.
    #[cfg(feature = "ring")]
    pub(crate) fn owe(&self, key: &str) {
        self.connection(key).owe([key]);
    }

    /// Removes keys without a word about what becomes of it: nothing is owed if it fails.
    #[cfg(feature = "ring")]
    pub(crate) async fn forget(&self, keys: &[&str]) {
        let mut shares = vec![Vec::new(); self.connections.len()];
        for key in keys {
            shares[self.place(key)].push(*key);
        }
        let shares = self.connections.iter().zip(&shares);
        let forget = shares.map(|(connection, keys)| async move {
            for range in batches(keys.len()) {
                let mut unlink = cmd("UNLINK");
                unlink.arg(&keys[range]);
                if connection.run::<i64>("unlink", &unlink).await.is_err() {
                    break;
                }
            }
        });
        join_all(forget).await;
    }
}

/// Stores drafts a batch at a time, none of which begins after `until`.
async fn store_all(
    connection: &Connection,
    core: &Core,
    drafts: &[&(String, Draft)],
    until: Instant,
) -> Vec<Result<Stored>> {
    let store = |range: Range<usize>| {
        let command = |(key, draft): &&(String, Draft)| {
            set(core, key, draft).map(|set| set.unwrap_or_else(|| unlink(key)))
        };
        let commands = drafts[range].iter().map(command).collect();
        each(connection, "set", commands, |reply| Some(stored(&reply)))
    };
    if drafts.iter().all(|(_, draft)| draft.replaces()) {
        let keys: Vec<&str> = drafts.iter().map(|(key, _)| key.as_str()).collect();
        return connection.owing_each(&keys, until, store).await;
    }
    let mut answers = Vec::with_capacity(drafts.len());
    for range in batches(drafts.len()).take_while(|_| Instant::now() < until) {
        answers.extend(store(range).await);
    }
    answers.resize_with(drafts.len(), || Err(connection.too_late("set")));
    answers
}

async fn remove_all(connection: &Connection, keys: &[&str], until: Instant) -> Vec<Result<bool>> {
    let remove = |range: Range<usize>| {
        let commands = keys[range].iter().map(|key| Ok(unlink(key))).collect();
        each(connection, "unlink", commands, |reply| {
            integer(&reply).map(|n| n > 0)
        })
    };
    connection.owing_each(keys, until, remove).await
}

/// Sends commands in one go and answers for each of them.
async fn each<R>(
    connection: &Connection,
    operation: &'static str,
    commands: Vec<Result<Cmd>>,
    read: impl Fn(Value) -> Option<R>,
) -> Vec<Result<R>> {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    commands.iter().flatten().for_each(|command| {
        pipeline.add_command(command.clone());
    });
    let sent = connection.run_pipeline(operation, &pipeline).await;
    let mut replies = sent.map(Vec::into_iter);
    let answer = |command: Result<Cmd>| {
        command?;
        match &mut replies {
            Ok(replies) => {
                let reply = checked(connection, operation, replies.next().unwrap_or(Value::Nil))?;
                read(reply).ok_or_else(|| strange(connection, operation))
            }
            Err(error) => Err(error.clone()),
        }
    };
    commands.into_iter().map(answer).collect()
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
