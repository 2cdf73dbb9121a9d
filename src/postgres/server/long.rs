//! Queries that are too long to be kept: they are read as they pass, and known when the last of them has passed, which is before
//! the server can say anything.
//!
//! Only the name in the first words is replaced (`EXECUTE a ('...')`); what else they say of prepared statements is not
//! followed: their client keeps its connection.

use super::functions::redefines;
use super::names::{Rewriting, quoted};
use super::owed::{Effect, lookup};
use super::send::{LONG_HEAD_BYTES, Taken, never_ours};
use super::{Body, Hold, Server, Transaction};
use crate::postgres::client::{Client, Prepared};
use crate::postgres::frame::{HEAD_BYTES, Head};
use crate::postgres::message::{self, from_client as kind};
use crate::postgres::statement::{PREFIX, name_key};
use crate::protocol::{Clears, ClientSide, Out, PinReason};
use crate::sql::lexer::{Kind, Lexer};
use crate::sql::long::Long;
use crate::sql::{self, Verb};
use std::ops::Range;

/// A query of which more is to come.
#[derive(Debug)]
pub(super) struct LongQuery {
    reader: Long,
    /// What its first words are about.
    named: Option<Rewriting>,
}

impl Server {
    pub(super) fn send_long_query(
        &mut self,
        head: Head,
        rest: &[u8],
        at: usize,
        client: &mut Client,
        out: &mut Out,
    ) -> Taken {
        let Some(start) = rest.get(HEAD_BYTES..LONG_HEAD_BYTES) else { return Taken::NeedMore };
        let first = self.first_name(start);
        let must_wait = first.is_some() || self.foreign_sequences && !self.unsynced;
        if must_wait && !self.owed.is_empty() && self.waits_for_replies(out) {
            return Taken::NeedMore;
        }
        if self.foreign_sequences && !self.unsynced && self.transaction == Transaction::Failed {
            // As in a query that is read before it is sent.
            out.write(|out| message::query(b"SELECT", out));
            self.begin_query(Effect::Nothing);
            self.sending = Body { left: head.len, passes: false };
            return Taken::Bytes(0);
        }
        let mut long = LongQuery { reader: Long::new(self.reads_in()), named: None };
        let replaced = first.and_then(|(verb, name)| {
            let (sent, named) = self.long_name(verb, start.get(name.clone())?, client)?;
            long.named = named;
            Some((name, sent))
        });
        if let Some(named) = &mut long.named {
            let full = named.refusal.take();
            let mut refusal =
                || self.refusal(named.intent, named.changes.as_deref(), b"", client.pins, &mut client.gate);
            if let Some(why) = full.or_else(&mut refusal) {
                self.refuse_query(why, out);
                self.sending = Body { left: head.len, passes: false };
                return Taken::Bytes(0);
            }
        }
        // It may ask.
        self.guard_sequences(true, out);
        client.let_go_of_last_values();
        self.opens_settings();
        if redefines(start, 1) {
            self.functions.forget();
        }
        if let Some(named) = &long.named {
            self.send_ahead_of_query(&named.ahead, client, out);
            // What is left of its first statement does no more than this does.
            long.reader.read(b"SELECT ");
        }
        let taken = match replaced {
            None => {
                out.pass(at..at + HEAD_BYTES);
                HEAD_BYTES
            }
            Some((name, sent)) => {
                let before = start.get(..name.start).unwrap_or_default();
                let length = head.len - 1 - name.len() + sent.len();
                out.write(|out| {
                    out.push(kind::QUERY);
                    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
                    out.extend_from_slice(before);
                    out.extend_from_slice(&sent);
                });
                HEAD_BYTES + name.end
            }
        };
        self.long = Some(Box::new(long));
        self.begin_query(Effect::Nothing);
        self.sending = Body { left: head.len - taken, passes: true };
        Taken::Bytes(taken)
    }

    /// What the text begins with, if it is about a prepared statement.
    fn first_name(&self, start: &[u8]) -> Option<(Verb, Range<usize>)> {
        let mut lexer = Lexer::new(start, self.reads_in());
        let first = lexer.next()?;
        let verb = match lexer.bytes(first) {
            word if word.eq_ignore_ascii_case(b"execute") => Verb::Execute,
            word if word.eq_ignore_ascii_case(b"prepare") => Verb::Prepare,
            _other => return None,
        };
        let name = lexer.next().filter(|name| matches!(name.kind, Kind::Word | Kind::Quoted))?;
        (name.end < start.len()).then_some((verb, name.start..name.end))
    }

    /// The name that is sent in place of this one, and what the statement that begins so does; `None`: as it is.
    fn long_name(&mut self, verb: Verb, written: &[u8], client: &mut Client) -> Option<(Vec<u8>, Option<Rewriting>)> {
        let name = sql::identifier_value(written).into_owned();
        let key = name_key(&name);
        let is_known = matches!(lookup(&self.owed, client, key), Some(Prepared::Anywhere(_)));
        if !is_known {
            return key.starts_with(PREFIX).then(|| (quoted(&never_ours(key)), None));
        }
        // As of the same statement without what makes it long.
        let (before, behind): (&[u8], &[u8]) = match verb {
            Verb::Execute => (b"EXECUTE ", b""),
            Verb::Prepare | Verb::Deallocate | Verb::DeallocateAll => (b"PREPARE ", b" AS SELECT"),
        };
        let short = [before, written, behind].concat();
        let rewriting = self.rewrite(&short, &sql::classify(&short, self.reads_in()), client);
        let sent = rewriting.text.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
        Some((sent?.to_vec(), Some(rewriting)))
    }

    /// More of a long query has passed.
    pub(super) fn read_long(&mut self, bytes: &[u8], client: &mut Client) {
        let Some(long) = &mut self.long else { return };
        long.reader.read(bytes);
        if self.sending.left > 0 {
            return;
        }
        let Some(long) = self.long.take() else { return };
        let LongQuery { reader, named } = *long;
        let statement = reader.finish();
        if statement.statements > 1 {
            // Any of them may have made another function of a name.
            self.functions.forget();
        }
        let (mut intent, mut names) = (statement.intent, None);
        self.call(statement.calls.iter(), client);
        if let Some(named) = named {
            intent = intent.and(named.intent);
            self.call(named.calls.iter().flat_map(|calls| calls.iter()), client);
            self.begin_changes(named.intent, named.changes.as_deref());
            names = Some(Box::new(named.names));
        }
        let all = intent.pins_when_sent.and(intent.pins_when_done);
        if all.contains(PinReason::OpaqueCode) || all.contains(PinReason::Setting) {
            self.state.may_change_any();
        }
        self.may_do(intent, b"", statement.statements);
        self.pin(intent.pins_when_sent, client);
        self.state.may_end(intent.may_end);
        self.count_sequences(intent, client);
        self.owed.amend_last(Effect::Query { pins: intent.pins_when_done, names, changes: None });
        if intent.clears != Clears::Nothing {
            self.hold = Hold::UntilAnswered;
        }
    }
}
