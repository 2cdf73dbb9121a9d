//! The budget of one target and the fair line in front of it. Pure policy: events and times in, verdicts out.
//!
//! All pools (keys) of a target share one budget: connections idle, leased and being opened never exceed it, nor do
//! those of a user exceed the user's own limit. Users take turns; inside a user the order is that of arrival, but for two
//! things: while a pool's first waiter has stood in line for less than [`LOCAL_FIRST`], one whose worker has the
//! connection already comes before it, which saves moving the connection; and a waiter may be passed over by one of
//! another pool that came at most [`LEAD_MAX`] places later, which saves a login. A user below its share may take the place
//! of another's connection as it comes back; an idle connection of another pool is given up for a pool in need. Nothing
//! here does I/O or reads a clock.

mod places;

pub use places::Opening;
use places::SETTLED;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How many places later one may have come that is served first, in another pool of the same user.
pub const LEAD_MAX: u64 = 8;
/// Who waits for less than this hardly waits: they count as having come together. See `docs/decisions/0004`.
pub const LOCAL_FIRST: Duration = Duration::from_millis(5);
/// How many waiters are looked at for one whose worker has the connection.
const LOOK_WAITING: usize = 64;
/// How many idle connections are looked at for one that has the client's settings already.
const LOOK_IDLE: usize = 64;
/// Idle connections over their limit are kept for so long: a busy pool's connections are all idle now and then.
const IDLE_GRACE: Duration = Duration::from_secs(10);

/// A pool of the target: its number in [`Line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(usize);

/// The limits of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all pools together.
    pub connections: usize,
    /// Of these, idle ones that are kept for longer than a moment.
    pub idle: usize,
    /// Clients that may wait.
    pub waiting: usize,
    /// Logins at the target at one time.
    pub openings: usize,
}

/// Who asks for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The pool.
    pub key: Key,
    /// Label of the client's settings.
    pub label: u64,
    /// The worker the client lives on.
    pub worker: usize,
    /// The client; of a connection that comes back: who may want it again.
    pub client: Option<u64>,
}

/// A waiter whose time is up.
#[derive(Debug)]
pub struct Late<W> {
    /// What wakes it.
    pub handle: W,
    /// The pool it waited for.
    pub key: Key,
    /// What held it: the limit of its user, if that is reached.
    pub user_limit: Option<usize>,
}

/// What happens to a connection that comes back.
#[derive(Debug)]
pub enum Verdict<C, W> {
    /// It goes to this waiter.
    Hand(C, W),
    /// It stays idle in the pool.
    Kept,
    /// It must be closed; its place in the budget is free already.
    Close(C),
    /// It must be closed; its place is that of a login that should begin now for this pool.
    Trade(C, Key),
}

/// Budget and waiting line of one target; `C` is a connection, `W` whatever wakes a waiter.
#[derive(Debug)]
pub struct Line<C, W> {
    limits: Limits,
    /// Connections of users that have a limit of their own.
    user_limits: BTreeMap<String, usize>,
    pools: Vec<Pool<C, W>>,
    users: Vec<User>,
    /// Numbers of pools that are gone; the next ones take them.
    free_pools: Vec<usize>,
    /// The same for users.
    free_users: Vec<usize>,
    /// Users with waiters, the next one first.
    turns: VecDeque<usize>,
    /// Connections that exist or are being opened.
    open: usize,
    openings: usize,
    idle: usize,
    waiting: usize,
    /// Users that have a connection, or wait for one.
    sharing: usize,
    next_ticket: u64,
}

#[derive(Debug)]
struct Pool<C, W> {
    user: usize,
    /// The one that is idle for longest first.
    idle: Vec<Idle<C>>,
    /// In the order in which they came. While somebody waits nothing is idle.
    queue: VecDeque<Waiter<W>>,
    /// Leased, idle and being opened.
    open: usize,
    openings: usize,
    /// Connections that are opened ahead of need, and are not closed for being unused.
    floor: usize,
    failures: u32,
    retry_at: Option<Instant>,
    /// When a connection of another of the user's pools first came back, and did not go to its first waiter.
    passed_since: Option<Instant>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    label: u64,
    worker: usize,
    client: Option<u64>,
    since: Instant,
}

