//! Pipelines: what is owed, skipped, hidden and passed on.

use super::*;

#[test]
fn simple_queries_pass() {
    check(&[
        client_passes([q("SELECT 1")], Owing),
        server_passes([t(), row("1"), tag("SELECT 1")], Owing),
        server_passes([z(b'I')], Idle),
        client_passes([q("BEGIN"), q("SELECT 2")], Owing),
        server_passes([tag("BEGIN"), z(b'T')], Owing),
        server_passes([t(), tag("SELECT 0"), z(b'T')], InTransaction),
        client_passes([q("COMMIT")], Owing),
        server_passes([tag("COMMIT"), z(b'I')], Idle),
    ]);
}

/// Scenario 1.
#[test]
fn an_error_in_the_middle_of_a_pipeline_takes_the_rest_with_it() {
    let run = |text: &str| [p(&name(text), text), b("", &name(text)), e("")].concat();
    let mut bench = check(&[
        client(
            [p("a", "A"), b("", "a"), e(""), p("b", "B"), b("", "b"), e(""), p("c", "C"), b("", "c"), e(""), s()],
            [run("A"), run("B"), run("C"), s()],
            Owing,
        ),
        server_passes([pc(), bc(), tag("SELECT 0"), err("42601", "no")], Owing),
        server_passes([z(b'I')], Idle),
    ]);
    let known = |bench: &Bench, name: &[u8]| bench.client.statements.find(name).is_some();
    assert!(known(&bench, b"a") && !known(&bench, b"b") && !known(&bench, b"c"));
    assert_eq!(bench.server.prepared.len(), 1);
    // The names are free.
    bench.play(&prepares("b", "B2"), usize::MAX);
    bench.play(&prepares("c", "C"), usize::MAX);
}

/// Scenario 2.
#[test]
fn a_query_inside_an_extended_pipeline_is_skipped_with_it() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [b("", "a"), e(""), q("RELEASE SAVEPOINT x")],
                [b("", &name("A")), e(""), q("RELEASE SAVEPOINT x")],
                Owing,
            ),
            server_passes([bc(), err("22012", "no")], InTransaction),
            // Read over, not sent.
            client([q("SELECT 2"), b("", "a"), h()], [], InTransaction),
            client_passes([s()], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
}

/// Scenario 3.
#[test]
fn a_query_that_fails_inside_an_extended_pipeline_takes_nothing_with_it() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [b("", "a"), e(""), q("X"), q("Y"), q("Z"), s()],
                [b("", &name("A")), e(""), q("X"), q("Y"), q("Z"), s()],
                Owing,
            ),
            server_passes([bc(), tag("SELECT 0"), err("42P01", "x"), z(b'E')], Owing),
            server_passes([err("25P02", "y"), z(b'E')], Owing),
            server_passes([err("25P02", "z"), z(b'E')], Owing),
            server_passes([z(b'E')], InTransaction),
        ],
    );
}

