//! From the client to the server: frames are passed on as they are, names of prepared statements rewritten.
//!
//! Only what must be understood is read: the text of a query or a Parse, the names in Bind, Describe and Close. Large
//! values are passed by their length. A name that the client never prepared goes to the server as it is, so that the
//! server's own error stands at the right place; a name in the proxy's own form never does.

use super::owed::{Effect, Kind, Presence, lookup};
use super::{Body, Hold, Server, Transaction, Usable};
use crate::postgres::client::{Bound, Client, Prepared};
use crate::postgres::frame::{self, HEAD_BYTES, Head};
use crate::postgres::message::{self, from_client as kind};
use crate::postgres::statement::{Id, PREFIX, STAND_IN, Statement, name_key, without_our_names};
use crate::protocol::{Clears, ClientSide, Intent, Out, PinReason, Pins, ServerSide, Violation};
use crate::sql::long::Long;
use crate::sql::settings::Changes;
use crate::sql::{self, Dialect};
use std::sync::Arc;

/// A query's text is kept until it is read up to this length; a longer one is read as it passes.
const QUERY_BYTES_MAX: usize = 1 << 20;
/// A statement is kept by the proxy up to this length; a longer one stays on its connection, and pins.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// Names must end within so many bytes of a frame; the server cuts them at 63.
const NAMES_BYTES_MAX: usize = 128 << 10;
/// The statement that `DISCARD SEQUENCES` is prepared as for a moment.
const DISCARD_SEQUENCES: &[u8] = b"sg_discard_sequences";

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
enum Taken {
    /// This much is done with; the rest of the frame, if any, is in `sending`.
    Bytes(usize),
    /// More of it must be seen.
    NeedMore,
}

