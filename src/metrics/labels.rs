//! What metrics are labelled with besides names: reasons and kinds, as sets that are known beforehand.
//!
//! A label's values are words of the proxy's own. None is made of what a client or a database has sent.

use super::{Count, Durations};
use crate::protocol::{ClientError, ErrorKind, PinReason};

/// A set of reasons that label a metric.
pub trait Label: Copy + PartialEq + 'static {
    /// All of them.
    const ALL: &'static [Self];
    /// As it stands in the label.
    fn name(self) -> &'static str;
}

/// A count per reason.
#[derive(Debug)]
pub struct Counts<L>(Vec<(L, Count)>);

/// A histogram per reason.
#[derive(Debug)]
pub struct Timings<L>(Vec<(L, Durations)>);

impl<L: Label> Timings<L> {
    /// The histogram of a reason; of one that is missing in its own `ALL` there is none.
    pub fn of(&self, label: L) -> Option<&Durations> {
        self.0.iter().find(|(own, _)| *own == label).map(|(_, durations)| durations)
    }
}

impl<L: Label> Default for Timings<L> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|label| (*label, Durations::default())).collect())
    }
}

impl<L: Label> Counts<L> {
    /// The count of a reason.
    pub fn of(&self, label: L) -> &Count {
        // Short lists, and never on the way of a query.
        self.0.iter().find(|(own, _)| *own == label).map_or(&NOWHERE, |(_, count)| count)
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, count)| sum.wrapping_add(count.value()))
    }
}

/// Where a label counts that is missing in its own `ALL`; a test shows that there is none.
static NOWHERE: Count = Count::new();

impl<L: Label> Default for Counts<L> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|label| (*label, Count::default())).collect())
    }
}

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginRefusal {
    /// Wrong password or unknown user.
    Password,
    /// A token that is none or lets nobody in.
    Token,
    /// No client certificate, or one for another name.
    Certificate,
    /// `tls = "required"`.
    TlsRequired,
    /// TLS could not be agreed on: the client does not trust the certificate, or there is no version in common.
    Tls,
    /// `max_clients`.
    TooManyClients,
    /// `allow_from`.
    Address,
    /// `login_timeout`.
    Timeout,
    /// The client broke the protocol.
    Protocol,
    /// The client left before its login was done.
    Left,
    /// No database connection in time, or the database's own error.
    Database,
    /// Replication, which is not offered.
    Replication,
    /// The proxy is going down.
    GoingDown,
}

impl Label for LoginRefusal {
    const ALL: &'static [Self] = &[
        Self::Password,
        Self::Token,
        Self::Certificate,
        Self::TlsRequired,
        Self::Tls,
        Self::TooManyClients,
        Self::Address,
        Self::Timeout,
        Self::Protocol,
        Self::Left,
        Self::Database,
        Self::Replication,
        Self::GoingDown,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::TlsRequired => "tls_required",
            Self::Tls => "tls",
            Self::TooManyClients => "too_many_clients",
            Self::Address => "address",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Left => "left",
            Self::Database => "database",
            Self::Replication => "replication",
            Self::GoingDown => "going_down",
        }
    }
}

impl LoginRefusal {
    /// Those that RDS Proxy counts as failed for their authentication, or for TLS that is not set up right.
    pub const AUTH: &'static [Self] = &[Self::Password, Self::Token, Self::Certificate, Self::TlsRequired, Self::Tls];
}

/// Why a database connection could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFailure {
    /// No connection, or it broke during the login.
    Network,
    /// `connect_timeout`.
    Timeout,
    /// TLS could not be agreed on.
    Tls,
    /// The database refused the user.
    Login,
    /// The database has no connection free (53300).
    Full,
    /// Another error of the database.
    Database,
    /// What came was not the protocol.
    Protocol,
}

impl Label for OpenFailure {
    const ALL: &'static [Self] =
        &[Self::Network, Self::Timeout, Self::Tls, Self::Login, Self::Full, Self::Database, Self::Protocol];

    fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Full => "full",
            Self::Database => "database",
            Self::Protocol => "protocol",
        }
    }
}

/// A limit of time that a client has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// `connection_borrow_timeout`.
    Borrow,
    /// `login_timeout`.
    Login,
    /// `idle_client_timeout`.
    IdleClient,
    /// `transaction_idle_timeout`.
    TransactionIdle,
    /// `pin_idle_timeout`.
    PinIdle,
    /// `query_timeout`.
    Query,
    /// `transaction_max`.
    Transaction,
}

