//! Every metric, in one struct that is made once and handed down.
//!
//! A thread counts in a slot of its own, with plain loads and stores: no read-modify-write, no cache line that another
//! core writes. Slots are summed when somebody asks (`/metrics`); a level such as open connections may be negative in
//! one slot, because a connection can be opened by one worker and closed by another. Nothing here is reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

use crate::protocol::{ErrorKind, PinReason};

/// A number with one writer, which any thread may read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
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

/// A set of reasons that label a metric.
pub trait Label: Copy + PartialEq + 'static {
    /// All of them.
    const ALL: &'static [Self];
    /// As it stands in the label.
    fn name(self) -> &'static str;
}

/// A count per reason.
#[derive(Debug)]
pub struct Counts<L>(Vec<(L, Count)>);

impl<L: Label> Counts<L> {
    /// The count of a reason.
    pub fn of(&self, label: L) -> &Count {
        // Short lists, and never on the way of a query.
        self.0.iter().find(|(own, _)| *own == label).map_or(&NOWHERE, |(_, count)| count)
    }
}

/// Where a label counts that is missing in its own `ALL`; a test shows that there is none.
static NOWHERE: Count = Count(AtomicU64::new(0));

impl<L: Label> Default for Counts<L> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|label| (*label, Count::default())).collect())
    }
}

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRefusal {
    /// Wrong password or unknown user.
    Password,
    /// A token that is none or lets nobody in.
    Token,
    /// No client certificate, or one for another name.
    Certificate,
    /// `tls = "required"`.
    TlsRequired,
    /// `max_clients`.
    TooManyClients,
    /// `allow_from`.
    Address,
    /// `login_timeout`.
    Timeout,
    /// The client broke the protocol.
    Protocol,
    /// The client left before its login was done.
    Left,
    /// No database connection in time, or the database's own error.
    Database,
    /// Replication, which is not offered.
    Replication,
    /// The proxy is going down.
    GoingDown,
}

impl Label for LoginRefusal {
    const ALL: &'static [Self] = &[
        Self::Password,
        Self::Token,
        Self::Certificate,
        Self::TlsRequired,
        Self::TooManyClients,
        Self::Address,
        Self::Timeout,
        Self::Protocol,
        Self::Left,
        Self::Database,
        Self::Replication,
        Self::GoingDown,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::TlsRequired => "tls_required",
            Self::TooManyClients => "too_many_clients",
            Self::Address => "address",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Left => "left",
            Self::Database => "database",
            Self::Replication => "replication",
            Self::GoingDown => "going_down",
        }
    }
}

/// Why a database connection could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFailure {
    /// No connection, or it broke during the login.
    Network,
    /// `connect_timeout`.
    Timeout,
    /// TLS could not be agreed on.
    Tls,
    /// The database refused the user.
    Login,
    /// The database has no connection free (53300).
    Full,
    /// Another error of the database.
    Database,
    /// What came was not the protocol.
    Protocol,
}

impl Label for OpenFailure {
    const ALL: &'static [Self] =
        &[Self::Network, Self::Timeout, Self::Tls, Self::Login, Self::Full, Self::Database, Self::Protocol];

    fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Full => "full",
            Self::Database => "database",
            Self::Protocol => "protocol",
        }
    }
}

impl Label for PinReason {
    const ALL: &'static [Self] = &PinReason::ALL;

    fn name(self) -> &'static str {
        PinReason::name(self)
    }
}

impl Label for ErrorKind {
    const ALL: &'static [Self] = &[Self::Client, Self::Auth, Self::Pool, Self::Server, Self::Network, Self::Proxy];

    fn name(self) -> &'static str {
        ErrorKind::name(self)
    }
}

/// Upper bounds of the borrow wait's buckets, in microseconds: from a hand-out without a wait to the longest
/// `connection_borrow_timeout` that makes sense.
const WAIT_BOUNDS_US: [u64; 14] = [
    50,
    100,
    500,
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    120_000_000,
];

