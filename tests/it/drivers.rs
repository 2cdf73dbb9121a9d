//! Drivers, as they come, through the proxy: each runs one and the same program, directly and through the proxy in
//! transaction mode with twenty clients over two database connections, and prints the same digest of all it saw.
//!
//! The program, in whatever language (`clients/python/program.py`, `clients/node/program.js`, `java/Program.java`,
//! [`program`]): every type of `clients/{postgres,mysql}/types.tsv` as parameter, as the server's text, from text and from a literal; NULL
//! of each; a statement run twenty times; a batch of 1,000; rollback; errors inside and outside of a transaction, and one
//! behind a savepoint; 10,000 rows by portions; a cancel; text and bytes of 1 MB; a new connection. Every value is written
//! down in one form, so that all drivers say the same, and each client says the SHA-256 of it all.
//!
//! What came out is the table in `docs/DRIVERS.md`; a test fails if its row there is not what it found. To write the rows
//! anew: `SLUICEGATE_WRITE_DRIVERS=1 cargo test --test it drivers`.

mod mysql;
mod of_mysql;
mod of_postgres;
mod orms;
mod pools;
mod program;
mod said;
mod table;
mod with_mysql_async;
mod with_sqlx;
mod with_sqlx_mysql;
mod with_tokio_postgres;

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::time::Duration;

use sluicegate::demo::servers::{APP, APP_PASSWORD};

use crate::harness::forward::Forwarder;
use crate::harness::mysql::compressed::has_frames;
use crate::harness::programs::{Ended, SOURCES, java_class, node, odbc_file, python_file, run};
use crate::harness::proxy::{ProxyHandle, config, set};
use crate::harness::{each_with, servers};
use program::Place;
use said::{Said, same};
use table::{Row, Table};
use with_sqlx::Sqlx;
use with_tokio_postgres::TokioPostgres;

/// Through the proxy.
const CLIENTS: u32 = 20;
/// They are spread over so many processes: one per core of a small machine.
const PROCESSES: u32 = 2;
/// On the older server, with which no driver speaks differently.
const CLIENTS_OF_OLD: u32 = 6;
/// What the proxy's own questions may take beside the clients' connections.
const CONTROL_CONNECTIONS: u32 = 2;
/// A program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A driver, and how it is used.
struct Driver {
    /// Which folder of `clients` has the types and statements of its databases.
    database: &'static str,
    name: &'static str,
    /// What is not its default, as its program understands it.
    variant: &'static str,
    how: How,
    /// How many database connections twenty clients get.
    connections: u32,
    /// How it asks for many rows by portions.
    portions: &'static str,
    /// How a query of it is ended.
    cancel: &'static str,
}

