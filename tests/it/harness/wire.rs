//! A PostgreSQL client that sends any bytes whatsoever and writes down what comes back.
//!
//! [`Script`] is what one or more clients do; [`run`] does it against a [`Target`] and gives the [`Transcript`]. Reading
//! and writing are independent (a thread reads), so a script can't deadlock by itself. Nothing waits longer than
//! [`PATIENCE`]; what takes longer fails with all that was received so far. No TLS: the bytes are what is compared.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::proxy::keeps_secrets;
use bytes::{BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use sluicegate::demo::servers::{APP, APP_PASSWORD, SUPERUSER, SUPERUSER_PASSWORD};

/// A reply that takes longer than this will never come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Protocol versions as they stand in a startup packet.
pub const PROTOCOL_3_0: u32 = 0x0003_0000;
pub const PROTOCOL_3_2: u32 = 0x0003_0002;

/// One message from the server: its type byte and what follows the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub body: Bytes,
}

impl Frame {
    /// The i-th field of an ErrorResponse or NoticeResponse: `'C'` is the SQLSTATE, `'M'` the message.
    pub fn field(&self, name: u8) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        let mut values = fields.filter_map(|field| field.split_first());
        values.find(|(first, _)| **first == name).map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// The columns of a DataRow.
    pub fn columns(&self) -> Vec<Option<Bytes>> {
        assert_eq!(self.kind, b'D', "{self}");
        let mut rest = self.body.slice(2..);
        let mut columns = Vec::new();
        while !rest.is_empty() {
            let length = i32::from_be_bytes(rest.split_to(4)[..].try_into().unwrap());
            columns.push(usize::try_from(length).ok().map(|length| rest.split_to(length)));
        }
        columns
    }

    fn name(&self) -> &'static str {
        match self.kind {
            b'1' => "ParseComplete",
            b'2' => "BindComplete",
            b'3' => "CloseComplete",
            b'A' => "NotificationResponse",
            b'C' => "CommandComplete",
            b'D' => "DataRow",
            b'E' => "ErrorResponse",
            b'G' => "CopyInResponse",
            b'H' => "CopyOutResponse",
            b'I' => "EmptyQueryResponse",
            b'K' => "BackendKeyData",
            b'N' => "NoticeResponse",
            b'R' => "Authentication",
            b'S' => "ParameterStatus",
            b'T' => "RowDescription",
            b'V' => "FunctionCallResponse",
            b'W' => "CopyBothResponse",
            b'Z' => "ReadyForQuery",
            b'c' => "CopyDone",
            b'd' => "CopyData",
            b'n' => "NoData",
            b's' => "PortalSuspended",
            b't' => "ParameterDescription",
            b'v' => "NegotiateProtocolVersion",
            _ => "unknown",
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", char::from(self.kind), self.name())?;
        match self.kind {
            b'E' | b'N' => {
                for field in self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
                    write!(f, " {}={:?}", char::from(field[0]), String::from_utf8_lossy(&field[1..]))?;
                }
                Ok(())
            }
            _ if self.body.is_empty() => Ok(()),
            _ if self.body.len() > 300 => {
                write!(f, " \"{}\" ... {} bytes", self.body[..300].escape_ascii(), self.body.len())
            }
            _ => write!(f, " \"{}\"", self.body.escape_ascii()),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who logs in and how.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub version: u32,
    /// Startup parameters beside `user`; `database` among them.
    pub parameters: Vec<(String, String)>,
}

impl Login {
    pub fn app() -> Self {
        Self::new(APP, APP_PASSWORD)
    }

    pub fn superuser() -> Self {
        Self::new(SUPERUSER, SUPERUSER_PASSWORD)
    }

    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: password.into(), version: PROTOCOL_3_0, parameters: Vec::new() }
    }

    pub fn database(self, name: &str) -> Self {
        self.with("database", name)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The startup packet.
    pub fn startup(&self) -> Bytes {
        let mut out = BytesMut::new();
        let user = [("user", self.user.as_str())];
        let others = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        frontend::startup_message(user.into_iter().chain(others), &mut out).unwrap();
        out[4..8].copy_from_slice(&self.version.to_be_bytes());
        out.freeze()
    }
}

/// A login that did not succeed: what came until then, and why it ended.
#[derive(Debug)]
pub struct LoginFailed {
    pub frames: Vec<Frame>,
    pub reason: String,
}

