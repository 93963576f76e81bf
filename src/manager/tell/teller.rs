//! Who reads what happened, and tells it on one channel.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use super::command::Program;
use super::mail::Mailer;
use super::message::Message;
use super::pace::Pace;
use super::settings::Alerts;
use super::webhook::Endpoint;
use crate::error::{Error, Result};
use crate::generation::chance;
use crate::manager::watch::Status;
use crate::ring::registry::Registry;

/// Between two looks at what other managers wrote. What this one writes is looked at after each round of its watch.
const POLL: Duration = Duration::from_secs(5);

/// Between two looks, at least: rounds may follow each other quickly.
const LEAST: Duration = Duration::from_millis(200);

/// Events that are read at once, which are all that are kept.
const MAX_EVENTS: usize = 1000;

/// By which way an administrator is told.
pub(super) enum Channel {
    Mail(Mailer),
    Webhook(Endpoint),
    Command(Program),
}

impl Channel {
    fn name(&self) -> &'static str {
        match self {
            Self::Mail(_) => "mail",
            Self::Webhook(_) => "webhook",
            Self::Command(_) => "command",
        }
    }

    /// Where in the meta the number of the last event stands that was told.
    fn field(&self) -> &'static str {
        match self {
            Self::Mail(_) => "told_mail",
            Self::Webhook(_) => "told_webhook",
            Self::Command(_) => "told_command",
        }
    }

    async fn send(&self, message: &Message) -> Result<()> {
        match self {
            Self::Mail(mailer) => mailer.send(message).await,
            Self::Webhook(endpoint) => endpoint.send(message).await,
            Self::Command(program) => program.send(message).await,
        }
    }
}

/// One channel's teller.
pub(super) struct Teller {
    channel: Channel,
    ring: String,
    registry: Registry,
    status: watch::Receiver<Status>,
    pace: Pace,
    /// Whether this manager led when it looked last: else another may have told things since.
    led: bool,
    /// The number of the last event that was told or of no interest, with what it was if that is known.
    told: Option<(u64, String)>,
    /// The number that stands in the meta.
    noted: Option<u64>,
    /// Whether the last turn failed, which was said.
    failing: bool,
}

impl Teller {
    pub(super) fn new(
        channel: Channel,
        alerts: &Alerts,
        ring: &str,
        registry: Registry,
        status: watch::Receiver<Status>,
    ) -> Self {
        Self {
            channel,
            ring: ring.to_owned(),
            registry,
            status,
            pace: Pace::new(alerts.pause, alerts.max_pause),
            led: false,
            told: None,
            noted: None,
            failing: false,
        }
    }

    /// Goes on until this is said, and ends what is under way then.
    pub(super) async fn run(mut self, mut ended: watch::Receiver<bool>) {
        loop {
            let pause = match self.turn().await {
                Ok(pause) => {
                    self.failing = false;
                    pause
                }
                Err(error) => {
                    self.failed(&error);
                    POLL
                }
            };
            let next = async {
                sleep(LEAST).await;
                tokio::select! {
                    () = sleep(pause.saturating_sub(LEAST)) => {}
                    _ = self.status.changed() => {}
                }
            };
            tokio::select! {
                () = next => {}
                _ = ended.wait_for(|ended| *ended) => return,
            }
        }
    }

    fn failed(&mut self, error: &Error) {
        if !self.failing {
            let channel = self.channel.name();
            tracing::warn!(target: "larder::manager", event = "telling_failed", channel, error = %error);
        }
        self.failing = true;
    }

