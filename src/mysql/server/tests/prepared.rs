//! Prepared statements: whose they are, what the server is asked, and what keeps their client where it is.

use super::*;
use crate::mysql::statement::LATEST;

/// What the server answers to a PREPARE.
pub(super) fn prepared(number: u32, columns: u16, parameters: u16) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&columns.to_le_bytes());
    out.extend_from_slice(&parameters.to_le_bytes());
    out.extend_from_slice(&[0, 0, 0]);
    out
}

pub(super) fn for_statement(command: u8, number: u32, body: &[u8]) -> Vec<u8> {
    says(command, &[&number.to_le_bytes(), body].concat())
}

/// Without parameters, or with what stands behind the flags.
pub(super) fn execute(number: u32, body: &[u8]) -> Vec<u8> {
    for_statement(command::STMT_EXECUTE, number, &[&[0, 1, 0, 0, 0], body].concat())
}

fn with_cursor(number: u32) -> Vec<u8> {
    for_statement(command::STMT_EXECUTE, number, &[1, 1, 0, 0, 0])
}

pub(super) fn done() -> Vec<u8> {
    packets(1, &[ok(mark::OK, AUTO)])
}

pub(super) fn rows(status: u16) -> Vec<u8> {
    packets(1, &[count(1), column(), row("1"), ok(mark::EOF, status)])
}

const PREPARE: u8 = command::STMT_PREPARE;
const EXECUTE: u8 = command::STMT_EXECUTE;
const PIECE: u8 = command::STMT_SEND_LONG_DATA;
const CLOSE: u8 = command::STMT_CLOSE;
const RESET: u8 = command::STMT_RESET;
const FETCH: u8 = command::STMT_FETCH;

impl Bench {
    /// The client prepares a text, which the server does under this number: what the client is told.
    pub(super) fn prepares(&mut self, text: &str, number: u32, parameters: u16) -> u32 {
        assert_eq!(self.says(&says(PREPARE, text.as_bytes())), says(PREPARE, text.as_bytes()));
        let columns = vec![column(); usize::from(parameters) + 1];
        let told = self.hears(&packets(1, &[vec![prepared(number, 1, parameters)], columns].concat()));
        u32::from_le_bytes(*told[5..].first_chunk().unwrap())
    }

    /// The server does what it was asked to prepare, which the client does not see.
    pub(super) fn prepares_hidden(&mut self, number: u32, parameters: u16) {
        let columns = vec![column(); usize::from(parameters)];
        assert_eq!(self.hears(&packets(1, &[vec![prepared(number, 0, parameters)], columns].concat())), b"");
    }

    /// Another connection is this client's now.
    fn moves(&mut self) {
        self.server = server();
        assert_eq!(self.attach(), b"");
    }

    fn pinned(&mut self) -> Pins {
        assert_eq!(self.server.status(), Status::Idle);
        self.client.pins
    }
}

/// What the client gets when a request of its own is refused, behind the ping that went in its place.
fn refused(bench: &mut Bench, request: &[u8]) -> (u16, String) {
    assert_eq!(bench.says(request), says(command::PING, b""));
    let told = bench.hears(&done());
    assert_eq!(bench.server.refused(), None);
    let error = crate::mysql::message::server_error(&told[4..]).unwrap();
    (error.code.parse().unwrap(), error.message)
}

/// Scenarios 79 and 86.
#[test]
fn numbers_are_the_proxys_own() {
    in_pieces(|piece| {
        let mut bench = Bench::new(Capabilities::empty(), piece);
        bench.says(&says(PREPARE, b"SELECT ?, ?"));
        let parts = [prepared(9, 1, 2), column(), column(), column()];
        let older = [prepared(1, 1, 2), column(), column(), eof(AUTO), column(), eof(AUTO)];
        assert_eq!(bench.hears(&packets(1, &parts)), packets(1, &older));
        assert_eq!(bench.pinned(), Pins::NONE);
        let tally = bench.server.tally();
        assert_eq!((tally.requests, tally.queries), (1, 1));
        let body = [0, 1, 3, 0, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0];
        assert_eq!(bench.says(&execute(1, &body)), execute(9, &body));
        bench.hears(&packets(1, &[count(1), column(), row("1"), ok(mark::EOF, AUTO)]));
        assert_eq!(bench.pinned(), Pins::NONE);
        // Nothing of a close reaches the server: others use the statement as well.
        assert_eq!(bench.says(&for_statement(CLOSE, 1, b"")), b"");
        assert_eq!(refused(&mut bench, &execute(1, &body)).0, 1243);
    });
}

