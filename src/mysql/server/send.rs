//! Client to server: what each command owes, and what it may leave on the connection.
//!
//! Texts are read and classified, those that are too long to be kept as they pass (`long.rs`); everything else passes by its
//! length. A command that must not reach the server is replaced by a ping, in whose place the client gets its error.

use super::owed::{Effect, Kind, Owed};
use super::{Client, File, OWED_MAX, Rest, Server};
use crate::mysql::attributes::{self, Unreadable};
use crate::mysql::client::killed_by;
use crate::mysql::failed::Next;
use crate::mysql::frame::{self, HEAD_BYTES, Head, packet};
use crate::mysql::message::{command, status};
use crate::mysql::statement::{Boundary, Meaning};
use crate::protocol::{ClientError, ClientSide, Intent, Out, PinReason, Pins, Violation};
use crate::sql::mysql::mentions::Mentions;
use crate::sql::mysql::settings::{self, Change, NAMES, SCHEMA, Value};
use crate::sql::mysql::written::Written;
use crate::sql::mysql::{self as sql, Dialect, KillKind, TEXT_BYTES_MAX, mentions};

/// Reasons to pin that may come to nothing: last values are kept until the client has asked, or has let go of them.
pub(super) const UNCERTAIN: Pins = Pins::of(PinReason::Sequence);

/// What a statement pins for that may select another database.
pub(super) const MOVING: Pins = Pins::of(PinReason::Setting)
    .and(Pins::of(PinReason::OpaqueCode))
    .and(Pins::of(PinReason::Unreadable))
    .and(Pins::of(PinReason::ServerProcess));

/// What becomes of a command.
pub(super) enum Fate {
    /// It passes as it came.
    Passes,
    /// It passes with the server's number for its statement.
    Renumbered(u32),
    /// It passes with other words at its front.
    Rewritten(Rewritten),
    /// Nothing of it reaches the server, and nobody answers it.
    Dropped,
    /// A ping goes in its place, and is answered in the same way.
    Pinged,
    /// It is sent when the server has answered what it was asked.
    Waits,
}

/// What is put into the execution of a statement.
pub(super) struct Rewritten {
    /// The server's.
    pub(super) number: u32,
    /// So many bytes of its body, behind the command, are left out.
    pub(super) taken: usize,
    /// In their place comes the number, and this.
    pub(super) front: Vec<u8>,
}

