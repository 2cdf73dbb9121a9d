//! One client after its login: its baseline, its prepared statements, its pins; and what it says while it holds no
//! server connection.
//!
//! Without a connection only Sync, Flush, Terminate and stray COPY data are answered here, as the server would;
//! everything else asks for a connection. A request that was refused is dropped to its end, so that what follows
//! it is understood.

use super::frame::{self, Head};
use super::message;
use super::server::begins;
use super::statement::Statement;
use crate::protocol::{
    ClientError, ClientSide, Detached, Intent, Login, Parameters, PinReason, Pins, Settings, Violation, Welcome,
};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Prepared statements a client may have by name; one more stays on its connection (and pins).
const STATEMENTS_MAX: usize = 10_000;
/// Length of a Sync or Flush.
const SYNC_BYTES: usize = 5;
/// Bytes of their texts that are kept.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// A client.
#[derive(Debug)]
pub struct Client {
    pub(super) id: u64,
    pub(super) statement_key: [u8; 16],
    settings: Arc<Settings>,
    /// What the client has been told of the server's parameters.
    pub(super) told: Reported,
    pub(super) pins: Pins,
    pub(super) statements: Statements,
    pub(super) unnamed: Unnamed,
    pub(super) ended: bool,
    dropping: Dropping,
}

/// What is being dropped of the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dropping {
    /// Nothing.
    Nothing,
    /// The request at the head of the input was refused. Ends with its first frame (simple query, function call),
    /// or goes on to [`Dropping::ToSync`].
    Request,
    /// The rest of a frame; then, if `ready`, the client is told that we are ready.
    Frame { left: usize, ready: bool },
    /// A refused extended request: everything up to the next Sync. The number is what is left of a frame.
    ToSync(usize),
}

/// Parameters that were reported, with a label that tells two such maps apart without comparing them.
#[derive(Debug, Clone, Default)]
pub(super) struct Reported {
    pub(super) parameters: Arc<Parameters>,
    label: u64,
}

impl Reported {
    pub(super) fn new(parameters: Arc<Parameters>) -> Self {
        let mut hasher = DefaultHasher::new();
        parameters.hash(&mut hasher);
        Self { parameters, label: hasher.finish() }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.label == other.label
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        if self.parameters.get(name).is_some_and(|known| known == value) {
            return;
        }
        let mut parameters = BTreeMap::clone(&self.parameters);
        parameters.insert(name.to_owned(), value.to_owned());
        *self = Self::new(Arc::new(parameters));
    }
}

/// A client's prepared statements by name.
#[derive(Debug, Default)]
pub(super) struct Statements {
    by_name: HashMap<Box<[u8]>, Prepared>,
    bytes: usize,
}

/// Where a named statement of a client lives.
#[derive(Debug, Clone)]
pub(super) enum Prepared {
    /// With the proxy: any connection can have it.
    Anywhere(Arc<Statement>),
    /// On the connection the client is pinned to, under the client's own name.
    OnConnection,
}

impl Statements {
    pub(super) fn find(&self, name: &[u8]) -> Option<&Prepared> {
        self.by_name.get(name)
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.by_name.len() < STATEMENTS_MAX && self.bytes.saturating_add(bytes) <= STATEMENT_BYTES_MAX
    }

    pub(super) fn insert(&mut self, name: Box<[u8]>, prepared: Prepared) {
        self.remove(&name);
        if let Prepared::Anywhere(statement) = &prepared {
            self.bytes += statement.body.len();
        }
        self.by_name.insert(name, prepared);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(Prepared::Anywhere(statement)) = self.by_name.remove(name) {
            self.bytes -= statement.body.len();
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_name.clear();
        self.bytes = 0;
    }

    /// The client's name for a statement, by its name on servers.
    pub(super) fn client_name(&self, server_name: &[u8]) -> Option<&[u8]> {
        self.by_name.iter().find_map(|(name, prepared)| match prepared {
            Prepared::Anywhere(statement) if statement.id.name() == server_name => Some(&**name),
            Prepared::Anywhere(_) | Prepared::OnConnection => None,
        })
    }
}

/// The unnamed statement: the last one the server confirmed, and the last one sent.
///
/// Two buffers that swap, so that a statement a query costs no allocation. In a pipeline with several of them only
/// the last can be given to another connection; none needs to be, because the connection is held meanwhile.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    confirmed: Slot,
    sent: Slot,
    generation: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0: empty.
    generation: u64,
    body: Vec<u8>,
    bound: Bound,
}

/// What matters of an unnamed statement when it is bound.
#[derive(Debug, Clone, Default)]
pub(super) struct Bound {
    pub(super) intent: Intent,
    pub(super) deallocates: Option<Box<[u8]>>,
}

impl Unnamed {
    /// A Parse of it is being sent; its generation. An empty `body` can't be given to another connection.
    pub(super) fn send(&mut self, body: &[u8], bound: Bound) -> u64 {
        self.generation += 1;
        self.sent.generation = self.generation;
        self.sent.body.clear();
        self.sent.body.extend_from_slice(body);
        self.sent.bound = bound;
        self.generation
    }

    /// The server has confirmed that Parse.
    pub(super) fn confirm(&mut self, generation: u64) {
        if self.sent.generation == generation {
            std::mem::swap(&mut self.confirmed, &mut self.sent);
            self.sent.generation = 0;
        } else {
            self.confirmed.generation = 0;
        }
        self.shrink();
    }

