//! A MySQL client's login under any bytes in any pieces: no panic, never more bytes taken than shown, nothing asked for in
//! the clear that needs TLS, nobody let in who is not known, whole packets in their turn to the client; and the same bytes
//! written and the same end whether they come at once or in two pieces, if no more is read than is wanted.
#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;
use sluicegate::mysql::accept::Accept;
use sluicegate::mysql::frame;
use sluicegate::protocol::{
    AcceptOptions, Accepted, Answer, CancelKey, Challenge, ClientError, Credentials, Greeting, Parameters, Password,
    PasswordKey, Proof, Question, ScramSecret, Secured, Step, TlsOffer, Welcome,
};
use std::sync::{Arc, OnceLock};

fuzz_target!(|data: &[u8]| pieces::check(data, play, |_| false));

fn play(control: u8, pieces: &[&[u8]]) -> (Vec<u8>, String) {
    let offers = [TlsOffer::Required, TlsOffer::Optional, TlsOffer::Off, TlsOffer::LocalSocket];
    let tls = offers[usize::from(control & 3)];
    let version = if control & 4 == 0 { "9.7.4" } else { "5.5.5-10.11.19-MariaDB" };
    let greeting = Greeting { version: Some(version.into()), connection_id: 7, challenges: [[1; 20], [200; 20]] };
    let password_key = Some(key());
    let mut accept = Accept::new(AcceptOptions { tls, direct_tls: None, nonce: [7; 18], greeting, password_key });
    let (mut input, mut out, mut is_known, mut is_tls) = (Vec::new(), Vec::new(), false, false);
    for piece in pieces {
        let mut unread = *piece;
        loop {
            let (taken, step) = match accept.step_inner(&input, &mut out) {
                Ok(step) => step,
                Err(error) => {
                    let told = out.len();
                    accept.refuse(&ClientError::Internal, &mut out);
                    assert_eq!(out.len(), told);
                    check_packets(&out);
                    return (out, format!("{error:?}"));
                }
            };
            assert!(taken <= input.len());
            input.drain(..taken);
            match step {
                Step::NeedInput if unread.is_empty() => break,
                Step::NeedInput => {
                    let wanted = accept.wanted(&input);
                    assert!(wanted > 0);
                    let (more, rest) = unread.split_at(wanted.min(unread.len()));
                    input.extend_from_slice(more);
                    unread = rest;
                }
                Step::StartTls => {
                    assert!(input.is_empty() && !is_tls && matches!(tls, TlsOffer::Required | TlsOffer::Optional));
                    is_tls = true;
                    let client_names = vec!["name".to_owned()];
                    accept.answer(Answer::TlsStarted(Secured { client_names, ..Secured::default() }));
                }
                Step::Ask(Question::Credentials { user, .. }) => {
                    assert!(!user.is_empty() && (is_tls || tls != TlsOffer::Required));
                    is_known = !user.starts_with('x');
                    accept.answer(Answer::Credentials(Credentials { proof: proof(&user), known: is_known }));
                }
                Step::Ask(Question::Password { password, .. }) => {
                    assert!(is_tls || tls == TlsOffer::LocalSocket, "a password in the clear");
                    let holds = is_known && password.expose() == b"password";
                    accept.answer(Answer::Judged(if holds { Ok(()) } else { Err(ClientError::Internal) }));
                }
                Step::Ask(Question::Welcome(_)) => {
                    assert!(is_known, "a stranger is welcomed");
                    accept.answer(Answer::Welcome(Welcome {
                        parameters: Arc::new(Parameters::new()),
                        cancel_key: CancelKey { process_id: 7, secret: Box::default() },
                        client_id: 3,
                        statement_key: [4; 16],
                    }));
                }
                Step::Done(Accepted::Client(started)) => {
                    check_packets(&out);
                    return (out, format!("{started:?}"));
                }
                Step::Done(Accepted::Cancel(_)) => unreachable!("no client can ask for that here"),
            }
        }
    }
    check_packets(&out);
    (out, String::new())
}

/// One for all runs: what is made of it is the same each time.
fn key() -> Arc<PasswordKey> {
    static KEY: OnceLock<Arc<PasswordKey>> = OnceLock::new();
    Arc::clone(KEY.get_or_init(|| Arc::new(sluicegate::auth::password_key().unwrap())))
}

/// Ways to prove it, each for some names.
fn proof(user: &str) -> Proof {
    let challenge = |weaker| Proof::Challenge(Challenge { password: Password::new("password"), weaker });
    match user.len() % 6 {
        0 => challenge(None),
        1 => challenge(Some(true)),
        2 => challenge(Some(false)),
        3 => Proof::Password,
        4 => Proof::Certificate(["name".to_owned()].into()),
        _ => Proof::Scram(ScramSecret::derive(user.as_bytes(), b"salt", std::num::NonZeroU32::MIN)),
    }
}

/// What a client is told is whole packets, and none has the number of the one before.
fn check_packets(mut out: &[u8]) {
    let mut before = None;
    while !out.is_empty() {
        let (head, _) = frame::whole(out, out.len()).unwrap().unwrap();
        assert!(before.is_none_or(|before| head.sequence != before));
        before = Some(head.sequence);
        out = &out[head.bytes()..];
    }
}
