//! The budget of one target and the fair line in front of it. Pure policy: events and times in, verdicts out.
//!
//! All pools (keys) of a target share one budget: connections idle, leased and being opened never exceed it. Users take
//! turns, first come first served inside a user. A user below its share may take the place of another's connection as
//! it comes back; an idle connection of another pool is given up for a pool in need. Two things are worth more than
//! the order of arrival, within bounds: a waiter may be passed over by a later one of the worker that releases a
//! connection, at most [`PASSED_MAX`] times (it saves moving the connection's socket between workers), and by one of
//! another of its user's pools that came at most [`LEAD_MAX`] places later (it saves a login). Nothing here does I/O or
//! reads a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How often a waiter may be passed over in favour of one on the releasing worker.
pub const PASSED_MAX: u8 = 8;
/// How many places later one may have come that is served first, in another pool of the same user.
pub const LEAD_MAX: u64 = 8;
/// How far behind the first waiter one on the releasing worker is looked for.
const LOOK_BEHIND: usize = 16;
/// How many idle connections are looked at for one that has the client's settings already.
const LOOK_IDLE: usize = 64;
/// An idle connection that is younger than this is probably wanted again by its own pool: who has a connection already
/// and is not entitled to more leaves it alone. Two logins cost about as much.
const SETTLED: Duration = Duration::from_millis(50);
/// Idle connections over their limit are kept for so long: a busy pool's connections are all idle now and then.
const IDLE_GRACE: Duration = Duration::from_secs(10);
/// First and longest pause after a failed login at the target.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

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
    failures: u32,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    label: u64,
    worker: usize,
    since: Instant,
}

#[derive(Debug)]
struct User {
    name: String,
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
    deadline: Instant,
    passed: u8,
    handle: W,
}

/// A login at the target that should begin.
#[derive(Debug)]
pub struct Opening<C> {
    /// For this pool.
    pub key: Key,
    /// An idle connection of another pool that gives up its place: close it.
    pub evicted: Option<C>,
}

