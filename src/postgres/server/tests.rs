//! The server's machine as tables: bytes in, bytes and status out. Every table is played whole and byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod limits;
mod model;
mod pins;
mod properties;
mod settings;
pub(crate) mod wire;

use super::*;
use crate::postgres::frame;
use crate::postgres::statement::STAND_IN;
use crate::protocol::Status::{Ended, Idle, InTransaction, Owing};
use crate::protocol::{Login, PinReason, Pins, ServerError, Welcome};
use wire::*;

const KEY: [u8; 16] = [7; 16];

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

// ---------------------------------------------------------------------------------------------- pipelines

#[test]
fn simple_queries_pass() {
    check(&[
        client_passes([q("SELECT 1")], Owing),
        server_passes([t(), row("1"), tag("SELECT 1")], Owing),
        server_passes([z(b'I')], Idle),
        client_passes([q("BEGIN"), q("SELECT 2")], Owing),
        server_passes([tag("BEGIN"), z(b'T')], Owing),
        server_passes([t(), tag("SELECT 0"), z(b'T')], InTransaction),
        client_passes([q("COMMIT")], Owing),
        server_passes([tag("COMMIT"), z(b'I')], Idle),
    ]);
}

/// Scenario 1.
#[test]
fn an_error_in_the_middle_of_a_pipeline_takes_the_rest_with_it() {
    let run = |text: &str| [p(&name(text), text), b("", &name(text)), e("")].concat();
    let mut bench = check(&[
        client(
            [p("a", "A"), b("", "a"), e(""), p("b", "B"), b("", "b"), e(""), p("c", "C"), b("", "c"), e(""), s()],
            [run("A"), run("B"), run("C"), s()],
            Owing,
        ),
        server_passes([pc(), bc(), tag("SELECT 0"), err("42601", "no")], Owing),
        server_passes([z(b'I')], Idle),
    ]);
    let known = |bench: &Bench, name: &[u8]| bench.client.statements.find(name).is_some();
    assert!(known(&bench, b"a") && !known(&bench, b"b") && !known(&bench, b"c"));
    assert_eq!(bench.server.prepared.len(), 1);
    // The names are free.
    bench.play(&prepares("b", "B2"), usize::MAX);
    bench.play(&prepares("c", "C"), usize::MAX);
}

/// Scenario 2.
#[test]
fn a_query_inside_an_extended_pipeline_is_skipped_with_it() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [b("", "a"), e(""), q("RELEASE SAVEPOINT x")],
                [b("", &name("A")), e(""), q("RELEASE SAVEPOINT x")],
                Owing,
            ),
            server_passes([bc(), err("22012", "no")], InTransaction),
            // Read over, not sent.
            client([q("SELECT 2"), b("", "a"), h()], [], InTransaction),
            client_passes([s()], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
}

/// Scenario 3.
#[test]
fn a_query_that_fails_inside_an_extended_pipeline_takes_nothing_with_it() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [b("", "a"), e(""), q("X"), q("Y"), q("Z"), s()],
                [b("", &name("A")), e(""), q("X"), q("Y"), q("Z"), s()],
                Owing,
            ),
            server_passes([bc(), tag("SELECT 0"), err("42P01", "x"), z(b'E')], Owing),
            server_passes([err("25P02", "y"), z(b'E')], Owing),
            server_passes([err("25P02", "z"), z(b'E')], Owing),
            server_passes([z(b'E')], InTransaction),
        ],
    );
}

/// Scenario 4.
#[test]
fn three_pipelined_transactions_are_held_to_the_third_answer() {
    let one = || [b("", "a"), e(""), s()].concat();
    let sent = || [b("", &name("A")), e(""), s()].concat();
    let answer = || [bc(), tag("SELECT 0"), z(b'I')].concat();
    check_on(
        || prepared("a", "A"),
        &[
            client([one(), one(), one()], [sent(), sent(), sent()], Owing),
            server_passes([answer()], Owing),
            server_passes([answer()], Owing),
            server_passes([bc(), tag("SELECT 0")], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
}

/// Scenarios 5 and 10: never a Sync of the proxy's own, and the connection stays until the client's.
#[test]
fn a_flush_is_no_end() {
    check(&[
        client([p("a", "A"), ds("a"), h()], [p(&name("A"), "A"), ds(&name("A")), h()], Owing),
        server_passes([pc(), pd(), t()], InTransaction),
        client([b("", "a"), e(""), h()], [b("", &name("A")), e(""), h()], Owing),
        server_passes([bc(), row("1"), tag("SELECT 1")], InTransaction),
        client_passes([s()], Owing),
        server_passes([z(b'I')], Idle),
    ]);
}

/// Scenario 6 and 7.
#[test]
fn portals_pass_as_they_are() {
    check_on(
        || prepared("a", "A"),
        &[
            client([b("c", "a"), e_max("c", 2), h()], [b("c", &name("A")), e_max("c", 2), h()], Owing),
            server_passes([bc(), row("1"), row("2"), suspended()], InTransaction),
            client_passes([e_max("c", 2), dp("c"), e("c"), cp("c"), s()], Owing),
            server_passes([row("3"), tag("SELECT 1"), t(), tag("SELECT 0"), cc(), z(b'I')], Idle),
        ],
    );
}

/// Scenario 32.
#[test]
fn closing_a_portal_leaves_the_statement_of_that_name() {
    let bench =
        check_on(|| prepared("x", "A"), &[client_passes([cp("x"), s()], Owing), server_passes([cc(), z(b'I')], Idle)]);
    assert!(bench.client.statements.find(b"x").is_some());
}

/// Scenario 13: a deferred constraint fails at the Sync.
#[test]
fn an_error_at_the_sync_belongs_to_the_sync() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [b("", "a"), e(""), s(), b("", "a"), e(""), s()],
                [b("", &name("A")), e(""), s(), b("", &name("A")), e(""), s()],
                Owing,
            ),
            server_passes([bc(), tag("INSERT 0 1"), err("23503", "deferred"), z(b'I')], Owing),
            server_passes([bc(), tag("INSERT 0 1"), z(b'I')], Idle),
        ],
    );
}

#[test]
fn after_an_error_without_a_sync_everything_is_read_over() {
    check(&[
        client_passes([p("", "A"), h()], Owing),
        server_passes([err("42601", "no")], InTransaction),
        client(
            [p("a", "A"), b("", "a"), e(""), d("x"), c(), f(), function(1), h(), cs("a"), ds("a")],
            [],
            InTransaction,
        ),
        client_passes([s()], Owing),
        server_passes([z(b'I')], Idle),
        client([b("", "a"), s()], [b("", "a"), s()], Owing),
        server_passes([err("26000", "prepared statement \"a\" does not exist"), z(b'I')], Idle),
    ]);
}

/// Scenario 17.
#[test]
fn empty_queries() {
    check(&[
        client_passes([q("")], Owing),
        server_passes([empty(), z(b'I')], Idle),
        client_passes([p("", ""), b("", ""), e(""), s()], Owing),
        server_passes([pc(), bc(), empty(), z(b'I')], Idle),
    ]);
}

/// Scenario 18. A large object's function leaves nothing behind; any other may.
#[test]
fn function_calls() {
    let bench = check(&[
        client_passes([function(952)], Owing),
        server_passes([v(&"large".repeat(1000)), z(b'I')], Idle),
        client_passes([function(952), function(953)], Owing),
        server_passes([err("22023", "no"), z(b'I'), v("x"), z(b'I')], Idle),
    ]);
    assert_eq!(bench.client.pins, Pins::NONE);
    let bench = check(&[client_passes([function(1)], Owing), server_passes([v("x"), z(b'I')], Idle)]);
    assert_eq!(bench.client.pins, Pins::of(PinReason::OpaqueCode));
}

/// Scenario 11.
#[test]
fn a_fatal_error_ends_the_connection_with_its_words() {
    let last = || fatal("57P01", "terminating connection due to administrator command");
    check_on(
        || prepared("a", "A"),
        &[
            client([b("", "a"), e(""), s(), q("B")], [b("", &name("A")), e(""), s(), q("B")], Owing),
            server_passes([bc(), last()], Ended),
            server([z(b'I')], [], Ended),
        ],
    );
    check(&[server_passes([last()], Ended)]);
}

