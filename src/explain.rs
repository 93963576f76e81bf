//! What a read came to, and why.

mod display;

use std::any::type_name;
use std::time::Duration;

use crate::clock::Moment;
use crate::entry::{Answer, Entry, Want, left};
use crate::error::{Error, ErrorKind, Result};
use crate::refusal::Refusal;
use crate::ttl::Remaining;

/// What a read of a key came to at each place that it asked, in their order. What [`Cache::explain`](crate::Cache::explain) and
/// [`Cache::get_with`](crate::Cache::get_with) tell.
///
/// `Display` is one line. No password is ever in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The key as it is stored, with all prefixes.
    pub key: String,
    /// Memory first, as far as there is some.
    pub places: Vec<Place>,
}

/// A value that was asked for, and what the read came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lookup<T> {
    /// The value, if there is one. Past its life only where the call takes that.
    pub value: Option<T>,
    /// Where it is, or why there is none.
    pub explanation: Explanation,
}

/// A place that a read asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Place {
    /// The store's type: `Moka`, `Redis`, `DistributedRedis`, or the application's own.
    pub store: &'static str,
    /// The server, as `host:port/db`.
    pub node: Option<String>,
    /// Whether it is memory of this process.
    pub in_memory: bool,
    /// Of memory that holds copies of what others write: whether it hears of their writes. If not, copies live for the bound on
    /// staleness at most.
    pub hears_writes: Option<bool>,
    /// What it holds.
    pub outcome: Outcome,
    /// What it failed with.
    pub error: Option<Error>,
}

/// What a place holds under a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A value within its life.
    Hit(Hit),
    /// A value past its life and within its grace, for those who take that.
    Stale(Hit),
    /// Nothing that may be answered.
    Miss(Why),
}

/// A value that is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hit {
    /// For how long it has been there, by the clock of the place itself; nothing where that is not known.
    pub age: Option<Duration>,
    /// What is left of its life; of a stale one that was rearmed, until it is computed again.
    pub remaining: Remaining,
    /// How long it is kept here: its grace longer, or, as a copy in memory, perhaps not as long.
    pub kept: Remaining,
    /// How long its compute took; nothing where it was not computed.
    pub compute_time: Option<Duration>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Nothing stands there, or nothing any more: servers do not tell.
    Absent,
    /// It is past its life, and gone or not taken so.
    Expired,
    /// What stands there is no value for this reader: of another type or version, damaged, or invalidated by tag, by a clear, or by a
    /// change of the ring.
    Refused(Refusal),
    /// A copy in memory whose source is not heard: it may be out of date.
    Unheard,
    /// A copy in memory whose key belongs to another node now.
    Moved,
    /// A write of it failed, and is to be made up for first.
    Owed,
    /// Its compute failed a short while ago, which is kept in the place of a value.
    ComputeFailed,
    /// The connection to the node broke, or could not be made.
    NodeDown,
    /// The node was known to be down, or is on trial after it came back: it was not asked.
    BreakerOpen,
    /// No answer came in time.
    Timeout,
    /// The store failed otherwise; [`Place::error`] tells how.
    Failed,
}

impl Why {
    /// The reason in a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Expired => "expired",
            Self::Refused(why) => why.as_str(),
            Self::Unheard => "unheard",
            Self::Moved => "moved",
            Self::Owed => "owed",
            Self::ComputeFailed => "compute_failed",
            Self::NodeDown => "node_down",
            Self::BreakerOpen => "breaker_open",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

impl Explanation {
    /// The place that has the answer: the first with a value within its life, or else the last with a stale one.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        answering(&self.places).and_then(|at| self.places.get(at))
    }

    /// The value that is there, within its life or not.
    #[must_use]
    pub fn hit(&self) -> Option<&Hit> {
        self.place()?.outcome.hit()
    }

    /// Whether what is there is past its life.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self.place(), Some(place) if matches!(place.outcome, Outcome::Stale(_)))
    }

    /// Why there is no value: what the last place said.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        match self.place() {
            Some(_) => None,
            None => self.places.last()?.outcome.why(),
        }
    }
}

/// Which of the places has the answer.
fn answering(places: &[Place]) -> Option<usize> {
    let hit = |place: &Place| matches!(place.outcome, Outcome::Hit(_));
    let stale = |place: &Place| matches!(place.outcome, Outcome::Stale(_));
    places
        .iter()
        .position(hit)
        .or_else(|| places.iter().rposition(stale))
}

impl Outcome {
    /// The value that is there.
    #[must_use]
    pub fn hit(&self) -> Option<&Hit> {
        match self {
            Self::Hit(hit) | Self::Stale(hit) => Some(hit),
            Self::Miss(_) => None,
        }
    }

