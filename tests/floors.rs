//! Modules import only from floors below their own, and from the module that defines the thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with its floor; the longest name that fits counts.
const FLOORS: &[(&str, u32)] = &[
    ("error", 0),
    ("ttl", 0),
    ("clock", 0),
    ("digest", 0),
    ("refusal", 0),
    ("option", 0),
    ("op", 0),
    ("sync", 0),
    ("report", 1),
    ("validator", 0),
    ("coherence", 1),
    ("key", 1),
    ("commands", 0),
    ("refresh", 1),
    ("tasks", 1),
    ("value", 1),
    ("ringmap", 1),
    ("failure", 2),
    ("generation", 2),
    ("options", 3),
    ("entry", 3),
    ("stats", 3),
    ("flight", 3),
    ("fence", 3),
    ("context", 4),
    ("codec", 4),
    ("explain", 4),
    ("core", 5),
    ("backend", 6),
    ("wire", 7),
    ("backends::null", 7),
    ("backends::moka", 7),
    ("backends::redis", 8),
    ("wrap::tiered", 8),
    ("wrap::prefixed", 8),
    ("ring", 9),
    ("cache", 10),
    ("http", 11),
    ("memoize", 11),
    ("config", 11),
    ("metrics", 11),
    ("testing", 11),
    ("conformance", 12),
    ("manager", 13),
];

fn floor(module: &str) -> Option<(&'static str, u32)> {
    let fits = |name: &str| module == name || module.starts_with(&format!("{name}::"));
    let found = FLOORS.iter().filter(|(name, _)| fits(name));
    found.max_by_key(|(name, _)| name.len()).copied()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            // What a macro names in the crate of its caller is no import.
            if !path.starts_with("__") {
                found.push(path);
            }
        }
    }
}

/// The module that a file is, `backends::moka` for `src/backends/moka.rs`.
fn module(root: &Path, path: &Path) -> String {
    let path = path
        .strip_prefix(root)
        .expect("a file of ours")
        .with_extension("");
    let parts: Vec<_> = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    parts.join("::").trim_end_matches("::mod").to_owned()
}

/// The code that is not tests, without comments.
fn code(text: &str) -> String {
    let shipped = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let lines = shipped
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// What a file names of the house: the paths after `crate::`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let path: String = code[at + 7..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
            .collect();
        // What a macro names in the crate of its caller is no import.
        if !path.starts_with("__") {
            found.push(path);
        }
    }
    found
}

#[test]
fn imports_go_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let mut wrong = BTreeMap::new();
    for path in files {
        let name = module(&root, &path);
        if name == "lib" || name == "backends" || name == "wrap" || name.ends_with("tests") {
            continue;
        }
        // The program is a crate of its own.
        if name.starts_with("bin::") {
            continue;
        }
        let Some((room, own)) = floor(&name) else {
            wrong.insert(name, "stands on no floor".to_owned());
            continue;
        };
        for import in imports(&code(&fs::read_to_string(&path).expect("a source"))) {
            match floor(&import) {
                Some((other, below)) if other == room || below < own => {}
                Some(_) => {
                    wrong.insert(
                        name.clone(),
                        format!("imports {import} from its own floor or above"),
                    );
                }
                None => {
                    wrong.insert(
                        name.clone(),
                        format!("imports {import} through the crate's root"),
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_sees_what_it_is_for() {
    assert_eq!(
        imports("use crate::cache::Cache; $crate::x; mycrate::y"),
        ["cache::Cache"]
    );
    assert_eq!(
        floor("backends::moka::housekeeping"),
        Some(("backends::moka", 7))
    );
    assert_eq!(
        code("a // crate::b\n#[cfg(test)]\nmod tests { crate::c }").trim(),
        "a"
    );
}

/// docs/EVENTS.md has each event that is told of, and no other.
#[test]
fn events_are_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut told = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source");
        let calls = text.split("event = \"").skip(1);
        told.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    let page = fs::read_to_string(root.join("docs/EVENTS.md")).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows
        .filter_map(|row| Some(row.split_once('`')?.0.to_owned()))
        .collect();
    assert_eq!(told, documented);
}
