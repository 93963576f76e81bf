//! Gathered gets: what callers ask for one by one while an earlier answer is awaited is asked for together.
//!
//! On an idle link nothing waits, and its caller sends the get itself. Those that come meanwhile go to the link's task; it
//! sends what has come as one `MGET`, in which a key stands once however many want it, and then what came until the answer. A get never joins one that was sent already: that one may have been
//! answered before a write which the caller knows of.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, ServerError, Value, cmd};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::ask::{Answer, Ask};
use super::get::{Failure, Get, Got};
use super::race::first;

/// Keys in one `MGET`: a server does nothing else meanwhile.
const BATCH: usize = 512;

/// A get waits this long for the answer to an earlier one, and is sent without it then.
const LONGEST_WAIT: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Queue {
    waiting: Vec<Arc<Ask>>,
    /// Nothing more is taken on: the link is closing, or gone.
    closed: bool,
}

/// The gets that wait for their turn on one link.
#[derive(Default)]
pub(super) struct Gather {
    queue: Mutex<Queue>,
    asked: Notify,
    /// Whether a caller has sent a get by itself and has not heard. One who is not polled any more keeps it so, at the cost
    /// that others are a little slower.
    alone: AtomicBool,
    /// Whether a batch is on its way.
    serving: AtomicBool,
    /// The batches on their way, with when they were sent; some may have come back already.
    sent: Mutex<VecDeque<(Instant, Arc<Batch>)>>,
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
    ) -> Result<Got, Failure> {
        if let Some(_alone) = self.alone() {
            let one = [Wanted {
                key: ask.key.as_bytes(),
                pttl: ask.pttl,
            }];
            let mut conn = conn();
            let read = Box::pin(timeout(ask.bound, read(&mut conn, &one)));
            return Ok(match read.await?? {
                Ok(mut got) => got.pop().unwrap_or_else(Got::strange),
                Err(refusal) => Got::refused(refusal),
            });
        }
        let answer = if here {
            // The link's task sees to the bound, and the watch sees to that task: a timer for each caller costs more than
            // the rest of a gathered get.
            self.wait(ask.key, ask.pttl).await
        } else {
            timeout(ask.bound, self.wait(ask.key, ask.pttl)).await?
        };
        match answer {
            Answer::Got(got) => Ok(got),
            Answer::Late => Err(Failure::Late),
            Answer::Lost => Err(Failure::lost()),
        }
    }

    /// Has a key asked for.
    async fn wait(&self, key: &str, pttl: bool) -> Answer {
        let ask = Arc::new(Ask::new(key, pttl));
        {
            let mut queue = self.queue();
            if queue.closed {
                return Answer::Lost;
            }
            queue.waiting.push(Arc::clone(&ask));
        }
        self.asked.notify_one();
        poll_fn(|cx| ask.poll(cx)).await
    }

    /// Sends what is asked for, a batch at a time, until nothing more is taken on. `bound` is for each batch.
    pub(super) async fn serve(&self, conn: MultiplexedConnection, bound: Duration) {
        let _closing = Closing(self);
        let mut sent = FuturesUnordered::new();
        loop {
            if let Some(batch) = self.take() {
                self.serving.store(true, Ordering::Release);
                sent.push(Batch::exchange(self.note(batch), conn.clone(), bound));
                // Others come meanwhile. On a long way they do not wait for all of it.
                let _ = timeout(LONGEST_WAIT, sent.next()).await;
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
        sent.retain(|(_, batch)| Arc::strong_count(batch) > 1);
        sent.push_back((Instant::now(), Arc::clone(&batch)));
        batch
    }

    /// Tells callers who wait for longer than `bound` that no answer came, where the link's own task has no turn: a task
    /// that was woken by one that blocks its thread has none for as long.
    pub(super) fn expire(&self, bound: Duration) {
        let Some(latest) = Instant::now().checked_sub(bound) else {
            return;
        };
        let mut overdue = Vec::new();
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|(_, batch)| Arc::strong_count(batch) > 1);
        let late = sent.iter().take_while(|(since, _)| *since < latest);
        overdue.extend(late.flat_map(|(_, batch)| batch.0.iter().cloned()));
        drop(sent);
        let mut queue = self.queue();
        let late = queue.waiting.partition_point(|ask| ask.since() < latest);
        overdue.extend(queue.waiting.drain(..late));
        drop(queue);
        overdue.iter().for_each(|ask| ask.answer(Answer::Late));
    }

    /// What waits, without those that nobody waits for any more.
    fn take(&self) -> Option<Batch> {
        let mut queue = self.queue();
        if queue.waiting.is_empty() {
            return None;
        }
        let most = queue.waiting.len().min(BATCH);
        let rest = queue.waiting.split_off(most);
        let mut batch = std::mem::replace(&mut queue.waiting, rest);
        drop(queue);
        batch.retain(Ask::is_wanted);
        Some(Batch(batch))
    }

    /// Takes nothing more on; what waits is still sent.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.asked.notify_one();
    }
}

/// However the service of a link ends, nobody waits for it any more.
struct Closing<'g>(&'g Gather);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        Batch(waiting).answer(|| Answer::Lost);
        let sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter()
            .for_each(|(_, batch)| batch.answer(|| Answer::Lost));
    }
}

/// Gets that are asked for together.
struct Batch(Vec<Arc<Ask>>);

impl Batch {
    /// Asks the server and hands the answers out.
    async fn exchange(batch: Arc<Self>, mut conn: MultiplexedConnection, bound: Duration) {
        match timeout(bound, batch.ask(&mut conn)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => batch.answer(|| Answer::Lost),
            Err(_) => batch.answer(|| Answer::Late),
        }
    }

