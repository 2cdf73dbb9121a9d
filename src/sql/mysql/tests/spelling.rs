//! How texts are spelled: comments, quotes, brackets, their bytes; and what cannot be told without knowing more.

use super::*;

/// They quote names in `MSSQL`, a mode of MariaDB's, and mean nothing in any other.
#[test]
fn brackets() {
    for (sql, mysql, mariadb) in [
        ("SELECT 1 AS ['], GET_LOCK('a', 1), 2 AS [']", "1", "1 !unreadable asks draws ends"),
        ("SELECT 1 AS [a]", "1", "1 !unreadable asks draws ends"),
        ("SELECT @[", "1", "1 !unreadable asks draws ends"),
        ("SELECT '[', \"[\", `[`, @'[' /* [ */ -- [", "1", "1"),
        ("SELECT a->'$[0]' FROM t", "1", "1"),
    ] {
        assert_eq!(reading(classify(sql.as_bytes(), MYSQL)), mysql, "{sql}");
        assert_eq!(reading(classify(sql.as_bytes(), MARIADB)), mariadb, "{sql}");
    }
}

#[test]
fn executable_comments() {
    check(&[
        ("/*!40101 SET NAMES utf8 */", "1 !setting"),
        ("/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;", "1 !setting !user_variable"),
        ("SELECT /*! GET_LOCK('a',1) */", "1 !session_lock"),
        ("SELECT 1 /*!50000 INTO @a */", "1 !user_variable"),
        ("SELECT 1 /*!50000 + /* x */ 1 INTO @a */", "1 !user_variable"),
        ("SELECT 1 /*!1234 INTO @a */", "1 !user_variable"),
        ("SELECT '/*!' INTO @a # */", "1 !user_variable"),
        ("/*!50001 SELECT 1", "1 !unreadable asks draws ends"),
        ("SELECT 5*/2", "1"),
        ("/*! SELECT 5*/2", "1"),
    ]);
    check_in(
        MYSQL,
        &[
            ("/*!80000 SET x = 1 */", "1 !setting"),
            ("/*!080000 SET x = 1 */", "1 !setting"),
            ("SELECT 1 /*!80000 INTO @a */", "1 !user_variable"),
            ("SELECT 1 /*!999999 INTO @a */", "1 !user_variable"),
            ("SELECT 1 /*M! INTO @a */", "1"),
            // A comment in one that does not run.
            ("SELECT 1 /*!99999 /* x */ INTO @a */", "1 !user_variable"),
            ("/*!80000 BEGIN */", "1 ends"),
        ],
    );
    check_in(
        MARIADB,
        &[
            ("/*!80000 SET x = 1 */", "0 Empty"),
            ("SELECT 1 /*!100100 INTO @a */", "1 !user_variable"),
            ("SELECT 1 /*M!100100 INTO @a */", "1 !user_variable"),
            ("SELECT 1 /*M!50701 INTO @a */", "1 !user_variable"),
            ("SELECT 1 /*m! INTO @a */", "1"),
        ],
    );
    let many: String = (0..20).map(|version| format!("/*!8{version:04} */ ")).collect();
    check_in(MYSQL, &[(&format!("SELECT 1 {many}"), "1 !unreadable asks draws ends")]);
}

