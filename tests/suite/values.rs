//! What tests of generations write and read, over one server.

use std::time::Duration;

use larder::{Cache, Options, Redis};

use crate::support::Server;

/// A store that asks for the generations with every read.
pub(crate) async fn strict(server: &Server) -> Redis {
    let builder = Redis::builder(&server.url(0)).max_staleness(Duration::ZERO);
    builder.connect().await.expect("connected")
}

pub(crate) fn text(text: &str) -> String {
    text.to_owned()
}

/// For a minute, with a tag.
pub(crate) fn tagged(tag: &str) -> Options {
    Options::ttl(Duration::from_secs(60)).tag(tag)
}

pub(crate) async fn read(cache: &impl Cache, key: &str) -> Option<String> {
    cache.get(key).await.expect("an answer")
}
