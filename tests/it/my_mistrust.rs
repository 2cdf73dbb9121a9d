//! What a client of MySQL's or MariaDB's could leave to the next one on its connection by texts that hide, or do by halves, what they do.

use crate::harness::measure::eventually;
use crate::harness::mysql::Flavour;
use crate::harness::mysql::beside::{Sides, app, both_sides};
use crate::harness::mysql::wire::{MyWire, capability, framed};
use sluicegate::demo::servers::APP;

const TABLES: &[&str] = &["CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)"];

fn client(sides: &Sides<'_>) -> MyWire {
    MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap()
}

/// What SQL has prepared means what it meant to its client, not what another client's of the same name and text does.
#[test]
fn statements_of_the_same_text() {
    both_sides("my_texts", 3, TABLES, |sides| {
        sides.server.root().query(&format!("UPDATE {}.t SET a = 99", sides.twin));
        let elsewhere = format!("USE {}", sides.twin);
        let modes = "SET sql_mode = 'PIPES_AS_CONCAT'";
        for (set, text, [own, others]) in
            [(elsewhere.as_str(), "SELECT a FROM t", ["99", "1"]), (modes, "SELECT 1 || 2", ["12", "1"])]
        {
            let (mut one, mut other) = (client(sides), client(sides));
            let prepare = format!("PREPARE s FROM '{text}'");
            one.query(set);
            other.query(&prepare);
            one.query(&prepare);
            for _ in 0..2 {
                assert_eq!(other.value("EXECUTE s"), others, "{set}");
                assert_eq!(one.value("EXECUTE s"), own, "{set}");
            }
        }
        // Nor what it means where the same was set behind it.
        let (mut one, mut other) = (client(sides), client(sides));
        other.query(modes);
        for client in [&mut other, &mut one] {
            client.query("PREPARE s FROM 'SELECT 1 || 2'");
        }
        one.query(modes);
        assert_eq!(other.value("EXECUTE s"), "12");
    });
}

/// A trigger that asks for it finds what its client has inserted last, wherever that was.
#[test]
fn last_values_that_triggers_ask_for() {
    let tables = ["CREATE TABLE a (i INT AUTO_INCREMENT PRIMARY KEY)", "CREATE TABLE b (v BIGINT)"];
    both_sides("my_asking", 3, &tables, |sides| {
        let mut root = sides.server.root();
        root.query(&format!("USE {}", sides.name));
        root.query("CREATE TRIGGER asks BEFORE INSERT ON b FOR EACH ROW SET NEW.v = LAST_INSERT_ID()");
        let (mut one, mut other) = (client(sides), client(sides));
        let insert = |client: &mut MyWire| {
            client.query("INSERT INTO b VALUES (0)");
            let value = client.value("SELECT MAX(v) FROM b");
            client.query("DELETE FROM b");
            value
        };
        for round in 0..3 {
            one.query("INSERT INTO a VALUES (NULL)");
            let last = if round == 0 { 0 } else { 2 * round };
            assert_eq!(insert(&mut other), last.to_string());
            other.query("INSERT INTO a VALUES (NULL)");
            assert_eq!(insert(&mut one), (2 * round + 1).to_string());
        }
        // What failed may have drawn one as well.
        one.error("INSERT INTO a SELECT NULL FROM (SELECT 1 UNION SELECT 2) t WHERE EXP(710) > 0");
        assert_eq!(insert(&mut other), "6");
    });
}

/// Behind a mistake in a transaction code may run all the same.
#[test]
fn a_mistake_hides_no_code() {
    both_sides("my_mistake", 3, &["CREATE PROCEDURE p() SET @a = 9"], |sides| {
        for script in [&["CALL p()"][..], &["DO 1", "CALL p()", "SELECT @a"]] {
            let (mut one, mut other) = (client(sides), client(sides));
            one.query("BEGIN");
            one.error("SELEC 1");
            script.iter().for_each(|sql| _ = one.query(sql));
            one.query("COMMIT");
            assert_eq!(one.value("SELECT @a"), "9");
            drop(one);
            assert_eq!(other.query("SELECT @a"), [[None]], "{script:?}");
        }
    });
}

