//! The same conversation twice: directly at the server, and through a proxy. What comes back must be the same, byte for byte.
//!
//! Both sides have a database of their own, made alike, so that neither sees the other's rows. Their names are of one length; in
//! what the direct side gets, its name is replaced by the other one.
//!
//! Masked is one thing, of clients that want EOF packets: whether that behind the columns says that a transaction is open, that
//! more results follow, or that no index was used. At that point the server has not told the proxy yet; the packet behind the rows
//! is compared whole.

use super::wire::{COM_STMT_EXECUTE, COM_STMT_PREPARE, MyError, MyLogin, MyWire, Packet};
use super::{MyServer, database, servers};
use crate::harness::measure::eventually;
use crate::harness::proxy::{ProxyHandle, config, start};
use sluicegate::demo::servers::{APP, APP_PASSWORD};

/// A configuration for a proxy before this server.
pub fn my_config(server: &MyServer, connections: u32) -> String {
    config(server.address(), connections).replace("\"postgres\"", "\"mysql\"")
}

pub fn app() -> MyLogin {
    MyLogin::new(APP, APP_PASSWORD)
}

/// For each of both servers: its proxy and a database of this name.
pub fn each(name: &str, connections: u32, setup: &[&str], run: impl Fn(&MyServer, &str, &ProxyHandle)) {
    each_with(name, setup, |server| my_config(server, connections), run);
}

/// The same with a configuration of the test's own.
pub fn each_with(
    name: &str,
    setup: &[&str],
    config: impl Fn(&MyServer) -> String,
    run: impl Fn(&MyServer, &str, &ProxyHandle),
) {
    for server in servers() {
        let name = database(server, &format!("{name}_{:?}", server.flavour()).to_lowercase(), setup);
        let proxy = start(&config(server));
        println!("--- {:?} {}", server.flavour(), server.version());
        run(server, &name, &proxy);
    }
}

/// For each of both servers: both sides of a comparison, over this many connections of the proxy's.
pub fn both_sides(name: &str, connections: u32, setup: &[&str], run: impl Fn(&Sides<'_>)) {
    each(name, connections, setup, |server, name, proxy| run(&Sides::new(server, proxy, name, setup)));
}

/// Where the same can be said twice.
pub struct Sides<'a> {
    pub server: &'a MyServer,
    pub proxy: &'a ProxyHandle,
    /// The database behind the proxy, and that of the direct side.
    pub name: String,
    pub twin: String,
}

impl<'a> Sides<'a> {
    pub fn new(server: &'a MyServer, proxy: &'a ProxyHandle, name: &str, setup: &[&str]) -> Self {
        let twin = database(server, &format!("me{}", &name[2..]), setup);
        Self { server, proxy, name: name.to_owned(), twin }
    }

    /// A client on either side.
    pub fn talk(&self) -> Talk {
        self.talk_as(|login| login)
    }

    /// The same with a login of the test's own.
    pub fn talk_as(&self, change: impl Fn(MyLogin) -> MyLogin) -> Talk {
        let login = app().database(&self.twin);
        let direct = MyWire::connect(self.server.address(), &change(login)).unwrap();
        self.beside(direct, change)
    }

    /// The direct side is there, and the other one is to log in.
    fn beside(&self, direct: MyWire, change: impl Fn(MyLogin) -> MyLogin) -> Talk {
        let proxied = MyWire::connect(self.proxy.address, &change(app().database(&self.name))).unwrap();
        Talk { direct, proxied, name: self.name.clone(), twin: self.twin.clone() }
    }

    /// What logins on either side are answered: the direct one, and that of the proxy.
    pub fn refused(&self, change: impl Fn(MyLogin) -> MyLogin) -> [Option<MyError>; 2] {
        let sides = [(self.server.address(), &self.twin), (self.proxy.address, &self.name)];
        sides.map(|(address, name)| MyWire::connect(address, &change(app().database(name))).err())
    }
}

/// Two clients that say the same.
pub struct Talk {
    pub direct: MyWire,
    pub proxied: MyWire,
    name: String,
    twin: String,
}

impl Talk {
    /// Both ask this, and get the same; it is given back. `{db}` stands for the database's name.
    pub fn same(&mut self, sql: &str) -> Vec<Packet> {
        self.same_but(sql, |packet| packet)
    }

