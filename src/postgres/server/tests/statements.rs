//! Prepared statements under names of the proxy's own.

use super::*;

#[test]
fn names_are_the_proxys_own_and_errors_show_the_clients() {
    check_on(
        || prepared("a", "A"),
        &[
            client([ds("a"), b("", "a"), s()], [ds(&name("A")), b("", &name("A")), s()], Owing),
            server(
                [pd(), n(), err("26000", &format!("prepared statement \"{}\" does not exist", name("A"))), z(b'I')],
                [pd(), n(), err("26000", "prepared statement \"a\" does not exist"), z(b'I')],
                Idle,
            ),
        ],
    );
}

/// Scenarios 26 and 25.
#[test]
fn a_taken_name_and_unknown_names() {
    let taken = |name: &str| err("42P05", &format!("prepared statement \"{name}\" already exists"));
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [p("a", "B"), s()],
                [cs(&taken_for("a")), p(&taken_for("a"), ""), p(&taken_for("a"), "B"), s()],
                Owing,
            ),
            server([cc(), pc(), taken(&taken_for("a")), z(b'I')], [taken("a"), z(b'I')], Idle),
            client([b("", "a"), s()], [b("", &name("A")), s()], Owing),
            server_passes([bc(), z(b'I')], Idle),
            client_passes([b("", "b"), e(""), s()], Owing),
            server_passes([err("26000", "prepared statement \"b\" does not exist"), z(b'I')], Idle),
            client_passes([ds("b"), s()], Owing),
            server_passes([err("26000", "prepared statement \"b\" does not exist"), z(b'I')], Idle),
            // 31
            client_passes([cs("b"), s()], Owing),
            server_passes([cc(), z(b'I')], Idle),
        ],
    );
}

/// What is taken on the server for a name that is.
fn taken_for(name: &str) -> String {
    String::from_utf8(super::names::stand_in_for(name.as_bytes())).unwrap()
}

/// Two names of one client for one statement: the error says which it was.
#[test]
fn the_taken_name_in_an_error_is_the_one_that_was_sent() {
    let taken = |name: &str| err("42P05", &format!("prepared statement \"{name}\" already exists"));
    for turn in 0..8 {
        let mut steps = prepares("first", "A").into_iter().collect::<Vec<_>>();
        let names = ["second", "third"];
        for name in names {
            steps.push(client([p(name, "A"), s()], [cs(stand_in()), s()], Owing));
            steps.push(server([cc(), z(b'I')], [pc(), z(b'I')], Idle));
        }
        let sent = ["first", "second", "third"][turn % 3];
        let ours = taken_for(sent);
        steps.push(client([p(sent, "B"), s()], [cs(&ours), p(&ours, ""), p(&ours, "B"), s()], Owing));
        steps.push(server([cc(), pc(), taken(&ours), z(b'I')], [taken(sent), z(b'I')], Idle));
        check(&steps);
    }
}

/// Scenario 27.
#[test]
fn a_statement_that_failed_is_parsed_anew() {
    check(&[
        client([p("a", "BAD"), s()], [p(&name("BAD"), "BAD"), s()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Idle),
        client([p("a", "A"), b("", "a"), s()], [p(&name("A"), "A"), b("", &name("A")), s()], Owing),
        server_passes([pc(), bc(), z(b'I')], Idle),
    ]);
}

/// Scenario 30.
#[test]
fn a_name_closed_and_used_again_in_one_segment() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [cs("a"), p("a", "B"), b("", "a"), e(""), s()],
                [cs("a"), p(&name("B"), "B"), b("", &name("B")), e(""), s()],
                Owing,
            ),
            server_passes([cc(), pc(), bc(), tag("B"), z(b'I')], Idle),
        ],
    );
}

