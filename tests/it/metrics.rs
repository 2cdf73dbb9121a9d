//! What those who measure see: every metric against traffic that is known. `docs/METRICS.md` says what each means.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use sluicegate::demo::servers::{APP, Feature, Installation, Options, PostgresServer, Stop};

use crate::harness::measure::{Metrics, NOBODY, eventually, until};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{
    Login, Wire, authenticate, batch, bind, copy_data, copy_done, execute, flush, kinds, parse, query, read_frame, sync,
};
use crate::harness::{each_with, server};
use crate::tls::{Ca, Tls, config_with, open};

/// Two for clients, two of the proxy's own.
const TWO: u32 = 4;
/// One for clients.
const ONE: u32 = 3;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

fn tls_client(proxy: &ProxyHandle, database: &str, ca: &Ca) -> Tls {
    let mut stream = open(proxy.address, &ca.file("ca.pem"), &[], true);
    authenticate(&mut stream, &Login::app().database(database), &mut Vec::new()).unwrap();
    stream
}

fn ask_tls(stream: &mut Tls, bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    stream.flush().unwrap();
    let mut kinds = String::new();
    while !kinds.ends_with('Z') {
        kinds.push(char::from(read_frame(stream).unwrap().kind));
    }
    kinds
}

/// Parse, Bind and Execute of the unnamed statement.
fn extended(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0)])
}

/// What a client asks, its replies, how many requests that is, and how many exchanges.
fn traffic() -> Vec<(Vec<u8>, &'static str, u32, u32)> {
    let run_a = || batch([bind("", "a", &[]), execute("", 0), sync()]);
    let piped = [
        extended("SELECT 1"),
        sync(),
        extended("SELECT 2"),
        extended("SELECT 3"),
        sync(),
        query("SELECT 4"),
        extended("SELECT 1/0"),
        extended("SELECT 6"),
        sync(),
        query("SELECT 7"),
    ];
    vec![
        (query("SELECT 1"), "TDCZ", 1, 1),
        (query("SELECT 1; SELECT 2"), "TDCTDCZ", 1, 1),
        (query(""), "IZ", 1, 1),
        (query("SELECT 1/0"), "EZ", 1, 1),
        (batch([extended("SELECT 1"), sync()]), "12DCZ", 1, 1),
        (batch([parse("a", "SELECT 1"), sync()]), "1Z", 1, 1),
        (run_a(), "2DCZ", 1, 1),
        (batch([run_a(), run_a(), run_a()]), "2DCZ2DCZ2DCZ", 3, 1),
        (batch(piped), "12DCZ12DC12DCZTDCZ1EZTDCZ", 5, 1),
        (query("COPY t TO STDOUT"), "HddcCZ", 1, 1),
        // Asks for nothing.
        (sync(), "Z", 0, 0),
        (query("BEGIN"), "CZ", 1, 1),
        // Two exchanges, one request.
        (batch([extended("SELECT 1"), flush()]), "12DC", 0, 1),
        (batch([extended("SELECT 2"), sync()]), "12DCZ", 1, 1),
        (query("COMMIT"), "CZ", 1, 1),
    ]
}

#[test]
fn all_24_and_the_rest_against_known_traffic() {
    let ca = Ca::new();
    ca.signs("proxy", "localhost");
    let text = |server: &PostgresServer| {
        let text = config_with(server.address(), &ca, "proxy", "optional");
        let text = set(&text, "target_group.pool", "max_connections", &TWO.to_string());
        // Both stay.
        set(&text, "target_group.pool", "max_idle_connections_percent", "100")
    };
    let setup = ["CREATE TABLE t (id int)", "INSERT INTO t VALUES (1), (2)"];
    each_with("metrics_traffic", &setup, text, |_, database, proxy| {
        logins(proxy, database, &ca);
        queries(proxy, database, &ca);
        waiting(proxy, database);
        pins(proxy, database);
        let metrics = eventually(proxy, &NOBODY);
        assert_eq!(metrics.wrong(&[("disagreements_total", 0.0), ("timeouts_total", 0.0)]), [""; 0]);
        targets(&metrics);
    });
}

