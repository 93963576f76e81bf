//! Addresses of nodes: `redis://[user[:password]@]host[:port][/db]`.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// The port of a url that names none.
const DEFAULT_PORT: u16 = 6379;

/// A text that must never be seen: `Debug` and `Display` print `***`.
///
/// It is neither `Deref`, `AsRef` nor `Serialize`: `expose` is the only way in, and easy to search for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret(Box<str>);

impl Secret {
    /// Hides `text`.
    pub(crate) fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the server alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a node is, and how to be let in.
///
/// `Display`, `Debug` and [`label`](Self::label) show `host:port/db` and nothing else. Two addresses are equal
/// only if their credentials are equal too: a changed password is another address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct NodeAddr {
    host: String,
    port: u16,
    db: u32,
    user: Option<String>,
    password: Option<Secret>,
    tls: bool,
}

impl NodeAddr {
    /// Reads `redis://[user[:password]@]host[:port][/db]`.
    ///
    /// Port 6379 and database 0 are meant where the url names none. An IPv6 address stands in brackets.
    /// Credentials are percent-decoded; an '@' in a password may stand as it is, a '/', '?' or '#' must be
    /// written as `%2F`, `%3F` or `%23`. `rediss://` is by TLS, and [`ErrorKind::Unsupported`] in a build without.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], which names the part of the url that is wrong and repeats none of it, since a
    /// part that was misread may be the password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("scheme", "a url begins with redis://"))?;
        let tls = match scheme {
            _ if scheme.eq_ignore_ascii_case("redis") => false,
            _ if scheme.eq_ignore_ascii_case("rediss") => true,
            _ => return Err(wrong("scheme", "only redis:// and rediss:// are known")),
        };
        // As RFC 3986 and Python's urlparse have it: the authority ends at the first '/', '?' or '#', the
        // credentials at its last '@'.
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, place) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(c, p)| (Some(c), p));
        if credentials.is_none() && tail.contains('@') {
            let hint = "a '/', '?' or '#' in a user or password is written %2F, %3F or %23";
            return Err(wrong("credentials", hint));
        }
        let (user, password) = parse_credentials(credentials.unwrap_or_default())?;
        let (host, port) = parse_place(place)?;
        let host = host.to_ascii_lowercase();
        let db = parse_tail(tail)?;
        Ok(Self {
            host,
            port,
            db,
            user,
            password,
            tls,
        })
    }

    /// The same credentials and database at another place.
    #[must_use]
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        Self {
            host,
            port,
            ..self.clone()
        }
    }

    /// The same with a password, and its user where there is none.
    #[must_use]
    pub(super) fn let_in(&self, user: Option<&str>, password: String) -> Self {
        Self {
            user: self.user.clone().or_else(|| user.map(str::to_owned)),
            password: Some(Secret::new(password)),
            ..self.clone()
        }
    }

    /// The host: a name or an address, IPv6 without brackets.
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The number of the database.
    #[must_use]
    pub(crate) fn db(&self) -> u32 {
        self.db
    }

    /// Whether the url asks for TLS.
    #[must_use]
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// `host:port/db`, the only form of an address that may be shown.
    #[must_use]
    pub(crate) fn label(&self) -> String {
        self.to_string()
    }

    /// The user's name for `AUTH`, where the url names one.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password for `AUTH`, where the url holds one.
    pub(crate) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// A server's words, fit to be shown.
    ///
    /// Servers and proxies without `AUTH` repeat its arguments ("unknown command 'AUTH', with args beginning
    /// with: ..."), cut at lengths of their own, so the words end there; elsewhere the password becomes `***`.
    pub(crate) fn redact(&self, words: &str) -> String {
        let end = words
            .find("args beginning with")
            .or_else(|| words.find("arguments beginning with"))
            .unwrap_or(words.len());
        let words = words[..end].trim_end_matches([' ', ',']);
        match &self.password {
            Some(password) if !password.expose().is_empty() => {
                words.replace(password.expose(), "***")
            }
            _ => words.to_owned(),
        }
    }
}

