//! The queue of replies owed: what must come back from a server, in order, and what each completion changes.
//!
//! Every request pushes what it is owed, every reply pops. An effect is applied only when its entry completes, so an
//! error, which takes out everything up to the next Sync, needs no special case. What a name means to a request that
//! is being sent is what the effects in flight say of it, newest first, then what has been confirmed.

use super::names::Names;
use crate::postgres::client::{Client, Prepared};
use crate::postgres::statement::{Form, Id, Statement};
use crate::protocol::{ClientError, Pins, Settings};
use crate::sql::settings::Changes;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Entries that may be in flight; beyond it no more is taken from the client until replies have come. A server sends
/// when 8 KiB of replies have gathered, at 5 bytes or more each, so a full queue always moves.
pub(super) const OWED_MAX: usize = 8192;

/// A request to which the server owes replies.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Kind {
    /// ParseComplete.
    Parse,
    /// CloseComplete of a stand-in; the client, whose statement the server had already, is told ParseComplete.
    ParseKnown,
    /// BindComplete.
    Bind,
    /// ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows or COPY, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// ReadyForQuery.
    Sync,
    /// Anything, up to ReadyForQuery.
    Query,
    /// FunctionCallResponse, ReadyForQuery.
    Function,
    /// Nothing: the client ended a COPY of its data here, sent before the server was seen to ask for it.
    CopyEnd,
}

impl Kind {
    /// An error makes the server skip everything up to the next Sync.
    pub(super) fn skips_to_sync(self) -> bool {
        !matches!(self, Self::Sync | Self::Query | Self::Function | Self::CopyEnd)
    }
}

/// What a completion changes.
#[derive(Debug, Default)]
pub(super) enum Effect {
    /// Nothing.
    #[default]
    Nothing,
    /// The client has this statement under this name, and so has the server under its own.
    Define { name: Box<[u8]>, prepared: Prepared },
    /// A Parse of this name of the client's, which is taken: the server's error must show it.
    Taken(Box<[u8]>),
    /// The client no longer has a statement of this name.
    Undefine(Box<[u8]>),
    /// The unnamed statement is the one of this client and generation.
    DefineUnnamed { client: u64, generation: u64 },
    /// There is no unnamed statement.
    UndefineUnnamed,
    /// The client's unnamed statement is on this connection again (a Parse of the proxy's own).
    RestoreUnnamed,
    /// The server has this statement (a Parse or `PREPARE` of the proxy's own).
    Prepared(Id, Form),
    /// Part of what makes that so.
    Prepares,
    /// The server no longer has it.
    Evicted(Id),
    /// The client is pinned.
    Pin(Pins),
    /// This statement is in use, and its use pins the client.
    Uses(Arc<Statement>, Pins),
    /// The connection has these settings.
    Applied(Arc<Settings>),
    /// A simple query or an Execute: pins once a command of it has completed; the names in it; what it does to settings.
    Query { pins: Pins, names: Option<Box<Names>>, changes: Option<Arc<Changes>> },
    /// No value of a sequence is left on the connection.
    SequencesDiscarded,
    /// It fails, and is meant to: the client's transaction with it.
    Fail,
    /// So does this, which was sent in place of the client's request: it gets this error.
    Refuse(Box<ClientError>),
    /// What every client is to find has been done.
    Initialized,
    /// The client is told what has changed.
    Tells,
    /// What the client has reset is where it began.
    PutsBack,
    /// The server is asked for what the client has left on the connection.
    Asks,
    /// It has answered that.
    Answers,
}

/// An entry of the queue.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) kind: Kind,
    /// The proxy's own request: the client must not see the replies.
    pub(super) hidden: bool,
    /// How many Syncs had been sent before it.
    pub(super) segment: u32,
    pub(super) effect: Effect,
}

