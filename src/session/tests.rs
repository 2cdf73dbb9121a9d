//! Sessions between a client and a database in memory, on paused time: both peers are played by the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod limits;

use super::*;
use crate::auth::Authenticator;
use crate::config::{PoolConfig, TargetAddress};
use crate::metrics::Metrics;
use crate::net::Way;
use crate::pool::line::Figures;
use crate::pool::{Dial, Order, PoolKey};
use crate::postgres::Postgres;
use crate::postgres::client::Client;
use crate::postgres::connect::Connected;
use crate::postgres::server::Server;
use crate::protocol::{Login, Parameters, Settings, TlsOffer, Welcome};
use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

/// Bytes that a peer may be ahead by.
const PIPE_BYTES: usize = 8 << 10;
/// Longer than any limit here: who waits for so long waits for ever.
const FOR_EVER: Duration = Duration::from_secs(3600);
const IDLE: Figures = Figures { open: 1, idle: 1, openings: 0, waiting: 0 };

const NO_LIMITS: Rules = Rules {
    pool_mode: PoolMode::Transaction,
    transaction_idle_timeout: None,
    idle_client_timeout: None,
    pin_policy: PinPolicy { rejected: crate::protocol::Pins::NONE, allowed: crate::protocol::Pins::NONE },
    pin_idle_timeout: None,
    query_timeout: None,
    transaction_max: None,
};

const EXTENDED: [(u8, &[u8]); 3] =
    [(b'P', b"\0INSERT INTO t VALUES (1)\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0")];
const ERROR: &[u8] = b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0";

struct Fixture {
    worker: Rc<Worker>,
    endpoint: Endpoint<Postgres>,
    logins: mpsc::UnboundedReceiver<Order<Postgres>>,
    clients: u64,
}

impl Fixture {
    /// One worker, and a budget of one connection. Cancels reach nobody: nobody listens at the target's address.
    fn new(rules: Rules) -> Self {
        Self::with(rules, PoolConfig::default())
    }

    fn with(rules: Rules, config: PoolConfig) -> Self {
        let dial = Dial::new(Way::new(TargetAddress::Unix("/nowhere".into()), None, Duration::from_secs(1)).unwrap());
        let (pools, mut orders) = Pools::new("main", dial, config, Arc::default());
        pools.set_budget(1);
        let (login, logins) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            while let Some(order) = orders.recv().await {
                let login = login.clone();
                tokio::task::spawn_local(
                    async move { order.left().await.is_some_and(|order| login.send(order).is_ok()) },
                );
            }
        });
        let (cancel_keys, cancels) = CancelKeys::new(0, 1);
        let worker = Worker::new(0, Arc::new(Metrics::new([], [], 1).unwrap()));
        tokio::task::spawn_local(Rc::clone(&worker).look_after(cancels.into_iter().next().unwrap()));
        let authenticator = Authenticator::new(&[], &[], None, None).unwrap();
        let endpoint = Endpoint {
            name: "main".into(),
            places: (0, 0),
            tls: TlsOffer::Off,
            access: Arc::new(ArcSwap::from_pointee(Access { authenticator, tls: None })),
            clients: Arc::default(),
            login_timeout: FOR_EVER,
            rate: None,
            quiet: crate::net::quiet::Quiet::default(),
            rules,
            pools,
            lookup: None,
            greetings: Greetings::default(),
            cancel_keys,
            version: Arc::default(),
            statement_key: [0; 16],
            password_key: None,
        };
        Self { worker, endpoint, logins, clients: 0 }
    }

    fn figures(&self) -> Figures {
        self.endpoint.pools.figures()
    }

    /// Waits until the database has let go of its only connection.
    async fn nothing_is_left(&self, database: Peer) {
        drop(database);
        let empty = async {
            while self.figures() != Figures::default() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let is_left = tokio::time::timeout(Duration::from_millis(10), empty).await.is_err();
        assert!(!is_left, "{:?}", self.figures());
    }

    /// A client that has just logged in, and what its session will end with.
    fn client(&mut self) -> (Peer, JoinHandle<End>) {
        self.clients += 1;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (issued, cancel_key) = self.endpoint.cancel_keys.issue(self.clients, 0, None).unwrap();
        let login = Login {
            user: "app".into(),
            database: "app".into(),
            baseline: Arc::new(Settings::default()),
            fixed: Vec::new(),
            keys: None,
        };
        let parameters = Arc::new(Parameters::new());
        let welcome = Welcome { parameters, cancel_key, client_id: self.clients, statement_key: [0; 16] };
        let key = PoolKey { user: "app".into(), account: "app".into(), database: "app".into(), fixed: Vec::new() };
        let session = Session::new(
            self.worker.watch(self.clients, &self.endpoint.rules),
            &self.endpoint,
            self.endpoint.pools.pool(key).unwrap(),
            Stream::memory(ours),
            Client::new(&login, &welcome, &[]),
            issued,
            (Vec::new(), Vec::new()),
        );
        (Peer(theirs), tokio::task::spawn_local(async { Box::new(session).run().await.0 }))
    }

    /// The connection that was asked for is there: its other end. `secret`: of its cancel key; none, if empty.
    async fn database(&mut self, secret: &[u8]) -> Peer {
        let login = within(self.logins.recv()).await.unwrap();
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let machine = Server::new(Connected {
            parameters: Parameters::new(),
            process_id: 1,
            secret: secret.to_vec(),
            max_prepared_statements: 10,
            statement_key: [0; 16],
        });
        let connection = Box::new(ServerConn::new(Stream::memory(ours), machine, Vec::new(), None));
        self.endpoint.pools.fulfil(login, connection);
        Peer(theirs)
    }
}

