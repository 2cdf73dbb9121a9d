//! How long things may take: queries, transactions, silences. Every limit has its own words, and what it does not end goes
//! on.

use crate::harness::proxy::{ProxyHandle, config, set};
use crate::harness::wire::{
    Frame, Login, Wire, batch, bind, copy_data, execute, flush, function_call, kinds, message, parse, query, sync,
};
use crate::harness::{each_with, until_running};
use sluicegate::demo::servers::PostgresServer;

/// One for clients, two of the proxy's own.
const ONE: u32 = 3;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

fn limited(key: &'static str, value: &'static str) -> impl Fn(&PostgresServer) -> String {
    move |server| set(&config(server.address(), ONE), "target_group.pool", key, &format!("{value:?}"))
}

/// Severity, code and words of the only error among these frames.
fn error(frames: &[Frame]) -> (String, String, String) {
    let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == b'E').collect();
    assert_eq!(errors.len(), 1, "{frames:#?}");
    let field = |name| errors[0].field(name).unwrap_or_default();
    (field(b'V'), field(b'C'), field(b'M'))
}

fn is_told(frames: &[Frame], status: u8, words: &str) {
    let (severity, code, message) = error(frames);
    assert_eq!((severity.as_str(), code.as_str()), ("ERROR", "57014"));
    assert!(message.contains(words), "{message}");
    let last = frames.last().unwrap();
    assert_eq!((last.kind, &last.body[..]), (b'Z', &[status][..]));
}

#[test]
fn a_query_that_runs_too_long() {
    each_with("a_query_that_runs_too_long", &[], limited("query_timeout", "500ms"), |_, database, proxy| {
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        let slow = "SELECT pg_sleep(600)";
        let extended = batch([parse("", slow), bind("", "", &[]), execute("", 0), sync()]);
        for bytes in [query(slow), extended] {
            is_told(&one.ask(&bytes, 1), b'I', "query_timeout");
            assert_eq!(one.value("SELECT 'goes on'"), "goes on");
        }
        one.query("BEGIN");
        is_told(&one.ask(&query(slow), 1), b'E', "query_timeout");
        // The database's own words from here on.
        let (_, code, _) = error(&one.ask(&query("SELECT 1"), 1));
        assert_eq!(code, "25P02");
        // Standing in line is no query.
        other.send(&query("SELECT 'waited'"));
        proxy.until_metric("sluicegate_clients_waiting", 1);
        one.query("ROLLBACK");
        assert_eq!(kinds(&other.until_ready(1)), "TDCZ");
        // Short ones, one after another, are short ones; and so are idle transactions.
        one.query("BEGIN");
        for _ in 0..4 {
            one.query("SELECT pg_sleep(0.2)");
        }
        one.query("COMMIT");
    });
}

#[test]
fn a_transaction_that_is_open_too_long() {
    let setup = ["CREATE TABLE t (i int)"];
    each_with("a_transaction_open_too_long", &setup, limited("transaction_max", "500ms"), |server, database, proxy| {
        let mut one = client(proxy, database);
        let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
        let locks = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock'";
        let told = |one: &mut Wire, bytes: &[u8]| is_told(&one.ask(bytes, 1), b'E', "transaction_max");
        let refused = |one: &mut Wire, sql: &str, expected: &str| {
            let (_, code, _) = error(&one.ask(&query(sql), 1));
            assert_eq!(code, expected, "{sql}");
        };
        let extended = batch([parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()]);
        for first in [query("SELECT 1"), extended, query("RELEASE s")] {
            // All at once: the time is short.
            let begins = ["BEGIN", "INSERT INTO t VALUES (1)", "SAVEPOINT s", "INSERT INTO t VALUES (2)"];
            one.ask(&batch(begins.map(query)), begins.len());
            // Its client does nothing: it is rolled back behind its back, and its locks are free.
            superuser.until(locks, "0");
            told(&mut one, &first);
            refused(&mut one, "SELECT 1", "25P02");
            refused(&mut one, "ROLLBACK TO s", "3B001");
            // It has been told.
            let frames = one.ask(&query("COMMIT"), 1);
            assert_eq!((kinds(&frames).as_str(), &frames[0].body[..]), ("CZ", &b"ROLLBACK\0"[..]));
            assert_eq!(one.value("SELECT count(*) FROM t"), "0");
        }
        // Who commits first is told so, in whatever form; who rolls back has what it wants.
        let commit = |text| batch([parse("", text), bind("", "", &[]), execute("", 0), sync()]);
        let prepared = batch([parse("c", "COMMIT"), sync()]);
        one.ask(&prepared, 1);
        let named = batch([bind("", "c", &[]), execute("", 0), sync()]);
        for last in [query("COMMIT"), query("end; SELECT 1"), commit("COMMIT WORK"), named, query("ROLLBACK")] {
            one.query("BEGIN");
            one.query("INSERT INTO t VALUES (1)");
            superuser.until(locks, "0");
            if last != query("ROLLBACK") {
                told(&mut one, &last);
            }
            let frames = one.ask(&query("ROLLBACK"), 1);
            assert_eq!((kinds(&frames).as_str(), &frames[0].body[..]), ("CZ", &b"ROLLBACK\0"[..]));
            assert_eq!(one.value("SELECT count(*) FROM t"), "0");
        }
        // What is running is cancelled, in a transaction block or not.
        one.query("BEGIN");
        told(&mut one, &query("SELECT pg_sleep(600)"));
        one.query("ROLLBACK");
        is_told(&one.ask(&query("SELECT pg_sleep(600)"), 1), b'I', "transaction_max");
        // One that has failed already is left to its client.
        one.query("BEGIN");
        refused(&mut one, "SELECT 1/0", "22012");
        proxy.logs("the transaction was open");
        refused(&mut one, "SELECT 1", "25P02");
        one.query("ROLLBACK");
        // Prepared statements and all else that outlives a rollback are there.
        let prepare = batch([parse("p", "SELECT 'still here'"), sync()]);
        assert_eq!(kinds(&one.ask(&prepare, 1)), "1Z");
        one.query("BEGIN");
        one.query("INSERT INTO t VALUES (1)");
        superuser.until(locks, "0");
        one.query("ROLLBACK");
        assert_eq!(kinds(&one.ask(&batch([bind("", "p", &[]), execute("", 0), sync()]), 1)), "2DCZ");
    });
}

