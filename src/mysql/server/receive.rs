//! Server to client: whose each packet is, and how the client can read it.
//!
//! Rows pass by their length. What ends a result is read, for its status; it comes out as it came, unless the client can't
//! read it so: an older one wants EOF packets behind columns and rows, and one without session trackers must not see any. Where
//! a packet was added, those behind it are numbered anew.

use super::owed::{Effect, Kind, Owed, Stage};
use super::{Client, File, Rest, Server};
use crate::mysql::frame::{self, HEAD_BYTES, Head, PIECE_BYTES, Reader, packet};
use crate::mysql::message::{self, OkPacket, mark, status};
use crate::protocol::{AttachFailure, Out, Violation};

/// Bytes of a packet that is read whole: the end of a result, with what trackers tell.
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes of the first packet of a result: a number of columns.
const COUNT_BYTES_MAX: usize = 9;

/// A packet that is read whole.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Where in the input it begins.
    at: usize,
    pub(super) head: Head,
    pub(super) payload: &'a [u8],
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
            let passes = !owed.hidden && !matches!(owed.effect, Effect::Refuse { .. });
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
    pub(super) fn pass(&mut self, Packet { at, head, .. }: Packet<'_>, client: Option<&mut Client>, out: &mut Out) {
        self.put_head(at, head, client, out);
        out.pass(at + HEAD_BYTES..at + head.bytes());
    }

    /// In place of a packet that was read the client gets this payload.
    pub(super) fn put(
        &mut self,
        head: Head,
        client: Option<&mut Client>,
        out: &mut Out,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
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
    pub(super) fn describe(&mut self, client: Option<&mut Client>, passes: bool, out: &mut Out) {
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

    /// What the client has still to send of a file is for nobody.
    pub(super) fn drain_file(&mut self) {
        if self.file == File::Passes {
            self.file = File::Drops;
        }
    }

    pub(super) fn attach_failed(&mut self, failure: AttachFailure) {
        self.attach_failure.get_or_insert(failure);
    }

    /// The reply at the front has come to its end.
    pub(super) fn pop(&mut self) -> Option<Owed> {
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
