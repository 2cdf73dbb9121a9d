//! Pools with connections in memory and no runtime: what is leased, idle and being opened never exceeds the budget,
//! whoever goes away at whatever moment; and the words of a refusal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::connect::ConnectError;
use super::*;
use crate::config::TargetAddress;
use crate::net::{Stream, Way};
use crate::postgres::Postgres;
use crate::postgres::connect::Connected;
use crate::postgres::server::Server;
use crate::protocol::{HandshakeError, Parameters, ServerError};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::runtime::{Builder, EnterGuard, Runtime};

/// A stream is put on the runtime of whoever takes it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().unwrap());

struct Fixture {
    _runtime: EnterGuard<'static>,
    pools: Arc<Pools<Postgres>>,
    orders: mpsc::UnboundedReceiver<Order<Postgres>>,
    uses: [PoolUse<Postgres>; 2],
    /// The databases' ends: while they are here their connections live.
    databases: Vec<DuplexStream>,
}

impl Fixture {
    fn new(config: PoolConfig, budget: usize) -> Self {
        let dial = Dial::new(Way::new(TargetAddress::Unix("/nowhere".into()), None, Duration::ZERO).unwrap());
        let (pools, orders) = Pools::new("main", dial, config, Arc::default());
        pools.set_budget(budget);
        let uses = ["a", "b"].map(|user| pools.pool(key(user, "app")).unwrap());
        Self { _runtime: RUNTIME.enter(), pools, orders, uses, databases: Vec::new() }
    }

    fn borrow(&self, key: usize) -> Borrow<Postgres> {
        self.pools.borrow(Ask { key: self.uses[key].key(), label: 0, worker: 0, client: None })
    }

    fn connection(&mut self) -> Box<ServerConn<Postgres>> {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        self.databases.push(theirs);
        let machine = Server::new(Connected {
            parameters: Parameters::new(),
            process_id: 1,
            secret: Vec::new(),
            max_prepared_statements: 1,
            statement_key: [0; 16],
        });
        Box::new(ServerConn::new(Stream::memory(ours), machine, Vec::new(), None))
    }

    /// The next login that was ordered. The database lets go of what leaves before it.
    fn login(&mut self) -> Option<(Key, Arc<PoolKey>)> {
        loop {
            match self.orders.try_recv().ok()? {
                Order::Open { key, pool_key, .. } => return Some((key, pool_key)),
                Order::Leave(leaving) => drop(leaving),
            }
        }
    }

    fn open_all(&mut self) {
        while let Some((key, _)) = self.login() {
            let connection = self.connection();
            self.pools.opened(key, connection);
        }
    }
}

fn key(user: &str, database: &str) -> PoolKey {
    PoolKey { user: user.into(), account: user.into(), database: database.into(), fixed: Vec::new() }
}

fn now(borrow: Borrow<Postgres>) -> Lease<Postgres> {
    match borrow {
        Borrow::Now(lease) => lease,
        Borrow::Later(_) => panic!("must wait"),
        Borrow::Refused(error) => panic!("{error}"),
    }
}

fn later(borrow: Borrow<Postgres>) -> Waiting<Postgres> {
    match borrow {
        Borrow::Later(waiting) => waiting,
        Borrow::Now(_) => panic!("need not wait"),
        Borrow::Refused(error) => panic!("{error}"),
    }
}

fn lease(waiting: &mut Waiting<Postgres>) -> Lease<Postgres> {
    waiting.outcome.try_recv().unwrap().unwrap().checked(0).unwrap()
}

#[test]
fn a_lease_is_given_back_or_closed() {
    let mut f = Fixture::new(PoolConfig::default(), 3);
    let mut waiting = later(f.borrow(0));
    assert_eq!(f.pools.figures(), Figures { open: 1, idle: 0, openings: 1, waiting: 1 });
    f.open_all();
    let first = lease(&mut waiting);
    assert_eq!(f.pools.figures(), Figures { open: 1, ..Figures::default() });
    assert!(f.orders.try_recv().is_err(), "one is enough");
    first.release();
    assert_eq!(f.pools.figures(), Figures { open: 1, idle: 1, ..Figures::default() });
    drop(now(f.borrow(0)));
    // Its place is free once the database has let go of it.
    assert_eq!(f.pools.figures(), Figures { open: 1, ..Figures::default() });
    assert!(f.login().is_none());
    assert_eq!(f.pools.figures(), Figures::default());
}

