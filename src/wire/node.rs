//! What a store asks of one server. Keys are whole, as stored.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value, cmd};

use super::{Connection, ConnectionSettings, NodeAddr};
use crate::clock::Moment;
use crate::core::Core;
use crate::entry::{Answer, Draft, Stored, Want, When};
use crate::error::{Error, ErrorKind, Result};
use crate::key::RESERVED;
use crate::refusal::Refusal;
use crate::ttl::Remaining;

/// Keys in one `MGET`, and found by one `SCAN`: a server does nothing else meanwhile.
const BATCH: usize = 1000;

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
}

/// One server as a place for entries.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    connection: Connection,
}

impl Node {
    pub(crate) fn new(addr: NodeAddr, settings: ConnectionSettings) -> Self {
        Self {
            connection: Connection::new(addr, settings),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let counters = self.connection.counters();
        NodeStatus {
            label: self.connection.addr().label(),
            up: self.connection.is_up(),
            timeouts: counters.timeouts,
            reconnects: counters.reconnects,
        }
    }

    pub(crate) async fn fetch(&self, core: &Core, key: &str, want: Want) -> Result<Answer> {
        let now = core.now();
        if !want.deadline {
            let reply = self.connection.run("get", cmd("GET").arg(key)).await;
            return self.entry(core, key, want, reply, Moment::NEVER, now);
        }
        // Together, or the deadline might be that of another value than was read.
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("GET").arg(key).cmd("PTTL").arg(key);
        let mut replies = self.connection.run_pipeline("get", &pipeline).await?;
        let deadline = deadline(replies.pop(), now);
        let reply = replies.pop().unwrap_or(Value::Nil);
        self.entry(core, key, want, self.checked("get", reply), deadline, now)
    }

    pub(crate) async fn fetch_many(
        &self,
        core: &Core,
        keys: &[&str],
        want: Want,
    ) -> Vec<Result<Answer>> {
        if let [key] = keys {
            return vec![self.fetch(core, key, want).await];
        }
        let mut answers = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            match self.read_many(core, keys, want).await {
                Ok(entries) => answers.extend(entries),
                Err(error) => answers.extend(keys.iter().map(|_| Err(error.clone()))),
            }
        }
        answers
    }

    async fn read_many(
        &self,
        core: &Core,
        keys: &[&str],
        want: Want,
    ) -> Result<Vec<Result<Answer>>> {
        let now = core.now();
        let mut mget = cmd("MGET");
        keys.iter().for_each(|key| {
            mget.arg(*key);
        });
        let (values, ttls) = if want.deadline {
            let mut pipeline = redis::pipe();
            pipeline.atomic().add_command(mget);
            keys.iter().for_each(|key| {
                pipeline.cmd("PTTL").arg(*key);
            });
            let mut replies = self
                .connection
                .run_pipeline("get", &pipeline)
                .await?
                .into_iter();
            let values = self.checked("get", replies.next().unwrap_or(Value::Nil))?;
            (values, replies.collect())
        } else {
            (self.connection.run("get", &mget).await?, Vec::new())
        };
        let Value::Array(values) = values else {
            return Err(self.strange("get"));
        };
        if values.len() != keys.len() {
            return Err(self.strange("get"));
        }
        let mut ttls = ttls.into_iter();
        let answers = keys.iter().zip(values).map(|(key, value)| {
            let deadline = if want.deadline {
                deadline(ttls.next(), now)
            } else {
                Moment::NEVER
            };
            self.entry(core, key, want, self.checked("get", value), deadline, now)
        });
        Ok(answers.collect())
    }

    /// The entry that a server's answer is. What is no value for this reader is a miss, counted.
    fn entry(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        reply: Result<Value>,
        deadline: Moment,
        now: Moment,
    ) -> Result<Answer> {
        let bytes = match reply {
            Ok(Value::Nil) => return Ok(Answer::default()),
            Ok(Value::BulkString(bytes)) => Bytes::from(bytes),
            Ok(_) => return Err(self.strange("get")),
            Err(error) => {
                let why = match error.kind() {
                    ErrorKind::TooLarge => Refusal::TooLarge,
                    _ if code(&error) == Some("WRONGTYPE") => Refusal::WrongType,
                    _ => return Err(error),
                };
                core.refuse(key, why);
                return Ok(Answer::refused(why));
            }
        };
        match core.format().open(key, &bytes, want.kind, now) {
            Ok(entry) => Ok(entry.with_deadline(deadline).into()),
            Err(why) => {
                core.refuse(key, why);
                Ok(Answer::refused(why))
            }
        }
    }

    pub(crate) async fn store(&self, core: &Core, key: &str, draft: &Draft) -> Result<Stored> {
        let Some(set) = set(core, key, draft)? else {
            if draft.when == When::IfAbsent && self.contains(key).await? {
                return Ok(Stored::Present);
            }
            return self.remove(key).await.map(|_| Stored::Done);
        };
        let reply: Value = self.connection.run("set", &set).await?;
        Ok(stored(&reply))
    }

