use std::net::Ipv6Addr;

/// A node's name for logs and pages, `host:port/db`, without user and password.
///
/// Takes `redis[s]://[user[:password]@]host[:port][/db]`; the port is 6379 and the db 0 where the url has none. A
/// query or fragment is left out. The host is in lower case. Whatever is no such url is `?`: no part of it
/// can be told from a password. That includes an `@` after the first `/`, `?` or `#`, which is the mark of a
/// password whose characters should have been percent-encoded.
///
/// ```
/// use larder::ring::label;
/// assert_eq!(label("redis://:secret@10.0.0.1:7001/2"), "10.0.0.1:7001/2");
/// assert_eq!(label("rediss://[::1]"), "[::1]:6379/0");
/// assert_eq!(label("secret"), "?");
/// ```
#[must_use]
pub fn label(url: &str) -> String {
    parse(url).unwrap_or_else(|| "?".to_owned())
}

fn parse(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !["redis", "rediss"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') {
        return None;
    }
    // The last one: a password may hold others.
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let (host, port) = host_and_port(place)?;
    let path = tail.split(['?', '#']).next()?;
    let db: u32 = number(path.trim_matches('/'), 0)?;
    let port: u16 = number(port, 6379)?;
    Some(format!("{}:{port}/{db}", host.to_lowercase()))
}

fn host_and_port(place: &str) -> Option<(&str, &str)> {
    let (host, rest) = if place.starts_with('[') {
        let (host, rest) = place.split_at(place.find(']')? + 1);
        let address = host.trim_matches(['[', ']']);
        // After a percent sign stands the zone of a link-local address.
        address.split('%').next()?.parse::<Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let (host, rest) = place.split_at(place.find(':').unwrap_or(place.len()));
        let sound = |c: char| c.is_alphanumeric() || ['-', '.', '_'].contains(&c);
        (!host.is_empty() && host.chars().all(sound)).then_some((host, rest))?
    };
    let port = if rest.is_empty() {
        rest
    } else {
        rest.strip_prefix(':')?
    };
    Some((host, port))
}

fn number<N: std::str::FromStr>(text: &str, default: N) -> Option<N> {
    if text.is_empty() {
        return Some(default);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
