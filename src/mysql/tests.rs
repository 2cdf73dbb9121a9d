//! Both sides of a login against each other, and what neither must take.

mod full;

use super::accept::Accept;
use super::connect::{Connect, Connected};
use super::frame;
use super::password::Plugin;
use crate::protocol::{
    AcceptOptions, Accepted, Answer, CancelKey, Challenge, ClientError, ConnectOptions, Credentials, Greeting,
    HandshakeError, Login, LoginSecret, Parameters, Password, PasswordKey, Proof, Question, Secured, Step, TlsOffer,
    Welcome,
};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use proptest::prelude::{any, proptest};
use std::sync::{Arc, OnceLock};

/// What the core would answer.
#[derive(Clone)]
struct Core {
    proof: Proof,
    known: bool,
    judged: Result<(), ClientError>,
    tls: TlsOffer,
}

fn core(proof: Proof) -> Core {
    Core { proof, known: true, judged: Ok(()), tls: TlsOffer::Optional }
}

fn challenge(password: &str) -> Proof {
    Proof::Challenge(Challenge { password: Password::new(password), weaker: None })
}

fn options(password: &str) -> ConnectOptions {
    ConnectOptions {
        user: "app".into(),
        database: "orders".into(),
        fixed: vec![("found_rows".into(), "on".into())],
        secret: Some(LoginSecret::Password(Password::new(password))),
        tls: false,
        local_socket: false,
        nonce: [0; 18],
        max_prepared_statements: 1,
        statement_key: [0; 16],
        learned: Arc::default(),
    }
}

fn accept(core: &Core) -> Accept {
    let greeting = Greeting { version: Some("9.7.4".into()), connection_id: 7, challenges: [[1; 20], [200; 20]] };
    Accept::new(AcceptOptions { tls: core.tls, direct_tls: None, nonce: [0; 18], greeting, password_key: Some(key()) })
}

/// One for all tests: it takes a while.
fn key() -> Arc<PasswordKey> {
    static KEY: OnceLock<Arc<PasswordKey>> = OnceLock::new();
    let made = || {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        Arc::new(PasswordKey::new(private).unwrap())
    };
    Arc::clone(KEY.get_or_init(made))
}

#[derive(Debug)]
struct Met {
    connected: Result<Connected, HandshakeError>,
    /// What the server's side has asked for, and how it ended.
    login: Option<Login>,
    refused: Option<HandshakeError>,
    judged: Option<Vec<u8>>,
}

/// Lets both talk until they have nothing to say.
fn meet(core: &Core, options: ConnectOptions) -> Met {
    let (mut server, mut client) = (accept(core), Connect::new(options));
    let (mut to_client, mut to_server): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    let mut met = Met { connected: Err(HandshakeError::ServerNotProven), login: None, refused: None, judged: None };
    let (mut is_over, mut tls) = (false, (false, false));
    for _ in 0..100 {
        if !is_over {
            let input = std::mem::take(&mut to_server);
            match server.step_inner(&input, &mut to_client) {
                Err(error) => {
                    met.refused = Some(error);
                    is_over = true;
                }
                Ok((taken, step)) => {
                    to_server = input[taken..].to_vec();
                    match step {
                        Step::NeedInput => {}
                        Step::StartTls => tls.0 = true,
                        Step::Ask(Question::Credentials { .. }) => server
                            .answer(Answer::Credentials(Credentials { proof: core.proof.clone(), known: core.known })),
                        Step::Ask(Question::Password { password, .. }) => {
                            met.judged = Some(password.expose().to_vec());
                            server.answer(Answer::Judged(core.judged.clone()));
                        }
                        Step::Ask(Question::Welcome(login)) => {
                            met.login = Some(login);
                            server.answer(Answer::Welcome(Welcome {
                                parameters: Arc::new(Parameters::new()),
                                cancel_key: CancelKey { process_id: 7, secret: Box::default() },
                                client_id: 1,
                                statement_key: [0; 16],
                            }));
                        }
                        Step::Done(Accepted::Client(_)) => is_over = true,
                        Step::Done(Accepted::Cancel(_)) => panic!("no cancel was asked for"),
                    }
                }
            }
        }
        let input = std::mem::take(&mut to_client);
        match client.step_inner(&input, &mut to_server) {
            Err(error) => {
                met.connected = Err(error);
                return met;
            }
            Ok((taken, step)) => {
                to_client = input[taken..].to_vec();
                match step {
                    Step::NeedInput => {}
                    Step::StartTls => tls.1 = true,
                    Step::Ask(_) => panic!("nothing is to be asked"),
                    Step::Done(connected) => {
                        met.connected = Ok(connected);
                        return met;
                    }
                }
            }
        }
        if tls == (true, true) {
            tls = (false, false);
            server.answer(Answer::TlsStarted(Secured { client_names: vec!["app".into()], ..Secured::default() }));
            client.answer(Answer::TlsStarted(Secured::default()));
        }
    }
    met
}

