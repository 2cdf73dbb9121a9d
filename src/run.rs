//! Builds everything that is shared, starts the threads, and ends them: with `run/either.rs` the only place that names a protocol.
//!
//! ```text
//!   main thread: listeners, logins at databases, probes, admin        worker threads: sessions
//!        accept --- a client's socket ---> mailbox of the worker with the fewest clients
//! ```

mod either;
mod logins;
mod reload;

use crate::admin::{self, Readiness};
use crate::auth::{self, AuthError};
use crate::config::{
    AuthQueryConfig, Config, ConfigErrors, ConnectionLimit, EndpointConfig, EndpointTls, Engine, TargetAddress,
    TargetGroupConfig,
};
use crate::listener::{Arrival, BindError, Doors, Workers};
use crate::metrics::{EndpointName, GroupMetrics, GroupName, Metrics};
use crate::mysql::MySql;
use crate::net::Way;
use crate::net::tls::{self, TlsError};
use crate::pool::{self, Dial, Pools};
use crate::protocol::{PasswordKey, Protocol};
use crate::session::{Access, CancelKeys, Orders, Worker};
use crate::topology::{
    self, Account, CONTROL_CONNECTIONS_MAX, Control, ControlError, Lookup, Postgres, Prober, Target,
};
use arc_swap::ArcSwap;
use either::{AnyEndpoint, AnyPools, Group, Shared, Version};
use logins::{GroupLogins, Refreshing};
use reload::Reloader;
use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

/// Between two looks at each pool: waiters' time is up this much late at most.
const TICK: Duration = Duration::from_millis(50);
/// For telling clients that are cut off why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Files besides the sockets of clients and databases: logs, listeners, runtimes.
const FILES_BESIDE: u64 = 100;

/// Why the proxy can't start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The users.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An endpoint's address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener.
    #[error("[admin] can't listen on {address}: {source}")]
    Admin {
        /// The address.
        address: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// Probes.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Threads, runtimes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// `sluicegate check` found something.
    #[error("{0} of the checks failed")]
    Check(usize),
}

/// Runs the proxy until `shutdown` completes and its clients have gone, or `shutdown_timeout` is over; when it completes
/// a second time those who are left are cut off. `ready` is called
/// once, with the addresses, when clients can connect. `reload` completes each time the configuration has been read
/// anew; it may be dropped and called again. Call outside of any runtime.
pub fn run(
    config: Config,
    shutdown: impl AsyncFnMut(),
    reload: impl AsyncFnMut() -> Result<Config, ConfigErrors>,
    ready: impl FnOnce(&Addresses),
) -> Result<(), RunError> {
    raise_file_limit(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(config, shutdown, reload, ready))
}

/// Where a running proxy listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Endpoint's name and each of its addresses.
    pub endpoints: Vec<(String, Vec<String>)>,
    /// The admin listener's.
    pub admin: Option<std::net::SocketAddr>,
}

