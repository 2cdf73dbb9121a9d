//! Reads `[[user]]`: who may come in.
//!
//! Checks beyond one key: the endpoints exist, and a method that needs a password has one.

use super::field::Field;
use super::groups::CONNECTIONS_MAX;
use super::table::Table;
use super::types::{
    AuthMethod, DatabaseAuth, EndpointConfig, TargetAddress, TargetGroupConfig, TargetTlsMode, UserConfig,
};
use super::{Names, secret, values};

const NAME_FORM: &str = "1 to 63 bytes";

/// As many as an endpoint may have.
const CLIENTS_MAX: i64 = 1_000_000;

const METHODS: [(&str, AuthMethod); 5] = [
    ("scram-sha-256", AuthMethod::ScramSha256),
    ("iam", AuthMethod::Iam),
    ("iam-or-password", AuthMethod::IamOrPassword),
    ("md5", AuthMethod::Md5),
    ("certificate", AuthMethod::Certificate),
];
/// By a password, in PostgreSQL's way and in MySQL's ways: each endpoint uses those of its engine.
const PASSWORD_METHODS: [&str; 3] = ["scram-sha-256", "caching_sha2_password", NATIVE];
const NATIVE: &str = "mysql_native_password";

/// Reads all users; there may be none.
pub(super) fn read_all(
    root: &Table<'_>,
    endpoints: &[EndpointConfig],
    groups: &[TargetGroupConfig],
    proofs: &Proofs,
) -> Vec<UserConfig> {
    let names_of: Vec<_> = endpoints.iter().map(|e| e.name.as_str()).collect();
    let mut names = Names::default();
    let read = |table: Table<'_>| {
        let database_auth = table.take("database_auth");
        let user = read(table, &mut names, &names_of, proofs, database_auth.as_ref());
        if let (Some(field), DatabaseAuth::Iam) = (&database_auth, user.database_auth) {
            check_token_login(field, &user, endpoints, groups, proofs);
        }
        user
    };
    root.children("user").into_iter().map(read).collect()
}

/// A token is a password that passes in the clear: only to whom it is meant for.
fn check_token_login(
    field: &Field<'_>,
    user: &UserConfig,
    endpoints: &[EndpointConfig],
    groups: &[TargetGroupConfig],
    proofs: &Proofs,
) {
    if let Err(reason) = &proofs.access_key {
        field.report_conflict(reason.clone());
    }
    let used = endpoints.iter().filter(|endpoint| user.may_use(&endpoint.name));
    for group in groups.iter().filter(|group| used.clone().any(|endpoint| endpoint.target_group == group.name)) {
        let is_local = group.targets.iter().any(|target| matches!(target, TargetAddress::Unix(_)));
        if group.tls.mode != TargetTlsMode::VerifyFull || is_local {
            field.report_conflict(format!(
                "a token goes to databases by TCP and tls = \"verify-full\" only; target group \"{}\" is spoken to in \
                 another way",
                group.name
            ));
        }
    }
}

/// What is there to check proofs against.
pub(super) struct Proofs {
    /// `[iam]`
    pub(super) iam: bool,
    /// `client_ca`
    pub(super) client_ca: bool,
    /// The access key for the proxy's own tokens, or why there is none.
    pub(super) access_key: Result<(), String>,
}

