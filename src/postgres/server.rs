//! One connection to a database after its login, and the translation between a client's requests and it.
//!
//! ```text
//!            client's bytes                                server's bytes
//!                  |                                             ^
//!   send.rs        v            pushes                pops       |        receive.rs
//!   names rewritten, ----------------> queue of replies --------- effects applied,
//!   missing statements prepared        owed (owed.rs)             hidden replies dropped
//! ```
//!
//! A connection may change hands when nothing is owed, no frame is half through, every request has had its Sync, and
//! the server's own word (ReadyForQuery) is that no transaction is open. See the manual's chapter "Frontend/Backend
//! Protocol", sections "Message Flow" and "Extended Query". What the proxy asks for itself is in replay.rs, what it believes of
//! the state that a client leaves in state.rs.

mod functions;
mod long;
mod names;
mod owed;
mod prepared;
mod receive;
mod refuse;
mod replay;
mod send;
mod state;
#[cfg(test)]
pub(super) mod tests;
mod uses;
mod words;
mod write;

pub(super) use send::begins;

use super::cancel::Cancel;
use super::client::{Client, Reported};
use super::connect::Connected;
use super::message;
use super::statement::{Form, Id};
use crate::protocol::{
    AttachFailure, CancelKey, ClientError, ClientSide, Out, Parameters, ServerSide, Settings, Sides, Status, Tally,
    Violation,
};
use crate::sql::Dialect;
use crate::sql::settings::Changes;
use functions::Functions;
use long::LongQuery;
use names::Names;
use owed::{Effect, Kind, Owed, Queue};
use state::State;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Gives up the transaction, its locks and its savepoints, and leaves a failed one in its place. The error stands in the
/// database's log, so it says whose it is.
const FAIL_TRANSACTION: &[u8] = b"ROLLBACK; BEGIN; ROLLBACK TO SAVEPOINT \"transaction_max of the proxy is over\"";

/// A connection to a database.
#[derive(Debug)]
pub struct Server {
    /// What the server has reported of itself.
    reported: Reported,
    dialect: Dialect,
    /// Settings the proxy has put on the connection.
    applied: Arc<Settings>,
    transaction: Transaction,
    owed: Queue,
    /// What may be sent now.
    hold: Hold,
    /// Statements the server has.
    prepared: HashMap<Id, Held>,
    prepared_max: usize,
    binds: u64,
    /// As many there were when the request began that is being sent: what it uses stays.
    spared_from: u64,
    /// Whose unnamed statement the server has, as far as is known: client and generation.
    unnamed: Option<(u64, u64)>,
    /// The client that holds, or last held, the connection.
    client: Option<u64>,
    /// How often that one had discarded what it had drawn: what it drew before is as strange to it as another's.
    client_discards: u64,
    /// Another client than the present one may have drawn from a sequence here.
    foreign_sequences: bool,
    /// The present client may have.
    own_sequences: bool,
    /// What it had drawn was another's when it asked.
    sequences_lost: bool,
    /// What may change settings has been sent, and what was sent since has not been answered to the end of its
    /// transaction: settings may not be what they are outside, nor what was reported.
    settings_open: bool,
    /// The same of the settings that decide how texts are read.
    dialect_open: bool,
    /// How often that has ended.
    settings_closed: u64,
    /// The connection does not have the present client's settings, or what `init` did, since something has put them back to
    /// the server's own; they come back before the client's next segment.
    settings_lost: bool,
    /// What is suspected of the present client.
    state: State,
    functions: Functions,
    /// `session_authorization` as it was at the login.
    login_authorization: Option<String>,
    /// What every client is to find done.
    init: Option<Arc<str>>,
    /// It has to be done again.
    init_lost: bool,
    /// Syncs sent.
    segment: u32,
    /// Extended requests were sent without a Sync behind them.
    unsynced: bool,
    /// A Flush stands behind the last request.
    flushed: bool,
    /// The server skips everything up to the next Sync, and none has been sent.
    skipping: bool,
    /// The server reads COPY data, and the client has not ended them yet.
    copy_in: bool,
    /// What the Executes of portals will do, of those that do more than run.
    bound: Vec<BoundPortal>,
    /// Rest of a client's frame that is on its way.
    sending: Body,
    /// It is a query, which is read as it passes.
    long: Option<Box<LongQuery>>,
    /// Rest of a server's frame that is on its way.
    receiving: Body,
    /// The server has said that it ends the connection.
    ended: bool,
    attach_failure: Option<AttachFailure>,
    cancel_key: Option<CancelKey>,
    /// What the client is told instead of the next error that says it was cancelled, or is in a failed transaction.
    explanation: Option<ClientError>,
    /// The error of a statement that could not be sent ahead of a query: what the query fails with is this.
    failed_ahead: Option<Vec<u8>>,
    tally: Tally,
    /// Requests that were refused here and that their client has been told of; not more than are owed.
    refused: VecDeque<ClientError>,
}

