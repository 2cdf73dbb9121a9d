//! Requests and replies: pipelines, Flush, errors anywhere, notices, fastpath, messages of any size cut anywhere.

use crate::harness::wire::{
    Cut, Login, Script, Wire, batch, bind, bind_formats, close_statement, describe_portal, describe_statement, execute,
    flush, function_call, message, parse, query, sync, terminate,
};
use crate::harness::{Scenario, direct_only, proxy, servers};

/// `SELECT` on this fails while it runs, not while it is planned.
const ZEROS: &str = "CREATE TABLE zeros AS SELECT 0 AS a";
const DIVIDE: &str = "SELECT 1 / a FROM zeros";
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// Parse, Bind and Execute of the unnamed statement.
fn statement(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0)])
}

#[test]
fn pg_001_error_in_the_middle_of_a_pipeline() {
    let named = |name: &str, sql: &str| batch([parse(name, sql), bind("", name, &[]), execute("", 0)]);
    let script = Script::new()
        .send(batch([named("s1", "SELECT 1"), named("s2", "SELEC"), named("s3", "SELECT 3"), sync()]))
        .ready(1)
        // The first one is there, the others are not.
        .send(batch([bind("", "s1", &[]), execute("", 0), sync()]))
        .ready(1)
        .send(batch([bind("", "s3", &[]), execute("", 0), sync()]))
        .ready(1)
        // The names are free.
        .send(batch([named("s2", "SELECT 2"), named("s3", "SELECT 3"), sync()]))
        .ready(1);
    let shape = "12DCEZ 2DCZ EZ 12DC12DCZ .";
    Scenario::new("pg_001_error_in_the_middle_of_a_pipeline").shape(shape).errors(&["42601", "26000"]).check(script);
}

#[test]
fn pg_002_simple_query_discarded_after_an_error() {
    let script = Script::new()
        .run("BEGIN")
        .run("SAVEPOINT x")
        .send(batch([statement(DIVIDE), query("RELEASE SAVEPOINT x"), sync()]))
        .ready(1)
        .run("ROLLBACK TO x")
        // The same with the error already known when the query is sent.
        .send(batch([statement(DIVIDE), flush()]))
        .until(b'E', 1)
        .send(query("RELEASE SAVEPOINT x"))
        .quiet()
        .send(sync())
        .ready(1)
        .run("ROLLBACK");
    let scenario = Scenario::new("pg_002_simple_query_discarded_after_an_error").setup(ZEROS);
    scenario.shape("CZ CZ 12EZ CZ 12E Z CZ .").errors(&["22012", "22012"]).check(script);
}

#[test]
fn pg_003_simple_queries_after_a_failed_one_owe_their_own_ready() {
    let script = Script::new()
        .send(batch([statement("SELECT 1"), query(DIVIDE), query("SELECT 2"), query("SELECT 3")]))
        .ready(3)
        .send(batch([query("BEGIN"), query(DIVIDE), query("SELECT 4"), query("ROLLBACK"), query("SELECT 5")]))
        .ready(5);
    let scenario = Scenario::new("pg_003_simple_queries_after_a_failed_one").setup(ZEROS);
    let shape = "12DC TEZ TDCZ TDCZ  CZ TEZ EZ CZ TDCZ .";
    scenario.shape(shape).errors(&["22012", "22012", "25P02"]).check(script);
}

#[test]
fn pg_004_three_transactions_in_one_write() {
    let insert = |id: u32| batch([statement(&format!("INSERT INTO t VALUES ({id}, 'x')")), sync()]);
    let slow = batch([statement("INSERT INTO t SELECT 2, pg_sleep(0.2)::text"), sync()]);
    let script = Script::new().send(batch([insert(1), slow, insert(3)])).ready(3);
    let scenario = Scenario::new("pg_004_three_transactions_in_one_write").setup(TABLE).reset("TRUNCATE t");
    scenario.state("SELECT id FROM t ORDER BY id").shape("12CZ 12CZ 12CZ .").check(script);
}

