//! Reads `[[endpoint]]`: where clients connect.
//!
//! Checks beyond one key: the target group exists, TLS has a certificate, no two listeners want the same address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::field::Field;
use super::table::Table;
use super::types::{EndpointConfig, EndpointRole, EndpointTls, ListenAddress, TargetGroupConfig};
use super::{Names, values};

/// More than one machine's sockets; a larger number is a slip.
const CLIENTS_MAX: i64 = 1_000_000;

const NETWORKS: &str = "networks such as \"10.0.0.0/8\" or \"fd00::/8\"";
const NAME_FORM: &str = "1 to 63 letters, digits, -, _ or .";

/// Reads all endpoints; at least one has to be there.
pub(super) fn read_all(
    root: &Table<'_>,
    groups: &[TargetGroupConfig],
    certificate_is_named: bool,
    admin: Option<SocketAddr>,
) -> Vec<EndpointConfig> {
    let tables = root.children("endpoint");
    if tables.is_empty() {
        root.report_missing("endpoint", "at least one [[endpoint]]");
    }
    let mut reader = Reader {
        groups: groups.iter().map(|group| group.name.as_str()).collect(),
        certificate_is_named,
        names: Names::default(),
        taken: Vec::new(),
    };
    if let Some(address) = admin {
        let owner = "[admin] listen".to_owned();
        reader.taken.push((ListenAddress::Tcp(address), owner));
    }
    tables.into_iter().map(|table| reader.endpoint(table)).collect()
}

struct Reader<'a> {
    groups: Vec<&'a str>,
    certificate_is_named: bool,
    names: Names,
    taken: Vec<(ListenAddress, String)>,
}

impl Reader<'_> {
    fn endpoint(&mut self, table: Table<'_>) -> EndpointConfig {
        let endpoint = EndpointConfig {
            name: self.names.read(&table, NAME_FORM, values::is_plain_name),
            listen: self.listen(&table),
            hostnames: Vec::new(),
            target_group: table
                .require("target_group", "the name of a target group")
                .and_then(|field| field.reference("a target group", &self.groups))
                .unwrap_or_default(),
            role: table.read("role", EndpointRole::ReadWrite, |field| {
                field.choice(&[("read-write", EndpointRole::ReadWrite)], &["read-only", "split"])
            }),
            tls: EndpointTls::Required,
            idle_client_timeout: table.read(
                "idle_client_timeout",
                Some(Duration::from_secs(30 * 60)),
                Field::duration_or_off,
            ),
            login_timeout: table.read("login_timeout", Duration::from_secs(15), Field::duration),
            max_clients: table.read("max_clients", 10_000, |field| field.integer(1..=CLIENTS_MAX)),
            max_logins_per_second: table.read("max_logins_per_second", None, |field| {
                field.integer(0..=CLIENTS_MAX).map(|limit: u32| Some(limit).filter(|limit| *limit > 0))
            }),
            allow_from: table.take("allow_from").and_then(allow_from).unwrap_or_else(values::private_networks),
            proxy_protocol_from: table
                .take("proxy_protocol_from")
                .and_then(|field| networks(&field))
                .unwrap_or_default(),
        };
        let tls = self.tls(&table, &endpoint.listen);
        let hostnames =
            table.take("hostnames").and_then(|field| hostnames(&field, &endpoint.listen)).unwrap_or_default();
        table.finish();
        EndpointConfig { tls, hostnames, ..endpoint }
    }

    fn listen(&mut self, table: &Table<'_>) -> Vec<ListenAddress> {
        let Some(field) = table.require("listen", values::LISTEN_FORM) else {
            return Vec::new();
        };
        let owner = format!("{} in line {}", field.path, field.line);
        let (line, path) = (field.line, field.path.clone());
        let fields = field.list_or_one();
        if fields.is_empty() {
            table.source().report(
                line,
                &path,
                super::Problem::Impossible {
                    found: "an empty list".to_owned(),
                    allowed: values::LISTEN_FORM.to_owned(),
                    nearest: None,
                },
            );
        }
        let mut addresses = Vec::new();
        for field in fields {
            if let Some(address) = listen_address(&field) {
                self.claim(&field, &address, &owner);
                addresses.push(address);
            }
        }
        addresses
    }

    fn claim(&mut self, field: &Field<'_>, address: &ListenAddress, owner: &str) {
        let other = self.taken.iter().find(|(taken, _)| collide(taken, address));
        if let Some((taken, other)) = other {
            field.report_conflict(format!("\"{address}\" collides with \"{taken}\" of {other}"));
        }
        self.taken.push((address.clone(), owner.to_owned()));
    }

    fn tls(&self, table: &Table<'_>, listen: &[ListenAddress]) -> EndpointTls {
        let field = table.take("tls");
        let tls = field
            .as_ref()
            .and_then(|field| {
                let words = [
                    ("required", EndpointTls::Required),
                    ("optional", EndpointTls::Optional),
                    ("off", EndpointTls::Off),
                ];
                field.choice(&words, &[])
            })
            .unwrap_or(EndpointTls::Required);
        let has_tcp = listen.iter().any(|address| matches!(address, ListenAddress::Tcp(_)));
        if tls != EndpointTls::Off && has_tcp && !self.certificate_is_named {
            let word = match tls {
                EndpointTls::Optional => "\"optional\"",
                EndpointTls::Required | EndpointTls::Off => "\"required\" (the default)",
            };
            let reason = format!("{word} needs `certificate` and `private_key` in [tls]; or set tls = \"off\"");
            let line = field.map_or(table.line, |field| field.line);
            let path = format!("{}.tls", table.path);
            let problem = super::Problem::Conflict { reason };
            table.source().report(line, &path, problem);
        }
        tls
    }
}

