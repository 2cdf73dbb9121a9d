//! The algorithms: zlib and zstd, a step at a time.
//!
//! What they work with takes hundreds of kilobytes, so no client owns any between two frames: each thread keeps one of each kind,
//! and a frame that is unpacked in several steps has its own for so long.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;
use std::fmt;
use zstd::bulk::Compressor;
use zstd::stream::raw::{DParameter, Decoder, Operation};

/// The longest that a frame can become is 16 MiB less one byte.
const WINDOW_BITS_MAX: u32 = 24;
/// A decoder is as large as the longest frame it has seen; one behind a longer frame than this is not kept.
const KEPT_BYTES_MAX: usize = 128 << 10;
/// A level costs the others on the thread, and saves the network little beyond this.
const LEVEL_MAX: i32 = 9;

/// How a client wants its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `CLIENT_COMPRESS`
    Zlib,
    /// `CLIENT_ZSTD_COMPRESSION_ALGORITHM`, and the level that it asks for.
    Zstd(u8),
}

/// What a thread keeps.
#[derive(Default)]
struct Spare {
    zlib: Option<Compress>,
    zstd: Option<Compressor<'static>>,
    unzlib: Option<Decompress>,
    unzstd: Option<Decoder<'static>>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// Appends what becomes of `plain`. False: nothing that is shorter, and nothing was appended.
pub(super) fn squeeze(algorithm: Algorithm, plain: &[u8], wire: &mut Vec<u8>) -> bool {
    let start = wire.len();
    wire.resize(start + plain.len(), 0);
    let room = wire.get_mut(start..).unwrap_or_default();
    let made = SPARE.with_borrow_mut(|spare| match algorithm {
        Algorithm::Zlib => zlib(&mut spare.zlib, plain, room),
        Algorithm::Zstd(level) => zstd(&mut spare.zstd, level, plain, room),
    });
    let made = made.filter(|made| *made < plain.len());
    wire.truncate(start + made.unwrap_or_default());
    made.is_some()
}

fn zlib(spare: &mut Option<Compress>, plain: &[u8], room: &mut [u8]) -> Option<usize> {
    let zlib = spare.get_or_insert_with(|| Compress::new(Compression::default(), true));
    zlib.reset();
    let status = zlib.compress(plain, room, FlushCompress::Finish).ok()?;
    if status == Status::StreamEnd { usize::try_from(zlib.total_out()).ok() } else { None }
}

fn zstd(spare: &mut Option<Compressor<'static>>, level: u8, plain: &[u8], room: &mut [u8]) -> Option<usize> {
    let level = i32::from(level).clamp(1, LEVEL_MAX);
    if spare.is_none() {
        *spare = Compressor::new(level).ok();
    }
    let zstd = spare.as_mut()?;
    zstd.set_compression_level(level).ok()?;
    zstd.compress_to_buffer(plain, room).ok()
}

/// A frame that is being unpacked.
pub(super) enum Unsqueezing {
    Zlib(Decompress),
    Zstd(Decoder<'static>),
}

/// What one step of it has done.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) taken: usize,
    pub(super) made: usize,
    /// Nothing more can come out of it.
    pub(super) ended: bool,
}

impl fmt::Debug for Unsqueezing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zlib(_) => "zlib",
            Self::Zstd(_) => "zstd",
        })
    }
}

impl Unsqueezing {
    /// `None`: there is no memory for it.
    pub(super) fn new(algorithm: Algorithm) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Zlib => {
                let spare = SPARE.with_borrow_mut(|spare| spare.unzlib.take());
                Self::Zlib(spare.unwrap_or_else(|| Decompress::new(true)))
            }
            Algorithm::Zstd(_) => {
                if let Some(spare) = SPARE.with_borrow_mut(|spare| spare.unzstd.take()) {
                    return Some(Self::Zstd(spare));
                }
                let mut zstd = Decoder::new().ok()?;
                zstd.set_parameter(DParameter::WindowLogMax(WINDOW_BITS_MAX)).ok()?;
                Self::Zstd(zstd)
            }
        })
    }

    /// `None`: that is not of its kind.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Option<Opened> {
        match self {
            Self::Zlib(zlib) => {
                let before = (zlib.total_in(), zlib.total_out());
                let status = zlib.decompress(input, output, FlushDecompress::None).ok()?;
                let taken = usize::try_from(zlib.total_in() - before.0).ok()?;
                let made = usize::try_from(zlib.total_out() - before.1).ok()?;
                Some(Opened { taken, made, ended: status == Status::StreamEnd })
            }
            Self::Zstd(zstd) => {
                let status = zstd.run_on_buffers(input, output).ok()?;
                let (taken, made) = (status.bytes_read, status.bytes_written);
                Some(Opened { taken, made, ended: status.remaining == 0 })
            }
        }
    }

    /// The thread may keep it for the next one; so many bytes had been announced.
    pub(super) fn put_back(self, claimed: usize) {
        match self {
            Self::Zlib(mut zlib) => {
                zlib.reset(true);
                SPARE.with_borrow_mut(|spare| spare.unzlib = Some(zlib));
            }
            // It has grown with its frame.
            Self::Zstd(_) if claimed > KEPT_BYTES_MAX => {}
            Self::Zstd(mut zstd) => {
                if zstd.reinit().is_ok() {
                    SPARE.with_borrow_mut(|spare| spare.unzstd = Some(zstd));
                }
            }
        }
    }
}
