//! Requests that the proxy cancels and transactions that it fails: who is told what, and when that is over.

use super::*;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3);
const CANCELLED: &str = "canceling statement due to user request";
const FAILED: &str = "current transaction is aborted";

fn told(error: &ClientError) -> Vec<u8> {
    let mut out = Vec::new();
    message::client_error(error, false, &mut out);
    out
}

fn too_long() -> ClientError {
    ClientError::QueryTooLong { limit: LIMIT }
}

fn open_too_long() -> ClientError {
    ClientError::TransactionTooLong { limit: LIMIT }
}

fn in_transaction() -> Bench {
    let mut bench = Bench::new();
    bench
        .play(&[client_passes([q("BEGIN")], Owing), server_passes([tag("BEGIN"), z(b'T')], InTransaction)], usize::MAX);
    bench
}

/// The machine fails the transaction; the database agrees.
fn failed() -> Bench {
    let mut bench = in_transaction();
    let mut out = Vec::new();
    assert!(bench.server.fail_transaction(open_too_long(), &mut out));
    assert_eq!(show(&out), show(&raw(b'Q', &[FAIL_TRANSACTION, b"\0"].concat())));
    // What the client says meanwhile waits.
    bench.play(
        &[
            client([q("SELECT 1")], [], Owing),
            server([tag("ROLLBACK"), tag("BEGIN"), err("3B001", "none"), z(b'E')], [], InTransaction),
            client([], [q("SELECT 1")], Owing),
        ],
        usize::MAX,
    );
    assert!(bench.server.attach_failure().is_none());
    bench
}

#[test]
fn the_words_of_a_limit_stand_in_place_of_the_databases() {
    for (bytes, before) in [(vec![q("SELECT 1")], vec![]), (vec![p("", "A"), b("", ""), e(""), s()], vec![pc(), bc()])]
    {
        let mut bench = Bench::new();
        bench.say(&Side::Client, &bytes.concat()).unwrap();
        bench.server.explain_cancel(too_long());
        let said = [before.concat(), err("57014", CANCELLED), z(b'I')].concat();
        let arrived = bench.say(&Side::Server, &said).unwrap();
        assert_eq!(show(&arrived), show(&[before.concat(), told(&too_long()), z(b'I')].concat()));
        // Once.
        bench.play(
            &[client_passes([q("SELECT 2")], Owing), server_passes([err("57014", CANCELLED), z(b'I')], Idle)],
            usize::MAX,
        );
    }
}

#[test]
fn what_ended_before_it_was_cancelled_leaves_no_words_behind() {
    for status in [b'I', b'T'] {
        let mut bench = Bench::new();
        bench.say(&Side::Client, &q("SELECT 1")).unwrap();
        bench.server.explain_cancel(too_long());
        bench.say(&Side::Server, &[tag("SELECT 1"), z(status)].concat()).unwrap();
        bench.say(&Side::Client, &q("SELECT 2")).unwrap();
        let said = [err("57014", CANCELLED), z(b'I')].concat();
        assert_eq!(show(&bench.say(&Side::Server, &said).unwrap()), show(&said));
    }
}

#[test]
fn another_error_keeps_its_own_words() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("SELECT 1")).unwrap();
    bench.server.explain_cancel(too_long());
    let said = [err("22012", "division by zero"), z(b'I')].concat();
    assert_eq!(show(&bench.say(&Side::Server, &said).unwrap()), show(&said));
}

