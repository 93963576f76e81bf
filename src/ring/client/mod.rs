//! The ring as a Redis client: every command, routed by its key.

mod api;
mod node;
mod plan;
mod refusal;
mod routed;
mod scan;
#[cfg(test)]
mod served;

use futures_util::future::try_join_all;
use tokio::time::timeout;

pub use node::NodeConnection;
pub use routed::RingConnection;

use super::keys::{HISTORY_KEY, MAP_KEY, META_KEY};
use super::snapshot::Snapshot;
use super::store::DistributedRedis;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::NodeAddr;
use crate::wire::node::Node;

impl DistributedRedis {
    /// The whole ring as one connection of redis-rs: every command goes to the node of its key. See [`RingConnection`].
    #[must_use]
    pub fn connection(&self) -> RingConnection {
        RingConnection::new(self.clone())
    }

    /// The node of a key, with all its prefixes, as a connection of redis-rs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] where there are no nodes yet, or the node's url is unusable; [`ErrorKind::Key`] for a key of the ring's own map.
    pub fn connection_for(&self, key: impl AsRef<[u8]>) -> Result<NodeConnection> {
        let key = key.as_ref();
        let snapshot = self.snapshot();
        let node = snapshot.node(snapshot.owner_of(key)?)?;
        let place = node.place_of(key);
        Ok(NodeConnection::new(self.clone(), node.clone(), place))
    }

    /// A node of the map, by its url or its `host:port/db`, as a connection of redis-rs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is no node of the map. A password in the url is not looked at, nor repeated.
    pub fn connection_to(&self, url: &str) -> Result<NodeConnection> {
        let node = self.named(url)?;
        Ok(NodeConnection::new(self.clone(), node, 0))
    }

    /// The nodes of the map, each as `host:port/db`.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let count = snapshot.node_count();
        (0..count)
            .map(|node| routed::label_of(&snapshot, node))
            .collect()
    }

    /// A client of redis-rs for the node of a key, with its credentials: for connections of one's own, on which to subscribe, watch or
    /// wait. It knows nothing of the ring.
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// # async fn example(ring: larder::DistributedRedis) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut news = ring.client_for("news").await?.get_async_pubsub().await?;
    /// news.subscribe("news").await?;
    /// let first = news.on_message().next().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connection_for`](Self::connection_for); [`ErrorKind::Unsupported`] for a node with `rediss://`;
    /// [`ErrorKind::Config`] where a [`Login`](crate::Login) has no password; [`ErrorKind::Timeout`] where its file is not read within the
    /// `connect_timeout`.
    pub async fn client_for(&self, key: impl AsRef<[u8]> + Send) -> Result<redis::Client> {
        let url = {
            let snapshot = self.snapshot();
            let owner = snapshot.owner_of(key.as_ref())?;
            snapshot.ring.nodes().get(owner).cloned()
        };
        self.client(url).await
    }

    /// The same for a node of the map, by its url or its `host:port/db`.
    ///
    /// # Errors
    ///
    /// As [`connection_to`](Self::connection_to) and [`client_for`](Self::client_for).
    pub async fn client_to(&self, url: &str) -> Result<redis::Client> {
        let label = self.named(url)?.label().to_owned();
        let url = {
            let snapshot = self.snapshot();
            let mut urls = snapshot.ring.nodes().iter().enumerate();
            let url = urls.find(|(node, _)| routed::label_of(&snapshot, *node) == label);
            url.map(|(_, url)| url.clone())
        };
        self.client(url).await
    }

    async fn client(&self, url: Option<String>) -> Result<redis::Client> {
        let addr = NodeAddr::parse(url.as_deref().unwrap_or_default())?;
        let nodes = &self.follower.settings.nodes;
        match timeout(nodes.connect_timeout, nodes.logins.found(&addr)).await {
            Ok(found) => api::client(&found?),
            Err(_) => {
                let why = "the file of the node's password is not read in time";
                Err(Error::new(ErrorKind::Timeout, why).with("node", addr.label()))
            }
        }
    }

    /// A node of the map.
    fn named(&self, url: &str) -> Result<Node> {
        let full = match url.contains("://") {
            true => url.to_owned(),
            false => format!("redis://{url}"),
        };
        // What is no address may be a password.
        let label = NodeAddr::parse(&full).map_or_else(|_| "?".to_owned(), |addr| addr.label());
        let snapshot = self.snapshot();
        let mut nodes = snapshot.present_nodes();
        let node = nodes.find(|node| node.label() == label);
        node.cloned().ok_or_else(|| {
            let why = "this is no node of the map";
            Error::new(ErrorKind::Config, why).with("node", label)
        })
    }

    /// Refuses a key of the ring's own.
    fn spares(&self, key: &[u8]) -> Result<()> {
        routed::check(key)?;
        let own = self.follower.settings.keys.kept();
        if own.iter().any(|own| own.as_bytes() == key) {
            let why = "the ring's own map stands under this key";
            return Err(Error::new(ErrorKind::Key, why));
        }
        Ok(())
    }

    /// Refuses to go on where a node's database holds the ring's own map.
    pub(super) async fn spares_map(&self, snapshot: &Snapshot) -> Result<()> {
        let nodes = snapshot.present_nodes();
        try_join_all(nodes.map(|node| self.spares_map_at(node))).await?;
        Ok(())
    }

    pub(super) async fn spares_map_at(&self, node: &Node) -> Result<()> {
        let other = [MAP_KEY, META_KEY, HISTORY_KEY];
        let own = self.follower.settings.keys.kept();
        if node.holds_any(&[&own[..], &other].concat()).await? {
            let why = "the ring's own map is in this database";
            return Err(Error::new(ErrorKind::Config, why).with("node", node.label()));
        }
        Ok(())
    }
}
