//! Logins: versions, TLS, refusals and their words, broken packets, time and number limits, unix sockets.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, Options, PostgresServer};

use crate::harness::forward::Forwarder;
use crate::harness::programs::{Ended, conninfo, python, run};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Frame, Login, PATIENCE, PROTOCOL_3_2, Wire, kinds, message, query, read_frame};
use crate::harness::{each, each_with, server, servers};

const PROTOCOL_3_9999: u32 = 0x0003_270f;
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn login(database: &str) -> Login {
    Login::app().database(database)
}

/// A login that must fail, by the fields of its one error: severity, code, words.
fn refused(address: SocketAddr, login: &Login) -> (String, String, String) {
    let Err(failed) = Wire::connect(address, login) else { panic!("{login:?} should not come in") };
    words(&failed.frames)
}

fn words(frames: &[Frame]) -> (String, String, String) {
    let error = frames.last().unwrap_or_else(|| panic!("not a word"));
    assert_eq!(error.kind, b'E', "{frames:#?}");
    let field = |name| error.field(name).unwrap_or_default();
    (field(b'V'), field(b'C'), field(b'M'))
}

fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes; all that comes back until the other side closes.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw(address);
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed in time ({error}) after {:?}", bytes.escape_ascii().to_string()),
    }
    answer
}

#[test]
fn pg_103_versions_and_their_keys() {
    each("pg_103_versions", 4, &[], |_, database, proxy| {
        let kinds = |wire: &Wire| wire.login().iter().map(|frame| char::from(frame.kind)).collect::<String>();
        let key_bytes = |wire: &Wire| {
            let keys: Vec<_> = wire.login().iter().filter(|frame| frame.kind == b'K').collect();
            assert_eq!(keys.len(), 1);
            keys[0].body.len() - 4
        };
        let old = Wire::connect(proxy.address, &login(database)).unwrap();
        assert_eq!(key_bytes(&old), 4);
        assert!(!kinds(&old).contains('v'));
        let new = Wire::connect(proxy.address, &Login { version: PROTOCOL_3_2, ..login(database) }).unwrap();
        assert_eq!(key_bytes(&new), 32);
        assert!(!kinds(&new).contains('v'));
        // What comes may be newer, and have options nobody knows: one answer says what we have.
        let newer = Login { version: PROTOCOL_3_9999, ..login(database) };
        let newer = newer.with("_pq_.test_protocol_negotiation", "on").with("_pq_.other", "");
        let newer = Wire::connect(proxy.address, &newer).unwrap();
        let negotiations: Vec<_> = newer.login().iter().filter(|frame| frame.kind == b'v').collect();
        assert_eq!(negotiations.len(), 1);
        let expected =
            [&0x0003_0002_u32.to_be_bytes()[..], &2_u32.to_be_bytes(), b"_pq_.test_protocol_negotiation\0_pq_.other\0"];
        assert_eq!(negotiations[0].body[..], expected.concat());
        assert_eq!(key_bytes(&newer), 32);
        // 3.0 with an option: told as well, and its key stays short.
        let option = Wire::connect(proxy.address, &login(database).with("_pq_.x", "y")).unwrap();
        assert_eq!(option.login().iter().filter(|frame| frame.kind == b'v').count(), 1);
        assert_eq!(key_bytes(&option), 4);
        let (severity, code, _) = refused(proxy.address, &Login { version: 0x0004_0000, ..login(database) });
        assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "0A000"));
        // Told as in its own time: a word, not a message.
        let answer = answer(proxy.address, &Login { version: 0x0002_0000, ..login(database) }.startup());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("EFATAL:  unsupported frontend protocol 2.0"), "{answer:?}");
    });
}

