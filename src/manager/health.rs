//! When a node that fails is taken off the ring, and when it comes back: decided here, from what probes came to, by a clock that is given.
//! Nothing is asked or written here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::member::{Member, State};

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
    /// But no longer than this.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Suspect(String, String),
    Recover(String),
    Eject(String, String),
    Return(String),
    Forgive(String),
    Freeze(Freeze),
    Thaw,
}

/// Who judges the nodes.
#[derive(Debug)]
pub(super) struct Health {
    settings: HealthSettings,
    nodes: BTreeMap<String, Record>,
    ejected: Option<Instant>,
    frozen: Option<(Freeze, Instant)>,
    looked: Option<Instant>,
}

impl Health {
    pub(super) fn new(settings: HealthSettings) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            ejected: None,
            frozen: None,
            looked: None,
        }
    }

    /// Why nothing is judged at the moment.
    pub(super) fn frozen(&self) -> Option<Freeze> {
        self.frozen.map(|(freeze, _)| freeze)
    }

    /// Why a node fails, if it does.
    pub(super) fn failing(&self, name: &str) -> Option<&str> {
        let record = self.nodes.get(name).filter(|record| record.failures > 0);
        record.map(|record| record.why.as_str())
    }

    /// Those whose turn it is to be asked.
    pub(super) fn due(&mut self, now: Instant, members: &BTreeMap<String, Member>) -> Vec<String> {
        self.nodes.retain(|name, _| members.contains_key(name));
        let asked = members
            .iter()
            .filter(|(_, member)| member.state != State::Drained);
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
        let late = now.saturating_duration_since(since + after) > MAX_LATE;
        late.then(|| self.freeze(Freeze::Late, now)).flatten()
    }

    /// Notes what probes came to, and says what is to be done.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        members: &BTreeMap<String, Member>,
        probes: Vec<(String, Result<(), String>)>,
    ) -> Vec<Verdict> {
        for (name, probe) in probes {
            let Some(member) = members.get(&name) else {
                continue;
            };
            let settings = &self.settings;
            let record = self.nodes.entry(name).or_default();
            record.note(now, member, probe, settings);
        }
        self.looked = Some(now);
        let mut verdicts = Vec::new();
        verdicts.extend(self.watch_over_itself(now, members));
        let mut counts = Counts::of(members);
        for (name, member) in members {
            let Some(record) = self.nodes.get_mut(name) else {
                continue;
            };
            let fails = record.failures >= self.settings.failures;
            let verdict = match member.state {
                State::Up | State::Draining if fails && member.state == State::Up => {
                    Some(Verdict::Suspect(name.clone(), record.why.clone()))
                }
                State::Suspect if record.failures == 0 => Some(Verdict::Recover(name.clone())),
                State::Suspect | State::Draining if fails => {
                    let long = record.failing_for(now) >= self.settings.remove_after;
                    let soon = self
                        .ejected
                        .is_some_and(|last| now < last + self.settings.pause);
                    let may = long
                        && !soon
                        && self.frozen.is_none()
                        && counts.may_lose(self.settings.min_nodes);
                    may.then(|| {
                        self.ejected = Some(now);
                        counts.on -= 1;
                        counts.out += 1;
                        record.out_since = Some(now);
                        record.successes = 0;
                        Verdict::Eject(name.clone(), record.why.clone())
                    })
                }
                State::Out => {
                    let since = *record.out_since.get_or_insert(now);
                    let held = now.saturating_duration_since(since)
                        >= hold(&self.settings, name, member.flaps);
                    let well = record.successes >= self.settings.successes;
                    (well && held && self.frozen.is_none()).then(|| Verdict::Return(name.clone()))
                }
                State::Up if member.flaps > 0 => {
                    let since = *record.well_since.get_or_insert(now);
                    let long = now.saturating_duration_since(since) >= self.settings.forgive_after;
                    long.then(|| {
                        record.well_since = Some(now);
                        Verdict::Forgive(name.clone())
                    })
                }
                _ => None,
            };
            if member.state != State::Out && !matches!(verdict, Some(Verdict::Eject(..))) {
                record.out_since = None;
            }
            verdicts.extend(verdict);
        }
        verdicts
    }

    /// Whether it is this manager that is cut off, or no more.
    fn watch_over_itself(
        &mut self,
        now: Instant,
        members: &BTreeMap<String, Member>,
    ) -> Option<Verdict> {
        let failing = self
            .nodes
            .values()
            .filter(|record| record.failures > 0)
            .count();
        let asked = members
            .values()
            .filter(|member| member.state != State::Drained)
            .count();
        let cut_off = failing > 0 && failing * 2 >= asked && asked > 1;
        match self.frozen {
            None if cut_off => self.freeze(Freeze::CutOff, now),
            Some((Freeze::CutOff, _)) if cut_off => None,
            Some((_, until)) if now >= until => {
                self.frozen = None;
                // What was seen meanwhile is no ground for anything.
                for record in self.nodes.values_mut().filter(|record| record.failures > 0) {
                    record.failing_since = Some(now);
                }
                Some(Verdict::Thaw)
            }
            _ => None,
        }
    }

    fn freeze(&mut self, freeze: Freeze, now: Instant) -> Option<Verdict> {
        let until = now
            + if freeze == Freeze::Late {
                TILT
            } else {
                Duration::ZERO
            };
        let is_new = self.frozen.is_none();
        self.frozen = Some((freeze, until));
        is_new.then_some(Verdict::Freeze(freeze))
    }
}

impl Record {
    fn note(
        &mut self,
        now: Instant,
        member: &Member,
        probe: Result<(), String>,
        settings: &HealthSettings,
    ) {
        let pause = match &probe {
            Ok(()) if member.state == State::Up => settings.interval,
            _ => settings.retry.min(settings.interval),
        };
        self.next = Some(now + pause);
        match probe {
            Ok(()) => {
                self.failures = 0;
                self.failing_since = None;
                self.successes = self.successes.saturating_add(1);
                self.well_since.get_or_insert(now);
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.failing_since.get_or_insert(now);
                self.successes = 0;
                self.well_since = None;
                self.why = why;
            }
        }
    }

    fn failing_for(&self, now: Instant) -> Duration {
        let since = self.failing_since.unwrap_or(now);
        now.saturating_duration_since(since)
    }
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
