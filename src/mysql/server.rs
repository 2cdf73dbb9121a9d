//! One server connection after its login: what is sent on it, what is owed in return, and what is left on it.
//!
//! Its heart is the queue of replies owed (`owed.rs`): each command's reply has a form of its own, and what it changes is counted
//! once it has come. State that can't be given to another connection keeps its client here (a pin); when the client leaves, the
//! connection is reset. Triggers, and functions that statements call without naming them, are not seen: see [`crate::sql`]. Routines that
//! they name are read (`routines.rs`).

mod execute;
mod hidden;
mod long;
mod lost;
mod outcome;
mod owed;
mod plan;
mod prepared;
mod question;
mod receive;
mod routines;
pub(super) mod send;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use super::attributes;
use super::cancel::Cancel;
use super::capabilities::{Capabilities, Extended, is_mariadb};
use super::client::Client;
use super::connect::{COLLATION, Connected};
use super::failed::Failed;
use super::frame::{Head, packet};
use super::message::{command, status};
use crate::protocol::{
    AttachFailure, ClientError, ClientSide, ConnectOptions, Loss, Out, Parameters, ServerError, ServerSide, Settings,
    Sides, Status, Tally, Violation,
};
use crate::sql::mysql::settings::NAMES;
use hidden::Hidden;
use long::LongText;
use owed::{Effect, Kind, Owed};
use prepared::Prepared;
use routines::Routines;
use std::collections::VecDeque;
use std::sync::Arc;

/// Commands whose replies may be owed; no more are taken from the client until some have come.
const OWED_MAX: usize = 1_000;

/// A server connection.
#[derive(Debug)]
pub struct Server {
    /// The login, for who has to come again.
    options: ConnectOptions,
    connection_id: u32,
    is_mariadb: bool,
    /// It expects query attributes ahead of every text. So only clients that send them get the connection: it is in the pool's key.
    has_attributes: bool,
    /// It tells how far long statements have come, for such clients as want to know that.
    tells_progress: bool,
    /// It executes a statement with many sets of parameters.
    takes_bulks: bool,
    /// As the server said it last.
    status: u16,
    /// An error has come since, and with it nobody said whether a transaction is open.
    in_doubt: bool,
    /// What that statement may have changed of the session is seen to.
    saw_changes: bool,
    /// A statement that failed may have left something that nobody was told of: MariaDB says nothing of what a trigger has set by then.
    is_soiled: bool,
    /// What the proxy has set.
    applied: Arc<Settings>,
    /// Something has undone it.
    settings_lost: bool,
    /// The server tells of each statement whether it has changed something of the session.
    tells_state: bool,
    owed: VecDeque<Owed>,
    /// Nothing is taken until everything owed has come.
    holding: bool,
    /// The rest of a packet of the client's.
    sending: Rest,
    /// Behind that, which is dropped, a ping goes to the server, and this comes of its answer.
    instead: Option<Effect>,
    /// The reply that is owed last is its.
    is_sending_owed: bool,
    /// It is a text's.
    long: Option<Box<LongText>>,
    /// The rest of a packet of the server's.
    receiving: Rest,
    /// The client sends a file, up to an empty packet.
    file: File,
    /// Who had it last.
    client: Option<u64>,
    /// Last values (`LAST_INSERT_ID()`) on it may be another client's.
    foreign_values: bool,
    /// They may be this client's, which may want it back.
    own_values: bool,
    /// What `LAST_INSERT_ID()` is on it, if that is known.
    insert_id: Option<u64>,
    hidden: Hidden,
    prepared: Prepared,
    /// What clients' texts may call.
    routines: Routines,
    /// It may have another database than at its login, which no reset undoes.
    has_moved: bool,
    /// That is only because settings have not been read yet.
    has_moved_unread: bool,
    /// All statements of its client are here, made before that.
    is_anchored: bool,
    init: Option<Arc<str>>,
    ended: bool,
    /// It has ended the connection in the middle of something, and the client has not been told.
    lost: bool,
    attach_failure: Option<AttachFailure>,
    explanation: Option<ClientError>,
    /// The transaction is rolled back as soon as it is known that it is open. Its client has been told.
    must_roll_back: bool,
    /// The transaction may be one of XA, which may outlive the connection.
    is_xa: bool,
    tally: Tally,
    refused: VecDeque<ClientError>,
}

/// `LOAD DATA LOCAL`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    None,
    Passes,
    /// The server has had enough of it.
    Drops,
}

