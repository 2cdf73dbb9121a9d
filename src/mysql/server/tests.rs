//! The machine with both of its sides played by hand: bytes in, bytes out, whole and in pieces.

mod attributes;
mod hidden;
mod long;
mod lost;
mod prepared;
mod results;
mod routines;
mod settings;
mod unread;

use super::*;
use crate::mysql::accept::Started;
use crate::mysql::frame::{Reader, put_number, put_string};
use crate::mysql::message::{OkPacket, error, mark};
use crate::protocol::{CancelKey, Detached, Kill, Killed, Login, PinReason, Pins, Welcome};
use crate::sql::mysql::TEXT_BYTES_MAX;
use proptest::prelude::{any, prop_assert, proptest};

const MODERN: Capabilities = Capabilities::CLIENT_DEPRECATE_EOF
    .union(Capabilities::CLIENT_SESSION_TRACK)
    .union(Capabilities::CLIENT_LOCAL_FILES);

/// What is said behind a reset.
const AS_NEW: &str = "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci, SESSION session_track_state_change = 1";

fn server() -> Server {
    let mut server = Server::new(Connected {
        version: "9.7.4".into(),
        connection_id: 5,
        status: status::AUTOCOMMIT,
        capabilities: Capabilities::empty(),
        extended: Extended::empty(),
        options: ConnectOptions {
            user: "app".into(),
            database: "orders".into(),
            fixed: Vec::new(),
            secret: None,
            tls: false,
            local_socket: false,
            nonce: [0; 18],
            max_prepared_statements: 2,
            statement_key: [0; 16],
            learned: Arc::default(),
        },
    });
    server.tells_state = true;
    server.knows("p", "SELECT 1");
    server
}

fn client(capabilities: Capabilities, id: u64) -> Client {
    Client::new(&Started {
        login: Login {
            user: "app".into(),
            database: "orders".into(),
            baseline: Arc::new(Settings::new([("names", "45")])),
            fixed: Vec::new(),
            keys: None,
        },
        welcome: Welcome {
            parameters: Arc::new(Parameters::new()),
            cancel_key: CancelKey { process_id: 1, secret: Box::default() },
            client_id: id,
            statement_key: [0; 16],
        },
        capabilities,
        extended: Extended::empty(),
        application: String::new(),
        compression: None,
    })
}

/// Both machines, and what each side has not taken yet.
struct Bench {
    server: Server,
    client: Client,
    client_tail: Vec<u8>,
    server_tail: Vec<u8>,
    piece: usize,
}

impl Bench {
    fn new(capabilities: Capabilities, piece: usize) -> Self {
        let mut bench = Self {
            server: server(),
            client: client(capabilities, 1),
            client_tail: Vec::new(),
            server_tail: Vec::new(),
            piece,
        };
        assert_eq!(bench.attach(), b"");
        bench
    }

    /// The client gets the connection: what that says to the server.
    fn attach(&mut self) -> Vec<u8> {
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        self.server.attach(&mut self.client, Sides { client: &mut to_client, server: &mut to_server });
        assert_eq!(to_client, b"");
        to_server
    }

    /// What arrives at the server.
    fn says(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut arrived = Vec::new();
        for piece in if bytes.is_empty() { vec![&b""[..]] } else { bytes.chunks(self.piece).collect::<Vec<_>>() } {
            self.client_tail.extend_from_slice(piece);
            let mut out = Out::new();
            let taken = self.server.send(&self.client_tail, &mut self.client, &mut out).unwrap();
            out.copy_to(&self.client_tail, 0, &mut arrived);
            self.client_tail.drain(..taken);
        }
        arrived
    }

    /// What arrives at the client.
    fn hears(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut arrived = Vec::new();
        for piece in bytes.chunks(self.piece) {
            self.server_tail.extend_from_slice(piece);
            let mut out = Out::new();
            let taken = self.server.receive(&self.server_tail, Some(&mut self.client), &mut out).unwrap();
            out.copy_to(&self.server_tail, 0, &mut arrived);
            self.server_tail.drain(..taken);
        }
        arrived
    }
}

