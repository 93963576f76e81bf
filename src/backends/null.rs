//! A store that holds nothing.

use async_trait::async_trait;

use crate::backend::{Backend, Peek};
use crate::coherence::Origin;
use crate::core::{Core, Settings};
use crate::entry::{Answer, Draft, Stored, Want};
use crate::error::Result;

/// A store that holds nothing: every read is a miss. To switch caching off, and in tests.
///
/// `get_or_set` still computes each key once for all who ask at the same time.
#[derive(Clone, Debug, Default)]
pub struct Null {
    core: Core,
}

impl Null {
    /// A store that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with other settings.
    #[must_use]
    pub fn with(settings: Settings) -> Self {
        Self {
            core: Core::new(settings),
        }
    }
}

#[async_trait]
impl Backend for Null {
    fn core(&self) -> &Core {
        &self.core
    }

    fn peek(&self, _key: &str) -> Peek {
        Peek::Miss
    }

    fn origin(&self, _key: &str) -> Origin {
        Origin::OWN
    }

    fn keeps_tags(&self) -> bool {
        true
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
        self.core.tags().invalidate(prefix, tag);
        Ok(())
    }

    async fn fetch(&self, _key: &str, _want: Want) -> Result<Answer> {
        Ok(Answer::default())
    }

    async fn store(&self, _key: &str, _draft: Draft) -> Result<Stored> {
        Ok(Stored::Done)
    }

    async fn remove(&self, _key: &str) -> Result<bool> {
        Ok(false)
    }

    async fn wipe(&self, _prefix: &str) -> Result<()> {
        Ok(())
    }

    async fn retime(&self, _key: &str, _ttl: Option<std::time::Duration>) -> Result<bool> {
        Ok(false)
    }

    async fn add_to(&self, _key: &str, by: i64, _namespace: usize) -> Result<i64> {
        Ok(by)
    }
}