#[test]
fn a_known_statement_is_not_parsed_again() {
    let bench = check_on(
        || {
            let mut bench = prepared("a", "A");
            bench.hand_to(client_with(2, &[]));
            bench
        },
        &[
            client(
                [p("mine", "A"), ds("mine"), b("", "mine"), e(""), s()],
                [cs(stand_in()), ds(&name("A")), b("", &name("A")), e(""), s()],
                Owing,
            ),
            server([cc(), pd(), n(), bc()], [pc(), pd(), n(), bc()], Owing),
            server_passes([tag("A"), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 1);
}

/// In a failed transaction PostgreSQL refuses a Parse: so must a known statement's be.
#[test]
fn a_known_statement_in_a_failed_transaction() {
    let aborted = || err("25P02", "current transaction is aborted");
    let bench = check_on(
        || prepared("a", "A"),
        &[
            client_passes([q("BEGIN"), q("ERROR")], Owing),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], InTransaction),
            client([p("b", "A"), s()], [cs(&name("A")), p(&name("A"), "A"), s()], Owing),
            server([cc(), aborted(), z(b'E')], [aborted(), z(b'E')], InTransaction),
        ],
    );
    assert!(bench.client.statements.find(b"b").is_none());
    assert!(bench.server.prepared.is_empty());
    // The same, not knowing yet that it failed.
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [q("BEGIN"), q("ERROR"), p("b", "A"), s()],
                [q("BEGIN"), q("ERROR"), cs(&name("A")), p(&name("A"), "A"), s()],
                Owing,
            ),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], Owing),
            server([cc(), aborted(), z(b'E')], [aborted(), z(b'E')], InTransaction),
        ],
    );
}

