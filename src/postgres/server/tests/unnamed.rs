//! The unnamed statement: put back on other connections, waited for where its fate is open, nobody else's.

use super::*;

/// Scenario 43.
#[test]
fn on_another_connection_the_unnamed_statement_is_prepared_again() {
    let unnamed = || {
        let mut bench = Bench::new();
        bench.play(
            &[client_passes([p("", "A"), ds(""), s()], Owing), server_passes([pc(), pd(), n(), z(b'I')], Idle)],
            usize::MAX,
        );
        bench
    };
    let again = [
        client([b("", ""), e(""), s()], [p("", "A"), b("", ""), e(""), s()], Owing),
        server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
        client_passes([b("", ""), e(""), s()], Owing),
        server_passes([bc(), tag("A"), z(b'I')], Idle),
    ];
    let moved = || {
        let mut bench = unnamed();
        bench.move_to(server_with(100));
        bench
    };
    check_on(moved, &again);
    // A stranger used the connection in between.
    let shared = || {
        let mut bench = unnamed();
        let first = bench.hand_to(client_with(2, &[]));
        let steps = [client_passes([p("", "B"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.hand_to(first);
        bench
    };
    check_on(shared, &again);
    // It stayed.
    check_on(unnamed, &again[2..]);
}

/// Nobody gets a stranger's unnamed statement.
#[test]
fn without_an_unnamed_statement_of_its_own_a_client_has_none() {
    let gone = || err("26000", "unnamed prepared statement does not exist");
    let strangers = || {
        let mut bench = Bench::new();
        let steps = [client_passes([p("", "B"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.hand_to(client_with(2, &[]));
        bench
    };
    let refused = || {
        [
            client([b("", ""), s()], [cs(""), b("", ""), s()], Owing),
            server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
        ]
    };
    check_on(strangers, &refused());
    // One that failed, one that a query dropped, one that was closed.
    let [sent, answered] = refused();
    let failed = [client_passes([p("", "BAD"), s()], Owing), server_passes([err("42601", "no"), z(b'I')], Idle)];
    check(&failed.into_iter().chain([sent, answered]).collect::<Vec<_>>());
    let [sent, answered] = refused();
    let query =
        [client_passes([p("", "A"), s(), q("B")], Owing), server_passes([pc(), z(b'I'), tag("B"), z(b'I')], Idle)];
    check(&query.into_iter().chain([sent, answered]).collect::<Vec<_>>());
    let [sent, answered] = refused();
    let closed =
        [client_passes([p("", "A"), s(), cs(""), s()], Owing), server_passes([pc(), z(b'I'), cc(), z(b'I')], Idle)];
    check(&closed.into_iter().chain([sent, answered]).collect::<Vec<_>>());
}

/// Whether the unnamed statement was made, or dropped, is waited for where it is asked for.
#[test]
fn an_unnamed_statement_whose_fate_is_open_is_waited_for() {
    let gone = || err("26000", "unnamed prepared statement does not exist");
    let strangers = || {
        let mut bench = Bench::new();
        let steps = [client_passes([p("", "stranger's"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.hand_to(client_with(2, &[]));
        bench
    };
    check_on(
        strangers,
        &[
            client([b("", "no"), p("", "A"), s(), b("", ""), s()], [b("", "no"), p("", "A"), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([], [cs(""), b("", ""), s()], Owing),
            server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
        ],
    );
    check(&[
        client_passes([p("", "A"), s()], Owing),
        server_passes([pc(), z(b'I')], Idle),
        client([q("B"), b("", ""), s()], [q("B")], Owing),
        server_passes([tag("B"), z(b'I')], Idle),
        client([], [cs(""), b("", ""), s()], Owing),
        server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
        client([p("", "A"), cs(""), b("", ""), s()], [p("", "A"), cs(""), cs(""), b("", ""), s()], Owing),
        server([pc(), cc(), cc(), gone(), z(b'I')], [pc(), cc(), gone(), z(b'I')], Idle),
    ]);
}

/// One that was sent behind it and then skipped leaves it as it was, wherever the client goes on.
#[test]
fn an_unnamed_statement_outlives_those_that_were_skipped() {
    let both = || {
        [
            client_passes([p("", "A"), s(), ds("x"), p("", "B"), p("", "C"), s()], Owing),
            server_passes([pc(), z(b'I'), err("26000", "no"), z(b'I')], Idle),
        ]
    };
    let again = || {
        [
            client([b("", ""), e(""), s()], [p("", "A"), b("", ""), e(""), s()], Owing),
            server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
        ]
    };
    check(&both().into_iter().chain(again()).collect::<Vec<_>>());
    let moved = || {
        let mut bench = Bench::new();
        bench.play(&both(), usize::MAX);
        bench.move_to(server_with(100));
        bench
    };
    check_on(moved, &again());
    // One that fails takes those before it along.
    let gone = || err("26000", "unnamed prepared statement does not exist");
    check(&[
        client_passes([p("", "A"), s(), p("", "BAD"), p("", "C"), s()], Owing),
        server_passes([pc(), z(b'I'), err("42601", "no"), z(b'I')], Idle),
        client([b("", ""), s()], [cs(""), b("", ""), s()], Owing),
        server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
    ]);
}

/// Put back on another connection, it may be skipped as well: what is there then is a stranger's.
#[test]
fn an_unnamed_statement_that_is_being_put_back_is_waited_for() {
    let moved = || {
        let mut bench = Bench::new();
        bench.play(&[client_passes([p("", "A"), s()], Owing), server_passes([pc(), z(b'I')], Idle)], usize::MAX);
        bench.move_to(server_with(100));
        bench
    };
    check_on(
        moved,
        &[
            client([ds("x"), b("", ""), e(""), s(), ds(""), s()], [ds("x"), p("", "A"), b("", ""), e(""), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([], [p("", "A"), ds(""), s()], Owing),
            server([pc(), pd(), n(), z(b'I')], [pd(), n(), z(b'I')], Idle),
        ],
    );
    // Where nothing is skipped the wait is all there is.
    check_on(
        moved,
        &[
            client([b("", ""), e(""), s(), ds(""), s()], [p("", "A"), b("", ""), e(""), s()], Owing),
            server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
            client([], [ds(""), s()], Owing),
        ],
    );
}

/// An error of an earlier request does not make the proxy forget what a later one has bound.
#[test]
fn what_is_bound_outlives_the_errors_before_it() {
    let bound = [p("", "DISCARD ALL"), b("", "")];
    let held = || client([e(""), s(), q("A")], [e(""), h()], Owing);
    check(&[
        client_passes([q("BAD"), bound.concat()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Owing),
        held(),
    ]);
    check(&[
        client_passes([p("", "BAD"), s(), bound.concat()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Owing),
        held(),
    ]);
}

/// What the proxy prepares once more for a client fails as the client's own request would, also while more is held back.
#[test]
fn what_can_not_be_put_back_is_the_clients_error() {
    let moved = || {
        let mut bench = Bench::new();
        let steps = [client_passes([p("", "DISCARD ALL"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.move_to(server_with(100));
        bench
    };
    check_on(
        moved,
        &[
            client([b("", ""), e(""), s()], [p("", "DISCARD ALL"), b("", ""), e(""), h()], Owing),
            server_passes([err("25P02", "no")], InTransaction),
            client([], [s()], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
}

/// As many as may be in flight are kept; the next one waits.
#[test]
fn unnamed_statements_in_flight_are_bounded() {
    let large = "x".repeat(200 << 10);
    let all = [p("", &large), s(), p("", &large), s(), p("", "C"), s()].concat();
    let (first, rest) = all.split_at(p("", &large).len() * 2 + 2 * s().len());
    check(&[
        client([all.clone()], [first.to_vec()], Owing),
        server_passes([pc(), z(b'I'), pc(), z(b'I')], Idle),
        client([], [rest.to_vec()], Owing),
        server_passes([pc(), z(b'I')], Idle),
    ]);
}
