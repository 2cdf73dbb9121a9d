//! Texts and what is read from them.
//!
//! A reading is written as the number of statements, then `!reason` for a pin when sent, `+reason` for one when done,
//! `-reason` for one that may end, and a word for everything else; the command last.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests fail by panicking")]

mod any;
mod spelling;

use std::fmt::Write;

use super::{Command, Dialect, End, KillKind, Statement, TEXT_BYTES_MAX, classify, classify_prefix};
use crate::protocol::PinReason;

pub(super) use any::{dialect, text};

const MYSQL: Dialect = Dialect {
    ansi_quotes: false,
    no_backslash_escapes: false,
    multibyte_unsafe: false,
    utf8: true,
    mariadb: false,
    unsure: false,
};
const MARIADB: Dialect = Dialect { mariadb: true, ..MYSQL };
const ANSI: Dialect = Dialect { ansi_quotes: true, ..MYSQL };
const NO_BACKSLASH: Dialect = Dialect { no_backslash_escapes: true, ..MYSQL };
const GBK: Dialect = Dialect { multibyte_unsafe: true, utf8: false, ..MYSQL };
const LATIN1: Dialect = Dialect { utf8: false, ..MYSQL };
const UNSURE: Dialect = Dialect { unsure: true, ..MYSQL };

fn reading(statement: Statement) -> String {
    let Statement {
        intent,
        statements,
        command,
        may_end_transaction,
        is_load_local,
        is_unknown: _,
        has_kill,
        has_xa,
        ..
    } = statement;
    let mut text = statements.to_string();
    for pin in intent.pins_when_sent.iter() {
        write!(text, " !{pin}").unwrap();
    }
    for pin in intent.pins_when_done.iter() {
        write!(text, " +{pin}").unwrap();
    }
    for pin in intent.may_end.iter() {
        write!(text, " -{pin}").unwrap();
    }
    for (is, word) in [
        (intent.asks_sequence, "asks"),
        // Code may do so, too.
        (intent.hides_last_value && !intent.asks_sequence, "hides"),
        (intent.draws_sequence, "draws"),
        (may_end_transaction, "ends"),
        (is_load_local, "local"),
        (has_kill, "kill"),
        (has_xa, "xa"),
    ] {
        if is {
            write!(text, " {word}").unwrap();
        }
    }
    if command != Command::Other {
        write!(text, " {command:?}").unwrap();
    }
    text
}

fn check_in(dialect: Dialect, table: &[(&str, &str)]) {
    for (sql, expected) in table {
        assert_eq!(reading(classify(sql.as_bytes(), dialect)), *expected, "{sql}");
    }
}

fn check(table: &[(&str, &str)]) {
    check_in(MYSQL, table);
    check_in(MARIADB, table);
}

