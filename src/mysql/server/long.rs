//! Texts that are too long to be kept: they are read as they pass, and known when the last of them has passed, which is before the server
//! can have done anything.
//!
//! What must come ahead of a text is sent ahead of any of these. They are refused for what is in their first part; what is found later
//! keeps its client: a `KILL` as well, which means the database's numbers there. What they leave is not told apart by name.

use super::hidden::Looks;
use super::owed::{Effect, Kind, Owed};
use super::send::{Fate, MOVING, UNCERTAIN};
use super::{Client, Server};
use crate::mysql::statement::Boundary;
use crate::protocol::{ClientError, Out, PinReason, Pins};
use crate::sql::mysql::long::Long;
use crate::sql::mysql::written::Written;

/// A text that is being sent.
#[derive(Debug)]
pub(super) struct LongText {
    reader: Long,
    /// At the end of its first piece so many bytes have not been read yet.
    unread: usize,
}

impl Server {
    /// Reads the first part of a long text. `None`: it can't be read.
    pub(super) fn read_first(&self, first: &[u8], client: &Client) -> Option<Long> {
        let mut reader = Long::new(self.dialect(client));
        reader.read(first);
        (!reader.is_unreadable()).then_some(reader)
    }

    /// The text is to be sent, with so many bytes of its first piece that have not been read.
    pub(super) fn begin_long(
        &mut self,
        reader: Long,
        unread: usize,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Fate, ClientError> {
        let so_far = reader.so_far();
        if so_far.has_kill {
            return Err(ClientError::Unsupported { feature: "KILL" });
        }
        let reasons = so_far.intent.pins_when_sent.and(so_far.intent.pins_when_done);
        if let Some(why) = client.gate.admit(reasons, client.pins, UNCERTAIN) {
            return Err(why);
        }
        // Whatever it does, and asks for.
        if !self.hides_from(&Looks::AtAnything, client, out) || !self.anchor(client, out) {
            return Ok(Fate::Waits);
        }
        self.guard_values(client, out);
        self.forget_routines();
        self.long = Some(Box::new(LongText { reader, unread }));
        let effect = Effect::Statement {
            pins: Pins::NONE,
            is_doubtful: true,
            boundary: Boundary::Maybe,
            loads_file: false,
            uses: None,
            releases: false,
            sets: None,
            hides_last_value: false,
            written: Written::ANY,
            may_change: true,
            makes_routines: false,
            hides: true,
            hold: None,
        };
        self.owe_client(Kind::Query, effect);
        Ok(Fate::Passes)
    }

    /// More of what is left of a piece passes.
    pub(super) fn read_long(&mut self, bytes: &[u8]) {
        let Some(long) = &mut self.long else { return };
        let left = self.sending.left;
        let skipped = left.saturating_sub(long.unread).min(bytes.len());
        long.reader.read(bytes.get(skipped..).unwrap_or_default());
        if left == bytes.len() {
            long.unread = usize::MAX;
        }
    }

    /// All of it has passed.
    pub(super) fn end_long(&mut self, client: &mut Client) {
        let Some(long) = self.long.take() else { return };
        let mut statement = long.reader.finish();
        // A server that has not waited for the end may have read anything.
        let is_answered = self.owed.is_empty();
        if statement.has_kill || is_answered {
            statement.may_be_anything();
        }
        let intent = statement.intent;
        let all = intent.pins_when_sent.and(intent.pins_when_done);
        self.has_moved |= !all.common(MOVING).is_empty();
        client.pin(if is_answered { all } else { intent.pins_when_sent }, b"");
        self.uses_values(intent, client);
        self.is_xa |= statement.has_xa;
        // It may have set what texts are written in.
        client.charset_unknown |= all.contains(PinReason::Setting);
        // What gives tables other names ends a transaction as well.
        let renames = statement.may_end_transaction && client.held.has_table();
        if renames {
            client.held.lose_tables();
        }
        let may_load = statement.is_load_local && client.sends_files();
        // Behind it comes a file.
        self.holding |= may_load && !is_answered;
        if let Some(Owed {
            effect:
                Effect::Statement {
                    pins,
                    is_doubtful,
                    boundary,
                    loads_file,
                    releases,
                    may_change,
                    hides_last_value,
                    makes_routines,
                    ..
                },
            ..
        }) = self.owed.back_mut()
        {
            *pins = intent.pins_when_done;
            *may_change = renames || !all.is_empty();
            *is_doubtful = *may_change || intent.draws_sequence || statement.may_begin();
            *hides_last_value = intent.hides_last_value;
            // What makes some commits.
            *makes_routines = statement.may_end_transaction;
            *boundary = Boundary::of(&statement);
            *loads_file = may_load;
            *releases = statement.releases();
        }
    }
}
