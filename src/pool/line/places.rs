//! Who may have one more connection: the budget, the users' shares and limits, and the logins under way.

use super::{Idle, Key, Line, Pool, User};
use std::time::{Duration, Instant};

/// An idle connection that is younger than this is probably wanted again by its own pool: who has a connection already
/// and is not entitled to more leaves it alone. Two logins cost about as much.
pub(super) const SETTLED: Duration = Duration::from_millis(50);
/// First and longest pause after a failed login at the target.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

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

impl<C, W> Line<C, W> {
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

    /// A login that should begin ahead of need, once [`next_opening`](Self::next_opening) wants none: for a pool below its
    /// floor, the poorest first. It takes no connection's place, and leaves half of the logins at a time to those who wait.
    pub fn next_ahead(&mut self, now: Instant) -> Option<Key> {
        if self.openings >= self.limits.openings.div_ceil(2) || self.open >= self.limits.connections {
            return None;
        }
        let wants = |pool: &Pool<C, W>| {
            let has_room = self.users.get(pool.user).is_some_and(|user| user.room() > 0);
            pool.open < pool.floor && pool.is_ready(now) && has_room
        };
        let wanting = self.pools.iter().enumerate().filter(|(_, pool)| wants(pool));
        let (pool, _) = wanting.min_by_key(|(_, pool)| pool.open)?;
        self.begin(pool);
        Some(Key(pool))
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
    pub(super) fn wanting(&self, user: usize, now: Instant) -> Option<(u64, usize)> {
        if self.openings >= self.limits.openings {
            return None;
        }
        let wants = |pool: &Pool<C, W>| pool.openings < pool.queue.len() && pool.is_ready(now);
        let mut fronts = self.users.get(user)?.fronts.iter().map(|(arrival, pool)| (*arrival, *pool));
        fronts.find(|(_, pool)| self.pools.get(*pool).is_some_and(wants))
    }

    /// Where this pool's next connection can come from.
    fn room(&self, pool: usize, share: usize, now: Instant) -> Option<Room> {
        let asks = self.pools.get(pool)?;
        // Over a limit there is nothing to trade: what comes back is closed until it holds again.
        if self.is_over(asks.user) {
            return None;
        }
        let has_room = self.users.get(asks.user)?.room() > 0;
        if has_room && self.open < self.limits.connections {
            return Some(Room::Free);
        }
        let is_below = self.is_below(asks.user, share);
        let may_take = |other: &Pool<C, W>, idle: &Idle<C>| {
            let is_own = other.user == asks.user;
            let entitled = if is_own {
                asks.open == 0
            } else {
                is_below || self.users.get(other.user).is_some_and(|user| user.open > share)
            };
            (is_own || has_room) && (entitled || now.saturating_duration_since(idle.since) >= SETTLED)
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
    pub(super) fn begin(&mut self, pool: usize) {
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

    /// A leased connection is gone.
    pub fn closed(&mut self, key: Key) {
        self.shrink(key.0);
    }

    /// Connections of a user, being opened ones included.
    #[cfg(test)]
    pub(in crate::pool) fn open_of(&self, user: &str) -> usize {
        self.users.iter().find(|known| known.pools > 0 && known.name == user).map_or(0, |user| user.open)
    }

    /// Connections a user may hold while others want some too.
    pub(super) fn share(&self) -> usize {
        (self.limits.connections / self.sharing.max(1)).max(1)
    }

    pub(super) fn is_below(&self, user: usize, share: usize) -> bool {
        self.users.get(user).is_some_and(|user| user.open < share && user.room() > 0)
    }

    /// There are more connections than there may be, of all users or of this one.
    pub(super) fn is_over(&self, user: usize) -> bool {
        self.open > self.limits.connections || self.users.get(user).is_some_and(User::is_over)
    }

    pub(super) fn grow(&mut self, pool: usize) {
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let Some(user) = self.users.get_mut(pool.user) else { return };
        self.sharing += usize::from(user.open == 0 && user.fronts.is_empty());
        self.open += 1;
        pool.open += 1;
        user.open += 1;
    }

    pub(super) fn shrink(&mut self, pool: usize) {
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let Some(user) = self.users.get_mut(pool.user) else { return };
        self.open -= 1;
        pool.open -= 1;
        user.open -= 1;
        self.sharing -= usize::from(user.open == 0 && user.fronts.is_empty());
    }
}

impl User {
    /// Connections that its own limit leaves.
    pub(super) fn room(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.open))
    }

    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.open > limit)
    }
}

impl<C, W> Pool<C, W> {
    /// It need not wait after a failure.
    fn is_ready(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|retry_at| retry_at <= now)
    }
}
