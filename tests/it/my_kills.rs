//! Clients of MySQL's and MariaDB's that vanish, in every state a session has and in every way a client can go; and database
//! connections that are killed under clients. All the while others work over the same connections, and see nothing but their own. Afterwards
//! all must be as if nobody had been there: clients, places, connections, locks, rows that nobody committed.
//!
//! (What a session does is the core's, and `kills` has it for PostgreSQL. Here are the states of this protocol. Servers and proxies that
//! are killed are in `my_deaths`.)

use std::cell::Cell;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::levels::Levels;
use crate::harness::mysql::beside::{app, my_config};
use crate::harness::mysql::wire::{
    COM_QUERY, COM_STMT_EXECUTE, COM_STMT_PREPARE, COM_STMT_SEND_LONG_DATA, MyWire, Packet, capability, framed,
};
use crate::harness::mysql::{MyServer, database, servers};
use crate::harness::proxy::{ProxyHandle, set, start};
use crate::harness::vanish::{KILLS, Kill};
use crate::harness::wire::PATIENCE;

pub const CONNECTIONS: u32 = 4;
/// Of the proxy's own, for its questions.
pub const OWN_CONNECTIONS: u32 = 2;
/// Of each state and way to go.
const TIMES: usize = 3;
/// They work meanwhile.
const BYSTANDERS: usize = 3;
/// More than all buffers on the way take.
const LARGE: usize = 2 << 20;

/// Brings a client there, and makes sure that it is there.
type State = fn(&Scene<'_>, MyWire);

const STATES: [(&str, State); 12] = [
    ("idle", |scene, mut client| {
        client.query("SELECT 1");
        scene.ends(client);
    }),
    ("in a query", |scene, mut client| {
        client.send(&query("SELECT 'asleep', SLEEP(0.3) FROM counters"));
        scene.until(
            "a statement runs",
            "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT \\'asleep%'",
        );
        scene.ends(client);
    }),
    ("in rows that nobody reads", |scene, mut client| {
        client.send(&query("SELECT a.*, b.* FROM much a, much b LIMIT 20000"));
        client.begin_reply();
        client.receive();
        scene.ends(client);
    }),
    ("in an idle transaction", |scene, mut client| {
        client.query("BEGIN");
        client.query("INSERT INTO lost VALUES ('in a transaction')");
        scene.ends(client);
    }),
    ("in a transaction, behind an error", |scene, mut client| {
        client.query("BEGIN");
        client.query("INSERT INTO lost VALUES ('behind an error')");
        assert_eq!(client.error("SELECT nonsense").code, 1054);
        scene.ends(client);
    }),
    ("half a packet sent", |scene, mut client| {
        let text = framed(&mut 0, &query("INSERT INTO lost VALUES ('half a packet')"));
        client.send_raw(&text[..text.len() / 2]);
        scene.ends(client);
    }),
    ("half of a long text sent", |scene, mut client| {
        let text = framed(&mut 0, &query(&format!("INSERT INTO lost SELECT LENGTH('{}')", "x".repeat(LARGE))));
        client.send_raw(&text[..LARGE - 100]);
        scene.ends(client);
    }),
    ("pinned by a temporary table, a variable and a lock", |scene, mut client| {
        client.query("CREATE TEMPORARY TABLE mine (a INT)");
        client.query("SET @mine = 7, sql_mode = ''");
        client.query(&format!("DO GET_LOCK('{}', 20)", scene.name));
        scene.ends(client);
    }),
    ("with a cursor", |scene, mut client| {
        let statement = prepared(&mut client, "SELECT a.id FROM counters a, counters b");
        client.command(&[&[COM_STMT_EXECUTE][..], &statement, &[1], &1_u32.to_le_bytes()].concat());
        scene.ends(client);
    }),
    ("pieces of a parameter sent", |scene, mut client| {
        let statement = prepared(&mut client, "INSERT INTO lost VALUES (LENGTH(?))");
        client.command(&[&[COM_STMT_SEND_LONG_DATA][..], &statement, &[0, 0], b"some of it"].concat());
        // It is there: what comes behind it is answered.
        client.query("SELECT 1");
        scene.ends(client);
    }),
    ("half of a local file sent", |scene, mut client| {
        let asked = client.reply("LOAD DATA LOCAL INFILE 'f' INTO TABLE lost");
        assert_eq!(asked.last().map(Packet::first), Some(0xFB));
        client.send_next(b"in a file\nin a file\n");
        scene.ends(client);
    }),
    ("in line", |scene, mut client| {
        let mut holders: Vec<MyWire> = (0..CONNECTIONS).map(|_| scene.client()).collect();
        holders.iter_mut().for_each(|holder| drop(holder.query("BEGIN")));
        // Who holds none of them waits.
        client.send(&query("INSERT INTO lost VALUES ('in line')"));
        // Behind it, or before it, all the bystanders.
        let all = BYSTANDERS as u64 + 1;
        Levels::wait_until(scene.proxy.admin, "the client in line", |levels| levels.waiting == all);
        scene.ends(client);
        // What it has sent is run where its turn comes before its end does, as a server would.
        Levels::wait_until(scene.proxy.admin, "the client gone from the line", |levels| levels.waiting == all - 1);
        holders.iter_mut().for_each(|holder| drop(holder.query("COMMIT")));
    }),
];

struct Scene<'a> {
    server: &'a MyServer,
    proxy: &'a ProxyHandle,
    name: &'a str,
    how: Kill,
    random: Cell<u64>,
}

