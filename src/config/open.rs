//! From a description to stores.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::parameters::Parameters;
#[cfg(any(feature = "moka", feature = "ring"))]
use super::parameters::wrong_value;
use super::url::MAX_DEPTH;
use super::{Config, Kind, wrong};
use crate::backend::SharedCache;
use crate::backends::null::Null;
use crate::error::Result;
use crate::wrap::prefixed::Prefixed;
use crate::wrap::tiered::Tiered;

/// Opens the cache that a url describes.
///
/// | url | cache |
/// |---|---|
/// | `null:` | [`Null`] |
/// | `moka://?max=100000` | [`Moka`](crate::Moka); also `max_bytes=`, `eviction=lru` or `tinylfu`, `idle=` seconds |
/// | `redis://[user[:password]@]host[:port][/db]` | [`Redis`](crate::Redis); also `timeout_ms=`, `connect_timeout_ms=`, `connections=`, `max_in_flight=`, `shared=true` where others write there too, `password_env=` or `password_file=` with `user=`; `rediss://` is by TLS, with `tls_root=`, `tls_cert=` and `tls_key=`, `tls_server_name=` |
/// | `ring://[user[:password]@]host[:port][/db]` | [`DistributedRedis`](crate::DistributedRedis) with that manager; also those of `redis`, `order=auto`, `numeric` or `lex`, `hash_tags=true`, `start_without_map=true`, `snapshot=` path, `map=` name; and `nodes_password_env=` or `nodes_password_file=` with `nodes_user=`, for nodes whose url in the map has no password |
/// | `rings://...` | the same with TLS to the manager; nodes have it where the map says `rediss://` |
/// | `redis+sentinel://[user[:password]@]host[:port],host[:port]/NAME[/db]`, `ring+sentinel://...` | the same with the master that these sentinels know by that name; also `sentinel_user=`, `sentinel_password=` |
/// | `tiered:L1,L2` | [`Tiered`]; `tiered?l1_ttl=30:L1,L2` bounds copies in `L1`, in seconds; also `outage_ttl_ms=` |
/// | `prefixed:PREFIX,URL` | [`Prefixed`] |
///
/// Every store takes `ttl=` (the default, in seconds; 0 and below for ever), `strict=true`, `schema=` (version),
/// `max_staleness_ms=` and `key_prefix=` too; a tier has those of its `L2`.
/// An `L1` that is a `tiered:` or `prefixed:` itself stands in parentheses; an `L2` needs none. Prefix, path and map may be percent-encoded.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use larder::Cache;
/// let cache = larder::open("null:").await.unwrap();
/// assert_eq!(cache.get::<u64>("answer").await.unwrap(), None);
/// let error = larder::open("redis://localhost:http/0").await.unwrap_err();
/// assert!(error.to_string().contains("port"));
/// # });
/// ```
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) with the part of the url that is wrong, or if the crate was built without the store's feature;
/// whatever connecting to the store may answer.
pub async fn open(url: &str) -> Result<SharedCache> {
    let config = Config::parse(url).map_err(|error| error.during("open"))?;
    config.open().await
}

/// How servers are known by TLS, where the parameters say so.
#[cfg(feature = "tls")]
fn tls(parameters: &mut Parameters) -> Result<Option<crate::wire::Tls>> {
    let mut tls = crate::wire::Tls::new();
    let mut is_set = false;
    if let Some(path) = parameters.take("tls_root") {
        (tls, is_set) = (tls.root_file(path), true);
    }
    match (parameters.take("tls_cert"), parameters.take("tls_key")) {
        (Some(chain), Some(key)) => (tls, is_set) = (tls.identity_files(chain, key), true),
        (None, None) => {}
        _ => return Err(wrong("tls_cert goes with tls_key")),
    }
    if let Some(name) = parameters.take("tls_server_name") {
        (tls, is_set) = (tls.server_name(name), true);
    }
    Ok(is_set.then_some(tls))
}

