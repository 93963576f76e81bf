//! The manager's own work: it keeps the lease, probes the nodes, and does what follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::cluster::{By, Cluster, is_unknown};
use super::controller::Controller;
use super::event::Kind;
use super::health::{Freeze, Health, HealthSettings, Probe, Verdict, may_lose};
use super::member::{Member, State, shown};
use super::probe::{Nodes, brief};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::random;
use crate::ring::registry::is_lost;

/// How things stand, for those who ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    /// Whether this manager has the lease.
    pub(super) leads: bool,
    pub(super) frozen: Option<Freeze>,
    /// What went wrong last, until something goes right.
    pub(super) error: Option<Error>,
    /// Why nodes fail, by name.
    pub(super) failing: BTreeMap<String, String>,
    /// Whether the ring was looked at.
    pub(super) looked: bool,
}

/// Who watches over a ring.
pub(super) struct Watch {
    pub(super) controller: Controller,
    pub(super) nodes: Arc<Nodes>,
    pub(super) settings: HealthSettings,
    /// Between two steps of a drain.
    pub(super) drain_pause: Duration,
    pub(super) status: watch::Sender<Status>,
    /// Somebody wants the nodes probed now.
    pub(super) wake: Arc<Notify>,
}

/// Of what cannot be written, the last is what counts.
const MAX_UNTOLD: usize = 8;

/// What one manager has in mind from one round to the next.
struct Round {
    token: String,
    health: Health,
    drained: BTreeMap<String, Instant>,
    /// Whether all are to be asked, whosever turn it is.
    all: bool,
    /// Until when the lease is surely this manager's.
    leads_until: Option<Instant>,
    /// What is to be told still, of this manager itself: that it did not get to run, or what could not be written.
    untold: Vec<Verdict>,
}

impl Round {
    fn tell(&mut self, own: impl IntoIterator<Item = Verdict>) {
        self.untold.extend(own);
        let excess = self.untold.len().saturating_sub(MAX_UNTOLD);
        self.untold.drain(..excess);
    }
}

impl Watch {
    /// Goes on until this is done, and gives up the lease then.
    pub(super) async fn run_until(self, done: impl Future<Output = ()>) {
        let token = format!("{:016x}{:016x}", random(), random());
        tokio::select! {
            () = self.run(token.clone()) => {}
            () = done => {}
        }
        // Otherwise the next one waits for its end.
        let _ = self.controller.registry.release(&token).await;
    }