impl Timeout {
    /// The one that the client is told of, if it is.
    pub fn of(error: &ClientError) -> Option<Self> {
        let is_it = |timeout: &Self| match timeout {
            Self::Borrow => matches!(error, ClientError::BorrowTimeout { .. } | ClientError::NoWriter { .. }),
            Self::Login => matches!(error, ClientError::LoginTimeout),
            Self::IdleClient => matches!(error, ClientError::ClientIdle { .. }),
            Self::TransactionIdle => matches!(error, ClientError::TransactionIdle { .. }),
            Self::PinIdle => matches!(error, ClientError::PinIdle { .. }),
            Self::Query => matches!(error, ClientError::QueryTooLong { .. }),
            Self::Transaction => matches!(error, ClientError::TransactionTooLong { .. }),
        };
        Self::ALL.iter().copied().find(is_it)
    }
}

impl Label for Timeout {
    const ALL: &'static [Self] = &[
        Self::Borrow,
        Self::Login,
        Self::IdleClient,
        Self::TransactionIdle,
        Self::PinIdle,
        Self::Query,
        Self::Transaction,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Borrow => "borrow",
            Self::Login => "login",
            Self::IdleClient => "idle_client",
            Self::TransactionIdle => "transaction_idle",
            Self::PinIdle => "pin_idle",
            Self::Query => "query",
            Self::Transaction => "transaction",
        }
    }
}

/// How a health probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The target says that it takes writes.
    Writer,
    /// The target says that it is in recovery.
    Standby,
    /// It could not be reached, or the connection broke.
    Network,
    /// No answer in time.
    Timeout,
    /// TLS could not be agreed on.
    Tls,
    /// It refuses the health account.
    AccountRefused,
    /// Another error of the database.
    Database,
}

impl Label for ProbeResult {
    const ALL: &'static [Self] =
        &[Self::Writer, Self::Standby, Self::Network, Self::Timeout, Self::Tls, Self::AccountRefused, Self::Database];

    fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Standby => "standby",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::AccountRefused => "account_refused",
            Self::Database => "database",
        }
    }
}

/// A target's part in its group, as it last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetRole {
    /// Takes writes.
    Writer,
    /// In recovery.
    Standby,
    /// Has not said yet.
    Unknown,
}

impl Label for TargetRole {
    const ALL: &'static [Self] = &[Self::Writer, Self::Standby, Self::Unknown];

    fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Standby => "standby",
            Self::Unknown => "unknown",
        }
    }
}

impl Label for PinReason {
    const ALL: &'static [Self] = &PinReason::ALL;

    fn name(self) -> &'static str {
        PinReason::name(self)
    }
}

impl Label for ErrorKind {
    const ALL: &'static [Self] = &[Self::Client, Self::Auth, Self::Pool, Self::Server, Self::Network, Self::Proxy];

    fn name(self) -> &'static str {
        ErrorKind::name(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_reason_has_a_count_and_a_name_of_its_own() {
        fn check<L: Label>() {
            let counts = Counts::<L>::default();
            let mut names = std::collections::BTreeSet::new();
            for label in L::ALL {
                counts.of(*label).add(1);
                assert!(names.insert(label.name()), "{} twice", label.name());
            }
            assert!(counts.0.iter().all(|(_, count)| count.value() == 1));
            assert_eq!(counts.sum(), L::ALL.len() as u64);
        }
        check::<LoginRefusal>();
        check::<OpenFailure>();
        check::<PinReason>();
        check::<ErrorKind>();
        check::<Timeout>();
        check::<ProbeResult>();
        check::<TargetRole>();
        assert_eq!(NOWHERE.value(), 0);
    }

    #[test]
    fn an_error_tells_which_limit_of_time_was_met() {
        let (group, waited) = ("main".to_owned(), Duration::from_secs(1));
        for (error, timeout) in [
            (ClientError::BorrowTimeout { group: group.clone(), waited }, Some(Timeout::Borrow)),
            (ClientError::NoWriter { group: group.clone(), waited }, Some(Timeout::Borrow)),
            (ClientError::LoginTimeout, Some(Timeout::Login)),
            (ClientError::ClientIdle { limit: waited }, Some(Timeout::IdleClient)),
            (ClientError::TransactionIdle { limit: waited }, Some(Timeout::TransactionIdle)),
            (ClientError::PinIdle { limit: waited }, Some(Timeout::PinIdle)),
            (ClientError::QueryTooLong { limit: waited }, Some(Timeout::Query)),
            (ClientError::TransactionTooLong { limit: waited }, Some(Timeout::Transaction)),
            (ClientError::LineFull { group, limit: 1 }, None),
            (ClientError::GoingDown, None),
        ] {
            assert_eq!(Timeout::of(&error), timeout, "{error}");
        }
    }
}
