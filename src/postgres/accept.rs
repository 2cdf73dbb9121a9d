//! A client's login: we play the server
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>).
//!
//! Answers requests for encryption, negotiates the version, reads the startup packet, asks for a SCRAM-SHA-256 proof
//! and welcomes the client; or takes a CancelRequest. What goes wrong is worded and coded as PostgreSQL does it.
//! Promises: a client that must use TLS proves nothing without it; an unknown user's login takes the same path as a
//! known one's; no byte of a frame is taken before the frame is whole, and a head that announces too much fails at once.

use super::frame::{PASSWORD_FRAME_BYTES_MAX, PROOF_FRAME_BYTES_MAX, cstr, startup_head, whole};
use super::message::{self, Severity, from_client, request_code};
use super::scram::{self, ScramError};
use super::startup::Startup;
use crate::protocol::{
    AcceptOptions, Accepted, Answer, CancelKey, ClientError, Credentials, HandshakeError, Knowledge, Login, Password,
    Proof, Question, Secured, Settings, Step, TlsOffer, Violation, Welcome,
};
use md5::{Digest, Md5};
use std::mem;
use std::sync::Arc;

/// The latest minor version of protocol 3 that is spoken here: long cancel keys.
const MINOR_MAX: u16 = 2;

/// Bytes a cancel secret may have: 4 on protocol 3.0, up to 256 since 3.2.
const CANCEL_SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// A session that begins.
#[derive(Debug)]
pub struct Started {
    /// What the client asked for.
    pub login: Login,
    /// What it was told.
    pub welcome: Welcome,
    /// The version agreed on: 3.0 or 3.2.
    pub protocol: (u16, u16),
}

/// The machine. Drive it as a [`Handshake`](crate::protocol::Handshake).
///
/// ```text
/// Opening ──SSLRequest──▶ StartingTls ──TlsStarted──▶ Opening
///    ├──CancelRequest──▶ Ended
///    └──startup packet──▶ Known ──Credentials──┬─SCRAM──▶ AwaitingFirst ──p──▶ AwaitingFinal ──p──▶ Proven ──Welcome──▶ Ended
///                                              ├─md5──▶ AwaitingMd5 ──p──▶ Judged ──▶ Proven
///                                              ├─certificate────────────────────────────▶ Judged ──▶ Proven
///                                              └─password──▶ AwaitingPassword ──p──▶ Judging ──Judged──▶ Judged ──▶ Proven
/// ```
///
/// Any of them ends with an error; the words for it are in `out` then (or none, where PostgreSQL has none), and
/// [`refuse`](Self::refuse) adds nothing.
pub struct Accept {
    options: AcceptOptions,
    state: State,
}

enum State {
    Opening(Opening),
    /// `S` was sent.
    StartingTls,
    /// The startup packet was read. Waits for [`Answer::Credentials`].
    Known(Known),
    /// The credentials are there.
    MayProve(Known, Credentials),
    /// AuthenticationCleartextPassword was sent.
    AwaitingPassword(Known),
    /// The password is here. Waits for [`Answer::Judged`].
    Judging(Known, Password),
    /// It holds, or does not.
    Judged(Known, Result<(), ClientError>),
    /// AuthenticationMD5Password was sent.
    AwaitingMd5(AwaitingMd5),
    /// AuthenticationSASL was sent.
    AwaitingFirst(AwaitingFirst),
    /// The challenge was sent.
    AwaitingFinal(AwaitingFinal),
    /// AuthenticationOk was sent. Waits for [`Answer::Welcome`].
    Proven(Known),
    /// The welcome is there.
    Welcomed(Started),
    Ended,
}

/// Before the startup packet: which requests may still come. PostgreSQL takes each at most once.
struct Opening {
    may_ask_tls: bool,
    may_ask_gss: bool,
    tls: Option<Secured>,
}

/// What the startup packet said.
struct Known {
    login: Login,
    protocol: (u16, u16),
    tls: Option<Secured>,
}

struct AwaitingMd5 {
    known: Known,
    /// What the client must send.
    expected: Vec<u8>,
    user_exists: bool,
}

struct AwaitingFirst {
    known: Known,
    exchange: scram::First,
    user_exists: bool,
    /// The mechanism that the client has named without a first message: whether it is the one with channel binding.
    chosen: Option<bool>,
}

struct AwaitingFinal {
    known: Known,
    proof: scram::Proof,
    user_exists: bool,
}

/// What one state made of its input: bytes taken, the next state, and what the core must do now (`None`: go on).
type Moved = (usize, State, Option<Step<Accepted<Started>>>);