    /// Why there is none.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        match self {
            Self::Miss(why) => Some(*why),
            Self::Hit(_) | Self::Stale(_) => None,
        }
    }
}

impl Hit {
    fn of(entry: &Entry, now: Moment, in_memory: bool) -> Self {
        let mut hit = Self {
            age: in_memory.then(|| now.since(entry.born())),
            remaining: left(entry.fresh_until(), now),
            kept: entry.kept(now),
            compute_time: None,
            tags: entry.tags().map(str::to_owned).collect(),
        };
        hit.computed_in(entry.compute_us());
        hit
    }

    fn computed_in(&mut self, micros: u32) {
        self.compute_time = (micros > 0).then(|| Duration::from_micros(micros.into()));
    }
}

impl Place {
    /// A place in a store of this type, of which nothing is known yet.
    #[must_use]
    pub fn of<B: ?Sized>() -> Self {
        let path = type_name::<B>();
        let path = path.split('<').next().unwrap_or(path);
        Self::named(path.rsplit("::").next().unwrap_or(path))
    }

    /// The same, in a store of this name.
    #[must_use]
    pub fn named(store: &'static str) -> Self {
        Self {
            store,
            node: None,
            in_memory: false,
            hears_writes: None,
            outcome: Outcome::Miss(Why::Absent),
            error: None,
        }
    }

    /// The same, as memory of this process.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// The same, at a server: `host:port/db`.
    #[must_use]
    pub fn at(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// The same, where there is nothing that may be answered.
    #[must_use]
    pub fn missing(mut self, why: Why) -> Self {
        self.outcome = Outcome::Miss(why);
        self
    }

    /// The same, which gave this answer.
    fn answering(mut self, answer: &Result<Answer>, now: Moment) -> Self {
        self.outcome = match answer {
            Err(error) => {
                self.error = Some(error.clone());
                Outcome::Miss(match error.kind() {
                    ErrorKind::Unavailable => Why::NodeDown,
                    ErrorKind::Timeout => Why::Timeout,
                    _ => Why::Failed,
                })
            }
            Ok(answer) => match (&answer.entry, answer.refusal) {
                (Some(entry), _) if entry.is_live(now) => {
                    Outcome::Hit(Hit::of(entry, now, self.in_memory))
                }
                (Some(entry), _) => Outcome::Stale(Hit::of(entry, now, self.in_memory)),
                (None, Some(why)) => Outcome::Miss(Why::Refused(why)),
                (None, None) => Outcome::Miss(Why::Absent),
            },
        };
        self
    }
}

/// A read of a store, and what each place came to that it asked. What [`Backend::trace`](crate::Backend::trace) answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trace {
    /// In the order in which they were asked.
    pub places: Vec<Place>,
    /// What [`Backend::fetch`](crate::Backend::fetch) would have answered.
    pub answer: Result<Answer>,
}

impl Trace {
    /// One place, and its answer to a read that takes stale values, whatever is wanted.
    #[must_use]
    pub fn of(place: Place, answer: Result<Answer>, want: Want, now: Moment) -> Self {
        let trace = Self {
            places: vec![place.answering(&answer, now)],
            answer,
        };
        if want.stale { trace } else { trace.expired() }
    }

    /// The same, to who takes nothing that is past its life.
    #[must_use]
    pub fn expired(mut self) -> Self {
        let stale = answering(&self.places).and_then(|at| self.places.get_mut(at));
        if let Some(place) = stale
            && matches!(place.outcome, Outcome::Stale(_))
        {
            place.outcome = Outcome::Miss(Why::Expired);
            self.answer = Ok(Answer::default());
        }
        self
    }

    /// The same, with another judgement of what was found.
    #[cfg(feature = "ring")]
    #[must_use]
    pub(crate) fn judged(mut self, judge: impl FnOnce(Answer) -> Answer) -> Self {
        let found = std::mem::replace(&mut self.answer, Ok(Answer::default()));
        self.answer = found.map(judge);
        let refusal = self.answer.as_ref().ok().and_then(|answer| answer.refusal);
        if let (Some(why), Some(place)) = (refusal, self.last_mut()) {
            place.outcome = Outcome::Miss(Why::Refused(why));
        }
        self
    }

    /// How long the compute of what was found took, in microseconds.
    pub(crate) fn computed_in(&mut self, micros: u32) {
        if let Some(place) = self.last_mut()
            && let Outcome::Hit(hit) | Outcome::Stale(hit) = &mut place.outcome
        {
            hit.computed_in(micros);
        }
    }

    /// Nothing, for this reason.
    #[must_use]
    pub fn missing(place: Place, why: Why) -> Self {
        Self {
            places: vec![place.missing(why)],
            answer: Ok(Answer::default()),
        }
    }

