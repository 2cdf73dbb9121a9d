//! Who may come in, and as whom the proxy logs in at the database for them.
//!
//! Answers questions of the login machines; does not speak to anybody itself. A user that does not exist, or may not
//! use the endpoint, is given a secret that nobody can fulfil: its login looks and takes the same as with a wrong
//! password.

mod clients;
mod feigned;
mod iam;
mod rotating;
mod users;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use aws_lc_rs::{hmac, rand};

use crate::config::{AccessKeyConfig, AuthMethod, DatabaseAuth, EndpointConfig, IamConfig, Secret, UserConfig};
use crate::protocol::{Challenge, ClientError, Credentials, Knowledge, Password, PasswordKey, Proof, ScramSecret};
use iam::{Claim, Iam, is_token};
use users::Users;

pub use clients::{Clients, LoggedIn};
pub use feigned::Forms;
pub use iam::{Keys, TokenRefusal, make_token};
pub use rotating::Rotating;

/// The users and what they must prove. Immutable; a reload makes a new one.
#[derive(Clone)]
pub struct Authenticator {
    users: Users,
    /// What is there at each endpoint.
    endpoints: Arc<HashMap<String, Door>>,
    iam: Option<Arc<Iam>>,
    /// What the proxy's own tokens are signed with.
    signer: Option<Arc<Signer>>,
    mock_key: hmac::Key,
}

/// Makes tokens for the proxy's own logins.
pub struct Signer {
    keys: Keys,
    region: String,
}

impl Signer {
    /// A token for one login, now.
    pub fn token(&self, host: &str, port: u16, user: &str) -> Option<Password> {
        make_token(&self.keys, host, port, user, &self.region, SystemTime::now()).map(Password::new)
    }
}

/// A new key for passwords that come without TLS. Takes a tenth of a second, or several: not for a login's path.
pub fn password_key() -> Result<PasswordKey, AuthError> {
    // As long as those that MySQL's servers make for themselves.
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| AuthError::Random)?;
    PasswordKey::new(key).map_err(|_| AuthError::Random)
}

/// How the proxy logs in at a database for a user.
pub struct DatabaseLogin {
    /// The name there.
    pub user: String,
    /// What it proves.
    pub proof: DatabaseProof,
}

/// What the proxy proves itself with at a database.
pub enum DatabaseProof {
    /// Nothing: the database must trust it.
    Nothing,
    /// This password, as it is at the moment.
    Password(Arc<Rotating>),
    /// A token, made for each login.
    Token(Arc<Signer>),
}

/// An endpoint, as far as it matters who comes in.
struct Door {
    hostnames: Vec<(String, u16)>,
    /// How its users prove who they are, each way once.
    methods: Vec<AuthMethod>,
    /// Some user may show a password by `mysql_native_password`.
    native_password: bool,
}

/// Why a password, or a token, lets nobody in. For the log: the client hears the same words each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRefusal {
    /// What is wrong with the token.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// The user takes tokens only.
    #[error("a password was given where a token is needed")]
    NotToken,
    /// It is another.
    #[error("wrong password")]
    Wrong,
    /// There is no such user, or not at this endpoint.
    #[error("no such user at this endpoint")]
    UnknownUser,
}

/// A password, or token, that lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For the log.
    pub reason: PasswordRefusal,
    /// For the client; says no more than what it knows already.
    pub told: ClientError,
}

impl Refused {
    /// It may have been signed with another key than the one known here, which could be an old one.
    pub fn is_about_the_key(&self) -> bool {
        matches!(self.reason, PasswordRefusal::Token(TokenRefusal::Signature | TokenRefusal::SecurityToken))
    }
}

