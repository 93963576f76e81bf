//! Where an answer came from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::clock::Moment;

/// Tells a caller where its answer came from: given to a call with [`Options::report`](crate::Options::report), and read when that has returned.
///
/// Clones are the same report. One that is given to several calls tells of the one that was answered last.
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Options, Report, Source};
/// # #[cfg(feature = "moka")]
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let cache = larder::Moka::new(100);
/// let report = Report::new();
/// for source in [Source::Computed, Source::Memory] {
///     let options = Options::ttl(Duration::from_secs(60)).report(&report);
///     let answer = cache.get_or_set("answer", options, || async { 42 }).await.unwrap();
///     assert_eq!((answer, report.source()), (42, Some(source)));
/// }
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Report(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    source: AtomicU8,
    /// When the life of the answer ends, in nanoseconds of the cache's clock; 0 where that was not told.
    end: AtomicU64,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// From memory of this process.
    Memory,
    /// From a store that had to be asked.
    Store,
    /// It was computed by this call.
    Computed,
    /// Another caller computed it, or found it, meanwhile.
    Joined,
    /// It stood in the cache past its ttl: computing it anew failed, was slow, or was tried in vain a short while ago.
    Stale,
}

const SOURCES: [Source; 5] = [
    Source::Memory,
    Source::Store,
    Source::Computed,
    Source::Joined,
    Source::Stale,
];

impl Report {
    /// A report of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the answer came from; nothing before there is one, and where the answer was an error.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        let told = usize::from(self.0.source.load(Ordering::Acquire));
        SOURCES.get(told.checked_sub(1)?).copied()
    }

    /// Whether the answer is past its ttl.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.source() == Some(Source::Stale)
    }

    /// When the life of an answer ends that was found in the cache.
    #[cfg(feature = "http")]
    pub(crate) fn end(&self) -> Option<Moment> {
        let end = self.0.end.load(Ordering::Acquire);
        (end > 0).then(|| Moment::of_nanos(end))
    }

    /// Before the source is told.
    pub(crate) fn tell_end(&self, end: Moment) {
        self.0.end.store(end.as_nanos(), Ordering::Release);
    }

    pub(crate) fn tell(&self, source: Source) {
        let at = SOURCES.iter().position(|other| *other == source);
        let told = at.and_then(|at| u8::try_from(at + 1).ok());
        self.0.source.store(told.unwrap_or(0), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_told() {
        let report = Report::new();
        assert_eq!(report.source(), None);
        for source in SOURCES {
            report.clone().tell(source);
            assert_eq!(report.source(), Some(source));
            assert_eq!(report.is_stale(), source == Source::Stale);
        }
    }
}