/// Scenario 4.
#[test]
fn three_pipelined_transactions_are_held_to_the_third_answer() {
    let one = || [b("", "a"), e(""), s()].concat();
    let sent = || [b("", &name("A")), e(""), s()].concat();
    let answer = || [bc(), tag("SELECT 0"), z(b'I')].concat();
    check_on(
        || prepared("a", "A"),
        &[
            client([one(), one(), one()], [sent(), sent(), sent()], Owing),
            server_passes([answer()], Owing),
            server_passes([answer()], Owing),
            server_passes([bc(), tag("SELECT 0")], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
}

/// Scenarios 5 and 10: never a Sync of the proxy's own, and the connection stays until the client's.
#[test]
fn a_flush_is_no_end() {
    check(&[
        client([p("a", "A"), ds("a"), h()], [p(&name("A"), "A"), ds(&name("A")), h()], Owing),
        server_passes([pc(), pd(), t()], InTransaction),
        client([b("", "a"), e(""), h()], [b("", &name("A")), e(""), h()], Owing),
        server_passes([bc(), row("1"), tag("SELECT 1")], InTransaction),
        client_passes([s()], Owing),
        server_passes([z(b'I')], Idle),
    ]);
}

/// Scenario 6 and 7.
#[test]
fn portals_pass_as_they_are() {
    check_on(
        || prepared("a", "A"),
        &[
            client([b("c", "a"), e_max("c", 2), h()], [b("c", &name("A")), e_max("c", 2), h()], Owing),
            server_passes([bc(), row("1"), row("2"), suspended()], InTransaction),
            client_passes([e_max("c", 2), dp("c"), e("c"), cp("c"), s()], Owing),
            server_passes([row("3"), tag("SELECT 1"), t(), tag("SELECT 0"), cc(), z(b'I')], Idle),
        ],
    );
}

/// Scenario 32.
#[test]
fn closing_a_portal_leaves_the_statement_of_that_name() {
    let bench =
        check_on(|| prepared("x", "A"), &[client_passes([cp("x"), s()], Owing), server_passes([cc(), z(b'I')], Idle)]);
    assert!(bench.client.statements.find(b"x").is_some());
}

/// Scenario 13: a deferred constraint fails at the Sync.
#[test]
fn an_error_at_the_sync_belongs_to_the_sync() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [b("", "a"), e(""), s(), b("", "a"), e(""), s()],
                [b("", &name("A")), e(""), s(), b("", &name("A")), e(""), s()],
                Owing,
            ),
            server_passes([bc(), tag("INSERT 0 1"), err("23503", "deferred"), z(b'I')], Owing),
            server_passes([bc(), tag("INSERT 0 1"), z(b'I')], Idle),
        ],
    );
}

#[test]
fn after_an_error_without_a_sync_everything_is_read_over() {
    check(&[
        client_passes([p("", "A"), h()], Owing),
        server_passes([err("42601", "no")], InTransaction),
        client(
            [p("a", "A"), b("", "a"), e(""), d("x"), c(), f(), function(1), h(), cs("a"), ds("a")],
            [],
            InTransaction,
        ),
        client_passes([s()], Owing),
        server_passes([z(b'I')], Idle),
        client([b("", "a"), s()], [b("", "a"), s()], Owing),
        server_passes([err("26000", "prepared statement \"a\" does not exist"), z(b'I')], Idle),
    ]);
}

/// Scenario 17.
#[test]
fn empty_queries() {
    check(&[
        client_passes([q("")], Owing),
        server_passes([empty(), z(b'I')], Idle),
        client_passes([p("", ""), b("", ""), e(""), s()], Owing),
        server_passes([pc(), bc(), empty(), z(b'I')], Idle),
    ]);
}

/// Scenario 18. A large object's function leaves nothing behind; any other may.
#[test]
fn function_calls() {
    let bench = check(&[
        client_passes([function(952)], Owing),
        server_passes([v(&"large".repeat(1000)), z(b'I')], Idle),
        client_passes([function(952), function(953)], Owing),
        server_passes([err("22023", "no"), z(b'I'), v("x"), z(b'I')], Idle),
    ]);
    assert_eq!(bench.client.pins, Pins::NONE);
    let bench = check(&[client_passes([function(1)], Owing), server_passes([v("x"), z(b'I')], Idle)]);
    assert_eq!(bench.client.pins, Pins::of(PinReason::OpaqueCode));
}

/// Scenario 11.
#[test]
fn a_fatal_error_ends_the_connection_with_its_words() {
    let last = || fatal("57P01", "terminating connection due to administrator command");
    check_on(
        || prepared("a", "A"),
        &[
            client([b("", "a"), e(""), s(), q("B")], [b("", &name("A")), e(""), s(), q("B")], Owing),
            server_passes([bc(), last()], Ended),
            server([z(b'I')], [], Ended),
        ],
    );
    check(&[server_passes([last()], Ended)]);
}

