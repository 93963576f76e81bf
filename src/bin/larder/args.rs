//! What the program is told by its arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Looks after a ring of Redis nodes: keeps its map, and changes and shows it.
#[derive(Parser)]
#[command(name = "larder", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) to: To,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the ring is.
#[derive(Args, Clone)]
pub(crate) struct To {
    /// The manager Redis: redis://host:port/db, or the url of sentinels [env: LARDER_REDIS]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// A manager, asked by HTTP instead [env: LARDER_API, where LARDER_REDIS is not set]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "redis")]
    pub(crate) api: Option<String>,
    /// A file with the token that a manager asks for
    #[arg(long, global = true, value_name = "FILE", env = "LARDER_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A file with the password of the manager Redis
    #[arg(long, global = true, value_name = "FILE", env = "LARDER_PASSWORD_FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The key of the map [default: HASH_RING_MAP]
    #[arg(long, global = true, value_name = "KEY", env = "LARDER_MAP")]
    pub(crate) map: Option<String>,
    /// Answers in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl To {
    /// The manager Redis, if one was named: by an argument, or by the environment where no manager was.
    pub(crate) fn redis(&self) -> Option<String> {
        match &self.api {
            Some(_) => None,
            None => self.redis.clone().or_else(|| variable("LARDER_REDIS")),
        }
    }

    /// The manager that is to be asked.
    pub(crate) fn api(&self) -> Option<String> {
        match self.redis() {
            Some(_) => None,
            None => self.api.clone().or_else(|| variable("LARDER_API")),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|url| !url.is_empty())
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Keeps the map: nodes are watched, taken off the ring when they fail and put back when they are well
    Manager(Box<Manager>),
    /// The nodes of the ring
    #[command(subcommand)]
    Node(Node),
    /// The map of the ring
    #[command(subcommand)]
    Ring(Ring),
    /// What happened, the latest first
    Events {
        /// Only what happened after the event of this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// So many at most
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// Prints the value of a key
    Get { key: String },
    /// Writes a text under a key, to be read by anybody
    Set {
        key: String,
        value: String,
        /// For so many seconds; for ever unless said
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
    },
    /// Removes keys
    Del {
        #[arg(required = true)]
        keys: Vec<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Node {
    /// Puts a node on the ring
    Add {
        /// redis://host:port/db
        url: String,
        /// A file with its password, which others on this machine could read among the arguments
        #[arg(long, value_name = "FILE")]
        node_password_file: Option<PathBuf>,
    },
    /// Takes a node off the ring for good
    Remove {
        /// host:port/db
        node: String,
        /// It may be the last one
        #[arg(long)]
        last: bool,
    },
    /// Shows them
    List,
    /// Asks each whether it can be used: by HTTP, the manager acts on it; else it is only shown
    Check,
    /// Takes a node's keys away step by step, while a manager runs
    Drain {
        /// host:port/db
        node: String,
        /// In so many steps
        #[arg(long, default_value_t = 10)]
        steps: u32,
    },
}

#[derive(Subcommand)]
pub(crate) enum Ring {
    /// Its form
    Show,
    /// The nodes of keys, as readers find them; of those that are read, a line each, for -
    Where {
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Which keys a change would move
    Preview {
        #[command(flatten)]
        plan: Plan,
    },
    /// What is wrong with the map; 3 is the exit code where readers suffer from something
    Verify,
    /// Chooses all positions anew: nearly all keys may move
    Rebuild {
        /// How positions are chosen, of a ring in --redis
        #[arg(long, value_enum)]
        labels: Option<Labels>,
        /// Positions of each node
        #[arg(long)]
        vnodes: Option<usize>,
        /// That it is meant
        #[arg(long)]
        yes: bool,
    },
}

/// A change that is tried out.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Plan {
    /// That a node is added
    #[arg(long, value_name = "URL")]
    pub(crate) add: Option<String>,
    /// That a node is removed
    #[arg(long, value_name = "NODE")]
    pub(crate) remove: Option<String>,
    /// That a node is drained
    #[arg(long, value_name = "NODE")]
    pub(crate) drain: Option<String>,
    /// That all positions are chosen anew
    #[arg(long)]
    pub(crate) rebuild: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Labels {
    /// One node after the other, so that all have about the same
    Balanced,
    /// By hashes of the nodes' names
    Xxh3,
    /// As the Python server does
    Crc32,
}

impl From<Labels> for larder::manager::Labels {
    fn from(labels: Labels) -> Self {
        match labels {
            Labels::Balanced => Self::Balanced,
            Labels::Xxh3 => Self::Xxh3,
            Labels::Crc32 => Self::Crc32,
        }
    }
}

/// Settings of a manager. These and others may stand in the file; an argument counts more than the environment, and that more than the file.
#[derive(Args)]
pub(crate) struct Manager {
    /// Where it listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "LARDER_MANAGER_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Settings in TOML, or the Python server's in YAML
    #[arg(long, value_name = "FILE", env = "LARDER_MANAGER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Says what all settings come to, and ends: nothing is listened at, and nobody asked
    #[arg(long)]
    pub(crate) check: bool,
    /// How positions are chosen: as the map has it unless said, and balanced for a new one
    #[arg(long, value_enum, env = "LARDER_MANAGER_LABELS")]
    pub(crate) labels: Option<Labels>,
    /// Positions of each node: as the map has it unless said, and 160 for a new one
    #[arg(long, env = "LARDER_MANAGER_VNODES")]
    pub(crate) vnodes: Option<usize>,
    /// A name by which it is called; those of a loopback address unless said, elsewhere any
    #[arg(
        long = "host",
        value_name = "NAME",
        env = "LARDER_MANAGER_HOSTS",
        value_delimiter = ','
    )]
    pub(crate) hosts: Vec<String>,
    /// A network in which nodes may be: 10.0.0.0/8
    #[arg(
        long,
        value_name = "NETWORK",
        env = "LARDER_MANAGER_ALLOW",
        value_delimiter = ','
    )]
    pub(crate) allow: Vec<String>,
    /// Seconds between two probes of a node that is well [default: 10]
    #[arg(long, value_name = "SECONDS", env = "LARDER_MANAGER_INTERVAL")]
    pub(crate) interval: Option<f64>,
    /// Seconds for which a node fails before it is taken off [default: 30]
    #[arg(long, value_name = "SECONDS", env = "LARDER_MANAGER_REMOVE_AFTER")]
    pub(crate) remove_after: Option<f64>,
    /// Nodes that stay on the ring whatever they do [default: 1]
    #[arg(long, value_name = "NODES", env = "LARDER_MANAGER_MIN_NODES")]
    pub(crate) min_nodes: Option<usize>,
}
