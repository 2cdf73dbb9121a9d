//! Prepared statements while connections change hands: closed to make room, deallocated, changed by DDL, and made under
//! settings of their own.

use std::collections::BTreeMap;

use sluicegate::demo::servers::PostgresServer;

use crate::harness::proxy::{ProxyHandle, config, set};
use crate::harness::wire::{
    Frame, Login, Script, Wire, batch, bind, close_statement, describe_portal, describe_statement, execute, flush,
    kinds, parse, parse_typed, query, sync,
};
use crate::harness::{Scenario, each, each_with};

/// One for clients, two of the proxy's own.
const ONE: u32 = 3;
/// Two for clients.
const TWO: u32 = 4;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

/// Bind and Execute of a statement without parameters.
fn use_of(name: &str) -> Vec<u8> {
    batch([bind("", name, &[]), execute("", 0)])
}

/// The unnamed statement, used once.
fn unnamed(sql: &str) -> Vec<u8> {
    batch([parse("", sql), use_of("")])
}

/// A segment of its own.
fn synced(bytes: Vec<u8>) -> Vec<u8> {
    batch([bytes, sync()])
}

/// Client 0 does this on one connection and on the other; client 9 takes them away in turn.
fn on_both(script: Script, bytes: &[u8]) -> Script {
    let script = script.client(0).run("BEGIN").send(bytes.to_vec()).ready(1);
    let script = script.client(9).run("BEGIN").client(0).run("COMMIT");
    let script = script.client(8).run("BEGIN").client(9).run("COMMIT");
    script.client(0).send(bytes.to_vec()).ready(1).client(8).run("COMMIT").client(0)
}

// ---------------------------------------------------------------- making room

/// Room for two: in one batch more are used, again and again, and so each is closed behind its use.
#[test]
fn pg_028_closed_behind_its_last_use() {
    let one = |name: &str, n: u32| parse(name, &format!("SELECT {n}, '{name}'"));
    let both = batch([one("s1", 1), one("s2", 2), sync()]);
    let mixed = batch([
        batch([use_of("s1"), one("s3", 3), use_of("s3"), use_of("s2"), use_of("s1")]),
        batch([describe_statement("s2"), use_of("s3"), use_of("s2"), one("s4", 4), use_of("s1"), use_of("s4")]),
        sync(),
    ]);
    // A portal that is half read outlives its statement.
    let rows = "SELECT * FROM generate_series(1, 5)";
    let suspended = batch([
        batch([parse("s5", rows), bind("p5", "s5", &[]), execute("p5", 2)]),
        batch([use_of("s1"), use_of("s2"), use_of("s3"), execute("p5", 2), describe_portal("p5"), use_of("s4")]),
        batch([execute("p5", 0), use_of("s5")]),
        sync(),
    ]);
    // Behind an error nothing of it has happened.
    let failing = batch([use_of("s1"), use_of("s2"), parse("s6", "SELEC"), use_of("s3"), use_of("s4"), sync()]);
    let all = batch([use_of("s1"), use_of("s2"), use_of("s3"), use_of("s4"), use_of("s5"), sync()]);
    let mut script = Script::new().send(both).ready(1).send(mixed.clone()).ready(1).client(1);
    // The other one's have the same texts.
    script = script.send(batch([one("s2", 1), one("s1", 2), use_of("s1"), use_of("s2"), sync()])).ready(1).client(0);
    script = script.send(suspended).ready(1).send(batch([failing, all.clone()])).ready(2);
    script = on_both(script, &all);
    let script = script.client(1).send(batch([use_of("s1"), use_of("s2"), sync()])).ready(1);
    Scenario::new("pg_028_closed_behind_its_last_use")
        .pool("max_prepared_statements", "2")
        .shape(
            "11Z 2DC12DC2DC2DC tT2DC2DC12DC2DCZ \
             12DDs2DC2DC2DCDDsT2DCDC2DDDDDCZ 2DC2DCEZ 2DC2DC2DC2DC2DDDDDCZ \
             CZ 2DC2DC2DC2DC2DDDDDCZ CZ 2DC2DC2DC2DC2DDDDDCZ .",
        )
        .errors(&["42601"])
        .check(script);
}