fn code(met: &Met) -> &str {
    match &met.connected {
        Err(HandshakeError::Server(error)) => &error.code,
        other => panic!("{other:?}"),
    }
}

/// Scenarios 2 to 5, 13 and 30.
#[test]
fn a_password_by_its_challenge() {
    for tls in [false, true] {
        let right = meet(&core(challenge("s3cret")), ConnectOptions { tls, ..options("s3cret") });
        let connected = right.connected.as_ref().unwrap();
        assert_eq!((connected.version.as_str(), connected.connection_id), ("9.7.4", 7));
        let login = right.login.unwrap();
        assert_eq!((login.user.as_str(), login.database.as_str()), ("app", "orders"));
        assert_eq!(login.fixed, [("found_rows".to_owned(), "on".to_owned())]);
        assert_eq!(login.baseline.value("names"), Some("45"));
    }
    let wrong = meet(&core(challenge("s3cret")), options("other"));
    assert_eq!(code(&wrong), "1045");
    // Scenario 39.
    let empty = meet(&core(challenge("s3cret")), options(""));
    assert_eq!(code(&empty), "1045");
    assert!(meet(&core(challenge("")), options("")).connected.is_ok());
    // Scenario 40: who does not exist is told the same.
    let unknown = meet(&Core { known: false, ..core(challenge("s3cret")) }, options("s3cret"));
    assert_eq!(code(&unknown), "1045");
}

/// Scenario 36: a client that comes with another plugin, and nothing to say by it, is asked anew, and told that its answer was good.
#[test]
fn another_plugin_first() {
    let core = core(challenge("s3cret"));
    let (mut server, mut out) = (accept(&core), Vec::new());
    server.step_inner(b"", &mut out).unwrap();
    out.clear();
    let mut response = Vec::new();
    frame::packet(&mut response, &mut 1, |out| {
        // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH
        out.extend_from_slice(&0x0008_8200_u32.to_le_bytes());
        out.extend_from_slice(&[0; 28]);
        out.extend_from_slice(b"app\0\0dialog\0");
    });
    assert!(matches!(server.step_inner(&response, &mut out).unwrap().1, Step::Ask(Question::Credentials { .. })));
    server.answer(Answer::Credentials(Credentials { proof: core.proof.clone(), known: true }));
    server.step_inner(b"", &mut out).unwrap();
    let (plugin, asked) = super::message::read_switch(&out[4..]).unwrap();
    assert_eq!(plugin, b"caching_sha2_password");
    let asked = *asked.first_chunk().unwrap();
    out.clear();
    let answer = Plugin::CachingSha2.answer(&asked, &Password::new("s3cret")).unwrap();
    let mut second = Vec::new();
    frame::packet(&mut second, &mut 3, |out| out.extend_from_slice(&answer));
    assert!(matches!(server.step_inner(&second, &mut out).unwrap().1, Step::Ask(Question::Welcome(_))));
    assert_eq!(out, [2, 0, 0, 4, 1, 3]);
}

/// Scenario 34: a token, or a password that the core judges, over TLS alone.
#[test]
fn a_password_that_is_said() {
    let met = meet(&core(Proof::Password), ConnectOptions { tls: true, ..options("a token") });
    assert!(met.connected.is_ok());
    assert_eq!(met.judged.as_deref(), Some(&b"a token"[..]));
    let met = meet(&core(Proof::Password), options("a token"));
    assert_eq!((code(&met), &met.judged), ("3159", &None));
    let refused = ClientError::TokenRefused { user: "app".into() };
    let met =
        meet(&Core { judged: Err(refused), ..core(Proof::Password) }, ConnectOptions { tls: true, ..options("x") });
    assert_eq!(code(&met), "1045");
}

#[test]
fn a_certificate() {
    let tls = ConnectOptions { tls: true, ..options("") };
    assert!(meet(&core(Proof::Certificate(["app".to_owned()].into())), tls.clone()).connected.is_ok());
    assert_eq!(code(&meet(&core(Proof::Certificate(["other".to_owned()].into())), tls)), "1045");
    assert_eq!(code(&meet(&core(Proof::Certificate(["app".to_owned()].into())), options(""))), "1045");
}

