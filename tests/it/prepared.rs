//! Prepared statements and portals by name: what exists when, and what an error leaves.

use crate::harness::Scenario;
use crate::harness::wire::{
    Script, batch, bind, close_portal, close_statement, describe_portal, describe_statement, execute, flush, parse,
    query, sync,
};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// Bind and Execute of a statement without parameters.
fn use_of(name: &str) -> Vec<u8> {
    batch([bind("", name, &[]), execute("", 0)])
}

#[test]
fn pg_016_parse_of_a_client_that_is_gone() {
    let script = Script::new()
        .send(parse("s1", "SELECT 1"))
        .abort()
        .client(1)
        .send(batch([use_of("s1"), sync()]))
        .ready(1)
        .send(batch([parse("s1", "SELECT 2"), use_of("s1"), sync()]))
        .ready(1);
    Scenario::new("pg_016_parse_of_a_client_that_is_gone").errors(&["26000"]).check(script);
}

#[test]
fn pg_021_describe_of_statements_and_portals() {
    let insert = "INSERT INTO t VALUES ($1, $2)";
    let select = "SELECT id, v FROM t WHERE id = $1";
    let mixed = batch([
        parse("s1", select),
        describe_statement("s1"),
        parse("s2", insert),
        describe_statement("s2"),
        bind("p2", "s2", &[Some("1"), Some("a")]),
        describe_portal("p2"),
        execute("p2", 0),
        bind("p1", "s1", &[Some("1")]),
        describe_portal("p1"),
        execute("p1", 0),
        sync(),
    ]);
    let again = batch([
        describe_statement("s2"),
        parse("s3", select),
        bind("", "s1", &[Some("1")]),
        describe_portal(""),
        describe_statement("s3"),
        execute("", 0),
        sync(),
    ]);
    // The second client's statements are known to the database connection by then, under whatever name.
    let script = Script::new().send(mixed).ready(1).send(again.clone()).ready(1).client(1);
    let script = script.send(batch([parse("s1", select), parse("s2", insert), again])).ready(1);
    let scenario = Scenario::new("pg_021_describe_of_statements_and_portals").setup(TABLE).reset("TRUNCATE t");
    scenario.shape("1tT 1tn 2nC 2TDC Z  tn 1 2T tT DC Z .").check(script);
}

#[test]
fn pg_022_large_rows_between_parses() {
    let large = "SELECT repeat('0123456789', 40000), 1";
    let pair = |first: &str, second: &str| {
        let first = batch([parse(first, large), use_of(first)]);
        batch([first, batch([parse(second, large), use_of(second), use_of(second)]), sync()])
    };
    let mut script = Script::new();
    for client in 0..3 {
        script = script.client(client).send(pair("s1", "s2")).ready(1);
        script = script.send(batch([use_of("s1"), parse("s3", large), use_of("s3"), sync()])).ready(1);
    }
    let scenario = Scenario::new("pg_022_large_rows_between_parses");
    scenario.shape("12DC 12DC 2DC Z 2DC 12DC Z .").check(script);
}

#[test]
fn pg_023_the_unnamed_statement_and_portal() {
    let script = Script::new()
        // It outlives Sync ...
        .send(batch([parse("", "SELECT 1"), sync(), use_of(""), sync()]))
        .ready(2)
        // ... but no simple query.
        .run("SELECT 2")
        .send(batch([use_of(""), sync()]))
        .ready(1)
        // A Parse that fails has already removed the old one.
        .send(batch([parse("", "SELECT 3"), sync(), parse("", "SELEC"), sync(), use_of(""), sync()]))
        .ready(3)
        // So has a Bind that fails: the portal is gone.
        .run("BEGIN")
        .send(batch([parse("", "SELECT generate_series(1, 3)"), bind("", "", &[]), execute("", 1), flush()]))
        .until(b's', 1)
        .send(query("SELECT 4"))
        .ready(1)
        .send(batch([execute("", 1), sync()]))
        .ready(1)
        .run("ROLLBACK")
        // A Bind that fails takes the old portal with it, the statement stays.
        .run("BEGIN")
        .send(batch([parse("", "SELECT $1::int"), bind("", "", &[Some("5")]), sync()]))
        .ready(1)
        .send(batch([bind("", "", &[Some("five")]), sync(), describe_portal(""), sync()]))
        .ready(2)
        .run("ROLLBACK")
        .send(batch([parse("", "SELECT $1::int"), sync(), bind("", "", &[Some("six")]), sync()]))
        .ready(2)
        .send(batch([bind("", "", &[Some("6")]), execute("", 0), sync()]))
        .ready(1);
    let scenario = Scenario::new("pg_023_the_unnamed_statement_and_portal");
    let shape = "1Z 2DCZ TDCZ EZ 1Z EZ EZ CZ 12Ds TDCZ EZ CZ CZ 12Z EZ nZ CZ 1Z EZ 2DCZ .";
    let errors = ["26000", "42601", "26000", "34000", "22P02", "22P02"];
    scenario.shape(shape).errors(&errors).check(script);
}

