//! What `proxy.toml` becomes: plain data, already checked.
//!
//! Whoever holds one of these need not check it again: names are unique and resolve, files could be read, secrets are
//! at hand, numbers and durations are in range. Each part of the proxy is given its own piece, never the whole.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::secret::Secret;
use crate::protocol::PinPolicy;

/// The whole file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect; at least one.
    pub endpoints: Vec<EndpointConfig>,
    /// The databases behind them; at least one.
    pub target_groups: Vec<TargetGroupConfig>,
    /// Who may come in.
    pub users: Vec<UserConfig>,
    /// Signed tokens; always there when a user uses them.
    pub iam: Option<IamConfig>,
    /// What the proxy's own tokens are signed with; always there when a user's `database_auth` is `Iam`.
    pub access_key: Option<AccessKeyConfig>,
    /// The certificate shown to clients; always there when an endpoint takes TLS.
    pub tls: Option<TlsConfig>,
    /// The HTTP side for operators.
    pub admin: AdminConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Threads, shutdown and the state folder.
    pub runtime: RuntimeConfig,
    /// Legal, but probably not meant; for the log and for `check`.
    pub warnings: Vec<String>,
}

/// One `[[endpoint]]`: a place where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Its name in metrics and logs; unique.
    pub name: String,
    /// The addresses it listens on; at least one.
    pub listen: Vec<ListenAddress>,
    /// The names and ports that clients' tokens may be signed for, in lower case.
    pub hostnames: Vec<(String, u16)>,
    /// The name of an existing target group.
    pub target_group: String,
    /// Which of the group's targets serve it.
    pub role: EndpointRole,
    /// Whether clients must, may or can't use TLS. A unix socket satisfies `Required`.
    pub tls: EndpointTls,
    /// How long a client may be idle outside a transaction; `None`: for ever.
    pub idle_client_timeout: Option<Duration>,
    /// How long a login may take, TLS handshake included.
    pub login_timeout: Duration,
    /// How many clients may be connected at a time.
    pub max_clients: usize,
    /// How many clients may begin to log in within a second; `None`: any number.
    pub max_logins_per_second: Option<u32>,
    /// The networks clients may come from; unix sockets are not asked.
    pub allow_from: Vec<IpNet>,
    /// The networks of balancers that say with a PROXY protocol header whom they bring, and must.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// An address an endpoint listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket named `.s.PGSQL.PORT`, as clients expect it.
    Unix(PathBuf),
}

/// Which targets an endpoint's statements go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointRole {
    /// Everything goes to the writer.
    ReadWrite,
}

/// TLS between a client and an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointTls {
    /// A client without TLS is refused.
    Required,
    /// The client decides.
    Optional,
    /// TLS is declined.
    Off,
}

/// One `[[target_group]]`: the databases behind endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetGroupConfig {
    /// Its name in metrics and logs; unique.
    pub name: String,
    /// The protocol its databases speak.
    pub engine: Engine,
    /// How its targets are found.
    pub discovery: Discovery,
    /// Where they are: exactly one. With `Discovery::Dns` this is the writer endpoint.
    pub targets: Vec<TargetAddress>,
    /// TLS towards them; not used over a unix socket.
    pub tls: TargetTls,
    /// `[target_group.pool]`
    pub pool: PoolConfig,
    /// `[target_group.health]`
    pub health: HealthConfig,
    /// `[target_group.auth_query]`; `None`: not enabled.
    pub auth_query: Option<AuthQueryConfig>,
}

/// The protocol a target group's databases speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    MySql,
}

/// How a group's targets are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// They are listed.
    Static,
    /// A DNS name leads to the writer; it is resolved anew for each connection.
    Dns,
}

/// Where a database server listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetAddress {
    /// A host name or IP address (IPv6 without brackets) and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, never 0.
        port: u16,
    },
    /// A unix socket named `.s.PGSQL.PORT`.
    Unix(PathBuf),
}

/// TLS towards targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTls {
    /// How much is asked of the server's certificate.
    pub mode: TargetTlsMode,
    /// The CAs trusted, in PEM; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// How much is asked of a target's certificate, in libpq's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetTlsMode {
    /// Signed by a trusted CA, for the host name connected to.
    VerifyFull,
    /// Signed by a trusted CA.
    VerifyCa,
    /// Any certificate.
    Require,
    /// No TLS.
    Off,
}

