//! Settings that a client changes decide how the server reads its texts and what its statements return.

use super::*;

fn family(text: &str) -> Id {
    Id::of(&KEY, &parse_body(text), 0)
}

/// The name of the n-th statement that this client shares with nobody.
fn own_name(client_id: u64, text: &str, number: u64) -> String {
    String::from_utf8(Id::own(&KEY, family(text), client_id, number).name().to_vec()).unwrap()
}

/// A second client has the connection, on which the first has prepared this statement.
fn handed_on(text: &str) -> Bench {
    let mut bench = prepared("a", text);
    bench.hand_to(client_with(2, &[]));
    bench
}

/// What a temporary table hides from its client is not what others have prepared.
#[test]
fn behind_a_temporary_table_statements_are_not_shared() {
    let own = own_name(2, "A", 1);
    check_on(
        || without_sequences(handed_on("A")),
        &[
            client_passes([q("CREATE TEMP TABLE t (a int)")], Owing),
            server_passes([tag("CREATE TABLE"), z(b'I')], Idle),
            client([p("s", "A"), b("", "s"), s()], [p(&own, "A"), b("", &own), s()], Owing),
            server_passes([pc(), bc(), z(b'I')], Idle),
        ],
    );
}

/// A text that leaves a failed transaction and asks then can't have strangers' values discarded in between: it fails.
#[test]
fn a_last_value_behind_a_failed_transaction_is_nobodys() {
    let failed = || {
        let mut bench = handed_on("A");
        let begins = [client_passes([q("BEGIN"), q("no")], Owing), server_passes([tag("BEGIN"), z(b'T')], Owing)];
        bench.play(&begins, usize::MAX);
        bench.play(&[server_passes([err("42601", "no"), z(b'E')], InTransaction)], usize::MAX);
        bench
    };
    check_on(
        failed,
        &[
            client([q("ROLLBACK; SELECT lastval()")], [q("SELECT")], Owing),
            server_passes([err("25P02", "no"), z(b'E')], InTransaction),
            client_passes([q("ROLLBACK")], Owing),
            server_passes([tag("ROLLBACK"), z(b'I')], Idle),
        ],
    );
}

/// What is to be put back is sent although there is nothing to be asked.
#[test]
fn what_is_lost_comes_back_without_a_question() {
    let mut bench = Bench::new();
    bench.hand_to(client_with(2, &[("work_mem", "5MB")]));
    bench.say(&Side::Server, &[pc(), bc(), row("5MB"), tag("SELECT 1"), z(b'I')].concat()).unwrap();
    bench.play(&[client_passes([q("LISTEN a")], Owing), server_passes([tag("LISTEN"), z(b'I')], Idle)], usize::MAX);
    let mut asked = Vec::new();
    assert!(bench.server.verify(&bench.client, &mut asked));
    bench.play(&[server([pc(), bc(), row("listen"), tag("SELECT 1"), z(b'I')], [], Idle)], usize::MAX);
    assert!(!bench.server.verify(&bench.client, &mut asked), "nothing has come up since");
    bench
        .play(&[client_passes([q("RESET work_mem")], Owing), server_passes([tag("RESET"), z(b'I')], Idle)], usize::MAX);
    assert!(bench.server.settings_lost && bench.server.verify(&bench.client, &mut asked));
    assert!(!bench.server.settings_lost && bench.server.status() == Owing);
}

/// A query that is sent behind others asks once it is known whether they have failed: it has its own end.
#[test]
fn a_last_value_behind_what_fails_in_a_pipeline_is_answered() {
    check_on(
        || handed_on("A"),
        &[
            client([q("BEGIN"), q("no"), q("SELECT lastval()")], [q("BEGIN"), q("no")], Owing),
            server_passes([tag("BEGIN"), z(b'T'), err("42601", "no"), z(b'E')], InTransaction),
            client([], [q("SELECT lastval()")], Owing),
            server_passes([err("25P02", "no"), z(b'E')], InTransaction),
        ],
    );
}

/// Of two portals the one that sets something must be executed for it to be set.
#[test]
fn a_set_that_is_bound_and_not_executed_sets_nothing() {
    let set = "SELECT set_config('work_mem', '7MB', false)";
    for (executed, is_set) in [("p", true), ("", false)] {
        let mut bench = Bench::new();
        let says = [p("", "SELECT 1"), b("", ""), p("", set), b("p", ""), e(executed), s()];
        let answers = [pc(), bc(), pc(), bc(), row("7MB"), tag("SELECT 1"), z(b'I')];
        bench.play(&[client_passes(says, Owing), server_passes(answers, Idle)], usize::MAX);
        assert_eq!(bench.client.settings().value("work_mem").is_some(), is_set, "{executed}");
        assert_eq!(bench.client.pins.contains(PinReason::Setting), !is_set, "{executed}");
    }
}

