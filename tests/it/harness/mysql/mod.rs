//! Throwaway MySQL and MariaDB servers of the tests: those of `sluicegate::demo::my_servers`, with connections of the oracle's
//! and replicas. Whatever goes wrong fails the test.

pub mod beside;
pub mod compressed;
pub mod wire;

use std::ops::Deref;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate::demo::my_servers::{self, MyInstallation, REPLICATION, REPLICATION_PASSWORD, ROOT, ROOT_PASSWORD};
use sluicegate::demo::servers::{APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD};

pub use sluicegate::demo::my_servers::Flavour;

use wire::{MyLogin, MyWire};

/// What takes longer is broken. Generous: test machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at a server that starts.
const POLL: Duration = Duration::from_millis(5);

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

/// A throwaway server; dropping it kills the server and removes its folder.
#[derive(Debug)]
pub struct MyServer(my_servers::MyServer);

impl Deref for MyServer {
    type Target = my_servers::MyServer;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl MyServer {
    /// Starts a server and waits until it takes connections.
    pub fn start(flavour: Flavour, options: Options<'_>) -> Self {
        let installation = MyInstallation::find(flavour).unwrap_or_else(|error| panic!("{error}"));
        let server = my_servers::MyServer::start(&installation, options.arguments);
        let server = Self(server.unwrap_or_else(|error| panic!("{flavour}: {error}")));
        if let Some(source) = options.replica_of {
            server.follow(source);
        }
        server
    }

    pub fn flavour(&self) -> Flavour {
        self.installation().flavour()
    }

    /// Without what the packager appends: `9.7.4`.
    pub fn version(&self) -> &str {
        self.installation().version()
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

    /// A connection of [`ROOT`]. If the server is gone all of its tests say why.
    pub fn root(&self) -> MyWire {
        self.check().unwrap_or_else(|error| panic!("{}: {error}", self.flavour()));
        MyWire::connect(self.address(), &self.login(ROOT)).unwrap()
    }

    /// Ends the connection of this number (KILL), and waits until it is gone: MariaDB's answer comes before that.
    pub fn kill(&self, id: &str) {
        let mut root = self.root();
        root.query(&format!("KILL {id}"));
        root.until(&format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id = {id}"), "0");
    }

    /// Ends the server with this signal (TERM: in order) and waits for it.
    pub fn stop(&mut self, signal: Signal) {
        self.0.stop(signal).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts a stopped server again, on the same port and with the same data.
    pub fn resume(&mut self) {
        self.0.resume().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Makes it a read-only replica of that server, and waits until it follows.
    fn follow(&self, source: &Self) {
        let (host, port) = (source.address().ip(), source.address().port());
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
}