#[test]
fn what_leaves_nothing() {
    for sql in [
        "SELECT 1",
        "select a, count(*), max(b) from t where c in (1, 2) and (d = 'x' or e like '%;%') group by a having sum(b) > 1",
        "SELECT @@version_comment LIMIT 1",
        "SELECT @@session.autocommit, @@GLOBAL.read_only, @a",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
        "SELECT * FROM `t` WHERE `a`.`b` = ? FOR UPDATE",
        "SELECT * FROM (SELECT 1) d (a, b)",
        "WITH RECURSIVE c (n) AS (SELECT 1), `d` (m) AS (SELECT 2) SELECT n FROM c",
        "SELECT IF(a, 1, REPLACE(b, 'x', 'y')), CASE WHEN a THEN COALESCE(b, NOW()) END FROM t USE INDEX (i)",
        "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) FROM t",
        "SELECT CAST(a AS CHAR(10)), CONVERT(b, DECIMAL(10,2)), INTERVAL(1, 2) FROM t",
        "SELECT * FROM t INTO OUTFILE '/tmp/x'",
        "SELECT 'a:=1', `b:=1`, \"INTO @a\" -- := ; GET_LOCK('a', 1)",
        "VALUES ROW(1, 2)",
        "SELECT * FROM t WHERE MATCH (a) AGAINST ('x' IN BOOLEAN MODE)",
        "SELECT * FROM JSON_TABLE('[]', '$[*]' COLUMNS (a INT PATH '$.a', NESTED PATH '$.b' COLUMNS (c INT PATH '$'))) j",
        "TABLE t",
        "DO SLEEP(1)",
        "SHOW TABLES",
        "DESCRIBE t",
        "EXPLAIN SELECT 1",
        "SAVEPOINT a",
        "RELEASE SAVEPOINT a",
        "SET GLOBAL max_connections = 10",
        "SET @@global.max_connections = 10",
        "SET @@global . max_connections := 10",
        "SET GLOBAL TRANSACTION READ ONLY",
        "HANDLER t READ FIRST",
        "SELECT GET_LOCK, last_insert_id, `row_count` FROM kill_list",
        "SELECT t.kill FROM t",
        "SELECT 1 /* ; KILL 5 */ # ; KILL 5",
        "SELECT 1 -- ; KILL 5",
        "SELECT 1 --",
    ] {
        check(&[(sql, "1")]);
    }
    check_in(MYSQL, &[("SET PERSIST x = 1", "1"), ("SET @@persist_only.x = 1", "1")]);
    check(&[
        ("INSERT INTO t (a, b) VALUES (1, 'x') ON DUPLICATE KEY UPDATE a = VALUES(a)", "1 draws"),
        ("INSERT INTO `d`.`t`(`a`) VALUES (?) AS `new`(`b`)", "1 draws"),
        ("INSERT IGNORE t (a) SELECT b FROM u", "1 draws"),
        ("REPLACE t(a) VALUES (1)", "1 draws"),
        ("UPDATE t SET a = 1 WHERE b = 2", "1 draws"),
        ("DELETE FROM t", "1 draws"),
        ("WITH c AS (SELECT 1) DELETE FROM t WHERE a IN (SELECT * FROM c)", "1 draws"),
        (
            "CREATE TABLE IF NOT EXISTS `t` (`a` INT(11), b varchar(10), PRIMARY KEY (a), KEY k (b), UNIQUE `u` (`b`), CONSTRAINT x FOREIGN KEY f (b) REFERENCES u (b))",
            "1 ends",
        ),
        ("CREATE TABLE t (a INT) PARTITION BY RANGE (a) (PARTITION p VALUES LESS THAN (5))", "1 ends"),
        ("CREATE INDEX i ON t (a)", "1 ends"),
        (
            "CREATE TABLE t (a INT, KEY k USING BTREE (a)) PARTITION BY LIST COLUMNS (a) SUBPARTITION BY HASH (a) (PARTITION p VALUES IN (1))",
            "1 ends",
        ),
        ("CREATE VIEW v (a) AS SELECT 1", "1 draws ends"),
        ("ALTER TABLE t ADD COLUMN (a INT), ADD UNIQUE KEY `k` (`b`)", "1 ends"),
        ("TRUNCATE t", "1 ends"),
        ("GRANT SELECT (a) ON t TO u", "1 ends"),
        ("LOAD DATA INFILE 'x' INTO TABLE t (a, b)", "1 hides draws"),
    ]);
}

#[test]
fn empty_texts() {
    for sql in ["", " ", ";", " ; ;", "-- x", "#x\n;", "/* x */", "/**/;"] {
        check(&[(sql, "0 Empty")]);
    }
    check(&[("SELECT 1;", "1"), (";;SELECT 1;;", "1"), ("SELECT 1; SELECT 2", "2 ends")]);
}

