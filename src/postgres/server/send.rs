//! From the client to the server: frames are passed on as they are, names of prepared statements rewritten.
//!
//! Only what must be understood is read: the text of a query or a Parse, the names in Bind, Describe and Close. Large
//! values are passed by their length. A name that the client never prepared goes to the server as it is, so that the
//! server's own error stands at the right place; a name in the proxy's own form never does.

use super::names::{Rewriting, stand_in_for};
use super::owed::{Effect, Kind, Presence, lookup};
use super::uses::pins_with;
use super::write::{write_head, write_parse};
use super::{Body, BoundPortal, Hold, Server, Transaction};
use crate::postgres::client::{Bound, Client, Prepared};
use crate::postgres::frame::{self, HEAD_BYTES, Head};
use crate::postgres::message::{self, from_client as kind};
use crate::postgres::statement::{Form, PREFIX, STAND_IN, Statement, Template, calls, name_key, without_our_names};
use crate::protocol::{Clears, ClientError, ClientSide, Intent, Out, PinReason, Pins, ServerSide, Violation};
use crate::sql::settings::Changes;
use crate::sql::{self, Verb};
use std::sync::Arc;

/// A query's text is kept until it is read up to this length; a longer one is read as it passes.
const QUERY_BYTES_MAX: usize = 1 << 20;
/// A statement is kept by the proxy up to this length; a longer one stays on its connection, and pins.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// A Bind of settings' values is read whole up to this length; of what is longer the server is asked what became of it.
const SETTING_BYTES_MAX: usize = 64 << 10;
/// So much of a long query is read before it is sent: the name in it that may have to be replaced.
pub(super) const LONG_HEAD_BYTES: usize = 8 << 10;
/// Names must end within so many bytes of a frame; the server cuts them at 63.
const NAMES_BYTES_MAX: usize = 128 << 10;

/// Functions of the large-object interface, which drivers call by number (FunctionCall): they leave nothing behind a
/// transaction. From `pg_proc.dat`; these numbers never change.
const LARGE_OBJECT_FUNCTIONS: &[u32] = &[715, 764, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172];

/// Reasons to pin for which the text says what may become of settings.
const READABLE_CHANGES: Pins = Pins::of(PinReason::Setting)
    .and(Pins::of(PinReason::TemporaryObject))
    .and(Pins::of(PinReason::SessionLock))
    .and(Pins::of(PinReason::HeldCursor))
    .and(Pins::of(PinReason::Listen));

/// What became of the frame at the head of the input.
pub(super) enum Taken {
    /// This much is done with; the rest of the frame, if any, is in `sending`.
    Bytes(usize),
    /// More of it must be seen.
    NeedMore,
}

/// Enough of the frame is there for [`Server::send_frames`] to take some of it, or to say what is wrong with it.
pub(in crate::postgres) fn begins(head: Head, rest: &[u8]) -> bool {
    let whole = rest.len() >= head.len;
    match head.kind {
        kind::QUERY if head.len > QUERY_BYTES_MAX => rest.len() >= LONG_HEAD_BYTES,
        kind::PARSE if head.len > STATEMENT_BYTES_MAX => {
            rest.len() > HEAD_BYTES + NAMES_BYTES_MAX
                || rest.get(HEAD_BYTES..).is_some_and(|body| frame::cstr(body).is_some())
        }
        kind::BIND => {
            let names = rest.get(HEAD_BYTES..).and_then(|body| frame::cstr(frame::cstr(body)?.1));
            whole || head.len > SETTING_BYTES_MAX && (names.is_some() || rest.len() > HEAD_BYTES + NAMES_BYTES_MAX)
        }
        kind::DESCRIBE | kind::CLOSE => whole || head.len > NAMES_BYTES_MAX,
        kind::FUNCTION_CALL => whole || rest.len() >= HEAD_BYTES + 4,
        kind::QUERY | kind::PARSE => whole,
        _ => true,
    }
}

