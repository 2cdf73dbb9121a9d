//! The routines that a text calls, by name: procedures, and functions that are not built in.
//!
//! Their code is no reason to pin once it has been read ([`body`](super::body)). What may be read in several ways, or does not show all that
//! it calls, has no names here: whoever sends it pins, as the scan says.

use super::lexer::{Kind, Lexer, OLDEST_RELEASE, Reading, Token};
use super::names::{Parentheses, is_known, may_be_known};
use super::scan::{Effect, is_ambiguous, unquoted};
use super::{Dialect, TEXT_BYTES_MAX, mentions};
use std::collections::BTreeSet;

/// Longer texts are not read for names.
const BYTES_MAX: usize = 64 << 10;
/// A text that calls more is not told apart.
const NAMES_MAX: usize = 8;
/// Bytes of a name: 64 letters.
const NAME_BYTES_MAX: usize = 64;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutineKind {
    /// By its name in an expression.
    Function,
    /// By `CALL`.
    Procedure,
}

/// A stored procedure or function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Routine {
    /// What it is: names of the two are apart.
    pub kind: RoutineKind,
    /// Its database. `None`: that of whoever calls it.
    pub schema: Option<String>,
    /// Its own, in lower case.
    pub name: String,
}

impl Routine {
    /// The server has a function of its own by this name, or none: where there is no stored one, whoever calls it leaves nothing.
    pub fn may_be_built_in(&self, mariadb: bool) -> bool {
        self.kind == RoutineKind::Function && may_be_known(self.name.as_bytes(), mariadb)
    }
}

/// What a text calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calls {
    /// Each once.
    pub routines: Vec<Routine>,
    /// It may ask for last values itself.
    pub asks: bool,
    /// It may itself make a `LAST_INSERT_ID()` that its answer does not say.
    pub hides_id: bool,
}

/// What stands in tokens.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) routines: Vec<Routine>,
    /// Built-in functions take or end locks, or draw from sequences.
    pub(super) is_held: bool,
    /// `LAST_INSERT_ID()`
    pub(super) asks_id: bool,
    /// `LAST_INSERT_ID(...)`
    pub(super) sets_id: bool,
    /// `ROW_COUNT()` and its like; any `@@name`.
    pub(super) asks: bool,
}

/// What one statement calls. `None`: that can't be told.
pub fn calls(text: &[u8], dialect: Dialect) -> Option<Calls> {
    if text.len() > BYTES_MAX.min(TEXT_BYTES_MAX) {
        return None;
    }
    let read = |dialect| one_way(text, dialect);
    let found = read(dialect)?;
    if memchr::memchr(b'"', text).is_some() && read(Dialect { ansi_quotes: !dialect.ansi_quotes, ..dialect })? != found
    {
        return None;
    }
    Some(found)
}

fn one_way(text: &[u8], dialect: Dialect) -> Option<Calls> {
    let mut tokens = tokens(text, dialect)?;
    tokens.pop_if(|token| token.kind == Kind::Semicolon);
    if tokens.iter().any(|token| token.kind == Kind::Semicolon) {
        return None;
    }
    let head = tokens.iter().position(|token| token.kind != Kind::Open)?;
    // Nothing but their calls is code that can't be seen.
    let is_one = ["call", "select", "insert", "replace", "update", "delete", "do", "with", "set"];
    let is_plain = tokens.get(head).is_some_and(|first| is_one.iter().any(|word| is(first, word)));
    // MariaDB's `SET STATEMENT ... FOR` has another statement in it.
    let has_other = |at: usize, token: &Token<'_>| is(token, "call") && at != head || is(token, "statement");
    if !is_plain || tokens.iter().enumerate().any(|(at, token)| has_other(at, token)) {
        return None;
    }
    let found = found(&tokens, dialect)?;
    let asks = found.asks || found.asks_id || ["previous", "currval"].iter().any(|word| has(&tokens, word));
    let hides_id = found.sets_id || has(&tokens, "returning");
    (!found.routines.is_empty()).then_some(Calls { routines: found.routines, asks, hides_id })
}

