//! Whole files in, a `Config` or all that is wrong with them out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mistakes;
mod pages;
mod pins;
mod secrets;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// The smallest file that starts. Lines count from 1: `[[endpoint]]` is line 1.
const SMALL: &str = r#"[[endpoint]]
name = "orders"
listen = "127.0.0.1:6432"
target_group = "orders"
tls = "off"
#endpoint
[[target_group]]
name = "orders"
engine = "postgres"
targets = ["db1:5432"]
#group
[target_group.pool]
#pool
[target_group.health]
user = "monitor"
password = { env = "MONITOR_PASSWORD" }
#health
[[user]]
name = "app"
password = { value = "hunter2" }
#user
#root
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "MONITOR_PASSWORD" | "APP_PASSWORD" | "AUTH_PASSWORD" | "OPERATOR_PASSWORD" => {
            Some("from-the-environment".to_owned())
        }
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "proxy.toml", &env)
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

/// `SMALL` with one piece replaced; the piece has to be there.
fn small_with(piece: &str, replacement: &str) -> String {
    assert!(SMALL.contains(piece), "{piece}");
    SMALL.replacen(piece, replacement, 1)
}

fn messages(text: &str) -> Vec<String> {
    let errors = parse(text).expect_err(text);
    assert!(!errors.errors.is_empty());
    errors.to_string().lines().map(str::to_owned).collect()
}

/// Each case: what is replaced in `SMALL`, with what, and the whole message it leads to.
fn check(cases: &[(&str, &str, &str)]) {
    for (piece, replacement, expected) in cases {
        let text = small_with(piece, replacement);
        assert_eq!(messages(&text), [format!("proxy.toml:{expected}")], "{text}");
    }
}

