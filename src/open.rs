//! A cache from a url.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::backend::SharedCache;
use crate::backends::null::Null;
use crate::core::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::ttl::Ttl;
use crate::wrap::prefixed::Prefixed;
use crate::wrap::tiered::Tiered;

/// Tiers in tiers, at most.
const MAX_DEPTH: usize = 8;

/// Opens the cache that a url describes.
///
/// | url | cache |
/// |---|---|
/// | `null:` | [`Null`] |
/// | `moka://?max=100000` | [`Moka`](crate::Moka); also `max_bytes=`, `eviction=lru` or `tinylfu`, `idle=` seconds |
/// | `redis://[user[:password]@]host[:port][/db]` | [`Redis`](crate::Redis); also `timeout_ms=`, `connect_timeout_ms=`, `connections=`, `max_in_flight=`, `shared=true` where others write there too |
/// | `ring://[user[:password]@]host[:port][/db]` | [`DistributedRedis`](crate::DistributedRedis) with that manager; also those of `redis`, `order=auto`, `numeric` or `lex`, `start_without_map=true`, `snapshot=` path, `map=` name |
/// | `redis+sentinel://[user[:password]@]host[:port],host[:port]/NAME[/db]`, `ring+sentinel://...` | the same with the master that these sentinels know by that name |
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
/// [`ErrorKind::Config`] with the part of the url that is wrong, or if the crate was built without the store's feature;
/// whatever connecting to the store may answer.
pub async fn open(url: &str) -> Result<SharedCache> {
    open_at(url.trim(), 0)
        .await
        .map_err(|error| error.during("open"))
}

type Opening<'u> = std::pin::Pin<Box<dyn Future<Output = Result<SharedCache>> + Send + 'u>>;

fn open_at(url: &str, depth: usize) -> Opening<'_> {
    Box::pin(async move {
        if depth > MAX_DEPTH {
            return Err(wrong("tiers are nested too deeply"));
        }
        let url = match url.strip_prefix('(').and_then(|url| url.strip_suffix(')')) {
            Some(inner) => inner,
            None => url,
        };
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| wrong("a cache url begins with a scheme and a colon"))?;
        let (scheme, options) = scheme.split_once('?').unwrap_or((scheme, ""));
        match scheme {
            "tiered" => tiered(rest, options, depth).await,
            "prefixed" => {
                let (prefix, url) = split(rest)
                    .ok_or_else(|| wrong("prefixed: needs a prefix, a comma and a url"))?;
                let prefix = decoded(prefix, "prefix")?;
                let inner = open_at(url, depth + 1).await?;
                Ok(Arc::new(Prefixed::new(inner, prefix)) as SharedCache)
            }
            _ if !options.is_empty() => Err(wrong("only tiered takes parameters before its colon")),
            _ => store(scheme, url, rest).await,
        }
    })
}

async fn tiered(rest: &str, options: &str, depth: usize) -> Result<SharedCache> {
    let (l1, l2) =
        split(rest).ok_or_else(|| wrong("tiered: needs two urls with a comma between them"))?;
    let mut parameters = Parameters::parse(options)?;
    let l1_ttl = parameters.number("l1_ttl")?;
    let outage_ttl = parameters.number("outage_ttl_ms")?;
    parameters.done("tiered", &["l1_ttl", "outage_ttl_ms"])?;
    let l1 = open_at(l1, depth + 1)
        .await
        .map_err(|error| error.with("in", "the first url of tiered"))?;
    let l2 = open_at(l2, depth + 1)
        .await
        .map_err(|error| error.with("in", "the second url of tiered"))?;
    let mut builder = Tiered::builder(l1, l2);
    if let Some(secs) = l1_ttl {
        builder = builder.max_l1_ttl(Duration::from_secs(secs));
    }
    if let Some(millis) = outage_ttl {
        builder = builder.outage_ttl(Duration::from_millis(millis));
    }
    Ok(Arc::new(builder.build()))
}

