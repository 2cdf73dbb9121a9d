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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::postgres::frame::frame;
    use crate::postgres::scram::First;
    use crate::protocol::ScramSecret;
    use proptest::prelude::*;

    /// Few: most of a login's time goes there.
    const ROUNDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(2).unwrap();

    fn options() -> ConnectOptions {
        ConnectOptions {
            user: "u".into(),
            database: "d".into(),
            fixed: vec![("options".into(), "-e".into())],
            secret: Some(LoginSecret::Password(Password::new("pw"))),
            tls: false,
            local_socket: false,
            nonce: [0; 18],
            max_prepared_statements: 10,
            statement_key: [1; 16],
            learned: std::sync::Arc::default(),
        }
    }

    fn connect(change: impl FnOnce(&mut ConnectOptions)) -> Connect {
        let mut options = options();
        change(&mut options);
        Connect::new(options)
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn auth(code: u32, data: &[u8]) -> Vec<u8> {
        written(|out| {
            frame(out, b'R', |out| {
                out.extend_from_slice(&code.to_be_bytes());
                out.extend_from_slice(data);
            })
        })
    }

    /// AuthenticationOk up to ReadyForQuery, with something in between.
    fn welcome(between: &[u8]) -> Vec<u8> {
        let mut out = auth(0, b"");
        message::parameter_status("server_version", "15", &mut out);
        out.extend_from_slice(between);
        message::ready_for_query(b'I', &mut out);
        out
    }

    fn startup() -> Vec<u8> {
        written(|out| message::startup_message((3, 0), [("user", "u"), ("database", "d"), ("options", "-e")], out))
    }

    /// Gives the input in these pieces; what was written, and how it ended (`None`: it waits).
    fn play(mut connect: Connect, pieces: &[&[u8]]) -> (Vec<u8>, Option<Result<Connected, HandshakeError>>, Vec<u8>) {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        for piece in [&[&b""[..]], pieces].concat() {
            input.extend_from_slice(piece);
            loop {
                match connect.step_inner(&input, &mut out) {
                    Err(error) => return (out, Some(Err(error)), input),
                    Ok((taken, step)) => {
                        input.drain(..taken);
                        match step {
                            Step::NeedInput => break,
                            Step::StartTls => connect.answer(Answer::TlsStarted(Secured::default())),
                            Step::Done(connected) => return (out, Some(Ok(connected)), input),
                            Step::Ask(question) => panic!("asks {question:?}"),
                        }
                    }
                }
            }
        }
        (out, None, input)
    }

    fn fails(connect: Connect, pieces: &[&[u8]], expected: impl Into<HandshakeError>) {
        let (_, end, _) = play(connect, pieces);
        assert_eq!(end.expect("goes on").err(), Some(expected.into()), "{pieces:?}");
    }

    fn done(connect: Connect, pieces: &[&[u8]]) -> (Vec<u8>, Connected) {
        let (out, end, _) = play(connect, pieces);
        (out, end.expect("waits").expect("fails"))
    }

    #[test]
    fn trust_and_what_follows() {
        let key = written(|out| message::backend_key_data(7, b"abcd", out));
        let (out, end, rest) = play(connect(|_| ()), &[&[welcome(&key), b"more".to_vec()].concat()]);
        let connected = end.unwrap().unwrap();
        assert_eq!(out, startup());
        assert_eq!(rest, b"more");
        assert_eq!(connected.parameters, Parameters::from([("server_version".into(), "15".into())]));
        assert_eq!((connected.process_id, connected.secret), (7, b"abcd".to_vec()));
        assert_eq!((connected.max_prepared_statements, connected.statement_key), (10, [1; 16]));
    }

    #[test]
    fn cancel_keys_of_every_kind() {
        let check = |body: &[u8], expected: (u32, usize)| {
            let key = written(|out| frame(out, b'K', |out| out.extend_from_slice(body)));
            let (_, connected) = done(connect(|_| ()), &[&welcome(&key)]);
            assert_eq!((connected.process_id, connected.secret.len()), expected, "{body:?}");
        };
        check(b"\0\0\0\x07abcd", (7, 4));
        check(&[&[0, 0, 0, 7], &[1; 32][..]].concat(), (7, 32));
        check(&[&[0, 0, 0, 7], &[1; 256][..]].concat(), (7, 256));
        check(&[&[0, 0, 0, 7], &[1; 257][..]].concat(), (0, 0));
        check(b"\0\0\0\x07abc", (0, 0));
        check(b"\0\0\0\x07", (0, 0));
        check(b"", (0, 0));
        assert_eq!(done(connect(|_| ()), &[&welcome(b"")]).1.secret, b"");
    }

    #[test]
    fn tls() {
        let with_tls = || connect(|options| options.tls = true);
        let (out, _) = done(with_tls(), &[b"S", &welcome(b"")]);
        assert_eq!(out, [written(message::ssl_request), startup()].concat());
        fails(with_tls(), &[b"N"], HandshakeError::TlsDeclined);
        fails(with_tls(), &[b"Sx"], Violation::PlaintextAfterTlsRequest);
        fails(with_tls(), &[b"E\0\0\0\x04"], Violation::UnexpectedReply(b'E'));
        let (out, end, _) = play(with_tls(), &[]);
        assert!(end.is_none());
        assert_eq!(out, written(message::ssl_request));
        // Bytes that come before the stream is TLS.
        let mut early = with_tls();
        let mut out = Vec::new();
        assert!(matches!(early.step_inner(b"S", &mut out), Ok((1, Step::StartTls))));
        let error = early.step_inner(b"x", &mut out).err();
        assert_eq!(error, Some(Violation::PlaintextAfterTlsRequest.into()));
    }

    #[test]
    fn passwords() {
        let cleartext = [auth(3, b""), welcome(b"")].concat();
        let expected = [startup(), b"p\0\0\0\x07pw\0".to_vec()].concat();
        assert_eq!(done(connect(|options| options.local_socket = true), &[&cleartext]).0, expected);
        let (out, _) = done(connect(|options| options.tls = true), &[b"S", &cleartext]);
        assert!(out.ends_with(&expected));
        let (out, end, _) = play(connect(|_| ()), &[&cleartext]);
        assert_eq!(end.unwrap().err(), Some(HandshakeError::NoPassword("in the clear, without TLS")));
        assert_eq!(out, startup());
        // Over TLS, to whoever has answered: by a challenge alone.
        let unverified = || {
            connect(|options| {
                options.tls = true;
                options.secret = Some(LoginSecret::Unsaid(Password::new("pw")));
            })
        };
        let (out, end, _) = play(unverified(), &[b"S", &cleartext]);
        assert!(end.unwrap().err().unwrap().to_string().contains("verify-full"));
        assert_eq!(out, [written(message::ssl_request), startup()].concat());
        assert!(done(unverified(), &[b"S", &auth(5, b"salt"), &welcome(b"")]).0.ends_with(&written(|out| {
            message::password_message(md5_hash(b"u", b"pw", *b"salt").as_bytes(), out);
        })));
        let (out, end, _) = play(unverified(), &[b"S", &auth(10, b"SCRAM-SHA-256\0\0")]);
        assert!(end.is_none() && out.windows(13).any(|window| window == b"SCRAM-SHA-256"));

        let md5 = [auth(5, b"salt"), welcome(b"")].concat();
        let (out, _) = done(connect(|_| ()), &[&md5]);
        assert!(
            out.ends_with(&written(|out| message::password_message(md5_hash(b"u", b"pw", *b"salt").as_bytes(), out)))
        );
        fails(connect(|_| ()), &[&auth(5, b"sal")], Violation::MalformedFrame(b'R'));
        for (code, data) in [(3, &b""[..]), (5, b"salt"), (10, b"SCRAM-SHA-256\0\0")] {
            let (_, end, _) = play(connect(|options| options.secret = None), &[&auth(code, data)]);
            assert!(matches!(end, Some(Err(HandshakeError::NoPassword(_)))));
        }
    }

    #[test]
    fn methods_that_we_lack_or_that_come_at_the_wrong_time() {
        let unsupported = |code, data: &[u8], name| {
            fails(connect(|_| ()), &[&auth(code, data)], HandshakeError::UnsupportedMethod(name));
        };
        unsupported(2, b"", "Kerberos V5");
        unsupported(7, b"", "GSSAPI");
        unsupported(9, b"", "SSPI");
        unsupported(99, b"", "unknown");
        unsupported(10, b"SCRAM-SHA-256-PLUS\0OAUTHBEARER\0\0", "SASL without SCRAM-SHA-256");
        unsupported(10, b"\0", "SASL without SCRAM-SHA-256");
        fails(connect(|_| ()), &[&auth(10, b"SCRAM-SHA-256")], Violation::MalformedFrame(b'R'));
        fails(connect(|_| ()), &[&auth(11, b"r=")], Violation::MalformedAuthentication);
        fails(connect(|_| ()), &[&auth(12, b"v=")], Violation::MalformedAuthentication);
        let twice = [auth(5, b"salt"), auth(5, b"salt")].concat();
        fails(connect(|_| ()), &[&twice], Violation::MalformedAuthentication);
        let offer = auth(10, b"SCRAM-SHA-256-PLUS\0X\0SCRAM-SHA-256\0\0");
        let changed = HandshakeError::Challenge("invalid nonce".to_owned());
        fails(connect(|_| ()), &[&offer, &auth(11, b"r=other,s=AAAA,i=1")], changed);
        fails(connect(|_| ()), &[&offer, &auth(0, b"")], HandshakeError::ServerNotProven);
        fails(connect(|_| ()), &[&offer, &auth(3, b"")], Violation::MalformedAuthentication);
        fails(connect(|_| ()), &[&welcome(&auth(0, b""))], Violation::UnexpectedReply(b'R'));
        fails(connect(|_| ()), &[b"Z\0\0\0\x05I"], Violation::UnexpectedReply(b'Z'));
        fails(connect(|_| ()), &[b"R\0\0\0\x04"], Violation::MalformedFrame(b'R'));
    }

    /// Our client against our server; `spoil` changes the server's proof.
    fn scram(password: &[u8], spoil: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> Result<Connected, HandshakeError> {
        let mut connect = connect(|_| ());
        let mut step = |input: &[u8]| {
            let mut out = Vec::new();
            connect.step_inner(input, &mut out).map(|(taken, step)| {
                assert_eq!(taken, input.len());
                (out, step)
            })
        };
        step(b"")?;
        let (initial, _) = step(&auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))?;
        let server = First::new(ScramSecret::derive(password, b"salt", ROUNDS), [3; 18], None);
        let (proof, challenge) = server.challenge(&initial[5 + MECHANISM.len() + 1 + 4..], false).unwrap();
        let (last, _) = step(&auth(11, &challenge))?;
        let proof = proof.verify(&last[5..]);
        let server_final = spoil(proof.map_or_else(|_| b"v=AAAA".to_vec(), |(server_final, _)| server_final));
        let server_final = server_final.map(|data| auth(12, &data)).unwrap_or_default();
        match step(&[server_final, welcome(b"")].concat())? {
            (_, Step::Done(connected)) => Ok(connected),
            (_, step) => panic!("{step:?}"),
        }
    }

    /// docs/CONFIG.md names the limit.
    #[test]
    fn so_many_iterations_are_too_many_and_the_log_says_so() {
        let answer = |iterations: u32| {
            let (mut connect, mut out) = (connect(|_| ()), Vec::new());
            connect.step_inner(b"", &mut out).unwrap();
            out.clear();
            connect.step_inner(&auth(10, b"SCRAM-SHA-256\0\0"), &mut out).unwrap();
            let nonce = String::from_utf8(out.split_off(out.len() - 24)).unwrap();
            let challenge = format!("r={nonce}more,s=c2FsdA==,i={iterations}");
            connect.step_inner(&auth(11, challenge.as_bytes()), &mut out).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(answer(100_000), Ok(()));
        let words = answer(100_001).unwrap_err();
        assert!(words.contains("challenge") && words.contains("iteration count exceeds the maximum"), "{words}");
    }

    #[test]
    fn scram_proves_both_sides() {
        assert!(scram(b"pw", Some).is_ok());
        assert_eq!(scram(b"other", Some).err(), Some(HandshakeError::ServerNotProven));
        assert_eq!(scram(b"pw", |_| Some(b"v=AAAA".to_vec())).err(), Some(HandshakeError::ServerNotProven));
        assert_eq!(scram(b"pw", |_| Some(b"e=other-error".to_vec())).err(), Some(HandshakeError::ServerNotProven));
        assert_eq!(scram(b"pw", |_| None).err(), Some(HandshakeError::ServerNotProven));
    }

    /// What we answer to this list of mechanisms over a connection that can be bound to, or can't.
    fn chosen(offered: &[u8], end_point: Option<&[u8]>) -> Result<Vec<u8>, HandshakeError> {
        let mut connect = connect(|options| options.tls = true);
        let mut out = Vec::new();
        connect.step_inner(b"", &mut out)?;
        connect.step_inner(b"S", &mut out)?;
        connect.answer(Answer::TlsStarted(Secured { end_point: end_point.map(<[u8]>::to_vec), ..Secured::default() }));
        connect.step_inner(b"", &mut out)?;
        out.clear();
        connect.step_inner(&auth(10, offered), &mut out)?;
        Ok(out.split_off(5))
    }

    #[test]
    fn pg_111_the_login_is_bound_where_both_sides_can_and_unknown_mechanisms_are_passed_over() {
        const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let starts = |offered, end_point, mechanism: &str, flag: &[u8]| {
            let sent = chosen(offered, end_point).unwrap();
            let rest = sent.strip_prefix(format!("{mechanism}\0").as_bytes()).expect(mechanism);
            assert!(rest[4..].starts_with(flag), "{}", String::from_utf8_lossy(rest));
        };
        starts(BOTH, Some(&b"hash"[..]), MECHANISM_PLUS, b"p=tls-server-end-point,,");
        starts(b"OTHER\0SCRAM-SHA-256-PLUS\0\0", Some(&b"hash"[..]), MECHANISM_PLUS, b"p=");
        // We could, the server says it can't: it is told, and refuses if somebody has cut its offer out.
        starts(b"SCRAM-SHA-256\0\0", Some(&b"hash"[..]), MECHANISM, b"y,,");
        // The certificate has no hash.
        starts(BOTH, None, MECHANISM, b"n,,");
        for offered in [&b"SCRAM-SHA-256-PLUS\0\0"[..], b"OTHER\0\0", b"\0"] {
            assert!(matches!(chosen(offered, None), Err(HandshakeError::UnsupportedMethod(_))));
        }
        assert!(chosen(b"SCRAM-SHA-256", Some(b"hash")).is_err());
        // And the server's half agrees.
        let mut connect = connect(|options| options.tls = true);
        let mut step = |input: &[u8]| {
            let mut out = Vec::new();
            connect.step_inner(input, &mut out).unwrap();
            if input == b"S" {
                let end_point = Some(b"hash".to_vec());
                connect.answer(Answer::TlsStarted(Secured { end_point, ..Secured::default() }));
            }
            out
        };
        step(b"");
        step(b"S");
        step(b"");
        let initial = step(&auth(10, BOTH));
        let server = First::new(ScramSecret::derive(b"pw", b"salt", ROUNDS), [3; 18], Some(b"hash".to_vec()));
        let (proof, challenge) = server.challenge(&initial[5 + MECHANISM_PLUS.len() + 1 + 4..], true).unwrap();
        let last = step(&auth(11, &challenge));
        assert!(proof.verify(&last[5..]).is_ok());
    }

    #[test]
    fn what_the_server_says_besides() {
        let notice = written(|out| message::notice_response(message::Severity::Notice, "00000", "hm", None, out));
        let negotiate = written(|out| message::negotiate_protocol_version((3, 0), [].into_iter(), out));
        done(connect(|_| ()), &[&[&negotiate, &notice, &welcome(&notice)[..]].concat()]);

        let standby = written(|out| message::parameter_status("in_hot_standby", "on", out));
        fails(connect(|_| ()), &[&welcome(&standby)], HandshakeError::Standby);
        let writer = written(|out| message::parameter_status("in_hot_standby", "off", out));
        done(connect(|_| ()), &[&welcome(&writer)]);

        let error = written(|out| message::error_response(message::Severity::Fatal, "3D000", "no such", None, out));
        let expected = || message::server_error(&error).unwrap();
        fails(connect(|_| ()), &[&error], HandshakeError::Server(expected()));
        fails(connect(|_| ()), &[&welcome(&error)], HandshakeError::Server(expected()));
        fails(connect(|_| ()), &[b"E\0\0\0\x04"], Violation::MalformedFrame(b'E'));
        fails(connect(|_| ()), &[b"E\x00\x01\0\0"], Violation::FrameTooLong);
        fails(connect(|_| ()), &[b"E\0\0\0\x03"], Violation::InvalidLength);
        fails(connect(|_| ()), &[&welcome(b"T\0\0\0\x06\0\0")], Violation::UnexpectedReply(b'T'));
        fails(connect(|_| ()), &[&welcome(b"S\0\0\0\x06a\0")], Violation::MalformedFrame(b'S'));
        fails(connect(|_| ()), &[&welcome(b"Z\0\0\0\x05T")], Violation::MalformedFrame(b'Z'));
        let many = written(|out| (0..300).for_each(|n| message::parameter_status(&format!("a{n}"), "", out)));
        fails(connect(|_| ()), &[&welcome(&many)], Violation::UnexpectedReply(b'S'));
    }

    #[test]
    fn any_cut_gives_the_same_login() {
        let key = written(|out| message::backend_key_data(7, b"abcd", out));
        let input = [auth(5, b"salt"), welcome(&key), b"rest".to_vec()].concat();
        let (expected, _, _) = play(connect(|_| ()), &[&input]);
        for cut in 0..=input.len() {
            let (out, end, rest) = play(connect(|_| ()), &[&input[..cut], &input[cut..]]);
            let connected = end.unwrap().unwrap();
            assert_eq!((connected.process_id, &out), (7, &expected), "cut at {cut}");
            assert!(b"rest".starts_with(&rest));
        }
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..24);
        let piece = prop_oneof![
            (prop_oneof![0..13u32, any::<u32>()], bytes()).prop_map(|(code, data)| auth(code, &data)),
            Just(auth(0, b"")),
            Just(auth(10, b"SCRAM-SHA-256\0\0")),
            (any::<u8>(), bytes()).prop_map(|(kind, body)| written(|out| frame(out, kind, |out| out.extend(body)))),
            ("[SKZNEv]", bytes())
                .prop_map(|(kind, body)| written(|out| frame(out, kind.as_bytes()[0], |out| out.extend(body)))),
            bytes(),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn hostile_input_fails_the_same_however_cut(input in hostile(), cut: proptest::sample::Index, tls: bool) {
            let machine = || connect(|options| options.local_socket = tls);
            let (first, rest) = input.split_at(cut.index(input.len() + 1));
            let (whole_out, whole_end, _) = play(machine(), &[&input]);
            let (cut_out, cut_end, _) = play(machine(), &[first, rest]);
            prop_assert_eq!(whole_end.map(|end| end.map(|_| ())), cut_end.map(|end| end.map(|_| ())));
            // The client's nonce differs from login to login.
            prop_assert_eq!(whole_out.len(), cut_out.len());
        }

        #[test]
        fn hostile_answers_to_tls_never_panic(input in hostile()) {
            play(connect(|options| options.tls = true), &[&input]);
        }
    }
}
