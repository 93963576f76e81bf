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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn turns_of_others_cost_it_nothing() {
        let (polls, waker) = (Cell::new(0), RefCell::new(None));
        let counted = poll_fn(|cx| {
            polls.set(polls.get() + 1);
            waker.replace(Some(cx.waker().clone()));
            match polls.get() {
                1 => Poll::Pending,
                _ => Poll::Ready("done"),
            }
        });
        let mut alone = pin!(in_own_turns(counted));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert_eq!(alone.as_mut().poll(&mut cx), Poll::Pending);
        }
        assert_eq!(polls.get(), 1);
        waker.take().map(Waker::wake).expect("it was polled");
        assert_eq!(alone.as_mut().poll(&mut cx), Poll::Ready("done"));
    }
}
