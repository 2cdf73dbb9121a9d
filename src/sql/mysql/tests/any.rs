//! What holds for any text.

use proptest::prelude::*;

use super::super::lexer::{Kind, Lexer, OLDEST_RELEASE, Reading};
use super::*;

pub(in crate::sql::mysql) fn dialect() -> impl Strategy<Value = Dialect> {
    any::<[bool; 6]>().prop_map(|[ansi_quotes, no_backslash_escapes, multibyte_unsafe, utf8, mariadb, unsure]| {
        Dialect { ansi_quotes, no_backslash_escapes, multibyte_unsafe, utf8, mariadb, unsure }
    })
}

/// Pieces that make texts which mean something, and bytes that don't.
pub(in crate::sql::mysql) fn text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "SELECT",
        "SET",
        "GLOBAL",
        "NAMES",
        "KILL",
        "QUERY",
        "5",
        "@a",
        "@@",
        "session",
        ".",
        "x",
        "`x`",
        "'a'",
        "\"b\"",
        "f",
        "(",
        ")",
        "=",
        ":=",
        ",",
        ";",
        "INTO",
        "BEGIN",
        "END",
        "IF",
        "CASE",
        "CREATE",
        "TEMPORARY",
        "PROCEDURE",
        "TABLE",
        "GET_LOCK",
        "LAST_INSERT_ID",
        "COMMIT",
        "LOAD",
        "DATA",
        "LOCAL",
        "INFILE",
        "HANDLER",
        "OPEN",
        "USE",
        "WITH",
        "AS",
        "1e5",
        "/*!",
        "/*!80000",
        "/*M!",
        "*/",
        "/*",
        "--",
        "-- ",
        "#",
        "\n",
        "\\",
        "'",
        "\"",
        "`",
        "$$",
        "\u{e9}",
        "STATEMENT",
        "FOR",
        "[",
        "LINESTRING",
    ];
    let piece = prop_oneof![
        12 => proptest::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    let blank = prop_oneof![3 => Just(&b" "[..]), 1 => Just(&b""[..])];
    proptest::collection::vec((piece, blank), 0..24)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, blank)| [piece, blank.to_vec()].concat()).collect())
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

proptest! {
    #[test]
    fn any_bytes_are_read(sql in proptest::collection::vec(any::<u8>(), 0..200), dialect in dialect()) {
        classify(&sql, dialect);
        classify_prefix(&sql, dialect);
    }

    #[test]
    fn tokens_lie_in_the_text_in_order(sql in text(), dialect in dialect(), dollar_strings: bool) {
        let reading = Reading { version: OLDEST_RELEASE, dollar_strings };
        let mut end = 0;
        for token in Lexer::new(&sql, dialect, reading) {
            prop_assert!(token.start >= end);
            end = token.start + token.bytes.len();
            prop_assert_eq!(sql.get(token.start..end), Some(token.bytes));
        }
        prop_assert!(end <= sql.len());
    }

    #[test]
    fn comments_between_tokens_change_nothing(
        sql in text(),
        dialect in dialect(),
        comments in proptest::collection::vec(proptest::sample::select(vec![" ", "/**/", "\t/* ; KILL 5 */", "\n", " -- KILL\n", "#x\n"]), 1..8),
    ) {
        // What runs in one reading is a comment in the other; `--` is a comment by what stands behind it.
        if has(&sql, b"/*") || has(&sql, b"--") || has(&sql, b"$") || has(&sql, b"\0") {
            return Ok(());
        }
        let reading = Reading { version: OLDEST_RELEASE, dollar_strings: false };
        let mut spread = Vec::new();
        let mut comments = comments.iter().cycle();
        let (mut last, mut end) = (Kind::Semicolon, 0);
        for token in Lexer::new(&sql, dialect, reading) {
            // Some are one with what stands right beside them, or look like it.
            let ties = |kind| matches!(kind, Kind::Dot | Kind::Other | Kind::UserVariable | Kind::SystemVariable);
            let is_tied = ties(last) || ties(token.kind) || last == token.kind || token.bytes.starts_with(b".");
            if token.start > end || !is_tied {
                spread.extend_from_slice(comments.next().unwrap().as_bytes());
            }
            spread.extend_from_slice(token.bytes);
            (last, end) = (token.kind, token.start + token.bytes.len());
        }
        if has(&spread, b"*/*") {
            return Ok(());
        }
        prop_assert_eq!(classify(&sql, dialect), classify(&spread, dialect), "{:?}", String::from_utf8_lossy(&spread));
    }

    #[test]
    fn case_changes_nothing(sql in text(), dialect in dialect()) {
        let (lower, upper) = (sql.to_ascii_lowercase(), sql.to_ascii_uppercase());
        // Small letters do not run; a dollar quote's end must be written as its beginning.
        if has(&upper, b"/*M") || has(&sql, b"$") {
            return Ok(());
        }
        prop_assert_eq!(classify(&lower, dialect), classify(&upper, dialect));
    }

    #[test]
    fn what_one_does_both_do(a in text(), b in text(), dialect in dialect()) {
        // A text that ends properly, and is no routine.
        let is_open = classify(&a, dialect).intent.pins_when_sent.contains(PinReason::Unreadable);
        if is_open || has(&a, b"CREATE") || has(&a, b"$") {
            return Ok(());
        }
        let sum = classify(&[&a, &b"\n;"[..], &b].concat(), dialect);
        for one in [classify(&a, dialect), classify(&b, dialect)] {
            let pins = one.intent.pins_when_sent.and(one.intent.pins_when_done);
            prop_assert!(pins.without(sum.intent.pins_when_sent.and(sum.intent.pins_when_done)).is_empty());
            prop_assert!(sum.has_kill >= one.has_kill && sum.may_end_transaction >= one.may_end_transaction);
            prop_assert!(sum.is_load_local >= one.is_load_local && sum.statements >= one.statements);
        }
    }
}
