//! Reads the tables of which there is one each: `[tls]`, `[admin]`, `[log]`, `[runtime]`, and those of later versions.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Problem;
use super::field::Field;
use super::table::Table;
use super::types::{AdminConfig, LogConfig, LogFormat, RuntimeConfig, TlsConfig};
use super::values;

/// More threads than any machine has cores.
const WORKERS_MAX: i64 = 1024;

/// `[tls]` as far as it could be read.
pub(super) struct Tls {
    /// A file is named, so that what else is wrong with `[tls]` was told there.
    pub(super) is_named: bool,
    /// The same for the CA of client certificates.
    pub(super) asks_clients: bool,
    pub(super) config: Option<TlsConfig>,
}

pub(super) fn read_tls(root: &Table<'_>) -> Tls {
    let table = root.child("tls");
    let certificate = table.take("certificate");
    let private_key = table.take("private_key");
    match (&certificate, &private_key) {
        (Some(_), None) => table.report_missing("private_key", "the path of a file"),
        (None, Some(_)) => table.report_missing("certificate", "the path of a file"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    // Empty is the contract's default: none.
    let client_ca = table.take("client_ca").filter(|field| field.text("the path of a file") != Some(""));
    if let (Some(client_ca), None) = (&client_ca, &certificate) {
        client_ca.report_conflict("needs `certificate`, without which there is no TLS".to_owned());
    }
    table.finish();
    let is_named = certificate.is_some() || private_key.is_some();
    let certificate = certificate.and_then(|field| field.readable_file());
    let private_key = private_key.and_then(|field| field.readable_file());
    let asks_clients = client_ca.is_some();
    let client_ca = client_ca.and_then(|field| field.readable_file());
    let config = certificate.zip(private_key);
    let config = config.map(|(certificate, private_key)| TlsConfig { certificate, private_key, client_ca });
    Tls { is_named, asks_clients, config }
}

pub(super) fn read_admin(root: &Table<'_>) -> AdminConfig {
    let table = root.child("admin");
    let default = AdminConfig::default();
    let admin = AdminConfig {
        listen: table.read("listen", default.listen, admin_listen),
        hostnames: table.read("hostnames", default.hostnames, |field| {
            const ALLOWED: &str = "a list of host names";
            let name = |text: &str| values::is_host_name(text).then(|| text.to_owned());
            let fields = field.list(ALLOWED)?;
            fields.iter().map(|field| field.parsed(ALLOWED, name)).collect()
        }),
    };
    table.later("tls", Some("false"));
    table.later("console", Some("\"\""));
    table.later("operators", Some("{}"));
    table.later("viewers", Some("{}"));
    table.finish();
    admin
}

fn admin_listen(field: &Field<'_>) -> Option<Option<SocketAddr>> {
    const ALLOWED: &str = "a loopback address and port such as \"127.0.0.1:9632\", or \"\" for off";
    let text = field.text(ALLOWED)?;
    if text.is_empty() {
        return Some(None);
    }
    let address = field.parsed(ALLOWED, |text| text.parse::<SocketAddr>().ok())?;
    if !address.ip().to_canonical().is_loopback() {
        field.report(Problem::NotYet {
            found: Some(format!("\"{address}\"")),
            note: Some("off loopback it needs TLS; use \"127.0.0.1:9632\"".to_owned()),
        });
        return None;
    }
    Some(Some(address))
}

pub(super) fn read_log(root: &Table<'_>) -> LogConfig {
    const LEVELS: &str = "off, error, warn, info, debug or trace, or a filter such as \"info,sluicegate::pool=debug\"";
    let table = root.child("log");
    let default = LogConfig::default();
    let log = LogConfig {
        format: table.read("format", default.format, |field| {
            field.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)], &[])
        }),
        level: table.read("level", default.level, |field| {
            let good = |text: &str| values::is_log_filter(text).then(|| text.to_owned());
            field.parsed(LEVELS, good)
        }),
    };
    table.finish();
    log
}

pub(super) fn read_runtime(root: &Table<'_>) -> RuntimeConfig {
    let table = root.child("runtime");
    let default = RuntimeConfig::default();
    let runtime = RuntimeConfig {
        workers: table.read("workers", default.workers, |field| field.integer(0..=WORKERS_MAX)),
        shutdown_timeout: table.read("shutdown_timeout", default.shutdown_timeout, Field::duration_or_zero),
        state_dir: table.read("state_dir", default.state_dir, |field| folder(field)),
    };
    table.later("memory_max", Some("\"0\""));
    table.finish();
    runtime
}

/// A folder that need not be there yet.
fn folder(field: &Field<'_>) -> Option<PathBuf> {
    field.parsed("the path of a folder", |text| {
        (!text.is_empty() && !text.contains('\0')).then(|| field.source().resolve(text))
    })
}

pub(super) fn refuse_dns(root: &Table<'_>) {
    let table = root.child("dns");
    table.later("servers", Some("[]"));
    table.finish();
}
