//! Tokens as the SDKs make them, and all the ways in which one can be wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::config::{Effect, StatementConfig};
use proptest::prelude::{any, prop_assert_eq, proptest};

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
        let request = Request {
            host: self.host,
            query: self.query,
            service: self.service,
            region: self.region,
            security_token: self.security_token,
            made: self.made,
            expires: Duration::from_secs(self.expires),
        };
        request.sign((self.key_id, &secret(self.key))).unwrap()
    }

    fn token(&self) -> String {
        let pairs = self.sign().0;
        let pairs = pairs.iter().map(|(name, value)| format!("&{name}={}", token::encoded(value)));
        format!("{}/?{}{}", self.address, self.query, pairs.collect::<String>())
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
    let unsigned = GOOD.replace("87ab5810", "dd60408f");
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
#[test]
fn every_way_to_be_wrong_has_its_reason() {
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
    let cases: Vec<(String, TokenRefusal)> = vec![
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
        (with("/?", "/path?"), Malformed("its port is not a number from 1 to 65535")),
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
    ];
    assert!(cases.len() >= 70);
    for (token, reason) in cases {
        assert_eq!(judged(&token), Err(reason), "{token}");
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
    /// No token is good that differs from a good one in anything but the order and spelling of its parameters.
    #[test]
    fn no_other_token_is_good(position in 0..GOOD.len(), byte in any::<u8>()) {
        let mut changed = GOOD.as_bytes().to_vec();
        changed[position] = byte;
        let verdict = ours().verify(&changed, Claim { hostnames: &names(&[(HOST, 3306)]), user: "mySQLUser" }, at(NOW));
        let same = match (Token::parse(GOOD.as_bytes()), Token::parse(&changed)) {
            // Names of hosts are the same in any case.
            (Ok(good), Ok(changed)) => Token { host: changed.host.to_ascii_lowercase(), ..changed } == good,
            _ => false,
        };
        prop_assert_eq!(verdict.is_ok(), same);
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
