//! The settings of the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backends::redis::{bound, connection_methods};
use crate::core::{Core, Settings, setting_methods};
use crate::error::Result;
use crate::ringmap::Order;
use crate::wire::{Connection, ConnectionSettings, Login, Logins, Target};

use super::follow::{Follower, MapSettings};
use super::keys::MapKeys;
use super::map::{Bounds, Rules};
use super::signals::Signals;
use super::store::DistributedRedis;

impl DistributedRedis {
    /// Connects to the ring whose map the manager at `redis://[user[:password]@]host[:port][/db]` holds.
    ///
    /// # Errors
    ///
    /// As [`DistributedRedisBuilder::connect`].
    pub async fn connect(manager_url: &str) -> Result<Self> {
        Self::builder(manager_url).connect().await
    }

    /// Settings first.
    pub fn builder(manager_url: &str) -> DistributedRedisBuilder {
        DistributedRedisBuilder::new(manager_url)
    }
}

/// Settings of a [`DistributedRedis`].
#[derive(Debug)]
#[must_use]
pub struct DistributedRedisBuilder {
    manager: Result<Target>,
    settings: Settings,
    map: MapSettings,
    map_name: Option<String>,
    manager_login: Option<Login>,
}

impl DistributedRedisBuilder {
    pub(super) fn new(manager_url: &str) -> Self {
        Self {
            manager: Target::parse(manager_url),
            settings: Settings::default(),
            map: MapSettings {
                keys: MapKeys::default(),
                rules: Rules {
                    order: Order::Auto,
                    hash_tags: None,
                    bounds: Bounds {
                        fields: 500_000,
                        nodes: 4096,
                    },
                },
                poll_interval: Duration::from_millis(500),
                snapshot_file: None,
                start_without_map: false,
                nodes: ConnectionSettings::default(),
            },
            map_name: None,
            manager_login: None,
        }
    }

    setting_methods!(settings);
    connection_methods!(map.nodes);

    /// Sets the key of the map in the manager, for several rings with one manager. `HASH_RING_MAP` unless set.
    ///
    /// Its epoch and history stand beside it: `HASH_RING_cart_MAP` has `HASH_RING_cart_META` and
    /// `HASH_RING_cart_HISTORY`; a name without `_MAP` at its end has `_META` and `_HISTORY` appended. Names that begin
    /// with `HASH_RING` are the better ones: no key of a cache is called so (of other names, this store refuses the three), and no `clear` of another ring or cache
    /// takes them away where the manager's database is a node's too.
    ///
    /// ```no_run
    /// # async fn example() -> larder::Result<()> {
    /// use larder::DistributedRedis;
    /// use larder::ring::{Publication, publish};
    ///
    /// let manager = "redis://127.0.0.1:6379/13";
    /// let nodes = ["redis://127.0.0.1:7001/0", "redis://127.0.0.1:7002/0"];
    /// publish(manager, &Publication::of_nodes(&nodes, 160).in_map("HASH_RING_cart_MAP")).await?;
    /// let carts = DistributedRedis::builder(manager).map_name("HASH_RING_cart_MAP").connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_name(mut self, name: impl Into<String>) -> Self {
        self.map_name = Some(name.into());
        self
    }

    /// Says where the manager's password is, if its url names none. [`login`](Self::login) is for nodes.
    pub fn manager_login(mut self, login: Login) -> Self {
        self.manager_login = Some(login);
        self
    }

    /// Sets by which rule the map is read. [`Order::Auto`] unless set: what the map says, else numeric with one warning.
    pub fn order(mut self, order: Order) -> Self {
        self.map.rules.order = order;
        self
    }

    /// Places keys by their [hash tags](crate::ring::hash_tag), or not, so that `{user:42}:name` and `{user:42}:mail` are on one node: for commands over
    /// several keys, and transactions. As the map has it unless set ([`Publication::hash_tags`](crate::ring::Publication::hash_tags)), and off where that says nothing, since the Python
    /// SDK hashes whole keys. One that says otherwise is refused, as for [`order`](Self::order).
    ///
    /// To be chosen before a ring is used: keys with braces are elsewhere then, and what was cached under them is as good as gone.
    pub fn hash_tags(mut self, tags: bool) -> Self {
        self.map.rules.hash_tags = Some(tags);
        self
    }

    /// Sets how often the map is read. 500 ms unless set; 10 ms at least. Where the manager's pushes are heard, ten
    /// times that, as a safety net.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.map.poll_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Sets how many fields a map may have before it counts as absurd. 500,000 unless set.
    pub fn max_map_fields(mut self, fields: usize) -> Self {
        self.map.rules.bounds.fields = fields;
        self
    }

    /// Sets how many nodes a map may have before it counts as absurd: each of them is connected to. 4,096 unless set.
    pub fn max_nodes(mut self, nodes: usize) -> Self {
        self.map.rules.bounds.nodes = nodes;
        self
    }

    /// Starts even if there is no map or no manager: all keys are misses until there is one.
    pub fn start_without_map(mut self, start: bool) -> Self {
        self.map.start_without_map = start;
        self
    }

    /// Saves each good map in this file, and starts from it where the manager gives no good one. The file holds the
    /// nodes' passwords; it is readable by its owner alone. It is written aside, and read for a second at most.
    pub fn snapshot(mut self, path: impl Into<PathBuf>) -> Self {
        self.map.snapshot_file = Some(path.into());
        self
    }

    /// Whether the url and the map's name were understood.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(name) = &self.map_name {
            MapKeys::named(name)?;
        }
        self.map.nodes.logins.check()?;
        self.manager.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// The store, once it has a map.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the url or the map's name is wrong, the map is unusable, or it is to be read in another order than was
    /// chosen, or with hash tags where that was not; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if there is no map or no manager, unless
    /// [`start_without_map`](Self::start_without_map) or [`snapshot`](Self::snapshot) allow for it. Nodes may be down.
    pub async fn connect(mut self) -> Result<DistributedRedis> {
        self.check().map_err(|error| error.during("connect"))?;
        if let Some(name) = &self.map_name {
            self.map.keys = MapKeys::named(name).map_err(|error| error.during("connect"))?;
        }
        bound(&mut self.settings, &mut self.map.nodes);
        // Where the manager's database is a node's too, the map stays.
        self.map.nodes.spared = self.map.keys.kept().map(str::to_owned).to_vec();
        let signals = Arc::new(Signals::default());
        let logins = match self.manager_login {
            Some(login) => Logins::of_all(login),
            None => self.map.nodes.logins.of_places(),
        };
        let manager = ConnectionSettings {
            // A large map takes a while; nobody waits for it but the follower.
            operation_timeout: Duration::from_secs(5).max(self.map.nodes.operation_timeout),
            // But one that answers no longer is noticed as soon as a node would be.
            ping_timeout: Duration::from_millis(500).max(self.map.nodes.ping_timeout),
            // An entry of the history is a whole map, whatever the bound on values.
            max_reply_bytes: self
                .map
                .rules
                .bounds
                .fields
                .saturating_mul(64)
                .max(64 << 10),
            connections: 1,
            logins,
            listener: Some(signals.listener(&self.map.keys)),
            ..self.map.nodes.clone()
        };
        let core = Core::new(self.settings).bounding_reads(true);
        self.map.nodes.fence = Some(Arc::clone(core.fence()));
        let clock = core.settings().clock.clone();
        let manager = Connection::new(self.manager?, manager);
        let follower = Follower::new(manager, self.map, clock, signals);
        follower.begin().await?;
        Ok(DistributedRedis::over(core, follower))
    }
}
