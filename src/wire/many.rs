//! What a store asks of one server for many keys at once.

use std::ops::Range;

#[cfg(feature = "ring")]
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::Connection;
use super::command::{millis, stored, storing, unlink};
use super::node::{Node, checked, removed, strange};
use super::owing::batches;
use super::scatter::scatter;
use super::script::{BEGIN, is_unknown};
use crate::core::Core;
use crate::entry::{Draft, Noted, Stored, Ticket};
use crate::error::Result;
use crate::generation::random;
use crate::options::MAX_COMPUTE;

impl Node {
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
        Ok(match storing(core, key, draft)? {
            Some(storing) => Some(storing.command(known, key)),
            // What is over by now must not take away what came meanwhile.
            None if draft.computed => None,
            None => Some(unlink(&[key])),
        })
    };
    let commands: Vec<Result<Option<Cmd>>> = drafts.iter().map(command).collect();
    let mut pipeline = Pipeline::new();
    commands.iter().flatten().flatten().for_each(|command| {
        pipeline.add_command(command.clone());
    });
    let sent = connection.run_pipeline("set", &pipeline).await;
    let mut replies = sent.map(Vec::into_iter);
    let answer = |command: Result<Option<Cmd>>| {
        if command?.is_none() {
            return Ok(Stored::Outrun);
        }
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
        command.arg(&token).arg(millis(MAX_COMPUTE));
    });
    let ticket = |note: Value| match note {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(fingerprint), Value::Int(count)] => Some(Noted::Node {
                fingerprint: fingerprint.as_slice().into(),
                count: *count,
                lease: None,
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
