//! What a MySQL or MariaDB text says it will do to its connection.
//!
//! A lexer and a scan over its tokens, no parser. What may be read in several ways (executable comments, dollar quotes) is
//! read in each of them, and everything found counts. No input panics, and time is linear in a text of bounded length.
//!
//! Session state is not replayed for these servers: whatever outlives its statement pins. What can't be seen from here:
//! * what routines do, by their names alone (`body.rs` reads their definitions)
//! * the insides of strings (`PREPARE s FROM 'KILL 5'`), and what triggers, views, events and generated columns call
//! * how `completion_type` changes a `COMMIT`, and that every `SELECT` sets `FOUND_ROWS()` and the warnings: whoever asks for
//!   such values says so (`asks_sequence`), but not everyone who makes one (`draws_sequence`)
//! * what comes behind the first [`TEXT_BYTES_MAX`] of a text that is prepared, and of one that `long.rs` can't read as it passes: these
//!   pin as unreadable, as anything may follow

pub mod body;
pub mod calls;
pub mod holds;
mod lexer;
pub mod long;
pub mod mentions;
mod names;
mod routine;
mod scan;
pub mod settings;
#[cfg(test)]
mod tests;
mod words;
pub mod written;

use std::collections::BTreeSet;

use lexer::{OLDEST_RELEASE, Reading};

use crate::protocol::{Intent, PinReason};
use written::Written;

/// How much of a text is read: a hostile one is read in up to sixteen ways, while others wait.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// A `KILL` is shorter.
const KILL_BYTES_MAX: usize = 256;
/// What ends a transaction is shorter, with whatever comments there are.
const COMMAND_BYTES_MAX: usize = 4 << 10;

/// Versions that a text's executable comments may ask for, so that each of them is tried. Dumps have up to four.
const VERSIONS_MAX: usize = 8;

/// How the server reads the text, as far as it has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dialect {
    /// `sql_mode` has `ANSI_QUOTES`: `".."` is a name.
    pub ansi_quotes: bool,
    /// `sql_mode` has `NO_BACKSLASH_ESCAPES` (status flag 0x200).
    pub no_backslash_escapes: bool,
    /// `character_set_client` has characters whose second byte may be a backslash or a backquote (big5, gbk, gb18030, sjis,
    /// cp932).
    pub multibyte_unsafe: bool,
    /// `character_set_client` is utf8mb4 or utf8mb3: no byte above ASCII is a blank, as 0xA0 is in latin1.
    pub utf8: bool,
    /// `/*M! ... */` runs, versions are MariaDB's, and there are no dollar quotes.
    pub mariadb: bool,
    /// What is in flight may change the above.
    pub unsure: bool,
}

/// A text of any number of statements, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statement {
    /// Everything its statements intend, together.
    pub intent: Intent,
    /// Statements that aren't empty; the most of its readings. A routine's body is part of one. Of a compound statement of
    /// MariaDB's (`BEGIN NOT ATOMIC ...; END`) each semicolon's part counts.
    pub statements: usize,
    /// What it does, if it is one statement and is read in one way only.
    pub command: Command,
    /// It may end the transaction that is open, or the connection: `COMMIT`, what commits implicitly, `CALL`, several
    /// statements, what can't be read.
    pub may_end_transaction: bool,
    /// `LOAD DATA LOCAL` or `LOAD XML LOCAL` is in it: the server may ask for a file.
    pub is_load_local: bool,
    /// It begins with a word that begins no statement: a mistake, or in Oracle's mode of MariaDB's a procedure's name.
    pub is_unknown: bool,
    /// A `KILL` is somewhere in it. It is [`Command::Kill`] too only if it is the whole text in every reading.
    pub has_kill: bool,
    /// A statement of `XA` is in it: what it prepares outlives its connection.
    pub has_xa: bool,
    /// Numbers that its `INSERT`s write out.
    pub written: Written,
}

/// What a single statement does, as far as it matters to who keeps its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Command {
    /// Anything else, or several statements.
    #[default]
    Other,
    /// No statement at all (the server answers with an error, 1065).
    Empty,
    /// `BEGIN`, `START TRANSACTION`
    Begin,
    /// `COMMIT`
    Commit(End),
    /// `ROLLBACK`; not to a savepoint.
    Rollback(End),
    /// `ROLLBACK TO` a savepoint.
    RollbackTo,
    /// `KILL`
    Kill {
        /// What is killed.
        kind: KillKind,
        /// The connection's number, if it is written out.
        id: Option<u64>,
    },
    /// `USE`
    Use,
}

/// What follows a transaction's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// `AND CHAIN`: the next transaction.
    pub chain: bool,
    /// `RELEASE`: the connection's end.
    pub release: bool,
}

