//! What a running proxy lets clients in by, and how that changes while it runs.
//!
//! It is exchanged as a whole by a reload, and for one user when its password has become another one. A password, or an access
//! key, is read again when clients are refused with it, too: they may have heard of a new one before the proxy has.

use crate::auth::{Authenticator, Rotating};
use crate::net::tls::ServerTls;
use crate::protocol::Password;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// What a reload changes for those who come in after it.
#[derive(Clone)]
pub struct Access {
    /// Who may come in.
    pub authenticator: Authenticator,
    /// What clients are shown.
    pub tls: Option<ServerTls>,
}

impl Access {
    /// From now on clients prove this password as it is now.
    pub fn prove_anew(access: &ArcSwap<Self>, user: &str, password: &Arc<Rotating>) {
        access.rcu(|now| {
            // A reload may have been faster; what it has read is newer.
            if now.authenticator.password(user).is_none_or(|known| !Arc::ptr_eq(known, password)) {
                return Arc::clone(now);
            }
            match now.authenticator.renewed(user) {
                Ok(authenticator) => Arc::new(Self { authenticator, ..Self::clone(now) }),
                Err(error) => {
                    tracing::warn!(user, %error, "clients go on proving the old password");
                    Arc::clone(now)
                }
            }
        });
    }

    /// A client was refused: its password may be newer than ours, which is read again then, behind its back. The next
    /// one is held to what was read. Call inside a `LocalSet`.
    pub(super) fn refused(access: &Arc<ArcSwap<Self>>, user: &str) {
        let now = access.load();
        let Some(password) = now.authenticator.password(user).filter(|password| password.may_be_read()) else { return };
        let (access, user, password) = (Arc::clone(access), user.to_owned(), Arc::clone(password));
        tokio::task::spawn_local(async move {
            if password.renew(password.current().expose(), &user).await {
                Self::prove_anew(&access, &user, &password);
            }
        });
    }

    /// A client's token was refused that may have been signed with a newer key than ours: the same. A key and its session token
    /// become others together. Call inside a `LocalSet`.
    pub(super) fn key_refused(&self, token: &Password) {
        let Some((id, secrets)) = self.authenticator.key_of(token) else { return };
        let (id, secrets) = (id.to_owned(), secrets.cloned().collect::<Vec<_>>());
        if !secrets.iter().any(|secret| secret.may_be_read()) {
            return;
        }
        for secret in secrets {
            let id = id.clone();
            tokio::task::spawn_local(async move { secret.renew(secret.current().expose(), &id).await });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::{Keys, make_token};
    use crate::config::{Config, Secret};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};
    use tokio::task::LocalSet;

    #[tokio::test]
    async fn a_key_is_read_again_with_its_session_token_when_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("key", "old-secret");
        write("token", "old-session-secret");
        write(
            "identities.toml",
            "[[identity]]\naccess_key_id = 'AKIAEXAMPLE'\nsecret_access_key = { file = 'key' }\n\
             session_token = { file = 'token' }\n\
             [[identity.statement]]\neffect = 'Allow'\naction = '*'\nresource = '*'\n",
        );
        let identities = folder.path().join("identities.toml");
        fs::set_permissions(&identities, PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\nhostnames=['h']\n\
             [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n\
             [target_group.health]\nuser='m'\npassword={{ value='m' }}\n\
             [[user]]\nname='u'\nauth=['iam']\n\
             [iam]\nregion='r'\naccount='1'\nresource_id='p'\nidentities_file='{}'\n",
            identities.display()
        );
        let config = Config::parse(&text, folder.path().join("proxy.toml").to_str().unwrap(), &|_| None).unwrap();
        let authenticator = Authenticator::new(&config.users, &config.endpoints, config.iam.as_ref(), None).unwrap();
        let access = Access { authenticator, tls: None };
        let token = |id: &str, key: &str, session: &str| {
            let keys = Keys {
                access_key_id: id.to_owned(),
                secret_access_key: Secret::new(key.to_owned()),
                session_token: Some(Secret::new(session.to_owned())),
            };
            Password::new(make_token(&keys, "h", 1, "u", "r", SystemTime::now()).unwrap())
        };
        let judge = |token: &Password| access.authenticator.judge("e", "u", token, SystemTime::now());
        let old = token("AKIAEXAMPLE", "old-secret", "old-session-secret");
        let new = token("AKIAEXAMPLE", "new-secret", "new-session-secret");
        assert_eq!(judge(&old), Ok(()));
        write("key", "new-secret");
        write("token", "new-session-secret");
        let tasks = LocalSet::new();
        tasks
            .run_until(async {
                // Nobody's key makes nothing be read.
                access.key_refused(&token("AKIAOTHER", "new-secret", "new-session-secret"));
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(judge(&new).unwrap_err().is_about_the_key());
                access.key_refused(&new);
                while judge(&new).is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        assert!(judge(&old).unwrap_err().is_about_the_key());
        // Not again for a while.
        write("key", "newest-secret");
        let newest = token("AKIAEXAMPLE", "newest-secret", "new-session-secret");
        tasks
            .run_until(async {
                access.key_refused(&newest);
                tokio::time::sleep(Duration::from_millis(50)).await;
            })
            .await;
        assert!(judge(&newest).is_err());
    }
}
