//! What a machine wants written: runs of the bytes it was given, and bytes of its own, in order.
//!
//! Passing a run costs nothing but its two ends: a result of a megabyte is never copied by a machine.

use std::io::IoSlice;
use std::ops::Range;

/// A machine stops when it has made so many bytes of its own: a short request may stand for a long one.
const OWN_BYTES_MAX: usize = 256 << 10;

/// Bytes to write, as runs over one input and over bytes made here. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Out {
    runs: Vec<Run>,
    own: Vec<u8>,
    len: usize,
}

#[derive(Debug, Clone)]
enum Run {
    Input(Range<usize>),
    Own(Range<usize>),
}

impl Out {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Passes on these bytes of the input.
    pub fn pass(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.len += range.len();
        if let Some(Run::Input(last)) = self.runs.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return;
        }
        self.runs.push(Run::Input(range));
    }

    /// Writes bytes of the machine's own.
    pub fn put(&mut self, bytes: &[u8]) {
        self.write(|own| own.extend_from_slice(bytes));
    }

    /// Lets `write` append bytes of the machine's own.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.own.len();
        write(&mut self.own);
        let range = start..self.own.len();
        if range.is_empty() {
            return;
        }
        self.len += range.len();
        if let Some(Run::Own(last)) = self.runs.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return;
        }
        self.runs.push(Run::Own(range));
    }

    /// Bytes to write.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The machine has made enough for now.
    pub fn is_full(&self) -> bool {
        self.own.len() >= OWN_BYTES_MAX
    }

    /// Forgets everything, keeps the memory unless it is unusually large.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.own.clear();
        self.own.shrink_to(OWN_BYTES_MAX);
        self.len = 0;
    }

    /// The bytes in order, given the input the runs are over.
    pub fn slices<'a>(&'a self, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.runs.iter().map(move |run| match run {
            Run::Input(range) => input.get(range.clone()).unwrap_or_default(),
            Run::Own(range) => self.own.get(range.clone()).unwrap_or_default(),
        })
    }

    /// The bytes in order for a vectored write, at most as many slices as `slices` has room for; how many were filled.
    pub fn io_slices<'a>(&'a self, input: &'a [u8], slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, bytes) in slices.iter_mut().zip(self.slices(input)) {
            *slot = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Appends all bytes but the first `skip` to `to`.
    pub fn copy_to(&self, input: &[u8], mut skip: usize, to: &mut Vec<u8>) {
        for bytes in self.slices(input) {
            to.extend_from_slice(bytes.get(skip.min(bytes.len())..).unwrap_or_default());
            skip = skip.saturating_sub(bytes.len());
        }
    }
}

/// Bytes for each side, where a machine may have some for both.
#[derive(Debug)]
pub struct Sides<'a> {
    /// For the client.
    pub client: &'a mut Vec<u8>,
    /// For the server.
    pub server: &'a mut Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(out: &Out, input: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        out.copy_to(input, 0, &mut all);
        all
    }

    #[test]
    fn runs_that_touch_become_one() {
        let input = b"abcdefgh";
        let mut out = Out::new();
        out.pass(0..2);
        out.pass(2..4);
        out.put(b"XY");
        out.put(b"Z");
        out.pass(6..8);
        assert_eq!(out.runs.len(), 3);
        assert_eq!(out.len(), 9);
        assert_eq!(written(&out, input), b"abcdXYZgh");
    }

    #[test]
    fn copying_skips_what_was_written_already() {
        let input = b"abcdefgh";
        for skip in 0..=9 {
            let mut out = Out::new();
            out.pass(0..4);
            out.put(b"XYZ");
            out.pass(6..8);
            let mut rest = Vec::new();
            out.copy_to(input, skip, &mut rest);
            assert_eq!(rest, b"abcdXYZgh".get(skip..).unwrap_or_default());
        }
    }
}
