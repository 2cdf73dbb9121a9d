//! Random sessions of several MySQL clients over fewer connections, step by step beside a direct connection for each client: whatever a
//! client does, it reads what its own connection would have shown it, packet by packet, and nothing of anybody else.
//!
//! The seed is printed. `SLUICEGATE_MODEL_SEED=7 SLUICEGATE_MODEL_STEPS=200000 cargo test --test it my_model` runs others, and more;
//! `SLUICEGATE_MODEL_FLAVOUR=mysql` on one server alone. Behind a difference the steps are tried again with fewer and fewer of them,
//! and what is left is shown. Differences that are documented are in `my_model/known.rs`, by name.
//!
//! Who keeps its connection is not foreseen: when a client waits because others have them all, those log in again until it gets one.

mod known;
mod parameters;
mod results;
mod steps;
mod texts;
mod twins;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::harness::mysql::beside::{Sides, app, my_config, renamed};
use crate::harness::mysql::wire::{MyLogin, MyWire, capability};
use crate::harness::mysql::{Flavour, MyServer, database, servers};
use crate::harness::proxy::{ProxyHandle, start};
use crate::model::random;
use known::Before;
use sluicegate::demo::servers::APP;
use steps::{Step, Steps};
use twins::{Client, Twins};

/// Steps of a run in the suite, for each server.
const STEPS: usize = 1_500;
const CLIENTS: usize = 5;
/// Connections for clients; two more are the proxy's own.
const CONNECTIONS: usize = 3;
/// Steps that are shown as they were, if fewer of them show no difference.
const SHOWN: usize = 60;
/// How long fewer steps are tried.
const SHRINKS_FOR: Duration = Duration::from_secs(40);

/// How often it is looked whether a client that has no answer stands in line.
const LOOKS_EVERY: Duration = Duration::from_millis(15);

/// Who did what.
type Done = (usize, Step);

/// The clients, and what they have done.
struct Model<'a> {
    proxy: &'a ProxyHandle,
    clients: Vec<Twins>,
    done: Vec<Done>,
}

#[test]
fn my_random_sessions_are_what_direct_ones_are() {
    // One that is known to show nothing but what is documented; others may not yet.
    let (seed, steps) = (random::seed_or(Some(33)), random::steps(STEPS));
    let only = std::env::var("SLUICEGATE_MODEL_FLAVOUR").unwrap_or_default().to_lowercase();
    let is_wanted = |server: &&MyServer| format!("{:?}", server.flavour()).to_lowercase().starts_with(&only);
    for server in servers().filter(is_wanted) {
        let mut root = server.root();
        root.query("CREATE ROLE IF NOT EXISTS model_role");
        root.query(&format!("GRANT model_role TO {APP}"));
        let mut has = |name: &str| root.reply(&format!("SELECT @@SESSION.{name}"))[0].first() != 0xFF;
        let mut drawn = Steps::new(seed, CLIENTS, server.flavour(), &mut has);
        let drawn = (0..steps).map(|_| {
            let client = drawn.client();
            (client, drawn.step(client))
        });
        let Err((done, difference)) = attempt(server, drawn.collect()) else {
            println!("{:?} {}: {steps} steps", server.flavour(), server.version());
            continue;
        };
        let (shown, difference) = shrunk(server, done, difference);
        let shown: Vec<String> = shown.iter().map(|(client, step)| format!("{client}: {step}")).collect();
        panic!("seed {seed}, {:?} {}\n{}\n{difference}", server.flavour(), server.version(), shown.join("\n"));
    }
}

/// The steps up to one that shows a difference, and that.
type Failure = (Vec<Done>, String);

/// Takes these steps, on a proxy and databases of their own.
fn attempt(server: &MyServer, steps: Vec<Done>) -> Result<(), Failure> {
    let setup = setup(server.flavour());
    let setup: Vec<&str> = setup.iter().map(String::as_str).collect();
    let name = format!("my_model_{:?}", server.flavour()).to_lowercase();
    database(server, &name, &setup);
    let proxy = start(&my_config(server, u32::try_from(CONNECTIONS + 2).unwrap()));
    let sides = Sides::new(server, &proxy, &name, &setup);
    for name in [&sides.name, &sides.twin] {
        database(server, &format!("{name}b"), texts::OTHER);
        let mut root = server.root();
        root.query(&format!("USE {name}"));
        texts::FUNCTIONS.iter().for_each(|text| _ = root.query(text));
    }
    let clients = (0..CLIENTS).map(|number| Twins::new(client(&sides, number))).collect();
    let mut model = Model { proxy: &proxy, clients, done: Vec::new() };
    // What a wire finds wrong by itself it panics about.
    let outcome =
        catch_unwind(AssertUnwindSafe(|| steps.into_iter().try_for_each(|(client, step)| model.step(client, step))));
    let outcome = outcome.unwrap_or_else(|panic| Err(format!("a panic: {:?}", panic.downcast_ref::<String>())));
    let Model { clients, done, .. } = model;
    drop(clients);
    let outcome = outcome.and_then(|()| leaves_nothing(&sides));
    outcome.map_err(|difference| {
        let log = proxy.log();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let pins = proxy.metric_by("sluicegate_pins_total", "reason");
        (done, format!("{difference}\npins: {pins:?}\nlog: {last:#?}"))
    })
}

/// Everything that both sides have, for each client.
fn setup(flavour: Flavour) -> Vec<String> {
    let own: &[&str] = if flavour == Flavour::MariaDb { texts::SEQUENCES } else { &[] };
    let each = |text: &str| -> Vec<String> {
        let times = if text.contains("{c}") { CLIENTS } else { 1 };
        (0..times).map(|number| text.replace("{c}", &number.to_string())).collect()
    };
    texts::TABLES.iter().chain(own).flat_map(|text| each(text)).collect()
}

