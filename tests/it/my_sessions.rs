//! What is left of a session of MySQL's or MariaDB's, beside a direct connection, while another client uses the same connections: last
//! values, warnings, roles, what texts hide. Scenarios 107 to 109, 117, 118, 120 to 122, 128 and 129 of the list.

use crate::harness::measure::eventually;
use crate::harness::mysql::Flavour;
use crate::harness::mysql::beside::{Sides, Talk, app, both_sides};
use crate::harness::mysql::wire::{COM_QUERY, MyWire};
use sluicegate::demo::servers::APP;

fn client(sides: &Sides<'_>) -> MyWire {
    MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap()
}

/// Another client asks for the only connection before each of these, and gets it where it is free by then.
fn in_a_crowd(talk: &mut Talk, sides: &Sides<'_>, script: &[&str]) {
    let mut others: Vec<MyWire> = script.iter().map(|_| client(sides)).collect();
    for (sql, other) in script.iter().zip(&mut others) {
        other.send(&[&[COM_QUERY][..], b"SELECT 8 FROM u WHERE 1/0 LIMIT 3"].concat());
        talk.same(sql);
    }
    for mut other in others {
        other.begin_reply();
        while other.result(&mut Vec::new()) {}
    }
}

const TABLES: &[&str] = &[
    "CREATE TABLE t (i INT AUTO_INCREMENT PRIMARY KEY, v INT)",
    "CREATE TABLE u (i INT AUTO_INCREMENT PRIMARY KEY, v INT)",
    "INSERT INTO u (v) VALUES (1), (2), (3), (4)",
];

#[test]
fn my_107_last_values_of_inserts() {
    both_sides("my_107s", 3, TABLES, |sides| {
        let mut talk = sides.talk();
        let asked = [
            "SELECT LAST_INSERT_ID()",
            "SELECT LAST_INSERT_ID() AS x",
            "SELECT LAST_INSERT_ID() + 1 FROM DUAL;",
            "SELECT @@identity, @@last_insert_id",
            "INSERT INTO t (v) VALUES (LAST_INSERT_ID())",
            "SELECT * FROM t WHERE i = LAST_INSERT_ID()",
            "INSERT INTO t (v) SELECT v FROM u",
            "SELECT LAST_INSERT_ID()",
        ];
        for _ in 0..2 {
            talk.same("INSERT INTO t (v) VALUES (7), (8)");
            let mut other = client(sides);
            other.query("INSERT INTO u (v) VALUES (9)");
            other.query("DELETE FROM u WHERE v = 9");
            in_a_crowd(&mut talk, sides, &asked);
        }
        let prepared = talk.prepare("SELECT LAST_INSERT_ID()");
        talk.same("INSERT INTO t (v) VALUES (5)");
        talk.execute(prepared, &[]);
    });
}

