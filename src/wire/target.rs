//! Which server a connection is to.

use std::fmt;

use super::url::{NodeAddr, wrong};
use crate::error::Result;

/// The port of a sentinel whose url names none.
const SENTINEL_PORT: u16 = 26379;

/// Addresses in one url, at most: each may take a connect timeout.
const MAX_ADDRS: usize = 16;

/// Where a connection leads.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To this server.
    Node(NodeAddr),
    /// To the first of these that answers, in their order.
    InTurn(Vec<NodeAddr>),
    /// To the master of this name, as the first sentinel that knows it says.
    Sentinel {
        sentinels: Vec<NodeAddr>,
        name: String,
        /// Credentials and database of the master; host and port are the sentinels' to say.
        master: NodeAddr,
    },
}

impl Target {
    /// Reads one of
    ///
    /// - `redis://[user[:password]@]host[:port][/db]`, as [`NodeAddr::parse`];
    /// - the same with several places, `host[:port],host[:port]`, of which the first that answers is taken;
    /// - `redis+sentinel://[user[:password]@]host[:port],..../NAME[/db]`: the sentinels of the master `NAME`, whose user,
    ///   password and database these are. The sentinels' own stand in `?sentinel_user=` and `?sentinel_password=`;
    /// - any of them with `rediss` in place of `redis`: by TLS, the sentinels too.
    ///
    /// # Errors
    ///
    /// Those of [`NodeAddr::parse`].
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return NodeAddr::parse(url).map(Self::Node);
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, places) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let places: Vec<&str> = places.split(',').collect();
        if places.len() > MAX_ADDRS {
            return Err(wrong("host", "there are more than 16 of them"));
        }
        for (known, plain) in [("redis+sentinel", "redis"), ("rediss+sentinel", "rediss")] {
            if scheme.eq_ignore_ascii_case(known) {
                return sentinel(plain, credentials, &places, tail);
            }
        }
        if places.len() == 1 {
            return NodeAddr::parse(url).map(Self::Node);
        }
        let addr = |place| NodeAddr::parse(&format!("{scheme}://{credentials}{place}{tail}"));
        places
            .into_iter()
            .map(addr)
            .collect::<Result<_>>()
            .map(Self::InTurn)
    }

    /// The master of this name, as sentinels at these urls know it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) without a sentinel, for a url that is none, or has a database, or for a name that is none.
    pub(crate) fn behind<'u>(sentinels: impl Iterator<Item = &'u str>, name: &str) -> Result<Self> {
        let addr = |url: &str| {
            let (scheme, place) = url.split_once("://").unwrap_or(("", url));
            let place = place.strip_suffix("/0").unwrap_or(place);
            let place = place.strip_suffix('/').unwrap_or(place);
            if place.contains('/') {
                return Err(wrong("database", "a sentinel has none"));
            }
            let is_bare =
                place.ends_with(']') || !place.rsplit('@').next().unwrap_or("").contains(':');
            let port = if is_bare {
                format!(":{SENTINEL_PORT}")
            } else {
                String::new()
            };
            NodeAddr::parse(&format!("{scheme}://{place}{port}"))
        };
        let sentinels: Vec<NodeAddr> = sentinels.map(addr).collect::<Result<_>>()?;
        let scheme = match sentinels.first() {
            Some(first) if first.is_tls() => "rediss",
            Some(_) => "redis",
            None => return Err(wrong("host", "there is no sentinel")),
        };
        if sentinels.len() > MAX_ADDRS {
            return Err(wrong("host", "there are more than 16 of them"));
        }
        let is_tls = scheme == "rediss";
        if sentinels.iter().any(|sentinel| sentinel.is_tls() != is_tls) {
            return Err(wrong(
                "scheme",
                "either all sentinels are by TLS, and the master, or none",
            ));
        }
        Ok(Self::Sentinel {
            sentinels,
            name: checked_name(name)?.to_owned(),
            master: NodeAddr::parse(&format!("{scheme}://{name}/0"))?,
        })
    }

    /// What may be shown of it.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Node(addr) => addr.label(),
            Self::InTurn(addrs) => addrs
                .iter()
                .map(NodeAddr::label)
                .collect::<Vec<_>>()
                .join(","),
            Self::Sentinel { name, master, .. } => format!("{name}/{}", master.db()),
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.addrs().any(NodeAddr::is_tls)
    }

    /// How often one attempt may take a connect timeout.
    pub(super) fn steps(&self) -> u32 {
        let steps = match self {
            Self::Node(_) => 1,
            Self::InTurn(addrs) => addrs.len(),
            // To the sentinel, its word, to the master, its role.
            Self::Sentinel { sentinels, .. } => 4 * sentinels.len(),
        };
        u32::try_from(steps).unwrap_or(u32::MAX).max(1)
    }

    fn addrs(&self) -> impl Iterator<Item = &NodeAddr> {
        let (many, one) = match self {
            Self::Node(addr) => (&[][..], Some(addr)),
            Self::InTurn(addrs) => (&addrs[..], None),
            Self::Sentinel {
                sentinels, master, ..
            } => (&sentinels[..], Some(master)),
        };
        many.iter().chain(one)
    }
}

fn checked_name(name: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        let why = "after the sentinels comes the master's name: letters, digits, '.', '-' and '_'";
        return Err(wrong("master", why));
    }
    Ok(name)
}

