//! `init_query`: what every client finds done on its connection, whatever others, or it itself, did there.

use std::time::{Duration, Instant};

use sluicegate::demo::servers::{APP, PostgresServer};

use crate::harness::each_with;
use crate::harness::proxy::{ProxyHandle, config, set};
use crate::harness::wire::{Frame, Login, LoginFailed, PATIENCE, Wire, bind, execute, kinds, parse, query, sync};

/// One for clients, two of the proxy's own.
const ONE: u32 = 3;
const TIMEOUT: &str = "SHOW statement_timeout";
const SCHEMA: &str = "SHOW search_path";

fn with_init(server: &PostgresServer, sql: &str) -> String {
    set(&config(server.address(), ONE), "target_group.pool", "init_query", &format!("{sql:?}"))
}

fn sets(server: &PostgresServer) -> String {
    with_init(server, "SET statement_timeout = '77s'; SELECT repeat('x', 100000); SET search_path = init")
}

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

/// The words of the only error among these frames: severity, code, message.
fn error(frames: &[Frame]) -> (String, String, String) {
    let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == b'E').collect();
    assert_eq!(errors.len(), 1, "{frames:#?}");
    let field = |name| errors[0].field(name).unwrap_or_default();
    (field(b'V'), field(b'C'), field(b'M'))
}

#[test]
fn every_client_finds_it_done() {
    each_with("init_done", &[], sets, |server, database, proxy| {
        let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
        let mut one = client(proxy, database);
        assert_eq!((one.value(TIMEOUT), one.value(SCHEMA)), ("77s".to_owned(), "init".to_owned()));
        let pid = one.value("SELECT pg_backend_pid()");
        // It undoes it itself, in either protocol.
        let discards =
            [query("DISCARD ALL"), [parse("", "DISCARD ALL"), bind("", "", &[]), execute("", 0), sync()].concat()];
        for discard in discards {
            let frames = one.ask(&[discard, query(TIMEOUT), query(SCHEMA)].concat(), 3);
            let values: Vec<_> =
                frames.iter().filter(|frame| frame.kind == b'D').flat_map(Frame::columns).flatten().collect();
            assert_eq!(values, ["77s", "init"], "{frames:#?}");
            one.query("DISCARD ALL");
        }
        // Others come behind it, and behind those who changed it.
        for sql in ["SET statement_timeout = '1s'; SET search_path = other", "CREATE TEMP TABLE t ()"] {
            let mut other = client(proxy, database);
            assert_eq!((other.value(TIMEOUT), other.value(SCHEMA)), ("77s".to_owned(), "init".to_owned()));
            other.query(sql);
        }
        // What a client brings along counts more, and is gone with it.
        let bringing = |name: &str, value: &str| {
            Wire::connect(proxy.address, &Login::app().database(database).with(name, value)).unwrap()
        };
        let mut other = bringing("options", "-c statement_timeout=5s -c work_mem=1MB");
        assert_eq!((other.value(TIMEOUT), other.value(SCHEMA)), ("5s".to_owned(), "init".to_owned()));
        assert_eq!((one.value(TIMEOUT), one.value(SCHEMA)), ("77s".to_owned(), "init".to_owned()));
        let mut third = bringing("options", "-c work_mem=1MB -c search_path=mine");
        for _ in 0..2 {
            assert_eq!((other.value(TIMEOUT), other.value(SCHEMA)), ("5s".to_owned(), "init".to_owned()));
            assert_eq!((third.value(TIMEOUT), third.value(SCHEMA)), ("77s".to_owned(), "mine".to_owned()));
            assert_eq!((one.value(TIMEOUT), one.value("SHOW work_mem")), ("77s".to_owned(), "4MB".to_owned()));
        }
        assert_eq!(one.value("SELECT pg_backend_pid()"), pid, "all of it on one connection");
        // And on the next one.
        superuser.query(&format!("SELECT pg_terminate_backend({pid}, 10000)"));
        assert_eq!((one.value(TIMEOUT), one.value(SCHEMA)), ("77s".to_owned(), "init".to_owned()));
    });
}

#[test]
fn it_is_run_once_where_nothing_undoes_it() {
    let config = |server: &PostgresServer| with_init(server, "INSERT INTO runs VALUES (pg_backend_pid())");
    each_with("init_once", &["CREATE TABLE runs (pid int)"], config, |server, database, proxy| {
        for _ in 0..3 {
            let mut clients = [(); 3].map(|()| client(proxy, database));
            for client in &mut clients {
                client.query("BEGIN; SELECT 1; COMMIT");
            }
        }
        assert_eq!(server.run_sql(database, "SELECT count(*) FROM runs").unwrap(), "1");
        client(proxy, database).query("SET x.y = 1");
        assert_eq!(client(proxy, database).value("SELECT count(*) FROM runs"), "2", "a reset was between");
    });
}

#[test]
fn between_any_two_clients_with_a_full_reset() {
    let config = |server: &PostgresServer| set(&sets(server), "target_group.pool", "reset", "\"full\"");
    each_with("init_full", &[], config, |_, database, proxy| {
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        for _ in 0..3 {
            for client in [&mut one, &mut other] {
                assert_eq!((client.value(TIMEOUT), client.value(SCHEMA)), ("77s".to_owned(), "init".to_owned()));
            }
        }
        one.query("BEGIN; SET LOCAL statement_timeout = '1s'; COMMIT");
        assert_eq!(other.value(TIMEOUT), "77s");
    });
}

