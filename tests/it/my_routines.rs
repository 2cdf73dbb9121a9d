//! What procedures and functions leave is read from their definitions: those that leave nothing, or user variables alone, don't keep
//! their client's connection. Beside a direct connection; in between another client has the connection, if it is free.

use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{Pair, Sides, app, both_sides};
use crate::harness::mysql::wire::MyWire;
use sluicegate::demo::my_servers::Flavour;
use sluicegate::demo::servers::APP;

const SETUP: &[&str] = &[
    "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
    "INSERT INTO t (a) VALUES (1), (2), (3)",
    "CREATE PROCEDURE writes(x INT) BEGIN DECLARE y INT DEFAULT x; SET y = y + 1; UPDATE t SET a = y WHERE id = 1; END",
    "CREATE PROCEDURE inserts(x INT) BEGIN INSERT INTO t (a) VALUES (x); DELETE FROM t WHERE id = LAST_INSERT_ID(); END",
    "CREATE PROCEDURE results() BEGIN SELECT 1; SELECT id, a FROM t ORDER BY id; END",
    "CREATE PROCEDURE outs(x INT, OUT y INT, INOUT z VARCHAR(20)) BEGIN SET y = x * 2; SET z = CONCAT(z, '!'); END",
    "CREATE PROCEDURE sets(x INT) SET @x = x",
    "CREATE PROCEDURE nested(x INT) BEGIN CALL writes(x); CALL sets(x); DO doubled(x); END",
    "CREATE PROCEDURE fails(x INT) BEGIN SET @x = x; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'as it should'; END",
    "CREATE PROCEDURE begins() BEGIN START TRANSACTION; UPDATE t SET a = 7 WHERE id = 2; END",
    "CREATE PROCEDURE tells() SELECT LAST_INSERT_ID()",
    "CREATE PROCEDURE hashes(x TEXT, OUT y TEXT) BEGIN SET y = SHA1(x); END",
    "CREATE PROCEDURE midway(x INT) BEGIN INSERT INTO t (a) VALUES (x); SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'midway'; END",
    "CREATE TABLE numbers (last INT)",
    "INSERT INTO numbers VALUES (5)",
    // What may do anything.
    "CREATE PROCEDURE zones() SET time_zone = '+05:00'",
    "CREATE PROCEDURE prepares() BEGIN SET @q = 'SELECT 1'; PREPARE s FROM @q; EXECUTE s; END",
    "CREATE PROCEDURE tables() CREATE TEMPORARY TABLE mine (a INT)",
    "CREATE PROCEDURE deep() BEGIN CALL writes(1); CALL zones(); END",
];

/// Made by root for the clients' user, who may not make any.
const FUNCTIONS: &[&str] = &[
    "doubled(x INT) RETURNS INT DETERMINISTIC NO SQL RETURN 2 * x",
    "noted(x INT) RETURNS INT DETERMINISTIC NO SQL BEGIN SET @x = x; RETURN x; END",
    "inserted(x INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA \
     BEGIN INSERT INTO t (a) VALUES (x); DELETE FROM t WHERE id > 3; RETURN x; END",
    "numbered() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN UPDATE numbers SET last = LAST_INSERT_ID(last + 1); RETURN LAST_INSERT_ID(); END",
    "locks(x TEXT) RETURNS INT DETERMINISTIC RETURN GET_LOCK(x, 5)",
];

/// Both sides with all of these.
fn with_routines(name: &str, connections: u32, run: impl Fn(&Sides<'_>)) {
    both_sides(name, connections, SETUP, |sides| {
        let mut root = sides.server.root();
        for database in [&sides.name, &sides.twin] {
            root.query(&format!("USE {database}"));
            FUNCTIONS
                .iter()
                .for_each(|function| _ = root.query(&format!("CREATE DEFINER={APP}@'%' FUNCTION {function}")));
        }
        run(sides);
    });
}

/// Its other client finds no variable and no setting.
fn pair_of<'a>(sides: &'a Sides<'a>) -> Pair<'a> {
    let finds_nothing = |other: &mut MyWire, sides: &Sides<'_>, sql: &str| {
        let found = other.query("SELECT @x, @y, @z, @q, @@time_zone");
        let expected = [None, None, None, None, Some("SYSTEM".to_owned())];
        assert_eq!(found, [expected], "{sql}");
        eventually(sides.proxy, &[("clients_pinned", 0.0)]);
    };
    Pair::new(sides, finds_nothing, "clients_pinned reason=\"opaque_code\"")
}

