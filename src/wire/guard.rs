//! A bound on what a server's replies may cost, applied as they arrive.
//!
//! redis-rs gathers a whole bulk string before it parses it, whatever length the server announced. [`Guard`]
//! sits between socket and parser, reads the headers that pass, and turns any bulk string above the bound into
//! an error element, whose payload it swallows: an oversized foreign value costs neither memory nor the
//! connection, and the other values of the same `MGET` stay readable.
//!
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::resp::{MAX_HEADER, Scan, Stop};

/// The code of the error element that stands for a bulk string above the bound.
pub(crate) const TOO_BIG: &str = "LARDERTOOBIG";

/// An `AsyncRead + AsyncWrite` that bounds the bulk strings of the RESP2 or RESP3 replies read through it.
///
/// What is within the bound passes without being copied; only a header that a read cut in two is held back
/// until its end arrives.
///
/// # Errors
///
/// A read fails with [`io::ErrorKind::InvalidData`] where the bytes are no RESP, where an aggregate announces
/// more than 16 Mi elements, or where a line is longer than the bound (64 KiB at least). The stream is of no use after that.
pub(crate) struct Guard<S> {
    inner: S,
    scan: Scan,
    /// A header whose end has not arrived yet.
    held: Vec<u8>,
    /// Bytes that are ready, from `given` on, but could not be left where they were read.
    pending: Vec<u8>,
    given: usize,
    ended: bool,
}

impl<S> Guard<S> {
    /// Bounds the bulk strings read from `inner` to `max` bytes.
    pub(crate) fn new(inner: S, max: usize) -> Self {
        Self {
            inner,
            scan: Scan::new(max),
            held: Vec::new(),
            pending: Vec::new(),
            given: 0,
            ended: false,
        }
    }

    /// Scans what was read into `buf` from `start` on. What may pass stays there; what follows the first
    /// oversized element of this read goes to `pending`.
    fn sift(&mut self, buf: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let mut rest = &buf.filled()[start..];
        let (mut kept, mut in_place) = (0, true);
        loop {
            let (passed, stop) = self.scan.pass(rest)?;
            if in_place {
                kept = passed;
            } else {
                self.pending.extend_from_slice(&rest[..passed]);
            }
            rest = &rest[passed..];
            match stop {
                Stop::End => break,
                Stop::Partial => {
                    self.held.extend_from_slice(rest);
                    break;
                }
                Stop::TooBig { header, length } => {
                    let max = self.scan.max();
                    let line = format!(
                        "-{TOO_BIG} value of {length} bytes exceeds the bound of {max}\r\n"
                    );
                    self.pending.extend_from_slice(line.as_bytes());
                    rest = &rest[header..];
                }
                Stop::Skip => {
                    let swallowed = self.scan.swallow(rest)?;
                    rest = &rest[swallowed..];
                    if rest.is_empty() {
                        break;
                    }
                }
            }
            in_place = false;
        }
        buf.set_filled(start + kept);
        Ok(())
    }

