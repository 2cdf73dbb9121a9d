//! What the models of both protocols draw their steps from: numbers by a seed, so that a run can be had again.

use crate::harness::wire::below;

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        below(&mut self.0, limit)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// What the environment says, or this.
pub fn number_of(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().unwrap())
}

/// The seed of a run, which is printed.
pub fn seed() -> u64 {
    seed_or(None)
}

/// The same: this one, unless the environment says otherwise.
pub fn seed_or(otherwise: Option<u64>) -> u64 {
    let otherwise = otherwise.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let seed = number_of("SLUICEGATE_MODEL_SEED", otherwise);
    println!("SLUICEGATE_MODEL_SEED={seed}");
    seed
}

/// So many steps for each server, unless the environment says otherwise.
pub fn steps(otherwise: usize) -> usize {
    usize::try_from(number_of("SLUICEGATE_MODEL_STEPS", otherwise as u64)).unwrap()
}
