//! Gathered gets: what callers ask for one by one while an earlier answer is awaited is asked for together.
//!
//! On an idle link nothing waits, and its caller sends the get itself. Those that come meanwhile go to the link's task; it
//! sends what has come as one `MGET`, in which a key stands once however many want it, and then what came until the
//! answer. A get never joins one that was sent already: that one may have been answered before a write which the caller
//! knows of.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::ask::{Answer, Ask};
use super::batch::{Batch, Exchanged, Question};
use super::get::{Failure, Get, Got};
use super::load::Load;
use super::race::first;

/// Keys in one `MGET`: a server does nothing else meanwhile.
const MAX_KEYS: usize = 512;

/// Bytes of the answer to one `MGET`, as far as they can be foreseen: its callers have nothing until all of it is there.
const MAX_BYTES: usize = 1 << 20;

/// A get waits this long for the answer to an earlier one, and is sent without it then.
const LONGEST_WAIT: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Queue {
    waiting: Vec<Arc<Ask>>,
    /// How many are on their way.
    sent: usize,
    /// Nothing more is taken on: the link is closing, or gone.
    closed: bool,
}

impl Queue {
    fn under_way(&self) -> usize {
        self.waiting.len() + self.sent
    }
}

/// The gets that wait for their turn on one link.
#[derive(Default)]
pub(super) struct Gather {
    queue: Mutex<Queue>,
    asked: Notify,
    size: Size,
    /// Whether a caller has sent a get by itself and has not heard. One who is not polled any more keeps it so, at the cost
    /// that others are a little slower.
    alone: AtomicBool,
    /// Whether a batch is on its way.
    serving: AtomicBool,
    /// The batches on their way; some may have come back already.
    sent: Mutex<Vec<Arc<Batch>>>,
}

/// How many keys are asked for at once, by what their values were long lately.
#[derive(Default)]
struct Size {
    /// Of one value.
    bytes: AtomicUsize,
}

impl Size {
    fn keys(&self) -> usize {
        (MAX_BYTES / self.bytes.load(Ordering::Relaxed).max(1)).clamp(1, MAX_KEYS)
    }

    /// Learns from the answer for `keys` keys. Grows at once, shrinks slowly.
    fn learn(&self, keys: usize, exchanged: &Exchanged) {
        let known = self.bytes.load(Ordering::Relaxed);
        let learned = match exchanged {
            Exchanged::Answered { bytes, .. } => {
                let mean = bytes / keys.max(1);
                if mean < known {
                    known - (known - mean).div_ceil(8)
                } else {
                    mean
                }
            }
            // Perhaps it was too much at once: half of it next.
            Exchanged::Late => known.max(2 * MAX_BYTES / keys.max(1)),
            Exchanged::Lost => known,
        };
        self.bytes.store(learned, Ordering::Relaxed);
    }
}

