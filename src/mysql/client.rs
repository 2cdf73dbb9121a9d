//! One client after its login: what it is told, what keeps its connection, and what it says while it has none.
//!
//! What needs no server is answered here: a ping, a goodbye. A request that is refused is read over to its end, however long it
//! is, and then answered with one error.

use super::accept::{Started, told_status};
use super::attributes::{self, Unreadable};
use super::capabilities::{Capabilities, Extended};
use super::compress::{Algorithm, Compression};
use super::dropping::Dropping;
use super::failed::{Failed, Next};
use super::frame::{self, HEAD_BYTES, packet};
use super::held::Held;
use super::message::{self, OkPacket, command, mark};
use super::server::send::{begins, statement_number};
use super::statement::{Id, Statements};
use super::unread::Unread;
use crate::protocol::{
    ClientError, ClientSide, Codec, Detached, Gate, Intent, Kill, Killed, PinCause, PinReason, PinRules, Pins,
    ServerError, Settings, Violation,
};
use crate::sql::mysql::settings::{Change, NAMES, NO_SCHEMA, PREPARED, SCHEMA, STATE_CHANGE, Value, is_no_setting};
use crate::sql::mysql::{self as sql, KillKind, TEXT_BYTES_MAX};
use mysql_common::collations::{Collation, CollationId};
use std::sync::Arc;

/// A client.
#[derive(Debug)]
pub struct Client {
    id: u64,
    capabilities: Capabilities,
    pub(super) extended: Extended,
    /// What it began with.
    baseline: Arc<Settings>,
    /// Until its stream has been told.
    compression: Option<Algorithm>,
    settings: Arc<Settings>,
    /// Of those under which statements are read.
    label: u64,
    application: String,
    /// As it was told last.
    pub(super) status: u16,
    pub(super) pins: Pins,
    /// What some of them are for.
    pub(super) unread: Unread,
    pub(super) held: Held,
    /// It wants to be told whenever something of its session has changed.
    pub(super) tracks_state: bool,
    /// One of its settings on the connection that keeps it, and not of those that go with it, may say in what its texts are written.
    pub(super) charset_unknown: bool,
    pub(super) gate: Gate,
    pub(super) statements: Statements,
    statement_key: [u8; 16],
    pub(super) asks_last_values: bool,
    /// It keeps its connection for now, and may ask on it for what its own statements have left.
    pub(super) is_busy_here: bool,
    /// Its `LAST_INSERT_ID()`, as far as servers have told it.
    pub(super) insert_id: u64,
    /// Of the next packet in the reply that is under way, or of the first one in the next reply: what an idle client is told is the
    /// answer to what it asks next.
    pub(super) sequence: u8,
    pub(super) ended: bool,
    pub(super) dropping: Option<Box<Dropping>>,
    /// What the request at the head of its input is told.
    refusal: Option<Box<ClientError>>,
    pub(super) failed: Failed,
    /// As it was greeted.
    connection_id: u32,
    killing: Killing,
    lost_schema: Option<Box<ServerError>>,
    /// COM_CHANGE_USER is at the head of its input.
    pub(super) logs_in_again: bool,
}

/// The `KILL` at the head of a client's input.
#[derive(Debug, Default)]
enum Killing {
    /// There is none.
    #[default]
    Nothing,
    /// It is for the proxy to do.
    Wanted(Kill),
    /// The proxy does it.
    Asked,
    Done(Killed),
}

impl Client {
    /// A client that has just logged in.
    pub fn new(started: &Started) -> Self {
        Self {
            id: started.welcome.client_id,
            capabilities: started.capabilities,
            extended: started.extended,
            baseline: Arc::clone(&started.login.baseline),
            compression: started.compression,
            settings: Arc::clone(&started.login.baseline),
            label: started.login.baseline.label(),
            application: started.application.clone(),
            status: told_status(&started.welcome),
            pins: Pins::NONE,
            unread: Unread::default(),
            held: Held::default(),
            tracks_state: false,
            charset_unknown: false,
            gate: Gate::default(),
            statements: Statements::default(),
            statement_key: started.welcome.statement_key,
            asks_last_values: false,
            is_busy_here: false,
            insert_id: 0,
            sequence: 1,
            ended: false,
            dropping: None,
            refusal: None,
            failed: Failed::No,
            connection_id: started.welcome.cancel_key.process_id,
            killing: Killing::Nothing,
            logs_in_again: false,
            lost_schema: None,
        }
    }

