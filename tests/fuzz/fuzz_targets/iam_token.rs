//! Any bytes as a token, and any as the policy's pattern: no panic, and nothing but the good token comes in.
//!
//! The input is a pattern, a zero byte, and a password. Seeds hold a good token, so that the fuzzer can change it.
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
    let Ok(pattern) = std::str::from_utf8(&data[..zero]) else { return };
    let password = &data[zero + 1..];
    let authenticator = authenticator(pattern);
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
    let allowed = authenticator.judge("e", "mySQLUser", &Password::new(token), *NOW).is_ok();
    assert!(!holds || allowed);
    assert!(allowed || pattern != "*");
});

fn authenticator(pattern: &str) -> Authenticator {
    let users = [UserConfig {
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
    let statement = StatementConfig {
        effect: Effect::Allow,
        actions: vec!["rds-db:connect".to_owned()],
        resources: vec![pattern.to_owned()],
    };
    let iam = IamConfig {
        region: "us-east-1".to_owned(),
        account: "1".to_owned(),
        resource_id: "p".to_owned(),
        identities: vec![IdentityConfig {
            access_key_id: "access_key".to_owned(),
            secret_access_key: Secret::new("secret_key".to_owned()),
            session_token: None,
            statements: vec![statement],
        }],
        max_token_age: Duration::from_secs(900),
        clock_skew: Duration::ZERO,
    };
    Authenticator::new(&users, &endpoints, Some(&iam), None).unwrap()
}
