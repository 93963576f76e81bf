//! Reads the map from the manager Redis, and decides whether to believe it.

use std::fmt;
use std::ops::RangeInclusive;

use redis::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring};
use crate::wire::Connection;

use super::keys::MapKeys;

const CONTRADICTION: &str = "the map is to be read in another order than was chosen";
const TAGS_CONTRADICT: &str =
    "the map is to be read with hash tags, or without, and not as was chosen";

/// What is read of the meta: whatever else stands there, it may be large.
const META_FIELDS: [&str; 4] = ["epoch", "digest", "lookup", "hash_tags"];

/// A longer url is none.
pub(crate) const MAX_URL_BYTES: usize = 1024;

/// Past these a map is absurd.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) fields: usize,
    pub(super) nodes: usize,
}

/// How a map is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) order: Order,
    /// As the map has it, unless chosen.
    pub(super) hash_tags: Option<bool>,
    pub(super) bounds: Bounds,
}

/// What a manager that knows Larder writes beside the map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) epoch: u64,
    pub(super) digest: Option<String>,
    pub(super) lookup: Option<Order>,
    pub(super) hash_tags: Option<bool>,
}

/// A map as it was read, sorted, so that two readings of one map are equal.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RawMap {
    pub(super) fields: Vec<(String, String)>,
    pub(super) meta: Option<Meta>,
}

// The urls hold passwords.
impl fmt::Debug for RawMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawMap({} fields)", self.fields.len())
    }
}

/// A map that was believed.
#[derive(Clone, Debug)]
pub(super) struct GoodMap {
    pub(super) ring: Ring,
    /// 0 where the map has no epoch that can be relied on.
    pub(super) epoch: u64,
    /// The epoch that stands beside the map, whether or not the map fits it; 0 where there is none.
    pub(super) stated: u64,
    /// Whether nobody says by which rule the map is to be read.
    pub(super) rule_unknown: bool,
    /// Whether somebody changed the map without its digest.
    pub(super) edited: bool,
}

/// A map, and what stands in the history of the epochs that were asked for.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) raw: RawMap,
    pub(super) epochs: RangeInclusive<u64>,
    pub(super) history: Vec<Option<Vec<u8>>>,
}

/// How large the map is and what stands beside it: enough to see most changes, and cheap.
pub(super) async fn probe(manager: &Connection, keys: &MapKeys) -> Result<(usize, Option<Meta>)> {
    let mut pipeline = redis::pipe();
    pipeline
        .atomic()
        .cmd("HLEN")
        .arg(&keys.map)
        .cmd("HMGET")
        .arg(&keys.meta)
        .arg(&META_FIELDS);
    let replies = manager.run_pipeline("read the map", &pipeline).await?;
    let mut replies = replies.into_iter().map(|reply| served(manager, reply));
    let fields = match replies.next().transpose()? {
        Some(Value::Int(fields)) => usize::try_from(fields).unwrap_or(0),
        _ => return Err(strange()),
    };
    let meta = replies.next().transpose()?.ok_or_else(strange)?;
    Ok((fields, meta_of(meta)?))
}

/// Map and meta, and the history of some epochs, in one step, so that they fit. The caller has seen that the map is
/// not absurdly large.
pub(super) async fn read(
    manager: &Connection,
    keys: &MapKeys,
    epochs: RangeInclusive<u64>,
) -> Result<Reading> {
    let mut pipeline = redis::pipe();
    pipeline
        .atomic()
        .cmd("HGETALL")
        .arg(&keys.map)
        .cmd("HMGET")
        .arg(&keys.meta)
        .arg(&META_FIELDS);
    for epoch in epochs.clone() {
        // One by one: an entry that is too large to read is an error in its place.
        pipeline.cmd("HGET").arg(&keys.history).arg(epoch);
    }
    let replies = manager.run_pipeline("read the map", &pipeline).await?;
    let mut replies = replies.into_iter().map(|reply| served(manager, reply));
    let mut fields = pairs(replies.next().transpose()?.ok_or_else(strange)?)?;
    let meta = replies.next().transpose()?.ok_or_else(strange)?;
    fields.sort_unstable();
    let entry = |reply| match reply {
        Ok(Value::BulkString(entry)) => Some(entry),
        Ok(Value::Nil) => None,
        // No entry is like this one, so it is found to be unreadable.
        _ => Some(Vec::new()),
    };
    Ok(Reading {
        raw: RawMap {
            fields,
            meta: meta_of(meta)?,
        },
        epochs,
        history: replies.map(entry).collect(),
    })
}

fn served(manager: &Connection, reply: Value) -> Result<Value> {
    match reply {
        Value::ServerError(error) => Err(manager.server_error("read the map", &error)),
        reply => Ok(reply),
    }
}

fn strange() -> Error {
    Error::new(ErrorKind::Config, "the manager's answer is not a map").during("read the map")
}

