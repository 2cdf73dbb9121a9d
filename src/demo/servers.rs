//! Throwaway PostgreSQL servers for the demo and the tests, and what all throwaway servers are made of.
//!
//! A server lives in a temporary folder, listens on a free loopback port and on a unix socket in that folder, and is gone
//! with its folder when its [`PostgresServer`] is dropped, or when the process that started it dies in whatever way: a
//! small watcher waits for the end of a pipe this process holds. Nothing is durable (`fsync` is off) and everything is
//! blocking: call it at the start of a program or from `spawn_blocking`. Servers of one version share a prepared data
//! folder, made once under `$SLUICEGATE_SERVERS/templates`; so they also share a system identifier, unless
//! [`Options::own_system_id`] asks otherwise.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::my_servers::Flavour;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// The superuser of every server.
pub const SUPERUSER: &str = "postgres";
/// The superuser's password; over the unix socket it needs none.
pub const SUPERUSER_PASSWORD: &str = "postgres-secret";
/// The application's role, owner of the database of the same name.
pub const APP: &str = "app";
/// The application's password.
pub const APP_PASSWORD: &str = "app-secret";
/// The role the proxy's health checks log in as; member of `pg_monitor`.
pub const MONITOR: &str = "sluicegate_monitor";
/// The monitor's password.
pub const MONITOR_PASSWORD: &str = "monitor-secret";

/// Bump when what a template holds changes: old ones are then left alone and new ones made beside them.
const TEMPLATE_GENERATION: u32 = 1;
/// A throwaway server that takes longer than this to start, stop or be promoted is broken. Generous: test machines swap.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at a server that starts or stops.
pub(super) const POLL: Duration = Duration::from_millis(5);
/// Somebody else may take the free port between our look and the server's bind; that often it won't happen in a row.
pub(super) const PORT_ATTEMPTS: usize = 10;

/// What can go wrong with a throwaway server. The text says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// No installed PostgreSQL has what is asked for.
    #[error("no PostgreSQL here {feature}; run `make provision`, which installs it (looked in: {looked_in})")]
    Missing {
        /// What was asked for.
        feature: Feature,
        /// The folders that were searched.
        looked_in: String,
    },
    /// PostgreSQL refuses to run as root and the account to run it as does not exist.
    #[error("PostgreSQL does not run as root, and {passwd} has no account `postgres`; run `make provision`")]
    NoAccount {
        /// The file that was searched.
        passwd: String,
    },
    /// `make provision` has not written it down, or it is gone.
    #[error("no {server} here ({key}); run `make provision`, which installs it (looked in: {looked_in})")]
    NotProvisioned {
        /// What was asked for.
        server: Flavour,
        /// What is missing of it.
        key: String,
        /// The file that was searched.
        looked_in: String,
    },
    /// Entering the chroot needs root.
    #[error("the {server} in {chroot} can only be started by root")]
    NeedsRoot {
        /// What was asked for.
        server: String,
        /// Where it is installed.
        chroot: String,
    },
    /// A file or a process of ours could not be handled.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// A tool of the server's failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// Which one.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// The server ended by itself: instead of starting, or later.
    #[error("the server is gone ({status}); the end of its log:\n{log}")]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server neither got where it should nor ended.
    #[error("the server was not {state} within {PATIENCE:?}; the end of its log:\n{log}")]
    TooSlow {
        /// What was waited for.
        state: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// A method that needs a running server was called on a stopped one.
    #[error("the server is stopped")]
    Stopped,
    /// The certificate could not be made.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

pub(super) type Result<T> = std::result::Result<T, ServersError>;

/// Gives an I/O error the words that say what was being done.
pub(super) trait Doing<T> {
    fn doing(self, action: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: impl Into<String>) -> Result<T> {
        self.map_err(|source| ServersError::Io { action: action.into(), source })
    }
}

/// What a test or the demo needs of a server. Versions are a detail of what happens to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Any server; the oldest installed is taken.
    Any,
    /// Knows protocol 3.0 only: a server before 18.
    Protocol3_0Only,
    /// Knows protocol 3.2: a server from 18 on.
    Protocol3_2,
}

