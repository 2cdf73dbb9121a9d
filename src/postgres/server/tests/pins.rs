//! Statements that may not pin: what goes to the server in their place, what the client is told, and who counts as pinned.

use super::*;
use crate::protocol::{PinBudget, PinPolicy, PinRules};

const NO_QUERY: &str = "refused by the proxy: pin_on, pin_max_percent";
const NO_STATEMENT: &str = "sg_refused_by_the_proxy";

fn told(error: &ClientError) -> Vec<u8> {
    let mut out = Vec::new();
    message::client_error(error, false, &mut out);
    out
}

fn refused(reason: PinReason) -> Vec<u8> {
    told(&ClientError::PinRefused { reason })
}

fn rejecting(rejected: Pins) -> Bench {
    let mut bench = Bench::new();
    let policy = PinPolicy { rejected, ..PinPolicy::default() };
    bench.client.set_pin_rules(PinRules { policy, budget: None });
    bench
}

fn allowing(allowed: Pins) -> Bench {
    let mut bench = Bench::new();
    let policy = PinPolicy { allowed, ..PinPolicy::default() };
    bench.client.set_pin_rules(PinRules { policy, budget: None });
    bench
}

fn no_listen() -> Bench {
    rejecting(Pins::of(PinReason::Listen))
}

/// One client may be pinned.
fn limited(budget: &Arc<PinBudget>) -> Bench {
    let mut bench = Bench::new();
    bench.client.set_pin_rules(PinRules { policy: PinPolicy::default(), budget: Some(Arc::clone(budget)) });
    bench
}

fn full() -> Vec<u8> {
    told(&ClientError::PinLimit { reason: PinReason::Listen, group: "main".into(), limit: 1, percent: 50 })
}

/// A function call of number 0 without arguments.
/// In the place of a Bind.
fn no_bind() -> Vec<u8> {
    let name = [b"\0", NO_STATEMENT.as_bytes(), b"\0"].concat();
    raw(b'B', &[&name[..], &[0, 2, 0, 0, 0, 0, 0, 0, 0, 0]].concat())
}

fn no_function() -> Vec<u8> {
    function(0)
}

#[test]
fn a_query_that_may_not_pin_is_not_sent() {
    let mut bench = check_on(
        no_listen,
        &[
            client([q("SELECT 1"), q("LISTEN a"), q("SELECT 2")], [q("SELECT 1"), q(NO_QUERY), q("SELECT 2")], Owing),
            server_passes([t(), row("1"), tag("SELECT 1"), z(b'I')], Owing),
            server(
                [err("42601", "syntax error"), z(b'I'), t(), row("2"), tag("SELECT 1"), z(b'I')],
                [refused(PinReason::Listen), z(b'I'), t(), row("2"), tag("SELECT 1"), z(b'I')],
                Idle,
            ),
        ],
    );
    assert!(bench.client.pins.is_empty());
    assert_eq!(bench.server.refused(), Some(ClientError::PinRefused { reason: PinReason::Listen }));
    assert_eq!(bench.server.refused(), None);
}

/// Any statement of a text counts, and nothing of it runs. The transaction is as the server says.
#[test]
fn a_transaction_fails_with_it() {
    check_on(
        no_listen,
        &[
            client_passes([q("BEGIN")], Owing),
            server_passes([tag("BEGIN"), z(b'T')], InTransaction),
            client([q("INSERT INTO t VALUES (1); LISTEN a")], [q(NO_QUERY)], Owing),
            server([err("42601", "no"), z(b'E')], [refused(PinReason::Listen), z(b'E')], InTransaction),
            // In a failed one, too.
            client([q("LISTEN a")], [q(NO_QUERY)], Owing),
            server([err("42601", "no"), z(b'E')], [refused(PinReason::Listen), z(b'E')], InTransaction),
            client_passes([q("ROLLBACK")], Owing),
            server_passes([tag("ROLLBACK"), z(b'I')], Idle),
        ],
    );
}

