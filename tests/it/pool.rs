//! The pool as clients see it: waiting, giving up, connections that die, speak or grow old while nobody uses them.

use std::time::{Duration, Instant};

use sluicegate::demo::servers::{APP, Feature, Installation, Options, PostgresServer, Stop};

use crate::harness::forward::Forwarder;
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{
    Frame, Login, PATIENCE, Script, Wire, batch, bind, describe_portal, execute, flush, kinds, message, parse, query,
    sync,
};
use crate::harness::{Scenario, each, each_with, servers};

/// One for clients, two of the proxy's own: the first client that holds it makes all others wait.
const ONE: u32 = 3;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

fn extended(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), describe_portal(""), execute("", 0)])
}

/// The words of the only error among these frames.
fn error(frames: &[Frame]) -> (String, String, String) {
    let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == b'E').collect();
    assert_eq!(errors.len(), 1, "{frames:#?}");
    let field = |name| errors[0].field(name).unwrap_or_default();
    (field(b'V'), field(b'C'), field(b'M'))
}

#[test]
fn pg_054_idle_in_transaction_timeout_in_half_a_message() {
    let half = |bytes: Vec<u8>| bytes[..bytes.len() - 3].to_vec();
    let script = Script::new()
        .startup("idle_in_transaction_session_timeout", "400ms")
        .run("BEGIN")
        .send(half(parse("", "SELECT 1")))
        .until_closed()
        .client(1)
        .startup("idle_in_transaction_session_timeout", "400ms")
        .send(batch([query("BEGIN"), extended("SELECT 1"), sync()]))
        .ready(2)
        .until_closed()
        .client(2)
        .run("SELECT 'all others go on'");
    Scenario::new("pg_054_idle_in_transaction_timeout").shape("CZ E .").errors(&["25P03", "25P03"]).check(script);
}

#[test]
fn pg_054_without_a_sync_the_proxy_does_not_wait_for_ever() {
    // The database's own timeout does not run between the messages of an exchange; the proxy's does.
    let config = |server: &PostgresServer| {
        set(&config(server.address(), ONE), "target_group.pool", "transaction_idle_timeout", "\"500ms\"")
    };
    each_with("pg_054_without_a_sync", &[], config, |_, database, proxy| {
        ends_by_itself(proxy, database, &batch([extended("SELECT 1"), flush()]));
        ends_by_itself(proxy, database, &batch([query("BEGIN"), extended("SELECT 1"), flush()]));
    });
}

#[test]
fn pg_054_without_even_a_flush() {
    let config = |server: &PostgresServer| {
        set(&config(server.address(), ONE), "target_group.pool", "transaction_idle_timeout", "\"500ms\"")
    };
    each_with("pg_054_without_even_a_flush", &[], config, |_, database, proxy| {
        ends_by_itself(proxy, database, &batch([query("BEGIN"), parse("", "SELECT 1")]));
    });
}

fn ends_by_itself(proxy: &ProxyHandle, database: &str, bytes: &[u8]) {
    let mut one = client(proxy, database);
    one.send(bytes);
    let (severity, code, _) = error(&one.until_closed());
    assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "25P03"));
    assert_eq!(client(proxy, database).value("SELECT 'goes on'"), "goes on");
}

#[test]
fn pg_055_connections_that_die_while_idle() {
    each("pg_055_connections_that_die", 4, &[], |server, database, proxy| {
        let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
        let terminate = format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{APP}' AND datname = '{database}'"
        );
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        for round in 0..5 {
            // Both connections are open, and idle.
            one.query("BEGIN");
            other.query("SELECT 1");
            one.query("COMMIT");
            assert_eq!(superuser.query(&terminate).len(), 2, "round {round}");
            assert_eq!(kinds(&one.ask(&query("SELECT 1"), 1)), "TDCZ");
            assert_eq!(kinds(&other.ask(&batch([extended("SELECT 1"), sync()]), 1)), "12TDCZ");
        }
    });
}

#[test]
fn pg_055_a_server_that_restarts_behind_idle_clients() {
    let installation = Installation::find(Feature::Any).unwrap();
    let mut server = PostgresServer::start(&installation, Options::default()).unwrap();
    let proxy = start(&config(server.address(), 6));
    let mut clients: Vec<Wire> = (0..8).map(|_| client(&proxy, "app")).collect();
    for how in [Stop::Fast, Stop::Kill] {
        for client in &mut clients {
            assert_eq!(client.value("SELECT 1"), "1");
        }
        server.stop(how).unwrap();
        server.resume().unwrap();
        for client in &mut clients {
            assert_eq!(kinds(&client.ask(&query("SELECT 1"), 1)), "TDCZ", "{how:?}\n{}", proxy.log());
        }
    }
}

