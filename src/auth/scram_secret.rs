//! From a password to the server's half of SCRAM-SHA-256, and made-up ones for users that do not exist.
//!
//! RFC 5802 §3 with RFC 7677's hash, and PostgreSQL's way with SASLprep: a password that can't be prepared is taken
//! as it is (`scram_build_secret` in `scram-common.c`).

use std::num::NonZeroU32;
use std::str;

use aws_lc_rs::{digest, hmac, pbkdf2};

use crate::protocol::ScramSecret;

/// PostgreSQL's own default; drivers cap what they accept, and a login must stay cheap.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// PostgreSQL's own.
pub const SALT_BYTES: usize = 16;

/// Derives the secret of a password. Takes about a millisecond at 4096 rounds: for loading, not for logins.
pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> ScramSecret {
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &prepared(password), &mut salted);
    let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&salted, b"Client Key");
    ScramSecret {
        salt: salt.to_vec(),
        iterations: iterations.get(),
        stored_key: array(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref()),
        server_key: array(hmac::sign(&salted, b"Server Key").as_ref()),
    }
}

/// Makes up a secret for a user that does not exist: always the same for the same name and key, so that asking twice
/// tells nothing. No password fits it.
pub fn mock(key: &hmac::Key, user: &str) -> ScramSecret {
    let bytes = |purpose: &[u8]| {
        let mut context = hmac::Context::with_key(key);
        context.update(purpose);
        context.update(user.as_bytes());
        array(context.sign().as_ref())
    };
    ScramSecret {
        salt: bytes(b"salt ").into_iter().take(SALT_BYTES).collect(),
        iterations: ITERATIONS.get(),
        stored_key: bytes(b"stored key "),
        server_key: bytes(b"server key "),
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
        let secret = derive(b"pencil", salt, ITERATIONS);
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
        let (one, again) = (mock(&key(1), "app"), mock(&key(1), "app"));
        assert_eq!((&one.salt, one.stored_key, one.server_key), (&again.salt, again.stored_key, again.server_key));
        assert_eq!((one.salt.len(), one.iterations), (SALT_BYTES, ITERATIONS.get()));
        assert_ne!(one.salt, mock(&key(1), "app2").salt);
        assert_ne!(one.salt, mock(&key(2), "app").salt);
        assert_ne!(one.stored_key, one.server_key);
    }
}
