//! How often one channel is told.

use std::time::{Duration, Instant};

/// After the first failure.
const RETRY: Duration = Duration::from_secs(5);
const MAX_RETRY: Duration = Duration::from_secs(300);

/// When the next message may be sent. After each it is `pause` at first, and twice as long as before, up to `max_pause`, where there was something to
/// tell within `max_pause` of the end of the last one.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pause: Duration,
    max_pause: Duration,
    /// What the last pause was; none before the first.
    last: Option<Duration>,
    /// Not before this.
    open: Option<Instant>,
    failures: u32,
}

impl Pace {
    pub(super) fn new(pause: Duration, max_pause: Duration) -> Self {
        Self {
            pause,
            max_pause,
            last: None,
            open: None,
            failures: 0,
        }
    }

    /// How long a message has to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let open = self.open.unwrap_or(now);
        open.saturating_duration_since(now)
    }

    /// Notes that a message arrived.
    pub(super) fn told(&mut self, now: Instant) {
        self.calm(now);
        let pause = self.last.map_or(self.pause, |last| last.saturating_mul(2));
        let pause = pause.min(self.max_pause);
        self.last = Some(pause);
        self.open = Some(now + pause);
        self.failures = 0;
    }

    /// Notes that one did not. By chance, a number up to 1, many managers do not come back at the same time.
    pub(super) fn failed(&mut self, now: Instant, chance: f64) {
        self.calm(now);
        let doubled = RETRY.saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(MAX_RETRY).mul_f64(0.5 + 0.5 * chance);
        self.failures = self.failures.saturating_add(1);
        self.open = Some(now + pause);
    }

    /// Forgets how long the pauses were, if nothing was to be told for long.
    fn calm(&mut self, now: Instant) {
        let idle = |open| now.saturating_duration_since(open) >= self.max_pause;
        if self.open.is_some_and(idle) {
            self.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    /// When messages are sent, in seconds, of events at these seconds.
    fn messages(events: impl Iterator<Item = u64>) -> Vec<u64> {
        let (began, mut pace) = (Instant::now(), Pace::new(MINUTE, HOUR));
        let mut sent: Vec<u64> = Vec::new();
        for event in events {
            // One that is under way takes it along.
            if sent.last().is_some_and(|last| *last >= event) {
                continue;
            }
            let at = event
                + pace
                    .wait(began + Duration::from_secs(event))
                    .as_secs_f64()
                    .ceil() as u64;
            pace.told(began + Duration::from_secs(at));
            sent.push(at);
        }
        sent
    }

    #[test]
    fn a_day_of_flapping_is_told_in_few_messages() {
        let day = 24 * 3600;
        let sent = messages((0..day).step_by(70));
        println!(
            "24 h of an event pair every 70 s: {} messages, the first at {:?} s",
            sent.len(),
            &sent[..9]
        );
        assert!((24..40).contains(&sent.len()), "{sent:?}");
        // Whatever happens, and whenever: bursts that end just when the pause would grow too long.
        let worst = (1..12).map(|burst| {
            let mut events = Vec::new();
            let mut at = 0;
            while at < day {
                events.extend((0..burst).map(|nth| at + (60 * ((1_u64 << nth) - 1)).min(day)));
                at += 60 * ((1 << burst) - 1) + 3600;
            }
            events.retain(|at| *at < day);
            messages(events.into_iter()).len()
        });
        let worst = worst.max().unwrap();
        println!("24 h of the worst bursts: {worst} messages");
        assert!(worst < 100, "{worst}");
    }

    #[test]
    fn a_pause_grows_while_there_is_something_to_tell_and_falls_back_after_calm() {
        let now = Instant::now();
        let mut pace = Pace::new(MINUTE, 8 * MINUTE);
        assert_eq!(pace.wait(now), Duration::ZERO);
        let mut at = now;
        for minutes in [1, 2, 4, 8, 8] {
            pace.told(at);
            assert_eq!(pace.wait(at), minutes * MINUTE);
            // Something happens within the calm that it takes.
            at += minutes * MINUTE + 7 * MINUTE;
            assert_eq!(pace.wait(at), Duration::ZERO);
        }
        at += MINUTE;
        pace.told(at);
        assert_eq!(pace.wait(at), MINUTE);
    }

    #[test]
    fn a_channel_that_fails_is_tried_less_and_less_often() {
        let now = Instant::now();
        let mut pace = Pace::new(MINUTE, HOUR);
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            pace.failed(now, 1.0);
            assert_eq!(pace.wait(now), Duration::from_secs(seconds));
        }
        pace.failed(now, 0.0);
        assert_eq!(pace.wait(now), Duration::from_secs(150));
        (0..1000).for_each(|_| pace.failed(now, 1.0));
        assert_eq!(pace.wait(now), Duration::from_secs(300));
        // Failing for long is no calm, and what follows it no first failure.
        pace.told(now);
        pace.failed(now + MINUTE, 1.0);
        assert_eq!(pace.wait(now + MINUTE), Duration::from_secs(5));
        pace.told(now + 65 * Duration::from_secs(1));
        assert_eq!(pace.last, Some(2 * MINUTE));
    }
}
