//! A login at a MySQL server that says anything in any pieces: no panic, never more bytes taken than shown, the password as it
//! is only where nobody else can read it, and the same end whether the bytes come at once or in two pieces.
#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;
use sluicegate::mysql::connect::Connect;
use sluicegate::protocol::{Answer, ConnectOptions, LoginSecret, Password, Secured, Step};

const PASSWORD: &str = "p4ssw0rd";

// A server that greets and goes on in the clear is an attack or not by the cut alone, where TLS is wanted.
fuzz_target!(|data: &[u8]| pieces::check(data, play, |control| control & 1 != 0));

fn play(control: u8, pieces: &[&[u8]]) -> (usize, String) {
    let (tls, local_socket) = (control & 1 != 0, control & 2 != 0);
    let secret = match control >> 2 & 3 {
        0 => None,
        1 => Some(LoginSecret::Unsaid(Password::new(PASSWORD))),
        2 => Some(LoginSecret::Md5([b'0'; 32])),
        _ => Some(LoginSecret::Password(Password::new(PASSWORD))),
    };
    let may_say = matches!(secret, Some(LoginSecret::Password(_)));
    let mut connect = Connect::new(ConnectOptions {
        user: "user".into(),
        database: if control & 16 != 0 { String::new() } else { "database".into() },
        fixed: vec![("found_rows".into(), "on".into())],
        secret,
        tls,
        local_socket,
        nonce: [0; 18],
        max_prepared_statements: 1,
        statement_key: [0; 16],
        learned: std::sync::Arc::default(),
    });
    let (mut input, mut out, mut is_tls) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let stepped = connect.step_inner(&input, &mut out);
            let is_said = out.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
            assert!(!is_said || may_say && (is_tls || local_socket), "the password is said");
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
                    connect.answer(Answer::TlsStarted(Secured::default()));
                }
                Step::Ask(_) => unreachable!("asks nothing"),
                Step::Done(connected) => {
                    assert_eq!(tls, is_tls);
                    return (out.len(), format!("{connected:?}"));
                }
            }
        }
    }
    (out.len(), String::new())
}
