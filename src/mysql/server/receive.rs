//! Server to client: whose each packet is, and how the client can read it.
//!
//! Rows pass by their length. What ends a result is read, for its status; it comes out as it came, unless the client can't
//! read it so: an older one wants EOF packets behind columns and rows, and one without session trackers must not see any. Where
//! a packet was added, those behind it are numbered anew.

use super::owed::{Effect, Kind, Owed, Preparing, Stage};
use super::{Client, File, Rest, Server};
use crate::mysql::frame::{self, HEAD_BYTES, Head, PIECE_BYTES, Reader, packet};
use crate::mysql::held::Held;
use crate::mysql::message::{self, OkPacket, mark, status};
use crate::mysql::statement::Statement;
use crate::mysql::unread::Unread;
use crate::protocol::{AttachFailure, ClientError, Out, PinReason, Pins, ServerError, Violation};
use crate::sql::mysql::settings::LAST_INSERT_ID;

/// Bytes of a packet that is read whole: the end of a result, with what trackers tell.
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes of the first packet of a result: a number of columns.
const COUNT_BYTES_MAX: usize = 9;

/// A packet that is read whole.
#[derive(Clone, Copy)]
struct Packet<'a> {
    /// Where in the input it begins.
    at: usize,
    head: Head,
    payload: &'a [u8],
}

/// What a packet is.
enum Role {
    /// It passes by its length.
    Row,
    /// How many columns follow.
    Count,
    /// All of the reply.
    Text,
    /// One of them.
    Column,
    /// The same of a prepared statement's parameters or columns, behind which an EOF may have to come at once.
    PreparedColumn,
    /// A statement has been prepared.
    Prepared,
    /// An OK, at the beginning of a result or in place of an EOF.
    Ok,
    Error,
    File,
}

impl Server {
    pub(super) fn receive_packets(
        &mut self,
        input: &[u8],
        mut client: Option<&mut Client>,
        out: &mut Out,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        loop {
            if self.lost {
                return Ok(input.len());
            }
            let rest = input.get(at..).unwrap_or_default();
            if self.receiving.left > 0 {
                let taken = self.receiving.left.min(rest.len());
                if self.receiving.passes {
                    out.pass(at..at + taken);
                }
                self.receiving.left -= taken;
                at += taken;
                if self.receiving.left > 0 {
                    return Ok(at);
                }
                continue;
            }
            let Some(head) = frame::head(rest) else { return Ok(at) };
            if self.receiving.follows {
                let passes = self.receiving.passes;
                self.begin_packet(at, head, passes, client.as_deref_mut(), out);
                at += HEAD_BYTES;
                continue;
            }
            let Some(owed) = self.owed.front() else { return self.unasked(rest, at, client.as_deref_mut(), out) };
            let first = rest.get(HEAD_BYTES).copied();
            if first.is_none() && head.len > 0 {
                return Ok(at);
            }
            let role = role(owed, first.unwrap_or_default(), head)?;
            let passes = !owed.hidden && !matches!(owed.effect, Effect::Refuse(_));
            if let (Role::Row | Role::Column, Effect::Asks(_) | Effect::Reads(_)) = (&role, &owed.effect)
                && head.len <= READ_BYTES_MAX
            {
                let Some(payload) = rest.get(HEAD_BYTES..head.bytes()) else { return Ok(at) };
                self.learn(&role, payload);
                at += head.bytes();
                continue;
            }
            if let Role::Row | Role::Column = role {
                if owed.stage == Stage::Described {
                    self.describe(client.as_deref_mut(), passes, out);
                }
                self.begin_packet(at, head, passes, client.as_deref_mut(), out);
                if matches!(role, Role::Column) {
                    self.column();
                }
                at += HEAD_BYTES;
                continue;
            }
            if head.len > READ_BYTES_MAX {
                return Err(Violation::FrameTooLong);
            }
            let Some(payload) = rest.get(HEAD_BYTES..head.bytes()) else { return Ok(at) };
            let owed = self.owed.len();
            self.take(role, Packet { at, head, payload }, client.as_deref_mut(), passes, out)?;
            at += head.bytes();
            if self.owed.len() < owed
                && let Some(client) = client.as_deref_mut()
            {
                client.sequence = 1;
            }
        }
    }

