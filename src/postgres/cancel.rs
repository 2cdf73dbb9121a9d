//! A cancel at a database: we play the client
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>).
//!
//! Over TLS where the target group says so, as every other word to that database: the key is a secret. The server
//! never answers; it closes the connection once it has signalled the session, or has found that there is none.

use super::message;
use crate::protocol::{Answer, CancelKey, ClientError, Handshake, HandshakeError, Step, Violation};

/// The machine.
///
/// ```text
/// Start ──tls──▶ TlsAsked ──S──▶ StartingTls ──TlsStarted──▶ Start ──no tls, or TLS already──▶ done
/// ```
pub struct Cancel {
    key: CancelKey,
    state: State,
}

enum State {
    Start { tls: bool },
    TlsAsked,
    StartingTls,
}

impl Cancel {
    /// Cancels what the session of this key does.
    pub fn new(key: CancelKey, tls: bool) -> Self {
        Self { key, state: State::Start { tls } }
    }
}

impl Handshake for Cancel {
    type Output = ();

    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<()>), HandshakeError> {
        match self.state {
            State::Start { tls: false } => {
                message::cancel_request(self.key.process_id, &self.key.secret, out);
                Ok((0, Step::Done(())))
            }
            State::Start { tls: true } => {
                message::ssl_request(out);
                self.state = State::TlsAsked;
                Ok((0, Step::NeedInput))
            }
            State::TlsAsked => match input {
                [] => Ok((0, Step::NeedInput)),
                [b'S'] => {
                    self.state = State::StartingTls;
                    Ok((1, Step::StartTls))
                }
                [b'S', ..] => Err(Violation::PlaintextAfterTlsRequest.into()),
                _other => Err(HandshakeError::TlsDeclined),
            },
            // Nothing but the stream's own word moves it on.
            State::StartingTls => Ok((0, Step::NeedInput)),
        }
    }

    fn answer(&mut self, answer: Answer) {
        if let (State::StartingTls, Answer::TlsStarted(_)) = (&self.state, answer) {
            self.state = State::Start { tls: false };
        }
    }

    fn refuse(&mut self, _: &ClientError, _: &mut Vec<u8>) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::protocol::Secured;

    const REQUEST: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd";

    fn cancel(tls: bool) -> Cancel {
        Cancel::new(CancelKey { process_id: 7, secret: (*b"abcd").into() }, tls)
    }

    #[test]
    fn in_the_clear() {
        let mut out = Vec::new();
        assert!(matches!(cancel(false).step(b"", &mut out), Ok((0, Step::Done(())))));
        assert_eq!(out, REQUEST);
    }

    #[test]
    fn over_tls_the_key_is_sent_behind_the_handshake() {
        let (mut cancel, mut out) = (cancel(true), Vec::new());
        assert!(matches!(cancel.step(b"", &mut out), Ok((0, Step::NeedInput))));
        assert_eq!(std::mem::take(&mut out), b"\0\0\0\x08\x04\xd2\x16\x2f");
        assert!(matches!(cancel.step(b"S", &mut out), Ok((1, Step::StartTls))));
        assert!(matches!(cancel.step(b"", &mut out), Ok((0, Step::NeedInput))));
        assert_eq!(out, b"");
        cancel.answer(Answer::TlsStarted(Secured::default()));
        assert!(matches!(cancel.step(b"", &mut out), Ok((0, Step::Done(())))));
        assert_eq!(out, REQUEST);
    }

    #[test]
    fn without_tls_where_it_must_be_nothing_is_sent() {
        for (answer, expected) in [
            (&b"N"[..], HandshakeError::TlsDeclined),
            (b"E", HandshakeError::TlsDeclined),
            (b"Sx", HandshakeError::Violation(Violation::PlaintextAfterTlsRequest)),
        ] {
            let (mut cancel, mut out) = (cancel(true), Vec::new());
            cancel.step(b"", &mut out).unwrap();
            out.clear();
            match cancel.step(answer, &mut out) {
                Err(error) => assert_eq!(error, expected),
                Ok(step) => panic!("{answer:?}: {step:?}"),
            }
            assert_eq!(out, b"");
        }
    }
}