impl Accept {
    /// A client that has just connected.
    pub fn new(options: AcceptOptions) -> Self {
        // PostgreSQL takes neither request inside TLS.
        let may_ask = options.direct_tls.is_none();
        let opening = Opening { may_ask_tls: may_ask, may_ask_gss: may_ask, tls: options.direct_tls.clone() };
        Self { options, state: State::Opening(opening) }
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
                State::Opening(opening) => opening.step(rest, &self.options, out)?,
                State::StartingTls if rest.is_empty() => (0, State::StartingTls, Some(Step::StartTls)),
                State::StartingTls => return Err(Violation::PlaintextAfterTlsRequest.into()),
                State::Known(known) => {
                    let question = known.question();
                    (0, State::Known(known), Some(Step::Ask(question)))
                }
                State::MayProve(known, credentials) => self.ask_for_proof(known, credentials, out)?,
                State::AwaitingPassword(known) => known.take_password(rest, out)?,
                State::Judging(known, password) => {
                    let question = Question::Password { user: known.login.user.clone(), password: password.clone() };
                    (0, State::Judging(known, password), Some(Step::Ask(question)))
                }
                State::Judged(known, Ok(())) => {
                    message::authentication_ok(out);
                    (0, State::Proven(known), None)
                }
                State::Judged(_, Err(error)) => return Err(refused(error, out)),
                State::AwaitingMd5(state) => state.step(rest, out)?,
                State::AwaitingFirst(state) => state.step(rest, out)?,
                State::AwaitingFinal(state) => state.step(rest, out)?,
                State::Proven(known) => {
                    let question = Question::Welcome(known.login.clone());
                    (0, State::Proven(known), Some(Step::Ask(question)))
                }
                State::Welcomed(started) => {
                    started.welcome(out);
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

    fn ask_for_proof(
        &self,
        known: Known,
        credentials: Credentials,
        out: &mut Vec<u8>,
    ) -> Result<Moved, HandshakeError> {
        let Credentials { proof, known: user_exists } = credentials;
        let state = match proof {
            Proof::Scram(secret) => {
                let end_point = known.tls.as_ref().and_then(|tls| tls.end_point.clone());
                let exchange = scram::First::new(secret, self.options.nonce, end_point);
                message::authentication_sasl(exchange.mechanisms(), out);
                State::AwaitingFirst(AwaitingFirst { known, exchange, user_exists, chosen: None })
            }
            Proof::Password if known.tls.is_none() && self.options.tls != TlsOffer::LocalSocket => {
                return Err(refused(ClientError::PasswordInClear, out));
            }
            Proof::Password => {
                message::authentication_cleartext_password(out);
                State::AwaitingPassword(known)
            }
            // Not asked for here.
            Proof::Challenge(_) => return Err(Violation::MalformedAuthentication.into()),
            Proof::Certificate(names) => {
                let shown = known.tls.as_ref().map_or(&[][..], |tls| &tls.client_names);
                let holds = user_exists && names.iter().any(|name| shown.contains(name));
                let user = known.login.user.clone();
                let refusal = ClientError::CertificateRefused { user };
                State::Judged(known, if holds { Ok(()) } else { Err(refusal) })
            }
            Proof::Md5(stored) => {
                let [a, b, c, d, ..] = self.options.nonce;
                let salt = [a, b, c, d];
                message::authentication_md5_password(salt, out);
                // As `md5_hash` of name and password, whose first half is what is stored.
                let mut context = Md5::new();
                context.update(stored);
                context.update(salt);
                let digits = context.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                State::AwaitingMd5(AwaitingMd5 { known, expected: format!("md5{digits}").into(), user_exists })
            }
        };
        Ok((0, state, None))
    }

    /// [`Handshake::answer`](crate::protocol::Handshake::answer). An answer to what was not asked is ignored.
    pub fn answer(&mut self, answer: Answer) {
        self.state = match (mem::replace(&mut self.state, State::Ended), answer) {
            (State::StartingTls, Answer::TlsStarted(tls)) => {
                // As in `new`.
                State::Opening(Opening { may_ask_tls: false, may_ask_gss: false, tls: Some(tls) })
            }
            (State::Known(known), Answer::Credentials(credentials)) => State::MayProve(known, credentials),
            (State::Judging(known, _), Answer::Judged(verdict)) => State::Judged(known, verdict),
            (State::Proven(Known { login, protocol, .. }), Answer::Welcome(welcome)) => {
                State::Welcomed(Started { login, welcome, protocol })
            }
            (state, _) => state,
        };
    }

    /// [`Handshake::refuse`](crate::protocol::Handshake::refuse). Writes nothing if the login has ended, or if the
    /// client expects a TLS handshake.
    pub fn refuse(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        match mem::replace(&mut self.state, State::Ended) {
            State::StartingTls | State::Ended => (),
            State::Opening(_)
            | State::Known(_)
            | State::MayProve(..)
            | State::AwaitingPassword(_)
            | State::Judging(..)
            | State::Judged(..)
            | State::AwaitingMd5(_)
            | State::AwaitingFirst(_)
            | State::AwaitingFinal(_)
            | State::Proven(_)
            | State::Welcomed(_) => message::client_error(error, true, out),
        }
    }
}

impl Opening {
    /// Takes one packet without kind byte.
    fn step(self, input: &[u8], options: &AcceptOptions, out: &mut Vec<u8>) -> Result<Moved, HandshakeError> {
        let packet = startup_head(input)?.and_then(|len| input.get(..len));
        let Some((code, body)) = packet.and_then(|packet| packet.get(4..)?.split_first_chunk()) else {
            return Ok((0, State::Opening(self), Some(Step::NeedInput)));
        };
        let len = body.len() + 8;
        match u32::from_be_bytes(*code) {
            request_code::CANCEL => Ok((len, State::Ended, Some(Step::Done(cancel(body)?)))),
            request_code::SSL if self.may_ask_tls => self.tls(len, input.len(), options.tls, out),
            request_code::GSS_ENCRYPTION if self.may_ask_gss => {
                out.push(b'N');
                Ok((len, State::Opening(Self { may_ask_gss: false, ..self }), None))
            }
            version => Ok((len, State::Known(self.startup(version, body, options.tls, out)?), None)),
        }
    }

    /// SSLRequest.
    fn tls(self, len: usize, input_len: usize, offer: TlsOffer, out: &mut Vec<u8>) -> Result<Moved, HandshakeError> {
        match offer {
            // What follows in the clear was put there by somebody else, or means that the client does not wait.
            TlsOffer::Required | TlsOffer::Optional if input_len > len => {
                Err(Violation::PlaintextAfterTlsRequest.into())
            }
            TlsOffer::Required | TlsOffer::Optional => {
                out.push(b'S');
                Ok((len, State::StartingTls, Some(Step::StartTls)))
            }
            TlsOffer::Off | TlsOffer::LocalSocket => {
                out.push(b'N');
                Ok((len, State::Opening(Self { may_ask_tls: false, ..self }), None))
            }
        }
    }

    /// StartupMessage, or what has a version that nobody speaks.
    fn startup(self, version: u32, body: &[u8], offer: TlsOffer, out: &mut Vec<u8>) -> Result<Known, HandshakeError> {
        let [a, b, c, d] = version.to_be_bytes();
        let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if major != 3 {
            return Err(unsupported(major, minor, out));
        }
        let startup = Startup::parse(body).map_err(|error| {
            message::error_response(Severity::Fatal, error.code(), &error.to_string(), error.hint(), out);
            Violation::InvalidStartup
        })?;
        // 3.1 was never spoken: an old PgBouncer said it by mistake.
        let agreed = (3, if minor >= MINOR_MAX { MINOR_MAX } else { 0 });
        if agreed.1 != minor || !startup.protocol_options.is_empty() {
            let unknown = startup.protocol_options.iter().map(Vec::as_slice);
            message::negotiate_protocol_version(agreed, unknown, out);
        }
        if startup.user.is_empty() {
            return Err(refused(ClientError::NoUserName, out));
        }
        if offer == TlsOffer::Required && self.tls.is_none() {
            return Err(refused(ClientError::TlsRequired, out));
        }
        if startup.is_replication {
            return Err(refused(ClientError::Replication, out));
        }
        let login = Login {
            user: startup.user,
            database: startup.database,
            baseline: Arc::new(Settings::new(startup.settings)),
            fixed: startup.fixed,
            keys: None,
        };
        Ok(Known { login, protocol: agreed, tls: self.tls })
    }
}

/// The body of a CancelRequest. PostgreSQL never answers one, not even a bad one.
fn cancel(body: &[u8]) -> Result<Accepted<Started>, Violation> {
    let (process_id, secret) = message::read_backend_key_data(body).ok_or(Violation::InvalidStartup)?;
    if !CANCEL_SECRET_BYTES.contains(&secret.len()) {
        return Err(Violation::InvalidStartup);
    }
    Ok(Accepted::Cancel(CancelKey { process_id, secret: secret.into() }))
}

impl Known {
    fn question(&self) -> Question {
        Question::Credentials {
            user: self.login.user.clone(),
            database: self.login.database.clone(),
            knowledge: Knowledge::Verifier,
        }
    }
}

impl Known {
    /// Takes the PasswordMessage.
    fn take_password(self, input: &[u8], out: &mut Vec<u8>) -> Result<Moved, HandshakeError> {
        let Some((len, body)) = response(input, "password", PASSWORD_FRAME_BYTES_MAX, &self.login.user, out)? else {
            return Ok((0, State::AwaitingPassword(self), Some(Step::NeedInput)));
        };
        let password = Password::new(password(body, &self.login.user, out)?);
        Ok((len, State::Judging(self, password), None))
    }
}

impl AwaitingMd5 {
    /// Takes the PasswordMessage with the hash.
    fn step(self, input: &[u8], out: &mut Vec<u8>) -> Result<Moved, HandshakeError> {
        let Self { known, expected, user_exists } = self;
        let Some((len, body)) = response(input, "password", PROOF_FRAME_BYTES_MAX, &known.login.user, out)? else {
            return Ok((0, State::AwaitingMd5(Self { known, expected, user_exists }), Some(Step::NeedInput)));
        };
        let shown = password(body, &known.login.user, out)?;
        let holds = aws_lc_rs::constant_time::verify_slices_are_equal(&expected, shown).is_ok();
        let refusal = || ClientError::LoginRefused { user: known.login.user.clone() };
        let verdict = if holds && user_exists { Ok(()) } else { Err(refusal()) };
        Ok((len, State::Judged(known, verdict), None))
    }
}

impl AwaitingFirst {
    /// Takes a SASLInitialResponse, or the SASLResponse that brings the first message after one without.
    fn step(self, input: &[u8], out: &mut Vec<u8>) -> Result<Moved, HandshakeError> {
        let Some((len, body)) = response(input, "SASL", PROOF_FRAME_BYTES_MAX, &self.known.login.user, out)? else {
            return Ok((0, State::AwaitingFirst(self), Some(Step::NeedInput)));
        };
        let (is_plus, client_first) = match self.chosen {
            Some(is_plus) => (is_plus, Some(body)),
            None => initial_response(body, self.exchange.mechanisms(), out)?,
        };
        let Some(client_first) = client_first else {
            message::authentication_sasl_continue(b"", out);
            return Ok((len, State::AwaitingFirst(Self { chosen: Some(is_plus), ..self }), None));
        };
        let Self { known, exchange, user_exists, .. } = self;
        let (proof, challenge) =
            exchange.challenge(client_first, is_plus).map_err(|error| not_proven(error, &known.login.user, out))?;
        message::authentication_sasl_continue(&challenge, out);
        Ok((len, State::AwaitingFinal(AwaitingFinal { known, proof, user_exists }), None))
    }
}

impl AwaitingFinal {
    /// Takes the SASLResponse with the proof.
    fn step(self, input: &[u8], out: &mut Vec<u8>) -> Result<Moved, HandshakeError> {
        let Some((len, body)) = response(input, "SASL", PROOF_FRAME_BYTES_MAX, &self.known.login.user, out)? else {
            return Ok((0, State::AwaitingFinal(self), Some(Step::NeedInput)));
        };
        let Self { known, proof, user_exists } = self;
        let user = &known.login.user;
        let (server_final, keys) = proof.verify(body).map_err(|error| not_proven(error, user, out))?;
        if !user_exists {
            return Err(not_proven(ScramError::WrongProof, user, out));
        }
        message::authentication_sasl_final(&server_final, out);
        message::authentication_ok(out);
        let login = Login { keys: Some(keys), ..known.login };
        Ok((len, State::Proven(Known { login, ..known }), None))
    }
}

impl Started {
    /// What follows AuthenticationOk, once the core has said it.
    fn welcome(&self, out: &mut Vec<u8>) {
        for (name, value) in self.welcome.parameters.iter() {
            message::parameter_status(name, value, out);
        }
        message::backend_key_data(self.welcome.cancel_key.process_id, self.cancel_secret(), out);
        message::ready_for_query(b'I', out);
    }

    /// As much of the secret as the client is told: libpq refuses a long key on protocol 3.0.
    pub fn cancel_secret(&self) -> &[u8] {
        let secret = &self.welcome.cancel_key.secret;
        let short = secret.first_chunk::<4>().map_or(&secret[..], |short| &short[..]);
        if self.protocol >= (3, 2) { secret } else { short }
    }
}

/// The body of a PasswordMessage: one string, which is not empty.
fn password<'a>(body: &'a [u8], user: &str, out: &mut Vec<u8>) -> Result<&'a [u8], HandshakeError> {
    match cstr(body) {
        Some((b"", [])) => {
            fatal("28P01", "empty password returned by client", out);
            Err(HandshakeError::Refused(ClientError::LoginRefused { user: user.to_owned() }))
        }
        Some((password, [])) => Ok(password),
        Some(_) | None => {
            fatal("08P01", "invalid password packet size", out);
            Err(Violation::MalformedAuthentication.into())
        }
    }
}