#[test]
fn calm_ones_leave_their_connection() {
    with_routines("my_calm", 3, |sides| {
        let mut pair = pair_of(sides);
        for _ in 0..2 {
            pair.free(&["CALL writes(5)", "SELECT a FROM t ORDER BY id", "call `results`"]);
            pair.free(&["SET @z = 'a'", "CALL outs(5, @y, @z)", "SELECT @y, @z", "CALL sets(8)", "SELECT @x"]);
            pair.free(&["CALL nested(9)", "SELECT @x", "CALL nested(NULL)", "SELECT @x"]);
            pair.free(&["SELECT doubled(a), doubled(2) FROM t ORDER BY id", "SELECT noted(4)", "SELECT @x"]);
            pair.free(&[
                "INSERT INTO t (id, a) VALUES (20, noted(5))",
                "SELECT @x, @@insert_id",
                "DELETE FROM t WHERE id > 3",
            ]);
            pair.free(&["SELECT inserted(1)", "CALL fails(3)", "SELECT @x", "CALL writes()", "SELECT noted(1, 2)"]);
            pair.free(&["SET @x = NULL, @y = NULL, @z = NULL"]);
            pair.talk.all(&["CALL begins()", "SELECT a FROM t WHERE id = 2", "CALL sets(4)"]);
            pair.free(&["ROLLBACK", "SELECT a, @x FROM t WHERE id = 2"]);
            pair.talk.all(&["SET autocommit = 0", "CALL writes(2)"]);
            pair.free(&["COMMIT", "SET autocommit = 1"]);
        }
        // Prepared, and prepared by SQL.
        let call = pair.talk.prepare("CALL sets(?)");
        for number in [7, 8] {
            pair.talk.execute(call, &[0, 1, 3, 0, number, 0, 0, 0]);
            pair.free(&["SELECT @x"]);
        }
        pair.free(&["PREPARE c FROM 'CALL sets(?)'", "SET @a = 3", "EXECUTE c USING @a", "SELECT @x"]);
        // Its parameters are variables.
        pair.free(&["PREPARE c FROM 'CALL outs(?, ?, ?)'", "SET @y = 1, @z = 'a'", "EXECUTE c USING @a, @y, @z"]);
        pair.free(&["SELECT @y, @z", "EXECUTE c USING @a, @Y, @`z`", "SELECT @y, @z"]);
        pair.free(&["SET @x = NULL, @y = NULL, @z = NULL"]);
        // Of its own, in a database that was selected behind the login.
        let root = &mut sides.server.root();
        for name in [&sides.name, &sides.twin] {
            root.query(&format!("CREATE TRIGGER {name}.g BEFORE INSERT ON {name}.t FOR EACH ROW SET @y = NEW.a"));
        }
        pair.talk.same("DEALLOCATE PREPARE c");
        drop(pair);
        let mut pair = pair_of(sides);
        pair.talk.all(&["CALL inserts(6)", "SELECT @y"]);
        eventually(sides.proxy, &[("clients_pinned reason=\"user_variable\"", 1.0)]);
    });
}

#[test]
fn wild_ones_keep_it() {
    with_routines("my_wild", 8, |sides| {
        for sql in [
            "CALL zones()",
            "CALL deep()",
            "CALL prepares()",
            "CALL tables()",
            "CALL nothing()",
            "SELECT locks('{db}')",
        ] {
            let mut pair = pair_of(sides);
            pair.talk.same("CALL writes(1)");
            pair.kept(&[sql, "SELECT @@time_zone, @q", "SELECT * FROM mine", "EXECUTE s", "CALL writes(1)"]);
            assert_eq!(pair.other.value("SELECT @@time_zone"), "SYSTEM");
            let lock = format!("SELECT IS_USED_LOCK('{}') <=> CONNECTION_ID()", sides.name);
            assert_eq!(pair.other.value(&lock), "0");
        }
        // Its code can't be seen by those who may call it.
        let mut root = sides.server.root();
        for name in [&sides.name, &sides.twin] {
            root.query(&format!("DROP FUNCTION {name}.doubled"));
            root.query(&format!("CREATE FUNCTION {name}.doubled(x INT) RETURNS INT DETERMINISTIC NO SQL RETURN 2 * x"));
        }
        pair_of(sides).kept(&["SELECT doubled(4)"]);
    });
}

/// Functions that some servers have of their own, and that nobody has made here.
#[test]
fn names_that_nobody_has_taken() {
    with_routines("my_taken", 2, |sides| {
        let mut pair = pair_of(sides);
        for _ in 0..2 {
            pair.free(&["SELECT MD5('a'), SHA1(a) FROM t ORDER BY id", "SELECT COUNT (*), MAX (a) FROM t"]);
            pair.free(&["SELECT ST_X(POINT(1, 2)), SYSDATE () IS NULL", "SELECT SQL_NO_CACHE (1)"]);
            if sides.server.flavour() == Flavour::MariaDb {
                pair.free(&["SELECT json_table(1)", "SELECT UUID_v7(1)", "SELECT VEC_ToText('a')"]);
            }
            pair.free(&["SELECT a FROM (SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (a INT PATH '$')) j) k"]);
            pair.talk.all(&["BEGIN", "SELECT MD5('b')"]);
            pair.free(&["COMMIT", "CALL hashes('c', @y)", "SET @y = NULL"]);
        }
        let hash = pair.talk.prepare("SELECT MD5(?)");
        pair.talk.execute(hash, &[0, 1, 3, 0, 7, 0, 0, 0]);
        pair.free(&["DO 1"]);
    });
}