#[test]
fn pg_025_a_name_never_prepared() {
    let script = Script::new()
        .send(batch([describe_statement("s9"), sync()]))
        .ready(1)
        .send(batch([parse("s1", "SELECT 1"), use_of("s9"), use_of("s1"), sync()]))
        .ready(1)
        .send(batch([use_of("s1"), sync()]))
        .ready(1)
        .run("BEGIN")
        .send(batch([use_of("s1"), use_of("s9"), sync()]))
        .ready(1)
        .run("ROLLBACK")
        .send(batch([execute("p9", 0), sync(), describe_portal("p9"), sync()]))
        .ready(2);
    let scenario = Scenario::new("pg_025_a_name_never_prepared");
    let errors = ["26000", "26000", "26000", "34000", "34000"];
    scenario.shape("EZ 1EZ 2DCZ CZ 2DCEZ CZ EZ EZ .").errors(&errors).check(script);
}

#[test]
fn pg_026_a_name_prepared_twice() {
    let script = Script::new()
        .send(batch([parse("s1", "SELECT 1"), sync()]))
        .ready(1)
        .send(batch([parse("s1", "SELECT 2"), use_of("s1"), sync()]))
        .ready(1)
        .send(batch([use_of("s1"), sync()]))
        .ready(1)
        .send(batch([parse("s2", "SELECT 3"), parse("s2", "SELECT 3"), sync(), use_of("s2"), sync()]))
        .ready(2);
    let scenario = Scenario::new("pg_026_a_name_prepared_twice");
    scenario.shape("1Z EZ 2DCZ 1EZ 2DCZ .").errors(&["42P05", "42P05"]).check(script);
}

#[test]
fn pg_027_a_failed_parse_tried_again() {
    let late = "SELECT 27 FROM late";
    let script = Script::new()
        .send(batch([parse("s1", late), sync()]))
        .ready(1)
        .send(batch([use_of("s1"), sync()]))
        .ready(1)
        .run("CREATE TABLE late AS SELECT 1 AS a")
        .send(batch([parse("s1", late), use_of("s1"), sync()]))
        .ready(1)
        .send(batch([parse("s2", "SELEC"), sync(), parse("s2", "SELECT 2"), use_of("s2"), sync()]))
        .ready(2)
        // A statement that a connection has is not parsed anew (a documented difference), and the next run's table is
        // not there yet. Alone it would be answered by the proxy.
        .run("DEALLOCATE ALL; SELECT 1");
    let scenario = Scenario::new("pg_027_a_failed_parse_tried_again").reset("DROP TABLE IF EXISTS late");
    scenario.shape("EZ EZ CZ 12DCZ EZ 12DCZ CTDCZ .").errors(&["42P01", "26000", "42601"]).check(script);
}

#[test]
fn pg_030_a_name_closed_and_prepared_anew_in_one_segment() {
    let anew = |sql: &str| batch([close_statement("s1"), parse("s1", sql), use_of("s1"), sync()]);
    let script = Script::new()
        .send(batch([parse("s1", "SELECT 'old'"), use_of("s1"), sync()]))
        .ready(1)
        .send(anew("SELECT 'new', 2"))
        .ready(1)
        // Another client holds the database connection that has it, so that this one may get another.
        .client(1)
        .run("BEGIN")
        .client(0)
        .send(anew("SELECT 'newest', 2, 3"))
        .ready(1)
        .send(batch([use_of("s1"), close_statement("s1"), use_of("s1"), sync()]))
        .ready(1)
        .client(1)
        .run("COMMIT");
    let scenario = Scenario::new("pg_030_a_name_closed_and_prepared_anew");
    scenario.shape("12DCZ 312DCZ 312DCZ 2DC3EZ .").errors(&["26000"]).check(script);
}

/// A table of that name in either schema, of different columns.
const TWO_SCHEMAS: &str = "CREATE SCHEMA b; CREATE TABLE t (id int); CREATE TABLE b.t (name text, id bigint); \
    INSERT INTO t VALUES (1); INSERT INTO b.t VALUES ('b', 2)";

fn anew(name: &str, sql: &str) -> Vec<u8> {
    batch([parse(name, sql), describe_statement(name), use_of(name), sync()])
}

