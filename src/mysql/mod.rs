//! MySQL's and MariaDB's wire protocol, both sides of it. No I/O.
//!
//! ```text
//!   client ---- accept.rs ----> client.rs ---- server/send.rs ----> server
//!               (its login)     (its state)    server/receive.rs      connect.rs (our login there)
//!                                              server/owed.rs         cancel.rs (our KILL QUERY there)
//! ```
//!
//! A client may have its packets compressed (`compress.rs`); its machines see them as they were.
//! The manual: <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>.

pub mod accept;
pub mod attributes;
pub mod cancel;
pub mod capabilities;
pub mod client;
pub mod compress;
pub mod connect;
mod dropping;
pub mod execute;
mod failed;
pub mod frame;
pub mod held;
pub mod message;
pub mod password;
pub mod server;
pub mod statement;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
pub mod unread;

use crate::protocol::{
    AcceptOptions, Accepted, Answer, ClientError, ConnectOptions, Handshake, HandshakeError, Protocol, Step,
};

/// MySQL and MariaDB.
#[derive(Debug)]
pub struct MySql;

impl Protocol for MySql {
    const NAME: &'static str = "mysql";
    const DIRECT_TLS: Option<&'static [u8]> = None;
    const SERVER_SPEAKS_FIRST: bool = true;
    const KILLS_BY_NUMBER: bool = true;
    type Accept = accept::Accept;
    type Connect = connect::Connect;
    type Cancel = cancel::Cancel;
    type Client = client::Client;
    type Server = server::Server;

    fn accept(options: AcceptOptions) -> accept::Accept {
        accept::Accept::new(options)
    }

    fn accept_again(client: client::Client, options: AcceptOptions) -> Option<accept::Accept> {
        Some(accept::Accept::again(client.capabilities(), client.extended(), options))
    }

    fn connect(options: ConnectOptions) -> connect::Connect {
        connect::Connect::new(options)
    }
}

impl Handshake for accept::Accept {
    type Output = Accepted<client::Client>;

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<Self::Output>), HandshakeError> {
        let (taken, step) = self.step_inner(input, out)?;
        let accepted = |accepted| match accepted {
            Accepted::Client(started) => Accepted::Client(client::Client::new(&started)),
            Accepted::Cancel(key) => Accepted::Cancel(key),
        };
        Ok((taken, step.map(accepted)))
    }

    fn wanted(&self, input: &[u8]) -> usize {
        self.wanted(input)
    }

    fn doubts(&self) -> Option<&str> {
        self.doubts()
    }

    fn answer(&mut self, answer: Answer) {
        self.answer(answer);
    }

    fn pass_over(&mut self, input: &[u8]) {
        self.pass_over(input);
    }

    fn refuse(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        self.refuse(error, out);
    }
}

impl Handshake for connect::Connect {
    type Output = server::Server;

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<Self::Output>), HandshakeError> {
        let (taken, step) = self.step_inner(input, out)?;
        Ok((taken, step.map(server::Server::new)))
    }

    fn answer(&mut self, answer: Answer) {
        self.answer(answer);
    }

    fn refuse(&mut self, _: &ClientError, _: &mut Vec<u8>) {}
}
