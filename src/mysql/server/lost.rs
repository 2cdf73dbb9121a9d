//! A connection that is gone under its client: what the client is told in the places of the answers that will not come.
//!
//! A transaction that was open, and that nothing on its way can have ended, has been rolled back by the server: the client is told
//! so, and is in a failed one until it ends it. Of everything else nobody knows what became of it. Nothing is sent again.

use super::owed::{Effect, Kind, Owed, Stage};
use super::{Client, File, Rest, Server};
use crate::mysql::dropping::Dropping;
use crate::mysql::failed::Failed;
use crate::mysql::frame::packet;
use crate::mysql::message::{self, OkPacket, status};
use crate::mysql::statement::Boundary;
use crate::protocol::{ClientError, Loss, ServerSide};

impl Server {
    pub(super) fn lose_connection(&mut self, client: &mut Client, has_more: bool, out: &mut Vec<u8>) -> Loss {
        let was_open = self.was_open();
        // Behind an error that may have begun a transaction nobody knows whether one is open: not the client either.
        let is_unsure = self.in_doubt && !was_open;
        // Among columns no client takes an error for what it is.
        let among_columns = self
            .owed
            .front()
            .is_some_and(|owed| !owed.hidden && matches!(owed.stage, Stage::Columns(_) | Stage::Prepared { .. }));
        if self.ended || self.is_midway() || among_columns || is_unsure || self.is_xa {
            return Loss::Session;
        }
        self.lost = true;
        if let Some(effect) = self.instead.take() {
            // A refusal, which comes behind the rest of what is refused.
            self.owe(Kind::Simple, false, effect);
            self.is_sending_owed = true;
        }
        let is_known = was_open && !self.owed.iter().any(|owed| owed.effect.boundary() != Boundary::None);
        let leaves_open = self.leaves_open(was_open, has_more);
        let mut knows = if self.must_roll_back { Failed::Told } else { Failed::Untold(ClientError::TransactionLost) };
        let is_told = self.answer_owed(is_known, &mut knows, client, out);
        client.status &= !(status::IN_TRANSACTION | status::IN_READ_ONLY_TRANSACTION);
        if is_known && !is_told && knows == (Failed::Untold(ClientError::TransactionLost)) {
            self.refused.push_back(ClientError::TransactionLost);
        }
        if is_known || leaves_open {
            client.failed = knows;
        }
        if was_open || is_told { Loss::Work } else { Loss::Nothing }
    }

    /// A transaction was open, or a statement was on its way that would have begun one for itself (`autocommit = 0`).
    fn was_open(&self) -> bool {
        let is_implicit = self.status & status::AUTOCOMMIT == 0;
        self.status & status::IN_TRANSACTION != 0 || is_implicit && self.owed.iter().any(is_statement)
    }

    /// The client takes a transaction to be open behind what was on its way.
    fn leaves_open(&self, was_open: bool, has_more: bool) -> bool {
        let mut boundaries = self.owed.iter().filter(|owed| !owed.hidden).map(|owed| owed.effect.boundary()).peekable();
        let mut is_open = was_open;
        while let Some(boundary) = boundaries.next() {
            is_open = match boundary {
                // Who waits for the answer to a BEGIN learns that there is none.
                Boundary::Begins => is_open || has_more || boundaries.peek().is_some(),
                Boundary::Ends => false,
                Boundary::None | Boundary::Maybe => is_open,
            }
        }
        is_open
    }

    /// Every reply that is owed becomes an error; `knows`: what the client has been told of its transaction. Whether there was one.
    fn answer_owed(&mut self, is_known: bool, knows: &mut Failed, client: &mut Client, out: &mut Vec<u8>) -> bool {
        let answers_rest = self.answers_rest();
        if self.owed.front().is_some_and(|owed| !owed.hidden && owed.stage == Stage::Described)
            && !client.deprecates_eof()
        {
            let status = self.status & status::LASTING;
            packet(out, &mut client.sequence, |out| OkPacket { status, ..OkPacket::default() }.write_eof(out));
        }
        let (mut owed, mut is_told) = (std::mem::take(&mut self.owed), false);
        while let Some(Owed { effect, hidden, .. }) = owed.pop_front() {
            if let Effect::Fails(failed) = effect {
                *knows = failed;
                continue;
            }
            if hidden {
                continue;
            }
            if effect.prepares() {
                client.statements.failed();
            }
            let why = match (effect, std::mem::replace(knows, Failed::Told)) {
                (Effect::Refuse { why, .. }, before) => {
                    *knows = before;
                    *why
                }
                _ if !is_known => ClientError::OutcomeUnknown,
                (_, Failed::Untold(why)) => why,
                (_, Failed::No | Failed::Told) => ClientError::TransactionRefused,
            };
            if !std::mem::replace(&mut is_told, true) {
                self.refused.push_back(why.clone());
            }
            let mut answer = Vec::new();
            message::client_error(&why, &mut answer);
            if owed.is_empty() && answers_rest {
                client.dropping = Some(Box::new(self.rest(Some(answer))));
            } else {
                packet(out, &mut client.sequence, |out| out.extend_from_slice(&answer));
            }
            client.sequence = 1;
        }
        if self.needs_client() && !answers_rest {
            client.dropping = Some(Box::new(self.rest(None)));
        }
        is_told
    }

    /// What the client has still to send of is answered with the reply that is owed last.
    fn answers_rest(&self) -> bool {
        match self.file {
            // A server may have answered before it had all of it.
            File::None => {
                let is_owed = self.is_sending_owed && self.owed.back().is_some_and(|owed| !owed.hidden);
                is_owed && !self.sending.is_none()
            }
            File::Passes => true,
            File::Drops => false,
        }
    }

    /// What the client has still to send of what it has begun: nobody wants it.
    fn rest(&self, answer: Option<Vec<u8>>) -> Dropping {
        let Rest { left, follows, sequence, .. } = self.sending;
        match self.file {
            File::None => Dropping::rest(left, follows, sequence, answer),
            File::Passes | File::Drops => Dropping::file(left, follows, answer),
        }
    }
}

fn is_statement(owed: &Owed) -> bool {
    matches!(owed.effect, Effect::Statement { .. })
}
