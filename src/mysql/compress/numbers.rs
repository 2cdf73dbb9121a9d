//! Which number a frame has, and which one a packet.
//!
//! Frames are counted over both directions, from 0 with each command, and clients insist on it. The packets in them have numbers
//! as well, by which the end of one reply and the beginning of the next are told apart here: a client may ask for more before it has
//! its answer.

use crate::mysql::frame::{self, HEAD_BYTES, Head};

/// Walks over packets.
#[derive(Debug, Default)]
pub(super) struct Heads {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that have come.
    have: usize,
    /// Bytes of the payload, and those of them that are left.
    len: usize,
    left: usize,
}

impl Heads {
    /// Goes over bytes up to the end of the next head: how many that were, and the head.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> (usize, Option<Head>) {
        let passed = self.left.min(bytes.len());
        self.left -= passed;
        let rest = bytes.get(passed..).unwrap_or_default();
        let space = self.head.get_mut(self.have..).unwrap_or_default();
        let more = space.len().min(rest.len());
        for (place, byte) in space.iter_mut().zip(rest) {
            *place = *byte;
        }
        self.have += more;
        let head = frame::head(&self.head).filter(|_| self.have == HEAD_BYTES);
        if let Some(head) = head {
            (self.have, self.len, self.left) = (0, head.len, head.len);
        }
        (passed + more, head)
    }

    /// How many of the bytes so far belong to a packet that has begun and not ended, of at most so many bytes in all. `None`: there
    /// is no such packet, or a longer one.
    pub(super) fn open(&self, max: usize) -> Option<usize> {
        match (self.have, self.left) {
            (0, 0) => None,
            (0, left) => (self.len <= max).then_some(HEAD_BYTES + self.len - left),
            (have, _) => Some(have),
        }
    }

    /// Part of a packet has come, and not all of it.
    pub(super) fn is_midway(&self) -> bool {
        self.have > 0 || self.left > 0
    }
}

/// Numbers of what comes next.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Of a frame, if the client goes on.
    client_frame: u8,
    /// A command begins with the next packet of its last frame: what number the packet itself has does not count, nor does it for
    /// servers.
    begins: bool,
    /// Of a frame of ours.
    frame: u8,
    /// Of the frame with which the client is answered, if it has sent something since the last answer began.
    answer: Option<u8>,
    /// The answer before that one was not at its end then.
    is_ahead: bool,
    /// Of a packet behind the client's last one: its answer begins with it.
    request: u8,
    /// Of a packet of the reply that is under way.
    reply: u8,
    /// Of a packet of the client's, if it goes on: behind the last one of either side.
    packet: u8,
    /// The client's last packet, with the number that it gave it.
    last: Option<Head>,
}

impl Numbers {
    /// A frame of the client's; false: it is out of order.
    pub(super) fn came(&mut self, number: u8, request_is_midway: bool, reply_is_midway: bool) -> bool {
        let may_begin = number == 0 && !request_is_midway;
        let goes_on = number == self.client_frame || number == self.frame && !request_is_midway;
        if !goes_on && !may_begin {
            return false;
        }
        // Behind frame 255 of a file, or of a long text, comes 0 as well.
        self.begins = may_begin && !(number == self.client_frame && self.answer.is_some());
        self.client_frame = number.wrapping_add(1);
        // What it has sent before, and was not answered, has no answer.
        if self.answer.replace(self.client_frame).is_none() {
            self.is_ahead = reply_is_midway;
        }
        true
    }

    /// A packet of the client's: the number that it has.
    pub(super) fn request(&mut self, head: Head) -> u8 {
        let last = self.last.replace(head);
        let begins = std::mem::take(&mut self.begins);
        let number = if last.is_some_and(|last| !last.is_last()) {
            self.request
        } else if begins {
            0
        } else if head.sequence != 0 || last.is_some_and(|last| last.sequence == u8::MAX && last.len > 0) {
            // Behind 255 of a file comes 0, unless that was the file's end.
            self.packet
        } else {
            0
        };
        self.request = number.wrapping_add(1);
        self.packet = self.request;
        number
    }

    /// A packet for the client: the number of its frame, if a reply begins with it.
    pub(super) fn reply(&mut self, head: Head, request_is_midway: bool) -> Option<u8> {
        let goes_on = head.sequence == self.reply;
        let answers = self.answer.filter(|_| head.sequence == self.request);
        self.reply = head.sequence.wrapping_add(1);
        if !request_is_midway {
            self.packet = self.reply;
        }
        match answers {
            // Where both may be, a client that waits for its answers has them all.
            Some(_) if !(goes_on && self.is_ahead) => self.answer.take(),
            _ if goes_on => {
                self.is_ahead = self.answer.is_some();
                None
            }
            // A reply to one of several commands. Most come in one frame.
            _ => Some(head.sequence),
        }
    }

    pub(super) fn set_frame(&mut self, number: u8) {
        self.frame = number;
    }

    /// The number of a frame of ours.
    pub(super) fn next_frame(&mut self) -> u8 {
        let number = self.frame;
        self.frame = number.wrapping_add(1);
        number
    }
}
