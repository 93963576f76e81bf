//! What the cases share: fresh keys, what the profile expects, and gates in place of sleeps.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::Profile;
use super::patient::Patient;
use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::value::Cacheable;

/// Things that take time are waited for no longer than this.
pub(super) const PATIENT: Duration = Duration::from_secs(20);

/// One case on one store.
pub(super) struct Trial<C> {
    pub(super) cache: C,
    pub(super) profile: Profile,
    prefix: String,
}

/// A number that differs from call to call and from process to process.
pub(super) fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl Trial<SharedCache> {
    /// A trial whose callers wait for a leader as long as it takes: for cases that hold one up.
    pub(super) fn patient(cache: SharedCache, profile: Profile) -> Self {
        Self::new(Arc::new(Patient::new(cache)), profile)
    }
}

impl<C: Cache> Trial<C> {
    pub(super) fn new(cache: C, profile: Profile) -> Self {
        Self {
            cache,
            profile,
            prefix: format!("conformance:{:016x}:", random()),
        }
    }

    /// The prefix of this trial's keys, its own.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A key of this trial's own.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What a read answers after `value` was stored.
    pub(super) fn held<T>(&self, value: T) -> Option<T> {
        self.profile.stores().then_some(value)
    }

    /// Stores a value for ever.
    pub(super) async fn set<T: Cacheable>(&self, key: &str, value: T) {
        self.cache
            .set(key, value, crate::ttl::Ttl::Forever)
            .await
            .unwrap();
    }

    /// Asserts that the key answers `value`, or nothing where the store holds nothing.
    #[track_caller]
    pub(super) fn holds<'a, T>(
        &'a self,
        key: &'a str,
        value: T,
    ) -> impl Future<Output = ()> + Send + 'a
    where
        T: Cacheable + PartialEq + Debug,
    {
        let caller = std::panic::Location::caller();
        let (got, want) = (self.cache.get::<T>(key), self.held(value));
        async move { assert_eq!(got.await.unwrap(), want, "at {caller}") }
    }

    /// Asserts that nothing of this type is under the key.
    #[track_caller]
    pub(super) fn lacks<'a, T>(&'a self, key: &'a str) -> impl Future<Output = ()> + Send + 'a
    where
        T: Cacheable + PartialEq + Debug,
    {
        let caller = std::panic::Location::caller();
        let got = self.cache.get::<T>(key);
        async move { assert_eq!(got.await.unwrap(), None, "at {caller}") }
    }

    /// Asserts what adding `by` came to: `sum`, or what the profile says.
    #[track_caller]
    pub(super) fn summed(&self, answer: Result<i64>, by: i64, sum: i64) {
        if !self.profile.counts() {
            refused(answer, ErrorKind::Unsupported);
        } else if self.profile.stores() {
            assert_eq!(answer.unwrap(), sum);
        } else {
            assert_eq!(
                answer.unwrap(),
                by,
                "nothing is held, so an absent key is counted up"
            );
        }
    }

    /// Asserts what `touch` answered: `found`, or what the profile says.
    #[track_caller]
    pub(super) fn touched(&self, answer: Result<bool>, found: bool) {
        if self.profile.touches() {
            assert_eq!(answer.unwrap(), found && self.profile.stores());
        } else {
            refused(answer, ErrorKind::Unsupported);
        }
    }

    /// Waits until the key holds nothing. Nothing may be answered later than `slack` after the `deadline`.
    pub(super) async fn expires(&self, key: &str, deadline: Instant) {
        let slack = Duration::from_secs(2);
        loop {
            let asked = Instant::now();
            if self.cache.get::<u32>(key).await.unwrap().is_none() {
                // A reader counts from before its question, so that a slow answer is over early for it, and not for others yet.
                let end = deadline + Duration::from_millis(2);
                tokio::time::sleep_until(end.into()).await;
                return;
            }
            assert!(asked < deadline + slack, "an expired value was answered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asserts that nobody computes any more.
    #[track_caller]
    pub(super) fn is_idle(&self) {
        assert_eq!(self.cache.core().in_flight(), 0, "a flight was left behind");
    }
}

/// Asserts that an answer is an error of this kind.
#[track_caller]
pub(super) fn refused<T: Debug>(answer: Result<T>, kind: ErrorKind) {
    assert_eq!(answer.map_err(|error| error.kind()).unwrap_err(), kind);
}

/// The error type of an application.
#[derive(Clone, Debug)]
pub(super) enum AppError {
    Origin(&'static str),
    Cache(Error),
}

impl From<Error> for AppError {
    fn from(error: Error) -> Self {
        Self::Cache(error)
    }
}

/// A place where a compute stops until it is let on.
#[derive(Debug, Default)]
pub(super) struct Gate {
    entered: Notify,
    opened: Notify,
}

impl Gate {
    /// Stops here. For one caller at a time.
    pub(super) async fn pass(&self) {
        self.entered.notify_one();
        self.opened.notified().await;
    }

    /// Waits until somebody stops.
    pub(super) async fn entered(&self) {
        self.entered.notified().await;
    }

    /// Lets the one that stops, or the next one, go on.
    pub(super) fn open(&self) {
        self.opened.notify_one();
    }
}

/// Counts the calls that were polled once. By then a call has its seat in its key's flight.
#[derive(Debug)]
pub(super) struct Seats(watch::Sender<usize>);

impl Seats {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Runs a call, counted once it was polled.
    pub(super) async fn take<R>(&self, call: impl Future<Output = R>) -> R {
        tokio::pin!(call);
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
        self.0.send_modify(|taken| *taken += 1);
        match first {
            std::task::Poll::Ready(answer) => answer,
            std::task::Poll::Pending => call.await,
        }
    }

    /// Waits until so many are taken.
    pub(super) async fn taken(&self, seats: usize) {
        let _ = self.0.subscribe().wait_for(|taken| *taken >= seats).await;
    }
}