#[test]
fn no_login_comes_before_the_database_has_let_go() {
    let mut f = Fixture::new(PoolConfig::default(), 1);
    let mut first = later(f.borrow(0));
    f.open_all();
    let held = lease(&mut first);
    let mut second = later(f.borrow(1));
    held.discard();
    let Order::Leave(leaving) = f.orders.try_recv().unwrap() else { panic!("too early") };
    assert!(f.orders.try_recv().is_err());
    assert_eq!(f.pools.figures(), Figures { open: 1, idle: 0, openings: 0, waiting: 1 });
    drop(leaving);
    f.open_all();
    lease(&mut second).release();
}

#[test]
fn one_that_died_while_idle_is_not_given_out() {
    let mut f = Fixture::new(PoolConfig::default(), 1);
    let mut waiting = later(f.borrow(0));
    f.open_all();
    lease(&mut waiting).release();
    f.databases.clear();
    let mut waiting = later(f.borrow(0));
    assert_eq!(f.pools.figures(), Figures { open: 1, idle: 0, openings: 0, waiting: 1 });
    f.open_all();
    lease(&mut waiting).release();
}

#[test]
fn a_waiter_that_leaves_makes_the_line_shorter() {
    let mut f = Fixture::new(PoolConfig { max_waiting: 1, ..PoolConfig::default() }, 1);
    let mut first = later(f.borrow(0));
    f.open_all();
    let held = lease(&mut first);
    let second = later(f.borrow(0));
    match f.borrow(0) {
        Borrow::Refused(ClientError::LineFull { group, limit: 1 }) if group == "main" => {}
        Borrow::Now(_) | Borrow::Later(_) | Borrow::Refused(_) => panic!("the line is full"),
    }
    drop(second);
    assert_eq!(f.pools.figures().waiting, 0);
    let mut third = later(f.borrow(0));
    held.release();
    lease(&mut third).release();
}

#[test]
fn one_handed_to_a_waiter_that_left_is_not_lost() {
    let mut f = Fixture::new(PoolConfig::default(), 1);
    let mut first = later(f.borrow(0));
    f.open_all();
    let held = lease(&mut first);
    let second = later(f.borrow(0));
    held.release();
    // It is the second's, who has not looked yet. A login more is not needed.
    drop(second);
    assert_eq!(f.pools.figures(), Figures { open: 1, idle: 1, ..Figures::default() });
    // Or the next one's.
    let held = now(f.borrow(0));
    let second = later(f.borrow(0));
    let mut third = later(f.borrow(0));
    held.release();
    drop(second);
    lease(&mut third).release();
}

#[test]
fn the_words_of_a_users_own_limit() {
    let config = PoolConfig { connection_borrow_timeout: Duration::ZERO, ..PoolConfig::default() };
    let mut f = Fixture::new(config, 5);
    f.pools.set_user_limits([("a".to_owned(), 1)].into());
    let mut first = later(f.borrow(0));
    f.open_all();
    let held = lease(&mut first);
    let mut waiting = later(f.borrow(0));
    f.pools.tick();
    let error = waiting.outcome.try_recv().unwrap().err().unwrap();
    let words = "Timed-out waiting to acquire database connection: user \"a\" may have 1 at target group \"main\" \
                 (max_connections of this user), and none of them became free within 0ns (connection_borrow_timeout)";
    assert_eq!(error.to_string(), words);
    // A limit that is raised is for those who wait, too.
    let mut waiting = later(f.borrow(0));
    f.pools.set_user_limits([("a".to_owned(), 2)].into());
    f.open_all();
    lease(&mut waiting).release();
    drop(held);
}

