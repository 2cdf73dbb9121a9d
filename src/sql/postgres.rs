//! Reads PostgreSQL texts for what a server connection keeps after them.
//!
//! One pass over the tokens. Each statement is a small machine: its first words say what it is (`SET LOCAL x`,
//! `DEALLOCATE ALL`); beside that, some names count wherever they stand (`pg_advisory_lock`). When in doubt a pin: a
//! column may be called `lastval`, and its readers are pinned.

use std::ops::Range;

use super::calls::{CALLS_MAX, is_plain};
use super::lexer::{Kind, Lexer, Token, identifier_value};
use super::{Dialect, REFERENCES_MAX, Reference, Statement, Verb, depends_on_dialect};
use crate::protocol::{Clears, PinReason, Pins};

/// What pins for these reasons may change settings, for its transaction too; a temporary table hides another.
const CHANGE_SETTINGS: [PinReason; 5] = [
    PinReason::Setting,
    PinReason::PreparedStatement,
    PinReason::OpaqueCode,
    PinReason::Unreadable,
    PinReason::TemporaryObject,
];

pub(super) fn classify(sql: &[u8], dialect: Dialect) -> Statement {
    let mut scan = Scan::default();
    let mut lexer = Lexer::new(sql, dialect);
    let mut before: Option<Token> = None;
    let mut is_qualified = false;
    while let Some(token) = lexer.next() {
        if let (Kind::Open, Some(name)) = (token.kind, before) {
            scan.call(name.kind, lexer.bytes(name), is_qualified);
        }
        scan.token(token, lexer.bytes(token));
        is_qualified = before.is_some_and(|before| lexer.bytes(before) == b".");
        before = Some(token);
    }
    if dialect.multibyte_unsafe && !sql.is_ascii() || dialect.unsure && depends_on_dialect(sql) {
        scan.is_ambiguous();
    }
    scan.finish()
}

/// What is known so far about the text, and where in its current statement the scan is.
#[derive(Debug, Default)]
pub(super) struct Scan {
    found: Statement,
    /// The server may read another text than we do.
    unreadable: bool,
    /// The text has a whole `DISCARD ALL`: what it means depends on company.
    discards_all: bool,
    deallocates_all: bool,
    /// The statement begins with `EXECUTE`.
    is_plain: bool,
    /// Where the last name stands that `PREPARE`, `EXECUTE` or `DEALLOCATE` may mean.
    name_at: Range<usize>,
    state: State,
    into: Into,
    previous: Word,
    /// The word before that one.
    before: Word,
    /// Open parentheses. A semicolon in one doesn't end a statement (`CREATE RULE ... DO (...; ...)`).
    depth: usize,
    /// The statement has an `UPDATE` so far.
    updates: bool,
    /// It is `CREATE TEMP`; it says `ON COMMIT DROP`.
    creates_temp: bool,
    drops_on_commit: bool,
    /// Something temporary is in the text that does not say so.
    temp_stays: bool,
}

/// How far the words at the start of a statement have been read.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    /// No token yet.
    #[default]
    Start,
    /// Nothing more to learn from its shape.
    Rest,
    /// `SET`
    Set,
    /// `SET SESSION`
    SetSession,
    /// `SET LOCAL`, `SET TRANSACTION`, `SET CONSTRAINTS`; or the first part of a setting's name (`SET local.x = 1`).
    SetLocal,
    /// `PREPARE`
    Prepare,
    /// `PREPARE TRANSACTION`; or a statement of that name.
    PrepareTransaction,
    /// `PREPARE name` up to its `AS`.
    PrepareName,
    /// `EXECUTE`
    Execute,
    /// `EXPLAIN` with its options.
    Explain,
    /// Inside `EXPLAIN (...)`.
    ExplainOptions,
    /// `CREATE`, also with `OR REPLACE`, `LOCAL`, `GLOBAL`.
    Create,
    /// Up to the `AS` of a `CREATE`.
    CreateBody,
    /// `CREATE ... AS`
    CreateAs,
    /// `DECLARE` up to `FOR`.
    Declare,
    /// `DEALLOCATE`
    Deallocate,
    /// `DEALLOCATE PREPARE`; or that is the statement's name.
    DeallocatePrepare,
    /// `DEALLOCATE name`
    DeallocateName,
    /// `DEALLOCATE ALL`
    DeallocateAll,
    /// `DISCARD`
    Discard,
    /// `DISCARD ALL`
    DiscardAll,
}

