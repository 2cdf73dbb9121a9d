//! What may differ between a direct conversation and one through the proxy, and why. Everything not named here must be
//! equal byte for byte, in the same order.
//!
//! Masked:
//! * **BackendKeyData**: process number and secret are the proxy's own (it must find the client again when a cancel
//!   comes). Only that there is exactly one, and the length of its secret, are compared.
//! * **The login's Authentication messages**: SCRAM's nonces and salts are random, and the proxy's verifier is its own.
//!   Their types are compared (so "asked for SCRAM, said OK"), their content is not.
//! * **The order of ParameterStatus within the login**: it has no meaning and differs between versions. Names and values
//!   are compared as a set.
//! * **The process number in NotificationResponse**: it is that of the notifying database connection.
//! * **Source file, line and routine (F, L, R) of protocol violations (08P01)**: the proxy refuses these itself, the server
//!   never sees them. Severity, code and message are compared.
//! * **How a connection ends**: end of file or a reset is a matter of timing; the transcript has one word for both.
//!
//! Not masked, though one might expect it: the source file, line and routine in all other errors (the same server answers both),
//! table and type numbers in RowDescription (both run in the same database; setup makes tables once), and
//! ParameterStatus outside the login. A script that prints times, process numbers or transaction numbers must not.

use std::fmt::Write as _;

use bytes::Bytes;

use super::wire::{Frame, Seen, Transcript};

/// Fails with a readable account of the first difference. A login that differs is told only when nothing else does: it
/// would be the first difference of every script.
pub fn compare(direct: &Transcript, proxied: &Transcript) -> Result<(), String> {
    let [direct, proxied] = [direct, proxied].map(mask);
    let [(direct, direct_logins), (proxied, proxied_logins)] = [direct, proxied].map(split_logins);
    if direct != proxied {
        return Err(first_difference(&direct, &proxied));
    }
    let differing = direct_logins.iter().zip(&proxied_logins).find(|(direct, proxied)| direct != proxied);
    if let Some(((client, direct), (_, proxied))) = differing {
        let [gone, new] = [without(direct, proxied), without(proxied, direct)];
        return Err(format!(
            "the login of client {client} differs\n--- only direct: {gone:#?}\n--- only proxied: {new:#?}\n"
        ));
    }
    if direct_logins.len() == proxied_logins.len() { Ok(()) } else { Err("not as many logins\n".into()) }
}

fn first_difference(direct: &Transcript, proxied: &Transcript) -> String {
    let equal = direct.seen.iter().zip(&proxied.seen).take_while(|(a, b)| a == b).count();
    let mut text = format!("the conversations differ at entry {equal}\n");
    for (who, transcript) in [("direct", direct), ("proxied", proxied)] {
        let _ = writeln!(text, "--- {who}");
        for (number, entry) in transcript.seen.iter().enumerate().skip(equal.saturating_sub(5)).take(12) {
            let mark = if number == equal { ">" } else { " " };
            let one = Transcript { seen: vec![entry.clone()] }.to_string();
            let _ = write!(text, "{mark}{number:4} {one}");
        }
    }
    text
}

type Logins = Vec<(usize, Vec<Frame>)>;

fn split_logins(transcript: Transcript) -> (Transcript, Logins) {
    let mut logins = Vec::new();
    let mut rest = Transcript::default();
    for (client, seen) in transcript.seen {
        match seen {
            Seen::Login(frames) => logins.push((client, frames)),
            other => rest.seen.push((client, other)),
        }
    }
    (rest, logins)
}

fn without<'a>(these: &'a [Frame], those: &[Frame]) -> Vec<&'a Frame> {
    these.iter().filter(|frame| !those.contains(frame)).collect()
}

fn mask(transcript: &Transcript) -> Transcript {
    let seen = transcript.seen.iter().map(|(client, seen)| {
        let masked = match seen {
            Seen::Login(frames) => Seen::Login(mask_login(frames)),
            Seen::Frame(frame) => Seen::Frame(mask_frame(frame)),
            other => other.clone(),
        };
        (*client, masked)
    });
    Transcript { seen: seen.collect() }
}

