//! One stream for every way bytes come and go: TCP, unix socket, memory; plain or under TLS.
//!
//! Reading and writing are poll functions, so that one task can drive both directions of two streams at once.
//! A stream can be taken off one runtime and put on another ([`Stream::detach`], [`Detached::attach`]) in the middle
//! of a TLS session: the socket is swapped below it. A protocol may have its bytes packed on the wire ([`Stream::pack`]).
//! Nothing here waits without being polled, buffers without a bound (rustls keeps at most 64 KiB unsent), or knows a protocol.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::DuplexStream;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::layers::{Layers, Socket};
use super::packed::Packed;
use crate::config::TargetAddress;
use crate::protocol::Codec;

/// A peer that is silent for this long is asked whether it still lives; below the 60 s after which the stingiest
/// firewalls and address translators forget a connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Between such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer before the connection is dead: a silent peer's death is noticed within a minute.
const KEEPALIVE_PROBES: u32 = 3;
// TCP_USER_TIMEOUT is left alone on purpose: it also ends connections to a peer that lives and acknowledges but does
// not read for that long (tried: Linux 6.18 does so). That is a client which pauses in the middle of a large result,
// or a database which waits for a lock while the rest of a pipeline is in its socket.

/// A connection to a client or a database.
#[derive(Debug)]
pub struct Stream {
    layers: Layers,
    /// Above them. Boxed: few streams have it.
    packed: Option<Box<Packed>>,
    peer: Peer,
}

/// Who is at the other end; for logs and `allow_from`, never for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Address(SocketAddr),
    /// A process on this machine.
    Unix,
    /// This very process.
    Memory,
}

impl Stream {
    /// Takes a connected TCP socket and sets it up: no delay, keepalive.
    pub fn tcp(socket: TcpStream) -> io::Result<Self> {
        let peer = socket.peer_addr()?;
        Self::tcp_for(socket, peer)
    }

    /// As [`tcp`](Self::tcp), for a peer that a load balancer speaks for.
    pub fn tcp_for(socket: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        let peer = Peer::Address(peer);
        socket.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        Ok(Self::plain(Socket::Tcp(socket), peer))
    }

    /// Takes a connected unix socket.
    pub fn unix(socket: UnixStream) -> Self {
        Self::plain(Socket::Unix(socket), Peer::Unix)
    }

    /// Takes one end of a pair made by [`tokio::io::duplex`].
    pub fn memory(pipe: DuplexStream) -> Self {
        Self::plain(Socket::Memory(pipe), Peer::Memory)
    }

    fn plain(socket: Socket, peer: Peer) -> Self {
        Self { layers: Layers::Plain(socket), packed: None, peer }
    }

    /// Plays the server in a TLS handshake. Nothing that belongs to it may have been read before.
    ///
    /// Not cancel safe: a handshake that is dropped takes the connection with it. Has no time limit of its own.
    pub async fn into_tls_server(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        let (socket, peer) = self.into_plain()?;
        let session = TlsAcceptor::from(config).accept(socket).await?;
        Ok(Self { layers: Layers::Tls(Box::new(session.into())), packed: None, peer })
    }

    /// [`into_tls_server`](Self::into_tls_server) in place. Where it fails or is dropped, the stream is no good any more.
    pub async fn start_tls_server(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        *self = self.take().into_tls_server(config).await?;
        Ok(())
    }

    /// Plays the client in a TLS handshake.
    ///
    /// Not cancel safe: a handshake that is dropped takes the connection with it. Has no time limit of its own.
    pub async fn into_tls_client(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let (socket, peer) = self.into_plain()?;
        let session = TlsConnector::from(config).connect(name, socket).await?;
        Ok(Self { layers: Layers::Tls(Box::new(session.into())), packed: None, peer })
    }

    /// The stream, out of its place: what stays there fails in whatever is done with it.
    pub fn take(&mut self) -> Self {
        let gone = Self { layers: Layers::Plain(Socket::Gone), packed: None, peer: self.peer };
        mem::replace(self, gone)
    }

