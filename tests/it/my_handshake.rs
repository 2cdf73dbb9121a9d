//! The greeting, capabilities and TLS of MySQL's protocol: scenarios 1 to 29 of the list, each beside a direct connection where
//! there is one to compare with.

use std::collections::BTreeSet;
use std::net::TcpStream;

use crate::harness::measure::eventually;
use crate::harness::mysql::Flavour;
use crate::harness::mysql::beside::{Sides, app, both_sides, each, each_with, my_config};
use crate::harness::mysql::wire::{COM_SET_OPTION, MyWire, Packet, capability, extended};
use crate::harness::proxy::{set, start};

/// A client that says nothing is let go, and no database connection was made for it.
#[test]
fn my_001_a_client_that_says_nothing() {
    let config = |server: &_| set(&my_config(server, 4), "endpoint", "login_timeout", "\"200ms\"");
    each_with("my_001", &[], config, |_, _, proxy| {
        let mut silent = MyWire::open(proxy.address).unwrap();
        let mut began = MyWire::open(proxy.address).unwrap();
        began.send_raw(&[0x50, 0, 0]);
        for wire in [&mut silent, &mut began] {
            let error = wire.receive().error().unwrap();
            assert_eq!((error.code, error.state.as_str()), (1159, "08S01"), "{error}");
            wire.until_closed();
        }
        eventually(proxy, &[("database_connections state=\"idle\"", 0.0), ("client_connections", 0.0)]);
    });
}

/// The greeting needs no server; it has the version of the one that was seen last.
#[test]
fn my_002_a_greeting_without_a_server() {
    each("my_002", 4, &[], |server, name, proxy| {
        let direct = MyWire::open(server.address()).unwrap();
        MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let proxied = MyWire::open(proxy.address).unwrap();
        assert_eq!(proxied.greeting().version, direct.greeting().version);
        assert_eq!(proxied.greeting().status, direct.greeting().status);
        // Nobody listens there.
        let nobody = my_config(server, 4).replace(&server.address().to_string(), "127.0.0.1:9");
        let nobody = set(&nobody, "target_group.pool", "connection_borrow_timeout", "\"100ms\"");
        let proxy = start(&nobody);
        let mut wire = MyWire::open(proxy.address).unwrap();
        assert!(!wire.greeting().version.is_empty());
        let error = wire.log_in(&app()).unwrap_err();
        assert_eq!((error.code, error.state.as_str()), (9501, "HY000"), "{error}");
    });
}

/// Scenarios 3 and 4: a number of its own for each client; a challenge that can't be foretold, without zero bytes.
#[test]
fn my_003_numbers_and_challenges() {
    each("my_003", 4, &[], |_, _, proxy| {
        let greetings: Vec<_> = (0..40).map(|_| MyWire::open(proxy.address).unwrap().greeting().clone()).collect();
        let numbers: BTreeSet<u32> = greetings.iter().map(|greeting| greeting.connection_id).collect();
        assert_eq!((numbers.len(), numbers.contains(&0)), (greetings.len(), false));
        let challenges: BTreeSet<[u8; 20]> = greetings.iter().map(|greeting| greeting.scramble).collect();
        assert_eq!(challenges.len(), greetings.len());
        assert!(challenges.iter().flatten().all(|byte| (1..128).contains(byte)), "{challenges:?}");
        // No two begin alike, or end alike.
        for half in [0..10, 10..20] {
            let halves: BTreeSet<&[u8]> = challenges.iter().map(|challenge| &challenge[half.clone()]).collect();
            assert_eq!(halves.len(), greetings.len());
        }
    });
}

