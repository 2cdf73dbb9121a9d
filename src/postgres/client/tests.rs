//! The client's side of a session: what it has prepared, bound and set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::postgres::server::tests::wire::*;
use crate::protocol::CancelKey;
use proptest::prelude::{any as anything, prop_assert_eq, proptest};

const REFUSAL: ClientError = ClientError::OutcomeUnknown;

fn client() -> Client {
    let login =
        Login { user: "u".into(), database: "d".into(), baseline: Arc::default(), fixed: Vec::new(), keys: None };
    let parameters = Arc::default();
    Client::new(
        &login,
        &Welcome {
            parameters,
            cancel_key: CancelKey { process_id: 1, secret: Box::default() },
            client_id: 1,
            statement_key: [0; 16],
        },
        &[],
    )
}

fn error(fatal: bool) -> Vec<u8> {
    let mut out = Vec::new();
    message::client_error(&REFUSAL, fatal, &mut out);
    out
}

/// Shows the bytes in these pieces; refuses the first so many requests. What was answered, what is left, the verdict.
fn say(pieces: &[&[u8]], mut refusals: usize) -> Result<(Vec<u8>, Vec<u8>, Detached), Violation> {
    let mut client = client();
    let (mut tail, mut out, mut last) = (Vec::new(), Vec::new(), Detached::NeedInput);
    for piece in pieces {
        tail.extend_from_slice(piece);
        loop {
            let (taken, verdict) = client.detached(&tail, &mut out)?;
            tail.drain(..taken);
            last = verdict;
            if !matches!(verdict, Detached::NeedServer(_)) || refusals == 0 {
                break;
            }
            refusals -= 1;
            client.refuse(&REFUSAL, &mut out);
        }
    }
    assert_eq!(client.has_ended(), last == Detached::Ended);
    Ok((out, tail, last))
}

/// Bytes in, in any pieces; answers out, bytes left, verdict.
fn check<const N: usize>(said: &[Vec<u8>], refusals: usize, answers: [Vec<u8>; N], left: &[u8], verdict: Detached) {
    let said = said.concat();
    for piece in [1, 2, 7, usize::MAX] {
        let pieces: Vec<&[u8]> = said.chunks(piece).collect();
        let (out, tail, last) = say(&pieces, refusals).unwrap();
        assert_eq!(show(&out), show(&answers.concat()), "pieces of {piece}");
        assert_eq!((show(&tail), last), (show(left), verdict), "pieces of {piece}");
    }
}

const NEED_SERVER: Detached = Detached::NeedServer(Intent {
    pins_when_sent: Pins::NONE,
    pins_when_done: Pins::NONE,
    clears: crate::protocol::Clears::Nothing,
    asks_sequence: false,
    draws_sequence: false,
    hides_last_value: false,
    looks_at_variables: false,
    changes_settings: false,
    may_end: Pins::NONE,
    passing: Pins::NONE,
});

/// Scenarios 9 and 92.
#[test]
fn what_needs_no_server_is_answered_here() {
    check(&[], 0, [], b"", Detached::NeedInput);
    check(&[s()], 0, [z(b'I')], b"", Detached::NeedInput);
    check(&[h()], 0, [], b"", Detached::NeedInput);
    check(&[s(), h(), d("late"), s(), c(), f()], 0, [z(b'I'), z(b'I')], b"", Detached::NeedInput);
    check(&[x(), q("A")], 0, [], &[x(), q("A")].concat(), Detached::Ended);
    check(&[s(), x()], 0, [z(b'I')], &x(), Detached::Ended);
}

#[test]
fn a_request_asks_for_a_server_once_it_can_be_given_something() {
    for request in [q("A"), p("", "A"), p("a", "A"), ds(""), cs("a"), function(1)] {
        check(&[s(), request.clone()], 0, [z(b'I')], &request, NEED_SERVER);
        for cut in 1..request.len() {
            // The function's number is enough.
            if request[0] == b'F' && cut >= 9 {
                continue;
            }
            check(&[request[..cut].to_vec()], 0, [], &request[..cut], Detached::NeedInput);
        }
    }
    // The names of a long Bind are enough, the head of an Execute is; of a long query its first words must be there.
    let bind = b_with("c", "a", &[&"x".repeat(70 << 10)]);
    check(&[bind[..8].to_vec()], 0, [], &bind[..8], Detached::NeedInput);
    check(&[bind[..9].to_vec()], 0, [], &bind[..9], NEED_SERVER);
    check(
        &[b_with("c", "a", &["value"])[..9].to_vec()],
        0,
        [],
        &b_with("c", "a", &["value"])[..9],
        Detached::NeedInput,
    );
    check(&[e("")[..5].to_vec()], 0, [], &e("")[..5], NEED_SERVER);
    let long = [&b"Q\0\x20\0\0"[..], &[b' '; 9000]].concat();
    check(&[long[..8000].to_vec()], 0, [], &long[..8000], Detached::NeedInput);
    check(std::slice::from_ref(&long), 0, [], &long, NEED_SERVER);
    // As is a Sync or a Flush that is not one: the server says so.
    check(&[raw(b'S', b"?")], 0, [], &raw(b'S', b"?"), NEED_SERVER);
}

