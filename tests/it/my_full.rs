//! "Full authentication" of `caching_sha2_password`: a client whose answer to the challenge was wrong is asked for the password itself, over TLS as
//! it is and else under the proxy's key. Scenarios 30 to 32 and 40 of the list, packet by packet beside MySQL.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{app, each_with, my_config};
use crate::harness::mysql::wire::{CACHING_SHA2, MyLogin, MyWire, Packet, sealed};
use crate::harness::mysql::{Flavour, MyServer, server, servers};
use crate::harness::proxy::{ProxyHandle, set, start};
use crate::harness::wire::PATIENCE;
use sluicegate::demo::servers::{APP, APP_PASSWORD};

/// What a client says behind its answer.
#[derive(Clone, Copy, Debug)]
enum Say {
    /// It wants the key.
    Key,
    Bytes(&'static [u8]),
    /// So many bytes of no meaning.
    Noise(usize),
    /// This under the key that it has been shown, or has from before.
    Sealed(&'static str),
    /// The right password as it is, and what comes behind it.
    Itself(&'static [u8]),
}
use Say::{Bytes, Itself, Key, Noise, Sealed};

/// TLS is there for who wants it.
fn optional_tls(server: &MyServer) -> String {
    let file = |name: &str| format!("{:?}", server.folder().join(name));
    let text = set(&my_config(server, 4), "endpoint", "tls", "\"optional\"");
    let text = set(&text, "tls", "certificate", &file("server.crt"));
    set(&text, "tls", "private_key", &file("server.key"))
}

/// The numbers of all packets that come, and what they say: behind a response with this answer, and behind each that the client says then.
fn told(address: SocketAddr, login: &MyLogin, key: &[u8], answer: &[u8], says: &[Say]) -> Vec<(u8, String)> {
    let mut wire = MyWire::open(address).unwrap();
    let scramble = wire.greeting().scramble;
    wire.respond(login, CACHING_SHA2, answer);
    let mut packets = vec![wire.receive()];
    for say in says {
        wire.send_next(&match say {
            Key => vec![2],
            Bytes(bytes) => bytes.to_vec(),
            Noise(length) => vec![7; *length],
            Sealed(password) => sealed(key, password, &scramble),
            Itself(behind) => [APP_PASSWORD.as_bytes(), behind].concat(),
        });
        packets.push(wire.receive());
    }
    if packets.last().unwrap().first() == 0xFF {
        wire.until_closed();
    }
    packets.iter().map(|packet| shown(packet, &login.user)).collect()
}

/// What is the same wherever it is said.
fn shown(packet: &Packet, user: &str) -> (u8, String) {
    let text = String::from_utf8_lossy(&packet.payload);
    let text = match packet.first() {
        // The status is the session's.
        0 => "OK".to_owned(),
        // Of a key, its form.
        1 if packet.payload.len() > 2 => {
            let lines: Vec<usize> = text.lines().map(str::len).collect();
            format!("{:?} {lines:?}, ends with a line: {}", &text[..30], text.ends_with('\n'))
        }
        0xFF => {
            // MySQL says from where it comes.
            let words = packet.error().unwrap().to_string().replace(&format!("'{user}'"), "USER");
            words.replace("@'localhost'", "").replace("@'127.0.0.1'", "")
        }
        _ => format!("{packet:?}"),
    };
    (packet.sequence, text)
}

/// The key as it is shown to whom it does not know.
fn shown_key(address: SocketAddr) -> Vec<u8> {
    let mut wire = doubted(address);
    wire.send_next(&[2]);
    wire.receive().payload[1..].to_vec()
}

/// A client that has answered wrong, and is asked for its password.
fn doubted(address: SocketAddr) -> MyWire {
    let mut wire = MyWire::open(address).unwrap();
    wire.respond(&app(), CACHING_SHA2, &[7; 32]);
    assert_eq!(wire.receive().payload[..], [1, 4]);
    wire
}

const WITHOUT_TLS: &[&[Say]] = &[
    &[],
    &[Key],
    &[Key, Sealed(APP_PASSWORD)],
    &[Key, Sealed("wrong")],
    &[Key, Sealed("")],
    &[Sealed(APP_PASSWORD)],
    &[Sealed("wrong")],
    // Scenario 32: as it is, it is not taken.
    &[Itself(b"\0")],
    &[Key, Itself(b"\0")],
    &[Key, Key],
    &[Key, Noise(256)],
    &[Noise(256)],
    &[Noise(255)],
    &[Noise(300)],
    &[Key, Noise(60_000)],
    &[Bytes(b"")],
    &[Bytes(b"\0")],
];

const OVER_TLS: &[&[Say]] = &[
    &[],
    &[Itself(b"\0")],
    &[Itself(b"")],
    &[Itself(b"\0\0")],
    &[Bytes(b"wrong\0")],
    &[Bytes(b"\0")],
    &[Bytes(b"")],
    // No key is asked for there.
    &[Key],
    &[Noise(300)],
    &[Noise(60_000)],
];

/// All that clients may say, with or without TLS, and what comes of it.
fn conversations(address: SocketAddr, server: &MyServer, user: &str) -> Vec<String> {
    let (key, mut all) = (shown_key(address), Vec::new());
    for (login, scripts) in [(app(), WITHOUT_TLS), (app().tls(&server.ca_file()), OVER_TLS)] {
        let login = MyLogin { user: user.to_owned(), ..login };
        let way = if login.ca_file.is_some() { "over TLS" } else { "without TLS" };
        for answer in [&[7; 32][..], &[7; 20], &[7; 33], &[2], &[0], &[]] {
            // Nothing is asked for behind what can be no answer.
            let scripts = if answer.len() == 32 { scripts } else { &scripts[..1] };
            for script in scripts {
                let told = told(address, &login, &key, answer, script);
                all.push(format!("{way}, an answer of {} bytes, then {script:?}: {told:?}", answer.len()));
            }
        }
    }
    all
}

/// Scenarios 30 to 32. Beside MySQL: the same packets, with the same numbers. MariaDB has no such plugin, and a proxy before it says the
/// same.
#[test]
fn my_031_packet_by_packet() {
    let mut before_mysql = Vec::new();
    for server in servers() {
        let proxy = start(&optional_tls(server));
        let proxied = conversations(proxy.address, server, APP);
        if server.flavour() == Flavour::MySql {
            same(&proxied, &conversations(server.address(), server, APP));
            before_mysql = proxied;
        } else {
            same(&proxied, &before_mysql);
        }
    }
}

fn same(found: &[String], expected: &[String]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

/// Scenario 40: who does not exist is told the same, but for getting in.
#[test]
fn my_040_the_same_for_unknown_users() {
    each_with("my_040_full", &[], optional_tls, |server, _, proxy| {
        // Of the same length: it is in the words.
        let unknown = "x".repeat(APP.len());
        let [known, unknown] = [APP, &unknown].map(|user| conversations(proxy.address, server, user));
        let denied = "1045 (28000): Access denied for user USER (using password: YES)";
        let known: Vec<String> = known.iter().map(|told| told.replace("\"OK\"", &format!("{denied:?}"))).collect();
        assert!(known.iter().all(|told| !told.contains("OK")));
        same(&unknown, &known);
    });
}

/// A client learns by its answer alone whether that was right: each wrong one counts, whether it goes on or not.
#[test]
fn my_040_guesses_that_leave() {
    let config = |server: &_| my_config(server, 4);
    each_with("my_040_guesses", &[], config, |_, _, proxy| {
        drop(doubted(proxy.address));
        eventually(proxy, &[("logins_refused_total reason=\"password\"", 1.0)]);
        let told = (0..1000).find_map(|_| {
            let mut wire = MyWire::open(proxy.address).unwrap();
            wire.respond(&app(), CACHING_SHA2, &[7; 32]);
            wire.receive().error()
        });
        let error = told.expect("no end of guesses");
        assert_eq!((error.code, error.state.as_str()), (1040, "08004"), "{error}");
        assert!(error.message.contains("too many failed logins"), "{error}");
    });
}

/// Who is right in the end has not guessed, however often it comes.
#[test]
fn my_031_a_right_password_costs_no_try() {
    each_with("my_031_tries", &[], optional_tls, |server, name, proxy| {
        for login in [app(), app().tls(&server.ca_file())] {
            for _ in 0..150 {
                let mut wire = MyWire::open(proxy.address).unwrap();
                wire.respond(&login, CACHING_SHA2, &[7; 32]);
                wire.prove_from(&login.clone().database(name)).unwrap();
                assert_eq!(wire.login().last().unwrap().first(), 0);
            }
        }
    });
}

/// What a key costs is spent behind the limits alone: nobody is asked for a password who comes too fast.
#[test]
fn my_031_limits_come_first() {
    let config = |server: &_| set(&my_config(server, 4), "endpoint", "max_logins_per_second", "1");
    each_with("my_031_limits", &[], config, |_, _, proxy| {
        let told = (0..10).find_map(|_| {
            let mut wire = MyWire::open(proxy.address).unwrap();
            wire.respond(&app(), CACHING_SHA2, &[7; 32]);
            wire.receive().error()
        });
        assert!(told.unwrap().message.contains("max_logins_per_second"));
    });
}

/// Where TLS is required nothing comes without it, nor is a key shown.
#[test]
fn my_032_no_key_where_tls_is_required() {
    let config = |server: &_| set(&optional_tls(server), "endpoint", "tls", "\"required\"");
    each_with("my_032", &[], config, |server, _, proxy: &ProxyHandle| {
        let mut wire = MyWire::open(proxy.address).unwrap();
        wire.respond(&app(), CACHING_SHA2, &[7; 32]);
        assert_eq!(wire.receive().error().unwrap().code, 3159);
        wire.until_closed();
        let mut wire = MyWire::open(proxy.address).unwrap();
        let login = app().tls(&server.ca_file());
        wire.respond(&login, CACHING_SHA2, &[7; 32]);
        wire.prove_from(&login).unwrap();
    });
}

/// Scenario 44: a client knows a new password before the proxy does. Its answer is enough for it to be read again, also of a client that says
/// nothing without TLS and leaves.
#[test]
fn my_044_a_new_password_that_a_client_answers_with() {
    let server = server(Flavour::MariaDb);
    let mut root = server.root();
    root.query("DROP USER IF EXISTS my_044@'%'");
    root.query("CREATE USER my_044@'%' IDENTIFIED BY 'second-secret'");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "first-secret").unwrap();
    let text = set(&my_config(server, 4), "user", "name", "\"my_044\"");
    let proxy = start(&set(&text, "user", "password", &format!("{{ file = \"{}\" }}", file.display())));
    fs::write(&file, "second-secret").unwrap();
    let (login, began) = (MyLogin::new("my_044", "second-secret"), Instant::now());
    // Not for ten seconds after it was last read: so long a storm of guesses must wait.
    while !proxy.log().contains("the password was read again, and is another one") {
        let mut wire = MyWire::open(proxy.address).unwrap();
        wire.respond(&login, CACHING_SHA2, &[7; 32]);
        drop(wire.receive());
        assert!(began.elapsed() < PATIENCE, "{}", proxy.log());
    }
    while MyWire::connect(proxy.address, &login).is_err() {
        assert!(began.elapsed() < PATIENCE, "{}", proxy.log());
    }
    root.query("DROP USER my_044@'%'");
}
