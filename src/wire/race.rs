//! Futures in one task. (`tokio::select!` needs tokio's macros, which nothing else here does.)

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Which of two futures was ready first.
pub(super) enum First<A, B> {
    Left(A),
    Right(B),
}

/// Runs a future in the turns that it asked for itself: those of its task that others asked for cost it nothing.
pub(super) async fn in_own_turns<F: Future>(future: F) -> F::Output {
    let mut alone = FuturesUnordered::new();
    alone.push(future);
    poll_fn(|cx| match alone.poll_next_unpin(cx) {
        Poll::Ready(Some(output)) => Poll::Ready(output),
        // There is one, until it is ready.
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
    .await
}

/// Runs two futures until one is ready, the left one where both are, and drops the other.
pub(super) async fn first<A: Future, B: Future>(a: A, b: B) -> First<A::Output, B::Output> {
    let (mut a, mut b): (Pin<&mut A>, Pin<&mut B>) = (pin!(a), pin!(b));
    poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(left) => Poll::Ready(First::Left(left)),
        Poll::Pending => b.as_mut().poll(cx).map(First::Right),
    })
    .await
}