impl FromStr for NodeAddr {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::parse(url)
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, db, .. } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}/{db}")
        } else {
            write!(f, "{host}:{port}/{db}")
        }
    }
}

impl fmt::Debug for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeAddr({self})")
    }
}

/// A `Config` error about one part of a url, without any of its text.
pub(super) fn wrong(part: &'static str, why: &'static str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("wrong {part} in the url of a node: {why}"),
    )
}

/// `user`, `user:password` or `:password`; what is empty is absent.
fn parse_credentials(text: &str) -> Result<(Option<String>, Option<Secret>)> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |part: &'static str, text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(|text| (!text.is_empty()).then(|| text.into_owned()))
            .map_err(|_| wrong(part, "it is no UTF-8 once percent-decoded"))
    };
    let password = decode("password", password)?.map(Secret::new);
    Ok((decode("user", user)?, password))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn parse_place(text: &str) -> Result<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| wrong("host", "a '[' is never closed"))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(wrong("host", "only an IPv6 address stands in brackets"));
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(wrong("port", "only a ':' and a port may follow the ']'")),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(wrong("host", "an IPv6 address stands in brackets"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(wrong("host", "it is empty"));
    }
    // Labels are shown in logs and pages: a host can hold nothing that would have to be escaped there.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !host.chars().all(plain) {
        let why = "it holds a character that is in no host name";
        return Err(wrong("host", why));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => digits(text)
            .filter(|port| *port != 0)
            .ok_or_else(|| wrong("port", "it is no number from 1 to 65535"))?,
    };
    Ok((host.to_owned(), port))
}

/// Nothing, `/` or `/db`.
fn parse_tail(tail: &str) -> Result<u32> {
    if tail.contains('?') {
        return Err(wrong("query", "a node's url has none"));
    }
    if tail.contains('#') {
        return Err(wrong("fragment", "a node's url has none"));
    }
    match tail.strip_prefix('/').unwrap_or(tail) {
        "" => Ok(0),
        db => digits(db).ok_or_else(|| wrong("database", "it is no number from 0 on")),
    }
}

