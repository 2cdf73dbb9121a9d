//! Prepared statements of the binary protocol, beside a direct connection: scenarios 22 and 79 to 89 of the list.
//!
//! The proxy numbers a client's statements as a server does that has one client: so their numbers are compared as well.

use crate::harness::mysql::beside::{Sides, Talk, app, both_sides, each, each_with, my_config};
use crate::harness::mysql::wire::{
    COM_QUERY, COM_STMT_CLOSE, COM_STMT_EXECUTE, COM_STMT_FETCH, COM_STMT_PREPARE, COM_STMT_RESET,
    COM_STMT_SEND_LONG_DATA, MyWire, Packet, capability, framed,
};
use crate::harness::mysql::{Flavour, MyServer, database};
use crate::harness::proxy::set;

const TABLE: &[&str] = &[
    "CREATE TABLE t (i int AUTO_INCREMENT PRIMARY KEY, v longblob, d decimal(20,5), w datetime(6))",
    "INSERT INTO t (v, d, w) VALUES ('one', 1.5, '2026-01-02 03:04:05.6'), (NULL, NULL, NULL), ('three', -7, '1999-12-31')",
];

/// MYSQL_TYPE_LONGLONG and MYSQL_TYPE_BLOB.
const LONGLONG: [u8; 2] = [8, 0];
const BLOB: [u8; 2] = [0xFC, 0];

fn prepare(text: &str) -> Vec<u8> {
    [&[COM_STMT_PREPARE], text.as_bytes()].concat()
}

fn command(command: u8, number: u32, rest: &[u8]) -> Vec<u8> {
    [&[command][..], &number.to_le_bytes(), rest].concat()
}

/// Without parameters.
const PLAIN: [u8; 5] = [0, 1, 0, 0, 0];
const CURSOR: [u8; 5] = [1, 1, 0, 0, 0];

/// With one number, whose type is said or not.
fn number(has_type: bool, value: u64) -> Vec<u8> {
    let types = if has_type { [&[1][..], &LONGLONG].concat() } else { vec![0] };
    [&PLAIN[..], &[0], &types, &value.to_le_bytes()].concat()
}

/// A number, a string and a number with a fraction for `SELECT ?, ? + 1`, over one connection: what one client's are is nothing to another.
#[test]
fn my_081_types_are_each_clients_own() {
    both_sides("my_081t", 3, &[""; 0], |sides| {
        let values = [
            [&LONGLONG[..], &LONGLONG, &7u64.to_le_bytes(), &8u64.to_le_bytes()].concat(),
            [&[0xFD, 0, 0xFD, 0][..], b"\x03abc\x021x"].concat(),
            [&[5, 0, 5, 0][..], &1.5f64.to_le_bytes(), &2.5f64.to_le_bytes()].concat(),
        ];
        let mut talks = values.map(|values| {
            let mut talk = sides.talk();
            (talk.prepare("SELECT ?, ? + 1"), talk, [&[0, 1][..], &values].concat())
        });
        for _ in 0..3 {
            for (statement, talk, values) in &mut talks {
                talk.execute(*statement, values);
            }
        }
    });
}

/// Two clients with the same statements, under numbers that each side gives as it likes.
struct Both {
    talk: Talk,
    numbers: Vec<[u32; 2]>,
}

impl Both {
    /// One more statement, if that can be.
    fn prepare(&mut self, text: &str) {
        let payload = prepare(text);
        let without_number = |packet: Packet| match packet.payload[..] {
            [0, _, _, _, _, ref rest @ ..] if rest.len() == 7 => {
                Packet { payload: [&[0, 0, 0, 0, 0], rest].concat().into(), ..packet }
            }
            _ => packet,
        };
        let (direct, proxied) = self.talk.commands(text, &[payload.clone(), payload], without_number);
        if direct[0].first() == 0 {
            let number = |packets: &[Packet]| u32::from_le_bytes(packets[0].payload[1..5].try_into().unwrap());
            self.numbers.push([number(&direct), number(&proxied)]);
        }
    }

