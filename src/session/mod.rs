//! One client from its first byte to its last.
//!
//! ```text
//!             a request                 a connection               idle, no pin
//!  Detached ------------> Waiting -------------------> Attached ---------------> Detached
//!      |  `--------- one was idle ------------------------^  |
//!      `---> end: goodbye, timeout, drain                    `---> end: client or server lost
//! ```
//!
//! One task drives it all by polling (`Session::poll`): the client's socket, the place in the line, the server's
//! socket. Nothing is owned across a wait but what the socket or the machines did not take, so an idle client holds
//! no buffer. Both directions are always polled together; each stops reading when the other side does not take what
//! was read (`HIGH_WATER`), which bounds memory and cannot deadlock as long as the client reads.

mod access;
mod cancel;
mod login;
mod relay;
mod tally;
mod worker;

pub use access::Access;
pub use cancel::{CancelKeys, Orders};
pub use login::{Endpoint, Greetings, Visitor, serve};
pub use worker::Worker;

use crate::config::PoolMode;
use crate::metrics::{EndpointMetrics, GroupMetrics};
use crate::net::Stream;
use crate::pool::line::Ask;
use crate::pool::{Borrow, Cancelled, Lease, PoolUse, Pools, ServerConn, Waiting};
use crate::protocol::{
    ClientError, ClientSide, Detached, Killed, PinPolicy, PinRules, Protocol, ServerSide, Sides, Status, Violation,
};
use cancel::{Asker, IssuedKey, Left};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tally::Tally;
use tokio::sync::oneshot;
use tokio::time::Instant;
use worker::{Kick, LOOK_INTERVAL, OVERTIME, Phase, Scratch, Watch};

/// Bytes that may wait for a peer to take them before the other side is read no further.
const HIGH_WATER: usize = 64 << 10;
/// Turns of the loop before other sessions of the worker get theirs.
const TURNS_MAX: usize = 64;
/// Connections that may be lost under a request before any of it was sent.
const ATTEMPTS_MAX: u8 = 3;
/// For last words to a client, and for cleaning a connection behind one.
const FAREWELL: Duration = Duration::from_secs(5);
/// A cancel that is still under way then is not waited for: each of its steps has `connect_timeout`, and a client may ask
/// for another one as often as it likes.
const CANCELLING_MAX: Duration = Duration::from_secs(30);

/// What a target group lets its sessions do.
#[derive(Debug, Clone)]
pub struct Rules {
    /// When a connection goes back.
    pub pool_mode: PoolMode,
    /// `transaction_idle_timeout`.
    pub transaction_idle_timeout: Option<Duration>,
    /// `pin_on`.
    pub pin_policy: PinPolicy,
    /// `pin_idle_timeout`.
    pub pin_idle_timeout: Option<Duration>,
    /// `idle_client_timeout`.
    pub idle_client_timeout: Option<Duration>,
    /// `query_timeout`.
    pub query_timeout: Option<Duration>,
    /// `transaction_max`.
    pub transaction_max: Option<Duration>,
}

/// A client that has logged in.
pub struct Session<P: Protocol> {
    watch: Watch,
    counts: (Arc<EndpointMetrics>, Arc<GroupMetrics>),
    rules: Rules,
    pools: Arc<Pools<P>>,
    pool: PoolUse<P>,
    stream: Stream,
    client: P::Client,
    holding: Holding<P>,
    /// The client's bytes that no machine has taken yet.
    tail: Vec<u8>,
    /// The tail may be taken now, although nothing was added to it.
    look_again: bool,
    /// Bytes for the client that its socket did not take yet.
    to_client: Vec<u8>,
    /// The client sends no more.
    at_end: bool,
    draining: bool,
    /// The client left in the middle of a request, and the server was told so.
    said_goodbye: bool,
    /// The connection is being reset before it goes back (`reset = "full"`).
    resetting: bool,
    attempts: u8,
    /// What was known of programs that ask for last values, and of the client's settings, when that was looked at.
    asking_seen: (u64, u64),
    has_told_asking: bool,
    /// The client, or the proxy, has asked the database to stop.
    cancelling: Option<Cancelling>,
    /// What was asked to be cancelled has not been sent yet, and will not be. Those who wait for it.
    cancel_due: Vec<Asker>,
    /// The client broke the protocol: it is told once what it has asked for before is answered.
    violation: Option<Violation>,
    /// The client has left in the middle of a query, and that was cancelled.
    abandoned: bool,
    /// The query and the transaction that were last over their time.
    overdue: (Option<Overdue>, Option<Overdue>),
    /// By which the client can cancel; forgotten with the session.
    cancel_key: IssuedKey,
    /// What the client has asked of the proxy itself is being done.
    errand: Option<Pin<Box<dyn Future<Output = Killed>>>>,
    tally: Tally,
}

