//! Reads from a text what it does to the session's settings: `SET`, `RESET`, `set_config` and their kin.
//!
//! Only called for texts that [`classify`](super::classify) has found to change some. What is read here saves asking the
//! server what became of it; what can't be read is said to be unknown, never guessed. Values come out as `set_config`
//! takes them, as the server's `flatten_set_variable_args` would make them.

#![allow(clippy::wildcard_enum_match_arm, reason = "every other kind of token is the wildcard")]

use super::Dialect;
use super::calls::{CALLS_MAX, is_plain};
use super::lexer::{Kind, Lexer, Token, identifier_value};

/// The settings whose list of values the server quotes one by one (`GUC_LIST_QUOTE`).
const QUOTED_LISTS: &[&str] =
    &["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];
/// The settings that decide how texts are read (see [`Dialect`]).
const DIALECT: &[&str] = &["standard_conforming_strings", "client_encoding"];
/// Settings that end with the transaction, however they are set; and the one that is no setting.
const LOCAL: &[&str] = &["transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed"];
/// What `SET SESSION CHARACTERISTICS` sets, some or all of it.
const CHARACTERISTICS: &[&str] =
    &["default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"];

/// Settings of a statement whose values are read from its Bind.
const BOUND_MAX: usize = 16;
/// Changes that are listed together.
const LIST_MAX: usize = 1_000;

/// What a text does to the session's settings, in its order, for the case that all of it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// One by one.
    pub list: Vec<Change>,
    /// There are more, which the server lists among its settings.
    pub has_more: bool,
    /// There may be more of any name at all.
    pub has_others: bool,
    /// How texts are read may change, be it for the transaction only.
    dialect: bool,
    /// Settings may change, be it for the transaction only, that are not the application's own.
    decides: bool,
    /// Parameters decide some of it: see [`bound_changes`].
    pub has_parameters: bool,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In lower case; with dots if the setting is an extension's or the application's own.
    pub name: String,
    /// What becomes of it.
    pub value: Value,
}

/// What becomes of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// It has this value.
    Known(String),
    /// It has some other value, or it does not change.
    Unknown,
    /// It has the value that the session began with. What that is for a setting of the application's own, or an
    /// extension's, the server knows.
    Default,
    /// So has every setting but the role (`RESET ALL`); the name says nothing.
    AllDefault,
}

impl Changes {
    /// All that the text does is listed with its value.
    pub fn are_known(&self) -> bool {
        let is_known = |change: &Change| match change.value {
            Value::Known(_) | Value::AllDefault => true,
            Value::Default => !change.name.contains('.'),
            Value::Unknown => false,
        };
        !self.has_others && !self.has_more && self.list.iter().all(is_known)
    }

    /// Nothing is left of it behind the transaction.
    pub fn is_local(&self) -> bool {
        self.are_known() && self.list.is_empty()
    }

    /// What a statement means does not depend on it: settings of the application's own are read as a statement runs.
    pub fn is_neutral(&self) -> bool {
        !self.has_more && !self.has_others && !self.decides
    }

    /// It is `RESET ALL`, and nothing else.
    pub fn is_reset_all(&self) -> bool {
        self.are_known() && matches!(self.list.as_slice(), [Change { value: Value::AllDefault, .. }])
    }

    /// The setting goes back to what the session began with, and nothing else is done to it behind that.
    pub fn resets(&self, name: &str) -> bool {
        let touches = |change: &&Change| change.name == name || change.value == Value::AllDefault;
        let last = self.list.iter().rev().find(touches);
        last.is_some_and(|change| matches!(change.value, Value::Default | Value::AllDefault))
    }

    /// Texts behind it may be read in another way, also if it changes nothing for good.
    pub fn may_change_dialect(&self) -> bool {
        let resets_all = |change: &Change| change.value == Value::AllDefault;
        self.dialect || self.has_more || self.has_others || self.list.iter().any(resets_all)
    }

    /// The same, with values that can't be read.
    pub fn without_values(mut self) -> Self {
        self.list.iter_mut().filter(|change| matches!(change.value, Value::Known(_))).for_each(|change| {
            change.value = Value::Unknown;
        });
        self
    }

    /// What both do, in whatever order, again and again. With too many of them nobody keeps count.
    pub fn and(&self, other: &Self) -> Self {
        let is_too_much = self.list.len() + other.list.len() > LIST_MAX;
        Self {
            list: if is_too_much { Vec::new() } else { [self.list.as_slice(), other.list.as_slice()].concat() },
            has_more: true,
            has_others: self.has_others || other.has_others || is_too_much,
            dialect: self.dialect || other.dialect || is_too_much,
            decides: self.decides || other.decides || is_too_much,
            has_parameters: self.has_parameters || other.has_parameters,
        }
    }