/// `[target_group.pool]`: the database connections and who waits for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// How many connections a target is given at most.
    pub max_connections: ConnectionLimit,
    /// The share of that maximum that may be idle, 1 to 100.
    pub max_idle_connections_percent: u8,
    /// How many connections each pool has open while a client of it is there.
    pub min_connections: usize,
    /// How long a client waits for a connection.
    pub connection_borrow_timeout: Duration,
    /// How many clients may wait; one more is refused at once.
    pub max_waiting: usize,
    /// How long connecting and logging in at a target may take.
    pub connect_timeout: Duration,
    /// How many logins may be in progress at one target.
    pub max_logins_in_progress: usize,
    /// The age at which a connection is replaced; `None`: never.
    pub connection_max_lifetime: Option<Duration>,
    /// How long a connection stays open unused; `None`: for ever.
    pub connection_idle_timeout: Option<Duration>,
    /// What is run on each new connection.
    pub init_query: Option<Arc<str>>,
    /// When a connection goes back.
    pub pool_mode: PoolMode,
    /// What is reset between two clients.
    pub reset: ResetPolicy,
    /// How long a client may be idle inside a transaction; `None`: for ever.
    pub transaction_idle_timeout: Option<Duration>,
    /// How long a transaction may be open; `None`: for ever.
    pub transaction_max: Option<Duration>,
    /// How long a query may run; `None`: for ever.
    pub query_timeout: Option<Duration>,
    /// What becomes of statements that would pin their client.
    pub pin_on: PinPolicy,
    /// The share of a target's connections that pinned clients may keep, 1 to 100.
    pub pin_max_percent: u8,
    /// How long a pinned client may be idle; `None`: for ever.
    pub pin_idle_timeout: Option<Duration>,
    /// Prepared statements kept per database connection.
    pub max_prepared_statements: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_connections: ConnectionLimit::Percent(90),
            max_idle_connections_percent: 50,
            min_connections: 0,
            connection_borrow_timeout: Duration::from_secs(120),
            max_waiting: 10_000,
            connect_timeout: Duration::from_secs(5),
            max_logins_in_progress: 8,
            connection_max_lifetime: Some(Duration::from_secs(3600)),
            connection_idle_timeout: Some(Duration::from_secs(300)),
            init_query: None,
            pool_mode: PoolMode::Transaction,
            reset: ResetPolicy::Smart,
            transaction_idle_timeout: Some(Duration::from_secs(300)),
            transaction_max: None,
            query_timeout: None,
            pin_on: PinPolicy::default(),
            pin_max_percent: 50,
            pin_idle_timeout: None,
            max_prepared_statements: 500,
        }
    }
}

/// How many connections a target is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// A share, 1 to 100, of the target's own `max_connections` less its reserved ones.
    Percent(u8),
    /// A number; the proxy's own connections count too.
    Absolute(u32),
}

/// When a client gives its connection back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When it leaves.
    Session,
}

/// What is reset when a connection changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetPolicy {
    /// Only what is dirty.
    Smart,
    /// Everything, between any two clients.
    Full,
}

/// `[target_group.health]`: the account that looks after the targets, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// The account's name.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The database it connects to.
    pub database: String,
    /// Between probes when all is well.
    pub interval: Duration,
    /// Between probes once something looks wrong.
    pub suspect_interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Probes missed in a row before a target is unavailable.
    pub failures: u32,
}

/// `[target_group.auth_query]`: users that stand in the database alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthQueryConfig {
    /// Gives a row of name and verifier for `$1`, or none.
    pub query: String,
    /// The account that asks it.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The database it connects to.
    pub database: String,
    /// How long an answer holds; zero: not at all.
    pub cache: Duration,
    /// Superusers may not come in.
    pub deny_superuser: bool,
    /// Nor may those who may replicate.
    pub deny_replication: bool,
}

