//! Control connections: the proxy's own questions to a target, as the account of `[target_group.health]` or of
//! `[target_group.auth_query]`.
//!
//! The one user of the database drivers; no client's query ever comes here. deadpool puts a connection back on every
//! drop, also in the middle of a question: [`Borrowed`] lets only those back that were answered. What the two kinds have in
//! common is here; [`postgres`] and [`mysql`] connect and ask.

mod mysql;
mod postgres;

use std::fmt;
use std::io;
use std::time::Duration;

use deadpool::managed::{self, Object, RecycleError};

use crate::auth::Rotating;
use crate::config::{HealthConfig, Secret};
use crate::protocol::{HandshakeError, ServerError};

pub use mysql::{MySql, mysql_control};
pub use postgres::{Postgres, postgres_control};

/// One for the probe, one to spare for what else the proxy asks; they count in the target's budget.
pub const CONTROL_CONNECTIONS_MAX: usize = 2;

/// Why a control connection could not be had or a question not be answered.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The word of PostgreSQL's driver.
    #[error("{0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// The word of MySQL's driver.
    #[error("{0}")]
    MySql(mysql_async::Error),
    /// A MySQL's or MariaDB's own, to a login or a question.
    #[error("{0}")]
    Server(ServerError),
    /// The login at a MySQL or MariaDB.
    #[error("{0}")]
    Login(HandshakeError),
    /// TLS with a MySQL or MariaDB.
    #[error("no TLS: {0}")]
    Tls(io::Error),
    /// It can't be reached, or the connection is lost.
    #[error("{0}")]
    Network(#[from] io::Error),
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

impl From<managed::PoolError<Self>> for ControlError {
    fn from(error: managed::PoolError<Self>) -> Self {
        match error {
            managed::PoolError::Backend(error) => error,
            managed::PoolError::Timeout(_)
            | managed::PoolError::Closed
            | managed::PoolError::NoRuntimeSpecified
            | managed::PoolError::PostCreateHook(_) => Self::Closed,
        }
    }
}

/// Who asks.
pub struct Account<'a> {
    /// The account's name.
    pub user: &'a str,
    /// Its password.
    pub password: &'a Secret,
    /// The database it connects to; empty: none (MySQL).
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

/// How a kind of database is connected to.
pub trait Driver: Send + Sync + 'static {
    /// A connection that is logged in.
    type Connection: Send;

    /// Connects and logs in with this password.
    ///
    /// Cancel safe: a connection half made is closed.
    fn connect(&self, password: &str) -> impl Future<Output = Result<Self::Connection, ControlError>> + Send;

    /// The password was refused, or whoever shows it; another one may do.
    fn is_about_the_password(error: &ControlError) -> bool;

    /// The connection has ended: no question will be answered.
    fn is_closed(connection: &Self::Connection) -> bool;
}

/// The control connections of one target: at most [`CONTROL_CONNECTIONS_MAX`], made when needed, kept.
pub struct Control<D: Driver> {
    pool: managed::Pool<Manager<D>>,
}

impl<D: Driver> Control<D> {
    /// Nothing is opened yet.
    fn new(driver: D, account: &Account<'_>, connect_timeout: Duration) -> Result<Self, ControlError> {
        let password = Rotating::new(account.password.clone());
        let manager = Manager { driver, user: account.user.to_owned(), password, connect_timeout };
        // Times are limited by those who ask, so the pool needs no runtime of its own.
        let pool = managed::Pool::builder(manager).max_size(CONTROL_CONNECTIONS_MAX).build();
        Ok(Self { pool: pool.map_err(|_| ControlError::Closed)? })
    }

    /// A connection: an idle one, a new one, or a wait for either. Bounded by `connect_timeout` once it is its turn.
    ///
    /// Cancel safe: a connection half made is closed.
    pub(super) async fn borrow(&self) -> Result<Borrowed<D>, ControlError> {
        Ok(Borrowed(Some(self.pool.get().await?)))
    }

    /// Closes the connections that are idle, and the others when they come back.
    pub fn close(&self) {
        self.pool.close();
    }
}

impl<D: Driver> Clone for Control<D> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone() }
    }
}

impl<D: Driver> fmt::Debug for Control<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control(***)")
    }
}

/// A control connection in use. Goes back once answered; dropped in mid-question it is closed.
pub(super) struct Borrowed<D: Driver>(Option<Object<Manager<D>>>);

impl<D: Driver> Borrowed<D> {
    /// Everything was answered: back with it.
    pub(super) fn answered(mut self) {
        drop(self.0.take());
    }

    fn connection(&mut self) -> Result<&mut D::Connection, ControlError> {
        self.0.as_deref_mut().ok_or(ControlError::Closed)
    }
}

impl<D: Driver> Drop for Borrowed<D> {
    fn drop(&mut self) {
        if let Some(unanswered) = self.0.take() {
            drop(Object::take(unanswered));
        }
    }
}

impl<D: Driver> fmt::Debug for Borrowed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Borrowed(***)")
    }
}

/// Makes connections for deadpool.
struct Manager<D> {
    driver: D,
    user: String,
    password: Rotating,
    connect_timeout: Duration,
}

impl<D: Driver> managed::Manager for Manager<D> {
    type Type = D::Connection;
    type Error = ControlError;

    async fn create(&self) -> Result<D::Connection, ControlError> {
        let password = self.password.fresh(&self.user).await;
        match self.connect(password.expose()).await {
            // It may have been changed since it was read.
            Err(error) if D::is_about_the_password(&error) => {
                if !self.password.renew(password.expose(), &self.user).await {
                    return Err(error);
                }
                self.connect(self.password.current().expose()).await
            }
            connected => connected,
        }
    }

    /// A question that meets a connection which ends at this moment is lost.
    async fn recycle(
        &self,
        connection: &mut D::Connection,
        _: &managed::Metrics,
    ) -> Result<(), RecycleError<ControlError>> {
        if D::is_closed(connection) { Err(RecycleError::message("closed")) } else { Ok(()) }
    }
}

impl<D: Driver> Manager<D> {
    async fn connect(&self, password: &str) -> Result<D::Connection, ControlError> {
        let connected = tokio::time::timeout(self.connect_timeout, self.driver.connect(password)).await;
        connected.map_err(|_| ControlError::ConnectTimeout(self.connect_timeout))?
    }
}