fn read(
    table: Table<'_>,
    names: &mut Names,
    endpoints: &[&str],
    proofs: &Proofs,
    database_auth: Option<&Field<'_>>,
) -> UserConfig {
    let name = names.read(&table, NAME_FORM, is_user_name);
    let auth = table.read("auth", Some((AuthMethod::ScramSha256, false)), |field| Some(read_auth(field, proofs)));
    let (auth, native_password) = (auth.map(|(auth, _)| auth), auth.is_some_and(|(_, native)| native));
    let password = table.take("password");
    if let (None, Some(auth)) = (&password, auth)
        && auth.needs_password()
    {
        let word = METHODS.iter().find(|(_, method)| *method == auth).map_or("", |(word, _)| *word);
        table.report_missing("password", &format!("for {word}: {}", secret::FORMS));
    }
    let certificate_names = table.take("certificate_names").and_then(|field| {
        let names = read_certificate_names(&field)?;
        if auth != Some(AuthMethod::Certificate) {
            field.report_conflict("goes with auth = [\"certificate\"] only".to_owned());
        }
        Some(names)
    });
    let user = UserConfig {
        auth: auth.unwrap_or(AuthMethod::ScramSha256),
        native_password,
        password: password.and_then(|field| field.secret()),
        // As PostgreSQL's `cert` has it.
        certificate_names: certificate_names.unwrap_or_else(|| vec![name.clone()]),
        database_user: table.read("database_user", name.clone(), |field| {
            let good = |text: &str| is_user_name(text).then(|| text.to_owned());
            field.parsed(NAME_FORM, good)
        }),
        database_auth: database_auth
            .and_then(|field| field.choice(&[("password", DatabaseAuth::Password), ("iam", DatabaseAuth::Iam)], &[]))
            .unwrap_or(DatabaseAuth::Password),
        endpoints: table.read("endpoints", None, |field| read_endpoints(field, endpoints).map(Some)),
        max_clients: table.read("max_clients", None, |field| field.integer(1..=CLIENTS_MAX).map(Some)),
        max_connections: table.read("max_connections", None, |field| field.integer(1..=CONNECTIONS_MAX).map(Some)),
        name,
    };
    table.finish();
    user
}

fn is_user_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= values::NAME_BYTES_MAX && !text.contains('\0')
}

/// The method, and whether it may be `mysql_native_password`; `None` once a mistake was reported. Ways to show a password may
/// stand beside each other.
fn read_auth(field: &Field<'_>, proofs: &Proofs) -> Option<(AuthMethod, bool)> {
    const ALLOWED: &str = "one method, such as [\"scram-sha-256\"] or [\"iam\"]";
    let fields = field.list(ALLOWED)?;
    let words: Option<Vec<_>> = fields.iter().map(|field| field.text(ALLOWED)).collect();
    let words = words?;
    if !words.is_empty() && words.iter().all(|word| PASSWORD_METHODS.contains(word)) {
        return Some((AuthMethod::ScramSha256, words.contains(&NATIVE)));
    }
    let methods: Option<Vec<_>> = fields.iter().map(|field| field.choice(&METHODS, &[])).collect();
    let [method] = methods?[..] else {
        field.report_conflict(format!(
            "PostgreSQL asks for one thing once: {ALLOWED}; for tokens and passwords both, [\"iam-or-password\"]"
        ));
        return None;
    };
    if method == AuthMethod::Certificate && !proofs.client_ca {
        field.report_conflict("client certificates need `client_ca` in [tls]".to_owned());
        return None;
    }
    if method.takes_tokens() && !proofs.iam {
        field.report_conflict("tokens need an [iam] table".to_owned());
        return None;
    }
    Some((method, false))
}

/// An empty list is the contract's default: the user's own name.
fn read_certificate_names(field: &Field<'_>) -> Option<Vec<String>> {
    const ALLOWED: &str = "a list of names as they stand in certificates, such as [\"app.internal\"]";
    let good = |text: &str| (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned());
    let names: Option<Vec<_>> = field.list(ALLOWED)?.iter().map(|field| field.parsed(ALLOWED, good)).collect();
    names.filter(|names| !names.is_empty())
}

fn read_endpoints(field: &Field<'_>, endpoints: &[&str]) -> Option<Vec<String>> {
    let fields = field.list("a list of endpoint names")?;
    if fields.is_empty() {
        field.report_impossible("at least one endpoint name; leave it out to allow all");
    }
    fields.iter().map(|field| field.reference("an endpoint", endpoints)).collect()
}
