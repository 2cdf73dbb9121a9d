//! From the server to the client: replies are matched with what is owed, the proxy's own are dropped, the rest goes on
//! as it came.
//!
//! Rows and COPY data are passed by their length. What ends a request, reports a state or an error is read whole.

use super::functions::tells_redefinition;
use super::names::stand_in_for;
use super::owed::{Effect, Kind, Owed};
use super::{Body, Held, Hold, Server, Transaction, Usable};
use crate::postgres::client::{Client, Prepared};
use crate::postgres::frame::{self, HEAD_BYTES, Head};
use crate::postgres::message::{self, from_server as kind};
use crate::postgres::statement::{Form, Id, PREFIX};
use crate::protocol::{AttachFailure, ClientError, ClientSide, Out, PinReason, Pins, ServerError, Violation};
use crate::sql::Dialect;
use std::sync::Arc;

/// Errors, notices, tags and reports are read whole, and are never near this long.
const READ_BYTES_MAX: usize = 1 << 20;
/// feature_not_supported: what a statement's use fails with when its result is no longer what it was; and where in the server's
/// source that is, which tells it from all others of that code.
const RESULT_CHANGED: (&str, &[u8]) = ("0A000", b"RevalidateCachedQuery");
/// ParseComplete.
const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// Bytes of a statement's name on servers: the prefix and 32 hexadecimal digits.
const NAME_BYTES: usize = 35;

/// Codes of the errors that may be explained: cancelled; in a failed transaction.
const EXPLAINED: &[&str] = &["57014", "25P02"];

/// Tags of what begins, ends or divides a transaction, beside the one of what takes something back.
const MIXING_TAGS: &[&[u8]] =
    &[b"BEGIN", b"START TRANSACTION", b"COMMIT", b"SAVEPOINT", b"RELEASE", b"PREPARE TRANSACTION"];

/// Tags of what may make another function of a name.
const DDL_TAGS: &[&[u8]] = &[b"CREATE", b"ALTER", b"DROP"];

/// Tags that say what the text should have said already, and the pin that says it.
const TELLING_TAGS: &[(&[u8], PinReason)] = &[
    (b"LISTEN", PinReason::Listen),
    (b"PREPARE", PinReason::PreparedStatement),
    (b"LOAD", PinReason::ServerProcess),
    (b"DO", PinReason::OpaqueCode),
    (b"CALL", PinReason::OpaqueCode),
];

/// What a query fails with when what it executes is not there, or could not be sent ahead: there is no statement of that name; the
/// transaction has failed.
const FAILED_BEHIND: &[&str] = &["26000", "25P02"];

/// object_not_in_prerequisite_state: what a sequence's last value is asked for with before there is one.
const VALUE_UNKNOWN: &str = "55000";
/// Why there is none, where the client has drawn one.
const VALUE_LOST: &str = "The proxy has given the database connection on which the value was drawn to another client. Ask in \
     the same transaction, or use RETURNING.";

/// The error with a hint, if it has none.
fn with_hint(frame: &[u8], hint: &str) -> Vec<u8> {
    let body = frame.get(HEAD_BYTES..).unwrap_or_default();
    let mut hinted = Vec::new();
    frame::frame(&mut hinted, kind::ERROR_RESPONSE, |out| {
        out.extend_from_slice(body.strip_suffix(b"\0").unwrap_or(body));
        if !message::fields(body).any(|(field, _)| field == b'H') {
            out.push(b'H');
            frame::put_cstr(out, hint.as_bytes());
        }
        out.push(0);
    });
    hinted
}

fn explain(why: ClientError) -> Vec<u8> {
    let mut frame = Vec::new();
    message::client_error(&why, false, &mut frame);
    frame
}

