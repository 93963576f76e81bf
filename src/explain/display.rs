//! The same in a line.

use std::fmt;
use std::time::Duration;

use super::{Explanation, Hit, Outcome, Place, Why};
use crate::ttl::Remaining;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key.escape_debug())?;
        for (at, place) in self.places.iter().enumerate() {
            write!(f, "{}{place}", if at == 0 { ": " } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.store)?;
        if let Some(node) = &self.node {
            write!(f, " at {node}")?;
        }
        write!(f, ": {}", self.outcome)?;
        if let Some(error) = &self.error {
            write!(f, " ({error})")?;
        }
        if self.hears_writes == Some(false) {
            f.write_str(", does not hear of writes by others")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit(hit) => write!(f, "hit, {hit}"),
            Self::Stale(hit) => write!(f, "stale, {hit}"),
            Self::Miss(why) => write!(f, "miss, {why}"),
        }
    }
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(age) = self.age {
            write!(f, "{:.1?} old, ", to_millis(age))?;
        }
        match self.remaining {
            Remaining::Forever => f.write_str("for ever")?,
            Remaining::For(left) => write!(f, "{:.1?} left", to_millis(left))?,
        }
        match self.kept {
            Remaining::For(kept) if self.kept != self.remaining => {
                write!(f, ", kept for {:.1?}", to_millis(kept))
            }
            _ => Ok(()),
        }
    }
}

fn to_millis(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