/// libpq 18 takes no other key of a server that speaks 3.0.
#[test]
fn pg_104_a_client_of_3_0_gets_a_key_of_four_bytes() {
    each("pg_104_keys", 4, &[], |_, database, proxy| {
        for (version, bytes) in [(0x0003_0000, 4), (PROTOCOL_3_2, 32)] {
            let wire = Wire::connect(proxy.address, &Login { version, ..login(database) }).unwrap();
            let keys: Vec<_> = wire.login().iter().filter(|frame| frame.kind == b'K').collect();
            assert_eq!(keys.iter().map(|key| key.body.len() - 4).collect::<Vec<_>>(), [bytes], "{version:x}");
        }
    });
}

#[test]
fn pg_105_a_server_with_a_bad_cancel_key() {
    for body in [&b"\0\0\0\x07"[..], &[7; 4 + 300], b"\0", b""] {
        // Not for the monitor, whose own client can't read it. A connection has a thread of its own in the forwarder.
        thread_local!(static IS_CLIENTS: Cell<bool> = const { Cell::new(false) });
        let forwarder = Forwarder::changing(server(Feature::Any).address(), move |frame| {
            if frame.body.starts_with(b"session_authorization\0app\0") {
                IS_CLIENTS.set(true);
            }
            let body = if frame.kind == b'K' && IS_CLIENTS.get() { body.into() } else { frame.body };
            vec![Frame { kind: frame.kind, body }]
        });
        let proxy = start(&config(forwarder.address, 4));
        let mut wire = match Wire::connect(proxy.address, &login("app")) {
            Ok(wire) => wire,
            Err(failed) => panic!("{:?}: {:#?}\n{}", body, failed.frames, proxy.log()),
        };
        assert_eq!(wire.value("SELECT 1"), "1");
    }
}

/// A database may have something to say while the proxy logs in there: that is nobody's.
#[test]
fn pg_020_notices_at_the_login_at_a_database() {
    for server in servers() {
        let notice = Frame { kind: b'N', body: b"SNOTICE\0VNOTICE\0C00000\0Mwelcome\0\0"[..].into() };
        let forwarder = Forwarder::changing(server.address(), move |frame| match frame.kind {
            b'K' | b'S' => vec![notice.clone(), frame],
            _ => vec![frame],
        });
        let proxy = start(&config(forwarder.address, 4));
        let mut wire = Wire::connect(proxy.address, &login("app")).unwrap();
        assert!(wire.login().iter().all(|frame| frame.kind != b'N'), "{:#?}", wire.login());
        assert_eq!(kinds(&wire.ask(&query("SELECT 1"), 1)), "TDCZ", "{}", proxy.log());
    }
}

#[test]
fn pg_105_a_server_without_a_cancel_key() {
    for server in servers() {
        let forwarder = Forwarder::filtering(server.address(), |frame| frame.kind != b'K');
        let proxy = start(&config(forwarder.address, 4));
        let mut wire = Wire::connect(proxy.address, &login("app")).unwrap();
        assert_eq!(wire.login().iter().filter(|frame| frame.kind == b'K').count(), 1);
        assert_eq!(wire.value("SELECT 1"), "1", "{}", proxy.log());
    }
}

#[test]
fn pg_099_encryption_is_declined_and_the_login_goes_on() {
    let server = server(Feature::Any);
    let proxy = start(&config(server.address(), 4));
    let orders: [&[[u8; 8]]; 5] =
        [&[SSL_REQUEST], &[GSSENC_REQUEST], &[SSL_REQUEST, GSSENC_REQUEST], &[GSSENC_REQUEST, SSL_REQUEST], &[]];
    for order in orders {
        let mut stream = raw(proxy.address);
        for request in order {
            stream.write_all(request).unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte, *b"N", "{order:?}");
        }
        stream.write_all(&login("app").startup()).unwrap();
        let frame = read_frame(&mut stream).unwrap();
        assert_eq!((frame.kind, &frame.body[..4]), (b'R', &[0, 0, 0, 10][..]), "{order:?}");
    }
    // And libpq, which asks for it by default.
    for installation in servers().map(PostgresServer::installation) {
        for mode in ["prefer", "allow", "disable"] {
            let mut psql = installation.program("psql");
            let to = conninfo(proxy.address, "app").replace("sslmode=disable", &format!("sslmode={mode}"));
            psql.args(["--no-psqlrc", "-At", "--command", "SELECT 1", "--dbname", &to]);
            assert_eq!(run(psql, "").quietly(), "1\n");
        }
    }
}

