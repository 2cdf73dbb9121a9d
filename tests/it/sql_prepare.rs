//! `PREPARE`, `EXECUTE` and `DEALLOCATE` in SQL while connections change hands: the names are their client's, wherever it goes,
//! and nobody keeps a connection for them. Limits of what a client may prepare.

use crate::harness::measure::eventually;
use crate::harness::proxy::{ProxyHandle, config};
use crate::harness::wire::{
    Login, Script, Wire, batch, bind, close_statement, describe_portal, describe_statement, execute, kinds, parse,
    query, sync,
};
use crate::harness::{Scenario, each_with};
use sluicegate::demo::servers::PostgresServer;

/// Two for clients, two of the proxy's own.
const TWO: u32 = 4;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

fn two(server: &PostgresServer) -> String {
    config(server.address(), TWO)
}

/// A text of the extended protocol, with what it returns.
fn runs(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), describe_portal(""), execute("", 0), sync()])
}

/// Client 0 says this on one connection, then on the other.
fn elsewhere(script: Script) -> Script {
    script
        .client(9)
        .run("BEGIN")
        .client(0)
        .run("SELECT 'here'")
        .client(8)
        .run("BEGIN")
        .client(9)
        .run("COMMIT")
        .client(0)
}

fn back(script: Script) -> Script {
    script.client(8).run("COMMIT").client(0)
}

#[test]
fn pg_041_prepared_in_sql_goes_along() {
    let mut script = Script::new()
        .run("PREPARE one AS SELECT v FROM t ORDER BY 1")
        .run("prepare /* quoted */ \"Two\" (int, text)as SELECT $1 + 1 AS a, $2 AS b")
        .run("PREPARE three AS INSERT INTO t VALUES ($1) RETURNING v;");
    script = elsewhere(script);
    for sql in [
        "EXECUTE one",
        "EXECUTE \"Two\"(40 + 1, 'x')",
        "execute two(1, 'x')",
        "EXECUTE \"Two\"('no number', 'x')",
        "EXECUTE \"Two\"(1)",
        "EXECUTE  \"Two\" (1, nowhere)",
        "EXECUTE three('c'); EXECUTE one",
        "EXPLAIN (COSTS OFF) EXECUTE one",
        "CREATE TABLE made AS EXECUTE \"Two\"(1, 'made')",
        "PREPARE one AS SELECT 'another'",
        "DEALLOCATE one; EXECUTE one",
        "EXECUTE one",
        "PREPARE one AS SELECT 'new'; DEALLOCATE one; PREPARE one AS SELECT 'newer'; EXECUTE one; PREPARE one AS SELECT 3",
        "EXECUTE one",
        "PREPARE bad AS SELECT nothing FROM t",
        "PREPARE bad AS SELEC",
        "EXECUTE bad",
        "DEALLOCATE bad",
        "BEGIN; PREPARE four AS SELECT 4; SELECT 1/0",
        "EXECUTE four",
        "ROLLBACK",
        "EXECUTE four",
        "DEALLOCATE PREPARE four",
        "DEALLOCATE four",
        "PREPARE\"five\"AS SELECT 5; EXECUTE\"five\"; DEALLOCATE\"five\"; EXECUTE five",
        "PREPARE s1 AS SELECT 1; DEALLOCATE ALL; EXECUTE s1",
    ] {
        script = script.run(sql);
    }
    let script = back(script).run("EXECUTE one").run("EXECUTE \"Two\"(1, 'x')").run("PREPARE one AS SELECT 'last'");
    let script = elsewhere(script).run("EXECUTE one");
    Scenario::new("pg_041_prepared_in_sql_goes_along")
        .setup("CREATE TABLE t (v text)")
        .reset("DROP TABLE IF EXISTS made; TRUNCATE t; INSERT INTO t VALUES ('a'), ('b')")
        .errors(&[
            "26000", "22P02", "42601", "42703", "42P05", "26000", "26000", "42P05", "42703", "42601", "26000", "26000",
            "22012", "25P02", "26000", "26000", "26000", "26000", "26000",
        ])
        .check(back(script));
}