impl Feature {
    fn holds(self, version: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Protocol3_0Only => version < 18,
            Self::Protocol3_2 => version >= 18,
        }
    }
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Any => "at all",
            Self::Protocol3_0Only => "speaks only protocol 3.0 (a version before 18)",
            Self::Protocol3_2 => "speaks protocol 3.2 (version 18 or later)",
        })
    }
}

/// `$SLUICEGATE_SERVERS`, or `sluicegate/servers` in the user's cache folder: where provisioned servers live.
pub fn servers_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("SLUICEGATE_SERVERS") {
        return folder.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    cache.unwrap_or_else(home).join("sluicegate/servers")
}

/// An installed PostgreSQL and how to run its programs: in a chroot or not, as its own account when we are root.
#[derive(Clone, Debug)]
pub struct Installation {
    version: u32,
    /// As seen from inside the chroot, if there is one.
    bin: PathBuf,
    chroot: Option<PathBuf>,
    /// User and group to run as; `None` when we are not root and run it as ourselves.
    account: Option<(u32, u32)>,
}

impl Installation {
    /// The oldest installed server that has `feature`.
    pub fn find(feature: Feature) -> Result<Self> {
        let file = servers_folder().join("servers.env");
        let provisioned = fs::read_to_string(&file).map(|text| listed_in(&text)).unwrap_or_default();
        let debian = Path::new("/usr/lib/postgresql");
        let mut found: Vec<Place> = provisioned.into_iter().chain(versions_in(debian)).collect();
        found.retain(|place| feature.holds(place.version) && place.is_there());
        // Stable: of one version the provisioned one stays first.
        found.sort_by_key(|place| place.version);
        let Some(Place { version, bin, chroot, account }) = found.into_iter().next() else {
            let looked_in = format!("{}, {}", file.display(), debian.display());
            return Err(ServersError::Missing { feature, looked_in });
        };
        let account = match (geteuid().is_root(), &chroot) {
            (false, None) => None,
            (false, Some(chroot)) => {
                let (server, chroot) = ("PostgreSQL".to_owned(), chroot.display().to_string());
                return Err(ServersError::NeedsRoot { server, chroot });
            }
            (true, _) => Some(account.map_or_else(|| account_in(chroot.as_deref()), Ok)?),
        };
        Ok(Self { version, bin, chroot, account })
    }

