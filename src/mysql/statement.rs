//! A client's prepared statements: its numbers for them, and what making them anew on another connection takes.
//!
//! Servers number what they prepare by connection. A client's numbers are the proxy's own, and never given twice; what a server calls a
//! statement is known to that connection alone (`server/prepared.rs`). <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase_ps.html>

use crate::protocol::{ClientError, Intent, has_room_for, keyed_hash};
use crate::sql::mysql::mentions::Mentions;
use crate::sql::mysql::written::Written;
use crate::sql::mysql::{self as sql, Command, End};
use std::collections::HashMap;
use std::sync::Arc;

/// MariaDB's "the one that was prepared last"
/// (<https://mariadb.com/kb/en/com_stmt_execute/>).
pub const LATEST: u32 = u32::MAX;

/// What decides what a server makes of a text: the text itself, and how it is read. By a keyed hash, so that nobody can search for two
/// texts that share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id {
    text: u128,
    /// Of the settings it is read under.
    label: u64,
    /// Of what its parameters have been since it was executed.
    kinds: Kinds,
    had_cursor: bool,
}

/// What parameters have been, by a hash; 0: there are none, or it has not been executed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Kinds(u64);

impl Id {
    /// Of a text, by itself.
    pub fn of(key: &[u8; 16], text: &[u8]) -> Self {
        Self { text: keyed_hash(key, 0, text), label: 0, kinds: Kinds(0), had_cursor: false }
    }

    /// Under the settings with this label.
    pub fn under(self, label: u64) -> Self {
        Self { label, ..self }
    }

    /// Of parameters of these types.
    fn kinds(self, types: impl Iterator<Item = [u8; 2]>) -> Kinds {
        let kinds: Vec<u8> = types.map(|[code, _]| kind(code)).collect();
        let hash = keyed_hash(&self.text.to_le_bytes(), 1, &kinds) as u64;
        Kinds(if kinds.is_empty() { 0 } else { hash | 1 })
    }

    /// Executed with these.
    fn typed(self, kinds: Kinds) -> Self {
        Self { kinds, ..self }
    }

    /// As it has been prepared, and not executed yet.
    pub fn untyped(self) -> Self {
        Self { kinds: Kinds(0), ..self }
    }

    /// Both have been executed with parameters that are one to the server.
    pub fn is_kin(self, other: Self) -> bool {
        self.kinds == other.kinds
    }

    /// Executed as that one.
    pub fn kin(self, other: Self) -> Self {
        Self { kinds: other.kinds, ..self }
    }

    /// It has not been executed yet.
    pub fn is_untyped(self) -> bool {
        self.kinds == Kinds(0)
    }

    /// The same behind an execution with a cursor: MySQL 9.7 sends no rows ever after to who executes it without one, but the columns,
    /// and an OK that looks like a row.
    pub fn with_cursor(self) -> Self {
        Self { had_cursor: true, ..self }
    }
}

/// Types that are one to a parameter: integers of all lengths, and strings with a character set, without one, decimals
/// (<https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html>).
const fn kind(code: u8) -> u8 {
    match code {
        1 | 2 | 3 | 9 | 13 => 8,
        0 => 246,
        15 | 254 => 253,
        249..=251 => 252,
        other => other,
    }
}

/// What a text does to the transaction that is open, as far as it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boundary {
    /// Nothing, whether it succeeds or fails.
    #[default]
    None,
    /// It begins another.
    Begins,
    /// It ends it, and begins none.
    Ends,
    /// It may end it, or begin one.
    Maybe,
}

impl Boundary {
    /// By what was read of the text.
    pub fn of(statement: &sql::Statement) -> Self {
        let command = statement.command;
        if matches!(command, Command::Begin) {
            Self::Begins
        } else if let Command::Commit(End { chain: false, .. }) | Command::Rollback(End { chain: false, .. }) = command
        {
            Self::Ends
        } else if statement.statements == 1 && !statement.may_end_transaction {
            Self::None
        } else {
            Self::Maybe
        }
    }
}

