use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

/// What must not come does not come within this.
const QUIET: Duration = Duration::from_millis(60);
/// What must come comes within this, on a busy machine too.
const SOON: Duration = Duration::from_secs(5);

/// A server that answers every byte with itself.
struct Echo {
    addr: SocketAddr,
    _connections: JoinSet<()>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut all = JoinSet::new();
    all.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    Echo {
        addr,
        _connections: all,
    }
}

async fn start() -> (Echo, Proxy) {
    let echo = echo().await;
    let proxy = Proxy::to(echo.addr).await.unwrap();
    (echo, proxy)
}

/// A client that the proxy knows of.
async fn client(proxy: &Proxy) -> TcpStream {
    let before = proxy.accepted();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    client.set_nodelay(true).unwrap();
    until(|| proxy.accepted() > before).await;
    client
}

async fn until(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Sends and reads the echo.
async fn asked(client: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    client.write_all(text).await.unwrap();
    read(client, text.len()).await
}

async fn read(client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut answer = vec![0; count];
    timeout(SOON, client.read_exact(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    answer
}

/// What is read before the end of the stream, and how it ended.
async fn end(client: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = timeout(SOON, client.read_to_end(&mut bytes)).await;
    (bytes, ended.expect("an end").map(|_| ()))
}

async fn is_quiet(client: &mut TcpStream) -> bool {
    let mut byte = [0];
    timeout(QUIET, client.read(&mut byte)).await.is_err()
}

#[tokio::test]
async fn bytes_and_ends_pass() {
    let (_echo, proxy) = start().await;
    let mut one = client(&proxy).await;
    assert_eq!(asked(&mut one, b"hello").await, b"hello");
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    let mut large = vec![7; 3 << 20];
    large[1 << 20] = 1;
    let (mut read_half, mut write_half) = one.split();
    let mut answer = vec![0; large.len()];
    let writing = async {
        write_half.write_all(&large).await.unwrap();
        write_half.shutdown().await.unwrap();
    };
    tokio::join!(writing, async {
        read_half.read_exact(&mut answer).await.unwrap();
    });
    assert!(answer == large);
    let (rest, ended) = end(&mut one).await;
    assert!(rest.is_empty() && ended.is_ok());
    until(|| proxy.open() == 0).await;
    assert!(format!("{proxy:?}").contains("Pass"));
}

#[tokio::test]
async fn a_delay_is_no_limit_to_throughput_and_keeps_the_order() {
    let (_echo, proxy) = start().await;
    let mut one = client(&proxy).await;
    let delay = Duration::from_millis(80);
    proxy.set(Mode::Delay(delay));
    let began = Instant::now();
    assert_eq!(asked(&mut one, b"x").await, b"x");
    assert!(began.elapsed() >= delay * 2);
    // Twenty chunks, one after the other: they are late once, not twenty times.
    let began = Instant::now();
    let (mut read_half, mut write_half) = one.split();
    let writing = async {
        for chunk in 0..20_u8 {
            write_half.write_all(&[chunk; 100]).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    };
    let mut answer = vec![0; 2000];
    tokio::join!(writing, async {
        read_half.read_exact(&mut answer).await.unwrap();
    });
    let took = began.elapsed();
    assert!(took >= delay * 2 && took < delay * 10, "{took:?}");
    assert!(answer.is_sorted());
    // What came under the delay keeps it, and comes before what comes later.
    one.write_all(b"first").await.unwrap();
    sleep(Duration::from_millis(10)).await;
    proxy.set(Mode::Pass);
    one.write_all(b"second").await.unwrap();
    assert_eq!(read(&mut one, 11).await, b"firstsecond");
}

#[tokio::test]
async fn stalled_connections_stay_open_and_resume() {
    let (_echo, proxy) = start().await;
    let mut old = client(&proxy).await;
    asked(&mut old, b"a").await;
    proxy.set(Mode::Stall);
    let mut new = client(&proxy).await;
    for stalled in [&mut old, &mut new] {
        stalled.write_all(b"later").await.unwrap();
        assert!(is_quiet(stalled).await);
    }
    assert_eq!(proxy.open(), 2);
    proxy.set(Mode::Pass);
    assert_eq!(read(&mut old, 5).await, b"later");
    assert_eq!(read(&mut new, 5).await, b"later");
}

#[tokio::test]
async fn a_stalled_connection_takes_no_more_than_its_bound() {
    let (_echo, proxy) = start().await;
    let mut one = client(&proxy).await;
    proxy.set(Mode::Stall);
    let block = vec![0; 1 << 20];
    let mut sent = 0;
    while let Ok(written) = timeout(QUIET * 5, one.write(&block)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "no end of it");
    }
    // The kernel's own buffers come on top.
    assert!(sent >= 1 << 20, "{sent}");
}

#[tokio::test]
async fn old_connections_stall_and_new_ones_pass() {
    let (_echo, proxy) = start().await;
    let mut old = client(&proxy).await;
    asked(&mut old, b"a").await;
    proxy.set(Mode::StallOld);
    let mut new = client(&proxy).await;
    old.write_all(b"later").await.unwrap();
    assert_eq!(asked(&mut new, b"now").await, b"now");
    assert!(is_quiet(&mut old).await);
    proxy.set(Mode::Pass);
    assert_eq!(read(&mut old, 5).await, b"later");
}

#[tokio::test]
async fn cut_connections_are_closed_even_if_told_for_a_moment_only() {
    let (_echo, proxy) = start().await;
    let mut old = client(&proxy).await;
    asked(&mut old, b"a").await;
    proxy.set(Mode::Stall);
    old.write_all(b"unread").await.unwrap();
    proxy.cut();
    proxy.set(Mode::Pass);
    let (bytes, ended) = end(&mut old).await;
    assert!(bytes.is_empty() && ended.is_ok(), "{ended:?}");
    until(|| proxy.open() == 0).await;
    let mut new = client(&proxy).await;
    assert_eq!(asked(&mut new, b"b").await, b"b");
}

#[tokio::test]
async fn reset_connections_are_reset() {
    let (_echo, proxy) = start().await;
    let mut old = client(&proxy).await;
    asked(&mut old, b"a").await;
    proxy.reset();
    let (_, ended) = end(&mut old).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut new = client(&proxy).await;
    assert_eq!(asked(&mut new, b"b").await, b"b");
}

#[tokio::test]
async fn a_half_closed_connection_still_takes_requests() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap()).await.unwrap();
    let mut one = client(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();
    asked_of(&mut one, &mut server).await;
    proxy.half_close();
    let (bytes, ended) = end(&mut one).await;
    assert!(bytes.is_empty() && ended.is_ok());
    one.write_all(b"still").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"still");
    assert_eq!(proxy.open(), 1);
    let mut new = client(&proxy).await;
    let (mut other, _) = listener.accept().await.unwrap();
    asked_of(&mut new, &mut other).await;
    drop(one);
    until(|| proxy.open() == 1).await;
}

async fn asked_of(client: &mut TcpStream, server: &mut TcpStream) {
    server.write_all(b"a").await.unwrap();
    assert_eq!(read(client, 1).await, b"a");
}

#[tokio::test]
async fn slices_are_single_bytes() {
    let (_echo, proxy) = start().await;
    let mut one = client(&proxy).await;
    proxy.set(Mode::Slice(Duration::from_millis(5)));
    one.write_all(b"hello world").await.unwrap();
    let (mut bytes, mut reads) = (Vec::new(), 0);
    while bytes.len() < 11 {
        timeout(SOON, one.read_buf(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        reads += 1;
    }
    assert!(bytes == b"hello world" && reads > 3, "{reads} reads");
    proxy.set(Mode::Slice(Duration::ZERO));
    assert_eq!(asked(&mut one, &[1; 5000]).await, [1; 5000]);
}

#[tokio::test]
async fn the_same_seed_flips_the_same_bits_of_replies() {
    let sent: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
    let mut flipped = Vec::new();
    for seed in [1, 1, 2] {
        let (_echo, proxy) = start().await;
        proxy.set(Mode::Corrupt { every: 100, seed });
        let mut one = client(&proxy).await;
        flipped.push(asked(&mut one, &sent).await);
        let bits: u32 = sent
            .iter()
            .zip(&flipped[flipped.len() - 1])
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert!((100..400).contains(&bits), "{bits} of 160,000 bits");
        proxy.set(Mode::Pass);
        assert_eq!(asked(&mut one, b"fine").await, b"fine");
    }
    assert!(flipped[0] == flipped[1] && flipped[0] != flipped[2]);
}

#[tokio::test]
async fn a_truncated_reply_is_followed_by_the_end() {
    let (_echo, proxy) = start().await;
    for length in [0, 1, 4] {
        let mut old = client(&proxy).await;
        asked(&mut old, b"before").await;
        proxy.set(Mode::Truncate(length));
        let mut new = client(&proxy).await;
        old.write_all(b"hello").await.unwrap();
        let (bytes, ended) = end(&mut old).await;
        assert!(ended.is_ok() && bytes == b"hello"[..length], "{bytes:?}");
        assert_eq!(asked(&mut new, b"hello").await, b"hello");
        proxy.set(Mode::Pass);
    }
}

#[tokio::test]
async fn a_silent_proxy_accepts_and_tells_the_target_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap()).await.unwrap();
    proxy.set(Mode::Silent);
    let mut one = client(&proxy).await;
    one.write_all(b"hello").await.unwrap();
    assert!(is_quiet(&mut one).await);
    assert!(timeout(QUIET, listener.accept()).await.is_err());
    proxy.set(Mode::Pass);
    let (mut server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    assert_eq!(read(&mut server, 5).await, b"hello");
}

#[tokio::test]
async fn refused_connections_are_refused_until_it_listens_again() {
    let (_echo, proxy) = start().await;
    let mut old = client(&proxy).await;
    asked(&mut old, b"a").await;
    for _ in 0..3 {
        proxy.set(Mode::Refuse);
        let began = Instant::now();
        loop {
            // One that arrives before the listener is gone is accepted and then reset.
            match TcpStream::connect(proxy.addr()).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
                _ => assert!(began.elapsed() < SOON, "still accepted"),
            }
        }
        assert_eq!(asked(&mut old, b"old").await, b"old");
        proxy.set(Mode::Pass);
        let began = Instant::now();
        let mut new = loop {
            match TcpStream::connect(proxy.addr()).await {
                Ok(new) => break new,
                Err(_) => assert!(began.elapsed() < SOON, "still refused"),
            }
        };
        assert_eq!(asked(&mut new, b"new").await, b"new");
    }
}

#[tokio::test]
async fn a_target_that_is_away_is_a_reset() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::to(gone).await.unwrap();
    let mut one = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(end(&mut one).await.1.is_err());
    assert!(Proxy::to("no address").await.is_err());
}

