//! What the server has prepared, by the server's numbers, and whose it is.
//!
//! Equal statements of all clients share one of the server's, made when a client first needs it here. Three kinds are a client's own,
//! by its number: one that something is kept for on the server (a cursor, pieces of a long parameter), until that is gone; one
//! that was prepared where names and texts may mean something else than for others; and one that could not be prepared, whose error
//! its next use gets.

use super::owed::{Effect, Kind};
use super::{OWED_MAX, Server};
use crate::mysql::client::Client;
use crate::mysql::execute::Types;
use crate::mysql::frame::packet;
use crate::mysql::message::{self, command};
use crate::mysql::statement::{Id, Statement};
use crate::protocol::{ClientError, Out, PinReason, Pins, ServerError};
use std::collections::HashMap;

/// The server has as many prepared statements as it may have: ER_MAX_PREPARED_STMT_COUNT_REACHED.
const TOO_MANY: &str = "1461";

/// What the server has prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    shared: HashMap<Id, Held>,
    /// Of the client that holds the connection, by its numbers.
    own: HashMap<u32, Own>,
    shared_max: usize,
    uses: u64,
    /// To be told to the server ahead of what is sent next.
    leftovers: Vec<Leftover>,
    /// The statement for which room was made: a second time there is none.
    made_room_for: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    /// The server's.
    number: u32,
    last_used: u64,
}

#[derive(Debug)]
enum Own {
    Held {
        /// The server's.
        number: u32,
        /// Others may use it once nothing is kept for it.
        shared_as: Option<Id>,
        load: Option<Load>,
    },
    Failed {
        error: Box<ClientError>,
        /// Pieces of a parameter came for it, and are gone.
        lost_pieces: bool,
    },
}

/// What is kept for a statement on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Of a parameter.
    Pieces,
    Cursor,
}

#[derive(Debug, Clone, Copy)]
enum Leftover {
    Close(u32),
    Reset(u32),
}

/// Where a client's statement is.
#[derive(Debug)]
pub(super) enum Located {
    /// Here, under the server's number.
    At(u32),
    /// It can't be used: its client is to be told this.
    Fails(ClientError),
    /// The server was asked to prepare it.
    Asked,
    /// The client has no such statement.
    Unknown,
}

impl Prepared {
    pub(super) fn new(shared_max: usize) -> Self {
        Self {
            shared: HashMap::new(),
            own: HashMap::new(),
            shared_max,
            uses: 0,
            leftovers: Vec::new(),
            made_room_for: None,
        }
    }

