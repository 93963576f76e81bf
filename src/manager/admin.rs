//! What people do with a ring, by HTTP or by the program `larder`.

use std::sync::Arc;

use super::cluster::{By, Cluster, Form};
use super::config::{Allow, Config};
use super::controller::{Controller, Done};
use super::event::Event;
use super::member::{State, name_of, shown};
use super::probe::{Nodes, brief};
use super::view::{
    ArcsView, EventView, EventsView, Finding, Findings, Located, MoveView, Moved, NodeView,
    NodesView, Plan, RingView,
};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::registry::{MAX_URL_BYTES, Registry};
use crate::ringmap::{Move, Order, arcs, fields_for_readers, label};
use crate::wire::{Admits, ConnectionSettings, NodeAddr, Target};

/// Events in one answer, at most.
const MAX_EVENTS: usize = 1000;

/// What sorting one field costs a Python reader, in microseconds: 539 for 480 positions, 16 for 15, as measured.
const PYTHON_US: f64 = 1.1;

/// The fullest node may have this in times of the mean before it is remarkable.
const UNEVEN: f64 = 1.25;

/// A ring in its manager Redis, for whoever looks after it. Clones share the connections.
///
/// ```no_run
/// use larder::manager::{Admin, Config};
/// # async fn example() -> larder::Result<()> {
/// let admin = Admin::connect(&Config::new("redis://127.0.0.1:6379/13")).await?;
/// let changed = admin.add("redis://10.0.0.7:6379/0").await?;
/// println!("{:.1} % of the keys have moved", changed.moved * 100.0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// All methods answer [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] where the manager Redis, or a node that has to answer, does not;
/// [`ErrorKind::Config`] for what is no node of the ring, no url, or a map that cannot be read; and [`ErrorKind::Busy`] where others change the ring
/// all the time.
///
/// # Cancellation
///
/// Dropped, a change is made whole or not at all.
#[derive(Clone)]
pub struct Admin {
    pub(super) controller: Controller,
    pub(super) nodes: Arc<Nodes>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Connects to the manager Redis of a configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where the configuration is wrong; those of connecting.
    pub async fn connect(config: &Config) -> Result<Self> {
        config.check()?;
        let manager = ConnectionSettings {
            client_name: Some("larder-manager".to_owned()),
            ..config.manager.clone()
        };
        let target = Target::parse(&config.redis)?;
        let registry = Registry::connect(target, manager, &config.map_name).await?;
        let controller = Controller {
            registry,
            form: Form {
                labels: config.labels,
                per_node: config.vnodes,
            },
        };
        let allow = Allow::of(&config.allow)?;
        let spared = controller.spared();
        let nodes = ConnectionSettings {
            admits: Some(Admits::new(move |addr| allow.admits(addr))),
            spared: spared.iter().map(ToString::to_string).collect(),
            ..config.nodes.clone()
        };
        let nodes = Arc::new(Nodes::new(nodes, config.health.timeout));
        Ok(Self { controller, nodes })
    }

