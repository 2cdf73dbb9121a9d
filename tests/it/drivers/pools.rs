//! The applications' own pools, HikariCP and SQLAlchemy's, keep their connections through every error after which a
//! session goes on: the physical connection afterwards is the one from before, and the proxy saw no other come.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, Options, PostgresServer, Stop};

use crate::harness::programs::{Talk, java_class, python_file};
use crate::harness::proxy::{self, ProxyHandle, config, set};
use crate::harness::wire::{Login, PATIENCE, Wire, query};

/// One for clients, two of the proxy's own: the first client that holds it makes all others wait.
const ONE: u32 = 3;
/// The database a server comes with.
const DATABASE: &str = "app";

#[test]
fn hikaricp() {
    keeps_its_connection(|address| {
        let mut command = java_class("Pool");
        // A connection that nobody used for half a second is asked whether it is alive; one that can't be borrowed for is
        // not. This is about connections in use, however slow the machine.
        let options = "-Dcom.zaxxer.hikari.aliveBypassWindowMs=600000 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
        command.env("JDK_JAVA_OPTIONS", options);
        // Without the SETs with which it begins: they pin.
        command.arg(format!("jdbc:postgresql://{address}/{DATABASE}?assumeMinServerVersion=15"));
        command.args([APP, APP_PASSWORD]);
        command
    });
}

#[test]
fn sqlalchemy_with_psycopg() {
    keeps_its_connection(|address| sqlalchemy("psycopg", address));
}

#[test]
fn sqlalchemy_with_psycopg2() {
    keeps_its_connection(|address| sqlalchemy("psycopg2", address));
}

fn sqlalchemy(driver: &str, address: SocketAddr) -> Command {
    let mut command = python_file("pool_sqlalchemy.py");
    command.arg(format!("postgresql+{driver}://{APP}:{APP_PASSWORD}@{address}/{DATABASE}"));
    command
}

/// Every row of "What clients are told" after which the session goes on and whose code is not of class 08.
fn keeps_its_connection(program: impl Fn(SocketAddr) -> Command) {
    let installation = Installation::find(Feature::Any).unwrap();
    let mut server = PostgresServer::start(&installation, Options::default()).unwrap();
    let start = |changes: &[(&str, &str)]| {
        let config = config(server.address(), ONE);
        proxy::start(&changes.iter().fold(config, |config, (key, value)| set(&config, "target_group.pool", key, value)))
    };

    let proxy = start(&[("connection_borrow_timeout", "\"15s\""), ("max_waiting", "1")]);
    let mut pool = Pool::new(&proxy, program(proxy.address));
    line_is_full(&mut pool, &proxy);
    drop(proxy);

    // Of three connections this user may have one, which somebody else holds in the user's name.
    let few = config(server.address(), ONE + 2);
    let few = set(&few, "target_group.pool", "connection_borrow_timeout", "\"2s\"");
    let proxy = proxy::start(&set(&few, "user", "max_connections", "1"));
    let mut pool = Pool::new(&proxy, program(proxy.address));
    nothing_free_in_time(&mut pool, &proxy, "max_connections of this user");
    pool.has_made_one_connection(&proxy, 1);
    drop(proxy);

    let proxy = start(&[("transaction_max", "\"1s\"")]);
    let mut pool = Pool::new(&proxy, program(proxy.address));
    pool.fails("transaction SELECT pg_sleep(0.1)", "57014", "transaction_max");
    pool.works();
    pool.has_made_one_connection(&proxy, 0);
    drop(proxy);

    let proxy = start(&[("connection_borrow_timeout", "\"2s\""), ("query_timeout", "\"1s\"")]);
    let mut pool = Pool::new(&proxy, program(proxy.address));
    pool.fails("ask SELECT pg_sleep(60)", "57014", "query_timeout");
    pool.works();
    pool.fails("transaction SELECT pg_sleep(60)", "57014", "query_timeout");
    pool.works();
    nothing_free_in_time(&mut pool, &proxy, "(connection_borrow_timeout)");
    connection_lost_before_a_statement(&mut pool, &server);
    login_refused_at_the_target(&mut pool, &server);
    no_writer(&mut pool, &mut server);
    pool.has_made_one_connection(&proxy, 1);
}

