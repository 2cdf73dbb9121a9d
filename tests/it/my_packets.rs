//! Packets of every size and in every piece, and commands other than texts: scenarios 47 to 50, 59 to 67 and 74 to 78.

use std::iter;

use crate::harness::mysql::beside::{Sides, app, both_sides, each};
use crate::harness::mysql::database;
use crate::harness::mysql::wire::{
    COM_FIELD_LIST, COM_INIT_DB, COM_PING, COM_QUERY, COM_QUIT, COM_STMT_CLOSE, COM_STMT_SEND_LONG_DATA, MyWire,
    Packet, capability, framed,
};

fn query(sql: &str) -> Vec<u8> {
    framed(&mut 0, &[&[COM_QUERY], sql.as_bytes()].concat())
}

/// A statement and a row of exactly two pieces, which a third one without a byte follows.
#[test]
fn my_047_packets_of_three_pieces() {
    each("my_047_three", 4, &[], |_, name, proxy| {
        let mut wire = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let text = 2 * 0xFF_FFFF_usize - "_SELECT LENGTH('')".len();
        assert_eq!(wire.value(&format!("SELECT LENGTH('{}')", "x".repeat(text))), text.to_string());
        let row = wire.reply(&format!("SELECT REPEAT('x', {})", 2 * 0xFF_FFFF - 9)).swap_remove(2);
        assert_eq!(row.payload.len(), 2 * 0xFF_FFFF);
    });
}

/// A byte at a time, all in one piece, and a last word.
#[test]
fn my_048_pieces_and_pipelines() {
    both_sides("my_048", 4, &["CREATE TABLE t (i int)"], |sides| {
        let ping = framed(&mut 0, &[COM_PING]);
        let all = [
            query("SELECT 1"),
            ping,
            query("INSERT INTO t VALUES (1)"),
            query("SELECT nonsense"),
            query("SELECT i FROM t"),
        ];
        let mut talk = sides.talk();
        let replies = |wire: &mut MyWire| -> Vec<Vec<Packet>> {
            let commands = [COM_QUERY, COM_PING, COM_QUERY, COM_QUERY, COM_QUERY];
            commands
                .iter()
                .map(|command| {
                    wire.expect_reply();
                    wire.reply_to(*command)
                })
                .collect()
        };
        let mut told = Vec::new();
        for wire in [&mut talk.direct, &mut talk.proxied] {
            all.concat().chunks(1).for_each(|byte| wire.send_raw(byte));
            let in_bytes = replies(wire);
            wire.send_raw(&all.concat());
            let in_one = replies(wire);
            // A goodbye behind a question, and nothing more: the question is answered.
            wire.send_raw(&[query("SELECT 'last'"), framed(&mut 0, &[COM_QUIT])].concat());
            wire.half_close();
            wire.expect_reply();
            let last = wire.reply_to(COM_QUERY);
            wire.until_closed();
            told.push((in_bytes, in_one, last));
        }
        let [direct, proxied] = [0, 1].map(|side| format!("{:?}", told[side]).replace(&sides.twin, &sides.name));
        assert_eq!(proxied, direct);
    });
}

/// A client that does not read holds up its own rows, and nobody's memory.
#[test]
fn my_049_a_client_that_does_not_read() {
    each("my_049", 5, &[], |_, name, proxy| {
        let mut stalled = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let rows = iter::repeat_n("SELECT REPEAT('x', 1000000)", 150).collect::<Vec<_>>().join(" UNION ALL ");
        stalled.send(&[&[COM_QUERY], rows.as_bytes()].concat());
        // The first row is there, and so the server has begun.
        (0..3).for_each(|_| drop(stalled.receive()));
        let mut other = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        for number in 0..50 {
            assert_eq!(other.value(&format!("SELECT {number}")), number.to_string());
        }
        let rest = (0..).take_while(|_| stalled.receive().payload.len() > 100).count();
        assert_eq!(rest, 149);
        assert_eq!(stalled.value("SELECT 'read'"), "read");
        let peak = proxy.memory_peak_kib();
        assert!(peak < 60 << 10, "{peak} KiB for 150 MB of rows");
    });
}

