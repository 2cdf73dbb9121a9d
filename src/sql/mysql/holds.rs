//! What one plain statement begins or ends on its connection, by name: temporary tables, locks, handlers, statements that SQL prepares,
//! what the next transaction is to be.
//!
//! As with [`settings`](super::settings), only what every server reads alike is taken. Whatever is not understood here keeps its client
//! where it is, as the scan says.

#![allow(clippy::wildcard_enum_match_arm, reason = "every other kind of token is the wildcard")]

use super::Dialect;
use super::lexer::{Kind, Lexer, OLDEST_RELEASE, Reading, Token};
use crate::protocol::PinReason;

/// Longer texts are not looked at, but for what creates a table.
const TEXT_BYTES_MAX: usize = 4096;
/// So much of a text names what it creates.
const HEAD_BYTES_MAX: usize = 512;

/// Something that stays with its connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A temporary table: its database, unless that is the selected one, and its name.
    Table(Option<String>, String),
    /// Of `GET_LOCK`, if the server still says so.
    UserLock(String),
    /// What `UNLOCK TABLES` ends.
    TableLocks,
    /// What `UNLOCK INSTANCE` ends.
    InstanceLock,
    /// `HANDLER`, by its name there.
    Handler(String),
    /// `PREPARE`, by its name.
    Statement(String),
    /// `SET TRANSACTION`: what the next transaction is to be, which ends it.
    NextTransaction,
}

/// What a statement does to such things once it has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// They are there.
    Begins(Vec<Thing>),
    /// They are gone.
    Ends(Vec<Thing>),
    /// Locks of users may be there, or gone.
    UserLocks(Vec<String>),
    /// All locks of users are gone.
    NoUserLocks,
    /// A statement of this name is there, as this text says; or there is none, if it fails.
    Prepares {
        /// In lower case.
        name: String,
        /// What was prepared, if it is written out.
        text: Option<String>,
    },
    /// A statement of this name is executed.
    Executes(String),
    /// It begins with no word that is known (see [`Statement::is_unknown`](super::Statement::is_unknown)).
    Unknown,
}

impl Thing {
    /// Why it keeps its client.
    pub fn reason(&self) -> PinReason {
        match self {
            Self::Table(..) => PinReason::TemporaryObject,
            Self::UserLock(_) | Self::TableLocks | Self::InstanceLock => PinReason::SessionLock,
            Self::Handler(_) => PinReason::HeldCursor,
            Self::Statement(_) => PinReason::PreparedStatement,
            Self::NextTransaction => PinReason::Setting,
        }
    }
}

/// What the text does to such things, if it is one statement and that is all that it does to them.
pub fn of(text: &[u8]) -> Option<Hold> {
    let first = text.trim_ascii_start().get(..3)?.to_ascii_lowercase();
    match &first[..] {
        b"cre" => created(text),
        b"set" | b"beg" | b"sta" | b"dro" | b"dea" | b"loc" | b"unl" | b"flu" | b"han" | b"pre" | b"exe" => {
            let tokens = plain(text)?;
            words(&tokens)
        }
        b"sel" | b"do " => user_locks(&plain(text)?),
        _ => None,
    }
}

/// A whole statement's tokens, if it is written in plain letters.
fn plain(text: &[u8]) -> Option<Vec<Token<'_>>> {
    if text.len() > TEXT_BYTES_MAX || !text.iter().all(is_plain) || memchr::memmem::find(text, b"--").is_some() {
        return None;
    }
    let mut tokens = lexed(text);
    tokens.pop_if(|token| token.kind == Kind::Semicolon);
    let is_one = tokens.iter().all(|token| !matches!(token.kind, Kind::Semicolon | Kind::Unterminated));
    is_one.then_some(tokens)
}

fn lexed(text: &[u8]) -> Vec<Token<'_>> {
    let reading = Reading { version: OLDEST_RELEASE, dollar_strings: false };
    Lexer::new(text, Dialect::default(), reading).collect()
}

fn is_plain(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'!'..=b'~') && !b"\\\"#/$".contains(byte)
}

