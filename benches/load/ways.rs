//! The ways to the database that are measured beside each other: directly, through PgBouncer, through the proxy.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sluicegate::auth::{Keys, make_token};
use sluicegate::config::Secret;
use sluicegate::demo::servers::{APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD};
use sluicegate::net::tls::{SelfSigned, self_signed};

use super::{Database, Door, Process, Result, dies_with_us, free_port, provisioned};

/// Database connections for clients, of either proxy.
pub const CONNECTIONS: u32 = 20;
/// The proxy counts its own questions' connections too.
const OWN_CONNECTIONS: u32 = 2;

/// The proxy's user that comes in with a token, as the application at the database.
const TOKEN_USER: &str = "token";
const REGION: &str = "eu-central-1";
const KEY_ID: &str = "AKIAEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A way to the database.
pub struct Way {
    pub name: &'static str,
    pub port: u16,
    /// Where TLS is spoken; may be the same.
    tls_port: u16,
    /// Tokens are taken there.
    takes_tokens: bool,
    pub process: Option<Process>,
    _folder: Option<tempfile::TempDir>,
}

/// How clients prove themselves, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Plain,
    Tls,
    /// A token of its own, over TLS.
    Token,
}

impl Way {
    /// What clients must know; `None`: not by this way. `token`: what [`token`] has made for it.
    pub fn door<'a>(&self, entry: Entry, token: &'a str) -> Option<Door<'a>> {
        let tls = Door { port: self.tls_port, tls: true, user: APP, password: APP_PASSWORD };
        match entry {
            Entry::Plain => Some(Door::plain(self.port)),
            Entry::Tls => Some(tls),
            Entry::Token => self.takes_tokens.then_some(Door { user: TOKEN_USER, password: token, ..tls }),
        }
    }

    /// A token for this way, good for a quarter of an hour.
    pub fn token(&self) -> Result<String> {
        let keys = Keys {
            access_key_id: KEY_ID.to_owned(),
            secret_access_key: Secret::new(SECRET_KEY.to_owned()),
            session_token: None,
        };
        let token = make_token(&keys, "localhost", self.tls_port, TOKEN_USER, REGION, SystemTime::now());
        Ok(token.ok_or("no token can be made")?)
    }
}

/// Starts what is measured.
pub struct Starter {
    /// Builds of the proxy.
    proxy: PathBuf,
    other: Option<PathBuf>,
    /// With an endpoint that has TLS and tokens, which builds from before these don't know.
    with_tls: bool,
    certificate: SelfSigned,
}

impl Starter {
    pub fn new(proxy: &str, with_tls: bool) -> Result<Self> {
        let other = std::env::var_os("BENCH_OTHER").map(PathBuf::from);
        Ok(Self { proxy: proxy.into(), other, with_tls, certificate: self_signed(&["localhost", "127.0.0.1"])? })
    }