/// The far end of a connection.
struct Peer(DuplexStream);

impl Peer {
    async fn send(&mut self, frames: &[(u8, &[u8])]) {
        within(self.0.write_all(&bytes(frames))).await.unwrap();
    }

    /// The next frame; `None`: the other side has closed.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        within(self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length as usize - 4];
        within(self.0.read_exact(&mut body)).await.ok()?;
        Some((head[0], body))
    }

    /// Waits for frames of these kinds, one after another.
    async fn expect(&mut self, kinds: &str) {
        for kind in kinds.bytes() {
            let frame = self.next().await;
            assert_eq!(frame.as_ref().map(|frame| frame.0), Some(kind), "of {kinds}: {frame:?}");
        }
    }

    /// Waits for an error as the last word: severity, code and message.
    async fn last_error(&mut self) -> [String; 3] {
        let (kind, body) = self.next().await.expect("told nothing");
        assert_eq!(kind, b'E', "{}", body.escape_ascii());
        assert_eq!(self.next().await, None);
        let fields: Vec<_> = body.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        ["V", "C", "M"].map(|name| fields.iter().find_map(|field| field.strip_prefix(name)).unwrap().to_owned())
    }

    /// Reads until the other side has closed.
    async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// Nothing here takes that long, unless it hangs.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(FOR_EVER, work).await.expect("hangs")
}

fn bytes(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let frame = |(kind, body): &(u8, &[u8])| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[*kind][..], &length, body].concat()
    };
    frames.iter().flat_map(frame).collect()
}

/// With a frame's kind alone.
fn bare(kinds: &'static str) -> Vec<(u8, &'static [u8])> {
    kinds.bytes().map(|kind| (kind, &b""[..])).collect()
}

/// Runs a test's tasks until it is done.
async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_goes_back_behind_its_transaction() {
    run(async {
        let mut f = Fixture::new(NO_LIMITS);
        let (mut client, session) = f.client();
        client.send(&[(b'Q', b"SELECT 1\0")]).await;
        let mut database = f.database(&[]).await;
        database.expect("Q").await;
        database.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
        client.expect("CZ").await;
        client.send(&[(b'X', b"")]).await;
        assert_eq!(within(session).await.unwrap(), End::Goodbye);
        assert_eq!(f.figures(), IDLE);
    })
    .await;
}

