//! IAM-style signed tokens: who made this one, and may they come in with it?
//!
//! A token is a presigned GET request of AWS Signature Version 4, as `generate-db-auth-token` makes it
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>). The proxy knows the access keys, computes the
//! signature again with `aws-sigv4` and compares. Promises: every check of docs/TOKENS.md is made, each with a reason of its
//! own for the log; an unknown key costs the same as a known one; nothing here prints a token or a key.

mod policy;
#[cfg(test)]
mod tests;
mod token;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};
use tracing::subscriber::NoSubscriber;

use super::rotating::Rotating;
use crate::config::{IamConfig, IdentityConfig, Secret, StatementConfig};
use policy::Verdict;
use token::Token;

pub(super) use token::is_token;

const ACTION: &str = "connect";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "rds-db";
const TERMINATOR: &str = "aws4_request";
const SIGNED_HEADERS: &str = "host";
/// What signers write, and the most that counts: 15 minutes.
const EXPIRES: Duration = Duration::from_secs(900);
/// What SigV4 allows to be written: a week.
const EXPIRES_MAX: u64 = 7 * 24 * 3600;

/// Why a token is refused. For the log: the client hears the same words each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Not a token.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// A parameter that stands there twice.
    #[error("the token has {0} twice")]
    Twice(&'static str),
    /// A parameter nobody knows.
    #[error("the token has a parameter that does not belong there")]
    UnknownParameter,
    /// A parameter that is not there.
    #[error("the token has no {0}")]
    Missing(&'static str),
    /// Action is not connect.
    #[error("the token's Action is not connect")]
    Action,
    /// Another algorithm.
    #[error("the token's X-Amz-Algorithm is not AWS4-HMAC-SHA256")]
    Algorithm,
    /// Other headers are signed.
    #[error("the token's X-Amz-SignedHeaders is not host")]
    SignedHeaders,
    /// Not KEY/DATE/REGION/SERVICE/aws4_request.
    #[error("the token's X-Amz-Credential does not have its five parts")]
    Credential,
    /// The date in the credential is another.
    #[error("the date in the token's X-Amz-Credential is not that of its X-Amz-Date")]
    ScopeDate,
    /// Another region.
    #[error("the token is signed for another region than `region` of [iam]")]
    Region,
    /// Another service.
    #[error("the token is signed for another service than rds-db")]
    Service,
    /// The end of the scope.
    #[error("the token's X-Amz-Credential does not end with aws4_request")]
    Terminator,
    /// X-Amz-Date is no date.
    #[error("the token's X-Amz-Date is not a time such as 20240101T000000Z")]
    Date,
    /// X-Amz-Expires is no number of seconds.
    #[error("the token's X-Amz-Expires is not a number of seconds from 1 to 604800")]
    Expires,
    /// Nobody knows the access key.
    #[error("the token's access key is not in identities_file")]
    UnknownKey,
    /// The key needs a security token.
    #[error("the token has no X-Amz-Security-Token, and its access key has a session_token")]
    NoSecurityToken,
    /// The key has none.
    #[error("the token has an X-Amz-Security-Token, and its access key has no session_token")]
    NeedlessSecurityToken,
    /// It is another.
    #[error("the token's X-Amz-Security-Token is not the session_token of its access key")]
    SecurityToken,
    /// Something was changed, or the secret is another.
    #[error("the token's signature does not fit: another secret key, or something was changed")]
    Signature,
    /// Signed for somebody else.
    #[error("the token is signed for a host and port that are not in `hostnames` of this endpoint")]
    HostName,
    /// For another user.
    #[error("the token's DBUser is not the user who logs in")]
    User,
    /// Too old.
    #[error("the token has expired")]
    Expired,
    /// Made in the future.
    #[error("the token's time is ahead of this machine's clock by more than clock_skew")]
    Ahead,
    /// No policy allows it.
    #[error("no statement of the access key's policy allows rds-db:connect for this user")]
    NotAllowed,
    /// A policy denies it.
    #[error("a statement of the access key's policy denies rds-db:connect for this user")]
    Denied,
}

/// What a token is held against, beside the keys.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The names and ports of the endpoint, in lower case.
    pub hostnames: &'a [(String, u16)],
    /// The user who logs in.
    pub user: &'a str,
}

/// The keys and policies. Immutable; a reload makes a new one.
pub struct Iam {
    region: String,
    account: String,
    resource_id: String,
    identities: HashMap<String, Identity>,
    max_token_age: Duration,
    clock_skew: Duration,
    /// What an unknown key's signature is computed with.
    mock_key: Secret,
}

/// An access key: what it signs with may change while the proxy runs.
struct Identity {
    secret_access_key: Arc<Rotating>,
    session_token: Option<Arc<Rotating>>,
    statements: Vec<StatementConfig>,
}

