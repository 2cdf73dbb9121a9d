//! One pass over a text's tokens, in one reading.
//!
//! A statement's first words say what it is, once it has ended; beside that, some words count wherever they stand
//! (`INTO @a`, `GET_LOCK(`). `SET` has a small machine of its own. When in doubt a pin, from the moment the text is sent.

#![allow(clippy::wildcard_enum_match_arm, reason = "every other word of the language is the wildcard")]

use super::lexer::{Kind, Lexer, Reading, Token};
use super::names::{Parentheses, is_definition, is_filled, is_known};
use super::routine::Routine;
use super::words::{Word, Words};
use super::written::{Inserting, Written};
use super::{CHANGE_SETTINGS, Command, Dialect, End, KillKind, Statement};
use crate::protocol::{PinReason, Pins};

/// Reads a text; and whether a dollar quote was in it.
pub(super) fn read(text: &[u8], dialect: Dialect, reading: Reading) -> (Statement, bool) {
    let mut lexer = Lexer::new(text, dialect, reading);
    let mut scan = Scan::new(dialect);
    let (mut before, mut end) = (&[][..], 0);
    for token in lexer.by_ref() {
        scan.read(token, before, token.start == end);
        (before, end) = (token.bytes, token.start + token.bytes.len());
    }
    scan.unreadable |= lexer.is_ambiguous();
    (scan.finish(), lexer.has_dollar_quote())
}

/// The server may read other tokens where these bytes of one stand, by what is not known of its settings.
pub(super) fn is_ambiguous(kind: Kind, bytes: &[u8], dialect: Dialect) -> bool {
    let is_name = matches!(kind, Kind::Word | Kind::UserVariable);
    // 0xA0 is a blank in latin1 and its kin, 0xFF in those of DOS.
    !dialect.utf8 && is_name && memchr::memchr2(0xA0, 0xFF, bytes).is_some()
        || (dialect.multibyte_unsafe || dialect.unsure) && !bytes.is_ascii()
        || dialect.unsure && memchr::memchr2(b'"', b'\\', bytes).is_some()
}

/// What is known so far about the text, and about the statement that is read.
#[derive(Debug, Default, Clone)]
pub(super) struct Scan {
    dialect: Dialect,
    found: Statement,
    unreadable: bool,
    /// Nothing stands between the token and the one before it.
    is_close: bool,
    statement: Current,
}

/// The statement that is read.
#[derive(Debug, Default, Clone)]
struct Current {
    head: Head,
    /// All of its words.
    seen: Words,
    depth: usize,
    set: Set,
    /// It defines a routine.
    routine: Option<Routine>,
    /// The names of its `WITH` are read.
    names_tables: bool,
    /// It stands behind MariaDB's `SET STATEMENT ... FOR`.
    is_prefixed: bool,
    previous: Previous,
    /// What it creates is not only defined from here on: a query follows, or what is computed at once.
    is_computed: bool,
    awaits: Awaits,
    /// The name of `@@name` is read.
    names_setting: bool,
    /// Between the variables that an `INTO` sets.
    is_in_into: bool,
    /// Behind a user variable, which is looked at unless an assignment follows.
    may_look: bool,
    inserting: Inserting,
}

/// What is known once it is seen whether a function's parentheses are empty.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    #[default]
    Nothing,
    /// Behind `LAST_INSERT_ID(`.
    LastInsertId,
    /// Behind a name that is a user's if they are.
    Code,
}

/// The last token, and what it says about the next.
#[derive(Debug, Default, Clone, Copy)]
struct Previous {
    word: Word,
    is_name: bool,
    is_quoted: bool,
    /// A name with another one in front (`db.f`).
    is_qualified: bool,
    /// Of a name: the word before it and before what qualifies it.
    introducer: Word,
}

/// The first words of a statement, parentheses in front of it left out.
#[derive(Debug, Default, Clone)]
struct Head {
    words: [Word; HEAD_MAX],
    /// How many words there are, also behind these.
    len: usize,
    /// The last number in it that is nothing but digits.
    number: Option<u64>,
}

/// `COMMIT WORK AND NO CHAIN NO RELEASE`
const HEAD_MAX: usize = 8;