enum Holding<P: Protocol> {
    Nothing,
    Waiting(Waiting<P>),
    Lease(Lease<P>),
}

/// A cancel on its way to the database. The connection is not given to anybody else, nor is anything new sent on it,
/// before it is known to have been acted upon.
struct Cancelling {
    outcome: oneshot::Receiver<Cancelled>,
    /// Let go with this.
    askers: Vec<Asker>,
}

/// What is over its time, and was told to stop.
#[derive(Debug, Clone, Copy)]
struct Overdue {
    /// Which query, or transaction, of the session's.
    number: u64,
    /// If it is still there then, the session ends.
    until: Instant,
    /// The client has been told, or will be by the database's error: it is counted.
    is_counted: bool,
    /// A transaction that was rolled back, as far as the database does that: once.
    is_rolled_back: bool,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client left.
    Goodbye,
    /// The client's connection was lost.
    ClientLost,
    /// The server said that it ends the connection; the client has its words.
    ServerEnded,
    /// The proxy ended it; the client has been told why.
    Told,
    /// The client logs in again.
    Again,
}

/// What is left of a session whose client logs in again.
struct Again<P: Protocol> {
    client: P::Client,
    stream: Stream,
    /// What it has said: its new login, and what stands behind that.
    input: Vec<u8>,
    /// What it has still to be told.
    out: Vec<u8>,
    cancel_key: IssuedKey,
}

impl<P: Protocol> Session<P> {
    /// `tail` and `to_client`: what the login left of the client's bytes, and what it has for the client.
    fn new(
        watch: Watch,
        endpoint: &Endpoint<P>,
        pool: PoolUse<P>,
        stream: Stream,
        mut client: P::Client,
        cancel_key: IssuedKey,
        (tail, to_client): (Vec<u8>, Vec<u8>),
    ) -> Self {
        // In session mode everybody keeps a connection.
        let shares = endpoint.rules.pool_mode == PoolMode::Transaction;
        let budget = shares.then(|| Arc::clone(endpoint.pools.pin_budget()));
        client.set_pin_rules(PinRules { policy: endpoint.rules.pin_policy, budget });
        let counts = watch.worker.counters(endpoint.places.0, endpoint.places.1);
        watch.handle.note_group(endpoint.places.1);
        let tally = Tally::new(Arc::clone(&counts.0), Arc::clone(&counts.1), stream.is_tls());
        Self {
            rules: endpoint.rules.clone(),
            pools: Arc::clone(&endpoint.pools),
            pool,
            stream,
            client,
            holding: Holding::Nothing,
            look_again: !tail.is_empty(),
            tail,
            to_client,
            at_end: false,
            draining: false,
            said_goodbye: false,
            resetting: false,
            attempts: 0,
            asking_seen: (u64::MAX, 0),
            has_told_asking: false,
            cancelling: None,
            cancel_due: Vec::new(),
            violation: None,
            abandoned: false,
            overdue: (None, None),
            cancel_key,
            errand: None,
            tally,
            watch,
            counts,
        }
    }

