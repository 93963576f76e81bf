//! The bounds that hold for a connection to one node.

use std::fmt;
#[cfg(feature = "manager")]
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::login::Logins;
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::tracking::Listener;
use crate::fence::Fence;

/// The bounds of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSettings {
    /// For one attempt to connect: name, TCP, greeting.
    pub(crate) connect_timeout: Duration,
    /// For one operation, the wait in the queue and for the first connection included.
    pub(crate) operation_timeout: Duration,
    /// For the answer to a `PING`: with three of them unanswered a connection is given up.
    pub(crate) ping_timeout: Duration,
    /// Between two `PING`s; 10 ms at least.
    pub(crate) ping_interval: Duration,
    /// The longest pause between two attempts to connect.
    pub(crate) max_backoff: Duration,
    /// The longest value that is read, in bytes; a longer one is `ErrorKind::TooLarge`.
    pub(crate) max_reply_bytes: usize,
    /// Operations under way at once; a further one fails at once with `ErrorKind::Busy`.
    pub(crate) max_in_flight: usize,
    /// Failed writes that are remembered until the node is back.
    pub(crate) max_unsettled: usize,
    /// Connections to one node; a key always takes the same one.
    pub(crate) connections: usize,
    /// Which of a node's keys take this connection.
    pub(crate) share: Share,
    /// Keys that stay when all others of their prefix are removed: a ring's map, where it stands beside values.
    pub(crate) spared: Vec<String>,
    /// Whether others write values without marks under the same prefixes.
    pub(crate) shared: bool,
    /// What `CLIENT LIST` shows.
    pub(crate) client_name: Option<String>,
    /// Who hears of writes by others, and of which keys.
    pub(crate) listener: Option<Listener>,
    /// Who is told where the connection leads, each time that it is made.
    pub(crate) published: Option<Published>,
    /// Where the store's subscribers stand, who want to hear of writes of the node.
    pub(crate) fence: Option<Arc<Fence>>,
    /// To which addresses connections are made, if not to all.
    #[cfg(feature = "manager")]
    pub(crate) admits: Option<Admits>,
    /// Passwords that no url holds.
    pub(crate) logins: Logins,
    /// How servers with `rediss://` are known.
    #[cfg(feature = "tls")]
    pub(crate) tls: Tls,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            operation_timeout: Duration::from_millis(250),
            ping_timeout: Duration::from_millis(250),
            ping_interval: Duration::from_secs(1),
            max_backoff: Duration::from_secs(1),
            // A value of 8 MiB with its envelope.
            max_reply_bytes: (8 << 20) + (64 << 10),
            max_in_flight: 16_384,
            // Above what can be refused at once while the server is well: nothing is emptied for that.
            max_unsettled: 4 * 16_384,
            connections: 1,
            share: Share { index: 0, of: 1 },
            spared: Vec::new(),
            shared: false,
            client_name: Some("larder".to_owned()),
            listener: None,
            published: None,
            fence: None,
            #[cfg(feature = "manager")]
            admits: None,
            logins: Logins::default(),
            #[cfg(feature = "tls")]
            tls: Tls::default(),
        }
    }
}

/// One who is told where a connection leads. Called on the connection's task, so it must neither block nor wait.
#[derive(Clone)]
pub(crate) struct Published(Arc<dyn Fn(SocketAddr) + Send + Sync>);

impl Published {
    pub(super) fn new(tell: impl Fn(SocketAddr) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self, place: SocketAddr) {
        (self.0)(place);
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Published")
    }
}

/// Which addresses may be connected to.
#[cfg(feature = "manager")]
#[derive(Clone)]
pub(crate) struct Admits(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

#[cfg(feature = "manager")]
impl Admits {
    pub(crate) fn new(admit: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(admit))
    }

    pub(super) fn admit(&self, addr: IpAddr) -> bool {
        (self.0)(addr)
    }
}

#[cfg(feature = "manager")]
impl fmt::Debug for Admits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admits")
    }
}

impl ConnectionSettings {
    /// Whether a key may be removed with others of its prefix.
    pub(super) fn may_wipe(&self, key: &[u8]) -> bool {
        !self.spared.iter().any(|name| key == name.as_bytes())
    }
}

/// One of several connections to a node, and the keys that take it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Share {
    /// Which of `of` connections a key takes.
    pub(super) fn index_of(key: &[u8], of: usize) -> usize {
        if of == 1 {
            return 0;
        }
        usize::try_from(xxh3_64(key) % of as u64).unwrap_or(0)
    }

    pub(super) fn holds(self, key: &[u8]) -> bool {
        Self::index_of(key, self.of) == self.index
    }
}
