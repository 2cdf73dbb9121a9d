//! Waiting versions of read and write, for logins and other short exchanges; the relay polls instead.

use super::Stream;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Poll, ready};

/// Read at once: a login's messages are short.
const READ_BYTES: usize = 4096;

impl Stream {
    /// Appends what the peer sends next to `buf`. `Ok(0)`: it is at its end. Cancel safe.
    pub async fn read_more(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.read_at_most(buf, READ_BYTES).await
    }

    /// The same, of at most so many bytes: what is behind them is for somebody else. At least one.
    pub async fn read_at_most(&mut self, buf: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
        // Nothing of `buf` is touched before there is something to add.
        poll_fn(|cx| {
            let mut space = [0; READ_BYTES];
            let (space, _) = space.split_at_mut(limit.clamp(1, READ_BYTES));
            let read = ready!(self.poll_read(cx, space))?;
            buf.extend_from_slice(space.get(..read).unwrap_or_default());
            Poll::Ready(Ok(read))
        })
        .await
    }

    /// Writes all of `bytes`, and leaves it empty. Not cancel safe: part of it may have been written.
    pub async fn write_whole(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let taken = poll_fn(|cx| self.poll_write(cx, &[IoSlice::new(rest)])).await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += taken;
        }
        bytes.clear();
        poll_fn(|cx| self.poll_flush(cx)).await
    }
}
