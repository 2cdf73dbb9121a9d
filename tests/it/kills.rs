//! Clients that vanish: over 500 of them, in every state a session has, in every way a client can go.
//!
//! The states are in [`states`], one function each; the ways are [`Kill`]; real `psql` and `pgbench` processes are killed
//! in [`processes`]. All the while [`bystanders`] run checked transactions over the same database connections: none of
//! them may see an error or anything of another's. Afterwards all must be as if nobody had been there: clients, places,
//! connections, files, locks, tables, transactions.
//!
//! The order and what is left to chance come from a seed, which a failure prints: `SLUICEGATE_SEED=n` repeats it.

mod bystanders;
mod processes;
mod states;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sluicegate::demo::servers::{APP, Feature, PostgresServer};
use sluicegate::net::tls::self_signed;

use crate::harness::levels::{Levels, open_files};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::vanish::{KILLS, Kill, Socket};
use crate::harness::wire::{Frame, Login, PATIENCE, Wire, authenticate, below, kinds, query, read_frame};
use crate::harness::{database, server};
use bystanders::BYSTANDERS;

/// Of each state and kind.
const TIMES: usize = 5;
/// Of those that take turns.
const TIMES_IN_TURN: usize = 3;
/// At the same time.
const KILLERS: usize = 6;
/// Of the proxy's own, for its questions.
const OWN_CONNECTIONS: u32 = 2;
/// Places for clients at each endpoint: more than are ever there at once, few enough that lost ones are missed.
const MAX_CLIENTS: usize = 64;
/// Files that come and go by themselves: the proxy's own questions and those to it.
const FILES_BESIDE: usize = 8;

#[test]
fn clients_that_vanish_in_every_state() {
    let seed = std::env::var("SLUICEGATE_SEED").ok().map(|seed| seed.parse().unwrap()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    println!("to repeat: SLUICEGATE_SEED={seed}");
    let server = server(Feature::Protocol3_2);
    let proxies = Proxies::start(server);
    let files: Vec<usize> = proxies.all().map(|(_, proxy, _)| open_files(proxy.id())).collect();
    let scene = Scene::new(server, &proxies);
    let began = Instant::now();
    let (killed, transactions) = run(&scene, seed);
    println!("{began:?}: {killed:?}, meanwhile {transactions} transactions", began = began.elapsed());
    assert!(killed.values().sum::<usize>() >= 500, "{killed:?}");
    nothing_is_left(&scene, &proxies, &files);
}

/// Kills them all; how many of each kind, and how many transactions the bystanders did meanwhile.
fn run(scene: &Scene<'_>, seed: u64) -> (BTreeMap<String, usize>, u32) {
    let mut jobs: Vec<Job> = Vec::new();
    for round in 0..TIMES {
        for kill in KILLS {
            jobs.extend(states::STATES.map(|(name, state)| Job::Socket(name, state, kill)));
            if round < TIMES_IN_TURN {
                jobs.extend(states::STATES_IN_TURN.map(|(name, state)| Job::Socket(name, state, kill)));
            }
        }
        jobs.extend(processes::PROCESSES.map(|(name, process)| Job::Process(name, process)));
    }
    let mut random = seed;
    for place in (1..jobs.len()).rev() {
        jobs.swap(place, below(&mut random, place + 1));
    }
    let jobs = Mutex::new(jobs.into_iter().enumerate());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (over, killed) = (AtomicBool::new(false), Mutex::new(BTreeMap::<String, usize>::new()));
    thread::scope(|scope| {
        let over = &over;
        let watching: Vec<_> = BYSTANDERS
            .iter()
            .enumerate()
            .map(|(me, place)| scope.spawn(move || bystanders::run(scene, me, *place, over)))
            .collect();
        let killers: Vec<_> = (0..KILLERS)
            .map(|_| {
                scope.spawn(|| {
                    while let Some((number, job)) = next() {
                        let shows = ShowsJob(&job, seed);
                        let (kind, count) = job.run(scene, seed.wrapping_add(number as u64));
                        drop(shows);
                        *killed.lock().unwrap().entry(kind).or_default() += count;
                    }
                })
            })
            .collect();
        let ended: Vec<_> = killers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let transactions = watching.into_iter().map(|bystander| bystander.join().unwrap()).sum();
        ended.into_iter().for_each(|ended| ended.unwrap());
        (killed.lock().unwrap().clone(), transactions)
    })
}

#[derive(Clone, Copy)]
enum Job {
    Socket(&'static str, states::State, Kill),
    Process(&'static str, processes::Process),
}

impl Job {
    /// What was killed, and how often.
    fn run(&self, scene: &Scene<'_>, mut random: u64) -> (String, usize) {
        match self {
            Self::Socket(_, state, kill) => {
                let victim = state(scene, &mut random);
                victim.kill(*kill, &mut random);
                (format!("{kill:?}"), 1)
            }
            Self::Process(_, process) => ("kill -9".to_owned(), process(scene, &mut random)),
        }
    }
}

/// Says which kill a panic belongs to.
struct ShowsJob<'a>(&'a Job, u64);

impl Drop for ShowsJob<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            match self.0 {
                Job::Socket(name, _, kill) => println!("--- {name}, {kill:?}; SLUICEGATE_SEED={}", self.1),
                Job::Process(name, _) => println!("--- {name}, kill -9; SLUICEGATE_SEED={}", self.1),
            }
        }
    }
}

