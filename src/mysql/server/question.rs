//! What the server is asked about its client, and what its answers say.
//!
//! One row for all names. A user variable has a type, and a string a collation of its own: it is written so that `SET` makes the same of
//! it whatever the connection has set (<https://dev.mysql.com/doc/refman/9.7/en/user-variables.html>).

use super::owed::Effect;
use super::{Client, Server};
use crate::mysql::frame::Reader;
use crate::mysql::unread;
use crate::protocol::{ClientSide, Out, PinReason, Pins, Settings};
use crate::sql::mysql::settings::{self, Change, LAST_INSERT_ID, SQL_MODE, Value, is_variable};
use std::sync::Arc;

/// Longer values stay where they are.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// User variables that go with a client, and the bytes of them all.
const VARIABLES_MAX: usize = 128;
const VARIABLE_BYTES_MAX: usize = 64 << 10;

/// What is asked of each.
const VARIABLE_COLUMNS: usize = 4;

/// Types of columns, as the server numbers them.
const LONGLONG: u8 = 8;
const DOUBLE: u8 = 5;
const NEWDECIMAL: u8 = 246;
/// In MySQL, what has never been set; one that has has another type.
const VAR_STRING: u8 = 253;
/// The same in MariaDB, by its width: `NULL` is one less.
const MARIADB_UNSET: u32 = 1 << 24;
/// An integer has no sign.
const UNSIGNED: u16 = 32;

/// Values that are asked for, and what has come so far.
#[derive(Debug)]
pub(super) struct Question {
    names: Vec<String>,
    /// Of locks: whether they are this connection's.
    locks: Vec<String>,
    /// Whether it is MariaDB in Oracle's mode.
    mode: bool,
    columns: Vec<Column>,
    row: Vec<Option<Vec<u8>>>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    width: u32,
    kind: u8,
    flags: u16,
}

/// To a question.
struct Answers {
    values: Vec<(String, Answer)>,
    /// Locks that are not there; `None`: who knows.
    gone: Option<Vec<String>>,
    /// Names are no statements.
    is_plain_mode: bool,
}

/// What is known of a value.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It can be set like this.
    Written(String),
    /// There is none.
    Unset,
    /// It can't be had on another connection.
    Unknown,
}

impl Question {
    fn new<'a>(names: impl Iterator<Item = &'a str>, locks: impl Iterator<Item = &'a str>, mode: bool) -> Self {
        let [names, locks] = [names.map(str::to_owned).collect(), locks.map(str::to_owned).collect()];
        Self { names, locks, mode, columns: Vec::new(), row: Vec::new() }
    }

    /// Nothing is known, and nothing will be.
    pub(super) fn refused(self) -> Self {
        Self { columns: Vec::new(), row: Vec::new(), ..self }
    }

    fn text(&self, server: &Server) -> String {
        let one = |name: &String| {
            if is_variable(name) {
                // MariaDB pads the digits of a decimal that is not read as a string.
                format!(
                    "IF(OCTET_LENGTH({name})>{VALUE_BYTES_MAX},NULL,{name}),LEFT({name},99),\
                     HEX(IF(OCTET_LENGTH({name})>{VALUE_BYTES_MAX},NULL,{name})),COLLATION({name})"
                )
            } else {
                format!("@@SESSION.{}", server.spelled(name))
            }
        };
        let locks = self.locks.iter().map(|name| format!("IS_USED_LOCK('{name}')<=>CONNECTION_ID()"));
        let mode = self.mode.then(|| "INSTR(@@SESSION.sql_mode,'ORACLE')".to_owned());
        let all: Vec<String> = self.names.iter().map(one).chain(locks).chain(mode).collect();
        // Without a limit of its own it would have that of the session.
        format!("SELECT {} LIMIT 1", all.join(","))
    }

    /// A server that sends more is not listened to.
    fn columns_max(&self) -> usize {
        VARIABLE_COLUMNS * self.names.len() + self.locks.len() + usize::from(self.mode)
    }

    /// A column's definition has come.
    pub(super) fn column(&mut self, payload: &[u8]) {
        if self.columns.len() == self.columns_max() {
            return;
        }
        let mut reader = Reader(payload);
        let column = (|| {
            for _ in 0..6 {
                reader.string()?;
            }
            // How long the rest is, a character set.
            reader.bytes(1 + 2)?;
            Some(Column { width: reader.u32()?, kind: reader.byte()?, flags: reader.u16()? })
        })();
        self.columns.push(column.unwrap_or(Column { width: 0, kind: 0, flags: 0 }));
    }

    /// The row has come.
    pub(super) fn row(&mut self, payload: &[u8]) {
        let mut reader = Reader(payload);
        let left = self.columns_max().saturating_sub(self.row.len());
        let values = std::iter::from_fn(|| reader.value()).take(left);
        self.row.extend(values.map(|value| value.map(<[u8]>::to_vec)));
    }

    fn answers(self) -> Answers {
        let mut row = self.row.into_iter();
        let mut columns = self.columns.into_iter();
        let mut next = || Some((columns.next()?, row.next()?));
        let mut answers = Vec::new();
        for name in self.names {
            let answer = if is_variable(&name) {
                let values = [next(), next(), next(), next()];
                match values {
                    [Some((column, value)), Some((_, text)), Some((_, hex)), Some((_, collation))] => {
                        variable(column, value, text, hex, collation).unwrap_or(Answer::Unknown)
                    }
                    _ => Answer::Unknown,
                }
            } else {
                let value = next().and_then(|(_, value)| value).and_then(|value| String::from_utf8(value).ok());
                let written = value.and_then(|value| settings::read_back(&name, &value));
                written.map_or(Answer::Unknown, Answer::Written)
            };
            answers.push((name, answer));
        }
        let mut gone = Some(Vec::new());
        for name in self.locks {
            match next().and_then(|(_, value)| value) {
                Some(value) if value == b"1" => {}
                Some(value) if value == b"0" => gone.iter_mut().for_each(|gone| gone.push(name.clone())),
                Some(_) | None => gone = None,
            }
        }
        let is_plain_mode = self.mode && next().and_then(|(_, value)| value).is_some_and(|value| value == b"0");
        Answers { values: answers, gone, is_plain_mode }
    }
}

