//! Much data, slow readers, deep pipelines: memory stays bounded, nothing stalls, nobody else notices.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};
use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, Options, PostgresServer};

use crate::harness::forward::Forwarder;
use crate::harness::programs::run;
use crate::harness::proxy::{config, set, start};
use crate::harness::wire::{
    Login, PATIENCE, Wire, authenticate, bind, execute, function_call, kinds, parse, query, read_frame, sync,
};
use crate::harness::{each, server};

/// What a proxy may take at its peak, whatever passes through it.
const MEMORY_MAX_KIB: u64 = 100 << 10;
/// For what moves hundreds of megabytes through unoptimised programs.
const LONG: Duration = Duration::from_secs(120);

/// Rows of about 1000 bytes.
fn copy_out(rows: u32) -> Vec<u8> {
    query(&format!("COPY (SELECT n, repeat('x', 992) FROM generate_series(1, {rows}) n) TO STDOUT"))
}

/// The database is done once its last byte has been passed on, not once the client has read it.
#[test]
fn pg_102_a_slow_reader_of_a_small_result_holds_nobody_up() {
    // One connection for all of them.
    each("pg_102_slow_reader", 3, &[], |_, database, proxy| {
        let login = Login::app().database(database);
        let mut slow: Vec<_> = (0..5).map(|_| logged_in(proxy.address, &login)).collect();
        let mut other = Wire::connect(proxy.address, &login).unwrap();
        for round in 0..3 {
            for client in &mut slow {
                client.write_all(&query("SELECT repeat('x', 100000)")).unwrap();
            }
            assert_eq!(other.value(&format!("SELECT {round}")), round.to_string());
        }
        // And nothing of it was lost.
        for client in &mut slow {
            let mut left = 3;
            while left > 0 {
                let frame = read_frame(client).unwrap();
                assert!(frame.kind != b'D' || frame.body.len() == 2 + 4 + 100_000);
                left -= usize::from(frame.kind == b'Z');
            }
        }
    });
}

#[test]
fn pg_090_copy_of_300_mb_to_a_slow_reader() {
    const ROWS: u32 = 300_000;
    each("pg_090_copy_to_a_slow_reader", 4, &[], |_, database, proxy| {
        let login = Login::app().database(database);
        let mut slow = logged_in(proxy.address, &login);
        slow.write_all(&copy_out(ROWS)).unwrap();
        // Nobody reads: the result stands still, and the others go on.
        let mut other = Wire::connect(proxy.address, &login).unwrap();
        for n in 0..50 {
            assert_eq!(other.value(&format!("SELECT {n} FROM pg_sleep(0.01)")), n.to_string());
        }
        let (mut total, mut buffer) = (0_u64, vec![0; 1 << 16]);
        let mut last = [0; 6];
        let began = Instant::now();
        while last != *b"Z\0\0\0\x05I" {
            let length = slow.read(&mut buffer).unwrap();
            assert!(length > 0 && began.elapsed() < LONG, "after {total} bytes, {:?}", began.elapsed());
            total += u64::try_from(length).unwrap();
            let joined = [&last[..], &buffer[..length]].concat();
            last.copy_from_slice(&joined[joined.len() - 6..]);
        }
        assert!(total > u64::from(ROWS) * 1_000, "{total}");
        let peak = proxy.memory_peak_kib();
        assert!(peak < MEMORY_MAX_KIB, "the proxy took {peak} KiB");
        assert_eq!(other.value("SELECT 1"), "1");
    });
}

/// Made, counted and dropped on the way: neither end stores it. `SLUICEGATE_RESULT_GB` asks for another size.
#[test]
fn a_result_of_ten_gigabytes_in_constant_memory() {
    let gigabytes: u64 = std::env::var("SLUICEGATE_RESULT_GB").ok().map_or(10, |size| size.parse().unwrap());
    let rows = gigabytes * 1_000;
    let server = server(Feature::Protocol3_2);
    let proxy = start(&config(server.address(), 4));
    let mut stream = logged_in(proxy.address, &Login::app().database("app"));
    let sql = format!("SELECT m FROM repeat('x', 1000000) m, generate_series(1, {rows})");
    let mut peaks = Vec::new();
    // A small one first: more of it must not take more.
    for rows in [100, rows] {
        let sql = sql.replace(&format!(", {})", gigabytes * 1_000), &format!(", {rows})"));
        stream.write_all(&query(&sql)).unwrap();
        let (mut total, mut buffer) = (0_u64, vec![0; 1 << 20]);
        let mut last = [0; 6];
        while last != *b"Z\0\0\0\x05I" {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "after {total} bytes");
            total += u64::try_from(length).unwrap();
            let joined =
                [&last[..], &buffer[..length.min(6)], &buffer[length.saturating_sub(6).max(length.min(6))..length]];
            let joined = joined.concat();
            last.copy_from_slice(&joined[joined.len() - 6..]);
        }
        assert!(total > rows * 1_000_000 && total < rows * 1_000_100 + 1_000, "{total}");
        peaks.push(proxy.memory_peak_kib());
    }
    assert!(peaks[1] < MEMORY_MAX_KIB && peaks[1] < peaks[0] + (4 << 10), "{peaks:?} KiB");
    println!("{gigabytes} GB: {peaks:?} KiB at the peak");
}