#[derive(Debug)]
struct User {
    name: String,
    /// Connections it may have; `None`: all of the budget.
    limit: Option<usize>,
    /// How many pools it has.
    pools: usize,
    /// Of all its pools.
    open: usize,
    /// Its pools with waiters, by the arrival of the first of each.
    fronts: BTreeMap<u64, usize>,
    /// Waiters that ever came.
    arrivals: u64,
}

#[derive(Debug)]
struct Waiter<W> {
    ticket: u64,
    /// Its number among the user's waiters.
    arrival: u64,
    worker: usize,
    since: Instant,
    deadline: Instant,
    handle: W,
}

/// Figures for metrics and views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Connections that exist or are being opened.
    pub open: usize,
    /// Idle ones among them.
    pub idle: usize,
    /// Being opened.
    pub openings: usize,
    /// Clients waiting.
    pub waiting: usize,
}

impl Key {
    /// Pools are numbered in the order in which they were added, from 0.
    pub fn index(self) -> usize {
        self.0
    }
}

impl<C, W> Line<C, W> {
    /// An empty line.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            user_limits: BTreeMap::new(),
            pools: Vec::new(),
            users: Vec::new(),
            free_pools: Vec::new(),
            free_users: Vec::new(),
            turns: VecDeque::new(),
            open: 0,
            openings: 0,
            idle: 0,
            waiting: 0,
            sharing: 0,
            next_ticket: 0,
        }
    }

    /// Adds a pool for a user. The caller keeps the key: one per distinct pool.
    pub fn add_pool(&mut self, user: &str) -> Key {
        let known = self.users.iter().position(|known| known.pools > 0 && known.name == user);
        let user = known.unwrap_or_else(|| {
            let (name, limit) = (user.to_owned(), self.user_limits.get(user).copied());
            let user = User { name, limit, pools: 0, open: 0, fronts: BTreeMap::new(), arrivals: 0 };
            put(&mut self.users, &mut self.free_users, user)
        });
        if let Some(user) = self.users.get_mut(user) {
            user.pools += 1;
        }
        let (idle, queue) = (Vec::new(), VecDeque::new());
        let pool =
            Pool { user, idle, queue, open: 0, openings: 0, floor: 0, failures: 0, retry_at: None, passed_since: None };
        Key(put(&mut self.pools, &mut self.free_pools, pool))
    }

    /// How many connections the pool should have at any time: more are opened by [`next_ahead`](Self::next_ahead).
    pub fn set_floor(&mut self, key: Key, floor: usize) {
        if let Some(pool) = self.pools.get_mut(key.0) {
            pool.floor = floor;
        }
    }

    /// Removes a pool that has no connection and no waiter, which nobody may name again; false: it has some.
    pub fn remove_pool(&mut self, key: Key) -> bool {
        let pool = self.pools.get(key.0).filter(|pool| pool.open == 0 && pool.queue.is_empty());
        let Some(pool) = pool else { return false };
        if let Some(user) = self.users.get_mut(pool.user) {
            user.pools -= 1;
            if user.pools == 0 {
                self.free_users.push(pool.user);
            }
        }
        self.free_pools.push(key.0);
        true
    }

    /// How many pools a user has.
    pub fn pools_of(&self, user: &str) -> usize {
        self.users.iter().find(|known| known.pools > 0 && known.name == user).map_or(0, |user| user.pools)
    }

    /// New limits; what is over them is closed as it comes back or at the next sweep.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// New limits of users by name, in place of all that there were; what is over them is closed as above.
    pub fn set_user_limits(&mut self, limits: BTreeMap<String, usize>) {
        for user in &mut self.users {
            user.limit = limits.get(&user.name).copied();
        }
        self.user_limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How things stand.
    pub fn figures(&self) -> Figures {
        Figures { open: self.open, idle: self.idle, openings: self.openings, waiting: self.waiting }
    }

    // ------------------------------------------------------------------------------------------ clients

    /// Takes an idle connection of the pool: one that the client has left something on first, then one with the same
    /// settings, one that nobody else has left something on, one of the same worker.
    pub fn take(&mut self, ask: Ask) -> Option<C> {
        let pool = self.pools.get_mut(ask.key.0)?;
        let looked_at = pool.idle.len().saturating_sub(LOOK_IDLE)..pool.idle.len();
        let best = looked_at
            .filter_map(|index| {
                let idle = pool.idle.get(index)?;
                let is_own = idle.client.is_some() && idle.client == ask.client;
                let is_free = idle.client.is_none();
                Some((is_own, idle.label == ask.label, is_free, idle.worker == ask.worker, index))
            })
            .max()?;
        let taken = pool.idle.remove(best.4);
        self.idle -= 1;
        Some(taken.connection)
    }

    /// Stands a client in line, from now until its deadline. `Err` gives the handle back: the line is full. A deadline
    /// must not be earlier than those of the pool's other waiters.
    pub fn wait(&mut self, ask: Ask, (since, deadline): (Instant, Instant), handle: W) -> Result<u64, W> {
        if self.waiting >= self.limits.waiting {
            return Err(handle);
        }
        let Some(pool) = self.pools.get_mut(ask.key.0) else { return Err(handle) };
        let Some(user) = self.users.get_mut(pool.user) else { return Err(handle) };
        let (ticket, arrival) = (self.next_ticket, user.arrivals);
        self.next_ticket += 1;
        user.arrivals += 1;
        if user.fronts.is_empty() {
            self.turns.push_back(pool.user);
            self.sharing += usize::from(user.open == 0);
        }
        if pool.queue.is_empty() {
            user.fronts.insert(arrival, ask.key.0);
        }
        pool.queue.push_back(Waiter { ticket, arrival, worker: ask.worker, since, deadline, handle });
        self.waiting += 1;
        Ok(ticket)
    }

    /// A waiter goes away by itself; its handle, if it still stood in line.
    pub fn cancel(&mut self, key: Key, ticket: u64) -> Option<W> {
        let queue = &self.pools.get(key.0)?.queue;
        let position = queue.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        self.unqueue(key.0, position)
    }

    /// Waiters whose time is up.
    pub fn expire(&mut self, now: Instant) -> Vec<Late<W>> {
        let mut late = Vec::new();
        for number in 0..self.pools.len() {
            let is_late = |waiter: &Waiter<W>| waiter.deadline <= now;
            while let Some(pool) = self.pools.get(number)
                && pool.queue.front().is_some_and(is_late)
            {
                let user_limit = self.users.get(pool.user).filter(|user| user.room() == 0).and_then(|user| user.limit);
                let told = |handle| Late { handle, key: Key(number), user_limit };
                late.extend(self.unqueue(number, 0).map(told));
            }
        }
        late
    }

    fn unqueue(&mut self, pool: usize, position: usize) -> Option<W> {
        let Pool { queue, passed_since, .. } = self.pools.get_mut(pool)?;
        let waiter = queue.remove(position)?;
        if position == 0 {
            *passed_since = None;
        }
        let next = queue.front().map(|waiter| waiter.arrival);
        let owner = self.pools.get(pool)?.user;
        self.waiting -= 1;
        let user = self.users.get_mut(owner)?;
        if user.fronts.remove(&waiter.arrival).is_some()
            && let Some(next) = next
        {
            user.fronts.insert(next, pool);
        }
        if user.fronts.is_empty() {
            self.sharing -= usize::from(user.open == 0);
            self.turns.retain(|turn| *turn != owner);
        }
        Some(waiter.handle)
    }

    // ------------------------------------------------------------------------------------------ connections

    /// A login succeeded, and its connection is clean. It was opened for its pool's waiters: nobody's turn comes before.
    pub fn arrive(&mut self, connection: C, at: Ask, now: Instant) -> Verdict<C, W> {
        self.opened(at.key);
        let pool = self.pools.get(at.key.0);
        if pool.is_some_and(|pool| !pool.queue.is_empty() && !self.is_over(pool.user)) {
            return self.hand(connection, at, now);
        }
        self.release(connection, at, now)
    }

    /// A leased connection comes back, clean.
    pub fn release(&mut self, connection: C, at: Ask, now: Instant) -> Verdict<C, W> {
        let Some(owner) = self.pools.get(at.key.0).map(|pool| pool.user) else { return Verdict::Close(connection) };
        if self.is_over(owner) {
            self.closed(at.key);
            return Verdict::Close(connection);
        }
        let share = self.share();
        // While there is room a login need not wait for a place.
        let is_full = self.open == self.limits.connections;
        let is_bound = is_full || self.users.get(owner).is_some_and(|user| user.room() == 0);
        let mut passed = None;
        for user in &self.turns {
            if *user != owner {
                if is_full
                    && self.is_below(*user, share)
                    && let Some((_, pool)) = self.wanting(*user, now)
                {
                    return self.trade(connection, at.key, pool);
                }
                continue;
            }
            let wanting = self.wanting(owner, now).filter(|_| is_bound);
            let first = self.pools.get(at.key.0).and_then(|pool| pool.queue.front()).map(|waiter| waiter.arrival);
            return match (first, wanting) {
                (Some(first), Some((arrival, pool))) if arrival + LEAD_MAX < first => {
                    self.trade(connection, at.key, pool)
                }
                (Some(_), _) => self.hand(connection, at, now),
                // One that has connections gets one of those, or this one once it was idle for a while; but it is not
                // passed over for longer than that by a pool that is never idle.
                (None, Some((_, pool))) => {
                    let wants = self.pools.get(pool);
                    let since = wants.and_then(|pool| pool.passed_since);
                    let is_due = since.is_some_and(|since| now.saturating_duration_since(since) >= SETTLED);
                    if wants.is_some_and(|pool| pool.open == 0) || is_due {
                        self.trade(connection, at.key, pool)
                    } else {
                        passed = Some(pool);
                        continue;
                    }
                }
                (None, None) => continue,
            };
        }
        if let Some(passed) = passed.and_then(|pool| self.pools.get_mut(pool)) {
            passed.passed_since.get_or_insert(now);
        }
        let Some(pool) = self.pools.get_mut(at.key.0) else { return Verdict::Close(connection) };
        pool.idle.push(Idle { connection, label: at.label, worker: at.worker, client: at.client, since: now });
        self.idle += 1;
        Verdict::Kept
    }

    fn trade(&mut self, connection: C, from: Key, to: usize) -> Verdict<C, W> {
        self.shrink(from.0);
        self.begin(to);
        Verdict::Trade(connection, Key(to))
    }

    /// To the pool's next waiter, whose user has had its turn then.
    fn hand(&mut self, connection: C, at: Ask, now: Instant) -> Verdict<C, W> {
        let Some(pool) = self.pools.get(at.key.0) else { return Verdict::Close(connection) };
        let (owner, next) = (pool.user, pool.next(at.worker, now));
        if let Some(turn) = self.turns.iter().position(|user| *user == owner) {
            self.turns.remove(turn);
            self.turns.push_back(owner);
        }
        match self.unqueue(at.key.0, next) {
            Some(handle) => Verdict::Hand(connection, handle),
            None => Verdict::Close(connection),
        }
    }

    /// Idle connections that are older than `timeout`, are judged old by `expired`, or are over the limits. A pool's floor
    /// stands against all but its connections' age and the limits of what may be open.
    pub fn sweep(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        mut expired: impl FnMut(&mut C) -> bool,
    ) -> Vec<C> {
        let mut closed = Vec::new();
        for number in 0..self.pools.len() {
            let mut index = 0;
            while let Some(pool) = self.pools.get_mut(number)
                && let Some(idle) = pool.idle.get_mut(index)
            {
                let idle_for = now.saturating_duration_since(idle.since);
                let stale = timeout.is_some_and(|timeout| idle_for >= timeout)
                    || (self.idle > self.limits.idle && idle_for >= IDLE_GRACE);
                let over = self.open > self.limits.connections || self.users.get(pool.user).is_some_and(User::is_over);
                if (stale && pool.open > pool.floor) || over || expired(&mut idle.connection) {
                    closed.push(pool.idle.remove(index).connection);
                    self.idle -= 1;
                    self.shrink(number);
                } else {
                    index += 1;
                }
            }
        }
        closed
    }
}

impl<C, W> Pool<C, W> {
    /// Where in the queue the waiter stands who gets a connection that is on this worker.
    fn next(&self, worker: usize, now: Instant) -> usize {
        let hardly_waits = |first: &Waiter<W>| now.saturating_duration_since(first.since) < LOCAL_FIRST;
        if !self.queue.front().is_some_and(hardly_waits) {
            return 0;
        }
        self.queue.iter().take(LOOK_WAITING).position(|waiter| waiter.worker == worker).unwrap_or(0)
    }
}

/// Puts a thing at a number that is free, or at a new one.
fn put<T>(things: &mut Vec<T>, free: &mut Vec<usize>, thing: T) -> usize {
    if let Some(number) = free.pop()
        && let Some(place) = things.get_mut(number)
    {
        *place = thing;
        return number;
    }
    things.push(thing);
    things.len() - 1
}

#[cfg(test)]
mod tests;