#[test]
fn a_bind_is_refused_in_its_place_and_the_rest_is_skipped() {
    let (a, l, c) = (name("A"), name("LISTEN x"), name("C"));
    let bench = check_on(
        no_listen,
        &[
            client(
                [p("a", "A"), b("", "a"), e(""), p("l", "LISTEN x"), b("", "l"), e(""), p("c", "C"), b("", "c"), s()],
                [p(&a, "A"), b("", &a), e(""), p(&l, "LISTEN x"), no_bind(), e(""), p(&c, "C"), b("", &c), s()],
                Owing,
            ),
            server_passes([pc(), bc(), tag("SELECT 0"), pc()], Owing),
            server([err("26000", NO_STATEMENT)], [refused(PinReason::Listen)], Owing),
            server_passes([z(b'I')], Idle),
            // The statement is there, and may be described; and what comes next runs.
            client([ds("l"), b("", "a"), e(""), s()], [ds(&l), b("", &a), e(""), s()], Owing),
            server_passes([pd(), n(), bc(), tag("SELECT 0"), z(b'I')], Idle),
        ],
    );
    assert!(bench.client.statements.find(b"c").is_none());
    assert!(bench.client.pins.is_empty());
}

/// Without a Sync behind it, and flushed: what follows is read over.
#[test]
fn the_unnamed_statement_stays() {
    check_on(
        no_listen,
        &[
            client([p("", "LISTEN x"), b("", ""), h()], [p("", "LISTEN x"), no_bind(), h()], Owing),
            server([pc(), err("26000", "no")], [pc(), refused(PinReason::Listen)], InTransaction),
            client([e(""), b("", ""), s()], [s()], Owing),
            server_passes([z(b'I')], Idle),
            client([ds(""), s()], [ds(""), s()], Owing),
            server_passes([pd(), n(), z(b'I')], Idle),
            // Again.
            client([b("", ""), e(""), s()], [no_bind(), e(""), s()], Owing),
            server([err("26000", "no"), z(b'I')], [refused(PinReason::Listen), z(b'I')], Idle),
        ],
    );
}

#[test]
fn a_function_call_may_be_code() {
    check_on(
        || rejecting(Pins::of(PinReason::OpaqueCode)),
        &[
            client([function(4711)], [no_function()], Owing),
            server([err("42883", "no"), z(b'I')], [refused(PinReason::OpaqueCode), z(b'I')], Idle),
            // `lo_open`
            client_passes([function(952)], Owing),
            server_passes([raw(b'V', &[0; 4]), z(b'I')], Idle),
        ],
    );
}

/// A Parse that is too long to be kept is refused there; as one that fails, it leaves no unnamed statement.
#[test]
fn a_statement_that_is_too_long_to_be_kept() {
    let long = format!("SELECT '{}'", "x".repeat(1 << 20));
    for reason in [PinReason::LargeStatement, PinReason::Unreadable] {
        let mut bench = rejecting(Pins::of(reason));
        bench.play(&[client_passes([p("", "A")], Owing), server_passes([pc()], InTransaction)], usize::MAX);
        // It is dropped by its length, however it comes.
        let batch = [p("", &long), b("", ""), e(""), s()].concat();
        let mut sent: Vec<u8> =
            batch.chunks(1 << 16).flat_map(|piece| bench.say(&Side::Client, piece).unwrap()).collect();
        sent.extend(bench.say(&Side::Client, b"").unwrap());
        assert_eq!(show(&sent), show(&[cs(""), no_bind(), cs(""), b("", ""), e(""), s()].concat()));
        bench.play(
            &[
                server([cc(), err("26000", "no"), z(b'I')], [refused(reason), z(b'I')], Idle),
                client([p("n", &long), s()], [no_bind(), s()], Owing),
                server([err("26000", "no"), z(b'I')], [refused(reason), z(b'I')], Idle),
            ],
            usize::MAX,
        );
        assert!(bench.client.pins.is_empty());
        assert!(bench.client.unnamed.latest().is_none());
    }
}