impl Server {
    pub(super) fn send_packets(
        &mut self,
        input: &[u8],
        client: &mut Client,
        out: &mut Out,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        while !out.is_full() {
            let rest = input.get(at..).unwrap_or_default();
            if !self.sending.is_none() {
                let taken = self.send_rest(at, rest, out);
                if taken == 0 {
                    break;
                }
                at += taken;
                if self.sending.is_none() {
                    self.end_long(client);
                }
                continue;
            }
            if self.file != File::None {
                let Some(head) = frame::head(rest) else { break };
                let passes = self.file == File::Passes;
                self.forward_packet(at, head, passes, out);
                at += HEAD_BYTES;
                // An empty packet is the file's end.
                if head.len == 0 {
                    self.file = File::None;
                }
                continue;
            }
            if self.holding || self.owed.len() >= OWED_MAX {
                break;
            }
            if self.settings_lost && !self.in_transaction() {
                // The client has had the connection made as new: what it began with comes back first.
                if self.owed.is_empty() {
                    out.write(|out| self.replay(client.settings(), out));
                } else {
                    self.holding = true;
                }
                break;
            }
            let Some(head) = frame::head(rest) else { break };
            if head.len == 0 || head.sequence != 0 {
                return Err(Violation::MalformedFrame(0));
            }
            let Some(command) = begins(head, rest) else { break };
            let read = HEAD_BYTES + head.len.min(TEXT_BYTES_MAX);
            let body = rest.get(HEAD_BYTES + 1..read.min(rest.len())).unwrap_or_default();
            if uses_statement(command) && self.awaits_statement(command, body, client) {
                self.holding = true;
                break;
            }
            if command == command::QUIT {
                client.ended = true;
                at += head.bytes();
                break;
            }
            out.write(|out| self.tidy(out));
            let owed = self.owed.len();
            let (block, fate) = match client.attributes(command, body, head.len - 1) {
                Ok(block) => {
                    // The same without its attributes, which say nothing of what it does.
                    let text = body.get(block..).unwrap_or_default();
                    (block, self.command(command, text, Head { len: head.len - block, ..head }, client, out))
                }
                Err(Unreadable::Malformed) => (0, Err(self.malformed())),
                Err(Unreadable::TooLong) => (0, Err(attributes::TOO_LONG)),
            };
            match fate {
                Ok(Fate::Waits) => break,
                Ok(Fate::Passes) if block > 0 && !self.has_attributes => {
                    at += self.forward_blanked(at, head, block, out);
                }
                Ok(Fate::Passes) => {
                    self.forward_packet(at, head, true, out);
                    at += HEAD_BYTES;
                }
                Ok(Fate::Renumbered(number)) => at += self.forward_renumbered(at, head, number, out),
                Ok(Fate::Rewritten(rewritten)) => at += self.forward_rewritten(head, command, &rewritten, out),
                Ok(Fate::Dropped) => {
                    self.forward_packet(at, head, false, out);
                    at += HEAD_BYTES;
                }
                Ok(Fate::Pinged) => {
                    self.ping_instead(head, Effect::Nothing, out);
                    at += HEAD_BYTES;
                }
                Err(why) => {
                    if let command::STMT_EXECUTE | command::STMT_BULK_EXECUTE = command {
                        self.leave_pieces(body, client);
                    }
                    let prepares = command == command::STMT_PREPARE;
                    self.ping_instead(head, Effect::Refuse { why: Box::new(why), prepares }, out);
                    at += HEAD_BYTES;
                }
            }
            self.is_sending_owed = self.owed.len() > owed && self.owed.back().is_some_and(|owed| !owed.hidden);
        }
        Ok(at.min(input.len()))
    }

    /// Which statement it is for, what that does and what is kept for it is known only once something else has been answered.
    fn awaits_statement(&self, command: u8, body: &[u8], client: &Client) -> bool {
        let number = statement_number(body).map(|number| client.statements.meant(number, self.is_mariadb));
        let settles = |effect: &Effect| command != command::STMT_CLOSE && number.is_some_and(|own| effect.settles(own));
        self.owed.iter().any(|owed| owed.effect.prepares() || settles(&owed.effect))
    }

    /// An execution is refused: as behind any that fails, nothing is kept for its statement.
    fn leave_pieces(&mut self, body: &[u8], client: &mut Client) {
        let Some(number) = statement_number(body) else { return };
        let number = client.statements.meant(number, self.is_mariadb);
        client.statements.take_lost_piece(number);
        self.prepared.forget_failure(number, self.has_moved);
        self.prepared.unload(number, false);
        self.settle_statements(client);
    }

    /// Nothing of the packet reaches the server. What the client is told is numbered behind its last piece.
    fn ping_instead(&mut self, head: Head, effect: Effect, out: &mut Out) {
        self.sending = Rest::of(head, false);
        if head.is_last() {
            self.ping(head.sequence, effect, out);
        } else {
            self.instead = Some(effect);
        }
    }

    /// In place of a packet, whose last piece had this number.
    fn ping(&mut self, last: u8, effect: Effect, out: &mut Out) {
        out.write(|out| packet(out, &mut 0, |out| out.push(command::PING)));
        self.tally.requests += 1;
        self.owed.push_back(Owed { added: last, ..Owed::new(Kind::Simple, false, effect) });
    }

