//! What can go wrong, and what a client is told of it.
//!
//! A [`Violation`] is a breach of the wire protocol, a [`ServerError`] is the database's own word, a
//! [`ClientError`] is what the proxy itself tells a client. Each protocol turns the last into its own codes
//! (`design.md`, "What clients are told"). No text here holds an address or a secret.

use super::PinReason;
use std::time::Duration;

/// A breach of the protocol by a peer; a variant per breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A frame's length is impossible.
    #[error("invalid message length")]
    InvalidLength,
    /// A frame is longer than its kind may be.
    #[error("message too long")]
    FrameTooLong,
    /// A frame's type is not one that this side may send, or not here.
    #[error("invalid frontend message type {0}")]
    UnexpectedFrame(u8),
    /// A frame's body does not have its kind's form.
    #[error("invalid message format")]
    MalformedFrame(u8),
    /// A reply that nobody asked for.
    #[error("unexpected reply of type {0}")]
    UnexpectedReply(u8),
    /// The startup packet is not one.
    #[error("invalid startup packet")]
    InvalidStartup,
    /// A version of the protocol that nobody speaks.
    #[error("unsupported frontend protocol {0}.{1}")]
    UnsupportedVersion(u16, u16),
    /// Bytes in the clear behind a request for TLS (CVE-2021-23214, CVE-2021-23222).
    #[error("received unencrypted data after SSL request")]
    PlaintextAfterTlsRequest,
    /// TLS at once, without saying what is to be spoken over it.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoProtocolNamed,
    /// The authentication exchange breaks its rules.
    #[error("malformed authentication exchange")]
    MalformedAuthentication,
    /// What a client has packed does not unpack to what it says.
    #[error("malformed compressed packet")]
    MalformedPacking,
    /// More replies are owed than the queue may hold.
    #[error("too many requests in one pipeline")]
    PipelineTooDeep,
}

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The client was refused; the words for it are in `out` already.
    #[error("login refused: {0}")]
    Refused(ClientError),
    /// The database refused us.
    #[error("the database refused the login: {0}")]
    Server(ServerError),
    /// The database declined TLS, and the configuration demands it.
    #[error("the database does not offer TLS, but `tls` of its target group requires it")]
    TlsDeclined,
    /// The database asks for a proof this version can't give.
    #[error("the database asks for an authentication method that is not supported: {0}")]
    UnsupportedMethod(&'static str),
    /// The database asks for a password and there is none, or it would travel in the clear.
    #[error("the database asks for a password: {0}")]
    NoPassword(&'static str),
    /// The database's challenge (SCRAM) can't be answered; the driver's word.
    #[error("the database's challenge can't be answered: {0}")]
    Challenge(String),
    /// The database could not prove that it knows the password (SCRAM's server signature).
    #[error("the database did not prove that it knows the password")]
    ServerNotProven,
    /// The database is a standby, where a writer is wanted.
    #[error("the target is a standby (in_hot_standby is on); it can't be the writer")]
    Standby,
}

/// An error in the database's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ServerError {
    /// SQLSTATE (or errno).
    pub code: String,
    /// The primary message. May hold names and addresses: for the log, unless the code is one that passes.
    pub message: String,
    /// The connection ends with it.
    pub is_fatal: bool,
    /// The whole frame, as it came.
    pub frame: Vec<u8>,
}

/// What a database's error means for who logs in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// There is no such database, or not for this user.
    NoSuchDatabase,
    /// What was proven is wrong.
    WrongPassword,
    /// The login is refused for another reason: address, database, role.
    LoginRefused,
    /// The database, or one of its users, has as many connections as it may have.
    Full,
    /// It starts or goes down.
    NotReady,
    /// Anything else.
    Other,
}

