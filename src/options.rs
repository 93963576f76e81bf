//! How a value is stored, and what is done when computing it is slow or fails.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::generation::{MAX_TAG_BYTES, MAX_TAGS};
use crate::refresh::RefreshAhead;
use crate::report::Report;
use crate::ttl::Ttl;

/// The longest compute whose value is stored. One that nobody waits for is dropped then.
pub(crate) const MAX_COMPUTE: Duration = Duration::from_secs(15 * 60);

const SHORTEST_LEASE: Duration = Duration::from_millis(50);

/// For how long a stale value is answered without another try once its compute failed, unless set.
const THROTTLE: Duration = Duration::from_secs(5);

/// How a value is stored, and what is done when computing it is slow or fails. A [`Duration`] or a [`Ttl`] alone is one.
///
/// ```
/// use std::time::Duration;
/// use larder::Options;
/// let options = Options::ttl(Duration::from_secs(60)).tag("users").tag("user:42");
/// assert_eq!(options.tags().collect::<Vec<_>>(), ["users", "user:42"]);
/// ```
///
/// # Who says what
///
/// What a compute says through its [`Context`](crate::Context) stands over what its call says, that over what the cache was built with
/// ([`options`](crate::core::Settings::options)), and that over what is written here as "unless set". Tags add up: a value has those of the cache,
/// of the call and of the compute.
///
/// # Grace
///
/// With a [`grace`](Self::grace), a value is kept past its ttl, stale, for the time in which computing it anew fails or is slow:
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Options};
/// # fn main() -> larder::Result<()> {
/// # #[cfg(feature = "moka")]
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let cache = larder::Moka::new(100);
/// let options = || Options::ttl(Duration::from_millis(10)).grace(Duration::from_secs(3600));
/// cache.get_or_set("rate", options(), || async { 7 }).await?;
/// tokio::time::sleep(Duration::from_millis(20)).await;
/// let report = larder::Report::new();
/// let rate: Result<i32, larder::Error> = cache
///     .try_get_or_set("rate", options().report(&report), || async { Err(larder::Error::new(larder::ErrorKind::Compute, "the bank is closed")) })
///     .await;
/// assert_eq!(rate?, 7);
/// assert!(report.is_stale());
/// # Ok::<_, larder::Error>(())
/// # })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    pub(crate) ttl: Ttl,
    pub(crate) tags: Vec<Box<str>>,
    grace: Option<Duration>,
    throttle: Option<Duration>,
    soft_timeout: Option<Duration>,
    hard_timeout: Option<Duration>,
    goes_on: Option<bool>,
    refresh: Option<RefreshAhead>,
    lease: Option<Duration>,
    jitter: Option<f64>,
    none_ttl: Option<Ttl>,
    error_ttl: Option<Duration>,
    max_waiters: Option<usize>,
    report: Option<Report>,
    /// The caller has no way to say that it has an error.
    lenient: bool,
}

impl Options {
    /// With this ttl.
    #[must_use]
    pub fn ttl(ttl: impl Into<Ttl>) -> Self {
        Self {
            ttl: ttl.into(),
            ..Self::default()
        }
    }

