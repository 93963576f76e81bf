//! A ring that the environment names, as the Python pair has it.

use std::net::IpAddr;

use super::{Config, Kind, wrong};
use crate::error::{Error, Result};
use crate::ring::{DistributedRedis, DistributedRedisBuilder};
use crate::ttl::Ttl;

const HOST: &str = "DIS_MANAGER_REDIS_HOST";
const PORT: &str = "DIS_MANAGER_REDIS_PORT";
const PASSWORD: &str = "DIS_MANAGER_REDIS_PASSWORD";
const DB: &str = "DIS_MANAGER_REDIS_DB";
const PREFIX: &str = "DIS_CACHE_PREFIX";
const TIMEOUT: &str = "DIS_CACHE_DEFAULT_TIMEOUT";
const URL: &str = "LARDER_URL";

impl DistributedRedis {
    /// Connects to the ring that the environment names, by the variables of the Python SDK or by a url.
    ///
    /// | variable | |
    /// |---|---|
    /// | `DIS_MANAGER_REDIS_HOST` | the manager's host |
    /// | `DIS_MANAGER_REDIS_PORT`, `DIS_MANAGER_REDIS_DB` | 6379 and 0 unless set |
    /// | `DIS_MANAGER_REDIS_PASSWORD` | none unless set, or where it is empty |
    /// | `DIS_CACHE_PREFIX` | the [`key_prefix`](crate::core::Settings::key_prefix): of memoized functions, views and [`prefixed`](crate::Cache::prefixed) handles. Required, as in the SDK |
    /// | `DIS_CACHE_DEFAULT_TIMEOUT` | the default ttl in seconds; 300 unless set, or where it is 0, and for ever below that |
    /// | `LARDER_URL` | a `ring:` url, as [`open`](fn@crate::open) has them, where none of the others is set |
    ///
    /// The variables of the SDK go before the url; where both are there, the event `url_ignored` says so. The map is read as
    /// [`Order::Auto`](crate::ring::Order::Auto) has it: for one that the Python server writes, [`builder_from_env`](Self::builder_from_env) and
    /// [`order`](DistributedRedisBuilder::order).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with the variable that is missing or wrong, never its text; and those of
    /// [`connect`](DistributedRedisBuilder::connect).
    pub async fn from_env() -> Result<Self> {
        Self::builder_from_env()?.connect().await
    }

    /// The same with more to be set.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), as [`from_env`](Self::from_env).
    ///
    /// ```no_run
    /// use larder::{DistributedRedis, ring::Order};
    /// # async fn example() -> larder::Result<()> {
    /// let ring = DistributedRedis::builder_from_env()?.order(Order::Lexicographic).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder_from_env() -> Result<DistributedRedisBuilder> {
        builder(|name| std::env::var_os(name).map(|value| value.into_string().map_err(|_| ())))
    }
}

/// What a variable holds, if it is set; an error where that is no text.
type Variable = Option<Result<String, ()>>;

fn builder(variable: impl Fn(&'static str) -> Variable) -> Result<DistributedRedisBuilder> {
    // What is empty is not set, as Compose and Kubernetes have it.
    let variable = |name: &'static str| match variable(name) {
        Some(Ok(value)) if value.is_empty() || name != PASSWORD && value.trim().is_empty() => {
            Ok(None)
        }
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(())) => Err(of(name, "it is no text")),
        None => Ok(None),
    };
    let of_sdk = [HOST, PORT, PASSWORD, DB, PREFIX, TIMEOUT];
    let mut set = Vec::new();
    for name in of_sdk {
        if variable(name)?.is_some() {
            set.push(name);
        }
    }
    if set.is_empty() {
        let url = variable(URL)?;
        let url = url.ok_or_else(|| of(HOST, "it is not set, and neither is LARDER_URL"))?;
        let config = Config::parse(&url).map_err(|error| error.with("variable", URL))?;
        if config.kind != Kind::Ring {
            return Err(of(URL, "it names no ring: ring://host:port/db"));
        }
        return config.ring();
    }
    if !matches!(variable(URL), Ok(None)) {
        tracing::warn!(target: "larder", event = "url_ignored", variable = set.first().copied());
    }
    let mut manager = Config::of(Kind::Ring);
    manager.address = Some(address(variable)?);
    let mut builder = manager.ring()?;
    let prefix = variable(PREFIX)?;
    builder = builder.key_prefix(prefix.ok_or_else(|| of(PREFIX, "it is required, and not set"))?);
    if let Some(seconds) = variable(TIMEOUT)? {
        let seconds = seconds.trim().parse::<i64>();
        let seconds = seconds.map_err(|_| of(TIMEOUT, "it is no whole number of seconds"))?;
        // The SDK takes 0 for nothing at all.
        if seconds != 0 {
            builder = builder.default_ttl(Ttl::from_secs(seconds));
        }
    }
    Ok(builder)
}

