//! Levels return to nothing however a client goes, and what ends a client against its will is counted by its reason.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use sluicegate::demo::servers::Feature;
use socket2::SockRef;

use crate::harness::measure::{Metrics, NOBODY, eventually, until};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Login, PATIENCE, Wire, batch, bind, execute, flush, kinds, parse, query};
use crate::harness::{database, server};

/// Two for clients, two of the proxy's own.
const TWO: u32 = 4;
/// One for clients.
const ONE: u32 = 3;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

/// Parse, Bind and Execute of the unnamed statement.
fn extended(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0)])
}

/// How a client goes without a word.
#[derive(Debug, Clone, Copy)]
enum Going {
    /// Its socket is closed, as by `kill -9`.
    Closed,
    /// Its connection is reset.
    Reset,
    /// It sends no more, and still listens until it is answered and closed.
    HalfClosed,
}

fn go(stream: &TcpStream, going: Going) {
    match going {
        Going::Closed => stream.shutdown(Shutdown::Both).unwrap(),
        Going::Reset => SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap(),
        Going::HalfClosed => stream.shutdown(Shutdown::Write).unwrap(),
    }
}

/// What a client does, what it sends for it, and what grows then.
type State = (&'static str, Vec<u8>, Vec<(&'static str, f64)>);

