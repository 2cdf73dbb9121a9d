//! Query attributes, beside a direct connection: scenario 10 of the list. MySQL's component `query_attributes` reads them; MariaDB has
//! none, and so nobody is offered any there.

use std::process::Command;

use crate::harness::mysql::beside::{Sides, Statement, Talk, app, both_sides, each, my_config};
use crate::harness::mysql::wire::{COM_PING, COM_STMT_EXECUTE, MyLogin, MyWire, capability};
use crate::harness::mysql::{Flavour, MyServer, Options, database};
use crate::harness::programs::{provisioned, python_file, run};
use crate::harness::proxy::{set, start};
use rustix::process::Signal;
use sluicegate::demo::servers::{APP, APP_PASSWORD};
use sluicegate::mysql::attributes::block;

const ASK: &str = "SELECT mysql_query_attribute_string('a'), mysql_query_attribute_string('b')";

fn with_attributes(login: MyLogin) -> MyLogin {
    login.with(capability::QUERY_ATTRIBUTES)
}

/// The functions that read them are there.
fn install(server: &MyServer) {
    let mut root = server.root();
    let component = "file://component_query_attributes";
    if root.value(&format!("SELECT COUNT(*) FROM mysql.component WHERE component_urn = '{component}'")) == "0" {
        root.query(&format!("INSTALL COMPONENT '{component}'"));
    }
}

/// Of these types, names and values; none: NULL. Behind the number of none follows the text.
fn attributes(all: &[(u8, &str, Option<&[u8]>)]) -> Vec<u8> {
    let bound = if all.is_empty() { Vec::new() } else { bound(all) };
    [&[u8::try_from(all.len()).unwrap(), 1][..], &bound].concat()
}

/// The same without the numbers ahead: which are NULL, types, values.
fn bound(all: &[(u8, &str, Option<&[u8]>)]) -> Vec<u8> {
    let mut nulls = vec![0; all.len().div_ceil(8)];
    let (mut types, mut values) = (Vec::new(), Vec::new());
    for (at, (code, name, value)) in all.iter().enumerate() {
        types.extend([*code, 0, u8::try_from(name.len()).unwrap()]);
        types.extend(name.as_bytes());
        match value {
            Some(value) => values.extend(*value),
            None => nulls[at / 8] |= 1 << (at % 8),
        }
    }
    [&nulls[..], &[1], &types, &values].concat()
}

/// On MySQL, with the component.
fn on_mysql(name: &str, connections: u32, setup: &[&str], run: impl Fn(&Sides<'_>, Talk)) {
    both_sides(name, connections, setup, |sides| {
        if sides.server.flavour() == Flavour::MySql {
            install(sides.server);
            // Who comes first is greeted before the server has been asked what it is.
            sides.talk();
            run(sides, sides.talk_as(with_attributes));
        }
    });
}

const STRING: u8 = 254;
const A: (u8, &str, Option<&[u8]>) = (STRING, "a", Some(b"\x03one"));

/// What a client says beside its text the server hears, in turns with others, who say nothing, or something else.
#[test]
fn my_010_attributes_of_texts() {
    on_mysql("my_010", 3, &["CREATE TABLE t (i int)"], |sides, mut talk| {
        let mut without = sides.talk();
        let mut another = sides.talk_as(with_attributes);
        let same = |packet| packet;
        for all in [
            &[][..],
            &[A],
            &[A, (STRING, "b", None)],
            &[(STRING, "", Some(b"\0")), A, (8, "b", Some(&[7, 0, 0, 0, 0, 0, 0, 0]))],
            &[(1, "a", Some(&[7])), (2, "b", Some(&[7, 1]))],
            &[(5, "a", Some(&[0, 0, 0, 0, 0, 0, 0xF8, 0x3F])), (4, "b", Some(&[0, 0, 0xC0, 0x3F]))],
            &[(12, "a", Some(b"\x07\xEA\x07\x0B\x1B\x08\x1E\x00")), (246, "b", Some(b"\x041.50"))],
        ] {
            talk.same_with(&attributes(all), ASK, same);
            without.same(ASK);
            another.same_with(&attributes(&[(STRING, "b", Some(b"\x05other"))]), ASK, same);
            // In a transaction as well, and not with the next one.
            talk.same_with(&attributes(all), "BEGIN", same);
            talk.same_with(&attributes(all), ASK, same);
            talk.same(ASK);
            talk.same("COMMIT");
        }
        let told = talk.same_with(&attributes(&[A]), ASK, same);
        assert!(told[3].payload.starts_with(b"\x03one\xFB"), "{told:?}");
        // What they say is no SQL.
        let sql: &[u8] = b"\x2CSET @a = 1; SELECT GET_LOCK('l', 1); KILL 1; --";
        talk.same_with(&attributes(&[(STRING, "a", Some(&sql[..45]))]), ASK, same);
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 0.0);
        // What the text says, counts: behind attributes, too.
        let own = talk.proxied.greeting().connection_id;
        let kill = talk.proxied.text_with(&attributes(&[A]), &format!("KILL QUERY {own}"));
        assert_eq!(talk.proxied.command(&kill)[0].error().unwrap().code, 1317);
        talk.same_with(&attributes(&[A]), "CREATE TEMPORARY TABLE mine (i int)", same);
        talk.same_with(&attributes(&[A]), "SELECT * FROM mine", same);
        assert_eq!(sides.proxy.metric("sluicegate_pins_total"), 1.0);
    });
}

