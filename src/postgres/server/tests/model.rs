//! A PostgreSQL to test against: no socket, no storage, a handful of texts, and the protocol's rules to the letter.
//!
//! It keeps what a pooler can get wrong: implicit transactions that end at a Sync, everything read over after an
//! error, named and unnamed statements and portals, COPY, replies that stay in its buffer until a Flush. Rows that
//! are inserted go to a table that several servers may share.

use super::wire::{self, frames};
use crate::postgres::{frame, message};
use crate::protocol::{ClientError, PinReason};
use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Rows per table name, committed.
pub(super) type Tables = Rc<RefCell<BTreeMap<String, usize>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    /// Begun by a statement, ends with the Query or at the Sync.
    Implicit,
    Open,
    Failed,
}

#[derive(Debug, Clone)]
struct Portal {
    text: String,
    parameters: Vec<String>,
    /// Rows given out so far; `None`: run to its end.
    given: Option<usize>,
}

#[derive(Debug, Clone)]
struct Copy {
    rows: usize,
    /// Statements of the simple query behind it; `None`: an Execute began it.
    behind: Option<Vec<String>>,
}

/// Of a statement that would pin; the words are the proxy's.
const REFUSED: &str = "55000";

/// An error: code and message.
type Failure = (&'static str, String);

#[derive(Debug, Clone)]
pub(super) struct Model {
    tables: Tables,
    named: BTreeMap<String, String>,
    unnamed: Option<String>,
    portals: BTreeMap<String, Portal>,
    /// What a session starts with, and what it has now.
    defaults: BTreeMap<String, String>,
    settings: BTreeMap<String, String>,
    /// What comes back at the transaction's end.
    outside: BTreeMap<String, String>,
    transaction: Transaction,
    /// Rows inserted in the transaction.
    pending: Vec<String>,
    ignoring: bool,
    unsynced: bool,
    copy: Option<Copy>,
    /// A request came in the middle of COPY data: a server reads no more of it than its type and ends the connection,
    /// which no program here is to lead to.
    pub(super) lost_synchronization: bool,
    /// What a server describes in a failed transaction, a statement without rows, can't be parsed there by the proxy on a
    /// connection that does not have it: the one known difference (docs/STATUS.md).
    pub(super) described_in_failed: bool,
    /// Something ran behind a `DISCARD ALL` in one segment with it, where `init_query` can't be run again yet.
    pub(super) ran_behind_discard: bool,
    discarded: bool,
    /// It refuses LISTEN by itself, in the proxy's words; else it must not get any.
    refuses: bool,
    /// Settings as they were before this transaction set them.
    undo: Vec<(String, String)>,
    input: Vec<u8>,
    buffered: Vec<u8>,
    /// What has been sent.
    pub(super) out: Vec<u8>,
}

impl Model {
    pub(super) fn new(tables: &Tables, settings: &[(&str, &str)]) -> Self {
        let defaults: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self {
            tables: Rc::clone(tables),
            named: BTreeMap::new(),
            unnamed: None,
            portals: BTreeMap::new(),
            settings: defaults.clone(),
            defaults,
            outside: BTreeMap::new(),
            transaction: Transaction::None,
            pending: Vec::new(),
            ignoring: false,
            unsynced: false,
            copy: None,
            lost_synchronization: false,
            described_in_failed: false,
            ran_behind_discard: false,
            discarded: false,
            refuses: false,
            undo: Vec::new(),
            input: Vec::new(),
            buffered: Vec::new(),
            out: Vec::new(),
        }
    }

    /// A server that is not behind a proxy, and has its rules.
    pub(super) fn direct(settings: &[(&str, &str)]) -> Self {
        Self { refuses: true, ..Self::new(&Tables::default(), settings) }
    }

    /// Names of its statements.
    pub(super) fn statements(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// What it has that a fresh session has not.
    pub(super) fn settings(&self) -> BTreeMap<String, String> {
        let changed = self.settings.iter().filter(|(name, value)| self.defaults.get(*name) != Some(*value));
        changed.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// It waits for nothing, owes nothing, and has nothing open.
    pub(super) fn is_quiet(&self) -> bool {
        self.transaction == Transaction::None
            && !self.ignoring
            && !self.unsynced
            && self.copy.is_none()
            && self.input.is_empty()
            && self.buffered.is_empty()
            && self.out.is_empty()
    }

    pub(super) fn is_copying(&self) -> bool {
        self.copy.is_some()
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        for frame in frames(&input) {
            match frame::head(frame) {
                Ok(Some(head)) if head.len == frame.len() => self.message(head.kind, &frame[5..]),
                Ok(_) => self.input = frame.to_vec(),
                Err(violation) => panic!("the server got {:?}: {violation}", frame.escape_ascii().to_string()),
            }
        }
    }

    fn put(&mut self, frame: Vec<u8>) {
        self.buffered.extend(frame);
    }

    fn flush(&mut self) {
        self.out.append(&mut self.buffered);
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        if self.copy.is_some() {
            return self.copy_message(kind, body);
        }
        if self.ignoring && !matches!(kind, b'S' | b'X') {
            return;
        }
        let mut strings = body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let mut string = || strings.next().unwrap_or_default();
        let result = match kind {
            b'Q' => {
                self.unsynced = false;
                self.unnamed = None;
                let text = string();
                let statements = text.split(';').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
                let statements: Vec<_> = statements.collect();
                if statements.is_empty() {
                    self.put(wire::empty());
                }
                return self.simple(statements);
            }
            b'F' => {
                self.unsynced = false;
                let result = self.check_failed("F").map(|()| self.put(wire::v("f")));
                if let Err(failure) = result {
                    self.fail(failure);
                }
                return self.end_simple();
            }
            b'P' => self.parse(string(), string()),
            b'B' => {
                let (portal, name) = (string(), string());
                let parameters = &body[portal.len() + name.len() + 2 + 2..];
                self.bind(portal, &name, read_parameters(parameters))
            }
            b'D' => self.describe(body[0], &string()[1..]),
            b'E' => {
                let portal = string();
                let rows = u32::from_be_bytes(*body[portal.len() + 1..].first_chunk().unwrap());
                self.execute(&portal, rows as usize)
            }
            b'C' => {
                let name = &string()[1..];
                match body[0] {
                    b'S' if name.is_empty() => self.unnamed = None,
                    b'S' => drop(self.named.remove(name)),
                    _ => drop(self.portals.remove(name)),
                }
                self.put(wire::cc());
                Ok(())
            }
            b'S' => {
                self.ignoring = false;
                self.unsynced = false;
                self.discarded = false;
                self.end_implicit();
                return self.ready();
            }
            b'H' => return self.flush(),
            // Stray COPY data.
            b'd' | b'c' | b'f' => return,
            b'X' => return,
            other => panic!("the server got a frame of type {other}"),
        };
        self.unsynced = true;
        if let Err(failure) = result {
            self.fail(failure);
            self.ignoring = true;
        }
    }

    /// A statement failed: rolls back, says so.
    fn fail(&mut self, (code, message): Failure) {
        self.pending.clear();
        self.portals.clear();
        self.end_local();
        self.take_back();
        self.transaction = match self.transaction {
            Transaction::Open | Transaction::Failed => Transaction::Failed,
            Transaction::None | Transaction::Implicit => Transaction::None,
        };
        if code == REFUSED {
            message::client_error(&ClientError::PinRefused { reason: PinReason::Listen }, false, &mut self.buffered);
        } else {
            self.put(wire::err(code, &message));
        }
        self.flush();
    }

    /// As `pin_on` has it.
    fn check_refused(&self, text: &str) -> Result<(), Failure> {
        let executed = |text: &str| text.strip_prefix("EXECUTE ").and_then(|name| self.named.get(&unquoted(name)));
        // So far the proxy reads what one executes that executes one.
        let text = executed(text).map_or(text, |text| executed(text).map_or(text, String::as_str));
        if !text.starts_with("LISTEN") {
            return Ok(());
        }
        assert!(self.refuses, "what is refused has come to the server");
        Err((REFUSED, String::new()))
    }

    /// The same of a text's statements, none of which has run. What an earlier one of them drops is not executed, nor is any
    /// behind a name that is taken.
    fn check_all_refused(&self, statements: &[String]) -> Result<(), Failure> {
        let mut there: BTreeSet<String> = self.named.keys().cloned().collect();
        for text in statements {
            let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
            let name = unquoted(rest.split(' ').next().unwrap_or_default());
            match verb {
                "PREPARE" if there.contains(&name) => there.clear(),
                "DEALLOCATE" if rest == "ALL" => there.clear(),
                "DEALLOCATE" => drop(there.remove(&name)),
                // What the text itself makes is no LISTEN.
                "EXECUTE" if !there.contains(&name) => {}
                _ => self.check_refused(text)?,
            }
        }
        Ok(())
    }

    fn ready(&mut self) {
        let status = match self.transaction {
            Transaction::None => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
            Transaction::Implicit => unreachable!("has ended"),
        };
        self.put(wire::z(status));
        self.flush();
    }

    fn end_implicit(&mut self) {
        if matches!(self.transaction, Transaction::Implicit | Transaction::None) {
            self.commit();
        }
    }

    fn commit(&mut self) {
        for table in self.pending.drain(..) {
            *self.tables.borrow_mut().entry(table).or_default() += 1;
        }
        self.portals.clear();
        self.end_local();
        self.undo.clear();
        self.transaction = Transaction::None;
    }

    /// What was set in the transaction goes with it.
    fn take_back(&mut self) {
        for (name, value) in std::mem::take(&mut self.undo).into_iter().rev() {
            let _ = self.set(&name, value);
        }
    }

    fn end_local(&mut self) {
        for (name, value) in std::mem::take(&mut self.outside) {
            let _ = self.set(&name, value);
        }
    }

    fn begin_implicit(&mut self) {
        if self.transaction == Transaction::None {
            self.transaction = Transaction::Implicit;
        }
    }

    fn check_failed(&self, text: &str) -> Result<(), Failure> {
        if self.transaction == Transaction::Failed && !matches!(text, "COMMIT" | "ROLLBACK" | "") {
            return Err(("25P02", "current transaction is aborted".to_owned()));
        }
        Ok(())
    }

    // --- simple ---

    fn simple(&mut self, statements: Vec<String>) {
        self.ran_behind_discard |= std::mem::take(&mut self.discarded);
        if let Err(failure) = self.check_all_refused(&statements) {
            self.begin_implicit();
            self.fail(failure);
            return self.end_simple();
        }
        let mut left = statements.into_iter();
        while let Some(text) = left.next() {
            self.begin_implicit();
            let result = check_syntax(&text).and_then(|()| self.check_failed(&text)).and_then(|()| match &*text {
                "COPY IN" => {
                    self.put(wire::copy_in());
                    self.flush();
                    self.copy = Some(Copy { rows: 0, behind: Some(left.by_ref().collect()) });
                    Ok(())
                }
                text => {
                    let rows = self.rows(text, &[]);
                    if let Some(rows) = &rows {
                        self.put(wire::t());
                        rows.iter().for_each(|row| self.put(wire::row(row)));
                    }
                    self.run(text, &[], rows.map(|rows| rows.len()))
                }
            });
            if self.copy.is_some() {
                return;
            }
            if let Err(failure) = result {
                self.fail(failure);
                break;
            }
        }
        self.end_simple();
    }

    fn end_simple(&mut self) {
        self.portals.remove("");
        self.end_implicit();
        self.ready();
    }

    // --- extended ---

    fn parse(&mut self, name: String, text: String) -> Result<(), Failure> {
        if name.is_empty() {
            self.unnamed = None;
        }
        self.begin_implicit();
        check_syntax(&text)?;
        self.check_failed(&text)?;
        if name.is_empty() {
            self.unnamed = Some(text);
        } else {
            match self.named.entry(name) {
                Entry::Occupied(entry) => {
                    return Err(("42P05", format!("prepared statement \"{}\" already exists", entry.key())));
                }
                Entry::Vacant(entry) => drop(entry.insert(text)),
            }
        }
        self.put(wire::pc());
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<String, Failure> {
        if name.is_empty() {
            let none = || ("26000", "unnamed prepared statement does not exist".to_owned());
            return self.unnamed.clone().ok_or_else(none);
        }
        let none = || ("26000", format!("prepared statement \"{name}\" does not exist"));
        self.named.get(name).cloned().ok_or_else(none)
    }

    fn bind(&mut self, portal: String, name: &str, parameters: Vec<String>) -> Result<(), Failure> {
        self.begin_implicit();
        let text = self.statement(name)?;
        self.check_refused(&text)?;
        self.check_failed(&text)?;
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(("42P03", format!("cursor \"{portal}\" already exists")));
        }
        self.portals.insert(portal, Portal { text, parameters, given: Some(0) });
        self.put(wire::bc());
        Ok(())
    }

    fn describe(&mut self, of: u8, name: &str) -> Result<(), Failure> {
        self.begin_implicit();
        let text = if of == b'S' { self.statement(name)? } else { self.portal(name)?.text };
        let has_rows = self.rows(&text, &[]).is_some();
        if has_rows {
            self.check_failed(&text)?;
        } else if of == b'S' {
            self.described_in_failed |= self.transaction == Transaction::Failed;
        }
        if of == b'S' {
            self.put(wire::pd());
        }
        self.put(if has_rows { wire::t() } else { wire::n() });
        Ok(())
    }

    fn portal(&self, name: &str) -> Result<Portal, Failure> {
        let none = || ("34000", format!("portal \"{name}\" does not exist"));
        self.portals.get(name).cloned().ok_or_else(none)
    }

    fn execute(&mut self, name: &str, max: usize) -> Result<(), Failure> {
        self.ran_behind_discard |= self.discarded;
        self.begin_implicit();
        let Portal { text, parameters, given } = self.portal(name)?;
        self.check_failed(&text)?;
        let rows = self.rows(&text, &parameters);
        let Some(rows) = rows else {
            if given.is_none() {
                return Err(("55000", format!("portal \"{name}\" cannot be run")));
            }
            if let Some(portal) = self.portals.get_mut(name) {
                portal.given = None;
            }
            if text == "COPY IN" {
                self.put(wire::copy_in());
                self.flush();
                self.copy = Some(Copy { rows: 0, behind: None });
                return Ok(());
            }
            return self.run(&text, &parameters, None);
        };
        let left = &rows[given.unwrap_or(rows.len()).min(rows.len())..];
        let now = if max == 0 { left.len() } else { left.len().min(max) };
        left[..now].iter().for_each(|row| self.put(wire::row(row)));
        if let Some(portal) = self.portals.get_mut(name) {
            portal.given = given.map(|given| given + now);
        }
        if max > 0 && now == max {
            self.put(wire::suspended());
            return Ok(());
        }
        self.run(&text, &parameters, Some(now))
    }

    // --- statements ---

    /// The rows of a statement that has any.
    fn rows(&self, text: &str, parameters: &[String]) -> Option<Vec<String>> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "SELECT" if rest.starts_with("pg_catalog.set_config") => {
                Some(parameters.get(1..).unwrap_or_default().to_vec())
            }
            "EXECUTE" => self.rows(&self.executed(rest).ok()?, parameters),
            "SELECT" => Some((0..rest.parse().unwrap_or(0)).map(|row: usize| format!("{row} of {rest}")).collect()),
            "SHOW" => Some(vec![self.settings.get(rest).cloned().unwrap_or_default()]),
            "COUNT" => {
                let pending = self.pending.iter().filter(|table| *table == rest).count();
                Some(vec![(self.tables.borrow().get(rest).copied().unwrap_or(0) + pending).to_string()])
            }
            _ => None,
        }
    }

    /// The text that `EXECUTE` runs. Who describes it runs nothing that could be refused.
    fn executed(&self, name: &str) -> Result<String, Failure> {
        let text = self.statement(&unquoted(name))?;
        match text.split(' ').next() {
            Some("SELECT" | "INSERT" | "COUNT") if !text.contains("set_config") => Ok(text),
            _ => Err(("0A000", "EXECUTE does not support this".to_owned())),
        }
    }

    /// What it does beside rows, and its tag. `parameters` are those of its portal.
    fn run(&mut self, text: &str, parameters: &[String], rows: Option<usize>) -> Result<(), Failure> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let tag = match (verb, rest) {
            ("", _) => {
                self.put(wire::empty());
                return Ok(());
            }
            ("SELECT", rest) if rest.starts_with("pg_catalog.set_config") => {
                let [name, value, ..] = parameters else { return Err(("08P01", "set_config wants parameters".into())) };
                self.undo.push((name.clone(), self.settings.get(name).cloned().unwrap_or_default()));
                self.set(name, value.clone())?;
                "SELECT 1".to_owned()
            }
            ("SHOW", _) => "SHOW".to_owned(),
            ("SELECT" | "COUNT", _) => format!("SELECT {}", rows.unwrap_or(0)),
            ("BEGIN", _) => {
                if self.transaction == Transaction::Open {
                    self.put(wire::notice("there is already a transaction in progress"));
                }
                self.transaction = Transaction::Open;
                "BEGIN".to_owned()
            }
            ("COMMIT" | "ROLLBACK", _) => {
                let was = self.transaction;
                if was == Transaction::Implicit {
                    self.put(wire::notice("there is no transaction in progress"));
                }
                if verb == "ROLLBACK" {
                    self.pending.clear();
                    self.take_back();
                }
                self.commit();
                if was == Transaction::Failed { "ROLLBACK".to_owned() } else { verb.to_owned() }
            }
            ("INSERT", table) => {
                self.pending.push(table.to_owned());
                "INSERT 0 1".to_owned()
            }
            ("ERROR", _) => return Err(("22012", "division by zero".to_owned())),
            ("NOTICE", _) => {
                self.put(wire::notice("look"));
                "ANALYZE".to_owned()
            }
            ("COPY", _) => {
                self.put(wire::copy_out());
                self.put(wire::d("one"));
                self.put(wire::d("two"));
                self.put(wire::c());
                "COPY 2".to_owned()
            }
            ("DEALLOCATE", "ALL") => {
                self.named.clear();
                "DEALLOCATE ALL".to_owned()
            }
            ("PREPARE", rest) => {
                let (name, text) = rest.split_once(" AS ").unwrap();
                match self.named.entry(unquoted(name)) {
                    Entry::Occupied(entry) => {
                        return Err(("42P05", format!("prepared statement \"{}\" already exists", entry.key())));
                    }
                    Entry::Vacant(entry) => drop(entry.insert(text.to_owned())),
                }
                "PREPARE".to_owned()
            }
            ("EXECUTE", name) => {
                let text = self.executed(name)?;
                self.check_refused(&text)?;
                return self.run(&text, parameters, rows);
            }
            ("DEALLOCATE", name) => {
                let name = unquoted(name);
                let none = || ("26000", format!("prepared statement \"{name}\" does not exist"));
                self.named.remove(&name).ok_or_else(none)?;
                "DEALLOCATE".to_owned()
            }
            ("DISCARD", "ALL") => {
                if self.transaction == Transaction::Open {
                    return Err(("25001", "DISCARD ALL cannot run inside a transaction block".to_owned()));
                }
                self.named.clear();
                self.discarded = self.unsynced;
                // It is committed at once, whatever follows in its segment.
                self.undo.clear();
                for (name, value) in self.defaults.clone() {
                    self.set(&name, value)?;
                }
                "DISCARD ALL".to_owned()
            }
            ("DISCARD", what) => format!("DISCARD {what}"),
            ("SET", local) => {
                let (name, value) = local.strip_prefix("LOCAL ").and_then(|rest| rest.split_once('=')).unwrap();
                let before = self.settings.get(name).cloned().unwrap_or_default();
                self.outside.entry(name.to_owned()).or_insert(before);
                self.set(name, value.to_owned())?;
                "SET".to_owned()
            }
            ("INIT", value) => {
                self.set("search_path", value.to_owned())?;
                "SET".to_owned()
            }
            ("RESET", name) => {
                let name = name.trim_matches('"').to_owned();
                let value = self.defaults.get(&name).cloned().unwrap_or_default();
                self.set(&name, value)?;
                "RESET".to_owned()
            }
            _ => panic!("the server got the text {text:?}"),
        };
        self.put(wire::tag(&tag));
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Failure> {
        match self.settings.get_mut(name) {
            Some(old) if *old == value => {}
            Some(old) => {
                *old = value.clone();
                self.put(wire::status(name, &value));
            }
            None => return Err(("42704", format!("unrecognized configuration parameter \"{name}\""))),
        }
        Ok(())
    }

    // --- COPY ---

    fn copy_message(&mut self, kind: u8, body: &[u8]) {
        let Some(copy) = &mut self.copy else { return };
        let failure = match kind {
            b'd' if body != b"bad" => {
                copy.rows += 1;
                return;
            }
            // The server reads over them.
            b'S' | b'H' => return,
            b'd' => ("22P04", "bad row".to_owned()),
            b'f' => ("57014", "COPY from stdin failed".to_owned()),
            b'c' => {
                let Some(Copy { rows, behind }) = self.copy.take() else { return };
                self.put(wire::tag(&format!("COPY {rows}")));
                if let Some(behind) = behind {
                    self.simple(behind);
                }
                return;
            }
            _ => {
                self.lost_synchronization = true;
                ("08P01", "unexpected message type during COPY from stdin".to_owned())
            }
        };
        let is_simple = self.copy.take().is_some_and(|copy| copy.behind.is_some());
        self.fail(failure);
        if is_simple {
            self.end_simple();
        } else {
            self.ignoring = true;
        }
    }
}

fn unquoted(name: &str) -> String {
    name.trim_matches('"').to_owned()
}

fn check_syntax(text: &str) -> Result<(), Failure> {
    // What is sent in place of what is refused is none, either.
    if text == "BAD" || text.starts_with("refused") {
        Err(("42601", "syntax error at or near \"BAD\"".to_owned()))
    } else {
        Ok(())
    }
}

/// The parameters of a Bind, behind the number of format codes (which is 0).
fn read_parameters(body: &[u8]) -> Vec<String> {
    let count = usize::from(u16::from_be_bytes(*body.first_chunk().unwrap()));
    let mut rest = &body[2..];
    let mut parameters = Vec::new();
    for _ in 0..count {
        let len = u32::from_be_bytes(*rest.first_chunk().unwrap()) as usize;
        parameters.push(String::from_utf8_lossy(&rest[4..4 + len]).into_owned());
        rest = &rest[4 + len..];
    }
    parameters
}
