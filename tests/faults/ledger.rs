//! What was written and acknowledged, and how far behind it an answer is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::report::{Report, time};

/// The versions of some keys. Each key has one writer, which counts them up from 1; a delete has a version too.
#[derive(Debug)]
pub(crate) struct Ledger(HashMap<String, Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    tried: u64,
    /// In order of both.
    acknowledged: Vec<(u64, Instant)>,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing newer was acknowledged before the read began.
    Current,
    /// When the read began, something newer had been acknowledged for so long.
    Behind(Duration),
    /// Nobody ever wrote that.
    Impossible,
}

impl Ledger {
    pub(crate) fn of(keys: &[String]) -> Self {
        Self(
            keys.iter()
                .map(|key| (key.clone(), Mutex::default()))
                .collect(),
        )
    }

    fn written(&self, key: &str) -> MutexGuard<'_, Written> {
        let written = self.0.get(key).expect("a key of this ledger");
        written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that the key's writer writes next. It may be read from now on, even if the write should fail.
    pub(crate) fn begin(&self, key: &str) -> u64 {
        let mut written = self.written(key);
        written.tried += 1;
        written.tried
    }

    /// That write was acknowledged just now.
    pub(crate) fn acknowledge(&self, key: &str, version: u64) {
        let now = Instant::now();
        self.written(key).acknowledged.push((version, now));
    }

    /// The newest acknowledged version, 0 before the first.
    pub(crate) fn newest(&self, key: &str) -> u64 {
        self.written(key)
            .acknowledged
            .last()
            .map_or(0, |last| last.0)
    }

    /// Judges a version that was read. That nothing was found proves nothing.
    pub(crate) fn check(&self, key: &str, read_began: Instant, version: u64) -> Verdict {
        let written = self.written(key);
        if version == 0 || version > written.tried {
            return Verdict::Impossible;
        }
        let acknowledged = &written.acknowledged;
        let newer = acknowledged.partition_point(|(other, _)| *other <= version);
        match acknowledged.get(newer) {
            Some((_, at)) if *at < read_began => Verdict::Behind(read_began - *at),
            _ => Verdict::Current,
        }
    }
}

/// How far behind many answers were.
#[derive(Debug, Default)]
pub(crate) struct Lags {
    answers: u64,
    behind: Vec<Duration>,
    impossible: u64,
}

impl Lags {
    pub(crate) fn note(&mut self, verdict: Verdict) {
        self.answers += 1;
        match verdict {
            Verdict::Current => {}
            Verdict::Behind(lag) => self.behind.push(lag),
            Verdict::Impossible => self.impossible += 1,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.behind.extend(other.behind);
        self.impossible += other.impossible;
    }

    pub(crate) fn worst(&self) -> Duration {
        self.behind.iter().max().copied().unwrap_or_default()
    }

    /// How many were behind by more than `bound`.
    pub(crate) fn beyond(&self, bound: Duration) -> u64 {
        self.behind.iter().filter(|lag| **lag > bound).count() as u64
    }

    /// The figures of a row: none behind by more than `bound`.
    pub(crate) fn judge(&self, report: &mut Report, what: &str, bound: Duration) {
        let most = format!("{what}stale: behind by more than {}", time(bound));
        report.none(&most, self.beyond(bound) + self.impossible);
        report.within(&format!("{what}worst lag"), self.worst(), bound);
        report.note(format!("{what}{self}"));
    }
}

impl std::fmt::Display for Lags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (answers, behind) = (self.answers, self.behind.len());
        let worst = time(self.worst());
        write!(
            f,
            "{answers} answers, {behind} of them behind, by {worst} at most"
        )
    }
}

/// The value that so many of a hundred stay below.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let at = times.len().saturating_sub(1) * percent / 100;
    times.get(at).copied().unwrap_or_default()
}