/// How long borrowing took.
#[derive(Debug, Default)]
pub struct Waits {
    buckets: [Count; WAIT_BOUNDS_US.len()],
    longer: Count,
    sum_us: Count,
}

impl Waits {
    /// Counts one.
    pub fn observe(&self, wait: Duration) {
        let wait_us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.buckets.iter().zip(WAIT_BOUNDS_US).find(|(_, bound)| wait_us <= *bound);
        bucket.map_or(&self.longer, |(count, _)| count).add(1);
        self.sum_us.add(wait_us);
    }
}

/// What one thread counts at one endpoint: the clients' side.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    /// Clients that connected.
    pub client_connections_received: Count,
    /// Clients that are gone, refused ones included.
    pub client_connections_closed: Count,
    /// Logins refused.
    pub logins_refused: Counts<LoginRefusal>,
    /// Bytes from clients, as the protocol sees them (without TLS).
    pub client_bytes_received: Count,
    /// Bytes to clients.
    pub client_bytes_sent: Count,
    /// Errors of the proxy's own that clients were told.
    pub errors: Counts<ErrorKind>,
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
    /// Level: connections a client holds.
    pub database_connections_in_use: Count,
    /// Level: connections nobody holds.
    pub database_connections_idle: Count,
    /// Connections opened and logged in.
    pub database_connections_opened: Count,
    /// Connections that could not be opened.
    pub database_connections_failed: Counts<OpenFailure>,
    /// Connections closed, for whatever reason.
    pub database_connections_closed: Count,
    /// Connections borrowed, and how long that took. Those who gave up are not in it.
    pub borrows: Waits,
    /// Level: clients that wait for a connection.
    pub clients_waiting: Count,
    /// Pins that began.
    pub pins: Counts<PinReason>,
    /// Times that a statement's text and the server's answer disagreed about state. Must stay 0.
    pub disagreements: Count,
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

    /// This thread's slot of a target group, by its place in the configuration.
    pub fn group(&self, index: usize) -> Option<Arc<GroupMetrics>> {
        self.groups.get(index).cloned()
    }
}

/// All metrics of one proxy.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    slots: Slots,
}

#[derive(Debug, Clone)]
struct Slots {
    endpoints: Arc<[String]>,
    groups: Arc<[String]>,
    threads: Arc<[ThreadMetrics]>,
}

impl Metrics {
    /// Slots for so many threads: every worker, and the main thread as any other.
    pub fn new(
        endpoints: impl IntoIterator<Item = String>,
        groups: impl IntoIterator<Item = String>,
        threads: usize,
    ) -> Result<Self, prometheus::Error> {
        let endpoints: Arc<[String]> = endpoints.into_iter().collect();
        let groups: Arc<[String]> = groups.into_iter().collect();
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

impl Slots {
    /// A metric with one series per endpoint.
    fn per_endpoint(
        &self,
        kind: MetricType,
        name: &str,
        help: &str,
        value: impl Fn(&EndpointMetrics) -> &Count,
    ) -> MetricFamily {
        let series = self.endpoints.iter().enumerate().map(|(index, endpoint)| {
            let sum = sum(self.threads.iter().filter_map(|thread| thread.endpoints.get(index)).map(|slot| value(slot)));
            metric(kind, vec![label("endpoint", endpoint)], sum)
        });
        family(kind, name, help, series.collect())
    }

    /// A metric with one series per target group.
    fn per_group(
        &self,
        kind: MetricType,
        name: &str,
        help: &str,
        value: impl Fn(&GroupMetrics) -> &Count,
    ) -> MetricFamily {
        let series = self.groups.iter().enumerate().map(|(index, group)| {
            let sum = sum(self.group_slots(index).map(|slot| value(slot)));
            metric(kind, vec![label("target_group", group)], sum)
        });
        family(kind, name, help, series.collect())
    }

    fn per_endpoint_and<L: Label>(
        &self,
        second: &str,
        name: &str,
        help: &str,
        value: impl Fn(&EndpointMetrics) -> &Counts<L>,
    ) -> MetricFamily {
        let mut series = Vec::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            for one in L::ALL {
                let slots = self.threads.iter().filter_map(|thread| thread.endpoints.get(index));
                let sum = sum(slots.map(|slot| value(slot).of(*one)));
                series.push(metric(
                    MetricType::COUNTER,
                    vec![label("endpoint", endpoint), label(second, one.name())],
                    sum,
                ));
            }
        }
        family(MetricType::COUNTER, name, help, series)
    }

    fn per_group_and<L: Label>(
        &self,
        second: &str,
        name: &str,
        help: &str,
        value: impl Fn(&GroupMetrics) -> &Counts<L>,
    ) -> MetricFamily {
        let mut series = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            for one in L::ALL {
                let sum = sum(self.group_slots(index).map(|slot| value(slot).of(*one)));
                series.push(metric(
                    MetricType::COUNTER,
                    vec![label("target_group", group), label(second, one.name())],
                    sum,
                ));
            }
        }
        family(MetricType::COUNTER, name, help, series)
    }

