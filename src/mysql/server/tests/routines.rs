//! Procedures and functions that are called: read once, and then no reason to pin unless they say so.

use super::*;
use crate::mysql::server::routines::Reading;
use crate::protocol::{PinPolicy, PinRules};
use crate::sql::mysql::calls::{Routine, RoutineKind};

const OPEN: u16 = AUTO | status::IN_TRANSACTION;
const CODE: Pins = Pins::of(PinReason::OpaqueCode);

impl Server {
    /// A procedure of the database's is known.
    pub(super) fn knows(&mut self, name: &str, body: &str) {
        let routine =
            Routine { kind: RoutineKind::Procedure, schema: Some("orders".to_owned()), name: name.to_owned() };
        let mut row = vec![0xFB];
        put_string(&mut row, b"");
        put_string(&mut row, format!("CREATE PROCEDURE `{name}`() {body}").as_bytes());
        put_string(&mut row, b"utf8mb4");
        let mut reading = Reading::new(routine, true);
        reading.row(&row);
        self.has_read(reading);
    }
}

impl Bench {
    /// What the server hears of a text.
    fn hears_of(&mut self, text: &str) -> Vec<String> {
        texts(&self.says(&says(command::QUERY, text.as_bytes())))
    }

    /// The server says what a routine is: then what it hears next.
    fn defined(&mut self, kind: &str, definition: Option<&str>) -> Vec<String> {
        self.defined_in("utf8mb4", kind, definition)
    }

    /// The same of one that was written in this character set.
    fn defined_in(&mut self, charset: &str, kind: &str, definition: Option<&str>) -> Vec<String> {
        let mut row = Vec::new();
        put_string(&mut row, kind.as_bytes());
        put_string(&mut row, b"STRICT_TRANS_TABLES");
        match definition {
            Some(body) => put_string(&mut row, format!("CREATE DEFINER=`a`@`%` {kind} `x`() {body}").as_bytes()),
            None => row.push(0xFB),
        }
        put_string(&mut row, charset.as_bytes());
        let columns: Vec<Vec<u8>> = std::iter::repeat_n(column(), 4).collect();
        let status = self.server.status | AUTO;
        let answer = [&[count(4)], &columns[..], &[row, ok(mark::EOF, status)]].concat();
        assert_eq!(self.hears(&packets(1, &answer)), b"");
        texts(&self.says(b""))
    }

    /// The statement is done; what it pins for then.
    fn done(&mut self, ok_packet: &[u8]) -> Pins {
        let packet = packets(1, &[ok_packet.to_vec()]);
        self.hears(&packet);
        assert_eq!(self.server.owed.len(), 0);
        self.client.pins
    }

    fn asks_at_the_end(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        self.server.verify(&self.client, &mut sent);
        texts(&sent)
    }
}

#[test]
fn one_is_read_before_it_is_called_for_the_first_time() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        assert_eq!(bench.hears_of("CALL q(1)"), ["SHOW CREATE PROCEDURE `orders`.`q`"]);
        // What it calls comes next.
        assert_eq!(
            bench.defined("PROCEDURE", Some("BEGIN DO f(1); CALL Q; END")),
            ["SHOW CREATE FUNCTION `orders`.`f`"]
        );
        assert_eq!(bench.defined("FUNCTION", Some("RETURNS INT RETURN 1")), ["CALL q(1)"]);
        assert_eq!(bench.done(&ok(mark::OK, AUTO)), Pins::NONE);
        assert_eq!(bench.server.tally.questions, 2);
        // Another client's call costs nothing.
        bench.client = client(MODERN, 2);
        bench.attach();
        assert_eq!(bench.hears_of("SELECT f(1)"), ["SELECT f(1)"]);
        assert_eq!(bench.done(&ok(mark::OK, AUTO)), Pins::NONE);
        assert_eq!((bench.asks_at_the_end().len(), bench.server.tally.questions), (0, 2));
        assert!(!bench.client.asks_last_values);
    });
}

#[test]
fn what_may_do_anything_pins() {
    for definition in [Some("SELECT GET_LOCK('a', 1)"), Some("SET time_zone = '+01:00'"), None] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.hears_of("CALL q()");
        assert_eq!(bench.defined("PROCEDURE", definition), ["CALL q()"]);
        assert!(bench.done(&ok(mark::OK, AUTO)).contains(PinReason::OpaqueCode));
    }
    // There is none.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.hears_of("CALL q()");
    assert_eq!(bench.hears(&packets(1, &[err(1305)])), b"");
    assert_eq!(texts(&bench.says(b"")), ["CALL q()"]);
    assert!(bench.done(&ok(mark::OK, AUTO)).contains(PinReason::OpaqueCode));
    // One that another one calls.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.hears_of("CALL q()");
    bench.defined("PROCEDURE", Some("CALL r"));
    assert_eq!(bench.defined("PROCEDURE", Some("XA START 'a'")), ["CALL q()"]);
    assert!(bench.done(&ok(mark::OK, AUTO)).contains(PinReason::OpaqueCode));
    // What is not read: several statements, other code, who keeps its connection for code anyway.
    for text in ["CALL p(); CALL p()", "EXECUTE IMMEDIATE 'CALL p()'", "CALL a.b.c()"] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        assert_eq!(bench.hears_of(text), [text]);
        assert!(bench.done(&ok(mark::OK, AUTO)).contains(PinReason::OpaqueCode));
        assert_eq!(bench.hears_of("CALL q()"), ["CALL q()"]);
        bench.done(&ok(mark::OK, AUTO));
    }
}

