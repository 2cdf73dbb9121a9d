//! A login at a database: we play the client
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>).
//!
//! Reads the greeting, asks for TLS if it is wanted and goes on with it or not at all, and proves a password by
//! `caching_sha2_password`, `mysql_native_password` or, where nobody listens, in the clear. Promises: no password leaves in
//! the clear without TLS or a local socket, nor over TLS to somebody who has not shown who it is; without TLS
//! `caching_sha2_password` falls back on the RSA key that the server shows.

use super::capabilities::{Capabilities, Extended, NEEDED, wanted};
use super::frame::{self, packet, put_string};
use super::message::{self, OkPacket, ServerGreeting, mark};
use super::password::{self, CHALLENGE_BYTES, ED25519, Plugin};
use crate::protocol::{Answer, ConnectOptions, HandshakeError, LoginSecret, Password, Step, Violation};
use std::mem;

/// Bytes of any packet before the login is done.
const PACKET_BYTES_MAX: usize = 64 << 10;
/// The longest packet that we say we take: as long as there are any.
const LONGEST_PACKET: u32 = 1 << 30;
/// utf8mb4_general_ci: every server has it. What a client wants is set when it gets the connection.
pub(super) const COLLATION: u8 = 45;

/// A login that was done.
#[derive(Debug)]
pub struct Connected {
    /// The server's version, in its own words.
    pub version: String,
    /// By which it can be killed.
    pub connection_id: u32,
    /// As the server said it last.
    pub status: u16,
    /// What both sides can do.
    pub capabilities: Capabilities,
    /// The same of what is MariaDB's own.
    pub extended: Extended,
    /// The login, for who has to come again: to kill what this connection does.
    pub options: ConnectOptions,
}

/// The machine. Drive it as a [`Handshake`](crate::protocol::Handshake).
///
/// ```text
/// Start ──greeting──┬─tls──▶ StartingTls ──TlsStarted──▶ Responding
///                   └─no tls────────────────────────────▶ Responding ──response──▶ Proving ──OK──▶ Ended
/// ```
pub struct Connect {
    options: ConnectOptions,
    state: State,
    /// Of the next packet, whoever sends it.
    sequence: u8,
}

enum State {
    Start,
    StartingTls(Greeted),
    /// The response is to be sent.
    Responding(Greeted),
    Proving(Greeted, Proving),
    Ended,
}

/// What the server has said of itself.
struct Greeted {
    version: String,
    connection_id: u32,
    challenge: [u8; CHALLENGE_BYTES],
    plugin: Plugin,
    is_tls: bool,
    capabilities: Capabilities,
    extended: Extended,
}

/// How far the proof has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proving {
    /// An answer was sent.
    Answered,
    /// The server's key was asked for.
    KeyAsked,
    /// The password was sent.
    Said,
}

impl Connect {
    /// A connection that is just open.
    pub fn new(options: ConnectOptions) -> Self {
        Self { options, state: State::Start, sequence: 0 }
    }