// ---------------------------------------------------------------- what there is

/// The three proxies, one for each way connections are shared.
struct Proxies {
    database: String,
    main: ProxyHandle,
    session: ProxyHandle,
    narrow: ProxyHandle,
    roots: RootCertStore,
    _folder: tempfile::TempDir,
}

/// Database connections for the clients of each.
const MAIN_CONNECTIONS: u32 = 8;
const SESSION_CONNECTIONS: u32 = 10;
const NARROW_CONNECTIONS: u32 = 1;

impl Proxies {
    fn start(server: &PostgresServer) -> Self {
        let database = database(server, "kills", &states::SETUP);
        let folder = tempfile::tempdir().unwrap();
        let certificate = self_signed(&["localhost"]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.ca.as_bytes()).unwrap()).unwrap();
        for (name, text) in [("proxy.pem", &certificate.certificate), ("proxy.key", &certificate.private_key)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let file = |name: &str| format!("{:?}", folder.path().join(name));
        let common = |connections: u32| {
            let text = set(
                &config(server.address(), connections + OWN_CONNECTIONS),
                "log",
                "level",
                "\"warn,sluicegate::run=info\"",
            );
            let text = set(&text, "target_group.pool", "connection_borrow_timeout", "\"60s\"");
            set(&text, "endpoint", "max_clients", &MAX_CLIENTS.to_string())
        };
        let main = set(&common(MAIN_CONNECTIONS), "endpoint", "tls", "\"optional\"");
        let main = set(&main, "tls", "certificate", &file("proxy.pem"));
        let main = set(&main, "tls", "private_key", &file("proxy.key"));
        let session = set(&common(SESSION_CONNECTIONS), "target_group.pool", "pool_mode", "\"session\"");
        let narrow = set(&common(NARROW_CONNECTIONS), "target_group.pool", "reset", "\"full\"");
        let [main, session, narrow] = [main, session, narrow].map(|text| start(&text));
        Self { database, main, session, narrow, roots, _folder: folder }
    }

    /// Name, proxy and connections of each.
    fn all(&self) -> impl Iterator<Item = (&'static str, &ProxyHandle, u32)> {
        [
            ("main", &self.main, MAIN_CONNECTIONS),
            ("session", &self.session, SESSION_CONNECTIONS),
            ("narrow", &self.narrow, NARROW_CONNECTIONS),
        ]
        .into_iter()
    }
}

/// Where a proxy is.
#[derive(Clone, Copy)]
struct Place {
    address: SocketAddr,
    admin: SocketAddr,
}

