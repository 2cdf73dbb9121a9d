//! User variables of MySQL's and MariaDB's sessions, and settings given by expressions, beside a direct connection: they go with their
//! client from connection to connection, with their types, and no other client has them. Scenarios 110 and 115.

use crate::harness::mysql::beside::{app, both_sides};
use crate::harness::mysql::wire::MyWire;

/// Scenario 110: what a trigger sets, or a procedure, is nobody else's either, and its client finds it.
#[test]
fn my_110_by_triggers_and_procedures() {
    let setup = &[
        "CREATE TABLE t (a INT NOT NULL)",
        "CREATE PROCEDURE p() SET @a = 9",
        "CREATE PROCEDURE q() SELECT 8 INTO @a",
    ];
    both_sides("my_110t", 3, setup, |sides| {
        let mut root = sides.server.root();
        for name in [&sides.name, &sides.twin] {
            root.query(&format!("CREATE TRIGGER {name}.t1 BEFORE INSERT ON {name}.t FOR EACH ROW SET @a = NEW.a"));
            let function = "RETURNS INT DETERMINISTIC NO SQL BEGIN SET @a = 7; RETURN 1; END";
            root.query(&format!("CREATE FUNCTION {name}.f() {function}"));
        }
        for sql in [
            "INSERT INTO t VALUES (5)",
            "INSERT INTO t VALUES (6), (NULL)",
            "INSERT INTO t VALUES (6), (nonsense)",
            "CALL p()",
            "CALL q()",
            "SELECT f()",
            "SET @b = f()",
        ] {
            let mut talk = sides.talk();
            talk.all(&[sql, "SELECT @a", "BEGIN", sql, "COMMIT", "SELECT @a"]);
            drop(talk);
            // The same by a statement that SQL has prepared.
            let (mut talk, mut between) =
                (sides.talk(), MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap());
            talk.same(&format!("PREPARE s FROM '{sql}'"));
            between.query("SELECT * FROM t");
            talk.same("EXECUTE s");
            drop(between);
            assert_eq!(talk.proxied.query("SELECT @a"), talk.direct.query("SELECT @a"), "{sql}");
            drop(talk);
            let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
            assert_eq!(other.query("SELECT @a, @b"), [[None, None]], "{sql}");
        }
    });
}

/// What a variable can be set to.
const VALUES: &[&str] = &[
    "5",
    "-5",
    "CAST(5 AS UNSIGNED)",
    "18446744073709551615",
    "-9223372036854775808",
    "1.50",
    "5.",
    "CAST(5 AS DECIMAL(20,4))",
    "123456789012345678901234567890",
    "-0.000000000000000000000000000001",
    "1e300",
    "-1.5e-7",
    "1/3",
    "1e0/3",
    "CAST(NULL AS SIGNED)",
    "CAST(NULL AS UNSIGNED)",
    "CAST(NULL AS DECIMAL)",
    "1e0+NULL",
    "'abc'",
    "''",
    "'a''b\\\\n\\0'",
    "'äöü€😀'",
    "_latin1'abc' COLLATE latin1_german1_ci",
    "_utf8mb4'ä' COLLATE utf8mb4_bin",
    "X'00FF41'",
    "X''",
    "TRUE",
    "CAST('2020-01-01' AS DATE)",
    "TIME('12:13:14.5')",
    "JSON_OBJECT('a', 1)",
    "REPEAT('x', 16000)",
    "(SELECT 1 = 2)",
    "@nothing",
];

/// Bytes that are no letters of their character set.
#[test]
fn my_110_no_strings() {
    both_sides("my_110b", 4, &[], |sides| {
        for names in ["gb2312", "euckr", "ascii", "latin1", "utf8mb4"] {
            let (mut talk, mut other) =
                (sides.talk(), MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap());
            talk.same(&format!("SET NAMES {names}"));
            talk.command(b"\x03SET @a = 'a\xC3\x9F\xC3', @b = CONVERT('a' USING utf16)");
            for _ in 0..2 {
                other.query("SET @a = 1");
                talk.same("SELECT HEX(@a), HEX(@b), COLLATION(@b)");
            }
        }
    });
}

#[test]
fn my_110_user_variables_go_with_their_client() {
    both_sides("my_110", 3, &["CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1), (2), (3)"], |sides| {
        let client = || MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        let (mut talk, mut other) = (sides.talk(), client());
        let shown = "SELECT @a, @A + 1, CONCAT(@a, '!'), COLLATION(@a), @b";
        let pristine = other.reply(shown);
        for value in VALUES {
            for set in [format!("SET @a = {value}"), format!("SELECT {value} INTO @a"), format!("SELECT @a := {value}")]
            {
                talk.same(&set);
                assert_eq!(other.reply(shown), pristine, "{set}");
                talk.same("SELECT @a");
                talk.same(shown);
            }
        }
        for set in [
            "SET @a = 1, @b = @a, @c = 'x'",
            "SELECT a, a + 1 INTO @a, @b FROM t WHERE a = 3",
            "SELECT a INTO @a FROM t",
            "SELECT @a := @a + a, @b := a FROM t",
            "SET @a = 7, sort_buffer_size = @a * 100000",
            "SET @a = 1, @b = (SELECT nothing FROM t)",
            "SET @a = 1, @b = (SELECT a FROM t)",
            "SET @`a` = 9",
            "SELECT 'a@b.c' AS mail, @a := 4",
            "SET @a = NULL",
        ] {
            talk.same(set);
            assert_eq!(other.reply(shown), pristine, "{set}");
            talk.same(shown);
        }
        // In and around transactions.
        talk.all(&["BEGIN", "SET @a = 11", "SELECT @a", "ROLLBACK"]);
        assert_eq!(other.reply(shown), pristine);
        talk.all(&[shown, "SET autocommit = 0", "SELECT a INTO @a FROM t LIMIT 1", "SET @b = 3", shown, "COMMIT"]);
        assert_eq!(other.reply(shown), pristine);
        talk.all(&[shown, "SET autocommit = 1"]);
        // Behind a reset nobody has any.
        talk.command(&[0x1F]);
        assert_eq!(other.reply(shown), pristine);
        talk.same("SELECT @a, @b");
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
        // What can't be named keeps its connection.
        talk.all(&["SET @`a b` = 9", "SELECT @`a b`"]);
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 1.0);
        talk.command(&[0x1F]);
        talk.all(&["SELECT a FROM t", "GET DIAGNOSTICS @a = NUMBER", "SELECT @a"]);
    });
}
