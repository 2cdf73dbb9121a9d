//! Both protocols side by side: what there is for each target group and each endpoint, whichever it speaks.

use crate::auth::Clients;
use crate::config::{EndpointConfig, EndpointTls, TargetGroupConfig};
use crate::listener::Arrival;
use crate::mysql::MySql;
use crate::net::quiet::Quiet;
use crate::net::rate::Rate;
use crate::pool::Pools;
use crate::postgres::Postgres;
use crate::protocol::{PasswordKey, Protocol, TlsOffer};
use crate::session::{self, Access, CancelKeys, Endpoint, Greetings, Rules, Visitor, Worker};
use crate::topology::Lookup;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// A target group's connections, and what is known of its targets.
pub(super) struct Group {
    pub(super) pools: AnyPools,
    /// Its users that stand in the database alone.
    pub(super) lookup: Option<Arc<Lookup>>,
    /// See [`Endpoint::version`].
    pub(super) version: Version,
}

/// A target's version in its own words.
pub(super) type Version = Arc<ArcSwapOption<Arc<str>>>;

/// A target group's connections.
#[derive(Clone)]
pub(super) enum AnyPools {
    Postgres(Arc<Pools<Postgres>>),
    MySql(Arc<Pools<MySql>>),
}

impl AnyPools {
    /// See [`Pools::set_user_limits`].
    pub(super) fn set_user_limits(&self, limits: BTreeMap<String, usize>) {
        match self {
            Self::Postgres(pools) => pools.set_user_limits(limits),
            Self::MySql(pools) => pools.set_user_limits(limits),
        }
    }
}

/// What all endpoints share.
pub(super) struct Shared {
    pub(super) access: Arc<ArcSwap<Access>>,
    pub(super) clients: Arc<Clients>,
    pub(super) cancel_keys: Arc<CancelKeys>,
    pub(super) statement_key: [u8; 16],
    pub(super) password_key: Option<Arc<PasswordKey>>,
}

/// What clients of an endpoint are served by.
#[derive(Clone)]
pub(super) enum AnyEndpoint {
    Postgres(Arc<Endpoint<Postgres>>),
    MySql(Arc<Endpoint<MySql>>),
}

impl AnyEndpoint {
    /// Of this endpoint and its target group; `places`: theirs in the configuration.
    pub(super) fn new(
        shared: &Shared,
        places: (usize, usize),
        endpoint: &EndpointConfig,
        (config, group): (&TargetGroupConfig, &Group),
    ) -> Self {
        let parts = (places, endpoint, config, group);
        match &group.pools {
            AnyPools::Postgres(pools) => Self::Postgres(Arc::new(made(shared, parts, pools))),
            AnyPools::MySql(pools) => Self::MySql(Arc::new(made(shared, parts, pools))),
        }
    }

    /// A client has come.
    pub(super) fn admit(&self, worker: &Rc<Worker>, arrival: Arrival, clients: &mut JoinSet<()>) {
        let Arrival { stream, client_id, refusal, pending, claim, .. } = arrival;
        let Ok(stream) = stream.attach() else { return };
        let visitor = Visitor { stream, client_id, refusal, pending };
        let worker = Rc::clone(worker);
        match self {
            Self::Postgres(endpoint) => {
                clients.spawn_local(session::serve(worker, Arc::clone(endpoint), visitor, claim))
            }
            Self::MySql(endpoint) => clients.spawn_local(session::serve(worker, Arc::clone(endpoint), visitor, claim)),
        };
    }
}

fn made<P: Protocol>(
    shared: &Shared,
    (places, endpoint, config, group): ((usize, usize), &EndpointConfig, &TargetGroupConfig, &Group),
    pools: &Arc<Pools<P>>,
) -> Endpoint<P> {
    Endpoint {
        name: endpoint.name.clone(),
        places,
        tls: tls_offer(endpoint),
        login_timeout: endpoint.login_timeout,
        rate: endpoint.max_logins_per_second.map(|limit| Rate::new(limit, Instant::now())),
        quiet: Quiet::default(),
        rules: Rules {
            pool_mode: config.pool.pool_mode,
            transaction_idle_timeout: config.pool.transaction_idle_timeout,
            idle_client_timeout: endpoint.idle_client_timeout,
            pin_policy: config.pool.pin_on,
            pin_idle_timeout: config.pool.pin_idle_timeout,
            query_timeout: config.pool.query_timeout,
            transaction_max: config.pool.transaction_max,
        },
        pools: Arc::clone(pools),
        access: Arc::clone(&shared.access),
        clients: Arc::clone(&shared.clients),
        lookup: group.lookup.clone(),
        greetings: Greetings::default(),
        cancel_keys: Arc::clone(&shared.cancel_keys),
        version: Arc::clone(&group.version),
        statement_key: shared.statement_key,
        password_key: shared.password_key.clone(),
    }
}

fn tls_offer(endpoint: &EndpointConfig) -> TlsOffer {
    match endpoint.tls {
        EndpointTls::Required => TlsOffer::Required,
        EndpointTls::Optional => TlsOffer::Optional,
        EndpointTls::Off => TlsOffer::Off,
    }
}
