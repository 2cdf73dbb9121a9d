//! MySQL and MariaDB through the proxy, packet by packet beside a direct connection.

use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{app, each, renamed, without_guesses};
use crate::harness::mysql::wire::{CACHING_SHA2, COM_PING, MyLogin, MyWire, NATIVE, Packet, capability};
use crate::harness::mysql::{database, servers};
use crate::harness::proxy::{config, set, start};
use sluicegate::demo::servers::{APP, APP_PASSWORD};

/// The capabilities that decide about a reply's form.
fn forms() -> impl Iterator<Item = u32> {
    let eofs = [0, capability::DEPRECATE_EOF].into_iter();
    eofs.flat_map(|eof| [0, capability::SESSION_TRACK].map(|track| capability::MULTI_STATEMENTS | eof | track))
}

const TABLE: &[&str] = &[
    "CREATE TABLE t (i int AUTO_INCREMENT PRIMARY KEY, v text)",
    "INSERT INTO t (v) VALUES ('one'), (NULL), ('three')",
    "CREATE PROCEDURE p() BEGIN SELECT 1 AS a; SELECT v FROM t ORDER BY i; END",
];

/// Scenarios 6, 8, 46, 59, 91: the same bytes in every form.
#[test]
fn my_006_results_in_every_form() {
    each("my_006", 6, TABLE, |server, name, proxy| {
        // The same once more, so that neither sees the other's rows.
        let twin = database(server, &name.replace("006", "007"), TABLE);
        // And for a client that takes one result at most.
        for form in forms().chain([0]) {
            let not = if form & capability::MULTI_STATEMENTS == 0 { capability::MULTI_RESULTS } else { 0 };
            let login = |name: &str| app().database(name).without(capability::DEPRECATE_EOF | not).with(form);
            let mut direct = MyWire::connect(server.address(), &login(&twin)).unwrap();
            let mut proxied = MyWire::connect(proxy.address, &login(name)).unwrap();
            for sql in [
                "SELECT 1",
                "SELECT i, v FROM t ORDER BY i",
                "SELECT v FROM t WHERE false",
                "SELECT REPEAT('x', 70000)",
                "SELECT nonsense",
                "",
                "INSERT INTO t (v) VALUES ('four')",
                "UPDATE t SET v = 'FOUR' WHERE v = 'four'",
                "DELETE FROM t WHERE v = 'FOUR'",
                // Who asks has what it asks for from then on.
                "SHOW WARNINGS",
                "CALL p()",
                "SELECT 1; SELECT 2; SELECT nonsense; SELECT 3",
                "SELECT 1/0",
                "SHOW WARNINGS",
                // Errors in place of the first row, and behind it.
                "SELECT (SELECT i FROM t UNION SELECT 9) FROM t",
                "SELECT 9223372036854775805 + i FROM t ORDER BY i",
                "SELECT 9223372036854775806 + i FROM t ORDER BY i",
                // Numbers that servers end connections with.
                "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1053, MESSAGE_TEXT = 'x'",
                "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1820, MESSAGE_TEXT = 'x'",
                "BEGIN",
                "SELECT COUNT(*) FROM t",
                "ROLLBACK",
                "SET @a = 1",
            ] {
                let [expected, found] = [&mut direct, &mut proxied].map(|wire| wire.reply(sql));
                let expected: Vec<Packet> = expected.into_iter().map(|packet| renamed(packet, &twin, name)).collect();
                let [found, expected] = [found, expected].map(without_guesses);
                assert_eq!(found, expected, "{sql:?} in form {form:x}");
            }
        }
    });
}

