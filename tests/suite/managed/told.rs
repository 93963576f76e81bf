//! An administrator who is told: by mail, by a webhook and by a command, over real sockets.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use larder::manager::{Config, Mail, Security, Webhook};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

use super::{Managed, SECOND, label, quick};
use crate::fleet::{Fleet, eventually};

/// What nobody may see but the one it is for.
const PASSWORD: &str = "hush-password-of-mail";
const TOKEN: &str = "hush-token-of-webhook";
const PATH: &str = "/hush-path-of-webhook";

const ACCOUNT: &str = "larder@example.org";

/// A mail, or the body of a request, with what came before it.
#[derive(Clone, Debug)]
struct Told {
    head: String,
    body: String,
}

/// What arrived somewhere, and how often it is refused before that.
#[derive(Debug, Default)]
struct Arrived {
    told: Mutex<Vec<Told>>,
    refuses: AtomicUsize,
    refused: AtomicUsize,
}

impl Arrived {
    fn told(&self) -> MutexGuard<'_, Vec<Told>> {
        self.told.lock().unwrap()
    }

    fn all(&self) -> Vec<Told> {
        self.told().clone()
    }

    /// Whether this one is to be refused.
    fn refuses(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let refuses = self
            .refuses
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok();
        self.refused
            .fetch_add(usize::from(refuses), Ordering::SeqCst);
        refuses
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Refuses so many of the next ones.
    fn refuse(&self, count: usize) {
        self.refuses.store(count, Ordering::SeqCst);
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How a server of this test is spoken to.
#[derive(Clone)]
enum By {
    Clear,
    Tls(TlsAcceptor),
    StartTls(TlsAcceptor),
}

/// A server of this test; dropped, it ends.
struct Listening {
    port: u16,
    arrived: Arc<Arrived>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listening {
    async fn serve<F>(
        by: By,
        talk: impl Fn(Box<dyn Io>, Arc<Arrived>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let arrived: Arc<Arrived> = Arc::default();
        let noted = Arc::clone(&arrived);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream: Box<dyn Io> = match &by {
                    By::Tls(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => {
                            noted.refused.fetch_add(1, Ordering::SeqCst);
                            continue;
                        }
                    },
                    _ => Box::new(stream),
                };
                tokio::spawn(talk(stream, Arc::clone(&noted)));
            }
        });
        Self {
            port,
            arrived,
            task,
        }
    }

    /// A mail server that lets one account in, by this mechanism.
    async fn smtp(by: By, mechanism: &'static str) -> Self {
        let starttls = match &by {
            By::StartTls(acceptor) => Some(acceptor.clone()),
            _ => None,
        };
        let talk = move |stream, arrived| smtp(stream, arrived, mechanism, starttls.clone());
        Self::serve(by, talk).await
    }

    /// A server that takes what is posted.
    async fn http(by: By) -> Self {
        Self::serve(by, http).await
    }
}

async fn line(stream: &mut BufReader<Box<dyn Io>>) -> std::io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

async fn say(stream: &mut BufReader<Box<dyn Io>>, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.flush().await
}

/// As much of SMTP as it takes, with answers that give away what they were told.
async fn smtp(
    stream: Box<dyn Io>,
    arrived: Arc<Arrived>,
    mechanism: &'static str,
    starttls: Option<TlsAcceptor>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut let_in, mut secret) = (String::new(), false, starttls.is_none());
    say(&mut stream, "220 test").await?;
    loop {
        let said = line(&mut stream).await?;
        head += &format!("{said}\n");
        let verb = said.split([' ', ':']).next().unwrap_or_default();
        match verb.to_uppercase().as_str() {
            "EHLO" if !secret => say(&mut stream, "250-test\r\n250 STARTTLS").await?,
            "EHLO" => say(&mut stream, &format!("250-test\r\n250 AUTH {mechanism}")).await?,
            "STARTTLS" => {
                say(&mut stream, "220 go on").await?;
                let acceptor = starttls.clone().expect("it was offered");
                let inner = acceptor.accept(stream.into_inner()).await?;
                stream = BufReader::new(Box::new(inner));
                secret = true;
            }
            "AUTH" => {
                let_in = secret && auth(&mut stream, &said).await?;
                let answer = match let_in {
                    true => "235 come in".to_owned(),
                    false => format!("535 {said}: {PASSWORD} is wrong"),
                };
                say(&mut stream, &answer).await?;
            }
            "MAIL" if !let_in => say(&mut stream, "530 who are you").await?,
            "MAIL" if arrived.refuses() => {
                let echo = format!("451 4.7.1 later, {PASSWORD} {}", STANDARD.encode(PASSWORD));
                say(&mut stream, &echo).await?;
            }
            "MAIL" => say(&mut stream, "250 ok").await?,
            "RCPT" if said.contains("nobody@") => say(&mut stream, "550 no such user").await?,
            "RCPT" => say(&mut stream, "250 ok").await?,
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                let mut body = String::new();
                loop {
                    match line(&mut stream).await? {
                        end if end == "." => break,
                        line => body += &format!("{line}\n"),
                    }
                }
                arrived.told().push(Told {
                    head: head.clone(),
                    body,
                });
                say(&mut stream, "250 taken").await?;
            }
            "QUIT" => return say(&mut stream, "221 bye").await,
            _ => say(&mut stream, "502 what").await?,
        }
    }
}

