//! "Full authentication" of `caching_sha2_password`, packet by packet: over TLS, under our key, and what is no proof either way.

use super::*;
use crate::mysql::message::read_switch;
use crate::mysql::password::sealed;

/// How a client speaks with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    LocalSocket,
}

/// How a login stands.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// More is awaited.
    Open,
    In,
    /// The error's number and words.
    Refused(u16, String),
    Broken,
}

/// A client that says what it likes.
struct Client {
    machine: Accept,
    core: Core,
    /// As it was sent last.
    challenge: [u8; 20],
    sequence: u8,
}

impl Client {
    fn greeted(core: Core, way: Way) -> Self {
        let tls = if way == Way::LocalSocket { TlsOffer::LocalSocket } else { core.tls };
        let core = Core { tls, ..core };
        let (mut machine, mut out) = (accept(&core), Vec::new());
        assert!(matches!(machine.step_inner(b"", &mut out), Ok((0, Step::NeedInput))));
        let mut client = Self { machine, core, challenge: crate::mysql::password::challenge([1; 20]), sequence: 1 };
        if way == Way::Tls {
            let mut request = Vec::new();
            // SSL, PROTOCOL_41
            frame::packet(&mut request, &mut client.sequence, |out| {
                out.extend_from_slice(&0x0000_0A00_u32.to_le_bytes());
                out.extend_from_slice(&[0; 28]);
            });
            assert!(matches!(client.machine.step_inner(&request, &mut out), Ok((_, Step::StartTls))));
            client.machine.answer(Answer::TlsStarted(Secured::default()));
        }
        client
    }

    /// Its response to the greeting.
    fn responds(&mut self, plugin: &str, answer: &[u8]) -> (Vec<Vec<u8>>, End) {
        // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH
        let mut response = 0x0008_8200_u32.to_le_bytes().to_vec();
        response.extend_from_slice(&[0; 28]);
        response.extend_from_slice(b"app\0");
        response.push(u8::try_from(answer.len()).unwrap());
        response.extend_from_slice(answer);
        response.extend_from_slice(plugin.as_bytes());
        response.push(0);
        self.says(&response)
    }

    /// Its response, with the answer that this password has.
    fn shows(&mut self, password: &str) -> (Vec<Vec<u8>>, End) {
        let answer = Plugin::CachingSha2.answer(&self.challenge, &Password::new(password)).unwrap();
        self.responds("caching_sha2_password", &answer)
    }

    /// What comes of a packet of its own: packets, and how the login stands.
    fn says(&mut self, payload: &[u8]) -> (Vec<Vec<u8>>, End) {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        frame::packet(&mut input, &mut self.sequence, |out| out.extend_from_slice(payload));
        let end = loop {
            match self.machine.step_inner(&input, &mut out) {
                Ok((taken, step)) => {
                    input.drain(..taken);
                    match step {
                        Step::NeedInput => break End::Open,
                        Step::Ask(Question::Credentials { .. }) => {
                            self.machine.answer(Answer::Credentials(Credentials {
                                proof: self.core.proof.clone(),
                                known: self.core.known,
                            }))
                        }
                        Step::Ask(Question::Welcome(_)) => break End::In,
                        other @ (Step::StartTls | Step::Ask(_) | Step::Done(_)) => panic!("{other:?}"),
                    }
                }
                Err(HandshakeError::Refused(_)) => break End::Refused(0, String::new()),
                Err(_) => break End::Broken,
            }
        };
        let (mut packets, mut rest) = (Vec::new(), &out[..]);
        while let Some((head, payload)) = frame::whole(rest, 1 << 20).unwrap() {
            assert_eq!(head.sequence, self.sequence);
            self.sequence += 1;
            packets.push(payload.to_vec());
            rest = &rest[head.bytes()..];
        }
        if let Some((_, challenge)) = packets.first().and_then(|packet| read_switch(packet)) {
            self.challenge = *challenge.first_chunk().unwrap();
        }
        match (end, packets.last()) {
            (End::Refused(..), Some(last)) => {
                let words = String::from_utf8(last[9..].to_vec()).unwrap();
                (Vec::new(), End::Refused(u16::from_le_bytes([last[1], last[2]]), words))
            }
            (end, _) => (packets, end),
        }
    }

