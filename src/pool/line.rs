//! The budget of one target and the fair line in front of it. Pure policy: events and times in, verdicts out.
//!
//! All pools (keys) of a target share one budget: connections idle, leased and being opened never exceed it. Users
//! take turns, first come first served inside a user. A user below its share may take the budget of another's
//! connection as it comes back; an idle connection of another pool is given up at once for a pool in need. A waiter
//! may be passed over by later ones of the worker that releases a connection, at most [`PASSED_MAX`] times: it saves
//! moving the connection's socket between workers. Nothing here does I/O or reads a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a waiter may be passed over in favour of one on the releasing worker.
pub const PASSED_MAX: u8 = 8;
/// How far behind the first waiter one on the releasing worker is looked for.
const LOOK_BEHIND: usize = 16;
/// How many idle connections are looked at for one that has the client's settings already.
const LOOK_IDLE: usize = 64;
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
}

/// Budget and waiting line of one target; `C` is a connection, `W` whatever wakes a waiter.
#[derive(Debug)]
pub struct Line<C, W> {
    limits: Limits,
    pools: Vec<Pool<C>>,
    users: Vec<User<W>>,
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
    next_ticket: u64,
}

#[derive(Debug)]
struct Pool<C> {
    user: usize,
    idle: Vec<Idle<C>>,
    /// Leased, idle and being opened.
    open: usize,
    openings: usize,
    waiting: usize,
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
struct User<W> {
    name: String,
    /// Its pools.
    pools: usize,
    queue: VecDeque<Waiter<W>>,
}

#[derive(Debug)]
struct Waiter<W> {
    ticket: u64,
    ask: Ask,
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
            next_ticket: 0,
        }
    }

    /// Adds a pool for a user of the database. The caller keeps the key: one per distinct pool.
    pub fn add_pool(&mut self, user: &str) -> Key {
        let known = self.users.iter().position(|known| known.pools > 0 && known.name == user);
        let user = known.unwrap_or_else(|| {
            let user = User { name: user.to_owned(), pools: 0, queue: VecDeque::new() };
            put(&mut self.users, &mut self.free_users, user)
        });
        if let Some(user) = self.users.get_mut(user) {
            user.pools += 1;
        }
        let pool = Pool { user, idle: Vec::new(), open: 0, openings: 0, waiting: 0, failures: 0, retry_at: None };
        Key(put(&mut self.pools, &mut self.free_pools, pool))
    }

    /// Removes a pool that has no connection and no waiter, which nobody may name again; false: it has some.
    pub fn remove_pool(&mut self, key: Key) -> bool {
        let Some(pool) = self.pools.get(key.0).filter(|pool| pool.open == 0 && pool.waiting == 0) else { return false };
        if let Some(user) = self.users.get_mut(pool.user) {
            user.pools -= 1;
            if user.pools == 0 {
                self.free_users.push(pool.user);
            }
        }
        self.free_pools.push(key.0);
        true
    }

    /// How many pools a user of the database has.
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

    /// Stands a client in line. `Err` gives the handle back: the line is full.
    pub fn wait(&mut self, ask: Ask, deadline: Instant, handle: W) -> Result<u64, W> {
        if self.waiting >= self.limits.waiting {
            return Err(handle);
        }
        let Some(pool) = self.pools.get_mut(ask.key.0) else { return Err(handle) };
        let Some(user) = self.users.get_mut(pool.user) else { return Err(handle) };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if user.queue.is_empty() {
            self.turns.push_back(pool.user);
        }
        user.queue.push_back(Waiter { ticket, ask, deadline, passed: 0, handle });
        pool.waiting += 1;
        self.waiting += 1;
        Ok(ticket)
    }

    /// A waiter goes away by itself; its handle, if it still stood in line.
    pub fn cancel(&mut self, key: Key, ticket: u64) -> Option<W> {
        let user = self.pools.get(key.0)?.user;
        let position = self.users.get(user)?.queue.iter().position(|waiter| waiter.ticket == ticket)?;
        self.remove(user, position)
    }

    /// Waiters whose time is up.
    pub fn expire(&mut self, now: Instant) -> Vec<W> {
        self.drain(|waiter| waiter.deadline <= now)
    }

    /// The next login that should begin, if any: call until `None`. The place in the budget is taken.
    pub fn next_opening(&mut self, now: Instant) -> Option<Opening<C>> {
        if self.openings >= self.limits.openings {
            return None;
        }
        if self.turns.is_empty() {
            return None;
        }
        let share = self.share();
        let mut wanting = self.turns.iter().filter_map(|user| {
            let waiters = self.users.get(*user)?.queue.iter();
            waiters.map(|waiter| waiter.ask.key).find(|key| self.wants_opening(*key, now))
        });
        // A place that was given up for a pool below its share is that pool's.
        let below = |key: &Key| self.pools.get(key.0).is_some_and(|pool| pool.open < share);
        let key = wanting.clone().find(below).or_else(|| wanting.next())?;
        let evicted = if self.open < self.limits.connections {
            None
        } else {
            // Over the budget there is nothing to trade: what comes back is closed until it holds again.
            if self.open > self.limits.connections {
                return None;
            }
            Some(self.oldest_idle_of_others(key)?)
        };
        let pool = self.pools.get_mut(key.0)?;
        pool.open += 1;
        pool.openings += 1;
        self.open += 1;
        self.openings += 1;
        Some(Opening { key, evicted })
    }

    fn wants_opening(&self, key: Key, now: Instant) -> bool {
        self.pools
            .get(key.0)
            .is_some_and(|pool| pool.openings < pool.waiting && pool.retry_at.is_none_or(|retry_at| retry_at <= now))
    }

    fn oldest_idle_of_others(&mut self, key: Key) -> Option<C> {
        let (index, _) = self
            .pools
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != key.0)
            .filter_map(|(index, pool)| Some((index, pool.idle.first()?.since)))
            .min_by_key(|(_, since)| *since)?;
        let pool = self.pools.get_mut(index)?;
        let evicted = pool.idle.remove(0);
        pool.open -= 1;
        self.idle -= 1;
        self.open -= 1;
        Some(evicted.connection)
    }

    /// A login succeeded: the connection counts as leased; [`release`](Self::release) it next.
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
        self.open -= 1;
        if let Some(pool) = self.pools.get_mut(key.0) {
            pool.openings -= 1;
            pool.open -= 1;
            let pause = BACKOFF.0.saturating_mul(1 << pool.failures.min(10)).min(BACKOFF.1);
            pool.failures = pool.failures.saturating_add(1);
            pool.retry_at = Some(now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0));
        }
        let is_last = self.pools.get(key.0).is_none_or(|pool| pool.open == pool.openings);
        if refused && is_last { self.drain(|waiter| waiter.ask.key == key) } else { Vec::new() }
    }

    /// A leased connection is gone.
    pub fn closed(&mut self, key: Key) {
        self.open -= 1;
        if let Some(pool) = self.pools.get_mut(key.0) {
            pool.open -= 1;
        }
    }

    /// A leased connection comes back, clean.
    pub fn release(&mut self, connection: C, at: Ask, now: Instant) -> Verdict<C, W> {
        if self.open > self.limits.connections {
            self.closed(at.key);
            return Verdict::Close(connection);
        }
        let share = if self.turns.is_empty() { 0 } else { self.share() };
        let mut turn = 0;
        while let Some(user) = self.turns.get(turn).copied() {
            let deserving = self.deserving(user, share, now);
            if let Some(position) = self.first_for(user, at) {
                if let Some(deserving) = deserving
                    && deserving < position
                    && self.passed_too_often(user, deserving)
                {
                    self.closed(at.key);
                    return Verdict::Close(connection);
                }
                self.turns.remove(turn);
                self.turns.push_back(user);
                return match self.remove(user, position) {
                    Some(handle) => Verdict::Hand(connection, handle),
                    None => Verdict::Close(connection),
                };
            }
            if deserving.is_some() {
                self.closed(at.key);
                return Verdict::Close(connection);
            }
            turn += 1;
        }
        let Some(pool) = self.pools.get_mut(at.key.0) else { return Verdict::Close(connection) };
        pool.idle.push(Idle { connection, label: at.label, worker: at.worker, since: now });
        self.idle += 1;
        Verdict::Kept
    }

    /// Connections a pool may hold while others want some too.
    fn share(&self) -> usize {
        let wanting = self.pools.iter().filter(|pool| pool.open > 0 || pool.waiting > 0).count();
        (self.limits.connections / wanting.max(1)).max(1)
    }

    /// Position of the user's first waiter for a pool that is below its share and is not being served by an opening
    /// already.
    fn deserving(&self, user: usize, share: usize, now: Instant) -> Option<usize> {
        if self.openings >= self.limits.openings {
            return None;
        }
        self.users.get(user)?.queue.iter().take(LOOK_BEHIND).position(|waiter| {
            self.wants_opening(waiter.ask.key, now)
                && self.pools.get(waiter.ask.key.0).is_some_and(|pool| pool.open < share)
        })
    }

    /// Passes over a waiter once more, unless that has been done often enough: a new login costs more than the wait.
    fn passed_too_often(&mut self, user: usize, position: usize) -> bool {
        let waiter = self.users.get_mut(user).and_then(|user| user.queue.get_mut(position));
        waiter.is_some_and(|waiter| {
            waiter.passed = waiter.passed.saturating_add(1);
            waiter.passed > PASSED_MAX
        })
    }

    /// The user's first waiter for this pool, or one close behind it on the same worker.
    fn first_for(&mut self, user: usize, at: Ask) -> Option<usize> {
        let queue = &mut self.users.get_mut(user)?.queue;
        let first = queue.iter().position(|waiter| waiter.ask.key == at.key)?;
        let head = queue.get(first)?;
        if head.ask.worker == at.worker || head.passed >= PASSED_MAX {
            return Some(first);
        }
        let near = queue
            .iter()
            .enumerate()
            .skip(first)
            .take(LOOK_BEHIND)
            .find(|(_, waiter)| waiter.ask.key == at.key && waiter.ask.worker == at.worker)
            .map(|(position, _)| position);
        if let (Some(near), Some(head)) = (near, queue.get_mut(first)) {
            head.passed += 1;
            return Some(near);
        }
        Some(first)
    }

    /// Idle connections that are older than `timeout`, are judged old by `expired`, or are over the limits.
    pub fn sweep(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        mut expired: impl FnMut(&mut C) -> bool,
    ) -> Vec<C> {
        let mut closed = Vec::new();
        for pool in &mut self.pools {
            let mut index = 0;
            while let Some(idle) = pool.idle.get_mut(index) {
                let idle_for = now.saturating_duration_since(idle.since);
                let stale = timeout.is_some_and(|timeout| idle_for >= timeout);
                let over =
                    self.open > self.limits.connections || (self.idle > self.limits.idle && idle_for >= IDLE_GRACE);
                if stale || over || expired(&mut idle.connection) {
                    closed.push(pool.idle.remove(index).connection);
                    pool.open -= 1;
                    self.open -= 1;
                    self.idle -= 1;
                } else {
                    index += 1;
                }
            }
        }
        closed
    }

    fn drain(&mut self, mut which: impl FnMut(&Waiter<W>) -> bool) -> Vec<W> {
        let mut drained = Vec::new();
        for user in 0..self.users.len() {
            let mut position = 0;
            while let Some(waiter) = self.users.get(user).and_then(|user| user.queue.get(position)) {
                if which(waiter) {
                    drained.extend(self.remove(user, position));
                } else {
                    position += 1;
                }
            }
        }
        drained
    }

    fn remove(&mut self, user: usize, position: usize) -> Option<W> {
        let queue = &mut self.users.get_mut(user)?.queue;
        let waiter = queue.remove(position)?;
        if queue.is_empty() {
            self.turns.retain(|turn| *turn != user);
        }
        self.waiting -= 1;
        if let Some(pool) = self.pools.get_mut(waiter.ask.key.0) {
            pool.waiting -= 1;
        }
        Some(waiter.handle)
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
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::wildcard_enum_match_arm)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { connections: 2, idle: 2, waiting: 100, openings: 8 };

    struct Fixture {
        line: Line<u32, u32>,
        now: Instant,
        made: u32,
    }

    impl Fixture {
        fn new(limits: Limits) -> Self {
            Self { line: Line::new(limits), now: Instant::now(), made: 0 }
        }
        fn ask(key: Key, worker: usize) -> Ask {
            Ask { key, label: 0, worker }
        }
        fn wait(&mut self, ask: Ask, handle: u32) -> u64 {
            self.line.wait(ask, self.now + Duration::from_secs(1), handle).unwrap()
        }
        /// Opens what the line wants opened; who got what.
        fn open_all(&mut self) -> Vec<u32> {
            let mut served = Vec::new();
            while let Some(opening) = self.line.next_opening(self.now) {
                self.line.opened(opening.key);
                self.made += 1;
                match self.line.release(self.made, Self::ask(opening.key, 0), self.now) {
                    Verdict::Hand(_, waiter) => served.push(waiter),
                    other => panic!("{other:?}"),
                }
            }
            served
        }
    }

    #[test]
    fn first_come_first_served_within_the_budget() {
        let mut f = Fixture::new(LIMITS);
        let key = f.line.add_pool("app");
        for handle in 0..5 {
            f.wait(Fixture::ask(key, 0), handle);
        }
        assert_eq!(f.open_all(), [0, 1]);
        for expected in 2..5 {
            match f.line.release(1, Fixture::ask(key, 0), f.now) {
                Verdict::Hand(1, waiter) => assert_eq!(waiter, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(f.line.release(1, Fixture::ask(key, 0), f.now), Verdict::Kept));
        assert_eq!(f.line.take(Fixture::ask(key, 0)), Some(1));
    }

    #[test]
    fn a_full_line_refuses_at_once() {
        let mut f = Fixture::new(Limits { waiting: 1, ..LIMITS });
        let key = f.line.add_pool("app");
        f.wait(Fixture::ask(key, 0), 1);
        assert_eq!(f.line.wait(Fixture::ask(key, 0), f.now, 2), Err(2));
    }

    #[test]
    fn a_crowd_of_one_user_does_not_hold_up_another() {
        let mut f = Fixture::new(Limits { connections: 10, idle: 10, waiting: 2000, openings: 8 });
        let (crowd, few) = (f.line.add_pool("crowd"), f.line.add_pool("few"));
        for handle in 0..1000 {
            f.wait(Fixture::ask(crowd, 0), handle);
        }
        let mut served: Vec<(Key, u32)> = f.open_all().into_iter().map(|handle| (crowd, handle)).collect();
        assert_eq!(served.len(), 10);
        for handle in 5000..5010 {
            f.wait(Fixture::ask(few, 0), handle);
        }
        let mut leased: VecDeque<(Key, u32)> = (1..=10).map(|connection| (crowd, connection)).collect();
        let mut hand_outs = 0;
        let mut few_served = 0;
        while few_served < 10 {
            let (key, connection) = leased.pop_front().unwrap();
            match f.line.release(connection, Fixture::ask(key, 0), f.now) {
                Verdict::Hand(connection, waiter) => {
                    hand_outs += 1;
                    few_served += usize::from(waiter >= 5000);
                    served.push((key, waiter));
                    leased.push_back((key, connection));
                }
                Verdict::Close(_) => {
                    let before = f.made;
                    for waiter in f.open_all() {
                        hand_outs += 1;
                        few_served += usize::from(waiter >= 5000);
                        let key = if waiter >= 5000 { few } else { crowd };
                        served.push((key, waiter));
                        leased.push_back((key, f.made));
                    }
                    assert!(f.made > before, "a place was given up for nothing");
                }
                Verdict::Kept => panic!("idle while a thousand wait"),
            }
        }
        assert!(hand_outs <= 30, "{hand_outs}");
        for key in [crowd, few] {
            let order: Vec<u32> = served.iter().filter(|(of, _)| *of == key).map(|(_, waiter)| *waiter).collect();
            assert!(order.is_sorted(), "{order:?}");
        }
    }

    #[test]
    fn an_idle_connection_of_another_pool_is_given_up() {
        let mut f = Fixture::new(Limits { connections: 1, idle: 1, waiting: 9, openings: 8 });
        let (a, b) = (f.line.add_pool("a"), f.line.add_pool("b"));
        f.wait(Fixture::ask(a, 0), 1);
        assert_eq!(f.open_all(), [1]);
        assert!(matches!(f.line.release(7, Fixture::ask(a, 0), f.now), Verdict::Kept));
        f.wait(Fixture::ask(b, 0), 2);
        let opening = f.line.next_opening(f.now).unwrap();
        assert_eq!((opening.key, opening.evicted), (b, Some(7)));
        assert_eq!(f.line.figures().open, 1);
    }

    #[test]
    fn settings_are_preferred_to_worker_and_worker_to_age() {
        let mut f = Fixture::new(Limits { connections: 9, idle: 9, waiting: 9, openings: 9 });
        let key = f.line.add_pool("app");
        for (connection, label, worker) in [(1, 5, 1), (2, 6, 0), (3, 5, 0), (4, 5, 1)] {
            f.line.open += 1;
            f.line.pools[key.0].open += 1;
            let kept = f.line.release(connection, Ask { key, label, worker }, f.now);
            assert!(matches!(kept, Verdict::Kept));
        }
        let ask = Ask { key, label: 5, worker: 0 };
        assert_eq!([f.line.take(ask), f.line.take(ask), f.line.take(ask), f.line.take(ask)], [3, 4, 1, 2].map(Some));
    }

    #[test]
    fn passing_over_for_the_same_worker_is_bounded() {
        let mut f = Fixture::new(Limits { connections: 1, idle: 1, waiting: 99, openings: 8 });
        let key = f.line.add_pool("app");
        f.wait(Fixture::ask(key, 0), 0);
        assert_eq!(f.open_all(), [0]);
        f.wait(Fixture::ask(key, 1), 100);
        let mut passed = 0;
        for handle in 1..50 {
            f.wait(Fixture::ask(key, 0), handle);
            match f.line.release(1, Fixture::ask(key, 0), f.now) {
                Verdict::Hand(_, 100) => break,
                Verdict::Hand(..) => passed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(passed, PASSED_MAX);
    }

    #[test]
    fn a_users_other_pool_is_not_starved() {
        let mut f = Fixture::new(LIMITS);
        let (busy, other) = (f.line.add_pool("app"), f.line.add_pool("app"));
        f.wait(Fixture::ask(busy, 0), 0);
        f.wait(Fixture::ask(busy, 0), 1);
        assert_eq!(f.open_all(), [0, 1]);
        f.wait(Fixture::ask(other, 0), 100);
        let mut passed = 0;
        loop {
            f.wait(Fixture::ask(busy, 0), 2);
            match f.line.release(1, Fixture::ask(busy, 0), f.now) {
                Verdict::Hand(..) => passed += 1,
                Verdict::Close(_) => break,
                Verdict::Kept => panic!("someone waits"),
            }
        }
        assert_eq!(passed, PASSED_MAX);
        assert_eq!(f.open_all(), [100]);
    }

    #[test]
    fn a_place_goes_to_the_pool_it_was_given_up_for() {
        let mut f = Fixture::new(LIMITS);
        let (greedy, poor) = (f.line.add_pool("greedy"), f.line.add_pool("poor"));
        for handle in 0..4 {
            f.wait(Fixture::ask(greedy, 0), handle);
        }
        assert_eq!(f.open_all(), [0, 1]);
        f.wait(Fixture::ask(poor, 0), 100);
        // The greedy user is first in turn, and above its share.
        assert!(matches!(f.line.release(1, Fixture::ask(greedy, 0), f.now), Verdict::Hand(_, 2)));
        assert!(matches!(f.line.release(1, Fixture::ask(greedy, 0), f.now), Verdict::Close(_)));
        assert_eq!(f.open_all(), [100]);
    }

    #[test]
    fn an_unused_pools_number_is_used_again() {
        let mut f = Fixture::new(LIMITS);
        let (one, other) = (f.line.add_pool("app"), f.line.add_pool("app"));
        let ticket = f.wait(Fixture::ask(one, 0), 0);
        assert!(!f.line.remove_pool(one) && f.line.remove_pool(other));
        f.line.cancel(one, ticket);
        assert_eq!(f.line.pools_of("app"), 1);
        assert!(f.line.remove_pool(one));
        assert_eq!(f.line.pools_of("app"), 0);
        assert_eq!(f.line.add_pool("reporter"), one);
        assert_eq!((f.line.pools_of("app"), f.line.pools_of("reporter"), f.line.users.len()), (0, 1, 1));
    }

    #[test]
    fn a_refused_login_leaves_waiters_to_the_connections_there_are() {
        let mut f = Fixture::new(LIMITS);
        let key = f.line.add_pool("app");
        f.wait(Fixture::ask(key, 0), 0);
        assert_eq!(f.open_all(), [0]);
        f.wait(Fixture::ask(key, 0), 1);
        assert!(f.line.next_opening(f.now).is_some());
        assert!(f.line.open_failed(key, true, f.now, 1.0).is_empty());
        assert!(matches!(f.line.release(1, Fixture::ask(key, 0), f.now), Verdict::Hand(_, 1)));
    }

    #[test]
    fn a_refused_login_frees_its_waiters_and_backs_off() {
        let mut f = Fixture::new(LIMITS);
        let key = f.line.add_pool("app");
        f.wait(Fixture::ask(key, 0), 1);
        f.wait(Fixture::ask(key, 0), 2);
        assert!(f.line.next_opening(f.now).is_some());
        assert_eq!(f.line.open_failed(key, true, f.now, 1.0), [1, 2]);
        f.wait(Fixture::ask(key, 0), 3);
        assert!(f.line.next_opening(f.now).is_none());
        assert!(f.line.next_opening(f.now + BACKOFF.0).is_some());
        assert!(f.line.open_failed(key, false, f.now, 1.0).is_empty());
        assert!(f.line.next_opening(f.now + BACKOFF.0).is_none());
        assert_eq!(f.line.expire(f.now + Duration::from_secs(1)), [3]);
        assert_eq!(f.line.figures(), Figures::default());
    }

    #[derive(Debug, Clone)]
    enum Event {
        Arrive { key: usize, worker: usize },
        Open { fails: bool, refused: bool },
        Release { which: usize },
        Lose { which: usize },
        Cancel { which: usize },
        Limit { connections: usize },
        Sweep,
        Later { ms: u64 },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (0..3usize, 0..2usize).prop_map(|(key, worker)| Event::Arrive { key, worker }),
            3 => (proptest::bool::weighted(0.2), any::<bool>()).prop_map(|(fails, refused)| Event::Open { fails, refused }),
            4 => any::<usize>().prop_map(|which| Event::Release { which }),
            1 => any::<usize>().prop_map(|which| Event::Lose { which }),
            1 => any::<usize>().prop_map(|which| Event::Cancel { which }),
            1 => (1..5usize).prop_map(|connections| Event::Limit { connections }),
            1 => Just(Event::Sweep),
            1 => (0..2000u64).prop_map(|ms| Event::Later { ms }),
        ];
        proptest::collection::vec(event, 0..200)
    }

    proptest! {
        /// Whatever happens: the counts agree with what is really leased, idle and being opened; nothing is opened
        /// beyond the budget; no waiter is lost or served twice.
        #[test]
        fn counts_agree_with_the_world(events in events()) {
            let mut f = Fixture::new(LIMITS);
            let keys = [f.line.add_pool("a"), f.line.add_pool("b"), f.line.add_pool("b")];
            let mut leased: Vec<(Key, u32)> = Vec::new();
            let mut openings: Vec<Key> = Vec::new();
            let mut in_line: Vec<(Key, u64, u32)> = Vec::new();
            let mut next = 0u32;
            let gone = |in_line: &mut Vec<(Key, u64, u32)>, handle: u32| {
                let at = in_line.iter().position(|(_, _, other)| *other == handle).expect("a waiter served twice");
                in_line.remove(at)
            };
            for event in events {
                match event {
                    Event::Arrive { key, worker } => {
                        let ask = Fixture::ask(keys[key], worker);
                        if let Some(connection) = f.line.take(ask) {
                            leased.push((ask.key, connection));
                        } else {
                            let ticket = f.wait(ask, next);
                            in_line.push((ask.key, ticket, next));
                        }
                        next += 1;
                        while let Some(opening) = f.line.next_opening(f.now) {
                            openings.push(opening.key);
                            prop_assert!(f.line.figures().open <= f.line.limits().connections);
                        }
                    }
                    Event::Open { fails, refused } => if let Some(key) = openings.pop() {
                        if fails {
                            for handle in f.line.open_failed(key, refused, f.now, 0.5) {
                                gone(&mut in_line, handle);
                            }
                        } else {
                            f.line.opened(key);
                            f.made += 1;
                            match f.line.release(f.made, Fixture::ask(key, 0), f.now) {
                                Verdict::Hand(connection, handle) => {
                                    let (of, _, _) = gone(&mut in_line, handle);
                                    prop_assert_eq!(of, key);
                                    leased.push((key, connection));
                                }
                                Verdict::Kept | Verdict::Close(_) => {}
                            }
                        }
                    },
                    Event::Release { which } if !leased.is_empty() => {
                        let (key, connection) = leased.remove(which % leased.len());
                        match f.line.release(connection, Fixture::ask(key, which % 2), f.now) {
                            Verdict::Hand(connection, handle) => {
                                let (of, _, _) = gone(&mut in_line, handle);
                                prop_assert_eq!(of, key);
                                leased.push((key, connection));
                            }
                            Verdict::Kept | Verdict::Close(_) => {}
                        }
                    }
                    Event::Lose { which } if !leased.is_empty() => {
                        let (key, _) = leased.remove(which % leased.len());
                        f.line.closed(key);
                    }
                    Event::Cancel { which } if !in_line.is_empty() => {
                        let (key, ticket, handle) = in_line.remove(which % in_line.len());
                        prop_assert_eq!(f.line.cancel(key, ticket), Some(handle));
                        prop_assert_eq!(f.line.cancel(key, ticket), None);
                    }
                    Event::Limit { connections } => f.line.set_limits(Limits { connections, ..LIMITS }),
                    Event::Sweep => { f.line.sweep(f.now, Some(Duration::from_secs(1)), |_| false); }
                    Event::Later { ms } => {
                        f.now += Duration::from_millis(ms);
                        for handle in f.line.expire(f.now) {
                            gone(&mut in_line, handle);
                        }
                    }
                    _ => {}
                }
                let figures = f.line.figures();
                prop_assert_eq!(figures.open, leased.len() + openings.len() + figures.idle);
                prop_assert_eq!(figures.openings, openings.len());
                prop_assert_eq!(figures.waiting, in_line.len());
                prop_assert_eq!(f.line.pools.iter().map(|pool| pool.open).sum::<usize>(), figures.open);
                prop_assert_eq!(f.line.pools.iter().map(|pool| pool.idle.len()).sum::<usize>(), figures.idle);
                let turns: Vec<usize> = f.line.turns.iter().copied().collect();
                for (index, user) in f.line.users.iter().enumerate() {
                    prop_assert_eq!(turns.iter().filter(|turn| **turn == index).count(), usize::from(!user.queue.is_empty()));
                }
            }
        }
    }
}