/// Whether it is the account with its password.
async fn auth(stream: &mut BufReader<Box<dyn Io>>, said: &str) -> std::io::Result<bool> {
    if let Some(plain) = said.strip_prefix("AUTH PLAIN ") {
        return Ok(plain == STANDARD.encode(format!("\0{ACCOUNT}\0{PASSWORD}")));
    }
    say(stream, &format!("334 {}", STANDARD.encode("Username:"))).await?;
    let account = line(stream).await?;
    say(stream, &format!("334 {}", STANDARD.encode("Password:"))).await?;
    let password = line(stream).await?;
    Ok(account == STANDARD.encode(ACCOUNT) && password == STANDARD.encode(PASSWORD))
}

/// One request, which is refused or taken.
async fn http(stream: Box<dyn Io>, arrived: Arc<Arrived>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let said = line(&mut stream).await?;
        if said.is_empty() {
            break;
        }
        if let Some(said) = said.to_lowercase().strip_prefix("content-length: ") {
            length = said.parse().expect("a length");
        }
        head += &format!("{said}\n");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    if arrived.refuses() {
        let echo = format!("{TOKEN} {PATH}");
        let length = echo.len();
        let answer = format!("HTTP/1.1 500 {echo}\r\ncontent-length: {length}\r\n\r\n{echo}");
        stream.write_all(answer.as_bytes()).await?;
        return stream.flush().await;
    }
    let body = String::from_utf8(body).expect("text");
    arrived.told().push(Told { head, body });
    say(&mut stream, "HTTP/1.1 204 No Content\r\n").await
}

/// A directory with a program that adds what it reads to a file, after it has failed so often.
struct Paged {
    dir: PathBuf,
}

impl Paged {
    fn new(name: &str, fails: usize) -> Self {
        let dir = std::env::temp_dir().join(format!("larder-told-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let script = r#"cd "$1" || exit 1
if [ "$(wc -l < tries)" -lt "$2" ]; then echo >> tries; exit 7; fi
cat >> told; echo >> told
"#;
        std::fs::write(dir.join("page.sh"), script).unwrap();
        std::fs::write(dir.join("tries"), "").unwrap();
        std::fs::write(dir.join("fails"), fails.to_string()).unwrap();
        Self { dir }
    }

    fn command(&self) -> Vec<String> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let fails = std::fs::read_to_string(self.dir.join("fails")).unwrap();
        vec!["/bin/sh".to_owned(), path("page.sh"), path(""), fails]
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.dir.join("told")).unwrap_or_default()
    }
}