/// In others than these the server makes a quote of what was none when it read the definition itself.
#[test]
fn character_sets_of_definitions() {
    for (charset, expected) in
        [("utf8mb3", Pins::NONE), ("latin1", Pins::NONE), ("sjis", CODE), ("armscii8", CODE), ("binary", CODE)]
    {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.hears_of("CALL q()");
        assert_eq!(bench.defined_in(charset, "PROCEDURE", Some("SELECT 1")), ["CALL q()"]);
        assert_eq!(bench.done(&ok(mark::OK, AUTO)).common(CODE), expected, "{charset}");
    }
}

/// In MariaDB what stands in front of a routine's name may be a package's.
#[test]
fn names_of_packages() {
    for (is_mariadb, expected) in [(false, "SHOW CREATE PROCEDURE `orders`.`q`"), (true, "CALL orders.q()")] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.server.is_mariadb = is_mariadb;
        assert_eq!(bench.hears_of("CALL orders.q()"), [expected]);
    }
}

/// What the server may have of its own it has, if there is no stored one.
#[test]
fn names_that_may_be_the_servers_own() {
    let md5 = "SHOW CREATE FUNCTION `orders`.`md5`";
    for (code, is_code) in [(1305, false), (1044, true)] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        assert_eq!(bench.hears_of("SELECT MD5('a')"), [md5]);
        assert_eq!(bench.hears(&packets(1, &[err(code)])), b"");
        assert_eq!(texts(&bench.says(b"")), ["SELECT MD5('a')"]);
        assert_eq!(bench.done(&ok(mark::OK, AUTO)).contains(PinReason::OpaqueCode), is_code, "{code}");
        assert_eq!(bench.hears_of("SELECT MD5('b')"), ["SELECT MD5('b')"]);
        assert_eq!(bench.done(&ok(mark::OK, AUTO)).contains(PinReason::OpaqueCode), is_code, "{code}");
    }
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.options.database = String::new();
    assert_eq!(bench.hears_of("SELECT MD5('a')"), ["SELECT MD5('a')"]);
    assert_eq!(bench.done(&ok(mark::OK, AUTO)), Pins::NONE);
    let mut bench = Bench::new(MODERN, usize::MAX);
    assert_eq!(bench.hears_of("SELECT COUNT(*), count (1)"), ["SHOW CREATE FUNCTION `orders`.`count`"]);
    assert_eq!(bench.defined("FUNCTION", Some("RETURNS INT RETURN GET_LOCK('a', 1)")), ["SELECT COUNT(*), count (1)"]);
    assert!(bench.done(&ok(mark::OK, AUTO)).contains(PinReason::OpaqueCode));
}

/// A policy that refuses code refuses what may do anything, and not what has been read.
#[test]
fn code_that_is_refused() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let policy = PinPolicy { rejected: CODE, ..PinPolicy::default() };
    bench.client.set_pin_rules(PinRules { policy, ..PinRules::default() });
    assert_eq!(bench.hears_of("CALL p()"), ["CALL p()"]);
    assert_eq!(bench.done(&ok(mark::OK, AUTO)), Pins::NONE);
    bench.hears_of("CALL q()");
    // A ping.
    assert_eq!(bench.defined("PROCEDURE", Some("KILL 5")), [""]);
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert!(bench.server.refused().is_some());
}

#[test]
fn variables_in_its_body_are_asked_for() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.knows("v", "SET @x = 1");
    for text in ["CALL v()", "CALL v(@y)"] {
        assert_eq!(bench.hears_of(text), [text]);
        let state = ok_with(
            mark::OK,
            OkPacket { changes: b"\x02\x011", status: AUTO | status::STATE_CHANGED, ..OkPacket::default() },
        );
        assert_eq!(bench.done(&state), Pins::of(PinReason::UserVariable));
    }
    let asked = bench.asks_at_the_end();
    assert!(asked.len() == 1 && asked[0].contains("LEFT(@x,99)") && asked[0].contains("LEFT(@y,99)"), "{asked:?}");
}

/// What nothing in its body explains a trigger has done.
#[test]
fn a_change_that_it_does_not_say() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.hears_of("CALL p()");
    let state = ok_with(
        mark::OK,
        OkPacket { changes: b"\x02\x011", status: AUTO | status::STATE_CHANGED, ..OkPacket::default() },
    );
    assert_eq!(bench.done(&state), Pins::of(PinReason::UserVariable));
    assert_eq!(bench.asks_at_the_end(), [""; 0]);
}

