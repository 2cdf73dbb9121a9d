//! `SET` statements whose effect can be had again on another connection: session variables with literal values.
//!
//! Only what is read in one way by every server of every dialect is taken: plain ASCII, no comments, no escapes, no expressions. Everything
//! else is for the scan, which pins.

#![allow(clippy::wildcard_enum_match_arm, reason = "every other kind of token is the wildcard")]

use super::Dialect;
use super::lexer::{Kind, Lexer, OLDEST_RELEASE, Reading, Token};

/// What a variable is called here, and what becomes of it.
pub type Change = (&'static str, Value);

/// A new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// What it was at the login.
    Default,
    /// As it is written, a string with its quotes.
    Written(String),
    /// What only the server can say: it is to be asked.
    Asked,
    /// Of the modes that there are, and these beside them: `,MODE,MODE`.
    Appended(String),
}

/// It is a user variable's, not a setting's.
pub fn is_variable(name: &str) -> bool {
    name.starts_with('@')
}

/// In front of the name of a statement that SQL has prepared; the value is what was prepared.
pub const PREPARED: &str = "prepare ";

/// It changes nothing about what statements mean to their server.
pub fn is_no_setting(name: &str) -> bool {
    is_variable(name) || name.starts_with(PREPARED)
}

/// What the client's own `LAST_INSERT_ID()` is: asked for under this name, and no setting.
pub const LAST_INSERT_ID: &str = "last_insert_id";

/// Whether the server tells of each statement whether it has changed something of the session. The proxy has it on.
pub const STATE_CHANGE: &str = "session_track_state_change";

/// So many rows are all that a `SELECT` gives.
pub const SELECT_LIMIT: &str = "sql_select_limit";

/// Longer texts are not looked at.
const SET_BYTES_MAX: usize = 1024;
/// Nor are those that assign more.
const CHANGES_MAX: usize = 16;

/// Character sets and collation of what is written and read: the value is what stands behind `NAMES`.
pub const NAMES: &str = "names";
/// The character set of results, which `NAMES` sets as well.
pub const RESULTS: &str = "character_set_results";
/// The database that names without one are of: the value is its name. It is no variable.
pub const SCHEMA: &str = "schema";
/// It is there no more, and none is selected.
pub const NO_SCHEMA: &str = "";
/// How texts and values are taken.
pub const SQL_MODE: &str = "sql_mode";
/// Modes that change nothing about where a text's words, strings and comments begin and end.
const MODES: &[&str] = &[
    "allow_invalid_dates",
    "error_for_division_by_zero",
    "high_not_precedence",
    "ignore_space",
    "no_auto_create_user",
    "no_auto_value_on_zero",
    "no_engine_substitution",
    "no_unsigned_subtraction",
    "no_zero_date",
    "no_zero_in_date",
    "only_full_group_by",
    "pad_char_to_full_length",
    "pipes_as_concat",
    "real_as_float",
    "strict_all_tables",
    "strict_trans_tables",
    "time_round_fractional",
    "time_truncate_fractional",
    "traditional",
];

/// Of a connection that is not to end while it is idle: the servers' own default.
const LONG_SECONDS: u32 = 28_800;

/// The session's isolation level, by whichever of its names the server has.
pub const ISOLATION: &str = "transaction_isolation";
/// The same for what its transactions may do.
pub const READ_ONLY: &str = "transaction_read_only";

/// Variables that mean the same on every connection, each by itself and whatever it was before (unlike `optimizer_switch`), of which a reset, or their
/// global value, makes what they were, and that change nothing about how texts are read. Sorted.
const FOLLOWED: &[&str] = &[
    "autocommit",
    RESULTS,
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
    "session_track_gtids",
    "session_track_schema",
    STATE_CHANGE,
    "session_track_system_variables",
    "sort_buffer_size",
    "sql_auto_is_null",
    SQL_MODE,
    "sql_notes",
    "sql_safe_updates",
    SELECT_LIMIT,
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

/// Variables whose new value is not the one that is written: the server has to be asked.
const ASKED: &[&str] = &["optimizer_switch"];

/// What the text sets, if that is all it does; user variables that it sets as well are left out.
pub fn changes(text: &[u8]) -> Option<Vec<Change>> {
    let tokens = tokens(text)?;
    if let Some(changes) = characteristics(&tokens) {
        return Some(changes);
    }
    let settings = assignments(&tokens).filter(|tokens| tokens.first().is_none_or(|at| at.kind != Kind::UserVariable));
    settings
        .map(|tokens| {
            let asked = || Some((Some(target(tokens)?.name).filter(|name| *name != STATE_CHANGE)?, Value::Asked));
            assignment(tokens).or_else(asked)
        })
        .collect()
}

/// What is behind the `SET` of a text that is one such statement, written in plain letters.
fn tokens(text: &[u8]) -> Option<Vec<Token<'_>>> {
    let is_plain = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'!'..=b'~') && !b"\\`#/".contains(byte);
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
    let is_set = tokens.first().is_some_and(|first| is(first, "set"));
    let is_one = tokens.iter().all(|token| !matches!(token.kind, Kind::Semicolon | Kind::Unterminated));
    (is_set && is_one && assignments(&tokens).count() <= CHANGES_MAX).then(|| tokens.split_off(1))
}

