//! How much of the last minute the health probes found what they looked for.

/// Seconds that are looked back on.
const SECONDS: usize = 60;

/// The outcomes of the last minute's probes, second by second. Each second in which any ended weighs the same: while
/// something is wrong probes come faster, and these must not count for more time than they took.
#[derive(Debug)]
pub(super) struct LastMinute {
    seconds: [Second; SECONDS],
    now: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    probes: u32,
    good: u32,
}

impl LastMinute {
    pub(super) fn new() -> Self {
        Self { seconds: [Second::default(); SECONDS], now: 0 }
    }

    /// A probe has ended in this second, counted from any beginning.
    pub(super) fn note(&mut self, second: u64, is_good: bool) {
        // Seconds without a probe, at most all there are.
        for empty in (self.now + 1..=second).rev().take(SECONDS) {
            if let Some(slot) = self.slot(empty) {
                *slot = Second::default();
            }
        }
        self.now = self.now.max(second);
        if let Some(slot) = self.slot(self.now) {
            slot.probes = slot.probes.saturating_add(1);
            slot.good = slot.good.saturating_add(u32::from(is_good));
        }
    }

    /// In hundredths of a percent; 0 if there was no probe.
    pub(super) fn share(&self) -> u64 {
        let probed = self.seconds.iter().filter(|second| second.probes > 0);
        let shares = probed.map(|second| u64::from(second.good) * 10_000 / u64::from(second.probes));
        let (sum, count) = shares.fold((0, 0), |(sum, count), share| (sum + share, count + 1));
        sum.checked_div(count).unwrap_or(0)
    }

    fn slot(&mut self, second: u64) -> Option<&mut Second> {
        let place = usize::try_from(second % SECONDS as u64).unwrap_or(0);
        self.seconds.get_mut(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_weighs_the_same_and_is_forgotten_after_a_minute() {
        let mut minute = LastMinute::new();
        assert_eq!(minute.share(), 0);
        minute.note(0, true);
        assert_eq!(minute.share(), 10_000);
        // One bad second, however many probes it has had.
        for _ in 0..10 {
            minute.note(1, false);
        }
        assert_eq!(minute.share(), 5_000);
        minute.note(2, true);
        minute.note(2, false);
        minute.note(3, true);
        assert_eq!(minute.share(), (10_000 + 5_000 + 10_000) / 4);
        minute.note(59, true);
        assert_eq!(minute.share(), (10_000 + 5_000 + 10_000 + 10_000) / 5);
        // Second 0 leaves, then all but the last.
        minute.note(60, false);
        assert_eq!(minute.share(), (5_000 + 10_000 + 10_000) / 5);
        minute.note(119, true);
        assert_eq!(minute.share(), 5_000);
        minute.note(1_000_000, true);
        assert_eq!(minute.share(), 10_000);
        // A clock that stands still, or goes back, is no disaster.
        minute.note(999_999, false);
        assert_eq!(minute.share(), 5_000);
    }
}
