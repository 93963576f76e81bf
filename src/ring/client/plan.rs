//! Which part of a command goes where, and how the answers become one again. Nothing is sent here.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use redis::{Cmd, Value, cmd};

use super::api::{Command, args_of, kept};
use super::refusal::Refusal;
use crate::commands::{Join, Rule, Why, keys, rule};

/// A connection of a node: the index of the node, and which of its connections.
pub(super) type Spot = (usize, usize);

/// What is sent where.
#[derive(Debug, Default)]
pub(super) struct Plan<'c> {
    pub(super) lanes: Vec<Lane<'c>>,
    /// How the answer of each command is made.
    wholes: Vec<Whole>,
    known: HashMap<Spot, usize, ahash::RandomState>,
    /// Nodes at which a command has keys on several connections.
    mixed: HashSet<usize, ahash::RandomState>,
}

/// What goes to one place, in order.
#[derive(Debug)]
pub(super) struct Lane<'c> {
    pub(super) spot: Spot,
    pub(super) sent: Vec<Sent<'c>>,
    /// The keys of it all.
    pub(super) keys: Vec<&'c [u8]>,
}

/// A command, or a part of one.
#[derive(Debug)]
pub(super) struct Sent<'c> {
    pub(super) cmd: Cow<'c, Cmd>,
    of: usize,
    /// Where its values belong among those of the whole.
    places: Vec<usize>,
}

/// How the answers of parts become one.
#[derive(Debug)]
enum Whole {
    AsItIs,
    Joined(Join, usize),
}

/// Which way a command takes.
pub(super) enum Route<'c> {
    /// As it is, to the place of its keys.
    Whole(Way<'c>),
    Parts(Split<'c>),
}

/// The place of keys that are at one node.
pub(super) struct Way<'c> {
    pub(super) spot: Spot,
    pub(super) keys: Vec<&'c [u8]>,
    /// Whether they are of several of its connections.
    mixed: bool,
}

/// A command that has arguments, each for a node.
pub(super) struct Split<'c> {
    args: Vec<&'c [u8]>,
    join: Join,
    step: usize,
}

/// Where a command goes.
///
/// # Errors
///
/// Refused is what goes to no node, or to more than one where it has to be one.
pub(super) fn route<'c>(
    cmd: Command<'c>,
    locate: &impl Fn(&[u8]) -> Result<Spot, Refusal>,
) -> Result<Route<'c>, Refusal> {
    let args = args_of(cmd);
    let refusal = |why| Refusal::of(&args, why);
    match rule(&args) {
        Rule::Keyed(places) => {
            let places = keys(places, &args).map_err(refusal)?;
            way(&args, &places, locate).map(Route::Whole)
        }
        Rule::Split(join, step) => {
            if args.len() < 1 + step || !(args.len() - 1).is_multiple_of(step) {
                return Err(refusal(Why::Malformed));
            }
            Ok(Route::Parts(Split { args, join, step }))
        }
        Rule::ScriptLoad => Err(Refusal::alone(&args)),
        Rule::EachNode | Rule::Flush => Err(refusal(Why::NoKey)),
        Rule::Refused(why) => Err(refusal(why)),
    }
}

fn way<'c>(
    args: &[&'c [u8]],
    places: &[usize],
    locate: &impl Fn(&[u8]) -> Result<Spot, Refusal>,
) -> Result<Way<'c>, Refusal> {
    let keys = places.iter().filter_map(|at| args.get(*at).copied());
    let keys: Vec<&[u8]> = keys.collect();
    let mut first = None;
    let mut mixed = false;
    for key in &keys {
        let spot = locate(key)?;
        let (owner, place) = *first.get_or_insert(spot);
        if owner != spot.0 {
            return Err(Refusal::apart(args, [owner, spot.0]));
        }
        mixed |= place != spot.1;
    }
    match first {
        Some(spot) => Ok(Way { spot, keys, mixed }),
        None => Err(Refusal::of(args, Why::NoKey)),
    }
}

impl<'c> Plan<'c> {
    /// Adds a command.
    ///
    /// # Errors
    ///
    /// Those of [`route`].
    pub(super) fn add(
        &mut self,
        cmd: Command<'c>,
        locate: &impl Fn(&[u8]) -> Result<Spot, Refusal>,
    ) -> Result<(), Refusal> {
        match route(cmd, locate)? {
            Route::Whole(way) => {
                self.add_whole(cmd, way);
                Ok(())
            }
            Route::Parts(split) => self.add_parts(cmd, split, locate),
        }
    }

    fn add_whole(&mut self, cmd: Command<'c>, way: Way<'c>) {
        if way.mixed {
            self.mixed.insert(way.spot.0);
        }
        let of = self.wholes.len();
        self.wholes.push(Whole::AsItIs);
        let lane = self.lane(way.spot);
        lane.keys.extend(way.keys);
        lane.sent.push(Sent {
            cmd: kept(cmd),
            of,
            places: Vec::new(),
        });
    }

