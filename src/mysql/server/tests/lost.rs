//! A connection that is lost under its client, at every point: what the client is told, and what it may do next. Scenarios 55, 56, 103
//! and 104.

use super::*;
use crate::mysql::frame::HEAD_BYTES;
use crate::protocol::Loss;

const OPEN: u16 = AUTO | status::IN_TRANSACTION;

/// An error of the proxy's, with this number.
fn error_codes(told: &[u8]) -> Vec<(u8, String)> {
    let (mut codes, mut rest) = (Vec::new(), told);
    while let Some(head) = crate::mysql::frame::head(rest) {
        let payload = &rest[HEAD_BYTES..head.bytes()];
        let code = crate::mysql::message::server_error(payload).map_or_else(|| "OK".to_owned(), |error| error.code);
        codes.push((head.sequence, code));
        rest = &rest[head.bytes()..];
    }
    codes
}

fn coded(expected: &[(u8, &str)]) -> Vec<(u8, String)> {
    expected.iter().map(|(sequence, code)| (*sequence, (*code).to_owned())).collect()
}

impl Bench {
    fn lose(&mut self, expected: Loss) -> Vec<(u8, String)> {
        let (mut out, has_more) = (Vec::new(), !self.client_tail.is_empty());
        assert_eq!(self.server.lose(&mut self.client, has_more, &mut out), expected);
        assert!(
            expected == Loss::Session || self.server.status() == Status::Ended,
            "it must not be given to anybody else"
        );
        self.client.let_go();
        error_codes(&out)
    }

    /// What a client without a connection is told; `None`: it needs one.
    fn asks(&mut self, sql: &str) -> Option<(u8, String)> {
        let (mut out, input) = (Vec::new(), says(command::QUERY, sql.as_bytes()));
        let (taken, verdict) = self.client.detached(&input, &mut out).unwrap();
        assert_eq!((taken > 0, matches!(verdict, Detached::NeedServer(_))), (!out.is_empty(), out.is_empty()));
        error_codes(&out).pop()
    }

    /// Says so much, of which the server answers these: with that status, or that error.
    fn exchange(&mut self, said: &[(&str, Option<u16>)]) {
        for (sql, answer) in said {
            self.says(&says(command::QUERY, sql.as_bytes()));
            if let Some(status) = answer {
                self.hears(&packets(1, &[ok(mark::OK, *status)]));
            }
        }
    }

    fn is_failed(&mut self) -> bool {
        let is_failed = self.asks("SELECT 1").is_some_and(|(_, code)| code == "1213");
        assert_eq!(self.asks("ROLLBACK").is_some(), is_failed);
        assert_eq!(self.asks("SELECT 1"), None, "it is as good as ever");
        is_failed
    }
}

/// What was said and answered; what the client is told of what was not; whether it is in a failed transaction then.
#[test]
fn what_is_told_of_what_was_not_answered() {
    let begun = ("BEGIN", Some(OPEN));
    let insert = ("INSERT INTO t VALUES (1)", None);
    for (said, told, is_failed) in [
        // Outside of a transaction nobody knows.
        (&[insert][..], &["1158"][..], false),
        (&[insert, ("SELECT 1", None)], &["1158", "1158"], false),
        (&[("CALL p()", None)], &["1158"], false),
        // In a transaction, everything is known to be rolled back.
        (&[begun, insert], &["1213"], true),
        (&[begun, ("INSERT INTO t VALUES (2)", Some(OPEN)), insert, ("SELECT 1", None)], &["1213", "1213"], true),
        (&[begun, ("SAVEPOINT a", Some(OPEN)), ("ROLLBACK TO a", None)], &["1213"], true),
        // Unless something may have ended it.
        (&[begun, ("COMMIT", None)], &["1158"], false),
        (&[begun, ("ROLLBACK", None)], &["1158"], false),
        (&[begun, insert, ("COMMIT", None)], &["1158", "1158"], false),
        (&[begun, ("COMMIT AND CHAIN", None)], &["1158"], true),
        (&[begun, ("CREATE TABLE u (i int)", None)], &["1158"], true),
        (&[begun, ("CALL p()", None)], &["1158"], true),
        (&[begun, ("COMMIT; SELECT 1", None)], &["1158"], true),
        (&[begun, ("COMMIT", None), ("BEGIN", None), insert], &["1158", "1158", "1158"], true),
        // Who waits for the answer to a BEGIN learns that there is none; who does not, must not go on without it.
        (&[("BEGIN", None)], &["1158"], false),
        (&[("BEGIN", None), insert], &["1158", "1158"], true),
        (&[("BEGIN", None), insert, ("COMMIT", None)], &["1158", "1158", "1158"], false),
        // Without autocommit a statement begins one by itself.
        (&[("DO 1", Some(0)), insert], &["1213"], true),
        (&[("DO 1", Some(0)), insert, ("COMMIT", None)], &["1158", "1158"], false),
        (&[("SELECT i FROM t", Some(status::IN_TRANSACTION)), insert], &["1213"], true),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.exchange(said);
        let told: Vec<(u8, &str)> = told.iter().map(|code| (1, *code)).collect();
        assert_eq!(bench.lose(Loss::Work), coded(&told), "{said:?}");
        assert_eq!(bench.is_failed(), is_failed, "{said:?}");
    }
}

