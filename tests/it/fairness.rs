//! The line as clients see it: users take turns, and inside a user the order is that of arrival.
//!
//! Clients hold their connections in open transactions, and one at a time lets go: so every hand-out is seen.

use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use sluicegate::demo::servers::{Feature, PostgresServer};

use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::server;
use crate::harness::wire::{Login, PATIENCE, Wire, query, read_frame};

const FEW: &str = "fairness_few";
const FEW_PASSWORD: &str = "fairness-few-secret";
/// For clients, beside two of the proxy's own.
const CONNECTIONS: usize = 10;
const CROWD: usize = 1000;
/// A frame is read into memory of its own; this is for the call stack alone.
const STACK_BYTES: usize = 256 << 10;

/// Two users who log in at the proxy in a way that costs little.
fn two_users(server: &PostgresServer) -> String {
    let role = format!(
        "DO $$ BEGIN CREATE ROLE {FEW} LOGIN PASSWORD '{FEW_PASSWORD}'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    );
    server.run_sql("postgres", &role).unwrap();
    let few = format!("[[user]]\nname = \"{FEW}\"\nauth = [\"md5\"]\npassword = {{ value = \"{FEW_PASSWORD}\" }}\n");
    let text = set(&config(server.address(), CONNECTIONS as u32 + 2), "user", "auth", "[\"md5\"]");
    // They stand in line for a while.
    set(&text, "target_group.pool", "connection_borrow_timeout", "\"120s\"") + &few
}

/// Clients of both users, each with a number.
struct Clients {
    sockets: Vec<TcpStream>,
    /// Who is ready, and the transaction's status then.
    ready: Receiver<(usize, u8)>,
    told: Sender<(usize, u8)>,
}

impl Clients {
    fn new() -> Self {
        let (told, ready) = channel();
        Self { sockets: Vec::new(), ready, told }
    }

    /// One more.
    fn log_in(&mut self, proxy: &ProxyHandle, login: &Login) {
        let (number, told) = (self.sockets.len(), self.told.clone());
        let socket = Wire::log_in(proxy.address, login);
        socket.set_read_timeout(None).unwrap();
        let mut source = BufReader::with_capacity(1 << 10, socket.try_clone().unwrap());
        let reads = move || {
            while let Ok(frame) = read_frame(&mut source) {
                assert_ne!(frame.kind, b'E', "{frame}");
                if frame.kind == b'Z' && told.send((number, frame.body[0])).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(reads).unwrap();
        self.sockets.push(socket);
    }

    fn says(&mut self, number: usize, sql: &str) {
        self.sockets[number].write_all(&query(sql)).unwrap();
    }

    fn ready(&self) -> (usize, u8) {
        self.ready.recv_timeout(PATIENCE).unwrap()
    }

    /// Lets go of the connection it holds. Who gets it.
    fn lets_go(&mut self, number: usize) -> usize {
        self.says(number, "COMMIT");
        let mut both = [self.ready(), self.ready()];
        both.sort_by_key(|(_, status)| *status);
        let [(left, b'I'), (served, b'T')] = both else { panic!("{both:?}") };
        assert_eq!(left, number);
        served
    }
}

/// Until so many clients stand in line.
fn wait_for_waiting(proxy: &ProxyHandle, expected: usize) {
    proxy.until_metric("sluicegate_clients_waiting", expected as u64);
}

/// A thousand clients are many files.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

#[test]
fn a_crowd_of_one_user_does_not_hold_up_another() {
    raise_file_limit();
    let proxy = start(&two_users(server(Feature::Any)));
    let [app, few] = [Login::app(), Login::new(FEW, FEW_PASSWORD)].map(|login| login.database("app"));
    let mut clients = Clients::new();
    let crowd = 0..CONNECTIONS + CROWD;
    let few_numbers = crowd.end..crowd.end + 10;
    crowd.clone().for_each(|_| clients.log_in(&proxy, &app));
    few_numbers.clone().for_each(|_| clients.log_in(&proxy, &few));

    // The first of the crowd hold all connections there are; the rest stands in line, group by group.
    let mut holders = VecDeque::new();
    for number in 0..CONNECTIONS {
        clients.says(number, "BEGIN");
        assert_eq!(clients.ready(), (number, b'T'));
        holders.push_back(number);
    }
    let group = |number: usize| (number - CONNECTIONS) / 100;
    for number in CONNECTIONS..crowd.end {
        clients.says(number, "BEGIN");
        if group(number + 1) > group(number) {
            wait_for_waiting(&proxy, number + 1 - CONNECTIONS);
        }
    }
    // The few come last, one behind the other.
    for (place, number) in few_numbers.clone().enumerate() {
        clients.says(number, "BEGIN");
        wait_for_waiting(&proxy, CROWD + place + 1);
    }

    let mut served = Vec::new();
    while served.len() < CROWD + 10 {
        let next = clients.lets_go(holders.pop_front().unwrap());
        holders.push_back(next);
        served.push(next);
    }
    let last_of_few = served.iter().rposition(|number| few_numbers.contains(number)).unwrap();
    assert!(last_of_few < 30, "the last of the few had to wait for {last_of_few} others");
    let (of_few, of_crowd): (Vec<usize>, Vec<usize>) = served.iter().partition(|number| few_numbers.contains(number));
    assert!(of_few.is_sorted(), "{of_few:?}");
    let groups: Vec<usize> = of_crowd.into_iter().map(group).collect();
    assert!(groups.is_sorted(), "{groups:?}");
}
