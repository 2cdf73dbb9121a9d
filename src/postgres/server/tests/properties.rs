//! Properties: random clients over shared servers read what they would read directly; cuts make no difference; an idle
//! connection is clean; nothing panics. PROPTEST_CASES asks for more of it.

use super::model::{Model, Tables};
use super::wire::*;
use super::*;
use crate::protocol::{Detached, PinPolicy, PinRules};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// What a model server starts with.
const DEFAULTS: &[(&str, &str)] = &[("application_name", ""), ("search_path", "public")];
/// What the clients start with.
const BASELINES: [&[(&str, &str)]; 3] =
    [&[], &[("search_path", "b")], &[("application_name", "c"), ("search_path", "d")]];

/// What `init_query` makes of it, if there is one.
const INIT: (&str, &str) = ("search_path", "i");

// ---------------------------------------------------------------------------------------------- programs

/// What a client does.
#[derive(Clone)]
enum Act {
    Say(Vec<u8>),
    /// Reads everything that must come.
    Wait,
}

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Say(bytes) => f.write_str(&show(bytes).join(" | ")),
            Self::Wait => f.write_str("wait"),
        }
    }
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("SELECT 3"),
        2 => Just("SELECT 0"),
        4 => Just("INSERT t"),
        3 => Just("COUNT t"),
        2 => Just("BEGIN"),
        2 => Just("COMMIT"),
        1 => Just("ROLLBACK"),
        2 => Just("ERROR"),
        2 => Just("BAD"),
        1 => Just(""),
        1 => Just("NOTICE"),
        2 => Just("SHOW search_path"),
        1 => Just("SHOW application_name"),
        1 => Just("SET LOCAL search_path=z"),
        1 => Just("COPY OUT"),
        1 => Just("LISTEN c"),
    ]
}

fn statement_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => Just(""), 4 => Just("a"), 3 => Just("b"), 1 => Just("sg_c")]
}

fn portal_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just("x")]
}

/// Messages of an extended exchange.
fn extended() -> impl Strategy<Value = Vec<u8>> {
    let run = (portal_name(), statement_name()).prop_map(|(portal, name)| [b(portal, name), e(portal)].concat());
    let parse_and_run = (statement_name(), text(), portal_name())
        .prop_map(|(name, text, portal)| [p(name, text), b(portal, name), dp(portal), e(portal)].concat());
    prop_oneof![
        4 => parse_and_run,
        4 => run,
        3 => (statement_name(), text()).prop_map(|(name, text)| p(name, text)),
        2 => statement_name().prop_map(ds),
        2 => statement_name().prop_map(cs),
        1 => portal_name().prop_map(dp),
        1 => portal_name().prop_map(cp),
        1 => (portal_name(), 1..3u32).prop_map(|(portal, max)| e_max(portal, max)),
        1 => Just(h()),
        1 => text().prop_map(q),
        1 => Just(function(952)),
    ]
}

/// COPY data, to its end.
fn copy_data() -> impl Strategy<Value = Vec<u8>> {
    let rows = proptest::collection::vec(prop_oneof![8 => Just("row"), 1 => Just("bad")], 0..4);
    (rows, proptest::bool::weighted(0.8)).prop_map(|(rows, done)| {
        let rows: Vec<u8> = rows.into_iter().flat_map(d).collect();
        [rows, if done { c() } else { f() }].concat()
    })
}