#[test]
fn pg_055_a_server_that_is_away_for_a_while() {
    let installation = Installation::find(Feature::Any).unwrap();
    let mut server = PostgresServer::start(&installation, Options::default()).unwrap();
    let proxy = start(&config(server.address(), 6));
    let mut one = client(&proxy, "app");
    server.stop(Stop::Fast).unwrap();
    one.send(&query("SELECT 1"));
    // It stands in line for as long as connection_borrow_timeout says.
    assert!(one.receive_within(Duration::from_millis(700)).is_err());
    server.resume().unwrap();
    assert_eq!(kinds(&one.until_ready(1)), "TDCZ", "{}", proxy.log());
}

#[test]
fn pg_056_bytes_on_an_idle_connection() {
    let status = message(b'S', b"TimeZone\0Asia/Tokyo\0");
    let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mfor nobody\0\0");
    let notification = message(b'A', b"\0\0\0\x2achannel\0payload\0");
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mfor nobody\0\0");
    for server in servers() {
        let forwarder = Forwarder::filtering(server.address(), |_| true);
        let proxy = start(&config(forwarder.address, ONE));
        let mut one = client(&proxy, "app");
        let mut other = client(&proxy, "app");
        let pid = "SELECT pg_backend_pid()";
        let before = one.value(pid);
        forwarder.inject(&batch([notice.clone(), status.clone(), notification.clone(), notice.clone()]));
        // News about a setting reach each client with its next statement, once; all else was for nobody.
        for client in [&mut one, &mut other] {
            for expected in ["STDCZ", "TDCZ"] {
                let frames = client.ask(&query("SELECT 1"), 1);
                assert_eq!(kinds(&frames), expected, "{frames:#?}\n{}", proxy.log());
            }
        }
        assert_eq!(one.value(pid), before);
        // The connection's end, announced but not come yet; and half a message.
        for bytes in [&fatal[..], &notice[..7], &b"what is this"[..], &message(b'Z', b"I")[..]] {
            let before = one.value(pid);
            forwarder.inject(bytes);
            let frames = one.ask(&query(pid), 1);
            assert_eq!(kinds(&frames).trim_start_matches('S'), "TDCZ", "{frames:#?}\n{}", proxy.log());
            assert_ne!(one.value(pid), before);
        }
    }
}

/// The notice is optional; the proxy sends none, so that nothing can come at a wrong place.
#[test]
fn pg_058_a_client_that_waits_is_told_nothing_but_its_replies() {
    each("pg_058_waits", ONE, &[], |_, database, proxy| {
        let mut holder = client(proxy, database);
        let mut waiting = client(proxy, database);
        for (request, sync, replies) in
            [(query("SELECT 1"), vec![], "TDCZ"), (batch([extended("SELECT 1"), flush()]), sync(), "12TDCZ")]
        {
            holder.query("BEGIN");
            waiting.send(&request);
            assert!(waiting.receive_within(Duration::from_secs(1)).is_err());
            holder.query("COMMIT");
            waiting.send(&sync);
            assert_eq!(kinds(&waiting.until_ready(1)), replies);
        }
    });
}

#[test]
fn pg_057_nothing_free_in_time() {
    let config = |server: &PostgresServer| {
        set(&config(server.address(), ONE), "target_group.pool", "connection_borrow_timeout", "\"300ms\"")
    };
    each_with("pg_057_nothing_free", &[], config, |_, database, proxy| {
        let mut holder = Wire::comes_in(proxy.address, &Login::app().database(database));
        let mut waiter = client(proxy, database);
        holder.query("BEGIN");
        let began = Instant::now();
        let frames = waiter.ask(&query("SELECT 1"), 1);
        assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
        assert_eq!(kinds(&frames), "EZ");
        assert_eq!(&frames[1].body[..], b"I");
        let (severity, code, words) = error(&frames);
        assert_eq!((severity.as_str(), code.as_str()), ("ERROR", "53300"));
        assert!(words.starts_with("Timed-out waiting to acquire database connection"), "{words}");
        // The same for the extended protocol: an error, everything up to the Sync skipped, ready.
        for bytes in [
            batch([extended("SELECT 1"), sync()]),
            batch([parse("s1", "SELECT 1"), flush(), extended("SELECT 2"), flush(), sync()]),
        ] {
            let frames = waiter.ask(&bytes, 1);
            assert_eq!((kinds(&frames).as_str(), error(&frames).1.as_str()), ("EZ", "53300"));
        }
        // With Flush alone the error comes, and nothing more until the Sync.
        waiter.send(&batch([parse("", "SELECT 1"), flush()]));
        assert_eq!(waiter.receive().unwrap().kind, b'E');
        waiter.send(&extended("SELECT 2"));
        assert!(waiter.receive_within(Duration::from_millis(60)).is_err());
        assert_eq!(kinds(&waiter.ask(&sync(), 1)), "Z");
        // And the session goes on.
        holder.query("COMMIT");
        assert_eq!(waiter.value("SELECT 'at last'"), "at last");
        // What was refused is not there.
        let frames = waiter.ask(&batch([bind("", "s1", &[]), execute("", 0), sync()]), 1);
        assert_eq!((kinds(&frames).as_str(), error(&frames).1.as_str()), ("EZ", "26000"));
    });
}

