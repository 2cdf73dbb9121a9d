//! Texts and what is read from them; then what holds for any text.
//!
//! A reading is written as the number of statements, then `!reason` for a pin when sent, `+reason` for one when done,
//! `asks`, `clears ...`, and what is done with which prepared statement.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests fail by panicking")]

use std::fmt::Write;

use proptest::prelude::*;

use super::lexer::{Kind, Lexer, Token};
use super::{Dialect, Reference, Statement, Verb, classify, identifier_value};
use crate::protocol::Clears;

const STANDARD: Dialect = Dialect { backslash_quotes: false, multibyte_unsafe: false, unsure: false };
const BACKSLASH: Dialect = Dialect { backslash_quotes: true, multibyte_unsafe: false, unsure: false };
const MULTIBYTE: Dialect = Dialect { backslash_quotes: false, multibyte_unsafe: true, unsure: false };

fn reading(sql: &[u8], dialect: Dialect) -> String {
    let Statement { intent, statements, references, calls: _ } = classify(sql, dialect);
    let mut text = statements.to_string();
    for pin in intent.pins_when_sent.iter() {
        write!(text, " !{pin}").unwrap();
    }
    for pin in intent.pins_when_done.iter() {
        write!(text, " +{pin}").unwrap();
    }
    if intent.asks_sequence {
        text.push_str(" asks");
    }
    match intent.clears {
        Clears::Nothing => {}
        Clears::Statements => text.push_str(" clears statements"),
        Clears::Everything => text.push_str(" clears everything"),
    }
    for Reference { verb, name, end, statement_end, is_plain: _ } in references {
        assert!(name.start < name.end && name.end <= end && end <= sql.len() && end <= statement_end);
        let name = String::from_utf8(identifier_value(sql.get(name).unwrap()).into_owned()).unwrap();
        match verb {
            Verb::Prepare => write!(text, " prepare {name}"),
            Verb::Execute => write!(text, " execute {name}"),
            Verb::Deallocate => write!(text, " name {name}"),
            Verb::DeallocateAll => Ok(()),
        }
        .unwrap();
    }
    text
}

fn check_in(dialect: Dialect, table: &[(&str, &str)]) {
    for (sql, expected) in table {
        assert_eq!(reading(sql.as_bytes(), dialect), *expected, "{sql}");
    }
}

fn check(table: &[(&str, &str)]) {
    check_in(STANDARD, table);
}

/// For its transaction alone, too: what is prepared behind it is not what others prepare.
#[test]
fn what_may_change_settings() {
    for (sql, changes) in [
        ("set x = 1", true),
        ("set local x = 1", true),
        ("SET LOCAL TIME ZONE 'UTC'", true),
        ("set session x to 1", true),
        ("reset x", true),
        ("reset all", true),
        ("begin; set local x = 1; select 1", true),
        ("select set_config('x', '1', true)", true),
        ("update pg_settings set setting = '1'", true),
        ("execute s", false),
        ("do $$$$", true),
        ("call p()", true),
        ("select 'a", true),
        ("discard all; select 1", true),
        ("set transaction read only", false),
        ("set session transaction read only", false),
        ("set constraints all deferred", false),
        ("select 1", false),
        ("update t set x = 1", false),
        ("alter role r set x = 1", false),
    ] {
        assert_eq!(classify(sql.as_bytes(), STANDARD).intent.changes_settings, changes, "{sql}");
    }
}

#[test]
fn in_a_dialect_that_is_not_sure_what_is_ambiguous_is_unreadable() {
    let unsure = Dialect { unsure: true, ..STANDARD };
    let hidden = "1 !unreadable +unreadable asks";
    for sql in ["select 'a\\'', set_config() --'", "select e'\\n'", "select '\u{e9}'"] {
        assert_eq!(reading(sql.as_bytes(), unsure), hidden, "{sql}");
    }
    check_in(unsure, &[("select 'a'", "1"), ("deallocate a", "1 name a")]);
}

