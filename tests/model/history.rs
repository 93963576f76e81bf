//! The last things that happened, for whoever has to understand a violation.

use std::collections::VecDeque;
use std::fmt;

use crate::barriers::Scope;
use crate::schedule::Kind;

const REMEMBERED: usize = 24;

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Set(u64),
    Delete(u64),
    Acknowledged(u64),
    Undecided(u64),
    Compute(u64, u64),
    Read(u64, u64, u64),
    Nothing(u64),
    ClearBegins(Scope),
    Cleared(bool),
    TagBegins(usize),
    TagGone(usize, bool),
    Begins(Kind),
    Ends(Kind),
    MapChanged(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) at: u64,
    pub(crate) process: usize,
    pub(crate) what: What,
}

/// The latest events.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(VecDeque<Event>);

impl History {
    pub(crate) fn push(&mut self, event: Event) {
        self.0.push_back(event);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// Both, in the order of time.
    pub(crate) fn with(&self, other: &Self) -> String {
        let mut all: Vec<&Event> = self.0.iter().chain(&other.0).collect();
        all.sort_by_key(|event| event.at);
        all.iter().map(|event| format!("    {event}\n")).collect()
    }
}

/// Milliseconds with three decimals.
pub(crate) fn ms(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e6)
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12} ms  process {}  ", ms(self.at), self.process)?;
        match self.what {
            What::Set(version) => write!(f, "sets v{version}"),
            What::Delete(version) => write!(f, "deletes at v{version}"),
            What::Acknowledged(version) => write!(f, "v{version} acknowledged"),
            What::Undecided(version) => write!(f, "v{version} failed: undecided"),
            What::Compute(version, serial) => write!(f, "computes v{version} as #{serial}"),
            What::Read(version, serial, began) => {
                write!(f, "read v{version} #{serial}, began {}", ms(began))
            }
            What::Nothing(began) => write!(f, "read nothing, began {}", ms(began)),
            What::ClearBegins(scope) => write!(f, "clears {scope:?}"),
            What::Cleared(ok) => write!(f, "cleared: {ok}"),
            What::TagBegins(tag) => write!(f, "invalidates tag {tag}"),
            What::TagGone(tag, ok) => write!(f, "tag {tag} invalidated: {ok}"),
            What::Begins(kind) => write!(f, "-- {kind:?} begins"),
            What::Ends(kind) => write!(f, "-- {kind:?} ends"),
            What::MapChanged(number) => write!(f, "-- map {number} published"),
        }
    }
}