async fn serve(
    config: Config,
    mut shutdown: impl AsyncFnMut(),
    mut reload: impl AsyncFnMut() -> Result<Config, ConfigErrors>,
    ready: impl FnOnce(&Addresses),
) -> Result<(), RunError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let workers = match config.runtime.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let metrics = Arc::new(metrics(&config, workers + 1)?);
    let readiness = Arc::new(Readiness::default());
    let access = Arc::new(ArcSwap::from_pointee(reload::access(&config, None)?));
    let statement_key = rand::random();

    let mut groups: Vec<Group> = Vec::new();
    for (number, group) in config.target_groups.iter().enumerate() {
        // The main thread's slots stand behind the workers'.
        let counts = metrics.thread(workers).and_then(|slots| slots.group(number)).unwrap_or_default();
        let group = start_group(group, &access, statement_key, counts)?;
        group.pools.set_user_limits(reload::connection_limits(&config));
        groups.push(group);
    }
    // One process is all there is so far; several would each get a number of their own.
    let (cancel_keys, orders) = CancelKeys::new(0, workers);
    let password_key = password_key(&config)?;
    let shared =
        Shared { access: Arc::clone(&access), clients: Arc::default(), cancel_keys, statement_key, password_key };
    let mut endpoints = Vec::new();
    for (number, endpoint) in config.endpoints.iter().enumerate() {
        let place = config.target_groups.iter().position(|group| group.name == endpoint.target_group);
        let group = place.and_then(|place| Some((place, config.target_groups.get(place)?, groups.get(place)?)));
        let Some((place, group_config, group)) = group else { continue };
        endpoints.push(AnyEndpoint::new(&shared, (number, place), endpoint, (group_config, group)));
    }
    let endpoints: Arc<[AnyEndpoint]> = endpoints.into();

    let (stop_listening, stopped_listening) = watch::channel(false);
    let (cut_off, cut) = watch::channel(false);
    let mut mailboxes = Vec::new();
    let mut threads = Vec::new();
    for (number, orders) in orders.into_iter().enumerate() {
        let (mailbox, arrivals) = mpsc::unbounded_channel();
        mailboxes.push(mailbox);
        threads.push(start_worker(
            number,
            (arrivals, orders),
            &endpoints,
            &metrics,
            (config.runtime.shutdown_timeout, cut.clone()),
        )?);
    }
    let mailboxes = Workers::new(mailboxes);
    let mut addresses = Addresses { endpoints: Vec::new(), admin: None };
    let mut doors = JoinSet::new();
    let mut opened = Vec::new();
    for (number, endpoint) in config.endpoints.iter().enumerate() {
        let counts = metrics.thread(workers).and_then(|slots| slots.endpoint(number)).unwrap_or_default();
        let door = Arc::new(Doors::open(number, endpoint, counts)?);
        addresses.endpoints.push((endpoint.name.clone(), door.addresses()));
        opened.push(door);
    }
    if let Some(address) = config.admin.listen {
        let bound =
            admin::bind(address).await.map_err(|source| RunError::Admin { address: address.to_string(), source })?;
        addresses.admin = bound.local_addr().ok();
        let serving = admin::serve(bound, config.admin.hostnames.clone(), Arc::clone(&metrics), Arc::clone(&readiness));
        tokio::task::spawn_local(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the admin listener has ended");
            }
        });
    }
    for door in opened {
        doors.spawn_local(door.run(mailboxes.clone(), stopped_listening.clone()));
    }
    readiness.listening();
    for (endpoint, listening) in &addresses.endpoints {
        tracing::info!(endpoint, addresses = listening.join(" "), "listening");
    }
    let mut announce = Some(ready);
    let mut refreshing = Refreshing::start(&access);
    let pools = groups.into_iter().map(|group| group.pools).collect();
    let reloader = Reloader::new(config, Arc::clone(&access), pools, Arc::clone(&readiness));
    let mut first = Box::pin(shutdown());
    loop {
        tokio::select! {
            biased;
            () = &mut first => break,
            read = reload() => {
                reloader.take(read).await;
                // The users' passwords may be others now, with other times.
                refreshing = Refreshing::start(&access);
            }
            // Last: by now those above listen for their signals, which would end the process before.
            () = std::future::ready(()), if announce.is_some() => {
                tracing::info!(workers, admin = ?addresses.admin, "ready");
                if let Some(ready) = announce.take() {
                    ready(&addresses);
                }
            }
        }
    }
    drop((first, refreshing));
    tracing::info!("going down: no new clients; those who are here end at their transaction's end");
    readiness.draining();
    // Nobody is left to care if the receivers have gone.
    let _ = stop_listening.send(true);
    doors.join_all().await;
    drop(mailboxes);
    let ended = async {
        for thread in threads {
            if thread.await.is_err() {
                tracing::error!("a worker ended before its time");
            }
        }
    };
    let mut ended = pin!(ended);
    tokio::select! {
        () = &mut ended => {}
        () = shutdown() => {
            tracing::warn!("told a second time to go down: not waiting for clients any longer");
            // Nobody is left to care if the receivers have gone.
            let _ = cut_off.send(true);
            ended.await;
        }
    }
    tracing::info!("down");
    Ok(())
}

