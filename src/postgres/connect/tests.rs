//! Logins at databases, played against what a server says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

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
    assert!(out.ends_with(&written(|out| message::password_message(md5_hash(b"u", b"pw", *b"salt").as_bytes(), out))));
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
