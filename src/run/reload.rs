//! A configuration that was read anew, put to work in a running proxy.
//!
//! What decides who may come in is exchanged as a whole: users and their secrets, `[iam]` and its identities, the
//! endpoints' `hostnames`, certificates. Clients that are here stay, with what they came in by; logins that are under way
//! end by what they began with. What can't be exchanged yet is named in the log. A configuration that is wrong changes
//! nothing.

use super::RunError;
use crate::admin::Readiness;
use crate::auth::Authenticator;
use crate::config::{Config, ConfigErrors};
use crate::net::tls;
use crate::postgres::Postgres;
use crate::protocol::Protocol;
use crate::session::Access;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// What a configuration says about who may come in. Reads the certificates' files.
pub(super) fn access(config: &Config) -> Result<Access, RunError> {
    let tls = config.tls.as_ref().map(|tls| tls::server_config(tls, Postgres::DIRECT_TLS)).transpose()?;
    let (iam, access_key) = (config.iam.as_ref(), config.access_key.as_ref());
    let authenticator = Authenticator::new(&config.users, &config.endpoints, iam, access_key)?;
    Ok(Access { authenticator, tls })
}

/// Holds what a running proxy was started with, and what can be exchanged of it.
pub(super) struct Reloader {
    started_with: Config,
    access: Arc<ArcSwap<Access>>,
    readiness: Arc<Readiness>,
}

impl Reloader {
    pub(super) fn new(started_with: Config, access: Arc<ArcSwap<Access>>, readiness: Arc<Readiness>) -> Self {
        Self { started_with, access, readiness }
    }

    /// Takes what was read; says in the log what came of it, and `/readyz` whether it was good: a proxy that would not
    /// start again is to be looked at before that is needed.
    pub(super) fn take(&self, read: Result<Config, ConfigErrors>) {
        self.readiness.config_valid(false);
        let config = match read {
            Ok(config) => config,
            Err(error) => return tracing::error!(%error, "nothing is reloaded: the configuration is wrong"),
        };
        let access = match access(&config) {
            Ok(access) => access,
            Err(error) => return tracing::error!(%error, "nothing is reloaded"),
        };
        self.readiness.config_valid(true);
        self.access.store(Arc::new(access));
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(users = config.users.len(), "reloaded: users, [iam], hostnames and certificates");
        let kept = self.kept(&config);
        if !kept.is_empty() {
            tracing::warn!(tables = kept.join(" "), "what has changed in these tables takes a restart");
        }
    }

    /// The tables that have changed and were left as they are.
    fn kept(&self, new: &Config) -> Vec<&'static str> {
        let old = &self.started_with;
        let endpoints = |config: &Config| {
            let mut endpoints = config.endpoints.clone();
            endpoints.iter_mut().for_each(|endpoint| endpoint.hostnames.clear());
            endpoints
        };
        [
            ("[[endpoint]]", endpoints(old) != endpoints(new)),
            ("[[target_group]]", old.target_groups != new.target_groups),
            ("[admin]", old.admin != new.admin),
            ("[log]", old.log != new.log),
            ("[runtime]", old.runtime != new.runtime),
        ]
        .into_iter()
        .filter_map(|(table, has_changed)| has_changed.then_some(table))
        .collect()
    }
}
