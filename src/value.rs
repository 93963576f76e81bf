//! What a cache holds: a shared typed object, or bytes.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserialize as _, DeserializeOwned};

use crate::error::{Error, ErrorKind, Result};
use crate::option;

/// What a type needs to be cached. Nobody implements it by hand: it is given to every type that qualifies.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    note = "a cached value needs `Serialize + DeserializeOwned + Clone + Send + Sync + 'static`; derive serde's traits and `Clone`"
)]
pub trait Cacheable: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Cacheable for T {}

/// An object of any type, shared.
pub type Shared = Arc<dyn Any + Send + Sync>;

/// A cached value: either a shared typed object with the table of its type, or bytes as they stand on the wire.
///
/// Memory keeps objects, so that a hit is a reference count; only the edge to a network encodes.
/// Cloning copies a reference.
///
/// ```
/// use larder::Value;
/// let value = Value::new(7_u32);
/// assert_eq!(*value.downcast::<u32>().unwrap(), 7);
/// ```
#[derive(Clone)]
pub struct Value {
    object: Shared,
    kind: &'static Kind,
}

/// The bytes of an encoded value, as a type of their own so that both forms of a [`Value`] have one shape and size.
struct Encoded(Bytes);

impl Value {
    /// A value that holds `object`.
    #[must_use]
    pub fn new<T: Cacheable>(object: T) -> Self {
        Self::shared(Arc::new(object))
    }

    /// A value that shares `object`.
    #[must_use]
    pub fn shared<T: Cacheable>(object: Arc<T>) -> Self {
        Self {
            object,
            kind: Kind::of::<T>(),
        }
    }

    /// A value of bytes as they stand on the wire: an envelope, or somebody else's bytes.
    #[must_use]
    pub fn encoded(bytes: Bytes) -> Self {
        Self {
            object: Arc::new(Encoded(bytes)),
            kind: &ENCODED,
        }
    }

    /// The bytes, if this is an encoded value.
    #[must_use]
    pub fn as_encoded(&self) -> Option<&Bytes> {
        self.object
            .downcast_ref::<Encoded>()
            .map(|encoded| &encoded.0)
    }

    /// Whether both share one object: the very same one, not an equal one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.object, &other.object)
    }

    /// The object, if it is a `T`.
    ///
    /// # Errors
    ///
    /// The value itself, if it holds bytes or another type.
    pub fn downcast<T: Any + Send + Sync>(self) -> Result<Arc<T>, Self> {
        let kind = self.kind;
        self.object
            .downcast()
            .map_err(|object| Self { object, kind })
    }

    /// The object behind the value.
    #[must_use]
    pub fn object(&self) -> &Shared {
        &self.object
    }

    /// The table of the object's type.
    #[must_use]
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_encoded() {
            Some(bytes) => write!(f, "Value({} bytes)", bytes.len()),
            None => write!(f, "Value({})", self.kind.type_name()),
        }
    }
}

/// The table of a type: how an object of it is encoded, decoded and recognised. One for each type, `'static`.
///
/// A [`Codec`](crate::codec::Codec) works through it, because a store knows its values' types only at run time.
pub struct Kind {
    type_id: fn() -> TypeId,
    type_name: fn() -> &'static str,
    /// Of `Some(Some(None))`, 2; of `None`, 0; of anything else, nothing.
    none_depth: fn(&Shared) -> Option<u8>,
    none_at: fn(u8) -> Option<Value>,
    is_some: fn(&Shared) -> bool,
    to_messagepack: fn(&Shared, &mut Vec<u8>) -> Result<()>,
    from_messagepack: fn(&[u8]) -> Result<Value>,
    to_json: fn(&Shared, &mut Vec<u8>) -> Result<()>,
    from_json: fn(&[u8]) -> Result<Value>,
}

/// Lists and maps nested this deep are refused when read: a stack is finite.
const MAX_DEPTH: usize = 64;

struct Table<T>(std::marker::PhantomData<T>);

impl<T: Cacheable> Table<T> {
    const KIND: &'static Kind = &Kind {
        type_id: TypeId::of::<T>,
        type_name: std::any::type_name::<T>,
        none_depth: |object| object.downcast_ref::<T>().and_then(option::none_depth),
        none_at: |depth| option::none_at(depth).ok().map(Value::new::<T>),
        is_some: |object| object.downcast_ref::<T>().is_some_and(option::is_some),
        to_messagepack: |object, out| {
            let mut serializer = rmp_serde::Serializer::new(out)
                .with_struct_map()
                .with_bytes(rmp_serde::config::BytesMode::ForceAll);
            of::<T>(object)?
                .serialize(&mut serializer)
                .map_err(|e| encoding::<T>(&e))
        },
        from_messagepack: |bytes| {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
            deserializer.set_max_depth(MAX_DEPTH);
            let value: T = option::present(&mut deserializer).map_err(|e| decoding::<T>(&e))?;
            // Bytes left over mean that these are not the bytes of a T: "42" in ASCII begins with the number 52.
            // The reader does not tell its position, so a further read must meet the end.
            match serde::de::IgnoredAny::deserialize(&mut deserializer) {
                Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(Value::new(value)),
                _ => Err(decoding::<T>(&"bytes are left over")),
            }
        },
        to_json: |object, out| {
            serde_json::to_writer(out, of::<T>(object)?).map_err(|e| encoding::<T>(&e))
        },
        from_json: |bytes| {
            serde_json::from_slice(bytes)
                .map(Value::new::<T>)
                .map_err(|e| decoding::<T>(&e))
        },
    };
}