/// Both protocols, one space of names.
#[test]
fn pg_041_in_both_protocols() {
    let mut script = Script::new()
        .send(batch([parse("p", "SELECT 'parsed ' || $1::text"), sync()]))
        .ready(1)
        .run("PREPARE q(text) AS SELECT 'prepared ' || $1");
    script = elsewhere(script).run("EXECUTE p('a')");
    let used = batch([describe_statement("q"), bind("", "q", &[Some("b")]), execute("", 0), sync()]);
    script =
        script.send(used.clone()).ready(1).send(runs("EXECUTE q('c')")).ready(1).send(runs("EXECUTE p(1)")).ready(1);
    // A statement about a statement means what the name means when it is used.
    let named =
        batch([parse("e", "EXECUTE r"), parse("d", "DEALLOCATE r"), parse("m", "PREPARE r AS SELECT 'r1'"), sync()]);
    let use_of = |name: &str| batch([bind("", name, &[]), describe_portal(""), execute("", 0), sync()]);
    script = script.send(named).ready(1);
    for name in ["e", "d", "m", "m", "e"] {
        script = script.send(use_of(name)).ready(1);
    }
    script = back(script).send(use_of("e")).ready(1).send(use_of("d")).ready(1);
    script = script.run("PREPARE r AS SELECT 'r2', 2").send(use_of("e")).ready(1).send(use_of("d")).ready(1);
    script = elsewhere(script).send(use_of("d")).ready(1).send(use_of("e")).ready(1).send(use_of("m")).ready(1);
    script = script.run("EXECUTE e").run("EXECUTE m");
    // In one segment, in its order.
    let segment = batch([
        batch([parse("", "PREPARE x AS SELECT 'x'"), bind("", "", &[]), execute("", 0)]),
        batch([parse("", "EXECUTE x"), bind("", "", &[]), describe_portal(""), execute("", 0)]),
        batch([parse("", "DEALLOCATE x"), bind("", "", &[]), execute("", 0), execute("", 0)]),
        batch([parse("", "SELECT 'skipped'"), sync()]),
    ]);
    script = script
        .send(segment)
        .ready(1)
        .send(batch([close_statement("q"), parse("q", "SELECT 'again'"), sync()]))
        .ready(1);
    Scenario::new("pg_041_in_both_protocols")
        .errors(&["26000", "26000", "42P05", "26000", "26000", "42P05", "55000"])
        .check(back(script.run("EXECUTE q")));
}

#[test]
fn pg_041_names_are_their_clients_own() {
    each_with("pg_041_own", &["CREATE TABLE t (v text)"], two, |_, database, proxy| {
        let mut clients: Vec<Wire> = (0..5).map(|_| client(proxy, database)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.query(&format!("PREPARE mine AS SELECT 'of {number}'"));
            client.query("PREPARE same AS SELECT 'same'");
        }
        for _ in 0..3 {
            for (number, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.value("EXECUTE mine"), format!("of {number}"));
                assert_eq!(client.value("EXECUTE same"), "same");
            }
        }
        // One leaves in the middle of a transaction, one deallocates: the others keep theirs.
        let mut leaving = clients.pop().unwrap();
        leaving.query("BEGIN; PREPARE half AS SELECT 'half'");
        drop(leaving);
        clients[0].query("DEALLOCATE ALL");
        let mut next = client(proxy, database);
        for name in ["mine", "same", "half"] {
            assert_eq!(kinds(&next.ask(&query(&format!("EXECUTE {name}")), 1)), "EZ", "{name}");
            assert_eq!(kinds(&clients[0].ask(&query(&format!("EXECUTE {name}")), 1)), "EZ", "{name}");
            next.query(&format!("PREPARE {name} AS SELECT 'of the next'"));
            assert_eq!(next.value(&format!("EXECUTE {name}")), "of the next");
        }
        for (number, client) in clients.iter_mut().enumerate().skip(1) {
            assert_eq!(client.value("EXECUTE mine"), format!("of {number}"));
            assert_eq!(client.value("EXECUTE same"), "same");
        }
        assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0);
        assert_eq!(proxy.metric("sluicegate_disagreements_total"), 0.0);
    });
}

/// What an `EXECUTE` does to the session is what its statement says, not its own text.
#[test]
fn pg_041_what_is_executed_is_followed() {
    let setup = &["CREATE SEQUENCE s", "GRANT ALL ON SEQUENCE s TO app"];
    each_with("pg_041_followed", setup, two, |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        let mut third = client(proxy, database);
        let tenant = "SELECT coalesce(current_setting('app.tenant', true), '')";
        one.query("PREPARE tenant(text) AS SELECT set_config('app.tenant', $1, false)");
        one.query("PREPARE tokyo AS SELECT set_config('TimeZone', 'Asia/Tokyo', false)");
        one.query("PREPARE locks AS SELECT pg_advisory_lock(1)");
        one.query("PREPARE draws AS SELECT nextval('s')");
        for ask in [query as fn(&str) -> Vec<u8>, runs] {
            one.ask(&ask("EXECUTE tenant('mine')"), 1);
            one.ask(&ask("EXECUTE tokyo"), 1);
            for _ in 0..3 {
                other.query("BEGIN");
                assert_eq!((one.value(tenant), one.value("SHOW TimeZone")), ("mine".into(), "Asia/Tokyo".into()));
                third.query("BEGIN");
                for who in [&mut other, &mut third] {
                    assert_eq!(who.value(tenant), "");
                    assert_ne!(who.value("SHOW TimeZone"), "Asia/Tokyo");
                    who.query("COMMIT");
                }
            }
            one.query("RESET ALL");
        }
        eventually(proxy, &[("clients_pinned", 0.0)]);
        // Nor is the last value that it drew another's.
        one.query("EXECUTE draws");
        for who in [&mut other, &mut third] {
            who.query("BEGIN");
            assert_eq!(kinds(&who.ask(&query("SELECT lastval()"), 1)), "TEZ");
        }
        other.query("ROLLBACK");
        third.query("ROLLBACK");
        one.query("EXECUTE locks");
        assert_eq!(proxy.metric_by_with("sluicegate_clients_pinned", "reason", "session_lock")["session_lock"], 1);
        assert_eq!(other.value("SELECT pg_try_advisory_lock(1)"), "f");
        drop(one);
        other.until("SELECT pg_try_advisory_lock(1)", "t");
    });
}