/// Locks whose release is not what it looks like.
#[test]
fn locks_that_are_still_there() {
    both_sides("my_still", 3, TABLES, |sides| {
        for script in [
            &["SELECT `get_lock`('{db}b', 0), GET_LOCK('{db}a', 0)", "SELECT RELEASE_LOCK('{db}a')"][..],
            &["DELETE FROM t", "SELECT GET_LOCK('{db}a', 0)", "SELECT RELEASE_ALL_LOCKS() FROM t"],
            &["SELECT GET_LOCK('{db}a', 0)", "SELECT RELEASE_ALL_LOCKS() LIMIT 0"],
            &["SET sql_select_limit = 0", "DO GET_LOCK('{db}a', 0)", "SELECT RELEASE_ALL_LOCKS()"],
            &["SET character_set_results = ucs2", "SELECT GET_LOCK('{db}a', 0)"],
            &["/* get_lock */ LOCK TABLES t READ", "SELECT RELEASE_ALL_LOCKS()"],
            &["SELECT GET_LOCK('{db}a', 0); LOCK TABLES u READ", "SELECT RELEASE_ALL_LOCKS()"],
            // MariaDB's.
            &[
                "BEGIN",
                "SET sql_mode = CONCAT('MS', 'SQL')",
                "SELECT 1 AS ['], GET_LOCK('{db}a', 0), 2 AS [']",
                "SET sql_mode = DEFAULT",
                "COMMIT",
            ],
        ] {
            let (mut one, mut other) = (client(sides), client(sides));
            for sql in script {
                one.reply(&sql.replace("{db}", &sides.name));
            }
            drop(one);
            let own = ["a", "b"].map(|lock| format!("IS_USED_LOCK('{}{lock}') <=> CONNECTION_ID()", sides.name));
            assert_eq!(other.value(&format!("SELECT {}", own.join(" OR "))), "0", "{script:?}");
            other.query("INSERT INTO t VALUES (2)");
        }
    });
}

/// Code that a text does not name, in a view, beside what the text says itself, or in what fails.
#[test]
fn what_views_do() {
    both_sides("my_views", 3, TABLES, |sides| {
        let (mut root, db) = (sides.server.root(), &sides.name);
        for (name, body) in [("f", "SET @c = 7;"), ("g", "SET @c = 7; SIGNAL SQLSTATE '45000';")] {
            let function = format!("CREATE FUNCTION {db}.{name}() RETURNS INT DETERMINISTIC NO SQL");
            root.query(&format!("{function} BEGIN {body} RETURN 1; END"));
            root.query(&format!("CREATE VIEW {db}.v{name} AS SELECT {db}.{name}() AS x"));
        }
        for sql in [
            "SELECT * FROM vf",
            "SELECT IF(0, @b := 1, x) FROM vf",
            "SELECT @b := 1, x FROM vf",
            "SELECT x INTO @b FROM vf",
            "SET @b = (SELECT x FROM vf)",
            "SET time_zone = (SELECT CONCAT('+0', x, ':00') FROM vf)",
            "SELECT RELEASE_LOCK('nothing'), x FROM vf",
            "SELECT * FROM vg",
            "SET @b = (SELECT x FROM vg)",
            "INSERT INTO t SELECT x FROM vg",
            "INSERT INTO t SELECT @b := x FROM vg",
            "SET STATEMENT session_track_state_change = 0 FOR SELECT x FROM vf",
        ] {
            let (mut one, mut other) = (client(sides), client(sides));
            other.query("SET @b = 2");
            one.reply(sql);
            drop(one);
            assert_eq!(other.query("SELECT @c"), [[None]], "{sql}");
        }
    });
}

