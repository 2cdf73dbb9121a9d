//! So that nobody fills the log from outside: a line about the same thing is said once in a while, with how many were left
//! out before it.
//!
//! Only counts and remembers; who logs asks first. What is remembered is bounded: of what comes beyond that, one line in a
//! while is said for all of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about the same thing.
const PAUSE: Duration = Duration::from_secs(10);
/// Things that are remembered: more than this of a kind at a time is an attack, not something to read line by line.
const KEYS_MAX: usize = 1000;

/// What was said, about things of this kind.
#[derive(Debug)]
pub struct Quiet<K>(Mutex<State<K>>);

#[derive(Debug)]
struct State<K> {
    said: HashMap<K, Said>,
    /// About all that is not remembered.
    rest: Option<Said>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl<K> Default for Quiet<K> {
    fn default() -> Self {
        Self(Mutex::new(State { said: HashMap::new(), rest: None }))
    }
}

impl<K: Eq + Hash> Quiet<K> {
    /// Whether a line about this is to be said, and how many have been left out since the last one. `None`: left out.
    pub fn is_due(&self, about: K, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = state.said.get_mut(&about) {
            return said.again(now);
        }
        if state.said.len() >= KEYS_MAX {
            state.said.retain(|_, said| !said.is_over(now));
        }
        if state.said.len() < KEYS_MAX {
            state.said.insert(about, Said { at: now, left_out: 0 });
            return Some(0);
        }
        match &mut state.rest {
            Some(rest) => rest.again(now),
            None => {
                state.rest = Some(Said { at: now, left_out: 0 });
                Some(0)
            }
        }
    }
}

impl Said {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= PAUSE
    }

    fn again(&mut self, now: Instant) -> Option<u64> {
        if self.is_over(now) {
            self.at = now;
            Some(std::mem::take(&mut self.left_out))
        } else {
            self.left_out += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_a_while_for_each_and_for_all_that_are_too_many() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let said = |about: usize, seconds: u64| quiet.is_due(about, start + Duration::from_secs(seconds));
        assert_eq!(
            [said(0, 0), said(0, 1), said(0, 9), said(1, 9), said(0, 10), said(0, 20)],
            [Some(0), None, None, Some(0), Some(2), Some(0)]
        );
        // An attack from everywhere.
        let lines = (0..KEYS_MAX * 3).filter_map(|about| said(about, 29)).count();
        assert_eq!(lines, KEYS_MAX - 1 + 1, "0 was said a moment ago; one line stands for all that are too many");
        assert_eq!(said(usize::MAX, 39).map(|left_out| left_out > 0), Some(false), "the old ones are forgotten");
        assert_eq!((0..KEYS_MAX * 3).filter_map(|about| said(about, 39)).max(), Some(KEYS_MAX as u64 * 2 - 1));
    }
}