/// And no more than that are there once it is over.
#[test]
fn pg_028_no_more_are_kept_than_may_be() {
    let few = |server: &PostgresServer| {
        set(&config(server.address(), ONE), "target_group.pool", "max_prepared_statements", "2")
    };
    each_with("pg_028_kept", &[], few, |_, database, proxy| {
        let mut one = client(proxy, database);
        for n in 1..=6 {
            let name = format!("s{n}");
            let bytes = batch([parse(&name, &format!("SELECT {n}")), use_of(&name), use_of("s1"), sync()]);
            assert_eq!(kinds(&one.ask(&bytes, 1)), "12DC2DCZ");
        }
        let count = "SELECT count(*) FROM pg_prepared_statements";
        assert_eq!(one.value(count), "2");
        let all: Vec<u8> = (1..=6).flat_map(|n| use_of(&format!("s{n}"))).chain(sync()).collect();
        assert_eq!(kinds(&one.ask(&all, 1)), "2DC".repeat(6) + "Z");
        // What is on its way can't be closed; what comes next makes room for itself, and for the rest.
        assert_eq!(kinds(&one.ask(&batch([parse("s7", "SELECT 7"), use_of("s7"), sync()]), 1)), "12DCZ");
        assert_eq!(one.value(count), "2");
    });
}

/// As asyncpg does: prepared and described with a Flush, used with another one. What is closed meanwhile shows nowhere, and
/// ends no transaction.
#[test]
fn pg_029_room_is_made_without_a_sync() {
    let ask = |name: &str, n: u32| batch([parse(name, &format!("SELECT {n}")), describe_statement(name), flush()]);
    let script = Script::new()
        .send(batch([parse("s1", "SELECT 1"), parse("s2", "SELECT 2"), use_of("s1"), use_of("s2"), sync()]))
        .ready(1)
        .send(batch([unnamed("INSERT INTO t VALUES (1)"), flush()]))
        .until(b'C', 1)
        .send(ask("s3", 3))
        .until(b'T', 1)
        .quiet()
        .send(batch([use_of("s3"), flush()]))
        .until(b'C', 1)
        .send(ask("s4", 4))
        .until(b'T', 1)
        .send(batch([use_of("s1"), use_of("s2"), flush()]))
        .until(b'C', 2)
        .quiet()
        // All of that was one transaction.
        .send(batch([unnamed("SELECT 1 / 0"), flush()]))
        .until(b'E', 1)
        .send(sync())
        .ready(1)
        .run("SELECT count(*) FROM t")
        .send(batch([use_of("s4"), use_of("s3"), use_of("s2"), use_of("s1"), sync()]))
        .ready(1);
    Scenario::new("pg_029_room_is_made_without_a_sync")
        .setup("CREATE TABLE t (id int)")
        .reset("TRUNCATE t")
        .state("SELECT * FROM t")
        .state_is("[]")
        .pool("max_prepared_statements", "2")
        .shape("112DC2DCZ 12C 1tT 2DC 1tT 2DC2DC 1EZ TDCZ 2DC2DC2DC2DCZ .")
        .errors(&["22012"])
        .check(script);
}

// ---------------------------------------------------------------- DEALLOCATE