/// Where in a `SET` the scan is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// It is no `SET`.
    #[default]
    No,
    /// What is set comes next.
    Target { is_global: bool },
    /// The name that follows `@@` comes next.
    System { is_global: bool },
    /// A value, up to the next comma outside of parentheses.
    Value,
    /// MariaDB's `SET STATEMENT`, up to its `FOR`.
    Statement,
}

impl Current {
    /// Rows of values may be read, of which there are many: signs and values say nothing here.
    const fn is_plain(&self) -> bool {
        self.head.len >= HEAD_MAX
            && matches!(self.set, Set::No)
            && !matches!(self.previous.word, Word::Dot)
            && self.routine.is_none()
            && matches!(self.awaits, Awaits::Nothing)
            && !self.names_setting
    }

    /// Where servers refuse stored functions.
    fn defines(&self) -> bool {
        let is_definition = matches!(self.head.words(), [Word::Create | Word::Alter, ..]);
        is_definition && !self.is_computed && self.routine.is_none()
    }
}

impl Head {
    fn words(&self) -> &[Word] {
        self.words.get(..self.len).unwrap_or(&self.words)
    }

    fn push(&mut self, word: Word, token: Token<'_>) {
        if let Some(place) = self.words.get_mut(self.len) {
            *place = word;
            if word == Word::Number {
                let is_plain = token.bytes.iter().all(u8::is_ascii_digit);
                let digits = std::str::from_utf8(token.bytes).ok().filter(|_| is_plain);
                self.number = digits.and_then(|digits| digits.parse().ok());
            }
        }
        self.len = self.len.saturating_add(1);
    }
}

impl Scan {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    /// The next token, the bytes of the one before it, and whether they stand side by side.
    pub(super) fn read(&mut self, token: Token<'_>, before: &[u8], is_close: bool) {
        self.is_close = is_close;
        self.unreadable |= token.kind == Kind::Unterminated || is_ambiguous(token.kind, token.bytes, self.dialect);
        if token.kind == Kind::Semicolon {
            self.semicolon();
        } else {
            self.token(token, before);
        }
    }

