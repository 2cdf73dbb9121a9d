//! A client and a database that say anything in any order, while the connection changes hands: no panic, never more
//! bytes taken than shown, a bounded rest, and nothing owed by a connection that is idle.
#![no_main]

mod login;
mod world;

use libfuzzer_sys::fuzz_target;
use login::{login, welcome};
use sluicegate::postgres::client::Client;
use sluicegate::postgres::connect::Connected;
use sluicegate::postgres::server::Server;
use sluicegate::protocol::{Parameters, ServerSide, Settings, Status, Violation};

fuzz_target!(|data: &[u8]| {
    let mut world = World::new();
    world::operations(data, |operation, bytes| world.perform(operation, bytes));
});

type World = world::World<Server, Books>;

/// What an onlooker knows of the connection's debts, from nothing but the bytes on it.
struct Books {
    /// Rest of a frame that is on its way to the server.
    to_server: Vec<u8>,
    /// And on its way from it.
    from_server: Vec<u8>,
    /// Queries, function calls and Syncs sent: each is owed a ReadyForQuery.
    ends: usize,
    /// ReadyForQuery received.
    readies: usize,
    /// As the last one says.
    transaction: u8,
    /// The server has asked for COPY data: the Syncs it reads over are not known here.
    copies: bool,
}

impl world::Books for Books {
    fn sent(&mut self, bytes: &[u8]) {
        self.to_server.extend_from_slice(bytes);
        let mut rest = &self.to_server[..];
        while let Some((frame, more)) = split_frame(rest) {
            self.ends += usize::from(matches!(frame[0], b'Q' | b'F' | b'S'));
            rest = more;
        }
        self.to_server = rest.to_vec();
    }

    fn received(&mut self, bytes: &[u8]) {
        self.from_server.extend_from_slice(bytes);
        let mut rest = &self.from_server[..];
        while let Some((frame, more)) = split_frame(rest) {
            self.copies |= frame[0] == b'G';
            if frame[0] == b'Z' {
                self.readies += 1;
                self.transaction = frame.get(5).copied().unwrap_or(0);
            }
            rest = more;
        }
        self.from_server = rest.to_vec();
    }
}

impl Books {
    fn check_idle(&self) {
        if !self.copies {
            assert_eq!(self.ends, self.readies, "idle, and owes");
            assert!(self.to_server.is_empty(), "idle in the middle of a frame");
        }
        assert_eq!(self.transaction, b'I', "idle in a transaction");
    }
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?) as usize;
    bytes.split_at_checked(len.checked_add(1)?)
}

impl World {
    fn new() -> Self {
        let server = Server::new(Connected {
            parameters: Parameters::new(),
            process_id: 1,
            secret: vec![1; 4],
            max_prepared_statements: 2,
            statement_key: [0; 16],
        });
        let clients = [(1, Settings::default()), (2, Settings::new([("search_path", "a")]))]
            .map(|(id, baseline)| Client::new(&login("u", "d", baseline), &welcome(id), &[]));
        let books = Books {
            to_server: Vec::new(),
            from_server: Vec::new(),
            ends: 0,
            readies: 0,
            transaction: b'I',
            copies: false,
        };
        Self::of(server, clients, books)
    }

    fn perform(&mut self, operation: u8, bytes: &[u8]) -> Result<(), Violation> {
        match (operation % 8, self.attached) {
            (0..=2, Some(client)) => self.client_says(client, bytes)?,
            (3..=5, _) => {
                self.server_says(bytes)?;
                self.server.attach_failure();
                self.server.tally();
            }
            (6, None) if self.server.status() == Status::Idle => {
                self.attach(usize::from(operation >= 128));
            }
            (6, Some(client)) if self.server.status() == Status::Idle => self.detach(client),
            (7, _) if self.server.status() == Status::Idle => self.reset(),
            _ => {}
        }
        if self.server.status() == Status::Idle {
            self.books.check_idle();
        }
        Ok(())
    }
}
