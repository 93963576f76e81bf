//! How long a value lives.

use std::time::Duration;

/// Beyond this a lifetime counts as for ever: a hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long a value may be served, counted from when it is stored.
///
/// ```
/// use std::time::Duration;
/// use larder::Ttl;
/// assert_eq!(Ttl::from(Duration::from_secs(5)), Ttl::After(Duration::from_secs(5)));
/// assert_eq!(Ttl::from_secs(-1), Ttl::Forever);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The cache's own default, 300 seconds unless set.
    #[default]
    Default,
    /// Until it is deleted, evicted or the store loses it.
    Forever,
    /// For this long. Zero means already expired, not for ever: the value is not stored, and one that stood there is gone.
    After(Duration),
}

impl Ttl {
    /// Whole seconds as the Python pair counts them: zero and below mean for ever.
    #[must_use]
    pub fn from_secs(secs: i64) -> Self {
        match u64::try_from(secs) {
            Ok(0) | Err(_) => Self::Forever,
            Ok(secs) => Self::After(Duration::from_secs(secs)),
        }
    }

    /// The lifetime itself, `None` for ever, where `Default` means `default`.
    #[must_use]
    pub fn resolve(self, default: Ttl) -> Option<Duration> {
        match self {
            Self::After(ttl) if ttl < FOR_EVER => Some(ttl),
            Self::After(_) | Self::Forever => None,
            Self::Default => match default {
                Self::Default => Some(Duration::from_secs(300)),
                other => other.resolve(Self::Forever),
            },
        }
    }
}

impl From<Duration> for Ttl {
    fn from(ttl: Duration) -> Self {
        Self::After(ttl)
    }
}

/// What is left of a stored value's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// It has no deadline.
    Forever,
    /// It lives this much longer.
    For(Duration),
}

impl Remaining {
    /// The time left, `None` for ever.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Forever => None,
            Self::For(left) => Some(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_as_the_python_pair_counts_them() {
        for secs in [0, -1, -2, i64::MIN] {
            assert_eq!(Ttl::from_secs(secs), Ttl::Forever);
        }
        assert_eq!(Ttl::from_secs(10), Ttl::After(Duration::from_secs(10)));
    }

    #[test]
    fn default_is_the_caches_own() {
        let own = Ttl::After(Duration::from_secs(7));
        assert_eq!(Ttl::Default.resolve(own), Some(Duration::from_secs(7)));
        assert_eq!(Ttl::Default.resolve(Ttl::Forever), None);
        assert_eq!(
            Ttl::Default.resolve(Ttl::Default),
            Some(Duration::from_secs(300))
        );
        assert_eq!(Ttl::Forever.resolve(own), None);
    }

    #[test]
    fn zero_is_expired_and_too_long_is_for_ever() {
        assert_eq!(
            Ttl::from(Duration::ZERO).resolve(Ttl::Default),
            Some(Duration::ZERO)
        );
        assert_eq!(Ttl::from(Duration::MAX).resolve(Ttl::Default), None);
    }
}