#[test]
fn what_no_client_may_send() {
    for kind in (0..=255u8).filter(|kind| !b"QPBEDCSHFdcfX".contains(kind)) {
        assert_eq!(say(&[&raw(kind, b"")], 0), Err(Violation::UnexpectedFrame(kind)));
    }
    assert_eq!(say(&[b"Q\0\0\0\x03"], 0), Err(Violation::InvalidLength));
    assert_eq!(say(&[b"B\x3f\xff\xff\xff"], 0), Err(Violation::InvalidLength));
    assert!(say(&[b"B\x3f\xff\xff\xfe"], 0).is_ok());
}

#[test]
fn a_refused_query_is_dropped_and_the_session_goes_on() {
    check(&[q("A"), s()], 1, [error(false), z(b'I'), z(b'I')], b"", Detached::NeedInput);
    check(&[q("A"), q("B")], 1, [error(false), z(b'I')], &q("B"), NEED_SERVER);
    check(&[q("A"), q("B"), x()], 2, [error(false), z(b'I'), error(false), z(b'I')], &x(), Detached::Ended);
    check(&[function(7), q("B")], 1, [error(false), z(b'I')], &q("B"), NEED_SERVER);
}

#[test]
fn a_refused_extended_request_is_dropped_up_to_its_sync() {
    let exchange = [p("", "A"), b("", ""), q("skipped"), h(), d("x"), c(), function(7), e("")].concat();
    let again = q("B");
    check(&[exchange.clone(), s(), again.clone()], 1, [error(false), z(b'I')], &again, NEED_SERVER);
    // The Sync is still to come: not ready before.
    check(std::slice::from_ref(&exchange), 1, [error(false)], b"", Detached::NeedInput);
    check(&[exchange, x()], 1, [error(false)], &x(), Detached::Ended);
}

/// What was sent behind a `BEGIN` that was refused must not run by itself.
#[test]
fn a_transaction_whose_beginning_was_refused_fails_to_its_end() {
    let check = |said: &[Vec<u8>], refusals, answers: &[Vec<u8>], left: &[u8], verdict| {
        let (out, tail, last) = say(&[&said.concat()], refusals).unwrap();
        assert_eq!((show(&out), show(&tail), last), (show(&answers.concat()), show(left), verdict));
    };
    let fails = || {
        let mut out = Vec::new();
        message::client_error(&ClientError::TransactionRefused, false, &mut out);
        out
    };
    let extended = |text: &str| [p("", text), b("", ""), e(""), s()].concat();
    let refused = || [error(false), z(b'E')].concat();
    let failed = || [fails(), z(b'E')].concat();
    let over = || [tag("ROLLBACK"), z(b'I')].concat();
    for begin in [q("BEGIN"), q("SELECT 1; begin; SELECT 2"), extended("START TRANSACTION")] {
        for next in [q("INSERT"), extended("INSERT"), q("INSERT; COMMIT"), function(1)] {
            for end in ["ROLLBACK", "COMMIT", "end work", "abort"] {
                let said = [begin.clone(), next.clone(), s(), next.clone(), q(end), q("B")];
                let answers = [refused(), failed(), z(b'E'), failed(), over()];
                check(&said, 1, &answers, &q("B"), NEED_SERVER);
            }
            // A server says it of the others.
            for end in [q("ROLLBACK; SELECT 1"), extended("ROLLBACK")] {
                check(&[begin.clone(), next.clone(), end.clone()], 1, &[refused(), failed()], &end, NEED_SERVER);
            }
        }
    }
    // All of it in one exchange, or nothing that opens one.
    let whole = [p("", "BEGIN"), b("", ""), e(""), p("", "COMMIT"), b("", ""), e(""), s()].concat();
    for said in [whole, q("BEGIN; COMMIT"), extended("SELECT 1"), q("SELECT 1")] {
        check(&[said, q("B")], 1, &[error(false), z(b'I')], &q("B"), NEED_SERVER);
    }
    // What is skipped ends nothing.
    let skipped = [p("", "INSERT"), b("", ""), p("", "ROLLBACK"), b("", ""), e(""), s()].concat();
    check(&[q("BEGIN"), skipped, q("B")], 1, &[refused(), failed(), failed()], b"", Detached::NeedInput);
    // Who waits for its answer has no transaction.
    for begin in [q("BEGIN"), extended("BEGIN")] {
        let (out, _, last) = say(&[&begin, &q("B")], 1).unwrap();
        assert_eq!((show(&out), last), (show(&[error(false), z(b'I')].concat()), NEED_SERVER));
    }
}

