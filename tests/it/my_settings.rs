//! Settings of MySQL's and MariaDB's sessions, beside a direct connection: what is set goes with its client from connection to
//! connection, and no other client has it. Scenarios 94, 95, 100, 115 and 116 of the list, as far as values are literal.

use crate::harness::mysql::beside::{Sides, app, both_sides, my_config};
use crate::harness::mysql::wire::{MyLogin, MyWire, capability};
use crate::harness::mysql::{Flavour, MyServer, Options, database};
use crate::harness::proxy::start;

/// Variables, each with two values.
pub const SET: &[(&str, [&str; 2])] = &[
    ("autocommit", ["0", "ON"]),
    ("default_week_format", ["3", "1"]),
    ("div_precision_increment", ["7", "2"]),
    ("eq_range_index_dive_limit", ["9", "10"]),
    ("foreign_key_checks", ["0", "'ON'"]),
    ("group_concat_max_len", ["999", "1000"]),
    ("information_schema_stats_expiry", ["0", "99"]),
    ("innodb_lock_wait_timeout", ["7", "8"]),
    ("interactive_timeout", ["70000", "80000"]),
    ("join_buffer_size", ["131072", "DEFAULT"]),
    ("lc_time_names", ["de_DE", "'fr_FR'"]),
    ("lock_wait_timeout", ["70", "80"]),
    ("low_priority_updates", ["1", "0"]),
    ("max_execution_time", ["5000", "0"]),
    ("max_heap_table_size", ["131072", "DEFAULT"]),
    ("max_sort_length", ["99", "100"]),
    ("max_statement_time", ["50", "0"]),
    ("net_read_timeout", ["99", "100"]),
    ("net_write_timeout", ["99", "100"]),
    ("read_buffer_size", ["262144", "DEFAULT"]),
    ("read_rnd_buffer_size", ["131072", "DEFAULT"]),
    ("sort_buffer_size", ["131072", "DEFAULT"]),
    ("sql_auto_is_null", ["0", "OFF"]),
    ("sql_notes", ["0", "1"]),
    ("sql_safe_updates", ["1", "0"]),
    ("sql_select_limit", ["2", "DEFAULT"]),
    ("sql_warnings", ["1", "0"]),
    ("time_zone", ["'+03:00'", "SYSTEM"]),
    ("tmp_table_size", ["131072", "DEFAULT"]),
    ("transaction_isolation", ["'READ-COMMITTED'", "'SERIALIZABLE'"]),
    ("transaction_read_only", ["1", "0"]),
    ("tx_isolation", ["'READ-COMMITTED'", "'SERIALIZABLE'"]),
    ("tx_read_only", ["1", "0"]),
    ("unique_checks", ["0", "1"]),
    ("updatable_views_with_limit", ["NO", "'YES'"]),
    ("wait_timeout", ["70000", "80000"]),
];