/// Scenarios 30, 31, 36 and 37.
#[test]
fn my_030_passwords() {
    each("my_030", 4, &[], |_, name, proxy| {
        for plugin in [CACHING_SHA2, NATIVE, "client_ed25519"] {
            let login = app().database(name).plugin(plugin);
            let login = if plugin == "client_ed25519" { app().database(name) } else { login };
            let mut wire = MyWire::connect(proxy.address, &login).unwrap();
            assert_eq!(wire.value("SELECT DATABASE()"), name);
            let wrong = MyLogin { password: "wrong".into(), ..login };
            let error = MyWire::connect(proxy.address, &wrong).err().unwrap();
            assert_eq!((error.code, error.state.as_str()), (1045, "28000"));
        }
        let error = MyWire::connect(proxy.address, &MyLogin::new("nobody", "x")).err().unwrap();
        assert_eq!((error.code, error.state.as_str()), (1045, "28000"));
        // Scenario 29.
        let error = MyWire::connect(proxy.address, &app().database("nowhere")).err().unwrap();
        assert!([1044, 1049].contains(&error.code), "{error}");
    });
}

/// Many clients on few connections, each with its own transactions.
#[test]
fn clients_share_connections() {
    each("my_share", 4, &["CREATE TABLE t (who int, v int)"], |server, name, proxy| {
        let mut clients: Vec<MyWire> =
            (0..20).map(|_| MyWire::connect(proxy.address, &app().database(name)).unwrap()).collect();
        for round in 0..5 {
            for (who, client) in clients.iter_mut().enumerate() {
                client.query("BEGIN");
                client.query(&format!("INSERT INTO t VALUES ({who}, {round})"));
                assert_eq!(client.value(&format!("SELECT COUNT(*) FROM t WHERE who = {who}")), (round + 1).to_string());
                client.query("COMMIT");
            }
        }
        assert_eq!(clients[0].value("SELECT COUNT(*) FROM t"), "100");
        let mut root = server.root();
        let connections = root.value(&format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{APP}' AND db = '{name}'"
        ));
        assert!(connections.parse::<u32>().unwrap() <= 2, "{connections}");
    });
}

/// What a client sets is its own, whoever comes to its connection next.
#[test]
fn what_is_set_is_nobody_elses() {
    each("my_set", 3, &["CREATE TABLE t (i int AUTO_INCREMENT PRIMARY KEY)"], |_, name, proxy| {
        let state = "SELECT CONCAT_WS(' ', @a, @@sql_mode = '', @@autocommit, LAST_INSERT_ID(), IS_FREE_LOCK('l'))";
        let mut one = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let clean = one.value(state);
        for sql in [
            "SET @a = 'mine'",
            "SELECT @a := 5",
            "SELECT CAST('mine' AS SIGNED)",
            "SET sql_mode = ''",
            "SET autocommit = 0",
            "CREATE TEMPORARY TABLE tt (a int)",
            "SELECT GET_LOCK('l', 1)",
            "INSERT INTO t VALUES ()",
            "PREPARE p FROM 'SELECT 1'",
            "USE information_schema",
            "SET NAMES latin1",
        ] {
            let mut leaving = MyWire::connect(proxy.address, &app().database(name)).unwrap();
            leaving.query(sql);
            drop(leaving);
            let mut next = MyWire::connect(proxy.address, &app().database(name)).unwrap();
            assert!(next.query("SHOW WARNINGS").is_empty(), "{sql}");
            assert_eq!(next.value(state), clean, "{sql}");
            assert_eq!(next.value("SELECT DATABASE()"), name, "{sql}");
            assert_eq!(next.value("SELECT @@character_set_client"), "utf8mb4", "{sql}");
            assert_eq!(next.error("EXECUTE p").code, 1243, "{sql}");
            assert_eq!(next.error("SELECT * FROM tt").code, 1146, "{sql}");
            drop(next);
        }
    });
}