/// A server with TLS, and a proxy that verifies it and shows its certificate to clients.
fn with_tls(feature: Feature, tls: &str) -> (PostgresServer, ProxyHandle) {
    let installation = Installation::find(feature).unwrap();
    let server = PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap();
    let file = |name: &str| format!("{:?}", server.socket_dir().join(name));
    let text = config(server.address(), 4);
    let text = set(&text, "endpoint", "tls", &format!("{tls:?}"));
    let text = set(&text, "target_group", "tls", "\"verify-full\"");
    let text = set(&text, "target_group", "ca_file", &file("ca.crt"));
    let text = set(&text, "tls", "certificate", &file("server.crt"));
    let text = set(&text, "tls", "private_key", &file("server.key"));
    let proxy = start(&text);
    (server, proxy)
}

fn psql_with(server: &PostgresServer, proxy: &ProxyHandle, parameters: &str) -> Ended {
    let to = format!(
        "hostaddr=127.0.0.1 port={} user={APP} password={APP_PASSWORD} dbname=app {parameters}",
        proxy.address.port()
    );
    let mut psql = server.installation().program("psql");
    psql.args(["--no-psqlrc", "-At", "--command", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"]);
    psql.args(["--dbname", &to]);
    run(psql, "")
}

#[test]
fn tls_on_both_sides() {
    for feature in [Feature::Protocol3_0Only, Feature::Protocol3_2] {
        let (server, proxy) = with_tls(feature, "required");
        // As the program sees it, in its chroot or not.
        let ca = format!("/tmp/{}/ca.crt", server.socket_dir().file_name().unwrap().display());
        for good in [
            format!("host=localhost sslmode=verify-full sslrootcert={ca}"),
            format!("host=127.0.0.1 sslmode=verify-full sslrootcert={ca}"),
            format!("host=elsewhere sslmode=verify-ca sslrootcert={ca}"),
            "host=elsewhere sslmode=require".to_owned(),
            "host=elsewhere sslmode=prefer".to_owned(),
            "host=elsewhere sslmode=require ssl_max_protocol_version=TLSv1.2".to_owned(),
        ] {
            assert_eq!(psql_with(&server, &proxy, &good).quietly(), "t\n", "{good}\n{}", proxy.log());
        }
        let other_host = psql_with(&server, &proxy, &format!("host=elsewhere sslmode=verify-full sslrootcert={ca}"));
        assert!(!other_host.status.success() && other_host.stderr.contains("elsewhere"), "{other_host}");
        let plain = psql_with(&server, &proxy, "host=localhost sslmode=disable");
        assert!(plain.stderr.contains("this endpoint requires TLS: connect with sslmode=require"), "{plain}");
        assert_eq!(refused(proxy.address, &login("app")).1, "28000");
    }
}

#[test]
fn tls_as_the_client_likes() {
    let (server, proxy) = with_tls(Feature::Protocol3_2, "optional");
    for mode in ["disable", "allow", "prefer", "require"] {
        let ended = psql_with(&server, &proxy, &format!("host=localhost sslmode={mode}"));
        assert_eq!(ended.quietly(), "t\n", "{mode}: the database's side is encrypted in any case");
    }
}

#[test]
fn pg_098_plaintext_behind_a_request_for_tls() {
    for tls in ["optional", "required"] {
        let (_server, proxy) = with_tls(Feature::Any, tls);
        let answer = answer(proxy.address, &[&SSL_REQUEST[..], &login("app").startup()].concat());
        // Whatever it says, it starts neither a login nor TLS with those bytes.
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(!text.contains("SCRAM"), "{text:?}");
        assert!(answer.is_empty() || text.contains("received unencrypted data after SSL request"), "{text:?}");
        // The same in two segments is a TLS handshake that fails.
        let mut stream = raw(proxy.address);
        stream.write_all(&SSL_REQUEST).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"S");
        stream.write_all(&login("app").startup()).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains("SCRAM"), "{rest:?}");
    }
}

