//! `pin_on`, `pin_max_percent` and `pin_idle_timeout`: who may keep a connection, and what is told of it. Whatever is refused or
//! let through, nobody finds what another has left.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use sluicegate::demo::servers::PostgresServer;

use crate::harness::each_with;
use crate::harness::proxy::{ProxyHandle, config, set};
use crate::harness::wire::{
    Frame, Login, PATIENCE, Wire, batch, bind, execute, flush, function_call, kinds, parse, query, sync,
};

/// One for clients, two of the proxy's own.
const ONE: u32 = 3;
/// Four for clients.
const FOUR: u32 = 6;
/// What is on the connection that a direct one would not have.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_listening_channels()) || ' ' || \
     (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) || ' ' || \
     (SELECT count(*) FROM pg_cursors WHERE is_holdable) || ' ' || \
     (SELECT count(*) FROM pg_prepared_statements WHERE from_sql) || ' ' || \
     (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())";
const NOTHING: &str = "0 0 0 0 0";

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

fn with(connections: u32, key: &'static str, value: &'static str) -> impl Fn(&PostgresServer) -> String {
    move |server| set(&config(server.address(), connections), "target_group.pool", key, value)
}

/// Code and words of the only error among these frames.
fn error(frames: &[Frame]) -> (String, String) {
    let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == b'E').collect();
    assert_eq!(errors.len(), 1, "{frames:#?}");
    assert_eq!(errors[0].field(b'V').unwrap(), "ERROR");
    (errors[0].field(b'C').unwrap(), errors[0].field(b'M').unwrap())
}

/// The frames hold one refusal with these words in it, and the connection is ready in this state.
fn is_refused(frames: &[Frame], words: &str, status: u8) {
    let (code, message) = error(frames);
    assert_eq!(code, "55000");
    assert!(message.contains(words), "{message}");
    let last = frames.last().unwrap();
    assert_eq!((last.kind, &last.body[..]), (b'Z', &[status][..]));
}

fn runs(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0), sync()])
}

/// Tries until it is one of those that may.
fn until_listens(wire: &mut Wire) {
    let began = Instant::now();
    while kinds(&wire.ask(&query("LISTEN here"), 1)) != "CZ" {
        assert!(began.elapsed() < PATIENCE, "there is never a place");
    }
}

/// Waits until clients were pinned so often for this reason. They are looked at once they are idle.
fn until_pinned(proxy: &ProxyHandle, reason: &str, times: u64) {
    let began = Instant::now();
    while proxy.metric_by("sluicegate_pins_total", "reason").get(reason) != Some(&times) {
        assert!(began.elapsed() < PATIENCE, "never {times} times");
    }
}

const REJECT: &str = "{ setting = 'reject', prepared_statement = 'reject', temporary_object = 'reject', session_lock = 'reject', \
     held_cursor = 'reject', listen = 'reject', opaque_code = 'reject', server_process = 'reject', unreadable = 'reject', \
     large_statement = 'reject' }";

