//! When a node that fails is taken off the ring, and when it comes back: decided here, from what probes came to, by a clock that is given.
//! Nothing is asked or written here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::member::{Member, State, shown};

/// When nodes are judged, and how.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HealthSettings {
    /// Between two probes of a node that is well.
    pub interval: Duration,
    /// Between two probes of one that is not, or comes back.
    pub retry: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// So many failures in a row, and a node is suspected.
    pub failures: u32,
    /// For so long it fails before it is taken off the ring.
    pub remove_after: Duration,
    /// So many successes in a row before it comes back.
    pub successes: u32,
    /// For so long it stays off the ring at least: twice that after its second fall, and so on.
    pub hold: Duration,
    /// But no longer than this, and a fifth.
    pub max_hold: Duration,
    /// For so long it has to be well for one of its falls to be forgotten.
    pub forgive_after: Duration,
    /// So many nodes stay on the ring, whatever they do.
    pub min_nodes: usize,
    /// Between two removals.
    pub pause: Duration,
    /// For so long a manager that says nothing is waited for before another one judges.
    pub lease: Duration,
    /// Whether a node that comes back is emptied before others see it. Readers that know nothing of epochs, the Python SDK, would find there what
    /// was written before it left.
    pub empty: bool,
}

impl Default for HealthSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            interval: seconds(10),
            retry: seconds(2),
            timeout: seconds(1),
            failures: 3,
            remove_after: seconds(30),
            successes: 5,
            hold: seconds(30),
            max_hold: seconds(3600),
            forgive_after: seconds(3600),
            min_nodes: 1,
            pause: seconds(30),
            lease: seconds(15),
            empty: true,
        }
    }
}

/// A wait that took this much longer than it should says that this process did not run.
const MAX_LATE: Duration = Duration::from_secs(2);

/// For how long nothing is judged then.
const TILT: Duration = Duration::from_secs(30);

/// What is known of one node.
#[derive(Clone, Debug, Default)]
struct Record {
    failures: u32,
    failing_since: Option<Instant>,
    successes: u32,
    out_since: Option<Instant>,
    well_since: Option<Instant>,
    next: Option<Instant>,
    why: String,
    /// Why it was not asked.
    not_made: Option<String>,
    /// Whether it is to be taken off the ring, and was not seen off it yet.
    ejected: bool,
}

/// Why nothing is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Freeze {
    /// Half of the nodes or more fail at once: it is this manager that is cut off.
    CutOff,
    /// This process was stopped, or did not get to run.
    Late,
}

impl Freeze {
    /// What is said of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CutOff => {
                "half of the nodes fail at once, as if this manager were cut off from them"
            }
            Self::Late => "this manager was stopped for a while, or did not get to run",
        }
    }
}

/// What is to be done about a node.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Verdict {
    Suspect(String, String),
    Recover(String),
    Eject(String, String),
    Return(String),
    Forgive(String),
    Freeze(Freeze),
    Thaw,
}

impl Verdict {
    /// The node that it is about.
    pub(super) fn node(&self) -> Option<&String> {
        match self {
            Self::Suspect(name, _)
            | Self::Recover(name)
            | Self::Eject(name, _)
            | Self::Return(name)
            | Self::Forgive(name) => Some(name),
            Self::Freeze(_) | Self::Thaw => None,
        }
    }
}

// What is no node's name may be a url, with its password.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name) = match self {
            Self::Suspect(name, _) => ("suspect", name),
            Self::Recover(name) => ("recover", name),
            Self::Eject(name, _) => ("eject", name),
            Self::Return(name) => ("return", name),
            Self::Forgive(name) => ("forgive", name),
            Self::Freeze(freeze) => return write!(f, "freeze: {}", freeze.as_str()),
            Self::Thaw => return f.write_str("thaw"),
        };
        write!(f, "{what} {}", shown(name))
    }
}