#[test]
fn defaults() {
    let config = good(SMALL);
    let endpoint = &config.endpoints[0];
    assert_eq!(endpoint.role, EndpointRole::ReadWrite);
    assert_eq!(endpoint.idle_client_timeout, Some(Duration::from_secs(1800)));
    assert_eq!(endpoint.login_timeout, Duration::from_secs(15));
    assert_eq!(endpoint.max_clients, 10_000);
    for (ip, allowed) in [
        ("10.9.8.7", true),
        ("172.31.0.1", true),
        ("192.168.1.1", true),
        ("127.0.0.1", true),
        ("169.254.1.1", true),
        ("::1", true),
        ("fd00::1", true),
        ("fe80::1", true),
        ("8.8.8.8", false),
        ("172.32.0.1", false),
        ("2001:db8::1", false),
    ] {
        let ip: std::net::IpAddr = ip.parse().unwrap();
        let found = endpoint.allow_from.iter().any(|net| net.contains(&ip));
        assert_eq!(found, allowed, "{ip}");
    }
    let group = &config.target_groups[0];
    assert_eq!(group.engine, Engine::Postgres);
    assert_eq!(group.discovery, Discovery::Static);
    assert_eq!(group.tls.mode, TargetTlsMode::VerifyFull);
    assert_eq!(group.tls.ca_file, None);
    assert_eq!(group.health.database, "postgres");
    let of_mysql = good(&small_with("engine = \"postgres\"", "engine = \"mysql\""));
    assert_eq!(of_mysql.target_groups[0].health.database, "");
    assert_eq!(group.health.interval, Duration::from_millis(500));
    assert_eq!(group.health.suspect_interval, Duration::from_millis(100));
    assert_eq!(group.health.timeout, Duration::from_millis(500));
    assert_eq!(group.health.failures, 3);
    let pool = &group.pool;
    assert_eq!(pool.max_connections, ConnectionLimit::Percent(90));
    assert_eq!(pool.max_idle_connections_percent, 50);
    assert_eq!(pool.min_connections, 0);
    assert_eq!(pool.init_query, None);
    assert_eq!(pool.connection_borrow_timeout, Duration::from_secs(120));
    assert_eq!(pool.max_waiting, 10_000);
    assert_eq!(pool.connect_timeout, Duration::from_secs(5));
    assert_eq!(pool.max_logins_in_progress, 8);
    assert_eq!(pool.connection_max_lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(pool.connection_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!(pool.pool_mode, PoolMode::Transaction);
    assert_eq!(pool.reset, ResetPolicy::Smart);
    assert_eq!(pool.transaction_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!(pool.max_prepared_statements, 500);
    let user = &config.users[0];
    assert_eq!(user.auth, AuthMethod::ScramSha256);
    assert_eq!(user.database_user, "app");
    assert_eq!((user.max_clients, user.max_connections), (None, None));
    assert!(user.endpoints.is_none() && user.may_use("orders"));
    assert!(config.tls.is_none());
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:9632");
    assert_eq!(config.admin.hostnames, ["localhost"]);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.runtime.workers, 0);
    assert_eq!(config.runtime.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(config.runtime.state_dir, Path::new("/var/lib/sluicegate"));
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn values_other_than_the_defaults() {
    let text = SMALL
        .replace(
            "#endpoint",
            "role = 'read-write'\nidle_client_timeout = '0'\nlogin_timeout = '2s'\nmax_clients = 1_000\n\
             allow_from = ['192.0.2.0/24', '2001:db8::1']",
        )
        .replace(
            "listen = \"127.0.0.1:6432\"",
            "listen = ['127.0.0.1:6432', '[::1]:6432', 'unix:/run/x/.s.PGSQL.6432']",
        )
        .replace("db1:5432", "unix:/run/postgresql/.s.PGSQL.5432")
        .replace("#group", "tls = 'verify-ca'")
        .replace(
            "#pool",
            "max_connections = 80\nmax_idle_connections_percent = 100\nmin_connections = 3\ninit_query = 'SET x.y = 1'\nconnection_borrow_timeout = '1s'\n\
             max_waiting = 0\nconnect_timeout = '1s'\nmax_logins_in_progress = 1\nconnection_max_lifetime = '0'\n\
             connection_idle_timeout = '0'\npool_mode = 'session'\nreset = 'full'\ntransaction_idle_timeout = '0'\n\
             max_prepared_statements = 1",
        )
        .replace("#health", "database = 'm'\ninterval = '1s'\nsuspect_interval = '2s'\ntimeout = '3s'\nfailures = 1")
        .replace(
            "#user",
            "auth = ['scram-sha-256']\ndatabase_user = 'app_rw'\nendpoints = ['orders']\nmax_clients = 9\n\
             max_connections = 8",
        )
        .replace(
            "#root",
            "[admin]\nlisten = ''\nhostnames = []\n[log]\nformat = 'json'\nlevel = 'debug'\n\
             [runtime]\nworkers = 2\nshutdown_timeout = '0'\nstate_dir = '/tmp/x'",
        );
    let config = good(&text);
    let endpoint = &config.endpoints[0];
    assert_eq!(
        endpoint.listen,
        [
            ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 6432))),
            ListenAddress::Tcp("[::1]:6432".parse().unwrap()),
            ListenAddress::Unix(PathBuf::from("/run/x/.s.PGSQL.6432")),
        ]
    );
    assert_eq!(endpoint.idle_client_timeout, None);
    assert_eq!(endpoint.login_timeout, Duration::from_secs(2));
    assert_eq!(endpoint.max_clients, 1000);
    let networks: Vec<_> = endpoint.allow_from.iter().map(|n| n.to_string()).collect();
    assert_eq!(networks, ["192.0.2.0/24", "2001:db8::1/128"]);
    let group = &config.target_groups[0];
    let socket = PathBuf::from("/run/postgresql/.s.PGSQL.5432");
    assert_eq!(group.targets, [TargetAddress::Unix(socket)]);
    assert_eq!(group.tls.mode, TargetTlsMode::VerifyCa);
    assert_eq!(group.health.database, "m");
    assert_eq!(group.health.interval, Duration::from_secs(1));
    assert_eq!(group.health.suspect_interval, Duration::from_secs(2));
    assert_eq!(group.health.timeout, Duration::from_secs(3));
    assert_eq!(group.health.failures, 1);
    let pool = &group.pool;
    assert_eq!(pool.max_connections, ConnectionLimit::Absolute(80));
    assert_eq!(pool.max_idle_connections_percent, 100);
    assert_eq!(pool.min_connections, 3);
    assert_eq!(pool.init_query.as_deref(), Some("SET x.y = 1"));
    assert_eq!(pool.connection_borrow_timeout, Duration::from_secs(1));
    assert_eq!(pool.max_waiting, 0);
    assert_eq!(pool.connect_timeout, Duration::from_secs(1));
    assert_eq!(pool.max_logins_in_progress, 1);
    assert_eq!(pool.connection_max_lifetime, None);
    assert_eq!(pool.connection_idle_timeout, None);
    assert_eq!(pool.pool_mode, PoolMode::Session);
    assert_eq!(pool.reset, ResetPolicy::Full);
    assert_eq!(pool.transaction_idle_timeout, None);
    assert_eq!(pool.max_prepared_statements, 1);
    let user = &config.users[0];
    assert_eq!(user.database_user, "app_rw");
    assert_eq!((user.max_clients, user.max_connections), (Some(9), Some(8)));
    assert!(user.may_use("orders") && !user.may_use("other"));
    assert_eq!(config.admin.listen, None);
    assert!(config.admin.hostnames.is_empty());
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.runtime.workers, 2);
    assert_eq!(config.runtime.shutdown_timeout, Duration::ZERO);
    assert_eq!(config.runtime.state_dir, Path::new("/tmp/x"));
}