/// Whether all was answered before it or not, and in the middle of what: it is not given to anybody else.
#[tokio::test(start_paused = true)]
async fn a_connection_whose_reply_is_not_understood_is_closed() {
    let row: (u8, &[u8]) = (b'D', b"\0\0");
    let end: [(u8, &[u8]); 2] = [(b'C', b"SELECT 1\0"), (b'Z', b"I")];
    let nonsense: (u8, &[u8]) = (b'1', b"");
    for (replies, kinds) in [(vec![end[0], end[1], nonsense], "CZ"), (vec![row, nonsense, end[0], end[1]], "D")] {
        run(async {
            let mut f = Fixture::new(NO_LIMITS);
            let (mut client, session) = f.client();
            client.send(&[(b'Q', b"SELECT 1\0")]).await;
            let mut database = f.database(&[]).await;
            database.expect("Q").await;
            let began = Instant::now();
            database.send(&replies).await;
            // What was understood is the client's.
            client.expect(kinds).await;
            let [severity, code, _] = client.last_error().await;
            assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "08007"));
            database.closed().await;
            assert_eq!(began.elapsed(), Duration::ZERO, "at once");
            assert_eq!(within(session).await.unwrap(), End::Told);
            f.nothing_is_left(database).await;
        })
        .await;
    }
}

/// The database waits for data, the proxy for the database, and nothing more is read of a client that broke the protocol.
#[tokio::test(start_paused = true)]
async fn a_breach_in_the_middle_of_copy_data_ends_the_session() {
    let copy: (u8, &[u8]) = (b'Q', b"COPY t FROM STDIN\0");
    let breach: (u8, &[u8]) = (b'~', b"");
    for pipelined in [false, true] {
        run(async {
            let mut f = Fixture::new(NO_LIMITS);
            let (mut client, session) = f.client();
            client.send(&[copy, breach][..if pipelined { 2 } else { 1 }]).await;
            let mut database = f.database(&[]).await;
            database.expect("Q").await;
            database.send(&[(b'G', b"\0\0\0")]).await;
            client.expect("G").await;
            if !pipelined {
                client.send(&[(b'd', b"1\n"), breach]).await;
            }
            let [severity, code, _] = client.last_error().await;
            assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "08P01"));
            database.closed().await;
            assert_eq!(within(session).await.unwrap(), End::Told);
            f.nothing_is_left(database).await;
        })
        .await;
    }
}

/// What `pin_on` allows is reset as the connection goes back, unless no reset would do.
#[tokio::test(start_paused = true)]
async fn what_is_allowed_is_gone_when_the_connection_goes_back() {
    use crate::protocol::{PinReason, Pins};
    let allowed = Pins::of(PinReason::Unreadable).and(Pins::of(PinReason::ServerProcess));
    let rules = Rules { pin_policy: PinPolicy { allowed, ..PinPolicy::default() }, ..NO_LIMITS };
    for (text, resets) in [(&b"SELECT U&\"a\"\0"[..], true), (b"LOAD 'x'\0", false)] {
        for leaves in [false, true] {
            run(async {
                let mut f = Fixture::new(rules.clone());
                let (mut client, session) = f.client();
                client.send(&[(b'Q', text)]).await;
                let mut database = f.database(&[]).await;
                database.expect("Q").await;
                database.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"T")]).await;
                client.expect("CZ").await;
                client.send(&[(b'Q', b"COMMIT\0")]).await;
                database.expect("Q").await;
                database.send(&[(b'C', b"COMMIT\0"), (b'Z', b"I")]).await;
                client.expect("CZ").await;
                if leaves {
                    client.send(&[(b'X', b"")]).await;
                }
                if resets {
                    database.expect("Q").await;
                    database.send(&[(b'C', b"DISCARD ALL\0"), (b'Z', b"I")]).await;
                }
                if !leaves {
                    client.send(&[(b'Q', b"SELECT 1\0")]).await;
                    database.expect("Q").await;
                    database.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
                    client.expect("CZ").await;
                    client.send(&[(b'X', b"")]).await;
                }
                assert_eq!(within(session).await.unwrap(), End::Goodbye);
                assert_eq!(f.figures(), IDLE);
            })
            .await;
        }
    }
}