/// Whether a server will have a statement when a request that is being sent now reaches it.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Presence {
    /// It will, unless this very request is skipped as well.
    Yes,
    /// It won't.
    No,
    /// That depends on whether an earlier segment fails.
    Unsure,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Owed>,
    /// Entries whose effect names a statement.
    naming: usize,
    /// Ends of the client's segments and queries.
    ends: usize,
    /// Entries that make or drop the unnamed statement, or put it back.
    unnaming: usize,
    /// Entries that prepare or close a statement on the server, by statement.
    touching: HashMap<Id, usize>,
    /// Entries that close one to make room.
    evicting: usize,
    /// Statements that clients are given names for, and their bytes.
    defining: (usize, usize),
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Everything in it is the proxy's own.
    pub(super) fn is_hidden(&self) -> bool {
        self.entries.iter().all(|owed| owed.hidden)
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= OWED_MAX
    }

    pub(super) fn front(&self) -> Option<&Owed> {
        self.entries.front()
    }

    pub(super) fn push(&mut self, owed: Owed) {
        self.naming += usize::from(owed.effect.names());
        self.ends += usize::from(owed.ends());
        self.unnaming += usize::from(owed.unnames());
        self.evicting += usize::from(matches!(owed.effect, Effect::Evicted(_)));
        if let Effect::Define { prepared: Prepared::Anywhere(statement), .. } = &owed.effect {
            self.defining = (self.defining.0 + 1, self.defining.1 + statement.bytes());
        }
        for (id, _) in owed.effect.touched() {
            *self.touching.entry(id).or_default() += 1;
        }
        self.entries.push_back(owed);
    }

    /// What the request that was sent last, a query, changes is known only now.
    pub(super) fn amend_last(&mut self, effect: Effect) {
        if let Some(last) = self.entries.back_mut().filter(|last| last.kind == Kind::Query && !last.hidden) {
            last.effect = effect;
        }
    }

    /// Takes the front entry, and with it the marks behind it to which nothing is owed.
    pub(super) fn pop(&mut self) -> Option<Owed> {
        let owed = self.take_front();
        while self.front().is_some_and(|next| next.kind == Kind::CopyEnd) {
            self.take_front();
        }
        if self.entries.is_empty() && self.entries.capacity() > 256 {
            self.entries = VecDeque::new();
        }
        owed
    }

    fn take_front(&mut self) -> Option<Owed> {
        let owed = self.entries.pop_front()?;
        self.naming -= usize::from(owed.effect.names());
        self.ends -= usize::from(owed.ends());
        self.unnaming -= usize::from(owed.unnames());
        self.evicting -= usize::from(matches!(owed.effect, Effect::Evicted(_)));
        if let Effect::Define { prepared: Prepared::Anywhere(statement), .. } = &owed.effect {
            self.defining = (self.defining.0 - 1, self.defining.1 - statement.bytes());
        }
        for (id, _) in owed.effect.touched() {
            let Entry::Occupied(mut entry) = self.touching.entry(id) else { continue };
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        Some(owed)
    }

    /// The client ended its COPY data before the server was seen to ask for any.
    pub(super) fn mark_copy_end(&mut self, segment: u32) {
        // One query may have several COPYs, each with an end of its own.
        if !self.entries.is_empty() {
            self.push(Owed { kind: Kind::CopyEnd, hidden: false, segment, effect: Effect::Nothing });
        }
    }

    /// The server asks for COPY data for the front entry. Syncs sent behind it are read over by the server, up to the
    /// end of the data. True if that end is in the queue (and is taken out with them), false if it is still to come.
    pub(super) fn begin_copy_in(&mut self) -> bool {
        while let Some(next) = self.entries.get(1) {
            match next.kind {
                Kind::Sync => {
                    self.ends -= usize::from(next.ends());
                    self.entries.remove(1);
                }
                Kind::CopyEnd => {
                    self.entries.remove(1);
                    return true;
                }
                Kind::Parse
                | Kind::ParseKnown
                | Kind::Bind
                | Kind::DescribeStatement
                | Kind::DescribePortal
                | Kind::Execute
                | Kind::Close
                | Kind::Query
                | Kind::Function => return true,
            }
        }
        false
    }

    /// No reply that ends an exchange is to come: a Sync must be sent yet.
    pub(super) fn awaits_sync(&self) -> bool {
        !self.entries.iter().any(|owed| matches!(owed.kind, Kind::Sync | Kind::Query | Kind::Function))
    }

    /// The client's COPY data has ended for all that was seen, or none was asked for.
    pub(super) fn ends_copy(&self) -> bool {
        self.entries.back().is_some_and(|owed| owed.kind == Kind::CopyEnd)
    }

    /// What the client's name will mean: `None`: nothing in flight says so, ask what is confirmed.
    pub(super) fn named(&self, name: &[u8]) -> Option<Option<&Prepared>> {
        if self.naming == 0 {
            return None;
        }
        self.naming_of(name).map(|(_, meaning)| meaning)
    }

    /// What the client's name will mean depends on how an earlier segment or query ends. (What is in the same segment
    /// takes a later request with it if it fails.)
    pub(super) fn is_open(&self, name: &[u8], segment: u32) -> bool {
        self.naming > 0
            && self.naming_of(name).is_some_and(|(owed, _)| owed.segment != segment || owed.kind == Kind::Query)
    }

    /// What the unnamed statement will be depends on how an earlier segment or query ends.
    pub(super) fn unnamed_is_open(&self, segment: u32) -> bool {
        self.newest_unnaming().is_some_and(|owed| owed.segment != segment || owed.kind == Kind::Query)
    }

    /// There will be no unnamed statement.
    pub(super) fn drops_unnamed(&self) -> bool {
        self.newest_unnaming().is_some_and(|owed| matches!(owed.effect, Effect::UndefineUnnamed))
    }

    fn newest_unnaming(&self) -> Option<&Owed> {
        if self.unnaming == 0 {
            return None;
        }
        self.entries.iter().rev().find(|owed| owed.unnames())
    }

    /// The newest entry in flight that says what the client's name will mean, and what that is.
    fn naming_of(&self, name: &[u8]) -> Option<(&Owed, Option<&Prepared>)> {
        self.entries.iter().rev().find_map(|owed| Some((owed, owed.effect.meaning(name)?)))
    }

    /// Whether the server will have the statement. `None`: nothing in flight says so.
    pub(super) fn presence(&self, id: Id, segment: u32) -> Option<Presence> {
        if !self.touches(id) {
            return None;
        }
        self.entries.iter().rev().find_map(|owed| {
            let will_be = owed.prepares(id)?;
            Some(match will_be {
                // A query does not skip what follows when it fails.
                _ if owed.segment != segment || owed.kind == Kind::Query => Presence::Unsure,
                true => Presence::Yes,
                false => Presence::No,
            })
        })
    }

    /// Something in flight prepares or closes the statement.
    pub(super) fn touches(&self, id: Id) -> bool {
        self.touching.contains_key(&id)
    }

    /// How many statements clients are being given names for, and how many bytes they have.
    pub(super) fn defining(&self) -> (usize, usize) {
        self.defining
    }

    /// How many statements are being closed to make room.
    pub(super) fn evicting(&self) -> usize {
        self.evicting
    }

    /// Nothing is in flight that could end a transaction.
    pub(super) fn runs_nothing(&self) -> bool {
        let runs = |owed: &Owed| matches!(owed.kind, Kind::Execute | Kind::Query | Kind::Function | Kind::CopyEnd);
        !self.entries.iter().any(runs)
    }

    /// A transaction may have failed by the time a request that is sent now reaches the server.
    pub(super) fn may_fail_transaction(&self) -> bool {
        self.ends > 0
    }

    /// Everything up to the next Sync, and that Sync, is the proxy's own.
    pub(super) fn hides_segment(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.find(|owed| !owed.hidden || owed.kind == Kind::Sync).is_some_and(|owed| owed.hidden)
    }

    /// The client's name for a statement in flight, by its name on servers.
    #[allow(clippy::wildcard_enum_match_arm, reason = "no other effect gives a statement a name")]
    pub(super) fn client_name(&self, server_name: &[u8]) -> Option<&[u8]> {
        self.entries.iter().find_map(|owed| match &owed.effect {
            Effect::Define { name, prepared: Prepared::Anywhere(statement) } => {
                (statement.id.name() == server_name).then_some(&**name)
            }
            Effect::Query { names: Some(names), .. } => {
                names.makes().find(|(_, statement)| statement.id.name() == server_name).map(|(name, _)| name)
            }
            _other => None,
        })
    }

    pub(super) fn front_effect(&mut self) -> Option<&mut Effect> {
        self.entries.front_mut().map(|owed| &mut owed.effect)
    }
}