/// Scenarios 60, 61, 68 and 73.
#[test]
fn my_061_commands_without_a_text() {
    each("my_061", 4, &[], |_, name, proxy| {
        let mut wire = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        wire.send(&[COM_PING]);
        assert_eq!(wire.receive().first(), 0);
        for (payload, code) in [
            (&b"\x55what"[..], 1047),
            (b"\x12binlog", 1227),
            (b"\x03KILL 4000000000", 1094),
            (b"\x03/*!50000 KILL QUERY 4000000000 */", 1094),
            (b"\x03KILL USER 'app'", 1235),
        ] {
            wire.send(payload);
            let error = wire.receive().error().unwrap();
            assert_eq!(error.code, code, "{error}");
            assert_eq!(wire.value("SELECT 1"), "1");
        }
        // Statistics are a line of text.
        wire.send(&[0x09]);
        let line: Packet = wire.receive();
        assert!(line.payload.starts_with(b"Uptime: "), "{line:?}");
        assert_eq!(wire.value("SELECT 2"), "2");
    });
}

/// Scenario 47: a text and a row of a piece's length, and around it.
#[test]
fn my_047_packets_of_many_pieces() {
    each("my_047", 4, &[], |_, name, proxy| {
        let mut wire = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let limit: usize = wire.value("SELECT @@max_allowed_packet").parse().unwrap();
        for len in [0xFF_FFFE_usize, 0xFF_FFFF, 0x100_0000] {
            if len + 100 > limit {
                continue;
            }
            let head = "SELECT LENGTH('";
            let text = format!("{head}{}')", "x".repeat(len - 1 - head.len() - 2));
            assert_eq!(wire.value(&text), (len - 1 - head.len() - 2).to_string());
        }
        for len in [0xFF_FFFA_usize, 0xFF_FFFB, 0xFF_FFFC] {
            if len + 100 <= limit {
                assert_eq!(wire.value(&format!("SELECT REPEAT('x', {len})")).len(), len);
            }
        }
    });
}

/// Finding 6 and scenario 102: errors in a transaction.
#[test]
fn my_102_errors_in_a_transaction() {
    each("my_102", 3, &["CREATE TABLE t (i int PRIMARY KEY)"], |_, name, proxy| {
        let mut one = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let mut other = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        one.query("BEGIN");
        one.query("INSERT INTO t VALUES (1)");
        // Still open.
        assert_eq!(one.error("INSERT INTO t VALUES (1)").code, 1062);
        one.query("COMMIT");
        assert_eq!(other.value("SELECT COUNT(*) FROM t"), "1");
        // Committed by what failed.
        one.query("BEGIN");
        one.query("INSERT INTO t VALUES (2)");
        assert_eq!(one.error("CREATE TABLE t (i int)").code, 1050);
        assert_eq!(other.value("SELECT COUNT(*) FROM t"), "2");
        // Of no transaction.
        assert_eq!(one.error("SELECT nonsense").code, 1054);
        assert_eq!(other.value("SELECT 1"), "1");
    });
}

/// Scenario 53: no connection in time; the session goes on.
#[test]
fn my_053_no_connection_in_time() {
    for server in servers() {
        let name = database(server, &format!("my_053_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let text = config(server.address(), 3).replace("\"postgres\"", "\"mysql\"");
        let proxy = start(&set(&text, "target_group.pool", "connection_borrow_timeout", "\"300ms\""));
        let mut one = MyWire::comes_in(proxy.address, &app().database(&name));
        let mut other = MyWire::connect(proxy.address, &app().database(&name)).unwrap();
        one.query("BEGIN");
        let error = other.error("SELECT 1");
        assert_eq!((error.code, error.state.as_str()), (9501, "HY000"));
        assert!(error.message.starts_with("Timed-out waiting to acquire database connection"), "{error}");
        one.query("COMMIT");
        assert_eq!(other.value("SELECT 1"), "1");
    }
}

/// Scenario 58: what a client that has left was doing is stopped, and its connection is good for others.
#[test]
fn my_058_a_client_that_leaves_in_the_middle() {
    each("my_058", 3, &[], |server, name, proxy| {
        let mut root = server.root();
        let sleeps = "info LIKE 'SELECT SLEEP(600)%' AND state = 'User sleep'";
        let busy = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}' AND {sleeps}");
        let mut leaving = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        leaving.send(b"\x03SELECT SLEEP(600)");
        root.until(&busy, "1");
        drop(leaving);
        let mut next = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        assert_eq!(next.value("SELECT 'next'"), "next");
        assert_eq!(root.value(&busy), "0");
        eventually(proxy, &[("database_connections_currently_in_transaction", 0.0)]);
    });
}