/// Scenario 80.
#[test]
fn a_statement_is_prepared_where_it_is_not() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let number = bench.prepares("SELECT 1", 9, 0);
        bench.moves();
        let pipeline = [execute(number, b""), execute(number, b"")].concat();
        assert_eq!(bench.says(&pipeline), says(PREPARE, b"SELECT 1"));
        assert!(bench.server.has_sent_nothing());
        bench.prepares_hidden(4, 0);
        assert_eq!(bench.says(b""), execute(4, b"").repeat(2));
        assert_eq!(bench.hears(&rows(AUTO).repeat(2)), rows(AUTO).repeat(2));
        // Another client's equal one is there already.
        bench.client = client(MODERN, 2);
        assert_eq!(bench.attach(), b"");
        let number = bench.prepares("SELECT 1", 5, 0);
        assert_eq!(bench.says(&execute(number, b"")), [for_statement(CLOSE, 4, b""), execute(5, b"")].concat());
    });
}

/// What the server says to a statement that can't be prepared any more, it says to who executes it.
#[test]
fn a_statement_that_can_not_be_prepared() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let number = bench.prepares("SELECT * FROM t", 9, 0);
    bench.moves();
    assert_eq!(bench.says(&execute(number, b"")), says(PREPARE, b"SELECT * FROM t"));
    assert_eq!(bench.hears(&packets(1, &[err(1146)])), b"");
    assert_eq!(bench.says(b""), says(command::PING, b""));
    assert_eq!(bench.hears(&done()), packets(1, &[err(1146)]));
    assert_eq!(bench.pinned(), Pins::NONE);
    // Later it can.
    assert_eq!(bench.says(&execute(number, b"")), says(PREPARE, b"SELECT * FROM t"));
    bench.prepares_hidden(3, 0);
    assert_eq!(bench.says(b""), execute(3, b""));
}

/// Scenario 81.
#[test]
fn types_go_along() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let number = bench.prepares("SELECT ?", 9, 1);
        assert_eq!(refused(&mut bench, &execute(number, &[0, 0])).0, 1835);
        let typed = [0, 1, 8, 0x80, 1, 2, 3, 4, 5, 6, 7, 8];
        bench.says(&execute(number, &typed));
        bench.hears(&rows(AUTO));
        bench.moves();
        bench.says(&execute(number, &[0, 0, 8, 7, 6, 5, 4, 3, 2, 1]));
        bench.prepares_hidden(2, 1);
        assert_eq!(bench.says(b""), execute(2, &[0, 1, 8, 0x80, 8, 7, 6, 5, 4, 3, 2, 1]));
        bench.hears(&rows(AUTO));
        // NULL has a type, and no value.
        assert_eq!(bench.says(&execute(number, &[1, 0])), execute(2, &[1, 1, 8, 0x80]));
    });
}

/// MySQL keeps to what a statement's first execution has made of its parameters: another client's string would be a number.
#[test]
fn types_are_a_statements_own() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let number = bench.prepares("SELECT ?", 9, 1);
    let [integer, string] = [&[0, 1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[0, 1, 0xFD, 0, 1, b'a']];
    // A shorter one is one as well.
    for values in [integer, &[0, 1, 1, 0, 7], &[0, 0, 7]] {
        assert_eq!(bench.says(&execute(number, values)).get(5..9), Some(&9u32.to_le_bytes()[..]));
        bench.hears(&rows(AUTO));
    }
    bench.client = client(MODERN, 2);
    assert_eq!(bench.attach(), b"");
    let other = bench.prepares("SELECT ?", 10, 1);
    // What has been prepared last is what is executed.
    assert_eq!(bench.says(&execute(other, string)), execute(10, string));
    bench.hears(&rows(AUTO));
    assert_eq!(bench.says(&execute(other, integer)), execute(9, integer));
    bench.hears(&rows(AUTO));
    assert_eq!(bench.says(&execute(other, string)), execute(10, string));
    bench.hears(&rows(AUTO));
    let double = [0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bench.says(&execute(other, &double)), says(PREPARE, b"SELECT ?"));
    bench.prepares_hidden(11, 1);
    // There is room for two.
    assert_eq!(bench.says(b""), [for_statement(CLOSE, 9, b""), execute(11, &double)].concat());
}