/// Scenarios 19 and 20.
#[test]
fn notices_and_reports_count_for_nothing() {
    let bench = check_on(
        || prepared("a", "A"),
        &[
            server_passes([notice("idle"), status("TimeZone", "UTC")], Idle),
            client([b("", "a"), e(""), s()], [b("", &name("A")), e(""), s()], Owing),
            server_passes([notice("one"), bc(), notice("two"), status("TimeZone", "Asia/Tokyo")], Owing),
            server_passes([tag("SET"), status("DateStyle", "ISO"), status("is_superuser", "on"), z(b'I')], Idle),
            server([notification("stranger's")], [], Idle),
        ],
    );
    assert_eq!(bench.server.reported.parameters.get("TimeZone").map(String::as_str), Some("Asia/Tokyo"));
    assert_eq!(bench.client.told.parameters, bench.server.reported.parameters);
}

#[test]
fn notifications_go_to_one_who_listens() {
    let bench = check(&[
        client_passes([q("LISTEN a")], Owing),
        server_passes([tag("LISTEN"), z(b'I')], Idle),
        server_passes([notification("a")], Idle),
    ]);
    assert!(bench.client.pins.contains(PinReason::Listen));
    // While the server is asked what is left on the connection, too.
    let mut bench = bench;
    let mut asked = Vec::new();
    assert!(bench.server.verify(&bench.client, &mut asked));
    let answer = [row("listen"), tag("SELECT 1"), z(b'I')].concat();
    bench.play(
        &[
            server([notification("a"), pc(), bc(), notification("b")], [notification("a"), notification("b")], Owing),
            server([answer], [], Idle),
        ],
        usize::MAX,
    );
    assert!(bench.client.pins.contains(PinReason::Listen));
}

#[test]
fn nobody_attached_nothing_passed_on() {
    let mut bench = Bench::new();
    let mut out = Out::new();
    let said = [notice("x"), status("TimeZone", "UTC"), notification("a")].concat();
    assert_eq!(bench.server.receive(&said, None, &mut out), Ok(said.len()));
    assert!(out.is_empty());
    // Told at the next hand-out.
    assert_eq!(bench.attach(), (vec![], status("TimeZone", "UTC")));
    assert_eq!(bench.attach(), (vec![], vec![]));
}

#[test]
fn replies_nobody_asked_for_are_breaches() {
    let unasked = [row("1"), t(), n(), pd(), pc(), bc(), cc(), z(b'I'), tag("SELECT 1"), empty(), suspended(), v("x")];
    for reply in unasked.iter().chain(&[copy_in(), copy_out(), err("22012", "x"), raw(b'W', b"\0\0\0"), raw(b'!', b"")])
    {
        let mut bench = Bench::new();
        let expected = Violation::UnexpectedReply(reply[0]);
        assert_eq!(bench.say(&Side::Server, reply), Err(expected), "{:?}", show(reply));
    }
}

#[test]
fn frames_no_client_may_send_are_breaches() {
    for kind in (0..=255u8).filter(|kind| !b"QPBEDCSHFdcfX".contains(kind)) {
        assert_eq!(Bench::new().say(&Side::Client, &raw(kind, b"")), Err(Violation::UnexpectedFrame(kind)));
    }
    let malformed = [
        raw(b'P', b"no end"),
        raw(b'P', b"a\0no end"),
        raw(b'B', b"a\0b"),
        raw(b'D', b""),
        raw(b'C', b"Sx"),
        // The server would answer this with an error that nothing owed explains.
        raw(b'H', b"x"),
    ];
    for frame in malformed {
        assert_eq!(Bench::new().say(&Side::Client, &frame), Err(Violation::MalformedFrame(frame[0])));
    }
    for head in [b"Q\0\0\0\x03", b"S\xff\xff\xff\xff", b"P\0\0\0\0"] {
        assert_eq!(Bench::new().say(&Side::Client, head), Err(Violation::InvalidLength));
        assert_eq!(Bench::new().say(&Side::Server, head), Err(Violation::InvalidLength));
    }
}

#[test]
fn goodbye_is_not_passed_on() {
    let bench = check(&[client([q("A"), x(), q("B")], [q("A")], Owing), server_passes([tag("A"), z(b'I')], Idle)]);
    assert!(bench.client.ended);
    assert_eq!(bench.client_tail, [x(), q("B")].concat());
}

// ---------------------------------------------------------------------------------------------- COPY

#[test]
fn copy_in_and_out() {
    check(&[
        client_passes([q("COPY a FROM STDIN")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([d("1"), h(), d("2"), c()], Owing),
        server_passes([tag("COPY 2"), z(b'I')], Idle),
        client_passes([q("COPY a TO STDOUT")], Owing),
        server_passes([copy_out(), d("1"), d("2"), c(), tag("COPY 2"), z(b'I')], Idle),
        client_passes([q("COPY a FROM STDIN")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([f()], Owing),
        server_passes([err("57014", "COPY from stdin failed"), z(b'I')], Idle),
    ]);
}

/// Scenario 86.
#[test]
fn copy_data_behind_an_error_is_late() {
    check(&[
        client_passes([q("COPY a FROM STDIN")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([d("1"), d("bad")], Owing),
        server_passes([err("22P04", "no"), z(b'I')], Idle),
        client_passes([d("3"), c()], Idle),
        client_passes([q("SELECT 1")], Owing),
        server_passes([tag("SELECT 0"), z(b'I')], Idle),
    ]);
}

/// Scenario 87.
#[test]
fn syncs_inside_copy_data_are_owed_nothing() {
    check(&[
        // Sent ahead of the server's word.
        client_passes([p("", "COPY"), b("", ""), e(""), s(), d("1"), s(), c(), s()], Owing),
        server_passes([pc(), bc(), copy_in(), tag("COPY 1")], Owing),
        server_passes([z(b'I')], Idle),
        // And behind it.
        client_passes([p("", "COPY"), b("", ""), e(""), s()], Owing),
        server_passes([pc(), bc(), copy_in()], Owing),
        client_passes([s(), d("1"), s(), c(), s()], Owing),
        server_passes([tag("COPY 1"), z(b'I')], Idle),
        // An error ends the data: the last Sync counts.
        client_passes([p("", "COPY"), b("", ""), e(""), s()], Owing),
        server_passes([pc(), bc(), copy_in()], Owing),
        client_passes([d("bad")], Owing),
        server_passes([err("22P04", "no")], InTransaction),
        client([d("1"), c()], [], InTransaction),
        client_passes([s()], Owing),
        server_passes([z(b'I')], Idle),
    ]);
}

/// Another request ends the data with an error: the Sync behind it counts.
#[test]
fn a_request_in_the_middle_of_copy_data() {
    check(&[
        client_passes([p("", "COPY"), b("", ""), e(""), h()], Owing),
        server_passes([pc(), bc(), copy_in()], Owing),
        client_passes([d("1"), s(), b("", ""), s()], Owing),
        server_passes([err("08P01", "unexpected message type 0x42 during COPY from stdin"), z(b'I')], Idle),
    ]);
}

#[test]
fn a_copy_that_never_began() {
    check(&[
        client_passes([p("", "COPY"), b("", ""), e(""), s(), d("1"), c(), s(), q("A")], Owing),
        server_passes([err("42601", "no"), z(b'I')], Owing),
        server_passes([z(b'I'), tag("A"), z(b'I')], Idle),
    ]);
}

/// A Sync in the middle of COPY data is read over: what is owed behind the data comes only when it is asked for.
#[test]
fn a_wait_behind_copy_data() {
    let copy = || [p(&name("COPY"), "COPY"), b("", &name("COPY")), e(""), s()].concat();
    let behind = || [b("", &name("COPY")), e(""), s()].concat();
    // All of it before the server is seen to ask for data.
    check(&[
        client(
            [p("a", "COPY"), b("", "a"), e(""), s(), d("1"), c(), b("", "a"), e(""), s()],
            [copy(), d("1"), c(), h()],
            Owing,
        ),
        server_passes([pc(), bc(), copy_in(), tag("COPY 1")], InTransaction),
        client([], [behind()], Owing),
        server_passes([bc(), copy_in()], Owing),
        client_passes([d("2"), c(), s()], Owing),
        server_passes([tag("COPY 1"), z(b'I')], Idle),
    ]);
}

#[test]
fn two_copies_in_one_query() {
    let answers = || [copy_in(), tag("COPY 1"), copy_in(), tag("COPY 0"), z(b'I')];
    check(&[
        client_passes([q("COPY a; COPY b")], Owing),
        server_passes([copy_in()], Owing),
        client_passes([d("1"), c()], Owing),
        server_passes([tag("COPY 1"), copy_in()], Owing),
        client_passes([c()], Owing),
        server_passes([tag("COPY 0"), z(b'I')], Idle),
        // Both ended before the server was seen to ask for either; a Sync behind them.
        client_passes([q("COPY a; COPY b"), d("1"), c(), c(), s()], Owing),
        server_passes(answers(), Owing),
        server_passes([z(b'I')], Idle),
        // And two queries.
        client_passes([q("COPY a"), d("1"), c(), q("COPY b"), c()], Owing),
        server_passes([copy_in(), tag("COPY 1"), z(b'I')], Owing),
        server_passes([copy_in(), tag("COPY 0"), z(b'I')], Idle),
    ]);
}

#[test]
fn ends_of_copy_data_without_end_do_not_pile_up() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("A")).unwrap();
    bench.say(&Side::Client, &c().repeat(100_000)).unwrap();
    assert!(bench.server.owed.len() <= owed::OWED_MAX);
    bench.say(&Side::Server, &[tag("A"), z(b'I')].concat()).unwrap();
    bench.say(&Side::Client, b"").unwrap();
    assert_eq!(bench.server.status(), Idle);
}

// ---------------------------------------------------------------------------------------------- statements

#[test]
fn names_are_the_proxys_own_and_errors_show_the_clients() {
    check_on(
        || prepared("a", "A"),
        &[
            client([ds("a"), b("", "a"), s()], [ds(&name("A")), b("", &name("A")), s()], Owing),
            server(
                [pd(), n(), err("26000", &format!("prepared statement \"{}\" does not exist", name("A"))), z(b'I')],
                [pd(), n(), err("26000", "prepared statement \"a\" does not exist"), z(b'I')],
                Idle,
            ),
        ],
    );
}

/// Scenarios 26 and 25.
#[test]
fn a_taken_name_and_unknown_names() {
    let taken = |name: &str| err("42P05", &format!("prepared statement \"{name}\" already exists"));
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [p("a", "B"), s()],
                [cs(&taken_for("a")), p(&taken_for("a"), ""), p(&taken_for("a"), "B"), s()],
                Owing,
            ),
            server([cc(), pc(), taken(&taken_for("a")), z(b'I')], [taken("a"), z(b'I')], Idle),
            client([b("", "a"), s()], [b("", &name("A")), s()], Owing),
            server_passes([bc(), z(b'I')], Idle),
            client_passes([b("", "b"), e(""), s()], Owing),
            server_passes([err("26000", "prepared statement \"b\" does not exist"), z(b'I')], Idle),
            client_passes([ds("b"), s()], Owing),
            server_passes([err("26000", "prepared statement \"b\" does not exist"), z(b'I')], Idle),
            // 31
            client_passes([cs("b"), s()], Owing),
            server_passes([cc(), z(b'I')], Idle),
        ],
    );
}

/// What is taken on the server for a name that is.
fn taken_for(name: &str) -> String {
    String::from_utf8(super::names::stand_in_for(name.as_bytes())).unwrap()
}

/// Two names of one client for one statement: the error says which it was.
#[test]
fn the_taken_name_in_an_error_is_the_one_that_was_sent() {
    let taken = |name: &str| err("42P05", &format!("prepared statement \"{name}\" already exists"));
    for turn in 0..8 {
        let mut steps = prepares("first", "A").into_iter().collect::<Vec<_>>();
        let names = ["second", "third"];
        for name in names {
            steps.push(client([p(name, "A"), s()], [cs(stand_in()), s()], Owing));
            steps.push(server([cc(), z(b'I')], [pc(), z(b'I')], Idle));
        }
        let sent = ["first", "second", "third"][turn % 3];
        let ours = taken_for(sent);
        steps.push(client([p(sent, "B"), s()], [cs(&ours), p(&ours, ""), p(&ours, "B"), s()], Owing));
        steps.push(server([cc(), pc(), taken(&ours), z(b'I')], [taken(sent), z(b'I')], Idle));
        check(&steps);
    }
}

/// Scenario 27.
#[test]
fn a_statement_that_failed_is_parsed_anew() {
    check(&[
        client([p("a", "BAD"), s()], [p(&name("BAD"), "BAD"), s()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Idle),
        client([p("a", "A"), b("", "a"), s()], [p(&name("A"), "A"), b("", &name("A")), s()], Owing),
        server_passes([pc(), bc(), z(b'I')], Idle),
    ]);
}

/// Scenario 30.
#[test]
fn a_name_closed_and_used_again_in_one_segment() {
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [cs("a"), p("a", "B"), b("", "a"), e(""), s()],
                [cs("a"), p(&name("B"), "B"), b("", &name("B")), e(""), s()],
                Owing,
            ),
            server_passes([cc(), pc(), bc(), tag("B"), z(b'I')], Idle),
        ],
    );
}

