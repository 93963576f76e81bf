//! From a target to a connection that was greeted.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value, cmd};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::greet::{ask, credentials, greet};
use super::guard::Guard;
use super::race::{First, first};
use super::reply::{exchange_error, server_error};
use super::settings::ConnectionSettings;
use super::target::Target;
use super::tracking::Listener;
use super::url::NodeAddr;
use crate::error::{Error, ErrorKind, Result};

/// The future that reads from and writes to the socket of a connection; it ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many operations wait in the channel to the driver before further ones wait for room.
const QUEUE: usize = 256;

/// Bytes read from a socket at once, if so many are there.
const READ_AHEAD: usize = 64 << 10;

/// How long sent bytes may stay unacknowledged before the kernel gives the socket up.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_millis(2500);

/// A connection that was greeted.
pub(super) struct Opened {
    pub(super) conn: MultiplexedConnection,
    pub(super) driver: Driver,
    /// Where it leads.
    pub(super) place: SocketAddr,
    /// Whether the server tells the listener of writes, or why not; nothing where there is none.
    pub(super) tracked: Option<Result<(), String>>,
}

/// Connects to `target` and greets the server, each step within `connect_timeout`.
///
/// # Errors
///
/// [`ErrorKind::Unavailable`], or [`ErrorKind::Rejected`] where the server refuses credentials or database.
pub(super) async fn open(target: &Target, settings: &ConnectionSettings) -> Result<Opened> {
    let mut last = Error::new(ErrorKind::Config, "there is no address to connect to");
    match target {
        Target::Node(addr) => return bounded(addr, settings).await,
        Target::InTurn(addrs) => {
            for addr in addrs {
                match bounded(addr, settings).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => last = error,
                }
            }
        }
        Target::Sentinel {
            sentinels,
            name,
            master,
        } => {
            for sentinel in sentinels {
                match through(sentinel, name, master, settings).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => last = error,
                }
            }
        }
    }
    Err(last)
}

async fn bounded(addr: &NodeAddr, settings: &ConnectionSettings) -> Result<Opened> {
    let bound = settings.connect_timeout;
    let let_in = async {
        let known = settings.logins.found(addr).await?;
        greeted(&known, settings).await
    };
    let opened = match timeout(bound, let_in).await {
        Ok(opened) => opened,
        Err(_) => {
            let why = format!("no connection within {bound:?}");
            Err(Error::new(ErrorKind::Unavailable, why))
        }
    };
    opened.map_err(|error| error.during("connect").with("node", addr.label()))
}

async fn greeted(addr: &NodeAddr, settings: &ConnectionSettings) -> Result<Opened> {
    if settings.listener.is_none() {
        return opened(addr, settings, false).await;
    }
    match opened(addr, settings, true).await {
        // A server that does not speak RESP3 to us, or not yet; the plain greeting says what is wrong, if anything.
        Err(error) if error.kind() != ErrorKind::Unavailable => {
            let mut plain = opened(addr, settings, false).await?;
            plain.tracked = Some(Err(error.message().to_owned()));
            Ok(plain)
        }
        done => done,
    }
}

async fn opened(addr: &NodeAddr, settings: &ConnectionSettings, listening: bool) -> Result<Opened> {
    let stream = dial(addr, settings)
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("cannot connect: {error}")))?;
    let place = stream
        .peer_addr()
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("cannot connect: {error}")))?;
    #[cfg(feature = "tls")]
    if addr.is_tls() {
        let stream = settings.tls.connect(addr, stream).await?;
        let opened = over(stream, place, addr, settings, listening).await;
        // By TLS 1.3, what a server has against a certificate is its first word.
        return opened.inspect_err(|_| settings.tls.forget());
    }
    over(stream, place, addr, settings, listening).await
}

