//! Throwaway MySQL and MariaDB servers, as `sluicegate::demo::servers` has them for PostgreSQL.
//!
//! A server lives in a temporary folder, listens on a free loopback port, offers TLS, writes a binary log with GTIDs, and
//! is gone with its folder when its [`MyServer`] is dropped or this process dies in whatever way. It is as small as it
//! can be; nothing is durable. Servers of one flavour share a prepared data folder (made once under
//! `$SLUICEGATE_SERVERS/templates`) but not their identity. Whatever goes wrong fails the test.

pub mod beside;
pub mod wire;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use sluicegate::demo::servers::{
    APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD, certificate, copy_folder, dismiss, end, free_port, run,
    servers_folder, watch,
};

use wire::{MyLogin, MyWire};

/// Who may do everything, from everywhere.
pub const ROOT: &str = "root";
pub const ROOT_PASSWORD: &str = "root-secret";
/// Who replicas log in as.
pub const REPLICATION: &str = "replication";
pub const REPLICATION_PASSWORD: &str = "replication-secret";

/// Bump when what a template holds changes.
const TEMPLATE_GENERATION: u32 = 1;
/// What takes longer is broken. Generous: test machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at a server that starts.
const POLL: Duration = Duration::from_millis(5);
/// Somebody else may take the free port between our look and the server's bind; that often it won't happen in a row.
const PORT_ATTEMPTS: usize = 10;

/// Which of the two relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    MySql,
    MariaDb,
}

impl Flavour {
    pub const ALL: [Self; 2] = [Self::MySql, Self::MariaDb];

    /// What the keys in `servers.env` begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::MySql => "MYSQL",
            Self::MariaDb => "MARIADB",
        }
    }
}

/// The shared servers, one of each flavour; started on first use.
pub fn servers() -> impl Iterator<Item = &'static MyServer> {
    Flavour::ALL.into_iter().map(server)
}

/// The shared server of that flavour.
pub fn server(flavour: Flavour) -> &'static MyServer {
    // A static is never dropped: the servers end when this process does, by their watchers.
    static MYSQL: OnceLock<MyServer> = OnceLock::new();
    static MARIADB: OnceLock<MyServer> = OnceLock::new();
    let cell = if flavour == Flavour::MySql { &MYSQL } else { &MARIADB };
    cell.get_or_init(|| MyServer::start(flavour, Options::default()))
}

/// A new database of that name on that server, in which the application may do everything and runs `setup`.
pub fn database<S: AsRef<str>>(server: &MyServer, name: &str, setup: &[S]) -> String {
    let name = format!("{name:.64}");
    let mut root = server.root();
    root.query(&format!("DROP DATABASE IF EXISTS {name}"));
    root.query(&format!("CREATE DATABASE {name}"));
    // An underscore there stands for any character.
    root.query(&format!("GRANT ALL ON `{}`.* TO {APP}", name.replace('_', "\\_")));
    let mut app = MyWire::connect(server.address(), &server.login(APP).database(&name)).unwrap();
    for sql in setup {
        app.query(sql.as_ref());
    }
    name
}

/// How a server is to be beside what all are.
#[derive(Default)]
pub struct Options<'a> {
    /// Makes it a replica of that server, read-only.
    pub replica_of: Option<&'a MyServer>,
    /// More arguments (`--max-connections=20`); the last one of a name counts. The performance schema, which takes
    /// memory, is off: `--performance-schema=ON`.
    pub arguments: Vec<String>,
}

/// An installed server and how to run its programs: in a chroot or not, as its own account when we are root.
#[derive(Clone, Debug)]
struct Installation {
    flavour: Flavour,
    facts: String,
    chroot: Option<PathBuf>,
    account: Option<(u32, u32)>,
}

impl Installation {
    fn find(flavour: Flavour) -> Self {
        let file = servers_folder().join("servers.env");
        let facts = fs::read_to_string(&file).unwrap_or_default();
        let found = Self::from_facts(flavour, facts, geteuid().is_root());
        found.unwrap_or_else(|error| panic!("{error} (looked in: {})", file.display()))
    }