    /// All members of the ring, and how it is with them.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn nodes(&self) -> Result<NodesView> {
        Ok(Self::members(&self.controller.look().await?))
    }

    pub(super) fn members(cluster: &Cluster) -> NodesView {
        let shares = cluster.shares();
        let members = cluster.members.iter();
        let nodes = members.map(|(name, member)| {
            let (share, positions) = shares.get(name.as_str()).copied().unwrap_or_default();
            NodeView {
                node: shown(name),
                state: member.state,
                share,
                positions,
                flaps: member.flaps,
                part: member.part,
                why: Some(member.why.clone()).filter(|why| !why.is_empty()),
            }
        });
        NodesView {
            epoch: epoch(cluster),
            nodes: nodes.collect(),
        }
    }

    /// Puts a node on the ring, if it answers and takes writes. One that was taken off or drained is emptied first, or Python readers would
    /// find there what was written before it left.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`]; [`ErrorKind::Rejected`] where the node refuses the password, or writes.
    pub async fn add(&self, url: &str) -> Result<Moved> {
        let addr = NodeAddr::parse(url)?;
        if url.len() > MAX_URL_BYTES {
            let why = "the url is longer than readers of a map take";
            return Err(Error::new(ErrorKind::Config, why).with("bound", MAX_URL_BYTES));
        }
        let node = self.nodes.fresh(url)?;
        self.nodes.probe(&node).await?;
        let known = self.controller.look().await?;
        let away = known
            .members
            .get(&addr.label())
            .filter(|member| matches!(member.state, State::Out | State::Drained));
        if away.is_some() {
            node.empty(&self.controller.spared()).await?;
        }
        let add = |cluster: &mut Cluster| {
            cluster.add(url, By::Person);
            Ok(())
        };
        Ok(changed(&self.controller.apply(None, add).await?))
    }

    /// Puts a node back that was taken off or drained, by the url that it had, as [`add`](Self::add) does.
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub async fn put_back(&self, node: &str) -> Result<Moved> {
        let cluster = self.controller.look().await?;
        let url = cluster.member(&cluster.named(&name(node)))?.url.clone();
        self.add(&url).await
    }

    /// Takes a node off the ring, and forgets it. The last one only if that is said, since without it there is no ring.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn remove(&self, node: &str, last: bool) -> Result<Moved> {
        let remove = |cluster: &mut Cluster| {
            let name = cluster.named(&name(node));
            let is_on = cluster.member(&name)?.state.is_on();
            if is_on && cluster.on() == 1 && !last {
                let why = "it is the last node of the ring: without it there is none";
                return Err(Error::new(ErrorKind::Config, why).with("node", shown(&name)));
            }
            cluster.remove(&name)
        };
        Ok(changed(&self.controller.apply(None, remove).await?))
    }

    /// Begins to take a node's keys away in so many steps, of which this is the first; the manager takes the others. It is a member still, without
    /// keys, until it is added again or removed.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn drain(&self, node: &str, steps: u32) -> Result<Moved> {
        let name = name(node);
        let drain = |cluster: &mut Cluster| cluster.drain(&cluster.named(&name), Some(steps));
        Ok(changed(&self.controller.apply(None, drain).await?))
    }

    /// Chooses all positions anew, by the labels and the number that the configuration or the map has. Nearly all keys may move.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn rebuild(&self) -> Result<Moved> {
        let rebuild = |cluster: &mut Cluster| {
            cluster.rebuild();
            Ok(())
        };
        Ok(changed(&self.controller.apply(None, rebuild).await?))
    }

    /// Which keys a change would move. Nothing is changed, and no node is asked.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn preview(&self, plan: &Plan) -> Result<Moved> {
        let mut cluster = self.controller.look().await?;
        match plan {
            Plan::Add { url } => {
                NodeAddr::parse(url)?;
                cluster.add(url, By::Person);
            }
            Plan::Return { node } => {
                let url = cluster.member(&cluster.named(&name(node)))?.url.clone();
                cluster.add(&url, By::Person);
            }
            Plan::Remove { node } => cluster.remove(&cluster.named(&name(node)))?,
            Plan::Drain { node, steps } => {
                cluster.drain(&cluster.named(&name(node)), Some(*steps))?;
            }
            Plan::Rebuild {} => cluster.rebuild(),
        }
        Ok(moved(&cluster.moves()))
    }

    /// The ring's form.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn ring(&self) -> Result<RingView> {
        Ok(Self::form(&self.controller.look().await?))
    }

    pub(super) fn form(cluster: &Cluster) -> RingView {
        let (labels, vnodes, order) = cluster.form();
        RingView {
            epoch: epoch(cluster),
            nodes: cluster.on(),
            positions: cluster.positions_count(),
            fields: cluster.fields(),
            labels,
            vnodes,
            lookup: order.to_string(),
            edited: cluster.is_edited(),
            imbalance: cluster.imbalance(),
            python_reader_us: (cluster.fields() as f64 * PYTHON_US).round(),
        }
    }

    /// The whole ring, stretch by stretch, as readers have it.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn arcs(&self) -> Result<ArcsView> {
        let cluster = self.controller.look().await?;
        let ring = cluster.ring_before();
        Ok(ArcsView {
            epoch: epoch(&cluster),
            nodes: ring.nodes().iter().map(|url| label(url)).collect(),
            arcs: arcs(&ring),
        })
    }

    /// Which node has each of these keys, as readers find it on the map that stands.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn locate(&self, keys: &[impl AsRef<str> + Sync]) -> Result<Vec<Located>> {
        let cluster = self.controller.look().await?;
        let tags = cluster.has_hash_tags();
        let ring = cluster.ring_before().with_hash_tags(tags);
        let located = keys.iter().map(AsRef::as_ref).map(|key| Located {
            key: key.to_owned(),
            hash: ring.place_hash(key),
            node: ring.node_for(key).map(label),
        });
        Ok(located.collect())
    }

    /// What happened after the event of this number, the latest first: so many at most, and 1,000.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn events(&self, after: u64, count: usize) -> Result<EventsView> {
        let events = self
            .controller
            .registry
            .events(count.clamp(1, MAX_EVENTS))
            .await?;
        let events = events.into_iter().filter(|(id, _)| *id > after);
        let events = events.filter_map(|(id, line)| {
            let event: Event = serde_json::from_str(&line).ok()?;
            Some(EventView { id, event })
        });
        Ok(EventsView {
            events: events.collect(),
        })
    }

    /// Asks every node whether it can be used. Answers those that cannot, and why; nothing is done about them.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn probe(&self) -> Result<Vec<(String, String)>> {
        let cluster = self.controller.look().await?;
        // One that is drained may be switched off.
        let asked = cluster.asked().into_iter().filter_map(|name| {
            let url = cluster.members.get(&name)?.url.clone();
            Some((name, url))
        });
        let probes = self.nodes.probe_all(asked.collect()).await.into_iter();
        let failed = probes.filter_map(|(name, well)| Some((shown(&name), brief(&well.err()?))));
        Ok(failed.collect())
    }

    /// Looks at the map as it stands, and says what is wrong with it.
    ///
    /// # Errors
    ///
    /// Those of [`Admin`].
    pub async fn verify(&self) -> Result<Findings> {
        let found = self.controller.registry.read().await?;
        let mut findings = Vec::new();
        let mut find = |is_error: bool, text: String| findings.push(Finding { is_error, text });
        let Some(ring) = found.ring().filter(|ring| !ring.is_empty()) else {
            let text = match found.size {
                0 => "there is no map",
                _ => {
                    "the map holds a field that is no position, or a position with two nodes: readers keep the map before it"
                }
            };
            find(true, text.to_owned());
            return Ok(Findings { findings });
        };
        let unusable = ring.nodes().iter().filter(|url| label(url) == "?");
        let unusable = unusable.count();
        if unusable > 0 {
            find(
                true,
                format!("{unusable} urls are none: their nodes are down to everybody"),
            );
        }
        if found.meta.is_empty() {
            find(
                false,
                "the map has no epoch: whoever wrote it is no Larder manager".to_owned(),
            );
        } else if found.is_edited() {
            find(true, "somebody edited the map who knows nothing of its epoch: nothing that was written before is believed".to_owned());
        }
        let cluster = Cluster::of(found, self.controller.form)?;
        let (.., order) = cluster.form();
        let positions: Vec<_> = ring.iter().map(|(at, url)| (at, url.to_owned())).collect();
        if order == Order::Numeric && cluster.fields() != fields_for_readers(&positions).len() {
            find(
                false,
                "positions are not spelt twice: Python readers find other nodes for some keys"
                    .to_owned(),
            );
        }
        if cluster.imbalance() > UNEVEN {
            find(
                false,
                format!("one node has {:.2} times the mean", cluster.imbalance()),
            );
        }
        findings.extend(unwell(&cluster));
        findings.extend(cluster.unread().map(|(name, _)| Finding {
            is_error: false,
            text: format!(
                "{} stands among the members in a way that this version cannot read: it stays on the ring, and nobody asks how it is; add it again with its url, or have a newer manager look after it",
                shown(name)
            ),
        }));
        findings.sort_by_key(|finding| !finding.is_error);
        Ok(Findings { findings })
    }
}