#[test]
fn plain_statements_leave_nothing() {
    check(&[
        ("", "0"),
        (" \t\n", "0"),
        (";", "0"),
        (" ; ;; ", "0"),
        ("-- set x = 1", "0"),
        ("/* set x = 1 */", "0"),
        ("select 1", "1"),
        ("select 1;", "1"),
        ("select 1; ; select 2;", "2"),
        ("SELECT abalance FROM pgbench_accounts WHERE aid = 12345;", "1"),
        ("insert into t values ($1, $2) on conflict (a) do update set b = excluded.b", "1"),
        ("insert into t values (1) on conflict do nothing", "1"),
        ("update t set x = 1", "1"),
        ("UPDATE set SET set = 1", "1"),
        ("alter role bob set work_mem = '1MB'", "1"),
        ("alter system set work_mem = '1MB'", "1"),
        ("alter table t set (fillfactor = 70)", "1"),
        ("select \"set\" from t", "1"),
        ("select t.set, t.reset, t.listen from t", "1"),
        ("select 'pg_advisory_lock', 'set_config'", "1"),
        ("begin; update t set x = 1; commit; select 1", "4"),
        ("select 1; begin", "2"),
        ("begin isolation level serializable read only", "1"),
        ("savepoint set", "1"),
        ("rollback to savepoint s", "1"),
        ("prepare transaction 'gid'", "1"),
        ("PREPARE TRANSACTION E'gid'", "1"),
        ("prepare transaction $$gid$$", "1"),
        ("commit prepared 'gid'", "1"),
        ("copy t from program 'cat'", "1"),
        ("copy (select 1) to stdout", "1"),
        ("copy t from stdin", "1"),
        ("lock table t", "1"),
        ("select pg_advisory_xact_lock(1)", "1"),
        ("select pg_try_advisory_xact_lock_shared(1)", "1"),
        ("select pg_advisory_unlock(1), pg_advisory_unlock_all()", "1"),
        ("notify set, 'x'", "1"),
        ("unlisten *", "1"),
        ("unlisten set", "1"),
        ("fetch all from c", "1"),
        ("close all", "1"),
        ("show all", "1"),
        ("vacuum analyze t", "1"),
        ("explain analyze select 1", "1"),
        ("explain (analyze, verbose) select 1", "1"),
        ("(select 1) union (select 2)", "1"),
        ("values (1), (2)", "1"),
        ("with x as (insert into temp values (1) returning *) select * from x", "1"),
        ("select U&'\\0041'", "1"),
        ("not sql at all ] } { \\ \u{7f} $", "1"),
    ]);
}

#[test]
fn settings_pin() {
    check(&[
        ("set x = 1", "1 +setting"),
        ("SET x TO DEFAULT", "1 +setting"),
        ("sEt app.tenant to '42'", "1 +setting"),
        ("set session x = 1", "1 +setting"),
        ("set x from current", "1 +setting"),
        ("set time zone interval '-08:00' hour to minute", "1 +setting"),
        ("set time zone local", "1 +setting"),
        ("set names 'utf8'", "1 +setting"),
        ("set role none", "1 +setting"),
        ("set session role bob", "1 +setting"),
        ("set session authorization bob", "1 +setting"),
        ("set session characteristics as transaction read only", "1 +setting"),
        ("set session session characteristics as transaction read only", "1 +setting"),
        ("set \"local\" = 1", "1 +setting"),
        ("set \"TimeZone\" = 'UTC'", "1 +setting"),
        ("/* hi */ -- there\n set/**/x=1", "1 +setting"),
        (";;set x = 1", "1 +setting"),
        ("select 1; set x = 1; select 2", "3 +setting"),
        ("begin; set search_path = a; rollback", "3 +setting"),
        ("reset x", "1 +setting"),
        ("RESET ALL", "1 +setting"),
        ("reset role", "1 +setting"),
        ("reset session authorization", "1 +setting"),
        ("set local x = 1", "1"),
        ("SET LOCAL \"x\" = 1", "1"),
        ("set local role bob", "1"),
        ("set local time zone 'UTC'", "1"),
        ("set local session characteristics as transaction read only", "1"),
        ("set transaction isolation level serializable", "1"),
        ("set session transaction read only", "1"),
        ("set constraints all deferred", "1"),
        ("set constraints \"c\" immediate", "1"),
        // Names of settings that start with those words.
        ("set local.x = 1", "1 +setting"),
        ("set local . x = 1", "1 +setting"),
        ("set transaction.x = '1'", "1 +setting"),
        ("set session transaction.x = '1'", "1 +setting"),
        ("set session local.x = '1'", "1 +setting"),
        ("set constraints.x to '1'", "1 +setting"),
        ("set local to 1", "1 +setting"),
        ("set local local.x = 1", "1"),
        ("select set_config('a', 'b', false)", "1 +setting"),
        ("select pg_catalog.set_config('a', 'b', true)", "1 +setting"),
        ("select \"set_config\"($1, $2, $3)", "1 +setting"),
        ("SELECT Set_Config ($1, $2, $3)", "1 +setting"),
        ("select pg_catalog . /* x */ \"set_config\" (1)", "1 +setting"),
        ("select \"SET_CONFIG\"(1)", "1"),
        ("select \"set\"\"config\"", "1"),
        ("select my_set_config(1)", "1"),
        ("select set_config2(1), set_configs", "1"),
        ("select set_config$(1)", "1"),
        ("select \u{e9}set_config(1)", "1"),
        ("explain select set_config('a', 'b', false)", "1 +setting"),
        ("create view v as select set_config('a', 'b', false)", "1 +setting"),
        ("update pg_settings set setting = '1' where name = 'work_mem'", "1 +setting"),
        ("update only pg_catalog.\"pg_settings\" set setting = '1'", "1 +setting"),
        ("select * from pg_settings", "1"),
        ("select * from pg_settings for update", "1"),
        ("update t set x = 1; select * from pg_settings", "2"),
        ("select set_limit(0.5)", "1 +setting"),
        ("create function f() returns int language sql set x = 1 as $$select 1$$", "1"),
        ("set", "1"),
    ]);
}