    /// The major version: 15, 18.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// One of this installation's programs (`psql`, `pgbench`, `pg_ctl` ...), ready for arguments: run as its account, in
    /// its chroot, with an environment of its own so that no `PGHOST` of the caller's leaks in.
    pub fn program(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        let mut command = match (&self.chroot, self.account) {
            (None, None) => Command::new(program),
            (None, Some(account)) => {
                let mut command = Command::new("setpriv");
                command.args(become_account(account)).arg(program);
                command
            }
            (Some(chroot), account) => {
                let mut command = Command::new("chroot");
                command.arg(chroot).arg("setpriv").args(become_account(account.unwrap_or((0, 0)))).arg(program);
                command
            }
        };
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/tmp").env("LC_ALL", "C.UTF-8");
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// A path as the programs see it.
    pub fn inside(&self, path: &Path) -> PathBuf {
        match &self.chroot {
            None => path.to_owned(),
            Some(chroot) => Path::new("/").join(path.strip_prefix(chroot).unwrap_or(path)),
        }
    }

    /// A new temporary folder that the programs can reach and own.
    fn folder(&self) -> Result<Folder> {
        let folder = Folder::new(self.chroot.as_deref())?;
        self.give(folder.path())?;
        Ok(folder)
    }

    fn give(&self, path: &Path) -> Result<()> {
        match self.account {
            None => Ok(()),
            Some((user, group)) => {
                chown(path, Some(user), Some(group)).doing(format!("giving {} to postgres", path.display()))
            }
        }
    }

    /// The prepared data folder of this version: made on first use, then shared by all processes of this machine.
    fn template(&self) -> Result<PathBuf> {
        let templates = servers_folder().join("templates");
        let template = templates.join(format!("postgresql-{}-{TEMPLATE_GENERATION}", self.version));
        if template.join("PG_VERSION").exists() {
            return Ok(template);
        }
        fs::create_dir_all(&templates).doing(format!("making {}", templates.display()))?;
        let folder = self.new_cluster()?;
        let unfinished = templates.join(folder.path.file_name().unwrap_or_default());
        copy_folder(&folder.data(), &unfinished)?;
        // Renaming is what makes it visible, whole. If another process was faster its template is as good as ours.
        if fs::rename(&unfinished, &template).is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        Ok(template)
    }

    /// A data folder with our roles in it, from nothing.
    fn new_cluster(&self) -> Result<Folder> {
        let folder = self.folder()?;
        let mut initdb = self.program("initdb");
        initdb.arg("--pgdata").arg(self.inside(&folder.data()));
        // Small segments: a template is copied for every server, and a new one is mostly write-ahead log.
        initdb.args(["--wal-segsize=1", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"]);
        initdb.args(["--username", SUPERUSER]);
        run(&mut initdb, "initdb")?;
        let options = Options { auth: Auth::Trust, ..Options::default() };
        let mut server = PostgresServer::start_in(self, folder, options)?;
        for (role, password, rest) in [
            (SUPERUSER, SUPERUSER_PASSWORD, ""),
            (APP, APP_PASSWORD, "LOGIN"),
            (MONITOR, MONITOR_PASSWORD, "LOGIN IN ROLE pg_monitor"),
        ] {
            let verb = if role == SUPERUSER { "ALTER" } else { "CREATE" };
            server.run_sql("postgres", &format!("{verb} ROLE {role} {rest} PASSWORD '{password}'"))?;
        }
        server.run_sql("postgres", &format!("CREATE DATABASE {APP} OWNER {APP}"))?;
        server.stop(Stop::Fast)?;
        server.hand_over()
    }
}

/// Where a server is installed.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    version: u32,
    bin: PathBuf,
    chroot: Option<PathBuf>,
    account: Option<(u32, u32)>,
}

impl Place {
    fn is_there(&self) -> bool {
        let bin = self.bin.strip_prefix("/").unwrap_or(&self.bin);
        self.chroot.as_deref().unwrap_or(Path::new("/")).join(bin).join("postgres").exists()
    }
}

/// What `make provision` wrote down: `PG18_BIN=...`, and maybe `PG18_CHROOT`, `PG18_UID` and `PG18_GID`.
fn listed_in(text: &str) -> Vec<Place> {
    let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let place = |key: &str, bin: &str| {
        let version = key.strip_prefix("PG")?.strip_suffix("_BIN")?.parse().ok()?;
        let value = |name: &str| values.get(format!("PG{version}_{name}").as_str()).copied();
        let number = |name: &str| value(name)?.parse().ok();
        let account = number("UID").zip(number("GID"));
        Some(Place { version, bin: bin.into(), chroot: value("CHROOT").map(PathBuf::from), account })
    };
    values.iter().filter_map(|(key, bin)| place(key, bin)).collect()
}

/// Debian's own servers, which are there without being provisioned.
fn versions_in(library: &Path) -> Vec<Place> {
    let entries = fs::read_dir(library).into_iter().flatten().flatten();
    let version = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let place = |version: u32| {
        let bin = library.join(version.to_string()).join("bin");
        Place { version, bin, chroot: None, account: None }
    };
    entries.filter_map(version).map(place).collect()
}

/// User and group of `postgres` there.
fn account_in(chroot: Option<&Path>) -> Result<(u32, u32)> {
    let passwd = chroot.unwrap_or(Path::new("/")).join("etc/passwd");
    let text = fs::read_to_string(&passwd).doing(format!("reading {}", passwd.display()))?;
    let account = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some("postgres");
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        is_it.then_some((user, group))
    });
    account.ok_or_else(|| ServersError::NoAccount { passwd: passwd.display().to_string() })
}

fn become_account((user, group): (u32, u32)) -> [String; 4] {
    [format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".into(), "--".into()]
}

/// How clients other than the superuser on the unix socket prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// `scram-sha-256`.
    #[default]
    Scram,
    /// `md5`, with passwords stored so that it is really md5 that is asked for.
    Md5,
    /// `password`: in the clear.
    Password,
    /// `trust`: not at all.
    Trust,
}

