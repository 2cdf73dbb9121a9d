//! Files of the clients' own (`LOAD DATA LOCAL INFILE`), beside a direct connection: scenarios 12 and 51 of the list.

use crate::harness::levels::Levels;
use crate::harness::mysql::Flavour;
use crate::harness::mysql::beside::{Sides, Talk, app, both_sides};
use crate::harness::mysql::wire::{COM_PING, COM_QUERY, COM_STMT_EXECUTE, MyLogin, MyWire, Packet, capability, framed};

const LOAD: &str = "LOAD DATA LOCAL INFILE 'rows of the client' INTO TABLE t";
const TABLE: &[&str] = &["CREATE TABLE t (i int AUTO_INCREMENT PRIMARY KEY, v text)"];

fn with_files(login: MyLogin) -> MyLogin {
    login.with(capability::LOCAL_FILES)
}

/// On both servers, which take files.
fn loading(name: &str, connections: u32, run: impl Fn(&Sides<'_>)) {
    both_sides(name, connections, TABLE, |sides| {
        sides.server.root().query("SET GLOBAL local_infile = 1");
        run(sides);
    });
}

/// Says the statement, and is asked for the file.
fn begin(wire: &mut MyWire, sql: &str) {
    let asked = wire.reply(sql);
    assert_eq!(asked[0].first(), 0xFB, "{asked:?}");
}

/// Both send a file in these packets, and its end; what comes of it.
fn load(talk: &mut Talk, sql: &str, file: &[Vec<u8>]) -> Vec<Packet> {
    let mut told = Vec::new();
    for wire in [&mut talk.direct, &mut talk.proxied] {
        begin(wire, sql);
        file.iter().for_each(|packet| wire.send_next(packet));
        wire.send_next(b"");
        told.push(wire.receive());
    }
    assert_eq!(told[1], told[0], "{sql}");
    told.split_off(1)
}

/// The packets of a file are no commands, whatever they begin with, and however long they are.
#[test]
fn my_051_files_are_no_commands() {
    loading("my_051", 4, |sides| {
        for form in [0, capability::DEPRECATE_EOF | capability::SESSION_TRACK] {
            let mut talk = sides.talk_as(|login| with_files(login).without(capability::DEPRECATE_EOF).with(form));
            const INTO: &str = "LOAD DATA LOCAL INFILE 'f' INTO TABLE t (v)";
            let commands: Vec<_> =
                (0..32_u8).map(|command| [&[command][..], b"KILL 1; ROLLBACK; SELECT 1\n"].concat()).collect();
            for begins in ["SELECT 1", "BEGIN"] {
                talk.same(begins);
                load(&mut talk, INTO, &commands);
                load(&mut talk, INTO, &[b"half a".to_vec(), b" row\nand a who".to_vec(), b"le one\n".to_vec()]);
                load(&mut talk, INTO, &[]);
                // As long as one piece, and a little longer.
                let lens: &[usize] = if begins == "BEGIN" { &[] } else { &[0xFF_FFFF, 0xFF_FFFF + 5] };
                for len in lens {
                    let rows = [&vec![b'x'; 20_000][..], b"\n"].concat();
                    load(&mut talk, INTO, &[rows.iter().copied().cycle().take(*len).collect()]);
                }
                talk.all(&[
                    "SELECT COUNT(*), SUM(LENGTH(v)), MD5(GROUP_CONCAT(LEFT(v, 20) ORDER BY i)) FROM t",
                    "ROLLBACK",
                ]);
                talk.all(&["DELETE FROM t", "ALTER TABLE t AUTO_INCREMENT = 1"]);
            }
        }
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
        assert_eq!(sides.proxy.metric("sluicegate_disagreements_total"), 0.0);
    });
}

/// MariaDB prepares it as well, by the protocol and in SQL; MySQL refuses that.
#[test]
fn my_051_prepared() {
    loading("my_051p", 4, |sides| {
        let mut talk = sides.talk_as(with_files);
        if sides.server.flavour() == Flavour::MySql {
            talk.same("PREPARE s FROM \"LOAD DATA LOCAL INFILE 'f' INTO TABLE t (v)\"");
            return;
        }
        let statement = talk.prepare("LOAD DATA LOCAL INFILE 'f' INTO TABLE t (v)");
        talk.same("PREPARE s FROM \"LOAD DATA LOCAL INFILE 'f' INTO TABLE t (v)\"");
        talk.same("PREPARE u FROM 'LOAD DATA LOCAL INFILE ''f'' INTO TABLE t (v)'");
        for begins in ["SELECT 1", "BEGIN"] {
            talk.same(begins);
            for by in ["", "EXECUTE s", "EXECUTE u"] {
                let mut told = Vec::new();
                for (wire, number) in [&mut talk.direct, &mut talk.proxied].into_iter().zip(statement.numbers()) {
                    let execute = [&[COM_STMT_EXECUTE][..], &number.to_le_bytes(), &[0, 1, 0, 0, 0]].concat();
                    let asked = if by.is_empty() { wire.command(&execute) } else { wire.reply(by) };
                    assert_eq!(asked[0].first(), 0xFB, "{asked:?}");
                    wire.send_next(b"one\ntwo\n");
                    wire.send_next(b"");
                    told.push(wire.receive());
                }
                assert_eq!(told[1], told[0]);
            }
            talk.all(&["SELECT v FROM t ORDER BY i", "COMMIT"]);
        }
    });
}

/// In one breath: the statement, all of the file, and what comes behind it.
#[test]
fn my_051_in_one_breath() {
    loading("my_051_pipe", 4, |sides| {
        let mut talk = sides.talk_as(with_files);
        for begins in ["SELECT 1", "BEGIN"] {
            talk.same(begins);
            let mut told = Vec::new();
            for wire in [&mut talk.direct, &mut talk.proxied] {
                let mut sequence = 0;
                let mut all = framed(&mut sequence, &[&[COM_QUERY], LOAD.as_bytes()].concat());
                sequence = 2;
                for packet in [&b"7\tseven\n8\teight\n"[..], b"9\tnine\n", b""] {
                    all.extend(framed(&mut sequence, packet));
                }
                all.extend(framed(&mut 0, &[&[COM_QUERY][..], b"SELECT * FROM t"].concat()));
                all.extend(framed(&mut 0, &[COM_PING]));
                wire.send_raw(&all);
                let mut packets = vec![wire.receive_from(1), wire.receive_from(5)];
                wire.expect_reply();
                packets.extend(wire.reply_to(COM_QUERY));
                wire.expect_reply();
                packets.extend(wire.reply_to(COM_PING));
                told.push(packets);
            }
            let [direct, proxied] = [0, 1].map(|side| format!("{:?}", told[side]).replace(&sides.twin, &sides.name));
            assert_eq!(proxied, direct);
            talk.all(&["ROLLBACK", "DELETE FROM t"]);
        }
    });
}

/// An error of the server's, far ahead of the end of the file: what is left of that is nobody's, and the session goes on.
#[test]
fn my_051_an_error_in_the_middle() {
    loading("my_051_error", 4, |sides| {
        for name in [&sides.name, &sides.twin] {
            let mut root = sides.server.root();
            root.query(&format!(
                "CREATE TRIGGER {name}.refuses BEFORE INSERT ON {name}.t FOR EACH ROW \
                 IF NEW.v = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no such row'; END IF"
            ));
        }
        let mut talk = sides.talk_as(with_files);
        let row = |number: usize| format!("{number}\t{}\n", if number == 5 { "bad" } else { "good" }).into_bytes();
        let file: Vec<_> = (1..2_000).map(row).collect();
        for begins in ["SELECT 1", "BEGIN"] {
            talk.same(begins);
            for (sql, code) in [(LOAD, 1644), ("LOAD DATA LOCAL INFILE 'f' INTO TABLE t (i, nonsense)", 1054)] {
                if code == 1054 {
                    // Before anybody asks for a file.
                    assert_eq!(talk.error(sql).code, code);
                    continue;
                }
                assert_eq!(load(&mut talk, sql, &file)[0].error().unwrap().code, code);
                talk.same("SELECT COUNT(*) FROM t");
            }
            load(&mut talk, LOAD, &file[10..20]);
            talk.all(&["SELECT COUNT(*) FROM t", "ROLLBACK", "DELETE FROM t"]);
        }
        assert_eq!(sides.proxy.metric("sluicegate_disagreements_total"), 0.0);
        // Nothing is left on the connection.
        sides.talk().all(&["SELECT COUNT(*) FROM t", "SELECT 1"]);
    });
}

/// Who sends a file keeps the connection up to the last word of the server.
#[test]
fn my_051_the_connection_is_given_back_behind_the_last_word() {
    loading("my_051_line", 3, |sides| {
        let client = || MyWire::connect(sides.proxy.address, &with_files(app().database(&sides.name))).unwrap();
        let (mut one, mut other) = (client(), client());
        begin(&mut one, LOAD);
        other.send(&[&[COM_QUERY][..], b"SELECT COUNT(*) FROM t"].concat());
        Levels::wait_until(sides.proxy.admin, "the other in line", |levels| levels.waiting == 1);
        for row in 1..1000 {
            one.send_next(format!("{row}\tx\n").as_bytes());
        }
        let levels = Levels::wait_until(sides.proxy.admin, "it in use", |levels| levels.in_use == 1);
        assert_eq!(levels.waiting, 1);
        one.send_next(b"");
        assert_eq!(one.receive().error(), None);
        let mut rows = Vec::new();
        other.begin_reply();
        other.result(&mut rows);
        assert!(rows[2].payload.ends_with(b"999"), "{rows:?}");
        assert_eq!(one.value("SELECT 1"), "1");
    });
}

/// One who is stopped by another in the middle of the file, which it sends to its end.
#[test]
fn my_051_stopped_in_the_middle() {
    loading("my_051_stopped", 4, |sides| {
        let client = || MyWire::connect(sides.proxy.address, &with_files(app().database(&sides.name))).unwrap();
        let (mut one, mut other) = (client(), client());
        for begins in ["SELECT 1", "BEGIN"] {
            one.query(begins);
            begin(&mut one, LOAD);
            one.send_next(b"1\tone\n");
            other.query(&format!("KILL QUERY {}", one.greeting().connection_id));
            (2..5000).for_each(|row| one.send_next(format!("{row}\tx\n").as_bytes()));
            one.send_next(b"");
            // MySQL looks at it behind each row, MariaDB as well; whoever is quicker, the session goes on.
            let told = one.receive();
            assert!(told.error().is_none_or(|error| error.code == 1317), "{told:?}");
            assert_eq!(one.value("SELECT 'still here'"), "still here");
            one.query("ROLLBACK");
        }
    });
}

/// Scenario 12: who does not send files is not asked for one.
#[test]
fn my_012_who_sends_no_files() {
    loading("my_012", 4, |sides| {
        let mut talk = sides.talk();
        let error = talk.error(LOAD);
        let code = if sides.server.flavour() == Flavour::MySql { 3948 } else { 4166 };
        assert_eq!(error.code, code, "{error}");
        talk.same("SELECT 1");
        // Nor in an executable comment, nor behind another statement.
        let mut several = sides.talk_as(|login| login.with(capability::MULTI_STATEMENTS));
        several.error(&format!("/*!50000 {LOAD} */"));
        several.error(&format!("SELECT 1; {LOAD}"));
        several.same("SELECT 1");
    });
}