/// Members that are not as they should be.
fn unwell(cluster: &Cluster) -> impl Iterator<Item = Finding> {
    let members = cluster.members.iter();
    let unwell = members.filter(|(_, member)| !matches!(member.state, State::Up | State::Drained));
    unwell.map(|(name, member)| Finding {
        is_error: false,
        text: format!(
            "{} is {}: {}",
            shown(name),
            member.state.as_str(),
            member.why
        ),
    })
}

fn changed(done: &Done) -> Moved {
    Moved {
        epoch: Some(done.epoch),
        ..moved(&done.cluster.moves())
    }
}

fn moved(moves: &[Move]) -> Moved {
    let view = |moved: &Move| MoveView {
        from: moved.from.clone(),
        to: moved.to.clone(),
        share: moved.share,
    };
    Moved {
        epoch: None,
        moved: moves.iter().map(|moved| moved.share).sum(),
        moves: moves.iter().map(view).collect(),
    }
}

fn epoch(cluster: &Cluster) -> u64 {
    cluster.epoch().parse().unwrap_or(0)
}

/// A node by its `host:port/db` or url.
fn name(node: &str) -> String {
    let url = match node.contains("://") {
        true => node.to_owned(),
        false => format!("redis://{node}"),
    };
    NodeAddr::parse(&url).map_or_else(|_| name_of(node), |addr| addr.label())
}
