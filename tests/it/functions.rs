//! Functions that change the session behind a plain `SELECT`: what they leave is followed or kept, and is nobody else's.

use crate::harness::each_with;
use crate::harness::measure::eventually;
use crate::harness::proxy::{ProxyHandle, config};
use crate::harness::wire::{Login, Wire, batch, bind, execute, parse, query, sync};
use sluicegate::demo::servers::PostgresServer;

/// One for clients, two of the proxy's own.
fn one(server: &PostgresServer) -> String {
    config(server.address(), 3)
}

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

fn runs(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0), sync()])
}

const SETUP: &[&str] = &[
    "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC",
    "CREATE FUNCTION app.sets_tenant(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
     PERFORM set_config('app.tenant', v, false); RETURN v; END $$",
    "CREATE FUNCTION sets_zone() RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     /* in a comment: */ SET TimeZone = 'Asia/Tokyo'; END $$",
    "CREATE FUNCTION sets_in_sql() RETURNS text LANGUAGE sql AS $$ SELECT set_config('work_mem', '7MB', false) $$",
    "CREATE FUNCTION calls_another() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN app.sets_tenant('called'); END $$",
    "CREATE FUNCTION makes_a_table() RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     EXECUTE 'CREATE TEMP TABLE made (i int)'; END $$",
    "CREATE FUNCTION \"Locks It\"(i int) RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(i) $$",
    "CREATE FUNCTION adds(a int, b int) RETURNS int LANGUAGE sql AS $$ SELECT a + b $$",
    "CREATE FUNCTION grows(a int) RETURNS int LANGUAGE plpgsql AS $$ DECLARE r int; BEGIN SELECT a + 1 INTO r; RETURN r; END $$",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA app TO PUBLIC",
];

const STATE: &str = "SELECT concat_ws(' ', coalesce(current_setting('app.tenant', true), ''), current_setting('work_mem'), \
     current_setting('TimeZone') = 'Asia/Tokyo', to_regclass('pg_temp.made'), \
     (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))";

#[test]
fn settings_of_functions_are_their_clients_own() {
    each_with("functions_settings", SETUP, one, |_, database, proxy| {
        let mut caller = client(proxy, database);
        let mut other = client(proxy, database);
        let clean = other.value(STATE);
        for (sql, state) in [
            ("SELECT app.sets_tenant('mine')", "mine 4MB f 0"),
            ("SELECT adds(1, 2), app . \"sets_tenant\" ('quoted')", "quoted 4MB f 0"),
            ("SELECT calls_another()", "called 4MB f 0"),
            ("SELECT sets_zone() FROM (SELECT 1) AS one", "called 4MB t 0"),
            ("SELECT sets_in_sql()", "called 7MB t 0"),
        ] {
            for ask in [query as fn(&str) -> Vec<u8>, runs] {
                caller.ask(&ask(sql), 1);
                for _ in 0..2 {
                    assert_eq!(other.value(STATE), clean, "{sql}");
                    assert_eq!(caller.value(STATE), state, "{sql}");
                }
            }
        }
        // In a transaction that fails, and by one that leaves.
        caller.query("BEGIN; SELECT app.sets_tenant('gone')");
        caller.ask(&query("SELECT 1/0"), 1);
        caller.query("ROLLBACK");
        assert_eq!(other.value(STATE), clean);
        assert_eq!(caller.value(STATE), "called 7MB t 0");
        let mut leaving = client(proxy, database);
        leaving.send(&query("SELECT app.sets_tenant('left')"));
        drop(leaving);
        assert_eq!(other.value(STATE), clean);
        // By a prepared statement of either kind.
        caller.query("PREPARE p(text) AS SELECT app.sets_tenant($1)");
        caller.query("EXECUTE p('prepared')");
        assert_eq!(other.value(STATE), clean);
        assert_eq!(caller.value("SHOW app.tenant"), "prepared");
        eventually(proxy, &[("clients_pinned", 0.0)]);
    });
}

#[test]
fn what_functions_leave_on_a_connection_holds_it() {
    each_with(
        "functions_hold",
        SETUP,
        |server| config(server.address(), 4),
        |_, database, proxy| {
            let mut other = client(proxy, database);
            let clean = other.value(STATE);
            for (sql, undo) in [
                ("SELECT makes_a_table()", "DROP TABLE made"),
                ("SELECT \"Locks It\"(1)", "SELECT pg_advisory_unlock(1)"),
            ] {
                let mut caller = client(proxy, database);
                caller.query(sql);
                let held = caller.value(STATE);
                assert_ne!(held, clean, "{sql}");
                for _ in 0..3 {
                    assert_eq!(other.value(STATE), clean, "{sql}");
                    assert_eq!(caller.value(STATE), held, "{sql}");
                }
                caller.query(undo);
                assert_eq!(caller.value(STATE), clean, "{sql}");
            }
            // Others cost nothing, once they are known.
            for _ in 0..3 {
                assert_eq!(other.value("SELECT adds(1, grows(1))"), "3");
            }
            eventually(proxy, &[("clients_pinned", 0.0)]);
        },
    );
}