/// Scenarios 78 and 82.
#[test]
fn pieces_of_a_parameter_stay_with_their_client() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let number = bench.prepares("INSERT INTO t VALUES (?)", 9, 1);
        bench.moves();
        let long = for_statement(PIECE, number, b"\0\0some bytes");
        assert_eq!(bench.says(&long.repeat(2)), says(PREPARE, b"INSERT INTO t VALUES (?)"));
        bench.prepares_hidden(2, 1);
        assert_eq!(bench.says(b""), for_statement(PIECE, 2, b"\0\0some bytes").repeat(2));
        assert_eq!(bench.pinned(), Pins::of(PinReason::PreparedStatement));
        // An equal one of the same client's does not find them.
        let twin = bench.prepares("INSERT INTO t VALUES (?)", 3, 1);
        let body = [0, 1, 0xFC, 0];
        assert_eq!(bench.says(&execute(twin, &body)), execute(3, &body));
        bench.hears(&done());
        assert_eq!(bench.pinned(), Pins::of(PinReason::PreparedStatement));
        assert_eq!(bench.says(&execute(number, &body)), execute(2, &body));
        bench.hears(&done());
        assert_eq!(bench.pinned(), Pins::NONE);
        // There are two now; one goes.
        assert_eq!(bench.says(&execute(number, &body)), [for_statement(CLOSE, 2, b""), execute(3, &body)].concat());
        bench.hears(&done());
        // Dropped by the client; without any of its own.
        bench.says(&long);
        assert_eq!(bench.says(&for_statement(RESET, number, b"")), for_statement(RESET, 3, b""));
        assert_eq!(bench.hears(&done()), done());
        assert_eq!(bench.pinned(), Pins::NONE);
        assert_eq!(bench.says(&for_statement(RESET, number, b"")), says(command::PING, b""));
        assert_eq!(bench.hears(&done()), done());
        // Behind an error nobody knows.
        bench.says(&long);
        bench.says(&execute(number, &body));
        bench.hears(&packets(1, &[err(1062)]));
        let mut ping = Vec::new();
        assert!(bench.server.probe(&mut ping));
        bench.hears(&done());
        // A row may have drawn a number.
        assert_eq!(bench.pinned(), Pins::of(PinReason::Setting));
        let reset = for_statement(RESET, 3, b"");
        assert_eq!(bench.says(&execute(number, &body)), [reset, execute(3, &body)].concat());
        assert_eq!(bench.hears(&done().repeat(2)), done());
    });
}

/// A parameter whose pieces are lost is not executed without them.
#[test]
fn pieces_for_what_can_not_be_prepared() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let number = bench.prepares("INSERT INTO t VALUES (?)", 9, 1);
    bench.moves();
    bench.says(&for_statement(PIECE, number, b"\0\0some bytes"));
    bench.hears(&packets(1, &[err(1146)]));
    assert_eq!(bench.says(b""), b"");
    assert_eq!(bench.pinned(), Pins::of(PinReason::PreparedStatement));
    bench.says(&execute(number, &[0, 1, 0xFC, 0]));
    assert_eq!(bench.hears(&done()), packets(1, &[err(1146)]));
    assert_eq!(bench.pinned(), Pins::NONE);
    // The same where the execution is refused for another reason.
    bench.says(&for_statement(PIECE, number, b"\0\0some bytes"));
    bench.hears(&packets(1, &[err(1146)]));
    bench.says(b"");
    bench.client.failed = crate::mysql::failed::Failed::Told;
    assert_eq!(bench.says(&execute(number, &[0, 1, 0xFC, 0])), says(command::PING, b""));
    bench.hears(&done());
    bench.client.failed = crate::mysql::failed::Failed::No;
    assert_eq!(bench.pinned(), Pins::NONE);
    // Of a statement that there is not, nobody hears.
    assert_eq!(bench.says(&for_statement(PIECE, 77, b"\0\0some bytes")), b"");
    assert_eq!(bench.pinned(), Pins::NONE);
}