#[test]
fn pg_005_flush_is_forwarded_and_not_answered() {
    let mut script = Script::new();
    for name in ["", "s1"] {
        script = script
            .send(batch([parse(name, "SELECT $1::int + 1 AS a"), describe_statement(name), flush()]))
            .until(b'T', 1)
            .quiet()
            .send(batch([bind("", name, &[Some("41")]), execute("", 0), sync()]))
            .ready(1);
    }
    let scenario = Scenario::new("pg_005_flush_is_forwarded_and_not_answered");
    scenario.shape("1tT 2DCZ 1tT 2DCZ .").check(script);
}

#[test]
fn pg_006_suspended_portal_survives_until_sync() {
    let script = Script::new()
        .send(batch([parse("", "SELECT generate_series(1, 5)"), bind("", "", &[]), execute("", 2), flush()]))
        .until(b's', 1)
        .quiet()
        .client(1)
        .run("SELECT 'another client in between'")
        .client(0)
        .send(batch([execute("", 2), flush()]))
        .until(b's', 1)
        .send(batch([execute("", 2), sync()]))
        .ready(1)
        .send(batch([execute("", 0), sync()]))
        .ready(1);
    let scenario = Scenario::new("pg_006_suspended_portal_survives_until_sync");
    scenario.shape("12DDs DDs DC Z EZ .").errors(&["34000"]).check(script);
}

#[test]
fn pg_007_one_portal_executed_again_and_described() {
    let script = Script::new()
        .send(batch([
            parse("", "SELECT generate_series(1, 3) AS a"),
            bind("p1", "", &[]),
            execute("p1", 1),
            execute("p1", 1),
            describe_portal("p1"),
            execute("p1", 0),
            sync(),
        ]))
        .ready(1);
    Scenario::new("pg_007_one_portal_executed_again_and_described").shape("12 Ds Ds T DC Z .").check(script);
}

#[test]
fn pg_009_sync_or_flush_alone() {
    let script = Script::new()
        .send(sync())
        .ready(1)
        .send(batch([sync(), sync(), sync()]))
        .ready(3)
        .send(flush())
        .quiet()
        .run("BEGIN")
        .send(sync())
        .ready(1)
        .run(DIVIDE)
        .send(batch([flush(), sync()]))
        .ready(1)
        .run("ROLLBACK")
        .send(sync())
        .ready(1);
    let scenario = Scenario::new("pg_009_sync_or_flush_alone").setup(ZEROS);
    scenario.shape("Z ZZZ CZ Z TEZ Z CZ Z .").errors(&["22012"]).check(script);
}

#[test]
fn pg_010_no_commit_before_the_sync() {
    let nothing_committed = "DO $$ BEGIN IF EXISTS (SELECT FROM t) THEN RAISE 'committed too early'; END IF; END $$";
    let script = Script::new()
        .send(batch([statement("INSERT INTO t VALUES (1, 'a')"), flush()]))
        .until(b'C', 1)
        .quiet()
        .meanwhile(nothing_committed)
        .send(batch([statement("INSERT INTO t VALUES (2, 'b')"), flush()]))
        .until(b'C', 1)
        .meanwhile(nothing_committed)
        .send(sync())
        .ready(1);
    let scenario = Scenario::new("pg_010_no_commit_before_the_sync").setup(TABLE).reset("TRUNCATE t");
    scenario.state("SELECT id FROM t ORDER BY id").shape("12C 12C Z .").check(script);
}

/// Waits until a session of the script's sleeps, then ends it.
const TERMINATE_THE_SLEEPER: &str = "DO $$ BEGIN
    FOR i IN 1..1500 LOOP
        PERFORM pg_stat_clear_snapshot();
        EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE $app AND wait_event = 'PgSleep');
        PERFORM pg_sleep(0.01);
    END LOOP; END $$;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $app AND wait_event = 'PgSleep'";