impl Server {
    pub(super) fn send_frames(&mut self, input: &[u8], client: &mut Client, out: &mut Out) -> Result<usize, Violation> {
        let mut at = 0;
        self.restore(client, input, out);
        loop {
            let taken = self.sending.advance(input, at, out);
            self.read_long(input.get(at..at + taken).unwrap_or_default(), client);
            at += taken;
            let stops = self.hold != Hold::Open || self.owed.is_full() || out.is_full();
            if self.sending.left > 0 || stops || client.ended {
                return Ok(at);
            }
            let rest = input.get(at..).unwrap_or_default();
            let Some(head) = frame::client_head(rest)? else { return Ok(at) };
            match self.send_frame(head, rest, at, client, out)? {
                Taken::Bytes(bytes) => {
                    at += bytes;
                    // Any other request in the middle of COPY data makes the COPY fail: a Sync behind it counts.
                    self.copy_in &= matches!(head.kind, kind::COPY_DATA | kind::SYNC | kind::FLUSH);
                }
                Taken::NeedMore => return Ok(at),
            }
        }
    }

    /// Before the client's next segment: what it has lost of its settings comes back.
    fn restore(&mut self, client: &Client, input: &[u8], out: &mut Out) {
        if input.is_empty() || (!self.settings_lost && self.is_put_back()) {
            return;
        }
        if self.needs_client() {
            // In the middle of one, behind a `DISCARD ALL`: for what is left of it, which may yet be rolled back.
            let is_due =
                self.settings_lost && self.unsynced && !self.skipping && self.sending.left == 0 && !self.copy_in;
            if is_due && self.owed.is_empty() && !client.settings().is_empty() && self.state.restores() {
                let wanted: Vec<(String, String)> =
                    client.settings().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                out.write(|out| self.set_back(&wanted, false, out));
            }
            return;
        }
        if !self.owed.is_empty() {
            self.hold = Hold::UntilAnswered;
            return;
        }
        out.write(|out| self.put_back(out));
        if self.settings_lost && self.transaction == Transaction::None {
            out.write(|out| self.replay(client.settings(), out));
        }
    }

    fn send_frame(
        &mut self,
        head: Head,
        rest: &[u8],
        at: usize,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        if self.skipping && !matches!(head.kind, kind::SYNC | kind::TERMINATE) {
            return self.skip(head);
        }
        self.spared_from = self.binds;
        match head.kind {
            kind::QUERY => return self.send_query(head, rest, at, client, out),
            kind::PARSE => return self.send_parse(head, rest, at, client, out),
            kind::BIND => return self.send_bind(head, rest, at, client, out),
            kind::DESCRIBE | kind::CLOSE => return self.send_named(head, rest, at, client, out),
            kind::FUNCTION_CALL => return self.send_function(head, rest, client, out),
            kind::EXECUTE => return self.send_execute(head, rest, at, client, out),
            kind::SYNC => self.send_sync(),
            // The server answers a bad one with an error, and skips what follows: nothing is owed that could tell.
            kind::FLUSH if head.len != HEAD_BYTES => return Err(Violation::MalformedFrame(head.kind)),
            kind::FLUSH => self.flushed = true,
            kind::COPY_DATA => {}
            kind::COPY_DONE | kind::COPY_FAIL => self.send_copy_end(),
            kind::TERMINATE => {
                client.ended = true;
                return Ok(Taken::Bytes(0));
            }
            other => return Err(Violation::UnexpectedFrame(other)),
        }
        Ok(self.pass(head.len))
    }

    /// The frame goes on as it is, by its length.
    fn pass(&mut self, len: usize) -> Taken {
        self.sending = Body { left: len, passes: true };
        Taken::Bytes(0)
    }

    /// The server would read over the frame: it need not have it.
    fn skip(&mut self, head: Head) -> Result<Taken, Violation> {
        match head.kind {
            kind::QUERY
            | kind::PARSE
            | kind::BIND
            | kind::DESCRIBE
            | kind::CLOSE
            | kind::EXECUTE
            | kind::FUNCTION_CALL
            | kind::FLUSH
            | kind::COPY_DATA
            | kind::COPY_DONE
            | kind::COPY_FAIL => {
                self.sending = Body { left: head.len, passes: false };
                Ok(Taken::Bytes(0))
            }
            other => Err(Violation::UnexpectedFrame(other)),
        }
    }

    // ------------------------------------------------------------------------------------------ simple query

