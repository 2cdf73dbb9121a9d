//! What a client leaves on a database connection stays its own: settings, temporary tables, locks, sequences, prepared
//! statements, channels. Each test has one database connection for all, so whoever comes next gets that one.

use sluicegate::demo::servers::PostgresServer;

use crate::harness::proxy::{ProxyHandle, config, set};
use crate::harness::wire::{
    Login, Wire, batch, bind, close_statement, describe_statement, execute, kinds, message, parse, query, sync,
};
use crate::harness::{each, each_with};

/// One for clients, two of the proxy's own.
const ONE: u32 = 3;
/// Two for clients: one may be pinned.
const TWO: u32 = 4;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

/// The SQLSTATE of a query's error.
fn fails(wire: &mut Wire, sql: &str) -> String {
    let frames = wire.ask(&query(sql), 1);
    let error = frames.iter().find(|frame| frame.kind == b'E');
    error.unwrap_or_else(|| panic!("{sql} did not fail: {frames:#?}")).field(b'C').unwrap()
}

#[test]
fn settings_are_kept_and_never_seen_by_others() {
    each("state_settings", TWO, &[], |_, database, proxy| {
        let sets = [
            ("SET work_mem = '7MB'", "SHOW work_mem", "7MB"),
            ("SET SESSION search_path = 'elsewhere', public", "SHOW search_path", "elsewhere, public"),
            ("SELECT set_config('app.tenant', '42', false)", "SELECT current_setting('app.tenant', true)", "42"),
            ("SET TIME ZONE 'Asia/Tokyo'", "SHOW TimeZone", "Asia/Tokyo"),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW default_transaction_read_only", "on"),
            ("SET NAMES 'latin1'", "SHOW client_encoding", "LATIN1"),
            ("DO $$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$", "SHOW work_mem", "9MB"),
            ("BEGIN; SET work_mem = '8MB'; COMMIT", "SHOW work_mem", "8MB"),
        ];
        for (change, show, expected) in sets {
            let mut one = client(proxy, database);
            let mut other = client(proxy, database);
            let before = other.value(show);
            one.query(change);
            for _ in 0..3 {
                assert_eq!(one.value(show), expected, "{change}");
                assert_eq!(other.value(show), before, "{change}");
            }
            drop(one);
            // Whatever connections there are, none of them has it.
            let mut third = client(proxy, database);
            other.query("BEGIN");
            assert_eq!(third.value(show), before, "{change}");
            assert_eq!(other.value(show), before, "{change}");
            other.query("COMMIT");
        }
        // What a transaction takes back was never there.
        let mut one = client(proxy, database);
        let before = one.value("SHOW work_mem");
        one.query("BEGIN; SET work_mem = '11MB'; ROLLBACK");
        one.query("BEGIN; SET LOCAL work_mem = '12MB'; COMMIT");
        assert_eq!(one.value("SHOW work_mem"), before);
    });
}

#[test]
fn pg_067_a_client_that_leaves_abruptly_leaves_nothing() {
    each("state_abrupt", ONE, &[], |_, database, proxy| {
        let login = Login::app().database(database);
        let expected = client(proxy, database).query("SELECT name, setting FROM pg_settings ORDER BY name");
        for mess in [
            "BEGIN; SET work_mem = '7MB'",
            "SET work_mem = '7MB'",
            "BEGIN; SET ROLE pg_monitor",
            "SET app.tenant = 'x'; CREATE TEMP TABLE mine (a int); SELECT pg_advisory_lock(1); LISTEN here",
            "BEGIN; SELECT set_config('search_path', 'x', false); SAVEPOINT s",
            "PREPARE s1 AS SELECT 1; BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        ] {
            let mut one = Wire::connect(proxy.address, &login).unwrap();
            // Allowed or not: what it leaves is what counts.
            one.ask(&query(mess), 1);
            drop(one);
            let mut next = client(proxy, database);
            let found = next.query("SELECT name, setting FROM pg_settings ORDER BY name");
            let left: Vec<_> = found.iter().filter(|setting| !expected.contains(setting)).collect();
            assert!(left.is_empty(), "{mess}: {left:?}");
            for nothing in [
                "SELECT name FROM pg_prepared_statements WHERE name = 's1'",
                "SELECT name FROM pg_cursors WHERE name = 'c'",
                "SELECT * FROM pg_listening_channels()",
                "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND database = \
                 (SELECT oid FROM pg_database WHERE datname = current_database())",
                "SELECT current_user WHERE current_user <> session_user",
            ] {
                assert!(next.query(nothing).is_empty(), "{mess}: {nothing}");
            }
        }
    });
}