#[test]
fn pg_011_fatal_in_mid_pipeline_comes_once() {
    let script = Script::new()
        .send(batch([statement("SELECT 1"), statement("SELECT pg_sleep(30)"), statement("SELECT 3"), sync()]))
        .meanwhile(TERMINATE_THE_SLEEPER)
        .until_closed()
        .client(1)
        .run("SELECT 'all others go on'");
    let scenario = Scenario::new("pg_011_fatal_in_mid_pipeline_comes_once");
    scenario.shape("12DC 12 E .").errors(&["57P01"]).check(script);
}

#[test]
fn pg_014_terminate_right_behind_a_query() {
    let script = Script::new()
        .send(batch([query("INSERT INTO t VALUES (1, 'a')"), terminate()]))
        .until_closed()
        .client(1)
        .send(batch([statement("INSERT INTO t VALUES (2, 'b')"), sync(), terminate()]))
        .until_closed();
    let scenario = Scenario::new("pg_014_terminate_right_behind_a_query").setup(TABLE).reset("TRUNCATE t");
    scenario.state("SELECT id FROM t ORDER BY id").shape("CZ.").check(script);
}

#[test]
fn pg_015_client_gone_in_mid_pipeline() {
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let script = Script::new()
        // No Sync, and half a message at the end.
        .send(batch([statement("INSERT INTO t VALUES (1, 'a')"), half(query("INSERT INTO t VALUES (2, 'b')"))]))
        .abort()
        .client(1)
        .send(batch([statement("INSERT INTO t VALUES (3, 'c')"), statement("SELECT pg_sleep(0.3)")]))
        .abort()
        .client(2)
        .run("BEGIN; INSERT INTO t VALUES (4, 'd')")
        .abort()
        .client(3)
        .run("SELECT 'one more client'");
    let scenario = Scenario::new("pg_015_client_gone_in_mid_pipeline").setup(TABLE).reset("TRUNCATE t");
    // None of it: no transaction came to its end.
    scenario.state("SELECT id FROM t ORDER BY id").state_is("[]").check(script);
}

#[test]
fn pg_017_empty_queries() {
    let script = Script::new()
        .run("")
        .run(" ; ; -- nothing")
        .send(batch([parse("", ""), bind("", "", &[]), describe_portal(""), execute("", 0), sync()]))
        .ready(1)
        .send(batch([query(""), query("SELECT 1"), query("")]))
        .ready(3);
    Scenario::new("pg_017_empty_queries").shape("IZ IZ 12nIZ IZ TDCZ IZ .").check(script);
}

#[test]
fn pg_018_fastpath_function_calls() {
    const ABS_INT4: u32 = 1397;
    const REPEAT: u32 = 1622;
    const NOTHING: u32 = 4_000_000_000;
    let abs = || function_call(ABS_INT4, &["-42"]);
    let script = Script::new()
        .send(abs())
        .ready(1)
        .send(function_call(REPEAT, &["0123456789", "300000"]))
        .ready(1)
        .send(batch([abs(), abs(), query("SELECT 1"), abs()]))
        .ready(4)
        .send(function_call(NOTHING, &[]))
        .ready(1)
        // Behind an error it is skipped like everything else.
        .send(batch([parse("", "SELEC"), abs(), sync()]))
        .ready(1)
        .run("BEGIN")
        .send(abs())
        .ready(1)
        .run("SELEC")
        .send(abs())
        .ready(1)
        .run("ROLLBACK");
    let scenario = Scenario::new("pg_018_fastpath_function_calls");
    let shape = "VZ VZ VZ VZ TDCZ VZ EZ EZ CZ VZ EZ EZ CZ .";
    scenario.shape(shape).errors(&["42883", "42601", "42601", "25P02"]).check(script);
}

