//! The throwaway servers of MySQL and MariaDB, and the client that is their oracle: what tests of the second protocol
//! stand on.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sluicegate::demo::servers::{APP, APP_PASSWORD};

use crate::harness::mysql::wire::{CACHING_SHA2, COM_PING, COM_QUIT, MyLogin, MyWire, NATIVE, Packet, capability};
use crate::harness::mysql::{Flavour, MyServer, Options, database, server, servers};
use crate::harness::wire::PATIENCE;

/// How caching_sha2_password goes on: by the proof alone, or it must have the password.
const FAST: &[u8] = &[0x01, 0x03];
const FULL: &[u8] = &[0x01, 0x04];

fn app(server: &MyServer) -> MyLogin {
    server.login(APP).database(APP)
}

fn payloads(packets: &[Packet]) -> Vec<&[u8]> {
    packets.iter().map(|packet| &packet.payload[..]).collect()
}

#[test]
fn starts_stops_and_comes_back_with_its_data() {
    for flavour in Flavour::ALL {
        let mut server = MyServer::start(flavour, Options::default());
        let address = server.address();
        server.root().query("CREATE TABLE app.t AS SELECT 42 AS a");
        for signal in [Signal::TERM, Signal::KILL] {
            server.stop(signal);
            assert_eq!(server.pid(), None);
            server.resume();
            assert_eq!(server.address(), address);
            assert_eq!(server.root().value("SELECT a FROM app.t"), "42");
        }
        let folder = server.folder().to_owned();
        drop(server);
        assert!(!folder.exists());
    }
}