#[test]
fn comments_and_quotes() {
    let lock = "1 !session_lock";
    let unreadable = "1 !unreadable asks draws ends";
    check(&[
        ("SELECT 1 --GET_LOCK('a',1)", lock),
        ("SELECT 1--\tGET_LOCK('a',1)", "1"),
        ("SELECT 1--\u{1}GET_LOCK('a',1)", "1"),
        ("SELECT 1 #\n, GET_LOCK('a',1)", lock),
        ("SELECT 1 #\r, GET_LOCK('a',1)", "1"),
        ("SELECT /* /* */ GET_LOCK('a',1)", lock),
        ("SELECT /*/ GET_LOCK('a',1) */ 1", "1"),
        ("SELECT /* x", unreadable),
        ("SELECT 'x", unreadable),
        ("SELECT `x", unreadable),
        ("SELECT \"x", unreadable),
        ("SELECT 'x\\'", unreadable),
        ("SELECT @'x", unreadable),
        ("SELECT 'it''s', GET_LOCK('a',1)", lock),
        ("SELECT 'it\\'s', GET_LOCK('a',1)", lock),
        ("SELECT 'it\\', GET_LOCK('", "1"),
        ("SELECT `a``b`, GET_LOCK('a',1)", lock),
        ("SELECT `a\\`, GET_LOCK('a',1)", lock),
        ("SELECT \"a\"\"b\", GET_LOCK('a',1)", lock),
        ("SELECT \"a\\\", GET_LOCK(\"", "1"),
        ("SELECT x'4D', 0x1F, b'01', N'x', _utf8'x', _binary x'4D'", "1"),
        ("SELECT /*+ MAX_EXECUTION_TIME(1000) */ 1", "1"),
        ("SELECT /*+ QB_NAME(`*/`) */ 1", unreadable),
        ("SELECT 1 -- x\0\n", unreadable),
        ("SELECT \0", unreadable),
        ("SELECT '\0'", "1"),
    ]);
    check_in(
        NO_BACKSLASH,
        &[
            ("SELECT 'a\\', GET_LOCK('a',1)", lock),
            ("SELECT \"a\\\", GET_LOCK('a',1)", lock),
            ("SELECT 'a\\''", unreadable),
        ],
    );
    check_in(
        ANSI,
        &[
            ("SELECT \"a\\\", GET_LOCK('a',1)", lock),
            ("SELECT \"get_lock\"('a',1)", lock),
            ("SELECT 'a\\', GET_LOCK('", "1"),
            ("INSERT INTO \"t\" (\"a\") VALUES (1)", "1 draws"),
        ],
    );
    check_in(MYSQL, &[("SELECT \"get_lock\"('a',1)", "1")]);
}

#[test]
fn dollar_quotes() {
    // A string for some of MySQL's versions, names for others: both count.
    check_in(
        MYSQL,
        &[
            ("SELECT $$ ; KILL 5; $$", "3 !opaque_code ends kill"),
            ("CREATE FUNCTION f() RETURNS INT LANGUAGE JAVASCRIPT AS $x$ return ';' $x$", "1 ends"),
            ("SELECT $$ ' $$, GET_LOCK('a', 1) -- '", "1 !session_lock"),
            ("SELECT $a, a$b FROM $t", "1"),
            // With this MySQL's own command line asks which of both it is.
            ("select $$", "1"),
            ("SELECT $$ ; KILL 5", "2 ends kill"),
        ],
    );
    check_in(MARIADB, &[("SELECT $$, GET_LOCK('a', 1), $$", "1 !session_lock"), ("SELECT $$", "1")]);
}

#[test]
fn what_depends_on_what_is_not_known() {
    let unreadable = |sql: &[u8], dialect| classify(sql, dialect).intent.pins_when_sent.contains(PinReason::Unreadable);
    // A byte that takes the quote's backslash with it.
    assert!(unreadable(b"SELECT '\x81\\'", GBK));
    assert!(unreadable(b"SELECT `\x81`", GBK));
    assert!(!unreadable(b"SELECT 'a\\'' /* \x81\\ */ -- \x81", GBK));
    for sql in ["SELECT 'a\\''", "SELECT \"a\"", "SELECT '\u{e9}'"] {
        assert!(unreadable(sql.as_bytes(), UNSURE) && !unreadable(sql.as_bytes(), MYSQL), "{sql}");
    }
    assert!(!unreadable(b"SELECT 'a' -- \"", UNSURE));
    // 0xA0 is a blank in latin1, 0xFF in cp852.
    for sql in [&b"KILL\xa05"[..], b"SELECT 1--\xa0x", b"SELECT @a\xa0", b"KILL\xff5", b"SELECT 1 INTO\xff@a"] {
        assert!(unreadable(sql, LATIN1), "{sql:?}");
    }
    assert!(!unreadable(b"SELECT '\xa0'", LATIN1) && !unreadable("SELECT 1 AS \u{e0}".as_bytes(), MYSQL));
}

#[test]
fn long_texts() {
    let long = format!("INSERT INTO t VALUES ('{}')", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(reading(classify(long.as_bytes(), MYSQL)), "1 !unreadable asks draws ends");
    let fits = format!("SELECT '{}'", "x".repeat(TEXT_BYTES_MAX - 9));
    assert_eq!(reading(classify(fits.as_bytes(), MYSQL)), "1");
    assert_eq!(reading(classify_prefix(b"KILL 5", MYSQL)), "1 !unreadable asks draws ends kill");
}
