//! Who comes in at a MySQL endpoint, and who does not: scenarios 31 to 45 and 54 of the list.

use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{app, both_sides, each, each_with, my_config};
use crate::harness::mysql::wire::{CACHING_SHA2, CLEAR, MyError, MyLogin, MyWire, NATIVE, Packet, proof};
use crate::harness::mysql::{Flavour, MyServer, servers};
use crate::harness::proxy::{ProxyHandle, set, start};
use sluicegate::demo::servers::{APP, APP_PASSWORD};

/// A proxy that lets another user in, who is made at the server with this clause.
fn proxy_for(server: &MyServer, user: &str, clause: &str, connections: u32) -> ProxyHandle {
    let mut root = server.root();
    root.query(&format!("DROP USER IF EXISTS {user}@'%'"));
    root.query(&format!("CREATE USER {user}@'%' {clause}"));
    let text = my_config(server, connections);
    let text = text.replace(&format!("name     = \"{APP}\""), &format!("name     = {user:?}"));
    start(&set(&text.replace(APP_PASSWORD, "first-secret"), "target_group.pool", "connection_borrow_timeout", "\"2s\""))
}

fn refused(result: Result<MyWire, MyError>) -> MyError {
    result.err().expect("a login that must fail")
}

/// Scenarios 31 and 32: without TLS no password is taken as it is, in whatever way it is offered.
#[test]
fn my_031_a_password_in_the_clear() {
    each("my_031", 4, &[], |_, name, proxy| {
        let login = app().database(name);
        let clear = [APP_PASSWORD.as_bytes(), &[0]].concat();
        for (plugin, shown) in [(CLEAR, &clear[..]), ("sha256_password", &clear), (CLEAR, b"")] {
            let mut wire = MyWire::open(proxy.address).unwrap();
            wire.respond(&login, plugin, shown);
            let switch = wire.receive();
            assert!(switch.payload.starts_with(b"\xFEcaching_sha2_password\0"), "{plugin}: {switch:?}");
            wire.send_next(&clear);
            assert_eq!(wire.receive().error().unwrap().code, 1045, "{plugin}");
            wire.until_closed();
        }
        // Nor is there a key to seal it with.
        let mut wire = MyWire::open(proxy.address).unwrap();
        wire.respond(&login, CACHING_SHA2, &[0x02]);
        assert_eq!(wire.receive().error().unwrap().code, 1045);
        wire.until_closed();
    });
}

/// Another plugin, with another challenge: the answer to the first one is none to the second.
#[test]
fn my_036_an_old_answer_to_a_new_challenge() {
    each("my_036", 4, &[], |_, name, proxy| {
        let login = app().database(name);
        for begins in [NATIVE, "client_ed25519", "sha256_password", "parsec", "dialog"] {
            for is_old in [true, false] {
                let mut wire = MyWire::open(proxy.address).unwrap();
                let first = wire.greeting().scramble;
                wire.respond(&login, begins, &[7; 20]);
                // Strict about its number, too.
                let switch = wire.receive();
                let second = switch.payload.strip_prefix(b"\xFEcaching_sha2_password\0").unwrap();
                let second: [u8; 20] = second[..20].try_into().unwrap();
                assert!(first != second && second.iter().all(|byte| *byte != 0), "{switch:?}");
                wire.send_next(&proof(CACHING_SHA2, &login, if is_old { &first } else { &second }));
                let answer = wire.receive();
                if is_old {
                    // It may still say its password.
                    assert_eq!(answer.payload[..], [1, 4], "{begins}");
                } else {
                    assert_eq!((&answer.payload[..], wire.receive().first()), (&[1, 3][..], 0), "{begins}");
                    assert_eq!(wire.value("SELECT 'in'"), "in");
                }
            }
        }
    });
}