impl Auth {
    fn method(self) -> &'static str {
        match self {
            Self::Scram => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Password => "password",
            Self::Trust => "trust",
        }
    }
}

/// How a server is to be; the default is a small one with SCRAM and no TLS.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// `max_connections`.
    pub max_connections: u32,
    /// How clients log in over TCP.
    pub auth: Auth,
    /// Offer TLS, with a certificate for `localhost` and 127.0.0.1 signed by [`PostgresServer::ca_file`].
    pub ssl: bool,
    /// More settings: name and value, the value unquoted.
    pub settings: Vec<(String, String)>,
    /// Make it a streaming replica of that server.
    pub replica_of: Option<&'a PostgresServer>,
    /// Run `initdb` for this server alone. Servers of one version otherwise share their system identifier.
    pub own_system_id: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        let settings = Vec::new();
        Self { max_connections: 100, auth: Auth::Scram, ssl: false, settings, replica_of: None, own_system_id: false }
    }
}

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions and shuts down in order (SIGINT).
    Fast,
    /// Ends at once, as after a crash (SIGQUIT).
    Immediate,
    /// `kill -9` of the postmaster: its children notice a moment later.
    Kill,
}

/// A running (or stopped) throwaway server; dropping it stops the server and removes its folder.
#[derive(Debug)]
pub struct PostgresServer {
    installation: Installation,
    /// `Some` until [`PostgresServer::hand_over`].
    folder: Option<Folder>,
    port: u16,
    running: Option<Running>,
}

/// A postmaster and the watcher that ends it should this process die.
#[derive(Debug)]
struct Running {
    postmaster: Child,
    watcher: Child,
}

impl PostgresServer {
    /// Starts a server and waits until it takes connections.
    pub fn start(installation: &Installation, options: Options<'_>) -> Result<Self> {
        let folder = if let Some(primary) = options.replica_of {
            let folder = installation.folder()?;
            let mut basebackup = installation.program("pg_basebackup");
            basebackup.args(["--host=127.0.0.1", "--checkpoint=fast", "--write-recovery-conf", "--no-sync"]);
            basebackup.args(["--username", SUPERUSER, "--port", &primary.port.to_string()]);
            basebackup.arg("--pgdata").arg(installation.inside(&folder.data()));
            run(&mut basebackup, "pg_basebackup")?;
            folder
        } else if options.own_system_id {
            installation.new_cluster()?
        } else {
            let template = installation.template()?;
            let folder = installation.folder()?;
            copy_folder(&template, &folder.data())?;
            folder
        };
        Self::start_in(installation, folder, options)
    }

    fn start_in(installation: &Installation, folder: Folder, options: Options<'_>) -> Result<Self> {
        let mut server = Self { installation: installation.clone(), folder: Some(folder), port: 0, running: None };
        if options.ssl {
            for (name, text, mode) in certificate()? {
                server.write_file(name, &text, mode)?;
            }
        }
        server.write_hba(options.auth)?;
        for attempt in 1.. {
            server.port = free_port()?;
            server.write_settings(&options)?;
            match server.resume() {
                Err(ServersError::Died { log, .. }) if port_was_taken(&log) && attempt < PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        if options.auth == Auth::Md5 && options.replica_of.is_none() {
            for (role, password) in [(SUPERUSER, SUPERUSER_PASSWORD), (APP, APP_PASSWORD), (MONITOR, MONITOR_PASSWORD)]
            {
                server.run_sql("postgres", &format!("ALTER ROLE {role} PASSWORD '{password}'"))?;
            }
        }
        Ok(server)
    }

    /// The installation it runs from.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The port it listens on; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its unix socket, as seen from here.
    pub fn socket_dir(&self) -> &Path {
        self.path()
    }

    /// The postmaster, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.postmaster.id())
    }

    /// The certificate of the authority that signed the server's, if it has TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        Some(self.path().join("ca.crt")).filter(|path| path.exists())
    }