/// Values that are due last, of who says attributes and who does not: questions of the proxy's own come between.
#[test]
fn my_010_with_settings_of_their_own() {
    on_mysql("my_010_settings", 3, &["CREATE TABLE t (i int AUTO_INCREMENT PRIMARY KEY)"], |sides, mut talk| {
        let mut another = sides.talk_as(with_attributes);
        for zone in ["+01:00", "+02:00"] {
            talk.same(&format!("SET time_zone = '{zone}'"));
            talk.same("INSERT INTO t VALUES ()");
            another.same("SET time_zone = '-03:00', sql_safe_updates = 1");
            another.same("INSERT INTO t VALUES ()");
            talk.same_with(&attributes(&[A]), "SELECT @@time_zone, @@sql_safe_updates, LAST_INSERT_ID()", |packet| {
                packet
            });
            talk.same("SELECT nonsense");
            talk.same("BEGIN");
            talk.same("SELECT nonsense");
            talk.same("COMMIT");
        }
    });
}

/// Whatever type they are of: the text begins where the server has it begin.
#[test]
fn my_010_where_the_text_begins() {
    on_mysql("my_010_begins", 3, &[], |_, mut talk| {
        let mut sizes = std::collections::BTreeMap::<Option<usize>, usize>::new();
        for code in 0..=255 {
            for flags in [0, 0x80] {
                let block_and_text = [&[1, 1, 0, 1, code, flags, 1, b'a', 5][..], b"!bcdefghijklmnop"].concat();
                let found = block(&block_and_text, block_and_text.len());
                let error = talk.direct.command(&[&[0x03], &block_and_text[..]].concat())[0].error().unwrap();
                match found {
                    // Dates and times must be some.
                    Ok(_) if matches!(code, 7 | 10..=12) && error.code == 1835 => {}
                    Ok(len) => {
                        let text = String::from_utf8(block_and_text[len..].to_vec()).unwrap();
                        assert!(error.message.contains(&format!("near '{text}'")), "{code}: {error}");
                    }
                    Err(_) => assert_eq!(error.code, 1835, "{code}: {error}"),
                }
                talk.command(&[&[0x03], &block_and_text[..]].concat());
                *sizes.entry(found.ok()).or_default() += 1;
            }
        }
        println!("{sizes:?}");
        assert_eq!(sizes.len(), 6, "{sizes:?}");
        // And what is no attribute at all.
        for broken in
            [&b"\0\0"[..], b"\0\x02", b"\0", b"", b"\x01\x01", b"\x01\x01\0\0", b"\xFB\x01", b"\xFD\0\0\x01\x01"]
        {
            let error = talk.same_with(broken, "", |packet| packet)[0].error().unwrap();
            assert_eq!(error.code, 1835, "{broken:?}");
            talk.same("SELECT 'still here'");
        }
    });
}