/// While the machine holds, nothing can be sent, and the client may leave all the same.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_machine_holds_is_noticed() {
    // With a blank or two it is too long to be answered by the proxy itself.
    let clears: (u8, &[u8]) = (b'Q', b"DISCARD                                                             ALL\0");
    let next: (u8, &[u8]) = (b'Q', b"SELECT 1\0");
    let breach: (u8, &[u8]) = (b'~', b"");
    let slow: (u8, &[u8]) = (b'Q', b"SELECT pg_sleep(600)\0");
    for asks in [&[clears][..], &[clears, next], &[slow, breach]] {
        run(async {
            let mut f = Fixture::new(NO_LIMITS);
            let (mut client, session) = f.client();
            client.send(asks).await;
            let mut database = f.database(b"secret").await;
            database.expect("Q").await;
            drop(client);
            let began = Instant::now();
            assert_eq!(within(session).await.unwrap(), End::ClientLost);
            database.closed().await;
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            f.nothing_is_left(database).await;
        })
        .await;
    }
}

/// What is read ahead meanwhile is served, in its order, and to its end, also if nothing comes behind it.
#[tokio::test(start_paused = true)]
async fn what_comes_while_the_machine_holds_is_served() {
    run(async {
        let mut f = Fixture::new(NO_LIMITS);
        let (mut client, session) = f.client();
        client.send(&[(b'P', b"\0DISCARD ALL\0\0\0"), EXTENDED[1], EXTENDED[2]]).await;
        let mut database = f.database(b"secret").await;
        database.expect("PBEH").await;
        client.send(&bare("S")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.send(&[(b'Q', b"SELECT 1\0")]).await;
        client.0.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        database.send(&[(b'1', b""), (b'2', b""), (b'C', b"DISCARD ALL\0")]).await;
        database.expect("SQ").await;
        database.send(&[(b'Z', b"I"), (b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
        client.expect("12CZCZ").await;
        client.closed().await;
        assert_eq!(within(session).await.unwrap(), End::Goodbye);
        assert_eq!(f.figures(), IDLE);
    })
    .await;
}

/// A client that leaves while the connection is being reset behind it has all its answers.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_a_reset() {
    run(async {
        let config = PoolConfig { reset: crate::config::ResetPolicy::Full, ..PoolConfig::default() };
        let mut f = Fixture::with(NO_LIMITS, config);
        let (mut client, session) = f.client();
        client.send(&[(b'Q', b"SELECT 1\0")]).await;
        let mut database = f.database(b"secret").await;
        database.expect("Q").await;
        database.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
        client.expect("CZ").await;
        drop(client);
        database.expect("Q").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        database.send(&[(b'C', b"DISCARD ALL\0"), (b'Z', b"I")]).await;
        assert_eq!(within(session).await.unwrap(), End::Goodbye);
        assert_eq!(f.figures(), IDLE, "reset once");
    })
    .await;
}

/// What a client asks for while the connection is being reset behind its last transaction is for the next one: this one has
/// lost its settings, and others stand in line for it.
#[tokio::test(start_paused = true)]
async fn what_comes_during_a_reset_stands_in_line() {
    run(async {
        let config = PoolConfig { reset: crate::config::ResetPolicy::Full, ..PoolConfig::default() };
        let mut f = Fixture::with(NO_LIMITS, config);
        let (mut one, _session) = f.client();
        one.send(&[(b'Q', b"SELECT 1\0")]).await;
        let mut database = f.database(b"secret").await;
        database.expect("Q").await;
        database.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
        one.expect("CZ").await;
        database.expect("Q").await;
        let (mut other, _session) = f.client();
        other.send(&[(b'Q', b"SELECT 2\0")]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        one.send(&[(b'Q', b"SELECT 3\0")]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (query, client) in [(b"SELECT 2\0", &mut other), (b"SELECT 3\0", &mut one)] {
            database.send(&[(b'C', b"DISCARD ALL\0"), (b'Z', b"I")]).await;
            let (_, asked) = database.next().await.unwrap();
            assert_eq!(asked.escape_ascii().to_string(), query.escape_ascii().to_string());
            database.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
            client.expect("CZ").await;
            database.expect("Q").await;
        }
    })
    .await;
}