    async fn run(&self, token: String) {
        let mut round = Round {
            token,
            health: Health::new(self.settings.clone()),
            drained: BTreeMap::new(),
            all: false,
            leads_until: None,
            untold: Vec::new(),
        };
        loop {
            let pause = match self.turn(&mut round).await {
                Ok(pause) => pause,
                Err(error) => {
                    self.failed(&error, round.leads_until);
                    self.settings.retry
                }
            };
            let slept = Instant::now();
            let pause = pause.min(self.settings.lease / 3);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wake.notified() => round.all = true,
            }
            // Whichever came first: after a stop both are there.
            let late = round.health.woken(Instant::now(), pause, slept);
            round.all |= late.is_some();
            round.tell(late);
        }
    }

    fn failed(&self, error: &Error, leads_until: Option<Instant>) {
        let leads = leads_until.is_some_and(|until| Instant::now() < until) && !is_lost(error);
        let news =
            self.status.borrow().error.as_ref().map(Error::to_string) != Some(error.to_string());
        if news {
            tracing::warn!(target: "larder::manager", event = "round_failed", error = %error);
        }
        self.status.send_modify(|status| {
            status.error = Some(error.clone());
            if !leads {
                // What was seen while it led is old.
                status.leads = false;
                status.frozen = None;
                status.failing.clear();
            }
        });
    }

    /// One round; answers when the next one is due.
    async fn turn(&self, round: &mut Round) -> Result<Duration> {
        let asked = Instant::now();
        let leads = self
            .controller
            .registry
            .lease(&round.token, self.settings.lease)
            .await?;
        round.leads_until = leads.then(|| asked + self.settings.lease);
        if !leads {
            self.status.send_modify(|status| {
                *status = Status {
                    looked: true,
                    ..Status::default()
                };
            });
            round.health = Health::new(self.settings.clone());
            round.untold.clear();
            // Whoever leads next asks them anew.
            self.nodes.keep(std::iter::empty());
            return Ok(self.settings.lease / 3);
        }
        let lease = Some(round.token.as_str());
        // Puts in order what others have written, and takes over what is new.
        let done = self.controller.apply(lease, |_| Ok(())).await?;
        let mut cluster = done.cluster;
        let urls = cluster.members.values().map(|member| member.url.as_str());
        self.nodes.keep(urls);
        let verdicts = self.judged(round, &cluster).await;
        self.carry_out_all(round, &cluster, verdicts).await?;
        if let Some(after) = self.drain(round, &cluster).await? {
            cluster = after;
        }
        let failing = cluster.members.keys().filter_map(|name| {
            let why = round.health.failing(name)?;
            Some((name.clone(), why.to_owned()))
        });
        let status = Status {
            leads: true,
            frozen: round.health.frozen(),
            error: None,
            failing: failing.collect(),
            looked: true,
        };
        self.status.send_replace(status);
        Ok(round.health.next(Instant::now()))
    }

    /// Asks the nodes whose turn it is, and judges all by what they answer.
    async fn judged(&self, round: &mut Round, cluster: &Cluster) -> Vec<Verdict> {
        let due = match std::mem::take(&mut round.all) {
            true => cluster.asked(),
            false => round.health.due(Instant::now(), &cluster.members),
        };
        let asked = due.into_iter().filter_map(|name| {
            let url = cluster.members.get(&name)?.url.clone();
            Some((name, url))
        });
        let sent = Instant::now();
        let probes = self.nodes.probe_all(asked.collect()).await.into_iter();
        let mut probes: Vec<_> = probes.map(|(name, well)| (name, outcome(well))).collect();
        let now = Instant::now();
        let late = round.health.woken(now, self.settings.timeout, sent);
        round.tell(late);
        if round.health.overslept(now, self.settings.timeout, sent) {
            // Who did not get to run heard no answers.
            probes.clear();
            round.all = true;
        }
        round.health.judge(now, &cluster.members, probes)
    }

    /// Does what follows, first what is to be told still. What is about a node is judged again with the next round, if it cannot be written (a fall
    /// that is forgiven, an hour later); what is about this manager would never be heard of.
    async fn carry_out_all(
        &self,
        round: &mut Round,
        cluster: &Cluster,
        verdicts: Vec<Verdict>,
    ) -> Result<()> {
        let (own, of_nodes): (Vec<_>, Vec<_>) = verdicts
            .into_iter()
            .partition(|verdict| verdict.node().is_none());
        round.tell(own);
        while let Some(verdict) = round.untold.first() {
            self.carry_out(&round.token, &cluster.members, verdict)
                .await?;
            round.untold.remove(0);
        }
        for verdict in &of_nodes {
            self.carry_out(&round.token, &cluster.members, verdict)
                .await?;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        token: &str,
        members: &BTreeMap<String, Member>,
        verdict: &Verdict,
    ) -> Result<()> {
        tracing::info!(target: "larder::manager", event = "verdict", verdict = %verdict);
        let judged = verdict.node().and_then(|name| members.get(name));
        if let (Verdict::Return(name), Some(member)) = (verdict, judged)
            && self.settings.empty
            && let Err(error) = self.empty(token, name, member).await
        {
            // It is tried again with the next round, and keeps nobody else from being judged.
            tracing::warn!(target: "larder::manager", event = "return_failed", node = %shown(name), error = %error);
            return Ok(());
        }
        let min = self.settings.min_nodes;
        let change = |cluster: &mut Cluster| match verdict.node() {
            // People may have had their say since: another url, for one, or two nodes less.
            Some(name) if Some(&cluster.member(name)?.url) != judged.map(|judged| &judged.url) => {
                Ok(())
            }
            Some(_)
                if matches!(verdict, Verdict::Eject(..)) && !may_lose(&cluster.members, min) =>
            {
                Ok(())
            }
            _ => verdict.carry_out(cluster),
        };
        match self.controller.apply(Some(token), change).await {
            // Somebody removed it meanwhile.
            Err(error) if is_unknown(&error) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Empties a node, before others see it again: if it is off the ring still, and this manager the one that judges. Between this look and the
    /// emptying is a moment in which somebody could put it back, and no more.
    async fn empty(&self, token: &str, name: &str, member: &Member) -> Result<()> {
        let node = self.nodes.at(&member.url)?;
        let registry = &self.controller.registry;
        let leads = registry.lease(token, self.settings.lease).await?;
        let now = self.controller.look().await?;
        let now = now.members.get(name);
        let is_off = |now: &Member| now.state == State::Out && now.url == member.url;
        match leads && now.is_some_and(is_off) {
            true => node.empty(&self.controller.spared()).await,
            false => Ok(()),
        }
    }

    /// Takes the next step of drains whose time has come.
    async fn drain(&self, round: &mut Round, cluster: &Cluster) -> Result<Option<Cluster>> {
        let draining = |name: &String| {
            cluster
                .members
                .get(name)
                .is_some_and(|member| member.state == State::Draining)
        };
        round.drained.retain(|name, _| draining(name));
        let mut after = None;
        let now = Instant::now();
        for name in cluster.members.keys().filter(|name| draining(name)) {
            let since = *round.drained.entry(name.clone()).or_insert(now);
            if now.saturating_duration_since(since) < self.drain_pause {
                continue;
            }
            round.drained.insert(name.clone(), now);
            let step = |cluster: &mut Cluster| match cluster.member(name)?.state {
                State::Draining => cluster.drain(name, None),
                // Somebody wants something else of it by now.
                _ => Ok(()),
            };
            let done = match self.controller.apply(Some(&round.token), step).await {
                Ok(done) => done,
                // It is alone on the ring by now, or gone: it waits.
                Err(error) if error.kind() == ErrorKind::Config => continue,
                Err(error) => return Err(error),
            };
            after = Some(done.cluster);
        }
        Ok(after)
    }
}

impl Verdict {
    /// Makes of a ring what follows, if the node is as it was when it was judged: people may have had their say since.
    fn carry_out(&self, cluster: &mut Cluster) -> Result<()> {
        let is = |cluster: &Cluster, name: &str, states: &[State]| {
            Ok::<_, Error>(states.contains(&cluster.member(name)?.state))
        };
        match self {
            Self::Suspect(name, why) if is(cluster, name, &[State::Up])? => {
                cluster.suspect(name, Some(why))
            }
            Self::Recover(name) if is(cluster, name, &[State::Suspect])? => {
                cluster.suspect(name, None)
            }
            Self::Eject(name, why) if is(cluster, name, &[State::Suspect, State::Draining])? => {
                cluster.eject(name, why)
            }
            Self::Return(name) if is(cluster, name, &[State::Out])? => {
                let url = cluster.member(name)?.url.clone();
                cluster.add(&url, By::Health);
                Ok(())
            }
            Self::Forgive(name) => cluster.forgive(name),
            Self::Freeze(freeze) => {
                cluster.tell_all(Kind::Frozen, freeze.as_str());
                Ok(())
            }
            Self::Thaw => {
                cluster.tell_all(Kind::Thawed, "");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What a probe says about its node, and what about this manager.
fn outcome(well: Result<()>) -> Probe {
    match well {
        Ok(()) => Probe::Well,
        Err(error) => match error.kind() {
            ErrorKind::Config | ErrorKind::Unsupported => Probe::NotMade(brief(&error)),
            _ => Probe::Failed(brief(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What could not be written is kept, and no more of it than matters.
    #[test]
    fn what_is_untold_is_bounded() {
        let mut round = Round {
            token: String::new(),
            health: Health::new(HealthSettings::default()),
            drained: BTreeMap::new(),
            all: false,
            leads_until: None,
            untold: Vec::new(),
        };
        for _ in 0..1000 {
            round.tell([
                Verdict::Freeze(Freeze::Late),
                Verdict::Freeze(Freeze::CutOff),
            ]);
            round.tell([Verdict::Thaw]);
        }
        assert_eq!(round.untold.len(), MAX_UNTOLD);
        assert_eq!(round.untold.last(), Some(&Verdict::Thaw));
    }
}
