//! Arguments that are integers and booleans, written out.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Impossible, Serializer};

use super::text::Text;
use crate::option::refuse;

/// Writes a tuple of integers and booleans with commas between; refuses all else, and then leaves some of it behind.
pub(super) struct Plain<'t> {
    text: &'t mut Text,
    begin: usize,
    depth: u8,
}

impl<'t> Plain<'t> {
    pub(super) fn new(text: &'t mut Text) -> Self {
        Self {
            begin: text.len(),
            text,
            depth: 0,
        }
    }
}

/// It is something else.
#[derive(Debug)]
pub(super) struct Other;

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an integer nor a boolean")
    }
}

impl std::error::Error for Other {}

impl ser::Error for Other {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Done = Result<(), Other>;
type Never = Impossible<(), Other>;

macro_rules! integers {
    ($($name:ident($type:ty)),* $(,)?) => {$(
        #[inline]
        fn $name(self, number: $type) -> Done {
            self.text.push(itoa::Buffer::new().format(number));
            Ok(())
        }
    )*};
}

impl Serializer for &mut Plain<'_> {
    type Ok = ();
    type Error = Other;
    type SerializeSeq = Never;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    integers! {
        serialize_u8(u8), serialize_i8(i8), serialize_u16(u16), serialize_i16(i16), serialize_u32(u32),
        serialize_i32(i32), serialize_u64(u64), serialize_i64(i64), serialize_u128(u128), serialize_i128(i128),
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Done {
        self.text.push(if value { "true" } else { "false" });
        Ok(())
    }

    /// The tuple of all arguments; one within it is something else.
    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, Other> {
        self.depth += 1;
        if self.depth > 1 { Err(Other) } else { Ok(self) }
    }

    /// No arguments at all.
    #[inline]
    fn serialize_unit(self) -> Done {
        if self.depth > 0 { Err(Other) } else { Ok(()) }
    }

    refuse! { Other;
        serialize_f32(f32) -> (), serialize_f64(f64) -> (), serialize_char(char) -> (), serialize_str(&str) -> (),
        serialize_bytes(&[u8]) -> (), serialize_none() -> (), serialize_unit_struct(&'static str) -> (),
        serialize_unit_variant(&'static str, u32, &'static str) -> (), serialize_seq(Option<usize>) -> Never,
        serialize_tuple_struct(&'static str, usize) -> Never,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never,
        serialize_map(Option<usize>) -> Never, serialize_struct(&'static str, usize) -> Never,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never,
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Done {
        Err(Other)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Done {
        Err(Other)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Done {
        Err(Other)
    }
}

impl ser::SerializeTuple for &mut Plain<'_> {
    type Ok = ();
    type Error = Other;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        if self.text.len() > self.begin {
            self.text.push(",");
        }
        value.serialize(&mut **self)
    }

    #[inline]
    fn end(self) -> Done {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<T: Serialize>(arguments: T) -> Option<String> {
        let mut text = Text::default();
        text.push("f(");
        let is_plain = arguments.serialize(&mut Plain::new(&mut text)).is_ok();
        is_plain.then(|| text.as_str().to_owned())
    }

    #[derive(Serialize)]
    struct Id(u64);

    #[test]
    fn integers_and_booleans_are_written_out() {
        assert_eq!(written(()).as_deref(), Some("f("));
        assert_eq!(written((1,)).as_deref(), Some("f(1"));
        let arguments = (0_u8, true, i128::MIN, u64::MAX, Id(7), false);
        assert_eq!(
            written(arguments).as_deref(),
            Some("f(0,true,-170141183460469231731687303715884105728,18446744073709551615,7,false")
        );
    }

    #[test]
    fn all_else_is_refused() {
        for nothing in [
            written(("1",)),
            written((1, '1')),
            written((1, 1.0)),
            written((1, (1,))),
            written((1, ())),
            written((Some(1),)),
            written((None::<u8>,)),
            written((vec![1],)),
        ] {
            assert_eq!(nothing, None);
        }
    }
}