impl Owed {
    fn ends(&self) -> bool {
        !self.hidden && matches!(self.kind, Kind::Sync | Kind::Query | Kind::Function)
    }

    fn unnames(&self) -> bool {
        let query = self.kind == Kind::Query && !self.hidden;
        query || matches!(self.effect, Effect::DefineUnnamed { .. } | Effect::UndefineUnnamed | Effect::RestoreUnnamed)
    }

    /// Whether the server has the statement once this completes; `None`: it does not touch it.
    fn prepares(&self, id: Id) -> Option<bool> {
        self.effect.touched().filter(|(touched, _)| *touched == id).last().map(|(_, is_there)| is_there)
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "no other effect says anything of statements")]
impl Effect {
    /// It says what names mean, or what statements a server has.
    fn names(&self) -> bool {
        match self {
            Self::Define { .. } | Self::Undefine(_) | Self::Prepared(..) | Self::Evicted(_) => true,
            Self::Query { names: Some(names), .. } => !names.comings().is_empty(),
            _other => false,
        }
    }

    /// What becomes of the client's name, if anything does. `None` inside: it is gone.
    fn meaning(&self, name: &[u8]) -> Option<Option<&Prepared>> {
        match self {
            Self::Define { name: defined, prepared } => (**defined == *name).then_some(Some(prepared)),
            Self::Undefine(gone) => (**gone == *name).then_some(None),
            Self::Query { names: Some(names), .. } => names.meaning(name),
            _other => None,
        }
    }

    /// The statements that it prepares or closes on the server, and which of both.
    fn touched(&self) -> impl Iterator<Item = (Id, bool)> {
        let (one, names) = match self {
            Self::Define { prepared: Prepared::Anywhere(statement), .. } => (Some((statement.id, true)), None),
            Self::Prepared(id, _) => (Some((*id, true)), None),
            Self::Evicted(id) => (Some((*id, false)), None),
            Self::Query { names: Some(names), .. } => (None, Some(names)),
            _other => (None, None),
        };
        let made = names.into_iter().flat_map(|names| names.makes()).map(|(_, statement)| (statement.id, true));
        one.into_iter().chain(made)
    }

    /// A statement that the client and the server have now.
    pub(super) fn define(name: &[u8], statement: Arc<Statement>) -> Self {
        Self::Define { name: name.into(), prepared: Prepared::Anywhere(statement) }
    }
}

/// What a name means to a request that is being sent now.
pub(super) fn lookup(queue: &Queue, client: &Client, name: &[u8]) -> Option<Prepared> {
    match queue.named(name) {
        Some(in_flight) => in_flight.cloned(),
        None => client.statements.find(name).cloned(),
    }
}