/// Between their commas.
fn assignments<'a, 't>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t [Token<'a>]> {
    let mut depth = 0_usize;
    tokens.split(move |token| {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        token.kind == Kind::Comma && depth == 0
    })
}

/// The database that a `USE` selects, if its name is a plain one.
pub fn used(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let (word, name) = text.split_once(|byte: char| byte.is_ascii_whitespace())?;
    let name = name.strip_suffix(';').unwrap_or(name).trim_ascii();
    let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')).unwrap_or(name);
    (word.eq_ignore_ascii_case("use") && is_schema(name.as_bytes())).then_some(name)
}

/// A database's name that needs no quotes, nor anybody's idea of letters.
pub fn is_schema(name: &[u8]) -> bool {
    // NAME_CHAR_LEN
    name.len() <= 64 && is_name(name)
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
            ["read", "only"] => (READ_ONLY, "1"),
            ["read", "write"] => (READ_ONLY, "0"),
            ["isolation", "level", "read", "committed"] => (ISOLATION, "'READ-COMMITTED'"),
            ["isolation", "level", "read", "uncommitted"] => (ISOLATION, "'READ-UNCOMMITTED'"),
            ["isolation", "level", "repeatable", "read"] => (ISOLATION, "'REPEATABLE-READ'"),
            ["isolation", "level", "serializable"] => (ISOLATION, "'SERIALIZABLE'"),
            _ => return None,
        })
        .map(|(name, value)| (name, Value::Written(value.to_owned())))
    };
    rest.split(|token| token.kind == Kind::Comma).map(one).collect()
}

/// `SESSION name = value` and the like.
fn assignment(tokens: &[Token<'_>]) -> Option<Change> {
    if let [names, set, rest @ ..] = tokens
        && is(names, "names")
    {
        let set = charset(set)?;
        return match rest {
            [] => Some((NAMES, Value::Written(set))),
            [collate, collation] if is(collate, "collate") => {
                Some((NAMES, Value::Written(format!("{set} COLLATE {}", charset(collation)?))))
            }
            _ => None,
        };
    }
    let Target { name, value } = target(tokens)?;
    let value = match (name, value) {
        (SQL_MODE, [concat, ..]) if is(concat, "concat") => Value::Appended(added(value)?),
        _ => written(value)?,
    };
    if ASKED.contains(&name) {
        return None;
    }
    match &value {
        // By which MySQL 9.7 turns them off.
        Value::Default if matches!(name, "foreign_key_checks" | "unique_checks") => {
            return Some((name, Value::Written("DEFAULT".to_owned())));
        }
        // `NAMES` says which that is.
        Value::Default if name == RESULTS => return None,
        Value::Default | Value::Asked => {}
        Value::Appended(modes) => are_modes(modes).then_some(())?,
        Value::Written(text) => may_follow(name, text).then_some(())?,
    }
    Some((name, value))
}

/// What is appended to the modes that there are: `CONCAT(@@sql_mode, ',MODE')`, and one such within another.
fn added(value: &[Token<'_>]) -> Option<String> {
    let [concat, open, to @ .., comma, more, close] = value else { return None };
    let is_call = is(concat, "concat") && [open.kind, comma.kind, close.kind] == [Kind::Open, Kind::Comma, Kind::Close];
    let more = inside(more).filter(|more| is_call && more.starts_with(','))?;
    let known = match to {
        [at, mode] if at.kind == Kind::SystemVariable && is(mode, SQL_MODE) => String::new(),
        [at, session, dot, mode]
            if [at.kind, dot.kind] == [Kind::SystemVariable, Kind::Dot]
                && is(session, "session")
                && is(mode, SQL_MODE) =>
        {
            String::new()
        }
        // Not deep: the text is short.
        to => added(to)?,
    };
    Some(known + more)
}

/// A variable that has this value, as it is written, can have it on another connection.
fn may_follow(name: &str, text: &str) -> bool {
    match name {
        // Else `IS NULL` asks for the last value inserted.
        "sql_auto_is_null" => matches!(text, "0" | "OFF" | "off"),
        // One that is short is for the connection to end with; a long one is to keep it.
        "wait_timeout" | "interactive_timeout" => text.parse::<u32>().is_ok_and(|seconds| seconds >= LONG_SECONDS),
        SQL_MODE => text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).is_some_and(are_modes),
        _ => true,
    }
}

/// A value that the server has told, as it is written to have it again. `None`: it is of no use on another connection.
pub fn read_back(name: &str, value: &str) -> Option<String> {
    if name == LAST_INSERT_ID {
        return Some(value.to_owned());
    }
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte));
    let is_plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"'\\".contains(&byte));
    let text = if is_number { value.to_owned() } else { format!("'{value}'") };
    (is_plain && may_follow(name, &text)).then_some(text)
}

