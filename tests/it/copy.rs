//! COPY FROM STDIN: errors on either side, Sync and Flush in the middle, clients that go away.

use crate::harness::Scenario;
use crate::harness::wire::{Script, batch, bind, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
const COPY: &str = "COPY t FROM STDIN";

fn scenario(name: &'static str) -> Scenario {
    Scenario::new(name).setup(TABLE).reset("TRUNCATE t").state("SELECT * FROM t ORDER BY id")
}

/// Parse, Bind and Execute of the COPY.
fn extended() -> Vec<u8> {
    batch([parse("", COPY), bind("", "", &[]), execute("", 0)])
}

#[test]
fn pg_086_copy_fails_while_the_client_still_streams() {
    let rest = || batch([copy_data("2\tb\n"), copy_data("3\tc\n"), copy_done()]);
    let script = Script::new()
        .send(query(COPY))
        .until(b'G', 1)
        .send(copy_data("not a number\tx\n"))
        .ready(1)
        // What the client still had under way.
        .send(batch([rest(), query("SELECT 1")]))
        .ready(1)
        // All in one go, the end one way and the other.
        .send(batch([query(COPY), copy_data("nor this\tx\n"), rest(), query("SELECT 2")]))
        .ready(2)
        .send(batch([query(COPY), copy_data("nor this\tx\n"), copy_fail("gave up"), query("SELECT 3")]))
        .ready(2)
        .send(batch([extended(), copy_data("nor this\tx\n"), rest(), sync(), query("SELECT 4")]))
        .ready(2);
    let shape = "GEZ TDCZ GEZ TDCZ GEZ TDCZ 12GEZ TDCZ .";
    scenario("pg_086_copy_fails_while_the_client_still_streams").shape(shape).errors(&["22P02"; 4]).check(script);
}

#[test]
fn pg_087_sync_inside_copy_is_ignored() {
    let rows = || batch([copy_data("1\ta\n"), copy_data("2\tb\n")]);
    let script = Script::new()
        // libpq sends the Sync at once, and another after CopyDone.
        .send(batch([extended(), sync()]))
        .until(b'G', 1)
        .send(batch([rows(), copy_done(), sync()]))
        .ready(1)
        .run("TRUNCATE t")
        .send(batch([extended(), sync(), rows(), copy_done(), sync(), query("SELECT 1")]))
        .ready(2)
        // It fails: the duplicate is found at the end.
        .send(batch([extended(), sync(), rows(), copy_done(), sync(), query("SELECT 2")]))
        .ready(2)
        .send(batch([extended(), sync(), copy_data("bad\n"), rows(), copy_done(), sync(), query("SELECT 3")]))
        .ready(2);
    let shape = "12G CZ CZ 12GCZ TDCZ 12GEZ TDCZ 12GEZ TDCZ .";
    scenario("pg_087_sync_inside_copy_is_ignored").shape(shape).errors(&["23505", "22P02"]).check(script);
}

#[test]
fn pg_088_copy_fail_and_clients_that_go_away() {
    let script = Script::new()
        .send(query(COPY))
        .until(b'G', 1)
        .send(batch([copy_data("1\ta\n"), copy_fail("no more paper")]))
        .ready(1)
        .send(batch([extended(), copy_data("1\ta\n"), copy_fail("no more ink"), sync()]))
        .ready(1)
        // In an explicit transaction it is aborted.
        .send(batch([query("BEGIN"), query(COPY), copy_fail("")]))
        .ready(2)
        .run("ROLLBACK")
        .client(1)
        .send(batch([query(COPY), copy_data("1\ta\n")]))
        .until(b'G', 1)
        .abort()
        .client(2)
        .send(batch([extended(), copy_data("1\ta\n2")]))
        .until(b'G', 1)
        .abort()
        .client(3)
        .run("SELECT 'one more client'");
    let shape = "GEZ 12GEZ CZ GEZ CZ .";
    scenario("pg_088_copy_fail_and_clients_that_go_away").shape(shape).errors(&["57014"; 3]).check(script);
}

#[test]
fn pg_089_copy_without_rows_and_with_pauses() {
    let script = Script::new()
        .send(query(COPY))
        .until(b'G', 1)
        .quiet()
        .client(1)
        .run("SELECT 'another client in between'")
        .client(0)
        .send(copy_done())
        .ready(1)
        .send(query(COPY))
        .until(b'G', 1)
        .quiet()
        .send(copy_data("1\ta"))
        .quiet()
        .send(copy_data("bc\n"))
        .quiet()
        .send(copy_done())
        .ready(1);
    scenario("pg_089_copy_without_rows_and_with_pauses").shape("GCZ GCZ .").check(script);
}

#[test]
fn pg_092_flush_inside_copy_is_ignored() {
    let script = Script::new()
        .send(query(COPY))
        .until(b'G', 1)
        .send(batch([copy_data("1\ta\n"), flush(), copy_data("2\tb\n"), flush(), copy_done()]))
        .ready(1)
        .send(batch([extended(), flush(), copy_data("3\tc\n"), flush(), copy_done(), flush()]))
        .until(b'C', 1)
        .send(sync())
        .ready(1);
    scenario("pg_092_flush_inside_copy_is_ignored").shape("GCZ 12GC Z .").check(script);
}

/// The server has read no more of it than its type, and gives the connection up.
#[test]
fn a_query_in_the_middle_of_copy_data() {
    let middle = |copy: Vec<u8>| {
        Script::new()
            .send(copy)
            .until(b'G', 1)
            .send(batch([copy_data("1\ta\n"), query("SELECT 1"), sync()]))
            .until_closed()
    };
    for (name, copy) in [("a_query_in_a_copy", query(COPY)), ("a_query_in_an_extended_copy", extended())] {
        scenario(name).errors(&["08P01", "08P01"]).check(middle(copy));
    }
}