/// `CREATE TEMPORARY TABLE name`, whatever follows.
fn created(text: &[u8]) -> Option<Hold> {
    let head = text.get(..HEAD_BYTES_MAX).unwrap_or(text);
    let plain = head.iter().position(|byte| !is_plain(byte)).unwrap_or(head.len());
    let head = head.get(..plain)?;
    if memchr::memmem::find(head, b"--").is_some() {
        return None;
    }
    let mut tokens = lexed(head);
    // The last one may go on.
    if plain < text.len() {
        tokens.pop();
    }
    let rest = after(&tokens, &["create"])?;
    let rest = after(rest, &["or", "replace"]).unwrap_or(rest);
    let rest = after(rest, &["temporary", "table"])?;
    let rest = after(rest, &["if", "not", "exists"]).unwrap_or(rest);
    let (table, rest) = table(rest)?;
    // `t` of `t.a` is no table.
    let is_whole = plain == text.len() || !rest.is_empty();
    is_whole.then(|| Hold::Begins(vec![table]))
}

fn words(tokens: &[Token<'_>]) -> Option<Hold> {
    let ends = |thing| Some(Hold::Ends(vec![thing]));
    if let Some(rest) = after(tokens, &["drop", "temporary", "table"]).or_else(|| after(tokens, &["drop", "table"])) {
        return dropped(rest);
    }
    for begins in [&["drop", "prepare"], &["deallocate", "prepare"]] {
        if let Some(rest) = after(tokens, begins) {
            let [one] = rest else { return None };
            return ends(Thing::Statement(name(one)?.to_ascii_lowercase()));
        }
    }
    if let Some(rest) = after(tokens, &["prepare"]) {
        let [one, from, text] = rest else { return None };
        let is_text = text.kind == Kind::Literal || text.kind == Kind::UserVariable;
        let inside = std::str::from_utf8(text.bytes).ok()?.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        let text = inside.filter(|_| text.kind == Kind::Literal).map(|text| text.replace("''", "'"));
        let name = name(one)?.to_ascii_lowercase();
        return (is(from, "from") && is_text).then_some(Hold::Prepares { name, text });
    }
    if let Some(rest) = after(tokens, &["execute"]) {
        let (one, rest) = rest.split_first()?;
        let is_rest = |token: &Token<'_>| matches!(token.kind, Kind::UserVariable | Kind::Comma);
        let is_whole = rest.is_empty() || after(rest, &["using"])?.iter().all(is_rest);
        return is_whole.then_some(Hold::Executes(name(one)?.to_ascii_lowercase()));
    }
    if let Some([_, ..]) = after(tokens, &["set", "transaction"]) {
        return Some(Hold::Begins(vec![Thing::NextTransaction]));
    }
    if after(tokens, &["start", "transaction"]).is_some()
        || matches!(after(tokens, &["begin"]), Some([]))
        || matches!(after(tokens, &["begin", "work"]), Some([]))
    {
        return ends(Thing::NextTransaction);
    }
    let is_tables = |token: &Token<'_>| is(token, "tables") || is(token, "table");
    match tokens {
        [lock, tables, _, ..] if is(lock, "lock") && is_tables(tables) => Some(Hold::Begins(vec![Thing::TableLocks])),
        [unlock, tables] if is(unlock, "unlock") && is_tables(tables) => ends(Thing::TableLocks),
        [lock, instance, ..] if is(lock, "lock") && is(instance, "instance") => {
            Some(Hold::Begins(vec![Thing::InstanceLock]))
        }
        [unlock, instance] if is(unlock, "unlock") && is(instance, "instance") => ends(Thing::InstanceLock),
        [flush, tables, .., read, lock]
            if is(flush, "flush") && is_tables(tables) && is(read, "read") && is(lock, "lock") =>
        {
            Some(Hold::Begins(vec![Thing::TableLocks]))
        }
        [handler, one, close] if is(handler, "handler") && is(close, "close") => ends(Thing::Handler(name(one)?)),
        [handler, rest @ ..] if is(handler, "handler") => {
            let (Thing::Table(_, own), rest) = table(rest)? else { return None };
            let alias = match rest {
                [open] if is(open, "open") => own,
                [open, alias] if is(open, "open") => name(alias)?,
                [open, word, alias] if is(open, "open") && is(word, "as") => name(alias)?,
                _ => return None,
            };
            Some(Hold::Begins(vec![Thing::Handler(alias)]))
        }
        _ => None,
    }
}

/// `[IF EXISTS] a, b [RESTRICT]`
fn dropped(tokens: &[Token<'_>]) -> Option<Hold> {
    let mut rest = after(tokens, &["if", "exists"]).unwrap_or(tokens);
    let mut gone = Vec::new();
    loop {
        let (one, others) = table(rest)?;
        gone.push(one);
        rest = match others {
            [] => return Some(Hold::Ends(gone)),
            [last] if is(last, "restrict") || is(last, "cascade") => return Some(Hold::Ends(gone)),
            [comma, others @ ..] if comma.kind == Kind::Comma => others,
            _ => return None,
        };
    }
}

/// Locks of users: all of them must be named.
fn user_locks(tokens: &[Token<'_>]) -> Option<Hold> {
    if let [_, all, open, close, rest @ ..] = tokens
        && is(all, "release_all_locks")
        && [open.kind, close.kind] == [Kind::Open, Kind::Close]
        // `FROM t` and `LIMIT 0` come to nothing.
        && (rest.is_empty() || after(rest, &["as"]).is_some_and(|alias| alias.len() == 1))
    {
        return Some(Hold::NoUserLocks);
    }
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if is(token, "get_lock") || is(token, "release_lock") {
            let [open, literal, next, ..] = tokens.get(at + 1..)? else { return None };
            let inside = std::str::from_utf8(literal.bytes).ok()?.strip_prefix('\'')?.strip_suffix('\'')?;
            let is_whole = matches!(next.kind, Kind::Comma | Kind::Close) && open.kind == Kind::Open;
            names.push(Some(inside).filter(|name| is_whole && !name.contains('\''))?.to_owned());
        } else if may_lock(token) {
            return None;
        }
    }
    (!names.is_empty()).then_some(Hold::UserLocks(names))
}

/// Another function of locks, or one of these by a quoted name.
fn may_lock(token: &Token<'_>) -> bool {
    let name = token.bytes.to_ascii_lowercase();
    let has = |word: &&str| memchr::memmem::find(&name, word.as_bytes()).is_some();
    matches!(token.kind, Kind::Word | Kind::Quoted)
        && ["get_lock", "release_all_locks", "service_", "version_tokens"].iter().any(has)
}

fn is(token: &Token<'_>, word: &str) -> bool {
    token.kind == Kind::Word && token.bytes.eq_ignore_ascii_case(word.as_bytes())
}

/// What is behind these words.
fn after<'a, 't>(tokens: &'t [Token<'a>], words: &[&str]) -> Option<&'t [Token<'a>]> {
    let (begins, rest) = tokens.split_at_checked(words.len())?;
    begins.iter().zip(words).all(|(token, word)| is(token, word)).then_some(rest)
}

