//! The Postgres machines alone: bytes in, bytes out, no socket. `cargo bench --bench machines`.
//!
//! Throughput is in frames, both directions counted, where frames are what costs; in bytes where rows are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::postgres::client::Client;
use sluicegate::postgres::connect::Connected;
use sluicegate::postgres::server::Server;
use sluicegate::protocol::{
    CancelKey, ClientSide, Login, Out, Parameters, ServerSide, Settings, Sides, Status, Welcome,
};
use sluicegate::sql::{self, Dialect};

/// What pgbench -S sends.
const POINT_SELECT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 55555;";
const POINT_SELECT_PREPARED: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;";
/// A text as object-relational mappers write them.
const LONG_SELECT: &[u8] = b"SELECT \"order\".\"id\" AS \"order_id\", \"order\".\"created_at\" AS \"order_created_at\", \
    \"customer\".\"name\" AS \"customer_name\", \"customer\".\"e_mail\" AS \"customer_e_mail\", count(\"item\".\"id\") AS \"items\" \
    FROM \"order\" JOIN \"customer\" ON \"customer\".\"id\" = \"order\".\"customer_id\" LEFT JOIN \"item\" ON \"item\".\"order_id\" \
    = \"order\".\"id\" WHERE \"order\".\"created_at\" > '2026-01-01 00:00:00' AND \"order\".\"state\" IN ('open', 'paid', 'sent') \
    GROUP BY 1, 2, 3, 4 ORDER BY \"order\".\"created_at\" DESC LIMIT 50 OFFSET 100";

criterion_group!(benches, exchanges, rows, classify);
criterion_main!(benches);

/// A client and the database connection it holds.
struct Pair {
    client: Client,
    server: Server,
    out: Out,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let parameters: Parameters = [("client_encoding", "UTF8"), ("standard_conforming_strings", "on")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let (user, database) = ("app".to_owned(), "app".to_owned());
        let login = Login { user, database, baseline: Arc::new(Settings::default()), fixed: Vec::new(), keys: None };
        let welcome = Welcome {
            parameters: Arc::new(parameters.clone()),
            cancel_key: CancelKey { process_id: 1, secret: Box::default() },
            client_id: 1,
            statement_key: [7; 16],
        };
        let connected = Connected {
            parameters,
            process_id: 1,
            secret: Vec::new(),
            max_prepared_statements: 200,
            statement_key: [7; 16],
        };
        Self {
            client: Client::new(&login, &welcome, &[]),
            server: Server::new(connected),
            out: Out::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
        }
    }

    /// A request and its reply, from detached to idle.
    fn exchange(&mut self, request: &[u8], reply: &[u8]) {
        let (taken, verdict) = self.client.detached(request, &mut self.to_client).unwrap();
        black_box((taken, verdict));
        let sides = Sides { client: &mut self.to_client, server: &mut self.to_server };
        self.server.attach(&mut self.client, sides);
        self.out.clear();
        let sent = self.server.send(request, &mut self.client, &mut self.out).unwrap();
        black_box(self.out.slices(request).map(<[u8]>::len).sum::<usize>());
        self.out.clear();
        let received = self.server.receive(reply, Some(&mut self.client), &mut self.out).unwrap();
        black_box(self.out.slices(reply).map(<[u8]>::len).sum::<usize>());
        assert_eq!((sent, received, self.server.status()), (request.len(), reply.len(), Status::Idle));
    }
}

fn exchanges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exchange");
    let query = frame(b'Q', &[POINT_SELECT, b"\0"]);
    let row = [frame(b'T', &[&[0; 33]]), data_row(b"0")].concat();
    let done = [frame(b'C', &[b"SELECT 1\0"]), frame(b'Z', &[b"I"])].concat();
    let reply = [row.clone(), done.clone()].concat();
    let mut pair = Pair::new();
    group.throughput(Throughput::Elements(5));
    group.bench_function("simple", |b| b.iter(|| pair.exchange(&query, &reply)));

    let bind = |name: &[u8]| frame(b'B', &[b"\0", name, b"\0\0\0\0\x01\0\0\0\x0555555\0\0"]);
    let run = [frame(b'D', &[b"P\0"]), frame(b'E', &[b"\0\0\0\0\0"]), frame(b'S', &[])].concat();
    let unnamed = [frame(b'P', &[b"\0", POINT_SELECT_PREPARED, b"\0\0\0"]), bind(b""), run.clone()].concat();
    let reply = [frame(b'1', &[]), frame(b'2', &[]), row.clone(), done.clone()].concat();
    let mut pair = Pair::new();
    group.throughput(Throughput::Elements(11));
    group.bench_function("extended", |b| b.iter(|| pair.exchange(&unnamed, &reply)));

    let mut pair = Pair::new();
    let prepare = [frame(b'P', &[b"P_0\0", POINT_SELECT_PREPARED, b"\0\0\0"]), frame(b'S', &[])].concat();
    pair.exchange(&prepare, &[frame(b'1', &[]), frame(b'Z', &[b"I"])].concat());
    let prepared = [bind(b"P_0"), run].concat();
    let reply = [frame(b'2', &[]), row, done].concat();
    group.throughput(Throughput::Elements(9));
    group.bench_function("prepared", |b| b.iter(|| pair.exchange(&prepared, &reply)));
    group.finish();
}

/// A megabyte of narrow rows, in reads of 64 KiB as the relay makes them.
fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    let query = frame(b'Q', &[b"SELECT i FROM narrow\0"]);
    let mut reply = frame(b'T', &[&[0; 25]]);
    let row = data_row(b"12345");
    let count = (1 << 20) / row.len();
    for _ in 0..count {
        reply.extend_from_slice(&row);
    }
    reply.extend(frame(b'C', &[b"SELECT 65536\0"]));
    reply.extend(frame(b'Z', &[b"I"]));
    let mut pair = Pair::new();
    group.throughput(Throughput::Bytes(reply.len() as u64));
    group.bench_function("narrow, 1 MB", |b| {
        b.iter(|| {
            pair.out.clear();
            pair.server.send(&query, &mut pair.client, &mut pair.out).unwrap();
            let (mut at, mut end) = (0, 0);
            while at < reply.len() {
                end = (end + (64 << 10)).min(reply.len());
                pair.out.clear();
                at += pair.server.receive(&reply[at..end], Some(&mut pair.client), &mut pair.out).unwrap();
                black_box(pair.out.len());
            }
            assert_eq!(pair.server.status(), Status::Idle);
        });
    });
    group.finish();
}

fn classify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    let many: Vec<u8> = b"INSERT INTO t (a, b) VALUES (1, 'some text, and more of it');\n".repeat(1000);
    for (name, text) in [("point select", POINT_SELECT), ("mapper's select", LONG_SELECT), ("1000 inserts", &many)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| sql::classify(black_box(text), Dialect::default())));
    }
    group.finish();
}

fn frame(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), &body].concat()
}

/// One column.
fn data_row(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    frame(b'D', &[&[0, 1], &length.to_be_bytes(), value])
}