impl ServerError {
    /// By its code: five letters and digits are an SQLSTATE of PostgreSQL's, digits alone an error number of MySQL's.
    pub fn meaning(&self) -> Meaning {
        match self.code.as_str() {
            "3D000" | "1044" | "1049" => Meaning::NoSuchDatabase,
            "28P01" | "1045" => Meaning::WrongPassword,
            "53300" | "1040" | "1203" | "1226" => Meaning::Full,
            "1053" => Meaning::NotReady,
            "1129" | "1130" | "1698" | "1820" | "1862" | "3118" => Meaning::LoginRefused,
            code if code.starts_with("57P") => Meaning::NotReady,
            code if code.starts_with("28") => Meaning::LoginRefused,
            _ => Meaning::Other,
        }
    }
}

/// What the proxy itself tells a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The endpoint wants TLS.
    #[error("this endpoint requires TLS: connect with sslmode=require or stricter")]
    TlsRequired,
    /// A password or token would travel in the clear.
    #[error(
        "this login needs TLS, a password or token would travel in the clear: connect with sslmode=require or stricter"
    )]
    PasswordInClear,
    /// Wrong password or unknown user: the same words.
    #[error("password authentication failed for user \"{user}\"")]
    LoginRefused {
        /// As the client sent it.
        user: String,
    },
    /// A token that is none, or lets nobody in: the same words for every reason.
    #[error("IAM authentication failed for user \"{user}\"")]
    TokenRefused {
        /// As the client sent it.
        user: String,
    },
    /// No client certificate, or one for another name.
    #[error("certificate authentication failed for user \"{user}\"")]
    CertificateRefused {
        /// As the client sent it.
        user: String,
    },
    /// The database could not be asked about the user.
    #[error("users of target group \"{group}\" can't be looked up at the moment; see the proxy's log")]
    LookupFailed {
        /// Target group.
        group: String,
    },
    /// No user name in the startup packet.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUserName,
    /// The login took too long.
    #[error("canceling authentication due to timeout (login_timeout)")]
    LoginTimeout,
    /// `max_clients`.
    #[error("too many clients already: endpoint \"{endpoint}\" allows {limit} (max_clients)")]
    TooManyClients {
        /// The endpoint's name.
        endpoint: String,
        /// Its limit.
        limit: usize,
    },
    /// `max_clients` of the user.
    #[error("too many clients already: user \"{user}\" may have {limit} (max_clients of this user)")]
    TooManyUserClients {
        /// The client's user.
        user: String,
        /// Its limit.
        limit: usize,
    },
    /// `max_logins_per_second`.
    #[error("too many logins: endpoint \"{endpoint}\" takes {limit} per second (max_logins_per_second)")]
    TooManyLogins {
        /// The endpoint's name.
        endpoint: String,
        /// Its limit.
        limit: u32,
    },
    /// One address has too many logins that are not done.
    #[error(
        "too many logins from your address at the same time: endpoint \"{endpoint}\" takes {limit} (three quarters of max_clients)"
    )]
    TooManyLoginsAtOnce {
        /// The endpoint's name.
        endpoint: String,
        /// Its limit for one address.
        limit: usize,
    },
    /// One address has had too many proofs refused.
    #[error("too many failed logins from your address: wait a second, and check its users and passwords")]
    TooManyFailedLogins,
    /// `allow_from`.
    #[error("your address may not connect to endpoint \"{endpoint}\" (allow_from)")]
    AddressNotAllowed {
        /// The endpoint's name.
        endpoint: String,
    },
    /// `replication=` in the startup packet.
    #[error("replication connections do not go through the proxy: connect to the database directly for replication")]
    Replication,
    /// No connection in time.
    #[error(
        "Timed-out waiting to acquire database connection: none of target group \"{group}\" became free within {waited:?} (connection_borrow_timeout)"
    )]
    BorrowTimeout {
        /// Target group.
        group: String,
        /// The limit.
        waited: Duration,
    },
    /// No connection in time, because the user has as many as it may have.
    #[error(
        "Timed-out waiting to acquire database connection: user \"{user}\" may have {limit} at target group \"{group}\" \
         (max_connections of this user), and none of them became free within {waited:?} (connection_borrow_timeout)"
    )]
    UserBorrowTimeout {
        /// The client's user.
        user: String,
        /// Its limit.
        limit: usize,
        /// Target group.
        group: String,
        /// How long it may take.
        waited: Duration,
    },
    /// The waiting line is full.
    #[error(
        "too many clients are waiting for a database connection of target group \"{group}\": {limit} already (max_waiting)"
    )]
    LineFull {
        /// Target group.
        group: String,
        /// The limit.
        limit: usize,
    },
    /// No target answered in time.
    #[error("no writer of target group \"{group}\" could be reached within {waited:?} (connection_borrow_timeout)")]
    NoWriter {
        /// Target group.
        group: String,
        /// The limit.
        waited: Duration,
    },
    /// Connections break before anything can be sent on them.
    #[error(
        "no usable database connection of target group \"{group}\": each that was tried was lost before the statement \
         was sent; it was not run"
    )]
    ConnectionsLost {
        /// Target group.
        group: String,
    },
    /// One user has asked for too many databases.
    #[error(
        "too many different databases and login-only parameters (`options`) are in use by user \"{user}\": {limit}; use \
         fewer, or wait until some are free"
    )]
    TooManyPools {
        /// The client's user.
        user: String,
        /// The limit.
        limit: usize,
    },
    /// The database refuses the proxy's login.
    #[error(
        "the proxy could not log in at target group \"{group}\" as \"{user}\" (the database answered {code}); see the proxy's log"
    )]
    TargetLogin {
        /// Target group.
        group: String,
        /// The database user.
        user: String,
        /// The database's code, or a word.
        code: String,
    },
    /// `init_query` failed on a new database connection, or when it was run again.
    #[error(
        "a database connection of target group \"{group}\" could not be made ready: init_query failed (the database \
         answered {code}); see the proxy's log"
    )]
    InitQuery {
        /// Target group.
        group: String,
        /// The database's code, or what came instead.
        code: String,
    },
    /// The database's own words, passed on.
    #[error("{0}")]
    Server(ServerError),
    /// The server connection was lost while replies were owed.
    #[error("the connection to the database was lost; the statement may or may not have been committed")]
    OutcomeUnknown,
    /// The server connection was lost, and with it a transaction that nothing can have committed.
    #[error("the database failed over; this transaction was rolled back, run it again")]
    TransactionLost,
    /// The server connection was lost, and with it what lived on it.
    #[error("the connection to the database was lost, and with it the state of this session")]
    StateLost,
    /// `transaction_idle_timeout`.
    #[error("terminating connection due to idle-in-transaction timeout of {limit:?} (transaction_idle_timeout)")]
    TransactionIdle {
        /// The limit.
        limit: Duration,
    },
    /// `idle_client_timeout`.
    #[error("terminating connection because it was idle for {limit:?} (idle_client_timeout)")]
    ClientIdle {
        /// The limit.
        limit: Duration,
    },
    /// `pin_on`.
    #[error(
        "{} is refused: it would keep a database connection for this client alone (pin_on.{reason} = \"reject\")",
        reason.feature()
    )]
    PinRefused {
        /// Why it would.
        reason: PinReason,
    },
    /// `pin_max_percent`.
    #[error(
        "{} is refused: it would keep a database connection for this client alone, and of target group \"{group}\" no more \
         than {limit} may be kept so (pin_max_percent = {percent})",
        reason.feature()
    )]
    PinLimit {
        /// Why it would.
        reason: PinReason,
        /// Target group.
        group: String,
        /// How many connections that is.
        limit: usize,
        /// The setting.
        percent: u8,
    },
    /// The request that was to open a transaction has been refused: what came behind it must not run outside of one.
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    TransactionRefused,
    /// A client has as many prepared statements as the proxy keeps for one.
    #[error(
        "this client has as many prepared statements as the proxy keeps: {statements}, or {bytes} bytes of their texts"
    )]
    TooManyStatements {
        /// How many.
        statements: usize,
        /// Of their texts.
        bytes: usize,
    },
    /// A text names more prepared statements than are followed.
    #[error("a query may name prepared statements (PREPARE, EXECUTE, DEALLOCATE) no more than {limit} times")]
    TooManyNames {
        /// How often.
        limit: usize,
    },
    /// `pin_idle_timeout`.
    #[error(
        "terminating connection because it was idle for {limit:?} while it kept a database connection (pin_idle_timeout)"
    )]
    PinIdle {
        /// The limit.
        limit: Duration,
    },
    /// The client asked for it while it stood in line.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// Another client of the same user has ended it.
    #[error("Connection was killed")]
    Killed,
    /// `query_timeout`.
    #[error("canceling statement because it ran for {limit:?} (query_timeout)")]
    QueryTooLong {
        /// The limit.
        limit: Duration,
    },
    /// `transaction_max`.
    #[error("the transaction was open for {limit:?} (transaction_max) and is rolled back")]
    TransactionTooLong {
        /// The limit.
        limit: Duration,
    },
    /// A request that is understood and not served.
    #[error("{feature} can't be used through the proxy")]
    Unsupported {
        /// In the client's words.
        feature: &'static str,
    },
    /// A request that is not known here, and that the session survives.
    #[error("Unknown command")]
    UnknownCommand,
    /// SIGTERM.
    #[error("terminating connection: the proxy is going down; connect again")]
    GoingDown,
    /// The client broke the protocol.
    #[error("{0}")]
    Protocol(Violation),
    /// An error in the proxy.
    #[error("internal error of the proxy; see its log")]
    Internal,
}

