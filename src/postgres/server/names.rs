//! What SQL says of prepared statements: `PREPARE`, `EXECUTE`, `DEALLOCATE`.
//!
//! A client's names live with the proxy, whether it gave them by Parse or by `PREPARE`; the server knows the statements by the
//! proxy's own. So the names in a text are replaced as it is sent, and what they mean is sent ahead. What a text does to the
//! client's names counts once the server has said so, tag by tag. A text that is itself a prepared statement (a Parse of
//! `EXECUTE a`) is replaced anew each time it is used, since its names may mean something else by then.

use super::Server;
use super::owed::{Effect, Presence, lookup};
use super::send::never_ours;
use crate::postgres::client::{Client, Prepared};
use crate::postgres::frame::{self, HEAD_BYTES};
use crate::postgres::message;
use crate::postgres::statement::{Form, Id, PREFIX, Statement, Template, calls, name_key};
use crate::protocol::{ClientError, Intent, Out, PinReason, Pins};
use crate::sql::settings::Changes;
use crate::sql::{self, Reference, Verb};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

/// A client with these pins may have statements under names that the proxy has not read.
const MADE_UNSEEN: Pins = Pins::of(PinReason::PreparedStatement)
    .and(Pins::of(PinReason::OpaqueCode))
    .and(Pins::of(PinReason::LargeStatement))
    .and(Pins::of(PinReason::Unreadable));

/// A request's names as they were sent, and what it does to the client's.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// What each `PREPARE` and `DEALLOCATE` of it does once it has completed, in their order.
    comings: Vec<Coming>,
    /// How many of them have completed.
    completed: usize,
    /// Names in what was sent, and what the client calls them.
    shown: Vec<Shown>,
    shifts: Vec<Shift>,
    /// Statements that it executes.
    uses: Vec<Arc<Statement>>,
    /// Statements that it may execute and that nobody has read.
    unseen: usize,
}

/// A name as it was sent, and as the client has it.
type Shown = (Box<[u8]>, Box<[u8]>);

/// What becomes of a client's name.
#[derive(Debug)]
pub(super) enum Coming {
    /// `PREPARE`
    Made(Box<[u8]>, Prepared),
    /// `DEALLOCATE`; with it goes this statement from the server.
    Dropped(Box<[u8]>, Option<Id>),
}

/// A name in what was sent is longer than the client's, and what follows has moved. In characters.
#[derive(Debug, Clone, Copy)]
struct Shift {
    start: usize,
    sent: usize,
    written: usize,
}

/// A text with its names replaced, and what that takes.
#[derive(Debug)]
pub(super) struct Rewriting {
    pub(super) text: Vec<u8>,
    pub(super) names: Names,
    /// What the server must have by then.
    pub(super) ahead: Vec<Ahead>,
    /// What the text and the statements that it executes intend, together.
    pub(super) intent: Intent,
    /// What they do to settings.
    pub(super) changes: Option<Arc<Changes>>,
    /// Functions that they may call.
    pub(super) calls: Vec<Arc<[Box<[u8]>]>>,
    /// Why it must not be sent.
    pub(super) refusal: Option<ClientError>,
}

/// Something that the server must have, or must not.
#[derive(Debug)]
pub(super) enum Ahead {
    /// It has the statement.
    Has(Arc<Statement>),
    /// It does not: the text makes it.
    Lacks(Id),
    /// It has something or other under this name.
    StandIn(Vec<u8>),
}

impl Names {
    pub(super) fn comings(&self) -> &[Coming] {
        &self.comings
    }

    /// What becomes of the name, if anything does. `None` inside: it is gone.
    pub(super) fn meaning(&self, name: &[u8]) -> Option<Option<&Prepared>> {
        self.comings.iter().rev().find_map(|coming| match coming {
            Coming::Made(made, prepared) => (**made == *name).then_some(Some(prepared)),
            Coming::Dropped(dropped, _) => (**dropped == *name).then_some(None),
        })
    }

    /// The tag of a completed command says that it was one of these. The next of them.
    fn complete(&mut self, tag: &[u8]) -> Option<&Coming> {
        let coming = self.comings.get(self.completed)?;
        let is_it = match coming {
            Coming::Made(..) => tag == b"PREPARE",
            Coming::Dropped(..) => tag == b"DEALLOCATE",
        };
        self.completed += usize::from(is_it);
        is_it.then_some(coming)
    }