/// Packets numbered from `sequence` on.
fn packets(mut sequence: u8, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for payload in payloads {
        packet(&mut out, &mut sequence, |out| out.extend_from_slice(payload));
    }
    out
}

fn says(command: u8, body: &[u8]) -> Vec<u8> {
    packets(0, &[[&[command], body].concat()])
}

fn ok(mark: u8, status: u16) -> Vec<u8> {
    ok_with(mark, OkPacket { status, ..OkPacket::default() })
}

fn ok_with(mark: u8, ok: OkPacket<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    ok.write(mark, true, &mut out);
    out
}

fn eof(status: u16) -> Vec<u8> {
    let mut out = Vec::new();
    OkPacket { status, ..OkPacket::default() }.write_eof(&mut out);
    out
}

fn err(code: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let state = match code {
        1053 | 1156..=1161 => "08S01",
        1927 => "70100",
        _ => "HY000",
    };
    error(code, state, "no", &mut out);
    out
}

fn count(columns: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, columns);
    out
}

fn column() -> Vec<u8> {
    let mut out = Vec::new();
    for part in ["def", "", "", "", "a", ""] {
        put_string(&mut out, part.as_bytes());
    }
    out.extend_from_slice(&[12, 45, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0]);
    out
}

fn row(value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, value.as_bytes());
    out
}

const AUTO: u16 = status::AUTOCOMMIT;

fn in_pieces(play: impl Fn(usize)) {
    [1, 3, 1000].into_iter().for_each(play);
}

/// Scenario 27: what MariaDB does not know of MySQL's collations, and what it calls otherwise.
#[test]
fn collations_by_the_names_of_their_server() {
    for (id, mysql, mariadb) in [
        (45, "utf8mb4 COLLATE utf8mb4_general_ci", "utf8mb4 COLLATE utf8mb4_general_ci"),
        (76, "utf8mb3 COLLATE utf8mb3_tolower_ci", "DEFAULT"),
        (213, "utf8mb3 COLLATE utf8mb3_croatian_ci", "utf8mb3 COLLATE utf8mb3_croatian_mysql561_ci"),
        (245, "utf8mb4 COLLATE utf8mb4_croatian_ci", "utf8mb4 COLLATE utf8mb4_croatian_mysql561_ci"),
        (248, "gb18030 COLLATE gb18030_chinese_ci", "DEFAULT"),
        (255, "utf8mb4 COLLATE utf8mb4_0900_ai_ci", "DEFAULT"),
        (300, "utf8mb4 COLLATE utf8mb4_vi_0900_as_cs", "DEFAULT"),
        (0, "DEFAULT", "DEFAULT"),
    ] {
        let mut server = server();
        for (is_mariadb, names) in [(false, mysql), (true, mariadb)] {
            server.is_mariadb = is_mariadb;
            assert_eq!(server.names(Some(&id.to_string())), format!("NAMES {names}"), "{id}");
        }
    }
}

/// Scenarios 60, 68 and 73: what must not reach a server, in the middle of a pipeline.
#[test]
fn what_is_refused_is_answered_in_its_turn() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let pipeline = [says(command::PING, b""), says(0x55, b"what?"), says(command::PING, b"")].concat();
        assert_eq!(bench.says(&pipeline), says(command::PING, b"").repeat(3));
        let replies = packets(1, &[ok(mark::OK, AUTO)]).repeat(3);
        let unknown = packets(
            1,
            &[{
                let mut out = Vec::new();
                crate::mysql::message::client_error(&ClientError::UnknownCommand, &mut out);
                out
            }],
        );
        let one = packets(1, &[ok(mark::OK, AUTO)]);
        assert_eq!(bench.hears(&replies), [one.clone(), unknown, one].concat());
        assert_eq!(bench.server.refused(), Some(ClientError::UnknownCommand));
        // Whose number that is can't be seen.
        assert_eq!(bench.says(&says(command::QUERY, b"KILL @a")), says(command::PING, b""));
    });
}