#[test]
fn settings() {
    for sql in [
        "SET x = 1",
        "SET SESSION x = 1",
        "SET LOCAL x := 1",
        "SET @@x = 1",
        "SET @@session.x = 1",
        "SET @@local.x = 1",
        "SET @@`x` = 1",
        "SET `x` = 1",
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
        "SET CHARACTER SET 'utf8mb4'",
        "SET CHARSET latin1",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION TRANSACTION READ ONLY",
        "SET GLOBAL x = 1, SESSION y = 2",
        "SET GLOBAL x = 1, y = 2",
        "SET @@global.x = (SELECT 1, 2), @@y = 2",
    ] {
        check(&[(sql, "1 !setting")]);
    }
    check(&[
        ("SET autocommit = 0", "1 !setting ends"),
        ("SET x = 1, @@SESSION.autocommit = 1", "1 !setting ends"),
        ("SET last_insert_id = 5", "1 !setting draws"),
        ("SET PASSWORD = 'x'", "1 ends"),
        ("SET DEFAULT ROLE r TO u", "1 ends"),
        ("SET RESOURCE GROUP g", "1 !server_process"),
        ("SET ROLE ALL", "1 !server_process"),
        ("SET profiling = 1", "1 !server_process"),
        ("SET sql_log_bin = 0", "1 !server_process"),
        ("SET @@session.gtid_next = 'x'", "1 !server_process"),
        ("SET pseudo_thread_id = 1", "1 !server_process"),
        ("SET SESSION AUTHORIZATION u", "1 !server_process"),
        ("SET x = f()", "1 !setting !opaque_code asks draws"),
        ("USE d", "1 +setting Use"),
        ("use `d`; SELECT 1", "2 !setting ends"),
        ("DROP DATABASE d", "1 !setting ends"),
        ("DROP SCHEMA d", "1 !setting ends"),
    ]);
    check_in(
        MARIADB,
        &[
            ("SET STATEMENT max_statement_time = 1 FOR SELECT 1", "1"),
            ("SET STATEMENT a = SUBSTRING('x' FOR 1), b = 2 FOR INSERT INTO t (a) VALUES (1)", "1 draws"),
            ("SET STATEMENT a = 1 FOR SET @a = 1", "1 !user_variable"),
            ("SET STATEMENT a = 1 FOR KILL 5", "1 ends kill"),
        ],
    );
    for (sql, changes) in [
        ("SET NAMES gbk", true),
        ("USE d", true),
        ("EXECUTE s", true),
        ("SELECT f()", true),
        ("CREATE TEMPORARY TABLE t (a INT)", true),
        ("SELECT 'a", true),
        ("SET @a = 1", false),
        ("SELECT GET_LOCK('a', 1)", false),
    ] {
        assert_eq!(classify(sql.as_bytes(), MYSQL).intent.changes_settings, changes, "{sql}");
    }
}

#[test]
fn user_variables() {
    for sql in [
        "SET @a = 1",
        "SET @'a b' = 1",
        "SET @`a` := 1",
        "SET @\"a\" = 1",
        "SET GLOBAL x = 1, @a = 2",
        "SELECT @a := 1",
        "SELECT @a:=@a+1 FROM t",
        "SELECT (@`x`:=1)",
        "SELECT 1 INTO @a",
        "SELECT 1, 2 INTO /* x */ @a, @b FROM t",
    ] {
        check(&[(sql, "1 !user_variable")]);
    }
    check(&[
        ("SET @a = 1, x = 2", "1 !setting !user_variable"),
        ("SET x = (@a := 5)", "1 !setting !user_variable"),
        ("LOAD DATA INFILE 'x' INTO TABLE t (a, @b) SET c = @b", "1 !user_variable hides draws"),
        ("GET DIAGNOSTICS @n = NUMBER", "1 !user_variable asks"),
        ("GET CURRENT DIAGNOSTICS CONDITION 1 @m = MESSAGE_TEXT", "1 !user_variable asks"),
        ("CALL p(@a)", "1 !opaque_code !user_variable asks draws ends"),
        ("EXPLAIN FORMAT = JSON INTO @a SELECT 1", "1 !user_variable"),
        ("INSERT INTO t VALUES (@a)", "1 draws"),
    ]);
}