#[test]
fn the_words_of_an_init_query() {
    let error = |is_fatal| ServerError { code: "42601".into(), message: "secret".into(), is_fatal, frame: Vec::new() };
    for (failure, answer) in [
        (ConnectError::InitQuery(error(false)), Some("42601")),
        (ConnectError::InitTimeout(Duration::from_secs(5)), Some("nothing within 5s")),
        // It went down meanwhile.
        (ConnectError::InitQuery(error(true)), None),
    ] {
        let mut f = Fixture::new(PoolConfig::default(), 1);
        let mut waiting = later(f.borrow(0));
        let (key, pool_key) = f.login().unwrap();
        f.pools.open_failed(key, &pool_key, &failure);
        let told = waiting.outcome.try_recv().ok().and_then(|outcome| outcome.err());
        assert_eq!(told, answer.map(|code| ClientError::InitQuery { group: "main".into(), code: code.into() }));
    }
}

#[test]
fn what_a_user_has_beyond_its_share_goes_to_who_waits_at_once() {
    let mut f = Fixture::new(PoolConfig::default(), 5);
    let mut leases = Vec::new();
    for key in [0, 0, 0, 1, 1] {
        let mut waiting = later(f.borrow(key));
        f.open_all();
        leases.push(lease(&mut waiting));
    }
    let mut waiting = later(f.borrow(1));
    leases.remove(0).release();
    f.open_all();
    lease(&mut waiting).release();
    assert_eq!(f.pools.figures(), Figures { open: 5, idle: 1, ..Figures::default() });
}

#[test]
fn the_words_of_a_timeout() {
    let config = PoolConfig { connection_borrow_timeout: Duration::ZERO, ..PoolConfig::default() };
    let mut f = Fixture::new(config.clone(), 1);
    let mut first = later(f.borrow(0));
    f.open_all();
    let _held = lease(&mut first);
    let mut waiting = later(f.borrow(0));
    f.pools.tick();
    let error = waiting.outcome.try_recv().unwrap().err().unwrap();
    assert!(error.to_string().starts_with("Timed-out waiting to acquire database connection"), "{error}");
    // The target has not told how many it takes.
    let f = Fixture::new(config.clone(), 0);
    let mut waiting = later(f.borrow(0));
    f.pools.tick();
    let error = waiting.outcome.try_recv().unwrap().err().unwrap();
    assert!(matches!(error, ClientError::NoWriter { .. }), "{error}");
    // Nobody there to open one.
    let mut f = Fixture::new(config, 1);
    let mut waiting = later(f.borrow(0));
    let (key, pool_key) = f.login().unwrap();
    f.pools.open_failed(key, &pool_key, &ConnectError::Timeout(Duration::ZERO));
    f.pools.tick();
    let error = waiting.outcome.try_recv().unwrap().err().unwrap();
    assert!(matches!(error, ClientError::NoWriter { .. }), "{error}");
    assert_eq!(f.pools.figures(), Figures::default());
}

/// It may take one more in a moment: nobody is refused, and the login is tried again after a pause.
#[test]
fn a_database_that_is_full_is_waited_for() {
    let full = || {
        let (code, message) = ("53300".into(), "sorry, too many clients already".into());
        ConnectError::Login(HandshakeError::Server(ServerError { code, message, is_fatal: true, frame: Vec::new() }))
    };
    let mut f = Fixture::new(PoolConfig::default(), 1);
    let mut waiting = later(f.borrow(0));
    for _ in 0..2 {
        let (key, pool_key) = f.login().unwrap();
        f.pools.open_failed(key, &pool_key, &full());
        assert!(waiting.outcome.try_recv().is_err() && f.orders.try_recv().is_err());
        let began = Instant::now();
        while f.orders.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(5));
            // The back-off is real time.
            std::thread::sleep(Duration::from_millis(5));
            f.pools.tick();
        }
    }
    f.open_all();
    lease(&mut waiting).release();
    // In the end they are told what they have waited for: it could be reached.
    let config = PoolConfig { connection_borrow_timeout: Duration::ZERO, ..PoolConfig::default() };
    let mut f = Fixture::new(config, 1);
    let mut waiting = later(f.borrow(0));
    let (key, pool_key) = f.login().unwrap();
    f.pools.open_failed(key, &pool_key, &full());
    f.pools.tick();
    let error = waiting.outcome.try_recv().unwrap().err().unwrap();
    assert!(matches!(error, ClientError::BorrowTimeout { .. }), "{error}");
}