    /// The packet passes with another number behind its command. Bytes taken.
    fn forward_renumbered(&mut self, at: usize, head: Head, number: u32, out: &mut Out) -> usize {
        const NUMBERED_BYTES: usize = 1 + size_of::<u32>();
        out.pass(at..at + HEAD_BYTES + 1);
        out.put(&number.to_le_bytes());
        self.sending = Rest { left: head.len - NUMBERED_BYTES, ..Rest::of(head, true) };
        HEAD_BYTES + NUMBERED_BYTES
    }

    /// A text passes with blanks in place of the attributes ahead of it, which this server does not know: so its pieces stay what they
    /// are, however long it is. Bytes taken.
    fn forward_blanked(&mut self, at: usize, head: Head, block: usize, out: &mut Out) -> usize {
        out.pass(at..at + HEAD_BYTES + 1);
        out.write(|out| out.resize(out.len() + block, b' '));
        self.sending = Rest { left: head.len - 1 - block, ..Rest::of(head, true) };
        HEAD_BYTES + 1 + block
    }

    /// An execution passes with another front, of a packet of a single piece. Bytes taken.
    fn forward_rewritten(&mut self, head: Head, command: u8, rewritten: &Rewritten, out: &mut Out) -> usize {
        let Rewritten { number, taken, front } = rewritten;
        out.write(|out| {
            frame::put_head(out, Head { len: head.len - taken + size_of::<u32>() + front.len(), ..head });
            out.push(command);
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(front);
        });
        self.sending = Rest { left: head.len - 1 - taken, ..Rest::of(head, true) };
        HEAD_BYTES + 1 + taken
    }

    /// The head passes; the rest of its piece follows.
    fn forward_packet(&mut self, at: usize, head: Head, passes: bool, out: &mut Out) {
        if passes {
            out.pass(at..at + HEAD_BYTES);
        }
        self.sending = Rest::of(head, passes);
    }

    /// Bytes taken of the rest of a packet.
    fn send_rest(&mut self, at: usize, rest: &[u8], out: &mut Out) -> usize {
        if self.sending.left > 0 {
            let taken = self.sending.left.min(rest.len());
            if self.sending.passes {
                out.pass(at..at + taken);
            }
            self.read_long(rest.get(..taken).unwrap_or_default());
            self.sending.left -= taken;
            return taken;
        }
        let Some(head) = frame::head(rest) else { return 0 };
        self.forward_packet(at, head, self.sending.passes, out);
        if head.is_last()
            && let Some(effect) = self.instead.take()
        {
            self.ping(head.sequence, effect, out);
        }
        HEAD_BYTES
    }

    /// How texts are read.
    pub(super) fn dialect(&self, client: &Client) -> Dialect {
        Dialect {
            no_backslash_escapes: self.status & status::NO_BACKSLASH_ESCAPES != 0,
            multibyte_unsafe: client.is_multibyte_unsafe(),
            utf8: client.is_utf8(),
            mariadb: self.is_mariadb,
            // What is under way may set another `sql_mode`.
            unsure: !self.owed.is_empty(),
            ansi_quotes: false,
        }
    }