impl fmt::Display for LoginFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "login failed: {}; received {:#?}", self.reason, self.frames)
    }
}

enum Event {
    Frame(Frame),
    /// End of file or a reset: which of the two depends on timing, and neither says more than the other.
    Closed,
}

/// A logged-in connection.
pub struct Wire {
    stream: TcpStream,
    events: Receiver<Event>,
    closed: bool,
    /// Everything from the first Authentication message to the first ReadyForQuery.
    login: Vec<Frame>,
}

impl Wire {
    pub fn connect(address: SocketAddr, login: &Login) -> Result<Self, LoginFailed> {
        let mut frames = Vec::new();
        match log_in(address, login, &mut frames) {
            Ok(stream) => Ok(Self::reading(stream, frames)),
            Err(error) => Err(LoginFailed { frames, reason: error.to_string() }),
        }
    }

    /// Logs in, again and again while it is refused: the first client of a proxy waits for all that has to come before it, for
    /// `connection_borrow_timeout` at most.
    pub fn comes_in(address: SocketAddr, login: &Login) -> Self {
        let began = Instant::now();
        loop {
            match Self::connect(address, login) {
                Ok(wire) => return wire,
                Err(failed) => assert!(began.elapsed() < PATIENCE, "{failed}"),
            }
        }
    }

    /// Logs in and gives the socket itself, of which nothing reads.
    pub fn log_in(address: SocketAddr, login: &Login) -> TcpStream {
        log_in(address, login, &mut Vec::new()).unwrap()
    }

    fn reading(stream: TcpStream, login: Vec<Frame>) -> Self {
        stream.set_read_timeout(None).unwrap();
        let (sender, events) = channel();
        let mut source = BufReader::with_capacity(1 << 16, stream.try_clone().unwrap());
        thread::spawn(move || {
            while let Ok(frame) = read_frame(&mut source) {
                if sender.send(Event::Frame(frame)).is_err() {
                    return;
                }
            }
            let _ = sender.send(Event::Closed);
        });
        Self { stream, events, closed: false, login }
    }

    /// The frames of the login, in their order.
    pub fn login(&self) -> &[Frame] {
        &self.login
    }

    /// The first Authentication request: 10 SASL, 5 md5, 3 cleartext, 0 none.
    pub fn asked_for(&self) -> u32 {
        u32::from_be_bytes(self.login[0].body[..4].try_into().unwrap())
    }

    /// Writes everything. An error is not told: it shows in what is, or isn't, received.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Writes in pieces, each in a segment of its own as far as that can be had.
    pub fn send_cut(&mut self, bytes: &[u8], cut: Cut) {
        let mut rest = bytes;
        for piece in cut.pieces(bytes.len()) {
            let (now, later) = rest.split_at(piece.length);
            self.send(now);
            if !later.is_empty() && !piece.pause.is_zero() {
                thread::sleep(piece.pause);
            }
            rest = later;
        }
    }

    /// The next frame; `None` when the connection is closed.
    pub fn receive(&mut self) -> Option<Frame> {
        self.receive_within(PATIENCE).unwrap_or_else(|()| panic!("nothing came within {PATIENCE:?}"))
    }

    /// The same for those who don't want to wait as long; `Err`: nothing came.
    pub fn receive_within(&mut self, patience: Duration) -> Result<Option<Frame>, ()> {
        if self.closed {
            return Ok(None);
        }
        match self.events.recv_timeout(patience) {
            Ok(Event::Frame(frame)) => Ok(Some(frame)),
            Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => {
                self.closed = true;
                Ok(None)
            }
            Err(RecvTimeoutError::Timeout) => Err(()),
        }
    }

    /// Everything up to and with the n-th ReadyForQuery, or the end of the connection.
    pub fn until_ready(&mut self, n: usize) -> Vec<Frame> {
        let (mut frames, mut left) = (Vec::new(), n);
        while left > 0
            && let Some(frame) = self.receive()
        {
            left -= usize::from(frame.kind == b'Z');
            frames.push(frame);
        }
        frames
    }

    /// Sends, and reads up to the n-th ReadyForQuery.
    pub fn ask(&mut self, bytes: &[u8], n: usize) -> Vec<Frame> {
        self.send(bytes);
        self.until_ready(n)
    }

