//! All keys of the ring, node by node.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{Stream, unfold};
use redis::{FromRedisValue, RedisResult, ScanOptions, Value, cmd};

use super::node::NodeConnection;
use super::routed::{RingConnection, check};
use crate::ring::snapshot::Snapshot;

impl RingConnection {
    /// The keys of the ring, those of one node after the other, by `SCAN`: each at the node that it belongs to. What a node holds of
    /// others' keys, from before the map changed, is left out, and so is what Larder [reserves](crate::key::RESERVED).
    ///
    /// As of `SCAN`, a key that is there all the time is among them, one that comes or goes meanwhile may be, and one may come twice.
    ///
    /// ```no_run
    /// use futures_util::{StreamExt, pin_mut};
    /// use larder::redis::{RedisResult, ScanOptions};
    /// # async fn example(ring: larder::DistributedRedis) -> RedisResult<()> {
    /// let keys = ring.connection().scan_all::<String>(ScanOptions::default().with_pattern("user:*"));
    /// pin_mut!(keys);
    /// while let Some(key) = keys.next().await {
    ///     println!("{}", key?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// One for a node that cannot be read to its end; the others are read all the same. One for a key that is no `T`.
    pub fn scan_all<T: FromRedisValue + Send + 'static>(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = RedisResult<T>> + Send + use<T> {
        let scan = self.snapshot().map(|snapshot| Scan {
            nodes: (0..snapshot.node_count()).collect(),
            ring: self.clone(),
            snapshot,
            options,
            at: None,
            found: VecDeque::new(),
        });
        unfold(Some(scan), |scan| async move {
            match scan? {
                Ok(mut scan) => Some((scan.next().await?, Some(Ok(scan)))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// How far it came.
struct Scan<T> {
    ring: RingConnection,
    snapshot: Arc<Snapshot>,
    options: ScanOptions,
    nodes: VecDeque<usize>,
    /// The node that is read, by its index too, and the server's word for where.
    at: Option<(usize, NodeConnection, u64)>,
    found: VecDeque<RedisResult<T>>,
}

impl<T: FromRedisValue> Scan<T> {
    async fn next(&mut self) -> Option<RedisResult<T>> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            if let Err(error) = self.read().await? {
                self.at = None;
                return Some(Err(error));
            }
        }
    }

    /// The next answer of the node that is read, or of the next one; nothing where there is no other.
    async fn read(&mut self) -> Option<RedisResult<()>> {
        let (node, connection, cursor) = match self.at.take() {
            Some(at) => at,
            None => {
                let node = self.nodes.pop_front()?;
                match self.ring.node_at(&self.snapshot, node) {
                    Ok(connection) => (node, connection, 0),
                    Err(error) => return Some(Err(error)),
                }
            }
        };
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg(&self.options);
        let answer = connection.command(&scan).await;
        let answer = answer.and_then(|value| value.extract_error());
        let answer = answer.and_then(|value| Ok(redis::from_redis_value(value)?));
        let (cursor, keys): (u64, Vec<Vec<u8>>) = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        let own = |key: &Vec<u8>| {
            check(key).is_ok() && self.snapshot.owner_of(key).is_ok_and(|owner| owner == node)
        };
        let keys = keys.into_iter().filter(own).map(Value::BulkString);
        let keys = keys.map(|key| redis::from_redis_value(key).map_err(Into::into));
        self.found = keys.collect();
        self.at = (cursor != 0).then_some((node, connection, cursor));
        Some(Ok(()))
    }
}
