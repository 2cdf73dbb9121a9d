//! One probe: one question to one target about its role and its limits.
//!
//! A probe has a time limit, and the connection it needs may take longer: then the probe is missed, connecting goes on
//! in the background, and the next probe finds the connection made. Else a target at the other end of the world,
//! seven round trips of a login away, could never be probed.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::SqlState;

use super::control::Account;
use super::control::{Borrowed, Control, ControlError};
use super::mysql::{MySqlBorrowed, MySqlControl};
use super::{Limits, Reason, Role, Target};
use crate::config::TargetTls;
use crate::net::tls;

const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('max_connections'), \
     pg_catalog.current_setting('superuser_reserved_connections'), \
     pg_catalog.current_setting('reserved_connections', true), \
     pg_catalog.current_setting('server_version_num')";

/// What a target answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Writer or standby.
    pub role: Role,
    /// What it allows.
    pub limits: Limits,
    /// `server_version_num`, or the same made of MySQL's: 90704 is 9.7.4.
    pub version: u32,
    /// In its own words, where clients are greeted with them.
    pub version_text: Option<Arc<str>>,
}

/// Why a probe was missed. Its words are for the log: they may hold addresses.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer in time.
    #[error("no answer within {0:?} (`timeout` in [target_group.health])")]
    Timeout(Duration),
    /// No connection, or it broke, or the database answered with an error.
    #[error("{}", words(.0))]
    Control(#[from] ControlError),
    /// The answer can't be understood.
    #[error("its answer can't be understood: {0} is {1:?}")]
    Answer(&'static str, Option<String>),
    /// The task that connects is gone: the runtime is going down.
    #[error("the proxy is going down")]
    GoingDown,
}

impl ProbeError {
    /// In one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Timeout(_) | Self::Control(ControlError::ConnectTimeout(_)) => Reason::Timeout,
            Self::Control(ControlError::Postgres(error)) => match error.code() {
                Some(code) if is_account_refused(code) => Reason::AccountRefused,
                Some(_) => Reason::Database,
                None if is_tls(error) => Reason::Tls,
                None => Reason::Network,
            },
            Self::Control(ControlError::MySql(error)) => match error {
                mysql_async::Error::Server(error) if ACCOUNT_REFUSED.contains(&error.code) => Reason::AccountRefused,
                mysql_async::Error::Server(_) => Reason::Database,
                mysql_async::Error::Io(mysql_async::IoError::Tls(_)) => Reason::Tls,
                mysql_async::Error::Io(_)
                | mysql_async::Error::Driver(_)
                | mysql_async::Error::Other(_)
                | mysql_async::Error::Url(_) => Reason::Network,
            },
            Self::Control(ControlError::NoRow) | Self::Answer(..) => Reason::Database,
            Self::Control(ControlError::Closed | ControlError::Network(_)) | Self::GoingDown => Reason::Network,
        }
    }
}

/// Probes one target.
#[derive(Debug)]
pub struct Prober {
    source: Source,
    timeout: Duration,
    connecting: Option<JoinHandle<Result<Connected, ControlError>>>,
}

/// Control connections of either kind.
#[derive(Debug, Clone)]
enum Source {
    Postgres(Control),
    MySql(MySqlControl),
}

/// One of them.
#[derive(Debug)]
enum Connected {
    Postgres(Borrowed),
    MySql(MySqlBorrowed),
}

impl Source {
    async fn borrow(&self) -> Result<Connected, ControlError> {
        Ok(match self {
            Self::Postgres(control) => Connected::Postgres(control.borrow().await?),
            Self::MySql(control) => Connected::MySql(control.borrow().await?),
        })
    }
}

impl Prober {
    /// Probes over these control connections; a probe takes at most `timeout`.
    pub fn new(control: Control, timeout: Duration) -> Self {
        Self { source: Source::Postgres(control), timeout, connecting: None }
    }

    /// Probes a MySQL or MariaDB, as this account. Nothing is opened yet.
    pub fn mysql(
        target: &Target,
        account: &Account<'_>,
        connect_timeout: Duration,
        tls: &TargetTls,
    ) -> Result<Self, ControlError> {
        let source = Source::MySql(MySqlControl::new(target, account, connect_timeout, tls)?);
        Ok(Self { source, timeout: account.timeout, connecting: None })
    }