#[test]
fn pg_019_several_parameter_status_before_ready() {
    let script = Script::new()
        .startup("application_name", "one")
        .startup("TimeZone", "America/New_York")
        .run("SET DateStyle = 'German'; SET TimeZone = 'Europe/Vienna'; SET application_name = 'several'")
        .send(batch([
            statement("SET DateStyle = 'SQL, DMY'"),
            statement("SELECT '2001-02-03'::date"),
            statement("SET TimeZone = 'Asia/Tokyo'"),
            sync(),
            statement("SET application_name = 'more'"),
            sync(),
        ]))
        .ready(2)
        .run("SHOW DateStyle")
        .run("SHOW TimeZone")
        .run("SHOW application_name");
    let scenario = Scenario::new("pg_019_several_parameter_status_before_ready");
    scenario.shape("CCCSSSZ 12C12DC12CSSZ 12CSZ TDCZ TDCZ TDCZ .").check(script);
}

#[test]
fn pg_020_notices_anywhere() {
    let noisy = "CREATE FUNCTION noisy() RETURNS int IMMUTABLE LANGUAGE plpgsql AS \
                 'BEGIN RAISE NOTICE ''while planning''; RETURN 1; END'";
    let script = Script::new()
        .run("DO $$ BEGIN FOR i IN 1..3 LOOP RAISE NOTICE 'number %', i; END LOOP; END $$")
        // Planning happens in Bind: the notice comes between ParseComplete and BindComplete.
        .send(batch([parse("", "SELECT noisy()"), bind("", "", &[]), execute("", 0), sync()]))
        .ready(1)
        // Between the replies to Bind and to Execute, which are asked for one by one.
        .send(batch([parse("", "SELECT noisy(1)"), bind("", "", &[]), flush()]))
        .until(b'2', 1)
        .send(batch([execute("", 0), sync()]))
        .ready(1)
        .send(batch([query("BEGIN"), query("BEGIN"), query("COMMIT"), query("COMMIT")]))
        .ready(4)
        .run("SET LOCAL work_mem = '1MB'")
        .run("DO $$ BEGIN RAISE WARNING 'and then'; PERFORM 1 / 0; END $$");
    let volatile = "CREATE FUNCTION noisy(int) RETURNS int VOLATILE LANGUAGE plpgsql AS \
                    'BEGIN RAISE NOTICE ''while running''; RETURN 1; END'";
    let scenario = Scenario::new("pg_020_notices_anywhere").setup(noisy).setup(volatile);
    let shape = "NNNCZ 1N2DCZ 12NDCZ CZ NCZ CZ NCZ NCZ NEZ .";
    scenario.shape(shape).errors(&["22012"]).check(script);
}

#[test]
fn pg_024_unknown_message_type() {
    let script = Script::new()
        .run("SELECT 1")
        .send(message(b'y', b"what is this"))
        .until_closed()
        .client(1)
        .run("BEGIN; INSERT INTO t VALUES (1, 'a')")
        .send(message(b'\x01', b""))
        .until_closed()
        .client(2)
        .run("SELECT 'all others go on'");
    let scenario = Scenario::new("pg_024_unknown_message_type").setup(TABLE).reset("TRUNCATE t");
    scenario.state("SELECT id FROM t").shape("TDCZ E .").errors(&["08P01", "08P01"]).check(script);
}

/// Behind what is still to be answered: in its place.
#[test]
fn pg_012_024_unknown_message_type_behind_a_pipeline() {
    let script = Script::new()
        .send(batch([query("SELECT 2"), statement("SELECT 3"), sync(), message(b'y', b"what is this")]))
        .until_closed();
    let scenario = Scenario::new("pg_012_024_unknown_message_type");
    scenario.shape("TDCZ 12DCZ E .").errors(&["08P01"]).check(script);
}

#[test]
fn pg_042_cut_at_every_offset() {
    let script = Script::new()
        .send(batch([
            parse("s1", "SELECT $1::text AS one, $2::int AS two"),
            describe_statement("s1"),
            bind("p1", "s1", &[Some("a text that is a little longer"), None]),
            describe_portal("p1"),
            execute("p1", 0),
            sync(),
            query("SELECT 2"),
        ]))
        .ready(2);
    let scenario = Scenario::new("pg_042_cut_at_every_offset").every_offset();
    scenario.shape("1tT2TDCZ TDCZ .").check(script);
}

