//! Commands for prepared statements: each is sent with the server's number, once the server has its statement.

use super::owed::{Effect, Kind, Preparing};
use super::plan::Plan;
use super::prepared::{Load, Located};
use super::send::{Fate, Rewritten, pinning, statement_number};
use super::{Client, Server};
use crate::mysql::attributes;
use crate::mysql::execute::{Bulk, Execute, Front, Unwritable};
use crate::mysql::frame::{Head, PIECE_BYTES};
use crate::mysql::message::command;
use crate::mysql::statement::{Id, Meaning};
use crate::protocol::{ClientError, ClientSide, Out, PinReason, Pins};
use crate::sql::mysql::written::Written;
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
        let coming = self.owed.iter().filter_map(|owed| {
            let Effect::Prepares(preparing) = &owed.effect else { return None };
            Some(preparing.text.as_ref().map_or(0, |text| text.len()))
        });
        let (statements, bytes) = coming.fold((1, text.len()), |(count, bytes), more| (count + 1, bytes + more));
        if !client.statements.has_room(statements, bytes) {
            return Err(ClientError::too_many_statements());
        }
        let statement = self.read(text, head, client)?;
        let mut meaning = Meaning::of(&statement);
        let intent = &mut meaning.intent;
        intent.pins_when_sent = intent.pins_when_sent.and(intent.pins_when_done);
        let is_whole = head.len == text.len() + 1;
        if !is_whole && !self.begin(pinning(PinReason::LargeStatement), None, client, out)? {
            return Ok(Fate::Waits);
        }
        let text_kept = is_whole.then(|| Arc::from(text));
        let under = client.label();
        let preparing = Preparing { id: client.statement_id(text), under, text: text_kept, meaning };
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
        if command == command::STMT_EXECUTE {
            return self.execute(number, body, head, client, out);
        }
        let is_known = client.statements.find(number).is_some();
        match command {
            _ if !is_known && is_answered => Err(self.unknown_statement(number, command)),
            _ if !is_known => Ok(Fate::Dropped),
            command::STMT_BULK_EXECUTE => self.execute_bulk(number, body, head, client, out),
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
        let Some(statement) = client.statements.find(number) else {
            return Err(self.unknown_statement(number, command::STMT_EXECUTE));
        };
        let (mut meaning, parameters, was_lost) =
            (statement.meaning, statement.parameters, statement.lost_piece.is_some());
        if self.awaits_answers(meaning.has_xa) {
            return Ok(Fate::Waits);
        }
        let execute = Execute::read(body, parameters, client.has_attributes());
        let id = self.id_of(statement, execute.and_then(|execute| execute.types), client.label());
        if was_lost && let Some(why) = client.statements.take_lost_piece(number) {
            return Err(why);
        }
        if execute.is_none() && client.has_attributes() {
            let is_whole = head.len == body.len() + 1;
            return Err(if is_whole { self.malformed() } else { attributes::TOO_LONG });
        }
        // What is too short is the server's to refuse.
        let opens_cursor = execute.is_some_and(|execute| execute.opens_cursor);
        if !opens_cursor && self.prepared.leave_cursor(number) {
            self.settle_statements(client);
        }
        let Some(here) = self.find_here((number, id), command::STMT_EXECUTE, opens_cursor, client, out)? else {
            return Ok(Fate::Waits);
        };
        let Some(statement) = client.statements.find(number) else { return Ok(Fate::Dropped) };
        let known = statement.types();
        if meaning.written.has_parameters {
            // Pieces stand in no value's place.
            match execute.filter(|_| self.prepared.laden(number).is_none()) {
                Some(execute) => execute.put_numbers(body, parameters, known, &mut meaning.written),
                None => meaning.written.put_any(),
            }
        }
        let front = match execute {
            Some(execute) => execute.elsewhere(body, parameters, known, self.has_attributes),
            None => Ok(None),
        };
        let front = front.map_err(|why| match why {
            Unwritable::Malformed => self.malformed(),
            Unwritable::TypesMissing(has_values) => self.types_missing(command::STMT_EXECUTE, has_values),
        })?;
        let fate = rewritten(here, front, head)?;
        let text = statement.text.as_deref().unwrap_or_default();
        let mut plan = self.plan((text, statement.mentioned), !text.is_empty(), false, meaning, client)?;
        let text = if plan.may_change() { statement.text.clone() } else { None };
        let text = text.as_deref().unwrap_or_default();
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
        if let Some(Execute { types: Some(types), count, .. }) = execute
            && count >= usize::from(parameters)
        {
            // Attributes stand behind the parameters.
            client.statements.remember(number, types.iter().take(parameters.into()));
        }
        self.prepared.is_executed(number, id);
        if opens_cursor {
            self.prepared.load(number, id, Load::Cursor);
        }
        self.owe_execution(number, meaning, plan, client, out);
        Ok(fate)
    }

    /// The server's number for what is to be executed. `None`: the server has been asked to prepare it.
    fn find_here(
        &mut self,
        (number, id): (u32, Id),
        command: u8,
        cursor: bool,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Option<u32>, ClientError> {
        match self.locate(number, id, cursor, client, out) {
            Located::At(here) => Ok(Some(here)),
            Located::Asked => Ok(None),
            Located::Unknown => Err(self.unknown_statement(number, command)),
            Located::Fails(error) => {
                self.prepared.forget_failure(number, self.has_moved);
                self.settle_statements(client);
                Err(error)
            }
        }
    }

    /// Many sets of parameters at once.
    fn execute_bulk(
        &mut self,
        number: u32,
        body: &[u8],
        head: Head,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Fate, ClientError> {
        let Some(statement) = client.statements.find(number) else { return Ok(Fate::Dropped) };
        let (meaning, parameters, text) = (statement.meaning, statement.parameters, statement.text.clone());
        let mentioned = statement.mentioned;
        let id = self.id_of(statement, None, client.label());
        if self.awaits_answers(meaning.has_xa) {
            return Ok(Fate::Waits);
        }
        if let Some(why) = client.statements.take_lost_piece(number) {
            return Err(why);
        }
        let Some(here) = self.find_here((number, id), command::STMT_BULK_EXECUTE, false, client, out)? else {
            return Ok(Fate::Waits);
        };
        // What is too short is the server's to refuse.
        let bulk = Bulk::read(body, parameters);
        let known = client.statements.find(number).and_then(|statement| statement.types());
        if bulk.is_some_and(|bulk| bulk.types.is_none()) && known.is_none() && parameters > 0 {
            // Another client's may be there, or none.
            return Err(self.types_missing(command::STMT_BULK_EXECUTE, true));
        }
        let fate = rewritten(here, bulk.and_then(|bulk| bulk.elsewhere(known)), head)?;
        let text = text.as_deref().unwrap_or_default();
        let meaning = Meaning { written: Written::ANY, ..meaning };
        let plan = self.plan((text, mentioned), !text.is_empty(), false, meaning, client)?;
        if !self.carry_out(&plan, text, client, out)? {
            return Ok(Fate::Waits);
        }
        if let Some(types) = bulk.and_then(|bulk| bulk.types) {
            client.statements.remember(number, types.iter());
        }
        self.owe_execution(number, meaning, plan, client, out);
        Ok(fate)
    }

    /// The client is owed what comes of it.
    fn owe_execution(&mut self, number: u32, meaning: Meaning, plan: Plan, client: &mut Client, out: &mut Out) {
        let uses = self.prepared.laden(number).map(|_| number);
        if meaning.has_xa {
            self.begin_xa(client, out);
        }
        let loads_file = meaning.is_load_local && client.sends_files();
        self.holding |= plan.is_awaited() || loads_file;
        // What it does to a transaction is the server's to say.
        let effect = Effect::Statement {
            pins: Pins::NONE,
            is_doubtful: true,
            boundary: meaning.boundary,
            loads_file,
            uses,
            releases: false,
            may_change: plan.may_change(),
            makes_routines: plan.makes_routines,
            hides_last_value: plan.intent.hides_last_value,
            written: plan.written,
            hides: plan.hides,
            sets: plan.sets.map(Vec::into_boxed_slice),
            hold: plan.hold.map(Box::new),
        };
        self.owe_client(Kind::Query, effect);
    }

    /// A piece of a long parameter. Nobody answers it: what is wrong with it the EXECUTE is told.
    fn send_piece(&mut self, number: u32, client: &mut Client, out: &mut Out) -> Fate {
        let Some(statement) = client.statements.find(number).filter(|statement| statement.lost_piece.is_none()) else {
            return Fate::Dropped;
        };
        let id = self.id_of(statement, None, client.label());
        let here = match self.locate(number, id, false, client, out) {
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
        client.statements.take_lost_piece(number);
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

/// With the server's number, and with another front if it needs one.
fn rewritten(number: u32, front: Option<Front>, head: Head) -> Result<Fate, ClientError> {
    let Some(Front { taken, written }) = front else { return Ok(Fate::Renumbered(number)) };
    if !head.is_last() || head.len + written.len() >= PIECE_BYTES {
        return Err(ClientError::Unsupported { feature: "an EXECUTE of 16 MiB without types" });
    }
    Ok(Fate::Rewritten(Rewritten { number, taken, front: written }))
}
