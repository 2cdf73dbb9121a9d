//! The list of users: what each must prove, where they may come in, and how the proxy logs in for them.
//!
//! Immutable; a reload makes a new one. Secrets are derived once, at load.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::hmac;
use md5::Digest;

use super::AuthError;
use super::rotating::Rotating;
use crate::config::{AuthMethod, DatabaseAuth, Secret, UserConfig};
use crate::protocol::{ITERATIONS, Proof, ScramSecret};
use std::sync::Arc;

/// All users by the name on the wire.
#[derive(Clone, Debug)]
pub(super) struct Users(HashMap<String, Arc<User>>);

#[derive(Clone)]
pub(super) struct User {
    name: String,
    pub(super) method: AuthMethod,
    pub(super) proof: Proof,
    pub(super) native_password: bool,
    pub(super) database_user: String,
    pub(super) database_auth: DatabaseAuth,
    pub(super) password: Option<Arc<Rotating>>,
    /// `None`: everywhere.
    endpoints: Option<Vec<String>>,
    /// `None`: any number.
    pub(super) max_clients: Option<usize>,
}

impl Users {
    /// `mock_key`: what those are asked for by who do not exist.
    pub(super) fn load(users: &[UserConfig], mock_key: &hmac::Key) -> Result<Self, AuthError> {
        users
            .iter()
            .map(|user| Ok((user.name.clone(), Arc::new(User::load(user, mock_key)?))))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn find(&self, name: &str) -> Option<&User> {
        self.0.get(name).map(Arc::as_ref)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same, with what this user proves made anew of its password as it is now.
    pub(super) fn renewed(&self, name: &str, mock_key: &hmac::Key) -> Result<Self, AuthError> {
        let mut renewed = self.clone();
        if let Some(user) = renewed.0.get_mut(name) {
            *user = Arc::new(user.renewed(mock_key)?);
        }
        Ok(renewed)
    }

    /// The users whose password may change, with it.
    pub(super) fn passwords(&self) -> impl Iterator<Item = (&str, &Arc<Rotating>)> {
        self.0.iter().filter_map(|(name, user)| Some((name.as_str(), user.password.as_ref()?)))
    }
}

impl User {
    fn load(user: &UserConfig, mock_key: &hmac::Key) -> Result<Self, AuthError> {
        let password = user.password.as_ref().map(Secret::expose);
        if password.is_some_and(is_verifier) {
            return Err(AuthError::Verifier { user: user.name.clone() });
        }
        let proof = match proof_of(&user.name, user.auth, password, mock_key)? {
            Some(proof) => proof,
            None => Proof::Certificate(user.certificate_names.clone().into()),
        };
        Ok(Self {
            name: user.name.clone(),
            method: user.auth,
            proof,
            native_password: user.native_password,
            database_user: user.database_user.clone(),
            database_auth: user.database_auth,
            password: user.password.clone().map(|password| Arc::new(Rotating::new(password))),
            endpoints: user.endpoints.clone(),
            max_clients: user.max_clients,
        })
    }

    fn renewed(&self, mock_key: &hmac::Key) -> Result<Self, AuthError> {
        let password = self.password.as_ref().map(|password| password.current());
        let password = password.as_ref().map(|password| password.expose());
        if password.is_some_and(is_verifier) {
            return Err(AuthError::Verifier { user: self.name.clone() });
        }
        let proof = proof_of(&self.name, self.method, password, mock_key)?;
        Ok(Self { proof: proof.unwrap_or_else(|| self.proof.clone()), ..self.clone() })
    }

    pub(super) fn may_use(&self, endpoint: &str) -> bool {
        self.endpoints.as_ref().is_none_or(|names| names.iter().any(|name| name == endpoint))
    }
}

/// What a user with this password proves, and how. `None`: that depends on no password.
fn proof_of(
    name: &str,
    method: AuthMethod,
    password: Option<&str>,
    mock_key: &hmac::Key,
) -> Result<Option<Proof>, AuthError> {
    let needed = || password.ok_or_else(|| AuthError::NoPassword { user: name.to_owned() });
    Ok(Some(match method {
        AuthMethod::ScramSha256 => {
            // The salt that the name would have if it did not exist: one that changes with a reload, a new password or the
            // endpoint would tell the two apart.
            let salt = ScramSecret::mock(mock_key, name).salt;
            Proof::Scram(ScramSecret::derive(needed()?.as_bytes(), &salt, ITERATIONS))
        }
        AuthMethod::Md5 => Proof::Md5(postgres_hash(needed()?, name)),
        AuthMethod::IamOrPassword => needed().map(|_| Proof::Password)?,
        AuthMethod::Iam => Proof::Password,
        AuthMethod::Certificate => return Ok(None),
    }))
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User(***)")
    }
}

/// What `pg_authid.rolpassword` holds: enough to check a client, not enough to log in at a database.
fn is_verifier(password: &str) -> bool {
    let is_md5 = |hash: &str| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    password.starts_with("SCRAM-SHA-256$") || password.strip_prefix("md5").is_some_and(is_md5)
}

/// The hexadecimal MD5 of password and user name (`pg_md5_encrypt`, without its prefix).
fn postgres_hash(password: &str, user: &str) -> [u8; 32] {
    let mut context = md5::Md5::new();
    context.update(password);
    context.update(user);
    let digest: [u8; 16] = context.finalize().into();
    hex(&digest)
}

/// The first 16 bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> [u8; 32] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    let mut digits = [b'0'; 32];
    for (pair, byte) in digits.chunks_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    digits
}
