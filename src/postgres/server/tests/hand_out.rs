//! What happens as a client gets a connection, and as it leaves it.

use super::*;

fn attaching(baseline: &[(&str, &str)]) -> (Bench, Vec<u8>, Vec<u8>) {
    let (client_tail, server_tail) = (Vec::new(), Vec::new());
    let mut bench = Bench { server: server_with(9), client: client_with(1, baseline), client_tail, server_tail };
    let (to_server, to_client) = bench.attach();
    (bench, to_server, to_client)
}

#[test]
fn settings_are_replayed_out_of_sight_and_waited_for() {
    let wanted = [("search_path", "a, b"), ("Work_Mem", "4MB")];
    let (mut bench, to_server, to_client) = attaching(&wanted);
    let replay = [
        p("", SET_CONFIG),
        b_with("", "", &["search_path", "a, b"]),
        e(""),
        b_with("", "", &["work_mem", "4MB"]),
        e(""),
        s(),
    ];
    assert_eq!(show(&to_server), show(&replay.concat()));
    assert!(to_client.is_empty());
    assert!(bench.server.is_holding());
    let set = || [bc(), row("x"), tag("SELECT 1")].concat();
    bench.play(
        &[
            client([q("A")], [], Owing),
            server([pc(), set(), set(), status("search_path", "a, b")], [], Owing),
            server([z(b'I')], [status("search_path", "a, b")], Idle),
            client([], [q("A")], Owing),
            server_passes([tag("A"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    assert_eq!(bench.attach(), (vec![], vec![]));
    // The next client's differ.
    bench.client = client_with(2, &[("search_path", "a, b")]);
    let (to_server, to_client) = bench.attach();
    assert_eq!(show(&to_server), show(&[p("", "RESET \"work_mem\""), b("", ""), e(""), s()].concat()));
    assert!(to_client.is_empty());
    bench.play(&[server([pc(), bc(), tag("RESET"), z(b'I')], [status("search_path", "a, b")], Idle)], usize::MAX);
    assert_eq!(bench.server.settings().value("search_path"), Some("a, b"));
    assert_eq!(bench.server.settings().value("work_mem"), None);
}

/// A connection that is lost while it holds may have taken some of the client's bytes: they must not be forgotten.
#[test]
fn what_was_sent_is_known_while_holding() {
    let (bench, _, _) = attaching(&[("search_path", "a")]);
    assert!(bench.server.is_holding() && bench.server.has_sent_nothing());
    let sent = [
        q("DISCARD ALL"),
        q("A").repeat(owed::OWED_MAX + 1),
        [p("a", "INSERT"), s(), b("", "a"), e(""), s()].concat(),
        [p("", "INSERT"), b("", ""), e(""), p("", "DISCARD ALL"), b("", ""), e(""), s()].concat(),
    ];
    for sent in sent {
        let mut bench = Bench::new();
        bench.say(&Side::Client, &sent).unwrap();
        assert!(
            bench.server.is_holding() && !bench.server.has_sent_nothing(),
            "{:?}",
            show(&sent[..20.min(sent.len())])
        );
    }
}

#[test]
fn a_cosmetic_setting_is_not_waited_for() {
    let (mut bench, to_server, _) = attaching(&[("application_name", "app")]);
    assert_eq!(
        show(&to_server),
        show(&[p("", SET_CONFIG), b_with("", "", &["application_name", "app"]), e(""), s()].concat())
    );
    assert!(!bench.server.is_holding());
    bench.play(
        &[
            client_passes([q("A")], Owing),
            server([pc(), bc(), row("app"), tag("SELECT 1"), status("application_name", "app"), z(b'I')], [], Owing),
            server_passes([tag("A"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
}

#[test]
fn a_setting_that_the_server_refuses() {
    let (mut bench, _, _) = attaching(&[("search_path", "a"), ("nonsense", "b")]);
    bench.play(
        &[server([pc(), bc(), err("42704", "unrecognized configuration parameter"), z(b'I')], [], Idle)],
        usize::MAX,
    );
    let failure = bench.server.attach_failure();
    assert!(matches!(failure, Some(AttachFailure::Settings(ServerError { code, .. })) if code == "42704"));
    assert!(bench.server.settings().is_empty());
    assert_eq!(bench.server.attach_failure(), None);
    let (mut bench, _, _) = attaching(&[("search_path", "a")]);
    bench.play(&[server([fatal("57P01", "going down")], [], Ended)], usize::MAX);
    let failure = bench.server.attach_failure();
    assert!(matches!(failure, Some(AttachFailure::Settings(ServerError { is_fatal: true, .. }))));
}

#[test]
fn a_reset_is_out_of_sight_and_takes_nothing_of_the_clients() {
    let mut bench = prepared("a", "A");
    bench.play(&[client_passes([p("", "U"), s()], Owing), server_passes([pc(), z(b'I')], Idle)], usize::MAX);
    let mut written = Vec::new();
    bench.server.reset(&mut written);
    assert_eq!(show(&written), show(&q("DISCARD ALL")));
    assert!(bench.server.is_holding());
    bench.play(
        &[
            client([b("", "a"), s()], [], Owing),
            server([notice("x"), tag("DISCARD ALL"), z(b'I')], [], Idle),
            client([], [p(&name("A"), "A"), b("", &name("A")), s()], Owing),
            server([pc(), bc(), z(b'I')], [bc(), z(b'I')], Idle),
            // Also the unnamed one is still the client's.
            client([b("", ""), s()], [p("", "U"), b("", ""), s()], Owing),
            server([pc(), bc(), z(b'I')], [bc(), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    bench.server.reset(&mut written);
    bench.play(&[server([err("25001", "no"), z(b'I')], [], Idle)], usize::MAX);
    assert!(bench.server.attach_failure().is_some());
}

const INIT: &str = "SET x.y = 1";

/// A connection that has been made ready by `INIT`.
fn initialized(client: Client) -> Bench {
    let (client_tail, server_tail) = (Vec::new(), Vec::new());
    let mut bench = Bench { server: server_with(9), client, client_tail, server_tail };
    let mut written = Vec::new();
    bench.server.initialize(&INIT.into(), &mut written);
    assert_eq!(show(&written), show(&q(INIT)));
    assert_eq!(bench.server.status(), Owing);
    bench.play(&[server([notice("x"), status("x", "y"), t(), row("1"), tag("SET"), z(b'I')], [], Idle)], usize::MAX);
    assert_eq!(bench.server.attach_failure(), None);
    bench
}

fn init_failure(bench: &mut Bench) -> String {
    match bench.server.attach_failure() {
        Some(AttachFailure::InitQuery(error)) => format!("{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_init_query_is_out_of_sight_and_waited_for() {
    let mut bench = initialized(client_with(1, &[]));
    // Its reports are told, as everything the server reports.
    assert_eq!(bench.attach(), (vec![], status("x", "y")));
    bench.play(&[client_passes([q("A")], Owing), server_passes([tag("A"), z(b'I')], Idle)], usize::MAX);
}

#[test]
fn an_init_query_that_fails() {
    let cases: [(Vec<u8>, Status, &str); 5] = [
        ([err("42601", "syntax error"), z(b'I')].concat(), Idle, "42601: syntax error"),
        ([tag("SET"), err("42704", "no"), z(b'I')].concat(), Idle, "42704: no"),
        ([tag("BEGIN"), z(b'T')].concat(), InTransaction, "25001: init_query leaves a transaction open"),
        (copy_in(), Ended, "0A000: init_query must not copy"),
        (fatal("57P01", "going down"), Ended, "57P01: going down"),
    ];
    for (says, status, expected) in cases {
        let mut server = server_with(9);
        server.initialize(&INIT.into(), &mut Vec::new());
        let mut bench = Bench { server, client: client_with(1, &[]), client_tail: Vec::new(), server_tail: Vec::new() };
        assert!(bench.say(&Side::Server, &says).unwrap().is_empty());
        assert_eq!((bench.server.status(), init_failure(&mut bench).as_str()), (status, expected));
    }
}

#[test]
fn what_undoes_an_init_query_has_it_run_again() {
    // The proxy's own reset.
    let mut bench = initialized(client_with(1, &[]));
    let mut written = Vec::new();
    bench.server.reset(&mut written);
    assert_eq!(show(&written), show(&[q("DISCARD ALL"), q(INIT)].concat()));
    bench.play(&[server([tag("DISCARD ALL"), z(b'I'), tag("SET"), z(b'I')], [], Idle)], usize::MAX);
    assert_eq!((bench.server.attach_failure(), bench.server.init_lost), (None, false));
    bench.server.reset(&mut written);
    bench.play(&[server([tag("DISCARD ALL"), z(b'I'), err("42704", "no"), z(b'I')], [], Idle)], usize::MAX);
    assert_eq!(init_failure(&mut bench), "42704: no");
    // A client's, simple or not, ahead of what comes next.
    for says in [q("DISCARD ALL"), [p("", "DISCARD ALL"), b("", ""), e(""), s()].concat()] {
        let mut bench = initialized(client_with(1, &[]));
        bench.attach();
        bench.say(&Side::Client, &[says.clone(), q("A")].concat()).unwrap();
        let answers = if says[0] == b'P' { [pc(), bc()].concat() } else { vec![] };
        bench.say(&Side::Server, &[answers, tag("DISCARD ALL")].concat()).unwrap();
        bench.say(&Side::Client, b"").unwrap();
        bench.say(&Side::Server, &z(b'I')).unwrap();
        bench.play(
            &[
                client([], [q(INIT), s()], Owing),
                server([tag("SET"), z(b'I'), z(b'I')], [], Idle),
                client([], [q("A")], Owing),
                server_passes([tag("A"), z(b'I')], Idle),
            ],
            usize::MAX,
        );
    }
    // The last thing that a client did: the next one finds it done again.
    let mut bench = initialized(client_with(1, &[]));
    bench.attach();
    bench.play(
        &[client_passes([q("DISCARD ALL")], Owing), server_passes([tag("DISCARD ALL"), z(b'I')], Idle)],
        usize::MAX,
    );
    bench.client = client_with(2, &[("search_path", "a")]);
    let (to_server, _) = bench.attach();
    let set = || [p("", SET_CONFIG), b_with("", "", &["search_path", "a"]), e("")].concat();
    assert_eq!(show(&to_server), show(&[q(INIT), set(), s()].concat()));
    assert!(bench.server.is_holding());
    let is_set = || [pc(), bc(), row("a"), tag("SELECT 1"), z(b'I')].concat();
    bench.play(&[server([tag("SET"), z(b'I'), is_set()], [status("x", "y")], Idle)], usize::MAX);
    // RESET goes back to what was there before; and then it may have set what stays.
    let settings = [("search_path", "a"), ("work_mem", "1MB")];
    let mut bench = initialized(client_with(1, &settings));
    bench.attach();
    let both = [bc(), row("a"), tag("SELECT 1"), bc(), row("1MB"), tag("SELECT 1"), z(b'I')].concat();
    bench.play(&[server([pc(), both], [status("x", "y")], Idle)], usize::MAX);
    bench.client = client_with(2, &settings[..1]);
    let (to_server, _) = bench.attach();
    let reset = [p("", "RESET \"work_mem\""), b("", ""), e(""), s()].concat();
    assert_eq!(show(&to_server), show(&[reset, q(INIT), set(), s()].concat()));
    let says = [pc(), bc(), tag("RESET"), z(b'I'), tag("SET"), z(b'I')].concat();
    bench.play(&[server([says, is_set()], [status("x", "y")], Idle)], usize::MAX);
    assert_eq!(bench.server.settings().value("search_path"), Some("a"));
}

/// What another client drew from a sequence is not for this one.
#[test]
fn last_values_of_strangers_are_discarded() {
    let foreign = || {
        let mut bench = Bench::new();
        bench.hand_to(client_with(2, &[]));
        bench
    };
    let guard = || {
        let name = "sg_own";
        [cs(name), p(name, "DISCARD SEQUENCES"), b(name, name), e(name), cp(name)].concat()
    };
    let guarded = || [cc(), pc(), bc(), tag("DISCARD SEQUENCES"), cc()].concat();
    let text = "SELECT lastval()";
    check_on(
        foreign,
        &[
            client([q(text)], [guard(), s(), q(text)], Owing),
            server([guarded(), z(b'I')], [], Owing),
            server_passes([err("55000", "lastval is not yet defined in this session"), z(b'I')], Idle),
            client_passes([q(text)], Owing),
            server_passes([t(), row("1"), tag("SELECT 1"), z(b'I')], Idle),
        ],
    );
    check_on(
        foreign,
        &[
            client([p("", text), b("", ""), e(""), s()], [p("", text), guard(), b("", ""), e(""), s()], Owing),
            server([pc(), guarded(), bc(), tag("SELECT 1"), z(b'I')], [pc(), bc(), tag("SELECT 1"), z(b'I')], Idle),
        ],
    );
    // Where nothing can be asked, nothing need be discarded; and there is one error for one query.
    check_on(
        foreign,
        &[
            client_passes([q("BEGIN"), q("ERROR")], Owing),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], InTransaction),
            client_passes([q(text)], Owing),
            server_passes([err("25P02", "x"), z(b'E')], InTransaction),
        ],
    );
}

#[test]
fn a_tag_that_the_text_did_not_explain_pins_and_is_counted() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("SELECT f()")).unwrap();
    bench.say(&Side::Server, &[tag("LISTEN"), z(b'I')].concat()).unwrap();
    assert_eq!(bench.server.tally().disagreements, 1);
    assert!(bench.client.pins.contains(PinReason::Listen));
}

#[test]
fn requests_are_counted_as_they_are_sent() {
    let extended = || [p("", "A"), b("", ""), e("")].concat();
    for (sent, requests) in [
        ([q("A"), q("B; C"), q("")].concat(), 3),
        ([extended(), extended(), s()].concat(), 1),
        ([extended(), s(), extended(), s(), q("A")].concat(), 3),
        ([extended(), h(), extended()].concat(), 0),
        ([s(), s(), h()].concat(), 0),
        ([p("a", "A"), s(), q("DEALLOCATE a")].concat(), 1),
        ([extended(), s(), d("1"), c(), s()].concat(), 1),
        (raw(b'F', b"\0\0\x02\xcb\0\0\0\0\0\0"), 1),
    ] {
        let mut bench = Bench::new();
        for byte in &sent {
            bench.say(&Side::Client, &[*byte]).unwrap();
        }
        let tally = bench.server.tally();
        assert_eq!((tally.requests, tally.queries), (requests, 0), "{:?}", show(&sent));
        assert_eq!(bench.server.tally().requests, 0, "told once");
    }
    // What is read over after an error belongs to the Sync that ends it.
    let mut bench = Bench::new();
    bench.say(&Side::Client, &[extended(), h()].concat()).unwrap();
    bench.say(&Side::Server, &err("42601", "no")).unwrap();
    bench.say(&Side::Client, &[q("A"), extended(), s()].concat()).unwrap();
    assert_eq!(bench.server.tally().requests, 1);
}

#[test]
fn a_transaction_is_open_from_one_word_of_the_servers_to_the_next() {
    let mut bench = Bench::new();
    for (side, bytes, is_open) in [
        (Side::Client, q("BEGIN"), false),
        (Side::Server, [tag("BEGIN"), z(b'T')].concat(), true),
        (Side::Client, q("SELECT 1"), true),
        (Side::Server, [tag("SELECT 1"), z(b'E')].concat(), true),
        (Side::Client, q("COMMIT"), true),
        (Side::Server, [tag("ROLLBACK"), z(b'I')].concat(), false),
        (Side::Client, [p("", "A"), h()].concat(), false),
        (Side::Server, pc(), true),
        (Side::Client, s(), false),
        (Side::Server, z(b'I'), false),
    ] {
        bench.say(&side, &bytes).unwrap();
        assert_eq!(bench.server.is_in_transaction(), is_open, "{:?}", show(&bytes));
    }
}

#[test]
fn a_full_queue_takes_no_more_until_replies_have_come() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("A").repeat(owed::OWED_MAX + 10)).unwrap();
    assert_eq!(bench.client_tail.len(), 10 * q("A").len());
    assert!(bench.server.is_holding());
    bench.say(&Side::Server, &[tag("A"), z(b'I')].concat().repeat(5)).unwrap();
    bench.say(&Side::Client, b"").unwrap();
    assert_eq!(bench.client_tail.len(), 5 * q("A").len());
}

#[test]
fn a_goodbye_is_said_between_frames_only() {
    let mut bench = Bench::new();
    let mut goodbye = Vec::new();
    bench.server.terminate(&mut goodbye);
    assert_eq!(goodbye, x());
    bench.say(&Side::Client, &d("data")[..7]).unwrap();
    assert_eq!(bench.server.status(), InTransaction);
    goodbye.clear();
    bench.server.terminate(&mut goodbye);
    assert!(goodbye.is_empty());
}

#[test]
fn a_frame_half_through_holds_the_connection() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("A")).unwrap();
    let last = [tag("A"), z(b'I')].concat();
    bench.say(&Side::Server, &last[..last.len() - 1]).unwrap();
    assert_eq!(bench.server.status(), Owing);
    bench.say(&Side::Server, &last[last.len() - 1..]).unwrap();
    assert_eq!(bench.server.status(), Idle);
    bench.say(&Side::Client, &[p("", "A"), ds(""), s()].concat()).unwrap();
    bench.say(&Side::Server, &[pc(), pd()].concat()).unwrap();
    bench.say(&Side::Server, &t()[..8]).unwrap();
    assert_eq!(bench.server.status(), Owing);
    assert!(bench.server.is_midway());
    bench.say(&Side::Server, &t()[8..]).unwrap();
    assert!(!bench.server.is_midway());
}

#[test]
fn short_requests_that_stand_for_long_ones_are_taken_a_few_at_a_time() {
    let mut bench = prepared("big", &"x".repeat(200 << 10));
    let elsewhere = server_with(100);
    bench.move_to(elsewhere);
    let mut requests = [b("", "big"), s()].concat().repeat(50);
    let mut rounds = 0;
    while !requests.is_empty() || !bench.client_tail.is_empty() {
        let arrived = bench.say(&Side::Client, &std::mem::take(&mut requests)).unwrap();
        assert!(!arrived.is_empty() && arrived.len() < 600 << 10, "{}", arrived.len());
        rounds += 1;
    }
    assert!(rounds > 10, "{rounds}");
}

/// What a Bind has announced ends with the connection's hand-over: the Execute would wait for more of itself for ever.
#[test]
fn a_bound_discard_is_forgotten_at_the_hand_over() {
    let mut bench = prepared("a", "DISCARD ALL");
    bench.play(
        &[client([b("", "a"), s()], [b("", &name("DISCARD ALL")), s()], Owing), server_passes([bc(), z(b'I')], Idle)],
        usize::MAX,
    );
    bench.attach();
    assert_eq!(bench.say(&Side::Client, &e("")[..5]).unwrap(), e("")[..5]);
    // Where it counts, its length is bounded.
    let mut bench = prepared("a", "DISCARD ALL");
    bench.say(&Side::Client, &b("", "a")).unwrap();
    assert_eq!(bench.say(&Side::Client, b"E\x00\x20\x00\x00"), Err(Violation::FrameTooLong));
}