/// `/NAME[/db][?sentinel_user=..][&sentinel_password=..]`
fn sentinel(scheme: &str, credentials: &str, places: &[&str], tail: &str) -> Result<Target> {
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let (name, db) = match path.strip_prefix('/').unwrap_or(path).split_once('/') {
        Some((name, db)) => (name, db),
        None => (path.strip_prefix('/').unwrap_or(path), ""),
    };
    checked_name(name)?;
    let (mut user, mut password) = ("", "");
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sentinel_user", value)) => user = value,
            Some(("sentinel_password", value)) => password = value,
            _ => {
                return Err(wrong(
                    "query",
                    "only sentinel_user and sentinel_password are known",
                ));
            }
        }
    }
    let sentinel = |place: &&str| {
        let port = if place.ends_with(']') || !place.contains(':') {
            format!(":{SENTINEL_PORT}")
        } else {
            String::new()
        };
        NodeAddr::parse(&format!("{scheme}://{user}:{password}@{place}{port}"))
    };
    Ok(Target::Sentinel {
        sentinels: places.iter().map(sentinel).collect::<Result<_>>()?,
        name: name.to_owned(),
        master: NodeAddr::parse(&format!("{scheme}://{credentials}{name}/{db}"))?,
    })
}

impl From<NodeAddr> for Target {
    fn from(addr: NodeAddr) -> Self {
        Self::Node(addr)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

/// What knows passwords, and so can take them out of a server's words.
pub(super) trait Redact {
    fn redacted(&self, words: &str) -> String;
}

impl Redact for NodeAddr {
    fn redacted(&self, words: &str) -> String {
        self.redact(words)
    }
}

impl Redact for Target {
    fn redacted(&self, words: &str) -> String {
        self.addrs()
            .fold(words.to_owned(), |words, addr| addr.redact(&words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn labels(addrs: &[NodeAddr]) -> Vec<String> {
        addrs.iter().map(NodeAddr::label).collect()
    }

    #[test]
    fn one_several_or_sentinels() {
        let Ok(Target::Node(addr)) = Target::parse("redis://:p,w@a:1/2") else {
            panic!("one place");
        };
        assert_eq!(addr.label(), "a:1/2");
        let Ok(Target::InTurn(addrs)) = Target::parse("redis://:p,w@a:1,[::1]:2,c/13") else {
            panic!("several places");
        };
        assert_eq!(labels(&addrs), ["a:1/13", "[::1]:2/13", "c:6379/13"]);
        assert!(
            addrs
                .iter()
                .all(|addr| addr.password().is_some_and(|p| p.expose() == "p,w"))
        );
        let url = "redis+sentinel://me:pw@a,[::1],c:5/my-master/13?sentinel_password=s%40";
        let Ok(Target::Sentinel {
            sentinels,
            name,
            master,
        }) = Target::parse(url)
        else {
            panic!("sentinels");
        };
        assert_eq!(labels(&sentinels), ["a:26379/0", "[::1]:26379/0", "c:5/0"]);
        assert!(
            sentinels
                .iter()
                .all(|addr| addr.password().is_some_and(|p| p.expose() == "s@"))
        );
        assert_eq!(
            (name.as_str(), master.db(), master.user()),
            ("my-master", 13, Some("me"))
        );
        assert_eq!(master.at("h", 7).label(), "h:7/13");
    }

    #[test]
    fn sentinels_are_named_one_by_one() {
        let urls = ["redis://:s%40@a/", "redis://[::1]/0", "redis://me:x@b:5"];
        let Ok(Target::Sentinel {
            sentinels, master, ..
        }) = Target::behind(urls.into_iter(), "my-master")
        else {
            panic!("sentinels");
        };
        assert_eq!(labels(&sentinels), ["a:26379/0", "[::1]:26379/0", "b:5/0"]);
        let password = sentinels[0]
            .password()
            .map(|secret| secret.expose().to_owned());
        assert_eq!(password.as_deref(), Some("s@"));
        assert_eq!(master.at("h", 7).label(), "h:7/0");
        let many = ["redis://a"; 17];
        for (urls, name, part) in [
            (&[][..], "m", "host"),
            (&many[..], "m", "host"),
            (&["a"], "m", "scheme"),
            (&["redis://:canary@a/1"], "m", "database"),
            (&["redis://a", "rediss://b"], "m", "scheme"),
            (&["redis://a"], "", "master"),
            (&["redis://a"], "a name", "master"),
        ] {
            let error = Target::behind(urls.iter().copied(), name).unwrap_err();
            assert!(error.to_string().contains(part), "{part}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn bad_urls_name_the_part_and_never_the_secret() {
        let many = format!("redis://canary:canary@{}", ["a"; 17].join(","));
        for (url, part) in [
            ("a,b", "scheme"),
            ("redis://canary@a,,b", "host"),
            ("redis://:canary@a,b:x", "port"),
            ("redis://:canary@a,b/x", "database"),
            ("redis+sentinel://:canary@a", "master"),
            ("redis+sentinel://:canary@a/na me", "master"),
            ("redis+sentinel://:canary@a/m/x", "database"),
            ("redis+sentinel://:canary@a/m?canary=1", "query"),
            (&many, "host"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(part), "{url}: {text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn labels_show_no_secret_and_words_lose_them() {
        for url in [
            "redis://me:canary@a,b/1",
            "redis+sentinel://me:canary@a,b/m/1?sentinel_password=canary2",
        ] {
            let target = Target::parse(url).unwrap();
            let shown = format!(
                "{target} {target:?} {}",
                target.redacted("no canary2 canary")
            );
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}
