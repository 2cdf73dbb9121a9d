//! Logins of clients, played against what arrives in pieces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

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