    /// For the statement that was prepared as that one, or for one that neither has.
    fn say(&mut self, say: u8, which: usize, rest: &[u8]) -> Vec<Packet> {
        let numbers = self.numbers.get(which).copied().unwrap_or([1_000_000 + u32::try_from(which).unwrap(); 2]);
        let payloads = numbers.map(|number| command(say, number, rest));
        // Errors name it.
        let named = numbers.map(|number| format!("({number})"));
        let nameless = |packet: Packet| {
            let text = String::from_utf8_lossy(&packet.payload).into_owned();
            match packet.error().and_then(|_| named.iter().find(|named| text.contains(*named))) {
                Some(named) => {
                    let at = memchr::memmem::find(&packet.payload, named.as_bytes()).unwrap();
                    let payload = [&packet.payload[..at], b"()", &packet.payload[at + named.len()..]].concat();
                    Packet { payload: payload.into(), ..packet }
                }
                // Prepared anew on another connection, it is as it is there.
                None => told_nothing_new(packet),
            }
        };
        self.talk.commands(&format!("{say:x} {which} {}", rest.escape_ascii()), &payloads, nameless).1
    }

    fn execute(&mut self, which: usize, rest: &[u8]) -> Vec<Packet> {
        self.say(COM_STMT_EXECUTE, which, rest)
    }
}

/// Without METADATA_CHANGED at the end of rows.
fn told_nothing_new(packet: Packet) -> Packet {
    match packet.payload[..] {
        [0xFE, a, b, low, high, ref rest @ ..] if rest.len() < 9 => {
            Packet { payload: [&[0xFE, a, b, low, high & !4], rest].concat().into(), ..packet }
        }
        _ => packet,
    }
}

/// What the proxied client has next is on another connection: the one it had has died.
fn elsewhere(server: &MyServer, proxied: &mut MyWire) {
    let id = proxied.value("SELECT CONNECTION_ID()");
    server.kill(&id);
    assert_ne!(proxied.value("SELECT CONNECTION_ID()"), id);
}