/// More than the server takes: it says so, or just closes. Here it is told, and the client goes on, as what it has begun has not run; others
/// don't notice.
#[test]
fn my_050_more_than_max_allowed_packet() {
    both_sides("my_050", 5, &[], |sides| {
        let mut other = sides.talk();
        let mut talk = sides.talk();
        let limit: usize = talk.proxied.value("SELECT @@max_allowed_packet").parse().unwrap();
        let too_long = query(&format!("SELECT LENGTH('{}')", "x".repeat(limit)));
        let told = [&mut talk.direct, &mut talk.proxied].map(|wire| {
            wire.any_sequence = true;
            wire.send_as_far_as_it_goes(&too_long);
            wire.receive().error().map(|error| error.code)
        });
        assert!(matches!(told[1], Some(1153 | 1158)), "{told:?}");
        talk.proxied.any_sequence = false;
        assert_eq!(talk.proxied.value("SELECT 'goes on'"), "goes on");
        other.same("SELECT 'fine'");
        sides.talk().same("SELECT 'fine'");
    });
}

/// Texts without a statement.
#[test]
fn my_059_nothing_but_comments() {
    both_sides("my_059", 3, &[], |sides| {
        for form in [capability::DEPRECATE_EOF, 0] {
            let mut talk = sides.talk_as(|login| login.without(capability::DEPRECATE_EOF).with(form));
            for sql in [
                "",
                " ",
                "\n\t",
                ";",
                ";;",
                "-- nothing",
                "# nothing",
                "/* nothing */",
                "/*! */",
                "/*!999999 SELECT 1 */",
                "/* a */;",
            ] {
                talk.same(sql);
                // The one connection is free for others, as nothing was said.
                assert_eq!(MyWire::connect(sides.proxy.address, &app()).unwrap().value("SELECT 1"), "1", "{sql:?}");
            }
        }
    });
}

/// A goodbye is not answered, and the connection stays for the next one.
#[test]
fn my_062_goodbye() {
    each("my_062", 3, &[], |_, name, proxy| {
        let mut numbers = Vec::new();
        for _ in 0..3 {
            let mut wire = MyWire::connect(proxy.address, &app().database(name)).unwrap();
            numbers.push(wire.value("SELECT CONNECTION_ID()"));
            wire.send(&[COM_QUIT]);
            wire.until_closed();
        }
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    });
}

/// A second database for each side; its name is the first one's and `_b`.
fn second_database(sides: &Sides<'_>) {
    for name in [&sides.name, &sides.twin] {
        database(sides.server, &format!("{name}_b"), &["CREATE TABLE t (b int)"]);
    }
}

/// Another database, by command and by text; one that fails changes nothing, and nothing stays for others.
#[test]
fn my_063_another_database() {
    both_sides("my_063", 3, &["CREATE TABLE t (a int)"], |sides| {
        second_database(sides);
        const ASK: &str = "SELECT DATABASE()";
        for form in [0, capability::SESSION_TRACK] {
            let mut talk = sides.talk_as(|login| login.with(form));
            talk.command(&[&[COM_INIT_DB], &b"{db}_b"[..]].concat());
            talk.all(&[ASK, "SELECT * FROM t"]);
            for gone in ["my_063_nowhere", "", "mysql"] {
                talk.command(&[&[COM_INIT_DB], gone.as_bytes()].concat());
                talk.same(ASK);
            }
            talk.all(&[
                "USE {db}",
                ASK,
                "USE my_063_nowhere",
                ASK,
                "/*!50000 USE {db}_b */",
                ASK,
                "SELECT 1 /* USE {db} */",
                ASK,
                "BEGIN",
                "USE `{db}`",
                "SELECT * FROM t",
                "COMMIT",
                ASK,
            ]);
            talk.command(&[&[COM_INIT_DB], &b"{db}_b"[..]].concat());
            drop(talk);
            sides.talk_as(|login| login.with(form)).all(&[ASK, "SELECT * FROM t"]);
        }
    });
}

/// A database that is dropped while it is somebody's.
#[test]
fn my_064_the_current_database_is_dropped() {
    both_sides("my_064", 3, &["CREATE TABLE t (a int)"], |sides| {
        const ASK: &str = "SELECT DATABASE()";
        second_database(sides);
        for form in [0, capability::SESSION_TRACK] {
            let mut talk = sides.talk_as(|login| login.with(form));
            talk.all(&["USE {db}_b", "DROP DATABASE {db}_b", ASK, "SELECT * FROM t", "CREATE DATABASE {db}_b", ASK]);
            drop(talk);
            sides.talk_as(|login| login.with(form)).all(&[ASK, "SELECT * FROM t"]);
        }
        // That of the login, which the pool's connections have.
        let mut talk = sides.talk();
        talk.all(&["DROP DATABASE {db}", ASK, "CREATE DATABASE {db}", "CREATE TABLE {db}.t (a int)", ASK]);
        drop(talk);
        for _ in 0..2 {
            sides.talk().all(&[ASK, "SELECT * FROM t"]);
        }
    });
}