    /// This, put under our key.
    fn seals(&mut self, password: &str) -> (Vec<Vec<u8>>, End) {
        let sealed = sealed(&Password::new(password), &self.challenge, key().public().as_bytes()).unwrap();
        self.says(&sealed)
    }
}

fn denied(used: &str) -> (Vec<Vec<u8>>, End) {
    (Vec::new(), End::Refused(1045, format!("Access denied for user 'app' (using password: {used})")))
}

fn asked() -> (Vec<Vec<u8>>, End) {
    (vec![vec![1, 4]], End::Open)
}

/// Who exists and who does not: only the first gets in by what is right.
fn both(check: impl Fn(Core, &dyn Fn(bool) -> (Vec<Vec<u8>>, End))) {
    for known in [true, false] {
        let end = |holds: bool| if holds && known { (Vec::new(), End::In) } else { denied("YES") };
        check(Core { known, ..core(challenge("s3cret")) }, &end);
    }
}

#[test]
fn the_password_under_our_key() {
    both(|core, end| {
        for asks in [true, false] {
            for (password, holds) in [("s3cret", true), ("wrong", false), ("s3cret\0", false), ("", false)] {
                let mut client = Client::greeted(core.clone(), Way::Plain);
                assert_eq!(client.shows("wrong"), asked());
                assert_eq!(client.machine.doubts(), Some("app"));
                if asks {
                    let shown = [b"\x01", key().public().as_bytes()].concat();
                    assert_eq!(client.says(&[2]), (vec![shown], End::Open));
                    assert_eq!(client.machine.doubts(), Some("app"));
                }
                assert_eq!(client.seals(password), end(holds), "{password:?}");
                assert_eq!(client.machine.doubts(), None);
            }
        }
    });
}

/// The challenge that counts is the one that was sent last.
#[test]
fn another_challenge_under_our_key() {
    both(|core, end| {
        for is_last in [true, false] {
            let mut client = Client::greeted(core.clone(), Way::Plain);
            let first = client.challenge;
            assert_eq!(client.responds("dialog", b"").1, End::Open);
            assert_ne!(client.challenge, first);
            assert_eq!(client.says(&[7; 32]), asked());
            if !is_last {
                client.challenge = first;
            }
            assert_eq!(client.seals("s3cret"), end(is_last));
        }
    });
}

#[test]
fn the_password_as_it_is() {
    for way in [Way::Tls, Way::LocalSocket] {
        both(|core, end| {
            for (said, holds) in [
                (&b"s3cret\0"[..], true),
                (b"s3cret", false),
                (b"s3cret\0\0", false),
                (b"wrong\0", false),
                (b"\0", false),
                (b"", false),
                // No key is needed here.
                (b"\x02", false),
                (&[7; 256], false),
                (&[7; 60_000], false),
            ] {
                let mut client = Client::greeted(core.clone(), way);
                assert_eq!(client.shows("wrong"), asked());
                assert_eq!(client.says(said), end(holds), "{way:?} {}", said.escape_ascii());
            }
        });
    }
}

/// Scenario 32: a password that comes without TLS as it is lets nobody in, nor does anything else that is not under our key.
#[test]
fn no_password_as_it_is_without_tls() {
    both(|core, _| {
        for (asks, said) in [
            (false, &b"s3cret\0"[..]),
            (true, b"s3cret\0"),
            (true, b"\x02"),
            (false, b""),
            (true, b""),
            (false, &[7; 256]),
            (true, &[7; 256]),
            (true, &[0; 256]),
            (true, &[255; 256]),
            (true, &[7; 257]),
            (true, &[7; 60_000]),
        ] {
            let mut client = Client::greeted(core.clone(), Way::Plain);
            assert_eq!(client.shows("wrong"), asked());
            if asks {
                assert_eq!(client.says(&[2]).1, End::Open);
            }
            assert_eq!(client.says(said), denied("YES"), "{asks} {}", said.escape_ascii());
        }
    });
}