/// What only sets them looks at none.
#[test]
fn user_variables_that_are_looked_at() {
    for (text, expected) in [
        ("SELECT @a", true),
        ("SET @a = @b", true),
        ("SET @a = 1, @b := 'x@y'", false),
        ("SET @a = (@b := 1)", false),
        ("SELECT @a := ROW_COUNT(), @b := 2", false),
        ("SELECT @a := @a + 1", true),
        ("SELECT @b := 1, @a", true),
        ("DO @a; DO 1", true),
        ("SELECT FOUND_ROWS(), 2 INTO @a, @b", false),
        ("SELECT 1 INTO @a FROM t WHERE b = @c", true),
        ("GET DIAGNOSTICS @a = ROW_COUNT", false),
        ("EXECUTE s USING @a", true),
        ("SELECT '@a', @@sql_mode", false),
        ("SELECT 1 /*! , @a */", true),
        ("CREATE PROCEDURE p() SELECT @a", false),
        ("INSERT INTO t VALUES (1, 2, 3, 4, 5, 6, 7, @a)", true),
    ] {
        assert_eq!(classify(text.as_bytes(), Dialect::default()).intent.looks_at_variables, expected, "{text}");
    }
}

#[test]
fn what_lives_on_the_connection() {
    check(&[
        ("PREPARE s FROM 'SELECT 1'", "1 !prepared_statement"),
        ("PREPARE s FROM @a", "1 !prepared_statement"),
        ("EXECUTE s USING @a", "1 !prepared_statement !opaque_code asks draws ends"),
        ("DEALLOCATE PREPARE s", "1 -prepared_statement"),
        ("DROP PREPARE s", "1 -prepared_statement"),
        ("CREATE TEMPORARY TABLE t (a INT)", "1 !temporary_object draws"),
        ("CREATE OR REPLACE TEMPORARY TABLE t (a INT)", "1 !temporary_object draws ends"),
        ("CREATE TEMPORARY TABLE t SELECT 1", "1 !temporary_object draws"),
        ("CREATE TABLE temporary (a INT)", "1 ends"),
        ("DROP TEMPORARY TABLE t", "1 -temporary_object"),
        ("DROP TABLE t", "1 -temporary_object ends"),
        ("SELECT GET_LOCK('a', 10)", "1 !session_lock"),
        ("SELECT `get_lock` /* x */ ('a', 10)", "1 !session_lock"),
        ("DO get_lock('a', 10)", "1 !session_lock"),
        ("SELECT 1e1,GET_LOCK('a',1)", "1 !session_lock"),
        ("SELECT 1e1union SELECT GET_LOCK('a',1)", "1 !session_lock"),
        ("SELECT 1.5get_lock('a',1)", "1 !session_lock"),
        ("SELECT RELEASE_LOCK('a')", "1 -session_lock"),
        ("DO RELEASE_ALL_LOCKS()", "1 -session_lock"),
        ("SELECT IS_FREE_LOCK('a'), IS_USED_LOCK('a')", "1"),
        ("SELECT service_get_write_locks('a', 'b', 1)", "1 !session_lock !opaque_code asks draws"),
        ("SELECT service_get_read_locks('a', 'b', 1)", "1 !session_lock !opaque_code asks draws"),
        ("SELECT service_release_locks('a')", "1 !opaque_code -session_lock asks draws"),
        ("LOCK TABLES t READ", "1 !session_lock ends"),
        ("UNLOCK TABLES", "1 -session_lock ends"),
        ("LOCK INSTANCE FOR BACKUP", "1 !session_lock ends"),
        ("FLUSH TABLES WITH READ LOCK", "1 !session_lock ends"),
        ("FLUSH LOCAL TABLES a, b FOR EXPORT", "1 !session_lock ends"),
        ("FLUSH TABLES", "1 ends"),
        ("FLUSH PRIVILEGES", "1 ends"),
        ("BACKUP STAGE START", "1 !session_lock ends"),
        ("BACKUP STAGE END", "1 -session_lock ends"),
        ("BACKUP LOCK t", "1 !session_lock ends"),
        ("BACKUP UNLOCK", "1 -session_lock ends"),
        ("HANDLER t OPEN AS h", "1 !held_cursor"),
        ("HANDLER h CLOSE", "1 -held_cursor"),
    ]);
    check_in(MARIADB, &[("CREATE TEMPORARY SEQUENCE s", "1 !temporary_object draws")]);
}

