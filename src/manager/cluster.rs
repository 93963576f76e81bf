//! A ring and its members as they were read, what becomes of them, and how that is written.

mod edits;
mod written;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::event::{Event, Kind};
use super::member::{Member, State, name_of, shown};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::registry::Found;
use crate::ringmap::{Layout, Move, Order, Ring, moves};

/// How positions are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Labels {
    /// One node after the other, so that all have about the same: [`Layout`].
    #[default]
    Balanced,
    /// By hashes of the nodes' names: [`positions_for`](crate::ring::positions_for).
    Xxh3,
    /// As the Python server does, to the byte: [`python_positions`](crate::ring::python_positions).
    Crc32,
}

impl Labels {
    fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Xxh3 => "xxh3",
            Self::Crc32 => "crc32",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Balanced, Self::Xxh3, Self::Crc32]
            .into_iter()
            .find(|labels| labels.as_str() == name)
    }

    /// By which rule readers find a node where nothing else is said.
    fn order(self) -> Order {
        match self {
            Self::Crc32 => Order::Lexicographic,
            _ => Order::Numeric,
        }
    }
}

/// What is chosen of a ring's form; what is not is as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) labels: Option<Labels>,
    pub(super) per_node: Option<usize>,
}

/// Positions of each node, where nothing stands yet.
const PER_NODE: usize = 160;

/// A ring and its members.
#[derive(Clone)]
pub(super) struct Cluster {
    found: Found,
    labels: Labels,
    per_node: usize,
    order: Order,
    /// Whether keys are placed by their hash tags, if somebody has said so.
    hash_tags: Option<bool>,
    pub(super) members: BTreeMap<String, Member>,
    /// Of another version, or spoilt: left as they are, each where the map has it, with its url there.
    unread: BTreeMap<String, Option<String>>,
    form: Form,
    layout: Layout,
    /// What was done so far.
    pub(super) events: Vec<Event>,
}

/// Who changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Person,
    Health,
}

impl Cluster {
    /// What was found, put in order: a map that somebody else wrote is taken over as it is, and one that is gone is written again as it was.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where a map stands that nobody can read, and nobody has said who is a member.
    pub(super) fn of(found: Found, form: Form) -> Result<Self> {
        let stated = found
            .meta
            .get("labels")
            .and_then(|name| Labels::named(name));
        // A form that is chosen is that of a new ring, or of one that is built anew: what stands is moved by nobody's settings.
        let last = Last::of(&found.last);
        let ring = found.ring().filter(|ring| !ring.is_empty());
        let is_new = !found.meta.contains_key("digest") && ring.is_none() && last.nodes.is_empty();
        let labels = stated
            .or(form.labels.filter(|_| is_new))
            .unwrap_or_default();
        // What is lost or spoilt is as it was in the map before.
        let rule = |rule: Option<&String>| rule.and_then(|rule| rule.parse::<Order>().ok());
        let order = rule(found.meta.get("lookup")).or(rule(last.lookup.as_ref()));
        let order = order.filter(|order| *order != Order::Auto && labels != Labels::Crc32);
        let mut unread = BTreeMap::new();
        let members = found.nodes.iter().filter_map(|(name, text)| {
            let member = serde_json::from_str::<Member>(text).ok();
            if member.is_none() {
                unread.insert(name.clone(), None);
            }
            Some((name.clone(), member?))
        });
        let members = members.collect();
        let per_node = per_node(&found, ring.as_ref(), &last, form.per_node);
        let mut cluster = Self {
            per_node,
            order: order.unwrap_or(labels.order()),
            hash_tags: match found.meta.get("hash_tags").map(String::as_str) {
                Some("0") => Some(false),
                Some("1") => Some(true),
                _ => last.hash_tags,
            },
            members,
            unread,
            form,
            layout: Layout::new(per_node),
            events: Vec::new(),
            labels,
            found,
        };
        match ring {
            Some(ring) => cluster.follow(&ring),
            None if cluster.found.size > 0 && cluster.members.is_empty() => {
                let why = "the map that stands in the manager Redis cannot be read: set it right, or delete it";
                return Err(Error::new(ErrorKind::Config, why));
            }
            None if !cluster.unread.is_empty() => {
                let why = "the map is gone, and a member stands there that this version cannot read: it would be left out";
                return Err(Error::new(ErrorKind::Config, why));
            }
            None => cluster.restore(),
        }
        Ok(cluster)
    }