/// How far a `SELECT ... INTO TEMP t` has been read; it may stand anywhere in a statement.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Into {
    #[default]
    No,
    /// `INTO`, also with `LOCAL`, `GLOBAL`; not after `INSERT` or `MERGE`.
    Seen,
    /// `INTO TEMP`; or a table of that name.
    Temp,
}

impl Scan {
    /// Any statement may hide in the text, also one that leaves something behind if it fails.
    pub(super) fn is_ambiguous(&mut self) {
        self.found.intent.pins_when_sent.add(PinReason::Unreadable);
        self.unreadable = true;
    }

    /// The server may read another text than we do.
    pub(super) fn is_unreadable(&mut self) {
        self.unreadable = true;
    }

    pub(super) fn token(&mut self, token: Token, bytes: &[u8]) {
        let mut word = Word::Other;
        match token.kind {
            Kind::Semicolon if self.depth == 0 => return self.end_of_statement(token.start),
            Kind::Word => {
                word = Word::of(bytes);
                if word == Word::Other {
                    self.name(name(bytes, <[u8]>::eq_ignore_ascii_case));
                }
            }
            Kind::Quoted => {
                if let [b'"', inside @ .., b'"'] = bytes {
                    self.name(name(inside, <[u8]>::eq));
                }
            }
            Kind::Open => self.depth += 1,
            Kind::Close => self.depth = self.depth.saturating_sub(1),
            Kind::Unterminated => self.unreadable = true,
            Kind::QuotedEscapes => {
                // The name may be one that takes a lock, which stays even if the statement fails.
                self.found.intent.pins_when_sent.add(PinReason::Unreadable);
                self.unreadable = true;
            }
            // A path that is set by a string; or anything else, of which it is asked what came of it.
            Kind::Literal if holds_pg_temp(bytes) => self.may_name_pg_temp(),
            Kind::Literal | Kind::Parameter | Kind::Number | Kind::Operator | Kind::Semicolon | Kind::Other => {}
        }
        if self.state != State::Rest {
            self.state = self.step(token, word);
        }
        if self.into != Into::No || word == Word::Into {
            self.into(token.kind, word);
        }
        self.updates |= word == Word::Update;
        self.drops_on_commit |= word == Word::Drop && self.previous == Word::Commit;
        // A column's default may draw, and so may code.
        self.found.intent.draws_sequence |= matches!(word, Word::Insert | Word::Merge | Word::Do | Word::Call);
        (self.before, self.previous) = (self.previous, word);
    }

    /// A parenthesis opens behind this token (and a dot stands before it), which may be a function's name, or that of a table, of a type, of a statement.
    pub(super) fn call(&mut self, kind: Kind, bytes: &[u8], is_qualified: bool) {
        // Those that mean something here are followed by what they mean.
        let is_name = match (kind, bytes) {
            (Kind::Word, word) => {
                (is_qualified || !is_plain(word)) && matches!(name(word, <[u8]>::eq_ignore_ascii_case), Name::Other)
            }
            (Kind::Quoted, [b'"', inside @ .., b'"']) => matches!(name(inside, <[u8]>::eq), Name::Other),
            _other => false,
        };
        if !is_name || matches!(self.before, Word::Into | Word::Execute | Word::Prepare | Word::Deallocate) {
            return;
        }
        let name = identifier_value(bytes);
        let calls = &mut self.found.calls;
        if calls.iter().any(|call| **call == *name) {
            return;
        }
        if calls.len() < CALLS_MAX {
            calls.push(name.into_owned().into());
        } else {
            self.found.intent.pins_when_sent.add(PinReason::OpaqueCode);
        }
    }