fn address(variable: impl Fn(&'static str) -> Result<Option<String>>) -> Result<String> {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let host = variable(HOST)?.ok_or_else(|| of(HOST, "it is not set"))?;
    let host = host.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]"),
        _ if host.chars().all(plain) => host.to_owned(),
        _ => return Err(of(HOST, "it is no host")),
    };
    let number = |name: &'static str, unless: u32| match variable(name)? {
        Some(value) => {
            let number = value.trim().parse();
            number.map_err(|_| of(name, "it is no such number"))
        }
        None => Ok(unless),
    };
    let (port, db) = (number(PORT, 6379)?, number(DB, 0)?);
    if !(1..=65535).contains(&port) {
        return Err(of(PORT, "it is no port"));
    }
    let password = variable(PASSWORD)?;
    let user = password.map_or_else(String::new, |password| {
        format!(":{}@", utf8_percent_encode(&password, NON_ALPHANUMERIC))
    });
    Ok(format!("redis://{user}{host}:{port}/{db}"))
}

fn of(variable: &'static str, why: &'static str) -> Error {
    wrong(why).with("variable", variable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn from(variables: &[(&str, &str)]) -> Result<DistributedRedisBuilder> {
        builder(|name| {
            let mut found = variables.iter().filter(|(other, _)| *other == name);
            found.next().map(|(_, value)| Ok((*value).to_owned()))
        })
    }

    fn shown(variables: &[(&str, &str)]) -> String {
        format!("{:?}", from(variables).unwrap())
    }

    #[test]
    fn the_names_of_the_sdk_are_read() {
        let all = shown(&[
            (HOST, "10.0.0.1"),
            (PORT, "7000"),
            (PASSWORD, "p@ss:w/rd?#%"),
            (DB, "13"),
            (PREFIX, "BEI:"),
            (TIMEOUT, "-1"),
        ]);
        for part in ["10.0.0.1:7000/13", "BEI:", "default_ttl: Forever"] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains("p@ss") && !all.contains("p%40ss"), "{all}");
        let least = shown(&[
            (HOST, "::1"),
            (PREFIX, "a:"),
            (PASSWORD, ""),
            (DB, ""),
            (TIMEOUT, "0"),
        ]);
        assert!(
            least.contains("[::1]:6379/0") && least.contains("300s"),
            "{least}"
        );
        let url = shown(&[(URL, "ring://h:1/2?ttl=7")]);
        assert!(url.contains("h:1/2") && url.contains("7s"), "{url}");
        let both = shown(&[(URL, "ring://h:1/2"), (HOST, "other"), (PREFIX, "a:")]);
        assert!(both.contains("other:6379/0"), "{both}");
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        let with = |name, value| vec![(HOST, "h"), (PREFIX, "a:"), (name, value)];
        for (variables, name) in [
            (vec![], HOST),
            (vec![(PREFIX, "canary")], HOST),
            (vec![(HOST, "h")], PREFIX),
            (vec![(HOST, "h"), (PREFIX, "")], PREFIX),
            (vec![(HOST, "h:canary@x"), (PREFIX, "a:")], HOST),
            (with(PORT, "canary"), PORT),
            (with(PORT, "65536"), PORT),
            (with(PORT, "0"), PORT),
            (vec![(HOST, "h:1"), (PREFIX, "a:")], HOST),
            (vec![(URL, " ")], HOST),
            (with(DB, "canary"), DB),
            (with(TIMEOUT, "canary"), TIMEOUT),
            (vec![(URL, "canary")], URL),
            (vec![(URL, "moka://?max=3")], URL),
        ] {
            let error = from(&variables).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            let said = format!("{error} {error:?}");
            assert!(said.contains(name), "{name}: {said}");
            assert!(!said.contains("canary"), "{said}");
        }
        let no_text = builder(|name| (name == HOST).then_some(Err(())));
        assert!(no_text.unwrap_err().to_string().contains(HOST));
    }
}
