//! What clients could do to others by prepared statements and settings that the proxy has read wrongly, or not at all. Each is a
//! way that somebody who reads the source would try.

use crate::harness::each_with;
use crate::harness::measure::eventually;
use crate::harness::proxy::{ProxyHandle, config};
use crate::harness::wire::{
    Frame, Login, Wire, batch, bind, bind_formats, close_statement, execute, kinds, parse, parse_typed, query, sync,
};
use sluicegate::demo::servers::PostgresServer;

/// One for clients, two of the proxy's own.
fn one(server: &PostgresServer) -> String {
    config(server.address(), 3)
}

fn two(server: &PostgresServer) -> String {
    config(server.address(), 4)
}

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

fn runs(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0), sync()])
}

fn code(frames: &[Frame]) -> Option<String> {
    frames.iter().find(|frame| frame.kind == b'E').and_then(|frame| frame.field(b'C'))
}

const TENANT: &str = "SELECT coalesce(current_setting('app.tenant', true), '')";

/// Nobody finds other SQL behind the name of a statement, whoever has been there before.
#[test]
fn statements_under_the_proxys_names_can_not_be_replaced() {
    each_with("mistrust_replaced", &[], one, |_, database, proxy| {
        let [mut victim, mut attacker] = [(); 2].map(|()| client(proxy, database));
        let used = batch([bind("", "s", &[]), execute("", 0), sync()]);
        victim.ask(&batch([parse("s", "SELECT 'good'"), sync()]), 1);
        victim.query("PREPARE q AS SELECT 'good'");
        let names =
            "SELECT string_agg(name, ' ') FROM pg_prepared_statements WHERE name LIKE 'sg\\_%' AND length(name) = 35";
        for way in ["do", "long", "all"] {
            assert_eq!(kinds(&victim.ask(&used, 1)), "2DCZ");
            victim.query("EXECUTE q");
            let names = attacker.value(names);
            assert!(!names.is_empty());
            for name in names.split(' ') {
                match way {
                    "do" => drop(attacker.query(&format!(
                        "DO $$ BEGIN EXECUTE 'DEALLOCATE {name}'; EXECUTE 'PREPARE {name} AS SELECT ''evil'''; END $$"
                    ))),
                    "long" => {
                        let pad = "x".repeat((1 << 20) + 10_000);
                        let text = format!("SELECT 1 /*{pad}*/; DEALLOCATE {name}; PREPARE {name} AS SELECT 'evil'");
                        attacker.ask(&query(&text), 1);
                    }
                    _all => drop(attacker.query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")),
                }
            }
            attacker.query("DISCARD ALL");
            let frames = victim.ask(&used, 1);
            assert_eq!(kinds(&frames), "2DCZ", "{way}");
            assert_eq!(frames[1].columns()[0].as_deref(), Some(&b"good"[..]), "{way}");
            assert_eq!(victim.value("EXECUTE q"), "good", "{way}");
        }
    });
}

/// What is explained, or made without its rows, has not been executed.
#[test]
fn what_is_only_explained_has_set_nothing() {
    let setup = &["CREATE TABLE there (i text)"];
    each_with("mistrust_explained", setup, one, |_, database, proxy| {
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        one.query("PREPARE a AS SELECT set_config('app.tenant', '7', false)");
        one.ask(&batch([parse("r", "RESET work_mem"), sync()]), 1);
        for text in [
            "EXPLAIN EXECUTE a",
            "CREATE TABLE IF NOT EXISTS there AS EXECUTE a",
            "EXPLAIN EXECUTE r",
            "EXPLAIN (COSTS OFF) EXECUTE a",
        ] {
            for ask in [query as fn(&str) -> Vec<u8>, runs] {
                one.query("SET app.tenant = '8'; SET work_mem = '8MB'");
                one.ask(&ask(text), 1);
                other.query("SET app.tenant = '7'");
                assert_eq!((other.value(TENANT), other.value("SHOW work_mem")), ("7".into(), "4MB".into()), "{text}");
                assert_eq!((one.value(TENANT), one.value("SHOW work_mem")), ("8".into(), "8MB".into()), "{text}");
            }
        }
    });
}

/// A value is what the server makes of it.
#[test]
fn bound_values_are_what_the_server_makes_of_them() {
    each_with("mistrust_bound", &[], one, |_, database, proxy| {
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        let texts = |sql: &str, types: &[u32], formats: &[i16], values: &[Option<&str>]| {
            let bound = bind_formats("", "", formats, values, &[]);
            batch([parse_typed("", sql, types), bound, execute("", 0), sync()])
        };
        let set = "SELECT set_config('app.tenant', $1, $2)";
        one.query("SET app.tenant = '8'");
        for (bytes, expected) in [
            // In binary any byte is true, and then it is over with the transaction.
            (texts(set, &[], &[0, 1], &[Some("7"), Some("f")]), "8"),
            (texts(set, &[], &[1, 1], &[Some("7"), Some("0")]), "8"),
            (texts(set, &[], &[0, 1], &[Some("6"), Some("\0")]), "6"),
            (texts(set, &[], &[], &[Some("5"), Some("off")]), "5"),
            (texts(set, &[], &[0, 1], &[Some("4"), Some("\u{1}")]), "5"),
            // Types that make something else of it.
            (texts("SELECT set_config('app.tenant', $1, false)", &[18], &[], &[Some("42")]), "4"),
            (texts("SELECT set_config('app.tenant', $1, false)", &[1042], &[], &[Some("3 ")]), "3"),
            (texts("SELECT set_config('app.tenant', $1, false)", &[25], &[1], &[Some("zwei")]), "zwei"),
        ] {
            one.ask(&bytes, 1);
            for _ in 0..2 {
                other.query("SET app.tenant = '7'");
                assert_eq!(other.value(TENANT), "7");
                assert_eq!(one.value(TENANT), expected);
            }
        }
        eventually(proxy, &[("clients_pinned", 0.0)]);
    });
}

/// A Bind that comes in two pieces is waited for, and nobody else waits for it.
#[test]
fn half_a_bind_of_a_setting_holds_nobody_up() {
    each_with("mistrust_half", &[], one, |_, database, proxy| {
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        one.ask(&batch([parse("s", "SELECT set_config('app.tenant', $1, false)"), sync()]), 1);
        let bound = batch([bind("", "s", &[Some("a tenant of some length")]), execute("", 0), sync()]);
        for cut in [5, 9, 12, 30] {
            one.send(&bound[..cut]);
            assert_eq!(other.value("SELECT 'meanwhile'"), "meanwhile");
            one.send(&bound[cut..]);
            assert_eq!(kinds(&one.until_ready(1)), "2DCZ");
            assert_eq!(one.value(TENANT), "a tenant of some length");
        }
    });
}

/// One that executes one that executes one, and statements that only code has made.
#[test]
fn statements_behind_statements_are_followed_or_distrusted() {
    each_with("mistrust_nested", &[], two, |_, database, proxy| {
        let [mut one, mut other, mut third] = [(); 3].map(|()| client(proxy, database));
        let tenants = |wires: [&mut Wire; 2], behind: &str| {
            for wire in wires {
                assert_eq!(wire.value(TENANT), "", "{behind}");
                assert_eq!(wire.value("SHOW search_path"), "\"$user\", public", "{behind}");
            }
        };
        one.ask(&batch([parse("a0", "SELECT set_config('app.tenant','8',false)"), sync()]), 1);
        for level in 1..=6 {
            one.ask(&batch([parse(&format!("a{level}"), &format!("EXECUTE a{}", level - 1)), sync()]), 1);
        }
        for level in [1, 2, 5, 6] {
            for ask in [query as fn(&str) -> Vec<u8>, runs] {
                one.query("SET app.tenant = ''");
                one.ask(&ask(&format!("EXECUTE a{level}")), 1);
                tenants([&mut other, &mut third], &format!("a{level}"));
                // Further down what is executed is on a connection only if it was there before.
                let own = one.value(TENANT);
                assert!(own == "8" || (level > 1 && own.is_empty()), "a{level}: {own}");
            }
        }
        one.query("DISCARD ALL");
        one.query("DO $$ BEGIN EXECUTE 'PREPARE u AS SELECT set_config(''search_path'',''evil'',false)'; END $$");
        one.query("EXECUTE u");
        one.query("DEALLOCATE u");
        tenants([&mut other, &mut third], "u");
        assert_eq!(one.value("SHOW search_path"), "evil");
        one.query("DISCARD ALL");
        one.query("DO $$ BEGIN PERFORM set_config('app.'||'tenant','8',false); END $$");
        tenants([&mut other, &mut third], "a name made up");
        assert_eq!(one.value(TENANT), "8");
        one.query("DISCARD ALL");
        assert_eq!(one.value(TENANT), "");
        // A constant is read as its client's settings say, not as the text has them that executes what makes it.
        let made = batch([parse("p", "PREPARE z AS SELECT '2020-01-01'::timestamptz AT TIME ZONE 'UTC'"), sync()]);
        for wire in [&mut one, &mut other] {
            wire.query("SET timezone = 'UTC'");
            wire.ask(&made, 1);
        }
        one.query("SET timezone='Asia/Tokyo'; EXECUTE p");
        other.query("EXECUTE p");
        for wire in [&mut third, &mut other] {
            wire.query("BEGIN");
        }
        assert_eq!(other.value("EXECUTE z"), "2020-01-01 00:00:00");
    });
}

/// What a text does in its order, it does through the proxy.
#[test]
fn names_in_a_text_keep_their_order() {
    each_with("mistrust_order", &["CREATE TABLE t (v text)"], one, |server, database, proxy| {
        let mut proxied = client(proxy, database);
        let mut other = client(proxy, database);
        let mut direct = Wire::connect(server.address(), &Login::app().database(database)).unwrap();
        let long = "x".repeat(2 << 20);
        let texts = [
            "PREPARE a AS SELECT 1; DEALLOCATE ALL; PREPARE a AS SELECT 2; DEALLOCATE a".to_owned(),
            "DEALLOCATE ALL; PREPARE a AS SELECT 1; PREPARE a AS SELECT 2".to_owned(),
            "EXECUTE a".to_owned(),
            "DEALLOCATE ALL".to_owned(),
            "DEALLOCATE u; PREPARE a AS SELECT 1".to_owned(),
            "PREPARE a AS SELECT 1; EXECUTE a; DEALLOCATE a; PREPARE a AS SELECT 3; EXECUTE a".to_owned(),
            "PREPARE ins(text) AS SELECT length($1)".to_owned(),
            format!("EXECUTE ins('{long}')"),
            format!("/* a comment */ execute \"ins\" ('{long}')"),
            format!("PREPARE a AS SELECT '{long}'"),
            format!("EXECUTE nothing('{long}')"),
            "EXECUTE a".to_owned(),
            format!("EXECUTE ins('{}')", "y".repeat(1 << 19)),
            ["EXECUTE a"; 1000].join(";"),
        ];
        for text in &texts {
            let [frames, expected] = [&mut proxied, &mut direct].map(|wire| wire.ask(&query(text), 1));
            assert_eq!(kinds(&frames), kinds(&expected), "{:.100}", text);
            assert_eq!(code(&frames), code(&expected), "{:.100}", text);
            assert_eq!(other.value("SELECT 'in between'"), "in between");
        }
        // What executes another has no parameters of that one's.
        let outer = batch([parse("around", "EXECUTE ins('q')"), sync()]);
        let [frames, expected] = [&mut proxied, &mut direct].map(|wire| {
            wire.ask(&outer, 1);
            wire.ask(&query(&format!("EXECUTE around('{long}')")), 1)
        });
        let row = |frames: &[Frame]| frames.iter().find(|frame| frame.kind == b'D').map(Frame::columns);
        assert_eq!(kinds(&frames), kinds(&expected));
        assert_eq!(row(&frames), row(&expected));
        assert_eq!(code(&proxied.ask(&query(&["EXECUTE a"; 1001].join(";")), 1)).as_deref(), Some("54000"));
        assert_eq!(proxied.value("EXECUTE a"), "3");
        assert_eq!(proxy.metric("sluicegate_disagreements_total"), 0.0);
        proxied.ask(&batch([close_statement("a"), sync()]), 1);
    });
}
