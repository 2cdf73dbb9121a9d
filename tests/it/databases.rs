//! Logins at databases as clients meet them: every way a database asks, TLS, standbys; and the top-level `proxy.toml`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::{io, thread};

use sluicegate::demo::servers::{APP, APP_PASSWORD, Auth, Feature, Installation, MONITOR_PASSWORD};
use sluicegate::demo::servers::{Options, PostgresServer};

use crate::harness::proxy::{config, set, start, start_with};
use crate::harness::server;
use crate::harness::wire::{Login, Wire};

fn both(check: impl Fn(&Installation)) {
    for feature in [Feature::Protocol3_0Only, Feature::Protocol3_2] {
        check(&Installation::find(feature).unwrap());
    }
}

fn login() -> Login {
    Login::app().database("app")
}

/// The words of the error that this login ends with.
fn refused(address: SocketAddr) -> (String, String) {
    let Err(failed) = Wire::connect(address, &login()) else { panic!("should not come in") };
    let error = failed.frames.last().unwrap();
    (error.field(b'C').unwrap_or_default(), error.field(b'M').unwrap_or_default())
}

#[test]
fn every_way_a_database_asks() {
    both(|installation| {
        for (auth, ssl) in [(Auth::Scram, false), (Auth::Md5, false), (Auth::Trust, false), (Auth::Password, true)] {
            let database = PostgresServer::start(installation, Options { auth, ssl, ..Options::default() }).unwrap();
            let text = config(database.address(), 4);
            let text = match database.ca_file() {
                Some(ca_file) if ssl => {
                    let text = set(&text, "target_group", "tls", "\"verify-full\"");
                    set(&text, "target_group", "ca_file", &format!("{ca_file:?}"))
                }
                _ => text,
            };
            let proxy = start(&text);
            let mut wire = Wire::connect(proxy.address, &login()).unwrap();
            assert_eq!(wire.value("SELECT current_user"), APP, "{auth:?}");
            let encrypted = wire.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
            assert_eq!(encrypted == "t", ssl, "{auth:?}");
        }
    });
}

/// A password is never sent in the clear.
#[test]
fn a_database_that_wants_the_password_in_the_clear_does_not_get_it() {
    let installation = Installation::find(Feature::Any).unwrap();
    let database =
        PostgresServer::start(&installation, Options { auth: Auth::Password, ..Options::default() }).unwrap();
    let proxy = start(&config(database.address(), 4));
    // Not even the probe's, without which there is no budget.
    let (code, words) = refused(proxy.address);
    assert!(code == "57P03" && words.contains("no writer of target group \"it\""), "{code} {words}");
    proxy.logs("asks for the password in the clear");
}

/// The same server by an address that its certificate does not name.
fn by_another_address(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(server) else { continue };
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    address
}

#[test]
fn certificates_of_databases() {
    both(|installation| {
        let start_server = || PostgresServer::start(installation, Options { ssl: true, ..Options::default() }).unwrap();
        let (database, other) = (start_server(), start_server());
        let elsewhere = by_another_address(database.address());
        let proxy = |address: SocketAddr, tls: &str, authority: &PostgresServer| {
            let text = set(&config(address, 4), "target_group", "tls", &format!("{tls:?}"));
            let text = set(&text, "target_group.pool", "connection_borrow_timeout", "\"2s\"");
            start(&set(&text, "target_group", "ca_file", &format!("{:?}", authority.ca_file().unwrap())))
        };
        for (address, tls) in
            [(database.address(), "verify-full"), (database.address(), "verify-ca"), (elsewhere, "verify-ca")]
        {
            let proxy = proxy(address, tls, &database);
            let mut wire = Wire::connect(proxy.address, &login()).unwrap();
            assert_eq!(wire.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t", "{tls}");
        }
        for (address, tls, authority) in
            [(elsewhere, "verify-full", &database), (database.address(), "verify-ca", &other)]
        {
            let proxy = proxy(address, tls, authority);
            let (code, words) = refused(proxy.address);
            assert!(code == "57P03" && words.contains("no writer of target group"), "{tls}: {code} {words}");
            proxy.logs("certificate");
        }
    });
}

#[test]
fn a_standby_takes_no_clients() {
    both(|installation| {
        let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
        let writer = PostgresServer::start(installation, Options { settings, ..Options::default() }).unwrap();
        let standby = Options { replica_of: Some(&writer), ..Options::default() };
        let standby = PostgresServer::start(installation, standby).unwrap();
        let text = set(&config(standby.address(), 4), "target_group.pool", "connection_borrow_timeout", "\"1s\"");
        let proxy = start(&text);
        let (code, words) = refused(proxy.address);
        assert!(code.starts_with('5') && words.contains("target group \"it\""), "{code} {words}");
        proxy.logs("standby");
        // Promoted, it takes them.
        standby.promote().unwrap();
        proxy.logs("is up");
        assert_eq!(Wire::connect(proxy.address, &login()).unwrap().value("SELECT pg_is_in_recovery()"), "f");
    });
}

#[test]
fn the_configuration_at_the_top_starts() {
    let database = server(Feature::Any);
    let role = format!(
        "DO $$ BEGIN CREATE ROLE sluicegate_monitor LOGIN PASSWORD '{MONITOR_PASSWORD}'; \
         EXCEPTION WHEN duplicate_object THEN END $$"
    );
    Wire::connect(database.address(), &Login::superuser()).unwrap().query(&role);
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(top.join("proxy.toml")).unwrap();
    // Nothing but the addresses is changed, and each stands there once.
    let replaced = [
        ("listen              = [\"127.0.0.1:6432\"]", "listen = [\"127.0.0.1:{port}\"]".to_owned()),
        ("[\"127.0.0.1:5432\"]", format!("[\"{}\"]", database.address())),
        ("\"127.0.0.1:9632\"", "\"127.0.0.1:{admin_port}\"".to_owned()),
    ];
    let text = replaced.iter().fold(text, |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    });
    let passwords = [("MONITOR_PASSWORD", MONITOR_PASSWORD), ("APP_PASSWORD", APP_PASSWORD)];
    let proxy = start_with(&text, &passwords);
    assert_eq!(Wire::connect(proxy.address, &login()).unwrap().value("SELECT current_user"), APP);
}