/// A variable of the session, and what it is to be.
struct Target<'a, 't> {
    name: &'static str,
    value: &'t [Token<'a>],
}

fn target<'a, 't>(tokens: &'t [Token<'a>]) -> Option<Target<'a, 't>> {
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
    let name = FOLLOWED.iter().chain(ASKED).find(|followed| **followed == name)?;
    let name = match *name {
        "tx_isolation" => ISOLATION,
        "tx_read_only" => READ_ONLY,
        name => name,
    };
    // For the next transaction alone.
    if has_at && !is_scoped && (name == ISOLATION || name == READ_ONLY) {
        return None;
    }
    Some(Target { name, value })
}

fn are_modes(list: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .all(|mode| mode.is_empty() || MODES.iter().any(|known| known.eq_ignore_ascii_case(mode)))
}

/// A literal as it is written.
fn written(value: &[Token<'_>]) -> Option<Value> {
    let text = |token: &Token<'_>| String::from_utf8_lossy(token.bytes).into_owned();
    Some(match value {
        [word] if is(word, "default") => Value::Default,
        [one] if matches!(one.kind, Kind::Number) => Value::Written(text(one)),
        [minus, one] if minus.bytes == b"-" && one.kind == Kind::Number => Value::Written(format!("-{}", text(one))),
        // `ON`, `SYSTEM`, `de_DE`, `utf8mb4`
        [word] if word.kind == Kind::Word && is_name(word.bytes) => Value::Written(text(word)),
        [one] => Value::Written(format!("'{}'", inside(one)?)),
        _ => return None,
    })
}

fn is_name(bytes: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    bytes.iter().all(is_letter) && bytes.first().is_some_and(u8::is_ascii_alphabetic)
}

/// What is in a string without quotes in it.
fn inside<'a>(token: &Token<'a>) -> Option<&'a str> {
    let inside = token.bytes.strip_prefix(b"'")?.strip_suffix(b"'")?;
    std::str::from_utf8(inside).ok().filter(|_| token.kind == Kind::Literal && !inside.contains(&b'\''))
}