enum How {
    Python(&'static str),
    Odbc,
    Node(&'static str),
    /// A class of `java`.
    Java(&'static str),
    /// A program that takes SQL.
    CommandLine(fn() -> String),
    Rust(fn(&Place, u32) -> Said),
}

/// Reasons that end by themselves: a value that may be asked for, a statement as long as it is in pieces. Whether they are met is a
/// matter of time.
const PASSING: [&str; 2] = ["sequence", "prepared_statement"];

/// Few enough to show that they are shared.
const SHARED: u32 = 2;

/// A test for each, and the list of them all.
macro_rules! drivers {
    ($($test:ident: $driver:expr,)*) => {
        static DRIVERS: &[Driver] = &[$($driver),*];
        $(#[test] fn $test() { check(stringify!($test), &$driver); })*
    };
}
use drivers;

/// A driver with its defaults.
const fn plain(name: &'static str, how: How, connections: u32, portions: &'static str, cancel: &'static str) -> Driver {
    Driver { database: "postgres", name, variant: "", how, connections, portions, cancel }
}

const fn pgjdbc(variant: &'static str, connections: u32) -> Driver {
    Driver { variant, ..plain("pgjdbc", How::Java("Program"), connections, "`setFetchSize`", "`cancel()`") }
}

/// libpq, called as somebody calls it.
const fn libpq(variant: &'static str) -> Driver {
    Driver { variant, ..plain("libpq", How::Python("libpq"), SHARED, "DECLARE, FETCH", "`PQcancel`") }
}

const fn psqlodbc(variant: &'static str, portions: &'static str) -> Driver {
    Driver { variant, ..plain("psqlODBC", How::Odbc, SHARED, portions, "`SQLCancel`") }
}

drivers! {
    psycopg: plain("psycopg", How::Python("psycopg"), SHARED, "named cursor", "`cancel_safe()`"),
    psycopg2: plain("psycopg2", How::Python("psycopg2"), SHARED, "named cursor", "`cancel()`"),
    asyncpg: plain("asyncpg", How::Python("asyncpg"), SHARED, "`cursor(prefetch=)`", "`timeout=`"),
    asyncpg_as_text: Driver {
        variant: "arrays and enums as text",
        ..plain("asyncpg", How::Python("asyncpg"), SHARED, "`cursor(prefetch=)`", "`timeout=`")
    },
    pg8000: plain("pg8000", How::Python("pg8000"), SHARED, "DECLARE, FETCH", "`statement_timeout`"),
    node_postgres: plain("pg", How::Node("pg"), SHARED, "pg-cursor", "`cancel()`"),
    postgres_js: plain("postgres", How::Node("postgres"), SHARED, "`cursor()`", "`cancel()`"),
    tokio_postgres:
        plain("tokio-postgres", How::Rust(program::run::<TokioPostgres>), SHARED, "`query_portal`", "`cancel_query`"),
    sqlx: plain("sqlx-postgres", How::Rust(program::run::<Sqlx>), SHARED, "none: a stream", "`statement_timeout`"),
    pgjdbc_defaults: pgjdbc("", SHARED),
    pgjdbc_threshold_0: pgjdbc("prepareThreshold=0", SHARED),
    pgjdbc_threshold_1: pgjdbc("prepareThreshold=1", SHARED),
    pgjdbc_threshold_always: pgjdbc("prepareThreshold=-1", SHARED),
    pgjdbc_everything_cached: pgjdbc("preferQueryMode=extendedCacheEverything&prepareThreshold=1", SHARED),
    pgjdbc_autosave: pgjdbc("autosave=always", SHARED),
    pgjdbc_autosave_conservative: pgjdbc("autosave=conservative", SHARED),
    pgjdbc_without_sets: pgjdbc("assumeMinServerVersion=15", SHARED),
    sqlalchemy: plain("SQLAlchemy", How::Python("sqlalchemy"), SHARED, "`yield_per`", "the driver's `cancel_safe()`"),
    django: plain("Django", How::Python("django"), SHARED, "`iterator(chunk_size=)`", "`statement_timeout`"),
    libpq_as_active_record: libpq("as ActiveRecord"),
    libpq_as_prisma: libpq("as Prisma"),
    libpq_as_prisma_for_pgbouncer: libpq("as Prisma with pgbouncer=true"),
    libpq_as_pdo: libpq("as PDO"),
    libpq_prepare_and_execute: libpq("PREPARE and EXECUTE"),
    psqlodbc_defaults: psqlodbc("", "none: all at once"),
    psqlodbc_declare_fetch: psqlodbc("UseDeclareFetch=1;Fetch=500", "`UseDeclareFetch`"),
    psqlodbc_without_server_side_prepare: psqlodbc("UseServerSidePrepare=0", "none: all at once"),
    psqlodbc_without_savepoints: psqlodbc("Protocol=7.4-0", "none: all at once"),
}

impl Driver {
    /// As in the table.
    fn title(&self) -> String {
        if self.variant.is_empty() { self.name.to_owned() } else { format!("{}, {}", self.name, self.variant) }
    }

    /// It wants its packets compressed.
    fn is_compressed(&self) -> bool {
        self.variant.to_lowercase().contains("compress")
    }

    /// Runs so many clients against this address, as processes of their own where they can be.
    fn run(&self, address: SocketAddr, database: &str, clients: u32) -> Said {
        if let How::Rust(run) = self.how {
            return Said { version: locked_version(self.name), ..run(&Place::new(address, database), clients) };
        }
        let each = clients.div_ceil(PROCESSES);
        let first = (0..clients).step_by(each as usize);
        let ended: Vec<Ended> = std::thread::scope(|scope| {
            let running: Vec<_> = first
                .map(|first| {
                    let command = self.command(address, database, first, each.min(clients - first));
                    scope.spawn(move || run(command, ""))
                })
                .collect();
            running.into_iter().map(|running| running.join().unwrap()).collect()
        });
        let mut said = Said::default();
        for ended in ended {
            said.read(&ended.stdout);
            if !(ended.status.success() && said.failures.is_empty()) {
                said.failures.push(ended.to_string());
            }
        }
        said
    }

    fn command(&self, address: SocketAddr, database: &str, first: u32, clients: u32) -> std::process::Command {
        let mut command = match self.how {
            How::Python(name) => python_file(&format!("with_{name}.py")),
            How::Odbc => odbc_file("with_psqlodbc.py"),
            How::Node(name) => node(&format!("with_{name}.js")),
            How::Java(class) => java_class(class),
            How::CommandLine(program) => {
                let mut command = python_file("with_mysql_cli.py");
                command.env("COMMAND_LINE", program());
                command
            }
            How::Rust(_) => unreachable!("runs in the test"),
        };
        command.args([&address.ip().to_string(), &address.port().to_string(), APP, APP_PASSWORD, database]);
        command.args([
            &format!("{SOURCES}/clients/{}", self.database),
            &first.to_string(),
            &clients.to_string(),
            self.variant,
        ]);
        command
    }
}

/// The version in Cargo.lock.
fn locked_version(package: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

static TABLE: Table = Table { heading: "## PostgreSQL 18", drivers: || DRIVERS.iter().collect() };

/// Runs one driver everywhere, and compares.
fn check(test: &str, driver: &Driver) {
    let setup = [
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE TABLE items (id int PRIMARY KEY, v text NOT NULL)",
        "CREATE TABLE numbers (n int PRIMARY KEY, v text NOT NULL)",
        "INSERT INTO numbers SELECT n, 'row ' || n FROM generate_series(1, 10000) n",
        // None of the zones that drivers ask for.
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'Europe/Berlin'); END $$",
    ];
    let first = OnceCell::new();
    each_with(
        &format!("driver_{test}"),
        &setup,
        |server| {
            let config = config(server.address(), driver.connections + CONTROL_CONNECTIONS);
            // Twenty clients queue for two connections with a batch of 1,000 each, on a machine that may be busy.
            set(&config, "target_group.pool", "connection_borrow_timeout", "\"90s\"")
        },
        |server, database, proxy| {
            let newest = std::ptr::eq(server, servers().last().unwrap());
            let clients = if newest { CLIENTS } else { CLIENTS_OF_OLD };
            let row = compare(driver, server.address(), database, proxy, clients, &first);
            if newest {
                TABLE.check(&row);
            }
        },
    );
}

/// Runs a driver directly and through the proxy: what was found.
fn compare(
    driver: &Driver,
    server: SocketAddr,
    database: &str,
    proxy: &ProxyHandle,
    clients: u32,
    first: &OnceCell<Vec<String>>,
) -> Row {
    let direct = driver.run(server, database, PROCESSES);
    let digest = direct.digest(PROCESSES);
    same(first.get_or_init(|| direct.lines[&0].clone()), &direct.lines[&0], "the server makes a difference");
    let between = driver.is_compressed().then(|| Forwarder::recording(proxy.address));
    let proxied = driver.run(between.as_ref().map_or(proxy.address, |between| between.address), database, clients);
    let told = between.map(|between| between.recorded()).unwrap_or_default();
    // Each client comes twice; what stops a query may be without.
    let framed = told.iter().filter(|told| has_frames(told)).count();
    assert!(told.is_empty() || framed >= 2 * clients as usize, "{}: {framed} are compressed", driver.title());
    assert!(proxied.failures.is_empty(), "{:#?}", proxied.failures);
    if let (Some(direct), Some(proxied)) = (direct.lines.get(&0), proxied.lines.get(&0)) {
        same(direct, proxied, "direct and through the proxy");
    }
    assert_eq!(proxied.digest(clients), digest);
    assert!(proxy.metric("sluicegate_disagreements_total") == 0.0);
    let mut errors = proxy.metric_by("sluicegate_errors_total", "kind");
    // What the program asks for: a cancel may find its query still waiting in the proxy.
    errors.remove("client");
    let pins = proxy.metric_by("sluicegate_pins_total", "reason");
    Row {
        title: driver.title(),
        version: proxied.version,
        clients,
        connections: driver.connections,
        pins: pins.into_keys().filter(|reason| !PASSING.contains(&reason.as_str())).collect(),
        errors,
        portions: driver.portions,
        cancel: driver.cancel,
        digest: digest.to_owned(),
    }
}

#[test]
fn the_table_has_every_driver_and_one_digest() {
    // With `autosave=always` a statement after an error in a transaction is not refused.
    TABLE.check_whole(2);
}