    /// Serves the client until it leaves or must leave, or logs in again.
    async fn run(mut self: Box<Self>) -> (End, Option<Again<P>>) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        // Boxed for the same reason as the login.
        (end, Box::pin((*self).finish(end)).await)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.watch.handle.wake_with(cx.waker());
        let worker = Rc::clone(&self.watch.worker);
        let mut scratch = worker.scratch();
        for _ in 0..TURNS_MAX {
            match self.turn(cx, &mut scratch) {
                Ok(true) => {}
                Ok(false) => {
                    self.note_phase();
                    return Poll::Pending;
                }
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One look at everything that may move; true if something did.
    fn turn(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        self.take_kicks()?;
        self.look_at_cancel(cx);
        let mut moved = self.look_at_errand(cx);
        moved |= self.flush_client(cx)?;
        moved |= match &mut self.holding {
            Holding::Nothing => self.turn_detached(cx, scratch)?,
            Holding::Waiting(waiting) => match Pin::new(&mut waiting.outcome).poll(cx) {
                Poll::Ready(outcome) => {
                    self.tally.waited(waiting.since);
                    self.borrowed(outcome.unwrap_or(Err(ClientError::Internal)));
                    true
                }
                Poll::Pending => self.read_ahead(cx, scratch)?,
            },
            Holding::Lease(_) => self.turn_attached(cx, scratch)?,
        };
        Ok(moved)
    }

    // ------------------------------------------------------------------------------------------ detached

    fn turn_detached(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        if self.to_client.len() >= HIGH_WATER {
            return Ok(false);
        }
        if self.look_again {
            self.look_again = false;
            scratch.input.start(&self.tail);
        } else if self.at_end {
            return Err(End::Goodbye);
        } else if !self.read_client(cx, scratch)? {
            return Ok(self.at_end);
        }
        let input = std::mem::take(&mut scratch.input);
        let result = self.detached_input(cx, input.bytes(), scratch);
        scratch.input = input;
        result.map(|()| true)
    }

    fn detached_input(&mut self, cx: &mut Context<'_>, input: &[u8], scratch: &mut Scratch) -> Result<(), End> {
        let (taken, verdict) = match self.client.detached(input, &mut self.to_client) {
            Ok(verdict) => verdict,
            Err(violation) => return Err(self.end(&ClientError::Protocol(violation))),
        };
        self.begin_errand();
        let rest = input.get(taken..).unwrap_or_default();
        if self.client.logs_in_again() {
            self.keep(rest);
            return Err(End::Again);
        }
        match verdict {
            Detached::NeedInput => {
                self.keep(rest);
                if self.draining && rest.is_empty() {
                    return Err(self.end(&ClientError::GoingDown));
                }
            }
            Detached::Ended => return Err(End::Goodbye),
            // It was to be sent behind the proxy's own words, and their connection is gone.
            Detached::NeedServer(_) if !self.cancel_due.is_empty() => {
                self.keep(rest);
                self.refuse(&ClientError::Cancelled);
            }
            Detached::NeedServer(_) => {
                self.tally.asks();
                match self.pools.borrow(self.ask()) {
                    Borrow::Now(lease) => {
                        self.tally.borrowed_at_once();
                        self.attach(lease);
                        self.forward(cx, rest, scratch)?;
                    }
                    Borrow::Later(waiting) => {
                        self.keep(rest);
                        self.holding = Holding::Waiting(waiting);
                    }
                    Borrow::Refused(error) => {
                        self.keep(rest);
                        self.refuse(&error);
                    }
                }
            }
        }
        Ok(())
    }

    fn ask(&self) -> Ask {
        Ask {
            key: self.pool.key(),
            label: self.client.settings().label(),
            worker: self.watch.worker.number(),
            client: Some(self.client.id()),
        }
    }

    /// The wait in line is over.
    fn borrowed(&mut self, outcome: Result<Lease<P>, ClientError>) {
        self.holding = Holding::Nothing;
        self.look_again = true;
        match outcome.map(|lease| lease.checked(self.watch.worker.number())) {
            Ok(Some(lease)) => {
                self.tally.borrowed();
                self.attach(lease);
            }
            // It died on the way: the next turn asks for another.
            Ok(None) => {}
            Err(error) => self.refuse(&error),
        }
    }

    fn attach(&mut self, mut lease: Lease<P>) {
        self.resetting = false;
        // However the last one ended.
        self.watch.handle.note_transaction_end();
        self.share_asking();
        let connection = &mut lease.connection;
        let sides = Sides { client: &mut self.to_client, server: &mut connection.pending };
        connection.machine.attach(&mut self.client, sides);
        self.holding = Holding::Lease(lease);
    }

    /// What one client of a program is seen to do, asking for last values, the others are expected to do.
    fn share_asking(&mut self) {
        let seen = (self.pools.asking_version(), self.client.settings().label());
        if self.asking_seen == seen {
            return;
        }
        let (user, application) = (&self.pool.pool_key().user, self.client.application());
        if self.pools.is_asking(user, application) {
            self.client.expect_to_ask();
        }
        self.asking_seen = (self.pools.asking_version(), seen.1);
    }

    /// The connection is of no use any more; nor is what was asked to be cancelled on it.
    fn drop_lease(&mut self) {
        self.holding = Holding::Nothing;
        self.cancelling = None;
        self.client.let_go();
    }

    /// The request at the head of the tail gets this error; the session goes on.
    fn refuse(&mut self, error: &ClientError) {
        tracing::debug!(kind = error.kind().name(), %error, "request refused");
        self.tally.refused(error);
        self.client.refuse(error, &mut self.to_client);
        self.watch.handle.note_answers(1);
        // What was to be cancelled is what was refused.
        self.cancel_due.clear();
        self.look_again = true;
        self.attempts = 0;
    }

    /// The session ends with this error.
    fn end(&mut self, error: &ClientError) -> End {
        self.tally.told(error);
        self.end_counted(error)
    }

    fn end_counted(&mut self, error: &ClientError) -> End {
        tracing::info!(kind = error.kind().name(), %error, "client told to go");
        let midway = matches!(&self.holding, Holding::Lease(lease) if lease.connection.machine.is_midway());
        if !midway {
            self.client.end(error, &mut self.to_client);
        }
        End::Told
    }

    // ------------------------------------------------------------------------------------------ from outside

    fn take_kicks(&mut self) -> Result<(), End> {
        let kicks = self.watch.handle.take_kicks();
        if kicks.is_empty() {
            return Ok(());
        }
        let rules = self.rules.clone();
        if kicks.has(Kick::Idle) {
            let limit = rules.idle_client_timeout.unwrap_or_default();
            return Err(self.end(&ClientError::ClientIdle { limit }));
        }
        if kicks.has(Kick::PinIdle)
            && matches!(&self.holding, Holding::Lease(lease) if lease.connection.machine.status() == Status::Idle)
            && !self.client.pins().is_empty()
        {
            let limit = rules.pin_idle_timeout.unwrap_or_default();
            return Err(self.end(&ClientError::PinIdle { limit }));
        }
        if kicks.has(Kick::TransactionIdle) {
            let limit = rules.transaction_idle_timeout.unwrap_or_default();
            return Err(self.end(&ClientError::TransactionIdle { limit }));
        }
        if kicks.has(Kick::Cut) {
            return Err(self.end(&ClientError::GoingDown));
        }
        if kicks.has(Kick::Killed) {
            return Err(self.end(&ClientError::Killed));
        }
        if kicks.has(Kick::Abandoned) {
            if self.abandoned {
                // It was cancelled long enough ago; the connection is closed.
                return Err(End::ClientLost);
            }
            self.abandoned = true;
            self.cancel(Vec::new());
        }
        let query_too_long = kicks.has(Kick::QueryTooLong).then_some(rules.query_timeout).flatten();
        let transaction_too_long = kicks.has(Kick::TransactionTooLong).then_some(rules.transaction_max).flatten();
        if let Some(limit) = transaction_too_long {
            self.too_long(ClientError::TransactionTooLong { limit })?;
        } else if let Some(limit) = query_too_long {
            self.too_long(ClientError::QueryTooLong { limit })?;
        }
        if kicks.has(Kick::Linger)
            && matches!(&self.holding, Holding::Lease(lease) if lease.connection.machine.status() == Status::Idle)
        {
            self.client.let_go_of_last_values();
        }
        if kicks.has(Kick::Cancel) {
            let askers = self.watch.handle.take_askers();
            self.cancel(askers);
        }
        if kicks.has(Kick::Drain) {
            self.draining = true;
            return match &self.holding {
                Holding::Lease(lease) if lease.connection.machine.status() != Status::Idle => Ok(()),
                Holding::Nothing if !self.tail.is_empty() => Ok(()),
                Holding::Waiting(_) => Ok(()),
                Holding::Lease(_) | Holding::Nothing => Err(self.end(&ClientError::GoingDown)),
            };
        }
        Ok(())
    }

    /// The client's transaction or query has gone on for too long: it is told to stop. If it is still there a while later,
    /// because nothing of it could be stopped or its client leaves it as it is, the session ends.
    fn too_long(&mut self, why: ClientError) -> Result<(), End> {
        let is_transaction = matches!(why, ClientError::TransactionTooLong { .. });
        let handle = &self.watch.handle;
        let number = if is_transaction { handle.transaction() } else { handle.query() };
        let overdue = if is_transaction { self.overdue.1 } else { self.overdue.0 };
        let now = Instant::now();
        match overdue.filter(|overdue| overdue.number == number) {
            None => {
                let is_counted = self.stop(&why);
                let overdue = Some(Overdue { number, until: until(now, OVERTIME), is_counted, is_rolled_back: false });
                if is_transaction {
                    self.overdue.1 = overdue;
                } else {
                    self.overdue.0 = overdue;
                }
                Ok(())
            }
            Some(Overdue { until, .. }) if now < until => Ok(()),
            Some(Overdue { until, .. }) if self.cancelling.is_some() && now < until + CANCELLING_MAX => Ok(()),
            Some(Overdue { is_counted, .. }) => self.give_up(&why, is_counted),
        }
    }

    /// Cancels what is under way and over its time, if that can be done; whether it was, and is counted.
    fn stop(&mut self, why: &ClientError) -> bool {
        let Holding::Lease(lease) = &mut self.holding else { return false };
        let machine = &mut lease.connection.machine;
        let is_under_way = machine.status() == Status::Owing && !machine.has_sent_nothing();
        if !is_under_way || self.cancelling.is_some() || machine.cancel(false).is_none() {
            return false;
        }
        tracing::info!(%why, "cancelled");
        self.tally.told(why);
        machine.explain_cancel(why.clone());
        self.cancel(Vec::new());
        true
    }

    /// Rolls a transaction back that was too long, once nothing of it is under way: at once if its client was idle; behind a
    /// statement that has ended before the cancel met it.
    fn roll_back_overdue(&mut self) -> bool {
        let Some(limit) = self.rules.transaction_max else { return false };
        let number = self.watch.handle.transaction();
        let (Some(overdue), None, Holding::Lease(lease)) = (&mut self.overdue.1, &self.cancelling, &mut self.holding)
        else {
            return false;
        };
        let why = ClientError::TransactionTooLong { limit };
        let ServerConn { machine, pending, .. } = &mut *lease.connection;
        if overdue.is_rolled_back || overdue.number != number || !machine.fail_transaction(why.clone(), pending) {
            return false;
        }
        overdue.is_rolled_back = true;
        tracing::info!(%why, "rolled back");
        if !std::mem::replace(&mut overdue.is_counted, true) {
            self.tally.told(&why);
        }
        // Of the transaction nothing is left, so that its client may have as long again to ask for something.
        overdue.until = until(Instant::now(), limit.max(OVERTIME));
        true
    }

    /// What should have stopped is still there.
    fn give_up(&mut self, why: &ClientError, is_counted: bool) -> Result<(), End> {
        let Holding::Lease(lease) = &self.holding else { return Ok(()) };
        if self.resetting {
            // The client has all its answers.
            self.lost_in_reset();
            return Ok(());
        }
        let machine = &lease.connection.machine;
        if machine.status() == Status::Owing && machine.has_sent_nothing() && self.client.pins().is_empty() {
            // The proxy's own words are not answered; the client's request stands behind them.
            self.drop_lease();
            if !self.tail.is_empty() {
                self.refuse(why);
            }
            return Ok(());
        }
        if !is_counted {
            self.tally.told(why);
        }
        let end = self.end_counted(why);
        if let Holding::Lease(lease) = std::mem::replace(&mut self.holding, Holding::Nothing) {
            lease.discard();
        }
        self.drop_lease();
        Err(end)
    }

    /// The client keeps its connection, where others give theirs back.
    fn is_pinned(&self) -> bool {
        self.rules.pool_mode == PoolMode::Transaction && !self.client.pins().is_empty()
    }

    /// What the worker's clock must know of a session that sleeps.
    fn note_phase(&mut self) {
        let phase = match &self.holding {
            Holding::Nothing => Phase::Idle,
            Holding::Waiting(_) => Phase::Waiting,
            Holding::Lease(lease) => match lease.connection.machine.status() {
                Status::InTransaction => Phase::InTransaction,
                // The next step is the client's: to send more, or to take what it was sent.
                Status::Owing if self.to_client.len() >= HIGH_WATER => Phase::InTransaction,
                Status::Owing if lease.connection.machine.awaits_client() && lease.connection.pending.is_empty() => {
                    Phase::InTransaction
                }
                Status::Owing if self.at_end => Phase::Abandoned,
                Status::Idle if self.client.is_kept_for_a_moment() => Phase::Lingering,
                Status::Idle if self.is_pinned() => Phase::Pinned,
                Status::Idle => Phase::Idle,
                Status::Owing | Status::Ended => Phase::Busy,
            },
        };
        self.watch.handle.set_phase(phase);
        match &self.holding {
            Holding::Nothing | Holding::Waiting(_) => {
                self.tally.holds_nothing();
                self.watch.handle.note_pinned(None);
            }
            Holding::Lease(lease) => self.tally.holds(&lease.connection.machine, self.client.counted_pins()),
        }
    }

    // ------------------------------------------------------------------------------------------ the end

    /// Last words to the client; meanwhile the connection, if there is one, is made clean and given back, or closed.
    async fn finish(self, end: End) -> Option<Again<P>> {
        // Whatever becomes of the connection now, it is not this client's any more.
        drop(self.tally);
        let pins = self.client.pins();
        let must_reset = self.pools.resets_always() || !pins.is_empty() || self.client.leaves().need_reset();
        let left = match pins.can_be_reset() {
            false => Left::Lasting,
            true if must_reset => Left::Resettable,
            true => Left::Nothing,
        };
        let Self { holding, cancelling, pools, mut client, mut stream, mut to_client, tail, cancel_key, .. } = self;
        // Whoever gets its connection may be pinned in its place.
        client.let_go();
        let giving_back = async move {
            let Holding::Lease(lease) = holding else { return };
            cancel::give_back(lease, cancelling, left, &pools).await;
        };
        if end == End::Again {
            giving_back.await;
            return Some(Again { client, stream, input: tail, out: to_client, cancel_key });
        }
        drop((client, cancel_key));
        let farewell = async move {
            if end != End::ClientLost {
                let words = async {
                    stream.write_whole(&mut to_client).await?;
                    poll_fn(|cx| stream.poll_shutdown(cx)).await
                };
                // A client that does not take them does not get them.
                let _ = tokio::time::timeout(FAREWELL, words).await;
            }
        };
        tokio::join!(giving_back, farewell);
        None
    }
}

/// When somebody's patience ends. The worker's next word comes as much later, or a little less: it took a while to hear this one.
fn until(now: Instant, patience: Duration) -> Instant {
    now + patience.saturating_sub(LOOK_INTERVAL)
}

#[cfg(test)]
mod tests;