/// The name of a character set or a collation.
fn charset(token: &Token<'_>) -> Option<String> {
    let name = match token.kind {
        Kind::Word => std::str::from_utf8(token.bytes).ok()?,
        _ => inside(token)?,
    };
    is_name(name.as_bytes()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        let changes = changes(text.as_bytes())?;
        let one = |(name, value): &Change| match value {
            Value::Default => format!("{name} -"),
            Value::Asked => format!("{name} ?"),
            Value::Written(text) => format!("{name} {text}"),
            Value::Appended(text) => format!("{name} +{text}"),
        };
        Some(changes.iter().map(one).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn what_is_followed() {
        for (text, expected) in [
            ("SET AUTOCOMMIT = 0", "autocommit 0"),
            ("set autocommit=1;", "autocommit 1"),
            ("SET @@session.autocommit = ON", "autocommit ON"),
            ("SET SESSION time_zone := '+00:00'", "time_zone '+00:00'"),
            ("SET time_zone = SYSTEM, @@local.wait_timeout = 28800", "time_zone SYSTEM, wait_timeout 28800"),
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
            ("SET NAMES utf8mb4", "names utf8mb4"),
            ("set names 'utf8mb4' collate 'utf8mb4_unicode_ci'", "names utf8mb4 COLLATE utf8mb4_unicode_ci"),
            ("SET NAMES DEFAULT, autocommit = 1", "names DEFAULT, autocommit 1"),
            ("SET character_set_results = NULL", "character_set_results NULL"),
            ("SET sql_mode='STRICT_TRANS_TABLES'", "sql_mode 'STRICT_TRANS_TABLES'"),
            ("SET sql_mode = ''", "sql_mode ''"),
            (
                "set autocommit=1, session_track_schema=1, sql_mode=concat(@@sql_mode,',STRICT_TRANS_TABLES')",
                "autocommit 1, session_track_schema 1, sql_mode +,STRICT_TRANS_TABLES",
            ),
            (
                "SET @@SESSION.sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO')",
                "sql_mode +,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO",
            ),
            (
                "SET NAMES utf8mb4,  @@SESSION.sql_mode = CONCAT(CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), ',NO_AUTO_VALUE_ON_ZERO'),  \
                 @@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483",
                "names utf8mb4, sql_mode +,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO, sql_auto_is_null 0, wait_timeout 2147483",
            ),
            ("SET sql_mode = CONCAT(CONCAT(@@sql_mode, ',ANSI'), ',TRADITIONAL')", "sql_mode ?"),
            ("SET sql_mode = CONCAT(REPLACE(@@sql_mode, 'ANSI', ''), ',TRADITIONAL')", "sql_mode ?"),
            ("SET SQL_AUTO_IS_NULL = 0", "sql_auto_is_null 0"),
            ("SET sql_mode = 'STRICT_ALL_TABLES,PIPES_AS_CONCAT'", "sql_mode 'STRICT_ALL_TABLES,PIPES_AS_CONCAT'"),
            // Beside user variables, and by what only the server can tell.
            ("SET autocommit = 0, @a = f(1, 2)", "autocommit 0"),
            ("SET @a = 1", ""),
            (
                "SET sql_mode=(SELECT CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')),time_zone='+00:00',NAMES utf8mb4 COLLATE utf8mb4_bin",
                "sql_mode ?, time_zone '+00:00', names utf8mb4 COLLATE utf8mb4_bin",
            ),
            ("SET sql_mode = 'ANSI_QUOTES', optimizer_switch = 'mrr=on'", "sql_mode ?, optimizer_switch ?"),
            ("SET sql_mode = CONCAT(@@global.sql_mode, ',TRADITIONAL')", "sql_mode ?"),
            ("SET sql_mode = CONCAT(@@sql_mode, 'TRADITIONAL')", "sql_mode ?"),
            ("SET autocommit = 1 + 1, wait_timeout = 600", "autocommit ?, wait_timeout ?"),
            ("SET time_zone = \"a\", sql_auto_is_null = 1", "time_zone ?, sql_auto_is_null ?"),
            ("SET time_zone = 'a' 'b', character_set_results = DEFAULT", "time_zone ?, character_set_results ?"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_left_to_the_scan() {
        for text in [
            "SET NAMES",
            "SET NAMES utf8mb4 COLLATE",
            "SET NAMES 'a b'",
            "SET CHARACTER SET utf8mb4",
            "SET character_set_client = gbk",
            "SET GLOBAL wait_timeout = 1",
            "SET PERSIST wait_timeout = 1",
            "SET @@global.wait_timeout = 1",
            "SET GLOBAL max_connections = 9, wait_timeout = 1",
            "SET @@transaction_isolation = 'SERIALIZABLE'",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET time_zone = 'a\\b'",
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
            "SET timestamp = 1, autocommit = @a",
            "SET session_track_state_change = @a",
            "SET SESSION session_track_transaction_info = 'STATE'",
            "SETautocommit = 0",
            "SELECT 1",
            "",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn databases_that_are_used() {
        for (text, expected) in [
            ("USE orders", Some("orders")),
            (" use `orders2` ;", Some("orders2")),
            ("USE\torders;", Some("orders")),
            ("USE `a b`", None),
            ("USE `a-b`", None),
            ("USE a; SELECT 1", None),
            ("USE a.b", None),
            ("USE `a", None),
            ("USE /* b */ a", None),
            ("USE 'a'", None),
            ("USE 1a", None),
            ("USE ä", None),
            ("USE", None),
            ("USED a", None),
        ] {
            assert_eq!(used(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn names_are_sorted() {
        let mut sorted = FOLLOWED.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, FOLLOWED);
    }
}
