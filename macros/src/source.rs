//! The text of a function as a number: the same however it is laid out.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use xxhash_rust::xxh3::Xxh3;

/// Signs that are one only together. Others are the same with a blank between them and without.
const OPERATORS: [&str; 25] = [
    "<<=", ">>=", "...", "..=", "::", "->", "=>", "==", "!=", "<=", ">=", "&&", "||", "+=", "-=",
    "*=", "/=", "%=", "^=", "&=", "|=", "<<", ">>", "..", "'",
];

/// A hash of these tokens, one by one: their layout and comments are nothing to it.
pub(crate) fn hash(tokens: TokenStream) -> u64 {
    let mut hasher = Xxh3::new();
    walk(tokens, &mut hasher);
    hasher.digest()
}

fn put(hasher: &mut Xxh3, kind: u8, text: &str) {
    hasher.update(&[kind]);
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn walk(tokens: TokenStream, hasher: &mut Xxh3) {
    // Signs that follow one another without a blank.
    let mut run = String::new();
    for token in tokens {
        if let TokenTree::Punct(punct) = &token {
            run.push(punct.as_char());
            if punct.spacing() == Spacing::Joint {
                continue;
            }
        }
        signs(&mut run, hasher);
        match token {
            TokenTree::Group(group) => {
                let ends = match group.delimiter() {
                    Delimiter::Parenthesis => ["(", ")"],
                    Delimiter::Brace => ["{", "}"],
                    Delimiter::Bracket => ["[", "]"],
                    Delimiter::None => ["", ""],
                };
                put(hasher, b'g', ends[0]);
                walk(group.stream(), hasher);
                put(hasher, b'g', ends[1]);
            }
            TokenTree::Ident(ident) => put(hasher, b'i', &ident.to_string()),
            TokenTree::Literal(literal) => put(hasher, b'l', &literal.to_string()),
            TokenTree::Punct(_) => {}
        }
    }
    signs(&mut run, hasher);
}

/// The signs gathered so far, the longest operators first.
fn signs(run: &mut String, hasher: &mut Xxh3) {
    let mut rest = run.as_str();
    while let Some(first) = rest.chars().next() {
        let operator = OPERATORS
            .iter()
            .find(|operator| rest.starts_with(**operator));
        let len = operator.map_or(first.len_utf8(), |operator| operator.len());
        put(hasher, b'p', &rest[..len]);
        rest = &rest[len..];
    }
    run.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> u64 {
        hash(text.parse().unwrap())
    }

    #[test]
    fn layout_is_nothing() {
        assert_eq!(
            of("let a=b+1;// one\n c ( d ,e)"),
            of("let a = b + 1;\nc(d, /* two */ e)")
        );
        assert_eq!(of("a=-1"), of("a = -1"));
        assert_eq!(of("|x|-> &'a str{*x}"), of("|x| -> &'a str { *x }"));
    }

    #[test]
    fn what_is_said_is_all() {
        let texts = [
            "a + 1",
            "a + 2",
            "a - 1",
            "b + 1",
            "(a + 1)",
            "{ a + 1 }",
            "[a + 1]",
            "a + \"1\"",
            "a && b",
            "a & &b",
            "a < -b",
            "ab",
            "a b",
            "a: :b",
            "a::b",
        ];
        let hashes: std::collections::HashSet<u64> = texts.iter().map(|text| of(text)).collect();
        assert_eq!(hashes.len(), texts.len());
    }

    /// Written down, so that it stays what it is in every version of the compiler.
    #[test]
    fn the_hash_is_what_it_was() {
        assert_eq!(
            of("fn f(a: u64) -> u64 { a + 1 }"),
            18_255_129_432_283_537_068
        );
    }
}
