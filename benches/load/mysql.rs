//! MySQL under load: a database, and the ways to it that are measured beside each other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::demo::my_servers::{Flavour, MyInstallation, MyServer};
use sluicegate::demo::servers::{APP, Folder, run};

use super::crew::{Crew, Work, answers};
use super::ways::{CONNECTIONS, proxy_config, serve, write_private};
use super::{Process, Result, Sample, free_port};

/// Rows of the table, of about 200 bytes each.
pub const ROWS: u32 = 100_000;
/// Between the last login and the first figure.
const WARM_UP: Duration = Duration::from_secs(1);

/// A database with a table.
pub struct Database {
    pub server: MyServer,
}

impl Database {
    pub fn start() -> Result<Self> {
        let installation = MyInstallation::find(Flavour::MySql)?;
        let arguments = ["--max-connections=700", "--innodb-buffer-pool-size=256M", "--skip-log-bin"];
        let server = MyServer::start(&installation, arguments.map(str::to_owned).into())?;
        server.run_sql(&format!(
            "USE {APP}; SET cte_max_recursion_depth = {ROWS};
             CREATE TABLE accounts (id INT PRIMARY KEY, balance INT NOT NULL, filler CHAR(180) NOT NULL);
             INSERT INTO accounts WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
               SELECT i, 0, REPEAT('x', 180) FROM n"
        ))?;
        Ok(Self { server })
    }

    /// Runs clients at this port, and looks at `process` meanwhile: a second after all have come in, for so many seconds.
    pub fn load(&self, port: u16, clients: u32, seconds: u32, work: Work, process: Option<&Process>) -> Result<Sample> {
        let crew = Crew::start(port, clients, work)?;
        thread::sleep(WARM_UP);
        let cpu = || process.map(Process::cpu).transpose();
        crew.counts.store(true, Ordering::Relaxed);
        let (before, since, done_before) = (cpu()?, Instant::now(), crew.done.load(Ordering::Relaxed));
        thread::sleep(Duration::from_secs(seconds.into()));
        let (after, took) = (cpu()?, since.elapsed().as_secs_f64());
        let done = (crew.done.load(Ordering::Relaxed) - done_before) as f64;
        let mut latencies = crew.end()?;
        latencies.sort_unstable();
        let percentile = |of: usize| latencies.get(latencies.len() * of / 100).map_or(f64::NAN, |us| f64::from(*us));
        let cpu_us = after.zip(before).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64() * 1e6 / done);
        Ok(Sample { per_second: done / took, p50_us: percentile(50), p99_us: percentile(99), cpu_us })
    }
}

// ---------------------------------------------------------------------------------------------- the ways

/// A way to the database.
pub struct Way {
    pub name: &'static str,
    pub port: u16,
    pub process: Option<Process>,
    _folders: (Option<tempfile::TempDir>, Option<Folder>),
}

impl Way {
    /// Starts the way of this name and waits until it answers. `other`: another build of the proxy. `None`: there is nothing
    /// to start.
    pub fn start(name: &str, proxy: &Path, other: Option<&PathBuf>, database: &Database) -> Result<Option<Self>> {
        let way = match (name, other) {
            ("direct", _) => {
                let port = database.server.address().port();
                Self { name: "direct", port, process: None, _folders: (None, None) }
            }
            ("router", _) => Self::start_router(database)?,
            ("proxy", _) => Self::start_proxy("proxy", proxy, 0, database)?,
            ("proxy-1", _) => Self::start_proxy("proxy-1", proxy, 1, database)?,
            ("other", Some(file)) => Self::start_proxy("other", file, 0, database)?,
            ("other-1", Some(file)) => Self::start_proxy("other-1", file, 1, database)?,
            ("other" | "other-1", None) => return Ok(None),
            (name, _) => return Err(format!("BENCH_MY_VARIANTS knows no {name:?}").into()),
        };
        Ok(Some(way))
    }

    fn start_proxy(name: &'static str, program: &Path, workers: u32, database: &Database) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluicegate-").tempdir()?;
        let port = free_port()?;
        let ports = (port, database.server.address().port());
        let text = proxy_config("mysql", "caching_sha2_password", ports, workers, folder.path());
        write_private(&folder.path().join("proxy.toml"), &text)?;
        let mut process = serve(name, program, folder.path())?;
        process.wait_for(|| answers(port))?;
        Ok(Self { name, port, process: Some(process), _folders: (Some(folder), None) })
    }

    /// MySQL Router with connection sharing: it keeps as many idle connections as the proxy may have, but opens more when
    /// more clients are busy, which nothing in its configuration forbids.
    fn start_router(database: &Database) -> Result<Self> {
        let installation = database.server.installation();
        let missing = |error| {
            format!(
                "{error}: no MySQL Router to compare with; `make provision` installs it, or leave it out of BENCH_MY_VARIANTS"
            )
        };
        let mut inside = installation.program("ROUTER").map_err(missing)?;
        let (folder, port) = (installation.folder()?, free_port()?);
        let file = |name: &str| folder.path().join(name);
        let path = |name: &str| installation.inside(&file(name));
        let config = format!(
            "[DEFAULT]\nlogging_folder = {0}\nruntime_folder = {0}\ndata_folder = {0}\nconfig_folder = {0}\n\
             plugin_folder = /usr/lib/mysqlrouter/plugin\nunknown_config_option = error\n\
             [logger]\nlevel = WARNING\n[io]\n[connection_pool]\nmax_idle_server_connections = {CONNECTIONS}\n\
             [routing:bench]\nbind_address = 127.0.0.1\nbind_port = {port}\ndestinations = {1}\n\
             routing_strategy = first-available\nprotocol = classic\nconnection_sharing = 1\nconnection_sharing_delay = 0\n\
             client_ssl_mode = PREFERRED\nclient_ssl_cert = {2}\nclient_ssl_key = {3}\nserver_ssl_mode = DISABLED\n\
             max_connect_errors = 100000\n",
            path(""),
            database.server.address(),
            path("server.crt"),
            path("server.key"),
        );
        installation.write_file(&file("router.conf"), &config, 0o600)?;
        // An RSA key: without TLS, clients seal their passwords with it.
        let made = tempfile::Builder::new().prefix("sluicegate-").tempdir()?;
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]);
        openssl.args(["-out", "server.crt", "-keyout", "server.key"]).current_dir(made.path());
        run(&mut openssl, "openssl")?;
        for name in ["server.crt", "server.key"] {
            installation.write_file(&file(name), &fs::read_to_string(made.path().join(name))?, 0o600)?;
        }
        inside.arg("--config").arg(path("router.conf"));
        let mut session = Command::new(inside.get_program());
        // Behind the change of account, with which the system forgets that it is to die with us.
        let (before, program) = split_at_program(&inside);
        session.args(before).args(["setpriv", "--pdeathsig", "KILL", "--"]).args(program);
        let mut process = Process::start("router", &session, folder.path())?;
        process.wait_for(|| answers(port))?;
        Ok(Self { name: "router", port, process: Some(process), _folders: (None, Some(folder)) })
    }
}

/// What stands before the program in a command that enters a chroot or changes the account, and the program with the rest.
fn split_at_program(command: &Command) -> (Vec<&std::ffi::OsStr>, Vec<&std::ffi::OsStr>) {
    let all: Vec<_> = command.get_args().collect();
    let at = all.iter().position(|argument| *argument == "--").map_or(0, |at| at + 1);
    (all[..at].to_vec(), all[at..].to_vec())
}
