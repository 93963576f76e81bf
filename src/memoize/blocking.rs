//! Functions that are not async.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use crate::backend::Backend;
use crate::backends::null::Null;
use crate::wrap::prefixed::Prefixed;
use crate::wrap::tiered::Tiered;

/// A store of this process alone, which answers at once whatever it is asked: what a function that is not async can be memoized in.
///
/// A store of your own may say so of itself. One that makes its callers wait blocks their threads.
///
/// ```
/// use larder::{Moka, memoize};
///
/// #[memoize(ttl = 60)]
/// fn squared(cache: &Moka, number: u64) -> u64 {
///     number * number
/// }
///
/// let cache = Moka::new(100);
/// assert_eq!(squared(&cache, 7), 49);
/// ```
#[diagnostic::on_unimplemented(
    message = "a function that is not async cannot be memoized in `{Self}`",
    label = "this cache may have to be waited for",
    note = "make the function async, or use a cache of this process, such as `Moka`"
)]
pub trait InProcess: Backend {}

#[cfg(feature = "moka")]
impl InProcess for crate::backends::moka::Moka {}
impl InProcess for Null {}
impl<C: InProcess> InProcess for Prefixed<C> {}
impl<A: InProcess, B: InProcess> InProcess for Tiered<A, B> {}
impl<B: InProcess + ?Sized> InProcess for Arc<B> {}
impl<B: InProcess + ?Sized> InProcess for Box<B> {}
impl<B: InProcess + ?Sized> InProcess for &'static B {}

/// Looks again at least so often: patience is kept without a runtime's timer, which this thread may be the one to turn.
const LOOK: Duration = Duration::from_millis(50);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
pub(super) fn wait_for<R>(future: impl Future<Output = R>) -> R {
    let mut future = pin!(future);
    // Most are ready at once.
    if let Poll::Ready(answer) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return answer;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
        std::thread::park_timeout(LOOK);
    }
}