/// What is left of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    /// Of its piece.
    left: usize,
    /// Another piece follows.
    follows: bool,
    /// It is passed on, or dropped.
    passes: bool,
    /// The number of its piece.
    sequence: u8,
}

impl Rest {
    const NONE: Self = Self { left: 0, follows: false, passes: false, sequence: 0 };

    /// Of the packet, or piece, that begins so.
    const fn of(head: Head, passes: bool) -> Self {
        Self { left: head.len, follows: !head.is_last(), passes, sequence: head.sequence }
    }

    const fn is_none(self) -> bool {
        self.left == 0 && !self.follows
    }
}

impl Server {
    /// A connection that has just logged in.
    pub fn new(connected: Connected) -> Self {
        let Connected { version, connection_id, status, capabilities, extended, options } = connected;
        let prepared = Prepared::new(options.max_prepared_statements);
        Self {
            options,
            connection_id,
            is_mariadb: is_mariadb(&version),
            has_attributes: capabilities.contains(Capabilities::CLIENT_QUERY_ATTRIBUTES),
            tells_progress: extended.contains(Extended::MARIADB_CLIENT_PROGRESS),
            takes_bulks: extended.contains(Extended::MARIADB_CLIENT_STMT_BULK_OPERATIONS),
            status,
            in_doubt: false,
            saw_changes: true,
            is_soiled: false,
            applied: Arc::new(Settings::new([(NAMES, COLLATION.to_string())])),
            settings_lost: false,
            tells_state: false,
            owed: VecDeque::new(),
            holding: false,
            sending: Rest::NONE,
            instead: None,
            is_sending_owed: false,
            long: None,
            receiving: Rest::NONE,
            file: File::None,
            client: None,
            // MariaDB shows to new sessions what old ones have found.
            foreign_values: is_mariadb(&version),
            own_values: false,
            insert_id: Some(0),
            hidden: Hidden::default(),
            prepared,
            routines: Routines::default(),
            has_moved: false,
            has_moved_unread: false,
            is_anchored: false,
            init: None,
            ended: false,
            lost: false,
            attach_failure: None,
            explanation: None,
            must_roll_back: false,
            is_xa: false,
            tally: Tally::default(),
            refused: VecDeque::new(),
        }
    }

    fn in_transaction(&self) -> bool {
        self.status & status::IN_TRANSACTION != 0 || self.in_doubt
    }

    /// Rolls the transaction back, of which the client knows this then. False: something is under way, or nothing is open.
    fn roll_back(&mut self, failed: Failed, out: &mut Vec<u8>) -> bool {
        if self.is_owing() || self.needs_client() || !self.in_transaction() {
            return false;
        }
        self.must_roll_back = false;
        self.query(b"ROLLBACK", Effect::Fails(failed), out);
        true
    }

    fn owe(&mut self, kind: Kind, hidden: bool, effect: Effect) {
        // What MySQL tells of the statement that failed comes with this one's answer, where it looks like its own.
        self.is_soiled |= self.in_doubt && !self.saw_changes && effect.is_seen();
        if effect.hides() {
            self.hidden.runs();
        }
        self.owed.push_back(Owed::new(kind, hidden, effect));
    }

    /// Sends a text of the proxy's own.
    fn query(&mut self, text: &[u8], effect: Effect, out: &mut Vec<u8>) {
        packet(out, &mut 0, |out| {
            out.push(command::QUERY);
            if self.has_attributes {
                out.extend_from_slice(&attributes::NONE);
            }
            out.extend_from_slice(text);
        });
        self.owe(Kind::Query, true, effect);
        self.holding = true;
    }

    /// Nothing stays on it but its database.
    fn reset_connection(&mut self, out: &mut Vec<u8>) {
        packet(out, &mut 0, |out| out.push(command::RESET_CONNECTION));
        self.owe(Kind::Simple, true, Effect::Reset);
        self.holding = true;
    }

    fn is_owing(&self) -> bool {
        !self.owed.is_empty() || !self.receiving.is_none()
    }
}

impl ServerSide for Server {
    type Client = Client;
    type Cancel = Cancel;

    fn attach(&mut self, client: &mut Client, sides: Sides<'_>) {
        if self.client != Some(client.id()) {
            // Nor has a new connection what the client has made on another one.
            self.foreign_values |= self.client.is_some() || client.insert_id != 0;
            self.own_values = false;
            self.hidden.change_hands();
            self.renew_routines();
            self.client = Some(client.id());
            self.prepared.disown();
            self.is_anchored = false;
            if self.is_soiled {
                self.reset_connection(sides.server);
                self.settings_lost = true;
            } else {
                self.bring_all(client, sides.server);
            }
        }
        self.tidy(sides.server);
        self.prepare(client.settings(), sides.server);
    }