#[test]
fn what_is_rejected_is_not_run() {
    each_with("pins_rejected", &["CREATE TABLE t (i int)"], with(ONE, "pin_on", REJECT), |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        let pid = one.value("SELECT pg_backend_pid()");
        for (sql, reason) in [
            ("SET SESSION AUTHORIZATION postgres", "setting"),
            ("DEALLOCATE U&\"s\"", "prepared_statement"),
            ("CREATE TEMP TABLE mine (i int)", "temporary_object"),
            ("SELECT pg_advisory_lock(1)", "session_lock"),
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "held_cursor"),
            ("LISTEN here", "listen"),
            ("DO $$ BEGIN INSERT INTO t VALUES (1); END $$", "opaque_code"),
            ("LOAD 'auto_explain'", "server_process"),
        ] {
            let words = format!("(pin_on.{reason} = \"reject\")");
            for bytes in [query(sql), runs(sql)] {
                is_refused(&one.ask(&bytes, 1), &words, b'I');
                one.query("BEGIN");
                one.query("INSERT INTO t VALUES (1)");
                is_refused(&one.ask(&bytes, 1), &words, b'E');
                // Failed, as behind any error; the statement that is refused may come there, too, if it gets as far.
                assert_eq!(error(&one.ask(&query("SELECT 1"), 1)).0, "25P02");
                is_refused(&one.ask(&query(sql), 1), &words, b'E');
                assert_eq!(error(&one.ask(&runs(sql), 1)).0, "25P02");
                one.query("ROLLBACK");
            }
            // Nothing of the text is run.
            is_refused(&one.ask(&query(&format!("INSERT INTO t VALUES (1); {sql}")), 1), &words, b'I');
            assert_eq!(one.value(LEFT), NOTHING, "{sql}");
            // Nobody is kept from the only connection.
            assert_eq!(other.value("SELECT count(*) FROM t"), "0", "{sql}");
        }
        is_refused(&one.ask(&function_call(1598, &[]), 1), "pin_on.opaque_code", b'I');
        let long = format!("SELECT '{}'", "x".repeat(2 << 20));
        let frames = one.ask(&batch([parse("", &long), bind("", "", &[]), execute("", 0), sync()]), 1);
        assert_eq!((kinds(&frames).as_str(), error(&frames).0.as_str()), ("EZ", "55000"));
        // What need not pin runs, on the same connection.
        for sql in [
            "SET work_mem = '7MB'",
            "SELECT set_config('app.x', '1', false)",
            "BEGIN; CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1; COMMIT",
            "SELECT pg_advisory_xact_lock(1)",
            "NOTIFY here",
            "DISCARD ALL",
        ] {
            one.query(sql);
        }
        assert_eq!(kinds(&one.ask(&runs("SELECT 1"), 1)), "12DCZ");
        assert_eq!(one.value("SELECT pg_backend_pid()"), pid);
        assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0);
        assert_eq!(proxy.metric("sluicegate_disagreements_total"), 0.0);
        let refused = proxy.metric_by("sluicegate_pins_refused_total", "reason");
        assert_eq!(refused.get("listen"), Some(&7), "{refused:?}");
        assert_eq!(refused.values().sum::<u64>(), 8 * 7 + 2);
        assert_eq!(proxy.metric_by("sluicegate_errors_total", "kind").values().sum::<u64>(), 8 * 7 + 2);
    });
}

/// In the middle of others it has its own place: those before it are answered, those behind it skipped up to the Sync.
#[test]
fn a_pipeline_keeps_its_order() {
    let setup = ["CREATE TABLE t (i int)"];
    each_with("pins_pipeline", &setup, with(ONE, "pin_on", "{ listen = 'reject' }"), |_, database, proxy| {
        let mut one = client(proxy, database);
        let insert = |number: &str| {
            [parse("", &format!("INSERT INTO t VALUES ({number})")), bind("", "", &[]), execute("", 0)].concat()
        };
        let listen = [parse("l", "LISTEN here"), bind("", "l", &[]), execute("", 0)].concat();
        let frames = one.ask(&[insert("1"), listen.clone(), insert("2"), sync(), insert("3"), sync()].concat(), 2);
        assert_eq!(kinds(&frames), "12C1EZ12CZ");
        // The segment is one transaction: what stood before the refusal is undone with it.
        assert_eq!(one.query("SELECT i FROM t"), [[Some("3".to_owned())]]);
        // Between simple queries, and with a Flush in place of the Sync.
        let mixed =
            [query("INSERT INTO t VALUES (4)"), query("LISTEN here"), query("INSERT INTO t VALUES (5)")].concat();
        assert_eq!(kinds(&one.ask(&mixed, 3)), "CZEZCZ");
        one.send(&batch([bind("", "l", &[]), execute("", 0), flush()]));
        let refusal = one.receive().unwrap();
        assert_eq!((refusal.kind, refusal.field(b'C').unwrap().as_str()), (b'E', "55000"));
        assert_eq!(kinds(&one.ask(&[insert("6"), sync()].concat(), 1)), "Z");
        assert_eq!(one.value("SELECT string_agg(i::text, ' ' ORDER BY i) FROM t"), "3 4 5");
        // In a transaction block, by either protocol.
        one.query("BEGIN");
        let frames = one.ask(
            &[query("INSERT INTO t VALUES (7)"), [bind("", "l", &[]), sync()].concat(), query("SELECT 1")].concat(),
            3,
        );
        assert_eq!(kinds(&frames), "CZEZEZ");
        assert_eq!(frames.last().unwrap().body[..], b"E"[..]);
        one.query("ROLLBACK");
        assert_eq!(one.value("SELECT count(*) FROM t"), "3");
    });
}

const ALLOW: &str = "{ setting = 'allow', prepared_statement = 'allow', temporary_object = 'allow', session_lock = 'allow', \
     held_cursor = 'allow', listen = 'allow', opaque_code = 'allow', server_process = 'allow', unreadable = 'allow', \
     sequence = 'allow' }";

