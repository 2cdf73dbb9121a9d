//! A stream to a database on which nobody answers a question for the password in the clear.
//!
//! The driver would. It asks for a password in the server's first message, which is looked at here as it comes in: one that
//! wants it as it is ends the stream before the driver sees all of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// AuthenticationCleartextPassword: type, length, code.
const IN_THE_CLEAR: [u8; 9] = *b"R\0\0\0\x08\0\0\0\x03";

/// See the module.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    /// How many bytes have come that are those; `None`: it has said something else.
    matched: Option<usize>,
}

impl<S> Guarded<S> {
    /// Over a stream on which nothing has come yet.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, matched: Some(0) }
    }

    /// Looks at what has come. True: it is that question.
    fn is_question(&mut self, bytes: &[u8]) -> bool {
        let Some(matched) = self.matched else { return false };
        let expected = IN_THE_CLEAR.get(matched..).unwrap_or_default();
        let same = bytes.iter().zip(expected).take_while(|(came, expected)| came == expected).count();
        let matched = matched + same;
        self.matched = (same == bytes.len() || matched == IN_THE_CLEAR.len()).then_some(matched);
        matched == IN_THE_CLEAR.len()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.is_question(buf.filled().get(before..).unwrap_or_default()) {
            let words = "the database asks for the password in the clear, and tls = \"off\"";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, words)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_known_however_it_comes() {
        for cut in 0..=IN_THE_CLEAR.len() {
            let mut guarded = Guarded::new(());
            let (first, rest) = IN_THE_CLEAR.split_at(cut);
            assert_eq!(guarded.is_question(first), rest.is_empty(), "{cut}");
            assert!(guarded.is_question(rest) || rest.is_empty(), "{cut}");
        }
        let mut guarded = Guarded::new(());
        assert!(IN_THE_CLEAR.iter().map(|byte| guarded.is_question(&[*byte])).eq((0..9).map(|at| at == 8)));
        assert!(Guarded::new(()).is_question(b"R\0\0\0\x08\0\0\0\x03and more"));
        // md5, SASL, trust, and the same bytes at any other place.
        for other in
            [&b"R\0\0\0\x0c\0\0\0\x05salt"[..], b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", b"R\0\0\0\x08\0\0\0\0"]
        {
            let mut guarded = Guarded::new(());
            assert!(!guarded.is_question(other) && !guarded.is_question(&IN_THE_CLEAR), "{other:?}");
        }
    }
}
