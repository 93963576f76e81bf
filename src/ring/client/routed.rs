//! Each command to the node of its key.

use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value};

use super::api::{args_of, commands_of, in_place, lent, of_transaction, redis_error, refused};
use super::node::NodeConnection;
use super::plan::{Lane, Plan, Route, Spot, route};
use super::refusal::Refusal;
use crate::commands::{Rule, Why, rule};
use crate::core::MAX_WAIT;
use crate::error::{Error, ErrorKind, Result};
use crate::key::RESERVED;
use crate::ring::snapshot::Snapshot;
use crate::ring::store::DistributedRedis;
use crate::ringmap::label;
use crate::wire::raw::Raw;
use crate::wire::reply::may_be_done;

/// The whole ring as one connection of [redis-rs](redis): each command goes to the node of its key, and so all of
/// [`redis::AsyncCommands`], [`redis::cmd`], [`redis::pipe`] and [`redis::Script`] work over it. Made by
/// [`DistributedRedis::connection`]; a clone is another handle on the same connections, which are the cache's own.
///
/// ```no_run
/// use larder::{DistributedRedis, redis};
/// use redis::AsyncCommands;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let ring = DistributedRedis::connect("redis://127.0.0.1:6379/13").await?;
/// let mut redis = ring.connection();
/// let _: () = redis.hset("user:42", "name", "Ada").await?;
/// let score: f64 = redis.zincr("scores", "Ada", 1.5).await?;
/// let both: (Option<String>, i64) = redis::pipe()
///     .hget("user:42", "name")
///     .incr("visits", 1)
///     .query_async(&mut redis)
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # What goes where
///
/// * A command with keys on one node goes there, whatever it is: hashes, lists, sets, streams, scripts with their `KEYS`.
/// * `MGET`, `MSET`, `DEL`, `UNLINK`, `EXISTS` and `TOUCH` are parted by node, all nodes at once, and their answers put together. `MSET`
///   is not atomic then, nor where there are several connections to a node.
/// * Pipelines are parted by node too, and the answers are in the order of the commands. An [atomic](redis::Pipeline::atomic) one goes to
///   one node whole, or is refused.
/// * `PUBLISH` goes to the node of its channel: subscribe there, by [`DistributedRedis::client_for`].
/// * `SCRIPT LOAD`, by which [`redis::Script`] works, goes to all nodes.
/// * [`on_each_node`](Self::on_each_node) asks all nodes: `DBSIZE`, `INFO`, `PING`, `FLUSHDB`. [`scan_all`](Self::scan_all) reads all keys.
///
/// # Refused
///
/// Before anything is sent, with what to do instead: keys on different nodes; commands without a key; those that change the
/// connection, which is shared (`SUBSCRIBE`, `WATCH`, `SELECT`, `MULTI` by hand), or wait on it (`BLPOP`); those of Redis Cluster;
/// and those whose keys nobody knows. Keys that Larder [reserves](crate::key::RESERVED) are refused too.
///
/// # Errors
///
/// As redis-rs has them. A node that is down or does not answer in time is an I/O error; of a pipeline over several nodes, where others did
/// answer, it is an error of the code `NODEDOWN`, `NODELOST` or `NODETIMEOUT` in the place of each of its commands, to be seen by
/// [`ignore_errors`](redis::Pipeline::ignore_errors). Nothing is sent twice. After a timeout, or where the connection broke (`ConnectionReset`,
/// `NODELOST`), it may have been carried out; and of a command that was parted, what other nodes were to do is done.
///
/// # Beside the cache
///
/// These are commands of anybody's, and what they write is nobody's entry:
///
/// * Memory of this process and others hears of them from the server. But a value that is computed meanwhile is stored all the same: to invalidate, use
///   [`Cache::delete`](crate::Cache::delete).
/// * While the map changes, a key that moves to another node leaves its value behind; and who subscribed at the former node of a
///   channel hears nothing more.
/// * [`clear`](crate::Cache::clear) of a cache without a prefix may take them too, lists and hashes as well: choose another prefix for the
///   cache.
///
/// # Cancellation
///
/// A command that was sent is carried out, though nobody waits for its answer.
#[derive(Clone, Debug)]
pub struct RingConnection {
    ring: DistributedRedis,
    bound: Option<Duration>,
}

impl RingConnection {
    pub(super) fn new(ring: DistributedRedis) -> Self {
        Self { ring, bound: None }
    }