    pub(super) fn has_unseen(&self) -> bool {
        self.unseen > 0
    }

    /// There was no such statement, or it was not reached.
    pub(super) fn misses_one(&mut self) {
        // Of several the others may have been executed.
        self.unseen = if self.unseen == 1 { 0 } else { self.unseen };
    }

    pub(super) fn uses(&self) -> &[Arc<Statement>] {
        &self.uses
    }

    /// The statements that it makes.
    pub(super) fn makes(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        self.comings.iter().filter_map(|coming| match coming {
            Coming::Made(name, Prepared::Anywhere(statement)) => Some((&**name, statement)),
            Coming::Made(_, Prepared::OnConnection) | Coming::Dropped(..) => None,
        })
    }

    /// An error or a notice as it would be had nothing been replaced; `None`: it is so already.
    pub(super) fn as_written(&self, error: &[u8]) -> Option<Vec<u8>> {
        let mut is_changed = false;
        let mut written = Vec::with_capacity(error.len());
        frame::frame(&mut written, *error.first()?, |out| {
            for (field, value) in message::fields(error.get(HEAD_BYTES..).unwrap_or_default()) {
                let replaced = if field == b'P' { self.position(value) } else { self.renamed(value) };
                is_changed |= replaced.is_some();
                out.push(field);
                frame::put_cstr(out, replaced.as_deref().unwrap_or(value));
            }
            out.push(0);
        });
        is_changed.then_some(written)
    }

    /// A place in the text as sent, as a place in the client's text. Both begin at 1.
    fn position(&self, value: &[u8]) -> Option<Vec<u8>> {
        let sent: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
        let mut place = sent.checked_sub(1)?;
        for shift in self.shifts.iter().rev() {
            if place >= shift.start + shift.sent {
                place = place - shift.sent + shift.written;
            } else if place > shift.start {
                place = shift.start;
            }
        }
        (place + 1 != sent).then(|| (place + 1).to_string().into_bytes())
    }

    fn renamed(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut renamed: Option<Vec<u8>> = None;
        memchr::memmem::find(value, PREFIX)?;
        for (ours, theirs) in &self.shown {
            let text = renamed.as_deref().unwrap_or(value);
            let Some(place) = memchr::memmem::find(text, ours) else { continue };
            let behind = text.get(place + ours.len()..).unwrap_or_default();
            renamed = Some([text.get(..place).unwrap_or_default(), theirs, behind].concat());
        }
        renamed
    }
}

impl Server {
    /// What a name in the text means is known only once replies have come.
    pub(super) fn awaits_names(&mut self, text: &[u8], references: &[Reference], out: &mut Out) -> bool {
        let named = references.iter().filter(|reference| reference.verb != Verb::DeallocateAll);
        named.into_iter().any(|reference| {
            let name = sql::identifier_value(text.get(reference.name.clone()).unwrap_or_default());
            self.awaits(name_key(&name), out)
        })
    }

    /// The text in the proxy's names, as they are now.
    pub(super) fn rewrite(&mut self, text: &[u8], statement: &sql::Statement, client: &mut Client) -> Rewriting {
        Writer::new(self, client, text, statement, false).write()
    }

    /// Sees to it that the server has by then what the text needs.
    pub(super) fn send_ahead(&mut self, ahead: &[Ahead], is_executed: bool, client: &mut Client, out: &mut Out) {
        for ahead in ahead {
            match ahead {
                Ahead::Has(statement) => {
                    self.may_do(statement.intent, &statement.body, 1);
                    self.ensure_prepared(statement, client, out);
                }
                Ahead::Lacks(id) if is_executed => {
                    if self.presence(*id) != Presence::No {
                        self.close_hidden(*id, out);
                    }
                    self.make_room(*id, out);
                }
                Ahead::StandIn(name) if is_executed => self.prepare_stand_in(name, out),
                Ahead::Lacks(_) | Ahead::StandIn(_) => {}
            }
        }
    }