/// What a user variable is. `None`: it can't be told.
fn variable(
    Column { width, kind, flags }: Column,
    value: Option<Vec<u8>>,
    text: Option<Vec<u8>>,
    hex: Option<Vec<u8>>,
    collation: Option<Vec<u8>>,
) -> Option<Answer> {
    let plain = |bytes: Option<Vec<u8>>, may: fn(&u8) -> bool| {
        let bytes = bytes.filter(|bytes| bytes.iter().all(may))?;
        String::from_utf8(bytes).ok()
    };
    let is_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    let is_unsigned = flags & UNSIGNED != 0;
    Some(Answer::Written(match (kind, value.is_some()) {
        (LONGLONG, true) if is_unsigned => format!("CAST({} AS UNSIGNED)", plain(value, is_digit)?),
        (LONGLONG, true) => plain(value, is_digit)?,
        (LONGLONG, false) if is_unsigned => "CAST(NULL AS UNSIGNED)".to_owned(),
        (LONGLONG, false) => "CAST(NULL AS SIGNED)".to_owned(),
        (NEWDECIMAL, true) => {
            let digits = plain(text, |byte| byte.is_ascii_digit() || b"-.".contains(byte))?;
            if digits.contains('.') { digits } else { format!("{digits}.") }
        }
        (NEWDECIMAL, false) => "CAST(NULL AS DECIMAL)".to_owned(),
        (DOUBLE, true) => {
            let digits = plain(value, |byte| byte.is_ascii_digit() || b"-+.e".contains(byte))?;
            if digits.contains('e') { digits } else { format!("{digits}e0") }
        }
        (DOUBLE, false) => "0e0+NULL".to_owned(),
        (_, true) => {
            let hex = plain(hex, u8::is_ascii_hexdigit)?;
            let collation = plain(collation, |byte| byte.is_ascii_alphanumeric() || *byte == b'_')?;
            // What a parameter has brought may be no such string, and is refused when it is written.
            if !is_string(&hex, &collation) {
                return None;
            }
            string(&hex, &collation)
        }
        // It is too long.
        (_, false) if text.is_some() => return None,
        (_, false) if kind == VAR_STRING || width == MARIADB_UNSET => return Some(Answer::Unset),
        (_, false) => {
            let collation = plain(collation, |byte| byte.is_ascii_alphanumeric() || *byte == b'_')?;
            if collation == "binary" {
                return Some(Answer::Written("NULL".to_owned()));
            }
            let empty = string("", &collation);
            format!("NULLIF({empty},{empty})")
        }
    }))
}

