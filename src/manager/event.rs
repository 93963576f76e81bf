//! What happened to a ring, for people.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Somebody added a node.
    Added,
    /// Somebody gave a node another url.
    Changed,
    /// Somebody removed a node.
    Removed,
    /// Another program put a node on the map.
    AddedElsewhere,
    /// Another program took a node off the map.
    RemovedElsewhere,
    /// A map that another program wrote is managed from now on.
    TakenOver,
    /// A map that was gone was written again.
    Restored,
    /// All positions were chosen anew.
    Rebuilt,
    /// A node fails.
    Suspected,
    /// A node that failed is well again.
    Recovered,
    /// A node that failed was taken off the ring.
    Ejected,
    /// A node that was taken off is on the ring again.
    Returned,
    /// A node has lost a part of its keys.
    Draining,
    /// A node has no keys any more.
    Drained,
    /// Nothing is taken off the ring for a while: so much fails at once that it is more likely this manager that is cut off.
    Frozen,
    /// That is over.
    Thawed,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::AddedElsewhere => "added_elsewhere",
            Self::RemovedElsewhere => "removed_elsewhere",
            Self::TakenOver => "taken_over",
            Self::Restored => "restored",
            Self::Rebuilt => "rebuilt",
            Self::Suspected => "suspected",
            Self::Recovered => "recovered",
            Self::Ejected => "ejected",
            Self::Returned => "returned",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Frozen => "frozen",
            Self::Thawed => "thawed",
        }
    }

    /// Whether an administrator is told, who did not do it.
    pub(super) fn is_told(self) -> bool {
        !matches!(
            self,
            Self::Suspected | Self::Recovered | Self::Draining | Self::Added | Self::Changed
        )
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// To which node, by its `host:port/db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// When, by the clock of the manager that wrote it, in seconds since 1970: to be shown, and compared with nothing.
    pub at: u64,
}

impl Event {
    pub(super) fn new(kind: Kind, node: Option<String>, text: &str) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            kind,
            node,
            text: text.to_owned(),
            at: at.map_or(0, |at| at.as_secs()),
        }
    }

    pub(super) fn line(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}
