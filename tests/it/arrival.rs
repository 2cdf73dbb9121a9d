//! How clients arrive: through load balancers that say whom they bring, and faster than the endpoint takes them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, MONITOR_PASSWORD, Options, PostgresServer};

use crate::harness::gate::{Gate, cancel, cancel_request};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Frame, Login, PATIENCE, Wire, authenticate, message, query, read_frame};
use crate::harness::{each_with, server, until_running};

const LOGIN: fn() -> Login = || Login::app().database("app");

fn balancer(proxy: &ProxyHandle) -> TcpStream {
    let stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes of a login behind this header: "" or the error.
fn behind(proxy: &ProxyHandle, header: &[u8]) -> String {
    let mut stream = balancer(proxy);
    stream.write_all(header).unwrap();
    let login = authenticate(&mut stream, &LOGIN(), &mut Vec::new());
    // Whoever is in asks something, too.
    let answer = login.and_then(|()| {
        stream.write_all(&message(b'Q', b"SELECT 1\0"))?;
        stream.read_exact(&mut [0; 5])
    });
    answer.err().map_or_else(String::new, |error| error.to_string())
}

#[test]
fn a_balancers_header_says_who_the_client_is() {
    let text = set(&config(server(Feature::Any).address(), 4), "endpoint", "proxy_protocol_from", "[\"127.0.0.1\"]");
    let proxy = start(&set(&text, "endpoint", "allow_from", "[\"10.0.0.0/8\", \"2001:db8::/32\"]"));
    assert_eq!(behind(&proxy, b"PROXY TCP4 10.1.2.3 10.0.0.1 8080 5432\r\n"), "");
    assert_eq!(behind(&proxy, b"PROXY TCP6 2001:db8::1 ::1 8080 5432\r\n"), "");
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[10, 1, 2, 3, 10, 0, 0, 1, 0, 80, 0, 81]].concat();
    assert_eq!(behind(&proxy, &v2), "");
    let refused = behind(&proxy, b"PROXY TCP4 192.168.1.1 10.0.0.1 8080 5432\r\n");
    assert!(refused.contains("allow_from"), "{refused}");
    // The balancer itself, which is not among those who may connect.
    let refused = behind(&proxy, b"PROXY UNKNOWN\r\n");
    assert!(refused.contains("allow_from"), "{refused}");
    // Without a header, and with a bad one: closed without a word.
    for header in [&b""[..], b"PROXY TCP4 nonsense\r\n"] {
        let mut stream = balancer(&proxy);
        stream.write_all(header).unwrap();
        stream.write_all(&LOGIN().startup()).unwrap();
        let mut said = Vec::new();
        // A reset will do as well: what was sent is not read to its end.
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty(), "{said:?}");
    }
    // It is said once, not for every connection.
    let log = proxy.logs("a balancer's connection was closed");
    assert_eq!(log.matches("a balancer's connection was closed").count(), 1, "{log}");
    assert!(log.contains("PROXY protocol header"), "{log}");
}

#[test]
fn a_header_from_anybody_else_is_a_protocol_error() {
    let proxy = start(&config(server(Feature::Any).address(), 4));
    let words = behind(&proxy, b"PROXY TCP4 10.1.2.3 10.0.0.1 8080 5432\r\n");
    assert!(!words.is_empty());
    assert_eq!(behind(&proxy, b""), "");
}

/// A balancer that looks whether somebody is there: nothing is said of it, no place stays taken.
#[test]
fn pg_112_a_balancer_that_looks_in() {
    let text = set(&config(server(Feature::Any).address(), 4), "endpoint", "proxy_protocol_from", "[\"127.0.0.1\"]");
    // Nothing else is to be said of the target.
    let text = set(&text, "target_group.health", "timeout", "\"20s\"");
    let proxy = start(&set(&text, "endpoint", "max_clients", "4"));
    proxy.logs("the target is up");
    let lines = proxy.log().lines().count();
    let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..]].concat();
    for _ in 0..20 {
        drop(balancer(&proxy));
        let reset = balancer(&proxy);
        socket2::SockRef::from(&reset).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(reset);
        balancer(&proxy).write_all(&local).unwrap();
        balancer(&proxy).write_all(b"PROXY UNKNOWN\r\n").unwrap();
    }
    let began = Instant::now();
    let mut here = Vec::new();
    while here.len() < 4 {
        let mut stream = balancer(&proxy);
        stream.write_all(b"PROXY TCP4 127.0.0.1 10.0.0.1 8080 5432\r\n").unwrap();
        if authenticate(&mut stream, &LOGIN(), &mut Vec::new()).is_ok() {
            here.push(stream);
        }
        assert!(began.elapsed() < PATIENCE, "{}", proxy.log());
    }
    let log = proxy.log();
    // Only of those who have logged in, or found no place yet.
    let others = log.lines().skip(lines).filter(|line| !line.contains("logged in") && !line.contains("too many"));
    assert_eq!(others.count(), 0, "{log}");
}