    /// The same, apart from what `mask` takes away.
    pub fn same_but(&mut self, sql: &str, mask: impl Fn(Packet) -> Packet) -> Vec<Packet> {
        self.same_with(&[0, 1], sql, mask)
    }

    /// The same, with query attributes of whom that is for.
    pub fn same_with(&mut self, attributes: &[u8], sql: &str, mask: impl Fn(Packet) -> Packet) -> Vec<Packet> {
        let [twin, name] = [&self.twin, &self.name].map(|name| sql.replace("{db}", name));
        let payloads = [self.direct.text_with(attributes, &twin), self.proxied.text_with(attributes, &name)];
        self.commands(sql, &payloads, mask).1
    }

    pub fn all(&mut self, script: &[&str]) {
        for sql in script {
            self.same(sql);
        }
    }

    /// Both send this command.
    pub fn command(&mut self, payload: &[u8]) -> Vec<Packet> {
        self.compared(&payload[..payload.len().min(40)].escape_ascii().to_string(), payload, |packet| packet)
    }

    /// Both prepare this; the numbers of the statement are their own.
    pub fn prepare(&mut self, sql: &str) -> Statement {
        let payload = [&[COM_STMT_PREPARE], sql.as_bytes()].concat();
        let (told, found) = self.commands(sql, &[payload.clone(), payload], |packet| {
            let is_prepared = packet.sequence == 1 && packet.first() == 0;
            let kept = [&[0; 5], packet.payload.get(5..).unwrap_or_default()].concat();
            Packet { payload: if is_prepared { kept.into() } else { packet.payload }, ..packet }
        });
        let number = |packets: &[Packet]| u32::from_le_bytes(packets[0].payload[1..5].try_into().unwrap());
        Statement { direct: number(&told), proxied: number(&found) }
    }

    /// Both send this command for the statement: the command itself, and what comes behind the number.
    pub fn use_statement(&mut self, statement: Statement, command: u8, rest: &[u8]) -> Vec<Packet> {
        let numbers = statement.numbers();
        let payloads = numbers.map(|number| [&[command], &number.to_le_bytes()[..], rest].concat());
        self.commands(&format!("command {command:x}"), &payloads, |packet| packet).1
    }

    /// Both execute it with these parameters: the bitmap of NULLs, the byte 1, types, values.
    pub fn execute(&mut self, statement: Statement, parameters: &[u8]) -> Vec<Packet> {
        self.use_statement(statement, COM_STMT_EXECUTE, &[&[0, 1, 0, 0, 0], parameters].concat())
    }

    /// The same on one side alone.
    pub fn execute_proxied(&mut self, statement: Statement, parameters: &[u8]) -> Vec<Packet> {
        let number = statement.proxied.to_le_bytes();
        self.proxied.command(&[&[COM_STMT_EXECUTE], &number[..], &[0, 1, 0, 0, 0], parameters].concat())
    }

    /// The same, apart from what `mask` takes away.
    pub fn command_but(&mut self, payload: &[u8], mask: impl Fn(Packet) -> Packet) -> Vec<Packet> {
        self.compared(&payload[..payload.len().min(40)].escape_ascii().to_string(), payload, mask)
    }

    fn compared(&mut self, what: &str, payload: &[u8], mask: impl Fn(Packet) -> Packet) -> Vec<Packet> {
        let payloads = [&self.twin, &self.name].map(|name| replaced(payload, b"{db}", name.as_bytes()));
        self.commands(what, &payloads, mask).1
    }

    /// The direct one sends one command, and the other one another; what both get is the same, apart from what `mask` takes away. It
    /// is given back as it came.
    pub fn commands(
        &mut self,
        what: &str,
        [direct, proxied]: &[Vec<u8>; 2],
        mask: impl Fn(Packet) -> Packet,
    ) -> (Vec<Packet>, Vec<Packet>) {
        let told = self.direct.command(direct);
        let found = self.proxied.command(proxied);
        let expected = told.clone();
        let masked = |packets: &[Packet]| -> Vec<Packet> { packets.iter().cloned().map(&mask).collect() };
        let expected = expected.into_iter().map(|packet| renamed(packet, &self.twin, &self.name)).collect::<Vec<_>>();
        let [same, expected] = [&found, &expected].map(|packets| without_guesses(masked(packets)));
        assert_eq!(same, expected, "{what}");
        (told, found)
    }

