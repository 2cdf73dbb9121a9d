//! A client and a database that say anything in any order, while the connection changes hands: no panic, never more
//! bytes taken than shown, a bounded rest, and nothing owed by a connection that is idle.
//!
//! The input is a list of operations: a byte that says which, one that says how many bytes, and those bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::postgres::client::Client;
use sluicegate::postgres::connect::Connected;
use sluicegate::postgres::server::Server;
use sluicegate::protocol::{
    CancelKey, ClientSide, Login, Out, Parameters, ServerSide, Settings, Sides, Status, Violation, Welcome,
};
use std::sync::Arc;

/// Frames that are read whole are no longer than this.
const TAIL_BYTES_MAX: usize = (1 << 20) + (32 << 10);

fuzz_target!(|data: &[u8]| {
    let mut world = World::new();
    let mut rest = data;
    while let Some((&[operation, len], more)) = rest.split_first_chunk() {
        let (bytes, more) = more.split_at(usize::from(len).min(more.len()));
        rest = more;
        if world.perform(operation, bytes).is_err() {
            return;
        }
    }
});

struct World {
    server: Server,
    clients: [Client; 2],
    attached: Option<usize>,
    client_tail: Vec<u8>,
    server_tail: Vec<u8>,
    books: Books,
}

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

impl Books {
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
        let clients =
            [(1, Settings::default()), (2, Settings::new([("search_path", "a")]))].map(|(client_id, baseline)| {
                let login = Login {
                    user: "u".into(),
                    database: "d".into(),
                    baseline: Arc::new(baseline),
                    fixed: Vec::new(),
                    keys: None,
                };
                let welcome = Welcome {
                    parameters: Arc::new(Parameters::new()),
                    cancel_key: CancelKey { process_id: 1, secret: Box::default() },
                    client_id,
                    statement_key: [0; 16],
                };
                Client::new(&login, &welcome, &[])
            });
        let books = Books {
            to_server: Vec::new(),
            from_server: Vec::new(),
            ends: 0,
            readies: 0,
            transaction: b'I',
            copies: false,
        };
        Self { server, clients, attached: None, client_tail: Vec::new(), server_tail: Vec::new(), books }
    }

    fn perform(&mut self, operation: u8, bytes: &[u8]) -> Result<(), Violation> {
        match (operation % 8, self.attached) {
            (0..=2, Some(client)) => self.client_says(client, bytes)?,
            (3..=5, _) => self.server_says(bytes)?,
            (6, None) if self.server.status() == Status::Idle => {
                let client = usize::from(operation >= 128);
                let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
                self.server.attach(&mut self.clients[client], Sides { client: &mut to_client, server: &mut to_server });
                self.books.sent(&to_server);
                self.attached = Some(client);
            }
            (6, Some(client)) if self.server.status() == Status::Idle => {
                assert!(!self.server.is_holding());
                if !self.clients[client].pins().is_empty() {
                    self.reset();
                }
                self.attached = None;
                self.client_tail.clear();
            }
            (7, _) if self.server.status() == Status::Idle => self.reset(),
            _ => {}
        }
        if self.server.status() == Status::Idle {
            self.books.check_idle();
        }
        Ok(())
    }

    fn reset(&mut self) {
        let mut to_server = Vec::new();
        self.server.reset(&mut to_server);
        self.books.sent(&to_server);
    }

    fn client_says(&mut self, client: usize, bytes: &[u8]) -> Result<(), Violation> {
        if self.server.is_holding() {
            return Ok(());
        }
        let mut out = Out::new();
        self.client_tail.extend_from_slice(bytes);
        let taken = self.server.send(&self.client_tail, &mut self.clients[client], &mut out)?;
        assert!(taken <= self.client_tail.len());
        let mut to_server = Vec::new();
        out.copy_to(&self.client_tail, 0, &mut to_server);
        self.books.sent(&to_server);
        self.client_tail.drain(..taken);
        assert!(self.client_tail.len() <= TAIL_BYTES_MAX || self.server.is_holding());
        Ok(())
    }

    fn server_says(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut out = Out::new();
        self.server_tail.extend_from_slice(bytes);
        let client = self.attached.map(|client| &mut self.clients[client]);
        let has_client = client.is_some();
        let taken = self.server.receive(&self.server_tail, client, &mut out)?;
        assert!(taken <= self.server_tail.len());
        assert!(has_client || out.is_empty());
        let tail: Vec<u8> = self.server_tail.drain(..taken).collect();
        self.books.received(&tail);
        assert!(self.server_tail.len() <= TAIL_BYTES_MAX || self.server.status() == Status::Ended);
        self.server.attach_failure();
        self.server.tally();
        Ok(())
    }
}