    /// Everything the server logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.path().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A connection string for drivers: `role` is [`SUPERUSER`], [`APP`] or [`MONITOR`].
    pub fn url(&self, role: &str, database: &str) -> String {
        let password = match role {
            SUPERUSER => SUPERUSER_PASSWORD,
            MONITOR => MONITOR_PASSWORD,
            _ => APP_PASSWORD,
        };
        format!("postgresql://{role}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// This version's psql as the superuser over the unix socket, ready for arguments.
    pub fn psql(&self, database: &str) -> Command {
        let mut psql = self.installation.program("psql");
        psql.arg("--host").arg(self.installation.inside(self.path())).args(["--port", &self.port.to_string()]);
        psql.args(["--username", SUPERUSER, "--dbname", database, "--no-psqlrc", "--set=ON_ERROR_STOP=1"]);
        psql
    }

    /// Runs statements as the superuser; gives back the rows, unaligned and without headings.
    pub fn run_sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.psql(database);
        psql.args(["--quiet", "--tuples-only", "--no-align", "--command", sql]);
        Ok(run(&mut psql, "psql")?.trim_end().to_owned())
    }

    /// Stops the server and waits for its end; what it holds stays for [`PostgresServer::resume`].
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        let ended = end(&mut running.postmaster, signal);
        dismiss(&mut running.watcher);
        if ended { Ok(()) } else { Err(self.too_slow("stopped")) }
    }