/// An answer tells a number that was written out as well, which is not `LAST_INSERT_ID()`.
#[test]
fn my_107_numbers_that_are_written_out() {
    let more = [
        "CREATE TABLE small (i TINYINT AUTO_INCREMENT PRIMARY KEY)",
        "CREATE TABLE refused (i INT AUTO_INCREMENT PRIMARY KEY, v INT)",
    ];
    both_sides("my_107w", 3, &[TABLES, &more].concat(), |sides| {
        for name in [&sides.name, &sides.twin] {
            let mut root = sides.server.root();
            root.query(&format!("USE {name}"));
            root.query("CREATE TRIGGER after_refused AFTER INSERT ON refused FOR EACH ROW SIGNAL SQLSTATE '45000'");
        }
        let written = [
            "INSERT INTO t (i, v) VALUES (500, 1)",
            "INSERT INTO t (i, v) VALUES (600, 1), (NULL, 2), (NULL, 3)",
            "INSERT INTO t (i, v) VALUES (NULL, 4), (700, 5)",
            "REPLACE INTO t (i, v) VALUES (500, 6)",
            "INSERT INTO t (i, v) VALUES (500, 7) ON DUPLICATE KEY UPDATE v = 8",
            "INSERT INTO t (i, v) SELECT i + 1000, v FROM u WHERE v < 5",
            "UPDATE t SET i = 2000 WHERE i = 500",
            // The first row of these draws a number, and the second one fails.
            "INSERT INTO t (i, v) VALUES (NULL, 1), (2000, 2)",
            "INSERT INTO t (v) VALUES (3), (4)",
            // Brought into its range; without an answer that tells it; behind a trigger that fails.
            "INSERT IGNORE INTO small (i) VALUES (500)",
            "CREATE TABLE made (i INT AUTO_INCREMENT PRIMARY KEY) SELECT 500 AS i",
            "INSERT INTO refused (v) VALUES (1)",
        ];
        // One that has not asked yet lets go of its connection at once.
        let asks = |talk: &mut Talk| {
            drop(client(sides).query("INSERT INTO u (v) VALUES (9)"));
            talk.same("SELECT LAST_INSERT_ID()");
        };
        for (at, writes) in written.into_iter().enumerate() {
            let mut talk = sides.talk();
            if at % 2 == 0 {
                talk.same("INSERT INTO t (v) VALUES (7), (8)");
            }
            talk.same(writes);
            asks(&mut talk);
        }
        // As a parameter: an integer, and a string that becomes the same; no number, and the server draws one.
        for parameters in [&b"\0\x01\x03\0\xA0\x0F\0\0"[..], b"\0\x01\xFD\0\x064000.6", b"\x01\x01\x06\0"] {
            let mut talk = sides.talk();
            let prepared = talk.prepare("INSERT INTO t (i, v) VALUES (?, 5)");
            talk.execute(prepared, parameters);
            asks(&mut talk);
        }
    });
}

/// Those that no answer tells.
#[test]
fn my_107_last_values_that_are_not_told() {
    both_sides("my_107u", 3, TABLES, |sides| {
        let returning = "INSERT INTO t (v) VALUES (7), (8) RETURNING i";
        let mut all = vec![
            "SELECT LAST_INSERT_ID(50)",
            "DO LAST_INSERT_ID(60)",
            "SET @a = LAST_INSERT_ID(70)",
            "UPDATE t SET i = LAST_INSERT_ID(i + 100) LIMIT 1",
            "INSERT INTO u (i, v) VALUES (LAST_INSERT_ID(80), 0)",
        ];
        all.extend((sides.server.flavour() == Flavour::MariaDb).then_some(returning));
        for makes in all {
            for asks in ["SELECT LAST_INSERT_ID()", "INSERT INTO t (v) VALUES (LAST_INSERT_ID())"] {
                let mut talk = sides.talk();
                talk.same("INSERT INTO t (v) VALUES (1)");
                talk.same(makes);
                let mut other = client(sides);
                other.query("INSERT INTO u (v) VALUES (9)");
                other.query("SELECT LAST_INSERT_ID()");
                talk.same(asks);
                // Within a transaction as well.
                talk.all(&["BEGIN", makes, asks, "COMMIT"]);
                talk.same("SELECT LAST_INSERT_ID()");
            }
        }
        // Behind an error that follows it.
        let mut talk = sides.talk();
        talk.same("SELECT LAST_INSERT_ID(90); SELECT nonsense");
        drop(client(sides).query("INSERT INTO u (v) VALUES (9)"));
        talk.same("SELECT LAST_INSERT_ID()");
        // Nobody's value is taken for a client's own.
        let mut other = client(sides);
        other.query("INSERT INTO u (v) VALUES (9)");
        drop(other);
        let mut talk = sides.talk();
        talk.same("SELECT LAST_INSERT_ID(NULL) FROM u WHERE 0");
        drop(client(sides).query("DO 1"));
        talk.same("SELECT LAST_INSERT_ID()");
    });
}

#[test]
fn my_108_numbers_of_rows() {
    both_sides("my_108", 3, TABLES, |sides| {
        let mut talk = sides.talk();
        talk.same("SELECT ROW_COUNT()");
        let script = [
            "SELECT SQL_CALC_FOUND_ROWS v FROM u LIMIT 1",
            "SELECT FOUND_ROWS()",
            "INSERT INTO t (v) SELECT v FROM u",
            "SELECT ROW_COUNT()",
            "UPDATE t SET v = 9 WHERE v > 2",
            "SELECT ROW_COUNT() AS changed",
            "DELETE FROM t LIMIT 1",
            "SELECT ROW_COUNT()",
        ];
        in_a_crowd(&mut talk, sides, &script);
    });
}