/// What lives with the proxy is cleared without a server, if that is all there is.
#[test]
fn what_clears_alone_is_answered_here() {
    let none = || [z(b'I')].concat();
    for text in ["DISCARD ALL", " discard /**/ all;", "DEALLOCATE ALL", "deallocate prepare all", "RESET ALL"] {
        let tag_of = ["DISCARD ALL", "DEALLOCATE ALL", "RESET"];
        let upper = text.trim().to_ascii_uppercase();
        let expected = tag_of.iter().find(|tag| upper.starts_with(&tag[..4])).unwrap();
        check(&[q(text), q("B")], 0, [tag(expected), none()], &q("B"), NEED_SERVER);
    }
    for text in ["DISCARD ALL; SELECT 1", "DISCARD TEMP", "DISCARD ALL x", "DEALLOCATE a", "RESET work_mem", "ROLLBACK"]
    {
        check(&[q(text)], 0, [], &q(text), NEED_SERVER);
    }
    // With settings of its own only the statements are the proxy's alone.
    let mut client = client();
    client.has_set(Arc::new(Settings::new([("work_mem", "1MB")])));
    client.statements.insert((*b"a").into(), Prepared::OnConnection);
    for text in ["DISCARD ALL", "RESET ALL"] {
        let mut out = Vec::new();
        assert_eq!(client.detached(&q(text), &mut out), Ok((0, NEED_SERVER)), "{text}");
    }
    let mut out = Vec::new();
    client.detached(&q("DEALLOCATE ALL"), &mut out).unwrap();
    assert!(client.statements.find(b"a").is_none());
}

#[test]
fn last_words() {
    let mut client = client();
    let mut out = Vec::new();
    client.end(&REFUSAL, &mut out);
    assert_eq!(show(&out), show(&error(true)));
    assert!(client.has_ended());
    assert_eq!(client.detached(&q("A"), &mut out), Ok((0, Detached::Ended)));
}

#[test]
fn statements_are_counted_by_their_bytes() {
    let mut statements = Statements::default();
    let statement = |text: &str| {
        let body: Box<[u8]> = parse_body(text).into();
        let id = crate::postgres::statement::Id::of(&[0; 16], &body, 0);
        let (intent, dialect) = Default::default();
        Prepared::Anywhere(Arc::new(Statement {
            id,
            family: id,
            label: 0,
            body,
            intent,
            form: crate::postgres::statement::Form::Parsed,
            changes: None,
            calls: None,
            dialect,
            template: None,
        }))
    };
    statements.insert((*b"a").into(), statement("A"));
    statements.insert((*b"a").into(), statement("longer"));
    statements.insert((*b"b").into(), Prepared::OnConnection);
    assert_eq!(statements.bytes, parse_body("longer").len());
    assert!(statements.has_room(1, 0) && !statements.has_room(1, usize::MAX));
    statements.remove(b"a");
    statements.remove(b"a");
    assert_eq!(statements.bytes, 0);
    for number in 0..10_000 {
        statements.insert(number.to_string().into_bytes().into(), Prepared::OnConnection);
    }
    assert!(!statements.has_room(1, 0));
    statements.clear();
    assert!(statements.has_room(1, 0));
}

proptest! {
    /// However its bytes are cut, a client gets the same answers; and nothing it says makes the machine panic.
    #[test]
    fn cuts_make_no_difference(
        kinds in proptest::collection::vec((proptest::sample::select(b"QPBEDCSHFdcfX!".to_vec()), proptest::collection::vec(anything::<u8>(), 0..9)), 0..12),
        cut in 1..20usize,
        refusals in 0..4usize,
    ) {
        let said: Vec<u8> = kinds.iter().flat_map(|(kind, body)| raw(*kind, body)).collect();
        let pieces: Vec<&[u8]> = said.chunks(cut).collect();
        let at_once = say(&[&said], refusals);
        let in_pieces = say(&pieces, refusals);
        match (at_once, in_pieces) {
            (Ok(at_once), Ok(in_pieces)) => prop_assert_eq!(at_once, in_pieces),
            (at_once, in_pieces) => prop_assert_eq!(at_once.err(), in_pieces.err()),
        }
    }
}
