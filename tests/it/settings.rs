//! Settings follow their client from connection to connection, as they would stay on its own: each script runs directly
//! and through the proxy, where a second client takes connections away in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::harness::measure::{Metrics, until};
use crate::harness::proxy::config;
use crate::harness::wire::{Frame, Login, Script, Wire, batch, bind, describe_statement, execute, parse, query, sync};
use crate::harness::{Scenario, each, each_with};

/// Client 0 asks this on one connection and on another.
fn everywhere(script: Script, asks: &[&str]) -> Script {
    let ask = |script: Script| asks.iter().fold(script.client(0), |script, sql| script.run(sql));
    let script = ask(script.client(1).run("BEGIN"));
    ask(script.client(1).run("COMMIT"))
}

/// Client 0 does this, a text at a time; after each it asks everywhere.
fn each_step(steps: &[&str], asks: &[&str]) -> Script {
    steps.iter().fold(Script::new(), |script, sql| everywhere(script.client(0).run(sql), asks))
}

fn statement(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0)])
}

const SCHEMAS: &str = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 'a' AS v; \
     CREATE TABLE b.t AS SELECT 'b' AS v; CREATE TABLE public.t AS SELECT 'public' AS v; \
     CREATE SCHEMA \"A, \"\"b\"\" ü\"; CREATE TABLE \"A, \"\"b\"\" ü\".t AS SELECT 'odd' AS v";

#[test]
fn pg_060_a_set_that_is_rolled_back() {
    let steps = ["SET search_path = b", "BEGIN; SET search_path = a; ROLLBACK", "BEGIN; SET search_path = a; COMMIT"];
    let script = each_step(&steps, &["SELECT v FROM t", "SHOW search_path"]);
    let script = script.client(0).run("BEGIN; SET search_path = b; SELECT 1/0").run("ROLLBACK");
    let script = everywhere(script, &["SELECT v FROM t"]);
    Scenario::new("pg_060_a_set_that_is_rolled_back").setup(SCHEMAS).errors(&["22012"]).check(script);
}

#[test]
fn pg_061_savepoints() {
    let script = each_step(
        &[
            "BEGIN; SAVEPOINT s; SET work_mem = '7MB'; ROLLBACK TO s; COMMIT",
            "BEGIN; SET work_mem = '5MB'; SAVEPOINT s; SET work_mem = '6MB'; RELEASE s; COMMIT",
            "BEGIN; SAVEPOINT s; SET work_mem = '7MB'; SAVEPOINT s; SET work_mem = '8MB'; ROLLBACK TO s; RELEASE s; COMMIT",
            "BEGIN; SAVEPOINT a; SET work_mem = '9MB'; SAVEPOINT b; RELEASE a; ROLLBACK AND CHAIN; SET work_mem = '10MB'; COMMIT",
        ],
        &["SHOW work_mem"],
    );
    Scenario::new("pg_061_savepoints").check(script);
}

#[test]
fn pg_062_set_local() {
    let script = each_step(
        &[
            "BEGIN; SET LOCAL work_mem = '7MB'; COMMIT",
            "SET LOCAL work_mem = '8MB'",
            "BEGIN; SET work_mem = '9MB'; SET LOCAL work_mem = '10MB'; COMMIT",
            "BEGIN; SET LOCAL work_mem = '11MB'; SET work_mem = '12MB'; COMMIT",
        ],
        &["SHOW work_mem"],
    );
    Scenario::new("pg_062_set_local").check(script);
}

#[test]
fn pg_063_an_error_behind_a_set_takes_it_back() {
    let script = Script::new().run("SET work_mem = '7MB'; SELECT 1/0");
    let script = everywhere(script, &["SHOW work_mem"])
        .send(batch([statement("SET work_mem = '8MB'"), statement("SELECT 1/0"), sync()]))
        .ready(1);
    let script = everywhere(script, &["SHOW work_mem"])
        .send(batch([statement("SET work_mem = '9MB'"), sync(), statement("SELECT 1/0"), sync()]))
        .ready(2);
    let script = everywhere(script, &["SHOW work_mem"]);
    Scenario::new("pg_063_an_error_behind_a_set").errors(&["22012"; 3]).check(script);
}