    fn group_slots(&self, index: usize) -> impl Iterator<Item = &Arc<GroupMetrics>> {
        self.threads.iter().filter_map(move |thread| thread.groups.get(index))
    }

    /// Open clients are those that came less those that left: one number less to keep right.
    fn clients(&self) -> MetricFamily {
        let series = self.endpoints.iter().enumerate().map(|(index, endpoint)| {
            let slots = || self.threads.iter().filter_map(|thread| thread.endpoints.get(index));
            // In this order, so that a client that comes and goes in between is not counted as -1.
            let closed = sum(slots().map(|slot| &slot.client_connections_closed));
            let received = sum(slots().map(|slot| &slot.client_connections_received));
            metric(MetricType::GAUGE, vec![label("endpoint", endpoint)], received.wrapping_sub(closed))
        });
        let help = "Clients that are connected";
        family(MetricType::GAUGE, "sluicegate_client_connections", help, series.collect())
    }

    fn connections(&self) -> MetricFamily {
        let mut series = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let in_use = sum(self.group_slots(index).map(|slot| &slot.database_connections_in_use));
            let idle = sum(self.group_slots(index).map(|slot| &slot.database_connections_idle));
            for (state, number) in [("in_use", in_use), ("idle", idle)] {
                let labels = vec![label("state", state), label("target_group", group)];
                series.push(metric(MetricType::GAUGE, labels, number));
            }
        }
        family(MetricType::GAUGE, "sluicegate_database_connections", "Open database connections", series)
    }

    fn waits(&self) -> MetricFamily {
        let series = self.groups.iter().enumerate().map(|(index, group)| {
            let slots: Vec<_> = self.group_slots(index).map(|slot| &slot.borrows).collect();
            let mut histogram = Histogram::default();
            let mut count = 0;
            let mut buckets = Vec::new();
            for (place, bound) in WAIT_BOUNDS_US.into_iter().enumerate() {
                count += sum(slots.iter().filter_map(|waits| waits.buckets.get(place)));
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(seconds(bound));
                bucket.set_cumulative_count(count);
                buckets.push(bucket);
            }
            histogram.set_bucket(buckets);
            histogram.set_sample_count(count + sum(slots.iter().map(|waits| &waits.longer)));
            histogram.set_sample_sum(seconds(sum(slots.iter().map(|waits| &waits.sum_us))));
            let mut metric = Metric::from_label(vec![label("target_group", group)]);
            metric.set_histogram(histogram);
            metric
        });
        let help = "Time from asking for a database connection to having it";
        family(MetricType::HISTOGRAM, "sluicegate_borrow_wait_seconds", help, series.collect())
    }
}

