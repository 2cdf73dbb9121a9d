//! COPY, its data and its ends.

use super::*;

#[test]
fn copy_in_and_out() {
    check(&[
        client_passes([q("COPY a FROM STDIN")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([d("1"), h(), d("2"), c()], Owing),
        server_passes([tag("COPY 2"), z(b'I')], Idle),
        client_passes([q("COPY a TO STDOUT")], Owing),
        server_passes([copy_out(), d("1"), d("2"), c(), tag("COPY 2"), z(b'I')], Idle),
        client_passes([q("COPY a FROM STDIN")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([f()], Owing),
        server_passes([err("57014", "COPY from stdin failed"), z(b'I')], Idle),
    ]);
}

/// Scenario 86.
#[test]
fn copy_data_behind_an_error_is_late() {
    check(&[
        client_passes([q("COPY a FROM STDIN")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([d("1"), d("bad")], Owing),
        server_passes([err("22P04", "no"), z(b'I')], Idle),
        client_passes([d("3"), c()], Idle),
        client_passes([q("SELECT 1")], Owing),
        server_passes([tag("SELECT 0"), z(b'I')], Idle),
    ]);
}

/// Scenario 87.
#[test]
fn syncs_inside_copy_data_are_owed_nothing() {
    check(&[
        // Sent ahead of the server's word.
        client_passes([p("", "COPY"), b("", ""), e(""), s(), d("1"), s(), c(), s()], Owing),
        server_passes([pc(), bc(), copy_in(), tag("COPY 1")], Owing),
        server_passes([z(b'I')], Idle),
        // And behind it.
        client_passes([p("", "COPY"), b("", ""), e(""), s()], Owing),
        server_passes([pc(), bc(), copy_in()], Owing),
        client_passes([s(), d("1"), s(), c(), s()], Owing),
        server_passes([tag("COPY 1"), z(b'I')], Idle),
        // An error ends the data: the last Sync counts.
        client_passes([p("", "COPY"), b("", ""), e(""), s()], Owing),
        server_passes([pc(), bc(), copy_in()], Owing),
        client_passes([d("bad")], Owing),
        server_passes([err("22P04", "no")], InTransaction),
        client([d("1"), c()], [], InTransaction),
        client_passes([s()], Owing),
        server_passes([z(b'I')], Idle),
    ]);
}

/// Another request ends the data with an error: the Sync behind it counts.
#[test]
fn a_request_in_the_middle_of_copy_data() {
    check(&[
        client_passes([p("", "COPY"), b("", ""), e(""), h()], Owing),
        server_passes([pc(), bc(), copy_in()], Owing),
        client_passes([d("1"), s(), b("", ""), s()], Owing),
        server_passes([err("08P01", "unexpected message type 0x42 during COPY from stdin"), z(b'I')], Idle),
    ]);
}

#[test]
fn a_copy_that_never_began() {
    check(&[
        client_passes([p("", "COPY"), b("", ""), e(""), s(), d("1"), c(), s(), q("A")], Owing),
        server_passes([err("42601", "no"), z(b'I')], Owing),
        server_passes([z(b'I'), tag("A"), z(b'I')], Idle),
    ]);
}

/// A Sync in the middle of COPY data is read over: what is owed behind the data comes only when it is asked for.
#[test]
fn a_wait_behind_copy_data() {
    let copy = || [p(&name("COPY"), "COPY"), b("", &name("COPY")), e(""), s()].concat();
    let behind = || [b("", &name("COPY")), e(""), s()].concat();
    // All of it before the server is seen to ask for data.
    check(&[
        client(
            [p("a", "COPY"), b("", "a"), e(""), s(), d("1"), c(), b("", "a"), e(""), s()],
            [copy(), d("1"), c(), h()],
            Owing,
        ),
        server_passes([pc(), bc(), copy_in(), tag("COPY 1")], InTransaction),
        client([], [behind()], Owing),
        server_passes([bc(), copy_in()], Owing),
        client_passes([d("2"), c(), s()], Owing),
        server_passes([tag("COPY 1"), z(b'I')], Idle),
    ]);
}

#[test]
fn two_copies_in_one_query() {
    let answers = || [copy_in(), tag("COPY 1"), copy_in(), tag("COPY 0"), z(b'I')];
    check(&[
        client_passes([q("COPY a; COPY b")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([d("1"), c()], Owing),
        server_passes([tag("COPY 1"), copy_in()], Owing),
        client_passes([c()], Owing),
        server_passes([tag("COPY 0"), z(b'I')], Idle),
        // Both ended before the server was seen to ask for either; a Sync behind them.
        client_passes([q("COPY a; COPY b"), d("1"), c(), c(), s()], Owing),
        server_passes(answers(), Owing),
        server_passes([z(b'I')], Idle),
        // And two queries.
        client_passes([q("COPY a"), d("1"), c(), q("COPY b"), c()], Owing),
        server_passes([copy_in(), tag("COPY 1"), z(b'I')], Owing),
        server_passes([copy_in(), tag("COPY 0"), z(b'I')], Idle),
    ]);
}

#[test]
fn ends_of_copy_data_without_end_do_not_pile_up() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("A")).unwrap();
    bench.say(&Side::Client, &c().repeat(100_000)).unwrap();
    assert!(bench.server.owed.len() <= owed::OWED_MAX);
    bench.say(&Side::Server, &[tag("A"), z(b'I')].concat()).unwrap();
    bench.say(&Side::Client, b"").unwrap();
    assert_eq!(bench.server.status(), Idle);
}
