//! What stands under the keys of one server: read, and opened.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use bytes::Bytes;
use futures_util::future::join;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::Connection;
use super::ask::Answer as Joint;
use super::command::{deadline, integer};
use super::exchange::Joined;
use super::get::{Found, Got};
use super::names::namespace;
use super::node::{Node, checked, strange};
use super::owing::batches;
use super::reply::code;
use super::scatter::scatter;
use crate::clock::Moment;
use crate::codec::Marks;
use crate::core::Core;
use crate::entry::{Answer, Entry, Want};
use crate::error::{ErrorKind, Result};
use crate::generation::Record;
use crate::refusal::Refusal;
use crate::value::Value as Stored;

/// A get that goes with others to its node, of which it holds nothing meanwhile.
pub(crate) struct Joining {
    joined: Joined,
    since: Moment,
    /// What was known of the reader's namespace then.
    known: Record,
}

/// A get that came back with something else than a value or nothing.
pub(crate) struct Came {
    joining: Joining,
    with: Joint,
}

/// How far [`together`] got.
pub(crate) enum Together {
    Done(Result<Answer>),
    /// [`Node::fetch`] does the rest.
    Rest(Option<Box<Rest>>),
}

/// What [`together`] came to.
pub(crate) enum Rest {
    Came(Came),
    /// A value that only the node can judge.
    Opened(Opened),
}

/// Reads one key together with others, if `join` finds any on their way, and has it judged. Apart from [`Node::fetch`] because
/// nearly all reads of a busy store end here, and need a small future only.
pub(crate) async fn together(
    core: &Core,
    key: &str,
    want: Want,
    mut join: impl FnMut(&Waker) -> Option<Joining>,
    judge: impl FnOnce(Opened) -> Result<Answer, Box<Opened>>,
) -> Together {
    let Some(joining) = poll_fn(|cx| Poll::Ready(join(cx.waker()))).await else {
        return Together::Rest(None);
    };
    let (reply, pttl) = match joining.joined.answer().await {
        Joint::Got(Got {
            found: Found::Bytes(bytes),
            pttl,
        }) => (Some(bytes), pttl),
        Joint::Got(Got {
            found: Found::Nothing,
            pttl,
        }) => (None, pttl),
        with => return Together::Rest(Some(Box::new(Rest::Came(Came { joining, with })))),
    };
    let raw = Raw::new(Ok(reply), pttl, want, joining.since).knowing(joining.known);
    match raw.open(core, key, want) {
        Ok(opened) => match judge(opened) {
            Ok(answer) => Together::Done(Ok(answer)),
            Err(opened) => Together::Rest(Some(Box::new(Rest::Opened(*opened)))),
        },
        Err(error) => Together::Done(Err(error)),
    }
}

impl Node {
    /// Sends a key along with others that are on their way to this node, if there are any.
    pub(crate) fn join(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        waker: &Waker,
    ) -> Option<Joining> {
        let known = self.known_of(core, key, want)?;
        // Before the question: what is left of a life counts from here.
        let now = std::time::Instant::now();
        let connection = self.connection(key);
        let joined = connection.join(key, want.deadline, now.into(), waker)?;
        let since = core.settings().clock.at(now);
        Some(Joining {
            joined,
            since,
            known,
        })
    }

    /// Reads one key, or goes on with what [`together`] left.
    pub(crate) async fn fetch(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        rest: Option<Box<Rest>>,
    ) -> Result<Answer> {
        let connection = self.connection(key);
        let (got, since) = match rest.map(|rest| *rest) {
            Some(Rest::Opened(opened)) => return self.judge(core, key, want, opened).await,
            Some(Rest::Came(Came { joining, with })) => {
                let Joining { joined, since, .. } = joining;
                let got = connection.rejoined(key, want.deadline, &joined, with);
                (got.await?, since)
            }
            None => {
                let since = core.now();
                // At the same time, for what was read is judged by it.
                let known = self.know_namespace(core, key, want);
                let (got, ()) = join(connection.get(key, want.deadline), known).await;
                (got?, since)
            }
        };
        let reply = match got.found {
            Found::Nothing => Ok(None),
            Found::Bytes(bytes) => Ok(Some(bytes)),
            Found::Refused(error) => Err(connection.server_error("get", &error)),
            Found::Strange => return Err(strange(connection, "get")),
        };
        let opened = Raw::new(reply, got.pttl, want, since).open(core, key, want)?;
        self.judge(core, key, want, opened).await
    }

