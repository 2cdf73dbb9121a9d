//! What those who run it see: signals, health, metrics, logs, `check`, and the files that are shipped.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use sluicegate::config::Config;
use sluicegate::demo::servers::Feature;

use crate::harness::programs::{Ended, run};
use crate::harness::proxy::{config, set, start, start_within};
use crate::harness::wire::{Login, PATIENCE, Wire, batch, bind, execute, kinds, parse, query, sync};
use crate::harness::{each, server, until_running};

fn login(database: &str) -> Login {
    Login::app().database(database)
}

#[test]
fn sigterm_lets_transactions_end() {
    let server = server(Feature::Any);
    let mut proxy = start(&config(server.address(), 6));
    let mut idle = Wire::connect(proxy.address, &login("app")).unwrap();
    let mut open = Wire::connect(proxy.address, &login("app")).unwrap();
    let mut busy = Wire::connect(proxy.address, &login("app")).unwrap();
    let mut piped = Wire::connect(proxy.address, &login("app")).unwrap();
    open.query("BEGIN");
    piped.send(&batch([parse("", "SELECT 1"), bind("", "", &[]), execute("", 0)]));
    let mut superuser = Wire::connect(server.address(), &Login::superuser()).unwrap();
    busy.send(&query("SELECT 'busy' FROM pg_sleep(3)"));
    let sleeping =
        "SELECT 1 FROM pg_stat_activity, pg_sleep(0.01) WHERE query LIKE 'SELECT ''busy''%' AND state = 'active'";
    let deadline = Instant::now() + PATIENCE;
    while superuser.query(sleeping).is_empty() {
        assert!(Instant::now() < deadline);
    }
    proxy.terminate();
    let told = |wire: &mut Wire| {
        let frames = wire.until_closed();
        let error = frames.last().unwrap_or_else(|| panic!("closed without a word"));
        assert_eq!(error.field(b'C').as_deref(), Some("57P01"), "{frames:#?}");
        kinds(&frames)
    };
    assert_eq!(told(&mut idle), "E");
    // Nobody else comes in.
    assert!(Wire::connect(proxy.address, &login("app")).is_err());
    assert_eq!(told(&mut busy), "TDCZE");
    // A transaction goes on until it ends.
    assert_eq!(open.value("SELECT 'still here'"), "still here");
    assert_eq!(kinds(&open.ask(&query("COMMIT"), 1)), "CZ");
    assert_eq!(told(&mut open), "E");
    assert_eq!(kinds(&piped.ask(&sync(), 1)), "12DCZ");
    assert_eq!(told(&mut piped), "E");
    assert_eq!(proxy.wait(PATIENCE).code(), Some(0), "{}", proxy.log());
}

#[test]
fn shutdown_timeout_bounds_it() {
    let server = server(Feature::Any);
    let mut proxy = start(&set(&config(server.address(), 6), "runtime", "shutdown_timeout", "\"1s\""));
    let mut open = Wire::connect(proxy.address, &login("app")).unwrap();
    open.query("BEGIN; SELECT 1");
    let began = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE).code(), Some(0));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    // It is told, too.
    let frames = open.until_closed();
    assert_eq!(frames.iter().map(|frame| frame.field(b'C').unwrap()).collect::<Vec<_>>(), ["57P01"]);
    // The database has rolled back.
    let mut superuser = Wire::connect(server.address(), &Login::superuser()).unwrap();
    let left =
        "SELECT 1 FROM pg_stat_activity, pg_sleep(0.01) WHERE query = 'BEGIN; SELECT 1' AND state LIKE 'idle in%'";
    while !superuser.query(left).is_empty() {
        assert!(began.elapsed() < PATIENCE);
    }
}