    /// What becomes of the `KILL` at the head of its input. `None`: the proxy has yet to say so.
    pub(super) fn kills(&mut self, kind: KillKind, id: u64) -> Option<Result<(), ClientError>> {
        let unknown = || Some(Err(message::as_server(1094, "HY000", format!("Unknown thread id: {id}"))));
        match std::mem::take(&mut self.killing) {
            Killing::Done(Killed::Done) => Some(Ok(())),
            Killing::Done(Killed::NoSuchClient) => unknown(),
            Killing::Done(Killed::NotOwned) => {
                Some(Err(message::as_server(1095, "HY000", format!("You are not owner of thread {id}"))))
            }
            Killing::Nothing => {
                let Ok(process_id) = u32::try_from(id) else { return unknown() };
                let ends_session = kind != KillKind::Query;
                if process_id == self.connection_id && !ends_session {
                    // What it stops is itself.
                    return Some(Err(ClientError::Cancelled));
                }
                self.killing = Killing::Wanted(Kill { process_id, ends_session });
                None
            }
            killing @ (Killing::Wanted(_) | Killing::Asked) => {
                self.killing = killing;
                None
            }
        }
    }

    /// A statement has left something to ask for. Who asks keeps its connection up to its next statement.
    pub(super) fn has_last_values(&mut self) {
        if self.asks_last_values {
            self.pins.add(PinReason::Sequence);
        }
    }

    /// Its next question for last values may come on the same connection.
    pub(super) fn may_ask_here(&self) -> bool {
        self.asks_last_values || self.is_busy_here || !self.pins.is_empty()
    }

    /// It has set these: whether it wants to be told of changes may be among them.
    pub(super) fn track_state(&mut self, sets: &[Change]) {
        let is_on = |value: &str| ["1", "ON", "'ON'", "TRUE"].iter().any(|on| on.eq_ignore_ascii_case(value));
        for (_, value) in sets.iter().filter(|(name, _)| *name == STATE_CHANGE) {
            self.tracks_state = matches!(value, Value::Written(value) if is_on(value));
        }
    }

    /// It must keep its connection for these reasons, whatever it is that this text of its leaves there.
    pub(super) fn pin(&mut self, reasons: Pins, text: &[u8]) {
        self.pin_for_command(reasons);
        // Now there is code, whatever the mode is.
        self.held.asks_mode &= !reasons.contains(PinReason::OpaqueCode);
        self.held.lose(reasons, text);
    }

    /// The same for what is no text.
    pub(super) fn pin_for_command(&mut self, reasons: Pins) {
        self.pins = self.pins.and(reasons);
        self.unread.lose(reasons);
    }

    /// It keeps its connection for code that nobody can see, and not only until it is known whether that was a mistake.
    pub(super) fn is_kept_for_code(&self) -> bool {
        is_opaque(self.pins()) && !self.held.asks_mode
    }

    /// Code that nobody can see may have left something on its connection.
    pub(super) fn has_opaque(&self) -> bool {
        is_opaque(self.pins)
    }

    /// The text of a statement that SQL has prepared, if it goes along.
    pub(super) fn prepared_by_sql(&self, name: &str) -> Option<&str> {
        self.settings.value(&format!("{PREPARED}{name}"))
    }

    /// There is such a statement.
    pub(super) fn has_prepared_by_sql(&self) -> bool {
        self.settings.iter().any(|(name, _)| name.starts_with(PREPARED))
    }

    /// It may have set these, which the server is to be asked for.
    pub(super) fn may_have_set(&mut self, names: Vec<String>) {
        if !names.is_empty() {
            self.unread.add(names);
            self.pins = self.pins.and(self.unread.reasons());
        }
    }

    /// Something of it is on its connection and nowhere else, but for what it would let go of in a moment.
    pub(super) fn is_bound(&self) -> bool {
        let pins = self.lasting_pins();
        !pins.is_empty() && !pins.are_for_a_moment()
    }

    /// Without what is asked for once the connection is free.
    fn lasting_pins(&self) -> Pins {
        self.pins.without(Unread::OWN).and(self.unread.lasting()).without(self.gate.allowed())
    }