/// As parameters that the statement does not have.
#[test]
fn my_010_attributes_of_prepared_statements() {
    on_mysql("my_010_prepared", 5, &["CREATE TABLE t (i int)"], |sides, mut talk| {
        let plain = talk.prepare(ASK);
        let one = talk.prepare(&ASK.replace("SELECT", "SELECT ?,"));
        let long = talk.prepare(&ASK.replace("SELECT", "SELECT LENGTH(?),"));
        let execute = |talk: &mut Talk, statement: Statement, flags: u8, rest: &[u8]| {
            talk.use_statement(statement, COM_STMT_EXECUTE, &[&[flags, 1, 0, 0, 0], rest].concat())
        };
        let counted = |all: &[(u8, &str, Option<&[u8]>)]| [&[all.len() as u8][..], &bound(all)].concat();
        let number: (u8, &str, Option<&[u8]>) = (8, "", Some(&[7, 0, 0, 0, 0, 0, 0, 0]));
        let mut others = sides.talk();
        for _ in 0..2 {
            // Nothing, and a number of none.
            execute(&mut talk, plain, 0, b"");
            execute(&mut talk, plain, 8, b"\0");
            execute(&mut talk, plain, 8, &counted(&[A, (STRING, "b", None)]));
            // An attribute behind the parameter, and none; then without types.
            execute(&mut talk, one, 8, &counted(&[number, A]));
            execute(&mut talk, one, 8, &counted(&[number]));
            execute(&mut talk, one, 0, &counted(&[number, (3, "b", Some(&[9, 0, 0, 0]))]));
            execute(&mut talk, one, 8, b"\x01\0\0\x08\0\0\0\0\0\0\0");
            // Types are needed for attributes, and as many as there are values.
            execute(&mut talk, one, 8, b"\x02\0\0\x08\0\0\0\0\0\0\0\x03abc");
            execute(&mut talk, one, 8, b"\0");
            execute(&mut talk, one, 8, b"\x02\0");
            // A parameter in pieces, whose value is not there.
            for _ in 0..3 {
                talk.use_statement(long, 0x18, b"\0\0some bytes");
            }
            execute(&mut talk, long, 8, &counted(&[(252, "", Some(b"")), A]));
            // Another client takes a connection, which has none of these.
            others.same("BEGIN");
            let mut moved = sides.talk_as(with_attributes);
            moved.same("BEGIN");
            execute(&mut talk, one, 8, b"\x01\0\0\x09\0\0\0\0\0\0\0");
            execute(&mut talk, plain, 8, &counted(&[A]));
            others.same("COMMIT");
            moved.same("COMMIT");
        }
        // With a cursor.
        execute(&mut talk, plain, 9, &counted(&[A]));
        talk.use_statement(plain, 0x1C, &[1, 0, 0, 0]);
        talk.use_statement(plain, 0x1C, &[1, 0, 0, 0]);
        assert_eq!(sides.proxy.metric("sluicegate_disagreements_total"), 0.0);
    });
}

/// A text of three pieces behind attributes.
#[test]
fn my_010_a_long_text() {
    on_mysql("my_010_long", 4, &[], |_, mut talk| {
        for len in [0xFF_FFFF_usize, 0xFF_FFFE, 2 * 0xFF_FFFF] {
            let block = attributes(&[A]);
            let text = len - 1 - block.len() - "SELECT LENGTH('')".len();
            let sql = format!("SELECT LENGTH('{}')", "x".repeat(text));
            let told = talk.same_with(&block, &sql, |packet| packet);
            let number = text.to_string();
            assert!(told[2].payload.ends_with(number.as_bytes()), "{told:?}");
        }
    });
}

