//! A description that is a table of a configuration file, or a url in one.
//!
//! Nothing here is an error to serde, whatever stands there: what is wrong is kept, and told by ourselves.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::parameters::Parameters;
use super::{Config, Kind, wrong};
use crate::error::{Error, Result};

/// What says where a server is, in a table of which kind.
const ADDRESS: [(Kind, &str); 2] = [(Kind::Redis, "url"), (Kind::Ring, "manager")];

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = described(deserializer.deserialize_any(Any)?);
        Ok(config.unwrap_or_else(Self::faulty))
    }
}

/// What stands in a configuration file: numbers and truth values are texts.
enum Node {
    Text(String),
    Table(Vec<(String, Node)>),
    Strange,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false, or a table")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Strange)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Strange)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Strange)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Node, A::Error> {
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Strange)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Table(fields))
    }
}

fn described(node: Node) -> Result<Config> {
    match node {
        Node::Text(url) => Config::parse(&url),
        Node::Table(fields) => table(fields),
        Node::Strange => Err(wrong("a cache is its url, or a table with its kind")),
    }
}

fn table(fields: Vec<(String, Node)>) -> Result<Config> {
    let mut kind = None;
    let mut config = Config::of(Kind::Null);
    for (name, node) in fields {
        let part = match name.as_str() {
            "l1" => Some("l1"),
            "l2" => Some("l2"),
            "cache" => Some("cache"),
            _ => None,
        };
        if let Some(part) = part {
            let inner = described(node).map_err(|error| error.with("in", part))?;
            config.inner.push((part, inner));
            continue;
        }
        match (name.as_str(), node) {
            ("kind", Node::Text(name)) => kind = Kind::named(&name),
            ("nodes", Node::Table(nodes)) => config.nodes = logins(nodes)?,
            ("nodes", _) => return Err(wrong("nodes is a table of host:port/db")),
            (_, Node::Text(value)) => config.parameters.add(name, value)?,
            _ => return Err(scalar(name)),
        }
    }
    let why = "the kind is none of null, moka, redis, ring, tiered, prefixed";
    config.kind = kind.ok_or_else(|| wrong(why))?;
    let config = addressed(config)?;
    config.check()?;
    Ok(config)
}

fn scalar(name: String) -> Error {
    wrong("the parameter takes a text, a number, true or false").with("parameter", name)
}

/// What lets in at nodes, by their names.
fn logins(nodes: Vec<(String, Node)>) -> Result<Vec<(String, Parameters)>> {
    let login = |(node, fields): (String, Node)| {
        let Node::Table(fields) = fields else {
            let why = "a node has a table of user, password_env, password_file";
            return Err(wrong(why));
        };
        let mut login = Parameters::default();
        for (name, field) in fields {
            match field {
                Node::Text(value) => login.add(name, value)?,
                Node::Table(_) | Node::Strange => return Err(scalar(name)),
            }
        }
        Ok((node, login))
    };
    nodes.into_iter().map(login).collect()
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
