use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// How the positions of a map are sorted before a key looks for the first greater one.
///
/// Its text form, for settings and urls, is `auto`, `numeric` or `lexicographic` (`lex` is read too).
///
/// ```
/// use larder::ring::Order;
/// assert_eq!("lex".parse::<Order>()?, Order::Lexicographic);
/// assert_eq!(Order::default().to_string(), "auto");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// What the map's publisher says, else numeric.
    #[default]
    Auto,
    /// As numbers: the true next position.
    Numeric,
    /// As the Python SDK does: sorted as text, then the first whose number is greater than the hash. For fleets
    /// that share a ring which the Python server wrote.
    Lexicographic,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Numeric => "numeric",
            Self::Lexicographic => "lexicographic",
        })
    }
}

impl FromStr for Order {
    type Err = Error;

    /// # Errors
    ///
    /// `ErrorKind::Config` for any other word.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "auto" => Ok(Self::Auto),
            "numeric" => Ok(Self::Numeric),
            "lexicographic" | "lex" => Ok(Self::Lexicographic),
            _ => Err(Error::new(
                ErrorKind::Config,
                "an order is auto, numeric or lexicographic",
            )
            .with("order", text)),
        }
    }
}