#[test]
fn one_that_ended_by_itself_says_how() {
    for flavour in Flavour::ALL {
        let server = MyServer::start(flavour, Options::default());
        server.check().unwrap();
        let pid = Pid::from_raw(server.pid().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let began = Instant::now();
        let error = loop {
            if let Err(error) = server.check() {
                break error.to_string();
            }
            assert!(began.elapsed() < PATIENCE);
            thread::yield_now();
        };
        let said = "the server is gone (signal: 9 (SIGKILL)); the end of its log:\n";
        assert!(error.starts_with(said) && error.contains("ready for connections"), "{error}");
    }
}

#[test]
fn they_are_what_they_say_and_have_tls() {
    for server in servers() {
        let mut wire = MyWire::connect(server.address(), &app(server)).unwrap();
        let (said, prefix) = (wire.value("SELECT VERSION()"), format!("{}-", server.version()));
        assert!(said.starts_with(&prefix), "{said}");
        let greeting = wire.greeting().clone();
        let (announced, major, plugin) = match server.flavour() {
            Flavour::MySql => (said.clone(), "9.", CACHING_SHA2),
            Flavour::MariaDb => (format!("5.5.5-{said}"), "10.11.", NATIVE),
        };
        assert_eq!((&greeting.version, greeting.plugin.as_str()), (&announced, plugin));
        assert!(server.version().starts_with(major), "{said}");
        assert_eq!(wire.value("SELECT CONNECTION_ID()"), greeting.connection_id.to_string());
        assert_eq!(
            wire.value(&format!("SELECT ID FROM information_schema.collations WHERE ID = {}", greeting.collation)),
            greeting.collation.to_string()
        );
        // Autocommit, and nothing else.
        assert_eq!(greeting.status, 0x0002);
        // MariaDB has capabilities of its own where it does not say that it is MySQL.
        let is_mysql = greeting.capabilities & capability::LONG_PASSWORD != 0;
        assert_eq!((is_mysql, greeting.extended != 0), (server.flavour() == Flavour::MySql, !is_mysql));

        let cipher = "SHOW STATUS LIKE 'Ssl_cipher'";
        assert_ne!(wire.query(cipher)[0][1].as_deref(), Some(""));
        let mut plain = MyWire::connect(server.address(), &app(server).plaintext()).unwrap();
        assert_eq!(plain.query(cipher)[0][1].as_deref(), Some(""));
    }
}

#[test]
fn both_plugins_log_in() {
    let native = server(Flavour::MariaDb);
    for login in [app(native), app(native).plaintext()] {
        let wire = MyWire::connect(native.address(), &login).unwrap();
        assert_eq!(wire.login().len(), 2, "the greeting and OK: {:?}", wire.login());
    }
    // Asked for another one than it began with.
    let wire = MyWire::connect(native.address(), &app(native).plugin(CACHING_SHA2)).unwrap();
    assert!(wire.login()[1].payload.starts_with(b"\xFEmysql_native_password\0"), "{:?}", wire.login());

    let sha2 = server(Flavour::MySql);
    for (user, plaintext) in [("cold_tls", false), ("cold_rsa", true)] {
        // With a semicolon, so that nothing of what is sent is a word that stands elsewhere; a new account is not yet
        // in the cache.
        let (password, mut root) = (format!("{user};-secret"), sha2.root());
        root.query(&format!("DROP USER IF EXISTS {user}"));
        root.query(&format!("CREATE USER {user} IDENTIFIED BY '{password}'"));
        let login = MyLogin::new(user, &password);
        let login = if plaintext { login } else { login.tls(&sha2.ca_file()) };
        let first = MyWire::connect(sha2.address(), &login).unwrap();
        assert_eq!(payloads(first.login())[1], FULL, "{user}");
        assert_eq!(first.login().len(), if plaintext { 4 } else { 3 }, "{:?}", first.login());
        let second = MyWire::connect(sha2.address(), &login).unwrap();
        assert_eq!(payloads(second.login())[1], FAST, "{user}");
        let switched = MyWire::connect(sha2.address(), &login.plugin(NATIVE)).unwrap();
        assert!(switched.login()[1].payload.starts_with(b"\xFEcaching_sha2_password\0"), "{:?}", switched.login());
        root.query(&format!("DROP USER {user}"));
    }

    for server in servers() {
        for login in [MyLogin::new(APP, "wrong"), MyLogin::new(APP, ""), MyLogin::new("nobody", APP_PASSWORD)] {
            let refused = MyWire::connect(server.address(), &login.tls(&server.ca_file())).err().unwrap();
            assert_eq!((refused.code, refused.state.as_str()), (1045, "28000"), "{refused}");
        }
        let refused = MyWire::connect(server.address(), &server.login(APP).database("nowhere")).err().unwrap();
        assert_eq!((refused.code, refused.state.as_str()), (1044, "42000"), "{refused}");
    }
}

#[test]
fn replies_are_read_to_their_end() {
    for server in servers() {
        let setup = ["CREATE TABLE t (a INT PRIMARY KEY, b TEXT)", "INSERT INTO t VALUES (1, 'x'), (2, NULL)"];
        let name = database(server, "my_replies", &setup);
        let login = app(server).database(&name).with(capability::MULTI_STATEMENTS);
        for login in [login.clone(), login.without(capability::DEPRECATE_EOF)] {
            let has_eof = login.capabilities & capability::DEPRECATE_EOF == 0;
            let mut wire = MyWire::connect(server.address(), &login).unwrap();
            let rows = wire.query("SELECT a, b FROM t ORDER BY a");
            let [one, two, x] = ["1", "2", "x"].map(|text| Some(text.to_owned()));
            assert_eq!(rows, [[one, x], [two, None]]);
            // The number, two columns, (EOF,) two rows, the end.
            let packets = wire.reply("SELECT a, b FROM t ORDER BY a");
            assert_eq!(packets.len(), if has_eof { 7 } else { 6 }, "{packets:?}");
            assert_eq!(packets, wire.reply("SELECT a, b FROM t ORDER BY a"));

            let error = wire.error("SELECT nothing");
            assert_eq!((error.code, error.state.as_str()), (1054, "42S22"), "{error}");
            assert_eq!(wire.value("SELECT 1"), "1");
            // A result, OK, an error: it ends there.
            let packets = wire.reply("SELECT 1; DO 1; SELECT nothing; SELECT 2");
            assert_eq!(packets.len(), if has_eof { 5 } else { 4 } + 2, "{packets:?}");
            assert_eq!(packets.last().unwrap().error(), Some(error));
            assert_eq!(wire.query("INSERT INTO t VALUES (3, '')"), Vec::<Vec<_>>::new());
            wire.query("DELETE FROM t WHERE a = 3");

            wire.send(&[COM_PING]);
            assert_eq!(wire.receive().first(), 0x00);
            wire.send(&[COM_QUIT]);
            wire.until_closed();
        }
    }
}

#[test]
fn packets_of_16_mib_are_put_together() {
    // A row of one column is its length in 4 or 9 bytes and the text; a statement is the command, `SELECT '` and `'`.
    const LIMIT: usize = 0xFF_FFFF;
    for server in servers() {
        let mut wire = MyWire::connect(server.address(), &app(server)).unwrap();
        for row in [LIMIT - 1, LIMIT, LIMIT + 1] {
            let text = if row - 4 <= LIMIT { row - 4 } else { row - 9 };
            let packets = wire.reply(&format!("SELECT REPEAT('x', {text})"));
            assert_eq!(packets[2].payload.len(), row);
            // Every piece has an id of its own.
            assert_eq!(packets[3].sequence - packets[2].sequence, if row < LIMIT { 1 } else { 2 });
        }
        for statement in [LIMIT - 1, LIMIT, LIMIT + 1] {
            let text = "x".repeat(statement - "_SELECT LENGTH('')".len());
            assert_eq!(wire.value(&format!("SELECT LENGTH('{text}')")), text.len().to_string());
        }
    }
}

#[test]
fn a_replica_follows_and_is_promoted() {
    for flavour in Flavour::ALL {
        let mut source = MyServer::start(flavour, Options::default());
        source.root().query("CREATE TABLE app.t AS SELECT 42 AS a");
        let replica = MyServer::start(flavour, Options { replica_of: Some(&source), ..Options::default() });
        let mut on_replica = MyWire::connect(replica.address(), &app(&replica)).unwrap();
        assert_eq!(on_replica.value("SELECT a FROM t"), "42");
        source.root().query("INSERT INTO app.t VALUES (43)");
        replica.until_caught_up(&source);
        assert_eq!(on_replica.value("SELECT SUM(a) FROM t"), "85");
        assert_eq!(on_replica.error("INSERT INTO t VALUES (44)").code, 1290);
        source.stop(Signal::KILL);
        replica.promote();
        on_replica.query("INSERT INTO t VALUES (44)");
        replica.root().query("INSERT INTO app.t VALUES (45)");
        assert_eq!(on_replica.value("SELECT COUNT(*) FROM t"), "4");
    }
}

/// The test binary runs itself: `leak_servers` starts servers and is killed with them.
#[test]
fn a_killed_process_leaves_no_server_behind() {
    const IN_CHILD: &str = "SLUICEGATE_TEST_LEAKS_A_SERVER";
    if std::env::var_os(IN_CHILD).is_some() {
        return leak_servers();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "my_servers::a_killed_process_leaves_no_server_behind", "--nocapture"]);
    let mut child = child.env(IN_CHILD, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let leaked = lines.filter_map(|line| {
        let (_, words) = line.split_once("leaked ")?;
        let (pid, folder) = words.split_once(' ')?;
        Some([Path::new("/proc").join(pid), PathBuf::from(folder)])
    });
    let leaked: Vec<PathBuf> = leaked.take(2).flatten().collect();
    assert!(leaked.len() == 4 && leaked.iter().all(|path| path.exists()), "{leaked:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Some(left) = leaked.iter().find(|path| path.exists()) {
        assert!(Instant::now() < deadline, "still there: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn leak_servers() {
    let servers = Flavour::ALL.map(|flavour| MyServer::start(flavour, Options::default()));
    for server in &servers {
        println!("leaked {} {}", server.pid().unwrap(), server.folder().display());
    }
    // The parent never writes: this ends when it is gone, in case it forgot to kill.
    let _ = std::io::stdin().read(&mut [0]);
}