static ENCODED: Kind = Kind {
    type_id: TypeId::of::<Encoded>,
    type_name: || "encoded bytes",
    none_depth: |_| None,
    none_at: |_| None,
    is_some: |_| false,
    to_messagepack: |_, _| Err(not_an_object()),
    from_messagepack: |_| Err(not_an_object()),
    to_json: |_, _| Err(not_an_object()),
    from_json: |_| Err(not_an_object()),
};

fn of<T: Any>(object: &Shared) -> Result<&T> {
    object.downcast_ref().ok_or_else(not_an_object)
}

#[cold]
fn not_an_object() -> Error {
    Error::new(
        ErrorKind::Encode,
        "the value is not an object of the table's type",
    )
}

#[cold]
fn encoding<T>(error: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::Encode, error.to_string()).with("type", std::any::type_name::<T>())
}

#[cold]
fn decoding<T>(error: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::Decode, error.to_string()).with("type", std::any::type_name::<T>())
}

impl Kind {
    /// The table of `T`.
    #[must_use]
    pub fn of<T: Cacheable>() -> &'static Self {
        Table::<T>::KIND
    }

    /// The type's identity in this process.
    #[must_use]
    pub fn type_id(&self) -> TypeId {
        (self.type_id)()
    }

    /// The type's name, as `std::any::type_name` gives it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        (self.type_name)()
    }

    /// How many `Some` stand before the `None`, if the value is a `None`.
    #[must_use]
    pub fn none_depth(&self, value: &Value) -> Option<u8> {
        (self.none_depth)(&value.object)
    }

    /// The value whose [`none_depth`](Self::none_depth) is `depth`, if the type has one.
    #[must_use]
    pub fn none_at(&self, depth: u8) -> Option<Value> {
        (self.none_at)(depth)
    }

    /// Whether the value is a `Some`.
    #[must_use]
    pub fn is_some(&self, value: &Value) -> bool {
        (self.is_some)(&value.object)
    }

    /// Appends the value as MessagePack with named fields, bytes as bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if its `Serialize` refuses, or it is no object of this type.
    pub fn to_messagepack(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        (self.to_messagepack)(&value.object, out)
    }

    /// The value of exactly these MessagePack bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if they are not a value of this type, are cut short, go on after it, or are nested 64 deep or deeper.
    pub fn from_messagepack(&self, bytes: &[u8]) -> Result<Value> {
        (self.from_messagepack)(bytes)
    }

    /// Appends the value as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] as for [`to_messagepack`](Self::to_messagepack).
    pub fn to_json(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        (self.to_json)(&value.object, out)
    }

    /// The value of exactly this JSON text.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] as for [`from_messagepack`](Self::from_messagepack), with serde_json's depth limit of 128.
    pub fn from_json(&self, bytes: &[u8]) -> Result<Value> {
        (self.from_json)(bytes)
    }

    /// The value that bytes without an envelope are for this type: exactly bytes, text or an integer, else nothing.
    #[must_use]
    pub fn from_plain(&self, bytes: &[u8]) -> Option<Value> {
        let id = self.type_id();
        if id == TypeId::of::<Vec<u8>>() {
            return Some(Value::new(bytes.to_vec()));
        }
        if id == TypeId::of::<Box<[u8]>>() {
            return Some(Value {
                object: Arc::new(Box::<[u8]>::from(bytes)),
                kind: Kind::of::<Box<[u8]>>(),
            });
        }
        let text = std::str::from_utf8(bytes).ok()?;
        if id == TypeId::of::<String>() {
            return Some(Value::new(text.to_owned()));
        }
        if id == TypeId::of::<Box<str>>() {
            return Some(Value::new(Box::<str>::from(text)));
        }
        integer_from(id, text)
    }

    /// Appends the value as bytes without an envelope: bytes, text and integers as they are. `false`, and nothing appended, for other types.
    pub fn to_plain(&self, value: &Value, out: &mut Vec<u8>) -> bool {
        let object = &*value.object;
        if let Some(bytes) = object.downcast_ref::<Vec<u8>>() {
            out.extend_from_slice(bytes);
        } else if let Some(bytes) = object.downcast_ref::<Box<[u8]>>() {
            out.extend_from_slice(bytes);
        } else if let Some(text) = object.downcast_ref::<String>() {
            out.extend_from_slice(text.as_bytes());
        } else if let Some(text) = object.downcast_ref::<Box<str>>() {
            out.extend_from_slice(text.as_bytes());
        } else if let Some(integer) = integer(value) {
            out.extend_from_slice(integer.to_string().as_bytes());
        } else {
            return false;
        }
        true
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.type_name())
    }
}