/// These bytes are surely letters, as a literal's must be.
fn is_string(hex: &str, collation: &str) -> bool {
    /// Letters of several bytes, or not all bytes are letters.
    const OTHERS: [&str; 7] = ["ascii", "big5", "cp932", "euc", "gb", "sjis", "ujis"];
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let Some(bytes) = (0..hex.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>() else { return false };
    if collation.starts_with("utf8") {
        let longest = if collation.starts_with("utf8mb4") { 4 } else { 3 };
        return std::str::from_utf8(&bytes).is_ok_and(|text| text.chars().all(|letter| letter.len_utf8() <= longest));
    }
    match collation.split_once('_').map(|(charset, _)| charset) {
        Some("ucs2") => bytes.len().is_multiple_of(2),
        Some(charset) if charset.starts_with("utf16") => {
            let unit = |pair: &[u8]| match pair {
                [a, b] if charset == "utf16le" => u16::from_le_bytes([*a, *b]),
                [a, b] => u16::from_be_bytes([*a, *b]),
                _ => 0xD800,
            };
            char::decode_utf16(bytes.chunks(2).map(unit)).all(|letter| letter.is_ok())
        }
        Some("utf32") => bytes.chunks(4).all(|four| {
            four.first_chunk::<4>().is_some_and(|four| char::from_u32(u32::from_be_bytes(*four)).is_some())
        }),
        Some(charset) if OTHERS.iter().any(|other| charset.starts_with(other)) => bytes.is_ascii(),
        // Each byte is one.
        Some(_) | None => true,
    }
}

/// A string by its bytes.
fn string(hex: &str, collation: &str) -> String {
    match collation.split_once('_') {
        Some((charset, _)) => format!("_{charset} X'{hex}' COLLATE {collation}"),
        None => format!("X'{hex}'"),
    }
}

impl Server {
    /// Asks for what the client has set, if nothing else keeps it here. False: there is nothing to ask.
    pub(super) fn ask(&mut self, client: &Client, out: &mut Vec<u8>) -> bool {
        let (unread, held) = (&client.unread, &client.held);
        // For anything else it stays here anyway.
        let is_alone = client.pins().without(unread.reasons().and(held.reasons())).is_empty()
            && unread.unknown().is_empty()
            && held.is_only_asked();
        let question = Question::new(unread.names(), held.asked(), held.asks_mode);
        if !is_alone || question.names.is_empty() && question.locks.is_empty() && !question.mode {
            return false;
        }
        let text = question.text(self);
        self.query(text.as_bytes(), Effect::Asks(Box::new(question)), out);
        self.tally.questions += 1;
        // What the client's last statement has left to ask for is gone.
        self.foreign_values = true;
        true
    }

    /// These may be set, of which nobody knows more before the server is asked: until then what is prepared here is of use to this
    /// client alone. False: the server was asked for something that must come first.
    pub(super) fn will_ask(&mut self, sets: &[Change], client: &Client, out: &mut Out) -> bool {
        let mut asked = sets.iter().filter(|(_, value)| *value == Value::Asked).map(|(name, _)| *name).peekable();
        if asked.peek().is_none() {
            return true;
        }
        // No other one changes what the client's statements say.
        if asked.any(|name| name == SQL_MODE) {
            if !self.anchor(client, out) {
                return false;
            }
        } else {
            self.take_statements(client);
        }
        self.has_moved_unread |= !self.has_moved;
        self.has_moved = true;
        true
    }

    /// The server has answered, or refused to.
    pub(super) fn is_answered(&mut self, question: Question, client: &mut Client) {
        let asked_mode = question.mode;
        let Answers { values: answers, gone, is_plain_mode } = question.answers();
        let (mut unknown, mut known) = (Pins::NONE, Vec::new());
        for (name, answer) in answers {
            match answer {
                // Nobody knows: it is no one's.
                answer if name == LAST_INSERT_ID => {
                    let number = if let Answer::Written(number) = answer { number.parse().ok() } else { None };
                    self.insert_id = number;
                    client.insert_id = number.unwrap_or_default();
                }
                Answer::Unknown => unknown.add(unread::reason(&name)),
                Answer::Written(value) => known.push((name, Some(value))),
                Answer::Unset => known.push((name, None)),
            }
        }
        if !known.is_empty() {
            let edit = |settings: &Settings| {
                settings.edited(|values| {
                    for (name, value) in &known {
                        match value {
                            Some(value) => _ = values.insert(name.clone(), value.clone()),
                            None => _ = values.remove(name),
                        }
                    }
                })
            };
            let wanted = edit(client.settings());
            let variables = || wanted.iter().filter(|(name, _)| is_variable(name));
            if variables().count() > VARIABLES_MAX
                || variables().map(|(_, value)| value.len()).sum::<usize>() > VARIABLE_BYTES_MAX
            {
                unknown.add(PinReason::UserVariable);
            }
            self.has_now(edit(&self.applied), wanted, client);
        }
        client.unread.is_answered(unknown);
        client.held.is_answered(gone.as_deref());
        if asked_mode {
            client.held.asks_mode = false;
            if is_plain_mode {
                client.pins = client.pins.without(Pins::of(PinReason::OpaqueCode));
            }
        }
        self.settle_held(client);
        if std::mem::take(&mut self.has_moved_unread)
            && !client.pins.contains(PinReason::Setting)
            && !client.has_opaque()
        {
            self.is_back_in_place();
        }
    }

    /// Both have these settings.
    pub(super) fn has_now(&mut self, applied: Settings, wanted: Settings, client: &mut Client) {
        client.change_settings(wanted);
        // Mostly the same: then it is one.
        let is_same = applied == **client.settings();
        self.applied = if is_same { Arc::clone(client.settings()) } else { Arc::new(applied) };
    }
}