#[test]
fn a_second_signal_does_not_wait_for_transactions() {
    let server = server(Feature::Any);
    // Without it this would take ten minutes.
    let mut proxy = start(&set(&config(server.address(), 6), "runtime", "shutdown_timeout", "\"10m\""));
    let [mut open, mut busy] = [(); 2].map(|()| Wire::connect(proxy.address, &login("app")).unwrap());
    open.query("BEGIN");
    busy.send(&query("SELECT 'second signal' FROM pg_sleep(600)"));
    until_running(server, "app", "SELECT ''second signal''%", 1);
    proxy.terminate();
    proxy.logs("going down");
    assert_eq!(open.value("SELECT 'still here'"), "still here");
    proxy.terminate();
    for client in [&mut open, &mut busy] {
        let frames = client.until_closed();
        assert_eq!(frames.last().unwrap().field(b'C').as_deref(), Some("57P01"), "{frames:#?}");
    }
    assert_eq!(proxy.wait(PATIENCE).code(), Some(0), "{}", proxy.log());
    // Nobody waits for it any more: it does not run on.
    until_running(server, "app", "SELECT ''second signal''%", 0);
}

fn get(address: SocketAddr, path: &str, host: &str) -> (u32, String) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn health_readiness_and_metrics() {
    each("operations_metrics", 4, &[], |_, database, proxy| {
        let host = proxy.admin.to_string();
        assert_eq!(get(proxy.admin, "/healthz", &host).0, 200);
        assert_eq!(get(proxy.admin, "/readyz", "localhost").0, 200);
        assert_ne!(get(proxy.admin, "/metrics", "evil.example").0, 200);
        assert_eq!(get(proxy.admin, "/nothing", &host).0, 404);
        let mut one = Wire::connect(proxy.address, &login(database)).unwrap();
        for _ in 0..10 {
            one.query("SELECT 1");
        }
        let (status, text) = get(proxy.admin, "/metrics", &host);
        assert_eq!(status, 200);
        // A format others read: `name{labels} value`, and a type for every family.
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("sluicegate_") || name.starts_with("process_"), "{line}");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            let family = name.split('{').next().unwrap();
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
            assert!(text.contains(&format!("# TYPE {family}")), "{line}");
        }
        let sum = |name: &str| -> f64 {
            let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
            values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
        };
        assert!(text.contains("sluicegate_transactions_total"), "{text}");
        // The last one is counted once its reply has gone out.
        assert!((9.0..40.0).contains(&sum("sluicegate_transactions_total")), "{text}");
        assert!(!text.contains("app-secret") && !text.contains("monitor-secret"));
    });
}

fn check(text: &str) -> Ended {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = text.replace("{port}", "6432").replace("{admin_port}", "9632").replace("{state_dir}", "/tmp");
    std::fs::write(file.path(), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(["check", "--config"]).arg(file.path());
    run(command, "")
}

/// The same of MySQL and MariaDB.
#[test]
fn check_says_what_is_wrong_with_mysql() {
    for server in crate::harness::mysql::servers() {
        let good = config(server.address(), 4).replace("\"postgres\"", "\"mysql\"");
        // They have TLS of their own authority, which the file names.
        let tls = format!("\"verify-full\"\nca_file = {:?}", server.ca_file());
        for text in [good.clone(), set(&good, "target_group", "tls", "\"require\"")] {
            let ended = check(&text);
            assert!(ended.status.success() && ended.stdout.contains("is a writer"), "{ended}");
        }
        let trusted = set(&good, "target_group", "tls", &tls);
        let ended = check(&trusted);
        assert!(ended.status.success() && ended.stdout.contains("is a writer"), "{ended}");
        let strange = set(&good, "target_group", "tls", "\"verify-full\"");
        let wrong_password = set(&good, "target_group.health", "password", "{ value = \"wrong\" }");
        let nobody_there = set(&good, "target_group", "targets", "[\"127.0.0.1:1\"]");
        for (what, text) in [("1045", wrong_password), ("127.0.0.1:1", nobody_there), ("certificate", strange)] {
            let ended = check(&text);
            assert!(!ended.status.success(), "{what}: {ended}");
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.to_lowercase().contains(&what.to_lowercase()), "{what}: {ended}");
        }
    }
}