async fn store(scheme: &str, url: &str, rest: &str) -> Result<SharedCache> {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let parameters = Parameters::parse(query)?;
    match scheme {
        "null" => {
            no_address("null", address)?;
            let mut parameters = parameters;
            let settings = parameters.settings()?;
            parameters.done("null", &COMMON)?;
            Ok(Arc::new(Null::with(settings)))
        }
        "moka" => moka(address, parameters),
        "redis" | "rediss" | "redis+sentinel" => {
            let address = url.split_once('?').map_or(url, |(address, _)| address);
            redis(address, parameters).await
        }
        "ring" => ring(&format!("redis:{address}"), parameters).await,
        "ring+sentinel" => ring(&format!("redis+sentinel:{address}"), parameters).await,
        _ => Err(unknown_scheme(scheme, rest)),
    }
}

/// Repeats what stands before the colon only where it looks like a scheme: without one in front, it may be a password.
fn unknown_scheme(scheme: &str, rest: &str) -> Error {
    let error = wrong("the scheme is none of null, moka, redis, ring, tiered, prefixed");
    let letters = scheme.bytes().all(|byte| byte.is_ascii_lowercase());
    if letters && rest.starts_with("//") {
        error.with("scheme", scheme)
    } else {
        error
    }
}

#[cfg(feature = "moka")]
fn moka(address: &str, mut parameters: Parameters<'_>) -> Result<SharedCache> {
    use crate::backends::moka::{Eviction, Moka};
    no_address("moka", address)?;
    let mut builder = Moka::builder().settings(parameters.settings()?);
    let (max, max_bytes) = (parameters.number("max")?, parameters.number("max_bytes")?);
    builder = match (max, max_bytes) {
        (Some(_), Some(_)) => return Err(wrong("max and max_bytes exclude each other")),
        (Some(entries), None) => builder.max_entries(entries),
        (None, Some(bytes)) => builder.max_bytes(bytes),
        (None, None) => builder,
    };
    builder = match parameters.take("eviction") {
        None => builder,
        Some("tinylfu") => builder.eviction(Eviction::TinyLfu),
        Some("lru") => builder.eviction(Eviction::Lru),
        Some(_) => return Err(wrong_value("eviction", "lru or tinylfu")),
    };
    if let Some(idle) = parameters.number("idle")? {
        builder = builder.time_to_idle(Duration::from_secs(idle));
    }
    parameters.done("moka", &["max", "max_bytes", "eviction", "idle"])?;
    Ok(Arc::new(builder.build()))
}

#[cfg(not(feature = "moka"))]
fn moka(_: &str, _: Parameters<'_>) -> Result<SharedCache> {
    Err(wrong("this build has no moka: turn the feature on"))
}

#[cfg(feature = "redis")]
const CONNECTION: [&str; 5] = [
    "shared",
    "timeout_ms",
    "connect_timeout_ms",
    "connections",
    "max_in_flight",
];

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
    };
}

#[cfg(feature = "redis")]
async fn redis(address: &str, mut parameters: Parameters<'_>) -> Result<SharedCache> {
    let mut builder =
        crate::backends::redis::Redis::builder(address).settings(parameters.settings()?);
    connection_parameters!(builder, parameters);
    parameters.done("redis", &CONNECTION)?;
    Ok(Arc::new(builder.connect().await?))
}

#[cfg(not(feature = "redis"))]
async fn redis(_: &str, _: Parameters<'_>) -> Result<SharedCache> {
    Err(wrong("this build has no redis: turn the feature on"))
}

#[cfg(feature = "ring")]
async fn ring(address: &str, mut parameters: Parameters<'_>) -> Result<SharedCache> {
    let mut builder =
        crate::ring::DistributedRedis::builder(address).settings(parameters.settings()?);
    connection_parameters!(builder, parameters);
    if let Some(order) = parameters.take("order") {
        builder = builder.order(
            order
                .parse()
                .map_err(|_| wrong_value("order", "auto, numeric or lex"))?,
        );
    }
    if let Some(start) = parameters.switch("start_without_map")? {
        builder = builder.start_without_map(start);
    }
    if let Some(path) = parameters.take("snapshot") {
        builder = builder.snapshot(decoded(path, "snapshot")?);
    }
    if let Some(name) = parameters.take("map") {
        builder = builder.map_name(decoded(name, "map")?);
    }
    let own = ["order", "start_without_map", "snapshot", "map"];
    parameters.done("ring", &[&CONNECTION[..], &own].concat())?;
    Ok(Arc::new(builder.connect().await?))
}