/// A query that takes too long is stopped.
#[test]
fn a_query_over_its_time() {
    for server in servers() {
        let name = database(server, &format!("my_long_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let text = config(server.address(), 4).replace("\"postgres\"", "\"mysql\"");
        let proxy = start(&set(&text, "target_group.pool", "query_timeout", "\"500ms\""));
        let mut one = MyWire::connect(proxy.address, &app().database(&name)).unwrap();
        // It counts for hours, unless it is stopped.
        let error = one.error(
            "SELECT COUNT(*) FROM information_schema.collations a, information_schema.collations b, \
             information_schema.collations c, information_schema.collations d, information_schema.collations e",
        );
        assert_eq!((error.code, error.state.as_str()), (1317, "70100"), "{error}");
        assert!(error.message.contains("query_timeout"), "{error}");
        assert_eq!(one.value("SELECT 1"), "1");
    }
}

/// The proxy goes down: an idle client is told so in answer to what it asks next.
#[test]
fn a_proxy_that_goes_down() {
    each("my_down", 4, &[], |_, name, proxy| {
        let mut idle = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        assert_eq!(idle.value("SELECT 1"), "1");
        proxy.terminate();
        proxy.logs("client told to go");
        let told = idle.receive_from(1);
        assert_eq!(told.error().unwrap().code, 1053);
        idle.until_closed();
    });
}

/// Scenario 33: the server has forgotten whom it knows, so that a login takes the whole way: over TLS, or with its RSA key.
#[test]
fn my_033_logins_at_a_server_that_knows_nobody() {
    for server in servers() {
        let name = database(server, &format!("my_033_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let plain = config(server.address(), 4).replace("\"postgres\"", "\"mysql\"");
        let verified = format!("\"verify-full\"\nca_file = {:?}", server.ca_file());
        for text in [plain.clone(), set(&plain, "target_group", "tls", &verified)] {
            let proxy = start(&text);
            server.root().query("FLUSH PRIVILEGES");
            let mut wire = MyWire::connect(proxy.address, &app().database(&name)).unwrap();
            let is_tls = wire.query("SHOW STATUS LIKE 'Ssl_cipher'")[0][1].as_deref() != Some("");
            assert_eq!(is_tls, text.contains("verify-full"));
        }
    }
}

/// Scenario 44: a password that has changed at the database: who is there stays, and shares what there is.
#[test]
fn my_044_a_password_that_was_changed() {
    for server in servers() {
        let name = database(server, &format!("my_044_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let mut root = server.root();
        root.query("CREATE USER IF NOT EXISTS changing@'%' IDENTIFIED BY 'first-secret'");
        root.query(&format!("GRANT ALL ON `{}`.* TO changing@'%'", name.replace('_', "\\_")));
        let text = config(server.address(), 5).replace("\"postgres\"", "\"mysql\"");
        let text = text
            .replace(&format!("name     = \"{APP}\""), "name     = \"changing\"")
            .replace(APP_PASSWORD, "first-secret");
        let proxy = start(&text);
        let login = MyLogin::new("changing", "first-secret").database(&name);
        let mut here = MyWire::connect(proxy.address, &login).unwrap();
        here.query("BEGIN");
        root.query("ALTER USER changing@'%' IDENTIFIED BY 'second-secret'");
        assert_eq!(here.value("SELECT 1"), "1");
        let mut other = MyWire::connect(proxy.address, &login).unwrap();
        // Nobody can come in at the database now: it waits for the one connection that there is.
        other.send(b"\x03SELECT 1");
        proxy.logs("the database refused the login: 1045");
        here.query("COMMIT");
        assert_eq!(other.receive().payload[..], [1]);
        root.query("DROP USER changing@'%'");
    }
}