/// Scenarios 68 and 71: the proxy does what a `KILL` asks for, once everything before it has been answered.
#[test]
fn another_client_is_stopped() {
    let kill = says(command::QUERY, b"/* a hint */ kill QUERY 7");
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let ping = says(command::PING, b"");
        assert_eq!(bench.says(&[&ping[..], &kill, &ping].concat()), ping);
        assert_eq!(bench.client.kill(), None);
        let done = packets(1, &[ok(mark::OK, AUTO)]);
        assert_eq!(bench.hears(&done), done);
        assert_eq!(bench.says(b""), b"");
        assert_eq!(bench.client.kill(), Some(Kill { process_id: 7, ends_session: false }));
        assert_eq!((bench.client.kill(), bench.says(b"")), (None, vec![]));
        bench.client.killed(Killed::NotOwned);
        assert_eq!(bench.says(b""), ping.repeat(2));
        let told = bench.hears(&done.repeat(2));
        assert_eq!(told[told.len() - done.len()..], done);
        assert_eq!(crate::mysql::message::server_error(&told[4..told.len() - done.len()]).unwrap().code, "1095");
        assert_eq!(bench.server.refused(), None);
        // Done.
        bench.says(&kill);
        assert!(bench.client.kill().is_some());
        bench.client.killed(Killed::Done);
        assert_eq!(bench.says(b""), ping);
        assert_eq!(bench.hears(&done), done);
        // Itself, at this moment.
        assert_eq!(bench.says(&says(command::QUERY, b"KILL QUERY 1")), ping);
        let told = bench.hears(&done);
        assert_eq!(crate::mysql::message::server_error(&told[4..]).unwrap().code, "1317");
    });
}

/// The same by a client without a connection, which it does not need.
#[test]
fn another_client_is_stopped_without_a_connection() {
    for (request, ends_session) in [
        (says(command::QUERY, b"KILL QUERY 7"), false),
        (says(command::QUERY, b"KILL 7;"), true),
        (says(command::QUERY, b"KILL CONNECTION 7"), true),
        (says(command::PROCESS_KILL, &[7, 0, 0, 0]), true),
    ] {
        let (mut client, mut out) = (client(MODERN, 1), Vec::new());
        assert_eq!(client.detached(&request, &mut out), Ok((0, Detached::NeedInput)));
        assert_eq!(client.kill(), Some(Kill { process_id: 7, ends_session }));
        assert_eq!(client.detached(&request, &mut out), Ok((0, Detached::NeedInput)));
        client.killed(Killed::NoSuchClient);
        assert_eq!(client.detached(&request, &mut out), Ok((request.len(), Detached::NeedInput)));
        assert_eq!(crate::mysql::message::server_error(&out[4..]).unwrap().message, "Unknown thread id: 7");
        assert_eq!(client.kill(), None);
    }
    // More than the number behind it, and not all of that is here.
    let request = says(command::PROCESS_KILL, &[7, 0, 0, 0, 1, 2]);
    let (mut client, mut out) = (client(MODERN, 1), Vec::new());
    let all_but_one = &request[..request.len() - 1];
    assert_eq!(client.detached(all_but_one, &mut out), Ok((0, Detached::NeedInput)));
    assert_eq!(client.kill(), Some(Kill { process_id: 7, ends_session: true }));
    // What else there is in it the server must read.
    for text in ["KILL QUERY 7; SELECT 1", "KILL CONNECTION_ID()", "KILL HARD 7", "SELECT 'KILL 7'"] {
        let (mut client, mut out) = (self::client(MODERN, 1), Vec::new());
        let request = says(command::QUERY, text.as_bytes());
        assert!(matches!(client.detached(&request, &mut out), Ok((0, Detached::NeedServer(_)))), "{text}");
    }
}

