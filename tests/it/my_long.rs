//! Texts that are longer than the proxy keeps, beside a direct connection: they are read as they pass, and what stands at their end counts.
//! Scenario 130.

use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{app, both_sides};
use crate::harness::mysql::wire::{MyWire, capability};

const TABLES: &[&str] = &["CREATE TABLE t (a INT PRIMARY KEY AUTO_INCREMENT, b LONGTEXT)"];

/// More than the proxy keeps.
fn long() -> String {
    "it''s \\\"x\\\" ".repeat(150_000)
}

/// As much as the server takes in one statement, in rows of every size.
#[test]
fn my_130_an_insert_as_long_as_can_be() {
    both_sides("my_130_insert", 1, TABLES, |sides| {
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        let mut talk = sides.talk();
        let limit: usize = talk.direct.value("SELECT @@max_allowed_packet").parse().unwrap();
        let mut text = String::from("INSERT INTO t (b) VALUES (NULL)");
        for size in (0..).map(|number| [3, 300, 30_000, 3_000_000][number % 4]) {
            let row = format!(",\n ('it''s; KILL 5 \\\\\\'{} /*! \u{e9} */')", "z".repeat(size));
            if text.len() + row.len() + 1000 > limit {
                break;
            }
            text.push_str(&row);
        }
        assert!(text.len() > limit - 4_000_000 && limit >= 64 << 20);
        let inserted = talk.same(&text);
        assert!(inserted.len() == 1 && inserted[0].first() == 0, "{inserted:?}");
        // Nothing keeps the one connection.
        assert_eq!(other.value("SELECT COUNT(*) > 40 FROM t"), "1");
        talk.same("SELECT COUNT(*), SUM(LENGTH(b)), MAX(a) FROM t");
        let peak = sides.proxy.memory_peak_kib();
        assert!(peak < 60 << 10, "{peak} KiB for a text of {} bytes", text.len());
        // One that fails behind all that has been sent.
        talk.same(&text.replacen("(b)", "(c)", 1));
        assert_eq!(other.value("SELECT 1"), "1");
    });
}

/// What a text hides behind its first part keeps its client, and nobody else has it.
#[test]
fn my_130_what_stands_behind_a_long_text() {
    both_sides("my_130_behind", 1, TABLES, |sides| {
        let long = long();
        for (first, last, reason, asks) in [
            ("INSERT INTO t (b) VALUES ('", "'); SET @a = 7", "user_variable", "SELECT @a"),
            ("SELECT 1, @a := 7, LENGTH('", "')", "user_variable", "SELECT @a"),
            ("INSERT INTO t (b) VALUES ('", "'); SET SESSION div_precision_increment = 1", "setting", "SELECT 1 / 3"),
            ("INSERT INTO t (b) VALUES ('", "'); USE mysql", "setting", "SELECT DATABASE()"),
            ("INSERT INTO t (b) VALUES ('", "') /*!50000 ; SET @a = 7 */", "unreadable", "SELECT @a"),
            (
                "INSERT INTO t (b) VALUES ('",
                "'); DO GET_LOCK('{db}130', 1)",
                "session_lock",
                "SELECT IS_FREE_LOCK('{db}130')",
            ),
            ("CREATE TEMPORARY TABLE tt SELECT LENGTH('", "') AS a", "temporary_object", "SELECT * FROM tt"),
        ] {
            let mut talk = sides.talk_as(|login| login.with(capability::MULTI_STATEMENTS));
            let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
            let before = other.value("SELECT CONCAT_WS('-', @a, 1 / 3, DATABASE())");
            talk.same(&[first, &long, last].concat());
            eventually(sides.proxy, &[(&format!("clients_pinned reason=\"{reason}\""), 1.0)]);
            talk.same(asks);
            drop(talk);
            eventually(sides.proxy, &[("clients_pinned", 0.0)]);
            assert_eq!(other.value("SELECT CONCAT_WS('-', @a, 1 / 3, DATABASE())"), before, "{last}");
            assert_eq!(other.error("SELECT * FROM tt").code, 1146);
        }
    });
}

/// What only looks like that does not, in a transaction neither.
#[test]
fn my_130_what_keeps_nobody() {
    both_sides("my_130_keeps", 1, TABLES, |sides| {
        let long = long();
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        let mut talk = sides.talk_as(|login| login.with(capability::MULTI_STATEMENTS));
        for (first, last) in [
            ("INSERT INTO t (b) VALUES ('", "; SET @a = 7 \\'); KILL 5 -- ')"),
            ("SELECT LENGTH('", "'); SELECT 2"),
            ("SELECT LENGTH(\"", "\")"),
            ("/* ", " */ SELECT 3"),
            ("SELECT 4 -- ", "\n, 5"),
            ("SELECT nothing, LENGTH('", "')"),
            ("UPDATE t SET b = NULL WHERE b = '", "' OR 1"),
        ] {
            talk.same(&[first, &long, last].concat());
            assert_eq!(other.value("SELECT 'free'"), "free");
        }
        // What MySQL's own command line begins with.
        talk.same("select $$");
        assert_eq!(other.value("SELECT 'free'"), "free");
        talk.same("BEGIN");
        talk.same(&["INSERT INTO t (b) VALUES ('", &long, "')"].concat());
        talk.all(&["SELECT COUNT(*) FROM t", "ROLLBACK"]);
        assert_eq!(other.value("SELECT 'free'"), "free");
        talk.same("SELECT COUNT(*) FROM t");
    });
}

/// Who asks for a last value at a text's end gets its own.
#[test]
fn my_130_last_values_behind_a_long_text() {
    both_sides("my_130_last", 1, TABLES, |sides| {
        let asks = format!("SELECT LENGTH('{}'), LAST_INSERT_ID()", long());
        let mut talk = sides.talk();
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        talk.same(&asks);
        talk.same("INSERT INTO t (a) VALUES (NULL), (NULL)");
        other.query("INSERT INTO t (a) VALUES (40)");
        other.query("INSERT INTO t (a) VALUES (NULL)");
        talk.same(&asks);
    });
}