#[derive(Debug, Clone)]
enum Event {
    Borrow(usize),
    Look(usize),
    Leave(usize),
    Release(usize),
    Lose(usize),
    Open { fails: bool },
    Die(usize),
    Budget(usize),
    UserLimit(usize),
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..2usize).prop_map(Event::Borrow),
        4 => any::<usize>().prop_map(Event::Look),
        2 => any::<usize>().prop_map(Event::Leave),
        3 => any::<usize>().prop_map(Event::Release),
        2 => any::<usize>().prop_map(Event::Lose),
        4 => proptest::bool::weighted(0.2).prop_map(|fails| Event::Open { fails }),
        1 => any::<usize>().prop_map(Event::Die),
        1 => (1..4usize).prop_map(Event::Budget),
        1 => (1..3usize).prop_map(Event::UserLimit),
        1 => Just(Event::Tick),
    ]
}

proptest! {
    /// Whoever goes away at whatever moment: the places taken are those of connections that exist or are being opened.
    #[test]
    fn the_budget_holds(events in proptest::collection::vec(event(), 0..80)) {
        let config = PoolConfig { max_waiting: 4, min_connections: 1, ..PoolConfig::default() };
        let mut f = Fixture::new(config, 2);
        f.pools.set_user_limits([("a".to_owned(), 1)].into());
        let (mut waiting, mut leases, mut budget, mut limit) = (Vec::new(), Vec::new(), 2, 1);
        for event in events {
            match event {
                Event::Borrow(key) => match f.borrow(key) {
                    Borrow::Now(lease) => leases.push(lease),
                    Borrow::Later(one) => waiting.push(one),
                    Borrow::Refused(_) => prop_assert!(f.pools.figures().waiting >= 4),
                },
                Event::Look(which) if !waiting.is_empty() => {
                    let which = which % waiting.len();
                    let one: &mut Waiting<Postgres> = &mut waiting[which];
                    if let Ok(outcome) = one.outcome.try_recv() {
                        leases.extend(outcome.ok().and_then(|lease| lease.checked(0)));
                        waiting.remove(which);
                    }
                }
                Event::Leave(which) if !waiting.is_empty() => drop(waiting.remove(which % waiting.len())),
                Event::Release(which) if !leases.is_empty() => leases.remove(which % leases.len()).release(),
                Event::Lose(which) if !leases.is_empty() => drop(leases.remove(which % leases.len())),
                Event::Open { fails } => if let Some((key, pool_key)) = f.login() {
                    if fails {
                        f.pools.open_failed(key, &pool_key, &ConnectError::Timeout(Duration::ZERO));
                    } else {
                        let connection = f.connection();
                        f.pools.opened(key, connection);
                    }
                },
                Event::Die(which) if !f.databases.is_empty() => {
                    let which = which % f.databases.len();
                    f.databases.remove(which);
                }
                Event::Budget(connections) => {
                    f.pools.set_budget(connections);
                    budget = budget.max(connections);
                }
                Event::UserLimit(connections) => {
                    f.pools.set_user_limits([("a".to_owned(), connections)].into());
                    limit = limit.max(connections);
                }
                Event::Tick => f.pools.tick(),
                Event::Look(_) | Event::Leave(_) | Event::Release(_) | Event::Lose(_) | Event::Die(_) => {}
            }
            let figures = f.pools.figures();
            prop_assert!(figures.open <= budget);
            prop_assert!(leases.len() + figures.idle + figures.openings <= figures.open);
            let users = ["a", "b"].map(|user| f.pools.lock().line.open_of(user));
            prop_assert!(users[0] <= limit && users[0] + users[1] == figures.open);
        }
        // Everybody leaves.
        waiting.clear();
        leases.clear();
        f.open_all();
        let figures = f.pools.figures();
        prop_assert_eq!((figures.waiting, figures.openings, figures.open), (0, 0, figures.idle));
    }
}

