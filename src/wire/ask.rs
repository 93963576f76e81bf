//! One caller's place in a gathered get: the key on its way there, the answer on its way back, in one allocation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::get::{Failure, Got};

/// Keys up to this length need no allocation of their own.
const SHORT: usize = 64;

/// What a caller comes to.
#[derive(Debug)]
pub(crate) enum Answer {
    Got(Got),
    /// The link did not answer in time.
    Late,
    /// The link is gone.
    Lost,
}

impl Answer {
    /// What came of the get.
    pub(super) fn outcome(self) -> Result<Got, Failure> {
        match self {
            Self::Got(got) => Ok(got),
            Self::Late => Err(Failure::Late),
            Self::Lost => Err(Failure::lost()),
        }
    }
}

enum Key {
    Short { bytes: [u8; SHORT], length: usize },
    Long(Box<[u8]>),
}

enum State {
    Waiting(Option<Waker>),
    Answered(Answer),
    Taken,
}

/// A key that a caller waits for.
pub(super) struct Ask {
    key: Key,
    pttl: bool,
    since: Instant,
    state: Mutex<State>,
}

impl Ask {
    /// A key to be asked for; `waker` is the caller's, if it is at hand.
    pub(super) fn new(key: &str, pttl: bool, since: Instant, waker: Option<Waker>) -> Self {
        let (text, length) = (key.as_bytes(), key.len());
        let mut bytes = [0; SHORT];
        let key = match bytes.get_mut(..length) {
            Some(room) => {
                room.copy_from_slice(text);
                Key::Short { bytes, length }
            }
            None => Key::Long(text.into()),
        };
        Self {
            key,
            pttl,
            since,
            state: Mutex::new(State::Waiting(waker)),
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        match &self.key {
            Key::Short { bytes, length } => &bytes[..*length],
            Key::Long(bytes) => bytes,
        }
    }

    /// Since when it is waited for.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Whether the remaining life is wanted too.
    pub(super) fn pttl(&self) -> bool {
        self.pttl
    }

    /// Whether somebody waits for it still.
    pub(super) fn is_wanted(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }

    /// Gives the caller an answer; the first one counts. Let go of before the caller is woken, which then frees it: memory is
    /// cheapest where it is given back by who took it.
    pub(super) fn answer(self: Arc<Self>, answer: Answer) {
        let mut state = self.lock();
        let waker = match &mut *state {
            State::Waiting(waker) => waker.take(),
            _ => return,
        };
        *state = State::Answered(answer);
        drop(state);
        drop(self);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for the answer.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Answered(answer) => Poll::Ready(answer),
            // Asked again after it was told: nobody does.
            State::Taken => Poll::Ready(Answer::Lost),
            State::Waiting(waker) => {
                let waker = waker.filter(|waker| waker.will_wake(cx.waker()));
                *state = State::Waiting(waker.or_else(|| Some(cx.waker().clone())));
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn the_first_answer_counts_and_wakes() {
        let ask = Arc::new(Ask::new("k", false, Instant::now(), None));
        let answering = Arc::clone(&ask);
        let answered = tokio::spawn(async move {
            tokio::task::yield_now().await;
            Arc::clone(&answering).answer(Answer::Late);
            answering.answer(Answer::Lost);
        });
        assert!(matches!(poll_fn(|cx| ask.poll(cx)).await, Answer::Late));
        answered.await.unwrap();
        assert!(!ask.is_wanted());
    }

    #[test]
    fn keys_of_any_length_are_kept() {
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, 1024] {
            let key = "k".repeat(length);
            assert_eq!(
                Ask::new(&key, true, Instant::now(), None).key(),
                key.as_bytes()
            );
        }
    }
}
