//! Cancels: who is hit, who never is, and what becomes of those who ask.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use sluicegate::demo::servers::{APP, PostgresServer};

use crate::harness::gate::{Gate, ask_to_cancel, cancel};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{
    Frame, Login, PROTOCOL_3_0, PROTOCOL_3_2, Wire, batch, bind, copy_data, describe_portal, execute, flush, kinds,
    parse, query, sync,
};
use crate::harness::{database, each, servers, until_running};

/// One for clients, two of the proxy's own: the first client that holds it makes all others wait.
const ONE: u32 = 3;
/// To be made in a database.
const NOTHING: [&str; 0] = [];
const FOREVER: &str = "SELECT pg_sleep(600)";

fn login(database: &str) -> Login {
    Login::app().database(database)
}

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &login(database)).unwrap()
}

/// What its BackendKeyData holds.
fn key(client: &Wire) -> Vec<u8> {
    client.login().iter().find(|frame| frame.kind == b'K').unwrap().body.to_vec()
}

fn error(frames: &[Frame]) -> (String, String, String) {
    let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == b'E').collect();
    assert_eq!(errors.len(), 1, "{frames:#?}");
    let field = |name| errors[0].field(name).unwrap_or_default();
    (field(b'V'), field(b'C'), field(b'M'))
}

fn is_cancelled(frames: &[Frame]) {
    let (severity, code, message) = error(frames);
    assert_eq!((severity.as_str(), code.as_str()), ("ERROR", "57014"));
    assert_eq!(message, "canceling statement due to user request");
}

fn until_waiting(proxy: &ProxyHandle, number: u64) {
    proxy.until_metric("sluicegate_clients_waiting", number);
}

#[test]
fn a_query_of_every_kind_is_cancelled() {
    each("a_query_of_every_kind_is_cancelled", 4, &["CREATE TABLE t (i int)"], |server, database, proxy| {
        for version in [PROTOCOL_3_0, PROTOCOL_3_2] {
            let mut one = Wire::connect(proxy.address, &Login { version, ..login(database) }).unwrap();
            assert_eq!(key(&one).len(), if version == PROTOCOL_3_0 { 8 } else { 36 });
            let key = key(&one);
            let extended = batch([parse("", FOREVER), bind("", "", &[]), describe_portal(""), execute("", 0), sync()]);
            for (bytes, shape) in [(query(FOREVER), "EZ"), (extended, "12TEZ")] {
                one.send(&bytes);
                until_running(server, database, "%pg_sleep%", 1);
                cancel(proxy.address, &key);
                let frames = one.until_ready(1);
                is_cancelled(&frames);
                assert_eq!(kinds(&frames).trim_start_matches('T'), shape);
                assert_eq!(one.value("SELECT 1"), "1");
            }
            // Inside a transaction, which fails.
            one.query("BEGIN");
            one.send(&query(FOREVER));
            until_running(server, database, "%pg_sleep%", 1);
            cancel(proxy.address, &key);
            let frames = one.until_ready(1);
            is_cancelled(&frames);
            assert_eq!(frames.last().unwrap().body[..], *b"E");
            one.query("ROLLBACK");
            // The statement behind a Flush.
            one.send(&batch([parse("", FOREVER), bind("", "", &[]), execute("", 0), flush()]));
            until_running(server, database, "%pg_sleep%", 1);
            cancel(proxy.address, &key);
            one.send(&sync());
            is_cancelled(&one.until_ready(1));
            // COPY data are being awaited: the database looks at it with the next of them, as on a direct connection.
            one.send(&query("COPY t FROM STDIN"));
            assert_eq!(one.receive().unwrap().kind, b'G');
            cancel(proxy.address, &key);
            one.send(&copy_data("1\n"));
            is_cancelled(&one.until_ready(1));
            assert_eq!(one.value("SELECT count(*) FROM t"), "0");
        }
    });
}