    fn send_query(
        &mut self,
        head: Head,
        rest: &[u8],
        at: usize,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        if head.len > QUERY_BYTES_MAX {
            return Ok(self.send_long_query(head, rest, at, client, out));
        }
        let Some(frame) = rest.get(..head.len) else { return Ok(Taken::NeedMore) };
        let text = frame.get(HEAD_BYTES..).unwrap_or_default();
        let text = frame::cstr(text).map_or(text, |(text, _)| text);
        let statement = sql::classify(text, self.reads_in());
        let mut named = None;
        let mut intent = statement.intent;
        if statement.references.iter().any(|reference| reference.verb != Verb::DeallocateAll) {
            // What is in flight may fail and take this query with it: only its replies tell.
            if !self.owed.is_empty() && self.waits_for_replies(out) {
                return Ok(Taken::NeedMore);
            }
            let rewriting = self.rewrite(text, &statement, client);
            intent = rewriting.intent;
            named = Some(rewriting);
        }
        if self.foreign_sequences && !self.unsynced && minds_sequences(intent, client) {
            // Whether the transaction has failed by then decides what can be done.
            if !self.owed.is_empty() && self.waits_for_replies(out) {
                return Ok(Taken::NeedMore);
            }
            let asks_behind = intent.asks_sequence && statement.statements != 1;
            if self.transaction == Transaction::Failed && asks_behind {
                // It may leave the transaction and ask then, and nothing can be discarded before it has left: it fails as
                // whatever does not leave it does.
                out.write(|out| message::query(b"SELECT", out));
                self.begin_query(Effect::Nothing);
                return Ok(Taken::Bytes(head.len));
            }
        }
        let full = named.as_mut().and_then(|rewriting| rewriting.refusal.take());
        if let Some(why) = self.commits_in_vain(text) {
            // Fails as whatever does not leave the transaction does.
            out.write(|out| message::query(b"SELECT", out));
            self.begin_query(Effect::Refuse(Box::new(why)));
            return Ok(Taken::Bytes(head.len));
        }
        if let Some(why) =
            full.or_else(|| self.refusal(intent, changes_of(&named), text, client.pins, &mut client.gate))
        {
            self.refuse_query(why, out);
            return Ok(Taken::Bytes(head.len));
        }
        self.may_do(intent, text, statement.statements);
        let own_calls = if named.is_none() { statement.calls.as_slice() } else { &[] };
        let others_calls = named.iter().flat_map(|rewriting| rewriting.calls.iter()).flat_map(|calls| calls.iter());
        self.begin_statement(intent, own_calls.iter().chain(others_calls), client, out);
        let (names, changes) = match named {
            Some(rewriting) => {
                self.send_ahead_of_query(&rewriting.ahead, client, out);
                out.write(|out| message::query(&rewriting.text, out));
                (Some(Box::new(rewriting.names)), rewriting.changes)
            }
            None => {
                match our_names_hidden(intent, text) {
                    None => out.pass(at..at + head.len),
                    Some(hidden) => out.write(|out| message::query(&hidden, out)),
                }
                (None, self.changes(text, intent))
            }
        };
        self.begin_changes(intent, changes.as_deref());
        let pins = pins_with(intent, changes.as_deref());
        let resets = changes.as_ref().is_some_and(|changes| !self.resets(changes, client).is_empty());
        self.begin_query(Effect::Query { pins, names, changes });
        if intent.clears != Clears::Nothing || resets {
            self.hold = Hold::UntilAnswered;
        }
        Ok(Taken::Bytes(head.len))
    }

    pub(super) fn begin_query(&mut self, effect: Effect) {
        self.tally.requests += 1;
        self.owe(Kind::Query, effect);
        self.unsynced = false;
        // A simple query drops the unnamed statement.
        self.unnamed = None;
    }

    fn send_function(
        &mut self,
        head: Head,
        rest: &[u8],
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        let Some(number) = rest.get(HEAD_BYTES..HEAD_BYTES + 4) else {
            return if head.len < HEAD_BYTES + 4 {
                Err(Violation::MalformedFrame(head.kind))
            } else {
                Ok(Taken::NeedMore)
            };
        };
        let number = number.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        self.tally.requests += 1;
        if !LARGE_OBJECT_FUNCTIONS.contains(&number) {
            let code = Intent { pins_when_sent: Pins::of(PinReason::OpaqueCode), ..Intent::default() };
            if let Some(why) = self.refusal(code, None, b"", client.pins, &mut client.gate) {
                self.refuse_function(why, head.len, out);
                return Ok(Taken::Bytes(0));
            }
            self.pin(code.pins_when_sent, client);
            self.opens_settings();
        }
        self.owe(Kind::Function, Effect::Nothing);
        self.unsynced = false;
        Ok(self.pass(head.len))
    }

    // ------------------------------------------------------------------------------------------ extended query