/// A key for passwords without TLS, the same at all endpoints, if there is one to which they could come. Only a restart changes that.
fn password_key(config: &Config) -> Result<Option<Arc<PasswordKey>>, RunError> {
    let speaks = |endpoint: &EndpointConfig| {
        config.target_groups.iter().any(|group| group.name == endpoint.target_group && group.engine == Engine::MySql)
    };
    let takes = |endpoint: &EndpointConfig| endpoint.tls != EndpointTls::Required && speaks(endpoint);
    let is_needed = config.endpoints.iter().any(takes);
    Ok(if is_needed { Some(Arc::new(auth::password_key()?)) } else { None })
}

/// Slots for so many threads.
fn metrics(config: &Config, threads: usize) -> Result<Metrics, prometheus::Error> {
    let place = |name: &str| config.target_groups.iter().position(|group| group.name == name);
    let endpoints = config.endpoints.iter().map(|endpoint| EndpointName {
        endpoint: endpoint.name.clone(),
        // A group that does not exist is refused when the configuration is read.
        group: place(&endpoint.target_group).unwrap_or(usize::MAX),
    });
    let groups = config.target_groups.iter().map(|group| GroupName {
        group: group.name.clone(),
        target: group.targets.first().map(ToString::to_string).unwrap_or_default(),
    });
    Metrics::new(endpoints, groups, threads)
}

/// Starts what a target group needs on this thread: probes, logins, lookups, the pools' clock.
fn start_group(
    group: &TargetGroupConfig,
    access: &Arc<ArcSwap<Access>>,
    statement_key: [u8; 16],
    counts: Arc<GroupMetrics>,
) -> Result<Group, RunError> {
    let lookup = lookup_control(group)?
        .map(|(config, control)| Lookup::start(&group.name, config, control, group.pool.connect_timeout));
    let version = Version::default();
    let parts = (access, lookup.clone(), Arc::clone(&version));
    let pools = match group.engine {
        Engine::Postgres => AnyPools::Postgres(start_pools(group, parts, statement_key, counts)?),
        Engine::MySql => AnyPools::MySql(start_pools(group, parts, statement_key, counts)?),
    };
    Ok(Group { pools, lookup, version })
}

fn start_pools<P: Protocol>(
    group: &TargetGroupConfig,
    (access, lookup, version): (&Arc<ArcSwap<Access>>, Option<Arc<Lookup>>, Version),
    statement_key: [u8; 16],
    counts: Arc<GroupMetrics>,
) -> Result<Arc<Pools<P>>, RunError> {
    let (target, way) = target(group)?;
    let prober = prober(group, &target, &way)?;
    let logins = GroupLogins::new(Arc::clone(access), lookup, &target.address, group.tls.mode);
    let dial = Dial::new(way);
    let (pools, orders) = Pools::new(&group.name, dial, group.pool.clone(), Arc::clone(&counts));
    let (mut snapshots, _monitor) = topology::start(&group.name, target, group.health.clone(), prober, counts);
    let target = pool::connect::Target {
        lifetime: group.pool.connection_max_lifetime,
        init_query: group.pool.init_query.clone(),
        hung: Cell::default(),
        max_prepared_statements: group.pool.max_prepared_statements,
        statement_key,
        learned: Arc::default(),
        logins: Box::new(logins),
    };
    tokio::task::spawn_local(pool::connect::run(Arc::clone(&pools), orders, target));
    let (wanted, own) = (group.pool.max_connections, own_connections(group));
    let budgeted = Arc::clone(&pools);
    tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let limits = {
                let snapshot = snapshots.borrow_and_update();
                let target = snapshot.targets.first();
                if let Some(said) = target.and_then(|target| target.version_text.clone())
                    && version.load().as_deref() != Some(&said)
                {
                    version.store(Some(Arc::new(said)));
                }
                target.and_then(|target| target.limits)
            };
            // Until the target has said what it allows nobody is let in: a guess could be more than it has.
            if limits.is_some() {
                budgeted.set_budget(topology::budget(limits, wanted, own));
            }
            budgeted.tick();
        }
    });
    Ok(pools)
}