#[test]
fn code_that_cannot_be_seen() {
    for sql in [
        "SELECT f()",
        "SELECT f (1)",
        "SELECT `f`(1)",
        "SELECT d.f(1)",
        "SELECT `d`.`now`()",
        "SELECT d . now ()",
        "SELECT d.1now()",
        "DO f()",
        "SELECT 1 FROM t JOIN u ON f(1)",
        "SELECT (1), f(2)",
        "SELECT \u{e9}(1)",
    ] {
        check(&[(sql, "1 !opaque_code asks draws")]);
    }
    check(&[
        ("CALL p()", "1 !opaque_code asks draws ends"),
        ("CALL p", "1 !opaque_code asks draws ends"),
        ("INSERT INTO t (a) VALUES (f(1))", "1 !opaque_code asks draws"),
        ("SELECT HIGH_PRIORITY f(1)", "1 !opaque_code asks draws"),
        ("CREATE TABLE t AS SELECT 1 FROM u JOIN v ON f(1)", "1 !opaque_code asks draws ends"),
        ("CREATE TABLE t AS SELECT f(1)", "1 !opaque_code asks draws ends"),
    ]);
    // What is not known to be a statement leaves nothing if it fails.
    check_in(MYSQL, &[("SELEC 1", "1 +opaque_code ends"), ("BINLOG 'x'", "1 +opaque_code ends")]);
    check_in(MARIADB, &[("p", "1 !opaque_code asks draws ends"), ("DECLARE a INT", "1 !opaque_code asks draws ends")]);
    for sql in
        ["BEGIN NOT ATOMIC SET @a = 1; END", "IF 1 THEN KILL 5; END IF", "x: LOOP LEAVE x; END LOOP", "WHILE 1 DO"]
    {
        let found = classify(sql.as_bytes(), MARIADB);
        assert!(found.intent.pins_when_sent.contains(PinReason::OpaqueCode) && found.may_end_transaction, "{sql}");
        assert_eq!(found.has_kill, sql.contains("KILL"), "{sql}");
    }
}