/// What the Execute of a portal will do, beside to run it.
#[derive(Debug)]
struct BoundPortal {
    portal: Box<[u8]>,
    /// What its text says of prepared statements.
    names: Option<Box<Names>>,
    /// What it does to settings.
    changes: Option<Arc<Changes>>,
    /// It clears the connection.
    clears: bool,
}

/// A prepared statement that the server has.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// In binds, not in time.
    last_used: u64,
    /// How the server read its text.
    dialect: Dialect,
    usable: Usable,
    form: Form,
}

/// How long a statement that the server has is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usable {
    /// As long as it is there.
    Always,
    /// Parsed under settings that may differ: until these end (`Server::settings_closed`).
    While(u64),
    /// Its result has changed. It is parsed anew.
    Never,
}

/// As ReadyForQuery says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    /// `I`
    None,
    /// `T`
    Open,
    /// `E`
    Failed,
}

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Anything.
    Open,
    /// Nothing until everything owed has come: what was sent may change what later frames mean.
    UntilAnswered,
}

/// The rest of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Body {
    left: usize,
    /// It is passed on, or dropped.
    passes: bool,
}

impl Body {
    const NONE: Self = Self { left: 0, passes: false };

    /// Takes what there is of the frame at `at`. Returns the bytes taken.
    fn advance(&mut self, input: &[u8], at: usize, out: &mut Out) -> usize {
        let taken = self.left.min(input.len().saturating_sub(at));
        if self.passes {
            out.pass(at..at + taken);
        }
        self.left -= taken;
        taken
    }
}

impl Server {
    /// A connection that has just logged in.
    pub fn new(connected: Connected) -> Self {
        let Connected { process_id, secret, .. } = connected;
        let cancel_key = (!secret.is_empty()).then(|| CancelKey { process_id, secret: secret.into() });
        let mut server = Self {
            dialect: Dialect::default(),
            applied: Arc::default(),
            transaction: Transaction::None,
            owed: Queue::default(),
            hold: Hold::Open,
            prepared: HashMap::new(),
            prepared_max: connected.max_prepared_statements.max(1),
            binds: 0,
            unnamed: None,
            client: None,
            client_discards: 0,
            foreign_sequences: false,
            own_sequences: false,
            sequences_lost: false,
            settings_open: false,
            dialect_open: false,
            settings_closed: 0,
            settings_lost: false,
            state: State::default(),
            functions: Functions::default(),
            spared_from: 0,
            login_authorization: connected.parameters.get("session_authorization").cloned(),
            init: None,
            init_lost: false,
            segment: 0,
            unsynced: false,
            flushed: false,
            skipping: false,
            copy_in: false,
            bound: Vec::new(),
            sending: Body::NONE,
            long: None,
            receiving: Body::NONE,
            ended: false,
            attach_failure: None,
            cancel_key,
            explanation: None,
            failed_ahead: None,
            tally: Tally::default(),
            refused: VecDeque::new(),
            reported: Reported::new(Arc::new(connected.parameters)),
        };
        server.read_dialect();
        server
    }

    /// What the lexer must know, from what the server reports.
    fn read_dialect(&mut self) {
        let is = |name: &str, values: &[&str]| {
            self.reported.parameters.get(name).is_some_and(|value| values.iter().any(|v| value.eq_ignore_ascii_case(v)))
        };
        self.dialect = Dialect {
            backslash_quotes: is("standard_conforming_strings", &["off"]),
            multibyte_unsafe: is(
                "client_encoding",
                &["SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004"],
            ),
            unsure: false,
        };
    }

    /// How the server will read what is sent now. What was changed before the last ReadyForQuery has been reported.
    fn reads_in(&self) -> Dialect {
        Dialect { unsure: self.dialect_open && (self.unsynced || !self.owed.is_empty()), ..self.dialect }
    }

    fn owe(&mut self, kind: Kind, effect: Effect) {
        self.flushed = false;
        self.owed.push(Owed { kind, hidden: false, segment: self.segment, effect });
    }

    fn owe_hidden(&mut self, kind: Kind, effect: Effect) {
        self.flushed = false;
        self.owed.push(Owed { kind, hidden: true, segment: self.segment, effect });
    }

