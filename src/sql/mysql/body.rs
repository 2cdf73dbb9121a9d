//! What a stored procedure or function may leave on its connection, by its definition as `SHOW CREATE` tells it.
//!
//! A *calm* one leaves nothing but user variables whose names stand in it, and what the routines leave that it calls. A definition with
//! anything else in it, or that may be read in another way, is not calm; nor is one in a language or a mode that is not read here.

use super::Dialect;
use super::calls::{Routine, RoutineKind, found, is, is_behind_dot, tokens};
use super::lexer::{Kind, Token};
use super::mentions;

/// Longer ones are not read.
const BYTES_MAX: usize = 64 << 10;

/// All that it may leave, and what it wants to find.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calm {
    /// User variables that it mentions, as `@name`.
    pub variables: Vec<String>,
    /// What it calls.
    pub routines: Vec<Routine>,
    /// It may ask for `LAST_INSERT_ID()`.
    pub asks_id: bool,
    /// It may ask for other last values.
    pub asks: bool,
    /// It may make another `LAST_INSERT_ID()`, which a function takes back at its end.
    pub makes_id: bool,
    /// It may set it (`LAST_INSERT_ID(expr)`).
    pub sets_id: bool,
}

/// What else a statement begins with, or has in it, that leaves something, or may end the connection.
const WILD: [&str; 38] = [
    "prepare",
    "execute",
    "deallocate",
    "immediate",
    "temporary",
    "role",
    "flush",
    "backup",
    "unlock",
    "xa",
    "kill",
    "alter",
    "drop",
    "rename",
    "grant",
    "revoke",
    "load",
    "install",
    "uninstall",
    "import",
    "clone",
    "restart",
    "shutdown",
    "purge",
    "stop",
    "reset",
    "change",
    "binlog",
    "nextval",
    "currval",
    "lastval",
    "setval",
    "resource",
    "aggregate",
    "package",
    "javascript",
    "cache",
    "completion_type",
];

/// What a statement may begin with.
const HEADS: [&str; 36] = [
    "select",
    "with",
    "insert",
    "update",
    "delete",
    "replace",
    "values",
    "table",
    "set",
    "if",
    "elseif",
    "else",
    "case",
    "when",
    "loop",
    "while",
    "repeat",
    "until",
    "for",
    "begin",
    "end",
    "declare",
    "return",
    "call",
    "open",
    "fetch",
    "close",
    "leave",
    "iterate",
    "signal",
    "resignal",
    "get",
    "commit",
    "rollback",
    "savepoint",
    "do",
];

/// Behind one of these a statement may begin.
const OPENERS: [&str; 6] = ["begin", "then", "else", "do", "loop", "repeat"];

/// Reads it. `None`: it may do anything. `modes`: the `sql_mode` that it has.
pub fn read(kind: RoutineKind, definition: &[u8], modes: &[u8], mariadb: bool) -> Option<Calm> {
    let has_mode = |mode: &str| modes.split(|byte| *byte == b',').any(|one| one.eq_ignore_ascii_case(mode.as_bytes()));
    if definition.len() > BYTES_MAX || has_mode("ORACLE") || has_mode("MSSQL") {
        return None;
    }
    let dialect = Dialect {
        ansi_quotes: has_mode("ANSI_QUOTES"),
        no_backslash_escapes: has_mode("NO_BACKSLASH_ESCAPES"),
        mariadb,
        ..Dialect::default()
    };
    let tokens = tokens(definition, dialect)?;
    // A letter that its client's character set does not have comes as a question mark.
    let is_odd = |token: &Token<'_>| {
        !token.bytes.is_ascii() && token.kind != Kind::Literal || token.kind == Kind::Other && token.bytes == b"?"
    };
    if tokens.iter().any(is_odd) {
        return None;
    }
    let (body, mut locals) = header(kind, &tokens)?;
    locals.extend(declared(body));
    let is_plain = (0..body.len()).all(|at| is_calm(body, at, &locals));
    let found = found(body, dialect).filter(|found| is_plain && !found.is_held)?;
    let mut variables = Vec::new();
    for token in body.iter().filter(|token| token.kind == Kind::UserVariable) {
        variables.extend(mentions::variables(token.bytes)?);
    }
    variables.sort();
    variables.dedup();
    if variables.len() > mentions::MENTIONS_MAX {
        return None;
    }
    let has = |at: usize, word: &str| body.get(at).is_some_and(|token| is(token, word));
    let is_statement = |at: usize| body.get(at + 1).is_none_or(|next| next.kind != Kind::Open);
    // A table that is made of a SELECT as well.
    let makes = ["insert", "replace", "create"];
    let makes_id = (0..body.len()).any(|at| makes.iter().any(|word| has(at, word)) && is_statement(at));
    let asks = ["get", "warnings", "errors", "previous"];
    Some(Calm {
        variables,
        routines: found.routines,
        asks_id: found.asks_id,
        asks: found.asks || (0..body.len()).any(|at| asks.iter().any(|word| has(at, word))),
        makes_id,
        sets_id: found.sets_id,
    })
}