    /// The same before a simple query, which executes it.
    pub(super) fn send_ahead_of_query(&mut self, ahead: &[Ahead], client: &mut Client, out: &mut Out) {
        let was_synced = !self.unsynced;
        self.send_ahead(ahead, true, client, out);
        // In the middle of the client's own segment a Sync would end what an error must skip and roll back.
        if was_synced && self.unsynced {
            self.sync_hidden(Effect::Nothing, out);
        }
    }

    /// What a statement about prepared statements is to the server now: the body of its Parse, and the rest.
    pub(super) fn concrete(&mut self, template: &Template, client: &mut Client) -> (Vec<u8>, Rewriting) {
        self.concrete_in(template, client, false)
    }

    /// The same of one that another executes, perhaps.
    fn concrete_in(&mut self, template: &Template, client: &mut Client, is_inner: bool) -> (Vec<u8>, Rewriting) {
        let rewriting = Writer::new(self, client, &template.text, &template.statement, is_inner).write();
        let body = [&rewriting.text, &b"\0"[..], &template.types].concat();
        (body, rewriting)
    }

    /// The statement with this body, which its template has now.
    pub(super) fn current(&self, known: Arc<Statement>, body: Vec<u8>, client: &mut Client) -> Arc<Statement> {
        if *body == *known.body {
            return known;
        }
        let (id, family) = client.identify(&body, self.settings_open);
        let label = client.label();
        Arc::new(Statement { id, family, label, body: body.into(), ..(*known).clone() })
    }

    /// The statement as it must be if it is to be made here: constants in it are read as the client's settings say now, and so it
    /// must not have the name of one that was made under others.
    pub(super) fn in_present_settings(&self, known: Arc<Statement>, client: &mut Client) -> Arc<Statement> {
        if known.is_own() || known.label == client.label() || self.presence(known.id) == Presence::Yes {
            return known;
        }
        let (id, family) = client.identify(&known.body, self.settings_open);
        let statement = Arc::new(Statement { id, family, label: client.label(), ..(*known).clone() });
        client.statements.replace(known.id, &statement);
        statement
    }

    /// A command has completed that is a `PREPARE` or a `DEALLOCATE`, as the text has said; `None`: it has not.
    pub(super) fn complete_coming(&mut self, tag: &[u8], client: &mut Client) -> Option<()> {
        let Some(Effect::Query { names: Some(names), .. }) = self.owed.front_effect() else { return None };
        match names.complete(tag)? {
            Coming::Made(name, prepared) => {
                let (name, prepared) = (name.clone(), prepared.clone());
                if let Prepared::Anywhere(statement) = &prepared {
                    // As other clients would make it, if the settings were theirs.
                    let is_sure = statement.is_own() || !self.settings_open;
                    let usable = if is_sure { super::Usable::Always } else { super::Usable::Never };
                    self.has_prepared(statement.id, Form::Sql, usable);
                }
                client.statements.insert(name, prepared);
            }
            Coming::Dropped(name, dropped) => {
                client.statements.remove(name);
                if let Some(id) = *dropped {
                    self.prepared.remove(&id);
                }
            }
        }
        Some(())
    }
}

/// Writes a text in the proxy's names.
struct Writer<'a> {
    server: &'a mut Server,
    client: &'a mut Client,
    text: &'a [u8],
    statement: &'a sql::Statement,
    /// It is a text that another executes.
    is_inner: bool,
    /// There is one statement in the text, and one name.
    is_single: bool,
    /// What names mean that the text has had so far.
    meanings: HashMap<Box<[u8]>, Meaning>,
    /// `DEALLOCATE ALL`
    is_cleared: bool,
    /// Statements that the text makes, and their bytes.
    made: (usize, usize),
    /// How much of the text has been written, and how many characters that has become.
    at: usize,
    characters: usize,
    out: Rewriting,
}

/// What a name means.
#[derive(Clone)]
enum Meaning {
    /// A statement that this text makes.
    New(Arc<Statement>),
    /// One that there was before, and that has been asked for already.
    Known(Arc<Statement>),
    /// One that there was before.
    Before(Arc<Statement>),
    /// One that lives on the connection under this name.
    OnConnection,
    /// Nothing.
    Gone,
}

