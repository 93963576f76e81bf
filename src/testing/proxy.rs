//! A TCP proxy whose network goes bad on command.

mod line;
mod pump;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{Either, select};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use line::{End, Line, State};

/// Connections waiting to be accepted, for the kernel.
const BACKLOG: i32 = 1024;

/// Connections at a time; further ones wait to be accepted.
const MAX_OPEN: usize = 4096;

/// What a [`Proxy`] does with the bytes of its connections, until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// They pass.
    Pass,
    /// They arrive this much later, in each direction. What comes later is as late; throughput does not suffer.
    Delay(Duration),
    /// Nothing passes, and all connections stay open, new ones too: a blackhole.
    Stall,
    /// Nothing passes on the connections that were open when the mode was set; later ones are fine.
    StallOld,
    /// One byte at a time, with a pause after each.
    Slice(Duration),
    /// One bit in about every so many bytes of the replies is flipped. The same seed flips the same bits of the same
    /// connection, counted from the first.
    Corrupt {
        /// The mean distance of two flips, in bytes; 1 at least.
        every: u32,
        /// Decides which bits.
        seed: u64,
    },
    /// Each connection that was open when the mode was set is closed after so many further bytes of replies; later
    /// ones are fine.
    Truncate(usize),
    /// Connections are accepted, and that is all: the target hears of the new ones when the mode ends.
    Silent,
    /// New connections are refused, as where nobody listens. Open ones are left alone; see [`Proxy::reset`].
    Refuse,
}

/// A TCP proxy on a port of its own of 127.0.0.1, in front of a server, for tests.
///
/// Its [`Mode`] may change while connections are open; whatever is on its way meets the new one. Dropped, it ends its tasks and
/// resets what is open. It keeps at most 4 MiB a connection and direction, then it reads no more.
///
/// ```
/// use std::time::Duration;
/// use larder::testing::{Mode, Proxy};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
/// use tokio::time::timeout;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let server = TcpListener::bind("127.0.0.1:0").await?;
/// let proxy = Proxy::to(server.local_addr()?).await?;
/// let mut client = TcpStream::connect(proxy.addr()).await?;
/// let (mut accepted, _) = server.accept().await?;
///
/// proxy.set(Mode::Stall);
/// client.write_all(b"hello").await?;
/// let mut bytes = [0; 5];
/// let early = timeout(Duration::from_millis(20), accepted.read_exact(&mut bytes)).await;
/// assert!(early.is_err(), "nothing arrives");
///
/// proxy.set(Mode::Pass);
/// accepted.read_exact(&mut bytes).await?;
/// assert_eq!(&bytes, b"hello");
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// What the handle and the tasks share.
struct Shared {
    target: SocketAddr,
    state: watch::Sender<State>,
    /// What marks a connection whose client sends it.
    word: OnceLock<Vec<u8>>,
    accepted: AtomicU64,
    open: AtomicUsize,
    marked: AtomicUsize,
}