impl Identity {
    fn new(config: &IdentityConfig) -> Self {
        Self {
            secret_access_key: Arc::new(Rotating::new(config.secret_access_key.clone())),
            session_token: config.session_token.clone().map(|token| Arc::new(Rotating::new(token))),
            statements: config.statements.clone(),
        }
    }
}

impl fmt::Debug for Iam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Iam(***)")
    }
}

impl Iam {
    /// Takes the configuration's keys; `mock_key` is anything nobody knows.
    pub fn new(config: &IamConfig, mock_key: Secret) -> Self {
        let identities = config.identities.iter().map(|known| (known.access_key_id.clone(), Identity::new(known)));
        Self {
            region: config.region.clone(),
            account: config.account.clone(),
            resource_id: config.resource_id.clone(),
            identities: identities.collect(),
            max_token_age: config.max_token_age.min(EXPIRES),
            clock_skew: config.clock_skew,
            mock_key,
        }
    }

    /// The keys and security tokens, with their access key's id.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &Arc<Rotating>)> {
        self.identities.iter().flat_map(|(id, identity)| {
            let secrets = std::iter::once(&identity.secret_access_key).chain(&identity.session_token);
            secrets.map(|secret| (id.as_str(), secret))
        })
    }

    /// The access key that this token names, and what it signs with. `None`: nobody knows it.
    pub fn key_of(&self, text: &[u8]) -> Option<(&str, impl Iterator<Item = &Arc<Rotating>>)> {
        let token = Token::parse(text).ok()?;
        let (id, identity) = self.identities.get_key_value(token.credential.split('/').next()?)?;
        Some((id, std::iter::once(&identity.secret_access_key).chain(&identity.session_token)))
    }

    /// Makes all checks.
    pub fn verify(&self, text: &[u8], claim: Claim<'_>, now: SystemTime) -> Result<(), TokenRefusal> {
        let token = Token::parse(text)?;
        check(token.action == ACTION, TokenRefusal::Action)?;
        check(token.algorithm == ALGORITHM, TokenRefusal::Algorithm)?;
        check(token.signed_headers == SIGNED_HEADERS, TokenRefusal::SignedHeaders)?;
        let scope: Vec<&str> = token.credential.split('/').collect();
        let [key_id, date, region, service, terminator] = scope[..] else { return Err(TokenRefusal::Credential) };
        check(!key_id.is_empty(), TokenRefusal::Credential)?;
        let made = time_of(&token.date).ok_or(TokenRefusal::Date)?;
        let expires = token::decimal(&token.expires).filter(|seconds| (1..=EXPIRES_MAX).contains(seconds));
        let expires = Duration::from_secs(expires.ok_or(TokenRefusal::Expires)?);
        check(token.date.get(..8) == Some(date), TokenRefusal::ScopeDate)?;
        check(region == self.region, TokenRefusal::Region)?;
        check(service == SERVICE, TokenRefusal::Service)?;
        check(terminator == TERMINATOR, TokenRefusal::Terminator)?;
        let identity = self.identities.get(key_id);
        let security_token = match (identity.and_then(|known| known.session_token.as_ref()), &token.security_token) {
            (None, Some(_)) if identity.is_some() => Err(TokenRefusal::NeedlessSecurityToken),
            (Some(_), None) => Err(TokenRefusal::NoSecurityToken),
            (Some(ours), Some(theirs)) => {
                check(is_same(ours.current().expose().as_bytes(), theirs.as_bytes()), TokenRefusal::SecurityToken)
            }
            _ => Ok(()),
        };
        let secret = identity.map(|identity| identity.secret_access_key.current());
        let secret = secret.as_deref().unwrap_or(&self.mock_key);
        let is_signed = self.is_signed(&token, (key_id, secret), made, expires);
        let identity = identity.ok_or(TokenRefusal::UnknownKey)?;
        security_token?;
        check(is_signed, TokenRefusal::Signature)?;
        let host = token.host.to_ascii_lowercase();
        let is_ours = claim.hostnames.iter().any(|(name, port)| *name == host && *port == token.port);
        check(is_ours, TokenRefusal::HostName)?;
        check(token.user == claim.user, TokenRefusal::User)?;
        if let Ok(ahead) = made.duration_since(now) {
            check(ahead <= self.clock_skew, TokenRefusal::Ahead)?;
        }
        let age = now.duration_since(made).unwrap_or_default();
        check(age <= expires.min(self.max_token_age), TokenRefusal::Expired)?;
        let resource = policy::resource(&self.region, &self.account, &self.resource_id, claim.user);
        match policy::evaluate(&identity.statements, &resource) {
            Verdict::Allowed => Ok(()),
            Verdict::NotAllowed => Err(TokenRefusal::NotAllowed),
            Verdict::Denied => Err(TokenRefusal::Denied),
        }
    }

    /// Whether the signature is this key's. Signers differ in how they write the host they sign: as given, or in lower
    /// case; botocore leaves port 443 out.
    fn is_signed(&self, token: &Token, key: (&str, &Secret), made: SystemTime, expires: Duration) -> bool {
        let mut hosts = vec![token.host.clone()];
        let lower = token.host.to_ascii_lowercase();
        if lower != token.host {
            hosts.push(lower);
        }
        let bare = if token.port == 443 { hosts.clone() } else { Vec::new() };
        hosts.iter_mut().for_each(|host| *host = format!("{host}:{}", token.port));
        hosts.extend(bare);
        // All are tried whatever comes of them.
        hosts.iter().fold(false, |found, host| {
            let request = Request {
                host,
                query: &format!("Action={ACTION}&DBUser={}", token::encoded(&token.user)),
                service: SERVICE,
                region: &self.region,
                security_token: token.security_token.as_deref(),
                made,
                expires,
            };
            let signature = request.sign(key).map(|(_, signature)| signature).unwrap_or_default();
            found | (!signature.is_empty() && is_same(signature.as_bytes(), token.signature.as_bytes()))
        })
    }
}