#[test]
fn so_many_logins_a_second() {
    let config = |server: &PostgresServer| set(&config(server.address(), 4), "endpoint", "max_logins_per_second", "3");
    each_with("login_rate", &[], config, |_, database, proxy| {
        let login = Login::app().database(database);
        let outcomes: Vec<_> = (0..60).map(|_| Wire::connect(proxy.address, &login)).collect();
        let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert!(outcomes[..3].iter().all(Result::is_ok) && !refused.is_empty());
        for refusal in refused {
            let words = refusal.to_string();
            assert!(words.contains("too many logins") && words.contains("max_logins_per_second"), "{words}");
        }
        // Those who are in stay in.
        for mut wire in outcomes.into_iter().flatten() {
            assert_eq!(wire.value("SELECT 1"), "1");
        }
    });
}

/// Who says nothing is no login, and takes none of them from the others; nor does who is refused anyway, who cancels, or
/// who speaks something else.
#[test]
fn probes_are_no_logins() {
    let text = set(&config(server(Feature::Any).address(), 4), "endpoint", "max_logins_per_second", "1");
    let text = set(&text, "endpoint", "allow_from", "[\"127.0.0.1\"]");
    let proxy = start(&text);
    for _ in 0..20 {
        drop(TcpStream::connect(proxy.address).unwrap());
    }
    for _ in 0..5 {
        from([127, 0, 0, 2], proxy.address, &LOGIN().startup());
        from([127, 0, 0, 1], proxy.address, b"GET / HTTP/1.1\r\n\r\n");
        from([127, 0, 0, 1], proxy.address, &cancel_request(b"12345678"));
    }
    // All of them have come and gone before the one login that there is room for.
    proxy.until_metric("sluicegate_client_connections_received_total", 35);
    proxy.until_metric("sluicegate_client_connections_closed_total", 35);
    Wire::connect(proxy.address, &LOGIN()).unwrap();
}

/// What its BackendKeyData holds.
fn key(client: &Wire) -> Vec<u8> {
    client.login().iter().find(|frame| frame.kind == b'K').unwrap().body.to_vec()
}

/// The code of the only error among these frames.
fn code(frames: &[Frame]) -> String {
    frames.iter().find(|frame| frame.kind == b'E').and_then(|frame| frame.field(b'C')).unwrap_or_default()
}

/// Says this from another address of this machine, and waits for the end of it.
fn from(source: [u8; 4], address: SocketAddr, bytes: &[u8]) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    // Whoever is closed on with something unread is reset.
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A right key alone is not enough.
#[test]
fn who_may_not_connect_cancels_nothing() {
    let gate = Gate::before(server(Feature::Any).address());
    let proxy = start(&set(&config(gate.address, 4), "endpoint", "allow_from", "[\"127.0.0.1\"]"));
    let mut victim = Wire::connect(proxy.address, &LOGIN()).unwrap();
    victim.send(&query("SELECT 'who may', pg_sleep(600)"));
    until_running(server(Feature::Any), "app", "SELECT ''who may''%", 1);
    for _ in 0..20 {
        from([127, 0, 0, 2], proxy.address, &cancel_request(&key(&victim)));
    }
    assert_eq!(gate.cancels().0, 0);
    cancel(proxy.address, &key(&victim));
    assert_eq!(code(&victim.until_ready(1)), "57014");
}

/// Keys are tries like passwords, at an endpoint that is full, too; who has all of its tries may cancel there.
#[test]
fn keys_can_not_be_tried_without_end() {
    let text = set(&config(server(Feature::Any).address(), 4), "endpoint", "max_clients", "2");
    for full in [false, true] {
        let proxy = start(&set(&text, "log", "level", "\"debug\""));
        let mut victim = Wire::connect(proxy.address, &LOGIN()).unwrap();
        let other = full.then(|| Wire::connect(proxy.address, &LOGIN()).unwrap());
        victim.send(&query("SELECT 'keys', pg_sleep(600)"));
        until_running(server(Feature::Any), "app", "SELECT ''keys''%", 1);
        cancel(proxy.address, &key(&victim));
        assert_eq!(code(&victim.until_ready(1)), "57014", "{full}");
        let mut wrong = key(&victim);
        wrong[7] ^= 1;
        let began = Instant::now();
        for _ in 0..400 {
            from([127, 0, 0, 1], proxy.address, &cancel_request(&wrong));
        }
        let tries = 100 + 10 * (began.elapsed().as_secs() as usize + 1);
        proxy.until_metric("sluicegate_client_connections_closed_total", 401);
        let looked_up = proxy.log().matches("a key that nobody has").count();
        assert!((100..=tries).contains(&looked_up), "{looked_up} of 400 were looked up, {full}");
        drop(other);
    }
}