#[test]
fn pg_094_startup_packets_of_bad_length() {
    let server = server(Feature::Any);
    let proxy = start(&config(server.address(), 4));
    let with_length = |length: i32, body: &[u8]| [&length.to_be_bytes()[..], body].concat();
    let body = &login("app").startup()[4..];
    for length in [0, 1, 3, 4, 5, 7, -1, i32::MIN, i32::MAX, 10_001, 1 << 20] {
        let answer = answer(proxy.address, &with_length(length, body));
        assert!(answer.is_empty() || answer[0] == b'E', "{length}: {answer:?}");
    }
    // As long as may be, and not a valid list.
    for body in [vec![0; 9_996], vec![b'x'; 9_996], [&196_608_u32.to_be_bytes()[..], &[b'x'; 9_992]].concat()] {
        let answer = answer(proxy.address, &with_length(10_000, &body));
        assert!(answer.is_empty() || answer[0] == b'E', "{answer:?}");
    }
    // Something that speaks another protocol.
    for text in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n"] {
        let answer = answer(proxy.address, text);
        assert!(answer.is_empty() || answer[0] == b'E' || answer[0] == 0x15, "{answer:?}");
    }
    // Those who only look whether somebody is there.
    for _ in 0..50 {
        drop(raw(proxy.address));
    }
    let mut wire = Wire::connect(proxy.address, &login("app")).unwrap();
    assert_eq!(wire.value("SELECT 1"), "1");
    let peak = proxy.memory_peak_kib();
    assert!(peak < 64 << 10, "{peak} KiB");
    let said = proxy.log();
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
}

#[test]
fn pg_094_password_messages_of_bad_length() {
    let server = server(Feature::Any);
    let proxy = start(&config(server.address(), 4));
    for bad in [
        [&b"p"[..], &3_u32.to_be_bytes()].concat(),
        [&b"p"[..], &u32::MAX.to_be_bytes()].concat(),
        [&b"p"[..], &(1_u32 << 30).to_be_bytes(), &[b'x'; 100_000]].concat(),
        message(b'p', &[b'x'; 80_000]),
        message(b'p', b""),
        message(b'p', b"SCRAM-SHA-256\0"),
        message(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\x05p=x,,"),
        message(b'p', b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,n=,r=abc"),
        query("SELECT 1"),
    ] {
        let mut stream = raw(proxy.address);
        stream.write_all(&login("app").startup()).unwrap();
        assert_eq!(read_frame(&mut stream).unwrap().kind, b'R');
        let _ = stream.write_all(&bad);
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{:?}", bad[..9].escape_ascii().to_string());
        }
        assert!(rest.is_empty() || rest[0] == b'E', "{rest:?}");
    }
    let peak = proxy.memory_peak_kib();
    assert!(peak < 64 << 10, "{peak} KiB");
    Wire::connect(proxy.address, &login("app")).unwrap();
}

#[test]
fn pg_094_messages_of_bad_length_in_a_session() {
    each("pg_094_messages", 4, &[], |server, database, proxy| {
        for kind in *b"QPBEDCSHFdcf" {
            for length in [0_u32, 3, 1 << 31, u32::MAX, (1 << 31) - 1, (1 << 30) + (1 << 20)] {
                let bytes = [&[kind][..], &length.to_be_bytes(), b"SELECT 1\0"].concat();
                let ends = |address| {
                    let mut wire = Wire::connect(address, &login(database)).unwrap();
                    wire.send(&bytes);
                    wire.until_closed().iter().map(|frame| (frame.kind, frame.field(b'C'))).collect::<Vec<_>>()
                };
                let (direct, proxied) = (ends(server.address()), ends(proxy.address));
                // Where the server just closes, the proxy says why.
                let told = [(b'E', Some("08P01".to_owned()))];
                assert!(
                    direct == proxied || (direct.is_empty() && proxied == told),
                    "{} with length {length:x}: {direct:?}, {proxied:?}",
                    char::from(kind)
                );
            }
        }
        assert_eq!(Wire::connect(proxy.address, &login(database)).unwrap().value("SELECT 1"), "1");
    });
}

#[test]
fn a_login_must_come_in_time() {
    let server = server(Feature::Any);
    let proxy = start(&set(&config(server.address(), 4), "endpoint", "login_timeout", "\"500ms\""));
    let began = Instant::now();
    answer(proxy.address, b"");
    answer(proxy.address, &login("app").startup()[..20]);
    let mut stream = raw(proxy.address);
    stream.write_all(&login("app").startup()).unwrap();
    let mut frames = vec![read_frame(&mut stream).unwrap()];
    frames.push(read_frame(&mut stream).unwrap());
    let (severity, code, words) = words(&frames);
    assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "57014"));
    assert!(words.contains("timeout"), "{words}");
    assert!(read_frame(&mut stream).is_err());
    assert!(began.elapsed() >= Duration::from_millis(1_400), "{:?}", began.elapsed());
    Wire::comes_in(proxy.address, &login("app"));
}