fn act() -> impl Strategy<Value = Act> {
    let segment = proptest::collection::vec(extended(), 0..5)
        .prop_flat_map(|messages| (Just(messages.concat()), prop_oneof![6 => Just(s()), 1 => Just(h())]));
    let simple = proptest::collection::vec(text(), 1..4).prop_map(|texts| q(&texts.join("; ")));
    let copy = copy_data().prop_map(|data| [q("COPY IN"), data].concat());
    let copies = (copy_data(), copy_data())
        .prop_map(|(first, second)| [q("COPY IN; SELECT 1; COPY IN"), first, second].concat());
    let extended_copy = (copy_data(), any::<bool>()).prop_map(|(data, early)| {
        let early = if early { s() } else { vec![] };
        [p("", "COPY IN"), b("", ""), e(""), early, data, s()].concat()
    });
    let deallocate =
        statement_name().prop_map(|name| format!("DEALLOCATE {}", if name.is_empty() { "a" } else { name }));
    let prepare =
        (statement_name(), prop_oneof![Just("SELECT 1"), Just("SELECT 3"), Just("INSERT t"), Just("COUNT t")])
            .prop_map(|(name, text)| format!("PREPARE {} AS {text}", if name.is_empty() { "a" } else { name }));
    let execute = statement_name().prop_map(|name| format!("EXECUTE {}", if name.is_empty() { "b" } else { name }));
    let named = prop_oneof![2 => deallocate, 2 => prepare, 3 => execute];
    let said = prop_oneof![
        3 => named.clone().prop_map(|text| q(&text)),
        1 => proptest::collection::vec(prop_oneof![3 => named.clone(), 1 => text().prop_map(str::to_owned)], 2..5)
            .prop_map(|texts| q(&texts.join("; "))),
        2 => (statement_name(), named.clone(), portal_name(), any::<bool>()).prop_map(|(name, text, portal, described)| {
            let describe = if described { dp(portal) } else { vec![] };
            [p(name, &text), b(portal, name), describe, e(portal), s()].concat()
        }),
        1 => (statement_name(), named, any::<bool>()).prop_map(|(name, text, described)| {
            let describe = if described { ds(name) } else { vec![] };
            [p(name, &text), describe, s()].concat()
        }),
    ];
    let clear = (prop_oneof![Just("DEALLOCATE ALL"), Just("DISCARD ALL")], any::<bool>());
    let clear = clear.prop_map(|(text, simple)| match simple {
        true => q(text),
        false => [p("", text), b("", ""), e(""), s()].concat(),
    });
    prop_oneof![
        8 => segment.prop_map(|(messages, end)| Act::Say([messages, end].concat())),
        4 => simple.prop_map(Act::Say),
        2 => copy.prop_map(Act::Say),
        1 => copies.prop_map(Act::Say),
        2 => extended_copy.prop_map(Act::Say),
        3 => said.prop_map(Act::Say),
        1 => clear.prop_map(Act::Say),
        1 => Just(Act::Say([d("stray"), c()].concat())),
        6 => Just(Act::Wait),
    ]
}

fn program() -> impl Strategy<Value = Vec<Act>> {
    let program = proptest::collection::vec(act(), 1..8).prop_map(|mut acts| {
        // Ends as a client does that behaves: in no exchange and no transaction.
        acts.push(Act::Say([f(), s(), q("ROLLBACK")].concat()));
        acts.push(Act::Wait);
        acts
    });
    program.prop_filter("the server would end the connection, or describes in a failed transaction", |program| {
        let model = through(program);
        !model.lost_synchronization && !model.described_in_failed
    })
}

/// A server that a client has said all this to.
fn through(program: &[Act]) -> Model {
    let mut model = Model::direct(DEFAULTS);
    program.iter().for_each(|act| {
        if let Act::Say(bytes) = act {
            model.feed(bytes);
        }
    });
    model
}

/// What a client reads without a proxy: as far as each of its waits.
fn direct(program: &[Act], baseline: &[(&str, &str)], init: bool) -> Vec<Vec<u8>> {
    let mut settings: BTreeMap<&str, &str> = DEFAULTS.iter().copied().collect();
    settings.extend(init.then_some(INIT));
    settings.extend(baseline.iter().copied());
    let mut model = Model::direct(&settings.into_iter().collect::<Vec<_>>());
    let mut waits = Vec::new();
    for act in program {
        match act {
            Act::Say(bytes) => model.feed(bytes),
            Act::Wait => waits.push(without_reports(&model.out)),
        }
    }
    model.out.clear();
    assert!(model.is_quiet(), "{model:?}");
    waits
}