    /// Waits so long for an answer, rather than the cache's
    /// [`operation_timeout`](crate::DistributedRedisBuilder::operation_timeout): for scripts and commands over much data. A server does nothing
    /// else meanwhile, and one that takes longer than its `PING`s may is taken for dead. A day at most.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.bound = Some(timeout.min(MAX_WAIT));
        self
    }

    /// Asks every node of the map, all at once, and answers what each said, by its `host:port/db`: `DBSIZE`, `INFO`, `PING`, `CONFIG GET`,
    /// `FLUSHDB`, `SCRIPT FLUSH` and others without a key.
    ///
    /// ```no_run
    /// # async fn example(ring: larder::DistributedRedis) -> larder::redis::RedisResult<()> {
    /// for (node, keys) in ring.connection().on_each_node::<u64>(&larder::redis::cmd("DBSIZE")).await? {
    ///     println!("{node}: {keys:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of a node stand in its place. Nothing is sent of a command that has keys, or is refused anyway; nor of
    /// `FLUSHDB` where the ring's own map is in a node's database, or where that cannot be told of one of them.
    pub async fn on_each_node<T: FromRedisValue>(
        &self,
        cmd: &Cmd,
    ) -> RedisResult<Vec<(String, RedisResult<T>)>> {
        let snapshot = self.snapshot()?;
        let args = args_of(lent(cmd));
        let why = match rule(&args) {
            Rule::EachNode | Rule::ScriptLoad => None,
            Rule::Flush => self
                .ring
                .spares_map(&snapshot)
                .await
                .map_or_else(|error| Some(Refusal::Nowhere(error)), |()| None),
            Rule::Keyed(_) | Rule::Split(..) => Some(Refusal::of(&args, Why::HasKeys)),
            Rule::Refused(why) => Some(Refusal::of(&args, why)),
        };
        if let Some(refusal) = why {
            return Err(refused(&refusal, |node| label_of(&snapshot, node)));
        }
        let asked = (0..snapshot.node_count()).map(|node| {
            let snapshot = &snapshot;
            async move {
                let answer = self.ask(snapshot, (node, 0), &[], Raw::One(cmd)).await;
                (label_of(snapshot, node), typed(answer))
            }
        });
        Ok(join_all(asked).await)
    }

    pub(super) async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let snapshot = self.snapshot()?;
        let locate = |key: &[u8]| locate(&snapshot, key);
        let refusal = |refusal: Refusal| refused(&refusal, |node| label_of(&snapshot, node));
        let answer = match route(lent(cmd), &locate) {
            Ok(Route::Whole(way)) => {
                let answers = self.ask(&snapshot, way.spot, &way.keys, Raw::One(cmd));
                answers.await.map(|mut answers| answers.pop())
            }
            Ok(Route::Parts(split)) => {
                let mut plan = Plan::default();
                plan.add_parts(lent(cmd), split, &locate).map_err(refusal)?;
                let answers = self.lanes(&snapshot, &plan).await;
                plan.joined(answers).pop().transpose()
            }
            // By itself it is.
            Err(Refusal::Alone { .. }) => return self.load(cmd).await,
            Err(why) => return Err(refusal(why)),
        };
        let answer = answer.map_err(redis_error)?;
        Ok(answer.unwrap_or(Value::Nil))
    }

    /// A script is known once any node has it: the others, which may be down, are told when it is to run there.
    async fn load(&self, cmd: &Cmd) -> RedisResult<Value> {
        let answers = self.on_each_node::<Value>(cmd).await?;
        let mut answers = answers.into_iter().map(|(_, answer)| answer);
        let first = answers.next().unwrap_or(Ok(Value::Nil));
        match first {
            Ok(hash) => Ok(hash),
            Err(error) => answers.find_map(RedisResult::ok).ok_or(error),
        }
    }

    pub(super) async fn commands(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let is_atomic = pipeline.is_transaction();
        if pipeline.is_empty() {
            let nothing = is_atomic.then(|| Value::Array(Vec::new()));
            return Ok(nothing.into_iter().collect());
        }
        let snapshot = self.snapshot()?;
        let refusal = |refusal: Refusal| refused(&refusal, |node| label_of(&snapshot, node));
        let mut plan = Plan::default();
        for cmd in commands_of(pipeline) {
            plan.add(cmd, &|key| locate(&snapshot, key))
                .map_err(refusal)?;
        }
        let plan = plan.in_order(is_atomic);
        if is_atomic {
            let [lane] = plan.lanes.as_slice() else {
                return Err(refusal(Refusal::Torn));
            };
            let raw = Raw::Many(pipeline);
            let replies = self.ask(&snapshot, lane.spot, &lane.keys, raw).await;
            return of_transaction(replies.map_err(redis_error)?);
        }
        if let [lane] = plan.lanes.as_slice()
            && plan.is_one_way()
        {
            let raw = Raw::Many(pipeline);
            let answers = self.ask(&snapshot, lane.spot, &lane.keys, raw).await;
            return answers.map_err(redis_error);
        }
        let answers = self.lanes(&snapshot, &plan).await;
        // Where nobody answered, that is all there is to say.
        let failed = answers.iter().filter_map(|answer| answer.as_ref().err());
        if failed.clone().count() == answers.len() {
            // Rather that something may have been done than that nothing was.
            let worst = failed.clone().find(|error| may_be_done(error));
            if let Some(error) = worst.or(failed.clone().next()) {
                return Err(redis_error(error.clone()));
            }
        }
        let answers = plan.joined(answers).into_iter();
        Ok(answers
            .map(|answer| answer.unwrap_or_else(|error| in_place(&error)))
            .collect())
    }

    async fn lanes(&self, snapshot: &Snapshot, plan: &Plan<'_>) -> Vec<Result<Vec<Value>>> {
        let lanes = plan.lanes.iter().map(|lane| self.lane(snapshot, lane));
        join_all(lanes).await
    }

    async fn lane(&self, snapshot: &Snapshot, lane: &Lane<'_>) -> Result<Vec<Value>> {
        if let [sent] = lane.sent.as_slice() {
            let raw = Raw::One(&sent.cmd);
            return self.ask(snapshot, lane.spot, &lane.keys, raw).await;
        }
        let mut pipeline = Pipeline::new();
        for sent in &lane.sent {
            pipeline.add_command(sent.cmd.clone().into_owned());
        }
        let raw = Raw::Many(&pipeline);
        self.ask(snapshot, lane.spot, &lane.keys, raw).await
    }

    async fn ask(
        &self,
        snapshot: &Snapshot,
        (node, place): Spot,
        keys: &[&[u8]],
        raw: Raw<'_>,
    ) -> Result<Vec<Value>> {
        let node = snapshot.node(node)?;
        node.send(place, keys, raw, self.bound).await
    }

    pub(super) fn snapshot(&self) -> RedisResult<std::sync::Arc<Snapshot>> {
        let snapshot = self.ring.snapshot();
        if snapshot.ring.is_empty() {
            let none = Error::new(ErrorKind::Unavailable, "the ring has no nodes yet");
            return Err(redis_error(none));
        }
        Ok(snapshot)
    }

    /// A node by its index, with the same patience.
    pub(super) fn node_at(&self, snapshot: &Snapshot, node: usize) -> RedisResult<NodeConnection> {
        let node = snapshot.node(node).map_err(redis_error)?.clone();
        Ok(NodeConnection::new(self.ring.clone(), node, 0).bounded(self.bound))
    }
}

