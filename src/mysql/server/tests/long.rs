//! Texts that are too long to be kept: what they say they do counts at their end, and as long as they pass nobody else gets the connection.

use super::*;
use crate::mysql::frame::PIECE_BYTES;

/// A command of as many pieces as it needs.
fn query(text: &[u8]) -> Vec<u8> {
    let (mut out, mut sequence) = (Vec::new(), 0);
    let payload = [&[command::QUERY], text].concat();
    let mut rest = &payload[..];
    loop {
        let (piece, behind) = rest.split_at(rest.len().min(PIECE_BYTES));
        super::results::frame_piece(&mut out, sequence, piece);
        (rest, sequence) = (behind, sequence + 1);
        if piece.len() < PIECE_BYTES {
            return out;
        }
    }
}

/// With more in its midst than is read before it is sent.
fn long(first: &str, last: &str) -> Vec<u8> {
    [first.as_bytes(), &vec![b'x'; 3 * TEXT_BYTES_MAX / 2], last.as_bytes()].concat()
}

fn done() -> Vec<u8> {
    packets(1, &[ok(mark::OK, AUTO)])
}

impl Bench {
    fn pins(&self) -> Vec<PinReason> {
        self.client.pins.iter().collect()
    }

    /// Without those that come with what is not known.
    fn lasting_pins(&self) -> Vec<PinReason> {
        self.client.pins.without(Pins::of(PinReason::Sequence)).iter().collect()
    }
}

/// What the client keeps its connection for behind such a text.
fn pins_behind(text: &[u8]) -> Vec<PinReason> {
    let mut bench = Bench::new(MODERN, 99_999);
    let request = query(text);
    assert!(bench.says(&request) == request);
    assert_eq!(bench.server.status(), Status::Owing);
    assert_eq!(bench.hears(&done()), done());
    bench.lasting_pins()
}

#[test]
fn what_leaves_nothing_keeps_nobody() {
    for piece in [usize::MAX, 1 << 20, 65_537, 7919] {
        let mut bench = Bench::new(MODERN, piece);
        let request = query(&long("INSERT INTO t VALUES (1, '", "'), (2, \"it's\"), (0x1F, NULL)"));
        let (begun, rest) = request.split_at(TEXT_BYTES_MAX + 9999);
        let mut arrived = bench.says(begun);
        assert!(!arrived.is_empty() && bench.server.status() == Status::Owing && bench.server.needs_client());
        arrived.extend(bench.says(rest));
        assert!(arrived == request);
        assert!(bench.server.long.is_none() && !bench.server.needs_client());
        bench.hears(&done());
        assert_eq!((bench.server.status(), bench.pins()), (Status::Idle, Vec::new()));
        // It has failed: the server is asked what of it stays, and nothing keeps the client.
        bench.says(&request);
        bench.hears(&packets(1, &[err(1062)]));
        assert!(bench.server.in_doubt && bench.server.probe(&mut Vec::new()));
        bench.hears(&done());
        // Its first row may have drawn a number.
        assert_eq!(bench.verify(), ["SELECT @@SESSION.last_insert_id LIMIT 1"]);
    }
}

#[test]
fn what_stands_behind_counts() {
    use PinReason::{OpaqueCode, Setting, UserVariable};
    let insert = "INSERT INTO t VALUES ('";
    for (first, last, pins) in [
        (insert, "'); SET @a = 1", &[UserVariable][..]),
        (insert, "'), (@a := 1)", &[UserVariable]),
        (insert, "'); SET SESSION sql_mode = ''", &[Setting]),
        (insert, "'); USE x", &[Setting]),
        (insert, "'); DO GET_LOCK('a', 1)", &[PinReason::SessionLock]),
        (insert, "', f(1))", &[OpaqueCode]),
        (insert, "'); KILL 5", &[PinReason::Unreadable]),
        (insert, "') /*! SELECT 1 */", &[PinReason::Unreadable]),
        (insert, "", &[PinReason::Unreadable]),
        ("CREATE TEMPORARY TABLE a SELECT '", "' AS b", &[PinReason::TemporaryObject]),
        ("SELECT '", "' INTO @a", &[UserVariable]),
        (insert, "'); SELECT 1", &[]),
        (insert, "\\'); KILL 5 -- ')", &[]),
    ] {
        assert_eq!(pins_behind(&long(first, last)), pins, "{first} {last}");
    }
}