    fn from_facts(flavour: Flavour, facts: String, is_root: bool) -> Result<Self, String> {
        let mut found = Self { flavour, facts, chroot: None, account: None };
        found.chroot = found.fact("CHROOT").ok().map(PathBuf::from);
        if is_root {
            let number = |name| found.fact(name)?.parse().map_err(|error| format!("{name}: {error}"));
            found.account = Some((number("UID")?, number("GID")?));
        } else if let Some(chroot) = &found.chroot {
            return Err(format!("the {flavour:?} in {} can only be started by root", chroot.display()));
        }
        let program = found.fact("SERVER")?;
        let root = found.chroot.as_deref().unwrap_or(Path::new("/"));
        if !root.join(program.trim_start_matches('/')).exists() {
            return Err(format!("no {program} in {}; run `make provision`, which installs it", root.display()));
        }
        Ok(found)
    }

    fn fact(&self, name: &str) -> Result<&str, String> {
        let key = format!("{}_{name}=", self.flavour.prefix());
        let value = self.facts.lines().find_map(|line| line.strip_prefix(&key));
        let flavour = self.flavour;
        value.ok_or_else(|| format!("no {flavour:?} here ({key}...); run `make provision`, which installs it"))
    }

    /// The program that `servers.env` has under that name, ready for arguments.
    fn program(&self, name: &str) -> Command {
        let program = self.fact(name).unwrap_or_else(|error| panic!("{error}"));
        let mut command = match &self.chroot {
            Some(chroot) => {
                let mut command = Command::new("chroot");
                command.arg(chroot).arg("setpriv");
                command
            }
            None if self.account.is_some() => Command::new("setpriv"),
            None => Command::new(program),
        };
        if let Some((user, group)) = self.account {
            let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
            command.args([&user, &group, "--clear-groups", "--", program]);
        }
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/tmp").env("LC_ALL", "C.UTF-8");
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// A path as the programs see it.
    fn inside(&self, path: &Path) -> String {
        let inside = match &self.chroot {
            None => path.to_owned(),
            Some(chroot) => Path::new("/").join(path.strip_prefix(chroot).unwrap_or(path)),
        };
        inside.display().to_string()
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.account {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn write_file(&self, path: &Path, text: &str, mode: u32) {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.give(path);
    }

    /// A new temporary folder that the programs can reach and own.
    fn folder(&self) -> Folder {
        let parent = self.chroot.as_ref().map_or_else(std::env::temp_dir, |chroot| chroot.join("tmp"));
        let path = tempfile::Builder::new().prefix("sluicegate-").tempdir_in(parent).unwrap().keep();
        self.give(&path);
        Folder { path }
    }

    /// What the server calls itself: `9.7.4`.
    fn version(&self) -> String {
        let said = run(self.program("SERVER").args(["--no-defaults", "--version"]), "--version").unwrap();
        let mut words = said.split_whitespace().skip_while(|word| *word != "Ver").skip(1);
        words.next().and_then(|version| version.split('-').next()).unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    /// The prepared data folder: made on first use, then shared by all processes of this machine.
    fn template(&self) -> PathBuf {
        let templates = servers_folder().join("templates");
        let name = format!("{:?}-{}-{TEMPLATE_GENERATION}", self.flavour, self.version()).to_lowercase();
        let template = templates.join(name);
        if template.exists() {
            return template;
        }
        fs::create_dir_all(&templates).unwrap();
        let folder = self.new_data();
        let unfinished = templates.join(folder.path.file_name().unwrap());
        copy_folder(&folder.data(), &unfinished).unwrap();
        // Renaming is what makes it visible, whole. If another process was faster its template is as good as ours.
        if fs::rename(&unfinished, &template).is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        template
    }

    /// A data folder with our accounts in it, from nothing. It has no binary log, so that every server begins with none.
    fn new_data(&self) -> Folder {
        let folder = self.folder();
        let accounts = folder.path.join("accounts.sql");
        self.write_file(&accounts, &accounts_sql(self.flavour), 0o600);
        let accounts = self.inside(&accounts);
        let mut command = match self.flavour {
            Flavour::MySql => {
                let mut command = self.program("SERVER");
                command.args(["--no-defaults", "--initialize-insecure", "--log-error-verbosity=1"]);
                command.arg(format!("--init-file={accounts}"));
                command
            }
            Flavour::MariaDb => {
                let mut command = self.program("INSTALL_DB");
                command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                command.arg(format!("--extra-file={accounts}"));
                command
            }
        };
        command.arg(format!("--datadir={}", self.inside(&folder.data()))).args(small_log(self.flavour));
        run(&mut command, "making a data folder").unwrap();
        // It names the server, and would name all of its copies.
        let _ = fs::remove_file(folder.data().join("auto.cnf"));
        folder
    }
}

/// The accounts every server has.
fn accounts_sql(flavour: Flavour) -> String {
    let mut sql = String::new();
    if flavour == Flavour::MariaDb {
        // It makes several of root, without passwords. At that stage it looks at no accounts before it is told to.
        sql.push_str("DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';\nFLUSH PRIVILEGES;\n");
    }
    for (user, password) in
        [(ROOT, ROOT_PASSWORD), (APP, APP_PASSWORD), (MONITOR, MONITOR_PASSWORD), (REPLICATION, REPLICATION_PASSWORD)]
    {
        sql.push_str(&format!("CREATE USER {user}@'%' IDENTIFIED BY '{password}';\n"));
    }
    sql.push_str(&format!(
        "ALTER USER {ROOT}@localhost IDENTIFIED BY '{ROOT_PASSWORD}';\n\
         GRANT ALL ON *.* TO {ROOT}@'%' WITH GRANT OPTION;\n\
         CREATE DATABASE {APP};\n\
         GRANT ALL ON {APP}.* TO {APP}@'%';\n\
         GRANT REPLICATION SLAVE ON *.* TO {REPLICATION}@'%';\n\
         GRANT PROCESS, REPLICATION CLIENT ON *.* TO {MONITOR}@'%';\n",
    ));
    sql.push_str(&match flavour {
        Flavour::MySql => format!("GRANT SELECT ON performance_schema.* TO {MONITOR}@'%';\n"),
        Flavour::MariaDb => format!("GRANT SLAVE MONITOR ON *.* TO {MONITOR}@'%';\n"),
    });
    sql
}

/// The redo log takes 100 MB otherwise, in every copy. (With 8M MySQL stalls while it makes a data folder, with 16M a busy
/// machine comes near it.)
fn small_log(flavour: Flavour) -> [&'static str; 2] {
    match flavour {
        Flavour::MySql => ["--innodb-redo-log-capacity=32M", "--innodb-doublewrite=OFF"],
        Flavour::MariaDb => ["--innodb-log-file-size=8M", "--innodb-doublewrite=OFF"],
    }
}

/// A running (or stopped) throwaway server; dropping it kills the server and removes its folder.
#[derive(Debug)]
pub struct MyServer {
    installation: Installation,
    version: String,
    folder: Folder,
    port: u16,
    arguments: Vec<String>,
    running: Option<Running>,
}

/// A server's process and the watcher that ends it should this process die.
#[derive(Debug)]
struct Running {
    process: Child,
    watcher: Child,
}

impl MyServer {
    /// Starts a server and waits until it takes connections.
    pub fn start(flavour: Flavour, options: Options<'_>) -> Self {
        let installation = Installation::find(flavour);
        let (version, folder) = (installation.version(), installation.folder());
        copy_folder(&installation.template(), &folder.data()).unwrap();
        for (name, text, mode) in certificate().unwrap() {
            installation.write_file(&folder.path.join(name), &text, mode);
        }
        let arguments = options.arguments;
        let mut server = Self { installation, version, folder, port: 0, arguments, running: None };
        for attempt in 1.. {
            server.port = free_port().unwrap();
            match server.spawn() {
                Ok(()) => break,
                Err(log) if log.contains("Address already in use") && attempt < PORT_ATTEMPTS => {}
                Err(log) => panic!("{flavour:?} did not start; the end of its log:\n{log}"),
            }
        }
        if let Some(source) = options.replica_of {
            server.follow(source);
        }
        server
    }

    pub fn flavour(&self) -> Flavour {
        self.installation.flavour
    }

    /// Without what the packager appends: `9.7.4`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process.id())
    }

    /// The folder it lives in, as seen from here.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path.join("ca.crt")
    }

    /// Everything the server logged since it was started last.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path.join("server.log")).unwrap_or_default()).into_owned()
    }

    /// [`ROOT`], [`APP`], [`MONITOR`] or [`REPLICATION`], over TLS.
    pub fn login(&self, user: &str) -> MyLogin {
        let password = match user {
            ROOT => ROOT_PASSWORD,
            APP => APP_PASSWORD,
            MONITOR => MONITOR_PASSWORD,
            REPLICATION => REPLICATION_PASSWORD,
            _ => panic!("no such account: {user}"),
        };
        MyLogin::new(user, password).tls(&self.ca_file())
    }

    /// A connection of [`ROOT`].
    pub fn root(&self) -> MyWire {
        MyWire::connect(self.address(), &self.login(ROOT)).unwrap()
    }

    /// Ends the server with this signal (TERM: in order) and waits for it; what it holds stays for
    /// [`MyServer::resume`].
    pub fn stop(&mut self, signal: Signal) {
        let Some(mut running) = self.running.take() else { return };
        let ended = end(&mut running.process, signal);
        dismiss(&mut running.watcher);
        assert!(ended, "it does not end:\n{}", self.log());
    }

    /// Starts a stopped server again, on the same port and with the same data.
    pub fn resume(&mut self) {
        if self.running.is_none() {
            self.spawn().unwrap_or_else(|log| panic!("it did not start again; the end of its log:\n{log}"));
        }
    }

    /// Makes it a read-only replica of that server, and waits until it follows.
    fn follow(&self, source: &Self) {
        let (host, port) = (source.address().ip(), source.port);
        let mut root = self.root();
        let (status, thread) = match self.flavour() {
            Flavour::MySql => {
                root.query(&format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, \
                     SOURCE_USER = '{REPLICATION}', SOURCE_PASSWORD = '{REPLICATION_PASSWORD}', \
                     SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1, SOURCE_CONNECT_RETRY = 1"
                ));
                root.query("START REPLICA");
                root.query("SET GLOBAL super_read_only = 1");
                ("SHOW REPLICA STATUS", "Replica_IO_Running")
            }
            Flavour::MariaDb => {
                root.query(&format!(
                    "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, MASTER_USER = '{REPLICATION}', \
                     MASTER_PASSWORD = '{REPLICATION_PASSWORD}', MASTER_USE_GTID = slave_pos, MASTER_SSL = 1, \
                     MASTER_CONNECT_RETRY = 1"
                ));
                root.query("START SLAVE");
                root.query("SET GLOBAL read_only = 1");
                ("SHOW SLAVE STATUS", "Slave_IO_Running")
            }
        };
        let deadline = Instant::now() + PATIENCE;
        while root.row(status).remove(thread) != Some(Some("Yes".into())) {
            assert!(Instant::now() < deadline, "it does not follow: {:#?}", root.row(status));
            thread::sleep(POLL);
        }
        self.until_caught_up(source);
    }

