//! Where clients come in: binds, accepts, counts, and hands each client to a worker.
//!
//! Runs on a thread of its own. A client is given to the worker with the fewest; its socket is registered on that
//! worker's runtime. Clients over a limit are handed over too, a few at a time, so that they are told why in their own
//! protocol; beyond that they are closed at once.

use crate::config::ListenAddress;
use crate::net::{Detached, Peer, Stream};
use crate::protocol::ClientError;
use ipnet::IpNet;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Connections the kernel may queue while we are busy: a burst of functions that start at once.
const BACKLOG: i32 = 4096;
/// Clients over a limit that are being told so, at one time.
const REFUSALS_MAX: usize = 128;
/// After an error of accept() that is not one client's own (out of files, out of memory).
const BACK_OFF: Duration = Duration::from_millis(100);

/// A client on its way to a worker.
pub struct Arrival {
    /// Its connection, on no runtime.
    pub stream: Detached,
    /// Which endpoint it came to, as numbered by the caller.
    pub endpoint: usize,
    /// Unique in this process, from 1.
    pub client_id: u64,
    /// It can't be served.
    pub refusal: Option<ClientError>,
    /// Dropped when the client has gone.
    pub claim: Claim,
}

/// A client's place under its limits.
#[derive(Debug)]
pub struct Claim {
    _permit: OwnedSemaphorePermit,
    load: Arc<AtomicUsize>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The workers, as the listeners see them.
#[derive(Clone)]
pub struct Workers {
    workers: Arc<[(mpsc::UnboundedSender<Arrival>, Arc<AtomicUsize>)]>,
    next_client_id: Arc<AtomicU64>,
}

impl Workers {
    /// Workers by their mailboxes. What is in these is bounded by the clients' limits.
    pub fn new(mailboxes: Vec<mpsc::UnboundedSender<Arrival>>) -> Self {
        Self {
            workers: mailboxes.into_iter().map(|mailbox| (mailbox, Arc::default())).collect(),
            next_client_id: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Hands a client to the worker with the fewest.
    fn hand_over(&self, stream: Detached, endpoint: usize, refusal: Option<ClientError>, permit: OwnedSemaphorePermit) {
        let least = self.workers.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed));
        let Some((mailbox, load)) = least else { return };
        load.fetch_add(1, Ordering::Relaxed);
        let claim = Claim { _permit: permit, load: Arc::clone(load) };
        let client_id = self.next_client_id.fetch_add(1, Ordering::Relaxed);
        // A worker that is gone is gone for good: the process is ending, and the client sees its connection closed.
        let _ = mailbox.send(Arrival { stream, endpoint, client_id, refusal, claim });
    }
}

/// An endpoint's doors.
pub struct Doors {
    name: String,
    number: usize,
    max_clients: usize,
    allow_from: Vec<IpNet>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    sockets: Vec<Door>,
}

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file when it is closed.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("endpoint \"{endpoint}\" can't listen on {address}: {source}")]
pub struct BindError {
    endpoint: String,
    address: String,
    source: io::Error,
}

impl Doors {
    /// Binds all addresses of an endpoint. Call on the runtime that will run them.
    pub fn open(
        number: usize,
        name: &str,
        listen: &[ListenAddress],
        max_clients: usize,
        allow_from: Vec<IpNet>,
    ) -> Result<Self, BindError> {
        let bind = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Door::Tcp),
            ListenAddress::Unix(path) => bind_unix(path),
        };
        let sockets = listen
            .iter()
            .map(|address| {
                bind(address).map_err(|source| BindError {
                    endpoint: name.to_owned(),
                    address: address.to_string(),
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            number,
            max_clients,
            allow_from,
            places: Arc::new(Semaphore::new(max_clients.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            sockets,
        })
    }

    /// The addresses that are listened on, ports chosen by the kernel included.
    pub fn addresses(&self) -> Vec<String> {
        self.sockets
            .iter()
            .map(|door| match door {
                Door::Tcp(listener) => listener.local_addr().map_or_else(|error| error.to_string(), |a| a.to_string()),
                Door::Unix(_, file) => format!("unix:{}", file.0.display()),
            })
            .collect()
    }

    /// Clients that are connected.
    pub fn clients(&self) -> usize {
        self.max_clients.saturating_sub(self.places.available_permits())
    }

    /// Accepts until `closed` turns true; then the addresses are free again.
    pub async fn run(self: Arc<Self>, workers: Workers, mut closed: watch::Receiver<bool>) {
        let accepting = self.sockets.iter().map(|door| self.accept(door, &workers));
        tokio::select! {
            () = all(accepting) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    async fn accept(&self, door: &Door, workers: &Workers) {
        loop {
            let accepted = match door {
                Door::Tcp(listener) => listener.accept().await.and_then(|(socket, _)| Stream::tcp(socket)),
                Door::Unix(listener, _) => listener.accept().await.map(|(socket, _)| Stream::unix(socket)),
            };
            match accepted.and_then(|stream| self.admit(stream, workers)) {
                Ok(()) => {}
                Err(error) if is_clients_own(&error) => {}
                Err(error) => {
                    tracing::warn!(endpoint = self.name, %error, "can't accept clients; trying again");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    fn admit(&self, stream: Stream, workers: &Workers) -> io::Result<()> {
        let (refusal, places) = if !self.allows(stream.peer()) {
            let endpoint = self.name.clone();
            (Some(ClientError::AddressNotAllowed { endpoint }), &self.refusals)
        } else if self.places.available_permits() == 0 {
            let (endpoint, limit) = (self.name.clone(), self.max_clients);
            (Some(ClientError::TooManyClients { endpoint, limit }), &self.refusals)
        } else {
            (None, &self.places)
        };
        if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
            workers.hand_over(stream.detach()?, self.number, refusal, permit);
        }
        Ok(())
    }

    fn allows(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => {
                let ip: IpAddr = address.ip().to_canonical();
                self.allow_from.iter().any(|range| range.contains(&ip))
            }
            Peer::Unix | Peer::Memory => true,
        }
    }
}

/// Drives all of them, for as long as any runs.
async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// The client vanished before it was accepted, or while its socket was set up.
fn is_clients_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Interrupted
    )
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be listened on side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket's file that nobody listens on any more is taken over.
fn bind_unix(path: &Path) -> io::Result<Door> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    // As PostgreSQL's own: who may come in is said by the login, and by the folder's permissions.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    Ok(Door::Unix(listener, SocketFile(path.to_owned())))
}