#[cfg(not(feature = "ring"))]
async fn ring(_: &str, _: Parameters<'_>) -> Result<SharedCache> {
    Err(wrong("this build has no ring: turn the feature on"))
}

fn no_address(scheme: &'static str, address: &str) -> Result<()> {
    if matches!(address, "" | "//") {
        return Ok(());
    }
    Err(wrong("this scheme takes no address").with("scheme", scheme))
}

/// The parts before and after the first comma that stands in no parentheses.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn decoded(text: &str, part: &'static str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| wrong("not UTF-8 once decoded").with("part", part))
}

fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::Config, why)
}

fn wrong_value(name: &'static str, expected: &'static str) -> Error {
    Error::new(ErrorKind::Config, format!("the parameter takes {expected}")).with("parameter", name)
}

/// What every store takes.
const COMMON: [&str; 5] = ["ttl", "strict", "schema", "max_staleness_ms", "key_prefix"];

/// The part of a url after its `?`. Values are never repeated in errors: a misplaced one may be a password.
struct Parameters<'u>(Vec<(&'u str, &'u str)>);

impl<'u> Parameters<'u> {
    fn parse(query: &'u str) -> Result<Self> {
        // Names are repeated in errors, and this may be the rest of a password.
        if query.contains('@') {
            return Err(wrong(
                "parameters hold an @: write it as %40, and a ? in a password as %3F",
            ));
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            pair.split_once('=')
                .ok_or_else(|| wrong("a parameter is a name, = and a value"))
        });
        let pairs: Vec<(&str, &str)> = pairs.collect::<Result<_>>()?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(wrong("a parameter is given twice").with("parameter", name));
            }
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<&'u str> {
        let at = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.remove(at).1)
    }

    fn number(&mut self, name: &'static str) -> Result<Option<u64>> {
        let value = self.take(name).map(str::parse).transpose();
        value.map_err(|_| wrong_value(name, "a whole number"))
    }

    fn switch(&mut self, name: &'static str) -> Result<Option<bool>> {
        let value = self.take(name).map(str::parse).transpose();
        value.map_err(|_| wrong_value(name, "true or false"))
    }

    fn settings(&mut self) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(ttl) = self.take("ttl") {
            let secs = ttl
                .parse()
                .map_err(|_| wrong_value("ttl", "a whole number of seconds"))?;
            settings.default_ttl = Ttl::from_secs(secs);
        }
        settings.strict = self.switch("strict")?.unwrap_or(false);
        if let Some(ms) = self.number("max_staleness_ms")? {
            settings.max_staleness = Duration::from_millis(ms);
        }
        if let Some(prefix) = self.take("key_prefix") {
            settings.key_prefix = decoded(prefix, "key_prefix")?.into();
        }
        if let Some(version) = self.number("schema")? {
            let version = u32::try_from(version)
                .map_err(|_| wrong_value("schema", "a number below 4294967296"))?;
            settings.format = settings.format.schema_version(version);
        }
        Ok(settings)
    }

    /// Refuses what nobody took.
    fn done(&self, scheme: &'static str, known: &[&str]) -> Result<()> {
        let Some((name, _)) = self.0.first() else {
            return Ok(());
        };
        let common = if scheme == "tiered" {
            &[][..]
        } else {
            &COMMON[..]
        };
        let known: Vec<&str> = known.iter().chain(common).copied().collect();
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "{scheme} has no such parameter; it has {}",
                known.join(", ")
            ),
        )
        .with("parameter", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("prefixed:%ff,null:", "part: prefix"),
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
            ("ring://127.0.0.1:1/0?map=%ff", "part: map"),
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