#[test]
fn temporary_tables_locks_and_channels_stay_with_their_client() {
    each("state_pins", TWO, &[], |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        one.query("CREATE TEMP TABLE mine AS SELECT 42 AS a");
        for _ in 0..3 {
            assert_eq!(one.value("SELECT a FROM mine"), "42");
            assert_eq!(fails(&mut other, "SELECT a FROM mine"), "42P01");
        }
        drop(one);
        let mut one = client(proxy, database);
        assert_eq!(one.value("SELECT pg_try_advisory_lock(7)"), "t");
        for _ in 0..3 {
            assert_eq!(other.value("SELECT pg_try_advisory_lock(7)"), "f");
        }
        assert_eq!(one.value("SELECT pg_advisory_unlock(7)"), "t");
        drop(one);
        drop(other);
        // Notifications come, unasked, and to nobody else.
        let mut one = client(proxy, database);
        one.query("LISTEN news");
        let mut other = client(proxy, database);
        other.query("NOTIFY news, 'hello'");
        let frame = one.receive().unwrap();
        assert_eq!((frame.kind, &frame.body[4..]), (b'A', &b"news\0hello\0"[..]));
        assert_eq!(kinds(&other.ask(&query("SELECT 1"), 1)), "TDCZ");
        one.query("UNLISTEN *");
        other.query("NOTIFY news, 'unheard'");
        assert_eq!(kinds(&one.ask(&query("SELECT 1"), 1)), "TDCZ");
    });
}

/// Texts that are longer than what the proxy keeps are read as they pass.
#[test]
fn long_texts_pin_for_what_they_do() {
    each("state_long", TWO, &["CREATE TABLE t (v text)"], |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        let long = "it''s ".repeat(500_000);
        one.query(&format!("INSERT INTO t VALUES ('{long}')"));
        other.query("BEGIN");
        assert_eq!(other.value("SELECT length(v) FROM t"), "2500000");
        one.query(&format!("INSERT INTO t VALUES ('{long}'); SET work_mem = '7MB'"));
        assert_eq!(one.value("SHOW work_mem"), "7MB");
        assert_eq!(other.value("SHOW work_mem"), "4MB");
        other.query("COMMIT");
        let pins = proxy.metric_by_with("sluicegate_pins_total", "reason", "setting");
        assert_eq!(pins.into_keys().collect::<Vec<_>>(), ["setting"]);
    });
}

/// A connection with something on it that no reset undoes is not for the next one.
#[test]
fn what_no_reset_undoes_ends_with_its_connection() {
    each("state_lasting", ONE, &[], |_, database, proxy| {
        for (sql, stays) in [("SELECT setseed(0.5)", false), ("LISTEN here", true), ("SELECT 1", true)] {
            let mut one = client(proxy, database);
            let pid = one.value("SELECT pg_backend_pid()");
            one.query(sql);
            drop(one);
            assert_eq!(client(proxy, database).value("SELECT pg_backend_pid()") == pid, stays, "{sql}");
        }
        // A long notice is one's own business.
        let mut one = client(proxy, database);
        let frames = one.ask(&query("DO $$ BEGIN RAISE NOTICE '%', repeat('x', 2000000); END $$"), 1);
        assert_eq!(kinds(&frames), "NCZ");
        assert!(frames[0].body.len() > 2_000_000);
    });
}

#[test]
fn discard_all_sets_a_client_free() {
    each("state_discard", ONE, &["CREATE SEQUENCE numbers"], |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        for state in ["CREATE TEMP TABLE mine (a int)", "SELECT pg_advisory_lock(1)", "LISTEN here"] {
            one.query(state);
            other.send(&query("SELECT 'waits'"));
            assert!(other.receive_within(std::time::Duration::from_millis(60)).is_err(), "{state} does not pin");
            let frames = one.ask(&query("DISCARD ALL"), 1);
            assert_eq!(&frames[0].body[..], b"DISCARD ALL\0");
            assert_eq!(kinds(&other.until_ready(1)), "TDCZ", "after {state}");
        }
    });
}

