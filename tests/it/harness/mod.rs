//! The harness: real servers, a proxy, and the oracle, which is a direct connection.
//!
//! A [`Scenario`] runs its [`wire::Script`] directly and through the proxy, on a server of each kind of version there is
//! (before 18 and from 18 on), its bytes cut in several ways, and compares all that came back ([`mask`] says what is
//! masked). Then it looks whether anything was left behind.
//!
//! All tests are one binary run by `cargo test` (not nextest, which makes a process of every test): servers are started
//! once per process, on first use, and end with it. Every scenario has a database and a proxy of its own, so tests run
//! side by side.
//!
//! Environment:
//! * `SLUICEGATE_DIRECT_ONLY=1`: compare direct with direct; checks the scripts themselves, needs no proxy
//! * `SLUICEGATE_RESULT_GB=n`: another size than 10 for the large result
//! * `SLUICEGATE_SEED=n`: cut at the places of a failed run; every failure prints its seed

pub mod forward;
pub mod gate;
pub mod levels;
pub mod mask;
pub mod measure;
pub mod mysql;
pub mod programs;
pub mod proxy;
pub mod vanish;
pub mod wire;

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sluicegate::demo::servers::{APP, Feature, Installation, Options, PostgresServer};

use proxy::ProxyHandle;
use wire::{Cut, Login, PATIENCE, Script, Seen, Target, Transcript, Wire};

/// Database connections a scenario's clients share; two are enough to show state that leaks and few enough to meet it.
const CLIENT_CONNECTIONS: u32 = 2;
/// In session mode each client has one.
const SESSION_CONNECTIONS: u32 = 12;
/// What the proxy's own questions may take beside them; it counts against the same limit.
const CONTROL_CONNECTIONS: u32 = 2;
/// Random cuts per script and version.
const RANDOM_CUTS: u64 = 3;

/// The shared servers, one per kind of version; started on first use.
pub fn servers() -> impl Iterator<Item = &'static PostgresServer> {
    [Feature::Protocol3_0Only, Feature::Protocol3_2].into_iter().map(server)
}

/// The shared server that has `feature`.
pub fn server(feature: Feature) -> &'static PostgresServer {
    // A static is never dropped: the servers end when this process does, by their watchers.
    static OLD: OnceLock<PostgresServer> = OnceLock::new();
    static NEW: OnceLock<PostgresServer> = OnceLock::new();
    let cell = if feature == Feature::Protocol3_2 { &NEW } else { &OLD };
    cell.get_or_init(|| {
        let installation = Installation::find(feature).unwrap_or_else(|error| panic!("{error}"));
        let settings = vec![("max_prepared_transactions".to_owned(), "20".to_owned())];
        let options = Options { max_connections: 400, settings, ..Options::default() };
        PostgresServer::start(&installation, options).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// True when there is to be no proxy.
pub fn direct_only() -> bool {
    std::env::var_os("SLUICEGATE_DIRECT_ONLY").is_some_and(|value| value != "0" && !value.is_empty())
}

/// Calls `check` with each server, a database of that name on it, and a proxy before it that takes at most `connections`
/// connections, its own two included.
pub fn each(name: &str, connections: u32, setup: &[&str], check: impl Fn(&'static PostgresServer, &str, &ProxyHandle)) {
    each_with(name, setup, |server| proxy::config(server.address(), connections), check);
}

/// The same with a configuration of the test's own.
pub fn each_with(
    name: &str,
    setup: &[&str],
    config: impl Fn(&PostgresServer) -> String,
    check: impl Fn(&'static PostgresServer, &str, &ProxyHandle),
) {
    for server in servers() {
        let version = server.installation().version();
        let name = database(server, &format!("{name}_{version}"), setup);
        let proxy = proxy::start(&config(server));
        let _shows = ShowsLog { proxy: &proxy, version };
        check(server, &name, &proxy);
    }
}

/// Shows the end of the proxy's log when the test fails.
struct ShowsLog<'a> {
    proxy: &'a ProxyHandle,
    version: u32,
}

impl Drop for ShowsLog<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.proxy.log();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            println!("--- PostgreSQL {}; the end of the proxy's log:", self.version);
            last.iter().rev().for_each(|line| println!("{line}"));
        }
    }
}

/// A script to be run directly and through the proxy, and what it needs around it.
pub struct Scenario {
    name: &'static str,
    setup: Vec<String>,
    reset: Option<String>,
    state: Option<String>,
    state_is: Option<String>,
    shape: Option<String>,
    errors: Option<Vec<String>>,
    every_offset: bool,
    only_smart_resets: bool,
    pool: Option<(&'static str, &'static str)>,
}

impl Scenario {
    /// `name` is that of the test: it names the database too.
    pub fn new(name: &'static str) -> Self {
        let [reset, state, state_is, shape] = [None, None, None, None];
        Self {
            name,
            setup: Vec::new(),
            reset,
            state,
            state_is,
            shape,
            errors: None,
            every_offset: false,
            only_smart_resets: false,
            pool: None,
        }
    }

