//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677; in PostgreSQL
//! <https://www.postgresql.org/docs/current/sasl-authentication.html>).
//!
//! Two steps: [`First`] takes client-first and gives the challenge, [`Proof`] takes client-final and gives the server's
//! own proof. Keys are compared in constant time; nonce and mock key come in as arguments. Where the connection can be
//! bound to, SCRAM-SHA-256-PLUS is offered, and a client that was made to believe otherwise is refused. It does not know
//! users: who is a mock is the caller's secret.
//!
//! And the client's side for those who have no password but the keys made of one: [`KeyHolder`].

use crate::protocol::{ScramKeys, ScramSecret};
use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same, bound to the TLS connection.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The only kind of channel binding PostgreSQL knows (RFC 5929 §4).
const BINDING_KIND: &[u8] = b"tls-server-end-point";

/// What is wrong with a client's SCRAM message. The words are PostgreSQL's; [`code`](Self::code) too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// An attribute is missing or out of place.
    #[error("malformed SCRAM message")]
    Malformed,
    /// `p=` without the mechanism that has it, or the mechanism without `p=`.
    #[error("malformed SCRAM message")]
    ChannelBindingData,
    /// `p=` of another kind.
    #[error("unsupported SCRAM channel-binding type")]
    ChannelBindingKind,
    /// `y`: the client believes that nothing can be bound to. Somebody in between has cut the offer out.
    #[error("SCRAM channel binding negotiation error")]
    Downgraded,
    /// The client is bound to another TLS connection: somebody is in between.
    #[error("SCRAM channel binding check failed")]
    OtherChannel,
    /// To act as somebody else is not possible.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// `m=`.
    #[error("client requires an unsupported SCRAM extension")]
    MandatoryExtension,
    /// The nonce may hold printable ASCII only.
    #[error("non-printable characters in SCRAM nonce")]
    UnprintableNonce,
    /// `c=` is not what client-first said.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    ChannelBindingChanged,
    /// `r=` is not the nonce of the challenge.
    #[error("invalid SCRAM response")]
    NonceChanged,
    /// The client does not know the password.
    #[error("password authentication failed")]
    WrongProof,
}

impl ScramError {
    /// The SQLSTATE that PostgreSQL gives it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::AuthorizationIdentity | Self::MandatoryExtension => "0A000",
            Self::WrongProof => "28P01",
            Self::Downgraded | Self::OtherChannel => "28000",
            Self::Malformed
            | Self::ChannelBindingData
            | Self::ChannelBindingKind
            | Self::UnprintableNonce
            | Self::ChannelBindingChanged
            | Self::NonceChanged => "08P01",
        }
    }
}

/// Before client-first.
pub struct First {
    secret: ScramSecret,
    nonce: [u8; 18],
    /// What can be bound to; `None`: nothing.
    end_point: Option<Vec<u8>>,
}

/// After the challenge, before client-final.
pub struct Proof {
    secret: ScramSecret,
    client_first_bare: Vec<u8>,
    server_first: Vec<u8>,
    nonce: Vec<u8>,
    /// What `c=` must be: the gs2 header again and what is bound to, in base64.
    channel_binding: String,
    is_plus: bool,
}

impl First {
    /// An exchange against a secret. The nonce must be unpredictable and used once.
    pub fn new(secret: ScramSecret, nonce: [u8; 18], end_point: Option<Vec<u8>>) -> Self {
        Self { secret, nonce, end_point }
    }