/// Scenarios 5, 17, 18 and 19: what is offered the server has; what a client says beyond that changes nothing.
#[test]
fn my_005_what_was_never_offered() {
    both_sides("my_005", 4, &["CREATE TABLE t (i int, g point)"], |sides| {
        // Who comes first is greeted before the server has been asked what it is.
        sides.talk();
        let [direct, proxied] = [sides.server.address(), sides.proxy.address]
            .map(|address| MyWire::open(address).unwrap().greeting().clone());
        // What lies between a client and the proxy is theirs alone.
        assert_eq!(proxied.capabilities & !direct.capabilities & !capability::ZSTD, 0);
        // MariaDB leaves the first one out, to say that it is not MySQL, and has some of its own. The proxy keeps nothing in mind of
        // what whom has been told of columns.
        let is_mariadb = sides.server.flavour() == Flavour::MariaDb;
        assert_eq!(proxied.capabilities & capability::LONG_PASSWORD == 0, is_mariadb);
        assert_eq!(proxied.extended, direct.extended & !extended::CACHED_METADATA);
        assert_eq!(proxied.extended == 0, !is_mariadb);
        // Several factors; results without descriptions.
        assert_eq!(proxied.capabilities & (1 << 28 | 1 << 25), 0);
        let beyond = !proxied.capabilities & !capability::SSL;
        let mut talk = sides.talk();
        let login = app().database(&sides.name).with(beyond & !capability::LONG_PASSWORD).extended(!proxied.extended);
        talk.proxied = MyWire::connect(sides.proxy.address, &login).unwrap();
        talk.all(&["SELECT 1, 'x'", "SELECT * FROM t", "INSERT INTO t (i) VALUES (1)", "SELECT i FROM t"]);
        let prepared = talk.prepare("SELECT ?, i FROM t");
        talk.execute(prepared, &[0, 1, 3, 0, 7, 0, 0, 0]);
    });
}

/// Rows of 16 MiB and more, the first bytes of which look like the end of a result.
#[test]
fn my_007_rows_that_begin_like_the_end() {
    both_sides("my_007", 4, &[], |sides| {
        for form in [capability::DEPRECATE_EOF, 0] {
            let mut talk = sides.talk_as(|login| login.without(capability::DEPRECATE_EOF).with(form));
            // 0xFE is the mark of a length of eight bytes.
            let rows = talk.same("SELECT REPEAT('x', 16777216), 1 UNION ALL SELECT 'y', 2");
            let row = &rows[rows.len() - 3];
            assert_eq!((row.first(), row.payload.len()), (0xFE, 9 + 0x100_0000 + 2), "{row:?}");
            talk.same("SELECT 1");
        }
    });
}

/// A client that wants to be told of changes is told what it asked for, and nobody else is.
#[test]
fn my_009_session_trackers_of_the_clients_own() {
    both_sides("my_009", 3, &["CREATE TABLE t (i int)"], |sides| {
        const SCRIPT: &[&str] = &[
            "SET time_zone = '+02:00'",
            "USE {db}",
            "BEGIN",
            "INSERT INTO t VALUES (1)",
            "SELECT COUNT(*) FROM t",
            "COMMIT",
            "SET @a = 1",
            "SET NAMES latin1",
            "SELECT 1",
        ];
        for wish in [
            "SET session_track_schema = 0",
            "SET session_track_state_change = 1",
            "SET session_track_system_variables = 'time_zone,autocommit'",
            "SET session_track_transaction_info = 'CHARACTERISTICS'",
        ] {
            let mut talk = sides.talk_as(|login| login.with(capability::SESSION_TRACK));
            talk.same(wish);
            // What another client has left on the connection goes here, outside of a transaction.
            talk.same("INSERT INTO t VALUES (0)");
            talk.all(SCRIPT);
            drop(talk);
            // Whoever comes next has asked for nothing.
            sides.talk_as(|login| login.with(capability::SESSION_TRACK)).all(SCRIPT);
            sides.talk().all(SCRIPT);
        }
    });
}

