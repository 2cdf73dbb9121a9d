//! Control connections: the proxy's own questions to a target, as the account of `[target_group.health]` or of
//! `[target_group.auth_query]`.
//!
//! The one user of the database drivers; no client's query ever comes here. deadpool puts a connection back on every
//! drop, also in the middle of a question: [`Borrowed`] lets only those back that were answered.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Object, RecycleError};
use rustls::ClientConfig;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{NoTls, Row, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Target;
use crate::auth::Rotating;
use crate::config::{HealthConfig, Secret, TargetAddress};

/// One for the probe, one to spare for what else the proxy asks; they count in the target's budget.
pub const CONTROL_CONNECTIONS_MAX: usize = 2;

/// What a target sees in `pg_stat_activity`.
const APPLICATION_NAME: &str = "sluicegate";
/// Unlike a client's connection (see `net::stream`), a control connection never has much to send: whoever leaves it
/// unacknowledged for so long is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Why a control connection could not be had or a question not be answered.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The driver's word.
    #[error("{0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// Connecting and logging in took too long.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The answer is not a row.
    #[error("the answer is not a row")]
    NoRow,
    /// The pool is gone.
    #[error("the control connections are closed")]
    Closed,
}

/// The control connections of one target: at most [`CONTROL_CONNECTIONS_MAX`], made when needed, kept.
#[derive(Debug, Clone)]
pub struct Control {
    pool: managed::Pool<Postgres>,
}

/// Who asks.
pub struct Account<'a> {
    /// The account's name.
    pub user: &'a str,
    /// Its password.
    pub password: &'a Secret,
    /// The database it connects to.
    pub database: &'a str,
    /// No question takes longer.
    pub timeout: Duration,
}

impl<'a> Account<'a> {
    /// The monitor's.
    pub fn of_health(health: &'a HealthConfig) -> Self {
        let HealthConfig { user, password, database, timeout, .. } = health;
        Self { user, password, database, timeout: *timeout }
    }
}

/// Control connections to a PostgreSQL. `tls`: `None` for none; a unix socket does without in any case. Nothing is
/// opened yet.
pub fn postgres_control(
    target: &Target,
    account: &Account<'_>,
    connect_timeout: Duration,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Control, ControlError> {
    let mut config = tokio_postgres::Config::new();
    config
        .user(account.user)
        .dbname(account.database)
        .application_name(APPLICATION_NAME)
        // Nobody's functions in front of the catalog's, and no question that outlives the one who asked.
        .options(format!("-c search_path= -c statement_timeout={}", account.timeout.as_millis().max(1)))
        .connect_timeout(connect_timeout)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX)
        .ssl_mode(SslMode::Disable);
    match &target.address {
        TargetAddress::Tcp { host, port } => {
            config.host(host).port(*port);
            if tls.is_some() {
                config.ssl_mode(SslMode::Require);
            }
        }
        TargetAddress::Unix(path) => {
            // libpq's way, and the driver's: the folder is the host, and the socket's name holds the port.
            let port = path.extension().and_then(|port| port.to_str()?.parse().ok()).unwrap_or(5432);
            config.host_path(path.parent().unwrap_or(path)).port(port);
        }
    }
    let tls = tls.map(|tls| MakeRustlsConnect::new(tls.as_ref().clone()));
    let password = Rotating::new(account.password.clone());
    let manager = Postgres { config, password, tls, connect_timeout };
    // Times are limited by those who ask, so the pool needs no runtime of its own.
    let pool = managed::Pool::builder(manager).max_size(CONTROL_CONNECTIONS_MAX).build();
    Ok(Control { pool: pool.map_err(|_| ControlError::Closed)? })
}

impl Control {
    /// A connection: an idle one, a new one, or a wait for either. Bounded by `connect_timeout` once it is its turn.
    ///
    /// Cancel safe: a connection half made is closed.
    pub(super) async fn borrow(&self) -> Result<Borrowed, ControlError> {
        match self.pool.get().await {
            Ok(object) => Ok(Borrowed(Some(object))),
            Err(managed::PoolError::Backend(error)) => Err(error),
            Err(
                managed::PoolError::Timeout(_)
                | managed::PoolError::Closed
                | managed::PoolError::NoRuntimeSpecified
                | managed::PoolError::PostCreateHook(_),
            ) => Err(ControlError::Closed),
        }
    }

    /// Closes the connections that are idle, and the others when they come back.
    pub fn close(&self) {
        self.pool.close();
    }
}

/// A control connection in use. Goes back once answered; dropped in mid-question it is closed.
#[derive(Debug)]
pub(super) struct Borrowed(Option<Object<Postgres>>);

impl Borrowed {
    /// Asks for one row; values come as text. One round trip.
    pub(super) async fn ask(mut self, question: &'static str) -> Result<SimpleQueryRow, ControlError> {
        let client = self.0.as_deref().ok_or(ControlError::Closed)?;
        let answer = client.simple_query(question).await;
        if answer.is_ok() {
            drop(self.0.take());
        }
        answer?
            .into_iter()
            // Beside the row come its description and the end of the command.
            .find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None })
            .ok_or(ControlError::NoRow)
    }
}

impl Borrowed {
    /// Asks a question about a name, in the extended protocol; at most one row. Two round trips.
    pub(super) async fn ask_about(&self, question: &str, name: &str) -> Result<Option<Row>, ControlError> {
        let client = self.0.as_deref().ok_or(ControlError::Closed)?;
        Ok(client.query_opt(question, &[&name]).await?)
    }

    /// Everything was answered: back with it.
    pub(super) fn answered(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(unanswered) = self.0.take() {
            drop(Object::take(unanswered));
        }
    }
}

/// Makes connections for deadpool.
pub(super) struct Postgres {
    config: tokio_postgres::Config,
    password: Rotating,
    tls: Option<MakeRustlsConnect>,
    connect_timeout: Duration,
}

impl managed::Manager for Postgres {
    type Type = tokio_postgres::Client;
    type Error = ControlError;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        let password = self.password.current();
        match self.connect(password.expose()).await {
            Err(ControlError::Postgres(error)) if is_about_the_password(&error) => {
                // It may have been changed since it was read.
                if !self.password.renew(password.expose(), self.config.get_user().unwrap_or_default()).await {
                    return Err(error.into());
                }
                self.connect(self.password.current().expose()).await
            }
            connected => connected,
        }
    }

    async fn recycle(&self, client: &mut Self::Type, _: &managed::Metrics) -> Result<(), RecycleError<Self::Error>> {
        if client.is_closed() { Err(RecycleError::message("closed")) } else { Ok(()) }
    }
}

impl Postgres {
    async fn connect(&self, password: &str) -> Result<tokio_postgres::Client, ControlError> {
        let timeout = |_| ControlError::ConnectTimeout(self.connect_timeout);
        let mut config = self.config.clone();
        config.password(password);
        // The driver's own limit ends with the TCP handshake; this one covers TLS and the login.
        match &self.tls {
            Some(tls) => {
                let connecting = tokio::time::timeout(self.connect_timeout, config.connect(tls.clone()));
                let (client, connection) = connecting.await.map_err(timeout)??;
                // Ends with its client. Its errors reach those who ask.
                tokio::spawn(async { drop(connection.await) });
                Ok(client)
            }
            None => {
                let connecting = tokio::time::timeout(self.connect_timeout, config.connect(NoTls));
                let (client, connection) = connecting.await.map_err(timeout)??;
                tokio::spawn(async { drop(connection.await) });
                Ok(client)
            }
        }
    }
}

fn is_about_the_password(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::INVALID_PASSWORD) || code == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Postgres(***)")
    }
}
