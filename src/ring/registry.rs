//! What a manager keeps in its Redis, read in one step and changed in one step: the map with its meta and history, who is a member, what
//! happened, and who the manager is.

#[cfg(feature = "manager")]
mod office;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use serde_json::json;

use super::history::KEPT;
use super::keys::MapKeys;
use super::map::digest_text;
use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring};
use crate::wire::{Connection, ConnectionSettings, Target};

#[cfg(feature = "manager")]
pub(crate) use super::map::MAX_URL_BYTES;
#[cfg(feature = "manager")]
pub(crate) use office::{Event, is_lost};

/// A larger map was not written by anybody who would have it followed.
pub(crate) const MAX_FIELDS: usize = 500_000;

/// Of larger maps only the number of fields is compared between reading and changing.
const MAX_COMPARED: usize = 20_000;

/// Fields in one `HSET`: Lua cannot pass more than some thousands of arguments at once.
const CHUNK: usize = 1000;

/// Events that are kept.
const MAX_EVENTS: usize = 1000;

/// Whether the keys are what they should be, and what tells one map from another.
const COMMON: &str = r"
local kinds = {'hash', 'hash', 'hash', 'hash', 'list', 'string'}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= kinds[i] and kind ~= 'none' then
    return redis.error_reply('LARDERSPOILT the key ' .. key .. ' is no ' .. kinds[i] .. ' but a ' .. kind)
  end
end
local fields = redis.call('HLEN', KEYS[1])
local function print_of(all)
  local lines = {}
  for i = 1, #all, 2 do lines[#lines + 1] = all[i] .. ' ' .. all[i + 1] end
  table.sort(lines)
  return redis.sha1hex(table.concat(lines, '\n'))
end
";

/// `KEYS`: map, meta, history, nodes. `ARGV`: more fields than these are not read, nor compared.
const READ: &str = r"
local meta, nodes = redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[4])
local epoch, newest = redis.call('HGET', KEYS[2], 'epoch'), '0'
if not epoch then
  for _, kept in ipairs(redis.call('HKEYS', KEYS[3])) do
    if string.match(kept, '^%d+$') and #kept <= 16 and tonumber(kept) > tonumber(newest)
      and tonumber(kept) < 9007199254740988 and string.sub(redis.call('HGET', KEYS[3], kept), 1, 1) == '{' then
      newest = kept
    end
  end
end
local last = redis.call('HGET', KEYS[3], epoch or newest) or ''
if fields > tonumber(ARGV[1]) then return {fields, '', {}, meta, nodes, last, newest} end
local all = redis.call('HGETALL', KEYS[1])
local print = tostring(fields)
if fields <= tonumber(ARGV[2]) then print = print_of(all) end
return {fields, print, all, meta, nodes, last, newest}
";

/// `KEYS`: map, meta, history, nodes, events, lease; as many as there are changes of. `ARGV`: the changes as JSON, then fields and urls of
/// the map. Nothing is changed before everything has been looked at.
const COMMIT: &str = r"
local change = cjson.decode(ARGV[1])
if change.lease ~= '' and redis.call('GET', KEYS[6]) ~= change.lease then
  return redis.error_reply('LARDERLEASE another manager has taken over')
end
local epoch = redis.call('HGET', KEYS[2], 'epoch') or '0'
local stated = tonumber(epoch)
if not string.match(epoch, '^%d+$') or not stated or stated >= 9007199254740990 then
  return redis.error_reply('LARDERSPOILT the epoch that stands in ' .. KEYS[2] .. ' cannot be counted on')
end
if epoch ~= change.epoch then return redis.error_reply('LARDERSTALE the epoch is ' .. epoch) end
local revision = redis.call('HGET', KEYS[2], 'revision') or '0'
for _, count in ipairs({revision, redis.call('HGET', KEYS[2], 'events') or '0'}) do
  if not string.match(count, '^%d+$') or #count > 15 then
    return redis.error_reply('LARDERSPOILT a count that stands in ' .. KEYS[2] .. ' cannot be counted on')
  end
