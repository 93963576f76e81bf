//! What is logged while a row wants to know. With a password on every server the log goes to the output instead.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::password;

static KEEPING: AtomicBool = AtomicBool::new(false);
static KEPT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Keep;

impl io::Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        KEPT.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn install() {
    if password().is_some() {
        return;
    }
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(|| Keep)
        .finish()
        .with(dynamic_filter_fn(|_, _| KEEPING.load(Ordering::Relaxed)));
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
}

/// From now on.
pub(crate) fn keep() {
    KEEPING.store(true, Ordering::Relaxed);
}

/// All of it, and no more from now on.
pub(crate) fn kept() -> String {
    KEEPING.store(false, Ordering::Relaxed);
    let kept = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    String::from_utf8_lossy(&kept).into_owned()
}