impl Server {
    pub(super) fn receive_frames(
        &mut self,
        input: &[u8],
        mut client: Option<&mut Client>,
        out: &mut Out,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        loop {
            at += self.receiving.advance(input, at, out);
            let rest = input.get(at..).unwrap_or_default();
            if self.receiving.left > 0 || self.ended {
                return Ok(at);
            }
            let Some(head) = frame::head(rest)? else { return Ok(at) };
            let passes = match head.kind {
                kind::DATA_ROW if !self.is_asking() => self.row(head, client.is_some())?,
                kind::COPY_DATA | kind::COPY_DONE => self.row(head, client.is_some())?,
                kind::NOTICE_RESPONSE if head.len > READ_BYTES_MAX => self.shows(client.is_some()),
                kind::ROW_DESCRIPTION | kind::NO_DATA | kind::PARAMETER_DESCRIPTION | kind::FUNCTION_CALL_RESPONSE => {
                    self.description(head, client.is_some())?
                }
                _ => {
                    if head.len > READ_BYTES_MAX {
                        return Err(Violation::FrameTooLong);
                    }
                    let Some(frame) = rest.get(..head.len) else { return Ok(at) };
                    self.read(frame, at, client.as_deref_mut(), out)?;
                    self.settle();
                    at += head.len;
                    continue;
                }
            };
            self.receiving = Body { left: head.len, passes };
        }
    }

    /// Nothing owed: what was held back may go.
    fn settle(&mut self) {
        if self.owed.is_empty() {
            self.hold = Hold::Open;
            if self.transaction != Transaction::Failed {
                self.explanation = None;
            }
            if self.transaction == Transaction::None && !self.unsynced {
                // No portal is left.
                self.bound.clear();
            }
            if self.settings_open && self.transaction == Transaction::None && !self.unsynced {
                self.settings_open = false;
                self.dialect_open = false;
                self.settings_closed += 1;
            }
        }
    }

    fn shows(&self, has_client: bool) -> bool {
        has_client && self.owed.front().is_none_or(|owed| !owed.hidden)
    }

    /// The rows that come are an answer for the proxy.
    fn is_asking(&self) -> bool {
        matches!(self.owed.front(), Some(Owed { effect: Effect::Answers, .. }))
    }

    fn row(&self, head: Head, has_client: bool) -> Result<bool, Violation> {
        match self.owed.front().map(|owed| owed.kind) {
            Some(Kind::Execute | Kind::Query) => Ok(self.shows(has_client)),
            _other => Err(Violation::UnexpectedReply(head.kind)),
        }
    }

    fn description(&mut self, head: Head, has_client: bool) -> Result<bool, Violation> {
        let shows = self.shows(has_client);
        let front = self.owed.front().map(|owed| owed.kind);
        match (head.kind, front) {
            (kind::PARAMETER_DESCRIPTION, Some(Kind::DescribeStatement))
            | (kind::ROW_DESCRIPTION, Some(Kind::Query))
            | (kind::FUNCTION_CALL_RESPONSE, Some(Kind::Function)) => {}
            (kind::ROW_DESCRIPTION | kind::NO_DATA, Some(Kind::DescribeStatement | Kind::DescribePortal)) => {
                self.owed.pop();
                self.settle();
            }
            _other => return Err(Violation::UnexpectedReply(head.kind)),
        }
        Ok(shows)
    }

