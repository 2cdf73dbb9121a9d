//! A client at the proxy, and the connection it would have had: both do each step, and what they are told is compared.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use super::known::{self, Before};
use super::parameters;
use super::steps::{PARAMETERS, SLOTS, Step};
use super::texts;
use crate::harness::mysql::beside::{renamed, without_guesses};
use crate::harness::mysql::wire::{
    CACHING_SHA2, COM_FIELD_LIST, COM_INIT_DB, COM_PING, COM_QUERY, COM_SET_OPTION, COM_STMT_CLOSE, COM_STMT_EXECUTE,
    COM_STMT_FETCH, COM_STMT_PREPARE, COM_STMT_RESET, COM_STMT_SEND_LONG_DATA, MyLogin, MyWire, Packet,
    capability::{DEPRECATE_EOF, MULTI_STATEMENTS},
    framed, length,
};
use crate::harness::vanish::Socket;

const COM_CHANGE_USER: u8 = 0x11;
const COM_RESET_CONNECTION: u8 = 0x1F;
/// In a status.
const IN_TRANSACTION: u16 = 1;
/// How long a reply mostly takes at most. What takes longer is looked into.
const SOON: Duration = Duration::from_millis(3);

/// Direct and proxied.
pub type Both<T> = [T; 2];

/// What both are to be told by how they log in.
#[derive(Clone)]
pub struct Client {
    /// Which of all clients; its tables end in it.
    pub number: usize,
    pub logins: Both<MyLogin>,
    pub addresses: Both<SocketAddr>,
    /// Of databases, of one length.
    pub names: Both<String>,
}

pub struct Twins {
    client: Client,
    wires: Both<MyWire>,
    slots: [Slot; SLOTS],
    /// Sessions that it has had.
    sessions: usize,
    /// As the direct side said it last.
    status: u16,
    may_keep: bool,
    before: Before,
    /// It has locked tables, or asked for transactions that may only read.
    is_held_back: bool,
}

/// A prepared statement.
#[derive(Clone, Default)]
struct Slot {
    text: String,
    /// The server's, and the proxy's.
    numbers: Both<u32>,
    parameters: usize,
    /// Of its last execution.
    types: Option<Vec<u8>>,
    had_cursor: bool,
    has_pieces: bool,
}

/// What is sent to both, and the commands that it is.
struct Sent {
    bytes: Both<Vec<u8>>,
    commands: Vec<u8>,
}

impl Twins {
    pub fn new(client: Client) -> Self {
        let wires = [0, 1].map(|side| MyWire::connect(client.addresses[side], &client.logins[side]).unwrap());
        let slots = [(); SLOTS].map(|()| Slot::default());
        Self {
            client,
            wires,
            slots,
            sessions: 0,
            status: 2,
            may_keep: false,
            before: Before::default(),
            is_held_back: false,
        }
    }

    pub fn is_in_transaction(&self) -> bool {
        self.status & IN_TRANSACTION != 0
    }

    /// What it has done may keep its connection: a guess.
    pub fn may_keep(&self) -> bool {
        self.may_keep
    }

    /// Both do it. `waits` is called while the proxy does not answer.
    pub fn does(&mut self, step: &Step, waits: &mut dyn FnMut()) -> Result<(), String> {
        match step {
            Step::LogsInAgain => return self.logs_in_again(),
            Step::Leaves => {
                let sessions = self.sessions + 1;
                *self = Self { sessions, ..Self::new(self.client.clone()) };
                return Ok(());
            }
            Step::State => {
                for text in texts::STATE {
                    self.says(text, waits)?;
                }
                return self.does(&Step::Ping, waits);
            }
            _ => {}
        }
        if self.is_held_back && self.may_lose_statements(step) {
            return Ok(());
        }
        let keeps = ["@", "TEMP", "LOCK", "HANDLER", "PREPARE", "EXECUTE", "CALL", "f(", "SET", "cursor: true", "/*"];
        let shown = step.to_string();
        self.may_keep |= keeps.iter().any(|word| shown.contains(word));
        let letters = ["NAMES", "CHARACTER SET", "character_set", "collation_"];
        self.before.has_set_letters |= letters.iter().any(|word| shown.contains(word));
        self.is_held_back |= ["READ ONLY", "read_only", "LOCK TABLES"].iter().any(|word| shown.contains(word));
        let Some(sent) = self.sent(step) else { return Ok(()) };
        self.exchange(step, &sent, waits)?;
        match (step, self.client.logins[0].collation) {
            // Behind it MySQL has its own default and not that of the login, which the proxy brings back.
            (Step::ResetConnection, 8) => self.says("SET NAMES latin1 COLLATE latin1_swedish_ci", waits),
            (Step::ResetConnection, _) => self.says("SET NAMES utf8mb4 COLLATE utf8mb4_general_ci", waits),
            _ => Ok(()),
        }
    }

