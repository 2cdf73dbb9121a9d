//! Transactions: where they begin and end, implicit ones included, and who keeps a database connection meanwhile.

use sluicegate::demo::servers::PostgresServer;

use crate::harness::proxy::{config, set};
use crate::harness::wire::{
    Login, Script, Wire, batch, bind, describe_portal, describe_statement, execute, flush, kinds, parse, query, sync,
};
use crate::harness::{Scenario, each_with};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

fn scenario(name: &'static str) -> Scenario {
    Scenario::new(name).setup(TABLE).reset("TRUNCATE t").state("SELECT * FROM t ORDER BY id")
}

fn statement(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0)])
}

#[test]
fn pg_008_a_pipeline_is_one_transaction() {
    let insert = "INSERT INTO t VALUES (1, 'a')";
    let script = Script::new()
        .send(batch([statement(insert), statement(insert), sync()]))
        .ready(1)
        .send(batch([statement("INSERT INTO t VALUES (2, 'b')"), sync(), statement("SELEC"), sync()]))
        .ready(2);
    let scenario = scenario("pg_008_a_pipeline_is_one_transaction");
    scenario.shape("12C12EZ 12CZ EZ .").errors(&["23505", "42601"]).check(script);
}

#[test]
fn pg_013_deferred_constraint_fails_at_the_end() {
    let orphan = "INSERT INTO child VALUES (1, 99)";
    let script = Script::new()
        .send(batch([statement(orphan), sync(), query("SELECT 1")]))
        .ready(2)
        .send(batch([query("BEGIN"), query(orphan), query("COMMIT"), query("SELECT 2")]))
        .ready(4)
        .send(batch([statement(orphan), statement("SELECT 3"), sync(), statement("SELECT 4"), sync()]))
        .ready(2)
        .run(orphan);
    scenario("pg_013_deferred_constraint_fails_at_the_end")
        .setup("CREATE TABLE child (id int, t_id int REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
        .reset("TRUNCATE t CASCADE")
        .state("SELECT * FROM child")
        .shape("12CEZ TDCZ CZ CZ EZ TDCZ 12C12DCEZ 12DCZ EZ .")
        .errors(&["23503"; 4])
        .check(script);
}

/// Nothing of a BEGIN is put off: what may follow it, or precede it, finds what it would find.
#[test]
fn pg_046_what_a_begin_is_followed_by() {
    let begin =
        |sql: &str| batch([parse("s1", sql), describe_statement("s1"), bind("", "s1", &[]), describe_portal("")]);
    let others = |script: Script, sql: &str| script.client(1).run(sql).client(0);
    // Described, and executed in a segment of its own.
    let mut script = Script::new().send(batch([begin("BEGIN ISOLATION LEVEL REPEATABLE READ"), sync()])).ready(1);
    script = script.send(batch([bind("", "s1", &[]), execute("", 0), sync()])).ready(1);
    // It reads what others have done until it first asks.
    script = others(script, "INSERT INTO t VALUES (1, 'before')").run("SELECT * FROM t ORDER BY id");
    script = others(script, "INSERT INTO t VALUES (2, 'behind')").run("SELECT * FROM t ORDER BY id").run("COMMIT");
    for first in [
        "SAVEPOINT a",
        "SET LOCAL work_mem = '7MB'",
        "SET TRANSACTION READ ONLY",
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT 1",
    ] {
        script = script.run("START TRANSACTION");
        script = others(script.run(first), "SELECT 'another client in between'");
        script = script.run("SHOW work_mem").run("SHOW transaction_read_only").run("END");
    }
    script = script.run("BEGIN WORK").run("SAVEPOINT a").run("SET LOCAL work_mem = '8MB'").run("ROLLBACK TO a");
    script = script.run("SHOW work_mem").run("RELEASE a").run("ABORT");
    // Nothing in between, and nothing at all before it.
    for end in ["COMMIT", "ROLLBACK", "END", "PREPARE TRANSACTION 'pg_046'"] {
        script = script.run("BEGIN").run(end).run(end).send(batch([statement(end), sync()])).ready(1);
    }
    script = script.run("ROLLBACK PREPARED 'pg_046'").run("SET LOCAL work_mem = '9MB'").run("SAVEPOINT a");
    script = script.run("BEGIN; BEGIN READ ONLY").run("BEGIN").send(batch([statement("BEGIN"), sync()])).ready(1);
    script = others(script, "SELECT 'another client in between'").run("INSERT INTO t VALUES (3, 'c')").run("COMMIT");
    // In one segment with what follows.
    let segment = [statement("BEGIN"), flush()];
    script = script.send(batch(segment)).until(b'C', 1).quiet();
    script = script.send(batch([statement("INSERT INTO t VALUES (4, 'd')"), statement("BEGIN"), sync()])).ready(1);
    script = others(script, "SELECT count(*) FROM t").run("COMMIT");
    scenario("pg_046_what_a_begin_is_followed_by").errors(&["25P01", "25006"]).check(script);
}

/// There is no connection for it: the transaction has not begun, and nothing of it is done.
#[test]
fn pg_047_a_begin_for_which_there_is_nothing_free() {
    let config = |server: &PostgresServer| {
        set(&config(server.address(), 3), "target_group.pool", "connection_borrow_timeout", "\"300ms\"")
    };
    each_with("pg_047_nothing_free", &[TABLE], config, |server, database, proxy| {
        let login = Login::app().database(database);
        let [mut holder, mut waiter] = [(); 2].map(|()| Wire::comes_in(proxy.address, &login));
        let mut direct = Wire::connect(server.address(), &login).unwrap();
        for begin in [query("BEGIN"), batch([statement("BEGIN"), statement("INSERT INTO t VALUES (1, 'a')"), sync()])] {
            holder.query("BEGIN");
            let frames = waiter.ask(&begin, 1);
            assert_eq!((kinds(&frames).as_str(), frames[0].field(b'C').as_deref()), ("EZ", Some("53300")));
            assert_eq!(&frames[1].body[..], b"I");
            holder.query("COMMIT");
            // As drivers do behind an error, or don't.
            let texts = [
                "SELECT 1",
                "ROLLBACK",
                "SELECT count(*) FROM t",
                "BEGIN",
                "INSERT INTO t VALUES (2, 'b')",
                "ROLLBACK",
            ];
            let [proxied, direct] =
                [&mut waiter, &mut direct].map(|wire| texts.map(|sql| kinds(&wire.ask(&query(sql), 1))));
            assert_eq!(direct, proxied);
        }
        // Who has sent the rest already must not have it run by itself.
        holder.query("BEGIN");
        let pipeline =
            batch([query("BEGIN"), query("INSERT INTO t VALUES (1, 'a')"), query("SELECT 1/0"), query("COMMIT")]);
        let frames = waiter.ask(&pipeline, 4);
        assert_eq!(kinds(&frames), "EZEZEZCZ");
        let codes: Vec<_> = frames.iter().filter_map(|frame| frame.field(b'C')).collect();
        assert_eq!(codes, ["53300", "25P02", "25P02"]);
        holder.query("COMMIT");
        assert_eq!(waiter.value("SELECT count(*) FROM t"), "0");
    });
}

#[test]
fn pg_048_commit_of_an_aborted_transaction() {
    let script = Script::new()
        .run("BEGIN")
        .run("INSERT INTO t VALUES (1, 'a')")
        .run("SELEC")
        .run("COMMIT")
        .send(batch([query("BEGIN"), statement("SELEC"), sync(), statement("COMMIT"), sync()]))
        .ready(3)
        .run("BEGIN; SELEC; COMMIT")
        .run("SELECT 1");
    let scenario = scenario("pg_048_commit_of_an_aborted_transaction");
    scenario.shape("CZ CZ EZ CZ CZ EZ 12CZ EZ TDCZ .").errors(&["42601"; 3]).check(script);
}

#[test]
fn pg_049_and_chain() {
    let script = Script::new()
        .run("BEGIN ISOLATION LEVEL SERIALIZABLE")
        .run("INSERT INTO t VALUES (1, 'a')")
        .run("COMMIT AND CHAIN")
        .run("SHOW transaction_isolation")
        .client(1)
        .run("SELECT 'another client in between'")
        .client(0)
        .run("INSERT INTO t VALUES (2, 'b')")
        .run("ROLLBACK AND CHAIN")
        .run("INSERT INTO t VALUES (3, 'c')")
        .run("SELEC")
        .run("COMMIT AND CHAIN")
        .run("SHOW transaction_isolation")
        .run("COMMIT")
        .run("COMMIT AND CHAIN")
        .run("SHOW transaction_isolation");
    let shape = "CZ CZ CZ TDCZ CZ CZ CZ EZ CZ TDCZ CZ EZ TDCZ .";
    scenario("pg_049_and_chain").shape(shape).errors(&["42601", "25P01"]).check(script);
}

#[test]
fn pg_050_several_statements_in_one_query() {
    let script = Script::new()
        .run("BEGIN; INSERT INTO t VALUES (1, 'a'); COMMIT; SELECT 1")
        .run("SELECT 1; BEGIN")
        .client(1)
        .run("SELECT 'another client in between'")
        .client(0)
        .run("INSERT INTO t VALUES (2, 'b')")
        .run("COMMIT; BEGIN; INSERT INTO t VALUES (3, 'c')")
        .run("ROLLBACK")
        // An implicit transaction: the failure takes the first insert along.
        .run("INSERT INTO t VALUES (4, 'd'); INSERT INTO t VALUES (1, 'again'); SELECT 1")
        .run("INSERT INTO t VALUES (5, 'e'); COMMIT; SELEC_ 1")
        .run("INSERT INTO t VALUES (6, 'f'); COMMIT; SELECT 1 / (SELECT 0)");
    let scenario = scenario("pg_050_several_statements_in_one_query");
    let shape = "CCCTDCZ TDCCZ CZ CCCZ CZ CEZ EZ CNCTEZ .";
    scenario.shape(shape).errors(&["23505", "42601", "22012"]).check(script);
}

#[test]
fn pg_051_prepared_transactions() {
    let script = Script::new()
        .run("BEGIN")
        .run("INSERT INTO t VALUES (1, 'a')")
        .run("PREPARE TRANSACTION 'pg_051'")
        .run("SELECT count(*) FROM t")
        .client(1)
        .run("COMMIT PREPARED 'pg_051'")
        .run("SELECT count(*) FROM t")
        .run("COMMIT PREPARED 'pg_051'")
        .client(0)
        .run("BEGIN; INSERT INTO t VALUES (2, 'b'); PREPARE TRANSACTION 'pg_051'")
        .run("ROLLBACK PREPARED 'pg_051'");
    let scenario = scenario("pg_051_prepared_transactions");
    scenario.shape("CZ CZ CZ TDCZ CCCZ CZ .").errors(&["42704"]).check(script);
}

#[test]
fn pg_052_idle_in_an_aborted_transaction() {
    let script = Script::new()
        .run("BEGIN")
        .run("INSERT INTO t VALUES (1, 'a')")
        .run("SELEC")
        .quiet()
        .client(1)
        .run("SELECT 'another client in between'")
        .client(0)
        .run("SELECT 1")
        .send(batch([statement("SELECT 2"), sync()]))
        .ready(1)
        .quiet()
        .run("ROLLBACK")
        .run("SELECT 3");
    let scenario = scenario("pg_052_idle_in_an_aborted_transaction");
    scenario.shape("CZ CZ EZ EZ EZ CZ TDCZ .").errors(&["42601", "25P02", "25P02"]).check(script);
}

/// Longer than `transaction_idle_timeout`: told, and rolled back.
#[test]
fn pg_052_an_aborted_transaction_is_not_held_for_ever() {
    let config = |server: &PostgresServer| {
        let text = config(server.address(), 3);
        set(&text, "target_group.pool", "transaction_idle_timeout", "\"300ms\"")
    };
    each_with("pg_052_timeout", &["CREATE TABLE t (id int)"], config, |_, database, proxy| {
        let login = Login::app().database(database);
        let mut wire = Wire::connect(proxy.address, &login).unwrap();
        wire.query("BEGIN; INSERT INTO t VALUES (1)");
        let frames = wire.ask(&query("SELEC"), 1);
        assert_eq!((kinds(&frames).as_str(), &frames[1].body[..]), ("EZ", &b"E"[..]));
        let frames = wire.until_closed();
        let told = |name| frames.last().and_then(|frame| frame.field(name)).unwrap_or_default();
        assert_eq!((kinds(&frames).as_str(), told(b'V').as_str(), told(b'C').as_str()), ("E", "FATAL", "25P03"));
        // The only connection is free, and nothing stayed.
        assert_eq!(Wire::connect(proxy.address, &login).unwrap().value("SELECT count(*) FROM t"), "0");
    });
}