/// A client that said the word, and one that did not.
async fn one_of_each(proxy: &Proxy) -> [TcpStream; 2] {
    let mut both = [client(proxy).await, client(proxy).await];
    assert_eq!(asked(&mut both[0], b"the WORD itself").await.len(), 15);
    assert_eq!(asked(&mut both[1], b"a WORM").await.len(), 6);
    both
}

#[tokio::test]
async fn a_mode_of_marked_connections_leaves_the_others_alone() {
    let (_echo, proxy) = start().await;
    let proxy = proxy.marking("WORD");
    let [mut marked, mut plain] = one_of_each(&proxy).await;
    assert_eq!((proxy.open(), proxy.marked()), (2, 1));
    proxy.set_marked(Mode::Stall);
    assert_eq!(proxy.mode(), Mode::Pass);
    assert_eq!(asked(&mut plain, b"now").await, b"now");
    marked.write_all(b"later").await.unwrap();
    assert!(is_quiet(&mut marked).await);
    // A new one is marked by what it sends, which is stalled too.
    assert_eq!(asked(&mut plain, b"not yet").await, b"not yet");
    plain.write_all(b"a WORD").await.unwrap();
    assert!(is_quiet(&mut plain).await);
    proxy.set(Mode::Pass);
    assert_eq!(read(&mut marked, 5).await, b"later");
    assert_eq!(read(&mut plain, 6).await, b"a WORD");
    drop((marked, plain));
    until(|| (proxy.open(), proxy.marked()) == (0, 0)).await;
}