    /// A command is to be sent: what it owes, and what it may leave. An error: it must not be sent.
    fn command(
        &mut self,
        command: u8,
        body: &[u8],
        head: Head,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<Fate, ClientError> {
        if let Some((kind, id)) = killed_by(command, body).filter(|_| head.is_last()) {
            return self.kill(kind, id, client);
        }
        // A ROLLBACK reaches the server all the same, as there is one.
        if let Next::Fails(why) = client.failed.next(command, body) {
            return Err(why);
        }
        if let Some(error) = client.without_schema().filter(|_| !may_select(command, body)) {
            return Err(ClientError::Server(error.clone()));
        }
        client.is_busy_here |= self.in_transaction();
        let (kind, effect) = match command {
            command::QUERY => {
                let is_whole = head.len == body.len() + 1;
                // Of a long one more may follow, of which nothing is kept.
                self.is_soiled |= !is_whole && mentions::has(body, settings::STATE_CHANGE);
                if let Some(reader) = (!is_whole).then(|| self.read_first(body, client)).flatten() {
                    return self.begin_long(reader, head.len - 1 - body.len(), client, out);
                }
                let statement = self.read(body, head, client)?;
                let plan = self.plan(
                    (body, Mentions::of(body)),
                    is_whole && statement.statements == 1,
                    statement.is_unknown,
                    Meaning::of(&statement),
                    client,
                )?;
                if self.awaits_answers(plan.has_xa) || !self.carry_out(&plan, body, client, out)? {
                    return Ok(Fate::Waits);
                }
                if plan.has_xa {
                    self.begin_xa(client, out);
                }
                let may_load = plan.is_load_local && client.sends_files();
                let may_change = plan.may_change();
                // What comes behind it is read, and shared, under what it sets or makes; or it is a file.
                self.holding |= plan.is_awaited() || may_load;
                let effect = Effect::Statement {
                    pins: plan.intent.pins_when_done.without(plan.told),
                    may_change,
                    makes_routines: plan.makes_routines,
                    hides_last_value: plan.intent.hides_last_value,
                    written: plan.written,
                    hides: plan.hides,
                    hold: plan.hold.map(Box::new),
                    is_doubtful: may_change || plan.intent.draws_sequence || statement.may_begin(),
                    boundary: Boundary::of(&statement),
                    loads_file: may_load,
                    uses: None,
                    sets: plan.sets.map(Vec::into_boxed_slice),
                    releases: statement.releases(),
                };
                (Kind::Query, effect)
            }
            command::INIT_DB => {
                let name = std::str::from_utf8(body).ok().filter(|_| settings::is_schema(body));
                let uses = name.map(|name| [self.uses(name)]).filter(|uses| self.follows(uses, client));
                let intent = if uses.is_some() { Intent::default() } else { pinning(PinReason::Setting) };
                if !self.begin(intent, None, client, out)? {
                    return Ok(Fate::Waits);
                }
                let sets = uses.map(|uses| uses.into());
                self.holding |= sets.is_some();
                let effect = Effect::Statement {
                    pins: Pins::NONE,
                    is_doubtful: false,
                    boundary: Boundary::None,
                    loads_file: false,
                    uses: None,
                    releases: false,
                    sets,
                    may_change: true,
                    makes_routines: false,
                    hides_last_value: false,
                    written: Written::default(),
                    hides: false,
                    hold: None,
                };
                (Kind::Simple, effect)
            }
            command::SET_OPTION => {
                // No reset is known to undo it.
                if !self.begin(pinning(PinReason::ServerProcess), None, client, out)? {
                    return Ok(Fate::Waits);
                }
                (Kind::Simple, Effect::Nothing)
            }
            command::PING => (Kind::Simple, Effect::Nothing),
            command::RESET_CONNECTION => (Kind::Simple, Effect::ClientReset),
            command::STATISTICS => (Kind::Text, Effect::Nothing),
            command::FIELD_LIST => (Kind::FieldList, Effect::Nothing),
            command::STMT_PREPARE => return self.prepare_statement(body, head, client, out),
            command::STMT_BULK_EXECUTE if !(client.sends_bulks() && self.takes_bulks) => {
                return Err(ClientError::UnknownCommand);
            }
            _ if uses_statement(command) => return self.use_statement(command, body, head, client, out),
            command::CHANGE_USER if self.owed.is_empty() => {
                client.logs_in_again = true;
                return Ok(Fate::Waits);
            }
            command::CHANGE_USER => {
                self.holding = true;
                return Ok(Fate::Waits);
            }
            command::BINLOG_DUMP | command::BINLOG_DUMP_GTID | command::REGISTER_REPLICA => {
                return Err(ClientError::Replication);
            }
            _ => return Err(ClientError::UnknownCommand),
        };
        if matches!(effect, Effect::ClientReset) {
            self.holding = true;
        }
        self.owe_client(kind, effect);
        Ok(Fate::Passes)
    }

    /// A statement of XA's is to be sent: what is answered ahead of it knows nothing of its transaction.
    pub(super) fn awaits_answers(&mut self, has_xa: bool) -> bool {
        let awaits = has_xa && !self.owed.is_empty();
        self.holding |= awaits;
        awaits
    }

    /// A statement of XA's is sent. Once its transaction has been ended, and before it is prepared, the server takes nothing else.
    pub(super) fn begin_xa(&mut self, client: &mut Client, out: &mut Out) {
        if !std::mem::replace(&mut self.is_xa, true) {
            self.guard_values(client, out);
        }
    }

    /// A database is selected: that of the login needs no word.
    pub(super) fn uses(&self, name: &str) -> Change {
        let is_own = name == self.options.database;
        (SCHEMA, if is_own { Value::Default } else { Value::Written(name.to_owned()) })
    }

    /// What is set can be had on another connection.
    pub(super) fn follows(&self, sets: &[Change], client: &Client) -> bool {
        let prepares = || self.owed.iter().any(|owed| matches!(owed.effect, Effect::Prepares(_)));
        sets.iter().all(|(name, value)| match (*name, value) {
            // To what `init_query` has made of it.
            (_, Value::Appended(_)) => self.init.is_none(),
            // The client's statements are written in what it has now.
            (NAMES, _) => client.statements.are_ascii() && !prepares() && !client.has_prepared_by_sql(),
            // They mean what they meant; and where there was no database, nothing brings that back.
            (SCHEMA, _) => {
                let has_none = client.statements.is_empty() && !prepares() && !client.has_prepared_by_sql();
                has_none && !self.options.database.is_empty()
            }
            _ => true,
        })
    }

    /// A `KILL` is for the proxy to do: numbers of connections are its own.
    fn kill(&mut self, kind: KillKind, id: u64, client: &mut Client) -> Result<Fate, ClientError> {
        if !self.owed.is_empty() {
            self.holding = true;
            return Ok(Fate::Waits);
        }
        client.kills(kind, id).map_or(Ok(Fate::Waits), |done| done.map(|()| Fate::Pinged))
    }

    /// The client is owed a reply.
    pub(super) fn owe_client(&mut self, kind: Kind, effect: Effect) {
        self.tally.requests += 1;
        self.owe(kind, false, effect);
    }

    /// What a text says.
    pub(super) fn read(&self, text: &[u8], head: Head, client: &Client) -> Result<sql::Statement, ClientError> {
        // The command's own byte counts as well.
        let is_whole = head.len == text.len() + 1;
        let read = |dialect| if is_whole { sql::classify(text, dialect) } else { sql::classify_prefix(text, dialect) };
        let dialect = self.dialect(client);
        let mut statement = read(dialect);
        if memchr::memchr(b'"', text).is_some() {
            // Whether the server's own `sql_mode` has ANSI_QUOTES it has not said.
            statement = statement.or(read(Dialect { ansi_quotes: true, ..dialect }));
        }
        if statement.has_kill {
            return Err(ClientError::Unsupported { feature: "KILL" });
        }
        Ok(statement)
    }

    /// A statement of this intent is being sent. False: not yet, the server was asked for something that must come first.
    /// It is of this text, which leaves things for these reasons that are told apart.
    pub(super) fn begin(
        &mut self,
        intent: Intent,
        text: Option<(Pins, &[u8])>,
        client: &mut Client,
        out: &mut Out,
    ) -> Result<bool, ClientError> {
        let reasons = intent.pins_when_sent.and(intent.pins_when_done);
        if let Some(why) = client.gate.admit(reasons, client.pins, UNCERTAIN) {
            return Err(why);
        }
        let told = text.map_or(Pins::NONE, |(told, _)| told);
        // What the next transaction is to be changes no names.
        let moving = reasons.without(told.common(Pins::of(PinReason::Setting))).common(MOVING);
        if !moving.is_empty() {
            if !self.anchor(client, out) {
                return Ok(false);
            }
            // What is no statement has to be known first, as what has to be asked for.
            let is_unsure = told.contains(PinReason::OpaqueCode);
            self.has_moved_unread = is_unsure && (self.has_moved_unread || !self.has_moved);
            self.has_moved = true;
        }
        let may_ask = intent.asks_sequence || reasons.contains(PinReason::OpaqueCode);
        // Behind its own statement a client's values must stay as they are: they are made its own before that.
        if may_ask
            || reasons.contains(PinReason::Unreadable)
            || intent.draws_sequence && client.may_ask_here()
            || client.asks_last_values
        {
            self.guard_values(client, out);
        } else if intent.draws_sequence && self.foreign_values {
            // A trigger may ask, of which no text says anything.
            out.write(|out| _ = self.bring_insert_id(client, out));
        }
        match text {
            Some((told, text)) => client.pin(intent.pins_when_sent.without(told), text),
            None => client.pin_for_command(intent.pins_when_sent),
        }
        self.uses_values(intent, client);
        Ok(true)
    }

    /// A statement is sent that may ask for last values, or make some.
    pub(super) fn uses_values(&mut self, intent: Intent, client: &mut Client) {
        client.asks_last_values |= intent.asks_sequence;
        self.own_values |= intent.draws_sequence;
        if client.asks_last_values && intent.draws_sequence {
            client.pins.add(PinReason::Sequence);
        } else {
            client.pins = client.pins.without(Pins::of(PinReason::Sequence));
        }
    }
}

/// The command of the packet at the front of the input. `None`: not so much of it is here as must be to send it. A connection is
/// asked for only then: a client that sends a request byte by byte holds nobody up but itself.
pub(in crate::mysql) fn begins(head: Head, rest: &[u8]) -> Option<u8> {
    let command = rest.get(HEAD_BYTES).copied()?;
    (rest.len() >= HEAD_BYTES + head.len.min(read_bytes(command))).then_some(command)
}

/// So much of a command decides what becomes of it.
fn read_bytes(command: u8) -> usize {
    match command {
        command::QUERY | command::STMT_PREPARE | command::INIT_DB => TEXT_BYTES_MAX,
        command::STMT_EXECUTE | command::STMT_BULK_EXECUTE => TEXT_BYTES_MAX,
        command::PROCESS_KILL => 1 + size_of::<u32>(),
        _ if uses_statement(command) => 1 + size_of::<u32>(),
        _ => 0,
    }
}

/// The number behind the command of what is for a prepared statement.
pub(in crate::mysql) fn statement_number(body: &[u8]) -> Option<u32> {
    body.first_chunk().map(|number| u32::from_le_bytes(*number))
}

/// It needs no database, or selects one.
fn may_select(command: u8, body: &[u8]) -> bool {
    match command {
        command::QUERY => settings::used(body).is_some(),
        command::INIT_DB | command::PING | command::RESET_CONNECTION | command::CHANGE_USER => true,
        // Nobody answers these.
        command::STMT_CLOSE | command::STMT_SEND_LONG_DATA => true,
        _ => false,
    }
}

/// It is for a prepared statement, by its number.
fn uses_statement(command: u8) -> bool {
    matches!(
        command,
        command::STMT_EXECUTE
            | command::STMT_BULK_EXECUTE
            | command::STMT_CLOSE
            | command::STMT_SEND_LONG_DATA
            | command::STMT_RESET
            | command::STMT_FETCH
    )
}

pub(super) fn pinning(reason: PinReason) -> Intent {
    Intent { pins_when_sent: Pins::of(reason), ..Intent::default() }
}