    /// Adds a command by its parts.
    ///
    /// # Errors
    ///
    /// Refused is an argument that goes to no node.
    pub(super) fn add_parts(
        &mut self,
        whole: Command<'c>,
        split: Split<'c>,
        locate: &impl Fn(&[u8]) -> Result<Spot, Refusal>,
    ) -> Result<(), Refusal> {
        let mut parts: Vec<(Spot, Vec<usize>)> = Vec::new();
        let mut known: HashMap<Spot, usize, ahash::RandomState> = HashMap::default();
        let items = split.args.get(1..).unwrap_or_default();
        let items: Vec<&[&'c [u8]]> = items.chunks(split.step).collect();
        for (place, item) in items.iter().enumerate() {
            let spot = locate(item.first().copied().unwrap_or_default())?;
            let at = *known.entry(spot).or_insert_with(|| {
                parts.push((spot, Vec::new()));
                parts.len() - 1
            });
            if let Some((_, places)) = parts.get_mut(at) {
                places.push(place);
            }
        }
        let of = self.wholes.len();
        let is_whole = parts.len() == 1;
        self.wholes.push(match is_whole {
            true => Whole::AsItIs,
            false => Whole::Joined(split.join, items.len()),
        });
        for (spot, places) in parts {
            let own = || places.iter().filter_map(|place| items.get(*place));
            let lane = self.lane(spot);
            lane.keys
                .extend(own().filter_map(|item| item.first().copied()));
            let cmd = match is_whole {
                true => kept(whole),
                false => Cow::Owned(part(split.args.first(), own())),
            };
            lane.sent.push(Sent { cmd, of, places });
        }
        Ok(())
    }

    /// Has everything for a node take one connection, in the order of the commands, where one of them has keys on several; or at all
    /// nodes. Otherwise a key takes its own connection, and what is sent later by itself comes later.
    pub(super) fn in_order(mut self, everywhere: bool) -> Self {
        if !everywhere && self.mixed.is_empty() {
            return self;
        }
        let mut lanes: Vec<Lane<'c>> = Vec::with_capacity(self.lanes.len());
        for mut lane in std::mem::take(&mut self.lanes) {
            let node = lane.spot.0;
            let joins = everywhere || self.mixed.contains(&node);
            let mut earlier = lanes.iter_mut().filter(|_| joins);
            match earlier.find(|other| other.spot.0 == node) {
                Some(first) => {
                    first.sent.append(&mut lane.sent);
                    first.keys.append(&mut lane.keys);
                }
                None => lanes.push(lane),
            }
        }
        for lane in &mut lanes {
            lane.sent.sort_by_key(|sent| sent.of);
        }
        self.lanes = lanes;
        self
    }

    /// Whether each command goes somewhere as it is, and all of them to one place.
    pub(super) fn is_one_way(&self) -> bool {
        let whole = |whole: &Whole| matches!(whole, Whole::AsItIs);
        self.lanes.len() == 1 && self.wholes.iter().all(whole)
    }

    fn lane(&mut self, spot: Spot) -> &mut Lane<'c> {
        let lanes = &mut self.lanes;
        let at = *self.known.entry(spot).or_insert_with(|| {
            lanes.push(Lane {
                spot,
                sent: Vec::new(),
                keys: Vec::new(),
            });
            lanes.len() - 1
        });
        &mut lanes[at]
    }

    /// The answer of each command out of those of the lanes, in their order.
    pub(super) fn joined<E: Clone>(
        self,
        answers: Vec<Result<Vec<Value>, E>>,
    ) -> Vec<Result<Value, E>> {
        let empty = |whole: &Whole| match whole {
            Whole::AsItIs => Value::Nil,
            Whole::Joined(Join::Values, count) => Value::Array(vec![Value::Nil; *count]),
            Whole::Joined(Join::Sum, _) => Value::Int(0),
            Whole::Joined(Join::Done, _) => Value::Okay,
        };
        let mut whole: Vec<Result<Value, E>> =
            self.wholes.iter().map(|whole| Ok(empty(whole))).collect();
        for (lane, answers) in self.lanes.into_iter().zip(answers) {
            let mut answers = answers.map(Vec::into_iter);
            for sent in lane.sent {
                let answer = match &mut answers {
                    Ok(answers) => Ok(answers.next().unwrap_or(Value::Nil)),
                    Err(error) => Err(error.clone()),
                };
                if let Some(whole) = whole.get_mut(sent.of) {
                    put(whole, &self.wholes[sent.of], &sent.places, answer);
                }
            }
        }
        whole
    }
}

/// Puts the answer of a part into the whole. The first that failed is what all of it comes to.
fn put<E>(whole: &mut Result<Value, E>, how: &Whole, places: &[usize], answer: Result<Value, E>) {
    let Ok(so_far) = whole else {
        return;
    };
    match (how, so_far, answer) {
        (_, Value::ServerError(_), _) => {}
        (_, so_far, Ok(Value::ServerError(error))) => *so_far = Value::ServerError(error),
        (Whole::Joined(Join::Values, _), Value::Array(all), Ok(Value::Array(values))) => {
            for (place, value) in places.iter().zip(values) {
                if let Some(slot) = all.get_mut(*place) {
                    *slot = value;
                }
            }
        }
        (Whole::Joined(Join::Sum, _), Value::Int(sum), Ok(Value::Int(count))) => *sum += count,
        (Whole::Joined(Join::Done, _), _, Ok(_)) => {}
        (_, so_far, Ok(answer)) => *so_far = answer,
        (_, _, Err(error)) => *whole = Err(error),
    }
}

/// The part of a command that has these of its items.
fn part<'i, 'c: 'i>(name: Option<&&[u8]>, items: impl Iterator<Item = &'i &'i [&'c [u8]]>) -> Cmd {
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    let mut part = cmd(name.unwrap_or_default());
    for arg in items.flat_map(|item| item.iter()) {
        part.arg(*arg);
    }
    part
}
