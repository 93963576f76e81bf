//! One Redis server.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::codec::MAX_MARKS_BYTES;
use crate::coherence::{Interest, Origin, Subscription};
use crate::core::{Core, MAX_WAIT, Settings, setting_methods};
use crate::entry::{Answer, Claim, Draft, Lease, Stored, Ticket, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::explain::{Place, Trace};
use crate::ttl::Remaining;
use crate::wire::fetch::{Rest, Together, together};
use crate::wire::node::Node;
use crate::wire::{ConnectionSettings, NodeStatus, Target};

/// One Redis server, 5 or later, or Valkey.
///
/// Holds one supervised connection, more by choice: while the server is away every call fails at once, so `get_or_set` computes without
/// waiting, and it comes back by itself. No call takes longer than the operation timeout, 250 ms unless set.
///
/// ```no_run
/// use std::time::Duration;
/// use larder::{Cache, Redis};
/// # async fn example() -> larder::Result<()> {
/// let cache = Redis::connect("redis://127.0.0.1:6379/0").await?;
/// cache.set("greeting", "hello".to_owned(), Duration::from_secs(60)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Runtime
///
/// The connection lives on the tokio runtime of whoever used it first. In a static it outlives that runtime: the next
/// caller's takes over.
#[derive(Clone, Debug)]
pub struct Redis {
    core: Core,
    node: Node,
}

/// Settings of a [`Redis`].
#[derive(Debug)]
#[must_use]
pub struct RedisBuilder {
    target: Result<Target>,
    settings: Settings,
    connection: ConnectionSettings,
}

/// The bounds of connections, which every store over Redis offers.
macro_rules! connection_methods {
    ($($field:ident).+) => {
        /// Sets the bound on each operation, queueing included. 250 ms unless set.
        pub fn operation_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($field).+.operation_timeout = timeout;
            self
        }

        /// Sets the bound on each attempt to connect. 500 ms unless set.
        pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($field).+.connect_timeout = timeout;
            self
        }

        /// Sets how many connections there are to each server. 1 unless set, which is the fastest for small values; more
        /// keep large ones from delaying others. A key always takes the same connection.
        pub fn connections(mut self, count: usize) -> Self {
            self.$($field).+.connections = count.clamp(1, 64);
            self
        }

        /// Sets how many operations may be under way on one connection. 16,384 unless set; a further one fails at once
        /// with [`ErrorKind::Busy`](crate::ErrorKind::Busy), which costs `get_or_set` a compute.
        pub fn max_in_flight(mut self, operations: usize) -> Self {
            self.$($field).+.max_in_flight = operations.max(1);
            self
        }

        /// Says that others, Python or redis-cli say, write values under the same prefix without Larder. Then `clear` looks at
        /// every key under its prefix before it returns; otherwise only where Larder itself wrote or met such values since the
        /// last one, and what nobody has read by then stays.
        pub fn shared_with_others(mut self, shared: bool) -> Self {
            self.$($field).+.shared = shared;
            self
        }

        /// Says where the password is of servers whose url names none: in an environment variable or a file, read whenever a
        /// connection is made. Sentinels have [`login_at`](Self::login_at) alone.
        pub fn login(mut self, login: crate::wire::Login) -> Self {
            self.$($field).+.logins.set(login);
            self
        }

        /// The same for one server, by its `host:port/db`. Connecting refuses what is none.
        pub fn login_at(mut self, server: impl AsRef<str>, login: crate::wire::Login) -> Self {
            self.$($field).+.logins.set_at(server.as_ref(), login);
            self
        }

        /// Sets how servers with `rediss://` urls are known, and this process to them. By the system's roots unless set.
        #[cfg(feature = "tls")]
        pub fn tls(mut self, tls: crate::wire::Tls) -> Self {
            self.$($field).+.tls = tls;
            self
        }

        /// Sets what `CLIENT LIST` shows. `larder` unless set.
        pub fn client_name(mut self, name: impl Into<String>) -> Self {
            self.$($field).+.client_name = Some(name.into());
            self
        }
    };
}

#[cfg(feature = "ring")]
pub(crate) use connection_methods;

impl RedisBuilder {
    setting_methods!(settings);
    connection_methods!(connection);

    fn to(target: Result<Target>) -> Self {
        Self {
            target,
            settings: Settings::default(),
            connection: ConnectionSettings::default(),
        }
    }