/// What each word of `pin_on` refuses, and what it lets through.
#[test]
fn each_reason_refuses_what_would_pin_for_it() {
    let tables: [(PinReason, &[&str], &[&str]); 10] = [
        (
            PinReason::Setting,
            &[
                "SET SESSION AUTHORIZATION bob",
                "SET session_authorization = 'bob'",
                "SELECT set_config('app.' || name, 'x', false) FROM t",
            ],
            &[
                "SET work_mem = '1MB'",
                "SET ROLE bob",
                "RESET ALL",
                "SET LOCAL a.b = 1",
                "SELECT set_config('app.x', $1, false)",
                "DISCARD ALL",
                "SELECT 1; DISCARD ALL",
                "SET SESSION AUTHORIZATION DEFAULT; RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL",
            ],
        ),
        (
            PinReason::PreparedStatement,
            &["PREPARE U&\"s\" AS SELECT 1", "EXECUTE s; DEALLOCATE U&\"t\""],
            &["EXECUTE s", "DEALLOCATE s", "DEALLOCATE ALL", "DEALLOCATE ALL; SELECT 1"],
        ),
        (
            PinReason::TemporaryObject,
            &[
                "CREATE TEMP TABLE t (a int)",
                "CREATE TEMP TABLE t (a int) ON COMMIT DELETE ROWS",
                "CREATE TEMP TABLE a () ON COMMIT DROP; CREATE TEMP TABLE b ()",
                "SELECT 1 INTO TEMP t",
                "CREATE TABLE pg_temp.t (a int)",
                "CREATE TEMP VIEW v AS SELECT 1",
            ],
            &[
                "CREATE TABLE t (a int)",
                "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
                "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1",
                "BEGIN; CREATE LOCAL TEMPORARY TABLE t () on commit drop; COMMIT",
                "DROP TABLE t",
            ],
        ),
        (
            PinReason::SessionLock,
            &["SELECT pg_advisory_lock(1)", "SELECT pg_try_advisory_lock_shared(1, 2)"],
            &["SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_unlock(1)", "LOCK TABLE t"],
        ),
        (
            PinReason::HeldCursor,
            &["DECLARE c CURSOR WITH HOLD FOR SELECT 1"],
            &["DECLARE c CURSOR FOR SELECT 1", "CLOSE c"],
        ),
        (PinReason::Listen, &["LISTEN a", "BEGIN; LISTEN a; COMMIT"], &["UNLISTEN a", "NOTIFY a", "UNLISTEN *"]),
        (PinReason::OpaqueCode, &["DO $$ $$", "CALL p()"], &["SELECT f()"]),
        (
            PinReason::ServerProcess,
            &["LOAD 'x'", "SELECT setseed(0)", "SELECT dblink_connect('')"],
            &["SELECT random()"],
        ),
        (PinReason::Unreadable, &["SELECT 'never ends", "SELECT U&\"a\" FROM t"], &["SELECT 'é'"]),
        (PinReason::LargeStatement, &[], &["SELECT 1"]),
    ];
    for (reason, stopped, sent) in tables {
        for (texts, expected) in [(stopped, NO_QUERY), (sent, "")] {
            for text in texts {
                let expected = if expected.is_empty() { text } else { expected };
                let mut bench = rejecting(Pins::of(reason));
                let arrived = bench.say(&Side::Client, &q(text)).unwrap();
                assert_eq!(show(&arrived), show(&q(expected)), "{reason}: {text}");
                // Where nothing is refused everything passes, and so it does where something else is.
                for policy in [Pins::NONE, Pins::of(PinReason::Sequence)] {
                    assert_eq!(
                        show(&rejecting(policy).say(&Side::Client, &q(text)).unwrap()),
                        show(&q(text)),
                        "{text}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_allowed_leaves_something_and_does_not_pin() {
    let mut bench = allowing(Pins::of(PinReason::Listen).and(Pins::of(PinReason::ServerProcess)));
    bench.play(
        &[
            client_passes([q("LISTEN a")], Owing),
            server_passes([tag("LISTEN"), z(b'I')], Idle),
            client_passes([q("LOAD 'x'")], Owing),
            server_passes([tag("LOAD"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    assert!(bench.client.pins().is_empty());
    let left = Pins::of(PinReason::Listen).and(Pins::of(PinReason::ServerProcess));
    assert_eq!(bench.client.leaves(), left);
    assert!(left.need_reset());
    assert!(!Pins::of(PinReason::ServerProcess).need_reset());
    bench.client.let_go();
    assert!(bench.client.leaves().is_empty());
    // What is not allowed pins beside it.
    bench.play(
        &[
            client_passes([q("LISTEN a; SELECT pg_advisory_lock(1)")], Owing),
            server_passes([tag("LISTEN"), t(), tag("SELECT 1"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    assert_eq!(bench.client.pins(), Pins::of(PinReason::SessionLock));
}

#[test]
fn no_more_clients_are_pinned_than_may_be() {
    let budget = PinBudget::new("main", 50);
    let listens = |bench: &mut Bench, tail: &str| {
        let steps = [client_passes([q("LISTEN a")], Owing), server_passes([tag(tail), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.client.settle_pins();
    };
    let is_refused = |bench: &mut Bench| {
        let steps = [
            client([q("LISTEN a")], [q(NO_QUERY)], Owing),
            server([err("42601", "no"), z(b'I')], [full(), z(b'I')], Idle),
            client([p("", "LISTEN a"), b("", ""), s()], [p("", "LISTEN a"), no_bind(), s()], Owing),
            server([pc(), err("26000", "no"), z(b'I')], [pc(), full(), z(b'I')], Idle),
        ];
        bench.play(&steps, usize::MAX);
        bench.client.settle_pins();
    };
    let (mut one, mut other) = (limited(&budget), limited(&budget));
    listens(&mut one, "LISTEN");
    assert_eq!(budget.held(), 1);
    is_refused(&mut other);
    assert_eq!(budget.held(), 1);
    // Who is pinned may pin for more; what does not pin for sure passes.
    one.play(
        &[
            client_passes([q("SELECT pg_advisory_lock(1)")], Owing),
            server_passes([t(), tag("SELECT 1"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    for text in ["SET work_mem = '1MB'", "CREATE TEMP TABLE t () ON COMMIT DROP", "DO $$ $$", "SELECT nextval('s')"] {
        let sent = limited(&budget).say(&Side::Client, &q(text)).unwrap();
        assert_eq!(show(&sent), show(&q(text)));
    }
    one.client.let_go();
    assert_eq!(budget.held(), 0);
    listens(&mut other, "LISTEN");
    is_refused(&mut one);
    drop(other);
    assert_eq!(budget.held(), 0);
}

/// Between the statement and the end of its transaction nobody else can take the place, and behind it it is free if nothing
/// came of the statement.
#[test]
fn a_place_is_taken_before_the_statement_is_sent() {
    let budget = PinBudget::new("main", 50);
    let (mut one, mut other) = (limited(&budget), limited(&budget));
    assert_eq!(show(&one.say(&Side::Client, &q("LISTEN a")).unwrap()), show(&q("LISTEN a")));
    assert_eq!(show(&other.say(&Side::Client, &q("LISTEN a")).unwrap()), show(&q(NO_QUERY)));
    one.say(&Side::Server, &[err("42501", "no"), z(b'I')].concat()).unwrap();
    one.client.settle_pins();
    assert_eq!(budget.held(), 0);
    // What turns out to pin counts, whether there is a place or not.
    let mut third = limited(&budget);
    for bench in [&mut one, &mut third] {
        bench.play(&[client_passes([q("DO $$ $$")], Owing), server_passes([tag("DO"), z(b'I')], Idle)], usize::MAX);
        bench.client.settle_pins();
    }
    assert_eq!(budget.held(), 2);
}

#[test]
fn a_pin_has_a_cause() {
    let budget = PinBudget::new("main", 50);
    let mut bench = limited(&budget);
    let long = format!("INSERT INTO t VALUES ('{}')", "x".repeat(1000));
    bench.play(
        &[
            client_passes([q(&long), q("SELECT pg_advisory_lock( 42 );")], Owing),
            server_passes([tag("INSERT 0 1"), z(b'I'), t(), tag("SELECT 1"), z(b'I')], Idle),
            client(
                [p("s", "LISTEN a"), b("", "s"), e(""), s()],
                [p(&name("LISTEN a"), "LISTEN a"), b("", &name("LISTEN a")), e(""), s()],
                Owing,
            ),
            server_passes([pc(), bc(), tag("LISTEN"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    let cause =
        |bench: &Bench, reason| bench.client.pin_cause(reason).map(|cause| (cause.fingerprint.0, cause.command));
    let of = |text: &str| crate::sql::fingerprint(text.as_bytes(), Dialect::default());
    assert_eq!(cause(&bench, PinReason::SessionLock), Some((of("select pg_advisory_lock($1)"), "SELECT")));
    assert_eq!(cause(&bench, PinReason::Listen), Some((of("LISTEN a"), "LISTEN")));
    assert_eq!(cause(&bench, PinReason::TemporaryObject), None);
    // What code has left came with the code.
    bench.play(&[client_passes([q("DO 'x'")], Owing), server_passes([tag("DO"), z(b'I')], Idle)], usize::MAX);
    assert_eq!(cause(&bench, PinReason::TemporaryObject), Some((of("DO ''"), "DO")));
    bench.client.let_go();
    assert_eq!(cause(&bench, PinReason::Listen), None);
}
