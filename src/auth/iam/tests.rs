//! Tokens as the SDKs make them, and all the ways in which one can be wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::auth::{Authenticator, PasswordRefusal, Refused};
use crate::config::{AuthMethod, Effect, StatementConfig};
use crate::protocol::{ClientError, Password};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

const NOW: &str = "20161107T173933Z";
const HOST: &str = "host.us-east-1.amazonaws.com";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn at(date: &str) -> SystemTime {
    time_of(date).unwrap()
}

fn after(seconds: i64) -> SystemTime {
    let moment = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { at(NOW) - moment } else { at(NOW) + moment }
}

fn statement(effect: Effect, action: &str, resource: &str) -> StatementConfig {
    StatementConfig { effect, actions: vec![action.to_owned()], resources: vec![resource.to_owned()] }
}

fn identity(id: &str, key: &str, token: Option<&str>, statements: Vec<StatementConfig>) -> IdentityConfig {
    IdentityConfig {
        access_key_id: id.to_owned(),
        secret_access_key: secret(key),
        session_token: token.map(secret),
        statements,
    }
}

fn allowing(id: &str, key: &str, token: Option<&str>) -> IdentityConfig {
    identity(id, key, token, vec![statement(Effect::Allow, "rds-db:connect", "*")])
}

fn config(identities: Vec<IdentityConfig>) -> IamConfig {
    IamConfig {
        region: "us-east-1".to_owned(),
        account: "123456789012".to_owned(),
        resource_id: "prx-1".to_owned(),
        identities,
        max_token_age: EXPIRES,
        clock_skew: Duration::from_secs(300),
    }
}

fn iam(identities: Vec<IdentityConfig>) -> Iam {
    Iam::new(&config(identities), secret("nobody knows"))
}

/// The one key of most tests.
fn ours() -> Iam {
    iam(vec![allowing("access_key", "secret_key", None)])
}

fn names(names: &[(&str, u16)]) -> Vec<(String, u16)> {
    names.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
}

fn verify(iam: &Iam, token: &str, hosts: &[(&str, u16)], user: &str, now: SystemTime) -> Result<(), TokenRefusal> {
    iam.verify(token.as_bytes(), Claim { hostnames: &names(hosts), user }, now)
}

/// The token of the first vector, in botocore's order.
const GOOD: &str = "host.us-east-1.amazonaws.com:3306/?Action=connect&DBUser=mySQLUser&X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=access_key%2F20161107%2Fus-east-1%2Frds-db%2Faws4_request&X-Amz-Date=20161107T173933Z\
    &X-Amz-Expires=900&X-Amz-SignedHeaders=host\
    &X-Amz-Signature=87ab58107ef49f1c311a412f98b7f976b0b5152ffb559f0d36c6c9a0c5e0e362";

fn judged(token: &str) -> Result<(), TokenRefusal> {
    verify(&ours(), token, &[(HOST, 3306)], "mySQLUser", at(NOW))
}

/// The first vector with something else signed properly.
fn signed(change: impl FnOnce(&mut Changed)) -> String {
    let mut changed = Changed::default();
    change(&mut changed);
    changed.token()
}

/// What a signer who knows the key could have written instead.
struct Changed {
    address: &'static str,
    host: &'static str,
    query: &'static str,
    service: &'static str,
    region: &'static str,
    key_id: &'static str,
    key: &'static str,
    security_token: Option<&'static str>,
    made: SystemTime,
    expires: u64,
}

impl Default for Changed {
    fn default() -> Self {
        Self {
            address: "host.us-east-1.amazonaws.com:3306",
            host: "host.us-east-1.amazonaws.com:3306",
            query: "Action=connect&DBUser=mySQLUser",
            service: SERVICE,
            region: "us-east-1",
            key_id: "access_key",
            key: "secret_key",
            security_token: None,
            made: at(NOW),
            expires: 900,
        }
    }
}

impl Changed {
    fn sign(&self) -> (Pairs, String) {
        self.try_sign().unwrap()
    }

