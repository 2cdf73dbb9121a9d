//! A throwaway PostgreSQL, a MySQL or MariaDB where there is one, and the proxy in front of them, in this process, with a
//! certificate of its own.
//!
//! The proxy runs on a thread as `serve` would run it, from a `proxy.toml` in the scene's folder. Dropping the scene
//! stops the proxy, then the databases, and removes their folders.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::DemoError;
use super::config::{ACCESS_KEY, CONNECTIONS, Ports, REGION, config_text, identities_text};
use super::my_servers::{Flavour, MyInstallation, MyServer};
use super::report::Report;
use super::servers::{APP, Feature, Installation, Options, PostgresServer};
use crate::auth::{Keys, make_token};
use crate::config::{Config, Secret};
use crate::net::tls;
use crate::run::{Addresses, RunError};

/// What the database allows: far less than the tour's clients.
pub const DATABASE_CONNECTIONS: u32 = 25;
/// Where the endpoint listens if nobody else does.
const PORT: u16 = 6432;
/// The same for MySQL's endpoint.
const MYSQL_PORT: u16 = 3307;
/// The same for the admin listener.
const ADMIN_PORT: u16 = 9632;
/// From starting the proxy's thread to its word that it is ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// All that runs during the tour. Fields are dropped in this order.
pub struct Scene {
    proxy: Proxy,
    /// The database.
    pub server: PostgresServer,
    /// The other one, where there is one.
    pub mysql: Option<MySqlScene>,
    /// Certificates, `proxy.toml`, the proxy's log and its unix socket.
    folder: tempfile::TempDir,
    /// The endpoint's port, on 127.0.0.1 and in the unix socket's name.
    pub port: u16,
    /// The admin listener's address.
    pub admin: SocketAddr,
    keys: Keys,
}

/// A MySQL or MariaDB server, and where the proxy listens for its clients.
pub struct MySqlScene {
    /// The database.
    pub server: MyServer,
    /// The endpoint's port, on 127.0.0.1.
    pub port: u16,
}

impl MySqlScene {
    /// Whichever there is, MySQL before MariaDB.
    fn set(report: &mut Report) -> Result<Option<Self>, DemoError> {
        let since = Instant::now();
        let Some(installation) = Flavour::ALL.into_iter().find_map(|flavour| MyInstallation::find(flavour).ok()) else {
            report.fact("", "no MySQL and no MariaDB here: `make provision` installs them");
            return Ok(None);
        };
        let arguments = vec![format!("--max-connections={DATABASE_CONNECTIONS}")];
        let server = MyServer::start(&installation, arguments)?;
        let (flavour, version, took) = (installation.flavour(), installation.version(), since.elapsed().as_secs_f64());
        let address = server.address();
        report.fact(
            "",
            &format!("{flavour} {version} at {address}, allows {DATABASE_CONNECTIONS} connections ({took:.1} s)"),
        );
        Ok(Some(Self { server, port: port_near(MYSQL_PORT)? }))
    }

    /// The proxy's CA, as the database's own programs see it.
    pub fn ca_file(&self) -> String {
        self.server.installation().inside(&self.server.folder().join("proxy-ca.pem"))
    }
}