    fn add(&mut self, name: impl Into<String>, value: Value) {
        let name = name.into();
        self.names(&name);
        self.list.push(Change { name, value });
    }

    /// A setting of this name is changed, for whatever time.
    fn names(&mut self, name: &str) {
        self.dialect |= DIALECT.contains(&name);
        self.decides |= !name.contains('.');
    }
}

/// What the text does to the session's settings.
pub fn changes(sql: &[u8], dialect: Dialect) -> Changes {
    bound_changes(sql, dialect, &[])
}

/// A parameter as it is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// `None`: a null.
    pub value: Option<&'a [u8]>,
    /// In the type's binary format, which of a text is the text.
    pub is_binary: bool,
}

/// The same with these for `$1` and what follows it.
pub fn bound_changes(sql: &[u8], dialect: Dialect, parameters: &[Parameter<'_>]) -> Changes {
    let mut lexer = Lexer::new(sql, dialect);
    let mut changes = Changes::default();
    let (mut statement, mut depth) = (Vec::new(), 0_usize);
    while let Some(token) = lexer.next() {
        depth = match token.kind {
            Kind::Open => depth + 1,
            Kind::Close => depth.saturating_sub(1),
            Kind::Semicolon if depth == 0 => {
                Reader { tokens: &statement, lexer: &lexer, dialect, parameters, at: 0 }.statement(&mut changes);
                statement.clear();
                continue;
            }
            _other => depth,
        };
        statement.push(token);
    }
    Reader { tokens: &statement, lexer: &lexer, dialect, parameters, at: 0 }.statement(&mut changes);
    changes
}

/// What the code in a text (`DO`) mentions.
#[derive(Debug, Default)]
pub struct Mentioned {
    /// Settings that it may set.
    pub changes: Changes,
    /// Names of functions that it may call, no more than are followed.
    pub calls: Vec<Box<[u8]>>,
}

/// What the code in a text (`DO`) mentions: it may set that, and call these.
pub fn mentioned(sql: &[u8], dialect: Dialect) -> Mentioned {
    let mut found = Mentioned::default();
    let tokens = Lexer::new(sql, dialect);
    for literal in tokens.clone().filter(|token| token.kind == Kind::Literal) {
        let code = tokens.bytes(literal);
        // What quotes it, a tag or `E'`, is a word or a literal that says nothing.
        let code = code.iter().position(|byte| matches!(byte, b'\'' | b'$')).and_then(|at| code.get(at + 1..));
        mentions(code.unwrap_or_default(), dialect, &mut found);
    }
    found
}

fn mentions(code: &[u8], dialect: Dialect, found: &mut Mentioned) {
    let Mentioned { changes, calls } = found;
    let lexer = Lexer::new(code, dialect);
    let tokens: Vec<Token> = lexer.clone().collect();
    let mut reader = Reader { tokens: &tokens, lexer: &lexer, dialect, parameters: &[], at: 0 };
    while !reader.is_done() {
        if reader.takes("SET") {
            let _ = reader.takes("SESSION") || reader.takes("LOCAL");
            if let Some(name) = reader.name() {
                changes.add(name, Value::Unknown);
            }
        } else if reader.takes_if(is_set_config) {
            let start = reader.at;
            match reader.arguments(changes) {
                Some(change) => changes.list.extend(change),
                None => changes.has_others = true,
            }
            reader.at = start;
        } else if reader.takes("EXECUTE") {
            // Built from pieces, it may set anything.
            changes.has_others |= has_set(code) || code.windows(2).any(|window| window == b"||");
        } else {
            if let Some(name) = reader.called() {
                changes.has_others |= calls.len() >= CALLS_MAX;
                if calls.len() < CALLS_MAX {
                    calls.push(name);
                }
            }
            reader.at += 1;
        }
    }
}

fn has_set(code: &[u8]) -> bool {
    code.windows(3).any(|window| window.eq_ignore_ascii_case(b"set"))
}

/// One statement's tokens and how far they were read.
struct Reader<'a> {
    tokens: &'a [Token],
    lexer: &'a Lexer<'a>,
    dialect: Dialect,
    parameters: &'a [Parameter<'a>],
    at: usize,
}

