//! What a target group lets its clients be pinned for, and how many of them at a time; and what pinned one.
//!
//! [`PinBudget`] is one target's, shared by all workers: a number and a limit, without a lock. A place in it is taken before a
//! statement that pins is sent, so that no burst of clients can go beyond the limit, and given up when the [`PinPlace`] is dropped.

use super::{ClientError, PinReason, Pins};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `pin_on`: what becomes of statements that would pin their client. What is in neither set pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinPolicy {
    /// They are refused.
    pub rejected: Pins,
    /// They pass, and their client does not keep its connection for them.
    pub allowed: Pins,
}

/// What a client may be pinned for.
#[derive(Debug, Clone, Default)]
pub struct PinRules {
    /// `pin_on`.
    pub policy: PinPolicy,
    /// Of its target. `None`: it keeps its connection in any case, pinned or not.
    pub budget: Option<Arc<PinBudget>>,
}

/// How many connections of a target clients may keep for themselves.
#[derive(Debug)]
pub struct PinBudget {
    group: String,
    /// `pin_max_percent`.
    percent: u8,
    limit: AtomicUsize,
    held: AtomicUsize,
}

/// One of them. Dropping it gives it up.
#[derive(Debug)]
pub struct PinPlace(Arc<PinBudget>);

impl PinBudget {
    /// Of a target of this group, of which nothing is known yet: one client may be pinned. With 100 % there is no limit: who
    /// has a connection may keep it.
    pub fn new(group: &str, percent: u8) -> Arc<Self> {
        let budget =
            Self { group: group.to_owned(), percent, limit: AtomicUsize::default(), held: AtomicUsize::default() };
        budget.set_connections(0);
        Arc::new(budget)
    }

    /// The target has so many connections for clients. Whoever is pinned stays so.
    pub fn set_connections(&self, connections: usize) {
        let share = connections.saturating_mul(usize::from(self.percent)).div_ceil(100);
        let limit = if self.percent >= 100 { usize::MAX } else { share.max(1) };
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<PinPlace> {
        let limit = self.limit();
        let one_more = |held: usize| (held < limit).then_some(held + 1);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(PinPlace(Arc::clone(self)))
    }

    /// A place for a client that is pinned already, whether there is one or not.
    pub fn force(self: &Arc<Self>) -> PinPlace {
        self.held.fetch_add(1, Ordering::Relaxed);
        PinPlace(Arc::clone(self))
    }

    /// The target group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// `pin_max_percent`.
    pub fn percent(&self) -> u8 {
        self.percent
    }

    /// How many places there are.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many of them are taken, or more.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for PinPlace {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The statement that pinned a client, without anything that stood in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinCause {
    /// Of its text.
    pub fingerprint: Fingerprint,
    /// Its first keyword; empty if it begins with none.
    pub command: &'static str,
}

/// A hash that texts share which differ in values, blanks, comments and the case of keywords alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a client may be pinned for, and what has pinned it.
#[derive(Debug, Default)]
pub struct Gate {
    rules: PinRules,
    /// It counts as pinned, or a statement of it that would make it so has been sent.
    place: Option<PinPlace>,
    /// At most one for each reason; without a pin it owns no memory.
    causes: Vec<(PinReason, PinCause)>,
}

impl Gate {
    /// Nothing has pinned it.
    pub fn new(rules: PinRules) -> Self {
        Self { rules, place: None, causes: Vec::new() }
    }

    /// Reasons that the client does not keep its connection for.
    pub fn allowed(&self) -> Pins {
        self.rules.policy.allowed
    }

    /// What pins for this is refused.
    pub fn rejects(&self, reason: PinReason) -> bool {
        self.rules.policy.rejected.contains(reason)
    }

    /// These are all its reasons.
    pub fn settle(&mut self, pins: Pins) {
        if pins.is_empty() || pins.are_for_a_moment() {
            self.place = None;
        } else if self.place.is_none() {
            self.place = self.rules.budget.as_ref().map(|budget| budget.force());
        }
        self.causes.retain(|(reason, _)| pins.contains(*reason));
        if self.causes.is_empty() {
            self.causes = Vec::new();
        }
    }

    /// The statement that came with this reason.
    pub fn cause(&self, reason: PinReason) -> Option<PinCause> {
        self.causes.iter().find(|(own, _)| *own == reason).map(|(_, cause)| *cause)
    }

    /// A statement is to be sent which pins for these reasons, if it does what it says; its client has `pins`. Why it must not.
    /// `uncertain`: reasons that may come to nothing, so that there is nothing to count before it is done.
    pub fn admit(&mut self, reasons: Pins, pins: Pins, uncertain: Pins) -> Option<ClientError> {
        if let Some(reason) = reasons.common(self.rules.policy.rejected).iter().next() {
            return Some(ClientError::PinRefused { reason });
        }
        let reason = reasons.without(uncertain).without(self.allowed()).iter().next()?;
        let budget = self.rules.budget.as_ref().filter(|_| self.place.is_none())?;
        if !pins.without(uncertain).without(self.allowed()).is_empty() {
            self.place = Some(budget.force());
            return None;
        }
        self.place = budget.take();
        if self.place.is_some() {
            return None;
        }
        let group = budget.group().to_owned();
        Some(ClientError::PinLimit { reason, group, limit: budget.limit(), percent: budget.percent() })
    }

    /// Remembers what came with the reasons that are new.
    pub fn note(&mut self, reasons: Pins, cause: PinCause) {
        self.causes.retain(|(reason, _)| !reasons.contains(*reason));
        self.causes.extend(reasons.iter().map(|reason| (reason, cause)));
    }
}

impl PinReason {
    /// It is named by this in what a client is told.
    pub const fn feature(self) -> &'static str {
        match self {
            Self::Setting => "a setting that can't be followed",
            Self::PreparedStatement => "a prepared statement of SQL's (PREPARE, EXECUTE)",
            Self::TemporaryObject => "a temporary table, view or sequence",
            Self::SessionLock => "a lock of the session (pg_advisory_lock)",
            Self::HeldCursor => "a cursor WITH HOLD",
            Self::Listen => "LISTEN",
            Self::Sequence => "the last value of a sequence",
            Self::OpaqueCode => "code whose effect can't be seen (DO, CALL)",
            Self::ServerProcess => "state inside the server process (LOAD, dblink, setseed and the like)",
            Self::Unreadable => "a text that can be read in two ways",
            Self::LargeStatement => "a prepared statement that is too long to be kept",
            Self::UserVariable => "a user variable (SET @a, SELECT ... INTO @a)",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_rounded_up_and_never_nothing() {
        for (connections, percent, places) in
            [(0, 50, 1), (1, 1, 1), (3, 50, 2), (10, 50, 5), (100, 1, 1), (101, 1, 2), (7, 99, 7)]
        {
            let budget = PinBudget::new("main", percent);
            budget.set_connections(connections);
            let taken: Vec<_> = std::iter::from_fn(|| budget.take()).collect();
            assert_eq!(taken.len(), places, "{percent} % of {connections}");
        }
    }

    #[test]
    fn a_place_is_given_up_with_its_owner_and_never_taken_away() {
        let budget = PinBudget::new("main", 50);
        budget.set_connections(2);
        let first = budget.take().unwrap();
        assert!(budget.take().is_none());
        // One that is pinned already counts, and so keeps others out for longer.
        let second = budget.force();
        assert_eq!(budget.held(), 2);
        drop(first);
        assert!(budget.take().is_none());
        drop(second);
        assert!(budget.take().is_some());
        assert_eq!(budget.held(), 0);
    }
}