/// Scenarios 11 and 76: several statements in one text, by the login or by COM_SET_OPTION.
#[test]
fn my_011_multi_statements() {
    both_sides("my_011", 3, &[], |sides| {
        for form in [capability::DEPRECATE_EOF, 0] {
            let usual =
                |login: crate::harness::mysql::wire::MyLogin| login.without(capability::DEPRECATE_EOF).with(form);
            let mut talk = sides.talk_as(usual);
            assert_eq!(talk.error("SELECT 1; SELECT 2").code, 1064);
            let end = talk.command(&[COM_SET_OPTION, 0, 0]);
            assert_eq!(end[0].first(), 0xFE, "{end:?}");
            assert_eq!(talk.same("SELECT 1; SELECT 2").len(), if form == 0 { 10 } else { 8 });
            talk.command(&[COM_SET_OPTION, 1, 0]);
            assert_eq!(talk.error("SELECT 1; SELECT 2").code, 1064);
            talk.command(&[COM_SET_OPTION, 0, 0]);
            drop(talk);
            // Neither does it stay for others, nor does a login's.
            let mut several = sides.talk_as(|login| usual(login).with(capability::MULTI_STATEMENTS));
            several.same("SELECT 1; SELECT 2");
            assert_eq!(sides.talk_as(usual).error("SELECT 1; SELECT 2").code, 1064);
            several.same("SELECT 3; SELECT 4");
            // There is no other option.
            several.command(&[COM_SET_OPTION, 7, 0]);
            several.same("SELECT 5");
        }
    });
}

/// Rows that were found, or rows that were changed: each client its own way, in turns over the same pool.
#[test]
fn my_013_found_rows() {
    let setup = ["CREATE TABLE t (i int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)"];
    both_sides("my_013", 4, &setup, |sides| {
        let mut found = sides.talk_as(|login| login.with(capability::FOUND_ROWS));
        let mut changed = sides.talk();
        for _ in 0..3 {
            let affected = |packets: &[Packet]| packets[0].payload[1];
            assert_eq!(affected(&found.same("UPDATE t SET v = i")), 2);
            assert_eq!(affected(&changed.same("UPDATE t SET v = i")), 0);
            found.same("INSERT INTO t VALUES (1, 1) ON DUPLICATE KEY UPDATE v = 1");
            changed.same("INSERT INTO t VALUES (1, 1) ON DUPLICATE KEY UPDATE v = 1");
        }
    });
}

/// Blanks behind a function's name; and the time that a client for people may be idle.
#[test]
fn my_014_ignore_space_and_interactive() {
    both_sides("my_014", 4, &["CREATE TABLE t (i int)"], |sides| {
        let mut strict = sides.talk();
        let mut lenient = sides.talk_as(|login| login.with(capability::IGNORE_SPACE));
        let mut person = sides.talk_as(|login| login.with(capability::INTERACTIVE));
        for _ in 0..2 {
            assert_ne!(strict.error("SELECT COUNT (*) FROM t").code, 0);
            lenient.same("SELECT COUNT (*) FROM t");
            lenient.same("SELECT @@sql_mode LIKE '%IGNORE_SPACE%'");
            for talk in [&mut strict, &mut person] {
                talk.same(
                    "SELECT @@wait_timeout = @@GLOBAL.wait_timeout, @@wait_timeout = @@GLOBAL.interactive_timeout",
                );
            }
        }
    });
}

/// What a client tells of its program, up to the longest there may be.
#[test]
fn my_015_connection_attributes() {
    both_sides("my_015", 4, &[], |sides| {
        let attributes = |length: usize| {
            let mut words = vec!["program_name".to_owned(), "my_015".to_owned(), "_os".to_owned(), "Linux".to_owned()];
            while length > words.iter().map(|word| word.len() + 3).sum::<usize>() + 400 {
                words.extend([format!("key{}", words.len()), "v".repeat(380)]);
            }
            words
        };
        for length in [0, 600, 60_000] {
            let words = attributes(length);
            let mut talk = sides.talk_as(|mut login| {
                login.attributes.clone_from(&words);
                login
            });
            talk.same("SELECT 'in'");
        }
    });
}