#[test]
fn a_failed_transaction_is_told_once_and_ends_as_any_other() {
    let mut bench = failed();
    bench.play(
        &[
            server([err("25P02", FAILED), z(b'E')], [told(&open_too_long()), z(b'E')], InTransaction),
            client_passes([q("SELECT 2")], Owing),
            server_passes([err("25P02", FAILED), z(b'E')], InTransaction),
            client_passes([q("ROLLBACK")], Owing),
            server_passes([tag("ROLLBACK"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
}

#[test]
fn who_ends_it_first_hears_nothing_and_nor_does_the_next_transaction() {
    let mut bench = in_transaction();
    assert!(bench.server.fail_transaction(open_too_long(), &mut Vec::new()));
    bench.play(
        &[
            server([tag("ROLLBACK"), tag("BEGIN"), err("3B001", "none"), z(b'E')], [], InTransaction),
            client_passes([q("ROLLBACK")], Owing),
            server_passes([tag("ROLLBACK"), z(b'I')], Idle),
            client_passes([q("BEGIN; bad")], Owing),
            server_passes([tag("BEGIN"), err("42601", "bad"), z(b'E')], InTransaction),
            client_passes([q("SELECT 1")], Owing),
            server_passes([err("25P02", FAILED), z(b'E')], InTransaction),
        ],
        usize::MAX,
    );
}

/// A tag alone would be taken for success: who commits what the proxy has rolled back is told so, once.
#[test]
fn who_commits_what_was_rolled_back_is_told() {
    let in_vain = || {
        let mut bench = in_transaction();
        assert!(bench.server.fail_transaction(open_too_long(), &mut Vec::new()));
        let done = [tag("ROLLBACK"), tag("BEGIN"), err("3B001", "none"), z(b'E')];
        bench.play(&[server(done, [], InTransaction)], usize::MAX);
        bench
    };
    let mut bench = in_vain();
    bench.play(
        &[
            client([q("COMMIT")], [q("SELECT")], Owing),
            server([err("25P02", FAILED), z(b'E')], [told(&open_too_long()), z(b'E')], InTransaction),
            client_passes([q("SELECT 1")], Owing),
            server_passes([err("25P02", FAILED), z(b'E')], InTransaction),
            client_passes([q("COMMIT")], Owing),
            server_passes([tag("ROLLBACK"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    assert!(bench.server.refused().is_none(), "it was counted when it was rolled back");
    // Behind what is told so itself, in one write, it ends the transaction.
    in_vain().play(
        &[
            client_passes([q("SELECT 1"), q("COMMIT")], Owing),
            server(
                [err("25P02", FAILED), z(b'E'), tag("ROLLBACK"), z(b'I')],
                [told(&open_too_long()), z(b'E'), tag("ROLLBACK"), z(b'I')],
                Idle,
            ),
        ],
        usize::MAX,
    );
    let mut bench = in_vain();
    bench.say(&Side::Client, &[p("", "COMMIT"), b("", ""), e(""), s()].concat()).unwrap();
    let arrived = bench.say(&Side::Server, &[pc(), err("26000", "none"), z(b'E')].concat()).unwrap();
    assert_eq!(show(&arrived), show(&[pc(), told(&open_too_long()), z(b'E')].concat()));
    bench.play(&[client_passes([q("ROLLBACK")], Owing), server_passes([tag("ROLLBACK"), z(b'I')], Idle)], usize::MAX);
    // Prepared under a name, in one write with its use.
    let mut bench = in_vain();
    bench.say(&Side::Client, &[p("a", "COMMIT"), s(), b("", "a"), e(""), s()].concat()).unwrap();
    let prepared = [pc(), z(b'E')].concat();
    assert_eq!(show(&bench.say(&Side::Server, &prepared).unwrap()), show(&prepared));
    bench.say(&Side::Client, b"").unwrap();
    let arrived = bench.say(&Side::Server, &[err("26000", "none"), z(b'E')].concat()).unwrap();
    assert_eq!(show(&arrived), show(&[told(&open_too_long()), z(b'E')].concat()));
    // The Parse has failed: that is told, and nothing behind it.
    let mut bench = in_vain();
    let bad = [p("a", "SELECT 1"), p("", "COMMIT"), b("", ""), e(""), s()];
    bench.say(&Side::Client, &bad.concat()).unwrap();
    let arrived = bench.say(&Side::Server, &[err("25P02", FAILED), z(b'E')].concat()).unwrap();
    assert_eq!(show(&arrived), show(&[told(&open_too_long()), z(b'E')].concat()));
}

#[test]
fn only_a_transaction_that_is_open_and_at_rest_is_failed() {
    let fails = |bench: &mut Bench| {
        let mut out = Vec::new();
        let fails = bench.server.fail_transaction(open_too_long(), &mut out);
        assert_eq!(fails, !out.is_empty());
        fails
    };
    assert!(!fails(&mut Bench::new()), "none is open");
    let mut bench = in_transaction();
    bench.say(&Side::Client, &q("SELECT 1")).unwrap();
    assert!(!fails(&mut bench), "replies are owed");
    bench.say(&Side::Server, &[err("42601", "bad"), z(b'E')].concat()).unwrap();
    assert!(!fails(&mut bench), "it has failed already");
    let mut bench = in_transaction();
    bench.say(&Side::Client, &[p("", "A"), h()].concat()).unwrap();
    bench.say(&Side::Server, &pc()).unwrap();
    assert!(!fails(&mut bench), "a request is not done");
}

#[test]
fn what_its_rollback_changes_of_the_settings_the_client_is_told() {
    let mut bench = in_transaction();
    assert!(bench.server.fail_transaction(open_too_long(), &mut Vec::new()));
    let reverted = status("client_encoding", "UTF8");
    let said = [tag("ROLLBACK"), reverted.clone(), tag("BEGIN"), err("3B001", "none"), z(b'E')].concat();
    assert_eq!(show(&bench.say(&Side::Server, &said).unwrap()), show(&reverted));
}
