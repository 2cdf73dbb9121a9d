//! The compressed protocol as a client speaks it: every frame's number is checked, and that it is compressed where it should be.

use std::io::{Read, Result, Write};

use flate2::read::{ZlibDecoder, ZlibEncoder};

/// What is shorter goes as it is.
const SQUEEZED_BYTES_MIN: usize = 50;
/// The longest frame.
const FRAME_BYTES_MAX: usize = 0xFF_FFFF;

/// What has been seen of the other side's frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub stored: usize,
    pub squeezed: usize,
    /// Bytes of them all, and of what was in them.
    pub wire_bytes: usize,
    pub plain_bytes: usize,
}

/// Packets in frames, over a stream without.
pub struct Compressed<S> {
    stream: S,
    /// The level, or zlib.
    zstd: Option<i32>,
    /// Of the next frame, either way.
    pub number: u8,
    /// Bytes that go into one frame.
    pub frame_bytes: usize,
    pub seen: Seen,
    unsent: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
}

impl<S: Read + Write> Compressed<S> {
    pub fn new(stream: S, zstd: Option<i32>) -> Self {
        let (unsent, plain) = (Vec::new(), Vec::new());
        Self { stream, zstd, number: 0, frame_bytes: FRAME_BYTES_MAX, seen: Seen::default(), unsent, plain, at: 0 }
    }

    /// What is below, for who wants to break the rules.
    pub fn below(&mut self) -> &mut S {
        &mut self.stream
    }

    /// A frame of these bytes.
    pub fn frame(&self, plain: &[u8]) -> Vec<u8> {
        let squeezed = match self.zstd {
            _ if plain.len() < SQUEEZED_BYTES_MIN => None,
            Some(level) => Some(zstd::bulk::compress(plain, level).unwrap()),
            None => {
                let mut made = Vec::new();
                ZlibEncoder::new(plain, flate2::Compression::default()).read_to_end(&mut made).unwrap();
                Some(made)
            }
        };
        let squeezed = squeezed.filter(|made| made.len() < plain.len());
        let plain_len = if squeezed.is_some() { plain.len() } else { 0 };
        let payload = squeezed.as_deref().unwrap_or(plain);
        let bytes = |len: usize| u32::try_from(len).unwrap().to_le_bytes();
        [&bytes(payload.len())[..3], &[self.number], &bytes(plain_len)[..3], payload].concat()
    }

    fn read_frame(&mut self) -> Result<()> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, number, d, e, f] = head;
        assert_eq!(number, self.number, "the number of a frame {head:?}");
        self.number = number.wrapping_add(1);
        let mut payload = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
        self.stream.read_exact(&mut payload)?;
        let plain_len = u32::from_le_bytes([d, e, f, 0]) as usize;
        self.seen.wire_bytes += head.len() + payload.len();
        self.at = 0;
        if plain_len == 0 {
            self.seen.stored += 1;
            self.plain = payload;
        } else {
            self.seen.squeezed += 1;
            assert!(payload.len() < plain_len, "{head:?}");
            let mut plain = Vec::new();
            match self.zstd {
                Some(_) => plain = zstd::bulk::decompress(&payload, plain_len).unwrap(),
                None => _ = ZlibDecoder::new(&payload[..]).read_to_end(&mut plain).unwrap(),
            }
            assert_eq!(plain.len(), plain_len);
            self.plain = plain;
        }
        self.seen.plain_bytes += self.plain.len();
        Ok(())
    }
}

impl<S: Read + Write> Read for Compressed<S> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while self.at == self.plain.len() {
            self.read_frame()?;
        }
        let len = buf.len().min(self.plain.len() - self.at);
        buf[..len].copy_from_slice(&self.plain[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

impl<S: Read + Write> Write for Compressed<S> {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        self.unsent.extend(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        let mut frames = Vec::new();
        for part in unsent.chunks(self.frame_bytes) {
            frames.extend(self.frame(part));
            self.number = self.number.wrapping_add(1);
        }
        self.stream.write_all(&frames)?;
        self.stream.flush()
    }
}

/// Whether a server has said its greeting and the OK of a login, and everything else in frames.
pub fn has_frames(mut told: &[u8]) -> bool {
    let mut is_in = false;
    while let [a, b, c, number, first, ..] = *told {
        let head = if is_in { 7 } else { 4 };
        let Some(rest) = told.get(head + u32::from_le_bytes([a, b, c, 0]) as usize..) else { return false };
        is_in |= number > 1 && first == 0;
        told = rest;
    }
    is_in && told.is_empty()
}