#[test]
fn pg_012_the_proxys_own_error_in_a_pipeline() {
    let config = |server: &PostgresServer| {
        set(&config(server.address(), ONE), "target_group.pool", "connection_borrow_timeout", "\"200ms\"")
    };
    each_with("pg_012_own_error", &["CREATE TABLE t (id int)"], config, |server, database, proxy| {
        let mut holder = Wire::comes_in(proxy.address, &Login::app().database(database));
        let mut waiter = client(proxy, database);
        holder.query("BEGIN");
        let frames = waiter.ask(
            &batch([
                batch([sync(), sync(), extended("INSERT INTO t VALUES (1)"), extended("INSERT INTO t VALUES (2)")]),
                batch([
                    sync(),
                    query("INSERT INTO t VALUES (3)"),
                    sync(),
                    extended("INSERT INTO t VALUES (4)"),
                    sync(),
                ]),
            ]),
            6,
        );
        // Every exchange has its place: ready, ready, refused, refused, ready, refused.
        assert_eq!(kinds(&frames), "ZZ EZ EZ Z EZ".replace(' ', ""));
        assert!(frames.iter().filter(|frame| frame.kind == b'Z').all(|frame| &frame.body[..] == b"I"));
        assert_eq!(server.run_sql(database, "SELECT count(*) FROM t").unwrap(), "0");
        holder.query("COMMIT");
        // Once it has a connection the same pipeline goes through in one go.
        let again = batch([extended("INSERT INTO t VALUES (1)"), sync(), query("INSERT INTO t VALUES (2)"), sync()]);
        assert_eq!(kinds(&waiter.ask(&again, 3)), "12nCZ CZ Z".replace(' ', ""));
    });
}