#[test]
fn prepared_statements_stay_with_their_client() {
    each("state_prepared", ONE, &[], |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        assert_eq!(kinds(&one.ask(&batch([parse("mine", "SELECT 'secret'"), sync()]), 1)), "1Z");
        assert_eq!(kinds(&one.ask(&batch([bind("", "mine", &[]), execute("", 0), sync()]), 1)), "2DCZ");
        // By its name, and by the names the proxy has on the connection.
        let names = other.query("SELECT name FROM pg_prepared_statements");
        let names: Vec<String> = names.into_iter().map(|mut row| row.remove(0).unwrap()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        for name in names.iter().map(String::as_str).chain(["mine"]) {
            for bytes in
                [batch([bind("", name, &[]), execute("", 0), sync()]), batch([describe_statement(name), sync()])]
            {
                let frames = other.ask(&bytes, 1);
                let error =
                    frames.iter().find(|frame| frame.kind == b'E').unwrap_or_else(|| panic!("{name}: {frames:?}"));
                assert_eq!(error.field(b'C').unwrap(), "26000", "{name}");
            }
            // Nor can they be closed.
            assert_eq!(kinds(&other.ask(&batch([close_statement(name), sync()]), 1)), "3Z");
            // One that tries it in SQL keeps the connection, and what it did to that goes with it.
            let mut third = client(proxy, database);
            third.ask(&query(&format!("DEALLOCATE \"{name}\"")), 1);
            drop(third);
            let frames = one.ask(&batch([bind("", "mine", &[]), execute("", 0), sync()]), 1);
            assert_eq!(kinds(&frames), "2DCZ", "{name}: {frames:?}");
        }
        // The other's statement of that name is another.
        assert_eq!(kinds(&other.ask(&batch([parse("mine", "SELECT 1, 2"), sync()]), 1)), "1Z");
        let frames = one.ask(&batch([bind("", "mine", &[]), execute("", 0), sync()]), 1);
        assert_eq!(frames[1].columns()[0].as_deref(), Some(&b"secret"[..]));
        other.query("DISCARD ALL");
        assert_eq!(kinds(&one.ask(&batch([bind("", "mine", &[]), execute("", 0), sync()]), 1)), "2DCZ");
    });
}

#[test]
fn prepared_statements_stay_with_their_client_in_sql_too() {
    each("state_prepared_sql", ONE, &[], |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        assert_eq!(kinds(&one.ask(&batch([parse("mine", "SELECT 'secret'"), sync()]), 1)), "1Z");
        let name = other.value("SELECT name FROM pg_prepared_statements");
        assert_eq!(fails(&mut other, &format!("EXECUTE \"{name}\"")), "26000");
        assert_eq!(fails(&mut other, &format!("execute {}", name.to_uppercase())), "26000");
        assert_eq!(kinds(&one.ask(&batch([bind("", "mine", &[]), execute("", 0), sync()]), 1)), "2DCZ");
    });
}

#[test]
fn pg_084_sequences_last_values_are_never_anothers() {
    each("pg_084_sequences", TWO, &["CREATE SEQUENCE numbers"], |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        // Each gets a connection of its own, and the one that it has left something on as long as there are two.
        one.query("BEGIN");
        other.query("SELECT 1");
        assert_eq!(one.value("SELECT nextval('numbers')"), "1");
        one.query("COMMIT");
        for ask in ["SELECT lastval()", "SELECT currval('numbers')"] {
            assert_eq!(fails(&mut other, ask), "55000", "{ask}");
            assert_eq!(one.value(ask), "1");
        }
        assert_eq!(other.value("SELECT nextval('numbers')"), "2");
        for _ in 0..3 {
            assert_eq!(one.value("SELECT lastval()"), "1");
            assert_eq!(other.value("SELECT currval('numbers')"), "2");
        }
        drop((one, other));
        for _ in 0..3 {
            assert_eq!(fails(&mut client(proxy, database), "SELECT lastval()"), "55000");
        }
    });
}