/// What another client prepared under another path is another statement.
#[test]
fn statements_under_different_search_paths() {
    let sql = "SELECT * FROM t";
    let sets = [("SET search_path = b", "SELECT 1"), ("BEGIN; SET LOCAL search_path = b", "COMMIT")];
    let ways = sets.into_iter().zip(["statements_behind_a_set", "statements_behind_a_set_local"]);
    for ((set, end), name) in ways {
        let script = Script::new()
            .client(1)
            .send(anew("s1", sql))
            .ready(1)
            .client(0)
            .run(set)
            .send(anew("s1", sql))
            .ready(1)
            .send(anew("s2", sql))
            .ready(1)
            .run(end)
            // And the other way round.
            .client(2)
            .send(anew("s3", sql))
            .ready(1)
            .send(batch([use_of("s3"), sync()]))
            .ready(1)
            .client(1)
            .send(batch([use_of("s1"), sync()]))
            .ready(1);
        Scenario::new(name).setup(TWO_SCHEMAS).errors(&[]).check(script);
    }
    // In one go.
    let script = Script::new()
        .client(1)
        .send(anew("s1", sql))
        .ready(1)
        .client(0)
        .send(batch([query("BEGIN"), query("SET LOCAL search_path = b"), anew("s1", sql), query("COMMIT")]))
        .ready(4)
        .client(1)
        .send(batch([use_of("s1"), sync(), close_statement("s1"), anew("s1", sql)]))
        .ready(2);
    Scenario::new("statements_behind_a_pipelined_set_local").setup(TWO_SCHEMAS).errors(&[]).check(script);
}

/// As drivers do: after this error the statement is closed and prepared anew, once; it must do then.
#[test]
fn a_result_that_changed_is_prepared_anew() {
    // An expression: the row's description names no table.
    let sql = "SELECT max(a) FROM changes";
    let becomes = |kind: &str| format!("ALTER TABLE changes ALTER a TYPE {kind} USING a::{kind}");
    let again = |old: &str, new: &str| batch([close_statement(old), sync(), anew(new, sql)]);
    // Client 0 uses it on one connection, and on the other while that one is somebody else's.
    let on_both = |script: Script, name: &str| {
        let script = script.client(0).run("BEGIN").send(batch([use_of(name), sync()])).ready(1);
        let script = script.client(1).run("BEGIN").client(0).run("COMMIT");
        let script = script.client(2).run("BEGIN").client(1).run("COMMIT");
        script.client(0).send(batch([use_of(name), sync()])).ready(1).client(2).run("COMMIT").client(0)
    };
    let script = on_both(Script::new().send(anew("s1", sql)).ready(1), "s1")
        .run(&becomes("text"))
        .send(batch([use_of("s1"), sync()]))
        .ready(1)
        .send(again("s1", "s2"))
        .ready(2);
    let script = on_both(script, "s2")
        .run(&becomes("bigint"))
        .send(batch([use_of("s2"), sync()]))
        .ready(1)
        .send(again("s2", "s3"))
        .ready(2);
    let script = on_both(script, "s3")
        .run(&becomes("text"))
        .send(batch([describe_statement("s3"), sync()]))
        .ready(1)
        .send(again("s3", "s4"))
        .ready(2);
    let scenario =
        Scenario::new("a_result_that_changed").setup("CREATE TABLE changes (a int); INSERT INTO changes VALUES (1)");
    // Behind a full reset a statement is parsed anew, and just runs (a documented difference).
    let scenario = scenario.reset(&becomes("int")).only_smart_resets();
    scenario.errors(&["0A000", "0A000", "0A000"]).check(script);
}

#[test]
fn pg_031_close_of_what_is_not_there() {
    let script = Script::new()
        .send(batch([close_statement("s9"), close_portal("p9"), close_statement(""), close_portal(""), sync()]))
        .ready(1)
        .send(batch([parse("s1", "SELECT 1"), close_statement("s9"), use_of("s1"), sync()]))
        .ready(1);
    Scenario::new("pg_031_close_of_what_is_not_there").shape("3333Z 132DCZ .").check(script);
}

#[test]
fn pg_032_close_of_a_portal_spares_the_statement() {
    let script = Script::new()
        .send(batch([
            parse("s1", "SELECT 1"),
            bind("s1", "s1", &[]),
            close_portal("s1"),
            bind("s1", "s1", &[]),
            execute("s1", 0),
            sync(),
        ]))
        .ready(1)
        // The manual says that closing a statement closes its portals; the server lets them live.
        .send(batch([bind("s1", "s1", &[]), close_statement("s1"), execute("s1", 0), bind("", "s1", &[]), sync()]))
        .ready(1);
    let scenario = Scenario::new("pg_032_close_of_a_portal_spares_the_statement");
    scenario.shape("12 3 2DC Z 2 3 DC E Z .").errors(&["26000"]).check(script);
}