    /// Waits until this replica has everything that the other server has written.
    pub fn until_caught_up(&self, source: &Self) {
        let (position, wait) = match self.flavour() {
            Flavour::MySql => ("SELECT @@GLOBAL.gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET"),
            Flavour::MariaDb => ("SELECT @@GLOBAL.gtid_binlog_pos", "MASTER_GTID_WAIT"),
        };
        let position = source.root().value(position);
        // Less than what the connection itself waits for an answer.
        let waited = self.root().value(&format!("SELECT {wait}('{position}', 15)"));
        assert_eq!(waited, "0", "the replica does not catch up:\n{}", self.log());
    }

    /// Makes a replica a writer.
    pub fn promote(&self) {
        let mut root = self.root();
        let word = if self.flavour() == Flavour::MySql { "REPLICA" } else { "SLAVE" };
        root.query(&format!("STOP {word}"));
        root.query(&format!("RESET {word} ALL"));
        // Of MySQL this ends super_read_only too.
        root.query("SET GLOBAL read_only = 0");
    }

    /// The end of the log if it does not start.
    fn spawn(&mut self) -> Result<(), String> {
        let log = File::create(self.folder.path.join("server.log")).unwrap();
        let mut command = self.installation.program("SERVER");
        command.args(self.all_arguments()).stdout(log.try_clone().unwrap()).stderr(log);
        // A group of its own: Ctrl-C at the terminal is for us, and the watcher tidies up after us.
        let mut process = command.process_group(0).spawn().unwrap();
        let watcher = match watch(process.id(), &self.folder.path, "KILL") {
            Ok(watcher) => watcher,
            Err(error) => {
                end(&mut process, Signal::KILL);
                panic!("{error}");
            }
        };
        self.running = Some(Running { process, watcher });
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains("ready for connections") {
            let running = self.running.as_mut().unwrap();
            if running.process.try_wait().unwrap().is_some() || Instant::now() > deadline {
                self.kill();
                let lines: Vec<String> = self.log().lines().map(str::to_owned).collect();
                return Err(lines[lines.len().saturating_sub(20)..].join("\n"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            end(&mut running.process, Signal::KILL);
            dismiss(&mut running.watcher);
        }
    }

    fn all_arguments(&self) -> Vec<String> {
        let file = |name: &str| self.installation.inside(&self.folder.path.join(name));
        let mut arguments = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", file("data")),
            format!("--socket={}", file("socket")),
            format!("--pid-file={}", file("pid")),
            // Debian's default is a folder that its packages of programs don't make.
            format!("--secure-file-priv={}", file("")),
            format!("--ssl-ca={}", file("ca.crt")),
            format!("--ssl-cert={}", file("server.crt")),
            format!("--ssl-key={}", file("server.key")),
            format!("--port={}", self.port),
            // Of all servers that may replicate from each other no two may have the same.
            format!("--server-id={}", self.port),
            format!("--report-port={}", self.port),
        ];
        let both = "--bind-address=127.0.0.1 --report-host=127.0.0.1 --skip-name-resolve --max-connections=400 --local-infile=ON \
                    --max-allowed-packet=64M --log-bin=bin --sync-binlog=0 --innodb-flush-log-at-trx-commit=0 \
                    --innodb-buffer-pool-size=16M --innodb-buffer-pool-dump-at-shutdown=OFF \
                    --innodb-buffer-pool-load-at-startup=OFF --table-open-cache=400 --performance-schema=OFF";
        let own = match self.flavour() {
            Flavour::MySql => "--mysqlx=OFF --gtid-mode=ON --enforce-gtid-consistency=ON --skip-replica-start",
            Flavour::MariaDb => "--log-slave-updates --gtid-strict-mode=ON --skip-slave-start",
        };
        arguments.extend([both, own].into_iter().flat_map(str::split_whitespace).map(str::to_owned));
        arguments.extend(small_log(self.flavour()).map(str::to_owned));
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }
}

impl Drop for MyServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[test]
fn a_missing_server_says_how_to_install_it() {
    for (facts, is_root, said) in [
        ("PG15_UID=1\n", true, "no MySql here (MYSQL_UID=...); run `make provision`, which installs it"),
        (
            "MYSQL_UID=1\nMYSQL_GID=1\nMYSQL_SERVER=/mysqld\nMYSQL_CHROOT=/nowhere\n",
            true,
            "no /mysqld in /nowhere; run `make provision`, which installs it",
        ),
        ("MYSQL_CHROOT=/nowhere\n", false, "the MySql in /nowhere can only be started by root"),
    ] {
        assert_eq!(Installation::from_facts(Flavour::MySql, facts.into(), is_root).unwrap_err(), said);
    }
}