fn logins(proxy: &ProxyHandle, database: &str, ca: &Ca) {
    // Until the target has said what it allows there is no place for anybody.
    let before = eventually(proxy, &[("max_database_connections_allowed", 2.0)]);
    assert_eq!(before.wrong(&[("client_connections_received_total", 0.0), ("database_connections", 0.0)]), [""; 0]);
    let mut plain = client(proxy, database);
    let mut tls = tls_client(proxy, database, ca);
    eventually(
        proxy,
        &[
            ("client_connections", 2.0),
            ("client_connections_tls", 1.0),
            ("client_connections_no_tls", 1.0),
            ("client_connections_received_total", 2.0),
            ("client_connections_closed_total", 0.0),
            ("client_connections_setup_succeeded_total", 2.0),
            // The first of them asked what the database says of itself.
            ("database_connections_borrow_latency_seconds_count", 1.0),
            ("borrow_wait_seconds_count", 1.0),
            ("query_requests_total", 0.0),
        ],
    );
    plain.query("BEGIN");
    assert_eq!(ask_tls(&mut tls, &query("BEGIN")), "CZ");
    eventually(
        proxy,
        &[
            ("database_connections state=\"in_use\"", 2.0),
            ("database_connections state=\"idle\"", 0.0),
            ("database_connections_with_tls", 0.0),
            ("database_connection_requests_total", 2.0),
            ("database_connection_requests_with_tls_total", 0.0),
            ("database_connections_setup_succeeded_total", 2.0),
            ("database_connections_opened_total", 2.0),
            ("database_connections_closed_total", 0.0),
        ],
    );
    plain.query("COMMIT");
    assert_eq!(ask_tls(&mut tls, &query("COMMIT")), "CZ");
    // In the middle of a login.
    let mut half = open(proxy.address, &ca.file("ca.pem"), &[], true);
    half.write_all(&Login::app().database(database).startup()).unwrap();
    assert_eq!(read_frame(&mut half).unwrap().kind, b'R');
    eventually(proxy, &[("client_connections", 3.0), ("client_connections_tls", 2.0)]);
    drop((half, tls));
    eventually(proxy, &[("client_connections", 1.0), ("client_connections_tls", 0.0)]);

    assert!(Wire::connect(proxy.address, &Login::new(APP, "not-the-secret").database(database)).is_err());
    assert!(Wire::connect(proxy.address, &Login::new("nobody", "any-secret").database(database)).is_err());
    // It does not know who has signed the proxy's certificate.
    let mut distrusting = open(proxy.address, &foreign(), &[], true);
    assert!(distrusting.write_all(b"hello").and_then(|()| distrusting.flush()).is_err());
    drop((distrusting, TcpStream::connect(proxy.address).unwrap()));
    assert!(Wire::connect(proxy.address, &Login::app().database("no_such_database")).is_err());
    drop(plain);
    eventually(
        proxy,
        &[
            ("logins_refused_total reason=\"password\"", 2.0),
            ("logins_refused_total reason=\"tls\"", 1.0),
            // The half login above as well.
            ("logins_refused_total reason=\"left\"", 2.0),
            ("logins_refused_total reason=\"database\"", 1.0),
            ("logins_refused_total", 6.0),
            ("client_connections_setup_failed_auth_total", 3.0),
            ("errors_total kind=\"auth\"", 2.0),
            ("errors_total kind=\"server\"", 1.0),
            ("client_connections_setup_succeeded_total", 2.0),
            ("client_connections_received_total", 8.0),
            ("client_connections_closed_total", 8.0),
            ("client_connections", 0.0),
            ("database_connection_requests_total", 3.0),
            ("database_connections_setup_succeeded_total", 2.0),
            ("database_connections_setup_failed_total", 1.0),
            ("database_connections_failed_total reason=\"database\"", 1.0),
        ],
    );
}

/// A certificate that has signed nothing here.
fn foreign() -> std::path::PathBuf {
    static CA: std::sync::OnceLock<Ca> = std::sync::OnceLock::new();
    CA.get_or_init(Ca::new).file("ca.pem")
}