#[test]
fn prepared_statements() {
    check(&[
        ("prepare p as select 1", "1 prepare p"),
        ("PREPARE \"P\" (int) AS SELECT $1", "1 prepare P"),
        ("prepare transaction as select 1", "1 prepare transaction"),
        ("prepare transaction(int) as select $1", "1 prepare transaction"),
        ("prepare p as select pg_advisory_lock(1)", "1 !session_lock prepare p"),
        ("execute p", "1 execute p"),
        ("execute p(1)", "1 execute p"),
        ("explain execute p", "1 execute p"),
        ("EXPLAIN ANALYZE VERBOSE EXECUTE p(1)", "1 execute p"),
        ("explain analyse execute p", "1 execute p"),
        ("explain (analyze, buffers off) execute p", "1 execute p"),
        ("explain select execute from t", "1"),
        ("explain (select 1)", "1"),
        ("create table t as execute p", "1 execute p"),
        ("create table if not exists t (a) with (fillfactor = 70) as execute p(1) with no data", "1 execute p"),
        ("create temp table t as execute p", "1 +temporary_object execute p"),
        ("explain analyze create table t as execute p", "1 execute p"),
        ("create table t (a int generated always as (execute) stored)", "1"),
        ("create table t as select 1 as execute", "1"),
        ("create trigger t after insert on t for each row execute function f()", "1"),
        ("create trigger t after insert on t execute procedure f()", "1"),
        ("grant execute on function f() to bob", "1"),
    ]);
}

#[test]
fn deallocation() {
    check(&[
        ("deallocate p", "1 name p"),
        ("DEALLOCATE P", "1 name p"),
        ("deallocate prepare p;", "1 name p"),
        (";; deallocate /* \"q\" */ \"P\"\"q\" -- r", "1 name P\"q"),
        ("deallocate prepare", "1 name prepare"),
        ("deallocate prepare prepare", "1 name prepare"),
        ("deallocate \"all\"", "1 name all"),
        ("deallocate Stra\u{df}e", "1 name stra\u{df}e"),
        ("deallocate all", "1 clears statements"),
        ("deallocate prepare ALL;", "1 clears statements"),
        ("deallocate \"prepare\"", "1 name prepare"),
        ("discard all", "1 clears everything"),
        ("/**/ DISCARD/**/ALL ;;", "1 clears everything"),
        ("discard plans", "1"),
        ("discard sequences", "1"),
        ("discard temp", "1"),
        ("discard temporary", "1"),
        ("select 1; discard temp", "2"),
        ("select 1; discard all", "2 +setting +prepared_statement"),
        ("discard all; discard all", "2 +setting +prepared_statement"),
        ("select 1; deallocate all", "2 clears statements"),
        ("deallocate all; prepare p as select 1", "2 clears statements prepare p"),
        ("deallocate p; execute q; deallocate q", "3 name p execute q name q"),
        ("select 1; deallocate prepare", "2 name prepare"),
        // Refused by the server.
        ("deallocate", "1"),
        ("deallocate p q", "1"),
        ("deallocate all p", "1"),
        ("deallocate 'p'", "1"),
        ("deallocate $1", "1"),
        ("execute", "1"),
        ("execute $1", "1"),
        ("prepare", "1"),
        ("prepare p", "1"),
        ("prepare p(as)", "1"),
        ("prepare 1 as select 1", "1"),
        ("discard all x", "1"),
        ("discard \"all\"", "1"),
        ("explain deallocate 1", "1"),
    ]);
}

