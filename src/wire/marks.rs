//! Whether what stands under a key is still of the generations that it carries.

use std::sync::Arc;

use redis::{Pipeline, Value};

use super::fetch::Opened;
use super::node::Node;
use super::script::PLAIN;
use crate::clock::{Clock, Moment};
use crate::codec::Marks;
use crate::core::Core;
use crate::entry::{Answer, Want};
use crate::error::{ErrorKind, Result};
use crate::generation::{Cell, Record, Tags, random};
use crate::refusal::Refusal;

/// The hash of namespaces, each with its record.
const RECORDS: &str = "__larder:namespaces";

/// What is written when something is invalidated, so that trackers hear of it.
pub(super) const TOLD: &str = "__larder:!";

/// The name of a namespace among the generations of a node.
pub(super) fn of_namespace(namespace: &str) -> String {
    format!("n:{namespace}")
}

/// The name of a tag.
pub(super) fn of_tag(namespace: &str, tag: &str) -> String {
    format!("t:{}:{namespace}{tag}", namespace.len())
}

/// The key that a tag's generation stands under.
fn tag_key(namespace: &str, tag: &str) -> String {
    format!("__larder:{}", of_tag(namespace, tag))
}

impl Node {
    /// The answer, if this process knows all that it takes to judge it.
    pub(crate) fn judged(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        opened: &Opened,
    ) -> Option<Result<Answer>> {
        let Some(marks) = &opened.marks else {
            let known = !opened.plain || self.knows_plain(core, namespace(key, want.namespace));
            return known.then(|| Ok(opened.answer.clone()));
        };
        let space = namespace(key, marks.namespace);
        let bound = core.settings().max_staleness;
        let mut as_of = None;
        let mut is = |cell: &Cell, generation| {
            let record = cell.fresh(bound)?;
            as_of = as_of.into_iter().chain(record.as_of).min();
            (record.generation == Some(generation)).then_some(())
        };
        self.with_namespace(space, |cell| is(cell, marks.generation))?;
        let mut tags = Vec::with_capacity(marks.tags.len());
        for (tag, generation) in &marks.tags {
            if self.owes_tag(space, tag) {
                return Some(Ok(refused(core, key)));
            }
            let cell = self.marks.of(&of_tag(space, tag));
            is(&cell, *generation)?;
            tags.push((tag.clone(), cell, *generation));
        }
        Some(Ok(carrying(opened, Tags::new(tags), as_of)))
    }

    fn knows_plain(&self, core: &Core, namespace: &str) -> bool {
        let bound = core.settings().max_staleness;
        let record = self.with_namespace(namespace, |cell| cell.fresh(bound));
        record.is_some_and(|record| record.plain)
    }

    /// Nearly all reads of a process are in one namespace: the one that was read last is at hand.
    fn with_namespace<R>(&self, namespace: &str, with: impl FnOnce(&Cell) -> R) -> R {
        let last = self.last_namespace.load();
        if let Some(last) = last
            .as_ref()
            .filter(|last| last.0 == namespace && last.1.is_known())
        {
            return with(&last.1);
        }
        let cell = self.marks.of(&of_namespace(namespace));
        let last = Arc::new((namespace.to_owned(), Arc::clone(&cell)));
        self.last_namespace.store(Some(last));
        with(&cell)
    }

    /// The answer, after the node was asked for what this process does not know.
    pub(super) async fn judge(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        opened: Opened,
    ) -> Result<Answer> {
        if let Some(answer) = self.judged(core, key, want, &opened) {
            return answer;
        }
        let Some(marks) = &opened.marks else {
            self.says_plain(key, namespace(key, want.namespace)).await?;
            return Ok(opened.answer);
        };
        let as_of = Some(Clock::REAL.now());
        let now = self.asked(key, marks).await?;
        let space = namespace(key, marks.namespace);
        let carried = marks.tags.iter().map(|(_, generation)| *generation);
        let carried = std::iter::once(marks.generation).chain(carried);
        let owed = marks.tags.iter().any(|(tag, _)| self.owes_tag(space, tag));
        if owed
            || !now
                .iter()
                .zip(carried)
                .all(|(now, carried)| *now == Some(carried))
        {
            return Ok(refused(core, key));
        }
        let tags = marks.tags.iter().map(|(tag, generation)| {
            let cell = self.marks.of(&of_tag(space, tag));
            (tag.clone(), cell, *generation)
        });
        Ok(carrying(&opened, Tags::new(tags), as_of))
    }

    /// The generations of the namespace and of each tag as they are now.
    async fn asked(&self, key: &str, marks: &Marks) -> Result<Vec<Option<u64>>> {
        let (space, origin) = (namespace(key, marks.namespace), self.origin(0));
        let names = std::iter::once(of_namespace(space));
        let names = names.chain(marks.tags.iter().map(|(tag, _)| of_tag(space, tag)));
        let cells: Vec<_> = names.map(|name| self.marks.of(&name)).collect();
        let asking: Vec<_> = cells.iter().map(|cell| cell.asking(origin)).collect();
        let mut questions = Pipeline::new();
        questions.cmd("HGET").arg(RECORDS).arg(of_namespace(space));
        for (tag, _) in &marks.tags {
            questions.cmd("GET").arg(tag_key(space, tag));
        }
        let replies = self
            .connection(key)
            .read_pipeline("get", &questions)
            .await?;
        let records: Vec<Record> = replies.iter().map(record).collect();
        for ((cell, asking), record) in cells.iter().zip(asking).zip(&records) {
            cell.learn(asking, *record);
        }
        Ok(records.iter().map(|record| record.generation).collect())
    }

    /// Says that there are values without marks in a namespace, so that who clears it looks for them.
    async fn says_plain(&self, key: &str, namespace: &str) -> Result<()> {
        let cell = self.marks.of(&of_namespace(namespace));
        let asking = cell.asking(self.origin(0));
        let said = PLAIN.run(self.connection(key), "get", &[], |command| {
            command.arg(namespace).arg(&random().to_le_bytes());
        });
        match said.await {
            Ok(said) => cell.learn(asking, record(&said)),
            // Who may only read has nothing to clear either.
            Err(error) if error.kind() == ErrorKind::Rejected => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A namespace was cleared: nothing is known of it, nor of those in it and around it.
    pub(super) fn forget_namespace(&self, namespace: &str) {
        forget_namespace(&self.marks, namespace);
    }
}

pub(super) fn forget_namespace(marks: &crate::generation::Cells, namespace: &str) {
    marks.invalidate_where(|name| {
        name.strip_prefix("n:")
            .is_some_and(|name| name.starts_with(namespace) || namespace.starts_with(name))
    });
}

/// The part of a key that is its namespace.
pub(super) fn namespace(key: &str, length: usize) -> &str {
    key.get(..length).unwrap_or(key)
}

/// The record of a namespace, or of a tag, which is its generation alone.
fn record(reply: &Value) -> Record {
    let Value::BulkString(bytes) = reply else {
        return Record::default();
    };
    Record {
        generation: bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
        plain: bytes.get(8) == Some(&b'1'),
        as_of: None,
    }
}

fn refused(core: &Core, key: &str) -> Answer {
    core.refuse(key, Refusal::Generation);
    Answer::refused(Refusal::Generation)
}

fn carrying(opened: &Opened, tags: Option<Arc<Tags>>, as_of: Option<Moment>) -> Answer {
    let mut answer = opened.answer.clone();
    answer.as_of = as_of;
    answer.entry = answer.entry.map(|entry| entry.with_tags(tags));
    answer
}
