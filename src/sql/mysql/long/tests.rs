//! Texts in pieces, beside the same texts as they are read whole.

use super::super::tests::{dialect, text};
use super::super::{Command, KillKind, read_all_ways};
use super::*;
use crate::protocol::PinReason;
use proptest::prelude::*;

const PLAIN: Dialect = Dialect {
    ansi_quotes: false,
    no_backslash_escapes: false,
    multibyte_unsafe: false,
    utf8: true,
    mariadb: false,
    unsure: false,
};

fn whole(sql: &[u8], dialect: Dialect) -> Statement {
    let [one, other] = [false, true].map(|ansi_quotes| read_all_ways(sql, Dialect { ansi_quotes, ..dialect }));
    if sql.contains(&b'"') { one.or(other) } else { one }
}

fn in_pieces(sql: &[u8], dialect: Dialect, cuts: &[usize]) -> Statement {
    let mut long = Long::new(dialect);
    let (mut rest, mut cuts) = (sql, cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = (1 + cuts.next().copied().unwrap_or(0)).min(rest.len());
        let (piece, behind) = rest.split_at(cut);
        long.read(piece);
        assert!(long.readers().all(|reader| reader.carry.len() <= CARRY_MAX));
        rest = behind;
    }
    long.finish()
}

fn is_unreadable(statement: &Statement) -> bool {
    statement.intent.pins_when_sent.contains(PinReason::Unreadable)
}

/// It reads as it does whole, or, if it `may` be, not at all.
fn check(sql: &[u8], dialect: Dialect, cuts: &[usize], may_be_unreadable: bool) {
    let (found, whole) = (in_pieces(sql, dialect, cuts), whole(sql, dialect));
    if is_unreadable(&found) && (is_unreadable(&whole) || may_be_unreadable) {
        assert!(found.may_end_transaction && found.command == Command::Other);
        assert!(found.intent.asks_sequence && found.intent.draws_sequence && found.intent.changes_settings);
    } else {
        assert_eq!(
            found,
            Statement { written: Written::ANY, ..whole },
            "{} {cuts:?} {dialect:?}",
            String::from_utf8_lossy(sql)
        );
    }
}

impl Long {
    fn readers(&self) -> impl Iterator<Item = &Reader> {
        std::iter::once(&self.one).chain(&self.other)
    }
}

/// What may be read in more ways than a long text is.
fn has_several(sql: &[u8]) -> bool {
    let has = |part: &[u8]| memchr::memmem::find(sql, part).is_some();
    has(b"/*!") || has(b"/*+") || has(b"/*M!") || has(b"$")
}

#[test]
fn every_cut_of_what_is_awkward() {
    for sql in [
        "INSERT INTO t VALUES ('a''b', 'it\\'s', \"x\"\"y\", \"\\\"\"); KILL 5",
        "INSERT INTO `a``b` VALUES (1.5e10, .5, 0x1F, x'1F', N'a', _utf8'b', 1e+5, 1e, 2.); SET @a = 1",
        "SELECT 1 -- it's\n, 2 --3\n # \" \n; LISTEN",
        "SELECT /* ' */ GET_LOCK('a', 1) /* **/; USE x",
        "SELECT /*/ */ LAST_INSERT_ID(), LAST_INSERT_ID(5)",
        "SELECT @a := 1, @'b', @`c`, @\"d\", @@session.x, @@last_insert_id INTO @e",
        "SELECT t.1a, t.e5.f, a.f(1), `f`(1), lastval(), a . lastval()",
        "COMMIT AND CHAIN",
        "ROLLBACK RELEASE",
        "KILL QUERY 12",
        "LOAD DATA LOCAL INFILE 'x' INTO TABLE t",
        "CREATE PROCEDURE p() BEGIN SELECT 1; END; KILL 5",
        "SET SESSION sql_mode = 'x', @a = 1, GLOBAL b = 2",
        "SELECT 'never ends",
        "SELECT 'never ends\\",
        "SELECT 'never ends\\'",
        "SELECT \"never ends",
        "SELECT `never ends",
        "SELECT @'never ends",
        "SELECT /* never ends",
        "SELECT /* never ends *",
        "SELECT 1 --",
        "SELECT 1 -",
        "SELECT 1 /",
        "SELECT \"a",
        "\"",
        "SELECT a\0b, 'a\0b'",
        "SELECT '\u{e9}', \u{e9}, \u{a0}",
        "SELECT -- \0",
        "-- only",
        "#",
        ";;",
        "",
        "INSERT INTO t VALUES (1) /*!99999 ; KILL 5 */",
        "SELECT $$ ; KILL 5 $$, $a, a$b",
        "SELECT /*+ NO_INDEX(`a`) */ 1",
        "SELECT */ 1",
        "SELECT COUNT(*), COUNT (1), `count`(1)",
        "SELECT count/* */(1)",
        "SELECT MAX\n(1), linestring( ), point(1)",
        "SELECT 1 AS [a]",
    ] {
        for flags in 0..32_u8 {
            let is = |bit: u8| flags & 1 << bit != 0;
            let dialect = Dialect {
                no_backslash_escapes: is(0),
                multibyte_unsafe: is(1),
                utf8: is(2),
                mariadb: is(3),
                unsure: is(4),
                ..PLAIN
            };
            for size in 0..6 {
                check(sql.as_bytes(), dialect, &[size], has_several(sql.as_bytes()));
            }
            for cut in 0..sql.len() {
                check(sql.as_bytes(), dialect, &[cut, sql.len()], has_several(sql.as_bytes()));
            }
        }
    }
}