/// A table's name, and what is behind it.
fn table<'a, 't>(tokens: &'t [Token<'a>]) -> Option<(Thing, &'t [Token<'a>])> {
    match tokens {
        [database, dot, own, rest @ ..] if dot.kind == Kind::Dot => {
            Some((Thing::Table(Some(name(database)?), name(own)?), rest))
        }
        [own, rest @ ..] => Some((Thing::Table(None, name(own)?), rest)),
        [] => None,
    }
}

/// A name, with quotes or without.
fn name(token: &Token<'_>) -> Option<String> {
    let bytes = match (token.kind, token.bytes) {
        (Kind::Quoted, [b'`', inside @ .., b'`']) if !inside.contains(&b'`') && !inside.is_empty() => inside,
        (Kind::Word, bare) => bare,
        _ => return None,
    };
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Thing {
        let (database, own) = name.split_once('.').map_or((None, name), |(database, own)| (Some(database), own));
        Thing::Table(database.map(str::to_owned), own.to_owned())
    }

    #[test]
    fn tables() {
        for (text, expected) in [
            ("CREATE TEMPORARY TABLE a (b INT)", Some("a")),
            ("create temporary table if not exists `a` (b TEXT COMMENT \"x\")", Some("a")),
            ("CREATE OR REPLACE TEMPORARY TABLE d.a SELECT 'ä'", Some("d.a")),
            ("CREATE TEMPORARY TABLE a LIKE b", Some("a")),
            ("CREATE TEMPORARY TABLE a", Some("a")),
            ("CREATE TEMPORARY TABLE a#\n.b (c INT)", None),
            ("CREATE TEMPORARY TABLE a/**/.b (c INT)", None),
            ("CREATE TEMPORARY TABLE a\"b\"", None),
            ("CREATE /*!99999 x */ TEMPORARY TABLE a", None),
            ("CREATE TEMPORARY SEQUENCE a", None),
            ("CREATE TABLE a (b INT)", None),
        ] {
            let expected = expected.map(|name| Hold::Begins(vec![table(name)]));
            assert_eq!(of(text.as_bytes()), expected, "{text}");
        }
        let long = format!("CREATE TEMPORARY TABLE {} (b INT)", "a".repeat(600));
        assert_eq!(of(long.as_bytes()), None);
        for (text, expected) in [
            ("DROP TABLE a", Some(&["a"][..])),
            ("drop temporary table if exists `a`, d.b , c;", Some(&["a", "d.b", "c"])),
            ("DROP TABLE a RESTRICT", Some(&["a"])),
            ("DROP TABLE a WAIT 5", None),
            ("DROP TABLE a; SELECT 1", None),
            ("DROP TABLE 'a'", None),
            ("DROP VIEW a", None),
        ] {
            let expected = expected.map(|names| Hold::Ends(names.iter().map(|name| table(name)).collect()));
            assert_eq!(of(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn others() {
        let begins = |thing| Some(Hold::Begins(vec![thing]));
        let ends = |thing| Some(Hold::Ends(vec![thing]));
        let handler = |name: &str| Thing::Handler(name.to_owned());
        let locks = |names: &[&str]| Some(Hold::UserLocks(names.iter().map(|name| (*name).to_owned()).collect()));
        let prepares =
            |text: Option<&str>| Some(Hold::Prepares { name: "s".to_owned(), text: text.map(str::to_owned) });
        for (text, expected) in [
            ("LOCK TABLES a READ, b WRITE", begins(Thing::TableLocks)),
            ("LOCK TABLES", None),
            ("SET TRANSACTION READ ONLY", begins(Thing::NextTransaction)),
            ("SET TRANSACTION", None),
            ("SET SESSION TRANSACTION READ ONLY", None),
            ("begin", ends(Thing::NextTransaction)),
            ("BEGIN WORK;", ends(Thing::NextTransaction)),
            ("START TRANSACTION READ ONLY", ends(Thing::NextTransaction)),
            ("BEGIN NOT ATOMIC SELECT 1; END", None),
            ("UNLOCK TABLES", ends(Thing::TableLocks)),
            ("UNLOCK TABLES x", None),
            ("FLUSH TABLES WITH READ LOCK", begins(Thing::TableLocks)),
            ("FLUSH TABLES a FOR EXPORT", None),
            ("LOCK INSTANCE FOR BACKUP", begins(Thing::InstanceLock)),
            ("unlock instance;", ends(Thing::InstanceLock)),
            ("HANDLER a OPEN", begins(handler("a"))),
            ("HANDLER d.a OPEN AS `h`", begins(handler("h"))),
            ("HANDLER a OPEN h", begins(handler("h"))),
            ("HANDLER h CLOSE", ends(handler("h"))),
            ("HANDLER h READ FIRST", None),
            ("SELECT GET_LOCK('a', 10)", locks(&["a"])),
            ("DO GET_LOCK('a', 10), RELEASE_LOCK('b')", locks(&["a", "b"])),
            ("SELECT GET_LOCK(CONCAT('a'), 10)", None),
            ("SELECT GET_LOCK('a' 'b', 10)", None),
            ("SELECT GET_LOCK(@a, 10), GET_LOCK('a', 1)", None),
            ("SELECT GET_LOCK('a''b', 10)", None),
            ("SELECT GET_LOCK('a', 0), `get_lock`('b', 0)", None),
            ("SELECT GET_LOCK('a', 0), service_get_write_locks('b', 'c', 0)", None),
            ("SELECT RELEASE_ALL_LOCKS() LIMIT 0", None),
            ("SELECT RELEASE_ALL_LOCKS() FROM t", None),
            ("SELECT RELEASE_ALL_LOCKS()", Some(Hold::NoUserLocks)),
            ("SELECT RELEASE_ALL_LOCKS() AS x", Some(Hold::NoUserLocks)),
            ("DO RELEASE_ALL_LOCKS(), GET_LOCK('a', 1)", None),
            ("SELECT GET_LOCK('a', RELEASE_ALL_LOCKS())", None),
            ("SELECT 1", None),
            ("PREPARE S FROM 'SELECT ''1'' + ?'", prepares(Some("SELECT '1' + ?"))),
            ("PREPARE `s` FROM @a", prepares(None)),
            ("PREPARE s FROM 'a' 'b'", None),
            ("PREPARE s FROM 'a\\'b'", None),
            ("EXECUTE S", Some(Hold::Executes("s".to_owned()))),
            ("EXECUTE s USING @a, @b", Some(Hold::Executes("s".to_owned()))),
            ("EXECUTE s USING 1", None),
            ("EXECUTE IMMEDIATE 'SELECT 1'", None),
            ("DEALLOCATE PREPARE s", ends(Thing::Statement("s".to_owned()))),
            ("DROP PREPARE S", ends(Thing::Statement("s".to_owned()))),
        ] {
            assert_eq!(of(text.as_bytes()), expected, "{text}");
        }
    }
}
