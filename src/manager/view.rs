//! What is shown of a ring, by HTTP and by the program `larder`: never a password.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cluster::Labels;
use super::event::Event;
use super::member::{State, shown};
use crate::ringmap::label;

/// The nodes of a ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodesView {
    /// The map's epoch.
    pub epoch: u64,
    /// All members, by name.
    pub nodes: Vec<NodeView>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeView {
    /// Its `host:port/db`.
    pub node: String,
    /// How it is with it.
    pub state: State,
    /// The part of all keys that it has, from 0 to 1.
    pub share: f64,
    /// How many positions it has.
    pub positions: usize,
    /// How often it fell and came back, not long ago.
    pub flaps: u32,
    /// How much of its part it still has, while it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<f64>,
    /// Why it fails, or was taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A ring's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RingView {
    /// The map's epoch.
    pub epoch: u64,
    /// Nodes that are on it.
    pub nodes: usize,
    /// Their positions.
    pub positions: usize,
    /// Fields of the map, in which some positions are spelt twice.
    pub fields: usize,
    /// How positions are chosen.
    pub labels: Labels,
    /// How many each node has.
    pub vnodes: usize,
    /// By which rule readers find a node.
    pub lookup: String,
    /// Whether somebody edited it who knows nothing of epochs.
    pub edited: bool,
    /// What the fullest node has in times of the mean.
    pub imbalance: f64,
    /// What finding a node costs a Python reader, for each of its commands, in microseconds of CPU: it sorts all fields.
    pub python_reader_us: f64,
}

/// A ring, stretch by stretch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArcsView {
    /// The map's epoch.
    pub epoch: u64,
    /// The nodes.
    pub nodes: Vec<String>,
    /// Where on the ring each stretch begins, and which of the nodes it is of. It ends where the next begins, and the last one at 2^32.
    pub arcs: Vec<(u32, usize)>,
}

/// Keys that move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Moved {
    /// The epoch of the map afterwards; none where nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The part of all keys, from 0 to 1.
    pub moved: f64,
    /// From where to where, large parts first.
    pub moves: Vec<MoveView>,
}

/// Keys that move from one node to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MoveView {
    /// The node that had them.
    pub from: Option<String>,
    /// The node that has them then.
    pub to: Option<String>,
    /// The part of all keys, from 0 to 1.
    pub share: f64,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Located {
    /// The key, with all its prefixes.
    pub key: String,
    /// Its place on the ring.
    pub hash: u32,
    /// The node that has it; none on an empty ring.
    pub node: Option<String>,
}

/// Something that happened, and its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventView {
    /// Later events have greater numbers.
    pub id: u64,
    /// What it was.
    #[serde(flatten)]
    pub event: Event,
}

/// Events, the latest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventsView {
    /// Those that were asked for.
    pub events: Vec<EventView>,
}

/// What is to be tried out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Plan {
    /// A node is added.
    Add {
        /// Its url.
        url: String,
    },
    /// A node is put back that was taken off or drained.
    Return {
        /// Its `host:port/db`.
        node: String,
    },
    /// A node is removed.
    Remove {
        /// Its `host:port/db`.
        node: String,
    },
    /// A node is drained by one of so many steps.
    Drain {
        /// Its `host:port/db`.
        node: String,
        /// In how many steps.
        #[serde(default = "one")]
        steps: u32,
    },
    /// All positions are chosen anew.
    Rebuild {},
}

// A url may hold a password.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { url } => write!(f, "Add({})", label(url)),
            Self::Return { node } => write!(f, "Return({})", shown(node)),
            Self::Remove { node } => write!(f, "Remove({})", shown(node)),
            Self::Drain { node, steps } => write!(f, "Drain({}, {steps})", shown(node)),
            Self::Rebuild {} => f.write_str("Rebuild"),
        }
    }
}

fn one() -> u32 {
    1
}

/// Something about a map that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// Whether readers suffer from it.
    pub is_error: bool,
    /// What it is.
    pub text: String,
}

/// What a look at a map came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Findings {
    /// Errors first; none, and all is well.
    pub findings: Vec<Finding>,
}

impl Findings {
    /// Whether readers suffer from nothing.
    #[must_use]
    pub fn are_harmless(&self) -> bool {
        self.findings.iter().all(|finding| !finding.is_error)
    }
}