    fn into_plain(self) -> io::Result<(Socket, Peer)> {
        match self.layers {
            Layers::Plain(socket) => Ok((socket, self.peer)),
            Layers::Tls(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the stream is TLS already")),
        }
    }

    /// Reads what is there: how many bytes, 0 at the end (or into an empty buffer). `Ready` with fewer bytes than fit
    /// says nothing about more: read until `Pending` before going to sleep, TLS may hold some that no socket announces.
    ///
    /// A TLS peer that closes its socket without saying goodbye is at its end too: databases do so, and the
    /// protocols above have a goodbye of their own.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.packed {
            None => self.layers.poll_read(cx, buf),
            Some(packed) => packed.poll_read(&mut self.layers, cx, buf),
        }
    }

    /// Reads what the kernel and the TLS layer hold at this moment; `None`: nothing. No wake-up follows.
    ///
    /// Unlike [`poll_read`](Self::poll_read) this asks the kernel even when the runtime has not heard of anything
    /// to read: it hears only between tasks, and of a socket that has just been attached, nothing at all. For the
    /// look at an idle connection before it is handed out. Costs a system call.
    pub fn read_now(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        self.ask_kernel(true);
        let read = self.poll_read(&mut Context::from_waker(Waker::noop()), buf);
        self.ask_kernel(false);
        match read {
            Poll::Ready(read) => read.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    fn ask_kernel(&mut self, ask: bool) {
        let socket = self.socket_mut();
        *socket = match (mem::replace(socket, Socket::Gone), ask) {
            (Socket::Tcp(socket), true) => Socket::TcpNow(socket),
            (Socket::TcpNow(socket), false) => Socket::Tcp(socket),
            (Socket::Unix(socket), true) => Socket::UnixNow(socket),
            (Socket::UnixNow(socket), false) => Socket::Unix(socket),
            (socket, _) => socket,
        };
    }

    /// Writes as much as goes: how many bytes were taken.
    ///
    /// Bytes that TLS has taken count as written although they may not have left yet; as long as
    /// [`wants_flush`](Self::wants_flush) says so, [`poll_flush`](Self::poll_flush) must follow. `Pending` means
    /// that nothing was taken.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.packed {
            None => self.layers.poll_write(cx, slices),
            Some(packed) => packed.poll_write(&mut self.layers, cx, slices),
        }
    }

    /// Whether TLS, or the packing, holds bytes that have not left yet.
    pub fn wants_flush(&self) -> bool {
        self.packed.as_ref().is_some_and(|packed| packed.wants_flush()) || self.layers.wants_flush()
    }

    /// Sends what they still hold.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(packed) = &mut self.packed {
            ready!(packed.poll_send(&mut self.layers, cx))?;
        }
        self.layers.poll_flush(cx)
    }

    /// Sends what is left, says goodbye (TLS) and closes our direction.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(packed) = &mut self.packed {
            ready!(packed.poll_send(&mut self.layers, cx))?;
        }
        self.layers.poll_shutdown(cx)
    }

    /// From here on bytes are packed so, both ways. `read`: those that have been read already.
    pub fn pack(&mut self, codec: Box<dyn Codec>, read: Vec<u8>) {
        self.packed = Some(Box::new(Packed::new(codec, read)));
    }

    /// The bytes on the wire are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.layers, Layers::Tls(_))
    }

    /// The certificate that the other end has shown, if it has.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        let Layers::Tls(session) = &self.layers else { return None };
        session.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.as_ref())
    }

    /// The protocol that both ends have agreed on in the TLS handshake (ALPN), if they have.
    pub fn alpn(&self) -> Option<&[u8]> {
        let Layers::Tls(session) = &self.layers else { return None };
        session.get_ref().1.alpn_protocol()
    }

    /// Waits for the first byte of a TCP connection and leaves it there. `None`: it has ended, or is of another kind.
    ///
    /// Cancel safe.
    pub async fn peek(&self) -> io::Result<Option<u8>> {
        let Layers::Plain(Socket::Tcp(socket)) = &self.layers else { return Ok(None) };
        let mut first = [0];
        let read = socket.peek(&mut first).await?;
        Ok(first.first().copied().filter(|_| read > 0))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Takes the socket off this runtime, so that another thread can [`attach`](Detached::attach) it to its own.
    /// What TLS has received or not yet sent moves along.
    pub fn detach(mut self) -> io::Result<Detached> {
        let socket = self.socket_mut();
        *socket = mem::replace(socket, Socket::Gone).detach()?;
        Ok(Detached(self))
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match &mut self.layers {
            Layers::Plain(socket) => socket,
            Layers::Tls(session) => session.get_mut().0,
        }
    }
}

/// A stream that belongs to no runtime. Dropping it closes the connection.
#[derive(Debug)]
pub struct Detached(Stream);

impl Detached {
    /// Puts the stream on the runtime this is called from; fails outside of one.
    pub fn attach(self) -> io::Result<Stream> {
        // Tokio panics where there is no runtime.
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let mut stream = self.0;
        let socket = stream.socket_mut();
        *socket = mem::replace(socket, Socket::Gone).attach()?;
        Ok(stream)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("unix socket"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// Why a database could not be reached. Holds addresses: for the log, not for clients.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve.
    #[error("the name {host} can't be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's word.
        source: io::Error,
    },
    /// The name resolves to nothing.
    #[error("the name {host} has no address")]
    NoAddress {
        /// The name.
        host: String,
    },
    /// Nobody listens there, or it can't be reached; with several addresses, the last one's error.
    #[error("can't connect to {address}: {source}")]
    Connect {
        /// What was tried.
        address: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from {address} within {limit:?}")]
    Timeout {
        /// What was tried.
        address: String,
        /// The limit.
        limit: Duration,
    },
}

/// Connects to a database within `limit`. The addresses of a name are tried in the resolver's order; each gets an
/// equal share of the time that is left, so that one that swallows packets does not hide the next.
///
/// Cancel safe: a connection half made is closed.
pub async fn connect(address: &TargetAddress, limit: Duration) -> Result<Stream, ConnectError> {
    let deadline = Instant::now() + limit;
    let timeout = || ConnectError::Timeout { address: address.to_string(), limit };
    let failed = |source| ConnectError::Connect { address: address.to_string(), source };
    match address {
        TargetAddress::Unix(path) => {
            let connecting = tokio::time::timeout_at(deadline, UnixStream::connect(path));
            Ok(Stream::unix(connecting.await.map_err(|_| timeout())?.map_err(failed)?))
        }
        TargetAddress::Tcp { host, port } => {
            let resolving = tokio::time::timeout_at(deadline, tokio::net::lookup_host((host.as_str(), *port)));
            let addresses: Vec<_> = resolving
                .await
                .map_err(|_| timeout())?
                .map_err(|source| ConnectError::Resolve { host: host.clone(), source })?
                .collect();
            let mut last = ConnectError::NoAddress { host: host.clone() };
            for (tried, socket_address) in addresses.iter().enumerate() {
                let share = share(deadline - Instant::now(), addresses.len() - tried);
                last = match tokio::time::timeout(share, TcpStream::connect(socket_address)).await {
                    Ok(Ok(socket)) => return Stream::tcp(socket).map_err(failed),
                    Ok(Err(source)) => failed(source),
                    Err(_) => timeout(),
                };
            }
            Err(last)
        }
    }
}

fn share(left: Duration, parts: usize) -> Duration {
    left / u32::try_from(parts).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