    /// The server has forgotten everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.shared_max);
    }

    /// The server's number, to be used with a cursor or without one.
    fn find(&mut self, own: u32, id: Id, cursor: bool) -> Option<Result<u32, ClientError>> {
        match self.own.get(&own) {
            Some(Own::Held { number, .. }) => return Some(Ok(*number)),
            Some(Own::Failed { error, .. }) => return Some(Err((**error).clone())),
            None => {}
        }
        self.uses += 1;
        if !cursor && let Some(held) = self.shared.get_mut(&id) {
            held.last_used = self.uses;
            return Some(Ok(held.number));
        }
        let id = self.shared_id(id, cursor)?;
        let held = self.shared.get_mut(&id)?;
        held.last_used = self.uses;
        Some(Ok(held.number))
    }

    /// With a cursor rather one that had some; without, never. If there is none, one that has not been executed yet becomes what it is
    /// executed as.
    fn shared_id(&mut self, id: Id, cursor: bool) -> Option<Id> {
        let mut ids = [cursor.then_some(id.with_cursor()), Some(id)].into_iter().flatten();
        if let Some(here) = ids.find(|id| self.shared.contains_key(id)) {
            return Some(here);
        }
        let held = self.shared.remove(&id.untyped())?;
        self.shared.insert(id, held);
        Some(id)
    }

    /// For all clients.
    pub(super) fn share(&mut self, id: Id, number: u32) {
        self.made_room_for = None;
        self.uses += 1;
        if let Some(older) = self.shared.insert(id, Held { number, last_used: self.uses }) {
            self.leftovers.push(Leftover::Close(older.number));
        }
        while self.shared.len() > self.shared_max {
            let oldest = self.shared.iter().min_by_key(|(_, held)| held.last_used).map(|(id, _)| *id);
            let Some(held) = oldest.and_then(|id| self.shared.remove(&id)) else { break };
            self.leftovers.push(Leftover::Close(held.number));
        }
    }

    /// For the client that has the connection.
    pub(super) fn keep(&mut self, own: u32, number: u32) {
        self.own.insert(own, Own::Held { number, shared_as: None, load: None });
    }

    /// For nobody.
    pub(super) fn drop_number(&mut self, number: u32) {
        self.leftovers.push(Leftover::Close(number));
    }

    /// It could not be prepared anew.
    pub(super) fn fail(&mut self, own: u32, error: ServerError) {
        if error.code == TOO_MANY && self.make_room() && self.made_room_for.replace(own) != Some(own) {
            return;
        }
        self.refuse(own, ClientError::Server(error));
    }

    /// What comes next for it gets this.
    pub(super) fn refuse(&mut self, own: u32, error: ClientError) {
        self.made_room_for = None;
        let failed = Own::Failed { error: Box::new(error), lost_pieces: false };
        if let Some(Own::Held { number, .. }) = self.own.insert(own, failed) {
            self.drop_number(number);
        }
    }

    /// A client could not prepare it.
    pub(super) fn refused(&mut self, error: &ServerError) {
        if error.code == TOO_MANY {
            self.make_room();
        }
    }

    /// The older half of the shared ones goes. False: there are none.
    fn make_room(&mut self) -> bool {
        let mut used: Vec<u64> = self.shared.values().map(|held| held.last_used).collect();
        used.sort_unstable();
        let Some(newest) = used.get(used.len() / 2).copied() else { return false };
        let leftovers = &mut self.leftovers;
        self.shared.retain(|_, held| {
            let stays = held.last_used > newest;
            if !stays {
                leftovers.push(Leftover::Close(held.number));
            }
            stays
        });
        true
    }

    /// Something is kept for it on the server from here on.
    pub(super) fn load(&mut self, own: u32, id: Id, new: Load) {
        let with_cursor = |id: Id| if new == Load::Cursor { id.with_cursor() } else { id };
        match self.own.get_mut(&own) {
            Some(Own::Held { load, shared_as, .. }) => {
                *load = Some(new);
                *shared_as = shared_as.map(with_cursor);
            }
            Some(Own::Failed { lost_pieces, .. }) => *lost_pieces = true,
            None => {
                let taken = self.shared_id(id, new == Load::Cursor).and_then(|id| self.shared.remove(&id));
                if let Some(Held { number, .. }) = taken {
                    self.own.insert(own, Own::Held { number, shared_as: Some(with_cursor(id)), load: Some(new) });
                }
            }
        }
    }

    /// It is executed as this: what is the client's alone has been something else, or becomes it.
    pub(super) fn is_executed(&mut self, own: u32, id: Id) {
        if let Some(Own::Held { shared_as: shared_as @ Some(_), .. }) = self.own.get_mut(&own) {
            *shared_as = shared_as.filter(|known| known.is_untyped() || known.is_kin(id)).map(|known| known.kin(id));
        }
    }

    /// It is executed without a cursor: one that had some is of no use for that, if it can be prepared anew. True: it was such a one.
    pub(super) fn leave_cursor(&mut self, own: u32) -> bool {
        let had_some =
            matches!(self.own.get(&own), Some(Own::Held { shared_as: Some(_), load: Some(Load::Cursor), .. }));
        if had_some {
            self.unload(own, false);
        }
        had_some
    }

    /// The server's number, if something may be kept for it.
    pub(super) fn laden(&self, own: u32) -> Option<u32> {
        match self.own.get(&own) {
            Some(Own::Held { number, load: Some(_), .. }) => Some(*number),
            Some(Own::Held { .. } | Own::Failed { .. }) | None => None,
        }
    }

    /// Something is kept for one of the client's, or should have been.
    pub(super) fn is_any_laden(&self) -> bool {
        self.own.values().any(|own| match own {
            Own::Held { load, .. } => load.is_some(),
            Own::Failed { lost_pieces, .. } => *lost_pieces,
        })
    }

    /// Nothing is kept for it any longer; `is_sure`: the server has said so.
    pub(super) fn unload(&mut self, own: u32, is_sure: bool) {
        let Some(Own::Held { number, shared_as, load: Some(_) }) = self.own.get(&own) else { return };
        let (number, shared_as) = (*number, *shared_as);
        if !is_sure {
            self.leftovers.push(Leftover::Reset(number));
        }
        match shared_as {
            None => self.keep(own, number),
            Some(id) => {
                self.own.remove(&own);
                if self.shared.contains_key(&id) {
                    self.drop_number(number);
                } else {
                    self.share(id, number);
                }
            }
        }
    }

    /// Its client has been told, or wants it as new. `is_lasting`: it can't be prepared here any more.
    pub(super) fn forget_failure(&mut self, own: u32, is_lasting: bool) {
        match self.own.get_mut(&own) {
            Some(Own::Failed { lost_pieces, .. }) if is_lasting => *lost_pieces = false,
            Some(Own::Failed { .. }) => _ = self.own.remove(&own),
            Some(Own::Held { .. }) | None => {}
        }
    }

    /// What names and texts mean is as it was: what could not be prepared ahead of that may be now.
    pub(super) fn forget_failures(&mut self) {
        self.own.retain(|_, own| !matches!(own, Own::Failed { lost_pieces: false, .. }));
    }

    /// The client has closed it.
    pub(super) fn close(&mut self, own: u32) {
        if let Some(Own::Held { number, .. }) = self.own.remove(&own) {
            self.drop_number(number);
        }
    }

    /// Another client gets the connection.
    pub(super) fn disown(&mut self) {
        for (_, own) in std::mem::take(&mut self.own) {
            if let Own::Held { number, .. } = own {
                self.drop_number(number);
            }
        }
    }

    /// It is the client's alone from here on. False: it is not here.
    fn take(&mut self, own: u32, id: Id) -> bool {
        match self.own.get_mut(&own) {
            Some(Own::Held { shared_as, .. }) => *shared_as = None,
            Some(Own::Failed { .. }) => {}
            None => {
                let Some(held) = self.shared_id(id, false).and_then(|id| self.shared.remove(&id)) else { return false };
                self.keep(own, held.number);
            }
        }
        true
    }
}