    /// SQL that the owner of the new database runs once, before anything.
    pub fn setup(mut self, sql: &str) -> Self {
        self.setup.push(sql.into());
        self
    }

    /// SQL that the owner runs before every run, to give each the same start.
    pub fn reset(mut self, sql: &str) -> Self {
        self.reset = Some(sql.into());
        self
    }

    /// A query whose rows after the run must be the same too: what really happened in the database.
    pub fn state(mut self, sql: &str) -> Self {
        self.state = Some(sql.into());
        self
    }

    /// What those rows must be, as text, after the direct run.
    pub fn state_is(mut self, rows: &str) -> Self {
        self.state_is = Some(rows.into());
        self
    }

    /// What client 0 must receive *directly*, as type bytes (spaces are for the eye, `.` is the connection's end): this
    /// shows that the script exercises what its name says.
    pub fn shape(mut self, kinds: &str) -> Self {
        self.shape = Some(kinds.replace(' ', ""));
        self
    }

    /// The SQLSTATEs of all errors that a direct run must meet.
    pub fn errors(mut self, codes: &[&str]) -> Self {
        self.errors = Some(codes.iter().map(|code| (*code).to_owned()).collect());
        self
    }

    /// Cut at every offset of the longest send, too.
    pub fn every_offset(mut self) -> Self {
        self.every_offset = true;
        self
    }

    /// It is about what stays on connections: not with `reset = "full"`.
    pub fn only_smart_resets(mut self) -> Self {
        self.only_smart_resets = true;
        self
    }

    /// With a key of the pool's set to this value.
    pub fn pool(mut self, key: &'static str, value: &'static str) -> Self {
        self.pool = Some((key, value));
        self
    }

    /// Runs it all.
    pub fn check(self, script: Script) {
        for server in servers() {
            let version = server.installation().version();
            let database = database(server, self.name, &self.setup);
            let mut superuser = Wire::connect(server.address(), &Login::superuser().database(&database)).unwrap();
            let mut run = |address, cut| {
                if let Some(sql) = &self.reset {
                    superuser.query(&as_owner(sql));
                }
                let mut target = Target { address, database: &database, superuser: &mut superuser };
                let mut transcript = wire::run(&script, cut, &mut target);
                if let Some(sql) = &self.state {
                    settle(&mut superuser);
                    transcript.seen.push((0, Seen::State(format!("{:?}", superuser.query(sql)))));
                }
                transcript
            };
            let direct = run(server.address(), Cut::Whole);
            self.expect(version, &direct);

            let mut check = |way: Way, cuts: Vec<Cut>| {
                let proxy = start_proxy(server, way, self.pool);
                let address = proxy.as_ref().map_or(server.address(), |proxy| proxy.address);
                for cut in cuts {
                    let context = Context { name: self.name, version, cut, way, proxy: proxy.as_ref() };
                    let proxied = run(address, cut);
                    if let Err(difference) = mask::compare(&direct, &proxied) {
                        panic!(
                            "{difference}--- all of the direct conversation\n{direct}--- all of the proxied\n{proxied}"
                        );
                    }
                    drop(context);
                }
                let context = Context { name: self.name, version, cut: Cut::Whole, way, proxy: proxy.as_ref() };
                look_behind(server, &database, address);
                drop(context);
            };
            check(Way::Multiplexed, self.cuts(&script));
            // The other ways to lend a connection, once each: they are simpler.
            if std::ptr::eq(server, self::server(Feature::Protocol3_2)) {
                check(Way::Session, vec![Cut::Whole]);
                if !self.only_smart_resets {
                    check(Way::ResetFull, vec![Cut::Whole]);
                }
            }
        }
    }

    fn cuts(&self, script: &Script) -> Vec<Cut> {
        let seed = std::env::var("SLUICEGATE_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos())
        });
        let mut cuts = vec![Cut::Whole, Cut::Bytes];
        cuts.extend((0..RANDOM_CUTS).map(|n| Cut::Random(seed.wrapping_add(n))));
        if self.every_offset {
            cuts.extend((1..script.longest_send()).map(Cut::At));
        }
        cuts
    }

    /// Is the script what it claims to be?
    fn expect(&self, version: u32, direct: &Transcript) {
        if let Some(shape) = &self.shape {
            assert_eq!(direct.shape(), *shape, "direct, version {version}:\n{direct}");
        }
        if let Some(errors) = &self.errors {
            assert_eq!(direct.errors(), *errors, "direct, version {version}:\n{direct}");
        }
        if let Some(state) = &self.state_is {
            let expected = Some((0, Seen::State(state.clone())));
            assert_eq!(direct.seen.last(), expected.as_ref(), "direct, version {version}:\n{direct}");
        }
    }
}

/// A new database of that name on that server, owned by the application's role, who runs `setup` in it.
pub fn database<S: AsRef<str>>(server: &PostgresServer, name: &str, setup: &[S]) -> String {
    let name = format!("{name:.63}");
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database("postgres")).unwrap();
    superuser.query(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
    superuser.query(&format!("CREATE DATABASE {name} OWNER {APP}"));
    let mut owner = Wire::connect(server.address(), &Login::app().database(&name)).unwrap();
    for sql in setup {
        owner.query(sql.as_ref());
    }
    name
}

