//! A client's login: we play the server
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>).
//!
//! Greets, starts TLS if the client asks for it, reads its response, has it prove who it is, and welcomes it. Promises: a
//! client that must use TLS proves nothing without it; no password in the clear is asked for, or taken, without it; an unknown user's login
//! takes the same path as a known one's; what comes behind a request for TLS in the same breath ends the login.

mod proof;

use super::capabilities::{Capabilities, Extended, fixed, offered};
use super::compress::Algorithm;
use super::frame::{self, Head, packet};
use super::message::{self, ClientResponse, OkPacket, mark, status};
use super::password::{CHALLENGE_BYTES, Plugin, challenge};
use crate::protocol::{
    AcceptOptions, Accepted, Answer, ClientError, Credentials, HandshakeError, Knowledge, Login, Password, Question,
    Secured, Settings, Step, TlsOffer, Violation, Welcome,
};
use crate::sql::mysql::settings::NAMES;
use mysql_common::constants::StatusFlags;
use mysql_common::packets::HandshakePacket;
use mysql_common::proto::MySerialize;
use proof::Expected;
use std::mem;
use std::sync::Arc;

/// Bytes of a client's packets here: attributes of 64 KiB and the rest.
const RESPONSE_BYTES_MAX: usize = 70 << 10;
/// Bytes of an SSLRequest.
const TLS_REQUEST_BYTES: usize = 32;
/// Said while no target has told its own version.
const VERSION_UNKNOWN: &str = "8.0.0";
/// utf8mb4_general_ci, which every server has; a client says its own.
const COLLATION: u8 = 45;

/// A session that begins.
#[derive(Debug)]
pub struct Started {
    /// What the client asked for.
    pub login: Login,
    /// What it was told.
    pub welcome: Welcome,
    /// What both sides can do.
    pub capabilities: Capabilities,
    /// The same of what is MariaDB's own.
    pub extended: Extended,
    /// What it says that its program is.
    pub application: String,
    /// How its packets are compressed from here on. `None`: as they are already, or not at all.
    pub compression: Option<Algorithm>,
}

/// The machine. Drive it as a [`Handshake`](crate::protocol::Handshake).
///
/// ```text
/// Changing ──COM_CHANGE_USER──▶ Known
/// Start ──greeting──▶ Greeted ──SSLRequest──▶ StartingTls ──TlsStarted──▶ Greeted
///    Greeted ──response──▶ Known ──Credentials──┬─certificate──────────────────────────▶ Judged
///                                               ├─challenge answered───────────────────▶ Judged or Doubted
///                                               ├─challenge anew──▶ Challenged ──answer──▶ Judged or Doubted
///                                               └─password asked──▶ Asked ──▶ Judging ──▶ Judged
///    Doubted ──password───────────────────────────▶ Judged
///    Doubted ──key wanted──▶ KeyShown ──password──▶ Judged
///    Judged ──▶ Proven ──Welcome──▶ Ended
/// ```
pub struct Accept {
    options: AcceptOptions,
    state: State,
    /// Of the next packet of ours.
    sequence: u8,
    /// The client logs in again, and has seen no challenge of this login yet.
    is_again: bool,
}

enum State {
    Start,
    /// Waits for the response, over TLS or not.
    Greeted(Option<Secured>),
    /// Waits for the COM_CHANGE_USER of a client with these capabilities.
    Changing(Capabilities, Extended),
    /// SSLRequest has come.
    StartingTls,
    /// Waits for [`Answer::Credentials`].
    Known(Known),
    MayProve(Known, Credentials),
    /// Another challenge has been sent.
    Challenged(Known, Expected),
    /// The answer to a challenge was wrong: the password itself has been asked for, or a request for our key may come.
    Doubted(Known, Expected),
    /// Our key has been sent, for the password to be put under it.
    KeyShown(Known, Expected),
    /// A challenge has been sent to who is to say the password itself, once it has answered.
    Switched(Known),
    /// The password itself has been asked for.
    Asked(Known),
    /// Waits for [`Answer::Judged`]: whether its answer is its password, or a token that is good.
    Judging(Known),
    Judged(Known, Result<(), ClientError>),
    /// Waits for [`Answer::Welcome`].
    Proven(Known),
    Welcomed(Started),
    Ended,
}

/// What the client has said of itself.
struct Known {
    login: Login,
    capabilities: Capabilities,
    extended: Extended,
    application: String,
    compression: Option<Algorithm>,
    plugin: Plugin,
    /// What its plugin has answered to the last challenge, or said itself. Empty: it has no password.
    answer: Password,
    tls: Option<Secured>,
}

