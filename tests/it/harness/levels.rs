//! What a proxy says of itself in numbers, and what the kernel says of its process.
//!
//! The names of the metrics stand here and nowhere else in tests that look at levels.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::proxy::metrics;
use super::wire::PATIENCE;

/// Levels and counts of one proxy, all its endpoints and target groups together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Clients that are connected.
    pub clients: u64,
    /// Clients in the line.
    pub waiting: u64,
    /// Database connections that a client holds.
    pub in_use: u64,
    /// Database connections that nobody holds.
    pub idle: u64,
    /// Logins at databases that failed, for whatever reason.
    pub failed: u64,
    /// A statement's text and the server disagreed about state.
    pub disagreements: u64,
}

impl Levels {
    /// As the proxy with this admin address tells them. Those of the pools are up to a tick (50 ms) old.
    pub fn of(admin: SocketAddr) -> Self {
        let text = metrics(admin).unwrap();
        let sum = |series: &str| {
            let lines: Vec<f64> = text
                .lines()
                .filter_map(|line| line.strip_prefix(series)?.rsplit_once(' '))
                .map(|(_, value)| value.parse().unwrap())
                .collect();
            assert!(!lines.is_empty(), "no {series} in {text}");
            lines.iter().sum::<f64>() as u64
        };
        Self {
            clients: sum("sluicegate_client_connections{"),
            waiting: sum("sluicegate_clients_waiting{"),
            in_use: sum("sluicegate_database_connections{state=\"in_use\""),
            idle: sum("sluicegate_database_connections{state=\"idle\""),
            failed: sum("sluicegate_database_connections_failed_total{"),
            disagreements: sum("sluicegate_disagreements_total{"),
        }
    }

    /// Waits until they are so.
    pub fn wait_until(admin: SocketAddr, what: &str, are_so: impl Fn(&Self) -> bool) -> Self {
        let began = Instant::now();
        loop {
            let levels = Self::of(admin);
            if are_so(&levels) {
                return levels;
            }
            assert!(began.elapsed() < PATIENCE, "not {what} within {PATIENCE:?}: {levels:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Memory of a process that is in use now (resident set).
pub fn memory_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Files and sockets that a process has open.
pub fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Lets this process have as many files as the kernel allows; fails where those are fewer than `wanted`.
pub fn raise_file_limit(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let has = limit.maximum.unwrap_or(u64::MAX);
    assert!(has >= wanted, "this test opens {wanted} files; `ulimit -Hn` allows {has}: raise it");
}