/// The replies to what the proxy prepares again stay hidden.
#[test]
fn on_another_connection_a_statement_is_prepared_again() {
    let moved = || {
        let mut bench = prepared("a", "A");
        bench.move_to(server_with(100));
        bench
    };
    let bench = check_on(
        moved,
        &[
            client([b("", "a"), e(""), s()], [p(&name("A"), "A"), b("", &name("A")), e(""), s()], Owing),
            server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
            client([ds("a"), s()], [ds(&name("A")), s()], Owing),
            server_passes([pd(), n(), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 1);
    // Its table is gone meanwhile: the error stands where the Bind stood.
    let bench = check_on(
        moved,
        &[
            client([b("", "a"), e(""), s()], [p(&name("A"), "A"), b("", &name("A")), e(""), s()], Owing),
            server_passes([err("42P01", "no table"), z(b'I')], Idle),
        ],
    );
    assert!(bench.server.prepared.is_empty());
}

/// A name that was sent but may yet fail: a later segment waits for the answer.
#[test]
fn a_name_whose_fate_is_open_is_waited_for() {
    let held = || client([p("a", "A"), s(), b("", "a"), e(""), s()], [p(&name("A"), "A"), s()], Owing);
    check(&[
        held(),
        server_passes([pc(), z(b'I')], Idle),
        client([], [b("", &name("A")), e(""), s()], Owing),
        server_passes([bc(), tag("A"), z(b'I')], Idle),
    ]);
    check(&[
        held(),
        server_passes([err("42601", "no"), z(b'I')], Idle),
        client([], [b("", "a"), e(""), s()], Owing),
        server_passes([err("26000", "prepared statement \"a\" does not exist"), z(b'I')], Idle),
    ]);
    // What was sent of the later segment is flushed, so that its replies come.
    check(&[
        client(
            [p("a", "A"), s(), p("b", "B"), b("", "a"), s()],
            [p(&name("A"), "A"), s(), p(&name("B"), "B"), h()],
            Owing,
        ),
        server_passes([pc(), z(b'I'), pc()], InTransaction),
        client([], [b("", &name("A")), s()], Owing),
        server_passes([bc(), z(b'I')], Idle),
    ]);
    // A name in another segment whose fate is open, taken again.
    check(&[
        client([p("a", "BAD"), s(), p("a", "A"), s()], [p(&name("BAD"), "BAD"), s()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Idle),
        client([], [p(&name("A"), "A"), s()], Owing),
        server_passes([pc(), z(b'I')], Idle),
    ]);
}

/// A client may use names of the proxy's form; they never meet one of the proxy's.
#[test]
fn names_in_the_proxys_own_form() {
    let (theirs, ours) = (name("A"), name("B"));
    let foreign = || {
        let mut bench = prepared("a", "A");
        bench.hand_to(client_with(2, &[]));
        bench
    };
    check_on(
        foreign,
        &[
            client([b("", &theirs), s()], [b("", &format!("_{theirs}")), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([ds(&theirs), s()], [ds(&format!("_{theirs}")), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([cs(&theirs), cs("sg_"), s()], [cs(stand_in()), cs(stand_in()), s()], Owing),
            server_passes([cc(), cc(), z(b'I')], Idle),
            client([p(&theirs, "B"), b("", &theirs), s()], [p(&ours, "B"), b("", &ours), s()], Owing),
            server_passes([pc(), bc(), z(b'I')], Idle),
        ],
    );
    // One that lives on the connection.
    let large = raw(b'P', &[theirs.as_bytes(), b"\0", &vec![b' '; 1 << 20], b"\0\0\0"].concat());
    let sent = raw(b'P', &[b"_", theirs.as_bytes(), b"\0", &vec![b' '; 1 << 20], b"\0\0\0"].concat());
    let other = format!("_{theirs}");
    let mut bench = foreign();
    bench.play(
        &[
            client([large, s()], [sent, s()], Owing),
            server_passes([pc(), z(b'I')], Idle),
            client([b("", &theirs), ds(&theirs), s()], [b("", &other), ds(&other), s()], Owing),
            server_passes([bc(), pd(), n(), z(b'I')], Idle),
            client([p(&theirs, "C"), s()], [p(&other, "C"), s()], Owing),
            server_passes([err("42P05", "no"), z(b'I')], Idle),
            client([cs(&theirs), s()], [cs(&other), s()], Owing),
            server_passes([cc(), z(b'I')], Idle),
        ],
        usize::MAX,
    );
}

/// Scenario 34.
#[test]
fn deallocate_drops_a_stand_in() {
    let drops = |text: &str| {
        let stand_in = String::from_utf8(super::names::stand_in_for(b"a")).unwrap();
        let stand_in = || stand_in.as_str();
        let sent = format!("DEALLOCATE \"{}\"", stand_in());
        let steps = [
            client([q(text)], [cs(stand_in()), p(stand_in(), ""), s(), q(&sent)], Owing),
            server([cc(), pc(), z(b'I'), tag("DEALLOCATE"), z(b'I')], [tag("DEALLOCATE"), z(b'I')], Idle),
            client_passes([b("", "a"), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
        ];
        let bench = check_on(|| prepared("a", "A"), &steps);
        assert_eq!(bench.client.pins, Pins::NONE);
        assert_eq!(bench.server.prepared.len(), 1);
    };
    drops("DEALLOCATE a");
    drops("DEALLOCATE A");
    drops("DEALLOCATE \"a\"");
    // It fails: the name stays.
    let stand_in = String::from_utf8(super::names::stand_in_for(b"a")).unwrap();
    let stand_in = || stand_in.as_str();
    let sent = format!("DEALLOCATE \"{}\"", stand_in());
    check_on(
        || prepared("a", "A"),
        &[
            client_passes([q("BEGIN"), q("ERROR")], Owing),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], InTransaction),
            client([q("DEALLOCATE a")], [cs(stand_in()), p(stand_in(), ""), s(), q(&sent)], Owing),
            server([cc(), pc(), z(b'E'), err("25P02", "x"), z(b'E')], [err("25P02", "x"), z(b'E')], InTransaction),
            client_passes([q("ROLLBACK")], Owing),
            server_passes([tag("ROLLBACK"), z(b'I')], Idle),
            client([b("", "a"), s()], [b("", &name("A")), s()], Owing),
            server_passes([bc(), z(b'I')], Idle),
        ],
    );
    // By Parse, Bind, Execute.
    let with_name = |text: &str| p(text, &sent);
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [p("", "DEALLOCATE a"), b("", ""), e(""), s()],
                [with_name(""), cs(stand_in()), p(stand_in(), ""), b("", ""), e(""), s()],
                Owing,
            ),
            server(
                [pc(), cc(), pc(), bc(), tag("DEALLOCATE"), z(b'I')],
                [pc(), bc(), tag("DEALLOCATE"), z(b'I')],
                Idle,
            ),
            client_passes([b("", "a"), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
        ],
    );
    // Of a name that the proxy does not know.
    let bench = check(&[client_passes([q("DEALLOCATE b")], Owing), server_passes([err("26000", "no"), z(b'I')], Idle)]);
    assert_eq!(bench.client.pins, Pins::NONE);
}

/// A DEALLOCATE inside an extended pipeline is skipped with it: no Sync of the proxy's own may stand before it.
#[test]
fn deallocate_inside_an_extended_pipeline() {
    let stand_in = String::from_utf8(super::names::stand_in_for(b"a")).unwrap();
    let stand_in = || stand_in.as_str();
    let sent = format!("DEALLOCATE \"{}\"", stand_in());
    // Whether the query is reached at all only the replies to what is before it tell.
    let start = || client([b("", "a"), e(""), q("DEALLOCATE a"), s()], [b("", &name("A")), e(""), h()], Owing);
    // They are asked for: the session does not take the wait for an idle transaction's.
    let asked = check_on(|| prepared("a", "A"), &[start()]);
    assert!(asked.server.needs_client() && !asked.server.awaits_client());
    let bench = check_on(
        || prepared("a", "A"),
        &[
            start(),
            server_passes([bc(), err("22012", "x")], InTransaction),
            client([], [s()], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
    assert!(bench.client.statements.find(b"a").is_some());
    let bench = check_on(
        || prepared("a", "A"),
        &[
            start(),
            server_passes([bc(), tag("A")], InTransaction),
            client([], [cs(stand_in()), p(stand_in(), ""), q(&sent), s()], Owing),
            server([cc(), pc(), tag("DEALLOCATE"), z(b'I')], [tag("DEALLOCATE"), z(b'I')], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
    assert!(bench.client.statements.find(b"a").is_none());
}

/// Scenario 33.
#[test]
fn what_clears_everything_is_waited_for() {
    for text in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let bench = check_on(
            || prepared("a", "A"),
            &[
                client([q(text), p("a", "A"), b("", "a"), s()], [q(text)], Owing),
                server_passes([tag(text), z(b'I')], Idle),
                client([], [p(&name("A"), "A"), b("", &name("A")), s()], Owing),
                server_passes([pc(), bc(), z(b'I')], Idle),
            ],
        );
        assert_eq!(bench.server.prepared.len(), 1);
        check_on(
            || prepared("a", "A"),
            &[
                client([p("", text), b("", ""), e(""), b("", "a"), s()], [p("", text), b("", ""), e(""), h()], Owing),
                server_passes([pc(), bc(), tag(text)], InTransaction),
                client([], [b("", "a"), s()], Owing),
                server_passes([err("26000", "no"), z(b'I')], Idle),
            ],
        );
        // It failed: all is as it was.
        check_on(
            || prepared("a", "A"),
            &[
                client([q(text), b("", "a"), s()], [q(text)], Owing),
                server_passes([err("25001", "no"), z(b'I')], Idle),
                client([], [b("", &name("A")), s()], Owing),
                server_passes([bc(), z(b'I')], Idle),
            ],
        );
    }
}

/// A COPY ahead of it, whose data were sent ahead too, changes nothing about that.
#[test]
fn what_clears_everything_is_waited_for_behind_a_copy() {
    let bench = check_on(
        || prepared("a", "A"),
        &[
            client(
                [q("COPY a"), c(), q("DEALLOCATE ALL"), p("a", "A"), s()],
                [q("COPY a"), c(), q("DEALLOCATE ALL")],
                Owing,
            ),
            server_passes([copy_in()], Owing),
            client([], [], Owing),
            server_passes([tag("COPY 0"), z(b'I'), tag("DEALLOCATE ALL"), z(b'I')], Idle),
            client([], [p(&name("A"), "A"), s()], Owing),
            server_passes([pc(), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 1);
}

/// `DISCARD ALL` takes the client's own baseline with it; the next statement must have it again.
#[test]
fn after_discard_all_the_clients_settings_come_back() {
    let settled = || {
        let mut bench = Bench {
            server: server_with(9),
            client: client_with(1, &[("search_path", "a")]),
            client_tail: vec![],
            server_tail: vec![],
        };
        bench.attach();
        bench.play(&[server([pc(), bc(), row("a"), tag("SELECT 1"), z(b'I')], [], Idle)], usize::MAX);
        bench
    };
    let replay = || [p("", SET_CONFIG), b_with("", "", &["search_path", "a"]), e(""), s()];
    check_on(
        settled,
        &[
            client([q("DISCARD ALL"), q("SELECT 1")], [q("DISCARD ALL")], Owing),
            server_passes([tag("DISCARD ALL"), z(b'I')], Idle),
            client([], replay(), Owing),
            server([pc(), bc(), row("a"), tag("SELECT 1"), z(b'I')], [], Idle),
            client([], [q("SELECT 1")], Owing),
            server_passes([tag("SELECT 1"), z(b'I')], Idle),
        ],
    );
}

/// Scenarios 28 and 29.
#[test]
fn the_statement_unused_for_longest_makes_room() {
    let full = || {
        let mut bench = Bench::with(server_with(2), client_with(1, &[]));
        bench.play(&prepares("a", "A"), usize::MAX);
        bench.play(&prepares("b", "B"), usize::MAX);
        bench
    };
    let bench = check_on(
        full,
        &[
            client(
                [b("", "a"), e(""), p("c", "C"), h()],
                [b("", &name("A")), e(""), cs(&name("B")), p(&name("C"), "C"), h()],
                Owing,
            ),
            server([bc(), tag("A"), cc(), pc()], [bc(), tag("A"), pc()], InTransaction),
            client([b("", "b"), s()], [cs(&name("A")), p(&name("B"), "B"), b("", &name("B")), s()], Owing),
            server([cc(), pc(), bc(), z(b'I')], [bc(), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 2);
    // The victim is in use in the same batch: its Close stands behind that.
    check_on(
        full,
        &[
            client(
                [b("x", "a"), b("y", "b"), p("c", "C"), e("x"), e("y"), s()],
                [b("x", &name("A")), b("y", &name("B")), cs(&name("A")), p(&name("C"), "C"), e("x"), e("y"), s()],
                Owing,
            ),
            server(
                [bc(), bc(), cc(), pc(), tag("A"), tag("B"), z(b'I')],
                [bc(), bc(), pc(), tag("A"), tag("B"), z(b'I')],
                Idle,
            ),
        ],
    );
}

#[test]
fn a_burst_of_statements_does_not_leave_more_than_allowed() {
    let mut bench = Bench::with(server_with(4), client_with(1, &[]));
    for (burst, len) in [20, 1, 20, 1].into_iter().enumerate() {
        let texts: Vec<String> = (0..len).map(|n| format!("SELECT {burst}{n}")).collect();
        let sent: Vec<u8> = texts.iter().flat_map(|text| p(text, text)).chain(s()).collect();
        let arrived = bench.say(&Side::Client, &sent).unwrap();
        let answers: Vec<u8> = frames(&arrived)
            .iter()
            .flat_map(|frame| match frame[0] {
                b'P' => pc(),
                b'C' => cc(),
                _ => z(b'I'),
            })
            .collect();
        bench.say(&Side::Server, &answers).unwrap();
        assert_eq!(bench.server.status(), Idle);
        assert!(bench.server.prepared.len() <= len + 3, "{}", bench.server.prepared.len());
    }
}

#[test]
fn a_large_statement_or_query_passes_by_its_length_and_pins() {
    let text = "x".repeat((1 << 20) + 7);
    let bench = {
        let mut bench = Bench::new();
        bench.play(
            &[
                client_passes([p("big", &text), b("", "big"), s()], Owing),
                server_passes([pc(), bc(), z(b'I')], Idle),
                client_passes([p("", &text), b("", ""), s()], Owing),
                server_passes([pc(), bc(), z(b'I')], Idle),
            ],
            100_000,
        );
        bench
    };
    assert!(bench.client.pins.contains(PinReason::LargeStatement));
    let mut bench = Bench::new();
    bench.play(&[client_passes([q(&text)], Owing), server_passes([tag("A"), z(b'I')], Idle)], 100_000);
    assert_eq!(bench.client.pins, Pins::of(PinReason::Unreadable));
    // One that can be read as it passes pins for what it does, if for anything.
    let literal = format!("INSERT INTO t VALUES ('{text}')");
    for (query, tags, pins) in [
        (literal.clone(), [tag("INSERT 0 1"), z(b'I')].concat(), Pins::NONE),
        (
            format!("{literal}; LISTEN x"),
            [tag("INSERT 0 1"), tag("LISTEN"), z(b'I')].concat(),
            Pins::of(PinReason::Listen),
        ),
        (format!("{literal}; LISTEN x"), [err("23505", "no"), z(b'I')].concat(), Pins::NONE),
        (
            format!("SELECT pg_advisory_lock(1), '{text}'"),
            [err("57014", "no"), z(b'I')].concat(),
            Pins::of(PinReason::SessionLock),
        ),
    ] {
        let mut bench = Bench::new();
        bench.play(&[client_passes([q(&query)], Owing), server_passes([tags], Idle)], 100_000);
        assert_eq!(bench.client.pins, pins);
    }
    // A large parameter of a Bind is no reason for anything.
    let mut bench = prepared("a", "A");
    bench.play(
        &[
            client([b_with("", "a", &[&text]), s()], [b_with("", &name("A"), &[&text]), s()], Owing),
            server_passes([bc(), z(b'I')], Idle),
        ],
        100_000,
    );
    assert_eq!(bench.client.pins, Pins::NONE);
}

/// The name in a long query is replaced by that of the statement it means, not of one that this executes.
#[test]
fn a_long_execute_is_of_the_statement_it_names() {
    let text = "x".repeat((1 << 20) + 7);
    let execute = format!("EXECUTE \"{}\"", name("A"));
    let outer = name(&execute);
    prepared("a", "A").play(
        &[
            client([p("n", "EXECUTE a"), s()], [p(&outer, &execute), s()], Owing),
            server_passes([pc(), z(b'I')], Idle),
            client([q(&format!("EXECUTE n('{text}')"))], [q(&format!("EXECUTE \"{outer}\"('{text}')"))], Owing),
            server_passes([err("42601", "no"), z(b'I')], Idle),
        ],
        100_000,
    );
    // A stranger's name is never said.
    let theirs = name("B");
    for text in [format!("EXECUTE {theirs}('{text}')"), format!("PREPARE {theirs} AS SELECT '{text}'")] {
        let sent = text.replace(&theirs, &format!("\"_{theirs}\""));
        Bench::new().play(
            &[client([q(&text)], [q(&sent)], Owing), server_passes([err("42601", "no"), z(b'I')], Idle)],
            100_000,
        );
    }
}
