//! A stream whose bytes are packed on the wire ([`Codec`]): the layer above TLS, for those that have it.
//!
//! Owns a buffer only while there is something in it: at most one read that did not fit unpacked, and one batch that the socket did
//! not take.

use super::layers::Layers;
use crate::protocol::{Codec, Violation};
use std::fmt;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// Bytes of the wire that are read at once.
const READ_BYTES: usize = 16 << 10;

/// What a stream has that packs its bytes.
#[derive(Debug)]
pub(super) struct Packed {
    codec: Box<dyn Codec>,
    /// Read, and not unpacked yet.
    read: Vec<u8>,
    /// Packed, and not sent yet.
    unsent: Vec<u8>,
}

impl Packed {
    /// `read`: what has been read ahead.
    pub(super) fn new(codec: Box<dyn Codec>, read: Vec<u8>) -> Self {
        Self { codec, read, unsent: Vec::new() }
    }

    /// [`Stream::poll_read`](super::Stream::poll_read)
    pub(super) fn poll_read(
        &mut self,
        layers: &mut Layers,
        cx: &mut Context<'_>,
        plain: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if plain.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // Some may be left to be made of what was taken before.
        let (taken, made) = self.unpack_whole(&[], plain)?;
        self.read.drain(..taken);
        if self.read.is_empty() && self.read.capacity() > 0 {
            self.read = Vec::new();
        }
        if made > 0 {
            return Poll::Ready(Ok(made));
        }
        loop {
            let mut space = [0; READ_BYTES];
            let read = ready!(layers.poll_read(cx, &mut space))?;
            let wire = space.get(..read).unwrap_or_default();
            if wire.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let (taken, made) = self.unpack_whole(wire, plain)?;
            self.read.extend_from_slice(wire.get(taken..).unwrap_or_default());
            if made > 0 {
                return Poll::Ready(Ok(made));
            }
        }
    }

    /// Unpacks what was read before (then there is nothing of `wire`), or what was read now, as far as there is room: bytes taken of it,
    /// and bytes made.
    fn unpack_whole(&mut self, wire: &[u8], plain: &mut [u8]) -> io::Result<(usize, usize)> {
        let (mut at, mut made) = (0, 0);
        loop {
            let rest = if wire.is_empty() { self.read.get(at..) } else { wire.get(at..) };
            let room = plain.get_mut(made..).unwrap_or_default();
            let (taken, more) = match self.codec.unpack(rest.unwrap_or_default(), room) {
                Ok(unpacked) => unpacked,
                // The next read comes to it again.
                Err(_) if made > 0 => return Ok((at, made)),
                Err(violation) => return Err(broken(violation)),
            };
            at += taken;
            made += more;
            if (taken, more) == (0, 0) {
                return Ok((at, made));
            }
        }
    }

    /// [`Stream::poll_write`](super::Stream::poll_write): one batch at a time.
    pub(super) fn poll_write(
        &mut self,
        layers: &mut Layers,
        cx: &mut Context<'_>,
        plain: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(layers, cx))?;
        let taken = self.codec.pack(plain, &mut self.unsent);
        if let Poll::Ready(sent) = self.poll_send(layers, cx) {
            sent?;
        }
        Poll::Ready(Ok(taken))
    }

    /// There is something that has not been sent.
    pub(super) fn wants_flush(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Gives what is packed to the layers below.
    pub(super) fn poll_send(&mut self, layers: &mut Layers, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let outcome = loop {
            let rest = self.unsent.get(sent..).unwrap_or_default();
            if rest.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match layers.poll_write(cx, &[IoSlice::new(rest)]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(taken)) => sent += taken,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if sent > 0 && sent == self.unsent.len() {
            self.unsent = Vec::new();
        }
        self.unsent.drain(..sent.min(self.unsent.len()));
        outcome
    }
}

/// The peer's packing is broken, as an error of its stream.
#[derive(Debug)]
struct Broken(Violation);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Broken {}

fn broken(violation: Violation) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Broken(violation))
}

/// The rule that the peer has broken, if that is what became of a read.
pub fn violation(error: &io::Error) -> Option<Violation> {
    error.get_ref()?.downcast_ref::<Broken>().map(|broken| broken.0)
}