    /// `None`: such a thing can't be signed.
    fn try_sign(&self) -> Option<(Pairs, String)> {
        let request = Request {
            host: self.host,
            query: self.query,
            service: self.service,
            region: self.region,
            security_token: self.security_token,
            made: self.made,
            expires: Duration::from_secs(self.expires),
        };
        request.sign((self.key_id, &secret(self.key)))
    }

    fn token(&self) -> String {
        self.try_token().unwrap()
    }

    fn try_token(&self) -> Option<String> {
        let pairs = self.try_sign()?.0;
        let pairs = pairs.iter().map(|(name, value)| format!("&{name}={}", token::encoded(value)));
        Some(format!("{}/?{}{}", self.address, self.query, pairs.collect::<String>()))
    }
}

#[test]
fn the_vectors_of_the_sdks_hold() {
    assert_eq!(judged(GOOD), Ok(()));
    assert_eq!(signed(|_| ()).rsplit_once('=').unwrap().1, GOOD.rsplit_once('=').unwrap().1);
    let second = iam(vec![allowing("akid", "skid", None)]);
    let host = "prod-instance.us-east-1.rds.amazonaws.com";
    let keys = |id: &str, key: &str, token: Option<&str>| Keys {
        access_key_id: id.to_owned(),
        secret_access_key: secret(key),
        session_token: token.map(secret),
    };
    let token = make_token(&keys("akid", "skid", None), host, 3306, "someusername", "us-east-1", at(NOW)).unwrap();
    assert!(token.ends_with("d1138cdbc0ca63eec012ec0fc6c2267e03642168f5884a7795320d4c18374c61"), "{token}");
    assert_eq!(verify(&second, &token, &[(host, 3306)], "someusername", at(NOW)), Ok(()));
    // Awkward characters, and a security token.
    let third = iam(vec![allowing("AKIDEXAMPLE", "SECRETEXAMPLE", Some("tok/en+with=chars"))]);
    let (host, made) = ("db.example.us-east-1.rds.amazonaws.com", at("20240101T000000Z"));
    let keys = keys("AKIDEXAMPLE", "SECRETEXAMPLE", Some("tok/en+with=chars"));
    let token = make_token(&keys, host, 5432, "app user+x@y", "us-east-1", made).unwrap();
    assert!(token.contains("=a7986c2dcd71c7c995452ef0fab8a3fc00004f407500282c52c30285ad4cf1d5"), "{token}");
    assert_eq!(verify(&third, &token, &[(host, 5432)], "app user+x@y", made), Ok(()));
}

/// The signing core is right for DSQL's tokens, too, and they are none of ours.
#[test]
fn dsql_tokens_are_signed_right_and_refused() {
    for (query, signature) in [
        ("Action=DbConnect", "57fe03e060348aaa21405c239bf02572bbc911076e94dcd65c12ae569dd8fcf4"),
        ("Action=DbConnectAdmin", "5ac084bc7cabccc19a52a5d1b5c24b50d3ce143f43b659bd484c91aaf555e190"),
    ] {
        let dsql = Changed {
            address: "test.dsql.us-east-1.on.aws",
            host: "test.dsql.us-east-1.on.aws",
            query,
            service: "dsql",
            key_id: "ACCESS_KEY",
            key: "SECRET_KEY",
            security_token: Some("SESSION_TOKEN"),
            made: at("20241107T173933Z"),
            ..Changed::default()
        };
        assert_eq!(dsql.sign().1, signature);
        assert!(judged(&dsql.token()).is_err());
    }
}

#[test]
fn vectors_that_a_wrong_verifier_would_take() {
    // Signed without the port, and with an unsigned payload.
    let without_port = signed(|changed| changed.host = HOST);
    assert!(without_port.contains("X-Amz-Signature=27475fa9"), "{without_port}");
    assert_eq!(judged(&without_port), Err(TokenRefusal::Signature));
    let (signed, _) = GOOD.rsplit_once('=').unwrap();
    let unsigned = format!("{signed}=dd60408f721793553c311ea855e785f589ab46007a135581fe99444cff3296bd");
    assert_eq!(judged(&unsigned), Err(TokenRefusal::Signature));
}

