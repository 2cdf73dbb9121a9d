//! Every metric, in one struct that is made once and handed down. `docs/METRICS.md` says what each means.
//!
//! A thread counts in a slot of its own, with plain loads and stores: no read-modify-write, no cache line that another
//! core writes. Slots are summed when somebody asks (`/metrics`); a level such as open connections may be negative in
//! one slot, because a connection can be opened by one worker and closed by another. Nothing here is reset.

mod durations;
mod labels;
mod text;

pub use durations::Durations;
pub use labels::{Counts, Label, LoginRefusal, OpenFailure, ProbeResult, TargetRole, Timeout, Timings};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Registry, TextEncoder};

use crate::protocol::{ClientError, ErrorKind, PinReason};
use text::Slots;

/// A number with one writer, which any thread may read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds; only ever on the thread that owns the slot.
    pub fn add(&self, number: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
    }

    /// Takes off, for levels; the sum over all slots is what must not be negative.
    pub fn sub(&self, number: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(number), Ordering::Relaxed);
    }

    /// Sets it, for what is counted elsewhere.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// This slot's number; for a level, modulo 2^64.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one thread counts at one endpoint: the clients' side.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    /// Clients that connected.
    pub client_connections_received: Count,
    /// Clients that are gone, refused ones included.
    pub client_connections_closed: Count,
    /// Level: clients under TLS.
    pub client_connections_tls: Count,
    /// Clients that logged in.
    pub client_connections_setup_succeeded: Count,
    /// Logins refused.
    pub logins_refused: Counts<LoginRefusal>,
    /// Bytes from clients, as the protocol sees them (without TLS).
    pub client_bytes_received: Count,
    /// Bytes to clients.
    pub client_bytes_sent: Count,
    /// Errors of the proxy's own that clients were told.
    pub errors: Counts<ErrorKind>,
    /// Limits of time that clients were told of.
    pub timeouts: Counts<Timeout>,
    /// Requests of clients under TLS: simple queries, function calls, and what stands before a Sync.
    pub query_requests_tls: Count,
    /// The same of clients without TLS.
    pub query_requests_no_tls: Count,
    /// From a request to the database connection for it; without a wait it counts as nothing.
    pub borrow_latency: Durations,
    /// From a request to its last reply.
    pub query_response_latency: Durations,
    /// The database's part of that.
    pub query_database_response_latency: Durations,
}

impl EndpointMetrics {
    /// A client was told this.
    pub fn told(&self, error: &ClientError) {
        self.errors.of(error.kind()).add(1);
        if let Some(timeout) = Timeout::of(error) {
            self.timeouts.of(timeout).add(1);
        }
    }
}

/// What one thread counts at one target group: the databases' side.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// Transactions that ended.
    pub transactions: Count,
    /// Queries that were answered.
    pub queries: Count,
    /// Bytes from databases.
    pub database_bytes_received: Count,
    /// Bytes to databases.
    pub database_bytes_sent: Count,
    /// Logins at the database that were begun.
    pub database_connection_requests: Count,
    /// Connections opened and logged in.
    pub database_connections_opened: Count,
    /// Connections that could not be opened.
    pub database_connections_failed: Counts<OpenFailure>,
    /// Connections closed, for whatever reason.
    pub database_connections_closed: Count,
    /// Level: connections a client holds.
    pub database_connections_in_use: Count,
    /// Level: connections nobody holds.
    pub database_connections_idle: Count,
    /// Level: connections that clients hold in a transaction.
    pub database_connections_in_transaction: Count,
    /// Level: connections that pinned clients hold.
    pub database_connections_pinned: Count,
    /// How many connections there may be for clients.
    pub database_connections_allowed: Count,
    /// 1: all of the target's connections are under TLS; 0: none of them.
    pub speaks_tls: Count,
    /// How long those who had to stand in line stood there. Those who left it are not in it.
    pub waits: Durations,
    /// Level: clients that wait for a connection.
    pub clients_waiting: Count,
    /// Pins that began.
    pub pins: Counts<PinReason>,
    /// How long pins lasted, once they are over.
    pub pin_seconds: Timings<PinReason>,
    /// Statements that would have pinned and were refused.
    pub pins_refused: Counts<PinReason>,
    /// The age of the oldest pin there is, in microseconds; the greatest of all slots counts.
    pub oldest_pin_us: Count,
    /// Levels: clients that are pinned for this reason, and perhaps for others as well.
    pub clients_pinned: Counts<PinReason>,
    /// Times that a statement's text and the server's answer disagreed about state. Must stay 0.
    pub disagreements: Count,
    /// Times that a connection was given other settings.
    pub replays: Count,
    /// Times that a database was asked what a client has left on its connection.
    pub questions: Count,
    /// Health probes.
    pub probes: Counts<ProbeResult>,
    /// The share of the last minute's probes that found a writer, in hundredths of a percent.
    pub writer_availability: Count,
    /// 1 for the target's role, 0 for the others.
    pub role: Counts<TargetRole>,
}

/// One thread's slots.
#[derive(Debug)]
pub struct ThreadMetrics {
    endpoints: Vec<Arc<EndpointMetrics>>,
    groups: Vec<Arc<GroupMetrics>>,
}

impl ThreadMetrics {
    /// This thread's slot of an endpoint, by its place in the configuration.
    pub fn endpoint(&self, index: usize) -> Option<Arc<EndpointMetrics>> {
        self.endpoints.get(index).cloned()
    }

    /// This thread's slots of all target groups, by their places in the configuration.
    pub fn groups(&self) -> &[Arc<GroupMetrics>] {
        &self.groups
    }

    /// This thread's slot of a target group, by its place in the configuration.
    pub fn group(&self, index: usize) -> Option<Arc<GroupMetrics>> {
        self.groups.get(index).cloned()
    }
}

/// An endpoint, as its metrics are labelled.
#[derive(Debug, Clone)]
pub struct EndpointName {
    /// Its name.
    pub endpoint: String,
    /// The place of its target group.
    pub group: usize,
}

/// A target group, as its metrics are labelled.
#[derive(Debug, Clone)]
pub struct GroupName {
    /// Its name.
    pub group: String,
    /// Its one target's name.
    pub target: String,
}

/// All metrics of one proxy.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    slots: Slots,
}

impl Metrics {
    /// Slots for so many threads: every worker, and the main thread as any other.
    pub fn new(
        endpoints: impl IntoIterator<Item = EndpointName>,
        groups: impl IntoIterator<Item = GroupName>,
        threads: usize,
    ) -> Result<Self, prometheus::Error> {
        let endpoints: Arc<[EndpointName]> = endpoints.into_iter().collect();
        let groups: Arc<[GroupName]> = groups.into_iter().collect();
        let thread = |_| ThreadMetrics {
            endpoints: endpoints.iter().map(|_| Arc::default()).collect(),
            groups: groups.iter().map(|_| Arc::default()).collect(),
        };
        let threads = (0..threads).map(thread).collect();
        let slots = Slots { endpoints, groups, threads };
        let registry = Registry::new();
        registry.register(Box::new(slots.clone()))?;
        Ok(Self { registry, slots })
    }

    /// The slots of one thread. Each must have one writer.
    pub fn thread(&self, index: usize) -> Option<&ThreadMetrics> {
        self.slots.threads.get(index)
    }

    /// Where further collectors can be registered.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
