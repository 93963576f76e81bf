//! The key of one call: `prefix NAME [<types and source>] (arguments)`.

use std::sync::LazyLock;

use arrayvec::ArrayString;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::call::{Due, KeyPart};
use super::canon::Canon;
use super::name::{Name, Site, normal};
use super::plain::Plain;
use super::text::Text;
use crate::cache::{Cache, at_hand_for_now};
use crate::digest::{DIGITS, digits};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;
use crate::value::Cacheable;

/// Arguments that are written out have so many bytes at most.
const MAX_PLAIN: usize = 96;

/// And text that was given in their place.
const MAX_CUSTOM: usize = 192;

/// A hash as it stands in a key.
type Hash = ArrayString<{ DIGITS + 1 }>;

/// Puts the key of a call together: the function, then its types and source, then its arguments. Made by the macro's code.
///
/// A hit is all there is to most calls, so this is filled where it is, and moved nowhere.
#[allow(missing_debug_implementations)]
pub struct Key {
    text: Text,
    /// What of it the prefix is.
    prefix: usize,
    name: Name,
    /// What most functions have nothing of.
    rest: Option<Box<Rest>>,
}

#[derive(Default)]
struct Rest {
    /// Of types and source.
    seed: Option<Xxh3>,
    /// Of what tells the instance from others.
    instance: Option<Hash>,
    problem: Option<String>,
}

impl Key {
    /// That of a function, in a cache.
    #[inline]
    #[must_use]
    pub fn new<C: Cache>(site: &'static Site, name: Name, cache: &C) -> Self {
        let prefix = &*cache.core().settings().key_prefix;
        let mut key = Self {
            text: Text::default(),
            prefix: prefix.len(),
            name,
            rest: None,
        };
        key.text.push(prefix);
        let types = name.write(&mut key.text);
        if !site.is_alone(&key.text.as_str()[key.prefix..], types.as_deref()) {
            let why = "another memoized function has the same name";
            key.rest().problem = Some(why.to_owned());
        }
        if let Some(types) = types {
            key.seed_with(types.as_bytes());
        }
        key
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    fn seed_with(&mut self, bytes: &[u8]) {
        let seed = self.rest().seed.get_or_insert_default();
        seed.update(&(bytes.len() as u64).to_le_bytes());
        seed.update(bytes);
    }

    /// A type that the function was given, by the compiler's name of it.
    pub fn type_named(&mut self, name: &'static str) {
        self.seed_with(normal(name).as_bytes());
    }

    /// A constant that the function was given.
    pub fn constant<T: Serialize>(&mut self, value: &T) {
        let bytes = self.canon(value);
        self.seed_with(bytes.bytes());
    }

    /// What the function's text comes to.
    pub fn source(&mut self, hash: u64) {
        self.seed_with(&hash.to_le_bytes());
    }

    /// What tells the instance from others whose method is called.
    pub fn instance<T: KeyPart + ?Sized>(&mut self, value: &T) {
        let hash = hash_of(self.canon(value).bytes());
        self.rest().instance = Some(hash);
    }

    fn canon<T: Serialize + ?Sized>(&mut self, value: &T) -> Canon {
        let mut canon = Canon::default();
        if let Err(why) = canon.add(value) {
            self.rest().problem = Some(why.to_string());
        }
        canon
    }

    /// The arguments, as a tuple.
    #[inline]
    pub fn arguments<T: Serialize>(&mut self, arguments: &T) {
        let begin = self.open();
        let is_plain = arguments.serialize(&mut Plain::new(&mut self.text)).is_ok();
        if !is_plain || self.text.len() > begin + MAX_PLAIN {
            self.text.truncate(begin);
            let hash = hash_of(self.canon(arguments).bytes());
            self.text.push(&hash);
        }
        self.text.push(")");
    }

    /// Text in place of the arguments.
    pub fn custom(&mut self, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.open();
        // What begins like a hash would be taken for one.
        let fits = text.len() <= MAX_CUSTOM && !text.starts_with('#');
        if fits && !text.chars().any(char::is_control) {
            self.text.push(text);
        } else {
            self.text.push(&hash_of(text.as_bytes()));
        }
        self.text.push(")");
    }

    /// Puts down what comes before the arguments, and tells where they begin.
    #[inline]
    fn open(&mut self) -> usize {
        if let Some(rest) = &self.rest {
            if let Some(seed) = &rest.seed {
                let seed = format!("<{:016x}>", seed.digest());
                self.text.push(&seed);
            }
            if let Some(instance) = &rest.instance {
                self.text.push("[");
                self.text.push(&instance[1..]);
                self.text.push("]");
            }
        }
        self.text.push("(");
        self.text.len()
    }

    /// The value, if memory has it.
    #[inline]
    pub fn hit<T: Cacheable, C: Cache>(&self, cache: &C) -> Option<Due<T>> {
        static NONE: LazyLock<Options> = LazyLock::new(Options::default);
        self.hit_with(cache, &NONE)
    }

    /// The same for a call with options.
    #[inline]
    pub fn hit_with<T: Cacheable, C: Cache>(&self, cache: &C, options: &Options) -> Option<Due<T>> {
        let key = self.checked().ok()?;
        let (value, life) = at_hand_for_now(cache, key, options)?;
        Some(Due { value, life })
    }

    /// As text.
    ///
    /// # Errors
    ///
    /// Of kind `Key`, where there is none.
    pub fn into_string(self) -> Result<String> {
        let key = self.checked()?;
        crate::key::check(key)?;
        Ok(key.to_owned())
    }

    /// As the cache takes it, if it is one.
    #[inline]
    pub(super) fn checked(&self) -> Result<&str> {
        match &self.rest {
            Some(rest) if rest.problem.is_some() => Err(self.refused(rest)),
            _ => Ok(self.text.as_str()),
        }
    }

    #[cold]
    fn refused(&self, rest: &Rest) -> Error {
        let name = &self.text.as_str()[self.prefix..];
        let why = rest.problem.as_deref().unwrap_or_default();
        let why = format!("this call has no key: {why}");
        Error::new(ErrorKind::Key, why).with("function", name)
    }

    /// The tag of all that the function has, and that of what it has for this instance.
    pub(super) fn tags(&self) -> impl Iterator<Item = String> {
        let prefix = &self.text.as_str()[..self.prefix];
        let function = self.name.tag(prefix);
        let instance = self.rest.as_ref().and_then(|rest| rest.instance.as_ref());
        let instance = instance.map(|instance| instance_tag(&function, instance));
        std::iter::once(function).chain(instance)
    }
}

/// With the sign before it that tells it from what is written out.
fn hash_of(bytes: &[u8]) -> Hash {
    let mut text = Hash::new();
    text.push('#');
    for digit in digits(bytes) {
        text.push(char::from(digit));
    }
    text
}

fn instance_tag(function: &str, instance: &Hash) -> String {
    format!("{function} {instance}")
}

/// The tag of what a function has for one instance.
pub(super) fn tag_of_instance<T: Serialize + ?Sized>(
    name: Name,
    prefix: &str,
    instance: &T,
) -> Result<String> {
    let mut canon = Canon::default();
    canon.add(instance).map_err(|why| {
        let why = format!("this instance cannot be told from others: {why}");
        Error::new(ErrorKind::Key, why)
    })?;
    Ok(instance_tag(&name.tag(prefix), &hash_of(canon.bytes())))
}