    fn send_parse(
        &mut self,
        head: Head,
        rest: &[u8],
        at: usize,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        if head.len > STATEMENT_BYTES_MAX {
            return self.send_large_parse(head, rest, client, out);
        }
        let Some(frame) = rest.get(..head.len) else { return Ok(Taken::NeedMore) };
        let malformed = || Violation::MalformedFrame(head.kind);
        let (name, body) = frame::cstr(frame.get(HEAD_BYTES..).unwrap_or_default()).ok_or_else(malformed)?;
        let (text, types) = frame::cstr(body).ok_or_else(malformed)?;
        let dialect = self.reads_in();
        let mut statement = sql::classify(text, dialect);
        if statement.references.len() > 1 || statement.references.iter().any(|at| at.verb == Verb::DeallocateAll) {
            // Nothing to rewrite; no text of several statements can be parsed.
            statement.references.clear();
        }
        if name.is_empty() && self.is_full_of_unnamed(client, out)
            || !name.is_empty() && (self.awaits(name_key(name), out) || self.is_full_of_named(head.len, client, out))
            || self.awaits_names(text, &statement.references, out)
        {
            return Ok(Taken::NeedMore);
        }
        self.unsynced = true;
        let intent = statement.intent;
        if statement.references.is_empty() {
            let hidden = our_names_hidden(intent, body);
            let changes = self.changes(text, intent);
            let bound = Bound { intent, dialect, changes, calls: calls(statement.calls), template: None };
            let as_it_is = hidden.is_none().then_some(at..at + head.len);
            self.parse(name_key(name), as_it_is, hidden.as_deref().unwrap_or(body), bound, client, out);
        } else {
            let template = Arc::new(Template { text: text.into(), types: types.into(), statement });
            let (body, rewriting) = self.concrete(&template, client);
            // What it executes decides what it returns.
            self.send_ahead(&rewriting.ahead, false, client, out);
            let bound = Bound { intent, dialect, changes: None, calls: None, template: Some(template) };
            self.parse(name_key(name), None, &body, bound, client, out);
        }
        Ok(Taken::Bytes(head.len))
    }

    fn parse(
        &mut self,
        name: &[u8],
        as_it_is: Option<std::ops::Range<usize>>,
        body: &[u8],
        bound: Bound,
        client: &mut Client,
        out: &mut Out,
    ) {
        if name.is_empty() {
            let generation = client.unnamed.send(body, bound);
            self.unnamed = Some((client.id, generation));
            self.owe(Kind::Parse, Effect::DefineUnnamed { client: client.id, generation });
            match as_it_is {
                Some(range) => out.pass(range),
                None => out.write(|out| write_parse(b"", body, out)),
            }
            return;
        }
        match lookup(&self.owed, client, name) {
            // The name is taken: the server says so of any other that is.
            Some(Prepared::Anywhere(_)) => {
                let stand_in = stand_in_for(name);
                self.prepare_stand_in(&stand_in, out);
                self.owe(Kind::Parse, Effect::Taken(name.into()));
                out.write(|out| write_parse(&stand_in, body, out));
            }
            Some(Prepared::OnConnection) => {
                self.owe(Kind::Parse, Effect::Nothing);
                out.write(|out| write_parse(&never_ours(name), body, out));
            }
            None if !client.statements.has_room(1, body.len()) => {
                self.refuse_extended(Box::new(ClientError::too_many_statements()), 0, out);
            }
            None => {
                let (id, family) = client.identify(body, self.settings_open);
                let Bound { intent, dialect, changes, calls, template } = bound;
                let (form, body) = (Form::Parsed, body.into());
                let label = client.label();
                let statement = Statement { id, family, label, form, body, intent, changes, calls, dialect, template };
                self.define(name, Arc::new(statement), out);
            }
        }
    }

    fn define(&mut self, name: &[u8], statement: Arc<Statement>, out: &mut Out) {
        let known = self.presence(statement.id);
        // In a failed transaction a Parse must fail, also one that need not reach the server.
        let may_fail = self.transaction == Transaction::Failed || self.owed.may_fail_transaction();
        if known == Presence::Yes && !may_fail {
            out.write(|out| message::close_statement(STAND_IN, out));
            self.owe(Kind::ParseKnown, Effect::define(name, statement));
            return;
        }
        if known != Presence::No {
            self.close_hidden(statement.id, out);
        }
        self.make_room(statement.id, out);
        out.write(|out| write_parse(&statement.id.name(), &statement.body, out));
        self.owe(Kind::Parse, Effect::define(name, statement));
    }

