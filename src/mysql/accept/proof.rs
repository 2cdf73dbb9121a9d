//! How a client proves who it is: what its plugin has answered is judged, another plugin or the password itself asked for.
//!
//! As MySQL 9.7 does it, packet by packet (its `sha2_password.cc` knows no more than this): an answer of the wrong length is refused at once,
//! one that is wrong brings "full authentication", the password itself: over TLS or a local socket as it is, else under our key. Of
//! users who do not exist the same is asked, and what they say costs the same to judge.

use super::{Accept, Known, Moved, State};
use crate::mysql::frame::packet;
use crate::mysql::message::mark;
use crate::mysql::password::{self, ANSWER_BYTES, Plugin};
use crate::protocol::{Challenge, ClientError, Credentials, HandshakeError, Password, Proof, TlsOffer};
use mysql_common::packets::AuthSwitchRequest;
use mysql_common::proto::MySerialize;

/// "Fast authentication": that was all.
const PROVEN: &[u8] = &[mark::MORE, 3];
/// "Full authentication": the password itself.
const SAY_IT: &[u8] = &[mark::MORE, 4];
/// A client without TLS wants our key.
const KEY_WANTED: &[u8] = &[2];

/// What a client must show that it knows.
pub(super) struct Expected {
    /// By which it answers.
    plugin: Plugin,
    password: Password,
    /// Whether knowing it lets the client in.
    counts: bool,
    /// Which of the challenges it was sent last.
    challenge: usize,
}

impl Accept {
    /// Where the client stands when it is known what it must prove.
    pub(super) fn ask_for_proof(
        &mut self,
        known: Known,
        credentials: Credentials,
        out: &mut Vec<u8>,
    ) -> Result<Moved, HandshakeError> {
        let Credentials { proof, known: exists } = credentials;
        let state = match proof {
            Proof::Challenge(Challenge { password, weaker }) => {
                let (plugin, is_its_own) = match (&known.plugin, weaker) {
                    (Plugin::Native, Some(_)) | (Plugin::CachingSha2, _) => (known.plugin.clone(), true),
                    (Plugin::Native | Plugin::Clear | Plugin::Other(_), _) => (Plugin::CachingSha2, false),
                };
                let counts = exists && (plugin == Plugin::CachingSha2 || weaker == Some(true));
                // What is answered by who logs in again is an answer to a challenge of long ago.
                if is_its_own && !self.is_again {
                    self.answered(known, Expected { plugin, password, counts, challenge: 0 }, out)
                } else {
                    self.switch(&plugin, out);
                    State::Challenged(known, Expected { plugin, password, counts, challenge: 1 })
                }
            }
            // Also of users who do not exist: nobody learns who does.
            Proof::Password if !self.is_secure(&known) => return Err(self.refused(ClientError::PasswordInClear, out)),
            Proof::Password => match known.plugin {
                Plugin::CachingSha2 if self.is_again => {
                    self.switch(&Plugin::CachingSha2, out);
                    State::Switched(known)
                }
                Plugin::Clear if !known.answer.expose().is_empty() && !self.is_again => {
                    let said = known.answer.clone();
                    said_itself(known, said.expose())
                }
                Plugin::CachingSha2 => self.ask_for_password(known, out),
                Plugin::Clear | Plugin::Native | Plugin::Other(_) => {
                    self.switch(&Plugin::Clear, out);
                    State::Asked(known)
                }
            },
            Proof::Certificate(names) => {
                let shown = known.tls.as_ref().map_or(&[][..], |tls| &tls.client_names);
                let holds = exists && names.iter().any(|name| shown.contains(name));
                let user = known.login.user.clone();
                State::Judged(known, if holds { Ok(()) } else { Err(ClientError::CertificateRefused { user }) })
            }
            // Nothing here can be checked against them.
            Proof::Scram(_) | Proof::Md5(_) => refused(known),
        };
        Ok((0, state, None))
    }

    /// Its plugin has answered to the last challenge.
    pub(super) fn answered(&mut self, known: Known, expected: Expected, out: &mut Vec<u8>) -> State {
        let answer = known.answer.expose();
        let holds = expected.plugin.holds(&self.challenge(expected.challenge), &expected.password, answer);
        let is_sha2 = expected.plugin == Plugin::CachingSha2;
        if holds && expected.counts {
            if is_sha2 && !answer.is_empty() {
                packet(out, &mut self.sequence, |out| out.extend_from_slice(PROVEN));
            }
            return State::Judged(known, Ok(()));
        }
        let can_say_it = self.is_secure(&known) || self.options.password_key.is_some();
        if is_sha2 && answer.len() == ANSWER_BYTES && can_say_it {
            packet(out, &mut self.sequence, |out| out.extend_from_slice(SAY_IT));
            return State::Doubted(known, expected);
        }
        refused(known)
    }

    /// What a client says whose answer was wrong: its password, or that it wants our key first.
    pub(super) fn said(&mut self, known: Known, expected: Expected, said: &[u8], out: &mut Vec<u8>) -> State {
        match &self.options.password_key {
            Some(key) if said == KEY_WANTED && !self.is_secure(&known) => {
                packet(out, &mut self.sequence, |out| {
                    out.push(mark::MORE);
                    out.extend_from_slice(key.public().as_bytes());
                });
                State::KeyShown(known, expected)
            }
            Some(_) | None => self.proven_by_password(known, &expected, said),
        }
    }

    /// What should be the password itself, and an end to it: as it is, or sealed.
    pub(super) fn proven_by_password(&self, known: Known, expected: &Expected, said: &[u8]) -> State {
        let said = if self.is_secure(&known) {
            Some(Password::new(said))
        } else {
            // Never as it is.
            let key = self.options.password_key.as_ref();
            key.and_then(|key| password::unsealed(said, &self.challenge(expected.challenge), key))
        };
        let shown = said.as_ref().and_then(|said| said.expose().strip_suffix(b"\0"));
        let holds = shown.is_some_and(|shown| password::is_same(&expected.password, shown));
        if holds && expected.counts { State::Judged(known, Ok(())) } else { refused(known) }
    }

    /// "Full authentication" of who is to say a password, or a token.
    pub(super) fn ask_for_password(&mut self, known: Known, out: &mut Vec<u8>) -> State {
        packet(out, &mut self.sequence, |out| out.extend_from_slice(SAY_IT));
        State::Asked(known)
    }

    /// A password may be said as it is.
    fn is_secure(&self, known: &Known) -> bool {
        known.tls.is_some() || self.options.tls == TlsOffer::LocalSocket
    }

    /// Another plugin, with another challenge.
    fn switch(&mut self, plugin: &Plugin, out: &mut Vec<u8>) {
        let challenge = [&self.challenge(1)[..], b"\0"].concat();
        let request = AuthSwitchRequest::new(plugin.name().as_bytes(), challenge);
        packet(out, &mut self.sequence, |out| request.serialize(out));
    }
}

/// It has said a password, or a token, which the core is to judge.
pub(super) fn said_itself(known: Known, said: &[u8]) -> State {
    let answer = Password::new(said.strip_suffix(b"\0").unwrap_or(said));
    State::Judging(Known { answer, ..known })
}

fn refused(known: Known) -> State {
    let user = known.login.user.clone();
    State::Judged(known, Err(ClientError::LoginRefused { user }))
}
