//! What a target group looks like now: snapshots of its targets, made by a monitor, read by everybody.
//!
//! A snapshot never changes; the newest one is published through a `watch` channel. A target's health is what the
//! probes found: it says nothing about errors in traffic, and nothing here opens or closes a client's connection.

mod availability;
mod cleartext;
mod control;
mod lookup;
mod monitor;
mod probe;

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::{ConnectionLimit, TargetAddress};

pub use control::{
    Account, CONTROL_CONNECTIONS_MAX, Control, ControlError, MySql, Postgres, mysql_control, postgres_control,
};
pub use lookup::{FoundUser, Lookup, LookupError};
pub use monitor::start;
pub use probe::{Finding, ProbeError, Prober};

/// A database server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As in metrics and logs: its address as configured.
    pub name: String,
    /// Where it listens.
    pub address: TargetAddress,
}

impl Target {
    /// A target named for its address.
    pub fn new(address: TargetAddress) -> Self {
        Self { name: address.to_string(), address }
    }
}

/// All that is known about a target group at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The group's name.
    pub group: String,
    /// Its targets. In this version exactly one.
    pub targets: Vec<TargetState>,
}

impl Snapshot {
    /// The one target that takes writes and answers.
    pub fn writer(&self) -> Option<&TargetState> {
        self.targets.iter().find(|target| target.role == Role::Writer && target.health == Health::Available)
    }
}

/// What is known about one target.
#[derive(Debug, Clone)]
pub struct TargetState {
    /// Which.
    pub target: Arc<Target>,
    /// Its part in the group, as it last said.
    pub role: Role,
    /// Whether it answers the probes.
    pub health: Health,
    /// What it allows, as it last said; `None` before the first answer.
    pub limits: Option<Limits>,
    /// `server_version_num`: 150004 is 15.4. `None` before the first answer.
    pub version: Option<u32>,
    /// The same in its own words, where clients are greeted with them.
    pub version_text: Option<Arc<str>>,
    /// When the last answered probe was sent.
    pub probed_at: Option<Instant>,
}

impl TargetState {
    /// Equal but for the time of the probe.
    fn says_the_same_as(&self, other: &Self) -> bool {
        (self.role, self.health, self.limits, self.version) == (other.role, other.health, other.limits, other.version)
            && self.version_text == other.version_text
    }
}

/// A target's part in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Writer,
    /// In recovery: only reads.
    Standby,
    /// Has not said yet.
    Unknown,
}

impl Role {
    /// As in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Standby => "standby",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether a target answers the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not known: it was not asked often enough yet.
    Unknown,
    /// Its last probe was answered, or fewer than `failures` in a row were missed.
    Available,
    /// `failures` probes in a row were missed.
    Unavailable(Reason),
}

/// Why a probe was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It can't be reached, or the connection broke.
    Network,
    /// No answer in time.
    Timeout,
    /// TLS could not be agreed on.
    Tls,
    /// It answers, and refuses the health account. Its clients may be served all the same.
    AccountRefused,
    /// It answers with another error: starting up, shutting down, no connection free ...
    Database,
}

impl Reason {
    /// As in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::AccountRefused => "account_refused",
            Self::Database => "database",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many connections a target allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `superuser_reserved_connections`, and `reserved_connections` since PostgreSQL 16.
    pub reserved: u32,
}

/// How many connections all pools of a target may have together, at least one: what the configuration asks for, at
/// most what the target allows, less the proxy's `own` control connections.
///
/// Before the target has said what it allows, a share of it can't be known: one connection, which is enough for the
/// first clients until the first probe comes back.
pub fn budget(limits: Option<Limits>, wanted: ConnectionLimit, own: usize) -> usize {
    let allowed = limits.map(|limits| limits.max_connections.saturating_sub(limits.reserved));
    let share = match (wanted, allowed) {
        (ConnectionLimit::Percent(percent), Some(allowed)) => u64::from(allowed) * u64::from(percent.min(100)) / 100,
        (ConnectionLimit::Percent(_), None) => 0,
        (ConnectionLimit::Absolute(number), Some(allowed)) => u64::from(number.min(allowed)),
        (ConnectionLimit::Absolute(number), None) => u64::from(number),
    };
    usize::try_from(share).unwrap_or(usize::MAX).saturating_sub(own).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_what_the_target_leaves() {
        use ConnectionLimit::{Absolute, Percent};
        for (limits, wanted, budget_expected) in [
            // max_connections, reserved
            (Some((100, 3)), Percent(90), 85),
            (Some((100, 3)), Percent(100), 95),
            (Some((100, 3)), Percent(1), 1),
            (Some((100, 13)), Percent(50), 41),
            (Some((100, 3)), Absolute(80), 78),
            (Some((100, 3)), Absolute(97), 95),
            (Some((100, 3)), Absolute(5000), 95),
            (Some((100, 3)), Absolute(1), 1),
            (Some((4, 3)), Percent(90), 1),
            (Some((3, 7)), Percent(90), 1),
            (Some((u32::MAX, 0)), Percent(100), u32::MAX as usize - 2),
            (None, Percent(90), 1),
            (None, Absolute(80), 78),
            (None, Absolute(0), 1),
        ] {
            let limits = limits.map(|(max_connections, reserved)| Limits { max_connections, reserved });
            assert_eq!(budget(limits, wanted, CONTROL_CONNECTIONS_MAX), budget_expected, "{limits:?} {wanted:?}");
        }
    }
}