    /// A frame that is read whole.
    fn read(
        &mut self,
        frame: &[u8],
        at: usize,
        mut client: Option<&mut Client>,
        out: &mut Out,
    ) -> Result<(), Violation> {
        let (kind, body) = (frame.first().copied().unwrap_or(0), frame.get(HEAD_BYTES..).unwrap_or_default());
        let unexpected = Err(Violation::UnexpectedReply(kind));
        let mut shows = self.shows(client.is_some());
        let front = self.owed.front().map(|owed| owed.kind);
        match (kind, front) {
            (kind::PARSE_COMPLETE, Some(Kind::Parse))
            | (kind::BIND_COMPLETE, Some(Kind::Bind))
            | (kind::CLOSE_COMPLETE, Some(Kind::Close)) => self.complete(client, out),
            (kind::CLOSE_COMPLETE, Some(Kind::ParseKnown)) => {
                self.complete(client, out);
                if shows {
                    out.put(PARSE_COMPLETE);
                }
                shows = false;
            }
            (kind::DATA_ROW, Some(Kind::Execute)) if self.is_asking() => self.state.row(body)?,
            (kind::COMMAND_COMPLETE, Some(Kind::Execute)) => {
                self.read_tag(body, client.as_deref_mut());
                self.complete(client, out);
            }
            (kind::COMMAND_COMPLETE, Some(Kind::Query)) => {
                if let (Some(client), Some(Owed { effect: Effect::Query { pins, .. }, .. })) =
                    (client.as_deref_mut(), self.owed.front())
                {
                    let pins = *pins;
                    self.pin(pins, client);
                }
                self.read_tag(body, client);
            }
            (kind::EMPTY_QUERY_RESPONSE | kind::PORTAL_SUSPENDED, Some(Kind::Execute)) => self.complete(client, out),
            (kind::EMPTY_QUERY_RESPONSE, Some(Kind::Query)) => {}
            // Nobody has data for the proxy's own query, and without data it has no end.
            (kind::COPY_IN_RESPONSE, Some(_)) if self.owed.front().is_some_and(|owed| owed.hidden) => {
                self.init_failed("0A000", "init_query must not copy");
                self.ended = true;
            }
            (kind::COPY_IN_RESPONSE, Some(Kind::Execute | Kind::Query)) => {
                self.copy_in = !self.owed.begin_copy_in();
                // The client's Sync is one of those that the server has read over.
                self.unsynced |= self.owed.awaits_sync();
                if self.copy_in {
                    // No other answer comes before the data.
                    self.hold = Hold::Open;
                }
            }
            (kind::COPY_OUT_RESPONSE, Some(Kind::Execute | Kind::Query)) => {}
            (kind::READY_FOR_QUERY, Some(Kind::Sync | Kind::Query | Kind::Function)) => {
                let was = self.transaction;
                self.transaction = match message::read_ready_for_query(body) {
                    Some(b'I') => Transaction::None,
                    Some(b'T') => Transaction::Open,
                    Some(b'E') => Transaction::Failed,
                    _other => return unexpected,
                };
                self.copy_in = false;
                if shows {
                    self.failed_ahead = None;
                }
                self.tally.queries += u64::from(shows);
                let is_clients = self.owed.front().is_some_and(|owed| !owed.hidden);
                self.complete(client.as_deref_mut(), out);
                if let Some(client) = client.filter(|_| is_clients) {
                    self.end_segment(was, client);
                }
            }
            (kind::ERROR_RESPONSE, _) => return self.error(frame, at, client, out),
            // A notice of the proxy's own statements is nobody's business.
            (kind::NOTICE_RESPONSE, _) => {
                if shows
                    && let Some(Effect::Query { names: Some(names), .. }) = self.owed.front().map(|owed| &owed.effect)
                    && let Some(written) = names.as_written(frame)
                {
                    out.put(&written);
                    shows = false;
                }
            }
            // It comes when it comes, also between the proxy's own requests and their replies.
            (kind::NOTIFICATION_RESPONSE, _) => {
                shows = client.is_some_and(|client| client.pins.contains(PinReason::Listen));
            }
            (kind::PARAMETER_STATUS, _) => {
                // What is rolled back behind the client's back is its own setting.
                let reverts = matches!(self.owed.front(), Some(Owed { effect: Effect::Fail, .. }));
                shows |= reverts && client.is_some();
                // What is reset will be where the client began before it can look.
                shows &= !client.as_deref().is_some_and(|client| self.comes_back(body, client));
                self.parameter_status(body, shows, client);
            }
            _other => return unexpected,
        }
        if shows {
            out.pass(at..at + frame.len());
        }
        Ok(())
    }

    /// What is reported is the server's own value of a setting that goes back to where the client began.
    fn comes_back(&self, body: &[u8], client: &Client) -> bool {
        let Some((name, _)) = message::read_parameter_status(body) else { return false };
        let name = name.to_ascii_lowercase();
        let resets = match self.owed.front().map(|owed| &owed.effect) {
            Some(Effect::Query { changes: Some(changes), .. }) => changes.resets(&name),
            _other => false,
        };
        (resets || (self.settings_lost && !self.state.is_restored())) && client.baseline().value(&name).is_some()
    }

    fn parameter_status(&mut self, body: &[u8], shows: bool, client: Option<&mut Client>) {
        let Some((name, value)) = message::read_parameter_status(body) else { return };
        self.reported.set(&name, &value);
        self.read_dialect();
        if let (true, Some(client)) = (shows, client) {
            client.told.set(&name, &value);
        }
    }