fn in_all_forms(name: &str, run: impl Fn(&Sides<'_>, &mut Both)) {
    both_sides(name, 4, TABLE, |sides| {
        for form in [0, capability::DEPRECATE_EOF, capability::DEPRECATE_EOF | capability::SESSION_TRACK] {
            let base = capability::USUAL & !capability::DEPRECATE_EOF | capability::PS_MULTI_RESULTS;
            let talk = sides.talk_as(|login| login.without(capability::DEPRECATE_EOF).with(base | form));
            run(sides, &mut Both { talk, numbers: Vec::new() });
        }
    });
}

/// Scenarios 79, 88 and 90: what is prepared, executed and refused.
#[test]
fn my_079_prepared_and_executed() {
    in_all_forms("my_079", |_, both| {
        for text in [
            "SELECT i, v, d, w, NULL AS n FROM t WHERE i >= ? ORDER BY i",
            "INSERT INTO t (d) VALUES (?)",
            "DELETE FROM t WHERE i > 3 OR i = ?",
            "DO 1",
            "SELECT 'text', 1e10, TIME '11:22:33.44', POINT(1, 2) WHERE 1 > 0",
        ] {
            both.prepare(text);
        }
        for is_first in [true, false] {
            for which in 0..3 {
                both.execute(which, &number(is_first, 1 + u64::from(which > 1) * 3));
            }
            both.talk.same("ALTER TABLE t AUTO_INCREMENT = 4");
            both.execute(3, &PLAIN);
            both.execute(4, &PLAIN);
        }
        // What can't be prepared, and what there is not.
        for text in ["SELEC", "SELECT * FROM nowhere", "USE x", ""] {
            both.prepare(text);
        }
        for which in [77, 78] {
            both.execute(which, &PLAIN);
            both.say(COM_STMT_RESET, which, b"");
            both.say(COM_STMT_FETCH, which, &[1, 0, 0, 0]);
            // Nobody answers these.
            both.say(COM_STMT_CLOSE, which, b"");
            both.say(COM_STMT_SEND_LONG_DATA, which, b"\0\0text");
            both.talk.same("SELECT 1");
        }
        both.say(COM_STMT_FETCH, 0, &[1, 0, 0, 0]);
        both.say(COM_STMT_RESET, 0, b"");
        both.talk.command(&[COM_STMT_EXECUTE, 1]);
        both.say(COM_STMT_CLOSE, 0, b"");
        both.execute(0, &number(true, 1));
        both.talk.same("SELECT 'still here'");
    });
}

/// Scenarios 80 and 81: on connections that know nothing of a statement, nor of its types.
#[test]
fn my_080_executed_elsewhere() {
    in_all_forms("my_080", |sides, both| {
        both.prepare("SELECT i, v FROM t WHERE i = ?");
        both.execute(0, &number(true, 1));
        for value in 1..4 {
            elsewhere(sides.server, &mut both.talk.proxied);
            both.execute(0, &number(false, value));
        }
        elsewhere(sides.server, &mut both.talk.proxied);
        both.talk.same("BEGIN");
        both.execute(0, &number(false, 3));
        both.talk.same("COMMIT");
        // Its types were never said: another client's must not do.
        both.prepare("SELECT i, v FROM t WHERE i = ?");
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        other.command(&prepare("SELECT i, v FROM t WHERE i = ?"));
        other.command(&command(COM_STMT_EXECUTE, 1, &number(true, 1)));
        both.execute(1, &number(false, 1));
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
    });
}

/// What can't be prepared ahead of a `SET`, because of a transaction or a lock, can be once that is over.
#[test]
fn my_080_what_can_not_be_prepared_for_now() {
    both_sides("my_080n", 4, &[TABLE[0], "CREATE TABLE other (i int)"], |sides| {
        for [begin, end] in [["START TRANSACTION READ ONLY", "ROLLBACK"], ["LOCK TABLES other READ", "UNLOCK TABLES"]] {
            let mut both = Both { talk: sides.talk(), numbers: Vec::new() };
            both.prepare("INSERT INTO t (d) VALUES (?)");
            elsewhere(sides.server, &mut both.talk.proxied);
            both.talk.all(&[begin, "SET sql_mode = CONCAT(@@sql_mode)", end]);
            both.execute(0, &number(true, 1));
            both.talk.all(&[begin, "SET sql_mode = CONCAT(@@sql_mode)"]);
            both.execute(0, &number(true, 2));
            both.talk.same(end);
            both.execute(0, &number(true, 3));
            both.talk.same("SELECT d FROM t");
        }
    });
}

/// Scenarios 78 and 82.
#[test]
fn my_082_parameters_in_pieces() {
    in_all_forms("my_082", |sides, both| {
        let text = "SELECT LENGTH(?), HEX(?)";
        both.prepare(text);
        let piece = |parameter: u8, bytes: &[u8]| [&[parameter, 0][..], bytes].concat();
        let blobs = [&PLAIN[..], &[0, 1], &BLOB, &BLOB].concat();
        let inline = [&blobs[..], b"\x03abc\x02de"].concat();
        for _ in 0..2 {
            elsewhere(sides.server, &mut both.talk.proxied);
            for at in 0..10_u8 {
                both.say(COM_STMT_SEND_LONG_DATA, 0, &piece(0, &vec![at; 100_000]));
                both.say(COM_STMT_SEND_LONG_DATA, 0, &piece(1, &[at]));
            }
            both.execute(0, &blobs);
            // What was sent counts once.
            both.execute(0, &inline);
            both.say(COM_STMT_SEND_LONG_DATA, 0, &piece(0, b"dropped"));
            both.say(COM_STMT_RESET, 0, b"");
            both.execute(0, &inline);
        }
        // Of what fails nothing is left.
        both.prepare("INSERT INTO t (i, v) VALUES (1, ?)");
        let one = |rest: &[u8]| [&PLAIN[..], &[0, 1], &BLOB, rest].concat();
        both.say(COM_STMT_SEND_LONG_DATA, 1, b"\0\0long");
        both.execute(1, &one(b""));
        both.talk.same("DELETE FROM t WHERE i = 1");
        both.execute(1, &one(b"\x03one"));
        both.talk.same("SELECT v FROM t WHERE i = 1");
        // Another client's statement of the same text does not find them.
        both.say(COM_STMT_SEND_LONG_DATA, 0, &piece(0, b"mine"));
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        assert_eq!(other.command(&prepare(text))[0].error(), None);
        let found = other.command(&command(COM_STMT_EXECUTE, 1, &inline));
        assert_eq!(found[0].error(), None);
        assert!(found[3].payload.ends_with(b"\x046465"), "{found:?}");
        both.say(COM_STMT_SEND_LONG_DATA, 0, &piece(1, b""));
        both.execute(0, &blobs);
    });
}

/// Pieces, and an EXECUTE that is refused for a transaction that is lost: nothing of them is left for the next one.
#[test]
fn my_082_pieces_of_what_is_refused() {
    each("my_082r", 4, TABLE, |server, name, proxy| {
        let mut one = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        one.command(&prepare("INSERT INTO t (i, v) VALUES (7, ?)"));
        let blob = [&PLAIN[..], &[0, 1], &BLOB].concat();
        one.query("BEGIN");
        server.root().query(&format!("KILL {}", one.value("SELECT CONNECTION_ID()")));
        for last in [&["ROLLBACK", "BEGIN"][..], &["COMMIT"]] {
            one.command(&command(COM_STMT_SEND_LONG_DATA, 1, b"\0\0v"));
            let told = one.command(&command(COM_STMT_EXECUTE, 1, &blob))[0].error();
            assert_eq!(told.map(|error| error.code), (last[0] == "ROLLBACK").then_some(1213));
            last.iter().for_each(|sql| drop(one.query(sql)));
        }
        assert_eq!(one.value("SELECT v FROM t WHERE i = 7"), "v");
    });
}

/// A piece that is sent behind an EXECUTE, before that is answered, is its client's own.
#[test]
fn my_082_pieces_in_one_breath() {
    both_sides("my_082b", 4, &[""; 0], |sides| {
        let text = "SELECT HEX(?), 1";
        let mut both = Both { talk: sides.talk(), numbers: Vec::new() };
        both.prepare(text);
        let blob = [&PLAIN[..], &[0, 1], &BLOB].concat();
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        other.command(&prepare(text));
        for between in [(COM_STMT_EXECUTE, &blob[..]), (COM_STMT_RESET, b"")] {
            println!("{:x}", between.0);
            for (wire, number) in [&mut both.talk.direct, &mut both.talk.proxied].into_iter().zip(both.numbers[0]) {
                let piece = |bytes: &[u8]| framed(&mut 0, &command(COM_STMT_SEND_LONG_DATA, number, bytes));
                let middle = framed(&mut 0, &command(between.0, number, between.1));
                wire.send_raw(&[piece(b"\0\0a"), middle, piece(b"\0\0secret")].concat());
                wire.expect_reply();
                wire.reply_to(between.0);
            }
            let inline = other.command(&command(COM_STMT_EXECUTE, 1, &[&blob[..], b"\x01b"].concat()));
            assert!(inline.iter().any(|row| row.payload.starts_with(b"\0\0\x0262\x01")), "{inline:?}");
            both.execute(0, &blob);
        }
    });
}

/// What is refused for want of a connection: a piece has no answer, and what it belongs to must not run without it; the latest one is
/// not the one before.
#[test]
fn my_082_what_finds_no_connection() {
    let config = |server: &_| set(&my_config(server, 3), "target_group.pool", "connection_borrow_timeout", "\"300ms\"");
    each_with("my_082w", TABLE, config, |server, name, proxy| {
        let client = || MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let mut one = MyWire::comes_in(proxy.address, &app().database(name));
        let mut holder = client();
        one.command(&prepare("INSERT INTO t (i, v) VALUES (9, ?)"));
        let blob = [&PLAIN[..], &[0, 1], &BLOB].concat();
        let timeouts = || proxy.metric("sluicegate_errors_total");
        let before = timeouts();
        holder.query("BEGIN");
        let sent = [
            command(COM_STMT_SEND_LONG_DATA, 1, b"\0\0v"),
            command(COM_STMT_EXECUTE, 1, &blob),
            [&[COM_QUERY][..], b"SELECT COUNT(*) FROM t WHERE i = 9"].concat(),
        ];
        one.send_raw(&sent.map(|payload| framed(&mut 0, &payload)).concat());
        one.expect_reply();
        assert_eq!(one.reply_to(COM_STMT_EXECUTE)[0].error().unwrap().code, 9501);
        holder.query("COMMIT");
        one.expect_reply();
        assert_eq!(one.reply_to(COM_QUERY)[0].error().map(|error| error.code), None);
        // It is as good as ever.
        one.command(&command(COM_STMT_SEND_LONG_DATA, 1, b"\0\0v"));
        assert_eq!(one.command(&command(COM_STMT_EXECUTE, 1, &blob))[0].error(), None);
        assert_eq!(one.value("SELECT v FROM t WHERE i = 9"), "v");
        assert!(timeouts() > before);
        if server.flavour() == Flavour::MariaDb {
            for (number, refused) in (20..).zip(["KILL 5", "SELECT 1"]) {
                one.command(&prepare(&format!("INSERT INTO t (i) VALUES ({number})")));
                if refused == "SELECT 1" {
                    holder.query("BEGIN");
                }
                let sent = [prepare(refused), command(COM_STMT_EXECUTE, u32::MAX, &PLAIN)];
                one.send_raw(&sent.map(|payload| framed(&mut 0, &payload)).concat());
                one.expect_reply();
                let code = one.reply_to(COM_STMT_PREPARE)[0].error().unwrap().code;
                assert_eq!(code, if refused == "SELECT 1" { 9501 } else { 1235 });
                holder.query("COMMIT");
                one.expect_reply();
                assert_eq!(one.reply_to(COM_STMT_EXECUTE)[0].error().unwrap().code, 1243);
            }
            assert_eq!(one.value("SELECT COUNT(*) FROM t WHERE i >= 20"), "0");
        }
    });
}

/// Scenario 83.
#[test]
fn my_083_cursors() {
    in_all_forms("my_083", |sides, both| {
        both.prepare("SELECT i, v FROM t ORDER BY i");
        both.prepare("SELECT i FROM t WHERE false");
        both.prepare("DO 1");
        elsewhere(sides.server, &mut both.talk.proxied);
        both.execute(0, &CURSOR);
        both.say(COM_STMT_FETCH, 0, &[2, 0, 0, 0]);
        // Something else in between.
        both.talk.same("SELECT COUNT(*) FROM t");
        both.say(COM_STMT_FETCH, 0, &[2, 0, 0, 0]);
        both.say(COM_STMT_FETCH, 0, &[2, 0, 0, 0]);
        both.execute(1, &CURSOR);
        both.say(COM_STMT_FETCH, 1, &[1, 0, 0, 0]);
        // MySQL has a cursor even for this.
        both.execute(2, &CURSOR);
        both.say(COM_STMT_CLOSE, 2, b"");
        // Given up, in each way.
        both.execute(0, &CURSOR);
        both.say(COM_STMT_RESET, 0, b"");
        both.execute(0, &CURSOR);
        if sides.server.flavour() == Flavour::MariaDb {
            both.execute(0, &PLAIN);
        } else {
            // MySQL itself sends no rows behind a cursor, and no proper end.
            let rows = both.talk.proxied.command(&command(COM_STMT_EXECUTE, both.numbers[0][1], &PLAIN));
            assert!(rows.iter().any(|row| row.payload.ends_with(b"\x05three")), "{rows:?}");
            both.prepare("SELECT i, v FROM t ORDER BY i");
            both.numbers.swap_remove(0);
        }
        both.execute(0, &CURSOR);
        both.say(COM_STMT_CLOSE, 0, b"");
        both.talk.same("SELECT 1");
        // The connection is not kept for any of them.
        let mut others: Vec<MyWire> =
            (0..2).map(|_| MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap()).collect();
        others.iter_mut().for_each(|other| _ = other.query("BEGIN"));
    });
}

/// Scenario 84: a table that has changed since.
#[test]
fn my_084_a_table_that_has_changed() {
    both_sides("my_084", 4, TABLE, |sides| {
        let mut both = Both { talk: sides.talk(), numbers: Vec::new() };
        both.prepare("SELECT * FROM t WHERE i = 1");
        both.execute(0, &PLAIN);
        both.talk.same("ALTER TABLE t ADD COLUMN more int DEFAULT 7 AFTER i");
        both.execute(0, &PLAIN);
        elsewhere(sides.server, &mut both.talk.proxied);
        both.execute(0, &PLAIN);
        both.talk.same("DROP TABLE t");
        both.execute(0, &PLAIN);
        elsewhere(sides.server, &mut both.talk.proxied);
        both.execute(0, &PLAIN);
        both.talk.same("CREATE TABLE t (i int)");
        both.execute(0, &PLAIN);
    });
}

/// Scenario 87: transactions by prepared statements.
#[test]
fn my_087_transactions_by_prepared_statements() {
    both_sides("my_087", 4, &["CREATE TABLE t (i int PRIMARY KEY)"], |sides| {
        let mut both = Both { talk: sides.talk(), numbers: Vec::new() };
        // MySQL prepares no START TRANSACTION.
        for text in ["COMMIT", "ROLLBACK", "INSERT INTO t VALUES (1)", "SET autocommit = 0", "SELECT * FROM t"] {
            both.prepare(text);
        }
        assert_eq!(both.numbers.len(), 5);
        both.prepare("START TRANSACTION");
        let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        for end in [1, 0] {
            both.talk.same("START TRANSACTION");
            both.execute(2, &PLAIN);
            assert_eq!(other.value("SELECT COUNT(*) FROM t"), "0");
            // An error leaves it open.
            both.execute(2, &PLAIN);
            both.execute(end, &PLAIN);
        }
        assert_eq!(other.value("SELECT COUNT(*) FROM t"), "1");
        both.execute(3, &PLAIN);
        both.talk.same("DELETE FROM t");
        both.execute(1, &PLAIN);
        both.execute(4, &PLAIN);
    });
}

/// Scenario 22: MariaDB's "the one that was prepared last", sent in one breath with it.
#[test]
fn my_022_the_latest() {
    both_sides("my_022", 4, TABLE, |sides| {
        let mut both = Both { talk: sides.talk(), numbers: Vec::new() };
        let latest = command(COM_STMT_EXECUTE, u32::MAX, &PLAIN);
        both.talk.command(&latest);
        both.prepare("SELECT i FROM t");
        both.talk.command(&latest);
        if sides.server.flavour() == Flavour::MySql {
            return;
        }
        both.prepare("SELEC");
        both.talk.command(&latest);
        for wire in [&mut both.talk.direct, &mut both.talk.proxied] {
            let mut pipeline = Vec::new();
            for payload in [prepare("SELECT v FROM t WHERE i = 1"), latest.clone()] {
                pipeline.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
                pipeline.extend(payload);
            }
            wire.send_raw(&pipeline);
            wire.begin_reply();
            // The statement, and its column; then a result of four packets.
            let prepared = [0; 2].map(|_| wire.receive());
            assert_eq!(prepared[0].first(), 0);
            let mut rows = Vec::new();
            wire.begin_reply();
            wire.result(&mut rows);
            assert!(rows[2].payload.ends_with(b"\x03one"), "{rows:?}");
        }
        both.talk.same("SELECT 'in step'");
    });
}

/// Scenarios 80 and 89: a statement means what it meant, whatever else its client has set since.
#[test]
fn my_089_statements_and_what_is_set_behind_them() {
    both_sides("my_089", 4, TABLE, |sides| {
        let other = database(sides.server, &sides.name.replace("my_", "mx_"), &["CREATE TABLE t (i int)"]);
        let mut both = Both { talk: sides.talk(), numbers: Vec::new() };
        both.prepare("SELECT i, \"v\" FROM t WHERE i = 1");
        elsewhere(sides.server, &mut both.talk.proxied);
        both.talk.all(&[&format!("USE {other}"), "SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')"]);
        both.execute(0, &PLAIN);
        both.prepare("SELECT i FROM t WHERE i = 1");
        both.execute(1, &PLAIN);
        both.execute(0, &PLAIN);
        both.talk.all(&["PREPARE p FROM 'SELECT COUNT(*) FROM t'", "EXECUTE p", "DEALLOCATE PREPARE p"]);
        // Another client has none of this.
        let mut next = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        next.command(&prepare("SELECT i FROM t WHERE i = 1"));
        assert_eq!(next.command(&command(COM_STMT_EXECUTE, 1, &PLAIN)).len(), 4);
        assert_eq!(next.value("SELECT \"v\""), "v");
    });
}

/// Scenarios 85 and 86: more statements than a connection may have, and closed by one of the clients that share them.
#[test]
fn my_085_more_than_there_may_be() {
    let config = |server: &MyServer| set(&my_config(server, 3), "target_group.pool", "max_prepared_statements", "2");
    each_with("my_085", &[], config, |_, name, proxy| {
        let mut clients: Vec<MyWire> =
            (0..3).map(|_| MyWire::connect(proxy.address, &app().database(name)).unwrap()).collect();
        for client in &mut clients {
            for value in 0..5 {
                client.command(&prepare(&format!("SELECT {value}")));
            }
        }
        for round in 0..3 {
            for client in &mut clients {
                for value in 0..5_u8 {
                    let packets = client.command(&command(COM_STMT_EXECUTE, u32::from(value) + 1, &PLAIN));
                    let row = &packets[packets.len() - 2].payload;
                    assert_eq!(row[2], value, "{row:?}");
                }
            }
            let gone = &mut clients[0];
            if round == 0 {
                (1..6).for_each(|number| _ = gone.command(&command(COM_STMT_CLOSE, number, b"")));
                clients.remove(0);
            }
        }
        let mut root = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        assert_eq!(root.value("SELECT 1"), "1");
        assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0);
    });
}

/// Many clients, few connections: each gets the answers of its own statements.
#[test]
fn statements_of_many_clients() {
    each("my_many", 5, TABLE, |_, name, proxy| {
        let address = proxy.address;
        std::thread::scope(|scope| {
            for client in 0..12_u64 {
                scope.spawn(move || {
                    let mut wire = MyWire::connect(address, &app().database(name)).unwrap();
                    let text = format!("SELECT ? + {}", client % 4);
                    wire.command(&prepare(&text));
                    for value in 0..60 {
                        if value % 20 == 19 {
                            wire.query("BEGIN");
                        }
                        let packets = wire.command(&command(COM_STMT_EXECUTE, 1, &number(value == 0, value)));
                        let row = &packets[packets.len() - 2].payload;
                        assert_eq!(row[2..10], (value + client % 4).to_le_bytes(), "{text}: {row:?}");
                        if value % 20 == 19 {
                            wire.query("COMMIT");
                        }
                    }
                });
            }
        });
        assert_eq!(proxy.metric("sluicegate_pins_total"), 0.0);
    });
}