end
if change.revision ~= '' and revision ~= change.revision then
  return redis.error_reply('LARDERSTALE another manager has changed the nodes')
end
if change.print ~= '' then
  local print = tostring(fields)
  if fields <= change.compared then print = print_of(redis.call('HGETALL', KEYS[1])) end
  if print ~= change.print then return redis.error_reply('LARDERSTALE the map has been edited') end
end
if change.step > 0 then
  stated = stated + change.step
  epoch = string.format('%.0f', stated)
  redis.call('DEL', KEYS[1])
  for first = 2, #ARGV, change.chunk * 2 do
    redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + change.chunk * 2 - 1, #ARGV)))
  end
  redis.call('HSET', KEYS[2], 'epoch', epoch)
  redis.call('HSET', KEYS[3], epoch, change.history)
  for _, old in ipairs(redis.call('HKEYS', KEYS[3])) do
    local at = tonumber(old)
    if not at or at <= stated - change.kept or at > stated then redis.call('HDEL', KEYS[3], old) end
  end
end
for field, value in pairs(change.meta) do
  if value then redis.call('HSET', KEYS[2], field, value) else redis.call('HDEL', KEYS[2], field) end
end
local changed = false
for node, text in pairs(change.nodes) do
  changed = true
  if text then redis.call('HSET', KEYS[4], node, text) else redis.call('HDEL', KEYS[4], node) end
end
if changed then revision = tostring(redis.call('HINCRBY', KEYS[2], 'revision', 1)) end
for _, event in ipairs(change.events) do
  local id = redis.call('HINCRBY', KEYS[2], 'events', 1)
  redis.call('LPUSH', KEYS[5], id .. ' ' .. event)
end
if #change.events > 0 then redis.call('LTRIM', KEYS[5], 0, change.max_events - 1) end
return {epoch, revision}
";

/// A map in its manager Redis, for whoever writes it.
#[derive(Clone)]
pub(crate) struct Registry {
    manager: Connection,
    keys: MapKeys,
}

/// What stands there.
#[derive(Clone, Default)]
pub(crate) struct Found {
    /// Fields of the map; more than [`MAX_FIELDS`] are not read.
    pub(crate) size: usize,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) meta: BTreeMap<String, String>,
    /// Who is a member, each as its manager wrote it.
    pub(crate) nodes: BTreeMap<String, String>,
    /// What the history has of the present epoch; of the newest one, where nothing says which that is.
    #[cfg_attr(not(feature = "manager"), allow(dead_code))]
    pub(crate) last: String,
    /// The newest epoch of the history, where nothing says which the present one is.
    newest: u64,
    print: String,
    /// The epoch at which alone it may be changed, where that is another than was found.
    expected: Option<String>,
}

// Urls and members hold passwords.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Found({} fields, {} nodes)", self.size, self.nodes.len())
    }
}

impl Found {
    /// The epoch as it stands there.
    pub(crate) fn epoch(&self) -> &str {
        self.meta.get("epoch").map_or("0", String::as_str)
    }

    /// Has a change be refused unless this is the epoch.
    pub(super) fn expect(&mut self, epoch: u64) {
        self.expected = Some(epoch.to_string());
    }

    /// The map as it stands, if it can be read.
    pub(crate) fn ring(&self) -> Option<Ring> {
        let fields = self.fields.iter().cloned();
        Ring::from_fields(fields, Order::Numeric).ok()
    }

    /// Whether the map is another than its meta says, by an edit of somebody who does not know of that; or what readers refuse.
    pub(crate) fn is_edited(&self) -> bool {
        // By whatever rule it is read, its digest is the same.
        let digest = self.ring().map(|ring| digest_text(&ring));
        let lookup = self.meta.get("lookup");
        let odd = lookup.is_some_and(|rule| rule.parse::<Order>().is_err()) || self.has_odd_tags();
        !self.meta.is_empty() && (odd || digest.as_ref() != self.meta.get("digest"))
    }