#[test]
fn temporary_objects() {
    check(&[
        ("create temp table t (x int)", "1 +temporary_object"),
        ("create temporary sequence s", "1 +temporary_object"),
        ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", "1 +temporary_object"),
        ("create or replace temp recursive view v (a) as select 1", "1 +temporary_object"),
        ("create local temp table t ()", "1 +temporary_object"),
        ("create global temporary table t ()", "1 +temporary_object"),
        ("create/**/temp/**/table t ()", "1 +temporary_object"),
        ("create temp table t () on commit drop", "1 +temporary_object"),
        ("select 1 into temp t", "1 +temporary_object"),
        ("select 1 into local temporary table t from x", "1 +temporary_object"),
        ("select 1 into temp \"t\"", "1 +temporary_object"),
        ("with x as (select 1) select * into temp y from x", "1 +temporary_object"),
        ("explain analyze select 1 into temp t", "1 +temporary_object"),
        ("explain analyze create temp table t as select 1", "1 +temporary_object"),
        ("explain (analyze) create temp table t as select 1", "1 +temporary_object"),
        ("select 1; create temp table t ()", "2 +temporary_object"),
        ("create table pg_temp.t ()", "1 +temporary_object"),
        ("create function \"pg_temp\".f() returns int language sql as 'select 1'", "1 +temporary_object"),
        ("select * from pg_temp_12.t", "1 +temporary_object"),
        ("drop table PG_TEMP.t", "1 +temporary_object"),
        ("select pg_temperature, pg_temp_x, \"PG_TEMP\"", "1"),
        ("create table t (temp int, temporary text)", "1"),
        ("create table temp (x int)", "1"),
        ("create table \"temp\" (x int)", "1"),
        ("create index temp on t (temp)", "1"),
        ("create unlogged table t ()", "1"),
        ("create tablespace temp location ''", "1"),
        ("select temp from t", "1"),
        ("select 1 as temp", "1"),
        ("insert into temp values (1)", "1"),
        ("insert into temp select 1", "1"),
        ("insert /* x */ into /* y */ temp values (1)", "1"),
        ("merge into temp t using s on true when matched then do nothing", "1"),
        ("select 1 into temp", "1"),
        ("select 1 into temp.t", "1"),
        ("select 1 into t", "1"),
        ("select 1 into unlogged t", "1"),
        ("drop table temp", "1"),
    ]);
}

/// After which a sequence's last value may be asked for.
#[test]
fn what_may_draw_from_a_sequence() {
    for (sql, draws) in [
        ("select nextval('s')", true),
        ("select pg_catalog.setval('s', 1)", true),
        ("insert into t values (1)", true),
        ("with w as (insert into t values (1) returning a) select a from w", true),
        ("merge into t using u on true when not matched then insert values (1)", true),
        ("do $$ begin end $$", true),
        ("call p()", true),
        ("select lastval()", false),
        ("update t set a = 1", false),
        ("select 1", false),
    ] {
        assert_eq!(classify(sql.as_bytes(), STANDARD).intent.draws_sequence, draws, "{sql}");
    }
}

#[test]
fn locks_cursors_channels_sequences() {
    check(&[
        ("select pg_advisory_lock(1)", "1 !session_lock"),
        ("SELECT PG_ADVISORY_LOCK_SHARED(1, 2)", "1 !session_lock"),
        ("select pg_try_advisory_lock(1)", "1 !session_lock"),
        ("select pg_catalog.\"pg_try_advisory_lock_shared\"(1)", "1 !session_lock"),
        ("insert into t select pg_advisory_lock(id) from t", "1 !session_lock"),
        ("select my_pg_advisory_lock(1), pg_advisory_locks", "1"),
        ("-- pg_advisory_lock(1)\nselect 1", "1"),
        ("select /* pg_advisory_lock(1) */ 1", "1"),
        ("declare c cursor with hold for select 1", "1 +held_cursor"),
        ("DECLARE c BINARY INSENSITIVE SCROLL CURSOR WITH HOLD FOR SELECT 1", "1 +held_cursor"),
        ("declare hold cursor with hold for select 1", "1 +held_cursor"),
        ("declare c cursor for select 1", "1"),
        ("declare c cursor without hold for select 1", "1"),
        ("declare hold cursor for select hold from t hold", "1"),
        ("declare c cursor for with hold as (select 1) select * from hold", "1"),
        ("select 1 hold", "1"),
        ("listen c", "1 +listen"),
        ("LISTEN \"C\"", "1 +listen"),
        ("begin; listen c; commit", "3 +listen"),
        ("select nextval('s')", "1"),
        ("select setval('s', 1)", "1"),
        ("select pg_catalog.nextval('s')", "1"),
        ("insert into t values (nextval('s')) returning currval('s')", "1 asks"),
        ("select currval('s')", "1 asks"),
        ("select lastval()", "1 asks"),
        ("select \"lastval\"()", "1 asks"),
        ("select my_nextval(1), nextvals, lastvalue", "1"),
    ]);
}