/// The right to send a get by oneself.
struct Alone<'g>(&'g AtomicBool);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Gather {
    fn alone(&self) -> Option<Alone<'_>> {
        let busy = self.serving.load(Ordering::Acquire) || self.alone.swap(true, Ordering::AcqRel);
        (!busy).then(|| Alone(&self.alone))
    }

    /// Whether gets are on their way.
    fn is_busy(&self) -> bool {
        self.serving.load(Ordering::Acquire) || self.alone.load(Ordering::Acquire)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for one key and answers within its bound. `conn` is the link's; `here` says whether the caller runs where the
    /// link's task does.
    pub(super) async fn ask(
        &self,
        ask: &Get<'_>,
        conn: impl FnOnce() -> MultiplexedConnection + Send,
        here: bool,
        load: &Load,
    ) -> Result<Got, Failure> {
        if let Some(_alone) = self.alone() {
            let question = Question::of(&[(ask.key.as_bytes(), ask.pttl)]);
            let mut conn = conn();
            let asked = Box::pin(timeout(ask.bound, question.ask(&mut conn)));
            return Ok(match asked.await?? {
                Ok(mut got) => got.pop().unwrap_or_else(Got::strange),
                Err(refusal) => Got::refused(refusal),
            });
        }
        let waiting = Arc::new(Ask::new(ask.key, ask.pttl, Instant::now(), None));
        // It has its place under the bound already.
        self.push(&waiting, load, usize::MAX)
            .ok_or_else(Failure::lost)?;
        let answer = poll_fn(|cx| waiting.poll(cx));
        // The link's task sees to the bound, and the watch sees to that task: a timer for each caller costs more than the rest
        // of a gathered get.
        let answer = if here {
            answer.await
        } else {
            timeout(ask.bound, answer).await?
        };
        answer.outcome()
    }

    /// Has a key asked for together with those that are on their way; nothing if none is, or there is no room.
    pub(super) fn join(
        &self,
        ask: impl FnOnce() -> Ask,
        load: &Load,
        max: usize,
    ) -> Option<Arc<Ask>> {
        if !self.is_busy() {
            return None;
        }
        let ask = Arc::new(ask());
        self.push(&ask, load, max).map(|()| ask)
    }

    /// Queues a get; nothing if there is no room for it under `max`, or no more are taken on.
    fn push(&self, ask: &Arc<Ask>, load: &Load, max: usize) -> Option<()> {
        let mut queue = self.queue();
        let (before, under_way) = (queue.waiting.len(), queue.under_way());
        if queue.closed || !load.admits(under_way, max) {
            return None;
        }
        load.set_gathered(under_way + 1);
        queue.waiting.push(Arc::clone(ask));
        drop(queue);
        // Who came first has told the link's task.
        if before == 0 {
            self.asked.notify_one();
        }
        Some(())
    }

    /// Sends what is asked for, a batch at a time, until nothing more is taken on. `bound` is for each get, `served` is told
    /// of answers.
    pub(super) async fn serve(
        &self,
        conn: MultiplexedConnection,
        bound: Duration,
        load: &Load,
        served: impl Fn() + Send + Sync,
    ) {
        let (conn, served) = (&conn, &served);
        let exchange = |batch: Arc<Batch>| async move {
            let count = batch.len();
            let exchanged = batch.exchange(conn, bound).await;
            self.size.learn(count, &exchanged);
            if let Exchanged::Answered { well: true, .. } = exchanged {
                served();
            }
            let mut queue = self.queue();
            queue.sent -= count;
            load.set_gathered(queue.under_way());
        };
        let mut sent = FuturesUnordered::new();
        let mut usual = 0;
        loop {
            let mut waited = self.take(&mut usual, load);
            if !waited.is_empty() {
                self.serving.store(true, Ordering::Release);
                // All that waited, and no more: those who come meanwhile would make batches of one.
                while !waited.is_empty() {
                    let rest = waited.split_off(waited.len().min(self.size.keys()));
                    sent.push(exchange(self.note(Batch::new(waited))));
                    waited = rest;
                }
                // Others come meanwhile. On a long way they do not wait for all of it.
                let _ = timeout(LONGEST_WAIT, sent.next()).await;
                // Those who were just answered have their turn first: what they ask for next goes with it.
                tokio::task::yield_now().await;
            } else if !sent.is_empty() {
                first(sent.next(), self.asked.notified()).await;
            } else if self.queue().closed {
                return;
            } else {
                self.serving.store(false, Ordering::Release);
                self.asked.notified().await;
            }
        }
    }

    /// Notes that a batch is on its way, and forgets those that have come back.
    fn note(&self, batch: Batch) -> Arc<Batch> {
        let batch = Arc::new(batch);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|batch| Arc::strong_count(batch) > 1);
        sent.push(Arc::clone(&batch));
        batch
    }

    /// Tells callers who wait for longer than `bound` that no answer came, where the link's own task has no turn: a task
    /// that was woken by one that blocks its thread has none for as long.
    pub(super) fn expire(&self, bound: Duration) {
        let Some(latest) = Instant::now().checked_sub(bound) else {
            return;
        };
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|batch| Arc::strong_count(batch) > 1);
        sent.iter().for_each(|batch| batch.expire(latest));
        drop(sent);
        let mut queue = self.queue();
        let overdue = queue.waiting.extract_if(.., |ask| ask.since() <= latest);
        let overdue: Vec<_> = overdue.collect();
        drop(queue);
        overdue.into_iter().for_each(|ask| ask.answer(Answer::Late));
    }

    /// What waits, without those that nobody waits for any more. `usual` is how much that was, for those who come next.
    fn take(&self, usual: &mut usize, load: &Load) -> Vec<Arc<Ask>> {
        let room = Vec::with_capacity(*usual);
        let mut queue = self.queue();
        let mut waited = std::mem::replace(&mut queue.waiting, room);
        queue.sent += waited.len();
        drop(queue);
        let count = waited.len();
        waited.retain(Ask::is_wanted);
        if waited.len() < count || count == 0 {
            // Some went away, or were told that they are late: they take no places any more.
            let mut queue = self.queue();
            queue.sent -= count - waited.len();
            load.set_gathered(queue.under_way());
        }
        *usual = count;
        waited
    }

    /// Takes nothing more on; what waits is still sent.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.asked.notify_one();
    }

    /// Takes nothing more on, and tells all who wait that nothing will come.
    pub(super) fn abandon(&self, load: &Load) {
        let mut queue = self.queue();
        queue.closed = true;
        let waiting = std::mem::take(&mut queue.waiting);
        load.set_gathered(0);
        drop(queue);
        waiting.into_iter().for_each(|ask| ask.answer(Answer::Lost));
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().for_each(|batch| batch.give_up());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_large_as_its_answer_may_be() {
        let size = Size::default();
        assert_eq!(size.keys(), MAX_KEYS);
        let answered = |bytes| Exchanged::Answered { well: true, bytes };
        size.learn(100, &answered(100 * 10_240));
        assert_eq!(size.keys(), 102);
        size.learn(4, &answered(4 * (8 << 20)));
        assert_eq!(size.keys(), 1);
        for _ in 0..200 {
            size.learn(10, &answered(10 * 256));
        }
        assert_eq!(size.keys(), MAX_KEYS);
    }

    #[tokio::test]
    async fn who_went_away_or_was_late_takes_no_place() {
        let (gather, load) = (Gather::default(), Load::default());
        let since = Instant::now();
        let ask = || Arc::new(Ask::new("k", false, since, None));
        let free = || load.enter(1).is_some();
        gather.push(&ask(), &load, 1).expect("room");
        assert!(gather.push(&ask(), &load, 1).is_none());
        assert!(!free());
        assert!(gather.take(&mut 0, &load).is_empty(), "nobody waits for it");
        assert!(free());
        let waiting = ask();
        gather.push(&waiting, &load, 1).expect("room");
        gather.expire(Duration::ZERO);
        assert!(gather.take(&mut 0, &load).is_empty(), "it was told");
        assert!(free());
        gather.push(&waiting, &load, 1).expect("room");
        assert_eq!(gather.take(&mut 0, &load).len(), 1);
        assert!(!free(), "it is on its way");
        gather.abandon(&load);
        assert!(free());
    }

    /// The link's task is gone, and the watch over it forgets the batch before that task's end has told its callers.
    #[tokio::test]
    async fn a_batch_that_is_forgotten_strands_nobody() {
        let gather = Gather::default();
        let ask = Arc::new(Ask::new("k", false, Instant::now(), None));
        drop(gather.note(Batch::new(vec![Arc::clone(&ask)])));
        gather.expire(Duration::from_secs(60));
        assert!(gather.sent.lock().unwrap().is_empty());
        let answer = timeout(Duration::from_secs(1), poll_fn(|cx| ask.poll(cx))).await;
        assert!(matches!(answer, Ok(Answer::Lost)), "{answer:?}");
    }

    #[test]
    fn a_batch_that_is_late_is_followed_by_half_of_it() {
        let size = Size::default();
        size.learn(512, &Exchanged::Late);
        assert_eq!(size.keys(), 256);
        size.learn(1, &Exchanged::Lost);
        assert_eq!(size.keys(), 256);
        for keys in [256, 128, 64, 32, 16, 8, 4, 2, 1, 1, 0] {
            size.learn(keys, &Exchanged::Late);
        }
        assert_eq!(size.keys(), 1);
    }
}