    /// By how much the epoch rises with the next map. The epoch after an edit is left out: who starts later finds a gap in the history, and so
    /// takes nothing that is older than it for the value of a key. So is the one after the newest of a history whose meta is gone: nobody knows
    /// what was done since.
    pub(super) fn step(&self) -> u64 {
        match self.newest {
            0 if self.is_edited() => 2,
            0 => 1,
            newest => newest + 2,
        }
    }

    /// Whether the map says that keys are placed by their hash tags, or that they are not.
    pub(super) fn tags(&self) -> Option<bool> {
        match self.meta.get("hash_tags")?.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    pub(super) fn has_odd_tags(&self) -> bool {
        let tags = self.meta.get("hash_tags");
        tags.is_some_and(|tags| tags != "0" && tags != "1")
    }

    fn revision(&self) -> &str {
        self.meta.get("revision").map_or("0", String::as_str)
    }
}

/// A map that replaces another; without fields it is gone.
#[derive(Clone, Default)]
pub(crate) struct NewMap {
    /// As they are written.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) history: String,
    /// By how much the epoch rises.
    pub(crate) step: u64,
}

/// What is to become of what was found.
#[derive(Clone, Default)]
pub(crate) struct Change {
    pub(crate) map: Option<NewMap>,
    /// Fields of the meta; without a value they go.
    pub(crate) meta: BTreeMap<&'static str, Option<String>>,
    pub(crate) nodes: BTreeMap<String, Option<String>>,
    /// Lines of JSON.
    pub(crate) events: Vec<String>,
    /// The token of the lease without which it is refused.
    pub(crate) lease: Option<String>,
}

impl Registry {
    /// The map of this name behind a connection of one's own.
    pub(super) fn new(manager: Connection, keys: MapKeys) -> Self {
        Self { manager, keys }
    }

    /// Whether a map can have this name.
    ///
    /// # Errors
    ///
    /// Those of [`MapKeys::named`].
    #[cfg(feature = "manager")]
    pub(crate) fn check_name(map_name: &str) -> Result<()> {
        MapKeys::named(map_name).map(|_| ())
    }

    /// Connects to where the map of this name is.
    ///
    /// # Errors
    ///
    /// Those of [`MapKeys::named`] and of [`Connection::ready`].
    pub(crate) async fn connect(
        target: Target,
        settings: ConnectionSettings,
        map_name: &str,
    ) -> Result<Self> {
        let keys = MapKeys::named(map_name)?;
        let settings = ConnectionSettings {
            operation_timeout: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(5),
            max_reply_bytes: MAX_FIELDS * 64,
            ..settings
        };
        let registry = Self::new(Connection::new(target, settings), keys);
        registry.manager.ready().await?;
        Ok(registry)
    }

    /// All of it, as it stands at one moment.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`]; [`ErrorKind::Config`] where a key holds something else.
    pub(crate) async fn read(&self) -> Result<Found> {
        static SCRIPT: LazyLock<String> = LazyLock::new(|| format!("{COMMON}{READ}"));
        let [map, meta, history, nodes, ..] = self.keys.kept();
        let mut eval = eval(&SCRIPT, &[map, meta, history, nodes]);
        eval.arg(MAX_FIELDS).arg(MAX_COMPARED);
        let answer: Value = self.run("read the map", &eval).await?;
        let strange = |_| {
            let why = "the manager's answer is not a map";
            Error::new(ErrorKind::Config, why).during("read the map")
        };
        type Answer = (usize, String, Pairs, Pairs, Pairs, Vec<u8>, u64);
        type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
        // The parser's words would hold the urls, with their passwords.
        let (size, print, fields, meta, nodes, last, newest): Answer =
            redis::from_redis_value(answer).map_err(strange)?;
        // What is no text is none of ours: it is found to be wrong where it is looked at.
        let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(odd) => String::from_utf8_lossy(odd.as_bytes()).into_owned(),
        };
        let texts = |pairs: Pairs| {
            let pairs = pairs.into_iter();
            pairs.map(move |(name, value)| (text(name), text(value)))
        };
        let (fields, last) = (texts(fields).collect(), text(last));
        let (meta, nodes) = (texts(meta).collect(), texts(nodes).collect());
        Ok(Found {
            size,
            fields,
            meta,
            nodes,
            last,
            newest,
            print,
            expected: None,
        })
    }