#[test]
fn check_says_what_is_wrong() {
    each("operations_check", 4, &[], |server, _, _| {
        let good = config(server.address(), 4);
        let ended = check(&good);
        assert!(ended.status.success() && ended.stdout.contains("ok "), "{ended}");
        assert!(ended.stdout.contains("is a writer"), "{ended}");
        let few = set(&good, "target_group.pool", "max_connections_percent", "2");
        let few: String = few
            .lines()
            .filter(|line| !line.trim_start().starts_with("max_connections  "))
            .map(|line| format!("{line}\n"))
            .collect();
        let ended = check(&set(&few, "target_group.pool", "min_connections", "6"));
        assert!(ended.status.success(), "{ended}");
        assert!(ended.stdout.contains("min_connections = 6 can't be reached: 5 are for clients"), "{ended}");
        let wrong_password = set(&good, "target_group.health", "password", "{ value = \"wrong\" }");
        let nobody_there = set(&good, "target_group", "targets", "[\"127.0.0.1:1\"]");
        let no_tls = set(&good, "target_group", "tls", "\"require\"");
        let no_database = set(&good, "target_group.health", "database", "\"no_such_database\"");
        for (what, text) in [
            ("password", wrong_password),
            ("127.0.0.1:1", nobody_there),
            ("TLS", no_tls),
            ("no_such_database", no_database),
        ] {
            let ended = check(&text);
            assert_eq!(ended.status.code(), Some(1), "{ended}");
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.contains("FAIL") && said.contains(what), "{what}: {ended}");
            assert!(!said.contains("wrong\"") && !said.contains("monitor-secret"), "{ended}");
        }
        let mistake = check(&set(&good, "endpoint", "lisen", "\"x\""));
        assert_eq!(mistake.status.code(), Some(1));
        assert!(mistake.stderr.contains("did you mean `listen`"), "{mistake}");
    });
}

#[test]
fn json_logs_are_json() {
    let server = server(Feature::Any);
    let mut proxy = start(&set(&config(server.address(), 4), "log", "format", "\"json\""));
    let odd = Login::new("no \"body\"\n\\", "x").database("da\ttabase");
    assert!(Wire::connect(proxy.address, &odd).is_err());
    Wire::connect(proxy.address, &login("app")).unwrap().query("SELECT 'a secret value'");
    proxy.terminate();
    assert!(proxy.wait(PATIENCE).success());
    let log = proxy.log();
    assert!(log.lines().count() > 5, "{log}");
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "fields", "target"] {
            assert!(value.get(key).is_some(), "{key}: {line}");
        }
    }
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_port_that_is_taken_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = config(server(Feature::Any).address(), 4);
    let text = text.replace("{port}", &taken.local_addr().unwrap().port().to_string());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text.replace("127.0.0.1:{admin_port}", "").replace("{state_dir}", "/tmp")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(["serve", "--config"]).arg(file.path());
    let ended = run(command, "");
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("endpoint \"it\" can't listen on 127.0.0.1:"), "{ended}");
}

#[test]
fn docker_compose_describes_what_is_there() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(top.join("docker-compose.yml")).unwrap();
    let documents = yaml_rust2::YamlLoader::load_from_str(&text).unwrap();
    let services = documents[0]["services"].as_hash().unwrap();
    let names: Vec<&str> = services.keys().filter_map(|name| name.as_str()).collect();
    assert_eq!(names, ["certs", "db", "mariadb", "proxy"]);
    let volumes = documents[0]["volumes"].as_hash().unwrap();
    for (name, service) in services {
        let mounts = service["volumes"].as_vec().unwrap().iter().map(|mount| mount.as_str().unwrap());
        for source in mounts.map(|mount| mount.split(':').next().unwrap()) {
            let is_named = volumes.keys().any(|volume| volume.as_str() == Some(source));
            assert!(is_named || top.join(source).exists(), "{name:?} mounts {source}");
        }
        for other in service["depends_on"].as_hash().into_iter().flat_map(|others| others.keys()) {
            assert!(services.contains_key(other), "{name:?} depends on {other:?}");
        }
    }
    assert!(
        top.join(services[&yaml_rust2::Yaml::from_str("proxy")]["build"].as_str().unwrap()).join("Dockerfile").exists()
    );
    // The configuration it mounts is one, and the variables it names are those that the container is given.
    let variables = |service: &str| -> BTreeSet<String> {
        let environment = services[&yaml_rust2::Yaml::from_str(service)]["environment"].as_hash().unwrap();
        environment.keys().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let text = std::fs::read_to_string(top.join("deploy/compose/proxy.toml")).unwrap();
    // The files are made in the containers.
    let certificates = tempfile::tempdir().unwrap();
    let text = text.replace("\"/certs/", &format!("\"{}/", certificates.path().display()));
    for name in ["ca.crt", "proxy/server.crt", "proxy/server.key"] {
        let file = certificates.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    }
    let asked = RefCell::new(BTreeSet::new());
    let config = Config::parse(&text, "/etc/sluicegate/proxy.toml", &|name| {
        // These are looked for whether the file names them or not.
        if !name.starts_with("AWS_") {
            asked.borrow_mut().insert(name.to_owned());
        }
        Some("a password".to_owned())
    });
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.endpoints.len(), 2);
    assert_eq!(*asked.borrow(), variables("proxy"));
    // The databases make the accounts with the same ones.
    assert!(asked.borrow().is_subset(&variables("db")) && asked.borrow().is_subset(&variables("mariadb")));
    for (place, endpoint) in config.endpoints.iter().enumerate() {
        let published = &services[&yaml_rust2::Yaml::from_str("proxy")]["ports"][place];
        let listens = endpoint.listen[0].to_string();
        assert_eq!(published.as_str().unwrap().rsplit(':').next(), listens.rsplit(':').next());
    }
    // It asks databases that are there.
    for target in config.target_groups.iter().flat_map(|group| &group.targets) {
        let target = target.to_string();
        let host = target.split(':').next().unwrap();
        assert!(names.contains(&host), "{target}");
    }
}