/// What executing a text does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meaning {
    /// To the session.
    pub intent: Intent,
    /// To a transaction.
    pub boundary: Boundary,
    /// It asks its client for a file.
    pub is_load_local: bool,
    /// It is of a transaction of XA's.
    pub has_xa: bool,
    /// What it writes out of a row's numbers.
    pub written: Written,
}

impl Meaning {
    /// By what was read of the text.
    pub fn of(statement: &sql::Statement) -> Self {
        Self {
            intent: statement.intent,
            boundary: Boundary::of(statement),
            is_load_local: statement.is_load_local,
            has_xa: statement.has_xa,
            written: statement.written,
        }
    }
}

/// A prepared statement of a client's.
#[derive(Debug)]
pub struct Statement {
    /// What equal statements of other clients have as well: of its text alone.
    pub id: Id,
    /// `None`: it was too long to be kept. It is where it was prepared, and nowhere else.
    pub text: Option<Arc<[u8]>>,
    /// How many parameters it has.
    pub parameters: u16,
    /// What the text mentions.
    pub mentioned: Mentions,
    /// What executing it does.
    pub meaning: Meaning,
    /// The types of its parameters, as the client sent them last, and their kinds.
    pub types: Option<(Arc<[[u8; 2]]>, Kinds)>,
    /// Why a piece of a parameter of its was refused: its next execution is told.
    pub lost_piece: Option<Box<ClientError>>,
}

impl Statement {
    /// What it is when it is executed with parameters of these types, or of those that its client has sent before. MySQL keeps to what
    /// the first execution has made of them, and turns other values into that: a string into 0, where there was a number.
    pub fn executed_with(&self, sent: Option<impl Iterator<Item = [u8; 2]> + Clone>) -> Id {
        match (&self.types, sent) {
            (Some((known, kinds)), Some(sent)) if sent.clone().eq(known.iter().copied()) => self.id.typed(*kinds),
            (_, Some(sent)) => self.id.typed(self.id.kinds(sent)),
            (Some((_, kinds)), None) => self.id.typed(*kinds),
            (None, None) => self.id,
        }
    }

    /// The types of its parameters, as its client has sent them.
    pub fn types(&self) -> Option<&[[u8; 2]]> {
        self.types.as_ref().map(|(types, _)| &**types)
    }
}

/// All of a client's prepared statements.
#[derive(Debug, Default)]
pub struct Statements {
    /// The numbers are given here: nobody can choose them.
    by_number: HashMap<u32, Statement>,
    /// Given last.
    number: u32,
    /// See [`LATEST`].
    latest: Option<u32>,
    bytes: usize,
    unkept: usize,
}

impl Statements {
    /// There may be so many more, with so many bytes.
    pub fn has_room(&self, statements: usize, bytes: usize) -> bool {
        has_room_for(self.by_number.len().saturating_add(statements), self.bytes.saturating_add(bytes))
    }

    /// One was prepared: its number.
    pub fn insert(&mut self, statement: Statement) -> u32 {
        loop {
            self.number = self.number.wrapping_add(1);
            let is_free = self.number != 0 && self.number != LATEST && !self.by_number.contains_key(&self.number);
            if is_free {
                break;
            }
        }
        self.bytes += statement.text.as_ref().map_or(0, |text| text.len());
        self.unkept += usize::from(statement.text.is_none());
        self.by_number.insert(self.number, statement);
        self.latest = Some(self.number);
        self.number
    }

    /// One could not be prepared: it was the latest nevertheless.
    pub fn failed(&mut self) {
        self.latest = None;
    }

    /// The number that is meant; `knows_latest`: by a server that knows [`LATEST`].
    pub fn meant(&self, number: u32, knows_latest: bool) -> u32 {
        if number == LATEST && knows_latest { self.latest.unwrap_or(number) } else { number }
    }

    /// By its number.
    pub fn find(&self, number: u32) -> Option<&Statement> {
        self.by_number.get(&number)
    }

    /// By its number.
    pub fn find_mut(&mut self, number: u32) -> Option<&mut Statement> {
        self.by_number.get_mut(&number)
    }

    /// The types of one's parameters, as the client has sent them.
    pub fn remember(&mut self, number: u32, types: impl Iterator<Item = [u8; 2]> + Clone) {
        let Some(statement) = self.by_number.get_mut(&number) else { return };
        if !statement.types().is_some_and(|known| types.clone().eq(known.iter().copied())) {
            statement.types = Some((types.clone().collect(), statement.id.kinds(types)));
        }
    }

