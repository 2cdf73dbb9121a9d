//! What one client adds to the metrics: that it is here, what it asks, how long that takes, and the state that it keeps
//! on a connection.
//!
//! Time is measured by exchange: from the moment a request is taken while nothing is owed to the moment nothing is owed
//! again, which costs two looks at the clock. Levels follow from the session's state, which is looked at in one place as it
//! falls asleep ([`Tally::holds`]), and are taken back when the tally is dropped: they can't drift, however a session ends.

use crate::metrics::{EndpointMetrics, GroupMetrics};
use crate::protocol::{self, ClientError, Fingerprint, PinCause, PinReason, Pins, ServerSide, Status};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client from its first byte to its last.
pub(super) struct Presence {
    counts: Arc<EndpointMetrics>,
    tls: Cell<bool>,
}

impl Presence {
    pub(super) fn new(counts: Arc<EndpointMetrics>) -> Self {
        counts.client_connections_received.add(1);
        Self { counts, tls: Cell::new(false) }
    }

    /// Its bytes are encrypted from now on.
    pub(super) fn encrypted(&self) {
        if !self.tls.replace(true) {
            self.counts.client_connections_tls.add(1);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.tls.get() {
            self.counts.client_connections_tls.sub(1);
        }
        self.counts.client_connections_closed.add(1);
    }
}

/// Between two lines about pins of the same reason and statement, at INFO: whoever asks why a client is pinned finds one, and
/// a program that pins all day long does not fill the log.
const PINS_TOLD_INTERVAL: Duration = Duration::from_secs(60);
/// Reasons and statements that are remembered for that; what does not fit is told at DEBUG.
const PINS_TOLD_MAX: usize = 200;

/// When a pin of this reason and statement was last told at INFO, by any session of the worker.
#[derive(Debug, Default)]
pub(super) struct PinsTold(RefCell<BTreeMap<(PinReason, Option<Fingerprint>), Instant>>);

impl PinsTold {
    /// It is to be told again.
    fn is_due(&self, reason: PinReason, fingerprint: Option<Fingerprint>, now: Instant) -> bool {
        let mut told = self.0.borrow_mut();
        let is_recent = |then: &Instant| now.saturating_duration_since(*then) < PINS_TOLD_INTERVAL;
        if told.get(&(reason, fingerprint)).is_some_and(is_recent) {
            return false;
        }
        if told.len() >= PINS_TOLD_MAX {
            told.retain(|_, then| is_recent(then));
        }
        let has_room = told.len() < PINS_TOLD_MAX;
        if has_room {
            told.insert((reason, fingerprint), now);
        }
        has_room
    }
}

/// A reason to keep the connection that has been counted.
#[derive(Debug, Clone, Copy)]
struct Pinned {
    reason: PinReason,
    since: Instant,
    /// At INFO.
    is_told: bool,
}

/// A session's part of the metrics.
pub(super) struct Tally {
    endpoint: Arc<EndpointMetrics>,
    group: Arc<GroupMetrics>,
    tls: bool,
    exchange: Option<Exchange>,
    held: Held,
    /// Without a pin it owns no memory.
    pinned: Vec<Pinned>,
}

/// A request, or several sent one behind another, that have not been answered in full.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    asked: Instant,
    /// When there was a connection for it.
    given: Instant,
    /// The database has some of it.
    is_sent: bool,
}

/// What of a session's connection shows in the levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Held {
    in_transaction: bool,
    pins: Pins,
}

impl Tally {
    pub(super) fn new(endpoint: Arc<EndpointMetrics>, group: Arc<GroupMetrics>, tls: bool) -> Self {
        Self { endpoint, group, tls, exchange: None, held: Held::default(), pinned: Vec::new() }
    }

    // ------------------------------------------------------------------------------------------ exchanges

    /// A request needs a connection. The same one may ask again.
    pub(super) fn asks(&mut self) {
        if self.exchange.is_none() {
            let now = Instant::now();
            self.exchange = Some(Exchange { asked: now, given: now, is_sent: false });
        }
    }

    /// There was a connection for it at once.
    pub(super) fn borrowed_at_once(&mut self) {
        self.endpoint.borrow_latency.observe(Duration::ZERO);
    }

