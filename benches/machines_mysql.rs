//! The MySQL machines alone: bytes in, bytes out, no socket. `cargo bench --bench machines_mysql`.
//!
//! Two clients take turns on one connection, as hundreds do behind a proxy that is busy: each exchange is one statement, from the moment its
//! client gets the connection until that is idle again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use sluicegate::mysql::accept::Started;
use sluicegate::mysql::capabilities::{Capabilities, Extended};
use sluicegate::mysql::client::Client;
use sluicegate::mysql::connect::Connected;
use sluicegate::mysql::server::Server;
use sluicegate::protocol::{
    CancelKey, ClientSide, ConnectOptions, Login, Out, Parameters, ServerSide, Settings, Sides, Status, Welcome,
};
use sluicegate::sql::mysql::{Dialect, classify};

const QUERY: u8 = 3;
const PREPARE: u8 = 0x16;
const EXECUTE: u8 = 0x17;
/// As sysbench says them.
const POINT_SELECT: &str = "SELECT c FROM sbtest1 WHERE id=5012";
const UPDATE: &str = "UPDATE sbtest1 SET c='83868641912-28773972837-60736120486-75162659906-27563526494-20381887404-41576422241-93426793964-56405065102-33518432330' WHERE id=5012";
/// As object-relational mappers write them.
const LONG_SELECT: &str = "SELECT `order`.`id` AS `order_id`, `order`.`created_at` AS `order_created_at`, `customer`.`name` AS \
    `customer_name`, `customer`.`e_mail` AS `customer_e_mail`, count(`item`.`id`) AS `items` FROM `order` JOIN `customer` ON \
    `customer`.`id` = `order`.`customer_id` LEFT JOIN `item` ON `item`.`order_id` = `order`.`id` WHERE `order`.`created_at` > \
    '2026-01-01 00:00:00' AND `order`.`state` IN ('open', 'paid', 'sent') GROUP BY 1, 2, 3, 4 ORDER BY `order`.`created_at` DESC \
    LIMIT 50 OFFSET 100";

criterion_group!(benches, exchanges, classified);
criterion_main!(benches);

/// Clients, and the connection that they share.
struct Shared {
    clients: [Client; 2],
    server: Server,
    out: Out,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

impl Shared {
    fn new() -> Self {
        let mut shared = Self {
            clients: [1, 2].map(client),
            server: Server::new(Connected {
                version: "9.7.4".to_owned(),
                connection_id: 5,
                status: 2,
                capabilities: Capabilities::empty(),
                extended: Extended::empty(),
                options: ConnectOptions {
                    user: "app".to_owned(),
                    database: "app".to_owned(),
                    fixed: Vec::new(),
                    secret: None,
                    tls: false,
                    local_socket: false,
                    nonce: [0; 18],
                    max_prepared_statements: 200,
                    statement_key: [0; 16],
                    learned: Arc::default(),
                },
            }),
            out: Out::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
        };
        let (request, reply) = (request(POINT_SELECT), rows());
        // From the second time on nothing is set any more.
        (0..4).for_each(|_| shared.exchange(&request, &reply));
        shared
    }

    fn exchange(&mut self, request: &[u8], reply: &[u8]) {
        self.clients.swap(0, 1);
        let [client, _] = &mut self.clients;
        black_box(client.detached(request, &mut self.to_client).unwrap());
        self.to_server.clear();
        let sides = Sides { client: &mut self.to_client, server: &mut self.to_server };
        self.server.attach(client, sides);
        while self.server.status() == Status::Owing {
            self.out.clear();
            self.server.receive(&ok(), Some(client), &mut self.out).unwrap();
        }
        self.out.clear();
        let sent = self.server.send(request, client, &mut self.out).unwrap();
        black_box(self.out.slices(request).map(<[u8]>::len).sum::<usize>());
        self.out.clear();
        let received = self.server.receive(reply, Some(client), &mut self.out).unwrap();
        black_box(self.out.slices(reply).map(<[u8]>::len).sum::<usize>());
        assert_eq!((sent, received, self.server.status()), (request.len(), reply.len(), Status::Idle));
    }
}

fn client(client_id: u64) -> Client {
    let (user, database) = ("app".to_owned(), "app".to_owned());
    let baseline = Arc::new(Settings::new([("names", "45")]));
    let welcome = Welcome {
        parameters: Arc::new(Parameters::new()),
        cancel_key: CancelKey { process_id: 1, secret: Box::default() },
        client_id,
        statement_key: [0; 16],
    };
    Client::new(&Started {
        login: Login { user, database, baseline, fixed: Vec::new(), keys: None },
        welcome,
        capabilities: Capabilities::CLIENT_DEPRECATE_EOF | Capabilities::CLIENT_SESSION_TRACK,
        extended: Extended::empty(),
        application: String::new(),
        compression: None,
    })
}

fn exchanges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exchange");
    for (name, text, reply) in
        [("point select", POINT_SELECT, rows()), ("update", UPDATE, ok()), ("mapper's select", LONG_SELECT, rows())]
    {
        let mut shared = Shared::new();
        let request = request(text);
        group.bench_function(name, |b| b.iter(|| shared.exchange(&request, &reply)));
    }
    let mut shared = Shared::new();
    let text = "SELECT c FROM sbtest1 WHERE id=?";
    let prepare = packet(0, &[&[PREPARE], text.as_bytes()].concat());
    // Number 1, with one parameter and one column.
    let is_prepared = [packet(1, b"\0\x01\0\0\0\x01\0\x01\0\0\0\0"), packet(2, COLUMN), packet(3, COLUMN)].concat();
    // Each client's first, the second one of which is there already.
    shared.exchange(&prepare, &is_prepared);
    shared.exchange(&prepare, &is_prepared);
    let number = 1_u32.to_le_bytes();
    // No cursor, once; no NULL; types follow: of an integer.
    let execute = packet(0, &[&[EXECUTE], &number[..], b"\0\x01\0\0\0\0\x01\x03\0\x94\x13\0\0"].concat());
    let reply = binary_rows();
    group.bench_function("prepared", |b| b.iter(|| shared.exchange(&execute, &reply)));
    group.finish();
}

fn classified(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    for (name, text) in [("point select", POINT_SELECT), ("update", UPDATE), ("mapper's select", LONG_SELECT)] {
        group.bench_function(name, |b| b.iter(|| classify(black_box(text.as_bytes()), Dialect::default())));
    }
    group.finish();
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&[low, middle, high, sequence], payload].concat()
}

fn request(text: &str) -> Vec<u8> {
    packet(0, &[&[QUERY], text.as_bytes()].concat())
}

fn ok() -> Vec<u8> {
    packet(1, &[0, 0, 0, 2, 0, 0, 0])
}

const COLUMN: &[u8] = b"\x03def\x03app\x07sbtest1\x07sbtest1\x01c\x01c\x0C\x2D\0\xE0\x01\0\0\xFE\x01\0\0\0\0";

/// One row of one column, and an OK in place of an EOF.
fn rows() -> Vec<u8> {
    result(&[&[119][..], &[b'5'; 119]].concat())
}

fn binary_rows() -> Vec<u8> {
    result(&[&[0, 0, 119][..], &[b'5'; 119]].concat())
}

fn result(row: &[u8]) -> Vec<u8> {
    [packet(1, &[1]), packet(2, COLUMN), packet(3, row), packet(4, &[0xFE, 0, 0, 2, 0, 0, 0])].concat()
}
