//! What is legal but probably not meant.
//!
//! Warnings never stop a start. They name endpoints, groups and users, and what to change.

use std::net::IpAddr;

use super::table::Source;
use super::types::{
    AuthMethod, Config, ConnectionLimit, EndpointConfig, EndpointTls, Engine, ListenAddress, TargetAddress,
    TargetGroupConfig, TargetTlsMode, UserConfig,
};

/// Looks the whole configuration over.
pub(super) fn look_at(config: &Config, source: &Source<'_>) {
    for endpoint in &config.endpoints {
        look_at_endpoint(endpoint, config, source);
    }
    for user in config.users.iter().filter(|user| user.auth == AuthMethod::IamOrPassword) {
        source.warn(format!(
            "user \"{}\": \"iam-or-password\" lets clients send the password itself (under TLS) in place of SCRAM, which \
             never shows it",
            user.name
        ));
    }
    for user in &config.users {
        look_at_limits(user, config, source);
    }
    for group in &config.target_groups {
        look_at_group(group, config, source);
    }
}

/// Limits that another one makes void.
fn look_at_limits(user: &UserConfig, config: &Config, source: &Source<'_>) {
    let name = &user.name;
    let endpoints = || config.endpoints.iter().filter(|endpoint| user.may_use(&endpoint.name));
    let clients: usize = endpoints().map(|endpoint| endpoint.max_clients).sum();
    if let Some(limit) = user.max_clients.filter(|limit| *limit > clients) {
        source.warn(format!(
            "user \"{name}\": max_clients = {limit} has no effect, its endpoints take {clients} clients (max_clients)"
        ));
    }
    let Some(limit) = user.max_connections else { return };
    if let Some(clients) = user.max_clients.filter(|clients| *clients < limit) {
        source.warn(format!(
            "user \"{name}\": max_connections = {limit} has no effect, a client holds one connection at most and \
             max_clients is {clients}"
        ));
    }
    for group in &config.target_groups {
        let is_used = endpoints().any(|endpoint| endpoint.target_group == group.name);
        if let (true, ConnectionLimit::Absolute(all)) = (is_used, group.pool.max_connections)
            && limit > usize::try_from(all).unwrap_or(usize::MAX)
        {
            source.warn(format!(
                "user \"{name}\": max_connections = {limit} has no effect at target group \"{}\", where all users \
                 together may have {all}",
                group.name
            ));
        }
        if is_used && limit < group.pool.min_connections {
            source.warn(format!(
                "user \"{name}\": max_connections = {limit} is less than min_connections of target group \"{}\", which is \
                 {}",
                group.name, group.pool.min_connections
            ));
        }
    }
}

fn look_at_endpoint(endpoint: &EndpointConfig, config: &Config, source: &Source<'_>) {
    let name = &endpoint.name;
    if !config.users.iter().any(|user| user.may_use(name)) {
        source.warn(format!("endpoint \"{name}\": no user can log in here; add a [[user]]"));
    }
    let tokens = config.users.iter().find(|user| user.auth.takes_tokens() && user.may_use(name));
    if let Some(user) = tokens {
        let user = &user.name;
        if endpoint.hostnames.is_empty() {
            source.warn(format!(
                "endpoint \"{name}\": user \"{user}\" logs in with tokens, but no `hostnames` say what they may be signed \
                 for: every token is refused here"
            ));
        }
        let has_tcp = endpoint.listen.iter().any(|address| matches!(address, ListenAddress::Tcp(_)));
        if endpoint.tls == EndpointTls::Off && has_tcp {
            source.warn(format!(
                "endpoint \"{name}\": user \"{user}\" logs in with tokens, which need TLS; with tls = \"off\" they can't"
            ));
        }
    }
    let is_open = endpoint.listen.iter().any(|address| match address {
        ListenAddress::Tcp(address) => !address.ip().to_canonical().is_loopback(),
        ListenAddress::Unix(_) => false,
    });
    match endpoint.tls {
        EndpointTls::Off if is_open => source.warn(format!(
            "endpoint \"{name}\": listens off loopback with tls = \"off\"; rows cross the network in the clear"
        )),
        EndpointTls::Optional if is_open => source.warn(format!(
            "endpoint \"{name}\": listens off loopback with tls = \"optional\"; a client may leave TLS out"
        )),
        EndpointTls::Required | EndpointTls::Optional | EndpointTls::Off => {}
    }
}

fn look_at_group(group: &TargetGroupConfig, config: &Config, source: &Source<'_>) {
    let name = &group.name;
    if !config.endpoints.iter().any(|e| e.target_group == *name) {
        source.warn(format!("target group \"{name}\": no endpoint leads to it"));
    }
    let min = group.pool.min_connections;
    if let ConnectionLimit::Absolute(max) = group.pool.max_connections
        && min >= usize::try_from(max).unwrap_or(usize::MAX)
    {
        source.warn(format!(
            "target group \"{name}\": min_connections = {min} can't be reached: max_connections is {max}, and the proxy's \
             own connections count too"
        ));
    }
    let is_remote = group.targets.iter().any(is_remote);
    match group.tls.mode {
        TargetTlsMode::Off if is_remote => {
            source.warn(format!("target group \"{name}\": tls = \"off\"; rows cross the network in the clear"))
        }
        TargetTlsMode::Require if group.engine == Engine::MySql => source.warn(format!(
            "target group \"{name}\": tls = \"require\" encrypts but takes any certificate, so the proxy does not say a password \
             over it: logins at MySQL (caching_sha2_password) fail whenever that has restarted, or another server has taken \
             over; use \"verify-full\" or \"verify-ca\""
        )),
        TargetTlsMode::Require if is_remote => source.warn(format!(
            "target group \"{name}\": tls = \"require\" encrypts but takes any certificate; use \"verify-full\""
        )),
        TargetTlsMode::VerifyFull | TargetTlsMode::VerifyCa | TargetTlsMode::Require | TargetTlsMode::Off => {}
    }
    let is_verified = matches!(group.tls.mode, TargetTlsMode::VerifyFull | TargetTlsMode::VerifyCa);
    if group.tls.ca_file.is_some() && !is_verified {
        source.warn(format!(
            "target group \"{name}\": ca_file has no effect unless tls is \"verify-full\" or \"verify-ca\""
        ));
    }
}

fn is_remote(target: &TargetAddress) -> bool {
    match target {
        TargetAddress::Unix(_) => false,
        TargetAddress::Tcp { host, .. } => {
            host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}