/// A name means the server's own function only where nobody's stored one of that name can be meant.
#[test]
fn names_that_may_be_somebodys() {
    let is_code = |sql: &str, dialect: Dialect| {
        let pins = classify(sql.as_bytes(), dialect).intent.pins_when_sent;
        assert_eq!(pins.iter().filter(|pin| *pin != PinReason::OpaqueCode).count(), 0, "{sql}");
        pins.contains(PinReason::OpaqueCode)
    };
    for (sql, [mysql, mariadb]) in [
        // With a blank in between it is no name of the parser's.
        ("SELECT COUNT(*), MAX(a) FROM t", [false, false]),
        ("SELECT count (1)", [true, true]),
        ("SELECT MID/**/('a', 1, 1)", [true, true]),
        ("SELECT trim\n('a')", [true, true]),
        ("SELECT now --\n()", [true, true]),
        ("SELECT 1 FROM t HAVING sum (a) > 1", [true, true]),
        ("SELECT RANK () OVER (ORDER BY a) FROM t", [false, true]),
        ("SELECT SYSDATE ()", [true, false]),
        ("SELECT ABS (1), IF (1, 2, 3), CONCAT ('a'), `a` IN (1)", [false, false]),
        // Not on every server.
        ("SELECT MD5('a')", [true, false]),
        ("SELECT sha (1), SHA1('a')", [true, false]),
        ("SELECT mysql_query_attribute_string('a')", [true, true]),
        ("SELECT UUID_v7()", [true, true]),
        ("SELECT kdf(1, 2, 3)", [true, true]),
        ("SELECT VEC_FromText('a')", [true, true]),
        ("SELECT json_key_value(1)", [true, true]),
        ("SELECT JSON_SCHEMA_VALID('{}', '{}')", [false, true]),
        ("SELECT trt_trx_sees(1, 2)", [true, true]),
        ("SELECT 1, sql_no_cache(1), sql_buffer_result(1)", [false, true]),
        ("SELECT sql_cache(1)", [true, true]),
        ("SELECT until(1), calm_f(2)", [true, true]),
        ("SELECT elseif(1)", [false, true]),
        // By what stands in the parentheses, or before them.
        ("SELECT Polygon(a), GeometryCollection(b), LINESTRING(a, b)", [false, false]),
        ("SELECT polygon()", [false, true]),
        ("SELECT multipoint /**/ ( )", [false, true]),
        ("SELECT linestring(polygon())", [false, true]),
        ("SELECT geometrycollection(), 1", [false, true]),
        ("SELECT POINT(1, 2)", [false, true]),
        ("SELECT json_table(1)", [false, true]),
        ("SELECT EXTRACT(YEAR FROM json_table(1))", [false, true]),
        ("SELECT 1 FROM t, json_table(1)", [false, true]),
        ("SELECT * FROM t JOIN JSON_TABLE('[]', '$[*]' COLUMNS (a INT PATH '$.a')) j", [false, false]),
        // Words of definitions, behind these.
        (
            "CREATE TABLE t (a INT, b VECTOR(3), KEY k USING BTREE (a)) PARTITION BY LIST COLUMNS (a) (PARTITION p VALUES IN (1))",
            [false, false],
        ),
        (
            "CREATE TABLE t (a INT) PARTITION BY RANGE (a) (PARTITION p VALUES LESS THAN (5), PARTITION q VALUES LESS THAN (9))",
            [false, false],
        ),
        ("CREATE TABLE t AS SELECT event(1)", [false, true]),
        ("CREATE TABLE t AS SELECT hidden(1), include(2)", [true, true]),
        ("CREATE TABLE t (a INT) VALUES ROW(cluster(1))", [true, true]),
        ("CREATE TABLE t VALUES (minus(1))", [true, true]),
        ("CREATE TABLE t TABLE u ORDER BY hidden(1)", [true, true]),
        ("CREATE TABLE t AS WITH c AS (VALUES (previous(1))) SELECT * FROM c", [true, true]),
        ("CREATE VIEW v AS SELECT lists(1)", [true, true]),
        ("CREATE EVENT e ON SCHEDULE AT hidden(1) DO SELECT 1", [true, true]),
        (
            "CREATE TABLE t (a INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME INTERVAL hidden(1) DAY PARTITIONS 3",
            [true, true],
        ),
        ("CREATE TABLE t (a TIMESTAMP(6), PERIOD FOR SYSTEM_TIME(a, b), c INT, KEY k USING BTREE (c))", [false, false]),
    ] {
        assert_eq!([MYSQL, MARIADB].map(|dialect| is_code(sql, dialect)), [mysql, mariadb], "{sql}");
    }
}

#[test]
fn last_values() {
    for sql in [
        "SELECT LAST_INSERT_ID()",
        "SELECT last_insert_id /* x */ ( )",
        "SELECT ROW_COUNT(), FOUND_ROWS()",
        "SELECT @@identity",
        "SELECT @@identìty",
        "SELECT @@session.last_insert_id",
        "SELECT @@`warning_count`",
        "SELECT @@local . error_count",
        "SHOW WARNINGS LIMIT 1",
        "SHOW ERRORS",
        "SHOW COUNT(*) WARNINGS",
        "SHOW COUNT(*) ERRORS",
        "GET DIAGNOSTICS x = NUMBER",
        "SELECT PREVIOUS VALUE FOR s",
    ] {
        check(&[(sql, "1 asks")]);
    }
    check(&[("SELECT SQL_CALC_FOUND_ROWS * FROM t", "1 draws"), ("SELECT LAST_INSERT_ID(5)", "1 hides draws")]);
    check(&[("INSERT INTO t VALUES (1) RETURNING a", "1 hides draws"), ("DO last_insert_id(a + 1)", "1 hides draws")]);
    // What a sequence has given stays on the connection.
    for sql in ["SELECT NEXT VALUE FOR s", "SELECT s.nextval"] {
        check(&[(sql, "1 !setting draws")]);
    }
    check_in(MARIADB, &[("SELECT LASTVAL(s)", "1 asks"), ("SELECT NEXTVAL(s), SETVAL(s, 5)", "1 !setting draws")]);
    // Not MySQL's own.
    check_in(MYSQL, &[("SELECT nextval('s')", "1 !opaque_code asks draws")]);
    check(&[("INSERT INTO t VALUES (LAST_INSERT_ID())", "1 asks draws"), ("SELECT s.currval", "1 asks")]);
}

