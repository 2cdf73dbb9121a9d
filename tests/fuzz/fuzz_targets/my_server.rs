//! A MySQL client and a server that say anything in any order, while the connection changes hands: no panic, never more
//! bytes taken than shown, a bounded rest, and nothing owed, open or half said by a connection that is idle.
#![no_main]

mod login;
mod world;

use libfuzzer_sys::fuzz_target;
use login::{login, welcome};
use mysql_common::constants::CapabilityFlags;
use sluicegate::mysql::accept::Started;
use sluicegate::mysql::capabilities::Extended;
use sluicegate::mysql::client::Client;
use sluicegate::mysql::connect::Connected;
use sluicegate::mysql::frame::{self, HEAD_BYTES, Reader};
use sluicegate::mysql::message::{self, OkPacket, command, mark, status};
use sluicegate::mysql::server::Server;
use sluicegate::protocol::{ClientError, ClientSide, ConnectOptions, Loss, ServerSide, Settings, Status, Violation};
use sluicegate::sql::mysql::settings::{NO_SCHEMA, SCHEMA};
use std::collections::VecDeque;
use world::Books as _;

fuzz_target!(|data: &[u8]| {
    let Some((control, rest)) = data.split_first() else { return };
    let mut world = World::new(*control);
    world::operations(rest, |operation, bytes| world.perform(operation, bytes));
});

type World = world::World<Server, Books>;

/// What an onlooker knows of the connection's debts, from nothing but the bytes on it.
#[derive(Default)]
struct Books {
    /// Rest of a packet that is on its way to the server.
    to_server: Vec<u8>,
    /// Its beginning has been counted.
    has_begun: bool,
    /// And on its way from it.
    from_server: Vec<u8>,
    /// And on its way to the client.
    to_client: Vec<u8>,
    /// Commands that have no whole reply yet.
    owed: VecDeque<Reply>,
    /// The server has asked for a file whose end was not sent.
    wants_file: bool,
    /// As the server said it last.
    status: u16,
    /// What looks like an error may say how far it has come.
    tells_progress: bool,
}

struct Reply {
    command: u8,
    part: Part,
}

/// What comes next of a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    /// So many columns; rows behind them, if it is a result.
    Columns(u64, bool),
    Rows,
}

impl world::Books for Books {
    fn sent(&mut self, bytes: &[u8]) {
        self.to_server.extend_from_slice(bytes);
        while let Some(head) = frame::head(&self.to_server) {
            let first = self.to_server.get(HEAD_BYTES).copied();
            // A server may answer as soon as it knows what is asked.
            if !self.has_begun && (head.len == 0 || first.is_some()) {
                self.has_begun = true;
                self.begins(first.filter(|_| head.len > 0));
            }
            if take_packet(&mut self.to_server).is_none() {
                break;
            }
            self.has_begun = false;
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        self.from_server.extend_from_slice(bytes);
        while let Some(payload) = take_packet(&mut self.from_server) {
            self.reply(&payload);
        }
    }

    fn told(&mut self, bytes: &[u8]) {
        self.to_client.extend_from_slice(bytes);
        while take_packet(&mut self.to_client).is_some() {}
    }
}

impl Books {
    fn begins(&mut self, first: Option<u8>) {
        match first {
            None => self.wants_file = false,
            Some(_) if self.wants_file => {}
            Some(command::STMT_SEND_LONG_DATA | command::STMT_CLOSE) => {}
            Some(command) => {
                let has_rows = matches!(command, command::STMT_FETCH | command::FIELD_LIST);
                self.owed.push_back(Reply { command, part: if has_rows { Part::Rows } else { Part::First } });
            }
        }
    }

