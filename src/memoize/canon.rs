//! Arguments as bytes: the same for equal arguments in every process, build and version, and different for different ones.
//!
//! A value begins with a letter that says what it is, and where it ends can be told from its bytes, so that no two lists of
//! arguments run together. Integers are the same whatever their width. Maps, sets and the fields of structs stand in the order
//! of their bytes; variants and fields go by their names. So a field that is added or renamed, and not one that is moved,
//! makes other bytes.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Serializer};
use smallvec::SmallVec;

/// Most arguments together fit into so many bytes.
const ON_STACK: usize = 128;

/// The bytes of a list of arguments.
#[derive(Default)]
pub(super) struct Canon {
    bytes: SmallVec<[u8; ON_STACK]>,
    /// What is being encoded, as the compiler names it.
    type_name: &'static str,
}

/// Sets, as the compiler names them. To serde they are sequences like others.
const SETS: [&str; 3] = [
    "std::collections::hash::set::HashSet<",
    "hashbrown::set::HashSet<",
    "ahash::hash_set::AHashSet<",
];

/// What hands the encoding of what is in it on.
const TRANSPARENT: [&str; 6] = [
    "&",
    "alloc::borrow::Cow<",
    "mut ",
    "alloc::boxed::Box<",
    "alloc::rc::Rc<",
    "alloc::sync::Arc<",
];

fn is_set(mut type_name: &str) -> bool {
    while let Some(inner) = TRANSPARENT
        .iter()
        .find_map(|outer| type_name.strip_prefix(outer))
    {
        type_name = inner;
    }
    SETS.iter().any(|set| type_name.starts_with(set))
}

/// Why a value has no bytes: its own `Serialize` says so.
#[derive(Debug)]
pub(super) struct Unkeyed(String);

impl fmt::Display for Unkeyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unkeyed {}

impl ser::Error for Unkeyed {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

type Done = Result<(), Unkeyed>;

impl Canon {
    /// Appends a value.
    pub(super) fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.type_name = std::any::type_name::<T>();
        value.serialize(self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.bytes.push(tag);
        self
    }

    /// Seven bits a byte, the lowest first; the last byte has no eighth.
    fn number(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.bytes.push(number.to_le_bytes()[0]);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u128);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn unsigned(&mut self, number: u128) -> Done {
        self.tag(b'u').number(number);
        Ok(())
    }

    fn signed(&mut self, number: i128) -> Done {
        match u128::try_from(number) {
            Ok(number) => self.unsigned(number),
            Err(_) => {
                self.tag(b'n').number(number.unsigned_abs());
                Ok(())
            }
        }
    }

    fn open(&mut self, tag: u8, is_sorted: bool) -> Parts<'_> {
        let begin = self.tag(tag).bytes.len();
        Parts {
            canon: self,
            begin,
            sorts: is_sorted.then(Vec::new),
        }
    }

    fn variant(&mut self, name: &str) {
        self.tag(b'v').text(name);
    }
}

/// What several values are, one after the other.
pub(super) struct Parts<'c> {
    canon: &'c mut Canon,
    begin: usize,
    /// Where each ends, if they are to be put in order.
    sorts: Option<Vec<usize>>,
}

impl Parts<'_> {
    fn ended(&mut self) {
        if let Some(ends) = &mut self.sorts {
            ends.push(self.canon.bytes.len());
        }
    }

    fn close(mut self) -> Done {
        if let Some(ends) = self.sorts.take() {
            let written = self.canon.bytes[self.begin..].to_vec();
            let mut from = 0;
            let mut parts: Vec<&[u8]> = Vec::with_capacity(ends.len());
            for end in ends {
                let end = end - self.begin;
                parts.push(&written[from..end]);
                from = end;
            }
            parts.sort_unstable();
            self.canon.bytes.truncate(self.begin);
            for part in parts {
                self.canon.bytes.extend_from_slice(part);
            }
        }
        self.canon.tag(b']');
        Ok(())
    }
}