    /// Stops in order and starts again on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.resume()
    }

    /// Starts a stopped server again, on the same port and with the same data.
    pub fn resume(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.spawn() {
                // After `Stop::Kill` the orphaned children still hold the shared memory for a moment.
                Err(ServersError::Died { log, .. }) if children_remain(&log) && Instant::now() < deadline => {
                    thread::sleep(POLL * 4);
                }
                other => return other,
            }
        }
    }

    /// Makes a replica the writer, and waits until it is.
    pub fn promote(&self) -> Result<()> {
        if self.running.is_none() {
            return Err(ServersError::Stopped);
        }
        let mut promote = self.installation.program("pg_ctl");
        promote.arg("promote").arg("--wait").arg("--pgdata").arg(self.installation.inside(&self.data()));
        run(&mut promote, "pg_ctl promote").map(drop)
    }

    fn spawn(&mut self) -> Result<()> {
        let log_file = self.path().join("server.log");
        let log = File::create(&log_file).doing(format!("making {}", log_file.display()))?;
        let errors = log.try_clone().doing("sharing the server's log")?;
        let mut command = self.installation.program("postgres");
        command.arg("-D").arg(self.installation.inside(&self.data()));
        // A group of its own: Ctrl-C at the terminal is for us, and the watcher tidies up after us.
        command.stdout(log).stderr(errors).process_group(0);
        let mut postmaster = command.spawn().doing("starting postgres")?;
        let watcher = match watch(postmaster.id(), self.path(), "QUIT") {
            Ok(watcher) => watcher,
            Err(error) => {
                end(&mut postmaster, Signal::QUIT);
                return Err(error);
            }
        };
        let mut running = Running { postmaster, watcher };
        match self.wait_until_ready(&mut running.postmaster) {
            Ok(()) => {
                self.running = Some(running);
                Ok(())
            }
            Err(error) => {
                end(&mut running.postmaster, Signal::QUIT);
                dismiss(&mut running.watcher);
                Err(error)
            }
        }
    }

    /// The postmaster keeps its state in the last line of `postmaster.pid`: asking costs no connection.
    fn wait_until_ready(&self, postmaster: &mut Child) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = postmaster.try_wait().doing("waiting for postgres")? {
                return Err(ServersError::Died { status, log: self.log_tail() });
            }
            let lines = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            // A crash leaves the file of the one before.
            let is_its = lines.lines().next().is_some_and(|pid| pid == postmaster.id().to_string());
            let state = lines.lines().nth(7).unwrap_or_default().trim_end();
            if is_its && (state == "ready" || state == "standby") {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(self.too_slow("ready"))
    }

    fn write_settings(&self, options: &Options<'_>) -> Result<()> {
        let socket_dir = self.installation.inside(self.path()).display().to_string();
        let mut settings: Vec<(String, String)> = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &self.port.to_string()),
            ("unix_socket_directories", &socket_dir),
            ("max_connections", &options.max_connections.to_string()),
            ("superuser_reserved_connections", "3"),
            ("shared_buffers", "16MB"),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("min_wal_size", "2MB"),
            ("wal_level", "replica"),
            // A replica may come late: enough segments of 1 MB for one that is cut off for a while.
            ("wal_keep_size", "64MB"),
            ("max_wal_senders", "8"),
            // In the data folder, so that it goes with it; a chroot may have no usable /dev/shm.
            ("dynamic_shared_memory_type", "mmap"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("lc_messages", "C"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("password_encryption", if options.auth == Auth::Md5 { "md5" } else { "scram-sha-256" }),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if options.ssl {
            let file = |name: &str| self.installation.inside(&self.path().join(name)).display().to_string();
            settings.push(("ssl".into(), "on".into()));
            settings.push(("ssl_cert_file".into(), file("server.crt")));
            settings.push(("ssl_key_file".into(), file("server.key")));
        }
        settings.extend(options.settings.iter().cloned());
        let mut text = String::from("# Written by Sluicegate for a throwaway server.\n");
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        self.write_file("data/postgresql.conf", &text, 0o600)
    }

    fn write_hba(&self, auth: Auth) -> Result<()> {
        let method = auth.method();
        let text = format!(
            "local all {SUPERUSER} trust\nlocal all all {method}\nhost all all 127.0.0.1/32 {method}\n\
             host replication {SUPERUSER} 127.0.0.1/32 trust\n"
        );
        self.write_file("data/pg_hba.conf", &text, 0o600)
    }

    fn write_file(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.path().join(name);
        let action = format!("writing {}", path.display());
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(mode).open(&path);
        opened.and_then(|mut file| file.write_all(text.as_bytes())).doing(action)?;
        self.installation.give(&path)
    }

    /// Gives up a stopped server for its folder.
    fn hand_over(mut self) -> Result<Folder> {
        self.stop(Stop::Fast)?;
        self.folder.take().ok_or(ServersError::Stopped)
    }

    fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("/nonexistent"), |folder| &folder.path)
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn log_tail(&self) -> String {
        tail(&self.log())
    }

    fn too_slow(&self, state: &'static str) -> ServersError {
        ServersError::TooSlow { state, log: self.log_tail() }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Nothing can be done about an error here, and the watcher's next life is not needed: the folder goes anyway.
        let _ = self.stop(Stop::Immediate);
    }
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new one where programs in that chroot, if any, can reach it.
    pub fn new(chroot: Option<&Path>) -> Result<Self> {
        let parent = chroot.map_or_else(std::env::temp_dir, |chroot| chroot.join("tmp"));
        let made = tempfile::Builder::new().prefix("sluicegate-").tempdir_in(&parent);
        Ok(Self { path: made.doing(format!("making a folder in {}", parent.display()))?.keep() })
    }

    /// Where it is, as seen from here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A killed server's children may still be writing; they are gone within a second or so.
        for _ in 0..200 {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => thread::sleep(POLL * 2),
                _ => return,
            }
        }
    }
}

/// A certificate for `localhost` and 127.0.0.1 and an authority that signed it: names of files, what is in them and their
/// modes.
pub fn certificate() -> Result<[(&'static str, String, u32); 3]> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "Sluicegate throwaway CA");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok([
        ("ca.crt", ca_certificate.pem(), 0o644),
        ("server.crt", certificate.pem(), 0o644),
        ("server.key", key.serialize_pem(), 0o600),
    ])
}

/// A free port on loopback: bound once and let go. Another process can be faster; callers try again.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("looking for a free port")?;
    Ok(listener.local_addr().doing("looking for a free port")?.port())
}

fn port_was_taken(log: &str) -> bool {
    log.contains("Address already in use") || log.contains("could not create any TCP/IP sockets")
}

fn children_remain(log: &str) -> bool {
    log.contains("pre-existing shared memory block") || log.contains("lock file \"postmaster.pid\" already exists")
}