#[test]
fn a_full_line_refuses_at_once() {
    let config = |server: &PostgresServer| set(&config(server.address(), ONE), "target_group.pool", "max_waiting", "1");
    each_with("pool_full_line", &[], config, |_, database, proxy| {
        let mut holder = client(proxy, database);
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        holder.query("BEGIN");
        let began = Instant::now();
        for waiter in [&mut one, &mut other] {
            waiter.send(&query("SELECT 1"));
        }
        // One of the two is in line; the other is refused long before the first one's time is up.
        let (refused, waiting, first) = loop {
            if let Ok(frame) = one.receive_within(Duration::from_millis(20)) {
                break (&mut one, &mut other, frame.unwrap());
            }
            if let Ok(frame) = other.receive_within(Duration::from_millis(20)) {
                break (&mut other, &mut one, frame.unwrap());
            }
            assert!(began.elapsed() < PATIENCE);
        };
        let (severity, code, words) = error(&[first]);
        assert_eq!((severity.as_str(), code.as_str()), ("ERROR", "53300"));
        assert!(words.contains("max_waiting"), "{words}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(kinds(&refused.until_ready(1)), "Z");
        holder.query("COMMIT");
        assert_eq!(kinds(&waiting.until_ready(1)), "TDCZ");
        assert_eq!(refused.value("SELECT 'me too'"), "me too");
    });
}

#[test]
fn a_waiter_that_leaves_is_forgotten() {
    each("pool_waiter_leaves", ONE, &["CREATE TABLE t (id int)"], |_, database, proxy| {
        let mut holder = client(proxy, database);
        holder.query("BEGIN");
        for _ in 0..5 {
            let mut waiter = client(proxy, database);
            waiter.send(&query("INSERT INTO t VALUES (1)"));
            drop(waiter);
        }
        let mut last = client(proxy, database);
        last.send(&query("SELECT 'last'"));
        holder.query("COMMIT");
        assert_eq!(kinds(&last.until_ready(1)), "TDCZ");
    });
}

#[test]
fn old_connections_are_replaced() {
    let config = |server: &PostgresServer| {
        set(&config(server.address(), ONE), "target_group.pool", "connection_max_lifetime", "\"1s\"")
    };
    each_with("pool_lifetime", &[], config, |_, database, proxy| {
        let mut one = client(proxy, database);
        let ask = "SELECT pg_backend_pid() FROM pg_sleep(0.02)";
        let (first, began) = (one.value(ask), Instant::now());
        while one.value(ask) == first {
            assert!(began.elapsed() < PATIENCE);
        }
        // Nobody is taken off one in mid-transaction.
        one.query("BEGIN");
        let held = one.value(ask);
        one.query("SELECT pg_sleep(1.2)");
        assert_eq!(one.value(ask), held);
        one.query("COMMIT");
        assert_ne!(one.value(ask), held);
    });
}

#[test]
fn unused_connections_are_closed() {
    let config = |server: &PostgresServer| {
        set(&config(server.address(), ONE), "target_group.pool", "connection_idle_timeout", "\"300ms\"")
    };
    each_with("pool_idle", &[], config, |server, database, proxy| {
        let mut one = client(proxy, database);
        one.query("SELECT 1");
        wait_for_connections(server, database, 0);
        assert_eq!(one.value("SELECT 'a new one'"), "a new one");
    });
}

#[test]
fn users_share_one_budget() {
    const SECOND: &str = "pool_second";
    let config = |server: &PostgresServer| {
        let role = format!(
            "DO $$ BEGIN CREATE ROLE {SECOND} LOGIN PASSWORD 'second'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        );
        server.run_sql("postgres", &role).unwrap();
        let second = format!("[[user]]\nname = \"{SECOND}\"\npassword = {{ value = \"second\" }}\n");
        config(server.address(), ONE) + &second
    };
    each_with("pool_users", &[], config, |server, database, proxy| {
        let mut one = client(proxy, database);
        let mut second = Wire::connect(proxy.address, &Login::new(SECOND, "second").database(database)).unwrap();
        for _ in 0..5 {
            assert_eq!(one.value("SELECT current_user"), APP);
            assert_eq!(second.value("SELECT current_user"), SECOND);
        }
        wait_for_connections(server, database, 1);
        // While one holds the only connection the other waits for it.
        one.query("BEGIN");
        second.send(&query("SELECT 1"));
        assert!(second.receive_within(Duration::from_millis(100)).is_err());
        one.query("COMMIT");
        assert_eq!(kinds(&second.until_ready(1)), "TDCZ");
    });
}

#[test]
fn pg_110_a_database_that_is_not_there() {
    each("pool_no_database", 4, &[], |_, database, proxy| {
        for _ in 0..3 {
            let Err(failed) = Wire::connect(proxy.address, &Login::app().database("no_such_database")) else {
                panic!("a login that should fail");
            };
            let (severity, code, words) = error(&failed.frames);
            assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "3D000"));
            assert_eq!(words, "database \"no_such_database\" does not exist");
            // Who has proven nothing learns nothing of databases.
            let stranger = Login::new("app", "wrong-secret").database("no_such_database");
            let Err(failed) = Wire::connect(proxy.address, &stranger) else { panic!("a login that should fail") };
            assert_eq!(error(&failed.frames).1, "28P01");
            assert_eq!(client(proxy, database).value("SELECT 'goes on'"), "goes on");
        }
    });
}

/// Until the server has so many sessions of ours in this database.
fn wait_for_connections(server: &PostgresServer, database: &str, expected: usize) {
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database("postgres")).unwrap();
    let count = format!("SELECT pid FROM pg_stat_activity, pg_sleep(0.01) WHERE datname = '{database}'");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = superuser.query(&count).len();
        if open == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{open} connections, not {expected}");
    }
}

/// A database that says what no database says, in the middle of a pipeline: the client has what it had been answered before,
/// is told, and the connection is not used again.
#[test]
fn pg_024_an_unknown_message_of_the_server() {
    for server in servers() {
        let forwarder = Forwarder::changing(server.address(), |frame| {
            let is_marked = frame.kind == b'D' && frame.body.ends_with(b"strange");
            let strange = Frame { kind: b'y', body: b"what is this"[..].into() };
            if is_marked { vec![strange, frame] } else { vec![frame] }
        });
        let proxy = start(&config(forwarder.address, ONE));
        let mut one = client(&proxy, "app");
        one.send(&batch([
            query("SELECT 1"),
            extended("SELECT 2"),
            extended("SELECT 'strange'"),
            sync(),
            query("SELECT 3"),
        ]));
        let frames = one.until_closed();
        let (last, before) = frames.split_last().unwrap();
        assert!(kinds(before).starts_with("TDCZ"), "{frames:#?}");
        assert_eq!((last.field(b'V').as_deref(), last.kind), (Some("FATAL"), b'E'), "{frames:#?}");
        let mut other = client(&proxy, "app");
        assert_eq!(other.value("SELECT 4"), "4", "{}", proxy.log());
    }
}
