//! The compressed protocol: packets in frames of seven bytes of head and a payload that is compressed, or not
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html>).
//!
//! A frame may hold several packets, or part of one. Frames have numbers of their own, from 0 with each command. Nothing is put
//! together on the way in: what is unpacked goes on as it comes, however long its frame says it is, and must be exactly so long in the
//! end. On the way out a packet of up to 1 MiB is. Between two packets nothing is held but numbers.

mod numbers;
mod squeeze;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use super::frame::HEAD_BYTES;
use crate::protocol::{Codec, Violation};
use numbers::{Heads, Numbers};
use squeeze::{Opened, Unsqueezing};
use std::borrow::Cow;
use std::io::IoSlice;

pub use squeeze::Algorithm;

/// Three bytes of length, one of sequence, three of the length that comes out; that is 0 where the payload is as it was.
const FRAME_HEAD_BYTES: usize = HEAD_BYTES + 3;
/// What is shorter is not worth it; servers think so too.
const SQUEEZED_BYTES_MIN: usize = 50;
/// Bytes that are packed at a time: no more than one read of the proxy's.
const BATCH_BYTES_MAX: usize = 64 << 10;
/// A packet of at most so many bytes is not cut: MySQL Connector/Python reads none that is in more than two frames. Servers cut the
/// first 16 KiB off at most.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Both directions of one client's stream.
#[derive(Debug)]
pub struct Compression {
    algorithm: Algorithm,
    unpacking: Unpacking,
    numbers: Numbers,
    /// Of the client's packets.
    requests: Heads,
    /// Of the server's.
    replies: Heads,
    /// The beginning of a packet of the server's whose rest has not come.
    held: Vec<u8>,
}

/// How far the frame at the front of the wire has come.
#[derive(Debug)]
enum Unpacking {
    /// So many bytes of its head.
    Head([u8; FRAME_HEAD_BYTES], usize),
    /// So many bytes of its payload are left, and they are as they were.
    Stored(usize),
    Squeezed {
        opened: Box<Unsqueezing>,
        /// Bytes of the payload that are left.
        left: usize,
        /// Bytes that must still come out of it, and those that must in all.
        owed: usize,
        claimed: usize,
    },
    Broken,
}

impl Unpacking {
    const START: Self = Self::Head([0; FRAME_HEAD_BYTES], 0);
}

impl Compression {
    /// Right behind a login.
    pub fn new(algorithm: Algorithm) -> Self {
        let (requests, replies) = (Heads::default(), Heads::default());
        Self {
            algorithm,
            unpacking: Unpacking::START,
            numbers: Numbers::default(),
            requests,
            replies,
            held: Vec::new(),
        }
    }

    /// Moves one step on: bytes taken, bytes made, and the next state. `None`: it is broken.
    fn step(&mut self, wire: &[u8], plain: &mut [u8]) -> Option<(usize, usize, Unpacking)> {
        let unpacking = std::mem::replace(&mut self.unpacking, Unpacking::Broken);
        match unpacking {
            Unpacking::Broken => None,
            Unpacking::Head(mut head, have) => {
                let space = head.get_mut(have..)?;
                let taken = space.len().min(wire.len());
                space.get_mut(..taken)?.copy_from_slice(wire.get(..taken)?);
                let have = have + taken;
                let next = if have < FRAME_HEAD_BYTES { Unpacking::Head(head, have) } else { self.begin(head)? };
                Some((taken, 0, next))
            }
            Unpacking::Stored(left) => {
                let taken = left.min(wire.len()).min(plain.len());
                plain.get_mut(..taken)?.copy_from_slice(wire.get(..taken)?);
                let left = left - taken;
                Some((taken, taken, if left == 0 { Unpacking::START } else { Unpacking::Stored(left) }))
            }
            Unpacking::Squeezed { mut opened, left, owed, claimed } => {
                let input = wire.get(..left.min(wire.len()))?;
                let room = owed.min(plain.len());
                // Whether that is the end shows when it is asked for more.
                let mut beyond = [0];
                let output = if owed == 0 { &mut beyond[..] } else { plain.get_mut(..room)? };
                if output.is_empty() {
                    return Some((0, 0, Unpacking::Squeezed { opened, left, owed, claimed }));
                }
                let Opened { taken, made, ended } = opened.step(input, output)?;
                let (left, owed) = (left.checked_sub(taken)?, owed.checked_sub(made)?);
                if ended {
                    opened.put_back(claimed);
                    return (left == 0 && owed == 0).then_some((taken, made, Unpacking::START));
                }
                // It wants more than there is, or does not want what there is.
                let is_stuck = (taken, made) == (0, 0) && (left == 0 || !input.is_empty());
                (!is_stuck).then_some((taken, made, Unpacking::Squeezed { opened, left, owed, claimed }))
            }
        }
    }