    /// Too long to be kept: it lives on this connection under the client's own name.
    fn send_large_parse(
        &mut self,
        head: Head,
        rest: &[u8],
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        let looked_at = rest.get(HEAD_BYTES..head.len.min(rest.len())).unwrap_or_default();
        let Some((name, _)) = frame::cstr(looked_at) else {
            return if looked_at.len() >= NAMES_BYTES_MAX { Err(Violation::FrameTooLong) } else { Ok(Taken::NeedMore) };
        };
        if name.is_empty() && self.is_full_of_unnamed(client, out)
            || !name.is_empty() && self.awaits(name_key(name), out)
        {
            return Ok(Taken::NeedMore);
        }
        self.unsynced = true;
        let key = name_key(name);
        let pins = Pins::of(PinReason::LargeStatement).and(Pins::of(PinReason::Unreadable));
        let large = Intent { pins_when_sent: pins, ..Intent::default() };
        let is_full = !key.is_empty() && !client.statements.has_room(1, 0) && lookup(&self.owed, client, key).is_none();
        let full = is_full.then(ClientError::too_many_statements);
        if let Some(why) = full.or_else(|| self.refusal(large, None, b"", client.pins, &mut client.gate)) {
            if key.is_empty() {
                // A Parse that fails has removed the one before it.
                out.write(|out| message::close_statement(b"", out));
                self.owe_hidden(Kind::Close, Effect::UndefineUnnamed);
                self.unnamed = None;
            }
            self.refuse_extended(Box::new(why), head.len, out);
            return Ok(Taken::Bytes(0));
        }
        self.pin(pins, client);
        self.opens_settings();
        if key.is_empty() {
            let generation = client.unnamed.send(b"", Bound::default());
            self.unnamed = Some((client.id, generation));
            self.owe(Kind::Parse, Effect::DefineUnnamed { client: client.id, generation });
            return Ok(self.pass(head.len));
        }
        let taken_name = match lookup(&self.owed, client, key) {
            Some(Prepared::Anywhere(_)) => {
                let stand_in = stand_in_for(key);
                self.prepare_stand_in(&stand_in, out);
                self.owe(Kind::Parse, Effect::Taken(key.into()));
                Some(stand_in)
            }
            Some(Prepared::OnConnection) => {
                self.owe(Kind::Parse, Effect::Nothing);
                None
            }
            None => {
                self.owe(Kind::Parse, Effect::Define { name: key.into(), prepared: Prepared::OnConnection });
                None
            }
        };
        let sent_name = taken_name.unwrap_or_else(|| never_ours(key));
        let skipped = HEAD_BYTES + name.len() + 1;
        out.write(|out| write_head(head.kind, head.len - skipped + sent_name.len() + 1, &sent_name, out));
        self.sending = Body { left: head.len - skipped, passes: true };
        Ok(Taken::Bytes(skipped))
    }

