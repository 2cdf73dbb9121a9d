//! So many logins a second, and as many at once behind a quiet second (`max_logins_per_second`).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One endpoint's, for all of its clients.
#[derive(Debug)]
pub struct Rate {
    limit: u32,
    room: Mutex<Room>,
}

#[derive(Debug)]
struct Room {
    /// What may still be admitted.
    left: f64,
    at: Instant,
}

impl Rate {
    /// With a second's worth in hand.
    pub fn new(limit: u32, now: Instant) -> Self {
        Self { limit, room: Mutex::new(Room { left: f64::from(limit), at: now }) }
    }

    /// One more begins: the limit, if that is one too many.
    pub fn exceeded(&self, now: Instant) -> Option<u32> {
        let limit = f64::from(self.limit);
        let mut room = self.room();
        let gained = now.saturating_duration_since(room.at).as_secs_f64() * limit;
        room.left = (room.left + gained).min(limit);
        room.at = now;
        if room.left < 1.0 {
            return Some(self.limit);
        }
        room.left -= 1.0;
        None
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_rate_admits_a_seconds_worth_at_once_and_no_more() {
        let start = Instant::now();
        let rate = Rate::new(5, start);
        let admitted = |milliseconds: u64, tries: usize| {
            (0..tries).filter(|_| rate.exceeded(start + Duration::from_millis(milliseconds)).is_none()).count()
        };
        assert_eq!(admitted(0, 20), 5);
        assert_eq!(admitted(199, 20), 0);
        assert_eq!(admitted(400, 20), 2);
        assert_eq!(admitted(60_000, 20), 5);
        // Asked all the time, it is the same.
        assert_eq!((0..1000).map(|step| admitted(61_000 + step, 1)).sum::<usize>(), 9);
    }
}
