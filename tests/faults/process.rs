//! Processes of their own: this binary, started again to call a cache as it is told.
//!
//! A process says `ready`, waits for a line, and calls. Each time its compute begins it says `computing`; in the end, `done` with what
//! its callers saw. It ends with its input, so none is left behind.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use larder::{Cache, Moka, Options, Redis, Tiered};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const NAME: &str = "LARDER_FAULTS_PROCESS";
const HOUR: Duration = Duration::from_secs(3600);

/// Nothing that a process says is waited for longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a process does: so many callers of one key, each of whose computes takes `takes` and answers the process's own number.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) url: String,
    pub(crate) number: u64,
    pub(crate) callers: usize,
    pub(crate) takes: Duration,
    /// Zero for none.
    pub(crate) lease: Duration,
}

impl Task {
    fn words(&self) -> String {
        let (takes, lease) = (self.takes.as_millis(), self.lease.as_millis());
        format!(
            "{} {} {} {takes} {lease}",
            self.url, self.number, self.callers
        )
    }

    fn read(words: &str) -> Option<Self> {
        let mut words = words.split(' ');
        let url = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(Self {
            url,
            number: number()?,
            callers: usize::try_from(number()?).ok()?,
            takes: Duration::from_millis(number()?),
            lease: Duration::from_millis(number()?),
        })
    }
}

/// What the callers of a process saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) computes: u64,
    pub(crate) slowest: Duration,
    /// Each value that was answered, once.
    pub(crate) values: Vec<u64>,
    pub(crate) errors: u64,
    /// Values that were not stored because they came too late.
    pub(crate) outrun: u64,
}

impl Seen {
    fn words(&self) -> String {
        let values: Vec<String> = self.values.iter().map(u64::to_string).collect();
        let (computes, slowest) = (self.computes, self.slowest.as_micros());
        let (errors, outrun) = (self.errors, self.outrun);
        format!(
            "done {computes} {slowest} {errors} {outrun} {}",
            values.join(",")
        )
    }

    fn read(words: &str) -> Option<Self> {
        let mut words = words.strip_prefix("done ")?.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (computes, slowest, errors, outrun) = (number()?, number()?, number()?, number()?);
        let values = words.next()?.split(',');
        Some(Self {
            computes,
            slowest: Duration::from_micros(slowest),
            values: values.filter_map(|value| value.parse().ok()).collect(),
            errors,
            outrun,
        })
    }
}

/// Does what a process is for, if this is one.
pub(crate) fn played() -> Option<ExitCode> {
    let task = env::var(NAME).ok()?;
    let task = Task::read(&task).expect("a task");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(play(task));
    Some(ExitCode::SUCCESS)
}

/// Lines of the input; where it ends, so does the process.
fn input() -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel(8);
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = tell.blocking_send(line);
        }
        std::process::exit(0);
    });
    told
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn play(task: Task) {
    let mut input = input();
    let redis = Redis::builder(&task.url).leader_patience(PATIENCE);
    let cache = Tiered::new(Moka::new(100), redis.connect().await.expect("connected"));
    say("ready");
    let _ = input.recv().await;
    let options = match task.lease {
        Duration::ZERO => Options::ttl(HOUR),
        lease => Options::ttl(HOUR).lease(lease),
    };
    let mut calls = JoinSet::new();
    for _ in 0..task.callers {
        let (cache, options) = (cache.clone(), options.clone());
        calls.spawn(async move {
            let began = Instant::now();
            let compute = || async {
                say("computing");
                sleep(task.takes).await;
                task.number
            };
            let answer = cache.get_or_set("herd", options, compute).await;
            (answer, began.elapsed())
        });
    }
    let mut seen = Seen::default();
    while let Some(call) = calls.join_next().await {
        let (answer, took) = call.expect("a caller");
        seen.slowest = seen.slowest.max(took);
        match answer {
            Ok(value) if seen.values.contains(&value) => {}
            Ok(value) => seen.values.push(value),
            Err(_) => seen.errors += 1,
        }
    }
    let stats = cache.stats();
    (seen.computes, seen.outrun) = (stats.computes, stats.outrun);
    say(&seen.words());
    // Until it is ended.
    let _ = input.recv().await;
}

/// A process, killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    said: mpsc::Receiver<String>,
}

impl Process {
    /// Starts one, and waits until it is ready.
    pub(crate) async fn start(task: &Task) -> Self {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .env(NAME, task.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let (tell, said) = mpsc::channel(64);
        let output = child.stdout.take().expect("its output");
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = tell.blocking_send(line);
            }
        });
        let input = child.stdin.take().expect("its input");
        let mut process = Self { child, input, said };
        process.hear("ready").await;
        process
    }

    pub(crate) fn go(&mut self) {
        writeln!(self.input, "go").expect("it listens");
    }

    /// Waits until it says something that begins so; answers all of it.
    pub(crate) async fn hear(&mut self, begins: &str) -> String {
        let heard = async {
            while let Some(line) = self.said.recv().await {
                if line.starts_with(begins) {
                    return line;
                }
            }
            panic!("a process ended before it said {begins:?}");
        };
        let heard = timeout(PATIENCE, heard).await;
        heard.unwrap_or_else(|_| panic!("a process did not say {begins:?}"))
    }

    /// What its callers saw, once all have their answers.
    pub(crate) async fn seen(&mut self) -> Seen {
        Seen::read(&self.hear("done ").await).expect("what was seen")
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "kill -s {name}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