    fn send_bind(
        &mut self,
        head: Head,
        rest: &[u8],
        at: usize,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        let shown = rest.get(..head.len).unwrap_or(rest);
        let looked_at = shown.get(HEAD_BYTES..).unwrap_or_default();
        let names = frame::cstr(looked_at).and_then(|(portal, rest)| Some((portal, frame::cstr(rest)?.0)));
        let Some((portal, name)) = names else {
            return if shown.len() == head.len {
                Err(Violation::MalformedFrame(head.kind))
            } else if looked_at.len() >= NAMES_BYTES_MAX {
                Err(Violation::FrameTooLong)
            } else {
                Ok(Taken::NeedMore)
            };
        };
        let key = name_key(name);
        if self.awaits(key, out) {
            return Ok(Taken::NeedMore);
        }
        let meaning = lookup(&self.owed, client, key);
        if self.awaits_template(key, meaning.as_ref(), client, out) {
            return Ok(Taken::NeedMore);
        }
        let mut bound = None;
        if head.len <= SETTING_BYTES_MAX
            && let Some((text, dialect)) = self.text_with_parameters(key, meaning.as_ref(), client)
        {
            let Some(frame) = rest.get(..head.len) else { return Ok(Taken::NeedMore) };
            let values = frame.get(HEAD_BYTES + portal.len() + name.len() + 2..).and_then(message::bind_values);
            let values = values.ok_or(Violation::MalformedFrame(head.kind))?;
            let is_readable = self.is_in_utf8() || values.iter().all(|value| value.value.is_none_or(<[u8]>::is_ascii));
            bound = is_readable.then(|| Arc::new(sql::settings::bound_changes(text, dialect, &values)));
        }
        let vain = match &meaning {
            _ if key.is_empty() => client.unnamed.latest().and_then(|(_, body, _)| self.commits_in_vain(body)),
            Some(Prepared::Anywhere(statement)) => self.commits_in_vain(&statement.body),
            Some(Prepared::OnConnection) | None => None,
        };
        self.unsynced = true;
        if let Some(why) = vain {
            self.refuse_extended(Box::new(why), head.len, out);
            return Ok(Taken::Bytes(0));
        }
        if !self.bound.is_empty() {
            self.bound.retain(|bound| *bound.portal != *portal);
        }
        let skipped = HEAD_BYTES + portal.len() + 1 + name.len() + 1;
        let sent_name = self.resolve(key, meaning, Some((portal, bound)), client, out);
        if let Effect::Refuse(why) = sent_name.effect {
            self.refuse_extended(why, head.len, out);
            return Ok(Taken::Bytes(0));
        }
        match sent_name.rewritten {
            None => {
                out.pass(at..at + skipped);
            }
            Some(sent_name) => out.write(|out| {
                write_head(head.kind, head.len - HEAD_BYTES - name.len() + sent_name.len(), portal, out);
                frame::put_cstr(out, &sent_name);
            }),
        }
        self.owe(Kind::Bind, sent_name.effect);
        self.sending = Body { left: head.len - skipped, passes: true };
        Ok(Taken::Bytes(skipped))
    }

    /// Describe and Close: a kind of thing and a name.
    fn send_named(
        &mut self,
        head: Head,
        rest: &[u8],
        at: usize,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        if head.len > NAMES_BYTES_MAX {
            return Err(Violation::FrameTooLong);
        }
        let Some(frame) = rest.get(..head.len) else { return Ok(Taken::NeedMore) };
        let body = frame.get(HEAD_BYTES..).unwrap_or_default();
        let (of, name) = body.split_first().ok_or(Violation::MalformedFrame(head.kind))?;
        let (name, _) = frame::cstr(name).ok_or(Violation::MalformedFrame(head.kind))?;
        let is_statement = *of == b'S';
        let key = name_key(name);
        let is_close = head.kind == kind::CLOSE;
        if is_statement && !(is_close && key.is_empty()) && self.awaits(key, out) {
            return Ok(Taken::NeedMore);
        }
        let meaning = if is_statement && !is_close { lookup(&self.owed, client, key) } else { None };
        if is_statement && !is_close && self.awaits_template(key, meaning.as_ref(), client, out) {
            return Ok(Taken::NeedMore);
        }
        self.unsynced = true;
        if head.kind == kind::CLOSE {
            return Ok(self.send_close(is_statement, name, at..at + head.len, client, out));
        }
        if !is_statement {
            self.owe(Kind::DescribePortal, Effect::Nothing);
            return Ok(self.pass(head.len));
        }
        let sent_name = self.resolve(key, meaning, None, client, out);
        match sent_name.rewritten {
            None => out.pass(at..at + head.len),
            Some(sent_name) => out.write(|out| {
                frame::frame(out, kind::DESCRIBE, |body| {
                    body.push(b'S');
                    frame::put_cstr(body, &sent_name);
                });
            }),
        }
        self.owe(Kind::DescribeStatement, sent_name.effect);
        Ok(Taken::Bytes(head.len))
    }

    fn send_close(
        &mut self,
        is_statement: bool,
        name: &[u8],
        frame: std::ops::Range<usize>,
        client: &Client,
        out: &mut Out,
    ) -> Taken {
        let bytes = frame.len();
        let key = name_key(name);
        let effect = if !is_statement {
            Effect::Nothing
        } else if key.is_empty() {
            self.unnamed = None;
            Effect::UndefineUnnamed
        } else {
            Effect::Undefine(key.into())
        };
        // A statement that lives with the proxy stays on the server; the client's own name is unknown there.
        let here = matches!(lookup(&self.owed, client, key), Some(Prepared::OnConnection));
        if is_statement && key.starts_with(PREFIX) {
            let name = if here { never_ours(key) } else { STAND_IN.to_vec() };
            out.write(|out| message::close_statement(&name, out));
        } else {
            out.pass(frame);
        }
        self.owe(Kind::Close, effect);
        Taken::Bytes(bytes)
    }