/// A procedure made in a mode that quotes names as no other does.
#[test]
fn names_in_brackets() {
    with_routines("my_brackets", 3, |sides| {
        if sides.server.flavour() != Flavour::MariaDb {
            return;
        }
        let (mut one, mut other) = (pair_of(sides).other, pair_of(sides).other);
        let mut direct = MyWire::connect(sides.server.address(), &app().database(&sides.name)).unwrap();
        direct.query("SET sql_mode = MSSQL");
        direct.query(&format!(
            "CREATE PROCEDURE p() BEGIN SELECT 1 AS ['], GET_LOCK('{}', 1), 2 AS [']; END",
            sides.name
        ));
        one.reply("CALL p()");
        drop(one);
        let lock = format!("SELECT IS_USED_LOCK('{}') <=> CONNECTION_ID()", sides.name);
        assert_eq!(other.value(&lock), "0");
    });
}

/// A procedure's stays; a function's does not.
#[test]
fn last_insert_ids_of_procedures() {
    with_routines("my_calm_ids", 3, |sides| {
        let mut pair = pair_of(sides);
        pair.free(&["CALL inserts(5)"]);
        pair.talk.same("SELECT LAST_INSERT_ID()");
        pair.free(&["CALL inserts(6)"]);
        pair.talk.all(&["SELECT inserted(7)", "SELECT LAST_INSERT_ID()", "CALL tells()"]);
        pair.talk.all(&["BEGIN", "CALL inserts(6)", "CALL writes(5)", "CALL results()", "SELECT LAST_INSERT_ID()"]);
        pair.free(&["COMMIT"]);
        pair.talk.all(&["SELECT LAST_INSERT_ID()", "INSERT INTO t (a) VALUES (5)", "CALL tells()", "CALL midway(5)"]);
        pair.free(&["DO 1"]);
        pair.talk.all(&["SELECT LAST_INSERT_ID()", "SELECT numbered()", "DO 1"]);
        pair.free(&["SELECT LAST_INSERT_ID(), numbered()"]);
        pair.talk.all(&["CALL tells()", "INSERT INTO t (a) VALUES (numbered())"]);
        pair.free(&["SELECT LAST_INSERT_ID(), COUNT(*) FROM t"]);
        assert_eq!(pair.other.value("SELECT LAST_INSERT_ID()"), "0");
    });
}

/// One that another session makes anew is read again sooner or later, one that the same connection makes at once.
#[test]
fn one_that_is_made_anew() {
    with_routines("my_anew", 1, |sides| {
        let mut pair = pair_of(sides);
        pair.free(&["CALL sets(1)", "DROP PROCEDURE sets", "CREATE PROCEDURE sets(x INT) SET @y = x", "CALL sets(2)"]);
        pair.free(&["SELECT @x, @y", "CALL sets(3)", "SELECT @x, @y"]);
        let mut direct = MyWire::connect(sides.server.address(), &app().database(&sides.name)).unwrap();
        direct.query("DROP PROCEDURE writes");
        direct.query("CREATE PROCEDURE writes(x INT) SET time_zone = '+05:00'");
        // The server says that something has changed which nobody knows of.
        pair.talk.proxied.query("CALL writes(1)");
        pair.talk.proxied.query("CALL writes(1)");
        assert_eq!(pair.talk.proxied.value("SELECT @@time_zone"), "+05:00");
        eventually(sides.proxy, &[("clients_pinned", 1.0)]);
    });
}

/// MariaDB's `SET STATEMENT` may make one, too.
#[test]
fn one_that_is_made_behind_a_setting() {
    with_routines("my_behind", 1, |sides| {
        let mut pair = pair_of(sides);
        pair.free(&["CALL sets(1)"]);
        let make =
            "SET STATEMENT max_statement_time = 9 FOR CREATE OR REPLACE PROCEDURE sets(x INT) DO GET_LOCK('{db}', 1)";
        pair.talk.same(make);
        if sides.server.flavour() == Flavour::MariaDb {
            pair.kept(&["CALL sets(2)"]);
        }
    });
}

/// One that is known costs nothing.
#[test]
fn it_is_read_once() {
    with_routines("my_once", 1, |sides| {
        let mut clients: Vec<MyWire> =
            (0..4).map(|_| MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap()).collect();
        let questions = || sides.proxy.metric("sluicegate_state_questions_total");
        let before = questions();
        for _ in 0..5 {
            for client in &mut clients {
                client.command(&[&[3], &b"CALL writes(5)"[..]].concat());
                client.query("SELECT doubled(a) FROM t");
                client.command(&[&[3], &b"CALL results()"[..]].concat());
            }
        }
        assert_eq!(questions() - before, 3.0);
        // What it sets is asked for behind each call.
        clients.iter_mut().for_each(|client| _ = client.command(&[&[3], &b"CALL sets(5)"[..]].concat()));
        eventually(sides.proxy, &[("clients_pinned", 0.0)]);
        assert_eq!(clients[0].value("SELECT @x"), "5");
        assert_eq!(questions() - before, 8.0);
    });
}