/// How many connections the proxy needs for its own questions.
fn own_connections(group: &TargetGroupConfig) -> usize {
    if group.auth_query.is_some() { 2 * CONTROL_CONNECTIONS_MAX } else { CONTROL_CONNECTIONS_MAX }
}

/// Users that stand in the group's database alone, and how they are asked about.
fn lookup_control(group: &TargetGroupConfig) -> Result<Option<(AuthQueryConfig, Control<Postgres>)>, RunError> {
    let Some(config) = group.auth_query.clone() else { return Ok(None) };
    let (target, way) = target(group)?;
    let timeout = way.timeout();
    let AuthQueryConfig { user, password, database, .. } = &config;
    let account = Account { user, password, database, timeout };
    let control = topology::postgres_control(&target, &account, timeout, way.tls().cloned())?;
    Ok(Some((config, control)))
}

/// The group's target and the way there.
fn target(group: &TargetGroupConfig) -> Result<(Target, Way), RunError> {
    let Some(address) = group.targets.first().cloned() else { return Err(RunError::Control(ControlError::Closed)) };
    let tls = if matches!(address, TargetAddress::Unix(_)) { None } else { tls::client_config(&group.tls)? };
    Ok((Target::new(address.clone()), Way::new(address, tls, group.pool.connect_timeout)?))
}

fn prober(group: &TargetGroupConfig, target: &Target, way: &Way) -> Result<Prober, RunError> {
    let account = Account::of_health(&group.health);
    Ok(match group.engine {
        Engine::Postgres => {
            let control = topology::postgres_control(target, &account, way.timeout(), way.tls().cloned())?;
            Prober::new(control, account.timeout)
        }
        Engine::MySql => Prober::mysql(topology::mysql_control::<MySql>(way.clone(), &account)?, account.timeout),
    })
}

/// A thread that serves clients until its mailbox is closed and they have gone, or `limit` is over, or they are cut off.
fn start_worker(
    number: usize,
    (mut arrivals, orders): (mpsc::UnboundedReceiver<Arrival>, Orders),
    endpoints: &Arc<[AnyEndpoint]>,
    metrics: &Arc<Metrics>,
    (limit, mut cut): (Duration, watch::Receiver<bool>),
) -> io::Result<tokio::sync::oneshot::Receiver<()>> {
    let (ended, ends) = tokio::sync::oneshot::channel();
    let (endpoints, metrics) = (Arc::clone(endpoints), Arc::clone(metrics));
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        LocalSet::new().block_on(&runtime, async {
            let worker = Worker::new(number, metrics);
            let clock = tokio::task::spawn_local(Rc::clone(&worker).look_after(orders));
            let mut clients = JoinSet::new();
            loop {
                tokio::select! {
                    arrival = arrivals.recv() => match arrival {
                        Some(arrival) => {
                            if let Some(endpoint) = endpoints.get(arrival.endpoint) {
                                endpoint.admit(&worker, arrival, &mut clients);
                            }
                        }
                        None => break,
                    },
                    Some(_) = clients.join_next(), if !clients.is_empty() => {}
                }
            }
            worker.drain();
            let cut_off = async {
                tokio::select! {
                    () = tokio::time::sleep(limit) => {}
                    // Without a sender there is nobody to cut anything off.
                    Ok(_) = cut.wait_for(|cut| *cut) => {}
                }
            };
            tokio::select! {
                () = all_gone(&mut clients) => {}
                () = cut_off => {
                    tracing::warn!(clients = clients.len(), "the clients that are left are cut off");
                    worker.cut();
                    let _ = tokio::time::timeout(LAST_WORDS, all_gone(&mut clients)).await;
                }
            }
            clock.abort();
        });
        // Nobody waits any more when the process is being killed.
        let _ = ended.send(());
    })?;
    Ok(ends)
}

