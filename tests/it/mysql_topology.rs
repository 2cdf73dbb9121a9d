//! Control connections, probe and monitor against real MySQL and MariaDB servers.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicegate::config::{HealthConfig, Secret, TargetAddress, TargetTls, TargetTlsMode};
use sluicegate::demo::servers::{APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD};
use sluicegate::mysql::MySql;
use sluicegate::net::{Way, tls};
use sluicegate::topology::{self, Account, Health, Limits, Prober, Reason, Role, Target};

use crate::harness::mysql::beside::my_config;
use crate::harness::mysql::wire::{MyLogin, MyWire};
use crate::harness::mysql::{Flavour, MyServer, Options, server, servers};
use crate::harness::proxy::start;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn health(password: &str) -> HealthConfig {
    HealthConfig {
        user: MONITOR.to_owned(),
        password: Secret::new(password.to_owned()),
        database: String::new(),
        interval: Duration::from_millis(50),
        suspect_interval: Duration::from_millis(10),
        timeout: Duration::from_secs(5),
        failures: 3,
    }
}

fn tcp(server: &MyServer) -> TargetAddress {
    TargetAddress::Tcp { host: "127.0.0.1".to_owned(), port: server.address().port() }
}

fn tls_of(server: &MyServer, mode: TargetTlsMode) -> TargetTls {
    TargetTls { mode, ca_file: Some(server.ca_file()) }
}

fn prober(address: TargetAddress, password: &str, tls: Option<TargetTls>) -> Prober {
    prober_as(health(password), address, tls)
}

