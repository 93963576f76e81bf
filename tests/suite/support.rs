//! Real servers for the tests: `Server::start().await` gives one of its own on a free port.
//!
//! Which binary: `LARDER_REDIS_SERVER`, else `redis-server` or `valkey-server` on PATH; without one, a panic.
//! With `LARDER_TEST_PASSWORD` set, each server demands that password (letters, digits and `-`, so that
//! it looks the same in a url), and `url` carries it.
#![allow(dead_code, reason = "not every build of the suite uses all of the kit")]

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A server that does not answer by then does not start.
const START: Duration = Duration::from_secs(10);
/// How many ports are tried before giving up.
const PORTS: usize = 20;
/// How long one helper command may take.
const COMMAND: Duration = Duration::from_secs(5);

/// A server process of this test's own, without persistence. Dropped, it is killed and its directory removed.
///
/// It also ends when the test process is killed: see [`Running`].
pub(crate) struct Server {
    port: u16,
    dir: PathBuf,
    args: Vec<String>,
    /// Further lines of its settings.
    lines: String,
    /// Further variables of its environment.
    env: Vec<(String, String)>,
    binary: PathBuf,
    running: Mutex<Option<Running>>,
}

/// Prints every event of the crate and of what it uses when a password is looked for in all output.
fn show_logs() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if password().is_some() {
        ONCE.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_test_writer()
                .init();
        });
    }
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further settings, as on its command line: `&["--maxmemory", "1mb"]`.
    pub(crate) async fn start_with(args: &[&str]) -> Self {
        Self::launched(args, String::new(), &[]).await
    }

    /// Starts a server of this binary rather than of all others'.
    pub(crate) async fn made_by(binary: PathBuf) -> Self {
        Self::launched_of(binary, &[], String::new(), &[]).await
    }

    /// Starts a server with further variables in its environment.
    pub(crate) async fn start_in(env: &[(&str, &str)]) -> Self {
        Self::launched(&[], String::new(), env).await
    }

    /// Starts a replica of another server.
    pub(crate) async fn replica_of(master: &Self) -> Self {
        let mut lines = format!("replicaof 127.0.0.1 {}\n", master.port());
        if let Some(password) = password() {
            lines += &format!("masterauth {password}\n");
        }
        Self::launched(&[], lines, &[]).await
    }

    /// Starts a sentinel that watches a master by itself, and replaces it soon.
    pub(crate) async fn sentinel_of(master: &Self, name: &str) -> Self {
        Self::sentinel_of_port(master.port(), name).await
    }

    pub(crate) async fn sentinel_of_port(port: u16, name: &str) -> Self {
        let mut lines = format!(
            "sentinel monitor {name} 127.0.0.1 {port} 1\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n"
        );
        if let Some(password) = password() {
            lines += &format!("sentinel auth-pass {name} {password}\n");
        }
        Self::launched(&["--sentinel"], lines, &[]).await
    }

    async fn launched(args: &[&str], lines: String, env: &[(&str, &str)]) -> Self {
        Self::launched_of(binary(), args, lines, env).await
    }

    async fn launched_of(
        binary: PathBuf,
        args: &[&str],
        lines: String,
        env: &[(&str, &str)],
    ) -> Self {
        show_logs();
        let mut last = String::new();
        for _ in 0..PORTS {
            let port = free_port();
            let server = Self {
                port,
                dir: private_dir(port),
                args: args.iter().map(ToString::to_string).collect(),
                lines: lines.clone(),
                env: env
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect(),
                binary: binary.clone(),
                running: Mutex::new(None),
            };
            match server.launch().await {
                Ok(()) => return server,
                Err(Launch::PortTaken) => last = format!("port {port} was taken"),
                Err(Launch::Failed(why)) => panic!("{}: {why}", binary.display()),
            }
        }
        panic!("no server started on {PORTS} ports; the last one: {last}");
    }

    /// `redis://127.0.0.1:port/db`, with the password where there is one.
    pub(crate) fn url(&self, db: u8) -> String {
        let user = password().map_or_else(String::new, |password| format!(":{password}@"));
        format!("redis://{user}127.0.0.1:{}/{db}", self.port)
    }

    /// The port on 127.0.0.1, the same for the life of this value.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server.
    ///
    /// # Panics
    ///
    /// After [`Server::kill`].
    pub(crate) fn pid(&self) -> u32 {
        self.running()
            .as_ref()
            .expect("the server was killed")
            .server
            .id()
    }

    /// Ends the server at once (SIGKILL), as a crash would: its data is gone, connections are reset, new ones refused.
    pub(crate) fn kill(&self) {
        drop(self.running().take());
    }

    /// Kills the server if it runs, and starts it on the same port, empty.
    pub(crate) async fn restart(&self) {
        self.kill();
        let until = Instant::now() + START;
        loop {
            match self.launch().await {
                Ok(()) => return,
                Err(Launch::PortTaken) if Instant::now() < until => {
                    sleep(Duration::from_millis(50)).await
                }
                Err(Launch::PortTaken) => panic!("port {} is taken by somebody else", self.port),
                Err(Launch::Failed(why)) => panic!("restart: {why}"),
            }
        }
    }

    /// Freezes the server (SIGSTOP): connections stay open, new ones are accepted by the kernel, nothing answers.
    pub(crate) fn pause(&self) {
        signal("STOP", self.pid());
    }

    /// Ends [`Server::pause`].
    pub(crate) fn resume(&self) {
        signal("CONT", self.pid());
    }

    /// Runs one command on a connection of its own and gives the answer as it came.
    ///
    /// # Panics
    ///
    /// Where the server answers with an error, or not within five seconds.
    pub(crate) async fn raw(&self, db: u8, command: &[&str]) -> Value {
        match self.try_raw(db, command).await {
            Ok(value) => value,
            Err(error) => panic!("{} on port {}: {error}", command[0], self.port),
        }
    }

    /// Like [`Server::raw`], with the server's error as a result.
    pub(crate) async fn try_raw(&self, db: u8, command: &[&str]) -> redis::RedisResult<Value> {
        let answer = async {
            let client = redis::Client::open(self.url(db))?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let mut cmd = redis::cmd(command[0]);
            cmd.arg(&command[1..]).query_async(&mut connection).await
        };
        let timed_out =
            || io::Error::new(io::ErrorKind::TimedOut, "no answer from the test's server");
        timeout(COMMAND, answer)
            .await
            .unwrap_or_else(|_| Err(timed_out().into()))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One try on this port.
    async fn launch(&self) -> Result<(), Launch> {
        let log = self.dir.join("log");
        let mut started = Running::spawn(self, &log);
        let until = Instant::now() + START;
        loop {
            if let Some(status) = started.server.try_wait().expect("wait for the server") {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(if log.contains("in use") || log.contains("bind:") {
                    Launch::PortTaken
                } else {
                    Launch::Failed(format!("{status}: {log}"))
                });
            }
            match process_behind(self.port).await {
                Some(pid) if pid == started.server.id() => {
                    *self.running() = Some(started);
                    return Ok(());
                }
                // Somebody else's server answers; ours is about to find its port taken.
                Some(_) => return Err(Launch::PortTaken),
                None if Instant::now() > until => {
                    return Err(Launch::Failed(format!("no answer within {START:?}")));
                }
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

enum Launch {
    PortTaken,
    Failed(String),
}

/// A server process and its guard: a shell that waits for the end of a pipe which only this process
/// holds open. When the test dies, however it dies, the pipe closes and the shell kills the server.
struct Running {
    server: Child,
    guard: Child,
}

impl Running {
    fn spawn(of: &Server, log: &Path) -> Self {
        let conf = of.dir.join("conf");
        fs::write(&conf, settings(of)).expect("write the server's settings");
        let log = File::create(log).expect("create the server's log");
        let binary = &of.binary;
        // Groups of their own: an interrupt from the keyboard reaches the test alone.
        let server = Command::new(binary)
            .arg(conf)
            .args(&of.args)
            .envs(of.env.iter().cloned())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("share the server's log"))
            .stdout(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let guard = Command::new("sh")
            .args(["-c", r#"read -r _; kill -KILL "$1"; rm -rf "$2""#, "sh"])
            .arg(server.id().to_string())
            .arg(&of.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start sh");
        Self { server, guard }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The guard first, so that it never kills a process id that is no longer the server's.
        for child in [&mut self.guard, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The password that every server of this run demands, if any.
pub(crate) fn password() -> Option<String> {
    env::var("LARDER_TEST_PASSWORD")
        .ok()
        .filter(|password| !password.is_empty())
}

/// In a file rather than on the command line, where every user of the machine could read the password.
fn settings(of: &Server) -> String {
    let (port, dir) = (of.port, of.dir.display());
    let mut text = format!("bind 127.0.0.1\nport {port}\ndir {dir}\n");
    if !of.args.iter().any(|arg| arg == "--sentinel") {
        text += "save \"\"\nappendonly no\n";
    }
    text += &of.lines;
    if let Some(password) = password() {
        text += &format!("requirepass {password}\n");
    }
    text
}

/// The server that tests start.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = env::var_os("LARDER_REDIS_SERVER").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "LARDER_REDIS_SERVER is no file: {}",
            path.display()
        );
        return path;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    ["redis-server", "valkey-server"]
        .iter()
        .flat_map(|name| env::split_paths(&path).map(move |dir| dir.join(name)))
        .find(|candidate| candidate.is_file())
        .expect(
            "no redis-server or valkey-server on PATH, and these tests need a real one. \
             `make test` finds or fetches one; for cargo alone: \
             export LARDER_REDIS_SERVER=\"$(scripts/redis-server.sh)\"",
        )
}

/// A port that nobody holds. Below the range from which systems pick ports for outgoing connections,
/// or one of those could take a killed server's port before it restarts; and never 6379.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    for _ in 0..COUNT {
        // Test processes that run side by side start at different places.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = process::id().wrapping_mul(97).wrapping_add(step) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 from {FIRST} on");
}

fn private_dir(port: u16) -> PathBuf {
    let dir = env::temp_dir().join(format!("larder-test-{}-{port}", process::id()));
    fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    dir
}

/// The id of the process that answers PING on `port`, as it says itself; `None` while nobody does.
async fn process_behind(port: u16) -> Option<u32> {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        if let Some(password) = password() {
            stream
                .write_all(&request(&["AUTH", &password]))
                .await
                .ok()?;
        }
        stream.write_all(&request(&["PING"])).await.ok()?;
        stream.write_all(&request(&["INFO", "server"])).await.ok()?;
        let mut answer = Vec::new();
        loop {
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
            let text = String::from_utf8_lossy(&answer);
            let Some((before, pid)) = text.split_once("process_id:") else {
                continue;
            };
            if let Some((pid, _)) = pid.split_once("\r\n") {
                return before.contains("+PONG\r\n").then(|| pid.parse().ok())?;
            }
        }
    };
    timeout(Duration::from_secs(1), ask).await.ok()?
}

/// A command as the wire has it: an array of bulk strings.
fn request(parts: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len());
    for part in parts {
        bytes += &format!("${}\r\n{part}\r\n", part.len());
    }
    bytes.into_bytes()
}

/// Sends a signal by the shell's own `kill`: the program of that name is not everywhere.
fn signal(name: &str, pid: u32) {
    let status = Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()])
        .status()
        .expect("start sh");
    assert!(status.success(), "kill -s {name} {pid}: {status}");
}

mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// Whether a process listens; a frozen one does too.
    fn listens(port: u16) -> bool {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    }

    async fn within(bound: Duration, mut done: impl FnMut() -> bool) -> bool {
        let until = Instant::now() + bound;
        while !done() {
            if Instant::now() > until {
                return false;
            }
            sleep(Duration::from_millis(10)).await;
        }
        true
    }

    #[tokio::test]
    async fn a_server_answers_at_its_url() {
        let server = Server::start().await;
        assert_ne!(server.port(), 6379);
        assert!(
            server
                .url(3)
                .ends_with(&format!("127.0.0.1:{}/3", server.port()))
        );
        server.raw(3, &["SET", "a", "b"]).await;
        assert_eq!(
            server.raw(3, &["GET", "a"]).await,
            Value::BulkString(b"b".to_vec())
        );
        assert_eq!(server.raw(0, &["GET", "a"]).await, Value::Nil);
        assert!(server.try_raw(3, &["INCR", "a"]).await.is_err());
    }

    #[tokio::test]
    async fn settings_reach_the_server() {
        let server = Server::start_with(&["--maxmemory", "1mb"]).await;
        let answer = server.raw(0, &["CONFIG", "GET", "maxmemory"]).await;
        assert!(format!("{answer:?}").contains("1048576"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_password_is_demanded_where_one_is_set() {
        let server = Server::start().await;
        let plain =
            redis::Client::open(format!("redis://127.0.0.1:{}/0", server.port())).expect("a url");
        let let_in = match plain.get_multiplexed_async_connection().await {
            Ok(mut connection) => redis::cmd("GET")
                .arg("a")
                .query_async::<Value>(&mut connection)
                .await
                .is_ok(),
            Err(_) => false,
        };
        assert_eq!(let_in, password().is_none());
    }

    #[tokio::test]
    async fn killed_it_refuses_and_restarted_it_is_empty() {
        let server = Server::start().await;
        server.raw(0, &["SET", "a", "b"]).await;
        let (port, pid) = (server.port(), server.pid());
        server.kill();
        assert!(!listens(port));
        server.restart().await;
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
        assert_eq!(server.raw(0, &["GET", "a"]).await, Value::Nil);
    }

    #[tokio::test]
    async fn paused_it_hangs_and_resumed_it_answers() {
        let server = Server::start().await;
        server.raw(0, &["SET", "a", "b"]).await;
        server.pause();
        let answer = timeout(Duration::from_millis(300), server.raw(0, &["GET", "a"])).await;
        assert!(answer.is_err(), "a frozen server answered {answer:?}");
        server.resume();
        assert_eq!(
            server.raw(0, &["GET", "a"]).await,
            Value::BulkString(b"b".to_vec())
        );
    }

    #[tokio::test]
    async fn dropped_nothing_of_it_is_left_even_paused() {
        let server = Server::start().await;
        let (port, dir) = (server.port(), server.dir.clone());
        server.pause();
        assert!(listens(port) && dir.is_dir());
        drop(server);
        assert!(!listens(port) && !dir.exists());
    }

    #[tokio::test]
    async fn many_at_once_do_not_meet() {
        let starts: Vec<_> = (0..8).map(|_| tokio::spawn(Server::start())).collect();
        let mut ports = Vec::new();
        let mut servers = Vec::new();
        for start in starts {
            let server = start.await.expect("a server");
            ports.push(server.port());
            servers.push(server);
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }

    /// Runs twice: as the test, and as a child of the test that starts a server and is killed.
    #[tokio::test]
    async fn a_server_does_not_outlive_a_killed_test() {
        const CHILD: &str = "LARDER_TEST_CHILD";
        if env::var_os(CHILD).is_some() {
            let server = Server::start().await;
            println!("\nchild: {} {}", server.port(), server.dir.display());
            sleep(Duration::from_secs(60)).await;
            return;
        }
        let (_, module) = module_path!()
            .split_once("::")
            .expect("a path in the crate");
        let mut child = Command::new(env::current_exe().expect("the test's own path"))
            .args([
                &format!("{module}::a_server_does_not_outlive_a_killed_test"),
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the test again");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = lines
            .map_while(Result::ok)
            .find(|line| line.starts_with("child: "))
            .expect("a child's line");
        let mut words = line.split(' ').skip(1);
        let port = words
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a port");
        let dir = PathBuf::from(words.next().expect("a directory"));
        assert!(listens(port));
        child.kill().expect("kill the child");
        child.wait().expect("wait for the child");
        assert!(
            within(START, || !listens(port) && !dir.exists()).await,
            "{line} is still there"
        );
    }
}
