//! The map in a file, for a start without a manager. It holds the nodes' passwords, so it is its owner's alone.
//!
//! A file may hang: a mount whose server is gone, a pipe that nobody writes into. So files are read and written on threads
//! of their own, which no runtime waits for when it ends, and the reader's is waited for no longer than a moment.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::lineage::Lineage;
use super::lock::lock;
use super::map::{Meta, RawMap};

/// How long a file may take to be read.
const READ: Duration = Duration::from_secs(1);

/// Threads that read files, at most: those of files that hang stay.
const MAX_READERS: usize = 16;

/// A larger file is none of these.
const MAX_BYTES: u64 = 256 << 20;

/// A map with what is known of the time before it.
pub(super) struct Saved {
    pub(super) raw: Arc<RawMap>,
    pub(super) lineage: Lineage,
}

impl Saved {
    /// Writes the file beside itself first, so that whoever reads it never meets half of it.
    fn write(&self, path: &Path) -> io::Result<()> {
        let meta = self.raw.meta.as_ref().map(|meta| {
            let lookup = meta.lookup.map(|rule| rule.to_string());
            serde_json::json!({ "epoch": meta.epoch, "digest": meta.digest, "lookup": lookup, "hash_tags": meta.hash_tags })
        });
        let since = self.lineage.stretches();
        let text = serde_json::json!({ "map": self.raw.fields, "meta": meta, "since": since });
        let beside = beside(path);
        let written = fresh(&beside).and_then(|mut file| {
            file.write_all(text.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)
        });
        written.inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })
    }

    /// What the file holds, if it is one of these and can be read within a moment.
    pub(super) async fn load(path: PathBuf) -> Option<Self> {
        static READERS: AtomicUsize = AtomicUsize::new(0);
        if READERS.fetch_add(1, Ordering::Relaxed) >= MAX_READERS {
            READERS.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let (answer, read) = oneshot::channel();
        let thread = thread::Builder::new().name("larder-map-read".to_owned());
        let spawned = thread.spawn(move || {
            let saved = Self::read(&path);
            READERS.fetch_sub(1, Ordering::Relaxed);
            // Nobody may be waiting any more.
            let _ = answer.send(saved);
        });
        if spawned.is_err() {
            READERS.fetch_sub(1, Ordering::Relaxed);
        }
        timeout(READ, read).await.ok()?.ok()?
    }

    fn read(path: &Path) -> Option<Self> {
        let mut text = Vec::new();
        let file = File::open(path).ok()?;
        file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
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

/// A name that no other write of any process uses at the same time.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.{count}.new", std::process::id()));
    beside.into()
}

/// A new file that is its owner's alone. One that a process of the same id left behind may be anybody's.
fn fresh(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes maps one after the other, and of those that come meanwhile the last one. Nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct Saver(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    next: Option<(PathBuf, Saved)>,
    /// Whether a thread takes what is next.
    writing: bool,
}

// The maps hold passwords.
impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue(writing {})", self.writing)
    }
}

impl Saver {
    pub(super) fn save(&self, path: PathBuf, saved: Saved) {
        let mut queue = lock(&self.0);
        queue.next = Some((path, saved));
        if queue.writing {
            return;
        }
        let shared = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("larder-map-write".to_owned());
        match thread.spawn(move || write_all(&shared)) {
            Ok(_) => queue.writing = true,
            Err(error) => not_saved(&error),
        }
    }
}

fn write_all(queue: &Mutex<Queue>) {
    loop {
        let mut waiting = lock(queue);
        let Some((path, saved)) = waiting.next.take() else {
            waiting.writing = false;
            return;
        };
        drop(waiting);
        if let Err(error) = saved.write(&path) {
            not_saved(&error);
        }
    }
}

fn not_saved(error: &io::Error) {
    tracing::warn!(target: "larder::ring", event = "map_not_saved", error = %error);
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
        hash_tags: meta.get("hash_tags").and_then(serde_json::Value::as_bool),
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
                hash_tags: Some(true),
            }),
        };
        let lineage = Lineage::of_stretches(vec![(0, 3), (7, 9)]).unwrap();
        let raw = Arc::new(raw);
        let saved = Saved { raw, lineage };
        saved.write(&path).unwrap();
        let loaded = Saved::read(&path).unwrap();
        assert!(loaded.raw == saved.raw && loaded.lineage == saved.lineage);
        // A file without it, or with garbage in its place: nothing is known of the time before.
        let text = std::fs::read_to_string(&path).unwrap();
        let garbled = text.replace("\"since\":[[0,3]", "\"since\":[[1,3]");
        assert_ne!(garbled, text);
        std::fs::write(&path, garbled).unwrap();
        assert_eq!(Saved::read(&path).unwrap().lineage, Lineage::since(9));
        std::fs::write(&path, "{}").unwrap();
        assert!(Saved::read(&path).is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(Saved::read(&path).is_none());
    }

    fn saved(epoch: u64) -> Saved {
        let raw = RawMap {
            fields: vec![("1".to_owned(), "redis://:secret@h:1/0".to_owned())],
            meta: Some(Meta {
                epoch,
                digest: None,
                lookup: None,
                hash_tags: None,
            }),
        };
        Saved {
            raw: Arc::new(raw),
            lineage: Lineage::since(epoch),
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone_whatever_was_there() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("larder-mode-{}", std::process::id()));
        let open = || std::fs::Permissions::from_mode(0o666);
        for old in [&path, &path.with_extension("old")] {
            std::fs::write(old, "old").unwrap();
            std::fs::set_permissions(old, open()).unwrap();
            drop(fresh(old).unwrap());
            assert_eq!(
                std::fs::metadata(old).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        std::fs::set_permissions(&path, open()).unwrap();
        saved(3).write(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_ne!(beside(&path), beside(&path));
        // Where it cannot be put in place, nothing is left beside.
        let taken = path.with_extension("taken");
        std::fs::create_dir_all(taken.join("x")).unwrap();
        assert!(saved(3).write(&taken).is_err());
        let name = taken.file_name().unwrap().to_string_lossy().into_owned();
        let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
        assert_eq!(left.count(), 1);
        std::fs::remove_dir_all(&taken).unwrap();
        for file in [&path, &path.with_extension("old")] {
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn of_many_maps_the_last_is_saved_and_one_thread_does_it() {
        let path = std::env::temp_dir().join(format!("larder-latest-{}", std::process::id()));
        let saver = Saver::default();
        for epoch in 1..=50 {
            saver.save(path.clone(), saved(epoch));
        }
        let began = std::time::Instant::now();
        while lock(&saver.0).writing {
            assert!(began.elapsed() < Duration::from_secs(10));
            thread::yield_now();
        }
        assert_eq!(Saved::read(&path).unwrap().raw.epoch(), 50);
        std::fs::remove_file(&path).unwrap();
        assert!(!format!("{saver:?}").contains("secret"));
    }
}
