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
use crate::postgres::message::{self, from_server as kind};
use crate::postgres::statement::{Form, Id, PREFIX, STAND_IN, Statement, Template, calls, name_key};
use crate::protocol::{Intent, Out, PinReason, Pins};
use crate::sql::settings::Changes;
use crate::sql::{self, Reference, Verb};
use std::collections::HashMap;
use std::sync::Arc;

/// A client with these pins may have statements under names that the proxy has not read.
const MADE_UNSEEN: Pins = Pins::of(PinReason::PreparedStatement)
    .and(Pins::of(PinReason::OpaqueCode))
    .and(Pins::of(PinReason::LargeStatement))
    .and(Pins::of(PinReason::Unreadable));

/// A statement may execute one that executes one. Further down names are sent as the client wrote them.
const DEPTH_MAX: usize = 4;

/// Names that a text makes or drops, as far as it has been read. `None`: there is none.
type Meanings = HashMap<Box<[u8]>, Option<Prepared>>;

/// A request's names as they were sent, and what it does to the client's.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// What each `PREPARE` and `DEALLOCATE` of it does once it has completed, in their order.
    comings: Vec<Coming>,
    /// How many of them have completed.
    completed: usize,
    /// Names in what was sent, and what the client calls them.
    shown: Vec<(Box<[u8]>, Box<[u8]>)>,
    shifts: Vec<Shift>,
    /// Statements that it executes.
    uses: Vec<Arc<Statement>>,
    /// It may execute a statement that nobody has read.
    has_unseen: bool,
}

/// What becomes of a client's name.
#[derive(Debug)]
pub(super) enum Coming {
    /// `PREPARE`
    Made(Box<[u8]>, Prepared),
    /// `DEALLOCATE`
    Dropped(Box<[u8]>),
}

/// A name in what was sent is longer than the client's, and what follows has moved. In characters.
#[derive(Debug, Clone, Copy)]
struct Shift {
    start: usize,
    sent: usize,
    written: usize,
}

/// A text with its names replaced, and what that takes.
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
    /// It makes more statements than its client may have.
    pub(super) is_full: bool,
}

