//! Making many keys nothing at once: a namespace, a tag, a whole server.

use futures_util::future::join_all;
use redis::{Value, cmd};

use super::command::integer;
use super::names::of_tag;
use super::node::Node;
use super::reclaim::{self, sweep};
use super::script::{CLEAR, CLEARED, invalidate};
use super::wipe::{is_final, is_reserved, wipe_tokens};
use crate::error::{ErrorKind, Result};
use crate::generation::random;

impl Node {
    /// Makes every key that begins with `prefix` nothing, but none that is to be spared. What could not be is removed, before
    /// the node counts as up again, unless it never will be.
    ///
    /// One step, whatever it covers: the generation of the namespace changes, and the space is taken back later. Values
    /// without marks are looked for first.
    pub(crate) async fn wipe(&self, prefix: &str) -> Result<()> {
        self.forget_namespace(prefix);
        let wiped = self.cleared(prefix).await;
        self.forget_namespace(prefix);
        if wiped
            .as_ref()
            .is_err_and(|error| error.kind() != ErrorKind::Busy && !is_final(error))
        {
            self.owe_all(prefix);
        }
        wiped
    }

    async fn cleared(&self, prefix: &str) -> Result<()> {
        let connection = &self.connections[0];
        // A value that is still on its way through another connection would come after its removal.
        let (ping, others) = (cmd("PING"), self.connections[1..].iter());
        let pings = others.map(|other| other.run::<Value>("ping", &ping));
        join_all(pings)
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let word = format!("c{:016x}", random());
        let look = CLEAR.run(connection, "clear", &[], |command| {
            command.arg(prefix).arg(&random().to_le_bytes()).arg(&word);
            command.arg(i32::from(connection.is_shared()));
        });
        if integer(&look.await?) != Some(0) {
            let chosen = |key: &[u8]| connection.may_wipe(key) && !is_reserved(key);
            // First, or what is computed at this moment would be stored behind the sweep.
            wipe_tokens(connection, prefix).await?;
            sweep(connection, prefix, Some(prefix.len()), chosen).await?;
            CLEARED
                .run(connection, "clear", &[], |command| {
                    command.arg(prefix).arg(&word);
                })
                .await?;
        }
        self.reclaim.after(reclaim::SOON, &self.connections, prefix);
        Ok(())
    }

    /// Makes every value with a tag nothing that a cache with this very prefix stored. If that fails it is owed, and until then
    /// they are nothing to this process.
    pub(crate) async fn invalidate(&self, namespace: &str, tag: &str) -> Result<()> {
        let name = of_tag(namespace, tag);
        self.marks.invalidate(&name);
        let connection = &self.connections[0];
        let debt = connection.owing_tag(namespace, tag);
        let told = invalidate(connection, namespace, tag).await;
        self.marks.invalidate(&name);
        match told {
            Ok(_) => {
                debt.settle();
                self.reclaim
                    .after(reclaim::SETTLE, &self.connections, namespace);
                Ok(())
            }
            Err(error) => {
                if is_final(&error) {
                    debt.settle();
                }
                Err(error)
            }
        }
    }

    /// A tag is owed an invalidation, as if one had failed.
    #[cfg(feature = "ring")]
    pub(crate) fn owe_tag(&self, namespace: &str, tag: &str) {
        self.marks.invalidate(&of_tag(namespace, tag));
        drop(self.connections[0].owing_tag(namespace, tag));
    }

    pub(super) fn owes_tag(&self, namespace: &str, tag: &str) -> bool {
        self.connections[0].owes_tag(namespace, tag)
    }

    /// Everything under `prefix` is removed before the node is used, or used again.
    pub(crate) fn owe_all(&self, prefix: &str) {
        self.connections
            .iter()
            .for_each(|connection| connection.owe_all(prefix));
    }

    /// Whether any of these keys is there.
    #[cfg(feature = "ring")]
    pub(crate) async fn holds_any(&self, keys: &[&str]) -> Result<bool> {
        let there: i64 = self.connections[0]
            .read("exists", cmd("EXISTS").arg(keys))
            .await?;
        Ok(there > 0)
    }

    /// Empties the node's database.
    #[cfg(feature = "ring")]
    pub(crate) async fn flush(&self) -> Result<()> {
        self.forget_namespace("");
        let flush = cmd("FLUSHDB").arg("ASYNC").to_owned();
        let flushed = self.connections[0].run::<Value>("flush", &flush).await;
        self.forget_namespace("");
        flushed.map(|_| ())
    }

    /// A key is owed a delete, as if one had failed.
    #[cfg(feature = "ring")]
    pub(crate) fn owe(&self, key: &str) {
        self.connection(key).owe([key]);
    }
}