#[test]
fn pg_101_cancels_go_over_tls_where_the_database_is_spoken_to_so() {
    use sluicegate::demo::servers::{Feature, Installation, Options};
    let installation = Installation::find(Feature::Any).unwrap();
    let server = PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap();
    let gate = Gate::before(server.address());
    let proxy = start(&set(&config(gate.address, ONE), "target_group", "tls", "\"require\""));
    let mut one = client(&proxy, "app");
    one.send(&query(FOREVER));
    until_running(&server, "app", "%pg_sleep%", 1);
    cancel(proxy.address, &key(&one));
    is_cancelled(&one.until_ready(1));
    // None that the gate could read.
    assert_eq!(gate.cancels().0, 0);
}

#[test]
fn pg_113_a_late_cancel_hits_nobody_else() {
    for server in servers() {
        let database = database(server, &format!("pg_113_{}", server.installation().version()), &NOTHING);
        let gate = Gate::before(server.address());
        let proxy = start(&config(gate.address, ONE));
        let [mut one, mut other] = [(); 2].map(|()| client(&proxy, &database));
        let mut superuser = Wire::connect(server.address(), &Login::superuser().database(&database)).unwrap();
        for cut in [false, true] {
            superuser.query("SELECT pg_advisory_lock(113)");
            one.send(&query("SELECT pg_advisory_xact_lock(113)"));
            until_running(server, &database, "%pg_advisory_xact_lock%", 1);
            gate.hold_cancels(true);
            let before = gate.cancels().0;
            let mut asker = ask_to_cancel(proxy.address, &key(&one));
            gate.until_cancels(before + 1);
            // The query ends by itself, and somebody else stands in line.
            superuser.query("SELECT pg_advisory_unlock(113)");
            assert_eq!(kinds(&one.until_ready(1)), "TDCZ");
            other.send(&query("SELECT 'untouched'"));
            until_waiting(&proxy, 1);
            // Nor does it hit what its own client sends next, not even if that has gone.
            if cut {
                drop(one);
                one = client(&proxy, &database);
            }
            one.send(&query("SELECT 'untouched'"));
            until_waiting(&proxy, 1 + u64::from(cut));
            gate.hold_cancels(false);
            for client in [&mut one, &mut other] {
                assert_eq!(kinds(&client.until_ready(1)), "TDCZ");
            }
            assert_eq!(asker.read(&mut [0]).unwrap(), 0);
        }
    }
}

/// Waits until a replay is the last that the database has heard on a client's connection.
fn until_replayed(server: &PostgresServer, database: &str) {
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND usename = '{APP}' AND query LIKE '%set_config%'"
    );
    superuser.until(&sql, "1");
}

#[test]
fn pg_114_a_cancel_does_not_hit_a_replay() {
    for server in servers() {
        let database = database(server, &format!("pg_114_{}", server.installation().version()), &NOTHING);
        let gate = Gate::before(server.address());
        let proxy = start(&set(&config(gate.address, ONE), "log", "level", "\"debug\""));
        let mut other = client(&proxy, &database);
        let mut one = Wire::connect(proxy.address, &login(&database).with("work_mem", "7MB")).unwrap();
        assert_eq!(other.value("SHOW work_mem"), "4MB");
        gate.hold_replies(true);
        one.send(&query("SELECT current_setting('work_mem'), pg_sleep(600)"));
        until_replayed(server, &database);
        let mut asker = ask_to_cancel(proxy.address, &key(&one));
        proxy.logs("asked to cancel");
        gate.hold_replies(false);
        is_cancelled(&one.until_ready(1));
        assert_eq!(asker.read(&mut [0]).unwrap(), 0);
        // Neither the replay nor what stands behind it was disturbed: the query was not even sent.
        assert_eq!(gate.cancels().0, 0);
        assert_eq!(one.value("SHOW work_mem"), "7MB");
        assert_eq!(other.value("SHOW work_mem"), "4MB");
    }
}