    fn answer(&self, answer: impl Fn() -> Answer) {
        self.0.iter().for_each(|ask| ask.answer(answer()));
    }

    async fn ask(&self, conn: &mut MultiplexedConnection) -> RedisResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (keys, places) = self.distinct();
        let got = read(conn, &keys).await?;
        let got = match got {
            // Allowed to read each key by itself perhaps, but not all of them.
            Err(refusal) if refusal.code() == "NOPERM" && keys.len() > 1 => {
                each_by_itself(conn, &keys).await?
            }
            Err(refusal) => keys.iter().map(|_| Got::refused(refusal.clone())).collect(),
            Ok(got) => got,
        };
        if keys.len() == self.0.len() {
            let answers = self.0.iter().zip(got);
            answers.for_each(|(ask, got)| ask.answer(Answer::Got(got)));
            return Ok(());
        }
        for (ask, place) in self.0.iter().zip(places) {
            if let Some(got) = got.get(place) {
                ask.answer(Answer::Got(got.clone()));
            }
        }
        Ok(())
    }

    /// Each key once, and where in that list the key of each caller stands.
    fn distinct(&self) -> (Vec<Wanted<'_>>, Vec<usize>) {
        let count = self.0.len();
        let mut places: HashMap<&[u8], usize, ahash::RandomState> =
            HashMap::with_capacity_and_hasher(count, ahash::RandomState::default());
        let mut wanted: Vec<Wanted<'_>> = Vec::with_capacity(count);
        let mut of_each = Vec::with_capacity(count);
        for ask in &self.0 {
            let (key, pttl) = (ask.key(), false);
            let place = *places.entry(key).or_insert_with(|| {
                wanted.push(Wanted { key, pttl });
                wanted.len() - 1
            });
            wanted[place].pttl |= ask.pttl();
            of_each.push(place);
        }
        (wanted, of_each)
    }
}

/// A key to ask for, and whether for its life too.
struct Wanted<'k> {
    key: &'k [u8],
    pttl: bool,
}

/// One round trip for all keys; the server's refusal where it refused the whole.
async fn read(
    conn: &mut MultiplexedConnection,
    keys: &[Wanted<'_>],
) -> RedisResult<Result<Vec<Got>, ServerError>> {
    let get = get(keys);
    let timed = keys.iter().filter(|wanted| wanted.pttl);
    if timed.clone().next().is_none() {
        let reply = conn.send_packed_command(&get).await?;
        return Ok(values(keys.len(), reply));
    }
    // Together, or the life might be that of another value than was read.
    let mut pipeline = redis::pipe();
    pipeline.atomic().add_command(get);
    for wanted in timed {
        pipeline.cmd("PTTL").arg(wanted.key);
    }
    // All replies of the transaction are asked for, those of MULTI and QUEUED too; the last is that of EXEC.
    let replies = pipeline.len() + 2;
    let mut replies = conn.send_packed_commands(&pipeline, 0, replies).await?;
    let refusal = |replies: &[Value]| {
        replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(error.clone()),
            _ => None,
        })
    };
    let Some(Value::Array(mut inside)) = replies.pop_if(|last| matches!(last, Value::Array(_)))
    else {
        return Ok(match refusal(&replies) {
            Some(error) => Err(error),
            None => Ok(vec![Got::strange(); keys.len()]),
        });
    };
    if inside.is_empty() {
        return Ok(Ok(vec![Got::strange(); keys.len()]));
    }
    let lives = inside.split_off(1);
    let reply = inside.pop().unwrap_or(Value::Nil);
    Ok(values(keys.len(), reply).map(|mut got| {
        let timed = keys.iter().zip(&mut got).filter(|(wanted, _)| wanted.pttl);
        for ((_, got), life) in timed.zip(lives) {
            if let Value::Int(life) = life {
                got.pttl = Some(life);
            }
        }
        got
    }))
}

fn get(keys: &[Wanted<'_>]) -> Cmd {
    if let [wanted] = keys {
        let mut get = cmd("GET");
        get.arg(wanted.key);
        return get;
    }
    let bytes = keys.iter().map(|wanted| wanted.key.len()).sum::<usize>() + 4;
    let mut mget = Cmd::with_capacity(keys.len() + 1, bytes);
    mget.arg("MGET");
    for wanted in keys {
        mget.arg(wanted.key);
    }
    mget
}

/// What a reply to `GET` or `MGET` holds for `count` keys.
fn values(count: usize, reply: Value) -> Result<Vec<Got>, ServerError> {
    Ok(match reply {
        Value::ServerError(error) => return Err(error),
        Value::Array(values) if count > 1 && values.len() == count => {
            values.into_iter().map(Got::of).collect()
        }
        value if count == 1 => vec![Got::of(value)],
        _ => vec![Got::strange(); count],
    })
}

/// For readers whose rights differ from key to key. What is read so is an answer, but no copy of it is kept: its life might
/// be that of another value.
async fn each_by_itself(
    conn: &mut MultiplexedConnection,
    keys: &[Wanted<'_>],
) -> RedisResult<Vec<Got>> {
    let mut gets = redis::pipe();
    for wanted in keys {
        gets.cmd("GET").arg(wanted.key);
    }
    let replies = conn.send_packed_commands(&gets, 0, keys.len()).await?;
    let got = keys.iter().zip(replies).map(|(wanted, reply)| Got {
        pttl: wanted.pttl.then_some(0),
        ..Got::of(reply)
    });
    Ok(got.collect())
}
