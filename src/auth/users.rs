//! The list of users: what each must prove, where they may come in, and how the proxy logs in for them.
//!
//! Immutable; a reload makes a new one. Secrets are derived once, at load.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::rand;

use super::AuthError;
use super::scram_secret::{self, ITERATIONS, SALT_BYTES};
use crate::config::UserConfig;
use crate::protocol::{Password, ScramSecret};

/// All users by the name on the wire.
#[derive(Debug)]
pub(super) struct Users(HashMap<String, User>);

pub(super) struct User {
    pub(super) secret: ScramSecret,
    pub(super) database_user: String,
    pub(super) password: Password,
    /// `None`: everywhere.
    endpoints: Option<Vec<String>>,
}

impl Users {
    pub(super) fn load(users: &[UserConfig]) -> Result<Self, AuthError> {
        users.iter().map(|user| Ok((user.name.clone(), User::load(user)?))).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn find(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }
}

impl User {
    fn load(user: &UserConfig) -> Result<Self, AuthError> {
        let Some(password) = &user.password else {
            return Err(AuthError::NoPassword { user: user.name.clone() });
        };
        let password = password.expose();
        if is_verifier(password) {
            return Err(AuthError::Verifier { user: user.name.clone() });
        }
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| AuthError::Random)?;
        Ok(Self {
            secret: scram_secret::derive(password.as_bytes(), &salt, ITERATIONS),
            database_user: user.database_user.clone(),
            password: Password::new(password),
            endpoints: user.endpoints.clone(),
        })
    }

    pub(super) fn may_use(&self, endpoint: &str) -> bool {
        self.endpoints.as_ref().is_none_or(|names| names.iter().any(|name| name == endpoint))
    }
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
