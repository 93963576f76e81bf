//! How a value is stored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::generation::{MAX_TAG_BYTES, MAX_TAGS};
use crate::ttl::Ttl;

/// How a value is stored: its ttl, and its tags. A [`Duration`] or a [`Ttl`] alone is one.
///
/// ```
/// use std::time::Duration;
/// use larder::Options;
/// let options = Options::ttl(Duration::from_secs(60)).tag("users").tag("user:42");
/// assert_eq!(options.tags().collect::<Vec<_>>(), ["users", "user:42"]);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    pub(crate) ttl: Ttl,
    pub(crate) tags: Vec<Box<str>>,
}

impl Options {
    /// With this ttl.
    #[must_use]
    pub fn ttl(ttl: impl Into<Ttl>) -> Self {
        Self {
            ttl: ttl.into(),
            tags: Vec::new(),
        }
    }

    /// Adds a tag: [`invalidate_tag`](crate::Cache::invalidate_tag) makes every value that has it nothing.
    ///
    /// At most 32 tags of 1 to 255 bytes each; more, or other ones, are refused with [`ErrorKind::Key`] where the value is to be
    /// stored. One that is there already is not added.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        self.add(tag.into());
        self
    }

    /// The tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|tag| &**tag)
    }

    fn add(&mut self, tag: Box<str>) {
        // One more than there may be is refused later.
        if self.tags.len() <= MAX_TAGS && !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
    }

    /// Refuses tags that cannot be kept.
    pub(crate) fn check(&self) -> Result<()> {
        if self.tags.len() > MAX_TAGS {
            let why = format!("a value has {MAX_TAGS} tags at most");
            return Err(Error::new(ErrorKind::Key, why));
        }
        self.tags.iter().try_for_each(|tag| check_tag(tag))
    }
}

/// Refuses a tag that cannot be kept.
pub(crate) fn check_tag(tag: &str) -> Result<()> {
    let why = if tag.is_empty() {
        "a tag must not be empty".to_owned()
    } else if tag.len() > MAX_TAG_BYTES {
        format!("a tag has {MAX_TAG_BYTES} bytes at most")
    } else if tag.chars().any(char::is_control) {
        "a tag must not hold control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Key, why).with("tag", tag.escape_debug()))
}

impl From<Ttl> for Options {
    fn from(ttl: Ttl) -> Self {
        Self::ttl(ttl)
    }
}

impl From<Duration> for Options {
    fn from(ttl: Duration) -> Self {
        Self::ttl(ttl)
    }
}

/// What a compute of [`get_or_set_with`](crate::Cache::get_or_set_with) is given: through it, it says how its value is stored,
/// by what it found.
///
/// Clones are the same context. What is said after the compute has ended counts for nothing.
#[derive(Clone, Debug)]
pub struct Context(Arc<Mutex<Options>>);

impl Context {
    pub(crate) fn new(options: Options) -> Self {
        Self(Arc::new(Mutex::new(options)))
    }

    fn lock(&self) -> MutexGuard<'_, Options> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the ttl.
    pub fn set_ttl(&self, ttl: impl Into<Ttl>) {
        self.lock().ttl = ttl.into();
    }

    /// Adds a tag, as [`Options::tag`] does. If it was invalidated since the compute began, the value is not stored.
    pub fn tag(&self, tag: impl Into<Box<str>>) {
        self.lock().add(tag.into());
    }

    /// How the value would be stored as things stand.
    #[must_use]
    pub fn options(&self) -> Options {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_cannot_be_kept_are_refused() {
        let options = Options::ttl(Ttl::Forever).tag("a").tag("a").tag("b");
        assert_eq!(options.tags().count(), 2);
        options.check().unwrap();
        let many = (0..40).fold(Options::default(), |options, i| options.tag(i.to_string()));
        for options in [
            many,
            Options::default().tag(""),
            Options::default().tag("a\nb"),
            Options::default().tag("x".repeat(MAX_TAG_BYTES + 1)),
        ] {
            assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Key);
        }
        Options::default()
            .tag("x".repeat(MAX_TAG_BYTES))
            .check()
            .unwrap();
    }
}