    /// The shape of the statement.
    #[allow(clippy::wildcard_enum_match_arm, reason = "every other word of the language is the wildcard")]
    fn step(&mut self, token: Token, word: Word) -> State {
        let is_name = matches!(token.kind, Kind::Word | Kind::Quoted | Kind::QuotedEscapes);
        if matches!(self.state, State::Deallocate | State::DeallocatePrepare | State::Prepare | State::Execute) {
            self.name_at = token.start..token.end;
        }
        match self.state {
            State::Rest => State::Rest,
            State::Start => {
                self.is_plain = word == Word::Execute;
                self.first(word)
            }
            State::Set => match word {
                Word::Local => {
                    self.found.intent.changes_settings = true;
                    State::SetLocal
                }
                Word::Transaction | Word::Constraints => State::SetLocal,
                Word::Session => State::SetSession,
                _ => self.rest(PinReason::Setting),
            },
            State::SetSession if word == Word::Transaction => State::SetLocal,
            State::SetSession => self.rest(PinReason::Setting),
            State::SetLocal if is_name && word != Word::To => State::Rest,
            State::SetLocal => self.rest(PinReason::Setting),
            State::Prepare if word == Word::Transaction => State::PrepareTransaction,
            State::PrepareTransaction if token.kind == Kind::Literal => State::Rest,
            State::PrepareTransaction | State::PrepareName if word == Word::As && self.depth == 0 => {
                self.refers(Verb::Prepare, token.end);
                State::Rest
            }
            State::PrepareTransaction | State::PrepareName => State::PrepareName,
            State::Prepare if is_name => State::PrepareName,
            State::Execute if is_name => {
                self.refers(Verb::Execute, token.end);
                State::Rest
            }
            // A syntax error.
            State::Prepare | State::Execute => State::Rest,
            State::Explain if token.kind == Kind::Open => State::ExplainOptions,
            State::Explain if matches!(word, Word::Analyze | Word::Verbose) => State::Explain,
            State::Explain => self.first(word),
            State::ExplainOptions if self.depth == 0 => State::Explain,
            State::ExplainOptions => State::ExplainOptions,
            State::Create => match word {
                Word::Or | Word::Replace | Word::Local | Word::Global => State::Create,
                Word::Temp => {
                    self.pin_when_done(PinReason::TemporaryObject);
                    self.creates_temp = true;
                    State::CreateBody
                }
                _ => State::CreateBody,
            },
            State::CreateBody if word == Word::As && self.depth == 0 => State::CreateAs,
            State::CreateBody => State::CreateBody,
            State::CreateAs if word == Word::Execute => State::Execute,
            State::CreateAs => State::Rest,
            State::Declare if word == Word::For => State::Rest,
            State::Declare if word == Word::Hold && self.previous == Word::With => self.rest(PinReason::HeldCursor),
            State::Declare => State::Declare,
            State::Deallocate if word == Word::Prepare => State::DeallocatePrepare,
            State::Deallocate | State::DeallocatePrepare if word == Word::All => State::DeallocateAll,
            State::Deallocate | State::DeallocatePrepare if is_name => State::DeallocateName,
            // A syntax error.
            State::Deallocate | State::DeallocatePrepare | State::DeallocateName | State::DeallocateAll => State::Rest,
            State::Discard if word == Word::All => State::DiscardAll,
            State::Discard | State::DiscardAll => State::Rest,
        }
    }

    /// The word that says which statement it is, `EXPLAIN` before it or not.
    #[allow(clippy::wildcard_enum_match_arm, reason = "every other word of the language is the wildcard")]
    fn first(&mut self, word: Word) -> State {
        match word {
            Word::Set => State::Set,
            Word::Reset => self.rest(PinReason::Setting),
            Word::Prepare => State::Prepare,
            Word::Execute => State::Execute,
            Word::Explain => State::Explain,
            Word::Create => State::Create,
            Word::Declare => State::Declare,
            Word::Deallocate => self.ending(PinReason::PreparedStatement, State::Deallocate),
            Word::Discard => self.ending(PinReason::TemporaryObject, State::Discard),
            Word::Close => self.ending(PinReason::HeldCursor, State::Rest),
            Word::Drop => self.ending(PinReason::TemporaryObject, State::Rest),
            Word::Unlisten => self.ending(PinReason::Listen, State::Rest),
            Word::Listen => self.rest(PinReason::Listen),
            Word::Do | Word::Call => {
                self.found.intent.pins_when_sent.add(PinReason::OpaqueCode);
                State::Rest
            }
            Word::Load => {
                self.found.intent.pins_when_sent.add(PinReason::ServerProcess);
                State::Rest
            }
            _ => State::Rest,
        }
    }

