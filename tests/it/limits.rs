//! Limits of users: how many of their clients come in, how many database connections these have, and what they are told.

use std::net::SocketAddr;
use std::time::Instant;

use sluicegate::demo::servers::{APP, Feature, Installation, Options, PostgresServer};

use crate::harness::each_with;
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Frame, Login, LoginFailed, PATIENCE, Wire, kinds, query};

const SECOND: &str = "limits_second";
const SECOND_PASSWORD: &str = "limits-second-secret";

/// A configuration with a second user, who has no limits.
fn two_users(server: &PostgresServer, connections: u32) -> String {
    let role = format!(
        "DO $$ BEGIN CREATE ROLE {SECOND} LOGIN PASSWORD '{SECOND_PASSWORD}'; EXCEPTION WHEN duplicate_object THEN NULL; \
         END $$"
    );
    server.run_sql("postgres", &role).unwrap();
    let second = format!("[[user]]\nname = \"{SECOND}\"\npassword = {{ value = \"{SECOND_PASSWORD}\" }}\n");
    config(server.address(), connections) + &second
}

fn second(database: &str) -> Login {
    Login::new(SECOND, SECOND_PASSWORD).database(database)
}

fn connect(address: SocketAddr, login: &Login) -> Wire {
    Wire::connect(address, login).unwrap()
}

/// Severity, code and words of the only error among these frames.
fn error(frames: &[Frame]) -> (String, String, String) {
    let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == b'E').collect();
    assert_eq!(errors.len(), 1, "{frames:#?}");
    let field = |name| errors[0].field(name).unwrap_or_default();
    (field(b'V'), field(b'C'), field(b'M'))
}

fn refused(address: SocketAddr, login: &Login) -> (String, String, String) {
    match Wire::connect(address, login) {
        Err(LoginFailed { frames, .. }) => error(&frames),
        Ok(_) => panic!("a login that should be refused"),
    }
}

/// Until a client that has left is counted no more.
#[test]
fn a_users_connections() {
    let text = |server: &PostgresServer, connections: u32| {
        let text = set(&two_users(server, 6), "user", "max_connections", &connections.to_string());
        set(&text, "target_group.pool", "connection_borrow_timeout", "\"500ms\"")
    };
    each_with(
        "limits_connections",
        &[],
        |server| text(server, 1),
        |server, database, proxy| {
            let app = Login::app().database(database);
            let [mut holder, mut waiter] = [(); 2].map(|()| Wire::comes_in(proxy.address, &app));
            let mut other = Wire::comes_in(proxy.address, &second(database));
            holder.query("BEGIN");
            waiter.send(&query("SELECT 1"));
            // There are three more in the budget, for others.
            assert_eq!(other.value("SELECT 'goes on'"), "goes on");
            let frames = waiter.until_ready(1);
            let (severity, code, words) = error(&frames);
            assert_eq!((kinds(&frames).as_str(), severity.as_str(), code.as_str()), ("EZ", "ERROR", "53300"));
            let expected = format!(
                "Timed-out waiting to acquire database connection: user \"{APP}\" may have 1 at target group \"it\" \
             (max_connections of this user), and none of them became free within 500ms (connection_borrow_timeout)"
            );
            assert_eq!(words, expected);
            waiter.send(&query("SELECT 'as it comes back'"));
            holder.query("COMMIT");
            assert_eq!(kinds(&waiter.until_ready(1)), "TDCZ");
            // A higher limit is for those who wait, too.
            holder.query("BEGIN");
            loop {
                waiter.send(&query("SELECT 'now there are two'"));
                proxy.reload(&text(server, 2));
                let frames = waiter.until_ready(1);
                if kinds(&frames) == "TDCZ" {
                    break;
                }
                assert!(error(&frames).2.contains("max_connections of this user"), "{frames:#?}");
            }
            holder.query("COMMIT");
            // Behind a lower one they become fewer.
            proxy.reload(&text(server, 1));
            wait_for_connections(server, database, APP, 1);
        },
    );
}

#[test]
fn a_users_clients() {
    let text = |server: &PostgresServer, clients: u32| {
        let text = set(&two_users(server, 6), "user", "max_clients", &clients.to_string());
        text + "[[endpoint]]\nname = \"other\"\nlisten = \"127.0.0.1:0\"\ntarget_group = \"it\"\ntls = \"off\"\n"
    };
    each_with(
        "limits_clients",
        &[],
        |server| text(server, 2),
        |server, database, proxy| {
            let app = Login::app().database(database);
            let other_endpoint = listens(proxy, "other");
            let one = connect(proxy.address, &app);
            let mut two = connect(other_endpoint, &app);
            for address in [proxy.address, other_endpoint] {
                let words = format!("too many clients already: user \"{APP}\" may have 2 (max_clients of this user)");
                assert_eq!(refused(address, &app), ("FATAL".to_owned(), "53300".to_owned(), words));
                // Nobody learns of it who has not proven who it is.
                let wrong = Login::new(APP, "wrong-secret").database(database);
                assert_eq!(refused(address, &wrong).1, "28P01");
            }
            assert_eq!(connect(proxy.address, &second(database)).value("SELECT 'not concerned'"), "not concerned");
            drop(one);
            let mut three = Wire::comes_in(proxy.address, &app);
            assert_eq!(refused(proxy.address, &app).1, "53300");
            proxy.reload(&text(server, 3));
            let mut four = Wire::comes_in(other_endpoint, &app);
            // Whoever is here stays.
            proxy.reload(&text(server, 1));
            let deadline = Instant::now() + PATIENCE;
            while !refused(proxy.address, &app).2.contains("may have 1 ") {
                assert!(Instant::now() < deadline);
            }
            for client in [&mut two, &mut three, &mut four] {
                assert_eq!(client.value("SELECT 'goes on'"), "goes on");
            }
        },
    );
}