#[test]
fn code_and_the_server_process() {
    check(&[
        ("do $$ begin perform 1; end $$", "1 !opaque_code"),
        ("DO LANGUAGE plpgsql 'begin end'", "1 !opaque_code"),
        ("call p(1)", "1 !opaque_code"),
        ("select 1; call p()", "2 !opaque_code"),
        ("select query_to_xml('select 1', true, false, '')", "1 !opaque_code"),
        ("select query_to_xml_and_xmlschema('select 1', true, false, '')", "1 !opaque_code"),
        ("select * from ts_stat('select 1')", "1 !opaque_code"),
        ("select ts_rewrite('a'::tsquery, 'select 1')", "1 !opaque_code"),
        ("select do, call from t", "1"),
        ("load 'x'", "1 !server_process"),
        ("select setseed(0.5)", "1 !server_process"),
        ("select dblink_connect('c', 'dbname=x')", "1 !server_process"),
        ("select public.dblink_connect_u('c', 'dbname=x')", "1 !server_process"),
        ("select dblink_exec('c', 'select 1')", "1 !server_process"),
        ("select * from dblink('dbname=x', 'select 1') as t(a int)", "1"),
        ("select pg_replication_origin_session_setup('o')", "1 !server_process"),
        ("select pg_create_logical_replication_slot('s', 'p', true)", "1 !server_process"),
        ("create rule r as on insert to t do instead (select 1; listen x; set y = 1)", "1"),
        ("create function f() returns int begin atomic select 1; select 2; end", "3"),
        (
            "set x = 1; select pg_advisory_lock(1); create temp table t (); listen c",
            "4 !session_lock +setting +temporary_object +listen",
        ),
    ]);
}

