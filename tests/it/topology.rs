//! Control connections, probe and monitor against real servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::config::{ConnectionLimit, HealthConfig, Secret, TargetAddress, TargetTls, TargetTlsMode};
use sluicegate::demo::servers::{
    Auth, Feature, Installation, MONITOR, MONITOR_PASSWORD, Options, PostgresServer, Stop,
};
use sluicegate::net::tls;
use sluicegate::topology::{
    self, Account, CONTROL_CONNECTIONS_MAX, Health, Limits, ProbeError, Prober, Reason, Role, Snapshot, Target,
};
use tokio::sync::watch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn health(password: &str) -> HealthConfig {
    HealthConfig {
        user: MONITOR.to_owned(),
        password: Secret::new(password.to_owned()),
        database: "postgres".to_owned(),
        interval: Duration::from_millis(50),
        suspect_interval: Duration::from_millis(10),
        timeout: Duration::from_secs(5),
        failures: 3,
    }
}

fn tcp(server: &PostgresServer) -> TargetAddress {
    TargetAddress::Tcp { host: "127.0.0.1".to_owned(), port: server.port() }
}

fn unix(server: &PostgresServer) -> TargetAddress {
    TargetAddress::Unix(server.socket_dir().join(format!(".s.PGSQL.{}", server.port())))
}

