//! The same for MySQL and MariaDB: the program in MySQL's words (`clients/mysql`), against both, and a table for each.
//!
//! A query is stopped over another connection of its driver's. Where that says something as it connects, it would wait in line behind the
//! queries that are to be stopped: there are a few connections more than clients.

use std::cell::OnceCell;

use crate::harness::mysql::beside::my_config;
use crate::harness::mysql::{Flavour, database, servers};
use crate::harness::programs::provisioned;
use crate::harness::proxy::{set, start};

use super::program;
use super::table::Table;
use super::with_mysql_async::MySqlAsync;
use super::with_sqlx_mysql::Sqlx;
use super::{CONTROL_CONNECTIONS, Driver, How, SHARED, compare, drivers};

/// Fewer than PostgreSQL's: there are two servers that speak differently.
const CLIENTS: u32 = 10;
const CLIENTS_OF_MARIADB: u32 = 4;
/// Of a driver that sets something as it connects: that takes a connection, also for what comes to stop a query, while every client may
/// have a query that sleeps.
const TALKATIVE: u32 = CLIENTS + SHARED;
const KILL: &str = "`KILL QUERY`";

pub(super) const fn plain(name: &'static str, how: How, portions: &'static str, cancel: &'static str) -> Driver {
    Driver { database: "mysql", ..super::plain(name, how, SHARED, portions, cancel) }
}

/// The same of one that says something as it connects.
const fn talkative(name: &'static str, how: How, portions: &'static str, cancel: &'static str) -> Driver {
    Driver { connections: TALKATIVE, ..plain(name, how, portions, cancel) }
}

const fn client_of_python(variant: &'static str) -> Driver {
    Driver { variant, ..talkative("mysqlclient", How::Python("mysqlclient"), "`SSCursor`", KILL) }
}

const fn connector_python(variant: &'static str) -> Driver {
    let how = How::Python("mysql_connector");
    Driver { variant, ..talkative("mysql-connector-python", how, "`fetchmany`", KILL) }
}

const fn mysql2(variant: &'static str) -> Driver {
    Driver { variant, ..plain("mysql2", How::Node("mysql2"), "`stream()`", KILL) }
}

const fn sqlalchemy(variant: &'static str) -> Driver {
    Driver { variant, ..talkative("SQLAlchemy", How::Python("sqlalchemy_mysql"), "`yield_per`", KILL) }
}

const fn django(variant: &'static str) -> Driver {
    Driver { variant, ..talkative("Django", How::Python("django_mysql"), "none: all at once", KILL) }
}

const fn connector_j(variant: &'static str, cancel: &'static str) -> Driver {
    Driver { variant, ..talkative("mariadb-java-client", How::Java("MyProgram"), "`setFetchSize`", cancel) }
}

const fn command_line(name: &'static str, program: fn() -> String, variant: &'static str) -> Driver {
    Driver { variant, ..talkative(name, How::CommandLine(program), "`--quick`", "Ctrl-C") }
}

const MYSQL: &str = "mysql, the command line";
const MARIADB: &str = "mariadb, the command line";

drivers! {
    mysql_command_line: command_line(MYSQL, mysql, ""),
    mysql_command_line_zlib: command_line(MYSQL, mysql, "--compression-algorithms=zlib"),
    mysql_command_line_zstd: command_line(MYSQL, mysql, "--compression-algorithms=zstd"),
    mariadb_command_line: command_line(MARIADB, mariadb, ""),
    mariadb_command_line_zlib: command_line(MARIADB, mariadb, "--compress"),
    pymysql: talkative("PyMySQL", How::Python("pymysql"), "`SSCursor`", KILL),
    mysqlclient: client_of_python(""),
    mysqlclient_zlib: client_of_python("compress=True"),
    mysql_connector: connector_python(""),
    mysql_connector_prepared: connector_python("prepared cursor"),
    mysql2_query: mysql2("query"),
    mysql2_execute: mysql2("execute"),
    mysql2_query_zlib: mysql2("query, compress: true"),
    mysql2_execute_zlib: mysql2("execute, compress: true"),
    mysql_async: plain("mysql_async", How::Rust(program::run::<MySqlAsync>), "none: a stream", KILL),
    sqlx_mysql: plain("sqlx-mysql", How::Rust(program::run::<Sqlx>), "none: a stream", "the server's time limit"),
    connector_j_defaults: connector_j("", "`cancel()`"),
    connector_j_server_prepared: connector_j("useServerPrepStmts=true", "`cancel()`"),
    connector_j_zlib: connector_j("useCompression=true", "`cancel()`"),
    connector_j_server_prepared_zlib: connector_j("useServerPrepStmts=true&useCompression=true", "`cancel()`"),
    connector_j_rewritten: connector_j("rewriteBatchedStatements=true and query timeout", "`setQueryTimeout`"),
    sqlalchemy_pymysql: sqlalchemy("over PyMySQL"),
    sqlalchemy_mysqlclient: sqlalchemy("over mysqlclient"),
    django_mysqlclient: django("over mysqlclient"),
    django_pymysql: django("over PyMySQL"),
    mysql2_as_laravel: mysql2("as Laravel"),
    mysql2_as_older_laravel: mysql2("as older Laravel"),
    mysql2_as_rails: mysql2("as Rails"),
    mysql2_as_rails_not_strict: mysql2("as Rails, not strict"),
}