    /// [`Handshake::step`](crate::protocol::Handshake::step), without the server's machine built of it.
    pub fn step_inner(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<Connected>), HandshakeError> {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            // Until it is replaced the login has ended: so it stays after an error.
            let state = match mem::replace(&mut self.state, State::Ended) {
                State::Start => {
                    let Some((len, payload)) = self.next(rest)? else {
                        self.state = State::Start;
                        return Ok((taken, Step::NeedInput));
                    };
                    let greeted = self.greeting(payload)?;
                    taken += len;
                    if !self.options.tls {
                        State::Responding(greeted)
                    } else if rest.len() > len {
                        // Nobody may put in words of a server's before TLS has started.
                        return Err(Violation::PlaintextAfterTlsRequest.into());
                    } else {
                        packet(out, &mut self.sequence, |out| response_head(&greeted, out));
                        State::StartingTls(greeted)
                    }
                }
                State::StartingTls(greeted) if rest.is_empty() => {
                    self.state = State::StartingTls(greeted);
                    return Ok((taken, Step::StartTls));
                }
                State::StartingTls(_) => return Err(Violation::PlaintextAfterTlsRequest.into()),
                State::Responding(greeted) => {
                    self.respond(&greeted, out)?;
                    State::Proving(greeted, Proving::Answered)
                }
                State::Proving(greeted, proving) => {
                    let Some((len, payload)) = self.next(rest)? else {
                        self.state = State::Proving(greeted, proving);
                        return Ok((taken, Step::NeedInput));
                    };
                    taken += len;
                    if payload.first() == Some(&mark::OK) {
                        let ok = OkPacket::read(payload).ok_or(Violation::MalformedFrame(mark::OK))?;
                        let connected = Connected {
                            version: greeted.version,
                            connection_id: greeted.connection_id,
                            status: ok.status,
                            capabilities: greeted.capabilities,
                            extended: greeted.extended,
                            options: self.options.clone(),
                        };
                        return Ok((taken, Step::Done(connected)));
                    }
                    self.prove(greeted, proving, payload, out)?
                }
                State::Ended => return Err(Violation::MalformedAuthentication.into()),
            };
            self.state = state;
        }
    }

    /// [`Handshake::answer`](crate::protocol::Handshake::answer): TLS has started. Any other answer is ignored.
    pub fn answer(&mut self, answer: Answer) {
        self.state = match (mem::replace(&mut self.state, State::Ended), answer) {
            (State::StartingTls(greeted), Answer::TlsStarted(_)) => {
                State::Responding(Greeted { is_tls: true, ..greeted })
            }
            (state, _) => state,
        };
    }

    /// A packet of the server's, in its turn.
    fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, &'a [u8])>, HandshakeError> {
        let Some((head, payload)) = frame::whole(input, PACKET_BYTES_MAX)? else { return Ok(None) };
        if let Some(error) = message::server_error(payload) {
            return Err(HandshakeError::Server(error));
        }
        if head.sequence != self.sequence {
            return Err(Violation::MalformedAuthentication.into());
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some((head.bytes(), payload)))
    }

    fn greeting(&self, payload: &[u8]) -> Result<Greeted, HandshakeError> {
        let malformed = || HandshakeError::from(Violation::InvalidStartup);
        let greeting = ServerGreeting::read(payload).ok_or_else(malformed)?;
        let has = greeting.capabilities;
        if !has.contains(NEEDED) {
            return Err(HandshakeError::UnsupportedMethod("an older version than MySQL 5.7.6 or MariaDB 10.2"));
        }
        if self.options.tls && !has.contains(Capabilities::CLIENT_SSL) {
            return Err(HandshakeError::TlsDeclined);
        }
        let (mut wanted, extended) = wanted(&self.options.fixed);
        if (extended & !greeting.extended).contains(Extended::MARIADB_CLIENT_EXTENDED_METADATA) {
            // The clients it is for would read columns otherwise than it writes them.
            return Err(HandshakeError::UnsupportedMethod("an older version than clients have been told of"));
        }
        // Servers take what is said before TLS begins, and nothing that is said behind.
        wanted.set(Capabilities::CLIENT_SSL, self.options.tls);
        wanted.set(Capabilities::CLIENT_CONNECT_WITH_DB, !self.options.database.is_empty());
        Ok(Greeted {
            version: greeting.version.to_owned(),
            connection_id: greeting.connection_id,
            challenge: greeting.challenge,
            plugin: Plugin::of(greeting.plugin),
            is_tls: false,
            capabilities: has & wanted,
            extended: greeting.extended & extended,
        })
    }

    fn respond(&mut self, greeted: &Greeted, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        // One that can't be answered yet: the server says which one it wants of this user.
        let plugin = match &greeted.plugin {
            Plugin::Native => Plugin::Native,
            Plugin::CachingSha2 | Plugin::Clear | Plugin::Other(_) => Plugin::CachingSha2,
        };
        let answer = match self.secret() {
            Some(password) => plugin.answer(&greeted.challenge, password).unwrap_or_default(),
            None => Vec::new(),
        };
        let flags = greeted.capabilities;
        let options = &self.options;
        packet(out, &mut self.sequence, |out| {
            response_head(greeted, out);
            out.extend_from_slice(options.user.as_bytes());
            out.push(0);
            if flags.contains(Capabilities::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA) {
                put_string(out, &answer);
            } else {
                out.push(u8::try_from(answer.len()).unwrap_or_default());
                out.extend_from_slice(&answer);
            }
            if !options.database.is_empty() {
                out.extend_from_slice(options.database.as_bytes());
                out.push(0);
            }
            out.extend_from_slice(plugin.name().as_bytes());
            out.push(0);
            if flags.contains(Capabilities::CLIENT_CONNECT_ATTRS) {
                let mut attributes = Vec::new();
                for (name, value) in [("_client_name", "sluicegate"), ("program_name", "sluicegate")] {
                    put_string(&mut attributes, name.as_bytes());
                    put_string(&mut attributes, value.as_bytes());
                }
                put_string(out, &attributes);
            }
        });
        Ok(())
    }

    /// What the server wants beside the first answer.
    fn prove(
        &mut self,
        mut greeted: Greeted,
        proving: Proving,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<State, HandshakeError> {
        let is_safe = greeted.is_tls || self.options.local_socket;
        let proving = match (payload, proving) {
            ([mark::EOF, ..], Proving::Answered) => {
                let (name, challenge) = message::read_switch(payload).ok_or(Violation::MalformedAuthentication)?;
                greeted.plugin = Plugin::of(name);
                match &greeted.plugin {
                    Plugin::Native | Plugin::CachingSha2 => {
                        greeted.challenge = *challenge.first_chunk().ok_or(Violation::MalformedAuthentication)?;
                        let password = self.secret().ok_or(HandshakeError::NoPassword("and none is configured"))?;
                        let answer = greeted.plugin.answer(&greeted.challenge, password).unwrap_or_default();
                        packet(out, &mut self.sequence, |out| out.extend_from_slice(&answer));
                        Proving::Answered
                    }
                    Plugin::Clear => {
                        self.say(is_safe, out)?;
                        Proving::Said
                    }
                    Plugin::Other(name) if name == ED25519 => {
                        let challenge = challenge.first_chunk().ok_or(Violation::MalformedAuthentication)?;
                        let password = self.secret().ok_or(HandshakeError::NoPassword("and none is configured"))?;
                        let signature = password::sign_ed25519(challenge, password);
                        packet(out, &mut self.sequence, |out| out.extend_from_slice(&signature));
                        Proving::Said
                    }
                    Plugin::Other(name) => return Err(HandshakeError::UnsupportedMethod(known_name(name))),
                }
            }
            // The server knows it from before: OK follows.
            ([mark::MORE, 3], Proving::Answered) => Proving::Said,
            ([mark::MORE, 4], Proving::Answered) if is_safe => {
                self.say(true, out)?;
                Proving::Said
            }
            ([mark::MORE, 4], Proving::Answered) => {
                packet(out, &mut self.sequence, |out| out.push(2));
                Proving::KeyAsked
            }
            ([mark::MORE, key @ ..], Proving::KeyAsked) => {
                let sealed = self.sealed(key, &greeted.challenge)?;
                packet(out, &mut self.sequence, |out| out.extend_from_slice(&sealed));
                Proving::Said
            }
            _ => return Err(Violation::MalformedAuthentication.into()),
        };
        Ok(State::Proving(greeted, proving))
    }

    /// The password, to answer challenges with.
    fn secret(&self) -> Option<&Password> {
        match &self.options.secret {
            Some(LoginSecret::Password(password) | LoginSecret::Unsaid(password)) => Some(password),
            Some(LoginSecret::Scram(_) | LoginSecret::Md5(_)) | None => None,
        }
    }

    /// Says the password as it is.
    fn say(&mut self, is_safe: bool, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let password = match &self.options.secret {
            Some(LoginSecret::Password(password)) if is_safe => password,
            Some(LoginSecret::Password(_)) => return Err(HandshakeError::NoPassword("in the clear, without TLS")),
            Some(LoginSecret::Unsaid(_)) => {
                return Err(HandshakeError::NoPassword(
                    "in the clear, and with tls = \"require\" anybody in between could be asking: it takes \
                     \"verify-full\" or \"verify-ca\"",
                ));
            }
            Some(LoginSecret::Scram(_) | LoginSecret::Md5(_)) | None => {
                return Err(HandshakeError::NoPassword("in the clear, and none is configured"));
            }
        };
        let said = [password.expose(), b"\0"].concat();
        packet(out, &mut self.sequence, |out| out.extend_from_slice(&said));
        Ok(())
    }

    /// The password for the eyes of who has this key's other half.
    fn sealed(&self, key: &[u8], challenge: &[u8; CHALLENGE_BYTES]) -> Result<Vec<u8>, HandshakeError> {
        let password = self.secret().ok_or(HandshakeError::NoPassword("and none is configured"))?;
        password::sealed(password, challenge, key)
            .ok_or_else(|| HandshakeError::Challenge("its RSA key is none, or too short".to_owned()))
    }
}

/// What SSLRequest and the response begin with.
fn response_head(greeted: &Greeted, out: &mut Vec<u8>) {
    out.extend_from_slice(&greeted.capabilities.bits().to_le_bytes());
    out.extend_from_slice(&LONGEST_PACKET.to_le_bytes());
    out.push(COLLATION);
    out.extend_from_slice(&[0; 19]);
    out.extend_from_slice(&greeted.extended.bits().to_le_bytes());
}

/// Plugins that servers ask for.
fn known_name(name: &str) -> &'static str {
    const NAMES: &[&str] = &[
        "sha256_password",
        "parsec",
        "auth_gssapi_client",
        "authentication_ldap_sasl_client",
        "dialog",
        "mysql_old_password",
        "authentication_webauthn_client",
    ];
    NAMES.iter().find(|known| **known == name).copied().unwrap_or("a plugin that is not known here")
}
