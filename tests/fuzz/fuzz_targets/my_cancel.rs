//! A `KILL QUERY` at a MySQL server that says anything in any pieces: no panic, never more bytes taken than shown, not a word
//! of it before the login is done nor before TLS has started, where that is wanted; and when it is done, one kill and a goodbye.
#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;
use sluicegate::mysql::cancel::Cancel;
use sluicegate::protocol::{Answer, ConnectOptions, Handshake, LoginSecret, Password, Secured, Step};

const KILL: &[u8] = b"\x0E\0\0\0\x03KILL QUERY 77";
const QUIT: &[u8] = b"\x01\0\0\0\x01";

// A server that greets and goes on in the clear is an attack or not by the cut alone, where TLS is wanted.
fuzz_target!(|data: &[u8]| pieces::check(data, play, |control| control & 1 != 0));

fn play(control: u8, pieces: &[&[u8]]) -> (usize, String) {
    let tls = control & 1 != 0;
    let options = ConnectOptions {
        user: "user".into(),
        database: "database".into(),
        fixed: Vec::new(),
        secret: Some(LoginSecret::Password(Password::new("password"))),
        tls,
        local_socket: control & 2 != 0,
        nonce: [0; 18],
        max_prepared_statements: 1,
        statement_key: [0; 16],
        learned: std::sync::Arc::default(),
    };
    let mut cancel = Cancel::new(77, options);
    let (mut input, mut out, mut is_tls) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        input.extend_from_slice(piece);
        // Words that fit no state change nothing.
        if control & 4 != 0 && !tls {
            cancel.answer(Answer::Judged(Ok(())));
        }
        loop {
            let stepped = cancel.step(&input, &mut out);
            let kills = out.windows(KILL.len()).filter(|window| *window == KILL).count();
            assert!(kills <= 1 && (kills == 0 || is_tls == tls), "killed too early or twice");
            let (taken, step) = match stepped {
                Ok(step) => step,
                Err(error) => return (out.len(), format!("{error:?}")),
            };
            assert!(taken <= input.len());
            input.drain(..taken);
            match step {
                Step::NeedInput => break,
                Step::StartTls => {
                    assert!(tls && !is_tls && input.is_empty());
                    is_tls = true;
                    cancel.answer(Answer::TlsStarted(Secured::default()));
                }
                Step::Ask(_) => unreachable!("asks nothing"),
                Step::Done(()) => {
                    assert!(out.ends_with(&[KILL, QUIT].concat()));
                    return (out.len(), "done".to_owned());
                }
            }
        }
    }
    (out.len(), String::new())
}
