//! Writes the map.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::cmd;

use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring, fields_for_readers, label, positions_for};
use crate::wire::{Connection, ConnectionSettings, NodeAddr, Target};

use super::history::{KEPT, missing};
use super::keys::{MAP_KEY, MapKeys};
use super::map::{check_size, digest_text, probe, read};

/// A larger map was not written by anybody who would have it followed.
const MAX_FIELDS: usize = 500_000;

/// Fields in one `HSET`: Lua cannot pass more than some thousands of arguments at once.
const CHUNK: usize = 1000;

/// How often a publication that expects no epoch is tried, where others publish at the same time.
const TRIES: usize = 16;

/// Map, meta and history in one step, so that no reader ever meets half a map, or none. Nothing is removed before
/// everything has been looked at.
const SCRIPT: &str = r"
for i = 1, 3 do
  local kind = redis.call('TYPE', KEYS[i])['ok']
  if kind ~= 'hash' and kind ~= 'none' then
    return redis.error_reply('LARDERSPOILT the key ' .. KEYS[i] .. ' is no hash but a ' .. kind)
  end
end
local stated = redis.call('HGET', KEYS[2], 'epoch') or '0'
local epoch = tonumber(stated)
if not string.match(stated, '^%d+$') or not epoch or epoch >= 9007199254740990 then
  return redis.error_reply('LARDERSPOILT the epoch that stands in ' .. KEYS[2] .. ' cannot be counted on')
end
if tonumber(ARGV[1]) ~= epoch then
  return redis.error_reply('LARDERSTALE the epoch is ' .. string.format('%.0f', epoch))
end
epoch = epoch + tonumber(ARGV[9])
local text = string.format('%.0f', epoch)
redis.call('DEL', KEYS[1])
local chunk = tonumber(ARGV[8])
for first = 11, #ARGV, chunk * 2 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + chunk * 2 - 1, #ARGV)))
end
redis.call('HSET', KEYS[2], 'epoch', text, 'digest', ARGV[2], 'lookup', ARGV[3], 'vnodes', ARGV[4], 'writer', ARGV[5])
local tags = redis.call('HGET', KEYS[2], 'hash_tags')
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[2], 'hash_tags', ARGV[10])
elseif tags and tags ~= '0' and tags ~= '1' then
  redis.call('HDEL', KEYS[2], 'hash_tags')
end
redis.call('HSET', KEYS[3], text, ARGV[6])
for _, old in ipairs(redis.call('HKEYS', KEYS[3])) do
  local at = tonumber(old)
  if not at or at <= epoch - tonumber(ARGV[7]) or at > epoch then redis.call('HDEL', KEYS[3], old) end
end
return text
";

/// A map to be published.
///
/// ```
/// use larder::ring::Publication;
/// let map = Publication::of_nodes(&["redis://127.0.0.1:7001/0", "redis://127.0.0.1:7002/0"], 160);
/// assert_eq!(map.positions().len(), 320);
/// ```
#[derive(Clone)]
pub struct Publication {
    positions: Vec<(u32, String)>,
    expected_epoch: Option<u64>,
    per_node: usize,
    hash_tags: Option<bool>,
    writer: String,
    map_name: String,
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication")
            .field("positions", &self.positions.len())
            .field("expected_epoch", &self.expected_epoch)
            .field("writer", &self.writer)
            .field("map_name", &self.map_name)
            .finish_non_exhaustive()
    }
}

impl Publication {
    /// A map with `per_node` positions for each node, chosen from `host:port/db`. 160 give a good balance.
    #[must_use]
    pub fn of_nodes(urls: &[impl AsRef<str>], per_node: usize) -> Self {
        Self {
            per_node,
            ..Self::of_positions(positions_for(urls, per_node))
        }
    }

    /// A map of positions that were chosen elsewhere.
    #[must_use]
    pub fn of_positions(positions: impl IntoIterator<Item = (u32, String)>) -> Self {
        Self {
            positions: positions.into_iter().collect(),
            expected_epoch: None,
            per_node: 0,
            hash_tags: None,
            writer: format!("larder/{}", env!("CARGO_PKG_VERSION")),
            map_name: MAP_KEY.to_owned(),
        }
    }

