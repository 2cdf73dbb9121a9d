//! What texts set, and which they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

const DEFAULT: &str = "<default>";
const UNKNOWN: &str = "<unknown>";

fn check(sql: &str, expected: &[(&str, &str)], has_others: bool) {
    let found = changes(sql.as_bytes(), Dialect::default());
    let shown: Vec<(String, String)> = found
        .list
        .iter()
        .map(|change| {
            let value = match &change.value {
                Value::Known(value) => value.clone(),
                Value::Unknown => UNKNOWN.into(),
                Value::Default => DEFAULT.into(),
                Value::AllDefault => "<all>".into(),
            };
            (change.name.clone(), value)
        })
        .collect();
    let expected: Vec<(String, String)> = expected.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    assert_eq!((shown, found.has_others || found.has_more), (expected, has_others), "{sql}");
}

#[test]
fn set_and_reset() {
    check("SET work_mem = '64MB'", &[("work_mem", "64MB")], false);
    check("set session Work_Mem to 65536;", &[("work_mem", "65536")], false);
    check("SET \"Work_Mem\" = DEFAULT", &[("work_mem", DEFAULT)], false);
    check("SET a.\"B\" = 'it''s'; RESET lc_time", &[("a.b", "it's"), ("lc_time", DEFAULT)], false);
    check("SET datestyle TO ISO, dmy", &[("datestyle", "iso, dmy")], false);
    check("SET x = -1.5", &[("x", "-1.5")], false);
    check("SET x = on; /* */ SET y = \"Mixed\"", &[("x", "on"), ("y", "Mixed")], false);
    check("SET TIME ZONE 'UTC'; SET TIME ZONE LOCAL", &[("timezone", "UTC"), ("timezone", DEFAULT)], false);
    check("SET TIME ZONE -7; SET time TO x", &[("timezone", "-7"), ("time", "x")], false);
    check("SET NAMES 'latin1'; SET NAMES", &[("client_encoding", "latin1"), ("client_encoding", DEFAULT)], false);
    check("SET ROLE bob; SET ROLE 'x'; SET ROLE NONE", &[("role", "bob"), ("role", "x"), ("role", DEFAULT)], false);
    check("SET role = bob; RESET ROLE", &[("role", "bob"), ("role", DEFAULT)], false);
    check("RESET ALL; RESET TIME ZONE", &[("", "<all>"), ("timezone", DEFAULT)], false);
}

#[test]
fn what_ends_with_the_transaction_is_no_change() {
    for sql in [
        "SET LOCAL a = 1",
        "SET TRANSACTION READ ONLY",
        "SET SESSION x.y = 1; SET LOCAL z = 2",
        "SET CONSTRAINTS ALL DEFERRED",
        "SELECT set_config('a', 'b', true)",
        "SELECT 1",
    ] {
        let found = changes(sql.as_bytes(), Dialect::default());
        assert!(found.are_known() && found.list.len() == usize::from(sql.contains("x.y")), "{sql}");
    }
}

#[test]
fn what_can_not_be_read_is_unknown() {
    check("SET search_path = a, \"B\"", &[("search_path", UNKNOWN)], false);
    check("SET SCHEMA 'a'", &[("search_path", UNKNOWN)], false);
    check("SET x = 010", &[("x", UNKNOWN)], false);
    check("SET x = E'\\n'", &[("x", UNKNOWN)], false);
    check("SET x = $$a$$", &[("x", UNKNOWN)], false);
    check("SET x = 'a'\n'b'", &[("x", UNKNOWN)], false);
    check("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", &[("timezone", UNKNOWN)], false);
    check("SET SESSION AUTHORIZATION bob", &[("role", UNKNOWN)], false);
    check("RESET TRANSACTION ISOLATION LEVEL", &[], true);
    check("UPDATE pg_settings SET setting = 'x'", &[], true);
    check("SELECT set_limit(0.2)", &[], true);
    check("SET LOCAL = 1; SET local.x = 1", &[], true);
    check("SET session.x = 1", &[], true);
    check("DISCARD ALL; SET x = 1", &[("x", "1")], true);
    check("SET", &[], true);
    check("SET x", &[], true);
    let names = CHARACTERISTICS.iter().map(|name| (*name, UNKNOWN)).collect::<Vec<_>>();
    check("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", &names, false);
}

