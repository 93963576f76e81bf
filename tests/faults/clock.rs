//! A server whose wall clock steps. This process goes by a clock of its own.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::{Duration, Instant};

use larder::{Cache, Moka, Redis, Tiered};
use tokio::time::sleep;

use crate::load::{admin, keys, told, until};
use crate::report::{D, Report};
use crate::support::Server;
use crate::traffic::{Tier, Traffic, gaps, heard, is_in_memory, tier};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A server, and by how many seconds its clock is off.
struct Skewed {
    server: Server,
    off: File,
    dir: PathBuf,
}

impl Skewed {
    async fn start() -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{}", process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let (library, off) = (dir.join("clock.so"), dir.join("off"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .status();
        let built = built.expect("a C compiler, `cc`");
        assert!(
            built.success(),
            "a clock is preloaded here: that needs Linux"
        );
        fs::write(&off, 0_i64.to_ne_bytes()).expect("written");
        let [preload, path] = [&library, &off].map(|path| path.to_str().expect("text"));
        let env = [("LD_PRELOAD", preload), ("LARDER_CLOCK", path)];
        Self {
            server: Server::start_in(&env).await,
            off: File::options().write(true).open(&off).expect("the file"),
            dir,
        }
    }

    fn set(&self, seconds: i64) {
        self.off
            .write_all_at(&seconds.to_ne_bytes(), 0)
            .expect("written");
    }
}

impl Drop for Skewed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// How long memory answers a key that lives for `life`, if the clock steps right after it was read.
async fn served(skewed: &Skewed, tier: &Tier, life: Duration, step: i64) -> Duration {
    skewed.set(0);
    let mut connection = admin(&skewed.server).await;
    let life = life.as_millis().to_string();
    told(&mut connection, &["SET", "k", "text", "PX", &life]).await;
    until(SECOND, async || {
        let read = tier.get::<String>("k").await;
        read.is_ok() && is_in_memory(tier, "k")
    })
    .await;
    skewed.set(step);
    let began = Instant::now();
    until(SECOND * 2, async || !is_in_memory(tier, "k")).await;
    began.elapsed()
}

/// Two minutes forward and back.
pub(crate) async fn wall_clock_steps() -> Report {
    let skewed = Skewed::start().await;
    let url = skewed.server.url(0);
    let mut report = Report::default();
    let cache = tier(&url, SECOND).await;
    for (step, what) in [(120, "forward"), (-120, "back")] {
        let life = SECOND / 2;
        let took = served(&skewed, &cache, life, step).await;
        report.within(
            &format!("{what}: a copy of half a second is answered for"),
            took,
            life,
        );
    }
    let mut connection = admin(&skewed.server).await;
    let left = told(&mut connection, &["PTTL", "k"]).await;
    report.note(format!("the server gives it {left:?} ms more"));
    let capped = Tiered::builder(
        Moka::new(100),
        Redis::connect(&url).await.expect("connected"),
    );
    let capped = heard(capped.max_l1_ttl(SECOND / 5).build()).await;
    let took = served(&skewed, &capped, SECOND * 60, -120).await;
    report.within("back, max_l1_ttl 200 ms: answered for", took, SECOND / 5);

    let writer = Redis::connect(&url).await.expect("connected");
    let traffic = Traffic::over(&keys(64));
    let (reading, writing) = (traffic.read(&cache), traffic.write(&writer, 1, MS));
    for off in [0, 120, 0, -120, 0, 120, -120, 120] {
        skewed.set(off);
        sleep(SECOND * 2 / 5).await;
    }
    traffic.end();
    let (seen, written) = (
        reading.await.expect("a reader"),
        writing.await.expect("a writer"),
    );
    seen.lags.judge(&mut report, "", SECOND);
    report.none(
        "errors, wrong",
        seen.tally.failures() + seen.tally.wrong + written.failures(),
    );
    report.within("max op", seen.tally.max(), D);
    report.none("gaps", gaps(&cache));
    report.note(seen.tally.summary());
    report
}