    /// Nothing is owed: a server that ends the connection says so, if it says anything. A client that can't do without it is told, as
    /// an answer to what it asks next.
    fn unasked(
        &mut self,
        rest: &[u8],
        at: usize,
        client: Option<&mut Client>,
        out: &mut Out,
    ) -> Result<usize, Violation> {
        let Some((_, payload)) = frame::whole(rest, READ_BYTES_MAX)? else { return Ok(at) };
        if payload.first() != Some(&mark::ERROR) {
            return Err(Violation::UnexpectedReply(payload.first().copied().unwrap_or_default()));
        }
        match client {
            Some(client) if client.is_bound() => {
                self.ended = true;
                out.write(|out| packet(out, &mut client.sequence, |out| out.extend_from_slice(payload)));
            }
            Some(_) => self.lost = true,
            None => self.ended = true,
        }
        Ok(at + rest.len())
    }

    /// The head passes, numbered as the client counts; its piece follows.
    fn begin_packet(&mut self, at: usize, head: Head, passes: bool, client: Option<&mut Client>, out: &mut Out) {
        self.receiving = Rest::of(head, passes);
        if !passes {
            return;
        }
        self.put_head(at, head, client, out);
    }

    fn put_head(&mut self, at: usize, head: Head, client: Option<&mut Client>, out: &mut Out) {
        let added = self.owed.front().map_or(0, |owed| owed.added);
        let sequence = head.sequence.wrapping_add(added);
        if added == 0 {
            out.pass(at..at + HEAD_BYTES);
        } else {
            out.write(|out| frame::put_head(out, Head { sequence, ..head }));
        }
        if let Some(client) = client {
            client.sequence = sequence.wrapping_add(1);
        }
    }

    /// A packet that was read passes as it came.
    fn pass(&mut self, Packet { at, head, .. }: Packet<'_>, client: Option<&mut Client>, out: &mut Out) {
        self.put_head(at, head, client, out);
        out.pass(at + HEAD_BYTES..at + head.bytes());
    }

    /// In place of a packet that was read the client gets this payload.
    fn put(&mut self, head: Head, client: Option<&mut Client>, out: &mut Out, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(owed) = self.owed.front() else { return };
        let mut sequence = head.sequence.wrapping_add(owed.added);
        out.write(|out| packet(out, &mut sequence, write));
        if let Some(client) = client {
            client.sequence = sequence;
        }
    }

    /// An EOF packet that the server has not sent comes behind columns or parameters, for a client that waits for it.
    fn add_eof(&mut self, client: Option<&mut Client>, passes: bool, status: u16, out: &mut Out) {
        let Some(client) = client.filter(|client| passes && !client.deprecates_eof()) else { return };
        let Some(owed) = self.owed.front_mut() else { return };
        owed.added = owed.added.wrapping_add(1);
        // The server has said nothing at this point; at the end it does.
        let eof = OkPacket { status: status & status::LASTING, ..OkPacket::default() };
        out.write(|out| packet(out, &mut client.sequence, |out| eof.write_eof(out)));
    }

    /// The first packet behind the columns is there, and it is a row.
    fn describe(&mut self, client: Option<&mut Client>, passes: bool, out: &mut Out) {
        self.add_eof(client, passes, self.status, out);
        if let Some(owed) = self.owed.front_mut() {
            owed.stage = Stage::Rows;
        }
    }

