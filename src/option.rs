//! Telling `None` from `Some(None)` and `Some(())`, which MessagePack and JSON write alike.
//!
//! A value that is a `None` is not encoded at all: its depth is, the number of `Some` around the `None`.
//! So bytes that were encoded are no `None` at any depth, and [`present`] reads every outer option as `Some`.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Visitor, value::Error as Plain};
use serde::forward_to_deserialize_any;
use serde::ser::{Impossible, Serialize, Serializer};

/// How many `Some` stand before the `None` that `value` is; nothing for any other value.
pub(crate) fn none_depth<T: Serialize>(value: &T) -> Option<u8> {
    value.serialize(Probe { depth: 0 }).ok().flatten()
}

/// Whether the value is a `Some`.
pub(crate) fn is_some<T: Serialize>(value: &T) -> bool {
    matches!(
        value.serialize(Probe { depth: 0 }),
        Ok(None) | Ok(Some(1..))
    )
}

/// The `T` that is a `None` inside `depth` times `Some`.
pub(crate) fn none_at<T: DeserializeOwned>(depth: u8) -> Result<T, Plain> {
    T::deserialize(NoneAt(depth))
}

/// Reads a `T` that is known to be no `None`.
pub(crate) fn present<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(Present(deserializer))
}

/// Answers the depth of a `None`, `Ok(None)` for a `Some` around something else, an error for the rest.
struct Probe {
    depth: u8,
}

#[derive(Debug)]
struct NotAnOption;

impl fmt::Display for NotAnOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an option")
    }
}

impl std::error::Error for NotAnOption {}

impl serde::ser::Error for NotAnOption {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Methods of a `Serializer` that refuse what they are given.
macro_rules! refuse {
    ($error:ident; $($name:ident($($arg:ty),*) -> $out:ty),* $(,)?) => {
        $(#[inline]
        fn $name(self, $(_: $arg),*) -> Result<$out, $error> {
            Err($error)
        })*
    };
}

#[cfg(feature = "macros")]
pub(crate) use refuse;

type Never = Impossible<Option<u8>, NotAnOption>;

impl Serializer for Probe {
    type Ok = Option<u8>;
    type Error = NotAnOption;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_none(self) -> Result<Option<u8>, NotAnOption> {
        Ok(Some(self.depth))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Option<u8>, NotAnOption> {
        let Some(depth) = self.depth.checked_add(1) else {
            return Ok(None);
        };
        Ok(value.serialize(Probe { depth }).ok().flatten())
    }

    refuse! { NotAnOption;
        serialize_bool(bool) -> Option<u8>, serialize_i8(i8) -> Option<u8>, serialize_i16(i16) -> Option<u8>,
        serialize_i32(i32) -> Option<u8>, serialize_i64(i64) -> Option<u8>, serialize_u8(u8) -> Option<u8>,
        serialize_u16(u16) -> Option<u8>, serialize_u32(u32) -> Option<u8>, serialize_u64(u64) -> Option<u8>,
        serialize_f32(f32) -> Option<u8>, serialize_f64(f64) -> Option<u8>, serialize_char(char) -> Option<u8>,
        serialize_str(&str) -> Option<u8>, serialize_bytes(&[u8]) -> Option<u8>, serialize_unit() -> Option<u8>,
        serialize_unit_struct(&'static str) -> Option<u8>,
        serialize_unit_variant(&'static str, u32, &'static str) -> Option<u8>,
        serialize_seq(Option<usize>) -> Never, serialize_tuple(usize) -> Never,
        serialize_tuple_struct(&'static str, usize) -> Never,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never,
        serialize_map(Option<usize>) -> Never, serialize_struct(&'static str, usize) -> Never,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never,
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<Option<u8>, NotAnOption> {
        Err(NotAnOption)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Option<u8>, NotAnOption> {
        Err(NotAnOption)
    }

    fn collect_seq<I: IntoIterator<Item: Serialize>>(
        self,
        _: I,
    ) -> Result<Option<u8>, NotAnOption> {
        Err(NotAnOption)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<Option<u8>, NotAnOption> {
        Err(NotAnOption)
    }
}

struct NoneAt(u8);

impl<'de> Deserializer<'de> for NoneAt {
    type Error = Plain;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Plain> {
        match self.0.checked_sub(1) {
            None => visitor.visit_none(),
            Some(depth) => visitor.visit_some(NoneAt(depth)),
        }
    }

    // Only a type that asks for an option has a value at this depth.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Plain> {
        Err(serde::de::Error::custom(
            "the stored value is a None, and this type has none",
        ))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Present<D>(D);

macro_rules! pass {
    ($($name:ident($($arg:ident: $type:ty),*)),* $(,)?) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$name($($arg,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Present<D> {
    type Error = D::Error;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    pass! {
        deserialize_any(), deserialize_bool(), deserialize_i8(), deserialize_i16(), deserialize_i32(),
        deserialize_i64(), deserialize_i128(), deserialize_u8(), deserialize_u16(), deserialize_u32(),
        deserialize_u64(), deserialize_u128(), deserialize_f32(), deserialize_f64(), deserialize_char(),
        deserialize_str(), deserialize_string(), deserialize_bytes(), deserialize_byte_buf(), deserialize_unit(),
        deserialize_unit_struct(name: &'static str), deserialize_newtype_struct(name: &'static str),
        deserialize_seq(), deserialize_tuple(len: usize), deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_map(), deserialize_struct(name: &'static str, fields: &'static [&'static str]),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
        deserialize_identifier(), deserialize_ignored_any(),
    }
}
