//! The right to compute a value, for one process of all.

use std::time::Duration;

use super::{Answer, Ticket};

/// How the right to compute a value is asked for, for all processes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// How long it lasts unless it is renewed.
    pub life: Duration,
    /// Whether it is wanted although a value stands there that is within its life.
    pub anew: bool,
}

impl Lease {
    /// For what is not there, or past its life.
    #[must_use]
    pub fn of(life: Duration) -> Self {
        Self { life, anew: false }
    }

    /// Also for what is within its life.
    #[must_use]
    pub fn anew(mut self) -> Self {
        self.anew = true;
        self
    }
}

/// What stands under a key, and who may compute it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// What stands there, past its life or not.
    pub answer: Answer,
    /// The right to compute it.
    pub right: Right,
}

/// The right to compute a value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Right {
    /// A value within its life stands there.
    NotNeeded,
    /// The caller has it.
    Granted(Ticket),
    /// Another has it, for so long unless it is renewed.
    Held(Duration),
}

impl Claim {
    /// A claim.
    #[must_use]
    pub fn new(answer: Answer, right: Right) -> Self {
        Self { answer, right }
    }
}
