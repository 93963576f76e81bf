//! The bounds that hold for a connection to one node.

use std::time::Duration;

/// The bounds of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSettings {
    /// For one attempt to connect: name, TCP, greeting.
    pub(crate) connect_timeout: Duration,
    /// For one operation, the wait in the queue and for the first connection included.
    pub(crate) operation_timeout: Duration,
    /// Between two `PING`s; 10 ms at least.
    pub(crate) ping_interval: Duration,
    /// The longest pause between two attempts to connect.
    pub(crate) max_backoff: Duration,
    /// The longest value that is read, in bytes; a longer one is `ErrorKind::TooLarge`.
    pub(crate) max_reply_bytes: usize,
    /// What `CLIENT LIST` shows.
    pub(crate) client_name: Option<String>,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            operation_timeout: Duration::from_millis(250),
            ping_interval: Duration::from_secs(1),
            max_backoff: Duration::from_secs(1),
            // A value of 8 MiB with its envelope.
            max_reply_bytes: (8 << 20) + (64 << 10),
            client_name: Some("larder".to_owned()),
        }
    }
}