    /// A frame begins.
    fn begin(&mut self, head: [u8; FRAME_HEAD_BYTES]) -> Option<Unpacking> {
        let [a, b, c, number, d, e, f] = head;
        let left = u32::from_le_bytes([a, b, c, 0]) as usize;
        let owed = u32::from_le_bytes([d, e, f, 0]) as usize;
        if !self.numbers.came(number, self.requests.is_midway(), self.replies.is_midway()) {
            return None;
        }
        Some(match (left, owed) {
            (0, 0) => Unpacking::START,
            (_, 0) => Unpacking::Stored(left),
            _ => {
                let opened = Box::new(Unsqueezing::new(self.algorithm)?);
                Unpacking::Squeezed { opened, left, owed, claimed: owed }
            }
        })
    }

    /// Packs what is held, and these bytes, into one frame.
    fn put(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.held);
        let plain = if held.is_empty() {
            plain
        } else {
            held.extend_from_slice(plain);
            &held
        };
        if plain.is_empty() {
            return;
        }
        let start = wire.len();
        wire.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        let squeezed = plain.len() >= SQUEEZED_BYTES_MIN && squeeze::squeeze(self.algorithm, plain, wire);
        if !squeezed {
            wire.extend_from_slice(plain);
        }
        let bytes = |len: usize| u32::try_from(len).unwrap_or_default().to_le_bytes();
        let [a, b, c, _] = bytes(wire.len() - start - FRAME_HEAD_BYTES);
        let [d, e, f, _] = bytes(if squeezed { plain.len() } else { 0 });
        if let Some(head) = wire.get_mut(start..start + FRAME_HEAD_BYTES) {
            head.copy_from_slice(&[a, b, c, self.numbers.next_frame(), d, e, f]);
        }
    }

    /// The packets' own numbers: clients count on from the frames' here and there, which the machines do not see.
    fn number(&mut self, plain: &mut [u8]) {
        let Self { requests, numbers, .. } = self;
        let mut at = 0;
        while let Some(rest) = plain.get(at..).filter(|rest| !rest.is_empty()) {
            let (passed, head) = requests.pass(rest);
            at += passed;
            if let Some(head) = head
                && let Some(sequence) = plain.get_mut(at - 1)
            {
                *sequence = numbers.request(head);
            }
        }
    }
}

impl Codec for Compression {
    fn unpack(&mut self, wire: &[u8], plain: &mut [u8]) -> Result<(usize, usize), Violation> {
        let (mut at, mut made) = (0, 0);
        loop {
            let (rest, room) = (wire.get(at..).unwrap_or_default(), plain.get_mut(made..).unwrap_or_default());
            let is_squeezed = matches!(self.unpacking, Unpacking::Squeezed { .. });
            let Some((taken, more, next)) = self.step(rest, room) else {
                // What stands before it is good; it stays broken.
                return if made > 0 { Ok((at, made)) } else { Err(Violation::MalformedPacking) };
            };
            let has_ended = is_squeezed && matches!(next, Unpacking::Head(..));
            self.unpacking = next;
            at += taken;
            self.number(plain.get_mut(made..made + more).unwrap_or_default());
            made += more;
            if (taken, more) == (0, 0) && !has_ended {
                return Ok((at, made));
            }
        }
    }

    fn pack(&mut self, plain: &[IoSlice<'_>], wire: &mut Vec<u8>) -> usize {
        let batch = batch(plain);
        let (mut at, mut begun) = (0, 0);
        while let Some(rest) = batch.get(at..).filter(|rest| !rest.is_empty()) {
            let (passed, head) = self.replies.pass(rest);
            at += passed;
            if let Some(head) = head
                && let Some(frame) = self.numbers.reply(head, self.requests.is_midway())
            {
                // A reply begins, with a frame of its own. If part of its head is held, then that alone.
                let start = at.saturating_sub(HEAD_BYTES);
                if start > 0 {
                    self.put(batch.get(begun..start).unwrap_or_default(), wire);
                    begun = start;
                }
                self.numbers.set_frame(frame);
            }
        }
        // What was held belongs to the same packet, or to one that has ended.
        let end = self.replies.open(HELD_BYTES_MAX).map_or(at, |open| at.saturating_sub(open));
        if end > begun {
            self.put(batch.get(begun..end).unwrap_or_default(), wire);
            begun = end;
        }
        self.held.extend_from_slice(batch.get(begun..at).unwrap_or_default());
        at
    }
}

/// As many bytes as are packed at a time.
fn batch<'a>(plain: &'a [IoSlice<'_>]) -> Cow<'a, [u8]> {
    let mut slices = plain.iter().filter(|slice| !slice.is_empty());
    let first = slices.next().map_or(&[][..], |slice| slice);
    let first = first.get(..BATCH_BYTES_MAX).unwrap_or(first);
    let mut batch = Cow::Borrowed(first);
    for slice in slices {
        let room = BATCH_BYTES_MAX - batch.len();
        if room == 0 {
            break;
        }
        batch.to_mut().extend_from_slice(slice.get(..room).unwrap_or(slice));
    }
    batch
}