/// Where a key is.
fn locate(snapshot: &Snapshot, key: &[u8]) -> Result<Spot, Refusal> {
    check(key).map_err(Refusal::Nowhere)?;
    let owner = snapshot.owner_of(key).map_err(Refusal::Nowhere)?;
    let place = snapshot.node(owner).map_or(0, |node| node.place_of(key));
    Ok((owner, place))
}

/// Refuses a key that is Larder's own.
pub(super) fn check(key: &[u8]) -> Result<()> {
    let is_reserved = |prefix: &&&str| key.starts_with(prefix.as_bytes());
    match RESERVED.iter().find(is_reserved) {
        Some(prefix) => {
            let why = "keys that begin with lk:, __larder or HASH_RING are reserved";
            Err(Error::new(ErrorKind::Key, why).with("begins", prefix))
        }
        None => Ok(()),
    }
}

pub(super) fn label_of(snapshot: &Snapshot, node: usize) -> String {
    let url = snapshot.ring.nodes().get(node);
    url.map_or_else(|| "?".to_owned(), |url| label(url))
}

/// One answer, as the type that is asked for.
pub(super) fn typed<T: FromRedisValue>(answer: Result<Vec<Value>>) -> RedisResult<T> {
    let value = answer.map_err(redis_error)?.pop().unwrap_or(Value::Nil);
    Ok(redis::from_redis_value(value.extract_error()?)?)
}