#[test]
fn pg_064_set_config_of_every_kind() {
    let bound = |local: &str| {
        let sql = "SELECT set_config($1, $2, $3)";
        batch([parse("", sql), bind("", "", &[Some("app.tenant"), Some("bound"), Some(local)]), execute("", 0), sync()])
    };
    let asks = ["SELECT coalesce(current_setting('app.tenant', true), '')"];
    let script = each_step(
        &[
            "SELECT set_config('app.tenant', '42', false)",
            "SELECT set_config('app.tenant', '43', true)",
            "SELECT set_config('app.' || 'tenant', '44', false)",
            "DO $$ BEGIN PERFORM set_config('app.tenant', 'do', false); END $$",
            "SET app.tenant = 'it''s'",
        ],
        &asks,
    );
    let script = everywhere(script.client(0).send(bound("false")).ready(1), &asks);
    let script = everywhere(script.client(0).send(bound("true")).ready(1), &asks);
    // The other client never sees it.
    let script = script.client(1).run(asks[0]);
    Scenario::new("pg_064_set_config_of_every_kind").check(script);
}

#[test]
fn pg_065_066_back_to_where_the_client_began() {
    let asks = ["SHOW work_mem", "SHOW search_path", "SHOW lock_timeout"];
    let script =
        ["SET work_mem = '9MB'", "RESET work_mem", "SET lock_timeout = 77", "SET search_path TO DEFAULT", "RESET ALL"]
            .iter()
            .fold(Script::new().startup("work_mem", "5MB").startup("lock_timeout", "1234"), |script, sql| {
                everywhere(script.client(0).run(sql), &asks)
            });
    // Inside a transaction, and taken back with it.
    let script = script.client(0).run("SET work_mem = '9MB'").run("BEGIN").run("RESET work_mem").run("SHOW work_mem");
    let script = everywhere(script.run("ROLLBACK"), &asks).client(0).run("BEGIN").run("RESET ALL").run("SHOW work_mem");
    let script = everywhere(script.run("COMMIT"), &asks).client(0).run("SET work_mem = '7MB'").run("DISCARD ALL");
    Scenario::new("pg_065_066_back_to_the_start").check(everywhere(script, &asks));
}

#[test]
fn pg_068_values_that_need_quotes() {
    let asks = ["SHOW search_path", "SELECT current_setting('app.v', true)"];
    let script = each_step(
        &[
            "SET search_path = \"A, \"\"b\"\" ü\", public; SET app.v = ''",
            "SET search_path = \"$user\", public; SET app.v = ' , \"x\" '",
            "SET search_path = 'a, b'; SET app.v = 'ü\\'",
            "SET search_path = ''; SELECT set_config('app.v', E'a\\nb''c', false)",
        ],
        &asks,
    );
    Scenario::new("pg_068_values_that_need_quotes").setup(SCHEMAS).check(script);
}

#[test]
fn pg_069_every_form_of_set() {
    let asks = [
        "SHOW TimeZone",
        "SHOW client_encoding",
        "SHOW default_transaction_read_only",
        "SHOW default_transaction_isolation",
        "SHOW xmloption",
        "SHOW search_path",
    ];
    let script = each_step(
        &[
            "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
            "SET TIME ZONE -7",
            "SET TIME ZONE LOCAL",
            "SET NAMES 'latin1'",
            "SET NAMES DEFAULT",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET default_transaction_isolation TO DEFAULT",
            "SET XML OPTION DOCUMENT",
            "SET SCHEMA 'b'",
            "SET CONSTRAINTS ALL DEFERRED",
            "UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'",
        ],
        &asks,
    );
    Scenario::new("pg_069_every_form_of_set").setup(SCHEMAS).check(script);
}

#[test]
fn pg_074_application_name_in_every_transaction() {
    let script = (0..6).fold(Script::new(), |script, number| {
        let script = script.client(0).send(batch([
            query(&format!("SET application_name = 'n{number}'")),
            query("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"),
        ]));
        everywhere(script.ready(2), &["SHOW application_name"])
    });
    Scenario::new("pg_074_application_name").check(script);
}

#[test]
fn pg_067_roles() {
    let asks = ["SELECT current_user, session_user", "SHOW role"];
    let role = "DO $$ BEGIN CREATE ROLE settings_role; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
                GRANT settings_role TO app";
    for server in crate::harness::servers() {
        server.run_sql("postgres", role).unwrap();
    }
    let script = each_step(
        &[
            "SET ROLE settings_role",
            "SET work_mem = '7MB'",
            "BEGIN; SET ROLE NONE; ROLLBACK",
            "BEGIN; SET LOCAL ROLE NONE; COMMIT",
            "RESET ROLE",
            "SET role TO settings_role; RESET ALL",
            "SET ROLE NONE",
        ],
        &asks,
    );
    Scenario::new("pg_067_roles").check(script);
}

