//! One node of the ring, with whatever keys.

use std::time::Duration;

use redis::{Cmd, Pipeline, RedisResult, Value};

use super::api::{Command, args_of, commands_of, lent, of_transaction, redis_error, refused};
use super::refusal::Refusal;
use crate::commands::{Rule, Why, keys_here, rule};
use crate::core::MAX_WAIT;
use crate::error::Result;
use crate::ring::store::DistributedRedis;
use crate::wire::node::Node;
use crate::wire::raw::Raw;

/// One node of the ring as a connection of [redis-rs](redis): what is sent goes there, whatever its keys. Made by
/// [`DistributedRedis::connection_for`] and [`connection_to`](DistributedRedis::connection_to), and led to that node even after the map
/// has changed.
///
/// ```no_run
/// # async fn example(ring: larder::DistributedRedis) -> Result<(), Box<dyn std::error::Error>> {
/// let mut node = ring.connection_for("user:42")?;
/// let encoding: String = larder::redis::cmd("OBJECT").arg("ENCODING").arg("user:42").query_async(&mut node).await?;
/// let mut first = ring.connection_to(&ring.nodes()[0])?;
/// let info: String = larder::redis::cmd("INFO").query_async(&mut first).await?;
/// # Ok(())
/// # }
/// ```
///
/// It is the cache's own connection, so what changes a connection or waits on it is refused all the same (`SELECT`, `SUBSCRIBE`,
/// `BLPOP`), and so is `SWAPDB`, of which nobody is told, `FLUSHALL`, and a `FLUSHDB` that would take the ring's own map. Everything else is sent,
/// commands that Larder does not know too. Errors, timeouts and cancellation are those of [`RingConnection`](super::RingConnection).
#[derive(Clone, Debug)]
pub struct NodeConnection {
    ring: DistributedRedis,
    node: Node,
    place: usize,
    bound: Option<Duration>,
}

impl NodeConnection {
    pub(super) fn new(ring: DistributedRedis, node: Node, place: usize) -> Self {
        let bound = None;
        Self {
            ring,
            node,
            place,
            bound,
        }
    }

    /// Waits so long for an answer; see [`RingConnection::timeout`](super::RingConnection::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.bound = Some(timeout.min(MAX_WAIT));
        self
    }

    /// The node, as `host:port/db`.
    #[must_use]
    pub fn label(&self) -> &str {
        self.node.label()
    }

    pub(super) fn db(&self) -> i64 {
        self.node.db()
    }

    pub(super) fn bounded(mut self, bound: Option<Duration>) -> Self {
        self.bound = bound;
        self
    }

    pub(super) async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let keys = self.permitted(lent(cmd)).await?;
        let raw = Raw::One(cmd);
        let answers = self.node.send(self.place, &keys, raw, self.bound).await;
        Ok(answers.map_err(redis_error)?.pop().unwrap_or(Value::Nil))
    }

    pub(super) async fn commands(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut keys = Vec::new();
        for cmd in commands_of(pipeline) {
            keys.extend(self.permitted(cmd).await?);
        }
        let is_atomic = pipeline.is_transaction();
        if pipeline.is_empty() && !is_atomic {
            return Ok(Vec::new());
        }
        let raw = Raw::Many(pipeline);
        let replies = self.node.send(self.place, &keys, raw, self.bound).await;
        let replies = replies.map_err(redis_error)?;
        match is_atomic {
            true => of_transaction(replies),
            false => Ok(replies),
        }
    }

    /// The keys of a command as far as they are known, if it may be sent.
    async fn permitted<'c>(&self, cmd: Command<'c>) -> RedisResult<Vec<&'c [u8]>> {
        let args = args_of(cmd);
        let refusal = |why| {
            let refusal = Refusal::of(&args, why);
            Err(refused(&refusal, |_| self.label().to_owned()))
        };
        let at = |places: Vec<usize>| places.into_iter().filter_map(|at| args.get(at).copied());
        if args.is_empty() {
            // The server would answer nothing, and all later answers would be others'.
            return refusal(Why::Malformed);
        }
        let found: Vec<&[u8]> = match rule(&args) {
            Rule::Keyed(places) => match keys_here(places, &args) {
                Ok(places) => at(places).collect(),
                Err(Why::Blocks) => return refusal(Why::Blocks),
                // The server has its own words for it.
                Err(_) => Vec::new(),
            },
            Rule::Split(_, step) => at((1..args.len()).step_by(step).collect()).collect(),
            Rule::Flush => {
                let spared = self.ring.spares_map_at(&self.node).await;
                spared.map_err(redis_error)?;
                Vec::new()
            }
            Rule::Refused(
                why @ (Why::OwnConnection | Why::Blocks | Why::Unseen | Why::OtherDatabases),
            ) => {
                return refusal(why);
            }
            Rule::EachNode | Rule::ScriptLoad | Rule::Refused(_) => Vec::new(),
        };
        let own: Result<()> = found.iter().try_for_each(|key| self.ring.spares(key));
        own.map_err(redis_error)?;
        Ok(found)
    }
}