/// The parameters that every store over servers takes, for its builder.
#[cfg(feature = "redis")]
macro_rules! connection_parameters {
    ($builder:ident, $parameters:ident) => {
        if let Some(ms) = $parameters.number("timeout_ms")? {
            $builder = $builder.operation_timeout(Duration::from_millis(ms));
        }
        if let Some(ms) = $parameters.number("connect_timeout_ms")? {
            $builder = $builder.connect_timeout(Duration::from_millis(ms));
        }
        if let Some(shared) = $parameters.switch("shared")? {
            $builder = $builder.shared_with_others(shared);
        }
        if let Some(count) = $parameters.number("connections")? {
            $builder = $builder.connections(usize::try_from(count).unwrap_or(usize::MAX));
        }
        if let Some(count) = $parameters.number("max_in_flight")? {
            $builder = $builder.max_in_flight(usize::try_from(count).unwrap_or(usize::MAX));
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = tls(&mut $parameters)? {
            $builder = $builder.tls(tls);
        }
    };
}

/// All that can be wrong with a description was looked at; what is left is to connect.
pub(super) enum Prepared {
    Ready(SharedCache),
    #[cfg(feature = "moka")]
    Moka(Box<crate::backends::moka::MokaBuilder>),
    #[cfg(feature = "redis")]
    Redis(Box<crate::backends::redis::RedisBuilder>),
    #[cfg(feature = "ring")]
    Ring(Box<crate::ring::DistributedRedisBuilder>),
    Prefixed(Box<Prepared>, String),
    Tiered(Box<(Prepared, Prepared)>, Copies),
}

/// How long a tier keeps copies.
#[derive(Clone, Copy)]
pub(super) struct Copies {
    l1_ttl: Option<Duration>,
    outage_ttl: Option<Duration>,
}

impl Prepared {
    pub(super) fn opened(self) -> BoxFuture<'static, Result<SharedCache>> {
        Box::pin(async move {
            Ok(match self {
                Self::Ready(cache) => cache,
                #[cfg(feature = "moka")]
                Self::Moka(builder) => Arc::new(builder.build()),
                #[cfg(feature = "redis")]
                Self::Redis(builder) => Arc::new(builder.connect().await?),
                #[cfg(feature = "ring")]
                Self::Ring(builder) => Arc::new(builder.connect().await?),
                Self::Prefixed(inner, prefix) => {
                    Arc::new(Prefixed::new(inner.opened().await?, prefix))
                }
                Self::Tiered(tiers, copies) => {
                    let (l1, l2) = *tiers;
                    let l1 = l1.opened().await;
                    let l1 = l1.map_err(|error| error.with("in", "the first of tiered"))?;
                    let l2 = l2.opened().await;
                    let l2 = l2.map_err(|error| error.with("in", "the second of tiered"))?;
                    let mut builder = Tiered::builder(l1, l2);
                    if let Some(ttl) = copies.l1_ttl {
                        builder = builder.max_l1_ttl(ttl);
                    }
                    if let Some(ttl) = copies.outage_ttl {
                        builder = builder.outage_ttl(ttl);
                    }
                    Arc::new(builder.build())
                }
            })
        })
    }
}

impl Config {
    /// The stores, with all parameters looked at.
    pub(super) fn prepared(&self, depth: usize) -> Result<Prepared> {
        if depth > MAX_DEPTH {
            return Err(wrong("tiers are nested too deeply"));
        }
        if let Some(fault) = &self.fault {
            return Err(fault.0.clone());
        }
        if self.kind != Kind::Ring && !self.nodes.is_empty() {
            return Err(wrong("only a ring has nodes"));
        }
        let parameters = self.parameters.clone();
        match self.kind {
            Kind::Tiered => self.tiered(parameters, depth),
            Kind::Prefixed => self.prefixed(parameters, depth),
            _ if !self.inner.is_empty() => {
                Err(wrong("only tiered and prefixed are made of caches"))
            }
            Kind::Null => null(parameters),
            Kind::Moka => moka(parameters),
            Kind::Redis => self.redis(parameters),
            #[cfg(feature = "ring")]
            Kind::Ring => Ok(Prepared::Ring(Box::new(self.ring()?))),
            #[cfg(not(feature = "ring"))]
            Kind::Ring => Err(wrong("this build has no ring: turn the feature on")),
        }
    }

    /// One of the caches that this one is made of.
    fn part(&self, name: &'static str, depth: usize) -> Result<Prepared> {
        let mut named = self.inner.iter().filter(|(other, _)| *other == name);
        match (named.next(), named.next()) {
            (Some((_, part)), None) => part
                .prepared(depth + 1)
                .map_err(|error| error.with("in", name)),
            (Some(_), Some(_)) => Err(wrong("a part is given twice").with("part", name)),
            (None, _) => {
                let why = "a tiered has l1 and l2, a prefixed has a cache";
                Err(wrong(why).with("part", name))
            }
        }
    }

    fn tiered(&self, mut parameters: Parameters, depth: usize) -> Result<Prepared> {
        let l1_ttl = parameters.number("l1_ttl")?.map(Duration::from_secs);
        let outage_ttl = parameters.millis("outage_ttl_ms")?;
        parameters.done("tiered", &["l1_ttl", "outage_ttl_ms"])?;
        let tiers = (self.part("l1", depth)?, self.part("l2", depth)?);
        if self.inner.len() > 2 {
            return Err(wrong("a tiered has l1 and l2 and nothing else"));
        }
        let copies = Copies { l1_ttl, outage_ttl };
        Ok(Prepared::Tiered(Box::new(tiers), copies))
    }