#[test]
fn my_109_warnings_and_errors() {
    both_sides("my_109", 3, TABLES, |sides| {
        let mut talk = sides.talk();
        talk.all(&["SELECT COUNT(*) FROM u", "SHOW WARNINGS"]);
        let script = [
            "INSERT INTO t (v) SELECT CAST('x' AS SIGNED) FROM u WHERE v = 1 AND 1 = 0",
            "SELECT CAST('x' AS SIGNED) FROM u",
            "SHOW WARNINGS",
            "SELECT CAST('x' AS SIGNED) FROM u",
            "SHOW COUNT(*) WARNINGS",
            "SELECT CAST('x' AS SIGNED) FROM u",
            "SELECT @@warning_count",
            "SELECT nonsense FROM u",
            "SHOW ERRORS",
            "SELECT nonsense FROM u",
            "GET DIAGNOSTICS CONDITION 1 @code = MYSQL_ERRNO, @words = MESSAGE_TEXT",
            "SELECT @code, @words",
        ];
        in_a_crowd(&mut talk, sides, &script);
    });
}

/// What is set for all is nobody's session.
#[test]
fn my_117_what_is_set_for_all() {
    both_sides("my_117", 3, TABLES, |sides| {
        let mut talk = sides.talk();
        for sql in
            ["SET GLOBAL sort_buffer_size = 300000", "SET @@GLOBAL.autocommit = 0", "SET PERSIST sort_buffer_size = 1"]
        {
            talk.error(sql);
            in_a_crowd(&mut talk, sides, &["SELECT @@sort_buffer_size, @@autocommit"]);
        }
        assert_eq!(sides.proxy.metric("sluicegate_clients_pinned"), 0.0);
    });
}

#[test]
fn my_118_roles() {
    both_sides("my_118", 4, TABLES, |sides| {
        let role = format!("role_{}", sides.name);
        let mut root = sides.server.root();
        root.query(&format!("CREATE ROLE {role}"));
        root.query(&format!("GRANT {role} TO app"));
        let mut talk = sides.talk();
        talk.all(&["SELECT CURRENT_ROLE()", &format!("SET ROLE {role}"), "SELECT CURRENT_ROLE()"]);
        eventually(sides.proxy, &[("clients_pinned", 1.0)]);
        let mut other = client(sides);
        let none = other.value("SELECT COALESCE(NULLIF(CURRENT_ROLE(), 'NONE'), 'nobody')");
        assert_eq!(none, "nobody");
        talk.all(&["SELECT CURRENT_ROLE()"]);
        drop((talk, other));
        for mut next in [client(sides), client(sides)] {
            assert_eq!(next.value("SELECT COALESCE(NULLIF(CURRENT_ROLE(), 'NONE'), 'nobody')"), "nobody");
        }
        root.query(&format!("DROP ROLE {role}"));
    });
}

/// MariaDB's own; MySQL refuses them.
#[test]
fn my_120_settings_of_a_statement_and_sequences() {
    both_sides("my_120", 4, TABLES, |sides| {
        let mut talk = sides.talk();
        let script = [
            "SET STATEMENT sort_buffer_size = 300000 FOR SELECT @@sort_buffer_size",
            "SELECT @@sort_buffer_size",
            "SET @a = 'none'",
            "SET STATEMENT sql_mode = '' FOR SET @a = @@sql_mode",
            "SELECT @a, @@sql_mode",
            "CREATE SEQUENCE s",
            "SELECT NEXT VALUE FOR s",
            "SELECT LASTVAL(s), PREVIOUS VALUE FOR s",
            "SELECT NEXTVAL(s)",
            "SELECT LASTVAL(s)",
        ];
        in_a_crowd(&mut talk, sides, &script);
        let mut other = client(sides);
        let _ = other.reply("SELECT LASTVAL(s)");
        assert_eq!(other.query("SELECT @a"), [[None]]);
    });
}

