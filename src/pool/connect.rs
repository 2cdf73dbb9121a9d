//! Opens server connections: drives the login machine over a new stream, then `init_query`, within `connect_timeout`.
//!
//! How many logins are under way at once, and how long the pause after a failure is, the line says. The database's own
//! words about a failed login hold addresses and blame the wrong password: they go to the log; the client learns the
//! group, the user and the code (one error passes: no such database; and what it says about options of the client's own that
//! only a login can set). A database that is full may have room in a moment: nobody is told before their time is up.

use super::dial::Dial;
use super::line::Key;
use super::{Lease, Order, PoolKey, Pools, ServerConn};
use crate::metrics::OpenFailure;
use crate::net;
use crate::protocol::{
    AttachFailure, ClientError, ConnectOptions, HandshakeError, Learned, LoginSecret, Meaning, Protocol, ServerError,
    ServerSide,
};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Connections on which `init_query` hangs beyond its time; a login more would leave another one at the database.
const HUNG_MAX: usize = 4;
/// What may happen at every hand-over is logged no more often.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// How to log in.
pub struct Target {
    /// Connections are not given out again after this time, spread a little so that they don't all end at once.
    pub lifetime: Option<Duration>,
    /// What is run on each new connection.
    pub init_query: Option<Arc<str>>,
    /// Connections on which that has not ended in time: 0.
    pub hung: Cell<usize>,
    /// Prepared statements a connection may hold.
    pub max_prepared_statements: usize,
    /// See [`ConnectOptions::statement_key`].
    pub statement_key: [u8; 16],
    /// See [`ConnectOptions::learned`].
    pub learned: Arc<Learned>,
    /// The database's users.
    pub logins: Box<dyn Logins>,
}

/// How the proxy logs in for a client's user. Asked anew for each login.
pub trait Logins {
    /// The name at the database, and what to prove it with. `None`: nobody knows.
    fn login(&self, user: &str) -> Option<(String, Option<LoginSecret>)>;

