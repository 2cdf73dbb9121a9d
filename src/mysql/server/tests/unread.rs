//! What no text says: user variables and settings by expressions are asked for, and then go with their client.

use super::*;
use crate::protocol::{PinPolicy, PinRules};

/// The column of an answer.
fn typed(kind: u8, flags: u8, width: u32) -> Vec<u8> {
    let mut out = column();
    let rest = out.len() - 10;
    out[rest..rest + 4].copy_from_slice(&width.to_le_bytes());
    out[rest + 4] = kind;
    out[rest + 5] = flags;
    out
}

fn row_of(values: &[Option<&str>]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        match value {
            Some(value) => put_string(&mut out, value.as_bytes()),
            None => out.push(0xFB),
        }
    }
    out
}

impl Bench {
    /// The client says this, and it is done.
    fn does(&mut self, text: &str) {
        let request = says(command::QUERY, text.as_bytes());
        assert_eq!(self.says(&request), request);
        let done = packets(1, &[ok(mark::OK, AUTO)]);
        assert_eq!(self.hears(&done), done);
    }

    /// What the server is asked when the client could give its connection back.
    pub(super) fn verify(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        let asks = self.server.verify(&self.client, &mut sent);
        assert_eq!(asks, !sent.is_empty());
        texts(&sent)
    }

    /// The server answers, which the client does not see.
    fn answered(&mut self, columns: &[Vec<u8>], row: &[Option<&str>]) {
        let count = count(columns.len() as u64);
        let result = [&[count], columns, &[row_of(row), ok(mark::EOF, AUTO)]].concat();
        assert_eq!(self.hears(&packets(1, &result)), b"");
        assert_eq!(self.server.status(), Status::Idle);
    }

    /// One user variable.
    fn variable(&mut self, kind: u8, flags: u8, row: [Option<&str>; 4]) {
        let string = typed(253, 0, 99);
        self.answered(&[typed(kind, flags, 20), string.clone(), string.clone(), string], &row);
    }

    fn value(&self, name: &str) -> Option<String> {
        self.client.settings().value(name).map(str::to_owned)
    }
}

const PINNED: Pins = Pins::of(PinReason::UserVariable);
const ASKED: &str = "SELECT IF(OCTET_LENGTH(@a)>16384,NULL,@a),LEFT(@a,99),HEX(IF(OCTET_LENGTH(@a)>16384,NULL,@a)),COLLATION(@a) LIMIT 1";

#[test]
fn user_variables_go_with_their_client() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        bench.does("SELECT 1, 2 INTO @a, @a");
        assert_eq!(bench.client.pins, PINNED);
        assert_eq!(bench.verify(), [ASKED]);
        bench.variable(8, 0, [Some("-7"), Some("-7"), Some("F9"), Some("binary")]);
        assert_eq!((bench.client.pins, bench.value("@a").as_deref()), (Pins::NONE, Some("-7")));
        assert_eq!(bench.attach(), b"");
        // Another client has a connection as new, and then the first one what it had.
        let one = std::mem::replace(&mut bench.client, client(MODERN, 2));
        assert_eq!(texts(&bench.attach()), ["", AS_NEW]);
        bench.hears(&[packets(1, &[ok(mark::OK, AUTO)]), packets(1, &[ok(mark::OK, AUTO)])].concat());
        bench.client = one;
        assert_eq!(texts(&bench.attach()), ["SET @a = -7"]);
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        assert_eq!(bench.server.status(), Status::Idle);
    });
}

#[test]
fn each_type_is_written_as_itself() {
    for (kind, flags, row, expected) in [
        (8, 32, [Some("7"), Some("7"), Some("7"), Some("binary")], Some("CAST(7 AS UNSIGNED)")),
        (246, 0, [Some("1.500"), Some("1.5"), Some("2"), Some("binary")], Some("1.5")),
        (246, 0, [Some("5"), Some("5"), Some("5"), Some("binary")], Some("5.")),
        (5, 0, [Some("1.5"), Some("1.5"), Some("2"), Some("binary")], Some("1.5e0")),
        (5, 0, [Some("1e+300"), Some("1e300"), Some("F"), Some("binary")], Some("1e+300")),
        (250, 0, [Some("x"), Some("x"), Some("78"), Some("latin1_bin")], Some("_latin1 X'78' COLLATE latin1_bin")),
        (250, 0, [Some("x"), Some("x"), Some("78"), Some("binary")], Some("X'78'")),
        (
            250,
            0,
            [Some("x"), Some("x"), Some("C3A4"), Some("utf8mb3_bin")],
            Some("_utf8mb3 X'C3A4' COLLATE utf8mb3_bin"),
        ),
        (250, 0, [None, None, None, Some("binary")], Some("NULL")),
        (8, 32, [None, None, None, Some("binary")], Some("CAST(NULL AS UNSIGNED)")),
        (253, 0, [None, None, None, Some("binary")], None),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.does("SET @a = 1");
        bench.verify();
        bench.variable(kind, flags, row);
        assert_eq!((bench.client.pins, bench.value("@a").as_deref()), (Pins::NONE, expected));
    }
}