    /// The front entry is answered in full.
    fn complete(&mut self, client: Option<&mut Client>, out: &mut Out) {
        let Some(owed) = self.owed.pop() else { return };
        match owed.effect {
            Effect::Nothing | Effect::Prepares | Effect::Taken(_) | Effect::Fail | Effect::Refuse(_) | Effect::Asks => {
            }
            Effect::Answers => {
                if let Some(client) = client {
                    self.answered_state(client);
                }
                return;
            }
            Effect::Query { pins, ref changes, ref names } => {
                if names.as_ref().is_some_and(|names| names.has_unseen()) {
                    self.state.may_change_any();
                }
                let is_changing = pins.contains(PinReason::Setting);
                if is_changing {
                    self.state.is_changing();
                }
                if is_changing || owed.kind == Kind::Execute {
                    self.state.has_changed(changes.as_deref());
                }
                if let (Kind::Query, Some(changes), Some(client)) = (owed.kind, changes, client.as_deref()) {
                    let due = self.resets(changes, client);
                    self.state.has_reset(due);
                }
            }
            Effect::Prepared(id, form) => {
                // The shared one must not stay as these settings made it.
                let usable = if self.settings_open { Usable::While(self.settings_closed) } else { Usable::Always };
                self.has_prepared(id, form, usable);
            }
            Effect::Evicted(id) => {
                self.prepared.remove(&id);
            }
            Effect::Applied(settings) => {
                if self.attach_failure.is_none() {
                    self.applied = settings;
                    if let Some(client) = client {
                        out.write(|out| self.tell_differences(client, out));
                    }
                }
                return;
            }
            Effect::Tells => {
                if let Some(client) = client {
                    out.write(|out| self.tell_differences(client, out));
                }
                return;
            }
            Effect::PutsBack => self.state.puts_back(),
            Effect::SequencesDiscarded => self.foreign_sequences = false,
            Effect::Initialized => {
                if self.transaction != Transaction::None {
                    self.init_failed("25001", "init_query leaves a transaction open");
                }
                self.init_lost = self.attach_failure.is_some();
            }
            Effect::Define { name, prepared } => {
                if let (Prepared::Anywhere(statement), Kind::Parse) = (&prepared, owed.kind) {
                    self.has_prepared(statement.id, Form::Parsed, Usable::Always);
                }
                if let Some(client) = client {
                    client.statements.insert(name, prepared);
                }
                return;
            }
            Effect::Undefine(name) => {
                if let Some(client) = client {
                    client.statements.remove(&name);
                }
                return;
            }
            Effect::DefineUnnamed { client: id, generation } => {
                if let Some(client) = client.filter(|client| client.id == id) {
                    client.unnamed.confirm(generation);
                }
                return;
            }
            Effect::RestoreUnnamed => return,
            Effect::UndefineUnnamed => {
                if let Some(client) = client {
                    client.unnamed.clear();
                }
                return;
            }
            Effect::Pin(pins) | Effect::Uses(_, pins) => {
                if pins.contains(PinReason::Setting) {
                    self.state.is_changing();
                }
                if let Some(client) = client {
                    self.pin(pins, client);
                }
                return;
            }
        }
        if owed.kind == Kind::Query
            && !owed.hidden
            && let Some(client) = client
        {
            client.unnamed.clear();
        }
    }

    pub(super) fn has_prepared(&mut self, id: Id, form: Form, usable: Usable) {
        // Younger than all that was bound before.
        self.binds += 1;
        let dialect = Dialect { unsure: self.dialect_open, ..self.dialect };
        self.prepared.insert(id, Held { last_used: self.binds, dialect, usable, form });
    }

    /// A Bind or Describe failed. The result of a statement can't change (`RevalidateCachedQuery` in the server's
    /// `plancache.c`); a fresh one under the same name can, so nobody else need meet the error on this connection.
    fn forget_stale(&mut self, code: &str, frame: &[u8], client: Option<&mut Client>) {
        let routine = || message::fields(frame.get(HEAD_BYTES..).unwrap_or_default()).find(|(field, _)| *field == b'R');
        if code != RESULT_CHANGED.0 || routine().is_none_or(|(_, routine)| routine != RESULT_CHANGED.1) {
            return;
        }
        let used = match self.owed.front().map(|owed| &owed.effect) {
            Some(Effect::Uses(statement, _)) => std::slice::from_ref(statement),
            Some(Effect::Query { names: Some(names), .. }) => names.uses(),
            _other => return,
        };
        let mut client = client;
        for statement in used {
            if let Some(held) = self.prepared.get_mut(&statement.id) {
                held.usable = Usable::Never;
            }
            if let Some(client) = client.as_deref_mut() {
                client.distrust(statement);
            }
        }
    }

