//! The peers' connections.

use std::sync::Arc;

use larder::ring::{Publication, Ring};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, pipe};
use rustis::client::Client as Rustis;

use crate::support::Server;
use crate::{BOUND, KEYS, Keys, MANY, PER_NODE, TTL, value};

/// redis-rs as it comes, but for nodelay, which it leaves off, and the bound. Its queue holds 50 commands, Larder's 256.
pub(crate) async fn redis(url: &str) -> MultiplexedConnection {
    let info = url.into_connection_info().expect("a url");
    let client = Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)));
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(BOUND));
    client
        .expect("a client")
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("connect")
}

/// rustis as it comes: nodelay is on, no bound on an operation.
pub(crate) async fn rustis(url: &str) -> Rustis {
    let client = Rustis::connect(url).await.expect("connect");
    assert!(client.config().no_delay);
    client
}

pub(crate) async fn fill(
    connection: &mut MultiplexedConnection,
    keys: impl Iterator<Item = &String>,
) {
    let mut sets = pipe();
    keys.for_each(|key| {
        let set = sets.cmd("SET").arg(key).arg(value(key));
        set.arg("EX").arg(TTL.as_secs()).ignore();
    });
    let () = sets.query_async(connection).await.expect("SET");
}

/// redis-rs over the nodes of the ring, each key sent to its own.
///
/// Its batches are grouped in advance, and what is read stays in the order of the nodes, which spares this peer some of
/// the work of `get_many`.
#[derive(Clone)]
pub(crate) struct ByHand {
    ring: Arc<Ring>,
    /// In the order of the ring's nodes.
    pub(crate) connections: Vec<MultiplexedConnection>,
    /// For each batch of keys those of each node.
    pub(crate) batches: Arc<Vec<Vec<Vec<&'static str>>>>,
}

impl ByHand {
    /// Connects, and fills the nodes.
    pub(crate) async fn new(nodes: &[Server], keys: Keys) -> Self {
        let urls: Vec<_> = nodes.iter().map(|node| node.url(1)).collect();
        let ring = Ring::from_map(Publication::of_nodes(&urls, PER_NODE).positions().to_vec());
        let owner = |key: &str| ring.owner(key).expect("a node");
        let mut connections = Vec::new();
        for (this, url) in ring.nodes().iter().enumerate() {
            let node = nodes.iter().find(|node| node.url(1) == *url);
            let mut connection = redis(&node.expect("a server").url(0)).await;
            fill(
                &mut connection,
                keys.iter().filter(|key| owner(key) == this),
            )
            .await;
            connections.push(connection);
        }
        let mut batches = vec![vec![Vec::new(); nodes.len()]; KEYS / MANY];
        for (batch, keys) in batches.iter_mut().zip(keys.chunks(MANY)) {
            keys.iter()
                .for_each(|key| batch[owner(key)].push(key.as_str()));
        }
        Self {
            ring: Arc::new(ring),
            connections,
            batches: Arc::new(batches),
        }
    }

    pub(crate) fn owner(&mut self, key: &str) -> &mut MultiplexedConnection {
        &mut self.connections[self.ring.owner(key).expect("a node")]
    }
}