impl Reader<'_> {
    fn statement(mut self, changes: &mut Changes) {
        if self.takes("SET") {
            self.set(changes);
        } else if self.takes("RESET") {
            self.reset(changes);
        } else if self.takes("DISCARD") {
            changes.has_more = true;
        } else {
            self.calls(changes);
        }
    }

    fn peek(&self) -> Option<(Kind, &[u8])> {
        let token = *self.tokens.get(self.at)?;
        Some((token.kind, self.lexer.bytes(token)))
    }

    fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The name that is here, if a parenthesis opens behind it.
    fn called(&self) -> Option<Box<[u8]>> {
        let (kind, name) = self.peek()?;
        let dot =
            self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).is_some_and(|dot| self.lexer.bytes(*dot) == b".");
        let is_name = kind == Kind::Quoted || kind == Kind::Word && (dot || !is_plain(name));
        let opens = self.tokens.get(self.at + 1).is_some_and(|next| next.kind == Kind::Open);
        (is_name && opens).then(|| identifier_value(name).into_owned().into())
    }

    /// The next token is this keyword, and is taken.
    fn takes(&mut self, keyword: &str) -> bool {
        self.takes_if(|kind, bytes| kind == Kind::Word && bytes.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    fn takes_byte(&mut self, byte: u8) -> bool {
        self.takes_if(|_, bytes| bytes == [byte])
    }

    fn takes_if(&mut self, is: impl Fn(Kind, &[u8]) -> bool) -> bool {
        let taken = self.peek().is_some_and(|(kind, bytes)| is(kind, bytes));
        self.at += usize::from(taken);
        taken
    }

    fn set(&mut self, changes: &mut Changes) {
        if self.takes("CONSTRAINTS") {
            // Or a setting of that name, or one whose name begins so.
            changes.has_others |= self.peek().is_some_and(is_assignment);
            return;
        }
        if self.takes("LOCAL") {
            changes.has_others |= self.peek().is_some_and(is_assignment);
            if self.takes("NAMES") {
                changes.names("client_encoding");
            } else if let Some(name) = self.name() {
                changes.names(&name);
            }
            return;
        }
        if self.takes("SESSION") {
            if self.takes("CHARACTERISTICS") {
                CHARACTERISTICS.iter().for_each(|name| changes.add(*name, Value::Unknown));
                return;
            }
            if self.takes("AUTHORIZATION") {
                return changes.add("role", Value::Unknown);
            }
        }
        let start = self.at;
        if self.takes("TRANSACTION") && self.peek().is_some_and(|(kind, _)| kind == Kind::Word) && !self.takes("TO") {
            return;
        }
        self.at = start;
        for (words, name) in [(&["TIME", "ZONE"][..], "timezone"), (&["NAMES"], "client_encoding"), (&["ROLE"], "role")]
        {
            self.at = start;
            if words.iter().all(|word| self.takes(word)) && !self.peek().is_some_and(is_assignment) {
                let value = if self.is_done() { Value::Default } else { self.value(name) };
                return changes.add(name, value);
            }
        }
        self.at = start;
        let Some(name) = self.name() else {
            changes.has_others = true;
            return;
        };
        if !self.takes("TO") && !self.takes_byte(b'=') {
            // `SET SCHEMA 'a'`, `SET XML OPTION DOCUMENT`
            let name = match name.as_str() {
                "schema" => "search_path",
                "xml" => "xmloption",
                _other => {
                    changes.has_others = true;
                    return;
                }
            };
            return changes.add(name, Value::Unknown);
        }
        if LOCAL.contains(&name.as_str()) {
            return changes.names(&name);
        }
        let value = self.value(&name);
        changes.add(name, value);
    }

    fn reset(&mut self, changes: &mut Changes) {
        if self.takes("ALL") {
            return changes.add("", Value::AllDefault);
        }
        if self.takes("SESSION") {
            return changes.add("role", Value::Unknown);
        }
        let start = self.at;
        if self.takes("TIME") && self.takes("ZONE") {
            return changes.add("timezone", Value::Default);
        }
        self.at = start;
        match self.name() {
            Some(name) if self.is_done() => {
                changes.add(name, Value::Default);
            }
            // `RESET TRANSACTION ISOLATION LEVEL`
            _other => changes.has_more = true,
        }
    }

    /// A setting's name, parts and all.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
            let (kind, bytes) = self.peek()?;
            if !matches!(kind, Kind::Word | Kind::Quoted) {
                return None;
            }
            let part = identifier_value(bytes).to_ascii_lowercase();
            name.push_str(std::str::from_utf8(&part).ok()?);
            self.at += 1;
            if !self.takes_byte(b'.') {
                return Some(name);
            }
            name.push('.');
        }
    }

    /// The values up to the statement's end.
    fn value(&mut self, name: &str) -> Value {
        if self.takes("DEFAULT") || (name == "timezone" && self.takes("LOCAL")) {
            return if self.is_done() { Value::Default } else { Value::Unknown };
        }
        let mut list: Vec<String> = Vec::new();
        loop {
            let Some(item) = self.item() else { return Value::Unknown };
            list.push(item);
            if self.is_done() {
                break;
            }
            if !self.takes_byte(b',') {
                return Value::Unknown;
            }
        }
        // How the server quotes the items it alone knows well enough.
        if QUOTED_LISTS.contains(&name) {
            return Value::Unknown;
        }
        if name == "role" && list.iter().any(|item| item == "none") {
            return Value::Default;
        }
        Value::Known(list.join(", "))
    }

    fn item(&mut self) -> Option<String> {
        let sign = self.peek().map(|(_, bytes)| bytes.to_vec()).filter(|bytes| matches!(bytes.as_slice(), b"-" | b"+"));
        self.at += usize::from(sign.is_some());
        let (kind, bytes) = self.peek()?;
        let item = match kind {
            Kind::Number => number(bytes, sign.as_deref() == Some(b"-"))?,
            _other if sign.is_some() => return None,
            Kind::Literal => literal(bytes, self.dialect)?,
            Kind::Word | Kind::Quoted => String::from_utf8(identifier_value(bytes).into_owned()).ok()?,
            _other => return None,
        };
        self.at += 1;
        // `INTERVAL '1' HOUR` and the like.
        (self.is_done() || self.peek().is_some_and(|(_, bytes)| bytes == b",")).then_some(item)
    }

    /// Calls of `set_config`, wherever they stand. Their values are known only if there is nothing else in the statement.
    fn calls(mut self, changes: &mut Changes) {
        let before = changes.list.len();
        self.read_calls(changes);
        if changes.list.len() - before > BOUND_MAX {
            // They are not read for each Bind.
            changes.has_parameters = false;
        }
    }

    fn read_calls(&mut self, changes: &mut Changes) {
        let is_select = self.takes("SELECT");
        let mut is_plain = is_select;
        let first = changes.list.len();
        while !self.is_done() {
            if self.takes_if(is_schema) && self.takes_byte(b'.') {
                continue;
            }
            if !self.takes_if(is_set_config) {
                // A name that changes a setting in another way, or anything else.
                changes.has_more |= self.takes_if(is_other_setter);
                is_plain &= self.is_done();
                self.at += 1;
                continue;
            }
            let Some(change) = self.arguments(changes) else {
                changes.has_others = true;
                return;
            };
            changes.list.extend(change);
            if self.takes("AS") || self.peek().is_some_and(|(kind, _)| matches!(kind, Kind::Word | Kind::Quoted)) {
                // An alias; or `FROM`, which is followed by something that is no comma.
                self.at += 1;
            }
            is_plain &= self.is_done() || self.takes_byte(b',');
        }
        if !is_plain {
            changes.list.iter_mut().skip(first).for_each(|change| change.value = Value::Unknown);
        }
    }

    /// `('name', 'value', false)`; `None` inside: it is for the transaction only. `None`: it can't be read.
    fn arguments(&mut self, changes: &mut Changes) -> Option<Option<Change>> {
        if !self.takes_byte(b'(') {
            return None;
        }
        let name = match self.argument(b',')? {
            Some(Argument::Text(name) | Argument::Bound(name, _)) => name,
            other => {
                changes.has_parameters |= matches!(other, Some(Argument::Parameter));
                return None;
            }
        };
        let name = name.to_ascii_lowercase();
        changes.names(&name);
        let value = self.argument(b',')?;
        let local = match self.argument(b')')? {
            Some(Argument::Truth(local)) => Some(local),
            Some(Argument::Text(text) | Argument::Bound(text, false)) => truth(text.as_bytes()),
            // No truth in binary is any other.
            Some(Argument::Bound(_, true)) => None,
            Some(Argument::Parameter) => {
                changes.has_parameters = true;
                None
            }
            None => None,
        };
        changes.has_parameters |= matches!(value, Some(Argument::Parameter));
        if local == Some(true) || LOCAL.contains(&name.as_str()) {
            return Some(None);
        }
        let value = match value {
            Some(Argument::Text(value) | Argument::Bound(value, _)) if local == Some(false) => Value::Known(value),
            _other => Value::Unknown,
        };
        Some(Some(Change { name, value }))
    }

    /// A parameter's value, as far as it is known.
    fn parameter(&self, bytes: &[u8]) -> Argument {
        let number = bytes.get(1..).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let bound = number.and_then(|number| self.parameters.get(number.checked_sub(1)?));
        match bound {
            Some(Parameter { value: Some(b"\0"), is_binary: true }) => Argument::Truth(false),
            Some(Parameter { value: Some(b"\x01"), is_binary: true }) => Argument::Truth(true),
            Some(Parameter { value: Some(value), is_binary }) => match std::str::from_utf8(value) {
                Ok(text) => Argument::Bound(text.to_owned(), *is_binary),
                Err(_) => Argument::Parameter,
            },
            Some(Parameter { value: None, .. }) | None => Argument::Parameter,
        }
    }

    /// One argument and what ends it. `None` inside: something else than a single literal. `None`: the statement is over.
    fn argument(&mut self, end: u8) -> Option<Option<Argument>> {
        let (kind, bytes) = self.peek()?;
        let argument = match kind {
            Kind::Literal => literal(bytes, self.dialect).map(Argument::Text),
            Kind::Parameter => Some(self.parameter(bytes)),
            Kind::Word => truth(bytes).map(Argument::Truth),
            _other => None,
        };
        let mut only = argument;
        let (mut depth, mut taken) = (0_usize, 0);
        loop {
            let (kind, bytes) = self.peek()?;
            let ends = depth == 0 && bytes == [end];
            depth = match kind {
                Kind::Open => depth + 1,
                Kind::Close => depth.saturating_sub(1),
                _other => depth,
            };
            self.at += 1;
            if ends {
                return Some(if taken == 1 { only } else { None });
            }
            taken += 1;
            if taken > 1 {
                only = None;
            }
        }
    }
}

