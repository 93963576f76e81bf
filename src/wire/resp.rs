//! Where elements begin and end in a stream of RESP2 or RESP3 replies. Pure: no I/O, no buffer of its own.
//!
//! RESP is flat on the wire (header lines and payloads, whatever they are nested in), so nothing here tracks
//! nesting. Its depth is bounded by redis-rs: `MAX_RECURSE_DEPTH` is 100 in `parser.rs` of 1.8.1. Nor does a
//! large count cost much before its elements arrive: the parser reserves room for 4,096 of them at most.

use std::io;

/// The longest header: a type byte, 19 digits, the line's end, and some room.
pub(super) const MAX_HEADER: usize = 32;

/// Lines up to this length pass however low the bound is: they are errors and numbers, not values.
const MIN_LINE: u64 = 64 << 10;

/// The most elements one array, set, map or push may announce; the two halves of a pair count as two.
const MAX_ELEMENTS: u64 = 16 << 20;

/// How far the scan of the reply stream has come.
pub(super) struct Scan {
    max: u64,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// The next byte is an element's type.
    Element,
    /// Inside a line that passes. `left`: how much longer it may be; `cr`: the last byte was a '\r'.
    Line { left: u64, cr: bool },
    /// Inside a payload that passes, with the line end behind it.
    Body { left: u64 },
    /// Inside a payload that is swallowed, with the line end behind it.
    Skip { left: u64 },
    /// The stream made no sense.
    Broken,
}

/// Why [`Scan::pass`] stopped.
pub(super) enum Stop {
    /// All was looked at.
    End,
    /// What is left is the beginning of a header.
    Partial,
    /// Next comes the header, `header` bytes long, of a payload of `length` bytes, which is above the bound.
    TooBig { header: usize, length: u64 },
    /// The next bytes are to be swallowed.
    Skip,
}

/// What an element begins with.
enum Head {
    Partial,
    Line,
    Whole { header: usize },
    Bulk { header: usize, length: u64 },
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// A bulk string's header of up to six digits that is there as a whole: nearly all there are, and read at a third of the cost.
fn short_bulk(input: &[u8]) -> Option<(usize, u64)> {
    let [b'$', digits @ ..] = input else {
        return None;
    };
    let mut length = 0;
    for (at, byte) in digits.iter().enumerate().take(7) {
        match byte {
            b'0'..=b'9' if at < 6 => length = length * 10 + u64::from(byte - b'0'),
            b'\r' if at > 0 && digits.get(at + 1) == Some(&b'\n') => return Some((at + 3, length)),
            _ => return None,
        }
    }
    None
}

/// Reads the type byte, and the length behind it where the type has one.
///
/// Stricter than redis-rs, which takes signs, blanks and any negative length: a length that two readers
/// understand differently would shift all that follows.
fn head(input: &[u8]) -> io::Result<Head> {
    let Some(kind) = input.first() else {
        return Ok(Head::Partial);
    };
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => return Ok(Head::Line),
        b'$' | b'=' | b'!' | b'*' | b'~' | b'%' | b'>' | b'|' => {}
        _ => return Err(invalid("the server's answer is no RESP")),
    }
    if let Some((header, length)) = short_bulk(input) {
        return Ok(Head::Bulk { header, length });
    }
    let line = &input[1..input.len().min(MAX_HEADER)];
    let end = line.iter().position(|byte| *byte == b'\r');
    let digits = &line[..end.unwrap_or(line.len())];
    if !digits.iter().all(|b| b.is_ascii_digit() || *b == b'-') {
        return Err(invalid("a length in the server's answer is no number"));
    }
    let end = match end {
        Some(end) if line.get(end + 1) == Some(&b'\n') => end,
        Some(end) if line.len() > end + 1 => return Err(invalid("a line end is cut in two")),
        _ if line.len() + 1 < MAX_HEADER => return Ok(Head::Partial),
        _ => return Err(invalid("a length in the server's answer is too long")),
    };
    let header = end + 3;
    if digits == b"-1" && matches!(kind, b'$' | b'*') {
        return Ok(Head::Whole { header });
    }
    let number = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse::<u64>().ok())
        // Leaves room for the two bytes behind a payload and for doubling.
        .filter(|number| *number <= i64::MAX as u64 - 2)
        .ok_or_else(|| invalid("a length in the server's answer is no number"))?;
    match kind {
        b'$' | b'=' | b'!' => Ok(Head::Bulk {
            header,
            length: number,
        }),
        b'%' | b'|' if number * 2 > MAX_ELEMENTS => Err(invalid("a map of too many pairs")),
        _ if number > MAX_ELEMENTS => Err(invalid("an array of too many elements")),
        _ => Ok(Head::Whole { header }),
    }
}

