//! The names of the keys of a map.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{MAX_KEY_BYTES, RESERVED};

/// The hash of positions and node urls, unless the map has another name.
pub const MAP_KEY: &str = "HASH_RING_MAP";
/// The hash of epoch, digest, lookup rule and writer.
pub const META_KEY: &str = "HASH_RING_META";
/// The hash of earlier maps by epoch.
pub const HISTORY_KEY: &str = "HASH_RING_HISTORY";

/// How the names of the keys beside a map end.
const OTHER_ENDS: [&str; 5] = ["_META", "_HISTORY", "_NODES", "_EVENTS", "_LEASE"];

/// Where one map stands in its manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapKeys {
    pub(super) map: String,
    pub(super) meta: String,
    pub(super) history: String,
    /// Who is a member: its manager's.
    pub(super) nodes: String,
    /// What happened: its manager's.
    pub(super) events: String,
    /// Who its manager is.
    pub(super) lease: String,
}

impl Default for MapKeys {
    fn default() -> Self {
        Self::of(MAP_KEY, "HASH_RING")
    }
}

impl MapKeys {
    fn of(map: &str, stem: &str) -> Self {
        let beside = |end: &str| format!("{stem}_{end}");
        Self {
            map: map.to_owned(),
            meta: beside("META"),
            history: beside("HISTORY"),
            nodes: beside("NODES"),
            events: beside("EVENTS"),
            lease: beside("LEASE"),
        }
    }

    /// The keys of the map `name`: `cart_MAP` has `cart_META` and `cart_HISTORY`, `cart` has them too, and so on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the name is empty, longer than 1,024 bytes, holds a control character or ends like the
    /// name of another key of a map.
    pub(super) fn named(name: &str) -> Result<Self> {
        let problem = if name.is_empty() {
            "a map's name must not be empty"
        } else if name.len() > MAX_KEY_BYTES {
            "a map's name must not be longer than 1024 bytes"
        } else if name.chars().any(char::is_control) {
            "a map's name must not hold control characters"
        } else if OTHER_ENDS.iter().any(|end| name.ends_with(end)) {
            "a map's name must not end in _META, _HISTORY, _NODES, _EVENTS or _LEASE, as the keys beside a map do"
        } else {
            return Ok(Self::of(name, name.strip_suffix("_MAP").unwrap_or(name)));
        };
        // The name is not repeated: in a url, what stands in its place may be a password.
        Err(Error::new(ErrorKind::Config, problem))
    }

    /// Those of them that could be keys of a cache too.
    pub(super) fn unreserved(&self) -> Arc<[String]> {
        let reserved = |key: &&str| RESERVED.iter().any(|prefix| key.starts_with(prefix));
        let unreserved = self.kept().into_iter().filter(|key| !reserved(key));
        unreserved.map(str::to_owned).collect()
    }

    /// Those that readers follow.
    pub(super) fn followed(&self) -> [&str; 3] {
        [&self.map, &self.meta, &self.history]
    }

    /// All of them: map, meta, history, nodes, events, lease.
    pub(super) fn kept(&self) -> [&str; 6] {
        let [map, meta, history] = self.followed();
        [map, meta, history, &self.nodes, &self.events, &self.lease]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_maps() {
        assert_eq!(MapKeys::named(MAP_KEY).unwrap(), MapKeys::default());
        for (name, meta, history) in [
            ("cart_MAP", "cart_META", "cart_HISTORY"),
            ("cart", "cart_META", "cart_HISTORY"),
            ("_MAP", "_META", "_HISTORY"),
            ("MAP", "MAP_META", "MAP_HISTORY"),
            ("a_MAP_b", "a_MAP_b_META", "a_MAP_b_HISTORY"),
        ] {
            assert_eq!(
                MapKeys::named(name).unwrap().followed(),
                [name, meta, history]
            );
        }
    }

    #[test]
    fn unusable_names_are_refused() {
        let long = "x".repeat(1025);
        for name in [
            "",
            "a\nb",
            "\0",
            &long,
            "a_META",
            "HASH_RING_HISTORY",
            "_NODES",
            "a_EVENTS",
            "a_LEASE",
        ] {
            let error = MapKeys::named(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        assert!(MapKeys::named(&"x".repeat(1024)).is_ok());
    }

    #[test]
    fn what_begins_like_a_reserved_key_needs_no_protection() {
        assert!(MapKeys::default().unreserved().is_empty());
        let keys = MapKeys::named("cart").unwrap();
        let all = ["", "_META", "_HISTORY", "_NODES", "_EVENTS", "_LEASE"];
        assert_eq!(&*keys.unreserved(), all.map(|end| format!("cart{end}")));
    }
}