impl<'a> Writer<'a> {
    fn new(
        server: &'a mut Server,
        client: &'a mut Client,
        text: &'a [u8],
        statement: &'a sql::Statement,
        is_inner: bool,
    ) -> Self {
        let is_single = statement.references.len() == 1 && statement.statements == 1;
        // What is prepared is not executed yet.
        let prepares = is_single && statement.references.iter().any(|reference| reference.verb == Verb::Prepare);
        let intent = if prepares { Intent::default() } else { statement.intent };
        let calls = if prepares { None } else { calls(statement.calls.clone()) };
        let out = Rewriting {
            text: Vec::with_capacity(text.len() + 64),
            names: Names::default(),
            ahead: Vec::new(),
            intent,
            changes: server.changes(text, intent),
            calls: calls.into_iter().collect(),
            refusal: None,
        };
        Self {
            server,
            client,
            text,
            statement,
            is_inner,
            is_single,
            meanings: HashMap::new(),
            is_cleared: false,
            made: (0, 0),
            at: 0,
            characters: 0,
            out,
        }
    }

    fn write(mut self) -> Rewriting {
        if self.statement.references.len() > sql::REFERENCES_MAX {
            self.out.refusal = Some(ClientError::TooManyNames { limit: sql::REFERENCES_MAX });
            return self.out;
        }
        for reference in &self.statement.references {
            if reference.verb == Verb::DeallocateAll {
                self.meanings.clear();
                self.is_cleared = true;
                continue;
            }
            let written = self.text.get(reference.name.clone()).unwrap_or_default();
            let name = sql::identifier_value(written).into_owned();
            let key = name_key(&name);
            let meaning = self.meaning(key);
            let is_taken = matches!(meaning, Meaning::Known(_) | Meaning::Before(_));
            let sent = match reference.verb {
                Verb::Prepare => self.prepare(reference, key, meaning),
                Verb::Execute => self.execute(reference, key, meaning),
                Verb::Deallocate | Verb::DeallocateAll => self.deallocate(key, meaning),
            };
            if let Some(sent) = sent {
                self.put_name(reference, written, &sent, key);
            }
            if self.out.refusal.is_some() || (reference.verb == Verb::Prepare && is_taken) {
                // It ends here: nothing behind it runs.
                break;
            }
        }
        self.put(self.text.len());
        self.out
    }

    /// The text up to there, as it is.
    fn put(&mut self, end: usize) {
        let part = self.text.get(self.at..end).unwrap_or_default();
        self.out.text.extend_from_slice(part);
        self.characters += characters(part);
        self.at = end;
    }

    fn put_name(&mut self, reference: &Reference, written: &[u8], sent: &[u8], key: &[u8]) {
        self.put(reference.name.start);
        self.at = reference.name.end;
        let quoted = quoted(sent);
        let shift = Shift { start: self.characters, sent: characters(&quoted), written: characters(written) };
        self.characters += shift.sent;
        self.out.names.shifts.push(shift);
        self.out.text.extend_from_slice(&quoted);
        if !self.out.names.shown.iter().any(|(ours, _)| **ours == *sent) {
            self.out.names.shown.push((sent.into(), key.into()));
        }
    }

    fn meaning(&self, key: &[u8]) -> Meaning {
        match self.meanings.get(key) {
            Some(meaning) => meaning.clone(),
            None if self.is_cleared => Meaning::Gone,
            None => match lookup(&self.server.owed, self.client, key) {
                Some(Prepared::Anywhere(statement)) => Meaning::Before(statement),
                Some(Prepared::OnConnection) => Meaning::OnConnection,
                None => Meaning::Gone,
            },
        }
    }

    /// The name that is sent instead; `None`: it is sent as it is.
    fn prepare(&mut self, reference: &Reference, key: &[u8], meaning: Meaning) -> Option<Vec<u8>> {
        match meaning {
            // The server says that it is taken, if it gets as far.
            Meaning::New(made) => Some(made.id.name().to_vec()),
            Meaning::Known(_) | Meaning::Before(_) => Some(self.stand_in(key)),
            Meaning::OnConnection => key.starts_with(PREFIX).then(|| never_ours(key)),
            Meaning::Gone => {
                let made = self.make(reference);
                self.made = (self.made.0 + 1, self.made.1 + made.bytes());
                if !self.client.statements.has_room(self.made.0, self.made.1) {
                    self.out.refusal = Some(ClientError::too_many_statements());
                }
                self.out.ahead.push(Ahead::Lacks(made.id));
                self.meanings.insert(key.into(), Meaning::New(Arc::clone(&made)));
                let sent = made.id.name().to_vec();
                self.out.names.comings.push(Coming::Made(key.into(), Prepared::Anywhere(made)));
                Some(sent)
            }
        }
    }