/// Scenario 24.
#[test]
fn tls_is_required_and_may_be_declined() {
    let required = Core { tls: TlsOffer::Required, ..core(challenge("s3cret")) };
    assert_eq!(code(&meet(&required, options("s3cret"))), "3159");
    assert!(meet(&required, ConnectOptions { tls: true, ..options("s3cret") }).connected.is_ok());
    let off = Core { tls: TlsOffer::Off, ..core(challenge("s3cret")) };
    let met = meet(&off, ConnectOptions { tls: true, ..options("s3cret") });
    assert!(matches!(met.connected, Err(HandshakeError::TlsDeclined)), "{:?}", met.connected);
    // Scenario 24: something behind the request for TLS, in the clear.
    let mut server = accept(&required);
    let mut out = Vec::new();
    server.step_inner(b"", &mut out).unwrap();
    let mut request = Vec::new();
    frame::packet(&mut request, &mut 1, |out| {
        out.extend_from_slice(&(0x0800 | 0x0200_u32).to_le_bytes());
        out.extend_from_slice(&[0; 28]);
    });
    request.push(3);
    assert!(server.step_inner(&request, &mut out).is_err());
}

/// What is not said without TLS, or to who has not shown who it is.
#[test]
fn a_password_stays_where_it_is() {
    let unsaid = LoginSecret::Unsaid(Password::new("a token"));
    let met = meet(&core(Proof::Password), ConnectOptions { tls: true, secret: Some(unsaid), ..options("") });
    assert!(matches!(met.connected, Err(HandshakeError::NoPassword(_))), "{:?}", met.connected);
    assert_eq!(met.judged, None);
    assert!(!format!("{:?}", options("s3cret")).contains("s3cret"));
}

/// Whoever speaks for the database shows the key: anything may be in it.
#[test]
fn a_key_that_is_none_ends_the_login() {
    let pem = |body: &str| format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let cut_short = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7";
    for key in [String::new(), "x".into(), pem(""), pem("!"), pem("AAAA"), pem(cut_short)] {
        let mut client = Connect::new(options("s3cret"));
        let (mut from_server, mut out) = (Vec::new(), Vec::new());
        let mut greeting = core(Proof::Password);
        greeting.tls = TlsOffer::Off;
        accept(&greeting).step_inner(b"", &mut from_server).unwrap();
        frame::packet(&mut from_server, &mut 2, |out| out.extend_from_slice(&[1, 4]));
        frame::packet(&mut from_server, &mut 4, |out| out.extend_from_slice(&[b"\x01", key.as_bytes()].concat()));
        let end = client.step_inner(&from_server, &mut out);
        assert!(matches!(end, Err(HandshakeError::Challenge(_))), "{key}: {end:?}");
    }
}

#[test]
fn plugins_have_names() {
    for name in ["mysql_native_password", "caching_sha2_password", "mysql_clear_password", "dialog"] {
        assert_eq!(Plugin::of(name.as_bytes()).name(), name);
    }
}

proptest! {
    /// Scenario 28.
    #[test]
    fn any_bytes_from_either_side(bytes in proptest::collection::vec(any::<u8>(), 0..300), sequence in 0..3u8, flags: u32) {
        for framed in [false, true] {
            let mut input = bytes.clone();
            if framed {
                input.clear();
                frame::packet(&mut input, &mut sequence.clone(), |out| {
                    out.extend_from_slice(&(flags | 0x0200).to_le_bytes());
                    out.extend_from_slice(&bytes);
                });
            }
            let mut server = accept(&core(Proof::Password));
            let mut out = Vec::new();
            let _ = server.step_inner(&input, &mut out);
            let mut client = Connect::new(options("x"));
            let _ = client.step_inner(&input, &mut out);
        }
    }
}

/// COM_CHANGE_USER, with an answer to a challenge of long ago.
fn change_user(plugin: &str, answer: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    frame::packet(&mut packet, &mut 0, |out| {
        out.extend_from_slice(b"\x11app\0");
        out.push(u8::try_from(answer.len()).unwrap());
        out.extend_from_slice(answer);
        out.extend_from_slice(b"orders\0\xFF\0");
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
    });
    packet
}

