//! One probe: one question to one target about its role and its limits.
//!
//! A probe has a time limit, and the connection it needs may take longer: then the probe is missed, connecting goes on
//! in the background, and the next probe finds the connection made. Else a target at the other end of the world,
//! seven round trips of a login away, could never be probed.

mod mysql;

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::SqlState;

use super::control::{Borrowed, Control, ControlError, MySql, Postgres};
use super::{Limits, Reason, Role};
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
            Self::Control(ControlError::Server(error)) => mysql::reason_of_server(error),
            Self::Control(ControlError::Login(error)) => mysql::reason_of_login(error),
            Self::Control(ControlError::Tls(_)) => Reason::Tls,
            Self::Control(ControlError::NoRow) | Self::Answer(..) => Reason::Database,
            Self::Control(ControlError::Closed | ControlError::Network(_) | ControlError::MySql(_))
            | Self::GoingDown => Reason::Network,
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
    Postgres(Control<Postgres>),
    MySql(Control<MySql>),
}

/// One of them.
#[derive(Debug)]
enum Connected {
    Postgres(Borrowed<Postgres>),
    MySql(Borrowed<MySql>),
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
    /// Probes a PostgreSQL over these control connections; a probe takes at most `timeout`.
    pub fn new(control: Control<Postgres>, timeout: Duration) -> Self {
        Self { source: Source::Postgres(control), timeout, connecting: None }
    }

    /// The same of a MySQL or MariaDB.
    pub fn mysql(control: Control<MySql>, timeout: Duration) -> Self {
        Self { source: Source::MySql(control), timeout, connecting: None }
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
            Connected::MySql(connection) => mysql::understand(&connection.ask(mysql::QUESTION).await?),
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

/// The driver says only "db error" or "error connecting to server"; what happened stands behind it.
fn words(error: &ControlError) -> String {
    let error = match error {
        ControlError::Postgres(error) => error,
        ControlError::Server(error) => return mysql::words_of_server(error),
        ControlError::Login(error) => return mysql::words_of_login(error),
        ControlError::Tls(source) => {
            return tls::advice(source).map_or_else(|| error.to_string(), |advice| format!("{error}; {advice}"));
        }
        ControlError::MySql(_)
        | ControlError::Network(_)
        | ControlError::ConnectTimeout(_)
        | ControlError::NoRow
        | ControlError::Closed => return error.to_string(),
    };
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
