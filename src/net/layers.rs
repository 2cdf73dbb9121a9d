//! What is below a stream: its socket of whatever kind, and TLS where there is any.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// The socket, and TLS where there is any.
#[derive(Debug)]
pub(super) enum Layers {
    Plain(Socket),
    // Boxed: a TLS session is over a kilobyte, and most streams are moved about while plain.
    Tls(Box<TlsStream<Socket>>),
}

impl Layers {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let read = match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, &mut buf),
            Self::Tls(session) => Pin::new(session.as_mut()).poll_read(cx, &mut buf),
        };
        match read {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(session) => Pin::new(session.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    pub(super) fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(session) => session.get_ref().1.wants_write(),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // The kernel has it all; a pipe in memory too.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(session) => Pin::new(session.as_mut()).poll_flush(cx),
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(session) => Pin::new(session.as_mut()).poll_shutdown(cx),
        }
    }
}

/// What carries the bytes, below TLS.
///
/// `Tcp`, `Unix` and `Memory` are at work. `TcpNow` and `UnixNow` are the same for the length of one
/// [`Stream::read_now`](super::Stream::read_now): reads go to the kernel past the runtime's idea of readiness. `TcpMoving` and `UnixMoving` are
/// between two runtimes. `Gone` stands in while the socket is taken out, and for good when that fails.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Memory(DuplexStream),
    TcpNow(TcpStream),
    UnixNow(UnixStream),
    TcpMoving(std::net::TcpStream),
    UnixMoving(std::os::unix::net::UnixStream),
    Gone,
}

impl Socket {
    pub(super) fn detach(self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) | Self::TcpNow(socket) => socket.into_std().map(Self::TcpMoving),
            Self::Unix(socket) | Self::UnixNow(socket) => socket.into_std().map(Self::UnixMoving),
            Self::Memory(_) | Self::TcpMoving(_) | Self::UnixMoving(_) => Ok(self),
            Self::Gone => Err(not_here()),
        }
    }

    pub(super) fn attach(self) -> io::Result<Self> {
        match self {
            Self::TcpMoving(socket) => TcpStream::from_std(socket).map(Self::Tcp),
            Self::UnixMoving(socket) => UnixStream::from_std(socket).map(Self::Unix),
            Self::Tcp(_) | Self::Unix(_) | Self::Memory(_) | Self::TcpNow(_) | Self::UnixNow(_) => Ok(self),
            Self::Gone => Err(not_here()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Memory(pipe) => Pin::new(pipe).poll_read(cx, buf),
            Self::TcpNow(socket) => receive_now(socket, buf),
            Self::UnixNow(socket) => receive_now(socket, buf),
            Self::TcpMoving(_) | Self::UnixMoving(_) | Self::Gone => Poll::Ready(Err(not_here())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self.get_mut(), slices) {
            // Most writes are one run of bytes: a plain send() then, no vector for the kernel to walk.
            (Self::Tcp(socket) | Self::TcpNow(socket), [bytes]) => Pin::new(socket).poll_write(cx, bytes),
            (Self::Tcp(socket) | Self::TcpNow(socket), _) => Pin::new(socket).poll_write_vectored(cx, slices),
            (Self::Unix(socket) | Self::UnixNow(socket), _) => Pin::new(socket).poll_write_vectored(cx, slices),
            (Self::Memory(pipe), _) => Pin::new(pipe).poll_write_vectored(cx, slices),
            (Self::TcpMoving(_) | Self::UnixMoving(_) | Self::Gone, _) => Poll::Ready(Err(not_here())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) | Self::TcpNow(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) | Self::UnixNow(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Memory(pipe) => Pin::new(pipe).poll_shutdown(cx),
            Self::TcpMoving(_) | Self::UnixMoving(_) | Self::Gone => Poll::Ready(Err(not_here())),
        }
    }
}

/// Reads without the runtime. It is not told, and need not be: it believes at worst that there is more to read.
fn receive_now(socket: &impl AsFd, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    match rustix::net::recv(socket, buf.initialize_unfilled(), RecvFlags::DONTWAIT) {
        Ok((_, read)) => {
            buf.advance(read);
            Poll::Ready(Ok(()))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error.into())),
    }
}

fn not_here() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is on no runtime")
}
