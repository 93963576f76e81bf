//! What runs a case: the store's factory, its profile, a runtime and a bound.

use std::any::Any;
use std::pin::Pin;
use std::time::Duration;

use crate::cache::Cache;

/// No case takes longer.
const BOUND: Duration = Duration::from_secs(60);

/// What a factory answers: a cache, or a cache and a guard that keeps its servers alive.
pub trait Fixture {
    /// The cache.
    type Cache: Cache;

    /// The cache, and what must live as long as it.
    fn into_parts(self) -> (Self::Cache, Box<dyn Any + Send>);
}

impl<C: Cache> Fixture for C {
    type Cache = C;

    fn into_parts(self) -> (C, Box<dyn Any + Send>) {
        (self, Box::new(()))
    }
}

impl<C: Cache, G: Any + Send> Fixture for (C, G) {
    type Cache = C;

    fn into_parts(self) -> (C, Box<dyn Any + Send>) {
        (self.0, Box::new(self.1))
    }
}

/// In what a store differs from others. Where it does, the suite asserts the difference.
///
/// ```
/// use larder::conformance::Profile;
/// let plain_map = Profile::full().without_counters().without_touch();
/// assert!(plain_map.stores() && !plain_map.counts() && !plain_map.touches());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    stores: bool,
    counts: bool,
    touches: bool,
}

impl Profile {
    /// A store that offers everything.
    #[must_use]
    pub fn full() -> Self {
        Self {
            stores: true,
            counts: true,
            touches: true,
        }
    }

    /// A store that holds nothing: each write is as if the value were lost right after it.
    #[must_use]
    pub fn null() -> Self {
        Self {
            stores: false,
            ..Self::full()
        }
    }

    /// `incr` and `decr` are errors of kind `Unsupported`.
    #[must_use]
    pub fn without_counters(self) -> Self {
        Self {
            counts: false,
            ..self
        }
    }

    /// `touch` is an error of kind `Unsupported`.
    #[must_use]
    pub fn without_touch(self) -> Self {
        Self {
            touches: false,
            ..self
        }
    }

    /// Whether the store holds what it is given.
    #[must_use]
    pub fn stores(self) -> bool {
        self.stores
    }

    /// Whether it has counters.
    #[must_use]
    pub fn counts(self) -> bool {
        self.counts
    }

    /// Whether it can change a deadline.
    #[must_use]
    pub fn touches(self) -> bool {
        self.touches
    }
}

type Boxed<'a, R> = Pin<Box<dyn Future<Output = R> + 'a>>;
type Case = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs one case on a store of its own; what the macro [`conformance!`](crate::conformance!) calls.
///
/// # Panics
///
/// If the case fails, or is not done within a minute.
pub fn run<F, S, Making, Running>(name: &str, factory: F, case: impl FnOnce(S::Cache) -> Running)
where
    F: FnOnce() -> Making,
    Making: Future<Output = S>,
    S: Fixture,
    Running: Future<Output = ()> + Send + 'static,
{
    // Boxed here, so that what follows is compiled once, and not for each of some thousand tests.
    drive(
        name,
        Box::pin(async {
            let (cache, guard) = factory().await.into_parts();
            (Box::pin(case(cache)) as Case, guard)
        }),
    );
}

fn drive(name: &str, making: Boxed<'_, (Case, Box<dyn Any + Send>)>) {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => panic!("{name}: no runtime: {error}"),
    };
    let made = runtime.block_on(async { tokio::time::timeout(BOUND, making).await });
    let Ok((case, guard)) = made else {
        panic!("{name}: the factory was not done within {BOUND:?}");
    };
    // Awaited outside the runtime, whose timers stand still if a case keeps all its threads busy.
    let (tell, told) = std::sync::mpsc::channel();
    let running = runtime.spawn(case);
    runtime.spawn(async move { tell.send(running.await) });
    let ended = told.recv_timeout(BOUND);
    drop(guard);
    runtime.shutdown_background();
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(failure) => panic!("{name}: {failure}"),
        },
        Err(_) => panic!("{name}: not done within {BOUND:?}"),
    }
}