/// Names that are looked up in the database are tries as well, also when nobody is there to hear what comes of it.
#[test]
fn pg_107_names_can_not_be_tried_without_end() {
    let installation = Installation::find(Feature::Any).unwrap();
    let server = PostgresServer::start(&installation, Options::default()).unwrap();
    let text = config(server.address(), 8).replace(
        "[[user]]",
        "  [target_group.auth_query]\n  enabled = true\n  query = \"SELECT rolname, NULL::text FROM pg_roles WHERE rolname = \
         $1\"\n  user = \"sluicegate_monitor\"\n  password = { value = \"monitor-secret\" }\n\n[[user]]",
    );
    let text = set(&text, "target_group.auth_query", "password", &format!("{{ value = {MONITOR_PASSWORD:?} }}"));
    let proxy = start(&text);
    proxy.logs("the target is up");
    let asked = |number: usize| {
        let mut stream = balancer(&proxy);
        stream.write_all(&Login::new(&format!("ghost{number}"), "").database("app").startup()).unwrap();
        read_frame(&mut stream).map(|frame| frame.kind)
    };
    let began = Instant::now();
    let mut number = 0;
    while asked(number).unwrap() == b'R' {
        number += 1;
        assert!(number < 1000 && began.elapsed() < PATIENCE, "{number} names, and still asked for a proof");
    }
    assert!(number >= 100, "{number}");
    // Later, one who is known comes in.
    let began = Instant::now();
    while let Err(words) = Wire::connect(proxy.address, &LOGIN()) {
        assert!(words.to_string().contains("too many failed logins") && began.elapsed() < PATIENCE, "{words}");
    }
}

/// Nobody gets more than ten tries a second, after a hundred.
#[test]
fn so_many_refused_proofs() {
    let proxy = start(&config(server(Feature::Any).address(), 4));
    let outcome = |password: &str| {
        let login = Login::new(APP, password).database("app");
        Wire::connect(proxy.address, &login).map_err(|failed| failed.to_string())
    };
    let refusals: Vec<_> = (0..400).map(|_| outcome("wrong-secret").err().unwrap()).collect();
    assert!(refusals[..100].iter().all(|words| words.contains("password authentication failed")));
    let told = refusals.iter().filter(|words| words.contains("too many failed logins from your address")).count();
    assert!(told > 0, "{:?}", refusals.last());
    // It passes, and then the right password is as good as ever.
    let began = Instant::now();
    while let Err(words) = outcome(APP_PASSWORD) {
        assert!(words.contains("too many failed logins") && began.elapsed() < PATIENCE, "{words}");
    }
}

/// Those who say nothing take three quarters of the places at most.
#[test]
fn so_many_logins_that_are_not_done() {
    let text = set(&config(server(Feature::Any).address(), 4), "endpoint", "max_clients", "8");
    let proxy = start(&text);
    let mut silent: Vec<_> = (0..6).map(|_| TcpStream::connect(proxy.address).unwrap()).collect();
    let login = || Wire::connect(proxy.address, &Login::app().database("app")).map_err(|failed| failed.to_string());
    let began = Instant::now();
    let words = loop {
        // Until the last of them has been accepted.
        match login() {
            Ok(_) => assert!(began.elapsed() < PATIENCE),
            Err(words) => break words,
        }
    };
    assert!(words.contains("takes 6 (three quarters of max_clients)"), "{words}");
    drop(silent.pop());
    while let Err(words) = login() {
        assert!(words.contains("three quarters") && began.elapsed() < PATIENCE, "{words}");
    }
}

/// What a load balancer asks: nothing is said of it, and its place is free again.
#[test]
fn pg_112_who_connects_and_leaves_is_no_noise() {
    let text = set(&config(server(Feature::Any).address(), 4), "endpoint", "max_clients", "4");
    let proxy = start(&text);
    proxy.logs("the target is up");
    for _ in 0..50 {
        drop(TcpStream::connect(proxy.address).unwrap());
    }
    let began = Instant::now();
    // The last of them may still be on its way out.
    while let Err(failed) = Wire::connect(proxy.address, &Login::app().database("app")) {
        assert!(began.elapsed() < PATIENCE, "{failed}");
    }
    let log = proxy.logs("logged in");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("client{")).collect();
    assert!(lines.iter().all(|line| line.contains("user=\"app\"") || line.contains("too many")), "{log}");
}