#[test]
fn quoting() {
    check(&[
        ("select '; set x = 1'", "1"),
        ("select 'it''s; set x = 1'", "1"),
        ("select 'a\\'; set x = 1", "2 +setting"),
        ("select E'a\\'; set x = 1'", "1"),
        ("select e'a\\\\'; set x = 1", "2 +setting"),
        ("select E'a''b\\''; set x = 1", "2 +setting"),
        ("select N'a\\'; set x = 1", "2 +setting"),
        ("select B'01\\'; set x = 1", "2 +setting"),
        ("select X'1F'; set x = 1", "2 +setting"),
        ("select U&'a\\'; set x = 1", "2 +setting"),
        // An E string goes on in its own way.
        ("select E'a'\n'b\\'; set x = 1'", "1"),
        ("select E'a' -- c\n  'b\\'; set x = 1'", "1"),
        ("select E'a' -- c\r -- d'\n\t'b\\'; set x = 1'", "1"),
        ("select E'a' 'b\\'; set x = 1", "2 +setting"),
        ("select E'a' /* \n */ 'b\\'; set x = 1", "2 +setting"),
        ("select E'a'\n/**/'b\\'; set x = 1", "2 +setting"),
        ("select 'a'\n'b\\'; set x = 1", "2 +setting"),
        ("select E'a'\n'b'\n'c\\'; set x = 1'", "1"),
        ("select E'a'\nE'c\\'; set x = 1'", "1"),
        ("select foo_e'a\\'; set x = 1", "2 +setting"),
        ("select 1E'a\\'; set x = 1'", "1"),
        ("select 1.5e3'a\\'; set x = 1", "2 +setting"),
        ("select e 'a\\'; set x = 1", "2 +setting"),
        // Comments.
        ("select '/*'; set x = 1 --*/'", "2 +setting"),
        ("select '--'; set x = 1", "2 +setting"),
        ("select 1 -- '\n; set x = 1", "2 +setting"),
        ("select 1 -- '\r; set x = 1", "2 +setting"),
        ("/* ' */ set x = 1", "1 +setting"),
        ("/* /* */ set x = 1 */ select 1", "1"),
        ("/*/* a */ b */ set x = 1", "1 +setting"),
        ("/**/set x = 1", "1 +setting"),
        ("/***/ set x = 1", "1 +setting"),
        ("/*/ set x = 1 */ select 1", "1"),
        ("/* -- */ set x = 1", "1 +setting"),
        ("-- /*\nset x = 1", "1 +setting"),
        ("select 1 +/* ; */ 2", "1"),
        ("select 1 +-- ; set x = 1\n 2", "1"),
        ("select 1 */**/ 2; set x = 1", "2 +setting"),
        ("select 1 - - 2; set x = 1", "2 +setting"),
        ("select 1 <-- 2; set x = 1", "1"),
        ("select a \"--\" from t; set x = 1", "2 +setting"),
        ("select \"a\"\"; set x = 1\"", "1"),
        ("select \"a\\\"; set x = 1", "2 +setting"),
        ("select \"'\"; set x = 1 -- '", "2 +setting"),
        // Dollars.
        ("select $$; set x = 1$$", "1"),
        ("select $$'$$; set x = 1", "2 +setting"),
        ("select $a$ $$ $b$; set x = 1 $a$", "1"),
        ("select $a$ $A$; set x = 1 $a$", "1"),
        ("select $a$a$a$; set x = 1", "2 +setting"),
        ("select $a$ $b$a$; set x = 1", "2 +setting"),
        ("select $$ $a$$; set x = 1", "2 +setting"),
        ("select $a1_$; set x = 1 $a1_$", "1"),
        ("select $\u{e9}$; set x = 1 $\u{e9}$", "1"),
        ("select $1; set x = 1; select $1", "3 +setting"),
        ("select $1$; set x = 1; select $1$", "3 +setting"),
        ("select $1$$; set x = 1 $$", "1"),
        ("select a$$b; set x = 1; select a$$b", "3 +setting"),
        ("select 1 as a$b$; set x = 1", "2 +setting"),
        ("select $a; set x = 1; select $a", "3 +setting"),
        ("select (1; set x = 1)", "1"),
        ("select 1); set x = 1", "2 +setting"),
        ("select 1\0; set x = 1", "1"),
        ("select 'a\0'; set x = 1", "1 +unreadable asks"),
    ]);
}

#[test]
fn plain_strings_may_take_backslashes() {
    check_in(
        BACKSLASH,
        &[
            ("select 'a\\'; set x = 1'", "1"),
            ("select 'a'\n'\\'; set x = 1'", "1"),
            ("select N'a\\'; set x = 1'", "1"),
            ("select 'a\\\\'; set x = 1", "2 +setting"),
            ("select 'a''; set x = 1'", "1"),
            ("select B'0\\'; set x = 1", "2 +setting"),
            ("select X'0'\n'\\'; set x = 1", "2 +setting"),
            ("select \"a\\\"; set x = 1", "2 +setting"),
            ("select $$\\$$; set x = 1", "2 +setting"),
        ],
    );
}

#[test]
fn what_can_not_be_read_pins() {
    check(&[
        ("select 'a", "1 +unreadable asks"),
        ("select E'a\\'", "1 +unreadable asks"),
        ("select E'a\\", "1 +unreadable asks"),
        ("select 'a'\n'b", "1 +unreadable asks"),
        ("select \"a", "1 +unreadable asks"),
        ("select U&\"a", "1 +unreadable asks"),
        ("select $$a", "1 +unreadable asks"),
        ("select $a$ $", "1 +unreadable asks"),
        ("select $a$ $a", "1 +unreadable asks"),
        ("select 1 /* a", "1 +unreadable asks"),
        ("/* /* */", "1 +unreadable asks"),
        ("/*", "1 +unreadable asks"),
        ("/*/", "1 +unreadable asks"),
        ("/*/*/*/", "1 +unreadable asks"),
        ("discard all /*", "1 +unreadable asks"),
        ("select U&\"d\\0061t\\+000061\"", "1 !unreadable +unreadable asks"),
        ("select u&\"pg!005fx\" uescape '!'", "1 !unreadable +unreadable asks"),
        ("select u & \"a\"", "1"),
        ("deallocate U&\"a\"", "1 !unreadable +prepared_statement +unreadable asks"),
    ]);
    check_in(
        MULTIBYTE,
        &[
            ("select 'abc'", "1"),
            ("select '\u{e9}'", "1 !unreadable +unreadable asks"),
            ("-- \u{e9}", "0 !unreadable +unreadable asks"),
            ("discard all -- \u{e9}", "1 !unreadable +setting +prepared_statement +unreadable asks"),
            ("deallocate \u{e9}", "1 !unreadable +prepared_statement +unreadable asks"),
            ("deallocate e", "1 name e"),
        ],
    );
    assert_eq!(reading(b"select '\xff\xfe' from \xe4\xf6", STANDARD), "1");
}