impl Proxy {
    /// A proxy in front of `target`, `"127.0.0.1:7001"` say, in mode [`Mode::Pass`]. Its tasks run on the current
    /// tokio runtime; time and I/O must be enabled there.
    ///
    /// # Errors
    ///
    /// If `target` is no address, or no port can be had.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn to(target: impl tokio::net::ToSocketAddrs) -> io::Result<Self> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the target has no address");
        let target = lookup_host(target).await?.next().ok_or_else(none)?;
        // It never listens. It keeps the port while nobody else does.
        let keeper = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let addr = keeper.local_addr()?.as_socket().ok_or_else(none)?;
        let listener = listen(addr)?;
        let shared = Arc::new(Shared {
            target,
            state: watch::Sender::new(State::default()),
            word: OnceLock::new(),
            accepted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            marked: AtomicUsize::new(0),
        });
        let serving = serve(Arc::clone(&shared), addr, listener, keeper);
        let task = tokio::spawn(serving).abort_handle();
        Ok(Self { addr, shared, task })
    }

    /// Marks from now on each connection whose client sends `word` within one read of at most 4 KiB, from that read on: so that
    /// [`set_marked`](Self::set_marked) can treat it differently. Only the first word counts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::testing::{Mode, Proxy};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use tokio::net::{TcpListener, TcpStream};
    /// use tokio::time::timeout;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let server = TcpListener::bind("127.0.0.1:0").await?;
    /// let proxy = Proxy::to(server.local_addr()?).await?.marking("SUBSCRIBE");
    /// proxy.set_marked(Mode::Stall);
    ///
    /// let mut bytes = [0; 4];
    /// let mut plain = TcpStream::connect(proxy.addr()).await?;
    /// plain.write_all(b"PING").await?;
    /// server.accept().await?.0.read_exact(&mut bytes).await?;
    ///
    /// let mut marked = TcpStream::connect(proxy.addr()).await?;
    /// marked.write_all(b"SUBSCRIBE").await?;
    /// let (mut accepted, _) = server.accept().await?;
    /// let early = timeout(Duration::from_millis(20), accepted.read_exact(&mut bytes)).await;
    /// assert!(early.is_err(), "nothing arrives");
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn marking(self, word: impl Into<Vec<u8>>) -> Self {
        let word = word.into();
        if !word.is_empty() {
            let _ = self.shared.word.set(word);
        }
        self
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port of [`addr`](Self::addr).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Sets what happens from now on, to marked connections too. A mode that concerns open connections concerns those that are
    /// [`accepted`](Self::accepted) already.
    pub fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| state.set(mode));
    }

    /// Sets what happens to [marked](Self::marking) connections alone, until the next [`set`](Self::set). What such a
    /// connection sent before the word has passed as on any other. [`Mode::Refuse`] lets them pass.
    pub fn set_marked(&self, mode: Mode) {
        self.shared
            .state
            .send_modify(|state| state.set_marked(mode));
    }

    /// The mode, of connections that are not marked.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.shared.state.borrow().mode()
    }

    /// Closes all open connections (FIN). The mode stays.
    pub fn cut(&self) {
        self.end(End::Fin);
    }

    /// Resets all open connections (RST). The mode stays.
    pub fn reset(&self) {
        self.end(End::Reset);
    }

    /// Resets all open connections that are [marked](Self::marking). The mode stays.
    pub fn reset_marked(&self) {
        self.shared.state.send_modify(State::reset_marked);
    }

    /// Closes the direction towards the client of all open connections (FIN); what clients send goes on to arrive.
    /// The mode stays.
    pub fn half_close(&self) {
        self.shared.state.send_modify(State::half_close);
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Relaxed)
    }

    /// How many connections are open, stalled and half closed ones included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// How many connections are open and [marked](Self::marking).
    #[must_use]
    pub fn marked(&self) -> usize {
        self.shared.marked.load(Relaxed)
    }

    fn end(&self, end: End) {
        self.shared.state.send_modify(|state| state.end(end));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections' tasks end with it.
        self.task.abort();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("addr", &self.addr)
            .field("target", &self.shared.target)
            .field("mode", &self.mode())
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

/// A socket bound to `addr`, which others of ours may be bound to as well.
fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(addr)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The task of a proxy. Dropped, it takes the tasks of all connections with it.
async fn serve(shared: Arc<Shared>, addr: SocketAddr, first: TcpListener, _keeper: Socket) {
    let mut listener = Some(first);
    let mut state = shared.state.subscribe();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if state.borrow_and_update().mode() == Mode::Refuse {
            listener = None;
            let _ = state.wait_for(|state| state.mode() != Mode::Refuse).await;
        }
        let open = match &listener {
            Some(open) => open,
            None => match listen(addr) {
                Ok(open) => listener.insert(open),
                Err(_) => {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        if connections.len() >= MAX_OPEN {
            connections.join_next().await;
        }
        let accepting = std::pin::pin!(open.accept());
        match select(std::pin::pin!(state.changed()), accepting).await {
            Either::Left(_) => {}
            Either::Right((Ok((near, _)), _)) => {
                let line = Line::new(&shared);
                connections.spawn(pump::carry(near, line));
            }
            // Out of file descriptors, say.
            Either::Right((Err(_), _)) => sleep(Duration::from_millis(10)).await,
        }
    }
}