enum Argument {
    Text(String),
    Truth(bool),
    Parameter,
    /// A parameter's value, and whether it came in binary.
    Bound(String, bool),
}

fn is_assignment((kind, bytes): (Kind, &[u8])) -> bool {
    bytes == b"=" || bytes == b"." || (kind == Kind::Word && bytes.eq_ignore_ascii_case(b"to"))
}

fn is_schema(kind: Kind, bytes: &[u8]) -> bool {
    names(kind, bytes, b"pg_catalog")
}

fn is_set_config(kind: Kind, bytes: &[u8]) -> bool {
    names(kind, bytes, b"set_config")
}

/// `pg_settings` has a rule that sets what is updated in it; `set_limit` is an extension's.
fn is_other_setter(kind: Kind, bytes: &[u8]) -> bool {
    names(kind, bytes, b"pg_settings") || names(kind, bytes, b"set_limit")
}

fn names(kind: Kind, bytes: &[u8], name: &[u8]) -> bool {
    matches!(kind, Kind::Word | Kind::Quoted) && *identifier_value(bytes) == *name
}

fn truth(word: &[u8]) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    if is(&["false", "f", "off", "no", "0"]) {
        Some(false)
    } else if is(&["true", "t", "on", "yes", "1"]) {
        Some(true)
    } else {
        None
    }
}

/// As the server prints it. An integer is printed without its leading zeros, which would make it octal elsewhere.
fn number(digits: &[u8], is_negative: bool) -> Option<String> {
    let digits = std::str::from_utf8(digits).ok()?;
    if digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.") {
        return None;
    }
    Some(if is_negative { format!("-{digits}") } else { digits.to_owned() })
}

/// The value of a string, if it is one without escapes.
fn literal(bytes: &[u8], dialect: Dialect) -> Option<String> {
    let inside = match bytes {
        [b'\'', inside @ .., b'\''] => inside,
        [b'e' | b'E', b'\'', inside @ .., b'\''] if !inside.contains(&b'\\') => inside,
        _other => return None,
    };
    if (dialect.backslash_quotes || dialect.unsure) && inside.contains(&b'\\') {
        return None;
    }
    let text = std::str::from_utf8(inside).ok()?;
    // A quote that is not doubled ends the first part of a string that goes on in the next line.
    let undoubled = text.replace("''", "");
    (!undoubled.contains('\'')).then(|| text.replace("''", "'"))
}

#[cfg(test)]
mod tests;
