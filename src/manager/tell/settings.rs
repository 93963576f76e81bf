//! Whom a manager tells, and how often.

use std::fmt;
use std::time::Duration;

use super::mail::{Mail, Mailer};
use super::webhook::{Endpoint, Webhook};
use crate::error::{Error, ErrorKind, Result};

/// The shortest and the longest time between two messages.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(7 * 86400);

/// A text that is never shown: `Debug` prints `***`.
///
/// ```
/// use larder::manager::Secret;
/// assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text itself, for the one it is meant for.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whom a manager tells what happens to its ring: nodes that are taken off, come back, are removed or drained, maps that others change, and
/// times at which nothing is judged. Not what is about to happen, nor what somebody added.
///
/// Each channel is told everything from when it was first there: at least once, and once in the ordinary course, whichever manager leads.
/// One that fails is tried again for ever, after 5 seconds at first and 5 minutes at last, and what happens meanwhile joins the same message.
///
/// ```
/// use larder::manager::{Config, Mail, Webhook};
///
/// let mut config = Config::new("redis://127.0.0.1:6379/13");
/// let mut mail = Mail::new("127.0.0.1", 25, "", "");
/// mail.from = Some("Larder <larder@example.org>".to_owned());
/// mail.to = vec!["admin@example.org".to_owned()];
/// config.alerts.mail = Some(mail);
/// config.alerts.webhook = Some(Webhook::new("http://127.0.0.1:9000/larder"));
/// config.alerts.command = Some(vec!["/usr/local/bin/page".to_owned(), "--urgent".to_owned()]);
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Alerts {
    /// By mail: plain text, one line an event.
    pub mail: Option<Mail>,
    /// By HTTP: a `POST` of JSON.
    pub webhook: Option<Webhook>,
    /// By a program, with its arguments, which is given the JSON of a webhook to read. No shell is asked. It succeeds by exiting with 0, and is
    /// killed after 30 seconds, though not what it has started itself. It has the manager's environment; what it prints goes nowhere.
    pub command: Option<Vec<String>>,
    /// The least time between two messages on one channel: a minute unless set, from 10 ms on. It doubles with each message as long as there is
    /// always something to tell when it is over.
    pub pause: Duration,
    /// What it grows to at most, an hour unless set, and a week at most; and for how long nothing has to happen for it to be `pause` again.
    pub max_pause: Duration,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            mail: None,
            webhook: None,
            command: None,
            pause: Duration::from_secs(60),
            max_pause: Duration::from_secs(3600),
        }
    }
}

impl Alerts {
    /// Looks at all of it, and opens nothing. What it says holds no secret.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with what is wrong, by name.
    pub(in crate::manager) fn check(&self) -> Result<()> {
        let wrong = |why: &str| Err(Error::new(ErrorKind::Config, why));
        if self.pause < SHORTEST {
            return wrong("alerts: a pause is from 10 ms on");
        }
        if self.max_pause < self.pause || self.max_pause > LONGEST {
            return wrong("alerts: max_pause is from the pause on, and a week at most");
        }
        self.mail.as_ref().map(Mailer::of).transpose()?;
        self.webhook.as_ref().map(Endpoint::of).transpose()?;
        let Some(command) = &self.command else {
            return Ok(());
        };
        if command.first().is_none_or(|program| program.is_empty()) {
            return wrong("alerts: the command names no program");
        }
        match command.iter().any(|word| word.contains('\0')) {
            true => wrong("alerts: the command holds a NUL"),
            false => Ok(()),
        }
    }
}

// Arguments may be passwords.
impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.command.as_ref().and_then(|command| command.first());
        f.debug_struct("Alerts")
            .field("mail", &self.mail)
            .field("webhook", &self.webhook)
            .field("command", &program)
            .field("pause", &self.pause)
            .field("max_pause", &self.max_pause)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Alerts {
        Alerts {
            command: Some(words.iter().map(ToString::to_string).collect()),
            ..Alerts::default()
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Alerts::default().check().is_ok());
        assert!(command(&["page", ""]).check().is_ok());
        let pauses = |pause, max_pause| Alerts {
            pause,
            max_pause,
            ..Alerts::default()
        };
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        assert!(pauses(second, second).check().is_ok());
        for wrong in [
            command(&[]),
            command(&[""]),
            command(&["page", "canary\0"]),
            pauses(Duration::ZERO, hour),
            pauses(hour, second),
            pauses(second, Duration::MAX),
        ] {
            let error = wrong.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong:?}");
            assert!(!format!("{error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut mail = Mail::new("mail.example.org", 465, "me@example.org", "canary");
        mail.to = vec!["you@example.org".to_owned()];
        let mut webhook = Webhook::new("https://canary:canary@hooks.example.org/canary?canary");
        let known = format!("{webhook:?}");
        assert!(
            known.contains("hooks.example.org:443") && !known.contains("canary"),
            "{known}"
        );
        // A user and a token: one of them is refused, and neither shown.
        webhook.token = Some("canary".into());
        let alerts = Alerts {
            mail: Some(mail),
            webhook: Some(webhook),
            ..command(&["page", "canary"])
        };
        let shown = format!("{alerts:?} {alerts:#?}");
        assert!(!shown.contains("canary"), "{shown}");
        for known in ["mail.example.org", "page"] {
            assert!(shown.contains(known), "{shown}");
        }
    }
}