/// More than a statement's attributes may be: refused, and nothing is lost. As long as they may be, they pass.
#[test]
fn my_010_too_many_attributes() {
    on_mysql("my_010_many", 4, &["CREATE TABLE t (i int)"], |_, mut talk| {
        let value = |len: u16| [&[0xFC][..], &len.to_le_bytes(), &vec![b'x'; len.into()]].concat();
        let fits = value(0xFFFF - 12);
        talk.same_with(
            &attributes(&[(STRING, "a", Some(&fits))]),
            "SELECT LENGTH(mysql_query_attribute_string('a'))",
            |p| p,
        );
        let many = [0; 255].map(|_| (1, "", Some(&[1][..])));
        talk.same_with(&[&[0xFC, 0xFF, 0, 1][..], &bound(&many)].concat(), "SELECT 1", |packet| packet);
        talk.all(&["BEGIN", "INSERT INTO t VALUES (1)"]);
        let longer = attributes(&[(STRING, "abcdefghijkl", Some(&fits)), A]);
        let refused = talk.proxied.text_with(&longer, "ROLLBACK");
        let statement = talk.proxied.command(b"\x16SELECT 1")[0].payload[1..5].to_vec();
        let names = "n".repeat(250);
        let many = [0; 255].map(|_| (1, names.as_str(), Some(&[1][..])));
        let execute = [&[COM_STMT_EXECUTE], &statement[..], &[8, 1, 0, 0, 0, 0xFC, 0xFF, 0], &bound(&many)].concat();
        let mut too_long = execute.clone();
        // All that is looked at, and more.
        while too_long.len() < 2 << 20 {
            too_long.extend_from_slice(&execute);
        }
        too_long[10..13].copy_from_slice(&[0xFC, 0xFF, 0xFF]);
        for refused in [refused, too_long] {
            let error = talk.proxied.command(&refused)[0].error().unwrap();
            assert_eq!((error.code, error.state.as_str()), (1235, "42000"), "{error}");
            assert!(error.message.contains("query attributes of more than 64 KiB"), "{error}");
            talk.command(&[COM_PING]);
        }
        assert_eq!(talk.proxied.command(&execute)[0].error(), None);
        talk.all(&["SELECT * FROM t", "COMMIT", "SELECT * FROM t"]);
    });
}

/// Where there are none they are not offered; who says that it has some all the same is read as one who has none.
#[test]
fn my_010_not_offered() {
    both_sides("my_010_not", 4, &[], |sides| {
        sides.talk();
        let offered = |address| MyWire::open(address).unwrap().greeting().capabilities & capability::QUERY_ATTRIBUTES;
        let [direct, proxied] = [sides.server.address(), sides.proxy.address].map(offered);
        assert_eq!(proxied, direct);
        assert_eq!(proxied != 0, sides.server.flavour() == Flavour::MySql);
        sides.talk_as(with_attributes).all(&["SELECT 1", "BEGIN", "SELECT 2", "COMMIT"]);
    });
}

