//! The compressed protocol (scenario 16), zlib and zstd, beside a direct connection: what is in the frames is the same packet by packet.
//!
//! MariaDB has zlib alone; its direct side goes without compression then. The frames' own numbers are checked by the client of the
//! tests, on both sides. Those of the packets in them are checked towards the proxy alone: servers begin anew with them here and there.

use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{Sides, Talk, app, both_sides, each, each_with, my_config};
use crate::harness::mysql::wire::{
    COM_INIT_DB, COM_PING, COM_SET_OPTION, COM_STMT_EXECUTE, COM_STMT_PREPARE, COM_STMT_SEND_LONG_DATA, MyLogin,
    MyWire, Packet, capability, framed,
};
use crate::harness::mysql::{Flavour, MyServer};
use crate::harness::proxy::set;
use sluicegate::demo::servers::APP;

const ALGORITHMS: [u32; 2] = [capability::COMPRESS, capability::ZSTD];

fn unnumbered(packet: Packet) -> Packet {
    Packet { sequence: 0, ..packet }
}

/// Both sides compressed, as far as the server can.
fn talk(sides: &Sides<'_>, algorithm: u32, change: impl Fn(MyLogin) -> MyLogin) -> Talk {
    let mut talk = sides.talk_as(|login| change(login).with(algorithm));
    if sides.server.flavour() == Flavour::MariaDb && algorithm == capability::ZSTD {
        talk.direct = MyWire::connect(sides.server.address(), &change(app().database(&sides.twin))).unwrap();
    }
    talk.direct.any_sequence = true;
    talk
}

fn client(address: std::net::SocketAddr, name: &str, algorithm: u32) -> MyWire {
    MyWire::connect(address, &app().database(name).with(algorithm)).unwrap()
}

const TABLE: &[&str] = &[
    "CREATE TABLE t (i int AUTO_INCREMENT PRIMARY KEY, v text)",
    "INSERT INTO t (v) VALUES ('one'), (NULL), ('three')",
    "CREATE PROCEDURE p() BEGIN SELECT 1 AS a; SELECT v FROM t ORDER BY i; END",
];

#[test]
fn my_016_results_in_every_form() {
    both_sides("my_016", 4, TABLE, |sides| {
        let eofs = [0, capability::DEPRECATE_EOF].into_iter();
        let forms = eofs.flat_map(|eof| [0, capability::SESSION_TRACK].map(|track| eof | track));
        for (algorithm, form) in forms.flat_map(|form| ALGORITHMS.map(|algorithm| (algorithm, form))) {
            let form = form | capability::MULTI_STATEMENTS;
            let mut talk = talk(sides, algorithm, |login| login.without(capability::DEPRECATE_EOF).with(form));
            for sql in [
                "SELECT 1",
                "SELECT i, v FROM t ORDER BY i",
                "SELECT v FROM t WHERE false",
                "SELECT REPEAT('x', 70000), REPEAT('y', 300000)",
                "SELECT nonsense",
                "",
                "INSERT INTO t (v) VALUES ('four')",
                "UPDATE t SET v = 'FOUR' WHERE v = 'four'",
                "DELETE FROM t WHERE v = 'FOUR'",
                "CALL p()",
                "SELECT 1; SELECT 2; SELECT nonsense; SELECT 3",
                "BEGIN",
                "SELECT a.i, b.v, c.v FROM t a, t b, t c, t d, t e, t f ORDER BY a.i, b.i, c.i",
                "ROLLBACK",
                "SET @a = 1",
                "SELECT @a",
            ] {
                talk.same_but(sql, unnumbered);
            }
            let names_database = [&[COM_INIT_DB], &b"{db}"[..]].concat();
            for command in [&[COM_PING][..], &names_database, &[COM_SET_OPTION, 1, 0], &[COM_SET_OPTION, 0, 0]] {
                talk.command_but(command, unnumbered);
            }
        }
    });
}

