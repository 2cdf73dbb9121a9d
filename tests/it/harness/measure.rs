//! The proxy's metrics, read as Prometheus does.

use std::time::{Duration, Instant};

use super::proxy::ProxyHandle;
use super::wire::PATIENCE;

/// The metrics at one moment.
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    pub fn read(proxy: &ProxyHandle) -> Self {
        let text = proxy.metrics().unwrap();
        let series = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        Self(text.lines().filter(|line| line.starts_with("sluicegate_")).map(series).collect())
    }

    /// The sum of the series of that name, which stands here without `sluicegate_`; with a label, of those that have it
    /// (`name reason="x"`). There is at least one.
    pub fn get(&self, what: &str) -> f64 {
        let (name, label) = what.split_once(' ').unwrap_or((what, ""));
        let is_it = |series: &str| {
            let (own, labels) = series.split_once('{').unwrap_or((series, ""));
            own.strip_prefix("sluicegate_") == Some(name) && labels.contains(label)
        };
        let values: Vec<f64> = self.0.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "there is no {what}");
        values.iter().sum()
    }

    /// For the eye: what is not 0.
    pub fn shown(&self) -> String {
        let shown = self.0.iter().filter(|(series, value)| *value != 0.0 && !series.contains("_bucket"));
        shown.map(|(series, value)| format!("{series} {value}\n")).collect()
    }

    /// Those that are not as they should be.
    pub fn wrong(&self, expected: &[(&str, f64)]) -> Vec<String> {
        let wrong = expected.iter().filter(|(what, value)| self.get(what) != *value);
        wrong.map(|(what, value)| format!("{what} is {} and not {value}", self.get(what))).collect()
    }
}

/// Waits until the metrics are so: what is counted is so behind the answer that the client has, and some levels are up
/// to 50 ms old.
pub fn eventually(proxy: &ProxyHandle, expected: &[(&str, f64)]) -> Metrics {
    until(proxy, |metrics| metrics.wrong(expected))
}

pub fn until(proxy: &ProxyHandle, wrong: impl Fn(&Metrics) -> Vec<String>) -> Metrics {
    let began = Instant::now();
    loop {
        let metrics = Metrics::read(proxy);
        let wrong = wrong(&metrics);
        if wrong.is_empty() {
            return metrics;
        }
        assert!(began.elapsed() < PATIENCE, "{wrong:#?}\n{}", metrics.shown());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every level that clients make.
pub const NOBODY: [(&str, f64); 9] = [
    ("client_connections", 0.0),
    ("client_connections_tls", 0.0),
    ("client_connections_no_tls", 0.0),
    ("database_connections_currently_borrowed", 0.0),
    ("database_connections state=\"in_use\"", 0.0),
    ("database_connections_currently_in_transaction", 0.0),
    ("database_connections_currently_session_pinned", 0.0),
    ("clients_pinned", 0.0),
    ("clients_waiting", 0.0),
];