    /// Takes the map for what it is, whoever wrote it.
    fn follow(&mut self, ring: &Ring) {
        let urls: BTreeMap<String, &str> = ring
            .nodes()
            .iter()
            .map(|url| (name_of(url), url.as_str()))
            .collect();
        let positions = ring.iter().map(|(at, url)| (at, name_of(url)));
        self.layout = Layout::of(positions, self.per_node);
        let is_new = self.members.is_empty();
        let gone =
            |(name, member): &(&String, &Member)| member.state.is_on() && !urls.contains_key(*name);
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(gone)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.members.remove(&name);
            self.tell(Kind::RemovedElsewhere, &name, "");
        }
        let draining = |member: &Member| member.state == State::Draining;
        for (name, _) in self.members.iter().filter(|(_, member)| draining(member)) {
            self.layout.close(name);
        }
        let mut taken = Vec::new();
        for (name, url) in urls {
            let known = self
                .members
                .get(&name)
                .filter(|member| member.state.is_on());
            if let Some(unread) = self.unread.get_mut(&name) {
                *unread = Some(url.to_owned());
                continue;
            }
            if known.is_some_and(|member| member.url == url) {
                continue;
            }
            if known.is_none() {
                taken.push(name.clone());
            }
            let flaps = self.members.get(&name).map_or(0, |member| member.flaps);
            let anew = || Member {
                flaps,
                ..Member::up(url)
            };
            let member = known.cloned().unwrap_or_else(anew);
            let url = url.to_owned();
            self.members.insert(name, Member { url, ..member });
        }
        match is_new {
            true if taken.is_empty() => {}
            true => self.tell_all(Kind::TakenOver, &format!("{} nodes", taken.len())),
            false => taken
                .iter()
                .for_each(|name| self.tell(Kind::AddedElsewhere, name, "")),
        }
    }

    /// Has a map that is gone, or that nobody can read, be as it was.
    fn restore(&mut self) {
        let on = |member: &Member| member.state.is_on();
        if !self.members.values().any(on) {
            return;
        }
        let before = Last::of(&self.found.last).positions();
        let before = before.into_iter().map(|(at, name)| (at, self.named(&name)));
        let known = |(_, name): &(u32, String)| self.members.get(name).is_some_and(on);
        let before: Vec<_> = before.filter(known).collect();
        self.layout = Layout::of(before, self.per_node);
        let there: BTreeSet<String> = self
            .layout
            .shares()
            .into_keys()
            .map(str::to_owned)
            .collect();
        let lost =
            |name: &&String| self.members.get(*name).is_some_and(on) && !there.contains(*name);
        let lost: Vec<String> = self.members.keys().filter(lost).cloned().collect();
        match there.is_empty() {
            true => self.layout = Layout::of_all(&lost, self.per_node),
            false => lost.iter().for_each(|name| self.layout.join(name, &[])),
        }
        if !lost.is_empty() {
            self.place();
        }
        self.tell_all(Kind::Restored, "the map was gone, or could not be read");
    }

    /// Whether a map is gone, or cannot be read, that has nodes.
    pub(super) fn is_lost(found: &Found) -> bool {
        let is_on = |text: &String| {
            let member = serde_json::from_str::<Member>(text);
            member.is_ok_and(|member| member.state.is_on())
        };
        let is_there = found.ring().is_some_and(|ring| !ring.is_empty());
        !is_there && found.nodes.values().any(is_on)
    }

    /// A node by its name; `?` is the one whose name may not be shown, if there are no two of them.
    pub(super) fn named(&self, name: &str) -> String {
        let mut odd = self.members.keys().filter(|known| shown(known) == "?");
        match (odd.next(), odd.next()) {
            (Some(odd), None) if name == "?" => odd.clone(),
            _ => name.to_owned(),
        }
    }

    /// The epoch that was found.
    pub(super) fn epoch(&self) -> &str {
        self.found.epoch()
    }

    /// What is said of the form.
    pub(super) fn form(&self) -> (Labels, usize, Order) {
        (self.labels, self.per_node, self.order)
    }

    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// Whether keys are placed by their hash tags.
    pub(super) fn has_hash_tags(&self) -> bool {
        self.hash_tags == Some(true)
    }

    /// How many positions the ring has.
    pub(super) fn positions_count(&self) -> usize {
        self.layout.len()
    }

    /// The part of all keys that each node has, and its number of positions.
    pub(super) fn shares(&self) -> BTreeMap<&str, (f64, usize)> {
        let mut shares = self.layout.shares();
        if self.order == Order::Lexicographic {
            // Whose readers have another order, in which some positions are hidden by others.
            let ring = self.ring();
            let parts = ring
                .nodes()
                .iter()
                .map(|url| name_of(url))
                .zip(ring.shares());
            let parts: BTreeMap<String, f64> = parts.collect();
            for (name, (share, _)) in &mut shares {
                *share = parts.get(*name).copied().unwrap_or(0.0);
            }
        }
        shares
    }

    /// Whether the map is another than its meta says.
    pub(super) fn is_edited(&self) -> bool {
        self.found.is_edited()
    }

    /// Fields of the map as it stands, each of which a Python reader sorts for each of its commands.
    pub(super) fn fields(&self) -> usize {
        self.found.size
    }

    pub(super) fn member(&self, name: &str) -> Result<&Member> {
        self.members.get(name).ok_or_else(|| unknown(name))
    }

    fn member_mut(&mut self, name: &str) -> Result<&mut Member> {
        self.members.get_mut(name).ok_or_else(|| unknown(name))
    }

    /// Those who are to be asked how they are.
    pub(super) fn asked(&self) -> Vec<String> {
        let asked = self.members.iter();
        let asked = asked.filter(|(_, member)| member.state != State::Drained);
        asked.map(|(name, _)| name.clone()).collect()
    }

    /// How many nodes are on the map.
    pub(super) fn on(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.state.is_on())
            .count()
    }

    /// What the fullest node has in times of the mean of all that are not being drained.
    pub(super) fn imbalance(&self) -> f64 {
        let shares = self.shares();
        let is_drained = |name: &str| {
            let member = self.members.get(name);
            member.is_some_and(|member| member.state == State::Draining)
        };
        let shares = shares.iter().filter(|(name, _)| !is_drained(name));
        let shares: Vec<f64> = shares.map(|(_, (share, _))| *share).collect();
        let most = shares.iter().copied().fold(0.0, f64::max);
        match shares.iter().sum::<f64>() {
            0.0 => 0.0,
            all => most * shares.len() as f64 / all,
        }
    }

    /// Those who are on the map, each with its url; those too that cannot be read.
    fn on_map(&self) -> impl Iterator<Item = (&str, &str)> {
        let members = self.members.iter();
        let on = members.filter(|(_, member)| member.state.is_on());
        let on = on.map(|(name, member)| (name.as_str(), member.url.as_str()));
        on.chain(self.unread())
    }

    /// Those who are on the map and cannot be read by this version, unless somebody has added them again.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&str, &str)> {
        let unread = self.unread.iter();
        let unread = unread.filter_map(|(name, url)| Some((name.as_str(), url.as_deref()?)));
        unread.filter(|(name, _)| !self.members.contains_key(*name))
    }

    /// The positions, each with its node's url.
    fn positions(&self) -> Vec<(u32, String)> {
        let url = |name: &str| {
            let member = self.members.get(name).map(|member| &member.url);
            let unread = || self.unread.get(name).and_then(Option::as_ref);
            let url = member.or_else(unread);
            url.cloned().unwrap_or_else(|| name.to_owned())
        };
        self.layout
            .iter()
            .map(|(at, name)| (at, url(name)))
            .collect()
    }

    /// The ring as it would be.
    pub(super) fn ring(&self) -> Ring {
        let positions = self.positions();
        match self.order {
            Order::Lexicographic => {
                let spelt = positions.into_iter().map(|(at, url)| (at.to_string(), url));
                // Positions that are numbers make a ring.
                Ring::from_fields(spelt, Order::Lexicographic).unwrap_or_default()
            }
            _ => Ring::from_map(positions),
        }
    }

    /// The ring as it was found.
    pub(super) fn ring_before(&self) -> Ring {
        let order = self
            .found
            .meta
            .get("lookup")
            .and_then(|rule| rule.parse().ok());
        let fields = self.found.fields.iter().cloned();
        Ring::from_fields(fields, order.unwrap_or(Order::Numeric)).unwrap_or_default()
    }

    /// Which keys the changes so far move.
    pub(super) fn moves(&self) -> Vec<Move> {
        moves(&self.ring_before(), &self.ring())
    }

    fn tell(&mut self, kind: Kind, name: &str, text: &str) {
        self.events.push(Event::new(kind, Some(shown(name)), text));
    }

    pub(super) fn tell_all(&mut self, kind: Kind, text: &str) {
        self.events.push(Event::new(kind, None, text));
    }
}