/// What is older than the reset is gone, what is prepared behind it is there, in whatever company they come.
#[test]
fn pg_033_what_is_prepared_behind_a_reset_stays() {
    let mut errors = Vec::new();
    let mut script = Script::new();
    for reset in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE PREPARE ALL"] {
        let anew = |n: u32| batch([parse("s1", &format!("SELECT 'new', {n}")), use_of("s1"), sync()]);
        let both = batch([parse("s1", "SELECT 'old'"), parse("s2", "SELECT 'old'"), use_of("s1"), sync()]);
        let gone = synced(use_of("s2"));
        for (n, reset) in [query(reset), synced(unnamed(reset))].into_iter().enumerate() {
            // Each in a segment of its own, in one write.
            script = script.client(0).send(both.clone()).ready(1);
            script = script.client(1).send(both.clone()).ready(1).client(0);
            script = script.send(batch([reset.clone(), anew(1), gone.clone()])).ready(3);
            script = on_both(script, &synced(use_of("s1")));
            script = script.send(batch([reset.clone(), synced(use_of("s1")), anew(2), reset, anew(3)])).ready(5);
            errors.extend(["26000", "26000"]);
            // Another client's are its own.
            script = script.client(1).send(synced(use_of("s1"))).ready(1).send(query("DEALLOCATE ALL")).ready(1);
            script = script.client(0).send(query("DEALLOCATE ALL")).ready(1);
            assert!(n < 2);
        }
        // In the same segment.
        let unnamed_reset = unnamed(reset);
        script =
            script.send(both.clone()).ready(1).send(batch([unnamed_reset.clone(), anew(4), gone.clone()])).ready(2);
        script = script.send(batch([unnamed_reset, use_of("s1"), anew(5)])).ready(1).send(anew(6)).ready(1);
        script = on_both(script, &synced(use_of("s1"))).run("DEALLOCATE ALL");
        errors.extend(["26000", "26000"]);
    }
    // A reset that fails, or is skipped, has reset nothing.
    let both = batch([parse("s1", "SELECT 'old'"), parse("s2", "SELECT 'old'"), sync()]);
    let anew = batch([parse("s1", "SELECT 'new'"), use_of("s1"), sync()]);
    script = script.send(both).ready(1).run("BEGIN").send(batch([query("DISCARD ALL"), anew.clone()])).ready(2);
    script = script.run("ROLLBACK").send(synced(use_of("s2"))).ready(1);
    script = script.send(batch([unnamed("SELECT 1/0"), unnamed("DEALLOCATE ALL"), sync(), anew.clone()])).ready(2);
    script = script.send(batch([unnamed("DEALLOCATE ALL"), unnamed("SELECT 1/0"), sync(), anew])).ready(2);
    script = on_both(script, &synced(use_of("s1")));
    errors.extend(["25001", "25P02", "22012", "42P05", "22012"]);
    Scenario::new("pg_033_prepared_behind_a_reset").errors(&errors).check(script);
}

/// Every way to write it.
const DEALLOCATES: &[(&str, &str)] = &[
    ("s1", "DEALLOCATE s1"),
    ("s1", "deallocate prepare S1 ;"),
    ("S1", "DEALLOCATE \"S1\""),
    ("s \"1\"", "DEALLOCATE \"s \"\"1\"\"\""),
    ("s1", " /* s2 */ Deallocate -- s3\n Prepare\n/* s4 */ s1 --"),
    ("prepare", "DEALLOCATE prepare"),
    ("all", "DEALLOCATE PREPARE \"all\""),
    ("deallocate", "DEALLOCATE deallocate"),
];

#[test]
fn pg_034_deallocate_in_every_form() {
    let mut script = Script::new();
    let mut errors = Vec::new();
    for (name, text) in DEALLOCATES {
        let named = batch([close_statement("drop"), parse("drop", text), use_of("drop"), sync()]);
        for drop in [query(text), synced(unnamed(text)), named] {
            let anew = batch([parse(name, "SELECT 1"), use_of(name), sync()]);
            script = script.client(0).send(anew.clone()).ready(1).client(1).send(anew.clone()).ready(1).client(0);
            // Twice: the second time there is none of that name.
            script = script.send(drop.clone()).ready(1).send(batch([synced(use_of(name)), drop.clone()])).ready(2);
            script = script.send(batch([anew.clone(), drop.clone(), anew])).ready(3);
            // The other client has its own.
            script = script.client(1).send(batch([synced(use_of(name)), drop.clone()])).ready(2).client(0);
            script = on_both(script, &synced(use_of(name))).send(drop).ready(1);
            errors.extend(["26000", "26000"]);
        }
    }
    // Only one that succeeds: in a failed transaction, behind an error in its segment.
    script = script.send(batch([parse("s1", "SELECT 1"), sync()])).ready(1);
    for drop in [query("DEALLOCATE s1"), synced(unnamed("DEALLOCATE s1"))] {
        script = script.run("BEGIN").run("SELECT 1/0").send(drop).ready(1).run("ROLLBACK");
        script = script.send(synced(use_of("s1"))).ready(1);
        errors.extend(["22012", "25P02"]);
    }
    script = script.send(batch([unnamed("SELECT 1/0"), unnamed("DEALLOCATE s1"), sync()])).ready(1);
    script = on_both(script, &synced(use_of("s1")));
    errors.push("22012");
    Scenario::new("pg_034_deallocate_in_every_form").errors(&errors).check(script);
}

