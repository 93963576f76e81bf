//! Commands that are not sent, and what to do instead.

use crate::commands::Why;
use crate::error::Error;

/// Why a command is not sent.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// By the command itself.
    Of { name: String, why: Why },
    /// Its keys are on several nodes.
    Apart { name: String, nodes: [usize; 2] },
    /// Commands of a transaction are for several nodes.
    Torn,
    /// It has to be sent by itself.
    Alone { name: String },
    /// A key belongs to no node.
    Nowhere(Error),
}

impl Refusal {
    pub(super) fn of(args: &[&[u8]], why: Why) -> Self {
        let name = name(args);
        Self::Of { name, why }
    }

    pub(super) fn apart(args: &[&[u8]], nodes: [usize; 2]) -> Self {
        let name = name(args);
        Self::Apart { name, nodes }
    }

    pub(super) fn alone(args: &[&[u8]]) -> Self {
        Self::Alone { name: name(args) }
    }

    /// What is said of it, where a node's index is `label`led.
    pub(super) fn words(&self, label: impl Fn(usize) -> String) -> String {
        match self {
            Self::Of { name, why } => format!("{name}: {}", why.advice()),
            Self::Apart { name, nodes } => {
                let [one, other] = nodes.map(label);
                format!(
                    "{name}: its keys are on {one} and {other}, and it needs one node: hash tags bring keys together (DistributedRedisBuilder::hash_tags)"
                )
            }
            Self::Torn => "a transaction is for one node, and these keys are on several: hash tags bring keys together \
                           (DistributedRedisBuilder::hash_tags)"
                .to_owned(),
            Self::Alone { name } => {
                format!(
                    "{name}: it goes to all nodes, so it is sent by itself and not in a pipeline"
                )
            }
            Self::Nowhere(error) => error.to_string(),
        }
    }
}

/// The command's name as far as it is one, never its arguments.
fn name(args: &[&[u8]]) -> String {
    let name = args.first().copied().unwrap_or_default();
    let shown = name.iter().take(32).filter(|byte| byte.is_ascii_graphic());
    shown
        .map(|byte| char::from(byte.to_ascii_uppercase()))
        .collect()
}