    /// Publishes only if the map's epoch is still this one; 0 for a map without meta. Otherwise it is refused.
    #[must_use]
    pub fn expecting_epoch(mut self, epoch: u64) -> Self {
        self.expected_epoch = Some(epoch);
        self
    }

    /// Says that keys are placed by their [hash tags](crate::ring::hash_tag), or that they are not. As it stands unless set; off where nothing stands. Readers that
    /// were told otherwise refuse the map, and the Python SDK knows nothing of it: to be chosen before a ring is used.
    #[must_use]
    pub fn hash_tags(mut self, tags: bool) -> Self {
        self.hash_tags = Some(tags);
        self
    }

    /// Sets who is noted as the writer.
    #[must_use]
    pub fn writer(mut self, writer: impl Into<String>) -> Self {
        self.writer = writer.into();
        self
    }

    /// Publishes under another name than `HASH_RING_MAP`, for several rings with one manager: see
    /// [`map_name`](crate::ring::DistributedRedisBuilder::map_name) for the names of the keys.
    ///
    /// ```
    /// use larder::ring::Publication;
    /// let map = Publication::of_nodes(&["redis://127.0.0.1:7001/0"], 160).in_map("HASH_RING_cart_MAP");
    /// # let _ = map;
    /// ```
    #[must_use]
    pub fn in_map(mut self, name: impl Into<String>) -> Self {
        self.map_name = name.into();
        self
    }

    /// The positions and their nodes' urls.
    #[must_use]
    pub fn positions(&self) -> &[(u32, String)] {
        &self.positions
    }

    fn check(&self) -> Result<()> {
        if self.positions.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "an empty map is never published",
            ));
        }
        check_size(self.positions.len(), 250_000)?;
        let urls: HashSet<&str> = self.positions.iter().map(|(_, url)| url.as_str()).collect();
        urls.into_iter()
            .try_for_each(|url| NodeAddr::parse(url).map(|_| ()))
    }

    /// What the history keeps of a map: node labels, and the positions of each. Never a password.
    fn history(&self, ring: &Ring) -> String {
        let labels: Vec<String> = ring.nodes().iter().map(|url| label(url)).collect();
        let mut positions = vec![Vec::new(); labels.len()];
        let indexes: HashMap<&str, usize> =
            ring.nodes().iter().map(String::as_str).zip(0..).collect();
        for (position, url) in ring.iter() {
            if let Some(&node) = indexes.get(url) {
                positions[node].push(position);
            }
        }
        let mut entry = serde_json::json!({ "nodes": labels, "positions": positions });
        if let Some(tags) = self.hash_tags {
            entry["hash_tags"] = tags.into();
        }
        entry.to_string()
    }
}

