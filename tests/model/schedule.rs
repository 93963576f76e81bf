//! Which fault when. The seed decides, and nothing else.

use std::time::Duration;

use crate::random::Random;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nothing does.
    Calm,
    LineStalled,
    LineSlow,
    LineKilled,
    DataSlow,
    AllStalled,
    Cut,
    Reset,
    Slow,
    Killed,
    Paused,
    Flushed,
    OtherFlushed,
    Evicting,
    Full,
    ScriptsLost,
    MapChanged,
}

impl Kind {
    pub(crate) const ALL: [Self; 17] = [
        Self::Calm,
        Self::LineStalled,
        Self::LineSlow,
        Self::LineKilled,
        Self::DataSlow,
        Self::AllStalled,
        Self::Cut,
        Self::Reset,
        Self::Slow,
        Self::Killed,
        Self::Paused,
        Self::Flushed,
        Self::OtherFlushed,
        Self::Evicting,
        Self::Full,
        Self::ScriptsLost,
        Self::MapChanged,
    ];

    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or(0)
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Calm => "nothing wrong",
            Self::LineStalled => "lines stalled, the rest fine",
            Self::LineSlow => "lines slower than answers, by 20 to 150 ms",
            Self::LineKilled => "CLIENT KILL of lines",
            Self::DataSlow => "answers slow by 5 to 60 ms, lines fine",
            Self::AllStalled => "everything to a node stalled",
            Self::Cut => "connections closed",
            Self::Reset => "connections reset",
            Self::Slow => "everything slow by 5 to 60 ms",
            Self::Killed => "node killed, back empty",
            Self::Paused => "node stopped, and on",
            Self::Flushed => "FLUSHALL",
            Self::OtherFlushed => "FLUSHDB of another database",
            Self::Evicting => "maxmemory, evicting",
            Self::Full => "maxmemory, refusing writes",
            Self::ScriptsLost => "SCRIPT FLUSH",
            Self::MapChanged => "other maps published",
        }
    }
}

/// A fault for a while, and a calm after it.
#[derive(Clone, Debug)]
pub(crate) struct Episode {
    pub(crate) kind: Kind,
    pub(crate) span: Duration,
    pub(crate) calm: Duration,
    /// Decides what of the fleet it hits.
    pub(crate) random: Random,
    /// Operations meanwhile, and in the calm.
    pub(crate) operations: (usize, usize),
    /// Whether memory is compared with what is stored afterwards.
    pub(crate) compared: bool,
}

/// Operations in one episode, at about which a fleet of this size is busy and not late, and how many rounds of all kinds
/// there are at most.
const EPISODE: usize = 1200;
const ROUNDS: usize = 24;

/// Of a hundred operations so many fall into the fault, the others into the calm.
const SHARE: usize = 75;

/// After so many episodes memory is compared.
const COMPARED: usize = 4;

pub(crate) fn schedule(kinds: &[Kind], operations: usize, mut random: Random) -> Vec<Episode> {
    let rounds = (operations / (EPISODE * kinds.len())).clamp(1, ROUNDS);
    let count = rounds * kinds.len();
    let each = operations.div_ceil(count);
    let mut all = Vec::with_capacity(count);
    for _ in 0..rounds {
        for kind in random.shuffled(kinds.to_vec()) {
            let faulty = each * SHARE / 100;
            all.push(Episode {
                kind,
                span: random.millis(600, 1300),
                calm: random.millis(250, 500),
                random: Random::new(random.next(), 0),
                operations: (faulty, each - faulty),
                compared: (all.len() + 1).is_multiple_of(COMPARED),
            });
        }
    }
    if let Some(last) = all.last_mut() {
        last.compared = true;
    }
    all
}