/// Who judges the nodes.
#[derive(Debug)]
pub(super) struct Health {
    settings: HealthSettings,
    nodes: BTreeMap<String, Record>,
    ejected: Option<Instant>,
    /// Since when half of the nodes fail, be it once.
    doubted: Option<Instant>,
    frozen: Option<Frozen>,
}

impl Health {
    pub(super) fn new(settings: HealthSettings) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            ejected: None,
            doubted: None,
            frozen: None,
        }
    }

    /// Why nothing is judged at the moment.
    pub(super) fn frozen(&self) -> Option<Freeze> {
        self.frozen.map(|frozen| frozen.why)
    }

    /// Why a node fails, or cannot be asked, if so it is.
    pub(super) fn failing(&self, name: &str) -> Option<&str> {
        let record = self.nodes.get(name)?;
        let fails = (record.failures > 0).then_some(&record.why);
        record.not_made.as_ref().or(fails).map(String::as_str)
    }

    /// Those whose turn it is to be asked.
    pub(super) fn due(&mut self, now: Instant, members: &BTreeMap<String, Member>) -> Vec<String> {
        // One that is drained is asked nothing.
        let asked = |name: &String| {
            let member = members.get(name);
            member.is_some_and(|member| member.state != State::Drained)
        };
        self.nodes.retain(|name, _| asked(name));
        let asked = members.iter().filter(|(name, _)| asked(name));
        let due = asked.filter(|(name, _)| {
            let next = self.nodes.get(*name).and_then(|record| record.next);
            next.is_none_or(|next| next <= now)
        });
        due.map(|(name, _)| name.clone()).collect()
    }

    /// When the next turn is.
    pub(super) fn next(&self, now: Instant) -> Duration {
        let next = self.nodes.values().filter_map(|record| record.next).min();
        let pause = next.map_or(self.settings.retry, |next| {
            next.saturating_duration_since(now)
        });
        pause.clamp(Duration::from_millis(10), self.settings.interval)
    }

    /// Notes that the wait for the next turn is over, which should have taken so long.
    pub(super) fn woken(
        &mut self,
        now: Instant,
        after: Duration,
        since: Instant,
    ) -> Option<Verdict> {
        let late = self.overslept(now, after, since);
        // The time in which nobody was asked counts for nobody.
        late.then(|| self.freeze(Freeze::Late, now, since + after))
            .flatten()
    }

    /// Whether something took so much longer than it should that this process did not get to run.
    pub(super) fn overslept(&self, now: Instant, after: Duration, since: Instant) -> bool {
        now.saturating_duration_since(since + after) > MAX_LATE
    }

    /// Notes what probes came to, and says what is to be done.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        members: &BTreeMap<String, Member>,
        probes: Vec<(String, Probe)>,
    ) -> Vec<Verdict> {
        let mut probed = BTreeSet::new();
        for (name, probe) in probes {
            let Some(member) = members.get(&name) else {
                continue;
            };
            let settings = &self.settings;
            let told = !matches!(probe, Probe::NotMade(_));
            let record = self.nodes.entry(name.clone()).or_default();
            record.note(now, member, probe, settings);
            if told {
                probed.insert(name);
            }
        }
        self.note_ejected(now, members);
        let doubtful = self.is_cut_off(members, 1);
        self.doubted = doubtful.then(|| self.doubted.unwrap_or(now));
        let mut verdicts = Vec::new();
        verdicts.extend(self.watch_over_itself(now, members));
        let mut round = Round {
            now,
            counts: Counts::of(members),
            still: self.frozen.is_some() || doubtful,
            ejects: false,
            probed,
        };
        let names: Vec<&String> = members.keys().collect();
        for name in names {
            let verdict = members
                .get(name)
                .and_then(|member| self.verdict(&mut round, name, member));
            verdicts.extend(verdict);
        }
        verdicts
    }

    /// Notes that a node was taken off the ring, by what the members say: whether an answer was lost, or somebody had a say. The next one waits a
    /// while.
    fn note_ejected(&mut self, now: Instant, members: &BTreeMap<String, Member>) {
        for (name, record) in &mut self.nodes {
            let state = members.get(name).map(|member| member.state);
            let is_off = matches!(state, Some(State::Out | State::Drained));
            if record.ejected && is_off {
                self.ejected = Some(now);
            }
            record.ejected &= !is_off && state != Some(State::Up);
        }
    }

    fn verdict(&mut self, round: &mut Round, name: &String, member: &Member) -> Option<Verdict> {
        let (now, settings) = (round.now, &self.settings);
        let record = self.nodes.get_mut(name)?;
        if member.state != State::Out {
            record.out_since = None;
        }
        // By what was seen just now, not by what was known before.
        let fails = record.failures >= settings.failures && round.probed.contains(name);
        match member.state {
            State::Up if fails => Some(Verdict::Suspect(name.clone(), record.why.clone())),
            State::Suspect if record.failures == 0 => Some(Verdict::Recover(name.clone())),
            State::Suspect | State::Draining if fails => {
                let long = record.failing_for(now) >= settings.remove_after;
                let last = self.ejected;
                let soon = last.is_some_and(|last| now < last + settings.pause)
                    || round.ejects && !settings.pause.is_zero();
                if !long || soon || round.still || !round.counts.may_lose(settings.min_nodes) {
                    return None;
                }
                round.ejects = true;
                record.ejected = true;
                round.counts.on -= 1;
                round.counts.out += 1;
                record.successes = 0;
                Some(Verdict::Eject(name.clone(), record.why.clone()))
            }
            State::Out => {
                let since = *record.out_since.get_or_insert(now);
                let off = now.saturating_duration_since(since);
                let held = off >= hold(settings, name, member.flaps);
                let well = record.successes >= settings.successes;
                (well && held && !round.still).then(|| Verdict::Return(name.clone()))
            }
            State::Up if member.flaps > 0 => {
                let since = *record.well_since.get_or_insert(now);
                let well = now.saturating_duration_since(since);
                (well >= settings.forgive_after).then(|| {
                    record.well_since = Some(now);
                    Verdict::Forgive(name.clone())
                })
            }
            _ => None,
        }
    }

    /// Whether half of the nodes fail, each so often in a row: then it is this manager that is cut off. One that is off the ring is no news if it
    /// fails, and proves that the way is open if it is well.
    fn is_cut_off(&self, members: &BTreeMap<String, Member>, least: u32) -> bool {
        let (mut all, mut failing) = (0, 0);
        for (name, member) in members {
            let record = self.nodes.get(name);
            let fails = record.is_some_and(|record| record.failures >= least);
            let is_well = record.is_some_and(|record| record.successes > 0);
            match member.state.is_on() {
                true => {
                    all += 1;
                    failing += usize::from(fails);
                }
                false => all += usize::from(is_well),
            }
        }
        all > 1 && failing > 0 && failing * 2 >= all
    }

    /// Whether this manager is cut off, or no more. A single failure is no news, though nothing is done then either.
    fn watch_over_itself(
        &mut self,
        now: Instant,
        members: &BTreeMap<String, Member>,
    ) -> Option<Verdict> {
        if self.is_cut_off(members, self.settings.failures) {
            // What was seen since the first of these failures says nothing of the nodes.
            let since = self.doubted.unwrap_or(now);
            return self.freeze(Freeze::CutOff, now, since);
        }
        let frozen = self.frozen.filter(|frozen| now >= frozen.until)?;
        if frozen.why == Freeze::CutOff && self.doubted.is_some() {
            return None;
        }
        self.frozen = None;
        // That time counts for nobody.
        let meanwhile = now.saturating_duration_since(frozen.since);
        for record in self.nodes.values_mut() {
            record.failing_since = record
                .failing_since
                .map(|since| (since + meanwhile).min(now));
        }
        Some(Verdict::Thaw)
    }

    /// Does nothing from now on; what says so if it did something until now.
    fn freeze(&mut self, why: Freeze, now: Instant, since: Instant) -> Option<Verdict> {
        let until = if why == Freeze::Late { now + TILT } else { now };
        let known = self.frozen;
        self.frozen = Some(Frozen {
            // Being cut off lasts until it is over.
            why: known.map_or(why, |known| {
                if known.why == Freeze::CutOff {
                    known.why
                } else {
                    why
                }
            }),
            since: known.map_or(since, |known| known.since),
            until: known.map_or(until, |known| known.until.max(until)),
        });
        // Being cut off is other news than a moment's stop.
        let is_news = known.is_none_or(|known| known.why != why && why == Freeze::CutOff);
        is_news.then_some(Verdict::Freeze(why))
    }
}