/// As PHP's PDO does for `lastInsertId()`: in a loop, by twenty clients over two connections. From the first ask on nobody reads
/// a stranger's value, nor that there is none.
#[test]
fn pg_084_last_insert_ids_in_a_loop() {
    let setup = "CREATE TABLE items (id bigserial PRIMARY KEY, owner int)";
    each("pg_084_loop", TWO, &[setup], |_, database, proxy| {
        let login = Login::app().database(database).with("application_name", "pdo");
        let address = proxy.address;
        let mut first = Wire::connect(address, &login).unwrap();
        first.query("INSERT INTO items (owner) VALUES (0)");
        assert_eq!(first.value("SELECT lastval()"), "1");
        let insert = |number: usize| {
            let mut wire = Wire::connect(address, &login).unwrap();
            for _ in 0..30 {
                if number.is_multiple_of(2) {
                    wire.query(&format!("INSERT INTO items (owner) VALUES ({number})"));
                } else {
                    let sql = format!("INSERT INTO items (owner) VALUES ({number})");
                    wire.ask(&batch([parse("", &sql), bind("", "", &[]), execute("", 0), sync()]), 1);
                }
                let id = wire.value(if number.is_multiple_of(3) {
                    "SELECT LASTVAL()"
                } else {
                    "SELECT currval('items_id_seq')"
                });
                assert_eq!(wire.value(&format!("SELECT owner FROM items WHERE id = {id}")), number.to_string());
            }
        };
        std::thread::scope(|scope| {
            for number in 1..=20 {
                let insert = &insert;
                scope.spawn(move || insert(number));
            }
        });
        assert_eq!(first.value("SELECT count(*) FROM items"), "601");
    });
}

/// Who draws a value and does not ask for it keeps its connection for a second, and gets it back as long as nobody else needs
/// it; then there is no value, and the error says why.
#[test]
fn pg_084_a_value_that_nobody_asks_for_holds_nobody_up() {
    each("pg_084_held", ONE, &["CREATE SEQUENCE numbers"], |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        assert_eq!(one.value("SELECT nextval('numbers')"), "1");
        // Nobody has asked yet, and nobody else has come: it is still there.
        assert_eq!(one.value("SELECT lastval()"), "1");
        assert_eq!(one.value("SELECT nextval('numbers')"), "2");
        // Now it is known to ask. The other one waits for a second, and has its turn.
        assert_eq!(other.value("SELECT 'waits'"), "waits");
        let frames = one.ask(&query("SELECT lastval()"), 1);
        let error = frames.iter().find(|frame| frame.kind == b'E').unwrap();
        assert_eq!(error.field(b'C').unwrap(), "55000");
        assert!(error.field(b'H').unwrap().contains("use RETURNING"), "{error}");
        // Who has drawn nothing is told what a new session is told.
        let frames = other.ask(&query("SELECT lastval()"), 1);
        let error = frames.iter().find(|frame| frame.kind == b'E').unwrap();
        assert_eq!((error.field(b'C').as_deref(), error.field(b'H')), (Some("55000"), None));
        let pins = proxy.metric_by_with("sluicegate_pins_total", "reason", "sequence");
        assert_eq!(pins.into_keys().collect::<Vec<_>>(), ["sequence"]);
    });
}

#[test]
fn application_names_are_their_clients_own() {
    each("state_application_name", ONE, &[], |server, database, proxy| {
        let name = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let login = |name: &str| Login::app().database(database).with("application_name", name);
        for address in [server.address(), proxy.address] {
            let names = ["one", "it's another", "ünïcode \\ \"quoted\"", ""];
            let mut clients: Vec<Wire> =
                names.iter().map(|name| Wire::connect(address, &login(name)).unwrap()).collect();
            let direct: Vec<String> = names
                .iter()
                .map(|name| Wire::connect(server.address(), &login(name)).unwrap().value("SHOW application_name"))
                .collect();
            for _ in 0..3 {
                for (client, expected) in clients.iter_mut().zip(&direct) {
                    assert_eq!(client.value(name), *expected);
                    assert_eq!(client.value("SHOW application_name"), *expected);
                }
            }
        }
    });
}