impl Drop for Paged {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// All of it from now on.
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        // Where there is one subscriber alone, a thread without any, that comes first to an event, has nobody told of it.
        static OTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
        LazyLock::force(&OTHER);
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// How often an event was logged of a channel.
    fn count(&self, event: &str, channel: &str) -> usize {
        let (event, channel) = (
            format!("event=\"{event}\""),
            format!("channel=\"{channel}\""),
        );
        let lines = self.text();
        let of = |line: &&str| line.contains(&event) && line.contains(&channel);
        lines.lines().filter(of).count()
    }
}

/// A configuration that tells soon after each other.
fn telling(fleet: &Fleet) -> Config {
    let mut config = quick(fleet);
    config.alerts.pause = Duration::from_millis(50);
    config.alerts.max_pause = Duration::from_millis(100);
    config
}

fn mail_to(port: u16, security: Security) -> Mail {
    let mut mail = Mail::new("localhost", port, ACCOUNT, PASSWORD);
    mail.security = security;
    mail.to = vec![
        "Admin <admin@example.org>".to_owned(),
        "nobody@example.org".to_owned(),
        "other@example.org".to_owned(),
    ];
    mail
}

fn hook_at(scheme: &str, port: u16) -> Webhook {
    let mut webhook = Webhook::new(format!("{scheme}://localhost:{port}{PATH}?x=1"));
    webhook.token = Some(TOKEN.into());
    webhook
}

/// A manager of all nodes, which has begun with these channels.
async fn managed(fleet: &Fleet, config: Config) -> Managed {
    let channels = [
        config.alerts.mail.as_ref().map(|_| "told_mail"),
        config.alerts.webhook.as_ref().map(|_| "told_webhook"),
        config.alerts.command.as_ref().map(|_| "told_command"),
    ];
    let managed = Managed::start(config).await;
    for url in fleet.node_urls() {
        let added = managed.post("/api/v1/nodes", &json!({ "url": url })).await;
        assert_eq!(added.status, 200, "{added:?}");
    }
    for channel in channels.into_iter().flatten() {
        let begun = async || noted(fleet, channel).await.is_some();
        eventually(10 * SECOND, channel, begun).await;
    }
    managed
}

/// How far a channel has told, as it stands in the manager Redis.
async fn noted(fleet: &Fleet, channel: &str) -> Option<u64> {
    let found = ["HGET", "HASH_RING_META", channel];
    redis::from_redis_value(fleet.manager.raw(13, &found).await).unwrap()
}

async fn remove(managed: &Managed, node: &str) {
    let path = format!("/api/v1/nodes?node={node}");
    let removed = managed.ask("DELETE", &path, &[], "").await;
    assert_eq!(removed.status, 200, "{removed:?}");
}

/// Kind and node of all events of these requests.
fn events(told: &[Told]) -> Vec<(String, String)> {
    let bodies = told.iter().map(|told| told.body.as_str());
    bodies.flat_map(of_json).collect()
}

fn of_json(body: &str) -> Vec<(String, String)> {
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["ring"], "HASH_RING_MAP");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = body["events"].as_array().expect("events").iter();
    events
        .map(|event| {
            assert!(event["id"].as_u64() > Some(0) && event["at"].as_u64() > Some(1 << 30));
            (text(&event["kind"]), text(&event["node"]))
        })
        .collect()
}

