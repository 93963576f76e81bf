//! A real server for tests, on a free port of loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A Redis or Valkey server, killed when dropped.
#[derive(Debug)]
pub(crate) struct TestServer {
    child: Child,
    binary: PathBuf,
    port: u16,
    args: Vec<String>,
}

impl TestServer {
    /// Starts a server with further command line arguments, and waits until it answers.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(&binary(), args)
    }

    /// The same of a given make.
    pub(crate) fn of(binary: &Path, args: &[&str]) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let port = free_port();
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let child = spawn(binary, port, &args);
            let mut server = Self {
                child,
                binary: binary.to_owned(),
                port,
                args,
            };
            if server.answers() {
                return server;
            }
        }
        panic!("the server did not start five times");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends inline commands over a socket of its own, and answers what comes back.
    pub(crate) fn command(&self, commands: &str) -> String {
        ask(self.port, commands).expect("the server answers")
    }

    /// Kills the server, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.binary, self.port, &self.args);
        assert!(self.answers(), "the server did not come back");
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.expect("there is a kill command").success());
    }

    fn answers(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return false;
            }
            match ask(self.port, "PING\r\n") {
                Ok(answer) if answer.starts_with("+PONG") || answer.starts_with("-NOAUTH") => {
                    return true;
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        false
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Sends inline commands to a server of this machine, and answers what comes back.
pub(crate) fn ask(port: u16, commands: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(commands.as_bytes())?;
    stream.write_all(b"QUIT\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn spawn(binary: &Path, port: u16, args: &[String]) -> Child {
    Command::new(binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .args(args)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server's binary runs")
}

fn binary() -> PathBuf {
    let why = "no redis-server and no valkey-server on PATH: install one, or name it in LARDER_REDIS_SERVER";
    at_hand().first().expect(why).clone()
}

/// The servers of this machine, one of each make and version: the one that is named, those on the path, those that were fetched.
pub(crate) fn at_hand() -> &'static [PathBuf] {
    static AT_HAND: LazyLock<Vec<PathBuf>> = LazyLock::new(find);
    &AT_HAND
}

/// What a server says that it is.
pub(crate) fn version_of(binary: &Path) -> Vec<u8> {
    let version = Command::new(binary).arg("--version").output();
    version.map(|output| output.stdout).unwrap_or_default()
}

fn find() -> Vec<PathBuf> {
    let named = std::env::var_os("LARDER_REDIS_SERVER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = ["redis-server", "valkey-server"]
        .into_iter()
        .flat_map(|name| {
            let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
            folders.into_iter().map(move |folder| folder.join(name))
        });
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/redis-server");
    let fetched = std::fs::read_dir(fetched).into_iter().flatten().flatten();
    let fetched = fetched
        .flat_map(|folder| ["valkey-server", "redis-server"].map(|name| folder.path().join(name)));
    let mut versions = Vec::new();
    let all = named.into_iter().chain(on_path).chain(fetched);
    all.filter(|file| file.is_file())
        .filter(|file| {
            let version = version_of(file);
            let is_new = !version.is_empty() && !versions.contains(&version);
            versions.push(version);
            is_new
        })
        .collect()
}