#[test]
fn signers_differ_and_are_understood() {
    let (address, query) = GOOD.split_once("/?").unwrap();
    let mut parameters: Vec<&str> = query.split('&').collect();
    // Any order, the signature first too; and an old signer without the slash.
    for _ in 0..parameters.len() {
        parameters.rotate_left(1);
        assert_eq!(judged(&format!("{address}/?{}", parameters.join("&"))), Ok(()));
        assert_eq!(judged(&format!("{address}?{}", parameters.join("&"))), Ok(()));
    }
    // Lower-case digits in escapes.
    assert_eq!(judged(&GOOD.replace("%2F", "%2f")), Ok(()));
    // botocore writes the name as given and signs it in lower case; others sign what they write.
    let ours = ours();
    for host in ["Host.US-East-1.amazonaws.com:3306", "host.us-east-1.amazonaws.com:3306"] {
        let token = signed(|changed| {
            changed.address = "Host.US-East-1.amazonaws.com:3306";
            changed.host = host;
        });
        assert_eq!(verify(&ours, &token, &[(HOST, 3306)], "mySQLUser", at(NOW)), Ok(()), "{host}");
    }
    // Port 443 alone may be left out of what is signed.
    for host in ["host.us-east-1.amazonaws.com:443", HOST] {
        let token = signed(|changed| {
            changed.address = "host.us-east-1.amazonaws.com:443";
            changed.host = host;
        });
        assert_eq!(verify(&ours, &token, &[(HOST, 443)], "mySQLUser", at(NOW)), Ok(()), "{host}");
    }
}

