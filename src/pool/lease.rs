//! Exclusive use of a server connection.
//!
//! A lease can be dropped anywhere, also when its task is cancelled in the middle of a query: that closes the
//! connection. Only [`Lease::release`] gives it back, and only if its machine says that it is idle.

use super::Pools;
use super::line::{Ask, Key};
use crate::net::{Detached, Stream};
use crate::protocol::{ClientError, Out, Protocol, ServerSide, Status};
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

/// A connection to a database: the socket and what has been said on it.
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
}

impl<P: Protocol> ServerConn<P> {
    /// A connection that has just logged in, on no worker's runtime.
    pub fn new(stream: Stream, machine: P::Server, tail: Vec<u8>, expires: Option<Instant>) -> Self {
        Self { stream, machine, pending: Vec::new(), tail, worker: None, expires, idle_since: Instant::now() }
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
    pub(super) async fn leave(self: Box<Self>) {
        let Self { stream, machine, .. } = *self;
        let Ok(mut stream) = stream.detach().and_then(Detached::attach) else { return };
        let goodbye = async {
            let mut bytes = Vec::new();
            machine.terminate(&mut bytes);
            stream.write_whole(&mut bytes).await?;
            while stream.read_more(&mut bytes).await? > 0 {
                bytes.clear();
            }
            io::Result::Ok(())
        };
        // Lost or slow: in either case there is nothing more to be done for it.
        let _ = tokio::time::timeout(LEAVING, goodbye).await;
    }

    /// Puts the socket on this worker's runtime.
    fn move_to(mut self: Box<Self>, worker: usize) -> Option<Box<Self>> {
        if self.worker == Some(worker) {
            return Some(self);
        }
        self.stream = self.stream.detach().ok()?.attach().ok()?;
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

/// Exclusive use of a server connection. Dropping it closes the connection.
pub struct Lease<P: Protocol> {
    /// The connection. Dropped before the claim, so that the budget never counts too few.
    pub connection: Box<ServerConn<P>>,
    claim: Claim<P>,
}

/// A leased place in the budget. Dropping it frees the place.
struct Claim<P: Protocol> {
    pools: Arc<Pools<P>>,
    key: Key,
    armed: bool,
}

impl<P: Protocol> Lease<P> {
    /// A connection that the line counts as leased.
    pub(super) fn new(pools: &Arc<Pools<P>>, key: Key, connection: Box<ServerConn<P>>) -> Self {
        Self { connection, claim: Claim { pools: Arc::clone(pools), key, armed: true } }
    }

    /// Puts the connection on this worker's runtime and looks whether it still lives; `None`: it does not, and has
    /// been closed. Call from the worker that will use it, before anything else.
    pub fn checked(self, worker: usize) -> Option<Self> {
        let now = Instant::now();
        let Self { connection, claim } = self;
        if connection.is_old(now) {
            connection.close();
            return None;
        }
        let moved = connection.worker != Some(worker);
        let trusted = !moved && now.saturating_duration_since(connection.idle_since) <= TRUSTED;
        let mut connection = connection.move_to(worker)?;
        connection.is_alive(!trusted).then_some(Self { connection, claim })
    }

    /// What is told to the client for whom this connection could not be made what it must find, if so. The lease must
    /// not be released then.
    pub fn attach_failure(&mut self) -> Option<ClientError> {
        let failure = self.connection.machine.attach_failure()?;
        Some(self.claim.pools.attach_failed(failure))
    }

    /// The connection alone; its place in the budget stays taken.
    pub(super) fn into_connection(self) -> Box<ServerConn<P>> {
        let Self { connection, claim } = self;
        claim.disarm();
        connection
    }

    /// It must not be given to anybody else: it is closed instead of coming back.
    pub fn spoil(&mut self) {
        self.connection.expires = Some(self.connection.idle_since);
    }

    /// Closes the connection, politely if it is in a state for it.
    pub fn discard(self) {
        let Self { connection, claim } = self;
        connection.close();
        drop(claim);
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
        let Self { mut connection, claim } = self;
        if !connection.is_clean() || connection.is_old(now) {
            if is_new {
                claim.pools.lock().line.opened(claim.key);
            }
            connection.close();
            return;
        }
        connection.idle_since = now;
        let ask = Ask {
            key: claim.key,
            label: connection.machine.settings().label(),
            worker: connection.worker.unwrap_or(usize::MAX),
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