#[tokio::test]
async fn marked_connections_may_pass_while_the_others_do_not() {
    let (_echo, proxy) = start().await;
    let proxy = proxy.marking("WORD");
    let [mut marked, mut plain] = one_of_each(&proxy).await;
    proxy.set(Mode::Stall);
    proxy.set_marked(Mode::Pass);
    assert_eq!(asked(&mut marked, b"now").await, b"now");
    plain.write_all(b"later").await.unwrap();
    assert!(is_quiet(&mut plain).await);
    // What waits passes with the mark.
    plain.write_all(b"WORD").await.unwrap();
    assert_eq!(read(&mut plain, 9).await, b"laterWORD");
    proxy.set_marked(Mode::StallOld);
    let mut new = client(&proxy).await;
    proxy.set_marked(Mode::StallOld);
    new.write_all(b"WORD").await.unwrap();
    assert!(is_quiet(&mut new).await, "older than the mode");
}

#[tokio::test]
async fn marked_connections_are_reset_alone() {
    let (_echo, proxy) = start().await;
    let proxy = proxy.marking("WORD");
    let [mut marked, mut plain] = one_of_each(&proxy).await;
    proxy.reset_marked();
    assert!(end(&mut marked).await.1.is_err());
    // One that is marked later is not concerned, if it was there later too.
    let mut new = client(&proxy).await;
    assert_eq!(asked(&mut new, b"WORD").await, b"WORD");
    assert_eq!(asked(&mut plain, b"fine").await, b"fine");
}

#[tokio::test]
async fn dropped_it_leaves_nothing_behind() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let echo = echo().await;
    let before = tasks();
    let proxy = Proxy::to(echo.addr).await.unwrap();
    let addr = proxy.addr();
    let mut stalled = client(&proxy).await;
    proxy.set(Mode::Stall);
    stalled.write_all(b"hello").await.unwrap();
    drop(proxy);
    let _ = end(&mut stalled).await;
    until(|| tasks() <= before).await;
    assert!(TcpStream::connect(addr).await.is_err());
}