#[test]
fn transactions() {
    let chain = "Commit(End { chain: true, release: false })";
    check(&[
        ("BEGIN", "1 ends Begin"),
        ("begin work", "1 ends Begin"),
        ("START TRANSACTION READ ONLY", "1 ends Begin"),
        ("/*!40000 BEGIN */", "1 ends Begin"),
        ("COMMIT AND CHAIN", &format!("1 ends {chain}")),
        ("START REPLICA", "1 ends"),
        ("XA START 'x'", "1 ends xa"),
        ("XA COMMIT 'x'", "1 ends xa"),
        ("BEGIN; SELECT 1", "2 ends"),
        ("ALTER TABLE t RENAME u", "1 ends"),
        ("LOAD INDEX INTO CACHE t", "1 draws ends"),
        ("ROLLBACK TO a", "1 RollbackTo"),
        ("ROLLBACK WORK TO SAVEPOINT a", "1 RollbackTo"),
    ]);
    for (sql, expected) in [
        ("COMMIT", Command::Commit(End::default())),
        ("COMMIT WORK AND NO CHAIN NO RELEASE", Command::Commit(End::default())),
        ("COMMIT RELEASE", Command::Commit(End { chain: false, release: true })),
        ("ROLLBACK", Command::Rollback(End::default())),
        ("ROLLBACK WORK AND CHAIN", Command::Rollback(End { chain: true, release: false })),
        ("ROLLBACK AND NO CHAIN RELEASE", Command::Rollback(End { chain: false, release: true })),
    ] {
        let found = classify(sql.as_bytes(), MYSQL);
        assert_eq!((found.command, found.may_end_transaction), (expected, true), "{sql}");
    }
}

#[test]
fn kills() {
    let kill = |kind, id| Command::Kill { kind, id };
    use KillKind::{Connection, Other, Query};
    for (sql, expected) in [
        ("KILL 5", kill(Connection, Some(5))),
        ("kill connection 5;", kill(Connection, Some(5))),
        ("/* x */ KILL -- x\n QUERY # y\n 18446744073709551615", kill(Query, Some(u64::MAX))),
        ("KILL QUERY 18446744073709551616", kill(Query, None)),
        ("KILL 5.0", kill(Connection, None)),
        ("KILL 5e1", kill(Connection, None)),
        ("KILL 0x5", kill(Connection, None)),
        ("KILL 5 + 1", kill(Connection, None)),
        ("KILL (5)", kill(Connection, None)),
        ("KILL @a", kill(Connection, None)),
        ("KILL ?", kill(Connection, None)),
        ("KILL QUERY CONNECTION_ID()", kill(Query, None)),
        ("KILL HARD 5", kill(Other, None)),
        ("KILL SOFT QUERY 5", kill(Other, None)),
        ("KILL USER u", kill(Other, None)),
        ("KILL HARD CONNECTION USER u", kill(Other, None)),
        ("KILL QUERY ID 5", kill(Other, None)),
        ("/*! KILL */ 5", kill(Connection, Some(5))),
        ("KILL /*!50000 QUERY */ 5", kill(Query, Some(5))),
        ("/*!50699KILL 5*/", kill(Connection, Some(5))),
        // Old servers do, others don't.
        ("/*!90000 KILL 5 */", Command::Other),
        ("KILL /*!90000 QUERY */ 5", Command::Other),
        ("SELECT 1; KILL 5", Command::Other),
        ("KILL 5; KILL 6", Command::Other),
        ("SELECT 1 /*!50000 ; KILL 5 */", Command::Other),
    ] {
        let found = classify(sql.as_bytes(), MYSQL);
        assert_eq!((found.command, found.has_kill), (expected, true), "{sql}");
        assert!(found.may_end_transaction, "{sql}");
    }
    // Several comments, of which each server runs others.
    for sql in ["/*!90000 SELECT */ /*!80000 KILL */ 5", "/*!99999 '*/ /*!80000 KILL 5 */ /*!99999 '*/"] {
        assert!(classify(sql.as_bytes(), MYSQL).has_kill, "{sql}");
    }
    let plain = [
        "SELECT 'x; KILL 5'",
        "SELECT `KILL`",
        "SELECT '/*! KILL 5 */'",
        "/*M! KILL 5 */",
        "SELECT \"'\\\"; KILL 5 ;'\"",
    ];
    for sql in plain {
        assert!(!classify(sql.as_bytes(), MYSQL).has_kill, "{sql}");
    }
    for (sql, expected) in [
        ("/*M! KILL 5 */", kill(Connection, Some(5))),
        ("/*M!100100 KILL 5 */", Command::Other),
        ("/*!100100 KILL 5 */", Command::Other),
    ] {
        let found = classify(sql.as_bytes(), MARIADB);
        assert_eq!((found.command, found.has_kill), (expected, true), "{sql}");
    }
    assert_eq!(classify(b"/*!80000 KILL 5 */", MARIADB).command, Command::Empty);
}

