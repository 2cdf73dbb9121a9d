//! How the proxy logs in at a target group's databases for its users, and what becomes of passwords that change.
//!
//! A password that a database has refused is read again where it came from; one with `refresh`, as often as that says.
//! Where it is another, clients prove the new one from then on, and the refused login is tried once more.

use crate::auth::DatabaseProof;
use crate::config::{TargetAddress, TargetTlsMode};
use crate::pool::connect::Logins;
use crate::protocol::{LoginSecret, Password};
use crate::session::Access;
use crate::topology::Lookup;
use arc_swap::ArcSwap;
use std::pin::Pin;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The logins of one target group.
pub(super) struct GroupLogins {
    access: Arc<ArcSwap<Access>>,
    lookup: Option<Arc<Lookup>>,
    /// What tokens are made for; `None`: a database that this group has not been speaking to by TCP and `verify-full` since
    /// it was started. Whatever a reload says, a token goes to no other.
    place: Option<(String, u16)>,
    /// Whoever answers at the address may be anybody: it gets no password as it is.
    is_anybody: bool,
}

impl GroupLogins {
    /// For the group as it was started.
    pub(super) fn new(
        access: Arc<ArcSwap<Access>>,
        lookup: Option<Arc<Lookup>>,
        address: &TargetAddress,
        tls: TargetTlsMode,
    ) -> Self {
        let place = match address {
            TargetAddress::Tcp { host, port } if tls == TargetTlsMode::VerifyFull => Some((host.clone(), *port)),
            TargetAddress::Tcp { .. } | TargetAddress::Unix(_) => None,
        };
        let is_anybody = matches!(address, TargetAddress::Tcp { .. }) && tls == TargetTlsMode::Require;
        Self { access, lookup, place, is_anybody }
    }
}

impl Logins for GroupLogins {
    fn login(&self, user: &str) -> Option<(String, Option<LoginSecret>)> {
        let Some(login) = self.access.load().authenticator.database_login(user) else {
            // By what its client has proven itself; after the database has refused that, by nothing.
            return self.lookup.as_ref().map(|lookup| (user.to_owned(), lookup.secret(user)));
        };
        let password = match login.proof {
            DatabaseProof::Nothing => None,
            DatabaseProof::Password(password) => Some(Password::new(password.current().expose())),
            DatabaseProof::Token(signer) => {
                if self.place.is_none() {
                    tracing::warn!(
                        user,
                        "no token is sent: the target group was not started with tls = \"verify-full\", which takes a restart"
                    );
                }
                self.place.as_ref().and_then(|(host, port)| signer.token(host, *port, &login.user))
            }
        };
        let secret = if self.is_anybody { LoginSecret::Unsaid } else { LoginSecret::Password };
        Some((login.user, password.map(secret)))
    }

    fn refused<'a>(&'a self, user: &'a str, secret: Option<LoginSecret>) -> Pin<Box<dyn Future<Output = bool> + 'a>> {
        Box::pin(async move {
            let login = self.access.load().authenticator.database_login(user);
            let Some(login) = login else {
                return self.lookup.as_ref().is_some_and(|lookup| lookup.refused(user, secret.as_ref()));
            };
            let Some(LoginSecret::Password(refused) | LoginSecret::Unsaid(refused)) = secret else { return false };
            let DatabaseProof::Password(password) = login.proof else { return false };
            let Ok(refused) = std::str::from_utf8(refused.expose()) else { return false };
            let is_new = password.renew(refused, user).await;
            if is_new {
                Access::prove_anew(&self.access, user, &password);
            }
            is_new
        })
    }
}

/// Reads passwords and access keys again as often as their `refresh` says, until it is dropped.
pub(super) struct Refreshing {
    /// End when this is dropped.
    _tasks: JoinSet<()>,
}

impl Refreshing {
    /// Call inside a `LocalSet`.
    pub(super) fn start(access: &Arc<ArcSwap<Access>>) -> Self {
        let mut tasks = JoinSet::new();
        for (user, password) in access.load().authenticator.passwords() {
            let Some(every) = password.current().refresh() else { continue };
            let (access, user, password) = (Arc::clone(access), user.to_owned(), Arc::clone(password));
            tasks.spawn_local(async move {
                loop {
                    tokio::time::sleep(every).await;
                    if password.refresh(&user).await {
                        Access::prove_anew(&access, &user, &password);
                    }
                }
            });
        }
        for (id, secret) in access.load().authenticator.keys() {
            let Some(every) = secret.current().refresh() else { continue };
            let (id, secret) = (id.to_owned(), Arc::clone(secret));
            tasks.spawn_local(async move {
                loop {
                    tokio::time::sleep(every).await;
                    secret.refresh(&id).await;
                }
            });
        }
        Self { _tasks: tasks }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::auth::Authenticator;
    use crate::config::Config;
    use std::path::PathBuf;

    /// Whether the machine gets a password that it may say as it is.
    #[test]
    fn no_password_is_said_to_anybody_who_answers() {
        let text = "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\n\
                    [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n\
                    [target_group.health]\nuser='m'\npassword={ value='m' }\n\
                    [[user]]\nname='u'\npassword={ value='p' }\n";
        let config = Config::parse(text, "proxy.toml", &|_| None).unwrap();
        let authenticator = Authenticator::new(&config.users, &config.endpoints, None, None).unwrap();
        let access = Arc::new(ArcSwap::from_pointee(Access { authenticator, tls: None }));
        let (tcp, unix) = (config.target_groups[0].targets[0].clone(), TargetAddress::Unix(PathBuf::from("/s")));
        for (address, tls, may_be_said) in [
            (&tcp, TargetTlsMode::VerifyFull, true),
            (&tcp, TargetTlsMode::VerifyCa, true),
            (&tcp, TargetTlsMode::Require, false),
            // Without TLS the machine says none by itself.
            (&tcp, TargetTlsMode::Off, true),
            (&unix, TargetTlsMode::Require, true),
        ] {
            let logins = GroupLogins::new(Arc::clone(&access), None, address, tls);
            let (_, secret) = logins.login("u").unwrap();
            match secret.unwrap() {
                LoginSecret::Password(_) => assert!(may_be_said, "{tls:?}"),
                LoginSecret::Unsaid(_) => assert!(!may_be_said, "{tls:?}"),
                LoginSecret::Scram(_) | LoginSecret::Md5(_) => panic!("not the password"),
            }
        }
    }
}
