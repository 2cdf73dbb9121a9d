//! Where clients come in: binds, accepts, counts, and hands each client to a worker.
//!
//! Runs on a thread of its own. A client is given to the worker with the fewest; its socket is registered on that
//! worker's runtime. Clients over a limit are handed over too, a few at a time, so that they are told why in their own
//! protocol; beyond that they are closed at once.

use crate::config::{EndpointConfig, ListenAddress};
use crate::metrics::{EndpointMetrics, LoginRefusal};
use crate::net::proxy_protocol::{self, HeaderError};
use crate::net::sources::{PendingLogin, Source, Sources, TooMuch};
use crate::net::{Detached, Peer, Stream};
use crate::protocol::ClientError;
use ipnet::IpNet;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Connections the kernel may queue while we are busy: a burst of functions that start at once.
const BACKLOG: i32 = 4096;
/// Clients over a limit that are being told so, at one time.
const REFUSALS_MAX: usize = 128;
/// After an error of accept() that is not one client's own (out of files, out of memory).
const BACK_OFF: Duration = Duration::from_millis(100);
/// Between two lines of the log about balancers' headers.
const QUIET: Duration = Duration::from_secs(10);

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
    /// Its address's account, where it has one.
    pub pending: Option<PendingLogin>,
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
    fn hand_over(
        &self,
        stream: Detached,
        endpoint: usize,
        Admission { refusal, pending }: Admission,
        permit: OwnedSemaphorePermit,
    ) {
        let least = self.workers.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed));
        let Some((mailbox, load)) = least else { return };
        load.fetch_add(1, Ordering::Relaxed);
        let claim = Claim { _permit: permit, load: Arc::clone(load) };
        let client_id = self.next_client_id.fetch_add(1, Ordering::Relaxed);
        // A worker that is gone is gone for good: the process is ending, and the client sees its connection closed.
        let _ = mailbox.send(Arrival { stream, endpoint, client_id, refusal, pending, claim });
    }
}

/// What was found when somebody came.
struct Admission {
    /// There is no place.
    refusal: Option<ClientError>,
    /// Its address's account: also of one for whom there is no place but who may come from there, as it may ask to cancel.
    pending: Option<PendingLogin>,
}

