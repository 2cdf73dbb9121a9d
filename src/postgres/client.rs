//! One client after its login: its baseline, its prepared statements, its pins; and what it says while it holds no
//! server connection.
//!
//! Without a connection only Sync, Flush, Terminate and stray COPY data are answered here, as the server would;
//! everything else asks for a connection. A request that was refused is dropped to its end, so that what follows
//! it is understood.

use super::aborted::{Aborted, Next};
use super::frame::{self, Head};
use super::message;
use super::server::begins;
use super::statement::{Calls, Id, Statement, Template, statement_label};
use crate::protocol::{
    Clears, ClientError, ClientSide, Detached, Gate, Intent, Login, Parameters, PinCause, PinReason, PinRules, Pins,
    Settings, Violation, Welcome, has_room_for,
};
use crate::sql::settings::Changes;
use crate::sql::{self, Dialect};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Families of statements that are remembered as stale; of one more only the connection forgets.
const STALE_MAX: usize = 1_000;
/// Length of a Sync or Flush.
const SYNC_BYTES: usize = 5;
/// Longer queries are not looked into here.
const CLEARING_BYTES_MAX: usize = 64;

/// Unnamed statements that may be in flight.
const UNNAMED_MAX: usize = 1_000;
/// Bytes of their texts; one more is sent as long as there are fewer.
const UNNAMED_BYTES_MAX: usize = 256 << 10;
/// A larger buffer is not kept for the next one.
const SPARE_BYTES_MAX: usize = 16 << 10;

/// A client.
#[derive(Debug)]
pub struct Client {
    pub(super) id: u64,
    pub(super) statement_key: [u8; 16],
    /// What it began with: where `RESET` goes back to.
    baseline: Arc<Settings>,
    settings: Arc<Settings>,
    /// Of those settings that decide what a statement means.
    statement_label: u64,
    /// What the client has been told of the server's parameters.
    pub(super) told: Reported,
    /// All of them, those too that it does not keep its connection for.
    pub(super) pins: Pins,
    pub(super) gate: Gate,
    /// It, or another client of its application, asks for last values of sequences.
    pub(super) asks_last_values: bool,
    /// It has drawn from a sequence.
    pub(super) has_drawn: bool,
    /// How often it has discarded what it had drawn, on whatever connections that is.
    pub(super) discards: u64,
    pub(super) statements: Statements,
    pub(super) unnamed: Unnamed,
    /// Families of statements whose result changed under this client: it does not share them again.
    stale: HashSet<Id>,
    /// Statements made that no other client shares.
    own_statements: u64,
    pub(super) ended: bool,
    dropping: Dropping,
    aborted: Aborted,
    cancel_secret: Box<[u8]>,
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

    /// There may be so many more, with so many bytes.
    pub(super) fn has_room(&self, statements: usize, bytes: usize) -> bool {
        has_room_for(self.by_name.len().saturating_add(statements), self.bytes.saturating_add(bytes))
    }

    pub(super) fn insert(&mut self, name: Box<[u8]>, prepared: Prepared) {
        self.remove(&name);
        if let Prepared::Anywhere(statement) = &prepared {
            self.bytes += statement.bytes();
        }
        self.by_name.insert(name, prepared);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(Prepared::Anywhere(statement)) = self.by_name.remove(name) {
            self.bytes -= statement.bytes();
        }
    }