fn prober(address: TargetAddress, password: &str, tls: Option<TargetTls>) -> Prober {
    let tls = tls.and_then(|tls| tls::client_config(&tls).unwrap());
    let health = health(password);
    let control =
        topology::postgres_control(&Target::new(address), &Account::of_health(&health), CONNECT_TIMEOUT, tls).unwrap();
    Prober::new(control, health.timeout)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn both(check: impl Fn(&Installation)) {
    for feature in [Feature::Protocol3_0Only, Feature::Protocol3_2] {
        check(&Installation::find(feature).unwrap());
    }
}

#[test]
fn a_probe_finds_role_limits_and_version() {
    both(|installation| {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = vec![setting("superuser_reserved_connections", "4")];
        if installation.version() >= 16 {
            settings.push(setting("reserved_connections", "5"));
        }
        let options = Options { max_connections: 40, settings, ..Options::default() };
        let server = PostgresServer::start(installation, options).unwrap();
        let replica = Options { max_connections: 40, replica_of: Some(&server), ..Options::default() };
        let replica = PostgresServer::start(installation, replica).unwrap();
        let reserved = if installation.version() >= 16 { 9 } else { 4 };
        run(async {
            for address in [tcp(&server), unix(&server)] {
                let mut prober = prober(address, MONITOR_PASSWORD, None);
                for _ in 0..3 {
                    let finding = prober.probe().await.unwrap();
                    assert_eq!(finding.role, Role::Writer);
                    assert_eq!(finding.limits, Limits { max_connections: 40, reserved });
                    assert_eq!(finding.version / 10_000, installation.version());
                }
                let limits = prober.probe().await.unwrap().limits;
                let allowed = 40 - reserved as usize;
                assert_eq!(
                    topology::budget(Some(limits), ConnectionLimit::Percent(100), CONTROL_CONNECTIONS_MAX),
                    allowed - 2
                );
                // The probes shared one connection, which says who it is and looks nowhere but in the catalog.
                let seen =
                    "SELECT count(*), min(application_name) FROM pg_stat_activity WHERE usename = 'sluicegate_monitor'";
                assert_eq!(server.run_sql("postgres", seen).unwrap(), "1|sluicegate");
                drop(prober);
                wait_until(|| server.run_sql("postgres", seen).unwrap().starts_with('0')).await;
            }
            let finding = prober(tcp(&replica), MONITOR_PASSWORD, None).probe().await.unwrap();
            assert_eq!(finding.role, Role::Standby);
        });
    });
}

#[test]
fn a_probe_speaks_tls_as_asked() {
    both(|installation| {
        let server = PostgresServer::start(installation, Options { ssl: true, ..Options::default() }).unwrap();
        let plain = PostgresServer::start(installation, Options::default()).unwrap();
        run(async {
            use TargetTlsMode::{Require, VerifyCa, VerifyFull};
            for mode in [Require, VerifyCa, VerifyFull] {
                let tls = TargetTls { mode, ca_file: server.ca_file() };
                prober(tcp(&server), MONITOR_PASSWORD, Some(tls.clone())).probe().await.unwrap();
                // TLS is not for unix sockets.
                prober(unix(&server), MONITOR_PASSWORD, Some(tls.clone())).probe().await.unwrap();
                let error = prober(tcp(&plain), MONITOR_PASSWORD, Some(tls)).probe().await.unwrap_err();
                println!("{mode:?}, no TLS there: {} {error}", error.reason());
                assert_eq!(error.reason(), Reason::Tls);
                assert!(error.to_string().contains("ssl = on"), "{error}");
            }
            let tls = TargetTls { mode: VerifyFull, ca_file: None };
            let error = prober(tcp(&server), MONITOR_PASSWORD, Some(tls)).probe().await.unwrap_err();
            println!("system roots: {} {error}", error.reason());
            assert_eq!(error.reason(), Reason::Tls);
            assert!(error.to_string().contains("ca_file"), "{error}");
        });
    });
}

#[test]
fn a_refused_account_is_named_and_its_password_is_not() {
    let installation = Installation::find(Feature::Protocol3_0Only).unwrap();
    for auth in [Auth::Scram, Auth::Md5] {
        let server = PostgresServer::start(&installation, Options { auth, ..Options::default() }).unwrap();
        run(async {
            let error = prober(tcp(&server), "not-the-password", None).probe().await.unwrap_err();
            println!("{error}");
            assert_eq!(error.reason(), Reason::AccountRefused);
            let text = format!("{error} {error:?}");
            assert!(text.contains("28P01") && text.contains("[target_group.health]"), "{text}");
            assert!(!text.contains("not-the-password"), "{text}");
        });
    }
    // Where it would travel in the clear it is not said at all.
    let server = PostgresServer::start(&installation, Options { auth: Auth::Password, ..Options::default() }).unwrap();
    run(async {
        let error = prober(tcp(&server), "not-the-password", None).probe().await.unwrap_err();
        assert!(error.to_string().contains("asks for the password in the clear"), "{error}");
    });
}

#[test]
fn a_probe_that_is_not_answered_costs_its_connection_and_no_more() {
    let installation = Installation::find(Feature::Protocol3_0Only).unwrap();
    let server = PostgresServer::start(&installation, Options::default()).unwrap();
    run(async {
        let health = HealthConfig { timeout: Duration::from_millis(300), ..health(MONITOR_PASSWORD) };
        let target = Target::new(tcp(&server));
        let control = topology::postgres_control(&target, &Account::of_health(&health), CONNECT_TIMEOUT, None).unwrap();
        let mut prober = Prober::new(control, Duration::from_secs(5));
        prober.probe().await.unwrap();
        // The server's process stops in the middle of things; a new connection has another one.
        let pid = server.run_sql("postgres", "SELECT pid FROM pg_stat_activity WHERE usename = 'sluicegate_monitor'");
        let pid = rustix::process::Pid::from_raw(pid.unwrap().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let missed = tokio::time::timeout(Duration::from_millis(300), prober.probe()).await;
        assert!(missed.is_err());
        let began = Instant::now();
        prober.probe().await.unwrap();
        println!("answered again after {:?}", began.elapsed());
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        assert!(matches!(prober.probe().await, Ok(_) | Err(ProbeError::Timeout(_))));
    });
}

#[test]
fn a_monitor_follows_a_server_down_and_up() {
    let installation = Installation::find(Feature::Protocol3_0Only).unwrap();
    let mut server = PostgresServer::start(&installation, Options::default()).unwrap();
    run(async {
        let health = health(MONITOR_PASSWORD);
        let address = tcp(&server);
        let (mut snapshots, task) = topology::start(
            "orders",
            Target::new(address.clone()),
            health,
            prober(address, MONITOR_PASSWORD, None),
            Arc::default(),
        );
        assert!(snapshots.borrow().writer().is_none());
        wait_for(&mut snapshots, |snapshot| snapshot.writer().is_some()).await;
        for how in [Stop::Fast, Stop::Kill] {
            server.stop(how).unwrap();
            let began = Instant::now();
            wait_for(&mut snapshots, |snapshot| {
                matches!(snapshot.targets[0].health, Health::Unavailable(Reason::Network | Reason::Database))
            })
            .await;
            println!("{how:?}: noticed after {:?}", began.elapsed());
            server.resume().unwrap();
            let began = Instant::now();
            wait_for(&mut snapshots, |snapshot| snapshot.writer().is_some()).await;
            println!("back after {:?}", began.elapsed());
        }
        drop(snapshots);
        task.await.unwrap();
    });
}

async fn wait_for(snapshots: &mut watch::Receiver<Arc<Snapshot>>, is_so: impl Fn(&Snapshot) -> bool) {
    let found = tokio::time::timeout(Duration::from_secs(20), snapshots.wait_for(|snapshot| is_so(snapshot))).await;
    found.expect("in time").expect("the monitor runs");
}

async fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never came true");
        // What must happen may be a task of this very thread.
        tokio::task::yield_now().await;
    }
}