/// No rollback brings a statement back, nor takes one away.
#[test]
fn pg_035_a_rollback_does_not_bring_it_back() {
    let both = batch([parse("s1", "SELECT 1"), parse("s2", "SELECT 2"), use_of("s1"), use_of("s2"), sync()]);
    let gone = batch([synced(use_of("s1")), synced(use_of("s2"))]);
    let mut script = Script::new();
    let mut errors = Vec::new();
    let drops = [
        query("DEALLOCATE s1"),
        synced(unnamed("DEALLOCATE s1")),
        synced(close_statement("s1")),
        query("DEALLOCATE ALL"),
        synced(unnamed("DEALLOCATE ALL")),
    ];
    for (n, drop) in drops.into_iter().enumerate() {
        let ends = [("BEGIN", "ROLLBACK"), ("BEGIN; SAVEPOINT a", "ROLLBACK TO a; COMMIT")];
        for (begin, end) in ends {
            script = script.send(both.clone()).ready(1).run(begin).send(drop.clone()).ready(1);
            script = script.send(batch([parse("s3", "SELECT 3"), sync()])).ready(1).run(end);
            script = script.send(gone.clone()).ready(2);
            script = on_both(script, &synced(use_of("s3"))).run("DEALLOCATE ALL");
            // `s2` is gone with ALL only.
            errors.extend(vec!["26000"; 1 + usize::from(n >= 3)]);
        }
        // The commit fails, and all is rolled back.
        script = script.send(both.clone()).ready(1).run("BEGIN").send(drop).ready(1);
        script =
            script.send(batch([query("SELECT 1/0"), query("COMMIT"), gone.clone()])).ready(4).run("DEALLOCATE ALL");
        errors.push("22012");
        errors.extend(vec!["26000"; 1 + usize::from(n >= 3)]);
    }
    Scenario::new("pg_035_a_rollback_does_not_bring_it_back").errors(&errors).check(script);
}

// ---------------------------------------------------------------- DDL

const SELECT: &str = "SELECT a FROM changes";
const CHANGES: &str = "CREATE TABLE changes (a int); INSERT INTO changes VALUES (1)";
/// Numbers of types.
const INT: u32 = 23;
const TEXT: u32 = 25;

/// The type of the only column of a RowDescription.
fn column_type(frames: &[Frame]) -> u32 {
    let body = &frames.iter().find(|frame| frame.kind == b'T').unwrap().body;
    // How many there are; the name, its table, its place there, its type.
    let name = body[2..].iter().position(|byte| *byte == 0).unwrap();
    u32::from_be_bytes(body[name + 9..name + 13].try_into().unwrap())
}

/// As a driver has it that keeps its statements, and prepares one anew that this error ends.
struct Driver {
    wire: Wire,
    statements: u32,
    errors: usize,
}

impl Driver {
    fn new(wire: Wire) -> Self {
        let mut driver = Self { wire, statements: 0, errors: 0 };
        driver.prepare();
        driver
    }

    fn name(&self) -> String {
        format!("s{}", self.statements)
    }

    fn prepare(&mut self) {
        self.statements += 1;
        assert_eq!(kinds(&self.wire.ask(&synced(parse(&self.name(), SELECT)), 1)), "1Z");
    }