/// Reports come when connections change; an unknown name in the proxy's form has a letter more in its error.
fn without_reports(bytes: &[u8]) -> Vec<u8> {
    let known = |frame: &[u8]| match frame[0] {
        b'S' => Vec::new(),
        b'E' => raw(b'E', String::from_utf8_lossy(&frame[5..]).replace("\"_sg_", "\"sg_").as_bytes()),
        _ => frame.to_vec(),
    };
    let whole = frames(bytes)
        .into_iter()
        .filter(|bytes| matches!(frame::head(bytes), Ok(Some(head)) if head.len == bytes.len()));
    whole.flat_map(known).collect()
}

// ---------------------------------------------------------------------------------------------- a small world

/// Enough chance for a schedule.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }

    /// Some of `len` bytes, at least one; all of them with whole pieces.
    fn piece(&mut self, len: usize, whole: bool) -> usize {
        if whole || self.roll(3) == 0 { len } else { 1 + self.roll(len) }
    }
}

struct Conn {
    machine: Server,
    model: Model,
    pending: Vec<u8>,
    tail: Vec<u8>,
    leased: bool,
}

impl Conn {
    /// While nobody holds it.
    fn hears_alone(&mut self, query: &[u8]) {
        self.model.feed(query);
        let said = std::mem::take(&mut self.model.out);
        let mut out = Out::new();
        assert_eq!(self.machine.receive(&said, None, &mut out), Ok(said.len()));
        assert!(out.is_empty() && self.machine.attach_failure().is_none());
    }
}

struct User {
    client: Client,
    program: Vec<Act>,
    waits: Vec<Vec<u8>>,
    /// Acts and waits done; bytes of the present one said.
    done: usize,
    waited: usize,
    said: usize,
    tail: Vec<u8>,
    got: Vec<u8>,
    lease: Option<usize>,
    look_again: bool,
}

enum Event {
    Attached,
    /// Said by the client, not attached, and taken.
    Detached(Vec<u8>),
    Client(Vec<u8>),
    Server(Vec<u8>),
}

struct World {
    conns: Vec<Conn>,
    users: Vec<User>,
    dice: Dice,
    whole: bool,
    /// What happened to the machine of the first connection, and to the client without one.
    events: Vec<Event>,
}

impl World {
    fn new(programs: &[Vec<Act>], servers: usize, seed: u64, whole: bool, init: bool) -> Self {
        let users = programs.iter().zip(BASELINES).enumerate().map(|(number, (program, baseline))| {
            // Tables of its own for each client, in the same servers.
            let table = format!("t{number}");
            let program: Vec<Act> = program
                .iter()
                .map(|act| match act {
                    Act::Say(bytes) => Act::Say(renamed(bytes, &table)),
                    Act::Wait => Act::Wait,
                })
                .collect();
            let mut client = client_with(number as u64 + 1, baseline);
            client.set_pin_rules(no_listening());
            User {
                client,
                waits: direct(&program, baseline, init),
                program,
                done: 0,
                waited: 0,
                said: 0,
                tail: Vec::new(),
                got: Vec::new(),
                lease: None,
                look_again: false,
            }
        });
        let users = users.collect();
        let tables = Tables::default();
        let conns = (0..servers).map(|_| {
            let (machine, model, tail) = (server_with(3), Model::new(&tables, DEFAULTS), Vec::new());
            let mut conn = Conn { machine, model, pending: Vec::new(), tail, leased: false };
            if init {
                let mut query = Vec::new();
                conn.machine.initialize(&format!("INIT {}", INIT.1).into(), &mut query);
                conn.hears_alone(&query);
            }
            conn
        });
        Self { conns: conns.collect(), users, dice: Dice(seed | 1), whole, events: Vec::new() }
    }