/// Stored functions under names that are the server's own on other servers, at other places or otherwise written.
#[test]
fn names_of_the_servers_own() {
    both_sides("my_own_names", 1, TABLES, |sides| {
        let (mut root, db) = (sides.server.root(), &sides.name);
        root.query(&format!("USE {db}"));
        for (name, call) in [
            ("count", "SELECT count ({lock})"),
            ("count", "SET @a = count/**/({lock})"),
            ("mid", "SELECT 1 FROM t WHERE MID\n({lock})"),
            ("trim", "DO trim -- x\n ({lock})"),
            ("session_user", "SELECT session_user ({lock})"),
            ("md5", "SELECT MD5({lock})"),
            ("sha1", "SELECT sha1({lock})"),
            ("service_release_locks", "SELECT service_release_locks({lock})"),
            ("kdf", "SELECT kdf({lock})"),
            ("uuid_v7", "SELECT uuid_v7({lock})"),
            ("vec_totext", "SELECT VEC_ToText({lock})"),
            ("json_table", "SELECT json_table({lock})"),
            ("json_schema_valid", "SELECT json_schema_valid({lock})"),
            ("point", "SELECT POINT({lock})"),
            ("sql_no_cache", "SELECT 1 + sql_no_cache({lock})"),
            ("until", "SELECT until({lock})"),
            ("event", "CREATE TABLE made AS SELECT event({lock}) AS a"),
            ("hidden", "CREATE TABLE made (a INT) AS SELECT hidden({lock}) AS a"),
            ("include", "CREATE TABLE made VALUES ROW(include({lock}))"),
            ("minus", "CREATE TABLE made VALUES (minus({lock}))"),
            (
                "hidden",
                "CREATE TABLE made (a INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME INTERVAL hidden({lock}) DAY \
                 (PARTITION p HISTORY, PARTITION q CURRENT)",
            ),
        ] {
            let code = "(x TEXT) RETURNS INT DETERMINISTIC NO SQL RETURN GET_LOCK(x, 0)";
            root.query(&format!("CREATE DEFINER={APP}@'%' FUNCTION `{name}`{code}"));
            let mut one = client(sides);
            one.reply(&call.replace("{lock}", &format!("'{db}'")));
            drop(one);
            let lock = format!("SELECT IS_USED_LOCK('{db}') <=> CONNECTION_ID()");
            assert_eq!(client(sides).value(&lock), "0", "{call}");
            root.query(&format!("DROP FUNCTION `{name}`"));
            root.query("DROP TABLE IF EXISTS made");
        }
        let empty = "() RETURNS INT DETERMINISTIC NO SQL RETURN GET_LOCK('my_own_names', 0)";
        root.query(&format!("CREATE DEFINER={APP}@'%' FUNCTION polygon{empty}"));
        client(sides).reply("SELECT Polygon ( )");
        assert_eq!(client(sides).value("SELECT IS_USED_LOCK('my_own_names') <=> CONNECTION_ID()"), "0");
    });
}

/// A `SET` that fails in its last part has set nothing.
#[test]
fn no_half_of_a_set() {
    both_sides("my_half", 3, TABLES, |sides| {
        for last in [
            "sql_mode = 'nosuch'",
            "session_track_gtids = 'OWN_GTID'",
            "session_track_system_variables = 'nosuch'",
            "@x = (SELECT a FROM t UNION SELECT 5)",
            "NAMES nosuch",
            "transaction_read_only = 1",
            "tx_read_only = 1",
            "autocommit = 7",
            "optimizer_switch = 'nosuch=on'",
            "character_set_results = 'nosuch'",
            "tmp_table_size = 'x'",
            "session_track_state_change = 'x'",
        ] {
            for begin in ["DO 1", "BEGIN"] {
                let (mut one, mut other) = (client(sides), client(sides));
                one.query(begin);
                one.query("SELECT * FROM t");
                let packets = one.reply(&format!("SET time_zone = '+05:00', div_precision_increment = 7, {last}"));
                let is_error = packets[0].error().is_some();
                one.query("ROLLBACK");
                let shown = "SELECT CONCAT(@@time_zone, ' ', @@div_precision_increment)";
                assert_eq!(one.value(shown), if is_error { "SYSTEM 4" } else { "+05:00 7" }, "{last}");
                assert_eq!(other.value(shown), "SYSTEM 4", "{last}");
            }
        }
    });
}

/// What a client's login asks for it has on every connection.
#[test]
fn blanks_behind_functions() {
    both_sides("my_blanks", 3, TABLES, |sides| {
        let login = app().database(&sides.name).with(capability::IGNORE_SPACE);
        let client = || MyWire::connect(sides.proxy.address, &login).unwrap();
        let (mut one, mut other, mut third) = (client(), client(), client());
        let shown = "SELECT CONCAT(COUNT (*), @@sql_mode LIKE '%IGNORE_SPACE%', @@sql_mode LIKE '%HIGH_NOT%') FROM t";
        assert_eq!(other.value(shown), "110");
        for set in ["SET sql_mode = 'HIGH_NOT_PRECEDENCE'", "SET @a = 1", "SET sql_mode = DEFAULT"] {
            one.query(set);
            assert_eq!(other.value(shown), "110", "{set}");
        }
        third.query("SET sql_mode = CONCAT(@@sql_mode, ',HIGH_NOT_PRECEDENCE')");
        assert_eq!(other.value(shown), "110");
        assert_eq!(third.value(shown), "111");
        one.query("SET @a = 1");
        assert_eq!(third.value(shown), "111");
        // There is no other function of that name.
        eventually(sides.proxy, &[("clients_pinned", 0.0)]);
    });
}