fn queries(proxy: &ProxyHandle, database: &str, ca: &Ca) {
    let names = [
        "query_requests_total",
        "query_requests_no_tls_total",
        "query_requests_tls_total",
        "query_response_latency_seconds_count",
        "query_database_response_latency_seconds_count",
        "queries_total",
    ];
    let before = Metrics::read(proxy);
    let mut plain = client(proxy, database);
    let mut expected = names.map(|name| (name, before.get(name)));
    let mut add = |numbers: [u32; 6]| {
        for ((_, expected), number) in expected.iter_mut().zip(numbers) {
            *expected += f64::from(number);
        }
        eventually(proxy, &expected);
    };
    for (bytes, replies, requests, exchanges) in traffic() {
        plain.send(&bytes);
        let frames: Vec<_> = replies.bytes().map(|_| plain.receive().unwrap()).collect();
        assert_eq!(kinds(&frames), replies);
        let answered = u32::try_from(replies.bytes().filter(|kind| *kind == b'Z').count()).unwrap();
        // A Sync alone is answered without a database.
        let answered = if requests + exchanges == 0 { 0 } else { answered };
        add([requests, requests, 0, exchanges, exchanges, answered]);
    }
    // COPY data go back and forth in one exchange.
    plain.send(&query("COPY t FROM STDIN"));
    assert_eq!(plain.receive().unwrap().kind, b'G');
    assert_eq!(kinds(&plain.ask(&batch([copy_data("3\n"), copy_data("4\n"), copy_done()]), 1)), "CZ");
    add([1, 1, 0, 1, 1, 1]);
    let mut tls = tls_client(proxy, database, ca);
    assert_eq!(ask_tls(&mut tls, &query("SELECT 1")), "TDCZ");
    assert_eq!(ask_tls(&mut tls, &batch([extended("SELECT 1"), sync(), query("SELECT 2")])), "12DCZ");
    assert_eq!(ask_tls(&mut tls, &[]), "TDCZ");
    add([3, 0, 3, 2, 2, 3]);
    // The database's time is most of the time, and is in the right bucket.
    let sleeps = |metrics: &Metrics, name: &str| {
        let count = metrics.get(&format!("{name}_count"));
        (count - metrics.get(&format!("{name}_bucket le=\"0.25\"")), metrics.get(&format!("{name}_sum")))
    };
    let both = ["query_response_latency_seconds", "query_database_response_latency_seconds"];
    let before = both.map(|name| sleeps(&Metrics::read(proxy), name));
    plain.query("SELECT pg_sleep(0.3)");
    add([1, 1, 0, 1, 1, 1]);
    let metrics = Metrics::read(proxy);
    for (name, (longer, sum)) in both.into_iter().zip(before) {
        let (longer_now, sum_now) = sleeps(&metrics, name);
        assert_eq!(longer_now, longer + 1.0, "{name}");
        assert!(sum_now >= sum + 0.3, "{name}: {sum} and {sum_now}");
    }
    let [response, database] = both.map(|name| metrics.get(&format!("{name}_sum")));
    assert!(response >= database && database > 0.0, "{response} {database}");
    for direction in ["client_bytes_received", "client_bytes_sent", "database_bytes_received", "database_bytes_sent"] {
        assert!(metrics.get(&format!("{direction}_total")) > 500.0, "{direction}");
    }
    assert!(metrics.get("transactions_total") > 15.0);
}

fn waiting(proxy: &ProxyHandle, database: &str) {
    let [mut one, mut other, mut third] = [(); 3].map(|()| client(proxy, database));
    let before = Metrics::read(proxy);
    one.query("BEGIN");
    other.query("BEGIN; SELECT 1");
    eventually(
        proxy,
        &[
            ("database_connections_currently_in_transaction", 2.0),
            ("database_connections_currently_borrowed", 2.0),
            ("database_connections state=\"in_use\"", 2.0),
            ("database_connections", 2.0),
            ("clients_waiting", 0.0),
        ],
    );
    third.send(&query("SELECT 1"));
    let waiting = [("clients_waiting", 1.0), ("database_connections_currently_in_transaction", 2.0)];
    let during = eventually(proxy, &waiting);
    let began = Instant::now();
    // While it asks for the next the one that is in a transaction stays there.
    one.query("SELECT 1");
    assert_eq!(Metrics::read(proxy).wrong(&waiting), [""; 0]);
    let waited = began.elapsed().as_secs_f64();
    one.query("COMMIT");
    assert_eq!(kinds(&third.until_ready(1)), "TDCZ");
    let after = eventually(
        proxy,
        &[
            ("clients_waiting", 0.0),
            ("database_connections_currently_in_transaction", 1.0),
            ("borrow_wait_seconds_count", during.get("borrow_wait_seconds_count") + 1.0),
        ],
    );
    let grown = |name: &str| after.get(name) - before.get(name);
    for name in ["database_connections_borrow_latency_seconds_sum", "borrow_wait_seconds_sum"] {
        assert!(grown(name) >= waited, "{name}: {} in {waited}", grown(name));
    }
    // Its wait is in what the client saw, and not in the database's time.
    let response = grown("query_response_latency_seconds_sum");
    assert!(response >= grown("query_database_response_latency_seconds_sum") + waited, "{response} {waited}");
    assert_eq!(grown("database_connections_borrow_latency_seconds_count"), 3.0);
    other.query("ROLLBACK");
    eventually(
        proxy,
        &[
            ("database_connections_currently_in_transaction", 0.0),
            ("database_connections_currently_borrowed", 0.0),
            ("database_connections state=\"idle\"", 2.0),
        ],
    );
}