    fn into(&mut self, kind: Kind, word: Word) {
        self.into = match (self.into, word) {
            (Into::Seen, Word::Local | Word::Global) => Into::Seen,
            (Into::Seen, Word::Temp) => Into::Temp,
            (Into::Temp, _) if matches!(kind, Kind::Word | Kind::Quoted | Kind::QuotedEscapes) => {
                self.pin_when_done(PinReason::TemporaryObject);
                self.temp_stays = true;
                Into::No
            }
            (_, Word::Into) if !matches!(self.previous, Word::Insert | Word::Merge) => Into::Seen,
            _ => Into::No,
        };
    }

    fn name(&mut self, name: Name) {
        let intent = &mut self.found.intent;
        match name {
            Name::Other => {}
            Name::Done(reason) => {
                intent.pins_when_done.add(reason);
                self.temp_stays |= reason == PinReason::TemporaryObject;
            }
            Name::Sent(reason) => intent.pins_when_sent.add(reason),
            Name::Ends(reason) => intent.may_end.add(reason),
            Name::Draws => intent.draws_sequence = true,
            Name::LastValue => {
                intent.asks_sequence = true;
            }
            // A rule on this view calls set_config for each row updated.
            Name::Settings if self.updates => intent.pins_when_done.add(PinReason::Setting),
            Name::Settings => {}
        }
    }

    /// A string may name the temporary schema.
    pub(super) fn may_name_pg_temp(&mut self) {
        self.pin_when_done(PinReason::TemporaryObject);
        self.temp_stays = true;
    }

    /// The statement is about a prepared one, or about all of them.
    fn refers(&mut self, verb: Verb, end: usize) {
        if self.found.references.len() <= REFERENCES_MAX {
            let (name, is_plain) = (self.name_at.clone(), self.is_plain);
            self.found.references.push(Reference { verb, name, end, statement_end: usize::MAX, is_plain });
        }
    }

    fn pin_when_done(&mut self, reason: PinReason) {
        self.found.intent.pins_when_done.add(reason);
    }

    fn ending(&mut self, reason: PinReason, next: State) -> State {
        self.found.intent.may_end.add(reason);
        next
    }

    fn rest(&mut self, reason: PinReason) -> State {
        self.pin_when_done(reason);
        State::Rest
    }

    fn end_of_statement(&mut self, end: usize) {
        match self.state {
            State::Start => return,
            State::DeallocateName | State::DeallocatePrepare => self.refers(Verb::Deallocate, self.name_at.end),
            State::DeallocateAll => {
                self.refers(Verb::DeallocateAll, self.name_at.end);
                self.deallocates_all = true;
            }
            State::DiscardAll => self.discards_all = true,
            State::Rest | State::Set | State::SetSession | State::SetLocal | State::Discard => {}
            State::Prepare | State::PrepareTransaction | State::PrepareName | State::Execute => {}
            State::Deallocate | State::Declare => {}
            State::Explain | State::ExplainOptions | State::Create | State::CreateBody | State::CreateAs => {}
        }
        if let Some(reference) = self.found.references.last_mut() {
            reference.statement_end = reference.statement_end.min(end);
        }
        self.temp_stays |= self.creates_temp && !self.drops_on_commit;
        (self.creates_temp, self.drops_on_commit) = (false, false);
        self.found.statements = self.found.statements.saturating_add(1);
        self.state = State::Start;
        self.into = Into::No;
        (self.before, self.previous) = (Word::Other, Word::Other);
        self.depth = 0;
        self.updates = false;
    }