    /// The type that the only row is described with, in one go with it.
    fn reads(&mut self) -> u32 {
        for _ in 0..2 {
            let bytes = batch([bind("", &self.name(), &[]), describe_portal(""), execute("", 0), sync()]);
            let frames = self.wire.ask(&bytes, 1);
            let Some(error) = frames.iter().find(|frame| frame.kind == b'E') else {
                assert_eq!(kinds(&frames), "2TDCZ");
                return column_type(&frames);
            };
            assert_eq!(error.field(b'C').unwrap(), "0A000", "{error}");
            self.errors += 1;
            assert_eq!(kinds(&self.wire.ask(&synced(close_statement(&self.name())), 1)), "3Z");
            self.prepare();
        }
        panic!("the error comes again");
    }
}

/// Each client is told once at most, whichever connection it is on.
#[test]
fn pg_036_a_changed_result_is_told_once() {
    each("pg_036_changes", TWO, &[CHANGES], |server, database, proxy| {
        let mut drivers: Vec<Driver> = (0..4).map(|_| Driver::new(client(proxy, database))).collect();
        let mut holders = [(); 2].map(|()| client(proxy, database));
        let mut told = 0;
        for (n, (kind, reads)) in [("int", INT), ("text", TEXT), ("int", INT)].into_iter().enumerate() {
            server.run_sql(database, &format!("ALTER TABLE changes ALTER a TYPE {kind} USING a::{kind}")).unwrap();
            for _ in 0..2 {
                // All on one connection, and then on the other.
                holders[0].query("BEGIN");
                for turn in 0..2 {
                    for driver in &mut drivers {
                        assert_eq!(driver.reads(), reads);
                    }
                    if turn == 0 {
                        holders[1].query("BEGIN");
                        holders[0].query("COMMIT");
                    }
                }
                holders[1].query("COMMIT");
            }
            let errors: Vec<usize> = drivers.iter().map(|driver| driver.errors).collect();
            assert!(errors.iter().all(|errors| *errors <= n), "{errors:?}");
            let now = errors.iter().sum();
            // Once on each connection; whom it has met has a statement of its own from then on.
            let most = [0, 2, drivers.len()][n];
            assert!((n.min(1)..=most).contains(&(now - told)), "{now} behind {told}");
            told = now;
        }
    });
}

/// Who does not ask for a description with it is told, also where the statement could be prepared anew in silence.
#[test]
fn pg_037_no_rows_of_a_new_shape_in_silence() {
    let script = Script::new()
        .send(batch([parse("s1", SELECT), describe_statement("s1"), use_of("s1"), sync()]))
        .ready(1)
        .run("ALTER TABLE changes ALTER a TYPE text USING a::text")
        .send(synced(use_of("s1")))
        .ready(1)
        .send(batch([close_statement("s1"), parse("s1", SELECT), describe_statement("s1"), use_of("s1"), sync()]))
        .ready(1)
        .run("BEGIN; ALTER TABLE changes ALTER a TYPE bigint USING a::bigint")
        .send(synced(use_of("s1")))
        .ready(1)
        .run("ROLLBACK");
    Scenario::new("pg_037_no_rows_in_silence")
        .setup(CHANGES)
        .reset("ALTER TABLE changes ALTER a TYPE int USING a::int")
        .only_smart_resets()
        .shape("1tT2DCZ CZ EZ 31tT2DCZ CCZ EZ CZ .")
        .errors(&["0A000", "0A000"])
        .check(script);
}

// ---------------------------------------------------------------- names on servers