/// Starts the watcher: a shell that reads from a pipe only this process can write to. A word means that all is in order;
/// the pipe's end means that this process is gone, and then the server is ended and its folder removed. A parent-death
/// signal would not do: it comes when the *thread* that started the server ends, as threads of tests do, and leaves the folder.
/// The server's command line must name the folder: that is how the watcher knows that the number is still the server's.
pub fn watch(pid: u32, folder: &Path, signal: &str) -> Result<Child> {
    const SCRIPT: &str = r#"
        if read -r word; then exit 0; fi
        runs() { grep -qsF "${2##*/}" "/proc/$1/cmdline"; }
        runs "$1" "$2" && kill -"$3" "$1"
        i=0
        while [ $i -lt 100 ] && runs "$1" "$2"; do sleep 0.05; i=$((i + 1)); done
        rm -rf "$2" || { sleep 2; rm -rf "$2"; }
    "#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sluicegate-watcher", &pid.to_string()]).arg(folder).arg(signal).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().doing("starting the server's watcher")
}

/// Tells a watcher that there is nothing left to watch.
pub fn dismiss(watcher: &mut Child) {
    if let Some(mut pipe) = watcher.stdin.take() {
        let _ = pipe.write_all(b"leave\n");
    }
    let _ = watcher.wait();
}

/// Signals a child and waits for it; the hard way if it takes too long. False if even that did not end it.
pub fn end(child: &mut Child, signal: Signal) -> bool {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return false };
    for (signal, patience) in [(signal, PATIENCE / 3), (Signal::KILL, PATIENCE / 3)] {
        // The child is ours and not yet waited for, so its number can't be anybody else's.
        let _ = kill_process(pid, signal);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
    false
}

/// The last lines of a log: enough for what a server prints when it crashes.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
}

/// Runs a program to its end; gives back what it printed.
pub fn run(command: &mut Command, program: &str) -> Result<String> {
    let output = command.output().doing(format!("starting {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    Err(ServersError::Program { program: program.to_owned(), status: output.status, output: stdout + &stderr })
}

/// Copies a folder with its owners and modes; `to` must not exist.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    run(copy.args(["-a", "--reflink=auto"]).arg(from).arg(to), "cp").map(drop)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).doing(format!("closing {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_selects_versions() {
        let holding =
            |feature: Feature| [13, 15, 17, 18, 19].into_iter().filter(|v| feature.holds(*v)).collect::<Vec<_>>();
        assert_eq!(holding(Feature::Any), [13, 15, 17, 18, 19]);
        assert_eq!(holding(Feature::Protocol3_0Only), [13, 15, 17]);
        assert_eq!(holding(Feature::Protocol3_2), [18, 19]);
    }

    #[test]
    fn a_missing_server_says_how_to_install_it() {
        let error = ServersError::Missing { feature: Feature::Protocol3_2, looked_in: "/x".into() };
        assert_eq!(
            error.to_string(),
            "no PostgreSQL here speaks protocol 3.2 (version 18 or later); run `make provision`, which installs it \
             (looked in: /x)"
        );
    }

    #[test]
    fn provisioned_servers_are_read_from_the_list() {
        let text = "PG15_BIN=/b15\nPG15_USER=postgres\nPG18_BIN=/b18\nPG18_CHROOT=/sid\nPG18_UID=101\nPG18_GID=102\n\
                    PGBOUNCER=/usr/sbin/pgbouncer\nPYTHON=/p\n";
        let debian = Place { version: 15, bin: "/b15".into(), chroot: None, account: None };
        let sid = Place { version: 18, bin: "/b18".into(), chroot: Some("/sid".into()), account: Some((101, 102)) };
        assert_eq!(listed_in(text), [debian, sid]);
    }

    #[test]
    fn paths_are_seen_from_inside_the_chroot() {
        let chroot = Some(PathBuf::from("/servers/sid"));
        let installation = Installation { version: 18, bin: "/bin".into(), chroot, account: Some((101, 101)) };
        assert_eq!(installation.inside(Path::new("/servers/sid/tmp/x")), Path::new("/tmp/x"));
    }
}
