//! Servers of MySQL and MariaDB that are killed (SIGKILL) and come back under their clients, and proxies that are killed in front of
//! them. Clients go on; nothing is done twice, what was said to be done is there, what was said not to be is not; and a proxy leaves
//! nothing at the servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use sluicegate::demo::my_servers::Flavour;
use sluicegate::demo::servers::APP;

use crate::harness::levels::Levels;
use crate::harness::mysql::beside::{app, each, my_config};
use crate::harness::mysql::wire::{COM_STMT_EXECUTE, COM_STMT_PREPARE, MyWire, Packet, framed};
use crate::harness::mysql::{MyServer, Options, database};
use crate::harness::proxy::{ProxyHandle, set, start};
use crate::harness::wire::PATIENCE;
use crate::my_kills::{CONNECTIONS, OWN_CONNECTIONS, SETUP, nothing_is_left, query};

/// Deaths of each server under those who work.
const DEATHS: usize = 3;
/// They work meanwhile: more than there are connections.
const WORKERS: u32 = CONNECTIONS + 2;
/// Bytes of a command of which the server has some before all are there.
const LARGE: usize = 2 << 20;
/// Answers of the database that each death waits for, so that there is work under way.
const WORK: u32 = 100;

/// A server of the test's own. What it has committed outlives its process.
fn mortal(flavour: Flavour) -> MyServer {
    let arguments = ["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"].map(str::to_owned).into();
    MyServer::start(flavour, Options { arguments, ..Options::default() })
}

fn proxy(server: &MyServer) -> ProxyHandle {
    let text = my_config(server, CONNECTIONS + OWN_CONNECTIONS);
    start(&set(&text, "target_group.pool", "connection_borrow_timeout", "\"60s\""))
}

/// Waits until the server says that there are rows.
fn until(server: &MyServer, what: &str, sql: &str) {
    let (mut root, began) = (server.root(), Instant::now());
    while root.query(sql).is_empty() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        thread::yield_now();
    }
}

fn until_running(server: &MyServer, part: &str) {
    let found = format!("SELECT 1 FROM information_schema.processlist WHERE info LIKE '{part}%' AND user = '{APP}'");
    until(server, part, &found);
}

/// One client in each state: what it is told when the server has died, and how it goes on when there is one again.
#[test]
fn a_server_that_dies_under_each_state() {
    for flavour in Flavour::ALL {
        let mut server = mortal(flavour);
        let name = database(&server, "my_deaths", &SETUP);
        let proxy = proxy(&server);
        let client = || MyWire::connect(proxy.address, &app().database(&name)).unwrap();
        for round in 0..2 {
            println!("--- {flavour}, {round}");
            // (As many as hold a connection there may be.)
            let [mut idle, mut open, mut running, mut pinned, mut half] = [(); 5].map(|()| client());
            let statement = half.command(&[&[COM_STMT_PREPARE][..], b"INSERT INTO lost SELECT LENGTH(?)"].concat());
            let statement = statement[0].payload[1..5].to_vec();
            idle.query("SELECT 1");
            open.query("BEGIN");
            open.query("INSERT INTO lost VALUES ('in a transaction')");
            running.send(&query("SELECT 'running', SLEEP(600)"));
            until_running(&server, "SELECT \\'running");
            pinned.query("CREATE TEMPORARY TABLE mine (i int)");
            half.query("BEGIN");
            // No flags, once, no NULLs, and one value of the type BLOB.
            let head = [&[COM_STMT_EXECUTE][..], &statement, &[0, 1, 0, 0, 0, 0, 1, 0xFC, 0]].concat();
            let length = &u32::try_from(LARGE).unwrap().to_le_bytes()[..3];
            let whole = framed(&mut 0, &[&head[..], &[0xFD], length, &vec![b'x'; LARGE]].concat());
            half.send_raw(&whole[..whole.len() - 100]);
            Levels::wait_until(proxy.admin, "all of them", |levels| levels.in_use == 4);
            server.stop(Signal::KILL);
            // Who has nothing there hears of nothing, and waits.
            idle.send(&query("SELECT 'goes on'"));
            assert_eq!(running.receive_from(1).error().unwrap().code, 1158);
            assert_eq!(pinned.receive_from(1).error().unwrap().code, 1053);
            pinned.until_closed();
            half.send_raw(&whole[whole.len() - 100..]);
            assert_eq!(half.receive_from(1).error().unwrap().code, 1213);
            half.query("ROLLBACK");
            let told = open.error("INSERT INTO lost VALUES ('outside')");
            assert_eq!((told.code, told.state.as_str()), (1213, "40001"), "{told}");
            Levels::wait_until(proxy.admin, "none is held", |levels| levels.in_use == 0);
            server.resume();
            idle.begin_reply();
            let mut packets = Vec::new();
            assert!(!idle.result(&mut packets));
            assert!(packets.iter().all(|packet| packet.error().is_none()), "{packets:?}");
            assert_eq!(open.error("INSERT INTO lost VALUES ('still outside')").code, 1213);
            open.query("ROLLBACK");
            for mut client in [idle, open, running, half] {
                assert_eq!(client.value("SELECT COUNT(*) FROM lost"), "0");
            }
        }
        nothing_is_left(&server, &proxy, &name);
    }
}