    fn send_execute(
        &mut self,
        head: Head,
        rest: &[u8],
        at: usize,
        client: &Client,
        out: &mut Out,
    ) -> Result<Taken, Violation> {
        if !self.bound.is_empty() && rest.len() < head.len {
            return if head.len > NAMES_BYTES_MAX { Err(Violation::FrameTooLong) } else { Ok(Taken::NeedMore) };
        }
        self.unsynced = true;
        let portal = rest.get(HEAD_BYTES..head.len).and_then(frame::cstr).map(|(portal, _)| portal);
        let bound = self.bound.iter().position(|bound| Some(&*bound.portal) == portal);
        let Some(BoundPortal { names, changes, clears, .. }) = bound.map(|place| self.bound.swap_remove(place)) else {
            self.owe(Kind::Execute, Effect::Nothing);
            return Ok(self.pass(head.len));
        };
        let reset = changes.as_ref().map_or_else(Vec::new, |changes| self.resets(changes, client));
        self.owe(Kind::Execute, Effect::Query { pins: Pins::NONE, names, changes });
        if !reset.is_empty() {
            out.pass(at..at + head.len);
            out.write(|out| self.set_back(&reset, false, out));
            return Ok(Taken::Bytes(head.len));
        }
        if !clears {
            return Ok(self.pass(head.len));
        }
        // It may change what later names mean: its reply is asked for, and waited for.
        out.pass(at..at + head.len);
        out.write(|out| frame::frame(out, kind::FLUSH, |_| ()));
        self.flushed = true;
        self.hold = Hold::UntilAnswered;
        Ok(Taken::Bytes(head.len))
    }

    fn send_sync(&mut self) {
        if self.copy_in {
            return;
        }
        // One with nothing before it asks for nothing.
        self.tally.requests += u64::from(self.unsynced);
        self.owe(Kind::Sync, Effect::Nothing);
        self.begin_segment();
        if self.settings_lost {
            self.hold = Hold::UntilAnswered;
        }
    }

    pub(super) fn begin_segment(&mut self) {
        self.segment = self.segment.wrapping_add(1);
        self.unsynced = false;
        self.skipping = false;
    }

    fn send_copy_end(&mut self) {
        if self.copy_in {
            self.copy_in = false;
        } else {
            self.owed.mark_copy_end(self.segment);
        }
    }

    // ------------------------------------------------------------------------------------------ names

    /// What this name means is known only once replies have come: they are asked for, and waited for.
    pub(super) fn awaits(&mut self, name: &[u8], out: &mut Out) -> bool {
        let is_open = match name {
            b"" => self.owed.unnamed_is_open(self.segment),
            name => self.owed.is_open(name, self.segment),
        };
        is_open && self.waits_for_replies(out)
    }

    /// The same of the names in a statement that is to be used, if it is itself about others.
    fn awaits_template(&mut self, key: &[u8], meaning: Option<&Prepared>, client: &Client, out: &mut Out) -> bool {
        let template = match meaning {
            _ if key.is_empty() => client.unnamed.latest().and_then(|(_, _, bound)| bound.template.as_ref()),
            Some(Prepared::Anywhere(statement)) => statement.template.as_ref(),
            Some(Prepared::OnConnection) | None => None,
        };
        let Some(template) = template.cloned() else { return false };
        // In a transaction that has failed it can't be parsed anew.
        self.owed.may_fail_transaction() && self.waits_for_replies(out)
            || self.awaits_names(&template.text, &template.statement.references, out)
    }

    /// No more unnamed statements can be kept, in case that those in flight are skipped.
    fn is_full_of_unnamed(&mut self, client: &Client, out: &mut Out) -> bool {
        client.unnamed.is_full() && self.waits_for_replies(out)
    }

    /// Nor named ones, should all of those in flight succeed: only then is it known whether one more of this length may be.
    fn is_full_of_named(&mut self, bytes: usize, client: &Client, out: &mut Out) -> bool {
        let (statements, in_flight) = self.owed.defining();
        statements > 0
            && !client.statements.has_room(statements + 1, bytes.saturating_add(in_flight))
            && self.waits_for_replies(out)
    }