/// The user variables of a text, each as `@name` in lower case; by letters alone, in strings and comments too, where the text can be read
/// in several ways. `None`: some can't be told, or have names that take quotes, or there are too many.
pub fn variables(text: &[u8], dialect: Dialect) -> Option<BTreeSet<String>> {
    let tokens = if text.len() > BYTES_MAX { None } else { tokens(text, dialect) };
    let Some(tokens) = tokens else { return Some(mentions::variables(text)?.into_iter().collect()) };
    let name = |token: &Token<'_>| mentions::variables(token.bytes)?.pop();
    let names = tokens.iter().filter(|token| token.kind == Kind::UserVariable).map(name);
    names.collect::<Option<BTreeSet<String>>>().filter(|names| names.len() <= mentions::MENTIONS_MAX)
}

/// All tokens, if there is one way to read them.
pub(super) fn tokens(text: &[u8], dialect: Dialect) -> Option<Vec<Token<'_>>> {
    if ["/*!", "/*M!"].iter().any(|mark| memchr::memmem::find(text, mark.as_bytes()).is_some()) {
        return None;
    }
    let mut lexer = Lexer::new(text, dialect, Reading { version: OLDEST_RELEASE, dollar_strings: false });
    let tokens: Vec<_> = lexer.by_ref().collect();
    let is_odd = |token: &Token<'_>| token.kind == Kind::Unterminated || is_ambiguous(token.kind, token.bytes, dialect);
    (!lexer.is_ambiguous() && !lexer.has_dollar_quote() && !tokens.iter().any(is_odd)).then_some(tokens)
}

