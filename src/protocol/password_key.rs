//! The key under which clients may put their passwords where there is no TLS (MySQL's `caching_sha2_password`).
//!
//! It keeps a password from those who only listen. Who stands in between can show a key of its own: nothing vouches for this one.

use super::Password;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// Characters of a PEM file's line (RFC 7468 §2).
const LINE: usize = 64;

/// Both halves of the key. It does not print itself.
pub struct PasswordKey {
    private: OaepPrivateDecryptingKey,
    public: String,
}

impl PasswordKey {
    /// Of this private half.
    pub fn new(private: PrivateDecryptingKey) -> Result<Self, Unspecified> {
        let der: PublicKeyX509Der<'_> = private.public_key().as_der()?;
        let mut public = String::from("-----BEGIN PUBLIC KEY-----");
        for (at, letter) in STANDARD.encode(der.as_ref()).chars().enumerate() {
            if at % LINE == 0 {
                public.push('\n');
            }
            public.push(letter);
        }
        public.push_str("\n-----END PUBLIC KEY-----\n");
        Ok(Self { private: OaepPrivateDecryptingKey::new(private)?, public })
    }

    /// The half that is shown, as PEM.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// What was put under the key. `None`: that was nothing. Costs a quarter of a millisecond, whatever comes of it, if it is
    /// as long as it must be, and else nothing.
    pub fn opened(&self, sealed: &[u8]) -> Option<Password> {
        if sealed.len() != self.private.key_size_bytes() {
            return None;
        }
        let mut opened = vec![0; self.private.min_output_size()];
        let length = self.private.decrypt(&OAEP_SHA1_MGF1SHA1, sealed, &mut opened, None).ok()?.len();
        opened.truncate(length);
        Some(Password::new(opened))
    }
}

impl fmt::Debug for PasswordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordKey(***)")
    }
}
