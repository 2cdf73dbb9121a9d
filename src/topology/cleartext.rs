//! A stream to a database on which nobody answers a question for the password in the clear.
//!
//! The driver would. It asks for a password in the server's first message, which is looked at here as it comes in: one that
//! wants it as it is ends the stream before the driver sees all of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::net::tls::ClientTls;

/// AuthenticationCleartextPassword: type, length, code.
const IN_THE_CLEAR: [u8; 9] = *b"R\0\0\0\x08\0\0\0\x03";

/// See the module.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    /// How many bytes have come that are those; `None`: it has said something else, or may ask.
    matched: Option<usize>,
    /// Why nobody answers it.
    words: &'static str,
}

impl<S> Guarded<S> {
    /// Over a stream on which nothing has come yet.
    pub(super) fn new(stream: S) -> Self {
        let words = "the database asks for the password in the clear, and tls = \"off\"";
        Self { stream, matched: Some(0), words }
    }

    /// Over TLS, to a database that has shown who it is, or has not.
    fn over_tls(stream: S, verified: bool) -> Self {
        let words = "the database asks for the password in the clear, and with tls = \"require\" anybody in between could be \
                     asking: it takes \"verify-full\" or \"verify-ca\"";
        Self { stream, matched: (!verified).then_some(0), words }
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
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, self.words)));
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

impl<S: TlsStream + Unpin> TlsStream for Guarded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// The driver's TLS, with a guard over it.
#[derive(Clone)]
pub(super) struct GuardedTls {
    tls: MakeRustlsConnect,
    verified: bool,
}

impl GuardedTls {
    pub(super) fn new(tls: &ClientTls) -> Self {
        Self { tls: MakeRustlsConnect::new(tls.config.as_ref().clone()), verified: tls.verifies }
    }
}

/// The driver's own, for one connection.
type Connect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// See [`GuardedTls`].
pub(super) struct GuardedConnect {
    connect: Connect,
    verified: bool,
}

impl MakeTlsConnect<Socket> for GuardedTls {
    type Stream = Guarded<<MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;
    type TlsConnect = GuardedConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<GuardedConnect, Self::Error> {
        let connect = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, host)?;
        Ok(GuardedConnect { connect, verified: self.verified })
    }
}

impl TlsConnect<Socket> for GuardedConnect {
    type Stream = Guarded<<Connect as TlsConnect<Socket>>::Stream>;
    type Error = <Connect as TlsConnect<Socket>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let Self { connect, verified } = self;
        let connecting = connect.connect(stream);
        Box::pin(async move { Ok(Guarded::over_tls(connecting.await?, verified)) })
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
        // Over TLS it depends on who asks.
        assert!(Guarded::over_tls((), false).is_question(&IN_THE_CLEAR));
        assert!(!Guarded::over_tls((), true).is_question(&IN_THE_CLEAR));
        // md5, SASL, trust, and the same bytes at any other place.
        for other in
            [&b"R\0\0\0\x0c\0\0\0\x05salt"[..], b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", b"R\0\0\0\x08\0\0\0\0"]
        {
            let mut guarded = Guarded::new(());
            assert!(!guarded.is_question(other) && !guarded.is_question(&IN_THE_CLEAR), "{other:?}");
        }
    }
}
