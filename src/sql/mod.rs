//! What a statement's text says it will do to its connection.
//!
//! A lexer and a scan over its tokens, no parser: the text only proposes, the server's answers decide. Nothing here waits or
//! fails, and what it keeps is bounded; what can't be read is reported as such. Strings are never looked into: SQL that is
//! built at run time (`DO`, functions, triggers) can't be seen from here.

mod calls;
mod fingerprint;
pub mod lexer;
pub mod long;
pub mod mysql;
mod postgres;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod transaction;

use std::ops::Range;

pub use fingerprint::{command, fingerprint};
pub use lexer::identifier_value;

use crate::protocol::Intent;

/// How the server reads the text: what it has told about itself when the text is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dialect {
    /// A backslash in a plain string takes the next byte with it (`standard_conforming_strings = off`).
    pub backslash_quotes: bool,
    /// `client_encoding` has characters whose second byte may be a quote or a backslash (SJIS, BIG5, GBK, UHC,
    /// GB18030, JOHAB, SHIFT_JIS_2004).
    pub multibyte_unsafe: bool,
    /// What was sent before may change both by the time the server reads the text.
    pub unsure: bool,
}

/// A text of any number of statements, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// Everything its statements intend, together.
    pub intent: Intent,
    /// Statements that aren't empty. An SQL-standard function body (`BEGIN ATOMIC ...; ...; END`) counts one for each
    /// semicolon in it, so it is one only if it is one, and more may still be one.
    pub statements: usize,
    /// Names that it may call as functions, as the server would compare them; those that say nothing are left out.
    pub calls: Vec<Box<[u8]>>,
    /// What it says of prepared statements, in its order. No pin is set for that: the caller knows whose names they are.
    /// Empty if the text can't be read.
    pub references: Vec<Reference>,
}

/// A place where a text names a prepared statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What is done with it.
    pub verb: Verb,
    /// Where the name stands, quotes included (see [`identifier_value`]); `ALL` if it is that.
    pub name: Range<usize>,
    /// Where the words end that say so: the statement that is prepared begins there.
    pub end: usize,
    /// Where its statement ends, or more if that is the text's end.
    pub statement_end: usize,
    /// It is `EXECUTE` alone, not explained, and no part of another statement.
    pub is_plain: bool,
}

/// References that are listed; one more says that there are too many.
pub const REFERENCES_MAX: usize = 1_000;

/// What is done with a prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `PREPARE name ... AS`
    Prepare,
    /// `EXECUTE name`, also in `EXPLAIN` and `CREATE TABLE ... AS`
    Execute,
    /// `DEALLOCATE name`
    Deallocate,
    /// `DEALLOCATE ALL`
    DeallocateAll,
}

/// The text may be read in different ways in different dialects.
pub fn depends_on_dialect(sql: &[u8]) -> bool {
    !sql.is_ascii() || sql.contains(&b'\\')
}

/// Reads a text as PostgreSQL would. It ends at a NUL byte, where the server sees its end.
pub fn classify(sql: &[u8], dialect: Dialect) -> Statement {
    postgres::classify(sql, dialect)
}
