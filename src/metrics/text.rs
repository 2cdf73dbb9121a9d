//! Slots summed into Prometheus' families. What follows from other numbers is worked out here, so that there is one
//! number less to keep right.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::durations::BOUNDS_US;
use super::{
    Count, Counts, Durations, EndpointMetrics, EndpointName, GroupMetrics, GroupName, Label, LoginRefusal,
    ThreadMetrics, Timings,
};

#[derive(Debug, Clone)]
pub(super) struct Slots {
    pub(super) endpoints: Arc<[EndpointName]>,
    pub(super) groups: Arc<[GroupName]>,
    pub(super) threads: Arc<[ThreadMetrics]>,
}

/// All threads' slots of one endpoint or target group, and how its series are labelled.
struct Series<'a, S> {
    slots: Vec<&'a S>,
    endpoint: Option<&'a str>,
    group: Option<&'a GroupName>,
}

impl<'a, S> Series<'a, S> {
    fn sum(&self, value: impl Fn(&S) -> &Count) -> u64 {
        sum(self.slots.iter().map(|slot| value(slot)))
    }

    fn sum_of<L: Label>(&self, value: impl Fn(&S) -> &Counts<L>, label: L) -> u64 {
        self.sum(|slot| value(slot).of(label))
    }

    fn endpoint(&self) -> Vec<LabelPair> {
        self.endpoint.map(|name| label("endpoint", name)).into_iter().collect()
    }

    fn group(&self) -> Vec<LabelPair> {
        self.group.map(|name| label("target_group", &name.group)).into_iter().collect()
    }

    fn target(&self) -> Vec<LabelPair> {
        let target = self.group.map(|name| label("target", &name.target));
        self.group().into_iter().chain(target).collect()
    }

    fn endpoint_and_target(&self) -> Vec<LabelPair> {
        self.endpoint().into_iter().chain(self.target()).collect()
    }
}

impl Slots {
    fn endpoints(&self) -> Vec<Series<'_, EndpointMetrics>> {
        let series = self.endpoints.iter().enumerate().map(|(index, name)| Series {
            slots: self.threads.iter().filter_map(|thread| thread.endpoints.get(index)).map(Arc::as_ref).collect(),
            endpoint: Some(name.endpoint.as_str()),
            group: self.groups.get(name.group),
        });
        series.collect()
    }

    fn groups(&self) -> Vec<Series<'_, GroupMetrics>> {
        let series = self.groups.iter().enumerate().map(|(index, name)| Series {
            slots: self.threads.iter().filter_map(|thread| thread.groups.get(index)).map(Arc::as_ref).collect(),
            endpoint: None,
            group: Some(name),
        });
        series.collect()
    }
}

/// A family's name, and what it says of itself.
type About = (&'static str, &'static str);
type Endpoint<'a> = Series<'a, EndpointMetrics>;
type Group<'a> = Series<'a, GroupMetrics>;