/// Why the list of users can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No password to check against.
    #[error("user \"{user}\" has no `password`, which its `auth` needs")]
    NoPassword {
        /// The user's name.
        user: String,
    },
    /// A password's hash where the password belongs.
    #[error(
        "the `password` of user \"{user}\" is a password's hash (SCRAM-SHA-256$... or md5...): clients could log in \
         with it, but the proxy could not log in at the database; give the password itself"
    )]
    Verifier {
        /// The user's name.
        user: String,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl Authenticator {
    /// Derives every user's secret: about a millisecond each. `access_key` signs the proxy's own tokens.
    pub fn new(
        users: &[UserConfig],
        endpoints: &[EndpointConfig],
        iam: Option<&IamConfig>,
        access_key: Option<&AccessKeyConfig>,
    ) -> Result<Self, AuthError> {
        let mut key = [0; 32];
        rand::fill(&mut key).map_err(|_| AuthError::Random)?;
        Self::with_key(hmac::Key::new(hmac::HMAC_SHA256, &key), users, endpoints, (iam, access_key))
    }

    /// The same for a configuration that was read anew. What clients are shown before they have proven themselves stays as
    /// it was, of users who exist and of those who don't.
    pub fn successor(
        &self,
        users: &[UserConfig],
        endpoints: &[EndpointConfig],
        iam: Option<&IamConfig>,
        access_key: Option<&AccessKeyConfig>,
    ) -> Result<Self, AuthError> {
        Self::with_key(self.mock_key.clone(), users, endpoints, (iam, access_key))
    }

    fn with_key(
        mock_key: hmac::Key,
        users: &[UserConfig],
        endpoints: &[EndpointConfig],
        (iam, access_key): (Option<&IamConfig>, Option<&AccessKeyConfig>),
    ) -> Result<Self, AuthError> {
        let mock_secret = hmac::sign(&mock_key, b"secret access key").as_ref().escape_ascii().to_string();
        let door = |endpoint: &EndpointConfig| {
            let (mut methods, mut native_password) = (Vec::new(), false);
            for user in users.iter().filter(|user| user.may_use(&endpoint.name)) {
                native_password |= user.native_password;
                if !methods.contains(&user.auth) {
                    methods.push(user.auth);
                }
            }
            (endpoint.name.clone(), Door { hostnames: endpoint.hostnames.clone(), methods, native_password })
        };
        Ok(Self {
            users: Users::load(users, &mock_key)?,
            endpoints: Arc::new(endpoints.iter().map(door).collect()),
            iam: iam.map(|iam| Arc::new(Iam::new(iam, Secret::new(mock_secret)))),
            signer: access_key.map(|key| {
                let keys = Keys {
                    access_key_id: key.access_key_id.clone(),
                    secret_access_key: key.secret_access_key.clone(),
                    session_token: key.session_token.clone(),
                };
                Arc::new(Signer { keys, region: key.region.clone() })
            }),
            mock_key,
        })
    }

    /// What a client must prove to come in at this endpoint as this user. One that is not known is asked for what one of
    /// the endpoint's users is asked for, always the same for the same name, so that nobody learns who exists.
    /// Who checks the answer to a challenge has the `knowledge` for it.
    pub fn credentials(&self, endpoint: &str, user: &str, knowledge: Knowledge) -> Credentials {
        // Made for everybody, so that it takes everybody the same time.
        let mock = ScramSecret::mock(&self.mock_key, user);
        let takes_weaker = self.endpoints.get(endpoint).is_some_and(|door| door.native_password);
        match self.users.find(user).filter(|found| found.may_use(endpoint)) {
            Some(found) => {
                let password = found.password.as_ref().filter(|_| knowledge == Knowledge::Password);
                let proof = match (&found.proof, password) {
                    (Proof::Scram(_) | Proof::Md5(_), Some(password)) => Proof::Challenge(Challenge {
                        password: Password::new(password.current().expose()),
                        weaker: takes_weaker.then_some(found.native_password),
                    }),
                    (proof, _) => proof.clone(),
                };
                Credentials { proof, known: true }
            }
            None => {
                let proof = match self.mock_method(endpoint, user) {
                    AuthMethod::ScramSha256 | AuthMethod::Md5 if knowledge == Knowledge::Password => {
                        Proof::Challenge(Challenge {
                            password: Password::new(mock.stored_key),
                            weaker: takes_weaker.then_some(false),
                        })
                    }
                    AuthMethod::ScramSha256 => Proof::Scram(mock),
                    AuthMethod::Md5 => Proof::Md5(users::hex(&mock.stored_key)),
                    AuthMethod::Iam | AuthMethod::IamOrPassword => Proof::Password,
                    AuthMethod::Certificate => Proof::Certificate([].into()),
                };
                Credentials { proof, known: false }
            }
        }
    }

    /// What is asked of a user that nobody knows, where users are looked up in the database: what one of its users is asked.
    pub fn unknown(&self, user: &str, forms: &Forms) -> Credentials {
        feigned::credentials(&self.mock_key, forms, user)
    }

    /// Whether the configuration names this user, for whatever endpoint.
    pub fn is_listed(&self, user: &str) -> bool {
        self.users.find(user).is_some()
    }

    /// The users that the configuration names.
    pub fn listed(&self) -> impl Iterator<Item = &str> {
        self.users.names()
    }

    fn mock_method(&self, endpoint: &str, user: &str) -> AuthMethod {
        let methods = self.endpoints.get(endpoint).map_or(&[][..], |door| &door.methods);
        feigned::method(&self.mock_key, methods, user)
    }

    /// Whether this password, or token, lets the user in at this endpoint.
    pub fn judge(&self, endpoint: &str, user: &str, password: &Password, now: SystemTime) -> Result<(), Refused> {
        let password = password.expose();
        let found = self.users.find(user).filter(|found| found.may_use(endpoint));
        let method = found.map_or_else(|| self.mock_method(endpoint, user), |found| found.method);
        let wants_token = method == AuthMethod::Iam || (method == AuthMethod::IamOrPassword && is_token(password));
        let verdict = match (&self.iam, method) {
            (Some(iam), AuthMethod::Iam | AuthMethod::IamOrPassword) if is_token(password) => {
                let hostnames = self.endpoints.get(endpoint).map_or(&[][..], |door| &door.hostnames);
                iam.verify(password, Claim { hostnames, user }, now).map_err(PasswordRefusal::from)
            }
            (_, AuthMethod::Iam) => Err(PasswordRefusal::NotToken),
            _ => {
                let known = found.and_then(|found| found.password.as_ref()).map(|known| known.current());
                let known = known.as_ref().map_or("\0", |known| known.expose());
                if iam::is_same(known.as_bytes(), password) { Ok(()) } else { Err(PasswordRefusal::Wrong) }
            }
        };
        let user = user.to_owned();
        // By what was asked for and came, not by what was wrong with it.
        let told = if wants_token { ClientError::TokenRefused { user } } else { ClientError::LoginRefused { user } };
        // Looked at last: it costs the same to be unknown.
        match verdict {
            _ if found.is_none() => Err(Refused { reason: PasswordRefusal::UnknownUser, told }),
            Err(reason) => Err(Refused { reason, told }),
            Ok(()) => Ok(()),
        }
    }

    /// The name at the database of a user whom the configuration names.
    pub fn database_user(&self, user: &str) -> Option<&str> {
        self.users.find(user).map(|found| found.database_user.as_str())
    }

    /// How many clients may be logged in as this user; `None`: any number.
    pub fn max_clients(&self, user: &str) -> Option<usize> {
        self.users.find(user)?.max_clients
    }

    /// How the proxy logs in at the database for this user.
    pub fn database_login(&self, user: &str) -> Option<DatabaseLogin> {
        let found = self.users.find(user)?;
        let proof = match (found.database_auth, &found.password, &self.signer) {
            (DatabaseAuth::Iam, _, Some(signer)) => DatabaseProof::Token(Arc::clone(signer)),
            (DatabaseAuth::Password, Some(password), _) => DatabaseProof::Password(Arc::clone(password)),
            (DatabaseAuth::Iam, _, None) | (DatabaseAuth::Password, None, _) => DatabaseProof::Nothing,
        };
        Some(DatabaseLogin { user: found.database_user.clone(), proof })
    }

    /// The same, with what this user proves made anew of its password as it is now.
    pub fn renewed(&self, user: &str) -> Result<Self, AuthError> {
        Ok(Self { users: self.users.renewed(user, &self.mock_key)?, ..self.clone() })
    }

    /// A user's password.
    pub fn password(&self, user: &str) -> Option<&Arc<Rotating>> {
        self.users.find(user)?.password.as_ref()
    }

    /// The secrets of the access keys that tokens are signed with, with the keys' ids.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Arc<Rotating>)> {
        self.iam.iter().flat_map(|iam| iam.secrets())
    }

    /// The access key that this token names, and its secrets. `None`: nobody knows it.
    pub fn key_of(&self, token: &Password) -> Option<(&str, impl Iterator<Item = &Arc<Rotating>>)> {
        self.iam.as_ref()?.key_of(token.expose())
    }

    /// The users that have a password, with it.
    pub fn passwords(&self) -> impl Iterator<Item = (&str, &Arc<Rotating>)> {
        self.users.passwords()
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("users", &self.users).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ITERATIONS;

    fn user(name: &str, password: Option<&str>, endpoints: Option<&[&str]>) -> UserConfig {
        UserConfig {
            native_password: false,
            name: name.to_owned(),
            auth: AuthMethod::ScramSha256,
            certificate_names: vec![name.to_owned()],
            password: password.map(|text| Secret::new(text.to_owned())),
            database_user: format!("{name}_rw"),
            database_auth: DatabaseAuth::Password,
            endpoints: endpoints.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            max_clients: None,
            max_connections: None,
        }
    }

    fn scram(credentials: Credentials) -> crate::protocol::ScramSecret {
        let Proof::Scram(secret) = credentials.proof else { panic!("not SCRAM") };
        secret
    }

    #[test]
    fn only_known_users_at_their_endpoints_are_known() {
        let users = [user("app", Some("pw"), None), user("reporter", Some("pw"), Some(&["reports"]))];
        let authenticator = Authenticator::new(&users, &[], None, None).unwrap();
        for (endpoint, name, known) in [
            ("orders", "app", true),
            ("reports", "app", true),
            ("reports", "reporter", true),
            ("orders", "reporter", false),
            ("orders", "nobody", false),
            ("orders", "App", false),
            ("orders", "", false),
        ] {
            let credentials = authenticator.credentials(endpoint, name, Knowledge::Verifier);
            assert_eq!(credentials.known, known, "{endpoint} {name}");
            // Nothing the client sees tells the two apart, or changes from one try to the next.
            let secret = scram(credentials);
            assert_eq!((secret.salt.len(), secret.iterations), (16, 4096));
            assert_eq!(secret.salt, scram(authenticator.credentials(endpoint, name, Knowledge::Verifier)).salt);
        }
        let app = scram(authenticator.credentials("reports", "app", Knowledge::Verifier));
        let reporter = scram(authenticator.credentials("reports", "reporter", Knowledge::Verifier));
        assert_ne!(app.stored_key, reporter.stored_key, "the same password, another salt");
        let derived = ScramSecret::derive(b"pw", &app.salt, ITERATIONS);
        assert_eq!((derived.stored_key, derived.server_key), (app.stored_key, app.server_key));
    }

    /// A salt that changes when the configuration is read again, or is another at the next endpoint, is a user's who exists.
    #[test]
    fn salts_tell_nobody_who_exists() {
        let users = [user("app", Some("pw"), None), user("reporter", Some("pw"), Some(&["reports"]))];
        let first = Authenticator::new(&users, &[], None, None).unwrap();
        let reloaded = first.successor(&users, &[], None, None).unwrap();
        let without = first.successor(&[], &[], None, None).unwrap();
        let renewed = first.renewed("reporter").unwrap();
        for name in ["app", "reporter", "nobody"] {
            let salts = [&first, &reloaded, &without, &renewed].map(|authenticator| {
                ["orders", "reports"]
                    .map(|endpoint| scram(authenticator.credentials(endpoint, name, Knowledge::Verifier)).salt)
            });
            assert!(salts.iter().flatten().all(|salt| *salt == salts[0][0]), "{name} {salts:?}");
        }
        // With a restart all of them change.
        let restarted = Authenticator::new(&users, &[], None, None).unwrap();
        for name in ["app", "nobody"] {
            assert_ne!(
                scram(restarted.credentials("orders", name, Knowledge::Verifier)).salt,
                scram(first.credentials("orders", name, Knowledge::Verifier)).salt
            );
        }
    }

    #[test]
    fn the_database_is_told_another_name() {
        let authenticator = Authenticator::new(&[user("app", Some("pw"), None)], &[], None, None).unwrap();
        let login = authenticator.database_login("app").unwrap();
        let DatabaseProof::Password(password) = login.proof else { panic!("not the password") };
        assert_eq!((login.user.as_str(), password.current().expose()), ("app_rw", "pw"));
        assert!(authenticator.database_login("nobody").is_none());
    }

    #[test]
    fn a_new_password_is_proven_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "old").unwrap();
        let text = format!(
            "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\n\
             [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n\
             [target_group.health]\nuser='m'\npassword={{ value='m' }}\n\
             [[user]]\nname='u'\npassword={{ file='{}' }}\n",
            file.display()
        );
        let config = crate::config::Config::parse(&text, "proxy.toml", &|_| None).unwrap();
        let authenticator = Authenticator::new(&config.users, &config.endpoints, None, None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::fs::write(&file, "new").unwrap();
        let (_, password) = authenticator.passwords().next().unwrap();
        assert!(runtime.block_on(password.refresh("u")));
        let renewed = authenticator.renewed("u").unwrap();
        for (authenticator, password) in [(&authenticator, "old"), (&renewed, "new")] {
            let shown = scram(authenticator.credentials("e", "u", Knowledge::Verifier));
            let derived = ScramSecret::derive(password.as_bytes(), &shown.salt, ITERATIONS);
            assert_eq!(derived.stored_key, shown.stored_key);
        }
        // What is no password can't become one.
        std::fs::write(&file, "md50123456789abcdef0123456789abcdef").unwrap();
        assert!(runtime.block_on(password.refresh("u")));
        assert!(authenticator.renewed("u").is_err());
    }

    #[test]
    fn useless_passwords_are_refused_without_being_shown() {
        for (password, words) in [
            (Some("SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"), "password's hash"),
            (Some("md50123456789abcdef0123456789abcdef"), "password's hash"),
            (None, "has no `password`"),
        ] {
            let error = Authenticator::new(&[user("app", password, None)], &[], None, None).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(words) && text.contains("app"), "{text}");
            assert!(!text.contains("c2FsdA") && !text.contains("0123"), "{text}");
        }
        assert!(Authenticator::new(&[user("app", Some("md5 is old"), None)], &[], None, None).is_ok());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let authenticator = Authenticator::new(&[user("app", Some("hunter2"), None)], &[], None, None).unwrap();
        let text = format!("{authenticator:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