#[test]
fn local_files() {
    check(&[
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "1 hides draws local"),
        ("load data low_priority local infile 'x' into table t (a, b)", "1 hides draws local"),
        ("LOAD XML CONCURRENT LOCAL INFILE 'x' INTO TABLE t", "1 hides draws local"),
        ("SELECT 1; LOAD DATA /*! LOCAL */ INFILE 'x' INTO TABLE t", "2 hides draws ends local"),
        ("LOAD DATA /*!50000 LOCAL */ INFILE 'x' INTO TABLE t", "1 hides draws local"),
    ]);
}

#[test]
fn routines() {
    for sql in [
        "CREATE PROCEDURE p() BEGIN SET @a = 1; KILL 5; END",
        "CREATE DEFINER=`u`@`h` PROCEDURE p(IN a INT) SQL SECURITY INVOKER BEGIN IF a THEN SELECT f(); END IF; END;",
        "/*!50003 CREATE*/ /*!50017 DEFINER=`u`@`h`*/ /*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET NEW.a = 1; SET @b = 2; END */",
        "CREATE TRIGGER t AFTER UPDATE ON x FOR EACH ROW SET @a = IF(NEW.a, 1, 2)",
        "CREATE FUNCTION IF NOT EXISTS f(a INT) RETURNS INT DETERMINISTIC RETURN IF(a, g(1), CASE a WHEN 1 THEN 2 END)",
        "CREATE FUNCTION f(a INT) RETURNS INT BEGIN CASE a WHEN 1 THEN RETURN 2; ELSE BEGIN END; END CASE; RETURN CASE WHEN a THEN IF(a, 1, 2) END; END",
        "CREATE PROCEDURE p() BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; END; l: LOOP LEAVE l; END LOOP l; WHILE 1 DO SELECT 1; END WHILE; REPEAT SELECT 1; UNTIL 1 END REPEAT; END",
        "CREATE PROCEDURE p() IF NOT EXISTS (SELECT 1) THEN SELECT 1; ELSEIF 1 THEN SELECT 2; END IF",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM t; CALL p(); END",
        "ALTER EVENT e DO BEGIN SELECT 1; SELECT 2; END",
    ] {
        check(&[(sql, "1 ends"), (&format!("{sql}; KILL 5"), "2 ends kill")]);
    }
    check(&[
        ("CREATE EVENT e ON SCHEDULE AT f() DO SELECT g()", "1 !opaque_code asks draws ends"),
        ("DROP PROCEDURE p; KILL 5", "2 -temporary_object ends kill"),
        ("CREATE TABLE event (a INT); KILL 5", "2 ends kill"),
        // Read as if it ended early.
        ("CREATE PROCEDURE p() BEGIN SELECT end FROM t; SET @a = 1; END", "3 !opaque_code !user_variable ends"),
    ]);
}