#[test]
fn names_are_read_as_the_server_reads_them() {
    let value = |token: &str| String::from_utf8(identifier_value(token.as_bytes()).into_owned()).unwrap();
    assert_eq!(value("abc"), "abc");
    assert_eq!(value("ABC\u{c4}$1"), "abc\u{c4}$1");
    assert_eq!(value("\"ABC\""), "ABC");
    assert_eq!(value("\"A\"\"B\"\"\""), "A\"B\"");
    assert_eq!(value(&"X".repeat(70)), "x".repeat(63));
    assert_eq!(value(&format!("\"{}\"", "X".repeat(70))), "X".repeat(63));
    assert_eq!(value(&"x".repeat(63)), "x".repeat(63));
    assert_eq!(value(&format!("{}\u{e9}", "x".repeat(62))), "x".repeat(62));
    assert_eq!(value(&format!("{}\u{20ac}", "x".repeat(61))), "x".repeat(61));
    assert_eq!(value(&format!("{}\u{20ac}", "x".repeat(60))), format!("{}\u{20ac}", "x".repeat(60)));
    assert_eq!(identifier_value(&[0x80; 70]), [0x80; 63].as_slice());
    assert_eq!(value(""), "");
    assert_eq!(value("\""), "\"");
}

#[test]
fn tokens() {
    let text = "a.\"b\"+1.5e-3;$1 E'x'\n'y'<=@--c";
    let mut lexer = Lexer::new(text.as_bytes(), STANDARD);
    let mut found = Vec::new();
    while let Some(token) = lexer.next() {
        found.push((token.kind, text.get(token.start..token.end).unwrap()));
        assert_eq!(lexer.bytes(token), text.get(token.start..token.end).unwrap().as_bytes());
    }
    let expected = [
        (Kind::Word, "a"),
        (Kind::Other, "."),
        (Kind::Quoted, "\"b\""),
        (Kind::Operator, "+"),
        (Kind::Number, "1.5e-3"),
        (Kind::Semicolon, ";"),
        (Kind::Parameter, "$1"),
        (Kind::Literal, "E'x'\n'y'"),
        (Kind::Operator, "<=@"),
    ];
    assert_eq!(found, expected);
}

