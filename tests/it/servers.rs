//! The throwaway servers themselves: everything else stands on them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sluicegate::demo::servers::{Auth, Feature, Installation, Options, PostgresServer, Stop};

use crate::harness::server;
use crate::harness::wire::{Login, PROTOCOL_3_2, Wire};

fn both(check: impl Fn(&Installation)) {
    for feature in [Feature::Protocol3_0Only, Feature::Protocol3_2] {
        check(&Installation::find(feature).unwrap());
    }
}

#[test]
fn starts_stops_and_comes_back_with_its_data() {
    both(|installation| {
        let mut server = PostgresServer::start(installation, Options::default()).unwrap();
        let port = server.port();
        server.run_sql("app", "CREATE TABLE t AS SELECT 42 AS a").unwrap();
        for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
            server.stop(how).unwrap();
            assert_eq!(server.pid(), None);
            server.resume().unwrap();
            assert_eq!(server.port(), port);
        }
        server.restart().unwrap();
        let folder = server.socket_dir().to_owned();
        assert_eq!(server.run_sql("app", "SELECT a FROM t").unwrap(), if folder.exists() { "42" } else { "" });
        drop(server);
        assert!(!folder.exists());
    });
}

#[test]
fn a_replica_follows_and_is_promoted() {
    both(|installation| {
        let mut writer = PostgresServer::start(installation, Options::default()).unwrap();
        let options = Options { replica_of: Some(&writer), ..Options::default() };
        let replica = PostgresServer::start(installation, options).unwrap();
        assert_eq!(replica.run_sql("app", "SELECT pg_is_in_recovery()").unwrap(), "t");
        writer.run_sql("app", "CREATE TABLE t AS SELECT 42 AS a").unwrap();
        let lsn = writer.run_sql("app", "SELECT pg_current_wal_insert_lsn()").unwrap();
        let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        let deadline = Instant::now() + Duration::from_secs(20);
        while replica.run_sql("app", &caught_up).unwrap() != "t" {
            assert!(Instant::now() < deadline, "the replica does not catch up:\n{}", replica.log());
        }
        writer.stop(Stop::Kill).unwrap();
        replica.promote().unwrap();
        assert_eq!(replica.run_sql("app", "INSERT INTO t SELECT 43; SELECT count(*) FROM t").unwrap(), "2");
    });
}

#[test]
fn every_way_to_log_in() {
    both(|installation| {
        for (auth, asked) in [(Auth::Scram, 10), (Auth::Md5, 5), (Auth::Password, 3), (Auth::Trust, 0)] {
            let server = PostgresServer::start(installation, Options { auth, ..Options::default() }).unwrap();
            let wire = Wire::connect(server.address(), &Login::app()).unwrap();
            assert_eq!(wire.asked_for(), asked, "{auth:?}");
        }
    });
}

#[test]
fn protocol_3_2_is_what_the_feature_says() {
    for (feature, key_bytes) in [(Feature::Protocol3_0Only, 4 + 4), (Feature::Protocol3_2, 4 + 32)] {
        let login = Login { version: PROTOCOL_3_2, ..Login::app() };
        let wire = Wire::connect(server(feature).address(), &login).unwrap();
        let key = wire.login().iter().find(|frame| frame.kind == b'K').unwrap();
        assert_eq!(key.body.len(), key_bytes, "{feature:?}: {:#?}", wire.login());
    }
}

#[test]
fn tls_verifies_against_the_authority() {
    both(|installation| {
        let server = PostgresServer::start(installation, Options { ssl: true, ..Options::default() }).unwrap();
        // psql of Debian's version, outside any chroot: it must find the authority's file where we say it is.
        let psql = Installation::find(Feature::Protocol3_0Only).unwrap();
        let ca_file = server.ca_file().unwrap();
        // psql's account can't look into the server's folder.
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let copy = folder.path().join("ca.crt");
        std::fs::copy(ca_file, &copy).unwrap();
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.url("app", "app"), copy.display());
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let output = psql.program("psql").args([&url, "-Atc", sql]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "t\n", "{}", String::from_utf8_lossy(&output.stderr));
    });
}

#[test]
fn a_server_of_its_own_has_its_own_system_identifier() {
    let installation = Installation::find(Feature::Any).unwrap();
    let identifier = |own_system_id| {
        let server = PostgresServer::start(&installation, Options { own_system_id, ..Options::default() }).unwrap();
        server.run_sql("postgres", "SELECT system_identifier FROM pg_control_system()").unwrap()
    };
    assert_eq!(identifier(false), identifier(false));
    assert_ne!(identifier(false), identifier(true));
}

/// The test binary runs itself: `leaks_a_server` starts a server and is killed with it.
#[test]
fn a_killed_process_leaves_no_server_behind() {
    // This very test, started once more: there it starts a server and waits to be killed.
    const IN_CHILD: &str = "SLUICEGATE_TEST_LEAKS_A_SERVER";
    if std::env::var_os(IN_CHILD).is_some() {
        return leak_a_server();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "servers::a_killed_process_leaves_no_server_behind", "--nocapture"]);
    let mut child = child.env(IN_CHILD, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let line = std::io::BufRead::lines(stdout).map(Result::unwrap).find(|line| line.contains("leaked ")).unwrap();
    let (_, words) = line.split_once("leaked ").unwrap();
    let (pid, folder) = words.split_once(' ').unwrap();
    let proc = std::path::PathBuf::from(format!("/proc/{pid}"));
    let folder = std::path::Path::new(folder);
    assert!(proc.exists() && folder.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while proc.exists() || folder.exists() {
        assert!(Instant::now() < deadline, "still there: {proc:?} {folder:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn leak_a_server() {
    let server = PostgresServer::start(&Installation::find(Feature::Any).unwrap(), Options::default()).unwrap();
    println!("leaked {} {}", server.pid().unwrap(), server.socket_dir().display());
    // The parent never writes: this ends when it is gone, in case it forgot to kill.
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
}