/// Finding 6: an error does not say whether the transaction is still there.
#[test]
fn an_error_leaves_a_transaction_in_doubt() {
    in_pieces(|piece| {
        let mut bench = Bench::new(MODERN, piece);
        let open = AUTO | status::IN_TRANSACTION;
        bench.says(&says(command::QUERY, b"BEGIN"));
        bench.hears(&packets(1, &[ok(mark::OK, open)]));
        assert_eq!(bench.server.status(), Status::InTransaction);
        bench.says(&says(command::QUERY, b"INSERT INTO t VALUES (1)"));
        assert_eq!(bench.hears(&packets(1, &[err(1213)])), packets(1, &[err(1213)]));
        assert_eq!(bench.server.status(), Status::InTransaction);
        let mut asked = Vec::new();
        assert!(bench.server.probe(&mut asked));
        assert_eq!(asked, says(command::PING, b""));
        assert_eq!(bench.hears(&packets(1, &[ok(mark::OK, AUTO)])), b"");
        assert_eq!(bench.server.status(), Status::Idle);
        assert!(!bench.server.probe(&mut asked));
        // Its client hears of it when it asks.
        let (mut heard, ping) = (Vec::new(), says(command::PING, b""));
        bench.client.detached(&ping, &mut heard).unwrap();
        assert_eq!(heard, packets(1, &[ok(mark::OK, AUTO)]));
        // Outside of one it is asked as well: what a statement that failed has changed is told behind it.
        for (text, pins) in [("INSERT INTO t VALUES (1)", 1), ("SET @a = nonsense", 0)] {
            bench.says(&says(command::QUERY, text.as_bytes()));
            bench.hears(&packets(1, &[err(1054)]));
            let before = bench.client.unread.unknown();
            assert!(bench.server.probe(&mut asked));
            let told = OkPacket { status: AUTO | status::STATE_CHANGED, changes: &[2, 1, b'1'], ..OkPacket::default() };
            assert_eq!(bench.hears(&packets(1, &[ok_with(mark::OK, told)])), b"");
            assert_eq!(bench.server.status(), Status::Idle);
            assert_eq!(bench.client.unread.unknown().without(before).iter().count(), pins);
        }
    });
}

/// What one client has left there, another does not see.
#[test]
fn last_values_are_nobody_elses() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"INSERT INTO t VALUES ()"));
    let drawn = OkPacket { insert_id: 41, status: AUTO, ..OkPacket::default() };
    bench.hears(&packets(1, &[ok_with(mark::OK, drawn)]));
    bench.client = client(MODERN, 2);
    bench.attach();
    let question = says(command::QUERY, b"SELECT LAST_INSERT_ID()");
    let sent = bench.says(&question);
    let texts: Vec<String> = texts(&sent);
    assert_eq!(
        texts,
        ["SELECT 1 FROM (SELECT 1) t LIMIT 0", "SET SESSION last_insert_id = 0", "SELECT LAST_INSERT_ID()"]
    );
    let hidden = [packets(1, &[count(1), column(), ok(mark::EOF, AUTO)]), packets(1, &[ok(mark::OK, AUTO)])];
    assert_eq!(bench.hears(&hidden.concat()), b"");
    let own = packets(1, &[count(1), column(), row("0"), ok(mark::EOF, AUTO)]);
    assert_eq!(bench.hears(&own), own);
    assert_eq!(texts_of(&mut bench, &question), ["SELECT LAST_INSERT_ID()"]);
}

/// Behind questions of the proxy's own nothing new is sent, but what has begun goes on: the server waits for its rest.
#[test]
fn a_long_text_behind_questions_of_the_proxys_own() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.client = client(MODERN, 2);
    bench.attach();
    let text = says(command::QUERY, &[b"SELECT 1, ", &vec![b'x'; 2 * TEXT_BYTES_MAX][..]].concat());
    let begun = bench.says(&text[..TEXT_BYTES_MAX + 100]);
    assert!(begun.windows(4).any(|bytes| bytes == b") t "));
    assert!(!bench.server.is_holding() && bench.server.needs_client());
    assert_eq!(bench.says(&text[TEXT_BYTES_MAX + 100..]).len(), text.len() - TEXT_BYTES_MAX - 100);
    assert!(bench.server.is_holding() && !bench.server.needs_client());
}

fn texts_of(bench: &mut Bench, question: &[u8]) -> Vec<String> {
    texts(&bench.says(question))
}

