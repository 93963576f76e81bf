//! The bytes of one connection.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select, try_join};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Mode;
use super::line::{End, Line};

/// Bytes read at a time, and chunks that may be on their way: 4 MiB a direction.
const CHUNK: usize = 4 << 10;
const CHUNKS: usize = 1 << 10;

/// How long a connection that was closed is still read from: to close it on unread bytes would be a reset.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Requests,
    Replies,
}

/// Bytes, and when they are to be passed on.
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

/// Serves one connection to its end.
pub(super) async fn carry(mut near: TcpStream, line: Line) {
    let end = {
        let carried = pin!(between(&mut near, &line));
        match select(pin!(line.ended()), carried).await {
            Either::Left((end, _)) | Either::Right((end, _)) => end,
        }
    };
    drop(line);
    match end {
        End::Reset => {
            let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
        }
        End::Fin => {
            let _ = near.shutdown().await;
            let mut rest = [0; CHUNK];
            let unread = async { while matches!(near.read(&mut rest).await, Ok(1..)) {} };
            let _ = timeout(LINGER, unread).await;
        }
    }
}

/// Carries bytes both ways until both are at their end, or one fails.
async fn between(near: &mut TcpStream, line: &Line) -> End {
    line.answered().await;
    let Ok(mut far) = TcpStream::connect(line.shared.target).await else {
        return End::Reset;
    };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return End::Reset;
    }
    let ((near_in, mut near_out), (far_in, mut far_out)) = (near.split(), far.split());
    let requests = pump(line, Way::Requests, near_in, &mut far_out);
    let replies = async {
        let closed = {
            let pumped = pin!(pump(line, Way::Replies, far_in, &mut near_out));
            match select(pin!(line.half_closed()), pumped).await {
                Either::Left(_) => true,
                Either::Right((Err(end), _)) => return Err(end),
                Either::Right((Ok(()), _)) => false,
            }
        };
        if closed {
            let _ = near_out.shutdown().await;
        }
        Ok(())
    };
    match try_join(requests, replies).await {
        Ok(_) => End::Fin,
        Err(end) => end,
    }
}

/// Carries bytes one way, the end included.
async fn pump(
    line: &Line,
    way: Way,
    from: ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
) -> Result<(), End> {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let taken = take(line, way, from, sender);
    try_join(taken, give(line, way, chunks, to))
        .await
        .map(|_| ())
}

async fn take(
    line: &Line,
    way: Way,
    mut from: ReadHalf<'_>,
    to: mpsc::Sender<Chunk>,
) -> Result<(), End> {
    let mut block = vec![0; CHUNK];
    loop {
        let count = from.read(&mut block).await.map_err(|_| End::Reset)?;
        if way == Way::Requests {
            line.sent(&block[..count]);
        }
        let chunk = Chunk {
            due: Instant::now() + line.delay(),
            bytes: block[..count].to_vec(),
        };
        // The other side is gone, or has nothing more to give.
        if count == 0 || to.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    line: &Line,
    way: Way,
    mut from: mpsc::Receiver<Chunk>,
    to: &mut WriteHalf<'_>,
) -> Result<(), End> {
    let mut damage = Damage::new(line.number);
    while let Some(mut chunk) = from.recv().await {
        // A timer takes up to a millisecond for what is due already.
        if chunk.due > Instant::now() {
            sleep_until(chunk.due).await;
        }
        let mut rest = &mut chunk.bytes[..];
        while !rest.is_empty() {
            let (mode, since) = line.clear().await;
            damage.begin(mode, since);
            let length = damage.allowed(way, mode, rest.len());
            let (piece, later) = rest.split_at_mut(length);
            damage.flip(way, mode, piece);
            to.write_all(piece).await.map_err(|_| End::Reset)?;
            damage.spent(way, mode)?;
            if let Mode::Slice(pause) = mode {
                rested(pause).await;
            }
            rest = later;
        }
    }
    line.clear().await;
    to.shutdown().await.map_err(|_| End::Reset)
}

/// A timer's shortest pause is a millisecond; no pause at all lets the reader have its byte first.
async fn rested(pause: Duration) {
    if pause.is_zero() {
        yield_now().await;
    } else {
        sleep(pause).await;
    }
}

/// What the mode does to the bytes of one direction.
struct Damage {
    number: u64,
    since: u64,
    /// Bytes passed since the mode was set.
    passed: usize,
    random: u64,
    /// Bytes before the next flip.
    gap: u64,
}

impl Damage {
    fn new(number: u64) -> Self {
        Self {
            number,
            since: u64::MAX,
            passed: 0,
            random: 0,
            gap: 0,
        }
    }

    /// Starts anew where the mode is a new one.
    fn begin(&mut self, mode: Mode, since: u64) {
        if self.since == since {
            return;
        }
        (self.since, self.passed) = (since, 0);
        if let Mode::Corrupt { every, seed } = mode {
            self.random = seed ^ self.number.rotate_left(32);
            self.gap = self.distance(every);
        }
    }

    /// How many of `length` bytes pass at once.
    fn allowed(&mut self, way: Way, mode: Mode, length: usize) -> usize {
        let length = match mode {
            Mode::Slice(_) => 1,
            Mode::Truncate(bytes) if way == Way::Replies => {
                bytes.saturating_sub(self.passed).min(length)
            }
            _ => length,
        };
        self.passed = self.passed.saturating_add(length);
        length
    }

    /// Ends the connection whose share of replies is used up.
    fn spent(&self, way: Way, mode: Mode) -> Result<(), End> {
        match mode {
            Mode::Truncate(bytes) if way == Way::Replies && self.passed >= bytes => Err(End::Fin),
            _ => Ok(()),
        }
    }

    fn flip(&mut self, way: Way, mode: Mode, bytes: &mut [u8]) {
        let Mode::Corrupt { every, .. } = mode else {
            return;
        };
        if way == Way::Requests {
            return;
        }
        for byte in bytes {
            if self.gap == 0 {
                *byte ^= 1 << (self.next() % 8);
                self.gap = self.distance(every);
            }
            self.gap -= 1;
        }
    }

    /// From 1 to almost twice `every`, which is the mean.
    fn distance(&mut self, every: u32) -> u64 {
        1 + self.next() % (2 * u64::from(every.max(1)) - 1)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
