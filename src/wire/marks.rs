//! Whether what stands under a key is still of the generations that it carries.

use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::names::{RECORDS, forget_namespace, namespace, of_namespace, of_tag, tag_key};
use super::node::Node;
use super::opened::Opened;
use super::script::PLAIN;
use crate::clock::{Clock, Moment};
use crate::codec::Marks;
use crate::coherence::Origin;
use crate::core::Core;
use crate::entry::{Answer, Want};
use crate::error::{ErrorKind, Result};
use crate::generation::{Cell, Record, Tags, random};
use crate::refusal::Refusal;

impl Node {
    /// The answer, if this process knows all that it takes to judge what was found.
    pub(crate) fn judged(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        opened: Box<Opened>,
    ) -> Result<Answer, Box<Opened>> {
        self.judged_within(bound(core, want), core, key, want, opened)
    }

    /// As [`judged`](Self::judged), by what was known so long ago at most.
    fn judged_within(
        &self,
        bound: Duration,
        core: &Core,
        key: &str,
        want: Want,
        opened: Box<Opened>,
    ) -> Result<Answer, Box<Opened>> {
        let Some(marks) = &opened.marks else {
            // Not by what was known before: a clear since then looks for no others.
            let known = self.known(bound, key, want);
            return match known {
                Some(known) if known.plain => Ok(opened.answer),
                _ => Err(opened),
            };
        };
        let space = namespace(key, marks.namespace);
        let is = |record: &Record, generation| record.generation == Some(generation);
        let known = marks.known_among(opened.known, want).or_else(|| {
            let fresh = self.with_namespace(space, |cell| cell.fresh(bound));
            fresh.filter(|fresh| is(fresh, marks.generation))
        });
        let Some(Record { mut as_of, .. }) = known else {
            return Err(opened);
        };
        if marks.tags.is_empty() {
            return Ok(carrying(opened.answer, None, as_of));
        }
        let mut tags = Vec::with_capacity(marks.tags.len());
        for (tag, generation) in &marks.tags {
            if self.owes_tag(space, tag) {
                return Ok(refused(core, key, Refusal::Tag));
            }
            let cell = self.marks.of(&of_tag(space, tag));
            let Some(fresh) = cell.fresh(bound).filter(|fresh| is(fresh, *generation)) else {
                return Err(opened);
            };
            as_of = as_of.into_iter().chain(fresh.as_of).min();
            tags.push((tag.clone(), cell, *generation));
        }
        Ok(carrying(opened.answer, Tags::new(tags), as_of))
    }

    /// What most values of a reader's namespace are judged by, if that is known.
    pub(super) fn known_of(&self, core: &Core, key: &str, want: Want) -> Option<Record> {
        self.known(bound(core, want), key, want)
    }

    /// Asks for that, unless it is known. Whoever judges asks again where this fails.
    pub(super) async fn know_namespace(&self, core: &Core, key: &str, want: Want) {
        // What is asked for each time is asked for when it is needed.
        let asks_anyway = bound(core, want).is_zero();
        if !asks_anyway && self.known_of(core, key, want).is_none() {
            let marks = Marks {
                namespace: want.namespace,
                generation: 0,
                tags: Vec::new(),
            };
            let _ = self.asked(key, &marks, self.origin(key, 0)).await;
        }
    }

    fn known(&self, bound: Duration, key: &str, want: Want) -> Option<Record> {
        let space = namespace(key, want.namespace);
        self.with_namespace(space, |cell| cell.fresh(bound))
    }

    /// Nearly all reads of a process are in one namespace: the one that was read last is at hand.
    fn with_namespace<R>(&self, namespace: &str, with: impl FnOnce(&Cell) -> R) -> R {
        let last = self.last_namespace.load();
        // An empty string points nowhere, and a comparison that reads there with vector masks takes longer than all else here.
        let is = |name: &str| {
            name.len() == namespace.len() && (namespace.is_empty() || name == namespace)
        };
        if let Some((_, cell)) = last
            .as_deref()
            .filter(|(name, cell)| is(name) && cell.is_known())
        {
            return with(cell);
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
        opened: Box<Opened>,
    ) -> Result<Answer> {
        // What was known when it was asked for counts, however long the answer took.
        let took = core.now().since(opened.since);
        let bound = match bound(core, want) {
            bound if bound.is_zero() => bound,
            bound => bound.saturating_add(took),
        };
        let opened = match self.judged_within(bound, core, key, want, opened) {
            Ok(answer) => return Ok(answer),
            Err(opened) => opened,
        };
        let Some(marks) = &opened.marks else {
            self.says_plain(key, namespace(key, want.namespace)).await?;
            return Ok(opened.answer);
        };
        let (asked, origin) = (Clock::REAL.now(), self.origin(key, 0));
        let now = self.asked(key, marks, origin).await?;
        let as_of = (!origin.is_told(bound)).then_some(asked);
        let space = namespace(key, marks.namespace);
        let mut now = now.into_iter();
        if now.next() != Some(Some(marks.generation)) {
            return Ok(refused(core, key, Refusal::Generation));
        }
        let mut tags = marks.tags.iter().zip(now);
        if tags.any(|((tag, carried), now)| now != Some(*carried) || self.owes_tag(space, tag)) {
            return Ok(refused(core, key, Refusal::Tag));
        }
        let tags = marks.tags.iter().map(|(tag, generation)| {
            let cell = self.marks.of(&of_tag(space, tag));
            (tag.clone(), cell, *generation)
        });
        let tags = Tags::new(tags);
        Ok(carrying(opened.answer, tags, as_of))
    }

    /// The generations of the namespace and of each tag as they are now.
    async fn asked(&self, key: &str, marks: &Marks, origin: Origin) -> Result<Vec<Option<u64>>> {
        let space = namespace(key, marks.namespace);
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
        let tags = marks.tags.iter().map(|(tag, _)| !self.owes_tag(space, tag));
        let told = std::iter::once(true).chain(tags);
        for (((cell, asking), record), told) in cells.iter().zip(asking).zip(&records).zip(told) {
            // Of what the node was not told yet, what it says is what was.
            if told {
                cell.learn(asking, *record);
            }
        }
        Ok(records.iter().map(|record| record.generation).collect())
    }

    /// Says that there are values without marks in a namespace, so that who clears it looks for them.
    async fn says_plain(&self, key: &str, namespace: &str) -> Result<()> {
        let cell = self.marks.of(&of_namespace(namespace));
        let asking = cell.asking(self.origin(key, 0));
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

/// How old may be what is known of generations.
fn bound(core: &Core, want: Want) -> Duration {
    let own = core.settings().max_staleness;
    want.max_staleness.map_or(own, |bound| bound.min(own))
}

fn refused(core: &Core, key: &str, why: Refusal) -> Answer {
    core.refuse(key, why);
    Answer::refused(why)
}

pub(super) fn carrying(
    mut answer: Answer,
    tags: Option<Arc<Tags>>,
    as_of: Option<Moment>,
) -> Answer {
    answer.as_of = as_of;
    if tags.is_some() {
        answer.entry = answer.entry.map(|entry| entry.with_tags(tags));
    }
    answer
}