    fn reply(&mut self, payload: &[u8]) {
        let Some(Reply { command, part }) = self.owed.front_mut() else { return };
        if self.tells_progress && message::is_progress(payload) {
            return;
        }
        let first = payload.first().copied().unwrap_or(0xFA);
        let is_result = matches!(*command, command::QUERY | command::STMT_EXECUTE | command::STMT_BULK_EXECUTE);
        let is_ok = match part {
            Part::First => first == mark::OK || !is_result && first == mark::EOF,
            Part::Rows => first == mark::EOF,
            Part::Columns(..) => false,
        };
        match (*part, first) {
            (_, mark::ERROR) => {
                // Of a file that it has asked for it wants no more.
                self.wants_file = false;
                return drop(self.owed.pop_front());
            }
            (Part::First, _) if *command == command::STATISTICS => return drop(self.owed.pop_front()),
            (Part::First, mark::OK) if *command == command::STMT_PREPARE => {
                let mut reader = Reader(payload.get(5..).unwrap_or_default());
                let parts = [reader.u16(), reader.u16()].map(|count| u64::from(count.unwrap_or_default()));
                *part = Part::Columns(parts[0] + parts[1], false);
            }
            _ if is_ok => {
                self.status = OkPacket::read(payload).map_or(self.status, |ok| ok.status);
                if self.status & status::MORE_RESULTS == 0 {
                    self.owed.pop_front();
                } else {
                    *part = Part::First;
                }
                return;
            }
            (Part::First, mark::LOCAL_FILE) => self.wants_file = true,
            (Part::First, _) => *part = Part::Columns(Reader(payload).number().unwrap_or_default(), true),
            (Part::Columns(left, has_rows), _) => *part = Part::Columns(left.saturating_sub(1), has_rows),
            (Part::Rows, _) => {}
        }
        match self.owed.front_mut() {
            Some(Reply { part: Part::Columns(0, false), .. }) => drop(self.owed.pop_front()),
            Some(Reply { part: part @ Part::Columns(0, true), .. }) => *part = Part::Rows,
            _ => {}
        }
    }

    fn check_idle(&self) {
        assert!(self.owed.is_empty(), "idle, and owes");
        assert!(self.to_server.is_empty() && self.from_server.is_empty(), "idle in the middle of a packet");
        assert!(self.to_client.is_empty(), "idle, and the client has the half of a packet");
        assert!(!self.wants_file, "idle, and waits for a file");
        assert_eq!(self.status & status::IN_TRANSACTION, 0, "idle in a transaction");
    }
}

/// The payload of the packet at the front. (The input is too short for one of several pieces.)
fn take_packet(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = frame::head(bytes).filter(|head| head.bytes() <= bytes.len())?;
    Some(bytes.drain(..head.bytes()).skip(HEAD_BYTES).collect())
}

impl World {
    fn new(control: u8) -> Self {
        // A pool's clients all have them, or none has.
        let attributes =
            if control & 16 == 0 { CapabilityFlags::empty() } else { CapabilityFlags::CLIENT_QUERY_ATTRIBUTES };
        let extended = if control & 32 == 0 {
            Extended::empty()
        } else {
            Extended::MARIADB_CLIENT_STMT_BULK_OPERATIONS | Extended::MARIADB_CLIENT_PROGRESS
        };
        let mut server = Server::new(Connected {
            version: if control & 1 == 0 { "9.7.4".into() } else { "5.5.5-10.11.19-MariaDB".into() },
            connection_id: 5,
            status: status::AUTOCOMMIT,
            // A server that does not know them gets blanks.
            capabilities: if control & 64 == 0 { attributes } else { CapabilityFlags::empty() },
            extended,
            options: ConnectOptions {
                user: "u".into(),
                database: if control & 2 == 0 { "d".into() } else { String::new() },
                fixed: Vec::new(),
                secret: None,
                tls: false,
                local_socket: false,
                nonce: [0; 18],
                max_prepared_statements: 1,
                statement_key: [0; 16],
                learned: std::sync::Arc::default(),
            },
        });
        let mut books = Books { tells_progress: control & 32 != 0, ..Books::default() };
        if control & 4 != 0 {
            let mut to_server = Vec::new();
            server.initialize(&"SET time_zone = '+00:00'".into(), &mut to_server);
            books.sent(&to_server);
        }
        let modern = CapabilityFlags::CLIENT_DEPRECATE_EOF
            | CapabilityFlags::CLIENT_SESSION_TRACK
            | CapabilityFlags::CLIENT_LOCAL_FILES;
        let clients = [
            client(1, "45", modern | attributes, extended),
            client(
                2,
                "8",
                attributes
                    | if control & 8 == 0 { CapabilityFlags::empty() } else { CapabilityFlags::CLIENT_LOCAL_FILES },
                extended,
            ),
        ];
        Self::of(server, clients, books)
    }

