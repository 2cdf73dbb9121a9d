//! What MySQL's clients say beside their statements, and what MariaDB's may ask for: passed on to a server that knows it, and
//! otherwise left out or refused.

use super::prepared::{done, execute, for_statement, rows};
use super::*;
use crate::mysql::attributes::ATTRIBUTE_BYTES_MAX;

const ATTRIBUTES: Capabilities = MODERN.union(Capabilities::CLIENT_QUERY_ATTRIBUTES);
const BULKS: Extended = Extended::MARIADB_CLIENT_STMT_BULK_OPERATIONS;
/// One, of three letters.
const ONE: &[u8] = b"\x01\x01\x00\x01\xFE\x00\x05trace\x03abc";

/// A client with attributes, before a server that knows them or does not.
fn bench(is_known: bool, piece: usize) -> Bench {
    let mut bench = Bench::new(ATTRIBUTES, piece);
    bench.server.has_attributes = is_known;
    bench
}

fn bulks(is_known: bool) -> Bench {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.client.extended = BULKS;
    bench.server.is_mariadb = true;
    bench.server.takes_bulks = is_known;
    bench
}

fn query(block: &[u8], text: &[u8]) -> Vec<u8> {
    says(command::QUERY, &[block, text].concat())
}

fn told(bench: &mut Bench) -> String {
    let told = bench.hears(&done());
    crate::mysql::message::server_error(&told[4..]).unwrap().code
}

/// Scenario 10.
#[test]
fn attributes_ahead_of_a_text() {
    in_pieces(|piece| {
        for block in [ONE, b"\0\x01"] {
            let mut bench = bench(true, piece);
            let question = query(block, b"SELECT 1");
            assert_eq!(bench.says(&question), question);
            bench.hears(&rows(AUTO));
            assert_eq!(bench.client.pins(), Pins::NONE);
            // What it does is in the text.
            bench.says(&query(block, b"DO GET_LOCK('l', 1)"));
            bench.hears(&done());
            assert_eq!(bench.client.pins(), Pins::of(PinReason::SessionLock));
            assert_eq!(bench.says(&query(block, b"KILL QUERY 9")), b"");
            assert_eq!(bench.client.kill(), Some(Kill { process_id: 9, ends_session: false }));
        }
        // A server that has none gets blanks.
        let mut bench = bench(false, piece);
        assert_eq!(bench.says(&query(ONE, b"SELECT 1")), query(&vec![b' '; ONE.len()], b"SELECT 1"));
    });
}

#[test]
fn a_client_without_a_connection_is_heard_as_well() {
    let mut client = client(ATTRIBUTES, 1);
    let heard = client.detached(&query(ONE, b"KILL 9"), &mut Vec::new()).unwrap();
    assert_eq!(heard, (0, Detached::NeedInput));
    assert_eq!(client.kill(), Some(Kill { process_id: 9, ends_session: true }));
}

/// The proxy's own texts have none, which must be said.
#[test]
fn texts_of_the_proxys_own() {
    let (mut bench, mut out) = (bench(true, usize::MAX), Vec::new());
    bench.server.initialize(&"SET time_zone = '+00:00'".into(), &mut out);
    assert_eq!(out, query(b"\0\x01", b"SET time_zone = '+00:00'"));
}

#[test]
fn a_long_text_behind_attributes() {
    for is_known in [true, false] {
        let mut bench = bench(is_known, 300_000);
        let text = [b"INSERT INTO t VALUES ('", &vec![b'x'; 3 << 20][..], b"'); SET @a = 1"].concat();
        let block = if is_known { ONE.to_vec() } else { vec![b' '; ONE.len()] };
        assert!(bench.says(&query(ONE, &text)) == query(&block, &text));
        // It is read from where it begins up to its end.
        assert_eq!(bench.client.pins, Pins::of(PinReason::UserVariable));
    }
}

#[test]
fn attributes_that_can_not_be_read() {
    in_pieces(|piece| {
        let mut bench = bench(true, piece.max(1000));
        let mut long = b"\x01\x01\x00\x01\xFE\x00\x00\xFD\x00\x00\x01".to_vec();
        long.resize(ATTRIBUTE_BYTES_MAX + 20, b'x');
        for (block, code) in [(b"\0\x02".to_vec(), "1835"), (b"\x01".to_vec(), "1835"), (long, "1235")] {
            assert_eq!(bench.says(&query(&block, b"SELECT 1")), says(command::PING, b""));
            assert_eq!(told(&mut bench), code);
            // Nothing is lost.
            assert_eq!(bench.says(&query(b"\0\x01", b"SELECT 1")), query(b"\0\x01", b"SELECT 1"));
            bench.hears(&rows(AUTO));
        }
    });
}