impl Scene<'_> {
    fn client(&self) -> MyWire {
        let login = app().database(self.name).with(capability::LOCAL_FILES);
        MyWire::connect(self.proxy.address, &login).unwrap()
    }

    /// Gone without a word.
    fn ends(&self, client: MyWire) {
        let mut random = self.random.get();
        self.how.carry_out(client, &mut random, || ());
        self.random.set(random);
    }

    /// Asks until there are rows.
    fn until(&self, what: &str, sql: &str) {
        let (mut root, began) = (self.server.root(), Instant::now());
        while root.query(sql).is_empty() {
            assert!(began.elapsed() < PATIENCE, "never: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

pub fn query(sql: &str) -> Vec<u8> {
    [&[COM_QUERY], sql.as_bytes()].concat()
}

/// Its number, as bytes.
fn prepared(client: &mut MyWire, sql: &str) -> [u8; 4] {
    let packets = client.command(&[&[COM_STMT_PREPARE], sql.as_bytes()].concat());
    packets[0].payload[1..5].try_into().unwrap()
}

pub const SETUP: [&str; 6] = [
    "CREATE TABLE counters (id INT PRIMARY KEY, n INT NOT NULL)",
    "INSERT INTO counters VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0)",
    "CREATE TABLE lost (a VARCHAR(50))",
    "CREATE TABLE much (t VARCHAR(1000))",
    "INSERT INTO much SELECT REPEAT('x', 1000) FROM counters",
    "INSERT INTO much SELECT a.t FROM much a, counters b",
];

#[test]
fn clients_that_vanish_in_every_state() {
    for server in servers() {
        let name = database(server, &format!("my_kills_{:?}", server.flavour()).to_lowercase(), &SETUP);
        let config = set(
            &my_config(server, CONNECTIONS + OWN_CONNECTIONS),
            "target_group.pool",
            "connection_borrow_timeout",
            "\"60s\"",
        );
        let proxy = start(&config);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (over, proxy, name, address) = (&over, &proxy, name.as_str(), proxy.address);
            let watching: Vec<_> =
                (0..BYSTANDERS).map(|me| scope.spawn(move || bystander(address, name, me, over))).collect();
            let ended = StopsWatching(over);
            for _ in 0..TIMES {
                for how in KILLS {
                    let scene = Scene { server, proxy, name, how, random: Cell::new(1) };
                    for (what, state) in STATES {
                        println!("--- {what}, {how:?}");
                        let client = scene.client();
                        state(&scene, client);
                    }
                }
            }
            drop(ended);
            let done: u32 = watching.into_iter().map(|bystander| bystander.join().unwrap()).sum();
            println!(
                "{:?}: {} vanished, meanwhile {done} transactions",
                server.flavour(),
                TIMES * KILLS.len() * STATES.len()
            );
        });
        nothing_is_left(server, &proxy, &name);
    }
}

/// Ends the bystanders also when a state panics.
struct StopsWatching<'a>(&'a AtomicBool);

impl Drop for StopsWatching<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Works until it is over, and knows what it must see; how many transactions that were.
pub fn bystander(address: SocketAddr, name: &str, me: usize, over: &AtomicBool) -> u32 {
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        let mut wire = MyWire::connect(address, &app().database(name)).unwrap();
        for _ in 0..20 {
            wire.query("BEGIN");
            wire.query(&format!("UPDATE counters SET n = n + 1 WHERE id = {me}"));
            done += 1;
            let seen = wire.query(&format!(
                "SELECT n, DATABASE(), @mine, @@sql_mode = @@GLOBAL.sql_mode, IS_USED_LOCK('{name}') <=> CONNECTION_ID() \
                 FROM counters WHERE id = {me}"
            ));
            let expected =
                [Some(done.to_string()), Some(name.to_owned()), None, Some("1".to_owned()), Some("0".to_owned())];
            assert_eq!(seen, [expected], "bystander {me}");
            wire.query("COMMIT");
            assert_eq!(wire.value(&format!("SELECT '{me} {done}'")), format!("{me} {done}"));
        }
    }
    done
}