#[test]
fn what_is_allowed_is_run_and_gone_behind_the_transaction() {
    each_with("pins_allowed", &["CREATE SEQUENCE s"], with(ONE, "pin_on", ALLOW), |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        one.query("SET work_mem = '7MB'");
        for sql in [
            "CREATE TEMP TABLE mine (i int)",
            "SELECT pg_advisory_lock(1)",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "LISTEN here",
            "DO $$ BEGIN CREATE TEMP TABLE mine (i int); END $$",
            "DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE mine (i int)'; PERFORM set_config('app.' || 'x', 'y', false); END $$",
            "SELECT setseed(0.5)",
            "SELECT U&\"x\" FROM (SELECT 1 AS x) AS x",
        ] {
            let two = format!("BEGIN; {sql}");
            for bytes in [query(sql), runs(sql)] {
                let frames = one.ask(&bytes, 1);
                assert!(!kinds(&frames).contains('E'), "{sql}: {frames:#?}");
                // The only connection is free, and clean.
                assert_eq!(other.value(LEFT), NOTHING, "{sql}");
                assert_eq!(other.value("SHOW work_mem"), "4MB", "{sql}");
                assert_eq!(other.value("SELECT coalesce(current_setting('app.x', true), '')"), "", "{sql}");
                assert_eq!(one.value("SHOW work_mem"), "7MB", "{sql}");
            }
            // In the middle of a transaction it is there; its client leaves, and nothing of it stays.
            let mut third = client(proxy, database);
            third.ask(&query(&two), 1);
            third.query("COMMIT");
            drop(third);
            assert_eq!(other.value(LEFT), NOTHING, "{sql}");
        }
        // Last values are nobody else's, allowed or not.
        one.query("SELECT nextval('s')");
        assert_eq!(error(&other.ask(&query("SELECT lastval()"), 1)).0, "55000");
        assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0);
        assert_eq!(proxy.metric("sluicegate_disagreements_total"), 0.0);
    });
}

#[test]
fn no_more_than_a_share_is_kept() {
    each_with("pins_share", &[], with(FOUR, "pin_max_percent", "50"), |_, database, proxy| {
        let mut clients: Vec<Wire> = (0..4).map(|_| client(proxy, database)).collect();
        let words = "no more than 2 may be kept so (pin_max_percent = 50)";
        let [one, two, three, four] = &mut clients[..] else { unreachable!() };
        one.query("LISTEN here");
        two.query("BEGIN");
        two.query("SELECT pg_advisory_lock(1)");
        // Before anything of it is known to stay: no burst gets by.
        for bytes in [query("LISTEN here"), runs("LISTEN here")] {
            is_refused(&three.ask(&bytes, 1), words, b'I');
        }
        let (_, message) = error(&three.ask(&query("CREATE TEMP TABLE mine (i int)"), 1));
        assert!(message.contains("a temporary table") && message.contains("target group \"it\""), "{message}");
        two.query("COMMIT");
        is_refused(&three.ask(&query("LISTEN here"), 1), words, b'I');
        // Those who are pinned go on, and may pin for more.
        one.query("CREATE TEMP TABLE mine (i int)");
        assert_eq!(two.value("SELECT pg_advisory_unlock(1)"), "t");
        // A place is free, as soon as the server has said so.
        until_listens(three);
        is_refused(&two.ask(&query("LISTEN here"), 1), words, b'I');
        is_refused(&four.ask(&query("LISTEN here"), 1), words, b'I');
        // What does not pin for sure is not refused; if it does, it counts.
        four.query("SET work_mem = '7MB'");
        four.query("BEGIN; CREATE TEMP TABLE brief () ON COMMIT DROP; COMMIT");
        four.query("DO $$ BEGIN CREATE TEMP TABLE mine (i int); END $$");
        assert_eq!(four.value("SELECT count(*) FROM mine"), "0");
        until_pinned(proxy, "temporary_object", 2);
        one.query("DISCARD ALL");
        is_refused(&one.ask(&query("LISTEN here"), 1), words, b'I');
        // A client that leaves gives its place up, once its connection is clean.
        drop(clients.remove(3));
        until_listens(&mut clients[0]);
        assert_eq!(proxy.metric_by("sluicegate_errors_total", "kind").keys().collect::<Vec<_>>(), ["pool"]);
    });
}

/// One may always be pinned, however few connections there are.
#[test]
fn one_may_always_be_pinned() {
    each_with("pins_one", &[], with(ONE, "pin_max_percent", "1"), |_, database, proxy| {
        let mut one = client(proxy, database);
        one.query("CREATE TEMP TABLE mine (i int)");
        assert_eq!(one.value("SELECT count(*) FROM mine"), "0");
        one.query("LISTEN here");
        one.query("DROP TABLE mine; UNLISTEN *");
        let mut other = client(proxy, database);
        other.query("CREATE TEMP TABLE mine (i int)");
    });
}