    /// Everything up to the end of the connection.
    pub fn until_closed(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// The only column of the only row of a query.
    pub fn value(&mut self, sql: &str) -> String {
        let rows = self.query(sql);
        rows[0][0].clone().unwrap_or_default()
    }

    /// Asks until this is the answer.
    pub fn until(&mut self, sql: &str, value: &str) {
        let began = Instant::now();
        while self.value(sql) != value {
            assert!(began.elapsed() < PATIENCE, "never {value}: {sql}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a simple query to its ReadyForQuery; fails the test on an error. The text columns of all rows.
    pub fn query(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.send(&query(sql));
        let mut rows = Vec::new();
        loop {
            let frame = self.receive().unwrap_or_else(|| panic!("connection closed during: {sql}"));
            match frame.kind {
                b'D' => {
                    let text = |column: Bytes| String::from_utf8_lossy(&column).into_owned();
                    rows.push(frame.columns().into_iter().map(|column| column.map(text)).collect());
                }
                b'E' => panic!("{frame}\nin: {sql}"),
                b'Z' => return rows,
                _ => {}
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Wakes the reading thread, which holds the other half.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn log_in(address: SocketAddr, login: &Login, frames: &mut Vec<Frame>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    authenticate(&mut stream, login, frames)?;
    Ok(stream)
}

/// Logs in, on whatever carries the bytes.
pub fn authenticate(stream: &mut (impl Read + Write), login: &Login, frames: &mut Vec<Frame>) -> io::Result<()> {
    stream.write_all(&login.startup())?;
    let mut scram = None;
    loop {
        let frame = read_frame(stream)?;
        frames.push(frame.clone());
        match frame.kind {
            b'E' => return Err(io::Error::other(frame.to_string())),
            b'Z' => return Ok(()),
            b'R' => {}
            _ => continue,
        }
        let body = &frame.body[4..];
        let mut out = BytesMut::new();
        match u32::from_be_bytes(frame.body[..4].try_into().unwrap()) {
            0 => {}
            3 => frontend::password_message(login.password.as_bytes(), &mut out)?,
            5 => {
                let salt = body.try_into().unwrap();
                let hash = md5_hash(login.user.as_bytes(), login.password.as_bytes(), salt);
                frontend::password_message(hash.as_bytes(), &mut out)?;
            }
            10 => {
                let started = scram.insert(ScramSha256::new(login.password.as_bytes(), ChannelBinding::unsupported()));
                frontend::sasl_initial_response(SCRAM_SHA_256, started.message(), &mut out)?;
            }
            11 => {
                let scram = scram.as_mut().ok_or_else(|| io::Error::other("SASL continues before it began"))?;
                scram.update(body)?;
                frontend::sasl_response(scram.message(), &mut out)?;
            }
            12 => scram.as_mut().ok_or_else(|| io::Error::other("SASL ends before it began"))?.finish(body)?,
            other => return Err(io::Error::other(format!("authentication request {other}"))),
        }
        stream.write_all(&out)?;
    }
}

pub fn read_frame(source: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 5];
    source.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    let length = length.checked_sub(4).ok_or_else(|| io::Error::other("a frame shorter than its length"))?;
    let mut body = vec![0; length];
    source.read_exact(&mut body)?;
    if matches!(kind, b'E' | b'N') {
        keeps_secrets("an error or notice", &String::from_utf8_lossy(&body));
    }
    Ok(Frame { kind, body: body.into() })
}

/// The type bytes of frames, as in [`Transcript::shape`].
pub fn kinds(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.kind)).collect()
}

// ---------------------------------------------------------------- messages

/// Several messages as one piece of bytes: what one `write` would send.
pub fn batch<const N: usize>(messages: [Vec<u8>; N]) -> Vec<u8> {
    messages.concat()
}

fn built(build: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    build(&mut out);
    out.to_vec()
}

/// Any message: a type byte and a body. The builders below cover what is usual.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    built(|out| {
        out.put_u8(kind);
        out.put_u32(u32::try_from(body.len() + 4).unwrap());
        out.put_slice(body);
    })
}

pub fn query(sql: &str) -> Vec<u8> {
    built(|out| frontend::query(sql, out).unwrap())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    parse_typed(name, sql, &[])
}

pub fn parse_typed(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    built(|out| frontend::parse(name, sql, types.iter().copied(), out).unwrap())
}

/// Bind with text parameters and text results.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    bind_formats(portal, statement, &[], parameters, &[])
}

pub fn bind_formats(
    portal: &str,
    statement: &str,
    formats: &[i16],
    parameters: &[Option<&str>],
    results: &[i16],
) -> Vec<u8> {
    built(|out| {
        let serializer = |parameter: &Option<&str>, out: &mut BytesMut| match parameter {
            None => Ok(postgres_protocol::IsNull::Yes),
            Some(text) => {
                out.put_slice(text.as_bytes());
                Ok(postgres_protocol::IsNull::No)
            }
        };
        let [formats, results] = [formats, results].map(|formats| formats.iter().copied());
        if frontend::bind(portal, statement, formats, parameters, serializer, results, out).is_err() {
            panic!("a Bind that can't be encoded");
        }
    })
}

pub fn describe_statement(name: &str) -> Vec<u8> {
    built(|out| frontend::describe(b'S', name, out).unwrap())
}

pub fn describe_portal(name: &str) -> Vec<u8> {
    built(|out| frontend::describe(b'P', name, out).unwrap())
}

/// Execute; 0 rows means all.
pub fn execute(portal: &str, rows: i32) -> Vec<u8> {
    built(|out| frontend::execute(portal, rows, out).unwrap())
}

pub fn close_statement(name: &str) -> Vec<u8> {
    built(|out| frontend::close(b'S', name, out).unwrap())
}

pub fn close_portal(name: &str) -> Vec<u8> {
    built(|out| frontend::close(b'P', name, out).unwrap())
}

pub fn sync() -> Vec<u8> {
    built(frontend::sync)
}

pub fn flush() -> Vec<u8> {
    built(frontend::flush)
}

pub fn terminate() -> Vec<u8> {
    built(frontend::terminate)
}

pub fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

pub fn copy_done() -> Vec<u8> {
    built(frontend::copy_done)
}

pub fn copy_fail(reason: &str) -> Vec<u8> {
    built(|out| frontend::copy_fail(reason, out).unwrap())
}

/// FunctionCall with text arguments and a text result.
pub fn function_call(function: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u32(function);
    body.put_u16(0);
    body.put_u16(u16::try_from(arguments.len()).unwrap());
    for argument in arguments {
        body.put_u32(u32::try_from(argument.len()).unwrap());
        body.put_slice(argument.as_bytes());
    }
    body.put_u16(0);
    message(b'F', &body)
}

// ---------------------------------------------------------------- how bytes are cut

/// How each `send` of a script is cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// One write.
    Whole,
    /// At random places with random pauses, the same for the same seed.
    Random(u64),
    /// Every byte alone, up to [`SINGLE_BYTES_MAX`] of one send; then in odd pieces, since time is finite.
    Bytes,
    /// In two, at this offset of every send that is longer.
    At(usize),
}