fn mask_login(frames: &[Frame]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = frames
        .iter()
        .map(|frame| match frame.kind {
            b'K' => Frame { kind: b'K', body: Bytes::from(vec![0; frame.body.len()]) },
            b'R' => Frame { kind: b'R', body: frame.body.slice(..4) },
            _ => mask_frame(frame),
        })
        .collect();
    // Stable, and only among ParameterStatus: everything else keeps its place relative to its like.
    frames.sort_by(|a, b| {
        let key = |frame: &Frame| (frame.kind == b'S').then(|| frame.body.clone());
        (a.kind == b'S').cmp(&(b.kind == b'S')).then_with(|| key(a).cmp(&key(b)))
    });
    frames
}

fn mask_frame(frame: &Frame) -> Frame {
    match frame.kind {
        b'A' => Frame { kind: b'A', body: [&[0; 4][..], &frame.body[4..]].concat().into() },
        b'E' if frame.field(b'C').as_deref() == Some("08P01") => {
            let fields = frame.body.split(|byte| *byte == 0);
            let kept = fields.filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
            Frame { kind: b'E', body: kept.collect::<Vec<_>>().join(&0).into() }
        }
        _ => frame.clone(),
    }
}

#[test]
fn what_is_masked_is_equal_and_the_rest_is_not() {
    let one = |kind: u8, body: &'static [u8]| Transcript {
        seen: vec![(0, Seen::Frame(Frame { kind, body: Bytes::from_static(body) }))],
    };
    assert!(compare(&one(b'A', b"1234channel\0\0"), &one(b'A', b"5678channel\0\0")).is_ok());
    assert!(compare(&one(b'A', b"1234channel\0\0"), &one(b'A', b"1234another\0\0")).is_err());
    assert!(compare(&one(b'Z', b"I"), &one(b'Z', b"T")).is_err());
    assert!(compare(&one(b'Z', b"I"), &Transcript::default()).unwrap_err().contains("entry 0"));
    assert!(compare(&one(b'E', b"C08P01\0Mno\0Fx.c\0L1\0\0"), &one(b'E', b"C08P01\0Mno\0\0")).is_ok());
    assert!(compare(&one(b'E', b"C08P01\0Mno\0L1\0\0"), &one(b'E', b"C08P01\0Myes\0L1\0\0")).is_err());
    assert!(compare(&one(b'E', b"C42601\0Mno\0L1\0\0"), &one(b'E', b"C42601\0Mno\0L2\0\0")).is_err());
    let login = |frames: &[(u8, &'static [u8])]| {
        let frames = frames.iter().map(|(kind, body)| Frame { kind: *kind, body: Bytes::from_static(body) });
        Transcript { seen: vec![(0, Seen::Login(frames.collect()))] }
    };
    let direct = login(&[(b'R', b"\0\0\0\x0bx"), (b'S', b"a"), (b'S', b"b"), (b'K', b"12345678"), (b'Z', b"I")]);
    let proxied = login(&[(b'R', b"\0\0\0\x0by"), (b'S', b"b"), (b'S', b"a"), (b'K', b"abcdefgh"), (b'Z', b"I")]);
    assert!(compare(&direct, &proxied).is_ok());
    let longer_key = login(&[(b'R', b"\0\0\0\x0by"), (b'S', b"b"), (b'S', b"a"), (b'K', b"abcdefghi"), (b'Z', b"I")]);
    assert!(compare(&direct, &longer_key).is_err());
    let other_value = login(&[(b'R', b"\0\0\0\x0by"), (b'S', b"b"), (b'S', b"c"), (b'K', b"abcdefgh"), (b'Z', b"I")]);
    assert!(compare(&direct, &other_value).unwrap_err().contains("the login of client 0"));
}