    /// Looks for what is new, and tells it; answers how long to wait for more.
    async fn turn(&mut self) -> Result<Duration> {
        if !self.status.borrow_and_update().leads {
            self.led = false;
            return Ok(POLL);
        }
        let newest = self.registry.events(1).await?;
        let newest = newest.into_iter().next().unwrap_or_default();
        let Some(told) = self.place(&newest).await? else {
            return Ok(POLL);
        };
        self.note(told).await?;
        if newest.0 <= told {
            return Ok(POLL);
        }
        let wait = self.pace.wait(Instant::now());
        if !wait.is_zero() {
            return Ok(wait.min(POLL));
        }
        let lines = self.registry.events(MAX_EVENTS).await?;
        let Some(last) = lines.first().cloned() else {
            return Ok(POLL);
        };
        if let Some(message) = Message::of(&self.ring, told, &lines) {
            // This manager may have been held up since it looked, and another have taken over.
            let noted = self.stored().await?.1;
            if noted.is_some_and(|noted| noted > told && noted <= last.0) {
                self.led = false;
                return Ok(Duration::ZERO);
            }
            if !self.tell(&message).await {
                return Ok(self.pace.wait(Instant::now()).min(POLL));
            }
        }
        let told = last.0;
        self.told = Some(last);
        self.note(told).await?;
        Ok(POLL)
    }

    /// Sends it, and says whether it arrived.
    async fn tell(&mut self, message: &Message) -> bool {
        let channel = self.channel.name();
        match self.channel.send(message).await {
            Ok(()) => {
                self.pace.told(Instant::now());
                tracing::info!(target: "larder::manager", event = "told", channel, events = message.count());
                true
            }
            Err(error) => {
                self.pace.failed(Instant::now(), chance());
                tracing::warn!(target: "larder::manager", event = "telling_failed", channel, error = %error);
                false
            }
        }
    }

    /// Up to which event all is told; nothing where there is no ring yet, to whose meta that could be added.
    async fn place(&mut self, newest: &(u64, String)) -> Result<Option<u64>> {
        // Their numbers began again: the manager Redis has lost what it held.
        let anew = self.told.as_ref().is_some_and(|(told, line)| {
            newest.0 < *told || newest.0 == *told && !line.is_empty() && newest.1 != *line
        });
        if self.led && !anew {
            return Ok(self.told.as_ref().map(|(told, _)| *told));
        }
        // Read after the events: where no number stands by now, none of them happened after one was first written.
        let (is_ring, stored) = self.stored().await?;
        if !is_ring {
            return Ok(None);
        }
        let known = self.told.as_ref().map(|(told, _)| *told);
        let told = begin(stored, known.filter(|_| !anew), newest.0, anew);
        let line = match told == newest.0 {
            true => newest.1.clone(),
            false => String::new(),
        };
        self.told = Some((told, line));
        self.noted = stored;
        self.led = true;
        Ok(Some(told))
    }

    /// Whether there is a ring, and the number that stands in its meta.
    async fn stored(&self) -> Result<(bool, Option<u64>)> {
        let (is_ring, stored) = self.registry.noted(self.channel.field()).await?;
        Ok((is_ring, stored.and_then(|stored| stored.parse().ok())))
    }

    /// Writes down how far this channel has told, unless it stands there.
    async fn note(&mut self, told: u64) -> Result<()> {
        if self.noted != Some(told) {
            let number = told.to_string();
            let is_written = self.registry.note(self.channel.field(), &number).await?;
            self.noted = is_written.then_some(told);
        }
        Ok(())
    }
}

/// Where to go on: from what was stored or is known, whichever is later; a channel that is new with what happens from now on, and one whose
/// numbers began again with the first of them.
fn begin(stored: Option<u64>, known: Option<u64>, newest: u64, anew: bool) -> u64 {
    let within = |number: &u64| *number <= newest;
    let later = stored.filter(within).max(known.filter(within));
    match later {
        Some(later) => later,
        None if stored.is_none() && !anew => newest,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_goes_on_where_it_was() {
        // New, from now on.
        assert_eq!(begin(None, None, 7, false), 7);
        assert_eq!(begin(None, None, 0, false), 0);
        // Told by another manager, or by this one.
        assert_eq!(begin(Some(5), None, 7, false), 5);
        assert_eq!(begin(Some(6), Some(5), 7, false), 6);
        assert_eq!(begin(Some(5), Some(6), 7, false), 6);
        assert_eq!(begin(None, Some(6), 7, false), 6);
        // Numbers that began again.
        assert_eq!(begin(None, None, 3, true), 0);
        assert_eq!(begin(Some(2), None, 3, true), 2);
        assert_eq!(begin(Some(500), None, 3, true), 0);
        assert_eq!(begin(Some(500), None, 3, false), 0);
    }
}