/// The families as they are made, one after another.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn push(&mut self, kind: MetricType, (name, help): About, series: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(series);
        self.0.push(family);
    }

    /// Clients' side, by endpoint.
    fn endpoint(&mut self, of: &[Endpoint<'_>], kind: MetricType, about: About, value: impl Fn(&Endpoint<'_>) -> u64) {
        let series = of.iter().map(|one| metric(kind, one.endpoint(), value(one)));
        self.push(kind, about, series.collect());
    }

    /// Databases' side, by target group.
    fn group(&mut self, of: &[Group<'_>], kind: MetricType, about: About, value: impl Fn(&GroupMetrics) -> &Count) {
        let series = of.iter().map(|one| metric(kind, one.group(), one.sum(&value)));
        self.push(kind, about, series.collect());
    }

    /// Databases' side, by target.
    fn target(&mut self, of: &[Group<'_>], kind: MetricType, about: About, value: impl Fn(&Group<'_>) -> u64) {
        let series = of.iter().map(|one| metric(kind, one.target(), value(one)));
        self.push(kind, about, series.collect());
    }

    /// By a reason or kind besides.
    fn labelled<'a, S, L: Label>(
        &mut self,
        of: &[Series<'a, S>],
        labels: impl Fn(&Series<'a, S>) -> Vec<LabelPair>,
        (kind, reason): (MetricType, &str),
        about: About,
        value: impl Fn(&S) -> &Counts<L>,
    ) {
        let mut series = Vec::new();
        for one in of {
            for own in L::ALL {
                let labels = [labels(one), vec![label(reason, own.name())]].concat();
                series.push(metric(kind, labels, one.sum_of(&value, *own)));
            }
        }
        self.push(kind, about, series);
    }

    fn timings<'a, S, L: Label>(
        &mut self,
        of: &[Series<'a, S>],
        labels: impl Fn(&Series<'a, S>) -> Vec<LabelPair>,
        reason: &str,
        about: About,
        value: impl Fn(&S) -> &Timings<L>,
    ) {
        let mut series = Vec::new();
        for one in of {
            for own in L::ALL {
                let labels = [labels(one), vec![label(reason, own.name())]].concat();
                let slots = one.slots.iter().filter_map(|slot| value(slot).of(*own)).collect();
                series.push(histogram(labels, slots));
            }
        }
        self.push(MetricType::HISTOGRAM, about, series);
    }

    fn durations<'a, S>(
        &mut self,
        of: &[Series<'a, S>],
        labels: impl Fn(&Series<'a, S>) -> Vec<LabelPair>,
        about: About,
        value: impl Fn(&S) -> &Durations,
    ) {
        let series = of.iter().map(|one| histogram(labels(one), one.slots.iter().map(|slot| value(slot)).collect()));
        self.push(MetricType::HISTOGRAM, about, series.collect());
    }
}

/// How clients come and go.
fn clients(families: &mut Families, of: &[Endpoint<'_>]) {
    use MetricType::{COUNTER, GAUGE};
    // Those who came less those who left. In this order, so that one who comes and goes in between is not counted as -1.
    let open = |one: &Endpoint<'_>| {
        let closed = one.sum(|slot| &slot.client_connections_closed);
        one.sum(|slot| &slot.client_connections_received).wrapping_sub(closed)
    };
    let tls = |one: &Endpoint<'_>| one.sum(|slot| &slot.client_connections_tls);
    let about = ("sluicegate_client_connections", "Clients that are connected");
    families.endpoint(of, GAUGE, about, open);
    let about = ("sluicegate_client_connections_tls", "Clients that are connected with TLS");
    families.endpoint(of, GAUGE, about, tls);
    let about = ("sluicegate_client_connections_no_tls", "Clients that are connected without TLS");
    families.endpoint(of, GAUGE, about, |one| open(one).wrapping_sub(tls(one)));
    let about = ("sluicegate_client_connections_received_total", "Clients that connected");
    families.endpoint(of, COUNTER, about, |one| one.sum(|slot| &slot.client_connections_received));
    let about = ("sluicegate_client_connections_closed_total", "Clients that are gone, refused ones included");
    families.endpoint(of, COUNTER, about, |one| one.sum(|slot| &slot.client_connections_closed));
    let about = ("sluicegate_client_connections_setup_succeeded_total", "Clients that logged in");
    families.endpoint(of, COUNTER, about, |one| one.sum(|slot| &slot.client_connections_setup_succeeded));
    let about = (
        "sluicegate_client_connections_setup_failed_auth_total",
        "Logins refused for what was to be proven, or for TLS",
    );
    families.endpoint(of, COUNTER, about, |one| {
        LoginRefusal::AUTH.iter().map(|reason| one.sum_of(|slot| &slot.logins_refused, *reason)).sum()
    });
    let about = ("sluicegate_logins_refused_total", "Logins refused");
    families.labelled(of, Series::endpoint, (COUNTER, "reason"), about, |slot| &slot.logins_refused);
    let about = ("sluicegate_errors_total", "Errors of the proxy's own told to clients");
    families.labelled(of, Series::endpoint, (COUNTER, "kind"), about, |slot| &slot.errors);
    let about = ("sluicegate_timeouts_total", "Limits of time that clients were told of");
    families.labelled(of, Series::endpoint, (COUNTER, "kind"), about, |slot| &slot.timeouts);
    let about = ("sluicegate_client_bytes_received_total", "Bytes from clients");
    families.endpoint(of, COUNTER, about, |one| one.sum(|slot| &slot.client_bytes_received));
    let about = ("sluicegate_client_bytes_sent_total", "Bytes to clients");
    families.endpoint(of, COUNTER, about, |one| one.sum(|slot| &slot.client_bytes_sent));
}

/// What clients ask, and how long it takes.
fn requests(families: &mut Families, of: &[Endpoint<'_>]) {
    use MetricType::COUNTER;
    let tls = |one: &Endpoint<'_>| one.sum(|slot| &slot.query_requests_tls);
    let no_tls = |one: &Endpoint<'_>| one.sum(|slot| &slot.query_requests_no_tls);
    let about = ("sluicegate_query_requests_total", "Requests from clients");
    families.endpoint(of, COUNTER, about, |one| tls(one) + no_tls(one));
    let about = ("sluicegate_query_requests_tls_total", "Requests from clients with TLS");
    families.endpoint(of, COUNTER, about, tls);
    let about = ("sluicegate_query_requests_no_tls_total", "Requests from clients without TLS");
    families.endpoint(of, COUNTER, about, no_tls);
    let about = ("sluicegate_query_response_latency_seconds", "Time from a request to its last reply");
    families.durations(of, Series::endpoint, about, |slot| &slot.query_response_latency);
    let about = (
        "sluicegate_query_database_response_latency_seconds",
        "Time from having a database connection for a request to its last reply",
    );
    families.durations(of, Series::endpoint_and_target, about, |slot| &slot.query_database_response_latency);
    let about = (
        "sluicegate_database_connections_borrow_latency_seconds",
        "Time from a request to the database connection for it",
    );
    families.durations(of, Series::endpoint, about, |slot| &slot.borrow_latency);
}

/// Database connections.
fn connections(families: &mut Families, of: &[Group<'_>]) {
    use MetricType::{COUNTER, GAUGE};
    let in_use = |one: &Group<'_>| one.sum(|slot| &slot.database_connections_in_use);
    let idle = |one: &Group<'_>| one.sum(|slot| &slot.database_connections_idle);
    let speaks_tls = |one: &Group<'_>| one.sum(|slot| &slot.speaks_tls);
    let mut series = Vec::new();
    for one in of {
        for (state, number) in [("in_use", in_use(one)), ("idle", idle(one))] {
            series.push(metric(GAUGE, [vec![label("state", state)], one.target()].concat(), number));
        }
    }
    families.push(GAUGE, ("sluicegate_database_connections", "Open database connections"), series);
    let about = ("sluicegate_database_connections_with_tls", "Open database connections with TLS");
    families.target(of, GAUGE, about, |one| (in_use(one) + idle(one)) * speaks_tls(one));
    let about = ("sluicegate_database_connections_currently_borrowed", "Database connections that clients hold");
    families.target(of, GAUGE, about, in_use);
    let about = (
        "sluicegate_database_connections_currently_in_transaction",
        "Database connections that clients hold in a transaction",
    );
    families.target(of, GAUGE, about, |one| one.sum(|slot| &slot.database_connections_in_transaction));
    let about =
        ("sluicegate_database_connections_currently_session_pinned", "Database connections that pinned clients hold");
    families.target(of, GAUGE, about, |one| one.sum(|slot| &slot.database_connections_pinned));
    let about = ("sluicegate_max_database_connections_allowed", "Database connections there may be for clients");
    families.target(of, GAUGE, about, |one| one.sum(|slot| &slot.database_connections_allowed));
    let requests = |one: &Group<'_>| one.sum(|slot| &slot.database_connection_requests);
    let about = ("sluicegate_database_connection_requests_total", "Database connections that were asked for");
    families.target(of, COUNTER, about, requests);
    let about =
        ("sluicegate_database_connection_requests_with_tls_total", "Database connections that were asked for with TLS");
    families.target(of, COUNTER, about, |one| requests(one) * speaks_tls(one));
    let opened = |one: &Group<'_>| one.sum(|slot| &slot.database_connections_opened);
    let help = "Database connections opened and logged in";
    families.target(of, COUNTER, ("sluicegate_database_connections_setup_succeeded_total", help), opened);
    families.target(of, COUNTER, ("sluicegate_database_connections_opened_total", help), opened);
    let help = "Database connections that could not be opened";
    families.target(of, COUNTER, ("sluicegate_database_connections_setup_failed_total", help), |one| {
        one.slots.iter().map(|slot| slot.database_connections_failed.sum()).sum()
    });
    families.labelled(
        of,
        Series::target,
        (COUNTER, "reason"),
        ("sluicegate_database_connections_failed_total", help),
        |slot| &slot.database_connections_failed,
    );
    let about = ("sluicegate_database_connections_closed_total", "Database connections closed");
    families.target(of, COUNTER, about, |one| one.sum(|slot| &slot.database_connections_closed));
}

/// Those who share the connections, and what comes of it.
fn sharing(families: &mut Families, of: &[Group<'_>]) {
    use MetricType::{COUNTER, GAUGE};
    let about = ("sluicegate_transactions_total", "Transactions that ended");
    families.group(of, COUNTER, about, |slot| &slot.transactions);
    let about = ("sluicegate_queries_total", "Queries that were answered");
    families.group(of, COUNTER, about, |slot| &slot.queries);
    let about = ("sluicegate_database_bytes_received_total", "Bytes from databases");
    families.group(of, COUNTER, about, |slot| &slot.database_bytes_received);
    let about = ("sluicegate_database_bytes_sent_total", "Bytes to databases");
    families.group(of, COUNTER, about, |slot| &slot.database_bytes_sent);
    let about = ("sluicegate_borrow_wait_seconds", "Time in line of those who had to wait for a database connection");
    families.durations(of, Series::group, about, |slot| &slot.waits);
    let about = ("sluicegate_clients_waiting", "Clients that wait for a database connection");
    families.group(of, GAUGE, about, |slot| &slot.clients_waiting);
    let about = ("sluicegate_pins_total", "Times a client was pinned");
    families.labelled(of, Series::group, (COUNTER, "reason"), about, |slot| &slot.pins);
    let about = ("sluicegate_clients_pinned", "Clients that are pinned, by each reason they are pinned for");
    families.labelled(of, Series::group, (GAUGE, "reason"), about, |slot| &slot.clients_pinned);
    let about = ("sluicegate_pin_seconds", "Time that a client was pinned, counted when the pin is over");
    families.timings(of, Series::group, "reason", about, |slot| &slot.pin_seconds);
    let about = ("sluicegate_oldest_pin_seconds", "Age of the oldest pin there is");
    let series = of.iter().map(|one| {
        let oldest = one.slots.iter().map(|slot| slot.oldest_pin_us.value()).max();
        gauge(one.group(), seconds(oldest.unwrap_or_default()))
    });
    families.push(GAUGE, about, series.collect());
    let about = ("sluicegate_pins_refused_total", "Statements that would have pinned their client and were refused");
    families.labelled(of, Series::group, (COUNTER, "reason"), about, |slot| &slot.pins_refused);
    let about = (
        "sluicegate_disagreements_total",
        "Times a statement's text and the server disagreed about state; must stay 0",
    );
    families.group(of, COUNTER, about, |slot| &slot.disagreements);
    let about = ("sluicegate_settings_replayed_total", "Times a database connection was given a client's settings");
    families.group(of, COUNTER, about, |slot| &slot.replays);
    let about =
        ("sluicegate_state_questions_total", "Times a database was asked what a client has left on its connection");
    families.group(of, COUNTER, about, |slot| &slot.questions);
}

/// Targets, as the probes find them.
fn targets(families: &mut Families, of: &[Group<'_>]) {
    use MetricType::{COUNTER, GAUGE};
    let about = ("sluicegate_health_probes_total", "Health probes");
    families.labelled(of, Series::target, (COUNTER, "result"), about, |slot| &slot.probes);
    let about = ("sluicegate_target_role", "1 for the target's role, as it last said");
    families.labelled(of, Series::target, (GAUGE, "role"), about, |slot| &slot.role);
    // Nothing is known before the first probe has ended.
    let probed = of.iter().filter(|one| one.slots.iter().any(|slot| slot.probes.sum() > 0));
    let series = probed.map(|one| {
        let labels = [one.group(), vec![label("role", "writer")]].concat();
        gauge(labels, number(one.sum(|slot| &slot.writer_availability)) / 100.0)
    });
    let about = (
        "sluicegate_availability_percentage",
        "Share of the last minute in which health probes found a target of this role",
    );
    families.push(GAUGE, about, series.collect());
}

impl Collector for Slots {
    fn desc(&self) -> Vec<&Desc> {
        // Prometheus' registry uses them to find collectors that clash; there is one for all names here.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (endpoints, groups) = (self.endpoints(), self.groups());
        let mut families = Families::default();
        clients(&mut families, &endpoints);
        requests(&mut families, &endpoints);
        connections(&mut families, &groups);
        sharing(&mut families, &groups);
        targets(&mut families, &groups);
        families.0
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
    if kind == MetricType::GAUGE {
        return gauge(labels, level(value));
    }
    let mut counter = Counter::default();
    counter.set_value(number(value));
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: Vec<LabelPair>, slots: Vec<&Durations>) -> Metric {
    let mut histogram = Histogram::default();
    let mut count = 0;
    let mut buckets = Vec::new();
    for (place, bound) in BOUNDS_US.into_iter().enumerate() {
        count += sum(slots.iter().filter_map(|durations| durations.buckets.get(place)));
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(seconds(bound));
        bucket.set_cumulative_count(count);
        buckets.push(bucket);
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count + sum(slots.iter().map(|durations| &durations.longer)));
    histogram.set_sample_sum(seconds(sum(slots.iter().map(|durations| &durations.sum_us))));
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests;