/// A byte with its pause costs about 0.1 ms.
const SINGLE_BYTES_MAX: usize = 2_000;

struct Piece {
    length: usize,
    pause: Duration,
}

impl Cut {
    fn pieces(self, length: usize) -> Vec<Piece> {
        let pause = Duration::from_micros;
        match self {
            Self::Whole => vec![Piece { length, pause: Duration::ZERO }],
            Self::At(offset) if offset == 0 || offset >= length => Self::Whole.pieces(length),
            Self::At(offset) => [offset, length - offset].map(|length| Piece { length, pause: pause(300) }).into(),
            Self::Bytes => {
                let mut pieces = Vec::new();
                let mut left = length;
                while left > 0 {
                    let length = if pieces.len() < SINGLE_BYTES_MAX { 1 } else { left.min(9_973) };
                    pieces.push(Piece { length, pause: pause(20) });
                    left -= length;
                }
                pieces
            }
            Self::Random(seed) => {
                let mut state = seed;
                let mut left = length;
                // About eight pieces of a short send; a long one gets bigger pieces, not endlessly many.
                let longest = (length / 4).max(2);
                let mut pieces = Vec::new();
                while left > 0 {
                    let length = left.min(1 + below(&mut state, longest));
                    let pause = pause([0, 0, 50, 400][below(&mut state, 4)]);
                    pieces.push(Piece { length, pause });
                    left -= length;
                }
                pieces
            }
        }
    }
}