/// The proxy's thread; asked to end and waited for when dropped.
struct Proxy {
    thread: Option<JoinHandle<Result<(), RunError>>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Scene {
    /// Starts everything. Blocking.
    pub fn set(report: &mut Report) -> Result<Self, DemoError> {
        report.line(&format!("Sluicegate {}, a guided tour\n", env!("CARGO_PKG_VERSION")));
        let since = Instant::now();
        // The newer one where it can be run, else whatever there is.
        let newest = Installation::find(Feature::Protocol3_2);
        let installation = newest.or_else(|_| Installation::find(Feature::Any))?;
        let options = Options { max_connections: DATABASE_CONNECTIONS, ..Options::default() };
        let server = PostgresServer::start(&installation, options)?;
        let version = server.run_sql("postgres", "SELECT split_part(current_setting('server_version'), ' ', 1)")?;
        let took = since.elapsed().as_secs_f64();
        report.fact(
            "database",
            &format!(
                "PostgreSQL {version} at {}, allows {DATABASE_CONNECTIONS} connections ({took:.1} s)",
                server.address()
            ),
        );

        let mysql = MySqlScene::set(report)?;

        let folder = tempfile::Builder::new().prefix("sluicegate-demo-").tempdir();
        let folder = folder.map_err(doing("making a temporary folder"))?;
        // Clients of other accounts may read the CA and use the socket; files with secrets are closed.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).map_err(doing("opening the temporary folder"))?;
        let [port, admin_port] = [PORT, ADMIN_PORT].map(port_near);
        let (port, admin_port) = (port?, admin_port?);
        write_certificates(folder.path(), &server, mysql.as_ref())?;
        let secret = rand::random::<[u8; 20]>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        write(&folder.path().join("identities.toml"), &identities_text(&secret), 0o600)?;
        let keys =
            Keys { access_key_id: ACCESS_KEY.to_owned(), secret_access_key: Secret::new(secret), session_token: None };
        let config_file = folder.path().join("proxy.toml");
        let my_address = mysql.as_ref().map(|mysql| mysql.server.address());
        let my_port = mysql.as_ref().map_or(0, |mysql| mysql.port);
        let ports = Ports { postgres: port, mysql: my_port, admin: admin_port };
        write(&config_file, &config_text(folder.path(), server.address(), my_address, &ports), 0o600)?;
        let config = Config::load(&config_file)?;
        let log_file = folder.path().join("proxy.log");
        let log = OpenOptions::new().create_new(true).append(true).mode(0o644).open(&log_file);
        crate::logging::start_in(log.map_err(doing("making the proxy's log"))?, &config.log.level)?;
        let (proxy, addresses) = Proxy::start(config, &log_file)?;
        let admin = addresses.admin.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port)));
        report.fact(
            "proxy",
            &format!("localhost:{port}, TLS with a fresh CA, a fresh access key, {CONNECTIONS} database connections for its clients"),
        );
        if let Some(mysql) = &mysql {
            report.fact("", &format!("localhost:{} for MySQL's clients, with {CONNECTIONS} more", mysql.port));
        }
        let scene = Self { proxy, server, mysql, folder, port, admin, keys };
        report.fact(
            "files",
            &format!("{}/ proxy.toml, identities.toml, proxy.log, ca.pem", scene.folder.path().display()),
        );
        Ok(scene)
    }

    /// The folder of the endpoint's unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Where the proxy logs.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("proxy.log")
    }

    /// A token to log in with, good for 15 minutes.
    pub fn token(&self) -> String {
        self.token_for(self.port)
    }

    /// The same for the endpoint at that port.
    pub fn token_for(&self, port: u16) -> String {
        // The key and the names are the tour's own.
        make_token(&self.keys, "localhost", port, APP, REGION, SystemTime::now()).unwrap_or_default()
    }

    /// The command that prints one.
    pub fn token_command(&self) -> String {
        self.token_command_for(self.port)
    }

    /// The same for the endpoint at that port.
    pub fn token_command_for(&self, port: u16) -> String {
        let program =
            std::env::current_exe().map_or_else(|_| "sluicegate".to_owned(), |file| file.display().to_string());
        format!(
            "{program} token --host localhost --port {port} --user {APP} --region {REGION} --access-key-id {ACCESS_KEY} \
             --config {}",
            self.folder.path().join("proxy.toml").display()
        )
    }

    /// A connection string for the database's own programs, which may live in a chroot: TLS, everything verified.
    pub fn conninfo(&self) -> String {
        let ca_file = self.server.installation().inside(&self.server.socket_dir().join("proxy-ca.pem"));
        self.conninfo_with(&ca_file)
    }

    /// The same for programs outside of the chroot.
    pub fn conninfo_here(&self) -> String {
        self.conninfo_with(&self.folder.path().join("ca.pem"))
    }

    fn conninfo_with(&self, ca_file: &Path) -> String {
        format!(
            "host=localhost port={} user={APP} dbname={APP} sslmode=verify-full sslrootcert={}",
            self.port,
            ca_file.display()
        )
    }

    /// Says how to come in from another terminal.
    pub fn invite(&self, report: &mut Report) {
        let ca_file = self.folder.path().join("ca.pem");
        let (conninfo, ca, port) = (self.conninfo_here(), ca_file.display(), self.port);
        report.line("\nThe proxy stays up for you. From another terminal:\n");
        let token = self.token_command();
        report.fact("psql", &format!("PGPASSWORD=\"$({token})\" psql \"{conninfo}\""));
        let socket_dir = self.socket_dir().display();
        report.fact(
            "",
            &format!("PGPASSWORD=\"$({token})\" psql \"host={socket_dir} port={port} user={APP} dbname={APP}\""),
        );
        // In a URL the token's own signs must not be read as the URL's.
        let fresh = self.token();
        let encoded = fresh.bytes().map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        });
        let encoded = encoded.collect::<String>();
        report.fact(
            "JDBC",
            &format!(
                "jdbc:postgresql://localhost:{port}/{APP}?user={APP}&sslmode=verify-full&sslrootcert={ca}&password={encoded}"
            ),
        );
        report.fact("", "the token in it is good for 15 minutes");
        if let Some(mysql) = &self.mysql {
            let (port, token) = (mysql.port, self.token_command_for(mysql.port));
            report.fact(
                "mysql",
                &format!(
                    "MYSQL_PWD=\"$({token})\" mariadb --no-defaults --host=localhost --protocol=tcp --port={port} --user={APP} \
                     --ssl-ca={ca} --ssl-verify-server-cert {APP}"
                ),
            );
        }
        report.fact("admin", &format!("http://{0}/metrics  http://{0}/readyz", self.admin));
        report.fact("log", &format!("tail -f {}", self.log().display()));
        report.line("\nCtrl-C stops and removes everything.");
    }

    /// Stops everything and removes it.
    pub fn strike(mut self, report: &mut Report) {
        if let Some(Err(error)) = self.proxy.end() {
            report.line(&format!("The proxy ended with an error: {error}"));
        }
    }
}