fn texts(sent: &[u8]) -> Vec<String> {
    let mut reader = Reader(sent);
    let mut texts = Vec::new();
    while let Some(head) = crate::mysql::frame::head(reader.0) {
        let packet = reader.bytes(head.bytes()).unwrap();
        texts.push(String::from_utf8_lossy(&packet[5..]).into_owned());
    }
    texts
}

/// What a client has set keeps it on its connection; the connection is reset behind it.
#[test]
fn settings_pin_and_a_reset_ends_them() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SET @a = 1"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert!(!bench.client.pins.is_empty());
    let mut reset = Vec::new();
    bench.server.reset(&mut reset);
    assert_eq!(texts(&reset), [""]);
    let done = packets(1, &[ok(mark::OK, AUTO)]);
    let mut out = Out::new();
    assert_eq!(bench.server.receive(&done, None, &mut out), Ok(done.len()));
    assert_eq!(bench.server.status(), Status::Idle);
    // What the next one began with is put there first.
    bench.client = client(MODERN, 2);
    assert_eq!(texts(&bench.attach()), [AS_NEW]);
    assert!(bench.server.has_sent_nothing());
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!(bench.server.status(), Status::Idle);
    assert_eq!(bench.client.pins, Pins::NONE);
}

/// Scenario 65: asked for by the client.
#[test]
fn a_client_has_its_connection_made_as_new() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SET @a = 1"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    let both = [says(command::RESET_CONNECTION, b""), says(command::QUERY, b"SELECT 1")].concat();
    assert_eq!(bench.says(&both), says(command::RESET_CONNECTION, b""));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert!(bench.client.pins.is_empty());
    assert_eq!(texts_of(&mut bench, b""), [AS_NEW]);
    assert_eq!(bench.hears(&packets(1, &[ok(mark::OK, AUTO)])), b"");
    assert_eq!(texts_of(&mut bench, b""), ["SELECT 1"]);
}

/// A reset keeps the database: its client keeps the connection, or it is closed where there was none before.
#[test]
fn a_database_outlives_a_reset() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::INIT_DB, b"an-other"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    bench.says(&says(command::RESET_CONNECTION, b""));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!(bench.client.pins, Pins::of(PinReason::Setting));
    let mut reset = Vec::new();
    bench.server.reset(&mut reset);
    assert_eq!(texts(&reset), ["", "orders"]);
    assert_eq!(bench.server.attach_failure(), None);
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.options.database.clear();
    bench.server.reset(&mut reset);
    assert_eq!(bench.server.attach_failure(), None);
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.options.database.clear();
    bench.says(&says(command::INIT_DB, b"an-other"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    bench.server.reset(&mut reset);
    assert!(bench.server.attach_failure().is_some());
}

/// Nor does it bring a role back, or how many statements a text may have: whoever gets the connection would have that.
#[test]
fn what_lasts_outlives_a_clients_reset() {
    for (command, body) in [(command::QUERY, &b"SET ROLE admin"[..]), (command::SET_OPTION, &[0, 0][..])] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command, body));
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        bench.says(&says(command::RESET_CONNECTION, b""));
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        assert!(!bench.client.pins.can_be_reset(), "{body:?}");
    }
}

/// What every client is to find is there behind a client's own reset, too.
#[test]
fn a_clients_reset_brings_the_init_query_back() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let mut sent = Vec::new();
    bench.server.initialize(&"SET a = 1".into(), &mut sent);
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    bench.says(&says(command::RESET_CONNECTION, b""));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!(bench.server.status(), Status::Idle);
    bench.client = client(MODERN, 2);
    assert_eq!(texts(&bench.attach()), ["SET a = 1", AS_NEW]);
}

