//! Two futures in one task. (`tokio::select!` needs tokio's macros, which nothing else here does.)

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// Which of two futures was ready first.
pub(super) enum First<A, B> {
    Left(A),
    Right(B),
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