/// A number in plain digits: `parse` alone would take a leading '+'.
fn digits<N: FromStr>(text: &str) -> Option<N> {
    (text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    type Parts<'a> = (&'a str, u16, u32, Option<&'a str>, Option<&'a str>, bool);

    fn parts(addr: &NodeAddr) -> Parts<'_> {
        let password = addr.password().map(Secret::expose);
        (
            &addr.host,
            addr.port,
            addr.db,
            addr.user(),
            password,
            addr.tls,
        )
    }

    #[test]
    fn good_urls() {
        let table: &[(&str, Parts<'_>, &str)] = &[
            ("redis://h", ("h", 6379, 0, None, None, false), "h:6379/0"),
            ("redis://h/", ("h", 6379, 0, None, None, false), "h:6379/0"),
            (
                "REDIS://my_host-1.x:7001/13",
                ("my_host-1.x", 7001, 13, None, None, false),
                "my_host-1.x:7001/13",
            ),
            (
                "redis://:pw@127.0.0.1:1/2147483647",
                ("127.0.0.1", 1, 2_147_483_647, None, Some("pw"), false),
                "127.0.0.1:1/2147483647",
            ),
            (
                "rediss://user:pw@h:65535",
                ("h", 65535, 0, Some("user"), Some("pw"), true),
                "h:65535/0",
            ),
            (
                "redis://user@h",
                ("h", 6379, 0, Some("user"), None, false),
                "h:6379/0",
            ),
            ("redis://:@h", ("h", 6379, 0, None, None, false), "h:6379/0"),
            (
                "redis://u%3Aser:p%40%2F%3f%23%C3%A9:x@h",
                ("h", 6379, 0, Some("u:ser"), Some("p@/?#é:x"), false),
                "h:6379/0",
            ),
            (
                "redis://:p@ss@w@rd@h:7/1",
                ("h", 7, 1, None, Some("p@ss@w@rd"), false),
                "h:7/1",
            ),
            (
                "redis://:100%@h",
                ("h", 6379, 0, None, Some("100%"), false),
                "h:6379/0",
            ),
            (
                "redis://[::1]:7/3",
                ("::1", 7, 3, None, None, false),
                "[::1]:7/3",
            ),
            (
                "redis://u:[p]@[fe80::1]",
                ("fe80::1", 6379, 0, Some("u"), Some("[p]"), false),
                "[fe80::1]:6379/0",
            ),
        ];
        for (url, expected, label) in table {
            let addr = NodeAddr::parse(url).unwrap();
            assert_eq!(parts(&addr), *expected, "{url}");
            assert_eq!(addr.label(), *label, "{url}");
            assert_eq!(NodeAddr::parse(url).unwrap(), addr);
        }
    }

    #[test]
    fn bad_urls_name_the_part_and_never_the_secret() {
        let table = [
            ("", "scheme"),
            ("canary", "scheme"),
            ("h:6379", "scheme"),
            ("http://:canary@h", "scheme"),
            ("unix://canary", "scheme"),
            ("redis://", "host"),
            ("redis://:canary@", "host"),
            ("redis://:canary@/0", "host"),
            ("redis://:6379", "host"),
            ("redis://:canary@h h", "host"),
            ("redis://:canary@h\r\n", "host"),
            ("redis://:canary@h\u{e9}", "host"),
            ("redis://:canary@::1", "host"),
            ("redis://:canary@[::1", "host"),
            ("redis://:canary@[h]", "host"),
            ("redis://:canary@[::1%eth0]", "host"),
            ("redis://:canary@[::1]x", "port"),
            ("redis://:canary@h:", "port"),
            ("redis://:canary@h:0", "port"),
            ("redis://:canary@h:65536", "port"),
            ("redis://:canary@h:+1", "port"),
            ("redis://user:canary", "port"),
            ("redis://:canary@h/x", "database"),
            ("redis://:canary@h/-1", "database"),
            ("redis://:canary@h/+1", "database"),
            ("redis://:canary@h/1/", "database"),
            ("redis://:canary@h/1/2", "database"),
            ("redis://:canary@h/4294967296", "database"),
            ("redis://:canary@h?protocol=resp3", "query"),
            ("redis://:canary@h/0?a@b", "query"),
            ("redis://:canary@h/0#insecure", "fragment"),
            ("redis://:can/ary@h", "credentials"),
            ("redis://u:12/ary@h", "credentials"),
            ("redis://:can?ary@h", "credentials"),
            ("redis://:canary%ff@h", "password"),
            ("redis://%ff:canary@h", "user"),
        ];
        for (url, part) in table {
            let error = NodeAddr::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.message().contains(part), "{url:?} gave {error}");
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("canary") && !shown.contains("ary@"),
                "{shown}"
            );
        }
    }

    #[test]
    fn nothing_shows_the_password() {
        let addr = NodeAddr::parse("redis://someone:canary@h:7/1").unwrap();
        let shown = format!("{addr} {addr:?} {addr:#?} {:?}", addr.password());
        assert!(
            !shown.contains("canary") && !shown.contains("someone"),
            "{shown}"
        );
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "*** *** ***");
    }

    #[test]
    fn another_password_is_another_address() {
        let urls = ["redis://:a@h", "redis://:b@h", "redis://h", "redis://u:a@h"];
        let set: HashSet<_> = urls.map(|url| NodeAddr::parse(url).unwrap()).into();
        assert_eq!(set.len(), 4);
    }

    #[test]
    fn a_servers_words_lose_the_password() {
        let addr: NodeAddr = "redis://:canary@h".parse().unwrap();
        assert_eq!(addr.redact("bad canary, canary!"), "bad ***, ***!");
        let words = "unknown command 'AUTH', with args beginning with: 'can'";
        assert_eq!(addr.redact(words), "unknown command 'AUTH', with");
        let open: NodeAddr = "redis://h".parse().unwrap();
        assert_eq!(open.redact("plain"), "plain");
    }
}