    /// It has set something.
    pub(super) fn change_settings(&mut self, settings: Settings) {
        self.label = if settings.iter().any(|(name, _)| is_no_setting(name)) {
            settings.edited(|values| values.retain(|name, _| !is_no_setting(name))).label()
        } else {
            settings.label()
        };
        self.settings = if settings == *self.baseline { Arc::clone(&self.baseline) } else { Arc::new(settings) };
    }

    /// Its database is gone, and with it what its statements mean. It can select another.
    pub(super) fn lose_schema(&mut self, error: ServerError) {
        self.lost_schema = Some(Box::new(error));
        self.change_settings(self.settings.edited(|values| _ = values.insert(SCHEMA.to_owned(), NO_SCHEMA.to_owned())));
        self.statements.clear();
    }

    /// It has lost its database: the server's words.
    pub(super) fn without_schema(&self) -> Option<&ServerError> {
        self.lost_schema.as_deref().filter(|_| self.settings.value(SCHEMA) == Some(NO_SCHEMA))
    }

    /// It has had its connection made as new, which keeps the database.
    pub(super) fn forget_settings(&mut self) {
        let schema = self.settings.value(SCHEMA).map(str::to_owned);
        let settings = self.baseline.edited(|values| {
            schema.into_iter().for_each(|schema| _ = values.insert(SCHEMA.to_owned(), schema));
        });
        self.change_settings(settings);
    }

    /// Equal statements of clients with equal labels are one to a server.
    pub(super) fn label(&self) -> u64 {
        self.label
    }

    /// What both sides can do.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The same of what is MariaDB's own.
    pub(super) fn extended(&self) -> Extended {
        self.extended
    }

    /// It puts attributes ahead of its texts, and between the parameters of its statements.
    pub(super) fn has_attributes(&self) -> bool {
        self.capabilities.contains(Capabilities::CLIENT_QUERY_ATTRIBUTES)
    }

    /// Bytes of the attributes ahead of a command's body, which is `len` bytes long.
    pub(super) fn attributes(&self, command: u8, body: &[u8], len: usize) -> Result<usize, Unreadable> {
        if command == command::QUERY && self.has_attributes() { attributes::block(body, len) } else { Ok(0) }
    }

    /// It may execute a statement with many sets of parameters at once.
    pub(super) fn sends_bulks(&self) -> bool {
        self.extended.contains(Extended::MARIADB_CLIENT_STMT_BULK_OPERATIONS)
    }

    /// It understands session trackers.
    pub(super) fn tracks(&self) -> bool {
        self.capabilities.contains(Capabilities::CLIENT_SESSION_TRACK)
    }

    /// It wants an OK packet at the end of rows, and nothing behind the columns.
    pub(super) fn deprecates_eof(&self) -> bool {
        self.capabilities.contains(Capabilities::CLIENT_DEPRECATE_EOF)
    }

    /// It may be asked for a file.
    pub(super) fn sends_files(&self) -> bool {
        self.capabilities.contains(Capabilities::CLIENT_LOCAL_FILES)
    }

    /// Its character set has characters whose second byte may be a quote or a backslash.
    pub(super) fn is_multibyte_unsafe(&self) -> bool {
        let sets = ["big5", "sjis", "gbk", "cp932", "gb18030", "default"];
        match self.charset() {
            _ if self.charset_unknown => true,
            // Of these, by the ids of their collations.
            Ok(1 | 84 | 13 | 88 | 28 | 87 | 95 | 96 | 248..=250) => true,
            // One that nobody knows is the server's default.
            Ok(id) => Collation::resolve(CollationId::from(id)).id() == CollationId::UNKNOWN_COLLATION_ID,
            Err(name) => sets.iter().any(|set| set.eq_ignore_ascii_case(name)),
        }
    }

    /// Its character set, by the number of a collation of its or by its name.
    fn charset(&self) -> Result<u16, &str> {
        let names = self.settings.value(NAMES).unwrap_or("0");
        names.parse().map_err(|_| names.split(' ').next().unwrap_or_default())
    }

    /// What a text of its is to a server that prepares it.
    pub(super) fn statement_id(&self, text: &[u8]) -> Id {
        Id::of(&self.statement_key, text)
    }

    /// Its character set is one of the forms of UTF-8.
    pub(super) fn is_utf8(&self) -> bool {
        match self.charset() {
            _ if self.charset_unknown => false,
            Ok(id) => matches!(id, 33 | 45 | 46 | 76 | 83 | 192..=215 | 223..=247 | 255),
            Err(name) => name.get(..4).is_some_and(|begins| begins.eq_ignore_ascii_case("utf8")),
        }
    }

