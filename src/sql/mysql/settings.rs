//! `SET` statements whose effect can be had again on another connection: session variables with literal values.
//!
//! Only what is read in one way by every server of every dialect is taken: plain ASCII, no comments, no escapes, no expressions. Everything
//! else is for the scan, which pins.

use super::Dialect;
use super::lexer::{Kind, Lexer, OLDEST_RELEASE, Reading, Token};

/// What a variable is called here, and its value as it is written, a string with its quotes. `None`: its default.
pub type Change = (&'static str, Option<String>);

/// Longer texts are not looked at.
const SET_BYTES_MAX: usize = 1024;
/// Nor are those that assign more.
const CHANGES_MAX: usize = 16;

/// The session's isolation level, by whichever of its names the server has.
pub const ISOLATION: &str = "transaction_isolation";
/// The same for what its transactions may do.
pub const READ_ONLY: &str = "transaction_read_only";

/// Variables that mean the same on every connection, each by itself and whatever it was before (unlike `optimizer_switch`), of which a reset, or their
/// global value, makes what they were, and that change nothing about how texts are read. Sorted.
const FOLLOWED: &[&str] = &[
    "autocommit",
    "default_week_format",
    "div_precision_increment",
    "eq_range_index_dive_limit",
    "foreign_key_checks",
    "group_concat_max_len",
    "information_schema_stats_expiry",
    "innodb_lock_wait_timeout",
    "interactive_timeout",
    "join_buffer_size",
    "lc_time_names",
    "lock_wait_timeout",
    "low_priority_updates",
    "max_execution_time",
    "max_heap_table_size",
    "max_sort_length",
    "max_statement_time",
    "net_read_timeout",
    "net_write_timeout",
    "read_buffer_size",
    "read_rnd_buffer_size",
    "sort_buffer_size",
    "sql_auto_is_null",
    "sql_notes",
    "sql_safe_updates",
    "sql_select_limit",
    "sql_warnings",
    "time_zone",
    "tmp_table_size",
    ISOLATION,
    READ_ONLY,
    "tx_isolation",
    "tx_read_only",
    "unique_checks",
    "updatable_views_with_limit",
    "wait_timeout",
];

/// What the text sets, if that is all it does.
pub fn changes(text: &[u8]) -> Option<Vec<Change>> {
    let is_plain =
        |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'!'..=b'~') && !b"\\\"`#/$".contains(byte);
    let begins = text.trim_ascii_start().get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"set"));
    if !begins
        || text.len() > SET_BYTES_MAX
        || !text.iter().all(is_plain)
        || memchr::memmem::find(text, b"--").is_some()
    {
        return None;
    }
    let reading = Reading { version: OLDEST_RELEASE, dollar_strings: false };
    let mut tokens: Vec<Token<'_>> = Lexer::new(text, Dialect::default(), reading).collect();
    tokens.pop_if(|token| token.kind == Kind::Semicolon);
    let (_, rest) = tokens.split_first().filter(|(first, _)| is(first, "set"))?;
    if let Some(changes) = characteristics(rest) {
        return Some(changes);
    }
    let changes: Vec<Change> = rest.split(|token| token.kind == Kind::Comma).map(assignment).collect::<Option<_>>()?;
    (changes.len() <= CHANGES_MAX).then_some(changes)
}

fn is(token: &Token<'_>, word: &str) -> bool {
    token.kind == Kind::Word && token.bytes.eq_ignore_ascii_case(word.as_bytes())
}

