//! The time of this process. No clock of another machine is ever compared with it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A point on the process's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Later than any other.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `span` later, [`NEVER`](Self::NEVER) past the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(span))
    }

    /// The moment `span` earlier; [`NEVER`](Self::NEVER) stays what it is.
    pub(crate) fn before(self, span: Duration) -> Self {
        if self == Self::NEVER {
            return self;
        }
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(span))
    }

    /// The time from `earlier` until this moment, zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn of_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
}

/// Where a cache reads the time: the process's monotonic clock, or one that a test sets by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    by_hand: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The process's monotonic clock.
    pub(crate) const REAL: Self = Self { by_hand: None };

    /// A clock that stands still until it is [advanced](Self::advance). Its clones move with it.
    #[must_use]
    pub fn manual() -> Self {
        Self {
            by_hand: Some(Arc::new(AtomicU64::new(Self::default().now().0))),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.by_hand {
            Some(nanos) => Moment(nanos.load(Ordering::Acquire)),
            // Zero is kept for "no time at all".
            None => Moment(1).after(starts().exact.elapsed()),
        }
    }

    /// The time at an instant that has just been read, which saves reading it again.
    pub(crate) fn at(&self, instant: Instant) -> Moment {
        match &self.by_hand {
            Some(_) => self.now(),
            None => Moment(1).after(instant.saturating_duration_since(starts().exact)),
        }
    }

    /// Whether `moment` has not come yet, told as cheaply as it can be.
    #[inline]
    pub(crate) fn is_before(&self, moment: Moment) -> bool {
        #[cfg(feature = "moka")]
        if self.is_well_before(moment) {
            return true;
        }
        self.now() < moment
    }

    /// Whether `moment` has surely not come yet, told by a clock that costs less and is at most some milliseconds off.
    /// Within [`MARGIN`] of it the answer is no, and only [`now`](Self::now) can tell.
    #[cfg(feature = "moka")]
    #[inline]
    pub(crate) fn is_well_before(&self, moment: Moment) -> bool {
        if moment == Moment::NEVER {
            return true;
        }
        if self.by_hand.is_some() {
            return false;
        }
        let coarse = coarsetime::Instant::now_without_cache_update()
            .duration_since(starts().coarse)
            .as_nanos();
        coarse.saturating_add(MARGIN) < moment.0
    }

    /// Moves a manual clock forward; the real one goes by itself.
    pub fn advance(&self, span: Duration) {
        if let Some(nanos) = &self.by_hand {
            let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            nanos.fetch_add(span, Ordering::AcqRel);
        }
    }
}

/// How far the coarse clock may be behind, in nanoseconds: many ticks of any kernel.
#[cfg(feature = "moka")]
const MARGIN: u64 = 100_000_000;

/// When both clocks were first read: the zero of every [`Moment`].
struct Starts {
    exact: Instant,
    #[cfg(feature = "moka")]
    coarse: coarsetime::Instant,
}

fn starts() -> &'static Starts {
    static STARTS: OnceLock<Starts> = OnceLock::new();
    STARTS.get_or_init(|| Starts {
        exact: Instant::now(),
        #[cfg(feature = "moka")]
        coarse: coarsetime::Instant::now_without_cache_update(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.clone().advance(Duration::from_secs(5));
        assert_eq!(clock.now().since(start), Duration::from_secs(5));
    }

    #[test]
    fn moments_saturate() {
        assert_eq!(Clock::default().now().after(Duration::MAX), Moment::NEVER);
        assert_eq!(Moment(3).since(Moment(9)), Duration::ZERO);
    }
}