/// What can't be told, or is no such value, keeps its connection, and nobody asks again.
#[test]
fn what_can_not_be_had_elsewhere() {
    for row in [
        [None, Some("long"), None, Some("latin1_bin")],
        [Some("x"), Some("x"), Some("78'"), Some("latin1_bin")],
        [Some("x"), Some("x"), Some("78"), Some("latin1'bin")],
        [Some("x"), Some("x"), None, None],
        // No such letters.
        [Some("x"), Some("x"), Some("FF"), Some("utf8mb4_bin")],
        [Some("x"), Some("x"), Some("F09F9880"), Some("utf8mb3_bin")],
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.does("SET @a = 1");
        bench.verify();
        bench.variable(250, 0, row);
        assert_eq!((bench.client.pins, bench.value("@a")), (PINNED, None));
        assert_eq!(bench.verify(), [""; 0]);
    }
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("SET @a = 1");
    bench.verify();
    assert_eq!(bench.hears(&packets(1, &[err(1105)])), b"");
    assert_eq!((bench.client.pins, bench.verify().len()), (PINNED, 0));
    // Not all of them have names.
    bench = Bench::new(MODERN, usize::MAX);
    bench.does("SET @`a b` = 1, @a = 2");
    assert_eq!((bench.client.pins, bench.verify().len()), (PINNED, 0));
}

/// A client that asks for last values keeps them until its next statement.
#[test]
fn questions_wait_for_those_who_ask() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.client.expect_to_ask();
    bench.does("SELECT SQL_CALC_FOUND_ROWS 1 INTO @a");
    assert_eq!(bench.verify(), [""; 0]);
    bench.does("DO 1");
    assert_eq!(bench.verify(), [ASKED]);
}

/// What a statement leaves as `LAST_INSERT_ID()` without saying it is asked for; until then nothing takes it away.
#[test]
fn last_values_that_are_not_told() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let (insert, rows) =
        ("INSERT INTO t VALUES (1) RETURNING a", packets(1, &[count(1), column(), row("1"), ok(mark::EOF, AUTO)]));
    bench.says(&says(command::QUERY, insert.as_bytes()));
    bench.hears(&rows);
    assert_eq!(bench.verify(), ["SELECT @@SESSION.last_insert_id LIMIT 1"]);
    bench.answered(&[typed(8, 32, 20)], &[Some("18446744073709551615")]);
    assert_eq!((bench.client.pins, bench.client.insert_id), (Pins::NONE, u64::MAX));
    // Another client has had the connection. What was on it is not to be taken for the client's.
    bench.client = client(MODERN, 2);
    bench.attach();
    let guard = ["SELECT 1 FROM (SELECT 1) t LIMIT 0", "SET SESSION last_insert_id = 0"];
    assert_eq!(texts(&bench.says(&says(command::QUERY, insert.as_bytes()))), [guard[1], insert]);
    bench.hears(&[packets(1, &[ok(mark::OK, AUTO)]), rows].concat());
    let asks = "SELECT LAST_INSERT_ID()";
    assert_eq!(texts(&bench.says(&says(command::QUERY, asks.as_bytes()))), [guard[0], "DO 0", asks]);
}

