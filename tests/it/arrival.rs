//! How clients arrive: through load balancers that say whom they bring, and faster than the endpoint takes them.

use std::io::{Read, Write};
use std::net::TcpStream;

use sluicegate::demo::servers::{Feature, PostgresServer};

use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Login, PATIENCE, Wire, authenticate, message};
use crate::harness::{each_with, server};

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
