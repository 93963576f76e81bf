//! The map in a file, for a start without a manager. It holds the nodes' passwords, so it is its owner's alone.

use std::path::Path;
use std::sync::Arc;

use super::lineage::Lineage;
use super::map::{Meta, RawMap};

/// A map with what is known of the time before it.
pub(super) struct Saved {
    pub(super) raw: Arc<RawMap>,
    pub(super) lineage: Lineage,
}

impl Saved {
    /// Writes the file beside itself first, so that whoever reads it never meets half of it.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        use std::io::Write;
        let meta = self.raw.meta.as_ref().map(|meta| {
            let lookup = meta.lookup.map(|rule| rule.to_string());
            serde_json::json!({ "epoch": meta.epoch, "digest": meta.digest, "lookup": lookup })
        });
        let since = self.lineage.stretches();
        let text = serde_json::json!({ "map": self.raw.fields, "meta": meta, "since": since });
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.new", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        file.write_all(text.to_string().as_bytes())?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&beside, path)
    }

    /// What the file holds, if it is one of these.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        let mut saved: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let mut fields: Vec<(String, String)> =
            serde_json::from_value(saved.get_mut("map")?.take()).ok()?;
        fields.sort_unstable();
        let meta = saved.get("meta").filter(|meta| !meta.is_null());
        let raw = RawMap {
            fields,
            meta: meta.and_then(meta_of),
        };
        let since = saved.get_mut("since").map(serde_json::Value::take);
        let lineage = since
            .and_then(|since| serde_json::from_value(since).ok())
            .and_then(Lineage::of_stretches)
            // Without it nothing is known of the time before.
            .unwrap_or_else(|| Lineage::since(raw.epoch()));
        let raw = Arc::new(raw);
        Some(Self { raw, lineage })
    }
}

fn meta_of(meta: &serde_json::Value) -> Option<Meta> {
    let text = |name| meta.get(name).and_then(serde_json::Value::as_str);
    let lookup = match text("lookup") {
        None => None,
        Some(rule) => Some(rule.parse().ok()?),
    };
    Some(Meta {
        epoch: meta.get("epoch")?.as_u64()?,
        digest: text("digest").map(str::to_owned),
        lookup,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_comes_back_and_garbage_does_not() {
        let path = std::env::temp_dir().join(format!("larder-saved-{}", std::process::id()));
        let field = |at: &str| (at.to_owned(), "redis://:secret@h:1/0".to_owned());
        let raw = RawMap {
            fields: vec![field("12"), field("7")],
            meta: Some(Meta {
                epoch: 9,
                digest: Some("abc".to_owned()),
                lookup: None,
            }),
        };
        let lineage = Lineage::of_stretches(vec![(0, 3), (7, 9)]).unwrap();
        let raw = Arc::new(raw);
        let saved = Saved { raw, lineage };
        saved.write(&path).unwrap();
        let loaded = Saved::load(&path).unwrap();
        assert!(loaded.raw == saved.raw && loaded.lineage == saved.lineage);
        // A file without it, or with garbage in its place: nothing is known of the time before.
        let text = std::fs::read_to_string(&path).unwrap();
        let garbled = text.replace("\"since\":[[0,3]", "\"since\":[[1,3]");
        assert_ne!(garbled, text);
        std::fs::write(&path, garbled).unwrap();
        assert_eq!(Saved::load(&path).unwrap().lineage, Lineage::since(9));
        std::fs::write(&path, "{}").unwrap();
        assert!(Saved::load(&path).is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(Saved::load(&path).is_none());
    }
}