    /// "A prepared statement that must be made anew while its table is not among those that are locked, or while transactions may only read,
    /// fails from then on if names may have another meaning by then."
    fn may_lose_statements(&self, step: &Step) -> bool {
        let moves = |text: &str| ["; ", "CALL ", "EXECUTE ", "DO ", "/*"].iter().any(|part| text.contains(part));
        let is_prepared = self.slots.iter().any(|slot| !slot.text.is_empty());
        is_prepared
            && match step {
                Step::Queries(texts) => texts.iter().any(|text| moves(text)),
                Step::Execute { slot, .. } => moves(&self.slots[*slot].text),
                _ => false,
            }
    }

    fn says(&mut self, text: &str, waits: &mut dyn FnMut()) -> Result<(), String> {
        self.does(&Step::Queries(vec![text.to_owned()]), waits)
    }

    fn exchange(&mut self, step: &Step, sent: &Sent, waits: &mut dyn FnMut()) -> Result<(), String> {
        let reply = |wire: &mut MyWire, command: u8| {
            wire.expect_reply();
            wire.reply_to(command)
        };
        let [direct, proxied] = &mut self.wires;
        direct.send_raw(&sent.bytes[0]);
        let told: Vec<Vec<Packet>> = sent.commands.iter().map(|command| reply(direct, *command)).collect();
        proxied.send_raw(&sent.bytes[1]);
        let mut found = Vec::new();
        for (told, command) in told.iter().zip(&sent.commands) {
            if !told.is_empty() {
                until_answered(proxied, waits);
            }
            found.push(reply(proxied, *command));
        }
        let prepared = match step {
            Step::Execute { slot, .. } | Step::Fetch { slot, .. } => self.slots[*slot].text.clone(),
            _ => String::new(),
        };
        let mut outcome = Ok(());
        for (at, (told, found)) in told.into_iter().zip(found).enumerate() {
            self.learn(step, [&told, &found]);
            let text = match step {
                Step::Queries(texts) => texts[at].as_str(),
                Step::Prepare { text, .. } => text,
                _ => &prepared,
            };
            // The OK of a prepared statement has its number there, which may look like anything.
            if !matches!(step, Step::Prepare { .. })
                && let Some(status) = last_status(&told, self.client.logins[0].capabilities)
            {
                self.status = status;
            }
            let has_failed = told.last().is_some_and(|packet| packet.error().is_some());
            let same = self.compared(step, text, told, found);
            self.before.has_failed = has_failed;
            outcome = outcome.and(same.map_err(|difference| format!("{step}: {difference}")));
        }
        outcome
    }

    fn compared(&self, step: &Step, text: &str, told: Vec<Packet>, found: Vec<Packet>) -> Result<(), String> {
        let [twin, name] = &self.client.names;
        let told = told.into_iter().map(|packet| renamed(packet, twin, name)).collect();
        let [told, found] = known::masked(step, text, self.before, [told, found].map(without_guesses));
        if told == found { Ok(()) } else { Err(difference(&told, &found)) }
    }

