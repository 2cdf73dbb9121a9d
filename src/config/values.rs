//! From the text of one value to its type; pure functions that know nothing of files and keys.
//!
//! A function that can fail in more than one way says what is allowed, so that the message fits the mistake.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::types::{ListenAddress, TargetAddress};

/// A year is beyond any sensible timeout, and small enough that adding it to a clock can't overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// `sun_path` holds 108 bytes, the closing zero included.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Postgres clips longer names (`NAMEDATALEN`), so a longer one would never match.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Clients may connect from these unless `allow_from` says otherwise: private, loopback and link-local networks.
const PRIVATE_NETWORKS: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

pub(super) const DURATION_FORM: &str = "a duration such as \"250ms\", \"30s\", \"15m\" or \"1h\", at most \"8760h\"";

/// `"250ms"`, `"30s"`, `"15m"`, `"1h"` or `"0"`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let unit_ms = match text.strip_prefix(digits)? {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    let duration = Duration::from_millis(number.checked_mul(unit_ms)?);
    (duration <= DURATION_MAX).then_some(duration)
}

pub(super) const LISTEN_FORM: &str =
    "an IP address and port such as \"0.0.0.0:6432\" or \"[::]:6432\", or \"unix:/run/sluicegate/.s.PGSQL.6432\"";

/// `"0.0.0.0:6432"`, `"[::]:6432"` or `"unix:/run/sluicegate/.s.PGSQL.6432"`.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_socket(path).map(ListenAddress::Unix);
    }
    text.parse::<SocketAddr>().map(ListenAddress::Tcp).map_err(|_| LISTEN_FORM)
}

pub(super) const TARGET_FORM: &str = "\"host:port\", \"[IPv6 address]:port\" or \"unix:/run/postgresql/.s.PGSQL.5432\"";

/// `"db1:5432"`, `"[::1]:5432"` or `"unix:/run/postgresql/.s.PGSQL.5432"`.
pub(super) fn target_address(text: &str) -> Result<TargetAddress, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_socket(path).map(TargetAddress::Unix);
    }
    let (host, port) = text.rsplit_once(':').ok_or(TARGET_FORM)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or(TARGET_FORM)?;
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => v6,
        None if is_host_name(host) => host,
        Some(_) | None => return Err(TARGET_FORM),
    };
    Ok(TargetAddress::Tcp { host: host.to_owned(), port })
}

/// The letters of a DNS name, underscores included: compose files have them.
pub(super) fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Clients and drivers find a socket by folder and port, so its name must be the one they make of them.
fn unix_socket(path: &str) -> Result<PathBuf, &'static str> {
    let named_for_port = Path::new(path)
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix(".s.PGSQL."))
        .is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    if !path.starts_with('/') || path.contains('\0') {
        Err("an absolute path after \"unix:\"")
    } else if !named_for_port {
        Err("a unix socket named \".s.PGSQL.\" and its port, which is where clients look for it")
    } else if path.len() > UNIX_PATH_BYTES_MAX {
        Err("a unix socket path of at most 107 bytes")
    } else {
        Ok(PathBuf::from(path))
    }
}

/// `"10.0.0.0/8"`, or a single address. Bits beyond the prefix are dropped.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.ok().map(|network| network.trunc())
}

pub(super) fn private_networks() -> Vec<IpNet> {
    PRIVATE_NETWORKS.iter().filter_map(|text| network(text)).collect()
}

/// Whether a name can stand in metrics, logs and the console without quoting.
pub(super) fn is_plain_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether this is a level, or a filter such as `info,sluicegate::pool=debug`. `Targets` takes a misspelt level for
/// a module's name and logs nothing, so a bare word must be a level here.
pub(super) fn is_log_filter(text: &str) -> bool {
    let is_level = |word: &str| LEVELS.contains(&word);
    let is_module =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
    text.split(',').all(|part| match part.split_once('=') {
        Some((module, level)) => is_module(module) && is_level(level),
        None => is_level(part),
    })
}