#[test]
fn pg_042_parse_larger_than_any_buffer() {
    let long = |length: usize| format!("SELECT /* {} */ $1::int", "x".repeat(length));
    let long_name = format!("s{}", "1".repeat(20_000));
    let mut script = Script::new();
    for length in [8_000, 16_350, 65_500, 1_000_000] {
        let bound = bind("", "s1", &[Some("1")]);
        let messages = batch([parse("s1", &long(length)), bound, execute("", 0), sync()]);
        script = script.send(messages).ready(1);
        script = script.send(batch([close_statement("s1"), sync()])).ready(1);
    }
    script = script
        .send(batch([parse(&long_name, "SELECT 1"), bind("", &long_name, &[]), execute("", 0), sync()]))
        .ready(1)
        .send(query(&format!("SELECT '{}'", "y".repeat(500_000))))
        .ready(1);
    let shape = format!("{} 12DCZ TDCZ .", "12DCZ 3Z ".repeat(4));
    Scenario::new("pg_042_parse_larger_than_any_buffer").shape(&shape).check(script);
}

#[test]
fn pg_044_as_many_parameters_as_there_can_be() {
    let markers: Vec<String> = (1..=65_535).map(|n| format!("${n}")).collect();
    let sql = format!("SELECT sum(a) FROM unnest(ARRAY[{}]::int[]) a", markers.join(","));
    let values: Vec<Option<&str>> = (0..65_535).map(|n| if n % 7 == 0 { None } else { Some("3") }).collect();
    let script = Script::new()
        .send(batch([parse("", &sql), bind_formats("", "", &[0], &values, &[0]), execute("", 0), sync()]))
        .ready(1)
        .send(batch([parse("s1", &sql), sync()]))
        .ready(1)
        .send(batch([bind("", "s1", &values), execute("", 0), sync()]))
        .ready(1);
    Scenario::new("pg_044_as_many_parameters_as_there_can_be").shape("12DCZ 1Z 2DCZ .").check(script);
}

#[test]
fn pg_044_parameter_of_200_mb() {
    const SIZE: usize = 200 << 20;
    /// What a proxy may take at its peak: a small part of what passes through it.
    const MEMORY_MAX_KIB: u64 = 100 << 10;
    for server in servers() {
        let proxy = (!direct_only()).then(|| proxy::start(&proxy::config(server.address(), 4)));
        let addresses = [Some(server.address()), proxy.as_ref().map(|proxy| proxy.address)];
        for address in addresses.into_iter().flatten() {
            let mut wire = Wire::connect(address, &Login::app().database("app")).unwrap();
            let empty = bind("", "s1", &[Some("")]);
            // The parameter stands before the two bytes that count the result formats.
            let (head, tail) = empty.split_at(empty.len() - 2);
            let mut head = head.to_vec();
            let [frame_length, parameter_length] = [empty.len() - 1 + SIZE, SIZE].map(|n| u32::try_from(n).unwrap());
            head[1..5].copy_from_slice(&frame_length.to_be_bytes());
            let at = head.len() - 4;
            head[at..].copy_from_slice(&parameter_length.to_be_bytes());
            wire.send(&parse("s1", "SELECT length($1::text)"));
            wire.send(&head);
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..SIZE / piece.len() {
                wire.send(&piece);
            }
            wire.send(tail);
            wire.send_cut(&batch([execute("", 0), sync()]), Cut::Bytes);
            let frames: Vec<_> = std::iter::from_fn(|| wire.receive()).take(5).collect();
            let kinds: String = frames.iter().map(|frame| char::from(frame.kind)).collect();
            assert_eq!(kinds, "12DCZ", "{frames:#?}");
            assert_eq!(frames[2].columns()[0].as_deref(), Some(SIZE.to_string().as_bytes()));
        }
        if let Some(proxy) = proxy {
            let peak = proxy.memory_peak_kib();
            assert!(peak < MEMORY_MAX_KIB, "the proxy took {peak} KiB");
        }
    }
}