    /// Adds a tag: [`invalidate_tag`](crate::Cache::invalidate_tag) makes every value that has it nothing.
    ///
    /// At most 32 tags of 1 to 255 bytes each; more, or other ones, are refused with [`ErrorKind::Key`] where the value is to be
    /// stored. One that is there already is not added.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        self.add(tag.into());
        self
    }

    /// Keeps the value for so long past its ttl, and answers it then where its compute errs, panics, or is slower than the
    /// [soft timeout](Self::soft_timeout). Zero, as it is unless set, is none; 49 days are the longest.
    ///
    /// Who stores the value and who reads it must both have chosen it: the first says for how long, the second whether at all.
    /// [`get`](crate::Cache::get) never answers a stale value, nor does anything once it was invalidated.
    /// Values without an envelope have none: integers that are [`set`](crate::Cache::set), and all of the
    /// [`Plain`](crate::codec::Plain) codec.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Sets for how long a stale value is answered, to all who have a grace and in every tier that holds it, before anybody
    /// tries again whose compute failed. 5 seconds unless set.
    #[must_use]
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.throttle = Some(throttle);
        self
    }

    /// Answers the stale value, where there is one in its [`grace`](Self::grace), once a compute takes longer than this. None unless set;
    /// [`Duration::MAX`] is none.
    ///
    /// The compute goes on, and its value is stored. So the caller whose compute it is waits for it in spite of this, unless the
    /// compute is in a task of its own as with [`get_or_set_with`](crate::Cache::get_or_set_with).
    #[must_use]
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = Some(timeout);
        self
    }

    /// Bounds how long this call takes, with all its waiting for others: past it, its answer is the stale value where
    /// there is one in its [`grace`](Self::grace), or else an error of kind [`Timeout`](ErrorKind::Timeout). None unless set; [`Duration::MAX`]
    /// is none.
    ///
    /// The compute is dropped then, and one of those who wait still begins its own; but see [`go_on`](Self::go_on).
    #[must_use]
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = Some(timeout);
        self
    }

    /// Sets whether a compute in a task of its own goes on past the [hard timeout](Self::hard_timeout), for its value to be stored. It does unless
    /// set otherwise, for 15 minutes at most.
    #[must_use]
    pub fn go_on(mut self, goes_on: bool) -> Self {
        self.goes_on = Some(goes_on);
        self
    }

    /// Computes the value anew before its ttl is over, while callers are answered the present one: in the background, one at a time
    /// for each key in all processes that share the store, where a hit finds it due. Never unless set.
    ///
    /// The compute must be in a task of its own: it is that of [`get_or_set_with`](crate::Cache::get_or_set_with), other calls only
    /// answer. One that fails is not tried again for the [`throttle`](Self::throttle) time. At most
    /// [`max_refreshes`](crate::core::Settings::max_refreshes) are under way at a time; a hit that finds as many does nothing.
    ///
    /// Give the value a [`grace`](Self::grace) too: without one, callers wait where the refresh takes longer than the ttl lasts.
    #[must_use]
    pub fn refresh_ahead(mut self, refresh: RefreshAhead) -> Self {
        self.refresh = Some(refresh);
        self
    }

    /// Has one process of all that share the store compute, and the others wait for it: for a value that is computed nowhere, and for
    /// one that is [refreshed ahead](Self::refresh_ahead). The process holds a lease, which it renews as long as it computes; should it be lost or
    /// frozen, another takes over after `life`. Zero is none, as it is unless set. Two seconds are a good choice, 50 milliseconds
    /// the shortest.
    ///
    /// Who waits for another process does so for [`leader_patience`](crate::core::Settings::leader_patience), and until its hard timeout, at most; where a value
    /// is past its ttl and in its grace, until the soft timeout. Then it computes for itself, and stores that. A miss costs one
    /// round trip, as without, but reads that may compute are scripts, which cost the server some more. In a store of this
    /// process alone there is nothing to lease.
    #[must_use]
    pub fn lease(mut self, life: Duration) -> Self {
        self.lease = Some(life);
        self
    }

    /// Shortens each ttl by a part of it that chance chooses, of 0 up to this: so values that are stored together do not end together. 0.1 is a
    /// tenth at most; 0, as it is unless set, is none, and 1 is the most. All tiers have the same.
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = Some(part);
        self
    }

    /// Stores a `None` that was computed for this long, instead of as long as a value. As long unless set; a zero
    /// `Duration` stores none.
    #[must_use]
    pub fn none_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.none_ttl = Some(ttl.into());
        self
    }

    /// Keeps it for so long that a compute failed, where there is no stale value to be answered: calls that chose this too have an error of
    /// kind [`Compute`](ErrorKind::Compute) with the text of that failure, cut at 1 KiB, and do not try, in any process. Zero, as it is unless set,
    /// keeps none. To `get`, `has`, `add` and the like there is nothing.
    #[must_use]
    pub fn error_ttl(mut self, ttl: Duration) -> Self {
        self.error_ttl = Some(ttl);
        self
    }

    /// Bounds how many callers wait for one compute of a key in a process: one more has the stale value where there is one in
    /// its [`grace`](Self::grace), or else an error of kind [`Busy`](ErrorKind::Busy), at once. No bound unless set.
    #[must_use]
    pub fn max_waiters(mut self, count: usize) -> Self {
        self.max_waiters = Some(count);
        self
    }

    /// Has the call tell where its answer comes from.
    #[must_use]
    pub fn report(mut self, report: &Report) -> Self {
        self.report = Some(report.clone());
        self
    }

    /// The tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|tag| &**tag)
    }

    pub(crate) fn add(&mut self, tag: Box<str>) {
        // One more than there may be is refused later.
        if self.tags.len() <= MAX_TAGS && !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
    }

    /// What is left unset as those below have it.
    pub(crate) fn over(mut self, below: &Self) -> Self {
        if self.ttl == Ttl::Default {
            self.ttl = below.ttl;
        }
        below.tags.iter().for_each(|tag| self.add(tag.clone()));
        self.grace = self.grace.or(below.grace);
        self.throttle = self.throttle.or(below.throttle);
        self.soft_timeout = self.soft_timeout.or(below.soft_timeout);
        self.hard_timeout = self.hard_timeout.or(below.hard_timeout);
        self.goes_on = self.goes_on.or(below.goes_on);
        self.refresh = self.refresh.or(below.refresh);
        self.lease = self.lease.or(below.lease);
        self.jitter = self.jitter.or(below.jitter);
        self.none_ttl = self.none_ttl.or(below.none_ttl);
        self.error_ttl = self.error_ttl.or(below.error_ttl);
        self.max_waiters = self.max_waiters.or(below.max_waiters);
        self
    }

    /// How long past its ttl a value is kept, and answered.
    pub(crate) fn graces(&self) -> Duration {
        self.grace.unwrap_or_default()
    }

    /// As it will be [`over`](Self::over) those.
    pub(crate) fn grace_or(&self, below: &Self) -> Duration {
        self.grace.or(below.grace).unwrap_or_default()
    }

    /// As it will be [`over`](Self::over) those.
    pub(crate) fn refreshes_or(&self, below: &Self) -> RefreshAhead {
        self.refresh.or(below.refresh).unwrap_or_default()
    }

    /// A life with what chance, from 0 to 1, takes of it.
    pub(crate) fn jittered(&self, life: Duration, chance: f64) -> Duration {
        // What is no number is none.
        let part = self.jitter.filter(|part| *part > 0.0).unwrap_or(0.0);
        life.mul_f64((1.0 - part.min(1.0) * chance).clamp(0.0, 1.0))
    }

    /// Of a computed `None`.
    pub(crate) fn ttl_of_none(&self) -> Ttl {
        self.none_ttl.unwrap_or(self.ttl)
    }

    pub(crate) fn error_ttl_chosen(&self) -> Option<Duration> {
        self.error_ttl.filter(|ttl| !ttl.is_zero())
    }

    pub(crate) fn waiters(&self) -> usize {
        self.max_waiters.unwrap_or(usize::MAX)
    }

    /// For how long a compute is leased, if it is.
    pub(crate) fn leased(&self) -> Option<Duration> {
        let life = self.lease.filter(|life| !life.is_zero());
        life.map(|life| life.clamp(SHORTEST_LEASE, MAX_COMPUTE))
    }

    pub(crate) fn refreshes(&self) -> RefreshAhead {
        self.refresh.unwrap_or_default()
    }

    pub(crate) fn throttles(&self) -> Duration {
        self.throttle.unwrap_or(THROTTLE)
    }

    pub(crate) fn softly(&self) -> Option<Duration> {
        self.soft_timeout.filter(|timeout| *timeout < Duration::MAX)
    }

    pub(crate) fn hard(&self) -> Option<Duration> {
        self.hard_timeout.filter(|timeout| *timeout < Duration::MAX)
    }

    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on.unwrap_or(true)
    }

    pub(crate) fn told(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// For a caller who cannot be answered an error: a strict cache is none to it, and no timeout is hard.
    #[cfg(feature = "macros")]
    pub(crate) fn lenient(mut self) -> Self {
        self.hard_timeout = Some(Duration::MAX);
        self.unstrict()
    }

    /// For one to whom a store's error is nothing.
    #[cfg(any(feature = "http", feature = "macros"))]
    pub(crate) fn unstrict(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Whether the caller has the store's errors, in a cache that is strict or is not.
    pub(crate) fn is_strict(&self, cache: bool) -> bool {
        cache && !self.lenient
    }

    /// Stores no `None`, unless these or those below have a ttl for it.
    #[cfg(feature = "macros")]
    pub(crate) fn without_none(mut self, below: &Self) -> Self {
        self.none_ttl = self
            .none_ttl
            .or(below.none_ttl)
            .or(Some(Ttl::After(Duration::ZERO)));
        self
    }

    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = Some(grace);
    }

    /// Refuses tags that cannot be kept.
    pub(crate) fn check(&self) -> Result<()> {
        if self.tags.len() > MAX_TAGS {
            let why = format!("a value has {MAX_TAGS} tags at most");
            return Err(Error::new(ErrorKind::Key, why));
        }
        self.tags.iter().try_for_each(|tag| check_tag(tag))
    }
}

