//! What a node still holds from before it owned a key: never a value of the key.

use redis::cmd;

use crate::codec::HEADER_BYTES;
use crate::entry::{Answer, Draft, Stored, When};
use crate::error::Result;
use crate::refusal::Refusal;
use crate::wire::node::Node;

use super::snapshot::Snapshot;
use super::store::DistributedRedis;

/// Removes a value that still has the header that was judged.
const UNLINK_IF: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, ARGV[2] - 1) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0
";

impl DistributedRedis {
    /// As [`judged`](Self::judged), by the map of now.
    pub(super) fn judged_now(&self, key: &str, answer: Answer) -> Answer {
        if self.follower.current.is_settled(self.epoch_of(&answer)) {
            return answer;
        }
        self.judged(&self.follower.current(), key, answer)
    }

    /// The epoch that an answer was written in; 0 for none.
    fn epoch_of(&self, answer: &Answer) -> u64 {
        let Some(entry) = &answer.entry else {
            return 0;
        };
        let bytes = entry.value().as_encoded();
        bytes
            .and_then(|bytes| self.core.format().ring_epoch(bytes))
            .unwrap_or_else(|| entry.ring_epoch())
    }

    /// The answer, unless it was written before its node took the key over. Without an epoch, nobody can tell.
    pub(super) fn judged(&self, snapshot: &Snapshot, key: &str, answer: Answer) -> Answer {
        let epoch = self.epoch_of(&answer);
        if epoch > snapshot.stated {
            self.follower.tell_of(epoch);
        }
        if !snapshot.outdates(key, epoch) {
            return answer;
        }
        self.core.refuse(key, Refusal::Epoch);
        Answer::refused(Refusal::Epoch)
    }

    /// The header of the value under a key, if that is too old to be the key's value. Asks only where it can be.
    pub(super) async fn leftover(
        &self,
        snapshot: &Snapshot,
        node: &Node,
        key: &str,
    ) -> Option<Vec<u8>> {
        // Epoch 1 is the first, and 0 is none.
        if snapshot.lineage.latest() <= 1 || snapshot.owned_since(key) <= 1 {
            return None;
        }
        let mut range = cmd("GETRANGE");
        range.arg(key).arg(0).arg(HEADER_BYTES - 1);
        // What is no string is no envelope, and whether the node answers is seen by what is asked besides.
        let header: Vec<u8> = node.connection(key).read("getrange", &range).await.ok()?;
        let epoch = self.core.format().ring_epoch(&header)?;
        if !snapshot.outdates(key, epoch) {
            return None;
        }
        self.core.refuse(key, Refusal::Epoch);
        Some(header)
    }

    /// Removes the value under a key if it is too old to be the key's value, and tells whether it did.
    pub(super) async fn remove_leftover(
        &self,
        snapshot: &Snapshot,
        node: &Node,
        key: &str,
    ) -> Result<bool> {
        let Some(header) = self.leftover(snapshot, node, key).await else {
            return Ok(false);
        };
        let mut eval = cmd("EVAL");
        eval.arg(UNLINK_IF).arg(1).arg(key);
        eval.arg(header).arg(HEADER_BYTES);
        let removed: i64 = node.connection(key).run("unlink", &eval).await?;
        Ok(removed > 0)
    }

    /// Stores a draft; one that may only be stored where nothing is, over a leftover too.
    pub(super) async fn store_over_leftover(
        &self,
        snapshot: &Snapshot,
        node: &Node,
        key: &str,
        draft: Draft,
    ) -> Result<Stored> {
        let stored = node.store(&self.core, key, &draft).await?;
        if stored == Stored::Present
            && draft.when == When::IfAbsent
            && self.remove_leftover(snapshot, node, key).await?
        {
            return node.store(&self.core, key, &draft).await;
        }
        Ok(stored)
    }
}