    /// Whether the url was understood.
    pub(crate) fn check(&self) -> Result<()> {
        self.connection.logins.check()?;
        self.target.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// The store, without waiting. It begins to connect at once where there is a tokio runtime, else when it is first used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the url is wrong, or names several places; the message says which
    /// part.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for `rediss://` in a build without feature `tls`.
    pub fn build(mut self) -> Result<Redis> {
        self.check()?;
        bound(&mut self.settings, &mut self.connection);
        let target = self.target?;
        if matches!(target, Target::InTurn(_)) {
            // What was deleted at the second would come back with the first.
            let why = "several places in turn are for a ring's manager: values stand at one, or at the master that sentinels know";
            return Err(Error::new(ErrorKind::Config, why));
        }
        let core = Core::new(self.settings).bounding_reads(true);
        self.connection.fence = Some(Arc::clone(core.fence()));
        let node = Node::new(target, &self.connection);
        if tokio::runtime::Handle::try_current().is_ok() {
            node.start()?;
        }
        Ok(Redis { core, node })
    }

    /// The store, once it is connected.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build); [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the server cannot be
    /// reached, [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if it refuses the password or the database.
    pub async fn connect(self) -> Result<Redis> {
        let redis = self.build()?;
        redis.node.ready().await?;
        Ok(redis)
    }
}

/// Fits the bounds of a store and of its connections to each other: the longest reply worth reading is the largest
/// value with its envelope, and a call of the store may take some operations.
pub(crate) fn bound(settings: &mut Settings, connection: &mut ConnectionSettings) {
    connection.operation_timeout = connection.operation_timeout.min(MAX_WAIT);
    connection.connect_timeout = connection.connect_timeout.min(MAX_WAIT);
    connection.ping_timeout = connection.operation_timeout;
    settings.format = settings.format.clone().with_marks();
    connection.max_reply_bytes = settings
        .format
        .max_bytes()
        .saturating_add(64 + MAX_MARKS_BYTES);
    let calls = connection.operation_timeout.saturating_mul(4);
    settings.store_timeout = settings.store_timeout.max(calls);
}

impl Redis {
    /// Connects to `redis://[user[:password]@]host[:port][/db]`. `redis+sentinel://[user[:password]@]host[:port],host[:port]/NAME[/db]` is the master `NAME` that these
    /// sentinels know; their own credentials stand in `?sentinel_user=` and `?sentinel_password=`.
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// Connects to the master that sentinels know by this name, in database 0: each at `redis://[user[:password]@]host[:port]`, 26379 unless
    /// said. Another that they name later is followed.
    ///
    /// ```no_run
    /// # async fn example() -> larder::Result<()> {
    /// let sentinels = ["redis://10.0.0.1:26379", "redis://10.0.0.2:26379", "redis://10.0.0.3:26379"];
    /// let cache = larder::Redis::sentinel(&sentinels, "mymaster").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What was written last before a master is lost may be lost with it, as Redis has it: replicas follow a little behind.
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::connect`].
    pub async fn sentinel(sentinels: &[impl AsRef<str> + Sync], name: &str) -> Result<Self> {
        Self::sentinel_builder(sentinels, name).connect().await
    }

    /// The same with settings first: [`login`](RedisBuilder::login) is the master's.
    pub fn sentinel_builder(sentinels: &[impl AsRef<str>], name: &str) -> RedisBuilder {
        let sentinels = sentinels.iter().map(AsRef::as_ref);
        RedisBuilder::to(Target::behind(sentinels, name))
    }

    /// Settings first.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder::to(Target::parse(url))
    }

    /// How things stand with the server.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.node.status()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for Redis {
    fn core(&self) -> &Core {
        &self.core
    }

    fn peek(&self, _key: &str) -> crate::backend::Peek {
        crate::backend::Peek::Ask
    }

    fn memory(&self) -> Option<&dyn crate::backend::Memory> {
        None
    }

    fn stored_key<'k>(&self, key: &'k str) -> std::borrow::Cow<'k, str> {
        key.into()
    }

    fn own_key<'k>(&self, stored: &'k str) -> Option<&'k str> {
        Some(stored)
    }

    fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
        let subscription = self.core.subscribe(prefix, interest);
        self.node.follow();
        let node = self.node.clone();
        subscription.and(move || node.follow())
    }

    fn origin(&self, key: &str) -> Origin {
        self.node.origin(key, 0)
    }

    fn vouches(&self, _key: &str, _origin: Origin) -> bool {
        true
    }

    fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
        draft.sealed = Some(self.core.format().seal(key, &draft.entry)?);
        Ok(())
    }

    async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
        let begun = self.node.begin(keys, namespace).await;
        let begun = begun.into_iter();
        begun
            .map(|ticket| ticket.unwrap_or_else(Ticket::lost))
            .collect()
    }

    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
        self.node.claim(&self.core, keys, want, lease).await
    }

    async fn hold(&self, key: &str, ticket: &Ticket, life: Option<Duration>) -> Result<bool> {
        self.node.hold(key, ticket, life).await
    }

    fn keeps_tags(&self) -> bool {
        self.core.format().is_enveloped()
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
        self.node.invalidate(prefix, tag).await
    }

    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        let join = |waker: &Waker| self.node.join(&self.core, key, want, waker);
        let rest = match together(&self.core, key, want, join).await {
            Together::Done(answer) => return Ok(answer),
            Together::Failed(error) => return Err(error),
            Together::Rest(Some(Rest::Opened(opened))) => {
                match self.node.judged(&self.core, key, want, opened) {
                    Ok(answer) => return Ok(answer),
                    Err(opened) => Some(Rest::Opened(opened)),
                }
            }
            Together::Rest(rest) => rest,
        };
        Box::pin(self.node.fetch(&self.core, key, want, rest)).await
    }

    async fn trace(&self, key: &str, want: Want) -> Trace {
        let place = Place::of::<Self>();
        self.node.trace(place, &self.core, key, want).await
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        self.node.store(&self.core, key, &draft).await
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        self.node.remove(key).await
    }

    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.node.retract(key, draft).await
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.node.wipe(prefix).await
    }

    async fn contains(&self, key: &str) -> Result<bool> {
        self.node.contains(key).await
    }

    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        self.node.remaining(key).await
    }

    async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        self.node.retime(key, ttl).await
    }

    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.node.add_to(key, by, namespace).await
    }

    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        self.node.fetch_many(&self.core, keys, want).await
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        self.node.store_many(&self.core, &drafts).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.node.remove_many(&self.core, keys).await
    }

    async fn close(&self) {
        self.node.shutdown().await;
    }
}