/// A transaction of XA that has been ended, and not prepared, takes no statement, not even the proxy's.
#[test]
fn my_101_last_values_of_an_idle_transaction() {
    both_sides("my_101i", 3, TABLES, |sides| {
        for asks in ["SHOW WARNINGS", "SELECT LAST_INSERT_ID()", "SELECT ROW_COUNT()"] {
            client(sides).query("INSERT INTO t VALUES (1)");
            let mut talk = sides.talk();
            talk.all(&["XA START '{db}'", "SELECT * FROM t LIMIT 1", "XA END '{db}'", asks, "XA ROLLBACK '{db}'"]);
        }
    });
}

/// What only triggers and views set, of which no server tells, is nobody else's.
#[test]
fn variables_that_triggers_set() {
    let tables = ["CREATE TABLE a (v INT)", "CREATE TABLE b (v INT)", "CREATE TABLE c (v INT)"];
    both_sides("my_hidden", 3, &tables, |sides| {
        let mut root = sides.server.root();
        root.query(&format!("USE {}", sides.name));
        root.query("CREATE TRIGGER into_it BEFORE INSERT ON a FOR EACH ROW SELECT 5 INTO @x");
        root.query("CREATE TRIGGER assigns BEFORE INSERT ON b FOR EACH ROW SET NEW.v = (@x := 5)");
        root.query("CREATE FUNCTION hides() RETURNS INT DETERMINISTIC NO SQL BEGIN SELECT 5 INTO @x; RETURN 1; END");
        root.query("CREATE VIEW v AS SELECT hides()");
        let prepares = "PREPARE s FROM 'SELECT @x <=> ?'";
        for sets in ["INSERT INTO a VALUES (1)", "INSERT INTO b VALUES (1)", "SELECT * FROM v"] {
            let (mut one, mut other) = (client(sides), client(sides));
            other.query("SET @y = NULL");
            other.query(prepares);
            one.query(sets);
            assert_eq!(other.value("SELECT @x IS NULL"), "1", "{sets}");
            one.query(sets);
            assert_eq!(other.value("EXECUTE s USING @y"), "1", "{sets}");
            // Its own is there within its transaction.
            other.query("BEGIN");
            other.query(sets);
            assert_eq!(other.value("SELECT @x"), "5", "{sets}");
            other.query("COMMIT");
            assert_eq!(one.value("SELECT @x IS NULL"), "1", "{sets}");
        }
        // Of a client that has one of this name it is that one, and in a transaction nobody else's either.
        let sets = "INSERT INTO a VALUES (1)";
        let (mut one, mut other) = (client(sides), client(sides));
        for client in [&mut other, &mut one] {
            client.query("SET @x = 'own'");
        }
        one.query(sets);
        assert_eq!(other.value("SELECT @x"), "own");
        one.query(sets);
        other.query("BEGIN");
        other.query("INSERT INTO b VALUES (1)");
        assert_eq!(other.value("SELECT @x"), "5");
        other.query("ROLLBACK");
        other.query("SET @x = 'own'");
        other.query("PREPARE s FROM 'SELECT ?'");
        one.query(sets);
        assert_eq!(other.value("EXECUTE s USING @x"), "own");
        let mut third = client(sides);
        for text in ["SELECT @x IS NULL, 'see you @ noon', '@é'", "SELECT @`x` IS NULL"] {
            one.query(sets);
            third.query("BEGIN");
            assert_eq!(third.query(text)[0][0].as_deref(), Some("1"), "{text}");
            third.query("COMMIT");
        }
        one.query(sets);
        third.query("/* c */ XA START 'q'");
        assert_eq!(third.value("SELECT @x IS NULL"), "1");
        third.query("XA END 'q'");
        let _ = third.reply("SELECT @x");
        third.query("XA ROLLBACK 'q'");
        // A look that XA refuses costs nothing.
        one.query(sets);
        for text in ["XA START 'r'", "INSERT INTO c VALUES (1)", "XA END 'r'"] {
            third.query(text);
        }
        let _ = third.reply("SELECT @looked_at_by_nobody");
        third.query("XA PREPARE 'r'");
        third.query("XA ROLLBACK 'r'");
        if sides.server.flavour() == Flavour::MariaDb {
            one.query(sets);
            let shown = "SELECT COUNT(*) FROM information_schema.user_variables WHERE variable_value = '5'";
            assert_eq!(client(sides).value(shown), "0");
        }
    });
}