    fn prepare(&mut self, settings: &Arc<Settings>, out: &mut Vec<u8>) {
        self.attach_failure = None;
        self.replay(settings, out);
    }

    fn send(&mut self, input: &[u8], client: &mut Client, out: &mut Out) -> Result<usize, Violation> {
        self.send_packets(input, client, out)
    }

    fn receive(&mut self, input: &[u8], client: Option<&mut Client>, out: &mut Out) -> Result<usize, Violation> {
        self.receive_packets(input, client, out)
    }

    fn status(&self) -> Status {
        if self.ended || self.lost {
            Status::Ended
        } else if self.is_owing() {
            Status::Owing
        } else if self.in_transaction() || self.needs_client() {
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
        self.ask(client, out)
    }

    fn probe(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.in_doubt || self.is_owing() || self.needs_client() {
            return false;
        }
        if self.must_roll_back {
            return self.roll_back(Failed::Told, out);
        }
        packet(out, &mut 0, |out| out.push(command::PING));
        self.owe(Kind::Simple, true, Effect::Probes { may_change: self.saw_changes });
        self.tally.questions += 1;
        true
    }

    fn reset(&mut self, out: &mut Vec<u8>) {
        self.reset_connection(out);
        if self.has_moved && self.options.database.is_empty() {
            // A reset keeps whatever database there is, and nothing deselects one: it must be closed.
            self.attach_failed(AttachFailure::Settings(ServerError {
                code: String::new(),
                message: "a database can't be deselected".to_owned(),
                is_fatal: false,
                frame: Vec::new(),
            }));
        } else if self.has_moved {
            packet(out, &mut 0, |out| {
                out.push(command::INIT_DB);
                out.extend_from_slice(self.options.database.as_bytes());
            });
            self.owe(Kind::Simple, true, Effect::Reset);
        }
    }

    fn parameters(&self) -> Arc<Parameters> {
        Arc::new([("status".to_owned(), self.status.to_string())].into())
    }

    fn settings(&self) -> &Arc<Settings> {
        &self.applied
    }

    fn wanted_by(&self) -> Option<u64> {
        self.client.filter(|_| self.own_values)
    }

    fn attach_failure(&mut self) -> Option<AttachFailure> {
        self.attach_failure.take()
    }

    fn is_in_transaction(&self) -> bool {
        self.in_transaction() || self.status() == Status::InTransaction
    }

    fn is_holding(&self) -> bool {
        // What the client has begun goes on, whatever is asked ahead of it: the server answers once it has all of it.
        !self.needs_client() && (self.holding || self.owed.len() >= OWED_MAX)
    }

    fn has_sent_nothing(&self) -> bool {
        self.owed.iter().all(|owed| owed.hidden) && !self.needs_client() && !self.in_transaction()
    }

    fn is_midway(&self) -> bool {
        !self.receiving.is_none() && self.receiving.passes
    }

    fn needs_client(&self) -> bool {
        !self.sending.is_none() || self.file != File::None
    }

    fn awaits_client(&self) -> bool {
        self.needs_client()
    }

    /// Servers keep nothing back.
    fn flush(&mut self, _: &mut Vec<u8>) {}

    fn cancel(&self, tls: bool) -> Option<Cancel> {
        Some(Cancel::new(self.connection_id, ConnectOptions { tls, ..self.options.clone() }))
    }

    fn explain_cancel(&mut self, why: ClientError) {
        self.explanation = Some(why);
    }

    fn fail_transaction(&mut self, why: ClientError, out: &mut Vec<u8>) -> bool {
        if self.must_roll_back {
            return self.roll_back(Failed::Told, out);
        }
        // Whether there is one is asked first; one of XA can't be rolled back like that.
        !self.in_doubt && !self.is_xa && self.roll_back(Failed::Untold(why), out)
    }

    fn lose(&mut self, client: &mut Client, has_more: bool, out: &mut Vec<u8>) -> Loss {
        self.lose_connection(client, has_more, out)
    }

    fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn refused(&mut self) -> Option<ClientError> {
        self.refused.pop_front()
    }

    fn terminate(&self, out: &mut Vec<u8>) {
        if !self.needs_client() {
            packet(out, &mut 0, |out| out.push(command::QUIT));
        }
    }
}
