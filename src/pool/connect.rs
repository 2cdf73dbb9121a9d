//! Opens server connections: drives the login machine over a new stream, then `init_query`, within `connect_timeout`.
//!
//! How many logins are under way at once, and how long the pause after a failure is, the line says. The database's own
//! words about a failed login hold addresses and blame the wrong password: they go to the log; the client learns the
//! group, the user and the code (two codes pass: no such database, and the database's own "too many"; and what it says
//! about options of the client's own that only a login can set).

use super::line::Key;
use super::{Lease, Order, PoolKey, Pools, ServerConn};
use crate::config::TargetAddress;
use crate::metrics::OpenFailure;
use crate::net;
use crate::net::certificate::end_point_binding;
use crate::protocol::{
    Answer, AttachFailure, ClientError, ConnectOptions, Handshake, HandshakeError, LoginSecret, Protocol, Secured,
    ServerError, ServerSide, Step, Violation,
};
use rustls_pki_types::ServerName;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A database's greeting is short; more than this is not one.
const GREETING_BYTES_MAX: usize = 256 << 10;
/// Connections on which `init_query` hangs beyond its time; a login more would leave another one at the database.
const HUNG_MAX: usize = 4;
/// What may happen at every hand-over is logged no more often.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// Codes that a client may see as the database said them: no such database, too many connections.
const PASSED_CODES: &[&str] = &["3D000", "53300"];

/// Where and how to log in.
pub struct Target {
    /// The address; a name is resolved anew for each login.
    pub address: TargetAddress,
    /// TLS, unless the target goes without.
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// For one login, from the first packet to the database's readiness.
    pub timeout: Duration,
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
}

/// Performs the logins that the pools order, until they are gone. Run it inside a `LocalSet`.
pub async fn run<P: Protocol>(pools: Arc<Pools<P>>, mut orders: mpsc::UnboundedReceiver<Order<P>>, target: Target) {
    let target = Rc::new(target);
    while let Some(Order { key, pool_key, instead_of }) = orders.recv().await {
        let (pools, target) = (Arc::clone(&pools), Rc::clone(&target));
        tokio::task::spawn_local(async move {
            if let Some(connection) = instead_of {
                connection.leave().await;
            }
            match open::<P>(&target, &pool_key).await {
                Ok(connection) => pools.opened(key, connection),
                Err(error) => pools.open_failed(key, &pool_key, &error),
            }
        });
    }
}