/// What `KILL` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillKind {
    /// `KILL 5`, `KILL CONNECTION 5`
    Connection,
    /// `KILL QUERY 5`
    Query,
    /// MariaDB's `HARD`, `SOFT`, `USER` and `ID`.
    Other,
}

/// Reads a text as the server would. If it is longer than [`TEXT_BYTES_MAX`], its beginning (see [`classify_prefix`]).
pub fn classify(text: &[u8], dialect: Dialect) -> Statement {
    match text.get(..TEXT_BYTES_MAX) {
        Some(first) if text.len() > TEXT_BYTES_MAX => classify_prefix(first, dialect),
        _ => read_all_ways(text, dialect),
    }
}

/// A text that is one `KILL` and nothing else, however it is read: whom.
pub fn kill(text: &[u8]) -> Option<(KillKind, u64)> {
    let is_word = |at: usize| text.get(at..at + 4).is_some_and(|word| word.eq_ignore_ascii_case(b"kill"));
    let may_be = text.len() <= KILL_BYTES_MAX && memchr::memchr2_iter(b'k', b'K', text).any(is_word);
    let read = if may_be { command(text) } else { Command::Other };
    let Command::Kill { kind, id: Some(id) } = read else { return None };
    (kind != KillKind::Other).then_some((kind, id))
}

/// What a text does that is short and one statement, whichever server reads it.
pub fn command(text: &[u8]) -> Command {
    if text.len() > COMMAND_BYTES_MAX {
        return Command::Other;
    }
    let dialects = [false, true].map(|mariadb| Dialect { mariadb, unsure: true, ..Dialect::default() });
    let [one, other] = dialects.map(|dialect| classify(text, dialect).command);
    if one == other { one } else { Command::Other }
}

/// Reads the beginning of a text that goes on: what can't be seen may do anything, a `KILL` among it.
pub fn classify_prefix(first: &[u8], dialect: Dialect) -> Statement {
    let first = first.get(..TEXT_BYTES_MAX).unwrap_or(first);
    let mut statement = read_all_ways(first, dialect);
    statement.may_be_anything();
    statement
}

/// In every way in which a server of the dialect may read it.
fn read_all_ways(text: &[u8], dialect: Dialect) -> Statement {
    // Those below the first one run in any case.
    let mut versions = BTreeSet::from([OLDEST_RELEASE - 1]);
    let too_many = lexer::versions(text, dialect).any(|version| {
        versions.insert(version);
        versions.len() > VERSIONS_MAX
    });
    let mut found: Option<Statement> = None;
    let mut dollar_quotes = false;
    for dollar_strings in [false, true] {
        if dollar_strings && !dollar_quotes {
            break;
        }
        for version in versions.iter().rev().take(VERSIONS_MAX).copied() {
            let (statement, has_dollar_quote) = scan::read(text, dialect, Reading { version, dollar_strings });
            dollar_quotes |= has_dollar_quote;
            found = Some(found.map_or(statement, |before| before.or(statement)));
        }
    }
    let mut found = found.unwrap_or_default();
    if too_many {
        found.may_be_anything();
    }
    found
}

impl Statement {
    /// A transaction may be open behind its error, although none was before.
    pub fn may_begin(&self) -> bool {
        self.statements != 1 || self.may_end_transaction || self.command == Command::Begin
    }

    /// The server closes behind it.
    pub const fn releases(&self) -> bool {
        matches!(
            self.command,
            Command::Commit(End { release: true, .. }) | Command::Rollback(End { release: true, .. })
        )
    }

    /// Not all of it can be read.
    pub fn may_be_anything(&mut self) {
        self.command = Command::Other;
        self.may_end_transaction = true;
        self.intent.pins_when_sent.add(PinReason::Unreadable);
        self.intent.asks_sequence = true;
        self.intent.draws_sequence = true;
        self.intent.hides_last_value = true;
        self.intent.changes_settings = true;
        self.written = Written::ANY;
    }

    /// One or the other, which is not known.
    pub fn or(self, other: Self) -> Self {
        Self {
            intent: self.intent.and(other.intent),
            statements: self.statements.max(other.statements),
            command: if self.command == other.command { self.command } else { Command::Other },
            may_end_transaction: self.may_end_transaction || other.may_end_transaction,
            is_load_local: self.is_load_local || other.is_load_local,
            is_unknown: self.is_unknown || other.is_unknown,
            has_kill: self.has_kill || other.has_kill,
            has_xa: self.has_xa || other.has_xa,
            written: self.written.or(other.written),
        }
    }
}

/// Whose pins may have changed how the next text is read, or what a name in it means.
const CHANGE_SETTINGS: [PinReason; 6] = [
    PinReason::Setting,
    PinReason::PreparedStatement,
    PinReason::TemporaryObject,
    PinReason::OpaqueCode,
    PinReason::ServerProcess,
    PinReason::Unreadable,
];