/// SIGHUP with a file that is wrong: the balancer is told, and what ran goes on.
#[test]
fn a_reload_that_fails_shows_in_readyz() {
    let server = server(Feature::Any);
    let good = config(server.address(), 4);
    let proxy = start(&good);
    let ready = || get(proxy.admin, "/readyz", "localhost");
    let becomes = |status: u32| {
        let deadline = Instant::now() + PATIENCE;
        while ready().0 != status {
            assert!(Instant::now() < deadline, "{:?}", ready());
        }
        ready().1
    };
    let mut wire = Wire::connect(proxy.address, &login("app")).unwrap();
    assert_eq!(ready().0, 200);
    let no_certificate = format!("{good}[tls]\ncertificate = \"/nowhere/a\"\nprivate_key = \"/nowhere/b\"\n");
    for bad in [set(&good, "endpoint", "lisen", "\"x\""), no_certificate, "not a [[table".to_owned()] {
        proxy.reload(&bad);
        assert!(becomes(503).contains("configuration"), "{bad}");
        assert_eq!(get(proxy.admin, "/healthz", "localhost").0, 200);
        assert_eq!(wire.value("SELECT 1"), "1");
        assert_eq!(Wire::connect(proxy.address, &login("app")).unwrap().value("SELECT 2"), "2");
        proxy.reload(&good);
        assert_eq!(becomes(200), "ready\n");
    }
}

/// Out of open files: it says so at the start, waits, says it once, and goes on when there are some again.
#[test]
fn without_open_files_clients_wait() {
    let server = server(Feature::Any);
    let proxy = start_within(&config(server.address(), 4), &[], &["prlimit", "--nofile=80:80", "--"]);
    assert!(proxy.log().contains("more open files than the system grants"), "{}", proxy.log());
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(proxy.address).unwrap()).collect();
    proxy.logs("can't accept clients");
    // A few more tries of its.
    std::thread::sleep(Duration::from_millis(350));
    drop(crowd);
    assert_eq!(Wire::connect(proxy.address, &login("app")).unwrap().value("SELECT 1"), "1");
    let log = proxy.log();
    assert_eq!(log.matches("can't accept clients").count(), 1, "{log}");
}

#[test]
fn an_endpoint_by_ipv6() {
    let server = server(Feature::Any);
    let proxy =
        start(&set(&config(server.address(), 4), "endpoint", "listen", "[\"127.0.0.1:{port}\", \"[::1]:{port}\"]"));
    let six = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, proxy.address.port()));
    for address in [six, proxy.address] {
        assert_eq!(Wire::connect(address, &login("app")).unwrap().value("SELECT current_user"), "app");
    }
    proxy.logs("peer=[::1]:");
}