/// `SESSION TRANSACTION ISOLATION LEVEL ...`: without `SESSION` it is for the next transaction alone.
fn characteristics(tokens: &[Token<'_>]) -> Option<Vec<Change>> {
    let (scope, rest) = tokens.split_first()?;
    let (transaction, rest) = rest.split_first()?;
    if !(is(scope, "session") || is(scope, "local")) || !is(transaction, "transaction") {
        return None;
    }
    let one = |tokens: &[Token<'_>]| -> Option<Change> {
        let words: Vec<String> =
            tokens.iter().map(|token| String::from_utf8_lossy(token.bytes).to_ascii_lowercase()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Some(match words[..] {
            ["read", "only"] => (READ_ONLY, Some("1".to_owned())),
            ["read", "write"] => (READ_ONLY, Some("0".to_owned())),
            ["isolation", "level", "read", "committed"] => (ISOLATION, Some("'READ-COMMITTED'".to_owned())),
            ["isolation", "level", "read", "uncommitted"] => (ISOLATION, Some("'READ-UNCOMMITTED'".to_owned())),
            ["isolation", "level", "repeatable", "read"] => (ISOLATION, Some("'REPEATABLE-READ'".to_owned())),
            ["isolation", "level", "serializable"] => (ISOLATION, Some("'SERIALIZABLE'".to_owned())),
            _ => return None,
        })
    };
    rest.split(|token| token.kind == Kind::Comma).map(one).collect()
}

/// `SESSION name = value` and the like.
fn assignment(tokens: &[Token<'_>]) -> Option<Change> {
    let (is_scoped, has_at, rest) = match tokens {
        [at, scope, dot, rest @ ..]
            if at.kind == Kind::SystemVariable
                && dot.kind == Kind::Dot
                && (is(scope, "session") || is(scope, "local")) =>
        {
            (true, true, rest)
        }
        [at, rest @ ..] if at.kind == Kind::SystemVariable => (false, true, rest),
        [scope, rest @ ..] if is(scope, "session") || is(scope, "local") => (true, false, rest),
        rest => (false, false, rest),
    };
    let [name, equals, value @ ..] = rest else { return None };
    let is_assignment = equals.kind == Kind::Assign || equals.bytes == b"=";
    if name.kind != Kind::Word || !is_assignment {
        return None;
    }
    let name = std::str::from_utf8(name.bytes).ok()?.to_ascii_lowercase();
    let name = FOLLOWED.iter().find(|followed| **followed == name)?;
    let name = match *name {
        "tx_isolation" => ISOLATION,
        "tx_read_only" => READ_ONLY,
        name => name,
    };
    // For the next transaction alone.
    if has_at && !is_scoped && (name == ISOLATION || name == READ_ONLY) {
        return None;
    }
    let value = match written(value)? {
        // By which MySQL 9.7 turns them off.
        None if matches!(name, "foreign_key_checks" | "unique_checks") => Some("DEFAULT".to_owned()),
        value => value,
    };
    // Then `IS NULL` asks for the last value inserted.
    let asks = name == "sql_auto_is_null" && !matches!(value.as_deref(), None | Some("0" | "OFF" | "off"));
    (!asks).then_some((name, value))
}

/// A literal as it is written.
fn written(value: &[Token<'_>]) -> Option<Option<String>> {
    let text = |token: &Token<'_>| String::from_utf8_lossy(token.bytes).into_owned();
    match value {
        [word] if is(word, "default") => Some(None),
        [one] if matches!(one.kind, Kind::Number) => Some(Some(text(one))),
        [minus, one] if minus.bytes == b"-" && one.kind == Kind::Number => Some(Some(format!("-{}", text(one)))),
        // `ON`, `SYSTEM`, `de_DE`
        [word]
            if word.kind == Kind::Word && word.bytes.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'_') =>
        {
            Some(Some(text(word)))
        }
        [one] if one.kind == Kind::Literal => {
            let inside = one.bytes.strip_prefix(b"'")?.strip_suffix(b"'")?;
            (!inside.contains(&b'\'')).then(|| Some(text(one)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        let changes = changes(text.as_bytes())?;
        let one = |(name, value): &Change| format!("{name} {}", value.as_deref().unwrap_or("-"));
        Some(changes.iter().map(one).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn what_is_followed() {
        for (text, expected) in [
            ("SET AUTOCOMMIT = 0", "autocommit 0"),
            ("set autocommit=1;", "autocommit 1"),
            ("SET @@session.autocommit = ON", "autocommit ON"),
            ("SET SESSION time_zone := '+00:00'", "time_zone '+00:00'"),
            ("SET time_zone = SYSTEM, @@local.wait_timeout = 600", "time_zone SYSTEM, wait_timeout 600"),
            ("SET @@sql_select_limit=DEFAULT", "sql_select_limit -"),
            ("SET tx_isolation = 'READ-COMMITTED'", "transaction_isolation 'READ-COMMITTED'"),
            ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "transaction_isolation 'READ-COMMITTED'"),
            (
                "set local transaction read only, isolation level serializable",
                "transaction_read_only 1, transaction_isolation 'SERIALIZABLE'",
            ),
            ("  SET\n foreign_key_checks = 0 , unique_checks = off", "foreign_key_checks 0, unique_checks off"),
            ("SET sql_select_limit = -1", "sql_select_limit -1"),
            ("SET unique_checks = default", "unique_checks DEFAULT"),
            ("SET SQL_AUTO_IS_NULL = 0", "sql_auto_is_null 0"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_left_to_the_scan() {
        for text in [
            "SET sql_mode = ''",
            "SET NAMES utf8mb4",
            "SET @a = 1",
            "SET autocommit = 0, @a = 1",
            "SET autocommit = @a",
            "SET autocommit = (SELECT 1)",
            "SET autocommit = 1 + 1",
            "SET autocommit = f()",
            "SET GLOBAL wait_timeout = 1",
            "SET PERSIST wait_timeout = 1",
            "SET @@global.wait_timeout = 1",
            "SET GLOBAL max_connections = 9, wait_timeout = 1",
            "SET wait_timeout = @@global.wait_timeout",
            "SET @@transaction_isolation = 'SERIALIZABLE'",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET time_zone = 'a''b'",
            "SET time_zone = 'a' 'b'",
            "SET time_zone = 'a\\b'",
            "SET time_zone = \"a\"",
            "SET `autocommit` = 0",
            "SET autocommit = 0; SELECT 1",
            "SET autocommit = 0;;",
            "SET autocommit = 0 -- x",
            "SET /* x */ autocommit = 0",
            "SET autocommit = 0 # x",
            "SET autocommit",
            "SET",
            "SET autocommit = 0,",
            "SET STATEMENT wait_timeout = 1 FOR SELECT 1",
            "SET timestamp = 1",
            "SET optimizer_switch = 'mrr=on'",
            "SET sql_auto_is_null = 1",
            "SETautocommit = 0",
            "SELECT 1",
            "",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_sorted() {
        let mut sorted = FOLLOWED.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, FOLLOWED);
    }
}