/// Scenario 83.
#[test]
fn cursors_stay_with_their_client() {
    in_pieces(|piece| {
        let mut bench = Bench::new(Capabilities::empty(), piece);
        let number = bench.prepares("SELECT a FROM t", 9, 0);
        assert_eq!(refused(&mut bench, &for_statement(FETCH, number, &[1, 0, 0, 0])).0, 1421);
        assert_eq!(bench.says(&with_cursor(number)), with_cursor(9));
        let open = AUTO | status::CURSOR_EXISTS;
        // One EOF says that there are no rows yet.
        let opened = packets(1, &[count(1), column(), eof(open)]);
        assert_eq!(bench.hears(&packets(1, &[count(1), column(), ok(mark::EOF, open)])), opened);
        assert_eq!(bench.pinned(), Pins::of(PinReason::PreparedStatement));
        let fetch = for_statement(FETCH, number, &[1, 0, 0, 0]);
        assert_eq!(bench.says(&fetch), for_statement(FETCH, 9, &[1, 0, 0, 0]));
        bench.hears(&packets(1, &[row("1"), ok(mark::EOF, open)]));
        assert_eq!(bench.pinned(), Pins::of(PinReason::PreparedStatement));
        bench.says(&fetch);
        let last = AUTO | status::LAST_ROW_SENT;
        assert_eq!(bench.hears(&packets(1, &[row("2"), ok(mark::EOF, last)])), packets(1, &[row("2"), eof(last)]));
        assert_eq!(bench.pinned(), Pins::NONE);
        assert_eq!(refused(&mut bench, &fetch).0, 1421);
        // A server that opens none.
        bench.says(&with_cursor(number));
        bench.hears(&done());
        assert_eq!(bench.pinned(), Pins::NONE);
        // Closed by the client: the server's goes with its cursor.
        bench.says(&with_cursor(number));
        bench.hears(&packets(1, &[count(1), column(), ok(mark::EOF, open)]));
        assert_eq!(bench.says(&for_statement(CLOSE, number, b"")), b"");
        assert_eq!(bench.pinned(), Pins::NONE);
        bench.client = client(MODERN, 2);
        assert_eq!(bench.attach(), for_statement(CLOSE, 9, b""));
    });
}

/// What had a cursor once is not executed without one: MySQL sends no rows then.
#[test]
fn with_a_cursor_and_without_one() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let number = bench.prepares("SELECT a FROM t", 9, 0);
    let open = packets(1, &[count(1), column(), ok(mark::EOF, AUTO | status::CURSOR_EXISTS)]);
    assert_eq!(bench.says(&with_cursor(number)), with_cursor(9));
    bench.hears(&open);
    // Given up by executing it anew.
    assert_eq!(bench.says(&execute(number, b"")), says(PREPARE, b"SELECT a FROM t"));
    bench.prepares_hidden(5, 0);
    assert_eq!(bench.says(b""), [for_statement(RESET, 9, b""), execute(5, b"")].concat());
    bench.hears(&[done(), rows(AUTO)].concat());
    assert_eq!(bench.pinned(), Pins::NONE);
    for _ in 0..2 {
        assert_eq!(bench.says(&with_cursor(number)), with_cursor(9));
        bench.hears(&packets(1, &[count(1), column(), row("1"), ok(mark::EOF, AUTO)]));
        assert_eq!(bench.says(&execute(number, b"")), execute(5, b""));
        bench.hears(&rows(AUTO));
    }
}

