//! The line as tables and as a property: who is served when, and that the counts agree with the world.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::wildcard_enum_match_arm)]

use super::places::{BACKOFF, SETTLED};
use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { connections: 2, idle: 2, waiting: 100, openings: 8 };

struct Fixture {
    line: Line<u32, u32>,
    now: Instant,
    made: u32,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        Self { line: Line::new(limits), now: Instant::now(), made: 0 }
    }

    fn ask(key: Key, worker: usize) -> Ask {
        Ask { key, label: 0, worker, client: None }
    }

    fn wait(&mut self, ask: Ask, handle: u32) -> u64 {
        self.line.wait(ask, (self.now, self.now + Duration::from_secs(1)), handle).unwrap()
    }

    /// Waiters of the first worker.
    fn wait_all(&mut self, key: Key, handles: std::ops::Range<u32>) {
        for handle in handles {
            self.wait(Self::ask(key, 0), handle);
        }
    }

    /// A login for this pool has ended well; who got its connection.
    fn open(&mut self, key: Key) -> u32 {
        self.made += 1;
        match self.line.arrive(self.made, Self::ask(key, 0), self.now) {
            Verdict::Hand(_, waiter) => waiter,
            other => panic!("{other:?}"),
        }
    }

    /// Opens what the line wants opened; who got what.
    fn open_all(&mut self) -> Vec<u32> {
        let mut served = Vec::new();
        while let Some(opening) = self.line.next_opening(self.now) {
            served.push(self.open(opening.key));
        }
        served
    }

    /// A connection of this pool comes back.
    fn release(&mut self, key: Key) -> Verdict<u32, u32> {
        self.line.release(1, Self::ask(key, 0), self.now)
    }

    /// The same, where somebody of the same pool must get it.
    fn handed(&mut self, key: Key) -> u32 {
        match self.release(key) {
            Verdict::Hand(1, waiter) => waiter,
            other => panic!("{other:?}"),
        }
    }

    /// The same, where it must be given up for this other pool.
    fn traded(&mut self, key: Key, other: Key) {
        match self.release(key) {
            Verdict::Trade(1, to) => assert_eq!(to, other),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn first_come_first_served_within_the_budget() {
    let mut f = Fixture::new(LIMITS);
    let key = f.line.add_pool("app");
    f.wait_all(key, 0..5);
    assert_eq!(f.open_all(), [0, 1]);
    assert_eq!([(); 3].map(|()| f.handed(key)), [2, 3, 4]);
    assert!(matches!(f.release(key), Verdict::Kept));
    assert_eq!(f.line.take(Fixture::ask(key, 0)), Some(1));
}

#[test]
fn a_full_line_refuses_at_once() {
    let mut f = Fixture::new(Limits { waiting: 1, ..LIMITS });
    let key = f.line.add_pool("app");
    f.wait(Fixture::ask(key, 0), 1);
    assert_eq!(f.line.wait(Fixture::ask(key, 0), (f.now, f.now), 2), Err(2));
}

/// Two users, one with 1,000 waiting clients and one with 10, on 10 connections.
#[test]
fn a_crowd_of_one_user_does_not_hold_up_another() {
    let mut f = Fixture::new(Limits { connections: 10, idle: 10, waiting: 2000, openings: 8 });
    let (crowd, few) = (f.line.add_pool("crowd"), f.line.add_pool("few"));
    f.wait_all(crowd, 0..1010);
    let mut served = f.open_all();
    assert_eq!(served.len(), 10);
    f.wait_all(few, 5000..5010);
    let mut leased: VecDeque<Key> = [crowd; 10].into();
    let mut before_few = 0;
    while f.line.figures().waiting > 0 {
        let key = leased.pop_front().unwrap();
        let (of, waiter) = match f.release(key) {
            Verdict::Hand(_, waiter) => (key, waiter),
            Verdict::Trade(_, to) => (to, f.open(to)),
            Verdict::Kept => {
                // The few have all been served.
                f.now += SETTLED;
                let opening = f.line.next_opening(f.now).unwrap();
                (opening.key, f.open(opening.key))
            }
            other @ Verdict::Close(_) => panic!("{other:?}"),
        };
        assert_eq!(waiter >= 5000, of == few);
        leased.push_back(of);
        served.push(waiter);
        if served.iter().filter(|waiter| **waiter >= 5000).count() < 10 {
            before_few += 1;
        }
    }
    assert!(before_few < 30, "{before_few}");
    assert_eq!(served.len(), 1020);
    for few in [false, true] {
        let order: Vec<u32> = served.iter().copied().filter(|waiter| (*waiter >= 5000) == few).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}

/// Turns are the users', however many pools one of them has.
#[test]
fn a_user_with_many_pools_has_one_share() {
    let mut f = Fixture::new(Limits { connections: 8, idle: 8, waiting: 200, openings: 8 });
    let many: Vec<Key> = (0..4).map(|_| f.line.add_pool("many")).collect();
    let one = f.line.add_pool("one");
    for handle in 0..20 {
        many.iter().for_each(|key| f.wait_all(*key, handle..handle + 1));
    }
    assert_eq!(f.open_all().len(), 8);
    f.wait_all(one, 100..120);
    let mut leased: VecDeque<Key> = many.iter().chain(&many).copied().collect();
    for _ in 0..40 {
        let key = leased.pop_front().unwrap();
        match f.release(key) {
            Verdict::Hand(..) => leased.push_back(key),
            Verdict::Trade(_, to) => {
                f.open(to);
                leased.push_back(to);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(leased.iter().filter(|key| **key == one).count(), 4);
}

/// It was opened for somebody who waits; a user whose turn it is meanwhile gets the next one that comes back.
#[test]
fn a_new_connection_is_not_given_up() {
    let mut f = Fixture::new(LIMITS);
    let [a, b, c] = ["a", "b", "c"].map(|user| f.line.add_pool(user));
    f.wait_all(a, 0..5);
    assert_eq!(f.open_all(), [0, 1]);
    f.wait_all(b, 100..102);
    f.wait_all(c, 200..202);
    assert_eq!(f.handed(a), 2);
    f.traded(a, b);
    f.traded(a, c);
    assert!(f.line.open_failed(b, false, f.now, 1.0).is_empty());
    assert_eq!(f.line.next_opening(f.now).unwrap().key, a);
    f.now += BACKOFF.0;
    // It is b's turn, and b has none.
    assert_eq!(f.open(c), 200);
}

#[test]
fn a_pool_whose_logins_fail_hides_nobody() {
    let mut f = Fixture::new(LIMITS);
    let [good, bad, other] = ["app", "app", "app"].map(|user| f.line.add_pool(user));
    f.wait_all(good, 0..2);
    assert_eq!(f.open_all(), [0, 1]);
    f.wait_all(bad, 100..150);
    f.wait_all(other, 200..201);
    f.traded(good, bad);
    assert!(f.line.open_failed(bad, false, f.now, 1.0).is_empty());
    // Nothing can be opened for those who came first: the next one is served.
    assert_eq!(f.open_all(), [200]);
}

#[test]
fn an_idle_connection_of_another_pool_is_given_up() {
    let mut f = Fixture::new(Limits { connections: 1, idle: 1, waiting: 9, openings: 8 });
    let (a, b) = (f.line.add_pool("a"), f.line.add_pool("b"));
    f.wait_all(a, 1..2);
    assert_eq!(f.open_all(), [1]);
    assert!(matches!(f.line.release(7, Fixture::ask(a, 0), f.now), Verdict::Kept));
    f.wait_all(b, 2..3);
    let opening = f.line.next_opening(f.now).unwrap();
    assert_eq!((opening.key, opening.evicted), (b, Some(7)));
    assert_eq!(f.line.figures().open, 1);
}

/// Who is at its share takes what another has beyond its own at once, and the rest once it is idle for a while.
#[test]
fn what_was_used_a_moment_ago_is_left_alone() {
    let mut f = Fixture::new(Limits { connections: 4, idle: 4, waiting: 20, openings: 8 });
    let (a, b) = (f.line.add_pool("a"), f.line.add_pool("b"));
    f.wait_all(a, 0..3);
    assert_eq!(f.open_all(), [0, 1, 2]);
    f.wait_all(b, 100..110);
    assert_eq!(f.open_all(), [100]);
    // Above its share: given up as it comes back.
    f.traded(a, b);
    assert_eq!(f.open(b), 101);
    // Both have their shares.
    assert!(matches!(f.release(a), Verdict::Kept));
    assert!(f.line.next_opening(f.now).is_none());
    f.now += SETTLED;
    let opening = f.line.next_opening(f.now).unwrap();
    assert_eq!((opening.key, opening.evicted), (b, Some(1)));
    f.open(b);
    // Who needs it again is below its share now.
    f.wait_all(a, 3..4);
    assert_eq!(f.handed(b), 103);
    f.traded(b, a);
}

#[test]
fn settings_are_preferred_to_worker_and_worker_to_age() {
    let mut f = Fixture::new(Limits { connections: 9, idle: 9, waiting: 9, openings: 9 });
    let key = f.line.add_pool("app");
    for (connection, label, worker) in [(1, 5, 1), (2, 6, 0), (3, 5, 0), (4, 5, 1)] {
        f.line.grow(key.0);
        let kept = f.line.release(connection, Ask { key, label, worker, client: None }, f.now);
        assert!(matches!(kept, Verdict::Kept));
    }
    let ask = Ask { key, label: 5, worker: 0, client: Some(1) };
    assert_eq!([f.line.take(ask), f.line.take(ask), f.line.take(ask), f.line.take(ask)], [3, 4, 1, 2].map(Some));
}

/// A client gets back the connection that it has left something on, and others leave it that one while there are others.
#[test]
fn who_has_left_something_gets_it_back() {
    let mut f = Fixture::new(Limits { connections: 3, idle: 3, waiting: 1, openings: 1 });
    let key = f.line.add_pool("app");
    for (connection, client) in [(1, None), (2, Some(7)), (3, Some(8))] {
        f.line.grow(key.0);
        let kept = f.line.release(connection, Ask { key, label: 0, worker: 0, client }, f.now);
        assert!(matches!(kept, Verdict::Kept));
    }
    let ask = |client| Ask { key, label: 0, worker: 0, client: Some(client) };
    assert_eq!([f.line.take(ask(7)), f.line.take(ask(9)), f.line.take(ask(9))], [2, 1, 3].map(Some));
}

#[test]
fn the_order_in_a_pool_is_that_of_arrival_on_whatever_worker() {
    let mut f = Fixture::new(LIMITS);
    let key = f.line.add_pool("app");
    for handle in 0..20 {
        f.wait(Fixture::ask(key, handle as usize % 3), handle);
    }
    f.now += LOCAL_FIRST;
    let first = f.open_all();
    let rest = (2..20).map(|_| f.handed(key));
    assert!(first.into_iter().chain(rest).is_sorted());
}

/// A connection need not change workers for somebody who has hardly waited, but it does for one who has.
#[test]
fn who_hardly_waits_lets_the_connections_worker_go_first() {
    let mut f = Fixture::new(LIMITS);
    let key = f.line.add_pool("app");
    f.wait_all(key, 0..2);
    assert_eq!(f.open_all(), [0, 1]);
    for (handle, worker) in [(2, 1), (3, 2), (4, 0), (5, 0)] {
        f.wait(Fixture::ask(key, worker), handle);
    }
    assert_eq!(f.handed(key), 4);
    f.now += LOCAL_FIRST;
    f.wait(Fixture::ask(key, 0), 6);
    assert_eq!([(); 3].map(|()| f.handed(key)), [2, 3, 5]);
    // Nobody of its worker waits.
    f.wait(Fixture::ask(key, 1), 7);
    assert_eq!([f.handed(key), f.handed(key)], [6, 7]);
}

/// In another pool of the same user nobody is served who came more than [`LEAD_MAX`] places later.
#[test]
fn order_of_arrival_over_the_pools_of_a_user() {
    let mut f = Fixture::new(LIMITS);
    let (busy, other) = (f.line.add_pool("app"), f.line.add_pool("app"));
    f.wait_all(busy, 0..4);
    assert_eq!(f.open_all(), [0, 1]);
    f.wait_all(other, 100..103);
    f.wait_all(busy, 4..50);
    assert_eq!([f.handed(busy), f.handed(busy)], [2, 3]);
    // Two more of the other pool's and six of this one came in the eight places behind its first.
    assert_eq!([(); 6].map(|()| f.handed(busy)), [4, 5, 6, 7, 8, 9]);
    f.traded(busy, other);
    assert_eq!(f.open(other), 100);
    // Now the first of the other pool came one place later.
    assert_eq!(f.handed(busy), 10);
    assert_eq!(f.handed(other), 101);
    assert_eq!(f.handed(other), 102);
    // Nobody of it is left, and it came from the budget of those who wait.
    assert!(matches!(f.release(other), Verdict::Kept));
    f.now += SETTLED;
    assert_eq!(f.line.next_opening(f.now).unwrap().evicted, Some(1));
}

#[test]
fn a_user_at_its_limit_waits_for_its_own_connections() {
    let mut f = Fixture::new(Limits { connections: 5, idle: 5, waiting: 100, openings: 8 });
    f.line.set_user_limits([("small".to_owned(), 2)].into());
    let [small, second, big] = ["small", "small", "big"].map(|user| f.line.add_pool(user));
    f.wait_all(small, 0..4);
    assert_eq!(f.open_all(), [0, 1]);
    // The rest of the budget is the others'.
    f.wait_all(big, 100..103);
    assert_eq!(f.open_all(), [100, 101, 102]);
    assert!(matches!(f.release(big), Verdict::Kept));
    assert!(f.line.next_opening(f.now + SETTLED).is_none());
    // In another of its pools it takes what it has itself.
    f.wait_all(second, 200..201);
    assert_eq!([f.handed(small), f.handed(small)], [2, 3]);
    f.traded(small, second);
    assert_eq!(f.open(second), 200);
    assert!(matches!(f.release(small), Verdict::Kept));
    f.wait_all(second, 201..202);
    let opening = f.line.next_opening(f.now + SETTLED).unwrap();
    assert_eq!((opening.key, opening.evicted), (second, Some(1)));
    assert_eq!(f.open(second), 201);
    // What holds a waiter is said.
    f.wait_all(small, 4..5);
    f.wait_all(big, 103..104);
    let late = f.line.expire(f.now + Duration::from_secs(1));
    assert_eq!(late.iter().map(|late| (late.handle, late.user_limit)).collect::<Vec<_>>(), [(4, Some(2)), (103, None)]);
    // A lower limit closes what comes back, a higher one opens more.
    f.line.set_user_limits([("small".to_owned(), 1)].into());
    assert!(matches!(f.release(second), Verdict::Close(1)));
    f.wait_all(small, 5..6);
    assert!(f.line.next_opening(f.now).is_none());
    f.line.set_user_limits(BTreeMap::new());
    assert_eq!(f.open_all(), [5]);
}

#[test]
fn connections_are_opened_ahead_of_need_where_there_is_room() {
    let mut f = Fixture::new(Limits { connections: 4, idle: 1, waiting: 100, openings: 3 });
    let [a, b] = ["a", "b"].map(|user| f.line.add_pool(user));
    f.line.set_floor(a, 2);
    f.line.set_floor(b, 3);
    let ahead = |f: &mut Fixture| f.line.next_ahead(f.now);
    assert_eq!([ahead(&mut f), ahead(&mut f), ahead(&mut f)], [Some(a), Some(b), None]);
    // One of the logins at a time is left to those who wait.
    f.wait_all(b, 0..1);
    assert!(f.line.next_opening(f.now).is_none(), "one is on its way already");
    assert_eq!(f.open(b), 0);
    f.line.open_failed(a, false, f.now, 1.0);
    assert_eq!(ahead(&mut f), Some(b), "the other has to wait behind its failure");
    f.now += BACKOFF.0;
    assert_eq!(ahead(&mut f), Some(a));
    for key in [a, b] {
        assert!(matches!(f.line.arrive(9, Fixture::ask(key, 0), f.now), Verdict::Kept));
    }
    assert_eq!([ahead(&mut f), ahead(&mut f)], [Some(a), None], "the budget is full");
    assert!(matches!(f.line.arrive(9, Fixture::ask(a, 0), f.now), Verdict::Kept));
    // Neither unused for long nor more than may be idle: kept all the same.
    f.now += Duration::from_secs(3600);
    let sweep = |f: &mut Fixture| f.line.sweep(f.now, Some(Duration::from_secs(1)), |_| false).len();
    assert_eq!((sweep(&mut f), f.line.figures().idle), (0, 3));
    // Who waits takes the place of one.
    f.wait_all(b, 1..3);
    assert_eq!(f.line.take(Fixture::ask(b, 0)), Some(9));
    assert_eq!(f.line.next_opening(f.now).unwrap().evicted, Some(9));
    assert_eq!((f.open(b), ahead(&mut f)), (1, None));
    // Once nobody is there they go.
    f.line.set_floor(a, 0);
    assert_eq!((sweep(&mut f), f.line.figures().idle), (1, 0));
}

/// A pool whose only connection is held for long, and a busy one of the same user.
#[test]
fn a_waiter_of_a_pool_with_a_connection_is_not_forgotten() {
    let mut f = Fixture::new(LIMITS);
    let (busy, held) = (f.line.add_pool("app"), f.line.add_pool("app"));
    f.wait_all(busy, 0..1);
    f.wait_all(held, 100..101);
    assert_eq!(f.open_all(), [0, 100]);
    f.wait_all(held, 101..102);
    for _ in 0..10 {
        assert!(matches!(f.release(busy), Verdict::Kept));
        assert!(f.line.next_opening(f.now).is_none());
        assert_eq!(f.line.take(Fixture::ask(busy, 0)), Some(1));
        f.now += SETTLED / 10;
    }
    f.traded(busy, held);
    assert_eq!(f.open(held), 101);
}

#[test]
fn an_unused_pools_number_is_used_again() {
    let mut f = Fixture::new(LIMITS);
    let (one, other) = (f.line.add_pool("app"), f.line.add_pool("app"));
    let ticket = f.wait(Fixture::ask(one, 0), 0);
    assert!(!f.line.remove_pool(one) && f.line.remove_pool(other));
    f.line.cancel(one, ticket);
    assert_eq!(f.line.pools_of("app"), 1);
    assert!(f.line.remove_pool(one));
    assert_eq!(f.line.pools_of("app"), 0);
    assert_eq!(f.line.add_pool("reporter"), one);
    assert_eq!((f.line.pools_of("app"), f.line.pools_of("reporter"), f.line.users.len()), (0, 1, 1));
}

#[test]
fn a_user_that_comes_back_is_not_taken_for_what_it_was() {
    let mut f = Fixture::new(LIMITS);
    let gone = ["app", "reporter"].map(|user| f.line.add_pool(user));
    for key in gone {
        assert!(f.line.remove_pool(key));
    }
    // At the other's number.
    f.line.add_pool("app");
    assert_eq!((f.line.pools_of("app"), f.line.pools_of("reporter")), (1, 0));
}

#[test]
fn a_refused_login_leaves_waiters_to_the_connections_there_are() {
    let mut f = Fixture::new(LIMITS);
    let key = f.line.add_pool("app");
    f.wait_all(key, 0..1);
    assert_eq!(f.open_all(), [0]);
    f.wait_all(key, 1..2);
    assert!(f.line.next_opening(f.now).is_some());
    assert!(f.line.open_failed(key, true, f.now, 1.0).is_empty());
    assert_eq!(f.handed(key), 1);
}

#[test]
fn a_refused_login_frees_its_waiters_and_backs_off() {
    let mut f = Fixture::new(LIMITS);
    let key = f.line.add_pool("app");
    f.wait_all(key, 1..3);
    assert!(f.line.next_opening(f.now).is_some());
    assert_eq!(f.line.open_failed(key, true, f.now, 1.0), [1, 2]);
    f.wait_all(key, 3..4);
    assert!(f.line.next_opening(f.now).is_none());
    assert!(f.line.next_opening(f.now + BACKOFF.0).is_some());
    assert!(f.line.open_failed(key, false, f.now, 1.0).is_empty());
    assert!(f.line.next_opening(f.now + BACKOFF.0).is_none());
    let late = f.line.expire(f.now + Duration::from_secs(1));
    assert_eq!(late.iter().map(|late| (late.handle, late.user_limit)).collect::<Vec<_>>(), [(3, None)]);
    assert_eq!(f.line.figures(), Figures::default());
}

#[derive(Debug, Clone)]
enum Event {
    Arrive { key: usize, worker: usize },
    Open { fails: bool, refused: bool },
    Release { which: usize },
    Lose { which: usize },
    Cancel { which: usize },
    Limit { connections: usize },
    UserLimit { user: usize, connections: Option<usize> },
    Floor { key: usize, connections: usize },
    Sweep,
    Later { ms: u64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..3usize, 0..2usize).prop_map(|(key, worker)| Event::Arrive { key, worker }),
        3 => (proptest::bool::weighted(0.2), any::<bool>()).prop_map(|(fails, refused)| Event::Open { fails, refused }),
        4 => any::<usize>().prop_map(|which| Event::Release { which }),
        1 => any::<usize>().prop_map(|which| Event::Lose { which }),
        1 => any::<usize>().prop_map(|which| Event::Cancel { which }),
        1 => (1..5usize).prop_map(|connections| Event::Limit { connections }),
        1 => (0..2usize, proptest::option::of(1..4usize))
            .prop_map(|(user, connections)| Event::UserLimit { user, connections }),
        1 => (0..3usize, 0..3usize).prop_map(|(key, connections)| Event::Floor { key, connections }),
        1 => Just(Event::Sweep),
        1 => (0..2000u64).prop_map(|ms| Event::Later { ms }),
    ];
    proptest::collection::vec(event, 0..200)
}

const USERS: [&str; 2] = ["a", "b"];

/// What really is there, beside a line.
struct World {
    f: Fixture,
    keys: [Key; 3],
    /// Of the users.
    limits: [Option<usize>; 2],
    leased: Vec<(Key, u32)>,
    openings: Vec<Key>,
    in_line: Vec<(Key, u64, u32)>,
    next: u32,
}

impl World {
    fn new() -> Self {
        let mut f = Fixture::new(LIMITS);
        let keys = ["a", "b", "b"].map(|user| f.line.add_pool(user));
        assert_eq!(USERS, ["a", "b"]);
        let (leased, openings, in_line) = (Vec::new(), Vec::new(), Vec::new());
        Self { f, keys, limits: [None; 2], leased, openings, in_line, next: 0 }
    }

    /// This waiter leaves the line; the pool it stood in line for.
    fn gone(&mut self, handle: u32) -> Key {
        let at = self.in_line.iter().position(|(_, _, other)| *other == handle).expect("a waiter served twice");
        self.in_line.remove(at).0
    }

    fn order(&mut self) -> Result<(), TestCaseError> {
        while let Some(opening) = self.f.line.next_opening(self.f.now) {
            self.begins(opening.key)?;
        }
        Ok(())
    }

    /// Nothing begins that is beyond a limit.
    fn begins(&mut self, key: Key) -> Result<(), TestCaseError> {
        self.openings.push(key);
        prop_assert!(self.f.line.figures().open <= self.f.line.limits().connections);
        let user = usize::from(key != self.keys[0]);
        let open = self.f.line.open_of(USERS[user]);
        prop_assert!(self.limits[user].is_none_or(|limit| open <= limit));
        Ok(())
    }

    fn judged(&mut self, key: Key, verdict: Verdict<u32, u32>) -> Result<(), TestCaseError> {
        match verdict {
            Verdict::Hand(connection, handle) => {
                prop_assert_eq!(self.gone(handle), key);
                self.leased.push((key, connection));
            }
            Verdict::Trade(_, other) => {
                prop_assert!(key != other && self.in_line.iter().any(|(waits, _, _)| *waits == other));
                self.begins(other)?;
            }
            Verdict::Kept | Verdict::Close(_) => {}
        }
        Ok(())
    }

    fn happens(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Arrive { key, worker } => {
                let ask = Fixture::ask(self.keys[key], worker);
                if let Some(connection) = self.f.line.take(ask) {
                    self.leased.push((ask.key, connection));
                } else {
                    let ticket = self.f.wait(ask, self.next);
                    self.in_line.push((ask.key, ticket, self.next));
                }
                self.next += 1;
                self.order()?;
            }
            Event::Open { fails, refused } => {
                let Some(key) = self.openings.pop() else { return Ok(()) };
                if fails {
                    for handle in self.f.line.open_failed(key, refused, self.f.now, 0.5) {
                        self.gone(handle);
                    }
                } else {
                    self.f.made += 1;
                    let verdict = self.f.line.arrive(self.f.made, Fixture::ask(key, 0), self.f.now);
                    self.judged(key, verdict)?;
                }
            }
            Event::Release { which } if !self.leased.is_empty() => {
                let (key, connection) = self.leased.remove(which % self.leased.len());
                let verdict = self.f.line.release(connection, Fixture::ask(key, which % 2), self.f.now);
                self.judged(key, verdict)?;
            }
            Event::Lose { which } if !self.leased.is_empty() => {
                let (key, _) = self.leased.remove(which % self.leased.len());
                self.f.line.closed(key);
            }
            Event::Cancel { which } if !self.in_line.is_empty() => {
                let (key, ticket, handle) = self.in_line.remove(which % self.in_line.len());
                prop_assert_eq!(self.f.line.cancel(key, ticket), Some(handle));
                prop_assert_eq!(self.f.line.cancel(key, ticket), None);
            }
            Event::UserLimit { user, connections } => {
                self.limits[user] = connections;
                let limit = |user: usize| Some((USERS[user].to_owned(), self.limits[user]?));
                self.f.line.set_user_limits([0, 1].into_iter().filter_map(limit).collect());
            }
            Event::Limit { connections } => self.f.line.set_limits(Limits { connections, ..LIMITS }),
            Event::Floor { key, connections } => self.f.line.set_floor(self.keys[key], connections),
            Event::Sweep => {
                let line = &mut self.f.line;
                let before: Vec<_> = line.pools.iter().map(|pool| (pool.open, line.is_over(pool.user))).collect();
                line.sweep(self.f.now, Some(Duration::from_secs(1)), |_| false);
                for (pool, (before, was_over)) in line.pools.iter().zip(before) {
                    prop_assert!(pool.open >= before.min(pool.floor) || was_over);
                }
                while let Some(key) = self.f.line.next_ahead(self.f.now) {
                    self.begins(key)?;
                }
            }
            Event::Later { ms } => {
                self.f.now += Duration::from_millis(ms);
                for late in self.f.line.expire(self.f.now) {
                    prop_assert_eq!(self.gone(late.handle), late.key);
                }
            }
            Event::Release { .. } | Event::Lose { .. } | Event::Cancel { .. } => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let line = &self.f.line;
        let figures = line.figures();
        prop_assert_eq!(figures.open, self.leased.len() + self.openings.len() + figures.idle);
        prop_assert_eq!(figures.openings, self.openings.len());
        prop_assert_eq!(figures.waiting, self.in_line.len());
        prop_assert_eq!(line.pools.iter().map(|pool| pool.open).sum::<usize>(), figures.open);
        prop_assert_eq!(line.pools.iter().map(|pool| pool.idle.len()).sum::<usize>(), figures.idle);
        prop_assert_eq!(line.pools.iter().map(|pool| pool.queue.len()).sum::<usize>(), figures.waiting);
        prop_assert!(line.pools.iter().all(|pool| pool.idle.is_empty() || pool.queue.is_empty()));
        let is_sharing = |user: &&User| user.open > 0 || !user.fronts.is_empty();
        prop_assert_eq!(line.users.iter().filter(is_sharing).count(), line.sharing);
        for (index, user) in line.users.iter().enumerate() {
            let pools = || line.pools.iter().enumerate().filter(|(_, pool)| pool.user == index);
            prop_assert_eq!(pools().map(|(_, pool)| pool.open).sum::<usize>(), user.open);
            let fronts = pools().filter_map(|(number, pool)| Some((pool.queue.front()?.arrival, number)));
            prop_assert_eq!(fronts.collect::<BTreeMap<_, _>>(), user.fronts.clone());
            let turns = line.turns.iter().filter(|turn| **turn == index).count();
            prop_assert_eq!(turns, usize::from(!user.fronts.is_empty()));
        }
        Ok(())
    }
}

proptest! {
    /// Whatever happens: the counts agree with what is really leased, idle and being opened; nothing is opened beyond
    /// the budget or its user's limit; no waiter is lost or served twice.
    #[test]
    fn counts_agree_with_the_world(events in events()) {
        let mut world = World::new();
        for event in events {
            world.happens(&event)?;
            world.check()?;
        }
    }
}