/// What follows its parameters, and their names.
fn header<'a, 't>(kind: RoutineKind, tokens: &'t [Token<'a>]) -> Option<(&'t [Token<'a>], Vec<&'a [u8]>)> {
    let word = if kind == RoutineKind::Procedure { "procedure" } else { "function" };
    let at = tokens.iter().take(8).position(|token| is(token, word))?;
    let (head, rest) = (tokens.get(..at)?, tokens.get(at + 1..)?);
    if !is(head.first()?, "create") || head.iter().any(|token| is(token, "aggregate")) {
        return None;
    }
    let [own, open, rest @ ..] = rest else { return None };
    if !matches!(own.kind, Kind::Word | Kind::Quoted) || open.kind != Kind::Open {
        return None;
    }
    let (mut depth, mut is_first, mut names) = (1_usize, true, Vec::new());
    for (at, token) in rest.iter().enumerate() {
        depth = depth_behind(token, depth);
        if depth == 0 {
            return Some((rest.get(at + 1..)?, names));
        }
        // It may call what it likes.
        if is(token, "default") {
            return None;
        }
        let is_direction = || ["in", "out", "inout"].iter().any(|word| is(token, word));
        if is_first && !is_direction() {
            names.push(local(token)?);
            is_first = false;
        }
        is_first |= token.kind == Kind::Comma && depth == 1;
    }
    None
}

/// Variables that the block which is the whole body declares.
fn declared<'a>(body: &[Token<'a>]) -> Vec<&'a [u8]> {
    let mut names = Vec::new();
    let Some(begins) = body.iter().position(|token| is(token, "begin")) else { return names };
    let is_inner = ["if", "case", "loop", "while", "repeat", "for", "declare", "return"];
    let (head, mut rest) = body.split_at(begins);
    if head.iter().any(|token| token.kind == Kind::Semicolon || is_inner.iter().any(|word| is(token, word))) {
        return names;
    }
    rest = rest.get(1..).unwrap_or_default();
    while rest.first().is_some_and(|token| is(token, "declare")) {
        let end = rest.iter().position(|token| token.kind == Kind::Semicolon).unwrap_or(rest.len());
        let (statement, others) = rest.split_at(end);
        let mut at = 1;
        while statement.get(at + 1).is_some_and(|comma| comma.kind == Kind::Comma) {
            at += 2;
        }
        let others_begin = ["handler", "cursor", "condition"];
        if statement.get(at + 1).is_none_or(|next| others_begin.iter().any(|word| is(next, word))) {
            break;
        }
        for token in statement.get(1..=at).unwrap_or_default().iter().step_by(2) {
            names.extend(local(token));
        }
        rest = others.get(1..).unwrap_or_default();
    }
    names
}

/// The name of a variable of its own.
fn local<'a>(token: &Token<'a>) -> Option<&'a [u8]> {
    match (token.kind, token.bytes) {
        (Kind::Quoted, [b'`', inside @ .., b'`']) => Some(inside),
        (Kind::Word, bare) => Some(bare),
        _ => None,
    }
}