/// Publishes a map in the manager Redis: map, meta and history in one script. Answers the new epoch, which is one more
/// than the one before, or two more where somebody who does not know the meta has edited the map meanwhile.
///
/// The url is one that [`connect`](crate::DistributedRedis::connect) takes: of one server, of several or of sentinels.
///
/// Each position below 10^9 is written twice, plainly and padded to ten digits, so that readers of the Python SDK,
/// which sort positions as text, place every key where numeric readers do.
///
/// # Errors
///
/// [`ErrorKind::Config`] if the map is empty, too large, holds a url that does not parse, or has an unusable name, or if
/// what stands in its place in the manager is no map or has no epoch that can be counted on; nothing is written then.
/// [`ErrorKind::Rejected`] if the epoch is not the expected one, or the manager refuses;
/// [`ErrorKind::Unavailable`] and [`ErrorKind::Timeout`] if it does not answer within 5 seconds.
///
/// # Cancellation
///
/// Dropped, the map is published whole or not at all.
pub async fn publish(manager_url: &str, publication: &Publication) -> Result<u64> {
    publication.check()?;
    let keys = MapKeys::named(&publication.map_name)?;
    let ring = Ring::from_map(publication.positions.iter().cloned());
    let settings = ConnectionSettings {
        operation_timeout: Duration::from_secs(5),
        ping_timeout: Duration::from_secs(5),
        max_reply_bytes: MAX_FIELDS * 64,
        client_name: Some("larder-publish".to_owned()),
        ..ConnectionSettings::default()
    };
    let manager = Connection::new(Target::parse(manager_url)?, settings);
    manager.ready().await?;
    let mut tried = 1;
    loop {
        let found = Found::read(&manager, &keys).await?;
        let expected = publication.expected_epoch.unwrap_or(found.epoch);
        let eval = command(&keys, publication, &ring, expected, found.step());
        let published = manager.run::<String>("publish", &eval).await;
        match published {
            Ok(epoch) => {
                return epoch.parse().map_err(|_| {
                    Error::new(ErrorKind::Decode, "the epoch is no number").during("publish")
                });
            }
            Err(error) if is(&error, "LARDERSPOILT") => return Err(spoilt(&error)),
            // Somebody published in between.
            Err(error) if is(&error, "LARDERSTALE") && publication.expected_epoch.is_none() => {
                tried += 1;
                if tried > TRIES {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn command(
    keys: &MapKeys,
    publication: &Publication,
    ring: &Ring,
    expected: u64,
    step: u64,
) -> redis::Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(SCRIPT).arg(3).arg(&keys.all()).arg(expected);
    eval.arg(digest_text(ring)).arg(Order::Numeric.to_string());
    eval.arg(publication.per_node).arg(&publication.writer);
    eval.arg(publication.history(ring)).arg(KEPT).arg(CHUNK);
    eval.arg(step);
    eval.arg(match publication.hash_tags {
        None => "",
        Some(true) => "1",
        Some(false) => "0",
    });
    let positions: Vec<(u32, String)> = ring
        .iter()
        .map(|(position, url)| (position, url.to_owned()))
        .collect();
    for (field, url) in fields_for_readers(&positions) {
        eval.arg(field).arg(url);
    }
    eval
}

fn is(error: &Error, code: &str) -> bool {
    error.context().any(|context| context == ("code", code))
}

fn spoilt(error: &Error) -> Error {
    let why = "what stands in the manager is no map that could be followed";
    Error::new(ErrorKind::Config, why)
        .during("publish")
        .caused_by(error.clone())
        .with("found", error.message())
}

/// What is to be replaced.
struct Found {
    epoch: u64,
    /// Whether somebody changed the map who does not know its meta.
    edited: bool,
}

impl Found {
    async fn read(manager: &Connection, keys: &MapKeys) -> Result<Self> {
        match Self::looked_at(manager, keys).await {
            // What cannot be read is replaced, unless the script finds that it cannot be.
            Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Rejected) => {
                let mut hget = cmd("HGET");
                hget.arg(&keys.meta).arg("epoch");
                let stated = manager.run::<String>("publish", &hget).await;
                Ok(Self {
                    epoch: stated
                        .ok()
                        .and_then(|epoch| epoch.parse().ok())
                        .unwrap_or(0),
                    edited: true,
                })
            }
            found => found,
        }
    }

    async fn looked_at(manager: &Connection, keys: &MapKeys) -> Result<Self> {
        let (fields, meta) = probe(manager, keys).await?;
        let Some(meta) = meta else {
            return Ok(Self {
                epoch: 0,
                edited: false,
            });
        };
        if fields > MAX_FIELDS {
            let epoch = meta.epoch;
            return Ok(Self {
                epoch,
                edited: true,
            });
        }
        let raw = read(manager, keys, missing(0, 0)).await?.raw;
        // By whatever rule it is read, its digest is the same.
        let present = Ring::from_fields(raw.fields.iter().cloned(), Order::Numeric);
        let digest = raw.meta.as_ref().and_then(|meta| meta.digest.as_deref());
        let fits = present.is_ok_and(|ring| Some(digest_text(&ring).as_str()) == digest);
        Ok(Self {
            epoch: raw.epoch(),
            edited: !fits,
        })
    }

    /// The epoch after an edit is left out: who starts later finds a gap in the history, and so takes nothing that is
    /// older than it for the value of a key.
    fn step(&self) -> u64 {
        if self.edited { 2 } else { 1 }
    }
}