    /// What the replies say that is used later.
    fn learn(&mut self, step: &Step, replies: Both<&Vec<Packet>>) {
        match step {
            Step::Prepare { slot, text } => {
                self.before.types_variables(text);
                self.slots[*slot] = Slot::default();
                let [Some(direct), Some(proxied)] = replies.map(|packets| packets.first()) else { return };
                if direct.first() == 0 && proxied.first() == 0 {
                    let number = |packet: &Packet| u32::from_le_bytes(packet.payload[1..5].try_into().unwrap());
                    let parameters = u16::from_le_bytes(direct.payload[7..9].try_into().unwrap()).into();
                    let numbers = [number(direct), number(proxied)];
                    self.slots[*slot] = Slot { text: text.clone(), numbers, parameters, ..Slot::default() };
                }
            }
            Step::ResetConnection => self.slots = [(); SLOTS].map(|()| Slot::default()),
            Step::Queries(texts) => {
                let prepared = texts.iter().filter(|text| text.contains("PREPARE"));
                prepared.for_each(|text| self.before.types_variables(text));
            }
            _ => {}
        }
    }

    /// Nothing: there is no such statement.
    fn sent(&mut self, step: &Step) -> Option<Sent> {
        let of_slot = |slots: &[Slot], slot: usize, command: u8, rest: &[u8]| -> Option<Sent> {
            let numbers = slots[slot].numbers;
            let bytes = numbers.map(|number| framed(&mut 0, &[&[command], &number.to_le_bytes()[..], rest].concat()));
            (numbers != [0, 0]).then(|| Sent { bytes, commands: vec![command] })
        };
        Some(match step {
            Step::Queries(texts) => {
                let bytes = [0, 1].map(|side| {
                    let texts = texts.iter().map(|text| self.said(COM_QUERY, text, side));
                    texts.collect::<Vec<_>>().concat()
                });
                Sent { bytes, commands: vec![COM_QUERY; texts.len()] }
            }
            Step::Prepare { text, .. } => self.both(COM_STMT_PREPARE, text),
            Step::InitDb(name) => self.both(COM_INIT_DB, name),
            Step::FieldList(name) => self.both(COM_FIELD_LIST, &format!("{name}\0")),
            Step::Ping => self.both(COM_PING, ""),
            Step::SetOption(is_on) => self.both(COM_SET_OPTION, if *is_on { "\0\0" } else { "\x01\0" }),
            Step::ResetConnection => self.both(COM_RESET_CONNECTION, ""),
            Step::Execute { slot, values, retypes, cursor } => {
                let body = self.execute(*slot, values, *retypes, *cursor);
                of_slot(&self.slots, *slot, COM_STMT_EXECUTE, &body)?
            }
            Step::Fetch { slot, rows } => of_slot(&self.slots, *slot, COM_STMT_FETCH, &rows.to_le_bytes())?,
            Step::Piece { slot, bytes } => {
                let has_parameters = self.slots[*slot].parameters > 0;
                self.slots[*slot].has_pieces |= has_parameters;
                let piece = [&[0, 0][..], &vec![b'p'; *bytes]].concat();
                of_slot(&self.slots, *slot, COM_STMT_SEND_LONG_DATA, &piece).filter(|_| has_parameters)?
            }
            Step::ResetStatement { slot } => {
                self.slots[*slot].has_pieces = false;
                of_slot(&self.slots, *slot, COM_STMT_RESET, &[])?
            }
            Step::Close { slot } => {
                let sent = of_slot(&self.slots, *slot, COM_STMT_CLOSE, &[])?;
                self.slots[*slot] = Slot::default();
                sent
            }
            Step::LogsInAgain | Step::Leaves | Step::State => return None,
        })
    }

    fn both(&self, command: u8, text: &str) -> Sent {
        Sent { bytes: [0, 1].map(|side| self.said(command, text, side)), commands: vec![command] }
    }

    /// A command with a text, as this side must say it.
    fn said(&self, command: u8, text: &str, side: usize) -> Vec<u8> {
        let number = self.client.number;
        let text = text.replace("{db}", &self.client.names[side]).replace("{c}", &number.to_string());
        let text = text.replace("{l}", &format!("_{number}_{}_", self.sessions));
        framed(&mut 0, &[&[command], text.as_bytes()].concat())
    }