/// Scenarios 19 and 20.
#[test]
fn notices_and_reports_count_for_nothing() {
    let bench = check_on(
        || prepared("a", "A"),
        &[
            server_passes([notice("idle"), status("TimeZone", "UTC")], Idle),
            client([b("", "a"), e(""), s()], [b("", &name("A")), e(""), s()], Owing),
            server_passes([notice("one"), bc(), notice("two"), status("TimeZone", "Asia/Tokyo")], Owing),
            server_passes([tag("SET"), status("DateStyle", "ISO"), status("is_superuser", "on"), z(b'I')], Idle),
            server([notification("stranger's")], [], Idle),
        ],
    );
    assert_eq!(bench.server.reported.parameters.get("TimeZone").map(String::as_str), Some("Asia/Tokyo"));
    assert_eq!(bench.client.told.parameters, bench.server.reported.parameters);
}

#[test]
fn notifications_go_to_one_who_listens() {
    let bench = check(&[
        client_passes([q("LISTEN a")], Owing),
        server_passes([tag("LISTEN"), z(b'I')], Idle),
        server_passes([notification("a")], Idle),
    ]);
    assert!(bench.client.pins.contains(PinReason::Listen));
    // While the server is asked what is left on the connection, too.
    let mut bench = bench;
    let mut asked = Vec::new();
    assert!(bench.server.verify(&bench.client, &mut asked));
    let answer = [row("listen"), tag("SELECT 1"), z(b'I')].concat();
    bench.play(
        &[
            server([notification("a"), pc(), bc(), notification("b")], [notification("a"), notification("b")], Owing),
            server([answer], [], Idle),
        ],
        usize::MAX,
    );
    assert!(bench.client.pins.contains(PinReason::Listen));
}

#[test]
fn nobody_attached_nothing_passed_on() {
    let mut bench = Bench::new();
    let mut out = Out::new();
    let said = [notice("x"), status("TimeZone", "UTC"), notification("a")].concat();
    assert_eq!(bench.server.receive(&said, None, &mut out), Ok(said.len()));
    assert!(out.is_empty());
    // Told at the next hand-out.
    assert_eq!(bench.attach(), (vec![], status("TimeZone", "UTC")));
    assert_eq!(bench.attach(), (vec![], vec![]));
}

#[test]
fn replies_nobody_asked_for_are_breaches() {
    let unasked = [row("1"), t(), n(), pd(), pc(), bc(), cc(), z(b'I'), tag("SELECT 1"), empty(), suspended(), v("x")];
    for reply in unasked.iter().chain(&[copy_in(), copy_out(), err("22012", "x"), raw(b'W', b"\0\0\0"), raw(b'!', b"")])
    {
        let mut bench = Bench::new();
        let expected = Violation::UnexpectedReply(reply[0]);
        assert_eq!(bench.say(&Side::Server, reply), Err(expected), "{:?}", show(reply));
    }
}

#[test]
fn frames_no_client_may_send_are_breaches() {
    for kind in (0..=255u8).filter(|kind| !b"QPBEDCSHFdcfX".contains(kind)) {
        assert_eq!(Bench::new().say(&Side::Client, &raw(kind, b"")), Err(Violation::UnexpectedFrame(kind)));
    }
    let malformed = [
        raw(b'P', b"no end"),
        raw(b'P', b"a\0no end"),
        raw(b'B', b"a\0b"),
        raw(b'D', b""),
        raw(b'C', b"Sx"),
        // The server would answer this with an error that nothing owed explains.
        raw(b'H', b"x"),
    ];
    for frame in malformed {
        assert_eq!(Bench::new().say(&Side::Client, &frame), Err(Violation::MalformedFrame(frame[0])));
    }
    for head in [b"Q\0\0\0\x03", b"S\xff\xff\xff\xff", b"P\0\0\0\0"] {
        assert_eq!(Bench::new().say(&Side::Client, head), Err(Violation::InvalidLength));
        assert_eq!(Bench::new().say(&Side::Server, head), Err(Violation::InvalidLength));
    }
}

#[test]
fn goodbye_is_not_passed_on() {
    let bench = check(&[client([q("A"), x(), q("B")], [q("A")], Owing), server_passes([tag("A"), z(b'I')], Idle)]);
    assert!(bench.client.ended);
    assert_eq!(bench.client_tail, [x(), q("B")].concat());
}
