//! PostgreSQL's wire protocol, versions 3.0 and 3.2, both sides of it. No I/O.
//!
//! ```text
//!   client ---- accept.rs ----> client.rs ---- server/send.rs ----> server
//!               (its login)     (its state)    server/receive.rs      connect.rs (our login there)
//!                                              server/owed.rs         cancel.rs (our cancel there)
//! ```
//!
//! The manual: <https://www.postgresql.org/docs/current/protocol.html>.

mod aborted;
pub mod accept;
pub mod cancel;
pub mod client;
pub mod connect;
pub mod frame;
pub mod message;
pub mod scram;
pub mod server;
pub mod startup;
mod statement;

use crate::protocol::{
    AcceptOptions, Accepted, Answer, ClientError, ConnectOptions, Handshake, HandshakeError, Protocol, Step,
};

/// PostgreSQL.
#[derive(Debug)]
pub struct Postgres;

impl Protocol for Postgres {
    const NAME: &'static str = "postgres";
    const DIRECT_TLS: Option<&'static [u8]> = Some(b"postgresql");
    const SERVER_SPEAKS_FIRST: bool = false;
    const KILLS_BY_NUMBER: bool = false;
    type Accept = accept::Accept;
    type Connect = connect::Connect;
    type Cancel = cancel::Cancel;
    type Client = client::Client;
    type Server = server::Server;

    fn accept(options: AcceptOptions) -> accept::Accept {
        accept::Accept::new(options)
    }

    fn connect(options: ConnectOptions) -> connect::Connect {
        connect::Connect::new(options)
    }
}

impl Handshake for accept::Accept {
    type Output = Accepted<client::Client>;

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<Self::Output>), HandshakeError> {
        let (taken, step) = self.step_inner(input, out)?;
        let accepted = |accepted: Accepted<accept::Started>| match accepted {
            Accepted::Client(started) => {
                Accepted::Client(client::Client::new(&started.login, &started.welcome, started.cancel_secret()))
            }
            Accepted::Cancel(key) => Accepted::Cancel(key),
        };
        Ok((taken, step.map(accepted)))
    }

    fn answer(&mut self, answer: Answer) {
        self.answer(answer);
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