    /// Its wait in line is over, one way or another.
    pub(super) fn waited(&mut self, since: Instant) {
        let now = Instant::now();
        self.group.waits.observe(now.saturating_duration_since(since));
        if let Some(exchange) = &mut self.exchange {
            exchange.given = now;
        }
    }

    /// And it has the connection that it waited for.
    pub(super) fn borrowed(&mut self) {
        if let Some(Exchange { asked, given, .. }) = &self.exchange {
            self.endpoint.borrow_latency.observe(given.saturating_duration_since(*asked));
        }
    }

    /// Some of the client's bytes have been given to the machine.
    pub(super) fn sent(&mut self, machine: &mut impl ServerSide) {
        self.count(machine.tally());
        let is_measured = self.exchange.is_some_and(|exchange| exchange.is_sent);
        if is_measured || machine.status() != Status::Owing || machine.has_sent_nothing() {
            return;
        }
        match &mut self.exchange {
            Some(exchange) => exchange.is_sent = true,
            None => {
                let now = Instant::now();
                self.exchange = Some(Exchange { asked: now, given: now, is_sent: true });
            }
        }
    }

    /// Some of the server's bytes have been given to the machine. Returns how many requests they have answered.
    pub(super) fn received(&mut self, machine: &mut impl ServerSide) -> u64 {
        let tally = machine.tally();
        self.count(tally);
        if let Some(Exchange { asked, given, is_sent: true }) = self.exchange
            && machine.status() != Status::Owing
        {
            self.exchange = None;
            let now = Instant::now();
            let (response, database) = (now.saturating_duration_since(asked), now.saturating_duration_since(given));
            self.endpoint.query_response_latency.observe(response);
            self.endpoint.query_database_response_latency.observe(database);
            tracing::debug!(?response, ?database, "answered");
        }
        tally.queries
    }

    fn count(&self, tally: protocol::Tally) {
        self.requests(tally.requests);
        self.group.queries.add(tally.queries);
        self.group.disagreements.add(tally.disagreements);
        self.group.replays.add(tally.replays);
        self.group.questions.add(tally.questions);
    }

    fn requests(&self, number: u64) {
        let count = if self.tls { &self.endpoint.query_requests_tls } else { &self.endpoint.query_requests_no_tls };
        count.add(number);
    }

    /// A request of which the database has nothing got this error; the session goes on.
    pub(super) fn refused(&mut self, error: &ClientError) {
        self.requests(1);
        self.told(error);
        self.lost();
    }