    /// The mechanisms to offer.
    pub fn mechanisms(&self) -> &'static [&'static str] {
        if self.end_point.is_some() { &[MECHANISM_PLUS, MECHANISM] } else { &[MECHANISM] }
    }

    /// Takes client-first, by the mechanism with or without channel binding; returns server-first, the challenge.
    pub fn challenge(self, client_first: &[u8], is_plus: bool) -> Result<(Proof, Vec<u8>), ScramError> {
        let (channel_binding, rest) = match (client_first, &self.end_point) {
            ([b'n' | b'y', ..], _) if is_plus => return Err(ScramError::ChannelBindingData),
            ([b'n', b',', rest @ ..], _) => (STANDARD.encode("n,,"), rest),
            ([b'y', ..], Some(_)) => return Err(ScramError::Downgraded),
            ([b'y', b',', rest @ ..], None) => (STANDARD.encode("y,,"), rest),
            ([b'p', ..], Some(end_point)) if is_plus => {
                let (kind, rest) = attribute(b'p', client_first)?;
                if kind != BINDING_KIND {
                    return Err(ScramError::ChannelBindingKind);
                }
                let bound = [b"p=", BINDING_KIND, b",,", end_point].concat();
                (STANDARD.encode(bound), rest.ok_or(ScramError::Malformed)?)
            }
            ([b'p', ..], _) => return Err(ScramError::ChannelBindingData),
            _ => return Err(ScramError::Malformed),
        };
        let bare = match rest {
            [b',', bare @ ..] => bare,
            [b'a', ..] => return Err(ScramError::AuthorizationIdentity),
            _ => return Err(ScramError::Malformed),
        };
        if bare.contains(&0) {
            return Err(ScramError::Malformed);
        }
        if bare.starts_with(b"m=") {
            return Err(ScramError::MandatoryExtension);
        }
        // The name is ignored, as PostgreSQL does: the startup packet's counts.
        let (_, rest) = attribute(b'n', bare)?;
        let (client_nonce, mut extensions) = attribute(b'r', rest.ok_or(ScramError::Malformed)?)?;
        if !client_nonce.iter().all(u8::is_ascii_graphic) {
            return Err(ScramError::UnprintableNonce);
        }
        // Unknown extensions are ignored, once they have the form of an attribute.
        while let Some(rest) = extensions.filter(|rest| !rest.is_empty()) {
            (_, _, extensions) = any_attribute(rest)?;
        }

        let mut nonce = client_nonce.to_vec();
        nonce.extend_from_slice(STANDARD.encode(self.nonce).as_bytes());
        let mut server_first = b"r=".to_vec();
        server_first.extend_from_slice(&nonce);
        let salt = STANDARD.encode(&self.secret.salt);
        server_first.extend_from_slice(format!(",s={salt},i={}", self.secret.iterations).as_bytes());
        let challenge = server_first.clone();
        let client_first_bare = bare.to_vec();
        Ok((Proof { secret: self.secret, client_first_bare, server_first, nonce, channel_binding, is_plus }, challenge))
    }
}

impl Proof {
    /// Takes client-final; returns server-final if the client knows the password, and the keys it has shown.
    pub fn verify(self, client_final: &[u8]) -> Result<(Vec<u8>, ScramKeys), ScramError> {
        if client_final.contains(&0) {
            return Err(ScramError::Malformed);
        }
        let (channel_binding, rest) = attribute(b'c', client_final)?;
        if channel_binding != self.channel_binding.as_bytes() {
            return Err(if self.is_plus { ScramError::OtherChannel } else { ScramError::ChannelBindingChanged });
        }
        let (nonce, rest) = attribute(b'r', rest.ok_or(ScramError::Malformed)?)?;
        let (proof, before_proof) = last_attribute_p(client_final, rest.ok_or(ScramError::Malformed)?)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let proof: [u8; 32] = proof.try_into().map_err(|_| ScramError::Malformed)?;
        if nonce != self.nonce {
            return Err(ScramError::NonceChanged);
        }

        let auth_message = [&self.client_first_bare, &self.server_first[..], before_proof].join(&b',');
        let client_signature = sign(&self.secret.stored_key, &auth_message);
        let mut client_key = proof;
        for (byte, signature) in client_key.iter_mut().zip(client_signature) {
            *byte ^= signature;
        }
        constant_time::verify_slices_are_equal(&hash(&client_key), &self.secret.stored_key)
            .map_err(|_| ScramError::WrongProof)?;
        let server_signature = sign(&self.secret.server_key, &auth_message);
        let keys = ScramKeys { client_key, server_key: self.secret.server_key };
        Ok((format!("v={}", STANDARD.encode(server_signature)).into_bytes(), keys))
    }
}

/// What a client says about channel binding (RFC 5802 §6).
#[derive(Clone, PartialEq, Eq)]
pub enum Binding {
    /// `n`: it can't.
    Unsupported,
    /// `y`: it can, and believes that the server can't.
    Unrequested,
    /// `p=tls-server-end-point`, with its data.
    EndPoint(Vec<u8>),
}

