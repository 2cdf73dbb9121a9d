//! Answers to a server's challenge: how a client shows that it knows its password.
//!
//! Both sides compute the same answer from the password, so a client's is compared with what it must be, in constant time.
//! `mysql_common` does the hashing, ed25519-dalek signs, aws-lc-rs does the RSA: `mysql_common` 0.37 panics where a server's key is none.

use crate::protocol::{Password, PasswordKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use ed25519_dalek::hazmat::{self, ExpandedSecretKey};
use ed25519_dalek::{Digest, Sha512, VerifyingKey};
use mysql_common::scramble::{scramble_native, scramble_sha256};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 20;
/// Bytes of `caching_sha2_password`'s answer to one.
pub const ANSWER_BYTES: usize = SHA256_OUTPUT_LEN;

/// How a login is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// `mysql_native_password`
    Native,
    /// `caching_sha2_password`
    CachingSha2,
    /// `mysql_clear_password`: the password itself.
    Clear,
    /// One that is not spoken here.
    Other(String),
}

impl Plugin {
    /// By its name on the wire.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"mysql_native_password" => Self::Native,
            b"caching_sha2_password" => Self::CachingSha2,
            b"mysql_clear_password" => Self::Clear,
            other => Self::Other(String::from_utf8_lossy(other).into_owned()),
        }
    }

    /// As on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
            Self::Clear => "mysql_clear_password",
            Self::Other(name) => name,
        }
    }

    /// The answer to the challenge; empty for an empty password. `None`: the plugin has no challenge.
    pub fn answer(&self, challenge: &[u8; CHALLENGE_BYTES], password: &Password) -> Option<Vec<u8>> {
        let password = password.expose();
        match self {
            Self::Native => Some(scramble_native(challenge, password).map_or_else(Vec::new, Vec::from)),
            Self::CachingSha2 => Some(scramble_sha256(challenge, password).map_or_else(Vec::new, Vec::from)),
            Self::Clear | Self::Other(_) => None,
        }
    }

    /// Whether this is the answer to the challenge.
    pub fn holds(&self, challenge: &[u8; CHALLENGE_BYTES], password: &Password, shown: &[u8]) -> bool {
        self.answer(challenge, password).is_some_and(|answer| verify_slices_are_equal(&answer, shown).is_ok())
    }
}

/// The password for the eyes of who has this key's other half, as `caching_sha2_password` wants it without TLS. `None`: that
/// is no key of 2048 bits or more.
pub fn sealed(password: &Password, challenge: &[u8; CHALLENGE_BYTES], key: &[u8]) -> Option<Vec<u8>> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(key).ok()?;
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&key).ok()?).ok()?;
    let mixed = mixed(&[password.expose(), b"\0"].concat(), challenge);
    let mut sealed = vec![0; key.ciphertext_size()];
    let written = key.encrypt(&OAEP_SHA1_MGF1SHA1, &mixed, &mut sealed, None).ok()?.len();
    sealed.truncate(written);
    Some(sealed)
}

/// What a client has put under our key, with the zero byte behind it. `None`: that was nothing.
pub fn unsealed(sealed: &[u8], challenge: &[u8; CHALLENGE_BYTES], key: &PasswordKey) -> Option<Password> {
    Some(Password::new(mixed(key.opened(sealed)?.expose(), challenge)))
}

/// A password and a challenge into one, or apart again.
fn mixed(password: &[u8], challenge: &[u8; CHALLENGE_BYTES]) -> Vec<u8> {
    password.iter().zip(challenge.iter().cycle()).map(|(a, b)| a ^ b).collect()
}

/// Whether this is the password. Takes the same time for all that is not, also if it is longer or shorter.
pub fn is_same(password: &Password, shown: &[u8]) -> bool {
    let [a, b] = [password.expose(), shown].map(|bytes| digest(&SHA256, bytes));
    verify_slices_are_equal(a.as_ref(), b.as_ref()).is_ok()
}

/// MariaDB's plugin, as it is called on the wire.
pub const ED25519: &str = "client_ed25519";

/// The answer to its challenge: a signature by the key that a password of any length is hashed into
/// (<https://mariadb.com/kb/en/authentication-plugin-ed25519/>).
pub fn sign_ed25519(challenge: &[u8; 32], password: &Password) -> [u8; 64] {
    let key = ExpandedSecretKey::from_bytes(&Sha512::digest(password.expose()).into());
    hazmat::raw_sign::<Sha512>(&key, challenge, &VerifyingKey::from(&key)).to_bytes()
}

/// A challenge of these random bytes: none of them is zero, which would end it, nor `$`, which servers leave out as well.
pub fn challenge(random: [u8; CHALLENGE_BYTES]) -> [u8; CHALLENGE_BYTES] {
    // 116 of the 128 there are: 137 bits in all.
    random.map(|byte| match 1 + byte % 116 {
        b'$' => 120,
        byte => byte,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_their_challenge_and_password_alone() {
        let challenges = [[7; 20], [8; 20]].map(challenge);
        let passwords = ["secret", "Secret", ""].map(Password::new);
        for plugin in [Plugin::Native, Plugin::CachingSha2] {
            for (c, shown_to) in challenges.iter().enumerate() {
                for (p, shown) in passwords.iter().enumerate() {
                    let answer = plugin.answer(shown_to, shown).unwrap_or_default();
                    for (c2, asked) in challenges.iter().enumerate() {
                        for (p2, known) in passwords.iter().enumerate() {
                            // No challenge has a part in an empty password's answer.
                            let same = p == p2 && (c == c2 || known.expose().is_empty());
                            assert_eq!(plugin.holds(asked, known, &answer), same, "{plugin:?} {c} {p} {c2} {p2}");
                        }
                    }
                }
            }
        }
        assert!(!Plugin::Clear.holds(&challenges[0], &Password::new(""), b""));
    }

    #[test]
    fn nothing_is_sealed_with_what_is_no_key() {
        let begun = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for key in [&b""[..], b"key", begun, &begun[..30], &[0xFF; 300]] {
            assert_eq!(sealed(&Password::new("hunter2"), &[7; CHALLENGE_BYTES], key), None);
        }
    }

    #[test]
    fn challenges_have_no_zero() {
        for byte in 0..=255 {
            let [first, ..] = challenge([byte; 20]);
            assert!((1..128).contains(&first) && first != b'$');
        }
    }
}