/// Scenario 22.
#[test]
fn the_latest_is_known_to_mariadb() {
    let latest = execute(LATEST, b"");
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.is_mariadb = true;
    let prepare = says(PREPARE, b"SELECT GET_LOCK('l', 1)");
    // What an EXECUTE does is known once its PREPARE has been answered.
    assert_eq!(bench.says(&[prepare.clone(), latest.clone()].concat()), prepare);
    bench.hears(&packets(1, &[prepared(7, 1, 0), column()]));
    assert_eq!(bench.says(b""), execute(7, b""));
    assert!(bench.client.pins.contains(PinReason::SessionLock));
    bench.hears(&rows(AUTO));
    bench.says(&says(PREPARE, b"SELEC"));
    bench.hears(&packets(1, &[err(1064)]));
    assert_eq!(
        refused(&mut bench, &latest).1,
        "Unknown prepared statement handler (4294967295) given to mysqld_stmt_execute"
    );
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.prepares("SELECT 1", 7, 0);
    assert_eq!(
        refused(&mut bench, &latest).1,
        "Unknown prepared statement handler (4294967295) given to mysql_stmt_precheck"
    );
    for command in [EXECUTE, RESET, FETCH] {
        assert_eq!(refused(&mut bench, &says(command, b"ab")), (1835, "Malformed communication packet.".to_owned()));
    }
    for command in [CLOSE, PIECE] {
        assert_eq!(bench.says(&says(command, b"ab")), b"");
    }
}

/// Scenario 85: those that were not used for longest are closed.
#[test]
fn no_more_than_there_may_be() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let first = bench.prepares("SELECT 1", 1, 0);
    let second = bench.prepares("SELECT 2", 2, 0);
    bench.says(&execute(first, b""));
    bench.hears(&rows(AUTO));
    let third = bench.prepares("SELECT 3", 3, 0);
    assert_eq!(bench.says(&execute(third, b"")), [for_statement(CLOSE, 2, b""), execute(3, b"")].concat());
    bench.hears(&rows(AUTO));
    assert_eq!(bench.says(&execute(second, b"")), says(PREPARE, b"SELECT 2"));
    // The server has too many: room is made, once.
    bench.hears(&packets(1, &[err(1461)]));
    let retried = [for_statement(CLOSE, 1, b""), for_statement(CLOSE, 3, b""), says(PREPARE, b"SELECT 2")].concat();
    let sent = bench.says(b"");
    assert_eq!(sent.len(), retried.len());
    assert!(sent.ends_with(&says(PREPARE, b"SELECT 2")));
    bench.hears(&packets(1, &[err(1461)]));
    assert_eq!(bench.says(b""), says(command::PING, b""));
    assert_eq!(bench.hears(&done()), packets(1, &[err(1461)]));
}

/// What has been prepared keeps its meaning behind what changes that of names.
#[test]
fn statements_are_there_before_names_change() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let number = bench.prepares("SELECT * FROM t", 9, 0);
        bench.moves();
        let change = says(command::INIT_DB, b"other");
        assert_eq!(bench.says(&change), says(PREPARE, b"SELECT * FROM t"));
        bench.prepares_hidden(2, 0);
        assert_eq!(bench.says(b""), change);
        bench.hears(&done());
        // The same text means something else now, and is nobody else's.
        let other = bench.prepares("SELECT * FROM t", 3, 0);
        for (own, here) in [(number, 2), (other, 3)] {
            assert_eq!(bench.says(&execute(own, b"")), execute(here, b""));
            bench.hears(&rows(AUTO));
        }
        assert_eq!(bench.says(&for_statement(CLOSE, other, b"")), b"");
        assert_eq!(bench.says(&execute(number, b"")), [for_statement(CLOSE, 3, b""), execute(2, b"")].concat());
    });
}