    /// The statement that a `PREPARE` makes. Under settings that may differ from its client's it is its own.
    fn make(&mut self, reference: &Reference) -> Arc<Statement> {
        let end = reference.statement_end.min(self.text.len());
        let body = self.text.get(reference.name.end..end).unwrap_or_default();
        let is_own = !self.is_single || self.is_inner || self.server.settings_open;
        let (id, family) = self.client.identify(body, is_own);
        let inner = body.get(reference.end - reference.name.end..).unwrap_or_default();
        let intent = self.statement.intent;
        Arc::new(Statement {
            id,
            family,
            label: self.client.label(),
            form: Form::Sql,
            body: body.into(),
            intent,
            changes: self.server.changes(inner, intent),
            calls: calls(self.statement.calls.clone()),
            dialect: self.server.reads_in(),
            template: None,
        })
    }

    fn execute(&mut self, reference: &Reference, key: &[u8], meaning: Meaning) -> Option<Vec<u8>> {
        let known = match meaning {
            Meaning::New(statement) | Meaning::Known(statement) => {
                // Once more, perhaps: whatever it does to settings, the order of it is not known.
                self.out.executes(&statement, false);
                return Some(statement.id.name().to_vec());
            }
            Meaning::Before(statement) => statement,
            Meaning::OnConnection | Meaning::Gone => {
                if !self.client.pins.common(MADE_UNSEEN).is_empty() {
                    // It may be there all the same, and do anything.
                    self.out.executes_unseen();
                }
                return key.starts_with(PREFIX).then(|| never_ours(key));
            }
        };
        let known = self.executed(known);
        let known = self.server.in_present_settings(known, self.client);
        self.out.ahead.push(Ahead::Has(Arc::clone(&known)));
        self.out.executes(&known, self.is_single && !self.is_inner && reference.is_plain);
        self.meanings.insert(key.into(), Meaning::Known(Arc::clone(&known)));
        Some(known.id.name().to_vec())
    }

    /// A statement that may itself be about others, as it is now.
    fn executed(&mut self, known: Arc<Statement>) -> Arc<Statement> {
        let Some(template) = known.template.clone() else { return known };
        if self.is_inner {
            // Further down it is not read.
            self.out.executes_unseen();
            return known;
        }
        let (body, inner) = self.server.concrete_in(&template, self.client, true);
        for coming in inner.names.comings() {
            let (name, meaning) = match coming {
                Coming::Made(name, Prepared::Anywhere(made)) => (name, Meaning::New(Arc::clone(made))),
                Coming::Made(name, Prepared::OnConnection) => (name, Meaning::OnConnection),
                Coming::Dropped(name, _) => (name, Meaning::Gone),
            };
            self.meanings.insert(name.clone(), meaning);
        }
        self.out.takes(inner);
        self.server.current(known, body, self.client)
    }

    fn deallocate(&mut self, key: &[u8], meaning: Meaning) -> Option<Vec<u8>> {
        let (sent, dropped) = match meaning {
            Meaning::New(made) => (Some(made.id.name().to_vec()), Some(made.id)),
            // The statement itself stays: others may use it.
            Meaning::Known(_) | Meaning::Before(_) => (Some(self.stand_in(key)), None),
            Meaning::OnConnection | Meaning::Gone => (key.starts_with(PREFIX).then(|| never_ours(key)), None),
        };
        self.meanings.insert(key.into(), Meaning::Gone);
        self.out.names.comings.push(Coming::Dropped(key.into(), dropped));
        sent
    }

    /// A name that the server will have, to be deallocated, or taken. It can be prepared in a failed transaction, too.
    fn stand_in(&mut self, key: &[u8]) -> Vec<u8> {
        let name = stand_in_for(key);
        self.out.ahead.push(Ahead::StandIn(name.clone()));
        name
    }
}