/// What all threads see.
struct Scene<'a> {
    server: &'a PostgresServer,
    database: &'a str,
    /// Transaction mode, plain and over TLS, eight connections.
    main: Place,
    /// Session mode.
    session: Place,
    /// One connection, with a full reset between any two clients.
    narrow: Place,
    tls: Arc<ClientConfig>,
    /// States that need the only connection of `narrow` take turns.
    turn: Mutex<()>,
    next: AtomicU32,
}

impl<'a> Scene<'a> {
    fn new(server: &'a PostgresServer, proxies: &'a Proxies) -> Self {
        let place = |proxy: &ProxyHandle| Place { address: proxy.address, admin: proxy.admin };
        let tls = ClientConfig::builder().with_root_certificates(proxies.roots.clone()).with_no_client_auth();
        Self {
            server,
            database: &proxies.database,
            main: place(&proxies.main),
            session: place(&proxies.session),
            narrow: place(&proxies.narrow),
            tls: Arc::new(tls),
            turn: Mutex::new(()),
            next: AtomicU32::new(1),
        }
    }

    fn login(&self) -> Login {
        Login::app().database(self.database)
    }

    fn superuser(&self) -> Wire {
        Wire::connect(self.server.address(), &Login::superuser().database(self.database)).unwrap()
    }

    /// One that nobody else has had.
    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // Who failed has said so; the others need not fail for that.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks until there are rows; the query's every run is a look.
fn wait_for_rows(superuser: &mut Wire, what: &str, sql: &str) {
    let began = Instant::now();
    while superuser.query(sql).is_empty() {
        assert!(began.elapsed() < PATIENCE, "not {what} within {PATIENCE:?}: {sql}");
        thread::sleep(Duration::from_millis(2));
    }
}

// ---------------------------------------------------------------- a client and its end

/// A client in a certain state, and what holds it there.
struct Victim<'a> {
    carrier: Carrier,
    /// Behind the kill, in this order.
    let_go: Vec<Box<dyn FnOnce() + 'a>>,
}

enum Carrier {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl<'a> Victim<'a> {
    /// A TCP connection of which little is read ahead.
    fn connect(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).unwrap();
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { carrier: Carrier::Plain(socket), let_go: Vec::new() }
    }

    /// A client that has logged in; over TLS by chance, where that is offered.
    fn logged_in(scene: &Scene<'_>, place: Place, random: &mut u64) -> Self {
        let mut victim = Self::connect(place.address);
        if place.address == scene.main.address && below(random, 2) == 0 {
            victim.start_tls(scene);
        }
        authenticate(&mut victim.carrier, &scene.login(), &mut Vec::new()).unwrap();
        victim
    }

    fn start_tls(&mut self, scene: &Scene<'_>) {
        let Carrier::Plain(socket) = &mut self.carrier else { panic!("TLS already") };
        socket.write_all(&states::SSL_REQUEST).unwrap();
        let mut answer = [0];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"S");
        let session = ClientConnection::new(scene.tls.clone(), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(session, socket.try_clone().unwrap());
        stream.flush().unwrap();
        self.carrier = Carrier::Tls(Box::new(stream));
    }

    fn send(&mut self, bytes: &[u8]) {
        self.carrier.write_all(bytes).and_then(|()| self.carrier.flush()).unwrap();
    }

    /// Reads up to the n-th frame of a kind; there must be no error on the way, unless that is what is waited for.
    fn until(&mut self, kind: u8, n: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.iter().filter(|frame: &&Frame| frame.kind == kind).count() < n {
            let frame = read_frame(&mut self.carrier).unwrap_or_else(|error| panic!("{error} after {frames:#?}"));
            assert!(frame.kind != b'E' || kind == b'E', "{frame}");
            frames.push(frame);
        }
        frames
    }

    /// Runs a simple query to its end; the kinds of what came.
    fn run(&mut self, sql: &str) -> String {
        self.send(&query(sql));
        kinds(&self.until(b'Z', 1))
    }

