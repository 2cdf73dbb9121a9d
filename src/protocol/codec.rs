//! What may lie between a client's stream and its machine: bytes that are packed on their way, compressed for example.

use super::Violation;
use std::fmt;
use std::io::IoSlice;

/// Packs and unpacks, without I/O. What it holds between two calls is bounded, and next to nothing where no unit of its form has
/// been begun: an idle client owns no buffer.
pub trait Codec: fmt::Debug + Send {
    /// Unpacks from the front of `wire` to the front of `plain`: bytes taken, and bytes made. It takes everything as long as there is
    /// room; where it has made nothing then, it needs more of the wire. Some may be made although there is none. What was good
    /// before an error comes first; after an error there is nothing but that error.
    fn unpack(&mut self, wire: &[u8], plain: &mut [u8]) -> Result<(usize, usize), Violation>;

    /// Packs from the front of the slices and appends that to `wire`: bytes taken, at least one if there is one. It may keep the beginning
    /// of what belongs together until the rest has come, nothing else; `wire` grows by not much more than what it has kept and takes.
    fn pack(&mut self, plain: &[IoSlice<'_>], wire: &mut Vec<u8>) -> usize;
}
