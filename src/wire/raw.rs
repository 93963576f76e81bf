//! What an application sends by itself: commands of redis-rs as they are, and the server's answers as they come.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use super::Connection;
use super::exchange::exchange;
use super::node::Node;
use super::request::{Many, One};
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
        let sent = connection.sent(raw, bound);
        if connection.shared().replay.is_clear() {
            return sent.await;
        }
        // What Larder owes has names that are text.
        let keys = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
        let keys: Vec<&str> = keys.collect();
        connection.unhindered(&keys, sent).await
    }
}

impl Connection {
    async fn sent(&self, raw: Raw<'_>, bound: Option<Duration>) -> Result<Vec<Value>> {
        match raw {
            Raw::One(cmd) => {
                let one = One {
                    bound,
                    ..One::of(cmd)
                };
                Ok(vec![exchange(self.shared(), "send", &one).await?])
            }
            Raw::Many(pipeline) => {
                let many = Many {
                    bound,
                    ..Many::of(pipeline)
                };
                exchange(self.shared(), "send", &many).await
            }
        }
    }
}
