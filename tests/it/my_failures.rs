//! Servers, connections and transactions that come to an end at the wrong moment: scenarios 55 to 57 and 103 to 106.

use std::time::{Duration, Instant};

use crate::harness::forward::Forwarder;
use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{app, each, each_with, my_config};
use crate::harness::mysql::wire::{MyError, MyWire, Packet, capability};
use crate::harness::mysql::{Flavour, MyServer, database, servers};
use crate::harness::proxy::{ProxyHandle, set, start};
use crate::harness::wire::PATIENCE;
use sluicegate::demo::servers::APP;

const TABLE: &[&str] = &["CREATE TABLE t (i int PRIMARY KEY)"];

fn client(proxy: &ProxyHandle, name: &str) -> MyWire {
    MyWire::connect(proxy.address, &app().database(name)).unwrap()
}

/// For each of both servers: a proxy that reaches it over a forwarder, by which it can be cut off.
fn each_forwarded(name: &str, run: impl Fn(&MyServer, &str, &ProxyHandle, &Forwarder)) {
    for server in servers() {
        let name = database(server, &format!("{name}_{:?}", server.flavour()).to_lowercase(), TABLE);
        let forwarder = Forwarder::recording(server.address());
        let text = my_config(server, 4).replace(&server.address().to_string(), &forwarder.address.to_string());
        // The proxy's own questions are held up as well.
        let text = set(&text, "target_group.health", "timeout", "\"20s\"");
        run(server, &name, &start(&text), &forwarder);
    }
}

/// What a statement, of which this is a part, has for a number at the server; waits until it runs, or sleeps if it does that.
fn running(server: &MyServer, name: &str, part: &str) -> String {
    let (mut root, began) = (server.root(), Instant::now());
    let found = format!(
        "SELECT id FROM information_schema.processlist WHERE db = '{name}' AND info LIKE '%{part}%' \
         AND (info NOT LIKE '%SLEEP(%' OR state = 'User sleep')"
    );
    loop {
        if let [row] = &root.query(&found)[..] {
            return row[0].clone().unwrap();
        }
        assert!(began.elapsed() < PATIENCE, "{part} does not run");
        std::thread::yield_now();
    }
}

/// The whole packets in these bytes, which are numbered one after another; and whether something is left of one more.
fn whole(bytes: &[u8]) -> (Vec<Packet>, bool) {
    let (mut packets, mut rest): (Vec<Packet>, &[u8]) = (Vec::new(), bytes);
    while let Some(([a, b, c, sequence], more)) = rest.split_first_chunk::<4>() {
        let Some((payload, more)) = more.split_at_checked(u32::from_le_bytes([*a, *b, *c, 0]) as usize) else { break };
        if let Some(last) = packets.last() {
            assert_eq!(*sequence, last.sequence.wrapping_add(1));
        }
        packets.push(Packet { sequence: *sequence, payload: payload.to_vec().into() });
        rest = more;
    }
    (packets, !rest.is_empty())
}

/// The connection is lost before the first byte of an answer. Whether the statement has run nobody knows, and it is not run again.
#[test]
fn my_055_lost_before_an_answer() {
    each_forwarded("my_055", |server, name, proxy, forwarder| {
        let mut one = client(proxy, name);
        one.query("DO 1");
        forwarder.hold(true);
        one.send(b"\x03INSERT INTO t VALUES (1)");
        until_committed(server, name, "1");
        forwarder.cut();
        is_unknown(&one.receive_from(1));
        // The session goes on, over another connection.
        assert_eq!(one.value("SELECT COUNT(*) FROM t"), "1");
        // One that waits for the answers of a pipeline gets all of them.
        forwarder.hold(true);
        one.send(b"\x03INSERT INTO t VALUES (2)");
        one.send(b"\x03INSERT INTO t VALUES (3)");
        until_committed(server, name, "3");
        forwarder.cut();
        is_unknown(&one.receive_from(1));
        is_unknown(&one.receive_from(1));
        assert_eq!(one.value("SELECT GROUP_CONCAT(i ORDER BY i) FROM t"), "1,2,3");
    });
    // The server itself ends it, in its own words.
    each("my_055_kill", 4, TABLE, |server, name, proxy| {
        let mut one = client(proxy, name);
        for round in 1..4 {
            one.send(format!("\x03INSERT INTO t SELECT {} + SLEEP(600)", 10 * round).as_bytes());
            kill(server, name, "SLEEP(600)");
            is_unknown(&one.receive_from(1));
            // Nobody knows: MySQL ends the SLEEP, and may have done the rest by the time that it ends the connection.
            assert!(one.value("SELECT COUNT(*) FROM t").parse::<usize>().unwrap() <= round);
        }
        eventually(proxy, &[("database_connections_currently_in_transaction", 0.0)]);
    });
}