impl Rewriting {
    /// A statement that it executes executes statements itself.
    fn takes(&mut self, inner: Self) {
        self.intent = self.intent.and(inner.intent);
        self.refusal = self.refusal.take().or(inner.refusal);
        self.names.unseen += inner.names.unseen;
        self.changes = both(self.changes.take(), inner.changes, false);
        self.ahead.extend(inner.ahead);
        self.calls.extend(inner.calls);
        self.names.uses.extend(inner.names.uses);
        self.names.shown.extend(inner.names.shown);
        self.names.comings.extend(inner.names.comings);
    }

    /// It executes what nobody has read.
    fn executes_unseen(&mut self) {
        self.intent.pins_when_sent.add(PinReason::OpaqueCode);
        self.intent.changes_settings = true;
        self.intent.asks_sequence = true;
        self.names.unseen += 1;
    }

    /// It executes this. `is_single`: once, and does nothing else.
    fn executes(&mut self, known: &Arc<Statement>, is_single: bool) {
        if self.names.uses.iter().any(|used| used.id == known.id) {
            self.changes = both(self.changes.take(), known.changes.as_ref().map(|_| Arc::default()), false);
            return;
        }
        self.intent = self.intent.and(known.intent);
        self.changes = both(self.changes.take(), known.changes.clone(), is_single);
        self.calls.extend(known.calls.clone());
        self.names.uses.push(Arc::clone(known));
    }
}

/// What stands in for a statement of this name, the same each time. None is part of another: errors show them.
pub(super) fn stand_in_for(key: &[u8]) -> Vec<u8> {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    [PREFIX, format!("{:016x}_stand_in", hasher.finish()).as_bytes()].concat()
}

/// What both do to settings. `is_single`: one behind the other, and nothing else.
fn both(own: Option<Arc<Changes>>, others: Option<Arc<Changes>>, is_single: bool) -> Option<Arc<Changes>> {
    let Some(others) = others else { return own };
    let own = own.unwrap_or_default();
    let order_is_known = is_single && own.list.is_empty();
    Some(if order_is_known { others } else { Arc::new(own.and(&others)) })
}

/// An identifier of exactly this name. Also a plain one needs its quotes: the client's may have had them, and no blanks.
pub(super) fn quoted(name: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in name {
        quoted.push(*byte);
        if *byte == b'"' {
            quoted.push(b'"');
        }
    }
    quoted.push(b'"');
    quoted
}

/// As the server counts them.
fn characters(text: &[u8]) -> usize {
    std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::postgres::message::from_server as kind;

    #[test]
    fn errors_are_as_the_client_wrote() {
        let names = Names {
            shown: vec![((*b"sg_ours").into(), (*b"a").into()), ((*b"sg_1_stand_in").into(), (*b"b").into())],
            // EXECUTE a; DEALLOCATE b; x
            // EXECUTE "sg_ours"; DEALLOCATE "sg_1_stand_in"; x
            shifts: vec![Shift { start: 8, sent: 9, written: 1 }, Shift { start: 30, sent: 15, written: 1 }],
            ..Names::default()
        };
        let error = |message: &str, position: usize| {
            let mut out = Vec::new();
            frame::frame(&mut out, kind::ERROR_RESPONSE, |out| {
                for (field, value) in [(b'M', message), (b'P', &position.to_string())] {
                    out.push(field);
                    frame::put_cstr(out, value.as_bytes());
                }
                out.push(0);
            });
            out
        };
        for (sent, written) in [(1, 1), (9, 9), (12, 9), (18, 10), (31, 23), (35, 23), (48, 26)] {
            let found = names.as_written(&error("no", sent)).unwrap_or_else(|| error("no", sent));
            assert_eq!(found, error("no", written), "{sent}");
        }
        let found = names.as_written(&error("\"sg_1_stand_in\" and \"sg_ours\"", 1)).unwrap();
        assert_eq!(found, error("\"b\" and \"a\"", 1));
        assert!(names.as_written(&error("no", 1)).is_none());
    }

    #[test]
    fn identifiers() {
        assert_eq!(quoted(b"a"), b"\"a\"");
        assert_eq!(quoted(b"a\"b"), b"\"a\"\"b\"");
    }
}