#[test]
fn connections_ahead_of_need() {
    let config = |server: &PostgresServer| {
        let text = set(&two_users(server, 12), "target_group.pool", "min_connections", "3");
        set(&text, "target_group.pool", "connection_idle_timeout", "\"300ms\"")
    };
    each_with("limits_min", &[], config, |server, database, proxy| {
        let one = connect(proxy.address, &Login::app().database(database));
        let first = wait_for_connections(server, database, APP, 3);
        let other = connect(proxy.address, &second(database));
        wait_for_connections(server, database, SECOND, 3);
        // While a client is there they stay, however long they are not used; then they go.
        drop(other);
        wait_for_connections(server, database, SECOND, 0);
        assert_eq!(wait_for_connections(server, database, APP, 3), first);
        drop(one);
        wait_for_connections(server, database, APP, 0);
    });
}

#[test]
fn connections_ahead_of_need_are_given_up_for_those_who_wait() {
    let config = |server: &PostgresServer| set(&two_users(server, 4), "target_group.pool", "min_connections", "2");
    each_with("limits_min_given_up", &[], config, |server, database, proxy| {
        let mut one = connect(proxy.address, &Login::app().database(database));
        wait_for_connections(server, database, APP, 2);
        let mut other = connect(proxy.address, &second(database));
        other.query("BEGIN");
        one.query("BEGIN");
        wait_for_connections(server, database, APP, 1);
        for client in [&mut one, &mut other] {
            client.query("COMMIT");
        }
    });
}

/// A login that takes another connection's place, or that of one that is closed, does not come before the database has let
/// go of it.
#[test]
fn places_change_hands_at_a_database_that_is_full() {
    let installation = Installation::find(Feature::Any).unwrap();
    let server = PostgresServer::start(&installation, Options { max_connections: 10, ..Options::default() }).unwrap();
    // One for clients.
    // A probe that takes too long would have the place.
    let proxy = start(&set(&two_users(&server, 3), "target_group.health", "timeout", "\"20s\""));
    let mut clients = [Login::app().database("app"), second("app")].map(|login| connect(proxy.address, &login));
    let mut direct = Vec::new();
    while let Ok(wire) = Wire::connect(server.address(), &Login::app().database("app")) {
        direct.push(wire);
    }
    for round in 0..100 {
        for client in &mut clients {
            assert_eq!(kinds(&client.ask(&query("SELECT 1"), 1)), "TDCZ", "{round}\n{}", proxy.log());
        }
    }
    // Also as they come back.
    let [one, other] = &mut clients;
    for round in 0..50 {
        one.query("BEGIN");
        other.send(&query("SELECT 1"));
        one.query("COMMIT");
        assert_eq!(kinds(&other.until_ready(1)), "TDCZ", "{round}\n{}", proxy.log());
    }
    // And behind those who leave in the middle of a transaction, which takes a while to roll back.
    let tables = "DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('CREATE TEMP TABLE t%s (i int PRIMARY KEY)', i); END LOOP; END $$";
    for round in 0..10 {
        let mut leaving = connect(proxy.address, &Login::app().database("app"));
        leaving.query("BEGIN");
        leaving.query(tables);
        other.send(&query("SELECT 1"));
        drop(leaving);
        assert_eq!(kinds(&other.until_ready(1)), "TDCZ", "{round}\n{}", proxy.log());
    }
    assert_eq!(proxy.metric("sluicegate_database_connections_failed_total"), 0.0, "{}", proxy.log());
}

/// Where an endpoint listens that has taken any port.
fn listens(proxy: &ProxyHandle, endpoint: &str) -> SocketAddr {
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("listening") && line.contains(endpoint)).unwrap();
    let address = line.rsplit("127.0.0.1:").next().unwrap();
    let port: String = address.chars().take_while(char::is_ascii_digit).collect();
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

/// Until the server has so many sessions of this user in this database; their process ids.
fn wait_for_connections(
    server: &PostgresServer,
    database: &str,
    user: &str,
    expected: usize,
) -> Vec<Vec<Option<String>>> {
    let mut superuser = connect(server.address(), &Login::superuser().database("postgres"));
    let count = format!(
        "SELECT pid FROM pg_stat_activity, pg_sleep(0.01) WHERE datname = '{database}' AND usename = '{user}' \
         ORDER BY pid"
    );
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = superuser.query(&count);
        if open.len() == expected {
            return open;
        }
        assert!(Instant::now() < deadline, "{open:?}, not {expected}");
    }
}