fn pairs(reply: Value) -> Result<Vec<(String, String)>> {
    let pairs: Vec<(String, String)> = redis::from_redis_value(reply)
        // The parser's words would hold the urls, with their passwords.
        .map_err(|_| strange())?;
    Ok(pairs)
}

/// The values of [`META_FIELDS`]; none of them, and there is no meta.
fn meta_of(reply: Value) -> Result<Option<Meta>> {
    let fields: [Option<String>; 4] = redis::from_redis_value(reply).map_err(|_| strange())?;
    if fields.iter().all(Option::is_none) {
        return Ok(None);
    }
    let [epoch, digest, lookup, hash_tags] = fields;
    let wrong = |name: &'static str| {
        Error::new(
            ErrorKind::Config,
            "the map's meta holds a field that cannot be read",
        )
        .with("field", name)
    };
    let epoch = epoch
        .map_or(Ok(0), |epoch| epoch.parse())
        .map_err(|_| wrong("epoch"))?;
    let lookup = lookup
        .map(|rule| rule.parse())
        .transpose()
        .map_err(|_| wrong("lookup"))?;
    let hash_tags = match hash_tags.as_deref() {
        None => None,
        Some("1") => Some(true),
        Some("0") => Some(false),
        Some(_) => return Err(wrong("hash_tags")),
    };
    Ok(Some(Meta {
        epoch,
        digest,
        lookup,
        hash_tags,
    }))
}

impl RawMap {
    /// The epoch that its meta states, 0 where there is none.
    pub(super) fn epoch(&self) -> u64 {
        self.meta.as_ref().map_or(0, |meta| meta.epoch)
    }

    /// The ring that these fields are, for a reader that was told these rules.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the map is empty, holds a field that is no position, or is to be read by another rule.
    pub(super) fn judge(&self, rules: Rules) -> Result<GoodMap> {
        let Rules { order, bounds, .. } = rules;
        if self.fields.is_empty() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "there is no map, or it is empty",
            ));
        }
        check_size(self.fields.len(), bounds.fields)?;
        check_urls(&self.fields)?;
        let lookup = self.meta.as_ref().and_then(|meta| meta.lookup);
        let lookup = lookup.filter(|rule| *rule != Order::Auto);
        let rule = match (order, lookup) {
            (Order::Auto, lookup) => lookup.unwrap_or(Order::Numeric),
            (chosen, Some(lookup)) if chosen != lookup => {
                return Err(Error::new(ErrorKind::Config, CONTRADICTION)
                    .with("chosen", chosen)
                    .with("map", lookup));
            }
            (chosen, _) => chosen,
        };
        let stated_tags = self.meta.as_ref().and_then(|meta| meta.hash_tags);
        let hash_tags = match (rules.hash_tags, stated_tags) {
            (Some(chosen), Some(stated)) if chosen != stated => {
                return Err(Error::new(ErrorKind::Config, TAGS_CONTRADICT)
                    .with("chosen", chosen)
                    .with("map", stated));
            }
            (chosen, stated) => chosen.or(stated).unwrap_or(false),
        };
        let ring = Ring::from_fields(self.fields.iter().cloned(), rule)?;
        check_nodes(ring.nodes().len(), bounds.nodes)?;
        let digest = self.meta.as_ref().and_then(|meta| meta.digest.as_deref());
        let edited = self.meta.is_some() && digest != Some(&digest_text(&ring));
        let stated = self.epoch();
        Ok(GoodMap {
            ring: ring.with_hash_tags(hash_tags),
            epoch: if edited { 0 } else { stated },
            stated,
            rule_unknown: order == Order::Auto && lookup.is_none(),
            edited,
        })
    }
}

/// Whether the map was refused for how it was chosen to be read.
pub(super) fn is_contradiction(error: &Error) -> bool {
    let contradicts = [CONTRADICTION, TAGS_CONTRADICT].contains(&error.message());
    error.kind() == ErrorKind::Config && contradicts
}

pub(super) fn check_size(fields: usize, max_fields: usize) -> Result<()> {
    if fields <= max_fields {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "the map is absurdly large")
        .with("fields", fields)
        .with("bound", max_fields))
}

fn check_urls(fields: &[(String, String)]) -> Result<()> {
    let longest = fields.iter().map(|(_, url)| url.len()).max();
    match longest.filter(|bytes| *bytes > MAX_URL_BYTES) {
        None => Ok(()),
        Some(bytes) => Err(
            Error::new(ErrorKind::Config, "a url of the map is too long")
                .with("bytes", bytes)
                .with("bound", MAX_URL_BYTES),
        ),
    }
}

fn check_nodes(nodes: usize, max: usize) -> Result<()> {
    if nodes <= max {
        return Ok(());
    }
    let why = "the map has too many nodes";
    Err(Error::new(ErrorKind::Config, why)
        .with("nodes", nodes)
        .with("bound", max))
}

/// A digest as it stands in the map's meta: 16 hexadecimal digits.
pub(super) fn digest_text(ring: &Ring) -> String {
    format!("{:016x}", ring.digest())
}
