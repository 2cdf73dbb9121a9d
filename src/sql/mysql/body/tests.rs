//! Definitions, and what they leave.

use super::super::calls::RoutineKind::{Function, Procedure};
use super::*;

const MODES: &[u8] = b"ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES";

/// What a procedure with this body leaves: `-` nothing, `wild`, names of variables, `p:` and `f:` of what it calls.
fn told(body: &str, modes: &[u8], mariadb: bool) -> String {
    let text = format!(
        "CREATE DEFINER=`a@b`@`%` PROCEDURE `p`(IN a INT, out `b c` DECIMAL(10,2), INOUT d SET('x','y'))\n{body}"
    );
    let Some(calm) = read(Procedure, text.as_bytes(), modes, mariadb) else { return "wild".to_owned() };
    let routine = |routine: &Routine| {
        let kind = if routine.kind == Procedure { "p" } else { "f" };
        let schema = routine.schema.iter().map(|schema| format!("{schema}.")).collect::<String>();
        format!("{kind}:{schema}{}", routine.name)
    };
    let mut all = calm.variables.clone();
    all.extend(calm.routines.iter().map(routine));
    let flags =
        [(calm.asks_id, "asks_id"), (calm.asks, "asks"), (calm.makes_id, "makes_id"), (calm.sets_id, "sets_id")];
    all.extend(flags.iter().filter(|(is_so, _)| *is_so).map(|(_, name)| (*name).to_owned()));
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

#[test]
fn calm_ones() {
    for (body, expected) in [
        ("SELECT 1", "-"),
        ("COMMENT 'x; SET y = 1' LANGUAGE SQL NOT DETERMINISTIC SQL SECURITY INVOKER BEGIN END", "-"),
        (
            "BEGIN INSERT INTO t (a, b) VALUES (a, NOW()), (2, 'KILL'); UPDATE t SET x = 1, y = (SELECT 2); END",
            "makes_id",
        ),
        ("BEGIN INSERT INTO t SET x = 1; DELETE FROM t WHERE t.role = 1; REPLACE t (a) VALUES (1); END", "makes_id"),
        ("BEGIN SELECT REPLACE('a', 'b', 'c'), INSERT('a', 1, 1, 'b'); END", "-"),
        (
            "BEGIN DECLARE x, y INT DEFAULT (1 + 2); DECLARE z VARCHAR(9) CHARACTER SET latin1; SET x = 1, Y := GREATEST(1, 2), `z` = 'a'; END",
            "-",
        ),
        ("l: BEGIN SET a = 1, `b c` = 2, d = 'x'; END l", "-"),
        ("SET @A = 1, @b.c = 2", "@a @b.c"),
        ("BEGIN SELECT 1, 2 INTO @a, @'b'; SELECT @c := 1; CALL q(@d); END", "@a @b @c @d p:q"),
        ("BEGIN CALL q; CALL d.r(f(1)); SELECT d.g(1) FROM t WHERE EXISTS (SELECT 1); END", "p:q p:d.r f:f f:d.g"),
        (
            "BEGIN DECLARE done INT DEFAULT 0; DECLARE c CURSOR FOR SELECT 1; DECLARE CONTINUE HANDLER FOR NOT FOUND SET done = 1; OPEN c; l: LOOP FETCH c INTO a; IF done THEN LEAVE l; END IF; END LOOP; CLOSE c; END",
            "-",
        ),
        (
            "BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END; START TRANSACTION; SAVEPOINT s; RELEASE SAVEPOINT s; COMMIT; END",
            "-",
        ),
        ("BEGIN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'x', MYSQL_ERRNO = 5; END", "-"),
        ("IF a THEN UPDATE t SET time_zone = 1; ELSE SELECT 1 FROM t FOR UPDATE; END IF", "-"),
        ("SELECT 1 FROM t LOCK IN SHARE MODE", "-"),
        ("BEGIN TRUNCATE t; CREATE TABLE IF NOT EXISTS u (a INT, KEY k (a)); END", "makes_id"),
        ("SELECT LAST_INSERT_ID() INTO a", "asks_id"),
        ("UPDATE t SET a = LAST_INSERT_ID(a + 1)", "sets_id"),
        ("SELECT ROW_COUNT(), @@identity INTO a, a", "asks"),
        ("SELECT 'é', \"ö\" -- ü\n", "-"),
        ("WHILE (a) DO SET a = a - 1; END WHILE", "-"),
        ("REPEAT SET a = a - 1; UNTIL (a) END REPEAT", "-"),
        ("CASE a WHEN 1 THEN SET a = 2; ELSE BEGIN END; END CASE", "-"),
        ("IF (a) THEN SET a = 1; ELSEIF (d) THEN SET a = 2; END IF", "-"),
        ("REPEAT SET a = until(1); UNTIL (a) OR until (2) END REPEAT", "f:until"),
        ("SELECT COUNT(*), COUNT (1) INTO a, a", "f:count"),
    ] {
        assert_eq!(told(body, MODES, true), expected, "{body}");
        assert_eq!(told(body, MODES, false), expected, "{body}");
    }
}

#[test]
fn wild_ones() {
    for body in [
        "SELECT GET_LOCK('a', 1)",
        "DO `release_lock`('a')",
        "DO RELEASE_ALL_LOCKS()",
        "SET time_zone = '+01:00'",
        "SET SESSION time_zone = '+01:00'",
        "SET a = 1, time_zone = '+01:00'",
        "SET a = (1, 2), time_zone = '+01:00'",
        "SET @@sql_mode = ''",
        "SET NAMES latin1",
        "SET GLOBAL x = 1",
        "SET TRANSACTION READ ONLY",
        "SET ROLE NONE",
        "SET PASSWORD = 'x'",
        "SET STATEMENT sql_mode = '' FOR SELECT 1",
        "SET a.b = 1",
        "IF a THEN SET time_zone = 1; END IF",
        "BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION SET time_zone = 1; END",
        "SELECT CASE WHEN 1 THEN 2 ELSE 3 END; SET time_zone = 1",
        // A block of its own does not declare it for all.
        "BEGIN BEGIN DECLARE time_zone INT; END; SET time_zone = 1; END",
        "IF a THEN BEGIN DECLARE time_zone INT; END; END IF; SET time_zone = 1",
        "BEGIN DECLARE time_zone CONDITION FOR 1; SET time_zone = 1; END",
        "BEGIN DECLARE c CURSOR FOR SELECT 1; DECLARE time_zone INT; SET time_zone = 1; END",
        "BEGIN PREPARE s FROM @a; END",
        "EXECUTE IMMEDIATE 'SELECT 1'",
        "DEALLOCATE PREPARE s",
        "CREATE TEMPORARY TABLE t (a INT)",
        "CREATE DATABASE x",
        "DROP TABLE t",
        "ALTER TABLE t RENAME u",
        "RENAME TABLE t TO u",
        "FLUSH TABLES",
        "FLUSH TABLES WITH READ LOCK",
        "BACKUP STAGE START",
        "LOCK TABLES t READ",
        "UNLOCK TABLES",
        "XA START 'a'",
        "KILL 5",
        "HANDLER t OPEN",
        "COMMIT RELEASE",
        "GRANT r TO u",
        "START SLAVE",
        "SELECT NEXT VALUE FOR s",
        "SELECT s.nextval",
        "SELECT 1; something_new",
        "BEGIN something_new; END",
        "SELECT /*! 1 */ 1",
        "SELECT 'x",
        "SELECT `x",
        "SELECT 1 /* x",
        "SELECT é",
        "SET @é = 1",
        "SELECT get_lock?(1)",
        "SELECT ?abs(1)",
        "SELECT 1 INTO @`a b`",
        "CALL a.b.c()",
        "LANGUAGE JAVASCRIPT AS $$ x $$",
        "BEGIN SELECT 'a\\'; SET time_zone = 1; -- ';\n END",
    ] {
        let expected = if body.starts_with("BEGIN SELECT 'a\\'") { "-" } else { "wild" };
        assert_eq!(told(body, MODES, true), expected, "{body}");
    }
    // In MySQL these are functions of users.
    assert_eq!(told("SELECT NEXTVAL(s)", MODES, true), "wild");
}

#[test]
fn modes() {
    let quoted = "BEGIN SELECT 'a\\'; SET time_zone = 1; -- ';\n END";
    assert_eq!(told(quoted, b"NO_BACKSLASH_ESCAPES", false), "wild");
    let names = "BEGIN SELECT \"'\"; SET time_zone = 1; SELECT \"'\"; END";
    assert_eq!(told(names, b"ANSI_QUOTES", false), "wild");
    assert_eq!(told("SELECT \"x\"('1')", b"ansi_quotes", false), "wild");
    assert_eq!(told("SELECT 1", b"PIPES_AS_CONCAT,ORACLE", true), "wild");
    for mssql in ["BEGIN SELECT 1 AS ['], GET_LOCK('a', 1), 2 AS [']; END", "SELECT 1"] {
        assert_eq!(told(mssql, b"PIPES_AS_CONCAT,ANSI_QUOTES,IGNORE_SPACE,MSSQL", true), "wild");
    }
}

#[test]
fn headers() {
    let is_calm = |kind, text: &str| read(kind, text.as_bytes(), MODES, true).is_some();
    assert!(is_calm(
        Function,
        "CREATE DEFINER=`a`@`b` FUNCTION `f`(a INT) RETURNS varchar(20) CHARSET latin1\nRETURN a"
    ));
    assert!(is_calm(Function, "CREATE DEFINER=`r` FUNCTION `f`() RETURNS INT(1)\nBEGIN SET @a = 1; RETURN 1; END"));
    for (kind, text) in [
        (Procedure, "CREATE FUNCTION f() RETURNS INT RETURN 1"),
        (Function, "CREATE AGGREGATE FUNCTION f() RETURNS INT RETURN 1"),
        (Function, "CREATE FUNCTION f RETURNS INT SONAME 'x'"),
        (Function, "CREATE FUNCTION \"f\"() RETURNS INT RETURN 1"),
        (Procedure, "CREATE PROCEDURE p(a INT"),
        (Procedure, "CREATE PROCEDURE p(a INT DEFAULT f(1)) SELECT 1"),
        (Procedure, "ALTER PROCEDURE p() SELECT 1"),
        (Procedure, ""),
        (Procedure, "\0C\0R"),
    ] {
        assert!(!is_calm(kind, text), "{text}");
    }
    let long = format!("CREATE PROCEDURE p() SELECT '{}'", "x".repeat(BYTES_MAX));
    assert!(!is_calm(Procedure, &long));
}

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "[ -~]{0,60}", modes in "[A-Z_,]{0,9}") {
        let text = format!("CREATE PROCEDURE p(a INT) BEGIN DECLARE b INT; SET {text}");
        read(Procedure, text.as_bytes(), modes.as_bytes(), true);
        super::super::calls::calls(text.as_bytes(), Dialect::default());
    }
}