/// A reply of any number of packets: the numbers of frames go on where they should, and begin where they should.
#[test]
fn my_016_replies_of_any_length() {
    each("my_016_lengths", 4, &[], |_, name, proxy| {
        for algorithm in ALGORITHMS {
            let mut wire = client(proxy.address, name, algorithm);
            for rows in (1..6).chain(250..258).chain(508..514) {
                let text = format!(
                    "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n"
                );
                assert_eq!(wire.query(&text).len(), rows);
                assert_eq!(wire.value("SELECT 1"), "1");
            }
        }
    });
}

/// Several packets in a frame, and small frames that are not compressed.
#[test]
fn my_016_frames() {
    each("my_016_frames", 4, &[], |_, name, proxy| {
        for algorithm in ALGORITHMS {
            let mut wire = client(proxy.address, name, algorithm);
            assert_eq!(wire.command(&[COM_PING]).len(), 1);
            let before = wire.frames().seen;
            assert_eq!((before.stored, before.squeezed), (1, 0));
            // A connection is borrowed first, which says nothing to the client; then all of the result is there at once.
            assert_eq!(wire.value("SELECT REPEAT('x', 1000)"), "x".repeat(1000));
            let seen = wire.frames().seen;
            assert_eq!((seen.stored, seen.squeezed), (1, 1), "{seen:?}");
            assert!(seen.wire_bytes < 250, "{seen:?}");
            // What can't be made shorter goes as it is.
            assert_eq!(wire.query("SELECT RANDOM_BYTES(64)").len(), 1);
        }
    });
}

/// Rows and texts of 16 MiB, in several frames each.
#[test]
fn my_016_packets_of_many_pieces() {
    both_sides("my_016_pieces", 4, &[], |sides| {
        for algorithm in ALGORITHMS {
            let mut talk = talk(sides, algorithm, |login| login);
            let rows = talk.same_but("SELECT REPEAT('x', 16777216), 1 UNION ALL SELECT 'y', 2", unnumbered);
            assert_eq!(rows[rows.len() - 3].payload.len(), 9 + 0x100_0000 + 2);
            let seen = talk.proxied.frames().seen;
            assert!(seen.squeezed > 16 && seen.wire_bytes < seen.plain_bytes / 10, "{seen:?}");
            let limit: usize = talk.proxied.value("SELECT @@max_allowed_packet").parse().unwrap();
            for len in [0xFF_FFFD_usize, 0xFF_FFFF, 0x100_0000, 0x110_0000] {
                if len + 100 < limit {
                    talk.same_but(&format!("SELECT LENGTH('{}')", "x".repeat(len - 20)), unnumbered);
                }
            }
            talk.same_but("SELECT 1", unnumbered);
        }
    });
}

/// A client cuts its packets into frames wherever it likes, and the network its frames.
#[test]
fn my_016_requests_in_pieces() {
    both_sides("my_016_cut", 4, TABLE, |sides| {
        for algorithm in ALGORITHMS {
            for frame_bytes in [1, 3, 5, 60, 1000] {
                let mut talk = talk(sides, algorithm, |login| login);
                talk.proxied.frames().frame_bytes = frame_bytes;
                let text = format!("SELECT LENGTH('{}'), COUNT(*) FROM t", "text ".repeat(200));
                for sql in [text.as_str(), "SELECT v FROM t ORDER BY i", "SELECT nonsense"] {
                    talk.same_but(sql, unnumbered);
                }
            }
            // A byte at a time.
            let mut wire = client(sides.proxy.address, &sides.name, algorithm);
            let text = format!("\x03SELECT LENGTH('{}')", "text ".repeat(100));
            let frame = wire.frames().frame(&framed(&mut 0, text.as_bytes()));
            for byte in frame {
                let below = wire.frames().below();
                std::io::Write::write_all(below, &[byte]).unwrap();
            }
            wire.frames().number = 1;
            wire.begin_reply();
            let mut packets = Vec::new();
            assert!(!wire.result(&mut packets));
            assert!(packets[2].payload.ends_with(b"500"), "{packets:?}");
        }
    });
}