/// Whatever is closed, prepared anew and closed to make room: no name ever means two statements, and no statement is taken for
/// another.
#[test]
fn pg_040_no_name_is_ever_taken_again() {
    let few = |server: &PostgresServer| {
        set(&config(server.address(), TWO), "target_group.pool", "max_prepared_statements", "3")
    };
    each_with("pg_040_names", &[], few, |_, database, proxy| {
        let mut holder = client(proxy, database);
        let mut known = BTreeMap::new();
        for round in 0..4 {
            let mut clients: Vec<Wire> = (0..3).map(|_| client(proxy, database)).collect();
            // The statements of this one are its own.
            clients[0].query("SET DateStyle = 'ISO, DMY'");
            for n in 0..6 {
                for (who, wire) in clients.iter_mut().enumerate() {
                    // The last two have the same.
                    let value = format!("{round} {n} {}", who.min(1));
                    let named = batch([close_statement("s1"), parse("s1", &format!("SELECT '{value}'")), use_of("s1")]);
                    // The same text of different types.
                    let typed = |name: &str, kind: u32| {
                        let text = format!("SELECT $1 /* {n} */");
                        batch([close_statement(name), parse_typed(name, &text, &[kind]), describe_statement(name)])
                    };
                    let frames = wire.ask(&batch([named, typed("s2", INT), typed("s3", TEXT), sync()]), 1);
                    assert_eq!(kinds(&frames), "312DC31tT31tTZ");
                    assert_eq!(frames[3].columns()[0].as_deref(), Some(value.as_bytes()));
                    assert_eq!((column_type(&frames[5..]), column_type(&frames[9..])), (INT, TEXT));
                    let frames =
                        wire.ask(&batch([use_of("s1"), bind("", "s2", &[Some("7")]), execute("", 0), sync()]), 1);
                    assert_eq!(frames[1].columns()[0].as_deref(), Some(value.as_bytes()));
                    assert_eq!(frames[4].columns()[0].as_deref(), Some(&b"7"[..]));
                    for row in wire.query("SELECT name, statement, parameter_types FROM pg_prepared_statements") {
                        let [name, text, types] = row.try_into().unwrap();
                        let statement = (text, types);
                        assert_eq!(known.entry(name).or_insert_with(|| statement.clone()), &statement);
                    }
                }
                // Now there is one connection less, now one more.
                holder.query(if n % 2 == 0 { "BEGIN" } else { "COMMIT" });
            }
        }
        assert!(known.len() > 40, "{known:#?}");
    });
}

// ---------------------------------------------------------------- the unnamed statement

/// Prepared and described in one segment, used in another, as lib/pq and pgx do: others have used both connections meanwhile.
#[test]
fn pg_043_the_unnamed_statement_follows_its_client() {
    let others = |mut script: Script| {
        for other in [1, 2] {
            let bytes = batch([query("BEGIN"), unnamed(&format!("SELECT 'of {other}', {other}")), sync()]);
            script = script.client(other).send(bytes).ready(2);
        }
        // A simple query would leave none of theirs.
        let commit = synced(unnamed("COMMIT"));
        script.send(commit.clone()).ready(1).client(1).send(commit).ready(1).client(0)
    };
    let mut script = Script::new();
    let texts: [(&str, &[u32], usize); 6] = [
        ("SELECT 'mine', $1::int + 1", &[], 1),
        ("SELECT $1", &[TEXT], 1),
        ("SELECT $1", &[INT], 1),
        ("SET work_mem = '7MB'", &[], 0),
        ("SHOW work_mem", &[], 0),
        ("", &[], 0),
    ];
    for (text, types, values) in texts {
        let values = &[Some("41")][..values];
        let made = batch([parse_typed("", text, types), describe_statement(""), sync()]);
        script = others(script.send(made).ready(1));
        for _ in 0..2 {
            let used = batch([bind("", "", values), describe_portal(""), execute("", 0), sync()]);
            script = others(script.send(used).ready(1));
            script = others(script.send(synced(describe_statement(""))).ready(1));
        }
    }
    // A Bind that fails leaves it where it is; a Parse that fails leaves none, and so does a simple query.
    let made = batch([parse("", "SELECT 10 / $1::int"), describe_statement(""), sync()]);
    let used = |value| batch([bind("", "", &[Some(value)]), execute("", 0), sync()]);
    script = others(script.send(made.clone()).ready(1));
    for value in ["no", "0", "2"] {
        script = others(script.send(used(value)).ready(1));
    }
    script = others(script.send(synced(parse("", "SELEC"))).ready(1)).send(used("5")).ready(1);
    script = others(script.send(made.clone()).ready(1).run("SELECT 'simple'")).send(used("5")).ready(1);
    script = others(script.send(made).ready(1).send(synced(close_statement(""))).ready(1)).send(used("5")).ready(1);
    // What it reads is gone.
    script = script.run("CREATE TABLE brief (a int)");
    script = others(script.send(synced(parse("", "SELECT a FROM brief"))).ready(1));
    script = script.client(1).run("DROP TABLE brief").client(0).send(synced(use_of(""))).ready(1);
    Scenario::new("pg_043_the_unnamed_statement")
        .errors(&["22P02", "22012", "42601", "26000", "26000", "26000", "42P01"])
        .check(script);
}