/// What a setting is by an expression changes no names: a statement that can't be prepared now is none that fails from then on.
#[test]
fn statements_need_not_be_there_before_settings_are_known() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let there = bench.prepares("SELECT * FROM t", 9, 0);
    bench.moves();
    let here = bench.prepares("SELECT * FROM u", 4, 0);
    let change = says(command::QUERY, b"SET sort_buffer_size = @a");
    assert_eq!(bench.says(&change), change);
    bench.hears(&done());
    assert_eq!(bench.says(&execute(here, b"")), execute(4, b""));
    bench.hears(&rows(AUTO));
    assert_eq!(bench.says(&execute(there, b"")), says(PREPARE, b"SELECT * FROM t"));
    bench.prepares_hidden(5, 0);
    assert_eq!(bench.says(b""), execute(5, b""));
    bench.hears(&rows(AUTO));
    // Both are this client's alone.
    bench.client = client(MODERN, 2);
    assert_eq!(closed(&bench.attach()), [4, 5]);
    // In another mode they may say something else.
    bench.client = client(MODERN, 1);
    let number = bench.prepares("SELECT * FROM t", 6, 0);
    bench.moves();
    let change = says(command::QUERY, b"SET sql_mode = @a");
    assert_eq!(bench.says(&change), says(PREPARE, b"SELECT * FROM t"));
    bench.prepares_hidden(7, 0);
    assert_eq!(bench.says(b""), change);
    bench.hears(&done());
    assert_eq!(bench.says(&execute(number, b"")), execute(7, b""));
}

/// The numbers of the statements that the server is told to close.
fn closed(sent: &[u8]) -> Vec<u8> {
    let mut numbers: Vec<u8> = sent.chunks(9).filter(|packet| packet[4] == CLOSE).map(|packet| packet[5]).collect();
    numbers.sort_unstable();
    numbers
}

/// The same behind a long text, which says at its end that it changes it, after it has been sent.
#[test]
fn statements_are_there_before_a_long_text() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let number = bench.prepares("SELECT * FROM t", 9, 0);
    bench.moves();
    for (last, has_moved) in [("", false), ("; USE other", true)] {
        let text = says(command::QUERY, format!("SELECT '{}'{last}", "x".repeat(2 << 20)).as_bytes());
        let begun = bench.says(&text);
        if has_moved {
            assert!(begun == text);
        } else {
            assert_eq!(begun, says(PREPARE, b"SELECT * FROM t"));
            bench.prepares_hidden(2, 0);
            assert!(bench.says(b"") == text);
        }
        bench.hears(&done());
        assert_eq!(bench.server.has_moved, has_moved);
        assert_eq!(bench.client.pins.contains(PinReason::Setting), has_moved);
        assert_eq!(bench.says(&execute(number, b"")), execute(2, b""));
        bench.hears(&rows(AUTO));
    }
}

/// A text that is too long to be kept is on its connection alone.
#[test]
fn a_long_text_keeps_its_client() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let text = format!("SELECT '{}'", "x".repeat(1 << 20));
    let number = bench.prepares(&text, 9, 0);
    assert_eq!(bench.pinned(), Pins::of(PinReason::LargeStatement));
    assert_eq!(bench.says(&execute(number, b"")), execute(9, b""));
    assert!(bench.client.pins.contains(PinReason::Unreadable));
    bench.hears(&rows(AUTO));
    bench.says(&for_statement(CLOSE, number, b""));
    assert!(!bench.pinned().contains(PinReason::LargeStatement));
}

/// What could not be prepared does not pin, and what a reset has closed is not there.
#[test]
fn behind_a_failure_and_behind_a_reset() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let number = bench.prepares("SELECT 1", 9, 0);
    let text = format!("SELECT '{}'", "x".repeat(1 << 20));
    bench.says(&says(PREPARE, text.as_bytes()));
    bench.hears(&packets(1, &[err(1064)]));
    assert_eq!(bench.pinned(), Pins::NONE);
    bench.says(&says(command::RESET_CONNECTION, b""));
    bench.hears(&done());
    assert_eq!(texts_of(&mut bench, b""), [AS_NEW]);
    bench.hears(&done());
    assert_eq!(refused(&mut bench, &execute(number, b"")).0, 1243);
}

/// Those that the server has not prepared yet count as well.
#[test]
fn a_pipeline_of_statements_has_the_same_limit() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let text = |number: usize| format!("SELECT {number:08} '{}'", "x".repeat((1 << 20) - 64));
    let kept = (64 << 20) / text(0).len();
    for number in 0..kept {
        let prepare = says(PREPARE, text(number).as_bytes());
        assert_eq!(bench.says(&prepare).len(), prepare.len());
    }
    assert!(bench.says(&says(PREPARE, text(kept).as_bytes())) == says(command::PING, b""));
}