/// A value that could not be put there (a `KILL QUERY` may hit that) would be another client's.
#[test]
fn last_values_that_can_not_be_brought() {
    for (text, before) in [("INSERT INTO t VALUES (1)", 0), ("SELECT LAST_INSERT_ID()", 1)] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.server.insert_id = Some(7);
        bench.client = client(MODERN, 2);
        bench.attach();
        bench.server.foreign_values = true;
        assert_eq!(texts(&bench.says(&says(command::QUERY, text.as_bytes()))).len(), before + 2);
        let none = packets(1, &[count(1), column(), ok(mark::EOF, AUTO)]);
        let input = [none.repeat(before), packets(1, &[err(1317)])].concat();
        let refused = bench.server.receive(&input, Some(&mut bench.client), &mut Out::new());
        assert_eq!(refused, Err(Violation::UnexpectedReply(mark::ERROR)), "{text}");
    }
}

#[test]
fn settings_by_expressions() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("SET sort_buffer_size = @@sort_buffer_size * 2, time_zone = IF(1, '+01:00', 'x')");
    assert_eq!(bench.client.pins, Pins::of(PinReason::Setting));
    // What is prepared until then is nobody else's.
    assert!(bench.server.has_moved);
    assert_eq!(bench.verify(), ["SELECT @@SESSION.sort_buffer_size,@@SESSION.time_zone LIMIT 1"]);
    bench.answered(&[typed(8, 32, 20), typed(253, 0, 99)], &[Some("524288"), Some("+01:00")]);
    assert_eq!((bench.client.pins, bench.server.has_moved), (Pins::NONE, false));
    bench.client = client(MODERN, 2);
    let back = |name: &str| format!("SESSION {name} = @@GLOBAL.{name}");
    assert_eq!(texts(&bench.attach()), [format!("SET {}, {}", back("sort_buffer_size"), back("time_zone"))]);
}

/// A mode that changes how texts are read stays where it is.
#[test]
fn modes_by_expressions() {
    for (told, expected) in [("STRICT_ALL_TABLES", Pins::NONE), ("ANSI_QUOTES", Pins::of(PinReason::Setting))] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.does("SET sql_mode = REPLACE(@@sql_mode, 'A', '')");
        assert_eq!(bench.verify().len(), 1);
        bench.answered(&[typed(253, 0, 99)], &[Some(told)]);
        assert_eq!((bench.client.pins, bench.server.has_moved), (expected, !expected.is_empty()));
    }
}

/// An OK whose trackers tell this.
fn tells(changes: &[u8]) -> Vec<u8> {
    let status = AUTO | status::STATE_CHANGED;
    let mut out = Vec::new();
    OkPacket { status, changes, ..OkPacket::default() }.write(mark::OK, true, &mut out);
    out
}

const STATE: &[u8] = &[2, 1, b'1'];
const SCHEMA: &[u8] = &[1, 2, 1, b'x'];

/// The server tells that something has changed, of which the text says nothing: a trigger may have done it.
#[test]
fn what_no_text_says_keeps_the_connection() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let insert = says(command::QUERY, b"INSERT INTO t VALUES (1)");
    bench.says(&insert);
    assert_eq!(bench.hears(&packets(1, &[tells(STATE)])), packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!((bench.client.pins, bench.verify().len()), (PINNED, 0));
    // Where the text says it, that is known.
    for text in
        ["SET @a = 1", "SET time_zone = SYSTEM", "CREATE TEMPORARY TABLE a (b INT)", "PREPARE s FROM 'SELECT 1'"]
    {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, text.as_bytes()));
        bench.hears(&packets(1, &[tells(STATE)]));
        assert!(bench.client.unread.unknown().is_empty() && !bench.server.has_moved, "{text}");
    }
}

/// What has been prepared elsewhere keeps its meaning behind such a change as well.
#[test]
fn statements_are_there_before_names_change_behind_what_no_text_says() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let number = bench.prepares("SELECT * FROM t", 9, 0);
    bench.server = server();
    bench.attach();
    bench.says(&says(command::QUERY, b"INSERT INTO t VALUES (1)"));
    bench.hears(&packets(1, &[tells(STATE)]));
    let change = says(command::INIT_DB, b"other");
    assert_eq!(bench.says(&change), says(command::STMT_PREPARE, b"SELECT * FROM t"));
    bench.prepares_hidden(2, 0);
    assert_eq!(bench.says(b""), change);
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    let executes = |number| super::prepared::execute(number, b"");
    assert_eq!(bench.says(&executes(number)), executes(2));
}

