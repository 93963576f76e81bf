//! One Redis server: its address, Larder's own connection to it, and what a store asks of it.

mod ask;
mod batch;
mod clear;
mod command;
mod connection;
mod dial;
mod exchange;
pub(crate) mod fetch;
mod flaps;
mod gather;
mod get;
mod greet;
mod guard;
mod lease;
mod line;
mod load;
mod login;
mod many;
mod marks;
mod names;
pub(crate) mod node;
pub(crate) mod opened;
mod owing;
#[cfg(feature = "manager")]
pub(crate) mod probe;
mod race;
#[cfg(feature = "ring")]
pub(crate) mod raw;
pub(crate) mod reads;
mod reclaim;
mod repay;
mod replay;
pub(crate) mod reply;
mod request;
mod resp;
mod scatter;
mod script;
mod settings;
mod slot;
mod supervisor;
mod target;
#[cfg(test)]
pub(crate) mod testserver;
#[cfg(feature = "tls")]
mod tls;
mod trace;
mod tracking;
mod url;
mod wipe;

pub(crate) use connection::Connection;
pub use login::Login;
#[cfg(feature = "ring")]
pub(crate) use login::Logins;
pub use node::NodeStatus;
#[cfg(feature = "ring")]
pub(crate) use scatter::{Asked, scatter};
#[cfg(feature = "manager")]
pub(crate) use settings::Admits;
pub(crate) use settings::ConnectionSettings;
pub(crate) use target::Target;
#[cfg(feature = "tls")]
pub use tls::Tls;
#[cfg(feature = "ring")]
pub(crate) use tracking::{Heard, Listener};
#[cfg(any(feature = "ring", test))]
pub(crate) use url::NodeAddr;
