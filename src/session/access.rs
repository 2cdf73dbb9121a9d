//! What a running proxy lets clients in by, and how that changes while it runs.
//!
//! It is exchanged as a whole by a reload, and for one user when its password has become another one. A password is read
//! again when clients are refused with it, too: they may have heard of a new one before the proxy has.

use crate::auth::{Authenticator, Rotating};
use crate::net::tls::ServerTls;
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
}
