//! How an origin tells versions of a value apart.

/// What an origin calls the version of a value that it gave, kept with the value to ask later whether there is another: the HTTP headers
/// `ETag` and `Last-Modified`, or what is like them. Kept as given, and sent back as it is.
///
/// It counts as a part of the value where that has a bound in bytes. [`Context::unchanged`](crate::Context::unchanged) has a whole example.
///
/// ```
/// use larder::Validator;
/// let validator = Validator::new().with_etag("\"33a64df5\"");
/// assert_eq!(validator.etag.as_deref(), Some("\"33a64df5\""));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validator {
    /// The name of the version.
    pub etag: Option<String>,
    /// When the value was changed last, in the words of the origin.
    pub last_modified: Option<String>,
}

impl Validator {
    /// One that says nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a name of the version.
    #[must_use]
    pub fn with_etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }

    /// The same with a date.
    #[must_use]
    pub fn with_last_modified(mut self, date: impl Into<String>) -> Self {
        self.last_modified = Some(date.into());
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Writes it: twice a length of four bytes, one more than the text's or zero for none, and the text.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for text in [&self.etag, &self.last_modified] {
            let length = text.as_ref().map_or(0, |text| text.len() + 1);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_deref().unwrap_or_default().as_bytes());
        }
    }

    /// Reads it, and what follows; nothing if it is not one.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (etag, bytes) = text(bytes)?;
        let (last_modified, bytes) = text(bytes)?;
        let validator = Self {
            etag,
            last_modified,
        };
        Some((validator, bytes))
    }
}

fn text(bytes: &[u8]) -> Option<(Option<String>, &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let Some(length) = u32::from_le_bytes(*length).checked_sub(1) else {
        return Some((None, bytes));
    };
    let (text, bytes) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    let text = std::str::from_utf8(text).ok()?;
    Some((Some(text.to_owned()), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_else() {
        let text = |text: &str| Some(text.to_owned());
        let both = [None, text(""), text("\"33a64df5\""), text("é")];
        for (etag, last_modified) in both.iter().flat_map(|a| both.iter().map(move |b| (a, b))) {
            let validator = Validator {
                etag: etag.clone(),
                last_modified: last_modified.clone(),
            };
            assert_eq!(
                validator.is_empty(),
                etag.is_none() && last_modified.is_none()
            );
            let mut bytes = Vec::new();
            validator.write(&mut bytes);
            for end in 0..bytes.len() {
                assert!(Validator::read(&bytes[..end]).is_none(), "cut to {end}");
            }
            bytes.extend_from_slice(b"rest");
            assert_eq!(Validator::read(&bytes), Some((validator, &b"rest"[..])));
        }
        assert!(
            Validator::read(&[0xFF; 40]).is_none(),
            "a length without its bytes"
        );
        assert!(
            Validator::read(&[2, 0, 0, 0, 0xFF, 0, 0, 0, 0]).is_none(),
            "no text"
        );
    }
}