    /// Hands out bytes that wait in `pending`; whether there were any.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let waiting = &self.pending[self.given..];
        if waiting.is_empty() {
            return false;
        }
        let count = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..count]);
        self.given += count;
        if self.given == self.pending.len() {
            // Given back rather than kept: what follows an oversized element is rarely this long again.
            self.pending = Vec::new();
            self.given = 0;
        }
        true
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// One read of `inner` behind what is held, and its scan. `buf` has room for more than is held.
    fn fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        buf.put_slice(&self.held);
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if !matches!(read, Poll::Ready(Ok(()))) {
            buf.set_filled(start);
            return read;
        }
        self.held.clear();
        if count == 0 {
            // The end, perhaps inside a header: what there is of it is the parser's to judge.
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.sift(buf, start))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        // No bytes would mean the end, so a read that was swallowed whole is followed by another.
        while buf.filled().len() == start && buf.remaining() > 0 {
            if this.give(buf) || this.ended {
                break;
            }
            if buf.remaining() > this.held.len() {
                ready!(this.fill(cx, buf))?;
            } else {
                let mut room = [0; 2 * MAX_HEADER];
                let mut small = ReadBuf::new(&mut room);
                ready!(this.fill(cx, &mut small))?;
                this.pending.splice(..0, small.filled().iter().copied());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<S> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("max", &self.scan.max())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A reader that gives its chunks one at a time, then the end. An empty chunk is a wait.
    struct Chunks(VecDeque<Vec<u8>>);

    impl AsyncRead for Chunks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let Some(mut chunk) = self.0.pop_front() else {
                return Poll::Ready(Ok(()));
            };
            if chunk.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let rest = chunk.split_off(chunk.len().min(buf.remaining()));
            buf.put_slice(&chunk);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Reads all that `chunks` give through a guard, at most `room` bytes at a time.
    fn through(chunks: &[&[u8]], max: usize, room: usize) -> io::Result<Vec<u8>> {
        let chunks = Chunks(chunks.iter().map(|chunk| chunk.to_vec()).collect());
        let mut guard = Guard::new(chunks, max);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut out, mut space) = (Vec::new(), vec![0; room]);
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut guard).poll_read(&mut cx, &mut buf) {
                Poll::Pending => assert!(buf.filled().is_empty(), "bytes with Pending"),
                Poll::Ready(result) => result?,
            }
            assert!(guard.held.len() <= MAX_HEADER);
            if buf.filled().is_empty() && guard.ended {
                return Ok(out);
            }
            out.extend_from_slice(buf.filled());
        }
    }

    /// Every form there is, nested too.
    const SAMPLE: &[u8] = b"+OK\r\n-ERR no\r\n:-12\r\n$5\r\nhello\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n\
        *3\r\n$3\r\na\rb\r\n*1\r\n:1\r\n$4\r\n\r\n\r\n\r\n_\r\n#t\r\n,1.5\r\n(123\r\n=7\r\ntxt:abc\r\n!5\r\nERR x\r\n\
        %1\r\n+k\r\n$1\r\nv\r\n~2\r\n:1\r\n:2\r\n>2\r\n+message\r\n$1\r\nx\r\n|1\r\n+a\r\n+b\r\n:7\r\n+a\rb\nc\r\r\n";

    #[test]
    fn ordinary_traffic_passes_whatever_the_splits() {
        for room in [1, 2, 7, 33, 4096] {
            for a in 0..=SAMPLE.len() {
                let (left, right) = SAMPLE.split_at(a);
                assert_eq!(through(&[left, b"", right], 100, room).unwrap(), SAMPLE);
            }
            let single: Vec<&[u8]> = SAMPLE.chunks(1).collect();
            assert_eq!(through(&single, 100, room).unwrap(), SAMPLE);
        }
        // A stream that ends inside a header or a payload ends there behind the guard too.
        for a in 0..=SAMPLE.len() {
            assert_eq!(through(&[&SAMPLE[..a]], 100, 64).unwrap(), &SAMPLE[..a]);
        }
    }

    #[test]
    fn three_way_splits() {
        for a in 0..SAMPLE.len() {
            for b in a..SAMPLE.len() {
                let parts = [&SAMPLE[..a], &SAMPLE[a..b], &SAMPLE[b..]];
                assert_eq!(through(&parts, 100, 64).unwrap(), SAMPLE);
            }
        }
    }

    fn error_line(length: usize, max: usize) -> String {
        format!("-{TOO_BIG} value of {length} bytes exceeds the bound of {max}\r\n")
    }

    #[test]
    fn oversized_elements_become_errors_at_each_split() {
        let big = "x".repeat(40);
        for kind in ["$", "=", "!"] {
            let input = format!("*3\r\n$2\r\nab\r\n{kind}40\r\n{big}\r\n$4\r\ncd\r\n\r\n+OK\r\n");
            let line = error_line(40, 8);
            let expected = format!("*3\r\n$2\r\nab\r\n{line}$4\r\ncd\r\n\r\n+OK\r\n");
            let input = input.as_bytes();
            for room in [1, 5, 40, 4096] {
                for a in 0..=input.len() {
                    let (left, right) = input.split_at(a);
                    let out = through(&[left, b"", right], 8, room).unwrap();
                    assert_eq!(String::from_utf8(out).unwrap(), expected, "{a} {room}");
                }
                let single: Vec<&[u8]> = input.chunks(1).collect();
                assert_eq!(through(&single, 8, room).unwrap(), expected.as_bytes());
            }
        }
        // The bound itself is within the bound.
        let exact = b"$8\r\n12345678\r\n";
        assert_eq!(through(&[exact], 8, 64).unwrap(), exact);
        let over = b"$9\r\n123456789\r\n$9\r\n123456789\r\n";
        let twice = error_line(9, 8).repeat(2);
        assert_eq!(through(&[over], 8, 64).unwrap(), twice.as_bytes());
    }

    #[test]
    fn what_is_no_resp_is_an_error() {
        let table: &[&[u8]] = &[
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"$x\r\n",
            b"$\r\n",
            b"$+5\r\nhello\r\n",
            b"$ 5\r\nhello\r\n",
            b"$-2\r\n",
            b"$--1\r\n",
            b"=-1\r\n",
            b"!-1\r\n",
            b"%-1\r\n",
            b"$5\n\r\nhello\r\n",
            b"$5\r5\r\n",
            b"$9223372036854775807\r\n",
            b"$18446744073709551616\r\n",
            b"$0000000000000000000000000000000000000000",
            b"*16777217\r\n",
            b"*4294967296\r\n",
            b"~16777217\r\n",
            b">16777217\r\n",
            b"%8388609\r\n",
            b"|8388609\r\n",
            b"*9223372036854775805\r\n",
        ];
        for input in table {
            let single: Vec<&[u8]> = input.chunks(1).collect();
            for chunks in [&[*input][..], &single] {
                let error = through(chunks, 100, 64).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{input:?}");
            }
        }
        assert!(through(&[b"*16777216\r\n%8388608\r\n"], 100, 64).is_ok());
        let mut long = vec![b'+'];
        long.resize(70_000, b'x');
        assert!(through(&[&long], 100, 64).is_err());
        long.extend_from_slice(b"\r\n");
        assert!(through(&[&long], 100, 100_000).is_err());
        assert!(through(&[&long], 80_000, 64).is_ok());
        assert!(through(&[b"$9\r\n123456789xx+OK\r\n"], 8, 64).is_err());
    }

    #[test]
    fn a_broken_stream_stays_broken() {
        let mut scan = Scan::new(100);
        assert!(scan.pass(b"?").is_err());
        assert!(scan.pass(b"+OK\r\n").is_err());
    }

    /// xorshift: the same streams in each run, from a seed that is printed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    /// Writes a random element to `raw`, and what a naive filter makes of it to `expected`.
    fn element(
        random: &mut Random,
        depth: usize,
        max: usize,
        raw: &mut Vec<u8>,
        expected: &mut Vec<u8>,
    ) {
        let mut both = |text: &[u8]| {
            raw.extend_from_slice(text);
            expected.extend_from_slice(text);
        };
        match random.below(if depth < 4 { 6 } else { 4 }) {
            0 => both([&b"+OK\r\n"[..], b":-42\r\n", b"_\r\n", b"-ERR a\rb\r\n"][random.below(4)]),
            1 => both([&b"$-1\r\n"[..], b"*-1\r\n", b"*0\r\n", b"%0\r\n"][random.below(4)]),
            2 | 3 => {
                let length = random.below(3 * max);
                let kind = ["$", "=", "!"][random.below(3)];
                let payload: Vec<u8> = (0..length).map(|_| b"$*\r\n3x"[random.below(6)]).collect();
                raw.extend_from_slice(format!("{kind}{length}\r\n").as_bytes());
                raw.extend_from_slice(&payload);
                raw.extend_from_slice(b"\r\n");
                if length > max {
                    expected.extend_from_slice(error_line(length, max).as_bytes());
                } else {
                    expected.extend_from_slice(format!("{kind}{length}\r\n").as_bytes());
                    expected.extend_from_slice(&payload);
                    expected.extend_from_slice(b"\r\n");
                }
            }
            _ => {
                let count = random.below(5);
                let (kind, each) = [("*", 1), ("~", 1), (">", 1), ("%", 2)][random.below(4)];
                both(format!("{kind}{count}\r\n").as_bytes());
                for _ in 0..count * each {
                    element(random, depth + 1, max, raw, expected);
                }
            }
        }
    }

    #[test]
    fn random_streams_agree_with_a_naive_filter() {
        for seed in 1..=400_u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let max = 1 + random.below(60);
            let (mut raw, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..random.below(30) {
                element(&mut random, 0, max, &mut raw, &mut expected);
            }
            let mut chunks = Vec::new();
            let mut rest = &raw[..];
            let longest = 1 + random.below(80);
            while !rest.is_empty() {
                let (chunk, tail) = rest.split_at(rest.len().min(1 + random.below(longest)));
                chunks.push(chunk);
                rest = tail;
            }
            let room = 1 + random.below(100);
            let out = through(&chunks, max, room).unwrap();
            assert!(out == expected, "seed {seed}, max {max}, room {room}");
        }
    }

    #[test]
    fn noise_is_an_error_or_passes_but_never_panics() {
        for seed in 1..=2000_u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let noise: Vec<u8> = (0..random.below(200))
                .map(|_| b"$*%~=!>|+-:_#,(0123456789-\r\n\r\n\r\nx"[random.below(30)])
                .collect();
            let chunks: Vec<&[u8]> = noise.chunks(1 + random.below(9)).collect();
            let split = through(&chunks, 20, 1 + random.below(50));
            let whole = through(&[&noise], 20, 4096);
            assert_eq!(split.ok(), whole.ok(), "seed {seed}");
        }
    }

    #[tokio::test]
    async fn sixty_four_mebibytes_cost_nothing() {
        const LENGTH: usize = 64 << 20;
        let (near, mut far) = tokio::io::duplex(256 << 10);
        let writer = tokio::spawn(async move {
            far.write_all(format!("*2\r\n${LENGTH}\r\n").as_bytes())
                .await
                .unwrap();
            let block = vec![b'x'; 1 << 20];
            for _ in 0..LENGTH / block.len() {
                far.write_all(&block).await.unwrap();
            }
            far.write_all(b"\r\n$2\r\nok\r\n").await.unwrap();
        });
        let mut guard = Guard::new(near, 8 << 20);
        // As the codec reads: into one buffer that grows as it must.
        let mut buffer = BytesMut::with_capacity(8 << 10);
        let (mut most, mut reads) = (0, 0);
        while guard.read_buf(&mut buffer).await.unwrap() > 0 {
            reads += 1;
            most = most.max(guard.pending.capacity() + guard.held.capacity() + buffer.capacity());
            buffer.reserve(1);
        }
        writer.await.unwrap();
        let expected = format!("*2\r\n{}$2\r\nok\r\n", error_line(LENGTH, 8 << 20));
        assert_eq!(buffer, expected.as_bytes());
        assert!(most < 1 << 20 && reads < 10, "{most} bytes, {reads} reads");
    }

    #[tokio::test]
    async fn writes_pass() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut guard = Guard::new(near, 8);
        guard.write_all(b"PING\r\n").await.unwrap();
        guard.shutdown().await.unwrap();
        let mut seen = Vec::new();
        far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"PING\r\n");
    }
}