/// 10,000 names and no more, in whatever protocol; the session goes on, and so do others.
#[test]
fn pg_039_a_client_has_so_many_statements_and_no_more() {
    each_with("pg_039_limits", &[], two, |_, database, proxy| {
        let mut one = client(proxy, database);
        let mut other = client(proxy, database);
        for chunk in 0..10 {
            let parses = (0..1000).flat_map(|n| parse(&format!("s{chunk}_{n}"), &format!("SELECT {chunk}, {n}")));
            let frames = one.ask(&parses.chain(sync()).collect::<Vec<u8>>(), 1);
            assert_eq!(kinds(&frames), "1".repeat(1000) + "Z");
        }
        let code = |frames: &[crate::harness::wire::Frame]| {
            let error = frames.iter().find(|frame| frame.kind == b'E').unwrap();
            error.field(b'C').unwrap()
        };
        let refused = one.ask(&batch([parse("more", "SELECT 1"), bind("", "more", &[]), execute("", 0), sync()]), 1);
        assert_eq!((kinds(&refused).as_str(), code(&refused).as_str()), ("EZ", "54000"));
        for ask in [
            query("PREPARE more AS SELECT 1"),
            runs("PREPARE more AS SELECT 1"),
            query("SELECT 1; PREPARE more AS SELECT 1"),
        ] {
            assert_eq!(code(&one.ask(&ask, 1)), "54000");
        }
        one.query("BEGIN");
        assert_eq!(code(&one.ask(&query("PREPARE more AS SELECT 1"), 1)), "54000");
        assert_eq!(code(&one.ask(&query("SELECT 1"), 1)), "25P02");
        one.query("ROLLBACK");
        // Those it has are good, and the unnamed one.
        assert_eq!(one.value("EXECUTE s9_999"), "9");
        assert_eq!(kinds(&one.ask(&runs("SELECT 1"), 1)), "12TDCZ");
        other.query("PREPARE more AS SELECT 'other'");
        assert_eq!(other.value("EXECUTE more"), "other");
        one.query("DEALLOCATE s0_0");
        one.query("PREPARE more AS SELECT 'more'");
        assert_eq!(one.value("EXECUTE more"), "more");
        one.query("DEALLOCATE ALL");
        // By their texts, too.
        let long = "x".repeat(900 << 10);
        for n in 0..72 {
            assert_eq!(
                kinds(&one.ask(&batch([parse(&format!("t{n}"), &format!("SELECT {n}, '{long}'")), sync()]), 1)),
                "1Z"
            );
        }
        let refused = one.ask(&batch([parse("t72", &format!("SELECT '{long}'")), sync()]), 1);
        assert_eq!((kinds(&refused).as_str(), code(&refused).as_str()), ("EZ", "54000"));
        assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0);
    });
}

/// What only the proxy has to clear is cleared without a database connection; the server is asked for the rest.
#[test]
fn cleared_without_a_connection() {
    let setup = &["CREATE SEQUENCE s", "GRANT ALL ON SEQUENCE s TO app"];
    each_with("cleared_alone", setup, two, |_, database, proxy| {
        let mut one = client(proxy, database);
        one.query("PREPARE a AS SELECT 1");
        one.query("SELECT nextval('s')");
        assert_eq!(one.value("SELECT lastval()"), "1");
        let mut holders: Vec<Wire> = (0..2).map(|_| client(proxy, database)).collect();
        holders.iter_mut().for_each(|holder| drop(holder.query("BEGIN; SELECT 1")));
        for (sql, shown) in
            [("RESET ALL", "RESET"), ("DEALLOCATE ALL", "DEALLOCATE ALL"), ("DISCARD ALL", "DISCARD ALL")]
        {
            let frames = one.ask(&query(sql), 1);
            assert_eq!(kinds(&frames), "CZ");
            assert_eq!(frames[0].body.as_ref(), format!("{shown}\0").as_bytes());
        }
        holders.clear();
        assert_eq!(kinds(&one.ask(&query("EXECUTE a"), 1)), "EZ");
        // What it drew is gone, on whatever connection that was.
        for _ in 0..4 {
            assert_eq!(kinds(&one.ask(&query("SELECT lastval()"), 1)), "TEZ");
        }
        one.query("SET work_mem = '7MB'");
        one.query("DISCARD ALL");
        assert_eq!(one.value("SHOW work_mem"), "4MB");
    });
}