    pub(super) fn finish(mut self) -> Statement {
        self.end_of_statement(usize::MAX);
        let intent = &mut self.found.intent;
        if self.deallocates_all {
            intent.clears = Clears::Statements;
        }
        if self.discards_all {
            if self.found.statements == 1 && !self.unreadable {
                intent.clears = Clears::Everything;
            } else {
                // In what order things come and go is not kept: the client keeps its connection.
                let pins = Pins::of(PinReason::PreparedStatement).and(Pins::of(PinReason::Setting));
                intent.passing = intent.passing.and(pins.without(intent.pins_when_done));
                intent.pins_when_done = intent.pins_when_done.and(pins);
            }
        }
        if self.unreadable {
            if !self.found.references.is_empty() {
                self.found.references.clear();
                intent.pins_when_done.add(PinReason::PreparedStatement);
            }
            intent.pins_when_done.add(PinReason::Unreadable);
            intent.asks_sequence = true;
        }
        let pins = intent.pins_when_sent.and(intent.pins_when_done);
        if pins.contains(PinReason::TemporaryObject) && !self.temp_stays {
            intent.passing.add(PinReason::TemporaryObject);
        }
        intent.changes_settings |= CHANGE_SETTINGS.iter().any(|reason| pins.contains(*reason));
        self.found
    }
}

/// The temporary schema's name stands in it.
pub(super) fn holds_pg_temp(literal: &[u8]) -> bool {
    let around = |at: usize| literal.get(at.checked_sub(2)?..at + 5);
    memchr::memchr_iter(b'_', literal).any(|at| around(at).is_some_and(|part| part.eq_ignore_ascii_case(b"pg_temp")))
}

/// The keywords that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Word {
    #[default]
    Other,
    All,
    Analyze,
    As,
    Call,
    Close,
    Commit,
    Constraints,
    Create,
    Deallocate,
    Declare,
    Discard,
    Do,
    Drop,
    Execute,
    Explain,
    For,
    Global,
    Hold,
    Insert,
    Into,
    Listen,
    Load,
    Local,
    Merge,
    Or,
    Prepare,
    Replace,
    Reset,
    Session,
    Set,
    Temp,
    To,
    Transaction,
    Unlisten,
    Update,
    Verbose,
    With,
}

impl Word {
    /// Most words of most texts fall through on length and first letter alone.
    fn of(word: &[u8]) -> Self {
        let first = word.first().map_or(0, u8::to_ascii_lowercase);
        let (text, keyword): (&[u8], Self) = match (word.len(), first) {
            (2, b'a') => (b"as", Self::As),
            (2, b'd') => (b"do", Self::Do),
            (2, b'o') => (b"or", Self::Or),
            (2, b't') => (b"to", Self::To),
            (3, b'a') => (b"all", Self::All),
            (3, b'f') => (b"for", Self::For),
            (3, b's') => (b"set", Self::Set),
            (4, b'c') => (b"call", Self::Call),
            (4, b'd') => (b"drop", Self::Drop),
            (4, b'h') => (b"hold", Self::Hold),
            (4, b'i') => (b"into", Self::Into),
            (4, b'l') => (b"load", Self::Load),
            (4, b't') => (b"temp", Self::Temp),
            (4, b'w') => (b"with", Self::With),
            (5, b'c') => (b"close", Self::Close),
            (5, b'l') => (b"local", Self::Local),
            (5, b'm') => (b"merge", Self::Merge),
            (5, b'r') => (b"reset", Self::Reset),
            (6, b'c') if word.eq_ignore_ascii_case(b"commit") => return Self::Commit,
            (6, b'c') => (b"create", Self::Create),
            (6, b'g') => (b"global", Self::Global),
            (6, b'i') => (b"insert", Self::Insert),
            (6, b'l') => (b"listen", Self::Listen),
            (6, b'u') => (b"update", Self::Update),
            (7, b'a') if word.eq_ignore_ascii_case(b"analyse") => return Self::Analyze,
            (7, b'a') => (b"analyze", Self::Analyze),
            (7, b'd') if word.eq_ignore_ascii_case(b"discard") => return Self::Discard,
            (7, b'd') => (b"declare", Self::Declare),
            (7, b'e') if word.eq_ignore_ascii_case(b"explain") => return Self::Explain,
            (7, b'e') => (b"execute", Self::Execute),
            (7, b'p') => (b"prepare", Self::Prepare),
            (7, b'r') => (b"replace", Self::Replace),
            (7, b's') => (b"session", Self::Session),
            (7, b'v') => (b"verbose", Self::Verbose),
            (8, b'u') => (b"unlisten", Self::Unlisten),
            (9, b't') => (b"temporary", Self::Temp),
            (10, b'd') => (b"deallocate", Self::Deallocate),
            (11, b'c') => (b"constraints", Self::Constraints),
            (11, b't') => (b"transaction", Self::Transaction),
            _ => return Self::Other,
        };
        if word.eq_ignore_ascii_case(text) { keyword } else { Self::Other }
    }
}