impl Server {
    /// Where the client's statement is; asks the server to prepare it if it is not here.
    pub(super) fn locate(&mut self, number: u32, id: Id, cursor: bool, client: &Client, out: &mut Out) -> Located {
        match self.prepared.find(number, id, cursor) {
            Some(Ok(here)) => return Located::At(here),
            Some(Err(error)) => return Located::Fails(error),
            None => {}
        }
        match client.statements.find(number) {
            Some(statement) if self.prepare_anew((number, id.untyped()), statement, false, out) => Located::Asked,
            _ => Located::Unknown,
        }
    }

    /// What this statement is on the server when it is executed with these types, or with those that its client has sent before.
    pub(super) fn id_of(&self, statement: &Statement, types: Option<Types<'_>>, label: u64) -> Id {
        if self.is_mariadb {
            // It looks at the types of each execution.
            return statement.id.under(label);
        }
        let types = types.map(|types| types.iter().take(statement.parameters.into()));
        statement.executed_with(types).under(label)
    }

    /// False: its text was not kept.
    fn prepare_anew(&mut self, (number, id): (u32, Id), statement: &Statement, is_own: bool, out: &mut Out) -> bool {
        let Some(text) = &statement.text else { return false };
        out.write(|out| {
            packet(out, &mut 0, |out| {
                out.push(command::STMT_PREPARE);
                out.extend_from_slice(text);
            });
        });
        // Where texts and names mean something else, it is of no use to others.
        let is_own = is_own || self.has_moved;
        self.owe(Kind::Prepare, true, Effect::PreparesAnew { number, id, is_own });
        self.holding = true;
        true
    }