/// MariaDB says nothing of what a trigger has set in a statement that then failed.
#[test]
fn behind_a_failed_change_another_client_has_a_new_connection() {
    for (is_mariadb, text, expected) in [
        (true, "INSERT INTO t VALUES (1)", &["", AS_NEW][..]),
        (true, "SELECT nonsense", &[]),
        (false, "INSERT INTO t VALUES (1)", &[]),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.server.is_mariadb = is_mariadb;
        bench.says(&says(command::QUERY, text.as_bytes()));
        bench.hears(&packets(1, &[err(1048)]));
        if bench.server.probe(&mut Vec::new()) {
            bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        }
        assert_eq!(texts(&bench.attach()), [""; 0]);
        bench.client = client(MODERN, 2);
        assert_eq!(texts(&bench.attach()), expected, "{text}");
    }
}

/// Who has asked for that is told, and nobody else; the rest is told as it was.
#[test]
fn who_asks_is_told_of_changes() {
    let both = [STATE, SCHEMA].concat();
    for (asks, changes, expected) in [
        (false, STATE, ok(mark::OK, AUTO)),
        (false, SCHEMA, tells(SCHEMA)),
        (false, &both, tells(SCHEMA)),
        (true, &both, tells(&both)),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        if asks {
            bench.does("SET session_track_state_change = 1");
        }
        bench.says(&says(command::QUERY, b"SET @a = 1"));
        assert_eq!(bench.hears(&packets(1, &[tells(changes)])), packets(1, &[expected]));
        // No setting of the client's is what the proxy has on anyway.
        assert_eq!(bench.value("session_track_state_change"), None);
    }
    // Who turns it off does so until another client comes, or this one comes back.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("SET session_track_state_change = 0");
    assert_eq!(texts(&bench.attach()), ["SET SESSION session_track_state_change = 1"]);
}

/// Numbers that the server may have changed are asked for. What the proxy has on for itself is none of the client's.
#[test]
fn what_the_server_warns_of() {
    for (warnings, expected) in [(0, &[][..]), (1, &["max_sort_length"])] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        let text = b"SET session_track_state_change = 1, max_sort_length = 1, time_zone = 'SYSTEM'";
        bench.says(&says(command::QUERY, text));
        let [low, high] = AUTO.to_le_bytes();
        bench.hears(&packets(1, &[vec![mark::OK, 0, 0, low, high, warnings, 0]]));
        assert_eq!(bench.client.unread.names().collect::<Vec<_>>(), expected);
    }
}

/// A mistake of MariaDB's client's keeps nobody, unless names are statements there.
#[test]
fn a_text_that_is_no_statement() {
    const OPAQUE: Pins = Pins::of(PinReason::OpaqueCode);
    for (code, asked, told, expected) in
        [(1064, 1, "0", Pins::NONE), (1064, 1, "9", OPAQUE), (1305, 0, "", OPAQUE), (0, 0, "", OPAQUE)]
    {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.server.is_mariadb = true;
        bench.says(&says(command::QUERY, b"SELEC 1"));
        bench.hears(&packets(1, &[if code == 0 { ok(mark::OK, AUTO) } else { err(code) }]));
        if bench.server.status() == Status::InTransaction {
            let mut ping = Vec::new();
            assert!(bench.server.probe(&mut ping));
            bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        }
        assert_eq!(bench.client.pins, OPAQUE);
        let asks = bench.verify();
        assert_eq!(asks, ["SELECT INSTR(@@SESSION.sql_mode,'ORACLE') LIMIT 1"][..asked]);
        if asked == 1 {
            bench.answered(&[typed(8, 0, 20)], &[Some(told)]);
        }
        assert_eq!((bench.client.pins, bench.verify().len()), (expected, 0), "{code} {told}");
        // What is prepared on the connection is everybody's again.
        assert_eq!(bench.server.has_moved, !expected.is_empty());
    }
}

/// Behind a mistake within a transaction may come code, or another mode.
#[test]
fn a_mistake_says_nothing_of_what_follows() {
    for (text, asks) in [("CALL p()", 0), ("SET sql_mode = ''", 0), ("SELECT 1", 1)] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.server.is_mariadb = true;
        bench.does("BEGIN");
        bench.says(&says(command::QUERY, b"SELEC 1"));
        bench.hears(&packets(1, &[err(1064)]));
        assert!(bench.server.probe(&mut Vec::new()));
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        bench.does(text);
        assert_eq!(bench.verify().len(), asks, "{text}");
    }
}

