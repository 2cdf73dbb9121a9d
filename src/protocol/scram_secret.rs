//! The server's half of a SCRAM-SHA-256 password: from the password, from what a database keeps, and made up for users
//! that do not exist.
//!
//! RFC 5802 §3 with RFC 7677's hash, and PostgreSQL's way with SASLprep: a password that can't be prepared is taken
//! as it is (`scram_build_secret` in `scram-common.c`).

use std::fmt;
use std::num::NonZeroU32;
use std::str;

use aws_lc_rs::{digest, hmac, pbkdf2};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// PostgreSQL's own default; drivers cap what they accept, and a login must stay cheap.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// PostgreSQL's own.
pub const SALT_BYTES: usize = 16;

/// What a server keeps of a password (RFC 5802 §3; the four fields of PostgreSQL's verifier).
#[derive(Clone)]
pub struct ScramSecret {
    /// Salt, as sent to the client.
    pub salt: Vec<u8>,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// H(ClientKey).
    pub stored_key: [u8; 32],
    /// HMAC key for our own proof.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramSecret(***)")
    }
}

impl ScramSecret {
    /// Derives the secret of a password. Takes about a millisecond at 4096 rounds: for loading, not for logins.
    pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &prepared(password), &mut salted);
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        Self {
            salt: salt.to_vec(),
            iterations: iterations.get(),
            stored_key: array(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref()),
            server_key: array(hmac::sign(&salted, b"Server Key").as_ref()),
        }
    }

    /// Makes up a secret for a user that does not exist: always the same for the same name and key, so that asking
    /// twice tells nothing. The key must be unpredictable. No proof fits it by anything but luck; refuse even that one
    /// ([`Credentials::known`](crate::protocol::Credentials::known)).
    pub fn mock(key: &hmac::Key, user: &str) -> Self {
        let bytes = |purpose: &[u8]| {
            let mut context = hmac::Context::with_key(key);
            context.update(purpose);
            context.update(user.as_bytes());
            array(context.sign().as_ref())
        };
        Self {
            salt: bytes(b"salt ").into_iter().take(SALT_BYTES).collect(),
            iterations: ITERATIONS.get(),
            stored_key: bytes(b"stored key "),
            server_key: bytes(b"server key "),
        }
    }

    /// Reads a verifier as `pg_authid.rolpassword` holds it: `SCRAM-SHA-256$4096:salt$stored:server`.
    pub fn parse(verifier: &str) -> Option<Self> {
        let (rounds, rest) = verifier.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| -> Option<[u8; 32]> { STANDARD.decode(text).ok()?.try_into().ok() };
        if !rounds.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            salt: STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            iterations: rounds.parse::<NonZeroU32>().ok().filter(|rounds| i32::try_from(rounds.get()).is_ok())?.get(),
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

/// SASLprep (RFC 4013), or the bytes themselves when they are not UTF-8, hold what it forbids or vanish under it.
fn prepared(password: &[u8]) -> Vec<u8> {
    let prepared = str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    match prepared {
        Some(text) if !text.is_empty() => text.into_owned().into_bytes(),
        Some(_) | None => password.to_vec(),
    }
}

/// HMAC-SHA-256 and SHA-256 give 32 bytes.
fn array(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    for (to, from) in array.iter_mut().zip(bytes) {
        *to = *from;
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 7677 §3: user "user", password "pencil". The RFC gives proof and server signature; both are computed here
    /// from our secret.
    #[test]
    fn the_vector_of_rfc_7677_holds() {
        let salt = b"\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81"; // W22ZaJ0SNY7soEsUEjb6gQ==
        let secret = ScramSecret::derive(b"pencil", salt, ITERATIONS);
        let message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let sign = |key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
        // v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=
        let server_signature = "eabae24d1062db75a9451ff0b6ea7e98c8546549ff741e672d3251b2397de46e";
        assert_eq!(hex(sign(&secret.server_key).as_ref()), server_signature);
        // p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=
        let proof = b"\x74\x7c\xdb\x65\xaa\x56\x22\x4e\x23\x52\x13\x7e\x52\xd7\xbd\xca\
                      \xd6\xa0\xf7\x38\xdf\x30\x78\x2c\xaa\x69\xa2\xcf\xb0\x27\x75\x54";
        let signature = sign(&secret.stored_key);
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest::digest(&digest::SHA256, &client_key).as_ref(), secret.stored_key);
        assert_eq!((secret.salt.as_slice(), secret.iterations), (salt.as_slice(), 4096));
    }

    #[test]
    fn passwords_are_prepared_as_postgresql_does() {
        let check = |password: &str, same_as: &str| {
            assert_eq!(prepared(password.as_bytes()), same_as.as_bytes(), "{password:?}");
        };
        check("pencil", "pencil");
        // RFC 4013 §3.
        check("I\u{ad}X", "IX");
        check("\u{aa}", "a");
        check("\u{2168}", "IX");
        // Other spaces become one; combining marks are composed.
        check("a\u{a0}b", "a b");
        check("e\u{301}", "\u{e9}");
        // Forbidden (a control character, mixed directions, nothing left): taken as they are.
        check("a\u{7}b", "a\u{7}b");
        check("\u{627}1", "\u{627}1");
        check("\u{ad}", "\u{ad}");
        assert_eq!(prepared(b"\xff\xfe"), b"\xff\xfe");
    }

    #[test]
    fn mocks_depend_on_name_and_key_alone() {
        let key = |byte| hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let (one, again) = (ScramSecret::mock(&key(1), "app"), ScramSecret::mock(&key(1), "app"));
        assert_eq!((&one.salt, one.stored_key, one.server_key), (&again.salt, again.stored_key, again.server_key));
        assert_eq!((one.salt.len(), one.iterations), (SALT_BYTES, ITERATIONS.get()));
        assert_ne!(one.salt, ScramSecret::mock(&key(1), "app2").salt);
        assert_ne!(one.salt, ScramSecret::mock(&key(2), "app").salt);
        assert_ne!(one.stored_key, one.server_key);
    }

    #[test]
    fn verifiers() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = ScramSecret::derive(b"pencil", &salt, ITERATIONS);
        let keys = format!("{}:{}", STANDARD.encode(made.stored_key), STANDARD.encode(made.server_key));
        let read = ScramSecret::parse(&format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${keys}")).unwrap();
        assert_eq!((read.salt, read.iterations), (made.salt, 4096));
        assert_eq!((read.stored_key, read.server_key), (made.stored_key, made.server_key));
        for malformed in [
            String::new(),
            "md5abc".into(),
            "SCRAM-SHA-256$4096".into(),
            format!("SCRAM-SHA-256$0:c2FsdA==${keys}"),
            format!("SCRAM-SHA-256$+1:c2FsdA==${keys}"),
            format!("SCRAM-SHA-256$4294967295:c2FsdA==${keys}"),
            format!("SCRAM-SHA-256$4096:${keys}"),
            format!("SCRAM-SHA-256$4096:c2FsdA==${keys}:"),
            format!("SCRAM-SHA-1$4096:c2FsdA==${keys}"),
            "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA".into(),
        ] {
            assert!(ScramSecret::parse(&malformed).is_none(), "{malformed}");
        }
    }
}
