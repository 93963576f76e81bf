//! Who is a member of a ring, as it stands in the manager Redis.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ringmap::label;

/// How it is with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It has its part of the keys.
    Up,
    /// It has its part, and fails.
    Suspect,
    /// It was taken off the ring because it failed, and comes back when it is well.
    Out,
    /// It loses its part step by step.
    Draining,
    /// It has no part any more, until somebody adds it again.
    Drained,
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Out => "out",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }

    /// Whether the node is on the map.
    pub(super) fn is_on(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Draining)
    }
}

/// One node, by its `host:port/db`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    /// With its password, where it has one.
    pub(super) url: String,
    pub(super) state: State,
    /// Where it was before it lost its part, to come back to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) positions: Vec<u32>,
    /// How often it was taken off the ring and came back, not long ago.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) flaps: u32,
    /// How much of its part it still has, while it is drained: from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<f64>,
    /// By how much that falls with each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<f64>,
    /// Why it is as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Member {
    /// One that has its part.
    pub(super) fn up(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            state: State::Up,
            positions: Vec::new(),
            flaps: 0,
            part: None,
            step: None,
            why: String::new(),
        }
    }

    /// As it is written.
    pub(super) fn text(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({}, {})", label(&self.url), self.state.as_str())
    }
}

/// By what a node is told from others: its `host:port/db`, or all of a url that is none.
pub(super) fn name_of(url: &str) -> String {
    match label(url) {
        label if label == "?" => url.to_owned(),
        label => label,
    }
}

/// A name as it may be shown: what is no `host:port/db` to the letter may hold a password.
pub(super) fn shown(name: &str) -> String {
    let as_label = label(&format!("redis://{name}"));
    if as_label == name {
        as_label
    } else {
        "?".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_that_may_be_a_password() {
        for name in ["10.0.0.1:6379/0", "[::1]:5/1", "node:1/15"] {
            assert_eq!(shown(name), name);
        }
        for url in [
            ":canary@10.0.0.1:6379/0",
            "canary",
            "canary@h",
            "http://canary@h",
            "redis://canary@@/",
            "",
        ] {
            assert_eq!(shown(&name_of(url)), "?", "{url}");
        }
        let member = Member::up("redis://:canary@10.0.0.1:6379/0");
        assert_eq!(shown(&name_of(&member.url)), "10.0.0.1:6379/0");
        assert!(!format!("{member:?}").contains("canary"));
    }
}