/// An endpoint's doors.
pub struct Doors {
    name: String,
    number: usize,
    max_clients: usize,
    allow_from: Vec<IpNet>,
    proxy_protocol_from: Vec<IpNet>,
    login_timeout: Duration,
    sources: Arc<Sources>,
    /// Mistakes of balancers, in the log.
    complained: Seldom,
    /// Accepts that failed, in the log.
    stuck: Seldom,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    sockets: Vec<Door>,
    /// The slot of the thread that runs this.
    counts: Arc<EndpointMetrics>,
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
    pub fn open(number: usize, endpoint: &EndpointConfig, counts: Arc<EndpointMetrics>) -> Result<Self, BindError> {
        let EndpointConfig { name, listen, max_clients, .. } = endpoint;
        let bind = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Door::Tcp),
            ListenAddress::Unix(path) => bind_unix(path),
        };
        let sockets = listen
            .iter()
            .map(|address| {
                bind(address).map_err(|source| BindError {
                    endpoint: name.clone(),
                    address: address.to_string(),
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.clone(),
            number,
            max_clients: *max_clients,
            allow_from: endpoint.allow_from.clone(),
            proxy_protocol_from: endpoint.proxy_protocol_from.clone(),
            login_timeout: endpoint.login_timeout,
            sources: Sources::new(*max_clients),
            complained: Seldom::default(),
            stuck: Seldom::default(),
            places: Arc::new(Semaphore::new((*max_clients).min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            sockets,
            counts,
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

    async fn accept(self: &Arc<Self>, door: &Door, workers: &Workers) {
        loop {
            let admitted = match door {
                Door::Tcp(listener) => listener.accept().await.and_then(|(socket, address)| {
                    if contains(&self.proxy_protocol_from, address.ip()) {
                        self.introduce(socket, address, workers);
                        return Ok(());
                    }
                    self.admit(Stream::tcp(socket)?, Source::of(address.ip()), workers)
                }),
                Door::Unix(listener, _) => listener.accept().await.and_then(|(socket, _)| {
                    let user = socket.peer_cred()?.uid();
                    self.admit(Stream::unix(socket), Source::User(user), workers)
                }),
            };
            match admitted {
                Ok(()) => {}
                Err(error) if is_clients_own(&error) => {}
                Err(error) => {
                    if self.stuck.is_due(Instant::now()) {
                        tracing::warn!(endpoint = self.name, %error, "can't accept clients; trying again");
                    }
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Lets a balancer say whom it brings, and admits that client. Those who are slow about it take up places of
    /// their own: refused ones or clients', whichever are free.
    fn introduce(self: &Arc<Self>, socket: TcpStream, balancer: SocketAddr, workers: &Workers) {
        let places = if self.places.available_permits() == 0 { &self.refusals } else { &self.places };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else { return self.turned_away() };
        let (doors, workers) = (Arc::clone(self), workers.clone());
        tokio::task::spawn_local(async move {
            let header = tokio::time::timeout(doors.login_timeout, proxy_protocol::read(&socket)).await;
            drop(permit);
            let client = match header {
                Ok(Ok(client)) => client.unwrap_or(balancer),
                Ok(Err(HeaderError::Probe)) => return,
                Ok(Err(error)) => return doors.complain(balancer.ip(), &error.to_string()),
                Err(_) => return doors.complain(balancer.ip(), "no PROXY protocol header within login_timeout"),
            };
            let source = Source::of(client.ip());
            if let Err(error) = Stream::tcp_for(socket, client).and_then(|stream| doors.admit(stream, source, &workers))
            {
                tracing::debug!(endpoint = doors.name, %error, "a balancer's client was lost");
            }
        });
    }

    /// Logs what is wrong with a balancer, now and then.
    fn complain(&self, balancer: IpAddr, error: &str) {
        if self.complained.is_due(Instant::now()) {
            tracing::warn!(endpoint = self.name, %balancer, error, "a balancer's connection was closed");
        }
    }

    fn admit(&self, stream: Stream, source: Source, workers: &Workers) -> io::Result<()> {
        let admission = self.judge(stream.peer(), source);
        let places = if admission.refusal.is_some() { &self.refusals } else { &self.places };
        match Arc::clone(places).try_acquire_owned() {
            Ok(permit) => workers.hand_over(stream.detach()?, self.number, admission, permit),
            Err(_) => self.turned_away(),
        }
        Ok(())
    }

    /// One more than can be told why has been closed.
    fn turned_away(&self) {
        self.counts.client_connections_received.add(1);
        self.counts.client_connections_closed.add(1);
        self.counts.logins_refused.of(LoginRefusal::TooManyClients).add(1);
    }

    /// Whether this peer gets a place now; opens an account for where it comes from.
    fn judge(&self, peer: Peer, source: Source) -> Admission {
        let endpoint = || self.name.clone();
        if !self.allows(peer) {
            let refusal = Some(ClientError::AddressNotAllowed { endpoint: endpoint() });
            return Admission { refusal, pending: None };
        }
        let is_full = self.places.available_permits() == 0;
        let full = || ClientError::TooManyClients { endpoint: endpoint(), limit: self.max_clients };
        let now = Instant::now();
        let pending =
            if is_full { self.sources.admit_without_place(source, now) } else { self.sources.admit(source, now) };
        match pending {
            Ok(pending) => Admission { refusal: is_full.then(full), pending: Some(pending) },
            Err(TooMuch::Tries) => Admission { refusal: Some(ClientError::TooManyFailedLogins), pending: None },
            Err(TooMuch::Logins(limit)) => {
                let refusal = Some(ClientError::TooManyLoginsAtOnce { endpoint: endpoint(), limit });
                Admission { refusal, pending: None }
            }
        }
    }

    fn allows(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => contains(&self.allow_from, address.ip()),
            // Who may open it is said by the folder's permissions.
            Peer::Unix | Peer::Memory => true,
        }
    }
}

fn contains(ranges: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    ranges.iter().any(|range| range.contains(&address))
}

/// One line of a kind in the log per [`QUIET`].
#[derive(Debug, Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if is_due {
            *last = Some(now);
        }
        is_due
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_now_and_then() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let due: Vec<u64> = (0..300).filter(|step| seldom.is_due(start + BACK_OFF * (*step as u32))).collect();
        assert_eq!(due, [0, 100, 200], "of a wait of {BACK_OFF:?} each, with {QUIET:?} between lines");
    }
}