async fn all_gone(clients: &mut JoinSet<()>) {
    while clients.join_next().await.is_some() {}
}

/// Takes as many open files as the system grants, and says so if the configuration may need more.
fn raise_file_limit(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let wanted = files_wanted(config);
    if let Some(granted) = getrlimit(Resource::Nofile).current
        && granted < wanted
    {
        tracing::warn!(
            granted,
            wanted,
            "max_clients of all endpoints, and max_connections of the target groups where that is a number, need more open \
             files than the system grants (connections by max_connections_percent come on top); raise it (ulimit -Hn, \
             LimitNOFILE=) or lower them"
        );
    }
}

/// Files that the configuration may need, as far as it says so: what a percentage of a database's connections comes to, only
/// the database knows.
fn files_wanted(config: &Config) -> u64 {
    let clients = config.endpoints.iter().map(|endpoint| endpoint.max_clients as u64);
    let connections = config.target_groups.iter().map(|group| match group.pool.max_connections {
        ConnectionLimit::Absolute(number) => u64::from(number),
        ConnectionLimit::Percent(_) => 0,
    });
    clients.chain(connections).fold(FILES_BESIDE, u64::saturating_add)
}

/// Connects to every target and reports what is wrong; `report` gets a line for each check.
pub fn check(config: &Config, mut report: impl FnMut(bool, String)) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut failed = 0;
    for warning in &config.warnings {
        report(true, format!("note: {warning}"));
    }
    reload::access(config, None)?;
    for group in &config.target_groups {
        let found = runtime.block_on(async {
            let (target, way) = target(group)?;
            let mut prober = prober(group, &target, &way)?;
            Ok::<_, RunError>(prober.probe().await)
        })?;
        let targets: Vec<String> = group.targets.iter().map(ToString::to_string).collect();
        let place = format!("target group \"{}\", {}", group.name, targets.join(", "));
        match found {
            Ok(finding) => {
                let is_writer = finding.role == topology::Role::Writer;
                failed += usize::from(!is_writer);
                let budget = topology::budget(Some(finding.limits), group.pool.max_connections, own_connections(group));
                report(
                    is_writer,
                    format!(
                        "{place}: answers, is a {}, version {}, allows {} connections, {budget} of them for clients",
                        finding.role.name(),
                        finding.version,
                        finding.limits.max_connections
                    ),
                );
                let min = group.pool.min_connections;
                if min > budget {
                    report(
                        true,
                        format!("note: {place}: min_connections = {min} can't be reached: {budget} are for clients"),
                    );
                }
            }
            Err(error) => {
                failed += 1;
                report(false, format!("{place}: {error} ({})", error.reason()));
            }
        }
        if let Some((config, control)) = lookup_control(group)? {
            let timeout = group.pool.connect_timeout;
            let asked = runtime.block_on(Lookup::try_out(&group.name, config, control, timeout));
            let (is_good, words) = asked.map_or_else(|words| (false, words), |words| (true, words));
            failed += usize::from(!is_good);
            report(is_good, format!("{place}: auth_query {words}"));
        }
    }
    if failed > 0 { Err(RunError::Check(failed)) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_of_clients_and_of_connections_that_are_a_number() {
        let wanted = |limit: &str| {
            let text = format!(
                "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\nmax_clients=50\n\
                 [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n[target_group.pool]\n{limit}\n\
                 [target_group.health]\nuser='m'\npassword={{ value='m' }}\n"
            );
            files_wanted(&Config::parse(&text, "proxy.toml", &|_| None).unwrap())
        };
        assert_eq!(wanted("max_connections=20"), 170);
        assert_eq!(wanted("max_connections_percent=90"), 150);
    }
}