/// Nothing is asked for behind what can be no answer, nor of the older plugin.
#[test]
fn answers_of_the_wrong_length_end_it() {
    for way in [Way::Plain, Way::Tls, Way::LocalSocket] {
        both(|core, _| {
            for answer in [&b"\x02"[..], &[7; 20], &[7; 31], &[7; 33], b"s3cret\0"] {
                let mut client = Client::greeted(core.clone(), way);
                assert_eq!(client.responds("caching_sha2_password", answer), denied("YES"));
            }
            for answer in [&b""[..], b"\0"] {
                let mut client = Client::greeted(core.clone(), way);
                assert_eq!(client.responds("caching_sha2_password", answer), denied("NO"));
            }
            let native = Proof::Challenge(Challenge { password: Password::new("s3cret"), weaker: Some(true) });
            for answer in [[7; 20].to_vec(), [7; 32].to_vec()] {
                let mut client = Client::greeted(Core { proof: native.clone(), ..core.clone() }, way);
                assert_eq!(client.responds("mysql_native_password", &answer), denied("YES"));
            }
        });
    }
}

/// Scenario 39, as clients say it that have no password.
#[test]
fn an_empty_password_is_none_or_a_zero() {
    for answer in [&b""[..], b"\0"] {
        for known in [true, false] {
            let mut client = Client::greeted(Core { known, ..core(challenge("")) }, Way::Plain);
            let end = if known { (Vec::new(), End::In) } else { denied("NO") };
            assert_eq!(client.responds("caching_sha2_password", answer), end);
        }
    }
}

/// Where no key was made nobody is asked for anything without TLS.
#[test]
fn without_a_key() {
    let greeting = Greeting { version: None, connection_id: 7, challenges: [[1; 20], [200; 20]] };
    let mut client = Client::greeted(core(challenge("s3cret")), Way::Plain);
    client.machine = Accept::new(AcceptOptions {
        tls: TlsOffer::Optional,
        direct_tls: None,
        nonce: [0; 18],
        greeting,
        password_key: None,
    });
    client.machine.step_inner(b"", &mut Vec::new()).unwrap();
    assert_eq!(client.shows("wrong"), denied("YES"));
}

/// A client that logs in again, whose answer is to the new challenge.
#[test]
fn again_over_tls() {
    both(|core, end| {
        let (machine, plugin, challenge) = again(&core, "caching_sha2_password", b"old");
        assert_eq!(plugin, "caching_sha2_password");
        let mut client = Client { machine, core, challenge, sequence: 2 };
        assert_eq!(client.says(&[7; 32]), asked());
        assert_eq!(client.says(b"s3cret\0"), end(true));
    });
}

/// Both machines agree on it, and on the key.
#[test]
fn our_own_client_takes_our_key() {
    let met = meet(&core(challenge("s3cret")), options("other"));
    assert_eq!(code(&met), "1045");
    let public = key().public().to_owned();
    let lines: Vec<&str> = public.lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1]), ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"));
    assert!(lines[1..lines.len() - 2].iter().all(|line| line.len() == 64) && public.ends_with("-\n"));
    assert_eq!(format!("{:?}", key()), "PasswordKey(***)");
}

/// What a client has said that nobody looks at: the refusal comes behind it all the same.
#[test]
fn a_refusal_behind_what_was_not_read() {
    let mut client = Client::greeted(core(challenge("s3cret")), Way::Plain);
    assert_eq!(client.shows("wrong"), asked());
    let (mut unread, mut out) = (Vec::new(), Vec::new());
    frame::packet(&mut unread, &mut client.sequence, |out| out.push(2));
    client.machine.pass_over(&unread);
    client.machine.refuse(&ClientError::TooManyFailedLogins, &mut out);
    assert_eq!(out[3], client.sequence);
}