/// Keys to sign with.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Not secret.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: Secret,
    /// Of temporary keys.
    pub session_token: Option<Secret>,
}

/// Makes a token, good for 15 minutes, for this host, port, user and region. `None`: the keys or names can't be used.
pub fn make_token(keys: &Keys, host: &str, port: u16, user: &str, region: &str, now: SystemTime) -> Option<String> {
    let address = format!("{host}:{port}");
    let action = format!("Action={ACTION}&DBUser={}", token::encoded(user));
    let request = Request {
        host: &address,
        query: &action,
        service: SERVICE,
        region,
        security_token: keys.session_token.as_ref().map(Secret::expose),
        made: now,
        expires: EXPIRES,
    };
    let (parameters, _) = request.sign((&keys.access_key_id, &keys.secret_access_key))?;
    let pairs = parameters.iter().map(|(name, value)| format!("&{name}={}", token::encoded(value)));
    Some(format!("{address}/?{action}{}", pairs.collect::<String>()))
}

/// What is signed.
struct Request<'a> {
    /// The value of the Host header.
    host: &'a str,
    /// Parameters that are not the signature's own, encoded.
    query: &'a str,
    service: &'a str,
    region: &'a str,
    security_token: Option<&'a str>,
    made: SystemTime,
    expires: Duration,
}

type Pairs = Vec<(Cow<'static, str>, Cow<'static, str>)>;

impl Request<'_> {
    /// The signature's parameters, not encoded, and the signature itself.
    fn sign(&self, (key_id, secret): (&str, &Secret)) -> Option<(Pairs, String)> {
        let token = self.security_token.map(str::to_owned);
        let identity = Credentials::new(key_id, secret.expose(), token, None, "sluicegate").into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(self.expires);
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.made)
            .settings(settings)
            .build()
            .ok()?
            .into();
        // The host in the address is of no account: the header is what is signed.
        let uri = format!("https://token/?{}", self.query);
        let headers = [("host", self.host)].into_iter();
        let request = SignableRequest::new("GET", uri, headers, SignableBody::Bytes(b"")).ok()?;
        // At `trace` it logs what it signs, and the session token stands in that.
        let silence = NoSubscriber::default();
        let signed = tracing::subscriber::with_default(silence, || sign(request, &parameters));
        let (instructions, signature) = signed.ok()?.into_parts();
        let (_, pairs) = instructions.into_parts();
        Some((pairs.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect(), signature))
    }
}

fn check(holds: bool, refusal: TokenRefusal) -> Result<(), TokenRefusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

/// In time that depends on their lengths alone.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// `yyyymmddThhmmssZ`, nothing else.
fn time_of(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let has_form = bytes.len() == 16 && bytes.get(8) == Some(&b'T') && bytes.get(15) == Some(&b'Z');
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<u16>().ok()
    };
    let small = |range| number(range).and_then(|number| u8::try_from(number).ok());
    let month = Month::try_from(small(4..6)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0..4)?), month, small(6..8)?).ok()?;
    let time = Time::from_hms(small(9..11)?, small(11..13)?, small(13..15)?).ok()?;
    let moment: OffsetDateTime = PrimitiveDateTime::new(date, time).assume_utc();
    (has_form && moment.unix_timestamp() >= 0).then(|| moment.into())
}
