//! Writes, and the deletes that those which fail leave owed.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::command::unlink;
use super::connection::Connection;
use super::replay::{TagDebt, Takeover, Unanswered};
use super::reply::no_answer;
use crate::error::{Error, ErrorKind, Result};

/// Keys in one command or pipeline: a server does little else meanwhile.
const BATCH: usize = 1000;

/// So many items, a batch at a time.
pub(super) fn batches(count: usize) -> impl Iterator<Item = Range<usize>> {
    let batch = move |start: usize| start..count.min(start + BATCH);
    (0..count).step_by(BATCH).map(batch)
}

/// Whether the server may hold an older value than this failed write was to leave.
fn may_leave_older(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Busy | ErrorKind::Rejected
    )
}

impl Connection {
    /// Runs a write of keys. If it fails in a way that may leave older values in place, or is dropped under way, the keys
    /// are owed a delete, which is made up for before the node counts as up again. An earlier debt of theirs ends with a
    /// write that succeeds and leaves nothing older, as `settles` says.
    ///
    /// # Errors
    ///
    /// Those of the write; [`ErrorKind::Timeout`] where a delete that makes up for an earlier one takes too long.
    pub(crate) async fn owing<R>(
        &self,
        keys: &[&str],
        write: impl Future<Output = Result<R>> + Send,
        settles: impl Fn(&R) -> bool + Send,
    ) -> Result<R> {
        let until = self.until();
        let debts = self.taken_over(keys, until).await?;
        let unanswered = Unanswered::new(&self.shared().replay, keys);
        let answer = self.within(until, &debts, write).await;
        match &answer {
            Err(error) if may_leave_older(error) => return answer,
            Ok(done) if settles(done) => debts.settle(|_| true),
            _ => {}
        }
        unanswered.done();
        answer
    }

    /// As [`owing`](Self::owing), for many keys: `write` writes those of a range, which are [`BATCH`] at most, one range after
    /// the other. Those that are not begun before `until` have failed.
    pub(crate) async fn owing_each<R, F>(
        &self,
        keys: &[&str],
        until: Instant,
        write: impl Fn(Range<usize>) -> F,
    ) -> Vec<Result<R>>
    where
        F: Future<Output = Vec<Result<R>>> + Send,
    {
        // Dropped half way, those that were not begun have failed too.
        let mut unanswered = Unanswered::new(&self.shared().replay, keys);
        let mut answers = Vec::with_capacity(keys.len());
        for range in batches(keys.len()) {
            if Instant::now() >= until {
                break;
            }
            let count = range.len();
            let batch = &keys[range.clone()];
            answers.extend(self.owing_batch(batch, write(range)).await);
            unanswered.answered(count);
        }
        answers.resize_with(keys.len(), || Err(self.too_late("write many")));
        answers
    }