fn result_changed() -> Vec<u8> {
    let mut error = err("0A000", "cached plan must not change result type");
    error.truncate(error.len() - 1);
    raw(b'E', &[&error[5..], b"RRevalidateCachedQuery\0\0"].concat())
}

// ---------------------------------------------------------------------------------------------- what statements return

/// A statement that is parsed under other settings is not the one that others have.
#[test]
fn behind_a_set_statements_are_not_shared() {
    let own = own_name(2, "A", 1);
    check_on(
        || without_sequences(handed_on("A")),
        &[
            client_passes([q("SET search_path=b")], Owing),
            server_passes([tag("SET"), z(b'I')], Idle),
            client([p("s", "A"), b("", "s"), s()], [p(&own, "A"), b("", &own), s()], Owing),
            server_passes([pc(), bc(), z(b'I')], Idle),
        ],
    );
    // In a transaction alone: no pin says it.
    let bench = check_on(
        || without_sequences(handed_on("A")),
        &[
            client_passes([q("BEGIN; SET LOCAL search_path=b")], Owing),
            server_passes([tag("BEGIN"), tag("SET"), z(b'T')], InTransaction),
            client([p("s", "A"), b("", "s"), s()], [p(&own, "A"), b("", &own), s()], Owing),
            server_passes([pc(), bc(), z(b'T')], InTransaction),
            client_passes([q("COMMIT")], Owing),
            server_passes([tag("COMMIT"), z(b'I')], Idle),
            // And shared again.
            client([p("t", "A"), s()], [cs(stand_in()), s()], Owing),
            server([cc(), z(b'I')], [pc(), z(b'I')], Idle),
        ],
    );
    assert!(bench.client.pins.is_empty());
    // Sent in one go, by every way there is.
    for text in
        ["SET search_path=b", "SET LOCAL search_path=b", "SELECT set_config($1, $2, true)", "RESET ALL", "DO $$$$"]
    {
        check_on(
            || without_sequences(handed_on("A")),
            &[client(
                [p("", text), b("", ""), e(""), p("s", "A"), s()],
                [p("", text), b("", ""), e(""), p(&own, "A"), s()],
                Owing,
            )],
        );
    }
    // Not by what changes nothing.
    for text in ["SET TRANSACTION READ ONLY", "SELECT 1", "SET CONSTRAINTS ALL DEFERRED"] {
        check_on(
            || without_sequences(handed_on("A")),
            &[client(
                [p("", text), b("", ""), e(""), p("s", "A"), s()],
                [p("", text), b("", ""), e(""), cs(stand_in()), s()],
                Owing,
            )],
        );
    }
}