/// What a client's own statement has left it can ask for, in the same transaction.
#[test]
fn last_values_of_ones_own_stay() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"INSERT INTO t VALUES ()"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    bench.server.insert_id = Some(7);
    bench.client = client(MODERN, 2);
    bench.attach();
    bench.says(&says(command::QUERY, b"BEGIN"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO | status::IN_TRANSACTION)]));
    // What is another's goes before the statement that leaves something, not behind it.
    let update = says(command::QUERY, b"UPDATE t SET a = 1");
    assert_eq!(texts(&bench.says(&update)).len(), 3);
    let done = packets(1, &[ok(mark::OK, AUTO | status::IN_TRANSACTION)]);
    let none = packets(1, &[count(1), column(), ok(mark::EOF, AUTO | status::IN_TRANSACTION)]);
    assert_eq!(bench.hears(&[none, done.clone(), done.clone()].concat()), done);
    assert_eq!(texts_of(&mut bench, &says(command::QUERY, b"SELECT ROW_COUNT()")), ["SELECT ROW_COUNT()"]);
}

/// Finding 13: it is not said to whoever comes next.
#[test]
fn a_server_that_ends_an_idle_connection() {
    let (mut server, mut out) = (server(), Out::new());
    let told = packets(0, &[err(4031)]);
    assert_eq!(server.receive(&told, None, &mut out), Ok(told.len()));
    assert!(out.is_empty());
    assert_eq!(server.status(), Status::Ended);
}

/// Scenario 105: who keeps the connection is told, as an answer to what it asks next.
#[test]
fn a_server_that_ends_a_kept_connection() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SET wait_timeout = 1"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!(bench.hears(&packets(0, &[err(4031)])), packets(1, &[err(4031)]));
    assert_eq!(bench.server.status(), Status::Ended);
}

/// What the client gets for this command, when the server has answered the ping that comes in its place.
fn refused_with(bench: &mut Bench, command: u8, body: &[u8]) -> String {
    assert_eq!(bench.says(&says(command, body)), says(command::PING, b""));
    let told = bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    crate::mysql::message::server_error(&told[4..]).unwrap().code
}

/// Scenario 106: rolled back by the proxy; the client is told, and nothing runs until it has ended its transaction.
#[test]
fn a_transaction_that_was_open_for_too_long() {
    let why = || ClientError::TransactionTooLong { limit: std::time::Duration::from_secs(1) };
    let open = AUTO | status::IN_TRANSACTION;
    let begin = |bench: &mut Bench| {
        bench.says(&says(command::QUERY, b"BEGIN"));
        bench.hears(&packets(1, &[ok(mark::OK, open)]));
    };
    let rolled_back = |bench: &mut Bench, sent: &[u8]| {
        assert_eq!(texts(sent), ["ROLLBACK"]);
        assert_eq!(bench.hears(&packets(1, &[ok(mark::OK, AUTO)])), b"");
        // Nothing of it is on the connection any more: its client knows the rest.
        assert_eq!(bench.server.status(), Status::Idle);
    };
    let mut bench = Bench::new(MODERN, usize::MAX);
    assert!(!bench.server.fail_transaction(why(), &mut Vec::new()), "there is none");
    for (last, is_told) in [(&b"ROLLBACK"[..], false), (b"COMMIT", true)] {
        for asks_first in [true, false] {
            begin(&mut bench);
            let mut sent = Vec::new();
            assert!(bench.server.fail_transaction(why(), &mut sent));
            assert!(!bench.server.fail_transaction(why(), &mut sent), "it has failed");
            rolled_back(&mut bench, &sent);
            if asks_first {
                assert_eq!(refused_with(&mut bench, command::QUERY, b"INSERT INTO t VALUES (1)"), "1317");
                assert_eq!(refused_with(&mut bench, command::QUERY, b"SELECT 1"), "1213");
                assert_eq!(refused_with(&mut bench, command::INIT_DB, b"other"), "1213");
                let ping = says(command::PING, b"");
                assert_eq!(bench.says(&ping), ping);
                bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
            }
            if is_told {
                let code = if asks_first { "1213" } else { "1317" };
                assert_eq!(refused_with(&mut bench, command::QUERY, last), code);
            } else {
                assert_eq!(texts_of(&mut bench, &says(command::QUERY, last)), ["ROLLBACK"]);
                bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
            }
            assert_eq!(bench.server.status(), Status::Idle);
        }
    }
    // One that was cancelled, which leaves the transaction open.
    for is_probed in [true, false] {
        begin(&mut bench);
        bench.says(&says(command::QUERY, b"SELECT SLEEP(600)"));
        bench.server.explain_cancel(why());
        bench.hears(&packets(1, &[err(1317)]));
        let mut sent = Vec::new();
        let server = &mut bench.server;
        assert!(if is_probed { server.probe(&mut sent) } else { server.fail_transaction(why(), &mut sent) });
        rolled_back(&mut bench, &sent);
        // It has been told.
        assert_eq!(refused_with(&mut bench, command::QUERY, b"SELECT 1"), "1213");
        assert_eq!(texts_of(&mut bench, &says(command::QUERY, b"ROLLBACK")), ["ROLLBACK"]);
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        assert_eq!(bench.server.status(), Status::Idle);
    }
}