#[test]
fn an_idle_client_does_not_keep_its_connection_for_ever() {
    each_with("pins_idle", &[], with(ONE, "pin_idle_timeout", "'500ms'"), |server, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        one.query("SELECT pg_advisory_lock(1); CREATE TEMP TABLE mine (i int)");
        other.send(&query("SELECT 'waited'"));
        let told = one.until_closed();
        assert_eq!(kinds(&told), "E");
        assert_eq!((told[0].field(b'V').unwrap(), told[0].field(b'C').unwrap()), ("FATAL".into(), "57P05".into()));
        let message = told[0].field(b'M').unwrap();
        assert!(message.contains("(pin_idle_timeout)"), "{message}");
        // Whoever waited gets the connection, and it is clean.
        assert_eq!(kinds(&other.until_ready(1)), "TDCZ");
        assert_eq!(other.value(LEFT), NOTHING);
        let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
        superuser.until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0");
        // One that is not pinned stays, and so does one in a transaction.
        other.query("BEGIN");
        other.query("SELECT pg_sleep(1)");
        other.query("COMMIT");
        assert_eq!(proxy.metric_by("sluicegate_timeouts_total", "kind"), [("pin_idle".to_owned(), 1)].into());
    });
}

/// Whoever has the texts finds the one whose fingerprint is in the log, as `pg_stat_statements` shows them, too.
#[test]
fn a_statement_is_found_by_its_fingerprint() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let command = command.arg("fingerprint").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let texts = "SELECT pg_advisory_lock(1)\0select  pg_advisory_lock($1)\n -- other\0LISTEN a;\0\n\0";
    child.stdin.take().unwrap().write_all(texts.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "766888454a93d044 SELECT pg_advisory_lock(1)\n766888454a93d044 select pg_advisory_lock($1) -- other\n\
         cc3a975bdd591feb LISTEN a;\n"
    );
}

/// Reason, statement and age, in metrics and log; what stands in the statement is in neither.
#[test]
fn a_pin_is_told_with_its_statement_and_its_age() {
    let text = |server: &PostgresServer| config(server.address(), FOUR);
    each_with("pins_told", &[], text, |_, database, proxy| {
        let mut one = client(proxy, database);
        one.query("SELECT pg_advisory_lock(918273645)");
        let log = proxy.logs(": pinned reason=session_lock");
        let lines = |log: &str, words: &str| -> Vec<String> {
            log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
        };
        let began = lines(&log, ": pinned ");
        assert_eq!(began.len(), 1, "{log}");
        assert!(began[0].contains(" INFO ") && began[0].contains("command=\"SELECT\""), "{}", began[0]);
        let fingerprint = began[0].split("fingerprint=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        assert!(fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{fingerprint}");
        assert_eq!(fingerprint, "766888454a93d044");
        let since = Instant::now();
        while proxy.metric("sluicegate_oldest_pin_seconds") == 0.0 {
            assert!(since.elapsed() < PATIENCE, "the pin has no age");
        }
        assert_eq!(proxy.metric("sluicegate_pin_seconds_count"), 0.0);
        one.query("SELECT pg_advisory_unlock(918273645)");
        let log = proxy.logs("no longer pinned reason=session_lock age=");
        assert_eq!(lines(&log, "no longer pinned").len(), 1, "{log}");
        proxy.until_metric("sluicegate_oldest_pin_seconds", 0);
        assert_eq!(proxy.metric_by("sluicegate_pin_seconds_count", "reason"), [("session_lock".to_owned(), 1)].into());
        // The same statement with other values is not told again so soon; another one is, by its own fingerprint.
        one.query("SELECT pg_advisory_lock(918273646)");
        let mut other = client(proxy, database);
        for (times, bytes) in [(1, query("LISTEN nobody_hears")), (2, runs("LISTEN nobody_listens"))] {
            other.ask(&bytes, 1);
            proxy.until_logs(": pinned reason=listen", times);
            other.query("UNLISTEN *");
            proxy.until_logs("no longer pinned reason=listen", times);
        }
        until_pinned(proxy, "session_lock", 2);
        let log = proxy.log();
        assert!(!log.contains("9182736") && !log.contains("nobody"), "{log}");
        assert_eq!(lines(&log, &fingerprint).len(), 1, "{log}");
        // A client that leaves has been pinned.
        drop(one);
        proxy.until_metric("sluicegate_pin_seconds_count", 4);
    });
}
