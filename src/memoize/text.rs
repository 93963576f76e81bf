//! A key while it is put together.

use arrayvec::ArrayString;

/// Most keys are no longer.
const ON_STACK: usize = 192;

/// Text that is on the stack while it is short.
#[derive(Default)]
pub(super) struct Text {
    short: ArrayString<ON_STACK>,
    /// All of it, once it is not.
    long: Option<String>,
}

impl Text {
    #[inline]
    pub(super) fn push(&mut self, part: &str) {
        if self.long.is_some() || self.short.try_push_str(part).is_err() {
            self.push_long(part);
        }
    }

    #[cold]
    fn push_long(&mut self, part: &str) {
        let short = &self.short;
        let long = self.long.get_or_insert_with(|| short.as_str().to_owned());
        long.push_str(part);
    }

    #[inline]
    pub(super) fn as_str(&self) -> &str {
        self.long.as_deref().unwrap_or(&self.short)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.as_str().len()
    }

    /// Takes back what was pushed behind so many bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        match &mut self.long {
            Some(long) => long.truncate(len),
            None => self.short.truncate(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_pushed() {
        for len in [0, 1, ON_STACK - 3, ON_STACK, ON_STACK + 1, 1000] {
            let mut text = Text::default();
            let begin = "x".repeat(len);
            text.push(&begin);
            text.push("(");
            let at = text.len();
            text.push("12");
            assert_eq!(text.as_str(), format!("{begin}(12"));
            text.truncate(at);
            text.push("345)");
            assert_eq!(text.as_str(), format!("{begin}(345)"), "{len}");
        }
    }
}