impl Scan {
    /// A scan of a fresh stream, whose payloads are at most `max` bytes long.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max as u64,
            state: State::Element,
        }
    }

    /// The bound in bytes.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Looks at `input` as far as it may pass as it is; answers how far that is, and why it ended there.
    pub(super) fn pass(&mut self, input: &[u8]) -> io::Result<(usize, Stop)> {
        let mut at = 0;
        loop {
            match self.state {
                State::Broken => return Err(invalid("the server's answers made no sense before")),
                State::Skip { .. } => return Ok((at, Stop::Skip)),
                _ if at == input.len() => return Ok((at, Stop::End)),
                State::Body { left } => {
                    let taken = shorter(left, input.len() - at);
                    at += taken;
                    self.state = match left - taken as u64 {
                        0 => State::Element,
                        left => State::Body { left },
                    };
                }
                State::Line { left, cr } => at += self.line(&input[at..], left, cr)?,
                State::Element => match head(&input[at..]).inspect_err(|_| self.fail())? {
                    Head::Partial => return Ok((at, Stop::Partial)),
                    Head::Line => {
                        let left = self.max.max(MIN_LINE);
                        self.state = State::Line { left, cr: false };
                    }
                    Head::Whole { header } => at += header,
                    Head::Bulk { header, length } if length > self.max => {
                        let left = length + 2;
                        self.state = State::Skip { left };
                        return Ok((at, Stop::TooBig { header, length }));
                    }
                    Head::Bulk { header, length } => {
                        at += header;
                        self.state = State::Body { left: length + 2 };
                    }
                },
            }
        }
    }

    /// Passes what `input` holds of a line that ends at "\r\n"; answers how much that is.
    fn line(&mut self, input: &[u8], left: u64, mut cr: bool) -> io::Result<usize> {
        let (mut taken, mut ended) = (0, false);
        for byte in input {
            taken += 1;
            ended = cr && *byte == b'\n';
            if ended {
                break;
            }
            cr = *byte == b'\r';
        }
        // The parser behind gathers whole lines, so they need a bound too.
        let Some(left) = left.checked_sub(taken as u64) else {
            self.fail();
            return Err(invalid("a line in the server's answer is too long"));
        };
        self.state = if ended {
            State::Element
        } else {
            State::Line { left, cr }
        };
        Ok(taken)
    }

    /// Swallows what `input` holds of an oversized payload; answers how much that is.
    pub(super) fn swallow(&mut self, input: &[u8]) -> io::Result<usize> {
        let State::Skip { left } = self.state else {
            return Ok(0);
        };
        let taken = shorter(left, input.len());
        // The last two bytes are the line end; anything else means that the length was a lie.
        for (byte, behind) in input[..taken].iter().rev().zip(left - taken as u64..2) {
            if *byte != [b'\n', b'\r'][usize::from(behind == 1)] {
                self.fail();
                return Err(invalid(
                    "a payload in the server's answer is longer than announced",
                ));
            }
        }
        self.state = match left - taken as u64 {
            0 => State::Element,
            left => State::Skip { left },
        };
        Ok(taken)
    }

    fn fail(&mut self) {
        self.state = State::Broken;
    }
}

/// The smaller of a count left and a length at hand.
fn shorter(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}
