//! A login at a database that says anything in any pieces: no panic, never more bytes taken than shown, and the same
//! end whether they come at once or in two pieces. (Not the same bytes: the client draws its own nonce.)
#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;
use sluicegate::postgres::connect::Connect;
use sluicegate::protocol::{Answer, ConnectOptions, LoginSecret, Password, ScramKeys, Secured, Step};

// A server that answers SSLRequest and goes on in the clear is an attack or not by the cut alone.
fuzz_target!(|data: &[u8]| pieces::check(data, play, |control| control & 1 != 0));

/// With a certificate that can be bound to, or without.
fn secured(control: u8) -> Secured {
    Secured { end_point: (control & 8 == 0).then(|| b"hash".to_vec()), ..Secured::default() }
}

fn play(control: u8, pieces: &[&[u8]]) -> (usize, String) {
    let mut connect = Connect::new(ConnectOptions {
        user: "user".into(),
        database: "database".into(),
        fixed: Vec::new(),
        secret: match control >> 4 & 3 {
            _ if control & 2 != 0 => None,
            0 => Some(LoginSecret::Md5([b'0'; 32])),
            1 => Some(LoginSecret::Scram(ScramKeys { client_key: [1; 32], server_key: [2; 32] })),
            2 => Some(LoginSecret::Unsaid(Password::new("password"))),
            _ => Some(LoginSecret::Password(Password::new("password"))),
        },
        tls: control & 1 != 0,
        local_socket: control & 4 != 0,
        nonce: [0; 18],
        max_prepared_statements: 1,
        statement_key: [0; 16],
        learned: std::sync::Arc::default(),
    });
    let (mut input, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (taken, step) = match connect.step_inner(&input, &mut out) {
                Ok(step) => step,
                Err(error) => return (out.len(), format!("{error:?}")),
            };
            assert!(taken <= input.len());
            input.drain(..taken);
            match step {
                Step::NeedInput => break,
                Step::StartTls => connect.answer(Answer::TlsStarted(secured(control))),
                Step::Ask(_) => unreachable!("asks nothing"),
                Step::Done(connected) => return (out.len(), format!("{connected:?}")),
            }
        }
    }
    (out.len(), String::new())
}