/// The whole frame at the front, which must be of type `p`, and its body.
fn response<'a>(
    input: &'a [u8],
    wanted: &str,
    bytes_max: usize,
    user: &str,
    out: &mut Vec<u8>,
) -> Result<Option<(usize, &'a [u8])>, HandshakeError> {
    if let Some(kind) = input.first().copied().filter(|kind| *kind != from_client::PASSWORD) {
        fatal("08P01", &format!("expected {wanted} response, got message type {kind}"), out);
        return Err(Violation::UnexpectedFrame(kind).into());
    }
    match whole(input, bytes_max) {
        Ok(frame) => Ok(frame.map(|(head, body)| (head.len, body))),
        Err(violation) => {
            message::client_error(&ClientError::LoginRefused { user: user.to_owned() }, true, out);
            Err(violation.into())
        }
    }
}

/// The body of a SASLInitialResponse: the mechanism's name (given back: whether it is the one with channel binding), a
/// length, the first message. `None`: without a message, which is sent after an empty challenge.
fn initial_response<'a>(
    body: &'a [u8],
    offered: &[&str],
    out: &mut Vec<u8>,
) -> Result<(bool, Option<&'a [u8]>), HandshakeError> {
    let mut malformed = |words: &str| {
        fatal("08P01", words, out);
        HandshakeError::Violation(Violation::MalformedAuthentication)
    };
    let Some((name, rest)) = cstr(body) else {
        return Err(malformed("invalid string in message"));
    };
    if !offered.iter().any(|offered| offered.as_bytes() == name) {
        return Err(malformed("client selected an invalid SASL authentication mechanism"));
    }
    let is_plus = name == scram::MECHANISM_PLUS.as_bytes();
    match rest.split_first_chunk() {
        Some((length, [])) if i32::from_be_bytes(*length) == -1 => Ok((is_plus, None)),
        Some((length, data)) if usize::try_from(i32::from_be_bytes(*length)) == Ok(data.len()) => {
            Ok((is_plus, Some(data)))
        }
        Some((length, data)) if usize::try_from(i32::from_be_bytes(*length)).is_ok_and(|len| len < data.len()) => {
            Err(malformed("invalid message format"))
        }
        Some(_) | None => Err(malformed("insufficient data left in message")),
    }
}

