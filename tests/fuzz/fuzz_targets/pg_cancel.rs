//! A cancel at a database that says anything in any pieces: no panic, never more bytes taken than shown, and no byte of the
//! key before TLS has started, where that is wanted; nothing but the request, once, when it is done.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::postgres::cancel::Cancel;
use sluicegate::protocol::{Answer, CancelKey, Handshake, Secured, Step};

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const REQUEST: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd";

fuzz_target!(|data: &[u8]| {
    let Some((&[control, cut], bytes)) = data.split_first_chunk() else {
        return;
    };
    let tls = control & 1 != 0;
    let (first, rest) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let mut cancel = Cancel::new(CancelKey { process_id: 7, secret: (*b"abcd").into() }, tls);
    let (mut input, mut out, mut has_started) = (Vec::new(), Vec::new(), false);
    for piece in [&b""[..], first, rest] {
        input.extend_from_slice(piece);
        // Words that fit no state change nothing.
        if control & 2 != 0 && !has_started {
            cancel.answer(Answer::Judged(Ok(())));
        }
        loop {
            let Ok((taken, step)) = cancel.step(&input, &mut out) else {
                assert!(tls && out == SSL_REQUEST);
                return;
            };
            assert!(taken <= input.len());
            input.drain(..taken);
            match step {
                Step::NeedInput => break,
                Step::StartTls => {
                    assert!(tls && !has_started && input.is_empty() && out == SSL_REQUEST);
                    has_started = true;
                    cancel.answer(Answer::TlsStarted(Secured::default()));
                }
                Step::Ask(_) => unreachable!("asks nothing"),
                Step::Done(()) => {
                    assert_eq!(tls, has_started);
                    let expected = if tls { [SSL_REQUEST, REQUEST].concat() } else { REQUEST.to_vec() };
                    assert_eq!(out, expected);
                    return;
                }
            }
        }
    }
    assert!(tls && !has_started && out == SSL_REQUEST);
});