    /// The Parse was skipped or failed. One that failed has removed the one before it.
    pub(super) fn revoke(&mut self, generation: u64, failed: bool) {
        if self.sent.generation == generation {
            self.sent.generation = 0;
        }
        if failed {
            self.confirmed.generation = 0;
        }
        self.shrink();
    }

    /// A simple query or a Close has removed it.
    pub(super) fn clear(&mut self) {
        self.confirmed.generation = 0;
        self.shrink();
    }

    /// The one that a Bind sent now would mean, given that nothing in flight fails.
    pub(super) fn latest(&self) -> Option<(u64, &[u8], &Bound)> {
        let slot = if self.sent.generation != 0 { &self.sent } else { &self.confirmed };
        (slot.generation != 0).then_some((slot.generation, &slot.body, &slot.bound))
    }

    /// One huge statement must not keep its memory for ever.
    fn shrink(&mut self) {
        for slot in [&mut self.confirmed, &mut self.sent] {
            if slot.generation == 0 && slot.body.capacity() > 16 << 10 {
                slot.body = Vec::new();
            }
        }
    }
}

impl Client {
    /// A client that has just logged in.
    pub fn new(login: &Login, welcome: &Welcome) -> Self {
        Self {
            id: welcome.client_id,
            statement_key: welcome.statement_key,
            settings: Arc::clone(&login.baseline),
            told: Reported::new(Arc::clone(&welcome.parameters)),
            pins: Pins::NONE,
            statements: Statements::default(),
            unnamed: Unnamed::default(),
            ended: false,
            dropping: Dropping::Nothing,
        }
    }

    /// `DISCARD ALL` has completed.
    pub(super) fn discard_all(&mut self) {
        self.statements.clear();
        self.pins = Pins::NONE;
    }

    /// `DEALLOCATE ALL` has completed.
    pub(super) fn deallocate_all(&mut self) {
        self.statements.clear();
        let gone = Pins::of(PinReason::PreparedStatement).and(Pins::of(PinReason::LargeStatement));
        self.pins = self.pins.without(gone);
    }

    /// Drops what was refused. Returns the bytes taken; afterwards either nothing is being dropped or more is needed.
    fn drop_refused(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Violation> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            match self.dropping {
                Dropping::Nothing => return Ok(at),
                Dropping::Request => {
                    let Some(head) = frame::head(rest)? else { return Ok(at) };
                    self.dropping = match head.kind {
                        b'Q' | b'F' => Dropping::Frame { left: head.len, ready: true },
                        _ => Dropping::ToSync(0),
                    };
                }
                Dropping::Frame { left, ready } => {
                    let taken = left.min(rest.len());
                    at += taken;
                    self.dropping = Dropping::Frame { left: left - taken, ready };
                    if left > taken {
                        return Ok(at);
                    }
                    if ready {
                        message::ready_for_query(b'I', out);
                    }
                    self.dropping = Dropping::Nothing;
                }
                Dropping::ToSync(0) => {
                    let Some(head) = frame::head(rest)? else { return Ok(at) };
                    match head.kind {
                        b'S' => self.dropping = Dropping::Frame { left: head.len, ready: true },
                        b'X' => {
                            self.ended = true;
                            return Ok(at);
                        }
                        _ => self.dropping = Dropping::ToSync(head.len),
                    }
                }
                Dropping::ToSync(left) => {
                    let taken = left.min(rest.len());
                    at += taken;
                    self.dropping = Dropping::ToSync(left - taken);
                    if left > taken {
                        return Ok(at);
                    }
                }
            }
        }
    }
}

impl ClientSide for Client {
    fn detached(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Detached), Violation> {
        let mut at = 0;
        loop {
            at += self.drop_refused(input.get(at..).unwrap_or_default(), out)?;
            if self.ended {
                return Ok((at, Detached::Ended));
            }
            if self.dropping != Dropping::Nothing {
                return Ok((at, Detached::NeedInput));
            }
            let rest = input.get(at..).unwrap_or_default();
            let Some(Head { kind, len }) = frame::head(rest)? else { return Ok((at, Detached::NeedInput)) };
            self.dropping = match (kind, len) {
                (b'S', SYNC_BYTES) => Dropping::Frame { left: len, ready: true },
                (b'H', SYNC_BYTES) => Dropping::Frame { left: len, ready: false },
                // Late COPY data: the server reads over it, too.
                (b'd' | b'c' | b'f', _) => Dropping::Frame { left: len, ready: false },
                (b'X', _) => {
                    self.ended = true;
                    return Ok((at, Detached::Ended));
                }
                // A connection is asked for only once it can be given something: a client that sends a request
                // byte by byte holds nobody up but itself.
                (b'S' | b'H' | b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F', _) => {
                    let verdict = match begins(Head { kind, len }, rest) {
                        true => Detached::NeedServer(Intent::default()),
                        false => Detached::NeedInput,
                    };
                    return Ok((at, verdict));
                }
                (kind, _) => return Err(Violation::UnexpectedFrame(kind)),
            };
        }
    }

    fn refuse(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        message::client_error(error, false, out);
        self.dropping = Dropping::Request;
    }

    fn end(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        message::client_error(error, true, out);
        self.ended = true;
    }

    fn pins(&self) -> &Pins {
        &self.pins
    }

    fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    fn has_ended(&self) -> bool {
        self.ended
    }
}
