//! Packets: three bytes of length, one of sequence, the payload
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html>).
//!
//! A payload of 16,777,215 bytes is followed by another piece of the same packet, if only an empty one. Nothing here puts
//! pieces together: long packets are passed on by their length.

use crate::protocol::Violation;

/// Length and sequence.
pub const HEAD_BYTES: usize = 4;
/// The longest piece; it is not the packet's last.
pub const PIECE_BYTES: usize = 0xFF_FFFF;

/// The beginning of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of its payload.
    pub len: usize,
    /// Its number within an exchange, modulo 256.
    pub sequence: u8,
}

impl Head {
    /// The packet ends with this piece.
    pub const fn is_last(self) -> bool {
        self.len < PIECE_BYTES
    }

    /// Bytes of the whole piece.
    pub const fn bytes(self) -> usize {
        HEAD_BYTES + self.len
    }
}

/// The head at the front of the input. `None`: there is less.
pub fn head(input: &[u8]) -> Option<Head> {
    let [a, b, c, sequence, ..] = *input else { return None };
    Some(Head { len: u32::from_le_bytes([a, b, c, 0]) as usize, sequence })
}

/// The packet at the front of the input, of at most so many bytes, with its payload. `None`: not all of it is here.
pub fn whole(input: &[u8], max: usize) -> Result<Option<(Head, &[u8])>, Violation> {
    let Some(head) = head(input) else { return Ok(None) };
    if head.len > max || !head.is_last() {
        return Err(Violation::FrameTooLong);
    }
    Ok(input.get(HEAD_BYTES..head.bytes()).map(|payload| (head, payload)))
}

/// Appends a packet whose payload `write` appends, shorter than [`PIECE_BYTES`], and counts its sequence on.
pub fn packet(out: &mut Vec<u8>, sequence: &mut u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, *sequence]);
    write(out);
    let len = out.len() - start - HEAD_BYTES;
    debug_assert!(len < PIECE_BYTES, "packets of ours are short");
    if let Some(place) = out.get_mut(start..start + 3) {
        let [a, b, c, _] = u32::try_from(len).unwrap_or_default().to_le_bytes();
        place.copy_from_slice(&[a, b, c]);
    }
    *sequence = sequence.wrapping_add(1);
}

/// A head alone.
pub fn put_head(out: &mut Vec<u8>, head: Head) {
    let [a, b, c, _] = u32::try_from(head.len).unwrap_or_default().to_le_bytes();
    out.extend_from_slice(&[a, b, c, head.sequence]);
}

/// Appends a length-encoded integer.
pub fn put_number(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_le_bytes();
    let (mark, len) = match number {
        0..=0xFA => (None, 1),
        0xFB..=0xFFFF => (Some(0xFC), 2),
        0x1_0000..=0xFF_FFFF => (Some(0xFD), 3),
        _ => (Some(0xFE), 8),
    };
    out.extend(mark);
    out.extend(bytes.iter().take(len));
}

/// Appends a length-encoded string.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left of a payload that is being read.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    /// A number of two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(2)?.try_into().ok()?))
    }

    /// A number of four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// A length-encoded integer.
    pub fn number(&mut self) -> Option<u64> {
        let len = match self.byte()? {
            short @ 0..=0xFA => return Some(u64::from(short)),
            0xFC => 2,
            0xFD => 3,
            0xFE => 8,
            // NULL, or what begins an error.
            0xFB | 0xFF => return None,
        };
        let mut bytes = [0; 8];
        bytes.get_mut(..len)?.copy_from_slice(self.bytes(len)?);
        Some(u64::from_le_bytes(bytes))
    }

    /// A length-encoded string.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.bytes(len)
    }

    /// A value in a row of text; the inner `None`: `NULL`.
    pub fn value(&mut self) -> Option<Option<&'a [u8]>> {
        const NULL: u8 = 0xFB;
        if self.0.first() == Some(&NULL) {
            self.byte()?;
            return Some(None);
        }
        self.string().map(Some)
    }

    /// A string up to its zero byte, which is taken as well.
    pub fn cstr(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let string = self.bytes(end)?;
        self.byte()?;
        Some(string)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn heads() {
        assert_eq!(head(&[1, 2, 3]), None);
        assert_eq!(head(&[1, 2, 3, 4]), Some(Head { len: 0x03_0201, sequence: 4 }));
        assert!(!head(&[0xFF, 0xFF, 0xFF, 0]).unwrap().is_last());
        assert_eq!(whole(&[2, 0, 0, 1, b'a'], 10), Ok(None));
        assert_eq!(whole(&[2, 0, 0, 1, b'a', b'b', 7], 10), Ok(Some((Head { len: 2, sequence: 1 }, &b"ab"[..]))));
        assert_eq!(whole(&[11, 0, 0, 1], 10), Err(Violation::FrameTooLong));
    }

    #[test]
    fn packets_count_on() {
        let (mut out, mut sequence) = (Vec::new(), 255);
        packet(&mut out, &mut sequence, |out| out.extend_from_slice(b"ab"));
        packet(&mut out, &mut sequence, |_| ());
        assert_eq!((out.as_slice(), sequence), (&[2, 0, 0, 255, b'a', b'b', 0, 0, 0, 0][..], 1));
    }

    proptest! {
        #[test]
        fn numbers_and_strings_come_back(number: u64, string in proptest::collection::vec(any::<u8>(), 0..700)) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            put_string(&mut out, &string);
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.number(), Some(number));
            prop_assert_eq!(reader.string(), Some(string.as_slice()));
            prop_assert_eq!(reader.0, b"");
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader(&bytes);
            let _ = (reader.number(), reader.string(), reader.cstr(), reader.u16(), reader.u32(), reader.byte());
        }
    }
}