/// Texts out of pieces that mean something, with or without blanks between them.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => proptest::sample::select(vec![
            "select", "SET", "x", "=", "1", ";", "(", ")", "local", "session", "transaction", "constraints", "reset",
            "prepare", "execute", "explain", "analyze", "as", "create", "or", "replace", "temp", "table", "into",
            "insert", "deallocate", "all", "discard", "declare", "with", "hold", "for", "listen", "do", "call", "load",
            "nextval", "lastval", "set_config", "pg_advisory_lock", "pg_temp_3", "dblink_x", "update", "pg_settings",
            "\"set_config\"", "\"a\"\"b\"", "U&\"a\"", "to", ".", ",", "$1", "1.5e3", "2E", "a$$b",
        ]).prop_map(|piece| piece.as_bytes().to_vec()),
        4 => proptest::sample::select(vec![
            "'", "''", "\"", "\\", "$", "$$", "$a$", "E'", "n'", "B'", "U&'", "u&", "--", "/*", "*/", "\n", "-", "*",
            "'a'", "E'a\\''", "'b\\'", "$$;$$", "$a$'$a$", "-- c\n", "/* ' */", "\u{e9}", "\0",
        ]).prop_map(|piece| piece.as_bytes().to_vec()),
        4 => Just(b" ".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn dialect() -> impl Strategy<Value = Dialect> {
    (any::<bool>(), any::<bool>()).prop_map(|(backslash_quotes, multibyte_unsafe)| Dialect {
        backslash_quotes,
        multibyte_unsafe,
        unsure: false,
    })
}

/// What is left when places in the text don't count.
fn placeless(statement: Statement, sql: &[u8]) -> (Statement, Vec<(Verb, Vec<u8>)>) {
    let name = |at: &Reference| (at.verb, identifier_value(sql.get(at.name.clone()).unwrap()).into_owned());
    let names = statement.references.iter().map(name).collect();
    (Statement { references: Vec::new(), ..statement }, names)
}

fn tokens_of(sql: &[u8], dialect: Dialect) -> Vec<Token> {
    Lexer::new(sql, dialect).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_can_be_read(sql in proptest::collection::vec(any::<u8>(), 0..200), dialect in dialect()) {
        classify(&sql, dialect);
        identifier_value(&sql);
    }

    #[test]
    fn tokens_and_blanks_cover_the_text(sql in text(), dialect in dialect()) {
        let end = sql.iter().position(|byte| *byte == 0).unwrap_or(sql.len());
        let mut at = 0;
        for token in tokens_of(&sql, dialect) {
            prop_assert!(at <= token.start && token.start < token.end && token.end <= end, "{token:?}");
            prop_assert!(tokens_of(sql.get(at..token.start).unwrap(), dialect).is_empty());
            prop_assert!(token.kind != Kind::Unterminated || token.end == end);
            at = token.end;
        }
        prop_assert!(tokens_of(sql.get(at..end).unwrap(), dialect).is_empty());
        for Reference { name, .. } in classify(&sql, dialect).references {
            prop_assert!(tokens_of(&sql, dialect).iter().any(|token| (token.start..token.end) == name));
        }
    }

    #[test]
    fn blanks_between_tokens_change_nothing(
        sql in text(),
        dialect in dialect(),
        blanks in proptest::collection::vec(proptest::sample::select(vec![" ", "/**/", "\t/* ' /* */ $$ */", "\n", " -- '\r", " --/*\n "]), 1..8),
    ) {
        let tokens = tokens_of(&sql, dialect);
        let mut spread = Vec::new();
        let mut last = Kind::Other;
        for (token, blank) in tokens.iter().zip(blanks.iter().cycle()) {
            // A newline would make one string of two.
            let is_string = matches!(token.kind, Kind::Literal | Kind::Unterminated);
            let blank = if last == Kind::Literal && is_string { " " } else { blank };
            spread.extend_from_slice(blank.as_bytes());
            spread.extend_from_slice(sql.get(token.start..token.end).unwrap());
            last = token.kind;
        }
        let kinds = |tokens: Vec<Token>| tokens.iter().map(|token| token.kind).collect::<Vec<_>>();
        prop_assert_eq!(kinds(tokens), kinds(tokens_of(&spread, dialect)));
        let dialect = Dialect { multibyte_unsafe: false, ..dialect };
        prop_assert_eq!(placeless(classify(&sql, dialect), &sql), placeless(classify(&spread, dialect), &spread));
    }

    #[test]
    fn case_of_words_changes_nothing(sql in text(), dialect in dialect(), flips in proptest::collection::vec(any::<bool>(), 1..16)) {
        let mut other = sql.clone();
        let mut flips = flips.iter().cycle();
        for token in tokens_of(&sql, dialect) {
            let len = match token.kind {
                Kind::Word => token.end - token.start,
                Kind::Literal | Kind::QuotedEscapes if sql.get(token.start) != Some(&b'$') => 1,
                _ => 0,
            };
            for byte in other.iter_mut().skip(token.start).take(len) {
                if flips.next() == Some(&true) && byte.is_ascii_alphabetic() {
                    *byte ^= 0x20;
                }
            }
        }
        prop_assert_eq!(tokens_of(&sql, dialect), tokens_of(&other, dialect));
        prop_assert_eq!(placeless(classify(&sql, dialect), &sql), placeless(classify(&other, dialect), &other));
    }

    #[test]
    fn texts_add_up(a in text(), b in text(), dialect in dialect()) {
        let (one, two) = (classify(&a, dialect), classify(&b, dialect));
        let both = [a.as_slice(), b"\n;", b.as_slice()].concat();
        let sum = classify(&both, dialect);
        let is_open = |sql: &[u8]| tokens_of(sql, dialect).iter().any(|token| token.kind == Kind::Unterminated);
        if is_open(&a) || a.contains(&b'(') || a.contains(&0) {
            return Ok(());
        }
        prop_assert_eq!(sum.statements, one.statements + two.statements);
        let sent = one.intent.pins_when_sent.and(two.intent.pins_when_sent);
        let done = one.intent.pins_when_done.and(two.intent.pins_when_done);
        prop_assert_eq!(sum.intent.pins_when_sent, sent);
        prop_assert!(done.without(sum.intent.pins_when_done).is_empty());
    }
}