#[test]
fn the_writer_may_be_a_dns_name() {
    let text = small_with("targets = [\"db1:5432\"]", "discovery = 'dns'\nwriter_endpoint = 'db.internal:5433'");
    let group = &good(&text).target_groups[0];
    assert_eq!(group.discovery, Discovery::Dns);
    let (host, port) = ("db.internal".to_owned(), 5433);
    assert_eq!(group.targets, [TargetAddress::Tcp { host, port }]);
}

#[test]
fn a_unix_socket_needs_no_certificate() {
    let text = small_with("tls = \"off\"\n", "").replace("127.0.0.1:6432", "unix:/x/.s.PGSQL.6432");
    assert_eq!(good(&text).endpoints[0].tls, EndpointTls::Required);
}

#[test]
fn warnings_name_what_is_probably_not_meant() {
    for (piece, replacement, expected) in [
        ("[[user]]\nname = \"app\"\npassword = { value = \"hunter2\" }", "", "no user can log in here"),
        ("127.0.0.1:6432", "0.0.0.0:6432", "listens off loopback with tls = \"off\""),
        ("#group", "tls = 'off'", "rows cross the network in the clear"),
        ("#group", "tls = 'require'", "takes any certificate"),
        ("engine = \"postgres\"", "engine = \"mysql\"\ntls = 'require'", "fail whenever that has restarted"),
        ("#group", "tls = 'require'\nca_file = 'Cargo.toml'", "ca_file has no effect"),
        (
            "[[target_group]]",
            "[[target_group]]\nname = 'spare'\nengine = 'postgres'\ntargets = ['db9:5432']\n\
             health = { user = 'm', password = { value = 'x' } }\n[[target_group]]",
            "target group \"spare\": no endpoint leads to it",
        ),
        ("#user", "max_clients = 10001", "max_clients = 10001 has no effect, its endpoints take 10000 clients"),
        (
            "#user",
            "max_clients = 4\nmax_connections = 5",
            "max_connections = 5 has no effect, a client holds one connection at most and max_clients is 4",
        ),
    ] {
        let config = good(&small_with(piece, replacement));
        let told = config.warnings.iter().any(|w| w.contains(expected));
        assert!(told, "{expected}: {:?}", config.warnings);
    }
}

#[test]
fn limits_that_others_make_void_are_noted() {
    let warnings = |pool: &str, user: &str| good(&SMALL.replace("#pool", pool).replace("#user", user)).warnings;
    assert_eq!(
        warnings("max_connections = 9", "max_connections = 10"),
        ["user \"app\": max_connections = 10 has no effect at target group \"orders\", where all users together may \
             have 9"]
    );
    assert_eq!(warnings("max_connections = 9", "max_connections = 9\nmax_clients = 9"), [""; 0]);
    assert_eq!(
        warnings("max_connections = 9\nmin_connections = 9", "max_connections = 8"),
        [
            "user \"app\": max_connections = 8 is less than min_connections of target group \"orders\", which is 9",
            "target group \"orders\": min_connections = 9 can't be reached: max_connections is 9, and the proxy's own \
             connections count too"
        ]
    );
}

#[test]
fn a_file_cut_off_anywhere_is_only_ever_an_error() {
    for end in 0..SMALL.len() {
        let _ = parse(&SMALL[..end]);
    }
    for piece in ["\"", "[", "]", "=", "{", "}", ".", "\n", "1"] {
        for (at, _) in SMALL.match_indices(piece) {
            let _ = parse(&format!("{}{}", &SMALL[..at], &SMALL[at + 1..]));
            let _ = parse(&format!("{}{piece}{}", &SMALL[..at], &SMALL[at..]));
        }
    }
}