/// A line of figures is a packet of its own form.
#[test]
fn my_066_statistics() {
    both_sides("my_066", 4, &[], |sides| {
        let mut talk = sides.talk();
        let told = [&mut talk.direct, &mut talk.proxied].map(|wire| {
            let line = wire.command(&[0x09]).remove(0);
            let text = String::from_utf8(line.payload.to_vec()).unwrap();
            text.split(|letter: char| letter.is_ascii_digit() || letter == '.')
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("#")
        });
        assert_eq!(told[1], told[0]);
        talk.all(&["SELECT 1", "BEGIN"]);
        // In a transaction, too.
        assert!(talk.proxied.command(&[0x09])[0].payload.starts_with(b"Uptime: "));
        talk.direct.command(&[0x09]);
        talk.all(&["SELECT 1", "COMMIT"]);
    });
}

/// Numbers in SHOW PROCESSLIST, and CONNECTION_ID(), are the database's (docs/MYSQL.md).
#[test]
fn my_067_numbers_of_connections() {
    each("my_067", 3, &[], |server, name, proxy| {
        let mut wire = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        wire.query("BEGIN");
        let own = wire.value("SELECT CONNECTION_ID()");
        let listed = wire.query("SHOW PROCESSLIST");
        assert!(listed.iter().any(|row| row[0].as_ref() == Some(&own)), "{listed:?}");
        let seen = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id = {own} AND db = '{name}'");
        assert_eq!(server.root().value(&seen), "1");
        // Whoever takes it for one of the proxy's stops nobody.
        let mut other = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        for kill in [format!("KILL QUERY {own}"), format!("KILL {own}")] {
            assert_eq!(other.error(&kill).code, 1094);
        }
        assert_eq!(wire.value("SELECT CONNECTION_ID()"), own);
    });
}

/// Commands that are nobody's here: told so, and the session goes on. The server does, too.
#[test]
fn my_074_077_commands_that_are_refused() {
    each("my_074", 4, &[], |_, name, proxy| {
        let mut wire = MyWire::connect(proxy.address, &app().database(name)).unwrap();
        for in_transaction in [false, true] {
            if in_transaction {
                wire.query("BEGIN");
            }
            // COM_SLEEP, CREATE_DB, DROP_DB, REFRESH, SHUTDOWN, PROCESS_INFO, CONNECT, DEBUG, TIME, DELAYED_INSERT,
            // TABLE_DUMP, DAEMON, CLONE; two that nobody has.
            for command in [0x00, 0x05, 0x06, 0x07, 0x08, 0x0A, 0x0B, 0x0D, 0x0F, 0x10, 0x13, 0x1D, 0x20, 0x55, 0xEE] {
                let error = wire.command(&[command, b'x', 0]).remove(0).error().unwrap();
                assert_eq!((error.code, error.state.as_str()), (1047, "08S01"), "{command:x}");
                assert_eq!(wire.value("SELECT 1"), "1");
            }
        }
    });
}

/// The columns of a table, behind which an EOF packet comes in any case.
#[test]
fn my_075_the_columns_of_a_table() {
    let setup = ["CREATE TABLE t (i int NOT NULL PRIMARY KEY DEFAULT 5, v varchar(20) DEFAULT 'x', d datetime)"];
    both_sides("my_075", 4, &setup, |sides| {
        for form in [
            0,
            capability::DEPRECATE_EOF,
            capability::SESSION_TRACK,
            capability::DEPRECATE_EOF | capability::SESSION_TRACK,
        ] {
            let mut talk = sides.talk_as(|login| login.without(capability::DEPRECATE_EOF).with(form));
            for asked in ["t\0", "t\0v%", "t\0nothing", "nowhere\0", "\0"] {
                talk.command(&[&[COM_FIELD_LIST], asked.as_bytes()].concat());
                talk.same("SELECT 1");
            }
            talk.same("BEGIN");
            talk.command(b"\x04t\0");
            talk.same("COMMIT");
        }
    });
}

/// Neither is answered, not even for a statement that is not there.
#[test]
fn my_078_commands_without_an_answer() {
    both_sides("my_078", 4, &[], |sides| {
        for begins in ["SELECT 1", "BEGIN"] {
            let mut talk = sides.talk();
            talk.same(begins);
            let unanswered = [&[COM_STMT_CLOSE, 77, 0, 0, 0][..], &[COM_STMT_SEND_LONG_DATA, 77, 0, 0, 0, 0, 0, b'x']];
            for unanswered in unanswered {
                talk.command(unanswered);
                talk.command(&[COM_PING]);
                talk.same("SELECT 2");
            }
        }
    });
}