/// Prepared under one `search_path`, used under another.
#[test]
fn pg_038_statements_and_the_settings_they_are_made_under() {
    let use_of = |name: &str| batch([describe_statement(name), bind("", name, &[]), execute("", 0), sync()]);
    let script = Script::new()
        .run("SET search_path = a")
        .client(1)
        .run("SET search_path = b")
        .send(batch([parse("s", "SELECT v FROM t"), sync()]))
        .ready(1)
        .client(0)
        .send(batch([parse("s", "SELECT v FROM t"), sync()]))
        .ready(1);
    let script = (0..3).fold(script, |script, _| {
        let script = script.client(0).run("BEGIN").send(use_of("s")).ready(1);
        script.client(1).send(use_of("s")).ready(1).client(0).run("COMMIT").send(use_of("s")).ready(1)
    });
    Scenario::new("pg_038_statements_and_settings").setup(SCHEMAS).check(script);
}

/// Clients whose settings are the same in other words share a connection without a word of the proxy's own in between.
#[test]
fn pg_070_other_spellings_of_the_same_value() {
    let ways: [&[&str]; 4] = [
        &["SET TIME ZONE 'utc'", "SET TimeZone = 'UTC'", "SELECT set_config('timezone', 'Utc', false)"],
        &["SET datestyle = 'german, dmy'", "SET DateStyle = 'GERMAN'", "SET datestyle TO German, Euro"],
        &["SET client_encoding = 'latin1'", "SET NAMES 'LATIN1'", "SET client_encoding TO 'iso-8859-1'"],
        &[
            "SET intervalstyle = 'ISO_8601'",
            "SET IntervalStyle = iso_8601",
            "BEGIN; SET intervalstyle = Iso_8601; COMMIT",
        ],
    ];
    each("pg_070_spellings", 3, &[], |_, database, proxy| {
        let login = || Login::app().database(database);
        let with = |name: &str, value: &str| Wire::connect(proxy.address, &login().with(name, value)).unwrap();
        let mut groups: Vec<Vec<Wire>> = Vec::new();
        for way in ways {
            let wires = way.iter().map(|set| {
                let mut wire = Wire::connect(proxy.address, &login()).unwrap();
                wire.query(set);
                wire
            });
            groups.push(wires.collect());
        }
        // From the start.
        groups.push(["utc", "UTC", "Utc"].map(|value| with("TimeZone", value)).into());
        groups.push(["iso, dmy", "ISO, DMY", "ISO,Euro"].map(|value| with("DateStyle", value)).into());
        for (number, clients) in groups.iter_mut().enumerate() {
            let mut turn = || clients.iter_mut().for_each(|client| assert_eq!(client.value("SELECT 'x'"), "x"));
            // They get to know the connection.
            (0..2).for_each(|_| turn());
            let names = ["client_bytes_received_total", "client_bytes_sent_total", "database_bytes_received_total"];
            let bytes = |metrics: &Metrics| names.map(|name| metrics.get(name));
            let before = bytes(&Metrics::read(proxy));
            (0..3).for_each(|_| turn());
            let said = 9.0 * query("SELECT 'x'").len() as f64;
            // The database has nothing to answer but what the clients read.
            until(proxy, |metrics| {
                let now = bytes(metrics);
                let [asked, read, answered] = [0, 1, 2].map(|n| now[n] - before[n]);
                let is_all = asked == said && read == answered && read > asked;
                if is_all { Vec::new() } else { vec![format!("group {number}: {asked} {read} {answered}")] }
            });
        }
    });
}