#[test]
fn startup_settings_are_their_clients_own() {
    let setup = [
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 'a' AS v; CREATE TABLE b.t AS SELECT 'b' AS v",
        "CREATE TABLE public.t AS SELECT 'public' AS v",
    ];
    each("state_startup", ONE, &setup, |_, database, proxy| {
        let login = |path: &str| Login::app().database(database).with("search_path", path);
        let options = Login::app().database(database).with("options", "-c search_path=b -c statement_timeout=4321");
        let mut clients = [
            (Wire::connect(proxy.address, &login("a")).unwrap(), "a", "0"),
            (Wire::connect(proxy.address, &login("b")).unwrap(), "b", "0"),
            (Wire::connect(proxy.address, &options).unwrap(), "b", "4321ms"),
            (client(proxy, database), "public", "0"),
        ];
        for _ in 0..3 {
            for (client, expected, timeout) in &mut clients {
                assert_eq!(client.value("SELECT v FROM t"), *expected);
                assert_eq!(client.value("SHOW statement_timeout"), *timeout);
                // The same text under the same name means another table for each.
                let bytes = batch([parse("s1", "SELECT v FROM t"), bind("", "s1", &[]), execute("", 0)]);
                let frames = client.ask(&batch([bytes, close_statement("s1"), sync()]), 1);
                assert_eq!(frames[2].columns()[0].as_deref(), Some(expected.as_bytes()));
                client.query("BEGIN; SET LOCAL search_path = public");
                assert_eq!(client.value("SELECT v FROM t"), "public");
                client.query("COMMIT");
            }
        }
    });
}

#[test]
fn a_prepared_statement_kept_by_each_with_its_own_search_path() {
    let setup =
        ["CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 'a' AS v; CREATE TABLE b.t AS SELECT 'b' AS v"];
    each("state_plans", ONE, &setup, |_, database, proxy| {
        let login = |path: &str| Login::app().database(database).with("search_path", path);
        let mut clients = ["a", "b"].map(|path| (Wire::connect(proxy.address, &login(path)).unwrap(), path));
        for (client, _) in &mut clients {
            assert_eq!(kinds(&client.ask(&batch([parse("s1", "SELECT v FROM t"), sync()]), 1)), "1Z");
        }
        for _ in 0..8 {
            for (client, expected) in &mut clients {
                let frames = client.ask(&batch([bind("", "s1", &[]), execute("", 0), sync()]), 1);
                assert_eq!(frames[1].columns()[0].as_deref(), Some(expected.as_bytes()));
            }
        }
    });
}

#[test]
fn reset_full_cleans_between_any_two_clients() {
    let config =
        |server: &PostgresServer| set(&config(server.address(), ONE), "target_group.pool", "reset", "\"full\"");
    each_with("state_reset_full", &["CREATE SEQUENCE numbers"], config, |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        for _ in 0..5 {
            assert_eq!(kinds(&one.ask(&batch([parse("s1", "SELECT 1"), bind("", "s1", &[]), sync()]), 1)), "12Z");
            // Nothing the proxy prepared is left either.
            assert!(other.query("SELECT name FROM pg_prepared_statements").is_empty());
            assert_eq!(
                kinds(&one.ask(&batch([bind("", "s1", &[]), execute("", 0), close_statement("s1"), sync()]), 1)),
                "2DC3Z"
            );
        }
        one.query("BEGIN; SELECT nextval('numbers'); COMMIT");
        drop(one);
        assert_eq!(fails(&mut other, "SELECT lastval()"), "55000");
    });
}