/// Names of variables that take quotes, that can't be, or that are something else to other clients: nobody else is sent any of them.
#[test]
fn names_of_variables_are_no_text_of_others() {
    both_sides("my_names", 3, &["CREATE TABLE a (v INT)", "INSERT INTO a VALUES (1)"], |sides| {
        let long = format!("@`{}`", "x".repeat(65));
        let more =
            ["@`a b`", "@`x `", "@``", &long, "@`\u{4e2d}`", "@`!\u{4e2d}`, @`= 1, @q = (SELECT 7) -- `", "@'it''s'"];
        for name in more {
            let mut talk = sides.talk();
            let mut other = client(sides);
            other.query("SELECT v FROM a");
            talk.all(&["BEGIN", "SELECT v FROM a"]);
            // (What type nothing has depends on who has asked for it before.)
            let shown = [&mut talk.direct, &mut talk.proxied].map(|wire| {
                let reply = wire.reply(&format!("SELECT {name}"));
                (reply[0].clone(), reply.iter().rev().nth(1).map(|row| row.payload.clone()))
            });
            assert_eq!(shown[1], shown[0], "{name}");
            talk.same("COMMIT");
            let mut third = client(sides);
            third.query("SET NAMES gbk");
            for _ in 0..2 {
                other.query("SELECT v FROM a");
                assert_eq!(third.query("SELECT @q, @x")[0], [None, None], "{name}");
                third.query("SELECT v FROM a");
                assert_eq!(other.query("SELECT @q, @x")[0], [None, None], "{name}");
            }
            talk.same("SELECT 1");
        }
    });
}

/// What a client's own statement has left it can put into a variable that no session had before.
#[test]
fn last_values_into_variables() {
    both_sides("my_into", 3, TABLES, |sides| {
        let mut talk = sides.talk();
        let mut other = client(sides);
        talk.same("SELECT ROW_COUNT()");
        for (number, text) in
            ["SELECT @n := ROW_COUNT()", "SELECT ROW_COUNT() INTO @n", "SET @n = ROW_COUNT()"].into_iter().enumerate()
        {
            other.query("INSERT INTO t VALUES (1), (2), (3)");
            talk.all(&["BEGIN", "INSERT INTO t VALUES (1), (2)"]);
            talk.same(&text.replace("@n", &format!("@n{number}")));
            talk.all(&["COMMIT", &format!("SELECT @n{number}")]);
        }
    });
}

/// Behind a statement that failed MySQL tells what it has changed with the next answer, whosever that is.
#[test]
fn a_change_that_is_told_with_another_answer() {
    let tables = ["CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY)", "CREATE PROCEDURE calm() SELECT 1"];
    both_sides("my_late", 3, &tables, |sides| {
        let mut root = sides.server.root();
        root.query(&format!("USE {}", sides.name));
        root.query(
            "CREATE TRIGGER fails BEFORE INSERT ON t FOR EACH ROW BEGIN SET @x = 42; SIGNAL SQLSTATE '45000'; END",
        );
        for behind in ["CALL calm()", "SET sort_buffer_size = 300000", "SELECT LAST_INSERT_ID()"] {
            let (mut one, mut other) = (client(sides), client(sides));
            one.query("SELECT LAST_INSERT_ID()");
            other.query("SELECT LAST_INSERT_ID()");
            let both = ["INSERT INTO t VALUES (NULL)", behind].map(|text| framed(&mut 0, &one.text(text)));
            one.send_raw(&both.concat());
            for _ in 0..2 {
                one.expect_reply();
                let _ = one.reply_to(3);
            }
            // Whatever holds the connection, it is not seen there.
            drop(one);
            for mut next in [other, client(sides)] {
                assert_eq!(next.value("SELECT @x IS NULL"), "1", "{behind}");
            }
        }
    });
}

/// In MariaDB a column's default may draw from a sequence, of which its last value tells: to its client alone.
#[test]
fn sequences_in_defaults() {
    let tables = ["CREATE TABLE t (a INT)"];
    both_sides("my_defaults", 3, &tables, |sides| {
        if sides.server.flavour() == Flavour::MySql {
            return;
        }
        let mut root = sides.server.root();
        root.query(&format!("USE {}", sides.name));
        root.query("CREATE SEQUENCE q");
        root.query("CREATE TABLE d (a BIGINT DEFAULT NEXTVAL(q), b INT)");
        let (mut one, mut other) = (client(sides), client(sides));
        one.query("INSERT INTO d (b) VALUES (1)");
        for text in ["SELECT LASTVAL(q) IS NULL", "SELECT PREVIOUS VALUE FOR q IS NULL"] {
            assert_eq!(other.value(text), "1", "{text}");
            one.query("INSERT INTO d (b) VALUES (1)");
        }
    });
}

