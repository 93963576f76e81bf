//! Reads the map from the manager Redis, and decides whether to believe it.

use std::collections::HashMap;
use std::fmt;

use redis::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring};
use crate::wire::Connection;

/// The hash of positions and node urls.
pub const MAP_KEY: &str = "HASH_RING_MAP";
/// The hash of epoch, digest, lookup rule and writer.
pub const META_KEY: &str = "HASH_RING_META";
/// The hash of earlier maps by epoch.
pub const HISTORY_KEY: &str = "HASH_RING_HISTORY";

/// What a manager that knows Larder writes beside the map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) epoch: u64,
    pub(super) digest: Option<String>,
    pub(super) lookup: Option<Order>,
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
    /// Whether nobody says by which rule the map is to be read.
    pub(super) rule_unknown: bool,
    /// Whether somebody changed the map without its digest.
    pub(super) edited: bool,
}

/// How large the map is and what stands beside it: enough to see most changes, and cheap.
pub(super) async fn probe(manager: &Connection) -> Result<(usize, Option<Meta>)> {
    let mut pipeline = redis::pipe();
    pipeline
        .atomic()
        .cmd("HLEN")
        .arg(MAP_KEY)
        .cmd("HGETALL")
        .arg(META_KEY);
    let replies = manager.run_pipeline("read the map", &pipeline).await?;
    let mut replies = replies.into_iter().map(|reply| served(manager, reply));
    let fields = match replies.next().transpose()? {
        Some(Value::Int(fields)) => usize::try_from(fields).unwrap_or(0),
        _ => return Err(strange()),
    };
    let meta = pairs(replies.next().transpose()?.ok_or_else(strange)?)?;
    Ok((fields, meta_of(meta)?))
}

/// Map and meta in one step, after the caller has seen that the map is not absurdly large.
pub(super) async fn read(manager: &Connection) -> Result<RawMap> {
    let mut pipeline = redis::pipe();
    pipeline
        .atomic()
        .cmd("HGETALL")
        .arg(MAP_KEY)
        .cmd("HGETALL")
        .arg(META_KEY);
    let replies = manager.run_pipeline("read the map", &pipeline).await?;
    let mut replies = replies.into_iter().map(|reply| served(manager, reply));
    let mut fields = pairs(replies.next().transpose()?.ok_or_else(strange)?)?;
    let meta = pairs(replies.next().transpose()?.ok_or_else(strange)?)?;
    fields.sort_unstable();
    Ok(RawMap {
        fields,
        meta: meta_of(meta)?,
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

fn meta_of(fields: Vec<(String, String)>) -> Result<Option<Meta>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let mut fields: HashMap<String, String> = fields.into_iter().collect();
    let wrong = |name: &'static str| {
        Error::new(
            ErrorKind::Config,
            "HASH_RING_META holds a field that cannot be read",
        )
        .with("field", name)
    };
    let epoch = fields
        .remove("epoch")
        .map_or(Ok(0), |epoch| epoch.parse())
        .map_err(|_| wrong("epoch"))?;
    let lookup = fields
        .remove("lookup")
        .map(|rule| rule.parse())
        .transpose()
        .map_err(|_| wrong("lookup"))?;
    Ok(Some(Meta {
        epoch,
        digest: fields.remove("digest"),
        lookup,
    }))
}

impl RawMap {
    /// The ring that these fields are, for a reader that was told to use `order`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the map is empty, holds a field that is no position, or is to be read by another rule.
    pub(super) fn judge(&self, order: Order, max_fields: usize) -> Result<GoodMap> {
        if self.fields.is_empty() {
            return Err(
                Error::new(ErrorKind::Unavailable, "there is no map, or it is empty")
                    .with("key", MAP_KEY),
            );
        }
        check_size(self.fields.len(), max_fields)?;
        let stated = self
            .meta
            .as_ref()
            .and_then(|meta| meta.lookup)
            .filter(|rule| *rule != Order::Auto);
        let rule = match (order, stated) {
            (Order::Auto, stated) => stated.unwrap_or(Order::Numeric),
            (chosen, Some(stated)) if chosen != stated => {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the map is to be read in another order than was chosen",
                )
                .with("chosen", chosen)
                .with("map", stated));
            }
            (chosen, _) => chosen,
        };
        let ring = Ring::from_fields(self.fields.iter().cloned(), rule)?;
        let digest = self.meta.as_ref().and_then(|meta| meta.digest.as_deref());
        let edited = self.meta.is_some() && digest != Some(&digest_text(&ring));
        let epoch = self.meta.as_ref().map_or(0, |meta| meta.epoch);
        Ok(GoodMap {
            ring,
            epoch: if edited { 0 } else { epoch },
            rule_unknown: order == Order::Auto && stated.is_none(),
            edited,
        })
    }
}

pub(super) fn check_size(fields: usize, max_fields: usize) -> Result<()> {
    if fields <= max_fields {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "the map is absurdly large")
        .with("fields", fields)
        .with("bound", max_fields))
}

/// A digest as it stands in the map's meta: 16 hexadecimal digits.
pub(super) fn digest_text(ring: &Ring) -> String {
    format!("{:016x}", ring.digest())
}