// ---------------------------------------------------------------- settings that a statement is made under

/// A date's day and month, a moment's zone, how a number is written: made when the text is parsed, or once when it is planned.
/// No client gets what was made for another.
#[test]
fn pg_045_literals_are_read_as_their_clients_settings_say() {
    let texts = [
        "SELECT '02/03/2020'::date, '2020-01-01 00:00'::timestamptz, '2020-01-01 00:00+00'::timestamptz",
        "SELECT date '02/03/2020' - date '2020-01-01', extract(epoch FROM timestamptz '2020-01-01 00:00')",
        "SELECT ('02/03/2020'::date)::text, (interval '1 day 2 hours')::text, (1::float8 / 3)::text",
        "SELECT ('\\x61ff'::bytea)::text, '{null}'::text[], 'a' || E'\\x41'",
    ];
    let settings = [
        "SET DateStyle = 'ISO, DMY'; SET TimeZone = 'Asia/Tokyo'; SET bytea_output = escape",
        "SET DateStyle = 'ISO, MDY'; SET TimeZone = 'America/New_York'; SET array_nulls = off; SET extra_float_digits = 0",
        "SET DateStyle = 'German'; SET IntervalStyle = iso_8601; SET extra_float_digits = -5; SET TimeZone = 'utc'",
        // These two share their statements.
        "SET extra_float_digits = -5; SET bytea_output = escape",
        "SET extra_float_digits = 0; SET bytea_output = hex",
    ];
    let mut script = Script::new();
    for (client, set) in settings.iter().enumerate() {
        script = script.client(client).run(set);
        for (n, text) in texts.iter().enumerate() {
            script = script.send(batch([parse(&format!("s{n}"), text), sync()])).ready(1);
        }
    }
    let all = batch([use_of("s0"), use_of("s1"), use_of("s2"), use_of("s3"), sync()]);
    for turn in 0..5 {
        for client in 0..5 {
            // Each in turn keeps a connection while the others use the other one.
            let holds = client == turn;
            script = script.client(client);
            script = if holds { script.run("BEGIN") } else { script };
            script = script.send(all.clone()).ready(1).send(all.clone()).ready(1);
        }
        script = script.client(turn).run("COMMIT");
    }
    Scenario::new("pg_045_literals").errors(&[]).check(script);
}

/// Who has changed a setting since, and uses the statement on another connection, does not leave it there for those who have the
/// setting as it was.
#[test]
fn pg_045_a_setting_that_has_changed_since() {
    each("pg_045_changed_since", TWO, &[], |_, database, proxy| {
        let mut clients = [(); 3].map(|()| client(proxy, database));
        let text = "SELECT '02/03/2020'::date - '2020-01-01'::date";
        let make = batch([parse("s1", text), use_of("s1"), sync()]);
        let value = |frames: &[Frame]| {
            let row = frames.iter().find(|frame| frame.kind == b'D').unwrap();
            String::from_utf8_lossy(row.columns()[0].as_deref().unwrap()).into_owned()
        };
        clients[0].query("SET DateStyle = 'ISO, DMY'");
        assert_eq!(value(&clients[0].ask(&make, 1)), "61");
        clients[0].query("SET DateStyle = 'ISO, MDY'");
        let pid = clients[0].value("SELECT pg_backend_pid()");
        // Given back, a moment behind the reply.
        proxy.until_metric("sluicegate_transactions_total", 4);
        clients[1].query("BEGIN");
        assert_eq!(clients[1].value("SELECT pg_backend_pid()"), pid);
        // What it reads itself is as its settings say now (directly: as they said then).
        assert_eq!(value(&clients[0].ask(&synced(use_of("s1")), 1)), "33");
        clients[2].query("SET DateStyle = 'ISO, DMY'");
        assert_eq!(value(&clients[2].ask(&make, 1)), "61");
    });
}
