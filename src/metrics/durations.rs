//! A histogram with one writer, as [`Count`] is a number with one.

use super::Count;
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from a hand-out without a wait to the longest `connection_borrow_timeout`
/// that makes sense. The same for all, so that one can be laid over another.
pub(super) const BOUNDS_US: [u64; 20] = [
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Durations {
    /// One for each bound, not cumulative.
    pub(super) buckets: [Count; BOUNDS_US.len()],
    pub(super) longer: Count,
    pub(super) sum_us: Count,
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let took_us = took.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(took.subsec_micros()));
        // What is usual is short: its bucket is among the first.
        let bucket = self.buckets.iter().zip(BOUNDS_US).find(|(_, bound)| took_us <= *bound);
        bucket.map_or(&self.longer, |(count, _)| count).add(1);
        self.sum_us.add(took_us);
    }

    /// How many this slot has counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().chain([&self.longer]).fold(0, |sum, count| sum.wrapping_add(count.value()))
    }
}