/// SplitMix64: the same numbers for the same seed with any version of any crate.
pub fn below(state: &mut u64, limit: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
}

// ---------------------------------------------------------------- scripts

#[derive(Clone, Debug)]
enum Step {
    Send(Bytes),
    /// Until the n-th frame of this kind from here on.
    Until(u8, usize),
    Quiet(Duration),
    UntilClosed,
    Abort,
    /// As the superuser, on the server itself.
    Meanwhile(String),
}

/// What clients do, step by step. Every client logs in at its first step, and at the script's end those still there send
/// Terminate and read to the end.
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: Vec<(usize, Step)>,
    client: usize,
    startup: Vec<(String, String)>,
}

impl Script {
    pub fn new() -> Self {
        Self::default()
    }

    /// A startup parameter of every client.
    pub fn startup(mut self, name: &str, value: &str) -> Self {
        self.startup.push((name.into(), value.into()));
        self
    }

    /// The steps that follow are this client's; the first is 0.
    pub fn client(mut self, number: usize) -> Self {
        self.client = number;
        self
    }

    pub fn send(self, bytes: Vec<u8>) -> Self {
        self.step(Step::Send(bytes.into()))
    }

    /// Reads up to and with the n-th ReadyForQuery.
    pub fn ready(self, n: usize) -> Self {
        self.until(b'Z', n)
    }

    /// Reads up to and with the n-th frame of a kind.
    pub fn until(self, kind: u8, n: usize) -> Self {
        self.step(Step::Until(kind, n))
    }

    /// Sends a simple query and reads to its ReadyForQuery.
    pub fn run(self, sql: &str) -> Self {
        self.send(query(sql)).ready(1)
    }

    /// Nothing may come for a moment.
    pub fn quiet(self) -> Self {
        self.step(Step::Quiet(Duration::from_millis(60)))
    }

    /// Reads until the other side closes.
    pub fn until_closed(self) -> Self {
        self.step(Step::UntilClosed)
    }

    /// Closes the socket without a word, whatever is still to come.
    pub fn abort(self) -> Self {
        self.step(Step::Abort)
    }

    /// The superuser does this on the server meanwhile. `$app` stands for "every session of the script's clients":
    /// a condition on `pg_stat_activity`.
    pub fn meanwhile(self, sql: &str) -> Self {
        self.step(Step::Meanwhile(sql.into()))
    }

    /// The bytes of the longest send: offsets up to here are worth cutting at.
    pub fn longest_send(&self) -> usize {
        let lengths = self.steps.iter().map(|(_, step)| if let Step::Send(bytes) = step { bytes.len() } else { 0 });
        lengths.max().unwrap_or(0)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push((self.client, step));
        self
    }
}

/// Where a script runs.
pub struct Target<'a> {
    /// What the clients connect to.
    pub address: SocketAddr,
    pub database: &'a str,
    /// The superuser, connected to the same database on the server itself.
    pub superuser: &'a mut Wire,
}

/// One thing that happened, as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Login(Vec<Frame>),
    Frame(Frame),
    Closed,
    Quiet,
    /// What a query of the superuser's showed after the script.
    State(String),
}

/// All that happened, in the order of the script's steps; beside it the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    pub seen: Vec<(usize, Seen)>,
}

impl Transcript {
    /// The type bytes of everything client 0 received after its login; `.` is the end of the connection.
    pub fn shape(&self) -> String {
        let of_first = self.seen.iter().filter(|(client, _)| *client == 0);
        let letter = |(_, seen): &(usize, Seen)| match seen {
            Seen::Frame(frame) => Some(char::from(frame.kind)),
            Seen::Closed => Some('.'),
            Seen::Login(_) | Seen::Quiet | Seen::State(_) => None,
        };
        of_first.filter_map(letter).collect()
    }

    /// The SQLSTATEs of all errors, in order.
    pub fn errors(&self) -> Vec<String> {
        let error = |(_, seen): &(usize, Seen)| match seen {
            Seen::Frame(frame) if frame.kind == b'E' => frame.field(b'C'),
            _ => None,
        };
        self.seen.iter().filter_map(error).collect()
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (client, seen) in &self.seen {
            write!(f, "  client {client}: ")?;
            match seen {
                Seen::Frame(frame) => writeln!(f, "{frame}")?,
                Seen::Login(frames) => writeln!(f, "login, {} frames", frames.len())?,
                Seen::Closed => writeln!(f, "closed")?,
                Seen::Quiet => writeln!(f, "quiet")?,
                Seen::State(text) => writeln!(f, "state {text:?}")?,
            }
        }
        Ok(())
    }
}