/// Where the place for one more connection comes from.
enum Room {
    Free,
    /// The connection of this pool that is idle for longest.
    Idle(usize),
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
            let user = User { name: user.to_owned(), pools: 0, open: 0, fronts: BTreeMap::new(), arrivals: 0 };
            put(&mut self.users, &mut self.free_users, user)
        });
        if let Some(user) = self.users.get_mut(user) {
            user.pools += 1;
        }
        let (idle, queue) = (Vec::new(), VecDeque::new());
        let pool = Pool { user, idle, queue, open: 0, openings: 0, failures: 0, retry_at: None };
        Key(put(&mut self.pools, &mut self.free_pools, pool))
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
        self.users.iter().find(|known| known.name == user).map_or(0, |user| user.pools)
    }

    /// New limits; what is over them is closed as it comes back or at the next sweep.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
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

    /// Takes an idle connection of the pool: one with the same settings first, then one of the same worker.
    pub fn take(&mut self, ask: Ask) -> Option<C> {
        let pool = self.pools.get_mut(ask.key.0)?;
        let looked_at = pool.idle.len().saturating_sub(LOOK_IDLE)..pool.idle.len();
        let best = looked_at
            .filter_map(|index| {
                let idle = pool.idle.get(index)?;
                Some((idle.label == ask.label, idle.worker == ask.worker, index))
            })
            .max()?;
        let taken = pool.idle.remove(best.2);
        self.idle -= 1;
        Some(taken.connection)
    }

    /// Stands a client in line. `Err` gives the handle back: the line is full. A deadline must not be earlier than
    /// those of the pool's other waiters.
    pub fn wait(&mut self, ask: Ask, deadline: Instant, handle: W) -> Result<u64, W> {
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
        pool.queue.push_back(Waiter { ticket, arrival, worker: ask.worker, deadline, passed: 0, handle });
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
    pub fn expire(&mut self, now: Instant) -> Vec<W> {
        let mut late = Vec::new();
        for pool in 0..self.pools.len() {
            let is_late = |waiter: &Waiter<W>| waiter.deadline <= now;
            while self.pools.get(pool).and_then(|pool| pool.queue.front()).is_some_and(is_late) {
                late.extend(self.unqueue(pool, 0));
            }
        }
        late
    }

    fn unqueue(&mut self, pool: usize, position: usize) -> Option<W> {
        let queue = &mut self.pools.get_mut(pool)?.queue;
        let waiter = queue.remove(position)?;
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

    // ------------------------------------------------------------------------------------------ logins

    /// The next login that should begin, if any: call until `None`. The place in the budget is taken.
    pub fn next_opening(&mut self, now: Instant) -> Option<Opening<C>> {
        if self.turns.is_empty() || self.openings >= self.limits.openings {
            return None;
        }
        let share = self.share();
        let (pool, room) = self.opening(share, true, now).or_else(|| self.opening(share, false, now))?;
        let evicted = match room {
            Room::Free => None,
            Room::Idle(of) => Some(self.evict(of)?),
        };
        self.begin(pool);
        Some(Opening { key: Key(pool), evicted })
    }

    /// What should be opened, among users below their share or among the others, in the order of turns.
    fn opening(&self, share: usize, below: bool, now: Instant) -> Option<(usize, Room)> {
        let users = self.turns.iter().filter(|user| self.is_below(**user, share) == below);
        users.into_iter().find_map(|user| {
            let (_, pool) = self.wanting(*user, now)?;
            Some((pool, self.room(pool, share, now)?))
        })
    }

    /// The user's pool whose first waiter came first, of those that want a login now.
    fn wanting(&self, user: usize, now: Instant) -> Option<(u64, usize)> {
        if self.openings >= self.limits.openings {
            return None;
        }
        let wants = |pool: &Pool<C, W>| pool.openings < pool.queue.len() && pool.is_ready(now);
        let mut fronts = self.users.get(user)?.fronts.iter().map(|(arrival, pool)| (*arrival, *pool));
        fronts.find(|(_, pool)| self.pools.get(*pool).is_some_and(wants))
    }

    fn room(&self, pool: usize, share: usize, now: Instant) -> Option<Room> {
        // Over the budget there is nothing to trade: what comes back is closed until it holds again.
        if self.open > self.limits.connections {
            return None;
        }
        if self.open < self.limits.connections {
            return Some(Room::Free);
        }
        let asks = self.pools.get(pool)?;
        let is_below = self.is_below(asks.user, share);
        let may_take = |other: &Pool<C, W>, idle: &Idle<C>| {
            let entitled = if other.user == asks.user {
                asks.open == 0
            } else {
                is_below || self.users.get(other.user).is_some_and(|user| user.open > share)
            };
            entitled || now.saturating_duration_since(idle.since) >= SETTLED
        };
        let oldest = self.pools.iter().enumerate().filter_map(|(index, other)| {
            let idle = other.idle.first().filter(|idle| may_take(other, idle))?;
            Some((idle.since, index))
        });
        Some(Room::Idle(oldest.min()?.1))
    }

    fn evict(&mut self, pool: usize) -> Option<C> {
        let idle = &mut self.pools.get_mut(pool)?.idle;
        let evicted = (!idle.is_empty()).then(|| idle.remove(0))?;
        self.idle -= 1;
        self.shrink(pool);
        Some(evicted.connection)
    }

    /// A login takes a place.
    fn begin(&mut self, pool: usize) {
        self.grow(pool);
        self.openings += 1;
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.openings += 1;
        }
    }

    /// A login succeeded: the connection counts as leased.
    pub fn opened(&mut self, key: Key) {
        self.openings -= 1;
        if let Some(pool) = self.pools.get_mut(key.0) {
            pool.openings -= 1;
            pool.failures = 0;
            pool.retry_at = None;
        }
    }

    /// A login failed. The next one waits for a growing pause (`jitter` in 0..1 spreads it). If the database
    /// `refused` and the pool has no other connection, nobody of it need wait longer: their handles come back.
    pub fn open_failed(&mut self, key: Key, refused: bool, now: Instant, jitter: f64) -> Vec<W> {
        self.openings -= 1;
        self.shrink(key.0);
        let Some(pool) = self.pools.get_mut(key.0) else { return Vec::new() };
        pool.openings -= 1;
        let pause = BACKOFF.0.saturating_mul(1 << pool.failures.min(10)).min(BACKOFF.1);
        pool.failures = pool.failures.saturating_add(1);
        pool.retry_at = Some(now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0));
        let mut told = Vec::new();
        if refused && pool.open == pool.openings {
            while let Some(handle) = self.unqueue(key.0, 0) {
                told.push(handle);
            }
        }
        told
    }

    // ------------------------------------------------------------------------------------------ connections

    /// A leased connection is gone.
    pub fn closed(&mut self, key: Key) {
        self.shrink(key.0);
    }

    /// A login succeeded, and its connection is clean. It was opened for its pool's waiters: nobody's turn comes before.
    pub fn arrive(&mut self, connection: C, at: Ask, now: Instant) -> Verdict<C, W> {
        self.opened(at.key);
        let is_wanted = self.pools.get(at.key.0).is_some_and(|pool| !pool.queue.is_empty());
        if is_wanted && self.open <= self.limits.connections {
            return self.hand(connection, at);
        }
        self.release(connection, at, now)
    }

    /// A leased connection comes back, clean.
    pub fn release(&mut self, connection: C, at: Ask, now: Instant) -> Verdict<C, W> {
        let Some(owner) = self.pools.get(at.key.0).map(|pool| pool.user) else { return Verdict::Close(connection) };
        if self.open > self.limits.connections {
            self.closed(at.key);
            return Verdict::Close(connection);
        }
        let share = self.share();
        // While there is room a login need not wait for a place.
        let is_full = self.open == self.limits.connections;
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
            let wanting = self.wanting(owner, now).filter(|_| is_full);
            let first = self.pools.get(at.key.0).and_then(|pool| pool.queue.front()).map(|waiter| waiter.arrival);
            return match (first, wanting) {
                (Some(first), Some((arrival, pool))) if arrival + LEAD_MAX < first => {
                    self.trade(connection, at.key, pool)
                }
                (Some(_), _) => self.hand(connection, at),
                // One that has connections gets one of those, or this one once it was idle for a while.
                (None, Some((_, pool))) if self.pools.get(pool).is_some_and(|pool| pool.open == 0) => {
                    self.trade(connection, at.key, pool)
                }
                (None, _) => continue,
            };
        }
        let Some(pool) = self.pools.get_mut(at.key.0) else { return Verdict::Close(connection) };
        pool.idle.push(Idle { connection, label: at.label, worker: at.worker, since: now });
        self.idle += 1;
        Verdict::Kept
    }

    fn trade(&mut self, connection: C, from: Key, to: usize) -> Verdict<C, W> {
        self.shrink(from.0);
        self.begin(to);
        Verdict::Trade(connection, Key(to))
    }

    /// To the pool's next waiter, whose user has had its turn then.
    fn hand(&mut self, connection: C, at: Ask) -> Verdict<C, W> {
        let Some(owner) = self.pools.get(at.key.0).map(|pool| pool.user) else { return Verdict::Close(connection) };
        let position = self.next_for(at);
        if let Some(turn) = self.turns.iter().position(|user| *user == owner) {
            self.turns.remove(turn);
            self.turns.push_back(owner);
        }
        match self.unqueue(at.key.0, position) {
            Some(handle) => Verdict::Hand(connection, handle),
            None => Verdict::Close(connection),
        }
    }

    /// Position of the pool's first waiter, or of one close behind it on the same worker.
    fn next_for(&mut self, at: Ask) -> usize {
        let Some(pool) = self.pools.get_mut(at.key.0) else { return 0 };
        let near = pool.queue.iter().take(LOOK_BEHIND).position(|waiter| waiter.worker == at.worker);
        match (near, pool.queue.front_mut()) {
            (Some(near @ 1..), Some(first)) if first.passed < PASSED_MAX => {
                first.passed += 1;
                near
            }
            _ => 0,
        }
    }

    /// Idle connections that are older than `timeout`, are judged old by `expired`, or are over the limits.
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
                let stale = timeout.is_some_and(|timeout| idle_for >= timeout);
                let over =
                    self.open > self.limits.connections || (self.idle > self.limits.idle && idle_for >= IDLE_GRACE);
                if stale || over || expired(&mut idle.connection) {
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

    // ------------------------------------------------------------------------------------------ counts

    /// Connections a user may hold while others want some too.
    fn share(&self) -> usize {
        (self.limits.connections / self.sharing.max(1)).max(1)
    }

    fn is_below(&self, user: usize, share: usize) -> bool {
        self.users.get(user).is_some_and(|user| user.open < share)
    }

    fn grow(&mut self, pool: usize) {
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let Some(user) = self.users.get_mut(pool.user) else { return };
        self.sharing += usize::from(user.open == 0 && user.fronts.is_empty());
        self.open += 1;
        pool.open += 1;
        user.open += 1;
    }

    fn shrink(&mut self, pool: usize) {
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let Some(user) = self.users.get_mut(pool.user) else { return };
        self.open -= 1;
        pool.open -= 1;
        user.open -= 1;
        self.sharing -= usize::from(user.open == 0 && user.fronts.is_empty());
    }
}

impl<C, W> Pool<C, W> {
    /// It need not wait after a failure.
    fn is_ready(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|retry_at| retry_at <= now)
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