#[test]
fn set_config() {
    check("SELECT set_config('App.x', 'v', false)", &[("app.x", "v")], false);
    check(
        "SELECT pg_catalog.set_config('a','b','f') AS x, set_config('c', '', false);",
        &[("a", "b"), ("c", "")],
        false,
    );
    check("SELECT set_config('a', current_user, false)", &[("a", UNKNOWN)], false);
    check("SELECT set_config('a', $1, $2)", &[("a", UNKNOWN)], false);
    check("SELECT set_config('a', f(1, 2), false)", &[("a", UNKNOWN)], false);
    check("SELECT set_config($1, $2, false)", &[], true);
    check("SELECT set_config('a' || 'b', 'c', false)", &[], true);
    check("SELECT set_config('a', 'b', false) WHERE false", &[("a", UNKNOWN)], false);
    check("SELECT set_config('a', 'b', false) FROM t", &[("a", UNKNOWN)], false);
    check("SELECT x, set_config('a', 'b', false)", &[("a", UNKNOWN)], false);
    check("SELECT CASE WHEN x THEN set_config('a', 'b', false) END", &[("a", UNKNOWN)], false);
    check("WITH w AS (SELECT set_config('a', 'b', false)) SELECT 1", &[("a", UNKNOWN)], false);
    check("SELECT set_config('a', 'b'", &[], true);
    check("SELECT set_config", &[], true);
}

#[test]
fn parameters() {
    let bound = |values: &[Option<&[u8]>], sql: &str| {
        // One byte that is no letter can only be a truth.
        let is_truth = |value: &[u8]| matches!(value, [0 | 1]);
        let parameters: Vec<Parameter<'_>> =
            values.iter().map(|value| Parameter { value: *value, is_binary: value.is_some_and(is_truth) }).collect();
        bound_changes(sql.as_bytes(), Dialect::default(), &parameters)
    };
    let check = |sql: &str, values: &[Option<&[u8]>], expected: &[(&str, Value)], are_known: bool| {
        assert!(changes(sql.as_bytes(), Dialect::default()).has_parameters, "{sql}");
        let found = bound(values, sql);
        let list: Vec<(&str, Value)> =
            found.list.iter().map(|change| (change.name.as_str(), change.value.clone())).collect();
        assert_eq!((list.as_slice(), found.are_known()), (expected, are_known), "{sql}");
    };
    let known = |value: &str| Value::Known(value.into());
    let all = "SELECT set_config($1, $2, $3)";
    for no in [&b"f"[..], b"\0", b"false"] {
        check(all, &[Some(b"App.x"), Some(b"it's"), Some(no)], &[("app.x", known("it's"))], true);
    }
    for yes in [&b"t"[..], b"\x01"] {
        check(all, &[Some(b"a"), Some(b"b"), Some(yes)], &[], true);
    }
    check(all, &[Some(b"a"), None, Some(b"f")], &[("a", Value::Unknown)], false);
    check(all, &[Some(b"a"), Some(b"\xff"), Some(b"f")], &[("a", Value::Unknown)], false);
    check(all, &[Some(b"a"), Some(b"b")], &[("a", Value::Unknown)], false);
    check(all, &[None, Some(b"b"), Some(b"f")], &[], false);
    let two = "SELECT set_config('a', $2, false), set_config('b', $1, false)";
    check(two, &[Some(b"1"), Some(b"2")], &[("a", known("2")), ("b", known("1"))], true);
    check("SELECT set_config('a', $1, false) FROM t", &[Some(b"1")], &[("a", Value::Unknown)], false);
    assert!(!changes(b"SELECT set_config('a', 'b', false)", Dialect::default()).has_parameters);
    // In binary an `f` is as true as anything.
    let text = |value| Parameter { value: Some(value), is_binary: false };
    let binary = Parameter { value: Some(b"f"), is_binary: true };
    let found = bound_changes(all.as_bytes(), Dialect::default(), &[text(b"a"), text(b"b"), binary]);
    assert!(!found.are_known());
    // Many of them are not read each time.
    let many = format!("SELECT {}", ["set_config('a', $1, false)"; 17].join(", "));
    assert!(!changes(many.as_bytes(), Dialect::default()).has_parameters);
}