#[test]
fn pg_107_an_unknown_user_and_a_wrong_password_look_the_same() {
    let server = server(Feature::Any);
    let proxy = start(&config(server.address(), 4));
    let attempt = |user: &str| {
        let failed = Wire::connect(proxy.address, &Login::new(user, "wrong").database("app")).err().unwrap();
        let kinds: String = failed.frames.iter().map(|frame| char::from(frame.kind)).collect();
        let (severity, code, words) = words(&failed.frames);
        assert_eq!(words, format!("password authentication failed for user \"{user}\""));
        let asked: Vec<usize> = failed.frames.iter().filter(|f| f.kind == b'R').map(|f| f.body.len()).collect();
        (kinds, asked, severity, code)
    };
    let known = attempt(APP);
    assert_eq!((known.2.as_str(), known.3.as_str()), ("FATAL", "28P01"));
    assert_eq!(attempt("nobody"), known);
    assert_eq!(attempt("postgres"), known);
    // The salt of a user who does not exist is always the same one, as that of one who does.
    let salt = |user: &str| {
        let failed = Wire::connect(proxy.address, &Login::new(user, "wrong")).err().unwrap();
        let text = String::from_utf8_lossy(&failed.frames[1].body).into_owned();
        text.split(',').skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    for user in [APP, "nobody"] {
        assert_eq!(salt(user), salt(user));
    }
    assert_ne!(salt("nobody"), salt("somebody"));
}

#[test]
fn pg_109_replication_is_refused_with_words() {
    each("pg_109_replication", 4, &[], |_, database, proxy| {
        for value in ["database", "true", "on", "1", "yes"] {
            let (severity, code, words) = refused(proxy.address, &login(database).with("replication", value));
            assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "0A000"), "{value}");
            assert!(words.contains("connect to the database directly"), "{words}");
        }
        for value in ["false", "off", "0", "no"] {
            Wire::connect(proxy.address, &login(database).with("replication", value)).unwrap();
        }
    });
}

