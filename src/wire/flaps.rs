//! A node that keeps falling over.

use std::time::Duration;

/// A life shorter than this is a flap.
const SHORT: Duration = Duration::from_secs(1);

/// Two flaps in a row may be a restart by hand. From the third on there is a trial, twice as long each time.
const FREE: u32 = 2;
const FIRST_TRIAL: Duration = Duration::from_millis(60);
/// With the longest pause between two attempts to connect this stays well below two seconds, in which a node that has
/// really returned must be back.
const LONGEST_TRIAL: Duration = Duration::from_millis(480);

/// How often in a row a node fell over as soon as it was up.
///
/// A node that was away and is back is used at once. One that comes up and falls over again and again costs its callers
/// timeouts each time, so it must answer pings for a while first. A circuit breaker opens for longer and longer instead; but
/// probed as often as it must be here, it would close at the first answer.
#[derive(Debug, Default)]
pub(super) struct Flaps(u32);

impl Flaps {
    /// How long the node must answer before it is used.
    pub(super) fn trial(&self) -> Duration {
        match self.0.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_TRIAL
                .saturating_mul(1 << doublings.min(16))
                .min(LONGEST_TRIAL),
        }
    }

    /// The node fell over, after a connection that was used for so long.
    pub(super) fn ended_after(&mut self, used: Duration) {
        self.0 = if used < SHORT {
            self.0.saturating_add(1)
        } else {
            0
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_keeps_falling_over_must_answer_ever_longer() {
        let mut flaps = Flaps::default();
        let mut trials = Vec::new();
        for _ in 0..8 {
            trials.push(flaps.trial().as_millis());
            flaps.ended_after(Duration::from_millis(999));
        }
        assert_eq!(trials, [0, 0, 0, 60, 120, 240, 480, 480]);
        flaps.ended_after(SHORT);
        assert_eq!(flaps.trial(), Duration::ZERO);
    }
}