    /// What was asked for is not answered by the database any more.
    pub(super) fn lost(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            self.endpoint.query_response_latency.observe(exchange.asked.elapsed());
        }
    }

    /// The client is told this.
    pub(super) fn told(&self, error: &ClientError) {
        self.endpoint.told(error);
    }

    // ------------------------------------------------------------------------------------------ levels

    /// The session holds this connection, and its client has these pins.
    pub(super) fn holds(&mut self, machine: &impl ServerSide, pins: Pins) {
        self.change(Held { in_transaction: machine.is_in_transaction(), pins });
    }

    /// The session holds no connection.
    pub(super) fn holds_nothing(&mut self) {
        self.unpin(Pins::NONE);
        self.change(Held::default());
    }

    fn change(&mut self, held: Held) {
        if held == self.held {
            return;
        }
        let was = std::mem::replace(&mut self.held, held);
        if held.in_transaction != was.in_transaction {
            let level = &self.group.database_connections_in_transaction;
            if held.in_transaction { level.add(1) } else { level.sub(1) }
        }
        if held.pins.is_empty() != was.pins.is_empty() {
            let level = &self.group.database_connections_pinned;
            if held.pins.is_empty() { level.sub(1) } else { level.add(1) }
        }
        for reason in held.pins.without(was.pins).iter() {
            self.group.clients_pinned.of(reason).add(1);
        }
        for reason in was.pins.without(held.pins).iter() {
            self.group.clients_pinned.of(reason).sub(1);
        }
    }

    /// These are the client's reasons to keep the connection between transactions, each with the statement that it came with,
    /// if that is known. Since when there has been one.
    pub(super) fn pinned(
        &mut self,
        pins: Pins,
        cause: impl Fn(PinReason) -> Option<PinCause>,
        told: &PinsTold,
    ) -> Option<Instant> {
        self.unpin(pins);
        for reason in pins.iter() {
            if self.pinned.iter().any(|pinned| pinned.reason == reason) {
                continue;
            }
            let (cause, since) = (cause(reason), Instant::now());
            let fingerprint = cause.map(|cause| cause.fingerprint);
            let fields = (fingerprint.map(tracing::field::display), cause.map(|cause| cause.command));
            let is_told = told.is_due(reason, fingerprint, since);
            if is_told {
                tracing::info!(%reason, fingerprint = fields.0, command = fields.1, "pinned");
            } else {
                tracing::debug!(%reason, fingerprint = fields.0, command = fields.1, "pinned");
            }
            self.group.pins.of(reason).add(1);
            self.pinned.push(Pinned { reason, since, is_told });
        }
        self.pinned.iter().map(|pinned| pinned.since).min()
    }

    /// The client is pinned for none but these reasons.
    fn unpin(&mut self, left: Pins) {
        let group = &self.group;
        self.pinned.retain(|Pinned { reason, since, is_told }| {
            if left.contains(*reason) {
                return true;
            }
            let age = since.elapsed();
            if *is_told {
                tracing::info!(%reason, ?age, "no longer pinned");
            } else {
                tracing::debug!(%reason, ?age, "no longer pinned");
            }
            if let Some(ages) = group.pin_seconds.of(*reason) {
                ages.observe(age);
            }
            false
        });
        if self.pinned.is_empty() {
            self.pinned = Vec::new();
        }
    }

    /// A request was refused by the machine, and answered so.
    pub(super) fn pin_refused(&self, error: &ClientError) {
        tracing::debug!(kind = error.kind().name(), %error, "request refused");
        if let ClientError::PinRefused { reason } | ClientError::PinLimit { reason, .. } = error {
            self.group.pins_refused.of(*reason).add(1);
        }
        self.told(error);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.holds_nothing();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Timeout;
    use crate::postgres::connect::Connected;
    use crate::postgres::server::Server;
    use crate::protocol::{Out, Parameters, PinReason};

    fn counts() -> (Arc<EndpointMetrics>, Arc<GroupMetrics>) {
        Default::default()
    }

    fn tally((endpoint, group): &(Arc<EndpointMetrics>, Arc<GroupMetrics>)) -> Tally {
        Tally::new(Arc::clone(endpoint), Arc::clone(group), false)
    }

    fn server() -> Server {
        Server::new(Connected {
            parameters: Parameters::new(),
            process_id: 1,
            secret: Vec::new(),
            max_prepared_statements: 1,
            statement_key: [0; 16],
        })
    }

    #[test]
    fn a_client_is_here_until_it_is_dropped() {
        let (counts, _) = counts();
        let presence = Presence::new(Arc::clone(&counts));
        let plain = Presence::new(Arc::clone(&counts));
        presence.encrypted();
        presence.encrypted();
        let levels = || {
            let EndpointMetrics { client_connections_received, client_connections_closed, .. } = &*counts;
            let tls = counts.client_connections_tls.value();
            (client_connections_received.value(), client_connections_closed.value(), tls)
        };
        assert_eq!(levels(), (2, 0, 1));
        drop(presence);
        assert_eq!(levels(), (2, 1, 0));
        drop(plain);
        assert_eq!(levels(), (2, 2, 0));
    }

    #[test]
    fn levels_follow_the_state_and_end_with_the_session() {
        let counts = counts();
        let (listen, lock) = (Pins::of(PinReason::Listen), Pins::of(PinReason::SessionLock));
        let levels = || {
            let group = &counts.1;
            (
                group.database_connections_in_transaction.value(),
                group.database_connections_pinned.value(),
                [PinReason::Listen, PinReason::SessionLock].map(|reason| group.clients_pinned.of(reason).value()),
            )
        };
        let (mut one, mut other) = (tally(&counts), tally(&counts));
        one.change(Held { in_transaction: true, pins: Pins::NONE });
        one.change(Held { in_transaction: true, pins: listen });
        other.change(Held { in_transaction: false, pins: listen.and(lock) });
        assert_eq!(levels(), (1, 2, [2, 1]));
        one.change(Held { in_transaction: true, pins: lock });
        other.holds(&server(), lock);
        assert_eq!(levels(), (1, 2, [0, 2]));
        other.holds_nothing();
        assert_eq!(levels(), (1, 1, [0, 1]));
        drop(one);
        drop(other);
        assert_eq!(levels(), (0, 0, [0, 0]));
    }

    #[test]
    fn a_pin_is_counted_when_it_begins() {
        let counts = counts();
        let mut tally = tally(&counts);
        let (listen, lock) = (Pins::of(PinReason::Listen), Pins::of(PinReason::SessionLock));
        for pins in [listen, listen, listen.and(lock), Pins::NONE, listen] {
            tally.pinned(pins, |_| None, &PinsTold::default());
        }
        let [listens, locks] = [PinReason::Listen, PinReason::SessionLock].map(|reason| counts.1.pins.of(reason));
        assert_eq!((listens.value(), locks.value()), (2, 1));
        // Its age when it is over, which it is in any case when the session is.
        let ages = |reason| counts.1.pin_seconds.of(reason).unwrap().count();
        assert_eq!((ages(PinReason::Listen), ages(PinReason::SessionLock)), (1, 1));
        drop(tally);
        assert_eq!((ages(PinReason::Listen), ages(PinReason::SessionLock)), (2, 1));
    }

    #[test]
    fn a_pin_is_told_now_and_then() {
        let told = PinsTold::default();
        let (reason, start) = (PinReason::Listen, Instant::now());
        let of = |number: usize| Some(Fingerprint(number as u64));
        assert!(told.is_due(reason, of(0), start));
        assert!(!told.is_due(reason, of(0), start + PINS_TOLD_INTERVAL / 2));
        assert!(told.is_due(PinReason::SessionLock, of(0), start) && told.is_due(reason, None, start));
        assert!(told.is_due(reason, of(0), start + PINS_TOLD_INTERVAL));
        // Of many others only so many, until their time is up.
        let later = start + PINS_TOLD_INTERVAL * 3 / 2;
        assert_eq!((1..1000).filter(|number| told.is_due(reason, of(*number), later)).count(), PINS_TOLD_MAX - 1);
        assert!(told.0.borrow().len() <= PINS_TOLD_MAX);
        assert!(!told.is_due(reason, of(1000), later));
        assert!(told.is_due(reason, of(1000), later + PINS_TOLD_INTERVAL));
    }

    #[test]
    fn an_exchange_is_measured_once() {
        let counts = counts();
        let mut tally = tally(&counts);
        let measured = || {
            let EndpointMetrics { query_response_latency, query_database_response_latency, .. } = &*counts.0;
            let [response, database] = [query_response_latency, query_database_response_latency].map(|d| d.count());
            (response, database, counts.0.query_requests_no_tls.value(), counts.1.queries.value())
        };
        let mut server = server();
        // An idle connection that says something is no exchange, nor is a connection that nothing was sent on.
        tally.received(&mut server);
        tally.asks();
        tally.sent(&mut server);
        tally.received(&mut server);
        assert_eq!(measured(), (0, 0, 0, 0));
        assert!(tally.exchange.is_some());
        // Refused: the wait was part of the answer, the database had none in it.
        tally.waited(Instant::now());
        tally.refused(&ClientError::BorrowTimeout { group: "main".to_owned(), waited: Duration::ZERO });
        assert_eq!(measured(), (1, 0, 1, 0));
        assert_eq!(counts.0.timeouts.of(Timeout::Borrow).value(), 1);
        assert_eq!((counts.1.waits.count(), counts.0.borrow_latency.count()), (1, 0));
        // The proxy's own is none.
        let mut out = Vec::new();
        server.reset(&mut out);
        tally.sent(&mut server);
        assert!(tally.exchange.is_none());
        server.receive(b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05I", None, &mut Out::new()).unwrap();
        tally.received(&mut server);
        assert_eq!(measured(), (1, 0, 1, 0));
    }
}