/// A script under way.
struct Run<'a, 'b> {
    target: &'a mut Target<'b>,
    script: &'a Script,
    cut: Cut,
    /// `None`: came and went.
    clients: BTreeMap<usize, Option<Wire>>,
    transcript: Transcript,
}

/// Runs a script. Panics, with what was received so far, when a step does not get what it waits for in time.
pub fn run(script: &Script, cut: Cut, target: &mut Target<'_>) -> Transcript {
    let mut run = Run { target, script, cut, clients: BTreeMap::new(), transcript: Transcript::default() };
    for (number, (client, step)) in script.steps.iter().enumerate() {
        run.step(*client, step).unwrap_or_else(|reason| {
            panic!("step {number} ({}): {reason}; received so far:\n{}", describe(step), run.transcript)
        });
    }
    run.finish();
    run.transcript
}

impl Run<'_, '_> {
    fn step(&mut self, client: usize, step: &Step) -> Result<(), String> {
        match step {
            Step::Meanwhile(sql) => {
                let app = format!("datname = current_database() AND usename = '{APP}'");
                self.target.superuser.query(&sql.replace("$app", &app));
                Ok(())
            }
            Step::Abort => {
                self.clients.insert(client, None);
                Ok(())
            }
            Step::Send(bytes) => {
                let cut = self.cut;
                self.wire(client)?.send_cut(bytes, cut);
                Ok(())
            }
            Step::Quiet(time) => match self.wire(client)?.receive_within(*time) {
                Err(()) => {
                    self.note(client, Seen::Quiet);
                    Ok(())
                }
                Ok(None) => Err("the connection was closed".into()),
                Ok(Some(frame)) => Err(format!("came: {frame}")),
            },
            Step::Until(kind, n) => self.read(client, Some(*kind), *n),
            Step::UntilClosed => self.read(client, None, 0),
        }
    }

    /// Reads until the n-th frame of a kind, or the end of the connection, which is noted once and ends every wait.
    fn read(&mut self, client: usize, kind: Option<u8>, n: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut left = n;
        let was_closed = self.wire(client)?.closed;
        while left > 0 || kind.is_none() {
            let patience = deadline.saturating_duration_since(Instant::now());
            match self.wire(client)?.receive_within(patience) {
                Err(()) => return Err(format!("not within {PATIENCE:?}")),
                Ok(None) if was_closed => return Ok(()),
                Ok(None) => {
                    self.note(client, Seen::Closed);
                    return Ok(());
                }
                Ok(Some(frame)) => {
                    left = left.saturating_sub(usize::from(Some(frame.kind) == kind));
                    self.note(client, Seen::Frame(frame));
                }
            }
        }
        Ok(())
    }

    /// The client's connection, made at its first use.
    fn wire(&mut self, client: usize) -> Result<&mut Wire, String> {
        if !self.clients.contains_key(&client) {
            let mut login = Login::app().database(self.target.database);
            login.parameters.extend(self.script.startup.iter().cloned());
            let wire = Wire::connect(self.target.address, &login).map_err(|failed| failed.to_string())?;
            self.note(client, Seen::Login(wire.login().to_vec()));
            self.clients.insert(client, Some(wire));
        }
        self.clients.get_mut(&client).and_then(Option::as_mut).ok_or_else(|| format!("client {client} is gone"))
    }

    fn finish(&mut self) {
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            let Some(wire) = self.clients.get_mut(&client).and_then(Option::as_mut) else { continue };
            if !wire.closed {
                wire.send(&terminate());
                if let Err(reason) = self.read(client, None, 0) {
                    panic!("after Terminate: {reason}; received so far:\n{}", self.transcript);
                }
            }
        }
    }

    fn note(&mut self, client: usize, seen: Seen) {
        self.transcript.seen.push((client, seen));
    }
}

fn describe(step: &Step) -> String {
    let mut text = format!("{step:?}");
    if text.len() > 400 {
        let end = (0..=400).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        let _ = write!(text, " ...");
    }
    text
}