#[test]
fn levels_return_to_nothing_however_a_client_goes() {
    let half = |bytes: Vec<u8>| bytes[..bytes.len() - 3].to_vec();
    let in_transaction = ("database_connections_currently_in_transaction", 1.0);
    let pinned = ("database_connections_currently_session_pinned", 1.0);
    let borrowed = ("database_connections_currently_borrowed", 1.0);
    let temp = || query("CREATE TEMP TABLE mine (id int)");
    let states: Vec<State> = vec![
        ("idle", query("SELECT 1"), vec![("queries_total", 1.0)]),
        ("half a message", half(query("SELECT 1")), vec![]),
        ("half a bind", half(batch([extended("SELECT 1"), bind("", "", &[Some("x")])])), vec![borrowed]),
        ("in a transaction", query("BEGIN"), vec![in_transaction, borrowed]),
        ("in a failed one", batch([query("BEGIN"), query("SELECT 1/0")]), vec![in_transaction, borrowed]),
        ("without its Sync", batch([extended("SELECT 1"), flush()]), vec![in_transaction, borrowed]),
        ("without a Flush", batch([parse("", "SELECT 1")]), vec![borrowed]),
        ("pinned", temp(), vec![pinned, borrowed, ("clients_pinned", 1.0)]),
        ("pinned in a transaction", batch([query("BEGIN"), temp()]), vec![pinned, in_transaction]),
        ("busy", query("SELECT pg_sleep(1)"), vec![borrowed]),
        ("busy in a transaction", batch([query("BEGIN"), query("SELECT pg_sleep(0.2)")]), vec![borrowed]),
        ("in COPY", query("COPY t FROM STDIN"), vec![borrowed]),
        ("does not read", query("SELECT repeat('x', 1000) FROM generate_series(1, 30000)"), vec![borrowed]),
    ];
    let server = server(Feature::Any);
    let database = database(server, "metrics_levels", &["CREATE TABLE t (id int)"]);
    let proxy = start(&config(server.address(), TWO));
    // What all others find on the way in is known then.
    drop(client(&proxy, &database));
    let mut came = 1.0;
    for (state, bytes, shows) in &states {
        for going in [Going::Closed, Going::Reset, Going::HalfClosed] {
            let before = eventually(&proxy, &NOBODY);
            let mut stream = Wire::log_in(proxy.address, &Login::app().database(&database));
            came += 1.0;
            stream.write_all(bytes).unwrap();
            until(&proxy, |metrics| {
                let received = metrics.get("client_bytes_received_total") - before.get("client_bytes_received_total");
                let mut wrong = metrics.wrong(&[("client_connections", 1.0)]);
                for (what, value) in shows {
                    let grown = metrics.get(what) - before.get(what);
                    if grown < *value {
                        wrong.push(format!("{state}, {going:?}: {what} has grown by {grown}"));
                    }
                }
                if received < bytes.len() as f64 {
                    wrong.push(format!("{state}, {going:?}: {received} bytes of {}", bytes.len()));
                }
                wrong
            });
            go(&stream, going);
            if matches!(going, Going::HalfClosed) {
                // What is sent to one that listens must be taken for it to end.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
            drop(stream);
            let gone = eventually(&proxy, &NOBODY);
            assert_eq!(gone.get("client_connections_closed_total"), came, "{state}, {going:?}");
        }
    }
    assert_eq!(Metrics::read(&proxy).wrong(&[("disagreements_total", 0.0)]), [""; 0]);
}

#[test]
fn levels_return_to_nothing_when_one_leaves_the_line() {
    let server = server(Feature::Any);
    let proxy = start(&config(server.address(), TWO));
    let mut holders = [(); 2].map(|()| client(&proxy, "app"));
    for holder in &mut holders {
        holder.query("BEGIN");
    }
    for going in [Going::Closed, Going::Reset, Going::HalfClosed] {
        let mut stream = Wire::log_in(proxy.address, &Login::app().database("app"));
        stream.write_all(&query("SELECT 1")).unwrap();
        eventually(&proxy, &[("clients_waiting", 1.0)]);
        go(&stream, going);
        drop(stream);
        eventually(&proxy, &[("clients_waiting", 0.0), ("client_connections", 2.0)]);
    }
    drop(holders);
    let metrics = eventually(&proxy, &NOBODY);
    // Nobody of those had a connection for it.
    let expected = [("query_requests_total", 2.0), ("query_response_latency_seconds_count", 2.0)];
    assert_eq!(metrics.wrong(&expected), [""; 0]);
}

#[test]
fn timeouts_are_counted_by_kind_and_leave_no_level_behind() {
    let limits = [
        ("target_group.pool", "connection_borrow_timeout", "\"300ms\""),
        ("target_group.pool", "transaction_idle_timeout", "\"1s\""),
        ("endpoint", "idle_client_timeout", "\"2s\""),
        ("endpoint", "login_timeout", "\"4s\""),
    ];
    let text = config(server(Feature::Any).address(), ONE);
    let text = limits.iter().fold(text, |text, (table, key, value)| set(&text, table, key, value));
    let proxy = start(&text);
    eventually(&proxy, &[("max_database_connections_allowed", 1.0)]);
    let silent = TcpStream::connect(proxy.address).unwrap();
    let [mut holder, mut waiter] = [(); 2].map(|()| client(&proxy, "app"));
    let before = Metrics::read(&proxy);
    holder.query("BEGIN; CREATE TEMP TABLE mine (id int)");
    assert_eq!(kinds(&waiter.ask(&query("SELECT 1"), 1)), "EZ");
    let refused = eventually(&proxy, &[("timeouts_total kind=\"borrow\"", 1.0)]);
    let grown = |name: &str| refused.get(name) - before.get(name);
    // It is a request that was answered, of which the database knows nothing.
    assert_eq!(grown("query_requests_total"), 2.0);
    assert_eq!(grown("query_response_latency_seconds_count"), 2.0);
    assert_eq!(grown("query_database_response_latency_seconds_count"), 1.0);
    assert!(grown("query_response_latency_seconds_sum") >= 0.3);
    assert!(grown("borrow_wait_seconds_sum") >= 0.3);
    holder.until_closed();
    waiter.until_closed();
    let ended = [
        ("timeouts_total kind=\"borrow\"", 1.0),
        ("timeouts_total kind=\"transaction_idle\"", 1.0),
        ("timeouts_total kind=\"idle_client\"", 1.0),
        ("timeouts_total kind=\"login\"", 1.0),
        ("logins_refused_total reason=\"timeout\"", 1.0),
        ("errors_total", 4.0),
    ];
    eventually(&proxy, &ended);
    drop(silent);
    eventually(&proxy, &NOBODY);
}

#[test]
fn what_takes_too_long_is_counted() {
    let text = config(server(Feature::Any).address(), TWO);
    let text = set(&text, "target_group.pool", "query_timeout", "\"500ms\"");
    let proxy = start(&set(&text, "target_group.pool", "transaction_max", "\"1s\""));
    let [mut one, mut other] = [(); 2].map(|()| client(&proxy, "app"));
    other.query("BEGIN");
    eventually(&proxy, &[("timeouts_total", 0.0), ("database_connections_currently_in_transaction", 1.0)]);
    assert!(kinds(&one.ask(&query("SELECT pg_sleep(60)"), 1)).ends_with("EZ"));
    eventually(
        &proxy,
        &[
            ("timeouts_total kind=\"query\"", 1.0),
            ("timeouts_total kind=\"transaction\"", 1.0),
            ("errors_total kind=\"client\"", 2.0),
            // The database has answered it.
            ("query_requests_total", 2.0),
            ("query_database_response_latency_seconds_count", 2.0),
        ],
    );
    assert_eq!(kinds(&other.ask(&query("SELECT 1"), 1)), "EZ");
    assert_eq!(kinds(&other.ask(&query("ROLLBACK"), 1)), "CZ");
    eventually(&proxy, &[("database_connections_currently_in_transaction", 0.0), ("client_connections", 2.0)]);
    drop((one, other));
    eventually(&proxy, &NOBODY);
}

#[test]
fn a_drain_shows() {
    let mut proxy = start(&config(server(Feature::Any).address(), TWO));
    let mut clients = [(); 4].map(|()| client(&proxy, "app"));
    clients[0].query("BEGIN");
    clients[1].query("SELECT pg_advisory_lock(77)");
    eventually(
        &proxy,
        &[
            ("database_connections_currently_in_transaction", 1.0),
            ("database_connections_currently_session_pinned", 1.0),
            ("client_connections", 4.0),
        ],
    );
    proxy.terminate();
    // Only the transaction goes on.
    let draining = [
        ("client_connections", 1.0),
        ("database_connections_currently_in_transaction", 1.0),
        ("database_connections_currently_session_pinned", 0.0),
        ("database_connections_currently_borrowed", 1.0),
        ("clients_pinned", 0.0),
        ("errors_total kind=\"proxy\"", 3.0),
    ];
    eventually(&proxy, &draining);
    clients[0].query("COMMIT");
    assert_eq!(proxy.wait(PATIENCE).code(), Some(0), "{}", proxy.log());
}

/// So many are refused at one time that the rest are closed without a word: those are counted, too.
#[test]
fn those_who_are_turned_away_are_counted() {
    let proxy = start(&set(&config(server(Feature::Any).address(), TWO), "endpoint", "max_clients", "1"));
    let one = client(&proxy, "app");
    let many: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(proxy.address).unwrap()).collect();
    let metrics = until(&proxy, |metrics| {
        let away = metrics.get("logins_refused_total reason=\"too_many_clients\"");
        let there = metrics.get("client_connections");
        let mut wrong = metrics.wrong(&[("client_connections_received_total", 301.0)]);
        if away + there != 301.0 {
            wrong.push(format!("{away} turned away, {there} are here"));
        }
        wrong
    });
    assert!(metrics.get("client_connections_closed_total") > 100.0, "{}", metrics.shown());
    assert_eq!(metrics.wrong(&[("client_connections_setup_failed_auth_total", 0.0)]), [""; 0]);
    drop((one, many));
    eventually(&proxy, &NOBODY);
}
