//! A configuration that was read anew, put to work in a running proxy.
//!
//! What decides who may come in is exchanged as a whole: users, their secrets and limits, `[iam]` and its identities, the
//! endpoints' `hostnames`, certificates. Clients that are here stay, with what they came in by; logins that are under way
//! end by what they began with. What can't be exchanged yet is named in the log. A configuration that is wrong changes
//! nothing.

use super::RunError;
use super::either::AnyPools;
use crate::admin::Readiness;
use crate::auth::Authenticator;
use crate::config::{Config, ConfigErrors};
use crate::net::tls;
use crate::postgres::Postgres;
use crate::protocol::Protocol;
use crate::session::Access;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a configuration says about who may come in, where nothing or this one has run before. Reads the certificates' files.
pub(super) fn access(config: &Config, before: Option<&Access>) -> Result<Access, RunError> {
    let tls = config.tls.as_ref().map(|tls| tls::server_config(tls, Postgres::DIRECT_TLS)).transpose()?;
    let (iam, access_key) = (config.iam.as_ref(), config.access_key.as_ref());
    let (users, endpoints) = (&config.users, &config.endpoints);
    let authenticator = match before {
        Some(before) => before.authenticator.successor(users, endpoints, iam, access_key)?,
        None => Authenticator::new(users, endpoints, iam, access_key)?,
    };
    Ok(Access { authenticator, tls })
}

/// The users' own limits of database connections.
pub(super) fn connection_limits(config: &Config) -> BTreeMap<String, usize> {
    config.users.iter().filter_map(|user| Some((user.name.clone(), user.max_connections?))).collect()
}

/// Holds what a running proxy was started with, and what can be exchanged of it.
pub(super) struct Reloader {
    started_with: Config,
    access: Arc<ArcSwap<Access>>,
    pools: Vec<AnyPools>,
    readiness: Arc<Readiness>,
}

impl Reloader {
    pub(super) fn new(
        started_with: Config,
        access: Arc<ArcSwap<Access>>,
        pools: Vec<AnyPools>,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self { started_with, access, pools, readiness }
    }

    /// Takes what was read; says in the log what came of it, and `/readyz` whether it was good: a proxy that would not
    /// start again is to be looked at before that is needed.
    pub(super) async fn take(&self, read: Result<Config, ConfigErrors>) {
        let made = self.make(read).await;
        self.readiness.config_valid(made.is_some());
        let Some((config, access)) = made else { return };
        let before = self.access.swap(Arc::new(access));
        for pools in &self.pools {
            pools.set_user_limits(connection_limits(&config));
        }
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        for (user, group) in looked_up_now(&before.authenticator, &config, &self.started_with) {
            tracing::warn!(
                user,
                group,
                "the user is listed no longer, and looked up in the database instead (auth_query): whoever has the role's \
                 password there comes in; to keep it out, take that or LOGIN away from the role"
            );
        }
        tracing::info!(users = config.users.len(), "reloaded: users, [iam], hostnames and certificates");
        let kept = self.kept(&config);
        if !kept.is_empty() {
            tracing::warn!(tables = kept.join(" "), "what has changed in these tables takes a restart");
        }
    }

    /// What those who come in from now on are met with. `None`: nothing is changed; the log says why.
    async fn make(&self, read: Result<Config, ConfigErrors>) -> Option<(Arc<Config>, Access)> {
        let wrong = |error| tracing::error!(%error, "nothing is reloaded: the configuration is wrong");
        let config = Arc::new(read.map_err(wrong).ok()?);
        let running = self.access.load_full();
        // Off this thread, which lets clients in meanwhile: secrets take a millisecond each.
        let made = {
            let (config, running) = (Arc::clone(&config), Arc::clone(&running));
            tokio::task::spawn_blocking(move || access(&config, Some(&running))).await
        };
        let ended = |_| tracing::error!("nothing is reloaded: the thread that should have done it has ended");
        let mut access =
            made.map_err(ended).ok()?.map_err(|error| tracing::error!(%error, "nothing is reloaded")).ok()?;
        if access.tls.is_none() {
            // Endpoints go on offering TLS until a restart, and must have something to show.
            access.tls.clone_from(&running.tls);
        }
        Some((config, access))
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

/// Users that were listed, are so no longer, and can come in by a group's `auth_query` now, with the group. In order.
fn looked_up_now<'a>(
    before: &'a Authenticator,
    now: &Config,
    started_with: &'a Config,
) -> BTreeSet<(&'a str, &'a str)> {
    let gone = before.listed().filter(|name| !now.users.iter().any(|user| user.name == *name));
    let groups = started_with.target_groups.iter().filter(|group| group.auth_query.is_some());
    let groups: Vec<&str> = groups.map(|group| group.name.as_str()).collect();
    gone.flat_map(|user| groups.iter().map(move |group| (user, *group))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn users_that_vanish_from_the_list_may_be_looked_up() {
        let config = |users: &[&str]| {
            let group = |name: &str, more: &str| {
                format!(
                    "[[endpoint]]\nname='{name}'\nlisten='unix:/run/{name}/.s.PGSQL.1'\ntarget_group='{name}'\ntls='off'\n\
                     [[target_group]]\nname='{name}'\nengine='postgres'\ntargets=['db:1']\n\
                     [target_group.health]\nuser='m'\npassword={{ value='m' }}\n{more}"
                )
            };
            let asks = "[target_group.auth_query]\nenabled=true\nuser='a'\npassword={ value='a' }\n";
            let users = users.iter().map(|name| format!("[[user]]\nname='{name}'\npassword={{ value='p' }}\n"));
            let text = group("asks", asks) + &group("does-not", "") + &users.collect::<String>();
            Config::parse(&text, "proxy.toml", &|_| None).unwrap()
        };
        let started = config(&["stays", "goes", "went"]);
        let before = access(&started, None).unwrap().authenticator;
        let found = looked_up_now(&before, &config(&["stays", "comes"]), &started);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("goes", "asks"), ("went", "asks")]);
    }
}
