//! What the records of a server are called.

use crate::generation::Cells;

/// The hash of namespaces, each with its record.
pub(super) const RECORDS: &str = "__larder:namespaces";

/// What is written when something is invalidated, so that trackers hear of it.
pub(super) const TOLD: &str = "__larder:!";

/// The name of a namespace among the generations of a node.
pub(super) fn of_namespace(namespace: &str) -> String {
    format!("n:{namespace}")
}

/// The name of a tag.
pub(super) fn of_tag(namespace: &str, tag: &str) -> String {
    format!("t:{}:{namespace}{tag}", namespace.len())
}

/// The key that a tag's generation stands under.
pub(super) fn tag_key(namespace: &str, tag: &str) -> String {
    format!("__larder:{}", of_tag(namespace, tag))
}

pub(super) fn forget_namespace(marks: &Cells, namespace: &str) {
    marks.invalidate_where(|name| {
        name.strip_prefix("n:")
            .is_some_and(|name| name.starts_with(namespace) || namespace.starts_with(name))
    });
}

/// The part of a key that is its namespace.
pub(super) fn namespace(key: &str, length: usize) -> &str {
    key.get(..length).unwrap_or(key)
}