/// What its client leaves as it is can be neither cancelled nor rolled back: the session ends.
#[test]
fn a_transaction_that_a_client_does_not_go_on_with() {
    let setup = ["CREATE TABLE t (i int)"];
    let config = |server: &PostgresServer| {
        set(&config(server.address(), 2 + 4), "target_group.pool", "transaction_max", "\"500ms\"")
    };
    each_with("a_transaction_that_a_client_does_not", &setup, config, |server, database, proxy| {
        let insert = "INSERT INTO t VALUES (1)";
        let extended = batch([parse("", insert), bind("", "", &[]), execute("", 0)]);
        let stalled = [
            ("flushed", batch([extended.clone(), flush()])),
            ("neither flushed nor synced", extended),
            ("copy", batch([query("COPY t FROM STDIN"), copy_data("1\n")])),
            ("failed", query("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s; SELECT 1/0")),
        ];
        let clients = stalled.map(|(what, bytes)| {
            let mut one = client(proxy, database);
            one.send(&bytes);
            (what, one)
        });
        for (what, mut one) in clients {
            let told = one.until_closed().into_iter().filter(|frame| frame.kind == b'E').last();
            let told = told.unwrap_or_else(|| panic!("{what}: not told"));
            let field = |name| told.field(name).unwrap_or_default();
            assert_eq!((field(b'V').as_str(), field(b'C').as_str()), ("FATAL", "57014"), "{what}");
            assert!(field(b'M').contains("transaction_max"), "{what}: {}", field(b'M'));
        }
        let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
        superuser.until("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass", "0");
        assert_eq!(client(proxy, database).value("SELECT count(*) FROM t"), "0");
    });
}

#[test]
fn pg_054_a_client_that_stops_in_the_middle_holds_nobody_up() {
    let setup = ["CREATE TABLE t (i int)"];
    let config = limited("transaction_idle_timeout", "500ms");
    each_with("pg_054_a_client_that_stops", &setup, config, |server, database, proxy| {
        let mut other = client(proxy, database);
        let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
        let large = message(b'Q', &vec![b' '; 2 << 20]);
        let call = function_call(1598, &[&"1".repeat(40)]);
        let copy = batch([query("COPY t FROM STDIN"), copy_data("1\n")]);
        let extended = batch([parse("", "COPY t FROM STDIN"), bind("", "", &[]), execute("", 0), flush()]);
        for (what, bytes) in [("query", half(&large)), ("call", half(&call)), ("copy", copy), ("extended", extended)] {
            let mut one = client(proxy, database);
            one.send(&bytes);
            other.send(&query("SELECT 'served'"));
            let last = one.until_closed().into_iter().filter(|frame| frame.kind == b'E').last();
            let last = last.unwrap_or_else(|| panic!("{what}: not told"));
            assert_eq!(last.field(b'C').unwrap(), "25P03", "{what}");
            assert_eq!(kinds(&other.until_ready(1)), "TDCZ", "{what}");
        }
        // One that does not read.
        let deaf = Wire::log_in(proxy.address, &Login::app().database(database));
        std::io::Write::write_all(&mut &deaf, &query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
            .unwrap();
        until_running(server, database, "%generate_series%", 1);
        assert_eq!(other.value("SELECT 'served'"), "served");
        assert_eq!(other.value("SELECT count(*) FROM t"), "0");
    });
}

/// A client that reads a large result slowly is not idle.
#[test]
fn a_slow_reader_is_served() {
    let config = limited("transaction_idle_timeout", "2s");
    each_with("a_slow_reader_is_served", &[], config, |_, database, proxy| {
        let mut slow = Wire::log_in(proxy.address, &Login::app().database(database));
        std::io::Write::write_all(&mut slow, &query("SELECT repeat('x', 1000) FROM generate_series(1, 60000)"))
            .unwrap();
        let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
        while read < 60_000_000 {
            // Not a wait for anything: this is what slow means.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let length = std::io::Read::read(&mut slow, &mut buffer).unwrap();
            assert!(length > 0, "cut off after {read} bytes\n{}", proxy.log());
            read += length;
        }
    });
}
