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
mod tests;
