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
mod tests {
    use super::*;
    use crate::metrics::{Metrics, OpenFailure, ProbeResult, TargetRole};
    use crate::protocol::{ErrorKind, PinReason};
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// Three threads, two endpoints, one target.
    fn made() -> Metrics {
        let endpoints = ["orders", "reports"].map(|name| EndpointName { endpoint: name.to_owned(), group: 0 });
        let group = GroupName { group: "main".to_owned(), target: "db:5432".to_owned() };
        Metrics::new(endpoints, [group], 3).unwrap()
    }

    fn endpoint(metrics: &Metrics, thread: usize, index: usize) -> Arc<EndpointMetrics> {
        metrics.thread(thread).unwrap().endpoint(index).unwrap()
    }

    fn group(metrics: &Metrics, thread: usize) -> Arc<GroupMetrics> {
        metrics.thread(thread).unwrap().group(0).unwrap()
    }

    fn check(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.text().unwrap();
        for line in lines {
            assert!(text.lines().any(|own| own == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn slots_are_summed() {
        let metrics = made();
        for thread in 0..3 {
            endpoint(&metrics, thread, 1).client_connections_received.add(10);
            group(&metrics, thread).pins.of(PinReason::Listen).add(2);
        }
        endpoint(&metrics, 1, 1).client_connections_closed.add(4);
        endpoint(&metrics, 1, 0).logins_refused.of(LoginRefusal::TlsRequired).add(1);
        endpoint(&metrics, 0, 0).errors.of(ErrorKind::Pool).add(7);
        // Opened by one thread, closed by another.
        group(&metrics, 0).database_connections_idle.add(3);
        group(&metrics, 2).database_connections_idle.sub(1);
        check(
            &metrics,
            &[
                "sluicegate_client_connections{endpoint=\"orders\"} 0",
                "sluicegate_client_connections{endpoint=\"reports\"} 26",
                "sluicegate_client_connections_received_total{endpoint=\"reports\"} 30",
                "sluicegate_logins_refused_total{endpoint=\"orders\",reason=\"tls_required\"} 1",
                "sluicegate_logins_refused_total{endpoint=\"reports\",reason=\"tls_required\"} 0",
                "sluicegate_errors_total{endpoint=\"orders\",kind=\"pool\"} 7",
                "sluicegate_pins_total{target_group=\"main\",reason=\"listen\"} 6",
                "sluicegate_database_connections{state=\"idle\",target_group=\"main\",target=\"db:5432\"} 2",
                "sluicegate_database_connections{state=\"in_use\",target_group=\"main\",target=\"db:5432\"} 0",
                "sluicegate_disagreements_total{target_group=\"main\"} 0",
                "# TYPE sluicegate_clients_waiting gauge",
            ],
        );
    }

    #[test]
    fn what_follows_from_other_numbers() {
        let metrics = made();
        let (orders, main) = (endpoint(&metrics, 1, 0), group(&metrics, 2));
        orders.client_connections_received.add(9);
        orders.client_connections_closed.add(2);
        orders.client_connections_tls.add(4);
        orders.query_requests_tls.add(30);
        endpoint(&metrics, 0, 0).query_requests_no_tls.add(12);
        for reason in LoginRefusal::ALL {
            orders.logins_refused.of(*reason).add(1);
        }
        orders.told(&crate::protocol::ClientError::LoginTimeout);
        main.database_connections_in_use.set(3);
        main.database_connections_idle.set(2);
        main.database_connection_requests.add(8);
        main.database_connections_opened.add(6);
        main.database_connections_failed.of(OpenFailure::Full).add(1);
        main.database_connections_failed.of(OpenFailure::Login).add(1);
        check(
            &metrics,
            &[
                "sluicegate_client_connections_tls{endpoint=\"orders\"} 4",
                "sluicegate_client_connections_no_tls{endpoint=\"orders\"} 3",
                "sluicegate_query_requests_total{endpoint=\"orders\"} 42",
                "sluicegate_query_requests_tls_total{endpoint=\"orders\"} 30",
                "sluicegate_query_requests_no_tls_total{endpoint=\"orders\"} 12",
                "sluicegate_client_connections_setup_failed_auth_total{endpoint=\"orders\"} 5",
                "sluicegate_timeouts_total{endpoint=\"orders\",kind=\"login\"} 1",
                "sluicegate_errors_total{endpoint=\"orders\",kind=\"auth\"} 1",
                "sluicegate_database_connections_currently_borrowed{target_group=\"main\",target=\"db:5432\"} 3",
                "sluicegate_database_connections_with_tls{target_group=\"main\",target=\"db:5432\"} 0",
                "sluicegate_database_connection_requests_total{target_group=\"main\",target=\"db:5432\"} 8",
                "sluicegate_database_connection_requests_with_tls_total{target_group=\"main\",target=\"db:5432\"} 0",
                "sluicegate_database_connections_setup_succeeded_total{target_group=\"main\",target=\"db:5432\"} 6",
                "sluicegate_database_connections_setup_failed_total{target_group=\"main\",target=\"db:5432\"} 2",
            ],
        );
        main.speaks_tls.set(1);
        check(
            &metrics,
            &[
                "sluicegate_database_connections_with_tls{target_group=\"main\",target=\"db:5432\"} 5",
                "sluicegate_database_connection_requests_with_tls_total{target_group=\"main\",target=\"db:5432\"} 8",
            ],
        );
    }

    #[test]
    fn availability_is_unknown_before_the_first_probe() {
        let metrics = made();
        assert!(!metrics.text().unwrap().contains("sluicegate_availability_percentage"));
        let main = group(&metrics, 2);
        main.probes.of(ProbeResult::Timeout).add(1);
        check(&metrics, &["sluicegate_availability_percentage{target_group=\"main\",role=\"writer\"} 0"]);
        main.writer_availability.set(9_950);
        main.role.of(TargetRole::Writer).set(1);
        check(
            &metrics,
            &[
                "sluicegate_availability_percentage{target_group=\"main\",role=\"writer\"} 99.5",
                "sluicegate_health_probes_total{target_group=\"main\",target=\"db:5432\",result=\"timeout\"} 1",
                "sluicegate_target_role{target_group=\"main\",target=\"db:5432\",role=\"writer\"} 1",
                "sluicegate_target_role{target_group=\"main\",target=\"db:5432\",role=\"standby\"} 0",
            ],
        );
    }

    #[test]
    fn durations_fall_into_buckets() {
        let metrics = made();
        for (thread, took_us) in [(0, 0), (0, 50), (1, 51), (2, 2_000_000), (2, 500_000_000)] {
            let took = Duration::from_micros(took_us);
            group(&metrics, thread).waits.observe(took);
            endpoint(&metrics, thread, 0).query_database_response_latency.observe(took);
        }
        let labels = "endpoint=\"orders\",target_group=\"main\",target=\"db:5432\"";
        let text = metrics.text().unwrap();
        for (name, labels) in [
            ("sluicegate_borrow_wait_seconds", "target_group=\"main\""),
            ("sluicegate_query_database_response_latency_seconds", labels),
        ] {
            for (bound, count) in [("0.00005", 2), ("0.0001", 3), ("1", 3), ("2.5", 4), ("120", 4), ("+Inf", 5)] {
                let line = format!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}\n");
                assert!(text.contains(&line), "{line} is not in\n{text}");
            }
            assert!(text.contains(&format!("{name}_sum{{{labels}}} 502.000101\n")), "{text}");
            assert!(text.contains(&format!("{name}_count{{{labels}}} 5\n")), "{text}");
        }
        assert!(text.contains("# TYPE sluicegate_query_response_latency_seconds histogram"), "{text}");
        assert!(text.contains("sluicegate_query_response_latency_seconds_count{endpoint=\"orders\"} 0"), "{text}");
    }

    #[test]
    fn pins_by_their_reasons_and_the_oldest_of_all() {
        let metrics = made();
        for (thread, age_s, reason) in
            [(0, 2, PinReason::Listen), (1, 3, PinReason::Listen), (2, 5, PinReason::SessionLock)]
        {
            let slot = group(&metrics, thread);
            slot.pin_seconds.of(reason).unwrap().observe(Duration::from_secs(age_s));
            slot.oldest_pin_us.set(age_s * 500_000);
        }
        group(&metrics, 1).pins_refused.of(PinReason::Listen).add(4);
        check(
            &metrics,
            &[
                "sluicegate_pin_seconds_sum{target_group=\"main\",reason=\"listen\"} 5",
                "sluicegate_pin_seconds_count{target_group=\"main\",reason=\"listen\"} 2",
                "sluicegate_pin_seconds_count{target_group=\"main\",reason=\"session_lock\"} 1",
                "sluicegate_pin_seconds_count{target_group=\"main\",reason=\"setting\"} 0",
                "sluicegate_oldest_pin_seconds{target_group=\"main\"} 2.5",
                "sluicegate_pins_refused_total{target_group=\"main\",reason=\"listen\"} 4",
            ],
        );
    }

    #[test]
    fn a_level_below_nothing_is_shown_as_nothing() {
        let metrics = made();
        group(&metrics, 0).clients_waiting.sub(1);
        endpoint(&metrics, 0, 0).client_connections_tls.add(1);
        check(
            &metrics,
            &[
                "sluicegate_clients_waiting{target_group=\"main\"} 0",
                "sluicegate_client_connections_no_tls{endpoint=\"orders\"} 0",
            ],
        );
    }

    /// What Prometheus' own linter looks at; and docs/METRICS.md names every family, every value of a label, and no other.
    #[test]
    fn families_are_named_as_they_should_and_described() {
        let metrics = made();
        group(&metrics, 2).probes.of(ProbeResult::Writer).add(1);
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md")).unwrap();
        let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_part = |word: &str| ["_bucket", "_sum", "_count"].iter().any(|part| word.ends_with(part));
        let on_page: BTreeSet<&str> = words.filter(|word| word.starts_with("sluicegate_") && !is_part(word)).collect();
        let text = metrics.text().unwrap();
        let mut names = BTreeSet::new();
        for line in text.lines() {
            let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            assert!(names.insert(name), "{name} twice");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            let is_time = name.ends_with("_seconds");
            assert!(if is_time { ["histogram", "gauge"].contains(&kind) } else { kind != "histogram" }, "{line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
        assert_eq!(names, on_page);
        for label in ["reason", "kind", "result", "role", "state"] {
            for value in text.split(&format!("{label}=\"")).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(page.contains(&format!("`{value}`")), "{label} {value} is not in docs/METRICS.md");
            }
        }
    }
}