/// What the next transaction is to be is no other database.
#[test]
fn the_next_transaction_moves_nothing() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("SET TRANSACTION READ ONLY");
    assert_eq!(bench.client.pins, Pins::of(PinReason::Setting));
    bench.does("BEGIN");
    assert_eq!((bench.client.pins, bench.server.has_moved), (Pins::NONE, false));
}

/// A reset undoes what would have been asked for.
#[test]
fn what_was_reset_is_not_asked_for() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("SET sql_mode = REPLACE(@@sql_mode, 'A', '')");
    bench.says(&says(command::RESET_CONNECTION, b""));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!((bench.client.pins, bench.server.has_moved), (Pins::NONE, false));
}

/// In a pipeline MySQL tells of what a statement that failed has changed behind another one, whose change it may seem to be.
#[test]
fn behind_a_failure_in_a_pipeline() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let both = [says(command::QUERY, b"INSERT INTO t VALUES (1)"), says(command::PING, b"")].concat();
    bench.says(&both);
    bench.hears(&[packets(1, &[err(1048)]), packets(1, &[tells(STATE)])].concat());
    bench.client = client(MODERN, 2);
    assert_eq!(texts(&bench.attach()), ["", AS_NEW]);
}

/// So it is if something of the proxy's own, or another change of the client's, comes before the ping.
#[test]
fn behind_a_failure_and_another_change() {
    for (text, expected) in [("SET sort_buffer_size = 300000", &["", AS_NEW][..]), ("SELECT 1", &[])] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, b"INSERT INTO t VALUES (1)"));
        bench.hears(&packets(1, &[err(1048)]));
        bench.says(&says(command::QUERY, text.as_bytes()));
        bench.hears(&packets(1, &[tells(STATE)]));
        // For more than the last value that it may have drawn.
        let asked = Pins::of(PinReason::Sequence).and(Pins::of(PinReason::Setting));
        let is_kept = !bench.client.pins.without(asked).is_empty();
        assert_eq!(is_kept, expected.is_empty(), "{text}");
        bench.client = client(MODERN, 2);
        assert_eq!(texts(&bench.attach()), expected, "{text}");
    }
}

/// What sqlx says as it connects.
#[test]
fn a_mode_among_other_settings() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does(
        "SET sql_mode=(SELECT CONCAT(@@sql_mode, ',PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION')),time_zone='+00:00',\
         NAMES utf8mb4 COLLATE utf8mb4_unicode_ci;",
    );
    assert_eq!(bench.verify(), ["SELECT @@SESSION.sql_mode LIMIT 1"]);
    bench.answered(
        &[typed(253, 0, 99)],
        &[Some("PIPES_AS_CONCAT,IGNORE_SPACE,ONLY_FULL_GROUP_BY,NO_ENGINE_SUBSTITUTION")],
    );
    assert_eq!((bench.client.pins, bench.server.has_moved), (Pins::NONE, false));
    assert_eq!(bench.value("time_zone").as_deref(), Some("'+00:00'"));
}

/// By `EXECUTE` a table gets another name as well, and texts another character set.
#[test]
fn what_is_executed_by_sql_counts_as_itself() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("PREPARE s FROM 'ALTER TABLE tt RENAME TO v'");
    bench.does("CREATE TEMPORARY TABLE tt (a INT)");
    bench.does("EXECUTE s");
    bench.does("DROP TABLE tt");
    assert_eq!(bench.client.pins, Pins::of(PinReason::TemporaryObject));
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("PREPARE s FROM 'SET character_set_client = gbk'");
    bench.does("EXECUTE s");
    assert!(bench.client.charset_unknown);
}

/// A statement of this name that nobody has seen may have come in its place.
#[test]
fn a_statement_that_may_be_another_one() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("PREPARE s FROM 'SELECT 1'");
    bench.does("PREPARE s FROM 'SET ROLE admin'; SELECT 1");
    bench.does("EXECUTE s");
    assert!(bench.client.pins.contains(PinReason::OpaqueCode));
}

/// Where a client has turned that off, nobody knows what has changed meanwhile: another client has a connection as new.
#[test]
fn behind_a_client_that_is_told_nothing() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("SET session_track_state_change = 0");
    bench.client = client(MODERN, 2);
    assert_eq!(texts(&bench.attach()), ["", AS_NEW]);
}