fn listen_address(field: &Field<'_>) -> Option<ListenAddress> {
    match values::listen_address(field.text(values::LISTEN_FORM)?) {
        Ok(address) => Some(address),
        Err(allowed) => {
            field.report_impossible(allowed);
            None
        }
    }
}

/// Whether two listeners want the same address. IPv4 and IPv6 are apart: `[::]` is bound for IPv6 only.
fn collide(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        (ListenAddress::Tcp(a), ListenAddress::Tcp(b)) => {
            a.port() == b.port()
                && a.port() != 0
                && a.is_ipv4() == b.is_ipv4()
                && (same_ip(a.ip(), b.ip()) || a.ip().is_unspecified() || b.ip().is_unspecified())
        }
        (ListenAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        (ListenAddress::Tcp(_), ListenAddress::Unix(_)) | (ListenAddress::Unix(_), ListenAddress::Tcp(_)) => false,
    }
}

fn same_ip(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

fn allow_from(field: Field<'_>) -> Option<Vec<IpNet>> {
    let networks = networks(&field)?;
    if networks.is_empty() {
        field.report_impossible("at least one network: nobody could connect");
    }
    Some(networks)
}

fn networks(field: &Field<'_>) -> Option<Vec<IpNet>> {
    field.list(NETWORKS)?.iter().map(|field| field.parsed(NETWORKS, values::network)).collect()
}

/// A bare host means the ports that are listened on.
fn hostnames(field: &Field<'_>, listen: &[ListenAddress]) -> Option<Vec<(String, u16)>> {
    const ALLOWED: &str = "names as clients write them, such as \"orders.internal\" or \"orders.example.com:5432\"";
    let mut hostnames = Vec::new();
    for field in field.list(ALLOWED)? {
        let (host, port) = field.parsed(ALLOWED, hostname)?;
        let ports = listen.iter().filter_map(port_of);
        hostnames.extend(port.into_iter().chain(ports.filter(|_| port.is_none())).map(|port| (host.clone(), port)));
    }
    Some(hostnames)
}

fn hostname(text: &str) -> Option<(String, Option<u16>)> {
    let is_host = |host: &str| {
        !host.is_empty() && host.len() <= 255 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port > 0)?)),
        None => (text, None),
    };
    // An IPv6 address, as in a URL.
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_ipv6 = in_brackets.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (is_host(host) || is_ipv6).then(|| (host.to_ascii_lowercase(), port))
}

/// A unix socket's port is its name's.
fn port_of(address: &ListenAddress) -> Option<u16> {
    match address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(path) => path.extension()?.to_str()?.parse().ok(),
    }
}