    /// The server's own word for what a command was.
    fn read_tag(&mut self, body: &[u8], client: Option<&mut Client>) {
        // A command of the proxy's own changes nothing for the client.
        let client = client.filter(|_| self.owed.front().is_some_and(|owed| !owed.hidden));
        let tag = frame::cstr(body).map_or(body, |(tag, _)| tag);
        match tag {
            b"DISCARD ALL" => {
                self.prepared.clear();
                self.applied = Arc::default();
                self.unnamed = None;
                self.foreign_sequences = false;
                self.init_lost = self.init.is_some();
                self.forget_state();
                if let Some(client) = client {
                    client.discard_all();
                    self.pin_for_path(client);
                    self.settings_lost = self.init_lost || !client.settings().is_empty();
                }
            }
            b"DEALLOCATE ALL" => {
                self.prepared.clear();
                if let Some(client) = client {
                    client.deallocate_all();
                }
            }
            b"PREPARE" | b"DEALLOCATE" => {
                if let Some(client) = client
                    && self.complete_coming(tag, client).is_none()
                {
                    self.check_tag(tag, client);
                }
            }
            tag => {
                if let Some(client) = client {
                    if tag == b"ROLLBACK" {
                        self.state.fails();
                    } else if MIXING_TAGS.contains(&tag) {
                        self.state.mixes();
                    } else if DDL_TAGS.iter().any(|ddl| tag.starts_with(ddl)) && tells_redefinition(tag) {
                        self.functions.forget();
                    }
                    self.check_tag(tag, client);
                }
            }
        }
    }

    /// When tag and text disagree, the text was misread: the connection is held.
    fn check_tag(&mut self, tag: &[u8], client: &mut Client) {
        let Some((_, reason)) = TELLING_TAGS.iter().find(|(telling, _)| *telling == tag) else { return };
        if !client.pins.contains(*reason) && !client.pins.contains(PinReason::Unreadable) {
            self.pin(Pins::of(*reason).and(Pins::of(PinReason::Unreadable)), client);
            self.tally.disagreements += 1;
        }
    }

    fn error(
        &mut self,
        frame: &[u8],
        at: usize,
        mut client: Option<&mut Client>,
        out: &mut Out,
    ) -> Result<(), Violation> {
        let error = message::server_error(frame).ok_or(Violation::MalformedFrame(kind::ERROR_RESPONSE))?;
        self.forget_stale(&error.code, frame, client.as_deref_mut());
        if FAILED_BEHIND.contains(&error.code.as_str())
            && let Some(Effect::Query { names: Some(names), .. }) = self.owed.front_effect()
        {
            names.misses_one();
        }
        let front = self.owed.front();
        let hidden = front.is_some_and(|owed| owed.hidden);
        let asks = front.is_some_and(|owed| matches!(owed.effect, Effect::Asks | Effect::Answers));
        // A replay of settings, which nothing of the client's is sent behind.
        let replays = hidden && self.owed.is_hidden() && !asks;
        self.copy_in = false;
        // What was bound in this segment is skipped with it; what an earlier request did wrong does not concern it.
        if front.is_some_and(|owed| owed.kind.skips_to_sync() && owed.segment == self.segment) {
            self.bound.clear();
        }
        if error.is_fatal {
            self.ended = true;
            if replays {
                self.attach_failed(error);
            } else if client.is_some() {
                out.pass(at..at + frame.len());
            }
            return Ok(());
        }
        let Some(front) = front else { return Err(Violation::UnexpectedReply(kind::ERROR_RESPONSE)) };
        if matches!(front.effect, Effect::Fail) {
            return Ok(());
        }
        if asks {
            self.state.is_refused();
            self.functions.is_refused();
            self.skip_to_sync(client);
            return Ok(());
        }
        self.state.fails();
        let skips = front.kind.skips_to_sync();
        // A segment of the proxy's own, with the client's requests behind it (`guard_sequences`).
        let apart = hidden && skips && !replays && self.owed.hides_segment();
        let shows = client.is_some() && !(hidden && (replays || !skips || apart));
        if apart && matches!(front.effect, Effect::Prepared(..) | Effect::Prepares) {
            // The query behind it asks for what is not there.
            self.failed_ahead = Some(frame.to_vec());
        } else if apart {
            // In a failed transaction the client's request behind it fails as well; else it must not run.
            if error.code != "25P02" {
                return Err(Violation::UnexpectedReply(kind::ERROR_RESPONSE));
            }
        } else if let Effect::Refuse(why) = &front.effect {
            let why = ClientError::clone(why);
            if shows {
                out.put(&explain(why.clone()));
            }
            if matches!(why, ClientError::TransactionTooLong { .. }) {
                // Counted when it was rolled back.
                self.explanation = None;
            } else {
                self.refused.push_back(why);
            }
        } else if shows {
            let explained = self.explanation.take_if(|_| EXPLAINED.contains(&error.code.as_str()));
            let lost = (error.code == VALUE_UNKNOWN && self.sequences_lost).then(|| with_hint(frame, VALUE_LOST));
            let is_missing = FAILED_BEHIND.contains(&error.code.as_str());
            let ahead = self.failed_ahead.take_if(|_| front.kind == Kind::Query && is_missing);
            match explained.map(explain).or(lost).or(ahead).or_else(|| self.with_client_names(frame, client.as_deref()))
            {
                None => out.pass(at..at + frame.len()),
                Some(renamed) => out.put(&renamed),
            }
        } else if hidden {
            self.attach_failed(error);
        }
        if skips {
            self.skip_to_sync(client);
        }
        Ok(())
    }