#[test]
fn pg_090_a_slow_reader_that_leaves() {
    each("pg_090_reader_leaves", 3, &[], |_, database, proxy| {
        let login = Login::app().database(database);
        for _ in 0..3 {
            let mut slow = logged_in(proxy.address, &login);
            slow.write_all(&copy_out(100_000)).unwrap();
            slow.read_exact(&mut [0; 10_000]).unwrap();
            drop(slow);
            // The only database connection is free again, or a new one is made, in a moment.
            assert_eq!(Wire::connect(proxy.address, &login).unwrap().value("SELECT 1"), "1");
        }
    });
}

/// A connection of which nobody reads unless the test does.
fn logged_in(address: std::net::SocketAddr, login: &Login) -> TcpStream {
    let stream = Wire::log_in(address, login);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

#[test]
fn pg_093_100_000_queries_in_a_pipeline() {
    const QUERIES: usize = 100_000;
    each("pg_093_pipeline", 4, &[], |_, database, proxy| {
        let stream = logged_in(proxy.address, &Login::app().database(database));
        let mut writer = stream.try_clone().unwrap();
        let batch = query("SELECT repeat('y', 200)").repeat(1_000);
        let writing = thread::spawn(move || {
            for _ in 0..QUERIES / 1_000 {
                writer.write_all(&batch).unwrap();
            }
        });
        assert_eq!(count_ready(&stream, QUERIES), QUERIES);
        writing.join().unwrap();
        let peak = proxy.memory_peak_kib();
        assert!(peak < MEMORY_MAX_KIB, "the proxy took {peak} KiB");
    });
}

#[test]
fn pg_093_20_000_queries_before_the_first_read() {
    const QUERIES: usize = 20_000;
    each("pg_093_writes_first", 4, &[], |_, database, proxy| {
        for message in [query("SELECT 1"), [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()].concat()]
        {
            let mut stream = logged_in(proxy.address, &Login::app().database(database));
            // Small enough that what is answered fits into the sockets' buffers and the proxy's: as with a direct
            // connection, a client that never reads is blocked in the end.
            stream.write_all(&message.repeat(QUERIES)).unwrap();
            assert_eq!(count_ready(&stream, QUERIES), QUERIES);
        }
        let peak = proxy.memory_peak_kib();
        assert!(peak < MEMORY_MAX_KIB, "the proxy took {peak} KiB");
    });
}

/// Reads messages until so many were ReadyForQuery; fails at an error.
fn count_ready(stream: &TcpStream, wanted: usize) -> usize {
    let mut source = std::io::BufReader::with_capacity(1 << 18, stream.try_clone().unwrap());
    let mut ready = 0;
    while ready < wanted {
        let frame = crate::harness::wire::read_frame(&mut source).unwrap();
        assert_ne!(frame.kind, b'E', "{frame}");
        ready += usize::from(frame.kind == b'Z');
    }
    ready
}

#[test]
fn pg_093_large_results_of_many_clients_at_once() {
    each("pg_093_many_clients", 5, &[], |_, database, proxy| {
        let login = Arc::new(Login::app().database(database));
        let address = proxy.address;
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let login = login.clone();
                thread::spawn(move || {
                    let mut wire = Wire::connect(address, &login).unwrap();
                    for _ in 0..5 {
                        let frames = wire.ask(&query("SELECT repeat('z', 1000) FROM generate_series(1, 2000)"), 1);
                        assert_eq!(frames.len(), 2_003, "{}", kinds(&frames[..5]));
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let peak = proxy.memory_peak_kib();
        assert!(peak < MEMORY_MAX_KIB, "the proxy took {peak} KiB");
    });
}

#[test]
fn pg_095_096_tls_with_large_results_and_small_records() {
    /// What a record's content may have, and what TLS 1.3 (17) or 1.2 (24 and more) adds.
    const RECORD_BYTES_MAX: usize = (8 << 10) + 64;
    let installation = Installation::find(Feature::Any).unwrap();
    let server = PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap();
    let file = |name: &str| format!("{:?}", server.socket_dir().join(name));
    let text = set(&config(server.address(), 4), "endpoint", "tls", "\"required\"");
    let text = set(&text, "target_group", "tls", "\"require\"");
    let text = set(&text, "tls", "certificate", &file("server.crt"));
    let proxy = start(&set(&text, "tls", "private_key", &file("server.key")));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let forwarder = Forwarder::recording(proxy.address);
        let mut psql = installation.program("psql");
        psql.args(["--no-psqlrc", "-At", "--dbname"]).arg(format!(
            "host=127.0.0.1 port={} user={APP} password={APP_PASSWORD} dbname=app sslmode=require \
             ssl_min_protocol_version={version} ssl_max_protocol_version={version}",
            forwarder.address.port()
        ));
        let said = run(
            psql,
            "SELECT length(repeat('x', 3000000));\nSELECT repeat('y', 2000000);\n\
             CREATE TEMP TABLE c (a text);\n\\copy c FROM PROGRAM 'yes | head -c 4000000'\nSELECT count(*) FROM c;\n\
             \\copy c TO PROGRAM 'wc -c' \nSELECT 'the end';\n",
        )
        .quietly();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!((lines[0], lines[1].len()), ("3000000", 2_000_000));
        let rest = lines[4..].join(" ").replace("COPY 2000000", "");
        assert_eq!(rest.split_whitespace().collect::<Vec<_>>(), ["2000000", "4000000", "the", "end"], "{version}");
        let sent = forwarder.recorded().concat();
        let records = records(&sent);
        let longest = records.iter().max().unwrap();
        assert!(*longest <= RECORD_BYTES_MAX, "{version}: a record of {longest} bytes");
        assert!(records.len() > 6_000_000 / RECORD_BYTES_MAX, "{} records", records.len());
    }
    let peak = proxy.memory_peak_kib();
    assert!(peak < MEMORY_MAX_KIB, "the proxy took {peak} KiB");
}

/// A client that changes its keys, and wants the proxy to change its own, while the proxy can't write.
#[test]
fn pg_097_new_keys_while_the_proxy_is_blocked_writing() {
    const ROWS: u32 = 60_000;
    let installation = Installation::find(Feature::Any).unwrap();
    let server = PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap();
    let file = |name: &str| server.socket_dir().join(name);
    let text = set(&config(server.address(), 4), "endpoint", "tls", "\"required\"");
    let text = set(&text, "tls", "certificate", &format!("{:?}", file("server.crt")));
    let proxy = start(&set(&text, "tls", "private_key", &format!("{:?}", file("server.key"))));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.crt")).unwrap()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut socket = TcpStream::connect(proxy.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    socket.read_exact(&mut [0]).unwrap();
    let session = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    authenticate(&mut stream, &Login::app().database("app"), &mut Vec::new()).unwrap();
    assert_eq!(stream.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    stream.write_all(&copy_out(ROWS)).unwrap();
    stream.flush().unwrap();
    // More than sockets hold: by the time its first bytes are here, and nobody reads on, the proxy is stuck.
    stream.read_exact(&mut [0; 100]).unwrap();
    for number in 0..3 {
        stream.conn.refresh_traffic_keys().unwrap();
        stream.write_all(&query(&format!("SELECT 'after keys {number}'"))).unwrap();
        stream.flush().unwrap();
    }
    let (mut text, mut buffer, mut ends) = (Vec::new(), vec![0; 1 << 16], 0);
    while ends < 4 {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0);
        text.extend_from_slice(&buffer[..length]);
        ends = text.windows(6).filter(|bytes| *bytes == b"Z\0\0\0\x05I").count();
        if ends == 0 {
            // The answers are at the end, and short.
            text.drain(..text.len().saturating_sub(1 << 17));
        }
    }
    for number in 0..3 {
        let answer = format!("after keys {number}");
        assert!(text.windows(answer.len()).any(|bytes| bytes == answer.as_bytes()), "{answer}");
    }
}

/// The lengths of the TLS records, behind the byte that says that TLS begins.
fn records(sent: &[u8]) -> Vec<usize> {
    assert_eq!(sent[0], b'S');
    let (mut rest, mut lengths) = (&sent[1..], Vec::new());
    while let [kind, 3, _, high, low, ..] = rest {
        assert!((20..=23).contains(kind), "{kind}");
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length);
        rest = &rest[5 + length..];
    }
    assert!(rest.is_empty());
    lengths
}

#[test]
fn half_closed_clients_get_their_replies() {
    // As `nc` does: everything is written, then the writing side is shut down.
    let proxy = start(&config(server(Feature::Any).address(), 4));
    let mut stream = logged_in(proxy.address, &Login::app().database("app"));
    stream.write_all(&query("SELECT 1").repeat(10)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.windows(6).filter(|bytes| *bytes == b"Z\0\0\0\x05I").count(), 10);
}

/// What was asked for in full is answered; the database is told that no more comes, so that it need not wait for it.
#[test]
fn half_closed_in_the_middle_of_a_frame() {
    // More than a socket takes at once, so that the client's end is known while some of it still waits.
    let call = function_call(1257, &[&"x".repeat(16 << 20)]);
    let before = query("SELECT 1").repeat(10);
    each("flow_half_closed_midway", 3, &[], |_, database, proxy| {
        for half in [&call[..20], &call[..100_000], &call[..call.len() - 1]] {
            let mut stream = logged_in(proxy.address, &Login::app().database(database));
            stream.write_all(&[&before, half].concat()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let answered = answer.windows(6).filter(|bytes| *bytes == b"Z\0\0\0\x05I").count();
            assert_eq!(answered, 10, "{} bytes of a frame", half.len());
        }
    });
}