fn pins(proxy: &ProxyHandle, database: &str) {
    let mut one = client(proxy, database);
    let mut other = client(proxy, database);
    one.query("CREATE TEMP TABLE mine (id int)");
    one.query("SELECT pg_advisory_lock(1)");
    other.query("BEGIN; SELECT pg_advisory_lock(2)");
    eventually(
        proxy,
        &[
            ("database_connections_currently_session_pinned", 2.0),
            ("database_connections_currently_borrowed", 2.0),
            ("database_connections_currently_in_transaction", 1.0),
            ("clients_pinned reason=\"temporary_object\"", 1.0),
            ("clients_pinned reason=\"session_lock\"", 2.0),
            ("pins_total reason=\"temporary_object\"", 1.0),
        ],
    );
    other.query("COMMIT");
    one.query("DISCARD ALL");
    eventually(
        proxy,
        &[
            ("database_connections_currently_session_pinned", 1.0),
            ("database_connections_currently_in_transaction", 0.0),
            ("clients_pinned", 1.0),
            ("pins_total reason=\"temporary_object\"", 1.0),
            ("pins_total reason=\"session_lock\"", 2.0),
            ("pins_total", 3.0),
        ],
    );
}

fn targets(metrics: &Metrics) {
    let found = metrics.get("health_probes_total result=\"writer\"");
    assert!(found >= 1.0);
    let availability = metrics.get("availability_percentage role=\"writer\"");
    assert!(availability > 0.0 && availability <= 100.0, "{availability}");
    if metrics.get("health_probes_total") == found {
        assert_eq!(availability, 100.0);
    }
    assert_eq!(metrics.wrong(&[("target_role role=\"writer\"", 1.0), ("target_role", 1.0)]), [""; 0]);
}

/// A target that is spoken to with TLS, and goes away.
#[test]
fn a_target_with_tls_comes_and_goes() {
    let installation = Installation::find(Feature::Any).unwrap();
    let options = Options { ssl: true, ..Options::default() };
    let mut server = PostgresServer::start(&installation, options).unwrap();
    let proxy = start(&set(&config(server.address(), ONE), "target_group", "tls", "\"require\""));
    let mut one = client(&proxy, "app");
    one.query("SELECT 1");
    eventually(
        &proxy,
        &[
            ("database_connections", 1.0),
            ("database_connections_with_tls", 1.0),
            ("database_connection_requests_total", 1.0),
            ("database_connection_requests_with_tls_total", 1.0),
            ("target_role role=\"writer\"", 1.0),
        ],
    );
    server.stop(Stop::Fast).unwrap();
    one.send(&query("SELECT 2"));
    let lost = until(&proxy, |metrics| {
        let failed = metrics.get("database_connections_setup_failed_total");
        let missed = metrics.get("health_probes_total result=\"network\"");
        let availability = metrics.get("availability_percentage");
        let is_seen = failed >= 1.0 && missed >= 3.0 && availability < 100.0;
        let nothing_left = metrics.wrong(&[("database_connections", 0.0), ("database_connections_with_tls", 0.0)]);
        if is_seen { nothing_left } else { vec![format!("{failed} failed, {missed} missed, {availability} %")] }
    });
    let [failed, requests] = ["database_connections_failed_total", "database_connection_requests_total"];
    assert!(lost.get(requests) >= lost.get(failed) + 1.0);
    // It has not said anything else.
    assert_eq!(lost.wrong(&[("target_role role=\"writer\"", 1.0), ("clients_waiting", 1.0)]), [""; 0]);
    server.resume().unwrap();
    assert_eq!(kinds(&one.until_ready(1)), "TDCZ");
    eventually(&proxy, &[("database_connections_with_tls", 1.0), ("clients_waiting", 0.0)]);
}

/// One span for each client; what it does at DEBUG, and nothing of what it says.
#[test]
fn every_line_about_a_client_says_whose_it_is() {
    let text = set(&config(server(Feature::Any).address(), TWO), "log", "level", "\"info,sluicegate::session=debug\"");
    let proxy = start(&text);
    let mut one = client(&proxy, "app");
    one.query("SELECT 'what nobody must read'");
    one.query("CREATE TEMP TABLE what_nobody_must_read (id int)");
    assert_eq!(kinds(&one.ask(&query("SELECT what_nobody_must_read"), 1)), "EZ");
    drop(one);
    let log = proxy.logs("left");
    assert!(!log.contains("nobody_must_read") && !log.contains("what nobody"), "{log}");
    for (words, level, number) in
        [("logged in", "INFO", 1), ("answered", "DEBUG", 3), (": pinned ", "INFO", 1), ("no longer pinned", "INFO", 1)]
    {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(words)).collect();
        assert_eq!(lines.len(), number, "{words}: {log}");
        for line in lines {
            assert!(line.contains(level), "{line}");
            for field in ["client_id=1", "endpoint=\"it\"", "user=\"app\"", "database=\"app\""] {
                assert!(line.contains(field), "{field}: {line}");
            }
        }
    }
    // `create temp table what_nobody_must_read ( id int )`
    assert!(log.contains("pinned reason=temporary_object fingerprint=6a94028f5e837ce1 command=\"CREATE\""), "{log}");
}
