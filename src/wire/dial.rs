//! From an address to a connection that was greeted.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value, cmd};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::guard::Guard;
use super::race::{First, first};
use super::reply::{exchange_error, server_error};
use super::settings::ConnectionSettings;
use super::url::{NodeAddr, Secret};
use crate::error::{Error, ErrorKind, Result};

/// The future that reads from and writes to the socket of a connection; it ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many operations wait in the channel to the driver before further ones wait for room.
const QUEUE: usize = 256;

/// How long sent bytes may stay unacknowledged before the kernel gives the socket up.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_millis(2500);

/// Connects to `addr` and greets the server, within `connect_timeout` in all.
///
/// # Errors
///
/// [`ErrorKind::Unavailable`], or [`ErrorKind::Rejected`] where the server refuses credentials or database.
pub(super) async fn open(
    addr: &NodeAddr,
    label: &str,
    settings: &ConnectionSettings,
) -> Result<(MultiplexedConnection, Driver)> {
    let bound = settings.connect_timeout;
    let opened = match timeout(bound, greeted(addr, settings)).await {
        Ok(opened) => opened,
        Err(_) => {
            let why = format!("no connection within {bound:?}");
            Err(Error::new(ErrorKind::Unavailable, why))
        }
    };
    opened.map_err(|error| error.during("connect").with("node", label))
}

async fn greeted(
    addr: &NodeAddr,
    settings: &ConnectionSettings,
) -> Result<(MultiplexedConnection, Driver)> {
    let stream = dial(addr, settings.connect_timeout)
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("cannot connect: {error}")))?;
    let stream = Guard::new(stream, settings.max_reply_bytes);
    // AUTH and SELECT are ours: redis-rs throws the server's words away, and its own greeting of a server
    // without password is empty, so that one which accepts and never answers would pass for up.
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let (mut conn, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
        .await
        .map_err(|error| exchange_error(addr, error))?;
    let mut driver: Driver = Box::pin(driver);
    {
        let mut greeting = pin!(greet(addr, settings, &mut conn));
        match first(&mut greeting, &mut driver).await {
            First::Left(greeted) => greeted?,
            // The server may have said why before it hung up; all answers are in once the driver has ended.
            First::Right(()) => greeting.await?,
        }
    }
    Ok((conn, driver))
}

/// Connects to the first of the host's addresses that answers; each gets its share of `bound`.
async fn dial(addr: &NodeAddr, bound: Duration) -> io::Result<TcpStream> {
    let places: Vec<_> = lookup_host((addr.host(), addr.port()))
        .await?
        .take(8)
        .collect();
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

/// Sends at once, and notices a peer that went away without a word.
fn tuned(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1));
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

/// Says who we are, chooses the database, and has the server answer once. One command after the other, though
/// that takes more round trips: a server that refuses everything says why once and hangs up.
async fn greet(
    addr: &NodeAddr,
    settings: &ConnectionSettings,
    conn: &mut MultiplexedConnection,
) -> Result<()> {
    let password = addr.password().map_or("", Secret::expose);
    if addr.user().is_some() || !password.is_empty() {
        let auth = |user| cmd("AUTH").arg(user).arg(password).to_owned();
        let mut refused = ask(addr, conn, &auth(addr.user())).await?;
        let old = |error: &Error| error.message().contains("wrong number of arguments");
        if addr.user().is_some() && refused.as_ref().is_some_and(old) {
            // Redis 5 knows passwords but no users.
            refused = ask(addr, conn, &auth(None)).await?;
        }
        refused.map_or(Ok(()), |error| Err(error.with("step", "AUTH")))?;
    }
    if addr.db() != 0 {
        let refused = ask(addr, conn, cmd("SELECT").arg(addr.db())).await?;
        refused.map_or(Ok(()), |error| Err(error.with("step", "SELECT")))?;
    }
    if let Some(error) = ask(addr, conn, &cmd("PING")).await? {
        // PING may be forbidden, or refused for what is wrong with writes or scripts only.
        let code = error.context().find(|(name, _)| *name == "code");
        if !code.is_some_and(|(_, code)| matches!(code, "NOPERM" | "BUSY" | "MISCONF")) {
            return Err(error.with("step", "PING"));
        }
    }
    if let Some(name) = &settings.client_name {
        // For people who read CLIENT LIST; a server that refuses it is as good as any.
        ask(addr, conn, cmd("CLIENT").arg("SETNAME").arg(name)).await?;
    }
    Ok(())
}

/// Sends one command of the greeting; answers what the server had against it.
async fn ask(
    addr: &NodeAddr,
    conn: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Option<Error>> {
    match conn.send_packed_command(command).await {
        Ok(Value::ServerError(error)) => Ok(Some(server_error(addr, &error))),
        Ok(_) => Ok(None),
        Err(error) => Err(exchange_error(addr, error)),
    }
}
