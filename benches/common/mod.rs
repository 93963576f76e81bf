//! What the benches of hits share.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The answer of a future that is ready at once, as a hit must be.
pub(crate) fn ready<R>(future: impl Future<Output = R>) -> R {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a hit in memory waited"),
    }
}

/// The median, the least and the greatest.
pub(crate) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}

/// In an order that is random, and the same in each run.
pub(crate) fn shuffle<T>(values: &mut [T]) {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for i in (1..values.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values.swap(i, (state % (i as u64 + 1)) as usize);
    }
}
