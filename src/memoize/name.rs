//! What a memoized function is called: the same in every build, and no two functions of a program alike.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::text::Text;

/// A longer name is cut, with a hash of all of it behind.
const MAX_NAME: usize = 180;

/// Where a memoized function stands. One for each.
#[derive(Debug, Default)]
pub struct Site(AtomicU8);

const ALONE: u8 = 1;
const NAMED_TWICE: u8 = 2;

/// Who has which name. As many as there are functions in the program.
static NAMES: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

impl Site {
    /// That of a function.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Whether this function alone has this name. Of two, the first that was called has it.
    pub(super) fn is_alone(&'static self, name: &str, types: Option<&str>) -> bool {
        // One with several names, a method that a trait provides, is looked up each time.
        match self.0.load(Ordering::Relaxed) {
            ALONE => true,
            NAMED_TWICE => false,
            _ => self.register(name, types.unwrap_or_default()),
        }
    }

    #[cold]
    fn register(&'static self, name: &str, types: &str) -> bool {
        let own = std::ptr::from_ref(self).addr();
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.get_or_insert_default();
        let is_alone = *names.entry(format!("{name} {types}")).or_insert(own) == own;
        let state = if is_alone { ALONE } else { NAMED_TWICE };
        self.0.store(state, Ordering::Relaxed);
        if !is_alone {
            tracing::error!(target: "larder", event = "memoized_twice", name, "two memoized functions have one name: this one is not cached");
        }
        is_alone
    }
}

/// What a function is called.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// As it was given.
    Given(&'static str),
    /// By the type that stands in for it, as the compiler names it.
    Of(&'static str),
    /// By the type whose method it is, and its own name.
    Method(&'static str, &'static str),
}

impl Name {
    /// Writes it out, and tells what it was short of: the arguments of types, which are hashed.
    #[inline]
    pub(super) fn write(self, text: &mut Text) -> Option<Cow<'static, str>> {
        match self {
            Self::Given(name) => {
                text.push(name);
                None
            }
            Self::Of(path) => put_path(text, path),
            Self::Method(path, name) => {
                let types = put_path(text, path);
                text.push("::");
                text.push(name);
                types
            }
        }
    }

    pub(super) fn tag(self, prefix: &str) -> String {
        let mut text = Text::default();
        text.push(prefix);
        self.write(&mut text);
        let name = text.as_str();
        let cut: String = name.chars().take(MAX_NAME / 2).collect();
        if cut.len() == name.len() {
            return format!("fn {name}");
        }
        format!("fn {cut}#{:016x}", xxh3_64(name.as_bytes()))
    }
}

/// The path of a type; what it was written without, if there is such: the types that it is given.
#[inline]
fn put_path(text: &mut Text, path: &'static str) -> Option<Cow<'static, str>> {
    // All bytes at once, rather than up to the first.
    let has_types = path.bytes().fold(false, |has, byte| has | (byte == b'<'));
    if has_types {
        put_path_with_types(text, path)
    } else {
        text.push(path);
        None
    }
}

#[cold]
fn put_path_with_types(text: &mut Text, path: &'static str) -> Option<Cow<'static, str>> {
    let at = path.find('<').unwrap_or(path.len());
    // A type within a function of such a type has something behind it as well: `<impl Trait for Type>::f::Local`.
    let rest = path.rsplit_once('>').map_or("", |(_, rest)| rest);
    text.push(&path[..at]);
    text.push(rest);
    let types = normal(path);
    // Lifetimes are nothing to tell types by.
    types.contains('<').then_some(types)
}

/// A type's name without lifetimes and blanks: compilers differ in whether they print them.
pub(super) fn normal(name: &'static str) -> Cow<'static, str> {
    if !name.contains(['\'', ' ']) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(next) = chars.next() {
        match next {
            '\'' => {
                let rest: String = chars.clone().collect();
                match literal(&rest) {
                    // A character, which tells types apart.
                    Some(len) => {
                        out.push('\'');
                        out.extend(chars.by_ref().take(len));
                    }
                    None => {
                        while chars
                            .next_if(|c| c.is_alphanumeric() || *c == '_')
                            .is_some()
                        {}
                    }
                }
            }
            ' ' => {}
            ',' if out.ends_with(['<', ',']) => {}
            '>' => {
                while out.ends_with(',') {
                    out.pop();
                }
                if out.ends_with('<') {
                    out.pop();
                } else {
                    out.push('>');
                }
            }
            next => out.push(next),
        }
    }
    Cow::Owned(out)
}

/// How many characters the literal has whose first sign is before this, if it is one: its last sign included.
fn literal(rest: &str) -> Option<usize> {
    let mut chars = rest.chars();
    if chars.next()? == '\\' {
        // The escaped one may be the sign itself.
        let end = rest.chars().skip(2).position(|c| c == '\'')?;
        return Some(end + 3);
    }
    (chars.next()? == '\'').then_some(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: Name) -> (String, Option<String>) {
        let mut text = Text::default();
        let types = name.write(&mut text);
        (text.as_str().to_owned(), types.map(Cow::into_owned))
    }

    #[test]
    fn names_are_paths() {
        assert_eq!(written(Name::Given("users")), ("users".into(), None));
        assert_eq!(written(Name::Of("shop::load")), ("shop::load".into(), None));
        let method = Name::Method("shop::Users", "load");
        assert_eq!(written(method), ("shop::Users::load".into(), None));
    }

    #[test]
    fn types_stand_apart() {
        let method = Name::Method("shop::Repo<shop::User, alloc::vec::Vec<u8>>", "load");
        let types = "shop::Repo<shop::User,alloc::vec::Vec<u8>>".to_owned();
        assert_eq!(written(method), ("shop::Repo::load".into(), Some(types)));
        let local = Name::Of("shop::<impl shop::Load for shop::Users>::go::load");
        let (text, types) = written(local);
        assert_eq!(text, "shop::::go::load");
        assert!(types.unwrap().contains("shop::Users"));
    }

    #[test]
    fn lifetimes_are_nothing() {
        for (name, want) in [
            ("a::B<'_>", "a::B"),
            ("a::B<'a, 'b>", "a::B"),
            ("a::B<'_, u8>", "a::B<u8>"),
            ("a::B<u8, '_>", "a::B<u8>"),
            ("(&'a str, u8)", "(&str,u8)"),
            ("a::B<C<'_>, D>", "a::B<C,D>"),
            ("a::B<'x'>", "a::B<'x'>"),
            ("a::B<'_'>", "a::B<'_'>"),
            ("a::B<'\\'', 'a>", "a::B<'\\''>"),
            ("a::B<'\\u{0}', '\\\\'>", "a::B<'\\u{0}','\\\\'>"),
        ] {
            assert_eq!(normal(name), want);
        }
        assert_eq!(
            written(Name::Method("a::B<'_>", "c")),
            ("a::B::c".into(), None)
        );
    }

    #[test]
    fn the_second_of_a_name_is_told() {
        static FIRST: Site = Site::new();
        static SECOND: Site = Site::new();
        for _ in 0..2 {
            assert!(FIRST.is_alone("a name of this test", None));
            assert!(!SECOND.is_alone("a name of this test", None));
        }
    }

    #[test]
    fn tags_are_of_bounded_length() {
        assert_eq!(Name::Given("load").tag("shop:"), "fn shop:load");
        let long = |end: &str| {
            let name = format!("{}{end}", "é".repeat(500));
            Name::Given(name.leak()).tag("")
        };
        assert!(long("a").len() < 220);
        assert_ne!(long("a"), long("b"));
    }
}