/// This token, where it stands, leaves nothing on the connection that has no name here.
fn is_calm(body: &[Token<'_>], at: usize, locals: &[&[u8]]) -> bool {
    let Some(token) = body.get(at) else { return true };
    let is_at = |at: usize, words: &[&str]| body.get(at).is_some_and(|token| words.iter().any(|word| is(token, word)));
    let before = |words: &[&str]| at.checked_sub(1).is_some_and(|before| is_at(before, words));
    if token.kind == Kind::Semicolon || is(token, "begin") {
        return begins_calm(body, at + 1);
    }
    if is_behind_dot(body, at) {
        return !is_at(at, &["nextval", "currval"]);
    }
    if is(token, "set") {
        return sets_calm(body, at, locals);
    }
    if token.kind != Kind::Word {
        return true;
    }
    match token.bytes.to_ascii_lowercase().as_slice() {
        b"handler" => before(&["continue", "exit", "undo"]),
        b"lock" => is_at(at + 1, &["in"]),
        b"transaction" => before(&["start"]),
        b"start" => is_at(at + 1, &["transaction"]),
        b"create" => is_at(at + 1, &["table"]),
        b"release" => is_at(at + 1, &["savepoint"]),
        b"language" => is_at(at + 1, &["sql"]),
        b"value" => !before(&["next"]),
        word => !WILD.iter().any(|wild| wild.as_bytes() == word),
    }
}

/// How deep in parentheses it is behind this.
fn depth_behind(token: &Token<'_>, depth: usize) -> usize {
    if token.kind == Kind::Close { depth.saturating_sub(1) } else { depth + usize::from(token.kind == Kind::Open) }
}

/// What begins here is a statement that is known, or nothing.
fn begins_calm(body: &[Token<'_>], at: usize) -> bool {
    let Some(first) = body.get(at) else { return true };
    let is_label = || body.get(at + 1).is_some_and(|colon| colon.bytes == b":");
    let more = ["start", "release", "truncate", "create", "explain", "show"];
    first.kind == Kind::Open || HEADS.iter().chain(&more).any(|word| is(first, word)) || is_label()
}

/// The `SET` at this place sets columns, or variables of the routine's own or of users.
fn sets_calm(body: &[Token<'_>], at: usize, locals: &[&[u8]]) -> bool {
    let before = |words: &[&str]| {
        let before = at.checked_sub(1).and_then(|before| body.get(before));
        before.is_some_and(|before| words.iter().any(|word| is(before, word)))
    };
    let opens = |token: &Token<'_>| token.kind == Kind::Semicolon || OPENERS.iter().any(|word| is(token, word));
    // A type, or a character set.
    if body.get(at + 1).is_some_and(|next| next.kind == Kind::Open) || before(&["character", "char"]) {
        return true;
    }
    let begins = body.get(..at).unwrap_or_default().iter().rposition(opens).map_or(0, |opener| opener + 1);
    let has_columns = ["update", "insert", "replace", "signal", "resignal", "with"];
    let head = body.get(begins).filter(|_| begins < at);
    if head.is_some_and(|head| has_columns.iter().any(|word| is(head, word))) {
        return true;
    }
    let mut targets = at + 1;
    loop {
        let Some([target, sign, ..]) = body.get(targets..) else { return false };
        let is_sign = sign.kind == Kind::Assign || sign.bytes == b"=";
        let is_own = |name: &[u8]| locals.iter().any(|local| local.eq_ignore_ascii_case(name));
        let is_known = target.kind == Kind::UserVariable || local(target).is_some_and(is_own);
        if !is_sign || !is_known {
            return false;
        }
        let mut depth = 0_usize;
        let ends = |token: &Token<'_>| {
            depth = depth_behind(token, depth);
            token.kind == Kind::Semicolon || token.kind == Kind::Comma && depth == 0
        };
        let rest = body.get(targets + 2..).unwrap_or_default();
        match rest.iter().position(ends).map(|end| (end, rest.get(end).map(|token| token.kind))) {
            Some((end, Some(Kind::Comma))) => targets += 2 + end + 1,
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests;