/// What a name means wherever it stands, schema or not, quoted or not.
#[derive(Clone, Copy)]
enum Name {
    Other,
    /// A reason to pin once the statement has completed.
    Done(PinReason),
    /// A reason to pin as soon as it is sent.
    Sent(PinReason),
    /// A reason to pin may end.
    Ends(PinReason),
    /// `nextval`, `setval`
    Draws,
    /// `currval`, `lastval`
    LastValue,
    /// `pg_settings`
    Settings,
}

/// `same` compares as the name's quotes demand.
fn name(name: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> Name {
    let first = name.first().map_or(0, u8::to_ascii_lowercase);
    let starts = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| same(start, prefix));
    let (text, found): (&[u8], Name) = match (name.len(), first) {
        (6, b's') => (b"setval", Name::Draws),
        (7, b'n') => (b"nextval", Name::Draws),
        (7, b'c') => (b"currval", Name::LastValue),
        (7, b'l') => (b"lastval", Name::LastValue),
        (7, b's') => (b"setseed", Name::Sent(PinReason::ServerProcess)),
        // Of pg_trgm; sets a parameter.
        (9, b's') => (b"set_limit", Name::Done(PinReason::Setting)),
        (10, b's') => (b"set_config", Name::Done(PinReason::Setting)),
        // These run SQL that is given to them as a string.
        (7, b't') => (b"ts_stat", Name::Sent(PinReason::OpaqueCode)),
        (10, b't') => (b"ts_rewrite", Name::Sent(PinReason::OpaqueCode)),
        (12.., b'q') if starts(b"query_to_xml") => return Name::Sent(PinReason::OpaqueCode),
        (8.., b'd') if starts(b"dblink_") => return Name::Sent(PinReason::ServerProcess),
        (7.., b'p') if starts(b"pg_") => return system_name(name, same),
        _ => return Name::Other,
    };
    if same(name, text) { found } else { Name::Other }
}

/// Names that start with `pg_`.
fn system_name(name: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> Name {
    let is = |text: &[u8]| same(name, text);
    match name.len() {
        7 if is(b"pg_temp") => Name::Done(PinReason::TemporaryObject),
        11 if is(b"pg_settings") => Name::Settings,
        16 if is(b"pg_advisory_lock") => Name::Sent(PinReason::SessionLock),
        18 if is(b"pg_advisory_unlock") => Name::Ends(PinReason::SessionLock),
        22 if is(b"pg_advisory_unlock_all") => Name::Ends(PinReason::SessionLock),
        25 if is(b"pg_advisory_unlock_shared") => Name::Ends(PinReason::SessionLock),
        20 if is(b"pg_try_advisory_lock") => Name::Sent(PinReason::SessionLock),
        23 if is(b"pg_advisory_lock_shared") => Name::Sent(PinReason::SessionLock),
        27 if is(b"pg_try_advisory_lock_shared") => Name::Sent(PinReason::SessionLock),
        35 if is(b"pg_replication_origin_session_setup") => Name::Sent(PinReason::ServerProcess),
        // A backup must be stopped where it was started.
        15 if is(b"pg_backup_start") || is(b"pg_start_backup") => Name::Sent(PinReason::ServerProcess),
        // A temporary slot lives as long as its session.
        32 if is(b"pg_copy_logical_replication_slot") => Name::Sent(PinReason::ServerProcess),
        33 if is(b"pg_copy_physical_replication_slot") => Name::Sent(PinReason::ServerProcess),
        34 if is(b"pg_create_logical_replication_slot") => Name::Sent(PinReason::ServerProcess),
        35 if is(b"pg_create_physical_replication_slot") => Name::Sent(PinReason::ServerProcess),
        _ => match name.split_at_checked(8) {
            Some((schema, number)) if number.iter().all(u8::is_ascii_digit) && same(schema, b"pg_temp_") => {
                Name::Done(PinReason::TemporaryObject)
            }
            _ => Name::Other,
        },
    }
}
