//! Changes of a ring: read, decide, and write, all of it or nothing.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{Cluster, Form};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::registry::{Registry, is_stale};

/// How often a change is tried, where others change things at the same time.
const TRIES: usize = 16;

/// How often a map that is gone is looked at before it is taken for gone: the Python server deletes it before it writes another.
const LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Whoever changes a ring.
#[derive(Clone)]
pub(super) struct Controller {
    pub(super) registry: Registry,
    pub(super) form: Form,
}

/// What a change came to.
pub(super) struct Done {
    pub(super) cluster: Cluster,
    pub(super) epoch: u64,
}

impl Controller {
    /// Keys that stand even where everything else of a database goes.
    pub(super) fn spared(&self) -> Vec<&str> {
        self.registry.spared()
    }

    /// The ring as it stands.
    ///
    /// # Errors
    ///
    /// Those of [`Registry::read`] and [`Cluster::of`].
    pub(super) async fn look(&self) -> Result<Cluster> {
        let mut looks = 0;
        loop {
            let found = self.registry.read().await?;
            looks += 1;
            if looks == LOOKS || !Cluster::is_lost(&found) {
                return Cluster::of(found, self.form);
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Makes a change of the ring as it stands; again where somebody else was faster.
    ///
    /// # Errors
    ///
    /// Those of [`look`](Self::look), of `change`, and of [`Registry::commit`].
    ///
    /// # Cancellation
    ///
    /// Dropped, all of it is done or nothing.
    pub(super) async fn apply(
        &self,
        lease: Option<&str>,
        mut change: impl FnMut(&mut Cluster) -> Result<()> + Send,
    ) -> Result<Done> {
        let mut tried = 1;
        loop {
            let mut cluster = self.look().await?;
            let epoch = cluster.epoch().parse().unwrap_or(0);
            change(&mut cluster)?;
            let Some(written) = cluster.change(lease)? else {
                return Ok(Done { cluster, epoch });
            };
            match self.registry.commit(cluster.found(), &written).await {
                Ok(epoch) => return Ok(Done { cluster, epoch }),
                Err(error) if is_stale(&error) && tried < TRIES => tried += 1,
                Err(error) if is_stale(&error) => return Err(busy(&error)),
                Err(error) => return Err(error),
            }
        }
    }
}

fn busy(error: &Error) -> Error {
    let why = "others change the ring all the time";
    Error::new(ErrorKind::Busy, why).caused_by(error.clone())
}