/// One `[[user]]`.
#[derive(Debug, Clone)]
pub struct UserConfig {
    /// The name clients log in with; unique.
    pub name: String,
    /// How they prove it.
    pub auth: AuthMethod,
    /// At MySQL endpoints the password may be shown by `mysql_native_password`, which is weaker, as well.
    pub native_password: bool,
    /// For the database, and for clients; always there where `auth` needs one.
    pub password: Option<Secret>,
    /// The names of which a client's certificate must have one; at least the user's own.
    pub certificate_names: Vec<String>,
    /// The name used at the database.
    pub database_user: String,
    /// How the proxy proves itself there.
    pub database_auth: DatabaseAuth,
    /// The endpoints where this user may come in; `None`: everywhere.
    pub endpoints: Option<Vec<String>>,
    /// Clients that may be logged in as this user at a time, over the whole proxy; `None`: any number.
    pub max_clients: Option<usize>,
    /// Database connections that this user's clients may have at one target; `None`: as many as there are.
    pub max_connections: Option<usize>,
}

impl UserConfig {
    /// Whether this user may come in at the endpoint of that name.
    pub fn may_use(&self, endpoint: &str) -> bool {
        self.endpoints.as_ref().is_none_or(|names| names.iter().any(|name| name == endpoint))
    }
}

/// How the proxy proves itself at a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseAuth {
    /// By the user's password, in whatever way the database asks for it.
    Password,
    /// By a signed token of its own.
    Iam,
}

/// The access key that the proxy's own tokens are signed with: `AWS_ACCESS_KEY_ID` and its kin.
#[derive(Debug, Clone)]
pub struct AccessKeyConfig {
    /// Its public part.
    pub access_key_id: String,
    /// Its secret part.
    pub secret_access_key: Secret,
    /// For temporary keys.
    pub session_token: Option<Secret>,
    /// Where the databases are.
    pub region: String,
}

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// SCRAM-SHA-256 with the user's password.
    ScramSha256,
    /// The old challenge with the user's password.
    Md5,
    /// A signed token, under TLS.
    Iam,
    /// A signed token or the password itself, under TLS.
    IamOrPassword,
    /// A client certificate.
    Certificate,
}

impl AuthMethod {
    /// A signed token will do.
    pub const fn takes_tokens(self) -> bool {
        matches!(self, Self::Iam | Self::IamOrPassword)
    }

    /// What the client proves is that it knows the user's password.
    pub const fn needs_password(self) -> bool {
        matches!(self, Self::ScramSha256 | Self::Md5 | Self::IamOrPassword)
    }
}

/// `[iam]`: signed tokens, and the keys this proxy knows.
#[derive(Debug, Clone)]
pub struct IamConfig {
    /// The region tokens must be signed for.
    pub region: String,
    /// The account in policies.
    pub account: String,
    /// This proxy's name in policies.
    pub resource_id: String,
    /// The access keys, at least one; their ids are unique.
    pub identities: Vec<IdentityConfig>,
    /// No token is good for longer, at most 15 minutes.
    pub max_token_age: Duration,
    /// How far a signer's clock may be ahead.
    pub clock_skew: Duration,
}

/// An `[[identity]]`: an access key and what it may do.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// Its public part.
    pub access_key_id: String,
    /// Its secret part.
    pub secret_access_key: Secret,
    /// When set, a token must carry exactly this one.
    pub session_token: Option<Secret>,
    /// Its policy; without an Allow it may do nothing.
    pub statements: Vec<StatementConfig>,
}

/// A statement of a policy, in the shape of IAM's.
#[derive(Debug, Clone)]
pub struct StatementConfig {
    /// What it says.
    pub effect: Effect,
    /// Patterns of actions.
    pub actions: Vec<String>,
    /// Patterns of resources.
    pub resources: Vec<String>,
}

/// What a statement does where it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Lets in, unless another denies.
    Allow,
    /// Keeps out, whatever others say.
    Deny,
}

/// `[tls]`: the certificate shown to clients. Both files could be opened when the configuration was read.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The certificate chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub private_key: PathBuf,
    /// The CA that clients' certificates must be signed by, in PEM. `None`: none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// A loopback address for HTTP; `None`: off.
    pub listen: Option<SocketAddr>,
    /// Host headers that are answered, beside the bound address.
    pub hostnames: Vec<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9632))), hostnames: vec!["localhost".to_owned()] }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// A level or a filter, in the syntax of `tracing_subscriber::filter::Targets`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[runtime]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// How long SIGTERM waits for transactions to end; zero: not at all.
    pub shutdown_timeout: Duration,
    /// Where the proxy remembers things over a restart.
    pub state_dir: PathBuf,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { workers: 0, shutdown_timeout: Duration::from_secs(30), state_dir: PathBuf::from("/var/lib/sluicegate") }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