    /// The database has refused this. True: there is something else to prove it with now.
    fn refused<'a>(&'a self, user: &'a str, secret: Option<LoginSecret>) -> Pin<Box<dyn Future<Output = bool> + 'a>>;
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network.
    #[error(transparent)]
    Network(#[from] net::ConnectError),
    /// The connection was lost in the middle.
    #[error("the connection was lost during the login: {0}")]
    Lost(#[from] io::Error),
    /// The login itself.
    #[error(transparent)]
    Login(#[from] HandshakeError),
    /// It took too long.
    #[error("the login took longer than {0:?} (connect_timeout)")]
    Timeout(Duration),
    /// What is run on each new connection failed.
    #[error("init_query failed: {0}")]
    InitQuery(ServerError),
    /// The login was done, and what is run behind it was not.
    #[error("init_query took longer than connect_timeout leaves of {0:?}")]
    InitTimeout(Duration),
    /// Nobody knows how to log in for this user.
    #[error("there is no user {0:?} in the configuration")]
    UnknownUser(String),
    /// The client has come in when its user was another one's there.
    #[error("the client came in when its account was {then:?}; since a reload it is {now:?}")]
    OtherAccount {
        /// The database's user at that time.
        then: String,
        /// The database's user now.
        now: String,
    },
}

impl From<net::LoginError> for ConnectError {
    fn from(error: net::LoginError) -> Self {
        match error {
            net::LoginError::Network(error) => Self::Network(error),
            net::LoginError::Tls(error) | net::LoginError::Lost(error) => Self::Lost(error),
            net::LoginError::Login(error) => Self::Login(error),
        }
    }
}

/// Carries out what the pools order, until they are gone. Run it inside a `LocalSet`.
pub async fn run<P: Protocol>(pools: Arc<Pools<P>>, mut orders: mpsc::UnboundedReceiver<Order<P>>, target: Target) {
    let target = Rc::new(target);
    pools.counts.speaks_tls.set(u64::from(pools.dial.way().has_tls()));
    while let Some(order) = orders.recv().await {
        let (key, pool_key, instead_of) = match order {
            Order::Open { key, pool_key, instead_of } => (key, pool_key, instead_of),
            Order::Leave(leaving) => {
                tokio::task::spawn_local(leaving.end());
                continue;
            }
        };
        pools.counts.database_connection_requests.add(1);
        let (pools, target) = (Arc::clone(&pools), Rc::clone(&target));
        tokio::task::spawn_local(async move {
            if let Some(connection) = instead_of {
                connection.leave().await;
            }
            match open::<P>(&target, &pools.dial, &pool_key).await {
                Ok(connection) => pools.opened(key, connection),
                Err(error) => pools.open_failed(key, &pool_key, &error),
            }
        });
    }
}

/// Logs in; once more if the database has refused a password that has changed meanwhile. Never as another one than those
/// who wait for it came in for.
async fn open<P: Protocol>(
    target: &Rc<Target>,
    dial: &Dial,
    key: &PoolKey,
) -> Result<Box<ServerConn<P>>, ConnectError> {
    let login = || match target.logins.login(&key.user) {
        Some((account, secret)) if account == key.account => Ok((account, secret)),
        Some((now, _)) => Err(ConnectError::OtherAccount { then: key.account.clone(), now }),
        None => Err(ConnectError::UnknownUser(key.user.clone())),
    };
    let within = |login: (String, Option<LoginSecret>)| async {
        let (limit, now) = (dial.way().timeout(), tokio::time::Instant::now());
        let deadline = now + limit;
        let login = tokio::time::timeout_at(deadline, log_in::<P>(target, dial, key, login)).await;
        let connection = login.unwrap_or(Err(ConnectError::Timeout(limit)))?;
        initialize(target, connection, deadline, limit).await
    };
    if target.hung.get() >= HUNG_MAX {
        return Err(ConnectError::InitTimeout(dial.way().timeout()));
    }
    let (user, secret) = login()?;
    match within((user, secret.clone())).await {
        Err(error) if blames(&error, secret.as_ref()) && target.logins.refused(&key.user, secret).await => {
            within(login()?).await
        }
        ended => ended,
    }
}

/// Makes a new connection what clients are to find.
async fn initialize<P: Protocol>(
    target: &Rc<Target>,
    mut connection: Box<ServerConn<P>>,
    deadline: tokio::time::Instant,
    timeout: Duration,
) -> Result<Box<ServerConn<P>>, ConnectError> {
    let Some(query) = &target.init_query else { return Ok(connection) };
    let ServerConn { machine, pending, .. } = &mut *connection;
    machine.initialize(query, pending);
    let Ok(settled) = tokio::time::timeout_at(deadline, connection.settle()).await else {
        // The database does not notice that nobody waits any more: it is watched until it does.
        let target = Rc::clone(target);
        target.hung.set(target.hung.get() + 1);
        tokio::task::spawn_local(async move {
            // However that ends (keepalive ends it where the peer has gone), the connection ends with it.
            let _ = connection.settle().await;
            target.hung.set(target.hung.get() - 1);
        });
        return Err(ConnectError::InitTimeout(timeout));
    };
    if let Some(AttachFailure::InitQuery(error) | AttachFailure::Settings(error)) = connection.machine.attach_failure()
    {
        return Err(ConnectError::InitQuery(error));
    }
    settled?;
    Ok(connection)
}

async fn log_in<P: Protocol>(
    target: &Target,
    dial: &Dial,
    key: &PoolKey,
    (user, secret): (String, Option<LoginSecret>),
) -> Result<Box<ServerConn<P>>, ConnectError> {
    let machine = P::connect(ConnectOptions {
        user,
        database: key.database.clone(),
        fixed: key.fixed.clone(),
        secret,
        tls: dial.way().has_tls(),
        local_socket: dial.way().is_local_socket(),
        nonce: rand::random(),
        max_prepared_statements: target.max_prepared_statements,
        statement_key: target.statement_key,
        learned: Arc::clone(&target.learned),
    });
    let (server, stream, input) = dial.way().log_in(machine).await?;
    let lifetime = target.lifetime.map(|lifetime| lifetime.mul_f64(rand::random_range(0.9..=1.0)));
    let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
    Ok(Box::new(ServerConn::new(stream, server, input, expires)))
}

impl<P: Protocol> Pools<P> {
    /// What is told to a client whose connection could not be made what it must find.
    pub(super) fn attach_failed(&self, failure: AttachFailure) -> ClientError {
        let group = self.group.clone();
        match failure {
            AttachFailure::InitQuery(error) => {
                let (mut state, now) = (self.lock(), Instant::now());
                if state.init_told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_AGAIN) {
                    state.init_told = Some(now);
                    drop(state);
                    tracing::warn!(group, %error, "init_query failed where it was run before");
                }
                ClientError::InitQuery { group, code: error.code }
            }
            // Words of a connection that ends would make the client's pool throw away a session that goes on.
            AttachFailure::Settings(error) if error.is_fatal => ClientError::ConnectionsLost { group },
            AttachFailure::Settings(error) => ClientError::Server(error),
        }
    }

    pub(super) fn opened(self: &Arc<Self>, key: Key, connection: Box<ServerConn<P>>) {
        self.lock().unreachable = false;
        self.counts.database_connections_opened.add(1);
        tracing::debug!(group = self.group, "database connection opened");
        Lease::new(self, key, connection).arrive();
    }

    pub(super) fn open_failed(&self, key: Key, pool_key: &PoolKey, error: &ConnectError) {
        let (words, failure) = (self.words(pool_key, error), failure(error));
        self.counts.database_connections_failed.of(failure).add(1);
        let mut state = self.lock();
        let refused = state.line.open_failed(key, words.is_some(), Instant::now(), rand::random());
        state.unreachable = words.is_none() && failure != OpenFailure::Full;
        self.open_more(&mut state);
        drop(state);
        tracing::warn!(
            group = self.group,
            user = pool_key.user,
            database = pool_key.database,
            %error,
            waiting = refused.len(),
            "can't log in at the database"
        );
        for waiter in refused {
            if let Some(words) = &words {
                // One that has gone meanwhile need not be told.
                let _ = waiter.send(Err(words.clone()));
            }
        }
    }

    /// What clients are told; `None`: nothing yet, it may work the next time.
    fn words(&self, key: &PoolKey, error: &ConnectError) -> Option<ClientError> {
        let group = self.group.clone();
        let code = match error {
            ConnectError::InitQuery(error) if error.is_fatal => return None,
            ConnectError::InitQuery(error) => return Some(ClientError::InitQuery { group, code: error.code.clone() }),
            ConnectError::InitTimeout(limit) => {
                return Some(ClientError::InitQuery { group, code: format!("nothing within {limit:?}") });
            }
            ConnectError::Network(_) | ConnectError::Lost(_) | ConnectError::Timeout(_) => return None,
            ConnectError::Login(HandshakeError::Server(error)) => match error.meaning() {
                Meaning::NoSuchDatabase => return Some(ClientError::Server(error.clone())),
                Meaning::Full | Meaning::NotReady => return None,
                // About what the client's own options ask for.
                Meaning::Other if !key.fixed.is_empty() => return Some(ClientError::Server(error.clone())),
                Meaning::Other | Meaning::WrongPassword | Meaning::LoginRefused => error.code.clone(),
            },
            ConnectError::Login(HandshakeError::TlsDeclined) => "that it has no TLS".to_owned(),
            ConnectError::Login(HandshakeError::Standby) => "that it is a standby, not the writer".to_owned(),
            ConnectError::Login(_) => "in a way the proxy can't use".to_owned(),
            ConnectError::UnknownUser(_) => "nothing: the user is not configured".to_owned(),
            ConnectError::OtherAccount { .. } => "nothing: the user has another account since a reload".to_owned(),
        };
        Some(ClientError::TargetLogin { group, user: key.user.clone(), code })
    }
}

/// The secret is to blame, or that there was none; not the database's rules about who may come from where.
pub(super) fn blames(error: &ConnectError, secret: Option<&LoginSecret>) -> bool {
    let ConnectError::Login(error) = error else { return false };
    if let HandshakeError::Server(error) = error {
        return error.meaning() == Meaning::WrongPassword;
    }
    matches!(error, HandshakeError::NoPassword(_)) && secret.is_none()
}

/// As counted.
fn failure(error: &ConnectError) -> OpenFailure {
    match error {
        ConnectError::Network(net::ConnectError::Timeout { .. })
        | ConnectError::Timeout(_)
        | ConnectError::InitTimeout(_) => OpenFailure::Timeout,
        ConnectError::InitQuery(_) => OpenFailure::Database,
        ConnectError::Lost(error) if error.get_ref().is_some_and(|source| source.is::<rustls::Error>()) => {
            OpenFailure::Tls
        }
        ConnectError::Network(_) | ConnectError::Lost(_) => OpenFailure::Network,
        ConnectError::Login(HandshakeError::TlsDeclined) => OpenFailure::Tls,
        ConnectError::Login(HandshakeError::Server(error)) => match error.meaning() {
            Meaning::Full => OpenFailure::Full,
            Meaning::WrongPassword | Meaning::LoginRefused => OpenFailure::Login,
            Meaning::NoSuchDatabase | Meaning::NotReady | Meaning::Other => OpenFailure::Database,
        },
        ConnectError::Login(HandshakeError::Standby) => OpenFailure::Database,
        ConnectError::Login(HandshakeError::Violation(_)) => OpenFailure::Protocol,
        ConnectError::Login(_) | ConnectError::UnknownUser(_) | ConnectError::OtherAccount { .. } => OpenFailure::Login,
    }
}
