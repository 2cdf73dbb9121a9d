//! The server's machine as tables: bytes in, bytes and status out. Every table is played whole and byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod copy;
mod hand_out;
mod limits;
mod model;
mod pins;
mod pipelines;
mod properties;
mod settings;
mod statements;
mod unnamed;
pub(crate) mod wire;

use super::*;
use crate::postgres::frame;
use crate::postgres::statement::STAND_IN;
use crate::protocol::Status::{Ended, Idle, InTransaction, Owing};
use crate::protocol::{Login, PinReason, Pins, ServerError, Welcome};
use wire::*;

const KEY: [u8; 16] = [7; 16];
const SET_CONFIG: &str = "SELECT pg_catalog.set_config($1, $2, false)";

fn server_with(max_prepared_statements: usize) -> Server {
    Server::new(Connected {
        parameters: [("application_name".to_owned(), String::new())].into(),
        process_id: 1,
        secret: vec![1; 4],
        max_prepared_statements,
        statement_key: KEY,
    })
}

fn client_with(client_id: u64, baseline: &[(&str, &str)]) -> Client {
    let login = Login {
        user: "app".into(),
        database: "app".into(),
        baseline: Arc::new(Settings::new(baseline.iter().copied())),
        fixed: Vec::new(),
        keys: None,
    };
    let mut parameters: Parameters = [("application_name".to_owned(), String::new())].into();
    for (name, value) in baseline.iter().filter(|(name, _)| *name == "application_name") {
        parameters.insert((*name).into(), (*value).into());
    }
    let parameters = Arc::new(parameters);
    let cancel_key = CancelKey { process_id: 1, secret: Box::default() };
    Client::new(&login, &Welcome { parameters, cancel_key, client_id, statement_key: KEY }, &[])
}

/// A statement's name on servers, for a client without settings.
fn name(text: &str) -> String {
    name_of(&parse_body(text))
}

fn name_of(body: &[u8]) -> String {
    String::from_utf8(Id::of(&KEY, body, 0).name().to_vec()).unwrap()
}

fn stand_in() -> &'static str {
    std::str::from_utf8(STAND_IN).unwrap()
}

/// A machine on each side, and what they have not taken yet.
struct Bench {
    server: Server,
    client: Client,
    client_tail: Vec<u8>,
    server_tail: Vec<u8>,
}

enum Side {
    Client,
    Server,
}

/// What a side says, what arrives at the other, and what the status is then.
struct Step {
    side: Side,
    says: Vec<u8>,
    arrives: Vec<u8>,
    status: Status,
}

fn step<const A: usize, const B: usize>(side: Side, says: [Vec<u8>; A], arrives: [Vec<u8>; B], status: Status) -> Step {
    Step { side, says: says.concat(), arrives: arrives.concat(), status }
}

fn client<const A: usize, const B: usize>(says: [Vec<u8>; A], arrives: [Vec<u8>; B], status: Status) -> Step {
    step(Side::Client, says, arrives, status)
}

fn server<const A: usize, const B: usize>(says: [Vec<u8>; A], arrives: [Vec<u8>; B], status: Status) -> Step {
    step(Side::Server, says, arrives, status)
}

/// As [`client`]; everything arrives as it was said.
fn client_passes<const A: usize>(says: [Vec<u8>; A], status: Status) -> Step {
    let arrives = says.clone();
    client(says, arrives, status)
}

/// As [`server`]; everything arrives as it was said.
fn server_passes<const A: usize>(says: [Vec<u8>; A], status: Status) -> Step {
    let arrives = says.clone();
    server(says, arrives, status)
}

impl Bench {
    fn new() -> Self {
        Self::with(server_with(100), client_with(1, &[]))
    }

    fn with(server: Server, client: Client) -> Self {
        let mut bench = Self { server, client, client_tail: Vec::new(), server_tail: Vec::new() };
        assert_eq!(bench.attach(), (vec![], vec![]));
        bench
    }

    /// Hands the connection to the client: what that says to the server and to the client.
    fn attach(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        self.server.attach(&mut self.client, Sides { client: &mut to_client, server: &mut to_server });
        (to_server, to_client)
    }

    /// Another client gets the connection.
    fn hand_to(&mut self, client: Client) -> Client {
        assert_eq!(self.server.status(), Idle);
        let before = std::mem::replace(&mut self.client, client);
        self.attach();
        before
    }

    /// The connection becomes another one.
    fn move_to(&mut self, server: Server) -> Server {
        assert_eq!(self.server.status(), Idle);
        let before = std::mem::replace(&mut self.server, server);
        self.attach();
        before
    }

    fn say(&mut self, side: &Side, bytes: &[u8]) -> Result<Vec<u8>, Violation> {
        let mut out = Out::new();
        let mut arrived = Vec::new();
        let tail = match side {
            Side::Client => &mut self.client_tail,
            Side::Server => &mut self.server_tail,
        };
        tail.extend_from_slice(bytes);
        let taken = match side {
            Side::Client => self.server.send(tail, &mut self.client, &mut out)?,
            Side::Server => self.server.receive(tail, Some(&mut self.client), &mut out)?,
        };
        out.copy_to(tail, 0, &mut arrived);
        tail.drain(..taken);
        Ok(arrived)
    }

    /// Plays the steps, in pieces of this size.
    fn play(&mut self, steps: &[Step], piece: usize) {
        for (number, step) in steps.iter().enumerate() {
            let mut arrived = Vec::new();
            // Nothing said: what was held back may go.
            let pieces = if step.says.is_empty() { vec![&[][..]] } else { step.says.chunks(piece).collect() };
            for piece in pieces {
                arrived.extend(self.say(&step.side, piece).unwrap_or_else(|error| panic!("step {number}: {error}")));
            }
            assert_eq!(show(&arrived), show(&step.arrives), "step {number}, pieces of {piece}");
            assert_eq!(self.server.status(), step.status, "step {number}, pieces of {piece}");
        }
        assert_eq!(self.server.tally().disagreements, 0);
    }
}

/// Plays the steps on a fresh pair of machines, whole and in pieces; the last one.
fn check(steps: &[Step]) -> Bench {
    check_on(Bench::new, steps)
}

fn check_on(make: impl Fn() -> Bench, steps: &[Step]) -> Bench {
    for piece in [1, 3] {
        make().play(steps, piece);
    }
    let mut bench = make();
    bench.play(steps, usize::MAX);
    bench
}

/// What a client that has prepared this statement on this connection, and nothing else, starts with.
fn prepared(client_name: &str, text: &str) -> Bench {
    let mut bench = Bench::new();
    bench.play(&prepares(client_name, text), usize::MAX);
    bench
}

fn prepares(client_name: &str, text: &str) -> [Step; 2] {
    [client([p(client_name, text), s()], [p(&name(text), text), s()], Owing), server_passes([pc(), z(b'I')], Idle)]
}