/// The other way round: what the proxy itself prepares for a client under other settings is not left to others.
#[test]
fn what_is_prepared_behind_a_set_local_is_prepared_anew_for_the_next() {
    let mut bench = prepared("a", "A");
    bench.move_to(server_with(100));
    bench.play(
        &[
            client_passes([q("BEGIN; SET LOCAL search_path=b")], Owing),
            server_passes([tag("BEGIN"), tag("SET"), z(b'T')], InTransaction),
            client([b("", "a"), s()], [p(&name("A"), "A"), b("", &name("A")), s()], Owing),
            server([pc(), bc(), z(b'T')], [bc(), z(b'T')], InTransaction),
            // There for the rest of the transaction.
            client([b("", "a"), s()], [b("", &name("A")), s()], Owing),
            server_passes([bc(), z(b'T')], InTransaction),
            client_passes([q("COMMIT")], Owing),
            server_passes([tag("COMMIT"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    bench.hand_to(client_with(2, &[]));
    bench.play(
        &[
            client([p("s", "A"), s()], [cs(&name("A")), p(&name("A"), "A"), s()], Owing),
            server([cc(), pc(), z(b'I')], [pc(), z(b'I')], Idle),
            client([p("t", "A"), s()], [cs(stand_in()), s()], Owing),
            server([cc(), z(b'I')], [pc(), z(b'I')], Idle),
        ],
        usize::MAX,
    );
}

/// A driver prepares anew when it reads that: under that client's name alone, so that no connection's old statement
/// comes back; and on this connection the next one gets a fresh one.
#[test]
fn a_statement_whose_result_changed_is_prepared_anew() {
    let own = own_name(1, "A", 2);
    let fails = |request: fn(&str) -> Vec<u8>| {
        let mut bench = check_on(
            || prepared("a", "A"),
            &[
                client([request("a"), s()], [request(&name("A")), s()], Owing),
                server_passes([result_changed(), z(b'I')], Idle),
                client([cs("a"), p("b", "A"), b("", "b"), s()], [cs("a"), p(&own, "A"), b("", &own), s()], Owing),
                server_passes([cc(), pc(), bc(), z(b'I')], Idle),
                client([b("", "b"), s()], [b("", &own), s()], Owing),
                server_passes([bc(), z(b'I')], Idle),
            ],
        );
        bench.hand_to(client_with(2, &[]));
        bench.play(
            &[
                client(
                    [p("s", "A"), b("", "s"), s()],
                    [cs(&name("A")), p(&name("A"), "A"), b("", &name("A")), s()],
                    Owing,
                ),
                server([cc(), pc(), bc(), z(b'I')], [pc(), bc(), z(b'I')], Idle),
            ],
            usize::MAX,
        );
    };
    fails(|name| b("", name));
    fails(ds);
    // On a connection where the old one still is, as well.
    let mut bench = prepared("a", "A");
    let mut other = handed_on("A");
    bench.play(
        &[client([b("", "a"), s()], [b("", &name("A")), s()], Owing), server_passes([result_changed(), z(b'I')], Idle)],
        usize::MAX,
    );
    std::mem::swap(&mut bench.server, &mut other.server);
    bench.attach();
    // The client's own name means a fresh one from here on, wherever it goes.
    let renewed = own_name(1, "A", 1);
    bench.play(
        &[
            client([b("", "a"), s()], [p(&renewed, "A"), b("", &renewed), s()], Owing),
            server([pc(), bc(), z(b'I')], [bc(), z(b'I')], Idle),
            client([cs("a"), p("b", "A"), s()], [cs("a"), p(&own, "A"), s()], Owing),
        ],
        usize::MAX,
    );
}

#[test]
fn other_errors_leave_a_statement_shared() {
    let bench = check_on(
        || prepared("a", "A"),
        &[
            client([b("", "a"), s()], [b("", &name("A")), s()], Owing),
            server_passes([err("22P02", "bad parameter"), z(b'I')], Idle),
            client([p("b", "A"), b("", "a"), s()], [cs(stand_in()), b("", &name("A")), s()], Owing),
            server([cc(), bc(), z(b'I')], [pc(), bc(), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 1);
}

// ---------------------------------------------------------------------------------------------- how texts are read

/// Sets a variable if a backslash takes a quote with it, and asks for what another client drew from a sequence.
const HIDDEN: &str = "SELECT 'a\\'', set_config('app.tenant', 'x', false), lastval() --'";

fn reports_off() -> Vec<u8> {
    status("standard_conforming_strings", "off")
}

/// The second client on its connection says this, and all is answered with this.
fn client_after(said: &[(Vec<u8>, Vec<u8>)]) -> Bench {
    let mut bench = handed_on("A");
    for (said, answer) in said {
        bench.say(&Side::Client, said).unwrap();
        if !answer.is_empty() {
            bench.say(&Side::Server, answer).unwrap();
        }
    }
    bench
}

fn guards(bytes: &[u8]) -> bool {
    bytes.windows(17).any(|window| window == b"DISCARD SEQUENCES")
}

/// Whatever changes the dialect, in whatever way it is sent: a text that may hide a change of state pins.
#[test]
fn behind_a_change_of_the_dialect_an_ambiguous_text_pins() {
    let begin = || (q("BEGIN"), [tag("BEGIN"), z(b'T')].concat());
    let set_local_off =
        || (q("SET LOCAL standard_conforming_strings=off"), [tag("SET"), reports_off(), z(b'T')].concat());
    let unanswered = |text: &str| (q(text), vec![]);
    let extended = |text: &str| ([p("", text), b("", ""), e("")].concat(), vec![]);
    let cases: Vec<Vec<(Vec<u8>, Vec<u8>)>> = vec![
        vec![begin(), unanswered("SET LOCAL standard_conforming_strings=off")],
        vec![unanswered("BEGIN; SET LOCAL standard_conforming_strings=off")],
        vec![begin(), unanswered("SET standard_conforming_strings TO off")],
        vec![unanswered("RESET standard_conforming_strings")],
        vec![unanswered("RESET ALL")],
        vec![unanswered("SELECT set_config('standard_' || 'conforming_strings', 'off', true)")],
        vec![unanswered("UPDATE pg_settings SET setting='off' WHERE name='standard_conforming_strings'")],
        vec![unanswered("DO $$ BEGIN SET standard_conforming_strings=off; END $$")],
        vec![
            (
                q("PREPARE s AS SELECT set_config('standard_' || 'conforming_strings', 'off', true)"),
                [tag("PREPARE"), z(b'I')].concat(),
            ),
            unanswered("EXECUTE s"),
        ],
        vec![extended("SET LOCAL standard_conforming_strings=off")],
        vec![extended("SELECT set_config($1, $2, true)")],
        // Reported with ReadyForQuery only, also behind a Flush.
        vec![(
            [extended("SET LOCAL standard_conforming_strings=off").0, h()].concat(),
            [pc(), bc(), tag("SET")].concat(),
        )],
        // Goes back by itself.
        vec![begin(), set_local_off(), unanswered("ROLLBACK")],
        vec![begin(), set_local_off(), unanswered("ROLLBACK TO SAVEPOINT s")],
        vec![begin(), set_local_off(), unanswered("COMMIT")],
        vec![begin(), set_local_off(), (q("ERROR"), vec![])],
        vec![begin(), (q("SET LOCAL client_encoding=SJIS"), [tag("SET"), z(b'T')].concat()), unanswered("COMMIT")],
    ];
    for case in cases {
        for hidden in [q(HIDDEN), p("", HIDDEN), p("s", HIDDEN), q("SELECT '\u{30bd}'"), q("SELECT E'\\\\' ")] {
            let mut bench = client_after(&case);
            let sent = bench.say(&Side::Client, &[hidden.clone(), b("", "s"), b("", "")].concat()).unwrap();
            let what = (show(&hidden), case.iter().map(|(said, _)| show(said)).collect::<Vec<_>>());
            // Or it is read once the server has said how it will.
            let waits = bench.server.is_holding();
            assert!(waits || bench.client.pins.contains(PinReason::Unreadable), "{what:?}");
            assert!(waits || guards(&sent) || !bench.server.foreign_sequences, "{what:?}");
        }
        // Nothing to be read in two ways.
        let mut bench = client_after(&case);
        bench.say(&Side::Client, &q("SELECT 'a', E'b', \"c\" -- d")).unwrap();
        assert!(!bench.client.pins.contains(PinReason::Unreadable));
    }
}

/// What has been reported is known.
#[test]
fn in_a_dialect_that_was_reported_a_text_is_read() {
    let answered = [
        (q("BEGIN"), [tag("BEGIN"), z(b'T')].concat()),
        (q("SET LOCAL standard_conforming_strings=off"), [tag("SET"), reports_off(), z(b'T')].concat()),
    ];
    let mut bench = client_after(&answered);
    bench.say(&Side::Client, &q(HIDDEN)).unwrap();
    let discarded = [cc(), pc(), bc(), tag("DISCARD SEQUENCES"), cc(), z(b'T')].concat();
    bench.say(&Side::Server, &[discarded, tag("SELECT 1"), z(b'T')].concat()).unwrap();
    assert_eq!(bench.client.pins, Pins::of(PinReason::Setting).and(Pins::of(PinReason::Sequence)));
    // And in the standard one nothing is hidden there.
    let mut bench = client_after(&[(q("BEGIN"), vec![])]);
    bench.say(&Side::Client, &q("SELECT 'a\\', '\u{e9}'")).unwrap();
    assert!(bench.client.pins.is_empty());
    assert!(!bench.server.settings_open);
}

/// A statement is read where it is parsed: the proxy may do that under another dialect than the client did.
#[test]
fn a_statement_prepared_again_in_another_dialect_pins() {
    let run = |text: &str| [p("t", text), b("", "t"), e(""), cs("t"), s()].concat();
    let ran = |result: &[Vec<u8>]| [pc(), bc(), tag("SET"), cc(), result.concat(), z(b'T')].concat();
    for name in ["a", ""] {
        for sets in [true, false] {
            let mut bench = Bench::new();
            bench.say(&Side::Client, &[p(name, HIDDEN), s()].concat()).unwrap();
            bench.say(&Side::Server, &[pc(), z(b'I')].concat()).unwrap();
            assert!(bench.client.pins.is_empty());
            let mut other = server_with(100);
            other.foreign_sequences = true;
            bench.move_to(other);
            bench.say(&Side::Client, &run("BEGIN")).unwrap();
            bench.say(&Side::Server, &ran(&[])).unwrap();
            if sets {
                bench.say(&Side::Client, &run("SET LOCAL standard_conforming_strings=off")).unwrap();
                bench.say(&Side::Server, &ran(&[reports_off()])).unwrap();
            }
            let sent = bench.say(&Side::Client, &[b("", name), e(""), s()].concat()).unwrap();
            assert_eq!(bench.client.pins.contains(PinReason::Unreadable), sets, "{name:?}: {:?}", show(&sent));
            assert_eq!(guards(&sent), sets, "{name:?}: {:?}", show(&sent));
        }
    }
    // One that the server has already, and read otherwise.
    let mut bench = prepared("a", HIDDEN);
    bench.server.prepared.get_mut(&family(HIDDEN)).unwrap().dialect.backslash_quotes = true;
    bench.say(&Side::Client, &[b("", "a"), s()].concat()).unwrap();
    assert!(bench.client.pins.contains(PinReason::Unreadable));
}

/// Nothing was drawn on the connection.
fn without_sequences(mut bench: Bench) -> Bench {
    bench.server.foreign_sequences = false;
    bench
}
