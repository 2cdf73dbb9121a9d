//! Any bytes as a token, and any as a policy: no panic, nothing but the good token comes in, and Deny wins.
//!
//! The input is a policy, a zero byte, and a password. Each line of the policy is a statement: `A` or `D`, an action, a blank, a
//! resource. Seeds hold a good token, so that the fuzzer can change it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::auth::{Authenticator, Keys, make_token};
use sluicegate::config::{
    AuthMethod, DatabaseAuth, Effect, EndpointConfig, EndpointRole, EndpointTls, IamConfig, IdentityConfig, Secret,
    StatementConfig, UserConfig,
};
use sluicegate::protocol::Password;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of the vector that the seeds hold.
const SIGNATURE: &[u8] = b"87ab58107ef49f1c311a412f98b7f976b0b5152ffb559f0d36c6c9a0c5e0e362";

static NOW: LazyLock<SystemTime> = LazyLock::new(|| UNIX_EPOCH + Duration::from_secs(1_478_540_373));

fuzz_target!(|data: &[u8]| {
    let Some(zero) = data.iter().position(|byte| *byte == 0) else { return };
    let Ok(policy) = std::str::from_utf8(&data[..zero]) else { return };
    let policy: Vec<StatementConfig> = policy.lines().filter_map(statement).collect();
    let password = &data[zero + 1..];
    let authenticator = authenticator(&policy);
    let holds = authenticator.judge("e", "mySQLUser", &Password::new(password), *NOW).is_ok();
    // The key is known to nobody but the seeds' signer.
    assert!(!holds || password.windows(SIGNATURE.len()).any(|window| window == SIGNATURE));
    assert!(authenticator.judge("e", "nobody", &Password::new(password), *NOW).is_err());
    // What the same pattern lets in is signed anew, and good.
    let keys = Keys {
        access_key_id: "access_key".to_owned(),
        secret_access_key: Secret::new("secret_key".to_owned()),
        session_token: None,
    };
    let host = "host.us-east-1.amazonaws.com";
    let token = make_token(&keys, host, 3306, "mySQLUser", "us-east-1", *NOW).unwrap();
    let token = Password::new(token);
    let allows = |policy: &[StatementConfig]| self::authenticator(policy).judge("e", "mySQLUser", &token, *NOW).is_ok();
    let allowed = allows(&policy);
    assert!(!holds || allowed);
    // Wherever they stand: one Deny for everything wins, and without any a policy allows no less.
    let with = |more: &str| policy.iter().cloned().chain(statement(more)).collect::<Vec<_>>();
    assert!(!allows(&with("D* *")));
    let without: Vec<_> = policy.iter().filter(|statement| statement.effect == Effect::Allow).cloned().collect();
    assert!(!allowed || allows(&without));
    assert!(allows(&with("A* *")) || without.len() < policy.len());
    assert!(!allowed || !without.is_empty());
});

fn statement(line: &str) -> Option<StatementConfig> {
    let effect = match line.as_bytes().first()? {
        b'A' => Effect::Allow,
        b'D' => Effect::Deny,
        _ => return None,
    };
    let (action, resource) = line.get(1..)?.split_once(' ')?;
    Some(StatementConfig { effect, actions: vec![action.to_owned()], resources: vec![resource.to_owned()] })
}

fn authenticator(policy: &[StatementConfig]) -> Authenticator {
    let users = [UserConfig {
        native_password: false,
        name: "mySQLUser".to_owned(),
        auth: AuthMethod::Iam,
        password: None,
        certificate_names: Vec::new(),
        database_user: "u".to_owned(),
        database_auth: DatabaseAuth::Password,
        endpoints: None,
        max_clients: None,
        max_connections: None,
    }];
    let endpoints = [EndpointConfig {
        name: "e".to_owned(),
        listen: Vec::new(),
        hostnames: vec![("host.us-east-1.amazonaws.com".to_owned(), 3306)],
        target_group: String::new(),
        role: EndpointRole::ReadWrite,
        tls: EndpointTls::Required,
        idle_client_timeout: None,
        login_timeout: Duration::from_secs(1),
        max_clients: 1,
        max_logins_per_second: None,
        allow_from: Vec::new(),
        proxy_protocol_from: Vec::new(),
    }];
    let iam = IamConfig {
        region: "us-east-1".to_owned(),
        account: "1".to_owned(),
        resource_id: "p".to_owned(),
        identities: vec![IdentityConfig {
            access_key_id: "access_key".to_owned(),
            secret_access_key: Secret::new("secret_key".to_owned()),
            session_token: None,
            statements: policy.to_vec(),
        }],
        max_token_age: Duration::from_secs(900),
        clock_skew: Duration::ZERO,
    };
    Authenticator::new(&users, &endpoints, Some(&iam), None).unwrap()
}