/// A client that holds keys in place of a password. Its messages in their order: [`first`](Self::first),
/// [`last`](Self::last); then [`is_proven`](Self::is_proven) judges the server.
pub struct KeyHolder {
    keys: ScramKeys,
    first_bare: String,
    /// The gs2 header and what is bound to.
    binding: Vec<u8>,
    /// What the server must prove itself with; there once its challenge is.
    expected: Option<[u8; 32]>,
}

impl KeyHolder {
    /// The nonce must be unpredictable and used once.
    pub fn new(keys: ScramKeys, nonce: [u8; 18], binding: Binding) -> Self {
        let binding = match binding {
            Binding::Unsupported => b"n,,".to_vec(),
            Binding::Unrequested => b"y,,".to_vec(),
            Binding::EndPoint(data) => [b"p=", BINDING_KIND, b",,", &data].concat(),
        };
        Self { keys, first_bare: format!("n=,r={}", STANDARD.encode(nonce)), binding, expected: None }
    }

    /// client-first.
    pub fn first(&self) -> Vec<u8> {
        // The data that is bound to comes with the last message.
        let header = memchr::memmem::find(&self.binding, b",,").and_then(|end| self.binding.get(..end + 2));
        [header.unwrap_or_default(), self.first_bare.as_bytes()].concat()
    }

    /// Takes server-first; returns client-final. Salt and rounds are of no use here: the keys are made already.
    pub fn last(&mut self, server_first: &[u8]) -> Result<Vec<u8>, ScramError> {
        let (nonce, rest) = attribute(b'r', server_first)?;
        let (_, rest) = attribute(b's', rest.ok_or(ScramError::Malformed)?)?;
        attribute(b'i', rest.ok_or(ScramError::Malformed)?)?;
        let ours = self.first_bare.as_bytes().get(5..).unwrap_or_default();
        if !nonce.starts_with(ours) || nonce.len() == ours.len() {
            return Err(ScramError::NonceChanged);
        }
        let unproven = [b"c=", STANDARD.encode(&self.binding).as_bytes(), b",r=", nonce].concat();
        let auth_message = [self.first_bare.as_bytes(), server_first, &unproven].join(&b',');
        let signature = sign(&hash(&self.keys.client_key), &auth_message);
        let mut proof = self.keys.client_key;
        for (byte, signature) in proof.iter_mut().zip(signature) {
            *byte ^= signature;
        }
        self.expected = Some(sign(&self.keys.server_key, &auth_message));
        Ok([&unproven, &b",p="[..], STANDARD.encode(proof).as_bytes()].concat())
    }

    /// Whether server-final shows that the server has the verifier.
    pub fn is_proven(&self, server_final: &[u8]) -> bool {
        let shown = attribute(b'v', server_final).ok().and_then(|(shown, _)| STANDARD.decode(shown).ok());
        let (Some(shown), Some(expected)) = (shown, self.expected) else { return false };
        constant_time::verify_slices_are_equal(&shown, &expected).is_ok()
    }
}

/// Walks to the attribute `p`, which must be the last; returns its value and what of the whole message stands before
/// it (without its comma).
fn last_attribute_p<'a>(message: &'a [u8], mut rest: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), ScramError> {
    loop {
        let before = message.len().saturating_sub(rest.len() + 1);
        let (name, value, next) = any_attribute(rest)?;
        match (name, next) {
            (b'p', None) => return Ok((value, message.get(..before).unwrap_or_default())),
            (b'p', Some(_)) | (_, None) => return Err(ScramError::Malformed),
            (_, Some(next)) => rest = next,
        }
    }
}

/// The value of the attribute of this name at the front, and what follows its comma.
fn attribute(name: u8, message: &[u8]) -> Result<(&[u8], Option<&[u8]>), ScramError> {
    let (found, value, rest) = any_attribute(message)?;
    if found == name { Ok((value, rest)) } else { Err(ScramError::Malformed) }
}

type Attribute<'a> = (u8, &'a [u8], Option<&'a [u8]>);

/// Name and value of the attribute at the front, and what follows its comma.
fn any_attribute(message: &[u8]) -> Result<Attribute<'_>, ScramError> {
    let [name, b'=', rest @ ..] = message else {
        return Err(ScramError::Malformed);
    };
    if !name.is_ascii_alphabetic() {
        return Err(ScramError::Malformed);
    }
    match memchr::memchr(b',', rest) {
        Some(comma) => Ok((*name, rest.get(..comma).unwrap_or_default(), rest.get(comma + 1..))),
        None => Ok((*name, rest, None)),
    }
}

fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    array(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

fn hash(message: &[u8]) -> [u8; 32] {
    array(digest::digest(&digest::SHA256, message).as_ref())
}

/// SHA-256 always gives 32 bytes; this says so without a way to panic.
fn array(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    for (to, from) in array.iter_mut().zip(bytes) {
        *to = *from;
    }
    array
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use aws_lc_rs::pbkdf2;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    fn secret() -> ScramSecret {
        derive_secret(b"pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    }

    fn derive_secret(password: &[u8], salt: &[u8], iterations: u32) -> ScramSecret {
        ScramSecret::derive(password, salt, NonZeroU32::new(iterations).unwrap())
    }

    fn mock_secret(user: &str) -> ScramSecret {
        ScramSecret::mock(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), user)
    }

    /// RFC 7677 §3. Its server nonce has another form than ours, so the state after the challenge is made by hand.
    #[test]
    fn the_rfcs_own_exchange() {
        let nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let server_first = [&b"r="[..], nonce, b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"].concat();
        let proof = Proof {
            secret: secret(),
            client_first_bare: b"n=user,r=rOprNGfwEbeRWgbNEkqO".to_vec(),
            server_first,
            nonce: nonce.to_vec(),
            channel_binding: "biws".to_owned(),
            is_plus: false,
        };
        let client_final = [b"c=biws,r=", &nonce[..], b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="].concat();
        let (server_final, keys) = proof.verify(&client_final).unwrap();
        assert_eq!(server_final, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!((hash(&keys.client_key), keys.server_key), (secret().stored_key, secret().server_key));
    }

    fn exchange(password: &[u8], binding: ChannelBinding, secret: ScramSecret) -> Result<(), ScramError> {
        bound(password, binding, secret, None)
    }

    /// Over a connection to which one can be bound, if there is an end point.
    fn bound(
        password: &[u8],
        binding: ChannelBinding,
        secret: ScramSecret,
        end_point: Option<&[u8]>,
    ) -> Result<(), ScramError> {
        let mut client = ScramSha256::new(password, binding);
        let stored_key = secret.stored_key;
        let is_plus = client.message().starts_with(b"p=");
        let first = First::new(secret, [7; 18], end_point.map(<[u8]>::to_vec));
        let (proof, challenge) = first.challenge(client.message(), is_plus)?;
        client.update(&challenge).unwrap();
        let (server_final, keys) = proof.verify(client.message())?;
        client.finish(&server_final).expect("our proof must hold");
        assert_eq!(hash(&keys.client_key), stored_key);
        Ok(())
    }

    /// Keys in place of the password, against our own server.
    #[test]
    fn keys_are_as_good_as_the_password() {
        let secret = secret();
        let mut salted = [0; 32];
        let rounds = NonZeroU32::new(4096).unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &secret.salt, b"pencil", &mut salted);
        let good = ScramKeys { client_key: sign(&salted, b"Client Key"), server_key: sign(&salted, b"Server Key") };
        let end_point = Some(b"hash".to_vec());
        let login = |keys: &ScramKeys, binding: Binding, end_point: &Option<Vec<u8>>| {
            let is_plus = matches!(binding, Binding::EndPoint(_));
            let mut client = KeyHolder::new(keys.clone(), [3; 18], binding);
            let first = First::new(secret.clone(), [7; 18], end_point.clone());
            let (proof, challenge) = first.challenge(&client.first(), is_plus)?;
            let (server_final, shown) = proof.verify(&client.last(&challenge)?)?;
            assert!(shown == *keys && !client.is_proven(b"v=AAAA") && !client.is_proven(b""));
            Ok(client.is_proven(&server_final))
        };
        assert_eq!(login(&good, Binding::Unsupported, &None), Ok(true));
        assert_eq!(login(&good, Binding::Unrequested, &None), Ok(true));
        assert_eq!(login(&good, Binding::EndPoint(b"hash".to_vec()), &end_point), Ok(true));
        assert_eq!(login(&good, Binding::EndPoint(b"hush".to_vec()), &end_point), Err(ScramError::OtherChannel));
        assert_eq!(login(&good, Binding::Unrequested, &end_point), Err(ScramError::Downgraded));
        let stale = ScramKeys { client_key: [1; 32], ..good.clone() };
        assert_eq!(login(&stale, Binding::Unsupported, &None), Err(ScramError::WrongProof));
        // A server that has another verifier can't prove itself, and one that plays with the nonce gets nothing.
        let mut client = KeyHolder::new(good, [3; 18], Binding::Unsupported);
        let ours = STANDARD.encode([3; 18]);
        for challenge in
            ["", "r=", "r=x,s=c2FsdA==,i=1", &format!("r={ours},s=c2FsdA==,i=1"), &format!("r={ours}x"), "e=no"]
        {
            assert!(client.last(challenge.as_bytes()).is_err(), "{challenge}");
        }
        client.last(format!("r={ours}x,s=c2FsdA==,i=1").as_bytes()).unwrap();
        assert!(!client.is_proven(format!("v={}", STANDARD.encode([0; 32])).as_bytes()));
    }

    #[test]
    fn against_the_drivers_client() {
        assert_eq!(exchange(b"pencil", ChannelBinding::unsupported(), secret()), Ok(()));
        assert_eq!(exchange(b"pencil", ChannelBinding::unrequested(), secret()), Ok(()));
        assert_eq!(exchange(b"pen", ChannelBinding::unsupported(), secret()), Err(ScramError::WrongProof));
        let mock = mock_secret("nobody");
        assert_eq!(exchange(b"", ChannelBinding::unsupported(), mock), Err(ScramError::WrongProof));
        // Soft hyphen goes, a no-break space becomes a space; what is prohibited or not UTF-8 stays.
        for password in ["a\u{ad}b".as_bytes(), "a\u{a0}b".as_bytes(), "a\u{7}b".as_bytes(), b"a\xffb", b""] {
            let secret = derive_secret(password, b"salt", 2);
            assert_eq!(exchange(password, ChannelBinding::unsupported(), secret), Ok(()));
        }
        assert_eq!(derive_secret("a\u{ad}b".as_bytes(), b"s", 1).stored_key, derive_secret(b"ab", b"s", 1).stored_key);
    }

    #[test]
    fn channel_binding_against_the_drivers_client() {
        let binding = |byte| ChannelBinding::tls_server_end_point(vec![byte; 32]);
        let ours = Some(&[1; 32][..]);
        assert_eq!(bound(b"pencil", binding(1), secret(), ours), Ok(()));
        assert_eq!(bound(b"pen", binding(1), secret(), ours), Err(ScramError::WrongProof));
        // Somebody in between has another certificate.
        assert_eq!(bound(b"pencil", binding(2), secret(), ours), Err(ScramError::OtherChannel));
        // Nothing to be bound to.
        assert_eq!(bound(b"pencil", binding(1), secret(), None), Err(ScramError::ChannelBindingData));
        // The client could, and was told that we can't.
        assert_eq!(bound(b"pencil", ChannelBinding::unrequested(), secret(), ours), Err(ScramError::Downgraded));
        assert_eq!(bound(b"pencil", ChannelBinding::unsupported(), secret(), ours), Ok(()));
        assert_eq!(First::new(secret(), [0; 18], Some(vec![1])).mechanisms(), [MECHANISM_PLUS, MECHANISM]);
        assert_eq!(First::new(secret(), [0; 18], None).mechanisms(), [MECHANISM]);
    }

    #[test]
    fn client_first_with_channel_binding_as_postgresql_judges_it() {
        let check = |message: &[u8], is_plus: bool, expected: Result<&str, ScramError>| {
            let first = First::new(secret(), [0; 18], Some(b"hash".to_vec()));
            let got = first.challenge(message, is_plus).map(|(proof, _)| proof.channel_binding);
            let expected = expected.map(|bound| STANDARD.encode(bound));
            assert_eq!(got, expected, "{:?}", String::from_utf8_lossy(message));
        };
        check(b"p=tls-server-end-point,,n=,r=abc", true, Ok("p=tls-server-end-point,,hash"));
        check(b"n,,n=,r=abc", false, Ok("n,,"));
        check(b"n,,n=,r=abc", true, Err(ScramError::ChannelBindingData));
        check(b"y,,n=,r=abc", true, Err(ScramError::ChannelBindingData));
        check(b"y,,n=,r=abc", false, Err(ScramError::Downgraded));
        check(b"p=tls-server-end-point,,n=,r=abc", false, Err(ScramError::ChannelBindingData));
        check(b"p=tls-unique,,n=,r=abc", true, Err(ScramError::ChannelBindingKind));
        check(b"p=tls-server-end-point,a=x,n=,r=abc", true, Err(ScramError::AuthorizationIdentity));
        for malformed in [&b"p"[..], b"p=", b"p=tls-server-end-point", b"p=tls-server-end-point,", b"x,,n=,r=a"] {
            let first = First::new(secret(), [0; 18], Some(b"hash".to_vec()));
            let error = first.challenge(malformed, true).map(|_| ()).unwrap_err();
            assert!(matches!(error, ScramError::Malformed | ScramError::ChannelBindingKind), "{error:?}");
        }
    }

    #[test]
    fn client_first_as_postgresql_judges_it() {
        let check = |message: &[u8], expected: Result<&[u8], ScramError>| {
            let got = First::new(secret(), [0; 18], None).challenge(message, false).map(|(proof, _)| proof.nonce);
            let expected = expected.map(|nonce| [nonce, &[b'A'; 24]].concat());
            assert_eq!(got, expected, "{:?}", String::from_utf8_lossy(message));
        };
        check(b"n,,n=,r=abc", Ok(b"abc"));
        check(b"y,,n=,r=abc", Ok(b"abc"));
        check(b"n,,n=bob,r=abc,x=1", Ok(b"abc"));
        check(b"n,,n=,r=abc,", Ok(b"abc"));
        check(b"n,,n=\xff,r=abc", Ok(b"abc"));
        check(b"n,,n=a=b,r=c", Ok(b"c"));
        check(b"n,,n=,r=", Ok(b""));
        check(b"p=tls-server-end-point,,n=,r=abc", Err(ScramError::ChannelBindingData));
        check(b"n,a=x,n=,r=abc", Err(ScramError::AuthorizationIdentity));
        check(b"n,,m=1,n=,r=abc", Err(ScramError::MandatoryExtension));
        check(b"n,,n=,r=a\tb", Err(ScramError::UnprintableNonce));
        for malformed in
            [&b""[..], b"x", b"n", b"n,", b"n,,", b"n,,r=abc", b"n,,n=", b"n,,n=,", b"n,,n=,r=a\0b", b"n,,n=,r=abc,xx"]
        {
            check(malformed, Err(ScramError::Malformed));
        }
    }

    #[test]
    fn client_final_as_postgresql_judges_it() {
        let check = |message: &str, expected| {
            let (proof, _) = First::new(secret(), [0; 18], None).challenge(b"n,,n=,r=abc", false).unwrap();
            let message = message
                .replace('@', &format!("abc{}", "A".repeat(24)))
                .replace("p=0", &format!("p={}=", "A".repeat(43)));
            assert_eq!(proof.verify(message.as_bytes()).map(|_| ()), Err(expected), "{message}");
        };
        check("c=biws,r=X,p=AAAA", ScramError::Malformed);
        check("c=eSws,r=@,p=AAAA", ScramError::ChannelBindingChanged);
        check("c=biws,r=@,p=0", ScramError::WrongProof);
        check("c=biws,r=@", ScramError::Malformed);
        check("c=biws,r=@,p=A", ScramError::Malformed);
        check("c=biws,r=@x,p=0", ScramError::NonceChanged);
        check("c=biws,r=,p=0", ScramError::NonceChanged);
        check("c=biws,r=@,e=1,p=0", ScramError::WrongProof);
        check("c=biws,r=@,p=0,x=1", ScramError::Malformed);
        check("x=biws", ScramError::Malformed);
        check("c=biws", ScramError::Malformed);
        check("", ScramError::Malformed);
        check("c=biws,r=@,p=0\0", ScramError::Malformed);
    }

    proptest! {
        #[test]
        fn no_message_panics(first: Vec<u8>, last: Vec<u8>, is_plus: bool, end_point: Option<Vec<u8>>) {
            let mock = || First::new(mock_secret("a"), [0; 18], end_point.clone());
            let _ = mock().challenge(&first, is_plus);
            let (proof, _) = mock().challenge(b"n,,n=,r=abc", false).unwrap();
            let _ = proof.verify(&last);
            let _ = ScramSecret::parse(&String::from_utf8_lossy(&last));
        }
    }
}