    /// Reads over what is to be read over; bytes taken.
    fn drop_input(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(dropping) = &mut self.dropping else { return 0 };
        let (taken, is_done) = dropping.advance(input, out);
        if is_done {
            self.dropping = None;
        }
        taken
    }

    /// The request at the head of its input is read over, and answered with this, if anything.
    fn drop_request(&mut self, answer: Option<Vec<u8>>) {
        self.dropping = Some(Box::new(Dropping::packet(answer)));
    }

    /// The request at the head of its input is refused. The answer is numbered behind its last piece, so it is written when that has been
    /// dropped; what nobody answers has none.
    fn refuse_request(&mut self, command: u8, packet: &[u8], why: &ClientError) {
        let mut answer = Some(Vec::new());
        match (command, self.named_by(packet)) {
            (command::STMT_SEND_LONG_DATA, number) => {
                number.into_iter().for_each(|number| self.statements.lose_piece(number, why));
                answer = None;
            }
            (command::STMT_CLOSE, number) => {
                number.into_iter().for_each(|number| self.statements.remove(number));
                answer = None;
            }
            (command::STMT_PREPARE, _) => self.statements.failed(),
            (command::STMT_EXECUTE | command::STMT_BULK_EXECUTE | command::STMT_RESET, Some(number)) => {
                self.statements.take_lost_piece(number);
            }
            _ => {}
        }
        answer.iter_mut().for_each(|answer| message::client_error(why, answer));
        self.drop_request(answer);
    }

    /// The statement of its own that this packet names.
    fn named_by(&self, packet: &[u8]) -> Option<u32> {
        let number = statement_number(packet.get(HEAD_BYTES + 1..).unwrap_or_default())?;
        // Only drivers of servers that know it say so.
        let number = self.statements.meant(number, true);
        self.statements.find(number).map(|_| number)
    }

    /// Why an execution of the statement that this packet names, or more of its pieces, can't be had.
    fn lost_piece(&self, packet: &[u8]) -> Option<ClientError> {
        let statement = self.statements.find(self.named_by(packet)?)?;
        statement.lost_piece.as_deref().cloned()
    }

    fn ok(&self) -> Vec<u8> {
        let mut answer = Vec::new();
        OkPacket { status: self.status, ..OkPacket::default() }.write(mark::OK, self.tracks(), &mut answer);
        answer
    }
}

/// Whom a command is to stop, if that is what it is for.
pub(super) fn killed_by(command: u8, body: &[u8]) -> Option<(KillKind, u64)> {
    match command {
        command::QUERY => sql::kill(body),
        command::PROCESS_KILL => Some((KillKind::Connection, statement_number(body)?.into())),
        _ => None,
    }
}

/// Nobody can see all that is done for these reasons.
pub(super) fn is_opaque(pins: Pins) -> bool {
    [PinReason::OpaqueCode, PinReason::Unreadable].into_iter().any(|reason| pins.contains(reason))
}

