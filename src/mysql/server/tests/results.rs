//! Results, and commands, as they pass: packets of every form, cut anywhere.

use super::*;

/// Scenario 6: a client that wants EOF packets, and one that does not.
#[test]
fn results_as_the_client_reads_them() {
    in_pieces(|piece| {
        let result = [count(2), column(), column(), row("x"), row("y"), ok(mark::EOF, AUTO)];
        let mut bench = Bench::new(MODERN, piece);
        let question = says(command::QUERY, b"SELECT a, b");
        assert_eq!(bench.says(&question), question);
        assert_eq!(bench.server.status(), Status::Owing);
        assert_eq!(bench.hears(&packets(1, &result)), packets(1, &result));
        assert_eq!(bench.server.status(), Status::Idle);

        let mut bench = Bench::new(Capabilities::empty(), piece);
        bench.says(&question);
        let older = [count(2), column(), column(), eof(AUTO), row("x"), row("y"), eof(AUTO)];
        assert_eq!(bench.hears(&packets(1, &result)), packets(1, &older));
        // Without rows.
        bench.says(&question);
        let result = [count(1), column(), ok(mark::EOF, AUTO)];
        assert_eq!(bench.hears(&packets(1, &result)), packets(1, &[count(1), column(), eof(AUTO), eof(AUTO)]));
        assert_eq!(bench.server.status(), Status::Idle);
    });
}

/// What a server says of one statement (here: that it used no index) it does not say of the next.
#[test]
fn the_status_of_one_statement_is_not_the_next_ones() {
    const NO_INDEX: u16 = 0x20;
    let mut bench = Bench::new(Capabilities::empty(), usize::MAX);
    let question = says(command::QUERY, b"SELECT a");
    let told = AUTO | status::NO_BACKSLASH_ESCAPES;
    for first in [AUTO, told] {
        bench.says(&question);
        let result = [count(1), column(), row("x"), ok(mark::EOF, told | NO_INDEX)];
        let heard = bench.hears(&packets(1, &result));
        assert_eq!(heard, packets(1, &[count(1), column(), eof(first), row("x"), eof(told | NO_INDEX)]));
    }
    let (mut out, ping) = (Vec::new(), says(command::PING, b""));
    assert_eq!(bench.client.detached(&ping, &mut out).unwrap(), (ping.len(), Detached::NeedInput));
    assert_eq!(out, packets(1, &[ok(mark::OK, told)]));
}

/// What follows would be taken for a column, and its end for another reply's.
#[test]
fn a_result_without_columns_is_none() {
    for none in [vec![0xFC, 0, 0], vec![0xFD, 0, 0, 0], vec![0xFE, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut bench = Bench::new(MODERN, 1000);
        bench.says(&says(command::QUERY, b"SELECT"));
        let heard = bench.server.receive(&packets(1, &[none]), Some(&mut bench.client), &mut Out::new());
        assert!(matches!(heard, Err(Violation::MalformedFrame(_))), "{heard:?}");
    }
}

/// Scenarios 46 and 91.
#[test]
fn several_results_and_an_error_behind_them() {
    in_pieces(|piece| {
        let more = AUTO | status::MORE_RESULTS;
        let mut bench = Bench::new(Capabilities::empty(), piece);
        bench.says(&says(command::QUERY, b"CALL p()"));
        let parts = [count(1), column(), row("x"), ok(mark::EOF, more), ok(mark::OK, more)];
        let older = [count(1), column(), eof(AUTO), row("x"), eof(more), ok(mark::OK, more)];
        assert_eq!(bench.hears(&packets(1, &parts)), packets(1, &older));
        assert_eq!(bench.server.status(), Status::Owing);
        assert_eq!(bench.hears(&packets(6, &[err(1064)])), packets(7, &[err(1064)]));
        assert_eq!(bench.server.owed.len(), 0);
    });
}

/// Scenario 8.
#[test]
fn trackers_are_for_those_who_understand_them() {
    in_pieces(|piece| {
        let tracked = OkPacket {
            affected: 1,
            insert_id: 300,
            status: AUTO | status::STATE_CHANGED,
            warnings: 2,
            info: b"Rows matched: 1",
            changes: b"\x01\x03\x02db",
        };
        let told = ok_with(mark::OK, tracked);
        let mut bench = Bench::new(MODERN, piece);
        bench.says(&says(command::QUERY, b"UPDATE t"));
        let told = [told];
        assert_eq!(bench.hears(&packets(1, &told)), packets(1, &told));
        let mut bench = Bench::new(Capabilities::CLIENT_DEPRECATE_EOF, piece);
        bench.says(&says(command::QUERY, b"UPDATE t"));
        let mut plain = Vec::new();
        tracked.write(mark::OK, false, &mut plain);
        assert_eq!(bench.hears(&packets(1, &told)), packets(1, &[plain]));
        // Behind a warning the server is asked what it is.
        let names: Vec<&str> = bench.client.unread.names().collect();
        assert_eq!((bench.client.insert_id, names), (0, vec!["last_insert_id"]));
    });
}

/// Scenario 7: a row that begins like the end of rows, and is too long for that.
#[test]
fn a_row_that_begins_like_an_end() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SELECT a"));
    bench.hears(&packets(1, &[count(1), column()]));
    let long = [&[0xFF, 0xFF, 0xFF, 3, 0xFE][..], &vec![b'x'; 0xFF_FFFF - 1], &[2, 0, 0, 4, b'x', b'x']].concat();
    assert_eq!(bench.hears(&long), long);
    assert_eq!(bench.server.status(), Status::Owing);
    let end = packets(5, &[ok(mark::EOF, AUTO)]);
    assert_eq!(bench.hears(&end), end);
    assert_eq!(bench.server.status(), Status::Idle);
}