    pub(crate) async fn store_many(
        &self,
        core: &Core,
        drafts: &[(String, Draft)],
    ) -> Vec<Result<Stored>> {
        let mut answers = Vec::with_capacity(drafts.len());
        for drafts in drafts.chunks(BATCH) {
            let commands = drafts.iter().map(|(key, draft)| {
                Ok(match set(core, key, draft)? {
                    Some(set) => set,
                    None => unlink(key),
                })
            });
            answers.extend(
                self.each("set", commands.collect(), |reply| Some(stored(&reply)))
                    .await,
            );
        }
        answers
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<bool> {
        let removed: i64 = self.connection.run("unlink", &unlink(key)).await?;
        Ok(removed > 0)
    }

    pub(crate) async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        let mut answers = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            let commands = keys.iter().map(|key| Ok(unlink(key))).collect();
            answers.extend(
                self.each("unlink", commands, |reply| integer(&reply).map(|n| n > 0))
                    .await,
            );
        }
        answers
    }

    /// Sends commands in one go and answers for each of them.
    async fn each<R>(
        &self,
        operation: &'static str,
        commands: Vec<Result<Cmd>>,
        read: impl Fn(Value) -> Option<R>,
    ) -> Vec<Result<R>> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        commands.iter().flatten().for_each(|command| {
            pipeline.add_command(command.clone());
        });
        let sent = self.connection.run_pipeline(operation, &pipeline).await;
        let mut replies = sent.map(Vec::into_iter);
        let answer = |command: Result<Cmd>| {
            command?;
            match &mut replies {
                Ok(replies) => {
                    let reply = self.checked(operation, replies.next().unwrap_or(Value::Nil))?;
                    read(reply).ok_or_else(|| self.strange(operation))
                }
                Err(error) => Err(error.clone()),
            }
        };
        commands.into_iter().map(answer).collect()
    }

    pub(crate) async fn contains(&self, key: &str) -> Result<bool> {
        let there: i64 = self
            .connection
            .run("exists", cmd("EXISTS").arg(key))
            .await?;
        Ok(there > 0)
    }

    pub(crate) async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        let left: i64 = self.connection.run("pttl", cmd("PTTL").arg(key)).await?;
        Ok(match u64::try_from(left) {
            Ok(left) => Some(Remaining::For(Duration::from_millis(left))),
            Err(_) if left == -1 => Some(Remaining::Forever),
            Err(_) => None,
        })
    }

    pub(crate) async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        match ttl {
            Some(ttl) if ttl.is_zero() => self.remove(key).await,
            Some(ttl) => {
                let done: i64 = self
                    .connection
                    .run("pexpire", cmd("PEXPIRE").arg(key).arg(millis(ttl)))
                    .await?;
                Ok(done > 0)
            }
            None => {
                // PERSIST alone answers alike for a key without a deadline and for none.
                let mut pipeline = redis::pipe();
                pipeline
                    .atomic()
                    .cmd("PERSIST")
                    .arg(key)
                    .cmd("EXISTS")
                    .arg(key);
                let there = self
                    .connection
                    .run_pipeline("persist", &pipeline)
                    .await?
                    .pop();
                let there = self.checked("persist", there.unwrap_or(Value::Nil))?;
                integer(&there)
                    .map(|n| n > 0)
                    .ok_or_else(|| self.strange("persist"))
            }
        }
    }

    pub(crate) async fn add_to(&self, key: &str, by: i64) -> Result<i64> {
        let sum = self
            .connection
            .run("incrby", cmd("INCRBY").arg(key).arg(by))
            .await;
        sum.map_err(|error: Error| {
            let kind = match code(&error) {
                Some("ERR") if error.message().contains("overflow") => ErrorKind::Overflow,
                Some("ERR") if error.message().contains("not an integer") => ErrorKind::NotACounter,
                Some("WRONGTYPE") => ErrorKind::NotACounter,
                _ => return error,
            };
            Error::new(kind, error.message()).with("node", self.connection.addr().label())
        })
    }

    /// Removes every key that begins with `prefix`, but none that is reserved.
    pub(crate) async fn wipe(&self, prefix: &str) -> Result<()> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor);
            if !prefix.is_empty() {
                scan.arg("MATCH").arg(pattern(prefix));
            }
            scan.arg("COUNT").arg(BATCH);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.connection.run("scan", &scan).await?;
            let reserved =
                |key: &Vec<u8>| RESERVED.iter().any(|name| key.starts_with(name.as_bytes()));
            let keys: Vec<_> = keys.into_iter().filter(|key| !reserved(key)).collect();
            for keys in keys.chunks(BATCH) {
                let mut unlink = cmd("UNLINK");
                unlink.arg(keys);
                let _: i64 = self.connection.run("unlink", &unlink).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    fn checked(&self, operation: &'static str, reply: Value) -> Result<Value> {
        match reply {
            Value::ServerError(error) => Err(self.connection.server_error(operation, &error)),
            reply => Ok(reply),
        }
    }

    fn strange(&self, operation: &'static str) -> Error {
        Error::new(
            ErrorKind::Decode,
            "the server's answer has another form than expected",
        )
        .during(operation)
        .with("node", self.connection.addr().label())
    }
}

/// The command that stores a draft, or none if its life is over already.
fn set(core: &Core, key: &str, draft: &Draft) -> Result<Option<Cmd>> {
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
fn stored(reply: &Value) -> Stored {
    match reply {
        Value::Nil => Stored::Present,
        _ => Stored::Done,
    }
}

fn unlink(key: &str) -> Cmd {
    let mut unlink = cmd("UNLINK");
    unlink.arg(key);
    unlink
}

/// Rounded up: Redis refuses 0, and a life must not be shorter than asked for.
fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// When the entry ends whose `PTTL` was asked at `asked`, counted from before the question. An entry in its last
/// millisecond is an answer still, but no copy of it is kept.
fn deadline(reply: Option<Value>, asked: Moment) -> Moment {
    match reply.as_ref().and_then(integer) {
        Some(-1) => Moment::NEVER,
        Some(left) => asked.after(Duration::from_millis(u64::try_from(left).unwrap_or(0))),
        None => asked,
    }
}

fn integer(reply: &Value) -> Option<i64> {
    match reply {
        Value::Int(integer) => Some(*integer),
        _ => None,
    }
}

fn code(error: &Error) -> Option<&str> {
    error
        .context()
        .find(|(name, _)| *name == "code")
        .map(|(_, code)| code)
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