    /// Makes a change of what was found, if it is still so: all of it or nothing. Answers the epoch.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`] where somebody was faster, see [`is_stale`], or has the lease, see [`is_lost`]; [`ErrorKind::Config`] where
    /// what stands there is not to be changed; those of [`Connection::run`].
    pub(crate) async fn commit(&self, found: &Found, change: &Change) -> Result<u64> {
        static SCRIPT: LazyLock<String> = LazyLock::new(|| format!("{COMMON}{COMMIT}"));
        let written = |(name, text): (&str, &Option<String>)| match text {
            Some(text) => (name.to_owned(), json!(text)),
            None => (name.to_owned(), json!(false)),
        };
        let meta = change.meta.iter().map(|(name, text)| written((name, text)));
        let nodes = change.nodes.iter();
        let nodes = nodes.map(|(name, text)| written((name, text)));
        let map = change.map.as_ref();
        let told = json!({
            "lease": change.lease.as_deref().unwrap_or_default(),
            "epoch": found.expected.as_deref().unwrap_or(found.epoch()),
            "revision": if change.nodes.is_empty() { "" } else { found.revision() },
            "print": found.print,
            "compared": MAX_COMPARED,
            "step": map.map_or(0, |map| map.step),
            "history": map.map_or("", |map| map.history.as_str()),
            "kept": KEPT,
            "chunk": CHUNK,
            "meta": meta.collect::<serde_json::Map<_, _>>(),
            "nodes": nodes.collect::<serde_json::Map<_, _>>(),
            "events": change.events,
            "max_events": MAX_EVENTS,
        });
        let used = match change {
            Change { lease: Some(_), .. } => 6,
            Change { events, .. } if !events.is_empty() => 5,
            Change { nodes, .. } if !nodes.is_empty() => 4,
            _ => 3,
        };
        let keys = self.keys.kept();
        let mut eval = eval(&SCRIPT, keys.get(..used).unwrap_or(&keys));
        eval.arg(told.to_string());
        for (field, url) in map.map_or(&[][..], |map| &map.fields) {
            eval.arg(field).arg(url);
        }
        let (epoch, _): (String, String) = self.run("publish", &eval).await?;
        let odd = |_| Error::new(ErrorKind::Decode, "the epoch is no number").during("publish");
        epoch.parse().map_err(odd)
    }

    async fn run<T: redis::FromRedisValue>(&self, operation: &'static str, cmd: &Cmd) -> Result<T> {
        let answer = self.manager.run(operation, cmd).await;
        answer.map_err(|error| match has_code(&error, "LARDERSPOILT") {
            true => spoilt(&error, operation),
            false => error,
        })
    }
}

fn eval(script: &str, keys: &[&str]) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(script).arg(keys.len()).arg(keys);
    eval
}

/// Whether somebody else has changed what was read.
pub(crate) fn is_stale(error: &Error) -> bool {
    has_code(error, "LARDERSTALE")
}

fn has_code(error: &Error, code: &str) -> bool {
    error.context().any(|context| context == ("code", code))
}

fn spoilt(error: &Error, operation: &'static str) -> Error {
    let why = "what stands in the manager is no map that could be followed";
    Error::new(ErrorKind::Config, why)
        .during(operation)
        .caused_by(error.clone())
        .with("found", error.message())
}