    /// For clients that check whom they speak to. They never have a ticket.
    pub fn client_tls(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.ca.as_bytes())?)?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Starts the way of this name, freshly, and waits until it answers. `None`: there is nothing to start.
    pub fn start(&self, name: &str, database: &Database) -> Result<Option<Way>> {
        let way = match (name, &self.other) {
            ("direct", _) => Way {
                name: "direct",
                port: database.server.port(),
                tls_port: database.server.port(),
                takes_tokens: false,
                process: None,
                _folder: None,
            },
            ("pgbouncer", _) => self.start_pgbouncer(database)?,
            ("proxy", _) => self.start_proxy("proxy", &self.proxy, 0, database)?,
            ("proxy-1", _) => self.start_proxy("proxy-1", &self.proxy, 1, database)?,
            ("other", Some(file)) => self.start_proxy("other", file, 0, database)?,
            ("other-1", Some(file)) => self.start_proxy("other-1", file, 1, database)?,
            ("other" | "other-1", None) => return Ok(None),
            (name, _) => return Err(format!("BENCH_VARIANTS knows no {name:?}").into()),
        };
        Ok(Some(way))
    }

    fn start_proxy(&self, name: &'static str, program: &Path, workers: u32, database: &Database) -> Result<Way> {
        let folder = tempfile::Builder::new().prefix("sluicegate-").tempdir()?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let login = "scram-sha-256";
        let mut text = proxy_config("postgres", login, (port, database.server.port()), workers, folder.path());
        if self.with_tls {
            text += &proxy_tls_config(tls_port, folder.path());
        }
        let identities = format!(
            "[[identity]]\naccess_key_id = '{KEY_ID}'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
             [[identity.statement]]\neffect = 'Allow'\naction = 'rds-db:connect'\n\
             resource = 'arn:aws:rds-db:{REGION}:123456789012:dbuser:prx-1/{TOKEN_USER}'\n"
        );
        let (certificate, key) = (&self.certificate.certificate, &self.certificate.private_key);
        for (name, text) in
            [("proxy.toml", &text), ("identities.toml", &identities), ("proxy.pem", certificate), ("proxy.key", key)]
        {
            write_private(&folder.path().join(name), text)?;
        }
        let mut process = serve(name, program, folder.path())?;
        database.wait_for(port, &mut process)?;
        Ok(Way { name, port, tls_port, takes_tokens: self.with_tls, process: Some(process), _folder: Some(folder) })
    }

    fn start_pgbouncer(&self, database: &Database) -> Result<Way> {
        let missing = "no PgBouncer here to compare with; run `make provision`, which installs it, or leave it out of BENCH_VARIANTS";
        let program = provisioned("PGBOUNCER").ok_or(missing)?;
        let chroot = PathBuf::from(provisioned("PGBOUNCER_CHROOT").ok_or(missing)?);
        let (user, group) = (provisioned("PG18_UID").ok_or(missing)?, provisioned("PG18_GID").ok_or(missing)?);
        let folder = tempfile::Builder::new().prefix("sluicegate-").tempdir_in(chroot.join("tmp"))?;
        let inside = Path::new("/").join(folder.path().strip_prefix(&chroot)?);
        let port = free_port()?;
        // The database's own verifier, as an operator would copy it: no password is hashed per login on either side.
        let verifier = database
            .server
            .run_sql("postgres", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{APP}'"))?;
        let users = format!("\"{APP}\" \"{verifier}\"\n");
        let config = pgbouncer_config(port, database.server.port(), &inside);
        let (certificate, key) = (&self.certificate.certificate, &self.certificate.private_key);
        for (name, text) in
            [("users.txt", &users), ("pgbouncer.ini", &config), ("proxy.pem", certificate), ("proxy.key", key)]
        {
            let file = folder.path().join(name);
            write_private(&file, text)?;
            chown(&file, Some(user.parse()?), Some(group.parse()?))?;
        }
        chown(folder.path(), Some(user.parse()?), Some(group.parse()?))?;
        let mut command = Command::new("chroot");
        command.arg(&chroot).args(["setpriv", "--reuid", &user, "--regid", &group, "--clear-groups"]);
        command.args(["--pdeathsig", "KILL", "--", "prlimit", "--nofile=16384", &program, "-q"]);
        command.arg(inside.join("pgbouncer.ini"));
        let mut process = Process::start("pgbouncer", &command, folder.path())?;
        database.wait_for(port, &mut process)?;
        let (process, folder) = (Some(process), Some(folder));
        Ok(Way { name: "pgbouncer", port, tls_port: port, takes_tokens: false, process, _folder: folder })
    }
}

/// Runs a build of the proxy with the `proxy.toml` in this folder.
pub fn serve(name: &'static str, program: &Path, folder: &Path) -> Result<Process> {
    let mut command = dies_with_us(program);
    command.args(["serve", "--config"]).arg(folder.join("proxy.toml"));
    Process::start(name, &command, folder)
}

pub fn write_private(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}

/// For an endpoint without TLS at this port, and a database of this engine at that one.
pub fn proxy_config(engine: &str, login: &str, (port, database): (u16, u16), workers: u32, folder: &Path) -> String {
    let (connections, folder) = (CONNECTIONS + OWN_CONNECTIONS, folder.display());
    format!(
        r#"
[[endpoint]]
name         = "bench"
listen       = "127.0.0.1:{port}"
target_group = "bench"
tls          = "off"

[[target_group]]
name    = "bench"
engine  = "{engine}"
targets = ["127.0.0.1:{database}"]
tls     = "off"

  [target_group.pool]
  max_connections              = {connections}
  max_idle_connections_percent = 100
  pool_mode                    = "transaction"
  max_prepared_statements      = 200

  [target_group.health]
  user     = "{MONITOR}"
  password = {{ value = "{MONITOR_PASSWORD}" }}

[[user]]
name     = "{APP}"
auth     = ["{login}"]
password = {{ value = "{APP_PASSWORD}" }}

[admin]
listen = ""

[log]
level = "warn"

[runtime]
workers   = {workers}
state_dir = "{folder}"
"#
    )
}

/// Beside the endpoint without TLS, which stays what it is.
fn proxy_tls_config(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
[[endpoint]]
name         = "bench-tls"
listen       = "127.0.0.1:{port}"
target_group = "bench"
tls          = "required"
hostnames    = ["localhost"]

[[user]]
name          = "{TOKEN_USER}"
auth          = ["iam"]
database_user = "{APP}"
password      = {{ value = "{APP_PASSWORD}" }}

[tls]
certificate = "{folder}/proxy.pem"
private_key = "{folder}/proxy.key"

[iam]
region          = "{REGION}"
account         = "123456789012"
resource_id     = "prx-1"
identities_file = "{folder}/identities.toml"
"#
    )
}

fn pgbouncer_config(port: u16, database: u16, inside: &Path) -> String {
    let inside = inside.display();
    format!(
        r"
[databases]
* = host=127.0.0.1 port={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {inside}/users.txt
pool_mode = transaction
default_pool_size = {CONNECTIONS}
max_client_conn = 10000
max_prepared_statements = 200
client_tls_sslmode = allow
client_tls_cert_file = {inside}/proxy.pem
client_tls_key_file = {inside}/proxy.key
log_connections = 0
log_disconnections = 0
log_pooler_errors = 1
logfile = {inside}/pgbouncer-own.log
"
    )
}
