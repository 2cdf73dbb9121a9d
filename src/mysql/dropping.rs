//! What is read over of a client's input: a command that is not sent, or the rest of one whose connection is gone. It is answered
//! behind its last piece, by whose number the answer is numbered.

use super::frame::{self, HEAD_BYTES, packet};

/// See the module's head.
#[derive(Debug)]
pub(super) struct Dropping {
    /// Of the piece that is being read over.
    left: usize,
    sequence: u8,
    /// Another piece of its packet follows.
    follows: bool,
    /// Nothing follows.
    is_last: bool,
    /// Packets up to an empty one (`LOAD DATA LOCAL`), instead of one packet.
    is_file: bool,
    /// What the client is told then, if anything.
    answer: Option<Vec<u8>>,
}

impl Dropping {
    /// The packet at the head of the input.
    pub(super) fn packet(answer: Option<Vec<u8>>) -> Self {
        Self { left: 0, sequence: 0, follows: true, is_last: false, is_file: false, answer }
    }

    /// The rest of a packet: of its piece, and of whether another one follows.
    pub(super) fn rest(left: usize, follows: bool, sequence: u8, answer: Option<Vec<u8>>) -> Self {
        Self { left, sequence, follows, is_last: !follows, is_file: false, answer }
    }

    /// The rest of a file, which is within a packet, or between two.
    pub(super) fn file(left: usize, follows: bool, answer: Option<Vec<u8>>) -> Self {
        Self { left, sequence: 0, follows, is_last: false, is_file: true, answer }
    }

    /// Reads over it. Bytes taken, and whether that was all.
    pub(super) fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let taken = self.left.min(rest.len());
            self.left -= taken;
            at += taken;
            if self.left > 0 {
                return (at, false);
            }
            if self.is_last {
                if let Some(answer) = &self.answer {
                    packet(out, &mut self.sequence.wrapping_add(1), |out| out.extend_from_slice(answer));
                }
                return (at, true);
            }
            let Some(head) = frame::head(rest.get(taken..).unwrap_or_default()) else { return (at, false) };
            at += HEAD_BYTES;
            self.is_last = if self.is_file { !self.follows && head.len == 0 } else { head.is_last() };
            (self.left, self.sequence, self.follows) = (head.len, head.sequence, !head.is_last());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mysql::frame::{Head, PIECE_BYTES, put_head};

    fn piece(sequence: u8, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        put_head(&mut out, Head { len, sequence });
        out.resize(HEAD_BYTES + len, b'x');
        out
    }

    /// Everything but the last bytes is dropped, in pieces of any length; then comes the answer with this number.
    fn check(dropping: impl Fn() -> Dropping, input: &[u8], behind: usize, number: u8) {
        for cut in [1 << 22, 4_000_003, usize::MAX] {
            let (mut dropping, mut out, mut at) = (dropping(), Vec::new(), 0_usize);
            loop {
                let shown = input.get(at..at.saturating_add(cut).min(input.len())).unwrap();
                let (taken, is_done) = dropping.advance(shown, &mut out);
                at += taken;
                if is_done {
                    break;
                }
                assert!(taken > 0 && out.is_empty());
            }
            assert_eq!((input.len() - at, out), (behind, [&[1, 0, 0, number], &b"!"[..]].concat()));
        }
    }

    #[test]
    fn a_packet_ends_with_its_last_piece() {
        let answer = || Some(b"!".to_vec());
        let next = piece(0, 3);
        check(|| Dropping::packet(answer()), &[piece(0, 5), next.clone()].concat(), next.len(), 1);
        let long = [piece(0, PIECE_BYTES), piece(1, 0), next.clone()].concat();
        check(|| Dropping::packet(answer()), &long, next.len(), 2);
        check(|| Dropping::rest(2, false, 3, answer()), &[b"xx".to_vec(), next.clone()].concat(), next.len(), 4);
        check(|| Dropping::rest(0, true, 3, answer()), &[piece(4, 7), next.clone()].concat(), next.len(), 5);
    }

    #[test]
    fn a_file_ends_with_an_empty_packet() {
        let answer = || Some(b"!".to_vec());
        let next = piece(0, 3);
        let file = [piece(2, 9), piece(3, PIECE_BYTES), piece(4, 0), piece(5, 1), piece(6, 0), next.clone()].concat();
        check(|| Dropping::file(0, false, answer()), &file, next.len(), 7);
        check(|| Dropping::file(4, false, answer()), &[b"xxxx".to_vec(), piece(2, 0), next.clone()].concat(), 7, 3);
        // The end of a packet of just that length is not the file's.
        let long = [b"xxxx".to_vec(), piece(2, 0), piece(3, 0), next.clone()].concat();
        check(|| Dropping::file(4, true, answer()), &long, next.len(), 4);
    }
}