    /// The same after places that had nothing to answer.
    #[must_use]
    pub fn after(mut self, mut earlier: Vec<Place>) -> Self {
        earlier.append(&mut self.places);
        self.places = earlier;
        self
    }

    /// The place that has the answer, or else the last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Place> {
        match answering(&self.places) {
            Some(at) => self.places.get_mut(at),
            None => self.places.last_mut(),
        }
    }

    /// What is there is nothing after all.
    pub(crate) fn refuse(&mut self, why: Why) {
        if let Some(place) = self.last_mut() {
            place.outcome = Outcome::Miss(why);
        }
        self.answer = Ok(Answer::default());
    }

    pub(crate) fn explained(self, key: String) -> Explanation {
        Explanation {
            key,
            places: self.places,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    struct Own<T>(T);

    fn entry(ttl: u64, grace: u64) -> Entry {
        let life = Some(Duration::from_secs(ttl));
        Entry::new(Value::new(1_u8), Moment::of_nanos(0), life)
            .with_grace(Duration::from_secs(grace))
    }

    fn at(secs: u64) -> Moment {
        Moment::of_nanos(0).after(Duration::from_secs(secs))
    }

    fn trace(answer: Result<Answer>, now: Moment) -> Trace {
        Trace::of(
            Place::of::<Own<Vec<u8>>>().at("127.0.0.1:1/0"),
            answer,
            Want::default().or_stale(),
            now,
        )
    }

    #[test]
    fn a_store_is_called_by_its_type() {
        assert_eq!(Place::of::<Own<Vec<u8>>>().store, "Own");
        assert_eq!(Place::of::<u8>().store, "u8");
    }

    #[test]
    fn what_a_place_answered_is_told() {
        let memory = Place::of::<u8>().in_memory();
        let hit = Trace::of(memory, Ok(entry(10, 5).into()), Want::default(), at(3))
            .explained("k".into());
        assert_eq!(
            hit.to_string(),
            "k: u8: hit, 3.0s old, 7.0s left, kept for 12.0s"
        );
        assert_eq!(hit.hit().unwrap().age, Some(Duration::from_secs(3)));
        assert!(!hit.is_stale() && hit.why().is_none());
        let stale = trace(Ok(entry(10, 5).into()), at(11)).explained("k".into());
        let told = "k: Own at 127.0.0.1:1/0: stale, 0.0ns left, kept for 4.0s";
        assert_eq!(stale.to_string(), told);
        assert!(stale.is_stale() && stale.hit().unwrap().age.is_none());
        for (answer, why) in [
            (Ok(Answer::default()), Why::Absent),
            (
                Ok(Answer::refused(Refusal::Schema)),
                Why::Refused(Refusal::Schema),
            ),
            (Err(Error::new(ErrorKind::Timeout, "")), Why::Timeout),
            (Err(Error::new(ErrorKind::Unavailable, "")), Why::NodeDown),
            (Err(Error::new(ErrorKind::Rejected, "")), Why::Failed),
        ] {
            let failed = answer.is_err();
            let told = trace(answer, at(0)).explained("k".into());
            assert_eq!(told.why(), Some(why));
            assert!(told.place().is_none() && told.hit().is_none());
            assert_eq!(told.places[0].error.is_some(), failed);
            assert!(told.to_string().contains(&format!("miss, {why}")));
        }
    }

    #[test]
    fn the_first_value_within_its_life_answers_or_the_last_stale_one() {
        let places = |outcomes: &[u64]| {
            let each = outcomes
                .iter()
                .map(|now| trace(Ok(entry(10, 5).into()), at(*now)));
            let places = each.flat_map(|trace| trace.places).collect();
            Explanation {
                key: "k".into(),
                places,
            }
        };
        let kept = |explanation: &Explanation| explanation.hit().unwrap().kept;
        assert_eq!(
            kept(&places(&[12, 3])),
            Remaining::For(Duration::from_secs(12))
        );
        assert_eq!(
            kept(&places(&[12, 13])),
            Remaining::For(Duration::from_secs(2))
        );
        let mut refused = trace(Ok(entry(10, 5).into()), at(12));
        refused.refuse(Why::ComputeFailed);
        let mut two = refused
            .clone()
            .after(trace(Ok(Answer::default()), at(0)).places);
        assert!(two.answer.as_ref().unwrap().entry.is_none());
        two.last_mut().unwrap().hears_writes = Some(false);
        let told = two.explained("a\nb".into());
        assert_eq!(told.why(), Some(Why::ComputeFailed));
        let first = "a\\nb: Own at 127.0.0.1:1/0: miss, absent; Own at 127.0.0.1:1/0: miss, compute_failed, ";
        assert!(told.to_string().starts_with(first), "{told}");
    }
}