/// Refuses a tag that cannot be kept.
pub(crate) fn check_tag(tag: &str) -> Result<()> {
    let why = if tag.is_empty() {
        "a tag must not be empty".to_owned()
    } else if tag.len() > MAX_TAG_BYTES {
        format!("a tag has {MAX_TAG_BYTES} bytes at most")
    } else if tag.chars().any(char::is_control) {
        "a tag must not hold control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Key, why).with("tag", tag.escape_debug()))
}

impl From<Ttl> for Options {
    fn from(ttl: Ttl) -> Self {
        Self::ttl(ttl)
    }
}

impl From<Duration> for Options {
    fn from(ttl: Duration) -> Self {
        Self::ttl(ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_cannot_be_kept_are_refused() {
        let options = Options::ttl(Ttl::Forever).tag("a").tag("a").tag("b");
        assert_eq!(options.tags().count(), 2);
        options.check().unwrap();
        let many = (0..40).fold(Options::default(), |options, i| options.tag(i.to_string()));
        for options in [
            many,
            Options::default().tag(""),
            Options::default().tag("a\nb"),
            Options::default().tag("x".repeat(MAX_TAG_BYTES + 1)),
        ] {
            assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Key);
        }
        Options::default()
            .tag("x".repeat(MAX_TAG_BYTES))
            .check()
            .unwrap();
    }
}