    /// A column has come. What comes behind the last one decides whether an EOF belongs there.
    fn column(&mut self) {
        if let Some(Owed { stage, .. }) = self.owed.front_mut()
            && let Stage::Columns(left) = stage
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                *stage = Stage::Described;
            }
        }
    }

    /// Part of an answer to the proxy has come.
    fn learn(&mut self, role: &Role, payload: &[u8]) {
        let is_column = matches!(role, Role::Column);
        if let Some(Owed { effect, stage, .. }) = self.owed.front_mut() {
            if !is_column {
                *stage = Stage::Rows;
            }
            if let Effect::Asks(question) = effect {
                if is_column { question.column(payload) } else { question.row(payload) }
            } else if let Effect::Reads(reading) = effect
                && !is_column
            {
                reading.row(payload);
            }
        }
        if is_column {
            self.column();
        }
    }

    /// A parameter, or a column, of a prepared statement has come.
    fn prepared_column(&mut self, client: Option<&mut Client>, passes: bool, out: &mut Out) {
        let Some(owed) = self.owed.front_mut() else { return };
        let Stage::Prepared { parameters, columns } = &mut owed.stage else { return };
        let block = if *parameters > 0 { parameters } else { columns };
        *block = block.saturating_sub(1);
        let is_block_end = *block == 0;
        let is_done = matches!(owed.stage, Stage::Prepared { parameters: 0, columns: 0 });
        if is_block_end {
            self.add_eof(client, passes, self.status, out);
        }
        if is_done {
            self.pop();
        }
    }

    /// A packet that is read.
    fn take(
        &mut self,
        role: Role,
        read: Packet<'_>,
        client: Option<&mut Client>,
        passes: bool,
        out: &mut Out,
    ) -> Result<(), Violation> {
        let malformed = || Violation::MalformedFrame(read.payload.first().copied().unwrap_or_default());
        match role {
            Role::Text => {
                if passes {
                    self.pass(read, client, out);
                }
                self.pop();
            }
            Role::Count => {
                let columns = Reader(read.payload).number().filter(|columns| *columns > 0).ok_or_else(malformed)?;
                if passes {
                    self.pass(read, client, out);
                }
                if let Some(owed) = self.owed.front_mut() {
                    owed.stage = Stage::Columns(columns);
                }
            }
            Role::PreparedColumn => {
                let mut client = client;
                if passes {
                    self.pass(read, client.as_deref_mut(), out);
                }
                self.prepared_column(client, passes, out);
            }
            Role::Prepared => {
                let mut client = client;
                let mut reader = Reader(read.payload.get(1..).unwrap_or_default());
                let number = reader.u32().ok_or_else(malformed)?;
                let columns = reader.u16().ok_or_else(malformed)?;
                let parameters = reader.u16().ok_or_else(malformed)?;
                let Some(owed) = self.owed.front_mut() else { return Ok(()) };
                owed.stage = Stage::Prepared { parameters, columns };
                let effect = std::mem::replace(&mut owed.effect, Effect::Nothing);
                let told = self.is_prepared(effect, number, parameters, client.as_deref_mut());
                if passes {
                    self.put(read.head, client, out, |out| {
                        out.push(mark::OK);
                        out.extend_from_slice(&told.to_le_bytes());
                        // As it came, behind the number.
                        out.extend_from_slice(read.payload.get(5..).unwrap_or_default());
                    });
                }
                if (parameters, columns) == (0, 0) {
                    self.pop();
                }
            }
            Role::Ok => {
                let ok = OkPacket::read(read.payload).ok_or_else(malformed)?;
                self.ok(ok, read, client, passes, out)?;
            }
            Role::Error if self.tells_progress && message::is_progress(read.payload) => {
                if passes {
                    self.pass(read, client, out);
                }
            }
            Role::Error => self.error(read, client, passes, out)?,
            Role::File => {
                let may = self
                    .owed
                    .front()
                    .is_some_and(|owed| matches!(owed.effect, Effect::Statement { loads_file: true, .. }) && passes);
                // Nobody asked for one: a server must not read its clients' files.
                if !may || self.owed.len() > 1 {
                    return Err(Violation::UnexpectedReply(mark::LOCAL_FILE));
                }
                self.pass(read, client, out);
                self.file = File::Passes;
            }
            Role::Row | Role::Column => return Err(malformed()),
        }
        Ok(())
    }

    /// An OK, or what stands in its place at the end of rows.
    fn ok(
        &mut self,
        ok: OkPacket<'_>,
        read: Packet<'_>,
        mut client: Option<&mut Client>,
        passes: bool,
        out: &mut Out,
    ) -> Result<(), Violation> {
        let Some(owed) = self.owed.front() else { return Ok(()) };
        let ends_rows = read.payload.first() == Some(&mark::EOF);
        let told = if ok.changes.is_empty() { None } else { Some(ok.untold()).filter(|(_, is_told)| *is_told) };
        let is_seen = owed.effect.is_seen();
        if let (Effect::Statement { sets: Some(sets), .. }, Some(client)) = (&owed.effect, client.as_deref_mut()) {
            client.track_state(sets);
        }
        if let (Some(_), false, Some(client)) = (&told, is_seen, client.as_deref_mut()) {
            self.has_changed_unseen(client);
        }
        // What its text says may not be all.
        self.is_soiled |= told.is_some() && self.owed.front().is_some_and(|owed| owed.effect.hides());
        let Some(owed) = self.owed.front() else { return Ok(()) };
        // Who has not asked for that does not get it.
        let told = told.filter(|_| client.as_deref().is_some_and(|client| !client.tracks_state));
        let is_whole = told.is_none();
        let ok = match &told {
            Some((changes, _)) if changes.is_empty() => {
                OkPacket { changes, status: ok.status & !status::STATE_CHANGED, ..ok }
            }
            Some((changes, _)) => OkPacket { changes, ..ok },
            None => ok,
        };
        if owed.stage == Stage::Described && ok.status & status::CURSOR_EXISTS == 0 {
            // A result without rows.
            self.status = ok.status;
            self.describe(client.as_deref_mut(), passes, out);
        }
        self.status = ok.status;
        self.in_doubt = false;
        self.must_roll_back = false;
        self.is_xa &= self.in_transaction();
        let has_more = ok.status & status::MORE_RESULTS != 0;
        if passes {
            let (tracks, deprecates) =
                client.as_deref().map_or((true, true), |client| (client.tracks(), client.deprecates_eof()));
            match ends_rows {
                true if !deprecates => self.put(read.head, client.as_deref_mut(), out, |out| ok.write_eof(out)),
                true if !tracks => {
                    self.put(read.head, client.as_deref_mut(), out, |out| ok.write(mark::EOF, false, out))
                }
                false if !tracks => {
                    self.put(read.head, client.as_deref_mut(), out, |out| ok.write(mark::OK, false, out))
                }
                _ if !is_whole => {
                    let mark = if ends_rows { mark::EOF } else { mark::OK };
                    self.put(read.head, client.as_deref_mut(), out, |out| ok.write(mark, true, out))
                }
                _ => self.pass(read, client.as_deref_mut(), out),
            }
            if let Some(client) = client.as_deref_mut()
                && ok.insert_id != 0
            {
                client.insert_id = ok.insert_id;
                self.insert_id = Some(ok.insert_id);
            }
        }
        if let Some(client) = client.as_deref_mut() {
            // Also what the proxy has asked on its own account: whether a transaction is still there.
            client.status = ok.status & status::LASTING;
        }
        if has_more {
            if let Some(owed) = self.owed.front_mut() {
                owed.stage = Stage::First;
            }
            return Ok(());
        }
        let Some(Owed { effect, added, .. }) = self.pop() else { return Ok(()) };
        match effect {
            Effect::Statement { pins, uses, releases, sets, hold, hides_last_value, .. } => {
                if let Some(sets) = sets {
                    self.has_set(&sets, client.as_deref_mut());
                }
                self.ended |= releases;
                if hides_last_value && (ends_rows || ok.insert_id == 0) {
                    self.insert_id = None;
                }
                if let Some(number) = uses.filter(|_| ok.status & status::CURSOR_EXISTS == 0) {
                    self.prepared.unload(number, true);
                }
                if let Some(client) = client {
                    client.pin(pins, b"");
                    if hides_last_value && (ends_rows || ok.insert_id == 0) && !client.has_opaque() {
                        client.may_have_set(vec![LAST_INSERT_ID.to_owned()]);
                    }
                    if ok.warnings > 0 {
                        client.has_last_values();
                    }
                    if let Some(hold) = hold {
                        self.is_done(*hold, client);
                    }
                    if uses.is_some() {
                        self.settle_statements(client);
                    }
                }
            }
            Effect::Fetches(_) if ok.status & status::LAST_ROW_SENT == 0 => {}
            Effect::Fetches(number) | Effect::Unloads(number) => {
                self.prepared.unload(number, true);
                if let Some(client) = client {
                    self.settle_statements(client);
                }
            }
            Effect::Applied(settings) => {
                self.tells_state = true;
                self.applied = settings;
                self.settings_lost = false;
            }
            Effect::Selected(settings) | Effect::AppliedAtBest(settings) => self.applied = settings,
            Effect::Reset => {
                self.is_as_new();
                if std::mem::take(&mut self.has_moved) {
                    self.is_back();
                }
            }
            Effect::ClientReset => {
                // `FOUND_ROWS()` outlives it.
                let is_foreign = self.foreign_values;
                // Settings alone are gone with it.
                self.has_moved &= !self.has_moved_unread;
                self.is_as_new();
                self.foreign_values = is_foreign;
                self.own_values = false;
                if let Some(client) = client {
                    // Whatever database there is stays, and what no reset undoes.
                    let moved = if self.has_moved { Pins::of(PinReason::Setting) } else { Pins::NONE };
                    client.pins = client.pins.lasting().and(moved);
                    client.unread = Unread::default();
                    client.charset_unknown = false;
                    client.unread.lose(client.pins);
                    client.held = Held::default();
                    client.tracks_state = false;
                    client.insert_id = 0;
                    client.statements.clear();
                    client.forget_settings();
                }
            }
            Effect::Guarded => self.foreign_values = false,
            Effect::Reads(reading) => self.has_read(*reading),
            Effect::Asks(question) => {
                if let Some(client) = client {
                    self.is_answered(*question, client);
                }
            }
            Effect::Fails(failed) => {
                if let Some(client) = client {
                    client.failed = failed;
                }
            }
            Effect::Refuse(why) => {
                self.count_refused(&why);
                let mut sequence = read.head.sequence.wrapping_add(added);
                out.write(|out| packet(out, &mut sequence, |out| message::client_error(&why, out)));
            }
            Effect::Nothing
            | Effect::BringsInsertId
            | Effect::Probes { .. }
            | Effect::Initialized
            | Effect::Prepares(_)
            | Effect::PreparesAnew { .. } => {}
        }
        Ok(())
    }

    /// The connection has nothing on it but its database.
    fn is_as_new(&mut self) {
        self.settings_lost = true;
        // What it has now is nobody's, and another client may have it already.
        self.foreign_values = true;
        self.insert_id = Some(0);
        self.prepared.clear();
        self.has_moved_unread = false;
        self.is_anchored = false;
        self.tells_state = false;
        self.is_soiled = false;
    }

    /// The client is told this. The server's own words are nobody's refusal, and a transaction that failed was counted when it did.
    pub(super) fn count_refused(&mut self, why: &ClientError) {
        if !matches!(
            why,
            ClientError::Server(_) | ClientError::TransactionTooLong { .. } | ClientError::TransactionLost
        ) {
            self.refused.push_back(why.clone());
        }
    }

    /// The server has prepared a statement under this number: what its client is told.
    fn is_prepared(&mut self, effect: Effect, number: u32, parameters: u16, client: Option<&mut Client>) -> u32 {
        match (effect, client) {
            (Effect::Prepares(preparing), Some(client)) => {
                let Preparing { id, under, text, intent, boundary } = *preparing;
                let is_shared = text.is_some() && !self.has_moved;
                self.is_anchored &= !is_shared;
                let own = client.statements.insert(Statement { id, text, parameters, intent, boundary, types: None });
                if is_shared {
                    self.prepared.share(id.under(under), number);
                } else {
                    self.prepared.keep(own, number);
                }
                return own;
            }
            (Effect::PreparesAnew { number: own, is_own: true, .. }, Some(_)) => self.prepared.keep(own, number),
            (Effect::PreparesAnew { id, is_own: false, .. }, _) => {
                self.is_anchored = false;
                self.prepared.share(id, number);
            }
            _ => self.prepared.drop_number(number),
        }
        number
    }

    fn error(
        &mut self,
        read: Packet<'_>,
        mut client: Option<&mut Client>,
        passes: bool,
        out: &mut Out,
    ) -> Result<(), Violation> {
        let error = message::server_error(read.payload).ok_or(Violation::MalformedFrame(mark::ERROR))?;
        let is_bound = client.as_deref().is_none_or(Client::is_bound);
        if error.is_fatal && !is_bound && self.owed.front().is_some_and(|owed| is_lost_with(&owed.effect, &error)) {
            self.lost = true;
            return Ok(());
        }
        self.ended |= error.is_fatal;
        if passes {
            let why = self.explanation.take_if(|_| error.code == INTERRUPTED);
            self.must_roll_back |= matches!(why, Some(ClientError::TransactionTooLong { .. }))
                && self.status & status::IN_TRANSACTION != 0;
            match why {
                Some(why) => self.put(read.head, client.as_deref_mut(), out, |out| message::client_error(&why, out)),
                None => self.pass(read, client.as_deref_mut(), out),
            }
        }
        self.drain_file();
        let was_open = self.status & (status::IN_TRANSACTION | status::AUTOCOMMIT) != status::AUTOCOMMIT;
        let Some(Owed { effect, .. }) = self.pop() else { return Ok(()) };
        match effect {
            Effect::Selected(_) if client.is_some() && NO_DATABASE.contains(&error.code.as_str()) => {
                client.into_iter().for_each(|client| client.lose_schema(error.clone()));
            }
            Effect::Applied(_) | Effect::Selected(_) | Effect::Reset => {
                self.attach_failed(AttachFailure::Settings(error));
            }
            Effect::AppliedAtBest(settings) => {
                self.applied = settings;
                self.in_doubt |= was_open;
            }
            Effect::Initialized => self.attach_failed(AttachFailure::InitQuery(error)),
            Effect::Asks(question) => {
                if let Some(client) = client {
                    self.is_answered(question.refused(), client);
                }
            }
            Effect::Reads(reading) => {
                self.in_doubt |= was_open;
                self.has_read(reading.refused(&error.code));
            }
            // Another client's would be taken for this one's.
            Effect::Guarded | Effect::BringsInsertId => return Err(Violation::UnexpectedReply(mark::ERROR)),
            Effect::Statement { is_doubtful, uses, hold, may_change, hides, hides_last_value, sets, .. } => {
                self.in_doubt |= was_open || is_doubtful;
                self.saw_changes = may_change;
                // It may have drawn one.
                self.insert_id = None;
                // MySQL tells with its next answer: if that is to a ping, it says whose change it was.
                let will_tell = !self.is_mariadb && self.in_doubt && !may_change && self.owed.is_empty();
                self.is_soiled |= hides && !will_tell && error.code != PARSE_ERROR;
                if let Some(sets) = sets {
                    // What it was interrupted in, or behind, may be done.
                    if STOPPED.contains(&error.code.as_str()) {
                        self.may_have_set(&sets);
                    }
                    if let Some(client) = client.as_deref() {
                        self.has_not_set(client);
                    }
                }
                client.as_deref_mut().into_iter().for_each(Client::has_last_values);
                if let Some(client) = client.as_deref_mut().filter(|client| hides_last_value && !client.has_opaque()) {
                    // What a procedure has done before it failed is done, and so are the first of several statements.
                    client.may_have_set(vec![LAST_INSERT_ID.to_owned()]);
                }
                if let (Some(hold), Some(client)) = (hold, client.as_deref_mut()) {
                    self.has_failed(&hold, &error.code, client);
                }
                if let Some(number) = uses {
                    self.prepared.unload(number, false);
                }
                if let Some(client) = client.filter(|_| uses.is_some()) {
                    self.settle_statements(client);
                }
            }
            Effect::Fetches(number) | Effect::Unloads(number) => {
                self.in_doubt |= was_open;
                self.prepared.unload(number, false);
                if let Some(client) = client {
                    self.settle_statements(client);
                }
            }
            Effect::Prepares(_) => {
                self.in_doubt |= was_open;
                self.prepared.refused(&error);
                if let Some(client) = client {
                    client.statements.failed();
                    self.settle_statements(client);
                }
            }
            Effect::PreparesAnew { number, .. } => {
                self.in_doubt |= was_open;
                self.prepared.fail(number, error);
            }
            // XA knows no such ROLLBACK.
            Effect::Fails(_) => self.in_doubt |= was_open,
            Effect::Nothing | Effect::Probes { .. } | Effect::ClientReset | Effect::Refuse(_) => {
                self.in_doubt |= was_open;
            }
        }
        Ok(())
    }

    /// What the client has still to send of a file is for nobody.
    fn drain_file(&mut self) {
        if self.file == File::Passes {
            self.file = File::Drops;
        }
    }

    pub(super) fn attach_failed(&mut self, failure: AttachFailure) {
        self.attach_failure.get_or_insert(failure);
    }

    /// The reply at the front has come to its end.
    fn pop(&mut self) -> Option<Owed> {
        let owed = self.owed.pop_front();
        self.tally.queries += u64::from(owed.as_ref().is_some_and(|owed| !owed.hidden));
        self.holding &= !self.owed.is_empty();
        if self.owed.is_empty() {
            // What was to be cancelled has ended by itself.
            self.explanation = None;
        }
        owed
    }
}

