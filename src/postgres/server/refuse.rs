//! What a target group does not let its clients be pinned for (`pin_on`, `pin_max_percent`).
//!
//! A statement is judged by its text, as it is sent or bound. One that is refused does not reach the server: something that is
//! sure to fail goes in its place, so that the transaction, the rest of a pipeline and ReadyForQuery are as behind any error;
//! and when its error comes, the client gets ours. What turns out to pin only once it is done is not refused: code (`DO`) that
//! leaves something behind, texts longer than are kept, a text that the server reads otherwise than it was read here.

use super::owed::{Effect, Kind};
use super::{Body, Server, Transaction};
use crate::postgres::frame;
use crate::postgres::message::{self, from_client as kind};
use crate::protocol::{ClientError, Fingerprint, Gate, Intent, Out, PinCause, PinReason, Pins};
use crate::sql::lexer::Lexer;
use crate::sql::settings::Changes;
use crate::sql::{self, Dialect};

/// No statement, so the server refuses it, in whatever transaction. It stands in the database's log.
const REFUSED_QUERY: &[u8] = b"refused by the proxy: pin_on, pin_max_percent";
/// Bytes of a text in which its first words stand.
const COMMIT_BYTES_MAX: usize = 4 << 10;
/// No client's own name begins so, and none of the proxy's ends so.
const REFUSED_STATEMENT: &[u8] = b"sg_refused_by_the_proxy";

/// What may come of a text without a pin, so that there is nothing to count before it is done: settings are followed, code
/// seldom leaves anything, and last values are kept for a moment.
const UNCERTAIN: Pins =
    Pins::of(PinReason::Setting).and(Pins::of(PinReason::OpaqueCode)).and(Pins::of(PinReason::Sequence));

impl Server {
    /// Why a statement of this text (or what follows it behind a zero byte), which does that to settings if that is known
    /// already, must not be sent for a client that has `pins`.
    pub(super) fn refusal(
        &self,
        intent: Intent,
        changes: Option<&Changes>,
        text: &[u8],
        pins: Pins,
        gate: &mut Gate,
    ) -> Option<ClientError> {
        let mut reasons = intent.pins_when_sent.and(intent.pins_when_done).without(intent.passing);
        if reasons.is_empty() {
            return None;
        }
        let dialect = self.reads_in();
        if gate.rejects(PinReason::Setting)
            && reasons.contains(PinReason::Setting)
            && !sets_unfollowed(changes, text, dialect)
        {
            reasons = reasons.without(Pins::of(PinReason::Setting));
        }
        let refusal = gate.admit(reasons, pins, UNCERTAIN);
        let new = reasons.without(pins);
        if refusal.is_none() && !new.is_empty() && !text.is_empty() {
            let fingerprint = Fingerprint(sql::fingerprint(text, dialect));
            gate.note(new, PinCause { fingerprint, command: sql::command(text, dialect) });
        }
        refusal
    }

    /// What such a text (or what follows it behind a zero byte) would commit the proxy has rolled back, and its client has not been told:
    /// by the tag alone, as behind any error, nobody would know.
    pub(super) fn commits_in_vain(&self, text: &[u8]) -> Option<ClientError> {
        let why = self.explanation.as_ref().filter(|why| matches!(why, ClientError::TransactionTooLong { .. }))?;
        if self.transaction != Transaction::Failed || !self.owed.runs_nothing() {
            return None;
        }
        let text = frame::cstr(text).map_or(text, |(text, _)| text);
        let text = text.get(..COMMIT_BYTES_MAX).unwrap_or(text);
        sql::transaction::boundaries(text, self.reads_in()).begins_with_commit.then(|| why.clone())
    }

    /// A simple query is not sent.
    pub(super) fn refuse_query(&mut self, why: ClientError, out: &mut Out) {
        out.write(|out| message::query(REFUSED_QUERY, out));
        self.begin_query(Effect::Refuse(Box::new(why)));
    }

    /// Nor is a function call.
    pub(super) fn refuse_function(&mut self, why: ClientError, bytes: usize, out: &mut Out) {
        // Of number 0 there is none.
        out.write(|out| frame::frame(out, kind::FUNCTION_CALL, |body| body.extend_from_slice(&[0; 10])));
        self.owe(Kind::Function, Effect::Refuse(Box::new(why)));
        self.sending = Body { left: bytes, passes: false };
    }

    /// Nor a Bind, or a Parse. What is left of its frame is dropped.
    pub(super) fn refuse_extended(&mut self, why: Box<ClientError>, left: usize, out: &mut Out) {
        // With formats for parameters that it does not bring it fails, also if somebody has made a statement of that name.
        out.write(|out| {
            frame::frame(out, kind::BIND, |body| {
                frame::put_cstr(body, b"");
                frame::put_cstr(body, REFUSED_STATEMENT);
                body.extend_from_slice(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
            });
        });
        self.owe(Kind::Bind, Effect::Refuse(why));
        self.unsynced = true;
        self.sending = Body { left, passes: false };
    }
}

/// The text changes settings that can't be followed from one connection to the next: of names that are made as it runs, or
/// who the session is.
fn sets_unfollowed(changes: Option<&Changes>, text: &[u8], dialect: Dialect) -> bool {
    let read = if changes.is_none() { sql::settings::changes(text, dialect) } else { Changes::default() };
    let changes = changes.unwrap_or(&read);
    let sets_user = || changes.list.iter().any(|change| change.name == "session_authorization");
    changes.has_others || sets_user() || sets_authorization(text, dialect)
}

/// `SET SESSION AUTHORIZATION`; neither `... DEFAULT` nor `RESET SESSION AUTHORIZATION`.
fn sets_authorization(text: &[u8], dialect: Dialect) -> bool {
    let mut lexer = Lexer::new(text, dialect);
    let (mut one_before, mut before): (&[u8], &[u8]) = (b"", b"");
    while let Some(token) = lexer.next() {
        let word = lexer.bytes(token);
        if word.eq_ignore_ascii_case(b"authorization") && !one_before.eq_ignore_ascii_case(b"reset") {
            let next = lexer.clone().next().map(|token| lexer.bytes(token)).unwrap_or_default();
            if !next.eq_ignore_ascii_case(b"default") {
                return true;
            }
        }
        (one_before, before) = (before, word);
    }
    false
}