/// The lines of mails.
fn lines(mails: &[Told]) -> Vec<String> {
    let text = |mail: &Told| {
        let (_, text) = mail.body.split_once("\n\n").expect("a mail");
        text.replace("=\n", "").replace("=3D", "=")
    };
    let lines = mails.iter().map(text);
    lines
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn named(kind: &str, node: &str) -> (String, String) {
    (kind.to_owned(), node.to_owned())
}

/// Nothing of what is secret is in any of it.
fn no_secret(text: &str) {
    let encoded = [
        STANDARD.encode(PASSWORD),
        STANDARD.encode(format!("\0{ACCOUNT}\0{PASSWORD}")),
    ];
    let password = crate::support::password().unwrap_or_else(|| PASSWORD.to_owned());
    for secret in [PASSWORD, TOKEN, PATH, &password, &encoded[0], &encoded[1]] {
        let found = text.lines().find(|line| line.contains(secret));
        assert!(
            found.is_none(),
            "{}",
            found.unwrap_or_default().replace(secret, "SECRET")
        );
    }
}

/// A node that is taken off the ring and comes back: each channel is told of each of them once, and of nothing else.
#[tokio::test]
async fn each_channel_is_told_once() {
    let (log, _guard) = Log::begin();
    let fleet = Fleet::bare(4).await;
    let post = Listening::smtp(By::Clear, "PLAIN").await;
    let hook = Listening::http(By::Clear).await;
    let page = Paged::new("once", 0);
    let mut config = telling(&fleet);
    config.alerts.mail = Some(mail_to(post.port, Security::None));
    config.alerts.webhook = Some(hook_at("http", hook.port));
    config.alerts.command = Some(page.command());
    no_secret(&format!("{config:?} {config:#?}"));
    let managed = managed(&fleet, config).await;
    let node = label(&fleet, 1);
    let told = async |kind: &str, line: &str| {
        let kinds = [
            events(&hook.arrived.all()),
            page.told().lines().flat_map(of_json).collect(),
        ];
        let by_mail = lines(&post.arrived.all());
        kinds
            .iter()
            .all(|events| events.contains(&named(kind, &node)))
            && by_mail
                .iter()
                .any(|known| known.contains(line) && known.contains(&node))
    };
    let began = Instant::now();
    fleet.nodes[1].kill();
    let ejected = async || told("ejected", "taken off the ring").await;
    eventually(15 * SECOND, "its fall is told", ejected).await;
    println!(
        "killed, and told on three channels after {:?}",
        began.elapsed()
    );
    fleet.nodes[1].restart().await;
    let returned = async || told("returned", "back on the ring").await;
    eventually(15 * SECOND, "its return is told", returned).await;
    // Time for a second telling, if there were one.
    tokio::time::sleep(2 * SECOND).await;
    let both = [named("ejected", &node), named("returned", &node)];
    assert_eq!(events(&hook.arrived.all()), both);
    assert_eq!(
        page.told().lines().flat_map(of_json).collect::<Vec<_>>(),
        both
    );
    let (mails, requests) = (post.arrived.all(), hook.arrived.all());
    let by_mail = lines(&mails);
    assert_eq!(by_mail.len(), 2, "{by_mail:?}");
    let subject = format!("Subject: [larder] HASH_RING_MAP: back on the ring: {node}");
    let [first, last] = &mails[..] else {
        panic!("{mails:?}")
    };
    assert!(last.body.contains(&subject), "{last:?}");
    assert!(
        first.body.contains("From: larder@example.org\n"),
        "{first:?}"
    );
    for line in [
        "MAIL FROM:<larder@example.org>",
        "RCPT TO:<admin@example.org>",
        "RCPT TO:<other@example.org>",
    ] {
        assert!(first.head.contains(line), "{line}");
    }
    let request = requests[0].head.to_lowercase();
    assert!(
        request.starts_with(&format!("post {PATH}?x=1 http/1.1\n")),
        "{request}"
    );
    assert!(request.contains(&format!("\nauthorization: bearer {TOKEN}\n")));
    assert!(
        request.contains(&format!("\nhost: localhost:{}\n", hook.port)),
        "{request}"
    );
    managed.end().await;
    for channel in ["mail", "webhook", "command"] {
        assert_eq!(log.count("told", channel), 2, "{channel}");
    }
    // The one who is not there, each time.
    assert_eq!(log.count("telling_failed", "mail"), 2);
    no_secret(&log.text());
    no_secret(&page.told());
    for told in mails.iter().chain(&requests) {
        no_secret(&told.body);
    }
}

/// A channel that fails is tried again until it succeeds, and what happens meanwhile is in the same message; the others do not wait for it.
#[tokio::test]
async fn a_channel_that_fails_is_tried_again_and_told_once() {
    let (log, _guard) = Log::begin();
    let fleet = Fleet::bare(4).await;
    let post = Listening::smtp(By::Clear, "LOGIN").await;
    let hook = Listening::http(By::Clear).await;
    let page = Paged::new("fails", 1);
    post.arrived.refuse(2);
    hook.arrived.refuse(1);
    let mut config = telling(&fleet);
    config.alerts.mail = Some(mail_to(post.port, Security::None));
    config.alerts.webhook = Some(hook_at("http", hook.port));
    config.alerts.command = Some(page.command());
    let managed = managed(&fleet, config).await;
    let (first, second) = (label(&fleet, 0), label(&fleet, 1));
    remove(&managed, &first).await;
    let refused = async || {
        post.arrived.refused() > 0
            && hook.arrived.refused() > 0
            && log.count("telling_failed", "command") > 0
    };
    eventually(10 * SECOND, "all have failed", refused).await;
    remove(&managed, &second).await;
    let told = async || {
        !post.arrived.told().is_empty()
            && !hook.arrived.told().is_empty()
            && !page.told().is_empty()
    };
    let took = eventually(30 * SECOND, "all are told", told).await;
    println!("told after two refusals and {took:?}");
    tokio::time::sleep(SECOND).await;
    let both = [named("removed", &first), named("removed", &second)];
    assert_eq!(hook.arrived.told().len(), 1);
    assert_eq!(events(&hook.arrived.all()), both);
    assert_eq!(
        page.told().lines().flat_map(of_json).collect::<Vec<_>>(),
        both
    );
    let mails = post.arrived.all();
    assert_eq!((mails.len(), lines(&mails).len()), (1, 2), "{mails:?}");
    assert!(
        mails[0]
            .body
            .contains("Subject: [larder] HASH_RING_MAP: 2 events"),
        "{mails:?}"
    );
    for (channel, failures) in [("mail", 3), ("webhook", 1), ("command", 1)] {
        // Of the mail's, one is about the recipient who is not there.
        assert_eq!(log.count("telling_failed", channel), failures, "{channel}");
        assert_eq!(log.count("told", channel), 1, "{channel}");
    }
    assert!(log.text().contains("answered 451") && log.text().contains("answered 500"));
    no_secret(&log.text());
    managed.end().await;
}

/// A password that is not taken is said to be that, and not said.
#[tokio::test]
async fn a_password_that_is_wrong_is_not_shown() {
    let (log, _guard) = Log::begin();
    let fleet = Fleet::bare(3).await;
    let post = Listening::smtp(By::Clear, "PLAIN").await;
    let mut config = telling(&fleet);
    let mut mail = mail_to(post.port, Security::None);
    mail.password = format!("{TOKEN}-wrong").into();
    config.alerts.mail = Some(mail);
    let managed = managed(&fleet, config).await;
    remove(&managed, &label(&fleet, 0)).await;
    let failed = async || log.count("telling_failed", "mail") > 0;
    eventually(10 * SECOND, "it has failed", failed).await;
    assert!(
        log.text()
            .contains("answered 535: the account or its password is not taken")
    );
    no_secret(&log.text());
    assert!(post.arrived.told().is_empty());
    managed.end().await;
}

/// What a manager did not come to tell, the next one does; and what it told, the next one does not.
#[tokio::test]
async fn the_next_manager_tells_what_was_not_told() {
    let fleet = Fleet::bare(4).await;
    let hook = Listening::http(By::Clear).await;
    let config = || {
        let mut config = telling(&fleet);
        config.alerts.webhook = Some(hook_at("http", hook.port));
        config
    };
    let first = managed(&fleet, config()).await;
    let (told, lost, late) = (label(&fleet, 0), label(&fleet, 1), label(&fleet, 2));
    remove(&first, &told).await;
    let one = async || hook.arrived.told().len() == 1;
    eventually(10 * SECOND, "the first is told", one).await;
    hook.arrived.refuse(usize::MAX);
    remove(&first, &lost).await;
    let refused = async || hook.arrived.refused() > 0;
    eventually(10 * SECOND, "the second is refused", refused).await;
    first.kill();
    hook.arrived.refuse(0);
    let second = Managed::start(config()).await;
    remove(&second, &late).await;
    // The lease of the first has to end.
    let all = async || events(&hook.arrived.all()).len() >= 3;
    eventually(40 * SECOND, "the second tells", all).await;
    tokio::time::sleep(SECOND).await;
    let removed = [&told, &lost, &late].map(|node| named("removed", node));
    assert_eq!(events(&hook.arrived.all()), removed);
    // In good order, it leaves nothing that would be told twice.
    second.end().await;
    let third = Managed::start(config()).await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(hook.arrived.told().len(), 2);
    third.end().await;
}

/// A message that is under way when its manager ends is waited for, and noted.
#[tokio::test]
async fn a_message_that_is_under_way_is_not_sent_twice() {
    let fleet = Fleet::bare(3).await;
    let page = Paged::new("under-way", 0);
    let mut command = page.command();
    let script = "cat >> \"$0\"/told; echo >> \"$0\"/told; sleep 2";
    command.splice(
        1..3,
        [
            "-c".to_owned(),
            script.to_owned(),
            page.dir.display().to_string(),
        ],
    );
    let config = || {
        let mut config = telling(&fleet);
        config.alerts.command = Some(command.clone());
        config
    };
    let first = managed(&fleet, config()).await;
    let node = label(&fleet, 0);
    remove(&first, &node).await;
    let begun = async || !page.told().is_empty();
    eventually(10 * SECOND, "it is told", begun).await;
    first.end().await;
    let second = Managed::start(config()).await;
    tokio::time::sleep(2 * SECOND).await;
    let told: Vec<_> = page.told().lines().flat_map(of_json).collect();
    assert_eq!(told, [named("removed", &node)]);
    second.end().await;
}

/// A channel is told what happens from when it was first there.
#[tokio::test]
async fn nothing_is_told_that_happened_before_the_channel_was_there() {
    let fleet = Fleet::bare(4).await;
    let hook = Listening::http(By::Clear).await;
    let before = managed(&fleet, telling(&fleet)).await;
    remove(&before, &label(&fleet, 0)).await;
    before.end().await;
    assert_eq!(noted(&fleet, "told_webhook").await, None);
    let mut config = telling(&fleet);
    config.alerts.webhook = Some(hook_at("http", hook.port));
    let after = Managed::start(config).await;
    let begun = async || noted(&fleet, "told_webhook").await.is_some();
    eventually(10 * SECOND, "the channel is there", begun).await;
    remove(&after, &label(&fleet, 1)).await;
    let told = async || !hook.arrived.told().is_empty();
    eventually(10 * SECOND, "it is told", told).await;
    tokio::time::sleep(SECOND).await;
    let since = [named("removed", &label(&fleet, 1))];
    assert_eq!(events(&hook.arrived.all()), since);
    after.end().await;
}

/// A manager Redis that has lost everything is something to tell, though its events are numbered anew.
#[tokio::test]
async fn a_manager_redis_that_forgot_everything_is_told() {
    let fleet = Fleet::bare(3).await;
    let hook = Listening::http(By::Clear).await;
    let mut config = telling(&fleet);
    config.alerts.webhook = Some(hook_at("http", hook.port));
    let managed = managed(&fleet, config).await;
    fleet.manager.raw(13, &["FLUSHDB"]).await;
    fleet.publish_like_python(&fleet.node_urls()).await;
    let told = async || !hook.arrived.told().is_empty();
    eventually(15 * SECOND, "it is told", told).await;
    assert_eq!(events(&hook.arrived.all()), [named("taken_over", "")]);
    managed.end().await;
}

const CHILD: &str = "LARDER_TEST_TOLD_BY_TLS";

/// By TLS: mail from the start or by STARTTLS, and a webhook; and by none of them where the certificate is another's. Roots are the system's,
/// which are said by a variable, so that this test runs in a process of its own.
#[tokio::test]
async fn by_tls_those_are_told_who_prove_to_be_the_ones() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return in_a_child();
    };
    let right = acceptor(&dir, "localhost");
    let wrong = acceptor(&dir, "elsewhere.example");
    let (log, _guard) = Log::begin();
    for by in [By::Tls(right.clone()), By::StartTls(right.clone())] {
        let security = match by {
            By::Tls(_) => Security::Tls,
            _ => Security::StartTls,
        };
        let fleet = Fleet::bare(2).await;
        let post = Listening::smtp(by, "PLAIN").await;
        let hook = Listening::http(By::Tls(right.clone())).await;
        let mut config = telling(&fleet);
        config.alerts.mail = Some(mail_to(post.port, security));
        config.alerts.webhook = Some(hook_at("https", hook.port));
        let managed = managed(&fleet, config).await;
        remove(&managed, &label(&fleet, 0)).await;
        let told = async || !post.arrived.told().is_empty() && !hook.arrived.told().is_empty();
        eventually(10 * SECOND, "both are told", told).await;
        managed.end().await;
    }
    for (by, security) in [
        (By::Tls(wrong.clone()), Security::Tls),
        (By::StartTls(wrong.clone()), Security::StartTls),
        // A server that offers none is told nothing.
        (By::Clear, Security::StartTls),
    ] {
        let fleet = Fleet::bare(2).await;
        let post = Listening::smtp(by, "PLAIN").await;
        let hook = Listening::http(By::Tls(wrong.clone())).await;
        let mut config = telling(&fleet);
        config.alerts.mail = Some(mail_to(post.port, security));
        config.alerts.webhook = Some(hook_at("https", hook.port));
        let failed = |channel: &str| log.count("telling_failed", channel);
        let before = (failed("mail"), failed("webhook"));
        let managed = managed(&fleet, config).await;
        remove(&managed, &label(&fleet, 0)).await;
        let refused = async || failed("mail") > before.0 && failed("webhook") > before.1;
        eventually(10 * SECOND, "both have failed", refused).await;
        assert!(post.arrived.told().is_empty() && hook.arrived.told().is_empty());
        managed.end().await;
    }
    assert!(log.text().contains("STARTTLS is not supported"));
    no_secret(&log.text());
    println!("by TLS: done");
}