/// What comes behind it in a pipeline is read by what was made.
#[test]
fn a_pipeline_waits_for_what_is_made_by_name() {
    for (text, next) in [
        ("PREPARE s FROM 'SELECT GET_LOCK(@a, 0)'", "EXECUTE s"),
        ("PREPARE s FROM @a", "EXECUTE s"),
        ("PREPARE s FROM 'SELECT * FROM t'", "USE other"),
        ("CREATE TEMPORARY TABLE tt (a INT)", "ALTER TABLE tt RENAME TO v"),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        let [first, second] = [text, next].map(|text| says(command::QUERY, text.as_bytes()));
        assert_eq!(bench.says(&[&first[..], &second].concat()), first, "{text}");
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        assert_eq!(bench.says(b""), second);
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        assert!(!bench.client.pins.is_empty(), "{text}");
    }
}

/// MySQL's FLUSH that has waited too long for tables has its lock nevertheless.
#[test]
fn a_lock_behind_an_error() {
    for (code, expected) in [(1205, Pins::of(PinReason::SessionLock)), (1227, Pins::NONE)] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, b"FLUSH TABLES WITH READ LOCK"));
        bench.hears(&packets(1, &[err(code)]));
        assert_eq!(bench.client.pins, expected, "{code}");
        assert!(bench.server.probe(&mut Vec::new()));
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        bench.does("UNLOCK TABLES");
        assert_eq!(bench.client.pins, Pins::NONE);
    }
}

/// What `LAST_INSERT_ID()` is behind an answer that tells a number.
fn told(text: &str, insert_id: u64, warnings: u16, allowed: Pins) -> Bench {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let policy = PinPolicy { allowed, ..PinPolicy::default() };
    bench.client.set_pin_rules(PinRules { policy, budget: None });
    bench.says(&says(command::QUERY, text.as_bytes()));
    let ok = OkPacket { insert_id, warnings, status: AUTO, ..OkPacket::default() };
    bench.hears(&packets(1, &[ok_with(mark::OK, ok)]));
    bench
}

#[test]
fn numbers_that_may_not_have_been_drawn() {
    const NONE: Pins = Pins::NONE;
    const CODE: Pins = Pins::of(PinReason::OpaqueCode);
    let asks: &[&str] = &["SELECT @@SESSION.last_insert_id LIMIT 1"];
    for (text, warnings, allowed, known, asked) in [
        ("INSERT INTO t (a) VALUES ('x')", 0, NONE, 43, &[][..]),
        ("INSERT INTO t (i, a) VALUES (43, 'x')", 0, NONE, 0, asks),
        // It may be one that was brought into its range, or that no row has got.
        ("INSERT IGNORE INTO t (i, a) VALUES (500, 'x')", 1, NONE, 0, asks),
        // Code may have made it, and nobody is kept for that.
        ("INSERT INTO t (a) VALUES (f())", 0, CODE, 0, asks),
    ] {
        let mut bench = told(text, 43, warnings, allowed);
        bench.client.let_go_of_last_values();
        assert_eq!((bench.client.insert_id, bench.verify()), (known, asked.iter().map(ToString::to_string).collect()));
        if !asked.is_empty() {
            bench.answered(&[typed(8, 0, 20)], &[Some("7")]);
            assert_eq!((bench.client.insert_id, bench.client.pins()), (7, NONE), "{text}");
        }
    }
}

/// Who loses its connection goes on without a last value, but not without a variable.
#[test]
fn a_last_value_binds_nobody() {
    let mut bench = told("INSERT INTO t (i) VALUES (43)", 43, 0, Pins::NONE);
    assert!(!bench.client.is_bound() && !bench.client.pins().is_empty());
    bench.client.loses_connection();
    assert!(bench.client.pins().is_empty() && bench.client.unread.names().next().is_none());
    let mut bench = told("INSERT INTO t (i) VALUES (43)", 43, 0, Pins::NONE);
    bench.does("SELECT @a := 1");
    assert!(bench.client.is_bound());
    bench.client.loses_connection();
    assert!(!bench.client.pins().is_empty());
}

/// It is no reason of its own either, where something else keeps its client.
#[test]
fn a_last_value_is_not_counted() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.does("LOCK TABLES t READ");
    bench.says(&says(command::QUERY, b"INSERT INTO t VALUES (4)"));
    bench.hears(&packets(1, &[err(1099)]));
    assert!(bench.server.probe(&mut Vec::new()));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!(bench.client.counted_pins(), Pins::of(PinReason::SessionLock));
}