/// Each way a token can be wrong, with the reason that the log has for it.
fn wrong_tokens() -> Vec<(String, TokenRefusal)> {
    use TokenRefusal::*;
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    let without = |name: &str| {
        let (address, query) = GOOD.split_once("/?").unwrap();
        let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect();
        format!("{address}/?{}", rest.join("&"))
    };
    vec![
        // Form.
        (String::new(), Malformed("it has no query")),
        ("hunter2".to_owned(), Malformed("it has no query")),
        (format!("{GOOD}{}", "x".repeat(64 << 10)), Malformed("it is longer than 64 KiB")),
        (with("host.us-east-1.amazonaws.com:3306/", "/"), Malformed("it has no host and port")),
        (with(":3306/", "/"), Malformed("it has no host and port")),
        (with("host.us-east-1.amazonaws.com:", ":"), Malformed("its host is not a name")),
        (with("host.us-east-1", "https://host.us-east-1"), Malformed("its host is not a name")),
        (with("host.us", "user@host.us"), Malformed("its host is not a name")),
        (with(":3306", ":0"), Malformed("its port is not a number from 1 to 65535")),
        (with(":3306", ":03306"), Malformed("its port is not a number from 1 to 65535")),
        (with(":3306", ":65536"), Malformed("its port is not a number from 1 to 65535")),
        (with(":3306", ":+3306"), Malformed("its port is not a number from 1 to 65535")),
        (with("/?", "/path?"), Malformed("its path is not /")),
        (with("/?", "//?"), Malformed("its path is not /")),
        (format!("{GOOD}&"), Malformed("a parameter has no value")),
        (format!("{GOOD}&flag"), Malformed("a parameter has no value")),
        (with("%2Fus-east", "%2us-east"), Malformed("its percent-encoding is broken")),
        (with("%2F", "%G0"), Malformed("its percent-encoding is broken")),
        (with("%2F", "%FF"), Malformed("its percent-encoding is broken")),
        (format!("{GOOD}%"), Malformed("its percent-encoding is broken")),
        // Parameters.
        (format!("{GOOD}&Action=connect"), Twice("Action")),
        (format!("{GOOD}&DBUser=mySQLUser"), Twice("DBUser")),
        (format!("{GOOD}&X-Amz-Signature=00"), Twice("X-Amz-Signature")),
        (format!("{GOOD}&DB%55ser=root"), Twice("DBUser")),
        (format!("{GOOD}&X-Amz-Extra=1"), UnknownParameter),
        (with("Action=", "action="), UnknownParameter),
        (without("Action"), Missing("Action")),
        (without("DBUser"), Missing("DBUser")),
        (without("X-Amz-Algorithm"), Missing("X-Amz-Algorithm")),
        (without("X-Amz-Credential"), Missing("X-Amz-Credential")),
        (without("X-Amz-Date"), Missing("X-Amz-Date")),
        (without("X-Amz-Expires"), Missing("X-Amz-Expires")),
        (without("X-Amz-SignedHeaders"), Missing("X-Amz-SignedHeaders")),
        (without("X-Amz-Signature"), Missing("X-Amz-Signature")),
        // Values.
        (with("Action=connect", "Action=Connect"), Action),
        (with("Action=connect", "Action="), Action),
        (with("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), Algorithm),
        (with("SignedHeaders=host", "SignedHeaders=host%3Bdate"), SignedHeaders),
        (with("SignedHeaders=host", "SignedHeaders="), SignedHeaders),
        (with("access_key%2F", "access_key%2F%2F"), Credential),
        (with("access_key%2F", ""), Credential),
        (with("access_key%2F", "%2F"), Credential),
        (with("%2F20161107%2F", "%2F20161108%2F"), ScopeDate),
        (with("%2Fus-east-1%2F", "%2Fus-east-2%2F"), Region),
        (with("%2Fus-east-1%2F", "%2FUS-EAST-1%2F"), Region),
        (with("%2Frds-db%2F", "%2Frds%2F"), Service),
        (with("aws4_request", "aws3_request"), Terminator),
        (with("Date=20161107T173933Z", "Date=20161107T173933"), Date),
        (with("Date=20161107T173933Z", "Date=20161107t173933z"), Date),
        (with("Date=20161107T173933Z", "Date=20161307T173933Z"), Date),
        (with("Date=20161107T173933Z", "Date=20161107T253933Z"), Date),
        (with("Date=20161107T173933Z", "Date=19691231T235959Z"), Date),
        (with("Expires=900", "Expires=0"), Expires),
        (with("Expires=900", "Expires=-1"), Expires),
        (with("Expires=900", "Expires=9e2"), Expires),
        (with("Expires=900", "Expires=604801"), Expires),
        // Keys and signatures.
        (with("access_key%2F", "access_kez%2F"), UnknownKey),
        (signed(|changed| changed.key = "secret_kez"), Signature),
        (with("Signature=87", "Signature=88"), Signature),
        (with("Signature=87", "Signature=8"), Signature),
        (with("e362", "E362"), Signature),
        (with("mySQLUser", "mySQLUses"), Signature),
        (with(":3306", ":3307"), Signature),
        (with("host.us", "most.us"), Signature),
        (with("Expires=900", "Expires=899"), Signature),
        (with("173933Z", "173934Z"), Signature),
        (format!("{GOOD}&X-Amz-Security-Token=x"), NeedlessSecurityToken),
        (signed(|changed| changed.security_token = Some("x")), NeedlessSecurityToken),
        // Signed by one who may, for something else.
        (signed(|changed| (changed.address, changed.host) = ("other:3306", "other:3306")), HostName),
        (
            signed(|changed| {
                (changed.address, changed.host) =
                    ("host.us-east-1.amazonaws.com:3307", "host.us-east-1.amazonaws.com:3307");
            }),
            HostName,
        ),
        (signed(|changed| changed.query = "Action=connect&DBUser=root"), User),
        (signed(|changed| changed.query = "Action=connect&DBUser=mysqluser"), User),
        (signed(|changed| changed.query = "Action=connect&DBUser="), User),
        (signed(|changed| changed.made = after(301)), Ahead),
        (signed(|changed| changed.made = after(-901)), Expired),
        (signed(|changed| (changed.made, changed.expires) = (after(-61), 60)), Expired),
        (signed(|changed| (changed.made, changed.expires) = (after(-901), 86_400)), Expired),
    ]
}

#[test]
fn every_way_to_be_wrong_has_its_reason() {
    let cases = wrong_tokens();
    assert!(cases.len() >= 70);
    for (token, reason) in cases {
        assert_eq!(judged(&token), Err(reason), "{token}");
    }
}

/// The whole way through, as a session asks: the log has the reason, the client always hears the same.
#[test]
fn every_way_to_be_wrong_is_told_in_the_same_words() {
    let text = format!(
        "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\nhostnames=['{HOST}:3306']\n\
         [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n\
         [target_group.health]\nuser='m'\npassword={{ value='m' }}\n"
    );
    let config_of = |text: &str| crate::config::Config::parse(text, "proxy.toml", &|_| None).unwrap();
    let endpoints = config_of(&text).endpoints;
    let user = |name: &str, auth| crate::config::UserConfig {
        native_password: false,
        name: name.to_owned(),
        auth,
        certificate_names: Vec::new(),
        password: Some(secret("hunter1")),
        database_user: name.to_owned(),
        database_auth: crate::config::DatabaseAuth::Password,
        endpoints: None,
        max_clients: None,
        max_connections: None,
    };
    let judge = |auth, iam: &IamConfig, name: &str, text: &str| {
        let users = [user("mySQLUser", auth)];
        let authenticator = Authenticator::new(&users, &endpoints, Some(iam), None).unwrap();
        authenticator.judge("e", name, &Password::new(text), at(NOW))
    };
    let told = |name: &str| ClientError::TokenRefused { user: name.to_owned() };
    let wrong_password = |name: &str| ClientError::LoginRefused { user: name.to_owned() };
    let ours = config(vec![allowing("access_key", "secret_key", None)]);
    let temporary = config(vec![allowing("access_key", "secret_key", Some("session"))]);
    let policy =
        |statements: Vec<StatementConfig>| config(vec![identity("access_key", "secret_key", None, statements)]);
    let deny = statement(Effect::Deny, "*", "*:dbuser:prx-1/mySQL?ser");
    let allow = |action: &str, resource: &str| statement(Effect::Allow, action, resource);
    let mut cases: Vec<(IamConfig, String, PasswordRefusal)> =
        wrong_tokens().into_iter().map(|(token, reason)| (ours.clone(), token, reason.into())).collect();
    for (iam, token, reason) in [
        (temporary.clone(), GOOD.to_owned(), TokenRefusal::NoSecurityToken),
        (temporary, signed(|changed| changed.security_token = Some("sessiom")), TokenRefusal::SecurityToken),
        (policy(vec![]), GOOD.to_owned(), TokenRefusal::NotAllowed),
        (policy(vec![allow("rds-db:connect", "*/mySQLUse")]), GOOD.to_owned(), TokenRefusal::NotAllowed),
        (policy(vec![allow("rds-db:Connect2", "*")]), GOOD.to_owned(), TokenRefusal::NotAllowed),
        (policy(vec![allow("rds:connect", "*")]), GOOD.to_owned(), TokenRefusal::NotAllowed),
        (policy(vec![allow("*", "*"), deny.clone()]), GOOD.to_owned(), TokenRefusal::Denied),
        (policy(vec![deny, allow("*", "*")]), GOOD.to_owned(), TokenRefusal::Denied),
    ] {
        cases.push((iam, token, reason.into()));
    }
    for (iam, token, reason) in cases {
        let is_token = is_token(token.as_bytes());
        let reason = if is_token { reason } else { PasswordRefusal::NotToken };
        let refused = judge(AuthMethod::Iam, &iam, "mySQLUser", &token);
        assert_eq!(refused, Err(Refused { reason, told: told("mySQLUser") }), "{token}");
        // Where passwords are taken, too, what is none is one.
        let refused = judge(AuthMethod::IamOrPassword, &iam, "mySQLUser", &token).unwrap_err();
        let expected = if is_token {
            Refused { reason, told: told("mySQLUser") }
        } else {
            Refused { reason: PasswordRefusal::Wrong, told: wrong_password("mySQLUser") }
        };
        assert_eq!(refused, expected, "{token}");
    }
    // What is good, and what one learns who does not exist: the same words for the same kind of thing.
    for auth in [AuthMethod::Iam, AuthMethod::IamOrPassword] {
        assert_eq!(judge(auth, &ours, "mySQLUser", GOOD), Ok(()));
        let good_for_nobody = signed(|changed| changed.query = "Action=connect&DBUser=nobody");
        for token in [GOOD, &good_for_nobody, &GOOD.replace("Expires=900", "Expires=899")] {
            let refused = judge(auth, &ours, "nobody", token).unwrap_err();
            assert_eq!(refused, Refused { reason: PasswordRefusal::UnknownUser, told: told("nobody") }, "{token}");
        }
    }
    assert_eq!(judge(AuthMethod::IamOrPassword, &ours, "mySQLUser", "hunter1"), Ok(()));
    for (name, reason) in [("mySQLUser", PasswordRefusal::Wrong), ("nobody", PasswordRefusal::UnknownUser)] {
        let refused = judge(AuthMethod::IamOrPassword, &ours, name, "hunter3").unwrap_err();
        assert_eq!(refused, Refused { reason, told: wrong_password(name) });
    }
    let refused = judge(AuthMethod::Iam, &ours, "nobody", "hunter1").unwrap_err();
    assert_eq!(refused, Refused { reason: PasswordRefusal::UnknownUser, told: told("nobody") });
}

/// No token is good that differs in a byte from a good one, but for the case of the host's name.
#[test]
fn no_byte_can_be_another() {
    let temporary = iam(vec![allowing("access_key", "secret_key", Some("session"))]);
    let with_session = signed(|changed| changed.security_token = Some("session"));
    let mixed = signed(|changed| {
        changed.address = "Host.us-east-1.amazonaws.com:443";
        changed.host = "Host.us-east-1.amazonaws.com";
    });
    let ours = ours();
    for (iam, token, port) in [(&ours, GOOD, 3306), (&temporary, &with_session, 3306), (&ours, &mixed, 443)] {
        let hosts = names(&[(HOST, port)]);
        let claim = Claim { hostnames: &hosts, user: "mySQLUser" };
        assert_eq!(iam.verify(token.as_bytes(), claim, at(NOW)), Ok(()));
        let good = Token::parse(token.as_bytes()).unwrap();
        for position in 0..token.len() {
            for byte in 0..=u8::MAX {
                let mut changed = token.as_bytes().to_vec();
                changed[position] = byte;
                let verdict = iam.verify(&changed, claim, at(NOW));
                // A host that was signed in lower case may be written in any, as botocore does.
                let same = Token::parse(&changed).is_ok_and(|changed| {
                    let is_lower = good.host == good.host.to_ascii_lowercase();
                    let host_fits =
                        changed.host == good.host || (is_lower && changed.host.to_ascii_lowercase() == good.host);
                    host_fits && Token { host: good.host.clone(), ..changed } == good
                });
                if verdict.is_ok() != same {
                    panic!("{position} {byte:?}: {verdict:?} for {}", changed.escape_ascii());
                }
            }
        }
    }
}

#[test]
fn security_tokens_are_held_against_the_key() {
    let temporary = iam(vec![allowing("access_key", "secret_key", Some("session"))]);
    let judged = |token: Option<&'static str>| {
        let token = signed(|changed| changed.security_token = token);
        verify(&temporary, &token, &[(HOST, 3306)], "mySQLUser", at(NOW))
    };
    assert_eq!(judged(Some("session")), Ok(()));
    assert_eq!(judged(None), Err(TokenRefusal::NoSecurityToken));
    assert_eq!(judged(Some("sessiom")), Err(TokenRefusal::SecurityToken));
    assert_eq!(judged(Some("")), Err(TokenRefusal::SecurityToken));
}

#[test]
fn policies_decide_at_the_end() {
    let resource = "arn:aws:rds-db:us-east-1:123456789012:dbuser:prx-1/mySQLUser";
    let judged = |statements: Vec<StatementConfig>| {
        let iam = iam(vec![identity("access_key", "secret_key", None, statements)]);
        verify(&iam, GOOD, &[(HOST, 3306)], "mySQLUser", at(NOW))
    };
    let allow = |resource: &str| statement(Effect::Allow, "rds-db:connect", resource);
    assert_eq!(judged(vec![allow(resource)]), Ok(()));
    assert_eq!(judged(vec![]), Err(TokenRefusal::NotAllowed));
    assert_eq!(
        judged(vec![allow("arn:aws:rds-db:us-east-1:123456789012:dbuser:prx-2/*")]),
        Err(TokenRefusal::NotAllowed)
    );
    let deny = statement(Effect::Deny, "rds-db:*", "*/mySQL*");
    assert_eq!(judged(vec![allow("*"), deny]), Err(TokenRefusal::Denied));
}

#[test]
fn a_token_is_good_from_a_little_early_to_a_little_late() {
    let judged = |iam: &Iam, seconds| verify(iam, GOOD, &[(HOST, 3306)], "mySQLUser", after(seconds));
    let ours = ours();
    for (seconds, expected) in [
        (-301, Err(TokenRefusal::Ahead)),
        (-300, Ok(())),
        (0, Ok(())),
        (900, Ok(())),
        (901, Err(TokenRefusal::Expired)),
        (1_000_000_000, Err(TokenRefusal::Expired)),
    ] {
        assert_eq!(judged(&ours, seconds), expected, "{seconds}");
    }
    let strict = Iam::new(
        &IamConfig {
            max_token_age: Duration::from_secs(60),
            clock_skew: Duration::ZERO,
            ..config(vec![allowing("access_key", "secret_key", None)])
        },
        secret("nobody knows"),
    );
    for (seconds, expected) in [(-1, Err(TokenRefusal::Ahead)), (60, Ok(())), (61, Err(TokenRefusal::Expired))] {
        assert_eq!(judged(&strict, seconds), expected, "{seconds}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let iam = iam(vec![allowing("access_key", "hunter2", Some("hunter3"))]);
    let token = Token::parse(GOOD.as_bytes()).unwrap();
    let refusals = [GOOD.replace("87ab", "87ac"), GOOD.replace("connect", "c0nnect"), "hunter2".to_owned()]
        .map(|token| verify(&iam, &token, &[], "u", at(NOW)).unwrap_err());
    let keys = Keys { access_key_id: "id".to_owned(), secret_access_key: secret("hunter2"), session_token: None };
    let shown = format!("{iam:?} {token:?} {refusals:?} {} {} {keys:?}", refusals[0], refusals[1]);
    for hidden in ["hunter2", "hunter3", "87ab", "87ac", "c0nnect"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[test]
fn what_is_meant_as_a_token() {
    assert!(is_token(GOOD.as_bytes()));
    assert!(is_token(b"h?X-Amz-Signature="));
    for password in ["", "hunter2", "X-Amz-Signature=1", "is this a password?", "?X-Amz-Signatur="] {
        assert!(!is_token(password.as_bytes()), "{password}");
    }
}

proptest! {
    /// No token is good that differs from a good one in a field that is checked: neither when that is written over the old
    /// signature, nor when it is signed anew by somebody who has the key; unless it says the same.
    #[test]
    fn no_field_can_be_another(
        field in 0..12_usize, text in "[A-Za-z0-9%.:-]{0,24}", session in any::<bool>(), port443 in any::<bool>(), mixed in any::<bool>()
    ) {
        const SESSION: &str = "session";
        let port = if port443 { 443 } else { 3306 };
        let host = if mixed { "Host.US-east-1.amazonaws.com" } else { HOST };
        let security_token = session.then_some(SESSION);
        let text: &'static str = Box::leak(text.into_boxed_str());
        let address: &'static str = Box::leak(format!("{host}:{port}").into_boxed_str());
        let iam = iam(vec![allowing("access_key", "secret_key", security_token)]);
        let judged = |token: &str| verify(&iam, token, &[(HOST, port)], "mySQLUser", at(NOW));
        let base = || Changed { address, host: address, security_token, ..Changed::default() };
        let good = base().token();
        prop_assert_eq!(judged(&good), Ok(()));
        // Written over.
        let pairs: Vec<&str> = good.split_once("/?").unwrap().1.split('&').collect();
        let pair = pairs[field % pairs.len()];
        let name = pair.split_once('=').unwrap().0;
        let over = good.replace(pair, &format!("{name}={text}"));
        let is_same = Token::parse(over.as_bytes()).is_ok_and(|over| over == Token::parse(good.as_bytes()).unwrap());
        prop_assert_eq!(judged(&over).is_ok(), is_same, "{}", over);
        // Signed anew.
        let mut changed = base();
        let seconds = i64::try_from(text.len()).unwrap() * 100 - 1200;
        let may_be_good = match field {
            0 => { changed.address = text; changed.host = text; text.eq_ignore_ascii_case(address) }
            1 => { changed.address = text; text.eq_ignore_ascii_case(address) }
            2 => {
                changed.host = text;
                [address, &address.to_ascii_lowercase()].contains(&text)
                    || (port443 && [host, &host.to_ascii_lowercase()].contains(&text))
            }
            3 => { changed.query = Box::leak(format!("Action=connect&DBUser={text}").into_boxed_str()); text == "mySQLUser" }
            4 => { changed.query = Box::leak(format!("Action={text}&DBUser=mySQLUser").into_boxed_str()); text == "connect" }
            5 => { changed.service = text; text == SERVICE }
            6 => { changed.region = text; text == "us-east-1" }
            7 => { changed.key_id = text; text == "access_key" }
            8 => { changed.key = text; text == "secret_key" }
            9 => { changed.security_token = Some(text); security_token == Some(text) }
            10 => { changed.made = after(seconds); (-900..=300).contains(&seconds) }
            _ => { changed.made = after(-100); changed.expires = text.len() as u64; (100..=604_800).contains(&changed.expires) }
        };
        // Some can't even be signed.
        if let Some(token) = changed.try_token() {
            let verdict = judged(&token);
            prop_assert!(verdict.is_err() || may_be_good, "{}: {:?}", token, verdict);
        }
    }

    /// Whatever is signed properly for this endpoint and user comes in, whatever its characters.
    #[test]
    fn any_user_can_sign(user in "\\PC{1,20}", key in "[ -~]{1,40}", session in proptest::option::of("\\PC{1,30}")) {
        let keys = Keys { access_key_id: "id".to_owned(), secret_access_key: secret(&key), session_token: session.as_deref().map(secret) };
        let token = make_token(&keys, "Db.internal", 6432, &user, "us-east-1", at(NOW)).unwrap();
        let iam = iam(vec![allowing("id", &key, session.as_deref())]);
        let hosts = [("db.internal", 6432)];
        prop_assert_eq!(verify(&iam, &token, &hosts, &user, at(NOW)), Ok(()));
        let other = format!("{user}x");
        prop_assert_eq!(verify(&iam, &token, &hosts, &other, at(NOW)), Err(TokenRefusal::User));
    }

    #[test]
    fn anything_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let verdict = ours().verify(&bytes, Claim { hostnames: &[], user: "" }, at(NOW));
        prop_assert_eq!(verdict.is_err(), true);
    }
}