#[test]
fn my_115_settings_go_with_their_client() {
    both_sides("my_115", 3, &[], |sides| {
        let client = || MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        let (mut talk, mut other) = (sides.talk(), client());
        for (name, values) in SET {
            let shown = format!("SELECT @@SESSION.{name}");
            // Not every server has each: then both say so.
            talk.same(&shown);
            let pristine = other.reply(&shown);
            for form in ["SET {} = ", "SET SESSION {}=", "set @@session.{} := ", "SET LOCAL {} = "] {
                for value in values {
                    talk.same(&format!("{}{value}", form.replace("{}", name)));
                    // One connection, that the other client has in between.
                    assert_eq!(other.reply(&shown), pristine, "{name} {value}");
                    talk.same(&shown);
                }
            }
            talk.same(&format!("SET {name} = DEFAULT"));
            talk.same(&shown);
        }
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
        // All at once, and back.
        let all: Vec<String> = SET.iter().map(|(name, [value, _])| format!("SET {name} = {value}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        talk.all(&all);
        other.query("DO 1");
        for (name, _) in SET {
            talk.same(&format!("SELECT @@SESSION.{name}"));
        }
        talk.command(&[0x1F]);
        for (name, _) in SET {
            // MySQL's strings have another collation then, of which the proxy makes the client's own again.
            let shown = format!("SELECT CONCAT(@@SESSION.{name})");
            let [direct, proxied] = [&mut talk.direct, &mut talk.proxied].map(|wire| wire.reply(&shown));
            assert_eq!(direct.iter().rev().nth(1), proxied.iter().rev().nth(1), "{name}");
        }
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
    });
}

/// Scenario 114: what texts are written in, and what results come in.
#[test]
fn my_114_character_sets() {
    both_sides(
        "my_114",
        3,
        &["CREATE TABLE t (v varchar(20) CHARACTER SET utf8mb4)", "INSERT INTO t VALUES ('ä€')"],
        |sides| {
            let mut talk = sides.talk();
            let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
            let shown = "SELECT @@character_set_client, @@character_set_connection, @@collation_connection, @@character_set_results";
            let pristine = other.reply(shown);
            for set in [
                "SET NAMES latin1",
                "SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci'",
                "SET character_set_results = NULL",
                "SET NAMES utf8mb4",
                "SET character_set_results = latin1",
                "SET NAMES utf16",
                "SET character_set_results = 'utf8mb4'",
                "SET NAMES gbk",
                "SET NAMES DEFAULT",
                "SET NAMES utf8mb4 COLLATE utf8mb4_bin, character_set_results = latin1",
                "SET NAMES utf8mb4 COLLATE nothing",
            ] {
                talk.same(set);
                assert_eq!(other.reply(shown), pristine, "{set}");
                for question in [shown, "SELECT v, 'a' = 'A', HEX(CONVERT(v USING utf8mb4)) FROM t"] {
                    talk.same(question);
                    assert_eq!(other.value("SELECT v FROM t"), "ä€", "{set}");
                }
            }
            assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
            // A statement in letters that mean something else then.
            talk.same("SET NAMES latin1");
            for wire in [&mut talk.direct, &mut talk.proxied] {
                wire.command("\x16SELECT 'ä'".as_bytes());
            }
            talk.same("SET NAMES utf8mb4");
            talk.same("SELECT 'ä'");
            assert!(sides.proxy.metric("sluicegate_pins_total") > 0.0);
        },
    );
}

/// Modes, with what others have in between; and what drivers say as they connect.
#[test]
fn my_115_modes() {
    both_sides("my_mode", 3, &["CREATE TABLE t (i tinyint)"], |sides| {
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        let shown = "SELECT @@sql_mode, @@autocommit, @@session_track_schema, @@session_track_system_variables";
        let pristine = other.reply(shown);
        for script in [
            // MariaDB Connector/J, Rails, Laravel, MySQL Connector/J.
            &["set autocommit=1, session_track_schema=1, sql_mode=concat(@@sql_mode,',STRICT_TRANS_TABLES')"][..],
            &[
                "SET @@SESSION.sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'), @@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483",
            ],
            &["set names 'utf8mb4' collate 'utf8mb4_unicode_ci'", "SET SESSION sql_mode='NO_ENGINE_SUBSTITUTION'"],
            &["SET character_set_results = NULL", "SET autocommit=1", "SET sql_mode='STRICT_TRANS_TABLES'"],
            // One behind the other.
            &[
                "SET sql_mode = ''",
                "SET sql_mode = concat(@@sql_mode, ',ONLY_FULL_GROUP_BY')",
                "SET sql_mode=CONCAT(@@sql_mode,',TRADITIONAL')",
            ],
            &[
                "SET sql_mode = CONCAT(@@sql_mode, ',TRADITIONAL')",
                "SET sql_mode = CONCAT(@@sql_mode, ',NO_UNSIGNED_SUBTRACTION')",
            ],
            &["SET session_track_system_variables = 'autocommit,sql_mode'", "SET autocommit = 0"],
        ] {
            let mut talk = sides.talk();
            for set in script {
                talk.same(set);
                assert_eq!(other.reply(shown), pristine, "{set}");
                talk.all(&[shown, "INSERT INTO t VALUES (9999)", "ROLLBACK"]);
            }
        }
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
    });
}

/// The mode that a login has asked for is there again behind others, and `DEFAULT` is without it.
#[test]
fn my_115_the_mode_of_a_login() {
    both_sides("my_own", 3, &["CREATE TABLE t (i int)"], |sides| {
        let change = |login: MyLogin| login.with(capability::IGNORE_SPACE);
        let mut other = MyWire::connect(sides.proxy.address, &change(app().database(&sides.name))).unwrap();
        // For the last one the connection is reset.
        for others in ["SET sql_mode = ''", "SET @a = 1"] {
            let mut talk = sides.talk_as(change);
            for set in [
                "DO 1",
                "SET sql_mode = CONCAT(@@sql_mode, ',TRADITIONAL')",
                "SET sql_mode = CONCAT(CONCAT(@@sql_mode, ',PIPES_AS_CONCAT'), ',STRICT_ALL_TABLES')",
                "SET sql_mode = DEFAULT",
                "SET sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')",
                "SET sql_mode = 'IGNORE_SPACE'",
            ] {
                talk.same(set);
                other.query(others);
                talk.same("SELECT @@sql_mode");
                other.query(others);
                talk.same("SELECT COUNT (*) FROM t");
            }
        }
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
    });
}

/// A SET that fails halfway sets nothing.
#[test]
fn my_116_what_fails_sets_nothing() {
    both_sides("my_116", 3, &[], |sides| {
        let mut talk = sides.talk();
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        talk.same("SET time_zone = '+05:00', lc_time_names = 'nowhere'");
        other.query("DO 1");
        talk.same("SELECT @@time_zone, @@lc_time_names");
        talk.same("SET time_zone = '+05:00', lc_time_names = 'de_DE'");
        talk.same("SET time_zone = 'nowhere'");
        other.query("DO 1");
        talk.same("SELECT @@time_zone, @@lc_time_names, DAYNAME('2026-11-27')");
    });
}

/// Numbers that the server brings into their range go along as they are then: where the mode is strict, others are refused.
#[test]
fn my_115_numbers_out_of_their_range() {
    for flavour in Flavour::ALL {
        let server = MyServer::start(
            flavour,
            Options { arguments: vec!["--sql-mode=TRADITIONAL".into()], ..Options::default() },
        );
        let proxy = start(&my_config(&server, 3));
        let sides = Sides::new(&server, &proxy, &database(&server, "my_115r", &[""; 0]), &[]);
        let (mut talk, mut other) = (sides.talk(), sides.talk());
        let id = talk.proxied.value("SELECT CONNECTION_ID()");
        talk.all(&["SET sql_mode = ''", "SET join_buffer_size = 1000000, wait_timeout = 99999999"]);
        for set in ["SET group_concat_max_len = 1", "SET SESSION sort_buffer_size = 1", "SET max_sort_length = 1000"] {
            talk.same(set);
            other.same("SELECT @@sql_mode");
            talk.same("SELECT @@join_buffer_size, @@wait_timeout, @@group_concat_max_len, @@sort_buffer_size");
        }
        // No connection was given up.
        assert_eq!(talk.proxied.value("SELECT CONNECTION_ID()"), id);
        assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0);
    }
}

/// `autocommit = 0`, as most Python programs have it: a connection is kept for a transaction, and no longer.
#[test]
fn my_094_without_autocommit() {
    both_sides("my_094", 3, &["CREATE TABLE t (i int)"], |sides| {
        let mut talk = sides.talk();
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        talk.same("SET autocommit = 0");
        for _ in 0..2 {
            talk.same("SELECT 1");
            assert_eq!(other.value("SELECT @@autocommit"), "1");
            talk.all(&["INSERT INTO t VALUES (1)", "SELECT COUNT(*) FROM t", "ROLLBACK"]);
            assert_eq!(other.value("SELECT COUNT(*) FROM t"), "0");
            talk.command(&[0x0E]);
        }
        talk.all(&["INSERT INTO t VALUES (1)", "SET autocommit = 1"]);
        assert_eq!(other.value("SELECT COUNT(*) FROM t"), "1");
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
    });
}

/// After the first round nothing is set any more, if all clients set the same.
#[test]
fn nothing_is_replayed_between_equals() {
    both_sides("my_equal", 4, &[], |sides| {
        let mut clients: Vec<MyWire> =
            (0..6).map(|_| MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap()).collect();
        let sets = [
            "SET autocommit = 0",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET time_zone = '+00:00'",
        ];
        for client in &mut clients {
            sets.iter().for_each(|set| _ = client.query(set));
        }
        // Both connections have it now.
        let (one, rest) = clients.split_first_mut().unwrap();
        one.query("START TRANSACTION");
        rest[0].query("DO 1");
        one.query("COMMIT");
        rest[0].query("DO 1");
        let replayed = sides.proxy.metric("sluicegate_settings_replayed_total");
        for _ in 0..20 {
            clients.iter_mut().for_each(|client| _ = client.query("SELECT @@autocommit"));
        }
        assert_eq!(sides.proxy.metric("sluicegate_settings_replayed_total"), replayed);
    });
}

/// Scenarios 63 and 64: a database that is selected goes along; one that is dropped in the meantime is no other.
#[test]
fn my_063_databases_go_with_their_client() {
    both_sides("my_063s", 3, &["CREATE TABLE t (v varchar(20))", "INSERT INTO t VALUES ('own')"], |sides| {
        let tables = ["CREATE TABLE t (v varchar(20))", "INSERT INTO t VALUES ('other')"];
        let there = database(sides.server, &sides.name.replace("my_", "mz_"), &tables);
        let (mut talk, mut other) =
            (sides.talk(), MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap());
        let select = [&[0x02], there.as_bytes()].concat();
        for round in 0..3 {
            match round {
                0 => drop(talk.same(&format!("USE {there}"))),
                1 => drop(talk.same(&format!("use `{there}`;"))),
                _ => drop(talk.command(&select)),
            }
            assert_eq!(other.value("SELECT v FROM t"), "own");
            // Numbers: of MySQL's strings a reset changes the collation, which the proxy brings back.
            talk.all(&["SELECT LENGTH(v) FROM t", "USE no_such_database", "SELECT LENGTH(v) FROM t"]);
            assert_eq!(other.value("SELECT v FROM t"), "own");
            talk.command(&[0x1F]);
            talk.all(&["SELECT LENGTH(v) FROM t", "USE {db}", "SELECT LENGTH(v) FROM t"]);
        }
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
        talk.same(&format!("USE {there}"));
        assert_eq!(other.value("SELECT v FROM t"), "own");
        sides.server.root().query(&format!("DROP DATABASE {there}"));
        assert_eq!(talk.proxied.error("SELECT v FROM t").code, 1049);
        talk.direct.error("SELECT v FROM t");
        assert_eq!(other.value("SELECT v FROM t"), "own");
        talk.all(&["USE {db}", "SELECT LENGTH(v) FROM t"]);
    });
}