    /// All of them, by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Statement)> {
        let mut all: Vec<_> = self.by_number.iter().map(|(number, statement)| (*number, statement)).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter()
    }

    /// A piece of a parameter was refused, which nobody answers.
    pub fn lose_piece(&mut self, number: u32, why: &ClientError) {
        if let Some(statement) = self.by_number.get_mut(&number) {
            statement.lost_piece.get_or_insert_with(|| Box::new(why.clone()));
        }
    }

    /// What its execution is to be told of its pieces: once, or never.
    pub fn take_lost_piece(&mut self, number: u32) -> Option<ClientError> {
        self.by_number.get_mut(&number)?.lost_piece.take().map(|why| *why)
    }

    /// The client has closed it.
    pub fn remove(&mut self, number: u32) {
        let Some(statement) = self.by_number.remove(&number) else { return };
        self.bytes -= statement.text.as_ref().map_or(0, |text| text.len());
        self.unkept -= usize::from(statement.text.is_none());
        if self.by_number.is_empty() {
            // Idle clients are many.
            self.by_number = HashMap::new();
        }
    }

    /// The client has closed all of them at once. Their numbers are not given again.
    pub fn clear(&mut self) {
        *self = Self { number: self.number, ..Self::default() };
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Their texts are the same in every character set.
    pub fn are_ascii(&self) -> bool {
        self.by_number.values().all(|statement| statement.text.as_ref().is_some_and(|text| text.is_ascii()))
    }

    /// There are some that are on one connection alone.
    pub fn has_unkept(&self) -> bool {
        self.unkept > 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn statement(text: Option<&[u8]>) -> Statement {
        let id = Id::of(&[0; 16], text.unwrap_or_default());
        Statement {
            id,
            text: text.map(Arc::from),
            parameters: 0,
            mentioned: Mentions::of(b""),
            meaning: Meaning::default(),
            types: None,
            lost_piece: None,
        }
    }

    #[test]
    fn numbers_are_never_given_twice() {
        let mut statements = Statements::default();
        assert_eq!([0; 2].map(|_| statements.insert(statement(Some(b"DO 1")))), [1, 2]);
        statements.remove(2);
        assert_eq!(statements.insert(statement(None)), 3);
        assert!(statements.has_unkept());
        statements.clear();
        assert!(!statements.has_unkept() && statements.find(1).is_none());
        assert_eq!(statements.insert(statement(None)), 4);
        statements.remove(4);
        statements.remove(4);
        assert!(!statements.has_unkept());
        // Around, without 0 and without what means another.
        statements.number = LATEST - 2;
        assert_eq!([0; 2].map(|_| statements.insert(statement(None))), [LATEST - 1, 1]);
    }

    #[test]
    fn the_latest_is_meant_where_it_is_known() {
        let mut statements = Statements::default();
        assert_eq!(statements.meant(LATEST, true), LATEST);
        let number = statements.insert(statement(None));
        assert_eq!((statements.meant(LATEST, true), statements.meant(LATEST, false)), (number, LATEST));
        statements.failed();
        assert_eq!(statements.meant(LATEST, true), LATEST);
    }

    #[test]
    fn there_is_a_limit() {
        let mut statements = Statements::default();
        assert!(statements.has_room(1, 0) && !statements.has_room(1, usize::MAX));
        while statements.has_room(1, 0) {
            statements.insert(statement(Some(b"")));
        }
        assert_eq!(statements.by_number.len(), 10_000);
        assert!(!statements.has_room(1, 0));
    }

    #[test]
    fn equal_texts_read_alike_are_one() {
        let id = Id::of(&[1; 16], b"DO 1").under(7);
        assert_eq!(id, Id::of(&[1; 16], b"DO 1").under(7));
        let others = [Id::of(&[1; 16], b"DO 2"), Id::of(&[2; 16], b"DO 1")].map(|id| id.under(7));
        for other in [others[0], others[1], id.under(8), id.with_cursor()] {
            assert_ne!(id, other);
        }
    }
}
