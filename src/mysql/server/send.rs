//! Client to server: what each command owes, and what it may leave on the connection.
//!
//! Texts are read up to a length, and classified; everything else passes by its length. A command that must not reach the
//! server is replaced by a ping, in whose place the client gets its error.

use super::owed::{Effect, Kind};
use super::{Client, File, OWED_MAX, Rest, Server};
use crate::mysql::frame::{self, HEAD_BYTES, Head, packet};
use crate::mysql::message::{command, status};
use crate::protocol::{ClientError, ClientSide, Intent, Out, PinReason, Pins, Violation};
use crate::sql::mysql::{self as sql, Command, Dialect, TEXT_BYTES_MAX};

/// Reasons to pin that may come to nothing: last values are kept until the client has asked, or has let go of them.
const UNCERTAIN: Pins = Pins::of(PinReason::Sequence);

/// What a statement pins for that may select another database.
const MOVING: Pins = Pins::of(PinReason::Setting)
    .and(Pins::of(PinReason::OpaqueCode))
    .and(Pins::of(PinReason::Unreadable))
    .and(Pins::of(PinReason::ServerProcess));

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
            if uses_statement(command) && self.owed.iter().any(|owed| owed.kind == Kind::Prepare) {
                // Which statement it is for, and so what it does, is known only once that has been answered.
                self.holding = true;
                break;
            }
            let read = HEAD_BYTES + head.len.min(TEXT_BYTES_MAX);
            let body = rest.get(HEAD_BYTES + 1..read.min(rest.len())).unwrap_or_default();
            if command == command::QUIT {
                client.ended = true;
                at += head.bytes();
                break;
            }
            match self.command(command, body, head, client, out) {
                Ok(()) => {
                    self.forward_packet(at, head, true, out);
                }
                Err(why) => {
                    // Nothing of it reaches the server.
                    self.sending = Rest { left: head.len, follows: !head.is_last(), passes: false };
                    out.write(|out| packet(out, &mut 0, |out| out.push(command::PING)));
                    self.tally.requests += 1;
                    self.owe(Kind::Simple, false, Effect::Refuse(Box::new(why)));
                }
            }
            at += HEAD_BYTES;
        }
        Ok(at.min(input.len()))
    }

    /// The head passes; the rest of its piece follows.
    fn forward_packet(&mut self, at: usize, head: Head, passes: bool, out: &mut Out) {
        if passes {
            out.pass(at..at + HEAD_BYTES);
        }
        self.sending = Rest { left: head.len, follows: !head.is_last(), passes };
    }

    /// Bytes taken of the rest of a packet.
    fn send_rest(&mut self, at: usize, rest: &[u8], out: &mut Out) -> usize {
        if self.sending.left > 0 {
            let taken = self.sending.left.min(rest.len());
            if self.sending.passes {
                out.pass(at..at + taken);
            }
            self.sending.left -= taken;
            return taken;
        }
        let Some(head) = frame::head(rest) else { return 0 };
        self.forward_packet(at, head, self.sending.passes, out);
        HEAD_BYTES
    }

    /// How texts are read.
    fn dialect(&self, client: &Client) -> Dialect {
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
    ) -> Result<(), ClientError> {
        client.is_busy_here |= self.in_transaction();
        let (kind, effect) = match command {
            command::QUERY => {
                let statement = self.read(body, head, client)?;
                let intent = statement.intent;
                self.begin(intent, client, out)?;
                self.has_named |= intent.pins_when_sent.contains(PinReason::PreparedStatement);
                let effect = Effect::Statement {
                    pins: intent.pins_when_done,
                    may_begin: statement.statements != 1
                        || statement.may_end_transaction
                        || matches!(statement.command, Command::Begin),
                    loads_file: statement.is_load_local && client.sends_files(),
                };
                (Kind::Query, effect)
            }
            command::STMT_PREPARE => {
                let statement = self.read(body, head, client)?;
                let mut intent = statement.intent;
                self.begin(pinning(PinReason::PreparedStatement), client, out)?;
                intent.pins_when_sent = intent.pins_when_sent.and(intent.pins_when_done);
                (Kind::Prepare, Effect::Prepares(intent))
            }
            command::STMT_EXECUTE => {
                let id = body.first_chunk().map(|id| u32::from_le_bytes(*id));
                // MariaDB's "the last one that was prepared": any of them.
                let intents = self.statements.iter().filter(|(own, _)| id == Some(**own) || id == Some(u32::MAX));
                let intent = intents.map(|(_, intent)| *intent).reduce(Intent::and);
                // Of a number that nobody knows: there should be no such statement.
                let intent = intent.unwrap_or_else(|| pinning(PinReason::OpaqueCode));
                self.begin(intent, client, out)?;
                (Kind::Query, Effect::Statement { pins: Pins::NONE, may_begin: true, loads_file: false })
            }
            command::INIT_DB => {
                self.begin(pinning(PinReason::Setting), client, out)?;
                (Kind::Simple, Effect::Nothing)
            }
            command::SET_OPTION => {
                // No reset is known to undo it.
                self.begin(pinning(PinReason::ServerProcess), client, out)?;
                (Kind::Simple, Effect::Nothing)
            }
            command::PING | command::STMT_RESET => (Kind::Simple, Effect::Nothing),
            command::RESET_CONNECTION => (Kind::Simple, Effect::ClientReset),
            command::STATISTICS => (Kind::Text, Effect::Nothing),
            command::FIELD_LIST => (Kind::FieldList, Effect::Nothing),
            command::STMT_FETCH => (Kind::Fetch, Effect::Nothing),
            // Neither is answered.
            command::STMT_SEND_LONG_DATA => return Ok(()),
            command::STMT_CLOSE => {
                if let Some(id) = body.first_chunk() {
                    self.statements.remove(&u32::from_le_bytes(*id));
                }
                self.unpin_statements(client);
                return Ok(());
            }
            command::CHANGE_USER => return Err(ClientError::Unsupported { feature: "COM_CHANGE_USER" }),
            command::BINLOG_DUMP | command::BINLOG_DUMP_GTID | command::REGISTER_REPLICA => {
                return Err(ClientError::Replication);
            }
            _ => return Err(ClientError::UnknownCommand),
        };
        self.tally.requests += 1;
        if matches!(effect, Effect::ClientReset) {
            self.holding = true;
        }
        self.owe(kind, false, effect);
        Ok(())
    }

    /// A client without prepared statements does not keep its connection for any.
    pub(super) fn unpin_statements(&self, client: &mut Client) {
        let prepares = self.owed.iter().any(|owed| owed.kind == Kind::Prepare);
        if self.statements.is_empty() && !self.has_named && !prepares {
            client.pins = client.pins.without(Pins::of(PinReason::PreparedStatement));
        }
    }

    /// What a text says.
    fn read(&self, text: &[u8], head: Head, client: &Client) -> Result<sql::Statement, ClientError> {
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

    /// A statement of this intent is being sent.
    fn begin(&mut self, intent: Intent, client: &mut Client, out: &mut Out) -> Result<(), ClientError> {
        let reasons = intent.pins_when_sent.and(intent.pins_when_done);
        if let Some(why) = client.gate.admit(reasons, client.pins, UNCERTAIN) {
            return Err(why);
        }
        self.has_moved |= !reasons.common(MOVING).is_empty();
        let may_ask = intent.asks_sequence || reasons.contains(PinReason::OpaqueCode);
        // Behind its own statement a client's values must stay as they are: they are made its own before that.
        if may_ask || reasons.contains(PinReason::Unreadable) || intent.draws_sequence && client.may_ask_here() {
            self.guard_values(client, out);
        }
        client.pins = client.pins.and(intent.pins_when_sent);
        client.asks_last_values |= intent.asks_sequence;
        self.own_values |= intent.draws_sequence;
        if client.asks_last_values && intent.draws_sequence {
            client.pins.add(PinReason::Sequence);
        } else {
            client.pins = client.pins.without(Pins::of(PinReason::Sequence));
        }
        Ok(())
    }
}

/// The command of the packet at the front of the input. `None`: not so much of it is here as must be to send it. A connection is
/// asked for only then: a client that sends a request byte by byte holds nobody up but itself.
pub(in crate::mysql) fn begins(head: Head, rest: &[u8]) -> Option<u8> {
    let command = rest.get(HEAD_BYTES).copied()?;
    let is_here = rest.len() >= HEAD_BYTES + head.len.min(TEXT_BYTES_MAX);
    (is_here || !is_read(command)).then_some(command)
}

/// Its text decides what becomes of it.
fn is_read(command: u8) -> bool {
    matches!(
        command,
        command::QUERY | command::STMT_PREPARE | command::STMT_EXECUTE | command::STMT_CLOSE | command::INIT_DB
    )
}

/// It is for a prepared statement, by its number.
fn uses_statement(command: u8) -> bool {
    matches!(
        command,
        command::STMT_EXECUTE
            | command::STMT_CLOSE
            | command::STMT_SEND_LONG_DATA
            | command::STMT_RESET
            | command::STMT_FETCH
    )
}

fn pinning(reason: PinReason) -> Intent {
    Intent { pins_when_sent: Pins::of(reason), ..Intent::default() }
}