/// A user who may use the older plugin does so at once, also before a server that has none.
#[test]
fn my_037_the_older_plugin() {
    let both = "[\"caching_sha2_password\", \"mysql_native_password\"]";
    let config = |server: &_| set(&my_config(server, 4), "user", "auth", both);
    each_with("my_037", &[], config, |_, name, proxy| {
        for (plugin, packets) in [(NATIVE, 2), (CACHING_SHA2, 3)] {
            let mut wire = MyWire::connect(proxy.address, &app().database(name).plugin(plugin)).unwrap();
            assert_eq!(wire.login().len(), packets, "{:?}", wire.login());
            assert_eq!(wire.value("SELECT 'in'"), "in");
            let wrong = MyLogin { password: "wrong".into(), ..app().plugin(plugin) };
            assert_eq!(refused(MyWire::connect(proxy.address, &wrong)).code, 1045);
        }
    });
}

/// Accounts whose plugins the proxy does not speak: its log names the plugin, and clients are told where to look.
#[test]
fn my_038_other_plugins_at_databases() {
    for server in servers() {
        let clause = match server.flavour() {
            Flavour::MySql => "IDENTIFIED WITH sha256_password BY 'first-secret'",
            Flavour::MariaDb => {
                let mut root = server.root();
                if root.query("SHOW PLUGINS").iter().all(|row| row[0].as_deref() != Some("ed25519")) {
                    root.query("INSTALL SONAME 'auth_ed25519'");
                }
                "IDENTIFIED VIA ed25519 USING PASSWORD('first-secret')"
            }
        };
        let proxy = proxy_for(server, "my_038", clause, 4);
        let login = MyWire::connect(proxy.address, &MyLogin::new("my_038", "first-secret"));
        if server.flavour() == Flavour::MariaDb {
            assert!(login.unwrap().value("SELECT USER()").starts_with("my_038@"));
        } else {
            let error = refused(login);
            assert_eq!((error.code, error.state.as_str()), (9501, "HY000"), "{error}");
            assert!(error.message.contains("see the proxy's log"), "{error}");
            proxy.logs("sha256_password");
        }
        server.root().query("DROP USER my_038@'%'");
    }
}

/// No proof at all is none.
#[test]
fn my_039_an_empty_password() {
    both_sides("my_039", 4, &[], |sides| {
        for plugin in [CACHING_SHA2, NATIVE] {
            let [direct, proxied] = sides.refused(|login| MyLogin { password: String::new(), ..login }.plugin(plugin));
            let [direct, proxied] = [direct, proxied].map(Option::unwrap);
            assert_eq!((proxied.code, proxied.state), (direct.code, direct.state), "{plugin}");
            assert!(!proxied.message.contains("YES"));
        }
    });
}

/// Nobody learns who exists; and who tries too often is told so, whoever it says it is.
#[test]
fn my_040_unknown_users() {
    each("my_040", 4, &[], |_, _, proxy| {
        let told = |login: &MyLogin| -> Vec<(usize, String)> {
            let mut wire = MyWire::open(proxy.address).unwrap();
            wire.log_in(login).unwrap_err();
            let shown = |packet: &Packet| {
                let text = packet.payload.escape_ascii().to_string().replace(&login.user, "USER");
                // A challenge is another one each time.
                (packet.payload.len(), if packet.first() == 0xFF { text } else { String::new() })
            };
            wire.login()[1..].iter().map(shown).collect()
        };
        for plugin in [CACHING_SHA2, NATIVE] {
            for password in ["wrong", ""] {
                // Of the same length.
                let [known, unknown] = [APP, "xyz"].map(|user| told(&MyLogin::new(user, password).plugin(plugin)));
                assert_eq!(known, unknown, "{plugin}");
            }
        }
        let mut tries = 0;
        let error = loop {
            let error = refused(MyWire::connect(proxy.address, &MyLogin::new("nobody", "wrong")));
            tries += 1;
            if error.code != 1045 {
                break error;
            }
            assert!(tries < 1000);
        };
        assert_eq!((error.code, error.state.as_str()), (1040, "08004"), "{error}");
        assert!(error.message.contains("too many failed logins"), "{error}");
    });
}

