//! A client's login under any bytes in any pieces: no panic, never more bytes taken than shown, and the same bytes
//! written and the same end whether they come at once or in two pieces.
#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;
use sluicegate::postgres::accept::Accept;
use sluicegate::protocol::{
    AcceptOptions, Accepted, Answer, CancelKey, ClientError, Credentials, Parameters, Proof, Question, ScramSecret,
    Secured, Step, TlsOffer, Welcome,
};
use std::sync::Arc;

// With TLS on offer a cut behind SSLRequest decides between a handshake and an attack.
fuzz_target!(|data: &[u8]| pieces::check(data, play, |control| {
    let (tls, direct) = chosen(control);
    !direct && matches!(tls, TlsOffer::Required | TlsOffer::Optional)
}));

/// What is on offer, and whether TLS comes first.
fn chosen(control: u8) -> (TlsOffer, bool) {
    let offers = [TlsOffer::Required, TlsOffer::Optional, TlsOffer::Off, TlsOffer::LocalSocket];
    (offers[usize::from(control & 3)], control & 4 != 0)
}

/// A connection that a login can be bound to, and a certificate.
fn secured() -> Secured {
    Secured { end_point: Some(b"hash".to_vec()), client_names: vec!["name".to_owned()] }
}

fn play(control: u8, pieces: &[&[u8]]) -> (Vec<u8>, String) {
    let (tls, direct) = chosen(control);
    let mut accept = Accept::new(AcceptOptions {
        tls,
        direct_tls: direct.then(secured),
        nonce: [7; 18],
        greeting: sluicegate::protocol::Greeting::default(),
        password_key: None,
    });
    let (mut input, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (taken, step) = match accept.step_inner(&input, &mut out) {
                Ok(step) => step,
                Err(error) => {
                    let told = out.len();
                    accept.refuse(&ClientError::Internal, &mut out);
                    assert_eq!(out.len(), told);
                    return (out, format!("{error:?}"));
                }
            };
            assert!(taken <= input.len());
            input.drain(..taken);
            match step {
                Step::NeedInput => break,
                Step::StartTls => {
                    assert!(input.is_empty());
                    accept.answer(Answer::TlsStarted(secured()));
                }
                Step::Ask(Question::Credentials { user, .. }) => {
                    let secret = ScramSecret::derive(user.as_bytes(), b"salt", std::num::NonZeroU32::MIN);
                    // Four ways to prove it, each for some names.
                    let proof = match user.len() % 4 {
                        0 => Proof::Password,
                        1 => Proof::Scram(secret),
                        2 => Proof::Certificate(["name".to_owned()].into()),
                        _ => Proof::Md5([b'0'; 32]),
                    };
                    accept.answer(Answer::Credentials(Credentials { proof, known: true }));
                }
                Step::Ask(Question::Password { password, .. }) => {
                    assert!(!password.expose().is_empty() && !password.expose().contains(&0));
                    let is_wrong = password.expose() == b"wrong";
                    accept.answer(Answer::Judged(if is_wrong { Err(ClientError::Internal) } else { Ok(()) }));
                }
                Step::Ask(Question::Welcome(_)) => accept.answer(Answer::Welcome(Welcome {
                    parameters: Arc::new(Parameters::new()),
                    cancel_key: CancelKey { process_id: 1, secret: [2; 32].into() },
                    client_id: 3,
                    statement_key: [4; 16],
                })),
                Step::Done(Accepted::Client(started)) => return (out, format!("{:?}", started.login)),
                Step::Done(cancel) => return (out, format!("{cancel:?}")),
            }
        }
    }
    (out, String::new())
}