fn in_a_child() {
    let dir = std::env::temp_dir().join(format!("larder-told-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut roots = String::new();
    for name in ["localhost", "elsewhere.example"] {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        roots += &made.cert.pem();
        std::fs::write(dir.join(format!("{name}.der")), made.cert.der()).unwrap();
        let key = made.signing_key.serialize_der();
        std::fs::write(dir.join(format!("{name}.key")), key).unwrap();
    }
    std::fs::write(dir.join("roots.pem"), roots).unwrap();
    let (_, module) = module_path!().split_once("::").unwrap();
    let test = format!("{module}::by_tls_those_are_told_who_prove_to_be_the_ones");
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test.as_str(), "--exact", "--nocapture"])
        .env(CHILD, &dir)
        .env("SSL_CERT_FILE", dir.join("roots.pem"))
        .output()
        .unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let complaint = String::from_utf8_lossy(&child.stderr);
    assert!(
        child.status.success() && said.contains("by TLS: done"),
        "{said}\n{complaint}"
    );
}

fn acceptor(dir: &std::path::Path, name: &str) -> TlsAcceptor {
    let read = |end: &str| std::fs::read(dir.join(format!("{name}.{end}"))).unwrap();
    let chain = vec![CertificateDer::from(read("der"))];
    let key = PrivateKeyDer::try_from(read("key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}
