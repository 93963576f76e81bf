//! Where the keys of a Redis command are, and so to which server it goes: a table of names, checked by a test against the lists of the servers
//! themselves, and the few forms whose keys have to be looked for.

pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

/// What is done with a command over several servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It goes to the node of its keys, if that is one.
    Keyed(Keys),
    /// Its keys, each with so many arguments its own included, may be parted.
    Split(Join, usize),
    /// It has no key: each node may be asked.
    EachNode,
    /// `SCRIPT LOAD`: to all nodes, since nobody knows where the script will run.
    ScriptLoad,
    /// `FLUSHDB`: to each node, unless the ring's own map is there.
    Flush,
    /// It is not sent.
    Refused(Why),
}

/// How the answers of a command that was parted are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// The keys' values, in the order of the keys.
    Values,
    /// The sum of the counts.
    Sum,
    /// `OK`, once all are done.
    Done,
}

/// Where keys are among the arguments; the command's own name is at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// From `first` to `last`, or to the end, each `step`th.
    Range {
        first: usize,
        last: Option<usize>,
        step: usize,
    },
    /// As many as `count` says, right behind it, each `step`th; and, where they are put `into` one, that at 1.
    Counted {
        count: usize,
        step: usize,
        into: bool,
    },
    /// Of `SORT`.
    Sort,
    /// Of `GEORADIUS`, which may store.
    Radius,
    /// Of `MIGRATE`.
    Migrate,
    /// Behind `STREAMS`, the first half of what is there.
    Streams,
}

/// Why a command is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is about one server, not about keys.
    OneServer,
    /// It changes the connection, which others use too.
    OwnConnection,
    /// It keeps the connection to itself while it waits.
    Blocks,
    /// It belongs to Redis Cluster.
    Cluster,
    /// What it changes, nobody is told of.
    Unseen,
    /// It empties other databases too.
    OtherDatabases,
    /// It works over keys of many nodes.
    ManyNodes,
    /// It has no keys, so it belongs to no node.
    NoKey,
    /// It has keys, and is to go to all nodes.
    HasKeys,
    /// Its arguments are too few, or its number of keys is none.
    Malformed,
    /// Nobody knows where its keys are.
    Unknown,
}

impl Why {
    /// What to do instead.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::OneServer => {
                "it is about one server: ask for that by connection_to(url); scan_all reads the keys of all"
            }
            Self::OwnConnection => {
                "it changes the connection, which is shared: open one of your own, of client_for(key) or client_to(url)"
            }
            Self::Blocks => {
                "it would hold up all others on the shared connection: open one of your own, of client_for(key)"
            }
            Self::Cluster => "the nodes of a ring are no Redis Cluster",
            Self::Unseen => {
                "no other process is told of what it changes, so memory would stay wrong"
            }
            Self::OtherDatabases => {
                "it empties other databases too, the ring's own map perhaps: FLUSHDB, by on_each_node"
            }
            Self::ManyNodes => {
                "it works over keys of many nodes: do it key by key, or at one node, connection_to(url)"
            }
            Self::NoKey => {
                "it has no key that says where: ask all nodes, on_each_node, or one, connection_for(key)"
            }
            Self::HasKeys => {
                "it has keys, and goes to their nodes: send it by the connection itself"
            }
            Self::Malformed => "its keys are not where they should be",
            Self::Unknown => {
                "nobody here knows where its keys are: send it by connection_for(key) to the node of its key"
            }
        }
    }
}

/// The longest name in the table, with that of its own command.
const LONGEST: usize = 32;

static RULES: LazyLock<HashMap<&'static str, Rule, ahash::RandomState>> = LazyLock::new(|| {
    let named = |(rule, names): &(Rule, &'static str)| {
        let rule = *rule;
        names.split_whitespace().map(move |name| (name, rule))
    };
    table::TABLE.iter().flat_map(named).collect()
});

/// What is done with a command, its name first.
pub(crate) fn rule(args: &[&[u8]]) -> Rule {
    let mut name = Name::default();
    let Some(command) = args.first() else {
        return Rule::Refused(Why::Malformed);
    };
    if !name.push(command) {
        return Rule::Refused(Why::Unknown);
    }
    let whole = RULES.get(name.as_str()).copied();
    let own = args.get(1).and_then(|own| {
        let fits = name.push(b"|") && name.push(own);
        fits.then(|| RULES.get(name.as_str()).copied()).flatten()
    });
    own.or(whole).unwrap_or(Rule::Refused(Why::Unknown))
}

/// A name in capitals, without an allocation.
#[derive(Default)]
struct Name {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Name {
    /// Whether it fits.
    fn push(&mut self, part: &[u8]) -> bool {
        let end = self.length + part.len();
        let Some(place) = self.bytes.get_mut(self.length..end) else {
            return false;
        };
        place.copy_from_slice(part);
        place.make_ascii_uppercase();
        self.length = end;
        true
    }