/// What they call, and what built-in functions in them do. `None`: that can't be told.
pub(super) fn found(tokens: &[Token<'_>], dialect: Dialect) -> Option<Found> {
    let mut found = Found { asks: tokens.iter().any(|token| token.kind == Kind::SystemVariable), ..Found::default() };
    for (at, token) in tokens.iter().enumerate() {
        if is(token, "call") && !is_behind_dot(tokens, at) {
            let (begins, ends) = (at + 1, chain_end(tokens, at + 1));
            found.add(RoutineKind::Procedure, tokens.get(begins..ends)?)?;
        }
        let Some(last) = at.checked_sub(1).filter(|_| token.kind == Kind::Open) else { continue };
        if !tokens.get(last).is_some_and(is_name) {
            continue;
        }
        let begins = chain_begin(tokens, last);
        let chain = tokens.get(begins..at)?;
        let before = begins.checked_sub(1).and_then(|before| tokens.get(before));
        if before.is_some_and(|before| is(before, "call")) {
            continue;
        }
        let [name] = chain else {
            if !before.is_some_and(names_table) {
                found.add(RoutineKind::Function, chain)?;
            }
            continue;
        };
        let is_empty = tokens.get(at + 1).is_some_and(|next| next.kind == Kind::Close);
        let parentheses = Parentheses { are_close: name.start + name.bytes.len() == token.start, are_empty: is_empty };
        // Where a statement of a routine's may begin: no client's text has that.
        let begins_statement = || before.is_some_and(|before| before.kind == Kind::Semicolon);
        match Effect::of(unquoted(name.bytes), dialect.mariadb) {
            Some(Effect::Locks | Effect::Unlocks | Effect::Draws) => {
                found.is_held = true;
                if Effect::is_loadable(unquoted(name.bytes)) {
                    found.add(RoutineKind::Function, chain)?;
                }
            }
            Some(Effect::Asks) => found.asks = true,
            Some(Effect::LastInsertId) if is_empty => found.asks_id = true,
            Some(Effect::LastInsertId) => found.sets_id = true,
            None if name.kind == Kind::Word && is_known(name.bytes, parentheses, dialect.mariadb) => {}
            None if ["until", "elseif"].iter().any(|word| is(name, word)) && begins_statement() => {}
            None if before.is_some_and(names_table) => {}
            None => found.add(RoutineKind::Function, chain)?,
        }
    }
    Some(found)
}

impl Found {
    /// By what its name is made of.
    fn add(&mut self, kind: RoutineKind, chain: &[Token<'_>]) -> Option<()> {
        let (schema, own) = match chain {
            [own] => (None, own),
            [schema, dot, own] if dot.kind == Kind::Dot => (Some(name(schema)?.to_owned()), own),
            _ => return None,
        };
        let routine = Routine { kind, schema, name: name(own)?.to_ascii_lowercase() };
        if !self.routines.contains(&routine) {
            self.routines.push(routine);
        }
        (self.routines.len() <= NAMES_MAX).then_some(())
    }
}

/// Where the names end that begin at `at`, with dots between them.
fn chain_end(tokens: &[Token<'_>], at: usize) -> usize {
    let mut end = at + usize::from(tokens.get(at).is_some_and(is_name));
    while end > at
        && tokens.get(end).is_some_and(|dot| dot.kind == Kind::Dot)
        && tokens.get(end + 1).is_some_and(is_name)
    {
        end += 2;
    }
    // A dot that nothing follows makes an odd one.
    end + usize::from(tokens.get(end).is_some_and(|token| token.kind == Kind::Dot))
}

/// Where they begin of which the last one is at `at`.
fn chain_begin(tokens: &[Token<'_>], mut at: usize) -> usize {
    while let Some(dot) = at.checked_sub(1).filter(|dot| tokens.get(*dot).is_some_and(|dot| dot.kind == Kind::Dot)) {
        match dot.checked_sub(1).filter(|before| tokens.get(*before).is_some_and(is_name)) {
            Some(before) => at = before,
            // An odd one.
            None => return dot,
        }
    }
    at
}

/// A name behind it is a table's, or an index's, whatever parenthesis follows.
fn names_table(before: &Token<'_>) -> bool {
    let words = ["into", "insert", "replace", "table", "as", "references", "key", "index", "constraint", "exists"];
    matches!(before.kind, Kind::Close | Kind::Literal) || words.iter().any(|word| is(before, word))
}

fn is_name(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted)
}

/// A name in plain letters.
fn name<'a>(token: &Token<'a>) -> Option<&'a str> {
    let bytes = match (token.kind, token.bytes) {
        (Kind::Quoted, [b'`', inside @ .., b'`']) => inside,
        (Kind::Word, bare) => bare,
        _ => return None,
    };
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'`';
    let is_short = (1..=NAME_BYTES_MAX).contains(&bytes.len());
    std::str::from_utf8(bytes).ok().filter(|_| is_short && bytes.iter().all(is_plain))
}

pub(super) fn is(token: &Token<'_>, word: &str) -> bool {
    token.kind == Kind::Word && token.bytes.eq_ignore_ascii_case(word.as_bytes())
}

pub(super) fn is_behind_dot(tokens: &[Token<'_>], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| tokens.get(before)).is_some_and(|before| before.kind == Kind::Dot)
}

fn has(tokens: &[Token<'_>], word: &str) -> bool {
    tokens.iter().any(|token| is(token, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `p:db.name f:name`, with `asks` and `hides` behind.
    fn told(text: &str, dialect: Dialect) -> Option<String> {
        let calls = calls(text.as_bytes(), dialect)?;
        let one = |routine: &Routine| {
            let kind = if routine.kind == RoutineKind::Procedure { "p" } else { "f" };
            let schema = routine.schema.iter().map(|schema| format!("{schema}.")).collect::<String>();
            format!("{kind}:{schema}{}", routine.name)
        };
        let mut all: Vec<String> = calls.routines.iter().map(one).collect();
        all.extend(calls.asks.then(|| "asks".to_owned()));
        all.extend(calls.hides_id.then(|| "hides".to_owned()));
        Some(all.join(" "))
    }

    #[test]
    fn variables_of_a_text() {
        let dialect = Dialect { utf8: true, ..Dialect::default() };
        for (text, expected) in [
            ("SELECT @A, @`b`, @'c', @@sql_mode, 'at @ noon', 'bob@example.com' -- @d", Some("@a @b @c")),
            ("SELECT @`A`, '@é'", Some("@a")),
            ("SELECT @`A b`", None),
            ("SELECT @`é`", None),
            ("SELECT @``", None),
            ("SELECT @a /*! , @b */, 'x@y'", Some("@a @b @y")),
            ("SELECT @a /*! , @b */, '@ '", None),
        ] {
            let names = variables(text.as_bytes(), dialect).map(|names| Vec::from_iter(names).join(" "));
            assert_eq!(names.as_deref(), expected, "{text}");
        }
        let many: Vec<String> = (0..33).map(|number| format!("@a{number}")).collect();
        assert_eq!(variables(format!("SELECT {}", many.join(",")).as_bytes(), dialect), None);
    }

    #[test]
    fn names() {
        for (text, expected) in [
            ("CALL p", Some("p:p")),
            ("call P();", Some("p:p")),
            ("CALL `D`.`P q` (1, 'x')", Some("p:D.p q")),
            ("CALL d . p(@a, f(2), ABS(3))", Some("p:d.p f:f")),
            ("SELECT f(1), d.g(f(2)) FROM t WHERE COUNT(*) IN (1)", Some("f:f f:d.g")),
            ("INSERT INTO t (a, b) VALUES (f(1), NOW())", Some("f:f")),
            ("INSERT t (a) SELECT f(a) FROM (SELECT 1) s (a)", Some("f:f")),
            ("(SELECT f(1))", Some("f:f")),
            ("SET @a = f(1)", Some("f:f")),
            ("DO f(LAST_INSERT_ID())", Some("f:f asks")),
            ("SELECT f(@@identity)", Some("f:f asks")),
            ("INSERT INTO t VALUES (f(1)) RETURNING a", Some("f:f hides")),
            ("SELECT LAST_INSERT_ID(f(1))", Some("f:f hides")),
            ("SELECT HIGH_PRIORITY f(1)", Some("f:f")),
            ("SELECT d.get_lock('a', 1)", Some("f:d.get_lock")),
            ("SELECT `abs`(1)", Some("f:abs")),
            ("CALL p('é', \"x\")", Some("p:p")),
            ("CALL p('a''b') -- f(1)", Some("p:p")),
            // Somebody's, or the server's.
            ("SELECT until(1), f(2)", Some("f:until f:f")),
            ("SELECT COUNT(*), count (1), MAX/**/(2)", Some("f:count f:max")),
            ("SELECT polygon(), polygon(a), f(1)", Some("f:polygon f:f")),
            ("SELECT JSON_SCHEMA_VALID(a, b)", Some("f:json_schema_valid")),
            // In brackets: who knows.
            ("SELECT f(1) AS [']", None),
            // What can't be told.
            ("SELECT 1", None),
            ("CALL", None),
            ("CALL a.b.c()", None),
            ("CALL a.", None),
            ("SELECT a.b.c(1)", None),
            ("SELECT .5.f(1)", None),
            ("CALL é()", None),
            ("CALL \"p\"()", None),
            ("CALL p(\"x', f(1), '\")", Some("p:p")),
            ("CALL p(\"`\", f(1), \"`\")", Some("p:p f:f")),
            ("CALL p(\"\\\", f(1), \\\"\")", None),
            ("CALL p(); CALL q()", None),
            ("CALL p(/*! 1 */)", None),
            ("SET STATEMENT max_statement_time=1 FOR CALL p()", None),
            ("EXPLAIN SELECT f(1)", None),
            ("EXECUTE s", None),
            ("BEGIN NOT ATOMIC CALL p(); END", None),
            ("SELECT 'x", None),
        ] {
            let dialect = Dialect { utf8: true, mariadb: true, ..Dialect::default() };
            assert_eq!(told(text, dialect).as_deref(), expected, "{text}");
        }
        let many: Vec<String> = (0..9).map(|number| format!("f{number}(1)")).collect();
        assert_eq!(told(&format!("SELECT {}", many.join(",")), Dialect::default()), None);
        assert!(told(&format!("SELECT {}", many[1..].join(",")), Dialect::default()).is_some());
        assert_eq!(told("CALL $$p()", Dialect::default()), None);
        // In flight may be what changes how it is read.
        let unsure = Dialect { unsure: true, ..Dialect::default() };
        assert_eq!((told("CALL p('\\'')", unsure), told("CALL p(1)", unsure).as_deref()), (None, Some("p:p")));
    }
}