/// Logs in; once more if the database has refused a password that has changed meanwhile.
async fn open<P: Protocol>(target: &Rc<Target>, key: &PoolKey) -> Result<Box<ServerConn<P>>, ConnectError> {
    let login = || target.logins.login(&key.user).ok_or_else(|| ConnectError::UnknownUser(key.user.clone()));
    let within = |login: (String, Option<LoginSecret>)| async {
        let deadline = tokio::time::Instant::now() + target.timeout;
        let login = tokio::time::timeout_at(deadline, log_in::<P>(target, key, login)).await;
        let connection = login.unwrap_or(Err(ConnectError::Timeout(target.timeout)))?;
        initialize(target, connection, deadline).await
    };
    if target.hung.get() >= HUNG_MAX {
        return Err(ConnectError::InitTimeout(target.timeout));
    }
    let (user, secret) = login()?;
    match within((user, secret.clone())).await {
        Err(error) if failure(&error) == OpenFailure::Login && target.logins.refused(&key.user, secret).await => {
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
) -> Result<Box<ServerConn<P>>, ConnectError> {
    let Some(query) = &target.init_query else { return Ok(connection) };
    let ServerConn { machine, pending, .. } = &mut *connection;
    machine.initialize(query, pending);
    let Ok(settled) = tokio::time::timeout_at(deadline, connection.settle()).await else {
        // The database does not notice that nobody waits any more: it is watched until it does.
        let target = Rc::clone(target);
        target.hung.set(target.hung.get() + 1);
        let timeout = target.timeout;
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
    key: &PoolKey,
    (user, secret): (String, Option<LoginSecret>),
) -> Result<Box<ServerConn<P>>, ConnectError> {
    let mut machine = P::connect(ConnectOptions {
        user,
        database: key.database.clone(),
        fixed: key.fixed.clone(),
        secret,
        tls: target.tls.is_some(),
        local_socket: matches!(target.address, TargetAddress::Unix(_)),
        nonce: rand::random(),
        max_prepared_statements: target.max_prepared_statements,
        statement_key: target.statement_key,
    });
    let mut stream = net::connect(&target.address, target.timeout).await?;
    let (mut input, mut out) = (Vec::new(), Vec::new());
    loop {
        let step = machine.step(&input, &mut out);
        stream.write_whole(&mut out).await?;
        let (taken, step) = step?;
        input.drain(..taken);
        match step {
            Step::NeedInput => {
                if input.len() > GREETING_BYTES_MAX {
                    return Err(HandshakeError::from(Violation::FrameTooLong).into());
                }
                if stream.read_more(&mut input).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
            Step::StartTls => {
                let Some((config, name)) = target.tls.clone() else {
                    return Err(HandshakeError::TlsDeclined.into());
                };
                stream = stream.into_tls_client(config, name).await?;
                let end_point = stream.peer_certificate().and_then(end_point_binding);
                machine.answer(Answer::TlsStarted(Secured { end_point, ..Secured::default() }));
            }
            Step::Ask(_) => return Err(HandshakeError::from(Violation::MalformedAuthentication).into()),
            Step::Done(server) => {
                let lifetime = target.lifetime.map(|lifetime| lifetime.mul_f64(rand::random_range(0.9..=1.0)));
                let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
                return Ok(Box::new(ServerConn::new(stream, server, input, expires)));
            }
        }
    }
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
        self.counts.database_connections_failed.of(failure(error)).add(1);
        let words = self.words(pool_key, error);
        let mut state = self.lock();
        let refused = state.line.open_failed(key, words.is_some(), Instant::now(), rand::random());
        state.unreachable = words.is_none();
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
            ConnectError::Login(HandshakeError::Server(error)) if PASSED_CODES.contains(&error.code.as_str()) => {
                return Some(ClientError::Server(error.clone()));
            }
            // Starting up, shutting down, in recovery.
            ConnectError::Login(HandshakeError::Server(error)) if error.code.starts_with("57P") => return None,
            // About what the client's own options ask for, unless the login itself failed (class 28).
            ConnectError::Login(HandshakeError::Server(error))
                if !key.fixed.is_empty() && !error.code.starts_with("28") =>
            {
                return Some(ClientError::Server(error.clone()));
            }
            ConnectError::Login(HandshakeError::Server(error)) => error.code.clone(),
            ConnectError::Login(HandshakeError::TlsDeclined) => "that it has no TLS".to_owned(),
            ConnectError::Login(HandshakeError::Standby) => "that it is a standby, not the writer".to_owned(),
            ConnectError::Login(_) => "in a way the proxy can't use".to_owned(),
            ConnectError::UnknownUser(_) => "nothing: the user is not configured".to_owned(),
        };
        Some(ClientError::TargetLogin { group, user: key.user.clone(), code })
    }
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
        ConnectError::Login(HandshakeError::Server(error)) if error.code == "53300" => OpenFailure::Full,
        ConnectError::Login(HandshakeError::Server(error)) if error.code.starts_with("28") => OpenFailure::Login,
        ConnectError::Login(HandshakeError::Server(_) | HandshakeError::Standby) => OpenFailure::Database,
        ConnectError::Login(HandshakeError::Violation(_)) => OpenFailure::Protocol,
        ConnectError::Login(_) | ConnectError::UnknownUser(_) => OpenFailure::Login,
    }
}