fn prober_as(health: HealthConfig, address: TargetAddress, tls: Option<TargetTls>) -> Prober {
    let tls = tls.and_then(|tls| tls::client_config(&tls).unwrap());
    let way = Way::new(address, tls, CONNECT_TIMEOUT).unwrap();
    let control = topology::mysql_control::<MySql>(way, &Account::of_health(&health)).unwrap();
    Prober::mysql(control, health.timeout)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Connections of the monitor.
fn monitors(server: &MyServer) -> String {
    server.root().value(&format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{MONITOR}'"))
}

#[test]
fn a_probe_finds_role_limits_and_version() {
    for flavour in Flavour::ALL {
        let limit = || vec!["--max-connections=40".to_owned()];
        let server = MyServer::start(flavour, Options { arguments: limit(), ..Options::default() });
        let replica = MyServer::start(flavour, Options { replica_of: Some(&server), arguments: limit() });
        let parts: Vec<u32> = server.version().split('.').map(|part| part.parse().unwrap()).collect();
        let version = parts[0] * 10_000 + parts[1] * 100 + parts[2];
        let said = server.root().value("SELECT @@version");
        let greeted = if flavour == Flavour::MariaDb { format!("5.5.5-{said}") } else { said };
        run(async {
            for address in [tcp(&server), TargetAddress::Unix(server.folder().join("socket"))] {
                let mut prober = prober(address, MONITOR_PASSWORD, None);
                for _ in 0..3 {
                    let finding = prober.probe().await.unwrap();
                    assert_eq!(finding.role, Role::Writer);
                    assert_eq!(finding.limits, Limits { max_connections: 40, reserved: 0 });
                    assert_eq!(finding.version, version);
                    assert_eq!(finding.version_text.as_deref(), Some(&*greeted));
                }
                // The probes shared one connection, which goes with them.
                assert_eq!(monitors(&server), "1");
                drop(prober);
                wait_until(|| monitors(&server) == "0").await;
            }
            let mut prober = prober(tcp(&replica), MONITOR_PASSWORD, None);
            assert_eq!(prober.probe().await.unwrap().role, Role::Standby);
            replica.root().query("SET GLOBAL read_only = 0");
            assert_eq!(prober.probe().await.unwrap().role, Role::Writer);
            if flavour == Flavour::MySql {
                replica.root().query("SET GLOBAL super_read_only = 1");
                assert_eq!(prober.probe().await.unwrap().role, Role::Standby);
            }
        });
    }
}

#[test]
fn a_probe_speaks_tls_as_asked() {
    for flavour in Flavour::ALL {
        let arguments = vec!["--bind-address=0.0.0.0".to_owned()];
        let server = &MyServer::start(flavour, Options { arguments, ..Options::default() });
        let foreign = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(foreign.path(), tls::self_signed(&["localhost"]).unwrap().ca).unwrap();
        let foreign = TargetTls { mode: TargetTlsMode::VerifyCa, ca_file: Some(foreign.path().to_owned()) };
        run(async {
            use TargetTlsMode::{Require, VerifyCa, VerifyFull};
            let log_in = |mode| prober(tcp(server), MONITOR_PASSWORD, Some(tls_of(server, mode)));
            for mode in [VerifyCa, VerifyFull] {
                let mut prober = log_in(mode);
                for _ in 0..3 {
                    prober.probe().await.unwrap();
                }
                assert_eq!(monitors(server), "1");
                drop(prober);
                wait_until(|| monitors(server) == "0").await;
            }
            // By now the server knows the account: it needs no password, which would not be said.
            log_in(Require).probe().await.unwrap();
            // The certificate is for localhost and 127.0.0.1, not for this address.
            let other = TargetAddress::Tcp { host: "127.0.0.2".to_owned(), port: server.address().port() };
            prober(other.clone(), MONITOR_PASSWORD, Some(tls_of(server, VerifyCa))).probe().await.unwrap();
            let error = prober(other, MONITOR_PASSWORD, Some(tls_of(server, VerifyFull))).probe().await.unwrap_err();
            assert_eq!(error.reason(), Reason::Tls, "{error}");
            for tls in [TargetTls { mode: VerifyFull, ca_file: None }, foreign] {
                let error = prober(tcp(server), MONITOR_PASSWORD, Some(tls)).probe().await.unwrap_err();
                assert_eq!(error.reason(), Reason::Tls, "{error}");
                assert!(error.to_string().contains("ca_file"), "{error}");
            }
        });
    }
}

#[test]
fn a_password_unknown_to_the_server_is_said_to_whom_it_is_meant_for() {
    let server = server(Flavour::MySql);
    let mut root = server.root();
    // Of an account that was made just now the server does not keep what a proof is checked by: it asks for the password.
    for (mode, is_new, good) in [
        (TargetTlsMode::Off, true, true),
        (TargetTlsMode::Require, true, false),
        (TargetTlsMode::VerifyCa, false, true),
        (TargetTlsMode::Require, false, true),
    ] {
        if is_new {
            root.query("DROP USER IF EXISTS cold_monitor");
            root.query("CREATE USER cold_monitor IDENTIFIED BY 'cold-secret'");
        }
        run(async {
            let health = HealthConfig { user: "cold_monitor".to_owned(), ..health("cold-secret") };
            let found = prober_as(health, tcp(server), Some(tls_of(server, mode))).probe().await;
            match found {
                Ok(_) => assert!(good, "{mode:?}"),
                Err(error) => assert!(!good && error.to_string().contains("anybody in between"), "{mode:?}: {error}"),
            }
        });
    }
    root.query("DROP USER cold_monitor");
}

#[test]
fn a_refused_account_is_named_and_its_password_is_not() {
    for server in servers() {
        run(async {
            for tls in [None, Some(tls_of(server, TargetTlsMode::VerifyCa))] {
                let error = prober(tcp(server), "not-the-password", tls).probe().await.unwrap_err();
                assert_eq!(error.reason(), Reason::AccountRefused);
                let text = format!("{error} {error:?}");
                assert!(text.contains("1045") && text.contains("[target_group.health]"), "{text}");
                assert!(!text.contains("not-the-password"), "{text}");
            }
        });
    }
}

/// MariaDB's ed25519, which the driver panics at; for clients' connections too.
#[test]
fn an_account_of_mariadbs_ed25519() {
    let server = MyServer::start(Flavour::MariaDb, Options::default());
    let mut root = server.root();
    root.query("INSTALL SONAME 'auth_ed25519'");
    root.query("CREATE USER ed IDENTIFIED VIA ed25519 USING PASSWORD('ed-secret')");
    run(async {
        for tls in [None, Some(tls_of(&server, TargetTlsMode::VerifyFull))] {
            let health = HealthConfig { user: "ed".to_owned(), ..health("ed-secret") };
            prober_as(health.clone(), tcp(&server), tls.clone()).probe().await.unwrap();
            let wrong = Secret::new("wrong".to_owned());
            let error =
                prober_as(HealthConfig { password: wrong, ..health }, tcp(&server), tls).probe().await.unwrap_err();
            assert_eq!(error.reason(), Reason::AccountRefused, "{error}");
        }
    });
    let config = my_config(&server, 4).replace(&format!("name     = \"{APP}\""), "name     = \"ed\"");
    let proxy = start(&config.replace(APP_PASSWORD, "ed-secret"));
    let mut client = MyWire::connect(proxy.address, &MyLogin::new("ed", "ed-secret")).unwrap();
    assert!(client.value("SELECT USER()").starts_with("ed@"));
}

#[test]
fn a_database_is_connected_to_if_one_is_named() {
    for server in servers() {
        run(async {
            let of = |database: &str| HealthConfig { database: database.to_owned(), ..health(MONITOR_PASSWORD) };
            prober_as(of("information_schema"), tcp(server), None).probe().await.unwrap();
            let error = prober_as(of("no_such_database"), tcp(server), None).probe().await.unwrap_err();
            assert_eq!(error.reason(), Reason::AccountRefused, "{error}");
            assert!(error.to_string().contains("no_such_database"), "{error}");
        });
    }
}

#[test]
fn a_server_that_wants_tls_says_so() {
    for flavour in Flavour::ALL {
        let arguments = vec!["--require-secure-transport=ON".to_owned()];
        let server = MyServer::start(flavour, Options { arguments, ..Options::default() });
        run(async {
            let error = prober(tcp(&server), MONITOR_PASSWORD, None).probe().await.unwrap_err();
            // MariaDB says no more than that access is denied.
            let (reason, words) = match flavour {
                Flavour::MySql => (Reason::Tls, "set tls in [[target_group]]"),
                Flavour::MariaDb => (Reason::AccountRefused, "[target_group.health]"),
            };
            assert_eq!(error.reason(), reason, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            let address = TargetAddress::Unix(server.folder().join("socket"));
            prober(address, MONITOR_PASSWORD, None).probe().await.unwrap();
        });
    }
}

#[test]
fn a_server_without_tls_is_told_nothing() {
    for flavour in Flavour::ALL {
        let arguments = match flavour {
            Flavour::MySql => vec!["--tls-version=".to_owned()],
            Flavour::MariaDb => vec!["--skip-ssl".to_owned()],
        };
        let server = MyServer::start(flavour, Options { arguments, ..Options::default() });
        run(async {
            let mut prober = prober(tcp(&server), MONITOR_PASSWORD, Some(tls_of(&server, TargetTlsMode::Require)));
            let error = prober.probe().await.unwrap_err();
            assert_eq!(error.reason(), Reason::Tls, "{error}");
            assert!(error.to_string().contains("switch TLS on at the target"), "{error}");
        });
    }
}

#[test]
fn a_full_server_is_one_that_answers() {
    for flavour in Flavour::ALL {
        let arguments = vec!["--max-connections=10".to_owned()];
        let server = MyServer::start(flavour, Options { arguments, ..Options::default() });
        // One more than there are, of an administrator.
        let _all: Vec<_> = (0..11).map(|_| server.root()).collect();
        run(async {
            for tls in [None, Some(tls_of(&server, TargetTlsMode::VerifyFull))] {
                let error = prober(tcp(&server), MONITOR_PASSWORD, tls).probe().await.unwrap_err();
                assert_eq!(error.reason(), Reason::Database, "{error}");
                assert!(error.to_string().contains("1040"), "{error}");
            }
        });
    }
}

#[test]
fn a_probe_that_is_not_answered_costs_its_connection_and_no_more() {
    for flavour in Flavour::ALL {
        let server = MyServer::start(flavour, Options::default());
        let pid = rustix::process::Pid::from_raw(server.pid().unwrap().try_into().unwrap()).unwrap();
        run(async {
            for tls in [None, Some(tls_of(&server, TargetTlsMode::VerifyFull))] {
                let mut prober = prober(tcp(&server), MONITOR_PASSWORD, tls);
                prober.probe().await.unwrap();
                rustix::process::kill_process(pid, Signal::STOP).unwrap();
                // Its threads stop one by one.
                while tokio::time::timeout(Duration::from_millis(300), prober.probe()).await.is_ok() {}
                rustix::process::kill_process(pid, Signal::CONT).unwrap();
                prober.probe().await.unwrap();
                wait_until(|| monitors(&server) == "1").await;
                drop(prober);
                wait_until(|| monitors(&server) == "0").await;
            }
        });
    }
}

#[test]
fn a_monitor_follows_a_server_down_and_up() {
    for flavour in Flavour::ALL {
        let mut server = MyServer::start(flavour, Options::default());
        run(async {
            let address = tcp(&server);
            let tls = Some(tls_of(&server, TargetTlsMode::VerifyFull));
            let prober = prober(address.clone(), MONITOR_PASSWORD, tls);
            let (mut snapshots, task) =
                topology::start("orders", Target::new(address), health(MONITOR_PASSWORD), prober, Default::default());
            for signal in [Signal::TERM, Signal::KILL] {
                let found = snapshots.wait_for(|snapshot| snapshot.writer().is_some());
                let found = tokio::time::timeout(Duration::from_secs(20), found).await.unwrap().unwrap();
                let said = found.targets[0].version_text.clone().unwrap();
                assert!(said.contains(server.version()), "{said}");
                drop(found);
                server.stop(signal);
                let down = snapshots.wait_for(|snapshot| {
                    matches!(snapshot.targets[0].health, Health::Unavailable(Reason::Network | Reason::Database))
                });
                let down = tokio::time::timeout(Duration::from_secs(20), down).await.unwrap().unwrap();
                assert!(down.targets[0].version_text.is_some(), "what it said last is kept");
                drop(down);
                server.resume();
            }
            drop(snapshots);
            task.await.unwrap();
        });
    }
}

async fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never came true");
        // What must happen may be a task of this very thread.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