/// TLS that is required, TLS that is not there, and words that come too early.
#[test]
fn my_024_tls() {
    let config = |server: &crate::harness::mysql::MyServer| {
        let file = |name: &str| format!("{:?}", server.folder().join(name));
        let text = set(&my_config(server, 4), "endpoint", "tls", "\"required\"");
        let text = set(&text, "tls", "certificate", &file("server.crt"));
        set(&text, "tls", "private_key", &file("server.key"))
    };
    each_with("my_024", &[], config, |server, name, proxy| {
        let login = app().database(name);
        let error = MyWire::connect(proxy.address, &login).err().unwrap();
        assert_eq!((error.code, error.state.as_str()), (3159, "HY000"), "{error}");
        let mut wire = MyWire::connect(proxy.address, &login.clone().tls(&server.ca_file())).unwrap();
        assert_eq!(wire.value("SELECT 'over TLS'"), "over TLS");
        // A login in the same breath as the request for TLS: somebody else may have put it there.
        let mut early = MyWire::open(proxy.address).unwrap();
        let mut request = (capability::USUAL | capability::SSL).to_le_bytes().to_vec();
        request.extend([0, 0, 0, 4, 45]);
        request.extend([0; 23]);
        let rest = [&request[..], b"app\0\0"].concat();
        let framed = |sequence: u8, payload: &[u8]| [&[payload.len() as u8, 0, 0, sequence], payload].concat();
        early.send_raw(&[framed(1, &request), framed(2, &rest)].concat());
        // It is read as TLS, which it is not: at most an alert comes back.
        assert!(matches!(early.rest()[..], [] | [21, ..]));
        // Where there is none, none is offered, and who asks for it all the same is told.
        let plain = start(&my_config(server, 4));
        let mut wire = MyWire::open(plain.address).unwrap();
        assert_eq!(wire.greeting().capabilities & capability::SSL, 0);
        wire.send_raw(&framed(1, &request));
        assert_eq!(wire.receive_from(2).error().unwrap().code, 1043);
        wire.until_closed();
    });
}

/// The header of a load balancer comes before the greeting, from those who may send one and from nobody else.
#[test]
fn my_025_proxy_protocol() {
    let v1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 3306\r\n".to_vec();
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x9c\x40\x0c\xea"[..]].concat();
    let config = |server: &_| {
        let text = set(&my_config(server, 4), "endpoint", "proxy_protocol_from", "[\"127.0.0.1\"]");
        set(&text, "endpoint", "allow_from", "[\"192.0.2.0/24\"]")
    };
    each_with("my_025", &[], config, |server, name, proxy| {
        let connect = |address| TcpStream::connect(address).unwrap();
        for header in [&v1, &v2] {
            let mut wire = MyWire::greeted(connect(proxy.address), header).unwrap();
            wire.log_in(&app().database(name)).unwrap();
            assert_eq!(wire.value("SELECT 'in'"), "in");
        }
        proxy.logs("192.0.2.7");
        // From there it is an address that may not come in.
        let elsewhere = String::from_utf8(v1.clone()).unwrap().replace("192.0.2.7", "203.0.113.9");
        let mut wire = MyWire::greeted(connect(proxy.address), elsewhere.as_bytes()).unwrap();
        let error = wire.log_in(&app().database(name)).unwrap_err();
        assert_eq!((error.code, error.state.as_str()), (1130, "HY000"), "{error}");
        // Not from these: it is no login.
        let plain = start(&my_config(server, 4));
        let mut wire = MyWire::greeted(connect(plain.address), &v1).unwrap();
        assert_ne!(wire.rest().get(4), Some(&0), "in all the same");
    });
}

/// Collations that a login can't name, as they have numbers beyond 255.
#[test]
fn my_026_collations_beyond_255() {
    both_sides("my_026", 3, &[], |sides| {
        let (plain, cased) = match sides.server.flavour() {
            Flavour::MySql => ("utf8mb4_0900_as_cs", "utf8mb4_ja_0900_as_cs"),
            Flavour::MariaDb => ("utf8mb4_uca1400_ai_ci", "utf8mb4_uca1400_as_cs"),
        };
        const ASK: &str = "SELECT @@character_set_client, @@collation_connection, 'a' = 'A', 'a' = 'ä'";
        for collation in [plain, cased] {
            let mut talk = sides.talk();
            talk.same(&format!("SET NAMES utf8mb4 COLLATE {collation}"));
            talk.all(&[ASK, "BEGIN", ASK, "COMMIT", ASK]);
            drop(talk);
            sides.talk().same(ASK);
        }
    });
}