    /// What follows the number of an EXECUTE.
    fn execute(&mut self, slot: usize, values: &[(usize, usize); PARAMETERS], retypes: bool, cursor: bool) -> Vec<u8> {
        let slot = &mut self.slots[slot];
        // MySQL forgets the rows of who executes with a cursor, and then without one.
        slot.had_cursor |= cursor;
        let mut body = vec![u8::from(slot.had_cursor), 1, 0, 0, 0];
        if slot.parameters == 0 {
            return body;
        }
        // "A parameter that is NULL as the statement is executed for the first time on a connection has no type there."
        let is_strict = slot.text.starts_with("SET sort_buffer_size");
        let values = values.map(|(kind, value)| (kind, if is_strict { value % 5 } else { value }));
        let has_pieces = std::mem::take(&mut slot.has_pieces);
        // MySQL keeps to the types of a statement's first execution on a connection: each has one set of them.
        let known = slot.types.clone();
        let says_types = known.is_none() || retypes || has_pieces;
        let bound = parameters::bound(&values[..slot.parameters.min(PARAMETERS)], known, has_pieces);
        body.extend(bound.nulls);
        body.push(u8::from(says_types));
        if says_types {
            body.extend(&bound.types);
        }
        body.extend(bound.values);
        slot.types = Some(bound.types);
        body
    }

    fn logs_in_again(&mut self) -> Result<(), String> {
        for (wire, login) in self.wires.iter_mut().zip(&self.client.logins) {
            let mut packet = vec![COM_CHANGE_USER];
            packet.extend(login.user.as_bytes());
            // An answer to a challenge of long ago.
            packet.extend([0, 4, 1, 2, 3, 4]);
            packet.extend(login.database.as_deref().unwrap_or_default().as_bytes());
            packet.extend([0, login.collation, 0]);
            packet.extend(CACHING_SHA2.as_bytes());
            packet.push(0);
            wire.send(&packet);
            wire.changed(login).map_err(|error| format!("COM_CHANGE_USER: {error}"))?;
        }
        // "COM_CHANGE_USER is a login of its own: everything the client had is gone." Not so these, directly.
        let has_several = self.client.logins[0].capabilities & MULTI_STATEMENTS != 0;
        self.wires[0].command(&[COM_SET_OPTION, u8::from(!has_several), 0]);
        self.wires[0].query("SET ROLE NONE");
        self.sessions += 1;
        self.slots = [(); SLOTS].map(|()| Slot::default());
        (self.may_keep, self.is_held_back, self.status, self.before) = (false, false, 2, Before::default());
        Ok(())
    }
}

/// Waits until the proxy has answered; meanwhile somebody may have to make room for it.
fn until_answered(wire: &MyWire, waits: &mut dyn FnMut()) {
    let socket = wire.socket();
    let patience = socket.read_timeout().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    // An end of the connection is for who reads it.
    while let Err(error) = socket.peek(&mut [0]) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            break;
        }
        waits();
    }
    socket.set_read_timeout(patience).unwrap();
}

/// The status at the end of a reply.
fn last_status(packets: &[Packet], capabilities: u32) -> Option<u16> {
    let last = packets.last().filter(|packet| matches!(packet.first(), 0x00 | 0xFE))?;
    let is_eof = last.first() == 0xFE && (capabilities & DEPRECATE_EOF == 0 || last.payload.len() < 7);
    let mut rest = last.payload.slice(1..);
    if is_eof {
        return Some(u16::from_le_bytes(rest.get(2..4)?.try_into().unwrap()));
    }
    length(&mut rest)?;
    length(&mut rest)?;
    Some(u16::from_le_bytes(rest.get(..2)?.try_into().unwrap()))
}

/// The packets that are not the same.
pub fn difference(told: &[Packet], found: &[Packet]) -> String {
    let mut shown = String::new();
    for at in 0..told.len().max(found.len()) {
        let [one, other] = [told, found].map(|packets| packets.get(at));
        if one == other {
            continue;
        }
        for (side, packet) in [("direct ", one), ("proxied", other)] {
            write!(shown, "\n  {side} {packet:?}").unwrap();
        }
    }
    shown
}
