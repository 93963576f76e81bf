//! Tells an administrator what happens to a ring: by mail, by a webhook, and by a command.
//!
//! How far each channel has told stands in the manager Redis, so that whoever leads next goes on from there.

mod command;
mod letter;
mod mail;
mod message;
mod pace;
mod settings;
mod stream;
mod teller;
mod webhook;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::command::Program;
use self::mail::Mailer;
use self::teller::{Channel, Teller};
use self::webhook::Endpoint;
use super::watch::Status;
use crate::error::Result;
use crate::ring::registry::Registry;

pub use mail::{Mail, Security};
pub use settings::{Alerts, Secret};
pub use webhook::Webhook;

/// For a message that is under way when the manager ends: one that arrived and is not noted would be sent again by the next manager.
const LAST: Duration = Duration::from_secs(5);

/// Those who tell, each in a task of its own; dropped, they end where they stand.
#[derive(Debug)]
pub(super) struct Telling {
    tasks: JoinSet<()>,
    end: watch::Sender<bool>,
}

impl Telling {
    /// Begins with each channel that is configured.
    ///
    /// # Errors
    ///
    /// Those of [`Alerts::check`].
    pub(super) fn begin(
        alerts: &Alerts,
        ring: &str,
        registry: &Registry,
        status: &watch::Receiver<Status>,
    ) -> Result<Self> {
        alerts.check()?;
        let mail = alerts.mail.as_ref().map(Mailer::of).transpose()?;
        let webhook = alerts.webhook.as_ref().map(Endpoint::of).transpose()?;
        let command = alerts.command.as_ref();
        let channels = [
            mail.map(Channel::Mail),
            webhook.map(Channel::Webhook),
            command.map(|words| Channel::Command(Program::of(words))),
        ];
        let (end, ended) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for channel in channels.into_iter().flatten() {
            let teller = Teller::new(channel, alerts, ring, registry.clone(), status.clone());
            tasks.spawn(teller.run(ended.clone()));
        }
        Ok(Self { tasks, end })
    }

    /// Ends them, after what is under way.
    pub(super) async fn end(mut self) {
        self.end.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(LAST, all).await;
    }
}