    /// The text may be anything.
    pub(super) fn gives_up(&mut self) {
        self.unreadable = true;
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    fn pin(&mut self, reason: PinReason) {
        self.found.intent.pins_when_sent.add(reason);
    }

    fn token(&mut self, token: Token<'_>, before: &[u8]) {
        let word = Word::of(token);
        let previous = self.statement.previous;
        let now = &mut self.statement;
        let written = &mut self.found.written;
        if now.head.len == 0 && matches!(word, Word::Insert | Word::Replace) {
            written.inserts = true;
            now.inserting = Inserting::Head;
        } else {
            now.inserting = now.inserting.next(token, (word, previous.word), now.depth, written);
        }
        if word == Word::Open && now.head.len == 0 {
            now.depth += 1;
            return;
        }
        if matches!(word, Word::Comma | Word::Literal | Word::Number) && now.is_plain() {
            now.head.len = now.head.len.saturating_add(1);
            now.seen.add(word);
            now.previous = Previous { word, introducer: previous.word, ..Previous::default() };
            return;
        }
        now.head.push(word, token);
        now.is_computed |= computes(token, word, previous.word, now.seen);
        now.seen.add(word);
        let is_deferred = now.routine.as_ref().is_some_and(Routine::is_deferred);
        self.definition(word);
        if !is_deferred {
            self.effects(token, word, before);
        }
        let now = &mut self.statement;
        match word {
            Word::Open => now.depth += 1,
            Word::Close => now.depth = now.depth.saturating_sub(1),
            _other => {}
        }
        let is_qualified = previous.word == Word::Dot;
        let is_in_chain = is_qualified || word == Word::Dot;
        now.previous = Previous {
            word,
            is_name: matches!(token.kind, Kind::Word | Kind::Quoted),
            is_quoted: token.kind == Kind::Quoted,
            is_qualified,
            introducer: if is_in_chain { previous.introducer } else { previous.word },
        };
    }

    /// Looks for the definition of a routine, and for its end.
    fn definition(&mut self, word: Word) {
        let now = &mut self.statement;
        let previous = now.previous.word;
        if let Some(routine) = &mut now.routine {
            routine.token(word, previous);
            return;
        }
        let is_kind = match now.head.words() {
            [Word::Create, ..] => matches!(word, Word::Routine | Word::Event | Word::Package),
            [Word::Alter, ..] => word == Word::Event,
            _ => return,
        };
        let is_other = [Word::Table, Word::Naming, Word::Database, Word::User, Word::Role, Word::As, Word::On];
        if is_kind && previous != Word::Dot && !is_other.iter().any(|word| now.seen.contains(*word)) {
            now.routine = Some(Routine::new(word));
        }
    }

    /// What counts wherever it stands.
    fn effects(&mut self, token: Token<'_>, word: Word, before: &[u8]) {
        let previous = self.statement.previous;
        self.variable(word);
        self.set(token, word);
        self.setting(token, word, previous.word);
        let intent = &mut self.found.intent;
        match std::mem::take(&mut self.statement.awaits) {
            Awaits::LastInsertId if word == Word::Close => intent.asks_sequence = true,
            Awaits::LastInsertId => (intent.draws_sequence, intent.hides_last_value) = (true, true),
            Awaits::Code if word == Word::Close => self.opaque(),
            Awaits::Code | Awaits::Nothing => {}
        }
        let is_set = self.statement.set != Set::No;
        match (word, previous.word) {
            (_, Word::Dot) => match word {
                // Oracle's way to use a sequence.
                Word::Nextval => self.draws_from_sequence(),
                Word::Currval => self.found.intent.asks_sequence = true,
                _other => {}
            },
            (Word::Open, _) if previous.is_name => self.call(previous, unquoted(before)),
            (Word::Kill, _) => self.found.has_kill = true,
            (Word::Assign, before) if !is_set || before == Word::Variable => self.pin(PinReason::UserVariable),
            (Word::Variable, Word::Into) => self.pin(PinReason::UserVariable),
            (Word::SqlCalcFoundRows, _) => self.found.intent.draws_sequence = true,
            (Word::Value, Word::Next) => self.draws_from_sequence(),
            (Word::Value, Word::Previous) => self.found.intent.asks_sequence = true,
            _other => {}
        }
        let now = &mut self.statement;
        if now.head.len == 1 {
            now.names_tables = word == Word::With;
        } else if now.depth == 0 && is_query(word) {
            now.names_tables = false;
        }
    }

    /// A setting that is read: some are last values of the connection.
    fn setting(&mut self, token: Token<'_>, word: Word, before: Word) {
        let now = &mut self.statement;
        if word == Word::System {
            now.names_setting = true;
        } else if now.names_setting
            && matches!(before, Word::System | Word::Dot)
            && matches!(token.kind, Kind::Word | Kind::Quoted)
        {
            // MySQL has no accents in names of variables: `@@läst_insert_id`.
            self.found.intent.asks_sequence |= !token.bytes.is_ascii() || is_last_value(unquoted(token.bytes));
        } else if word != Word::Dot {
            now.names_setting = false;
        }
    }

    /// `name (`
    fn call(&mut self, name: Previous, bytes: &[u8]) {
        let mariadb = self.dialect.mariadb;
        if bytes.is_empty() {
            return;
        }
        if let Some(effect) = Effect::of(bytes, mariadb).filter(|_| !name.is_qualified) {
            self.affects(effect);
            if !Effect::is_loadable(bytes) {
                return;
            }
        }
        let is_table = self.is_table_name(name, bytes);
        if !name.is_qualified && !name.is_quoted {
            if is_known(bytes, Parentheses { are_close: self.is_close, are_empty: false }, mariadb) {
                if !is_table && is_filled(bytes, mariadb) {
                    self.statement.awaits = Awaits::Code;
                }
                return;
            }
            if self.statement.defines() && is_definition(bytes) {
                return;
            }
        }
        if !is_table {
            self.opaque();
        }
    }

    fn affects(&mut self, effect: Effect) {
        match effect {
            Effect::Locks => self.pin(PinReason::SessionLock),
            Effect::Unlocks => self.found.intent.may_end.add(PinReason::SessionLock),
            Effect::Asks => self.found.intent.asks_sequence = true,
            Effect::Draws => self.draws_from_sequence(),
            Effect::LastInsertId => self.statement.awaits = Awaits::LastInsertId,
        }
    }

    /// It is no function, by what stands in front of it.
    fn is_table_name(&self, name: Previous, bytes: &[u8]) -> bool {
        let now = &self.statement;
        match name.introducer {
            Word::Naming | Word::Into | Word::Insert | Word::Replace | Word::Table | Word::As | Word::With => true,
            // `(SELECT ...) name (a, b)`, `MATCH (a) AGAINST (b)`, `'$' COLUMNS (a)`
            Word::Close | Word::Literal => true,
            // `CREATE INDEX i ON t (a)`
            Word::On => now.head.words().first() == Some(&Word::Create) && !now.seen.contains(Word::Select),
            // Within parentheses it may be that of `EXTRACT(YEAR FROM ...)`.
            Word::From => now.depth == 0 && bytes.eq_ignore_ascii_case(b"json_table"),
            Word::Join => bytes.eq_ignore_ascii_case(b"json_table"),
            _other => now.names_tables && now.depth == 0,
        }
    }

    /// Code that can't be seen runs.
    fn opaque(&mut self) {
        self.pin(PinReason::OpaqueCode);
        let intent = &mut self.found.intent;
        (intent.asks_sequence, intent.draws_sequence, intent.hides_last_value) = (true, true, true);
        self.found.written = Written::ANY;
    }

    /// A user variable is set, or looked at.
    fn variable(&mut self, word: Word) {
        let before = self.statement.previous.word;
        let now = &mut self.statement;
        let is_listed = now.is_in_into && before == Word::Comma;
        now.is_in_into = match word {
            Word::Variable => before == Word::Into || is_listed,
            _other => now.is_in_into && word == Word::Comma,
        };
        let is_target =
            now.is_in_into || matches!(now.set, Set::Target { .. }) || now.head.words().first() == Some(&Word::Get);
        // What is assigned to is not looked at.
        self.found.intent.looks_at_variables |= now.may_look && word != Word::Assign;
        now.may_look = word == Word::Variable && !is_target;
    }

    fn set(&mut self, token: Token<'_>, word: Word) {
        let now = &self.statement;
        let is_outside = now.depth == 0;
        let is_name = matches!(token.kind, Kind::Word | Kind::Quoted);
        self.statement.set = match now.set {
            Set::No if now.head.len == 1 && word == Word::Set => Set::Target { is_global: false },
            Set::No => Set::No,
            Set::Statement if is_outside && word == Word::For => {
                self.statement = Current { is_prefixed: true, ..Current::default() };
                return;
            }
            Set::Statement => Set::Statement,
            // `GLOBAL` holds for names that follow without a word of their own, but not for all (`NAMES`): not followed here.
            Set::Value if is_outside && word == Word::Comma => Set::Target { is_global: false },
            Set::Value => Set::Value,
            Set::Target { is_global } => match word {
                Word::Variable => {
                    self.pin(PinReason::UserVariable);
                    Set::Value
                }
                Word::System => Set::System { is_global: false },
                Word::Scope => Set::Target { is_global: true },
                Word::Session | Word::Local => Set::Target { is_global: false },
                Word::Statement if now.head.len == 2 => Set::Statement,
                // Accounts, not the connection.
                Word::Password | Word::Default => {
                    self.found.may_end_transaction = true;
                    Set::Value
                }
                Word::Resource => {
                    // Which group a thread is in is no setting: nothing says that a reset brings it back.
                    self.pin(PinReason::ServerProcess);
                    Set::Value
                }
                _ if is_global => Set::Value,
                _ if is_name => {
                    self.sets(unquoted(token.bytes));
                    Set::Value
                }
                // A syntax error.
                _ => Set::Value,
            },
            Set::System { is_global } => match word {
                Word::Scope => Set::System { is_global: true },
                Word::Dot => Set::System { is_global },
                Word::Session | Word::Local => Set::System { is_global: false },
                _ if is_name && !is_global => {
                    self.sets(unquoted(token.bytes));
                    Set::Value
                }
                _ => Set::Value,
            },
        };
    }

    /// A sequence's last value stays on the connection until that is reset.
    fn draws_from_sequence(&mut self) {
        self.found.intent.draws_sequence = true;
        self.pin(PinReason::Setting);
    }

    /// A setting of the session.
    fn sets(&mut self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        let starts = |prefix: &str| name.starts_with(prefix.as_bytes());
        // Who the connection is to the binary log, what it owns of it, and what it has gathered about its statements: either a
        // reset does not end it, or a reset that fails would cost more than a connection.
        let is_lasting =
            ["pseudo_", "gtid_", "wsrep_", "debug", "profiling", "optimizer_trace", "sql_log_", "authorization"]
                .into_iter()
                .any(starts);
        match name.as_slice() {
            b"autocommit" => self.found.may_end_transaction = true,
            b"last_insert_id" | b"identity" | b"insert_id" => self.found.intent.draws_sequence = true,
            _ => {}
        }
        // It may be any of them with accents.
        self.found.may_end_transaction |= !name.is_ascii();
        // Roles are no variables, and no reset is known to bring back those of the login.
        let is_lasting =
            is_lasting || !name.is_ascii() || matches!(name.as_slice(), b"server_id" | b"skip_replication" | b"role");
        self.pin(if is_lasting { PinReason::ServerProcess } else { PinReason::Setting });
    }

    fn semicolon(&mut self) {
        let now = &mut self.statement;
        if let Some(routine) = &mut now.routine
            && routine.goes_on()
        {
            now.previous = Previous::default();
            return;
        }
        self.end_of_statement();
    }

    fn end_of_statement(&mut self) {
        let now = std::mem::take(&mut self.statement);
        self.found.intent.looks_at_variables |= now.may_look;
        if now.inserting == Inserting::Head {
            self.found.written = Written::ANY;
        }
        if now.head.len == 0 && !now.is_prefixed && now.depth == 0 {
            return;
        }
        self.found.statements = self.found.statements.saturating_add(1);
        self.found.command = if now.is_prefixed { Command::Other } else { command(&now.head) };
        self.found.may_end_transaction |= may_end_transaction(now.head.words(), now.seen);
        self.found.has_xa |= now.seen.contains(Word::Xa);
        self.verb(&now);
    }

    /// What a statement does by what it is.
    fn verb(&mut self, now: &Current) {
        let has = |word| now.seen.contains(word);
        let intent = &mut self.found.intent;
        let words = now.head.words();
        match words {
            [Word::Insert | Word::Replace | Word::Update | Word::Delete, ..] => {
                intent.draws_sequence = true;
                // With rows there is no number.
                intent.hides_last_value |= has(Word::Returning);
            }
            [first @ (Word::With | Word::Explain | Word::Analyze), ..] => {
                intent.draws_sequence |= [Word::Insert, Word::Replace, Word::Update, Word::Delete].into_iter().any(has);
                // MariaDB executes what it analyzes.
                intent.hides_last_value |= *first == Word::Analyze && (has(Word::Insert) || has(Word::Replace));
            }
            [Word::Load, ..] => {
                intent.draws_sequence = true;
                // Of which the answer tells none.
                intent.hides_last_value |= has(Word::Infile);
                self.found.is_load_local |= has(Word::Local) && has(Word::Infile);
                // `LOAD DATA ... (a, @b)`
                if has(Word::Variable) {
                    self.pin(PinReason::UserVariable);
                }
            }
            [Word::Use, ..] => intent.pins_when_done.add(PinReason::Setting),
            // The connection's own may be the one.
            [Word::Drop | Word::Alter, Word::Database, ..] => self.pin(PinReason::Setting),
            [Word::Drop, Word::Prepare, ..] | [Word::Deallocate, ..] => {
                intent.may_end.add(PinReason::PreparedStatement)
            }
            [Word::Drop, ..] => intent.may_end.add(PinReason::TemporaryObject),
            [Word::Create, Word::Temporary, ..] | [Word::Create, Word::Or, Word::Replace, Word::Temporary, ..] => {
                intent.draws_sequence = true;
                if now.is_computed {
                    self.found.written = Written::ANY;
                }
                self.pin(PinReason::TemporaryObject);
            }
            [Word::Create, ..] if now.routine.is_some() => {}
            // Of a table, with its rows.
            [Word::Create, ..] if now.is_computed => {
                intent.draws_sequence = true;
                self.found.written = Written::ANY;
            }
            [Word::Create, ..] => {}
            [Word::Prepare, ..] => self.pin(PinReason::PreparedStatement),
            [Word::Execute, ..] => {
                self.pin(PinReason::PreparedStatement);
                self.opaque();
            }
            [Word::Call, ..] => {
                self.opaque();
                if has(Word::Variable) {
                    self.pin(PinReason::UserVariable);
                }
            }
            [Word::Lock, ..] => self.pin(PinReason::SessionLock),
            [Word::Unlock, ..] | [Word::Backup, Word::Unlock, ..] | [Word::Backup, _, Word::End] => {
                intent.may_end.add(PinReason::SessionLock);
            }
            [Word::Backup, ..] => self.pin(PinReason::SessionLock),
            [Word::Flush, ..] if has(Word::Lock) || has(Word::Export) => self.pin(PinReason::SessionLock),
            [Word::Handler, ..] => {
                if has(Word::Closes) {
                    intent.may_end.add(PinReason::HeldCursor);
                }
                if has(Word::Opens) {
                    self.pin(PinReason::HeldCursor);
                }
            }
            [Word::Get, ..] => {
                intent.asks_sequence = true;
                if has(Word::Variable) {
                    self.pin(PinReason::UserVariable);
                }
            }
            [Word::Show, ..] => intent.asks_sequence |= has(Word::Warnings) || has(Word::Errors),
            [Word::Begin] | [Word::Begin, Word::Work, ..] => {}
            // MariaDB's compound statements.
            [Word::Begin | Word::If | Word::Case | Word::Loop | Word::While | Word::Repeat | Word::For, ..]
            | [Word::Declare | Word::Return, ..]
            | [_, Word::Colon, ..] => self.opaque(),
            words if is_harmless(words) => {}
            // In Oracle's mode it may be a procedure's name.
            [Word::Name, ..] if self.dialect.mariadb => {
                self.found.is_unknown = true;
                self.opaque();
            }
            // A syntax error, or a statement that nobody here knows.
            _ => intent.pins_when_done.add(PinReason::OpaqueCode),
        }
    }

    pub(super) fn finish(mut self) -> Statement {
        self.end_of_statement();
        let mut found = self.found;
        match found.statements {
            0 => found.command = Command::Empty,
            1 => {}
            _ => {
                found.command = Command::Other;
                found.may_end_transaction = true;
                // One may be done and the next one fail.
                found.intent.pins_when_sent = found.intent.pins_when_sent.and(found.intent.pins_when_done);
                found.intent.pins_when_done = Pins::NONE;
            }
        }
        if self.unreadable {
            found.may_be_anything();
        }
        let pins = found.intent.pins_when_sent.and(found.intent.pins_when_done);
        found.intent.changes_settings |= CHANGE_SETTINGS.iter().any(|reason| pins.contains(*reason));
        found
    }
}

/// Behind this an expression of a `CREATE` may call what it likes.
fn computes(token: Token<'_>, word: Word, previous: Word, seen: Words) -> bool {
    match word {
        Word::Select => true,
        // `CREATE TABLE a TABLE b`
        Word::Table => seen.contains(Word::Table),
        // Those of partitions are `VALUES IN (1)` and `VALUES LESS THAN (1)`.
        Word::Open | Word::Header => previous == Word::Values,
        // `PARTITION BY SYSTEM_TIME INTERVAL f() DAY` is evaluated at once, `PERIOD FOR SYSTEM_TIME (a, b)` has names in it.
        _ => previous != Word::For && token.bytes.eq_ignore_ascii_case(b"system_time"),
    }
}

/// The main part of a `WITH` begins.
const fn is_query(word: Word) -> bool {
    use Word::{Delete, Insert, Replace, Select, Table, Update, Values};
    matches!(word, Select | Insert | Replace | Update | Delete | Table | Values)
}

/// Nothing about it outlives it but what the scan has found in it.
fn is_harmless(words: &[Word]) -> bool {
    use Word::{Admin, Alter, Commit, Create, Do, Flush, Kill, Plain, Release, Rollback, Set, Start, Xa};
    let is_other = |word: &Word| matches!(word, Admin | Alter | Commit | Create | Do | Flush | Kill | Plain | Release);
    let is_one = |word: &Word| matches!(word, Rollback | Set | Start | Xa) || is_other(word) || is_query(*word);
    words.first().is_none_or(is_one)
}

/// By what the manuals say of implicit commits; what isn't known may do anything.
fn may_end_transaction(words: &[Word], seen: Words) -> bool {
    use Word::{Deallocate, Do, Explain, Get, Handler, Load, Plain, Prepare, Release, Set, Show, Use, With};
    match words {
        [] => false,
        // `LOAD INDEX INTO CACHE`
        [Load, Word::Naming, ..] => true,
        [Word::Rollback, ..] => !seen.contains(Word::To),
        [Word::Create | Word::Drop, Word::Temporary, ..] | [Word::Drop, Word::Prepare, ..] => false,
        [
            Deallocate | Do | Explain | Get | Handler | Load | Plain | Prepare | Release | Set | Show | Use | With,
            ..,
        ] => false,
        [first, ..] => !is_query(*first),
    }
}

fn command(head: &Head) -> Command {
    let words = head.words();
    match words {
        [Word::Begin] | [Word::Begin, Word::Work] | [Word::Start, Word::Transaction, ..] => Command::Begin,
        [Word::Commit, rest @ ..] => Command::Commit(end(rest)),
        [Word::Rollback, Word::To, ..] | [Word::Rollback, Word::Work, Word::To, ..] => Command::RollbackTo,
        [Word::Rollback, rest @ ..] => Command::Rollback(end(rest)),
        [Word::Kill, rest @ ..] => kill(rest, head),
        [Word::Use, ..] => Command::Use,
        _ => Command::Other,
    }
}

fn end(rest: &[Word]) -> End {
    let has = |before, word| {
        let mut pairs = rest.windows(2);
        pairs.any(|pair| pair == [before, word])
    };
    End { chain: has(Word::And, Word::Chain), release: rest.contains(&Word::Release) && !has(Word::No, Word::Release) }
}

fn kill(rest: &[Word], head: &Head) -> Command {
    let (kind, target) = match rest {
        [Word::Connection, target @ ..] => (KillKind::Connection, target),
        [Word::Query, target @ ..] => (KillKind::Query, target),
        target => (KillKind::Connection, target),
    };
    let is_other = |word: &Word| matches!(word, Word::Hard | Word::Soft | Word::User | Word::Id);
    let kind = if rest.iter().take(3).any(is_other) { KillKind::Other } else { kind };
    let id = head.number.filter(|_| target == [Word::Number] && kind != KillKind::Other);
    Command::Kill { kind, id }
}

/// `@@name` that tells of the statement before.
fn is_last_value(name: &[u8]) -> bool {
    let names = ["identity", "last_insert_id", "warning_count", "error_count", "last_gtid"];
    names.iter().any(|last| last.as_bytes().eq_ignore_ascii_case(name))
}

/// What a built-in function does to its connection, or asks of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    Locks,
    Unlocks,
    /// Asks for a last value.
    Asks,
    Draws,
    /// Asks for it, or makes it if there is an argument.
    LastInsertId,
}