    fn perform(&mut self, operation: u8, bytes: &[u8]) -> Result<(), Violation> {
        // Few bytes that are drawn by lot are a packet; so that there are some, half of all get a head.
        let packet = |sequence: u8, bytes: &[u8]| {
            let mut out = Vec::new();
            frame::packet(&mut out, &mut { sequence }, |out| out.extend_from_slice(bytes));
            out
        };
        match (operation % 16, self.attached) {
            (0 | 1, Some(client)) => self.client_says(client, bytes)?,
            (2 | 3, Some(client)) => self.client_says(client, &packet(0, bytes))?,
            (4 | 5, _) => self.server_says(bytes)?,
            (6..=8, _) => self.server_says(&packet(1, bytes))?,
            (9, None) if self.server.status() == Status::Idle => {
                assert!(self.attach(usize::from(operation >= 128)).is_empty());
            }
            (9, Some(client)) if self.server.status() == Status::Idle => {
                self.detach(client);
                self.clients[client].let_go();
            }
            (10, _) if self.server.status() == Status::Idle && self.attached.is_none() => self.reset(),
            (11, _) => {
                let mut to_server = Vec::new();
                self.server.probe(&mut to_server);
                self.books.sent(&to_server);
            }
            (12, _) => self.server.explain_cancel(ClientError::Cancelled),
            (13, Some(client)) => return self.lose(client),
            _ => {}
        }
        if self.server.attach_failure().is_some() {
            // It would be closed.
            return Err(Violation::MalformedFrame(0));
        }
        if self.server.status() == Status::Idle {
            self.books.check_idle();
            if let Some(client) = self.attached.filter(|client| !self.clients[*client].has_ended()) {
                let [has, wanted] = [self.server.settings(), self.clients[client].settings()];
                // Who has lost its database may use none before it has selected another: it gets a connection with whichever.
                let is_lost = wanted.value(SCHEMA) == Some(NO_SCHEMA);
                let seen = |settings: &Settings| settings.edited(|values| _ = is_lost.then(|| values.remove(SCHEMA)));
                assert_eq!(seen(has), seen(wanted), "idle with another's settings");
            }
        }
        self.server.tally();
        while self.server.refused().is_some() {}
        Ok(())
    }

    /// The connection is gone. A client that goes on has whole packets, and can be without one.
    fn lose(&mut self, client: usize) -> Result<(), Violation> {
        let gone = Err(Violation::MalformedFrame(0));
        let is_pinned = !self.clients[client].pins().is_empty();
        if is_pinned || self.server.status() == Status::Idle || self.server.has_sent_nothing() {
            return gone;
        }
        let (mut told, has_more) = (Vec::new(), !self.client_tail.is_empty());
        let loss = self.server.lose(&mut self.clients[client], has_more, &mut told);
        assert!(loss != Loss::Session || told.is_empty());
        if loss == Loss::Session {
            return gone;
        }
        assert!(self.books.to_client.is_empty(), "there is no place for an error in the middle of a packet");
        assert_ne!(self.server.status(), Status::Idle, "nobody else may get it");
        self.clients[client].let_go();
        let (taken, _) = self.clients[client].detached(&self.client_tail, &mut told)?;
        assert!(taken <= self.client_tail.len());
        while let Some(payload) = take_packet(&mut told) {
            assert!(matches!(payload.first(), Some(&(mark::ERROR | mark::OK))));
        }
        assert!(told.is_empty(), "half a packet");
        gone
    }
}

fn client(client_id: u64, collation: &str, capabilities: CapabilityFlags, extended: Extended) -> Client {
    Client::new(&Started {
        login: login("u", "d", Settings::new([("names", collation)])),
        welcome: welcome(client_id),
        capabilities,
        extended,
        application: String::new(),
        compression: None,
    })
}