/// What is too long to be kept, whatever it is, cut behind any of its last bytes.
#[test]
fn what_is_longer_than_can_be_kept() {
    let long = "x".repeat(3 * CARRY_MAX);
    let hex = "0x".to_owned() + &"1F".repeat(3 * CARRY_MAX);
    for (opening, inside, closing) in [
        ("'", &long, "'"),
        ("'\\\\", &long, "\\''"),
        ("\"", &long, "\""),
        ("`", &long, "```"),
        ("SET `pseudo_", &long, "` = 1"),
        ("SET pseudo_", &long, " = 1"),
        ("SET \"pseudo_", &long, "\" = 1"),
        ("", &hex, ""),
        ("`a`.", &hex, ""),
        ("", &long, ""),
        ("", &long, "(1)"),
        ("COUNT(*), ", &long, ", count (1)"),
        ("`", &long, "` (1)"),
        ("\u{e9}", &long, "\u{e9}"),
        ("/*", &long, "*/"),
        ("-- ", &long, "\n"),
        ("#", &long, "\n"),
        ("'", &long, ""),
        ("`", &long, ""),
        ("/*", &long, ""),
    ] {
        for tail in ["", ", 1", "; KILL 5", "; SET @a = 1"] {
            let sql = ["INSERT INTO t VALUES (1), ", opening, inside, closing, tail].concat();
            let sql = if opening.starts_with("SET") { sql.replace("INSERT INTO t VALUES (1), ", "") } else { sql };
            for dialect in [PLAIN, Dialect { mariadb: true, unsure: true, utf8: false, ..PLAIN }] {
                for behind in 0..12.min(tail.len() + closing.len() + 5) {
                    check(sql.as_bytes(), dialect, &[sql.len() - behind - 1, behind], false);
                }
                for size in [0, 99, 1000, 2000] {
                    check(sql.as_bytes(), dialect, &[size], false);
                }
            }
        }
    }
    // There is no number of so many digits, nor a variable of such a name.
    for sql in ["1".repeat(3 * CARRY_MAX), format!("@{long}"), format!("@'{long}'"), format!("${long}")] {
        check(format!("SELECT {sql}").as_bytes(), PLAIN, &[99], true);
        check(format!("SELECT {sql}").as_bytes(), PLAIN, &[9999], true);
    }
}

#[test]
fn what_is_known_on_the_way() {
    let mut long = Long::new(PLAIN);
    long.read(b"INSERT INTO t SELECT GET_LOCK('a', 1), '");
    for _ in 0..100 {
        long.read(&[b'x'; 100_000]);
        assert!(long.one.carry.is_empty());
    }
    let found = long.so_far();
    assert!(found.intent.pins_when_sent.contains(PinReason::SessionLock) && found.intent.draws_sequence);
    assert!(!found.has_kill && !found.may_end_transaction && !long.is_unreadable());
    long.read(b"'; KIL");
    assert!(!long.so_far().has_kill);
    long.read(b"L 5 -- ");
    assert!(long.so_far().has_kill && long.so_far().statements == 2);
    assert!(!is_unreadable(&long.finish()));

    let mut long = Long::new(PLAIN);
    long.read(b"KILL 5 /*");
    long.read(&[b'x'; 100_000]);
    long.read(b"*/");
    assert_eq!(long.finish().command, Command::Kill { kind: KillKind::Connection, id: Some(5) });

    let mut long = Long::new(PLAIN);
    long.read(b"SELECT /*! 1 */");
    assert!(long.is_unreadable() && is_unreadable(&long.finish()));
}

/// Only from the first double quote on that is one, there are two readings.
#[test]
fn double_quotes_are_read_in_both_ways() {
    let mut long = Long::new(PLAIN);
    long.read(b"SELECT 'say \"a\"', `\"`, /* \" */ 1 -- \"\n");
    assert!(long.other.is_none());
    long.read(b", \"\\\"; KILL 5 -- \"");
    assert!(long.other.is_some());
    // A name and a second statement, or a string.
    let found = long.finish();
    assert!(found.has_kill && found.statements == 2 && !is_unreadable(&found));
    for sql in ["SELECT \"a;b\", 1", "INSERT INTO \"t\" VALUES ('\"')", "SET @\"a\" = \"b\""] {
        assert!(!is_unreadable(&in_pieces(sql.as_bytes(), PLAIN, &[3])), "{sql}");
    }
}

proptest! {
    #[test]
    fn cuts_make_no_difference(
        sql in text(),
        dialect in dialect(),
        cuts in proptest::collection::vec(0..9usize, 1..8),
    ) {
        check(&sql, dialect, &cuts, has_several(&sql));
    }

    #[test]
    fn nor_do_they_behind_what_is_long(
        first in text(),
        long in proptest::sample::select(vec!["'", "`", "\"", " ", "a"]),
        last in text(),
        dialect in dialect(),
        cuts in proptest::collection::vec(0..2000usize, 1..8),
    ) {
        let long = [long, &"z".repeat(2 * CARRY_MAX), long].concat();
        let sql = [&first[..], long.as_bytes(), &last].concat();
        // It may become a variable's name, or go on with a number.
        let is_odd = first.iter().any(|byte| *byte == b'@' || byte.is_ascii_digit());
        check(&sql, dialect, &cuts, has_several(&sql) || is_odd);
    }

    #[test]
    fn any_bytes_are_read(
        sql in proptest::collection::vec(any::<u8>(), 0..200),
        dialect in dialect(),
        cuts in proptest::collection::vec(0..9usize, 1..8),
    ) {
        check(&sql, dialect, &cuts, has_several(&sql));
    }
}