    /// Until nothing moves.
    fn run(&mut self) {
        loop {
            let (users, conns) = (self.users.len(), self.conns.len());
            let mut moves: Vec<usize> = (0..users * 2 + conns * 2).collect();
            for index in (1..moves.len()).rev() {
                moves.swap(index, self.dice.roll(index + 1));
            }
            let mut moved = false;
            for number in moves {
                moved |= match number {
                    number if number < users => self.client_says(number),
                    number if number < users * 2 => self.proxy_looks(number - users),
                    number if number < users * 2 + conns => self.server_hears(number - users * 2),
                    number => self.server_says(number - users * 2 - conns),
                };
                (0..conns).for_each(|conn| self.check(conn));
            }
            if !moved {
                break;
            }
        }
        for (number, user) in self.users.iter().enumerate() {
            let expected = user.waits.last().unwrap();
            assert_eq!(show(&without_reports(&user.got)), show(expected), "client {number} of {}", self.users.len());
            assert_eq!((user.done, user.tail.len(), user.lease), (user.program.len(), 0, None), "client {number}");
        }
    }

    fn client_says(&mut self, number: usize) -> bool {
        let user = &mut self.users[number];
        match user.program.get(user.done) {
            None => return false,
            Some(Act::Wait) => {
                if without_reports(&user.got).len() < user.waits[user.waited].len() {
                    return false;
                }
                user.waited += 1;
                user.done += 1;
            }
            Some(Act::Say(bytes)) => {
                let rest = &bytes[user.said..];
                let piece = self.dice.piece(rest.len(), self.whole);
                user.tail.extend_from_slice(&rest[..piece]);
                user.look_again = true;
                user.said += piece;
                if user.said == bytes.len() {
                    user.said = 0;
                    user.done += 1;
                }
            }
        }
        true
    }

    fn proxy_looks(&mut self, number: usize) -> bool {
        let user = &mut self.users[number];
        if !user.look_again {
            return self.give_back(number);
        }
        let Some(conn) = user.lease else {
            let (taken, verdict) = user.client.detached(&user.tail, &mut user.got).unwrap();
            self.events.push(Event::Detached(user.tail.drain(..taken).collect()));
            user.look_again = verdict != Detached::NeedInput;
            let free: Vec<usize> = (0..self.conns.len()).filter(|conn| !self.conns[*conn].leased).collect();
            if verdict == Detached::NeedInput || free.is_empty() {
                return taken > 0;
            }
            let conn = free[self.dice.roll(free.len())];
            user.lease = Some(conn);
            let Conn { machine, pending, leased, .. } = &mut self.conns[conn];
            *leased = true;
            self.events.push(Event::Attached);
            machine.attach(&mut user.client, Sides { client: &mut user.got, server: pending });
            return true;
        };
        let Conn { machine, pending, .. } = &mut self.conns[conn];
        if machine.is_holding() {
            return self.give_back(number);
        }
        let mut out = Out::new();
        self.events.push(Event::Client(user.tail.clone()));
        let taken = machine.send(&user.tail, &mut user.client, &mut out).unwrap();
        out.copy_to(&user.tail, 0, pending);
        user.tail.drain(..taken);
        user.look_again = false;
        true
    }

    /// As the session does.
    fn give_back(&mut self, number: usize) -> bool {
        let user = &mut self.users[number];
        let Some(conn) = user.lease else { return false };
        let Conn { machine, pending, .. } = &mut self.conns[conn];
        let is_last = user.done == user.program.len() && user.tail.is_empty();
        if user.look_again && !machine.is_holding() || machine.status() != Idle || !pending.is_empty() {
            return false;
        }
        if !user.client.pins.is_empty() {
            if !is_last {
                return false;
            }
            let mut reset = Vec::new();
            machine.reset(&mut reset);
            self.conns[conn].hears_alone(&reset);
        }
        let Conn { machine, model, tail, leased, .. } = &mut self.conns[conn];
        assert!(tail.is_empty());
        // What the machine believes is what is there.
        let believed: BTreeSet<String> =
            machine.prepared.keys().map(|id| String::from_utf8(id.name().to_vec()).unwrap()).collect();
        let there: BTreeSet<String> =
            model.statements().filter(|name| name.starts_with("sg_") && name.len() == 35).map(str::to_owned).collect();
        assert_eq!(believed, there);
        let init = machine.init.as_ref().filter(|_| !machine.init_lost).map(|_| INIT);
        let applied = init.into_iter().chain(machine.applied.iter());
        let applied: BTreeMap<String, String> =
            applied.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(applied, model.settings());
        *leased = false;
        user.lease = None;
        user.look_again = !user.tail.is_empty();
        true
    }

