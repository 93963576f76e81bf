//! The nodes' connections, on which they are asked how they are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::member::shown;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::node::Node;
use crate::wire::{ConnectionSettings, NodeAddr};

/// Characters of why a node fails.
const MAX_WHY: usize = 300;

/// How long a person waits for a node.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections to nodes, by url.
#[derive(Debug)]
pub(super) struct Nodes {
    settings: ConnectionSettings,
    bound: Duration,
    known: Mutex<BTreeMap<String, Node>>,
}

impl Nodes {
    /// None yet. A probe takes so long at most, and what a person asks for [`PATIENCE`].
    pub(super) fn new(settings: ConnectionSettings, bound: Duration) -> Self {
        let settings = ConnectionSettings {
            connect_timeout: bound,
            operation_timeout: PATIENCE,
            ping_timeout: bound,
            client_name: Some("larder-manager".to_owned()),
            // What others wrote goes too, where all is to go.
            shared: true,
            ..settings
        };
        Self {
            settings,
            bound,
            known: Mutex::default(),
        }
    }

    /// The same with connections of their own.
    pub(super) fn anew(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            bound: self.bound,
            known: Mutex::default(),
        }
    }

    /// One of them, which is kept until it is let go of.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a url that is none.
    pub(super) fn at(&self, url: &str) -> Result<Node> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = known.get(url) {
            return Ok(node.clone());
        }
        let node = self.fresh(url)?;
        known.insert(url.to_owned(), node.clone());
        Ok(node)
    }

    /// One that may not become any of them, and ends with whoever asks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a url that is none.
    pub(super) fn fresh(&self, url: &str) -> Result<Node> {
        Ok(Node::new(NodeAddr::parse(url)?, &self.settings))
    }

    /// Lets go of all but these.
    pub(super) fn keep<'u>(&self, urls: impl Iterator<Item = &'u str>) {
        let urls: Vec<&str> = urls.collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|url, _| urls.contains(&url.as_str()));
    }

    /// Whether a node can be used.
    ///
    /// # Errors
    ///
    /// Those of [`Node::probe`]; [`ErrorKind::Timeout`] where it takes too long.
    pub(super) async fn probe(&self, node: &Node) -> Result<()> {
        probe_within(node, PATIENCE).await
    }

    /// The same of many at once, by name and url, each within the bound of a probe.
    pub(super) async fn probe_all(
        &self,
        nodes: Vec<(String, String)>,
    ) -> Vec<(String, Result<()>)> {
        let probes = nodes.into_iter().map(|(name, url)| async move {
            let well = match self.at(&url) {
                Ok(node) => probe_within(&node, self.bound).await,
                // To everybody: nobody can reach it by that.
                Err(error) => Err(Error::new(ErrorKind::Unavailable, "its url is none").caused_by(error)),
            };
            if let Err(error) = &well {
                tracing::debug!(target: "larder::manager", event = "probe_failed", node = %shown(&name), error = %error);
            }
            (name, well)
        });
        join_all(probes).await
    }
}

async fn probe_within(node: &Node, bound: Duration) -> Result<()> {
    timeout(bound, node.probe()).await.unwrap_or_else(|_| {
        let why = format!("no answer within {bound:?}");
        Err(Error::new(ErrorKind::Timeout, why).with("node", node.label()))
    })
}

/// What is kept of an error: a server may say anything, at any length.
pub(super) fn brief(error: &Error) -> String {
    let text = error.to_string();
    text.escape_debug().take(MAX_WHY).collect()
}