/// A client that commits by itself has no transaction that could fail: what a statement that was cancelled has left is asked first.
#[test]
fn what_is_not_known_to_be_a_transaction_is_not_failed() {
    let why = || ClientError::TransactionTooLong { limit: std::time::Duration::from_secs(60) };
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"INSERT INTO t VALUES (1)"));
    bench.server.explain_cancel(why());
    bench.hears(&packets(1, &[err(1317)]));
    let mut sent = Vec::new();
    assert!(!bench.server.fail_transaction(why(), &mut sent));
    assert!(bench.server.probe(&mut sent));
    assert_eq!(sent, says(command::PING, b""));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    assert_eq!(bench.server.status(), Status::Idle);
    // One of XA ends by its own words alone.
    bench.says(&says(command::QUERY, b"XA START 'x'"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO | status::IN_TRANSACTION)]));
    sent.clear();
    while bench.server.verify(&bench.client, &mut sent) || bench.server.probe(&mut sent) {
        bench.hears(&packets(1, &[ok(mark::OK, AUTO | status::IN_TRANSACTION)]));
        sent.clear();
    }
    assert!(!bench.server.fail_transaction(why(), &mut sent));
}

/// Scenario 98: the server closes behind the answer, and what is not said is that the session goes on.
#[test]
fn a_client_that_commits_and_leaves() {
    for (text, status) in [
        (&b"COMMIT RELEASE"[..], Status::Ended),
        (b"/* x */ rollback work and no chain release;", Status::Ended),
        (b"COMMIT NO RELEASE", Status::Idle),
    ] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, text));
        let told = packets(1, &[ok(mark::OK, AUTO)]);
        assert_eq!(bench.hears(&told), told);
        assert_eq!(bench.server.status(), status);
        // One that failed has left nothing.
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, text));
        bench.hears(&packets(1, &[err(1064)]));
        assert_ne!(bench.server.status(), Status::Ended);
    }
}

/// Scenario 43: a connection whose user must change the password first is nobody else's.
#[test]
fn a_connection_that_may_only_change_the_password() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SELECT 1"));
    let told = packets(1, &[err(1820)]);
    assert_eq!(bench.hears(&told), told);
    assert_eq!(bench.server.status(), Status::Ended);
}

proptest! {
    /// Scenario 127.
    #[test]
    fn any_bytes_from_either_side(talk in proptest::collection::vec((any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..30)) {
        let mut bench = Bench::new(Capabilities::empty(), 1);
        let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
        for (is_client, framed, bytes) in talk {
            let bytes = if framed { packets(u8::from(!is_client), &[bytes]) } else { bytes };
            let mut out = Out::new();
            let (tail, result) = if is_client {
                from_client.extend(bytes);
                let result = bench.server.send(&from_client, &mut bench.client, &mut out);
                (&mut from_client, result)
            } else {
                from_server.extend(bytes);
                let result = bench.server.receive(&from_server, Some(&mut bench.client), &mut out);
                (&mut from_server, result)
            };
            let Ok(taken) = result else { break };
            prop_assert!(taken <= tail.len());
            tail.drain(..taken);
            prop_assert!(bench.server.owed.len() <= OWED_MAX + 8);
        }
        bench.server.status();
    }
}
