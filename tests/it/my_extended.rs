//! What MariaDB has beside MySQL's protocol, beside a direct connection: scenarios 17 and 19 to 23 of the list. On MySQL there is none of
//! it, and none is offered.

use crate::harness::mysql::Flavour;
use crate::harness::mysql::beside::{Sides, Statement, Talk, app, both_sides, each};
use crate::harness::mysql::wire::{COM_STMT_BULK_EXECUTE, COM_STMT_PREPARE, MyWire, Packet, capability, extended};
use crate::harness::programs::{java_class, run};
use sluicegate::demo::servers::{APP, APP_PASSWORD};

/// MYSQL_TYPE_LONGLONG and MYSQL_TYPE_VAR_STRING.
const TYPES: [u8; 4] = [8, 0, 0xFD, 0];
/// Types follow.
const TYPED: [u8; 2] = [0x80, 0];

fn on_mariadb(name: &str, connections: u32, setup: &[&str], run: impl Fn(&Sides<'_>)) {
    both_sides(name, connections, setup, |sides| {
        if sides.server.flavour() == Flavour::MariaDb {
            // Who comes first is greeted before the server has been asked what it is.
            sides.talk();
            run(sides);
        }
    });
}

/// A client of MariaDB's with these.
fn talk(sides: &Sides<'_>, extended: u32) -> Talk {
    sides.talk_as(|login| login.extended(extended))
}

/// What is said of columns beyond their types: to who asks for it, in turns with who does not.
#[test]
fn my_020_what_is_said_of_columns() {
    on_mariadb("my_020", 3, &[], |sides| {
        sides.talk().all(&[
            "CREATE TABLE t (i int, j json, g point, u uuid, a inet6)",
            "INSERT INTO t (i, j) VALUES (1, '{}')",
        ]);
        for form in [0, capability::DEPRECATE_EOF] {
            let plain =
                |login: crate::harness::mysql::wire::MyLogin| login.without(capability::DEPRECATE_EOF).with(form);
            let mut without = sides.talk_as(plain);
            let mut with = sides.talk_as(|login| plain(login).extended(extended::METADATA));
            let statements = [&mut without, &mut with].map(|talk| talk.prepare("SELECT * FROM t WHERE i = ?"));
            for _ in 0..2 {
                let told = with.same("SELECT * FROM t");
                assert!(told[2].payload.windows(6).any(|window| window == b"\x01\x04json"), "{told:?}");
                let told = without.same("SELECT * FROM t");
                assert!(!told[2].payload.windows(6).any(|window| window == b"\x01\x04json"), "{told:?}");
                for (talk, statement) in [(&mut with, statements[1]), (&mut without, statements[0])] {
                    talk.execute(statement, &[0, 1, 3, 0, 1, 0, 0, 0]);
                    talk.command(b"\x04t\0");
                }
            }
        }
    });
}

/// How far a long statement has come: told to who asks for it, and to nobody else.
#[test]
fn my_023_how_far_it_has_come() {
    each("my_023", 4, &["CREATE TABLE t (i int)"], |server, name, proxy| {
        if server.flavour() == Flavour::MySql {
            return;
        }
        MyWire::connect(proxy.address, &app().database(name))
            .unwrap()
            .query("INSERT INTO t SELECT seq FROM seq_1_to_400");
        let mut told = Vec::new();
        for (address, extended) in [
            (server.address(), extended::PROGRESS),
            (proxy.address, extended::PROGRESS),
            (proxy.address, extended::BULK),
        ] {
            let mut wire = MyWire::connect(address, &app().database(name).extended(extended)).unwrap();
            // In seconds.
            wire.query("SET progress_report_time = 1");
            // Each row takes some time.
            let packets = wire.reply(
                "ALTER TABLE t ADD COLUMN h char(64) AS (SHA2(REPEAT('x', 2000000 + i), 256)) STORED, ALGORITHM = COPY",
            );
            let (last, progress) = packets.split_last().unwrap();
            assert_eq!(last.first(), 0, "{last:?}");
            // Stages, the share of this one, and what it is.
            let stages: Vec<_> =
                progress.iter().map(|packet| (packet.payload[..6].to_vec(), packet.payload[9..].to_vec())).collect();
            println!("{} packets: {progress:?}", progress.len());
            told.push(stages);
            assert_eq!(wire.query("SELECT COUNT(*), COUNT(h) FROM t"), [[Some("400".into()), Some("400".into())]]);
            wire.query("ALTER TABLE t DROP COLUMN h");
        }
        assert!(!told[1].is_empty() && !told[0].is_empty(), "{told:?}");
        assert_eq!(told[1][0], told[0][0]);
        assert!(told[2].is_empty(), "{told:?}");
    });
}

/// A number and a text.
fn row(number: Option<u64>, text: Option<&str>) -> Vec<u8> {
    let number = number.map_or(vec![1], |number| [&[0][..], &number.to_le_bytes()].concat());
    let text = text.map_or(vec![1], |text| [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat());
    [number, text].concat()
}

struct Bulks {
    talk: Talk,
}

impl Bulks {
    fn say(&mut self, statement: Statement, head: &[&[u8]], rows: &[Vec<u8>]) -> Vec<Packet> {
        let rest = [head.concat(), rows.concat()].concat();
        self.talk.use_statement(statement, COM_STMT_BULK_EXECUTE, &rest)
    }

    fn typed(&mut self, statement: Statement, rows: &[Vec<u8>]) -> Vec<Packet> {
        self.say(statement, &[&TYPED, &TYPES], rows)
    }

    fn untyped(&mut self, statement: Statement, rows: &[Vec<u8>]) -> Vec<Packet> {
        self.say(statement, &[&[0, 0]], rows)
    }
}

/// Many sets of parameters in one command.
#[test]
fn my_021_many_sets_of_parameters() {
    on_mariadb("my_021", 4, &["CREATE TABLE t (i int PRIMARY KEY, v text)"], |sides| {
        for form in [0, capability::DEPRECATE_EOF | capability::SESSION_TRACK] {
            let talk = sides.talk_as(|login| {
                login.without(capability::DEPRECATE_EOF).with(form).extended(extended::BULK | extended::METADATA)
            });
            let mut bulks = Bulks { talk };
            let insert = bulks.talk.prepare("INSERT INTO t VALUES (?, ?)");
            // Types that nobody has said yet.
            bulks.untyped(insert, &[row(Some(1), Some("never"))]);
            bulks.typed(insert, &[row(Some(1), Some("one")), row(Some(2), None), row(Some(3), Some("drei"))]);
            bulks.untyped(insert, &[row(Some(4), Some("four")), row(Some(5), None)]);
            // One at a time between them.
            bulks.talk.execute(insert, &[&[0, 1, 8, 0, 0xFD, 0, 6, 0, 0, 0, 0, 0, 0, 0, 3][..], b"six"].concat());
            bulks.untyped(insert, &[row(Some(7), Some("seven"))]);
            // Another client has the connection, and then there is another one.
            let mut other = MyWire::connect(sides.proxy.address, &app().database(&sides.name).extended(extended::BULK));
            let other = other.as_mut().unwrap();
            other.query("BEGIN");
            bulks.untyped(insert, &[row(Some(8), Some("eight"))]);
            bulks.talk.same("BEGIN");
            bulks.untyped(insert, &[row(Some(9), None), row(Some(10), Some("ten"))]);
            // The second one is there already.
            bulks.untyped(insert, &[row(Some(11), None), row(Some(1), None), row(Some(12), None)]);
            bulks.talk.all(&["SELECT * FROM t", "ROLLBACK", "SELECT * FROM t"]);
            other.query("COMMIT");
            bulks.untyped(insert, &[row(Some(11), None), row(Some(1), None), row(Some(12), None)]);
            bulks.talk.same("SELECT * FROM t");
            let update = bulks.talk.prepare("UPDATE t SET v = CONCAT(v, ?) WHERE i = ?");
            let turned = |text: &str, number: u64| {
                let row = row(Some(number), Some(text));
                [&row[9..], &row[..9]].concat()
            };
            bulks.say(update, &[&TYPED, &[0xFD, 0, 8, 0]], &[turned("!", 1), turned("?", 4), turned("-", 77)]);
            let delete = bulks.talk.prepare("DELETE FROM t WHERE i = ? OR v = ?");
            bulks.typed(delete, &[row(Some(1), None), row(Some(2), Some("drei"))]);
            bulks.talk.same("SELECT * FROM t");
            let returning = bulks.talk.prepare("REPLACE INTO t VALUES (?, ?) RETURNING i, v");
            bulks.typed(returning, &[row(Some(20), Some("a")), row(Some(21), Some("b"))]);
            // What the server makes of the rest.
            let select = bulks.talk.prepare("SELECT ?, ?");
            bulks.typed(select, &[row(Some(1), Some("a")), row(Some(2), Some("b"))]);
            let none = bulks.talk.prepare("DELETE FROM t WHERE i > 20");
            bulks.say(none, &[&[0, 0]], &[]);
            bulks.say(none, &[&TYPED], &[]);
            bulks.say(insert, &[&[0xC0, 0], &TYPES], &[row(Some(30), None)]);
            bulks.say(insert, &[&TYPED, &TYPES], &[vec![2, 0, 1, b'd'], vec![3, 3]]);
            bulks.talk.same("SELECT * FROM t");
            bulks.say(insert, &[&TYPED, &TYPES[..3]], &[]);
            bulks.say(insert, &[&TYPED, &TYPES], &[]);
            bulks.say(insert, &[&TYPED, &TYPES], &[vec![0, 1, 2]]);
            bulks.say(insert, &[&[0]], &[]);
            bulks.say(insert, &[], &[]);
            bulks.talk.all(&["SELECT * FROM t", "DELETE FROM t"]);
        }
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
        assert_eq!(sides.proxy.metric("sluicegate_disagreements_total"), 0.0);
    });
}

/// In one breath with what prepares it; and for a statement that there is not.
#[test]
fn my_022_many_sets_for_the_latest() {
    on_mariadb("my_022_bulk", 4, &["CREATE TABLE t (i int, v text)"], |sides| {
        let mut bulks = Bulks { talk: talk(sides, extended::BULK) };
        let latest = [&[COM_STMT_BULK_EXECUTE][..], &[0xFF; 4], &TYPED, &TYPES, &row(Some(1), Some("a"))].concat();
        bulks.talk.command(&latest);
        let insert = bulks.talk.prepare("INSERT INTO t VALUES (?, ?)");
        bulks.talk.command(&latest);
        bulks.talk.use_statement(insert, 0x19, b"");
        for wire in [&mut bulks.talk.direct, &mut bulks.talk.proxied] {
            let error = wire.command(&[&[COM_STMT_BULK_EXECUTE, 77, 0, 0, 0][..], &TYPED, &TYPES].concat());
            assert_eq!(error[0].error().unwrap().code, 1243);
            wire.send(&[&[COM_STMT_PREPARE][..], b"INSERT INTO t VALUES (?, ?)"].concat());
            wire.send(&latest);
            wire.expect_reply();
            assert_eq!(wire.reply_to(COM_STMT_PREPARE)[0].first(), 0);
            wire.expect_reply();
            assert_eq!(wire.reply_to(COM_STMT_BULK_EXECUTE)[0].first(), 0);
        }
        bulks.talk.same("SELECT * FROM t");
    });
}

/// Of more than 16 MiB, whose pieces are cut anywhere.
#[test]
fn my_021_more_than_16_mib() {
    on_mariadb("my_021_long", 4, &["CREATE TABLE t (i int, v mediumtext)"], |sides| {
        let mut bulks = Bulks { talk: talk(sides, extended::BULK) };
        let insert = bulks.talk.prepare("INSERT INTO t VALUES (?, ?)");
        let text = "x".repeat(60_000);
        let row = |number: u64| {
            [&[0][..], &number.to_le_bytes(), &[0, 0xFC], &60_000_u16.to_le_bytes(), text.as_bytes()].concat()
        };
        let rows: Vec<_> = (0..300).map(row).collect();
        bulks.typed(insert, &rows);
        bulks.talk.same("SELECT COUNT(*), SUM(i), SUM(LENGTH(v)) FROM t");
        // Without types it would have to be cut anew.
        bulks.untyped(insert, &rows[..3]);
        let id = bulks.talk.proxied.command(b"\x16INSERT INTO t VALUES (?, ?)")[0].payload[1..5].to_vec();
        let head = [&[COM_STMT_BULK_EXECUTE], &id[..]].concat();
        assert_eq!(bulks.talk.proxied.command(&[&head[..], &TYPED, &TYPES, &row(1)].concat())[0].first(), 0);
        let error = bulks.talk.proxied.command(&[&head[..], &[0, 0], &rows.concat()].concat())[0].error().unwrap();
        assert_eq!(error.code, 1235, "{error}");
        assert_eq!(bulks.talk.proxied.value("SELECT COUNT(*) FROM t"), "304");
    });
}

/// Who was not offered it, or did not ask for it, is told that there is none.
#[test]
fn my_021_not_offered() {
    both_sides("my_021_not", 4, &["CREATE TABLE t (i int, v text)"], |sides| {
        sides.talk();
        let greeting = MyWire::open(sides.proxy.address).unwrap().greeting().clone();
        let offered = extended::PROGRESS | extended::BULK | extended::METADATA;
        let is_mysql = sides.server.flavour() == Flavour::MySql;
        // No COM_MULTI, no results without descriptions, none for each set of parameters.
        assert_eq!(greeting.extended, if is_mysql { 0 } else { offered });
        let mut wire =
            MyWire::connect(sides.proxy.address, &app().database(&sides.name).extended(!extended::BULK)).unwrap();
        let id = wire.command(b"\x16INSERT INTO t VALUES (?, ?)")[0].payload[1..5].to_vec();
        let bulk = [&[COM_STMT_BULK_EXECUTE], &id[..], &TYPED, &TYPES, &row(Some(1), None)].concat();
        let multi = [&[0xFE, 9, 0, 0, 0, 3][..], b"SELECT 1"].concat();
        for command in [bulk, multi] {
            let error = wire.command(&command)[0].error().unwrap();
            assert_eq!((error.code, error.state.as_str()), (1047, "08S01"), "{error}");
            assert_eq!(wire.value("SELECT COUNT(*) FROM t"), "0");
        }
    });
}

/// MariaDB's driver, which sends batches so.
#[test]
fn my_021_batches_of_connector_j() {
    on_mariadb("my_021_java", 4, &[], |sides| {
        let addresses = [(sides.server.address(), &sides.twin), (sides.proxy.address, &sides.name)];
        let [direct, proxied] = addresses.map(|(address, name)| {
            let mut command = java_class("Batch");
            let port = address.port();
            command.arg(format!(
                "jdbc:mariadb://127.0.0.1:{port}/{name}?user={APP}&password={APP_PASSWORD}&allowPublicKeyRetrieval=true\
                 &useServerPrepStmts=true&useBulkStmts=true"
            ));
            run(command, "").quietly()
        });
        assert_eq!(proxied, direct);
        assert_eq!(direct.lines().count(), 10, "{direct}");
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
    });
}
