//! Server connections and their owners: who may have one, who waits, and when one is opened or closed.
//!
//! All policy is in [`mod@line`], which knows neither sockets nor time; this module holds its lock for a few lines at a
//! time, never over an await, and does what the line says. A connection belongs to the runtime of one worker; when
//! another worker takes it, its socket moves there. Logins at the database happen on the thread that runs
//! [`connect::run`], so that a client that goes away takes no half-made connection with it; and so do goodbyes, so that no
//! place is free before the database has let go of what had it.

pub mod connect;
mod dial;
mod lease;
pub mod line;
#[cfg(test)]
mod tests;

pub use dial::{Cancelled, Dial};
pub use lease::{Lease, Leaving, ServerConn};

use crate::config::{PoolConfig, ResetPolicy};
use crate::metrics::GroupMetrics;
use crate::protocol::{ClientError, PinBudget, Protocol};
use line::{Ask, Figures, Key, Late, Limits, Line, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Distinct pools of one user at one target that are in use; one more is refused.
const POOLS_MAX: usize = 1000;

/// Programs that are known to ask for last values; of one more each client must find out by itself.
const ASKING_MAX: usize = 1000;

/// What is fixed when a connection logs in: connections of different keys never serve each other's clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The client's user.
    pub user: String,
    /// The database's user that was the client's when it came in.
    pub account: String,
    /// The database.
    pub database: String,
    /// Startup-only parameters.
    pub fixed: Vec<(String, String)>,
}

/// All pools of one target.
pub struct Pools<P: Protocol> {
    group: String,
    dial: Dial,
    config: PoolConfig,
    /// The slot of the thread that runs [`connect::run`] and [`tick`](Self::tick).
    counts: Arc<GroupMetrics>,
    state: Mutex<State<P>>,
    /// Connections that clients may keep for themselves.
    pins: Arc<PinBudget>,
    /// Users and programs whose clients ask for last values, and how often one has come to them.
    asking: Mutex<BTreeSet<(String, String)>>,
    asking_version: AtomicU64,
    /// At most `max_logins_in_progress` logins are on their way at a time; what leaves keeps its place.
    orders: mpsc::UnboundedSender<Order<P>>,
}

/// What is to be done at the database.
pub enum Order<P: Protocol> {
    /// A login should begin.
    Open {
        /// For this pool.
        key: Key,
        /// What is fixed when it logs in.
        pool_key: Arc<PoolKey>,
        /// The connection whose place it takes. The database must have let go of it first.
        instead_of: Option<Box<ServerConn<P>>>,
    },
    /// A leased connection has been given up.
    Leave(Leaving<P>),
}

type Waiter<P> = oneshot::Sender<Result<Lease<P>, ClientError>>;

struct State<P: Protocol> {
    line: Line<Box<ServerConn<P>>, Waiter<P>>,
    keys: BTreeMap<Arc<PoolKey>, Key>,
    by_key: Vec<Slot>,
    /// The last attempt to reach the target failed.
    unreachable: bool,
    /// When the log was told that `init_query` fails on connections that are in use.
    init_told: Option<Instant>,
}

/// One pool, at its number.
struct Slot {
    key: Arc<PoolKey>,
    /// Clients that may name it.
    uses: usize,
}

/// A client's right to ask for connections of a pool: the pool's number is its own as long as anybody has one.
pub struct PoolUse<P: Protocol> {
    pools: Arc<Pools<P>>,
    pool_key: Arc<PoolKey>,
    key: Key,
}

/// What came of asking for a connection.
pub enum Borrow<P: Protocol> {
    /// Here it is.
    Now(Lease<P>),
    /// It will come.
    Later(Waiting<P>),
    /// It won't.
    Refused(ClientError),
}

/// A place in the line. Dropping it gives the place up, or the lease that has come and that nobody has looked at.
pub struct Waiting<P: Protocol> {
    /// Gives the lease, or why there is none.
    pub outcome: oneshot::Receiver<Result<Lease<P>, ClientError>>,
    pools: Arc<Pools<P>>,
    key: Key,
    ticket: u64,
    /// When the client stood in line.
    pub since: Instant,
}

impl<P: Protocol> Pools<P> {
    /// The pools of a target, with no budget yet; and the receiver for [`connect::run`].
    pub fn new(
        group: &str,
        dial: Dial,
        config: PoolConfig,
        counts: Arc<GroupMetrics>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Order<P>>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let limits =
            Limits { connections: 0, idle: 0, waiting: config.max_waiting, openings: config.max_logins_in_progress };
        let (line, keys, by_key) = (Line::new(limits), BTreeMap::new(), Vec::new());
        let state = State { line, keys, by_key, unreachable: false, init_told: None };
        let (asking, asking_version) = (Mutex::default(), AtomicU64::default());
        let state = Mutex::new(state);
        let pins = PinBudget::new(group, config.pin_max_percent);
        let group = group.to_owned();
        (Arc::new(Self { group, dial, config, counts, state, pins, asking, asking_version, orders }), receiver)
    }