impl Effect {
    pub(super) fn of(name: &[u8], mariadb: bool) -> Option<Self> {
        const EFFECTS: [(&str, Effect); 12] = [
            ("get_lock", Effect::Locks),
            ("service_get_read_locks", Effect::Locks),
            ("service_get_write_locks", Effect::Locks),
            ("version_tokens_lock_exclusive", Effect::Locks),
            ("version_tokens_lock_shared", Effect::Locks),
            ("release_all_locks", Effect::Unlocks),
            ("release_lock", Effect::Unlocks),
            ("service_release_locks", Effect::Unlocks),
            ("version_tokens_unlock", Effect::Unlocks),
            ("found_rows", Effect::Asks),
            ("row_count", Effect::Asks),
            ("last_insert_id", Effect::LastInsertId),
        ];
        // In MySQL, functions of these names are users' own.
        const MARIADB: [(&str, Effect); 6] = [
            ("lastval", Effect::Asks),
            ("wsrep_last_seen_gtid", Effect::Asks),
            ("wsrep_last_written_gtid", Effect::Asks),
            ("wsrep_sync_wait_upto_gtid", Effect::Asks),
            ("nextval", Effect::Draws),
            ("setval", Effect::Draws),
        ];
        let more: &[(&str, Self)] = if mariadb { &MARIADB } else { &[] };
        let mut all = EFFECTS.iter().chain(more);
        all.find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, effect)| *effect)
    }

    /// Where nobody has loaded a function of that name, it is free for a user's.
    pub(super) fn is_loadable(name: &[u8]) -> bool {
        let starts =
            |prefix: &str| name.get(..prefix.len()).is_some_and(|first| first.eq_ignore_ascii_case(prefix.as_bytes()));
        ["service_", "version_tokens_"].into_iter().any(starts)
    }
}

/// The inside of a quoted name. Doubled quotes stay: no name that is known here has one.
pub(super) fn unquoted(name: &[u8]) -> &[u8] {
    match name {
        [b'`', inside @ .., b'`'] | [b'"', inside @ .., b'"'] => inside,
        bare => bare,
    }
}