/// What a login is told of its session is what its own connection would have told it, the first login and later ones, beside others
/// with values of their own.
#[test]
fn pg_073_logins_are_told_of_their_own_settings() {
    let setup = ["CREATE SCHEMA mine"];
    each("pg_073_logins", 4, &setup, |server, database, proxy| {
        let logins: [&[(&str, &str)]; 7] = [
            &[],
            &[("TimeZone", "asia/tokyo"), ("DateStyle", "german"), ("application_name", "it's \"mine\" ü")],
            &[("client_encoding", "latin1"), ("IntervalStyle", "ISO_8601"), ("search_path", "mine, \"$user\"")],
            &[("options", "-c timezone=UTC -c DateStyle=ISO,YMD -c standard_conforming_strings=off")],
            &[("options", "-c TimeZone=Asia/Tokyo"), ("timezone", "utc")],
            &[("default_transaction_read_only", "true"), ("session_authorization", "app")],
            &[("client_encoding", "utf-8"), ("TimeZone", "<+07>-07")],
        ];
        for round in 0..2 {
            let told = |address: SocketAddr, parameters: &[(&str, &str)]| {
                let mut login = Login::app().database(database);
                let own = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                login.parameters.extend(own);
                let mut wire = Wire::connect(address, &login).unwrap();
                let mut told = statuses(wire.login());
                // And it is so. What comes with an answer counts as well.
                let frames = wire.ask(&query("SELECT name, setting FROM pg_settings WHERE name <> 'is_superuser'"), 1);
                told.extend(statuses(&frames));
                for row in frames.iter().filter(|frame| frame.kind == b'D') {
                    let [name, value] = [0, 1].map(|column| text(row.columns()[column].as_deref().unwrap_or_default()));
                    assert_eq!(told.get(&name).unwrap_or(&value), &value, "{name}, {parameters:?}, round {round}");
                }
                told
            };
            for parameters in logins {
                let [direct, proxied] = [server.address(), proxy.address].map(|address| told(address, parameters));
                assert_eq!(direct, proxied, "{parameters:?}, round {round}");
            }
        }
    });
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What has been reported of parameters.
fn statuses(frames: &[Frame]) -> BTreeMap<String, String> {
    let reports = frames.iter().filter(|frame| frame.kind == b'S');
    let fields = reports.map(|frame| frame.body.split(|byte| *byte == 0).map(text).collect::<Vec<_>>());
    fields.map(|fields| (fields[0].clone(), fields[1].clone())).collect()
}

/// Everything that the proxy might call or read by its bare name, in a schema that comes first: each says so if it is touched.
const HOSTILE: &[&str] = &[
    "CREATE SCHEMA evil; CREATE TABLE public.touched (what text)",
    "CREATE FUNCTION evil.touch(what text) RETURNS text LANGUAGE plpgsql AS \
     $$ BEGIN INSERT INTO public.touched VALUES (what); RETURN what; END $$",
    "CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT evil.touch('set_config') $$",
    "CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT evil.touch('current_setting') $$",
    "CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT evil.touch('current_setting') $$",
    "CREATE FUNCTION evil.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS $$ SELECT evil.touch('unnest') $$",
    "CREATE FUNCTION evil.pg_listening_channels() RETURNS SETOF text LANGUAGE sql AS $$ SELECT evil.touch('channels') $$",
    "CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE sql AS $$ SELECT length(evil.touch('pg_backend_pid')) $$",
    "CREATE FUNCTION evil.pg_my_temp_schema() RETURNS oid LANGUAGE sql AS $$ SELECT length(evil.touch('temp'))::oid $$",
    "CREATE FUNCTION evil.regexp_matches(text, text, text) RETURNS SETOF text[] LANGUAGE sql AS \
     $$ SELECT ARRAY[evil.touch('regexp_matches')] $$",
    "CREATE FUNCTION evil.equal(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.touch('=') IS NULL $$",
    "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.equal)",
    "CREATE FUNCTION evil.equal(oid, oid) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.touch('= of oid') IS NULL $$",
    "CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.equal)",
    "CREATE FUNCTION evil.matches(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.touch('~*') IS NULL $$",
    "CREATE OPERATOR evil.~* (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.matches)",
    "CREATE VIEW evil.pg_settings AS SELECT evil.touch('pg_settings') AS name, 'x'::text AS setting, 'session'::text AS source",
    "CREATE VIEW evil.pg_locks AS SELECT evil.touch('pg_locks') AS locktype, 1 AS pid",
    "CREATE VIEW evil.pg_cursors AS SELECT evil.touch('pg_cursors') AS name, true AS is_holdable",
    "CREATE VIEW evil.pg_prepared_statements AS SELECT evil.touch('pg_prepared_statements') AS name, true AS from_sql",
    "CREATE VIEW evil.pg_depend AS SELECT 1::oid AS refclassid, evil.touch('pg_depend') AS refobjid",
    "CREATE VIEW evil.pg_proc AS SELECT 99999::oid AS oid, evil.touch('pg_proc') AS prosrc",
    "CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.touch('text') IS NULL)",
];

/// The path of a client is of no weight to the proxy's own questions, on its connection or on others.
#[test]
fn pg_072_a_hostile_path_from_the_start() {
    let paths = [("search_path", "evil, pg_catalog"), ("options", "-c search_path=evil,pg_catalog,public")];
    each("pg_072_hostile", 5, HOSTILE, |server, database, proxy| {
        for (name, value) in paths {
            let login = Login::app().database(database).with(name, value).with("work_mem", "5MB");
            let [mut one, mut other] = [(); 2].map(|()| Wire::connect(proxy.address, &login).unwrap());
            let mut plain = Wire::connect(proxy.address, &Login::app().database(database)).unwrap();
            // Each of these makes the proxy ask, or put something back.
            let texts = [
                "SET TIME ZONE 'Asia/Tokyo'",
                "BEGIN; SET lock_timeout = 77; SAVEPOINT s; SET app.tenant = 'mine'; COMMIT",
                "DO $$ BEGIN NULL; END $$",
                "RESET work_mem",
                "RESET ALL",
                "SET ROLE NONE",
                "SELECT pg_catalog.pg_advisory_lock(1)",
                "SELECT pg_catalog.pg_advisory_unlock(1)",
                "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
                "CLOSE c",
                "CREATE TEMP TABLE mine (a int)",
                "DROP TABLE mine",
                "LISTEN here",
                "UNLISTEN here",
                "PREPARE p AS SELECT 1",
                "DEALLOCATE p",
                "DISCARD ALL",
            ];
            for sql in texts {
                one.query(sql);
                plain.query("BEGIN");
                assert_eq!(one.value("SELECT 'x'"), "x", "{sql}");
                assert_eq!(other.value("SELECT 'x'"), "x", "{sql}");
                plain.query("COMMIT");
                assert_eq!(plain.query("SELECT DISTINCT what FROM public.touched"), [[None; 0]; 0], "{sql}");
            }
            until(proxy, |metrics| metrics.wrong(&[("clients_pinned", 0.0)]));
            assert_eq!(one.value("SHOW work_mem"), "5MB");
            let path = one.value("SHOW search_path").replace(", ", ",");
            assert!(value.replace(", ", ",").ends_with(&path), "{path}");
        }
        // They would have been touched.
        let login = Login::app().database(database).with(paths[0].0, paths[0].1);
        let mut direct = Wire::connect(server.address(), &login).unwrap();
        for bare in [
            "SELECT set_config('a.b', 'c', false)",
            "SELECT name FROM pg_settings",
            "SELECT 1 FROM pg_locks WHERE locktype = 'x'::text",
            "SELECT 'a'::text ~* 'b'::text",
            "SELECT * FROM pg_listening_channels()",
        ] {
            direct.query(bare);
            assert_ne!(direct.query("DELETE FROM public.touched RETURNING what"), [[None; 0]; 0], "{bare}");
        }
    });
}

/// What is put back behind one reset is not taken for what the next one has reset.
#[test]
fn pg_065_one_reset_behind_another() {
    each_with(
        "pg_065_two_resets",
        &[],
        |server| config(server.address(), 4),
        |_, database, proxy| {
            let login = Login::app().database(database).with("options", "-c work_mem=5MB -c app.tenant=mine");
            let mut one = Wire::connect(proxy.address, &login).unwrap();
            for pinned in [false, true] {
                if pinned {
                    one.query("LISTEN news");
                }
                for texts in [["RESET app.tenant", "RESET work_mem"], ["RESET work_mem", "RESET app.tenant"]] {
                    for sql in texts {
                        one.query(sql);
                    }
                    assert_eq!(
                        (one.value("SHOW work_mem"), one.value("SHOW app.tenant")),
                        ("5MB".into(), "mine".into())
                    );
                    let both = batch([query(texts[0]), query(texts[1])]);
                    one.ask(&both, 2);
                    assert_eq!(
                        (one.value("SHOW work_mem"), one.value("SHOW app.tenant")),
                        ("5MB".into(), "mine".into())
                    );
                }
            }
        },
    );
}

/// What is for the transaction only is not counted among what is known for good.
#[test]
fn pg_064_for_the_transaction_only_beside_others() {
    each_with(
        "pg_064_beside",
        &[],
        |server| config(server.address(), 3),
        |_, database, proxy| {
            let login = Login::app().database(database);
            let [mut one, mut other] = [(); 2].map(|()| Wire::connect(proxy.address, &login).unwrap());
            let texts =
                ["SELECT set_config('app.tenant', 'l2', true)", "SET TIME ZONE 'Asia/Tokyo'", "SET search_path TO ''"];
            let each = |text: &&str| batch([parse("", text), bind("", "", &[]), execute("", 0)]);
            one.query("SET search_path TO a");
            one.ask(&[texts.iter().flat_map(each).collect::<Vec<u8>>(), sync()].concat(), 1);
            for _ in 0..2 {
                assert_eq!(other.value("SHOW search_path"), "\"$user\", public");
                assert_eq!(
                    (one.value("SHOW search_path"), one.value("SHOW TimeZone")),
                    ("\"\"".into(), "Asia/Tokyo".into())
                );
            }
        },
    );
}