/// Without TLS the password goes under the server's key.
fn mysql() -> String {
    format!(
        "/usr/sbin/chroot {} {} --no-defaults --get-server-public-key",
        provisioned("MYSQL_CHROOT"),
        provisioned("MYSQL_CLIENT")
    )
}

fn mariadb() -> String {
    format!("{} --no-defaults --skip-ssl", provisioned("MARIADB_CLIENT"))
}

/// Each server's own command line: neither has the other's plugins for passwords.
fn is_for(driver: &Driver, flavour: Flavour) -> bool {
    match driver.name {
        MYSQL => flavour == Flavour::MySql,
        MARIADB => flavour == Flavour::MariaDb,
        _ => true,
    }
}

static OF_MYSQL: Table = Table {
    heading: "## MySQL 9.7",
    drivers: || DRIVERS.iter().filter(|driver| is_for(driver, Flavour::MySql)).collect(),
};
static OF_MARIADB: Table = Table {
    heading: "## MariaDB 10.11",
    drivers: || DRIVERS.iter().filter(|driver| is_for(driver, Flavour::MariaDb)).collect(),
};

/// Runs one driver against both, and compares.
fn check(test: &str, driver: &Driver) {
    let types = program::MYSQL.types.lines().map(|line| line.split_once('\t').unwrap().0);
    let mut columns: Vec<String> = types.map(|kind| format!("`{kind}` {kind} NULL")).collect();
    columns.dedup();
    let setup = [
        "ALTER DATABASE CHARACTER SET utf8mb4".to_owned(),
        format!("CREATE TABLE kinds (id INT PRIMARY KEY, {})", columns.join(", ")),
        "CREATE TABLE items (id INT PRIMARY KEY, v VARCHAR(100) NOT NULL)".to_owned(),
        "CREATE TABLE numbers (n INT PRIMARY KEY, v VARCHAR(100) NOT NULL)".to_owned(),
        "CREATE TABLE digits (d INT)".to_owned(),
        "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)".to_owned(),
        "INSERT INTO numbers SELECT n, CONCAT('row ', n) FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 1 AS n \
         FROM digits a, digits b, digits c, digits d) AS x"
            .to_owned(),
    ];
    let first = OnceCell::new();
    for server in servers().filter(|server| is_for(driver, server.flavour())) {
        let flavour = server.flavour();
        let name = database(server, &format!("driver_{test}_{flavour:?}").to_lowercase(), &setup);
        let config = my_config(server, driver.connections + CONTROL_CONNECTIONS);
        // All clients queue for two connections with a batch of 1,000 each, on a machine that may be busy.
        let proxy = start(&set(&config, "target_group.pool", "connection_borrow_timeout", "\"90s\""));
        let (table, clients) = match flavour {
            Flavour::MySql => (&OF_MYSQL, CLIENTS),
            Flavour::MariaDb => (&OF_MARIADB, CLIENTS_OF_MARIADB),
        };
        table.check(&compare(driver, server.address(), &name, &proxy, clients, &first));
    }
}

#[test]
fn the_tables_have_every_driver_and_one_digest() {
    OF_MYSQL.check_whole(1);
    OF_MARIADB.check_whole(1);
}