    /// Behind the kill.
    fn then(mut self, let_go: impl FnOnce() + 'a) -> Self {
        self.let_go.push(Box::new(let_go));
        self
    }

    fn kill(self, how: Kill, random: &mut u64) {
        let Self { carrier, let_go } = self;
        how.carry_out(carrier, random, || let_go.into_iter().for_each(|let_go| let_go()));
    }
}

impl Socket for Carrier {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Carrier {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

// ---------------------------------------------------------------- afterwards

/// Everything is as if nobody had been there.
fn nothing_is_left(scene: &Scene<'_>, proxies: &Proxies, files: &[usize]) {
    let mut idle = 0;
    for ((name, proxy, connections), files) in proxies.all().zip(files) {
        let levels = Levels::wait_until(proxy.admin, &format!("{name}: everybody gone"), |levels| {
            levels.clients + levels.waiting + levels.in_use == 0
        });
        assert_eq!(levels.disagreements, 0, "{name}: {levels:?}");
        assert!(levels.idle <= u64::from(connections), "{name}: {levels:?}");
        idle += levels.idle;
        let open = open_files(proxy.id());
        assert!(
            open <= files + usize::try_from(levels.idle).unwrap() + FILES_BESIDE,
            "{name}: {open} files, {files} before"
        );
        let log = proxy.log();
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{name}: {log}");
    }
    let mut superuser = scene.superuser();
    let ours = format!("usename = '{APP}' AND datname = current_database()");
    // The database notices a connection that was closed in mid-query by its end.
    wait_for_rows(
        &mut superuser,
        "as many sessions at the database as the proxies have",
        &format!(
            "SELECT 1 FROM pg_stat_activity WHERE {ours} \
             HAVING count(*) = {idle} AND bool_and(state = 'idle' AND xact_start IS NULL) IS NOT FALSE"
        ),
    );
    for (what, sql) in [
        (
            "locks",
            "SELECT locktype, mode FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE ".to_owned() + &ours,
        ),
        ("temporary tables", "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'".to_owned()),
        ("rows of a transaction that was not committed", "SELECT 'lost', * FROM lost".to_owned()),
    ] {
        let left = superuser.query(&sql);
        assert!(left.is_empty(), "{what} left behind: {left:?}");
    }
    for (name, proxy, connections) in proxies.all() {
        all_places_are_free(scene, name, proxy, connections as usize);
    }
}

/// As many clients as may come do, one more does not; as many hold a connection as there are, one more waits.
fn all_places_are_free(scene: &Scene<'_>, name: &str, proxy: &ProxyHandle, connections: usize) {
    let login = scene.login();
    let mut clients: Vec<Wire> = (0..connections).map(|_| Wire::connect(proxy.address, &login).unwrap()).collect();
    let mut processes: Vec<String> =
        clients.iter_mut().map(|client| client.value("BEGIN; SELECT pg_backend_pid()")).collect();
    processes.sort();
    processes.dedup();
    assert_eq!(processes.len(), connections, "{name}: {processes:?}");
    let mut more: Vec<Wire> =
        (connections..MAX_CLIENTS).map(|_| Wire::connect(proxy.address, &login).unwrap()).collect();
    let refused = Wire::connect(proxy.address, &login).err().unwrap_or_else(|| panic!("{name}: a place too many"));
    assert!(refused.to_string().contains("max_clients"), "{name}: {refused}");
    let last = more.last_mut().unwrap();
    last.send(&query("SELECT 1"));
    Levels::wait_until(proxy.admin, "one in line", |levels| levels.waiting == 1);
    assert!(last.receive_within(Duration::ZERO).is_err(), "{name}: a connection too many");
    clients.iter_mut().for_each(|client| drop(client.query("COMMIT")));
    if name == "session" {
        clients.clear();
    }
    assert_eq!(kinds(&last.until_ready(1)), "TDCZ", "{name}");
}