/// How each of them logs in.
fn client(sides: &Sides<'_>, number: usize) -> Client {
    use capability::{DEPRECATE_EOF, FOUND_ROWS, MULTI_STATEMENTS, PS_MULTI_RESULTS, SESSION_TRACK};
    // Without the last one the proxy gives it a procedure's OUT parameters all the same.
    let login = app().with(MULTI_STATEMENTS | PS_MULTI_RESULTS);
    let login = match number {
        0 | 1 => login,
        2 => login.with(SESSION_TRACK),
        // latin1_swedish_ci
        3 => MyLogin { collation: 8, ..login.without(DEPRECATE_EOF) },
        _ => login.with(FOUND_ROWS).without(MULTI_STATEMENTS),
    };
    let names = [sides.twin.clone(), sides.name.clone()];
    let logins = [0, 1].map(|side| login.clone().database(&names[side]));
    Client { number, logins, addresses: [sides.server.address(), sides.proxy.address], names }
}

impl Model<'_> {
    fn step(&mut self, which: usize, step: Step) -> Result<(), String> {
        let (before, rest) = self.clients.split_at_mut(which);
        let (client, behind) = rest.split_first_mut().unwrap();
        let mut others: Vec<(usize, &mut Twins)> =
            before.iter_mut().enumerate().chain((which + 1..).zip(behind)).collect();
        // Who most likely has one comes last.
        others.sort_by_key(|(_, other)| (other.is_in_transaction(), other.may_keep()));
        let (mut looked, mut made_room) = (Instant::now(), Vec::new());
        // First of all: it may panic.
        self.done.push((which, step.clone()));
        let outcome = client.does(&step, &mut || {
            if looked.elapsed() < LOOKS_EVERY || self.proxy.metric("sluicegate_clients_waiting") == 0.0 {
                return;
            }
            looked = Instant::now();
            if let Some((number, other)) = others.pop() {
                other.does(&Step::LogsInAgain, &mut || {}).unwrap();
                made_room.push((number, Step::LogsInAgain));
            }
        });
        let at = self.done.len() - 1;
        self.done.splice(at..at, made_room);
        outcome
    }
}

/// Behind all clients each of the connections is like a new one.
fn leaves_nothing(sides: &Sides<'_>) -> Result<(), String> {
    let login = app().with(capability::MULTI_STATEMENTS);
    let mut direct = MyWire::connect(sides.server.address(), &login.clone().database(&sides.twin)).unwrap();
    let connect = || MyWire::connect(sides.proxy.address, &login.clone().database(&sides.name)).unwrap();
    let mut clients: Vec<MyWire> = (0..CONNECTIONS).map(|_| connect()).collect();
    // So that each of them has one.
    clients.iter_mut().for_each(|client| _ = client.query("BEGIN"));
    for client in &mut clients {
        direct.query("BEGIN");
        for text in texts::LEFT {
            let both = [(&mut direct, &sides.twin), (&mut *client, &sides.name)].map(|(wire, name)| {
                let packets = wire.reply(&text.replace("{c}", "0").replace("{db}", name));
                packets.into_iter().map(|packet| renamed(packet, &sides.twin, &sides.name)).collect::<Vec<_>>()
            });
            let [one, other] = known::masked(&Step::Queries(Vec::new()), text, Before::default(), both);
            if one != other {
                return Err(format!("left behind: {text}{}", twins::difference(&one, &other)));
            }
        }
        if client.value("SELECT RELEASE_ALL_LOCKS()") != "0" {
            return Err("locks are left behind".to_owned());
        }
        client.query("ROLLBACK");
        direct.query("ROLLBACK");
    }
    let disagreements = sides.proxy.metric("sluicegate_disagreements_total");
    let log = sides.proxy.log();
    if disagreements > 0.0 || log.contains("panicked") {
        return Err(format!("{disagreements} disagreements\n{log}"));
    }
    Ok(())
}

/// Fewer steps that show a difference too: the last ones alone, and then without one after another.
fn shrunk(server: &MyServer, done: Vec<Done>, difference: String) -> Failure {
    println!("at step {}: {difference}\ntrying with fewer", done.len());
    let began = Instant::now();
    let is_over = || began.elapsed() > SHRINKS_FOR;
    let mut best: Option<Failure> = None;
    let mut length = 8;
    while best.is_none() && length < 2 * done.len() && !is_over() {
        best = attempt(server, done[done.len().saturating_sub(length)..].to_vec()).err();
        length *= 4;
    }
    let Some(mut best) = best else {
        // It does not come again: all that this client has done of late, and what the others did at the end.
        let (last, end) = (done.last().unwrap().0, done.len().saturating_sub(SHOWN));
        let shown = done.into_iter().enumerate().filter(|(at, (client, _))| *client == last || *at > end);
        let shown: Vec<Done> = shown.map(|(_, step)| step).collect();
        return (shown[shown.len().saturating_sub(2 * SHOWN)..].to_vec(), difference);
    };
    let mut chunk = best.0.len().div_ceil(2);
    while chunk > 0 && !is_over() {
        let mut at = 0;
        while at < best.0.len() && !is_over() {
            let fewer = [&best.0[..at], &best.0[(at + chunk).min(best.0.len())..]].concat();
            match attempt(server, fewer) {
                Err(found) => best = found,
                Ok(()) => at += chunk,
            }
        }
        chunk /= 2;
    }
    best
}