/// What clients were told of their rows.
#[derive(Default)]
struct Told {
    /// It is there.
    done: Vec<u32>,
    /// It is not there.
    undone: Vec<u32>,
    /// Nobody knows.
    unknown: Vec<u32>,
}

impl Told {
    /// All of these rows went, or did not, with a statement that was answered so.
    fn note(&mut self, rows: &[u32], answer: Result<(), u16>) {
        let list = match answer {
            Ok(()) => &mut self.done,
            Err(1158) => &mut self.unknown,
            Err(1213 | 9501) => &mut self.undone,
            Err(code) => panic!("{code}"),
        };
        list.extend(rows);
    }
}

/// What a statement is answered.
fn ask(client: &mut MyWire, sql: &str) -> Result<(), u16> {
    client.reply(sql).last().and_then(Packet::error).map_or(Ok(()), |error| Err(error.code))
}

/// Inserts rows of its own, by themselves and in transactions, on one session all the time.
fn work(address: SocketAddr, name: &str, (next, done, over): (&AtomicU32, &AtomicU32, &AtomicBool)) -> Told {
    let mut client = MyWire::connect(address, &app().database(name)).unwrap();
    let mut told = Told::default();
    while !over.load(Ordering::Relaxed) {
        let [one, two, three] = [(); 3].map(|()| next.fetch_add(1, Ordering::Relaxed));
        let insert = |row| format!("INSERT INTO work VALUES ({row})");
        let answer = ask(&mut client, &insert(one));
        told.note(&[one], answer);
        // From the first error on all of a transaction is lost, but for a COMMIT that nobody knows of.
        let mut answer = Ok(());
        for sql in ["BEGIN", &insert(two), &insert(three), "COMMIT"] {
            answer = ask(&mut client, sql);
            if answer.is_err() {
                break;
            }
        }
        told.note(&[two, three], answer);
        if answer.is_err() {
            assert_eq!(ask(&mut client, "ROLLBACK"), Ok(()));
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    told
}

/// Nothing is done twice, and all is as the clients were told.
#[test]
fn servers_that_die_under_those_who_work() {
    for flavour in Flavour::ALL {
        let mut server = mortal(flavour);
        let name = database(&server, "my_deaths", &[&SETUP[..], &["CREATE TABLE work (row_id int)"]].concat());
        let proxy = proxy(&server);
        let (next, done, over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        let told: Vec<Told> = thread::scope(|scope| {
            let (name, address, all) = (name.as_str(), proxy.address, (&next, &done, &over));
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(move || work(address, name, all))).collect();
            for _ in 0..DEATHS {
                let enough = done.load(Ordering::Relaxed) + WORK;
                while done.load(Ordering::Relaxed) < enough && !workers.iter().any(|worker| worker.is_finished()) {
                    thread::yield_now();
                }
                server.stop(Signal::KILL);
                server.resume();
            }
            over.store(true, Ordering::Relaxed);
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let rows = server.root().query(&format!("SELECT row_id, COUNT(*) FROM {name}.work GROUP BY row_id"));
        let found: BTreeMap<u32, String> =
            rows.into_iter().map(|row| (row[0].as_ref().unwrap().parse().unwrap(), row[1].clone().unwrap())).collect();
        assert!(found.values().all(|count| count == "1"), "done twice: {found:?}");
        for Told { done, undone, unknown } in &told {
            println!("{flavour}: {} done, {} not, {} unknown", done.len(), undone.len(), unknown.len());
            assert!(done.iter().all(|row| found.contains_key(row)), "done, and not there");
            assert!(undone.iter().all(|row| !found.contains_key(row)), "not done, and there");
        }
        let (undone, unknown): (usize, usize) =
            told.iter().fold((0, 0), |sum, told| (sum.0 + told.undone.len(), sum.1 + told.unknown.len()));
        assert!(undone + unknown > 0, "nothing was under way");
        nothing_is_left(&server, &proxy, &name);
    }
}

/// A proxy that is killed leaves nothing at the servers: no transaction, no lock, no connection. Another one works.
#[test]
fn a_proxy_that_dies() {
    each("my_deaths_proxy", CONNECTIONS, &SETUP, |server, name, _| {
        let text = my_config(server, 10);
        for _ in 0..3 {
            let mut proxy = start(&text);
            let client = || MyWire::connect(proxy.address, &app().database(name)).unwrap();
            let [mut idle, mut open, mut locked, mut tables, mut running, mut half] = [(); 6].map(|()| client());
            idle.query("SELECT 1");
            idle.command(&[&[COM_STMT_PREPARE][..], b"SELECT * FROM lost"].concat());
            open.query("BEGIN");
            open.query("INSERT INTO lost VALUES ('in a transaction')");
            open.query("UPDATE counters SET n = -1 WHERE id = 0");
            assert_eq!(locked.value(&format!("SELECT GET_LOCK('{name}', 0)")), "1");
            tables.query("LOCK TABLES much WRITE");
            running.send(&query("INSERT INTO lost SELECT SLEEP(0.2) FROM counters"));
            until_running(server, "INSERT INTO lost SELECT SLEEP");
            half.query("BEGIN");
            let text = framed(&mut 0, &query(&format!("INSERT INTO lost VALUES ('{}')", "x".repeat(100_000))));
            half.send_raw(&text[..text.len() / 2]);
            proxy.kill();
            for mut client in [idle, open, locked, tables, running, half] {
                client.rest();
            }
            let own = format!("user = '{APP}' AND db = '{name}'");
            until(
                server,
                "all connections gone",
                &format!("SELECT 1 FROM information_schema.processlist WHERE {own} HAVING COUNT(*) = 0"),
            );
            let mut root = server.root();
            root.query(&format!("USE {name}"));
            assert_eq!(root.value(&format!("SELECT IS_FREE_LOCK('{name}')")), "1");
            // None of these waits for anybody.
            root.query("SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1");
            root.query("UPDATE counters SET n = 0");
            assert_eq!(root.value("SELECT COUNT(*) FROM much"), "110");
            let lost = root.query("SELECT * FROM lost WHERE a LIKE '%a%'");
            assert!(lost.is_empty(), "{lost:?}");
            // What was under way by itself was done, or was not: all of it or nothing.
            let done = root.value("SELECT COUNT(*) FROM lost");
            assert!(["0", "10"].contains(&done.as_str()), "{done}");
            root.query("DELETE FROM lost");
        }
        let proxy = start(&my_config(server, CONNECTIONS + OWN_CONNECTIONS));
        nothing_is_left(server, &proxy, name);
    });
}
