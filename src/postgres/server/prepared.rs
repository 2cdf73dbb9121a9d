//! What the server has prepared: made ahead of its use, closed to make room; and what the proxy executes there itself.

use super::names::quoted;
use super::owed::{Effect, Kind, Presence};
use super::write::{write_bind, write_close_portal, write_execute, write_parse};
use super::{Server, Transaction, Usable};
use crate::postgres::client::Client;
use crate::postgres::frame;
use crate::postgres::message;
use crate::postgres::statement::{Form, Id, Statement};
use crate::protocol::{Out, PinReason, Pins};
use crate::sql::{self, Dialect};
use std::collections::HashSet;

/// What the proxy itself executes is prepared as this for a moment.
const OWN: &[u8] = b"sg_own";

impl Server {
    /// Sees to it that the server has the statement by the time it reads what is sent next.
    pub(super) fn ensure_prepared(&mut self, statement: &Statement, client: &mut Client, out: &mut Out) {
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
        let name = statement.id.name();
        match statement.form {
            Form::Parsed => {
                out.write(|out| write_parse(&name, &statement.body, out));
                self.owe_hidden(Kind::Parse, Effect::Prepared(statement.id, Form::Parsed));
            }
            Form::Sql => {
                let text = [b"PREPARE ", &*quoted(&name), &statement.body].concat();
                self.execute_hidden(&text, Effect::Prepared(statement.id, Form::Sql), out);
            }
        }
        self.unsynced = true;
    }

    /// The text of this body was classified as one dialect has it, and the server reads it in another.
    pub(super) fn misreads(&self, body: &[u8], classified: Dialect, read: Dialect) -> bool {
        classified != read && sql::depends_on_dialect(frame::cstr(body).map_or(body, |(text, _)| text))
    }

    /// Whatever may hide in a text must neither stay for the next client nor see what the last one left.
    pub(super) fn distrust_text(&mut self, client: &mut Client, out: &mut Out) {
        self.pin(Pins::of(PinReason::Unreadable), client);
        self.opens_settings();
        self.guard_sequences(true, out);
    }

    pub(super) fn presence(&self, id: Id) -> Presence {
        self.owed.presence(id, self.segment).unwrap_or_else(|| match self.prepared.get(&id).map(|held| held.usable) {
            None => Presence::No,
            Some(Usable::Always) => Presence::Yes,
            Some(Usable::While(number)) if self.settings_open && number == self.settings_closed => Presence::Yes,
            Some(Usable::While(_) | Usable::Never) => Presence::Unsure,
        })
    }

    pub(super) fn close_hidden(&mut self, id: Id, out: &mut Out) {
        out.write(|out| message::close_statement(&id.name(), out));
        self.owe_hidden(Kind::Close, Effect::Evicted(id));
        self.unsynced = true;
    }

    /// Closes the statements that were not used for longest, when one more would be too many. They go behind every use
    /// of them that has been sent, and ahead of every later one. Those in flight can't go yet: they go the next time.
    pub(super) fn make_room(&mut self, newcomer: Id, out: &mut Out) {
        let too_many = (self.prepared.len() + 1).saturating_sub(self.prepared_max + self.owed.evicting());
        // What is closed in a failed transaction can't come back in it.
        if too_many == 0 || self.transaction == Transaction::Failed {
            return;
        }
        let names = self.bound.iter().filter_map(|bound| bound.names.as_ref());
        let bound: HashSet<Id> = names.flat_map(|names| names.uses()).map(|used| used.id).collect();
        let mut victims: Vec<(u64, Id)> = self
            .prepared
            .iter()
            .filter(|(id, held)| **id != newcomer && held.last_used <= self.spared_from && !self.owed.touches(**id))
            .map(|(id, held)| (held.last_used, *id))
            .filter(|(_, id)| !bound.contains(id))
            .collect();
        if victims.len() > too_many {
            victims.select_nth_unstable(too_many - 1);
            victims.truncate(too_many);
        }
        victims.sort_unstable();
        for (_, id) in victims {
            self.close_hidden(id, out);
        }
    }

    /// A statement that can be deallocated in place of one that must stay.
    pub(super) fn prepare_stand_in(&mut self, name: &[u8], out: &mut Out) {
        out.write(|out| {
            message::close_statement(name, out);
            write_parse(name, b"\0\0\0", out);
        });
        self.owe_hidden(Kind::Close, Effect::Nothing);
        self.owe_hidden(Kind::Parse, Effect::Nothing);
        self.unsynced = true;
    }

    /// Executes a text of the proxy's own in the segment that is being sent.
    pub(super) fn execute_hidden(&mut self, text: &[u8], effect: Effect, out: &mut Out) {
        out.write(|out| {
            message::close_statement(OWN, out);
            write_parse(OWN, &[text, b"\0\0\0"].concat(), out);
            // A portal of its own: the client's unnamed one may be waiting for its Execute.
            write_bind(OWN, OWN, &[], out);
            write_execute(OWN, out);
            write_close_portal(OWN, out);
        });
        let prepares = matches!(effect, Effect::Prepared(..));
        let of_parts = || if prepares { Effect::Prepares } else { Effect::Nothing };
        let (parse, bind) = (of_parts(), of_parts());
        self.owe_hidden(Kind::Close, Effect::Nothing);
        self.owe_hidden(Kind::Parse, parse);
        self.owe_hidden(Kind::Bind, bind);
        self.owe_hidden(Kind::Execute, effect);
        self.owe_hidden(Kind::Close, Effect::Nothing);
    }

    pub(super) fn sync_hidden(&mut self, effect: Effect, out: &mut Out) {
        out.write(message::sync);
        self.owe_hidden(Kind::Sync, effect);
        self.begin_segment();
    }

    /// A statement that asks for a sequence's last value must not get one that another client drew. The value the
    /// client drew itself in the same transaction goes with it: the server then says that there is none.
    pub(super) fn guard_sequences(&mut self, asks: bool, out: &mut Out) {
        self.sequences_lost = asks && self.foreign_sequences;
        let was_synced = !self.unsynced;
        // In a failed transaction a single statement can't ask, nor discard; where it is not known yet whether it will have
        // ended by then, the server says so.
        let can_not = was_synced && self.transaction == Transaction::Failed;
        if !self.foreign_sequences || can_not {
            return;
        }
        self.execute_hidden(b"DISCARD SEQUENCES", Effect::SequencesDiscarded, out);
        if was_synced {
            self.sync_hidden(Effect::Nothing, out);
        }
    }
}