    /// The error with which both are answered.
    pub fn error(&mut self, sql: &str) -> MyError {
        let packets = self.same(sql);
        packets.last().and_then(Packet::error).unwrap_or_else(|| panic!("no error: {packets:?}\nin: {sql}"))
    }
}

/// One connection for two clients: the one that is compared, and another one, who finds nothing of what the first one does.
pub struct Pair<'a> {
    pub talk: Talk,
    pub other: MyWire,
    sides: &'a Sides<'a>,
    finds_nothing: fn(&mut MyWire, &Sides<'_>, &str),
    is_kept: &'static str,
}

impl<'a> Pair<'a> {
    /// What the other one looks at behind each text, and the metric that is 1 while the first one keeps the connection.
    pub fn new(sides: &'a Sides<'a>, finds_nothing: fn(&mut MyWire, &Sides<'_>, &str), is_kept: &'static str) -> Self {
        let other = MyWire::connect(sides.proxy.address, &app().database(&sides.name)).unwrap();
        Self { talk: sides.talk(), other, sides, finds_nothing, is_kept }
    }

    /// Each of these leaves the connection to the other client, who finds nothing there.
    pub fn free(&mut self, script: &[&str]) {
        for sql in script {
            self.talk.same(sql);
            (self.finds_nothing)(&mut self.other, self.sides, sql);
            assert_eq!(self.other.error("EXECUTE s").code, 1243, "{sql}");
        }
    }

    /// Behind each of these the client keeps its connection.
    pub fn kept(&mut self, script: &[&str]) {
        for sql in script {
            self.talk.same(sql);
            eventually(self.sides.proxy, &[(self.is_kept, 1.0)]);
        }
    }
}

/// The numbers of a prepared statement on either side.
#[derive(Clone, Copy)]
pub struct Statement {
    direct: u32,
    proxied: u32,
}

impl Statement {
    /// Direct and proxied.
    pub fn numbers(self) -> [u32; 2] {
        [self.direct, self.proxied]
    }
}

/// A name in place of another one of the same length.
pub fn renamed(packet: Packet, from: &str, to: &str) -> Packet {
    Packet { payload: replaced(&packet.payload, from.as_bytes(), to.as_bytes()).into(), ..packet }
}

/// Results without what an EOF behind columns can't know; and an empty list of changes is none: MySQL has one behind a `SET` of its
/// tracker of transactions.
pub fn without_guesses(mut packets: Vec<Packet>) -> Vec<Packet> {
    for packet in &mut packets {
        if packet.payload[..] == [0, 0, 0, 2, 0x40, 0, 0, 0, 0] {
            packet.payload = vec![0, 0, 0, 2, 0, 0, 0].into();
        }
    }
    let mut at = 0;
    while let Some(first) = packets.get(at) {
        at += 1;
        if matches!(first.first(), 0x00 | 0xFB | 0xFF) {
            continue;
        }
        at += usize::from(first.first());
        let Some(behind) = packets.get_mut(at) else { break };
        if is_eof(behind) {
            let mut payload = behind.payload.to_vec();
            // IN_TRANSACTION and MORE_RESULTS, NO_GOOD_INDEX_USED and NO_INDEX_USED.
            payload[3] &= !0x39;
            behind.payload = payload.into();
            at += 1;
        }
        at += packets[at.min(packets.len())..].iter().take_while(|packet| !is_end(packet)).count() + 1;
    }
    packets
}

fn is_eof(packet: &Packet) -> bool {
    packet.first() == 0xFE && packet.payload.len() == 5
}

fn is_end(packet: &Packet) -> bool {
    matches!(packet.first(), 0xFE | 0xFF) && packet.payload.len() < 0xFF_FFFF
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(at) = memchr::memmem::find(rest, from) {
        out.extend(&rest[..at]);
        out.extend(to);
        rest = &rest[at + from.len()..];
    }
    out.extend(rest);
    out
}
