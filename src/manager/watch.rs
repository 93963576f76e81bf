//! The manager's own work: it keeps the lease, probes the nodes, and does what follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::cluster::{By, Cluster, is_unknown};
use super::controller::Controller;
use super::event::Kind;
use super::health::{Freeze, Health, HealthSettings, Verdict};
use super::member::{Member, State, shown};
use super::probe::Nodes;
use crate::error::{Error, Result};
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

/// What one manager has in mind from one round to the next.
struct Round {
    token: String,
    health: Health,
    drained: BTreeMap<String, Instant>,
    /// Whether all are to be asked, whosever turn it is.
    all: bool,
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
        };
        loop {
            let began = Instant::now();
            let pause = match self.turn(&mut round).await {
                Ok(pause) => pause,
                Err(error) => {
                    self.failed(&error);
                    self.settings.retry
                }
            };
            let slept = Instant::now();
            let pause = pause.min(self.settings.lease / 3);
            tokio::select! {
                () = sleep(pause) => {
                    if let Some(Verdict::Freeze(freeze)) = round.health.woken(Instant::now(), pause, slept) {
                        tracing::warn!(target: "larder::manager", event = "frozen", why = freeze.as_str(), late = ?(began.elapsed()));
                        round.all = true;
                    }
                }
                () = self.wake.notified() => round.all = true,
            }
        }
    }

    fn failed(&self, error: &Error) {
        let news =
            self.status.borrow().error.as_ref().map(Error::to_string) != Some(error.to_string());
        if news {
            tracing::warn!(target: "larder::manager", event = "round_failed", error = %error);
        }
        self.status.send_modify(|status| {
            status.error = Some(error.clone());
            status.leads &= !is_lost(error);
        });
    }

    /// One round; answers when the next one is due.
    async fn turn(&self, round: &mut Round) -> Result<Duration> {
        let leads = self
            .controller
            .registry
            .lease(&round.token, self.settings.lease)
            .await?;
        if !leads {
            self.status.send_modify(|status| {
                *status = Status {
                    looked: true,
                    ..Status::default()
                };
            });
            round.health = Health::new(self.settings.clone());
            return Ok(self.settings.lease / 3);
        }
        let lease = Some(round.token.as_str());
        // Puts in order what others have written, and takes over what is new.
        let done = self.controller.apply(lease, |_| Ok(())).await?;
        let mut cluster = done.cluster;
        let urls = cluster.members.values().map(|member| member.url.as_str());
        self.nodes.keep(urls);
        let due = match std::mem::take(&mut round.all) {
            true => cluster.members.keys().cloned().collect(),
            false => round.health.due(Instant::now(), &cluster.members),
        };
        let asked = due.into_iter().filter_map(|name| {
            let url = cluster.members.get(&name)?.url.clone();
            Some((name, url))
        });
        let probes = self.nodes.probe_all(asked.collect()).await.into_iter();
        let probes = probes.map(|(name, well)| (name, well.map_err(|error| error.to_string())));
        let now = Instant::now();
        let verdicts = round.health.judge(now, &cluster.members, probes.collect());
        for verdict in verdicts {
            self.carry_out(&round.token, &cluster.members, verdict)
                .await?;
        }
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

    async fn carry_out(
        &self,
        token: &str,
        members: &BTreeMap<String, Member>,
        verdict: Verdict,
    ) -> Result<()> {
        tracing::info!(target: "larder::manager", event = "verdict", verdict = %verdict);
        if let Verdict::Return(name) = &verdict
            && let Some(member) = members.get(name)
            && self.settings.empty
            && let Err(error) = self.empty(&member.url).await
        {
            // It is tried again with the next round, and keeps nobody else from being judged.
            tracing::warn!(target: "larder::manager", event = "return_failed", node = %shown(name), error = %error);
            return Ok(());
        }
        let change = |cluster: &mut Cluster| {
            match &verdict {
                Verdict::Suspect(name, why) => cluster.suspect(name, Some(why)),
                Verdict::Recover(name) => cluster.suspect(name, None),
                Verdict::Eject(name, why) => cluster.eject(name, why),
                Verdict::Return(name) => {
                    // Somebody may have removed it meanwhile.
                    let member = cluster.member(name)?;
                    if member.state == State::Out {
                        let url = member.url.clone();
                        cluster.add(&url, By::Health);
                    }
                    Ok(())
                }
                Verdict::Forgive(name) => cluster.forgive(name),
                Verdict::Freeze(freeze) => {
                    cluster.tell_all(Kind::Frozen, freeze.as_str());
                    Ok(())
                }
                Verdict::Thaw => {
                    cluster.tell_all(Kind::Thawed, "");
                    Ok(())
                }
            }
        };
        match self.controller.apply(Some(token), change).await {
            // Somebody removed it meanwhile.
            Err(error) if is_unknown(&error) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Empties a node, before others see it again.
    pub(super) async fn empty(&self, url: &str) -> Result<()> {
        self.nodes.at(url)?.empty(&self.controller.spared()).await
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
            let step = |cluster: &mut Cluster| cluster.drain(name, None);
            let done = self.controller.apply(Some(&round.token), step).await?;
            after = Some(done.cluster);
        }
        Ok(after)
    }
}