/// Something that the server must have, or must not.
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
            Coming::Dropped(dropped) => (**dropped == *name).then_some(None),
        })
    }

    /// The tag of a completed command says that it was one of these. The next of them.
    pub(super) fn complete(&mut self) -> Option<&Coming> {
        let coming = self.comings.get(self.completed);
        self.completed += 1;
        coming
    }

    pub(super) fn has_unseen(&self) -> bool {
        self.has_unseen
    }

    pub(super) fn uses(&self) -> &[Arc<Statement>] {
        &self.uses
    }

    /// The statements that it makes.
    pub(super) fn makes(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        self.comings.iter().filter_map(|coming| match coming {
            Coming::Made(name, Prepared::Anywhere(statement)) => Some((&**name, statement)),
            Coming::Made(_, Prepared::OnConnection) | Coming::Dropped(_) => None,
        })
    }

    /// An error as it would be had nothing been replaced; `None`: it is so already.
    pub(super) fn as_written(&self, error: &[u8]) -> Option<Vec<u8>> {
        let mut is_changed = false;
        let mut written = Vec::with_capacity(error.len());
        frame::frame(&mut written, kind::ERROR_RESPONSE, |out| {
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
        for (ours, theirs) in &self.shown {
            let text = renamed.as_deref().unwrap_or(value);
            let Some(place) = text.windows(ours.len()).position(|window| *window == **ours) else { continue };
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
    pub(super) fn rewrite(&self, text: &[u8], statement: &sql::Statement, client: &mut Client) -> Rewriting {
        self.rewrite_at(0, text, statement, client)
    }

    fn rewrite_at(&self, depth: usize, text: &[u8], statement: &sql::Statement, client: &mut Client) -> Rewriting {
        let mut meanings = Meanings::new();
        let (mut is_cleared, mut bytes) = (false, 0);
        let mut rewriting = Rewriting {
            text: Vec::with_capacity(text.len() + 64),
            names: Names::default(),
            ahead: Vec::new(),
            intent: statement.intent,
            changes: None,
            calls: Vec::new(),
            is_full: false,
        };
        let is_single = statement.references.len() == 1 && statement.statements == 1;
        // What is prepared is not executed yet.
        let prepares = is_single && statement.references.iter().any(|reference| reference.verb == Verb::Prepare);
        if prepares {
            rewriting.intent = Intent::default();
        } else {
            rewriting.calls.extend(calls(statement.calls.clone()));
        }
        rewriting.changes = self.changes(text, rewriting.intent);
        let mut at = 0;
        for reference in &statement.references {
            let written = text.get(reference.name.clone()).unwrap_or_default();
            let name = sql::identifier_value(written).into_owned();
            let key = name_key(&name);
            if reference.verb == Verb::DeallocateAll {
                meanings.clear();
                is_cleared = true;
                continue;
            }
            let meaning = match meanings.get(key) {
                Some(meaning) => meaning.clone(),
                None if is_cleared => None,
                None => lookup(&self.owed, client, key),
            };
            let is_new = meanings.contains_key(key);
            let sent = match (reference.verb, meaning) {
                (Verb::Execute, Some(Prepared::Anywhere(mut known))) => {
                    if let Some(template) = known.template.clone().filter(|_| depth < DEPTH_MAX) {
                        let (body, inner) = self.concrete_at(depth + 1, &template, client);
                        known = self.current(known, body, client);
                        rewriting.takes(inner);
                    }
                    if !is_new {
                        known = self.in_present_settings(known, client);
                        rewriting.ahead.push(Ahead::Has(Arc::clone(&known)));
                    }
                    rewriting.executes(&known, is_single);
                    Some(known.id.name().to_vec())
                }
                // The name is taken: the server says so of any other that is.
                (Verb::Prepare, Some(Prepared::Anywhere(_))) => Some(rewriting.stand_in()),
                (Verb::Prepare, None) => {
                    let body =
                        text.get(reference.name.end..reference.statement_end.min(text.len())).unwrap_or_default();
                    let own = !is_single || self.settings_open;
                    let made = self.made(body, reference, statement, own, client);
                    bytes += made.bytes();
                    rewriting.is_full |= !client.statements.has_room(rewriting.names.comings.len() + 1, bytes);
                    rewriting.ahead.push(Ahead::Lacks(made.id));
                    let sent = made.id.name().to_vec();
                    let made = Prepared::Anywhere(made);
                    meanings.insert(key.into(), Some(made.clone()));
                    rewriting.names.comings.push(Coming::Made(key.into(), made));
                    Some(sent)
                }
                (Verb::Deallocate, Some(Prepared::Anywhere(_))) => {
                    // The statement itself stays: others may use it.
                    let sent = rewriting.stand_in();
                    meanings.insert(key.into(), None);
                    rewriting.names.comings.push(Coming::Dropped(key.into()));
                    Some(sent)
                }
                (Verb::Deallocate, Some(Prepared::OnConnection)) => {
                    meanings.insert(key.into(), None);
                    rewriting.names.comings.push(Coming::Dropped(key.into()));
                    key.starts_with(PREFIX).then(|| never_ours(key))
                }
                (verb, _) => {
                    if verb == Verb::Execute && !client.pins.common(MADE_UNSEEN).is_empty() {
                        // It may be there all the same, and do anything.
                        rewriting.intent.pins_when_done.add(PinReason::PreparedStatement);
                        rewriting.intent.changes_settings = true;
                        rewriting.intent.asks_sequence = true;
                        rewriting.names.has_unseen = true;
                    }
                    key.starts_with(PREFIX).then(|| never_ours(key))
                }
            };
            let Some(sent) = sent else { continue };
            rewriting.text.extend_from_slice(text.get(at..reference.name.start).unwrap_or_default());
            at = reference.name.end;
            let quoted = quoted(&sent);
            let shift =
                Shift { start: characters(&rewriting.text), sent: characters(&quoted), written: characters(written) };
            rewriting.names.shifts.push(shift);
            rewriting.text.extend_from_slice(&quoted);
            rewriting.names.shown.push((sent.into(), key.into()));
        }
        rewriting.text.extend_from_slice(text.get(at..).unwrap_or_default());
        rewriting
    }

    /// Sees to it that the server has by then what the text needs.
    pub(super) fn send_ahead(&mut self, ahead: &[Ahead], is_executed: bool, client: &mut Client, out: &mut Out) {
        for ahead in ahead {
            match ahead {
                Ahead::Has(statement) => {
                    self.state.may_do(statement.intent, &statement.body, self.reads_in());
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

    /// What a statement about prepared statements is to the server now: the body of its Parse, and the rest.
    pub(super) fn concrete(&self, template: &Template, client: &mut Client) -> (Vec<u8>, Rewriting) {
        self.concrete_at(0, template, client)
    }

    fn concrete_at(&self, depth: usize, template: &Template, client: &mut Client) -> (Vec<u8>, Rewriting) {
        let rewriting = self.rewrite_at(depth, &template.text, &template.statement, client);
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
        match names.complete()? {
            Coming::Made(name, prepared) if tag == b"PREPARE" => {
                let (name, prepared) = (name.clone(), prepared.clone());
                if let Prepared::Anywhere(statement) = &prepared {
                    self.has_prepared(statement.id, super::Usable::Always);
                }
                client.statements.insert(name, prepared);
            }
            Coming::Dropped(name) if tag == b"DEALLOCATE" => client.statements.remove(name),
            Coming::Made(..) | Coming::Dropped(_) => return None,
        }
        Some(())
    }

    /// The statement that a `PREPARE` makes.
    fn made(
        &self,
        body: &[u8],
        reference: &Reference,
        statement: &sql::Statement,
        is_own: bool,
        client: &mut Client,
    ) -> Arc<Statement> {
        let dialect = self.reads_in();
        let (id, family) = client.identify(body, is_own);
        let inner = body.get(reference.end - reference.name.end..).unwrap_or_default();
        let (intent, calls) = (statement.intent, calls(statement.calls.clone()));
        let (form, body, changes) = (Form::Sql, body.into(), self.changes(inner, intent));
        let label = client.label();
        Arc::new(Statement { id, family, label, form, body, intent, changes, calls, dialect, template: None })
    }
}

impl Rewriting {
    /// A statement that it executes executes statements itself.
    fn takes(&mut self, inner: Self) {
        self.intent = self.intent.and(inner.intent);
        self.names.has_unseen |= inner.names.has_unseen;
        self.changes = both(self.changes.take(), inner.changes, false);
        self.ahead.extend(inner.ahead);
        self.calls.extend(inner.calls);
        self.names.uses.extend(inner.names.uses);
        self.names.shown.extend(inner.names.shown);
        self.names.comings.extend(inner.names.comings);
    }

    /// A name that the server will have, to be deallocated, or taken. It can be prepared in a failed transaction, too.
    fn stand_in(&mut self) -> Vec<u8> {
        let name = match self.names.shown.len() {
            0 => STAND_IN.to_vec(),
            // None is part of another: errors show them.
            number => [PREFIX, number.to_string().as_bytes(), b"_stand_in"].concat(),
        };
        self.ahead.push(Ahead::StandIn(name.clone()));
        name
    }

    fn executes(&mut self, known: &Arc<Statement>, is_single: bool) {
        self.intent = self.intent.and(known.intent);
        self.changes = both(self.changes.take(), known.changes.clone(), is_single);
        self.calls.extend(known.calls.clone());
        self.names.uses.push(Arc::clone(known));
    }
}

/// What both do to settings. `is_single`: one behind the other, and nothing else.
fn both(own: Option<Arc<Changes>>, others: Option<Arc<Changes>>, is_single: bool) -> Option<Arc<Changes>> {
    let Some(others) = others else { return own };
    let own = own.unwrap_or_default();
    let order_is_known = is_single && own.list.is_empty();
    Some(Arc::new(own.and(&others, order_is_known)))
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