/// Each of the kinds that serde tells apart, by the one thing that is done with a part of it.
macro_rules! kinds {
    ($($kind:ident $put:ident($($name:ident)?);)*) => {$(
        impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = Unkeyed;

            fn $put<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? value: &T) -> Done {
                $(self.canon.text($name);)?
                self.canon.add(value)?;
                self.ended();
                Ok(())
            }

            fn end(self) -> Done {
                self.close()
            }
        }
    )*};
}

kinds! {
    SerializeSeq serialize_element();
    SerializeTuple serialize_element();
    SerializeTupleStruct serialize_field();
    SerializeTupleVariant serialize_field();
    SerializeStruct serialize_field(name);
    SerializeStructVariant serialize_field(name);
}

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Unkeyed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.canon.add(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.canon.add(value)?;
        self.ended();
        Ok(())
    }

    fn end(self) -> Done {
        self.close()
    }
}

macro_rules! integers {
    ($($unsigned:ident $of_unsigned:ty, $signed:ident $of_signed:ty;)*) => {$(
        fn $unsigned(self, number: $of_unsigned) -> Done {
            self.unsigned(number.into())
        }
        fn $signed(self, number: $of_signed) -> Done {
            self.signed(number.into())
        }
    )*};
}

impl<'c> Serializer for &'c mut Canon {
    type Ok = ();
    type Error = Unkeyed;
    type SerializeSeq = Parts<'c>;
    type SerializeTuple = Parts<'c>;
    type SerializeTupleStruct = Parts<'c>;
    type SerializeTupleVariant = Parts<'c>;
    type SerializeMap = Parts<'c>;
    type SerializeStruct = Parts<'c>;
    type SerializeStructVariant = Parts<'c>;

    integers! {
        serialize_u8 u8, serialize_i8 i8;
        serialize_u16 u16, serialize_i16 i16;
        serialize_u32 u32, serialize_i32 i32;
        serialize_u64 u64, serialize_i64 i64;
        serialize_u128 u128, serialize_i128 i128;
    }

