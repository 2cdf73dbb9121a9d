//! Waiting versions of read and write, for logins and other short exchanges; the relay polls instead.

use super::Stream;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::Poll;

/// Read at once: a login's messages are short.
const READ_BYTES: usize = 4096;

impl Stream {
    /// Appends what the peer sends next to `buf`. `Ok(0)`: it is at its end. Cancel safe.
    pub async fn read_more(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let start = buf.len();
        buf.resize(start + READ_BYTES, 0);
        let read = poll_fn(|cx| match buf.get_mut(start..) {
            Some(space) => self.poll_read(cx, space),
            None => Poll::Ready(Ok(0)),
        })
        .await;
        buf.truncate(start + read.as_ref().copied().unwrap_or(0));
        read
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
