//! Our `KILL QUERY` at a database: what one of our connections does is stopped from another one, by the same user.

use super::connect::{Connect, Connected};
use super::frame::{self, packet};
use super::message::{command, server_error};
use crate::protocol::{Answer, ClientError, ConnectOptions, Handshake, HandshakeError, Step, Violation};

/// Bytes of the answer.
const PACKET_BYTES_MAX: usize = 64 << 10;

/// The machine. Drive it as a [`Handshake`]; done when the server has acted and been told goodbye.
pub struct Cancel {
    connection_id: u32,
    state: State,
}

enum State {
    LoggingIn(Box<Connect>),
    /// `KILL QUERY` was sent.
    Killing,
    Ended,
}

impl Cancel {
    /// Stops what the connection of this number does. What clients have fixed at their logins is of no use for that.
    pub fn new(connection_id: u32, options: ConnectOptions) -> Self {
        let options = ConnectOptions { fixed: Vec::new(), ..options };
        Self { connection_id, state: State::LoggingIn(Box::new(Connect::new(options))) }
    }
}

impl Handshake for Cancel {
    type Output = ();

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<()>), HandshakeError> {
        let mut taken = 0;
        if let State::LoggingIn(connect) = &mut self.state {
            let (more, step) = connect.step_inner(input, out)?;
            taken = more;
            match step {
                Step::Done(Connected { .. }) => {
                    let kill = format!("KILL QUERY {}", self.connection_id);
                    packet(out, &mut 0, |out| {
                        out.push(command::QUERY);
                        out.extend_from_slice(kill.as_bytes());
                    });
                    self.state = State::Killing;
                }
                Step::NeedInput => return Ok((taken, Step::NeedInput)),
                Step::StartTls => return Ok((taken, Step::StartTls)),
                Step::Ask(question) => return Ok((taken, Step::Ask(question))),
            }
        }
        if !matches!(self.state, State::Killing) {
            return Err(Violation::MalformedAuthentication.into());
        }
        let rest = input.get(taken..).unwrap_or_default();
        let Some((head, payload)) = frame::whole(rest, PACKET_BYTES_MAX)? else { return Ok((taken, Step::NeedInput)) };
        self.state = State::Ended;
        // "Unknown thread id": it has gone, and there is nothing to stop.
        if let Some(error) = server_error(payload).filter(|error| error.code != "1094") {
            return Err(HandshakeError::Server(error));
        }
        packet(out, &mut 0, |out| out.push(command::QUIT));
        Ok((taken + head.bytes(), Step::Done(())))
    }

    fn answer(&mut self, answer: Answer) {
        if let State::LoggingIn(connect) = &mut self.state {
            connect.answer(answer);
        }
    }

    fn refuse(&mut self, _: &ClientError, _: &mut Vec<u8>) {}
}
