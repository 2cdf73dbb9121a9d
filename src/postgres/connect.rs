//! A login at a database: we play the client
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>).
//!
//! Asks for TLS if it is wanted and goes on with it or not at all; speaks protocol 3.0; proves a password by
//! SCRAM-SHA-256, MD5 or, where nobody listens, in the clear. Promises: no password leaves in the clear without TLS or a
//! local socket, nor over TLS to somebody who has not shown who it is; a database that was asked for SCRAM must prove itself in turn; nothing said before TLS is believed; a
//! server that sends no cancel key, or an odd one, can be used all the same.

use super::frame::{Head, cstr, whole};
use super::message::{self, from_server};
use super::scram::{Binding, KeyHolder, MECHANISM, MECHANISM_PLUS};
use crate::protocol::{
    Answer, ConnectOptions, HandshakeError, LoginSecret, Parameters, Password, Secured, Step, Violation,
};
use md5::{Digest, Md5};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use std::fmt;
use std::mem;

/// Bytes of any frame before the first ReadyForQuery. Errors and notices are the longest; libpq takes 30,000.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// How many parameters a server may report. PostgreSQL 18 has 15; poolers add a few.
const PARAMETERS_MAX: usize = 256;

/// Bytes of a cancel key that can be sent back.
const CANCEL_SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// A login that was done.
pub struct Connected {
    /// What the server has reported.
    pub parameters: Parameters,
    /// The server's process id; 0 without a cancel key.
    pub process_id: u32,
    /// The cancel key's secret; empty if the server sent none, or one that can't be one: no cancel then.
    pub secret: Vec<u8>,
    /// As in [`ConnectOptions`].
    pub max_prepared_statements: usize,
    /// As in [`ConnectOptions`].
    pub statement_key: [u8; 16],
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("parameters", &self.parameters)
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

/// The machine. Drive it as a [`Handshake`](crate::protocol::Handshake).
///
/// ```text
/// Start ──tls──▶ TlsAsked ──S──▶ StartingTls ──TlsStarted──▶ Greeting
///    └──────────────────no tls──────────────────────────────▶ Greeting ──▶ Authenticating ──AuthenticationOk──▶ Starting
/// Starting ──ReadyForQuery──▶ Ended
/// ```
pub struct Connect {
    options: ConnectOptions,
    state: State,
}

enum State {
    Start,
    /// SSLRequest was sent.
    TlsAsked,
    /// The server said yes.
    StartingTls,
    /// The startup packet is to be sent.
    Greeting(Channel),
    /// The startup packet was sent.
    Authenticating(Channel, Proof),
    /// AuthenticationOk came.
    Starting(Starting),
    Ended,
}

/// Who can listen.
enum Channel {
    /// Nobody: TLS.
    Tls(Secured),
    /// Nobody: a local socket.
    Local,
    /// Anybody on the way.
    Open,
}

/// What we have proven so far.
enum Proof {
    /// Nothing was asked.
    Nothing,
    /// The password was sent, in the clear or as MD5: only AuthenticationOk may follow.
    Sent,
    /// SASLInitialResponse was sent.
    ScramFirst(Scram),
    /// SASLResponse was sent: the server must prove itself.
    ScramFinal(Scram),
    /// The server has proven itself.
    Mutual,
}

/// Our half of SCRAM.
enum Scram {
    /// By a password.
    Password(ScramSha256),
    /// By the keys made of one.
    Keys(KeyHolder),
}

/// What the server says between AuthenticationOk and ReadyForQuery.
#[derive(Default)]
struct Starting {
    parameters: Parameters,
    process_id: u32,
    secret: Vec<u8>,
}

impl Connect {
    /// A connection that is just open.
    pub fn new(options: ConnectOptions) -> Self {
        Self { options, state: State::Start }
    }

