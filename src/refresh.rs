//! When a value is computed anew before its life is over.

use std::time::Duration;

use crate::clock::Moment;

/// When a value that is still within its ttl is computed anew, in the background, while it is answered.
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Options, RefreshAhead};
/// # #[cfg(feature = "moka")]
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let minute = Duration::from_secs(60);
/// // Half a minute before its end the next hit has it computed anew, and waits for nothing.
/// let options = Options::ttl(minute).refresh_ahead(RefreshAhead::Within(minute / 2));
/// let cache = larder::Moka::builder().options(options).build();
/// let load = |_| async { Ok::<_, larder::Error>(42) };
/// let answer: u32 = cache.get_or_set_with("answer", minute, load).await.unwrap();
/// # assert_eq!(answer, 42);
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum RefreshAhead {
    /// Never: the first caller after its ttl computes, and waits.
    #[default]
    Never,
    /// Once less than this is left.
    Within(Duration),
    /// By chance, the more likely the less is left, and the earlier the longer its compute took: XFetch, from "Optimal Probabilistic
    /// Cache Stampede Prevention" (Vattani, Chierichetti, Lowenstein, 2015). The number is the paper's beta: 1 is the optimum, more
    /// is earlier. So callers refresh at different times, and mostly one does.
    XFetch(f64),
}

/// What chance makes of more than this many times the compute time is not worth a throw: e^-20.
const FARTHEST: f64 = 20.0;

impl RefreshAhead {
    /// Before the last part of a life, of this length, it is never due.
    pub(crate) fn reach(self, took: Duration) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            Self::Within(span) => span,
            Self::XFetch(beta) => times(took, beta * FARTHEST),
        }
    }

    /// Whether a value that lives until then is due at `now`. `chance` is a number above 0 and at most 1, thrown for this look.
    pub(crate) fn is_due(self, now: Moment, until: Moment, took: Duration, chance: f64) -> bool {
        let left = until.since(now);
        match self {
            Self::Never => false,
            Self::Within(span) => left < span,
            Self::XFetch(beta) => left <= times(took, -beta * chance.ln()),
        }
    }
}

fn times(span: Duration, factor: f64) -> Duration {
    let seconds = span.as_secs_f64() * factor.max(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn due(ahead: RefreshAhead, left: Duration, chance: f64) -> bool {
        let now = Moment::of_nanos(1_000_000_000);
        ahead.is_due(now, now.after(left), SECOND, chance)
    }

    #[test]
    fn a_threshold_is_what_is_left() {
        let ahead = RefreshAhead::Within(5 * SECOND);
        assert!(!due(ahead, 5 * SECOND, 0.1));
        assert!(due(ahead, 4 * SECOND, 0.9));
        assert_eq!(ahead.reach(SECOND), 5 * SECOND);
        assert!(!due(RefreshAhead::Never, Duration::ZERO, 0.5));
    }

    /// The paper's figures: with t left and a compute of d, the chance is e^(-t/(beta d)).
    #[test]
    fn chance_is_as_in_the_paper() {
        for (beta, left) in [(1.0, 0.5), (1.0, 2.0), (2.0, 2.0), (0.5, 1.0)] {
            let ahead = RefreshAhead::XFetch(beta);
            let throws = 100_000_u32;
            let thrown = (1..=throws).filter(|i| {
                let chance = f64::from(*i) / f64::from(throws);
                due(ahead, SECOND.mul_f64(left), chance)
            });
            let share = f64::from(u32::try_from(thrown.count()).unwrap()) / f64::from(throws);
            let expected = (-left / beta).exp();
            assert!(
                (share - expected).abs() < 0.001,
                "{beta} {left}: {share} {expected}"
            );
        }
    }

    #[test]
    fn odd_numbers_are_no_harm() {
        for beta in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
            let ahead = RefreshAhead::XFetch(beta);
            let _ = (
                due(ahead, SECOND, 0.5),
                due(ahead, SECOND, 1.0),
                ahead.reach(SECOND),
            );
        }
        assert!(!due(RefreshAhead::XFetch(-1.0), SECOND, 0.5));
    }

    /// What is out of reach is never due.
    #[test]
    fn out_of_reach_is_not_due() {
        let ahead = RefreshAhead::XFetch(1.5);
        let beyond = ahead.reach(SECOND) + SECOND;
        assert!(!due(ahead, beyond, 1.0) && !due(ahead, beyond, 1e-8));
    }
}