/// Ends the connection on which a statement runs, of which this is a part.
fn kill(server: &MyServer, name: &str, part: &str) {
    let number = running(server, name, part);
    server.root().query(&format!("KILL {number}"));
}

fn until_committed(server: &MyServer, name: &str, rows: &str) {
    server.root().until(&format!("SELECT COUNT(*) FROM {name}.t"), rows);
}

/// Nobody knows what has become of it.
fn is_unknown(told: &Packet) {
    let error = told.error().unwrap();
    assert_eq!((error.code, error.state.as_str()), (1158, "08S01"), "{error}");
    assert!(error.message.contains("may or may not"), "{error}");
}

/// It is known to have been rolled back.
fn is_rolled_back(error: &MyError) {
    assert_eq!((error.code, error.state.as_str()), (1213, "40001"), "{error}");
    assert!(error.message.contains("this transaction was rolled back"), "{error}");
}

/// A result breaks off: what was said is whole, and an error stands where the next row would. In the middle of a packet there is no
/// place for one, and the session ends.
#[test]
fn my_056_lost_in_the_middle_of_a_result() {
    each("my_056", 4, TABLE, |server, name, proxy| {
        // More than a server keeps back, and then it stops.
        let sql = "SELECT REPEAT('x', 30000) UNION ALL SELECT REPEAT('y', 30000) UNION ALL SELECT SLEEP(600)";
        // It ends the connection, or the statement alone.
        for kill in ["KILL", "KILL QUERY"] {
            let mut one = client(proxy, name);
            one.send(&[b"\x03", sql.as_bytes()].concat());
            let number = running(server, name, "SLEEP(600)");
            server.root().query(&format!("{kill} {number}"));
            one.begin_reply();
            let last = loop {
                let packet = one.receive();
                if matches!(packet.first(), 0xFE | 0xFF) {
                    break packet;
                }
            };
            if kill == "KILL" {
                is_unknown(&last);
            }
            assert_eq!(one.value("SELECT 'goes on'"), "goes on");
        }
        eventually(proxy, &[("database_connections_currently_in_transaction", 0.0)]);
    });
    each_forwarded("my_056_cut", |server, name, proxy, forwarder| {
        let login = app().database(name).with(capability::MULTI_STATEMENTS);
        let mut one = MyWire::connect(proxy.address, &login).unwrap();
        one.send(b"\x03SELECT 'whole'; SELECT SLEEP(600)");
        running(server, name, "SLEEP(600)");
        one.begin_reply();
        assert!(one.result(&mut Vec::new()), "there is more");
        forwarder.cut();
        is_unknown(&one.receive());
        assert_eq!(one.value("SELECT 'goes on'"), "goes on");
        // Within a packet.
        one.send(b"\x03SELECT REPEAT('x', 30000) UNION ALL SELECT SLEEP(600)");
        running(server, name, "SLEEP(600)");
        forwarder.cut();
        let (packets, is_torn) = whole(&one.rest());
        let error = packets.last().and_then(Packet::error).map(|error| error.code);
        assert!(is_torn || error == Some(1158), "{packets:?}");
        assert_eq!(client(proxy, name).value("SELECT 'fine'"), "fine");
    });
}