/// What was to be cancelled can't be sent anyway: it is cancelled all the same, and what comes next is not.
#[test]
fn pg_114_a_cancel_during_a_replay_that_fails() {
    let configuration = "CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple)";
    for server in servers() {
        let name = format!("pg_114_fails_{}", server.installation().version());
        let database = database(server, &name, &[configuration]);
        let mut owner = Wire::connect(server.address(), &login(&database)).unwrap();
        let gate = Gate::before(server.address());
        let proxy = start(&set(&config(gate.address, ONE), "log", "level", "\"debug\""));
        let mut other = client(&proxy, &database);
        let setting = ("default_text_search_config", "public.mine");
        let mut one = Wire::connect(proxy.address, &login(&database).with(setting.0, setting.1)).unwrap();
        assert_eq!(other.value("SELECT 1"), "1");
        owner.query("DROP TEXT SEARCH CONFIGURATION mine");
        gate.hold_replies(true);
        one.send(&query("SELECT 1"));
        until_replayed(server, &database);
        let mut asker = ask_to_cancel(proxy.address, &key(&one));
        proxy.logs("asked to cancel");
        gate.hold_replies(false);
        is_cancelled(&one.until_ready(1));
        assert_eq!(asker.read(&mut [0]).unwrap(), 0);
        owner.query(configuration);
        assert_eq!(one.value("SELECT 'not cancelled' FROM pg_sleep(0.2)"), "not cancelled");
        assert_eq!(gate.cancels().0, 0);
    }
}

#[test]
fn pg_115_a_cancel_while_queued() {
    each("pg_115_a_cancel_while_queued", ONE, &[], |_, database, proxy| {
        let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
        let extended = batch([parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()]);
        for bytes in [query("SELECT 1"), extended] {
            other.query("BEGIN");
            one.send(&bytes);
            until_waiting(proxy, 1);
            cancel(proxy.address, &key(&one));
            is_cancelled(&one.until_ready(1));
            until_waiting(proxy, 0);
            other.query("COMMIT");
            assert_eq!(one.value("SELECT 'goes on'"), "goes on");
        }
    });
}

#[test]
fn pg_116_cancels_that_come_to_nothing() {
    each("pg_116_cancels_that_come_to_nothing", 4, &[], |_, database, proxy| {
        let mut one = client(proxy, database);
        let key = key(&one);
        // Idle; idle in a transaction.
        cancel(proxy.address, &key);
        one.query("BEGIN");
        cancel(proxy.address, &key);
        assert_eq!(one.value("SELECT 1"), "1");
        one.query("COMMIT");
        // Unknown keys are not answered, and after a hundred of them the address must wait for each.
        let mut wrong = key.clone();
        wrong[7] ^= 1;
        let is_refused = |_: &usize| {
            cancel(proxy.address, &wrong);
            Wire::connect(proxy.address, &login(database)).is_err()
        };
        (0..1000).find(is_refused).expect("keys can be tried out without an end");
        assert_eq!(one.value("SELECT 1"), "1");
        // A client that left takes its key with it.
        drop(one);
        proxy.until_metric("sluicegate_client_connections", 0);
        cancel(proxy.address, &key);
    });
}

#[test]
fn pg_118_a_thousand_cancels_at_once() {
    let server = servers().next().unwrap();
    let database = database(server, "pg_118", &NOTHING);
    let gate = Gate::before(server.address());
    let proxy = start(&config(gate.address, 22));
    let mut victims: Vec<Wire> = (0..20).map(|_| client(&proxy, &database)).collect();
    for victim in &mut victims {
        victim.send(&query(FOREVER));
    }
    until_running(server, &database, "%pg_sleep%", 20);
    let mut askers: Vec<_> =
        (0..1000).map(|number| ask_to_cancel(proxy.address, &key(&victims[number % 20]))).collect();
    for victim in &mut victims {
        is_cancelled(&victim.until_ready(1));
    }
    for asker in &mut askers {
        assert_eq!(asker.read(&mut [0]).unwrap(), 0);
    }
    let (sent, at_once) = gate.cancels();
    assert!(sent >= 20 && at_once <= 8, "{sent} cancels, {at_once} at once");
    for victim in &mut victims {
        assert_eq!(victim.value("SELECT 1"), "1");
    }
}

