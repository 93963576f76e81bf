//! The key of one call: `prefix NAME [<types and source>] (arguments)`.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use super::call::KeyPart;
use super::canon::{Canon, Text, plain};
use super::name::{Name, Site, normal};
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};

/// Arguments that are written out have so many bytes at most.
const MAX_PLAIN: usize = 96;

/// Puts the key of a call together. Made by the macro's code.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct KeyBuilder {
    site: &'static Site,
    name: Name,
    text: Text,
    prefix: usize,
    /// Of types and source, if anything went in.
    seed: Option<Box<Xxh3>>,
    canon: Canon,
    custom: Option<String>,
    instance: Option<String>,
    problem: Option<String>,
}

/// What a call is cached under. Made by the macro's code.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct Key {
    pub(super) text: Text,
    /// What of it the prefix is.
    pub(super) prefix: usize,
    pub(super) name: Name,
    pub(super) instance: Option<String>,
}

impl KeyBuilder {
    /// That of a function, in a cache.
    #[inline]
    #[must_use]
    pub fn new<C: Cache>(site: &'static Site, name: Name, cache: &C) -> Self {
        let prefix = &*cache.core().settings().key_prefix;
        let mut text = Text::new();
        text.extend_from_slice(prefix.as_bytes());
        let mut builder = Self {
            site,
            name,
            text,
            prefix: prefix.len(),
            seed: None,
            canon: Canon::default(),
            custom: None,
            instance: None,
            problem: None,
        };
        if let Some(types) = name.write(&mut builder.text) {
            builder.seed_with(types.as_bytes());
        }
        builder
    }

    fn seed_with(&mut self, bytes: &[u8]) {
        let seed = self.seed.get_or_insert_default();
        seed.update(&(bytes.len() as u64).to_le_bytes());
        seed.update(bytes);
    }

    /// A type that the function was given, by the compiler's name of it.
    pub fn type_named(&mut self, name: &'static str) {
        self.seed_with(normal(name).as_bytes());
    }

    /// A constant that the function was given.
    pub fn constant<T: Serialize>(&mut self, value: &T) {
        let mut canon = Canon::default();
        let encoded = canon.add(value);
        self.seed_with(canon.bytes());
        self.note(encoded);
    }

    /// What the function's text comes to.
    pub fn source(&mut self, hash: u64) {
        self.seed_with(&hash.to_le_bytes());
    }

    /// What tells the instance from others whose method is called.
    pub fn instance<T: KeyPart + ?Sized>(&mut self, value: &T) {
        let mut canon = Canon::default();
        let encoded = canon.add(value);
        self.note(encoded);
        self.instance = Some(hash_of(canon.bytes()));
        self.argument(value);
    }

    /// An argument.
    #[inline]
    pub fn argument<T: KeyPart + ?Sized>(&mut self, value: &T) {
        let encoded = self.canon.add(value);
        self.note(encoded);
    }

    /// Text in place of the arguments.
    pub fn custom(&mut self, text: impl Into<String>) {
        self.custom = Some(text.into());
    }

    #[inline]
    fn note(&mut self, encoded: Result<(), impl std::fmt::Display>) {
        if let Err(why) = encoded {
            self.problem = Some(why.to_string());
        }
    }

    /// The key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] if an argument cannot be encoded, or another function has this one's name.
    #[inline]
    pub fn finish(mut self) -> Result<Key> {
        let is_alone = self.site.is_alone(&self.text[self.prefix..]);
        if self.problem.is_some() || !is_alone {
            return Err(self.refused());
        }
        if let Some(seed) = &self.seed {
            let mut hash = String::with_capacity(18);
            let _ = write!(hash, "<{:016x}>", seed.digest());
            self.text.extend_from_slice(hash.as_bytes());
        }
        self.text.push(b'(');
        self.put_arguments();
        self.text.push(b')');
        Ok(Key {
            text: self.text,
            prefix: self.prefix,
            name: self.name,
            instance: self.instance,
        })
    }

    #[cold]
    fn refused(&self) -> Error {
        let name = String::from_utf8_lossy(&self.text[self.prefix..]).into_owned();
        let why = match &self.problem {
            Some(why) => format!("an argument cannot be a part of the key: {why}"),
            None => "another memoized function has the same name".to_owned(),
        };
        Error::new(ErrorKind::Key, why).with("function", name)
    }

    fn put_arguments(&mut self) {
        if let Some(custom) = &self.custom {
            let (text, instance) = (custom.as_bytes(), self.instance.as_deref());
            if let Some(instance) = instance {
                self.text.extend_from_slice(instance.as_bytes());
                self.text.push(b',');
            }
            // What begins like a hash would be taken for one.
            let fits = text.len() <= MAX_PLAIN * 2 && !custom.starts_with('#');
            if fits && !custom.chars().any(char::is_control) {
                self.text.extend_from_slice(text);
            } else {
                self.text.extend_from_slice(hash_of(text).as_bytes());
            }
            return;
        }
        let (begin, mut rest) = (self.text.len(), self.canon.bytes());
        while !rest.is_empty() {
            if self.text.len() > begin {
                self.text.push(b',');
            }
            match plain(rest, &mut self.text) {
                Some(left) if self.text.len() - begin <= MAX_PLAIN => rest = left,
                _ => {
                    self.text.truncate(begin);
                    let hash = hash_of(self.canon.bytes());
                    self.text.extend_from_slice(hash.as_bytes());
                    return;
                }
            }
        }
    }
}

/// 128 bits of SHA-256. Who chooses an argument must not be able to choose whose key it gets.
fn hash_of(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(33);
    out.push('#');
    for byte in &Sha256::digest(bytes)[..16] {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    out
}

impl Key {
    /// As the cache takes it.
    #[inline]
    pub(super) fn as_str(&self) -> &str {
        // It is put together from text alone.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The tag of all that the function has, and that of what it has for this instance.
    pub(super) fn tags(&self) -> impl Iterator<Item = String> {
        let prefix = std::str::from_utf8(&self.text[..self.prefix]).unwrap_or_default();
        let function = self.name.tag(prefix);
        let instance = self
            .instance
            .as_ref()
            .map(|instance| instance_tag(&function, instance));
        std::iter::once(function).chain(instance)
    }
}

fn instance_tag(function: &str, instance: &str) -> String {
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
        Error::new(
            ErrorKind::Key,
            format!("the instance cannot be told from others: {why}"),
        )
    })?;
    Ok(instance_tag(&name.tag(prefix), &hash_of(canon.bytes())))
}
