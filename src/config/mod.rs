//! Caches that are described: by a url, by a table of a configuration file, or by the environment.

#[cfg(feature = "ring")]
mod env;
mod open;
mod parameters;
mod table;
mod url;

use std::fmt;
use std::str::FromStr;

use self::parameters::Parameters;
use crate::backend::SharedCache;
use crate::error::{Error, ErrorKind, Result};

pub use self::open::open;

/// What describes a cache: read from a url, as [`open`](fn@open) has it, or by serde from a configuration file, where it is such a url or a
/// table. Both have the same kinds, nesting and parameters.
///
/// ```
/// # #[cfg(all(feature = "moka", feature = "ring"))] {
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     cache: larder::Config,
/// }
///
/// let table = r#"{ "cache": {
///     "kind": "tiered",
///     "l1": { "kind": "moka", "max": 100000 },
///     "l2": {
///         "kind": "ring",
///         "manager": "redis://10.0.0.1:6379/13",
///         "password_file": "/run/secrets/manager",
///         "nodes": { "10.0.0.7:6379/0": { "user": "cache", "password_env": "NODE_7" } },
///         "ttl": 600
///     }
/// } }"#;
/// let by_table: Settings = serde_json::from_str(table).unwrap();
/// let by_url: Settings = serde_json::from_str(r#"{ "cache": "tiered:moka://?max=100000,redis://10.0.0.1/0" }"#).unwrap();
/// # let _ = (by_table.cache, by_url.cache);
/// # }
/// ```
///
/// | in a url | in a table |
/// |---|---|
/// | `moka://?max=100000` | `kind = "moka"`, `max = 100000` |
/// | `redis://host:6379/0?timeout_ms=100` | `kind = "redis"`, `url = "redis://host:6379/0"`, `timeout_ms = 100` |
/// | `ring://host:6379/13` | `kind = "ring"`, `manager = "redis://host:6379/13"` |
/// | `tiered?l1_ttl=60:L1,L2` | `kind = "tiered"`, `l1_ttl = 60`, `l1`, `l2`: each a url or a table |
/// | `prefixed:app:,URL` | `kind = "prefixed"`, `prefix = "app:"`, `cache`: a url or a table |
///
/// In a table values are as they are, and not percent-encoded. The passwords of single nodes are in a table alone: `nodes`, by `host:port/db`.
///
/// What is wrong with one is told by [`check`](Self::check) and [`open`](Self::open), by name, and nothing is repeated that may be a password. Reading one
/// from a file does not fail for it: what reads files may show the line that is wrong, password and all. `Debug` shows kinds and names.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    kind: Kind,
    /// Where the server or the manager is.
    address: Option<String>,
    parameters: Parameters,
    /// What it is made of, by name.
    inner: Vec<(&'static str, Config)>,
    /// What lets in at single nodes.
    nodes: Vec<(String, Parameters)>,
    /// What is wrong with it: told by those who use it, since what reads files may show the line.
    fault: Option<Fault>,
}

/// An error, which is another where it says something else.
#[derive(Clone)]
struct Fault(Error);

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Fault {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Moka,
    Redis,
    Ring,
    Tiered,
    Prefixed,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "moka" => Self::Moka,
            "redis" => Self::Redis,
            "ring" => Self::Ring,
            "tiered" => Self::Tiered,
            "prefixed" => Self::Prefixed,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Moka => "moka",
            Self::Redis => "redis",
            Self::Ring => "ring",
            Self::Tiered => "tiered",
            Self::Prefixed => "prefixed",
        }
    }
}

impl Config {
    /// Reads a url, as [`open`](fn@open) has them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with the part that is wrong.
    pub fn parse(url: &str) -> Result<Self> {
        let config = url::parsed(url.trim(), 0)?;
        config.prepared(0)?;
        Ok(config)
    }

    /// Looks at all of it, and opens nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with what is wrong, by name.
    pub fn check(&self) -> Result<()> {
        self.prepared(0).map(|_| ())
    }

    /// Opens the cache.
    ///
    /// # Errors
    ///
    /// Whatever connecting to its stores may answer; [`ErrorKind::Config`] if the crate was built without one's feature.
    pub async fn open(&self) -> Result<SharedCache> {
        let opened = async { self.prepared(0)?.opened().await };
        opened.await.map_err(|error| error.during("open"))
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            address: None,
            parameters: Parameters::default(),
            inner: Vec::new(),
            nodes: Vec::new(),
            fault: None,
        }
    }

    /// One with which something is wrong.
    fn faulty(fault: Error) -> Self {
        Self {
            fault: Some(Fault(fault)),
            ..Self::of(Kind::Null)
        }
    }
}

impl FromStr for Config {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::parse(url)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Config");
        if let Some(Fault(error)) = &self.fault {
            return shown.field("fault", error).finish_non_exhaustive();
        }
        shown.field("kind", &self.kind.name());
        shown.field("parameters", &self.parameters.names());
        for (name, inner) in &self.inner {
            shown.field(name, inner);
        }
        shown.finish_non_exhaustive()
    }
}

fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::Config, why)
}

#[cfg(all(test, feature = "moka", feature = "ring"))]
mod tests;
