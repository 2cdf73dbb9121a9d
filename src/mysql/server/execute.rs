//! Commands for prepared statements: each is sent with the server's number, once the server has its statement.

use super::owed::{Effect, Kind, Preparing};
use super::prepared::{Load, Located};
use super::send::{Fate, Typed, pinning, statement_number};
use super::{Client, Server};
use crate::mysql::frame::{Head, PIECE_BYTES};
use crate::mysql::message::command;
use crate::mysql::statement::{Boundary, Execute, Statements};
use crate::protocol::{ClientError, ClientSide, Out, PinReason, Pins};
use std::sync::Arc;

impl Server {
    /// The client prepares a statement. The server is always asked: it says what the text means now.
    pub(super) fn prepare_statement(
        &mut self,
        text: &[u8],
        head: Head,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Fate, ClientError> {
        let coming = self.owed.iter().filter(|owed| matches!(owed.effect, Effect::Prepares(_))).count();
        if !client.statements.has_room(coming + 1, text.len()) {
            return Err(Statements::are_full());
        }
        let statement = self.read(text, head, client)?;
        let (mut intent, boundary) = (statement.intent, Boundary::of(&statement));
        intent.pins_when_sent = intent.pins_when_sent.and(intent.pins_when_done);
        let is_whole = head.len == text.len() + 1;
        if !is_whole && !self.begin(pinning(PinReason::LargeStatement), None, client, out)? {
            return Ok(Fate::Waits);
        }
        let text_kept = is_whole.then(|| Arc::from(text));
        let under = client.label();
        let preparing = Preparing { id: client.statement_id(text), under, text: text_kept, intent, boundary };
        self.owe_client(Kind::Prepare, Effect::Prepares(Box::new(preparing)));
        Ok(Fate::Passes)
    }

    /// The client uses one that it has prepared.
    pub(super) fn use_statement(
        &mut self,
        command: u8,
        body: &[u8],
        head: Head,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Fate, ClientError> {
        let is_answered = !matches!(command, command::STMT_CLOSE | command::STMT_SEND_LONG_DATA);
        let Some(number) = statement_number(body) else {
            return if is_answered { Err(self.malformed()) } else { Ok(Fate::Dropped) };
        };
        let number = client.statements.meant(number, self.is_mariadb);
        let is_known = client.statements.find(number).is_some();
        match command {
            _ if !is_known && is_answered => Err(self.unknown_statement(number, command)),
            _ if !is_known => Ok(Fate::Dropped),
            command::STMT_EXECUTE => self.execute(number, body, head, client, out),
            command::STMT_SEND_LONG_DATA => Ok(self.send_piece(number, client, out)),
            command::STMT_CLOSE => {
                client.statements.remove(number);
                self.prepared.close(number);
                self.settle_statements(client);
                Ok(Fate::Dropped)
            }
            command::STMT_RESET => Ok(self.reset_statement(number, client)),
            // STMT_FETCH
            _ => match self.prepared.laden(number) {
                Some(here) => {
                    self.owe_client(Kind::Fetch, Effect::Fetches(number));
                    Ok(Fate::Renumbered(here))
                }
                None => Err(self.no_cursor(number)),
            },
        }
    }

    fn execute(
        &mut self,
        number: u32,
        body: &[u8],
        head: Head,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Fate, ClientError> {
        let Some(statement) = client.statements.find(number) else { return Ok(Fate::Dropped) };
        let (intent, parameters, text) = (statement.intent, statement.parameters, statement.text.clone());
        let (id, boundary) = (statement.id.under(client.label()), statement.boundary);
        // What is too short is the server's to refuse.
        let execute = Execute::read(body, parameters);
        let opens_cursor = execute.is_some_and(|execute| execute.opens_cursor);
        if !opens_cursor {
            self.prepared.leave_cursor(number);
            self.settle_statements(client);
        }
        let here = match self.locate(number, opens_cursor, client, out) {
            Located::At(here) => here,
            Located::Asked => return Ok(Fate::Waits),
            Located::Unknown => return Err(self.unknown_statement(number, command::STMT_EXECUTE)),
            Located::Fails(error) => {
                self.prepared.forget_failure(number, self.has_moved);
                self.settle_statements(client);
                return Err(error);
            }
        };
        let types = execute.and_then(|execute| execute.types);
        let fate = match execute {
            // Another client's may be there, or none.
            Some(Execute { types: None, front, .. }) if !front.is_empty() => {
                let has_values = body.len() > front.len() + 1;
                let known = client.statements.find(number).and_then(|statement| statement.types.clone());
                let types = known.ok_or_else(|| self.types_missing(has_values))?;
                if !head.is_last() || head.len + types.len() >= PIECE_BYTES {
                    return Err(ClientError::Unsupported { feature: "an EXECUTE of 16 MiB without types" });
                }
                Fate::Typed(Typed { number: here, front: front.len(), types })
            }
            _ => Fate::Renumbered(here),
        };
        let text = text.as_deref().unwrap_or_default();
        let mut plan = self.plan(text, !text.is_empty(), intent, client)?;
        if opens_cursor {
            plan.intent.pins_when_sent.add(PinReason::PreparedStatement);
            plan.told.add(PinReason::PreparedStatement);
        }
        if !self.carry_out(&plan, text, client, out)? {
            return Ok(Fate::Waits);
        }
        if opens_cursor {
            client.pin_for_command(Pins::of(PinReason::PreparedStatement));
        }
        if let (Some(types), Some(statement)) = (types, client.statements.find_mut(number))
            && statement.types.as_deref() != Some(types)
        {
            statement.types = Some(types.into());
        }
        if opens_cursor {
            self.prepared.load(number, id, Load::Cursor);
        }
        let uses = self.prepared.laden(number).map(|_| number);
        // What it does to a transaction is the server's to say.
        let effect = Effect::Statement {
            pins: Pins::NONE,
            may_begin: true,
            boundary,
            loads_file: false,
            uses,
            releases: false,
            sets: None,
            hold: plan.hold.map(Box::new),
        };
        self.owe_client(Kind::Query, effect);
        Ok(fate)
    }

    /// A piece of a long parameter. Nobody answers it: what is wrong with it the EXECUTE is told.
    fn send_piece(&mut self, number: u32, client: &mut Client, out: &mut Out) -> Fate {
        let Some(statement) = client.statements.find(number) else { return Fate::Dropped };
        let id = statement.id.under(client.label());
        let here = match self.locate(number, false, client, out) {
            Located::At(here) => Some(here),
            Located::Asked => return Fate::Waits,
            Located::Unknown => return Fate::Dropped,
            Located::Fails(_) => None,
        };
        let begun = match here {
            Some(_) if client.pins().contains(PinReason::PreparedStatement) => Ok(true),
            Some(_) => self.begin(pinning(PinReason::PreparedStatement), None, client, out),
            None => Ok(true),
        };
        match begun {
            Ok(true) => {}
            Ok(false) => return Fate::Waits,
            Err(why) => self.prepared.refuse(number, why),
        }
        self.prepared.load(number, id, Load::Pieces);
        self.settle_statements(client);
        match (here, self.prepared.laden(number)) {
            (Some(here), Some(_)) => Fate::Renumbered(here),
            _ => Fate::Dropped,
        }
    }

    /// What is kept for it is dropped, and so is an error that it was to get.
    fn reset_statement(&mut self, number: u32, client: &mut Client) -> Fate {
        self.prepared.forget_failure(number, self.has_moved);
        self.settle_statements(client);
        match self.prepared.laden(number) {
            Some(here) => {
                self.owe_client(Kind::Simple, Effect::Unloads(number));
                Fate::Renumbered(here)
            }
            None => Fate::Pinged,
        }
    }
}