impl Collector for Slots {
    fn desc(&self) -> Vec<&Desc> {
        // Prometheus' registry uses them to find collectors that clash; there is one for all names here.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        use MetricType::{COUNTER, GAUGE};
        vec![
            self.clients(),
            self.per_endpoint(
                COUNTER,
                "sluicegate_client_connections_received_total",
                "Clients that connected",
                |slot| &slot.client_connections_received,
            ),
            self.per_endpoint(
                COUNTER,
                "sluicegate_client_connections_closed_total",
                "Clients that are gone, refused ones included",
                |slot| &slot.client_connections_closed,
            ),
            self.per_endpoint_and("reason", "sluicegate_logins_refused_total", "Logins refused", |slot| {
                &slot.logins_refused
            }),
            self.per_endpoint(COUNTER, "sluicegate_client_bytes_received_total", "Bytes from clients", |slot| {
                &slot.client_bytes_received
            }),
            self.per_endpoint(COUNTER, "sluicegate_client_bytes_sent_total", "Bytes to clients", |slot| {
                &slot.client_bytes_sent
            }),
            self.per_endpoint_and(
                "kind",
                "sluicegate_errors_total",
                "Errors of the proxy's own told to clients",
                |slot| &slot.errors,
            ),
            self.per_group(COUNTER, "sluicegate_transactions_total", "Transactions that ended", |slot| {
                &slot.transactions
            }),
            self.per_group(COUNTER, "sluicegate_queries_total", "Queries that were answered", |slot| &slot.queries),
            self.per_group(COUNTER, "sluicegate_database_bytes_received_total", "Bytes from databases", |slot| {
                &slot.database_bytes_received
            }),
            self.per_group(COUNTER, "sluicegate_database_bytes_sent_total", "Bytes to databases", |slot| {
                &slot.database_bytes_sent
            }),
            self.connections(),
            self.per_group(
                COUNTER,
                "sluicegate_database_connections_opened_total",
                "Database connections opened and logged in",
                |slot| &slot.database_connections_opened,
            ),
            self.per_group_and(
                "reason",
                "sluicegate_database_connections_failed_total",
                "Database connections that could not be opened",
                |slot| &slot.database_connections_failed,
            ),
            self.per_group(
                COUNTER,
                "sluicegate_database_connections_closed_total",
                "Database connections closed",
                |slot| &slot.database_connections_closed,
            ),
            self.waits(),
            self.per_group(
                GAUGE,
                "sluicegate_clients_waiting",
                "Clients that wait for a database connection",
                |slot| &slot.clients_waiting,
            ),
            self.per_group_and("reason", "sluicegate_pins_total", "Times a client was pinned", |slot| &slot.pins),
            self.per_group(
                COUNTER,
                "sluicegate_disagreements_total",
                "Times a statement's text and the server disagreed about state; must stay 0",
                |slot| &slot.disagreements,
            ),
        ]
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a Count>) -> u64 {
    counts.fold(0, |sum, count| sum.wrapping_add(count.value()))
}

/// Prometheus has floating-point numbers only: beyond 2^53 they are rounded, which no graph shows.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> f64 {
    value as f64
}

/// A level that is negative for a moment, because slots are not read all at once, is shown as 0.
fn level(value: u64) -> f64 {
    if value > u64::MAX / 2 { 0.0 } else { number(value) }
}