    fn as_str(&self) -> &str {
        let name = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

/// Where the keys of a command are, or why it cannot be sent to their node.
pub(crate) fn keys(keys: Keys, args: &[&[u8]]) -> Result<Vec<usize>, Why> {
    if keys == Keys::Sort && looks_elsewhere(args) {
        return Err(Why::ManyNodes);
    }
    keys_here(keys, args)
}

/// The same where it is sent to one node whatever other keys it looks at.
pub(crate) fn keys_here(keys: Keys, args: &[&[u8]]) -> Result<Vec<usize>, Why> {
    let found: Vec<usize> = match keys {
        Keys::Range { first, last, step } => {
            let end = last.map_or(args.len(), |last| last + 1);
            if end > args.len() {
                return Err(Why::Malformed);
            }
            (first..end).step_by(step).collect()
        }
        Keys::Counted { count, step, into } => {
            let into = into.then_some(1);
            into.into_iter()
                .chain(behind_count(args, count, step)?)
                .collect()
        }
        Keys::Sort => of_sort(args),
        Keys::Radius => of_radius(args),
        Keys::Migrate => of_migrate(args),
        Keys::Streams => of_streams(args)?.collect(),
    };
    match found.last() {
        Some(last) if *last < args.len() => Ok(found),
        Some(_) => Err(Why::Malformed),
        None if matches!(keys, Keys::Counted { .. }) => Err(Why::NoKey),
        None => Err(Why::Malformed),
    }
}

fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

fn behind_count(
    args: &[&[u8]],
    count: usize,
    step: usize,
) -> Result<impl Iterator<Item = usize> + use<>, Why> {
    let number = args
        .get(count)
        .and_then(|arg| std::str::from_utf8(arg).ok());
    let number = number.and_then(|number| number.parse::<usize>().ok());
    let number = number.ok_or(Why::Malformed)?;
    let first = count + 1;
    let length = number.checked_mul(step);
    let end = length.and_then(|length| first.checked_add(length));
    match end.filter(|end| *end <= args.len()) {
        Some(end) => Ok((first..end).step_by(step)),
        None => Err(Why::Malformed),
    }
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC|DESC] [ALPHA] [STORE key]`: of several `STORE`, the last.
fn of_sort(args: &[&[u8]]) -> Vec<usize> {
    let store =
        sort_options(args).filter(|at| args.get(at - 1).is_some_and(|arg| is(arg, "STORE")));
    std::iter::once(1).chain(store.last()).collect()
}

/// Whether a `SORT` looks up other keys, which may be anywhere.
fn looks_elsewhere(args: &[&[u8]]) -> bool {
    sort_options(args).any(|at| {
        let is_pattern = args
            .get(at - 1)
            .is_some_and(|arg| is(arg, "BY") || is(arg, "GET"));
        is_pattern && args.get(at).is_some_and(|pattern| pattern.contains(&b'*'))
    })
}

/// Where the values of the options of a `SORT` are, each behind its name.
fn sort_options(args: &[&[u8]]) -> impl Iterator<Item = usize> {
    let mut at = 2;
    std::iter::from_fn(move || {
        while let Some(arg) = args.get(at) {
            let named = ["STORE", "BY", "GET"].iter().any(|word| is(arg, word));
            at += match () {
                () if is(arg, "LIMIT") => 3,
                () if named && at + 1 < args.len() => {
                    at += 2;
                    return Some(at - 1);
                }
                () => 1,
            };
        }
        None
    })
}

/// `GEORADIUS key longitude latitude radius unit [.. STORE key] [STOREDIST key]`: of several it is the last that counts, and servers
/// differ in what they call a key.
fn of_radius(args: &[&[u8]]) -> Vec<usize> {
    let mut found = vec![1];
    let mut at = 5;
    while let Some(arg) = args.get(at) {
        if (is(arg, "STORE") || is(arg, "STOREDIST")) && at + 1 < args.len() {
            at += 1;
            found.push(at);
        }
        at += 1;
    }
    found
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 user password] [KEYS key ...]`
fn of_migrate(args: &[&[u8]]) -> Vec<usize> {
    if args.get(3).is_some_and(|key| !key.is_empty()) {
        return vec![3];
    }
    let mut at = 6;
    while let Some(arg) = args.get(at) {
        at += match () {
            () if is(arg, "KEYS") => return (at + 1..args.len()).collect(),
            () if is(arg, "AUTH") => 2,
            () if is(arg, "AUTH2") => 3,
            () => 1,
        };
    }
    Vec::new()
}

/// `XREAD [COUNT count] [BLOCK ms] STREAMS key ... id ...`, `XREADGROUP GROUP group consumer [..] STREAMS ...`
fn of_streams(args: &[&[u8]]) -> Result<Range<usize>, Why> {
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        at += match () {
            () if is(arg, "STREAMS") => {
                let count = (args.len() - at - 1) / 2;
                return Ok(at + 1..at + 1 + count);
            }
            () if is(arg, "BLOCK") => return Err(Why::Blocks),
            () if is(arg, "GROUP") => 3,
            () if is(arg, "COUNT") || is(arg, "CLAIM") => 2,
            () => 1,
        };
    }
    Err(Why::Malformed)
}