/// Scenario 47: commands of exactly the length of a piece, and around it.
#[test]
fn commands_of_many_pieces() {
    for len in [0xFF_FFFE, 0xFF_FFFF, 0x100_0000, 2 * 0xFF_FFFF] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        let text = [&[command::QUERY][..], &vec![b' '; len - 1]].concat();
        let mut said = Vec::new();
        let (mut rest, mut sequence) = (text.as_slice(), 0);
        loop {
            let (piece, more) = rest.split_at(rest.len().min(0xFF_FFFF));
            frame_piece(&mut said, sequence, piece);
            (rest, sequence) = (more, sequence + 1);
            if piece.len() < 0xFF_FFFF {
                break;
            }
        }
        assert_eq!(bench.says(&said), said);
        assert_eq!(bench.client.pins, Pins::NONE);
        let reply = packets(sequence, &[err(1065)]);
        assert_eq!(bench.hears(&reply), reply);
    }
}

pub(super) fn frame_piece(out: &mut Vec<u8>, sequence: u8, piece: &[u8]) {
    crate::mysql::frame::put_head(out, crate::mysql::frame::Head { len: piece.len(), sequence });
    out.extend_from_slice(piece);
}

/// Scenarios 12 and 51.
#[test]
fn a_file_of_the_clients() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        bench.says(&says(command::QUERY, b"LOAD DATA LOCAL INFILE 'f' INTO TABLE t"));
        let wanted = packets(1, &[b"\xFBf".to_vec()]);
        assert_eq!(bench.hears(&wanted), wanted);
        let content = packets(2, &[b"1\n".to_vec(), b"\x01\n".to_vec(), b"".to_vec()]);
        assert_eq!(bench.says(&content), content);
        assert_eq!(bench.server.status(), Status::Owing);
        let done = packets(5, &[ok(mark::OK, AUTO)]);
        assert_eq!(bench.hears(&done), done);
        assert_eq!(bench.server.status(), Status::Idle);
        // The server has had enough in the middle of it.
        bench.says(&says(command::QUERY, b"LOAD DATA LOCAL INFILE 'f' INTO TABLE t"));
        bench.hears(&wanted);
        bench.says(&packets(2, &[b"1\n".to_vec()]));
        bench.hears(&packets(3, &[err(1062)]));
        assert_eq!(bench.says(&packets(3, &[b"2\n".to_vec(), b"".to_vec()])), b"");
        let ping = says(command::PING, b"");
        assert_eq!(bench.says(&ping), ping);
    });
    // Sent before the server has asked for it, with what comes behind it.
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let load = says(command::QUERY, b"LOAD DATA LOCAL INFILE 'f' INTO TABLE t");
        let content = packets(2, &[b"1\n".to_vec(), b"".to_vec()]);
        let ping = says(command::PING, b"");
        assert_eq!(bench.says(&[&load[..], &content, &ping].concat()), load);
        bench.hears(&packets(1, &[b"\xFBf".to_vec()]));
        assert_eq!(bench.says(b""), content);
        bench.hears(&packets(4, &[ok(mark::OK, AUTO)]));
        assert_eq!(bench.says(b""), ping);
        // It wants none.
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        assert_eq!(bench.says(&[&load[..], &ping].concat()), load);
        bench.hears(&packets(1, &[err(1146)]));
        assert_eq!(bench.says(b""), ping);
    });
    // Nobody has asked for one.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SELECT 1"));
    let mut out = Out::new();
    let asked = packets(1, &[b"\xFB/etc/passwd".to_vec()]);
    assert!(bench.server.receive(&asked, Some(&mut bench.client), &mut out).is_err());
    assert!(out.is_empty());
}