    /// [`Handshake::step`](crate::protocol::Handshake::step), without the server's machine built of it. The first call
    /// needs no input: the client speaks first.
    pub fn step_inner(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<Connected>), HandshakeError> {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            // Until it is replaced the login has ended: so it stays after an error.
            let state = match mem::replace(&mut self.state, State::Ended) {
                State::Start if self.options.tls => {
                    message::ssl_request(out);
                    State::TlsAsked
                }
                State::Start => State::Greeting(self.channel()),
                State::TlsAsked => {
                    let Some((answer, more)) = rest.split_first() else {
                        self.state = State::TlsAsked;
                        return Ok((taken, Step::NeedInput));
                    };
                    tls_answer(*answer, more)?;
                    taken += 1;
                    State::StartingTls
                }
                State::StartingTls if rest.is_empty() => {
                    self.state = State::StartingTls;
                    return Ok((taken, Step::StartTls));
                }
                State::StartingTls => return Err(Violation::PlaintextAfterTlsRequest.into()),
                State::Greeting(channel) => {
                    self.greet(out);
                    State::Authenticating(channel, Proof::Nothing)
                }
                state @ (State::Authenticating(..) | State::Starting(_)) => {
                    let Some((head, body)) = whole(rest, FRAME_BYTES_MAX)? else {
                        self.state = state;
                        return Ok((taken, Step::NeedInput));
                    };
                    taken += head.len;
                    let frame = rest.get(..head.len).unwrap_or_default();
                    match self.receive(state, head, body, frame, out)? {
                        Received::Next(state) => state,
                        Received::Done(connected) => return Ok((taken, Step::Done(connected))),
                    }
                }
                State::Ended => return Err(Violation::MalformedAuthentication.into()),
            };
            self.state = state;
        }
    }

    /// [`Handshake::answer`](crate::protocol::Handshake::answer): TLS has started. Any other answer is ignored.
    pub fn answer(&mut self, answer: Answer) {
        if let (State::StartingTls, Answer::TlsStarted(tls)) = (&self.state, answer) {
            self.state = State::Greeting(Channel::Tls(tls));
        }
    }

    const fn channel(&self) -> Channel {
        if self.options.local_socket { Channel::Local } else { Channel::Open }
    }

    /// Writes the startup packet.
    fn greet(&self, out: &mut Vec<u8>) {
        let names = [("user", self.options.user.as_str()), ("database", self.options.database.as_str())];
        let fixed = self.options.fixed.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        message::startup_message((3, 0), names.into_iter().chain(fixed), out);
    }