    fn server_hears(&mut self, conn: usize) -> bool {
        let Conn { model, pending, .. } = &mut self.conns[conn];
        if pending.is_empty() {
            return false;
        }
        let piece = self.dice.piece(pending.len(), self.whole);
        model.feed(&pending[..piece]);
        pending.drain(..piece);
        true
    }

    fn server_says(&mut self, number: usize) -> bool {
        let Conn { machine, model, tail, .. } = &mut self.conns[number];
        if model.out.is_empty() {
            return false;
        }
        let piece = self.dice.piece(model.out.len(), self.whole);
        tail.extend(model.out.drain(..piece));
        let user = self.users.iter_mut().find(|user| user.lease == Some(number)).expect("said to nobody");
        let mut out = Out::new();
        self.events.push(Event::Server(tail.clone()));
        let taken = machine.receive(tail, Some(&mut user.client), &mut out).unwrap();
        out.copy_to(tail, 0, &mut user.got);
        tail.drain(..taken);
        assert!(machine.attach_failure().is_none());
        assert_eq!(machine.tally().disagreements, 0);
        user.look_again |= !user.tail.is_empty();
        true
    }

    /// A connection that says it is idle has nothing under way.
    fn check(&self, conn: usize) {
        let Conn { machine, model, pending, tail, leased } = &self.conns[conn];
        if machine.status() != Idle {
            assert!(leased);
            return;
        }
        let mut model = model.clone();
        model.feed(pending);
        assert!(!model.lost_synchronization, "a request in the middle of COPY data");
        assert!(model.is_quiet() && tail.is_empty(), "idle, but {model:?}, {:?}", show(tail));
        assert!(!model.is_copying());
    }
}

/// The client's own table in place of `t`.
fn renamed(bytes: &[u8], table: &str) -> Vec<u8> {
    let renamed = |frame: &[u8]| {
        if !matches!(frame[0], b'Q' | b'P') {
            return frame.to_vec();
        }
        let body = String::from_utf8(frame[5..].to_vec()).unwrap();
        let body = body.replace("INSERT t", &format!("INSERT {table}")).replace("COUNT t", &format!("COUNT {table}"));
        raw(frame[0], body.as_bytes())
    };
    frames(bytes).into_iter().flat_map(renamed).collect()
}