    pub(super) fn waits_for_replies(&mut self, out: &mut Out) -> bool {
        // While the server reads COPY data it answers nothing else.
        if self.copy_in {
            return false;
        }
        // A Sync that was sent may have been read over in the middle of COPY data.
        if self.unsynced || self.owed.ends_copy() {
            out.write(|out| frame::frame(out, kind::FLUSH, |_| ()));
            self.flushed = true;
        }
        self.hold = Hold::UntilAnswered;
        true
    }

    /// A statement of this intent, which may call these functions, is being sent, or bound.
    pub(super) fn begin_statement<'a>(
        &mut self,
        intent: Intent,
        calls: impl Iterator<Item = &'a Box<[u8]>>,
        client: &mut Client,
        out: &mut Out,
    ) {
        let is_code = self.call(calls, client) || intent.pins_when_sent.contains(PinReason::OpaqueCode);
        self.pin(intent.pins_when_sent, client);
        self.state.may_end(intent.may_end);
        if is_code || minds_sequences(intent, client) {
            self.guard_sequences(is_code || intent.asks_sequence, out);
        }
        // What a statement leaves is kept up to the next one.
        client.let_go_of_last_values();
        self.count_sequences(intent, client);
    }

    /// What a statement of this intent does with sequences, behind what guards it.
    pub(super) fn count_sequences(&mut self, intent: Intent, client: &mut Client) {
        let pins = client.pins.and(intent.pins_when_done);
        client.asks_last_values |= intent.asks_sequence && !pins.contains(PinReason::Unreadable);
        if client.asks_last_values && (intent.draws_sequence || intent.asks_sequence) {
            client.pins.add(PinReason::Sequence);
        }
        self.sequences_lost &= intent.asks_sequence && client.has_drawn;
        self.own_sequences |= intent.draws_sequence;
        client.has_drawn |= intent.draws_sequence;
    }

    /// What a text of this intent does to settings, if it does.
    pub(super) fn changes(&self, text: &[u8], intent: Intent) -> Option<Arc<Changes>> {
        intent.changes_settings.then(|| {
            let changes = sql::settings::changes(text, self.reads_in());
            let is_readable = text.is_ascii() || self.is_in_utf8();
            Arc::new(if is_readable { changes } else { changes.without_values() })
        })
    }

    /// Texts come in UTF-8.
    fn is_in_utf8(&self) -> bool {
        self.reported.parameters.get("client_encoding").is_none_or(|encoding| encoding.eq_ignore_ascii_case("utf8"))
    }

    /// A statement of this intent, which does this to settings, is being sent, or bound.
    pub(super) fn begin_changes(&mut self, intent: Intent, changes: Option<&Changes>) {
        if !intent.changes_settings {
            return;
        }
        let pins = intent.pins_when_sent.and(intent.pins_when_done);
        let is_neutral =
            changes.is_some_and(Changes::is_neutral) && pins.without(Pins::of(PinReason::Setting)).is_empty();
        self.settings_open |= !is_neutral;
        self.dialect_open |=
            !pins.without(READABLE_CHANGES).is_empty() || changes.is_none_or(Changes::may_change_dialect);
        if let Some(changes) = changes {
            self.state.may_change(changes);
        }
    }

    /// What is sent next may change any setting.
    pub(super) fn opens_settings(&mut self) {
        self.settings_open = true;
        self.dialect_open = true;
    }
}

/// Values that others have drawn must be gone before a statement asks; and before one draws whose client will ask, so that its
/// own are still there then.
fn minds_sequences(intent: Intent, client: &Client) -> bool {
    intent.asks_sequence || (intent.draws_sequence && client.asks_last_values)
}

/// The text without names in the proxy's own form, if it may be about prepared statements and can't be read.
fn our_names_hidden(intent: Intent, text: &[u8]) -> Option<Vec<u8>> {
    if intent.pins_when_done.contains(PinReason::PreparedStatement) { without_our_names(text) } else { None }
}

/// What a text whose names are replaced does to settings, with what it executes.
fn changes_of(rewriting: &Option<Rewriting>) -> Option<&Changes> {
    rewriting.as_ref().and_then(|rewriting| rewriting.changes.as_deref())
}

/// A name of the client's that can't be one of ours.
pub(super) fn never_ours(name: &[u8]) -> Vec<u8> {
    if name.starts_with(PREFIX) { [b"_", name].concat() } else { name.to_vec() }
}