    fn prefixed(&self, mut parameters: Parameters, depth: usize) -> Result<Prepared> {
        let prefix = parameters.take("prefix");
        parameters.done("prefixed", &["prefix"])?;
        let prefix = prefix.ok_or_else(|| wrong("a prefixed has a prefix"))?;
        let inner = self.part("cache", depth)?;
        if self.inner.len() > 1 {
            return Err(wrong("a prefixed has one cache and nothing else"));
        }
        Ok(Prepared::Prefixed(Box::new(inner), prefix))
    }

    #[cfg(feature = "redis")]
    fn redis(&self, mut parameters: Parameters) -> Result<Prepared> {
        use crate::backends::redis::Redis;
        let address = self.address_with(&mut parameters)?;
        let mut builder = Redis::builder(&address).settings(parameters.settings()?);
        connection_parameters!(builder, parameters);
        if let Some(login) = parameters.login("")? {
            builder = builder.login(login);
        }
        parameters.done("redis", CONNECTION)?;
        builder.check()?;
        Ok(Prepared::Redis(Box::new(builder)))
    }

    #[cfg(not(feature = "redis"))]
    fn redis(&self, _: Parameters) -> Result<Prepared> {
        Err(wrong("this build has no redis: turn the feature on"))
    }

    /// The settings of a ring.
    #[cfg(feature = "ring")]
    pub(super) fn ring(&self) -> Result<crate::ring::DistributedRedisBuilder> {
        let mut parameters = self.parameters.clone();
        let address = self.address_with(&mut parameters)?;
        let mut builder =
            crate::ring::DistributedRedis::builder(&address).settings(parameters.settings()?);
        connection_parameters!(builder, parameters);
        if let Some(order) = parameters.take("order") {
            let order = order.parse();
            builder =
                builder.order(order.map_err(|_| wrong_value("order", "auto, numeric or lex"))?);
        }
        if let Some(tags) = parameters.switch("hash_tags")? {
            builder = builder.hash_tags(tags);
        }
        if let Some(start) = parameters.switch("start_without_map")? {
            builder = builder.start_without_map(start);
        }
        if let Some(path) = parameters.take("snapshot") {
            builder = builder.snapshot(path);
        }
        if let Some(name) = parameters.take("map") {
            builder = builder.map_name(name);
        }
        if let Some(login) = parameters.login("")? {
            builder = builder.manager_login(login);
        }
        if let Some(login) = parameters.login("nodes_")? {
            builder = builder.login(login);
        }
        for (node, fields) in &self.nodes {
            let mut fields = fields.clone();
            let login = fields.login("")?;
            fields.done("node", &LOGIN)?;
            let why = "a node has a password_env or a password_file";
            builder = builder.login_at(node, login.ok_or_else(|| wrong(why))?);
        }
        parameters.done("ring", &[CONNECTION, &OF_RING].concat())?;
        builder.check()?;
        Ok(builder)
    }

    /// The address, with what sentinels are asked by.
    #[cfg(feature = "redis")]
    fn address_with(&self, parameters: &mut Parameters) -> Result<String> {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let address = self.address.clone();
        let mut address = address.ok_or_else(|| wrong("there is no address"))?;
        let mut between = '?';
        for name in ["sentinel_user", "sentinel_password"] {
            if let Some(value) = parameters.take(name) {
                let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
                address = format!("{address}{between}{name}={value}");
                between = '&';
            }
        }
        Ok(address)
    }
}

fn null(mut parameters: Parameters) -> Result<Prepared> {
    let settings = parameters.settings()?;
    parameters.done("null", &[])?;
    Ok(Prepared::Ready(Arc::new(Null::with(settings))))
}

#[cfg(feature = "moka")]
fn moka(mut parameters: Parameters) -> Result<Prepared> {
    use crate::backends::moka::{Eviction, Moka};
    let mut builder = Moka::builder().settings(parameters.settings()?);
    let (max, max_bytes) = (parameters.number("max")?, parameters.number("max_bytes")?);
    builder = match (max, max_bytes) {
        (Some(_), Some(_)) => return Err(wrong("max and max_bytes exclude each other")),
        (Some(entries), None) => builder.max_entries(entries),
        (None, Some(bytes)) => builder.max_bytes(bytes),
        (None, None) => builder,
    };
    builder = match parameters.take("eviction").as_deref() {
        None => builder,
        Some("tinylfu") => builder.eviction(Eviction::TinyLfu),
        Some("lru") => builder.eviction(Eviction::Lru),
        Some(_) => return Err(wrong_value("eviction", "lru or tinylfu")),
    };
    if let Some(idle) = parameters.number("idle")? {
        builder = builder.time_to_idle(Duration::from_secs(idle));
    }
    parameters.done("moka", &["max", "max_bytes", "eviction", "idle"])?;
    Ok(Prepared::Moka(Box::new(builder)))
}