    pub(crate) async fn fetch_many(
        &self,
        core: &Core,
        keys: &[&str],
        want: Want,
    ) -> Vec<Result<Answer>> {
        if let [key] = keys {
            return vec![self.fetch(core, key, want, None).await];
        }
        let raw = self.read_many(core, keys, want).await;
        let opened = keys.iter().zip(raw);
        let opened = opened
            .map(|(key, raw)| raw?.open(core, key, want))
            .collect();
        self.judge_many(core, keys, want, opened).await
    }

    /// Judges what stands under many keys.
    pub(crate) async fn judge_many(
        &self,
        core: &Core,
        keys: &[&str],
        want: Want,
        opened: Vec<Result<Opened>>,
    ) -> Vec<Result<Answer>> {
        let mut answers = Vec::with_capacity(keys.len());
        for (key, opened) in keys.iter().zip(opened) {
            answers.push(match opened {
                // What was asked for one of them is known for the others.
                Ok(mut opened) => match opened.judged_at_once(want) {
                    Some(answer) => Ok(answer),
                    None => self.judge(core, key, want, opened).await,
                },
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// What stands under many keys, as it is. Whoever asks several nodes opens it when all have answered: while the others'
    /// answers come in, that would only get in their way.
    pub(crate) async fn read_many(
        &self,
        core: &Core,
        keys: &[&str],
        want: Want,
    ) -> Vec<Result<Raw>> {
        let Some(first) = keys.first() else {
            return Vec::new();
        };
        let known = self.known_of(core, first, want);
        // At the same time, for what was read is judged by it.
        let knowing = self.know_namespace(core, first, want);
        let (mut raw, ()) = join(self.read_each(core, keys, want), knowing).await;
        let Some(known) = known else { return raw };
        let space = namespace(first, want.namespace);
        for (key, raw) in keys.iter().zip(&mut raw) {
            if let Ok(raw) = raw
                && namespace(key, want.namespace) == space
            {
                raw.known = Some(known);
            }
        }
        raw
    }

    async fn read_each(&self, core: &Core, keys: &[&str], want: Want) -> Vec<Result<Raw>> {
        let until = self.last_batch(core);
        if let [connection] = &*self.connections {
            return read_all(connection, core, keys, want, until).await;
        }
        let items = keys.iter().map(|key| (self.place(key), *key));
        scatter(items, self.connections.len(), |place, keys| async move {
            read_all(&self.connections[place], core, &keys, want, until).await
        })
        .answers()
        .await
    }
}

async fn read_all(
    connection: &Connection,
    core: &Core,
    keys: &[&str],
    want: Want,
    until: Instant,
) -> Vec<Result<Raw>> {
    let mut all = Vec::with_capacity(keys.len());
    for range in batches(keys.len()).take_while(|_| Instant::now() < until) {
        let keys = &keys[range];
        if let Err(error) = read_batch(connection, core, keys, want, &mut all).await {
            all.extend(keys.iter().map(|_| Err(error.clone())));
        }
    }
    all.resize_with(keys.len(), || Err(connection.too_late("get")));
    all
}

/// Adds what stands under these keys, all of them or none.
async fn read_batch(
    connection: &Connection,
    core: &Core,
    keys: &[&str],
    want: Want,
    all: &mut Vec<Result<Raw>>,
) -> Result<()> {
    let now = core.now();
    let owed: Vec<bool> = keys.iter().map(|key| connection.owes(key)).collect();
    let bytes = keys.iter().map(|key| key.len()).sum();
    let mut mget = Cmd::with_capacity(keys.len() + 1, bytes);
    mget.arg("MGET");
    keys.iter().for_each(|key| {
        mget.arg(*key);
    });
    let (values, lives) = if want.deadline {
        let mut both = redis::pipe();
        both.add_command(mget);
        keys.iter().for_each(|key| {
            both.cmd("PTTL").arg(*key);
        });
        let replies = connection.read_pipeline("get", &both).await?;
        let mut replies = replies.into_iter();
        let values = checked(connection, "get", replies.next().unwrap_or(Value::Nil))?;
        (values, replies.collect())
    } else {
        (connection.read("get", &mget).await?, Vec::new())
    };
    let values = match values {
        Value::Array(values) if values.len() == keys.len() => values,
        _ => return Err(strange(connection, "get")),
    };
    let mut lives = lives.into_iter();
    all.extend(values.into_iter().zip(owed).map(|(value, owed)| {
        let reply = match checked(connection, "get", value) {
            // What should be gone is nothing.
            _ if owed => Ok(None),
            Ok(Value::Nil) => Ok(None),
            Ok(Value::BulkString(bytes)) => Ok(Some(bytes.into())),
            Ok(_) => Err(strange(connection, "get")),
            Err(error) => Err(error),
        };
        let pttl = lives.next().as_ref().and_then(integer);
        Ok(Raw::new(reply, pttl, want, now))
    }));
    Ok(())
}

/// What stands under a key, as the server answered.
pub(crate) struct Raw {
    reply: Result<Option<Bytes>>,
    deadline: Moment,
    now: Moment,
    /// What was known of the reader's namespace before it was asked for.
    known: Option<Record>,
}

impl Raw {
    /// The answer to a question of `now`.
    fn new(reply: Result<Option<Bytes>>, pttl: Option<i64>, want: Want, now: Moment) -> Self {
        let deadline = if want.deadline {
            deadline(pttl, now)
        } else {
            Moment::NEVER
        };
        Self {
            reply,
            deadline,
            now,
            known: None,
        }
    }

    /// With what was known of the reader's namespace before it was asked for.
    fn knowing(self, known: Record) -> Self {
        Self {
            known: Some(known),
            ..self
        }
    }

    /// The entry that it is, with what it carries to be judged by. What is no value for this reader is a miss, counted.
    pub(crate) fn open(self, core: &Core, key: &str, want: Want) -> Result<Opened> {
        let bytes = match self.reply {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Opened::default()),
            Err(error) => {
                let why = match error.kind() {
                    ErrorKind::TooLarge => Refusal::TooLarge,
                    _ if code(&error) == Some("WRONGTYPE") => Refusal::WrongType,
                    _ => return Err(error),
                };
                return Ok(Opened::refused(core, key, why));
            }
        };
        let format = core.format();
        let opened = format.marks(&bytes).and_then(|(rest, marks)| {
            let entry = match want.kind {
                Some(kind) => format.read(key, rest, kind, self.now)?,
                None => Entry::new(Stored::encoded(bytes.slice_ref(rest)), self.now, None),
            };
            Ok((entry, marks))
        });
        Ok(match opened {
            Ok((entry, marks)) => Opened {
                answer: entry.with_deadline(self.deadline).into(),
                plain: marks.is_none(),
                marks,
                since: Some(self.now),
                known: self.known,
            },
            Err(why) => Opened::refused(core, key, why),
        })
    }
}

/// What was found under a key.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(super) answer: Answer,
    pub(super) marks: Option<Marks>,
    /// A value without marks.
    pub(super) plain: bool,
    /// When it was asked for; nothing for what needs no judging.
    pub(super) since: Option<Moment>,
    /// What was known of the reader's namespace before that. A value of its generation is judged by it, as fresh as it is.
    pub(super) known: Option<Record>,
}

impl Opened {
    fn refused(core: &Core, key: &str, why: Refusal) -> Self {
        core.refuse(key, why);
        Self {
            answer: Answer::refused(why),
            ..Self::default()
        }
    }
}