#[test]
fn pg_071_startup_parameters_are_the_servers_business() {
    let setup = ["CREATE SCHEMA \"a b\""];
    each("pg_071_startup", 4, &setup, |server, database, proxy| {
        let bad = [
            ("options", "-c no_such_setting=1"),
            ("options", "-c work_mem=banana"),
            ("options", "--no-such-option"),
            ("options", "-Z"),
            // Encoded as in a URL that nobody has decoded.
            ("options", "-c+work_mem=1MB"),
            ("options", "-c%20work_mem%3D1MB"),
            ("no_such_setting", "1"),
            ("DateStyle", "banana"),
            ("client_encoding", "banana"),
            ("max_connections", "7"),
            ("session_preload_libraries", "x"),
        ];
        for (name, value) in bad {
            let login = login(database).with(name, value);
            let (direct, proxied) = (refused(server.address(), &login), refused(proxy.address, &login));
            assert_eq!(direct, proxied, "{name}={value}");
        }
        let good = [
            ("options", "-c work_mem=1MB -c\\ search_path=a", "work_mem"),
            ("options", "-cwork_mem=2MB", "work_mem"),
            ("options", "-c work_mem=1MB\\", "work_mem"),
            ("options", "\t-c  work_mem=2MB\n-c\\ work_mem=3MB\\ ", "work_mem"),
            ("options", "--app.tenant=a\\\\b+%20c --work_mem=3MB", "app.tenant"),
            ("options", "-c search_path=a,\\ \"b\\\\\" -c search_path=\"x\"", "search_path"),
            ("options", "--work-mem=3MB --search_path=\"a\\ b\"", "search_path"),
            ("options", "-c app.tenant=forty\\ two", "app.tenant"),
            ("search_path", "\"a b\", public", "search_path"),
            ("application_name", "it's \"me\"", "application_name"),
            ("TimeZone", "Europe/Vienna", "TimeZone"),
            ("client_encoding", "latin1", "client_encoding"),
            ("DateStyle", "German", "DateStyle"),
            ("extra_float_digits", "0", "extra_float_digits"),
            ("statement_timeout", "12345", "statement_timeout"),
            ("app.tenant", "42", "app.tenant"),
        ];
        for (name, value, shown) in good {
            let login = login(database).with(name, value);
            let show = |address| match Wire::connect(address, &login) {
                Ok(mut wire) => Ok((wire.value(&format!("SHOW {shown}")), wire.value("SHOW search_path"))),
                Err(failed) => Err(words(&failed.frames)),
            };
            assert_eq!(show(server.address()), show(proxy.address), "{name}={value}");
        }
        // And nothing of all that stays for the next.
        let show = |address| Wire::connect(address, &login(database)).unwrap().query("SHOW ALL");
        let (direct, mut proxied) = (show(server.address()), show(proxy.address));
        proxied.retain(|setting| !direct.contains(setting));
        assert!(proxied.is_empty(), "{proxied:?}");
    });
}

/// What stands in a URL, as libpq reads it: `%20` is a space, and `+` is no such thing.
#[test]
fn pg_071_options_in_a_url() {
    each("pg_071_url", 4, &[], |server, database, proxy| {
        let show = |address: SocketAddr, options: &str| {
            let mut script = python();
            script.arg("-c").arg(
                "import psycopg, sys\ntry:\n    with psycopg.connect(sys.argv[1]) as conn:\n\
                 \x20       for name in ('work_mem', 'search_path', 'app.tenant'):\n\
                 \x20           print(conn.execute('SELECT current_setting(%s, true)', [name]).fetchone()[0])\n\
                 except psycopg.OperationalError as error: print(str(error).split('FATAL:')[-1])",
            );
            let place = format!("{}:{}/{database}", address.ip(), address.port());
            script.arg(format!("postgresql://{APP}:{APP_PASSWORD}@{place}?sslmode=disable&options={options}"));
            run(script, "").quietly()
        };
        for (options, shown) in [
            ("-c%20work_mem%3D1MB%20--search-path%3D%22a%5C%20b%22", "1MB\n\"a b\"\n"),
            ("-cwork_mem%3D2MB%20-c%20app.tenant%3Da%2Bb%20--search_path%3D%22$user%22", "2MB\n\"$user\"\na+b"),
            ("-c+work_mem%3D1MB", "  unrecognized configuration parameter \"+work_mem\""),
        ] {
            let [direct, proxied] = [server.address(), proxy.address].map(|address| show(address, options));
            assert!(direct.starts_with(shown), "{options}: {direct}");
            assert_eq!(direct, proxied, "{options}");
        }
    });
}