/// A server ends connections that nobody has: nobody hears of it.
#[test]
fn my_057_idle_connections_that_are_ended() {
    for ends in ["init_query", "KILL"] {
        let config = |server: &_| {
            let text = my_config(server, 4);
            let init = "\"SET wait_timeout = 1\"";
            if ends == "KILL" { text } else { set(&text, "target_group.pool", "init_query", init) }
        };
        each_with("my_057", TABLE, config, |server, name, proxy| {
            let mut one = client(proxy, name);
            let own = format!("SELECT id FROM information_schema.processlist WHERE db = '{name}' AND user = '{APP}'");
            let mut root = server.root();
            for round in 0..2 {
                assert_eq!(one.value(&format!("SELECT {round}")), round.to_string());
                if ends == "KILL" {
                    let rows = root.query(&own);
                    assert!(!rows.is_empty());
                    for row in rows {
                        root.query(&format!("KILL {}", row[0].as_ref().unwrap()));
                    }
                }
                while !root.query(&own).is_empty() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            assert_eq!(one.value("SELECT 'never heard of it'"), "never heard of it");
            assert_eq!(proxy.metric("sluicegate_errors_total"), 0.0, "{}", proxy.log());
        });
    }
}

/// The connection is lost within a transaction: its client is told, and nothing runs outside of the transaction until it has ended it.
#[test]
fn my_103_lost_within_a_transaction() {
    for last in ["ROLLBACK", "COMMIT"] {
        each_forwarded("my_103", |server, name, proxy, forwarder| {
            let mut one = client(proxy, name);
            one.query("INSERT INTO t VALUES (9)");
            for begin in [&["BEGIN"][..], &["SET autocommit = 0", "SELECT * FROM t"]] {
                // Idle, and in the middle of a statement; cut off, and killed at the server.
                for (runs, killed) in [(false, false), (true, false), (false, true), (true, true)] {
                    println!("{begin:?}, {runs}, {killed}");
                    begin.iter().for_each(|sql| drop(one.query(sql)));
                    one.query("INSERT INTO t VALUES (1)");
                    if runs {
                        one.send(b"\x03INSERT INTO t SELECT SLEEP(600)");
                    }
                    if killed {
                        let own = if runs {
                            running(server, name, "SLEEP(600)")
                        } else {
                            one.value("SELECT CONNECTION_ID()")
                        };
                        server.root().query(&format!("KILL {own}"));
                    } else {
                        if runs {
                            running(server, name, "SLEEP(600)");
                        }
                        forwarder.cut();
                    }
                    let told =
                        if runs { one.receive_from(1).error().unwrap() } else { one.error("INSERT INTO t VALUES (2)") };
                    is_rolled_back(&told);
                    for sql in ["INSERT INTO t VALUES (3)", "BEGIN", "SELECT 1"] {
                        assert_eq!(one.error(sql).code, 1213, "{sql}");
                    }
                    assert_eq!(one.error("ROLLBACK TO a").code, 1305);
                    let ended = one.reply(last)[0].error().map(|error| error.code);
                    assert_eq!(ended, (last == "COMMIT").then_some(1213));
                    one.query("SET autocommit = 1");
                    assert_eq!(one.value("SELECT GROUP_CONCAT(i) FROM t"), "9");
                }
            }
            // It is as good as ever.
            for sql in ["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"] {
                one.query(sql);
            }
            assert_eq!(one.value("SELECT COUNT(*) FROM t"), "2");
            eventually(proxy, &[("database_connections_currently_in_transaction", 0.0)]);
        });
    }
}

/// What a client has on its connection beside a transaction is lost with it, and the session ends.
#[test]
fn my_103_state_that_is_lost() {
    each_forwarded("my_103_state", |server, name, proxy, forwarder| {
        for state in ["CREATE TEMPORARY TABLE mine (i int)", "DO GET_LOCK('my_103', 0)"] {
            for begin in ["DO 1", "BEGIN"] {
                let mut one = client(proxy, name);
                one.query(state);
                one.query(begin);
                forwarder.cut();
                let error = one.receive_from(1).error().unwrap();
                assert_eq!((error.code, error.state.as_str()), (1053, "08S01"), "{state}, {begin}: {error}");
                one.until_closed();
            }
        }
        // The server may take a moment to see that it is gone.
        server.root().until("SELECT IS_FREE_LOCK('my_103')", "1");
        // What goes with its client goes with it here as well.
        let mut one = client(proxy, name);
        one.query("SET @a = 1, time_zone = '+05:00'");
        one.query("BEGIN");
        forwarder.cut();
        is_rolled_back(&one.error("DO 1"));
        one.query("ROLLBACK");
        assert_eq!(one.value("SELECT CONCAT(@a, @@time_zone)"), "1+05:00");
    });
}

/// The answer to a COMMIT is lost: it may have been done, and it is not done again.
#[test]
fn my_104_a_commit_without_an_answer() {
    each_forwarded("my_104", |server, name, proxy, forwarder| {
        let mut one = client(proxy, name);
        let mut rows = 0;
        // Alone, and behind a statement in one pipeline: of neither anything is known.
        for pipeline in [&["COMMIT"][..], &["INSERT INTO t VALUES (10)", "COMMIT"], &["CREATE TABLE u (i int)"]] {
            rows += pipeline.len().min(2);
            one.query("BEGIN");
            one.query(&format!("INSERT INTO t VALUES ({rows})"));
            forwarder.hold(true);
            pipeline.iter().for_each(|sql| one.send(&[b"\x03", sql.as_bytes()].concat()));
            until_committed(server, name, &rows.to_string());
            forwarder.cut();
            pipeline.iter().for_each(|_| is_unknown(&one.receive_from(1)));
            if pipeline[0].starts_with("CREATE") {
                // Whether that has ended the transaction nobody knows, nor may the client.
                assert_eq!(one.error("SELECT 1").code, 1213);
                one.query("ROLLBACK");
            }
            assert_eq!(one.value("SELECT COUNT(*) FROM t"), rows.to_string());
        }
    });
}

/// A client that may be idle for a second only, by its own wish.
#[test]
fn my_105_wait_timeout() {
    each("my_105", 4, TABLE, |server, name, proxy| {
        let mut told = Vec::new();
        for address in [server.address(), proxy.address] {
            let mut wire = MyWire::connect(address, &app().database(name)).unwrap();
            wire.query("SET wait_timeout = 1");
            assert_eq!(wire.value("SELECT @@wait_timeout"), "1");
            let (packets, _) = whole(&wire.rest());
            told.push(packets.first().and_then(Packet::error));
        }
        // MySQL says why; MariaDB does not, and the proxy can say no more than that it was lost.
        match server.flavour() {
            Flavour::MySql => assert_eq!((told[1].as_ref().unwrap().code, &told[1]), (4031, &told[0])),
            Flavour::MariaDb => assert_eq!((told[1].as_ref().map(|error| error.code), &told[0]), (Some(1053), &None)),
        }
        assert_eq!(client(proxy, name).value("SELECT @@wait_timeout > 1"), "1");
    });
}

/// Limits of the proxy's own, each in its own words and counted.
#[test]
fn my_106_idle_transactions_and_idle_clients() {
    for (table, key, begin) in [
        ("target_group.pool", "transaction_idle_timeout", &["BEGIN", "INSERT INTO t VALUES (1)"][..]),
        ("target_group.pool", "pin_idle_timeout", &["CREATE TEMPORARY TABLE tt (a INT)"]),
        ("endpoint", "idle_client_timeout", &["SELECT 1"]),
    ] {
        let config = |server: &_| set(&my_config(server, 4), table, key, "\"1s\"");
        each_with("my_106", TABLE, config, |_, name, proxy| {
            let mut one = client(proxy, name);
            begin.iter().for_each(|sql| drop(one.query(sql)));
            let error = one.receive_from(1).error().unwrap();
            assert_eq!((error.code, error.state.as_str()), (1053, "08S01"), "{error}");
            assert!(error.message.contains(key), "{error}");
            one.until_closed();
            eventually(proxy, &[("timeouts_total", 1.0)]);
            assert_eq!(client(proxy, name).value("SELECT COUNT(*) FROM t"), "0");
        });
    }
}

/// A transaction that is open for too long is rolled back, whether its client does anything or not. It is told, and nothing runs
/// outside of the transaction until it has ended it.
#[test]
fn my_106_transactions_that_are_open_for_too_long() {
    let config = |server: &_| set(&my_config(server, 4), "target_group.pool", "transaction_max", "\"1s\"");
    each_with("my_106_max", TABLE, config, |_, name, proxy| {
        let mut timeouts = 0.0;
        // Texts may have attributes ahead of them.
        for (more, sleeps) in [(0, false), (0, true), (capability::QUERY_ATTRIBUTES, false)] {
            let mut one = MyWire::connect(proxy.address, &app().with(more).database(name)).unwrap();
            for last in ["ROLLBACK", "COMMIT"] {
                one.query("BEGIN");
                one.query("INSERT INTO t VALUES (1)");
                timeouts += 1.0;
                let slow = "SELECT COUNT(*) FROM information_schema.collations a, information_schema.collations b, \
                            information_schema.collations c, information_schema.collations d";
                let error = if sleeps {
                    one.error(slow)
                } else {
                    eventually(proxy, &[("timeouts_total", timeouts)]);
                    one.error("INSERT INTO t VALUES (2)")
                };
                assert_eq!((error.code, error.state.as_str()), (1317, "70100"), "{error}");
                assert!(error.message.contains("transaction_max"), "{error}");
                let error = one.error("INSERT INTO t VALUES (3)");
                assert_eq!((error.code, error.state.as_str()), (1213, "40001"), "{error}");
                // A COMMIT commits nothing, and is told so.
                let ended = one.reply(last)[0].error().map(|error| error.code);
                assert_eq!(ended, (last == "COMMIT").then_some(1213));
                assert_eq!(one.value("SELECT COUNT(*) FROM t"), "0");
                eventually(proxy, &[("timeouts_total", timeouts)]);
            }
        }
        eventually(proxy, &[("database_connections_currently_in_transaction", 0.0)]);
    });
}

/// The connection on which the last value was made is gone: it is the client's on a new one as well.
#[test]
fn my_107_a_last_value_on_a_new_connection() {
    each("my_107n", 3, &["CREATE TABLE a (i int AUTO_INCREMENT PRIMARY KEY)"], |server, name, proxy| {
        let mut one = client(proxy, name);
        one.query("INSERT INTO a VALUES (), (), ()");
        one.query("INSERT INTO a VALUES ()");
        let id = one.value("SELECT CONNECTION_ID()");
        server.kill(&id);
        let row = &one.query("SELECT LAST_INSERT_ID(), CONNECTION_ID()")[0];
        assert_eq!(row[0].as_deref(), Some("4"));
        assert_ne!(row[1], Some(id));
    });
}
