//! The future that every method of the cache returns.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a method of [`Cache`](crate::Cache) returns: an answer that is there already, or a future of it.
///
/// A named type, because `impl Future + Send` of a generic method mentions its closure, and then does not compile in
/// a spawned task that borrows. A hit in memory is answered without an allocation.
///
/// # Panics
///
/// If polled again after it was ready, as futures do.
#[must_use = "futures do nothing unless awaited"]
pub struct Op<'a, R>(State<'a, R>);

enum State<'a, R> {
    Ready(Option<R>),
    Waiting(Pin<Box<dyn Future<Output = R> + Send + 'a>>),
}

impl<'a, R> Op<'a, R> {
    pub(crate) fn ready(answer: R) -> Self {
        Self(State::Ready(Some(answer)))
    }

    pub(crate) fn wait(future: impl Future<Output = R> + Send + 'a) -> Self {
        Self(State::Waiting(Box::pin(future)))
    }
}

// The answer is never pinned: it is only moved out.
impl<R> Unpin for Op<'_, R> {}

impl<R> Future for Op<'_, R> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        match &mut self.get_mut().0 {
            State::Ready(answer) => match answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => panic!("an Op was polled after it was ready"),
            },
            State::Waiting(future) => future.as_mut().poll(cx),
        }
    }
}

impl<R> fmt::Debug for Op<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            State::Ready(_) => "Op(ready)",
            State::Waiting(_) => "Op(waiting)",
        })
    }
}