/// A client that logs in again, as far as its new challenge; the plugin that it is for.
fn again(core: &Core, plugin: &str, answer: &[u8]) -> (Accept, String, [u8; 20]) {
    let greeting = Greeting { version: None, connection_id: 7, challenges: [[1; 20], [200; 20]] };
    let tls = Some(Secured::default());
    let options = AcceptOptions { tls: core.tls, direct_tls: tls, nonce: [0; 18], greeting, password_key: Some(key()) };
    let capabilities = mysql_common::constants::CapabilityFlags::CLIENT_PLUGIN_AUTH;
    let (mut server, mut out) =
        (Accept::again(capabilities, super::capabilities::Extended::empty(), options), Vec::new());
    let request = change_user(plugin, answer);
    for end in 0..request.len() {
        assert!(matches!(server.step_inner(&request[..end], &mut out).unwrap(), (0, Step::NeedInput)));
    }
    let (taken, step) = server.step_inner(&request, &mut out).unwrap();
    assert!(matches!(step, Step::Ask(Question::Credentials { .. })) && taken == request.len());
    server.answer(Answer::Credentials(Credentials { proof: core.proof.clone(), known: core.known }));
    assert!(matches!(server.step_inner(b"", &mut out).unwrap().1, Step::NeedInput));
    assert_eq!(out[3], 1);
    let (plugin, challenge) = super::message::read_switch(&out[4..]).unwrap();
    (server, String::from_utf8(plugin.to_vec()).unwrap(), *challenge.first_chunk().unwrap())
}

/// Scenario 41: there is always a new challenge.
#[test]
fn a_client_logs_in_again() {
    let weaker = Proof::Challenge(Challenge { password: Password::new("s3cret"), weaker: Some(true) });
    let not = Proof::Challenge(Challenge { password: Password::new("s3cret"), weaker: Some(false) });
    let (sha2, native) = ("caching_sha2_password", "mysql_native_password");
    for (proof, shown, asked, password, is_right) in [
        (challenge("s3cret"), sha2, sha2, "s3cret", true),
        (challenge("s3cret"), sha2, sha2, "other", false),
        (challenge("s3cret"), native, sha2, "s3cret", true),
        (challenge("s3cret"), "dialog", sha2, "s3cret", true),
        (weaker, native, native, "s3cret", true),
        (not, native, native, "s3cret", false),
    ] {
        for known in [true, false] {
            // Right for the first challenge, which counts for nothing.
            let old =
                Plugin::of(shown.as_bytes()).answer(&super::password::challenge([1; 20]), &Password::new("s3cret"));
            let core = Core { known, ..core(proof.clone()) };
            let (mut server, plugin, challenge) = again(&core, shown, &old.unwrap_or_default());
            assert_eq!(plugin, asked);
            let answer = Plugin::of(asked.as_bytes()).answer(&challenge, &Password::new(password)).unwrap();
            let (mut out, mut second) = (Vec::new(), Vec::new());
            frame::packet(&mut second, &mut 2, |out| out.extend_from_slice(&answer));
            match server.step_inner(&second, &mut out) {
                Ok((_, Step::Ask(Question::Welcome(login)))) => {
                    assert!(is_right && known);
                    assert_eq!((login.user.as_str(), login.database.as_str()), ("app", "orders"));
                    assert_eq!(login.baseline.value("names"), Some("255"));
                }
                other => assert!(!(is_right && known), "{:?}", other.err()),
            }
        }
    }
}

/// The same with a token: asked for under TLS, behind an answer that says nothing.
#[test]
fn a_client_logs_in_again_with_a_token() {
    let (mut server, plugin, _) = again(&core(Proof::Password), "caching_sha2_password", b"whatever");
    assert_eq!(plugin, "caching_sha2_password");
    let (mut out, mut said) = (Vec::new(), Vec::new());
    frame::packet(&mut said, &mut 2, |out| out.extend_from_slice(b"whatever"));
    assert!(matches!(server.step_inner(&said, &mut out).unwrap().1, Step::NeedInput));
    assert_eq!(out, [2, 0, 0, 3, 1, 4]);
    said.clear();
    frame::packet(&mut said, &mut 4, |out| out.extend_from_slice(b"a token\0"));
    let Step::Ask(Question::Password { password, .. }) = server.step_inner(&said, &mut out).unwrap().1 else {
        panic!()
    };
    assert_eq!(password.expose(), b"a token");
    let (_, plugin, _) = again(&core(Proof::Password), "mysql_clear_password", b"old");
    assert_eq!(plugin, "mysql_clear_password");
}