/// Scenarios 10 and 81.
#[test]
fn attributes_of_an_execution() {
    let attributed =
        |number: u32, body: &[u8]| for_statement(command::STMT_EXECUTE, number, &[&[8, 1, 0, 0, 0], body].concat());
    in_pieces(|piece| {
        // A parameter of one byte, and an attribute; then the same without types, and without attribute.
        let both = b"\x02\0\x01\x01\0\0\xFE\0\x01a\x07\x03abc";
        let mut bench = bench(true, piece);
        let number = bench.prepares("SELECT ?", 9, 1);
        assert_eq!(bench.says(&attributed(number, both)), attributed(9, both));
        bench.hears(&rows(AUTO));
        bench.server = server();
        bench.server.has_attributes = true;
        assert_eq!(bench.attach(), b"");
        bench.says(&attributed(number, b"\x01\0\0\x08"));
        bench.prepares_hidden(2, 1);
        assert_eq!(bench.says(b""), attributed(2, b"\x01\0\x01\x01\0\0\x08"));
        bench.hears(&rows(AUTO));
        // Attributes have types always.
        assert_eq!(bench.says(&attributed(number, b"\x02\0\0\x08\x03abc")), says(command::PING, b""));
        assert_eq!(told(&mut bench), "1835");
        // To a server that has none; what follows the parameters it does not read.
        bench.server.has_attributes = false;
        assert_eq!(bench.says(&attributed(number, both)), execute(2, b"\0\x01\x01\0\x07\x03abc"));
        bench.hears(&rows(AUTO));
        assert_eq!(bench.says(&attributed(number, b"\x01\0\0\x08")), execute(2, b"\0\x01\x01\0\x08"));
        bench.hears(&rows(AUTO));
        assert_eq!(bench.client.pins(), Pins::NONE);
    });
}

/// Scenario 21.
#[test]
fn many_sets_of_parameters_at_once() {
    let bulk = |number: u32, body: &[u8]| for_statement(command::STMT_BULK_EXECUTE, number, body);
    let typed = b"\x80\0\x08\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x01";
    let mut bench = bulks(true);
    let number = bench.prepares("INSERT INTO t VALUES (?)", 9, 1);
    // Whose types were never said.
    assert_eq!(bench.says(&bulk(number, b"\0\0\x01")), says(command::PING, b""));
    assert_eq!(told(&mut bench), "1210");
    assert_eq!(bench.says(&bulk(number, typed)), bulk(9, typed));
    bench.hears(&done());
    bench.server = server();
    bench.server.takes_bulks = true;
    assert_eq!(bench.attach(), b"");
    bench.says(&bulk(number, b"\0\0\x01"));
    bench.prepares_hidden(2, 1);
    assert_eq!(bench.says(b""), bulk(2, b"\x80\0\x08\0\x01"));
    bench.hears(&done());
    assert_eq!(bench.client.pins(), Pins::NONE);
    // In one breath with its PREPARE, as the latest.
    bench.server.is_mariadb = true;
    let pipeline = [says(command::STMT_PREPARE, b"DO GET_LOCK(?, 1)"), bulk(u32::MAX, typed)].concat();
    assert_eq!(bench.says(&pipeline), says(command::STMT_PREPARE, b"DO GET_LOCK(?, 1)"));
    bench.hears(&packets(1, &[super::prepared::prepared(7, 0, 1), column()]));
    assert_eq!(bench.says(b""), bulk(7, typed));
    assert!(bench.client.pins.contains(PinReason::SessionLock));
}

#[test]
fn bulks_of_who_was_not_offered_them() {
    let mut bench = bulks(false);
    let number = bench.prepares("INSERT INTO t VALUES (?)", 9, 1);
    for is_known in [false, true] {
        bench.server.takes_bulks = is_known;
        if is_known {
            bench.client.extended = Extended::empty();
        }
        let bulk = for_statement(command::STMT_BULK_EXECUTE, number, b"\x80\0\x08\0\x01");
        assert_eq!(bench.says(&bulk), says(command::PING, b""));
        assert_eq!(told(&mut bench), "1047");
    }
}

/// Scenario 23.
#[test]
fn how_far_it_has_come_is_no_error() {
    let progress = b"\xFF\xFF\xFF\x01\x01\x02\x00\x00\x01\x05alter".to_vec();
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        bench.server.tells_progress = true;
        bench.says(&says(command::QUERY, b"ALTER TABLE t FORCE"));
        let reply = packets(1, &[progress.clone(), progress.clone(), ok(mark::OK, AUTO)]);
        assert_eq!(bench.hears(&reply), reply);
        assert_eq!(bench.server.status(), Status::Idle);
        // Of what the proxy does itself, nobody hears.
        bench.server.initialize(&"OPTIMIZE TABLE t".into(), &mut Vec::new());
        assert_eq!(bench.hears(&reply), b"");
        assert_eq!(bench.server.status(), Status::Idle);
    });
}

/// Scenario 46: of a packet of three pieces that is refused.
#[test]
fn what_is_told_is_numbered_behind_the_last_piece() {
    let piece = vec![b'x'; crate::mysql::frame::PIECE_BYTES];
    let head = |len: usize, sequence: u8| [&u32::try_from(len).unwrap().to_le_bytes()[..3], &[sequence]].concat();
    let pieces = [&head(piece.len(), 0)[..], b"\x55", &piece[1..], &head(piece.len(), 1), &piece, &head(0, 2)].concat();
    for cut in [500_000, usize::MAX] {
        let mut bench = Bench::new(MODERN, cut);
        assert_eq!(bench.says(&[&pieces[..], &says(command::PING, b"")].concat()), says(command::PING, b"").repeat(2));
        let heard = bench.hears(&done().repeat(2));
        assert_eq!((heard[3], heard[4], heard.ends_with(&done())), (3, 0xFF, true));
    }
}