const MAKERS: &[&str] = &[
    "CREATE FUNCTION set_claim(k text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     PERFORM set_config('request.claim.' || k, v, false); END $$",
    "CREATE FUNCTION set_spaced(k text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     PERFORM set_config /* here */ ('request.claim.sub', v, false); END $$",
    "CREATE FUNCTION set_built(k text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     EXECUTE 'SET request.claim.' || k || ' = ' || quote_literal(v); END $$",
    "CREATE FUNCTION set_formatted(k text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     EXECUTE format('SET request.claim.%I = %L', k, v); END $$",
    "CREATE FUNCTION set_quoted(k text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     SET \"request\".\"claim\".\"sub\" = 'alice'; END $$",
    "CREATE FUNCTION set_below(k text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_claim(k, v); END $$",
    "CREATE PROCEDURE set_called(k text, v text) LANGUAGE plpgsql AS $$ BEGIN PERFORM set_claim(k, v); END $$",
    "CREATE FUNCTION updates() RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     EXECUTE format('UPDATE %I SET %I = 1 WHERE false', 't', 'i'); UPDATE t\n SET i = 2; END $$",
    "CREATE TABLE t (i int)",
    "CREATE SCHEMA mine; GRANT ALL ON SCHEMA mine TO PUBLIC",
    "CREATE SEQUENCE s; GRANT ALL ON SEQUENCE s TO PUBLIC; GRANT ALL ON t TO PUBLIC",
    "CREATE FUNCTION my_last() RETURNS bigint LANGUAGE sql AS 'SELECT lastval()'",
];

/// Names that code makes up: who has called it stays where they are, and nobody else finds them.
#[test]
fn names_that_functions_make_up_are_nobody_elses() {
    each_with(
        "functions_made_up",
        MAKERS,
        |server| config(server.address(), 4),
        |_, database, proxy| {
            let claim = "SELECT coalesce(current_setting('request.claim.sub', true), '')";
            let mut others = [(); 2].map(|()| client(proxy, database));
            for call in [
                "SELECT set_claim('sub', 'alice')",
                "SELECT set_spaced('sub', 'alice')",
                "SELECT set_built('sub', 'alice')",
                "SELECT set_formatted('sub', 'alice')",
                "SELECT set_quoted('sub', 'alice')",
                "SELECT set_below('sub', 'alice')",
                "CALL set_called('sub', 'alice')",
                "DO $$ BEGIN PERFORM set_claim('sub', 'alice'); END $$",
                "CREATE OR REPLACE FUNCTION pg_temp.quick() RETURNS text LANGUAGE sql AS \
             $$ SELECT set_config('request.claim.sub', 'alice', false) $$; SELECT pg_temp.quick()",
            ] {
                for _ in 0..2 {
                    let mut one = client(proxy, database);
                    one.query(call);
                    for _ in 0..2 {
                        for other in &mut others {
                            assert_eq!(other.value(claim), "", "{call}");
                        }
                        assert_eq!(one.value(claim), "alice", "{call}");
                    }
                }
            }
            // One that was harmless, and is made anew in the very text that calls it.
            let mut one = client(proxy, database);
            let anew =
                |body: &str| format!("CREATE OR REPLACE FUNCTION mine.f() RETURNS text LANGUAGE sql AS $$ {body} $$");
            one.query(&anew("SELECT 'harmless'"));
            for _ in 0..3 {
                assert_eq!(one.value("SELECT mine.f()"), "harmless");
            }
            let sets = anew("SELECT set_config('request.claim.sub', 'alice', false)");
            one.query(&format!("{sets}; SELECT mine.f()"));
            for other in &mut others {
                assert_eq!(other.value(claim), "");
            }
            assert_eq!(one.value(claim), "alice");
            drop(one);
            // What only updates is nothing of that kind.
            let mut one = client(proxy, database);
            for _ in 0..3 {
                one.query("SELECT updates()");
                assert_eq!(others[0].value("SELECT 1"), "1");
            }
            eventually(proxy, &[("clients_pinned", 0.0)]);
        },
    );
}

/// A function that nobody has asked about yet does not become harmless by a question about something else.
#[test]
fn what_was_not_asked_for_stays_unknown() {
    each_with("functions_unasked", SETUP, one, |_, database, proxy| {
        let mut caller = client(proxy, database);
        let mut other = client(proxy, database);
        let clean = other.value(STATE);
        let ways =
            [(query as fn(&str) -> Vec<u8>, "SELECT app.sets_tenant('called')"), (runs, "SELECT calls_another()")];
        for (ask, call) in ways {
            // Nothing is left of it that would have to be asked for.
            caller.ask(&[ask(call), query("DISCARD ALL")].concat(), 2);
            caller.query("BEGIN; SET LOCAL work_mem = '5MB'; COMMIT");
            assert_eq!(other.value(STATE), clean);
            caller.ask(&ask(call), 1);
            assert_eq!(other.value(STATE), clean);
            assert_eq!(caller.value("SHOW app.tenant"), "called");
        }
    });
}

/// A last value that another client has drawn, asked for by code.
#[test]
fn last_values_are_nobody_elses_in_code_either() {
    each_with("functions_lastval", MAKERS, one, |_, database, proxy| {
        let [mut drawer, mut other] = [(); 2].map(|()| client(proxy, database));
        for ask in ["SELECT my_last()", "DO $$ BEGIN PERFORM lastval(); END $$", "SELECT my_last()"] {
            drawer.query("SELECT nextval('s')");
            let frames = other.ask(&query(ask), 1);
            let code = frames.iter().find(|frame| frame.kind == b'E').and_then(|frame| frame.field(b'C'));
            assert_eq!(code.as_deref(), Some("55000"), "{ask}: {frames:#?}");
        }
    });
}