#[test]
fn a_known_statement_is_not_parsed_again() {
    let bench = check_on(
        || {
            let mut bench = prepared("a", "A");
            bench.hand_to(client_with(2, &[]));
            bench
        },
        &[
            client(
                [p("mine", "A"), ds("mine"), b("", "mine"), e(""), s()],
                [cs(stand_in()), ds(&name("A")), b("", &name("A")), e(""), s()],
                Owing,
            ),
            server([cc(), pd(), n(), bc()], [pc(), pd(), n(), bc()], Owing),
            server_passes([tag("A"), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 1);
}

/// In a failed transaction PostgreSQL refuses a Parse: so must a known statement's be.
#[test]
fn a_known_statement_in_a_failed_transaction() {
    let aborted = || err("25P02", "current transaction is aborted");
    let bench = check_on(
        || prepared("a", "A"),
        &[
            client_passes([q("BEGIN"), q("ERROR")], Owing),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], InTransaction),
            client([p("b", "A"), s()], [cs(&name("A")), p(&name("A"), "A"), s()], Owing),
            server([cc(), aborted(), z(b'E')], [aborted(), z(b'E')], InTransaction),
        ],
    );
    assert!(bench.client.statements.find(b"b").is_none());
    assert!(bench.server.prepared.is_empty());
    // The same, not knowing yet that it failed.
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [q("BEGIN"), q("ERROR"), p("b", "A"), s()],
                [q("BEGIN"), q("ERROR"), cs(&name("A")), p(&name("A"), "A"), s()],
                Owing,
            ),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], Owing),
            server([cc(), aborted(), z(b'E')], [aborted(), z(b'E')], InTransaction),
        ],
    );
}