#[test]
fn pools_that_nobody_uses_are_forgotten() {
    let mut f = Fixture::new(PoolConfig::default(), 2);
    let key = |database: usize| key("c", &database.to_string());
    let uses: Vec<_> = (0..POOLS_MAX).map(|database| f.pools.pool(key(database)).unwrap()).collect();
    let error = f.pools.pool(key(POOLS_MAX)).err().unwrap();
    assert!(matches!(error, ClientError::TooManyPools { .. }), "{error}");
    // Others are not concerned, nor is who asks for one that is there.
    assert_eq!(f.pools.pool(key(3)).unwrap().key(), uses[3].key());
    assert!(matches!(f.borrow(0), Borrow::Later(_)));
    f.open_all();
    drop(uses);
    f.pools.tick();
    assert_eq!(f.pools.lock().keys.len(), 2);
    let new = f.pools.pool(key(POOLS_MAX)).unwrap();
    assert!(new.key().index() < POOLS_MAX + 2);
}

mod logins {
    use super::super::connect::{Logins, Target, blames, run};
    use super::*;
    use crate::protocol::{HandshakeError, LoginSecret, ServerError};
    use std::pin::Pin;

    fn server_says(code: &str) -> ConnectError {
        ConnectError::Login(HandshakeError::Server(ServerError {
            code: code.into(),
            message: "no".into(),
            is_fatal: true,
            frame: Vec::new(),
        }))
    }

    #[test]
    fn a_secret_is_blamed_for_nothing_but_itself() {
        let secret = LoginSecret::Md5([b'0'; 32]);
        assert!(blames(&server_says("28P01"), Some(&secret)));
        // pg_hba.conf, a role that may not log in, too many connections of the role, no such database.
        for code in ["28000", "53300", "3D000", "57P03", "42501"] {
            assert!(!blames(&server_says(code), Some(&secret)), "{code}");
        }
        let lacking = || ConnectError::Login(HandshakeError::NoPassword("by MD5, and none is known here"));
        assert!(blames(&lacking(), None) && !blames(&lacking(), Some(&secret)));
    }

    /// The user's account has become another one since the client came in.
    struct Elsewhere;

    impl Logins for Elsewhere {
        fn login(&self, _: &str) -> Option<(String, Option<LoginSecret>)> {
            Some(("app_ro".into(), None))
        }

        fn refused<'a>(&'a self, _: &'a str, _: Option<LoginSecret>) -> Pin<Box<dyn Future<Output = bool> + 'a>> {
            Box::pin(async { false })
        }
    }

    #[test]
    fn nobody_gets_a_connection_of_another_account() {
        let Fixture { pools, orders, uses, .. } = Fixture::new(PoolConfig::default(), 1);
        let mut waiting = later(pools.borrow(Ask { key: uses[0].key(), label: 0, worker: 0, client: None }));
        let target = Target {
            lifetime: None,
            init_query: None,
            hung: std::cell::Cell::new(0),
            max_prepared_statements: 1,
            statement_key: [0; 16],
            learned: Arc::default(),
            logins: Box::new(Elsewhere),
        };
        let local = tokio::task::LocalSet::new();
        let outcome = local.block_on(&RUNTIME, async {
            tokio::task::spawn_local(run(pools, orders, target));
            (&mut waiting.outcome).await.unwrap()
        });
        let words = outcome.err().unwrap().to_string();
        assert!(words.contains("another account since a reload"), "{words}");
    }
}