/// As many positions as each node has; as was chosen, for a new ring.
fn per_node(found: &Found, ring: Option<&Ring>, last: &Last, chosen: Option<usize>) -> usize {
    let stated = found
        .meta
        .get("vnodes")
        .and_then(|vnodes| vnodes.parse().ok());
    let counted = ring.map(|ring| ring.positions().div_ceil(ring.nodes().len().max(1)));
    let before: usize = last.positions.iter().map(Vec::len).sum();
    let before = Some(before.div_ceil(last.nodes.len().max(1))).filter(|count| *count > 0);
    let stands = stated.filter(|vnodes| *vnodes > 0).or(counted).or(before);
    stands.or(chosen).unwrap_or(PER_NODE).clamp(1, 4096)
}

/// The last map, by the history.
#[derive(Default, Deserialize)]
struct Last {
    nodes: Vec<String>,
    positions: Vec<Vec<u32>>,
    lookup: Option<String>,
    hash_tags: Option<bool>,
}

impl Last {
    fn of(entry: &str) -> Self {
        serde_json::from_str(entry).unwrap_or_default()
    }

    /// Where the nodes were.
    fn positions(self) -> Vec<(u32, String)> {
        let nodes = self.nodes.into_iter().zip(self.positions);
        nodes
            .flat_map(|(node, positions)| positions.into_iter().map(move |at| (at, node.clone())))
            .collect()
    }
}

const UNKNOWN: &str = "this is no node of the ring";

/// The error for a node that is none.
fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::Config, UNKNOWN).with("node", shown(name))
}

/// Whether it is one.
pub(super) fn is_unknown(error: &Error) -> bool {
    error.message() == UNKNOWN
}