/// Since when, until when at least, and why nothing is done.
#[derive(Clone, Copy, Debug)]
struct Frozen {
    why: Freeze,
    since: Instant,
    until: Instant,
}

/// What one round of judging goes by.
struct Round {
    now: Instant,
    counts: Counts,
    /// Whether nothing is to be done.
    still: bool,
    /// Whether a node is taken off already.
    ejects: bool,
    probed: BTreeSet<String>,
}

/// What a probe came to.
#[derive(Clone, Debug)]
pub(super) enum Probe {
    Well,
    Failed(String),
    /// It could not be made, for a reason that lies here: no TLS, or no password where it should be.
    NotMade(String),
}

impl Record {
    fn note(&mut self, now: Instant, member: &Member, probe: Probe, settings: &HealthSettings) {
        let pause = match &probe {
            Probe::Well if member.state == State::Up => settings.interval,
            Probe::NotMade(_) => settings.interval,
            _ => settings.retry.min(settings.interval),
        };
        self.next = Some(now + pause);
        self.not_made = None;
        match probe {
            Probe::Well => {
                self.failures = 0;
                self.failing_since = None;
                self.successes = self.successes.saturating_add(1);
                self.well_since.get_or_insert(now);
            }
            Probe::Failed(why) => {
                self.failures = self.failures.saturating_add(1);
                self.failing_since.get_or_insert(now);
                self.successes = 0;
                self.well_since = None;
                self.why = why;
            }
            // Nothing about the node is known by it.
            Probe::NotMade(why) => self.not_made = Some(why),
        }
    }