    /// Takes one frame after the startup packet.
    fn receive(
        &self,
        state: State,
        head: Head,
        body: &[u8],
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Received, HandshakeError> {
        match head.kind {
            from_server::ERROR_RESPONSE => {
                let malformed = || Violation::MalformedFrame(head.kind).into();
                return Err(message::server_error(frame).map_or_else(malformed, HandshakeError::Server));
            }
            // We ask for the oldest version and for no option; whoever negotiates that down says nothing we need.
            from_server::NOTICE_RESPONSE | from_server::NEGOTIATE_PROTOCOL_VERSION => return Ok(Received::Next(state)),
            _ => (),
        }
        match state {
            State::Authenticating(channel, proof) if head.kind == from_server::AUTHENTICATION => {
                self.authenticate(channel, proof, body, out).map(Received::Next)
            }
            State::Starting(starting) => self.start(starting, head.kind, body),
            State::Authenticating(..)
            | State::Start
            | State::TlsAsked
            | State::StartingTls
            | State::Greeting(_)
            | State::Ended => Err(Violation::UnexpectedReply(head.kind).into()),
        }
    }

    /// Takes one of the Authentication messages.
    fn authenticate(
        &self,
        channel: Channel,
        proof: Proof,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<State, HandshakeError> {
        let (code, data) = body.split_first_chunk().ok_or(Violation::MalformedFrame(from_server::AUTHENTICATION))?;
        let proof = match (u32::from_be_bytes(*code), proof) {
            (0, Proof::Nothing | Proof::Sent | Proof::Mutual) => return Ok(State::Starting(Starting::default())),
            // Whoever answers SCRAM's beginning so need not know the password at all.
            (0, Proof::ScramFirst(_) | Proof::ScramFinal(_)) => return Err(HandshakeError::ServerNotProven),
            (3, Proof::Nothing) => {
                let password = self.password("in the clear, and none is configured")?;
                if matches!(channel, Channel::Open) {
                    return Err(HandshakeError::NoPassword("in the clear, without TLS"));
                }
                message::password_message(password.expose(), out);
                Proof::Sent
            }
            (5, Proof::Nothing) => {
                let salt = data.try_into().map_err(|_| Violation::MalformedFrame(from_server::AUTHENTICATION))?;
                let hashed = self.md5(salt)?;
                message::password_message(hashed.as_bytes(), out);
                Proof::Sent
            }
            (10, Proof::Nothing) => {
                let (mechanism, binding) = mechanism(data, &channel)?;
                let scram = self.scram(binding)?;
                message::sasl_initial_response(mechanism, &scram.first(), out);
                Proof::ScramFirst(scram)
            }
            (11, Proof::ScramFirst(mut scram)) => {
                message::sasl_response(&scram.last(data)?, out);
                Proof::ScramFinal(scram)
            }
            (12, Proof::ScramFinal(scram)) => {
                if !scram.finish(data) {
                    return Err(HandshakeError::ServerNotProven);
                }
                Proof::Mutual
            }
            (2, Proof::Nothing) => return Err(HandshakeError::UnsupportedMethod("Kerberos V5")),
            (7, Proof::Nothing) => return Err(HandshakeError::UnsupportedMethod("GSSAPI")),
            (9, Proof::Nothing) => return Err(HandshakeError::UnsupportedMethod("SSPI")),
            (3 | 5 | 7..=12, _) => return Err(Violation::MalformedAuthentication.into()),
            (_, _) => return Err(HandshakeError::UnsupportedMethod("unknown")),
        };
        Ok(State::Authenticating(channel, proof))
    }

    fn password(&self, why: &'static str) -> Result<&Password, HandshakeError> {
        match &self.options.secret {
            Some(LoginSecret::Password(password)) => Ok(password),
            Some(LoginSecret::Unsaid(_)) => Err(HandshakeError::NoPassword(
                "in the clear, and with tls = \"require\" anybody in between could be asking: it takes \"verify-full\" or \
                 \"verify-ca\"",
            )),
            Some(LoginSecret::Scram(_) | LoginSecret::Md5(_)) | None => Err(HandshakeError::NoPassword(why)),
        }
    }

    fn scram(&self, binding: Binding) -> Result<Scram, HandshakeError> {
        match &self.options.secret {
            // The one exception to "randomness comes in as an argument": postgres-protocol draws the client's
            // nonce itself and lets nobody pass one (0.6.12).
            Some(LoginSecret::Password(password) | LoginSecret::Unsaid(password)) => {
                Ok(Scram::Password(ScramSha256::new(
                    password.expose(),
                    match binding {
                        Binding::Unsupported => ChannelBinding::unsupported(),
                        Binding::Unrequested => ChannelBinding::unrequested(),
                        Binding::EndPoint(data) => ChannelBinding::tls_server_end_point(data),
                    },
                )))
            }
            Some(LoginSecret::Scram(keys)) => {
                Ok(Scram::Keys(KeyHolder::new(keys.clone(), self.options.nonce, binding)))
            }
            Some(LoginSecret::Md5(_)) | None => {
                Err(HandshakeError::NoPassword("by SCRAM-SHA-256, and none is known here"))
            }
        }
    }

    /// What is answered to a challenge by MD5.
    fn md5(&self, salt: [u8; 4]) -> Result<String, HandshakeError> {
        match &self.options.secret {
            Some(LoginSecret::Password(password) | LoginSecret::Unsaid(password)) => {
                Ok(md5_hash(self.options.user.as_bytes(), password.expose(), salt))
            }
            Some(LoginSecret::Md5(stored)) => {
                // The second half of `md5_hash`.
                let digest = Md5::new().chain_update(stored).chain_update(salt).finalize();
                Ok(digest.iter().fold("md5".to_owned(), |text, byte| format!("{text}{byte:02x}")))
            }
            Some(LoginSecret::Scram(_)) | None => Err(HandshakeError::NoPassword("by MD5, and none is known here")),
        }
    }

    /// Takes one of the frames that follow AuthenticationOk.
    fn start(&self, mut starting: Starting, kind: u8, body: &[u8]) -> Result<Received, HandshakeError> {
        let malformed = Violation::MalformedFrame(kind);
        match kind {
            from_server::PARAMETER_STATUS => {
                let (name, value) = message::read_parameter_status(body).ok_or(malformed)?;
                starting.parameters.insert(name.into_owned(), value.into_owned());
                if starting.parameters.len() > PARAMETERS_MAX {
                    return Err(Violation::UnexpectedReply(kind).into());
                }
            }
            from_server::BACKEND_KEY_DATA => {
                let key = message::read_backend_key_data(body);
                let key = key.filter(|(_, secret)| CANCEL_SECRET_BYTES.contains(&secret.len()));
                let (process_id, secret) = key.unwrap_or_default();
                (starting.process_id, starting.secret) = (process_id, secret.to_vec());
            }
            from_server::READY_FOR_QUERY => {
                if message::read_ready_for_query(body) != Some(b'I') {
                    return Err(malformed.into());
                }
                if starting.parameters.get("in_hot_standby").is_some_and(|value| value == "on") {
                    return Err(HandshakeError::Standby);
                }
                let Starting { parameters, process_id, secret } = starting;
                return Ok(Received::Done(Connected {
                    parameters,
                    process_id,
                    secret,
                    max_prepared_statements: self.options.max_prepared_statements,
                    statement_key: self.options.statement_key,
                }));
            }
            _ => return Err(Violation::UnexpectedReply(kind).into()),
        }
        Ok(Received::Next(State::Starting(starting)))
    }
}

impl Scram {
    /// client-first.
    fn first(&self) -> Vec<u8> {
        match self {
            Self::Password(scram) => scram.message().to_vec(),
            Self::Keys(holder) => holder.first(),
        }
    }

    /// Takes server-first; gives client-final.
    fn last(&mut self, server_first: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        match self {
            Self::Password(scram) => {
                scram.update(server_first).map_err(|error| HandshakeError::Challenge(error.to_string()))?;
                Ok(scram.message().to_vec())
            }
            Self::Keys(holder) => Ok(holder.last(server_first).map_err(|_| Violation::MalformedAuthentication)?),
        }
    }

    /// Takes server-final; whether the server has proven itself.
    fn finish(self, server_final: &[u8]) -> bool {
        match self {
            Self::Password(mut scram) => scram.finish(server_final).is_ok(),
            Self::Keys(holder) => holder.is_proven(server_final),
        }
    }
}

/// What a frame led to.
enum Received {
    Next(State),
    Done(Connected),
}

/// The answer to SSLRequest. An ErrorResponse in its place is not read: anybody may have put it there
/// (CVE-2024-10977), nor are bytes behind the answer (CVE-2021-23222).
fn tls_answer(answer: u8, more: &[u8]) -> Result<(), HandshakeError> {
    match answer {
        b'S' if more.is_empty() => Ok(()),
        b'S' => Err(Violation::PlaintextAfterTlsRequest.into()),
        b'N' => Err(HandshakeError::TlsDeclined),
        kind => Err(Violation::UnexpectedReply(kind).into()),
    }
}

/// The mechanism to log in by, of those offered: with channel binding where both sides can; others are passed over. A
/// server that does not offer the binding is told that we could have (`y`): if it did offer it, somebody has cut that out.
fn mechanism(mut list: &[u8], channel: &Channel) -> Result<(&'static str, Binding), HandshakeError> {
    let (mut scram, mut scram_plus) = (false, false);
    loop {
        let (name, rest) = cstr(list).ok_or(Violation::MalformedFrame(from_server::AUTHENTICATION))?;
        if name.is_empty() {
            break;
        }
        scram |= name == MECHANISM.as_bytes();
        scram_plus |= name == MECHANISM_PLUS.as_bytes();
        list = rest;
    }
    let end_point = match channel {
        Channel::Tls(tls) => tls.end_point.clone(),
        Channel::Local | Channel::Open => None,
    };
    match end_point {
        Some(end_point) if scram_plus => Ok((MECHANISM_PLUS, Binding::EndPoint(end_point))),
        Some(_) if scram => Ok((MECHANISM, Binding::Unrequested)),
        None if scram => Ok((MECHANISM, Binding::Unsupported)),
        Some(_) | None => Err(HandshakeError::UnsupportedMethod("SASL without SCRAM-SHA-256")),
    }
}

#[cfg(test)]
mod tests;