#[test]
fn pg_119_a_client_that_leaves_in_the_middle_of_a_query() {
    each("pg_119_a_client_that_leaves", ONE, &["CREATE TABLE t (i int)"], |server, database, proxy| {
        let slow = "INSERT INTO t SELECT 1 FROM pg_sleep(600)";
        for how in ["reset", "closed", "half"] {
            let mut stream = Wire::log_in(proxy.address, &login(database));
            stream.write_all(&query(slow)).unwrap();
            until_running(server, database, "%pg_sleep%", 1);
            match how {
                "reset" => {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    drop(stream);
                }
                "closed" => drop(stream),
                _ => {
                    stream.shutdown(Shutdown::Write).unwrap();
                    // Who only half closed is told.
                    let mut said = Vec::new();
                    stream.read_to_end(&mut said).unwrap();
                    assert!(String::from_utf8_lossy(&said).contains("57014"), "{}", said.escape_ascii());
                }
            }
            until_running(server, database, "%pg_sleep%", 0);
            // The place is free again.
            assert_eq!(client(proxy, database).value("SELECT count(*) FROM t"), "0");
        }
        // What is short has the same end as on a direct connection.
        let mut stream = Wire::log_in(proxy.address, &login(database));
        stream.write_all(&query("INSERT INTO t SELECT 1 FROM pg_sleep(0.3)")).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(client(proxy, database).value("SELECT count(*) FROM t"), "1");
    });
}

/// Cancels race with hand-overs on two connections. A client that asks for none never reads 57014; one that does reads it
/// for nothing that it sends after a cancel has returned.
///
/// `SLUICEGATE_CANCELS`: how many; the suite's number is small, because each costs the database a process.
#[test]
fn cancels_never_hit_a_stranger() {
    let wanted = std::env::var("SLUICEGATE_CANCELS").map_or(3_000, |number| number.parse().unwrap());
    let seed: u64 = std::env::var("SLUICEGATE_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEGATE_SEED={seed}");
    let server = servers().last().unwrap();
    let database = database(server, "cancels_never_hit_a_stranger", &NOTHING);
    let proxy = start(&config(server.address(), 4));
    let (done, asked, hit) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let work = ["SELECT 1", "SELECT pg_sleep(0.002)", "SELECT count(*) FROM generate_series(1, 3000)"];
    thread::scope(|scope| {
        for number in 0..6 {
            // Bystanders.
            let (mut one, done) = (client(&proxy, &database), &done);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ number);
                while !done.load(Ordering::Relaxed) {
                    one.query(work[random.random_range(0..work.len())]);
                }
            });
        }
        for number in 0..4 {
            let (mut one, done, asked, hit) = (client(&proxy, &database), &done, &asked, &hit);
            let proxy = proxy.address;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ (100 + number));
                let key = key(&one);
                while asked.fetch_add(1, Ordering::Relaxed) < wanted {
                    one.send(&query(work[random.random_range(0..work.len())]));
                    let pause = random.random_range(0..4) * random.random_range(0..400);
                    // Not a wait for anything: it spreads where in a query's life the cancel comes.
                    thread::sleep(Duration::from_micros(pause));
                    cancel(proxy, &key);
                    let frames = one.until_ready(1);
                    if frames.iter().any(|frame| frame.kind == b'E') {
                        is_cancelled(&frames);
                        hit.fetch_add(1, Ordering::Relaxed);
                    }
                    one.query("SELECT 'nothing is on its way any more'");
                }
                done.store(true, Ordering::Relaxed);
            });
        }
    });
    let hit = hit.load(Ordering::Relaxed);
    println!("{hit} of {wanted} cancels hit something");
    assert!(hit > 0);
}