    fn serialize_bool(self, value: bool) -> Done {
        self.tag(if value { b't' } else { b'f' });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Done {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Done {
        // What is no number has many forms.
        let value = if value.is_nan() { f64::NAN } else { value };
        let bits = value.to_bits().to_le_bytes();
        self.tag(b'd').bytes.extend_from_slice(&bits);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Done {
        self.tag(b'c').number(u32::from(value).into());
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Done {
        self.tag(b's').text(value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        self.tag(b'b').number(value.len() as u128);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Done {
        self.tag(b'0');
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        self.tag(b'1').add(value)
    }

    fn serialize_unit(self) -> Done {
        self.tag(b'_');
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.variant(variant);
        self.serialize_unit()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        self.add(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        self.variant(variant);
        self.add(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'c>, Unkeyed> {
        let is_sorted = is_set(self.type_name);
        Ok(self.open(b'[', is_sorted))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'c>, Unkeyed> {
        Ok(self.open(b'[', false))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'c>, Unkeyed> {
        Ok(self.open(b'[', false))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'c>, Unkeyed> {
        self.variant(variant);
        Ok(self.open(b'[', false))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'c>, Unkeyed> {
        Ok(self.open(b'{', true))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'c>, Unkeyed> {
        Ok(self.open(b'(', true))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'c>, Unkeyed> {
        self.variant(variant);
        Ok(self.open(b'(', true))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use super::*;

    fn canon<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut canon = Canon::default();
        canon.add(value).unwrap();
        canon.bytes().to_vec()
    }

    #[derive(Serialize)]
    struct Query<'q> {
        text: &'q str,
        tags: HashSet<String>,
        limit: Option<u32>,
    }

    #[derive(Serialize)]
    enum Shape {
        Empty,
        One(u8),
        Two(u8, u8),
        Named { side: u8 },
    }

    /// Written down, so that they stay what they are: a change makes every stored key another.
    #[test]
    fn bytes_are_what_they_were() {
        let query = Query {
            text: "tea",
            tags: ["b".to_owned(), "a".to_owned()].into(),
            limit: Some(300),
        };
        assert_eq!(
            canon(&query),
            b"(\x04tags[s\x01as\x01b]\x04texts\x03tea\x05limit1u\xac\x02]"
        );
        assert_eq!(
            canon(&(-1_i8, 'x', 1.5_f32, ())),
            b"[n\x01cxd\0\0\0\0\0\0\xf8?_]"
        );
        let shapes = [
            Shape::Empty,
            Shape::One(1),
            Shape::Two(1, 2),
            Shape::Named { side: 3 },
        ];
        assert_eq!(
            canon(&shapes),
            b"[v\x05Empty_v\x03Oneu\x01v\x03Two[u\x01u\x02]v\x05Named(\x04sideu\x03]]"
        );
        assert_eq!(canon(&[None, Some(true)]), b"[01t]");
    }

    #[test]
    fn integers_are_the_same_whatever_their_width() {
        assert_eq!(canon(&7_u8), canon(&7_i128));
        assert_eq!(canon(&-7_i8), canon(&-7_i64));
        assert_ne!(canon(&7_i8), canon(&-7_i8));
        assert_eq!(canon(&u128::MAX).len(), 1 + 19);
        assert_eq!(
            canon(&i128::MIN),
            [b"n".as_slice(), &[0x80; 18], &[0x02]].concat()
        );
    }

    /// A hasher is seeded anew for each map, so equal ones are walked in different orders.
    #[test]
    fn maps_and_sets_have_one_order() {
        let names = || (0..50).map(|i| format!("name {i}"));
        let map = || names().zip(0..).collect::<HashMap<_, _>>();
        let sorted: BTreeMap<_, _> = names().zip(0..).collect();
        assert_eq!(canon(&map()), canon(&map()));
        assert_eq!(canon(&map()), canon(&sorted));
        let set = || names().collect::<HashSet<_>>();
        assert_eq!(canon(&set()), canon(&set()));
        assert_eq!(canon(&&&set()), canon(&Box::new(set())));
        assert_eq!(canon(&Some(set())), canon(&Some(set())));
        assert_eq!(canon(&vec![set()]), canon(&[set()]));
        let fast = || names().collect::<ahash::AHashSet<_>>();
        assert_eq!(canon(&fast()), canon(&fast()));
        // A list is none.
        assert_ne!(canon(&["a", "b"]), canon(&["b", "a"]));
    }

    #[test]
    fn arguments_do_not_run_together() {
        let lists: Vec<Vec<u8>> = vec![
            canon(&("ab", "c")),
            canon(&("a", "bc")),
            canon(&("a", "b", "c")),
            canon(&(("a", "b"), "c")),
            canon(&("a", ("b", "c"))),
            canon(&(vec!["a"], vec!["b", "c"])),
            canon(&(vec!["a", "b"], vec!["c"])),
            canon(&(1, 23)),
            canon(&(12, 3)),
            canon(&(Some(1), 23)),
            canon(&("1", 23)),
            canon(&(None::<u8>, ())),
            canon(&((), None::<u8>)),
        ];
        let distinct: HashSet<_> = lists.iter().collect();
        assert_eq!(distinct.len(), lists.len());
    }

    #[test]
    fn all_that_is_no_number_is_one() {
        let other = f64::from_bits(f64::NAN.to_bits() | 1);
        assert_eq!(canon(&f64::NAN), canon(&other));
        assert_ne!(canon(&0.0), canon(&-0.0));
    }

    #[test]
    fn what_cannot_be_encoded_says_why() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(ser::Error::custom("no bytes for this"))
            }
        }
        let error = Canon::default().add(&Broken).unwrap_err();
        assert_eq!(error.to_string(), "no bytes for this");
    }
}