    /// Tells the client where its server's parameters differ from what it has been told.
    fn tell_differences(&self, client: &mut Client, out: &mut Vec<u8>) {
        if client.told.is_same(&self.reported) {
            return;
        }
        for (name, value) in &*self.reported.parameters {
            if client.told.parameters.get(name) != Some(value) {
                message::parameter_status(name, value, out);
            }
        }
        client.told = self.reported.clone();
    }
}

impl ServerSide for Server {
    type Client = Client;
    type Cancel = Cancel;

    fn attach(&mut self, client: &mut Client, sides: Sides<'_>) {
        if self.client != Some(client.id) || self.client_discards != client.discards {
            self.client_discards = client.discards;
            self.foreign_sequences |= self.client.is_some();
            self.own_sequences = false;
            self.client = Some(client.id);
        }
        // No portal outlives the hand-over.
        self.bound.clear();
        self.forget_state();
        self.pin_for_path(client);
        self.prepare(client.settings(), sides.server);
        // After a replay the client is told once that has succeeded.
        if self.owed.is_empty() {
            self.tell_differences(client, sides.client);
        }
    }

    fn prepare(&mut self, settings: &Arc<Settings>, out: &mut Vec<u8>) {
        self.attach_failure = None;
        self.replay(settings, out);
    }

    fn send(&mut self, input: &[u8], client: &mut Client, out: &mut Out) -> Result<usize, Violation> {
        self.send_frames(input, client, out)
    }

    fn receive(&mut self, input: &[u8], client: Option<&mut Client>, out: &mut Out) -> Result<usize, Violation> {
        self.receive_frames(input, client, out)
    }

    fn status(&self) -> Status {
        if self.ended {
            Status::Ended
        } else if !self.owed.is_empty() || self.receiving.left > 0 {
            Status::Owing
        } else if self.transaction != Transaction::None || self.unsynced || self.sending.left > 0 || self.copy_in {
            Status::InTransaction
        } else {
            Status::Idle
        }
    }

    fn initialize(&mut self, query: &Arc<str>, out: &mut Vec<u8>) {
        self.init = Some(Arc::clone(query));
        self.send_init(out);
    }

    fn verify(&mut self, client: &Client, out: &mut Vec<u8>) -> bool {
        self.ask_state(client, out)
    }

    fn reset(&mut self, out: &mut Vec<u8>) {
        message::query(b"DISCARD ALL", out);
        self.owe_hidden(Kind::Query, Effect::Nothing);
        self.hold = Hold::UntilAnswered;
        self.send_init(out);
    }

    fn parameters(&self) -> Arc<Parameters> {
        Arc::clone(&self.reported.parameters)
    }

    fn settings(&self) -> &Arc<Settings> {
        &self.applied
    }

    fn wanted_by(&self) -> Option<u64> {
        self.client.filter(|_| self.own_sequences)
    }

    fn attach_failure(&mut self) -> Option<AttachFailure> {
        self.attach_failure.take()
    }

    fn is_in_transaction(&self) -> bool {
        self.transaction != Transaction::None || self.status() == Status::InTransaction
    }

    fn is_holding(&self) -> bool {
        self.hold != Hold::Open || self.owed.is_full()
    }

    fn has_sent_nothing(&self) -> bool {
        self.owed.is_hidden()
            && !self.unsynced
            && self.sending.left == 0
            && !self.copy_in
            && self.transaction == Transaction::None
    }

    fn is_midway(&self) -> bool {
        self.receiving.left > 0 && self.receiving.passes
    }

    fn needs_client(&self) -> bool {
        self.unsynced || self.copy_in || self.sending.left > 0
    }

    fn awaits_client(&self) -> bool {
        self.sending.left > 0 || self.copy_in || (self.unsynced && !self.flushed)
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if self.needs_client() && !self.flushed && self.sending.left == 0 {
            self.flushed = true;
            message::flush(out);
        }
    }

    fn cancel(&self, tls: bool) -> Option<Cancel> {
        self.cancel_key.clone().map(|key| Cancel::new(key, tls))
    }

    fn explain_cancel(&mut self, why: ClientError) {
        self.explanation = Some(why);
    }

    fn fail_transaction(&mut self, why: ClientError, out: &mut Vec<u8>) -> bool {
        if self.transaction != Transaction::Open || !self.owed.is_empty() || self.needs_client() {
            return false;
        }
        message::query(FAIL_TRANSACTION, out);
        self.owe_hidden(Kind::Query, Effect::Fail);
        self.hold = Hold::UntilAnswered;
        self.unnamed = None;
        self.explanation = Some(why);
        true
    }

    fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn refused(&mut self) -> Option<ClientError> {
        self.refused.pop_front()
    }

    fn terminate(&self, out: &mut Vec<u8>) {
        if self.sending.left == 0 {
            message::terminate(out);
        }
    }
}
