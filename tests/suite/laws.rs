//! The laws, each where it is hardest to keep: races held open with a store that stalls on command.

mod coherence;
mod failures;
mod flights;
mod outages;

use larder::testing::Faulty;
use larder::{Eviction, Moka, MokaBuilder, Ttl};

const FOR_EVER: Ttl = Ttl::Forever;

fn builder() -> MokaBuilder {
    Moka::builder().eviction(Eviction::Lru).round_trip(true)
}

fn memory() -> Moka {
    builder().build()
}

/// A store that is asked as a server is, and stalls and fails on command.
fn server() -> Faulty<Moka> {
    Faulty::remote(memory())
}

/// Polls a call once, so that it goes as far as it can.
async fn begun<F: Future + Unpin>(call: &mut F) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *call).poll(cx))).await
}
