//! A hash that nobody can make collide, as text.

use sha2::{Digest, Sha256};

/// 32 digits.
pub(crate) const DIGITS: usize = 32;

/// 128 bits of SHA-256. Who chooses what is in a key must not be able to choose whose key it gets.
pub(crate) fn digits(bytes: &[u8]) -> [u8; DIGITS] {
    const DIGIT: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; DIGITS];
    for (pair, byte) in text.chunks_exact_mut(2).zip(Sha256::digest(bytes)) {
        pair[0] = DIGIT[usize::from(byte >> 4)];
        pair[1] = DIGIT[usize::from(byte & 15)];
    }
    text
}

/// The same, to be shown.
#[cfg(feature = "http")]
pub(crate) fn text(bytes: &[u8]) -> String {
    digits(bytes).iter().copied().map(char::from).collect()
}