/// A password that has expired: nobody gets a connection that may only be used to change it.
#[test]
fn my_043_an_expired_password() {
    for server in servers() {
        let proxy = proxy_for(server, "my_043", "IDENTIFIED BY 'first-secret' PASSWORD EXPIRE", 4);
        let login = MyLogin::new("my_043", "first-secret");
        match server.flavour() {
            Flavour::MySql => {
                let error = refused(MyWire::connect(proxy.address, &login));
                assert_eq!((error.code, error.state.as_str()), (9501, "HY000"), "{error}");
                assert!(error.message.contains("1862"), "{error}");
            }
            // It lets everybody in, and answers nothing but a change of the password.
            Flavour::MariaDb => {
                let mut wire = MyWire::connect(proxy.address, &login).unwrap();
                assert_eq!(wire.error("SELECT 1").code, 1820);
                wire.until_closed();
                eventually(&proxy, &[("database_connections state=\"idle\"", 0.0)]);
            }
        }
        let mut root = server.root();
        root.query("ALTER USER my_043@'%' PASSWORD EXPIRE NEVER");
        root.query("ALTER USER my_043@'%' IDENTIFIED BY 'first-secret'");
        let mut wire = MyWire::connect(proxy.address, &login).unwrap();
        assert_eq!(wire.value("SELECT 'in'"), "in");
        // Who is in stays in.
        root.query("ALTER USER my_043@'%' PASSWORD EXPIRE");
        assert_eq!(wire.value("SELECT 'still in'"), "still in");
        root.query("DROP USER my_043@'%'");
    }
}

/// The database takes no more connections: that is no client's wrong password, and who can wait waits.
#[test]
fn my_045_a_database_that_takes_no_more_connections() {
    for server in servers() {
        let clause = "IDENTIFIED BY 'first-secret' WITH MAX_USER_CONNECTIONS 1";
        let proxy = proxy_for(server, "my_045", clause, 8);
        let login = MyLogin::new("my_045", "first-secret");
        let mut one = MyWire::connect(proxy.address, &login).unwrap();
        let mut other = MyWire::connect(proxy.address, &login).unwrap();
        one.query("BEGIN");
        other.send(b"\x03SELECT 'waited'");
        proxy.logs("1226");
        one.query("COMMIT");
        assert_eq!(other.receive().payload[..], [1]);
        (0..3).for_each(|_| drop(other.receive()));
        one.query("BEGIN");
        let error = other.error("SELECT 1");
        assert_eq!((error.code, error.state.as_str()), (9501, "HY000"), "{error}");
        // Neither is it a login's.
        let mut third = MyWire::connect(proxy.address, &login).unwrap();
        one.query("COMMIT");
        assert_eq!(third.value("SELECT 1"), "1");
        drop((one, other, third));
        server.root().query("DROP USER my_045@'%'");
    }
}

/// Scenarios 52 and 54: too many clients, of the endpoint or of one user, and too many at once: each in its own words, with an
/// SQLSTATE, as the greeting has been said.
#[test]
fn my_054_limits_in_front() {
    let limited = |table: &'static str, key: &'static str, value: &'static str| {
        move |server: &MyServer| set(&my_config(server, 4), table, key, value)
    };
    let is_told = |error: MyError, words: &str| {
        assert_eq!((error.code, error.state.as_str()), (1040, "08004"), "{error}");
        assert!(error.message.contains(words), "{error}");
    };
    each_with("my_054", &[], limited("endpoint", "max_clients", "2"), |_, _, proxy| {
        let mut here: Vec<MyWire> = (0..2).map(|_| MyWire::connect(proxy.address, &app()).unwrap()).collect();
        is_told(refused(MyWire::connect(proxy.address, &app())), "allows 2 (max_clients)");
        drop(here.pop());
        eventually(proxy, &[("client_connections", 1.0)]);
        MyWire::connect(proxy.address, &app()).unwrap();
    });
    each_with("my_054", &[], limited("user", "max_clients", "1"), |_, _, proxy| {
        let _here = MyWire::connect(proxy.address, &app()).unwrap();
        is_told(refused(MyWire::connect(proxy.address, &app())), "may have 1 (max_clients of this user)");
    });
    each_with("my_054", &[], limited("endpoint", "max_logins_per_second", "1"), |_, _, proxy| {
        let too_many = (0..10).find_map(|_| MyWire::connect(proxy.address, &app()).err());
        is_told(too_many.unwrap(), "takes 1 per second (max_logins_per_second)");
    });
}