/// The replies to what the proxy prepares again stay hidden.
#[test]
fn on_another_connection_a_statement_is_prepared_again() {
    let moved = || {
        let mut bench = prepared("a", "A");
        bench.move_to(server_with(100));
        bench
    };
    let bench = check_on(
        moved,
        &[
            client([b("", "a"), e(""), s()], [p(&name("A"), "A"), b("", &name("A")), e(""), s()], Owing),
            server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
            client([ds("a"), s()], [ds(&name("A")), s()], Owing),
            server_passes([pd(), n(), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 1);
    // Its table is gone meanwhile: the error stands where the Bind stood.
    let bench = check_on(
        moved,
        &[
            client([b("", "a"), e(""), s()], [p(&name("A"), "A"), b("", &name("A")), e(""), s()], Owing),
            server_passes([err("42P01", "no table"), z(b'I')], Idle),
        ],
    );
    assert!(bench.server.prepared.is_empty());
}

/// Scenario 43.
#[test]
fn on_another_connection_the_unnamed_statement_is_prepared_again() {
    let unnamed = || {
        let mut bench = Bench::new();
        bench.play(
            &[client_passes([p("", "A"), ds(""), s()], Owing), server_passes([pc(), pd(), n(), z(b'I')], Idle)],
            usize::MAX,
        );
        bench
    };
    let again = [
        client([b("", ""), e(""), s()], [p("", "A"), b("", ""), e(""), s()], Owing),
        server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
        client_passes([b("", ""), e(""), s()], Owing),
        server_passes([bc(), tag("A"), z(b'I')], Idle),
    ];
    let moved = || {
        let mut bench = unnamed();
        bench.move_to(server_with(100));
        bench
    };
    check_on(moved, &again);
    // A stranger used the connection in between.
    let shared = || {
        let mut bench = unnamed();
        let first = bench.hand_to(client_with(2, &[]));
        let steps = [client_passes([p("", "B"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.hand_to(first);
        bench
    };
    check_on(shared, &again);
    // It stayed.
    check_on(unnamed, &again[2..]);
}

/// Nobody gets a stranger's unnamed statement.
#[test]
fn without_an_unnamed_statement_of_its_own_a_client_has_none() {
    let gone = || err("26000", "unnamed prepared statement does not exist");
    let strangers = || {
        let mut bench = Bench::new();
        let steps = [client_passes([p("", "B"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.hand_to(client_with(2, &[]));
        bench
    };
    let refused = || {
        [
            client([b("", ""), s()], [cs(""), b("", ""), s()], Owing),
            server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
        ]
    };
    check_on(strangers, &refused());
    // One that failed, one that a query dropped, one that was closed.
    let [sent, answered] = refused();
    let failed = [client_passes([p("", "BAD"), s()], Owing), server_passes([err("42601", "no"), z(b'I')], Idle)];
    check(&failed.into_iter().chain([sent, answered]).collect::<Vec<_>>());
    let [sent, answered] = refused();
    let query =
        [client_passes([p("", "A"), s(), q("B")], Owing), server_passes([pc(), z(b'I'), tag("B"), z(b'I')], Idle)];
    check(&query.into_iter().chain([sent, answered]).collect::<Vec<_>>());
    let [sent, answered] = refused();
    let closed =
        [client_passes([p("", "A"), s(), cs(""), s()], Owing), server_passes([pc(), z(b'I'), cc(), z(b'I')], Idle)];
    check(&closed.into_iter().chain([sent, answered]).collect::<Vec<_>>());
}

/// Whether the unnamed statement was made, or dropped, is waited for where it is asked for.
#[test]
fn an_unnamed_statement_whose_fate_is_open_is_waited_for() {
    let gone = || err("26000", "unnamed prepared statement does not exist");
    let strangers = || {
        let mut bench = Bench::new();
        let steps = [client_passes([p("", "stranger's"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.hand_to(client_with(2, &[]));
        bench
    };
    check_on(
        strangers,
        &[
            client([b("", "no"), p("", "A"), s(), b("", ""), s()], [b("", "no"), p("", "A"), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([], [cs(""), b("", ""), s()], Owing),
            server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
        ],
    );
    check(&[
        client_passes([p("", "A"), s()], Owing),
        server_passes([pc(), z(b'I')], Idle),
        client([q("B"), b("", ""), s()], [q("B")], Owing),
        server_passes([tag("B"), z(b'I')], Idle),
        client([], [cs(""), b("", ""), s()], Owing),
        server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
        client([p("", "A"), cs(""), b("", ""), s()], [p("", "A"), cs(""), cs(""), b("", ""), s()], Owing),
        server([pc(), cc(), cc(), gone(), z(b'I')], [pc(), cc(), gone(), z(b'I')], Idle),
    ]);
}

/// One that was sent behind it and then skipped leaves it as it was, wherever the client goes on.
#[test]
fn an_unnamed_statement_outlives_those_that_were_skipped() {
    let both = || {
        [
            client_passes([p("", "A"), s(), ds("x"), p("", "B"), p("", "C"), s()], Owing),
            server_passes([pc(), z(b'I'), err("26000", "no"), z(b'I')], Idle),
        ]
    };
    let again = || {
        [
            client([b("", ""), e(""), s()], [p("", "A"), b("", ""), e(""), s()], Owing),
            server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
        ]
    };
    check(&both().into_iter().chain(again()).collect::<Vec<_>>());
    let moved = || {
        let mut bench = Bench::new();
        bench.play(&both(), usize::MAX);
        bench.move_to(server_with(100));
        bench
    };
    check_on(moved, &again());
    // One that fails takes those before it along.
    let gone = || err("26000", "unnamed prepared statement does not exist");
    check(&[
        client_passes([p("", "A"), s(), p("", "BAD"), p("", "C"), s()], Owing),
        server_passes([pc(), z(b'I'), err("42601", "no"), z(b'I')], Idle),
        client([b("", ""), s()], [cs(""), b("", ""), s()], Owing),
        server([cc(), gone(), z(b'I')], [gone(), z(b'I')], Idle),
    ]);
}

/// Put back on another connection, it may be skipped as well: what is there then is a stranger's.
#[test]
fn an_unnamed_statement_that_is_being_put_back_is_waited_for() {
    let moved = || {
        let mut bench = Bench::new();
        bench.play(&[client_passes([p("", "A"), s()], Owing), server_passes([pc(), z(b'I')], Idle)], usize::MAX);
        bench.move_to(server_with(100));
        bench
    };
    check_on(
        moved,
        &[
            client([ds("x"), b("", ""), e(""), s(), ds(""), s()], [ds("x"), p("", "A"), b("", ""), e(""), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([], [p("", "A"), ds(""), s()], Owing),
            server([pc(), pd(), n(), z(b'I')], [pd(), n(), z(b'I')], Idle),
        ],
    );
    // Where nothing is skipped the wait is all there is.
    check_on(
        moved,
        &[
            client([b("", ""), e(""), s(), ds(""), s()], [p("", "A"), b("", ""), e(""), s()], Owing),
            server([pc(), bc(), tag("A"), z(b'I')], [bc(), tag("A"), z(b'I')], Idle),
            client([], [ds(""), s()], Owing),
        ],
    );
}

/// An error of an earlier request does not make the proxy forget what a later one has bound.
#[test]
fn what_is_bound_outlives_the_errors_before_it() {
    let bound = [p("", "DISCARD ALL"), b("", "")];
    let held = || client([e(""), s(), q("A")], [e(""), h()], Owing);
    check(&[
        client_passes([q("BAD"), bound.concat()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Owing),
        held(),
    ]);
    check(&[
        client_passes([p("", "BAD"), s(), bound.concat()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Owing),
        held(),
    ]);
}

/// What the proxy prepares once more for a client fails as the client's own request would, also while more is held back.
#[test]
fn what_can_not_be_put_back_is_the_clients_error() {
    let moved = || {
        let mut bench = Bench::new();
        let steps = [client_passes([p("", "DISCARD ALL"), s()], Owing), server_passes([pc(), z(b'I')], Idle)];
        bench.play(&steps, usize::MAX);
        bench.move_to(server_with(100));
        bench
    };
    check_on(
        moved,
        &[
            client([b("", ""), e(""), s()], [p("", "DISCARD ALL"), b("", ""), e(""), h()], Owing),
            server_passes([err("25P02", "no")], InTransaction),
            client([], [s()], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
}

/// As many as may be in flight are kept; the next one waits.
#[test]
fn unnamed_statements_in_flight_are_bounded() {
    let large = "x".repeat(200 << 10);
    let all = [p("", &large), s(), p("", &large), s(), p("", "C"), s()].concat();
    let (first, rest) = all.split_at(p("", &large).len() * 2 + 2 * s().len());
    check(&[
        client([all.clone()], [first.to_vec()], Owing),
        server_passes([pc(), z(b'I'), pc(), z(b'I')], Idle),
        client([], [rest.to_vec()], Owing),
        server_passes([pc(), z(b'I')], Idle),
    ]);
}

/// A name that was sent but may yet fail: a later segment waits for the answer.
#[test]
fn a_name_whose_fate_is_open_is_waited_for() {
    let held = || client([p("a", "A"), s(), b("", "a"), e(""), s()], [p(&name("A"), "A"), s()], Owing);
    check(&[
        held(),
        server_passes([pc(), z(b'I')], Idle),
        client([], [b("", &name("A")), e(""), s()], Owing),
        server_passes([bc(), tag("A"), z(b'I')], Idle),
    ]);
    check(&[
        held(),
        server_passes([err("42601", "no"), z(b'I')], Idle),
        client([], [b("", "a"), e(""), s()], Owing),
        server_passes([err("26000", "prepared statement \"a\" does not exist"), z(b'I')], Idle),
    ]);
    // What was sent of the later segment is flushed, so that its replies come.
    check(&[
        client(
            [p("a", "A"), s(), p("b", "B"), b("", "a"), s()],
            [p(&name("A"), "A"), s(), p(&name("B"), "B"), h()],
            Owing,
        ),
        server_passes([pc(), z(b'I'), pc()], InTransaction),
        client([], [b("", &name("A")), s()], Owing),
        server_passes([bc(), z(b'I')], Idle),
    ]);
    // A name in another segment whose fate is open, taken again.
    check(&[
        client([p("a", "BAD"), s(), p("a", "A"), s()], [p(&name("BAD"), "BAD"), s()], Owing),
        server_passes([err("42601", "no"), z(b'I')], Idle),
        client([], [p(&name("A"), "A"), s()], Owing),
        server_passes([pc(), z(b'I')], Idle),
    ]);
}

/// A client may use names of the proxy's form; they never meet one of the proxy's.
#[test]
fn names_in_the_proxys_own_form() {
    let (theirs, ours) = (name("A"), name("B"));
    let foreign = || {
        let mut bench = prepared("a", "A");
        bench.hand_to(client_with(2, &[]));
        bench
    };
    check_on(
        foreign,
        &[
            client([b("", &theirs), s()], [b("", &format!("_{theirs}")), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([ds(&theirs), s()], [ds(&format!("_{theirs}")), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
            client([cs(&theirs), cs("sg_"), s()], [cs(stand_in()), cs(stand_in()), s()], Owing),
            server_passes([cc(), cc(), z(b'I')], Idle),
            client([p(&theirs, "B"), b("", &theirs), s()], [p(&ours, "B"), b("", &ours), s()], Owing),
            server_passes([pc(), bc(), z(b'I')], Idle),
        ],
    );
    // One that lives on the connection.
    let large = raw(b'P', &[theirs.as_bytes(), b"\0", &vec![b' '; 1 << 20], b"\0\0\0"].concat());
    let sent = raw(b'P', &[b"_", theirs.as_bytes(), b"\0", &vec![b' '; 1 << 20], b"\0\0\0"].concat());
    let other = format!("_{theirs}");
    let mut bench = foreign();
    bench.play(
        &[
            client([large, s()], [sent, s()], Owing),
            server_passes([pc(), z(b'I')], Idle),
            client([b("", &theirs), ds(&theirs), s()], [b("", &other), ds(&other), s()], Owing),
            server_passes([bc(), pd(), n(), z(b'I')], Idle),
            client([p(&theirs, "C"), s()], [p(&other, "C"), s()], Owing),
            server_passes([err("42P05", "no"), z(b'I')], Idle),
            client([cs(&theirs), s()], [cs(&other), s()], Owing),
            server_passes([cc(), z(b'I')], Idle),
        ],
        usize::MAX,
    );
}

/// Scenario 34.
#[test]
fn deallocate_drops_a_stand_in() {
    let drops = |text: &str| {
        let stand_in = String::from_utf8(super::names::stand_in_for(b"a")).unwrap();
        let stand_in = || stand_in.as_str();
        let sent = format!("DEALLOCATE \"{}\"", stand_in());
        let steps = [
            client([q(text)], [cs(stand_in()), p(stand_in(), ""), s(), q(&sent)], Owing),
            server([cc(), pc(), z(b'I'), tag("DEALLOCATE"), z(b'I')], [tag("DEALLOCATE"), z(b'I')], Idle),
            client_passes([b("", "a"), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
        ];
        let bench = check_on(|| prepared("a", "A"), &steps);
        assert_eq!(bench.client.pins, Pins::NONE);
        assert_eq!(bench.server.prepared.len(), 1);
    };
    drops("DEALLOCATE a");
    drops("DEALLOCATE A");
    drops("DEALLOCATE \"a\"");
    // It fails: the name stays.
    let stand_in = String::from_utf8(super::names::stand_in_for(b"a")).unwrap();
    let stand_in = || stand_in.as_str();
    let sent = format!("DEALLOCATE \"{}\"", stand_in());
    check_on(
        || prepared("a", "A"),
        &[
            client_passes([q("BEGIN"), q("ERROR")], Owing),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], InTransaction),
            client([q("DEALLOCATE a")], [cs(stand_in()), p(stand_in(), ""), s(), q(&sent)], Owing),
            server([cc(), pc(), z(b'E'), err("25P02", "x"), z(b'E')], [err("25P02", "x"), z(b'E')], InTransaction),
            client_passes([q("ROLLBACK")], Owing),
            server_passes([tag("ROLLBACK"), z(b'I')], Idle),
            client([b("", "a"), s()], [b("", &name("A")), s()], Owing),
            server_passes([bc(), z(b'I')], Idle),
        ],
    );
    // By Parse, Bind, Execute.
    let with_name = |text: &str| p(text, &sent);
    check_on(
        || prepared("a", "A"),
        &[
            client(
                [p("", "DEALLOCATE a"), b("", ""), e(""), s()],
                [with_name(""), cs(stand_in()), p(stand_in(), ""), b("", ""), e(""), s()],
                Owing,
            ),
            server(
                [pc(), cc(), pc(), bc(), tag("DEALLOCATE"), z(b'I')],
                [pc(), bc(), tag("DEALLOCATE"), z(b'I')],
                Idle,
            ),
            client_passes([b("", "a"), s()], Owing),
            server_passes([err("26000", "no"), z(b'I')], Idle),
        ],
    );
    // Of a name that the proxy does not know.
    let bench = check(&[client_passes([q("DEALLOCATE b")], Owing), server_passes([err("26000", "no"), z(b'I')], Idle)]);
    assert_eq!(bench.client.pins, Pins::NONE);
}

/// A DEALLOCATE inside an extended pipeline is skipped with it: no Sync of the proxy's own may stand before it.
#[test]
fn deallocate_inside_an_extended_pipeline() {
    let stand_in = String::from_utf8(super::names::stand_in_for(b"a")).unwrap();
    let stand_in = || stand_in.as_str();
    let sent = format!("DEALLOCATE \"{}\"", stand_in());
    // Whether the query is reached at all only the replies to what is before it tell.
    let start = || client([b("", "a"), e(""), q("DEALLOCATE a"), s()], [b("", &name("A")), e(""), h()], Owing);
    // They are asked for: the session does not take the wait for an idle transaction's.
    let asked = check_on(|| prepared("a", "A"), &[start()]);
    assert!(asked.server.needs_client() && !asked.server.awaits_client());
    let bench = check_on(
        || prepared("a", "A"),
        &[
            start(),
            server_passes([bc(), err("22012", "x")], InTransaction),
            client([], [s()], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
    assert!(bench.client.statements.find(b"a").is_some());
    let bench = check_on(
        || prepared("a", "A"),
        &[
            start(),
            server_passes([bc(), tag("A")], InTransaction),
            client([], [cs(stand_in()), p(stand_in(), ""), q(&sent), s()], Owing),
            server([cc(), pc(), tag("DEALLOCATE"), z(b'I')], [tag("DEALLOCATE"), z(b'I')], Owing),
            server_passes([z(b'I')], Idle),
        ],
    );
    assert!(bench.client.statements.find(b"a").is_none());
}

/// Scenario 33.
#[test]
fn what_clears_everything_is_waited_for() {
    for text in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let bench = check_on(
            || prepared("a", "A"),
            &[
                client([q(text), p("a", "A"), b("", "a"), s()], [q(text)], Owing),
                server_passes([tag(text), z(b'I')], Idle),
                client([], [p(&name("A"), "A"), b("", &name("A")), s()], Owing),
                server_passes([pc(), bc(), z(b'I')], Idle),
            ],
        );
        assert_eq!(bench.server.prepared.len(), 1);
        check_on(
            || prepared("a", "A"),
            &[
                client([p("", text), b("", ""), e(""), b("", "a"), s()], [p("", text), b("", ""), e(""), h()], Owing),
                server_passes([pc(), bc(), tag(text)], InTransaction),
                client([], [b("", "a"), s()], Owing),
                server_passes([err("26000", "no"), z(b'I')], Idle),
            ],
        );
        // It failed: all is as it was.
        check_on(
            || prepared("a", "A"),
            &[
                client([q(text), b("", "a"), s()], [q(text)], Owing),
                server_passes([err("25001", "no"), z(b'I')], Idle),
                client([], [b("", &name("A")), s()], Owing),
                server_passes([bc(), z(b'I')], Idle),
            ],
        );
    }
}

/// A COPY ahead of it, whose data were sent ahead too, changes nothing about that.
#[test]
fn what_clears_everything_is_waited_for_behind_a_copy() {
    let bench = check_on(
        || prepared("a", "A"),
        &[
            client(
                [q("COPY a"), c(), q("DEALLOCATE ALL"), p("a", "A"), s()],
                [q("COPY a"), c(), q("DEALLOCATE ALL")],
                Owing,
            ),
            server_passes([copy_in()], Owing),
            client([], [], Owing),
            server_passes([tag("COPY 0"), z(b'I'), tag("DEALLOCATE ALL"), z(b'I')], Idle),
            client([], [p(&name("A"), "A"), s()], Owing),
            server_passes([pc(), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 1);
}

/// `DISCARD ALL` takes the client's own baseline with it; the next statement must have it again.
#[test]
fn after_discard_all_the_clients_settings_come_back() {
    let settled = || {
        let mut bench = Bench {
            server: server_with(9),
            client: client_with(1, &[("search_path", "a")]),
            client_tail: vec![],
            server_tail: vec![],
        };
        bench.attach();
        bench.play(&[server([pc(), bc(), row("a"), tag("SELECT 1"), z(b'I')], [], Idle)], usize::MAX);
        bench
    };
    let replay = || [p("", SET_CONFIG), b_with("", "", &["search_path", "a"]), e(""), s()];
    check_on(
        settled,
        &[
            client([q("DISCARD ALL"), q("SELECT 1")], [q("DISCARD ALL")], Owing),
            server_passes([tag("DISCARD ALL"), z(b'I')], Idle),
            client([], replay(), Owing),
            server([pc(), bc(), row("a"), tag("SELECT 1"), z(b'I')], [], Idle),
            client([], [q("SELECT 1")], Owing),
            server_passes([tag("SELECT 1"), z(b'I')], Idle),
        ],
    );
}

/// Scenarios 28 and 29.
#[test]
fn the_statement_unused_for_longest_makes_room() {
    let full = || {
        let mut bench = Bench::with(server_with(2), client_with(1, &[]));
        bench.play(&prepares("a", "A"), usize::MAX);
        bench.play(&prepares("b", "B"), usize::MAX);
        bench
    };
    let bench = check_on(
        full,
        &[
            client(
                [b("", "a"), e(""), p("c", "C"), h()],
                [b("", &name("A")), e(""), cs(&name("B")), p(&name("C"), "C"), h()],
                Owing,
            ),
            server([bc(), tag("A"), cc(), pc()], [bc(), tag("A"), pc()], InTransaction),
            client([b("", "b"), s()], [cs(&name("A")), p(&name("B"), "B"), b("", &name("B")), s()], Owing),
            server([cc(), pc(), bc(), z(b'I')], [bc(), z(b'I')], Idle),
        ],
    );
    assert_eq!(bench.server.prepared.len(), 2);
    // The victim is in use in the same batch: its Close stands behind that.
    check_on(
        full,
        &[
            client(
                [b("x", "a"), b("y", "b"), p("c", "C"), e("x"), e("y"), s()],
                [b("x", &name("A")), b("y", &name("B")), cs(&name("A")), p(&name("C"), "C"), e("x"), e("y"), s()],
                Owing,
            ),
            server(
                [bc(), bc(), cc(), pc(), tag("A"), tag("B"), z(b'I')],
                [bc(), bc(), pc(), tag("A"), tag("B"), z(b'I')],
                Idle,
            ),
        ],
    );
}

#[test]
fn a_burst_of_statements_does_not_leave_more_than_allowed() {
    let mut bench = Bench::with(server_with(4), client_with(1, &[]));
    for (burst, len) in [20, 1, 20, 1].into_iter().enumerate() {
        let texts: Vec<String> = (0..len).map(|n| format!("SELECT {burst}{n}")).collect();
        let sent: Vec<u8> = texts.iter().flat_map(|text| p(text, text)).chain(s()).collect();
        let arrived = bench.say(&Side::Client, &sent).unwrap();
        let answers: Vec<u8> = frames(&arrived)
            .iter()
            .flat_map(|frame| match frame[0] {
                b'P' => pc(),
                b'C' => cc(),
                _ => z(b'I'),
            })
            .collect();
        bench.say(&Side::Server, &answers).unwrap();
        assert_eq!(bench.server.status(), Idle);
        assert!(bench.server.prepared.len() <= len + 3, "{}", bench.server.prepared.len());
    }
}

#[test]
fn a_large_statement_or_query_passes_by_its_length_and_pins() {
    let text = "x".repeat((1 << 20) + 7);
    let bench = {
        let mut bench = Bench::new();
        bench.play(
            &[
                client_passes([p("big", &text), b("", "big"), s()], Owing),
                server_passes([pc(), bc(), z(b'I')], Idle),
                client_passes([p("", &text), b("", ""), s()], Owing),
                server_passes([pc(), bc(), z(b'I')], Idle),
            ],
            100_000,
        );
        bench
    };
    assert!(bench.client.pins.contains(PinReason::LargeStatement));
    let mut bench = Bench::new();
    bench.play(&[client_passes([q(&text)], Owing), server_passes([tag("A"), z(b'I')], Idle)], 100_000);
    assert_eq!(bench.client.pins, Pins::of(PinReason::Unreadable));
    // One that can be read as it passes pins for what it does, if for anything.
    let literal = format!("INSERT INTO t VALUES ('{text}')");
    for (query, tags, pins) in [
        (literal.clone(), [tag("INSERT 0 1"), z(b'I')].concat(), Pins::NONE),
        (
            format!("{literal}; LISTEN x"),
            [tag("INSERT 0 1"), tag("LISTEN"), z(b'I')].concat(),
            Pins::of(PinReason::Listen),
        ),
        (format!("{literal}; LISTEN x"), [err("23505", "no"), z(b'I')].concat(), Pins::NONE),
        (
            format!("SELECT pg_advisory_lock(1), '{text}'"),
            [err("57014", "no"), z(b'I')].concat(),
            Pins::of(PinReason::SessionLock),
        ),
    ] {
        let mut bench = Bench::new();
        bench.play(&[client_passes([q(&query)], Owing), server_passes([tags], Idle)], 100_000);
        assert_eq!(bench.client.pins, pins);
    }
    // A large parameter of a Bind is no reason for anything.
    let mut bench = prepared("a", "A");
    bench.play(
        &[
            client([b_with("", "a", &[&text]), s()], [b_with("", &name("A"), &[&text]), s()], Owing),
            server_passes([bc(), z(b'I')], Idle),
        ],
        100_000,
    );
    assert_eq!(bench.client.pins, Pins::NONE);
}

/// The name in a long query is replaced by that of the statement it means, not of one that this executes.
#[test]
fn a_long_execute_is_of_the_statement_it_names() {
    let text = "x".repeat((1 << 20) + 7);
    let execute = format!("EXECUTE \"{}\"", name("A"));
    let outer = name(&execute);
    prepared("a", "A").play(
        &[
            client([p("n", "EXECUTE a"), s()], [p(&outer, &execute), s()], Owing),
            server_passes([pc(), z(b'I')], Idle),
            client([q(&format!("EXECUTE n('{text}')"))], [q(&format!("EXECUTE \"{outer}\"('{text}')"))], Owing),
            server_passes([err("42601", "no"), z(b'I')], Idle),
        ],
        100_000,
    );
    // A stranger's name is never said.
    let theirs = name("B");
    for text in [format!("EXECUTE {theirs}('{text}')"), format!("PREPARE {theirs} AS SELECT '{text}'")] {
        let sent = text.replace(&theirs, &format!("\"_{theirs}\""));
        Bench::new().play(
            &[client([q(&text)], [q(&sent)], Owing), server_passes([err("42601", "no"), z(b'I')], Idle)],
            100_000,
        );
    }
}

// ---------------------------------------------------------------------------------------------- hand-out

const SET_CONFIG: &str = "SELECT pg_catalog.set_config($1, $2, false)";

fn attaching(baseline: &[(&str, &str)]) -> (Bench, Vec<u8>, Vec<u8>) {
    let (client_tail, server_tail) = (Vec::new(), Vec::new());
    let mut bench = Bench { server: server_with(9), client: client_with(1, baseline), client_tail, server_tail };
    let (to_server, to_client) = bench.attach();
    (bench, to_server, to_client)
}

#[test]
fn settings_are_replayed_out_of_sight_and_waited_for() {
    let wanted = [("search_path", "a, b"), ("Work_Mem", "4MB")];
    let (mut bench, to_server, to_client) = attaching(&wanted);
    let replay = [
        p("", SET_CONFIG),
        b_with("", "", &["search_path", "a, b"]),
        e(""),
        b_with("", "", &["work_mem", "4MB"]),
        e(""),
        s(),
    ];
    assert_eq!(show(&to_server), show(&replay.concat()));
    assert!(to_client.is_empty());
    assert!(bench.server.is_holding());
    let set = || [bc(), row("x"), tag("SELECT 1")].concat();
    bench.play(
        &[
            client([q("A")], [], Owing),
            server([pc(), set(), set(), status("search_path", "a, b")], [], Owing),
            server([z(b'I')], [status("search_path", "a, b")], Idle),
            client([], [q("A")], Owing),
            server_passes([tag("A"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    assert_eq!(bench.attach(), (vec![], vec![]));
    // The next client's differ.
    bench.client = client_with(2, &[("search_path", "a, b")]);
    let (to_server, to_client) = bench.attach();
    assert_eq!(show(&to_server), show(&[p("", "RESET \"work_mem\""), b("", ""), e(""), s()].concat()));
    assert!(to_client.is_empty());
    bench.play(&[server([pc(), bc(), tag("RESET"), z(b'I')], [status("search_path", "a, b")], Idle)], usize::MAX);
    assert_eq!(bench.server.settings().value("search_path"), Some("a, b"));
    assert_eq!(bench.server.settings().value("work_mem"), None);
}

/// A connection that is lost while it holds may have taken some of the client's bytes: they must not be forgotten.
#[test]
fn what_was_sent_is_known_while_holding() {
    let (bench, _, _) = attaching(&[("search_path", "a")]);
    assert!(bench.server.is_holding() && bench.server.has_sent_nothing());
    let sent = [
        q("DISCARD ALL"),
        q("A").repeat(owed::OWED_MAX + 1),
        [p("a", "INSERT"), s(), b("", "a"), e(""), s()].concat(),
        [p("", "INSERT"), b("", ""), e(""), p("", "DISCARD ALL"), b("", ""), e(""), s()].concat(),
    ];
    for sent in sent {
        let mut bench = Bench::new();
        bench.say(&Side::Client, &sent).unwrap();
        assert!(
            bench.server.is_holding() && !bench.server.has_sent_nothing(),
            "{:?}",
            show(&sent[..20.min(sent.len())])
        );
    }
}

#[test]
fn a_cosmetic_setting_is_not_waited_for() {
    let (mut bench, to_server, _) = attaching(&[("application_name", "app")]);
    assert_eq!(
        show(&to_server),
        show(&[p("", SET_CONFIG), b_with("", "", &["application_name", "app"]), e(""), s()].concat())
    );
    assert!(!bench.server.is_holding());
    bench.play(
        &[
            client_passes([q("A")], Owing),
            server([pc(), bc(), row("app"), tag("SELECT 1"), status("application_name", "app"), z(b'I')], [], Owing),
            server_passes([tag("A"), z(b'I')], Idle),
        ],
        usize::MAX,
    );
}

#[test]
fn a_setting_that_the_server_refuses() {
    let (mut bench, _, _) = attaching(&[("search_path", "a"), ("nonsense", "b")]);
    bench.play(
        &[server([pc(), bc(), err("42704", "unrecognized configuration parameter"), z(b'I')], [], Idle)],
        usize::MAX,
    );
    let failure = bench.server.attach_failure();
    assert!(matches!(failure, Some(AttachFailure::Settings(ServerError { code, .. })) if code == "42704"));
    assert!(bench.server.settings().is_empty());
    assert_eq!(bench.server.attach_failure(), None);
    let (mut bench, _, _) = attaching(&[("search_path", "a")]);
    bench.play(&[server([fatal("57P01", "going down")], [], Ended)], usize::MAX);
    let failure = bench.server.attach_failure();
    assert!(matches!(failure, Some(AttachFailure::Settings(ServerError { is_fatal: true, .. }))));
}

#[test]
fn a_reset_is_out_of_sight_and_takes_nothing_of_the_clients() {
    let mut bench = prepared("a", "A");
    bench.play(&[client_passes([p("", "U"), s()], Owing), server_passes([pc(), z(b'I')], Idle)], usize::MAX);
    let mut written = Vec::new();
    bench.server.reset(&mut written);
    assert_eq!(show(&written), show(&q("DISCARD ALL")));
    assert!(bench.server.is_holding());
    bench.play(
        &[
            client([b("", "a"), s()], [], Owing),
            server([notice("x"), tag("DISCARD ALL"), z(b'I')], [], Idle),
            client([], [p(&name("A"), "A"), b("", &name("A")), s()], Owing),
            server([pc(), bc(), z(b'I')], [bc(), z(b'I')], Idle),
            // Also the unnamed one is still the client's.
            client([b("", ""), s()], [p("", "U"), b("", ""), s()], Owing),
            server([pc(), bc(), z(b'I')], [bc(), z(b'I')], Idle),
        ],
        usize::MAX,
    );
    bench.server.reset(&mut written);
    bench.play(&[server([err("25001", "no"), z(b'I')], [], Idle)], usize::MAX);
    assert!(bench.server.attach_failure().is_some());
}

const INIT: &str = "SET x.y = 1";

/// A connection that has been made ready by `INIT`.
fn initialized(client: Client) -> Bench {
    let (client_tail, server_tail) = (Vec::new(), Vec::new());
    let mut bench = Bench { server: server_with(9), client, client_tail, server_tail };
    let mut written = Vec::new();
    bench.server.initialize(&INIT.into(), &mut written);
    assert_eq!(show(&written), show(&q(INIT)));
    assert_eq!(bench.server.status(), Owing);
    bench.play(&[server([notice("x"), status("x", "y"), t(), row("1"), tag("SET"), z(b'I')], [], Idle)], usize::MAX);
    assert_eq!(bench.server.attach_failure(), None);
    bench
}

fn init_failure(bench: &mut Bench) -> String {
    match bench.server.attach_failure() {
        Some(AttachFailure::InitQuery(error)) => format!("{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_init_query_is_out_of_sight_and_waited_for() {
    let mut bench = initialized(client_with(1, &[]));
    // Its reports are told, as everything the server reports.
    assert_eq!(bench.attach(), (vec![], status("x", "y")));
    bench.play(&[client_passes([q("A")], Owing), server_passes([tag("A"), z(b'I')], Idle)], usize::MAX);
}

#[test]
fn an_init_query_that_fails() {
    let cases: [(Vec<u8>, Status, &str); 5] = [
        ([err("42601", "syntax error"), z(b'I')].concat(), Idle, "42601: syntax error"),
        ([tag("SET"), err("42704", "no"), z(b'I')].concat(), Idle, "42704: no"),
        ([tag("BEGIN"), z(b'T')].concat(), InTransaction, "25001: init_query leaves a transaction open"),
        (copy_in(), Ended, "0A000: init_query must not copy"),
        (fatal("57P01", "going down"), Ended, "57P01: going down"),
    ];
    for (says, status, expected) in cases {
        let mut server = server_with(9);
        server.initialize(&INIT.into(), &mut Vec::new());
        let mut bench = Bench { server, client: client_with(1, &[]), client_tail: Vec::new(), server_tail: Vec::new() };
        assert!(bench.say(&Side::Server, &says).unwrap().is_empty());
        assert_eq!((bench.server.status(), init_failure(&mut bench).as_str()), (status, expected));
    }
}

#[test]
fn what_undoes_an_init_query_has_it_run_again() {
    // The proxy's own reset.
    let mut bench = initialized(client_with(1, &[]));
    let mut written = Vec::new();
    bench.server.reset(&mut written);
    assert_eq!(show(&written), show(&[q("DISCARD ALL"), q(INIT)].concat()));
    bench.play(&[server([tag("DISCARD ALL"), z(b'I'), tag("SET"), z(b'I')], [], Idle)], usize::MAX);
    assert_eq!((bench.server.attach_failure(), bench.server.init_lost), (None, false));
    bench.server.reset(&mut written);
    bench.play(&[server([tag("DISCARD ALL"), z(b'I'), err("42704", "no"), z(b'I')], [], Idle)], usize::MAX);
    assert_eq!(init_failure(&mut bench), "42704: no");
    // A client's, simple or not, ahead of what comes next.
    for says in [q("DISCARD ALL"), [p("", "DISCARD ALL"), b("", ""), e(""), s()].concat()] {
        let mut bench = initialized(client_with(1, &[]));
        bench.attach();
        bench.say(&Side::Client, &[says.clone(), q("A")].concat()).unwrap();
        let answers = if says[0] == b'P' { [pc(), bc()].concat() } else { vec![] };
        bench.say(&Side::Server, &[answers, tag("DISCARD ALL")].concat()).unwrap();
        bench.say(&Side::Client, b"").unwrap();
        bench.say(&Side::Server, &z(b'I')).unwrap();
        bench.play(
            &[
                client([], [q(INIT), s()], Owing),
                server([tag("SET"), z(b'I'), z(b'I')], [], Idle),
                client([], [q("A")], Owing),
                server_passes([tag("A"), z(b'I')], Idle),
            ],
            usize::MAX,
        );
    }
    // The last thing that a client did: the next one finds it done again.
    let mut bench = initialized(client_with(1, &[]));
    bench.attach();
    bench.play(
        &[client_passes([q("DISCARD ALL")], Owing), server_passes([tag("DISCARD ALL"), z(b'I')], Idle)],
        usize::MAX,
    );
    bench.client = client_with(2, &[("search_path", "a")]);
    let (to_server, _) = bench.attach();
    let set = || [p("", SET_CONFIG), b_with("", "", &["search_path", "a"]), e("")].concat();
    assert_eq!(show(&to_server), show(&[q(INIT), set(), s()].concat()));
    assert!(bench.server.is_holding());
    let is_set = || [pc(), bc(), row("a"), tag("SELECT 1"), z(b'I')].concat();
    bench.play(&[server([tag("SET"), z(b'I'), is_set()], [status("x", "y")], Idle)], usize::MAX);
    // RESET goes back to what was there before; and then it may have set what stays.
    let settings = [("search_path", "a"), ("work_mem", "1MB")];
    let mut bench = initialized(client_with(1, &settings));
    bench.attach();
    let both = [bc(), row("a"), tag("SELECT 1"), bc(), row("1MB"), tag("SELECT 1"), z(b'I')].concat();
    bench.play(&[server([pc(), both], [status("x", "y")], Idle)], usize::MAX);
    bench.client = client_with(2, &settings[..1]);
    let (to_server, _) = bench.attach();
    let reset = [p("", "RESET \"work_mem\""), b("", ""), e(""), s()].concat();
    assert_eq!(show(&to_server), show(&[reset, q(INIT), set(), s()].concat()));
    let says = [pc(), bc(), tag("RESET"), z(b'I'), tag("SET"), z(b'I')].concat();
    bench.play(&[server([says, is_set()], [status("x", "y")], Idle)], usize::MAX);
    assert_eq!(bench.server.settings().value("search_path"), Some("a"));
}

/// What another client drew from a sequence is not for this one.
#[test]
fn last_values_of_strangers_are_discarded() {
    let foreign = || {
        let mut bench = Bench::new();
        bench.hand_to(client_with(2, &[]));
        bench
    };
    let guard = || {
        let name = "sg_own";
        [cs(name), p(name, "DISCARD SEQUENCES"), b(name, name), e(name), cp(name)].concat()
    };
    let guarded = || [cc(), pc(), bc(), tag("DISCARD SEQUENCES"), cc()].concat();
    let text = "SELECT lastval()";
    check_on(
        foreign,
        &[
            client([q(text)], [guard(), s(), q(text)], Owing),
            server([guarded(), z(b'I')], [], Owing),
            server_passes([err("55000", "lastval is not yet defined in this session"), z(b'I')], Idle),
            client_passes([q(text)], Owing),
            server_passes([t(), row("1"), tag("SELECT 1"), z(b'I')], Idle),
        ],
    );
    check_on(
        foreign,
        &[
            client([p("", text), b("", ""), e(""), s()], [p("", text), guard(), b("", ""), e(""), s()], Owing),
            server([pc(), guarded(), bc(), tag("SELECT 1"), z(b'I')], [pc(), bc(), tag("SELECT 1"), z(b'I')], Idle),
        ],
    );
    // Where nothing can be asked, nothing need be discarded; and there is one error for one query.
    check_on(
        foreign,
        &[
            client_passes([q("BEGIN"), q("ERROR")], Owing),
            server_passes([tag("BEGIN"), z(b'T'), err("22012", "x"), z(b'E')], InTransaction),
            client_passes([q(text)], Owing),
            server_passes([err("25P02", "x"), z(b'E')], InTransaction),
        ],
    );
}

#[test]
fn a_tag_that_the_text_did_not_explain_pins_and_is_counted() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("SELECT f()")).unwrap();
    bench.say(&Side::Server, &[tag("LISTEN"), z(b'I')].concat()).unwrap();
    assert_eq!(bench.server.tally().disagreements, 1);
    assert!(bench.client.pins.contains(PinReason::Listen));
}

#[test]
fn requests_are_counted_as_they_are_sent() {
    let extended = || [p("", "A"), b("", ""), e("")].concat();
    for (sent, requests) in [
        ([q("A"), q("B; C"), q("")].concat(), 3),
        ([extended(), extended(), s()].concat(), 1),
        ([extended(), s(), extended(), s(), q("A")].concat(), 3),
        ([extended(), h(), extended()].concat(), 0),
        ([s(), s(), h()].concat(), 0),
        ([p("a", "A"), s(), q("DEALLOCATE a")].concat(), 1),
        ([extended(), s(), d("1"), c(), s()].concat(), 1),
        (raw(b'F', b"\0\0\x02\xcb\0\0\0\0\0\0"), 1),
    ] {
        let mut bench = Bench::new();
        for byte in &sent {
            bench.say(&Side::Client, &[*byte]).unwrap();
        }
        let tally = bench.server.tally();
        assert_eq!((tally.requests, tally.queries), (requests, 0), "{:?}", show(&sent));
        assert_eq!(bench.server.tally().requests, 0, "told once");
    }
    // What is read over after an error belongs to the Sync that ends it.
    let mut bench = Bench::new();
    bench.say(&Side::Client, &[extended(), h()].concat()).unwrap();
    bench.say(&Side::Server, &err("42601", "no")).unwrap();
    bench.say(&Side::Client, &[q("A"), extended(), s()].concat()).unwrap();
    assert_eq!(bench.server.tally().requests, 1);
}

#[test]
fn a_transaction_is_open_from_one_word_of_the_servers_to_the_next() {
    let mut bench = Bench::new();
    for (side, bytes, is_open) in [
        (Side::Client, q("BEGIN"), false),
        (Side::Server, [tag("BEGIN"), z(b'T')].concat(), true),
        (Side::Client, q("SELECT 1"), true),
        (Side::Server, [tag("SELECT 1"), z(b'E')].concat(), true),
        (Side::Client, q("COMMIT"), true),
        (Side::Server, [tag("ROLLBACK"), z(b'I')].concat(), false),
        (Side::Client, [p("", "A"), h()].concat(), false),
        (Side::Server, pc(), true),
        (Side::Client, s(), false),
        (Side::Server, z(b'I'), false),
    ] {
        bench.say(&side, &bytes).unwrap();
        assert_eq!(bench.server.is_in_transaction(), is_open, "{:?}", show(&bytes));
    }
}

#[test]
fn a_full_queue_takes_no_more_until_replies_have_come() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("A").repeat(owed::OWED_MAX + 10)).unwrap();
    assert_eq!(bench.client_tail.len(), 10 * q("A").len());
    assert!(bench.server.is_holding());
    bench.say(&Side::Server, &[tag("A"), z(b'I')].concat().repeat(5)).unwrap();
    bench.say(&Side::Client, b"").unwrap();
    assert_eq!(bench.client_tail.len(), 5 * q("A").len());
}

#[test]
fn a_goodbye_is_said_between_frames_only() {
    let mut bench = Bench::new();
    let mut goodbye = Vec::new();
    bench.server.terminate(&mut goodbye);
    assert_eq!(goodbye, x());
    bench.say(&Side::Client, &d("data")[..7]).unwrap();
    assert_eq!(bench.server.status(), InTransaction);
    goodbye.clear();
    bench.server.terminate(&mut goodbye);
    assert!(goodbye.is_empty());
}

#[test]
fn a_frame_half_through_holds_the_connection() {
    let mut bench = Bench::new();
    bench.say(&Side::Client, &q("A")).unwrap();
    let last = [tag("A"), z(b'I')].concat();
    bench.say(&Side::Server, &last[..last.len() - 1]).unwrap();
    assert_eq!(bench.server.status(), Owing);
    bench.say(&Side::Server, &last[last.len() - 1..]).unwrap();
    assert_eq!(bench.server.status(), Idle);
    bench.say(&Side::Client, &[p("", "A"), ds(""), s()].concat()).unwrap();
    bench.say(&Side::Server, &[pc(), pd()].concat()).unwrap();
    bench.say(&Side::Server, &t()[..8]).unwrap();
    assert_eq!(bench.server.status(), Owing);
    assert!(bench.server.is_midway());
    bench.say(&Side::Server, &t()[8..]).unwrap();
    assert!(!bench.server.is_midway());
}

#[test]
fn short_requests_that_stand_for_long_ones_are_taken_a_few_at_a_time() {
    let mut bench = prepared("big", &"x".repeat(200 << 10));
    let elsewhere = server_with(100);
    bench.move_to(elsewhere);
    let mut requests = [b("", "big"), s()].concat().repeat(50);
    let mut rounds = 0;
    while !requests.is_empty() || !bench.client_tail.is_empty() {
        let arrived = bench.say(&Side::Client, &std::mem::take(&mut requests)).unwrap();
        assert!(!arrived.is_empty() && arrived.len() < 600 << 10, "{}", arrived.len());
        rounds += 1;
    }
    assert!(rounds > 10, "{rounds}");
}

/// What a Bind has announced ends with the connection's hand-over: the Execute would wait for more of itself for ever.
#[test]
fn a_bound_discard_is_forgotten_at_the_hand_over() {
    let mut bench = prepared("a", "DISCARD ALL");
    bench.play(
        &[client([b("", "a"), s()], [b("", &name("DISCARD ALL")), s()], Owing), server_passes([bc(), z(b'I')], Idle)],
        usize::MAX,
    );
    bench.attach();
    assert_eq!(bench.say(&Side::Client, &e("")[..5]).unwrap(), e("")[..5]);
    // Where it counts, its length is bounded.
    let mut bench = prepared("a", "DISCARD ALL");
    bench.say(&Side::Client, &b("", "a")).unwrap();
    assert_eq!(bench.say(&Side::Client, b"E\x00\x20\x00\x00"), Err(Violation::FrameTooLong));
}