impl Proxy {
    fn start(config: Config, log: &Path) -> Result<(Self, Addresses), DemoError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (say_ready, ready) = mpsc::channel();
        let serve = move || {
            let mut stopped = Some(stopped);
            let shutdown = async || match stopped.take() {
                // Stopped by word, or because whoever would say it is gone.
                Some(stopped) => stopped.await.unwrap_or_default(),
                None => std::future::pending().await,
            };
            crate::run::run(config, shutdown, std::future::pending, move |addresses| {
                // Nobody waits any more if it took too long.
                let _ = say_ready.send(addresses.clone());
            })
        };
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(serve);
        let thread = thread.map_err(doing("starting the proxy's thread"))?;
        let mut proxy = Self { thread: Some(thread), stop: Some(stop) };
        match ready.recv_timeout(PATIENCE) {
            Ok(addresses) => Ok((proxy, addresses)),
            Err(RecvTimeoutError::Disconnected) => match proxy.end() {
                Some(Err(error)) => Err(error.into()),
                Some(Ok(())) | None => Err(DemoError::NotReady { log: log.to_owned() }),
            },
            Err(RecvTimeoutError::Timeout) => Err(DemoError::NotReady { log: log.to_owned() }),
        }
    }

    /// Ends the proxy and says how it ended; `None`: it has ended before, or its thread was lost.
    fn end(&mut self) -> Option<Result<(), RunError>> {
        drop(self.stop.take());
        self.thread.take()?.join().ok()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Whoever wants to know how it ended has asked.
        let _ = self.end();
    }
}

fn write_certificates(folder: &Path, server: &PostgresServer, mysql: Option<&MySqlScene>) -> Result<(), DemoError> {
    let made = tls::self_signed(&["localhost", "127.0.0.1"])?;
    write(&folder.join("ca.pem"), &made.ca, 0o644)?;
    write(&folder.join("proxy.pem"), &made.certificate, 0o644)?;
    write(&folder.join("proxy.key"), &made.private_key, 0o600)?;
    // The databases' programs may see nothing but their chroot.
    if let Some(mysql) = mysql {
        write(&mysql.server.folder().join("proxy-ca.pem"), &made.ca, 0o644)?;
    }
    write(&server.socket_dir().join("proxy-ca.pem"), &made.ca, 0o644)
}

/// This port if nobody listens on it, else a free one. Somebody may still be faster; then the start fails and says so.
fn port_near(wanted: u16) -> Result<u16, DemoError> {
    let v6_taken =
        TcpListener::bind((Ipv6Addr::LOCALHOST, wanted)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    // `localhost` leads to both.
    let bound = if v6_taken { None } else { TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).ok() };
    let bound = bound.map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Ok);
    let address = bound.and_then(|listener| listener.local_addr());
    Ok(address.map_err(doing("looking for a free port"))?.port())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), DemoError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    // The umask may have taken away what clients of other accounts need.
    let opened = written.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    opened.map_err(doing(&format!("writing {}", path.display())))
}

/// Gives an I/O error the words that say what was being done.
fn doing(action: &str) -> impl FnOnce(io::Error) -> DemoError {
    let action = action.to_owned();
    move |source| DemoError::Io { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_taken_again() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = held.local_addr().unwrap().port();
        assert_ne!(port_near(taken).unwrap(), taken);
    }
}
