//! What an application sends by itself: commands of redis-rs as they are, and the server's answers as they come.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::Connection;
use super::exchange::exchange;
use super::node::Node;
use super::request::{Many, One, Tells};
use super::settings::Share;
use crate::error::Result;

/// Commands that are sent at once.
pub(crate) enum Raw<'a> {
    One(&'a Cmd),
    /// With `MULTI` and `EXEC` around it where it is atomic, whose replies are among those that come.
    Many(&'a Pipeline),
}

impl Node {
    /// Which of its connections a key takes, of whatever bytes.
    pub(crate) fn place_of(&self, key: &[u8]) -> usize {
        Share::index_of(key, self.connections.len())
    }

    /// Sends commands over one of its connections and answers all replies, what the server refused as
    /// [`Value::ServerError`] in its place. Nothing is sent twice. What `keys` of it are owed is made up for first.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`], but for what the server refused.
    pub(crate) async fn send(
        &self,
        place: usize,
        keys: &[&[u8]],
        raw: Raw<'_>,
        bound: Option<Duration>,
    ) -> Result<Vec<Value>> {
        let connection = &self.connections[place.min(self.connections.len() - 1)];
        connection.runtime("send")?;
        let until = Instant::now() + bound.unwrap_or(connection.operation_timeout());
        self.pay(keys, until).await?;
        connection.sent(raw, bound).await
    }

    /// Makes up for what keys are owed, each on its own connection.
    async fn pay(&self, keys: &[&[u8]], until: Instant) -> Result<()> {
        for (place, connection) in self.connections.iter().enumerate() {
            if connection.shared().replay.is_clear() {
                continue;
            }
            // What Larder owes has names that are text.
            let own = keys.iter().filter(|key| self.place_of(key) == place);
            let own = own.filter_map(|key| std::str::from_utf8(key).ok());
            let own: Vec<&str> = own.collect();
            if !own.is_empty() {
                connection.paid(&own, until).await?;
            }
        }
        Ok(())
    }
}

impl Connection {
    async fn sent(&self, raw: Raw<'_>, bound: Option<Duration>) -> Result<Vec<Value>> {
        match raw {
            Raw::One(cmd) => {
                let tells = match cmd.is_no_response() {
                    true => Tells::Nothing,
                    false => Tells::Presence,
                };
                let one = One {
                    bound,
                    tells,
                    ..One::of(cmd)
                };
                Ok(vec![exchange(self.shared(), "send", &one).await?])
            }
            Raw::Many(pipeline) => {
                let many = Many {
                    bound,
                    tells: Tells::Presence,
                    ..Many::of(pipeline)
                };
                exchange(self.shared(), "send", &many).await
            }
        }
    }
}