#[test]
fn one_that_fails_is_told_and_stands_in_the_log() {
    let cases = [
        ("SET no_such_marker = 1", "42704", "unrecognized configuration parameter \"no_such_marker\""),
        ("SELECT 1; BEGIN /* marker */", "25001", "init_query leaves a transaction open"),
        ("COPY t FROM STDIN /* marker */", "0A000", "init_query must not copy"),
    ];
    for (number, (sql, code, logged)) in cases.into_iter().enumerate() {
        let config = |server: &PostgresServer| with_init(server, sql);
        each_with(&format!("init_fails_{number}"), &["CREATE TABLE t ()"], config, |server, database, proxy| {
            let Err(LoginFailed { frames, .. }) = Wire::connect(proxy.address, &Login::app().database(database)) else {
                panic!("a login that should fail");
            };
            let words = format!(
                "a database connection of target group \"it\" could not be made ready: init_query failed (the database \
                 answered {code}); see the proxy's log"
            );
            assert_eq!(error(&frames), ("FATAL".to_owned(), "53300".to_owned(), words));
            let log = proxy.logs(logged);
            assert!(!log.contains("/* marker */") && !log.contains("SET no_such"), "{log}");
            wait_for_none(server, database);
        });
    }
}

/// It takes no more of `connect_timeout` than there is, and what hangs at the database does not become more and more.
#[test]
fn one_that_hangs() {
    let config = |server: &PostgresServer| {
        let text = with_init(server, "SELECT pg_advisory_xact_lock(1)");
        set(&text, "target_group.pool", "connect_timeout", "\"300ms\"")
    };
    each_with("init_hangs", &[], config, |server, database, proxy| {
        let app = Login::app().database(database);
        let mut locker = Wire::connect(server.address(), &app).unwrap();
        locker.query("SELECT pg_advisory_lock(1)");
        let deadline = Instant::now() + PATIENCE;
        while proxy.log().matches("init_query took longer than connect_timeout").count() < 6 {
            let Err(LoginFailed { frames, .. }) = Wire::connect(proxy.address, &app) else {
                panic!("a login that should fail");
            };
            let words = "init_query failed (the database answered nothing within 300ms)";
            assert!(error(&frames).2.contains(words), "{frames:#?}");
            assert!(Instant::now() < deadline);
        }
        let hanging = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
        assert_eq!(locker.query(hanging).len(), 4);
        locker.query("SELECT pg_advisory_unlock(1)");
        while Wire::connect(proxy.address, &app).is_err() {
            assert!(Instant::now() < deadline);
        }
    });
}

/// A session goes on, and finds it done once it can be done.
#[test]
fn one_that_fails_for_a_while() {
    let config = |server: &PostgresServer| {
        let text = with_init(server, "SELECT made_ready()");
        set(&text, "target_group.pool", "connection_idle_timeout", "\"200ms\"")
    };
    let setup = ["CREATE FUNCTION made_ready() RETURNS int LANGUAGE sql AS 'SELECT 1'"];
    each_with("init_for_a_while", &setup, config, |server, database, proxy| {
        let mut one = client(proxy, database);
        wait_for_none(server, database);
        let as_owner = |sql: &str| server.run_sql(database, sql).unwrap();
        as_owner("ALTER FUNCTION made_ready() RENAME TO not_now");
        let frames = one.ask(&query("SELECT 1"), 1);
        let (severity, code, words) = error(&frames);
        assert_eq!((kinds(&frames).as_str(), severity.as_str(), code.as_str()), ("EZ", "ERROR", "53300"));
        assert!(words.contains("init_query failed (the database answered 42883)"), "{words}");
        as_owner("ALTER FUNCTION not_now() RENAME TO made_ready");
        let deadline = Instant::now() + PATIENCE;
        while kinds(&one.ask(&query("SELECT 1"), 1)) != "TDCZ" {
            assert!(Instant::now() < deadline, "{}", proxy.log());
        }
    });
}

/// Where it can't be run again its connection is given up, and the client told only if the next one fails as well.
#[test]
fn one_that_can_be_run_only_once() {
    let config = |server: &PostgresServer| with_init(server, "CREATE TEMP TABLE once ()");
    each_with("init_only_once", &[], config, |_, database, proxy| {
        let login = Login::app().database(database);
        let mut other = Wire::connect(proxy.address, &login.clone().with("options", "-c work_mem=1MB")).unwrap();
        let mut one = Wire::connect(proxy.address, &login).unwrap();
        for _ in 0..3 {
            assert_eq!(other.value("SHOW work_mem"), "1MB");
            assert_eq!(one.value("SHOW work_mem"), "4MB");
            assert!(one.query("SELECT * FROM once").is_empty());
        }
        proxy.logs("init_query failed where it was run before");
    });
}

/// Until the application has no session left in this database.
fn wait_for_none(server: &PostgresServer, database: &str) {
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database("postgres")).unwrap();
    let sessions = format!(
        "SELECT query FROM pg_stat_activity, pg_sleep(0.01) WHERE datname = '{database}' AND usename = '{APP}'"
    );
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(1);
    while !superuser.query(&sessions).is_empty() {
        assert!(Instant::now() < deadline);
    }
}