#[test]
fn session_mode_keeps_a_connection_to_the_end() {
    let config =
        |server: &PostgresServer| set(&config(server.address(), ONE), "target_group.pool", "pool_mode", "\"session\"");
    each_with("state_session_mode", &["CREATE SEQUENCE numbers"], config, |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        let pid = one.value("SELECT pg_backend_pid()");
        other.send(&query("SELECT 'waits'"));
        assert!(other.receive_within(std::time::Duration::from_millis(100)).is_err());
        one.query("SET work_mem = '7MB'; CREATE TEMP TABLE mine AS SELECT nextval('numbers') AS a");
        assert_eq!(one.value("SELECT a FROM mine"), "1");
        assert_eq!(one.value("SELECT pg_backend_pid()"), pid);
        drop(one);
        // Now it is the other's, and clean.
        assert_eq!(kinds(&other.until_ready(1)), "TDCZ");
        assert_eq!(other.value("SHOW work_mem"), "4MB");
        assert_eq!(fails(&mut other, "SELECT a FROM mine"), "42P01");
        assert_eq!(fails(&mut other, "SELECT lastval()"), "55000");
    });
}

/// A setting that decides how texts are read, changed by what is still on its way when a text behind it is sent: what
/// hides in that text does not stay for the next client.
#[test]
fn what_hides_behind_a_change_of_the_dialect_stays_with_its_client() {
    // Sets a variable if a backslash takes a quote with it, or if it does not.
    let if_off = r"SELECT 'a\'', set_config('app.tenant', 'x', false) --'";
    let if_on = r"SELECT '\', set_config('app.tenant', 'x', false) --'";
    let extended = |sql: &str| batch([parse("", sql), bind("", "", &[]), execute("", 0)]);
    let sjis = [&b"SELECT E'\x83\x5c', set_config('app.tenant', 'x', false) --'\0"[..]].concat();
    let off = "standard_conforming_strings = off";
    // What is sent and answered, what is sent in one go then, how many times the server is ready behind it.
    let ways: Vec<(Option<String>, Vec<u8>, usize)> = vec![
        (None, batch([query("BEGIN"), query(&format!("SET LOCAL {off}")), query(if_off), query("COMMIT")]), 4),
        (None, batch([query(&format!("BEGIN; SET LOCAL {off}")), query(if_off), query("COMMIT")]), 3),
        (Some("BEGIN".into()), batch([query(&format!("SET {off}")), query(if_off), query("ROLLBACK")]), 3),
        (
            Some("BEGIN".into()),
            batch([
                query("SELECT set_config('standard_' || 'conforming_strings', 'off', true)"),
                query(if_off),
                query("COMMIT"),
            ]),
            3,
        ),
        (None, batch([extended(&format!("SET LOCAL {off}")), extended(if_off), sync()]), 1),
        (Some(format!("BEGIN; SET LOCAL {off}")), batch([query("ROLLBACK"), query(if_on)]), 2),
        (Some(format!("BEGIN; SET LOCAL {off}")), batch([query("COMMIT"), query(if_on)]), 2),
        (
            Some(format!("BEGIN; SAVEPOINT s; SET LOCAL {off}")),
            batch([query("ROLLBACK TO s"), query(if_on), query("COMMIT")]),
            3,
        ),
        (
            None,
            batch([query("BEGIN"), query("SET LOCAL client_encoding = SJIS"), message(b'Q', &sjis), query("COMMIT")]),
            4,
        ),
        // The server reads a query's text in one go, ahead of what it does.
        (None, query(&format!("BEGIN; SET LOCAL {off}; SELECT 'a\\', 'b'; COMMIT")), 1),
    ];
    each("state_dialect", ONE, &[], |server, database, proxy| {
        let mut direct = 0;
        for (number, (first, pipelined, readies)) in ways.iter().enumerate() {
            let play = |wire: &mut Wire| {
                if let Some(sql) = first {
                    wire.query(sql);
                }
                let frames = wire.ask(pipelined, *readies);
                assert!(frames.iter().all(|frame| frame.kind != b'E'), "way {number}: {frames:#?}");
            };
            // It does what it is meant to.
            let mut wire = Wire::connect(server.address(), &Login::app().database(database)).unwrap();
            play(&mut wire);
            direct += usize::from(wire.value("SELECT coalesce(current_setting('app.tenant', true), '')") == "x");
            let mut wire = client(proxy, database);
            play(&mut wire);
            drop(wire);
            let seen = client(proxy, database).value("SELECT coalesce(current_setting('app.tenant', true), '')");
            assert_eq!(seen, "", "way {number}");
        }
        // All but the one that is rolled back and the last.
        assert_eq!(direct, ways.len() - 2);
    });
}
