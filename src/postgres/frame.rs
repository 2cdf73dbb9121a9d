//! Framing: where a message starts and ends, and how one is written.
//!
//! A frame is a kind byte, a length that counts itself, and a body; the packets before a login lack the kind byte
//! (<https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>). Nothing here looks
//! into a body beyond strings, nothing allocates by a length that a peer announced, nothing panics.

use crate::protocol::Violation;

/// Bytes of a packet without kind byte that follow its length word. PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`: the
/// sender has not authenticated, so what it may make us hold is small.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// Bytes of a whole SASL response or MD5 hash, head included. PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`.
pub const PROOF_FRAME_BYTES_MAX: usize = 1024 + HEAD_BYTES;

/// Bytes of a whole PasswordMessage with a password or token, head included. PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`: tickets and
/// tokens are long, but the sender has not authenticated.
pub const PASSWORD_FRAME_BYTES_MAX: usize = 64 * 1024 + HEAD_BYTES + 1;

/// Bytes of a frame's head: the kind byte and the length.
pub const HEAD_BYTES: usize = 5;

/// Bytes of a client's frame, the kind byte included. PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`, which leaves that out.
pub const CLIENT_FRAME_BYTES_MAX: usize = 0x3fff_fffe + 1;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The message's type.
    pub kind: u8,
    /// Bytes of the whole frame, the kind byte included; at least [`HEAD_BYTES`].
    pub len: usize,
}

/// Reads the head of a frame. `None`: it is not all there.
///
/// Any length that fits the wire passes: what a kind may have is the caller's to know.
pub fn head(input: &[u8]) -> Result<Option<Head>, Violation> {
    let Some((&[kind, a, b, c, d], _)) = input.split_first_chunk() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([a, b, c, d]);
    if length < 4 {
        return Err(Violation::InvalidLength);
    }
    let length = usize::try_from(length).map_err(|_| Violation::InvalidLength)?;
    let len = length.checked_add(1).ok_or(Violation::InvalidLength)?;
    Ok(Some(Head { kind, len }))
}

/// The same for what a client sends: what is longer than any server takes is refused here, in the same words as a length
/// that is too short, before a database connection is spent on it.
pub fn client_head(input: &[u8]) -> Result<Option<Head>, Violation> {
    let head = head(input)?;
    if head.is_some_and(|head| head.len > CLIENT_FRAME_BYTES_MAX) { Err(Violation::InvalidLength) } else { Ok(head) }
}

/// The frame at the front of the input with its body, if it is all there. Fails as soon as the head announces more
/// than `len_max` bytes, the kind byte included.
pub fn whole(input: &[u8], len_max: usize) -> Result<Option<(Head, &[u8])>, Violation> {
    let Some(head) = head(input)? else {
        return Ok(None);
    };
    if head.len > len_max {
        return Err(Violation::FrameTooLong);
    }
    Ok(input.get(HEAD_BYTES..head.len).map(|body| (head, body)))
}

/// The bytes of a whole packet without kind byte (startup packet, SSLRequest, GSSENCRequest, CancelRequest), its length
/// word included. `None`: the length is not all there.
///
/// It is 8 (length and code) up to [`STARTUP_BYTES_MAX`] + 4, as PostgreSQL has it.
pub fn startup_head(input: &[u8]) -> Result<Option<usize>, Violation> {
    let Some(&length) = input.first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Violation::InvalidLength)?;
    match length {
        0..8 => Err(Violation::InvalidLength),
        8.. if length - 4 > STARTUP_BYTES_MAX => Err(Violation::InvalidLength),
        8.. => Ok(Some(length)),
    }
}

/// Writes a frame: kind, length, and what `body` appends.
pub fn frame(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    packet(out, body);
}

/// Writes a packet without kind byte: length, and what `body` appends.
pub fn packet(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = out.len().saturating_sub(start);
    // A body of 2 GiB is never written here; if it were, the peer would see a length it must refuse.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *slot = length.to_be_bytes();
    }
}

/// Splits at the first NUL: the string before it and what follows it. `None`: there is no NUL.
pub fn cstr(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, body)?;
    Some((body.get(..end)?, body.get(end + 1..)?))
}

/// Writes a string and its NUL. A NUL inside would let the rest pass for something else: the string ends there.
pub fn put_cstr(out: &mut Vec<u8>, string: &[u8]) {
    out.extend_from_slice(cstr(string).map_or(string, |(before, _)| before));
    out.push(0);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads() {
        let check = |input: &[u8], expected| assert_eq!(head(input), expected, "{input:?}");
        check(b"", Ok(None));
        check(b"Q\0\0\0", Ok(None));
        check(b"S\0\0\0\x04", Ok(Some(Head { kind: b'S', len: 5 })));
        check(b"Q\0\0\0\x06ab", Ok(Some(Head { kind: b'Q', len: 7 })));
        check(b"d\x7f\xff\xff\xff", Ok(Some(Head { kind: b'd', len: 0x8000_0000 })));
        for length in [-1, i32::MIN, 0, 1, 2, 3] {
            let mut input = vec![b'Q'];
            input.extend(length.to_be_bytes());
            check(&input, Err(Violation::InvalidLength));
        }
    }

    #[test]
    fn a_frame_too_long_is_known_from_its_head() {
        let input = b"p\0\0\0\x07abc";
        assert_eq!(whole(input, 8).unwrap().unwrap().1, b"abc");
        assert_eq!(whole(&input[..7], 8), Ok(None));
        assert_eq!(whole(&input[..5], 7), Err(Violation::FrameTooLong));
        assert_eq!(whole(&input[..4], 7), Ok(None));
    }

    #[test]
    fn startup_lengths() {
        for length in (0..8).chain([10_005, 0x8000_0000, u32::MAX, 0x1603_0100, 0x4745_5420]) {
            assert_eq!(startup_head(&length.to_be_bytes()), Err(Violation::InvalidLength), "{length}");
        }
        for length in [8, 9, 10_000, 10_004] {
            assert_eq!(startup_head(&u32::to_be_bytes(length)), Ok(Some(length as usize)));
        }
        assert_eq!(startup_head(&[0, 0, 0]), Ok(None));
    }

    #[test]
    fn strings_end_at_their_nul() {
        assert_eq!(cstr(b"ab\0cd\0"), Some((&b"ab"[..], &b"cd\0"[..])));
        assert_eq!(cstr(b"\0"), Some((&b""[..], &b""[..])));
        assert_eq!(cstr(b"ab"), None);
        let mut out = Vec::new();
        put_cstr(&mut out, b"ab\0cd");
        assert_eq!(out, b"ab\0");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(before: Vec<u8>, kind: u8, body: Vec<u8>) {
            let mut out = before.clone();
            frame(&mut out, kind, |out| out.extend_from_slice(&body));
            prop_assert_eq!(&out[..before.len()], &before);
            let written = &out[before.len()..];
            prop_assert_eq!(whole(written, usize::MAX), Ok(Some((Head { kind, len: written.len() }, &body[..]))));
        }
    }
}