impl ClientSide for Client {
    fn detached(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Detached), Violation> {
        let mut at = 0;
        loop {
            at += self.drop_input(input.get(at..).unwrap_or_default(), out);
            if self.ended {
                return Ok((at, Detached::Ended));
            }
            let rest = input.get(at..).unwrap_or_default();
            let Some(head) = frame::head(rest).filter(|_| self.dropping.is_none()) else {
                return Ok((at, Detached::NeedInput));
            };
            if head.len == 0 || head.sequence != 0 {
                return Err(Violation::MalformedFrame(0));
            }
            let Some(command) = begins(head, rest) else { return Ok((at, Detached::NeedInput)) };
            if let Some(why) = self.refusal.take() {
                self.refuse_request(command, rest, &why);
                continue;
            }
            // It must not stand in line behind what it is to stop. As on a connection, so much is looked at as must be here.
            let read = (HEAD_BYTES + head.len.min(TEXT_BYTES_MAX)).min(rest.len());
            let body = rest.get(HEAD_BYTES + 1..read).unwrap_or_default();
            // Attributes that can't be read are told so on a connection.
            let block = self.attributes(command, body, head.len - 1).unwrap_or_default();
            let text = body.get(block..).unwrap_or_default();
            if let Some((kind, id)) = killed_by(command, text).filter(|_| head.is_last()) {
                match self.kills(kind, id) {
                    None => return Ok((at, Detached::NeedInput)),
                    Some(Ok(())) => self.drop_request(Some(self.ok())),
                    Some(Err(why)) => self.refuse_request(command, rest, &why),
                }
                continue;
            }
            match self.failed.next(command, text) {
                Next::Passes => {}
                Next::Ends => {
                    self.drop_request(Some(self.ok()));
                    continue;
                }
                Next::Fails(why) => {
                    self.refuse_request(command, rest, &why);
                    continue;
                }
            }
            match command {
                command::QUIT => {
                    self.ended = true;
                    return Ok((at, Detached::Ended));
                }
                command::CHANGE_USER => {
                    self.logs_in_again = true;
                    return Ok((at, Detached::NeedInput));
                }
                command::PING => self.drop_request(Some(self.ok())),
                command::STMT_CLOSE => {
                    self.named_by(rest).into_iter().for_each(|number| self.statements.remove(number));
                    self.drop_request(None);
                }
                command::STMT_RESET if let Some(number) = self.named_by(rest) => {
                    // Nothing is kept for it on any connection.
                    self.statements.take_lost_piece(number);
                    self.drop_request(Some(self.ok()));
                }
                command::STMT_SEND_LONG_DATA | command::STMT_EXECUTE | command::STMT_BULK_EXECUTE
                    if let Some(why) = self.lost_piece(rest) =>
                {
                    self.refuse_request(command, rest, &why);
                }
                _ => return Ok((at, Detached::NeedServer(Intent::default()))),
            }
        }
    }

    /// What that means depends on what it is: that is seen where it is read.
    fn refuse(&mut self, error: &ClientError, _: &mut Vec<u8>) {
        self.refusal = Some(Box::new(error.clone()));
    }

    fn end(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        packet(out, &mut self.sequence, |out| message::client_error(error, out));
        self.ended = true;
    }

    fn set_pin_rules(&mut self, rules: PinRules) {
        self.gate = Gate::new(rules);
    }

    fn pins(&self) -> Pins {
        self.pins.without(self.gate.allowed())
    }

    fn leaves(&self) -> Pins {
        self.pins.common(self.gate.allowed())
    }

    fn settle_pins(&mut self) {
        self.gate.settle(self.counted_pins());
    }

    fn let_go(&mut self) {
        self.is_busy_here = false;
        self.pins = Pins::NONE;
        self.unread = Unread::default();
        self.held = Held::default();
        self.charset_unknown = false;
        self.gate.settle(Pins::NONE);
    }

    fn pin_cause(&self, reason: PinReason) -> Option<PinCause> {
        self.gate.cause(reason)
    }

    fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn application(&self) -> &str {
        &self.application
    }

    fn asks_last_values(&self) -> bool {
        self.asks_last_values
    }

    fn expect_to_ask(&mut self) {
        self.asks_last_values = true;
    }

    fn is_kept_for_a_moment(&self) -> bool {
        let is_asked = self.unread.unknown().is_empty() && self.held.is_only_asked();
        let asked = if is_asked { self.unread.reasons().and(self.held.reasons()) } else { Pins::NONE };
        self.pins().without(asked).are_for_a_moment()
    }

    fn counted_pins(&self) -> Pins {
        if self.is_kept_for_a_moment() { Pins::of(PinReason::Sequence) } else { self.lasting_pins() }
    }

    fn loses_connection(&mut self) {
        if !self.is_bound() {
            self.unread.forget_last_value();
            self.pins = self.pins.without(Unread::OWN).and(self.unread.reasons());
            self.let_go_of_last_values();
        }
    }

    fn let_go_of_last_values(&mut self) {
        self.pins = self.pins.without(Pins::of(PinReason::Sequence));
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn cancel_secret(&self) -> &[u8] {
        &[]
    }

    fn codec(&mut self) -> Option<Box<dyn Codec>> {
        let compression = self.compression.take()?;
        Some(Box::new(Compression::new(compression)))
    }

    fn logs_in_again(&self) -> bool {
        self.logs_in_again
    }

    fn kill(&mut self) -> Option<Kill> {
        let Killing::Wanted(kill) = self.killing else { return None };
        self.killing = Killing::Asked;
        Some(kill)
    }

    fn killed(&mut self, outcome: Killed) {
        self.killing = Killing::Done(outcome);
    }
}
