//! A description that is a table of a configuration file, or a url in one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::parameters::Parameters;
use super::{Config, Kind, wrong};
use crate::error::Result;

/// What may stand in a table of which kind, beside parameters.
const ADDRESS: [(Kind, &str); 2] = [(Kind::Redis, "url"), (Kind::Ring, "manager")];

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the url of a cache, or a table with its kind")
    }

    fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<Config, E> {
        Config::parse(url).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
        let mut kind: Option<String> = None;
        let mut config = Config::of(Kind::Null);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "kind" => kind = Some(map.next_value()?),
                "l1" => config.inner.push(("l1", map.next_value()?)),
                "l2" => config.inner.push(("l2", map.next_value()?)),
                "cache" => config.inner.push(("cache", map.next_value()?)),
                "nodes" => config.nodes = map.next_value::<Nodes>()?.0,
                _ => {
                    let Scalar(value) = map.next_value()?;
                    let added = config.parameters.add(name, value);
                    added.map_err(A::Error::custom)?;
                }
            }
        }
        let why = "the kind is none of null, moka, redis, ring, tiered, prefixed";
        let kind = kind.as_deref().and_then(Kind::named);
        config.kind = kind.ok_or_else(|| A::Error::custom(wrong(why)))?;
        let checked = addressed(config).and_then(|config| {
            config.prepared(0)?;
            Ok(config)
        });
        checked.map_err(A::Error::custom)
    }
}

/// With the address taken from among the parameters. What stands behind its `?` is parameters too.
fn addressed(mut config: Config) -> Result<Config> {
    let Some((_, name)) = ADDRESS.iter().find(|(kind, _)| *kind == config.kind) else {
        return Ok(config);
    };
    let Some(url) = config.parameters.take(name) else {
        return Err(wrong("a redis has a url, a ring a manager").with("kind", config.kind.name()));
    };
    let (address, query) = url.split_once('?').unwrap_or((&url, ""));
    for (name, value) in Parameters::parse(query)?.into_pairs() {
        config.parameters.add(name, value)?;
    }
    config.address = Some(address.to_owned());
    Ok(config)
}

/// A text, number or truth value, as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(One)
    }
}

struct One;

impl Visitor<'_> for One {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a whole number, true or false")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar(value.to_owned()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }
}

/// What lets in at nodes, by their names.
struct Nodes(Vec<(String, Parameters)>);

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Logins)
    }
}

struct Logins;

impl<'de> Visitor<'de> for Logins {
    type Value = Nodes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a table of host:port/db, each with a table of user, password_env, password_file",
        )
    }

    // Serde would repeat it, and it may be a password.
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Nodes, E> {
        Err(E::custom("nodes is a table of host:port/db"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Nodes, A::Error> {
        let mut nodes = Vec::new();
        while let Some((node, Fields(fields))) = map.next_entry()? {
            nodes.push((node, fields));
        }
        Ok(Nodes(nodes))
    }
}

struct Fields(Parameters);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inner;
        impl<'de> Visitor<'de> for Inner {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of user, password_env, password_file")
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Fields, E> {
                Err(E::custom(
                    "a node has a table of user, password_env, password_file",
                ))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Parameters::default();
                while let Some((name, Scalar(value))) = map.next_entry()? {
                    fields.add(name, value).map_err(A::Error::custom)?;
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_any(Inner)
    }
}