fn line_is_full(pool: &mut Pool, proxy: &ProxyHandle) {
    let [mut holder, mut waiter] = [(); 2].map(|()| client(proxy));
    holder.query("BEGIN");
    waiter.send(&query("SELECT 1"));
    proxy.until_metric("sluicegate_clients_waiting", 1);
    pool.fails("ask SELECT 1", "53300", "max_waiting");
    holder.query("COMMIT");
    waiter.until_ready(1);
    pool.works();
    pool.has_made_one_connection(proxy, 2);
}

fn nothing_free_in_time(pool: &mut Pool, proxy: &ProxyHandle, why: &str) {
    let mut holder = client(proxy);
    holder.query("BEGIN");
    for command in ["ask SELECT 1", "transaction SELECT 1"] {
        pool.fails(command, "53300", "Timed-out waiting to acquire database connection");
        pool.fails(command, "53300", why);
    }
    holder.query("COMMIT");
    pool.works();
}

/// It never learns that there was another one.
fn connection_lost_before_a_statement(pool: &mut Pool, server: &PostgresServer) {
    for _ in 0..3 {
        lose_connections(server);
        pool.works();
    }
}

fn login_refused_at_the_target(pool: &mut Pool, server: &PostgresServer) {
    server.run_sql("postgres", &format!("ALTER ROLE {APP} PASSWORD 'another-secret'")).unwrap();
    lose_connections(server);
    pool.fails("ask SELECT 1", "53300", "could not log in at target group");
    server.run_sql("postgres", &format!("ALTER ROLE {APP} PASSWORD '{APP_PASSWORD}'")).unwrap();
    pool.works_again("could not log in at target group");
}

fn no_writer(pool: &mut Pool, server: &mut PostgresServer) {
    server.stop(Stop::Fast).unwrap();
    pool.fails("ask SELECT 1", "53300", "no writer of target group");
    server.resume().unwrap();
    pool.works_again("no writer of target group");
}

fn client(proxy: &ProxyHandle) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(DATABASE)).unwrap()
}

fn lose_connections(server: &PostgresServer) {
    let terminate =
        format!("SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = '{APP}'");
    server.run_sql("postgres", &terminate).unwrap();
}

/// A pool of an application, which has made its connection.
struct Pool {
    talk: Talk,
    /// That the proxy gave to its connection.
    pid: String,
}

impl Pool {
    fn new(proxy: &ProxyHandle, command: Command) -> Self {
        let mut pool = Self { talk: Talk::start(command), pid: String::new() };
        let said = pool.talk.ask("ask SELECT 'at first'");
        let pid = said.strip_prefix("ok ").and_then(|said| said.strip_suffix(" at first"));
        pool.pid = pid.unwrap_or_else(|| panic!("{said}\n{}", proxy.log())).to_owned();
        pool.works();
        pool
    }

    /// By the same connection.
    fn works(&mut self) {
        assert_eq!(self.talk.ask("ask SELECT 'works'"), format!("ok {} works", self.pid));
    }

    /// The same, after some more of the same errors while the proxy finds out that all is well again.
    fn works_again(&mut self, words: &str) {
        let began = Instant::now();
        loop {
            let said = self.talk.ask("ask SELECT 'again'");
            if said == format!("ok {} again", self.pid) {
                return;
            }
            assert!(said.starts_with(&format!("error {} 53300 ", self.pid)) && said.contains(words), "{said}");
            assert!(began.elapsed() < PATIENCE, "{said}");
        }
    }

    fn fails(&mut self, command: &str, code: &str, words: &str) {
        let said = self.talk.ask(command);
        assert!(said.starts_with(&format!("error {} {code} ", self.pid)) && said.contains(words), "{command}: {said}");
    }

    /// Beside so many clients of the test's own.
    fn has_made_one_connection(&self, proxy: &ProxyHandle, others: u32) {
        assert_eq!(proxy.metric("sluicegate_client_connections_received_total"), f64::from(1 + others));
    }
}