/// No packet says what `LAST_INSERT_ID()` is behind a procedure.
#[test]
fn the_last_insert_id_goes_with_its_client() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.knows("i", "INSERT INTO t VALUES (NULL)");
    (bench.server.foreign_values, bench.server.insert_id) = (true, Some(7));
    assert_eq!(bench.hears_of("CALL i()"), ["SET SESSION last_insert_id = 0", "CALL i()"]);
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    bench.done(&ok(mark::OK, AUTO));
    assert_eq!(bench.asks_at_the_end(), ["SELECT @@SESSION.last_insert_id LIMIT 1"]);
    let answer = [count(1), column(), row("18446744073709551615"), ok(mark::EOF, AUTO)];
    assert_eq!(bench.hears(&packets(1, &answer)), b"");
    assert_eq!((bench.client.insert_id, bench.client.pins), (u64::MAX, Pins::NONE));
    assert!(bench.client.settings().value("last_insert_id").is_none());
    // Also behind an error.
    bench.hears_of("CALL i()");
    bench.hears(&packets(1, &[err(1644)]));
    assert!(bench.server.probe(&mut Vec::new()));
    bench.done(&ok(mark::OK, AUTO));
    assert_eq!(bench.asks_at_the_end(), ["SELECT @@SESSION.last_insert_id LIMIT 1"]);
}

#[test]
fn one_may_be_made_anew() {
    for text in [
        "ALTER PROCEDURE p COMMENT ''",
        "create or replace procedure p() do 1",
        "/* x */ DROP PROCEDURE p",
        "DO 1; DO 2",
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.hears_of(text);
        bench.done(&ok(mark::OK, AUTO));
        assert_eq!(bench.hears_of("CALL p()"), ["SHOW CREATE PROCEDURE `orders`.`p`"], "{text}");
    }
    // On another connection, of which this one hears as it changes hands.
    for (text, expected) in [
        ("DROP PROCEDURE p", "SHOW CREATE PROCEDURE `orders`.`p`"),
        ("CREATE DATABASE d", "SHOW CREATE PROCEDURE `orders`.`p`"),
        ("CREATE TABLE a (b INT)", "CALL p()"),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        let here = std::mem::replace(&mut bench.server, server());
        bench.server.options.learned = Arc::clone(&here.options.learned);
        bench.attach();
        bench.hears_of(text);
        bench.done(&ok(mark::OK, AUTO));
        bench.server = here;
        bench.client = client(MODERN, 2);
        bench.attach();
        assert_eq!(bench.hears_of("CALL p()"), [expected], "{text}");
    }
    // By somebody else.
    let mut bench = Bench::new(MODERN, usize::MAX);
    for _ in 0..1_000 {
        assert_eq!(bench.hears_of("CALL p()"), ["CALL p()"]);
        bench.done(&ok(mark::OK, AUTO));
    }
    assert_eq!(bench.hears_of("CALL p()"), ["SHOW CREATE PROCEDURE `orders`.`p`"]);
}

/// It is read within a transaction too, but not where the next transaction has something said of it.
#[test]
fn in_transactions() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.hears_of("BEGIN");
    bench.done(&ok(mark::OK, OPEN));
    assert_eq!(bench.hears_of("CALL q()"), ["SHOW CREATE PROCEDURE `orders`.`q`"]);
    assert_eq!(bench.defined("PROCEDURE", Some("COMMIT")), ["CALL q()"]);
    assert_eq!(bench.done(&ok(mark::OK, AUTO)), Pins::NONE);
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.hears_of("SET TRANSACTION READ ONLY");
    bench.done(&ok(mark::OK, AUTO));
    assert_eq!(bench.hears_of("CALL q()"), ["CALL q()"]);
}

/// The database of whoever calls it. Of calls into another one the server tells as of a change.
#[test]
fn databases() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    assert_eq!(bench.hears_of("CALL other.q()"), ["CALL other.q()"]);
    let mut bench = Bench::new(MODERN, usize::MAX);
    assert_eq!(bench.hears_of("CALL orders.q()"), ["SHOW CREATE PROCEDURE `orders`.`q`"]);
    // Nobody knows which one is selected.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.has_moved = true;
    assert_eq!(bench.hears_of("CALL q()"), ["CALL q()"]);
}

/// Prepared ones are the same.
#[test]
fn prepared() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::STMT_PREPARE, b"CALL q()"));
    bench.hears(&packets(1, &[[&[0][..], &7_u32.to_le_bytes(), &[0; 7]].concat()]));
    let execute = says(command::STMT_EXECUTE, &[1, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(texts(&bench.says(&execute)), ["SHOW CREATE PROCEDURE `orders`.`q`"]);
    assert_eq!(bench.defined("PROCEDURE", Some("DO 1")).len(), 1);
    assert_eq!(bench.done(&ok(mark::OK, AUTO)), Pins::NONE);
}