/// The candidate that a misspelt word was probably meant to be.
pub(super) fn nearest(word: &str, candidates: &[&str]) -> Option<String> {
    let distance_max = (word.chars().count() / 3).max(1);
    candidates
        .iter()
        .map(|candidate| (edit_distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein distance, where `-`, `_` and capitals don't count: `Read_Write` is `read-write`.
fn edit_distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        // `diagonal` and `left` are the cells up-left and left of the one being filled in.
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let changed = diagonal + usize::from(ca != cb);
            diagonal = *cell;
            left = changed.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |n| Some(Duration::from_millis(n));
        for (text, expected) in [
            ("250ms", ms(250)),
            ("30s", ms(30_000)),
            ("15m", ms(900_000)),
            ("1h", ms(3_600_000)),
            ("0", ms(0)),
            ("0s", ms(0)),
            ("8760h", ms(8760 * 3_600_000)),
            ("8761h", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("30", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("1h30m", None),
            ("1d", None),
            ("1S", None),
            ("٣s", None),
        ] {
            assert_eq!(duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn listen_addresses() {
        for (text, good) in [
            ("0.0.0.0:6432", true),
            ("127.0.0.1:0", true),
            ("[::]:6432", true),
            ("unix:/run/sluicegate/.s.PGSQL.6432", true),
            ("localhost:6432", false),
            (":6432", false),
            ("*:6432", false),
            ("6432", false),
            ("0.0.0.0", false),
            ("0.0.0.0:70000", false),
            ("::1:6432:", false),
            ("unix:.s.PGSQL.6432", false),
            ("unix:/run/sluicegate", false),
            ("unix:/run/.s.PGSQL.x", false),
            ("unix:/run/.s.PGSQL.0", false),
            ("", false),
        ] {
            match listen_address(text) {
                Ok(address) => {
                    assert!(good, "{text:?}");
                    assert_eq!(address.to_string(), text);
                }
                Err(allowed) => assert!(!good && !allowed.is_empty(), "{text:?}"),
            }
        }
        let long = format!("unix:/{}/.s.PGSQL.6432", "x".repeat(100));
        assert!(listen_address(&long).is_err_and(|allowed| allowed.contains("107")));
    }

    #[test]
    fn target_addresses() {
        for (text, good) in [
            ("db1:5432", true),
            ("10.0.0.1:5432", true),
            ("orders.cluster-x.eu-central-1.rds.amazonaws.com:5432", true),
            ("pg_writer:5432", true),
            ("[2001:db8::1]:5432", true),
            ("unix:/run/postgresql/.s.PGSQL.5432", true),
            ("db1", false),
            ("db1:0", false),
            ("db1:", false),
            (":5432", false),
            ("2001:db8::1:5432", false),
            ("[db1]:5432", false),
            ("postgres://app@db1:5432", false),
            ("db 1:5432", false),
        ] {
            match target_address(text) {
                Ok(address) => {
                    assert!(good, "{text:?}");
                    assert_eq!(address.to_string(), text);
                }
                Err(_) => assert!(!good, "{text:?}"),
            }
        }
    }

    #[test]
    fn networks() {
        assert_eq!(private_networks().len(), PRIVATE_NETWORKS.len());
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("::1", Some("::1/128")),
            ("10.0.0.0/33", None),
            ("private", None),
        ] {
            let found = network(text).map(|network| network.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn log_filters() {
        for (text, good) in [
            ("info", true),
            ("info,sluicegate::pool=debug", true),
            ("sluicegate=trace", true),
            ("degub", false),
            ("info,", false),
            ("", false),
            ("info,pool=loud", false),
        ] {
            assert_eq!(is_log_filter(text), good, "{text:?}");
        }
    }

    #[test]
    fn nearest_words() {
        for (word, expected) in [
            ("lisen", Some("listen")),
            ("Listen", Some("listen")),
            ("idle-client-timeout", Some("idle_client_timeout")),
            ("max_cleints", Some("max_clients")),
            ("colour", None),
            ("", None),
        ] {
            let known = ["listen", "idle_client_timeout", "max_clients", "name"];
            assert_eq!(nearest(word, &known).as_deref(), expected, "{word:?}");
        }
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