/// Who came before the server was seen is told of attributes wherever it is. To a server that has none they are not sent.
#[test]
fn my_010_greeted_before_the_server_was_seen() {
    for flavour in Flavour::ALL {
        let mut server = MyServer::start(flavour, Options::default());
        let name = database(&server, "my_010_early", &["CREATE TABLE t (i int)"]);
        server.stop(Signal::TERM);
        // The server takes its time to come.
        let proxy = start(&set(&my_config(&server, 4), "endpoint", "login_timeout", "\"60s\""));
        let mut early = MyWire::open(proxy.address).unwrap();
        assert_ne!(early.greeting().capabilities & capability::QUERY_ATTRIBUTES, 0);
        server.resume();
        early.log_in(&with_attributes(app().database(&name))).unwrap();
        let all = attributes(&[A, (8, "b", Some(&[7, 0, 0, 0, 0, 0, 0, 0]))]);
        let long = 2 * 0xFF_FFFF;
        for (text, value) in [
            ("SELECT 1".to_owned(), "1".to_owned()),
            (format!("SELECT LENGTH('{}')", "x".repeat(long)), long.to_string()),
        ] {
            let told = early.command(&early.text_with(&all, &text));
            assert!(told[2].payload.ends_with(value.as_bytes()), "{told:?}");
        }
        assert_eq!(early.error("SELECT nonsense").code, 1054);
        for (text, parameters) in [("SELECT ? + 1", 1_u8), ("SELECT 8", 0)] {
            let statement = early.command(&[b"\x16", text.as_bytes()].concat())[0].payload[1..5].to_vec();
            let head = [&[COM_STMT_EXECUTE], &statement[..], &[8, 1, 0, 0, 0]].concat();
            let number: (u8, &str, Option<&[u8]>) = (8, "", Some(&[7, 0, 0, 0, 0, 0, 0, 0]));
            let both = [&[parameters + 1][..], &bound(&[number, A][1 - usize::from(parameters)..])].concat();
            let without_types = [&[parameters, 0, 0][..], &[7, 0, 0, 0, 0, 0, 0, 0]].concat();
            for rest in [both, without_types[..if parameters == 0 { 1 } else { 11 }].to_vec()] {
                let told = early.command(&[&head[..], &rest].concat());
                assert!(told[2].payload.starts_with(&[0, 0, 8]), "{text}: {told:?}");
            }
        }
    }
}

/// MariaDB reads no further than the last parameter: so attributes that are left out may leave their values.
#[test]
fn my_010_values_behind_the_last_parameter() {
    each("my_010_behind", 4, &[], |server, name, _| {
        let mut wire = MyWire::connect(server.address(), &app().database(name)).unwrap();
        for (text, parameters) in [("SELECT ? + 1", &b"\0\x01\x01\0\x07"[..]), ("SELECT 8", b"")] {
            let statement = wire.command(&[b"\x16", text.as_bytes()].concat())[0].payload[1..5].to_vec();
            let told = [&b""[..], b"\x03abc"].map(|more| {
                let head = [&[COM_STMT_EXECUTE], &statement[..], &[0, 1, 0, 0, 0]].concat();
                wire.command(&[&head[..], parameters, more].concat())
            });
            assert_eq!(told[0], told[1]);
            assert!(told[0][2].payload.starts_with(&[0, 0, 8]), "{told:?}");
        }
    });
}

/// MySQL's own command line, and its driver for Python.
#[test]
fn my_010_clients() {
    on_mysql("my_010_clients", 4, &[], |sides, _| {
        let addresses = [(sides.server.address(), &sides.twin), (sides.proxy.address, &sides.name)];
        let [direct, proxied] = addresses.map(|(address, name)| {
            let mut command = Command::new("chroot");
            command.args([provisioned("MYSQL_CHROOT"), provisioned("MYSQL_CLIENT")]);
            command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("MYSQL_PWD", APP_PASSWORD);
            command.args([
                "--no-defaults",
                "--protocol=tcp",
                "--host=127.0.0.1",
                "--get-server-public-key",
                "--silent",
                "--commands",
            ]);
            command.args(["--user", APP, "--port", &address.port().to_string(), "--database", name]);
            let input = format!("query_attributes a one b two\n{ASK};\n{ASK};\nSELECT 1;\n");
            let line = run(command, &input).quietly();
            let mut script = python_file("attributes.py");
            script.args(["127.0.0.1", &address.port().to_string(), APP, APP_PASSWORD, name]);
            (line, run(script, "").quietly())
        });
        assert_eq!(proxied, direct);
        assert!(direct.0.starts_with("one\ttwo\n"), "{direct:?}");
        assert!(direct.1.contains("'one'"), "{direct:?}");
    });
}
