//! Which keys are usable.

use crate::error::{Error, ErrorKind, Result};

/// The longest key in bytes, prefix included.
pub const MAX_KEY_BYTES: usize = 1024;

/// Keys that begin like this are the cache's own.
pub const RESERVED: [&str; 3] = ["lk:", "__larder", "HASH_RING"];

/// What the keys begin with under which computes note that they have begun.
#[cfg(feature = "redis")]
pub(crate) const TOKENS: &str = "lk:";

/// Checks a key as it will be stored, prefix included.
///
/// # Errors
///
/// [`ErrorKind::Key`] if it is empty, longer than [`MAX_KEY_BYTES`], holds a control character, or begins with one of [`RESERVED`].
pub fn check(key: &str) -> Result<()> {
    let problem = if key.is_empty() {
        "a key must not be empty"
    } else if key.len() > MAX_KEY_BYTES {
        "a key must not be longer than 1024 bytes, prefix included"
    } else if RESERVED.iter().any(|prefix| key.starts_with(prefix)) {
        "keys that begin with lk:, __larder or HASH_RING are reserved"
    } else if has_control(key) {
        "a key must not hold control characters"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Key, problem).with("key", key))
}

/// Whether a key holds a control character. Nearly all keys are ASCII, where looking at bytes is enough.
fn has_control(key: &str) -> bool {
    let bytes = key.as_bytes();
    let ascii = |found, byte: &u8| found | (*byte < b' ') | (*byte == 0x7f);
    bytes.iter().fold(false, ascii) || (!key.is_ascii() && key.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_keys_pass() {
        for key in [
            "a",
            "user:42",
            "日本",
            "with space",
            "lk",
            "a:lk:b",
            &"x".repeat(1024),
        ] {
            assert!(check(key).is_ok(), "{key}");
        }
    }

    #[test]
    fn unusable_keys_are_refused() {
        for key in [
            "",
            "a\nb",
            "\0",
            "tab\t",
            "\u{7f}",
            "\u{85}",
            "lk:a",
            "__larder:x",
            "HASH_RING_MAP",
            &"x".repeat(1025),
        ] {
            assert_eq!(
                check(key).map_err(|e| e.kind()),
                Err(ErrorKind::Key),
                "{key}"
            );
        }
    }
}