/// What one state made of its input: bytes taken, the next state, and what the core must do now (`None`: go on).
type Moved = (usize, State, Option<Step<Accepted<Started>>>);

impl Accept {
    /// A client that has just connected.
    pub fn new(options: AcceptOptions) -> Self {
        Self { options, state: State::Start, sequence: 0, is_again: false }
    }

    /// A client that logs in again, with the capabilities that it has.
    pub fn again(capabilities: Capabilities, extended: Extended, options: AcceptOptions) -> Self {
        Self { options, state: State::Changing(capabilities, extended), sequence: 0, is_again: true }
    }

    /// [`Handshake::step`](crate::protocol::Handshake::step), without the client's machine built of it.
    pub fn step_inner(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Step<Accepted<Started>>), HandshakeError> {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            // Until it is replaced the login has ended: so it stays after an error.
            let (more, state, step) = match mem::replace(&mut self.state, State::Ended) {
                State::Start => {
                    self.greet(out);
                    (0, State::Greeted(None), None)
                }
                State::Greeted(tls) => self.response(tls, rest, out)?,
                State::Changing(capabilities, extended) => self.change(capabilities, extended, rest, out)?,
                State::StartingTls if rest.is_empty() => (0, State::StartingTls, Some(Step::StartTls)),
                State::StartingTls => return Err(Violation::PlaintextAfterTlsRequest.into()),
                State::Known(known) => {
                    let question = Question::Credentials {
                        user: known.login.user.clone(),
                        database: known.login.database.clone(),
                        knowledge: Knowledge::Password,
                    };
                    (0, State::Known(known), Some(Step::Ask(question)))
                }
                State::MayProve(known, credentials) => self.ask_for_proof(known, credentials, out)?,
                State::Challenged(known, expected) => match self.next(rest)? {
                    None => (0, State::Challenged(known, expected), Some(Step::NeedInput)),
                    Some((len, said)) => {
                        (len, self.answered(Known { answer: answer(said), ..known }, expected, out), None)
                    }
                },
                State::Doubted(known, expected) => match self.next(rest)? {
                    None => (0, State::Doubted(known, expected), Some(Step::NeedInput)),
                    Some((len, said)) => (len, self.said(known, expected, said, out), None),
                },
                State::KeyShown(known, expected) => match self.next(rest)? {
                    None => (0, State::KeyShown(known, expected), Some(Step::NeedInput)),
                    Some((len, sealed)) => (len, self.proven_by_password(known, &expected, sealed), None),
                },
                State::Switched(known) => match self.next(rest)? {
                    None => (0, State::Switched(known), Some(Step::NeedInput)),
                    Some((len, _)) => (len, self.ask_for_password(known, out), None),
                },
                State::Asked(known) => match self.next(rest)? {
                    None => (0, State::Asked(known), Some(Step::NeedInput)),
                    Some((len, said)) => (len, proof::said_itself(known, said), None),
                },
                State::Judging(known) => {
                    let question =
                        Question::Password { user: known.login.user.clone(), password: known.answer.clone() };
                    (0, State::Judging(known), Some(Step::Ask(question)))
                }
                State::Judged(known, Ok(())) => (0, State::Proven(known), None),
                State::Judged(known, Err(error)) => {
                    let has_shown = !known.answer.expose().is_empty();
                    packet(out, &mut self.sequence, |out| message::login_refused(&error, has_shown, out));
                    return Err(HandshakeError::Refused(error));
                }
                State::Proven(known) => {
                    let question = Question::Welcome(known.login.clone());
                    (0, State::Proven(known), Some(Step::Ask(question)))
                }
                State::Welcomed(started) => {
                    let ok = OkPacket { status: told_status(&started.welcome), ..OkPacket::default() };
                    let tracks = started.capabilities.contains(Capabilities::CLIENT_SESSION_TRACK);
                    packet(out, &mut self.sequence, |out| ok.write(mark::OK, tracks, out));
                    (0, State::Ended, Some(Step::Done(Accepted::Client(started))))
                }
                State::Ended => return Err(Violation::MalformedAuthentication.into()),
            };
            taken += more;
            self.state = state;
            if let Some(step) = step {
                return Ok((taken, step));
            }
        }
    }

    /// [`Handshake::wanted`](crate::protocol::Handshake::wanted): a client says SSLRequest and begins with TLS in one breath.
    pub fn wanted(&self, input: &[u8]) -> usize {
        let is_open = matches!(self.state, State::Greeted(None));
        let whole = frame::head(input).map_or(frame::HEAD_BYTES, Head::bytes);
        if is_open { whole.saturating_sub(input.len()).max(1) } else { usize::MAX }
    }

    /// [`Handshake::doubts`](crate::protocol::Handshake::doubts).
    pub fn doubts(&self) -> Option<&str> {
        match &self.state {
            State::Doubted(known, _) | State::KeyShown(known, _) => Some(&known.login.user),
            State::Start
            | State::Greeted(_)
            | State::Changing(..)
            | State::StartingTls
            | State::Known(_)
            | State::MayProve(..)
            | State::Challenged(..)
            | State::Switched(_)
            | State::Asked(_)
            | State::Judging(_)
            | State::Judged(..)
            | State::Proven(_)
            | State::Welcomed(_)
            | State::Ended => None,
        }
    }

    /// [`Handshake::answer`](crate::protocol::Handshake::answer). An answer to what was not asked is ignored.
    pub fn answer(&mut self, answer: Answer) {
        self.state = match (mem::replace(&mut self.state, State::Ended), answer) {
            (State::StartingTls, Answer::TlsStarted(tls)) => State::Greeted(Some(tls)),
            (State::Known(known), Answer::Credentials(credentials)) => State::MayProve(known, credentials),
            (State::Judging(known), Answer::Judged(verdict)) => State::Judged(known, verdict),
            (
                State::Proven(Known { login, capabilities, extended, application, compression, .. }),
                Answer::Welcome(welcome),
            ) => State::Welcomed(Started { login, welcome, capabilities, extended, application, compression }),
            (state, _) => state,
        };
    }

    /// [`Handshake::pass_over`](crate::protocol::Handshake::pass_over): the number of what comes next is that of what is behind it.
    pub fn pass_over(&mut self, input: &[u8]) {
        if let Some(head) = frame::head(input) {
            self.sequence = head.sequence.wrapping_add(1);
        }
    }

    /// [`Handshake::refuse`](crate::protocol::Handshake::refuse). Writes nothing if the login has ended, or if the
    /// client expects a TLS handshake.
    pub fn refuse(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        match mem::replace(&mut self.state, State::Ended) {
            State::StartingTls | State::Ended => (),
            State::Start
            | State::Greeted(_)
            | State::Changing(..)
            | State::Switched(_)
            | State::Known(_)
            | State::MayProve(..)
            | State::Challenged(..)
            | State::Asked(_)
            | State::Doubted(..)
            | State::KeyShown(..)
            | State::Judging(_)
            | State::Judged(..)
            | State::Proven(_)
            | State::Welcomed(_) => packet(out, &mut self.sequence, |out| message::client_error(error, out)),
        }
    }

    fn refused(&mut self, error: ClientError, out: &mut Vec<u8>) -> HandshakeError {
        packet(out, &mut self.sequence, |out| message::client_error(&error, out));
        HandshakeError::Refused(error)
    }

    fn challenge(&self, which: usize) -> [u8; CHALLENGE_BYTES] {
        challenge(self.options.greeting.challenges.get(which).copied().unwrap_or_default())
    }

    /// What this client may use.
    fn offered(&self) -> (Capabilities, Extended) {
        offered(self.options.greeting.version.as_deref())
    }

    fn offers_tls(&self) -> bool {
        matches!(self.options.tls, TlsOffer::Required | TlsOffer::Optional)
    }

    fn greet(&mut self, out: &mut Vec<u8>) {
        let tls = if self.offers_tls() { Capabilities::CLIENT_SSL } else { Capabilities::empty() };
        let version = self.options.greeting.version.clone().unwrap_or_else(|| VERSION_UNKNOWN.into());
        let (usual, extended) = self.offered();
        let challenge = self.challenge(0);
        let (first, second) = challenge.split_first_chunk::<8>().map_or(([0; 8], &[][..]), |(a, b)| (*a, b));
        let greeting = HandshakePacket::new(
            10,
            version.as_bytes(),
            self.options.greeting.connection_id,
            first,
            // With the zero byte that has always been there.
            Some([second, b"\0"].concat()),
            usual | tls,
            COLLATION,
            StatusFlags::SERVER_STATUS_AUTOCOMMIT,
            Some(Plugin::CachingSha2.name().as_bytes()),
        )
        .with_mariadb_ext_capabilities(extended);
        packet(out, &mut self.sequence, |out| greeting.serialize(out));
    }

    /// A packet of the client's, in its turn: its bytes and its payload.
    fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, &'a [u8])>, HandshakeError> {
        let Some((head, payload)) = frame::whole(input, RESPONSE_BYTES_MAX)? else { return Ok(None) };
        if head.sequence != self.sequence {
            return Err(Violation::MalformedAuthentication.into());
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some((head.bytes(), payload)))
    }

    /// SSLRequest, or the response to the greeting.
    fn response(&mut self, tls: Option<Secured>, input: &[u8], out: &mut Vec<u8>) -> Result<Moved, HandshakeError> {
        let bad = |this: &mut Self, out: &mut Vec<u8>| {
            this.refused(ClientError::Protocol(Violation::InvalidStartup), out);
            HandshakeError::from(Violation::InvalidStartup)
        };
        let Ok(next) = self.next(input) else {
            // Too long, or out of turn; the client has sent it all the same.
            self.sequence = self.sequence.wrapping_add(1);
            return Err(bad(self, out));
        };
        let Some((len, payload)) = next else { return Ok((0, State::Greeted(tls), Some(Step::NeedInput))) };
        let flags = payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let wants_tls = flags & Capabilities::CLIENT_SSL.bits() != 0;
        if wants_tls && tls.is_none() && payload.len() == TLS_REQUEST_BYTES && self.offers_tls() {
            if input.len() > len {
                return Err(Violation::PlaintextAfterTlsRequest.into());
            }
            return Ok((len, State::StartingTls, None));
        }
        if flags & Capabilities::CLIENT_PROTOCOL_41.bits() == 0 {
            return Err(bad(self, out));
        }
        let Some(response) = ClientResponse::read(payload) else { return Err(bad(self, out)) };
        if self.options.tls == TlsOffer::Required && tls.is_none() {
            return Err(self.refused(ClientError::TlsRequired, out));
        }
        let (usual, extended) = self.offered();
        let (capabilities, extended) = (response.capabilities & usual, response.extended & extended);
        let known = self.introduced(ClientResponse { capabilities, extended, ..response }, tls, out)?;
        Ok((len, State::Known(known), None))
    }

    /// COM_CHANGE_USER.
    fn change(
        &mut self,
        capabilities: Capabilities,
        extended: Extended,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Moved, HandshakeError> {
        let Some((len, payload)) = self.next(input)? else {
            return Ok((0, State::Changing(capabilities, extended), Some(Step::NeedInput)));
        };
        let Some(response) = ClientResponse::read_again(payload, capabilities, extended) else {
            let broken = Violation::MalformedFrame(message::command::CHANGE_USER);
            self.refused(ClientError::Protocol(broken), out);
            return Err(broken.into());
        };
        let tls = self.options.direct_tls.take();
        let known = self.introduced(response, tls, out)?;
        Ok((len, State::Known(known), None))
    }

    /// The client has said who it is.
    fn introduced(
        &mut self,
        response: ClientResponse<'_>,
        tls: Option<Secured>,
        out: &mut Vec<u8>,
    ) -> Result<Known, HandshakeError> {
        if response.user.is_empty() {
            return Err(self.refused(ClientError::NoUserName, out));
        }
        let fixed = fixed(response.capabilities, response.extended);
        let login = Login {
            user: response.user.to_owned(),
            database: response.database.to_owned(),
            baseline: Arc::new(Settings::new([(NAMES, response.collation.to_string())])),
            fixed: fixed.map(|name| (name.to_owned(), "on".to_owned())).collect(),
            keys: None,
        };
        let wants = |flag| response.capabilities.contains(flag) && !self.is_again;
        // Who wants both gets what servers have first.
        let compression = if wants(Capabilities::CLIENT_COMPRESS) {
            Some(Algorithm::Zlib)
        } else {
            let level = response.zstd_level;
            wants(Capabilities::CLIENT_ZSTD_COMPRESSION_ALGORITHM).then_some(Algorithm::Zstd(level))
        };
        Ok(Known {
            login,
            capabilities: response.capabilities,
            extended: response.extended,
            application: response.program.to_owned(),
            compression,
            plugin: response.plugin.map_or(Plugin::Native, Plugin::of),
            answer: answer(response.answer),
            tls,
        })
    }
}

/// What a plugin has answered. One zero byte is what some send for an empty password.
fn answer(said: &[u8]) -> Password {
    Password::new(if said == b"\0" { b"" } else { said })
}

/// The status that a client is told at its login: without what the server has said of its answer to somebody else alone.
pub(super) fn told_status(welcome: &Welcome) -> u16 {
    let told = welcome.parameters.get("status").and_then(|status| status.parse::<u16>().ok());
    told.map_or(status::AUTOCOMMIT, |status| status & status::LASTING)
}
