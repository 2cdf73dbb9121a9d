//! `KILL` and COM_CHANGE_USER, which are for the proxy to do: scenarios 41, 42 and 68 to 71 of the list.

use crate::harness::measure::eventually;
use crate::harness::mysql::beside::{app, both_sides, each, each_with, my_config};
use crate::harness::mysql::wire::{CACHING_SHA2, CLEAR, COM_PING, MyLogin, MyWire, NATIVE};
use crate::harness::mysql::{Flavour, MyServer, servers};
use crate::harness::proxy::{ProxyHandle, set};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicegate::demo::servers::{APP, APP_PASSWORD};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const COM_PROCESS_KILL: u8 = 0x0C;

fn client(proxy: &ProxyHandle, name: &str) -> MyWire {
    MyWire::connect(proxy.address, &app().database(name)).unwrap()
}

/// It sleeps until it is stopped.
fn sleep(server: &MyServer, wire: &mut MyWire, mark: &str) {
    wire.send(format!("\x03SELECT SLEEP(600), '{mark}'").as_bytes());
    let busy = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(600), ''{mark}''' AND state = 'User sleep'"
    );
    server.root().until(&busy, "1");
}

/// MySQL's sleep says that it was interrupted, MariaDB's is an error.
fn is_interrupted(server: &MyServer, wire: &mut MyWire) {
    let mut packets = Vec::new();
    wire.begin_reply();
    assert!(!wire.result(&mut packets));
    let last = packets.last().unwrap();
    match server.flavour() {
        Flavour::MariaDb => assert_eq!(last.error().unwrap().code, 1317),
        Flavour::MySql => assert!(packets[packets.len() - 2].payload.starts_with(b"\x011"), "{packets:?}"),
    }
}

/// By text, from another client and its number in the greeting.
#[test]
fn my_068_another_client_is_stopped() {
    each("my_068", 4, &[], |server, name, proxy| {
        let (mut one, mut other) = (client(proxy, name), client(proxy, name));
        let id = one.greeting().connection_id;
        sleep(server, &mut one, name);
        assert!(other.query(&format!("KILL QUERY {id}")).is_empty());
        is_interrupted(server, &mut one);
        assert_eq!(one.value("SELECT 1"), "1");
        // Nothing to stop.
        other.query(&format!("KILL QUERY {id}"));
        assert_eq!(one.value("SELECT 2"), "2");
        // In a transaction, and without one.
        other.query("BEGIN");
        sleep(server, &mut one, &format!("{name} again"));
        other.query(&format!("KILL QUERY {id}"));
        is_interrupted(server, &mut one);
        other.query("COMMIT");
        for kill in [format!("KILL {id}"), format!("/* now */ kill connection {id};")] {
            let mut one = client(proxy, name);
            let kill = kill.replace(&id.to_string(), &one.greeting().connection_id.to_string());
            other.query(&kill);
            assert_eq!(one.receive_from(1).error().unwrap().code, 1927);
            one.until_closed();
        }
        let mut one = client(proxy, name);
        sleep(server, &mut one, &format!("{name} to its end"));
        let id = one.greeting().connection_id;
        other.send(&[&[COM_PROCESS_KILL][..], &id.to_le_bytes()].concat());
        assert_eq!(other.receive().first(), 0);
        assert_eq!(one.receive_from(1).error().unwrap().code, 1927);
        one.until_closed();
        eventually(proxy, &[("database_connections_currently_in_transaction", 0.0)]);
    });
}

/// Who there is not, whom one does not own, and oneself.
#[test]
fn my_071_not_everybody() {
    let config = |server: &MyServer| {
        let text = my_config(server, 4);
        let user = format!(
            "[[user]]\nname = \"stranger\"\npassword = {{ value = \"{APP_PASSWORD}\" }}\ndatabase_user = \"{APP}\"\n"
        );
        format!("{text}\n{user}")
    };
    each_with("my_071", &[], config, |_, name, proxy| {
        let (mut one, mut other) = (client(proxy, name), client(proxy, name));
        let mut stranger =
            MyWire::connect(proxy.address, &MyLogin::new("stranger", APP_PASSWORD).database(name)).unwrap();
        let id = one.greeting().connection_id;
        for (kill, code) in [
            ("KILL QUERY 4000000000", 1094),
            ("KILL 99999999999", 1094),
            (&format!("KILL {}", stranger.greeting().connection_id), 1095),
            ("KILL CONNECTION_ID()", 1235),
            ("KILL QUERY 1; SELECT 1", 1235),
        ] {
            assert_eq!(other.error(kill).code, code, "{kill}");
            assert_eq!(other.value("SELECT 1"), "1");
        }
        assert_eq!(stranger.error(&format!("KILL QUERY {id}")).code, 1095);
        assert_eq!(one.error(&format!("KILL QUERY {id}")).code, 1317);
        assert_eq!(one.value("SELECT 1"), "1");
        assert_eq!(one.error(&format!("KILL {id}")).code, 1927);
        one.until_closed();
    });
}

/// Scenario 70: one that stands in line; who stops it needs no connection.
#[test]
fn my_070_in_line() {
    each("my_070", 3, &[], |_, name, proxy| {
        let (mut holder, mut waiting, mut other) = (client(proxy, name), client(proxy, name), client(proxy, name));
        holder.query("BEGIN");
        waiting.send(b"\x03SELECT 1");
        eventually(proxy, &[("clients_waiting", 1.0)]);
        other.query(&format!("KILL QUERY {}", waiting.greeting().connection_id));
        assert_eq!(waiting.receive_from(1).error().unwrap().code, 1317);
        holder.query("COMMIT");
        assert_eq!(waiting.value("SELECT 1"), "1");
    });
}

/// Scenario 69: however it races with the end of what it is to stop, it never stops a stranger's.
#[test]
fn my_069_kills_never_hit_a_stranger() {
    let wanted = std::env::var("SLUICEGATE_CANCELS").map_or(1_000, |number| number.parse().unwrap());
    let seed: u64 = std::env::var("SLUICEGATE_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEGATE_SEED={seed}");
    each("my_069", 4, &[], |_, name, proxy| {
        let (done, asked, hit) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let work = ["SELECT 1", "SELECT SLEEP(0.002)", "SELECT COUNT(*) FROM information_schema.collations"];
        thread::scope(|scope| {
            for number in 0..4 {
                // Bystanders.
                let (mut one, done) = (client(proxy, name), &done);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed ^ number);
                    while !done.load(Ordering::Relaxed) {
                        let question = work[random.random_range(0..work.len())];
                        let answer = one.value(question);
                        // An interrupted sleep says 1 on MySQL.
                        assert!(!question.contains("SLEEP") || answer == "0", "{answer}");
                    }
                });
            }
            for number in 0..3 {
                let (mut one, mut other, done, asked, hit) =
                    (client(proxy, name), client(proxy, name), &done, &asked, &hit);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed ^ (100 + number));
                    let kill = format!("KILL QUERY {}", one.greeting().connection_id);
                    while asked.fetch_add(1, Ordering::Relaxed) < wanted {
                        one.send(&[b"\x03", work[random.random_range(0..work.len())].as_bytes()].concat());
                        let pause = random.random_range(0..4) * random.random_range(0..400);
                        // Not a wait for anything: it spreads where in a query's life the kill comes.
                        thread::sleep(Duration::from_micros(pause));
                        other.query(&kill);
                        let mut packets = Vec::new();
                        one.begin_reply();
                        while one.result(&mut packets) {}
                        if let Some(error) = packets.last().and_then(|packet| packet.error()) {
                            assert_eq!(error.code, 1317, "{error}");
                            hit.fetch_add(1, Ordering::Relaxed);
                        }
                        assert_eq!(one.value("SELECT 'nothing is on its way'"), "nothing is on its way");
                    }
                    done.store(true, Ordering::Relaxed);
                });
            }
        });
        println!("{} of {wanted} hit something", hit.load(Ordering::Relaxed));
    });
}

/// COM_CHANGE_USER, as far as the first packet in answer.
fn change(wire: &mut MyWire, login: &MyLogin, plugin: &str) {
    let mut packet = vec![0x11];
    packet.extend(login.user.as_bytes());
    // An answer to a challenge of long ago.
    packet.extend([0, 4, 1, 2, 3, 4]);
    packet.extend(login.database.as_deref().unwrap_or_default().as_bytes());
    packet.extend([0, 45, 0]);
    packet.extend(plugin.as_bytes());
    packet.push(0);
    wire.send(&packet);
}

/// Scenarios 41 and 42: everything that was its own is gone, its transaction is rolled back, and its number stays.
#[test]
fn my_041_a_client_logs_in_again() {
    const TABLES: &[&str] = &["CREATE TABLE t (i int)", "CREATE TABLE a (i int AUTO_INCREMENT PRIMARY KEY)"];
    both_sides("my_041", 4, TABLES, |sides| {
        let mut talk = sides.talk();
        // Last values go, on whatever connection.
        talk.same("INSERT INTO a VALUES ()");
        for (wire, name) in [(&mut talk.direct, &sides.twin), (&mut talk.proxied, &sides.name)] {
            change(wire, &app().database(name), CACHING_SHA2);
            wire.changed(&app()).unwrap();
        }
        talk.same("SELECT LAST_INSERT_ID(), ROW_COUNT() < 1");
        let id = talk.proxied.greeting().connection_id;
        for plugin in [CACHING_SHA2, NATIVE, CLEAR, "dialog"] {
            talk.all(&["SET @a = 1, SESSION sort_buffer_size = 262144", "BEGIN", "INSERT INTO t VALUES (1)"]);
            let numbers = talk.direct.command(b"\x16SELECT 1")[0].payload[1];
            talk.proxied.command(b"\x16SELECT 1");
            for (wire, name) in [(&mut talk.direct, &sides.twin), (&mut talk.proxied, &sides.name)] {
                change(wire, &app().database(name), plugin);
                wire.changed(&app()).unwrap();
            }
            talk.all(&[
                "SELECT @a, @@sort_buffer_size = 262144, COUNT(*) FROM t",
                "SELECT DATABASE() = '{db}', USER() LIKE 'app@%', @@collation_connection",
            ]);
            talk.command(&[COM_PING]);
            // Statements are gone as well.
            for (wire, number) in [(&mut talk.direct, numbers), (&mut talk.proxied, 1)] {
                let packets = wire.command(&[&[0x17, number][..], &[0, 0, 0, 0, 1, 0, 0, 0]].concat());
                assert_eq!(packets[0].error().unwrap().code, 1243);
            }
        }
        let mut other = client(sides.proxy, &sides.name);
        sleep(sides.server, &mut talk.proxied, &sides.name);
        other.query(&format!("KILL QUERY {id}"));
        is_interrupted(sides.server, &mut talk.proxied);
        // To no database.
        change(&mut talk.proxied, &app(), CACHING_SHA2);
        talk.proxied.changed(&app()).unwrap();
        assert_eq!(talk.proxied.query("SELECT DATABASE()"), [[None]]);
        // A wrong password is the end.
        for (login, password) in [(app(), "wrong"), (MyLogin::new("nobody", "x"), "x")] {
            let mut wire = client(sides.proxy, &sides.name);
            wire.query("BEGIN");
            change(&mut wire, &login, CACHING_SHA2);
            let wrong = MyLogin { password: password.into(), ..login };
            assert_eq!(wire.changed(&wrong).unwrap_err().code, 1045);
            wire.until_closed();
        }
        eventually(sides.proxy, &[("database_connections_currently_in_transaction", 0.0)]);
    });
}

/// To another user, whose connections are others, and whose limits count.
#[test]
fn my_041_as_somebody_else() {
    for server in servers() {
        let mut root = server.root();
        root.query("CREATE USER IF NOT EXISTS second@'%' IDENTIFIED BY 'second-secret'");
        let config = |server: &MyServer| {
            let user = "[[user]]\nname = \"second\"\npassword = { value = \"second-secret\" }\nmax_clients = 1\n";
            let text = format!("{}\n{user}", my_config(server, 6));
            set(&text, "target_group.pool", "connection_borrow_timeout", "\"2s\"")
        };
        let proxy = crate::harness::proxy::start(&config(server));
        let second = MyLogin::new("second", "second-secret");
        let mut wire = MyWire::connect(proxy.address, &app()).unwrap();
        change(&mut wire, &second, CACHING_SHA2);
        wire.changed(&second).unwrap();
        assert!(wire.value("SELECT USER()").starts_with("second@"));
        // It is one of them, and no longer one of the others.
        assert_eq!(MyWire::connect(proxy.address, &second).err().unwrap().code, 1040);
        change(&mut wire, &app(), CACHING_SHA2);
        wire.changed(&app()).unwrap();
        MyWire::connect(proxy.address, &second).unwrap();
        assert!(wire.value("SELECT USER()").starts_with("app@"));
    }
}

/// Scenario 72: behind a balancer, a `KILL` may come to another proxy. Its number is nobody's there.
#[test]
fn my_072_another_proxy() {
    for server in servers() {
        let [one, other] = [0; 2].map(|_| crate::harness::proxy::start(&my_config(server, 4)));
        let mut clients: Vec<_> = (0..20).map(|_| MyWire::connect(one.address, &app()).unwrap()).collect();
        let mut others: Vec<_> = (0..20).map(|_| MyWire::connect(other.address, &app()).unwrap()).collect();
        let mut asker = MyWire::connect(other.address, &app()).unwrap();
        for client in &clients {
            let id = client.greeting().connection_id;
            for kill in [format!("KILL QUERY {id}"), format!("KILL {id}")] {
                let error = asker.error(&kill);
                assert_eq!((error.code, error.message), (1094, format!("Unknown thread id: {id}")));
            }
        }
        for client in clients.iter_mut().chain(&mut others) {
            assert_eq!(client.value("SELECT 1"), "1");
        }
    }
}