    async fn owing_batch<R>(
        &self,
        keys: &[&str],
        writes: impl Future<Output = Vec<Result<R>>> + Send,
    ) -> Vec<Result<R>> {
        let debts = match self.taken_over(keys, self.until()).await {
            Ok(debts) => debts,
            Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let unanswered = Unanswered::new(&self.shared().replay, keys);
        let answers = writes.await;
        let failed = |(key, answer): (&&'_ str, &Result<R>)| match answer {
            Err(error) if may_leave_older(error) => Some((*key).to_owned()),
            _ => None,
        };
        let owed: HashSet<String> = keys.iter().zip(&answers).filter_map(failed).collect();
        debts.settle(|key| !owed.contains(key));
        unanswered.done();
        if !owed.is_empty() {
            self.owe(owed.iter().map(String::as_str));
        }
        answers
    }

    /// Runs a write that builds on what stands under a key, once what the key is owed is made up for.
    ///
    /// # Errors
    ///
    /// Those of the write and of the delete; [`ErrorKind::Timeout`] as in [`owing`](Self::owing).
    pub(crate) async fn paying<R>(
        &self,
        key: &str,
        write: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        let until = self.until();
        let debts = self.taken_over(&[key], until).await?;
        if debts.is_easy() {
            return write.await;
        }
        let all = async {
            let owed: Vec<&str> = debts.keys().collect();
            if !owed.is_empty() {
                self.run::<i64>("unlink", &unlink(&owed)).await?;
            }
            debts.settle(|_| true);
            write.await
        };
        self.bounded(until, all).await
    }

    /// Makes up for what keys are owed, before an application sends something about them. Where that fails, they are owed still.
    ///
    /// # Errors
    ///
    /// Those of the delete; [`ErrorKind::Timeout`] where it takes past `until`; [`ErrorKind::Unavailable`] where all under
    /// a prefix of theirs is to be removed first.
    #[cfg(feature = "ring")]
    pub(super) async fn paid(&self, keys: &[&str], until: Instant) -> Result<()> {
        let Some(round) = self.shared().replay.begin_of(keys, until).await else {
            return Err(self.too_late("make up for a failed delete"));
        };
        let paid = async {
            let owed: Vec<&str> = round.keys.iter().map(|key| &**key).collect();
            if !owed.is_empty() {
                self.run::<i64>("unlink", &unlink(&owed)).await?;
            }
            round.settle();
            Ok(())
        };
        self.bounded(until, paid).await?;
        match keys.iter().any(|key| self.owes(key)) {
            true => {
                let why = "what stands there is to be removed first";
                Err(self.named(Error::new(ErrorKind::Unavailable, why), "send"))
            }
            false => Ok(()),
        }
    }

    /// The deadline of an operation that begins now.
    fn until(&self) -> Instant {
        Instant::now() + self.operation_timeout()
    }

    /// A write has its own bound; one that had to wait for a payment has less time left.
    async fn within<R>(
        &self,
        until: Instant,
        debts: &Takeover<'_>,
        write: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        if debts.is_easy() {
            write.await
        } else {
            self.bounded(until, write).await
        }
    }

    async fn bounded<R>(
        &self,
        until: Instant,
        write: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        let answer = timeout_at(until, write).await;
        answer.unwrap_or_else(|_| Err(self.too_late("make up for a failed delete")))
    }

    pub(super) fn too_late(&self, operation: &'static str) -> Error {
        self.named(no_answer(self.operation_timeout()), operation)
    }

    pub(super) fn operation_timeout(&self) -> Duration {
        self.shared().settings.operation_timeout
    }

    /// Takes over what keys are owed. Where it cannot, nothing is sent, so their write has failed.
    async fn taken_over(&self, keys: &[&str], until: Instant) -> Result<Takeover<'_>> {
        let owing = |error| {
            self.owe(keys.iter().copied());
            Err(error)
        };
        if let Err(error) = self.runtime("write") {
            return owing(error);
        }
        match self.shared().replay.enter(keys, until).await {
            Some(debts) => Ok(debts),
            None => owing(self.too_late("make up for a failed delete")),
        }
    }

    /// Keys should have been removed, and may not have been. They will be, before the node counts as up again, or soon if it
    /// is.
    pub(crate) fn owe<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        self.shared().replay.owe(keys);
    }

    /// Begins to invalidate a tag. Dropped without being settled, it is invalidated before the node counts as up again, or soon
    /// if it is.
    pub(super) fn owing_tag(&self, namespace: &str, tag: &str) -> TagDebt<'_> {
        self.shared().replay.invalidate(namespace, tag)
    }

    /// Whether values with a tag should be nothing.
    pub(super) fn owes_tag(&self, namespace: &str, tag: &str) -> bool {
        self.shared().replay.owes_tag(namespace, tag)
    }

    /// Whether what stands under a key should be gone, and so is nothing to its readers.
    pub(crate) fn owes(&self, key: &str) -> bool {
        self.shared().replay.owes(key)
    }

    /// Which of some keys it owes; nothing at all where it owes none.
    pub(super) fn owed(&self, keys: &[&str]) -> Vec<bool> {
        if self.shared().replay.is_clear() {
            return Vec::new();
        }
        keys.iter().map(|key| self.owes(key)).collect()
    }
}