    /// A request of the proxy's own failed. What fails first is the reason for the rest.
    fn attach_failed(&mut self, error: ServerError) {
        let is_init = self.owed.front().is_some_and(|owed| matches!(owed.effect, Effect::Initialized));
        let failure = if is_init { AttachFailure::InitQuery(error) } else { AttachFailure::Settings(error) };
        self.attach_failure.get_or_insert(failure);
    }

    /// What the server takes for success is a failure.
    fn init_failed(&mut self, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), message.to_owned());
        let error = ServerError { code, message, is_fatal: false, frame: Vec::new() };
        self.attach_failure.get_or_insert(AttachFailure::InitQuery(error));
    }

    /// An extended request failed: the server reads over everything behind it, up to the next Sync.
    fn skip_to_sync(&mut self, mut client: Option<&mut Client>) {
        let mut failed = true;
        while let Some(front) = self.owed.front() {
            if front.kind == Kind::Sync {
                return;
            }
            let Some(owed) = self.owed.pop() else { return };
            let unnames = matches!(owed.effect, Effect::DefineUnnamed { .. } | Effect::UndefineUnnamed);
            if unnames || (owed.hidden && matches!(owed.kind, Kind::Parse | Kind::Close)) {
                self.unnamed = None;
            }
            if let (Effect::DefineUnnamed { client: id, generation }, Some(client)) =
                (owed.effect, client.as_deref_mut())
                && client.id == id
            {
                client.unnamed.revoke(generation, failed);
            }
            failed = false;
        }
        self.skipping = true;
        self.unsynced = true;
    }

    /// The frame with our names of statements replaced by the client's own, if it holds any.
    fn with_client_names(&self, frame: &[u8], client: Option<&Client>) -> Option<Vec<u8>> {
        let client = client?;
        let in_front = self.owed.front().map(|owed| &owed.effect);
        if let Some(Effect::Query { names: Some(names), .. }) = in_front
            && let Some(written) = names.as_written(frame)
        {
            return Some(written);
        }
        let (ours, theirs) = if let Some(Effect::Taken(theirs)) = in_front {
            let stand_in = stand_in_for(theirs);
            let place = memchr::memmem::find(frame, &stand_in)?;
            (place..place + stand_in.len(), &**theirs)
        } else {
            let place = frame.windows(NAME_BYTES).position(|window| {
                window.strip_prefix(PREFIX).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            })?;
            let ours = place..place + NAME_BYTES;
            let name = frame.get(ours.clone())?;
            (ours, client.statements.client_name(name).or_else(|| self.owed.client_name(name))?)
        };
        let before = frame.get(HEAD_BYTES..ours.start)?;
        let behind = frame.get(ours.end..)?;
        let mut renamed = Vec::with_capacity(frame.len());
        frame::frame(&mut renamed, kind::ERROR_RESPONSE, |body| {
            for part in [before, theirs, behind] {
                body.extend_from_slice(part);
            }
        });
        Some(renamed)
    }
}