#[test]
fn my_016_prepared_statements() {
    both_sides("my_016_prepared", 4, TABLE, |sides| {
        for algorithm in ALGORITHMS {
            let mut talk = talk(sides, algorithm, |login| login);
            let prepare = [&[COM_STMT_PREPARE], &b"SELECT LENGTH(?), i, v FROM t ORDER BY i"[..]].concat();
            let numbers = [&mut talk.direct, &mut talk.proxied].map(|wire| {
                let prepared = wire.command(&prepare);
                <[u8; 4]>::try_from(&prepared[0].payload[1..5]).unwrap()
            });
            for _ in 0..2 {
                // These have no answer.
                for len in [10, 100_000] {
                    let data =
                        numbers.map(|n| [&[COM_STMT_SEND_LONG_DATA][..], &n, &[0, 0], &vec![b'x'; len]].concat());
                    talk.direct.command(&data[0]);
                    talk.proxied.command(&data[1]);
                }
                let execute = numbers.map(|n| [&[COM_STMT_EXECUTE][..], &n, &[0, 1, 0, 0, 0, 0, 1, 0xFC, 0]].concat());
                talk.commands("execute", &execute, unnumbered);
            }
        }
    });
}

/// Who logs in again, over the same stream, goes on with compressed packets; so does who is refused something.
#[test]
fn my_016_what_the_proxy_says_itself() {
    let config =
        |server: &_| set(&my_config(server, 4), "target_group.pool", "pin_on", "{ temporary_object = 'reject' }");
    each_with("my_016_own", &[], config, |_, name, proxy| {
        for algorithm in ALGORITHMS {
            let mut wire = client(proxy.address, name, algorithm);
            let mut other = client(proxy.address, name, algorithm);
            let id = wire.greeting().connection_id;
            assert_eq!(wire.error("CREATE TEMPORARY TABLE x (i int)").code, 1235);
            assert_eq!(wire.value("SELECT 1"), "1");
            assert_eq!(other.error(&format!("KILL QUERY {}", u32::MAX)).code, 1094);
            let change =
                [b"\x11", APP.as_bytes(), b"\0\0", name.as_bytes(), b"\0\x2D\0caching_sha2_password\0"].concat();
            for _ in 0..2 {
                wire.send(&change);
                wire.changed(&app()).unwrap();
                assert_eq!(wire.value("SELECT DATABASE()"), name);
            }
            other.query(&format!("KILL {id}"));
            // It is the answer to what it would ask next.
            wire.frames().number = 1;
            assert_eq!(wire.receive_from(1).error().unwrap().code, 1927);
            wire.until_closed();
        }
        let mut idle = client(proxy.address, name, capability::COMPRESS);
        assert_eq!(idle.value("SELECT REPEAT('x', 1000)").len(), 1000);
        proxy.terminate();
        proxy.logs("client told to go");
        idle.frames().number = 1;
        assert_eq!(idle.receive_from(1).error().unwrap().code, 1053);
        idle.until_closed();
    });
}

/// A client numbers the packets of a file behind the last frame, where it is the packet that a server counts from.
#[test]
fn my_016_files_of_the_clients() {
    each("my_016_files", 4, &["CREATE TABLE t (v text)"], |server, name, proxy| {
        server.root().query("SET GLOBAL local_infile = 1");
        for algorithm in ALGORITHMS {
            let login = app().database(name).with(algorithm | capability::LOCAL_FILES);
            let mut wire = MyWire::connect(proxy.address, &login).unwrap();
            for (frame_bytes, count) in [(0xFF_FFFF, 3), (20, 3), (0xFF_FFFF, 600), (30, 300)] {
                wire.query("DELETE FROM t");
                wire.frames().frame_bytes = frame_bytes;
                let asked = wire.reply("LOAD DATA LOCAL INFILE 'rows of the client' INTO TABLE t");
                assert_eq!(asked[0].first(), 0xFB, "{asked:?}");
                let mut number = wire.frames().number;
                let mut file = Vec::new();
                for row in 0..count {
                    file.extend(framed(&mut number, format!("row {row}\n").as_bytes()));
                }
                file.extend(framed(&mut number, b""));
                wire.send_raw(&file);
                let packets = u8::try_from((count + 1) % 256).unwrap();
                let done = wire.receive_from(packets.wrapping_add(2));
                assert_eq!(done.error(), None);
                wire.frames().frame_bytes = 0xFF_FFFF;
                assert_eq!(wire.value("SELECT COUNT(*) FROM t"), count.to_string());
                assert_eq!(wire.value("SELECT MAX(v) FROM t WHERE v LIKE 'row 2'"), "row 2");
            }
        }
    });
}