/// Whose fault: the label in metrics and the level in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The client did something it may not.
    Client,
    /// A login was refused.
    Auth,
    /// A limit of the pool.
    Pool,
    /// The database said so.
    Server,
    /// A connection was lost.
    Network,
    /// The proxy itself.
    Proxy,
}

impl ErrorKind {
    /// As in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Auth => "auth",
            Self::Pool => "pool",
            Self::Server => "server",
            Self::Network => "network",
            Self::Proxy => "proxy",
        }
    }
}

impl ClientError {
    /// Whose fault it is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TlsRequired
            | Self::PasswordInClear
            | Self::Replication
            | Self::NoUserName
            | Self::Protocol(_)
            | Self::ClientIdle { .. }
            | Self::PinIdle { .. }
            | Self::PinRefused { .. }
            | Self::TransactionIdle { .. }
            | Self::Cancelled
            | Self::Killed
            | Self::QueryTooLong { .. }
            | Self::TransactionTooLong { .. } => ErrorKind::Client,
            Self::TooManyStatements { .. }
            | Self::TooManyNames { .. }
            | Self::TransactionRefused
            | Self::Unsupported { .. }
            | Self::UnknownCommand => ErrorKind::Client,
            Self::LoginRefused { .. }
            | Self::TokenRefused { .. }
            | Self::CertificateRefused { .. }
            | Self::LoginTimeout
            | Self::AddressNotAllowed { .. } => ErrorKind::Auth,
            Self::TooManyClients { .. }
            | Self::TooManyUserClients { .. }
            | Self::TooManyLoginsAtOnce { .. }
            | Self::TooManyFailedLogins
            | Self::TooManyLogins { .. }
            | Self::BorrowTimeout { .. }
            | Self::UserBorrowTimeout { .. }
            | Self::LineFull { .. }
            | Self::PinLimit { .. }
            | Self::TooManyPools { .. } => ErrorKind::Pool,
            Self::TargetLogin { .. } | Self::InitQuery { .. } | Self::Server(_) => ErrorKind::Server,
            Self::LookupFailed { .. } => ErrorKind::Server,
            Self::NoWriter { .. } | Self::ConnectionsLost { .. } => ErrorKind::Network,
            Self::OutcomeUnknown | Self::TransactionLost | Self::StateLost => ErrorKind::Network,
            Self::GoingDown | Self::Internal => ErrorKind::Proxy,
        }
    }
}