/// The words for a proof that is none.
fn not_proven(error: ScramError, user: &str, out: &mut Vec<u8>) -> HandshakeError {
    if error == ScramError::WrongProof {
        return refused(ClientError::LoginRefused { user: user.to_owned() }, out);
    }
    fatal(error.code(), &error.to_string(), out);
    Violation::MalformedAuthentication.into()
}

/// The words for a version that nobody speaks. Before protocol 3 an error was a string.
fn unsupported(major: u16, minor: u16, out: &mut Vec<u8>) -> HandshakeError {
    let words = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR_MAX}");
    if major < 3 {
        out.extend_from_slice(format!("EFATAL:  {words}\n\0").as_bytes());
    } else {
        fatal("0A000", &words, out);
    }
    Violation::UnsupportedVersion(major, minor).into()
}

fn refused(error: ClientError, out: &mut Vec<u8>) -> HandshakeError {
    message::client_error(&error, true, out);
    HandshakeError::Refused(error)
}

fn fatal(code: &str, words: &str, out: &mut Vec<u8>) {
    message::error_response(Severity::Fatal, code, words, None, out);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::postgres::frame::packet;
    use crate::protocol::{Parameters, ScramSecret};
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    /// Few: most of a login's time goes there.
    const ROUNDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(2).unwrap();
    const SECRET: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

    /// The core's part: plays a login against what arrives in pieces.
    struct Core {
        accept: Accept,
        input: Vec<u8>,
        out: Vec<u8>,
        users: Vec<(&'static str, ScramSecret)>,
        /// Asked for in place of SCRAM.
        proof: Option<Proof>,
        secured: Secured,
        questions: Vec<String>,
    }

    #[derive(Debug, PartialEq)]
    enum End {
        Open,
        Client { login: Login, protocol: (u16, u16), rest: Vec<u8> },
        Cancel { process_id: u32, secret: Vec<u8> },
        Failed(HandshakeError),
    }

    impl Core {
        fn new(tls: TlsOffer) -> Self {
            let accept = Accept::new(AcceptOptions {
                tls,
                direct_tls: None,
                nonce: [7; 18],
                greeting: crate::protocol::Greeting::default(),
                password_key: None,
            });
            let users = vec![("u", ScramSecret::derive(b"pw", b"saltsaltsaltsalt", ROUNDS))];
            Self {
                accept,
                input: Vec::new(),
                out: Vec::new(),
                users,
                proof: None,
                secured: Secured::default(),
                questions: Vec::new(),
            }
        }

        fn feed(&mut self, bytes: &[u8]) -> End {
            self.input.extend_from_slice(bytes);
            loop {
                let (taken, step) = match self.accept.step_inner(&self.input, &mut self.out) {
                    Ok(ok) => ok,
                    Err(error) => return End::Failed(error),
                };
                self.input.drain(..taken);
                match step {
                    Step::NeedInput => return End::Open,
                    Step::StartTls => {
                        assert!(self.input.is_empty());
                        self.accept.answer(Answer::TlsStarted(self.secured.clone()));
                    }
                    Step::Ask(question) => {
                        self.questions.push(format!("{question:?}"));
                        self.accept.answer(self.decide(question));
                    }
                    Step::Done(Accepted::Cancel(CancelKey { process_id, secret })) => {
                        return End::Cancel { process_id, secret: secret.into() };
                    }
                    Step::Done(Accepted::Client(Started { login, protocol, .. })) => {
                        return End::Client { login, protocol, rest: mem::take(&mut self.input) };
                    }
                }
            }
        }

        fn decide(&self, question: Question) -> Answer {
            match question {
                Question::Credentials { user, .. } => {
                    let secret = self.users.iter().find(|(name, _)| *name == user).map(|(_, secret)| secret.clone());
                    let known = secret.is_some();
                    let secret = secret.unwrap_or_else(|| {
                        ScramSecret::mock(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"key"), &user)
                    });
                    let proof = self.proof.clone().unwrap_or(Proof::Scram(secret));
                    Answer::Credentials(Credentials { proof, known })
                }
                Question::Password { user, password } => {
                    let holds = user == "u" && (password.expose() == b"pw" || password.expose().len() == 64 << 10);
                    Answer::Judged(if holds { Ok(()) } else { Err(ClientError::LoginRefused { user }) })
                }
                Question::Welcome(_) => Answer::Welcome(Welcome {
                    parameters: Arc::new(Parameters::from([("server_version".into(), "15".into())])),
                    cancel_key: CancelKey { process_id: 9, secret: SECRET.into() },
                    client_id: 1,
                    statement_key: [0; 16],
                }),
            }
        }
    }

    fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        message::startup_message((3, minor), parameters.iter().copied(), &mut out);
        out
    }

    fn request(code: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        packet(&mut out, |out| {
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(body);
        });
        out
    }

    fn initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::sasl_initial_response(mechanism, data, &mut out);
        out
    }

    /// Plays a whole login with the driver's client; returns all that it sent, packet by packet.
    fn login(core: &mut Core, minor: u16, parameters: &[(&str, &str)], password: &[u8]) -> (Vec<Vec<u8>>, End) {
        let mut sent = vec![startup(minor, parameters)];
        let mut client = ScramSha256::new(password, ChannelBinding::unsupported());
        assert_eq!(core.feed(&sent[0]), End::Open);
        sent.push(initial(scram::MECHANISM, client.message()));
        let before = core.out.len();
        assert_eq!(core.feed(&sent[1]), End::Open);
        assert_eq!(core.out[before], b'R');
        client.update(&core.out[before + 9..]).unwrap();
        let mut last = Vec::new();
        message::sasl_response(client.message(), &mut last);
        sent.push(last);
        let end = core.feed(&sent[2]);
        (sent, end)
    }

    /// The code of the error at the end of what was written.
    fn code(out: &[u8]) -> String {
        let mut rest = out;
        while let Ok(Some((head, _))) = whole(rest, usize::MAX) {
            if head.kind == b'E' {
                let error = message::server_error(rest).unwrap();
                assert!(error.is_fatal);
                assert_eq!(rest.len(), head.len, "something follows the error");
                return error.code;
            }
            rest = &rest[head.len..];
        }
        String::new()
    }

    #[test]
    fn a_login() {
        for (minor, secret) in [(0, &SECRET[..4]), (2, &SECRET)] {
            let mut core = Core::new(TlsOffer::Off);
            let (_, end) = login(&mut core, minor, &[("user", "u"), ("DateStyle", "ISO")], b"pw");
            let baseline = Arc::new(Settings::new([("datestyle", "ISO")]));
            // What the proof has shown is what the verifier is made of.
            let End::Client { login: Login { keys: Some(keys), .. }, .. } = &end else { panic!("{end:?}") };
            let stored = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &keys.client_key);
            let secret_of_u = &core.users[0].1;
            assert_eq!((stored.as_ref(), keys.server_key), (&secret_of_u.stored_key[..], secret_of_u.server_key));
            let keys = Some(keys.clone());
            let expected = Login { user: "u".into(), database: "u".into(), baseline, fixed: Vec::new(), keys };
            assert_eq!(end, End::Client { login: expected, protocol: (3, minor), rest: Vec::new() });
            assert_eq!(core.questions.len(), 2);
            let mut tail = Vec::new();
            message::authentication_ok(&mut tail);
            message::parameter_status("server_version", "15", &mut tail);
            message::backend_key_data(9, secret, &mut tail);
            message::ready_for_query(b'I', &mut tail);
            assert!(core.out.ends_with(&tail));
        }
    }

    #[test]
    fn unknown_users_and_wrong_passwords_look_the_same() {
        let refused = |user: &str, password: &[u8]| {
            let mut core = Core::new(TlsOffer::Off);
            core.users[0].1.iterations = crate::protocol::ITERATIONS.get();
            let (_, end) = login(&mut core, 0, &[("user", user)], password);
            assert!(matches!(end, End::Failed(HandshakeError::Refused(_))), "{end:?}");
            assert_eq!(core.questions.len(), 1);
            let kinds: Vec<u8> = std::iter::successors(Some(&core.out[..]), |rest| {
                whole(rest, usize::MAX).unwrap().map(|(head, _)| &rest[head.len..])
            })
            .filter_map(|rest| rest.first().copied())
            .collect();
            assert_eq!(code(&core.out), "28P01");
            let before = core.out.len();
            core.accept.refuse(&ClientError::Internal, &mut core.out);
            assert_eq!(core.out.len(), before, "told twice");
            (kinds, core.out.len())
        };
        assert_eq!(refused("u", b"no"), refused("x", b"pw"));
    }

    fn secured(end_point: Option<&[u8]>, client_names: &[&str]) -> Secured {
        Secured {
            end_point: end_point.map(<[u8]>::to_vec),
            client_names: client_names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// A client whose TLS has started, whichever way.
    fn over_tls(tls: Secured, direct: bool) -> Core {
        let mut core = Core::new(TlsOffer::Required);
        if direct {
            let options = AcceptOptions {
                tls: TlsOffer::Required,
                direct_tls: Some(tls),
                nonce: [7; 18],
                greeting: crate::protocol::Greeting::default(),
                password_key: None,
            };
            core.accept = Accept::new(options);
        } else {
            core.secured = tls;
            assert_eq!(core.feed(&request(request_code::SSL, b"")), End::Open);
            core.out.clear();
        }
        core
    }

    #[test]
    fn logins_are_bound_to_their_tls_connection() {
        for (direct, end_point, bound_to, expected) in [
            (false, Some(&b"ours"[..]), Some("ours"), ""),
            (true, Some(b"ours"), Some("ours"), ""),
            (false, Some(b"ours"), Some("theirs"), "28000"),
            (false, Some(b"ours"), None, "28000"),
            (false, None, None, ""),
        ] {
            let mut core = over_tls(secured(end_point, &[]), direct);
            assert_eq!(core.feed(&startup(0, &[("user", "u")])), End::Open);
            let mut asked = Vec::new();
            let offered =
                if end_point.is_some() { &[scram::MECHANISM_PLUS, scram::MECHANISM][..] } else { &[scram::MECHANISM] };
            message::authentication_sasl(offered, &mut asked);
            assert_eq!(core.out, asked);
            core.out.clear();
            let (mechanism, binding) = match bound_to {
                Some(hash) => (scram::MECHANISM_PLUS, ChannelBinding::tls_server_end_point(hash.into())),
                None => (scram::MECHANISM, ChannelBinding::unrequested()),
            };
            let mut client = ScramSha256::new(b"pw", binding);
            let mut end = core.feed(&initial(mechanism, client.message()));
            if end == End::Open {
                client.update(&core.out[9..]).unwrap();
                let mut last = Vec::new();
                message::sasl_response(client.message(), &mut last);
                end = core.feed(&last);
            }
            if expected.is_empty() {
                assert!(matches!(end, End::Client { .. }), "{end:?}");
            } else {
                assert!(matches!(end, End::Failed(_)), "{end:?}");
                assert_eq!(code(&core.out), expected);
            }
        }
    }

    #[test]
    fn certificates_let_in_whom_they_name() {
        for (names, shown, user, expected) in [
            (&["app.internal"][..], &["other", "app.internal"][..], "u", ""),
            (&["a", "app.internal"], &["app.internal"], "u", ""),
            (&["app.internal"], &["app.internal"], "nobody", "28000"),
            (&["app.internal"], &["App.internal"], "u", "28000"),
            (&["app.internal"], &[], "u", "28000"),
            (&[], &[], "u", "28000"),
            (&[], &["app.internal"], "u", "28000"),
        ] {
            let mut core = over_tls(secured(Some(b"hash"), shown), false);
            core.proof = Some(Proof::Certificate(names.iter().map(|name| (*name).to_owned()).collect()));
            let end = core.feed(&startup(0, &[("user", user)]));
            if expected.is_empty() {
                assert!(matches!(end, End::Client { .. }), "{end:?}");
                assert!(core.out.starts_with(b"R\0\0\0\x08\0\0\0\0"));
            } else {
                assert!(matches!(end, End::Failed(_)), "{end:?}");
                assert_eq!(code(&core.out), expected);
            }
        }
        // Without TLS there is nothing to show.
        let mut core = Core::new(TlsOffer::Optional);
        core.proof = Some(Proof::Certificate(["app.internal".to_owned()].into()));
        assert!(matches!(core.feed(&startup(0, &[("user", "u")])), End::Failed(_)));
        assert_eq!(code(&core.out), "28000");
    }

    #[test]
    fn inside_tls_nobody_asks_for_it_again() {
        for direct in [false, true] {
            let mut core = over_tls(Secured::default(), direct);
            let end = core.feed(&request(request_code::SSL, b""));
            assert_eq!(end, End::Failed(Violation::UnsupportedVersion(1234, 5679).into()));
        }
    }

    #[test]
    fn a_mock_is_refused_even_with_a_proof_that_holds() {
        let mut core = Core::new(TlsOffer::Off);
        let secret = ScramSecret::derive(b"pw", b"salt", ROUNDS);
        let mut out = Vec::new();
        core.accept.step_inner(&startup(0, &[("user", "x")]), &mut out).unwrap();
        core.accept.answer(Answer::Credentials(Credentials { proof: Proof::Scram(secret), known: false }));
        let mut client = ScramSha256::new(b"pw", ChannelBinding::unsupported());
        out.clear();
        core.accept.step_inner(b"", &mut out).unwrap();
        out.clear();
        core.accept.step_inner(&initial(scram::MECHANISM, client.message()), &mut out).unwrap();
        client.update(&out[9..]).unwrap();
        let mut last = Vec::new();
        message::sasl_response(client.message(), &mut last);
        out.clear();
        assert!(core.accept.step_inner(&last, &mut out).is_err());
        assert_eq!(code(&out), "28P01");
    }

    #[test]
    fn versions_and_options_are_negotiated_once() {
        let check = |minor, parameters: &[(&str, &str)], expected: Option<(u16, &[&str])>| {
            let mut core = Core::new(TlsOffer::Off);
            let packet = startup(minor, &[&[("user", "u")], parameters].concat());
            assert_eq!(core.feed(&packet), End::Open);
            let mut wanted = Vec::new();
            if let Some((minor, names)) = expected {
                message::negotiate_protocol_version((3, minor), names.iter().map(|name| name.as_bytes()), &mut wanted);
            }
            message::authentication_sasl(&[scram::MECHANISM], &mut wanted);
            assert_eq!(core.out, wanted, "3.{minor} {parameters:?}");
        };
        check(0, &[], None);
        check(1, &[], Some((0, &[])));
        check(2, &[], None);
        check(3, &[], Some((2, &[])));
        check(9999, &[("_pq_.x", "1"), ("_pq_.y", "")], Some((2, &["_pq_.x", "_pq_.y"])));
        check(0, &[("_pq_.x", "1")], Some((0, &["_pq_.x"])));
        check(2, &[("_pq_.x", "1")], Some((2, &["_pq_.x"])));
    }

    #[test]
    fn requests_for_encryption() {
        let ssl = request(request_code::SSL, b"");
        let gss = request(request_code::GSS_ENCRYPTION, b"");
        let cancel = request(request_code::CANCEL, b"\0\0\0\x01abcd");
        let cancelled = || End::Cancel { process_id: 1, secret: b"abcd".to_vec() };
        let check = |offer, packets: &[&[u8]], expected_out: &[u8], expected| {
            let mut core = Core::new(offer);
            let mut end = End::Open;
            for packet in packets {
                assert_eq!(end, End::Open);
                end = core.feed(packet);
            }
            assert_eq!(end, expected, "{offer:?} {packets:?}");
            assert!(core.out.starts_with(expected_out), "{offer:?} {packets:?} {:?}", core.out);
            (code(core.out.get(expected_out.len()..).unwrap()), core.out.len() - expected_out.len())
        };
        let told = |(code, _): (String, usize)| code;
        let again = |code| End::Failed(Violation::UnsupportedVersion(1234, code).into());
        for offer in [TlsOffer::Off, TlsOffer::LocalSocket] {
            check(offer, &[&ssl, &gss, &cancel], b"NN", cancelled());
            check(offer, &[&gss, &ssl, &cancel], b"NN", cancelled());
            check(offer, &[&[&ssl[..], &gss, &cancel].concat()], b"NN", cancelled());
            assert_eq!(told(check(offer, &[&ssl, &ssl], b"N", again(5679))), "0A000");
            assert_eq!(told(check(offer, &[&gss, &gss], b"N", again(5680))), "0A000");
        }
        for offer in [TlsOffer::Optional, TlsOffer::Required] {
            check(offer, &[&ssl, &cancel], b"S", cancelled());
            check(offer, &[&gss, &ssl, &cancel], b"NS", cancelled());
            // A client's library sends cancels in the clear, whatever its connection does.
            check(offer, &[&cancel], b"", cancelled());
            assert_eq!(told(check(offer, &[&ssl, &ssl], b"S", again(5679))), "0A000");
            assert_eq!(told(check(offer, &[&ssl, &gss], b"S", again(5680))), "0A000");
            let early = End::Failed(Violation::PlaintextAfterTlsRequest.into());
            let (_, more) = check(offer, &[&[&ssl[..], b"\0"].concat()], b"", early);
            assert_eq!(more, 0, "something was answered");
        }
        let direct = End::Failed(Violation::InvalidLength.into());
        assert_eq!(check(TlsOffer::Required, &[b"\x16\x03\x01\x02"], b"", direct).1, 0);
    }

    #[test]
    fn plaintext_that_comes_after_the_answer_is_seen_too() {
        let mut accept = Accept::new(AcceptOptions {
            tls: TlsOffer::Required,
            direct_tls: None,
            nonce: [0; 18],
            greeting: crate::protocol::Greeting::default(),
            password_key: None,
        });
        let mut out = Vec::new();
        let ssl = request(request_code::SSL, b"");
        assert!(matches!(accept.step_inner(&ssl, &mut out), Ok((8, Step::StartTls))));
        assert!(matches!(accept.step_inner(b"", &mut out), Ok((0, Step::StartTls))));
        let early = accept.step_inner(b"x", &mut out).unwrap_err();
        assert_eq!(early, Violation::PlaintextAfterTlsRequest.into());
        accept.refuse(&ClientError::Internal, &mut out);
        assert_eq!(out, b"S");
    }

    #[test]
    fn startup_packets_that_are_refused() {
        let check = |offer, packet: &[u8], expected_code: &str, expected: HandshakeError| {
            let mut core = Core::new(offer);
            assert_eq!(core.feed(packet), End::Failed(expected), "{packet:?}");
            assert_eq!(code(&core.out), expected_code, "{packet:?}");
        };
        let user = ("user", "u");
        let invalid = || HandshakeError::from(Violation::InvalidStartup);
        check(TlsOffer::Required, &startup(0, &[user]), "28000", HandshakeError::Refused(ClientError::TlsRequired));
        check(TlsOffer::Off, &startup(0, &[]), "28000", HandshakeError::Refused(ClientError::NoUserName));
        check(TlsOffer::Off, &startup(0, &[("user", "")]), "28000", HandshakeError::Refused(ClientError::NoUserName));
        let replication = HandshakeError::Refused(ClientError::Replication);
        check(TlsOffer::Off, &startup(0, &[user, ("replication", "database")]), "0A000", replication.clone());
        check(TlsOffer::Off, &startup(0, &[user, ("replication", "1")]), "0A000", replication);
        check(TlsOffer::Off, &startup(0, &[user, ("replication", "maybe")]), "22023", invalid());
        check(TlsOffer::Off, &request(0x0003_0000, b""), "08P01", invalid());
        check(TlsOffer::Off, &request(0x0003_0000, b"user\0u\0"), "08P01", invalid());
        check(TlsOffer::Off, &request(0x0003_0000, b"user\0u\0\0\0"), "08P01", invalid());
        check(TlsOffer::Off, &request(0x0003_0000, b"user\0\xff\0\0"), "22021", invalid());
        check(TlsOffer::Off, &request(0x0004_0001, b"\0"), "0A000", Violation::UnsupportedVersion(4, 1).into());
        for length in [0u32, 4, 7, 10_005, u32::MAX] {
            check(TlsOffer::Off, &length.to_be_bytes(), "", Violation::InvalidLength.into());
        }
        for secret in [&b""[..], b"abc", &[1; 257]] {
            let body = [&[0, 0, 0, 1], secret].concat();
            check(TlsOffer::Off, &request(request_code::CANCEL, &body), "", invalid());
        }
        let mut core = Core::new(TlsOffer::Off);
        core.feed(&request(0x0002_0000, b"\0"));
        assert_eq!(core.out, b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0");
        let mut core = Core::new(TlsOffer::Off);
        let long = request(request_code::CANCEL, &[&[0, 0, 0, 1], &[1; 256][..]].concat());
        assert_eq!(core.feed(&long), End::Cancel { process_id: 1, secret: vec![1; 256] });
    }

    fn password_message(password: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::password_message(password, &mut out);
        out
    }

    #[test]
    fn passwords_and_tokens_are_asked_for_under_tls_only() {
        let asked = b"R\0\0\0\x08\0\0\0\x03";
        for (tls, user, password, expected) in [
            (TlsOffer::Required, "u", &b"pw"[..], ""),
            (TlsOffer::Optional, "u", b"pw", ""),
            (TlsOffer::LocalSocket, "u", b"pw", ""),
            (TlsOffer::Required, "u", &[b'x'; 64 << 10], ""),
            (TlsOffer::Required, "u", b"px", "28P01"),
            (TlsOffer::Required, "nobody", b"pw", "28P01"),
            (TlsOffer::Required, "u", b"", "28P01"),
        ] {
            for piece in [1, 1000, usize::MAX] {
                let mut core = Core::new(tls);
                core.proof = Some(Proof::Password);
                if tls != TlsOffer::LocalSocket {
                    assert_eq!(core.feed(&request(request_code::SSL, b"")), End::Open);
                }
                core.out.clear();
                assert_eq!(core.feed(&startup(0, &[("user", user)])), End::Open);
                assert_eq!(core.out, asked);
                core.out.clear();
                let ends: Vec<_> = password_message(password).chunks(piece).map(|piece| core.feed(piece)).collect();
                match ends.last().unwrap() {
                    End::Client { .. } => assert_eq!(expected, "", "{user}"),
                    End::Failed(HandshakeError::Refused(ClientError::LoginRefused { .. })) => {
                        assert_eq!(code(&core.out), expected, "{user}");
                    }
                    other @ (End::Open | End::Cancel { .. } | End::Failed(_)) => panic!("{other:?}"),
                }
                assert!(!format!("{:?}", core.questions).contains("112, 119"), "{:?}", core.questions);
            }
        }
        // In the clear nothing is asked for, of nobody.
        for (tls, user) in [(TlsOffer::Optional, "u"), (TlsOffer::Off, "u"), (TlsOffer::Off, "nobody")] {
            let mut core = Core::new(tls);
            core.proof = Some(Proof::Password);
            let end = core.feed(&startup(0, &[("user", user)]));
            assert_eq!(end, End::Failed(HandshakeError::Refused(ClientError::PasswordInClear)));
            assert_eq!((code(&core.out), core.out[0]), ("28000".to_owned(), b'E'));
        }
    }

    #[test]
    fn malformed_password_messages() {
        for body in [&b""[..], b"pw", b"pw\0x", b"pw\0\0"] {
            for proof in [Proof::Password, Proof::Md5([b'0'; 32])] {
                let mut core = Core::new(TlsOffer::LocalSocket);
                core.proof = Some(proof);
                core.feed(&startup(0, &[("user", "u")]));
                core.out.clear();
                let mut frame = Vec::new();
                message::sasl_response(body, &mut frame);
                assert_eq!(core.feed(&frame), End::Failed(Violation::MalformedAuthentication.into()), "{body:?}");
                assert_eq!(code(&core.out), "08P01");
            }
        }
    }

    #[test]
    fn md5_as_postgresql_computes_it() {
        let stored = *b"a98c32561f35f65c5d1cc0bd2ed24a7b";
        // What libpq sends: `md5_hash` of user, password and salt.
        for (user, password, holds) in [("u", "pw", true), ("u", "px", false), ("nobody", "pw", false)] {
            let mut core = Core::new(TlsOffer::Off);
            let digest = postgres_protocol::authentication::md5_hash(b"u", password.as_bytes(), [7; 4]);
            core.proof = Some(Proof::Md5(if holds { inner(b"pwu") } else { stored }));
            assert_eq!(core.feed(&startup(0, &[("user", user)])), End::Open);
            assert_eq!(core.out, b"R\0\0\0\x0c\0\0\0\x05\x07\x07\x07\x07");
            core.out.clear();
            let end = core.feed(&password_message(digest.as_bytes()));
            assert_eq!(matches!(end, End::Client { .. }), holds, "{user} {password}");
            if !holds {
                assert_eq!(code(&core.out), "28P01");
            }
        }
    }

    fn inner(text: &[u8]) -> [u8; 32] {
        let digits = Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        digits.into_bytes().try_into().unwrap()
    }

    #[test]
    fn password_frames_that_are_refused() {
        let check = |input: &[u8], expected_code: &str, expected: Violation| {
            let mut core = Core::new(TlsOffer::Off);
            assert_eq!(core.feed(&startup(0, &[("user", "u")])), End::Open);
            core.out.clear();
            assert_eq!(core.feed(input), End::Failed(expected.into()), "{input:?}");
            assert_eq!(code(&core.out), expected_code, "{input:?}");
        };
        let with_length = |length: i32, data: &[u8]| {
            let mut out = Vec::new();
            let body = [b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], data].concat();
            message::sasl_response(&body, &mut out);
            out
        };
        check(b"Q", "08P01", Violation::UnexpectedFrame(b'Q'));
        check(b"X\0\0\0\x04", "08P01", Violation::UnexpectedFrame(b'X'));
        check(b"p\0\0\0\x03", "28P01", Violation::InvalidLength);
        check(b"p\x80\0\0\0", "28P01", Violation::InvalidLength);
        check(b"p\0\0\x04\x05", "28P01", Violation::FrameTooLong);
        check(b"p\0\0\0\x04", "08P01", Violation::MalformedAuthentication);
        check(&initial("FOO", b""), "08P01", Violation::MalformedAuthentication);
        check(&initial("SCRAM-SHA-256-PLUS", b"n,,n=,r=a"), "08P01", Violation::MalformedAuthentication);
        check(&initial(scram::MECHANISM, b""), "08P01", Violation::MalformedAuthentication);
        check(&initial(scram::MECHANISM, b"n,a=b,n=,r=a"), "0A000", Violation::MalformedAuthentication);
        for (length, data) in [(-2, &b""[..]), (5, b"abc"), (2, b"abc"), (-1, b"abc"), (i32::MAX, b"")] {
            check(&with_length(length, data), "08P01", Violation::MalformedAuthentication);
        }
        // The longest there may be is waited for.
        let mut core = Core::new(TlsOffer::Off);
        core.feed(&startup(0, &[("user", "u")]));
        assert_eq!(core.feed(b"p\0\0\x04\x04"), End::Open);
        let mut core = Core::new(TlsOffer::LocalSocket);
        core.proof = Some(Proof::Password);
        core.feed(&startup(0, &[("user", "u")]));
        assert_eq!(core.feed(b"p\0\x01\0\x05"), End::Open);
    }

    #[test]
    fn the_first_message_may_follow_an_empty_challenge() {
        let mut core = Core::new(TlsOffer::Off);
        core.feed(&startup(0, &[("user", "u")]));
        core.out.clear();
        let mut out = Vec::new();
        message::sasl_response(b"SCRAM-SHA-256\0\xff\xff\xff\xff", &mut out);
        assert_eq!(core.feed(&out), End::Open);
        assert_eq!(core.out, b"R\0\0\0\x08\0\0\0\x0b");
        core.out.clear();
        out.clear();
        message::sasl_response(b"n,,n=,r=abc", &mut out);
        assert_eq!(core.feed(&out), End::Open);
        assert!(core.out.starts_with(b"R\0\0\0"));
    }

    #[test]
    fn refusals_of_the_core() {
        let error = || ClientError::TooManyClients { endpoint: "e".into(), limit: 1 };
        let mut core = Core::new(TlsOffer::Off);
        core.accept.refuse(&error(), &mut core.out);
        assert_eq!(code(&core.out), "53300");
        assert!(matches!(core.feed(b""), End::Failed(_)));
        // An answer to nothing changes nothing.
        let mut core = Core::new(TlsOffer::Off);
        core.accept.answer(Answer::TlsStarted(Secured::default()));
        assert_eq!(core.feed(&startup(0, &[("user", "u")])), End::Open);
    }

    #[test]
    fn any_cut_gives_the_same_login() {
        let mut core = Core::new(TlsOffer::Off);
        let mut all = [request(request_code::GSS_ENCRYPTION, b""), request(request_code::SSL, b"")].concat();
        core.feed(&all);
        let (sent, end) = login(&mut core, 9999, &[("user", "u"), ("_pq_.x", ""), ("options", "-e -c a=b")], b"pw");
        let End::Client { login, protocol, .. } = end else { panic!("{end:?}") };
        all.extend(sent.concat());
        all.extend_from_slice(b"Q\0\0\0\x05\0");
        for cut in 0..=all.len() {
            let mut again = Core::new(TlsOffer::Off);
            let (first, rest) = all.split_at(cut);
            let end = match again.feed(first) {
                End::Open => again.feed(rest),
                End::Client { login, protocol, rest: early } => {
                    End::Client { login, protocol, rest: [&early, rest].concat() }
                }
                end @ (End::Cancel { .. } | End::Failed(_)) => end,
            };
            let rest = b"Q\0\0\0\x05\0".to_vec();
            assert_eq!(end, End::Client { login: login.clone(), protocol, rest }, "cut at {cut}");
            assert_eq!(again.out, core.out, "cut at {cut}");
        }
    }

    /// Packets that are nearly right, and bytes that are not.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let code = prop_oneof![
            Just(request_code::CANCEL),
            Just(request_code::SSL),
            Just(request_code::GSS_ENCRYPTION),
            Just(0x0003_0000),
            Just(0x0003_0002),
            any::<u32>()
        ];
        let body = prop_oneof![
            Just(b"user\0u\0\0".to_vec()),
            Just(b"user\0x\0options\0-c a=b\0\0".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..20)
        ];
        let client_first = prop_oneof![Just(b"n,,n=,r=abc".to_vec()), proptest::collection::vec(any::<u8>(), 0..20)];
        let piece = prop_oneof![
            (code, body).prop_map(|(code, body)| request(code, &body)),
            client_first.prop_map(|data| initial(scram::MECHANISM, &data)),
            Just(startup(0, &[("user", "u")])),
            proptest::collection::vec(any::<u8>(), 0..12),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn hostile_input_fails_the_same_however_cut(
            input in hostile(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        ) {
            let mut whole = Core::new(TlsOffer::Off);
            let expected = whole.feed(&input);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let mut pieces = Core::new(TlsOffer::Off);
            let mut end = pieces.feed(b"");
            for piece in cuts.windows(2) {
                if end != End::Open {
                    break;
                }
                end = pieces.feed(&input[piece[0]..piece[1]]);
            }
            prop_assert_eq!(end, expected);
            prop_assert_eq!(pieces.out, whole.out);
        }

        #[test]
        fn hostile_input_never_panics_with_tls(input in hostile()) {
            Core::new(TlsOffer::Required).feed(&input);
        }
    }
}