    /// What was the statement of this identity is this one.
    pub(super) fn replace(&mut self, id: Id, by: &Arc<Statement>) {
        for prepared in self.by_name.values_mut() {
            if matches!(prepared, Prepared::Anywhere(old) if old.id == id) {
                *prepared = Prepared::Anywhere(Arc::clone(by));
            }
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

/// The unnamed statement: the last one the server confirmed, and those that were sent since. What is sent may still be
/// skipped, and then the one before it goes on, so all of them are kept.
///
/// Buffers go round, so that a statement a query costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    confirmed: Slot,
    /// In flight, in their order.
    sent: VecDeque<Slot>,
    /// Bytes of their texts.
    sent_bytes: usize,
    spare: Vec<u8>,
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
    /// How the server read its text when it was classified.
    pub(super) dialect: Dialect,
    pub(super) changes: Option<Arc<Changes>>,
    pub(super) calls: Calls,
    /// Its body is what became of this.
    pub(super) template: Option<Arc<Template>>,
}

impl Unnamed {
    /// A Parse of it is being sent; its generation. An empty `body` can't be given to another connection.
    pub(super) fn send(&mut self, body: &[u8], bound: Bound) -> u64 {
        self.generation += 1;
        let mut slot = Slot { generation: self.generation, body: std::mem::take(&mut self.spare), bound };
        slot.body.clear();
        slot.body.extend_from_slice(body);
        self.sent_bytes += body.len();
        self.sent.push_back(slot);
        self.generation
    }

    /// As much is in flight as may be: the next Parse waits for the replies.
    pub(super) fn is_full(&self) -> bool {
        self.sent.len() >= UNNAMED_MAX || self.sent_bytes >= UNNAMED_BYTES_MAX
    }

    /// The server has confirmed that Parse.
    pub(super) fn confirm(&mut self, generation: u64) {
        if let Some(slot) = self.answered(generation) {
            let old = std::mem::replace(&mut self.confirmed, slot);
            self.spare(old);
        }
    }

    /// The Parse was skipped or failed. One that failed has removed the one before it.
    pub(super) fn revoke(&mut self, generation: u64, failed: bool) {
        if let Some(slot) = self.answered(generation) {
            self.spare(slot);
        }
        if failed {
            self.clear();
        }
    }

    /// A simple query or a Close has removed it.
    pub(super) fn clear(&mut self) {
        let old = std::mem::take(&mut self.confirmed);
        self.spare(old);
    }

    /// The one that a Bind sent now would mean, given that nothing in flight fails.
    pub(super) fn latest(&self) -> Option<(u64, &[u8], &Bound)> {
        let slot = self.sent.back().unwrap_or(&self.confirmed);
        (slot.generation != 0).then_some((slot.generation, &slot.body, &slot.bound))
    }

    /// The latest has been sent anew as this.
    pub(super) fn resend(&mut self, body: &[u8]) {
        let is_sent = !self.sent.is_empty();
        let slot = self.sent.back_mut().unwrap_or(&mut self.confirmed);
        if is_sent {
            self.sent_bytes = self.sent_bytes - slot.body.len() + body.len();
        }
        slot.body.clear();
        slot.body.extend_from_slice(body);
    }

    /// Replies come in the order of the requests; those that never came were lost with their connection.
    fn answered(&mut self, generation: u64) -> Option<Slot> {
        while self.sent.front().is_some_and(|slot| slot.generation <= generation) {
            let slot = self.sent.pop_front()?;
            self.sent_bytes -= slot.body.len();
            if slot.generation == generation {
                return Some(slot);
            }
            self.spare(slot);
        }
        None
    }

    /// Its buffer is kept for the next; one huge statement must not keep its memory for ever.
    fn spare(&mut self, slot: Slot) {
        if slot.body.capacity() <= SPARE_BYTES_MAX && slot.body.capacity() > self.spare.capacity() {
            self.spare = slot.body;
        }
    }
}

impl Client {
    /// A client that has just logged in, and was told so much of its cancel key's secret.
    pub fn new(login: &Login, welcome: &Welcome, cancel_secret: &[u8]) -> Self {
        let baseline = as_reported(&login.baseline, &welcome.parameters);
        Self {
            id: welcome.client_id,
            statement_key: welcome.statement_key,
            settings: Arc::clone(&baseline),
            statement_label: statement_label(&baseline),
            baseline,
            told: Reported::new(Arc::clone(&welcome.parameters)),
            pins: Pins::NONE,
            gate: Gate::default(),
            asks_last_values: false,
            has_drawn: false,
            discards: 0,
            statements: Statements::default(),
            unnamed: Unnamed::default(),
            stale: HashSet::new(),
            own_statements: 0,
            ended: false,
            dropping: Dropping::Nothing,
            aborted: Aborted::default(),
            cancel_secret: cancel_secret.into(),
        }
    }

    /// Identity of a statement that this client parses: one that is shared with other clients, or its own if
    /// `settings_open` (settings may differ for the rest of the transaction), or its settings differ, or the shared one
    /// has failed it.
    pub(super) fn identify(&mut self, body: &[u8], settings_open: bool) -> (Id, Id) {
        let family = Id::of(&self.statement_key, body, self.statement_label);
        let differs = [PinReason::Setting, PinReason::OpaqueCode, PinReason::Unreadable, PinReason::TemporaryObject];
        if !settings_open && !differs.iter().any(|pin| self.pins.contains(*pin)) && !self.stale.contains(&family) {
            return (family, family);
        }
        (self.own_id(family), family)
    }

    /// The server has said of this statement that its result has changed. Other connections may have it as well: under
    /// the client's names is a fresh one from here on, which none of them has.
    pub(super) fn distrust(&mut self, old: &Statement) {
        if self.stale.len() < STALE_MAX {
            self.stale.insert(old.family);
        }
        let id = self.own_id(old.family);
        self.statements.replace(old.id, &Arc::new(Statement { id, ..old.clone() }));
    }

    /// A label of its settings; see [`statement_label`].
    pub(super) fn label(&self) -> u64 {
        self.statement_label
    }

    /// Identity of an equal statement that no other client has, nor this one under another name.
    fn own_id(&mut self, family: Id) -> Id {
        self.own_statements += 1;
        Id::own(&self.statement_key, family, self.id, self.own_statements)
    }

    /// What it began with.
    pub(super) fn baseline(&self) -> &Arc<Settings> {
        &self.baseline
    }

    /// It has these settings now.
    pub(super) fn has_set(&mut self, settings: Arc<Settings>) {
        self.statement_label = statement_label(&settings);
        self.settings = settings;
    }

    /// Whatever it creates may be temporary, without a word of that in its texts.
    pub(super) fn creates_temporary(&self) -> bool {
        self.settings.value("search_path").is_some_and(|path| path.to_ascii_lowercase().contains("pg_temp"))
    }

    /// `DISCARD ALL` has completed.
    pub(super) fn discard_all(&mut self) {
        self.statements.clear();
        self.pins = self.pins.behind_discard_all();
        self.has_set(Arc::clone(&self.baseline));
    }

    /// `DEALLOCATE ALL` has completed.
    pub(super) fn deallocate_all(&mut self) {
        self.statements.clear();
        let gone = Pins::of(PinReason::PreparedStatement).and(Pins::of(PinReason::LargeStatement));
        self.pins = self.pins.without(gone);
    }

    /// The query does nothing but to clear what lives with the proxy, and there is nothing else for it to clear: it is done, and
    /// says so.
    fn clears_alone(&mut self, frame: &[u8], out: &mut Vec<u8>) -> bool {
        let text = frame.get(frame::HEAD_BYTES..).and_then(frame::cstr).map_or(&b""[..], |(text, _)| text);
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_uppercase);
        if !matches!(first, Some(b'D' | b'R')) || !text.is_ascii() || !self.pins.is_empty() {
            return false;
        }
        let statement = sql::classify(text, Dialect::default());
        if statement.statements != 1 {
            return false;
        }
        let is_at_start = self.settings == self.baseline;
        let tag = match statement.intent.clears {
            Clears::Statements => {
                self.deallocate_all();
                "DEALLOCATE ALL"
            }
            Clears::Everything if is_at_start => {
                self.discard_all();
                (self.has_drawn, self.discards) = (false, self.discards + 1);
                "DISCARD ALL"
            }
            Clears::Nothing if is_at_start && sql::settings::changes(text, Dialect::default()).is_reset_all() => {
                "RESET"
            }
            Clears::Everything | Clears::Nothing => return false,
        };
        self.unnamed.clear();
        message::command_complete(tag, out);
        true
    }

    /// Drops what was refused. Returns the bytes taken; afterwards either nothing is being dropped or more is needed.
    fn drop_refused(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Violation> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            match self.dropping {
                Dropping::Nothing => return Ok(at),
                Dropping::Request => {
                    let Some(head) = frame::client_head(rest)? else { return Ok(at) };
                    if head.kind == b'Q' {
                        self.aborted
                            .refuse_query(rest.get(frame::HEAD_BYTES..head.len.min(rest.len())).unwrap_or_default());
                    }
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
                        let is_more_there = input.len() > at;
                        message::ready_for_query(self.aborted.status(is_more_there), out);
                    }
                    self.dropping = Dropping::Nothing;
                }
                Dropping::ToSync(0) => {
                    let Some(head) = frame::client_head(rest)? else { return Ok(at) };
                    match head.kind {
                        b'S' => self.dropping = Dropping::Frame { left: head.len, ready: true },
                        b'X' => {
                            self.ended = true;
                            return Ok(at);
                        }
                        b'P' | b'B' if self.aborted.wants(head.len, rest) => return Ok(at),
                        b'P' | b'B' => {
                            let body = rest.get(frame::HEAD_BYTES..head.len.min(rest.len())).unwrap_or_default();
                            self.aborted.refuse_extended(head.kind, body, &self.statements, &self.unnamed);
                            self.dropping = Dropping::ToSync(head.len);
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

/// The settings with their values as the server reports them: however clients spell them, they have the same then.
fn as_reported(settings: &Arc<Settings>, parameters: &Parameters) -> Arc<Settings> {
    let reported = |name: &str| parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let differing: Vec<(String, String)> = settings
        .iter()
        .filter_map(|(name, own)| Some((name, own, reported(name)?.1)))
        .filter(|(_, own, value)| own != value)
        .map(|(name, _, value)| (name.to_owned(), value.clone()))
        .collect();
    if differing.is_empty() {
        Arc::clone(settings)
    } else {
        Arc::new(settings.edited(|values| values.extend(differing)))
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
            let Some(Head { kind, len }) = frame::client_head(rest)? else { return Ok((at, Detached::NeedInput)) };
            self.dropping = match (kind, len) {
                (b'S', SYNC_BYTES) => Dropping::Frame { left: len, ready: true },
                (b'H', SYNC_BYTES) => Dropping::Frame { left: len, ready: false },
                (b'H', _) => return Err(Violation::MalformedFrame(kind)),
                // Late COPY data: the server reads over it, too.
                (b'd' | b'c' | b'f', _) => Dropping::Frame { left: len, ready: false },
                (b'X', _) => {
                    self.ended = true;
                    return Ok((at, Detached::Ended));
                }
                (b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F', _) if self.aborted.is_open() => {
                    if matches!(kind, b'Q' | b'P' | b'B') && self.aborted.wants(len, rest) {
                        return Ok((at, Detached::NeedInput));
                    }
                    let body = rest.get(frame::HEAD_BYTES..len.min(rest.len())).unwrap_or_default();
                    match self.aborted.next(kind, body, &self.statements, &self.unnamed) {
                        Next::Ends => {
                            message::command_complete("ROLLBACK", out);
                            Dropping::Frame { left: len, ready: true }
                        }
                        // It goes on behind the end, or says it in the extended protocol: a server has a word for it.
                        Next::GoesOn => Dropping::Nothing,
                        Next::Fails => {
                            message::client_error(&ClientError::TransactionRefused, false, out);
                            if matches!(kind, b'Q' | b'F') {
                                Dropping::Frame { left: len, ready: true }
                            } else {
                                Dropping::ToSync(0)
                            }
                        }
                    }
                }
                (b'Q', ..=CLEARING_BYTES_MAX) if rest.get(..len).is_some_and(|frame| self.clears_alone(frame, out)) => {
                    Dropping::Frame { left: len, ready: true }
                }
                // A connection is asked for only once it can be given something: a client that sends a request
                // byte by byte holds nobody up but itself.
                (b'S' | b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F', _) => {
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

    fn set_pin_rules(&mut self, rules: PinRules) {
        self.gate = Gate::new(rules);
    }

    fn pins(&self) -> Pins {
        self.pins.without(self.gate.allowed())
    }

    fn leaves(&self) -> Pins {
        self.pins.common(self.gate.allowed())
    }

    fn settle_pins(&mut self) {
        self.gate.settle(self.pins());
    }

    fn let_go(&mut self) {
        self.pins = Pins::NONE;
        self.gate.settle(Pins::NONE);
    }

    fn pin_cause(&self, reason: PinReason) -> Option<PinCause> {
        // What code has left is found by asking: it came with the code.
        self.gate.cause(reason).or_else(|| self.gate.cause(PinReason::OpaqueCode))
    }

    fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn application(&self) -> &str {
        self.settings.value("application_name").unwrap_or_default()
    }

    fn asks_last_values(&self) -> bool {
        self.asks_last_values
    }

    fn expect_to_ask(&mut self) {
        self.asks_last_values = true;
    }

    fn let_go_of_last_values(&mut self) {
        self.pins = self.pins.without(Pins::of(PinReason::Sequence));
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn cancel_secret(&self) -> &[u8] {
        &self.cancel_secret
    }
}

#[cfg(test)]
mod tests;
