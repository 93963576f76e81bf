//! Reads of many keys of one server.

use std::iter::Flatten;
use std::vec;

use futures_util::future::join;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::Connection;
use super::command::integer;
use super::names::namespace;
use super::node::{Node, checked, strange};
use super::opened::{Opener, Raw, lacks_life};
use super::owing::batches;
use super::scatter::scatter;
use crate::clock::Moment;
use crate::core::Core;
use crate::entry::{Answer, Want};
use crate::error::{Error, Result};
use crate::generation::Record;

impl Node {
    pub(crate) async fn fetch_many(
        &self,
        core: &Core,
        keys: &[&str],
        want: Want,
    ) -> Vec<Result<Answer>> {
        if let [key] = keys {
            return vec![self.fetch(core, key, want, None).await];
        }
        let (opener, reads) = (Opener::new(core, want), self.read_many(core, keys, want));
        let mut answers = Vec::with_capacity(keys.len());
        for (key, raw) in keys.iter().zip(reads.await) {
            answers.push(match raw.and_then(|raw| opener.open(key, raw)) {
                Ok(Ok(answer)) => Ok(answer),
                // What is asked for one of them is known for the others.
                Ok(Err(opened)) => self.judge(core, key, want, opened).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// What stands under many keys, as it is. Whoever asks several nodes opens it when all have answered: while the others'
    /// answers come in, that would only get in their way.
    pub(crate) async fn read_many(&self, core: &Core, keys: &[&str], want: Want) -> Reads {
        let Some(first) = keys.first() else {
            return Vec::new().into();
        };
        let space = namespace(first, want.namespace);
        let alike = |key: &&str| namespace(key, want.namespace) == space;
        let known = self.known_of(core, first, want);
        // At the same time, for what was read is judged by it.
        let knowing = self.know_namespace(core, first, want);
        let (mut reads, ()) = join(self.read_each(core, keys, want), knowing).await;
        reads.known = known.filter(|_| want.namespace == 0 || keys.iter().all(alike));
        reads
    }

    async fn read_each(&self, core: &Core, keys: &[&str], want: Want) -> Reads {
        let until = self.last_batch(core);
        if let [connection] = &*self.connections {
            return read_all(connection, keys, want, core, until).await;
        }
        let items = keys.iter().map(|key| (self.place(key), *key));
        let asked = scatter(items, self.connections.len(), |place, keys| async move {
            read_all(&self.connections[place], &keys, want, core, until).await
        });
        asked.answers().await.into()
    }
}

/// Asks for keys a batch at a time, none of which begins after `until`.
async fn read_all(
    connection: &Connection,
    keys: &[&str],
    want: Want,
    core: &Core,
    until: Instant,
) -> Reads {
    let mut pages = Vec::with_capacity(1);
    let mut left = keys;
    for range in batches(keys.len()).take_while(|_| Instant::now() < until) {
        let (batch, rest) = left.split_at(range.len());
        let page = Page::read(connection, batch, want, core).await;
        pages.push(page.unwrap_or_else(|error| Page::failed(batch.len(), &error)));
        left = rest;
    }
    if !left.is_empty() {
        pages.push(Page::failed(left.len(), &connection.too_late("get")));
    }
    Reads::of(pages)
}

/// What stands under some keys, in their order. It is looked at only as it is asked for.
pub(crate) struct Reads {
    pages: Flatten<vec::IntoIter<Page>>,
    /// What was known of the namespace of all the keys before they were asked for.
    known: Option<Record>,
}

impl Reads {
    fn of(pages: Vec<Page>) -> Self {
        Self {
            pages: pages.into_iter().flatten(),
            known: None,
        }
    }
}

impl From<Vec<Result<Raw>>> for Reads {
    fn from(each: Vec<Result<Raw>>) -> Self {
        Self::of(vec![Page::Each(each.into_iter())])
    }
}

impl Iterator for Reads {
    type Item = Result<Raw>;

    #[inline]
    fn next(&mut self) -> Option<Result<Raw>> {
        let raw = self.pages.next()?;
        Some(raw.map(|raw| raw.knowing(self.known)))
    }
}

/// What a part of the keys came to.
enum Page {
    Each(vec::IntoIter<Result<Raw>>),
    /// As one command brought it.
    Came(Came),
}

struct Came {
    connection: Connection,
    want: Want,
    now: Moment,
    values: vec::IntoIter<Value>,
    /// What is left of their lives, where that is wanted.
    lives: vec::IntoIter<Value>,
    /// Which of them should be gone; empty where none should.
    owed: vec::IntoIter<bool>,
}

impl Page {
    fn failed(keys: usize, error: &Error) -> Self {
        let each: Vec<_> = (0..keys).map(|_| Err(error.clone())).collect();
        Self::Each(each.into_iter())
    }

    async fn read(connection: &Connection, keys: &[&str], want: Want, core: &Core) -> Result<Self> {
        let now = core.now();
        let owed = connection.owed(keys);
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
            (values, replies)
        } else {
            let values = connection.read("get", &mget).await?;
            (values, Vec::new().into_iter())
        };
        let lack = |value: &Value| matches!(value, Value::BulkString(bytes) if lacks_life(core, want, bytes));
        match values {
            Value::Array(values) if values.iter().any(lack) => {
                Box::pin(Self::read(connection, keys, want.with_deadline(), core)).await
            }
            Value::Array(values) if values.len() == keys.len() => Ok(Self::Came(Came {
                connection: connection.clone(),
                want,
                now,
                values: values.into_iter(),
                lives,
                owed: owed.into_iter(),
            })),
            _ => Err(strange(connection, "get")),
        }
    }
}

impl Iterator for Page {
    type Item = Result<Raw>;

    #[inline]
    fn next(&mut self) -> Option<Result<Raw>> {
        match self {
            Self::Each(each) => each.next(),
            Self::Came(came) => came.next(),
        }
    }
}

impl Came {
    #[inline]
    fn next(&mut self) -> Option<Result<Raw>> {
        let value = self.values.next()?;
        let reply = match value {
            // What should be gone is nothing.
            _ if self.owed.next() == Some(true) => Ok(None),
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes)),
            other => Err(self.odd(other)),
        };
        let pttl = self.lives.next().as_ref().and_then(integer);
        Some(Ok(Raw::new(reply, pttl, self.want, self.now)))
    }

    #[cold]
    fn odd(&self, value: Value) -> Error {
        match checked(&self.connection, "get", value) {
            Ok(_) => strange(&self.connection, "get"),
            Err(error) => error,
        }
    }
}