/// A table that a procedure makes of a SELECT draws numbers as well.
#[test]
fn tables_that_procedures_make() {
    let tables = [
        "CREATE PROCEDURE makes() CREATE TABLE m (a INT AUTO_INCREMENT PRIMARY KEY) SELECT 5 AS b UNION SELECT 6",
        "CREATE TABLE n (v BIGINT)",
    ];
    both_sides("my_makes", 3, &tables, |sides| {
        let mut root = sides.server.root();
        for name in [&sides.name, &sides.twin] {
            root.query(&format!("USE {name}"));
            root.query("CREATE TRIGGER asks BEFORE INSERT ON n FOR EACH ROW SET NEW.v = LAST_INSERT_ID()");
        }
        let (mut talk, mut other) = (sides.talk(), client(sides));
        talk.all(&["DO 1", "CALL makes()"]);
        other.query("INSERT INTO n VALUES (7)");
        assert_eq!(other.value("SELECT v FROM n"), "0");
        other.query("DELETE FROM n");
        talk.all(&["INSERT INTO n VALUES (7)", "SELECT v FROM n", "SELECT LAST_INSERT_ID()"]);
    });
}

/// A definition is read as the server has read it.
#[test]
fn routines_in_other_character_sets() {
    both_sides("my_charsets", 3, TABLES, |sides| {
        let mut root = sides.server.root();
        root.query(&format!("USE {}", sides.name));
        let lock = format!("{}c", sides.name);
        let bodies: [(&str, &[u8], &str); 3] =
            [("sjis", b"\x81\x5F", "utf8mb4"), ("armscii8", b"x\xFF", "utf8mb4"), ("sjis", b"\x81\x5C", "binary")];
        for (charset, letters, names) in bodies {
            root.query(&format!("SET NAMES {charset}"));
            root.query("DROP PROCEDURE IF EXISTS p");
            let rest = format!("', GET_LOCK('{lock}', 1) -- '\n; END");
            let text = [b"CREATE PROCEDURE p() BEGIN SELECT '", letters, rest.as_bytes()].concat();
            assert!(root.command(&[&[3], &text[..]].concat())[0].error().is_none(), "{charset}");
            let mut one = client(sides);
            one.query(&format!("SET NAMES {names}"));
            let _ = one.reply("CALL p()");
            eventually(sides.proxy, &[("clients_pinned reason=\"opaque_code\"", 1.0)]);
            drop(one);
            let is_own = format!("SELECT IS_USED_LOCK('{lock}') <=> CONNECTION_ID()");
            assert_eq!(client(sides).value(&is_own), "0", "{charset}");
        }
    });
}

/// MySQL finds variables by names with accents.
#[test]
fn variables_with_accents() {
    both_sides("my_accents", 3, &["CREATE TABLE t (i INT AUTO_INCREMENT PRIMARY KEY)"], |sides| {
        if sides.server.flavour() == Flavour::MariaDb {
            let error = sides.server.root().error("SELECT @@läst_insert_id");
            assert_eq!(error.code, 1193, "it does as well");
            return;
        }
        let (mut one, mut other) = (client(sides), client(sides));
        one.query("INSERT INTO t VALUES (NULL), (NULL)");
        for name in ["läst_insert_id", "identìty", "`ìdentity`"] {
            assert_eq!(other.value(&format!("SELECT @@{name}")), "0", "{name}");
        }
        assert_eq!(one.value("SELECT @@läst_insert_id"), "1");
        one.query("SET áutocommit = 0");
        one.query("SET làst_insert_id = 9");
        one.query("COMMIT");
        assert_eq!(
            one.query("SELECT @@autocommit, LAST_INSERT_ID()")[0],
            ["0", "9"].map(|value| Some(value.to_owned()))
        );
        drop(one);
        assert_eq!(
            other.query("SELECT @@autocommit, LAST_INSERT_ID()")[0],
            ["1", "0"].map(|value| Some(value.to_owned()))
        );
    });
}