/// An idle transaction: what is asked for next is told, and what comes behind that.
#[test]
fn a_transaction_that_is_lost_while_nothing_is_asked_for() {
    for last in ["ROLLBACK", "COMMIT"] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.exchange(&[("BEGIN", Some(OPEN))]);
        assert_eq!(bench.lose(Loss::Work), []);
        assert_eq!(bench.server.refused(), Some(ClientError::TransactionLost));
        assert_eq!(bench.server.refused(), None);
        for asked in ["INSERT INTO t VALUES (1)", "BEGIN", "SELECT 1"] {
            assert_eq!(bench.asks(asked), Some((1, "1213".to_owned())), "{asked}");
        }
        assert_eq!(bench.asks("ROLLBACK TO a"), Some((1, "1305".to_owned())));
        let told = if last == "COMMIT" { "1213" } else { "OK" };
        assert_eq!(bench.asks(last), Some((1, told.to_owned())));
        assert_eq!(bench.asks("SELECT 1"), None);
    }
}

/// What the server says as it ends the connection is not the answer to what was asked for, nor to what comes next.
#[test]
fn a_server_that_says_why_it_ends_the_connection() {
    for (code, sequence) in [(1927, 1), (1053, 1), (4031, 0)] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.exchange(&[("BEGIN", Some(OPEN))]);
        if sequence > 0 {
            bench.exchange(&[("INSERT INTO t VALUES (1)", None)]);
        }
        assert_eq!(bench.hears(&packets(sequence, &[err(code)])), b"");
        assert_eq!(bench.server.status(), Status::Ended);
        let told: &[(u8, &str)] = if sequence > 0 { &[(1, "1213")] } else { &[] };
        assert_eq!(bench.lose(Loss::Work), coded(told));
        assert!(bench.is_failed());
    }
    // Nothing was under way.
    let mut bench = Bench::new(MODERN, usize::MAX);
    assert_eq!(bench.hears(&packets(0, &[err(4031)])), b"");
    assert_eq!(bench.lose(Loss::Nothing), []);
    // Who has more on the connection than a transaction gets the server's words, and leaves.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.exchange(&[("CREATE TEMPORARY TABLE mine (i int)", Some(AUTO)), ("SELECT i FROM mine", None)]);
    let words = packets(1, &[err(1927)]);
    assert_eq!((bench.hears(&words), bench.server.status()), (words, Status::Ended));
}

/// In the middle of a result the error stands where its next packet would; within a packet there is no place for one.
#[test]
fn in_the_middle_of_a_reply() {
    let result = [vec![1], column(), b"\x01a".to_vec(), b"\x01b".to_vec()];
    for sent in 0..=result.len() {
        for capabilities in [MODERN, Capabilities::empty()] {
            let mut bench = Bench::new(capabilities, usize::MAX);
            bench.says(&says(command::QUERY, b"SELECT a FROM t"));
            let heard = bench.hears(&packets(1, &result[..sent]));
            let next = error_codes(&heard).last().map_or(1, |(sequence, _)| sequence + 1);
            let told = match sent {
                // No client takes it for an error there.
                1 => {
                    assert_eq!(bench.lose(Loss::Session), []);
                    continue;
                }
                2 if capabilities.is_empty() => coded(&[(next, "OK"), (next + 1, "1158")]),
                _ => coded(&[(next, "1158")]),
            };
            assert_eq!(bench.lose(Loss::Work), told, "{sent}");
        }
    }
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SELECT a FROM t"));
    let whole = packets(1, &result);
    bench.hears(&whole[..whole.len() - 1]);
    let mut out = Vec::new();
    assert_eq!(bench.server.lose(&mut bench.client, false, &mut out), Loss::Session);
    assert_eq!(out, b"");
}

/// A command that is half sent is read over to its end, and answered there.
#[test]
fn in_the_middle_of_a_command() {
    let long = says(command::QUERY, &[&b"INSERT INTO t VALUES (1) -- "[..], &vec![b'x'; TEXT_BYTES_MAX + 10]].concat());
    let next = says(command::QUERY, b"SELECT 1");
    let mut bench = Bench::new(MODERN, usize::MAX);
    // It would pin: it is allowed not to.
    bench.exchange(&[("BEGIN", Some(OPEN))]);
    let (first, rest) = long.split_at(long.len() - 5);
    bench.says(first);
    bench.client.pins = Pins::NONE;
    let mut out = Vec::new();
    assert_eq!(bench.server.lose(&mut bench.client, false, &mut out), Loss::Work);
    assert_eq!(out, b"");
    let input = [rest, &next].concat();
    let (taken, verdict) = bench.client.detached(&input, &mut out).unwrap();
    // What can't be read may have ended the transaction.
    assert_eq!((taken, verdict), (input.len(), Detached::NeedInput));
    assert_eq!(error_codes(&out), coded(&[(1, "1158"), (1, "1213")]));
}