/// An error with which the connection ends takes with it what was asked for, rather than to be the answer to that. What the proxy
/// puts on a connection it can put on another one; and who must change the password must be told so.
fn is_lost_with(effect: &Effect, error: &ServerError) -> bool {
    let is_own = matches!(effect, Effect::Applied(_) | Effect::Selected(_) | Effect::Reset | Effect::Initialized);
    !is_own && error.code != PASSWORD_EXPIRED
}

/// Nothing of it was done: ER_PARSE_ERROR.
pub(super) const PARSE_ERROR: &str = "1064";
/// ER_MUST_CHANGE_PASSWORD
const PASSWORD_EXPIRED: &str = "1820";
/// The database was told to stop: ER_QUERY_INTERRUPTED.
const INTERRUPTED: &str = "1317";

/// There is no such database, or none for this user: ER_BAD_DB_ERROR, ER_DBACCESS_DENIED_ERROR. Another connection would be told the same.
const NO_DATABASE: [&str; 2] = ["1049", "1044"];

/// What else stops a statement that may be done by then: ER_QUERY_TIMEOUT, MariaDB's ER_STATEMENT_TIMEOUT.
pub(super) const STOPPED: [&str; 3] = [INTERRUPTED, "3024", "1969"];

/// What a packet is that begins so.
fn role(owed: &Owed, first: u8, head: Head) -> Result<Role, Violation> {
    let unexpected = Err(Violation::UnexpectedReply(first));
    // A row may begin like the end, but is then longer than any end
    // (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_eof_packet.html>).
    let ends = first == mark::EOF && head.len < PIECE_BYTES;
    Ok(match (owed.kind, owed.stage) {
        (_, _) if first == mark::ERROR && head.len < PIECE_BYTES => Role::Error,
        (Kind::Text, _) => Role::Text,
        (Kind::Prepare, Stage::First) if first == mark::OK => Role::Prepared,
        (Kind::Prepare, Stage::Prepared { .. }) => Role::PreparedColumn,
        (Kind::Query, Stage::First) if first == mark::OK => Role::Ok,
        (Kind::Query, Stage::First) if first == mark::LOCAL_FILE => Role::File,
        (Kind::Query, Stage::First) if head.len <= COUNT_BYTES_MAX => Role::Count,
        (Kind::Query, Stage::Columns(_)) => Role::Column,
        (Kind::Query, Stage::Described | Stage::Rows) | (Kind::Fetch | Kind::FieldList, Stage::Rows) => {
            if ends {
                Role::Ok
            } else {
                Role::Row
            }
        }
        (Kind::Simple, Stage::First) if first == mark::OK || ends => Role::Ok,
        (Kind::Query | Kind::Prepare | Kind::Simple | Kind::Fetch | Kind::FieldList, _) => return unexpected,
    })
}
