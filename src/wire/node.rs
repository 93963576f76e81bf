//! What a store asks of one server. Keys are whole, as stored.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::{join, join_all};
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::time::Instant;

#[cfg(feature = "ring")]
use super::NodeAddr;
use super::command::{integer, millis, stored, storing, text, unlink};
use super::connection::Reading;
use super::line::Line;
use super::marks::of_tag;
use super::owing::batches;
use super::reclaim::{Reclaim, sweep, wipe_tokens};
#[cfg(feature = "ring")]
use super::replay::Replay;
use super::reply::code;
use super::scatter::scatter;
use super::script::{
    ADD, BEGIN, CLEAR, CLEARED, INVALIDATE, LEFT, REMOVE, RETIME, RETRACT, is_unknown,
};
use super::settings::Share;
use super::target::Target;
use super::wipe::{is_final, is_reserved};
use super::{Connection, ConnectionSettings};
use crate::coherence::Origin;
use crate::core::Core;
use crate::entry::{Draft, Noted, Stored, Ticket, When};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Cell, Cells, random};
use crate::ttl::Remaining;

/// How long a compute may take whose value is stored. Milliseconds.
const LONGEST_COMPUTE: u64 = 15 * 60 * 1000;

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
        let connection = |index| {
            let share = Share { index, of };
            let settings = ConnectionSettings {
                share,
                ..settings.clone()
            };
            connection(index, settings)
        };
        let marks = Arc::<Cells>::default();
        Self {
            connections: (0..of).map(connection).collect(),
            line: Line::new(target, settings, &marks).map(Arc::new),
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
            let Some(storing) = storing(core, key, draft)? else {
                if draft.when == When::IfAbsent && self.contains(key).await? {
                    return Ok(Stored::Present);
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

    /// Notes how things stand with keys that are computed next.
    pub(crate) async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Result<Ticket>> {
        let items = keys.iter().map(|key| (self.place(key), *key));
        let begun = scatter(
            items,
            self.connections.len(),
            |place, keys: Vec<&str>| async move {
                let mut tickets = Vec::with_capacity(keys.len());
                for range in batches(keys.len()) {
                    tickets
                        .extend(begin_all(&self.connections[place], &keys[range], namespace).await);
                }
                tickets
            },
        );
        begun.answers().await
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

    /// Makes every key that begins with `prefix` nothing, but none that is to be spared. What could not be is removed, before
    /// the node counts as up again, unless it never will be.
    ///
    /// One step, whatever it covers: the generation of the namespace changes, and the space is taken back later. Values
    /// without marks are looked for first.
    pub(crate) async fn wipe(&self, prefix: &str) -> Result<()> {
        self.forget_namespace(prefix);
        let wiped = self.cleared(prefix).await;
        self.forget_namespace(prefix);
        if wiped
            .as_ref()
            .is_err_and(|error| error.kind() != ErrorKind::Busy && !is_final(error))
        {
            self.owe_all(prefix);
        }
        wiped
    }

    async fn cleared(&self, prefix: &str) -> Result<()> {
        let connection = &self.connections[0];
        // A value that is still on its way through another connection would come after its removal.
        let (ping, others) = (cmd("PING"), self.connections[1..].iter());
        let pings = others.map(|other| other.run::<Value>("ping", &ping));
        join_all(pings)
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let word = format!("c{:016x}", random());
        let look = CLEAR.run(connection, "clear", &[], |command| {
            command.arg(prefix).arg(&random().to_le_bytes()).arg(&word);
        });
        if integer(&look.await?) != Some(0) {
            let chosen = |key: &[u8]| connection.may_wipe(key) && !is_reserved(key);
            sweep(connection, prefix, Some(prefix.len()), chosen).await?;
            wipe_tokens(connection, prefix).await?;
            CLEARED
                .run(connection, "clear", &[], |command| {
                    command.arg(prefix).arg(&word);
                })
                .await?;
        }
        self.reclaim(prefix);
        Ok(())
    }

    /// Makes every value with a tag nothing that a cache with this very prefix stored. If that fails it is owed, and until then
    /// they are nothing to this process.
    pub(crate) async fn invalidate(&self, namespace: &str, tag: &str) -> Result<()> {
        let name = of_tag(namespace, tag);
        self.marks.invalidate(&name);
        let connection = &self.connections[0];
        let debt = connection.owing_tag(namespace, tag);
        let told = INVALIDATE.run(connection, "invalidate", &[], |command| {
            invalidation(command, namespace, tag);
        });
        let told = told.await;
        self.marks.invalidate(&name);
        match told {
            Ok(_) => {
                debt.settle();
                self.reclaim_tagged(namespace);
                Ok(())
            }
            Err(error) => {
                if is_final(&error) {
                    debt.settle();
                }
                Err(error)
            }
        }
    }

    pub(super) fn owes_tag(&self, namespace: &str, tag: &str) -> bool {
        self.connections[0].owes_tag(namespace, tag)
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
                let unlink = unlink(&keys[range]);
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
    let store = |range: Range<usize>| async move {
        let drafts = &drafts[range];
        let mut answers = store_batch(connection, core, drafts, true).await;
        let unknown = |answer: &Result<Stored>| answer.as_ref().is_err_and(is_unknown);
        let again: Vec<usize> = (0..answers.len())
            .filter(|at| unknown(&answers[*at]))
            .collect();
        let some: Vec<_> = again.iter().map(|at| drafts[*at]).collect();
        let answered = store_batch(connection, core, &some, false).await;
        for (at, answer) in again.into_iter().zip(answered) {
            answers[at] = answer;
        }
        answers
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

/// Sends drafts in one go and answers for each of them.
async fn store_batch(
    connection: &Connection,
    core: &Core,
    drafts: &[&(String, Draft)],
    known: bool,
) -> Vec<Result<Stored>> {
    let command = |(key, draft): &&(String, Draft)| {
        let storing = storing(core, key, draft)?;
        Ok(storing.map_or_else(|| unlink(&[key]), |storing| storing.command(known, key)))
    };
    let commands: Vec<Result<Cmd>> = drafts.iter().map(command).collect();
    let mut pipeline = Pipeline::with_capacity(commands.len());
    commands.iter().flatten().for_each(|command| {
        pipeline.add_command(command.clone());
    });
    let sent = connection.run_pipeline("set", &pipeline).await;
    let mut replies = sent.map(Vec::into_iter);
    let answer = |command: Result<Cmd>| {
        command?;
        match &mut replies {
            Ok(replies) => {
                let reply = checked(connection, "set", replies.next().unwrap_or(Value::Nil))?;
                Ok(stored(&reply).unwrap_or(Stored::Done))
            }
            Err(error) => Err(error.clone()),
        }
    };
    commands.into_iter().map(answer).collect()
}

async fn begin_all(
    connection: &Connection,
    keys: &[&str],
    namespace: usize,
) -> Vec<Result<Ticket>> {
    let token = random().to_le_bytes();
    let begun = BEGIN.run(connection, "begin", keys, |command| {
        command.arg(namespace).arg(&random().to_le_bytes());
        command.arg(&token).arg(LONGEST_COMPUTE);
    });
    let ticket = |note: Value| match note {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(fingerprint), Value::Int(count)] => Some(Noted::Node {
                fingerprint: fingerprint.as_slice().into(),
                count: *count,
            }),
            _ => None,
        },
        _ => None,
    };
    match begun.await {
        Ok(Value::Array(notes)) if notes.len() == keys.len() => notes
            .into_iter()
            .map(|note| {
                let ticket = ticket(note).map(Ticket::from);
                ticket.ok_or_else(|| strange(connection, "begin"))
            })
            .collect(),
        Ok(_) => keys
            .iter()
            .map(|_| Err(strange(connection, "begin")))
            .collect(),
        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Removes keys, and tells for each whether it held anything.
async fn removed(connection: &Connection, keys: &[&str]) -> Result<Vec<bool>> {
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

async fn remove_all(connection: &Connection, keys: &[&str], until: Instant) -> Vec<Result<bool>> {
    let remove = |range: Range<usize>| async move {
        let keys = &keys[range];
        match removed(connection, keys).await {
            Ok(removed) => removed.into_iter().map(Ok).collect(),
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    };
    connection.owing_each(keys, until, remove).await
}

/// What the script is told, for a tag to be invalidated.
pub(super) fn invalidation(command: &mut Cmd, namespace: &str, tag: &str) {
    command.arg(namespace).arg(tag);
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
