//! Gets that are asked for together: one `MGET`, and who gets what of its answer.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, ServerError, Value, cmd};
use tokio::time::{Instant, timeout_at};

use super::ask::{Answer, Ask};
use super::get::Got;

/// A caller, and where among the keys that are asked for its own stands.
struct Place {
    key: usize,
    ask: Arc<Ask>,
}

/// What an exchange says about the link.
pub(super) enum Exchanged {
    /// The server answered, as it should or not, with so many bytes in all.
    Answered { well: bool, bytes: usize },
    /// It did not, in time.
    Late,
    /// The connection is of no use any more.
    Lost,
}

/// Callers whose gets are sent together. Those who were answered are no longer in it.
pub(super) struct Batch(Mutex<Vec<Place>>);

impl Batch {
    pub(super) fn new(asks: Vec<Arc<Ask>>) -> Self {
        let places = asks.into_iter().map(|ask| Place { key: 0, ask });
        Self(Mutex::new(places.collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Place> {
        std::mem::take(&mut *self.lock())
    }

    /// Asks the server and hands the answers out. Each get is late by itself: they have waited for different times before
    /// they were sent.
    pub(super) async fn exchange(
        &self,
        conn: &MultiplexedConnection,
        bound: Duration,
    ) -> Exchanged {
        let mut asked = pin!(self.ask(conn.clone()));
        loop {
            let oldest = self.lock().iter().map(|place| place.ask.since()).min();
            let Some(oldest) = oldest else {
                return Exchanged::Late;
            };
            if let Ok(outcome) = timeout_at(oldest + bound, asked.as_mut()).await {
                self.give_up();
                return outcome.unwrap_or(Exchanged::Lost);
            }
            self.expire(oldest);
        }
    }

    /// Tells those who have waited since `latest` or longer that no answer came.
    pub(super) fn expire(&self, latest: Instant) {
        let mut places = self.lock();
        let late = places.extract_if(.., |place| place.ask.since() <= latest);
        let late: Vec<_> = late.collect();
        drop(places);
        late.into_iter()
            .for_each(|place| place.ask.answer(Answer::Late));
    }

    /// Tells those who wait still that none will come.
    pub(super) fn give_up(&self) {
        let left = self.take();
        left.into_iter()
            .for_each(|place| place.ask.answer(Answer::Lost));
    }

    async fn ask(&self, mut conn: MultiplexedConnection) -> RedisResult<Exchanged> {
        let (question, shared) = self.question();
        let answer = question.ask(&mut conn).await?;
        let well = answer.is_ok();
        let got = match answer {
            Ok(got) => got,
            // Allowed to read each key by itself perhaps, but not all of them.
            Err(refusal) if refusal.code() == "NOPERM" && question.count > 1 => {
                self.each_by_itself(&mut conn, question.count).await?
            }
            Err(refusal) => vec![Got::refused(refusal); question.count],
        };
        let bytes = got.iter().map(Got::len).sum();
        let mut got: Vec<_> = got.into_iter().map(Some).collect();
        for Place { key, ask } in self.take() {
            let got = got.get_mut(key);
            let got = got.and_then(|got| if shared { got.clone() } else { got.take() });
            ask.answer(got.map_or(Answer::Lost, Answer::Got));
        }
        Ok(Exchanged::Answered { well, bytes })
    }

    /// Each key once, and whether several callers want the same one.
    fn question(&self) -> (Question, bool) {
        let mut places = self.lock();
        let callers = places.len();
        let mut keys: Vec<(&[u8], bool)> = Vec::with_capacity(callers);
        let mut known: HashMap<&[u8], usize, ahash::RandomState> =
            HashMap::with_capacity_and_hasher(callers, ahash::RandomState::default());
        for Place { key, ask } in &mut *places {
            *key = *known.entry(ask.key()).or_insert_with(|| {
                keys.push((ask.key(), false));
                keys.len() - 1
            });
            keys[*key].1 |= ask.pttl();
        }
        (Question::of(&keys), keys.len() < callers)
    }

    /// For readers whose rights differ from key to key. What is read so is an answer, but no copy of it is kept: its life
    /// might be that of another value.
    async fn each_by_itself(
        &self,
        conn: &mut MultiplexedConnection,
        count: usize,
    ) -> RedisResult<Vec<Got>> {
        let mut keys: Vec<Option<Arc<Ask>>> = vec![None; count];
        for Place { key, ask } in &*self.lock() {
            keys[*key] = Some(Arc::clone(ask));
        }
        let mut gets = redis::pipe();
        for ask in keys.iter().flatten() {
            gets.cmd("GET").arg(ask.key());
        }
        let sent = gets.len();
        let mut replies = conn.send_packed_commands(&gets, 0, sent).await?.into_iter();
        // Those whom nobody waits for any more were not asked for.
        let got = keys.iter().map(|ask| match ask {
            Some(_) => Got {
                pttl: Some(0),
                ..Got::of(replies.next().unwrap_or(Value::Nil))
            },
            None => Got::strange(),
        });
        Ok(got.collect())
    }
}

/// However it ends, nobody goes on waiting for it: it may be let go of by whoever is the last to hold it, when the link is
/// given up and what was on its way is forgotten.
impl Drop for Batch {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// What is sent for some keys, each of which is asked for once.
pub(super) struct Question {
    ask: Form,
    /// How many keys.
    count: usize,
    /// Which of them are asked for their life too.
    timed: Vec<usize>,
}

enum Form {
    Get(Cmd),
    /// With lives. One may be that of a value that has taken the place of what was read: then the server tells of that, and no
    /// copy is kept, or copies are short-lived anyway.
    Timed(Pipeline),
}

impl Question {
    /// For these keys, each with whether its life is wanted too.
    pub(super) fn of(keys: &[(&[u8], bool)]) -> Self {
        let timed = (0..keys.len()).filter(|at| keys[*at].1);
        let timed: Vec<_> = timed.collect();
        let get = get(keys);
        let ask = if timed.is_empty() {
            Form::Get(get)
        } else {
            let mut pipeline = redis::pipe();
            pipeline.add_command(get);
            for at in &timed {
                pipeline.cmd("PTTL").arg(keys[*at].0);
            }
            Form::Timed(pipeline)
        };
        Self {
            ask,
            count: keys.len(),
            timed,
        }
    }

    /// One round trip for all keys; the server's refusal where it refused the whole.
    pub(super) async fn ask(
        &self,
        conn: &mut MultiplexedConnection,
    ) -> RedisResult<Result<Vec<Got>, ServerError>> {
        let pipeline = match &self.ask {
            Form::Get(get) => {
                let reply = conn.send_packed_command(get).await?;
                return Ok(values(self.count, reply));
            }
            Form::Timed(pipeline) => pipeline,
        };
        let count = pipeline.len();
        let replies = conn.send_packed_commands(pipeline, 0, count).await?;
        let mut replies = replies.into_iter();
        let (reply, lives) = (replies.next().unwrap_or(Value::Nil), replies);
        Ok(values(self.count, reply).map(|mut got| {
            for (at, life) in self.timed.iter().zip(lives) {
                if let (Value::Int(life), Some(got)) = (life, got.get_mut(*at)) {
                    got.pttl = Some(life);
                }
            }
            got
        }))
    }
}

fn get(keys: &[(&[u8], bool)]) -> Cmd {
    if let [(key, _)] = keys {
        let mut get = cmd("GET");
        get.arg(key);
        return get;
    }
    let bytes = keys.iter().map(|(key, _)| key.len()).sum::<usize>() + 4;
    let mut mget = Cmd::with_capacity(keys.len() + 1, bytes);
    mget.arg("MGET");
    for (key, _) in keys {
        mget.arg(key);
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
