//! Control connections: the proxy's own questions to a target, as the account of `[target_group.health]` or of
//! `[target_group.auth_query]`.
//!
//! The one user of the database drivers; no client's query ever comes here. deadpool puts a connection back on every
//! drop, also in the middle of a question: [`Borrowed`] lets only those back that were answered.

use std::io;
use std::time::Duration;

use deadpool::managed::{self, Object, RecycleError};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{NoTls, Row, SimpleQueryMessage, SimpleQueryRow};

use super::Target;
use super::cleartext::{Guarded, GuardedTls};
use crate::auth::Rotating;
use crate::config::{HealthConfig, Secret, TargetAddress};
use crate::net::tls::ClientTls;

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
    /// The driver's word.
    #[error("{0}")]
    MySql(#[from] mysql_async::Error),
    /// It can't be reached.
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
    tls: Option<ClientTls>,
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
    let tls = tls.as_ref().map(GuardedTls::new);
    let password = Rotating::new(account.password.clone());
    let in_the_clear = match &target.address {
        TargetAddress::Tcp { host, port } if tls.is_none() => Some((host.clone(), *port)),
        TargetAddress::Tcp { .. } | TargetAddress::Unix(_) => None,
    };
    let manager = Postgres { config, password, tls, in_the_clear, connect_timeout };
    // Times are limited by those who ask, so the pool needs no runtime of its own.
    let pool = managed::Pool::builder(manager).max_size(CONTROL_CONNECTIONS_MAX).build();
    Ok(Control { pool: pool.map_err(|_| ControlError::Closed)? })
}

impl Control {
    /// A connection: an idle one, a new one, or a wait for either. Bounded by `connect_timeout` once it is its turn.
    ///
    /// Cancel safe: a connection half made is closed.
    pub(super) async fn borrow(&self) -> Result<Borrowed, ControlError> {
        Ok(Borrowed(Some(self.pool.get().await?)))
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
    tls: Option<GuardedTls>,
    /// Where it is, if what is said to it can be read on the way.
    in_the_clear: Option<(String, u16)>,
    connect_timeout: Duration,
}

impl managed::Manager for Postgres {
    type Type = tokio_postgres::Client;
    type Error = ControlError;

    async fn create(&self) -> Result<Self::Type, Self::Error> {
        let user = self.config.get_user().unwrap_or_default();
        let password = self.password.fresh(user).await;
        match self.connect(password.expose()).await {
            Err(ControlError::Postgres(error)) if is_about_the_password(&error) => {
                // It may have been changed since it was read.
                if !self.password.renew(password.expose(), user).await {
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
        let limit = self.connect_timeout;
        match (&self.tls, &self.in_the_clear) {
            (Some(tls), _) => {
                let connecting = tokio::time::timeout(limit, config.connect(tls.clone()));
                let (client, connection) = connecting.await.map_err(timeout)??;
                // Ends with its client. Its errors reach those who ask.
                tokio::spawn(async { drop(connection.await) });
                Ok(client)
            }
            (None, Some((host, port))) => {
                let connecting = async {
                    let socket = TcpStream::connect((host.as_str(), *port)).await?;
                    socket.set_nodelay(true)?;
                    SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
                    Ok::<_, ControlError>(config.connect_raw(Guarded::new(socket), NoTls).await?)
                };
                let (client, connection) = tokio::time::timeout(limit, connecting).await.map_err(timeout)??;
                tokio::spawn(async { drop(connection.await) });
                Ok(client)
            }
            (None, None) => {
                let connecting = tokio::time::timeout(limit, config.connect(NoTls));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::fs;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn asks_at(port: u16, password: &Secret) -> Control {
        let target = Target::new(TargetAddress::Tcp { host: "127.0.0.1".to_owned(), port });
        let account = Account { user: "m", password, database: "d", timeout: Duration::from_secs(1) };
        postgres_control(&target, &account, Duration::from_secs(20), None).unwrap()
    }

    /// Reads the startup packet, answers with this, and gives what the client says then.
    async fn answers(listener: &TcpListener, question: &[u8]) -> Vec<u8> {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut length = [0; 4];
        client.read_exact(&mut length).await.unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut startup).await.unwrap();
        client.write_all(question).await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn no_password_is_said_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = asks_at(listener.local_addr().unwrap().port(), &Secret::new("hunter2".to_owned()));
        let (said, refused) = tokio::join!(answers(&listener, b"R\0\0\0\x08\0\0\0\x03"), control.borrow());
        assert_eq!(said, b"");
        let error = refused.unwrap_err();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        assert!(causes.map(ToString::to_string).any(|words| words.contains("in the clear")), "{error:?}");
        // A challenge is answered.
        let (said, _) = tokio::join!(answers(&listener, b"R\0\0\0\x0c\0\0\0\x05salt"), control.borrow());
        assert!(said.starts_with(b"p\0\0\0") && !said.windows(7).any(|window| window == b"hunter2"));
    }

    #[tokio::test]
    async fn a_password_with_refresh_is_read_again_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "old").unwrap();
        let text = format!(
            "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\n\
             [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n[target_group.health]\nuser='m'\n\
             password={{ command=['cat', '{}'], refresh='1ms' }}\n",
            file.display()
        );
        let config = Config::parse(&text, "proxy.toml", &|_| None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = asks_at(listener.local_addr().unwrap().port(), &config.target_groups[0].health.password);
        let question = b"R\0\0\0\x0c\0\0\0\x05salt";
        let (old, _) = tokio::join!(answers(&listener, question), control.borrow());
        fs::write(&file, "new").unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (new, _) = tokio::join!(answers(&listener, question), control.borrow());
        assert_eq!(old.len(), new.len());
        assert_ne!(old, new);
    }
}