    fn failing_for(&self, now: Instant) -> Duration {
        let since = self.failing_since.unwrap_or(now);
        now.saturating_duration_since(since)
    }
}

/// Whether one more may go as the members are.
pub(super) fn may_lose(members: &BTreeMap<String, Member>, min: usize) -> bool {
    Counts::of(members).may_lose(min)
}

/// How many members there are of each kind.
struct Counts {
    on: usize,
    out: usize,
}

impl Counts {
    fn of(members: &BTreeMap<String, Member>) -> Self {
        let out = members.values().filter(|member| member.state == State::Out);
        Self {
            on: members
                .values()
                .filter(|member| member.state.is_on())
                .count(),
            out: out.count(),
        }
    }

    /// Whether one more may go: never below the minimum, nor more than a third of all, nor half of two.
    fn may_lose(&self, min: usize) -> bool {
        let all = self.on + self.out;
        self.on > min.max(1) && (self.out + 1) * 3 <= all
    }
}

/// For how long a node that fell so often stays off the ring. Up to a fifth more, so that nodes that fell together do not come back together.
fn hold(settings: &HealthSettings, name: &str, flaps: u32) -> Duration {
    let doubled = settings
        .hold
        .saturating_mul(1 << flaps.saturating_sub(1).min(16));
    let spread = f64::from(crc32fast::hash(name.as_bytes()) % 1000) / 5000.0;
    doubled.min(settings.max_hold).mul_f64(1.0 + spread)
}

#[cfg(test)]
mod tests;