/// Frames that are not what they say: the session ends, with a word.
#[test]
fn my_016_lies() {
    each("my_016_lies", 4, &[], |_, name, proxy| {
        let ping = framed(&mut 0, &[COM_PING]);
        let text = framed(&mut 0, format!("\x03SELECT '{}'", "x".repeat(1000)).as_bytes());
        for algorithm in ALGORITHMS {
            let with_head = |payload: &[u8], number: u8, plain: usize| {
                let bytes = |len: usize| u32::try_from(len).unwrap().to_le_bytes();
                [&bytes(payload.len())[..3], &[number], &bytes(plain)[..3], payload].concat()
            };
            let good = client(proxy.address, name, algorithm).frames().frame(&text)[7..].to_vec();
            let lies = [
                // A bomb: it says that it is short.
                with_head(&good, 0, 10),
                // It says that it is longer, and the rest never comes.
                with_head(&good, 0, 0xFF_FFFF),
                with_head(&[0x55; 100], 0, 100),
                with_head(&ping, 7, 0),
                // Behind something that is served.
                [with_head(&ping, 0, 0), with_head(&ping, 9, 0)].concat(),
            ];
            for (at, lie) in lies.iter().enumerate() {
                // Without a connection of the database's, and with one.
                for before in ["", "BEGIN"] {
                    let mut wire = client(proxy.address, name, algorithm);
                    if !before.is_empty() {
                        wire.query(before);
                    }
                    std::io::Write::write_all(wire.frames().below(), lie).unwrap();
                    wire.frames().number = 1;
                    if at == 4 {
                        wire.begin_reply();
                        assert_eq!(wire.receive().error(), None);
                        wire.frames().number = 1;
                    }
                    // What came of the text is not cut in its middle.
                    wire.any_sequence = true;
                    let error = wire.receive().error().unwrap();
                    assert_eq!((error.code, error.state.as_str()), (1835, "HY000"), "{at}: {error}");
                    wire.until_closed();
                }
            }
        }
        eventually(proxy, &[("client_connections", 0.0)]);
    });
}

/// Over TLS, beside others on few connections, and with what a client has left to read when it is gone.
#[test]
fn my_016_over_tls() {
    let config = |server: &MyServer| {
        let file = |name: &str| format!("\"{}\"", server.folder().join(name).display());
        let text = set(&my_config(server, 2), "endpoint", "tls", "\"required\"");
        let text = set(&text, "tls", "certificate", &file("server.crt"));
        set(&text, "tls", "private_key", &file("server.key"))
    };
    each_with("my_016_tls", TABLE, config, |server, name, proxy| {
        let login = |algorithm| app().database(name).tls(&server.ca_file()).with(algorithm);
        let mut wires: Vec<_> = [0, ALGORITHMS[0], ALGORITHMS[1]]
            .map(|algorithm| MyWire::connect(proxy.address, &login(algorithm)).unwrap())
            .into();
        for turn in 0..10 {
            let told: Vec<_> =
                wires.iter_mut().map(|wire| wire.query("SELECT *, REPEAT(v, 5000) FROM t ORDER BY i")).collect();
            assert!(told.iter().all(|rows| *rows == told[0]), "{turn}");
        }
        wires[1].send(b"\x03SELECT REPEAT('x', 16000000)");
        drop(wires);
        eventually(proxy, &[("client_connections", 0.0)]);
    });
}
