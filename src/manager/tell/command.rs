//! A program that is given what happened.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::message::Message;
use crate::error::{Error, ErrorKind, Result};

/// How long it may take.
const WITHIN: Duration = Duration::from_secs(30);

/// A program and its arguments.
pub(super) struct Program {
    words: Vec<String>,
}

impl Program {
    pub(super) fn of(words: &[String]) -> Self {
        let words = words.to_vec();
        Self { words }
    }

    /// Runs it with a message to read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] where it cannot be started, [`ErrorKind::Rejected`] where it fails, [`ErrorKind::Timeout`] after 30 seconds.
    ///
    /// # Cancellation
    ///
    /// Dropped, it kills the program.
    pub(super) async fn send(&self, message: &Message) -> Result<()> {
        self.run(message.json(), WITHIN).await
    }

    async fn run(&self, json: String, within: Duration) -> Result<()> {
        let [program, arguments @ ..] = &self.words[..] else {
            return Err(Error::new(
                ErrorKind::Config,
                "the command names no program",
            ));
        };
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let child = child.map_err(|error| {
            let why = format!("the command cannot be started: {error}");
            Error::new(ErrorKind::Unavailable, why)
        })?;
        let over = timeout(within, over(child, json)).await;
        over.unwrap_or_else(|_| {
            let why = format!("the command was not done within {within:?}, and was killed");
            Err(Error::new(ErrorKind::Timeout, why))
        })
    }
}

/// Waits for its end while it reads, or does not.
async fn over(mut child: Child, json: String) -> Result<()> {
    let stdin = child.stdin.take();
    let write = async move {
        if let Some(mut stdin) = stdin {
            // Whoever does not read it has no need of it.
            let _ = stdin.write_all(json.as_bytes()).await;
        }
    };
    let ended = {
        let wait = child.wait();
        tokio::pin!(wait);
        tokio::select! {
            ended = &mut wait => ended,
            () = write => wait.await,
        }
    };
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let why = format!("the command failed: {status}");
            Err(Error::new(ErrorKind::Rejected, why))
        }
        Err(error) => {
            let why = format!("the command cannot be waited for: {error}");
            Err(Error::new(ErrorKind::Unavailable, why))
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn run(script: &str, json: String) -> Result<()> {
        let words = ["/bin/sh", "-c", script, "canary"].map(str::to_owned);
        let within = Duration::from_millis(500);
        Program::of(&words).run(json, within).await
    }

    #[tokio::test]
    async fn a_command_succeeds_by_its_status_in_time() {
        let long = || "x".repeat(1 << 20);
        // One that reads nothing has no need to.
        for script in ["exit 0", "cat > /dev/null", "head -c 10 > /dev/null"] {
            run(script, long()).await.unwrap();
        }
        let failed = run("cat > /dev/null; exit 3", long()).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Rejected);
        assert!(failed.to_string().contains('3'), "{failed}");
        let began = Instant::now();
        let slow = run("exec sleep 30", long()).await.unwrap_err();
        assert_eq!(slow.kind(), ErrorKind::Timeout);
        assert!(began.elapsed() < Duration::from_secs(5));
        let none = Program::of(&["/no/such/program".to_owned(), "canary".to_owned()]);
        let none = none.run(long(), WITHIN).await.unwrap_err();
        assert_eq!(none.kind(), ErrorKind::Unavailable);
        for error in [failed, slow, none] {
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    /// What is killed is gone: a program that takes too long does nothing any more.
    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed() {
        let dir = std::env::temp_dir().join(format!("larder-killed-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (pid, path) = (dir.join("pid"), dir.display());
        let script = format!("echo $$ > {path}/new; mv {path}/new {path}/pid; exec sleep 60");
        run(&script, String::new()).await.unwrap_err();
        let pid = std::fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let began = Instant::now();
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            assert!(began.elapsed() < Duration::from_secs(10), "it lives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
