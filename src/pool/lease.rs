//! Exclusive use of a server connection.
//!
//! A lease can be dropped anywhere, also when its task is cancelled in the middle of a query: that closes the
//! connection. Only [`Lease::release`] gives it back, and only if its machine says that it is idle. The place of one that is
//! closed is free once the database has let go of it: a login that comes before could be one too many there.

use super::line::{Ask, Key};
use super::{Order, Pools};
use crate::net::{Detached, Stream};
use crate::protocol::{ClientError, Out, Protocol, ServerSide, Status};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// An idle connection is asked at the kernel whether it still lives, if it was idle for longer than this; before,
/// what the runtime has heard of it will do.
const TRUSTED: Duration = Duration::from_millis(50);
/// How long a database may take to let go of a connection. It is done within milliseconds, or it has trouble that a
/// login need not wait for.
const LEAVING: Duration = Duration::from_secs(1);
/// Bytes of reports and notices that may wait on an idle connection.
const UNSOLICITED_BYTES_MAX: usize = 64 << 10;

/// A connection to a database: the socket and what has been said on it. Dropping one that is leased gives up its place.
pub struct ServerConn<P: Protocol> {
    /// The socket.
    pub stream: Stream,
    /// What has been said.
    pub machine: P::Server,
    /// Bytes for the server that the socket did not take yet.
    pub pending: Vec<u8>,
    /// Bytes from the server that the machine did not take yet.
    pub tail: Vec<u8>,
    /// The worker whose runtime the socket is on; `None`: none of them.
    worker: Option<usize>,
    /// When it is too old to be given out again.
    expires: Option<Instant>,
    idle_since: Instant,
    /// Its place, while it is leased; others stand in the line.
    claim: Option<Claim<P>>,
}

impl<P: Protocol> ServerConn<P> {
    /// A connection that has just logged in, on no worker's runtime.
    pub fn new(stream: Stream, machine: P::Server, tail: Vec<u8>, expires: Option<Instant>) -> Self {
        let (pending, idle_since) = (Vec::new(), Instant::now());
        Self { stream, machine, pending, tail, worker: None, expires, idle_since, claim: None }
    }

    /// It has lived long enough.
    pub fn is_old(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Nothing is under way on it in either direction.
    fn is_clean(&self) -> bool {
        self.machine.status() == Status::Idle && self.pending.is_empty() && self.tail.is_empty()
    }

    /// Drives a connection that nobody holds until nothing is owed on it. Not cancel safe: what was owed may still come.
    pub async fn settle(&mut self) -> io::Result<()> {
        let mut out = Out::new();
        self.stream.write_whole(&mut self.pending).await?;
        while self.machine.status() == Status::Owing {
            if self.stream.read_more(&mut self.tail).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out.clear();
            let taken = self.machine.receive(&self.tail, None, &mut out).map_err(io::Error::other)?;
            self.tail.drain(..taken);
        }
        Ok(())
    }

    /// Says goodbye, if that can be done without waiting, and closes.
    pub fn close(mut self) {
        if self.pending.is_empty() {
            let mut goodbye = Vec::new();
            self.machine.terminate(&mut goodbye);
            let mut cx = Context::from_waker(Waker::noop());
            // Best effort: the database notices the closed socket as well.
            let _ = self.stream.poll_write(&mut cx, &[IoSlice::new(&goodbye)]);
            let _ = self.stream.poll_flush(&mut cx);
        }
    }

    /// Says goodbye, and waits until the database has let go of it. Cancel safe: it is closed then.
    pub(super) async fn leave(mut self: Box<Self>) {
        if let Some(leaving) = self.leaving() {
            leaving.end().await;
        }
    }

    /// Takes what is left to be done out of it; `None`: it is closed already.
    fn leaving(&mut self) -> Option<Leaving<P>> {
        let claim = self.claim.take();
        let stream = self.stream.take().detach().ok()?;
        let mut goodbye = Vec::new();
        if self.pending.is_empty() {
            self.machine.terminate(&mut goodbye);
        }
        Some(Leaving { stream, goodbye, _claim: claim })
    }

    /// Puts the socket on this worker's runtime.
    fn move_to(mut self: Box<Self>, worker: usize) -> Option<Box<Self>> {
        if self.worker == Some(worker) {
            return Some(self);
        }
        self.stream = self.stream.take().detach().ok()?.attach().ok()?;
        self.worker = Some(worker);
        Some(self)
    }

    /// Reads what has come while nobody held the connection. False: it must not be given out.
    fn is_alive(&mut self, ask_kernel: bool) -> bool {
        let mut buf = [0; 4096];
        let mut out = Out::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let read = if ask_kernel {
                match self.stream.read_now(&mut buf) {
                    Ok(None) => break,
                    Ok(Some(read)) => Ok(read),
                    Err(error) => Err(error),
                }
            } else {
                match self.stream.poll_read(&mut cx, &mut buf) {
                    Poll::Pending => break,
                    Poll::Ready(read) => read,
                }
            };
            let Some(bytes) = read.ok().filter(|read| *read > 0).and_then(|read| buf.get(..read)) else { return false };
            self.tail.extend_from_slice(bytes);
            let Ok(taken) = self.machine.receive(&self.tail, None, &mut out) else { return false };
            self.tail.drain(..taken);
            if self.machine.status() == Status::Ended || self.tail.len() > UNSOLICITED_BYTES_MAX {
                return false;
            }
        }
        self.is_clean()
    }
}

