//! A connection that changes hands between two clients, of either protocol, and an onlooker's books of it: never more bytes
//! taken than shown, and a bounded rest.
//!
//! The input is a list of operations: a byte that says which, one that says how many bytes, and those bytes.

use sluicegate::protocol::{ClientSide, Out, ServerSide, Sides, Status, Violation};

/// What is read whole is no longer than this.
const TAIL_BYTES_MAX: usize = (1 << 20) + (32 << 10);

/// Performs them until one breaks a protocol.
pub fn operations(mut rest: &[u8], mut perform: impl FnMut(u8, &[u8]) -> Result<(), Violation>) {
    while let Some((&[operation, len], more)) = rest.split_first_chunk() {
        let (bytes, more) = more.split_at(usize::from(len).min(more.len()));
        rest = more;
        if perform(operation, bytes).is_err() {
            return;
        }
    }
}

/// What is known of the connection from nothing but the bytes on it.
pub trait Books {
    /// To the server.
    fn sent(&mut self, bytes: &[u8]);
    /// From the server.
    fn received(&mut self, bytes: &[u8]);
    /// To the client, because of that.
    fn told(&mut self, _bytes: &[u8]) {}
}

pub struct World<S: ServerSide, B> {
    pub server: S,
    pub clients: [S::Client; 2],
    pub attached: Option<usize>,
    pub client_tail: Vec<u8>,
    server_tail: Vec<u8>,
    pub books: B,
}

impl<S: ServerSide, B: Books> World<S, B> {
    pub fn of(server: S, clients: [S::Client; 2], books: B) -> Self {
        Self { server, clients, attached: None, client_tail: Vec::new(), server_tail: Vec::new(), books }
    }

    /// Hands the connection out; what the client is told.
    pub fn attach(&mut self, client: usize) -> Vec<u8> {
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        self.server.attach(&mut self.clients[client], Sides { client: &mut to_client, server: &mut to_server });
        self.books.sent(&to_server);
        self.attached = Some(client);
        to_client
    }

    pub fn detach(&mut self, client: usize) {
        assert!(!self.server.is_holding());
        if !self.clients[client].pins().is_empty() {
            self.reset();
        }
        self.attached = None;
        self.client_tail.clear();
    }

    pub fn reset(&mut self) {
        let mut to_server = Vec::new();
        self.server.reset(&mut to_server);
        self.books.sent(&to_server);
    }

    pub fn client_says(&mut self, client: usize, bytes: &[u8]) -> Result<(), Violation> {
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

    pub fn server_says(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut out = Out::new();
        self.server_tail.extend_from_slice(bytes);
        let client = self.attached.map(|client| &mut self.clients[client]);
        let has_client = client.is_some();
        let taken = self.server.receive(&self.server_tail, client, &mut out)?;
        assert!(taken <= self.server_tail.len());
        assert!(has_client || out.is_empty());
        let mut to_client = Vec::new();
        out.copy_to(&self.server_tail, 0, &mut to_client);
        self.books.told(&to_client);
        let tail: Vec<u8> = self.server_tail.drain(..taken).collect();
        self.books.received(&tail);
        assert!(self.server_tail.len() <= TAIL_BYTES_MAX || self.server.status() == Status::Ended);
        Ok(())
    }
}