#[test]
fn only_some_addresses_may_connect() {
    let server = server(Feature::Any);
    let proxy = start(&set(&config(server.address(), 4), "endpoint", "allow_from", "[\"10.0.0.0/8\"]"));
    let (severity, code, words) = refused(proxy.address, &login("app"));
    assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "28000"));
    assert!(words.contains("allow_from"), "{words}");
    let proxy = start(&set(&config(server.address(), 4), "endpoint", "allow_from", "[\"127.0.0.1\"]"));
    Wire::connect(proxy.address, &login("app")).unwrap();
}

#[test]
fn only_so_many_clients_at_a_time() {
    let config = |server: &PostgresServer| set(&config(server.address(), 4), "endpoint", "max_clients", "2");
    each_with("login_max_clients", &[], config, |_, database, proxy| {
        let first = Wire::connect(proxy.address, &login(database)).unwrap();
        let mut second = Wire::connect(proxy.address, &login(database)).unwrap();
        for _ in 0..3 {
            let (severity, code, words) = refused(proxy.address, &login(database));
            assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "53300"));
            assert!(words.starts_with("too many clients already") && words.contains("max_clients"), "{words}");
        }
        assert_eq!(second.value("SELECT 1"), "1");
        drop(first);
        // Its place is free a moment later.
        let deadline = Instant::now() + PATIENCE;
        while Wire::connect(proxy.address, &login(database)).is_err() {
            assert!(Instant::now() < deadline);
        }
    });
}

#[test]
fn a_unix_socket() {
    let folder = tempfile::Builder::new().prefix("sluicegate-").tempdir().unwrap();
    let path = folder.path().display();
    let server = server(Feature::Protocol3_2);
    let text = config(server.address(), 4);
    let listen = format!("[\"127.0.0.1:{{port}}\", \"unix:{path}/.s.PGSQL.{{port}}\"]");
    let mut proxy = start(&set(&text, "endpoint", "listen", &listen));
    let port = proxy.address.port();
    let socket = folder.path().join(format!(".s.PGSQL.{port}"));
    let mut script = python();
    script.arg("-c").arg(
        "import psycopg, sys\nwith psycopg.connect(sys.argv[1]) as conn:\n    print(conn.execute('SELECT 1').fetchone()[0])",
    );
    script.arg(format!("host={path} port={port} user={APP} password={APP_PASSWORD} dbname=app"));
    assert_eq!(run(script, "").quietly(), "1\n");
    assert_eq!(Wire::connect(proxy.address, &login("app")).unwrap().value("SELECT 1"), "1");
    // Cancel keys can't be tried out without an end here, either.
    let answer = |body: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        stream.write_all(&[&length, body].concat()).unwrap();
        let mut kind = Vec::new();
        stream.take(1).read_to_end(&mut kind).unwrap();
        kind
    };
    let is_refused = |_: &usize| {
        assert_eq!(answer(b"\x04\xd2\x16\x2e\0\0\0\x01nope"), b"");
        answer(b"\0\x03\0\0user\0app\0database\0app\0\0") == b"E"
    };
    (0..1000).find(is_refused).expect("keys can be tried out without an end");
    proxy.logs("too many failed logins");
    assert_eq!(Wire::connect(proxy.address, &login("app")).unwrap().value("SELECT 1"), "1");
    proxy.terminate();
    assert!(proxy.wait(PATIENCE).success());
    assert!(!socket.exists());
}