    /// Asks once.
    ///
    /// Cancel safe: a question under way costs its connection, connecting goes on.
    pub async fn probe(&mut self) -> Result<Finding, ProbeError> {
        let limit = self.timeout;
        tokio::time::timeout(limit, self.ask()).await.unwrap_or(Err(ProbeError::Timeout(limit)))
    }

    async fn ask(&mut self) -> Result<Finding, ProbeError> {
        let source = &self.source;
        let connecting = self.connecting.get_or_insert_with(|| {
            let source = source.clone();
            tokio::spawn(async move { source.borrow().await })
        });
        let connected = connecting.await;
        self.connecting = None;
        match connected.map_err(|_| ProbeError::GoingDown)?? {
            Connected::Postgres(connection) => understand(&connection.ask(QUESTION).await?),
            Connected::MySql(connection) => connection.probe().await,
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Some(connecting) = &self.connecting {
            connecting.abort();
        }
    }
}

fn understand(row: &SimpleQueryRow) -> Result<Finding, ProbeError> {
    let text = |column: usize| row.try_get(column).ok().flatten();
    let number = |column: usize, name: &'static str| {
        let text = text(column);
        text.and_then(|text| text.parse::<u32>().ok()).ok_or(ProbeError::Answer(name, text.map(str::to_owned)))
    };
    let role = match text(0) {
        Some("f") => Role::Writer,
        Some("t") => Role::Standby,
        other => return Err(ProbeError::Answer("pg_is_in_recovery", other.map(str::to_owned))),
    };
    let reserved = number(2, "superuser_reserved_connections")?;
    // PostgreSQL 16 and later.
    let reserved_more = if text(3).is_some() { number(3, "reserved_connections")? } else { 0 };
    Ok(Finding {
        role,
        limits: Limits {
            max_connections: number(1, "max_connections")?,
            reserved: reserved.saturating_add(reserved_more),
        },
        version: number(4, "server_version_num")?,
        version_text: None,
    })
}

/// The classes of "who are you": wrong password, no such role, not in pg_hba.conf, may not connect.
fn is_account_refused(code: &SqlState) -> bool {
    [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ]
    .contains(code)
}

/// Access denied: to the database, to the account, from this host; the account is locked, or its password has expired.
const ACCOUNT_REFUSED: &[u16] = &[1044, 1045, 1049, 1130, 1698, 1820, 1862, 3118];

/// The driver says only "db error" or "error connecting to server"; what happened stands behind it.
fn words(error: &ControlError) -> String {
    if let ControlError::MySql(mysql_async::Error::Server(error)) = error {
        let said = format!("the database answered {}: {}", error.code, error.message);
        return if ACCOUNT_REFUSED.contains(&error.code) {
            format!("{said}; look at `user` and `password` in [target_group.health]")
        } else {
            said
        };
    }
    if let ControlError::MySql(mysql_async::Error::Io(mysql_async::IoError::Io(error))) = error {
        return error.to_string();
    }
    let ControlError::Postgres(error) = error else { return error.to_string() };
    if let Some(database) = error.as_db_error() {
        let said = format!("the database answered {}: {}", database.code().code(), database.message());
        return if is_account_refused(database.code()) {
            format!("{said}; look at `user`, `password` and `database` in [target_group.health] and at pg_hba.conf")
        } else {
            said
        };
    }
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Never fails on a String.
        let _ = write!(words, ": {error}");
        source = error.source();
    }
    if is_tls(error)
        && let Some(advice) = tls_advice(error)
    {
        let _ = write!(words, "; {advice}");
    }
    words
}

/// The driver keeps the kind of its errors to itself, and shows it in its words alone.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

fn tls_advice(error: &tokio_postgres::Error) -> Option<&'static str> {
    let source = error.source()?;
    match source.downcast_ref::<std::io::Error>() {
        Some(error) => tls::advice(error),
        None if source.to_string() == "server does not support TLS" => Some(
            "switch TLS on at the target (ssl = on), or set tls = \"off\" in [[target_group]] if the network is safe",
        ),
        None => None,
    }
}