/// Everything is as if nobody had been there.
pub fn nothing_is_left(server: &MyServer, proxy: &ProxyHandle, name: &str) {
    let levels = Levels::wait_until(proxy.admin, "everybody gone", |levels| {
        levels.clients + levels.waiting + levels.in_use == 0
    });
    assert_eq!(levels.disagreements, 0, "{levels:?}");
    assert!(levels.idle <= u64::from(CONNECTIONS), "{levels:?}");
    assert!(!proxy.log().contains("panicked") && !proxy.log().contains("ERROR"), "{}", proxy.log());
    let mut root = server.root();
    let lost = root.query(&format!("SELECT a, COUNT(*) FROM {name}.lost GROUP BY a"));
    assert!(lost.is_empty(), "what nobody has committed: {lost:?}");
    assert_eq!(root.value(&format!("SELECT IS_FREE_LOCK('{name}')")), "1");
    // As many hold a connection as there are, one more waits.
    let client = || MyWire::connect(proxy.address, &app().database(name)).unwrap();
    let mut holders: Vec<MyWire> = (0..CONNECTIONS).map(|_| client()).collect();
    holders.iter_mut().for_each(|holder| drop(holder.query("BEGIN")));
    let mut last = client();
    last.send(&query("SELECT 1"));
    Levels::wait_until(proxy.admin, "one in line", |levels| levels.waiting == 1);
    holders.iter_mut().for_each(|holder| drop(holder.query("COMMIT")));
    last.begin_reply();
    assert!(!last.result(&mut Vec::new()));
}

/// A client in the middle of its login, which vanishes there.
#[test]
fn clients_that_vanish_in_their_login() {
    for server in servers() {
        let proxy = start(&my_config(server, CONNECTIONS + OWN_CONNECTIONS));
        let mut whole = MyWire::open(proxy.address).unwrap();
        let response = whole.response_bytes(&app());
        drop(whole);
        for sent in 0..response.len() {
            let mut client = MyWire::open(proxy.address).unwrap();
            client.send_raw(&response[..sent]);
        }
        // One that has not even read the greeting.
        for _ in 0..20 {
            let mut socket = TcpStream::connect(proxy.address).unwrap();
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            let _ = socket.write_all(&[1]);
        }
        Levels::wait_until(proxy.admin, "everybody gone", |levels| levels.clients + levels.in_use == 0);
        assert_eq!(MyWire::connect(proxy.address, &app()).unwrap().value("SELECT 1"), "1");
    }
}

/// Database connections killed under clients: in a query, in a transaction, idle and pinned, idle in the pool.
#[test]
fn database_connections_that_are_killed() {
    for server in servers() {
        let name = database(server, &format!("my_killed_{:?}", server.flavour()).to_lowercase(), &SETUP);
        let proxy = start(&my_config(server, CONNECTIONS + OWN_CONNECTIONS));
        let scene = Scene { server, proxy: &proxy, name: &name, how: Kill::Close, random: Cell::new(1) };
        let kill = |client: &mut MyWire| server.kill(&client.value("SELECT CONNECTION_ID()"));
        for _ in 0..TIMES {
            // In a transaction: what became of it is told, and no other session is harmed.
            let (mut victim, mut other) = (scene.client(), scene.client());
            victim.query("BEGIN");
            victim.query("INSERT INTO lost VALUES ('on a killed connection')");
            other.query("BEGIN");
            kill(&mut victim);
            // It asked for a COMMIT on the connection that was ending, or the proxy knew.
            let code = victim.error("COMMIT").code;
            assert!([1158, 1213].contains(&code), "{code}");
            assert_eq!(victim.value("SELECT COUNT(*) FROM lost"), "0");
            assert_eq!(other.value("SELECT 1"), "1");
            other.query("COMMIT");
            // Pinned: its state is lost, and it is told so.
            let mut victim = scene.client();
            victim.query("CREATE TEMPORARY TABLE mine (a INT)");
            kill(&mut victim);
            assert!([1053, 1158, 1927, 4031].contains(&victim.error("SELECT * FROM mine").code));
            // In the pool: nobody learns of it.
            let mut victim = scene.client();
            kill(&mut victim);
            assert_eq!(victim.value("SELECT 1"), "1");
        }
        nothing_is_left(server, &proxy, &name);
    }
}
