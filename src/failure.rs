//! What stands in the place of a value that could not be computed.

use std::any::TypeId;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::{Kind, Value};

/// That a compute failed, kept in the place of a value.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<str>);

impl Failure {
    /// Longer texts are cut.
    const MAX_BYTES: usize = 1024;

    pub(crate) fn new(text: &str) -> Self {
        let mut end = text.len().min(Self::MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].into())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The failure that stands in the place of this value.
    pub(crate) fn of(value: &Value) -> Option<Arc<Self>> {
        value.clone().downcast().ok()
    }

    pub(crate) fn is_kind(kind: &Kind) -> bool {
        kind.type_id() == TypeId::of::<Self>()
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let text = "é".repeat(Failure::MAX_BYTES);
        let cut = Failure::new(&text);
        assert_eq!(cut.text().len(), Failure::MAX_BYTES);
        let odd = format!("x{text}");
        assert_eq!(Failure::new(&odd).text().len(), Failure::MAX_BYTES - 1);
        assert_eq!(Failure::new("short").text(), "short");
    }

    #[test]
    fn it_is_told_from_values() {
        let failure = Value::new(Failure::new("down"));
        assert_eq!(Failure::of(&failure).unwrap().text(), "down");
        assert!(Failure::of(&Value::new("down".to_owned())).is_none());
    }
}
