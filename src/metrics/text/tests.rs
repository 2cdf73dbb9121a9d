//! What is written, and what is written where.

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