/// Pieces of 16 MiB, the last of which may be empty.
#[test]
fn texts_of_many_pieces() {
    let text = |bytes: usize, last: &str| {
        let first = "INSERT INTO t VALUES ('";
        [first.as_bytes(), &vec![b'x'; bytes - 1 - first.len() - last.len()], last.as_bytes()].concat()
    };
    for bytes in [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, PIECE_BYTES + 2, 2 * PIECE_BYTES] {
        assert_eq!(pins_behind(&text(bytes, "')")), [], "{bytes}");
        assert_eq!(pins_behind(&text(bytes, "'); SET @a = 1")), [PinReason::UserVariable], "{bytes}");
    }
}

#[test]
fn what_is_seen_before_it_is_sent_is_refused() {
    let mut bench = Bench::new(MODERN, 99_999);
    assert_eq!(bench.says(&query(&long("KILL 5 /*", "*/"))), says(command::PING, b""));
    let told = bench.hears(&done());
    assert!(told.windows(4).any(|word| word == b"KILL"), "{}", told.escape_ascii());
    assert_eq!(bench.server.status(), Status::Idle);
}

/// What the server answers before it has all of it is no answer to what stands there.
#[test]
fn an_answer_that_comes_too_early() {
    use PinReason::{Setting, Unreadable};
    // Its first row may have drawn a number.
    for (answer, pins) in [(err(1153), &[Setting, Unreadable][..]), (ok(mark::OK, AUTO), &[Unreadable])] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        let request = query(&long("INSERT INTO t VALUES ('", "')"));
        let (begun, rest) = request.split_at(TEXT_BYTES_MAX + 99);
        bench.says(begun);
        bench.hears(&packets(1, &[answer]));
        assert_ne!(bench.server.status(), Status::Idle);
        bench.says(rest);
        assert_eq!(bench.lasting_pins(), pins);
    }
}

/// Another client's last values are not there, wherever it asks for them; and its own stay if it has asked once.
#[test]
fn last_values() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.client = client(MODERN, 2);
    bench.server.insert_id = Some(7);
    bench.attach();
    let request = query(&long("SELECT '", "', LAST_INSERT_ID()"));
    let sent = bench.says(&request);
    assert!(sent.ends_with(&request) && texts(&sent).len() == 3);
    bench.hears(&packets(1, &[count(1), column(), ok(mark::EOF, AUTO)]));
    bench.hears(&[done(), done()].concat());
    assert_eq!(bench.pins(), []);
    bench.says(&query(&long("INSERT INTO t VALUES ('", "')")));
    bench.hears(&done());
    assert_eq!(bench.pins(), [PinReason::Sequence]);
}

#[test]
fn a_file_is_asked_for_by_who_may() {
    let file = packets(1, &[b"\xFB/tmp/rows".to_vec()]);
    for (last, is_asked) in [("' INTO TABLE t", true), ("'", false)] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        let first = if is_asked { "LOAD DATA LOCAL INFILE '" } else { "SELECT '" };
        let request = query(&long(first, last));
        let (begun, rest) = request.split_at(TEXT_BYTES_MAX + 99);
        bench.says(begun);
        bench.says(rest);
        let mut out = Out::new();
        assert_eq!(bench.server.receive(&file, Some(&mut bench.client), &mut out).is_ok(), is_asked);
    }
}

/// The last statement of a text ends a transaction, or the connection.
#[test]
fn transactions_and_connections_that_end() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&query(&long("COMMIT RELEASE /*", "*/")));
    bench.hears(&done());
    assert_eq!((bench.server.status(), bench.pins()), (Status::Ended, Vec::new()));
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&query(&long("INSERT INTO t VALUES ('", "'); BEGIN; x")));
    bench.hears(&packets(1, &[err(1064)]));
    assert_eq!(bench.server.status(), Status::InTransaction);
}

/// A temporary table that may have another name behind it.
#[test]
fn tables_that_may_have_another_name() {
    let table = |bench: &mut Bench, text: &str| {
        bench.says(&says(command::QUERY, text.as_bytes()));
        bench.hears(&done());
    };
    for (first, last, pins) in [
        ("ALTER TABLE a COMMENT '", "', RENAME b", &[PinReason::TemporaryObject][..]),
        ("INSERT INTO a VALUES ('", "')", &[]),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        table(&mut bench, "CREATE TEMPORARY TABLE a (b TEXT)");
        assert_eq!(bench.pins(), [PinReason::TemporaryObject]);
        bench.says(&query(&long(first, last)));
        bench.hears(&done());
        table(&mut bench, "DROP TABLE a");
        assert_eq!(bench.pins(), pins);
    }
}
