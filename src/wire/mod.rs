//! One Redis server: its address, Larder's own connection to it, and what a store asks of it.

mod connection;
mod dial;
mod exchange;
mod guard;
pub(crate) mod node;
mod race;
mod reply;
mod resp;
mod settings;
mod slot;
mod supervisor;
#[cfg(test)]
mod testserver;
mod url;

pub(crate) use connection::Connection;
pub use node::NodeStatus;
pub(crate) use settings::ConnectionSettings;
pub(crate) use url::NodeAddr;
