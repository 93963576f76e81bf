//! A description that is a url.

use super::parameters::{Parameters, decoded};
use super::{Config, Kind, wrong};
use crate::error::{Error, Result};

/// Tiers in tiers, at most.
pub(super) const MAX_DEPTH: usize = 8;

pub(super) fn parsed(url: &str, depth: usize) -> Result<Config> {
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
        "tiered" => tiered(rest, options, depth),
        "prefixed" => {
            let (prefix, inner) =
                split(rest).ok_or_else(|| wrong("prefixed: needs a prefix, a comma and a url"))?;
            let mut config = Config::of(Kind::Prefixed);
            let prefix = decoded(prefix, "prefix")?;
            config.parameters.add("prefix".to_owned(), prefix)?;
            config.inner.push(("cache", parsed(inner, depth + 1)?));
            Ok(config)
        }
        _ if !options.is_empty() => Err(wrong("only tiered takes parameters before its colon")),
        _ => store(scheme, rest),
    }
}

fn tiered(rest: &str, options: &str, depth: usize) -> Result<Config> {
    let (l1, l2) =
        split(rest).ok_or_else(|| wrong("tiered: needs two urls with a comma between them"))?;
    let mut config = Config::of(Kind::Tiered);
    config.parameters = Parameters::parse(options)?;
    for (name, url, place) in [
        ("l1", l1, "the first url of tiered"),
        ("l2", l2, "the second url of tiered"),
    ] {
        let inner = parsed(url, depth + 1).map_err(|error| error.with("in", place))?;
        config.inner.push((name, inner));
    }
    Ok(config)
}

fn store(scheme: &str, rest: &str) -> Result<Config> {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (kind, address) = match scheme {
        "null" => (Kind::Null, no_address(scheme, address)?),
        "moka" => (Kind::Moka, no_address(scheme, address)?),
        "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" => {
            (Kind::Redis, Some(format!("{scheme}:{address}")))
        }
        "ring" => (Kind::Ring, Some(format!("redis:{address}"))),
        "rings" => (Kind::Ring, Some(format!("rediss:{address}"))),
        "ring+sentinel" => (Kind::Ring, Some(format!("redis+sentinel:{address}"))),
        "rings+sentinel" => (Kind::Ring, Some(format!("rediss+sentinel:{address}"))),
        _ => return Err(unknown_scheme(scheme, rest)),
    };
    Ok(Config {
        address,
        parameters: Parameters::parse(query)?,
        ..Config::of(kind)
    })
}

fn no_address(scheme: &str, address: &str) -> Result<Option<String>> {
    if matches!(address, "" | "//") {
        return Ok(None);
    }
    Err(wrong("this scheme takes no address").with("scheme", scheme))
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