#[cfg(not(feature = "moka"))]
fn moka(_: Parameters) -> Result<Prepared> {
    Err(wrong("this build has no moka: turn the feature on"))
}

#[cfg(feature = "ring")]
const LOGIN: [&str; 3] = ["user", "password_env", "password_file"];

#[cfg(feature = "ring")]
const OF_RING: [&str; 8] = [
    "order",
    "hash_tags",
    "start_without_map",
    "snapshot",
    "map",
    "nodes_user",
    "nodes_password_env",
    "nodes_password_file",
];

#[cfg(feature = "redis")]
const CONNECTION: &[&str] = &[
    "shared",
    "timeout_ms",
    "connect_timeout_ms",
    "connections",
    "max_in_flight",
    "user",
    "password_env",
    "password_file",
    "sentinel_user",
    "sentinel_password",
    #[cfg(feature = "tls")]
    "tls_root",
    #[cfg(feature = "tls")]
    "tls_cert",
    #[cfg(feature = "tls")]
    "tls_key",
    #[cfg(feature = "tls")]
    "tls_server_name",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refused(url: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime
            .block_on(open(url))
            .err()
            .unwrap_or_else(|| panic!("{url} was taken"));
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        error.to_string()
    }

    #[test]
    fn errors_name_the_part_that_is_wrong() {
        for (url, part) in [
            ("", "scheme"),
            ("memcached://h", "scheme: memcached"),
            ("null:x", "address"),
            ("null:?ttl=soon", "parameter: ttl"),
            ("null:?ttl=1&ttl=2", "parameter: ttl"),
            ("null:?max=3", "parameter: max"),
            ("null:?ttl", "a name, = and a value"),
            ("tiered:null:", "comma"),
            ("tiered:null:,nil:", "the second url of tiered"),
            ("tiered?l2_ttl=3:null:,null:", "parameter: l2_ttl"),
            ("prefixed:app", "comma"),
            ("prefixed:%ff,null:", "parameter: prefix"),
            ("redis://:pass?word=x@h", "%3F"),
        ] {
            let error = refused(url);
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn errors_repeat_nothing_that_may_be_a_password() {
        for url in [
            "canary@h:1/0",
            "canary:x@h/0",
            "redis://:pa?canary=x@h/0",
            "redis://:pa?x=1&x=canary@h/0",
            "ring://:pa?canary@h/0",
            "tiered:redis://:pa,canary:x@h/0,null:",
            "prefixed:a,canary@h/0",
            "moka://canary",
        ] {
            let error = refused(url);
            assert!(!error.contains("canary"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn tiers_and_prefixes_nest() {
        let cache = open("tiered?l1_ttl=3&outage_ttl_ms=500:(prefixed:a%2C:,null:),tiered:null:,prefixed:b:,null:")
            .await
            .unwrap();
        assert_eq!(cache.stored_key("k"), "b:k");
        let deep = format!("{}null:", "tiered:null:,".repeat(20));
        assert!(refused_async(&deep).await);
    }

    async fn refused_async(url: &str) -> bool {
        open(url)
            .await
            .is_err_and(|error| error.kind() == ErrorKind::Config)
    }

    #[cfg(feature = "ring")]
    #[test]
    fn a_ring_takes_the_name_of_its_map() {
        for (url, why) in [
            ("ring://127.0.0.1:1/0?map=", "must not be empty"),
            ("ring://127.0.0.1:1/0?map=a%00b", "control characters"),
            ("ring://127.0.0.1:1/0?map=%ff", "parameter: map"),
            ("ring://127.0.0.1:1/0?mop=x", "snapshot, map"),
        ] {
            let error = refused(url);
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[cfg(feature = "moka")]
    #[tokio::test]
    async fn moka_takes_its_parameters() {
        use crate::cache::Cache;
        use crate::ttl::Ttl;
        let cache = open("moka://?max=10&eviction=lru&idle=5&ttl=-1&strict=true&schema=3")
            .await
            .unwrap();
        cache.set("k", 1_u32, Ttl::Default).await.unwrap();
        assert_eq!(
            cache.ttl("k").await.unwrap(),
            Some(crate::ttl::Remaining::Forever)
        );
        assert!(cache.core().settings().strict);
        assert!(refused_async("moka://?max=1&max_bytes=1").await);
        assert!(refused_async("moka://?eviction=fifo").await);
    }
}