// ---------------------------------------------------------------------------------------------- properties

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(cases(200)) })]

    /// Three clients on two connections, in any order and any pieces: each reads what it would read directly.
    #[test]
    fn a_client_reads_what_it_would_read_directly(
        programs in [program(), program(), program()],
        seed: u64,
        whole: bool,
        init: bool,
    ) {
        let init = init && !programs.iter().any(|program| through(program).ran_behind_discard);
        World::new(&programs, 2, seed, whole, init).run();
    }

    /// Alone on one connection.
    #[test]
    fn alone_as_well(program in program(), seed: u64, init: bool) {
        let init = init && !through(&program).ran_behind_discard;
        World::new(&[program], 1, seed, true, init).run();
    }

    /// However the same bytes are cut, the same comes out.
    #[test]
    fn cuts_make_no_difference(program in program(), seed: u64, cuts: u64) {
        let mut world = World::new(&[program], 1, seed, true, false);
        world.run();
        let play = |cuts: Option<u64>| {
            let mut client = client_with(1, &[]);
            client.set_pin_rules(no_listening());
            let mut bench =
                Bench { server: server_with(3), client, client_tail: Vec::new(), server_tail: Vec::new() };
            let mut dice = Dice(cuts.unwrap_or(0) | 1);
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut states = Vec::new();
            for event in &world.events {
                let (side, said, tail, out) = match event {
                    Event::Attached => {
                        let (server_gets, client_gets) = bench.attach();
                        to_server.extend(server_gets);
                        to_client.extend(client_gets);
                        continue;
                    }
                    Event::Detached(said) => {
                        let (taken, _) = bench.client.detached(said, &mut to_client).unwrap();
                        assert_eq!(taken, said.len());
                        continue;
                    }
                    Event::Client(said) => (Side::Client, said, &bench.client_tail, &mut to_server),
                    Event::Server(said) => (Side::Server, said, &bench.server_tail, &mut to_client),
                };
                // What was not taken is shown again with more behind it.
                let mut rest = &said[tail.len()..];
                loop {
                    let piece = if rest.is_empty() { 0 } else { dice.piece(rest.len(), cuts.is_none()) };
                    out.extend(bench.say(&side, &rest[..piece]).unwrap());
                    rest = &rest[piece..];
                    if rest.is_empty() {
                        break;
                    }
                }
                states.push((bench.server.status(), bench.client_tail.len(), bench.server_tail.len()));
            }
            (show(&to_server), show(&to_client), states)
        };
        prop_assert_eq!(play(None), play(Some(cuts)));
    }

    /// Nothing that anybody says makes a machine panic, take what it was not shown, or owe without a bound.
    #[test]
    fn any_bytes_from_either_side(talk in proptest::collection::vec((any::<bool>(), soup()), 0..40), max in 1..4usize) {
        let mut bench = Bench::with(server_with(max), client_with(1, &[]));
        for (is_client, bytes) in talk {
            let side = if is_client { Side::Client } else { Side::Server };
            if bench.say(&side, &bytes).is_err() {
                break;
            }
            prop_assert!(bench.server.owed.len() <= owed::OWED_MAX + 16);
        }
        bench.server.status();
    }

    /// What the proxy need not understand passes as it came.
    #[test]
    fn what_need_not_be_understood_passes_unchanged(
        texts in proptest::collection::vec("[ -~]{0,40}", 1..6),
        rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..6),
        piece in 1..300usize,
    ) {
        let texts: Vec<String> = texts.into_iter().filter(|text| plain(text)).collect();
        let rows: Vec<u8> = rows.iter().flat_map(|body| [raw(b'D', body), raw(b'N', body), raw(b'd', body)]).flatten().collect();
        let mut bench = Bench::new();
        for text in &texts {
            let description = raw(b'T', text.as_bytes());
            bench.play(&[
                client_passes([q(text)], Owing),
                server_passes([description, rows.clone(), tag("SELECT 1"), z(b'I')], Idle),
                client_passes([p("", text), b_with("", "", &[text]), dp(""), e_max("", 7), s()], Owing),
                server_passes([pc(), bc(), n(), rows.clone(), tag("SELECT 1"), z(b'I')], Idle),
            ], piece);
        }
    }
}

/// `pin_on = { listen = "reject" }`
fn no_listening() -> PinRules {
    PinRules { policy: PinPolicy { rejected: Pins::of(PinReason::Listen), ..PinPolicy::default() }, budget: None }
}

fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

/// A text that changes nothing on its connection.
fn plain(text: &str) -> bool {
    let statement = crate::sql::classify(text.as_bytes(), Dialect::default());
    statement.references.is_empty() && statement.intent == crate::protocol::Intent::default()
}

/// Bytes that look like frames, mostly.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let kinds = b"QPBEDCSHFdcfX1234567890ZTDIEGWNAtnsVKRv".to_vec();
    let body = prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..20),
        2 => proptest::collection::vec(Just(0u8), 0..8),
        1 => Just(b"SI\0T".to_vec()),
        1 => Just(b"Sa\0\0".to_vec()),
        1 => Just(b"a\0DISCARD ALL\0\0\0".to_vec()),
    ];
    let frame = (proptest::sample::select(kinds), body).prop_map(|(kind, body)| raw(kind, &body));
    let valid = prop_oneof![
        extended(),
        Just(s()),
        Just(q("DEALLOCATE a")),
        Just(q("DISCARD ALL")),
        Just(z(b'I')),
        Just(z(b'T')),
        Just(err("22012", "x")),
        Just(cc()),
        Just(pc()),
        Just(bc()),
        Just(tag("DEALLOCATE")),
        Just(copy_in())
    ];
    prop_oneof![6 => valid, 3 => frame, 1 => proptest::collection::vec(any::<u8>(), 0..30)]
}