/// Every number that a login can name is what it is directly; so is one that nobody knows.
#[test]
fn my_027_every_collation_of_a_login() {
    both_sides("my_027", 3, &[], |sides| {
        let mut differing = Vec::new();
        // MariaDB refuses a login with that of file names; here it is as one that nobody knows.
        for collation in (0..=255).filter(|number| *number != 17) {
            let mut wires =
                [(sides.server.address(), &sides.twin), (sides.proxy.address, &sides.name)].map(|(address, name)| {
                    let login = app().database(name);
                    MyWire::connect(address, &crate::harness::mysql::wire::MyLogin { collation, ..login })
                });
            let ask = "SELECT CONCAT_WS(' ', @@character_set_client, @@character_set_connection, @@collation_connection, \
                       @@character_set_results)";
            let [direct, proxied] = wires.each_mut().map(|wire| {
                wire.as_mut()
                    .map(|wire| wire.reply(ask).iter().map(|packet| packet.payload.clone()).collect::<Vec<_>>())
                    .map_err(|error| error.code)
            });
            if direct != proxied {
                differing.push(format!("{collation}: {direct:?} {proxied:?}"));
            }
        }
        assert!(differing.is_empty(), "{differing:#?}");
    });
}

/// What is no answer to a greeting: told so as by a server, and nobody else notices.
#[test]
fn my_028_malformed_logins() {
    both_sides("my_028", 4, &[], |sides| {
        let head = |flags: u32| [&flags.to_le_bytes()[..], &[0, 0, 0, 1, 45], &[0; 23]].concat();
        let usual = head(capability::USUAL);
        let lenenc = head(capability::USUAL | capability::PLUGIN_AUTH_LENENC);
        let attributes = head(capability::USUAL | capability::CONNECT_ATTRS);
        let malformed: [(&str, Vec<u8>); 7] = [
            ("nothing", Vec::new()),
            ("a byte", vec![1]),
            ("less than a head", usual[..20].to_vec()),
            ("an old protocol", head(0x0001)),
            ("a user without an end", [&usual[..], b"app"].concat()),
            ("a proof longer than the packet", [&usual[..], b"app\0\xC8abc"].concat()),
            ("a proof of 1 GB", [&lenenc[..], b"app\0\xFD\0\0\x40x"].concat()),
        ];
        // So long that it is not even read.
        let mut wire = MyWire::open(sides.proxy.address).unwrap();
        wire.send_raw(b"\xFE\xFF\xFF\x01");
        assert_eq!(wire.receive_from(2).error().unwrap().code, 1043);
        for (what, payload) in &malformed {
            let mut wire = MyWire::open(sides.proxy.address).unwrap();
            wire.send_next(payload);
            let error = wire.receive().error().unwrap();
            assert_eq!((error.code, error.state.as_str()), (1043, "08S01"), "{what}: {error}");
            wire.until_closed();
        }
        // Attributes that do not fit into themselves: a server may look past them, but must not go beyond them.
        let mut wire = MyWire::open(sides.proxy.address).unwrap();
        wire.send_next(&[&attributes[..], b"app\0\0caching_sha2_password\0\x05\xFE\xFF\xFF\xFF\xFF"].concat());
        assert!(matches!(wire.receive().error().unwrap().code, 1043 | 1045));
        sides.talk().same("SELECT 'fine'");
        eventually(sides.proxy, &[("client_connections", 0.0)]);
    });
}

/// A database that is not there, or not for this user, is told at the login; an empty name is none.
#[test]
fn my_029_a_database_that_is_not_there() {
    both_sides("my_029", 6, &[], |sides: &Sides<'_>| {
        let [direct, proxied] = sides.refused(|login| login.database("my_029_nowhere"));
        assert_eq!(proxied, direct);
        assert!(matches!(proxied.unwrap().code, 1044 | 1049));
        let mut talk = sides.talk_as(|login| login.database(""));
        talk.all(&["SELECT DATABASE()", "USE {db}", "SELECT DATABASE()"]);
        let none = |mut login: crate::harness::mysql::wire::MyLogin| {
            login.database = None;
            login
        };
        assert_eq!(sides.talk_as(none).error("SELECT * FROM t").code, 1046);
    });
}