macro_rules! integers {
    ($($type:ty),*) => {
        /// The integer that a value is, if its type is a plain integer of at most 64 bits.
        #[must_use]
        pub fn integer(value: &Value) -> Option<i128> {
            $(if let Some(&integer) = value.object.downcast_ref::<$type>() {
                return Some(integer as i128);
            })*
            None
        }

        fn integer_from(id: TypeId, text: &str) -> Option<Value> {
            // Digits as Redis prints them and nothing else: "+5", "05" and " 5" are text.
            let canonical = |printed: String| printed == text;
            $(if id == TypeId::of::<$type>() {
                return text.parse::<$type>().ok().filter(|i| canonical(i.to_string())).map(Value::new);
            })*
            None
        }
    };
}

integers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn through<T: Cacheable + PartialEq + fmt::Debug>(value: T) {
        let kind = Kind::of::<T>();
        let mut bytes = Vec::new();
        kind.to_messagepack(&Value::new(value.clone()), &mut bytes)
            .unwrap();
        let back = kind
            .from_messagepack(&bytes)
            .unwrap()
            .downcast::<T>()
            .unwrap();
        assert_eq!(*back, value);
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Point {
        x: i32,
        y: Option<i32>,
    }

    #[test]
    fn round_trips() {
        through(42_u64);
        through("text".to_owned());
        through(vec![1_u8, 2, 3]);
        through(vec![Point { x: 1, y: None }, Point { x: 2, y: Some(3) }]);
        through(Some(()));
        through(Some(Some(5)));
        through(());
        through(Some(Some(())));
    }

    #[test]
    fn bytes_are_bytes_not_a_list() {
        let mut out = Vec::new();
        Kind::of::<Vec<u8>>()
            .to_messagepack(&Value::new(vec![200_u8; 100]), &mut out)
            .unwrap();
        assert_eq!(out.len(), 102);
    }

    #[test]
    fn a_none_is_told_by_its_depth() {
        let kind = Kind::of::<Option<Option<u8>>>();
        for (depth, value) in [(0, None), (1, Some(None))] {
            assert_eq!(kind.none_depth(&Value::new(value)), Some(depth));
            assert_eq!(
                *kind
                    .none_at(depth)
                    .unwrap()
                    .downcast::<Option<Option<u8>>>()
                    .unwrap(),
                value
            );
        }
        assert_eq!(kind.none_depth(&Value::new(Some(Some(1_u8)))), None);
        assert!(kind.none_at(2).is_none(), "there is no such value");
        assert!(Kind::of::<u8>().none_at(0).is_none());
    }

    #[test]
    fn left_over_bytes_and_deep_nests_are_refused() {
        let kind = Kind::of::<u64>();
        assert!(kind.from_messagepack(b"42").is_err());
        assert!(kind.from_messagepack(b"").is_err());
        let deep = [vec![0x91; 5000], vec![0x00]].concat();
        assert!(
            Kind::of::<serde_json::Value>()
                .from_messagepack(&deep)
                .is_err()
        );
        let claims = [0xdd, 0xff, 0xff, 0xff, 0xff];
        assert!(Kind::of::<Vec<u64>>().from_messagepack(&claims).is_err());
    }

    #[test]
    fn plain_bytes_are_exactly_bytes_text_or_an_integer() {
        let plain = |kind: &Kind, bytes: &[u8]| kind.from_plain(bytes);
        assert_eq!(
            *plain(Kind::of::<u64>(), b"42")
                .unwrap()
                .downcast::<u64>()
                .unwrap(),
            42
        );
        assert_eq!(
            *plain(Kind::of::<String>(), b"42")
                .unwrap()
                .downcast::<String>()
                .unwrap(),
            "42"
        );
        for bad in [
            &b"042"[..],
            b"+4",
            b" 4",
            b"4.0",
            b"-1",
            b"",
            b"99999999999999999999",
        ] {
            assert!(plain(Kind::of::<u64>(), bad).is_none());
        }
        assert!(plain(Kind::of::<bool>(), b"true").is_none());
        assert!(plain(Kind::of::<String>(), b"\xff").is_none());
    }
}