/// Waits until the database runs so many queries of clients that match.
pub fn until_running(server: &PostgresServer, database: &str, like: &str, number: usize) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND usename = '{APP}' AND state = 'active' \
         AND query LIKE '{like}' AND (query NOT LIKE '%pg_sleep%' OR wait_event = 'PgSleep')"
    );
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
    superuser.until(&sql, &number.to_string());
}

/// After the scenario both database connections must be clean and usable. Fresh clients in open transactions hold
/// them both at once, so that none is overlooked.
fn look_behind(server: &PostgresServer, database: &str, address: SocketAddr) {
    let login = Login::app().database(database);
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
    settle(&mut superuser);
    let mut fresh = Wire::connect(server.address(), &login).unwrap();
    let settings = "SELECT name, setting FROM pg_settings ORDER BY name";
    let expected = fresh.query(settings);
    drop(fresh);
    let mut clients: Vec<Wire> = (0..CLIENT_CONNECTIONS).map(|_| Wire::connect(address, &login).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(client.query("BEGIN; SELECT 1"), [[Some("1".to_owned())]]);
    }
    for client in &mut clients {
        // By value: where a value comes from (a SET by the proxy, say) is not seen by what a client does.
        let mut differing = client.query(settings);
        differing.retain(|setting| !expected.contains(setting));
        // Names that appear when a server process loads the language's library, as it does for the first DO.
        differing.retain(|setting| !setting[0].as_deref().unwrap_or_default().starts_with("plpgsql."));
        assert!(differing.is_empty(), "settings left behind: {differing:?}");
        for (what, sql) in LEFT_BEHIND {
            let left = client.query(sql);
            assert!(left.is_empty(), "{what} left behind: {left:?}");
        }
        client.query("COMMIT");
    }
    drop(clients);
    settle(&mut superuser);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let locks = superuser.query(
            "SELECT l.locktype, l.mode FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
             WHERE a.usename = 'app' AND a.datname = current_database()",
        );
        if locks.is_empty() {
            return;
        }
        // A reset that runs just now has some, too.
        assert!(Instant::now() < deadline, "locks left behind: {locks:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Queries whose every row is something another client should not find.
const LEFT_BEHIND: [(&str, &str); 4] = [
    // Names of the scripts' own; the proxy may keep statements under names of its own.
    ("prepared statements", "SELECT name, statement FROM pg_prepared_statements WHERE name ~ '^(s|t|u)[0-9]*$'"),
    ("cursors", "SELECT name FROM pg_cursors WHERE is_holdable"),
    ("channels", "SELECT * FROM pg_listening_channels()"),
    ("temporary tables", "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()"),
];

/// Says which run a panic belongs to, and shows the proxy's log.
struct Context<'a> {
    name: &'a str,
    version: u32,
    cut: Cut,
    way: Way,
    proxy: Option<&'a ProxyHandle>,
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { name, version, cut, way, proxy } = self;
            println!("--- {name} failed on PostgreSQL {version}, {way:?}, cut {cut:?}");
            if let Cut::Random(seed) = cut {
                println!("--- to repeat: SLUICEGATE_SEED={seed}");
            }
            if let Some(proxy) = proxy {
                println!("--- the proxy's log:\n{}", proxy.log());
            }
        }
    }
}

/// How the proxy lends connections.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Transaction by transaction, and few of them.
    Multiplexed,
    /// For as long as the client stays.
    Session,
    /// Transaction by transaction, cleaned between any two clients.
    ResetFull,
}

fn start_proxy(server: &PostgresServer, way: Way, pool: Option<(&str, &str)>) -> Option<ProxyHandle> {
    static SAID: AtomicBool = AtomicBool::new(false);
    if direct_only() {
        if !SAID.swap(true, Ordering::Relaxed) {
            println!("SLUICEGATE_DIRECT_ONLY: direct compared with direct, no proxy is tested");
        }
        return None;
    }
    let few = proxy::config(server.address(), CLIENT_CONNECTIONS + CONTROL_CONNECTIONS);
    // One for each client of a script, there.
    let many = proxy::config(server.address(), SESSION_CONNECTIONS + CONTROL_CONNECTIONS);
    let text = match way {
        Way::Multiplexed => few,
        Way::Session => proxy::set(&many, "target_group.pool", "pool_mode", "\"session\""),
        Way::ResetFull => proxy::set(&few, "target_group.pool", "reset", "\"full\""),
    };
    let text = pool.iter().fold(text, |text, (key, value)| proxy::set(&text, "target_group.pool", key, value));
    Some(proxy::start(&text))
}

/// Waits until no session of the script's clients does anything: one that was cut off may still be at work.
fn settle(superuser: &mut Wire) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let busy = superuser.query(
            "SELECT pid, state, query FROM pg_stat_activity \
             WHERE usename = 'app' AND datname = current_database() AND state <> 'idle'",
        );
        if busy.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still at work: {busy:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn as_owner(sql: &str) -> String {
    format!("SET ROLE {APP}; {sql}; RESET ROLE")
}