fn seconds(microseconds: u64) -> f64 {
    number(microseconds) / 1e6
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn metric(kind: MetricType, labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut metric = Metric::from_label(labels);
    if kind == MetricType::GAUGE {
        let mut gauge = Gauge::default();
        gauge.set_value(level(value));
        metric.set_gauge(gauge);
    } else {
        let mut counter = Counter::default();
        counter.set_value(number(value));
        metric.set_counter(counter);
    }
    metric
}

fn family(kind: MetricType, name: &str, help: &str, series: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Metrics {
        Metrics::new(["orders".to_owned(), "reports".to_owned()], ["main".to_owned()], 3).unwrap()
    }

    #[test]
    fn slots_are_summed() {
        let metrics = made();
        let slot = |thread: usize| metrics.thread(thread).unwrap();
        for thread in 0..3 {
            slot(thread).endpoint(1).unwrap().client_connections_received.add(10);
            slot(thread).group(0).unwrap().pins.of(PinReason::Listen).add(2);
        }
        slot(1).endpoint(1).unwrap().client_connections_closed.add(4);
        slot(1).endpoint(0).unwrap().logins_refused.of(LoginRefusal::TlsRequired).add(1);
        slot(0).endpoint(0).unwrap().errors.of(ErrorKind::Pool).add(7);
        // Opened by one thread, closed by another.
        slot(0).group(0).unwrap().database_connections_idle.add(3);
        slot(2).group(0).unwrap().database_connections_idle.sub(1);
        let text = metrics.text().unwrap();
        for line in [
            "sluicegate_client_connections{endpoint=\"orders\"} 0",
            "sluicegate_client_connections{endpoint=\"reports\"} 26",
            "sluicegate_client_connections_received_total{endpoint=\"reports\"} 30",
            "sluicegate_logins_refused_total{endpoint=\"orders\",reason=\"tls_required\"} 1",
            "sluicegate_logins_refused_total{endpoint=\"reports\",reason=\"tls_required\"} 0",
            "sluicegate_errors_total{endpoint=\"orders\",kind=\"pool\"} 7",
            "sluicegate_pins_total{target_group=\"main\",reason=\"listen\"} 6",
            "sluicegate_database_connections{state=\"idle\",target_group=\"main\"} 2",
            "sluicegate_database_connections{state=\"in_use\",target_group=\"main\"} 0",
            "sluicegate_disagreements_total{target_group=\"main\"} 0",
            "# TYPE sluicegate_clients_waiting gauge",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn waits_fall_into_buckets() {
        let metrics = made();
        for (thread, wait_us) in [(0, 0), (0, 50), (1, 51), (2, 2_000_000), (2, 500_000_000)] {
            let group = metrics.thread(thread).unwrap().group(0).unwrap();
            group.borrows.observe(Duration::from_micros(wait_us));
        }
        let text = metrics.text().unwrap();
        for (bound, count) in [("0.00005", 2), ("0.0001", 3), ("1", 3), ("5", 4), ("120", 4), ("+Inf", 5)] {
            let line = format!("sluicegate_borrow_wait_seconds_bucket{{target_group=\"main\",le=\"{bound}\"}} {count}");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(text.contains("sluicegate_borrow_wait_seconds_sum{target_group=\"main\"} 502.000101"), "{text}");
        assert!(text.contains("sluicegate_borrow_wait_seconds_count{target_group=\"main\"} 5"), "{text}");
    }

    #[test]
    fn every_reason_has_a_count_and_a_name_of_its_own() {
        fn check<L: Label>() {
            let counts = Counts::<L>::default();
            let mut names = std::collections::BTreeSet::new();
            for label in L::ALL {
                counts.of(*label).add(1);
                assert!(names.insert(label.name()), "{} twice", label.name());
            }
            assert!(counts.0.iter().all(|(_, count)| count.value() == 1));
        }
        check::<LoginRefusal>();
        check::<OpenFailure>();
        check::<PinReason>();
        check::<ErrorKind>();
        assert_eq!(NOWHERE.value(), 0);
    }

    #[test]
    fn a_level_below_nothing_is_shown_as_nothing() {
        let metrics = made();
        metrics.thread(0).unwrap().group(0).unwrap().clients_waiting.sub(1);
        assert!(metrics.text().unwrap().contains("sluicegate_clients_waiting{target_group=\"main\"} 0\n"));
    }
}