#[test]
fn what_changes_how_texts_are_read() {
    for (sql, expected) in [
        ("SET work_mem = 1", false),
        ("SET LOCAL work_mem = 1", false),
        ("SET LOCAL standard_conforming_strings = off", true),
        ("SET LOCAL NAMES 'SJIS'", true),
        ("SET NAMES 'SJIS'", true),
        ("RESET client_encoding", true),
        ("RESET ALL", true),
        ("SELECT set_config('Client_Encoding', x, true)", true),
        ("SELECT set_config('a.b', x, true)", false),
        ("SELECT set_config('client_' || 'encoding', x, true)", true),
        ("UPDATE pg_settings SET setting = 'off'", true),
    ] {
        assert_eq!(changes(sql.as_bytes(), Dialect::default()).may_change_dialect(), expected, "{sql}");
    }
}

#[test]
fn what_a_statement_does_not_depend_on() {
    for (sql, is_local, is_neutral) in [
        ("SELECT set_config('app.tenant', 'x', true)", true, true),
        ("SET LOCAL app.tenant = 'x'", true, true),
        ("SELECT set_config('app.tenant', 'x', false)", false, true),
        ("SET app.tenant = 'x'", false, true),
        ("SELECT set_config('role', 'x', true)", true, false),
        ("SET LOCAL search_path = a", true, false),
        ("SET LOCAL app.tenant = 'x'; SET TIME ZONE 'UTC'", false, false),
        ("SELECT set_config('app.' || x, 'x', true)", false, false),
        ("RESET ALL", false, false),
    ] {
        let found = changes(sql.as_bytes(), Dialect::default());
        assert_eq!((found.is_local(), found.is_neutral()), (is_local, is_neutral), "{sql}");
    }
}

#[test]
fn what_goes_back_to_where_it_began() {
    let resets = |sql: &str| {
        let found = changes(sql.as_bytes(), Dialect::default());
        (["a", "b.c"].into_iter().filter(|name| found.resets(name)).collect::<Vec<_>>(), found.are_known())
    };
    assert_eq!(resets("RESET a"), (vec!["a"], true));
    assert_eq!(resets("RESET ALL"), (vec!["a", "b.c"], true));
    assert_eq!(resets("SET b.c = DEFAULT"), (vec!["b.c"], false));
    assert_eq!(resets("RESET ALL; SET a = 1"), (vec!["b.c"], true));
    assert_eq!(resets("SET a = 1; RESET a; SELECT set_config('b.c', x, false)"), (vec!["a"], false));
    assert_eq!(resets("SELECT 1"), (vec![], true));
}

#[test]
fn code_that_sets() {
    let names = |sql: &str| {
        let found = mentioned(sql.as_bytes(), Dialect::default()).changes;
        let names: Vec<String> = found.list.into_iter().map(|change| change.name).collect();
        (names.join(" "), found.has_others)
    };
    let none = || (String::new(), false);
    assert_eq!(names("DO $$ BEGIN PERFORM 1; END $$"), none());
    assert_eq!(names("DO $x$ BEGIN PERFORM set_config('app.a', f(1), false); END $x$"), ("app.a".into(), false));
    assert_eq!(names("DO 'BEGIN SET app.b = 1; SET LOCAL c.d TO 2; END'"), ("app.b c.d".into(), false));
    assert_eq!(names("DO $$ BEGIN PERFORM set_config(n, v, false); END $$"), (String::new(), true));
    assert_eq!(names("DO $$ BEGIN EXECUTE 'SE' || 'T a.b = 1'; END $$"), (String::new(), true));
    assert_eq!(names("DO $$ BEGIN EXECUTE format('SET %s = 1', x); END $$"), (String::new(), true));
    assert_eq!(names("DO $$ BEGIN EXECUTE 'SELECT 1'; END $$"), none());
    let calls = mentioned(b"DO $$ BEGIN PERFORM app.\"F\" (g(1), now()); END $$", Dialect::default()).calls;
    assert_eq!(calls, [Box::from(&b"F"[..]), Box::from(&b"g"[..])]);
}

#[test]
fn backslashes_are_the_servers_where_it_reads_them() {
    let quotes = Dialect { backslash_quotes: true, ..Dialect::default() };
    assert!(!changes(br"SET x = 'a\b'", quotes).are_known());
    assert!(changes(br"SET x = 'a\b'", Dialect::default()).are_known());
    let unsure = Dialect { unsure: true, ..Dialect::default() };
    assert!(!changes(br"SET x = 'a\b'", unsure).are_known());
}