    /// What is sent next may change what names and texts mean: the client's statements must be here, as they were made, and are
    /// its alone from here on. False: the server was asked to prepare some; again, once it has.
    pub(super) fn anchor(&mut self, client: &Client, out: &mut Out) -> bool {
        if self.is_anchored {
            return true;
        }
        let (mut all, label) = (true, client.label());
        for (number, statement) in client.statements.iter() {
            let id = self.id_of(statement, None, label);
            if self.prepared.take(number, id) {
                continue;
            }
            if out.is_full() || self.owed.len() >= OWED_MAX {
                self.holding = true;
                return false;
            }
            all &= !self.prepare_anew((number, id.untyped()), statement, true, out);
        }
        self.is_anchored = all;
        all
    }

    /// Those of the client's statements that are here are its alone from here on.
    pub(super) fn take_statements(&mut self, client: &Client) {
        let label = client.label();
        for (number, statement) in client.statements.iter() {
            let id = self.id_of(statement, None, label);
            self.prepared.take(number, id);
        }
    }

    /// Tells the server what it has to close and to reset.
    pub(super) fn tidy(&mut self, out: &mut Vec<u8>) {
        for leftover in std::mem::take(&mut self.prepared.leftovers) {
            let (command, number) = match leftover {
                Leftover::Close(number) => (command::STMT_CLOSE, number),
                Leftover::Reset(number) => {
                    self.owe(Kind::Simple, true, Effect::Nothing);
                    (command::STMT_RESET, number)
                }
            };
            packet(out, &mut 0, |out| {
                out.push(command);
                out.extend_from_slice(&number.to_le_bytes());
            });
        }
    }

    /// The client keeps its connection for what is kept there for its statements, and for those that are nowhere else.
    pub(super) fn settle_statements(&self, client: &mut Client) {
        let is_coming = |effect: &Effect| matches!(effect, Effect::Prepares(preparing) if preparing.text.is_none());
        let mut pins = Pins::NONE;
        if client.held.reasons().contains(PinReason::PreparedStatement) || self.prepared.is_any_laden() {
            pins.add(PinReason::PreparedStatement);
        }
        if client.statements.has_unkept() || self.owed.iter().any(|owed| is_coming(&owed.effect)) {
            pins.add(PinReason::LargeStatement);
        }
        let both = Pins::of(PinReason::PreparedStatement).and(Pins::of(PinReason::LargeStatement));
        client.pins = client.pins.without(both).and(pins);
    }

    /// What the server says to a number that it does not know.
    pub(super) fn unknown_statement(&self, number: u32, command: u8) -> ClientError {
        let given_to = match command {
            _ if !self.is_mariadb => "mysql_stmt_precheck",
            command::STMT_EXECUTE | command::STMT_BULK_EXECUTE => "mysqld_stmt_execute",
            command::STMT_RESET => "mysqld_stmt_reset",
            _ => "mysqld_stmt_fetch",
        };
        message::as_server(1243, "HY000", format!("Unknown prepared statement handler ({number}) given to {given_to}"))
    }

    /// What the server says to a packet that is too short.
    pub(super) fn malformed(&self) -> ClientError {
        let stop = if self.is_mariadb { "" } else { "." };
        message::as_server(1835, "HY000", format!("Malformed communication packet{stop}"))
    }

    /// What the server says to who executes a statement and has never told it the types of its parameters.
    pub(super) fn types_missing(&self, command: u8, has_values: bool) -> ClientError {
        let to = if command == command::STMT_EXECUTE { "mysqld_stmt_execute" } else { "mysqld_stmt_bulk_execute" };
        if self.is_mariadb || has_values {
            message::as_server(1210, "HY000", format!("Incorrect arguments to {to}"))
        } else {
            self.malformed()
        }
    }

    /// What the server says to who fetches without a cursor.
    pub(super) fn no_cursor(&self, number: u32) -> ClientError {
        let stop = if self.is_mariadb { "" } else { "." };
        message::as_server(1421, "HY000", format!("The statement ({number}) has no open cursor{stop}"))
    }
}