/// Enough of the frame is there for [`Server::send_frames`] to take some of it, or to say what is wrong with it.
pub(in crate::postgres) fn begins(head: Head, rest: &[u8]) -> bool {
    let whole = rest.len() >= head.len;
    match head.kind {
        kind::QUERY if head.len > QUERY_BYTES_MAX => true,
        kind::PARSE if head.len > STATEMENT_BYTES_MAX => {
            rest.len() > HEAD_BYTES + NAMES_BYTES_MAX
                || rest.get(HEAD_BYTES..).is_some_and(|body| frame::cstr(body).is_some())
        }
        kind::BIND => {
            let names = rest.get(HEAD_BYTES..).and_then(|body| frame::cstr(frame::cstr(body)?.1));
            whole || names.is_some() || rest.len() > HEAD_BYTES + NAMES_BYTES_MAX
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
        if input.is_empty() || self.needs_client() || (!self.settings_lost && self.is_put_back()) {
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
            return Ok(self.send_long_query(head, at, out));
        }
        let Some(frame) = rest.get(..head.len) else { return Ok(Taken::NeedMore) };
        let text = frame.get(HEAD_BYTES..).unwrap_or_default();
        let text = frame::cstr(text).map_or(text, |(text, _)| text);
        let statement = sql::classify(text, self.reads_in());
        let deallocated = statement.deallocates.clone().and_then(|range| text.get(range));
        if deallocated.is_some_and(|name| self.awaits(name_key(&sql::identifier_value(name)), out)) {
            return Ok(Taken::NeedMore);
        }
        if self.foreign_sequences && !self.unsynced && minds_sequences(statement.intent, client) {
            // Whether the transaction has failed by then decides what can be done.
            if !self.owed.is_empty() && self.waits_for_replies(out) {
                return Ok(Taken::NeedMore);
            }
            let asks_behind = statement.intent.asks_sequence && statement.statements != 1;
            if self.transaction == Transaction::Failed && asks_behind {
                // It may leave the transaction and ask then, and nothing can be discarded before it has left: it fails as
                // whatever does not leave it does.
                out.write(|out| message::query(b"SELECT", out));
                self.begin_query(Effect::Nothing);
                return Ok(Taken::Bytes(head.len));
            }
        }
        if let Some(why) = self.refusal(statement.intent, text, client.pins, &mut client.gate) {
            self.refuse_query(why, out);
            return Ok(Taken::Bytes(head.len));
        }
        self.state.may_do(statement.intent, text, self.reads_in());
        self.begin_statement(statement.intent, client, out);
        if let Some(range) = statement.deallocates.clone() {
            let name = sql::identifier_value(text.get(range.clone()).unwrap_or_default());
            if matches!(lookup(&self.owed, client, name_key(&name)), Some(Prepared::Anywhere(_))) {
                // What is in flight may fail and take this query with it: only its replies tell.
                if !self.owed.is_empty() && self.waits_for_replies(out) {
                    return Ok(Taken::NeedMore);
                }
                self.send_deallocate(text, range, name_key(&name), out);
                return Ok(Taken::Bytes(head.len));
            }
            self.pin(Pins::of(PinReason::PreparedStatement), client);
        }
        match our_names_hidden(&statement, text) {
            None => out.pass(at..at + head.len),
            Some(hidden) => out.write(|out| message::query(&hidden, out)),
        }
        let changes = self.changes(text, statement.intent);
        self.begin_changes(statement.intent, changes.as_deref());
        let resets = changes.as_ref().is_some_and(|changes| !self.resets(changes, client).is_empty());
        self.begin_query(Effect::Query { pins: statement.intent.pins_when_done, deallocates: None, changes });
        if statement.intent.clears != Clears::Nothing || resets {
            self.hold = Hold::UntilAnswered;
        }
        Ok(Taken::Bytes(head.len))
    }

    /// `DEALLOCATE` of a statement that lives with the proxy. The server drops a stand-in, so that its own reply
    /// comes; the statement itself stays, others may use it.
    fn send_deallocate(&mut self, text: &[u8], range: std::ops::Range<usize>, name: &[u8], out: &mut Out) {
        let was_synced = !self.unsynced;
        self.prepare_stand_in(out);
        // In the middle of the client's own segment a Sync would end what an error must skip and roll back.
        if was_synced {
            self.sync_hidden(Effect::Nothing, out);
        }
        let rewritten = with_stand_in(text, range);
        out.write(|out| message::query(&rewritten, out));
        self.begin_query(Effect::Query { pins: Pins::NONE, deallocates: Some(name.into()), changes: None });
    }

    /// A query that is not kept: what it is is known when the last of it has passed, which is before the server can say
    /// anything.
    fn send_long_query(&mut self, head: Head, at: usize, out: &mut Out) -> Taken {
        if self.foreign_sequences && !self.unsynced {
            if !self.owed.is_empty() && self.waits_for_replies(out) {
                return Taken::NeedMore;
            }
            if self.transaction == Transaction::Failed {
                // As in a query that is read before it is sent.
                out.write(|out| message::query(b"SELECT", out));
                self.begin_query(Effect::Nothing);
                self.sending = Body { left: head.len, passes: false };
                return Taken::Bytes(0);
            }
        }
        // It may ask.
        self.guard_sequences(true, out);
        self.long = Some(Box::new(Long::new(self.reads_in())));
        self.opens_settings();
        self.begin_query(Effect::Nothing);
        out.pass(at..at + HEAD_BYTES);
        self.sending = Body { left: head.len - HEAD_BYTES, passes: true };
        Taken::Bytes(HEAD_BYTES)
    }

    /// More of a long query has passed.
    fn read_long(&mut self, bytes: &[u8], client: &mut Client) {
        let Some(long) = &mut self.long else { return };
        long.read(bytes);
        if self.sending.left > 0 {
            return;
        }
        let Some(intent) = self.long.take().map(|long| long.finish().intent) else { return };
        let pins = intent.pins_when_sent.and(intent.pins_when_done);
        if pins.contains(PinReason::OpaqueCode) || pins.contains(PinReason::Setting) {
            self.state.may_change_any();
        }
        self.pin(intent.pins_when_sent, client);
        self.state.may_end(intent.may_end);
        self.owed.amend_last(Effect::Query { pins: intent.pins_when_done, deallocates: None, changes: None });
        if intent.clears != Clears::Nothing {
            self.hold = Hold::UntilAnswered;
        }
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
            if let Some(why) = self.refusal(code, b"", client.pins, &mut client.gate) {
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
        let deallocated = statement.deallocates.clone().and_then(|range| text.get(range));
        if name.is_empty() && self.is_full_of_unnamed(client, out)
            || !name.is_empty() && self.awaits(name_key(name), out)
            || deallocated.is_some_and(|name| self.awaits(name_key(&sql::identifier_value(name)), out))
        {
            return Ok(Taken::NeedMore);
        }
        self.unsynced = true;
        let hidden = our_names_hidden(&statement, body);
        let deallocates = statement.deallocates.take().and_then(|range| {
            let name = sql::identifier_value(text.get(range.clone()).unwrap_or_default()).into_owned();
            let known = matches!(lookup(&self.owed, client, name_key(&name)), Some(Prepared::Anywhere(_)));
            if !known {
                statement.intent.pins_when_done.add(PinReason::PreparedStatement);
            }
            known.then(|| (name_key(&name).into(), with_stand_in(text, range)))
        });
        if let Some((dropped, mut rewritten)) = deallocates {
            rewritten.push(0);
            rewritten.extend_from_slice(types);
            let bound = Bound { intent: statement.intent, dialect, deallocates: Some(dropped), changes: None };
            self.parse(name_key(name), None, &rewritten, bound, client, out);
        } else {
            let changes = self.changes(text, statement.intent);
            let bound = Bound { intent: statement.intent, dialect, deallocates: None, changes };
            let as_it_is = hidden.is_none().then_some(at..at + head.len);
            self.parse(name_key(name), as_it_is, hidden.as_deref().unwrap_or(body), bound, client, out);
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
            // The name is taken: prepare the old statement once more, and the server says so itself.
            Some(Prepared::Anywhere(old)) => {
                self.ensure_prepared(&old, client, out);
                self.owe(Kind::Parse, Effect::Taken(name.into()));
                out.write(|out| write_parse(&old.id.name(), body, out));
            }
            Some(Prepared::OnConnection) => {
                self.owe(Kind::Parse, Effect::Nothing);
                out.write(|out| write_parse(&never_ours(name), body, out));
            }
            None if !client.statements.has_room(body.len()) => {
                let kept = Intent { pins_when_sent: Pins::of(PinReason::LargeStatement), ..Intent::default() };
                if let Some(why) = self.refusal(kept, body, client.pins, &mut client.gate) {
                    return self.refuse_extended(Box::new(why), 0, out);
                }
                self.pin(Pins::of(PinReason::LargeStatement), client);
                self.owe(Kind::Parse, Effect::Define { name: name.into(), prepared: Prepared::OnConnection });
                out.write(|out| write_parse(&never_ours(name), body, out));
            }
            None => {
                let (id, family) = client.identify(body, self.settings_open);
                let Bound { intent, dialect, deallocates, changes } = bound;
                let statement = Statement { id, family, body: body.into(), intent, changes, dialect, deallocates };
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
        if let Some(why) = self.refusal(large, b"", client.pins, &mut client.gate) {
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
            Some(Prepared::Anywhere(old)) => {
                self.ensure_prepared(&old, client, out);
                self.owe(Kind::Parse, Effect::Taken(key.into()));
                Some(old.id.name().to_vec())
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
        if self.awaits(name_key(name), out) {
            return Ok(Taken::NeedMore);
        }
        self.unsynced = true;
        self.bound_deallocates = None;
        self.bound_changes = None;
        let skipped = HEAD_BYTES + portal.len() + 1 + name.len() + 1;
        let sent_name = self.resolve(name, true, client, out);
        if let Effect::Refuse(why) = sent_name.effect {
            self.refuse_extended(why, head.len, out);
            return Ok(Taken::Bytes(0));
        }
        if self.bound_changes.is_some() {
            self.bound_portal = portal.into();
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
        if is_statement && !(name.is_empty() && head.kind == kind::CLOSE) && self.awaits(name_key(name), out) {
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
        let sent_name = self.resolve(name, false, client, out);
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
        if (self.bound_clears || self.bound_changes.is_some()) && rest.len() < head.len {
            return if head.len > NAMES_BYTES_MAX { Err(Violation::FrameTooLong) } else { Ok(Taken::NeedMore) };
        }
        self.unsynced = true;
        let portal = rest.get(HEAD_BYTES..head.len).and_then(frame::cstr).map(|(portal, _)| portal);
        let is_bound = portal.is_some_and(|portal| *portal == *self.bound_portal);
        let changes = if is_bound { self.bound_changes.take() } else { None };
        let reset = changes.as_ref().map_or_else(Vec::new, |changes| self.resets(changes, client));
        let deallocates = self.bound_deallocates.take();
        let effect = if deallocates.is_none() && changes.is_none() {
            Effect::Nothing
        } else {
            Effect::Query { pins: Pins::NONE, deallocates, changes }
        };
        self.owe(Kind::Execute, effect);
        if !reset.is_empty() {
            out.pass(at..at + head.len);
            out.write(|out| self.set_back(&reset, out));
            return Ok(Taken::Bytes(head.len));
        }
        if !std::mem::take(&mut self.bound_clears) {
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
    fn awaits(&mut self, name: &[u8], out: &mut Out) -> bool {
        let is_open = match name {
            b"" => self.owed.unnamed_is_open(self.segment),
            name => self.owed.is_open(name, self.segment),
        };
        is_open && self.waits_for_replies(out)
    }

    /// No more unnamed statements can be kept, in case that those in flight are skipped.
    fn is_full_of_unnamed(&mut self, client: &Client, out: &mut Out) -> bool {
        client.unnamed.is_full() && self.waits_for_replies(out)
    }

    fn waits_for_replies(&mut self, out: &mut Out) -> bool {
        // While the server reads COPY data it answers nothing else.
        if self.copy_in {
            return false;
        }
        if self.unsynced {
            out.write(|out| frame::frame(out, kind::FLUSH, |_| ()));
            self.flushed = true;
        }
        self.hold = Hold::UntilAnswered;
        true
    }

    /// What a Bind or Describe of this name must say to the server; what it lacks is sent ahead.
    fn resolve(&mut self, name: &[u8], binds: bool, client: &mut Client, out: &mut Out) -> SentName {
        let key = name_key(name);
        if key.is_empty() {
            return self.resolve_unnamed(binds, client, out);
        }
        match lookup(&self.owed, client, key) {
            Some(Prepared::Anywhere(statement)) => {
                if binds {
                    if let Some(why) = self.refusal(statement.intent, &statement.body, client.pins, &mut client.gate) {
                        return SentName { rewritten: None, effect: Effect::Refuse(Box::new(why)) };
                    }
                    let (deallocates, changes) = (statement.deallocates.clone(), statement.changes.clone());
                    self.state.may_do(statement.intent, &statement.body, self.reads_in());
                    self.bind(statement.intent, (deallocates, changes), client, out);
                }
                self.ensure_prepared(&statement, client, out);
                let pins = if binds { statement.intent.pins_when_done } else { Pins::NONE };
                let name = statement.id.name().to_vec();
                SentName { rewritten: Some(name), effect: Effect::Uses(statement, pins) }
            }
            Some(Prepared::OnConnection) | None => {
                SentName { rewritten: key.starts_with(PREFIX).then(|| never_ours(key)), effect: Effect::Nothing }
            }
        }
    }

    fn resolve_unnamed(&mut self, binds: bool, client: &mut Client, out: &mut Out) -> SentName {
        let latest = client.unnamed.latest().filter(|_| !self.owed.drops_unnamed());
        let Some((generation, body, bound)) = latest else {
            // Whatever is there is a stranger's: out of the way, so that the server says there is none.
            out.write(|out| message::close_statement(b"", out));
            self.owe_hidden(Kind::Close, Effect::Nothing);
            self.unnamed = None;
            return SentName { rewritten: None, effect: Effect::Nothing };
        };
        let Bound { intent, dialect, deallocates, changes } = bound.clone();
        if binds {
            if let Some(why) = self.refusal(intent, body, client.pins, &mut client.gate) {
                return SentName { rewritten: None, effect: Effect::Refuse(Box::new(why)) };
            }
            self.state.may_do(intent, body, self.reads_in());
        }
        let mut misreads = false;
        if self.unnamed != Some((client.id, generation)) && !body.is_empty() {
            misreads = self.misreads(body, dialect, self.reads_in());
            out.write(|out| write_parse(b"", body, out));
            self.owe_hidden(Kind::Parse, Effect::RestoreUnnamed);
            self.unnamed = Some((client.id, generation));
        }
        if misreads {
            self.distrust_text(client, out);
        }
        if binds {
            self.bind(intent, (deallocates, changes), client, out);
        }
        SentName { rewritten: None, effect: if binds { Effect::Pin(intent.pins_when_done) } else { Effect::Nothing } }
    }

    /// A statement of this intent is being bound.
    fn bind(
        &mut self,
        intent: Intent,
        (deallocates, changes): (Option<Box<[u8]>>, Option<Arc<Changes>>),
        client: &mut Client,
        out: &mut Out,
    ) {
        self.begin_statement(intent, client, out);
        self.begin_changes(intent, changes.as_deref());
        self.bound_changes = changes.filter(|_| intent.pins_when_done.contains(PinReason::Setting));
        self.bound_clears |= intent.clears != Clears::Nothing;
        if let Some(name) = deallocates {
            if matches!(lookup(&self.owed, client, &name), Some(Prepared::Anywhere(_))) {
                self.prepare_stand_in(out);
            } else {
                // It has been deallocated since: the server must say so.
                out.write(|out| message::close_statement(STAND_IN, out));
                self.owe_hidden(Kind::Close, Effect::Nothing);
                self.unsynced = true;
            }
            self.bound_deallocates = Some(name);
        }
    }

    /// A statement of this intent is being sent, or bound.
    fn begin_statement(&mut self, intent: Intent, client: &mut Client, out: &mut Out) {
        self.pin(intent.pins_when_sent, client);
        self.state.may_end(intent.may_end);
        if minds_sequences(intent, client) {
            self.guard_sequences(intent.asks_sequence, out);
        }
        // What a statement leaves is kept up to the next one.
        client.let_go_of_last_values();
        client.asks_last_values |= intent.asks_sequence && !client.pins.contains(PinReason::Unreadable);
        if client.asks_last_values && (intent.draws_sequence || intent.asks_sequence) {
            client.pins.add(PinReason::Sequence);
        }
        self.sequences_lost &= intent.asks_sequence && client.has_drawn;
        self.own_sequences |= intent.draws_sequence;
        client.has_drawn |= intent.draws_sequence;
    }

    /// What a text of this intent does to settings, if it does.
    fn changes(&self, text: &[u8], intent: Intent) -> Option<Arc<Changes>> {
        intent.changes_settings.then(|| Arc::new(sql::settings::changes(text, self.reads_in())))
    }

    /// A statement of this intent, which does this to settings, is being sent, or bound.
    fn begin_changes(&mut self, intent: Intent, changes: Option<&Changes>) {
        if !intent.changes_settings {
            return;
        }
        self.settings_open = true;
        let pins = intent.pins_when_sent.and(intent.pins_when_done);
        self.dialect_open |=
            !pins.without(READABLE_CHANGES).is_empty() || changes.is_none_or(Changes::may_change_dialect);
        if let Some(changes) = changes {
            self.state.may_change(changes);
        }
    }

    /// What is sent next may change any setting.
    fn opens_settings(&mut self) {
        self.settings_open = true;
        self.dialect_open = true;
    }

    /// Sees to it that the server has the statement by the time it reads what is sent next.
    fn ensure_prepared(&mut self, statement: &Statement, client: &mut Client, out: &mut Out) {
        self.binds += 1;
        let presence = self.presence(statement.id);
        let mut dialect = self.reads_in();
        if presence == Presence::Yes {
            // What is not there yet was sent in this segment, and looked at then.
            dialect = statement.dialect;
            if let Some(held) = self.prepared.get_mut(&statement.id) {
                held.last_used = self.binds;
                dialect = held.dialect;
            }
        }
        if self.misreads(&statement.body, statement.dialect, dialect) {
            self.distrust_text(client, out);
        }
        match presence {
            Presence::Yes => return,
            Presence::No => {}
            Presence::Unsure => self.close_hidden(statement.id, out),
        }
        self.make_room(statement.id, out);
        out.write(|out| write_parse(&statement.id.name(), &statement.body, out));
        self.owe_hidden(Kind::Parse, Effect::Prepared(statement.id));
        self.unsynced = true;
    }

    /// The text of this body was classified as one dialect has it, and the server reads it in another.
    fn misreads(&self, body: &[u8], classified: Dialect, read: Dialect) -> bool {
        classified != read && sql::depends_on_dialect(frame::cstr(body).map_or(body, |(text, _)| text))
    }

    /// Whatever may hide in a text must neither stay for the next client nor see what the last one left.
    fn distrust_text(&mut self, client: &mut Client, out: &mut Out) {
        self.pin(Pins::of(PinReason::Unreadable), client);
        self.opens_settings();
        self.guard_sequences(true, out);
    }

    fn presence(&self, id: Id) -> Presence {
        self.owed.presence(id, self.segment).unwrap_or_else(|| match self.prepared.get(&id).map(|held| held.usable) {
            None => Presence::No,
            Some(Usable::Always) => Presence::Yes,
            Some(Usable::While(number)) if self.settings_open && number == self.settings_closed => Presence::Yes,
            Some(Usable::While(_) | Usable::Never) => Presence::Unsure,
        })
    }

    fn close_hidden(&mut self, id: Id, out: &mut Out) {
        out.write(|out| message::close_statement(&id.name(), out));
        self.owe_hidden(Kind::Close, Effect::Evicted(id));
        self.unsynced = true;
    }

    /// Closes the statements that were not used for longest, when one more would be too many. They go behind every use
    /// of them that has been sent, and ahead of every later one. Those in flight can't go yet: they go the next time.
    fn make_room(&mut self, newcomer: Id, out: &mut Out) {
        while self.prepared.len() >= self.prepared_max + self.owed.evicting() {
            let oldest = self
                .prepared
                .iter()
                .filter(|(id, _)| **id != newcomer && !self.owed.touches(**id))
                .min_by_key(|(_, held)| held.last_used)
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            self.close_hidden(oldest, out);
        }
    }

    /// A statement that can be deallocated in place of one that must stay.
    fn prepare_stand_in(&mut self, out: &mut Out) {
        out.write(|out| {
            message::close_statement(STAND_IN, out);
            write_parse(STAND_IN, b"\0\0\0", out);
        });
        self.owe_hidden(Kind::Close, Effect::Nothing);
        self.owe_hidden(Kind::Parse, Effect::Nothing);
        self.unsynced = true;
    }

    fn sync_hidden(&mut self, effect: Effect, out: &mut Out) {
        out.write(message::sync);
        self.owe_hidden(Kind::Sync, effect);
        self.begin_segment();
    }

    /// A statement that asks for a sequence's last value must not get one that another client drew. The value the
    /// client drew itself in the same transaction goes with it: the server then says that there is none.
    fn guard_sequences(&mut self, asks: bool, out: &mut Out) {
        self.sequences_lost = asks && self.foreign_sequences;
        let was_synced = !self.unsynced;
        // In a failed transaction a single statement can't ask, nor discard; where it is not known yet whether it will have
        // ended by then, the server says so.
        let can_not = was_synced && self.transaction == Transaction::Failed;
        if !self.foreign_sequences || can_not {
            return;
        }
        out.write(|out| {
            message::close_statement(DISCARD_SEQUENCES, out);
            write_parse(DISCARD_SEQUENCES, b"DISCARD SEQUENCES\0\0\0", out);
            // A portal of its own: the client's unnamed one may be waiting for its Execute.
            write_bind(DISCARD_SEQUENCES, DISCARD_SEQUENCES, &[], out);
            write_execute(DISCARD_SEQUENCES, out);
            write_close_portal(DISCARD_SEQUENCES, out);
        });
        self.owe_hidden(Kind::Close, Effect::Nothing);
        self.owe_hidden(Kind::Parse, Effect::Nothing);
        self.owe_hidden(Kind::Bind, Effect::Nothing);
        self.owe_hidden(Kind::Execute, Effect::SequencesDiscarded);
        self.owe_hidden(Kind::Close, Effect::Nothing);
        if was_synced {
            self.sync_hidden(Effect::Nothing, out);
        }
    }
}

/// Values that others have drawn must be gone before a statement asks; and before one draws whose client will ask, so that its
/// own are still there then.
fn minds_sequences(intent: Intent, client: &Client) -> bool {
    intent.asks_sequence || (intent.draws_sequence && client.asks_last_values)
}

/// The text without names in the proxy's own form, if it is about prepared statements and holds any.
fn our_names_hidden(statement: &sql::Statement, text: &[u8]) -> Option<Vec<u8>> {
    let is_about_them =
        statement.deallocates.is_some() || statement.intent.pins_when_done.contains(PinReason::PreparedStatement);
    if is_about_them { without_our_names(text) } else { None }
}

/// The name that a request says to the server.
struct SentName {
    /// `None`: as the client wrote it.
    rewritten: Option<Vec<u8>>,
    /// What its completion changes.
    effect: Effect,
}

/// A name of the client's that can't be one of ours.
fn never_ours(name: &[u8]) -> Vec<u8> {
    if name.starts_with(PREFIX) { [b"_", name].concat() } else { name.to_vec() }
}

/// The text of a DEALLOCATE with the name in it replaced.
fn with_stand_in(text: &[u8], name: std::ops::Range<usize>) -> Vec<u8> {
    let before = text.get(..name.start).unwrap_or_default();
    let behind = text.get(name.end..).unwrap_or_default();
    [before, STAND_IN, behind].concat()
}

/// Head of a frame with `body_bytes` of body that begins with a string.
fn write_head(kind: u8, body_bytes: usize, string: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    let length = u32::try_from(body_bytes + 4).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    frame::put_cstr(out, string);
}

pub(super) fn write_parse(name: &[u8], body: &[u8], out: &mut Vec<u8>) {
    write_head(kind::PARSE, name.len() + 1 + body.len(), name, out);
    out.extend_from_slice(body);
}

/// Bind with all parameters and results as text.
pub(super) fn write_bind(portal: &[u8], statement: &[u8], parameters: &[&[u8]], out: &mut Vec<u8>) {
    frame::frame(out, kind::BIND, |body| {
        frame::put_cstr(body, portal);
        frame::put_cstr(body, statement);
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&u16::try_from(parameters.len()).unwrap_or(0).to_be_bytes());
        for parameter in parameters {
            body.extend_from_slice(&u32::try_from(parameter.len()).unwrap_or(0).to_be_bytes());
            body.extend_from_slice(parameter);
        }
        body.extend_from_slice(&[0, 0]);
    });
}

/// Execute, all rows.
pub(super) fn write_execute(portal: &[u8], out: &mut Vec<u8>) {
    frame::frame(out, kind::EXECUTE, |body| {
        frame::put_cstr(body, portal);
        body.extend_from_slice(&[0; 4]);
    });
}

pub(super) fn write_close_portal(portal: &[u8], out: &mut Vec<u8>) {
    frame::frame(out, kind::CLOSE, |body| {
        body.push(b'P');
        frame::put_cstr(body, portal);
    });
}