/// The first words over a stream that is there.
async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    place: SocketAddr,
    addr: &NodeAddr,
    settings: &ConnectionSettings,
    listening: bool,
) -> Result<Opened> {
    // redis-rs reads 8 KiB at a time, which is a fourth of the answer to a gathered get.
    let stream = BufReader::with_capacity(READ_AHEAD, stream);
    let stream = Guard::new(stream, settings.max_reply_bytes);
    let listener = settings.listener.as_ref().filter(|_| listening);
    let (info, config) = greeting(addr, listener);
    let (mut conn, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
        .await
        .map_err(|error| exchange_error(addr, error))?;
    let mut driver: Driver = Box::pin(driver);
    let tracked = {
        let mut greeting = pin!(async {
            greet(addr, settings, &mut conn, listener.is_some()).await?;
            match listener {
                Some(listener) => {
                    Some(track(addr, &mut conn, &listener.command()).await).transpose()
                }
                None => Ok(None),
            }
        });
        match first(&mut greeting, &mut driver).await {
            First::Left(greeted) => greeted?,
            // The server may have said why before it hung up; all answers are in once the driver has ended.
            First::Right(()) => {
                greeting.await?;
                return Err(Error::new(ErrorKind::Unavailable, "the connection ended"));
            }
        }
    };
    Ok(Opened {
        conn,
        driver,
        place,
        tracked,
    })
}

/// How redis-rs itself greets a server, and what it does with what it is told unasked.
fn greeting(
    addr: &NodeAddr,
    listener: Option<&Listener>,
) -> (RedisConnectionInfo, AsyncConnectionConfig) {
    // AUTH and SELECT are ours where they can be: redis-rs throws the server's words away, and its own greeting of a
    // server without password is empty, so that one which accepts and never answers would pass for up.
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let mut config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    if let Some(listener) = listener {
        // Pushes reach us only where redis-rs itself has said HELLO 3.
        info = info.set_protocol(redis::ProtocolVersion::RESP3);
        if let Some((user, password)) = credentials(addr) {
            // It gives no name without a password, not even an empty one.
            info = info.set_username(user.unwrap_or("default"));
            info = info.set_password(password);
        }
        let listener = listener.clone();
        config = config.set_push_sender(move |push| {
            listener.hear(push);
            Ok::<(), redis::aio::SendError>(())
        });
    }
    (info, config)
}

/// Asks to be told of writes; a server that refuses is as good as any, but silent.
async fn track(
    addr: &NodeAddr,
    conn: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Result<(), String>> {
    let refused = ask(addr, conn, command).await?;
    Ok(match refused {
        Some(error) => {
            tracing::info!(target: "larder::wire", event = "not_tracked", node = addr.label(), error = %error,
                "the server does not tell of writes");
            Err(error.message().to_owned())
        }
        None => Ok(()),
    })
}

/// Connects to the master that a sentinel names, and makes sure that it is one.
async fn through(
    sentinel: &NodeAddr,
    name: &str,
    master: &NodeAddr,
    settings: &ConnectionSettings,
) -> Result<Opened> {
    let asking = ConnectionSettings {
        listener: None,
        logins: settings.logins.of_places(),
        ..settings.clone()
    };
    let mut command = cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let mut opened = bounded(sentinel, &asking).await?;
    let reply = alone(&mut opened, sentinel, settings, &command).await?;
    let place: Option<(String, u16)> = redis::from_redis_value(reply)
        .map_err(|_| wrong_answer(sentinel, "no address of a master"))?;
    let Some((host, port)) = place else {
        return Err(wrong_answer(sentinel, "it knows no master of that name").with("name", name));
    };
    let addr = master.at(&host, port);
    let mut opened = bounded(&addr, settings).await?;
    match alone(&mut opened, &addr, settings, &cmd("ROLE")).await? {
        Value::Array(role) if is_text(role.first(), "master") => Ok(opened),
        _ => Err(wrong_answer(&addr, "it is not the master")),
    }
}

/// Sends one command through a connection that nobody else uses yet.
async fn alone(
    opened: &mut Opened,
    addr: &NodeAddr,
    settings: &ConnectionSettings,
    command: &Cmd,
) -> Result<Value> {
    let bound = settings.connect_timeout;
    let mut conn = opened.conn.clone();
    let answer = timeout(
        bound,
        first(conn.send_packed_command(command), &mut opened.driver),
    );
    match answer.await {
        Ok(First::Left(Ok(Value::ServerError(error)))) => Err(server_error(addr, &error)),
        Ok(First::Left(Ok(value))) => Ok(value),
        Ok(First::Left(Err(error))) => Err(exchange_error(addr, error)),
        Ok(First::Right(())) => Err(wrong_answer(addr, "the connection ended")),
        Err(_) => Err(wrong_answer(addr, "no answer in time")),
    }
}

fn is_text(value: Option<&Value>, text: &str) -> bool {
    match value {
        Some(Value::BulkString(bytes)) => bytes == text.as_bytes(),
        Some(Value::SimpleString(simple)) => simple == text,
        _ => false,
    }
}

fn wrong_answer(addr: &NodeAddr, why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, why)
        .during("connect")
        .with("node", addr.label())
}

/// Connects to the first of the host's addresses that answers; each gets its share of `bound`.
async fn dial(addr: &NodeAddr, settings: &ConnectionSettings) -> io::Result<TcpStream> {
    #[cfg_attr(not(feature = "manager"), allow(unused_mut))]
    let mut places = looked_up(addr).await?;
    // What was looked up is what is connected to: a name cannot lead elsewhere the second time.
    #[cfg(feature = "manager")]
    if let Some(admits) = &settings.admits {
        places.retain(|place| admits.admit(place.ip()));
        if places.is_empty() {
            return Err(io::Error::other("the node's address is not allowed"));
        }
    }
    let bound = settings.connect_timeout;
    let share = bound / u32::try_from(places.len().max(1)).unwrap_or(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for place in places {
        match timeout(share, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => return tuned(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The addresses of a host. A look-up that hangs goes on after its caller has given up, in a thread that others could use; so
/// there are a few of them at most in the whole process.
async fn looked_up(addr: &NodeAddr) -> io::Result<Vec<SocketAddr>> {
    static LOOKUPS: Semaphore = Semaphore::const_new(8);
    let host = addr.host();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, addr.port()).into()]);
    }
    let place = (host.to_owned(), addr.port());
    let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let lookup = tokio::spawn(async move {
        let _permit = permit;
        Ok(lookup_host(place).await?.take(8).collect())
    });
    lookup.await.map_err(io::Error::other)?
}

/// Sends at once, and notices a peer that went away without a word. Closed, it takes back what the peer has not
/// received yet: a write that nobody waits for any more must not arrive after those of the next connection.
fn tuned(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1));
    let socket = SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}