impl<P: Protocol> Drop for ServerConn<P> {
    fn drop(&mut self) {
        let Some(orders) = self.claim.as_ref().map(|claim| claim.pools.orders.clone()) else { return };
        if let Some(leaving) = self.leaving() {
            // Where nobody takes orders any more it is closed at once.
            let _ = orders.send(Order::Leave(leaving));
        }
    }
}

/// A connection that nobody will use again, on no runtime. Dropping it closes it.
pub struct Leaving<P: Protocol> {
    stream: Detached,
    goodbye: Vec<u8>,
    /// Dropped last.
    _claim: Option<Claim<P>>,
}

impl<P: Protocol> Leaving<P> {
    /// Waits until the database has let go of it. Cancel safe: it is closed then.
    pub(super) async fn end(self) {
        let Self { stream, mut goodbye, _claim } = self;
        let Ok(mut stream) = stream.attach() else { return };
        let leave = async {
            stream.write_whole(&mut goodbye).await?;
            // A database that waits for COPY data does not understand a goodbye.
            poll_fn(|cx| stream.poll_shutdown(cx)).await?;
            let mut rest = Vec::new();
            while stream.read_more(&mut rest).await? > 0 {
                rest.clear();
            }
            io::Result::Ok(())
        };
        // Lost or slow: in either case there is nothing more to be done for it.
        let _ = tokio::time::timeout(LEAVING, leave).await;
    }
}

/// Exclusive use of a server connection. Dropping it closes the connection.
pub struct Lease<P: Protocol> {
    /// The connection, which holds its place in the budget.
    pub connection: Box<ServerConn<P>>,
}

/// A leased place in the budget. Dropping it frees the place.
struct Claim<P: Protocol> {
    pools: Arc<Pools<P>>,
    key: Key,
    armed: bool,
}

impl<P: Protocol> Lease<P> {
    /// A connection that the line counts as leased.
    pub(super) fn new(pools: &Arc<Pools<P>>, key: Key, mut connection: Box<ServerConn<P>>) -> Self {
        connection.claim = Some(Claim { pools: Arc::clone(pools), key, armed: true });
        Self { connection }
    }

    /// Puts the connection on this worker's runtime and looks whether it still lives; `None`: it does not, and has
    /// been closed. Call from the worker that will use it, before anything else.
    pub fn checked(self, worker: usize) -> Option<Self> {
        let now = Instant::now();
        let Self { connection } = self;
        if connection.is_old(now) {
            return None;
        }
        let moved = connection.worker != Some(worker);
        let trusted = !moved && now.saturating_duration_since(connection.idle_since) <= TRUSTED;
        let mut connection = connection.move_to(worker)?;
        connection.is_alive(!trusted).then_some(Self { connection })
    }

    /// What is told to the client for whom this connection could not be made what it must find, if so. The lease must
    /// not be released then.
    pub fn attach_failure(&mut self) -> Option<ClientError> {
        let failure = self.connection.machine.attach_failure()?;
        let claim = self.connection.claim.as_ref();
        Some(claim.map_or(ClientError::Internal, |claim| claim.pools.attach_failed(failure)))
    }

    /// The connection alone; its place in the budget stays taken.
    pub(super) fn into_connection(self) -> Box<ServerConn<P>> {
        let Self { mut connection } = self;
        connection.claim.take().map(Claim::disarm);
        connection
    }

    /// It must not be given to anybody else: it is closed instead of coming back.
    pub fn spoil(&mut self) {
        self.connection.expires = Some(self.connection.idle_since);
    }

    /// Closes the connection, politely if it is in a state for it.
    pub fn discard(self) {
        drop(self);
    }

    /// Gives the connection back if it is clean, else closes it.
    pub fn release(self) {
        self.give_back(false);
    }

    /// The same with one that has just been opened.
    pub(super) fn arrive(self) {
        self.give_back(true);
    }

    fn give_back(self, is_new: bool) {
        let now = Instant::now();
        let Self { mut connection } = self;
        if !connection.is_clean() || connection.is_old(now) {
            if let Some(claim) = connection.claim.as_ref().filter(|_| is_new) {
                claim.pools.lock().line.opened(claim.key);
            }
            return;
        }
        let Some(claim) = connection.claim.take() else { return };
        connection.idle_since = now;
        let ask = Ask {
            key: claim.key,
            label: connection.machine.settings().label(),
            worker: connection.worker.unwrap_or(usize::MAX),
            client: connection.machine.wanted_by(),
        };
        let pools = claim.disarm();
        pools.put_back(connection, ask, now, is_new);
    }
}

impl<P: Protocol> Claim<P> {
    /// The line counts the place in another way now.
    fn disarm(mut self) -> Arc<Pools<P>> {
        self.armed = false;
        Arc::clone(&self.pools)
    }
}

impl<P: Protocol> Drop for Claim<P> {
    fn drop(&mut self) {
        if self.armed {
            self.pools.closed(self.key);
        }
    }
}