/// The server has answered a command before it had all of it: what is still to come of that is no command.
#[test]
fn in_the_middle_of_a_command_that_has_its_answer() {
    let blob =
        [&b"INSERT INTO t VALUES (1) -- "[..], &vec![b'x'; TEXT_BYTES_MAX], &says(command::QUERY, b"DO 1")].concat();
    let long = says(command::QUERY, &blob);
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.exchange(&[("BEGIN", Some(OPEN))]);
    let (first, rest) = long.split_at(long.len() - says(command::QUERY, b"DO 1").len());
    bench.says(first);
    bench.client.pins = Pins::NONE;
    let answer = packets(1, &[err(1153)]);
    assert_eq!(bench.hears(&answer), answer);
    let mut out = Vec::new();
    assert_eq!(bench.server.lose(&mut bench.client, false, &mut out), Loss::Work);
    let input = [rest, &says(command::QUERY, b"SELECT 1")].concat();
    let (taken, verdict) = bench.client.detached(&input, &mut out).unwrap();
    assert_eq!((taken, verdict), (input.len(), Detached::NeedInput));
    assert_eq!(error_codes(&out), coded(&[(1, "1213")]));
}

/// A transaction of XA's on a connection that others have had: what the proxy makes the client's own ahead of it ends none.
#[test]
fn a_transaction_of_xa_behind_words_of_the_proxys_own() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.client = client(MODERN, 2);
    bench.attach();
    bench.exchange(&[("INSERT INTO t VALUES (1)", Some(AUTO))]);
    bench.client = client(MODERN, 1);
    bench.attach();
    let said = texts(&bench.says(&says(command::QUERY, b"XA START 'x'")));
    assert!(said.len() > 1 && said.ends_with(&["XA START 'x'".to_owned()]), "{said:?}");
    said.iter().skip(1).for_each(|_| _ = bench.hears(&packets(1, &[ok(mark::OK, AUTO)])));
    bench.hears(&packets(1, &[ok(mark::OK, OPEN)]));
    assert_eq!(bench.lose(Loss::Session), []);
}

/// A file that the client sends is read over to its end.
#[test]
fn in_the_middle_of_a_file() {
    let load = b"LOAD DATA LOCAL INFILE 'f' INTO TABLE t";
    for (pieces, number) in
        [(vec![], 3), (packets(2, &[b"a,b".to_vec()]), 4), (packets(2, &[b"a,b".to_vec()])[..5].to_vec(), 4)]
    {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, load));
        let asked = packets(1, &[[&[mark::LOCAL_FILE], &b"f"[..]].concat()]);
        assert_eq!(bench.hears(&asked), asked);
        bench.says(&pieces);
        assert_eq!(bench.lose(Loss::Work), []);
        let whole = [packets(2, &[b"a,b".to_vec()]), packets(3, &[vec![]])].concat();
        let input = if pieces.is_empty() { packets(2, &[vec![]]) } else { whole[pieces.len()..].to_vec() };
        let mut out = Vec::new();
        let input = [input, says(command::PING, b"")].concat();
        let (taken, _) = bench.client.detached(&input, &mut out).unwrap();
        assert_eq!(taken, input.len());
        assert_eq!(error_codes(&out), coded(&[(number, "1158"), (1, "OK")]));
    }
}

/// What the proxy has refused by itself is refused all the same, and what it asks for itself nobody hears of.
#[test]
fn what_is_the_proxys_own() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.exchange(&[("SELECT 1", None)]);
    bench.says(&says(command::BINLOG_DUMP, b""));
    assert_eq!(bench.lose(Loss::Work), coded(&[(1, "1158"), (1, "1227")]));
    // It rolls back as it is lost: that was the client's news already.
    let why = || ClientError::TransactionTooLong { limit: std::time::Duration::from_secs(1) };
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.exchange(&[("BEGIN", Some(OPEN))]);
    assert!(bench.server.fail_transaction(why(), &mut Vec::new()));
    assert_eq!(bench.lose(Loss::Work), []);
    assert_eq!(bench.asks("SELECT 1"), Some((1, "1317".to_owned())));
    assert!(bench.is_failed());
}

/// What outlives its connection has not been rolled back, and what an error has left open nobody knows.
#[test]
fn what_is_not_known() {
    for said in [
        &[("XA START 'x'", Some(OPEN)), ("XA END 'x'", Some(OPEN)), ("XA PREPARE 'x'", Some(OPEN))][..],
        &[("XA START 'x'", Some(OPEN)), ("INSERT INTO t VALUES (1)", None)],
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.exchange(said);
        assert_eq!(bench.lose(Loss::Session), []);
    }
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.exchange(&[("XA START 'x'", Some(OPEN)), ("XA ROLLBACK 'x'", Some(AUTO)), ("BEGIN", Some(OPEN))]);
    assert_eq!(bench.lose(Loss::Work), []);
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.exchange(&[("EXECUTE IMMEDIATE @a", None)]);
    bench.hears(&packets(1, &[err(1644)]));
    assert_eq!(bench.lose(Loss::Session), []);
}