    /// The target group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The way to the target.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Connections are reset between any two clients.
    pub fn resets_always(&self) -> bool {
        self.config.reset == ResetPolicy::Full
    }

    /// How many connections its clients may keep for themselves.
    pub fn pin_budget(&self) -> &Arc<PinBudget> {
        &self.pins
    }

    /// A client of this user and program asks for last values: so will others.
    pub fn note_asking(&self, user: &str, application: &str) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if asking.len() < ASKING_MAX && asking.insert((user.to_owned(), application.to_owned())) {
            self.asking_version.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many programs are known to ask: unchanged, there is no need to ask again.
    pub fn asking_version(&self) -> u64 {
        self.asking_version.load(Ordering::Relaxed)
    }

    /// Clients of this user and program ask for last values.
    pub fn is_asking(&self, user: &str, application: &str) -> bool {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.contains(&(user.to_owned(), application.to_owned()))
    }

    /// The pool of this key, made if need be.
    pub fn pool(self: &Arc<Self>, key: PoolKey) -> Result<PoolUse<P>, ClientError> {
        let mut state = self.lock();
        let known = state.keys.get(&key).copied();
        if known.is_none() && state.line.pools_of(&key.user) >= POOLS_MAX {
            return Err(ClientError::TooManyPools { user: key.user, limit: POOLS_MAX });
        }
        let number = known.unwrap_or_else(|| state.add_pool(key));
        let slot = state.by_key.get_mut(number.index()).ok_or(ClientError::Internal)?;
        slot.uses += 1;
        let pool_key = Arc::clone(&slot.key);
        state.line.set_floor(number, self.config.min_connections);
        Ok(PoolUse { pools: Arc::clone(self), pool_key, key: number })
    }

    /// How many connections the target grants now.
    pub fn set_budget(&self, connections: usize) {
        let idle = connections.saturating_mul(usize::from(self.config.max_idle_connections_percent)) / 100;
        self.pins.set_connections(connections);
        let mut state = self.lock();
        let limits = Limits { connections, idle: idle.max(1), ..state.line.limits() };
        if state.line.limits() != limits {
            state.line.set_limits(limits);
        }
        self.open_more(&mut state);
    }

    /// How many connections users may have, where they have limits of their own.
    pub fn set_user_limits(&self, limits: BTreeMap<String, usize>) {
        let mut state = self.lock();
        state.line.set_user_limits(limits);
        self.open_more(&mut state);
    }

    /// How things stand.
    pub fn figures(&self) -> Figures {
        self.lock().line.figures()
    }

    /// Asks for a connection. Call from the worker that will use it.
    pub fn borrow(self: &Arc<Self>, ask: Ask) -> Borrow<P> {
        let mut state = self.lock();
        while let Some(connection) = state.line.take(ask) {
            drop(state);
            if let Some(lease) = Lease::new(self, ask.key, connection).checked(ask.worker) {
                return Borrow::Now(lease);
            }
            state = self.lock();
        }
        let (waiter, outcome) = oneshot::channel();
        let now = Instant::now();
        match state.line.wait(ask, (now, now + self.config.connection_borrow_timeout), waiter) {
            Ok(ticket) => {
                self.open_more(&mut state);
                drop(state);
                Borrow::Later(Waiting { outcome, pools: Arc::clone(self), key: ask.key, ticket, since: now })
            }
            Err(_full) => {
                Borrow::Refused(ClientError::LineFull { group: self.group.clone(), limit: self.config.max_waiting })
            }
        }
    }

    /// A leased connection comes back, clean, or a login has ended well: it goes to who is next, or stays idle.
    fn put_back(self: &Arc<Self>, mut connection: Box<ServerConn<P>>, ask: Ask, now: Instant, mut is_new: bool) {
        loop {
            let mut state = self.lock();
            let verdict =
                if is_new { state.line.arrive(connection, ask, now) } else { state.line.release(connection, ask, now) };
            // Unless it was handed on, a place or an idle connection may be somebody else's now; a new one leaves its
            // place among the logins under way.
            if is_new || !matches!(verdict, Verdict::Hand(..)) {
                self.open_more(&mut state);
            }
            match verdict {
                Verdict::Kept => return,
                Verdict::Trade(connection, key) => return self.order(&state, key, Some(connection)),
                Verdict::Close(connection) => {
                    drop(state);
                    return connection.close();
                }
                Verdict::Hand(handed, waiter) => {
                    drop(state);
                    match waiter.send(Ok(Lease::new(self, ask.key, handed))) {
                        Ok(()) => return,
                        // That client has gone: the next one, then.
                        Err(Ok(lease)) => connection = lease.into_connection(),
                        Err(Err(_)) => return,
                    }
                }
            }
            is_new = false;
        }
    }

    /// A leased connection is gone.
    fn closed(&self, key: Key) {
        let mut state = self.lock();
        state.line.closed(key);
        self.open_more(&mut state);
    }

    /// Time passes: waiters are told that theirs is up, stale idle connections are closed, pauses after failures end,
    /// connections are opened ahead of need.
    /// Call a few times a second, on the thread of [`connect::run`].
    pub fn tick(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let late = state.line.expire(now);
        let late: Vec<_> = late.into_iter().map(|late| (state.user_held(&late), late.handle)).collect();
        let stale = state.line.sweep(now, self.config.connection_idle_timeout, |connection| connection.is_old(now));
        state.remove_unused();
        let figures = state.line.figures();
        // No budget: the target has not even told how many connections it takes.
        let has_budget = state.line.limits().connections > 0;
        let unreachable = figures.open == figures.openings && (state.unreachable || !has_budget);
        self.open_more(&mut state);
        while let Some(key) = state.line.next_ahead(now) {
            self.order(&state, key, None);
        }
        let (figures, allowed) = (state.line.figures(), state.line.limits().connections);
        drop(state);
        self.counts.database_connections_allowed.set(allowed as u64);
        let made = figures.open.saturating_sub(figures.openings) as u64;
        self.counts.database_connections_idle.set(figures.idle as u64);
        self.counts.database_connections_in_use.set(made.saturating_sub(figures.idle as u64));
        self.counts.clients_waiting.set(figures.waiting as u64);
        let opened = self.counts.database_connections_opened.value();
        self.counts.database_connections_closed.set(opened.saturating_sub(made));
        for connection in stale {
            connection.close();
        }
        for (held, waiter) in late {
            let (group, waited) = (self.group.clone(), self.config.connection_borrow_timeout);
            let error = match held {
                _ if unreachable => ClientError::NoWriter { group, waited },
                Some((user, limit)) => ClientError::UserBorrowTimeout { user, limit, group, waited },
                None => ClientError::BorrowTimeout { group, waited },
            };
            // One that has gone meanwhile need not be told.
            let _ = waiter.send(Err(error));
        }
    }

    /// Orders the logins that the line wants.
    fn open_more(&self, state: &mut State<P>) {
        if state.line.figures().waiting == 0 {
            return;
        }
        while let Some(opening) = state.line.next_opening(Instant::now()) {
            self.order(state, opening.key, opening.evicted);
        }
    }

    fn order(&self, state: &State<P>, key: Key, instead_of: Option<Box<ServerConn<P>>>) {
        if let Some(slot) = state.by_key.get(key.index()) {
            let pool_key = Arc::clone(&slot.key);
            // The receiver lives as long as the process serves; without it nobody is served any more.
            let _ = self.orders.send(Order::Open { key, pool_key, instead_of });
        }
    }

    /// Plays [`connect::run`]: this login has ended well.
    #[cfg(test)]
    pub(crate) fn fulfil(self: &Arc<Self>, order: Order<P>, connection: Box<ServerConn<P>>) {
        if let Order::Open { key, .. } = order {
            self.opened(key, connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl<P: Protocol> Order<P> {
    /// Plays [`connect::run`] for what leaves; a login is given back.
    pub(crate) async fn left(self) -> Option<Self> {
        match self {
            Self::Leave(leaving) => {
                leaving.end().await;
                None
            }
            Self::Open { .. } => Some(self),
        }
    }
}

impl<P: Protocol> State<P> {
    fn add_pool(&mut self, key: PoolKey) -> Key {
        let number = self.line.add_pool(&key.user);
        let key = Arc::new(key);
        let slot = Slot { key: Arc::clone(&key), uses: 0 };
        match self.by_key.get_mut(number.index()) {
            Some(place) => *place = slot,
            None => self.by_key.push(slot),
        }
        self.keys.insert(key, number);
        number
    }

    /// The user whose limit held this waiter, and that limit.
    fn user_held(&self, late: &Late<Waiter<P>>) -> Option<(String, usize)> {
        let slot = self.by_key.get(late.key.index())?;
        Some((slot.key.user.clone(), late.user_limit?))
    }

    /// Forgets the pools that nobody uses and that hold nothing.
    fn remove_unused(&mut self) {
        let (by_key, line) = (&self.by_key, &mut self.line);
        self.keys.retain(|_, number| {
            by_key.get(number.index()).is_none_or(|slot| slot.uses > 0) || !line.remove_pool(*number)
        });
    }
}

impl<P: Protocol> PoolUse<P> {
    /// The pool's number, as long as this lives.
    pub fn key(&self) -> Key {
        self.key
    }

    /// What the pool's connections have in common.
    pub fn pool_key(&self) -> &Arc<PoolKey> {
        &self.pool_key
    }
}

impl<P: Protocol> Drop for PoolUse<P> {
    fn drop(&mut self) {
        let mut state = self.pools.lock();
        let Some(slot) = state.by_key.get_mut(self.key.index()) else { return };
        slot.uses = slot.uses.saturating_sub(1);
        if slot.uses == 0 {
            state.line.set_floor(self.key, 0);
        }
    }
}

impl<P: Protocol> Drop for Waiting<P> {
    fn drop(&mut self) {
        self.pools.lock().line.cancel(self.key, self.ticket);
        // One that has been handed over already is as clean as it came. The lock is free by now: releasing takes it.
        self.outcome.close();
        if let Ok(Ok(lease)) = self.outcome.try_recv() {
            lease.release();
        }
    }
}
