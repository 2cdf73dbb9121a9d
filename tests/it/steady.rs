//! What goes on for days costs nothing: clients that have all set the same when they logged in share connections on which nothing
//! is put right and nothing is asked. Counted by the proxy itself (`sluicegate_settings_replayed_total`,
//! `sluicegate_state_questions_total`).

use crate::harness::each;
use crate::harness::measure::Metrics;
use crate::harness::proxy::ProxyHandle;
use crate::harness::wire::{Login, Wire, batch, bind, execute, kinds, parse, sync};

/// Two for clients, two of the proxy's own.
const TWO: u32 = 4;
const CLIENTS: usize = 20;
const TRANSACTIONS: usize = 200;

/// What ActiveRecord sets when it connects, and more of the kind: by name, by value with a unit, with a list, by function, in another
/// case, in one text with others, and of the application's own.
const AT_CONNECT: [&str; 12] = [
    "set client_encoding to 'unicode'",
    "SET client_min_messages TO 'warning'",
    "SET standard_conforming_strings = on",
    "SET intervalstyle = iso_8601",
    "SET SESSION timezone TO 'UTC'",
    "SET SESSION statement_timeout TO '90s'",
    "SET SESSION lock_timeout TO 90000",
    "SET search_path TO \"$user\", public",
    "SET DateStyle = 'ISO';SET extra_float_digits = 2;show transaction_isolation",
    "SELECT set_config('work_mem', '5MB', false)",
    "SET Application_Name = 'web'",
    "SET app.region = 'north'",
];

/// How often settings were replayed, and the server was asked.
fn counted(proxy: &ProxyHandle) -> (f64, f64) {
    let metrics = Metrics::read(proxy);
    (metrics.get("settings_replayed_total"), metrics.get("state_questions_total"))
}

fn since(proxy: &ProxyHandle, before: (f64, f64)) -> (f64, f64) {
    let now = counted(proxy);
    (now.0 - before.0, now.1 - before.1)
}

fn one_transaction(client: &mut Wire, n: usize) {
    match n % 4 {
        0 => {
            client.query("BEGIN");
            client.query("SELECT count(*) FROM pg_class");
            client.query("COMMIT");
        }
        1 => assert_eq!(client.value(&format!("SELECT {n}")), n.to_string()),
        2 => {
            let frames = client.ask(&batch([bind("", "s", &[]), execute("", 0), sync()]), 1);
            assert_eq!(kinds(&frames), "2DCZ", "{frames:#?}");
        }
        _ => assert_eq!(client.query("BEGIN; SAVEPOINT a; SELECT 1; ROLLBACK TO a; SELECT 2; ROLLBACK").len(), 2),
    }
}

/// All clients at once, in an order of their own.
fn work(clients: &mut [Wire]) {
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || (0..TRANSACTIONS).for_each(|n| one_transaction(client, n)));
        }
    });
}

/// Each connection has what the clients want behind this.
fn warm_up(clients: &mut [Wire]) {
    let [one, other, ..] = clients else { panic!("too few clients") };
    one.query("BEGIN");
    other.query("BEGIN");
    one.query("COMMIT");
    other.query("COMMIT");
}

fn connected(proxy: &ProxyHandle, login: &Login) -> Vec<Wire> {
    let clients = (0..CLIENTS).map(|_| {
        let mut client = Wire::connect(proxy.address, login).unwrap();
        for sql in AT_CONNECT {
            client.query(sql);
        }
        let frames = client.ask(&batch([parse("s", "SELECT 42"), sync()]), 1);
        assert_eq!(kinds(&frames), "1Z", "{frames:#?}");
        client
    });
    clients.collect()
}

#[test]
fn clients_that_set_the_same_when_they_connect_cost_nothing_afterwards() {
    each("steady_same_settings", TWO, &[], |_, database, proxy| {
        let plain = Login::app().database(database);
        let with_options = plain.clone().with("options", "-c jit=off").with("application_name", "first");
        for login in [plain.clone(), with_options] {
            let mut clients = connected(proxy, &login);
            warm_up(&mut clients);
            let warm = counted(proxy);
            assert!(warm.0 > 0.0, "their settings were never put on another connection");
            work(&mut clients);
            assert_eq!(since(proxy, warm), (0.0, 0.0));
            for client in &mut clients {
                let shown: Vec<String> =
                    ["statement_timeout", "work_mem", "IntervalStyle", "application_name", "app.region"]
                        .map(|name| client.value(&format!("SHOW {name}")))
                        .into();
                assert_eq!(shown, ["90s", "5MB", "iso_8601", "web", "north"]);
            }
            assert_eq!(since(proxy, warm), (0.0, 0.0));
        }
        // What would have been counted: a client that has set something else, once there and once back; and code.
        let mut clients = connected(proxy, &plain);
        let (mut other, mut holder) = (clients.remove(0), clients.remove(1));
        warm_up(&mut clients);
        holder.query("BEGIN");
        let before = counted(proxy);
        other.query("SET work_mem = '6MB'");
        assert_eq!(since(proxy, before), (0.0, 0.0));
        clients[0].query("SELECT 1");
        assert_eq!(since(proxy, before), (1.0, 0.0));
        other.query("SELECT 1");
        clients[0].query("SELECT 1");
        assert_eq!(since(proxy, before), (3.0, 0.0));
        clients[0].query("DO $$ BEGIN NULL; END $$");
        clients[0].query("SELECT 1");
        assert_eq!(since(proxy, before).1, 1.0);
        holder.query("COMMIT");
    });
}

/// A client of which the server was once asked has its settings in the server's words. They are still the same.
#[test]
fn clients_of_whom_the_server_was_asked_cost_nothing_afterwards() {
    each("steady_asked", TWO, &[], |_, database, proxy| {
        let mut clients = connected(proxy, &Login::app().database(database));
        let (asked, others) = clients.split_at_mut(CLIENTS / 2);
        for client in asked {
            client.query("DO $$ BEGIN NULL; END $$");
            client.query("SELECT 1");
        }
        for client in &mut others[..CLIENTS / 4] {
            client.query("RESET work_mem");
            client.query("BEGIN");
            client.query("SET work_mem = '5MB'");
            client.query("SET LOCAL statement_timeout = '1min'");
            client.query("COMMIT");
        }
        work(&mut clients);
        let warm = counted(proxy);
        work(&mut clients);
        assert_eq!(since(proxy, warm), (0.0, 0.0));
    });
}