/// What the server gathers about a session stays with its client.
#[test]
fn my_121_profiles() {
    both_sides("my_121", 4, TABLES, |sides| {
        let mut talk = sides.talk();
        talk.all(&["SELECT @@profiling", "SET profiling = 1", "SELECT @@profiling"]);
        eventually(sides.proxy, &[("clients_pinned", 1.0)]);
        assert_eq!(client(sides).value("SELECT @@profiling"), "0");
        talk.same("SELECT @@profiling");
        drop(talk);
        for mut next in [client(sides), client(sides)] {
            assert_eq!(next.value("SELECT @@profiling"), "0");
        }
    });
}

/// Bytes of one letter that look like a quote or a backslash: what is behind them is a string to the server, or it is not.
/// Which group a thread is in outlasts a reset: nobody else gets the connection. MariaDB has none.
#[test]
fn my_122_resource_groups() {
    both_sides("my_122", 4, TABLES, |sides| {
        let mut talk = sides.talk();
        talk.all(&[
            "SET RESOURCE GROUP nowhere",
            "SELECT /*+ RESOURCE_GROUP(nowhere) */ 1",
            "SET component.variable = 1",
        ]);
        if sides.server.flavour() == Flavour::MariaDb {
            return;
        }
        drop(talk);
        let mut root = sides.server.root();
        root.query(&format!("GRANT RESOURCE_GROUP_USER ON *.* TO {APP}"));
        let group = format!("{}_group", sides.name);
        root.query(&format!("CREATE RESOURCE GROUP {group} TYPE = USER"));
        let of = |client: &mut MyWire| client.value("SELECT CONNECTION_ID()");
        let (mut one, mut other) = (client(sides), client(sides));
        one.query(&format!("SET RESOURCE GROUP {group}"));
        let grouped = of(&mut one);
        assert_ne!(of(&mut other), grouped);
        // Its own reset does not bring it back.
        one.command(&[0x1F]);
        assert_eq!(of(&mut one), grouped);
        drop(one);
        let mut all = [(); 2].map(|()| client(sides));
        for client in &mut all {
            client.query("BEGIN");
            assert_ne!(of(client), grouped);
        }
        root.query(&format!("DROP RESOURCE GROUP {group} FORCE"));
    });
}

#[test]
fn my_128_letters_of_two_bytes() {
    both_sides("my_128", 4, TABLES, |sides| {
        let mut talk = sides.talk();
        for charset in ["gbk", "big5", "sjis", "cp932", "utf8mb4", "latin1"] {
            talk.same(&format!("SET NAMES {charset}"));
            for text in [
                &b"SELECT HEX('\xbf\x5c'), 'x; SET @hidden = 1; -- '"[..],
                b"SELECT HEX('\xbf\x5c', @hidden := 2, '')",
                b"SELECT '\x83\x5c', @hidden := 3 -- '",
                b"SELECT '\xa4\x5c\x5c' ' , @hidden := 4 -- '",
                b"SELECT @hidden",
            ] {
                talk.command(&[&[COM_QUERY], text].concat());
                let mut other = client(sides);
                assert_eq!(other.query("SELECT @hidden, @@character_set_client"), [[None, Some("utf8mb4".to_owned())]]);
            }
        }
    });
}

#[test]
fn my_129_executable_comments() {
    both_sides("my_129", 4, TABLES, |sides| {
        let mut talk = sides.talk();
        let shown = "SELECT @x, @y, @@autocommit, @@sql_notes, @@time_zone";
        let pristine = client(sides).query(shown);
        for sql in [
            "/*!50001 SET @x = 1 */",
            "/*!40101 SET @y = @@time_zone */",
            "SELECT 1 /*!99999 , @x := 2 */",
            "SELECT 1 /*!50001 , @x := 3 */",
            "/*M! SET @y = 4 */",
            "/*M!100000 SET sql_notes = 0 */",
            "/*!50001 SET time_zone = '+03:00' */",
            "SET /*! autocommit = 0, */ @x = 5",
            "SET autocommit = /*!99999 0 + */ 1",
            "/*!50001 SET @x = /*!50002 6 */ */",
            "SELECT '/*!50001 ' , @x := 7, ' */'",
        ] {
            talk.same(sql);
            assert_eq!(client(sides).query(shown), pristine, "{sql}");
            talk.same(shown);
        }
    });
}
